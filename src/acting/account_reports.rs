//! What the admins are told of a run for accounts: at once, without a counter and a threshold.

use crate::notify::{DueCounter, Kind};
use crate::steps::store_uid::changes;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::Subject;
use crate::workflow::run::{Machine, RunState};
use crate::workflow::status::MachineStatus;

/// Every account that failed, and every UID that has changed.
pub fn due(state: &RunState) -> Vec<DueCounter> {
    let failed = state.machines.values().filter_map(|machine| Some(one(&machine.subject, Kind::Setup, why(machine)?)));
    let changed = changes(state).into_iter().map(|(account, old, new)| {
        let message = format!("the UID has changed: {old} before, {new} now");
        one(account, Kind::News, (message, None))
    });
    failed.chain(changed).collect()
}

fn one(account: &Subject, kind: Kind, (message, next): (String, Option<String>)) -> DueCounter {
    DueCounter {
        subject: account.clone(),
        target: None,
        value: 1,
        kind,
        message,
        next,
        // Nobody counts how often.
        failing_runs: 0,
        failing_since: None,
    }
}

/// Why the machine did not succeed, if it did not, and what mends it.
fn why(machine: &Machine) -> Option<(String, Option<String>)> {
    match machine.status {
        MachineStatus::Failed | MachineStatus::TimedOut => {}
        MachineStatus::Pending
        | MachineStatus::Running
        | MachineStatus::Succeeded
        | MachineStatus::Interrupted
        | MachineStatus::Skipped
        | MachineStatus::Gone
        | MachineStatus::Superseded => return None,
    }
    let attempts = machine.steps.iter().flat_map(|step| {
        let bad = step.targets.iter().filter(|target| target.status.is_failure());
        bad.flat_map(|target| &target.attempts).map(move |attempt| (&step.name, attempt))
    });
    let mut failures = attempts.filter_map(|(step, attempt)| match attempt.result.as_ref()? {
        AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. } => Some((step, failure)),
        AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted => None,
    });
    Some(match failures.next_back() {
        Some((step, failure)) => (format!("{step}: {}", failure.message), failure.next.clone()),
        None => ("not finished when the run's deadline struck".to_owned(), None),
    })
}
