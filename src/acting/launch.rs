//! One session of a run, from the store's first record to the last line on stderr.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use crate::acting::addressees::Addressees;
use crate::acting::effective::pinned;
use crate::acting::outbox::SessionOutbox;
use crate::acting::reports::Reports;
use crate::acting::signals::Stop;
use crate::acting::site::Site;
use crate::acting::uid_book::SessionUids;
use crate::acting::worker::{Places, Worker, raise_open_files};
use crate::acting::{here, history, metrics, subjects, takeover, uids};
use crate::cli::error::{Failed, codes};
use crate::cli::exit::ExitCode;
use crate::cli::output::Style;
use crate::cli::progress::{Live, ProgressView};
use crate::cli::runs_show::RunView;
use crate::cli::{runs, summary};
use crate::config::{Config, Service};
use crate::guardian;
use crate::notify::Delivery;
use crate::private_dir;
use crate::steps::accounts::AccountSetup;
use crate::steps::ferry::AuthMethod;
use crate::steps::{self, Setup, World};
use crate::telemetry;
use crate::telemetry::logs::{self, Labels};
use crate::telemetry::traces::{self, Trace};
use crate::workflow::action::Action;
use crate::workflow::definition::{ForEach, Interrupted, Mode, Step, Workflow};
use crate::workflow::driver::{self, SessionPlan};
use crate::workflow::event::{PlannedStep, RunCreated, Selection, SessionEnd};
use crate::workflow::id::{ProcessId, RunId, StepName, Subject};
use crate::workflow::lease::Leases;
use crate::workflow::recorder::{Epilogue, Observer, Recorder};
use crate::workflow::run::RunState;
use crate::workflow::session::{self, CutOff, IsDead, Wanted};
use crate::workflow::status::RunStatus;
use crate::workflow::store::{
    Access, Compacted, Options, Retention, Store, StoreError, View, compact_if_due, hash_of_definition,
};

/// How far back a start looks for runs that were cut off.
const LOOK_BACK: usize = 200;

/// Runs younger than this are kept, and always the newest [`runs::LEAST_RUNS`].
pub const KEEP: Duration = Duration::from_secs(30 * 24 * 3600);

/// Whoever sent a signal waits.
const PATIENCE_AFTER_A_SIGNAL: Duration = Duration::from_secs(2);

/// A guardian ends the children of its worker in less than a second; one that is stopped does not.
const BURIED_WITHIN: Duration = Duration::from_secs(5);

/// Redrawn so often on a terminal.
const REDRAW: Duration = Duration::from_millis(100);

/// What is told to whom.
#[derive(Clone, Debug, Default)]
pub struct Notices {
    /// `--no-notify`.
    pub off: bool,
    /// `--admin`: instead of the configured addresses.
    pub admin: Option<String>,
}

/// What a run is made of.
pub struct Order {
    /// The workflow with the values that are in force.
    pub workflow: Workflow,
    /// What was selected, for the record.
    pub selection: Selection,
    /// The selected services; a run for accounts works for theirs.
    pub services: Vec<Service>,
    /// The mode.
    pub mode: Mode,
    /// Never resume in place of starting.
    pub fresh: bool,
    /// What is told to whom.
    pub notices: Notices,
}

impl Order {
    /// What its machines are made for.
    fn subjects(&self) -> BTreeSet<Subject> {
        subjects::subjects(self.workflow.for_each, &self.services)
    }
}

/// A worker with its store, ready to run sessions.
pub struct Launcher {
    site: Site,
    worker: Worker,
    store: Option<Store>,
    /// Why there is no store.
    unusable: Option<String>,
    stop: Stop,
}

impl Launcher {
    /// Opens the store; without one everything goes on unrecorded. Inside the runtime.
    pub async fn new(site: Site, worker: Worker) -> Result<Self, Failed> {
        raise_open_files();
        let stop = Stop::listen().map_err(|e| unexpected("listen for signals", &e))?;
        let (store, unusable) = match &worker.places.state {
            Err(why) => (None, Some(why.to_string())),
            Ok(state) => {
                let state = state.clone();
                match blocking(move || Store::open(&state, Access::ReadWrite)).await? {
                    Ok(store) => (Some(store), None),
                    Err(error) => (None, Some(format!("{error} [{}]", error.code()))),
                }
            }
        };
        if let Some(why) = &unusable {
            tracing::error!("the store cannot be used; the work is done and not recorded: {why}");
        }
        if let (Some(store), Ok(state)) = (&store, &worker.places.state) {
            let (store, state) = (store.clone(), state.clone());
            let (config, private) = (site.config.clone(), worker.owner.private.clone());
            blocking(move || takeover::once(&store, &state, &config, &private)).await?;
        }
        Ok(Self { site, worker, store, unusable, stop })
    }

    /// The store, if it can be used.
    pub fn store(&self) -> Result<&Store, Failed> {
        self.store.as_ref().ok_or_else(|| {
            let why = self.unusable.clone().unwrap_or_default();
            Failed::new(crate::workflow::store::IO, format!("the store cannot be used: {why}"))
                .exit(ExitCode::StoreUnusable)
        })
    }

    /// The configuration and the process around it.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Whether a process is gone with all its children.
    pub fn is_dead(&self) -> IsDead {
        let run = self.worker.places.run.clone();
        Arc::new(move |process: ProcessId| guardian::owner_is_dead(&run, process))
    }

    /// Starts a run, or resumes the one that was cut off in its place.
    pub async fn start(&self, order: Order) -> Result<ExitCode, Failed> {
        self.open_log(&order.workflow);
        let cut_off = self.cut_off(&order).await;
        if let Some(resumable) = cut_off.iter().find(|c| c.resumable) {
            tracing::info!(run = %resumable.run.id, "resuming an interrupted run in place of a new one");
            match self.claim(resumable.run.id, "resume").await {
                Ok(state) => {
                    let workflow = self.definition(&resumable.run).await.unwrap_or(order.workflow);
                    return self.session(state, Order { workflow, ..order }).await;
                }
                // Somebody was quicker; a new run is as good.
                Err(failed) => tracing::info!("{}", failed.message),
            }
        }
        let by = here::session(self.worker.owner.process, self.worker.trigger.clone(), self.new_trace_id());
        let created = RunCreated {
            id: RunId::generate(),
            workflow: order.workflow.name.clone(),
            definition: hash_of_definition(&order.workflow.source),
            for_each: order.workflow.for_each,
            mode: order.mode,
            selection: order.selection.clone(),
            subjects: order.subjects().into_iter().collect(),
            steps: order.workflow.steps.iter().map(planned).collect(),
            finally: order.workflow.finally.iter().map(planned).collect(),
        };
        let state = match &self.store {
            None => session::begin(created, by).0,
            Some(store) => {
                match session::create(store, created.clone(), order.workflow.source.clone(), by.clone()).await {
                    Ok(state) => {
                        self.supersede(&order, &cut_off, state.run.id).await;
                        state
                    }
                    Err(error) => {
                        tracing::error!(code = %error.code(), "the store cannot be used; the work is done and not recorded: {error}");
                        return self.unrecorded(session::begin(created, by).0, order, error.to_string()).await;
                    }
                }
            }
        };
        self.session(state, order).await
    }

    /// The definition that is kept with the run. `None`: it cannot be used, and the log says why.
    async fn definition(&self, run: &crate::workflow::run::Run) -> Option<Workflow> {
        let (id, hash) = (run.id, run.definition.clone());
        let text = match self.store.as_ref()?.read(move |view| view.definition(&hash)).await.and_then(|text| text) {
            Ok(text) => text?,
            Err(error) => {
                tracing::error!(code = %error.code(), "cannot read the run's definition; the present file is used: {error}");
                return None;
            }
        };
        match pinned(&self.site.config, id, &text) {
            Ok(workflow) => Some(workflow),
            Err(_) => {
                tracing::warn!(run = %id, "this mt cannot read the run's definition any more; the present file is used");
                None
            }
        }
    }

    /// The interrupted runs; those that are not resumed are named in the log.
    async fn cut_off(&self, order: &Order) -> Vec<CutOff> {
        let Some(store) = &self.store else { return Vec::new() };
        let resume = !order.fresh && matches!(order.mode, Mode::Normal | Mode::Test);
        let wanted = Wanted {
            workflow: order.workflow.name.clone(),
            selection: order.selection.clone(),
            mode: order.mode,
            within: match order.workflow.interrupted {
                Interrupted::ResumeWithin(age) if resume => Some(age),
                Interrupted::ResumeWithin(_) | Interrupted::Supersede => None,
            },
            look_back: LOOK_BACK,
        };
        let is_dead = self.is_dead();
        let look = store.read(move |view| session::cut_off(view, &wanted, &*is_dead, Timestamp::now()));
        let found = look.await.and_then(|found| found).unwrap_or_else(|error| {
            tracing::error!(code = %error.code(), "cannot look for interrupted runs: {error}");
            Vec::new()
        });
        let left: Vec<String> = found.iter().filter(|c| !c.resumable).map(|c| c.run.id.to_string()).collect();
        if !left.is_empty() {
            tracing::info!(runs = %left.join(" "), "interrupted runs are left as they are: mt runs resume ID");
        }
        found
    }

    /// Where the workflow says so, the new run takes the place of those of its kind that were cut off.
    async fn supersede(&self, order: &Order, cut_off: &[CutOff], by: RunId) {
        let (Some(store), Interrupted::Supersede) = (&self.store, order.workflow.interrupted) else { return };
        for old in cut_off.iter().filter(|c| c.same) {
            match session::supersede(store, old.run.id, by, self.is_dead()).await {
                Ok(()) => tracing::info!(run = %old.run.id, %by, "superseded"),
                Err(error) => tracing::warn!(run = %old.run.id, "cannot supersede it: {error}"),
            }
        }
    }

    /// Claims a run for this process.
    pub async fn claim(&self, run: RunId, trigger: &str) -> Result<RunState, Failed> {
        let trigger = format!("{} ({trigger})", self.worker.trigger);
        let by = here::session(self.worker.owner.process, trigger, self.new_trace_id());
        session::claim(self.store()?, run, by, self.is_dead()).await.map_err(|e| runs::of_claim(&e))
    }

    /// `None`: no trace will be sent.
    fn new_trace_id(&self) -> Option<String> {
        self.site.config.tracing.as_ref().map(|_| traces::new_trace_id())
    }

    /// Drives one session of a claimed or new run, and says how it ended.
    pub async fn session(&self, state: RunState, order: Order) -> Result<ExitCode, Failed> {
        self.drive(state, order, self.unusable.clone()).await
    }

    async fn unrecorded(&self, state: RunState, order: Order, why: String) -> Result<ExitCode, Failed> {
        self.drive(state, order, Some(why)).await
    }

    fn open_log(&self, workflow: &Workflow) {
        logs::open(&self.site.config, logs::executable(workflow.name.as_str()));
    }

    async fn drive(&self, state: RunState, order: Order, unusable: Option<String>) -> Result<ExitCode, Failed> {
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
        unusable: Option<String>,
    ) -> Result<ExitCode, Failed> {
        let store = if unusable.is_some() { None } else { self.store.clone() };
        let places = &self.worker.places;
        let known = history::known(store.as_ref(), places, &state.run).await;
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
            expiries: known.expiries,
            email: self.site.config.email.clone(),
            outbox: Some(outbox.clone()),
            accounts,
        }));
        let actions = actions(&order.workflow, &world)?;
        let live = live(&state, &order.workflow);
        let trace = Trace::begin(config).map(Arc::new);
        let observer = observer(live.clone(), trace.clone());
        let run = state.run.id;
        let recorder = Arc::new(match (&store, &unusable) {
            (Some(store), None) => {
                let epilogue: Arc<dyn Epilogue> = reports;
                Recorder::new(state, Some(store.clone()), Some(epilogue), Some(observer))
            }
            (_, why) => {
                let why = why.clone().unwrap_or_else(|| "there is no store".to_owned());
                Recorder::unrecorded(state, why, Some(observer))
            }
        });
        let configured = order.subjects();
        let leases = leases(places, order.workflow.for_each);
        outbox.attach(recorder.clone());
        let plan = SessionPlan {
            workflow: Arc::new(order.workflow),
            actions,
            configured,
            newer: known.newer,
            leases,
            stop: self.stop.token(),
        };
        let ticker = live.clone().map(|live| tokio::spawn(tick(live)));
        let ended = driver::drive(recorder.clone(), plan).await;
        if let Some(ticker) = ticker {
            ticker.abort();
        }
        if let Some(live) = live.and_then(|live| live.lock().unwrap_or_else(PoisonError::into_inner).take()) {
            live.finish();
        }
        let end = ended.map_err(|e| Failed::new(codes::UNEXPECTED, e.to_string()))?;
        let recorded = recorder.why_unrecorded().is_none();
        let state = recorder.with(Clone::clone);
        let store_in_use = store.as_ref().filter(|_| recorded);
        tokio::join!(
            self.after(store_in_use, end),
            self.tell(store_in_use, &state, end, world.deliveries.all()),
            self.tell_loki(&state),
            async {
                if let Some(trace) = &trace {
                    trace.send(&state, self.patience()).await;
                }
            }
        );
        Ok(self.close(store.as_ref(), run, state, end, recorded).await)
    }

    /// What goes out when the work is done: all at once, and none of it longer than a signal or the budget allows.
    async fn tell(&self, store: Option<&Store>, state: &RunState, end: SessionEnd, deliveries: Vec<Delivery>) {
        if !metrics::are_due(state.run.mode, end) {
            return;
        }
        let metrics = metrics::tell(&self.site.config, store, state.clone(), deliveries);
        tokio::select! {
            told = tokio::time::timeout(telemetry::BUDGET, metrics) => {
                if told.is_err() {
                    let code = telemetry::metrics::codes::SLOW;
                    tracing::warn!(%code, "the metrics could not be pushed within {:?}", telemetry::BUDGET);
                }
            }
            () = self.stop.token().cancelled_owned() => tracing::warn!("asked to stop: the metrics are not pushed"),
        }
    }

    /// For what is sent after a signal too.
    fn patience(&self) -> Duration {
        if self.stop.by().is_some() { PATIENCE_AFTER_A_SIGNAL } else { telemetry::BUDGET }
    }

    /// The lines of the session, for Loki. After a signal too, but then not for long.
    async fn tell_loki(&self, state: &RunState) {
        let Some(loki) = &self.site.config.loki else { return };
        let labels = Labels {
            command: logs::executable(state.run.workflow.as_str()).to_owned(),
            environment: self.site.config.dev_environment_label.clone(),
        };
        let within = self.patience();
        if tokio::time::timeout(within, logs::push(loki, &labels)).await.is_err() {
            tracing::warn!(code = %logs::codes::LOKI, "Loki did not get this run's lines within {within:?}");
        }
    }

    /// Old runs go when a run has ended. Not when it was told to stop: whoever did so waits, and the next run does it.
    async fn after(&self, store: Option<&Store>, end: SessionEnd) {
        let finished = match end {
            SessionEnd::Finished => self.stop.by().is_none(),
            SessionEnd::Interrupted | SessionEnd::Cancelled | SessionEnd::Lost => false,
        };
        let Some(store) = store.filter(|_| finished).cloned() else { return };
        let is_dead = self.is_dead();
        let is_live =
            move |run: &crate::workflow::run::Run| session::open_session(run).is_some_and(|s| !is_dead(s.by.process));
        let state = self.worker.places.state.clone();
        let pruned = blocking(move || {
            let report = store.prune(Retention { keep: KEEP, min_runs: runs::LEAST_RUNS }, false, is_live)?;
            let compacted = match state {
                Ok(state) => compact_if_due(&state, &Options::default())?,
                Err(_) => None,
            };
            Ok::<_, StoreError>((report, compacted))
        })
        .await;
        match pruned {
            Ok(Ok((report, compacted))) => {
                if !report.runs.is_empty() {
                    tracing::info!(runs = report.runs.len(), "removed old runs");
                }
                if let Some(Compacted { before, after, .. }) = compacted {
                    tracing::info!(before, after, "compacted the store");
                }
            }
            Ok(Err(error)) => {
                tracing::warn!(code = %error.code(), "cannot remove old runs or compact the store: {error}");
            }
            Err(failed) => tracing::warn!("cannot remove old runs or compact the store: {}", failed.message),
        }
    }

    async fn close(
        &self,
        store: Option<&Store>,
        run: RunId,
        state: RunState,
        end: SessionEnd,
        recorded: bool,
    ) -> ExitCode {
        let others: BTreeSet<RunId> = state.machines.values().filter_map(|machine| machine.other_run).collect();
        let prefixes = move |view: &View<'_>| -> Result<_, StoreError> {
            let others = others.into_iter().map(|other| Ok((other, view.shortest_prefix(other)?)));
            Ok((view.shortest_prefix(run)?, others.collect::<Result<BTreeMap<_, _>, StoreError>>()?))
        };
        let read = match store {
            Some(store) if recorded => store.read(prefixes).await.and_then(|read| read).ok(),
            Some(_) | None => None,
        };
        // Where the store cannot say what is unique, whole ids are.
        let (prefix, others) = read.unwrap_or_else(|| (run.to_string(), BTreeMap::new()));
        let stopped_by = match end {
            SessionEnd::Interrupted => self.stop.by(),
            SessionEnd::Finished | SessionEnd::Cancelled | SessionEnd::Lost => None,
        };
        let code = ExitCode::of_run(state.run.status, &state.run.tally, recorded, stopped_by);
        let view =
            RunView { state, owner_alive: true, prefix, others, failing: BTreeMap::new(), told: BTreeMap::new() };
        let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
        let viewer = crate::cli::output::Viewer { style: Style::stderr(), ..runs::viewer() };
        summary::print_closing(&view, terminal, code, recorded, &viewer);
        code
    }

    /// The last thing.
    pub fn leave(self) {
        if let Some(store) = self.store {
            store.close();
        }
        self.worker.owner.leave();
    }
}

type SharedLive = Arc<Mutex<Option<Live>>>;

/// Live progress, on a terminal alone.
fn live(state: &RunState, workflow: &Workflow) -> Option<SharedLive> {
    if !std::io::IsTerminal::is_terminal(&std::io::stderr()) || !matches!(state.run.mode, Mode::Normal | Mode::Test) {
        return None;
    }
    let tries = workflow.steps.iter().map(|s| (s.name.clone(), s.retry.times + 1)).collect();
    let prefix = state.run.id.to_string()[..crate::workflow::store::SHORTEST_PREFIX].to_owned();
    let view = ProgressView::of(state, prefix, Timestamp::now()).with_tries(tries);
    Some(Arc::new(Mutex::new(Some(Live::start(view, Style::stderr())))))
}

async fn tick(live: SharedLive) {
    let mut every = tokio::time::interval(REDRAW);
    loop {
        every.tick().await;
        if let Some(live) = live.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            live.tick(Timestamp::now());
        }
    }
}

fn observer(live: Option<SharedLive>, trace: Option<Arc<Trace>>) -> Observer {
    Arc::new(move |event, state| {
        if let Some(trace) = &trace {
            trace.event(event);
        }
        if let Some(live) = &live
            && let Some(live) = live.lock().unwrap_or_else(PoisonError::into_inner).as_mut()
        {
            live.update(event, state, event.at);
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

/// What the record keeps of a step's declaration.
pub fn planned(step: &Step) -> PlannedStep {
    PlannedStep {
        name: step.name.clone(),
        action: step.action.name.clone(),
        per: step.per,
        counts_as: step.counts_as,
        on_failure: step.on_failure,
    }
}

/// Work that blocks, off the runtime's threads.
pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failed> {
    tokio::task::spawn_blocking(work).await.map_err(|e| Failed::new(codes::UNEXPECTED, format!("a thread died: {e}")))
}

fn unexpected(doing: &str, error: &std::io::Error) -> Failed {
    Failed::new(codes::UNEXPECTED, format!("cannot {doing}: {error}"))
}

/// Runs that ended badly and can be resumed: the newest of each workflow, if it did.
pub fn is_failed(status: RunStatus) -> bool {
    match status {
        RunStatus::Partial | RunStatus::Failed | RunStatus::TimedOut => true,
        RunStatus::Running
        | RunStatus::Succeeded
        | RunStatus::Interrupted
        | RunStatus::Cancelled
        | RunStatus::Superseded
        | RunStatus::Skipped => false,
    }
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
    let path = uids_json(places);
    match uids::read(&path) {
        Ok(uids) => uids,
        Err(error) => {
            tracing::warn!("cannot read {}: {error}", path.display());
            BTreeMap::new()
        }
    }
}
