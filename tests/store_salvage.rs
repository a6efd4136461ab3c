//! Out of a damaged store everything is saved that is left, and what is lost is named. Nothing is ever silently empty.

#[path = "store_support/past.rs"]
mod past;
mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use managed_tokens::workflow::id::RunId;
use managed_tokens::workflow::store::{
    self, Access, From, ImportError, ImportOrder, Imported, KnownUid, Options, Shelf, StateDir, Store, StoreError,
    Tree, of_run,
};
use proptest::prelude::*;
use store_support::{content, fresh, id, raise, reader, run, state, writer};
use tempfile::TempDir;

/// No store has so much room: it is not opened by sled, but read without it.
fn without_sled() -> Options {
    Options { min_free: u64::MAX, ..Options::default() }
}

fn export(state: &StateDir, options: &Options) -> (store::Exported, Vec<String>) {
    let (exported, text) = store::export(state, options, || Ok(Vec::new())).unwrap();
    (exported, String::from_utf8(text).unwrap().lines().map(str::to_owned).collect())
}

/// An export without what says when and from where it is.
fn records(lines: &[String]) -> BTreeSet<String> {
    let inner = &lines[1..lines.len() - 1];
    let set: BTreeSet<String> = inner.iter().cloned().collect();
    assert_eq!(set.len(), inner.len(), "a record is there twice");
    set
}

fn order(file: &Path) -> ImportOrder {
    ImportOrder { from: From::File { path: file.to_owned(), partial: false }, uids: BTreeMap::new(), replace: false }
}

fn empty() -> ImportOrder {
    ImportOrder { from: From::Empty, uids: BTreeMap::new(), replace: false }
}

fn import(state: &StateDir, order: &ImportOrder) -> Imported {
    store::import(state, order, &Options::default()).unwrap_or_else(|error| panic!("{error}"))
}

fn verify(state: &StateDir) -> store::Verification {
    store::verify(state, &Options::default()).unwrap()
}

fn n_th(n: u64) -> RunId {
    id(1_700_000_000_000 + n, u128::from(n) << 40)
}

const RUNS: u64 = 40;

/// A store with runs of the past, UIDs, counters and messages, of some megabytes, closed in good order.
fn lived_in() -> (TempDir, StateDir) {
    let (tmp, state) = state();
    let store = writer(&state);
    past::fill(&store, 0..RUNS, 20, n_th);
    store
        .write_blocking(|tx| -> Result<(), StoreError> {
            for n in 0..30 {
                tx.put_uid(&format!("account{n}"), KnownUid { uid: 1000 + n, recorded_at: jiff::Timestamp::now() })?;
                tx.put(Shelf::Outbox, &of_run(n_th(u64::from(n)), "admins"), &"a message")?;
            }
            Ok(())
        })
        .unwrap();
    store.close();
    (tmp, state)
}

fn run_ids(state: &StateDir) -> BTreeSet<RunId> {
    let store = reader(state);
    let runs = store.read_blocking(|view| view.newest_runs(usize::MAX)).unwrap().unwrap();
    store.close();
    runs.into_iter().map(|run| run.id).collect()
}

#[derive(Clone, Debug)]
enum Deed {
    Put(usize, u8, String),
    Remove(usize, u8),
    /// Big enough for a file of its own.
    Big(u8),
    Runs(u64),
    Reopen,
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        8 => (0..2_usize, any::<u8>(), ".{0,300}").prop_map(|(shelf, key, value)| Deed::Put(shelf, key, value)),
        4 => (0..2_usize, any::<u8>()).prop_map(|(shelf, key)| Deed::Remove(shelf, key)),
        1 => any::<u8>().prop_map(Deed::Big),
        2 => (0..40_u64).prop_map(Deed::Runs),
        1 => Just(Deed::Reopen),
    ]
}

const SHELVES: [Shelf; 2] = [Shelf::Outbox, Shelf::Metrics];

type Change = Box<dyn FnOnce(&mut store::Tx<'_>) -> Result<(), StoreError> + Send>;

fn act(store: Store, state: &StateDir, deed: Deed) -> Store {
    let write = |change: Change| {
        store.write_blocking(move |tx| change(tx)).unwrap();
    };
    match deed {
        Deed::Put(shelf, key, value) => {
            write(Box::new(move |tx| tx.put(SHELVES[shelf], &format!("some/common/beginning/{key}"), &value)));
        }
        Deed::Remove(shelf, key) => write(Box::new(move |tx| {
            tx.remove(SHELVES[shelf], &format!("some/common/beginning/{key}"));
            Ok(())
        })),
        Deed::Big(key) => {
            write(Box::new(move |tx| tx.put(Shelf::Metrics, &format!("big{key}"), &"x".repeat(200_000))));
        }
        Deed::Runs(n) => past::fill_new(&store, n, n_th),
        Deed::Reopen => {
            store.close();
            return writer(state);
        }
    }
    store
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn what_is_read_without_sled_is_what_sled_reads_and_an_import_gives_it_back(
        deeds in prop::collection::vec(deed(), 1..60)
    ) {
        let (tmp, state) = state();
        let mut store = writer(&state);
        for deed in deeds {
            store = act(store, &state, deed);
        }
        store.close();
        let (by_sled, lines) = export(&state, &Options::default());
        prop_assert_eq!(by_sled.salvaged, None);
        let before = content(&state.store());
        let (read, found) = export(&state, &without_sled());
        prop_assert!(read.salvaged.is_some());
        prop_assert_eq!(read.missing, Vec::<String>::new());
        prop_assert_eq!(records(&found), records(&lines));
        prop_assert!(content(&state.store()) == before, "reading has changed something");

        let file = tmp.path().join("export");
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        let (_other_tmp, other) = store_support::state();
        let imported = import(&other, &order(&file));
        prop_assert_eq!(imported.records, by_sled.records);
        prop_assert_eq!(imported.mended, vec![]);
        prop_assert_eq!(records(&export(&other, &Options::default()).1), records(&lines));
        prop_assert!(verify(&other).is_whole());
    }
}

/// What is done to a store, by name.
type Damage = (&'static str, fn(&StateDir));

fn db(state: &StateDir) -> PathBuf {
    state.store().join("db")
}

fn cut(state: &StateDir, percent: u64) {
    let length = fs::metadata(db(state)).unwrap().len();
    OpenOptions::new().write(true).open(db(state)).unwrap().set_len(length * percent / 100).unwrap();
}

fn remove_snapshots(state: &StateDir) {
    for entry in fs::read_dir(state.store()).unwrap().flatten() {
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn noise(length: usize) -> Vec<u8> {
    let mut x = 0x2545_f491_4f6c_dd1d_u64;
    let next = |_| {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        x as u8
    };
    (0..length).map(next).collect()
}

fn scribble(state: &StateDir, from_percent: u64, percent: u64) {
    let length = fs::metadata(db(state)).unwrap().len();
    let noise = noise((length * percent / 100) as usize);
    let file = OpenOptions::new().write(true).open(db(state)).unwrap();
    file.write_all_at(&noise, length * from_percent / 100).unwrap();
}

const DAMAGES: &[Damage] = &[
    ("db cut to 0 %", |s| cut(s, 0)),
    ("db cut to 10 %", |s| cut(s, 10)),
    ("db cut to 50 %", |s| cut(s, 50)),
    ("db cut to 90 %", |s| cut(s, 90)),
    ("db cut to 99 %", |s| cut(s, 99)),
    ("db cut to 50 %, no snapshot", |s| {
        cut(s, 50);
        remove_snapshots(s);
    }),
    ("db cut to 90 %, no snapshot", |s| {
        cut(s, 90);
        remove_snapshots(s);
    }),
    ("random bytes in place of all", |s| scribble(s, 0, 100)),
    ("random bytes at the beginning", |s| scribble(s, 0, 10)),
    ("random bytes in the middle", |s| scribble(s, 45, 10)),
    ("random bytes in the middle, no snapshot", |s| {
        scribble(s, 45, 10);
        remove_snapshots(s);
    }),
    ("random bytes at the end", |s| scribble(s, 90, 10)),
    ("no db", |s| fs::remove_file(db(s)).unwrap()),
    ("no conf", |s| fs::remove_file(s.store().join("conf")).unwrap()),
    ("no blobs", |s| fs::remove_dir_all(s.store().join("blobs")).unwrap()),
    ("no store.json", |s| fs::remove_file(s.sidecar()).unwrap()),
    ("half a store.json", |s| fs::write(s.sidecar(), "{\"form").unwrap()),
    ("no directory", |s| fs::remove_dir_all(s.store()).unwrap()),
    ("an empty directory", |s| {
        fs::remove_dir_all(s.store()).unwrap();
        fs::create_dir(s.store()).unwrap();
    }),
    ("half a snapshot", |s| {
        for entry in fs::read_dir(s.store()).unwrap().flatten() {
            if entry.file_name().to_string_lossy().starts_with("snap.") {
                let text = fs::read(entry.path()).unwrap();
                fs::write(entry.path(), &text[..text.len() / 2]).unwrap();
            }
        }
    }),
];

#[test]
fn whatever_is_damaged_is_noticed_kept_and_saved_as_far_as_it_can_be() {
    let (tmp, lived) = lived_in();
    let all = run_ids(&lived);
    assert!(verify(&lived).is_whole(), "{:?}", verify(&lived));
    for (n, (name, damage)) in DAMAGES.iter().enumerate() {
        let path = tmp.path().join(format!("state-{n}"));
        let copied = std::process::Command::new("cp").arg("-a").args([lived.path(), &path]).status().unwrap();
        assert!(copied.success());
        let state = StateDir::existing(&path).unwrap();
        damage(&state);

        let since = std::time::Instant::now();
        let damaged = content(&path);
        let opened = Store::open(&state, Access::ReadWrite).and_then(|store| {
            let runs = store.read_blocking(|view| view.newest_runs(usize::MAX)).and_then(|runs| runs);
            store.close();
            runs
        });
        let found = verify(&state);
        let outcome = match &opened {
            // sled has mended it from what it had left.
            Ok(runs) => {
                assert_eq!(runs.len() as u64, RUNS, "{name}: runs are missing, and nobody has said so");
                assert!(found.is_whole(), "{name}: {found:?}");
                "nothing is lost".to_owned()
            }
            Err(StoreError::Damaged { .. }) => {
                assert!(!found.is_whole(), "{name}: {found:?}");
                format!("{} runs whole, {} not", found.whole_runs, found.damaged_runs.len())
            }
            Err(other) => panic!("{name}: {other}"),
        };

        let (exported, lines) = export(&state, &Options::default());
        let file = path.join("export");
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        let again = store::import(&state, &order(&file), &Options::default());
        if opened.is_ok() {
            assert!(matches!(again, Err(ImportError::InUse { .. })), "{name}: a whole store is replaced");
            eprintln!("{name}: {outcome}");
            continue;
        }
        let imported = again.unwrap_or_else(|error| panic!("{name}: {error}"));
        let saved = run_ids(&state);
        eprintln!(
            "{name}: {outcome}; {} runs saved, {} mended; {:.1?}; missing: {:?}",
            saved.len(),
            imported.mended.len(),
            since.elapsed(),
            exported.missing
        );
        assert!(saved.is_subset(&all), "{name}");
        assert_eq!(imported.runs, saved.len(), "{name}");
        let after = verify(&state);
        let not_rebuilt = after.damaged_runs.len();
        assert!(after.unusable.is_none() && after.trees.iter().all(|tree| tree.unreadable == 0), "{name}: {after:?}");
        assert!(not_rebuilt <= imported.mended.len(), "{name}: {after:?}");
        // All that is lost has been named: nobody takes what is left for all there was.
        if saved.len() < all.len() {
            assert!(
                !exported.missing.is_empty() || !found.damaged_runs.is_empty() || !found.trouble.is_empty(),
                "{name}"
            );
        }
        // The damaged one is kept, byte for byte where sled did not get to it.
        let aside = imported.aside.unwrap_or_else(|| panic!("{name}: nothing was put aside"));
        assert!(aside.exists(), "{name}");
        assert!(aside.file_name().unwrap().to_string_lossy().starts_with("store.damaged-"), "{name}");
        if let Some(before) = damaged.get(&db(&state).display().to_string()) {
            let kept = fs::read(aside.join("db")).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(
                kept.len() >= before.len() && kept[..before.len()] == before[..],
                "{name}: the damaged log was changed"
            );
        }
        // And the store is in use again.
        let store = writer(&state);
        raise(&store, "n").unwrap();
        store.close();
    }
}

/// sled zeroes what lies behind the first thing in its log that it cannot read: it must not get to do so.
#[test]
fn one_wrong_byte_anywhere_in_the_log_costs_no_more_than_what_it_is_in() {
    let (tmp, lived) = state();
    let store = writer(&lived);
    past::fill(&store, 0..12, 10, n_th);
    store.close();
    let written = fs::read(db(&lived)).unwrap().iter().rposition(|byte| *byte != 0).unwrap();
    let mut saved_of_all = 0;
    for part in 0..12 {
        let path = tmp.path().join(format!("state-{part}"));
        assert!(std::process::Command::new("cp").arg("-a").args([lived.path(), &path]).status().unwrap().success());
        let state = StateDir::existing(&path).unwrap();
        let at = written * (2 * part + 1) / 24;
        let mut log = fs::read(db(&state)).unwrap();
        log[at] ^= 0x40;
        fs::write(db(&state), &log).unwrap();

        let error = Store::open(&state, Access::ReadWrite).expect_err("it is damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "byte {at}: {error}");
        assert!(fs::read(db(&state)).unwrap() == log, "byte {at}: the damaged log was changed");
        let (exported, lines) = export(&state, &Options::default());
        assert!(!exported.missing.is_empty(), "byte {at}: nothing is said to be missing");
        let file = path.join("export");
        fs::write(&file, lines.join("\n") + "\n").unwrap();
        import(&state, &order(&file));
        saved_of_all += run_ids(&state).len();
    }
    eprintln!("{saved_of_all} of {} runs", 12 * 12);
    assert!(saved_of_all > 12 * 12 / 2, "{saved_of_all}");
}

#[test]
fn a_whole_store_is_never_replaced_by_mistake() {
    let (tmp, state) = lived_in();
    let before = run_ids(&state);
    for from in [&empty(), &order(&tmp.path().join("none"))] {
        let refused = store::import(&state, from, &Options::default()).unwrap_err();
        assert!(matches!(&refused, ImportError::InUse { runs: 40, uids: 30, .. }), "{refused}");
        assert!(refused.to_string().contains("--replace"), "the way out is missing: {refused}");
    }
    assert_eq!(run_ids(&state), before);
    let done = import(&state, &ImportOrder { replace: true, ..empty() });
    assert!(run_ids(&state).is_empty());
    let aside = done.aside.unwrap();
    assert!(aside.to_string_lossy().contains("store.replaced-"));
    assert!(aside.join("db").exists() && aside.with_extension("json").exists());
}

#[test]
fn a_file_that_is_no_whole_export_changes_nothing() {
    let (tmp, lived) = lived_in();
    let (exported, lines) = export(&lived, &Options::default());
    let file = tmp.path().join("export");
    let attempt = |text: String, partial: bool| {
        fs::write(&file, text).unwrap();
        let (tmp, state) = state();
        let from = From::File { path: file.clone(), partial };
        let done = store::import(&state, &ImportOrder { from, ..empty() }, &Options::default());
        assert_eq!(done.is_ok(), state.store().exists(), "a store was left");
        (tmp, state, done)
    };
    let text = lines.join("\n") + "\n";
    let (.., refused) = attempt(String::new(), false);
    assert!(matches!(refused, Err(ImportError::Strange { line: 1, .. })), "{refused:?}");
    let (.., refused) = attempt("{}\n".to_owned(), false);
    assert!(matches!(refused, Err(ImportError::Strange { line: 1, .. })), "{refused:?}");
    let (.., refused) = attempt(text.replacen("\"format\":1", "\"format\":99", 1), false);
    assert!(matches!(refused, Err(ImportError::Newer { format: 99, .. })), "{refused:?}");
    let (.., refused) = attempt(text.replacen("\"tree\":\"runs\"", "\"tree\":\"trees\"", 1), false);
    assert!(matches!(refused, Err(ImportError::Strange { .. })), "{refused:?}");
    let without_one = [&lines[..5], &lines[6..]].concat().join("\n") + "\n";
    let (.., refused) = attempt(without_one, false);
    assert!(matches!(refused, Err(ImportError::Strange { .. })), "{refused:?}");
    // A line that was damaged, in a file that is all there.
    let damaged = text.replacen("\"tree\":\"events\"", "\"tree\";\"events\"", 2);
    let (.., refused) = attempt(damaged.clone(), false);
    assert!(refused.as_ref().is_err_and(|error| error.to_string().contains("--partial")), "{refused:?}");
    let (_tmp, _state, done) = attempt(damaged, true);
    let done = done.unwrap();
    assert_eq!(done.records, exported.records - 2);
    assert!(done.missing.iter().any(|what| what.starts_with("2 lines of the export cannot be read")), "{done:?}");
    let (.., done) = attempt(lines.join("\n"), false);
    assert!(done.is_ok(), "the newline at the end alone is missing: {done:?}");
    for percent in [10, 50, 99] {
        let cut = text[..text.len() * percent / 100].to_owned();
        let (.., refused) = attempt(cut.clone(), false);
        assert!(matches!(refused, Err(ImportError::CutOff { .. })), "{refused:?}");
        let (_tmp, state, done) = attempt(cut, true);
        let done = done.unwrap();
        assert!(done.records < exported.records && !done.missing.is_empty(), "{done:?}");
        let after = verify(&state);
        assert!(after.unusable.is_none(), "{after:?}");
    }
}

#[test]
fn a_run_is_made_anew_from_its_history_as_far_as_that_goes() {
    let (_tmp, whole) = state();
    let store = writer(&whole);
    past::fill(&store, 0..6, 2, n_th);
    store.close();
    let (_, lines) = export(&whole, &Options::default());
    let of = |n: u64, tree: &str| {
        let (begins, run) = (format!("{{\"tree\":\"{tree}\""), n_th(n).to_string());
        move |line: &&String| line.starts_with(&begins) && line.contains(&run)
    };
    let event = |n: u64, seq: u64| format!("{}/{seq:010}", n_th(n));
    let last = lines.len() - 1;
    let mut kept: Vec<String> = lines[..last]
        .iter()
        .filter(|line| {
            !(of(0, "runs")(line)
                || of(1, "machines")(line)
                || line.contains(&event(2, 12))
                || line.contains(&event(3, 5))
                || (of(4, "events")(line) || of(4, "runs")(line)))
        })
        .cloned()
        .collect();
    let records = kept.len() - 1;
    kept.push(format!("{{\"end\":{{\"records\":{records},\"missing\":[]}}}}"));
    let (tmp, state) = state();
    let file = tmp.path().join("export");
    fs::write(&file, kept.join("\n") + "\n").unwrap();
    let imported = import(&state, &order(&file));
    let what: BTreeMap<RunId, String> = imported.mended.into_iter().collect();
    let expected = [
        (0, "its record is missing: made anew from its history"),
        (1, "its machines are not what its history says: made anew from its history"),
        // It has succeeded, and nobody will append to it: its record says more than what is left of the history.
        (2, "its record is not what its history says: made anew from its history"),
        (3, "its events 5 to 5 are missing: kept as it is"),
        (4, "its record is missing: lost"),
    ];
    assert_eq!(what, expected.map(|(n, what)| (n_th(n), what.to_owned())).into());
    let store = reader(&state);
    let whole_runs = store.read_blocking(|view| view.newest_runs(99)).unwrap().unwrap();
    assert_eq!(whole_runs.len(), 5);
    let machines = store.read_blocking(|view| view.machines(n_th(1))).unwrap().unwrap();
    assert_eq!(machines.len(), 2, "its machines are there again");
    store.close();
}

#[test]
fn uids_from_beside_the_store_win_over_those_of_the_export() {
    let (tmp, lived) = lived_in();
    let (_, lines) = export(&lived, &Options::default());
    let file = tmp.path().join("export");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    let (_tmp, state) = state();
    let uids = BTreeMap::from([("account3".to_owned(), 1003), ("account4".to_owned(), 4444), ("new".to_owned(), 5)]);
    let imported = import(&state, &ImportOrder { uids, ..order(&file) });
    assert_eq!(imported.uids, 2);
    let known = reader(&state).read_blocking(|view| view.uids()).unwrap().unwrap();
    assert_eq!(known.len(), 31);
    assert_eq!((known["account3"].uid, known["account4"].uid, known["new"].uid), (1003, 4444, 5));
}

#[test]
fn a_kill_at_any_moment_of_an_import_or_a_compaction_leaves_a_store_or_says_so() {
    let (_tmp, state) = lived_in();
    let all = run_ids(&state);
    // The copy is made, and not yet exchanged; or exchanged, and the old one not yet removed.
    fs::create_dir(state.path().join("store.new")).unwrap();
    fs::write(state.path().join("store.new/db"), "half").unwrap();
    assert_eq!(run_ids(&state), all);
    assert!(state.path().join("store.new").exists(), "who only reads removes nothing");
    writer(&state).close();
    assert!(!state.path().join("store.new").exists(), "who writes does");
    assert_eq!(run_ids(&state), all);
    fs::create_dir(state.path().join("store.new")).unwrap();
    let before = fs::read(state.sidecar()).unwrap();
    store::compact(&state, &Options::default()).unwrap().unwrap();
    assert!(!state.path().join("store.new").exists());
    // Exchanged, and the sidecar not yet written.
    fs::write(state.sidecar(), before).unwrap();
    assert_eq!(run_ids(&state), all);
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.close();
    assert!(verify(&state).is_whole());
    // An import that has put the store aside, and its sidecar not.
    let (exported, lines) = export(&state, &Options::default());
    let file = state.path().join("export");
    fs::write(&file, lines.join("\n") + "\n").unwrap();
    fs::rename(state.store(), state.path().join("store.damaged-1")).unwrap();
    let error = Store::open(&state, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    assert_eq!(import(&state, &order(&file)).records, exported.records);
    // One that has moved the new store to its place, and has not written its sidecar.
    fs::remove_file(state.sidecar()).unwrap();
    let error = Store::open(&state, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    import(&state, &order(&file));
    assert_eq!(run_ids(&state), all);
}

#[test]
fn a_compaction_gives_room_back_and_changes_nothing_else() {
    let (_tmp, state) = state();
    let store = writer(&state);
    past::fill(&store, 0..RUNS, 20, n_th);
    let retention = store::Retention { keep: std::time::Duration::ZERO, min_runs: 10 };
    assert_eq!(store.prune(retention, false, |_| false).unwrap().runs.len() as u64, RUNS - 10);
    let (_, before) = export(&state, &Options::default());
    // The handle stays: it finds the compacted store as it would after any hand-over.
    let done = store::compact(&state, &Options::default()).unwrap().unwrap();
    assert!(done.after < done.before / 2, "{done:?}");
    assert_eq!(records(&export(&state, &Options::default()).1), records(&before));
    raise(&store, "n").unwrap();
    assert!(store::compact_if_due(&state, &Options::default()).unwrap().is_none(), "it is small");
    store.close();
    assert_eq!(run_ids(&state).len(), 10);
    assert!(verify(&state).is_whole());
}

#[test]
fn a_store_of_a_disk_without_room_is_verified_and_exported_all_the_same() {
    let (_tmp, state) = lived_in();
    let found = store::verify(&state, &without_sled()).unwrap();
    assert!(matches!(found.unusable, Some(StoreError::NoSpace { .. })), "{found:?}");
    assert_eq!((found.whole_runs as u64, found.damaged_runs.len(), found.trouble.len()), (RUNS, 0, 0), "{found:?}");
    let (exported, _) = export(&state, &without_sled());
    assert_eq!(exported.runs as u64, RUNS);
}

#[test]
fn where_there_is_no_store_nothing_is_verified_and_nothing_exported() {
    let (_tmp, state) = state();
    let error = store::verify(&state, &Options::default()).unwrap_err();
    assert!(matches!(error, StoreError::Missing { .. }), "{error}");
    let error = store::export(&state, &Options::default(), || Ok(Vec::new())).unwrap_err();
    assert!(matches!(error, store::ExportError::Store(StoreError::Missing { .. })), "{error}");
    assert!(!state.store().exists());
}

#[test]
fn a_newer_store_is_replaced_only_when_that_is_asked_for() {
    let (_tmp, state) = state();
    writer(&state).close();
    let text = fs::read_to_string(state.sidecar()).unwrap();
    fs::write(state.sidecar(), text.replace("\"format\":1", "\"format\":99")).unwrap();
    let refused = store::import(&state, &empty(), &Options::default()).unwrap_err();
    assert!(matches!(refused, ImportError::Store(StoreError::Newer { .. })), "{refused}");
    let done = import(&state, &ImportOrder { replace: true, ..empty() });
    assert!(done.aside.unwrap().to_string_lossy().contains("store.replaced-"));
}

#[test]
fn verifying_and_exporting_beside_a_process_that_writes_and_prunes_finds_no_damage() {
    let (tmp, state) = state();
    let store = writer(&state);
    past::fill(&store, 0..60, 5, n_th);
    let over = std::sync::atomic::AtomicBool::new(false);
    let mut found = Vec::new();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for n in (60..).step_by(10).take_while(|_| !over.load(std::sync::atomic::Ordering::SeqCst)) {
                past::fill(&store, n..n + 10, 5, n_th);
                let retention = store::Retention { keep: std::time::Duration::ZERO, min_runs: 50 };
                store.prune(retention, false, |_| false).unwrap();
            }
        });
        // Asserted behind the scope, which waits for the writer.
        found.extend((0..6).map(|_| verify(&state)));
        let (_, lines) = export(&state, &Options::default());
        fs::write(tmp.path().join("export"), lines.join("\n") + "\n").unwrap();
        over.store(true, std::sync::atomic::Ordering::SeqCst);
    });
    store.close();
    assert!(found.iter().all(store::Verification::is_whole), "{found:?}");
    // Runs came and went while it was written: what is made of them is consistent.
    let (_tmp, other) = store_support::state();
    import(&other, &order(&tmp.path().join("export")));
    let found = verify(&other);
    assert_eq!(found.trees.iter().map(|tree| tree.unreadable).sum::<usize>(), 0, "{found:?}");
    assert!(found.whole_runs >= 40, "{found:?}");
}

#[test]
fn a_run_whose_history_has_a_gap_is_named() {
    let (_tmp, state) = state();
    let store = writer(&state);
    past::fill(&store, 0..3, 2, n_th);
    // A record without a history.
    store.write_blocking(|tx| tx.put_run(&fresh(id(9, 9)))).unwrap();
    store
        .write_blocking(|tx| {
            tx.put_run(&run(
                id(8, 8),
                managed_tokens::workflow::status::RunStatus::Succeeded,
                jiff::SignedDuration::ZERO,
            ))
        })
        .unwrap();
    store.close();
    let found = verify(&state);
    assert_eq!(found.whole_runs, 3);
    let named: Vec<RunId> = found.damaged_runs.iter().map(|(run, _)| *run).collect();
    assert_eq!(named, [id(8, 8), id(9, 9)]);
    assert!(found.unusable.is_none() && !found.is_whole());
    assert_eq!(found.trees.iter().find(|tree| tree.tree == Tree::Runs).map(|tree| tree.records), Some(5));
}
