//! `--events`: the facts of a run's history, one a line.

use serde::Serialize;

use super::super::output::{self, OutputFormat, SCHEMA_VERSION, Viewer};
use super::super::time;
use super::{ShowOptions, name_some, place};
use crate::workflow::action::Failure;
use crate::workflow::event::{AttemptOutcome, Event, Fact, MachineEnd, SessionEnd};
use crate::workflow::id::{StepName, Subject, TargetName};

pub(super) fn render(events: &[Event], options: &ShowOptions, format: OutputFormat, viewer: &Viewer) -> String {
    let told = events.iter().map(Told::of).filter(|told| told.subject.is_none_or(|subject| options.shows(subject)));
    match format {
        OutputFormat::Table => told.map(|told| line(&told, viewer)).collect(),
        OutputFormat::Json => {
            output::json(&HistoryJson { schema_version: SCHEMA_VERSION, events: told.map(EventJson::of).collect() })
        }
        OutputFormat::Ndjson => told
            .map(|told| output::json_line(&LineJson { schema_version: SCHEMA_VERSION, event: EventJson::of(told) }))
            .collect(),
    }
}

/// `13:58:01.250  #12  mu2e_production  push → mu2e03.fnal.gov  attempt 2 failed: …`.
fn line(told: &Told, viewer: &Viewer) -> String {
    let mut text =
        format!("{}  s{} #{:<4}", viewer.clock.millisecond(told.event.at), told.event.session, told.event.seq);
    let place = told.step.map(|step| place(step, told.target));
    for part in [told.subject.map(|subject| subject.to_string()), place, Some(told.text.clone())].into_iter().flatten()
    {
        text.push_str("  ");
        text.push_str(&part);
    }
    output::fit(&text, viewer.style.width.min(LONGEST)) + "\n"
}

/// The longest line that is shown where the width does not matter.
const LONGEST: usize = 1_000;

/// An event in the reader's words.
struct Told<'a> {
    event: &'a Event,
    kind: &'static str,
    subject: Option<&'a Subject>,
    step: Option<&'a StepName>,
    target: Option<&'a TargetName>,
    text: String,
}

impl<'a> Told<'a> {
    fn of(event: &'a Event) -> Self {
        let run = |kind, text| Told { event, kind, subject: None, step: None, target: None, text };
        let machine = |kind, subject: &'a Subject, text| Told { subject: Some(subject), ..run(kind, text) };
        let step = |kind, subject: &'a Option<Subject>, step: &'a StepName, text| Told {
            subject: subject.as_ref(),
            step: Some(step),
            ..run(kind, text)
        };
        match &event.fact {
            Fact::RunCreated(made) => run(
                "run-created",
                format!("run {} of {} made, {} subjects", made.id, made.workflow, made.subjects.len()),
            ),
            Fact::SessionStarted(by) => run(
                "session-started",
                format!("session {} began: {} on {}, process {}", event.session, by.trigger, by.host, by.pid),
            ),
            Fact::SessionEnded { how } => run("session-ended", format!("session ended: {}", session_end(*how))),
            Fact::MachineStarted { subject } => machine("machine-started", subject, "began".to_owned()),
            Fact::MachineEnded { subject, how } => {
                let text = match how {
                    MachineEnd::Done => "came to its end",
                    MachineEnd::Deadline => "stopped by the deadline",
                };
                machine("machine-ended", subject, text.to_owned())
            }
            Fact::MachineSkipped { subject, held_by } => {
                let by = held_by.map_or_else(|| "another run".to_owned(), |id| format!("run {id}"));
                machine("machine-skipped", subject, format!("skipped: held by {by}"))
            }
            Fact::MachineGone { subject } => machine("machine-gone", subject, "no longer configured".to_owned()),
            Fact::MachineSuperseded { subject, by } => {
                machine("machine-superseded", subject, format!("done by the newer run {by}"))
            }
            Fact::StepStarted { subject, step: name, targets } => {
                let text = match targets.as_slice() {
                    [only] if only.is_only() => "began".to_owned(),
                    [] => "began, with no target".to_owned(),
                    many => format!("began on {}", name_some(many.iter().map(TargetName::as_str), 6)),
                };
                step("step-started", subject, name, text)
            }
            Fact::StepSkipped { subject, step: name, why } => {
                step("step-skipped", subject, name, format!("left out: {why}"))
            }
            Fact::StepNotAttempted { subject, step: name, why } => {
                step("step-not-attempted", subject, name, format!("not attempted: {why}"))
            }
            Fact::StepCut { subject, step: name } => {
                step("step-cut", subject, name, "cut off by the deadline".to_owned())
            }
            Fact::TargetGone { subject, step: name, target } => {
                let text = "no longer configured".to_owned();
                Told { target: Some(target), ..step("target-gone", subject, name, text) }
            }
            Fact::AttemptStarted { subject, step: name, target, number } => {
                let text = format!("attempt {number} began");
                Told { target: Some(target), ..step("attempt-started", subject, name, text) }
            }
            Fact::AttemptEnded { subject, step: name, target, outcome, retry } => {
                let again = if *retry { ", will be tried again" } else { "" };
                let text = format!("{}{again}", attempt_end(outcome));
                Told { target: Some(target), ..step("attempt-ended", subject, name, text) }
            }
            Fact::RunCancelled => run("run-cancelled", "cancelled by a person".to_owned()),
            Fact::RunSuperseded { by } => run("run-superseded", format!("the newer run {by} did the rest")),
        }
    }
}

fn session_end(how: SessionEnd) -> &'static str {
    match how {
        SessionEnd::Finished => "finished",
        SessionEnd::Interrupted => "stopped by a signal",
        SessionEnd::Cancelled => "cancelled",
        SessionEnd::Lost => "its process died",
    }
}

fn attempt_end(outcome: &AttemptOutcome) -> String {
    let because = |failure: &Failure| format!("{}: {} [{}]", failure.class.as_str(), failure.message, failure.code);
    match outcome {
        AttemptOutcome::Succeeded(success) => match &success.note {
            Some(note) => format!("succeeded; {note}"),
            None => "succeeded".to_owned(),
        },
        AttemptOutcome::Stale { failure, .. } => format!("failed, an older product stands in: {}", because(failure)),
        AttemptOutcome::Failed(failure) => format!("failed, {}", because(failure)),
        AttemptOutcome::Interrupted => "interrupted".to_owned(),
    }
}

#[derive(Serialize)]
struct HistoryJson<'a> {
    schema_version: u32,
    events: Vec<EventJson<'a>>,
}

#[derive(Serialize)]
struct LineJson<'a> {
    schema_version: u32,
    #[serde(flatten)]
    event: EventJson<'a>,
}

#[derive(Serialize)]
struct EventJson<'a> {
    seq: u64,
    at: String,
    session: u32,
    kind: &'static str,
    subject: Option<&'a Subject>,
    step: Option<&'a StepName>,
    target: Option<&'a TargetName>,
    text: String,
}

impl<'a> EventJson<'a> {
    fn of(told: Told<'a>) -> Self {
        Self {
            seq: told.event.seq,
            at: time::rfc3339(told.event.at),
            session: told.event.session,
            kind: told.kind,
            subject: told.subject,
            step: told.step,
            target: told.target,
            text: told.text,
        }
    }
}
