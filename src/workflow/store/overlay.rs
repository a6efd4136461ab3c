//! Changes that are not in sled yet.

use std::collections::BTreeMap;
use std::ops::Bound;

use super::keys::{TREES, Tree};

/// Per tree, the new value of a key; `None` removes it.
#[derive(Debug, Default)]
pub(super) struct Overlay {
    trees: [BTreeMap<Vec<u8>, Option<Vec<u8>>>; TREES],
    bytes: usize,
}

impl Overlay {
    pub(super) fn set(&mut self, tree: Tree, key: &str, value: Option<Vec<u8>>) {
        self.bytes += key.len() + value.as_ref().map_or(0, Vec::len);
        self.trees[tree as usize].insert(key.as_bytes().to_vec(), value);
    }

    /// `None`: it says nothing of this key.
    pub(super) fn get(&self, tree: Tree, key: &[u8]) -> Option<Option<&[u8]>> {
        self.trees[tree as usize].get(key).map(Option::as_deref)
    }

    pub(super) fn range<'a>(
        &'a self,
        tree: Tree,
        range: (Bound<&[u8]>, Bound<&[u8]>),
    ) -> impl DoubleEndedIterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        self.trees[tree as usize].range::<[u8], _>(range).map(|(key, value)| (key.as_slice(), value.as_deref()))
    }

    /// Puts the other's changes on top of its own.
    pub(super) fn absorb(&mut self, other: Self) {
        self.bytes += other.bytes;
        for (mine, theirs) in self.trees.iter_mut().zip(other.trees) {
            mine.extend(theirs);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.trees.iter().all(BTreeMap::is_empty)
    }

    /// How much was put in: what a group commit is limited by.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// One batch for every tree that changes.
    pub(super) fn into_batches(self) -> impl Iterator<Item = (Tree, sled::Batch)> {
        Tree::ALL.iter().copied().zip(self.trees).filter(|(_, changes)| !changes.is_empty()).map(|(tree, changes)| {
            let mut batch = sled::Batch::default();
            for (key, value) in changes {
                match value {
                    Some(value) => batch.insert(key, value),
                    None => batch.remove(key),
                }
            }
            (tree, batch)
        })
    }
}
