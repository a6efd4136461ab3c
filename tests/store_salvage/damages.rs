//! Every kind of damage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::*;

/// What is done to a store, by name.
type Damage = (&'static str, fn(&StateDir));

fn db(state: &StateDir) -> PathBuf {
    state.store().join("db")
}

/// As sled makes them.
const SEGMENT: u64 = 512 * 1024;

/// How long the log is without the zeros behind it.
fn written(state: &StateDir) -> u64 {
    fs::read(db(state)).unwrap().iter().rposition(|byte| *byte != 0).unwrap() as u64 + 1
}

fn cut(state: &StateDir, percent: u64) {
    OpenOptions::new().write(true).open(db(state)).unwrap().set_len(written(state) * percent / 100).unwrap();
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
    let length = written(state);
    let noise = noise((length * percent / 100) as usize);
    let file = OpenOptions::new().write(true).open(db(state)).unwrap();
    file.write_all_at(&noise, length * from_percent / 100).unwrap();
}

/// The blobs, oldest first.
fn blobs(state: &StateDir) -> Vec<PathBuf> {
    let entries = fs::read_dir(state.store().join("blobs")).unwrap().map(|entry| entry.unwrap().path());
    let mut blobs: Vec<PathBuf> = entries.collect();
    blobs.sort_by_key(|blob| blob.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap());
    blobs
}

/// That of [`EARLY`], which the newest snapshot knows.
fn old_blob(state: &StateDir) -> PathBuf {
    blobs(state).remove(0)
}

/// That of [`LATE`], which is in the log alone.
fn new_blob(state: &StateDir) -> PathBuf {
    blobs(state).pop().unwrap()
}

fn halve(path: &Path) {
    let text = fs::read(path).unwrap();
    fs::write(path, &text[..text.len() / 2]).unwrap();
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
    ("an old blob is gone", |s| fs::remove_file(old_blob(s)).unwrap()),
    ("an old blob is empty", |s| fs::write(old_blob(s), "").unwrap()),
    ("an old blob is cut", |s| halve(&old_blob(s))),
    ("a new blob is gone", |s| fs::remove_file(new_blob(s)).unwrap()),
    ("a new blob is empty", |s| fs::write(new_blob(s), "").unwrap()),
    ("a new blob is cut", |s| halve(&new_blob(s))),
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
                halve(&entry.path());
            }
        }
    }),
];

#[test]
fn whatever_is_damaged_is_noticed_kept_and_saved_as_far_as_it_can_be() {
    let (tmp, lived) = with_runs(SOME);
    big(&lived, EARLY);
    big(&lived, LATE);
    let snapshots = fs::read_dir(lived.store()).unwrap().map(|entry| entry.unwrap().file_name());
    let snapshot = snapshots.filter_map(|name| name.to_str()?.strip_prefix("snap.").map(str::to_owned)).max().unwrap();
    let snapshot = u64::from_str_radix(&snapshot, 16).unwrap();
    let number = |blob: PathBuf| blob.file_name().unwrap().to_str().unwrap().parse::<u64>().unwrap();
    assert!(number(old_blob(&lived)) < snapshot && number(new_blob(&lived)) > snapshot, "{:?}", blobs(&lived));
    // Looking at it changes it.
    let whole = copied(&lived, &tmp.path().join("whole"));
    assert!(verify(&whole).is_whole(), "{:?}", verify(&whole));
    let (_, lines) = export(&whole, &Options::default());
    let scene = Scene { tmp, all: run_ids(&whole), records: records(&lines), lived };
    // Each costs a second of one core.
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, damage)) = DAMAGES.get(next.fetch_add(1, Ordering::SeqCst)) {
            scene.try_one(name, *damage);
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
}

/// Runs enough for a log of several segments.
const SOME: u64 = 20;

/// Pages that lie in files of their own.
const EARLY: (Shelf, &str) = (Shelf::Metrics, "early");
const LATE: (Shelf, &str) = (Shelf::Outbox, "late");

fn big(state: &StateDir, (shelf, name): (Shelf, &'static str)) {
    let store = writer(state);
    let key = match shelf {
        Shelf::Metrics => name.to_owned(),
        Shelf::Outbox => of_run(n_th(0), name),
    };
    store.write_blocking(move |tx| tx.put(shelf, &key, &"x".repeat(200_000))).unwrap();
    store.close();
}

fn copied(state: &StateDir, to: &Path) -> StateDir {
    assert!(std::process::Command::new("cp").arg("-a").args([state.path(), to]).status().unwrap().success());
    StateDir::existing(to).unwrap()
}

struct Scene {
    tmp: TempDir,
    lived: StateDir,
    all: BTreeSet<RunId>,
    records: BTreeSet<String>,
}

impl Scene {
    fn try_one(&self, name: &str, damage: fn(&StateDir)) {
        let Self { tmp, lived, all, .. } = self;
        let path = tmp.path().join(name.replace(' ', "-"));
        let state = copied(lived, &path);
        damage(&state);
        assert!(!name.contains("blob") || !verify(&copied(&state, &path.with_extension("look"))).is_whole(), "{name}");

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
                assert_eq!(runs.len() as u64, SOME, "{name}: runs are missing, and nobody has said so");
                match found.is_whole() {
                    true => "nothing is lost".to_owned(),
                    // The list of runs is whole, and a history is not: whoever reads that is told.
                    false => format!("noticed late, {} runs whole, {} not", found.whole_runs, found.damaged_runs.len()),
                }
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
        if found.is_whole() {
            // Not the runs alone: UIDs, counters and messages too.
            assert!(records(&lines) == self.records, "{name}: something is missing, and nobody has said so");
            assert!(matches!(again, Err(ImportError::InUse { .. })), "{name}: a whole store is replaced");
            eprintln!("{name}: {outcome}");
            return;
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
        assert!(saved.is_subset(all), "{name}");
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
            // sled goes on at the end of what is written.
            let until = match opened {
                Ok(_) => before.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1),
                Err(_) => before.len(),
            };
            assert!(kept.len() >= until && kept[..until] == before[..until], "{name}: the damaged log was changed");
        }
        // And the store is in use again.
        let store = writer(&state);
        raise(&store, "n").unwrap();
        store.close();
    }
}

/// sled zeroes what lies behind the first thing in its log that it cannot read: it must not get to do so. What lies before
/// its newest snapshot it does not read when it opens the store: that is noticed by whoever needs it.
#[test]
fn one_wrong_byte_anywhere_in_the_log_costs_no_more_than_what_it_is_in() {
    let (tmp, lived) = state();
    let store = writer(&lived);
    past::fill(&store, 0..12, 15, n_th);
    store.close();
    // A store is opened whatever is wrong in the segments before that in which the newest snapshot ends: here there is one.
    assert!((SEGMENT..2 * SEGMENT).contains(&written(&lived)), "{}", written(&lived));
    let (_, lines) = export(&copied(&lived, &tmp.path().join("whole")), &Options::default());
    let all = records(&lines);
    for reopened in [false, true] {
        if reopened {
            writer(&lived).close();
        }
        let written = written(&lived) as usize;
        let (mut saved_of_all, mut opened) = (0, 0);
        // The last is in what sled reads again, though its snapshot has it.
        let places: Vec<usize> = (0..12).map(|part| written * (2 * part + 1) / 24).chain([written - 300]).collect();
        for at in &places {
            let (at, state) = (*at, copied(&lived, &tmp.path().join(format!("state-{at}-{reopened}"))));
            let mut log = fs::read(db(&state)).unwrap();
            log[at] ^= 0x40;
            fs::write(db(&state), &log).unwrap();

            match Store::open(&state, Access::ReadWrite) {
                Ok(store) => {
                    assert!(reopened, "byte {at}: it is opened");
                    store.close();
                    opened += 1;
                }
                Err(StoreError::Damaged { .. }) => {
                    assert!(fs::read(db(&state)).unwrap() == log, "byte {at}: the damaged log was changed");
                }
                Err(other) => panic!("byte {at}: {other}"),
            }
            let (exported, lines) = export(&state, &Options::default());
            if exported.is_whole() {
                // It is in what was replaced since, or in what is not used.
                assert!(records(&lines) == all, "byte {at}: nothing is said to be missing");
                saved_of_all += 12;
                continue;
            }
            assert!(!verify(&state).is_whole(), "byte {at}");
            assert!(!exported.missing.is_empty(), "byte {at}: nothing is said to be missing");
            let file = tmp.path().join("export");
            fs::write(&file, lines.join("\n") + "\n").unwrap();
            import(&state, &order(&file));
            saved_of_all += run_ids(&state).len();
        }
        eprintln!("{saved_of_all} of {} runs, {opened} opened", 12 * places.len());
        assert!(saved_of_all > 12 * places.len() / 2, "{saved_of_all}");
        assert_eq!(opened > 0, reopened, "the snapshot covers nothing of it");
    }
}
