//! Whatever a store holds is read without sled as sled reads it.

use proptest::prelude::*;

use crate::*;

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
