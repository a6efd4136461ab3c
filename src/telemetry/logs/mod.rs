//! The log: what is said by `tracing`, on stderr, in files, and in Loki.
//!
//! A process begins with stderr alone ([`install`]), which [`crate::stderr`] writes. Once it is known for which executable it
//! works, and the guardian has forked (a fork copies one thread), [`open`] starts the thread that writes the files; what was
//! said before is kept and comes first. Every line goes through [`crate::redact`] on its way out.
//!
//! | file | subject |
//! |---|---|
//! | `layer` | events of `tracing` into lines, with what the spans around them know |
//! | `line` | one line in each format |
//! | `files` | where the files are, how they are opened |
//! | `writer` | the thread that writes |
//! | `loki` | what is sent to Loki |

pub mod codes;
mod files;
mod layer;
mod line;
mod loki;
mod writer;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing_subscriber::filter::{EnvFilter, FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

pub use files::{configured, executable};
pub use line::{About, Line};
pub use loki::{Entry, Labels};

use crate::config::{Config, Loki};
use crate::stderr;
use crate::telemetry::traces;
use crate::workflow::id::RunId;
use layer::Lines;
use writer::Writer;

/// Lines with this target go to the files alone: stderr has its own words for the same.
pub const FILES_ONLY: &str = "managed_tokens::files_only";
/// So many lines are kept until there are files.
const MOST_EARLY: usize = 1_000;
/// A disk that hangs does not keep a process from ending.
const FLUSH_WITHIN: Duration = Duration::from_secs(2);

static LOG: Mutex<Log> = Mutex::new(Log { early: Vec::new(), writer: None, executable: String::new(), run: None });

/// The log of this process.
struct Log {
    /// What was said before there were files.
    early: Vec<Line>,
    writer: Option<Writer>,
    /// For which the files are open.
    executable: String,
    /// The run that the process works on.
    run: Option<RunId>,
}

/// How much is said on stderr: warnings and errors, unless asked for more by `-v` or `MT_LOG`. To be called once, first thing.
pub fn install(verbosity: u8) {
    let default = match verbosity {
        0 => "warn",
        1 => "info",
        _ => "debug,h2=info,hyper=info,hyper_util=info,reqwest=info,rustls=info,sled=info",
    };
    let wanted = EnvFilter::try_from_env("MT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    // Spans are for the files: people at a terminal see the run's progress.
    let wanted = wanted.and(filter_fn(|said| said.is_event() && said.target() != FILES_ONLY));
    let said = tracing_subscriber::fmt::layer()
        .with_writer(|| stderr::Lines)
        .with_ansi(false)
        .with_target(false)
        .with_filter(wanted);
    let lines = Lines::new(take).with_filter(layer::filter());
    let children = traces::Children.with_filter(traces::filter());
    tracing_subscriber::registry().with(said).with(lines).with(children).init();
}

/// Opens the files of an executable (see [`executable`]) and starts the thread that writes them. Not before the guardian has
/// forked. What cannot be opened is said on stderr, and everything goes on. A second call for the same executable changes nothing.
pub fn open(config: &Config, executable: &str) {
    let mut log = lock();
    if log.writer.is_some() && log.executable == executable {
        return;
    }
    if let Some(before) = log.writer.take() {
        before.flush(FLUSH_WITHIN);
    }
    let files = configured(config, executable);
    match Writer::start(&files, config.log_format, config.loki.is_some()) {
        Ok(writer) => {
            log.early.drain(..).for_each(|line| writer.line(line));
            log.writer = Some(writer);
            executable.clone_into(&mut log.executable);
        }
        Err(error) => {
            log.early = Vec::new();
            crate::cli::output::write_err(&format!(
                "warning[{}]: the log cannot be written: {error}\n",
                codes::LOG_FILE
            ));
        }
    }
}

/// From now on every line that does not say so itself is of this run, or (`None`) of none.
pub fn set_run(run: Option<RunId>) {
    lock().run = run;
}

/// Everything said up to here is in the files, unless a disk hangs. The last thing before the process ends.
pub fn flush() {
    let writer = lock().writer.clone();
    if let Some(writer) = writer {
        writer.flush(FLUSH_WITHIN);
    }
}

/// Sends to Loki what was said (info and worse) since it was called last. The caller limits the time.
pub async fn push(loki: &Loki, labels: &Labels) {
    let writer = lock().writer.clone();
    let Some(writer) = writer else { return };
    let entries = writer.for_loki().await;
    match loki::push(loki, labels, &entries).await {
        Ok(()) => tracing::debug!(lines = entries.len(), "sent to Loki"),
        Err(why) => tracing::warn!(code = %codes::LOKI, "Loki did not get this run's lines: {why}"),
    }
}

fn take(line: Line) {
    let mut log = lock();
    let mut line = line;
    if line.about.run.is_none() {
        line.about.run = log.run.map(|run| run.to_string());
    }
    match &log.writer {
        Some(writer) => writer.line(line),
        None if log.early.len() < MOST_EARLY => log.early.push(line),
        None => {}
    }
}

fn lock() -> MutexGuard<'static, Log> {
    LOG.lock().unwrap_or_else(PoisonError::into_inner)
}
