//! The child processes of a session, gathered from the spans of `tracing`.
//!
//! The history of a run knows attempts and nothing of the children that an attempt starts. Each child is a span of
//! `tracing` inside those of its machine, step, target and attempt, so that [`crate::process`] need not know for whom it
//! works.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tracing::Subscriber;
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

use crate::process::SPAN;
use crate::workflow::id::{StepName, Subject, TargetName};

/// Those around a child, as the engine names them.
const AROUND: [&str; 4] = ["machine", "step", "target", "attempt"];

/// `None`: nobody wants to know.
static GATHERED: Mutex<Option<Vec<Child>>> = Mutex::new(None);

/// For whom a child works.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Whose machine.
    pub subject: Option<Subject>,
    /// In which step.
    pub step: Option<StepName>,
    /// On what.
    pub target: Option<TargetName>,
    /// In which try.
    pub number: Option<u32>,
}

/// A child that has ended.
#[derive(Clone, Debug, PartialEq)]
pub struct Child {
    /// For whom.
    pub place: Arc<Place>,
    /// The program's name without its directory.
    pub program: String,
    /// Its command line without secrets.
    pub command: String,
    /// Its process id; `None` if it could not be started.
    pub pid: Option<i64>,
    /// Its exit code.
    pub exit: Option<i64>,
    /// How it ended, in words: `exit 0`, `signal 9`, `stopped by us`.
    pub how: Option<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it had ended.
    pub ended_at: Timestamp,
}

/// Gathers children for as long as it lives. One at a time in a process.
#[derive(Debug)]
pub struct Gathering(());

impl Gathering {
    /// From now on children are gathered.
    pub fn begin() -> Self {
        *lock() = Some(Vec::new());
        Self(())
    }

    /// Those that have ended since.
    pub fn take(&self) -> Vec<Child> {
        lock().as_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        *lock() = None;
    }
}

fn lock() -> MutexGuard<'static, Option<Vec<Child>>> {
    GATHERED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The part of the subscriber that gathers.
#[derive(Debug)]
pub struct Children;

/// The spans it needs, and nothing else.
pub fn filter() -> FilterFn {
    filter_fn(|said| {
        let ours = said.target().split("::").next() == Some("managed_tokens");
        said.is_span() && ours && (said.name() == SPAN || AROUND.contains(&said.name()))
    })
}

impl<C: Subscriber + for<'a> LookupSpan<'a>> Layer<C> for Children {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, C>) {
        if lock().is_none() {
            return;
        }
        let Some(span) = context.span(id) else { return };
        let around = span.parent().and_then(|parent| parent.extensions().get::<Arc<Place>>().cloned());
        let place = around.unwrap_or_default();
        let mut said = Said::default();
        attributes.record(&mut said);
        if span.name() == SPAN {
            let now = Timestamp::now();
            let child = Child {
                place,
                program: said.program,
                command: said.command,
                pid: None,
                exit: None,
                how: None,
                started_at: now,
                ended_at: now,
            };
            span.extensions_mut().insert(child);
        } else {
            let inner = said.place;
            let place = Place {
                subject: inner.subject.or_else(|| place.subject.clone()),
                step: inner.step.or_else(|| place.step.clone()),
                target: inner.target.or_else(|| place.target.clone()),
                number: inner.number.or(place.number),
            };
            span.extensions_mut().insert(Arc::new(place));
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, C>) {
        let Some(span) = context.span(id) else { return };
        let mut extensions = span.extensions_mut();
        let Some(child) = extensions.get_mut::<Child>() else { return };
        let mut said = Said::default();
        values.record(&mut said);
        child.pid = said.pid.or(child.pid);
        child.exit = said.exit.or(child.exit);
        child.how = said.how.or(child.how.take());
    }

    fn on_close(&self, id: Id, context: Context<'_, C>) {
        let Some(span) = context.span(&id) else { return };
        let Some(mut child) = span.extensions_mut().remove::<Child>() else { return };
        child.ended_at = Timestamp::now();
        if let Some(gathered) = lock().as_mut() {
            gathered.push(child);
        }
    }
}

/// What a span says.
#[derive(Default)]
struct Said {
    place: Place,
    program: String,
    command: String,
    pid: Option<i64>,
    exit: Option<i64>,
    how: Option<String>,
}

impl Visit for Said {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "service" | "account" => self.place.subject = Some(Subject::new(text)),
            "step" => self.place.step = Some(StepName::new(text)),
            "target" => self.place.target = Some(TargetName::new(text)),
            "program" => self.program = text,
            "command" => self.command = text,
            "how" => self.how = Some(text),
            // A span says more than this: its run, for the log.
            _ => {}
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        match field.name() {
            "pid" => self.pid = Some(value),
            "exit" => self.exit = Some(value),
            "number" => self.place.number = u32::try_from(value).ok(),
            _ => {}
        }
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        if let Ok(value) = i64::try_from(value) {
            self.record_i64(field, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::sync::CancellationToken;
    use tracing::instrument::WithSubscriber;
    use tracing::{Instrument, info_span};
    use tracing_subscriber::layer::SubscriberExt;

    use super::*;
    use crate::process::{Command, run};

    /// One test, because one process gathers once at a time.
    #[tokio::test]
    async fn a_child_is_gathered_with_its_place_its_end_and_no_secret() {
        let subscriber = tracing_subscriber::registry().with(Children.with_filter(filter()));
        let cancel = CancellationToken::new();
        let start = |script: &str| {
            let command = Command::new("/bin/sh").env("PATH", "/usr/bin:/bin").args(["-c", script]);
            run(command.args(["x", "--password", "hunter2"]), &cancel)
        };
        let gathering = Gathering::begin();
        async {
            let machine = info_span!("machine", service = %"dune_production");
            let step = info_span!(parent: &machine, "step", step = %"push");
            let target = info_span!(parent: &step, "target", target = %"node1");
            let attempt = info_span!(parent: &target, "attempt", number = 2);
            start("exit 3").instrument(attempt).await.unwrap();
            start("kill -9 $$").await.unwrap();
            run(Command::new("/nowhere/at-all"), &cancel).await.unwrap_err();
        }
        .with_subscriber(subscriber)
        .await;
        let found = gathering.take();
        let [failed, killed, missing] = &found[..] else { panic!("{found:?}") };
        let place = Place {
            subject: Some(Subject::new("dune_production")),
            step: Some(StepName::new("push")),
            target: Some(TargetName::new("node1")),
            number: Some(2),
        };
        assert_eq!((&*failed.place, failed.exit, failed.how.as_deref()), (&place, Some(3), Some("exit 3")));
        assert_eq!((failed.program.as_str(), failed.pid.is_some()), ("sh", true));
        assert!(!failed.command.contains("hunter2") && failed.command.contains("exit 3"), "{}", failed.command);
        assert!(failed.started_at <= failed.ended_at);
        assert_eq!((&*killed.place, killed.exit), (&Place::default(), None));
        assert_eq!(killed.how.as_deref(), Some("signal 9"));
        assert_eq!((missing.program.as_str(), missing.pid, missing.exit), ("at-all", None, None));
        assert!(missing.how.as_deref().is_some_and(|how| how.starts_with("cannot be started")), "{missing:?}");
        assert_eq!(gathering.take(), []);
    }
}
