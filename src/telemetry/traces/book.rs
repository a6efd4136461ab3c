//! When machines and steps began and ended in a session: what the state of a run does not keep.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::workflow::event::{Event, Fact};
use crate::workflow::id::{StepName, Subject};

/// From when to when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// The first that was recorded of it.
    pub from: Timestamp,
    /// The last.
    pub to: Timestamp,
}

impl Times {
    fn at(at: Timestamp) -> Self {
        Self { from: at, to: at }
    }
}

/// The steps of a machine by name; those of `None` are run-wide.
pub type Steps = BTreeMap<StepName, Times>;

/// See the module's documentation. Small: two times for each machine and step.
#[derive(Clone, Debug, Default)]
pub struct Book {
    machines: BTreeMap<Subject, Times>,
    steps: BTreeMap<Option<Subject>, Steps>,
}

impl Book {
    /// Takes note of what was recorded.
    pub fn event(&mut self, event: &Event) {
        let at = event.at;
        match &event.fact {
            Fact::RunCreated(_)
            | Fact::SessionStarted(_)
            | Fact::SessionEnded { .. }
            | Fact::RunCancelled
            | Fact::RunSuperseded { .. } => {}
            Fact::MachineStarted { subject }
            | Fact::MachineEnded { subject, .. }
            | Fact::MachineSkipped { subject, .. }
            | Fact::MachineGone { subject }
            | Fact::MachineSuperseded { subject, .. } => self.machine(subject, at),
            Fact::StepStarted { subject, step, .. }
            | Fact::StepSkipped { subject, step, .. }
            | Fact::StepNotAttempted { subject, step, .. }
            | Fact::StepCut { subject, step }
            | Fact::TargetGone { subject, step, .. }
            | Fact::AttemptStarted { subject, step, .. }
            | Fact::AttemptEnded { subject, step, .. } => {
                let steps = self.steps.entry(subject.clone()).or_default();
                steps.entry(step.clone()).or_insert(Times::at(at)).to = at;
                if let Some(subject) = subject {
                    self.machine(subject, at);
                }
            }
        }
    }

    fn machine(&mut self, subject: &Subject, at: Timestamp) {
        match self.machines.get_mut(subject) {
            Some(times) => times.to = at,
            None => {
                self.machines.insert(subject.clone(), Times::at(at));
            }
        }
    }

    /// The machines that this session has done something with.
    pub fn machines(&self) -> impl Iterator<Item = (&Subject, Times)> {
        self.machines.iter().map(|(subject, times)| (subject, *times))
    }

    /// When this session worked on a step, if it did.
    pub fn step(&self, subject: Option<&Subject>, step: &StepName) -> Option<Times> {
        // The keys are owned: a borrowed pair cannot look them up.
        self.steps.get(&subject.cloned())?.get(step).copied()
    }
}
