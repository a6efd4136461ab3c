//! From the state of a run to what is kept: pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::stored::{Sendings, Stage, Stored, SubjectSamples, TargetSamples, Took, WorkflowSamples};
use crate::notify::delivery::{Delivery, Recipient};
use crate::workflow::definition::ForEach;
use crate::workflow::event::{AttemptOutcome, PlannedStep};
use crate::workflow::id::TargetName;
use crate::workflow::run::{AttemptRecord, Machine, Run, RunState, StepState, TargetState};
use crate::workflow::status::{MachineStatus, StepStatus};

/// From the start of the session to the first try.
const SETUP: &str = "setup";
/// From the last end of a machine's step to the end of the session: notifications, mostly.
const CLEANUP: &str = "cleanup";

/// What is known after this run, given what was known before it: the samples of everything the run has worked on are
/// replaced, all others stay. Times and durations of the last success stay until the next one; failures and histograms
/// are of one run. A run that is older than the one that said the last word (it was resumed later) changes nothing.
pub fn samples(state: &RunState, deliveries: &[Delivery], previous: &Stored) -> Stored {
    let mut next = previous.clone();
    let run = &state.run;
    for machine in state.machines.values().filter(|machine| has_worked(machine.status)) {
        let key = (run.workflow.clone(), machine.subject.clone());
        match previous.subjects.get(&key) {
            Some(known) if known.run > run.id => {}
            known => {
                next.subjects.insert(key, of_machine(run, machine, known));
            }
        }
    }
    if let Some(of_run) = of_workflow(state, deliveries, previous.workflows.get(&run.workflow)) {
        next.workflows.insert(run.workflow.clone(), of_run);
    }
    next
}

fn has_worked(status: MachineStatus) -> bool {
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

fn of_machine(run: &Run, machine: &Machine, known: Option<&SubjectSamples>) -> SubjectSamples {
    let mut next = known.cloned().unwrap_or_else(|| SubjectSamples {
        workflow: run.workflow.clone(),
        subject: machine.subject.clone(),
        for_each: run.for_each,
        run: run.id,
        stages: BTreeMap::new(),
        push_failed: false,
        token_expires_at: None,
        succeeded_at: None,
    });
    next.for_each = run.for_each;
    next.run = run.id;
    let by_stage = by_stage(&run.plan, machine);
    next.push_failed = false;
    next.stages.retain(|stage, _| by_stage.contains_key(stage));
    for (stage, steps) in by_stage {
        let targets = next.stages.entry(stage).or_default();
        update(targets, stage, &steps);
        match stage {
            Stage::GetToken => next.token_expires_at = expiry(&steps).or(next.token_expires_at),
            Stage::Push => next.push_failed = steps.iter().any(|step| missed(step.status)),
            Stage::Kinit | Stage::StoreToken | Stage::Ping | Stage::FetchUid | Stage::StoreUid => {}
        }
    }
    if run.for_each == ForEach::Service && machine.status == MachineStatus::Succeeded {
        next.succeeded_at = next.succeeded_at.max(machine.ended_at);
    }
    next
}

/// The steps of a machine by what they are for. One action may have several steps.
fn by_stage<'a>(plan: &[PlannedStep], machine: &'a Machine) -> BTreeMap<Stage, Vec<&'a StepState>> {
    let mut found: BTreeMap<Stage, Vec<&StepState>> = BTreeMap::new();
    for step in &machine.steps {
        let planned = plan.iter().find(|planned| planned.name == step.name);
        if let Some(stage) = planned.and_then(|planned| Stage::of_action(&planned.action)) {
            found.entry(stage).or_default().push(step);
        }
    }
    found
}

fn update(known: &mut BTreeMap<TargetName, TargetSamples>, stage: Stage, steps: &[&StepState]) {
    for target in known.values_mut() {
        target.failed = 0;
        target.observed.clear();
    }
    let fans_out = match stage {
        Stage::StoreToken | Stage::Ping | Stage::Push => true,
        Stage::Kinit | Stage::GetToken | Stage::FetchUid | Stage::StoreUid => false,
    };
    let all = || steps.iter().flat_map(|step| &step.targets).filter(|target| target.status != StepStatus::Gone);
    // A step that could not learn its targets has failed for all that are known.
    for _ in all().filter(|target| fans_out && target.name.is_only() && target.status.is_failure()) {
        known.values_mut().for_each(|target| target.failed += 1);
    }
    let named = || all().filter(|target| !fans_out || !target.name.is_only());
    let present: BTreeSet<&TargetName> = named().map(|target| &target.name).collect();
    if !present.is_empty() {
        known.retain(|name, _| present.contains(name));
    }
    for target in named() {
        let samples = known.entry(target.name.clone()).or_default();
        samples.failed += u32::from(target.status.is_failure());
        for (at, took) in successes(target) {
            if samples.succeeded_at <= Some(at) {
                samples.succeeded_at = Some(at);
                samples.took = Some(took);
            }
        }
        match stage {
            Stage::Ping | Stage::FetchUid => samples.observed.extend(successful_tries(target)),
            Stage::Kinit | Stage::GetToken | Stage::StoreToken | Stage::Push | Stage::StoreUid => {}
        }
    }
}

/// When a target succeeded, and how long after its first try in that session.
fn successes(target: &TargetState) -> impl Iterator<Item = (Timestamp, Took)> + '_ {
    target.attempts.iter().filter(|attempt| has_succeeded(attempt)).filter_map(|attempt| {
        let first = target.attempts.iter().find(|one| one.session == attempt.session)?;
        let ended = attempt.ended_at?;
        Some((ended, Took::between(first.started_at, ended)))
    })
}

/// How long each successful try took by itself.
fn successful_tries(target: &TargetState) -> impl Iterator<Item = Took> + '_ {
    let succeeded = target.attempts.iter().filter(|attempt| has_succeeded(attempt));
    succeeded.filter_map(|attempt| Some(Took::between(attempt.started_at, attempt.ended_at?)))
}

fn has_succeeded(attempt: &AttemptRecord) -> bool {
    match &attempt.result {
        Some(AttemptOutcome::Succeeded(_)) => true,
        Some(AttemptOutcome::Stale { .. } | AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted) | None => false,
    }
}

/// When the token that was got last, or that stood in for it, expires.
fn expiry(steps: &[&StepState]) -> Option<Timestamp> {
    let attempts = steps.iter().flat_map(|step| &step.targets).flat_map(|target| &target.attempts);
    let mut details = attempts.filter_map(|attempt| match attempt.result.as_ref()? {
        AttemptOutcome::Succeeded(success) | AttemptOutcome::Stale { success, .. } => success.detail.as_ref(),
        AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted => None,
    });
    details.next_back()?.get("expires_at")?.as_str()?.parse().ok()
}

/// Did a push step miss a node? One that was not tried missed all of them.
fn missed(status: StepStatus) -> bool {
    match status {
        StepStatus::Succeeded | StepStatus::Skipped | StepStatus::Gone => false,
        StepStatus::Pending
        | StepStatus::Running
        | StepStatus::Stale
        | StepStatus::Failed
        | StepStatus::NeedsHuman
        | StepStatus::TimedOut
        | StepStatus::NotAttempted => true,
    }
}

fn of_workflow(state: &RunState, deliveries: &[Delivery], known: Option<&WorkflowSamples>) -> Option<WorkflowSamples> {
    let run = &state.run;
    let session = run.sessions.last()?;
    let ended_at = session.ended_at?;
    let mut next = match known {
        Some(known) if known.run > run.id => known.clone(),
        known => WorkflowSamples {
            workflow: run.workflow.clone(),
            run: run.id,
            status: run.status,
            host: session.by.host.clone(),
            ended_at,
            took: Took::between(session.started_at, ended_at),
            stages: stages(state, session.number, (session.started_at, ended_at), known),
            admins: known.map(|known| known.admins.clone()).unwrap_or_default(),
            services: known.map(|known| known.services.clone()).unwrap_or_default(),
            service_took: Vec::new(),
        },
    };
    for delivery in deliveries {
        let sendings = match &delivery.to {
            Recipient::AdminsByMail => next.admins.entry("email".to_owned()).or_default(),
            Recipient::AdminsBySlack => next.admins.entry("slack_message".to_owned()).or_default(),
            Recipient::Service(service) => {
                if delivery.success {
                    next.service_took.push(delivery.took.into());
                }
                next.services.entry(service.clone()).or_default()
            }
        };
        note(sendings, delivery);
    }
    Some(next)
}

fn note(sendings: &mut Sendings, delivery: &Delivery) {
    let at = Some(delivery.at);
    if delivery.success {
        sendings.succeeded_at = sendings.succeeded_at.max(at);
        sendings.took = Some(delivery.took.into());
    } else {
        sendings.failed_at = sendings.failed_at.max(at);
    }
}

/// From the first start to the last end of each stage in the session that ended the run. A stage that this session had
/// no reason to enter keeps its value; one that the workflow no longer has is gone.
fn stages(
    state: &RunState,
    session: u32,
    (began, ended): (Timestamp, Timestamp),
    known: Option<&WorkflowSamples>,
) -> BTreeMap<String, Took> {
    let planned = state.run.plan.iter().filter_map(|planned| Stage::of_action(&planned.action));
    let planned: BTreeSet<&str> = planned.map(Stage::label).chain([SETUP, CLEANUP]).collect();
    let kept = known.iter().flat_map(|known| &known.stages);
    let mut stages: BTreeMap<String, Took> = kept
        .filter(|(label, _)| planned.contains(label.as_str()))
        .map(|(label, took)| (label.clone(), *took))
        .collect();
    let mut windows: BTreeMap<Stage, Window> = BTreeMap::new();
    let mut whole: Option<Window> = None;
    for machine in state.machines.values() {
        for step in &machine.steps {
            let planned = state.run.plan.iter().find(|planned| planned.name == step.name);
            let stage = planned.and_then(|planned| Stage::of_action(&planned.action));
            for attempt in step.targets.iter().flat_map(|target| &target.attempts) {
                let (true, Some(end)) = (attempt.session == session, attempt.ended_at) else { continue };
                let window = Window { first: attempt.started_at, last: end };
                whole = Some(whole.map_or(window, |known| known.and(window)));
                if let Some(stage) = stage {
                    windows.entry(stage).and_modify(|known| *known = known.and(window)).or_insert(window);
                }
            }
        }
    }
    stages.extend(windows.into_iter().map(|(stage, w)| (stage.label().to_owned(), Took::between(w.first, w.last))));
    if let Some(whole) = whole {
        stages.insert(SETUP.to_owned(), Took::between(began, whole.first));
        stages.insert(CLEANUP.to_owned(), Took::between(whole.last, ended));
    }
    stages
}

#[derive(Clone, Copy)]
struct Window {
    first: Timestamp,
    last: Timestamp,
}

impl Window {
    fn and(self, other: Self) -> Self {
        Self { first: self.first.min(other.first), last: self.last.max(other.last) }
    }
}
