//! One machine from its lease to its end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::workflow::action::{Action, ProductState};
use crate::workflow::definition::{OnFailure, Overlap, Step};
use crate::workflow::event::{Fact, MachineEnd};
use crate::workflow::id::{Product, StepName, Subject};
use crate::workflow::lease::{Held, Lease};
use crate::workflow::resume::{MachineDecision, StepFacts, StepPlan, What, decide_machine, plan, recorded_success};
use crate::workflow::run::Machine;
use crate::workflow::status::{MachineStatus, StepStatus};

use super::over::{Over, Why};
use super::{DriveError, Session, codes, step};

/// How often a machine that waits for another run's subject looks again.
const LOOK_AGAIN: Duration = Duration::from_millis(200);

type Actions = BTreeMap<StepName, Arc<dyn Action>>;

pub(super) async fn run(session: &Session, over: &Over, subject: &Subject) -> Result<(), DriveError> {
    let status = session.recorder.with(|s| s.machines.get(subject).map(|m| m.status));
    let Some(status) = status else { return Ok(()) };
    let configured = session.configured.contains(subject);
    match decide_machine(status, configured, session.newer.get(subject).copied()) {
        MachineDecision::Leave => return Ok(()),
        MachineDecision::Gone => {
            return Ok(session.recorder.record(vec![Fact::MachineGone { subject: subject.clone() }]).await?);
        }
        MachineDecision::Superseded(by) => {
            let fact = Fact::MachineSuperseded { subject: subject.clone(), by };
            return Ok(session.recorder.record(vec![fact]).await?);
        }
        MachineDecision::Work => {}
    }

    // One that has failed before keeps that outcome if this session cannot work on it; it can be resumed again.
    let is_open = matches!(status, MachineStatus::Pending | MachineStatus::Interrupted | MachineStatus::Skipped);
    let _lease = match turn(session, over, subject).await {
        Turn::Ours(lease) => lease,
        Turn::Theirs(held) => {
            tracing::info!(held_by = held.by.map(tracing::field::display), "another live run holds it");
            if is_open {
                let fact = Fact::MachineSkipped { subject: subject.clone(), held_by: held.by };
                session.recorder.record(vec![fact]).await?;
            } else {
                session.recorder.leave(subject).await;
            }
            return Ok(());
        }
        // The resume does it.
        Turn::Over(Why::Stopped) => return Ok(()),
        Turn::Over(Why::Deadline) => {
            tracing::info!("its turn did not come before the deadline");
            if is_open {
                session.recorder.record(vec![Fact::MachineStarted { subject: subject.clone() }]).await?;
                finish(session, subject, MachineEnd::Deadline).await?;
            } else {
                session.recorder.leave(subject).await;
            }
            return Ok(());
        }
    };
    session.recorder.record(vec![Fact::MachineStarted { subject: subject.clone() }]).await?;
    steps(session, over, subject).await?;
    let how = match over.why() {
        Some(Why::Stopped) => return Ok(()),
        Some(Why::Deadline) => MachineEnd::Deadline,
        None => MachineEnd::Done,
    };
    finish(session, subject, how).await
}

/// Whose turn it is to work on a subject.
enum Turn {
    /// Ours. Where there can be no lease (`None`), the work is more important: two runs that do the same are better than none.
    Ours(Option<Lease>),
    /// Another run's, and there is no patience left.
    Theirs(Held),
    /// Nobody's any more in this session.
    Over(Why),
}

/// Takes the subject's lease, waiting for it as the workflow says.
async fn turn(session: &Session, over: &Over, subject: &Subject) -> Turn {
    let patience = match session.workflow.overlap {
        Overlap::Skip => Duration::ZERO,
        Overlap::Wait(patience) => patience,
    };
    let until = Instant::now() + patience;
    loop {
        if let Some(why) = over.why() {
            return Turn::Over(why);
        }
        match session.leases.take(subject, session.run, session.process) {
            Ok(Ok(mut lease)) => {
                tokio::select! {
                    () = session.leases.bury(&mut lease) => {}
                    () = over.wait() => {}
                }
                return over.why().map_or(Turn::Ours(Some(lease)), Turn::Over);
            }
            Ok(Err(held)) if Instant::now() >= until => return Turn::Theirs(held),
            Ok(Err(_)) => tokio::select! {
                () = over.wait() => {}
                () = tokio::time::sleep(LOOK_AGAIN) => {}
            },
            Err(error) => {
                tracing::error!(code = %codes::NO_LEASE, "worked on without a lock: {error}");
                return Turn::Ours(None);
            }
        }
    }
}

async fn steps(session: &Session, over: &Over, subject: &Subject) -> Result<(), DriveError> {
    let (mode, provided) = (session.recorder.with(|s| s.run.mode), provided(session));
    let Some((plans, mut available)) = prepared(session, over, subject).await? else { return Ok(()) };
    let mut stopped_by: Option<StepName> = None;
    for step in &session.workflow.steps {
        if over.why().is_some() {
            return Ok(());
        }
        // A step that the run was not made with waits for the next run.
        let Some(plan) = plans.iter().find(|p| p.name == step.name) else { continue };
        let name = &step.name;
        if !plan.runs {
            let mut facts: Vec<Fact> = gone(subject, plan).collect();
            if !facts.is_empty() && status(session, subject, name) == Some(StepStatus::Pending) {
                // Cut off while only those had no outcome: what is left of it has ended.
                let (subject, step) = (Some(subject.clone()), name.clone());
                facts.push(Fact::StepStarted { subject, step, targets: Vec::new() });
            }
            session.recorder.record(facts).await?;
            continue;
        }
        if !step.when.contains(&mode) {
            // With the present definition it may have an outcome of an earlier session, which stays.
            if status(session, subject, name) == Some(StepStatus::Pending) {
                let why = "this mode leaves it out".to_owned();
                let fact = Fact::StepSkipped { subject: Some(subject.clone()), step: name.clone(), why };
                session.recorder.record(vec![fact]).await?;
            }
            continue;
        }
        let action = session.actions.get(name).ok_or_else(|| DriveError::NoAction(name.clone()))?;
        let info = action.info();
        let missing = info.needs.iter().find(|p| provided.contains(*p) && !available.contains(*p));
        let why = match (&stopped_by, missing) {
            (Some(by), _) => Some(format!("{by} failed")),
            (None, Some(product)) => Some(format!("it needs a {product}, and no step before it made one")),
            (None, None) => None,
        };
        if let Some(why) = why {
            if matches!(status(session, subject, name), Some(StepStatus::Pending | StepStatus::NotAttempted)) {
                let fact = Fact::StepNotAttempted { subject: Some(subject.clone()), step: name.clone(), why };
                session.recorder.record(vec![fact]).await?;
            }
            continue;
        }
        step::run(session, over, Some(subject), step, Some(plan)).await?;
        match status(session, subject, name) {
            Some(StepStatus::Succeeded | StepStatus::Stale) => {
                available.extend(info.provides.into_iter().map(|p| p.product));
            }
            Some(StepStatus::Failed | StepStatus::NeedsHuman | StepStatus::TimedOut) => match step.on_failure {
                OnFailure::Stop => stopped_by = Some(name.clone()),
                OnFailure::Continue => {}
            },
            Some(
                StepStatus::Pending
                | StepStatus::Running
                | StepStatus::NotAttempted
                | StepStatus::Skipped
                | StepStatus::Gone,
            )
            | None => {}
        }
    }
    Ok(())
}

/// Plans the machine, off the runtime's threads: what an earlier session made lies on disks that may hang, and nobody
/// else waits for those. `None`: the session was over first.
async fn prepared(session: &Session, over: &Over, subject: &Subject) -> Result<Option<Prepared>, DriveError> {
    let Some(machine) = session.recorder.with(|state| state.machines.get(subject).cloned()) else {
        return Ok(Some(Prepared::default()));
    };
    let (workflow, actions) = (session.workflow.clone(), session.actions.clone());
    if machine.steps.iter().all(|step| recorded_success(step).is_none()) {
        return Ok(Some(prepare(&workflow.steps, &actions, &machine)));
    }
    let span = tracing::Span::current();
    let work = tokio::task::spawn_blocking(move || span.in_scope(|| prepare(&workflow.steps, &actions, &machine)));
    tokio::select! {
        done = work => Ok(Some(done?)),
        () = over.wait() => Ok(None),
    }
}

/// What a machine does, and what it has without doing anything.
type Prepared = (Vec<StepPlan>, BTreeSet<Product>);

/// Plans the machine and takes over what earlier sessions made. A product that cannot be taken over after all is lost,
/// and the machine is planned anew without it. May block.
fn prepare(steps: &[Step], actions: &Actions, machine: &Machine) -> Prepared {
    let mut lost: BTreeSet<StepName> = BTreeSet::new();
    'plan: loop {
        let plans = plan(&facts(steps, machine, actions, &lost));
        let mut available = BTreeSet::new();
        for plan in plans.iter().filter(|p| p.adopt) {
            let Some(action) = actions.get(&plan.name) else { continue };
            let state = machine.steps.iter().find(|s| s.name == plan.name);
            let detail = state.and_then(recorded_success).and_then(|success| success.detail.as_ref());
            if let Err(failure) = action.adopt(Some(&machine.subject), detail) {
                tracing::warn!(step = %plan.name, why = %failure.message, "cannot reuse it; it is done anew");
                lost.insert(plan.name.clone());
                continue 'plan;
            }
            available.extend(action.info().provides.into_iter().map(|p| p.product));
        }
        return (plans, available);
    }
}

/// The facts of a machine's steps, in the order of the workflow. May block.
pub(super) fn facts<'a>(
    steps: &[Step],
    machine: &'a Machine,
    actions: &Actions,
    lost: &BTreeSet<StepName>,
) -> Vec<StepFacts<'a>> {
    let subject = Some(&machine.subject);
    steps
        .iter()
        .filter_map(|step| {
            let state = machine.steps.iter().find(|s| s.name == step.name)?;
            let action = actions.get(&step.name)?;
            let success = recorded_success(state);
            let product = if lost.contains(&step.name) {
                ProductState::Lost("it could not be taken over".to_owned())
            } else {
                action.product_state(subject, success.and_then(|s| s.detail.as_ref()))
            };
            let unconfigured = state
                .targets
                .iter()
                .filter(|t| !t.name.is_only() && !action.is_configured(subject, &t.name))
                .map(|t| t.name.clone())
                .collect();
            Some(StepFacts { state, fans_out: step::fans_out(step), info: action.info(), product, unconfigured })
        })
        .collect()
}

/// Recorded targets that are gone from the configuration, of a step that does not run.
fn gone<'a>(subject: &'a Subject, plan: &'a StepPlan) -> impl Iterator<Item = Fact> + 'a {
    plan.targets.iter().filter(|t| t.what == What::Gone && !t.name.is_only()).map(|t| Fact::TargetGone {
        subject: Some(subject.clone()),
        step: plan.name.clone(),
        target: t.name.clone(),
    })
}

/// Ends the machine: what has no outcome was not attempted.
async fn finish(session: &Session, subject: &Subject, how: MachineEnd) -> Result<(), DriveError> {
    let why = match how {
        MachineEnd::Deadline => "the run's deadline struck",
        // The run was made with it; the definition that this session works with has lost it.
        MachineEnd::Done => "the workflow of this session has no such step",
    };
    let mut facts: Vec<Fact> = session.recorder.with(|state| {
        let steps = state.machines.get(subject).map(|m| m.steps.as_slice()).unwrap_or_default();
        steps
            .iter()
            .filter(|s| s.status == StepStatus::Pending)
            .map(|s| Fact::StepNotAttempted {
                subject: Some(subject.clone()),
                step: s.name.clone(),
                why: why.to_owned(),
            })
            .collect()
    });
    facts.push(Fact::MachineEnded { subject: subject.clone(), how });
    Ok(session.recorder.record(facts).await?)
}

/// Every product that some step of the workflow provides; any other is given from outside.
fn provided(session: &Session) -> BTreeSet<Product> {
    let steps = session.workflow.steps.iter().filter_map(|s| session.actions.get(&s.name));
    steps.flat_map(|a| a.info().provides).map(|p| p.product).collect()
}

fn status(session: &Session, subject: &Subject, step: &StepName) -> Option<StepStatus> {
    session.recorder.with(|state| {
        let machine = state.machines.get(subject)?;
        machine.steps.iter().find(|s| &s.name == step).map(|s| s.status)
    })
}
