//! sled, opened with every care it needs. Everything here happens under the lock.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use nix::sys::statvfs::statvfs;
use sled::Transactional;
use sled::transaction::{ConflictableTransactionError, TransactionError, TransactionalTree};
use ulid::Ulid;

use super::caught::{Held, caught};
use super::durable;
use super::error::{HolderState, StoreError};
use super::fresh;
use super::handle::{Access, Counts};
use super::keys::{self, TREES, Tree};
use super::overlay::Overlay;
use super::record;
use super::sidecar::{CHECKPOINT_EVERY, FORMAT, Sidecar, newer, sync_directory};
use super::sled_log::{Log, is_damage, is_read_to_its_end};
use super::state_dir::{StateDir, check_directory, make_directory};
use super::view::{Base, View};
use crate::crash_point::{CrashPoint, pass};

/// Below this much free space the store is neither opened, which writes, nor written.
pub const MIN_FREE: u64 = 16 << 20;

/// sled's page cache. Its default takes 500 MB and more.
const CACHE: u64 = 16 << 20;

/// How long threads of a sled just closed, here or in the process before us, may keep its own lock.
const SLED_LETS_GO: Duration = Duration::from_secs(5);

/// sled, open.
pub(super) struct Sled {
    // Dropped in this order: every tree before the database.
    pub(super) trees: [sled::Tree; TREES],
    pub(super) db: sled::Db,
}

/// What becomes of a store that is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// It is used.
    Use,
    /// It is filled, and synced as a whole before it is used.
    Fill,
    /// It is looked at once and removed.
    Try,
}

/// The store, open. One process at a time has one.
pub(super) struct Opened {
    counts: Arc<Counts>,
    sled: Held<Sled>,
    path: PathBuf,
    sidecar_path: PathBuf,
    sidecar: Sidecar,
    sequence: u64,
    access: Access,
    min_free: u64,
}

impl std::fmt::Debug for Opened {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Opened").field("path", &self.path).field("sequence", &self.sequence).finish_non_exhaustive()
    }
}

impl Opened {
    /// [`Opened::open`], for which a panic of sled is a damage like any other.
    pub(super) fn open_caught(
        state: &StateDir,
        access: Access,
        min_free: u64,
        counts: &Arc<Counts>,
    ) -> Result<Option<Self>, StoreError> {
        let opened = caught(|| Self::open(state, access, min_free, counts))
            .unwrap_or_else(|why| Err(StoreError::damaged(&state.store(), format!("sled gave up: {why}"))));
        counts.noting(opened)
    }

    /// Opens the store, or makes it if there is none; `Ok(None)`: there is none, and it was only to be read.
    fn open(state: &StateDir, access: Access, min_free: u64, counts: &Arc<Counts>) -> Result<Option<Self>, StoreError> {
        let path = state.store();
        check_free_space(&path, state.path(), min_free)?;
        let sidecar = Sidecar::read(&state.sidecar(), &path)?;
        if let Some(Sidecar { format, .. }) = sidecar
            && format > FORMAT
            && access == Access::ReadWrite
        {
            return Err(newer("write", &path, format));
        }
        match (&sidecar, holds_something(&path)?) {
            (Some(_), false) => {
                return Err(StoreError::damaged(
                    &path,
                    format!("{} says that there was one, but it is gone or empty", state.sidecar().display()),
                ));
            }
            (None, false) if access == Access::ReadOnly => return Ok(None),
            (None, false) => fresh::create(state)?,
            (None | Some(_), true) => {}
        }
        if is_suspicious(&path, sidecar.as_ref())? {
            try_a_copy(state, sidecar.as_ref(), min_free)?;
        }
        let sled = open_sled(&path, Purpose::Use)?;
        let (sequence, store_id) = identify(&path, &sled.trees, sidecar.as_ref())?;
        let sidecar = match sidecar {
            Some(sidecar) => sidecar,
            None => {
                let sidecar = fresh::sidecar_of(&path, store_id, sequence)?;
                if access == Access::ReadWrite {
                    sidecar.write(&state.sidecar())?;
                }
                sidecar
            }
        };
        if access == Access::ReadWrite {
            sweep(state);
        }
        let counts = Arc::clone(counts);
        Ok(Some(Self { counts, sled, path, sidecar_path: state.sidecar(), sidecar, sequence, access, min_free }))
    }

    /// Its id, and how many group commits it has seen.
    pub(super) fn identity(&self) -> (Ulid, u64) {
        (self.sidecar.store_id, self.sequence)
    }

    pub(super) fn base(&self) -> Base<'_> {
        Base { trees: &self.sled.trees, path: &self.path, counts: Some(&self.counts) }
    }

    /// Is there room for so many bytes more? Asked before each commit, because sled does not survive a full disk.
    pub(super) fn check_room(&self, bytes: usize) -> Result<(), StoreError> {
        // Each record is written again with its neighbours.
        check_free_space(&self.path, &self.path, self.min_free.saturating_add(4 * bytes as u64))
    }

    /// Makes the changes durable, all or none. After an error the store may be broken, see `Worker::drop_broken`.
    pub(super) fn commit(&mut self, changes: Overlay) -> Result<(), StoreError> {
        let committed = self.try_to_commit(changes);
        self.counts.noting(committed)
    }

    fn try_to_commit(&mut self, mut changes: Overlay) -> Result<(), StoreError> {
        pass(CrashPoint::StoreCommitBefore);
        let sequence = self.sequence + 1;
        changes.set(Tree::Meta, keys::SEQUENCE, Some(record::encode(Tree::Meta, keys::SEQUENCE, &sequence)?));
        let (names, batches): (Vec<Tree>, Vec<sled::Batch>) = changes.into_batches().unzip();
        let trees: Vec<&sled::Tree> = names.iter().map(|tree| &self.sled.trees[*tree as usize]).collect();
        let write = || -> Result<(), sled::Error> {
            let result = trees[..].transaction(|views: &Vec<TransactionalTree>| {
                for (view, batch) in views.iter().zip(&batches) {
                    view.apply_batch(batch)?;
                }
                Ok::<(), ConflictableTransactionError<sled::Error>>(())
            });
            match result {
                Ok(()) => {}
                Err(TransactionError::Abort(e) | TransactionError::Storage(e)) => return Err(e),
            }
            self.sled.db.flush().map(|_| ())
        };
        let syncs = durable::syncs(&self.path);
        match caught(write) {
            Ok(result) => result.map_err(|e| StoreError::sled("write", &self.path, e))?,
            Err(why) => {
                return Err(StoreError::damaged(&self.path, format!("sled gave up writing it: {why}")));
            }
        }
        durable::end_of_commit(&self.path, syncs).map_err(|e| StoreError::io("sync", &self.path, e))?;
        pass(CrashPoint::StoreCommitAfter);
        self.sequence = sequence;
        if self.sequence >= self.sidecar.checkpoint + CHECKPOINT_EVERY {
            self.checkpoint()?;
        }
        Ok(())
    }

    /// Tells the sidecar how far the store has come, if that is news.
    pub(super) fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.access == Access::ReadOnly {
            return Ok(());
        }
        let log_bytes = log_bytes(&self.path)?;
        if self.sequence > self.sidecar.checkpoint || log_bytes < self.sidecar.log_bytes {
            let sidecar = Sidecar { checkpoint: self.sequence, log_bytes, ..self.sidecar.clone() };
            sidecar.write(&self.sidecar_path)?;
            self.sidecar = sidecar;
        }
        Ok(())
    }
}

/// Removes what a process that was killed has left of making or trying a store. Nobody does: the caller has the turn. Nobody
/// needs it: the store in place has been opened.
fn sweep(state: &StateDir) {
    for left in [state.new_store(), state.copied_store()] {
        if fs::symlink_metadata(&left).is_err() {
            continue;
        }
        // A compaction may have been killed before this: no power loss may bring back what is removed now.
        match sync_directory(state.path()).and_then(|()| fs::remove_dir_all(&left)) {
            Ok(()) => tracing::info!(path = %left.display(), "removed what a killed process has left of a store"),
            // Whoever makes the next store tries it again, and says so.
            Err(error) => tracing::debug!(path = %left.display(), %error, "what is left of a store stays"),
        }
    }
}

/// Is the store the one the sidecar speaks of, and not older? Gives its sequence and id.
fn identify(path: &Path, trees: &[sled::Tree; TREES], sidecar: Option<&Sidecar>) -> Result<(u64, Ulid), StoreError> {
    let view = View::new(Some(Base { trees, path, counts: None }), None, path);
    let (sequence, id) = (view.sequence()?, view.store_id()?);
    let what = match (id, sidecar) {
        (None, _) => "it opened without what was written to it".to_owned(),
        (Some(id), Some(sidecar)) if id != sidecar.store_id => {
            format!("it has the id {id}, and store.json says {}", sidecar.store_id)
        }
        (Some(_), Some(sidecar)) if sequence < sidecar.checkpoint => {
            format!("its last {} commits of {} are missing", sidecar.checkpoint - sequence, sidecar.checkpoint)
        }
        // A store is put in its place whole, and its sidecar right after: the process was killed between the two.
        (Some(id), None) if sequence == 0 => return Ok((sequence, id)),
        (Some(_), None) => "store.json beside it is gone, so nobody can tell whether it is whole".to_owned(),
        (Some(id), Some(_)) => return Ok((sequence, id)),
    };
    Err(StoreError::damaged(path, what))
}

/// Are there signs of a damage that sled takes for an empty store? It would write over what is left.
fn is_suspicious(path: &Path, sidecar: Option<&Sidecar>) -> Result<bool, StoreError> {
    let Some(sidecar) = sidecar else { return Ok(true) };
    let log = path.join("db");
    match fs::metadata(&log) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(e) => return Err(StoreError::io("look at", &log, e)),
        Ok(meta) if meta.len() < sidecar.log_bytes => return Ok(true),
        Ok(_) => {}
    }
    match durable::newest_snapshot(path).map_err(|e| StoreError::io("read", path, e))? {
        None => Ok(true),
        Some(snapshot) => {
            is_read_to_its_end(path, snapshot).map(|well| !well).map_err(|e| StoreError::io("read", &log, e))
        }
    }
}

/// Opens a copy of a suspicious store, so that a damaged one stays exactly as it is.
fn try_a_copy(state: &StateDir, sidecar: Option<&Sidecar>, min_free: u64) -> Result<(), StoreError> {
    let path = state.store();
    // sled passes over a blob that is gone, and opens with a part of a commit.
    let log = Log::read(&path).map_err(|e| StoreError::io("read", &path.join("db"), e))?;
    let (damaged, unread): (Vec<_>, Vec<_>) = log.without_blob.into_values().partition(is_damage);
    // Another attempt may read them, and need none of the others.
    if let Some(why) = unread.into_iter().next() {
        return Err(StoreError::io("read", &path, why));
    }
    if let Some(why) = damaged.first() {
        return Err(StoreError::damaged(&path, why.to_string()));
    }
    let copy = Trial(state.copied_store());
    // That of a process that was killed takes the room that this one needs.
    copy.remove()?;
    let size = size_of(&path).map_err(|e| StoreError::io("look at", &path, e))?;
    check_free_space(&path, state.path(), min_free.saturating_add(size))?;
    make_directory(&copy.0, false)?;
    copy_tree(&path, &copy.0).map_err(|e| StoreError::io("copy the store to", &copy.0, e))?;
    pass(CrashPoint::StoreCopied);
    let checked = open_sled(&copy.0, Purpose::Try).and_then(|sled| {
        identify(&copy.0, &sled.trees, sidecar)?;
        read_all(&View::new(Some(Base { trees: &sled.trees, path: &copy.0, counts: None }), None, &copy.0))
    });
    // The copy goes away: the message speaks of the store.
    checked.map_err(|error| match error {
        StoreError::Damaged { what, .. } => StoreError::damaged(&path, what),
        other => other,
    })
}

/// A copy of the store, which goes away with this.
struct Trial(PathBuf);

impl Trial {
    fn remove(&self) -> Result<(), StoreError> {
        match fs::remove_dir_all(&self.0) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove the copy", &self.0, e)),
            Ok(()) | Err(_) => Ok(()),
        }
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        // The next one does it, or whoever writes.
        let _ = self.remove();
    }
}

/// Can every record be reached? A damage can leave a store that opens, and shows only when a part of it is needed.
pub(super) fn read_all(view: &View<'_>) -> Result<(), StoreError> {
    Tree::ALL.iter().try_for_each(|tree| view.scan_after(*tree, None, &mut |_, _| Ok(ControlFlow::Continue(()))))
}

pub(super) fn size_of(directory: &Path) -> io::Result<u64> {
    fs::read_dir(directory)?.try_fold(0, |sum, entry| {
        let entry = entry?;
        let size =
            if entry.file_type()?.is_dir() { size_of(&entry.path()) } else { entry.metadata().map(|of| of.len()) };
        match size {
            // Whoever has the store removes blobs.
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(sum),
            size => Ok(sum + size?),
        }
    })
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir(&target)?;
            copy_tree(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}

pub(super) fn open_sled(path: &Path, purpose: Purpose) -> Result<Held<Sled>, StoreError> {
    remove_unfinished_snapshots(path)?;
    match purpose {
        Purpose::Use => durable::begin(path).map_err(|e| StoreError::io("sync", path, e))?,
        Purpose::Fill | Purpose::Try => durable::begin_unused(path),
    }
    let is_new = match purpose {
        Purpose::Fill => true,
        Purpose::Use | Purpose::Try => false,
    };
    let since = Instant::now();
    loop {
        let attempt = caught(|| -> Result<_, sled::Error> {
            let db = sled::Config::new().path(path).cache_capacity(CACHE).flush_every_ms(None).open()?;
            let names: HashSet<Vec<u8>> = db.tree_names().into_iter().map(|name| name.to_vec()).collect();
            if !is_new && let Some(missing) = Tree::ALL.iter().find(|tree| !names.contains(tree.as_str().as_bytes())) {
                return Ok(Err(format!("it opened without its tree {missing}, empty or in part")));
            }
            let mut trees = Vec::with_capacity(TREES);
            for tree in Tree::ALL {
                trees.push(db.open_tree(tree.as_str())?);
            }
            let trees = trees.try_into().map_err(|_| sled::Error::Unsupported("a tree is missing".to_owned()))?;
            Ok(Ok(Held::new(Sled { trees, db })))
        });
        match attempt {
            Ok(Ok(Ok(opened))) => return Ok(opened),
            Ok(Ok(Err(what))) => return Err(StoreError::damaged(path, what)),
            // sled gives no kind for this error: the text is all there is.
            Ok(Err(sled::Error::Io(e))) if e.to_string().contains("could not acquire lock") => {
                if since.elapsed() > SLED_LETS_GO {
                    return Err(StoreError::Busy {
                        path: path.to_owned(),
                        pid: None,
                        state: HolderState::NotFound,
                        waited: SLED_LETS_GO,
                    });
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Ok(Err(e)) => return Err(StoreError::sled("open", path, e)),
            Err(why) => {
                return Err(StoreError::damaged(path, format!("sled gave up opening it: {why}")));
            }
        }
    }
}

impl StateDir {
    /// Is there room on its disk for the store, and so for all else that lives here?
    ///
    /// # Errors
    /// [`StoreError::NoSpace`]; [`StoreError::Io`] if the system does not say.
    pub fn check_room(&self) -> Result<(), StoreError> {
        check_free_space(&self.store(), self.path(), MIN_FREE)
    }
}

pub(super) fn check_free_space(store: &Path, disk: &Path, needed: u64) -> Result<(), StoreError> {
    let stat = statvfs(disk).map_err(|errno| StoreError::io("look at the disk of", disk, errno.into()))?;
    let free = stat.blocks_available().saturating_mul(stat.fragment_size());
    if free < needed {
        return Err(StoreError::NoSpace {
            path: store.to_owned(),
            what: format!("{} KiB are free, and {} KiB are needed to use it safely", free >> 10, needed >> 10),
        });
    }
    Ok(())
}

pub(super) fn log_bytes(store: &Path) -> Result<u64, StoreError> {
    let log = store.join("db");
    fs::metadata(&log).map(|found| found.len()).map_err(|e| StoreError::io("look at", &log, e))
}

fn holds_something(path: &Path) -> Result<bool, StoreError> {
    match check_directory(path) {
        Ok(()) => {}
        Err(StoreError::Missing { .. }) => return Ok(false),
        Err(other) => return Err(other),
    }
    let entries = fs::read_dir(path).map_err(|e| StoreError::io("read", path, e))?;
    let blobs = fs::read_dir(path.join("blobs")).ok();
    let mut some = false;
    for entry in entries.chain(blobs.into_iter().flatten()) {
        let entry = entry.map_err(|e| StoreError::io("read", path, e))?;
        let kind = entry.file_type().map_err(|e| StoreError::io("look at", &entry.path(), e))?;
        // Opening a FIFO may never end.
        if !kind.is_file() && !kind.is_dir() {
            return Err(StoreError::Permission {
                path: entry.path(),
                what: "it is neither a file nor a directory".to_owned(),
                next: "move it away".to_owned(),
            });
        }
        some = true;
    }
    Ok(some)
}

/// A kill during a snapshot leaves `snap.*.generating`, which sled then takes for a snapshot and fails to open. The data
/// is in the log; nothing else is ever removed.
fn remove_unfinished_snapshots(path: &Path) -> Result<(), StoreError> {
    let entries = fs::read_dir(path).map_err(|e| StoreError::io("read", path, e))?;
    for entry in entries {
        let entry = entry.map_err(|e| StoreError::io("read", path, e))?;
        if is_unfinished_snapshot(&entry.file_name()) {
            fs::remove_file(entry.path()).map_err(|e| StoreError::io("remove", &entry.path(), e))?;
        }
    }
    Ok(())
}

fn is_unfinished_snapshot(name: &OsStr) -> bool {
    name.as_bytes().starts_with(b"snap.") && name.as_bytes().ends_with(b".generating")
}
