//! Every kind of damage.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use crate::*;

/// What is done to a store, by name.
type Damage = (&'static str, fn(&StateDir));

fn db(state: &StateDir) -> PathBuf {
    state.store().join("db")
}

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
    let (tmp, lived) = with_runs(SOME);
    let scene = Scene { tmp, all: run_ids(&lived), lived };
    assert!(verify(&scene.lived).is_whole(), "{:?}", verify(&scene.lived));
    // Each costs a second of one core.
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some((name, damage)) = DAMAGES.get(next.fetch_add(1, Ordering::SeqCst)) {
            scene.try_one(name, *damage);
        }
    };
    thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
}

/// Runs enough for a log of several segments, some of them with blobs and snapshots.
const SOME: u64 = 20;

struct Scene {
    tmp: TempDir,
    lived: StateDir,
    all: BTreeSet<RunId>,
}

impl Scene {
    fn try_one(&self, name: &str, damage: fn(&StateDir)) {
        let Self { tmp, lived, all } = self;
        let path = tmp.path().join(name.replace(' ', "-"));
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
    let written = written(&lived) as usize;
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
