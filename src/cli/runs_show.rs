//! `mt runs show`: what one run did. First the answer, then the reason, then the next command.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;

use super::output::{self, OutputFormat, Viewer};
use super::runs_list::{told_status, told_tally, worked};
use crate::workflow::definition::CountsAs;
use crate::workflow::event::{AttemptOutcome, Event};
use crate::workflow::id::{RunId, StepName, Subject, TargetName};
use crate::workflow::run::{Machine, RunState, StepState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

mod answer;
mod history;
mod json;
mod matrix;
mod timing;
mod trouble;

pub use trouble::Trouble;

/// A run, with what its own history does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    /// The run and its machines as the store has them.
    pub state: RunState,
    /// Does a process hold the owner lock of its last session?
    pub owner_alive: bool,
    /// The shortest unique prefix of its id, lower case.
    pub prefix: String,
    /// The prefixes of other runs that this one names. One that is missing is shown in full.
    pub others: BTreeMap<RunId, String>,
    /// Since when a subject (setup) or a subject and target (push) has been failing, run after run.
    pub failing: BTreeMap<(Subject, Option<TargetName>), Failing>,
    /// Who was told of a machine's failure. Empty for a run that tells nobody.
    pub told: BTreeMap<Subject, Told>,
}

/// A row of failed runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// How many in a row, this one included.
    pub runs: u32,
    /// When the first of them started.
    pub since: Timestamp,
}

/// Was a person told about a machine's failure?
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// A channel has accepted the message.
    Sent {
        /// `mail`, `slack`.
        channel: String,
        /// How many failures in a row it reported.
        row: u32,
    },
    /// Not often enough in a row yet.
    BelowLimit {
        /// So often.
        row: u32,
        /// From so often on a person is told.
        limit: u32,
    },
    /// It is still to be sent.
    Waiting,
    /// It went out, and no channel has said that it took it. It goes out again.
    PerhapsSent,
}

/// What to show of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShowOptions {
    /// `--service S`: this machine only.
    pub service: Option<Subject>,
    /// `--all`: the healthy machines one by one, and every failure in full.
    pub all: bool,
    /// `--timing`: when each step began and ended.
    pub timing: bool,
}

impl ShowOptions {
    fn shows(&self, subject: &Subject) -> bool {
        self.service.as_ref().is_none_or(|service| service == subject)
    }
}

/// The run as it is to be printed.
pub fn render(view: &RunView, options: &ShowOptions, format: OutputFormat, viewer: &Viewer) -> String {
    match format {
        OutputFormat::Table => text(view, options, viewer),
        OutputFormat::Json => output::json(&json::document(&view.told(), options)),
        OutputFormat::Ndjson => output::json_line(&json::document(&view.told(), options)),
    }
}

/// `--events`: the run's history, oldest first; with `service`, only what concerns that machine and the run as a whole.
pub fn render_events(events: &[Event], options: &ShowOptions, format: OutputFormat, viewer: &Viewer) -> String {
    history::render(events, options, format, viewer)
}

fn text(view: &RunView, options: &ShowOptions, viewer: &Viewer) -> String {
    let state = view.told();
    let mut parts = vec![answer::head(view, &state, viewer)];
    parts.extend(matrix::render(view, &state, options, viewer));
    parts.extend(answer::left_out(view, &state, options, viewer));
    parts.extend(trouble::render(view, &state, options, viewer));
    parts.extend(answer::notes(&state, options, viewer));
    if options.timing {
        parts.extend(timing::render(&state, options, viewer));
    }
    parts.extend(answer::next(view, &state));
    parts.join("\n")
}

impl RunView {
    /// The state people and programs are told. Of a run whose owner is dead nothing goes on any more: it and its running
    /// machines are interrupted, its running steps and targets pending, its open attempts interrupted. Steps of the plan
    /// that a machine has not begun are there, pending.
    pub fn told(&self) -> RunState {
        let mut state = self.state.clone();
        let status = told_status(&state.run, self.owner_alive);
        state.run.tally = told_tally(&state.run, self.owner_alive);
        state.run.status = status;
        for machine in state.machines.values_mut() {
            for (at, planned) in state.run.plan.iter().enumerate() {
                if !machine.steps.iter().any(|step| step.name == planned.name) {
                    let step = StepState {
                        name: planned.name.clone(),
                        status: StepStatus::Pending,
                        targets: vec![],
                        why: None,
                    };
                    machine.steps.insert(at.min(machine.steps.len()), step);
                }
            }
        }
        if status == RunStatus::Interrupted {
            state.machines.values_mut().for_each(stop_machine);
            state.run.steps.iter_mut().for_each(stop_step);
        }
        state
    }

    /// How long its sessions worked on it, as far as that is known.
    pub fn took(&self, now: Timestamp) -> Option<Duration> {
        worked(&self.state.run, self.owner_alive, now)
    }

    /// Every target that did not do what it is for, in the order of machines and steps; the run-wide steps last.
    pub fn troubles(&self) -> Vec<Trouble> {
        trouble::all(&self.told())
    }

    /// How another run is named to people.
    pub(super) fn other(&self, id: &RunId) -> String {
        self.others.get(id).cloned().unwrap_or_else(|| id.to_string())
    }

    /// The row of failures to which this one belongs, by the counter its step feeds.
    fn failing(&self, trouble: &Trouble) -> Option<Failing> {
        let subject = trouble.subject.clone()?;
        let planned = self.state.run.plan.iter().find(|planned| planned.name == trouble.step)?;
        let target = match planned.counts_as {
            CountsAs::Setup => None,
            CountsAs::Push => trouble.target.clone(),
            CountsAs::Nothing => return None,
        };
        self.failing.get(&(subject, target)).copied()
    }
}

fn stop_machine(machine: &mut Machine) {
    if machine.status == MachineStatus::Running {
        machine.status = MachineStatus::Interrupted;
    }
    machine.steps.iter_mut().for_each(stop_step);
}

fn stop_step(step: &mut StepState) {
    if step.status == StepStatus::Running {
        step.status = StepStatus::Pending;
    }
    for target in &mut step.targets {
        if target.status == StepStatus::Running {
            target.status = StepStatus::Pending;
        }
        for attempt in &mut target.attempts {
            attempt.result.get_or_insert(AttemptOutcome::Interrupted);
        }
    }
}

/// Is there nothing to say about it but that it did its work?
fn is_healthy(machine: &Machine) -> bool {
    machine.status == MachineStatus::Succeeded
        && machine.steps.iter().all(|step| match step.status {
            StepStatus::Succeeded | StepStatus::Skipped | StepStatus::Gone => true,
            StepStatus::Pending
            | StepStatus::Running
            | StepStatus::Stale
            | StepStatus::Failed
            | StepStatus::NeedsHuman
            | StepStatus::TimedOut
            | StepStatus::NotAttempted => false,
        })
}

/// `push → mu2e03.fnal.gov`, or the step alone where it does not fan out.
pub(crate) fn place(step: &StepName, target: Option<&TargetName>) -> String {
    match target {
        Some(target) if !target.is_only() => format!("{step} → {target}"),
        Some(_) | None => step.to_string(),
    }
}

/// The first few names, and how many more there are.
fn name_some<'a>(names: impl ExactSizeIterator<Item = &'a str>, most: usize) -> String {
    let count = names.len();
    // One name takes no more room than "and 1 more".
    let shown = if count == most + 1 { count } else { most };
    let mut text = names.take(shown).collect::<Vec<_>>().join(", ");
    if count > shown {
        text.push_str(&format!(" and {} more", count - shown));
    }
    text
}

#[cfg(test)]
mod tests;
