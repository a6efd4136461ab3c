//! The configuration file: found, loaded from JSON, YAML or RON, and resolved into one [`Service`] per experiment and role.
//!
//! | file | subject |
//! |---|---|
//! | `find` | which file |
//! | `environment` | what is taken from the process, as a value |
//! | `settings`, `service` | the result |
//! | `mistake`, `codes` | what can be wrong with a file |
//! | `select` | `-s` and `-e` |

mod codes;
mod environment;
mod mistake;
mod select;
pub mod service;
mod settings;
mod source;

use std::path::Path;

pub use codes::*;
pub use environment::Environment;
pub use mistake::{LoadError, Mistake, Position, Remark, Warning};
pub use select::UnknownSelection;
pub use service::{AccountName, CreddName, ExperimentName, IssuerService, NodeName, RoleName, Service, ServiceName};
pub use service::{Credds, Timeouts, TokenGetter};
pub use settings::{Config, DEFAULT_LOG_DIRECTORY, DEFAULT_STATE_DIRECTORY};
pub use settings::{Email, Ferry, LogFiles, Loki, Prometheus, Recipients, Tracing, TracingProtocol};
pub use settings::{WorkerRetry, WorkerTypes};
pub use source::{Source, Sources};

/// Finds the configuration (`given` is `-c`) and loads it.
pub fn load(_given: Option<&Path>, _env: &Environment) -> Result<Config, LoadError> {
    unimplemented!("being written")
}
