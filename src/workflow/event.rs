//! The facts a run's history is made of.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::action::{Failure, Success};
use super::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use super::id::{ProcessId, RunId, StepName, Subject, TargetName, WorkflowName};

/// One fact with its place in the run's history.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Position in the run's history, from 0, without gaps.
    pub seq: u64,
    /// When it was recorded.
    pub at: Timestamp,
    /// The session that recorded it, from 1.
    pub session: u32,
    /// What happened.
    pub fact: Fact,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Fact {
    /// The run was made: always the first event.
    RunCreated(RunCreated),
    /// A process claimed the run.
    SessionStarted(SessionStarted),
    /// The session ended; `Lost` is recorded by the next one.
    SessionEnded {
        /// How.
        how: SessionEnd,
    },
    /// A machine began its work in this session.
    MachineStarted {
        /// Whose.
        subject: Subject,
    },
    /// A machine has done what this session can do.
    MachineEnded {
        /// Whose.
        subject: Subject,
        /// By itself or by the deadline.
        how: MachineEnd,
    },
    /// Another live run holds the subject.
    MachineSkipped {
        /// Whose.
        subject: Subject,
        /// The run that holds it, where it is known.
        held_by: Option<RunId>,
    },
    /// The subject is no longer configured.
    MachineGone {
        /// Whose.
        subject: Subject,
    },
    /// The subject's machine has ended in a newer run of the workflow.
    MachineSuperseded {
        /// Whose.
        subject: Subject,
        /// In which run.
        by: RunId,
    },
    /// Intent: these targets will be worked on in this session.
    StepStarted {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// On what. Targets of an earlier session that are not listed keep their outcome.
        targets: Vec<TargetName>,
    },
    /// The mode of the run leaves the step out, or there is nothing for it to do.
    StepSkipped {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// Why, in a few words.
        why: String,
    },
    /// An earlier step stopped the machine, or something it needs was not made.
    StepNotAttempted {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// Why, in a few words.
        why: String,
    },
    /// The session can do no more for this step: the deadline struck. Targets that wait for another try have
    /// timed out, those never tried were not attempted.
    StepCut {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
    },
    /// The target of an earlier session is no longer configured.
    TargetGone {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// The target that is no longer configured.
        target: TargetName,
    },
    /// Intent: one try begins.
    AttemptStarted {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// On what.
        target: TargetName,
        /// Which try in this session, from 1.
        number: u32,
    },
    /// One try ended.
    AttemptEnded {
        /// Whose; `None` for a run-wide step.
        subject: Option<Subject>,
        /// Which.
        step: StepName,
        /// On what.
        target: TargetName,
        /// How.
        outcome: AttemptOutcome,
        /// Will there be another try in this session?
        retry: bool,
    },
    /// A person ended the run for good.
    RunCancelled,
    /// A newer run did all the work that was left.
    RunSuperseded {
        /// Which.
        by: RunId,
    },
}

/// What a fact is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The run; no machine changes.
    Run,
    /// The status of one machine.
    Machine,
    /// A step of one machine, or a run-wide step.
    Step,
    /// Every machine may change.
    EveryMachine,
}

impl Fact {
    /// What it is about.
    pub fn scope(&self) -> Scope {
        match self {
            Self::RunCreated(_) | Self::SessionStarted(_) | Self::RunCancelled | Self::RunSuperseded { .. } => {
                Scope::Run
            }
            Self::SessionEnded { .. } => Scope::EveryMachine,
            Self::MachineStarted { .. }
            | Self::MachineEnded { .. }
            | Self::MachineSkipped { .. }
            | Self::MachineGone { .. }
            | Self::MachineSuperseded { .. } => Scope::Machine,
            Self::StepStarted { .. }
            | Self::StepSkipped { .. }
            | Self::StepNotAttempted { .. }
            | Self::StepCut { .. }
            | Self::TargetGone { .. }
            | Self::AttemptStarted { .. }
            | Self::AttemptEnded { .. } => Scope::Step,
        }
    }

    /// Whose machine comes to its end by it.
    pub fn ended(&self) -> Option<&Subject> {
        match self {
            Self::MachineEnded { subject, .. }
            | Self::MachineSkipped { subject, .. }
            | Self::MachineGone { subject }
            | Self::MachineSuperseded { subject, .. } => Some(subject),
            Self::RunCreated(_)
            | Self::SessionStarted(_)
            | Self::SessionEnded { .. }
            | Self::RunCancelled
            | Self::RunSuperseded { .. }
            | Self::MachineStarted { .. }
            | Self::StepStarted { .. }
            | Self::StepSkipped { .. }
            | Self::StepNotAttempted { .. }
            | Self::StepCut { .. }
            | Self::TargetGone { .. }
            | Self::AttemptStarted { .. }
            | Self::AttemptEnded { .. } => None,
        }
    }

    /// Whose machine it is about.
    pub fn subject(&self) -> Option<&Subject> {
        match self {
            Self::RunCreated(_)
            | Self::SessionStarted(_)
            | Self::SessionEnded { .. }
            | Self::RunCancelled
            | Self::RunSuperseded { .. } => None,
            Self::MachineStarted { subject }
            | Self::MachineEnded { subject, .. }
            | Self::MachineSkipped { subject, .. }
            | Self::MachineGone { subject }
            | Self::MachineSuperseded { subject, .. } => Some(subject),
            Self::StepStarted { subject, .. }
            | Self::StepSkipped { subject, .. }
            | Self::StepNotAttempted { subject, .. }
            | Self::StepCut { subject, .. }
            | Self::TargetGone { subject, .. }
            | Self::AttemptStarted { subject, .. }
            | Self::AttemptEnded { subject, .. } => subject.as_ref(),
        }
    }
}

/// What a run is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RunCreated {
    /// Its id.
    pub id: RunId,
    /// The workflow.
    pub workflow: WorkflowName,
    /// Sha256 of the definition's text, in hex.
    pub definition: String,
    /// What its machines are made for.
    pub for_each: ForEach,
    /// The mode.
    pub mode: Mode,
    /// What was selected: a run is resumed in place of a new one only for the same selection.
    pub selection: Selection,
    /// One machine each, sorted.
    pub subjects: Vec<Subject>,
    /// The steps of every machine, in order.
    pub steps: Vec<PlannedStep>,
    /// The run-wide steps, in order.
    pub finally: Vec<PlannedStep>,
}

/// What the later reader needs of a step's declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedStep {
    /// Its name.
    pub name: StepName,
    /// Its action.
    pub action: String,
    /// Over what it fans out.
    pub per: Per,
    /// Which counter it feeds.
    pub counts_as: CountsAs,
    /// What its failure means.
    pub on_failure: OnFailure,
}

/// The selecting arguments, sorted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection {
    /// `-s`.
    pub services: Vec<String>,
    /// `-e`.
    pub experiments: Vec<String>,
    /// `--shard I/N`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shard: Option<(u32, u32)>,
    /// Other arguments that decide what the run does, sorted. A resumed session works with the same.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// The process behind a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionStarted {
    /// Names its owner lock and private directory.
    pub process: ProcessId,
    /// Host name.
    pub host: String,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The worker's pid.
    pub pid: u32,
    /// When the kernel started the worker, in clock ticks since the boot: tells it from a later process of the same pid.
    /// Absent where `/proc` did not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_ticks: Option<u64>,
    /// `cron`, `terminal`, `resume`, …: who asked.
    pub trigger: String,
    /// The trace, where one is sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub trace: Option<String>,
}

/// How a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SessionEnd {
    /// Every machine has ended, and the run-wide steps were run.
    Finished,
    /// A signal ended it early.
    Interrupted,
    /// `mt runs cancel` ended it.
    Cancelled,
    /// Its process died; the session after it recorded this.
    Lost,
}

/// How a machine came to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MachineEnd {
    /// It came to the end of its steps.
    Done,
    /// The run's deadline struck.
    Deadline,
}

/// How one try ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "outcome", rename_all = "kebab-case")]
pub enum AttemptOutcome {
    /// It did what it is for.
    Succeeded(Success),
    /// It failed; an older product stands in.
    Stale {
        /// What stands in.
        success: Success,
        /// What failed.
        failure: Failure,
    },
    /// It failed.
    Failed(Failure),
    /// The session ended while it went on.
    Interrupted,
}
