//! Driving one session of a run: what the engine is given, and what is watched meanwhile.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use jiff::Timestamp;

use crate::acting::addressees::Addressees;
use crate::acting::ending::Kept;
use crate::acting::launch::{Launcher, NO_STORE, Order};
use crate::acting::outbox::SessionOutbox;
use crate::acting::reports::Reports;
use crate::acting::uid_book::SessionUids;
use crate::acting::worker::Places;
use crate::acting::{history, uids};
use crate::cli::error::{Failed, codes};
use crate::cli::exit::ExitCode;
use crate::cli::output::Style;
use crate::cli::progress::{self, Live, ProgressView};
use crate::config::Config;
use crate::guardian;
use crate::private_dir;
use crate::stderr;
use crate::steps::accounts::AccountSetup;
use crate::steps::ferry::AuthMethod;
use crate::steps::{self, Setup, World};
use crate::telemetry::logs;
use crate::telemetry::traces::Trace;
use crate::workflow::action::Action;
use crate::workflow::definition::{ForEach, Mode, Workflow};
use crate::workflow::driver::{self, SessionPlan};
use crate::workflow::id::{ProcessId, StepName};
use crate::workflow::lease::Leases;
use crate::workflow::recorder::{Epilogue, Observer, Recorder, Unrecorded};
use crate::workflow::run::RunState;
use crate::workflow::store::KnownUid;

/// A guardian ends the children of its worker in less than a second; of one that is stopped we end them.
const BURIED_WITHIN: Duration = Duration::from_secs(5);

impl Launcher {
    /// Drives one session of a claimed or new run, and says how it ended.
    pub async fn session(&self, state: RunState, order: Order) -> Result<ExitCode, Failed> {
        self.drive(state, order, self.unusable.clone()).await
    }

    pub(super) async fn unrecorded(&self, state: RunState, order: Order, why: Unrecorded) -> Result<ExitCode, Failed> {
        self.drive(state, order, Some(why)).await
    }

    pub(super) fn open_log(&self, workflow: &Workflow) {
        logs::open(&self.site.config, logs::executable(workflow.name.as_str()));
    }

    async fn drive(&self, state: RunState, order: Order, unusable: Option<Unrecorded>) -> Result<ExitCode, Failed> {
        self.open_log(&order.workflow);
        logs::set_run(Some(state.run.id));
        crate::acting::log::began(&state);
        let code = self.drive_to_its_end(state, order, unusable).await;
        logs::set_run(None);
        code
    }

    async fn drive_to_its_end(
        &self,
        state: RunState,
        order: Order,
        unusable: Option<Unrecorded>,
    ) -> Result<ExitCode, Failed> {
        let places = &self.worker.places;
        let known = history::known(self.store.as_ref().filter(|_| unusable.is_none()), places, &state.run).await;
        let unusable = unusable.or_else(|| self.damage());
        let store = if unusable.is_some() { None } else { self.store.clone() };
        let config = &self.site.config;
        let to = Addressees::new(config, &order.notices, state.run.mode);
        let reports = Arc::new(Reports::new(config, to));
        let process = self.worker.owner.process;
        let outbox = Arc::new(SessionOutbox::new(store.clone(), reports.clone(), process, self.is_dead()));
        let accounts = (order.workflow.for_each == ForEach::Account).then(|| AccountSetup {
            accounts: Config::accounts(&order.services),
            ferry: self.site.config.ferry.clone(),
            method: AuthMethod::of_options(&state.run.selection.options),
            uids: Some(Arc::new(SessionUids::new(store.clone(), uids_json(places)))),
        });
        let world = Arc::new(World::new(Setup {
            process: self.worker.owner.process,
            private: self.worker.owner.private.clone(),
            state: places.configured.clone(),
            locks: places.base.clone(),
            environment: steps::environment::Snapshot::of_process(),
            own_uid: nix::unistd::geteuid().as_raw(),
            services: order.services.iter().map(|s| (s.clone(), known.uid(s))).collect(),
            issuer_services: self.site.config.services.iter().map(|s| s.issuer_service.clone()).collect(),
            expiries: known.expiries,
            email: self.site.config.email.clone(),
            outbox: Some(outbox.clone()),
            accounts,
        }));
        let actions = actions(&order.workflow, &world)?;
        let view = view(&state, &order.workflow);
        let shown = view.clone().map(|view| stderr::show(Box::new(Live::new(view, Style::stderr()))));
        let trace = Trace::begin(config).map(Arc::new);
        let observer = observer(view, trace.clone());
        let run = state.run.id;
        let recorder = Arc::new(match (&store, &unusable) {
            (Some(store), None) => {
                let epilogue: Arc<dyn Epilogue> = reports;
                Recorder::new(state, Some(store.clone()), Some(epilogue), Some(observer))
            }
            (_, why) => {
                let why = why.clone().unwrap_or_else(|| Unrecorded::from(NO_STORE));
                Recorder::unrecorded(state, why, Some(observer))
            }
        });
        let configured = order.subjects();
        let leases = leases(places, order.workflow.for_each);
        outbox.attach(recorder.clone());
        let workflow = order.workflow.name.clone();
        let plan = SessionPlan {
            workflow: Arc::new(order.workflow),
            actions,
            configured,
            newer: known.newer,
            leases,
            stop: self.stop.token(),
        };
        let ended = driver::drive(recorder.clone(), plan).await;
        drop(shown);
        let end = ended.map_err(|e| Failed::new(codes::UNEXPECTED, e.to_string()))?;
        let recorded = recorder.why_unrecorded().is_none();
        let state = recorder.with(Clone::clone);
        let store_in_use = store.as_ref().filter(|_| recorded);
        let (cut_off, (), (), ()) = tokio::join!(
            self.after(store_in_use, end),
            self.tell(store_in_use, &state, end, world.deliveries.all()),
            self.tell_loki(&state),
            async {
                if let Some(trace) = &trace {
                    trace.send(&state, self.patience()).await;
                }
            }
        );
        // A store with which a thread is busy yet gives no answer soon.
        let within_reach = store.as_ref().filter(|_| !cut_off);
        let damage = store_in_use.and(within_reach).and_then(|_| self.damage());
        if let Some(damage) = &damage {
            self.tell_of_damage(workflow, &order.notices, state.run.mode, damage).await?;
        }
        Ok(self.close(within_reach, run, state, end, Kept { recorded, whole: damage.is_none() }).await)
    }
}

/// Live progress, on a terminal alone.
fn view(state: &RunState, workflow: &Workflow) -> Option<Arc<Mutex<ProgressView>>> {
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) || !matches!(state.run.mode, Mode::Normal | Mode::Test) {
        return None;
    }
    let tries = workflow.steps.iter().map(|s| (s.name.clone(), s.retry.times + 1)).collect();
    let prefix = state.run.id.to_string()[..crate::workflow::store::SHORTEST_PREFIX].to_owned();
    Some(Arc::new(Mutex::new(ProgressView::of(state, prefix, Timestamp::now()).with_tries(tries))))
}

/// Nobody draws here: a terminal can be stopped, and the run goes on.
fn observer(view: Option<Arc<Mutex<ProgressView>>>, trace: Option<Arc<Trace>>) -> Observer {
    Arc::new(move |event, state| {
        if let Some(trace) = &trace {
            trace.event(event);
        }
        if let Some(view) = &view {
            progress::lock(view).update(event, state);
        }
        crate::acting::log::event(event, state);
    })
}

/// The action of every step.
pub fn actions(workflow: &Workflow, world: &Arc<World>) -> Result<BTreeMap<StepName, Arc<dyn Action>>, Failed> {
    let steps = workflow.steps.iter().chain(&workflow.finally);
    steps
        .map(|step| match steps::build(step, world) {
            Ok(action) => Ok((step.name.clone(), action)),
            Err(error) => {
                Err(Failed::new(codes::UNEXPECTED, format!("step {}: {error}", step.name)).exit(ExitCode::Invalid))
            }
        })
        .collect()
}

/// Accounts have leases of their own: one may be called like a service. Where these cannot be, the work is done without.
fn leases(places: &Places, for_each: ForEach) -> Leases {
    let run = places.run.clone();
    let bury = Arc::new(move |process: ProcessId| {
        if !guardian::bury(&run, process, &[PathBuf::from("/tmp")], BURIED_WITHIN) {
            tracing::warn!(code = %guardian::LEFTOVERS, %process, "children of a process that died may still be at work");
        }
    });
    let leases = match for_each {
        ForEach::Service => Leases::new(&places.leases),
        ForEach::Account => {
            let directory = places.leases.join("accounts.d");
            match private_dir::create(&directory) {
                Ok(()) => Leases::new(directory),
                Err(error) => Leases::without(error.to_string()),
            }
        }
    };
    leases.burying(bury)
}

fn uids_json(places: &Places) -> PathBuf {
    match &places.state {
        Ok(state) => state.uids_json(),
        Err(_) => places.configured.join("uids.json"),
    }
}

/// The UIDs where the store cannot say.
pub fn uids_beside(places: &Places) -> BTreeMap<String, u32> {
    or_none(places, uids::read)
}

/// The UIDs that were recorded while the store could not be used, and are not in it yet.
pub fn uids_alone(places: &Places) -> BTreeMap<String, KnownUid> {
    or_none(places, uids::alone)
}

fn or_none<T>(places: &Places, read: impl Fn(&Path) -> io::Result<BTreeMap<String, T>>) -> BTreeMap<String, T> {
    let path = uids_json(places);
    read(&path).unwrap_or_else(|error| {
        tracing::warn!("cannot read {}: {error}", path.display());
        BTreeMap::new()
    })
}
