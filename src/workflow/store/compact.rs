//! Copying the store into a fresh one: sled reuses the room of what was removed, and never gives it back.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::durable;
use super::error::StoreError;
use super::fresh::{Fresh, sidecar_of};
use super::handle::{Access, Options};
use super::keys::{SEQUENCE, STORE_ID, Tree};
use super::lock::Line;
use super::open::{Opened, check_free_space, size_of};
use super::sidecar::{Sidecar, sync_directory};
use super::state_dir::{StateDir, make_directory};
use super::view::View;
use crate::crash_point::{CrashPoint, pass};

/// A smaller store is never copied, in bytes.
const WORTH_IT: u64 = 64 << 20;

/// A store is copied when it has grown to so many times what it was when it was fresh.
const GROWN: u64 = 3;

/// What a compaction brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    /// What the store took on the disk, in bytes.
    pub before: u64,
    /// What it takes now.
    pub after: u64,
    /// Records in it.
    pub records: usize,
}

/// Compacts the store if it has become big and several times what it was when it was fresh. Cheap if not.
///
/// Its blobs count: sled forgets, when it is closed, which of them it was about to remove.
///
/// # Errors
/// As [`compact`].
pub fn compact_if_due(state: &StateDir, options: &Options) -> Result<Option<Compacted>, StoreError> {
    let Some(sidecar) = Sidecar::read(&state.sidecar(), &state.store())? else { return Ok(None) };
    let size = size_of(&state.store()).map_err(|e| StoreError::io("look at", &state.store(), e))?;
    if size < WORTH_IT.max(GROWN.saturating_mul(sidecar.fresh_bytes)) {
        return Ok(None);
    }
    compact(state, options)
}

/// Copies every record into a fresh store, which then takes the place of the present one, with its id and its count of group
/// commits. Other processes wait meanwhile, and find the same records afterwards.
///
/// A kill leaves one store or the other, whole.
///
/// # Errors
/// [`StoreError`]; the store is as it was then. `Ok(None)`: there is no store.
pub fn compact(state: &StateDir, options: &Options) -> Result<Option<Compacted>, StoreError> {
    let _turn = Line::new(state).turn(options.patience)?;
    let Some(opened) = Opened::open_caught(state, Access::ReadWrite, options.min_free, &Arc::default())? else {
        return Ok(None);
    };
    let path = state.store();
    let size = |of| size_of(of).map_err(|e| StoreError::io("look at", of, e));
    let before = size(&path)?;
    // The copy is not bigger than twice what is copied, and that is not bigger than the store.
    check_free_space(&path, state.path(), options.min_free.saturating_add(2 * before))?;
    try_exchange(state)?;
    let mut fresh = Fresh::begin(state, options.min_free)?;
    let mut records = 0;
    {
        let view = View::new(Some(opened.base()), None, &path);
        for tree in Tree::ALL.iter().copied() {
            view.scan_after(tree, None, &mut |key, value| {
                let own = tree == Tree::Meta && [STORE_ID, SEQUENCE].iter().any(|own| own.as_bytes() == key);
                if !own {
                    fresh.put(tree, key, value)?;
                    records += 1;
                }
                Ok(ControlFlow::Continue(()))
            })?;
        }
    }
    let (store_id, sequence) = opened.identity();
    let new = fresh.finish(store_id, sequence)?;
    drop(opened);
    // At once: there is no moment without a store, and the sidecar fits both.
    pass(CrashPoint::StoreExchangeBefore);
    exchange(&new, &path)?;
    pass(CrashPoint::StoreExchangeAfter);
    sync_directory(state.path()).map_err(|e| StoreError::io("sync", state.path(), e))?;
    sidecar_of(&path, store_id, sequence)?.write(&state.sidecar())?;
    // What stays after a kill here is removed by whoever makes the next store.
    fs::remove_dir_all(&new).map_err(|e| StoreError::io("remove the copied", &new, e))?;
    Ok(Some(Compacted { before, after: size(&path)?, records }))
}

pub(super) fn exchange(one: &Path, other: &Path) -> Result<(), StoreError> {
    renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)
        .map_err(|errno| StoreError::io("exchange with its copy", other, io::Error::from(errno)))?;
    durable::replaced(one);
    durable::replaced(other);
    Ok(())
}

/// Not every file system exchanges directories: that is to be known before everything is copied.
fn try_exchange(state: &StateDir) -> Result<(), StoreError> {
    let (one, other) = (state.new_store(), state.copied_store());
    for directory in [&one, &other] {
        make_directory(directory, false)?;
    }
    let done = exchange(&one, &other);
    for directory in [&one, &other] {
        fs::remove_dir_all(directory).map_err(|e| StoreError::io("remove", directory, e))?;
    }
    done
}
