//! The engine, driven by toy actions in virtual time: no process, no disk but the leases, no token in sight.

#[path = "../support/toy.rs"]
mod toy;

mod held;
mod resumed;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use managed_tokens::workflow::action::Class;
use managed_tokens::workflow::counters::{Verdict, verdicts};
use managed_tokens::workflow::definition::{Mode, OnFailure, Overlap, Retry, Step, Workflow};
use managed_tokens::workflow::driver::drive;
use managed_tokens::workflow::event::{AttemptOutcome, Fact, SessionEnd};
use managed_tokens::workflow::id::{ProcessId, RunId, StepName, Subject};
use managed_tokens::workflow::lease::Leases;
use managed_tokens::workflow::recorder::Recorder;
use managed_tokens::workflow::run::{Machine, RunState, StepState};
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use toy::{Play, Stage, begin, by, created, plan, workflow};

const SECOND: Duration = Duration::from_secs(1);

struct Run {
    stage: Arc<Stage>,
    workflow: Workflow,
    subjects: Vec<String>,
    mode: Mode,
    leases: tempfile::TempDir,
}

impl Run {
    fn of(subjects: &[&str]) -> Self {
        Self {
            stage: Stage::new(),
            workflow: workflow(),
            subjects: subjects.iter().map(|s| (*s).to_owned()).collect(),
            mode: Mode::Normal,
            leases: tempfile::tempdir().unwrap(),
        }
    }

    fn step(&mut self, name: &str) -> &mut managed_tokens::workflow::definition::Step {
        self.workflow.steps.iter_mut().find(|s| s.name.as_str() == name).unwrap()
    }

    fn names(&self) -> Vec<&str> {
        self.subjects.iter().map(String::as_str).collect()
    }

    async fn go(&self) -> (RunState, SessionEnd) {
        let state = begin(created(&self.workflow, &self.names(), self.mode));
        self.session(state).await
    }

    /// The run after a signal at this moment.
    async fn stopped_after(&self, moment: Duration) -> RunState {
        let state = begin(created(&self.workflow, &self.names(), self.mode));
        let recorder = Arc::new(Recorder::unrecorded(state, "a test", None));
        let plan = plan(&self.workflow, &self.stage, &self.names(), self.leases.path());
        let stop = plan.stop.clone();
        tokio::spawn(async move {
            tokio::time::sleep(moment).await;
            stop.cancel();
        });
        drive(recorder.clone(), plan).await.unwrap();
        recorder.with(Clone::clone)
    }

    /// The second session of the run.
    async fn resume(&self, state: RunState) -> (RunState, SessionEnd) {
        self.resume_as(state, 2).await
    }

    /// One more session of the run.
    async fn resume_as(&self, mut state: RunState, number: u32) -> (RunState, SessionEnd) {
        let mut apply = |fact, session| {
            let event = managed_tokens::workflow::event::Event {
                seq: state.run.events,
                at: jiff::Timestamp::now(),
                session,
                fact,
            };
            state.apply(&event).unwrap();
        };
        apply(Fact::SessionStarted(by()), number);
        self.session(state).await
    }

    async fn session(&self, state: RunState) -> (RunState, SessionEnd) {
        let recorder = Arc::new(Recorder::unrecorded(state, "a test", None));
        let plan = plan(&self.workflow, &self.stage, &self.names(), self.leases.path());
        let end = drive(recorder.clone(), plan).await.unwrap();
        (recorder.with(Clone::clone), end)
    }
}

fn step_of<'a>(state: &'a RunState, subject: &str, step: &str) -> &'a StepState {
    state.machines[&Subject::new(subject)].steps.iter().find(|s| s.name.as_str() == step).unwrap()
}

fn statuses(state: &RunState, subject: &str) -> BTreeMap<String, StepStatus> {
    state.machines[&Subject::new(subject)].steps.iter().map(|s| (s.name.to_string(), s.status)).collect()
}

#[tokio::test(start_paused = true)]
async fn a_run_without_trouble_succeeds_and_touches_every_target_once() {
    let run = Run::of(&["dune", "mu2e"]);
    let (state, end) = run.go().await;
    assert_eq!((state.run.status, end), (RunStatus::Succeeded, SessionEnd::Finished));
    let pushes: Vec<_> = run.stage.calls_of("push").into_iter().map(|(s, t)| format!("{s}/{t}")).collect();
    assert_eq!(pushes, ["dune/node1", "dune/node2", "mu2e/node1", "mu2e/node2"]);
    assert_eq!(run.stage.calls_of("notify").len(), 1, "run-wide steps run once");
}

#[tokio::test(start_paused = true)]
async fn sixteen_of_fifty_that_hang_do_not_keep_the_others_from_their_pushes() {
    let names: Vec<String> = (0..50).map(|i| format!("svc{i:02}")).collect();
    let run = Run::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    for name in &names[..16] {
        run.stage.play(name, "get", "-", &[Play::Hang]);
    }
    run.stage.play("*", "get", "*", &[Play::Succeed(SECOND)]);
    let (state, _) = run.go().await;
    for name in &names[16..] {
        let pushed = run.stage.ended(name, "push").expect("it was pushed");
        // Permits come back after 5 s; 34 services on 16 permits take three rounds of one second.
        assert!(pushed <= Duration::from_secs(10), "{name} was pushed only after {pushed:?}");
        assert_eq!(state.machines[&Subject::new(name.as_str())].status, MachineStatus::Succeeded);
    }
    for name in &names[..16] {
        assert_eq!(step_of(&state, name, "get").status, StepStatus::TimedOut);
        assert_eq!(statuses(&state, name)["push"], StepStatus::NotAttempted);
    }
    assert_eq!(state.run.status, RunStatus::Partial);
    assert!(run.stage.most_at_once("get") <= 32, "never more than 2 x parallel");
}

#[tokio::test(start_paused = true)]
async fn with_one_credd_hanging_all_fifty_push_before_the_deadline() {
    let names: Vec<String> = (0..50).map(|i| format!("svc{i:02}")).collect();
    let run = Run::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    run.stage.play("*", "store", "schedd2", &[Play::Hang]);
    let (state, _) = run.go().await;
    for name in &names {
        let pushed = run.stage.ended(name, "push").expect("it was pushed");
        assert!(pushed < Duration::from_secs(270), "{name} was pushed only after {pushed:?}");
        assert_eq!(statuses(&state, name)["push"], StepStatus::Succeeded);
        assert_eq!(statuses(&state, name)["store"], StepStatus::TimedOut);
    }
    let closed = names.iter().filter(|name| {
        let target = step_of(&state, name, "store").targets.iter().find(|t| t.name.as_str() == "schedd2").unwrap();
        let Some(AttemptOutcome::Failed(failure)) = &target.attempts[0].result else { panic!("it failed") };
        failure.message == "schedd2 timed out 3 times in this run"
    });
    assert!(closed.count() >= 30, "most services need not wait for a credd that is known to hang");
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_closed_before_a_next_try_keeps_the_number_of_the_try() {
    let mut run = Run::of(&["a", "b", "c", "late"]);
    run.step("store").timeout = 10 * SECOND;
    run.step("store").retry = Retry { times: 1, backoff: (100 * SECOND, 100 * SECOND) };
    run.stage.play("late", "store", "schedd2", &[Play::Fail(Class::Transient, SECOND)]);
    for name in ["a", "b", "c"] {
        run.stage.play(name, "store", "schedd2", &[Play::Hang]);
    }
    let (state, _) = run.go().await;
    let store = step_of(&state, "late", "store");
    let target = store.targets.iter().find(|t| t.name.as_str() == "schedd2").unwrap();
    assert_eq!(target.attempts.iter().map(|attempt| attempt.number).collect::<Vec<_>>(), [1, 2]);
    let Some(AttemptOutcome::Failed(failure)) = &target.attempts[1].result else { panic!("it failed") };
    assert_eq!(failure.message, "schedd2 timed out 3 times in this run");
}

#[tokio::test(start_paused = true)]
async fn a_transient_failure_is_tried_again_and_a_permanent_one_is_not() {
    let mut run = Run::of(&["dune", "mu2e", "nova"]);
    run.step("push").retry = Retry { times: 3, backoff: (2 * SECOND, 15 * SECOND) };
    let fail = |class| Play::Fail(class, SECOND);
    run.stage.play("dune", "push", "node1", &[fail(Class::Transient), fail(Class::Timeout), Play::Succeed(SECOND)]);
    run.stage.play("mu2e", "push", "node1", &[fail(Class::Permanent)]);
    run.stage.play("nova", "push", "node1", &[fail(Class::Transient)]);
    let (state, _) = run.go().await;
    let attempts = |subject| step_of(&state, subject, "push").targets[0].attempts.len();
    assert_eq!((attempts("dune"), attempts("mu2e"), attempts("nova")), (3, 1, 4));
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::Succeeded);
    assert_eq!(statuses(&state, "mu2e")["push"], StepStatus::Failed);
    let first = step_of(&state, "nova", "push").targets[0].attempts[0].result.clone().unwrap();
    assert!(matches!(first, AttemptOutcome::Failed(f) if f.message == "toy failure 1"), "the first message is kept");
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_stops_its_machine_or_not_as_the_workflow_says() {
    let run = Run::of(&["dune", "mu2e"]);
    run.stage.play("dune", "get", "-", &[Play::Fail(Class::NeedsHuman, SECOND)]);
    run.stage.play("mu2e", "store", "schedd1", &[Play::Fail(Class::Permanent, SECOND)]);
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["get"], StepStatus::NeedsHuman);
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::NotAttempted);
    assert_eq!(step_of(&state, "dune", "push").why.as_deref(), Some("get failed"));
    assert_eq!(statuses(&state, "mu2e")["store"], StepStatus::Failed);
    assert_eq!(statuses(&state, "mu2e")["push"], StepStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_step_whose_need_was_not_made_is_not_attempted() {
    let mut run = Run::of(&["dune"]);
    run.step("get").on_failure = OnFailure::Continue;
    run.stage.play("dune", "get", "-", &[Play::Fail(Class::Permanent, SECOND)]);
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["store"], StepStatus::Succeeded, "a store needs a ticket, no token");
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::NotAttempted);
    let why = step_of(&state, "dune", "push").why.clone().unwrap();
    assert!(why.contains("needs a Token"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_makes_the_step_stale_and_the_later_steps_run() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "get", "-", &[Play::Fail(Class::Transient, SECOND)]);
    run.stage.stand_ins.lock().unwrap().insert("get".into());
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["get"], StepStatus::Stale);
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::Succeeded);
    assert_eq!(state.run.status, RunStatus::Failed, "stale is a failed outcome");
}

#[tokio::test(start_paused = true)]
async fn a_stand_in_does_not_hide_a_failure_that_a_person_must_mend() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "get", "-", &[Play::Fail(Class::NeedsHuman, SECOND)]);
    run.stage.stand_ins.lock().unwrap().insert("get".into());
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["get"], StepStatus::NeedsHuman);
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::NotAttempted);
}

#[tokio::test(start_paused = true)]
async fn a_signal_waits_for_no_look_for_a_stand_in() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "get", "-", &[Play::Fail(Class::Transient, Duration::ZERO)]);
    *run.stage.stand_ins_hang.lock().unwrap() = true;
    // By then all tries have failed, and it is looked for one.
    let tries = || run.stage.calls_of("get").len();
    let ended = run.go().await.0;
    assert_eq!((statuses(&ended, "dune")["get"], tries()), (StepStatus::Failed, 1));
    let began = tokio::time::Instant::now();
    let state = run.stopped_after(SECOND).await;
    assert_eq!((state.run.status, tries()), (RunStatus::Interrupted, 2));
    assert_eq!(began.elapsed(), SECOND);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_ends_at_its_timeout_even_if_the_action_is_deaf_to_it() {
    let run = Run::of(&["deaf", "hang", "tell", "fine"]);
    run.stage.play("deaf", "kinit", "-", &[Play::Deaf]);
    run.stage.play("hang", "kinit", "-", &[Play::Hang]);
    run.stage.play("tell", "kinit", "-", &[Play::HangAndTell]);
    let (state, end) = run.go().await;
    assert_eq!(end, SessionEnd::Finished);
    assert_eq!(statuses(&state, "deaf")["kinit"], StepStatus::TimedOut);
    assert_eq!(statuses(&state, "hang")["kinit"], StepStatus::TimedOut);
    // An action that knows who did not answer is believed.
    for (subject, message) in [("hang", "no answer within 60s"), ("tell", "the toy shop does not answer")] {
        let result = &step_of(&state, subject, "kinit").targets[0].attempts[0].result;
        let Some(AttemptOutcome::Failed(failure)) = result else { panic!("it failed") };
        assert_eq!((failure.class, failure.message.as_str()), (Class::Timeout, message));
    }
    assert_eq!(state.machines[&Subject::new("fine")].status, MachineStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_deadline_stops_machines_and_not_notifications() {
    let mut run = Run::of(&["slow", "fine"]);
    run.workflow.deadline = Duration::from_secs(40);
    run.workflow.reserve = Duration::from_secs(20);
    run.step("push").retry = Retry { times: 9, backoff: (100 * SECOND, 100 * SECOND) };
    run.stage.play("slow", "store", "schedd1", &[Play::Hang]);
    let (state, end) = run.go().await;
    assert_eq!(end, SessionEnd::Finished);
    assert_eq!(state.run.status, RunStatus::TimedOut);
    assert_eq!(state.machines[&Subject::new("slow")].status, MachineStatus::TimedOut);
    assert_eq!(statuses(&state, "slow")["store"], StepStatus::TimedOut);
    assert_eq!(statuses(&state, "slow")["push"], StepStatus::NotAttempted);
    assert_eq!(state.machines[&Subject::new("fine")].status, MachineStatus::Succeeded);
    assert_eq!(run.stage.calls_of("notify").len(), 1, "people are told in the reserve");
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_turn_for_a_token_never_came_has_failed_and_not_recovered() {
    let mut run = Run::of(&["first", "second", "third"]);
    run.workflow.deadline = Duration::from_secs(40);
    run.workflow.reserve = Duration::from_secs(20);
    run.step("get").parallel = 1;
    for service in ["first", "second", "third"] {
        run.stage.play(service, "get", "-", &[Play::Hang]);
    }
    let (state, _) = run.go().await;
    let waited: Vec<&Machine> = state
        .machines
        .values()
        .filter(|m| m.steps.iter().any(|s| s.name.as_str() == "get" && s.status == StepStatus::NotAttempted))
        .collect();
    assert_eq!(waited.len(), 1, "an old attempt gives its permit to one more");
    let setup = &verdicts(waited[0], &state.run.plan)[0];
    assert_eq!((setup.0.target.as_ref(), setup.1), (None, Verdict::Failed));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_waits_for_its_next_try_at_the_deadline_has_timed_out() {
    let mut run = Run::of(&["dune"]);
    run.workflow.deadline = Duration::from_secs(40);
    run.workflow.reserve = Duration::from_secs(20);
    run.step("push").retry = Retry { times: 9, backoff: (100 * SECOND, 100 * SECOND) };
    run.stage.play("dune", "push", "node1", &[Play::Fail(Class::Transient, SECOND)]);
    let (state, _) = run.go().await;
    let push = step_of(&state, "dune", "push");
    assert_eq!(push.targets[0].status, StepStatus::TimedOut);
    assert_eq!(push.targets[1].status, StepStatus::Succeeded);
    assert_eq!(push.status, StepStatus::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_signal_leaves_the_run_interrupted_and_tells_nobody() {
    let run = Run::of(&["dune", "mu2e"]);
    run.stage.play("dune", "push", "node2", &[Play::Hang]);
    let state = begin(created(&run.workflow, &run.names(), run.mode));
    let recorder = Arc::new(Recorder::unrecorded(state, "a test", None));
    let plan = plan(&run.workflow, &run.stage, &run.names(), run.leases.path());
    let stop = plan.stop.clone();
    tokio::spawn(async move {
        tokio::time::sleep(3 * SECOND).await;
        stop.cancel();
    });
    let end = drive(recorder.clone(), plan).await.unwrap();
    let state = recorder.with(Clone::clone);
    assert_eq!((end, state.run.status), (SessionEnd::Interrupted, RunStatus::Interrupted));
    assert_eq!(state.machines[&Subject::new("dune")].status, MachineStatus::Interrupted);
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::Succeeded);
    assert_eq!(run.stage.calls_of("notify").len(), 0);

    // The resume redoes what has no outcome and what it needs, and nothing else.
    run.stage.script.lock().unwrap().clear();
    run.stage.calls.lock().unwrap().clear();
    let (resumed, _) = run.resume(state).await;
    assert_eq!(resumed.run.status, RunStatus::Succeeded);
    let calls = run.stage.calls.lock().unwrap().clone();
    let calls: Vec<_> = calls.iter().map(|c| format!("{}/{}/{}", c.subject, c.step, c.target)).collect();
    assert_eq!(calls, ["dune/kinit/-", "dune/push/node2", "-/notify/-"]);
    let fresh = Run::of(&["dune", "mu2e"]).go().await.0;
    for subject in ["dune", "mu2e"] {
        assert_eq!(statuses(&resumed, subject), statuses(&fresh, subject), "as if it had never been disturbed");
    }
}

#[tokio::test(start_paused = true)]
async fn a_signal_at_one_run_wide_step_leaves_the_next_to_the_resume_and_blames_no_deadline() {
    let mut run = Run::of(&["dune"]);
    let verify = Step { name: StepName::new("verify"), ..run.workflow.finally[0].clone() };
    run.workflow.finally.insert(0, verify);
    run.stage.play("*", "verify", "*", &[Play::Hang]);
    let state = run.stopped_after(3 * SECOND).await;
    let seen: Vec<_> = state.run.steps.iter().map(|s| (s.name.as_str(), s.status, s.why.as_deref())).collect();
    assert_eq!(seen, [("verify", StepStatus::Pending, None), ("notify", StepStatus::Pending, None)]);
    run.stage.script.lock().unwrap().clear();
    let (resumed, _) = run.resume(state).await;
    assert!(resumed.run.steps.iter().all(|s| s.status == StepStatus::Succeeded), "{:?}", resumed.run.steps);
}

#[tokio::test(start_paused = true)]
async fn a_mode_leaves_out_the_steps_that_are_not_meant_for_it() {
    let mut run = Run::of(&["dune"]);
    run.mode = Mode::Test;
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::Skipped);
    assert_eq!(run.stage.calls_of("push"), []);
    assert_eq!(state.run.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_step_with_nothing_to_work_on_is_skipped_and_stays_so() {
    let run = Run::of(&["dune"]);
    run.stage.unconfigured.lock().unwrap().extend(["schedd1".to_owned(), "schedd2".to_owned()]);
    run.stage.play("dune", "push", "node1", &[Play::Fail(Class::Permanent, SECOND), Play::Succeed(SECOND)]);
    let (state, _) = run.go().await;
    assert_eq!(statuses(&state, "dune")["store"], StepStatus::Skipped);
    assert_eq!(statuses(&state, "dune")["push"], StepStatus::Failed);
    let (state, _) = run.resume(state).await;
    assert_eq!(statuses(&state, "dune")["store"], StepStatus::Skipped);
    assert_eq!(state.run.status, RunStatus::Failed, "push goes on failing: its script begins anew");
    assert_eq!(run.stage.calls_of("store"), []);
}

#[tokio::test(start_paused = true)]
async fn an_action_that_panics_fails_its_own_target_alone() {
    let run = Run::of(&["dune", "mu2e"]);
    run.stage.play("dune", "push", "node1", &[Play::Panic]);
    let (state, _) = run.go().await;
    let push = step_of(&state, "dune", "push");
    assert_eq!((push.targets[0].status, push.targets[1].status), (StepStatus::Failed, StepStatus::Succeeded));
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_defect_in_one_machine_keeps_no_other_from_its_end_and_the_run_can_be_resumed() {
    let run = Run::of(&["dune", "mu2e"]);
    *run.stage.cursed.lock().unwrap() = Some("dune".to_owned());
    run.stage.play("mu2e", "push", "*", &[Play::Succeed(SECOND)]);
    let state = begin(created(&run.workflow, &run.names(), run.mode));
    let recorder = Arc::new(Recorder::unrecorded(state, "a test", None));
    let plan = plan(&run.workflow, &run.stage, &run.names(), run.leases.path());
    drive(recorder.clone(), plan).await.unwrap_err();
    let state = recorder.with(Clone::clone);
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::Succeeded);
    assert_eq!(state.run.status, RunStatus::Interrupted);
}

#[tokio::test(start_paused = true)]
async fn a_thousand_subjects_end() {
    let names: Vec<String> = (0..1000).map(|i| format!("svc{i:04}")).collect();
    let run = Run::of(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let (state, _) = run.go().await;
    assert_eq!(state.run.tally, BTreeMap::from([(MachineStatus::Succeeded, 1000)]));
    let _ = StepName::new("push");
}
