//! What a write can change.

use std::ops::Deref;

use serde::Serialize;
use sha2::{Digest, Sha256};

use super::error::StoreError;
use super::keys::{self, Shelf, Tree};
use super::overlay::Overlay;
use super::record;
use super::view::{KnownUid, View};
use crate::workflow::event::Event;
use crate::workflow::id::RunId;
use crate::workflow::run::{Machine, Run};

/// One write: everything it changes becomes durable together, or nothing does.
///
/// It reads what it has written itself, and what the writes before it have.
pub struct Tx<'a> {
    view: View<'a>,
}

/// The hash under which a definition is kept: sha256 of its text, in hex.
pub fn hash_of_definition(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

impl<'a> Deref for Tx<'a> {
    type Target = View<'a>;

    fn deref(&self) -> &View<'a> {
        &self.view
    }
}

impl<'a> Tx<'a> {
    pub(super) fn new(view: View<'a>) -> Self {
        Self { view }
    }

    pub(super) fn into_changes(self) -> Overlay {
        self.view.own
    }

    /// Records a run.
    pub fn put_run(&mut self, run: &Run) -> Result<(), StoreError> {
        self.record_as(Tree::Runs, &keys::run(run.id), run)
    }

    /// Records a machine.
    pub fn put_machine(&mut self, run: RunId, machine: &Machine) -> Result<(), StoreError> {
        self.record_as(Tree::Machines, &keys::machine(run, &machine.subject), machine)
    }

    /// Appends to a run's history.
    ///
    /// # Errors
    /// [`StoreError::OutOfOrder`] unless its `seq` is the next: then another session has claimed the run.
    pub fn append_event(&mut self, run: RunId, event: &Event) -> Result<(), StoreError> {
        let expected = self.next_seq(run)?;
        if event.seq != expected {
            return Err(StoreError::OutOfOrder { run, expected, got: event.seq });
        }
        self.record_as(Tree::Events, &keys::event(run, event.seq), event)
    }

    /// Keeps the text of a definition and gives its hash (sha256, hex). Kept once however often it is put; removed by
    /// pruning when no run names it, so put it in the same write as the run.
    pub fn put_definition(&mut self, text: &str) -> Result<String, StoreError> {
        let hash = hash_of_definition(text);
        if self.definition(&hash)?.is_none() {
            self.record_as(Tree::Meta, &keys::definition(&hash), &text)?;
        }
        Ok(hash)
    }

    /// Asks whoever works on the run to cancel it. Forgotten when the run is pruned.
    pub fn request_cancel(&mut self, run: RunId) -> Result<(), StoreError> {
        self.record_as(Tree::Meta, &keys::cancel(run), &true)
    }

    /// Forgets that it was asked that the run be cancelled.
    pub fn clear_cancel(&mut self, run: RunId) {
        self.view.own.set(Tree::Meta, &keys::cancel(run), None);
    }

    /// Remembers something about the store as a whole, such as that a thing was done once. Never pruned.
    pub fn put_mark<T: Serialize>(&mut self, name: &str, value: &T) -> Result<(), StoreError> {
        self.record_as(Tree::Meta, &keys::mark(name), value)
    }

    /// Records an account's UID.
    pub fn put_uid(&mut self, account: &str, uid: KnownUid) -> Result<(), StoreError> {
        self.record_as(Tree::Uids, account, &uid)
    }

    /// Records a counter.
    pub fn put_counter<T: Serialize>(&mut self, key: &str, value: &T) -> Result<(), StoreError> {
        self.record_as(Tree::Counters, key, value)
    }

    /// Forgets a counter.
    pub fn remove_counter(&mut self, key: &str) {
        self.view.own.set(Tree::Counters, key, None);
    }

    /// Puts a record on a shelf.
    pub fn put<T: Serialize>(&mut self, shelf: Shelf, key: &str, value: &T) -> Result<(), StoreError> {
        self.record_as(shelf.into(), key, value)
    }

    /// Takes a record off a shelf.
    pub fn remove(&mut self, shelf: Shelf, key: &str) {
        self.view.own.set(shelf.into(), key, None);
    }

    pub(super) fn record_as<T: Serialize + ?Sized>(
        &mut self,
        tree: Tree,
        key: &str,
        value: &T,
    ) -> Result<(), StoreError> {
        let bytes = record::encode(tree, key, &value)?;
        self.view.own.set(tree, key, Some(bytes));
        Ok(())
    }

    pub(super) fn remove_from(&mut self, tree: Tree, key: &str) {
        self.view.own.set(tree, key, None);
    }
}
