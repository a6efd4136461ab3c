//! The configuration file: found, loaded from JSON, YAML or RON, and resolved into one [`Service`] per experiment and role.
//!
//! | file | subject |
//! |---|---|
//! | `find` | which file, which format |
//! | `json`, `yaml`, `ron_text`, `cursor` | a text into a tree of values that know their places (`node`) |
//! | `section`, `readers` | the tree read key by key; every mistake is noted, none stops the reading |
//! | `resolve`, `roles`, `globals`, `mail` | the tree into a [`Config`] |
//! | `names`, `templates`, `duration`, `options` | what single values may be |
//! | `environment` | what is taken from the process, as a value |
//! | `settings`, `service`, `source` | the result |
//! | `mistake`, `codes` | what can be wrong with a file |
//! | `select` | `-s` and `-e` |

pub mod codes;
mod cursor;
mod duration;
mod environment;
mod find;
mod globals;
mod json;
mod mail;
mod mistake;
mod names;
mod node;
mod options;
#[cfg(test)]
mod properties;
mod readers;
mod resolve;
mod roles;
mod ron_text;
mod section;
mod select;
pub mod service;
mod settings;
mod source;
mod templates;
mod yaml;

use std::path::Path;

use crate::workflow::input_file;

pub use duration::{parse_duration, parse_lifetime, show_duration};
pub use environment::Environment;
pub use find::{Format, find};
pub use mistake::{Contact, LoadError, Mistake, Position, Remark, Warning};
pub use names::BadName;
pub use readers::is_mail_address;
pub use select::UnknownSelection;
pub use service::{AccountName, CreddName, ExperimentName, IssuerService, NodeName, RoleName, Service, ServiceName};
pub use service::{Credds, Timeouts, TokenGetter};
pub use settings::{Config, DEFAULT_LOG_DIRECTORY, DEFAULT_STATE_DIRECTORY};
pub use settings::{
    Email, Ferry, LogFiles, LogFormat, Loki, MailLogin, MailTls, Prometheus, Recipients, TemplateFiles,
};
pub use settings::{Tracing, TracingProtocol};
pub use settings::{WorkerRetry, WorkerTypes};
pub use source::{Source, Sources};
pub use templates::{Field, TemplateError};

/// A configuration of a thousand services has a tenth of it.
const MOST_BYTES: u64 = 16 << 20;

/// Finds the configuration (`given` is `-c`) and loads it.
pub fn load(given: Option<&Path>, env: &Environment) -> Result<Config, LoadError> {
    load_file(&find(given, env)?, env)
}

/// Loads this file.
pub fn load_file(path: &Path, env: &Environment) -> Result<Config, LoadError> {
    let format = Format::of(path)?;
    let unreadable = |source| LoadError::Unreadable { path: path.to_owned(), source };
    let text = input_file::read_text(path, MOST_BYTES).map_err(unreadable)?;
    parse(&text, format, path, env)
}

/// Loads a text; `file` is for messages. Reads nothing but its arguments.
pub fn parse(text: &str, format: Format, file: &Path, env: &Environment) -> Result<Config, LoadError> {
    let tree = format.parse(text).map_err(|error| resolve::syntax_error(error, format.as_str(), file))?;
    resolve::resolve(&tree, file, env)
}
