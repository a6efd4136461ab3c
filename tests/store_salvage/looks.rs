//! What verifying and exporting see, beside whom.

use crate::*;

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
