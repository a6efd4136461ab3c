//! The decision table: what a new session of a run reuses and what it redoes, and why.
//!
//! Pure: the facts come in as values. `decide` is the table for one target; `plan` walks a machine's steps from the
//! last to the first, because whether a product is needed depends on what runs after it. The same code serves
//! `mt runs resume` and `--explain`.

use std::collections::BTreeSet;

use serde::Serialize;

use super::action::{ActionInfo, ProductState, Success};
use super::event::AttemptOutcome;
use super::id::{Product, RunId, StepName, TargetName};
use super::run::{StepState, TargetState};
use super::status::{MachineStatus, StepStatus};

/// What is done with a target, a step or a machine of an earlier session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Its outcome stands; its product, if needed, is taken over.
    Reuse,
    /// It is worked on.
    Redo,
    /// It is no longer configured.
    Gone,
    /// The mode of the run leaves it out.
    Leave,
}

impl What {
    /// The word that people see.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::Redo => "redo",
            Self::Gone => "gone",
            Self::Leave => "leave",
        }
    }
}

/// How the product of a step matters to this session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ProductUse {
    /// It makes none that a step of this session needs.
    NotNeeded,
    /// A step of this session needs it, and it can still be used.
    Usable,
    /// A step of this session needs it, and it is gone.
    Lost,
}

impl ProductUse {
    /// Every use.
    pub const ALL: &'static [Self] = &[Self::NotNeeded, Self::Usable, Self::Lost];
}

/// The table.
pub fn decide(recorded: StepStatus, configured: bool, product: ProductUse) -> What {
    match recorded {
        StepStatus::Skipped => What::Leave,
        // Back in the configuration is as good as new, and new targets wait for the next run.
        StepStatus::Gone => What::Gone,
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Succeeded
        | StepStatus::Stale
        | StepStatus::Failed
        | StepStatus::NeedsHuman
        | StepStatus::TimedOut
        | StepStatus::NotAttempted
            if !configured =>
        {
            What::Gone
        }
        StepStatus::Succeeded => match product {
            ProductUse::NotNeeded | ProductUse::Usable => What::Reuse,
            ProductUse::Lost => What::Redo,
        },
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Stale
        | StepStatus::Failed
        | StepStatus::NeedsHuman
        | StepStatus::TimedOut
        | StepStatus::NotAttempted => What::Redo,
    }
}

/// What is known of one step when a session begins.
#[derive(Clone, Debug)]
pub struct StepFacts<'a> {
    /// As recorded.
    pub state: &'a StepState,
    /// Does it fan out?
    pub fans_out: bool,
    /// What it needs and provides.
    pub info: ActionInfo,
    /// Whether what it provided can still be used.
    pub product: ProductState,
    /// The recorded targets that are no longer configured.
    pub unconfigured: BTreeSet<TargetName>,
}

/// What this session does with one step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPlan {
    /// The step.
    pub name: StepName,
    /// Does any of it run?
    pub runs: bool,
    /// Is its product, made in an earlier session, taken over?
    pub adopt: bool,
    /// Was its list of targets recorded? Then targets that are new since wait for the next run.
    pub listed: bool,
    /// One decision per recorded target; one for `-` if there is none.
    pub targets: Vec<TargetPlan>,
}

/// What this session does with one target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetPlan {
    /// The target.
    pub name: TargetName,
    /// What.
    pub what: What,
    /// Why, in a few words.
    pub why: String,
}

/// Plans a machine: one entry per step, in order.
pub fn plan(steps: &[StepFacts<'_>]) -> Vec<StepPlan> {
    let mut wanted: BTreeSet<(Product, StepName)> = BTreeSet::new();
    let mut plans: Vec<StepPlan> = steps.iter().rev().map(|step| plan_step(step, &mut wanted)).collect();
    plans.reverse();
    plans
}

fn plan_step(step: &StepFacts<'_>, wanted: &mut BTreeSet<(Product, StepName)>) -> StepPlan {
    let state = step.state;
    let provided: Vec<_> = step.info.provides.iter().collect();
    let used_by = wanted.iter().find(|(p, _)| provided.iter().any(|q| &q.product == p)).cloned();
    let (product, product_why) = match (&used_by, &step.product) {
        (None, _) => (ProductUse::NotNeeded, None),
        (Some((p, _)), _) if provided.iter().any(|q| &q.product == p && !q.outlives_process) => {
            (ProductUse::Lost, Some(format!("its {} died with the process", p.as_str().to_lowercase())))
        }
        (Some(_), ProductState::Usable(why)) => (ProductUse::Usable, Some(why.clone())),
        (Some(_), ProductState::Lost(why)) => (ProductUse::Lost, Some(why.clone())),
    };

    // A fan-out step whose targets could not be learned has the one recorded target `-`: no list at all.
    let recorded: Vec<&TargetState> = state.targets.iter().filter(|t| !step.fans_out || !t.name.is_only()).collect();
    let listed = step.fans_out && !recorded.is_empty();
    let targets: Vec<TargetPlan> = if recorded.is_empty() {
        let what = match state.status {
            StepStatus::Gone => What::Gone,
            status => decide(status, true, product),
        };
        let why = match what {
            What::Reuse => "it had nothing to do".to_owned(),
            What::Redo if state.targets.is_empty() => "not reached".to_owned(),
            What::Redo => "its targets could not be learned".to_owned(),
            What::Gone => "no longer configured".to_owned(),
            What::Leave => state.why.clone().unwrap_or_else(|| "left out".to_owned()),
        };
        vec![TargetPlan { name: TargetName::only(), what, why }]
    } else {
        recorded
            .into_iter()
            .map(|target| {
                let configured = !step.unconfigured.contains(&target.name);
                let what = decide(target.status, configured, product);
                let why = reason(target, what, product, product_why.as_deref(), used_by.as_ref());
                TargetPlan { name: target.name.clone(), what, why }
            })
            .collect()
    };

    let runs = targets.iter().any(|t| t.what == What::Redo);
    let adopt = !runs && product == ProductUse::Usable && targets.iter().any(|t| t.what == What::Reuse);
    if runs || adopt {
        wanted.retain(|(p, _)| !provided.iter().any(|q| &q.product == p));
    }
    if runs {
        wanted.extend(step.info.needs.iter().map(|p| (p.clone(), state.name.clone())));
    }
    StepPlan { name: state.name.clone(), runs, adopt, listed, targets }
}

fn reason(
    target: &TargetState,
    what: What,
    product: ProductUse,
    product_why: Option<&str>,
    used_by: Option<&(Product, StepName)>,
) -> String {
    match (what, target.status) {
        (What::Gone, _) => "no longer configured".to_owned(),
        (What::Leave, _) => "left out".to_owned(),
        (What::Reuse, _) => {
            let when = target.attempts.last().and_then(|a| a.ended_at);
            let when = when.map(|t| format!(" {}", t.strftime("%H:%M:%SZ"))).unwrap_or_default();
            match (product, product_why) {
                (ProductUse::Usable, Some(why)) => format!("succeeded{when}; {why}"),
                (ProductUse::Usable | ProductUse::NotNeeded | ProductUse::Lost, _) => format!("succeeded{when}"),
            }
        }
        (What::Redo, StepStatus::Succeeded) => {
            let why = product_why.unwrap_or("its product is gone");
            match used_by {
                Some((_, step)) => format!("{why}, and {step} needs one"),
                None => why.to_owned(),
            }
        }
        (What::Redo, StepStatus::Pending | StepStatus::Running) => match target.attempts.last() {
            None => "not reached".to_owned(),
            Some(attempt) => match &attempt.result {
                None | Some(AttemptOutcome::Interrupted) => {
                    "started, no outcome recorded: the process was stopped".to_owned()
                }
                Some(AttemptOutcome::Failed(_) | AttemptOutcome::Stale { .. } | AttemptOutcome::Succeeded(_)) => {
                    "waited for its next try".to_owned()
                }
            },
        },
        (What::Redo, status) => match last_failure(target) {
            Some(message) => format!("{status}: {message}"),
            None => status.to_string(),
        },
    }
}

fn last_failure(target: &TargetState) -> Option<&str> {
    target.attempts.iter().rev().find_map(|a| match &a.result {
        Some(AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. }) => Some(failure.message.as_str()),
        Some(AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted) | None => None,
    })
}

/// The success an earlier session recorded for a step's product, if its target has one.
pub fn recorded_success(step: &StepState) -> Option<&Success> {
    step.targets.iter().flat_map(|t| t.attempts.iter().rev()).find_map(|a| match &a.result {
        Some(AttemptOutcome::Succeeded(success) | AttemptOutcome::Stale { success, .. }) => Some(success),
        Some(AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted) | None => None,
    })
}

/// What a new session does with a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MachineDecision {
    /// It has ended for good.
    Leave,
    /// It is worked on.
    Work,
    /// Its subject is no longer configured.
    Gone,
    /// A newer run did its work.
    Superseded(RunId),
}

/// The table for machines. `newer` is the newest run of the workflow in which this subject's machine has ended, if it
/// is newer than the one being resumed.
pub fn decide_machine(status: MachineStatus, configured: bool, newer: Option<RunId>) -> MachineDecision {
    match status {
        MachineStatus::Succeeded | MachineStatus::Gone | MachineStatus::Superseded => MachineDecision::Leave,
        MachineStatus::Pending
        | MachineStatus::Running
        | MachineStatus::Failed
        | MachineStatus::TimedOut
        | MachineStatus::Interrupted
        | MachineStatus::Skipped => match (configured, newer) {
            (false, _) => MachineDecision::Gone,
            (true, Some(by)) => MachineDecision::Superseded(by),
            (true, None) => MachineDecision::Work,
        },
    }
}
