//! What the tests use: a directory of their own, an acting process in it, and looks at what is left of it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use managed_tokens::process::MARK;
use managed_tokens::workflow::id::ProcessId;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::{ROLE, WORLD};

pub struct World {
    pub dir: tempfile::TempDir,
    pub run: PathBuf,
    pub shared: PathBuf,
}

pub fn world() -> World {
    let dir = tempfile::tempdir().unwrap();
    let (run, shared) = (dir.path().join("run"), dir.path().join("shared"));
    fs::create_dir(&shared).unwrap();
    World { dir, run, shared }
}

impl World {
    pub fn command(&self, what: &str, argument: &str) -> Command {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([&self.run, &self.shared]).args([what, argument]).env(ROLE, "acting").stdin(Stdio::null());
        command
    }

    pub fn start(&self, what: &str, argument: &str) -> Acting {
        let mut guardian = self.command(what, argument).stdout(Stdio::piped()).spawn().unwrap();
        let mut said = BufReader::new(guardian.stdout.take().unwrap());
        let mut first = String::new();
        said.read_line(&mut first).unwrap();
        let words: Vec<&str> = first.split_whitespace().collect();
        let [process, worker, above] = words[..] else { panic!("{first:?}") };
        let worker = Pid::from_raw(worker.parse().unwrap());
        assert_eq!(above.parse(), Ok(guardian.id()), "the pid that was started is the guardian's");
        Acting { guardian, said, worker, process: process.parse().unwrap() }
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Waits until a script has written its pid there.
    pub fn pid(&self, name: &str) -> Pid {
        let file = self.file(name);
        eventually(name, || fs::read_to_string(&file).ok()?.strip_suffix('\n')?.parse().ok().map(Pid::from_raw))
    }

    pub fn assert_nothing_is_left(&self) {
        for directory in [&self.run, &self.shared] {
            let names: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert!(names.is_empty(), "{names:?}");
        }
    }
}

pub struct Acting {
    pub guardian: Child,
    pub said: BufReader<std::process::ChildStdout>,
    pub worker: Pid,
    pub process: ProcessId,
}

impl Acting {
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.said.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    }

    pub fn guardian(&self) -> Pid {
        Pid::from_raw(self.guardian.id().try_into().unwrap())
    }

    pub fn end(&mut self) -> ExitStatus {
        wait(&mut self.guardian)
    }
}

impl Drop for Acting {
    /// A failed test leaves nothing running.
    fn drop(&mut self) {
        end_gently(&mut self.guardian);
        for pid in marked(self.process) {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

/// Kills the worker, so that its guardian ends all the rest; the guardian itself only if it does not.
pub fn end_gently(guardian: &mut Child) {
    let id = guardian.id();
    let _ = kill(Pid::from_raw(id.try_into().unwrap()), Signal::SIGCONT);
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for child in children.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        let _ = kill(Pid::from_raw(child), Signal::SIGKILL);
    }
    for _ in 0..5000 {
        if !matches!(guardian.try_wait(), Ok(None)) {
            return;
        }
        sleep(Duration::from_millis(1));
    }
    let _ = guardian.kill();
    let _ = guardian.wait();
}

pub fn wait(child: &mut Child) -> ExitStatus {
    eventually("the guardian ends", || child.try_wait().unwrap())
}

/// Looks until it is so. The limit is for a broken promise only.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        if let Some(found) = look() {
            return found;
        }
        sleep(Duration::from_millis(1));
    }
    panic!("never happened: {what}");
}

pub fn is_dead(pid: Pid) -> bool {
    match fs::read_to_string(format!("/proc/{pid}/stat")) {
        Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with(['Z', 'X'])),
        Err(_) => true,
    }
}

pub fn parent(pid: Pid) -> Option<Pid> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit(')').next()?.split_whitespace().nth(1)?.parse().ok().map(Pid::from_raw)
}

pub fn marked(process: ProcessId) -> Vec<Pid> {
    with_variable(&format!("{MARK}={process}"))
}

/// Those that a test has started here with [`WORLD`], and what they have started.
pub fn of_world(directory: &Path) -> Vec<Pid> {
    with_variable(&format!("{WORLD}={}", directory.display()))
}

fn with_variable(mark: &str) -> Vec<Pid> {
    fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let environ = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| entry == mark.as_bytes())
        })
        .map(Pid::from_raw)
        .collect()
}

/// A child, one that is deaf to SIGTERM, a daemon in a session of its own whose parent is gone, and one without the mark.
pub fn family(world: &World) -> String {
    let there = |name: &str| world.file(name).display().to_string();
    format!(
        "sleep 1000 & echo $! > {}; \
         sh -c \"trap '' TERM HUP INT; echo \\$\\$ > {}; while :; do sleep 1000; done\" & \
         (setsid sh -c 'echo $$ > {}; exec sleep 1000' &) ; \
         env -i sh -c 'echo $$ > {}; exec sleep 1000' & \
         wait",
        there("child"),
        there("deaf"),
        there("daemon"),
        there("unmarked"),
    )
}

pub const FAMILY: [&str; 4] = ["child", "deaf", "daemon", "unmarked"];
