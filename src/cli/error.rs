//! Why a command could not do what it was asked to: code, cause, what to do next, exit code.

use crate::cli::exit::ExitCode;
use crate::workflow::code::Code;

/// The codes of the command line itself.
pub mod codes {
    use super::Code;

    /// An error that nobody foresaw.
    pub const UNEXPECTED: Code = Code(1);
    /// Arguments that do not go together.
    pub const USAGE: Code = Code(2);
    /// No such run, or more than one.
    pub const NO_SUCH_RUN: Code = Code(3);
    /// The run has ended, or somebody works on it.
    pub const RUN_NOT_CLAIMABLE: Code = Code(4);
    /// The definition that the run was made with does not fit the present file.
    pub const STEP_GONE: Code = Code(5);
    /// No UID is known for an account.
    pub const NO_SUCH_ACCOUNT: Code = Code(6);
    /// No such workflow.
    pub const NO_SUCH_WORKFLOW: Code = Code(7);
    /// A service or experiment was selected that is not configured.
    pub const NO_SUCH_SERVICE: Code = Code(8);
    /// An export cannot be written.
    pub const NOT_WRITTEN: Code = Code(9);
    /// A signal came before the work began.
    pub const STOPPED: Code = Code(15);
}

/// A command failed, or what it did for one of several runs. Printed by `main`; of several runs, as each has failed.
#[derive(Debug)]
pub struct Failed {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// What was being done, to what, and why it failed: one line, or a rendered list of mistakes.
    pub message: String,
    /// What to do next.
    pub next: Option<String>,
    /// How the process ends.
    pub exit: ExitCode,
}

impl Failed {
    /// A failure with this code; exit code 1.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), next: None, exit: ExitCode::Unexpected }
    }

    /// The same with what to do next.
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The same with another exit code.
    pub fn exit(mut self, exit: ExitCode) -> Self {
        self.exit = exit;
        self
    }

    /// As people see it.
    pub fn render(&self) -> String {
        // A list of mistakes names its own codes.
        if self.message.starts_with("error[") {
            return self.message.clone();
        }
        match &self.next {
            Some(next) => format!("error[{}]: {}\n  next: {next}", self.code, self.message),
            None => format!("error[{}]: {}", self.code, self.message),
        }
    }
}

/// No word of a command line holds control characters, or characters that turn the direction of what follows: whatever
/// repeats the word would print them.
pub fn check_words(words: impl Iterator<Item = std::ffi::OsString>) -> Result<(), Failed> {
    let is_odd = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    for (number, word) in words.enumerate() {
        // What is not UTF-8 may be part of a path; what takes it says so where it may not.
        let word = word.to_string_lossy();
        if word.contains(is_odd) {
            let shown: String = word.chars().take(80).collect();
            let message = format!("word {number} of the command line holds a control character: {shown:?}");
            return Err(Failed::new(codes::USAGE, message).exit(ExitCode::Usage));
        }
    }
    Ok(())
}

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        codes::UNEXPECTED,
        "an error that nobody foresaw",
        "A call to the system failed where mt does not expect it to. The message says which.\n\
         If it comes again, report it with the message and the output of `mt --version`.",
    ),
    (
        codes::USAGE,
        "arguments that do not go together",
        "The message says which. `mt help COMMAND` lists what a command takes.\n\
         A word with a control character in it, such as a line break, is never right: look at what made the command line.",
    ),
    (
        codes::NO_SUCH_RUN,
        "no such run, or more than one",
        "A run is named by its id or by the beginning of it, if no other run's id begins so; `latest` names the newest.\n\
         `mt runs list` shows them.",
    ),
    (
        codes::RUN_NOT_CLAIMABLE,
        "the run cannot be resumed or cancelled",
        "A run that a live process works on cannot be taken over, and one that succeeded, was cancelled or superseded has\n\
         nothing left to do. `mt runs show ID` says how it stands; `mt runs cancel ID` ends a live one.",
    ),
    (
        codes::STEP_GONE,
        "a step of the run is not in the workflow any more, or works over something else",
        "The run was made with a definition that has a step of this name, and the file has none now, or one with another\n\
         `per`: its nodes cannot be told from the credds of the other.\n\
         Resume with `--definition pinned` to use the definition that the run was made with, or start a new run.",
    ),
    (
        codes::NO_SUCH_ACCOUNT,
        "no UID is known for the account",
        "Tokens are pushed to /tmp/vt_u<UID>, so the account's UID on the nodes must be known.\n\
         Run `mt run ferry-refresh`, or `mt uids set ACCOUNT UID`, or set desiredUIDOverride in the configuration.",
    ),
    (
        codes::NO_SUCH_WORKFLOW,
        "no such workflow",
        "`mt workflow list` shows the shipped ones and those in /etc/managed-tokens/workflows.",
    ),
    (
        codes::NO_SUCH_SERVICE,
        "a service or experiment that is not configured",
        "`mt services list` shows the configured ones. A service is EXPERIMENT_ROLE.",
    ),
    (
        codes::NOT_WRITTEN,
        "the export cannot be written",
        "The message names the file and what is in the way; a file that was there before is as it was.\n\
         An export goes only where an import would take it from: in a directory of the account that runs mt, or of root,\n\
         that is not writable for everybody (or sticky, as /tmp is), and never in place of a link, a FIFO or a directory.\n\
         `mt store export -` writes to stdout.",
    ),
    (
        codes::STOPPED,
        "asked to stop before the work began",
        "SIGINT, SIGTERM or SIGHUP came while mt stood in line for the store, which other processes were using.\n\
         Nothing was done and nothing is recorded. Start it again.",
    ),
];
