//! What can be read: committed state, or, inside a write, that state with the changes made so far.

use std::collections::BTreeMap;
use std::iter::Peekable;
use std::ops::{Bound, ControlFlow};
use std::path::Path;

use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::caught::caught;
use super::error::StoreError;
use super::handle::Counts;
use super::keys::{self, Shelf, TREES, Tree};
use super::overlay::Overlay;
use super::record;
use crate::workflow::event::Event;
use crate::workflow::id::{RunId, Subject};
use crate::workflow::run::{Machine, Run};

/// The shortest prefix by which a run is shown.
pub const SHORTEST_PREFIX: usize = 8;

/// How many ids an ambiguous prefix names.
const CANDIDATES: usize = 5;

/// Looks at a key and its undecoded value.
type Each<'a> = dyn FnMut(&[u8], &[u8]) -> Result<ControlFlow<()>, StoreError> + 'a;

type Range<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

/// The trees on disk. A panic of sled while it reads means that the files are damaged.
pub(super) struct Base<'a> {
    pub(super) trees: &'a [sled::Tree; TREES],
    pub(super) path: &'a Path,
    /// Where damages are noted.
    pub(super) counts: Option<&'a Counts>,
}

impl Base<'_> {
    fn guarded<T>(&self, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
        match caught(work) {
            Ok(result) => result.map_err(|e| StoreError::sled("read", self.path, e)),
            Err(why) => Err(StoreError::damaged(self.path, format!("sled gave up reading it: {why}"))),
        }
    }

    fn get(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        self.guarded(|| Ok(self.trees[tree as usize].get(key)?.map(|value| value.to_vec())))
    }
}

/// An account's UID.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KnownUid {
    /// The numeric id.
    pub uid: u32,
    /// When it was recorded.
    pub recorded_at: Timestamp,
}

/// What the beginning of an id led to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// This run.
    One(RunId),
    /// No run.
    None,
    /// Several; the newest five at most.
    Several(Vec<RunId>),
}

/// The store as a reader sees it: one consistent state, for as long as the closure it was given to runs.
///
/// Every method fails with [`StoreError::Damaged`] if sled cannot read what it wrote, and with
/// [`StoreError::Newer`] for a record that only a newer `mt` understands.
pub struct View<'a> {
    /// `None`: there is no store yet, which reads as an empty one.
    base: Option<Base<'a>>,
    /// The changes of the writes before this one in the same group commit.
    group: Option<&'a Overlay>,
    /// The changes of this write.
    pub(super) own: Overlay,
    /// Where the store is, for messages.
    path: &'a Path,
}

/// What the beginning of an id leads to where there is nothing: for what tries hostile ids.
pub(crate) fn find_in_none(prefix: &str) -> Found {
    View::new(None, None, Path::new("/state/store")).find_run(prefix).expect("nothing is read")
}

impl<'a> View<'a> {
    pub(super) fn new(base: Option<Base<'a>>, group: Option<&'a Overlay>, path: &'a Path) -> Self {
        Self { base, group, own: Overlay::default(), path }
    }

    /// Is there a store?
    pub(super) fn is_there(&self) -> bool {
        self.base.is_some()
    }

    /// A run, without its machines.
    pub fn run(&self, run: RunId) -> Result<Option<Run>, StoreError> {
        self.record(Tree::Runs, &keys::run(run))
    }

    /// One machine of a run.
    pub fn machine(&self, run: RunId, subject: &Subject) -> Result<Option<Machine>, StoreError> {
        self.record(Tree::Machines, &keys::machine(run, subject))
    }

    /// The machines of a run, by subject.
    pub fn machines(&self, run: RunId) -> Result<Vec<Machine>, StoreError> {
        self.all(Tree::Machines, &keys::of_run(run, ""), |_, machine| machine)
    }

    /// The history of a run, from its first event.
    pub fn events(&self, run: RunId) -> Result<Vec<Event>, StoreError> {
        self.all(Tree::Events, &keys::of_run(run, ""), |_, event| event)
    }

    /// The place of the next event in a run's history: how many it holds.
    pub fn next_seq(&self, run: RunId) -> Result<u64, StoreError> {
        let prefix = keys::of_run(run, "");
        let end = keys::behind(prefix.as_bytes());
        let mut last = None;
        let range = (Bound::Included(prefix.as_bytes()), Bound::Excluded(end.as_slice()));
        self.scan(Tree::Events, range, true, &mut |key, _| {
            last = Some(key.to_vec());
            Ok(ControlFlow::Break(()))
        })?;
        match last {
            None => Ok(0),
            Some(key) => match keys::event_seq(&key) {
                Some(seq) => Ok(seq + 1),
                None => Err(StoreError::damaged(
                    self.path,
                    format!("{:?} is no key of an event", String::from_utf8_lossy(&key)),
                )),
            },
        }
    }

    /// Shows the runs, newest first, until `each` breaks.
    pub fn runs_newest_first(&self, mut each: impl FnMut(Run) -> ControlFlow<()>) -> Result<(), StoreError> {
        self.scan(Tree::Runs, (Bound::Unbounded, Bound::Unbounded), true, &mut |key, value| {
            Ok(each(record::decode(self.path, Tree::Runs, key, value)?))
        })
    }

    /// The newest runs, newest first.
    pub fn newest_runs(&self, limit: usize) -> Result<Vec<Run>, StoreError> {
        let mut runs = Vec::new();
        if limit > 0 {
            self.runs_newest_first(|run| {
                runs.push(run);
                if runs.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
            })?;
        }
        Ok(runs)
    }

    /// The newest run.
    pub fn newest_run_id(&self) -> Result<Option<RunId>, StoreError> {
        Ok(self.run_ids((Bound::Unbounded, Bound::Unbounded), true, 1)?.pop())
    }

    /// The run whose id begins so, in either case; `latest` is the newest.
    pub fn find_run(&self, prefix: &str) -> Result<Found, StoreError> {
        let prefix = prefix.trim().to_ascii_lowercase();
        let (prefix, limit) = if prefix == "latest" { (String::new(), 1) } else { (prefix, CANDIDATES) };
        if prefix.is_empty() && limit != 1 {
            return Ok(Found::None);
        }
        let mut found = self.run_ids(
            (Bound::Included(prefix.as_bytes()), Bound::Excluded(keys::behind(prefix.as_bytes()).as_slice())),
            true,
            limit,
        )?;
        Ok(match found.len() {
            0 => Found::None,
            1 => Found::One(found.remove(0)),
            _ => Found::Several(found),
        })
    }

    /// The shortest beginning of the run's id, of 8 characters at least, that no other run's id has.
    pub fn shortest_prefix(&self, run: RunId) -> Result<String, StoreError> {
        let id = keys::run(run);
        let bytes = id.as_bytes();
        // Ids sort as text, so the nearest neighbours share the most with it.
        let before = self.run_ids((Bound::Unbounded, Bound::Excluded(bytes)), true, 1)?;
        let after = self.run_ids((Bound::Excluded(bytes), Bound::Unbounded), false, 1)?;
        let shared = |other: &RunId| keys::run(*other).bytes().zip(id.bytes()).take_while(|(a, b)| a == b).count();
        let needed = before.iter().chain(&after).map(|other| shared(other) + 1).max().unwrap_or(0);
        Ok(id[..needed.clamp(SHORTEST_PREFIX, id.len())].to_owned())
    }

    /// The text of a definition, by the hash `put_definition` gave.
    pub fn definition(&self, hash: &str) -> Result<Option<String>, StoreError> {
        self.record(Tree::Meta, &keys::definition(hash))
    }

    /// Was it asked that the run be cancelled?
    pub fn cancel_requested(&self, run: RunId) -> Result<bool, StoreError> {
        Ok(self.raw(Tree::Meta, keys::cancel(run).as_bytes())?.is_some())
    }

    /// What is remembered about the store as a whole under this name.
    pub fn mark<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, StoreError> {
        self.record(Tree::Meta, &keys::mark(name))
    }

    /// An account's UID.
    pub fn uid(&self, account: &str) -> Result<Option<KnownUid>, StoreError> {
        self.record(Tree::Uids, account)
    }

    /// All UIDs, by account.
    pub fn uids(&self) -> Result<BTreeMap<String, KnownUid>, StoreError> {
        Ok(self.all(Tree::Uids, "", |account, uid| (account, uid))?.into_iter().collect())
    }

    /// A counter. Its key and its value are its users' affair.
    pub fn counter<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        self.record(Tree::Counters, key)
    }

    /// The counters whose key begins so.
    pub fn counters<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.all(Tree::Counters, prefix, |key, value| (key, value))
    }

    /// A record of a shelf.
    pub fn get<T: DeserializeOwned>(&self, shelf: Shelf, key: &str) -> Result<Option<T>, StoreError> {
        self.record(shelf.into(), key)
    }

    /// The records of a shelf whose key begins so, by key.
    pub fn scan_prefix<T: DeserializeOwned>(&self, shelf: Shelf, prefix: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.all(shelf.into(), prefix, |key, value| (key, value))
    }

    /// Raised with every group commit.
    pub(super) fn sequence(&self) -> Result<u64, StoreError> {
        Ok(self.record(Tree::Meta, keys::SEQUENCE)?.unwrap_or(0))
    }

    pub(super) fn store_id(&self) -> Result<Option<Ulid>, StoreError> {
        self.record(Tree::Meta, keys::STORE_ID)
    }

    pub(super) fn path(&self) -> &'a Path {
        self.path
    }

    pub(super) fn record<T: DeserializeOwned>(&self, tree: Tree, key: &str) -> Result<Option<T>, StoreError> {
        match self.raw(tree, key.as_bytes())? {
            None => Ok(None),
            Some(bytes) => self.noting(record::decode(self.path, tree, key.as_bytes(), &bytes)).map(Some),
        }
    }

    fn noting<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        match self.base.as_ref().and_then(|base| base.counts) {
            Some(counts) => counts.noting(done),
            None => done,
        }
    }

    fn raw(&self, tree: Tree, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let changed = self.own.get(tree, key).or_else(|| self.group.and_then(|group| group.get(tree, key)));
        match (changed, &self.base) {
            (Some(value), _) => Ok(value.map(<[u8]>::to_vec)),
            (None, Some(base)) => self.noting(base.get(tree, key)),
            (None, None) => Ok(None),
        }
    }

    fn all<T: DeserializeOwned, R>(
        &self,
        tree: Tree,
        prefix: &str,
        make: impl Fn(String, T) -> R,
    ) -> Result<Vec<R>, StoreError> {
        let mut found = Vec::new();
        self.scan_raw(tree, prefix, &mut |key, value| {
            let value = record::decode(self.path, tree, key, value)?;
            found.push(make(String::from_utf8_lossy(key).into_owned(), value));
            Ok(ControlFlow::Continue(()))
        })?;
        Ok(found)
    }

    /// Shows keys and undecoded values in order, until `each` breaks.
    pub(super) fn scan_raw(&self, tree: Tree, prefix: &str, each: &mut Each<'_>) -> Result<(), StoreError> {
        let end = keys::behind(prefix.as_bytes());
        self.scan(tree, (Bound::Included(prefix.as_bytes()), Bound::Excluded(&end)), false, each)
    }

    /// The same for the keys behind this one, to the end of the tree.
    pub(super) fn scan_after(&self, tree: Tree, after: Option<&str>, each: &mut Each<'_>) -> Result<(), StoreError> {
        let start = after.map_or(Bound::Unbounded, |key| Bound::Excluded(key.as_bytes()));
        self.scan(tree, (start, Bound::Unbounded), false, each)
    }

    fn run_ids(&self, range: Range<'_>, newest_first: bool, limit: usize) -> Result<Vec<RunId>, StoreError> {
        let mut ids = Vec::new();
        self.scan(Tree::Runs, range, newest_first, &mut |key, _| {
            match std::str::from_utf8(key).ok().and_then(|key| key.parse().ok()) {
                Some(id) => ids.push(id),
                None => {
                    let what = format!("{:?} is no key of a run", String::from_utf8_lossy(key));
                    return Err(StoreError::damaged(self.path, what));
                }
            }
            Ok(if ids.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
        })?;
        Ok(ids)
    }

    fn scan(&self, tree: Tree, range: Range<'_>, newest_first: bool, each: &mut Each<'_>) -> Result<(), StoreError> {
        self.noting(self.walk(tree, range, newest_first, each))
    }

    /// Walks over disk and overlays at once; where both know a key, the overlay wins.
    fn walk(&self, tree: Tree, range: Range<'_>, newest_first: bool, each: &mut Each<'_>) -> Result<(), StoreError> {
        let mut changed = Changed {
            group: directed(self.group.into_iter().flat_map(|group| group.range(tree, range)), newest_first).peekable(),
            own: directed(self.own.range(tree, range), newest_first).peekable(),
            newest_first,
        };
        let mut disk = match &self.base {
            None => None,
            Some(base) => Some((base, base.guarded(|| Ok(base.trees[tree as usize].range::<&[u8], _>(range)))?)),
        };
        let mut next_on_disk = || match &mut disk {
            None => Ok(None),
            Some((base, iter)) => {
                base.guarded(|| if newest_first { iter.next_back() } else { iter.next() }.transpose())
            }
        };
        let mut from_disk = next_on_disk()?;
        let mut from_overlay = changed.next();
        loop {
            let overlay_first = match (&from_disk, &from_overlay) {
                (None, None) => return Ok(()),
                (Some(_), None) => false,
                (None, Some(_)) => true,
                (Some((on_disk, _)), Some((key, _))) if on_disk == key => {
                    from_disk = next_on_disk()?;
                    true
                }
                (Some((on_disk, _)), Some((key, _))) => (**key < **on_disk) != newest_first,
            };
            let flow = if overlay_first {
                match from_overlay.take() {
                    Some((key, Some(value))) => each(key, value)?,
                    Some((_, None)) | None => ControlFlow::Continue(()),
                }
            } else {
                match from_disk.take() {
                    Some((key, value)) => each(&key, &value)?,
                    None => ControlFlow::Continue(()),
                }
            };
            if flow.is_break() {
                return Ok(());
            }
            if overlay_first {
                from_overlay = changed.next();
            } else {
                from_disk = next_on_disk()?;
            }
        }
    }
}

/// Changes of a tree, as an [`Overlay`] shows them.
type Changes<'a> = Box<dyn Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a>;

fn directed<'a>(
    changes: impl DoubleEndedIterator<Item = (&'a [u8], Option<&'a [u8]>)> + 'a,
    newest_first: bool,
) -> Changes<'a> {
    if newest_first { Box::new(changes.rev()) } else { Box::new(changes) }
}

/// The changes of a group commit and of one write in it, in order; where both know a key, the write's own wins. None is
/// looked at before it is asked for: a write that appends thousands of events asks for the last one with each.
struct Changed<'a> {
    group: Peekable<Changes<'a>>,
    own: Peekable<Changes<'a>>,
    newest_first: bool,
}

impl<'a> Iterator for Changed<'a> {
    type Item = (&'a [u8], Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        match (self.group.peek(), self.own.peek()) {
            (_, None) => self.group.next(),
            (None, Some(_)) => self.own.next(),
            (Some((groups, _)), Some((own, _))) if groups == own => {
                self.group.next();
                self.own.next()
            }
            (Some((groups, _)), Some((own, _))) if (groups < own) != self.newest_first => self.group.next(),
            (Some(_), Some(_)) => self.own.next(),
        }
    }
}
