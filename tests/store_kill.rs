//! A kill at every rename of an import and of a compaction: what was there before is there still, or the store says that it
//! is damaged and an import mends it. Never is the place taken for one where nothing has been.

#[path = "store_support/past.rs"]
mod past;
mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};

use managed_tokens::crash_point::{self, CrashPoint};
use managed_tokens::workflow::id::RunId;
use managed_tokens::workflow::store::{
    self, Access, From, ImportError, ImportOrder, Options, StateDir, Store, StoreError,
};
use store_support::{id, raise, writer};
use tempfile::TempDir;

fn n_th(n: u64) -> RunId {
    id(1_700_000_000_000 + n, u128::from(n) << 40)
}

/// In the store, and in the export: one run is not in it.
const RUNS: u64 = 6;
const EXPORTED: u64 = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Import,
    Replace,
    Compact,
    /// Of a store that looks damaged.
    Open,
}

/// What is done to a store, in which condition it is before, and how it comes to be so.
type Case = (Deed, &'static str, fn(&StateDir));

const CASES: &[Case] = &[
    (Deed::Import, "an empty db", |state| fs::write(state.store().join("db"), "").unwrap()),
    (Deed::Import, "no store.json", |state| fs::remove_file(state.sidecar()).unwrap()),
    (Deed::Import, "half a store.json", |state| fs::write(state.sidecar(), "{\"form").unwrap()),
    (Deed::Import, "no store", |state| fs::remove_dir_all(state.store()).unwrap()),
    (Deed::Replace, "a whole store", |_| {}),
    (Deed::Compact, "a whole store", |_| {}),
    (Deed::Open, "no snapshot", |state| {
        for entry in fs::read_dir(state.store()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                fs::remove_file(entry.path()).unwrap();
            }
        }
    }),
];

fn order(directory: &Path, replace: bool) -> ImportOrder {
    let from = From::File { path: directory.join("export"), partial: false };
    ImportOrder { from, uids: BTreeMap::new(), replace }
}

#[test]
#[ignore = "the other test starts it"]
fn the_part_of_a_copy_of_this_program() {
    let directory = PathBuf::from(std::env::var_os("DIR").expect("where"));
    let state = StateDir::existing(directory.join("state")).unwrap();
    crash_point::arm();
    match std::env::var("DEED").expect("what").as_str() {
        "Compact" => drop(store::compact(&state, &Options::default()).unwrap().expect("there is a store")),
        "Open" => writer(&state).close(),
        deed => drop(store::import(&state, &order(&directory, deed == "Replace"), &Options::default()).unwrap()),
    }
}

fn act(directory: &Path, deed: Deed, variable: (&str, &str)) -> ExitStatus {
    let mut copy = Command::new(std::env::current_exe().unwrap());
    copy.args(["--exact", "the_part_of_a_copy_of_this_program", "--ignored", "--nocapture"]);
    copy.env("DIR", directory).env("DEED", format!("{deed:?}")).env(variable.0, variable.1);
    let output = copy.output().unwrap();
    let killed = output.status.signal() == Some(9);
    assert!(output.status.success() || killed, "{}", String::from_utf8_lossy(&output.stderr));
    output.status
}

/// What anybody finds who opens the store.
fn found(state: &StateDir) -> Result<BTreeSet<RunId>, StoreError> {
    let store = Store::open(state, Access::ReadWrite)?;
    let runs = store.read_blocking(|view| view.newest_runs(usize::MAX)).unwrap().unwrap();
    raise(&store, "n").unwrap();
    store.close();
    Ok(runs.into_iter().map(|run| run.id).collect())
}

fn logs(state: &StateDir) -> Vec<Vec<u8>> {
    let stores = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().path());
    stores.filter_map(|store| fs::read(store.join("db")).ok()).collect()
}

fn copied(from: &Path) -> (TempDir, StateDir) {
    let tmp = tempfile::tempdir().unwrap();
    let done = Command::new("cp").arg("-a").arg(from.join("state")).arg(from.join("export")).arg(tmp.path()).status();
    assert!(done.unwrap().success());
    let state = StateDir::existing(tmp.path().join("state")).unwrap();
    (tmp, state)
}

#[test]
fn a_kill_at_any_rename_of_an_import_or_a_compaction_never_leaves_a_store_that_is_silently_empty() {
    let (tmp, state) = store_support::state();
    let store = writer(&state);
    past::fill(&store, 0..EXPORTED, 3, n_th);
    let mut file = fs::File::create(tmp.path().join("export")).unwrap();
    store.export(&mut file).unwrap();
    past::fill(&store, EXPORTED..RUNS, 3, n_th);
    store.close();
    let (all, exported): (BTreeSet<_>, BTreeSet<_>) =
        ((0..RUNS).map(n_th).collect(), (0..EXPORTED).map(n_th).collect());

    let mut kills = 0;
    for (deed, condition, bring_about) in CASES {
        let (begin, begun) = copied(tmp.path());
        bring_about(&begun);
        let before = fs::read(begun.store().join("db")).ok();
        let (undisturbed, _) = copied(begin.path());
        let log = undisturbed.path().join("passed");
        assert!(act(undisturbed.path(), *deed, ("MT_CRASH_LOG", log.to_str().unwrap())).success());
        let mut passed: BTreeMap<CrashPoint, usize> = BTreeMap::new();
        for name in fs::read_to_string(&log).unwrap().lines() {
            *passed.entry(CrashPoint::of_name(name).unwrap()).or_default() += 1;
        }
        let renames = match deed {
            Deed::Import | Deed::Replace => CrashPoint::StoreAsideAfter,
            Deed::Compact => CrashPoint::StoreExchangeAfter,
            Deed::Open => CrashPoint::StoreCopied,
        };
        assert!(passed.contains_key(&renames), "{passed:?}");

        for (point, nth) in passed.iter().flat_map(|(point, times)| (1..=*times).map(|nth| (*point, nth))) {
            let what = format!("{deed:?} with {condition}, killed at {}:{nth}", point.name());
            let (directory, state) = copied(begin.path());
            let status = act(directory.path(), *deed, ("MT_CRASH_AT", &format!("{}:{nth}", point.name())));
            assert_eq!(status.signal(), Some(9), "{what}");
            kills += 1;
            let found_then = found(&state);
            match (deed, &found_then) {
                (Deed::Compact | Deed::Open, Ok(runs)) => assert_eq!(*runs, all, "{what}"),
                (Deed::Import, Ok(runs)) => assert_eq!(*runs, exported, "{what}"),
                (Deed::Replace, Ok(runs)) => assert!(*runs == all || *runs == exported, "{what}: {runs:?}"),
                (Deed::Import | Deed::Replace, Err(StoreError::Damaged { .. })) => {}
                (_, Err(other)) => panic!("{what}: {other}"),
            }
            for left in ["store.copy", "store.new"] {
                assert!(found_then.is_err() || !state.path().join(left).exists(), "{what}: {left} stays");
            }
            if matches!(deed, Deed::Compact | Deed::Open) {
                assert!(store::verify(&state, &Options::default()).unwrap().is_whole(), "{what}");
                continue;
            }
            match store::import(&state, &order(directory.path(), *deed == Deed::Replace), &Options::default()) {
                Ok(_) => {}
                Err(ImportError::InUse { .. }) if found_then.is_ok() => {}
                Err(error) => panic!("{what}: {error}"),
            }
            assert_eq!(found(&state).unwrap(), exported, "{what}");
            // sled has room for more at the end of its log than what it found there.
            let kept = before.as_ref().is_none_or(|old| logs(&state).iter().any(|log| log.starts_with(old)));
            assert!(kept || *deed == Deed::Replace, "{what}: the store of before is gone");
        }
    }
    println!("{kills} kills");
    assert!(kills > 25, "{kills}");
}
