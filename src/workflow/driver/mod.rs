//! Runs machines: records intent, acts, records the outcome.
//!
//! Every machine is a task of its own; no machine waits for another but at the gate of a step. A session ends in one
//! of three ways: all machines have ended; the deadline has struck (what is unfinished has timed out); or a signal came
//! (what is unfinished stays so, and the run can be resumed).

mod machine;
mod over;
mod step;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::action::Action;
use super::code::Code;
use super::definition::{ForEach, Step, Workflow};
use super::event::{Fact, SessionEnd};
use super::fold::IllegalEvent;
use super::gate::Gate;
use super::id::{ProcessId, RunId, StepName, Subject};
use super::lease::Leases;
use super::recorder::Recorder;
use super::resume::{MachineDecision, decide_machine};
use over::{Over, Why};
#[cfg(test)]
pub(crate) use step::STAND_IN_WITHIN;

/// What the engine says itself about a failed attempt.
pub mod codes {
    use super::Code;

    /// The attempt did not end in its time.
    pub const ATTEMPT_TIMED_OUT: Code = Code(10);
    /// The run's deadline struck.
    pub const DEADLINE: Code = Code(11);
    /// The target timed out too often in this run.
    pub const TARGET_CLOSED: Code = Code(12);
    /// The action panicked: a defect.
    pub const PANIC: Code = Code(13);
    /// A service is worked on without the lock that keeps other runs off it.
    pub const NO_LEASE: Code = Code(14);

    /// For `mt explain`.
    pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
        (
            ATTEMPT_TIMED_OUT,
            "an attempt did not end in its time",
            "What it started was ended: SIGTERM, two seconds later SIGKILL, for the whole process group.\n\
             The time is the step's `timeout` in the workflow, or the configuration's `timeouts`.\n\
             `mt runs show --timing` of an earlier run says how long it takes when all is well. See whether the peer answers at all.",
        ),
        (
            DEADLINE,
            "the run's deadline struck",
            "The run may take as long as the workflow's `deadline` (the configuration's timeouts.globalTimeout), less its\n\
             `reserve` for notifications. What was unfinished has timed out; what was done is done.\n\
             `mt runs resume ID` does the rest with a fresh deadline; `mt runs show --timing` says what took long.",
        ),
        (
            TARGET_CLOSED,
            "a target timed out too often in this run",
            "After three timeouts in a row on one credd or node, attempts on it fail at once for the rest of the run, so\n\
             that nobody waits for it any more. See to the target; then `mt runs resume ID`.",
        ),
        (
            PANIC,
            "an action panicked",
            "A defect in mt: the attempt failed, everything else went on.\n\
             Please report it with the log of the run.",
        ),
        (
            NO_LEASE,
            "a service could not be locked against other runs",
            "The file named in the message, in `leases/` of the state directory, could not be opened or locked. The work\n\
             went on without it; another run at the same time would do the same work once more, and harm nothing.\n\
             Look at it with  ls -l FILE ; it should be a regular file of the account that runs mt. It can be removed\n\
             while no run goes on.",
        ),
    ];
}

/// After `finally`, so much of the deadline is left for ending children (2 s) and for metrics, logs and traces (5 s).
pub const AFTER_FINALLY: Duration = Duration::from_secs(7);

/// What a session works from.
pub struct SessionPlan {
    /// The workflow, with the values that are in force.
    pub workflow: Arc<Workflow>,
    /// The work of every step, `finally` steps included, by the step's name.
    pub actions: BTreeMap<StepName, Arc<dyn Action>>,
    /// The subjects that are configured now.
    pub configured: BTreeSet<Subject>,
    /// For a resumed run: subjects whose machine has ended in a newer run of the workflow, and in which.
    pub newer: BTreeMap<Subject, RunId>,
    /// Where subjects are held.
    pub leases: Leases,
    /// Cancelled by a signal: the session ends as soon as its children have.
    pub stop: CancellationToken,
}

/// The session could not be driven to its end.
#[derive(Debug, thiserror::Error)]
pub enum DriveError {
    /// A defect of the engine.
    #[error("defect in the engine: {0}")]
    Illegal(#[from] IllegalEvent),
    /// A defect of the engine: a machine's task died.
    #[error("defect in the engine: the task of a machine died: {0}")]
    Task(#[from] tokio::task::JoinError),
    /// A step has no action: the caller left one out.
    #[error("step {0} has no action")]
    NoAction(StepName),
}

/// What every task of the session shares.
struct Session {
    recorder: Arc<Recorder>,
    workflow: Arc<Workflow>,
    actions: BTreeMap<StepName, Arc<dyn Action>>,
    gates: BTreeMap<StepName, Gate>,
    configured: BTreeSet<Subject>,
    newer: BTreeMap<Subject, RunId>,
    leases: Leases,
    run: RunId,
    process: ProcessId,
    number: u32,
}

/// Drives the run that `recorder` holds, whose session has been claimed, to the end of that session.
pub async fn drive(recorder: Arc<Recorder>, plan: SessionPlan) -> Result<SessionEnd, DriveError> {
    let started = Instant::now();
    let (run, process, number, subjects) = recorder.with(|state| {
        let sessions = u32::try_from(state.run.sessions.len()).unwrap_or(u32::MAX);
        let process = state.run.sessions.last().map_or_else(ProcessId::generate, |session| session.by.process);
        (state.run.id, process, sessions, state.machines.keys().cloned().collect::<Vec<_>>())
    });
    let SessionPlan { workflow, actions, configured, newer, leases, stop } = plan;
    let all_steps = || workflow.steps.iter().chain(&workflow.finally);
    if let Some(step) = all_steps().find(|s| !actions.contains_key(&s.name)) {
        return Err(DriveError::NoAction(step.name.clone()));
    }
    let gates = all_steps().map(|s| (s.name.clone(), Gate::new(s.parallel, step::fans_out(s)))).collect();
    let end_of_work = started + workflow.deadline.saturating_sub(workflow.reserve);
    let deadline = started + workflow.deadline;
    let session = Arc::new(Session {
        recorder,
        workflow: workflow.clone(),
        actions,
        gates,
        configured,
        newer,
        leases,
        run,
        process,
        number,
    });

    session.recorder.expect(session.to_end());
    let over = Over::at(end_of_work, stop.clone());
    let mut machines = JoinSet::new();
    for subject in subjects {
        let (session, over) = (session.clone(), over.clone());
        let span = session.span(&subject);
        machines.spawn(async move { machine::run(&session, &over, &subject).await }.instrument(span));
    }
    let mut defect = None;
    while let Some(ended) = machines.join_next().await {
        if let Err(error) = ended.map_err(DriveError::from).and_then(|ended| ended) {
            // The others have nothing to do with it: they go on to their ends.
            tracing::error!("{error}");
            defect.get_or_insert(error);
        }
    }
    if let Some(defect) = defect {
        session.end(SessionEnd::Interrupted).await?;
        return Err(defect);
    }
    if over.why() == Some(Why::Stopped) {
        return session.end(SessionEnd::Interrupted).await;
    }

    // The deadline stops machines, not notifications: these have the reserve to themselves.
    let finally_over = Over::at(deadline - AFTER_FINALLY.min(workflow.reserve / 2), stop);
    let planned = |step: &&Step| session.recorder.with(|s| s.run.steps.iter().any(|known| known.name == step.name));
    for step in workflow.finally.iter().filter(planned) {
        session.finally(step, &finally_over, deadline).await?;
    }
    let end = if finally_over.why() == Some(Why::Stopped) { SessionEnd::Interrupted } else { SessionEnd::Finished };
    session.end(end).await
}

/// What a new session would do with a machine, step by step: what `--explain` prints is what [`drive`] does.
pub fn plan_of(
    steps: &[Step],
    machine: &super::run::Machine,
    actions: &BTreeMap<StepName, Arc<dyn Action>>,
) -> Vec<super::resume::StepPlan> {
    super::resume::plan(&machine::facts(steps, machine, actions, &BTreeSet::new()))
}

impl Session {
    /// The machines that this session has to bring to an end.
    fn to_end(&self) -> Vec<Subject> {
        let decision = |machine: &super::run::Machine| {
            let (configured, newer) = (self.configured.contains(&machine.subject), self.newer.get(&machine.subject));
            decide_machine(machine.status, configured, newer.copied())
        };
        self.recorder.with(|state| {
            let mine = state.machines.values().filter(|machine| decision(machine) != MachineDecision::Leave);
            mine.map(|machine| machine.subject.clone()).collect()
        })
    }

    /// What a machine's task says is about its subject.
    fn span(&self, subject: &Subject) -> tracing::Span {
        let run = self.run;
        match self.workflow.for_each {
            ForEach::Service => tracing::info_span!("machine", %run, service = %subject),
            ForEach::Account => tracing::info_span!("machine", %run, account = %subject),
        }
    }

    async fn end(&self, how: SessionEnd) -> Result<SessionEnd, DriveError> {
        let how = match how {
            SessionEnd::Interrupted if self.is_cancelled().await => SessionEnd::Cancelled,
            SessionEnd::Interrupted | SessionEnd::Finished | SessionEnd::Cancelled | SessionEnd::Lost => how,
        };
        self.recorder.record(vec![Fact::SessionEnded { how }]).await?;
        Ok(how)
    }

    /// Was it `mt runs cancel` that sent the signal?
    async fn is_cancelled(&self) -> bool {
        let Some(store) = self.recorder.store() else { return false };
        let run = self.run;
        match store.read(move |view| view.cancel_requested(run)).await {
            Ok(Ok(cancelled)) => cancelled,
            Ok(Err(error)) | Err(error) => {
                tracing::warn!(%error, "cannot read whether the run was cancelled; it stays interrupted");
                false
            }
        }
    }

    async fn finally(&self, step: &Step, over: &Over, deadline: Instant) -> Result<(), DriveError> {
        let mode = self.recorder.with(|s| s.run.mode);
        let subject = None;
        match over.why() {
            None => {}
            // The resume does it.
            Some(Why::Stopped) => return Ok(()),
            Some(Why::Deadline) => {
                let why = "the run's deadline struck".to_owned();
                let fact = Fact::StepNotAttempted { subject, step: step.name.clone(), why };
                return Ok(self.recorder.record(vec![fact]).await?);
            }
        }
        if !step.when.contains(&mode) {
            let why = "this mode leaves it out".to_owned();
            return Ok(self.recorder.record(vec![Fact::StepSkipped { subject, step: step.name.clone(), why }]).await?);
        }
        let left = deadline.saturating_duration_since(Instant::now()).saturating_sub(AFTER_FINALLY);
        let cut = Step { timeout: step.timeout.min(left.max(Duration::from_secs(1))), ..step.clone() };
        step::run(self, over, None, &cut, None).await
    }
}
