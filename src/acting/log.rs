//! What the log says about each event: enough to follow a run, nothing secret.

use tracing::field::{DisplayValue, display};
use tracing::{debug, info};

use crate::workflow::action::Failure;
use crate::workflow::definition::ForEach;
use crate::workflow::event::{AttemptOutcome, Event, Fact};
use crate::workflow::id::{StepName, Subject, TargetName};
use crate::workflow::run::{AttemptRecord, RunState};

/// So many characters of what a failed child said last go into the debug file; `mt runs show` has all of it.
const LAST_WORDS: usize = 600;

/// Logs the beginning of a session, which no event of it tells.
pub fn began(state: &RunState) {
    let run = &state.run;
    let Some(session) = run.sessions.last() else { return };
    let by = &session.by;
    let (version, machines) = (env!("CARGO_PKG_VERSION"), state.machines.len());
    info!(
        run = %run.id, workflow = %run.workflow, mode = ?run.mode, session = session.number, machines, trigger = by.trigger,
        host = by.host, pid = by.pid, trace = by.trace, version, "session began"
    );
}

/// Logs one event.
pub fn event(event: &Event, state: &RunState) {
    let run = state.run.id;
    let for_each = state.run.for_each;
    match &event.fact {
        Fact::RunCreated(_) | Fact::SessionStarted(_) => {}
        Fact::SessionEnded { how } => info!(%run, ?how, status = %state.run.status, "session ended"),
        Fact::MachineStarted { subject } => {
            let (service, account) = who(for_each, Some(subject));
            debug!(%run, service, account, "began");
        }
        Fact::MachineEnded { subject, .. }
        | Fact::MachineSkipped { subject, .. }
        | Fact::MachineGone { subject }
        | Fact::MachineSuperseded { subject, .. } => {
            let (service, account) = who(for_each, Some(subject));
            let status = state.machines.get(subject).map(|m| m.status.as_str()).unwrap_or_default();
            info!(%run, service, account, status, "ended");
        }
        Fact::StepStarted { subject, step, targets } => {
            let (service, account) = who(for_each, subject.as_ref());
            debug!(%run, service, account, %step, targets = targets.len(), "step began");
        }
        Fact::StepSkipped { subject, step, why } | Fact::StepNotAttempted { subject, step, why } => {
            let (service, account) = who(for_each, subject.as_ref());
            debug!(%run, service, account, %step, why, "left out");
        }
        Fact::StepCut { subject, step } => {
            let (service, account) = who(for_each, subject.as_ref());
            info!(%run, service, account, %step, "cut off by the deadline");
        }
        Fact::TargetGone { subject, step, target } => {
            let (service, account) = who(for_each, subject.as_ref());
            info!(%run, service, account, %step, %target, "no longer configured");
        }
        // Its children say that it goes on, its end says how long it took.
        Fact::AttemptStarted { .. } => {}
        Fact::AttemptEnded { subject, step, target, outcome, retry } => {
            let (service, account) = who(for_each, subject.as_ref());
            let attempt = attempt(state, subject.as_ref(), step, target);
            let number = attempt.map(|a| a.number).unwrap_or_default();
            let ms = attempt.map(milliseconds);
            match outcome {
                AttemptOutcome::Succeeded(success) => {
                    let note = success.note.as_deref();
                    debug!(%run, service, account, %step, %target, number, ms, note, "succeeded");
                }
                AttemptOutcome::Stale { failure, .. } => {
                    info!(%run, service, account, %step, %target, number, ms, code = %failure.code, why = failure.message, "stale");
                    last_words(failure);
                }
                AttemptOutcome::Failed(failure) => {
                    let class = failure.class.as_str();
                    info!(%run, service, account, %step, %target, number, ms, class, code = %failure.code, retry, why = failure.message, "failed");
                    last_words(failure);
                }
                AttemptOutcome::Interrupted => {
                    info!(%run, service, account, %step, %target, number, ms, "interrupted");
                }
            }
        }
        Fact::RunCancelled => info!(%run, "cancelled"),
        Fact::RunSuperseded { by } => info!(%run, %by, "superseded"),
    }
}

/// Under which key a line names whom it is about.
type Who<'a> = (Option<DisplayValue<&'a Subject>>, Option<DisplayValue<&'a Subject>>);

fn who(for_each: ForEach, subject: Option<&Subject>) -> Who<'_> {
    match for_each {
        ForEach::Service => (subject.map(display), None),
        ForEach::Account => (None, subject.map(display)),
    }
}

/// The newest attempt on a target.
fn attempt<'a>(
    state: &'a RunState,
    subject: Option<&Subject>,
    step: &StepName,
    target: &TargetName,
) -> Option<&'a AttemptRecord> {
    let steps = match subject {
        Some(subject) => &state.machines.get(subject)?.steps,
        None => &state.run.steps,
    };
    let step = steps.iter().find(|s| &s.name == step)?;
    step.targets.iter().find(|t| &t.name == target)?.attempts.last()
}

fn milliseconds(attempt: &AttemptRecord) -> u64 {
    let took = attempt.ended_at.map(|ended| ended.duration_since(attempt.started_at).as_millis());
    took.and_then(|ms| u64::try_from(ms).ok()).unwrap_or_default()
}

fn last_words(failure: &Failure) {
    let Some(output) = failure.output.as_deref().map(str::trim).filter(|output| !output.is_empty()) else { return };
    let from = output.char_indices().rev().take(LAST_WORDS).last().map_or(0, |(at, _)| at);
    debug!(output = &output[from..], "its last words");
}
