//! A corner of a laboratory for one test: its own configuration, state, kept tokens, workflows and programs.
//!
//! Tests that share a laboratory do not meet but on the nodes.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::lab::Lab;

/// Where the laboratory's client looks for programs, after the corner's own.
const PROGRAMS: &[&str] = &["/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];
/// Everything that a run of token-push starts.
pub const STARTED: &[&str] = &[
    "kinit",
    "klist",
    "htgettoken",
    "condor_vault_storer",
    "condor_status",
    "condor_config_val",
    "ping",
    "ssh",
    "rsync",
];
/// Nothing here takes so long; it only ends a test that waits for what will never come.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// See the module's documentation.
pub struct Corner<'a> {
    pub lab: &'a Lab,
    dir: PathBuf,
}

/// A program that has ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl From<Output> for Ended {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("mt prints UTF-8");
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Ended {
    /// Its stdout as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("no JSON ({error}): {self:?}"))
    }

    /// Checks the exit code and shows what was said if it is another.
    #[track_caller]
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        self
    }

    /// Exit code 0 and not a word: what cron is to see.
    #[track_caller]
    pub fn is_quiet(&self) {
        assert_eq!((self.code, self.out.as_str(), self.err.as_str()), (Some(0), "", ""));
    }
}

/// Waits for something that other processes bring about.
#[track_caller]
pub fn wait_for(what: &str, mut come: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !come() {
        assert!(Instant::now() < until, "waited in vain for {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

impl<'a> Corner<'a> {
    /// A corner of this name. Its services get their tokens without a credd, which is quicker; see [`Self::configure`].
    pub fn new(lab: &'a Lab, name: &str) -> Self {
        let corner = Self { lab, dir: lab.path(format!("corner-{name}")) };
        for part in ["", "state", "tokens", "workflows", "bin", "calls"] {
            let dir = corner.path(part);
            fs::create_dir(&dir).expect("a corner has a name of its own");
            fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("it is ours");
            corner.give(&dir);
        }
        corner.configure(|_| {});
        corner
    }

    /// A file of the corner.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.join(below)
    }

    pub fn state(&self) -> PathBuf {
        self.path("state")
    }

    /// Gives a file to the client account.
    pub fn give(&self, path: &Path) {
        let client = fs::metadata(self.lab.path("state")).expect("the laboratory has a state directory");
        chown(path, Some(client.uid()), Some(client.gid())).expect("root may, and else it is ours already");
    }

    /// The client's numeric id: part of the kept files' names.
    pub fn own_uid(&self) -> u32 {
        fs::metadata(self.lab.path("state")).expect("the laboratory has a state directory").uid()
    }

    /// Writes the configuration anew: the laboratory's, with `getToken` for every service and this change.
    pub fn configure(&self, change: impl FnOnce(&mut Value)) {
        let text = fs::read_to_string(self.lab.path("managedTokens.json")).expect("the laboratory has one");
        let mut config: Value = serde_json::from_str(&text).expect("it is JSON");
        config["serviceCreddVaultTokenPathRoot"] = self.path("tokens").to_str().into();
        config["dbLocation"] = self.path("state/uid.db").to_str().into();
        for experiment in config["experiments"].as_object_mut().expect("a map").values_mut() {
            experiment["roles"]["production"]["tokenGetterOverride"] = "getToken".into();
        }
        change(&mut config);
        let path = self.path("managedTokens.json");
        fs::write(&path, config.to_string()).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }

    /// Puts a workflow into the directory of the site's own.
    pub fn workflow(&self, name: &str, text: &str) {
        let path = self.path(format!("workflows/{name}.ron"));
        fs::write(&path, text).expect("it can be written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("it is ours");
    }

    /// `mt` in this corner, not started yet. The child's pid is the guardian's, where there is one.
    pub fn mt(&self, arguments: &[&str]) -> Command {
        self.called("mt", arguments)
    }

    /// `mt` under another name, which must be a link in the corner's programs.
    pub fn called(&self, name: &str, arguments: &[&str]) -> Command {
        let path =
            format!("PATH={}:{}:{}", self.path("bin").display(), self.lab.path("bin").display(), PROGRAMS.join(":"));
        let mut command = self.lab.command(&[&["env", &path, name], arguments].concat());
        command
            .env("MT_CONFIG", self.path("managedTokens.json"))
            .env("MT_STATE_DIR", self.state())
            .env("MT_WORKFLOW_DIR", self.path("workflows"));
        command
    }

    /// Runs `mt` to its end.
    pub fn run(&self, arguments: &[&str]) -> Ended {
        self.mt(arguments).output().expect("lab/lab can be started").into()
    }

    /// Starts `mt` and comes back.
    pub fn start(&self, arguments: &[&str]) -> Started {
        let mut command = self.mt(arguments);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        Started { child: command.spawn().expect("lab/lab can be started") }
    }

    /// `mt runs list`.
    pub fn runs(&self) -> Vec<Value> {
        let list = self.run(&["runs", "list", "--output", "json"]).exits(0).json();
        list["runs"].as_array().expect("a list of runs").clone()
    }

    /// `mt runs show`.
    pub fn show(&self, run: &str) -> Value {
        self.run(&["runs", "show", run, "--output", "json"]).exits(0).json()["run"].clone()
    }

    /// Records the calls of a program from now on. `first` is a piece of sh that each call runs before the program
    /// itself; it may exit instead.
    pub fn spy(&self, program: &str, first: &str) {
        let real = [self.lab.path("bin")].into_iter().chain(PROGRAMS.iter().map(PathBuf::from));
        let real = real.map(|dir| dir.join(program)).find(|path| path.exists()).expect("the program is installed");
        // One write of less than a page to a file opened for appending: calls at once do not mix. The name in the
        // comment is what mt looks for in the storer.
        let script = format!(
            "#!/bin/sh\n# CONDOR_VAULT_STORER_ID\nprintf '%s\\n' \"$*\" >>{calls}\n{first}\nexec {real} \"$@\"\n",
            calls = self.calls_file(program).display(),
            real = real.display(),
        );
        self.program(program, &script);
    }

    /// Puts a program before all others.
    pub fn program(&self, name: &str, script: &str) {
        let new = self.path(format!("bin/.{name}.new"));
        fs::write(&new, script).expect("it can be written");
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755)).expect("it is ours");
        fs::rename(new, self.path("bin").join(name)).expect("it is ours");
    }

    fn calls_file(&self, program: &str) -> PathBuf {
        self.path("calls").join(program)
    }

    /// The arguments of every call of a program so far, one call a line.
    pub fn calls(&self, program: &str) -> Vec<String> {
        let calls = fs::read_to_string(self.calls_file(program)).unwrap_or_default();
        calls.lines().map(str::to_owned).collect()
    }

    /// Forgets the calls so far.
    pub fn forget_calls(&self) {
        for calls in fs::read_dir(self.path("calls")).expect("it is ours") {
            fs::remove_file(calls.expect("it can be read").path()).expect("it is ours");
        }
    }

    /// From now on the program waits until the gate is opened. Calls are recorded, too.
    pub fn hold(&self, program: &str) -> Gate {
        let closed = self.path(format!("{program}.closed"));
        fs::write(&closed, "").expect("it can be written");
        self.spy(program, &format!("while [ -e {} ]; do sleep 0.05; done", closed.display()));
        Gate { closed }
    }

    /// The processes of this corner: those that have its programs in their PATH. `mt` itself, its guardian, and every
    /// child down to what a child has started.
    pub fn processes(&self) -> Vec<String> {
        let mark = self.path("bin").into_os_string().into_encoded_bytes();
        let all = fs::read_dir("/proc").expect("/proc can be read").flatten().map(|entry| entry.path());
        all.filter(|process| {
            fs::read(process.join("environ")).is_ok_and(|text| text.windows(mark.len()).any(|window| window == mark))
        })
        .map(|process| fs::read_to_string(process.join("cmdline")).unwrap_or_default().replace('\0', " "))
        .collect()
    }

    /// The pids of the `mt` of this corner, guardians included.
    pub fn mt_pids(&self) -> Vec<i32> {
        let mark = self.path("bin").into_os_string().into_encoded_bytes();
        let all = fs::read_dir("/proc").expect("/proc can be read").flatten().map(|entry| entry.path());
        let ours = all.filter(|process| {
            let name = fs::read_to_string(process.join("comm")).unwrap_or_default();
            matches!(name.trim(), "mt" | "mt-guardian")
                && fs::read(process.join("environ"))
                    .is_ok_and(|text| text.windows(mark.len()).any(|piece| piece == mark))
        });
        ours.filter_map(|process| process.file_name()?.to_str()?.parse().ok()).collect()
    }

    /// What processes of `mt` keep for themselves, which goes with them.
    pub fn private_files(&self) -> Vec<PathBuf> {
        files_below(&self.state().join("run"))
    }
}

/// A running `mt`. Its process, if it still is there, is killed when dropped: the guardian clears up.
pub struct Started {
    child: Child,
}

impl Started {
    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = i32::try_from(self.child.id()).expect("a pid");
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).expect("it is our child");
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("it is our child").is_none()
    }

    pub fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"))
    }

    /// Waits for its end.
    pub fn end(mut self) -> Ended {
        self.wait()
    }

    /// The same; once.
    pub fn wait(&mut self) -> Ended {
        // What mt prints fits into a pipe.
        let status = self.child.wait().expect("it is our child");
        let mut ended = Ended { code: status.code(), out: String::new(), err: String::new() };
        use std::io::Read;
        self.child.stdout.take().expect("a pipe").read_to_string(&mut ended.out).expect("UTF-8");
        self.child.stderr.take().expect("a pipe").read_to_string(&mut ended.err).expect("UTF-8");
        ended
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A closed gate in front of a program. Dropping it opens it.
pub struct Gate {
    closed: PathBuf,
}

impl Gate {
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.closed);
    }
}

/// Every file and directory below, not the directory itself; sorted.
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_below(&entry.path()));
        }
    }
    found.sort();
    found
}

/// The step of a machine in what `mt runs show` says.
#[track_caller]
pub fn step<'v>(run: &'v Value, subject: &str, name: &str) -> &'v Value {
    let machine = run["machines"].as_array().and_then(|all| all.iter().find(|m| m["subject"] == subject));
    let steps = machine.and_then(|m| m["steps"].as_array());
    steps
        .and_then(|all| all.iter().find(|s| s["name"] == name))
        .unwrap_or_else(|| panic!("{subject} has no {name}: {run}"))
}

/// The target of a step in what `mt runs show` says.
#[track_caller]
pub fn target<'v>(run: &'v Value, subject: &str, name: &str, target: &str) -> &'v Value {
    let targets = step(run, subject, name)["targets"].as_array();
    targets
        .and_then(|all| all.iter().find(|t| t["name"] == target))
        .unwrap_or_else(|| panic!("{name} has no {target}: {run}"))
}
