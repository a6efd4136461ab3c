//! Imports and compactions put a copy in the place of the store.

use crate::*;

#[test]
fn a_kill_at_any_moment_of_an_import_or_a_compaction_leaves_a_store_or_says_so() {
    let (_tmp, state) = lived_in();
    let all = run_ids(&state);
    // The copy is made, and not yet exchanged; or exchanged, and the old one not yet removed.
    fs::create_dir(state.path().join("store.new")).unwrap();
    fs::write(state.path().join("store.new/db"), "half").unwrap();
    // Of a store that looked damaged, and does so no more.
    fs::create_dir(state.path().join("store.copy")).unwrap();
    let left = || ["store.new", "store.copy"].into_iter().filter(|name| state.path().join(name).exists()).count();
    assert_eq!(run_ids(&state), all);
    assert_eq!(left(), 2, "who only reads removes nothing");
    writer(&state).close();
    assert_eq!(left(), 0, "who writes does");
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

/// sled forgets, when it is closed, which blobs it was about to remove.
#[test]
fn however_often_a_store_with_big_pages_is_opened_its_size_is_bounded() {
    let (_tmp, state) = state();
    let (mut most, mut compacted) = (0, 0);
    for round in 0..16_u8 {
        let store = writer(&state);
        for n in 0..30_u8 {
            let text = char::from(b'a' + n % 26).to_string().repeat(300_000);
            store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{}", n % 3), &(round, text))).unwrap();
        }
        compacted += usize::from(store::compact_if_due(&state, &Options::default()).unwrap().is_some());
        store.close();
        most = most.max(content(&state.store()).values().map(Vec::len).sum::<usize>());
    }
    assert!(compacted > 0 && most < 96 << 20, "{most} bytes, {compacted} times compacted");
    assert!(verify(&state).is_whole());
}
