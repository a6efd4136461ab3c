//! `mt runs resume`: goes on with runs that have not succeeded, or says what it would do.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use clap::{Args, ValueEnum};

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::explain_resume::{self, Decision, Explanation};
use super::run::{NoticeArgs, SendingArgs, act, in_force, of_diagnostics};
use super::runs::{self, Reader};
use crate::acting::effective::pinned;
use crate::acting::launch::{Launcher, Notices, Order, is_failed};
use crate::acting::site::{Global, Site};
use crate::acting::subjects::{subject_of, subjects};
use crate::acting::worker::Worker;
use crate::config::Service;
use crate::stderr;
use crate::workflow::definition::Workflow;
use crate::workflow::driver::plan_of;
use crate::workflow::event::PlannedStep;
use crate::workflow::id::{ProcessId, RunId, Subject, TargetName};
use crate::workflow::resume::{MachineDecision, What, decide_machine};
use crate::workflow::run::{Machine, RunState};
use crate::workflow::session;
use crate::workflow::status::{MachineStatus, RunStatus};
use crate::workflow::store::{StoreError, View};

/// `mt runs resume`
#[derive(Clone, Debug, Args)]
pub struct ResumeArgs {
    /// The run's id or the beginning of it [default: the newest that was interrupted or failed]
    #[arg(conflicts_with_all = ["interrupted", "failed"])]
    id: Option<String>,
    /// Every run that was interrupted
    #[arg(long, conflicts_with = "failed")]
    interrupted: bool,
    /// The newest run of each workflow, if it did not succeed
    #[arg(long)]
    failed: bool,
    /// The definition that the run was made with, or the present file
    #[arg(long, value_enum, default_value_t)]
    definition: WhichDefinition,
    /// Say what would be reused and redone, and why; do nothing
    #[arg(long)]
    explain: bool,
    #[command(flatten)]
    notices: NoticeArgs,
    #[command(flatten)]
    sending: SendingArgs,
}

/// `--definition`
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum WhichDefinition {
    /// The text that is kept with the run.
    #[default]
    Pinned,
    /// The present file, matched by the names of its steps.
    Latest,
}

/// `mt runs resume`
pub fn resume(global: &Global, args: &ResumeArgs) -> Result<ExitCode, Failed> {
    if !args.explain {
        stderr::hold();
    }
    let mut site = Site::load(global).map_err(|e| super::of_config(&e))?;
    args.sending.apply(&mut site);
    if args.explain {
        return explain(global, &site, args);
    }
    let worker = Worker::enter(&site.state_dir)?;
    act(async {
        let launcher = Launcher::new(site, worker).await?;
        let code = resume_all(&launcher, args).await;
        launcher.leave();
        code
    })
}

async fn resume_all(launcher: &Launcher, args: &ResumeArgs) -> Result<ExitCode, Failed> {
    let chosen = choose(launcher, args).await?;
    let (mut worst, several) = (ExitCode::Success, chosen.len() > 1);
    for run in chosen {
        // Claimed, it would be interrupted at once, whatever it was before.
        if let Some(signal) = launcher.stopped_by() {
            super::output::write_err(&format!("run {run} is left as it is: mt was asked to stop\n"));
            worst = worst.max(signal.into());
            continue;
        }
        let code = match resume_one(launcher, run, args).await {
            Ok(code) => code,
            // One that cannot be resumed keeps no other from it.
            Err(failed) if several => {
                super::output::write_err(&format!("run {run}: {}\n", failed.render()));
                failed.exit
            }
            Err(failed) => return Err(failed),
        };
        worst = worst.max(code);
    }
    Ok(worst)
}

async fn choose(launcher: &Launcher, args: &ResumeArgs) -> Result<Vec<RunId>, Failed> {
    let (id, is_dead) = (args.id.clone(), launcher.is_dead());
    let (interrupted, failed) = (args.interrupted, args.failed);
    let found = launcher
        .store()?
        .read(move |view| match &id {
            Some(id) => view.find_run(id).map(|found| Ok((found, id.clone()))),
            None => candidates(view, interrupted, failed, &*is_dead).map(Err),
        })
        .await
        .and_then(|found| found)
        .map_err(|e| runs::of_store(&e))?;
    match found {
        Ok((found, id)) => Ok(vec![runs::found(found, &id)?]),
        Err(candidates) => {
            if candidates.is_empty() {
                super::output::write_err("no run is left to resume\n");
            }
            Ok(candidates)
        }
    }
}

/// Runs that can be resumed: the interrupted ones, the failed ones, or (neither asked for) the newest of both. Oldest first.
fn candidates(
    view: &View<'_>,
    interrupted: bool,
    failed: bool,
    is_dead: &dyn Fn(ProcessId) -> bool,
) -> Result<Vec<RunId>, StoreError> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    view.runs_newest_first(|run| {
        let status = session::status_now(&run, is_dead);
        let newest = seen.insert(run.workflow.clone());
        let wanted = match (interrupted, failed) {
            (true, _) => status == RunStatus::Interrupted,
            (false, true) => newest && is_failed(status),
            (false, false) => status == RunStatus::Interrupted || (newest && is_failed(status)),
        };
        if wanted {
            found.push(run.id);
        }
        let enough = !interrupted && !failed && !found.is_empty();
        if enough { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    found.reverse();
    Ok(found)
}

async fn resume_one(launcher: &Launcher, run: RunId, args: &ResumeArgs) -> Result<ExitCode, Failed> {
    let store = launcher.store()?;
    let found = store
        .read(move |view| {
            let Some(state) = session::load(view, run)? else { return Ok(None) };
            let text = view.definition(&state.run.definition)?;
            Ok(Some((state, text)))
        })
        .await
        .and_then(|found| found)
        .map_err(|e| runs::of_store(&e))?;
    let Some((state, text)) = found else {
        return Err(Failed::new(codes::NO_SUCH_RUN, format!("the store has no run {run}")));
    };
    let site = launcher.site();
    let order = Order {
        workflow: definition(site, &state, text, args.definition)?,
        selection: state.run.selection.clone(),
        services: configured(site, &state),
        mode: state.run.mode,
        fresh: true,
        notices: Notices::from(&args.notices),
    };
    let claimed = launcher.claim(run, "resume").await?;
    launcher.session(claimed, order).await
}

/// The run's services that are still configured.
fn configured(site: &Site, state: &RunState) -> Vec<Service> {
    let is_in = |s: &&Service| state.machines.contains_key(&subject_of(state.run.for_each, s));
    site.config.services.iter().filter(is_in).cloned().collect()
}

fn definition(site: &Site, state: &RunState, kept: Option<String>, which: WhichDefinition) -> Result<Workflow, Failed> {
    let name = state.run.workflow.as_str();
    match which {
        WhichDefinition::Latest => {
            let workflow = in_force(site, name)?;
            match misfit(state, &workflow) {
                None => Ok(workflow),
                Some(why) => Err(Failed::new(codes::STEP_GONE, why)
                    .next(format!("mt runs resume {} --definition pinned, or mt run {name}", state.run.id))
                    .exit(ExitCode::Invalid)),
            }
        }
        WhichDefinition::Pinned => {
            let Some(text) = kept else {
                return Err(Failed::new(
                    codes::STEP_GONE,
                    format!("the definition of run {} is not in the store", state.run.id),
                )
                .next(format!("mt runs resume {} --definition latest", state.run.id)));
            };
            pinned(&site.config, state.run.id, &text).map_err(|ds| of_diagnostics(&ds))
        }
    }
}

/// Why this workflow cannot go on with the run, if it cannot: a step's outcomes must mean the same in both.
fn misfit(state: &RunState, workflow: &Workflow) -> Option<String> {
    let (run, name) = (&state.run, &workflow.name);
    let present: BTreeMap<_, _> = workflow.steps.iter().chain(&workflow.finally).map(|s| (&s.name, s)).collect();
    let mut planned = run.plan.iter().map(|p| &p.name).chain(run.steps.iter().map(|s| &s.name));
    if let Some(gone) = planned.find(|step| !present.contains_key(step)) {
        return Some(format!("step {gone} of run {} is not in the present {name}", run.id));
    }
    // The nodes of the one would be added to the credds of the other, or to the whole.
    let moved =
        run.plan.iter().find(|planned| present.get(&planned.name).is_some_and(|step| step.per != planned.per))?;
    let (step, before, now) = (&moved.name, moved.per, present.get(&moved.name)?.per);
    Some(format!("step {step} of run {} has `per: {before:?}`, and `per: {now:?}` in the present {name}", run.id))
}

fn explain(global: &Global, site: &Site, args: &ResumeArgs) -> Result<ExitCode, Failed> {
    let reader = Reader::open(global)?;
    let run = match &args.id {
        Some(id) => runs::find(&reader, id)?,
        None => {
            let (is_dead, interrupted, failed) = (reader.is_dead(), args.interrupted, args.failed);
            let found = reader.read(move |view| candidates(view, interrupted, failed, &*is_dead))?;
            match found.last() {
                Some(run) => *run,
                None => {
                    super::output::write_err("no run is left to resume\n");
                    return Ok(ExitCode::Success);
                }
            }
        }
    };
    let found = reader.read(move |view| {
        let Some(state) = session::load(view, run)? else { return Ok(None) };
        let text = view.definition(&state.run.definition)?;
        let newer = session::ended_later(view, &state.run)?;
        Ok(Some((state, text, newer)))
    })?;
    let Some((state, text, newer)) = found else {
        return Err(Failed::new(codes::NO_SUCH_RUN, format!("the store has no run {run}")));
    };
    let workflow = definition(site, &state, text, args.definition)?;
    let services = configured(site, &state);
    let state = crate::acting::explain::as_if_claimed(state);
    let explanation = explanation(site, &workflow, &services, &state, &newer)?;
    runs::print(&explain_resume::render(&explanation, global.output, &runs::viewer()))?;
    Ok(ExitCode::Success)
}

fn explanation(
    site: &Site,
    workflow: &Workflow,
    services: &[Service],
    state: &RunState,
    newer: &BTreeMap<Subject, RunId>,
) -> Result<Explanation, Failed> {
    let world = crate::acting::explain::world(site, services, state.run.for_each);
    let configured = subjects(state.run.for_each, services);
    let actions = crate::acting::drive::actions(workflow, &Arc::new(world))?;
    let mut decisions = Vec::new();
    let (mut to_finish, mut complete) = (0, 0);
    for machine in state.machines.values() {
        match decide_machine(
            machine.status,
            configured.contains(&machine.subject),
            newer.get(&machine.subject).copied(),
        ) {
            MachineDecision::Leave => complete += usize::from(machine.status == MachineStatus::Succeeded),
            MachineDecision::Work => {
                to_finish += 1;
                for plan in plan_of(&workflow.steps, machine, &actions) {
                    decisions.extend(plan.targets.into_iter().map(|target| Decision {
                        subject: Some(machine.subject.clone()),
                        step: plan.name.clone(),
                        target: target.name,
                        what: target.what,
                        why: target.why,
                    }));
                }
            }
            MachineDecision::Gone => decisions.extend(whole(machine, &state.run.plan, "no longer configured".into())),
            MachineDecision::Superseded(by) => {
                decisions.extend(whole(machine, &state.run.plan, format!("run {by} did it later")));
            }
        }
    }
    Ok(Explanation { decisions, to_finish, complete })
}

/// One line for a machine that is left out as a whole.
fn whole(machine: &Machine, plan: &[PlannedStep], why: String) -> Option<Decision> {
    let step = plan.first()?.name.clone();
    Some(Decision { subject: Some(machine.subject.clone()), step, target: TargetName::only(), what: What::Gone, why })
}
