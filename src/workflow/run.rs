//! The state of a run, as the fold of its events leaves it. `machine.rs` says what may follow what; this file
//! holds the values that the store keeps and that `mt runs show` prints.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::definition::{ForEach, Mode};
use super::event::{AttemptOutcome, PlannedStep, Selection, SessionEnd, SessionStarted};
use super::id::{RunId, StepName, Subject, TargetName, WorkflowName};
use super::status::{MachineStatus, RunStatus, StepStatus};

/// A run without its machines: one record of the `runs` tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Run {
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
    /// What was selected.
    pub selection: Selection,
    /// As the events say. A run whose owner is dead still says `running` here: [`status_now`](super::session::status_now) knows.
    pub status: RunStatus,
    /// When it was made.
    pub started_at: Timestamp,
    /// When its last session ended.
    pub ended_at: Option<Timestamp>,
    /// Its sessions, in order.
    pub sessions: Vec<Session>,
    /// How many machines stand how.
    pub tally: BTreeMap<MachineStatus, u32>,
    /// The steps of every machine, in order.
    pub plan: Vec<PlannedStep>,
    /// The run-wide steps.
    pub steps: Vec<StepState>,
    /// The newer run that did the rest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub superseded_by: Option<RunId>,
    /// How many events the history holds.
    pub events: u64,
}

/// One process that worked on the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Session {
    /// Counted from 1.
    pub number: u32,
    /// The process.
    pub by: SessionStarted,
    /// When it claimed the run.
    pub started_at: Timestamp,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// How it ended.
    pub end: Option<SessionEnd>,
}

/// One machine: one record of the `machines` tree.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Whom it works for.
    pub subject: Subject,
    /// How it stands.
    pub status: MachineStatus,
    /// When a session first began it.
    pub started_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
    /// Its steps, in order.
    pub steps: Vec<StepState>,
    /// The run that held its subject, or did its work later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other_run: Option<RunId>,
}

/// One step of a machine, or one run-wide step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepState {
    /// Its name.
    pub name: StepName,
    /// The aggregate of its targets.
    pub status: StepStatus,
    /// Its targets, in the order in which they were first named.
    pub targets: Vec<TargetState>,
    /// Why it was skipped or not attempted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// One target of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TargetState {
    /// Its name, `-` for a step that does not fan out.
    pub name: TargetName,
    /// How it stands.
    pub status: StepStatus,
    /// Every try of every session, in order.
    pub attempts: Vec<AttemptRecord>,
}

/// One try.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AttemptRecord {
    /// In which session.
    pub session: u32,
    /// Which try in that session, from 1.
    pub number: u32,
    /// When it began.
    pub started_at: Timestamp,
    /// When it ended; `None` while it goes on.
    pub ended_at: Option<Timestamp>,
    /// How it ended; `None` while it goes on.
    pub result: Option<AttemptOutcome>,
}

/// A run with its machines: the value the driver works on and `fold` rebuilds from a history.
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    /// The run.
    pub run: Run,
    /// Its machines.
    pub machines: BTreeMap<Subject, Machine>,
}
