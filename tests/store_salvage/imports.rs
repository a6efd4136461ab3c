//! What an import takes, and what it leaves alone.

use crate::*;

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
