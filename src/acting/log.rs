//! What the log says about each event: enough to follow a run, nothing secret.

use crate::workflow::event::{AttemptOutcome, Event, Fact};
use crate::workflow::run::RunState;

/// Logs one event.
pub fn event(event: &Event, state: &RunState) {
    let run = state.run.id;
    match &event.fact {
        Fact::RunCreated(_) | Fact::SessionStarted(_) => {}
        Fact::SessionEnded { how } => tracing::info!(%run, ?how, status = %state.run.status, "session ended"),
        Fact::MachineStarted { subject } => tracing::debug!(%run, service = %subject, "began"),
        Fact::MachineEnded { subject, .. }
        | Fact::MachineSkipped { subject, .. }
        | Fact::MachineGone { subject }
        | Fact::MachineSuperseded { subject, .. } => {
            let status = state.machines.get(subject).map(|m| m.status.as_str()).unwrap_or_default();
            tracing::info!(%run, service = %subject, status, "ended");
        }
        Fact::StepStarted { subject, step, targets } => {
            let service = subject.as_ref().map(tracing::field::display);
            tracing::debug!(%run, service, %step, targets = targets.len(), "step began");
        }
        Fact::StepSkipped { subject, step, why } | Fact::StepNotAttempted { subject, step, why } => {
            let service = subject.as_ref().map(tracing::field::display);
            tracing::debug!(%run, service, %step, why, "left out");
        }
        Fact::StepCut { subject, step } => {
            let service = subject.as_ref().map(tracing::field::display);
            tracing::info!(%run, service, %step, "cut off by the deadline");
        }
        Fact::TargetGone { subject, step, target } => {
            let service = subject.as_ref().map(tracing::field::display);
            tracing::info!(%run, service, %step, %target, "no longer configured");
        }
        Fact::AttemptStarted { .. } => {}
        Fact::AttemptEnded { subject, step, target, outcome, retry } => {
            let service = subject.as_ref().map(tracing::field::display);
            match outcome {
                AttemptOutcome::Succeeded(success) => {
                    let note = success.note.as_deref();
                    tracing::debug!(%run, service, %step, %target, note, "succeeded");
                }
                AttemptOutcome::Stale { failure, .. } => {
                    tracing::info!(%run, service, %step, %target, code = %failure.code, why = failure.message, "stale");
                }
                AttemptOutcome::Failed(failure) => {
                    let class = failure.class.as_str();
                    tracing::info!(%run, service, %step, %target, class, code = %failure.code, retry, why = failure.message, "failed");
                }
                AttemptOutcome::Interrupted => tracing::info!(%run, service, %step, %target, "interrupted"),
            }
        }
        Fact::RunCancelled => tracing::info!(%run, "cancelled"),
        Fact::RunSuperseded { by } => tracing::info!(%run, %by, "superseded"),
    }
}
