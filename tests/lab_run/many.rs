//! With thousands of runs in the store.

use std::process::Stdio;

use jiff::{SignedDuration, Timestamp};
use managed_tokens::workflow::definition::{ForEach, Mode};
use managed_tokens::workflow::event::{Event, Fact, MachineEnd, RunCreated, Selection, SessionEnd, SessionStarted};
use managed_tokens::workflow::id::{ProcessId, RunId, Subject, WorkflowName};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::store::{Access, StateDir, Store, StoreError};
use nix::sys::signal::Signal;

use crate::support::corner::{Corner, Started, files_below, wait_for};
use crate::{DUNE, LAB};

const OLD: u32 = 300;
const NEW: u32 = 9_700;
/// So many runs in one transaction.
const BATCH: usize = 500;

/// A small run of dune that succeeded so long ago, with its whole history.
fn small_run(age: SignedDuration, number: u32) -> (RunState, Vec<Event>) {
    let at = Timestamp::now() - age;
    let milliseconds = u64::try_from(at.as_millisecond()).expect("after 1970");
    let subject = Subject::new(DUNE);
    let created = RunCreated {
        id: RunId(ulid::Ulid::from_parts(milliseconds, u128::from(number))),
        workflow: WorkflowName::new("token-push"),
        definition: "none".to_owned(),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        subjects: vec![subject.clone()],
        steps: Vec::new(),
        finally: Vec::new(),
    };
    let by = SessionStarted {
        process: ProcessId::generate(),
        host: "mt01".to_owned(),
        boot_id: "boot".to_owned(),
        pid: 1,
        start_ticks: None,
        trigger: "cron".to_owned(),
        trace: None,
    };
    let facts = [
        Fact::SessionStarted(by),
        Fact::MachineStarted { subject: subject.clone() },
        Fact::MachineEnded { subject, how: MachineEnd::Done },
        Fact::SessionEnded { how: SessionEnd::Finished },
    ];
    let mut events = vec![Event { seq: 0, at, session: 0, fact: Fact::RunCreated(created) }];
    let mut state = RunState::begin(&events[0]).expect("a beginning");
    for (seq, fact) in (1..).zip(facts) {
        let event = Event { seq, at, session: 1, fact };
        state.apply(&event).expect("a history");
        events.push(event);
    }
    (state, events)
}

/// Fills the corner's store through the library.
fn fill(corner: &Corner, ages: impl Iterator<Item = SignedDuration>) {
    std::fs::remove_dir(corner.state()).expect("it is empty");
    let state = StateDir::create(corner.state()).expect("its parent exists");
    let store = Store::open(&state, Access::ReadWrite).expect("a new store");
    let runs: Vec<_> = (0..).zip(ages).map(|(number, age)| small_run(age, number)).collect();
    for batch in runs.chunks(BATCH) {
        let batch = batch.to_vec();
        let written = store.write_blocking(move |tx| -> Result<(), StoreError> {
            for (state, events) in &batch {
                events.iter().try_for_each(|event| tx.append_event(state.run.id, event))?;
                tx.put_run(&state.run)?;
                state.machines.values().try_for_each(|machine| tx.put_machine(state.run.id, machine))?;
            }
            Ok(())
        });
        written.expect("it is written");
    }
    store.close();
    corner.give(&corner.state());
    files_below(&corner.state()).iter().for_each(|path| corner.give(path));
}

#[test]
fn with_ten_thousand_runs_in_the_store_a_run_can_be_listed_and_shown_while_it_goes_on_and_old_ones_pruned() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "many");
    let old = (0..OLD).map(|i| SignedDuration::from_hours(10 * 24) - SignedDuration::from_secs(i.into()));
    let new = (0..NEW).map(|i| SignedDuration::from_hours(3) - SignedDuration::from_secs(i.into()));
    fill(&corner, old.chain(new));

    let gate = corner.hold("rsync");
    let run = corner.start(&["run", "token-push", "-s", DUNE]);
    wait_for("both pushes", || corner.calls("rsync").len() == 2);
    let runs = corner.runs();
    assert_eq!((runs.len(), runs[0]["status"].as_str()), (20, Some("running")), "the newest twenty");
    let id = runs[0]["id"].as_str().expect("an id");
    assert_eq!(corner.show("latest")["id"], id);
    let shown = corner.show(runs[19]["id"].as_str().expect("an id"));
    assert_eq!((&shown["status"], &shown["machines"][0]["status"]), (&runs[19]["status"], &runs[19]["status"]));
    let since = corner.run(&["runs", "list", "--since", "1d", "--limit", "20000", "--output", "ndjson"]).exits(0);
    assert_eq!(since.out.lines().count(), NEW as usize + 1);
    gate.open();
    // A busy machine may be too slow for the metrics, which is a warning; the run is fine all the same.
    run.end().exits(0);

    // A reader that goes away early is no error.
    let mut reader = corner.mt(&["runs", "list", "--limit", "20000"]).stdout(Stdio::piped()).spawn().expect("lab/lab");
    drop(reader.stdout.take());
    assert!(reader.wait().expect("it is our child").success());

    let prune = |more: &[&str]| corner.run(&[&["runs", "prune", "--keep", "1d"], more].concat()).exits(0).out;
    let kept = NEW + 1;
    assert_eq!(prune(&["--dry-run"]), format!("would remove {OLD} runs, kept {kept}\n"));
    assert_eq!(prune(&[]), format!("removed {OLD} runs, kept {kept}\n"), "the dry run has removed nothing");
    assert_eq!(prune(&[]), format!("removed 0 runs, kept {kept}\n"));
    assert_eq!(corner.show("latest")["id"], id);
}

#[test]
fn a_run_that_is_told_to_stop_leaves_old_runs_to_the_next_one() {
    let Some(lab) = &*LAB else { return };
    let corner = Corner::new(lab, "stopped-pruning");
    // The newest fifty stay, however old.
    let old = (0..60).map(|i| SignedDuration::from_hours(40 * 24) - SignedDuration::from_secs(i));
    fill(&corner, old);
    let count = || {
        let listed = corner.run(&["runs", "list", "--limit", "1000", "--output", "ndjson"]).exits(0);
        listed.out.lines().count()
    };
    let held = |stop: &dyn Fn(&Started), code: i32| {
        let gate = corner.hold("rsync");
        let before = corner.calls("rsync").len();
        let run = corner.start(&["run", "token-push", "-s", DUNE, "--new"]);
        wait_for("both pushes", || corner.calls("rsync").len() == before + 2);
        stop(&run);
        run.end().exits(code);
        gate.open();
    };
    held(&|run| run.signal(Signal::SIGTERM), 143);
    assert_eq!(count(), 61);
    held(&|_| drop(corner.run(&["runs", "cancel", "latest"]).exits(0)), 11);
    assert_eq!(count(), 62);
    corner.run(&["run", "token-push", "-s", DUNE, "--new"]).is_quiet();
    assert_eq!(count(), 50);
}
