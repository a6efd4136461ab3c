//! One signal at one step of one run: waits until the step is under way, shoots, and looks at what is left.

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{self, SigHandler, Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::DUNE;
use crate::held::{Held, Hold};
use crate::support::corner::{Corner, wait_for};
use crate::support::lab::Lab;
use crate::support::{terminal, unread};

/// What is done to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shot {
    /// A process sends it to the pid that was started.
    Sent(Signal),
    /// Both processes get it, which is to change nothing.
    Both(Signal),
    /// The person types Ctrl-C.
    CtrlC,
    /// The terminal goes away.
    TerminalClosed,
    /// Both processes get it, and were started to ignore it, as nohup does, or a shell without job control.
    Ignored(Signal),
    /// Whoever reads what mt says goes away.
    ReaderGone,
    /// Whoever reads what mt says has stopped reading before it began.
    ReaderStopped,
    /// The same on a terminal.
    ScreenStopped,
    /// A background job of a shell whose terminal stops those that write (`stty tostop`).
    Background,
    /// Ctrl-C, a second of patience, Ctrl-C, while the worker does not get to its end.
    CtrlCTwice,
    KillWorker,
    KillGuardian,
    KillBoth,
}

/// A step, and what holds it up.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// Its name in the workflow.
    pub name: &'static str,
    /// The workflow: a shipped one, or `own`, which has two programs of a site's own.
    pub workflow: &'static str,
    pub held: Held,
}

/// A workflow without any service around it.
const OWN: &str = r#"Workflow(
    name: "own", for_each: Service, deadline: "5m",
    steps: [
        Step(name: "first", action: Exec(command: ["first"]), timeout: "1m"),
        Step(name: "second", action: Exec(command: ["second"]), per: Node, timeout: "1m", on_failure: Continue),
    ],
)"#;

/// How a run ended, and what it left.
#[derive(Debug, PartialEq, Eq)]
pub struct End {
    /// Exit code, or 128 and the signal, as a shell says it.
    pub code: i32,
    pub status: String,
    /// How its session ended. One that was killed is `lost`, which the next session records.
    pub session: String,
}

/// Plays it: the end of the run. Checks what is always true: no process, no private file is left, and a run that was cut off is
/// finished by a resume.
pub fn play(lab: &Lab, step: Step, shot: Shot, deaf: bool) -> End {
    let corner = Corner::new(lab, &format!("{}-{shot:?}-{deaf}", step.name).replace(['(', ')'], "-").to_lowercase());
    if shot == Shot::ScreenStopped {
        // Not even of the log is there anything to say: what waits for the screen is what moves on it.
        corner.configure(|config| config["logs"]["own"] = json!({ "logfile": "/dev/null", "debugfile": "/dev/null" }));
    }
    corner.workflow("own", OWN);
    for program in ["first", "second"] {
        corner.program(program, "#!/bin/sh\n");
    }
    let hold = Hold::of(&corner, step, deaf);
    let mut words = vec!["run", step.workflow, "-s", DUNE];
    if step.workflow == "ferry-refresh" {
        // So there is a program to hold.
        words.extend(["--authmethod", "jwt"]);
    }
    if matches!(shot, Shot::ReaderGone | Shot::ReaderStopped | Shot::Background) {
        // A run that goes well has nothing to say, and nobody would be missed. On a screen it draws.
        words.push("-vv");
    }
    let mut run = Run::start(&corner, &words, shot);
    hold.wait();
    let goes_on = run.shoot(shot);
    if goes_on {
        // It has heard what there is to hear, and works: now the step may end.
        assert!(run.is_running(), "{shot:?}");
        hold.open();
    }
    let code = run.end();
    if shot == Shot::KillBoth {
        assert_ne!(corner.processes().is_empty(), step.held.has_children(), "nobody was there to end them");
    } else {
        // A worker whose guardian was killed ends by itself.
        wait_for("the end of all processes", || shot != Shot::KillGuardian || corner.processes().is_empty());
        assert_eq!(corner.processes(), [""; 0], "{shot:?} at {}", step.name);
        assert_eq!(corner.private_files(), [""; 0].map(PathBuf::from), "{shot:?} at {}", step.name);
    }
    let found = corner.show("latest");
    let status = found["status"].as_str().expect("a status").to_owned();
    let mut after = found.clone();
    if status == "interrupted" {
        hold.open();
        corner.run(&["runs", "resume"]).exits(0);
        after = corner.show("latest");
        assert_eq!((&after["id"], after["status"].as_str()), (&found["id"], Some("succeeded")), "{shot:?}");
        assert_eq!(corner.processes(), [""; 0], "{shot:?} at {}", step.name);
        assert_eq!(corner.private_files(), [""; 0].map(PathBuf::from), "{shot:?} at {}", step.name);
    }
    let session = after["sessions"][0]["end"].as_str().expect("it has ended").to_owned();
    End { code, status, session }
}

/// The same as a background job of a shell, whose exit code is that of the job. Stopped, the job has that of its signal.
fn in_background(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-mc", "stty tostop; \"$@\" & wait $!", "sh"]).arg(command.get_program()).args(command.get_args());
    shell.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    shell
}

/// A running `mt`, on a terminal if the shot needs one.
pub struct Run {
    mt: Child,
    /// Dropped to close the terminal.
    terminal: Option<Terminal>,
    /// Nobody reads from it, and it is not closed.
    _unread: Option<OwnedFd>,
}

struct Terminal {
    keyboard: File,
    reader: std::thread::JoinHandle<()>,
    closing: Arc<AtomicBool>,
}

impl Run {
    pub fn start(corner: &Corner<'_>, words: &[&str], shot: Shot) -> Self {
        let mut command = corner.mt(words);
        if let Shot::Ignored(ignored) = shot {
            // SAFETY: it calls nothing but signal(2), which may be called between fork and exec.
            unsafe {
                command.pre_exec(move || {
                    signal::signal(ignored, SigHandler::SigIgn)?;
                    Ok(())
                });
            }
        }
        match shot {
            Shot::CtrlC | Shot::CtrlCTwice | Shot::TerminalClosed => {
                let (mt, keyboard) = terminal::spawn(command);
                Self { mt, terminal: Some(Terminal::over(keyboard)), _unread: None }
            }
            Shot::Background => {
                let (shell, keyboard) = terminal::spawn(in_background(&command));
                Self { mt: shell, terminal: Some(Terminal::over(keyboard)), _unread: None }
            }
            Shot::ScreenStopped => {
                let (mt, keyboard) = terminal::spawn_full(command);
                Self { mt, terminal: None, _unread: Some(keyboard.into()) }
            }
            Shot::ReaderStopped => {
                let (unread, full) = unread::full_pipe();
                let mt = command.stdout(Stdio::null()).stderr(full).spawn().expect("lab/lab can be started");
                Self { mt, terminal: None, _unread: Some(unread.into()) }
            }
            Shot::Sent(_)
            | Shot::Both(_)
            | Shot::Ignored(_)
            | Shot::ReaderGone
            | Shot::KillWorker
            | Shot::KillGuardian
            | Shot::KillBoth => {
                let mt = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("lab/lab can be started");
                Self { mt, terminal: None, _unread: None }
            }
        }
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.mt.id()).expect("a pid"))
    }

    /// The first `mt` among the guardian's children; the others are orphans that came to it.
    fn worker(&self) -> Pid {
        let pid = self.pid();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).expect("it is our child");
        let mut children = children.split_whitespace().map(|pid| pid.parse().expect("a pid"));
        let is_mt = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() == "mt");
        Pid::from_raw(children.find(is_mt).expect("a worker"))
    }

    /// Shoots. `true`: nothing is to end by it.
    pub fn shoot(&mut self, shot: Shot) -> bool {
        if matches!(shot, Shot::ReaderStopped | Shot::ScreenStopped | Shot::Background) {
            // So it is from the beginning, and what was started may be a shell.
            return true;
        }
        let (guardian, worker) = (self.pid(), self.worker());
        let send = |pid, signal| kill(pid, signal).expect("it is running");
        match shot {
            Shot::Sent(signal) => send(guardian, signal),
            Shot::Both(signal) | Shot::Ignored(signal) => {
                for pid in [guardian, worker] {
                    send(pid, signal);
                }
                return true;
            }
            Shot::CtrlC => self.type_ctrl_c(),
            Shot::CtrlCTwice => {
                // It would be done in two seconds at most, and perhaps before it is asked again.
                send(worker, Signal::SIGSTOP);
                self.type_ctrl_c();
                // What is tested is the pause itself. Of two that come too late for their pause the guardian hears one.
                wait_for("the end of patience", || {
                    std::thread::sleep(std::time::Duration::from_millis(1_100));
                    let runs = self.is_running();
                    if runs {
                        self.type_ctrl_c();
                    }
                    !runs
                });
            }
            Shot::TerminalClosed => self.terminal.take().expect("a terminal").close(),
            Shot::ReaderGone => {
                drop(self.mt.stderr.take());
                return true;
            }
            Shot::ReaderStopped | Shot::ScreenStopped | Shot::Background => unreachable!("see above"),
            Shot::KillWorker => send(worker, Signal::SIGKILL),
            Shot::KillGuardian => send(guardian, Signal::SIGKILL),
            Shot::KillBoth => {
                // Stopped first, so that neither can do anything about the other's death.
                for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
                    send(worker, signal);
                    send(guardian, signal);
                }
            }
        }
        false
    }

    fn type_ctrl_c(&mut self) {
        use std::io::Write;
        self.terminal.as_mut().expect("a terminal").keyboard.write_all(b"\x03").expect("it is open");
    }

    /// What it says on its stderr until it ends.
    pub fn said(&mut self) -> String {
        let mut said = String::new();
        self.mt.stderr.take().expect("a pipe").read_to_string(&mut said).expect("UTF-8");
        said
    }

    fn is_running(&mut self) -> bool {
        self.mt.try_wait().expect("it is our child").is_none()
    }

    /// Exit code, or 128 and the signal.
    pub fn end(mut self) -> i32 {
        wait_for("the end of mt", || !self.is_running());
        let status = self.mt.wait().expect("it is our child");
        if let Some(terminal) = self.terminal.take() {
            terminal.close();
        }
        status.code().or(status.signal().map(|signal| 128 + signal)).expect("one of them")
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.mt.kill();
        let _ = self.mt.wait();
    }
}

impl Terminal {
    /// Somebody reads what is shown, so that nobody waits for room on the screen.
    fn over(keyboard: File) -> Self {
        let closing = Arc::new(AtomicBool::new(false));
        let (mut screen, closed) = (keyboard.try_clone().expect("a descriptor"), closing.clone());
        let reader = std::thread::spawn(move || {
            let mut piece = [0; 4_096];
            while !closed.load(Ordering::SeqCst) {
                let mut wait = [PollFd::new(screen.as_fd(), PollFlags::POLLIN)];
                match poll(&mut wait, PollTimeout::from(20_u8)) {
                    Ok(0) => {}
                    // A terminal that nobody has open any more is an error on Linux.
                    Ok(_) if matches!(screen.read(&mut piece), Ok(1..)) => {}
                    Ok(_) | Err(_) => return,
                }
            }
        });
        Self { keyboard, reader, closing }
    }

    fn close(self) {
        self.closing.store(true, Ordering::SeqCst);
        self.reader.join().expect("it only reads");
        drop(self.keyboard);
    }
}
