//! The only place that starts a child process.
//!
//! Every child gets an explicit environment, a process group of its own, bounded output, and is gone, with its whole
//! group, when `run` returns.

mod capture;
mod lookup;
mod running;
mod shown;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::sync::OnceLock;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;
use tracing::field::Empty;

use self::running::{End, Running};
use crate::crash_point::{CrashPoint, pass};
use crate::workflow::code::Code;
use crate::workflow::id::ProcessId;

/// A program is not there.
pub const PROGRAM_MISSING: Code = Code(91);
/// A program is there and could not be started.
pub const PROGRAM_NOT_STARTED: Code = Code(92);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        PROGRAM_MISSING,
        "a program is not installed",
        "mt works with kinit, klist, htgettoken, condor_vault_storer, rsync, ssh and ping, and looks for them in the PATH\n\
         that the message names.\n\
         Install the package that has it, or correct the PATH of the service;  command -v PROGRAM  as the account that\n\
         runs mt shows which one is found.",
    ),
    (
        PROGRAM_NOT_STARTED,
        "a program could not be started",
        "It is there, but the system refused to start it. The message says why: not executable for us, its interpreter is\n\
         missing, its working directory is gone, or the account may have no more processes (ulimit -u).\n\
         Try it by hand as the account that runs mt.",
    ),
];

/// The span of `tracing` in which a child lives: `program`, `command` (as the log shows it), and once they are known `pid`,
/// `exit` and `how`.
pub const SPAN: &str = "child";

/// The variable by which the children of a dead process are found: its value is the process id.
pub const MARK: &str = "MT_PROCESS";

static MARKED: OnceLock<ProcessId> = OnceLock::new();

/// From now on every child carries this process's mark. Set once, by [`crate::guardian::enter`]; later calls change nothing.
pub fn set_mark(process: ProcessId) {
    MARKED.get_or_init(|| process);
}

/// A child to start.
#[derive(Clone, Debug)]
pub struct Command {
    program: OsString,
    args: Vec<OsString>,
    env: BTreeMap<OsString, OsString>,
    directory: Option<PathBuf>,
    terminal: bool,
}

impl Command {
    /// A program, looked up in the PATH of the child's environment. The environment starts empty.
    pub fn new(program: impl Into<OsString>) -> Self {
        Self { program: program.into(), args: Vec::new(), env: BTreeMap::new(), directory: None, terminal: false }
    }

    /// One more argument; never a secret (see [`run`]).
    pub fn arg(mut self, arg: impl Into<OsString>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// More arguments.
    pub fn args<I: IntoIterator<Item = S>, S: Into<OsString>>(mut self, args: I) -> Self {
        self.args.extend(args.into_iter().map(Into::into));
        self
    }

    /// One variable.
    pub fn env(mut self, key: impl Into<OsString>, value: impl Into<OsString>) -> Self {
        self.env.insert(key.into(), value.into());
        self
    }

    /// More variables.
    pub fn envs<I: IntoIterator<Item = (K, V)>, K: Into<OsString>, V: Into<OsString>>(mut self, vars: I) -> Self {
        self.env.extend(vars.into_iter().map(|(k, v)| (k.into(), v.into())));
        self
    }

    /// Its working directory; without this, `/`.
    pub fn directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.directory = Some(path.into());
        self
    }

    /// Hands the terminal to the child: our stdin, stdout and stderr, our process group, so that it stays in the foreground
    /// and may read. Nothing is captured, and only the child itself is ended, not what it starts. Only for onboarding.
    pub fn on_the_terminal(mut self) -> Self {
        self.terminal = true;
        self
    }

    /// The program's name, for messages.
    pub fn program(&self) -> &OsStr {
        &self.program
    }
}

/// How a child ended.
#[derive(Clone, Debug)]
pub struct Finished {
    /// The exit code, or the signal that killed it.
    pub exit: Exit,
    /// The first 64 KiB of its stdout, as it was: may hold secrets, so it is only for parsers.
    pub stdout: Vec<u8>,
    /// The last 8 KiB of its stderr and stdout in the order of arrival, redacted: for people and for classification.
    pub output: String,
}

impl Finished {
    /// Ended with exit code 0?
    pub fn success(&self) -> bool {
        self.exit == Exit::Code(0)
    }
}

/// Exit code or signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It exited.
    Code(i32),
    /// A signal killed it.
    Signal(i32),
}

/// The child could not be started, or was ended by us.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// It could not be started. `NotFound` means the program, its interpreter or its directory is missing; the text of
    /// the source says which.
    #[error("cannot start {}: {source}", program.to_string_lossy())]
    Start {
        /// The program.
        program: OsString,
        /// Why.
        source: std::io::Error,
    },
    /// `cancel` was cancelled; the child and its group are gone.
    #[error("{} was stopped", program.to_string_lossy())]
    Cancelled {
        /// The program.
        program: OsString,
        /// What it had said (last 8 KiB, redacted).
        output: String,
    },
}

impl RunError {
    /// What `mt explain` knows about it; `None` for a child that we stopped.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Start { source, .. } if source.kind() == std::io::ErrorKind::NotFound => Some(PROGRAM_MISSING),
            Self::Start { .. } => Some(PROGRAM_NOT_STARTED),
            Self::Cancelled { .. } => None,
        }
    }
}

/// Runs a child to its end.
///
/// The child gets the environment it was given, the mark of this process, `/dev/null` for its stdin, and a process group of
/// its own. It is started without copying this process (no `pre_exec`), which takes 0.3 ms at any size of ours.
///
/// When `cancel` is cancelled, the group gets SIGTERM and, 2 s later, SIGKILL; this returns 2.5 s after that at the
/// latest, even if the kernel keeps the child; at once if the child is not even started yet, which then never does anything. When the child has exited and left members of its group behind, they are
/// killed: 0.2 s later if they hold its output open, else at once. When the future is dropped, the group is killed at once. Who leaves the
/// group (`setsid`) lives until this process ends, and its guardian ends it then.
///
/// Memory is bounded (about 200 KiB) whatever the child writes; what it writes is read to the end, so that it never waits for us.
///
/// # Never put a secret on the command line
/// Everybody on the host can read the arguments of every process. Secrets go into files in a private directory.
pub async fn run(command: Command, cancel: &CancellationToken) -> Result<Finished, RunError> {
    let program = command.program.clone();
    if cancel.is_cancelled() {
        return Err(RunError::Cancelled { program, output: String::new() });
    }
    let line = shown::shown(&program, &command.args);
    // `SPAN`; the macro wants it literally.
    let span = tracing::info_span!(
        "child",
        program = %shown::name(&program),
        command = line,
        pid = Empty,
        exit = Empty,
        how = Empty,
    );
    run_in_span(command, &line, cancel, &span).instrument(span.clone()).await
}

async fn run_in_span(
    command: Command,
    line: &str,
    cancel: &CancellationToken,
    span: &tracing::Span,
) -> Result<Finished, RunError> {
    let (program, started) = (command.program.clone(), Instant::now());
    pass(CrashPoint::ChildStartBefore);
    let child = match start(command, cancel).await {
        Some(Ok(child)) => child,
        None => return Err(RunError::Cancelled { program, output: String::new() }),
        Some(Err(source)) => {
            tracing::debug!(program = %program.to_string_lossy(), %source, "cannot start a child");
            span.record("how", tracing::field::display(format_args!("cannot be started: {source}")));
            return Err(RunError::Start { program, source });
        }
    };
    pass(CrashPoint::ChildStartAfter);
    let pid = child.pid();
    span.record("pid", pid);
    tracing::debug!(pid, command = line, "started a child");
    let (end, stdout, output) = child.until_the_end(cancel).await;
    pass(CrashPoint::ChildEndAfter);
    let ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
    tracing::debug!(pid, ms, how = %end, "a child ended");
    span.record("how", tracing::field::display(&end));
    if let Some(code) = end.code() {
        span.record("exit", code);
    }
    match end {
        End::Exited(Ok(status)) => Ok(Finished { exit: Exit::from(status), stdout, output }),
        End::Exited(Err(source)) => Err(RunError::Start { program, source }),
        End::Cancelled => Err(RunError::Cancelled { program, output }),
    }
}

/// Starts it on a thread that may wait: whoever starts a program that lies on a file server waits until the server has shown
/// it. `None`: cancelled first; what starts in spite of that is killed by that thread.
async fn start(command: Command, cancel: &CancellationToken) -> Option<std::io::Result<Running>> {
    let still_wanted = cancel.clone();
    let starting =
        tokio::task::spawn_blocking(move || (!still_wanted.is_cancelled()).then(|| Running::start(&command)));
    tokio::select! {
        biased;
        started = starting => started.unwrap_or_else(|error| Some(Err(std::io::Error::other(error)))),
        () = cancel.cancelled() => None,
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        match status.code() {
            Some(code) => Self::Code(code),
            // A collected child that did not exit was killed.
            None => Self::Signal(status.signal().unwrap_or(0)),
        }
    }
}
