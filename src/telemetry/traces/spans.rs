//! The spans of a session, made from what was recorded. Pure: no clock, no I/O.
//!
//! ```text
//! token-push                     the session
//! └── dune_production            a machine
//!     └── push                   a step
//!         └── node1.example.org  an attempt on a target
//!             └── rsync          a child process
//! ```

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::SystemTime;

use jiff::Timestamp;
use opentelemetry::trace::{Link, SpanId, SpanKind, Status, TraceId};
use opentelemetry::{InstrumentationLibrary, KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::export::trace::SpanData;
use opentelemetry_sdk::trace::{SpanEvents, SpanLinks};

use super::book::{Book, Times};
use super::children::Child;
use super::ids::{self, SpanIds};
use crate::redact::redact;
use crate::workflow::action::{Class, Failure};
use crate::workflow::definition::{ForEach, Per};
use crate::workflow::event::{AttemptOutcome, SessionEnd};
use crate::workflow::id::{StepName, Subject, TargetName};
use crate::workflow::run::{AttemptRecord, Machine, Run, RunState, Session, StepState, TargetState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

/// So many characters of what a failed attempt's child said last; `mt runs show` has all of it.
const LAST_WORDS: usize = 600;

/// The spans of a session, machine by machine, so that they are never all there at once.
#[derive(Debug)]
pub struct Spans<'a> {
    state: &'a RunState,
    book: &'a Book,
    session: &'a Session,
    trace: TraceId,
    ids: SpanIds,
    root: SpanId,
    resource: Resource,
    library: InstrumentationLibrary,
    children: BTreeMap<Option<Subject>, Vec<Child>>,
    machines: Vec<(&'a Subject, Times)>,
    /// The session's own are still to come.
    first: bool,
}

/// What is put into one span, beside what all have.
struct Part {
    name: String,
    times: Times,
    attributes: Vec<KeyValue>,
    status: Status,
}

/// For whom children work: the spans they may hang on, in the order of places.
type Attempts = BTreeMap<(StepName, TargetName, u32), SpanId>;

impl<'a> Spans<'a> {
    /// Those of the last session. `None`: it has no trace id.
    pub fn of(state: &'a RunState, book: &'a Book, children: Vec<Child>, resource: Resource) -> Option<Self> {
        let session = state.run.sessions.last()?;
        let trace = session.by.trace.as_deref().and_then(ids::trace_id)?;
        let mut of: BTreeMap<Option<Subject>, Vec<Child>> = BTreeMap::new();
        let known = |subject: &Subject| state.machines.contains_key(subject);
        for child in children {
            of.entry(child.place.subject.clone().filter(known)).or_default().push(child);
        }
        let mut machines: Vec<_> = book.machines().collect();
        machines.reverse();
        let mut ids = SpanIds::of(trace);
        let root = ids.next();
        let library = InstrumentationLibrary::builder("managed-tokens").with_version(env!("CARGO_PKG_VERSION")).build();
        Some(Self { state, book, session, trace, ids, root, resource, library, children: of, machines, first: true })
    }

    fn span(&mut self, id: SpanId, parent: SpanId, part: Part) -> SpanData {
        let Part { name, times, mut attributes, status } = part;
        attributes.push(KeyValue::new("run", self.state.run.id.to_string()));
        SpanData {
            span_context: ids::context(self.trace, id),
            parent_span_id: parent,
            span_kind: SpanKind::Internal,
            name: Cow::Owned(name),
            start_time: SystemTime::from(times.from),
            end_time: SystemTime::from(times.to.max(times.from)),
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status,
            resource: Cow::Owned(self.resource.clone()),
            instrumentation_lib: self.library.clone(),
        }
    }

    fn end(&self) -> Timestamp {
        let last = self.machines.iter().map(|(_, times)| times.to).max();
        self.session.ended_at.or(last).unwrap_or(self.session.started_at)
    }

    /// The session, its run-wide steps, and the children that work for no machine.
    fn of_session(&mut self) -> Vec<SpanData> {
        let run = &self.state.run;
        let mut span = self.span(self.root, SpanId::INVALID, of_session(run, self.session, self.end()));
        // The trace of the session before. One whose process died has sent none.
        let before = run.sessions.iter().rev().skip(1).filter(|s| s.end != Some(SessionEnd::Lost));
        let before = before.flat_map(|s| s.by.trace.as_deref()).find_map(ids::trace_id);
        if let Some(before) = before {
            span.links.links.push(Link::new(ids::root(before), vec![KeyValue::new("relation", "resumes")], 0));
        }
        let mut spans = vec![span];
        let children = self.children.remove(&None).unwrap_or_default();
        self.steps(None, &run.steps, self.root, children, &mut spans);
        spans
    }

    fn of_machine(&mut self, subject: &Subject, times: Times) -> Vec<SpanData> {
        let Some(machine) = self.state.machines.get(subject) else { return Vec::new() };
        let id = self.ids.next();
        let span = self.span(id, self.root, of_machine(&self.state.run, machine, times));
        let mut spans = vec![span];
        let children = self.children.remove(&Some(subject.clone())).unwrap_or_default();
        self.steps(Some(subject), &machine.steps, id, children, &mut spans);
        spans
    }

    /// The steps below a machine or the session, their attempts, and the children of all.
    fn steps(
        &mut self,
        subject: Option<&Subject>,
        steps: &[StepState],
        above: SpanId,
        children: Vec<Child>,
        spans: &mut Vec<SpanData>,
    ) {
        let (mut step_ids, mut attempts): (BTreeMap<StepName, SpanId>, Attempts) = Default::default();
        for step in steps {
            let Some(mut times) = self.book.step(subject, &step.name) else { continue };
            // A step asks for its targets before its beginning is recorded.
            let own = children.iter().filter(|child| child.place.step.as_ref() == Some(&step.name));
            times.from = own.map(|child| child.started_at).fold(times.from, Timestamp::min);
            let id = self.ids.next();
            step_ids.insert(step.name.clone(), id);
            let part = of_step(&self.state.run, subject, step, times);
            spans.push(self.span(id, above, part));
            for target in &step.targets {
                for attempt in target.attempts.iter().filter(|a| a.session == self.session.number) {
                    let id_of_attempt = self.ids.next();
                    attempts.insert((step.name.clone(), target.name.clone(), attempt.number), id_of_attempt);
                    let part = of_attempt(&self.state.run, subject, step, target, attempt, self.end());
                    spans.push(self.span(id_of_attempt, id, part));
                }
            }
        }
        for child in children {
            let place = &child.place;
            let attempt = match (&place.step, &place.target, place.number) {
                (Some(step), Some(target), Some(number)) => {
                    attempts.get(&(step.clone(), target.clone(), number)).copied()
                }
                (_, _, _) => None,
            };
            let parent = attempt.or_else(|| step_ids.get(place.step.as_ref()?).copied()).unwrap_or(above);
            let id = self.ids.next();
            let part = of_child(&self.state.run, subject, &child);
            spans.push(self.span(id, parent, part));
        }
    }
}

impl Iterator for Spans<'_> {
    /// Those of the session itself first, then those of one machine after the other.
    type Item = Vec<SpanData>;

    fn next(&mut self) -> Option<Self::Item> {
        if std::mem::take(&mut self.first) {
            return Some(self.of_session());
        }
        let (subject, times) = self.machines.pop()?;
        Some(self.of_machine(subject, times))
    }
}

/// What others have said.
fn text(key: &'static str, value: &str) -> KeyValue {
    KeyValue::new(key, redact(value).into_owned())
}

/// A name that was checked when it was read, or a word of ours.
fn word(key: &'static str, value: impl ToString) -> KeyValue {
    KeyValue::new(key, value.to_string())
}

fn number(key: &'static str, value: impl Into<i64>) -> KeyValue {
    KeyValue::new(key, Value::I64(value.into()))
}

fn error(why: &str) -> Status {
    Status::Error { description: redact(why).into_owned().into() }
}

fn of_session(run: &Run, session: &Session, end: Timestamp) -> Part {
    let by = &session.by;
    let mut attributes = vec![
        word("workflow", &run.workflow),
        word("mode", format!("{:?}", run.mode).to_lowercase()),
        number("session", session.number),
        text("trigger", &by.trigger),
        text("host.name", &by.host),
        number("process.pid", by.pid),
        word("outcome", run.status.as_str()),
    ];
    let count = |status: MachineStatus| run.tally.get(&status).copied().unwrap_or(0);
    attributes.extend(
        run.tally.iter().map(|(status, count)| {
            KeyValue::new(format!("machines.{}", status.as_str()), Value::I64(i64::from(*count)))
        }),
    );
    let machines: u32 = run.tally.values().sum();
    let failed = count(MachineStatus::Failed) + count(MachineStatus::TimedOut);
    let status = match run.status {
        RunStatus::Failed | RunStatus::Partial | RunStatus::TimedOut => {
            error(&format!("{failed} of {machines} machines failed"))
        }
        RunStatus::Running
        | RunStatus::Succeeded
        | RunStatus::Interrupted
        | RunStatus::Cancelled
        | RunStatus::Superseded
        | RunStatus::Skipped => Status::Unset,
    };
    Part { name: run.workflow.to_string(), times: Times { from: session.started_at, to: end }, attributes, status }
}

/// What everything below the session says of whom it is about.
fn about(run: &Run, subject: Option<&Subject>, step: Option<&StepName>, target: Option<&TargetName>) -> Vec<KeyValue> {
    let mut attributes = Vec::with_capacity(16);
    let key = match run.for_each {
        ForEach::Service => "service",
        ForEach::Account => "account",
    };
    attributes.extend(subject.map(|subject| word(key, subject)));
    attributes.extend(step.map(|step| word("step", step)));
    let per = step.and_then(|step| run.plan.iter().find(|planned| planned.name == *step)).map(|planned| planned.per);
    let key = match per {
        Some(Per::Node) => Some("node"),
        Some(Per::Credd) => Some("credd"),
        Some(Per::Subject) | None => None,
    };
    let target = target.filter(|target| !target.is_only());
    attributes.extend(key.zip(target).map(|(key, target)| word(key, target)));
    attributes
}

fn of_machine(run: &Run, machine: &Machine, times: Times) -> Part {
    let mut attributes = about(run, Some(&machine.subject), None, None);
    attributes.push(word("outcome", machine.status.as_str()));
    attributes.extend(machine.other_run.map(|other| word("other_run", other)));
    let status = match machine.status {
        MachineStatus::Failed | MachineStatus::TimedOut => {
            let failed = machine.steps.iter().filter(|step| step.status.is_failure());
            let names: Vec<_> = failed.map(|step| step.name.as_str()).collect();
            error(&format!("{}: {}", machine.status.as_str(), names.join(", ")))
        }
        MachineStatus::Pending
        | MachineStatus::Running
        | MachineStatus::Succeeded
        | MachineStatus::Interrupted
        | MachineStatus::Skipped
        | MachineStatus::Gone
        | MachineStatus::Superseded => Status::Unset,
    };
    Part { name: machine.subject.to_string(), times, attributes, status }
}

fn of_step(run: &Run, subject: Option<&Subject>, step: &StepState, times: Times) -> Part {
    let mut attributes = about(run, subject, Some(&step.name), None);
    attributes.push(word("outcome", step.status.as_str()));
    attributes.extend(step.why.as_ref().map(|why| text("why", why)));
    let status = if step.status.is_failure() { error(&why_failed(step)) } else { Status::Unset };
    Part { name: step.name.to_string(), times, attributes, status }
}

/// The cause where one target failed, else how many did.
fn why_failed(step: &StepState) -> String {
    let failed: Vec<&TargetState> = step.targets.iter().filter(|target| target.status.is_failure()).collect();
    let message = |target: &TargetState| {
        target.attempts.iter().rev().find_map(|a| a.result.as_ref().and_then(failure)).map(|f| f.message.clone())
    };
    match failed.as_slice() {
        [only] if step.targets.len() == 1 => message(only).unwrap_or_else(|| step.status.as_str().to_owned()),
        many => format!("{} of {} targets failed", many.len(), step.targets.len()),
    }
}

fn failure(outcome: &AttemptOutcome) -> Option<&Failure> {
    match outcome {
        AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. } => Some(failure),
        AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted => None,
    }
}

/// In the words that targets have, too.
fn outcome(result: Option<&AttemptOutcome>) -> &'static str {
    match result {
        Some(AttemptOutcome::Succeeded(_)) => StepStatus::Succeeded.as_str(),
        Some(AttemptOutcome::Stale { .. }) => StepStatus::Stale.as_str(),
        Some(AttemptOutcome::Failed(failure)) => match failure.class {
            Class::Transient | Class::Permanent => StepStatus::Failed.as_str(),
            Class::NeedsHuman => StepStatus::NeedsHuman.as_str(),
            Class::Timeout => StepStatus::TimedOut.as_str(),
        },
        Some(AttemptOutcome::Interrupted) | None => MachineStatus::Interrupted.as_str(),
    }
}

fn of_attempt(
    run: &Run,
    subject: Option<&Subject>,
    step: &StepState,
    target: &TargetState,
    attempt: &AttemptRecord,
    end: Timestamp,
) -> Part {
    let mut attributes = about(run, subject, Some(&step.name), Some(&target.name));
    attributes.push(number("attempt", attempt.number));
    attributes.push(word("outcome", outcome(attempt.result.as_ref())));
    let mut status = Status::Unset;
    match attempt.result.as_ref() {
        Some(AttemptOutcome::Succeeded(success)) => {
            attributes.extend(success.note.as_ref().map(|note| text("note", note)));
        }
        Some(AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. }) => {
            attributes.push(word("class", failure.class.as_str()));
            attributes.push(word("code", failure.code));
            attributes.extend(failure.next.as_ref().map(|next| text("next", next)));
            let output = failure.output.as_deref().map(str::trim).filter(|output| !output.is_empty());
            attributes.extend(output.map(|output| text("output", last_words(&redact(output)))));
            status = error(&failure.message);
        }
        Some(AttemptOutcome::Interrupted) | None => {}
    }
    let what = if target.name.is_only() { "attempt" } else { target.name.as_str() };
    let name = if attempt.number == 1 { what.to_owned() } else { format!("{what} #{}", attempt.number) };
    let times = Times { from: attempt.started_at, to: attempt.ended_at.unwrap_or(end) };
    Part { name, times, attributes, status }
}

fn last_words(output: &str) -> &str {
    let from = output.char_indices().rev().take(LAST_WORDS).last().map_or(0, |(at, _)| at);
    &output[from..]
}

fn of_child(run: &Run, subject: Option<&Subject>, child: &Child) -> Part {
    let place = &child.place;
    let mut attributes = about(run, subject, place.step.as_ref(), place.target.as_ref());
    attributes.push(text("process.command_line", &child.command));
    attributes.extend(child.pid.map(|pid| number("process.pid", pid)));
    attributes.extend(child.exit.map(|exit| number("process.exit.code", exit)));
    let (outcome, status) = match (child.exit, child.how.as_deref()) {
        (Some(0), _) => ("succeeded", Status::Unset),
        (_, how) => ("failed", error(how.unwrap_or("stopped by us"))),
    };
    attributes.push(word("outcome", outcome));
    Part {
        name: child.program.clone(),
        times: Times { from: child.started_at, to: child.ended_at },
        attributes,
        status,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::samples;

    const TOKEN: &str = "hvs.CAESIJlongEnoughToBeOne0123456789";

    /// A run with one machine, of which a book knows what the engine would have said.
    fn spans_of(machine: Machine, children: Vec<Child>) -> Vec<SpanData> {
        let subject = machine.subject.clone();
        let mut book = Book::default();
        let mut note = |fact| {
            book.event(&crate::workflow::event::Event { seq: 0, at: samples::at(0), session: 1, fact });
        };
        for step in &machine.steps {
            let (subject, step) = (Some(subject.clone()), step.name.clone());
            note(crate::workflow::event::Fact::StepStarted { subject, step, targets: Vec::new() });
        }
        let state = samples::state(RunStatus::Failed, Some(9_000), vec![machine]);
        let spans = Spans::of(&state, &book, children, Resource::empty()).expect("it has a trace id");
        spans.flatten().collect()
    }

    #[test]
    fn no_secret_gets_into_a_span() {
        let mut machine = samples::refused_machine("dune_production");
        for attempt in machine.steps.iter_mut().flat_map(|s| &mut s.targets).flat_map(|t| &mut t.attempts) {
            if let Some(AttemptOutcome::Failed(failure)) = &mut attempt.result {
                failure.message = format!("it said {TOKEN}");
                failure.output = Some(format!("token {TOKEN}"));
                failure.next = Some(format!("try {TOKEN}"));
            }
        }
        let at = samples::at(10);
        let place = super::super::Place { subject: Some(machine.subject.clone()), ..Default::default() };
        let child = Child {
            place: std::sync::Arc::new(place),
            program: "x".to_owned(),
            command: format!("x {TOKEN}"),
            pid: None,
            exit: None,
            how: Some(format!("cannot be started: {TOKEN}")),
            started_at: at,
            ended_at: at,
        };
        let said = format!("{:?}", spans_of(machine, vec![child]));
        assert!(said.matches("[redacted]").count() >= 5, "{said}");
        assert!(!said.contains("CAESIJ"), "{said}");
    }

    #[test]
    fn a_child_of_nobody_known_hangs_on_what_is_known_of_it() {
        let machine = samples::healthy("dune_production");
        let (subject, step) = (machine.subject.clone(), machine.steps[0].name.clone());
        let at = samples::at(10);
        let child = |subject: Option<Subject>, step: Option<StepName>, number| Child {
            place: std::sync::Arc::new(super::super::Place { subject, step, target: Some(TargetName::only()), number }),
            program: "x".to_owned(),
            command: "x".to_owned(),
            pid: None,
            exit: Some(0),
            how: None,
            started_at: at,
            ended_at: at,
        };
        let stranger = Subject::new("gone");
        let children = vec![
            child(Some(subject.clone()), Some(step.clone()), Some(1)),
            child(Some(subject.clone()), Some(step.clone()), Some(77)),
            child(Some(subject), None, None),
            child(Some(stranger), Some(step.clone()), Some(1)),
        ];
        let spans = spans_of(machine, children);
        let above = |span: &SpanData| {
            spans.iter().find(|s| s.span_context.span_id() == span.parent_span_id).map(|s| s.name.to_string())
        };
        let mut found: Vec<_> = spans.iter().filter(|s| s.name == "x").filter_map(above).collect();
        found.sort();
        let mut expected = ["attempt", step.as_str(), "dune_production", "token-push"];
        expected.sort_unstable();
        assert_eq!(found, expected);
    }
}
