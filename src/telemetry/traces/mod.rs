//! Traces: one of each session, sent to a collector when the session has ended.
//!
//! | file | subject |
//! |---|---|
//! | `book` | when machines and steps began and ended |
//! | `children` | the child processes, from the spans of `tracing` |
//! | `spans` | the spans of a session, made from these and the run's state |
//! | `ids` | the ids of traces and spans |
//! | `export` | sending them |

mod book;
mod children;
pub mod codes;
mod export;
mod ids;
mod spans;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;

pub use book::{Book, Steps, Times};
pub use children::{Child, Children, Gathering, Place, filter};
pub(crate) use export::try_answer;
pub use export::{ANSWER_WITHIN, ExportError, Sent, send};
pub use ids::new_trace_id;
pub use spans::Spans;

use crate::config::{Config, Tracing};
use crate::workflow::event::Event;
use crate::workflow::run::RunState;

/// As what we are known to a collector.
pub const SERVICE: &str = "managed-tokens";

/// The trace of a session that goes on.
#[derive(Debug)]
pub struct Trace {
    tracing: Tracing,
    resource: Resource,
    book: Mutex<Book>,
    gathering: Gathering,
}

impl Trace {
    /// `None`: the configuration says nothing of traces.
    pub fn begin(config: &Config) -> Option<Self> {
        let tracing = config.tracing.clone()?;
        let resource = resource(&config.dev_environment_label);
        Some(Self { tracing, resource, book: Mutex::default(), gathering: Gathering::begin() })
    }

    /// Takes note of what was recorded. Returns at once.
    pub fn event(&self, event: &Event) {
        self.book.lock().unwrap_or_else(PoisonError::into_inner).event(event);
    }

    /// Sends it, or gives up after this time, or after [`ANSWER_WITHIN`] if nobody answers. What goes wrong is a warning.
    pub async fn send(&self, state: &RunState, within: Duration) {
        let book = self.book.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let Some(spans) = Spans::of(state, &book, self.gathering.take(), self.resource.clone()) else { return };
        match send(&self.tracing, &self.resource, spans, within).await {
            Ok(Sent { spans, bytes }) => tracing::debug!(spans, bytes, "sent the trace"),
            Err(error) => tracing::warn!(code = %error.code(), "{error}"),
        }
    }
}

/// Who says so: what all spans have in common.
pub fn resource(environment: &str) -> Resource {
    Resource::new([
        KeyValue::new("service.name", SERVICE),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("deployment.environment", environment.to_owned()),
    ])
}

/// Removes every `OTEL_*` variable from the environment of this process: the libraries behind this module obey them, and the
/// configuration alone says where traces go.
///
/// # Safety
/// As [`std::env::remove_var`]: no other thread may exist yet.
pub unsafe fn forget_environment() {
    let ours = |name: &std::ffi::OsString| name.as_encoded_bytes().starts_with(b"OTEL_");
    for name in std::env::vars_os().map(|(name, _)| name).filter(ours) {
        // SAFETY: the caller's promise.
        unsafe { std::env::remove_var(name) };
    }
}
