//! A worker with its store: which run it makes, or goes on with.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;

use crate::acting::effective::pinned;
use crate::acting::signals::Stop;
use crate::acting::site::Site;
use crate::acting::worker::{Unusable, Worker, raise_open_files};
use crate::acting::{here, subjects, takeover, uid_book};
use crate::cli::error::{Failed, codes};
use crate::cli::exit::{ExitCode, StopSignal};
use crate::cli::runs;
use crate::config::Service;
use crate::guardian;
use crate::telemetry::traces;
use crate::workflow::definition::{Interrupted, Mode, Step, Workflow};
use crate::workflow::event::{PlannedStep, RunCreated, Selection};
use crate::workflow::id::{ProcessId, RunId, Subject};
use crate::workflow::recorder::Unrecorded;
use crate::workflow::run::RunState;
use crate::workflow::session::{self, ClaimError, CutOff, IsDead, Wanted};
use crate::workflow::status::RunStatus;
use crate::workflow::store::{Access, Store, hash_of_definition};

/// How far back a start looks for runs that were cut off.
const LOOK_BACK: usize = 200;

/// Where nobody has said more.
pub(super) const NO_STORE: &str = "there is no store";

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
    pub(super) fn subjects(&self) -> BTreeSet<Subject> {
        subjects::subjects(self.workflow.for_each, &self.services)
    }
}

/// A worker with its store, ready to run sessions.
pub struct Launcher {
    pub(super) site: Site,
    pub(super) worker: Worker,
    pub(super) store: Option<Store>,
    /// Why there is no store.
    pub(super) unusable: Option<Unrecorded>,
    pub(super) stop: Stop,
}

impl Launcher {
    /// Opens the store; without one everything goes on unrecorded. Inside the runtime.
    pub async fn new(site: Site, worker: Worker) -> Result<Self, Failed> {
        raise_open_files();
        let stop = Stop::listen().map_err(|e| unexpected("listen for signals", &e))?;
        let (store, unusable) = match &worker.places.state {
            Err(Unusable { code, why }) => (None, Some(Unrecorded { code: *code, why: why.clone() })),
            Ok(state) => {
                let state = state.clone();
                match unless_stopped(&stop, move || Store::open(&state, Access::ReadWrite)).await? {
                    Ok(Ok(store)) => (Some(store), None),
                    Ok(Err(error)) => (None, Some(Unrecorded::from(&error))),
                    Err(signal) => return Err(nothing_done(worker, signal)),
                }
            }
        };
        if let Some(Unrecorded { code, why }) = &unusable {
            tracing::error!(%code, "the store cannot be used; the work is done and not recorded: {why}");
        }
        if let (Some(store), Ok(state)) = (&store, &worker.places.state) {
            let (store, state) = (store.clone(), state.clone());
            let (config, private) = (site.config.clone(), worker.owner.private.clone());
            let done = unless_stopped(&stop, move || {
                takeover::once(&store, &state, &config, &private);
                if let Err(error) = uid_book::agree(&store, &state.uids_json()) {
                    tracing::warn!("the store and {} may not have the same UIDs: {error}", state.uids_json().display());
                }
            });
            if let Err(signal) = done.await? {
                return Err(nothing_done(worker, signal));
            }
        }
        Ok(Self { site, worker, store, unusable, stop })
    }

    /// The store, if it can be used.
    pub fn store(&self) -> Result<&Store, Failed> {
        self.store.as_ref().ok_or_else(|| {
            let unusable = self.unusable.clone().unwrap_or_else(|| Unrecorded::from(NO_STORE));
            Failed::new(unusable.code, format!("the store cannot be used: {}", unusable.why))
                .exit(ExitCode::StoreUnusable)
        })
    }

    /// What of the store cannot be read, if this process has come upon it. What is written to it then may be lost with the
    /// rest: it is as good as none.
    pub(super) fn damage(&self) -> Option<Unrecorded> {
        self.store.as_ref().and_then(Store::damage).map(|error| Unrecorded::from(&error))
    }

    /// The configuration and the process around it.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// The first signal that asked this process to end, if one did.
    pub fn stopped_by(&self) -> Option<StopSignal> {
        self.stop.by()
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
            match self.claim_in(self.store()?, resumable.run.id, "resume").await {
                Ok(state) => {
                    let workflow = self.definition(&resumable.run).await.unwrap_or(order.workflow);
                    return self.session(state, Order { workflow, ..order }).await;
                }
                Err(error) => say_unclaimed(&error),
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
        let state = match self.store.as_ref().filter(|_| self.damage().is_none()) {
            None => session::begin(created, by).0,
            Some(store) => {
                match session::create(store, created.clone(), order.workflow.source.clone(), by.clone()).await {
                    Ok(state) => {
                        self.supersede(&order, &cut_off, state.run.id).await;
                        state
                    }
                    Err(error) => {
                        tracing::error!(code = %error.code(), "the store cannot be used; the work is done and not recorded: {error}");
                        return self.unrecorded(session::begin(created, by).0, order, Unrecorded::from(&error)).await;
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
        self.claim_in(self.store()?, run, trigger).await.map_err(|e| runs::of_claim(&e))
    }

    async fn claim_in(&self, store: &Store, run: RunId, trigger: &str) -> Result<RunState, ClaimError> {
        let trigger = format!("{} ({trigger})", self.worker.trigger);
        let by = here::session(self.worker.owner.process, trigger, self.new_trace_id());
        session::claim(store, run, by, self.is_dead()).await
    }

    /// `None`: no trace will be sent.
    fn new_trace_id(&self) -> Option<String> {
        self.site.config.tracing.as_ref().map(|_| traces::new_trace_id())
    }

    /// The last thing.
    pub fn leave(self) {
        if let Some(store) = self.store {
            store.close();
        }
        self.worker.owner.leave();
    }
}

/// Why a run that was cut off is not resumed in place of a new one, which is as good.
fn say_unclaimed(error: &ClaimError) {
    match error {
        ClaimError::Alive { .. } | ClaimError::Ended { .. } | ClaimError::NoSuchRun(_) => {
            tracing::info!("somebody was quicker: {error}");
        }
        ClaimError::Store(_) | ClaimError::Illegal { .. } => {
            let code = runs::of_claim(error).code;
            tracing::error!(%code, "cannot resume the interrupted run: {error}");
        }
    }
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

/// The same, unless a signal comes first. The thread is not waited for then: what it does may be cut off anywhere.
pub(super) async fn unless_stopped<T: Send + 'static>(
    stop: &Stop,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<Result<T, StopSignal>, Failed> {
    tokio::select! {
        done = blocking(work) => done.map(Ok),
        signal = stop.struck() => Ok(Err(signal)),
    }
}

fn nothing_done(worker: Worker, signal: StopSignal) -> Failed {
    worker.owner.leave();
    let message = "asked to stop before the work began: nothing was done";
    Failed::new(codes::STOPPED, message).exit(signal.into())
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

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::acting::worker::tests::said;
    use crate::workflow::store::StoreError;

    #[tokio::test]
    async fn a_signal_ends_the_wait_for_what_a_thread_does() {
        let (stop, (end, ended)) = (Stop::default(), mpsc::channel::<()>());
        stop.strike(StopSignal::Terminate);
        let done = unless_stopped(&stop, move || ended.recv()).await.unwrap();
        assert_eq!(done, Err(StopSignal::Terminate));
        drop(end);
        assert_eq!(unless_stopped(&Stop::default(), || 7).await.unwrap(), Ok(7));
    }

    #[test]
    fn only_where_somebody_was_quicker_is_a_run_that_cannot_be_claimed_no_error() {
        let run = RunId::generate();
        let quicker = said(|| say_unclaimed(&ClaimError::Ended { run, status: RunStatus::Succeeded }));
        assert!(quicker.contains("INFO") && quicker.contains("somebody was quicker"), "{quicker}");
        let failed = said(|| say_unclaimed(&ClaimError::Store(StoreError::Closed)));
        let code = StoreError::Closed.code().to_string();
        assert!(failed.contains("ERROR") && failed.contains(&code) && !failed.contains("quicker"), "{failed}");
    }
}
