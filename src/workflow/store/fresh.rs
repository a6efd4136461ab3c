//! A new store: made beside its place, whole and durable, and only then moved there.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use ulid::Ulid;

use super::caught::{Held, caught};
use super::durable;
use super::error::StoreError;
use super::keys::{self, TREES, Tree};
use super::open::{Purpose, Sled, check_free_space, log_bytes, open_sled, size_of};
use super::record;
use super::sidecar::{FORMAT, Sidecar, sync_directory};
use super::state_dir::{StateDir, make_directory};
use super::thread::DROP_WITHIN;
use super::view::{Base, View};
use crate::crash_point::{CrashPoint, pass};

/// So much is handed to sled at once, in bytes.
const BATCH: usize = 4 << 20;

/// A store that is being filled. Dropped without [`Fresh::finish`] it is removed, however sled took what went wrong.
pub(super) struct Fresh {
    // Dropped in this order: sled before its files.
    sled: Held<Sled>,
    place: Place,
    batches: [sled::Batch; TREES],
    waiting: usize,
    min_free: u64,
}

impl Fresh {
    /// Begins one in place of what is left of an earlier one. The caller has the turn.
    pub(super) fn begin(state: &StateDir, min_free: u64) -> Result<Self, StoreError> {
        let path = state.new_store();
        if path.exists() {
            fs::remove_dir_all(&path).map_err(|e| StoreError::io("remove what is left of an earlier", &path, e))?;
        }
        check_free_space(&path, state.path(), min_free)?;
        make_directory(&path, false)?;
        let place = Place { path, keep: false };
        // The file that sled has locked goes away with the place: sled is in nobody's way where it does not let go.
        let sled = open_sled(&place.path, Purpose::Fill)?.dropped_within(DROP_WITHIN);
        Ok(Self { sled, place, batches: Default::default(), waiting: 0, min_free })
    }

    /// Puts a record as it lies in a store. A later one of the same key wins.
    pub(super) fn put(&mut self, tree: Tree, key: &[u8], value: &[u8]) -> Result<(), StoreError> {
        self.batches[tree as usize].insert(key, value);
        self.grown(key.len() + value.len())
    }

    pub(super) fn remove(&mut self, tree: Tree, key: &[u8]) -> Result<(), StoreError> {
        self.batches[tree as usize].remove(key);
        self.grown(key.len())
    }

    fn grown(&mut self, by: usize) -> Result<(), StoreError> {
        self.waiting += by;
        if self.waiting >= BATCH { self.write() } else { Ok(()) }
    }

    /// Hands over what waits; [`Fresh::view`] sees it then.
    pub(super) fn write(&mut self) -> Result<(), StoreError> {
        let path = &self.place.path;
        check_free_space(path, path, self.min_free.saturating_add(4 * self.waiting as u64))?;
        for (tree, batch) in self.sled.trees.iter().zip(&mut self.batches) {
            guarded(path, || tree.apply_batch(std::mem::take(batch)))?;
        }
        self.waiting = 0;
        Ok(())
    }

    /// What was written so far.
    pub(super) fn view(&self) -> View<'_> {
        let path = &self.place.path;
        View::new(Some(Base { trees: &self.sled.trees, path, counts: None }), None, path)
    }

    /// Makes it whole and durable, and says where it is.
    pub(super) fn finish(mut self, store_id: Ulid, sequence: u64) -> Result<PathBuf, StoreError> {
        self.put(Tree::Meta, keys::STORE_ID.as_bytes(), &record::encode(Tree::Meta, keys::STORE_ID, &store_id)?)?;
        self.put(Tree::Meta, keys::SEQUENCE.as_bytes(), &record::encode(Tree::Meta, keys::SEQUENCE, &sequence)?)?;
        self.write()?;
        // An error drops them the other way round.
        let Self { mut place, sled, .. } = self;
        let path = place.path.clone();
        guarded(&path, || sled.db.flush().map(|_| ()))?;
        let sync = || sync_tree(&path).map_err(|e| StoreError::io("sync", &path, e));
        // Before sled ends: it panics where it cannot sync.
        sync()?;
        // sled writes what it has left.
        sled.close().map_err(|why| StoreError::io("write", &path, io::Error::other(why)))?;
        sync()?;
        place.keep = true;
        Ok(path)
    }
}

/// Where a store is made.
struct Place {
    path: PathBuf,
    keep: bool,
}

impl Drop for Place {
    fn drop(&mut self) {
        if !self.keep {
            // It may be large. Whoever makes the next one tries it again, and says so.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// What is being made is never damaged: it could not be written.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, sled::Error>) -> Result<T, StoreError> {
    let done = caught(work).map_err(io::Error::other).and_then(|done| done.map_err(io::Error::from));
    done.map_err(|e| StoreError::io("write", path, e))
}

/// Makes an empty store. A kill leaves a whole store or none.
pub(super) fn create(state: &StateDir) -> Result<(), StoreError> {
    let store_id = Ulid::new();
    // Whoever opens it has seen that there is room.
    let new = Fresh::begin(state, 0)?.finish(store_id, 0)?;
    put_in_place(state, &new, store_id, 0)
}

/// Moves a whole store to its place, where nothing or an empty directory is, and writes its sidecar.
pub(super) fn put_in_place(state: &StateDir, new: &Path, store_id: Ulid, sequence: u64) -> Result<(), StoreError> {
    let path = state.store();
    // An empty `store/` may stand there; renaming replaces it.
    pass(CrashPoint::StoreMadeBefore);
    fs::rename(new, &path).map_err(|e| StoreError::io("make", &path, e))?;
    durable::replaced(&path);
    pass(CrashPoint::StoreMadeAfter);
    sync_directory(state.path()).map_err(|e| StoreError::io("sync", state.path(), e))?;
    sidecar_of(&path, store_id, sequence)?.write(&state.sidecar())
}

/// The sidecar of a store that has just been made, here.
pub(super) fn sidecar_of(store: &Path, store_id: Ulid, sequence: u64) -> Result<Sidecar, StoreError> {
    let fresh_bytes = size_of(store).map_err(|e| StoreError::io("look at", store, e))?;
    Ok(Sidecar { format: FORMAT, store_id, checkpoint: sequence, log_bytes: log_bytes(store)?, fresh_bytes })
}

/// Syncs every file and directory in a directory.
fn sync_tree(path: &Path) -> io::Result<()> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            sync_tree(&entry.path())?;
        } else {
            File::open(entry.path())?.sync_all()?;
        }
    }
    sync_directory(path)
}
