//! Out of a damaged store everything is saved that is left, and what is lost is named. Nothing is ever silently empty.

#[path = "../store_support/past.rs"]
mod past;
#[path = "../store_support/mod.rs"]
mod store_support;

mod anything;
mod copies;
mod damages;
mod imports;
mod looks;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use managed_tokens::workflow::id::RunId;
use managed_tokens::workflow::store::{
    self, Access, From, ImportError, ImportOrder, Imported, KnownUid, Options, Shelf, StateDir, Store, StoreError,
    Tree, of_run,
};
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
    with_runs(RUNS)
}

/// The same with so many runs.
fn with_runs(runs: u64) -> (TempDir, StateDir) {
    let (tmp, state) = state();
    let store = writer(&state);
    past::fill(&store, 0..runs, 20, n_th);
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
