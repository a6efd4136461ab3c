//! A laboratory of real services (`lab/README.md`) for one test, taken down whatever becomes of the test.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use nix::sys::signal::{self, SigHandler, Signal};

/// `lab/lab` exits with this where the machine cannot hold a laboratory.
const NO_NAMESPACES: i32 = 3;

/// A running laboratory with this build's `mt` in it.
///
/// Dropping it takes it down, in a panic too. When the test process is killed, a watcher outside does the same. With `LAB_KEEP`
/// set in the environment its directory stays, for reading the logs.
pub struct Lab {
    dir: tempfile::TempDir,
}

/// A message that the mail server has accepted.
#[derive(Debug)]
pub struct Mail {
    pub from: String,
    pub to: Vec<String>,
    /// Header and body as they were sent.
    pub text: String,
}

impl Lab {
    /// Raises a laboratory, in about a second.
    ///
    /// `None` where neither root nor user namespaces are to be had: the test is skipped, which stderr says. Use it as
    /// `let Some(lab) = Lab::up() else { return };`.
    ///
    /// # Panics
    /// When it does not come up, with what `lab/lab` says, for instance that it is not installed.
    pub fn up() -> Option<Lab> {
        // Short and directly under /tmp: the client account must be able to reach it, which TMPDIR does not promise.
        let dir = tempfile::Builder::new().prefix("mt-lab.").tempdir_in("/tmp").expect("a directory under /tmp");
        let lab = Lab { dir };
        let output = lab
            .tool("up")
            .args(["--with-parent", &std::process::id().to_string()])
            .env("LAB_MT", env!("CARGO_BIN_EXE_mt"))
            .output()
            .expect("lab/lab can be started");
        let message = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => Some(lab),
            Some(NO_NAMESPACES) => {
                eprintln!("SKIPPED, no laboratory on this machine: {}", message.trim());
                None
            }
            _ => panic!("the laboratory did not come up: {message}"),
        }
    }

    /// The directory that holds everything, `$LAB`.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file or directory of the laboratory, such as `managedTokens.json`, `tokens` or `keytabs/dunepro.keytab`.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(below)
    }

    /// `command` as the client account inside the laboratory, not started yet. `MT_*` and `RUST_*` set on it reach the program; of
    /// other variables only those that `LAB_RUN_ENV_PASS` names. The child's pid is the program's own.
    pub fn command<S: AsRef<OsStr>>(&self, command: &[S]) -> Command {
        let mut run = self.tool("run");
        run.args(command).stdin(Stdio::null());
        // A shell without job control makes what it starts in the background ignore two of them, nohup the third, and all
        // children inherit that.
        // SAFETY: it calls nothing but signal(2), which may be called between fork and exec.
        unsafe {
            run.pre_exec(|| {
                for signal in [Signal::SIGINT, Signal::SIGQUIT, Signal::SIGHUP] {
                    signal::signal(signal, SigHandler::SigDfl)?;
                }
                Ok(())
            });
        }
        run
    }

    /// Runs `command` as the client account to its end.
    pub fn run<S: AsRef<OsStr>>(&self, command: &[S]) -> Output {
        self.command(command).output().expect("lab/lab can be started")
    }

    /// Runs `command` as the client account, with stdout and stderr piped.
    pub fn spawn<S: AsRef<OsStr>>(&self, command: &[S]) -> Child {
        self.command(command).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("lab/lab can be started")
    }

    /// Runs `command` inside a node (`node1` to `node4`), as root there; unprivileged, as the caller.
    pub fn node<S: AsRef<OsStr>>(&self, name: &str, command: &[S]) -> Output {
        self.tool("node").arg(name).args(command).stdin(Stdio::null()).output().expect("lab/lab can be started")
    }

    /// Sets a fault, such as `("schedd1", "denied")` or `("vault", "403")`. `("schedd1", "ok")` takes it back.
    pub fn fault(&self, name: &str, kind: &str) {
        self.must("fault", &[name, kind]);
    }

    /// Puts a gremlin in front of a peer, such as `("vault", "slow 1")`, or beside it at a port: `("vault:7001", "garbage")`.
    /// `ok` takes it away.
    pub fn gremlin(&self, peer: &str, kind: &str) {
        self.must("gremlin", &[peer, kind]);
    }

    /// Stops a service (`kdc`, `vault`, `node1`, `smtp`, ...) without closing its port: whoever calls it waits.
    pub fn pause(&self, name: &str) {
        self.must("pause", &[name]);
    }

    pub fn resume(&self, name: &str) {
        self.must("resume", &[name]);
    }

    /// Ends a service for the rest of this laboratory's life.
    pub fn kill(&self, name: &str) {
        self.must("kill", &[name]);
    }

    /// The messages that have arrived so far, oldest first.
    pub fn mails(&self) -> Vec<Mail> {
        let mut messages: Vec<PathBuf> = std::fs::read_dir(self.path("out/mail"))
            .expect("the mail directory exists while the laboratory is up")
            .map(|entry| entry.expect("the mail directory can be read").path())
            .filter(|path| path.extension() == Some(OsStr::new("eml")))
            .collect();
        // The names begin with the time of arrival.
        messages.sort();
        messages.iter().map(|path| Mail::read(path)).collect()
    }

    /// The bodies that were posted to the Slack webhook, oldest first.
    pub fn slack(&self) -> Vec<serde_json::Value> {
        let lines = std::fs::read_to_string(self.path("out/slack.jsonl")).unwrap_or_default();
        lines
            .lines()
            .map(|line| {
                let record: serde_json::Value = serde_json::from_str(line).expect("the stand-in writes JSON");
                serde_json::from_str(record["body"].as_str().expect("a body")).expect("a webhook gets JSON")
            })
            .collect()
    }

    /// Why the vault has turned Kerberos logins down so far, in its own words: htgettoken only says `Unauthorized`.
    pub fn refused_logins(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.path("log/vault.log")).expect("the vault writes a log");
        let logins = log.lines().filter(|line| line.contains("SPNEGO") && !line.contains("authentication succeeded"));
        logins.map(str::to_owned).collect()
    }

    /// Whether node accounts and client are different users, so that ownership on a node can be told apart.
    pub fn has_own_accounts(&self) -> bool {
        nix::unistd::geteuid().is_root()
    }

    /// `lab/lab COMMAND` for this laboratory, not started yet.
    pub fn tool(&self, command: &str) -> Command {
        let mut tool = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/lab/lab"));
        tool.arg(command).env("LAB", self.dir());
        tool
    }

    fn must(&self, command: &str, arguments: &[&str]) {
        let output = self.tool(command).args(arguments).output().expect("lab/lab can be started");
        assert!(output.status.success(), "lab {command} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let keep = std::env::var_os("LAB_KEEP").is_some();
        if keep {
            self.dir.disable_cleanup(true);
            eprintln!("LAB_KEEP: the laboratory's directory is {}", self.dir().display());
        }
        let down = self.tool("down").args((!keep).then_some("--purge")).output();
        // A panic in here would abort the tests that are still running.
        match down {
            Ok(output) if output.status.success() => {}
            Ok(output) => eprintln!("lab down failed: {}", String::from_utf8_lossy(&output.stderr)),
            Err(error) => eprintln!("lab down failed: {error}"),
        }
    }
}

impl Mail {
    fn read(message: &Path) -> Mail {
        let envelope = std::fs::read(message.with_extension("json")).expect("every message has an envelope");
        let envelope: serde_json::Value = serde_json::from_slice(&envelope).expect("an envelope is JSON");
        let to = envelope["to"].as_array().expect("a list of recipients").iter();
        Mail {
            from: envelope["from"].as_str().unwrap_or_default().to_owned(),
            to: to.filter_map(|address| address.as_str().map(str::to_owned)).collect(),
            text: std::fs::read_to_string(message).expect("the message can be read"),
        }
    }
}
