//! What sled takes for durable is durable.
//!
//! sled removes a blob, and writes anew where a page was, as soon as what replaces them is "stable". On Linux that is what
//! `sync_file_range` has written. But this call writes neither the size nor the place of what is new in a file, and leaves
//! the disk's own cache as it is; and sled never syncs its blobs. So when the power fails, what replaced a page can be
//! missing and the page be gone, with records that were acknowledged long before. A `fdatasync` after each commit is too late
//! for it. The same goes for the snapshot with which sled opens a store: the renaming of it can be undone, and what was
//! written in the places of older segments not. `tests/store_disk` has seen it in a hundred power failures.
//!
//! sled has no setting for this. So the program has its own `sync_file_range`, which the linker takes in the place of the C
//! library's; sled is its only caller. It syncs the blobs first, then the log that points to them.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{OsString, c_int, c_uint};
use std::fs::{self, File};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::unistd::fdatasync;

use super::sidecar::sync_directory;

/// How new a directory's time must be for a file made right after to leave it unchanged: clocks of file systems tick slowly.
const CLOCK_TICK: Duration = Duration::from_millis(100);

/// The stores that this process has or had open, by the directories of their blobs.
static STORES: Mutex<BTreeMap<PathBuf, Blobs>> = Mutex::new(BTreeMap::new());

/// Pages over 128 KiB, which lie in files of their own.
#[derive(Debug, Default)]
struct Blobs {
    /// Those that are synced.
    known: HashSet<OsString>,
    /// The directory's time when it was looked at last, and when that was.
    seen: Option<(SystemTime, SystemTime)>,
    /// How often all was synced.
    syncs: u64,
}

/// To be called before sled opens a store: makes durable what a process that was killed has left in it, because sled takes
/// it for that.
pub(super) fn begin(store: &Path) -> io::Result<()> {
    stores().remove(&store.join("blobs"));
    match File::open(store.join("db")) {
        Ok(log) => sync(store, Blobs::settle, || log.sync_data()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// To be called when sled has opened a store, before anything is written: sled has made a snapshot, renamed it, and relies on
/// it from now on. Segments of the log from before the snapshot are written anew, and without it the log has a gap there.
pub(super) fn opened(store: &Path) -> io::Result<()> {
    sync_directory(store)
}

/// To be called after sled's `flush`, when nobody writes: everything is durable when it returns.
pub(super) fn end_of_commit(store: &Path, before: u64) -> io::Result<()> {
    let synced = syncs(store) != before;
    // sled has synced what it wrote, unless it had written all of it before this commit.
    let sync_log = || if synced { Ok(()) } else { File::open(store.join("db"))?.sync_data() };
    sync(store, Blobs::settle, sync_log)
}

/// How often this store was synced since [`begin`].
pub(super) fn syncs(store: &Path) -> u64 {
    stores().get(&store.join("blobs")).map_or(0, |blobs| blobs.syncs)
}

/// Blobs before the log that points to them.
fn sync(
    store: &Path,
    sync_blobs: impl FnOnce(&mut Blobs, &Path) -> io::Result<()>,
    sync_log: impl FnOnce() -> io::Result<()>,
) -> io::Result<()> {
    let directory = store.join("blobs");
    let mut stores = stores();
    let blobs = stores.entry(directory.clone()).or_default();
    match sync_blobs(blobs, &directory) {
        // A store that is being made has none yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        done => done?,
    }
    sync_log()?;
    blobs.syncs += 1;
    Ok(())
}

fn stores() -> MutexGuard<'static, BTreeMap<PathBuf, Blobs>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// For sled: everything that was written before is durable when it returns 0. Offset, length and flags are those of a part
/// of the file, and do not matter.
///
/// This is the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: c_int, _offset: i64, _length: i64, _flags: c_uint) -> c_int {
    // SAFETY: the caller has the file open while it waits for us.
    let log = unsafe { BorrowedFd::borrow_raw(file) };
    let sync_log = || fdatasync(log).map_err(io::Error::from);
    let done = fs::read_link(format!("/proc/self/fd/{file}")).and_then(|path| match path.parent() {
        Some(store) => sync(store, Blobs::sync, sync_log),
        None => sync_log(),
    });
    match done {
        Ok(()) => 0,
        Err(error) => {
            Errno::set_raw(error.raw_os_error().unwrap_or(libc::EIO));
            -1
        }
    }
}

impl Blobs {
    /// Syncs what is new. It stays new: another may be half written.
    fn sync(&mut self, directory: &Path) -> io::Result<()> {
        let changed = fs::metadata(directory)?.modified()?;
        self.sync_news(directory, changed).map(|_| ())
    }

    /// Syncs what is new, when nobody writes: from then on it is known.
    fn settle(&mut self, directory: &Path) -> io::Result<()> {
        let changed = fs::metadata(directory)?.modified()?;
        let looked = SystemTime::now();
        if let Some(present) = self.sync_news(directory, changed)? {
            self.known = present;
            self.seen = Some((changed, looked));
        }
        Ok(())
    }

    /// What is there now; `None`: nothing is new.
    fn sync_news(&self, directory: &Path, changed: SystemTime) -> io::Result<Option<HashSet<OsString>>> {
        if let Some((then, looked)) = self.seen
            && then == changed
            && looked.duration_since(changed).is_ok_and(|age| age > CLOCK_TICK)
        {
            return Ok(None);
        }
        let mut present = HashSet::new();
        let mut news = false;
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.known.contains(&name) {
                match File::open(entry.path()) {
                    Ok(file) => file.sync_data()?,
                    // sled removes blobs that were replaced.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                }
                news = true;
            }
            present.insert(name);
        }
        if news {
            sync_directory(directory)?;
        }
        Ok(Some(present))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sled_syncs_with_our_call_and_a_blob_is_known_when_nobody_writes_it_any_more() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let db = sled::Config::new().path(&store).flush_every_ms(None).open().unwrap();
        begin(&store).unwrap();
        let before = syncs(&store);
        db.insert("small", "value").unwrap();
        db.flush().unwrap();
        assert!(syncs(&store) > before, "the linker has taken the C library's");
        db.insert("large", vec![7; 200 << 10]).unwrap();
        db.flush().unwrap();
        let blobs = fs::read_dir(store.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
        let blobs: HashSet<_> = blobs.collect();
        assert!(!blobs.is_empty());
        // It could have been half written when sled synced.
        assert_eq!(stores()[&store.join("blobs")].known, HashSet::new());
        end_of_commit(&store, 0).unwrap();
        assert_eq!(stores()[&store.join("blobs")].known, blobs);
    }
}
