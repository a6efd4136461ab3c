//! The engine on the real store: what is recorded, who may claim a run, and counters over several runs.

mod support {
    pub mod toy;
}

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use managed_tokens::workflow::action::Class;
use managed_tokens::workflow::counters::{Counter, is_due, reported};
use managed_tokens::workflow::definition::{Mode, Workflow};
use managed_tokens::workflow::driver::drive;
use managed_tokens::workflow::event::{RunCreated, SessionEnd};
use managed_tokens::workflow::id::{ProcessId, RunId, Subject};
use managed_tokens::workflow::recorder::{Epilogue, Recorder};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::session::{
    self, Cancelled, ClaimError, IsDead, Wanted, claim, create, cut_off, ended_later, load, status_now,
};
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use managed_tokens::workflow::store::{Access, Options, StateDir, Store, StoreError, Tx};
use ulid::Ulid;

use support::toy::{Play, Stage, by, created, plan, workflow};

const AT_ONCE: Duration = Duration::ZERO;

struct Site {
    _directory: tempfile::TempDir,
    state: StateDir,
    store: Store,
    stage: Arc<Stage>,
    workflow: Workflow,
}

impl Site {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        std::fs::create_dir_all(state.leases()).unwrap();
        let store = Store::open(&state, Access::ReadWrite).unwrap();
        Self { _directory: directory, state, store, stage: Stage::new(), workflow: workflow() }
    }

    async fn create(&self, subjects: &[&str], mode: Mode) -> RunState {
        let created = created(&self.workflow, subjects, mode);
        create(&self.store, created, "toy".into(), by()).await.unwrap()
    }

    async fn drive(&self, state: RunState, subjects: &[&str], epilogue: Option<Arc<dyn Epilogue>>) -> SessionEnd {
        let recorder = Arc::new(Recorder::new(state, Some(self.store.clone()), epilogue, None));
        let mut plan = plan(&self.workflow, &self.stage, subjects, &self.state.leases());
        let run = recorder.with(|s| s.run.clone());
        plan.newer = self.store.read(move |view| ended_later(view, &run)).await.unwrap().unwrap();
        drive(recorder, plan).await.unwrap()
    }

    async fn run(&self, subjects: &[&str]) -> RunId {
        let state = self.create(subjects, Mode::Normal).await;
        let id = state.run.id;
        self.drive(state, subjects, None).await;
        id
    }

    async fn load(&self, run: RunId) -> RunState {
        self.store.read(move |view| load(view, run)).await.unwrap().unwrap().unwrap()
    }

    async fn counter(&self, key: &'static str) -> u32 {
        let counter: Option<Counter> = self.store.read(move |view| view.counter(key)).await.unwrap().unwrap();
        counter.map_or(0, |c| c.value)
    }
}

fn all_dead() -> IsDead {
    Arc::new(|_| true)
}

fn all_alive() -> IsDead {
    Arc::new(|_| false)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_store_has_of_a_run_is_the_fold_of_its_history() {
    let site = Site::new();
    site.stage.play("mu2e", "push", "node1", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    let run = site.run(&["dune", "mu2e"]).await;
    let stored = site.load(run).await;
    let history = site.store.read(move |view| view.events(run)).await.unwrap().unwrap();
    assert_eq!(RunState::fold(&history).unwrap().unwrap(), stored);
    assert_eq!(stored.run.status, RunStatus::Partial);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_owner_lives_is_not_claimed_and_one_whose_owner_is_dead_is() {
    let site = Site::new();
    let state = site.create(&["dune"], Mode::Normal).await;
    let refused = claim(&site.store, state.run.id, by(), all_alive()).await.unwrap_err();
    assert!(matches!(refused, ClaimError::Alive { .. }), "{refused}");
    assert_eq!(status_now(&state.run, &|_| true), RunStatus::Interrupted);
    let claimed = claim(&site.store, state.run.id, by(), all_dead()).await.unwrap();
    assert_eq!(claimed.run.sessions.len(), 2);
    assert_eq!(claimed.run.sessions[0].end, Some(SessionEnd::Lost));
    site.drive(claimed, &["dune"], None).await;
    assert_eq!(site.load(state.run.id).await.run.status, RunStatus::Succeeded);
    let refused = claim(&site.store, state.run.id, by(), all_dead()).await.unwrap_err();
    assert!(matches!(refused, ClaimError::Ended { status: RunStatus::Succeeded, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_who_claim_a_dead_run_at_once_one_gets_it() {
    let site = Site::new();
    let run = site.create(&["dune"], Mode::Normal).await.run;
    let dead = run.sessions[0].by.process;
    let is_dead: IsDead = Arc::new(move |process: ProcessId| process == dead);
    let claims = (0..8).map(|_| claim(&site.store, run.id, by(), is_dead.clone()));
    let got = futures::future::join_all(claims).await;
    assert_eq!(got.iter().filter(|c| c.is_ok()).count(), 1);
    assert!(got.iter().filter_map(|c| c.as_ref().err()).all(|e| matches!(e, ClaimError::Alive { .. })));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_run_is_final_and_a_live_one_is_told() {
    let site = Site::new();
    let run = site.create(&["dune"], Mode::Normal).await.run;
    let told = session::cancel(&site.store, run.id, all_alive()).await.unwrap();
    let Cancelled::Tell { worker } = told else { panic!("{told:?}") };
    assert_eq!(worker.pid, std::process::id());
    assert!(site.store.read(move |v| v.cancel_requested(run.id)).await.unwrap().unwrap());
    assert_eq!(session::cancel(&site.store, run.id, all_dead()).await.unwrap(), Cancelled::Done);
    assert_eq!(site.load(run.id).await.run.status, RunStatus::Cancelled);
    let refused = claim(&site.store, run.id, by(), all_dead()).await.unwrap_err();
    assert!(matches!(refused, ClaimError::Ended { status: RunStatus::Cancelled, .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_superseded_run_is_final_and_names_the_newer_one() {
    let site = Site::new();
    let old = site.create(&["dune"], Mode::Normal).await.run;
    let newer = site.run(&["dune"]).await;
    session::supersede(&site.store, old.id, newer, all_dead()).await.unwrap();
    let run = site.load(old.id).await.run;
    assert_eq!((run.status, run.superseded_by), (RunStatus::Superseded, Some(newer)));
    assert!(claim(&site.store, old.id, by(), all_dead()).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_signal_of_a_cancel_ends_a_live_run_as_cancelled() {
    let site = Site::new();
    site.stage.play("dune", "push", "node1", &[Play::Hang]);
    let state = site.create(&["dune"], Mode::Normal).await;
    let run = state.run.id;
    session::cancel(&site.store, run, all_alive()).await.unwrap();
    let recorder = Arc::new(Recorder::new(state, Some(site.store.clone()), None, None));
    let plan = plan(&site.workflow, &site.stage, &["dune"], &site.state.leases());
    plan.stop.cancel();
    assert_eq!(drive(recorder, plan).await.unwrap(), SessionEnd::Cancelled);
    assert_eq!(site.load(run).await.run.status, RunStatus::Cancelled);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_interrupted_run_is_resumed_for_the_same_selection_within_its_age_and_if_none_is_newer() {
    let site = Site::new();
    let old = site.create(&["dune"], Mode::Normal).await.run.id;
    let look = |mode, services: Vec<String>, ahead: u64| {
        let wanted = Wanted {
            workflow: site.workflow.name.clone(),
            selection: managed_tokens::workflow::event::Selection { services, ..Default::default() },
            mode,
            within: Some(Duration::from_secs(1800)),
            look_back: 100,
        };
        let now = jiff::Timestamp::now() + Duration::from_secs(ahead);
        let store = site.store.clone();
        async move {
            let found = store.read(move |view| cut_off(view, &wanted, &|_| true, now)).await.unwrap().unwrap();
            found.into_iter().map(|c| (c.run.id, c.resumable)).collect::<Vec<_>>()
        }
    };
    assert_eq!(look(Mode::Normal, vec![], 0).await, [(old, true)]);
    assert_eq!(look(Mode::Test, vec![], 0).await, [(old, false)], "another mode");
    assert_eq!(look(Mode::Normal, vec!["dune".into()], 0).await, [(old, false)], "another selection");
    assert_eq!(look(Mode::Normal, vec![], 1900).await, [(old, false)], "too old");
    let newer = site.create(&["dune"], Mode::Normal).await.run.id;
    assert_eq!(look(Mode::Normal, vec![], 0).await, [(newer, true), (old, false)], "overtaken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_that_ended_in_a_newer_run_is_superseded_and_its_counter_stays() {
    let site = Site::new();
    let old = site.create(&["dune", "mu2e"], Mode::Normal).await.run.id;
    let newer = site.run(&["dune"]).await;
    let claimed = claim(&site.store, old, by(), all_dead()).await.unwrap();
    site.stage.play("*", "kinit", "-", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    site.drive(claimed, &["dune", "mu2e"], None).await;
    let state = site.load(old).await;
    let dune = &state.machines[&Subject::new("dune")];
    assert_eq!((dune.status, dune.other_run), (MachineStatus::Superseded, Some(newer)));
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::Failed);
    assert_eq!((site.counter("dune").await, site.counter("mu2e").await), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn counters_change_with_the_end_of_the_machine_and_only_in_normal_runs() {
    let site = Site::new();
    site.stage.play("dune", "push", "node2", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    site.stage.play("dune", "store", "*", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    site.run(&["dune", "mu2e"]).await;
    site.run(&["dune", "mu2e"]).await;
    assert_eq!(site.counter("dune").await, 2, "two targets of one step count once a run");
    assert_eq!(site.counter("dune\0node2").await, 2);
    assert_eq!((site.counter("dune\0node1").await, site.counter("mu2e").await), (0, 0));
    let test = site.create(&["dune"], Mode::Test).await;
    site.drive(test, &["dune"], None).await;
    assert_eq!(site.counter("dune").await, 2, "a test leaves counters alone");
    site.stage.play("dune", "kinit", "-", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    site.run(&["dune"]).await;
    assert_eq!(site.counter("dune\0node2").await, 2, "not attempted is neither success nor failure");
    site.stage.script.lock().unwrap().clear();
    site.run(&["dune"]).await;
    assert_eq!((site.counter("dune").await, site.counter("dune\0node2").await), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_was_ahead_for_a_while_puts_no_later_run_into_the_past() {
    const MONTH: u64 = 30 * 24 * 3_600_000;
    let site = Site::new();
    let made = created(&site.workflow, &["dune"], Mode::Normal);
    let id = RunId(Ulid::from_parts(made.id.made_ms() + MONTH, 1));
    let ahead = create(&site.store, RunCreated { id, ..made }, "toy".into(), by()).await.unwrap();
    site.drive(ahead, &["dune"], None).await;

    site.stage.play("dune", "kinit", "-", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    let (second, third) = (site.run(&["dune"]).await, site.run(&["dune"]).await);
    assert!(id < second && second < third, "{id} {second} {third}");
    assert_eq!(site.counter("dune").await, 2, "both are counted");

    site.stage.script.lock().unwrap().clear();
    let resumed = claim(&site.store, third, by(), all_dead()).await.unwrap();
    site.drive(resumed, &["dune"], None).await;
    let machines = site.load(third).await.machines;
    assert_eq!(machines[&Subject::new("dune")].status, MachineStatus::Succeeded, "nothing newer stands in its way");
    assert_eq!(site.counter("dune").await, 0);
}

/// Writes down what is due when the last machine ends, as the notifications will.
struct Prepared(std::sync::Mutex<Vec<String>>);

impl Epilogue for Prepared {
    fn machines_ended(&self, tx: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError> {
        for (key, counter) in tx.counters::<Counter>("")? {
            if is_due(&counter, state.run.id, 2) {
                self.0.lock().unwrap().push(format!("{key} {}", counter.value));
                tx.put_counter(&key, &reported(&counter, state.run.id, counter.value, counter.failing_since))?;
            }
        }
        Ok(())
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_due_is_prepared_in_the_transaction_that_ends_the_last_machine() {
    let site = Site::new();
    let prepared = Arc::new(Prepared(std::sync::Mutex::default()));
    site.stage.play("dune", "get", "-", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    for expected in [0, 1, 1, 2] {
        let state = site.create(&["dune", "mu2e"], Mode::Normal).await;
        site.drive(state, &["dune", "mu2e"], Some(prepared.clone())).await;
        assert_eq!(prepared.0.lock().unwrap().len(), expected);
    }
    assert_eq!(*prepared.0.lock().unwrap(), ["dune 2", "dune 2"]);
}

/// Says how the machines stood when the last one ended.
#[derive(Default)]
struct Epilogues(std::sync::Mutex<Vec<Vec<MachineStatus>>>);

impl Epilogue for Epilogues {
    fn machines_ended(&self, _: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError> {
        self.0.lock().unwrap().push(state.machines.values().map(|machine| machine.status).collect());
        Ok(())
    }
}

/// A run of which dune failed and mu2e was cut off, claimed by a second session.
async fn cut_off_after_dune(site: &Site) -> RunState {
    site.stage.play("dune", "kinit", "-", &[Play::Fail(Class::Permanent, AT_ONCE)]);
    site.stage.play("mu2e", "kinit", "-", &[Play::Hang]);
    let state = site.create(&["dune", "mu2e"], Mode::Normal).await;
    let run = state.run.id;
    let recorder = Arc::new(Recorder::new(state, Some(site.store.clone()), None, None));
    let plan = plan(&site.workflow, &site.stage, &["dune", "mu2e"], &site.state.leases());
    let (stop, seen) = (plan.stop.clone(), recorder.clone());
    tokio::spawn(async move {
        let failed = |s: &RunState| s.machines[&Subject::new("dune")].status == MachineStatus::Failed;
        while !seen.with(failed) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        stop.cancel();
    });
    assert_eq!(drive(recorder, plan).await.unwrap(), SessionEnd::Interrupted);
    site.stage.script.lock().unwrap().clear();
    claim(&site.store, run, by(), all_dead()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_prepares_what_is_due_once_and_not_before_it_has_done_again_what_had_failed() {
    let mut site = Site::new();
    site.workflow.overlap = managed_tokens::workflow::definition::Overlap::Wait(Duration::from_secs(60));
    let claimed = cut_off_after_dune(&site).await;
    let epilogues = Arc::new(Epilogues::default());
    // Somebody holds dune until mu2e has long ended.
    let leases = managed_tokens::workflow::lease::Leases::new(site.state.leases());
    let lease = leases.take(&Subject::new("dune"), RunId::generate(), ProcessId::generate()).unwrap().unwrap();
    let (run, store) = (claimed.run.id, site.store.clone());
    tokio::spawn(async move {
        let ended = |state: RunState| state.machines[&Subject::new("mu2e")].status == MachineStatus::Succeeded;
        while !ended(store.read(move |view| load(view, run)).await.unwrap().unwrap().unwrap()) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(lease);
    });
    site.drive(claimed, &["dune", "mu2e"], Some(epilogues.clone())).await;
    assert_eq!(*epilogues.0.lock().unwrap(), [[MachineStatus::Succeeded; 2]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resumed_session_that_has_to_leave_a_failed_machine_to_another_run_prepares_what_is_due_all_the_same() {
    let mut site = Site::new();
    // Long enough for the other machine to end first.
    site.workflow.overlap = managed_tokens::workflow::definition::Overlap::Wait(Duration::from_secs(1));
    let claimed = cut_off_after_dune(&site).await;
    let epilogues = Arc::new(Epilogues::default());
    let leases = managed_tokens::workflow::lease::Leases::new(site.state.leases());
    let _lease = leases.take(&Subject::new("dune"), RunId::generate(), ProcessId::generate()).unwrap().unwrap();
    site.drive(claimed, &["dune", "mu2e"], Some(epilogues.clone())).await;
    assert_eq!(*epilogues.0.lock().unwrap(), [[MachineStatus::Failed, MachineStatus::Succeeded]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn two_runs_go_side_by_side_and_each_has_its_own_history() {
    let site = Site::new();
    let (a, b) = tokio::join!(site.run(&["dune"]), site.run(&["mu2e"]));
    for (run, subject) in [(a, "dune"), (b, "mu2e")] {
        let state = site.load(run).await;
        assert_eq!(state.run.status, RunStatus::Succeeded);
        assert_eq!(state.machines.keys().map(Subject::as_str).collect::<Vec<_>>(), [subject]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_in_the_middle_costs_the_record_and_not_the_work() {
    let site = Site::new();
    let state = site.create(&["dune"], Mode::Normal).await;
    site.store.clone().close();
    let recorder = Arc::new(Recorder::new(state, Some(site.store.clone()), None, None));
    let plan = plan(&site.workflow, &site.stage, &["dune"], &site.state.leases());
    assert_eq!(drive(recorder.clone(), plan).await.unwrap(), SessionEnd::Finished);
    assert!(recorder.why_unrecorded().is_some());
    let pushed: BTreeMap<_, _> = recorder
        .with(|s| s.machines[&Subject::new("dune")].steps.iter().map(|s| (s.name.to_string(), s.status)).collect());
    assert_eq!(pushed["push"], StepStatus::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_whose_disk_hangs_keeps_no_run_from_its_end() {
    let site = Site::new();
    let state = site.create(&["dune"], Mode::Normal).await;
    let options = Options { answer: Duration::from_millis(300), ..Options::default() };
    let hanging = Store::open_with(&site.state, Access::ReadWrite, options).unwrap();
    let (free, held) = std::sync::mpsc::channel::<()>();
    // The store's thread sits in this write as it would in a sync that does not come back.
    let stuck = hanging.submit(move |_| -> Result<(), StoreError> {
        let _ = held.recv();
        Ok(())
    });
    let recorder = Arc::new(Recorder::new(state, Some(hanging.clone()), None, None));
    let plan = plan(&site.workflow, &site.stage, &["dune"], &site.state.leases());
    let driven = tokio::time::timeout(Duration::from_secs(60), drive(recorder.clone(), plan)).await;
    assert_eq!(driven.expect("it must not wait for the disk").unwrap(), SessionEnd::Finished);
    assert_eq!(site.stage.calls_of("push").len(), 2, "the work itself is done");
    assert!(recorder.why_unrecorded().is_some_and(|why| why.contains("has not answered")));
    assert!(matches!(hanging.read(|_| ()).await, Err(StoreError::Hangs { .. })));
    drop(free);
    let _ = stuck.await;
}
