//! Events into state: the only way a status changes. The driver applies every event before it records it, and
//! `RunState::fold` rebuilds the same state from the history alone.

use std::collections::BTreeMap;

use super::action::Class;
use super::event::{AttemptOutcome, Event, Fact, MachineEnd, PlannedStep, RunCreated, Scope, SessionEnd};
use super::id::{RunId, StepName, Subject, TargetName};
use super::machine::{
    Illegal, MachineInput, RunInput, StepInput, TargetInput, aggregate, next_machine, next_run, next_step, next_target,
    run_outcome,
};
use super::run::{AttemptRecord, Machine, Run, RunState, Session, StepState, TargetState};
use super::status::{MachineStatus, RunStatus, StepStatus};

/// The event does not fit the state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IllegalEvent {
    /// A status that cannot take it.
    #[error("event {seq}: {illegal} (at {place})")]
    Transition {
        /// The event's place in the history.
        seq: u64,
        /// Which machine, step and target.
        place: String,
        /// The pair that does not fit.
        illegal: Illegal,
    },
    /// It names something that the run does not have.
    #[error("event {seq}: the run has no {what}")]
    Unknown {
        /// The event's place in the history.
        seq: u64,
        /// What is missing.
        what: String,
    },
    /// It is not the next one.
    #[error(
        "event {seq} of session {session} does not follow: the history holds {events} events of {sessions} sessions"
    )]
    OutOfOrder {
        /// Its number.
        seq: u64,
        /// Its session.
        session: u32,
        /// Events before it.
        events: u64,
        /// Sessions before it.
        sessions: u32,
    },
    /// The first event of a history must make the run, and no other may.
    #[error("event {seq}: a history begins with run-created, once")]
    NotABeginning {
        /// The event's place in the history.
        seq: u64,
    },
    /// Work is recorded while no session is open.
    #[error("event {seq}: no session is open")]
    NoSession {
        /// The event's place in the history.
        seq: u64,
    },
    /// A machine ends while one of its steps has no outcome.
    #[error("event {seq}: {subject} ends while its step {step} has no outcome")]
    Unfinished {
        /// The event's place in the history.
        seq: u64,
        /// Whose machine.
        subject: Subject,
        /// Which step.
        step: StepName,
    },
}

/// Which records an event changed besides the run's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Touched {
    /// The run alone.
    Run,
    /// This machine.
    Machine(Subject),
    /// Every machine.
    All,
}

impl RunState {
    /// The state that a whole history leaves.
    pub fn fold<'a>(events: impl IntoIterator<Item = &'a Event>) -> Result<Option<Self>, IllegalEvent> {
        let mut state: Option<Self> = None;
        for event in events {
            match &mut state {
                None => state = Some(Self::begin(event)?),
                Some(state) => {
                    state.apply(event)?;
                }
            }
        }
        Ok(state)
    }

    /// The state after the first event.
    pub fn begin(event: &Event) -> Result<Self, IllegalEvent> {
        let Fact::RunCreated(made) = &event.fact else {
            return Err(IllegalEvent::NotABeginning { seq: event.seq });
        };
        if event.seq != 0 {
            return Err(IllegalEvent::OutOfOrder { seq: event.seq, session: event.session, events: 0, sessions: 0 });
        }
        Ok(Self::created(made, event))
    }

    fn created(made: &RunCreated, event: &Event) -> Self {
        let steps = |plan: &[PlannedStep]| -> Vec<StepState> {
            plan.iter()
                .map(|s| StepState {
                    name: s.name.clone(),
                    status: StepStatus::Pending,
                    targets: Vec::new(),
                    why: None,
                })
                .collect()
        };
        let machines: BTreeMap<_, _> = made
            .subjects
            .iter()
            .map(|subject| {
                let machine = Machine {
                    subject: subject.clone(),
                    status: MachineStatus::Pending,
                    started_at: None,
                    ended_at: None,
                    steps: steps(&made.steps),
                    other_run: None,
                };
                (subject.clone(), machine)
            })
            .collect();
        let run = Run {
            id: made.id,
            workflow: made.workflow.clone(),
            definition: made.definition.clone(),
            for_each: made.for_each,
            mode: made.mode,
            selection: made.selection.clone(),
            status: RunStatus::Running,
            started_at: event.at,
            ended_at: None,
            sessions: Vec::new(),
            tally: tally(&machines),
            plan: made.steps.clone(),
            steps: steps(&made.finally),
            superseded_by: None,
            events: 1,
        };
        Self { run, machines }
    }

    /// Applies one event. On an error the state is as it was.
    pub fn apply(&mut self, event: &Event) -> Result<Touched, IllegalEvent> {
        let sessions = u32::try_from(self.run.sessions.len()).unwrap_or(u32::MAX);
        let expected = sessions + u32::from(matches!(event.fact, Fact::SessionStarted(_)));
        if event.seq != self.run.events || event.session != expected {
            return Err(IllegalEvent::OutOfOrder {
                seq: event.seq,
                session: event.session,
                events: self.run.events,
                sessions,
            });
        }
        let open = self.run.sessions.last().is_some_and(|s| s.end.is_none());
        if !open && matches!(event.fact.scope(), Scope::Machine | Scope::Step) {
            return Err(IllegalEvent::NoSession { seq: event.seq });
        }
        let touched = self.apply_fact(event)?;
        self.run.events += 1;
        if matches!(event.fact.scope(), Scope::Machine | Scope::EveryMachine) {
            self.run.tally = tally(&self.machines);
        }
        Ok(touched)
    }

    fn apply_fact(&mut self, event: &Event) -> Result<Touched, IllegalEvent> {
        let at = |place: String| move |illegal| IllegalEvent::Transition { seq: event.seq, place, illegal };
        match &event.fact {
            Fact::RunCreated(_) => Err(IllegalEvent::NotABeginning { seq: event.seq }),
            Fact::SessionStarted(by) => {
                let open = self.run.sessions.last().is_some_and(|s| s.end.is_none());
                self.run.status =
                    next_run(self.run.status, RunInput::SessionStarted { open }).map_err(at("run".into()))?;
                self.run.ended_at = None;
                self.run.sessions.push(Session {
                    number: event.session,
                    by: by.clone(),
                    started_at: event.at,
                    ended_at: None,
                    end: None,
                });
                // Run-wide steps are never reused: every session does them anew.
                for step in &mut self.run.steps {
                    step.status = StepStatus::Pending;
                    step.why = None;
                }
                Ok(Touched::Run)
            }
            Fact::SessionEnded { how } => self.end_session(event, *how),
            Fact::MachineStarted { subject } => {
                let machine = self.machine(event, subject)?;
                machine.status =
                    next_machine(machine.status, MachineInput::Started).map_err(at(subject.to_string()))?;
                machine.started_at.get_or_insert(event.at);
                machine.ended_at = None;
                machine.other_run = None;
                Ok(Touched::Machine(subject.clone()))
            }
            Fact::MachineEnded { subject, how } => self.end_machine(event, subject, *how),
            Fact::MachineSkipped { subject, held_by } => self.leave(event, subject, MachineInput::Skipped, *held_by),
            Fact::MachineGone { subject } => self.leave(event, subject, MachineInput::Gone, None),
            Fact::MachineSuperseded { subject, by } => self.leave(event, subject, MachineInput::Superseded, Some(*by)),
            Fact::StepStarted { subject, step, targets } => self.with_step(event, subject.as_ref(), step, |state| {
                let status = next_step(state.status, StepInput::Started)?;
                let mut listed = state.targets.clone();
                for name in targets {
                    list(&mut listed, name)?;
                }
                state.targets = listed;
                state.why = None;
                state.status = status;
                settle(state)
            }),
            Fact::StepSkipped { subject, step, why } => self.with_step(event, subject.as_ref(), step, |state| {
                state.status = next_step(state.status, StepInput::Skipped)?;
                state.why = Some(why.clone());
                Ok(())
            }),
            Fact::StepNotAttempted { subject, step, why } => self.with_step(event, subject.as_ref(), step, |state| {
                let status = next_step(state.status, StepInput::NotAttempted)?;
                for target in &mut state.targets {
                    if target.status == StepStatus::Pending {
                        target.status = next_target(target.status, TargetInput::NotTried)?;
                    }
                }
                state.status = status;
                state.why = Some(why.clone());
                Ok(())
            }),
            Fact::StepCut { subject, step } => self.with_step(event, subject.as_ref(), step, |state| {
                for target in &mut state.targets {
                    if target.status == StepStatus::Pending {
                        let tried = target.attempts.iter().any(|a| a.session == event.session);
                        let input = if tried { TargetInput::CutOff } else { TargetInput::NotTried };
                        target.status = next_target(target.status, input)?;
                    }
                }
                settle(state)
            }),
            Fact::TargetGone { subject, step, target } => self.with_step(event, subject.as_ref(), step, |state| {
                if let Some(known) = state.targets.iter_mut().find(|t| &t.name == target) {
                    known.status = next_target(known.status, TargetInput::Gone)?;
                }
                settle(state)
            }),
            Fact::AttemptStarted { subject, step, target, number } => {
                self.with_target(event, subject.as_ref(), step, target, |target| {
                    target.status = next_target(target.status, TargetInput::AttemptStarted)?;
                    target.attempts.push(AttemptRecord {
                        session: event.session,
                        number: *number,
                        started_at: event.at,
                        ended_at: None,
                        result: None,
                    });
                    Ok(())
                })
            }
            Fact::AttemptEnded { subject, step, target, outcome, retry } => {
                self.with_target(event, subject.as_ref(), step, target, |target| {
                    target.status = next_target(target.status, ended(outcome, *retry))?;
                    if let Some(attempt) = target.attempts.last_mut() {
                        attempt.ended_at = Some(event.at);
                        attempt.result = Some(outcome.clone());
                    }
                    Ok(())
                })
            }
            Fact::RunCancelled => {
                self.run.status = next_run(self.run.status, RunInput::Cancelled).map_err(at("run".into()))?;
                self.run.ended_at = Some(event.at);
                Ok(Touched::Run)
            }
            Fact::RunSuperseded { by } => {
                self.run.status = next_run(self.run.status, RunInput::Superseded).map_err(at("run".into()))?;
                self.run.superseded_by = Some(*by);
                self.run.ended_at = Some(event.at);
                Ok(Touched::Run)
            }
        }
    }

    fn end_session(&mut self, event: &Event, how: SessionEnd) -> Result<Touched, IllegalEvent> {
        let outcome = run_outcome(self.machines.values().map(|m| m.status));
        self.run.status = next_run(self.run.status, RunInput::SessionEnded { how, outcome })
            .map_err(|illegal| IllegalEvent::Transition { seq: event.seq, place: "run".into(), illegal })?;
        self.run.ended_at = Some(event.at);
        if let Some(session) = self.run.sessions.last_mut() {
            session.ended_at = Some(event.at);
            session.end = Some(how);
        }
        for step in &mut self.run.steps {
            cut_off(step);
        }
        for machine in self.machines.values_mut() {
            // Total for `SessionEnded`: no status refuses it.
            if let Ok(status) = next_machine(machine.status, MachineInput::SessionEnded) {
                machine.status = status;
            }
            for step in &mut machine.steps {
                cut_off(step);
            }
        }
        Ok(Touched::All)
    }

    fn end_machine(&mut self, event: &Event, subject: &Subject, how: MachineEnd) -> Result<Touched, IllegalEvent> {
        let seq = event.seq;
        let machine = self.machine(event, subject)?;
        let open = |s: &&StepState| matches!(s.status, StepStatus::Pending | StepStatus::Running);
        if let Some(step) = machine.steps.iter().find(open) {
            return Err(IllegalEvent::Unfinished { seq, subject: subject.clone(), step: step.name.clone() });
        }
        let fine = machine
            .steps
            .iter()
            .all(|s| matches!(s.status, StepStatus::Succeeded | StepStatus::Skipped | StepStatus::Gone));
        machine.status = next_machine(machine.status, MachineInput::Ended { how, fine })
            .map_err(|illegal| IllegalEvent::Transition { seq, place: subject.to_string(), illegal })?;
        machine.ended_at = Some(event.at);
        Ok(Touched::Machine(subject.clone()))
    }

    fn leave(
        &mut self,
        event: &Event,
        subject: &Subject,
        input: MachineInput,
        other: Option<RunId>,
    ) -> Result<Touched, IllegalEvent> {
        let machine = self.machine(event, subject)?;
        machine.status = next_machine(machine.status, input).map_err(|illegal| IllegalEvent::Transition {
            seq: event.seq,
            place: subject.to_string(),
            illegal,
        })?;
        machine.other_run = other;
        machine.ended_at = Some(event.at);
        Ok(Touched::Machine(subject.clone()))
    }

    fn machine(&mut self, event: &Event, subject: &Subject) -> Result<&mut Machine, IllegalEvent> {
        self.machines
            .get_mut(subject)
            .ok_or_else(|| IllegalEvent::Unknown { seq: event.seq, what: format!("machine {subject}") })
    }

    /// The step, if it may change now: the machine must be running, or the step be run-wide.
    fn step(
        &mut self,
        event: &Event,
        subject: Option<&Subject>,
        step: &StepName,
    ) -> Result<&mut StepState, IllegalEvent> {
        let steps = match subject {
            None => &mut self.run.steps,
            Some(subject) => {
                let machine = self.machine(event, subject)?;
                if machine.status != MachineStatus::Running {
                    return Err(IllegalEvent::Transition {
                        seq: event.seq,
                        place: place(Some(subject), step),
                        illegal: Illegal {
                            what: "machine",
                            status: machine.status.as_str(),
                            input: "step event".to_owned(),
                        },
                    });
                }
                &mut machine.steps
            }
        };
        steps
            .iter_mut()
            .find(|s| &s.name == step)
            .ok_or_else(|| IllegalEvent::Unknown { seq: event.seq, what: format!("step {step}") })
    }

    fn with_step(
        &mut self,
        event: &Event,
        subject: Option<&Subject>,
        step: &StepName,
        change: impl FnOnce(&mut StepState) -> Result<(), Illegal>,
    ) -> Result<Touched, IllegalEvent> {
        let state = self.step(event, subject, step)?;
        // A change that is refused half-way leaves no trace.
        let mut changed = state.clone();
        change(&mut changed).map_err(|illegal| IllegalEvent::Transition {
            seq: event.seq,
            place: place(subject, step),
            illegal,
        })?;
        *state = changed;
        Ok(touched(subject))
    }

    fn with_target(
        &mut self,
        event: &Event,
        subject: Option<&Subject>,
        step: &StepName,
        target: &TargetName,
        mut change: impl FnMut(&mut TargetState) -> Result<(), Illegal>,
    ) -> Result<Touched, IllegalEvent> {
        if !self.step(event, subject, step)?.targets.iter().any(|t| &t.name == target) {
            let what = format!("target {target} of step {step}");
            return Err(IllegalEvent::Unknown { seq: event.seq, what });
        }
        self.with_step(event, subject, step, |state| {
            // Attempts belong to a step that has begun in this session.
            next_step(state.status, StepInput::AttemptChanged)?;
            state.targets.iter_mut().filter(|t| &t.name == target).try_for_each(&mut change)?;
            settle(state)
        })
    }
}

fn touched(subject: Option<&Subject>) -> Touched {
    subject.map_or(Touched::Run, |s| Touched::Machine(s.clone()))
}

fn place(subject: Option<&Subject>, step: &StepName) -> String {
    format!("{} {step}", subject.map_or("run", |s| s.as_str()))
}

fn list(targets: &mut Vec<TargetState>, name: &TargetName) -> Result<(), Illegal> {
    match targets.iter_mut().find(|t| &t.name == name) {
        Some(known) => known.status = next_target(known.status, TargetInput::Listed)?,
        None => {
            targets.push(TargetState { name: name.clone(), status: StepStatus::Pending, attempts: Vec::new() });
        }
    }
    Ok(())
}

/// Brings the step's status in line with its targets.
fn settle(step: &mut StepState) -> Result<(), Illegal> {
    let input = match aggregate(step.targets.iter().map(|t| t.status)) {
        Some(outcome) => StepInput::TargetsEnded(outcome),
        None => StepInput::TargetChanged,
    };
    step.status = next_step(step.status, input)?;
    Ok(())
}

/// The session is over: what was going on has no outcome.
fn cut_off(step: &mut StepState) {
    for target in &mut step.targets {
        if let Ok(status) = next_target(target.status, TargetInput::Interrupted) {
            target.status = status;
        }
        if let Some(attempt) = target.attempts.last_mut()
            && attempt.result.is_none()
        {
            attempt.result = Some(AttemptOutcome::Interrupted);
        }
    }
    // Total for `SessionEnded`: no status refuses it.
    if let Ok(status) = next_step(step.status, StepInput::SessionEnded) {
        step.status = status;
    }
}

/// What the end of an attempt means for its target.
fn ended(outcome: &AttemptOutcome, retry: bool) -> TargetInput {
    match outcome {
        AttemptOutcome::Succeeded(_) => TargetInput::Succeeded,
        AttemptOutcome::Stale { .. } => TargetInput::Stale,
        AttemptOutcome::Interrupted => TargetInput::Interrupted,
        AttemptOutcome::Failed(_) if retry => TargetInput::WillRetry,
        AttemptOutcome::Failed(failure) => match failure.class {
            Class::Transient | Class::Permanent => TargetInput::Failed,
            Class::NeedsHuman => TargetInput::NeedsHuman,
            Class::Timeout => TargetInput::TimedOut,
        },
    }
}

fn tally(machines: &BTreeMap<Subject, Machine>) -> BTreeMap<MachineStatus, u32> {
    let mut tally = BTreeMap::new();
    for machine in machines.values() {
        *tally.entry(machine.status).or_insert(0) += 1;
    }
    tally
}
