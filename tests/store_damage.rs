//! A store that is not what was written is refused, explained and left exactly as it is.

mod store_support;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use managed_tokens::workflow::store::{self, Access, Options, Retention, Shelf, StateDir, Store, StoreError};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use store_support::{content, counter, raise, reader, state, writer};
use tempfile::TempDir;

/// A store with some megabytes from a few hundred commits, closed in good order.
fn used() -> (TempDir, StateDir) {
    let (tmp, state) = state();
    let store = writer(&state);
    for n in 0..200 {
        raise(&store, "n").unwrap();
        store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n}"), &"x".repeat(15_000))).unwrap();
    }
    store.close();
    (tmp, state)
}

fn remove_snapshots(state: &StateDir) {
    for entry in fs::read_dir(state.store()).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().starts_with("snap.") {
            fs::remove_file(entry.path()).unwrap();
        }
    }
}

fn truncate(path: &Path, percent: u64) {
    let length = fs::metadata(path).unwrap().len();
    OpenOptions::new().write(true).open(path).unwrap().set_len(length * percent / 100).unwrap();
}

/// Opening must fail as damaged, for writers and readers, and must change nothing. Gives the message.
fn refused(state: &StateDir) -> String {
    let (store_before, sidecar_before) = (content(&state.store()), fs::read(state.sidecar()).ok());
    let mut message = String::new();
    for access in [Access::ReadOnly, Access::ReadWrite] {
        let error = Store::open(state, access).expect_err("a damaged store was opened");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
        message = error.to_string();
        assert!(message.contains(&state.store().display().to_string()), "{message}");
        assert!(message.contains("mt store import"), "the way out is missing: {message}");
    }
    assert!(content(&state.store()) == store_before, "a damaged store was changed");
    assert_eq!(fs::read(state.sidecar()).ok(), sidecar_before);
    assert!(!state.path().join("store.copy").exists(), "the copy was left");
    message
}

#[test]
fn a_store_that_sled_opens_as_empty_is_refused() {
    for percent in [0, 10, 50] {
        let (_tmp, state) = used();
        remove_snapshots(&state);
        truncate(&state.store().join("db"), percent);
        refused(&state);
    }
}

#[test]
fn a_cut_off_store_is_refused_even_with_its_snapshot() {
    for percent in [0, 10, 50] {
        let (_tmp, state) = used();
        truncate(&state.store().join("db"), percent);
        refused(&state);
    }
}

#[test]
fn a_store_of_random_bytes_is_refused() {
    let (_tmp, state) = used();
    remove_snapshots(&state);
    let db = state.store().join("db");
    let noise: Vec<u8> = (0..fs::metadata(&db).unwrap().len()).map(|n| ((n * 2_654_435_761) >> 13) as u8).collect();
    fs::write(&db, noise).unwrap();
    refused(&state);
}

#[test]
fn a_store_without_snapshots_is_not_damaged() {
    let (_tmp, state) = used();
    remove_snapshots(&state);
    assert_eq!(counter(&reader(&state), "n"), 200);
    assert!(!state.path().join("store.copy").exists());
}

#[test]
fn an_older_copy_put_back_is_refused() {
    let (tmp, state) = used();
    let saved = tmp.path().join("saved");
    let copied = std::process::Command::new("cp").arg("-a").args([state.store(), saved.clone()]).status().unwrap();
    assert!(copied.success());
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.close();
    fs::remove_dir_all(state.store()).unwrap();
    fs::rename(&saved, state.store()).unwrap();
    let error = Store::open(&state, Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("1 commits"), "{error}");
}

#[test]
fn another_store_in_its_place_is_refused() {
    let ((_tmp_a, a), (_tmp_b, b)) = (used(), used());
    fs::remove_dir_all(a.store()).unwrap();
    fs::rename(b.store(), a.store()).unwrap();
    let error = Store::open(&a, Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("has the id"), "{error}");
}

#[test]
fn a_store_without_its_sidecar_or_a_sidecar_without_its_store_is_refused() {
    let (_tmp, state) = used();
    let sidecar = fs::read(state.sidecar()).unwrap();
    fs::remove_file(state.sidecar()).unwrap();
    assert!(refused(&state).contains("store.json"));
    fs::write(state.sidecar(), &sidecar[..5]).unwrap();
    refused(&state);
    fs::write(state.sidecar(), &sidecar).unwrap();
    assert_eq!(counter(&reader(&state), "n"), 200, "nothing was lost by refusing");
    fs::remove_dir_all(state.store()).unwrap();
    fs::create_dir(state.store()).unwrap();
    assert!(refused(&state).contains("gone or empty"));
}

#[test]
fn an_unfinished_snapshot_is_removed_and_nothing_else() {
    let (_tmp, state) = used();
    fs::write(state.store().join("snap.0000000000123456.generating"), "half").unwrap();
    fs::write(state.store().join("note.generating"), "not sled's").unwrap();
    let store = writer(&state);
    assert_eq!(counter(&store, "n"), 200);
    store.close();
    assert!(!state.store().join("snap.0000000000123456.generating").exists());
    assert!(state.store().join("note.generating").exists());
}

#[test]
fn a_newer_store_can_be_read_and_is_not_written() {
    let (_tmp, state) = used();
    let sidecar = fs::read_to_string(state.sidecar()).unwrap();
    fs::write(state.sidecar(), sidecar.replace("\"format\":1", "\"format\":2,\"more\":true")).unwrap();
    assert_eq!(counter(&reader(&state), "n"), 200);
    let error = Store::open(&state, Access::ReadWrite).unwrap_err();
    assert!(matches!(error, StoreError::Newer { doing: "write", .. }), "{error}");
}

#[test]
fn a_creation_cut_off_anywhere_leaves_a_store_that_can_be_used() {
    // Before it was moved to its place: it is made anew.
    let (_tmp, state) = state();
    fs::create_dir(state.path().join("store.new")).unwrap();
    fs::write(state.path().join("store.new/db"), "half").unwrap();
    let store = writer(&state);
    assert!(!state.path().join("store.new").exists());
    store.close();
    // After that, and before the sidecar was written.
    fs::remove_file(state.sidecar()).unwrap();
    assert_eq!(counter(&reader(&state), "n"), 0);
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.close();
    assert!(state.sidecar().exists());
    assert_eq!(counter(&reader(&state), "n"), 1);
}

/// Opening a FIFO waits for its other end, which may never come, and everybody would wait for us.
#[test]
fn a_store_with_something_else_in_it_than_files_is_refused_at_once() {
    for name in ["db", "conf", "odd", "blobs/7"] {
        for link in [false, true] {
            let (_tmp, state) = used();
            let path = state.store().join(name);
            let _ = fs::remove_file(&path);
            if link {
                symlink("/dev/zero", &path).unwrap();
            } else {
                mkfifo(&path, Mode::S_IRWXU).unwrap();
            }
            let error = Store::open(&state, Access::ReadWrite).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
            assert!(matches!(error, StoreError::Permission { .. }), "{error}");
        }
        // What is left is read without sled.
        let (_tmp, state) = used();
        let path = state.store().join(name);
        let _ = fs::remove_file(&path);
        mkfifo(&path, Mode::S_IRWXU).unwrap();
        assert!(!store::verify(&state, &Options::default()).unwrap().is_whole());
    }
}

#[test]
fn a_store_that_others_may_write_or_own_is_refused() {
    let (_tmp, state) = used();
    fs::set_permissions(state.store(), Permissions::from_mode(0o770)).unwrap();
    let error = Store::open(&state, Access::ReadWrite).unwrap_err();
    assert!(error.to_string().contains("chmod go-w"), "{error}");
    fs::set_permissions(state.store(), Permissions::from_mode(0o700)).unwrap();
    if nix::unistd::geteuid().is_root() {
        chown(state.store(), Some(65534), None).unwrap();
        let error = Store::open(&state, Access::ReadWrite).unwrap_err();
        assert!(error.to_string().contains("it belongs to"), "{error}");
    }
}

#[test]
fn what_lies_in_the_place_of_a_new_sidecar_is_neither_followed_nor_waited_for() {
    let (tmp, state) = used();
    let (new, target) = (state.path().join("store.json.new"), tmp.path().join("target"));
    let raised = || {
        let store = writer(&state);
        raise(&store, "n").unwrap();
        store.close();
    };
    fs::write(&target, "not ours").unwrap();
    symlink(&target, &new).unwrap();
    raised();
    assert_eq!(fs::read_to_string(&target).unwrap(), "not ours");
    mkfifo(&new, Mode::S_IRWXU).unwrap();
    raised();
    fs::write(&new, "half").unwrap();
    raised();
    assert!(!new.exists());
    assert_eq!(counter(&reader(&state), "n"), 203);
}

/// A store that opens can have a part that cannot be read. Whoever comes upon it may fall back to something else: the handle
/// remembers it.
#[test]
fn a_damage_that_anybody_has_come_upon_is_remembered_by_the_handle() {
    let (_tmp, state) = used();
    let store = writer(&state);
    store.write_blocking(|tx| tx.put(Shelf::Metrics, "big", &"x".repeat(200_000))).unwrap();
    store.close();
    // sled's snapshot knows that page from now on, and nobody reads it when the store is opened.
    writer(&state).close();
    for blob in fs::read_dir(state.store().join("blobs")).unwrap() {
        fs::remove_file(blob.unwrap().path()).unwrap();
    }
    let store = writer(&state);
    assert!(store.damage().is_none(), "nobody has come upon it");
    raise(&store, "n").unwrap();
    store.prune(Retention { keep: std::time::Duration::ZERO, min_runs: 0 }, false, |_| false).unwrap();
    assert!(store.damage().is_none(), "it is elsewhere");
    let met = store.read_blocking(|view| view.scan_prefix::<String>(Shelf::Metrics, "").is_err()).unwrap();
    assert!(met);
    assert!(matches!(store.damage(), Some(StoreError::Damaged { .. })));
    raise(&store, "n").unwrap();
    store.close();
}
