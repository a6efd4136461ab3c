//! What may follow what: pure and total.
//!
//! Four small machines, one inside the other: a run has machines, a machine has steps, a step has targets. Each has a
//! function `status × input → status or Illegal`. No clock, no I/O, no lookup: `fold.rs` finds the right status and
//! keeps the result. The diagram in `docs/state-machines.md` is generated from these functions.

use super::event::{MachineEnd, SessionEnd};
use super::status::{MachineStatus, RunStatus, StepStatus};

/// The event does not fit the status: a defect of the caller, never of the data of a whole history.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a {what} that is {status} cannot take the event {input}")]
pub struct Illegal {
    /// `run`, `machine`, `step`, `target`.
    pub what: &'static str,
    /// Its status.
    pub status: &'static str,
    /// The event.
    pub input: String,
}

/// What happens to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TargetInput {
    /// `StepStarted` lists it.
    Listed,
    /// A try begins.
    AttemptStarted,
    /// A try failed and another will follow.
    WillRetry,
    /// The last try of this session ended well.
    Succeeded,
    /// The last try failed and an older product stands in.
    Stale,
    /// The last try failed.
    Failed,
    /// The last try failed and only a person can mend it.
    NeedsHuman,
    /// The last try did not end in time.
    TimedOut,
    /// The session ends while the try goes on.
    Interrupted,
    /// The step ends before this target was tried.
    NotTried,
    /// The step ends after this target was tried, while it waited for another try.
    CutOff,
    /// It is no longer configured.
    Gone,
}

impl TargetInput {
    /// Every input.
    pub const ALL: &'static [Self] = &[
        Self::Listed,
        Self::AttemptStarted,
        Self::WillRetry,
        Self::Succeeded,
        Self::Stale,
        Self::Failed,
        Self::NeedsHuman,
        Self::TimedOut,
        Self::Interrupted,
        Self::NotTried,
        Self::CutOff,
        Self::Gone,
    ];
}

/// The next status of a target.
pub fn next_target(status: StepStatus, input: TargetInput) -> Result<StepStatus, Illegal> {
    use StepStatus as S;
    use TargetInput as I;
    let illegal = || Illegal { what: "target", status: status.as_str(), input: format!("{input:?}") };
    match (input, status) {
        (
            I::Listed,
            S::Pending | S::Succeeded | S::Stale | S::Failed | S::NeedsHuman | S::TimedOut | S::NotAttempted,
        ) => Ok(S::Pending),
        (I::AttemptStarted, S::Pending) => Ok(S::Running),
        (I::WillRetry | I::Interrupted, S::Running) => Ok(S::Pending),
        (I::Succeeded, S::Running) => Ok(S::Succeeded),
        (I::Stale, S::Running) => Ok(S::Stale),
        (I::Failed, S::Running) => Ok(S::Failed),
        (I::NeedsHuman, S::Running) => Ok(S::NeedsHuman),
        (I::TimedOut, S::Running) => Ok(S::TimedOut),
        (I::NotTried, S::Pending) => Ok(S::NotAttempted),
        (I::CutOff, S::Pending) => Ok(S::TimedOut),
        (
            I::Gone,
            S::Pending | S::Succeeded | S::Stale | S::Failed | S::NeedsHuman | S::TimedOut | S::NotAttempted | S::Gone,
        ) => Ok(S::Gone),
        (
            I::Listed
            | I::AttemptStarted
            | I::WillRetry
            | I::Succeeded
            | I::Stale
            | I::Failed
            | I::NeedsHuman
            | I::TimedOut
            | I::Interrupted
            | I::NotTried
            | I::CutOff
            | I::Gone,
            _,
        ) => Err(illegal()),
    }
}

/// What happens to a step as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StepInput {
    /// It begins in this session.
    Started,
    /// One of its targets changed; all targets now have an outcome, which taken together is this.
    TargetsEnded(StepStatus),
    /// One of its targets changed; not all have an outcome.
    TargetChanged,
    /// An attempt on one of its targets begins or ends.
    AttemptChanged,
    /// The mode leaves it out.
    Skipped,
    /// An earlier step stopped the machine.
    NotAttempted,
    /// The session ends.
    SessionEnded,
}

impl StepInput {
    /// Every input, `TargetsEnded` with every outcome.
    pub fn all() -> Vec<Self> {
        let ended = StepStatus::ALL
            .iter()
            .copied()
            .filter(|s| !matches!(s, StepStatus::Pending | StepStatus::Running | StepStatus::Skipped))
            .map(Self::TargetsEnded);
        [
            Self::Started,
            Self::TargetChanged,
            Self::AttemptChanged,
            Self::Skipped,
            Self::NotAttempted,
            Self::SessionEnded,
        ]
        .into_iter()
        .chain(ended)
        .collect()
    }
}

/// The next status of a step.
pub fn next_step(status: StepStatus, input: StepInput) -> Result<StepStatus, Illegal> {
    use StepInput as I;
    use StepStatus as S;
    let illegal = || Illegal { what: "step", status: status.as_str(), input: format!("{input:?}") };
    match (input, status) {
        (I::Started, S::Skipped | S::Running) => Err(illegal()),
        (I::Started, _) => Ok(S::Running),
        (I::TargetsEnded(outcome), S::Running) => Ok(outcome),
        (I::TargetChanged | I::AttemptChanged, S::Running) => Ok(S::Running),
        // A target of an earlier session vanishes before the step begins in this one.
        (I::TargetsEnded(_) | I::TargetChanged, S::Pending) => Ok(S::Pending),
        (I::TargetsEnded(outcome), s) if s.is_failure() || matches!(s, S::Succeeded | S::NotAttempted | S::Gone) => {
            Ok(outcome)
        }
        (I::Skipped, S::Pending) => Ok(S::Skipped),
        (I::NotAttempted, S::Pending | S::NotAttempted) => Ok(S::NotAttempted),
        (I::SessionEnded, S::Running) => Ok(S::Pending),
        (I::SessionEnded, s) => Ok(s),
        (I::TargetsEnded(_) | I::TargetChanged | I::AttemptChanged | I::Skipped | I::NotAttempted, _) => Err(illegal()),
    }
}

/// What the targets of a step amount to; `None` while one has no outcome. The worst outcome wins; a step without
/// targets had nothing to do.
pub fn aggregate(targets: impl IntoIterator<Item = StepStatus>) -> Option<StepStatus> {
    use StepStatus as S;
    let rank = |s: S| match s {
        S::Gone => Some(0),
        S::Skipped => Some(1),
        S::Succeeded => Some(2),
        S::NotAttempted => Some(3),
        S::Stale => Some(4),
        S::TimedOut => Some(5),
        S::Failed => Some(6),
        S::NeedsHuman => Some(7),
        S::Pending | S::Running => None,
    };
    let mut worst = None;
    for status in targets {
        let rank = rank(status)?;
        if worst.is_none_or(|(r, _)| rank > r) {
            worst = Some((rank, status));
        }
    }
    Some(worst.map_or(S::Succeeded, |(_, s)| s))
}

/// What happens to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineInput {
    /// A session begins or continues it.
    Started,
    /// It has done what this session can do; `fine` if every step succeeded or was not meant to run.
    Ended {
        /// By itself or by the deadline.
        how: MachineEnd,
        /// Did every step succeed?
        fine: bool,
    },
    /// Another live run holds its subject.
    Skipped,
    /// Its subject is no longer configured.
    Gone,
    /// A newer run ended this subject's machine.
    Superseded,
    /// The session ends.
    SessionEnded,
}

impl MachineInput {
    /// Every input.
    pub const ALL: &'static [Self] = &[
        Self::Started,
        Self::Ended { how: MachineEnd::Done, fine: true },
        Self::Ended { how: MachineEnd::Done, fine: false },
        Self::Ended { how: MachineEnd::Deadline, fine: true },
        Self::Ended { how: MachineEnd::Deadline, fine: false },
        Self::Skipped,
        Self::Gone,
        Self::Superseded,
        Self::SessionEnded,
    ];
}

/// The next status of a machine.
pub fn next_machine(status: MachineStatus, input: MachineInput) -> Result<MachineStatus, Illegal> {
    use MachineInput as I;
    use MachineStatus as S;
    let illegal = || Illegal { what: "machine", status: status.as_str(), input: format!("{input:?}") };
    match (input, status) {
        (I::Started, S::Pending | S::Interrupted | S::Failed | S::TimedOut | S::Skipped) => Ok(S::Running),
        (I::Ended { fine: true, how: MachineEnd::Done | MachineEnd::Deadline }, S::Running) => Ok(S::Succeeded),
        (I::Ended { fine: false, how: MachineEnd::Done }, S::Running) => Ok(S::Failed),
        (I::Ended { fine: false, how: MachineEnd::Deadline }, S::Running) => Ok(S::TimedOut),
        (I::Skipped, S::Pending | S::Interrupted | S::Skipped) => Ok(S::Skipped),
        (I::Gone, S::Pending | S::Interrupted | S::Failed | S::TimedOut | S::Skipped) => Ok(S::Gone),
        (I::Superseded, S::Pending | S::Interrupted | S::Failed | S::TimedOut | S::Skipped) => Ok(S::Superseded),
        (I::SessionEnded, S::Running) => Ok(S::Interrupted),
        (I::SessionEnded, s) => Ok(s),
        (I::Started | I::Ended { .. } | I::Skipped | I::Gone | I::Superseded, _) => Err(illegal()),
    }
}

/// What happens to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RunInput {
    /// A process claims it; `open` if a session has not ended.
    SessionStarted {
        /// Is there a session without an end?
        open: bool,
    },
    /// The open session ends; `outcome` is what the machines amount to, `None` while one has not ended.
    SessionEnded {
        /// How.
        how: SessionEnd,
        /// What the machines amount to.
        outcome: Option<RunStatus>,
    },
    /// A person ends it for good.
    Cancelled,
    /// A newer run did the rest.
    Superseded,
}

impl RunInput {
    /// Every input, with every outcome that machines can amount to.
    pub fn all() -> Vec<Self> {
        let ends = [SessionEnd::Finished, SessionEnd::Interrupted, SessionEnd::Cancelled, SessionEnd::Lost];
        let outcomes = [
            None,
            Some(RunStatus::Succeeded),
            Some(RunStatus::Partial),
            Some(RunStatus::Failed),
            Some(RunStatus::TimedOut),
            Some(RunStatus::Skipped),
            Some(RunStatus::Superseded),
        ];
        let mut all = vec![Self::SessionStarted { open: false }, Self::SessionStarted { open: true }];
        all.extend(
            ends.iter().flat_map(|&how| outcomes.iter().map(move |&outcome| Self::SessionEnded { how, outcome })),
        );
        all.extend([Self::Cancelled, Self::Superseded]);
        all
    }
}

/// The next status of a run.
pub fn next_run(status: RunStatus, input: RunInput) -> Result<RunStatus, Illegal> {
    use RunInput as I;
    use RunStatus as S;
    let illegal = || Illegal { what: "run", status: status.as_str(), input: format!("{input:?}") };
    match (input, status) {
        (
            I::SessionStarted { open: false },
            S::Running | S::Interrupted | S::Failed | S::Partial | S::TimedOut | S::Skipped,
        ) => Ok(S::Running),
        (I::SessionEnded { how: SessionEnd::Finished, outcome: Some(outcome) }, S::Running) => Ok(outcome),
        (I::SessionEnded { how: SessionEnd::Interrupted | SessionEnd::Lost, outcome: _ }, S::Running) => {
            Ok(S::Interrupted)
        }
        (I::SessionEnded { how: SessionEnd::Cancelled, outcome: _ }, S::Running) => Ok(S::Cancelled),
        (I::Cancelled, S::Interrupted | S::Failed | S::Partial | S::TimedOut | S::Skipped) => Ok(S::Cancelled),
        (I::Superseded, S::Interrupted | S::Failed | S::Partial | S::TimedOut | S::Skipped) => Ok(S::Superseded),
        (I::SessionStarted { .. } | I::SessionEnded { .. } | I::Cancelled | I::Superseded, _) => Err(illegal()),
    }
}

/// What the machines of a run amount to; `None` while one has not ended.
pub fn run_outcome(machines: impl IntoIterator<Item = MachineStatus>) -> Option<RunStatus> {
    let (mut fine, mut failed, mut late, mut skipped, mut superseded) = (0, 0, 0, 0, 0);
    for status in machines {
        match status {
            MachineStatus::Pending | MachineStatus::Running | MachineStatus::Interrupted => return None,
            MachineStatus::Succeeded => fine += 1,
            MachineStatus::Failed => failed += 1,
            MachineStatus::TimedOut => late += 1,
            MachineStatus::Skipped => skipped += 1,
            MachineStatus::Superseded => superseded += 1,
            MachineStatus::Gone => {}
        }
    }
    Some(match (late, failed, fine, skipped, superseded) {
        (1.., _, _, _, _) => RunStatus::TimedOut,
        (0, 1.., 1.., _, _) => RunStatus::Partial,
        (0, 1.., 0, _, _) => RunStatus::Failed,
        (0, 0, 1.., _, _) => RunStatus::Succeeded,
        (0, 0, 0, 1.., _) => RunStatus::Skipped,
        (0, 0, 0, 0, 1..) => RunStatus::Superseded,
        // Nothing was left to do: every subject is gone, or there was none.
        _ => RunStatus::Succeeded,
    })
}
