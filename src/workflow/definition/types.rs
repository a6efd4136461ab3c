//! The types of a workflow as declared in its RON file.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::workflow::id::{StepName, WorkflowName};

/// How a run was asked to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Everything.
    Normal,
    /// Get credentials, touch no node, tell the test recipients.
    Test,
    /// A person authenticates; touch no node.
    Onboard,
    /// A person authenticates; then push.
    OnboardPush,
}

impl Mode {
    /// Every mode.
    pub const ALL: &'static [Self] = &[Self::Normal, Self::Test, Self::Onboard, Self::OnboardPush];
}

/// What the machines of a run are made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ForEach {
    /// One machine per configured service.
    Service,
    /// One machine per configured account.
    Account,
}

/// What a machine does whose subject another live run holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overlap {
    /// It is skipped.
    Skip,
    /// It waits this long, then it is skipped.
    Wait(Duration),
}

/// What a start does with an interrupted run of the same selection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interrupted {
    /// Resumes it instead of starting anew, if it is younger than this.
    ResumeWithin(Duration),
    /// Leaves it alone; the new run supersedes it.
    Supersede,
}

/// Over what a step fans out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Per {
    /// It does not: one target, `-`.
    Subject,
    /// One target per credd.
    Credd,
    /// One target per destination node.
    Node,
}

/// How often and how fast a failed attempt is tried again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first.
    pub times: u32,
    /// First pause and longest pause; it doubles in between, with jitter.
    pub backoff: (Duration, Duration),
}

/// What the failure of a step means for the steps after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum OnFailure {
    /// They are not attempted.
    Stop,
    /// They run.
    Continue,
}

/// Which consecutive-error counter a failure feeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CountsAs {
    /// The subject's one counter.
    Setup,
    /// The counter of subject and target.
    Push,
    /// None.
    Nothing,
}

/// The action of a step: its name and, for those that take some, its arguments as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionSpec {
    /// `Kinit`, `Exec`, …
    pub name: String,
    /// The RON text of the arguments, parentheses included, if there were any.
    pub arguments: Option<String>,
}

/// One step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Unique in the workflow.
    pub name: StepName,
    /// What it does.
    pub action: ActionSpec,
    /// Over what it fans out.
    pub per: Per,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How many attempts of this step go on at once in a run.
    pub parallel: u32,
    /// Further tries.
    pub retry: Retry,
    /// What its failure means for the later steps.
    pub on_failure: OnFailure,
    /// Which counter it feeds.
    pub counts_as: CountsAs,
    /// The modes in which it runs.
    pub when: Vec<Mode>,
}

/// A workflow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workflow {
    /// `token-push`.
    pub name: WorkflowName,
    /// What machines are made for.
    pub for_each: ForEach,
    /// The whole run, `reserve` included.
    pub deadline: Duration,
    /// The part of the deadline kept for `finally`.
    pub reserve: Duration,
    /// When another live run holds a subject.
    pub overlap: Overlap,
    /// When a cut-off run is found at the start.
    pub interrupted: Interrupted,
    /// In order, for every machine.
    pub steps: Vec<Step>,
    /// Run-wide, in order, when all machines have ended.
    pub finally: Vec<Step>,
    /// The text it was read from.
    pub source: Arc<str>,
}
