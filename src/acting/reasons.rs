//! Why a counter of a run went up, in words: from the history of its machine.

use std::collections::BTreeSet;

use crate::notify::{DueCounter, Kind};
use crate::workflow::action::Failure;
use crate::workflow::counters::{Counter, CounterKey};
use crate::workflow::definition::CountsAs;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::TargetName;
use crate::workflow::run::{Machine, RunState};
use crate::workflow::status::StepStatus;

/// What is told of one counter.
pub(super) fn due(
    machine: &Machine,
    state: &RunState,
    key: &CounterKey,
    value: u32,
    counter: Option<&Counter>,
) -> DueCounter {
    let kind = if key.target.is_some() { Kind::Push } else { Kind::Setup };
    let found = failures(machine, state, key);
    let places: BTreeSet<&TargetName> = found.iter().map(|(target, ..)| *target).filter(|t| !t.is_only()).collect();
    let only_place = if places.len() == 1 { places.first().map(|t| (*t).clone()) } else { None };
    let last = found.last();
    DueCounter {
        subject: machine.subject.clone(),
        target: key.target.clone().or(only_place),
        value,
        kind,
        message: last.map_or_else(
            || not_tried(machine, state).unwrap_or_else(|| "failed".to_owned()),
            |(_, step, failure)| match kind {
                Kind::Setup => format!("{step}: {}", failure.message),
                Kind::Push | Kind::News => failure.message.clone(),
            },
        ),
        next: last.and_then(|(.., failure)| failure.next.clone()),
        failing_runs: counter.map_or(1, |c| c.failing_runs),
        failing_since: counter.and_then(|c| c.failing_since),
    }
}

/// The first step of the setup that the deadline left no time for.
fn not_tried(machine: &Machine, state: &RunState) -> Option<String> {
    let is_setup = |name| state.run.plan.iter().any(|p| &p.name == name && p.counts_as == CountsAs::Setup);
    let step = machine.steps.iter().find(|s| s.status == StepStatus::NotAttempted && is_setup(&s.name))?;
    Some(format!("{}: the run's deadline struck before its turn came", step.name))
}

/// The last failures of what a counter counts, in the order of the steps.
fn failures<'a>(
    machine: &'a Machine,
    state: &RunState,
    key: &CounterKey,
) -> Vec<(&'a TargetName, String, &'a Failure)> {
    let counts = |name| state.run.plan.iter().find(|p| &p.name == name).map(|p| p.counts_as);
    let mut found = Vec::new();
    for step in &machine.steps {
        let here = match (counts(&step.name), &key.target) {
            (Some(CountsAs::Setup), None) | (Some(CountsAs::Push), Some(_)) => true,
            (Some(CountsAs::Setup | CountsAs::Push | CountsAs::Nothing) | None, _) => false,
        };
        let targets = step.targets.iter().filter(|t| here && t.status.is_failure());
        for target in targets.filter(|t| key.target.as_ref().is_none_or(|wanted| *wanted == t.name)) {
            let failure = target.attempts.iter().rev().find_map(|attempt| match &attempt.result {
                Some(AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. }) => Some(failure),
                Some(AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted) | None => None,
            });
            found.extend(failure.map(|failure| (&target.name, step.name.to_string(), failure)));
        }
    }
    found
}
