//! What a resume does again, and what it leaves as it is.

use super::*;

/// A run in which mu2e's look at what it has made waits: as long as `until` says no, and 20 s at most.
fn looks_at_mu2e_wait(run: &Run, until: impl Fn(&Stage) -> bool + Send + Sync + 'static) -> Arc<AtomicBool> {
    let gave_up = Arc::new(AtomicBool::new(false));
    let (stage, given_up) = (Arc::downgrade(&run.stage), gave_up.clone());
    let look = move |subject: &str| {
        let limit = std::time::Instant::now() + 20 * SECOND;
        while subject == "mu2e" && stage.upgrade().is_some_and(|stage| !until(&stage)) {
            if std::time::Instant::now() > limit {
                return given_up.store(true, Ordering::Relaxed);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    *run.stage.look.lock().unwrap() = Some(Arc::new(look));
    gave_up
}

#[tokio::test]
async fn a_look_at_what_one_machine_has_made_that_takes_long_holds_up_no_other() {
    let run = Run::of(&["dune", "mu2e"]);
    run.stage.play("*", "push", "node2", &[Play::Fail(Class::Permanent, Duration::ZERO)]);
    let (state, _) = run.go().await;
    run.stage.script.lock().unwrap().clear();
    let again = |stage: &Stage| {
        stage.calls.lock().unwrap().iter().any(|c| c.subject == "dune" && c.step == "push" && c.session == 2)
    };
    let gave_up = looks_at_mu2e_wait(&run, again);
    let (state, _) = run.resume(state).await;
    assert!(!gave_up.load(Ordering::Relaxed), "dune waited for mu2e");
    assert_eq!(state.run.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_look_at_what_a_machine_has_made_that_never_ends_is_ended_by_the_deadline() {
    let mut run = Run::of(&["dune", "mu2e"]);
    run.stage.play("*", "push", "node2", &[Play::Fail(Class::Permanent, Duration::ZERO)]);
    let (state, _) = run.go().await;
    run.stage.script.lock().unwrap().clear();
    run.workflow.deadline = SECOND;
    run.workflow.reserve = SECOND / 2;
    let over = Arc::new(AtomicBool::new(false));
    let is_over = over.clone();
    let gave_up = looks_at_mu2e_wait(&run, move |_| is_over.load(Ordering::Relaxed));
    let (state, end) = run.resume(state).await;
    over.store(true, Ordering::Relaxed);
    assert!(!gave_up.load(Ordering::Relaxed), "the session waited for mu2e");
    assert_eq!(end, SessionEnd::Finished);
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn a_resume_makes_a_product_anew_only_if_it_is_lost_and_needed() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "push", "node2", &[Play::Fail(Class::Permanent, SECOND)]);
    let (state, _) = run.go().await;
    run.stage.lost.lock().unwrap().insert("Token".into());
    run.stage.script.lock().unwrap().clear();
    run.stage.calls.lock().unwrap().clear();
    let (resumed, _) = run.resume(state).await;
    let steps: Vec<_> = run.stage.calls.lock().unwrap().iter().map(|c| c.step.clone()).collect();
    assert_eq!(steps, ["kinit", "get", "push", "notify"]);
    assert_eq!(resumed.run.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn what_vanished_from_the_configuration_is_gone_and_neither_success_nor_failure() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "push", "node2", &[Play::Fail(Class::Permanent, SECOND)]);
    let (state, _) = run.go().await;
    run.stage.unconfigured.lock().unwrap().insert("node2".into());
    run.stage.calls.lock().unwrap().clear();
    let (resumed, _) = run.resume(state).await;
    assert_eq!(run.stage.calls_of("push"), []);
    assert_eq!(step_of(&resumed, "dune", "push").targets[1].status, StepStatus::Gone);
    assert_eq!(resumed.run.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_was_cut_off_at_a_target_that_has_vanished_since_is_as_good_as_its_other_targets() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "push", "node2", &[Play::Hang]);
    let state = run.stopped_after(3 * SECOND).await;
    assert_eq!(step_of(&state, "dune", "push").status, StepStatus::Pending);
    run.stage.unconfigured.lock().unwrap().insert("node2".into());
    let (resumed, _) = run.resume(state).await;
    assert_eq!(step_of(&resumed, "dune", "push").status, StepStatus::Succeeded);
    assert_eq!(resumed.run.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn the_recorded_targets_hold_when_a_resume_cannot_learn_them() {
    let run = Run::of(&["dune"]);
    run.stage.play("dune", "store", "schedd1", &[Play::Hang]);
    let state = run.stopped_after(3 * SECOND).await;
    run.stage.script.lock().unwrap().clear();
    *run.stage.unlisted.lock().unwrap() = true;
    let (resumed, end) = run.resume(state).await;
    assert_eq!(end, SessionEnd::Finished);
    let store = step_of(&resumed, "dune", "store");
    let targets: Vec<_> = store.targets.iter().map(|t| (t.name.as_str(), t.status)).collect();
    assert_eq!(targets, [("schedd1", StepStatus::Succeeded), ("schedd2", StepStatus::Succeeded)]);
    // Nobody has ever said what there is to push to.
    let push = step_of(&resumed, "dune", "push");
    assert_eq!((push.status, push.targets[0].name.is_only()), (StepStatus::Failed, true));
    *run.stage.unlisted.lock().unwrap() = false;
    let (resumed, _) = run.resume_as(resumed, 3).await;
    assert_eq!(statuses(&resumed, "dune")["push"], StepStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_the_present_definition_leaves_out_keeps_the_outcome_it_has() {
    let mut run = Run::of(&["dune"]);
    run.stage.play("dune", "push", "node2", &[Play::Fail(Class::Permanent, SECOND)]);
    let (state, _) = run.go().await;
    run.step("push").when = vec![Mode::Test];
    let (resumed, end) = run.resume(state).await;
    assert_eq!(end, SessionEnd::Finished);
    assert_eq!(step_of(&resumed, "dune", "push").status, StepStatus::Failed);
}

#[tokio::test(start_paused = true)]
async fn a_step_that_the_workflow_of_the_session_does_not_have_says_so_and_blames_no_deadline() {
    let mut run = Run::of(&["dune"]);
    let state = begin(created(&run.workflow, &run.names(), run.mode));
    run.workflow.steps.retain(|step| step.name.as_str() != "store");
    let (state, _) = run.session(state).await;
    let store = step_of(&state, "dune", "store");
    assert_eq!(store.status, StepStatus::NotAttempted);
    assert_eq!(store.why.as_deref(), Some("the workflow of this session has no such step"));
    assert_eq!(step_of(&state, "dune", "push").status, StepStatus::Succeeded);
}
