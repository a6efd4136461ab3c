use std::sync::Mutex;

use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::cli::samples;

/// Three runs that nobody has ended: of now, of yesterday, of last week.
fn history() -> (tempfile::TempDir, Store, [RunId; 3]) {
    let directory = tempfile::tempdir().unwrap();
    let state = StateDir::create(directory.path().join("state")).unwrap();
    let store = Store::open(&state, Access::ReadWrite).unwrap();
    let ids = [0, 1, 7].map(|days| {
        let at = Timestamp::now() - SignedDuration::from_hours(24 * days);
        let id = RunId(ulid::Ulid::from_parts(at.as_millisecond().unsigned_abs(), 1));
        let mut run = samples::state(RunStatus::Running, None, Vec::new()).run;
        (run.id, run.started_at) = (id, at);
        run.sessions[0].by.process = ProcessId(id.0);
        store.write_blocking(move |tx| tx.put_run(&run)).unwrap();
        id
    });
    (directory, store, ids)
}

/// The runs that the filter lets through, and those that were looked at.
fn listed(filter: Filter) -> (Vec<RunId>, Vec<RunId>, [RunId; 3]) {
    let (_directory, store, ids) = history();
    let looked_at: Arc<Mutex<Vec<RunId>>> = Arc::default();
    let seen = looked_at.clone();
    let is_dead: IsDead = Arc::new(move |process| {
        seen.lock().unwrap().push(RunId(process.0));
        false
    });
    let found = store.read_blocking(move |view| rows(view, &is_dead, &filter)).unwrap().unwrap();
    let looked_at = looked_at.lock().unwrap().clone();
    (found.into_iter().map(|row| row.run.id).collect(), looked_at, ids)
}

#[test]
fn a_list_since_a_time_looks_at_no_run_before_it() {
    let since = Timestamp::now() - SignedDuration::from_hours(36);
    let (found, looked_at, [now, yesterday, _]) = listed(Filter { since: Some(since), ..Filter::default() });
    assert_eq!((found, looked_at), (vec![now, yesterday], vec![now, yesterday]));
}

#[test]
fn a_list_with_a_limit_looks_at_no_run_behind_it() {
    let (found, looked_at, [now, ..]) = listed(Filter { limit: Some(1), ..Filter::default() });
    assert_eq!((found, looked_at), (vec![now], vec![now]));
    let (found, looked_at, all) = listed(Filter::default());
    assert_eq!((found, looked_at), (all.to_vec(), all.to_vec()));
}

fn ourselves() -> SessionStarted {
    here::session(ProcessId::generate(), "a test".to_owned(), None)
}

#[test]
fn a_pid_that_went_to_another_process_is_not_signalled() {
    // SIGTERM would end this test.
    let ours = ourselves();
    let later = SessionStarted { start_ticks: ours.start_ticks.map(|ticks| ticks - 1), ..ours.clone() };
    assert!(!tell_to_stop(RunId::generate(), &later).unwrap());
    let before_the_boot = SessionStarted { boot_id: "another".to_owned(), ..ours };
    assert!(!tell_to_stop(RunId::generate(), &before_the_boot).unwrap());
}

#[test]
fn a_process_that_cannot_be_told_apart_is_left_to_a_person() {
    let refused = |by: SessionStarted| tell_to_stop(RunId::generate(), &by).unwrap_err().render();
    let unknown = refused(SessionStarted { start_ticks: None, ..ourselves() });
    assert!(unknown.contains("MT0004") && unknown.contains("kill"), "{unknown}");
    let far = refused(SessionStarted { host: "elsewhere".to_owned(), ..ourselves() });
    assert!(far.contains("on elsewhere: mt runs cancel"), "{far}");
}
