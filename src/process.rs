//! The only place that starts a child process.
//!
//! Every child gets an explicit environment, a process group of its own, bounded output, and is gone, with its whole
//! group, when `run` returns.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

use std::sync::OnceLock;

use tokio_util::sync::CancellationToken;

use crate::workflow::id::ProcessId;

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

    /// One more argument.
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

    /// Hands the terminal to the child: our stdin, stdout and stderr, our process group. Nothing is captured. Only for onboarding.
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
    /// It could not be started.
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

/// Runs a child to its end. When `cancel` is cancelled, its process group gets SIGTERM and, 2 s later, SIGKILL.
pub async fn run(_command: Command, _cancel: &CancellationToken) -> Result<Finished, RunError> {
    unimplemented!("being written")
}
