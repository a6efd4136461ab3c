//! What one process can rely on when it uses the store.

mod store_support;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use managed_tokens::workflow::id::{RunId, Subject};
use managed_tokens::workflow::status::RunStatus;
use managed_tokens::workflow::store::{
    Access, Found, KnownUid, Options, Retention, Shelf, StateDir, Store, StoreError, Tx, of_run,
};
use proptest::prelude::*;
use store_support::{content, counter, event, fresh, id, machine, raise, reader, run, state, writer};
use tokio::sync::Barrier;

type Done = Result<(), StoreError>;

#[test]
fn what_was_written_is_there_after_opening_again() {
    let (_tmp, state) = state();
    let store = writer(&state);
    let (the_run, at) = (fresh(RunId::generate()), Timestamp::now());
    let (id, machine_a) = (the_run.id, machine("a"));
    let (written, event_0) = (the_run.clone(), event(0));
    let (put_machine, put_event) = (machine_a.clone(), event_0.clone());
    let hash = store
        .write_blocking(move |tx| {
            let hash = tx.put_definition("Workflow()")?;
            assert_eq!(tx.put_definition("Workflow()")?, hash);
            tx.put_run(&written)?;
            tx.put_machine(id, &machine("b"))?;
            tx.put_machine(id, &put_machine)?;
            tx.append_event(id, &put_event)?;
            tx.put_uid("dunepro", KnownUid { uid: 1234, recorded_at: at })?;
            tx.put_counter("setup/dune", &(3_u32, "why"))?;
            tx.put(Shelf::Outbox, &of_run(id, "admins"), &"mail")?;
            tx.put(Shelf::Metrics, "job", &7)?;
            tx.request_cancel(id)?;
            Ok::<_, StoreError>(hash)
        })
        .unwrap();
    store.close();

    let check = move |view: &managed_tokens::workflow::store::View<'_>| -> Done {
        assert_eq!(view.run(id)?, Some(the_run));
        assert_eq!(view.machine(id, &Subject::new("a"))?, Some(machine_a.clone()));
        assert_eq!(view.machines(id)?, [machine_a, machine("b")]);
        assert_eq!(view.events(id)?, [event_0]);
        assert_eq!(view.next_seq(id)?, 1);
        assert_eq!(view.definition(&hash)?.as_deref(), Some("Workflow()"));
        assert_eq!(view.uid("dunepro")?.map(|known| known.uid), Some(1234));
        assert_eq!(view.uids()?.len(), 1);
        assert_eq!(view.counter("setup/dune")?, Some((3_u32, "why".to_owned())));
        assert_eq!(view.counters::<(u32, String)>("setup/")?.len(), 1);
        assert_eq!(view.scan_prefix::<String>(Shelf::Outbox, &of_run(id, ""))?[0].1, "mail");
        assert_eq!(view.get(Shelf::Metrics, "job")?, Some(7));
        assert!(view.cancel_requested(id)?);
        assert!(!view.cancel_requested(RunId::generate())?);
        Ok(())
    };
    reader(&state).read_blocking(check).unwrap().unwrap();
}

#[test]
fn a_closure_that_fails_changes_nothing() {
    let (_tmp, state) = state();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    #[derive(Debug)]
    enum Mine {
        Store,
        No,
    }
    impl From<StoreError> for Mine {
        fn from(_: StoreError) -> Self {
            Self::Store
        }
    }
    let result = store.write_blocking(|tx| {
        tx.put_counter("n", &100)?;
        tx.remove_counter("n");
        Err::<(), _>(Mine::No)
    });
    assert!(matches!(result, Err(Mine::No)), "{result:?}");
    assert_eq!(counter(&store, "n"), 1);
    assert_eq!(store.stats().commits, 1, "nothing to commit");
}

#[test]
fn a_panic_in_a_closure_harms_nobody_else() {
    let (_tmp, state) = state();
    let store = writer(&state);
    let clone = store.clone();
    let panicked = std::thread::spawn(move || {
        clone.write_blocking(|tx: &mut Tx<'_>| -> Done {
            tx.put_counter("n", &100)?;
            panic!("on purpose");
        })
    });
    assert!(panicked.join().is_err(), "whoever asked gets the panic");
    assert_eq!(raise(&store, "n").unwrap(), 0);
}

#[test]
fn an_event_that_is_not_the_next_is_refused() {
    let (_tmp, state) = state();
    let store = writer(&state);
    let run = RunId::generate();
    let append = |seq| store.write_blocking(move |tx| tx.append_event(run, &event(seq)));
    assert!(matches!(append(1), Err(StoreError::OutOfOrder { expected: 0, got: 1, .. })));
    append(0).unwrap();
    assert!(matches!(append(0), Err(StoreError::OutOfOrder { expected: 1, got: 0, .. })));
    // Two in one write: the second builds on the first.
    store
        .write_blocking(move |tx| {
            tx.append_event(run, &event(1))?;
            tx.append_event(run, &event(2))
        })
        .unwrap();
    assert!(append(4).is_err());
    append(3).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_writers_share_commits_and_lose_no_update() {
    const WRITERS: u64 = 128;
    const EACH: u64 = 10;
    let (_tmp, state) = state();
    let store = writer(&state);
    let together = Arc::new(Barrier::new(WRITERS as usize));
    let tasks: Vec<_> = (0..WRITERS)
        .map(|_| {
            let (store, together) = (store.clone(), Arc::clone(&together));
            tokio::spawn(async move {
                together.wait().await;
                for _ in 0..EACH {
                    store
                        .write(|tx| {
                            let n = tx.counter::<u64>("n")?.unwrap_or(0);
                            tx.put_counter("n", &(n + 1))
                        })
                        .await
                        .unwrap();
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(store.read(|view| view.counter::<u64>("n")).await.unwrap().unwrap(), Some(WRITERS * EACH));
    let stats = store.stats();
    assert_eq!(stats.writes, WRITERS * EACH);
    assert!(stats.commits * 4 < stats.writes, "{stats:?}");
}

#[test]
fn a_reader_makes_nothing_and_sees_a_missing_store_as_an_empty_one() {
    let (_tmp, state) = state();
    let store = reader(&state);
    assert_eq!(store.read_blocking(|view| view.newest_runs(5)).unwrap().unwrap(), []);
    assert!(!state.store().exists() && !state.sidecar().exists());
    assert!(matches!(raise(&store, "n"), Err(StoreError::ReadOnly)));
    // And the store itself as soon as there is one.
    raise(&writer(&state), "n").unwrap();
    assert_eq!(counter(&reader(&state), "n"), 1);
}

#[test]
fn a_closed_store_says_so_to_every_clone() {
    let (_tmp, state) = state();
    let store = writer(&state);
    let clone = store.clone();
    store.close();
    assert!(matches!(raise(&clone, "n"), Err(StoreError::Closed)));
    assert!(matches!(clone.read_blocking(|_| ()), Err(StoreError::Closed)));
}

#[test]
fn a_full_disk_is_told_before_anything_is_touched() {
    let (_tmp, state) = state();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.close();
    let before = content(&state.store());
    let options = Options { min_free: u64::MAX, ..Options::default() };
    let error = Store::open_with(&state, Access::ReadWrite, options).unwrap_err();
    assert!(matches!(error, StoreError::NoSpace { .. }), "{error}");
    assert!(content(&state.store()) == before, "opening on a full disk would leave files that keep it from opening");
    assert_eq!(counter(&writer(&state), "n"), 1);
}

#[test]
fn a_run_is_found_by_the_beginning_of_its_id() {
    let (_tmp, state) = state();
    let store = writer(&state);
    // Two runs of the same second, one of much later, and a neighbour that differs in the last character.
    let (a, b, c, d) =
        (id(1_700_000_000_000, 1), id(1_700_000_000_001, 1), id(1_800_000_000_000, 0), id(1_800_000_000_000, 1));
    store
        .write_blocking(move |tx| -> Done {
            for id in [a, b, c, d] {
                tx.put_run(&fresh(id))?;
            }
            // What a write has put already counts as well.
            assert_eq!(tx.find_run("latest")?, Found::One(d));
            assert_eq!(tx.shortest_prefix(c)?.len(), 26);
            Ok(())
        })
        .unwrap();
    store
        .read_blocking(move |view| -> Done {
            for id in [a, b, c, d] {
                let prefix = view.shortest_prefix(id)?;
                assert!(prefix.len() >= 8);
                assert_eq!(view.find_run(&prefix)?, Found::One(id));
                assert_eq!(view.find_run(&prefix.to_uppercase())?, Found::One(id));
                if prefix.len() > 8 {
                    assert!(matches!(view.find_run(&prefix[..prefix.len() - 1])?, Found::Several(_)));
                }
            }
            assert_eq!(view.find_run(&a.to_string()[..8])?, Found::Several(vec![b, a]));
            assert_eq!(view.find_run("latest")?, Found::One(d));
            for nothing in ["", "7zzzzzzz", "%", "ü", "01/"] {
                assert_eq!(view.find_run(nothing)?, Found::None, "{nothing:?}");
            }
            let far_away = id(1, 1);
            assert_eq!(view.shortest_prefix(far_away)?.len(), 8);
            Ok(())
        })
        .unwrap()
        .unwrap();
}

#[test]
fn a_list_of_the_newest_runs_looks_at_no_others() {
    let (_tmp, state) = state();
    let store = writer(&state);
    for thousand in 0..10_u64 {
        store
            .write_blocking(move |tx| (0..1000).try_for_each(|n| tx.put_run(&fresh(id(1000 * thousand + n, 5)))))
            .unwrap();
    }
    let (seen, ids) = store
        .read_blocking(|view| {
            let (mut seen, mut ids) = (0, Vec::new());
            view.runs_newest_first(|run| {
                seen += 1;
                ids.push(run.id);
                if ids.len() < 20 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })
            .unwrap();
            (seen, ids)
        })
        .unwrap();
    assert_eq!(seen, 20);
    assert_eq!(ids, (0..20).map(|n| id(9999 - n, 5)).collect::<Vec<_>>());
    assert_eq!(store.read_blocking(|view| view.newest_runs(0)).unwrap().unwrap().len(), 0);
    assert_eq!(store.read_blocking(|view| view.newest_runs(3)).unwrap().unwrap().len(), 3);
}

/// One run with everything that belongs to it.
fn whole_run(store: &Store, the_run: managed_tokens::workflow::run::Run, events: u64) {
    store
        .write_blocking(move |tx| -> Done {
            let (id, mut the_run) = (the_run.id, the_run);
            the_run.definition = tx.put_definition(&format!("text of {id}"))?;
            tx.put_run(&the_run)?;
            tx.put_machine(id, &machine("a"))?;
            tx.put(Shelf::Outbox, &of_run(id, "admins"), &"mail")?;
            tx.request_cancel(id)?;
            (0..events).try_for_each(|seq| tx.append_event(id, &event(seq)))
        })
        .unwrap();
}

#[test]
fn pruning_removes_old_runs_whole_and_keeps_live_and_recent_ones() {
    let (_tmp, state) = state();
    let store = writer(&state);
    let days = |n: i64| SignedDuration::from_hours(24 * n);
    let [old, dead, live, fresh_one, newest] = [1, 2, 3, 4, 5].map(|ms| id(ms, 0));
    // More events than one write removes.
    whole_run(&store, run(old, RunStatus::Failed, days(40)), 2_500);
    whole_run(&store, run(dead, RunStatus::Running, days(40)), 3);
    whole_run(&store, run(live, RunStatus::Running, days(40)), 3);
    whole_run(&store, run(fresh_one, RunStatus::Succeeded, days(1)), 3);
    whole_run(&store, run(newest, RunStatus::Succeeded, days(50)), 3);
    store.write_blocking(|tx| tx.put_uid("a", KnownUid { uid: 1, recorded_at: Timestamp::now() })).unwrap();
    let retention = Retention { keep: Duration::from_secs(30 * 24 * 3600), min_runs: 1 };
    let is_live = move |run: &managed_tokens::workflow::run::Run| run.id == live;

    let would = store.prune(retention, true, is_live).unwrap();
    assert_eq!((would.runs.clone(), would.kept), (vec![dead, old], 3));
    assert_eq!(would.records, 2_500 + 3 + 2 * 2);
    let ids = |store: &Store| -> Vec<RunId> {
        store.read_blocking(|view| view.newest_runs(99)).unwrap().unwrap().iter().map(|run| run.id).collect()
    };
    assert_eq!(ids(&store).len(), 5, "a dry run removes nothing");

    let did = store.prune(retention, false, is_live).unwrap();
    assert_eq!((did.runs, did.kept, did.records, did.definitions), (would.runs, 3, would.records, 2));
    assert_eq!(ids(&store), [newest, fresh_one, live]);
    let mut exported = Vec::new();
    store.export(&mut exported).unwrap();
    let exported = String::from_utf8(exported).unwrap();
    for gone in [old, dead] {
        assert!(!exported.contains(&gone.to_string()), "something of {gone} is left");
    }
    for kept in [live, fresh_one, newest] {
        let of_it = move |view: &managed_tokens::workflow::store::View<'_>| {
            let run = view.run(kept).unwrap().unwrap();
            (view.events(kept).unwrap().len(), view.definition(&run.definition).unwrap().is_some())
        };
        assert_eq!(store.read_blocking(of_it).unwrap(), (3, true));
    }
    assert_eq!(store.read_blocking(|view| view.uids()).unwrap().unwrap().len(), 1);
}

#[test]
fn an_export_holds_every_record_once_and_nothing_twice() {
    let (_tmp, state) = state();
    let store = writer(&state);
    // More than one portion.
    whole_run(&store, fresh(id(1, 0)), 4_500);
    whole_run(&store, fresh(id(2, 0)), 1);
    raise(&store, "n").unwrap();
    let mut out = Vec::new();
    let exported = store.export(&mut out).unwrap();
    let records = exported.records;
    assert_eq!((exported.runs, exported.missing.len()), (2, 0));
    let lines: Vec<serde_json::Value> =
        String::from_utf8(out).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines[0]["format"], 1);
    assert_eq!(lines.len(), records + 2);
    assert_eq!(lines[records + 1]["end"]["records"], records);
    let keys: BTreeSet<(&str, &str)> =
        lines[1..=records].iter().map(|line| (line["tree"].as_str().unwrap(), line["key"].as_str().unwrap())).collect();
    assert_eq!(keys.len(), records);
    // Two runs with a definition, a machine, a mail and a request to cancel each; one counter.
    assert_eq!(records, 4_501 + 2 * 5 + 1);
}

/// What a write may do to a shelf.
#[derive(Clone, Debug)]
enum Deed {
    Put(u8, u32),
    Remove(u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let deed =
        prop_oneof![(0..20_u8, any::<u32>()).prop_map(|(k, v)| Deed::Put(k, v)), (0..20_u8).prop_map(Deed::Remove)];
    prop::collection::vec(deed, 0..12)
}

fn same_as_model(tx: &mut Tx<'_>, model: &mut BTreeMap<String, u32>, deeds: &[Deed]) -> Done {
    for deed in deeds {
        match deed {
            Deed::Put(key, value) => {
                tx.put(Shelf::Metrics, &format!("k{key:02}"), value)?;
                model.insert(format!("k{key:02}"), *value);
            }
            Deed::Remove(key) => {
                tx.remove(Shelf::Metrics, &format!("k{key:02}"));
                model.remove(&format!("k{key:02}"));
            }
        }
        assert_eq!(tx.scan_prefix::<u32>(Shelf::Metrics, "k")?, model.clone().into_iter().collect::<Vec<_>>());
        let tens: Vec<_> = model.clone().into_iter().filter(|(key, _)| key.starts_with("k1")).collect();
        assert_eq!(tx.scan_prefix::<u32>(Shelf::Metrics, "k1")?, tens);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn a_write_sees_the_disk_with_its_own_changes_on_top(writes in prop::collection::vec(deeds(), 1..5)) {
        let (_tmp, state) = state();
        let store = writer(&state);
        let mut model = BTreeMap::new();
        for deeds in writes {
            let mut changed = model.clone();
            model = store.write_blocking(move |tx| same_as_model(tx, &mut changed, &deeds).map(|()| changed)).unwrap();
        }
        let committed = store.read_blocking(|view| view.scan_prefix::<u32>(Shelf::Metrics, "")).unwrap().unwrap();
        prop_assert_eq!(committed, model.into_iter().collect::<Vec<_>>());
    }

    #[test]
    fn runs_come_newest_first_inside_a_write_too(old in prop::collection::btree_set(0..60_u64, 0..12), new in prop::collection::btree_set(0..60_u64, 0..12)) {
        let (_tmp, state) = state();
        let store = writer(&state);
        let put = |tx: &mut Tx<'_>, times: &BTreeSet<u64>| times.iter().try_for_each(|ms| tx.put_run(&fresh(id(*ms, 0))));
        let mut expected: Vec<RunId> = old.union(&new).map(|ms| id(*ms, 0)).collect();
        expected.reverse();
        store.write_blocking(move |tx| put(tx, &old)).unwrap();
        let seen = store
            .write_blocking(move |tx| {
                put(tx, &new)?;
                Ok::<_, StoreError>(tx.newest_runs(99)?.iter().map(|run| run.id).collect::<Vec<_>>())
            })
            .unwrap();
        prop_assert_eq!(seen, expected);
    }
}

#[test]
fn a_large_record_comes_back_whole() {
    // sled keeps what is larger than 128 KiB in files of its own.
    let (_tmp, state) = state();
    let store = writer(&state);
    let text = |n: usize| format!("{n}").repeat(300_000);
    for n in 0..4 {
        store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n}"), &text(n))).unwrap();
    }
    store.close();
    assert!(state.store().join("blobs").read_dir().unwrap().next().is_some(), "this test needs blobs");
    let found = reader(&state).read_blocking(|view| view.scan_prefix::<String>(Shelf::Metrics, "")).unwrap().unwrap();
    assert_eq!(found.into_iter().map(|(_, text)| text).collect::<Vec<_>>(), (0..4).map(text).collect::<Vec<_>>());
}

#[test]
fn a_missing_state_directory_is_named() {
    let tmp = tempfile::tempdir().unwrap();
    let error = StateDir::existing(tmp.path().join("none")).unwrap_err();
    assert!(error.to_string().contains("none does not exist"), "{error}");
}
