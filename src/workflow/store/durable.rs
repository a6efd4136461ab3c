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
//! library's; sled is its only caller. It syncs the blobs first, then the log that points to them. And it has its own
//! `rename`, which makes the name of a snapshot durable.
//!
//! What could not be synced is lost, and the system says so once. No store is written or opened again then by this process,
//! and what the system still keeps of it in memory is forgotten, so that the next process reads what is on the disk.

use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, OsStr, c_char, c_int, c_uint};
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::ManuallyDrop;
use std::os::fd::FromRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use nix::errno::Errno;
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};

/// The stores that this process has or had open, by the directories of their blobs.
static STORES: Mutex<BTreeMap<PathBuf, Blobs>> = Mutex::new(BTreeMap::new());

/// Pages over 128 KiB, which lie in files of their own. The name of a blob is its place in sled's time, which only rises.
#[derive(Debug, Default)]
struct Blobs {
    /// Those that are older are synced.
    older: u64,
    /// Of the others those that are synced.
    known: HashSet<u64>,
    /// How often all was synced.
    syncs: u64,
    /// Nobody uses the store yet.
    unused: bool,
    /// Something could not be synced.
    failed: Option<Failed>,
}

/// Why something could not be synced.
#[derive(Debug)]
struct Failed {
    kind: io::ErrorKind,
    text: String,
}

impl Failed {
    /// The system tells of it once: what it could not write is still read, and is not on the disk.
    fn told(&self) -> io::Error {
        io::Error::new(self.kind, format!("what was written is lost ({}), and cannot be relied on", self.text))
    }
}

/// Why a store is not synced.
enum Unsynced {
    /// It did not come to that, for want of a descriptor, say. Another attempt may do it.
    NotTried(io::Error),
    /// The system could not write what it had taken. Another attempt would not be told of it.
    Lost(io::Error),
}

impl From<io::Error> for Unsynced {
    fn from(error: io::Error) -> Self {
        Self::NotTried(error)
    }
}

/// To be called before sled opens a store: makes durable what a process that was killed has left in it, because sled takes
/// it for that.
///
/// sled's newest snapshot was made after this: blobs that are older than it are left alone.
pub(super) fn begin(store: &Path) -> io::Result<()> {
    let store = &resolved(store);
    let older = newest_snapshot(store)?.unwrap_or(0);
    let mut stores = stores();
    let blobs = stores.entry(store.join("blobs")).or_default();
    if let Some(failed) = &blobs.failed {
        return Err(failed.told());
    }
    *blobs = Blobs { older, ..Blobs::default() };
    drop(stores);
    match File::open(store.join("db")) {
        Ok(log) => sync(store, Writers::None, || {
            // The snapshot of whoever was killed when it had made one.
            sync_names(store)?;
            sync_file(&log)
        }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// As the system names an open file's place, which [`sync_file_range`] goes by.
fn resolved(store: &Path) -> PathBuf {
    fs::canonicalize(store).unwrap_or_else(|_| store.to_owned())
}

/// To be called before sled opens a store that nobody relies on: one that is synced as a whole before anybody uses it, or a
/// copy that is thrown away. Until [`begin`], sled syncs nothing of it.
pub(super) fn begin_unused(store: &Path) {
    stores().insert(resolved(store).join("blobs"), Blobs { unused: true, ..Blobs::default() });
}

/// To be called when another store has come to this place: what is known was about the one before, what is lost of it too.
pub(super) fn replaced(store: &Path) {
    stores().remove(&resolved(store).join("blobs"));
}

/// How far sled's newest snapshot goes, in its time: the name says so.
pub(super) fn newest_snapshot(store: &Path) -> io::Result<Option<u64>> {
    let mut newest = None;
    for entry in fs::read_dir(store)? {
        let name = entry?.file_name();
        let until = name.to_str().and_then(|name| name.strip_prefix(SNAPSHOT));
        newest = newest.max(until.and_then(|hex| u64::from_str_radix(hex, 16).ok()));
    }
    Ok(newest)
}

/// How sled's snapshots are named.
const SNAPSHOT: &str = "snap.";

/// To be called after sled's `flush`, when nobody writes: everything is durable when it returns.
pub(super) fn end_of_commit(store: &Path, before: u64) -> io::Result<()> {
    let store = &resolved(store);
    {
        let mut stores = stores();
        let blobs = stores.entry(store.join("blobs")).or_default();
        if blobs.syncs != before && blobs.failed.is_none() {
            // sled has synced what it wrote, every blob before the part of the log that points to it.
            blobs.settle();
            return Ok(());
        }
    }
    static TOLD: Once = Once::new();
    TOLD.call_once(|| tracing::error!("sled does not sync with mt's own call: a power failure may damage the store"));
    sync(store, Writers::None, || sync_file(&File::open(store.join("db"))?))
}

/// How often this store was synced since [`begin`].
pub(super) fn syncs(store: &Path) -> u64 {
    stores().get(&resolved(store).join("blobs")).map_or(0, |blobs| blobs.syncs)
}

/// Blobs before the log that points to them.
fn sync(store: &Path, writers: Writers, sync_log: impl FnOnce() -> Result<(), Unsynced>) -> io::Result<()> {
    let directory = store.join("blobs");
    let mut stores = stores();
    let blobs = stores.entry(directory.clone()).or_default();
    if blobs.unused {
        return Ok(());
    }
    if let Some(failed) = &blobs.failed {
        return Err(failed.told());
    }
    match blobs.sync(&directory, writers).and_then(|()| sync_log()) {
        Ok(()) => {
            blobs.syncs += 1;
            Ok(())
        }
        Err(Unsynced::NotTried(error)) => Err(error),
        Err(Unsynced::Lost(error)) => {
            blobs.failed = Some(Failed { kind: error.kind(), text: error.to_string() });
            forget(store);
            Err(error)
        }
    }
}

fn sync_file(file: &File) -> Result<(), Unsynced> {
    file.sync_data().map_err(Unsynced::Lost)
}

/// Names of files, and what they lead to.
fn sync_names(directory: &Path) -> Result<(), Unsynced> {
    File::open(directory)?.sync_all().map_err(Unsynced::Lost)
}

/// Sees to it that the next process reads what is on the disk. The system may keep what it could not write, as if it had.
fn forget(store: &Path) {
    let blobs = fs::read_dir(store.join("blobs")).into_iter().flatten().flatten().map(|blob| blob.path());
    for path in blobs.chain([store.join("db")]) {
        if let Ok(file) = File::open(path) {
            // What is not forgotten is as it would be without this.
            let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
        }
    }
}

fn stores() -> MutexGuard<'static, BTreeMap<PathBuf, Blobs>> {
    STORES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the C library would give.
fn told(done: io::Result<()>) -> c_int {
    match done {
        Ok(()) => 0,
        Err(error) => {
            Errno::set_raw(error.raw_os_error().unwrap_or(libc::EIO));
            -1
        }
    }
}

/// For sled: everything that was written before is durable when it returns 0. Offset, length and flags are those of a part
/// of the file, and do not matter.
///
/// This is the C library's name and signature.
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(file: c_int, _offset: i64, _length: i64, _flags: c_uint) -> c_int {
    // SAFETY: the caller has the file open while it waits for us, and closes it itself.
    let log = ManuallyDrop::new(unsafe { File::from_raw_fd(file) });
    told(fs::read_link(format!("/proc/self/fd/{file}")).and_then(|path| match path.parent() {
        Some(store) => sync(store, Writers::Others, || sync_file(&log)),
        None => log.sync_data(),
    }))
}

/// For sled, which relies on its snapshot once it is renamed, and writes anew what the one before still needs: the name of
/// a snapshot is durable when it returns 0. Everybody else's renames are what they were.
///
/// This is the C library's name and signature.
///
/// # Safety
/// As the C library's: both are strings that end with a zero.
#[unsafe(no_mangle)]
unsafe extern "C" fn rename(old: *const c_char, new: *const c_char) -> c_int {
    // SAFETY: as the caller says.
    let (done, new) = unsafe { (libc::renameat(libc::AT_FDCWD, old, libc::AT_FDCWD, new), CStr::from_ptr(new)) };
    if done == 0 { told(renamed(Path::new(OsStr::from_bytes(new.to_bytes())))) } else { done }
}

fn renamed(new: &Path) -> io::Result<()> {
    let is_snapshot = new.file_name().is_some_and(|name| name.as_bytes().starts_with(SNAPSHOT.as_bytes()));
    let Some(store) = new.parent().filter(|_| is_snapshot).map(resolved) else { return Ok(()) };
    if !stores().contains_key(&store.join("blobs")) {
        return Ok(());
    }
    sync(&store, Writers::Others, || sync_names(&store))
}

/// May a blob be half written?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Writers {
    /// Nobody writes.
    None,
    /// Others may write meanwhile.
    Others,
}

impl Blobs {
    /// Syncs what is new. What is whole is known from then on: a blob is written once.
    fn sync(&mut self, directory: &Path, writers: Writers) -> Result<(), Unsynced> {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            // A store that is being made has none yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let mut news = false;
        for entry in entries {
            let entry = entry?;
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            if id < self.older || self.known.contains(&id) {
                continue;
            }
            let mut file = match File::open(entry.path()) {
                Ok(file) => file,
                // sled removes blobs that were replaced.
                Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                Err(e) => return Err(e.into()),
            };
            // Before it is synced: what is whole then is whole on the disk.
            if writers == Writers::None || is_whole(&mut file)? {
                self.known.insert(id);
            }
            sync_file(&file)?;
            news = true;
        }
        if news {
            sync_names(directory)?;
        }
        if writers == Writers::None {
            self.settle();
        }
        Ok(())
    }

    /// Nobody writes: what is yet to come is newer than what is known.
    fn settle(&mut self) {
        self.older = self.known.drain().map(|id| id + 1).fold(self.older, u64::max);
    }
}

/// A blob begins with the checksum of all that follows.
fn is_whole(file: &mut File) -> io::Result<bool> {
    let mut content = Vec::new();
    file.read_to_end(&mut content)?;
    Ok(content.split_first_chunk().is_some_and(|(crc, rest)| crc32fast::hash(rest) == u32::from_le_bytes(*crc)))
}

#[cfg(test)]
mod tests {
    use super::super::compact::exchange;
    use super::super::{Access, From, ImportOrder, Options, StateDir, Store, import};
    use super::*;

    #[test]
    fn sled_syncs_with_our_call_and_a_blob_is_known_when_the_log_points_to_it() {
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
        assert!(!ids(&store).is_empty());
        assert_eq!(stores()[&resolved(&store).join("blobs")].known, ids(&store));
    }

    fn open(store: &Path) -> sled::Db {
        loop {
            match sled::Config::new().path(store).flush_every_ms(None).open() {
                Ok(db) => return db,
                // Threads of the one before may have it for a moment.
                Err(error) if error.to_string().contains("could not acquire lock") => std::thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
        }
    }

    fn ids(store: &Path) -> HashSet<u64> {
        let names = fs::read_dir(store.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
        names.map(|name| name.to_str().unwrap().parse().unwrap()).collect()
    }

    #[test]
    fn the_name_of_a_snapshot_is_durable_before_sled_relies_on_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        open(&store).insert("small", "value").unwrap();
        begin(&store).unwrap();
        let before = (newest_snapshot(&store).unwrap(), syncs(&store));
        drop(open(&store));
        let after = (newest_snapshot(&store).unwrap(), syncs(&store));
        assert!(before.0 < after.0, "sled has made no snapshot: {before:?} {after:?}");
        assert!(before.1 < after.1, "the linker has taken the C library's rename");
    }

    #[test]
    fn what_a_killed_process_has_left_is_synced_before_sled_opens_the_store() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        open(&store).insert("large", vec![7; 200 << 10]).unwrap();
        begin(&store).unwrap();
        assert_eq!(syncs(&store), 1);
        let newest = ids(&store).into_iter().max().unwrap();
        assert_eq!(stores()[&resolved(&store).join("blobs")].older, newest + 1);
    }

    /// What every sync here relies on: nothing that is written later is taken for older.
    #[test]
    fn a_blob_is_always_newer_than_those_before_it_and_than_the_snapshot() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        let mut newest = 0;
        for round in 0..20_u8 {
            let db = open(&store);
            let snapshot = newest_snapshot(&store).unwrap().unwrap_or(0);
            let there = ids(&store);
            assert!(there.iter().all(|id| *id < snapshot), "round {round}: {there:?}, {snapshot}");
            newest = there.into_iter().fold(newest, u64::max);
            for n in 0..4_u8 {
                db.insert([n % 2, round % 3], vec![n; (90 << 10) * usize::from(n)]).unwrap();
                db.flush().unwrap();
                let new: Vec<u64> = ids(&store).into_iter().filter(|id| *id > newest).collect();
                assert!(n < 2 || !new.is_empty(), "round {round}: no new blob is newer than {newest}");
                assert!(new.iter().all(|id| *id >= snapshot));
                newest = new.into_iter().fold(newest, u64::max);
            }
            if round % 5 == 4 {
                db.remove([1, round % 3]).unwrap();
            }
        }
    }

    #[test]
    fn a_store_is_known_by_any_of_its_names() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("real/store");
        fs::create_dir(directory.path().join("real")).unwrap();
        let db = sled::Config::new().path(&store).flush_every_ms(None).open().unwrap();
        std::os::unix::fs::symlink("real", directory.path().join("link")).unwrap();
        let linked = directory.path().join("link/../link/store");
        begin(&linked).unwrap();
        let before = syncs(&linked);
        db.insert("small", "value").unwrap();
        db.flush().unwrap();
        assert_eq!((syncs(&linked), syncs(&store)), (before + 1, before + 1));
    }

    #[test]
    fn a_store_of_which_something_could_not_be_synced_is_not_written_nor_opened_again() {
        // Whatever the error: a call that syncs has failed, and the next would not.
        for errno in [libc::EIO, libc::ENOSPC, libc::ETIMEDOUT] {
            let directory = tempfile::tempdir().unwrap();
            let store = directory.path().join("store");
            let db = sled::Config::new().path(&store).flush_every_ms(None).open().unwrap();
            begin(&store).unwrap();
            let lost = || Err(Unsynced::Lost(io::Error::from_raw_os_error(errno)));
            sync(&resolved(&store), Writers::None, lost).unwrap_err();
            db.insert("small", "value").unwrap();
            db.flush().unwrap_err();
            for _ in 0..2 {
                let told = begin(&store).unwrap_err().to_string();
                assert!(told.contains("is lost"), "{told}");
            }
        }
    }

    #[test]
    fn what_was_lost_of_a_store_is_not_told_of_the_one_that_takes_its_place() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        let store = || Store::open(&state, Access::ReadWrite);
        let lose = || {
            let lost = || Err(Unsynced::Lost(io::Error::from_raw_os_error(libc::EIO)));
            sync(&resolved(&state.store()), Writers::None, lost).unwrap_err();
        };
        store().unwrap().close();
        lose();
        assert!(store().unwrap_err().to_string().contains("is lost"));
        // So it is put aside.
        fs::remove_file(state.store().join("db")).unwrap();
        let order = ImportOrder { from: From::Empty, uids: BTreeMap::new(), replace: false };
        let aside = import(&state, &order, &Options::default()).unwrap().aside;
        assert!(aside.is_some());
        store().unwrap().close();
        // So it is compacted.
        lose();
        fs::rename(aside.unwrap(), state.new_store()).unwrap();
        exchange(&state.new_store(), &state.store()).unwrap();
        begin(&state.store()).unwrap();
    }

    #[test]
    fn a_store_of_which_nothing_was_tried_to_sync_can_be_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        drop(sled::Config::new().path(&store).flush_every_ms(None).open().unwrap());
        begin(&store).unwrap();
        let not_tried = || Err(Unsynced::NotTried(io::Error::from_raw_os_error(libc::EMFILE)));
        sync(&resolved(&store), Writers::None, not_tried).unwrap_err();
        begin(&store).unwrap();
    }

    #[test]
    fn a_blob_that_is_half_written_is_synced_again_and_a_whole_one_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("7");
        let body = [vec![9], vec![7; 1000]].concat();
        let whole = [crc32fast::hash(&body).to_le_bytes().to_vec(), body].concat();
        let mut blobs = Blobs::default();
        for length in [0, 3, 500, whole.len()] {
            fs::write(&path, &whole[..length]).unwrap();
            assert!(blobs.sync(directory.path(), Writers::Others).is_ok());
            assert_eq!(blobs.known.contains(&7), length == whole.len(), "{length}");
        }
        // A damaged one of a store that nobody writes is as whole as it will be.
        fs::write(directory.path().join("8"), "odd").unwrap();
        assert!(blobs.sync(directory.path(), Writers::None).is_ok());
        assert_eq!((blobs.older, blobs.known.len()), (9, 0));
    }

    #[test]
    fn a_blob_from_before_the_snapshot_is_not_synced_again_and_one_from_after_it_is() {
        let directory = tempfile::tempdir().unwrap();
        for id in [7, 8, 9] {
            fs::write(directory.path().join(id.to_string()), 0_u32.to_le_bytes()).unwrap();
        }
        let mut blobs = Blobs { older: 8, ..Blobs::default() };
        assert!(blobs.sync(directory.path(), Writers::Others).is_ok());
        assert_eq!(blobs.known, HashSet::from([8, 9]));
    }
}
