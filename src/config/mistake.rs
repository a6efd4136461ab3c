//! What was wrong with a configuration, said so that the reader can mend it without looking anything up.

use std::fmt;
use std::path::PathBuf;

use crate::redact::Secret;
use crate::workflow::code::Code;

use super::codes;
use super::settings::Email;

/// A place in a text, both counted from 1. The column counts characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// One thing that is wrong, or odd, in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remark {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// The file; `None`: the value is from the environment.
    pub file: Option<PathBuf>,
    /// Where in it; `None`: what is wrong is nowhere in particular, such as a missing key.
    pub at: Option<Position>,
    /// The path in the file: `experiments.dune.roles.production.account`; empty: the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// The expected form, or the way out.
    pub expected: Option<String>,
}

/// Something the configuration cannot be used with.
pub type Mistake = Remark;
/// Something the configuration can be used with.
pub type Warning = Remark;

impl Remark {
    /// As people see it, with `error` or `warning` before the code.
    pub fn render(&self, kind: &str) -> String {
        format!("{kind}[{}]: {self}", self.code)
    }
}

impl fmt::Display for Remark {
    /// `path: what`, then the file with line and column, then the expected form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        let file = self.file.as_ref().map_or("the environment".into(), |file| file.to_string_lossy());
        write!(f, "{}\n  --> {file}", self.what)?;
        if let Some(at) = self.at {
            write!(f, ":{}:{}", at.line, at.column)?;
        }
        match &self.expected {
            Some(expected) => write!(f, "\n  = expected: {expected}"),
            None => Ok(()),
        }
    }
}

/// The configuration could not be loaded. Exit code 20.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// There is none.
    #[error("no configuration file: looked for {}; name one with -c FILE or MT_CONFIG", list(looked))]
    NotFound {
        /// Where it was looked for, in order.
        looked: Vec<PathBuf>,
    },
    /// It cannot be read.
    #[error("cannot read the configuration {}: {source}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its name ends in nothing known.
    #[error("cannot tell the format of {}: its name must end in .json, .yml, .yaml or .ron", path.display())]
    UnknownFormat {
        /// Which.
        path: PathBuf,
    },
    /// It was read and cannot be used.
    #[error("{}", all(mistakes))]
    Invalid {
        /// Everything that is wrong with it, in the order of the file; at least one.
        mistakes: Vec<Mistake>,
        /// What is odd, as far as it was seen.
        warnings: Vec<Warning>,
        /// Who can be told of it, as far as that could be read.
        contact: Box<Contact>,
    },
}

/// Who is told of a configuration that cannot be used: the parts of it that can.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Contact {
    /// How mail is sent.
    pub email: Option<Email>,
    /// The operators.
    pub admin_email: Vec<String>,
    /// Their Slack channel.
    pub slack_alerts_url: Option<Secret>,
    /// `disableNotifications`.
    pub disabled: bool,
}

impl LoadError {
    /// What `mt explain` knows about it (of the first mistake, if there are several).
    pub fn code(&self) -> Code {
        match self {
            Self::NotFound { .. } => codes::FILE_NOT_FOUND,
            Self::Unreadable { .. } => codes::FILE_UNREADABLE,
            Self::UnknownFormat { .. } => codes::UNKNOWN_FORMAT,
            Self::Invalid { mistakes, .. } => mistakes.first().map_or(codes::SYNTAX, |mistake| mistake.code),
        }
    }

    /// As people see it, code and all.
    pub fn render(&self) -> String {
        match self {
            Self::NotFound { .. } | Self::Unreadable { .. } | Self::UnknownFormat { .. } => {
                format!("error[{}]: {self}", self.code())
            }
            Self::Invalid { .. } => self.to_string(),
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn all(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(|mistake| mistake.render("error")).collect::<Vec<_>>().join("\n")
}
