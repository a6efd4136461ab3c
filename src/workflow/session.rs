//! How a run gets its sessions: made, claimed after a crash or a failure, cancelled, superseded.
//!
//! A run has one owner at most: the process of its open session, which holds a flock for as long as it or one of its
//! children lives. A session without an end whose owner is dead was cut off: the run is interrupted, whatever its
//! record says.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::definition::Mode;
use super::event::{Event, Fact, RunCreated, Selection, SessionEnd, SessionStarted};
use super::fold::IllegalEvent;
use super::id::{ProcessId, RunId, Subject, WorkflowName};
use super::recorder::apply;
use super::resume::{MachineDecision, decide_machine};
use super::run::{Machine, Run, RunState, Session};
use super::status::{MachineStatus, RunStatus};
use super::store::{Store, StoreError, Tx, View};

/// Is this process, with all its children, gone?
pub type IsDead = Arc<dyn Fn(ProcessId) -> bool + Send + Sync>;

/// The run cannot be worked on, or not like this.
#[derive(Debug, thiserror::Error)]
pub enum ClaimError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No such run.
    #[error("the store has no run {0}")]
    NoSuchRun(RunId),
    /// Somebody works on it.
    #[error("run {run} is going on: pid {} on {} works on it", by.pid, by.host)]
    Alive {
        /// Which.
        run: RunId,
        /// Who, and where.
        by: Box<SessionStarted>,
    },
    /// Its status allows no further session.
    #[error("run {run} is {status}: nothing is left to do")]
    Ended {
        /// Which.
        run: RunId,
        /// How it ended.
        status: RunStatus,
    },
    /// A defect, or a damaged history.
    #[error("run {run}: {illegal}")]
    Illegal {
        /// Which.
        run: RunId,
        /// What does not fit.
        illegal: IllegalEvent,
    },
}

/// What became of a request to cancel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cancelled {
    /// It is cancelled.
    Done,
    /// Its owner lives and must be told: SIGTERM to this process.
    Tell {
        /// Whose pid may belong to somebody else by now.
        worker: Box<SessionStarted>,
    },
}

/// The session that has not ended, if there is one.
pub fn open_session(run: &Run) -> Option<&Session> {
    run.sessions.last().filter(|s| s.end.is_none())
}

/// The run's status with a dead owner taken into account.
pub fn status_now(run: &Run, is_dead: &dyn Fn(ProcessId) -> bool) -> RunStatus {
    match (run.status, open_session(run)) {
        (RunStatus::Running, Some(session)) if is_dead(session.by.process) => RunStatus::Interrupted,
        (RunStatus::Running, None) => RunStatus::Interrupted,
        (status, _) => status,
    }
}

/// A clock that is ahead by more than this has been set wrong, and somebody is told.
const CLOCK_AHEAD: Duration = Duration::from_secs(60);

/// A run and its first session, durable when this returns.
///
/// It gets another id if the store has a newer one: counters, metrics and resumes go by the order of the ids, and a clock that
/// was ahead for a while must not put what comes after it into the past.
pub async fn create(
    store: &Store,
    created: RunCreated,
    source: Arc<str>,
    by: SessionStarted,
) -> Result<RunState, StoreError> {
    store
        .write(move |tx| -> Result<RunState, StoreError> {
            let mut created = created;
            if let Some(newest) = tx.newest_run_id()? {
                let wanted = created.id;
                created.id = wanted.after(newest);
                let ahead = Duration::from_millis(newest.made_ms().saturating_sub(wanted.made_ms()));
                if ahead > CLOCK_AHEAD {
                    tracing::warn!(run = %created.id, %newest, ?ahead, "this machine's clock was ahead when the newest run began, or is behind now: look at both; the order of runs is kept");
                }
            }
            let (state, events) = begin(created, by);
            tx.put_definition(&source)?;
            for event in &events {
                tx.append_event(state.run.id, event)?;
            }
            tx.put_run(&state.run)?;
            for machine in state.machines.values() {
                tx.put_machine(state.run.id, machine)?;
            }
            Ok(state)
        })
        .await
}

/// The same for a run that nobody will record.
pub fn begin(created: RunCreated, by: SessionStarted) -> (RunState, Vec<Event>) {
    let at = Timestamp::now();
    let first = Event { seq: 0, at, session: 0, fact: Fact::RunCreated(created) };
    let second = Event { seq: 1, at, session: 1, fact: Fact::SessionStarted(by) };
    let mut state = RunState::begin(&first).expect("the first event makes the run");
    state.apply(&second).expect("a run that was just made has no session");
    (state, vec![first, second])
}

/// Claims the run for a new session, in one transaction, only if its last owner is dead.
pub async fn claim(store: &Store, run: RunId, by: SessionStarted, is_dead: IsDead) -> Result<RunState, ClaimError> {
    store
        .write(move |tx| {
            let mut state = claimable(tx, run, &*is_dead)?;
            append(tx, &mut state, Fact::SessionStarted(by))?;
            tx.clear_cancel(run);
            Ok(state)
        })
        .await
}

/// Ends a run for good.
pub async fn cancel(store: &Store, run: RunId, is_dead: IsDead) -> Result<Cancelled, ClaimError> {
    store
        .write(move |tx| match claimable(tx, run, &*is_dead) {
            Ok(mut state) => append(tx, &mut state, Fact::RunCancelled).map(|()| Cancelled::Done),
            Err(ClaimError::Alive { by, .. }) => {
                tx.request_cancel(run)?;
                Ok(Cancelled::Tell { worker: by })
            }
            Err(refused) => Err(refused),
        })
        .await
}

/// Marks an interrupted run as superseded by a newer one.
pub async fn supersede(store: &Store, run: RunId, by: RunId, is_dead: IsDead) -> Result<(), ClaimError> {
    store
        .write(move |tx| {
            let mut state = claimable(tx, run, &*is_dead)?;
            append(tx, &mut state, Fact::RunSuperseded { by })
        })
        .await
}

/// Appends a fact to a run that nobody works on, after the end of a session that was cut off.
fn append(tx: &mut Tx<'_>, state: &mut RunState, fact: Fact) -> Result<(), ClaimError> {
    let run = state.run.id;
    let lost = open_session(&state.run).map(|_| Fact::SessionEnded { how: SessionEnd::Lost });
    let facts = lost.into_iter().chain([fact]).collect();
    let batch = apply(state, facts).map_err(|illegal| ClaimError::Illegal { run, illegal })?;
    Ok(batch.write(tx, None)?)
}

/// The run's state, if no live process works on it and something can be left to do.
fn claimable(tx: &Tx<'_>, run: RunId, is_dead: &dyn Fn(ProcessId) -> bool) -> Result<RunState, ClaimError> {
    let record = tx.run(run)?.ok_or(ClaimError::NoSuchRun(run))?;
    if let Some(session) = open_session(&record)
        && !is_dead(session.by.process)
    {
        return Err(ClaimError::Alive { run, by: Box::new(session.by.clone()) });
    }
    match record.status {
        RunStatus::Succeeded | RunStatus::Cancelled | RunStatus::Superseded => {
            Err(ClaimError::Ended { run, status: record.status })
        }
        RunStatus::Running
        | RunStatus::Partial
        | RunStatus::Failed
        | RunStatus::TimedOut
        | RunStatus::Interrupted
        | RunStatus::Skipped => {
            let machines = tx.machines(run)?.into_iter().map(|m| (m.subject.clone(), m)).collect();
            Ok(RunState { run: record, machines })
        }
    }
}

/// A run with its machines.
pub fn load(view: &View<'_>, run: RunId) -> Result<Option<RunState>, StoreError> {
    let Some(record) = view.run(run)? else { return Ok(None) };
    let machines = view.machines(run)?.into_iter().map(|m: Machine| (m.subject.clone(), m)).collect();
    Ok(Some(RunState { run: record, machines }))
}

/// An interrupted run that a start must know of.
#[derive(Clone, Debug)]
pub struct CutOff {
    /// The run.
    pub run: Run,
    /// Has it the same workflow, selection and mode?
    pub same: bool,
    /// Is it, besides, the newest of its kind and young enough to be resumed in place of a new one?
    pub resumable: bool,
}

/// What a start is about to do.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The workflow.
    pub workflow: WorkflowName,
    /// The selection.
    pub selection: Selection,
    /// The mode.
    pub mode: Mode,
    /// An interrupted run older than this is not resumed by a start. `None`: none is.
    pub within: Option<Duration>,
    /// How far back to look.
    pub look_back: usize,
}

/// The interrupted runs among the newest, newest first. The newest run of the same kind decides: an interrupted run with
/// a newer one of the same selection behind it has been overtaken.
pub fn cut_off(
    view: &View<'_>,
    wanted: &Wanted,
    is_dead: &dyn Fn(ProcessId) -> bool,
    now: Timestamp,
) -> Result<Vec<CutOff>, StoreError> {
    let mut found = Vec::new();
    let mut overtaken = false;
    let mut left = wanted.look_back;
    view.runs_newest_first(|run| {
        let same = run.workflow == wanted.workflow && run.selection == wanted.selection && run.mode == wanted.mode;
        if status_now(&run, is_dead) == RunStatus::Interrupted {
            let age = now.duration_since(run.started_at).unsigned_abs();
            let young = wanted.within.is_some_and(|within| age <= within);
            found.push(CutOff { same, resumable: same && young && !overtaken, run });
        }
        overtaken |= same;
        left = left.saturating_sub(1);
        if left > 0 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(found)
}

/// The subjects of this run that may still be worked on and whose machine has ended in a run of the same workflow and mode
/// that is newer, and in which. Reads no machine that cannot change the answer: a month has hundreds of newer runs.
pub fn ended_later(view: &View<'_>, run: &Run) -> Result<BTreeMap<Subject, RunId>, StoreError> {
    let mut newer = Vec::new();
    view.runs_newest_first(|other| {
        if other.id <= run.id {
            return ControlFlow::Break(());
        }
        if other.workflow == run.workflow && other.mode == run.mode {
            newer.push(other.id);
        }
        ControlFlow::Continue(())
    })?;
    let mut ended = BTreeMap::new();
    if newer.is_empty() {
        return Ok(ended);
    }
    let open = |machine: &Machine| decide_machine(machine.status, true, None) == MachineDecision::Work;
    let mut left: BTreeSet<Subject> =
        view.machines(run.id)?.into_iter().filter(open).map(|machine| machine.subject).collect();
    for id in newer {
        for subject in std::mem::take(&mut left) {
            if view.machine(id, &subject)?.is_some_and(|machine| has_ended(machine.status)) {
                ended.insert(subject, id);
            } else {
                left.insert(subject);
            }
        }
    }
    Ok(ended)
}

fn has_ended(status: MachineStatus) -> bool {
    match status {
        MachineStatus::Succeeded | MachineStatus::Failed | MachineStatus::TimedOut => true,
        MachineStatus::Pending
        | MachineStatus::Running
        | MachineStatus::Interrupted
        | MachineStatus::Skipped
        | MachineStatus::Gone
        | MachineStatus::Superseded => false,
    }
}
