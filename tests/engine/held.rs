//! Subjects that another run holds.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_subject_that_another_run_holds_is_skipped_and_the_other_run_is_named() {
    let run = Run::of(&["dune", "mu2e"]);
    let other = RunId::generate();
    let lease =
        Leases::new(run.leases.path()).take(&Subject::new("dune"), other, ProcessId::generate()).unwrap().unwrap();
    let (state, _) = run.go().await;
    let dune = &state.machines[&Subject::new("dune")];
    assert_eq!((dune.status, dune.other_run), (MachineStatus::Skipped, Some(other)));
    assert_eq!(state.machines[&Subject::new("mu2e")].status, MachineStatus::Succeeded);
    drop(lease);
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_another_run_holds_is_waited_for_where_the_workflow_says_so() {
    let mut run = Run::of(&["dune"]);
    run.workflow.overlap = Overlap::Wait(Duration::from_secs(120));
    let lease = Leases::new(run.leases.path())
        .take(&Subject::new("dune"), RunId::generate(), ProcessId::generate())
        .unwrap()
        .unwrap();
    tokio::spawn(async move {
        tokio::time::sleep(60 * SECOND).await;
        drop(lease);
    });
    let (state, _) = run.go().await;
    assert_eq!(state.run.status, RunStatus::Succeeded);
}

/// A run that waits two minutes for the subject that another one holds, and whose work is over after twenty seconds.
fn waiting(subject: &str) -> (Run, RunId, managed_tokens::workflow::lease::Lease) {
    let mut run = Run::of(&[subject]);
    run.workflow.overlap = Overlap::Wait(120 * SECOND);
    run.workflow.deadline = 40 * SECOND;
    run.workflow.reserve = 20 * SECOND;
    let other = RunId::generate();
    let lease = Leases::new(run.leases.path()).take(&Subject::new(subject), other, ProcessId::generate());
    (run, other, lease.unwrap().unwrap())
}

#[tokio::test(start_paused = true)]
async fn whoever_has_waited_long_enough_for_a_subject_leaves_it_to_the_run_that_holds_it() {
    let (mut run, other, _lease) = waiting("dune");
    run.workflow.overlap = Overlap::Wait(10 * SECOND);
    let began = tokio::time::Instant::now();
    let (state, end) = run.go().await;
    assert!((10 * SECOND..20 * SECOND).contains(&began.elapsed()), "{:?}", began.elapsed());
    let dune = &state.machines[&Subject::new("dune")];
    assert_eq!((dune.status, dune.other_run), (MachineStatus::Skipped, Some(other)));
    assert_eq!((state.run.status, end), (RunStatus::Skipped, SessionEnd::Finished));
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_another_run_holds_until_the_deadline_has_timed_out() {
    let (run, _, lease) = waiting("dune");
    let (state, end) = run.go().await;
    let dune = &state.machines[&Subject::new("dune")];
    assert_eq!((dune.status, dune.other_run), (MachineStatus::TimedOut, None));
    assert_eq!((state.run.status, end), (RunStatus::TimedOut, SessionEnd::Finished));
    assert!(statuses(&state, "dune").values().all(|status| *status == StepStatus::NotAttempted));
    assert_eq!(run.stage.calls_of("kinit"), [], "nobody works on what another run holds");
    assert_eq!(run.stage.calls_of("notify").len(), 1, "people are told in the reserve");
    let setup = &verdicts(dune, &state.run.plan)[0];
    assert_eq!((setup.0.target.as_ref(), setup.1), (None, Verdict::Failed), "a setup that never had its turn");
    drop(lease);
    assert_eq!(run.resume(state).await.0.run.status, RunStatus::Succeeded);
}

#[tokio::test(start_paused = true)]
async fn one_that_has_failed_before_and_is_held_until_the_deadline_keeps_its_outcome() {
    let mut run = Run::of(&["dune"]);
    run.stage.play("dune", "push", "node1", &[Play::Fail(Class::Permanent, SECOND)]);
    let (failed, _) = run.go().await;
    let (waiting, _, _lease) = waiting("dune");
    (run.workflow, run.leases) = (waiting.workflow, waiting.leases);
    let (state, end) = run.resume(failed.clone()).await;
    assert_eq!((state.run.status, end), (RunStatus::Failed, SessionEnd::Finished));
    assert_eq!(state.machines, failed.machines);
}

#[tokio::test(start_paused = true)]
async fn a_signal_while_a_subject_is_waited_for_leaves_it_to_the_resume() {
    let (run, _, lease) = waiting("dune");
    let state = run.stopped_after(10 * SECOND).await;
    assert_eq!(state.run.status, RunStatus::Interrupted);
    assert_eq!(state.machines[&Subject::new("dune")].status, MachineStatus::Pending);
    assert_eq!(run.stage.calls_of("notify").len(), 0);
    drop(lease);
    assert_eq!(run.resume(state).await.0.run.status, RunStatus::Succeeded);
}

#[tokio::test]
async fn a_signal_waits_for_no_burial_and_leaves_it_to_the_next() {
    let run = Run::of(&["dune"]);
    let dead = ProcessId::generate();
    let lease = run.leases.path().join("dune");
    std::fs::write(&lease, format!("{} {dead}\n", RunId::generate())).unwrap();
    let recorder =
        Arc::new(Recorder::unrecorded(begin(created(&run.workflow, &run.names(), run.mode)), "a test", None));
    let mut plan = plan(&run.workflow, &run.stage, &run.names(), run.leases.path());
    let (over, hears_of_it) = std::sync::mpsc::channel::<()>();
    let (stop, hears_of_it) = (plan.stop.clone(), std::sync::Mutex::new(hears_of_it));
    plan.leases = plan.leases.burying(Arc::new(move |_| {
        stop.cancel();
        // Until the session has ended; the time is for a broken promise only.
        let _ = hears_of_it.lock().unwrap().recv_timeout(60 * SECOND);
    }));
    let began = std::time::Instant::now();
    drive(recorder.clone(), plan).await.unwrap();
    assert!(began.elapsed() < 50 * SECOND, "it has waited for the burial");
    drop(over);
    assert_eq!(recorder.with(|state| state.run.status), RunStatus::Interrupted);
    assert_eq!(run.stage.calls_of("kinit"), []);
    assert!(std::fs::read_to_string(&lease).unwrap().contains(&dead.to_string()), "who comes next buries it");
}

#[tokio::test(start_paused = true)]
async fn a_subject_that_cannot_be_locked_is_worked_on_all_the_same() {
    let run = Run::of(&["dune", "mu2e"]);
    std::fs::create_dir(run.leases.path().join("dune")).unwrap();
    let (state, _) = run.go().await;
    assert_eq!(state.run.status, RunStatus::Succeeded);
    assert_eq!(run.stage.calls_of("kinit").len(), 2);
}

#[tokio::test(start_paused = true)]
async fn all_subjects_held_by_others_make_the_run_skipped() {
    let run = Run::of(&["dune"]);
    let _lease = Leases::new(run.leases.path())
        .take(&Subject::new("dune"), RunId::generate(), ProcessId::generate())
        .unwrap()
        .unwrap();
    assert_eq!(run.go().await.0.run.status, RunStatus::Skipped);
}
