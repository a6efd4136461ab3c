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
use std::io::{self, Read};
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
    /// Those that are older are synced, too.
    known_before: Option<SystemTime>,
    /// The directory's time when it was looked at last, and when that was.
    seen: Option<(SystemTime, SystemTime)>,
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

/// To be called before sled opens a store: makes durable what a process that was killed has left in it, because sled takes
/// it for that.
///
/// The sidecar is written when everything is durable: blobs that are older than it are left alone.
pub(super) fn begin(store: &Path) -> io::Result<()> {
    let store = &resolved(store);
    let sidecar = fs::metadata(store.with_extension("json")).and_then(|sidecar| sidecar.modified()).ok();
    // Of a time that is to come nothing is older.
    let known_before = sidecar.filter(|written| *written <= SystemTime::now());
    let earlier = stores().insert(store.join("blobs"), Blobs { known_before, ..Blobs::default() });
    if let Some(why) = earlier.and_then(|blobs| blobs.failed) {
        // The system tells of it once: what it could not write is still read, and is not on the disk.
        let told =
            io::Error::new(why.kind, format!("what was written is lost ({}), and cannot be relied on", why.text));
        stores().entry(store.join("blobs")).or_default().failed = Some(why);
        return Err(told);
    }
    match File::open(store.join("db")) {
        Ok(log) => {
            // The snapshot of whoever was killed when it had made one.
            sync_directory(store)?;
            sync(store, Writers::None, || log.sync_data())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// As the system names an open file's place, which [`sync_file_range`] goes by.
fn resolved(store: &Path) -> PathBuf {
    fs::canonicalize(store).unwrap_or_else(|_| store.to_owned())
}

/// To be called before sled makes a store that is synced as a whole before anybody uses it: until [`begin`], sled syncs nothing
/// of it.
pub(super) fn begin_unused(store: &Path) {
    stores().insert(resolved(store).join("blobs"), Blobs { unused: true, ..Blobs::default() });
}

/// To be called when sled has opened a store, before anything is written: sled has made a snapshot, renamed it, and relies on
/// it from now on. Segments of the log from before the snapshot are written anew, and without it the log has a gap there.
pub(super) fn opened(store: &Path) -> io::Result<()> {
    sync_directory(store)
}

/// To be called after sled's `flush`, when nobody writes: everything is durable when it returns.
pub(super) fn end_of_commit(store: &Path, before: u64) -> io::Result<()> {
    let store = &resolved(store);
    let synced = syncs(store) != before;
    // sled has synced what it wrote, unless it had written all of it before this commit.
    let sync_log = || if synced { Ok(()) } else { File::open(store.join("db"))?.sync_data() };
    sync(store, Writers::None, sync_log)
}

/// How often this store was synced since [`begin`].
pub(super) fn syncs(store: &Path) -> u64 {
    stores().get(&resolved(store).join("blobs")).map_or(0, |blobs| blobs.syncs)
}

/// Blobs before the log that points to them.
fn sync(store: &Path, writers: Writers, sync_log: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    let directory = store.join("blobs");
    let mut stores = stores();
    let blobs = stores.entry(directory.clone()).or_default();
    if blobs.unused {
        return Ok(());
    }
    let synced = match blobs.sync(&directory, writers) {
        // A store that is being made has none yet.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    };
    match synced.and_then(|()| sync_log()) {
        Ok(()) => blobs.syncs += 1,
        Err(error) => {
            // Not where there was no descriptor for it, say.
            if let Some(libc::EIO | libc::ENOSPC | libc::EDQUOT) = error.raw_os_error() {
                blobs.failed = Some(Failed { kind: error.kind(), text: error.to_string() });
            }
            return Err(error);
        }
    }
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
        Some(store) => sync(store, Writers::Others, sync_log),
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
    fn sync(&mut self, directory: &Path, writers: Writers) -> io::Result<()> {
        let changed = fs::metadata(directory)?.modified()?;
        if let Some((then, looked)) = self.seen
            && then == changed
            && looked.duration_since(changed).is_ok_and(|age| age > CLOCK_TICK)
        {
            return Ok(());
        }
        let looked = SystemTime::now();
        let (mut present, mut news, mut all_whole) = (HashSet::new(), false, true);
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name();
            if !self.known.contains(&name) && !self.is_older(&entry) {
                let mut file = match File::open(entry.path()) {
                    Ok(file) => file,
                    // sled removes blobs that were replaced.
                    Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
                    Err(e) => return Err(e),
                };
                // Before it is synced: what is whole then is whole on the disk.
                let whole = writers == Writers::None || is_whole(&mut file)?;
                file.sync_data()?;
                news = true;
                if !whole {
                    all_whole = false;
                    continue;
                }
            }
            present.insert(name);
        }
        if news {
            sync_directory(directory)?;
        }
        self.known = present;
        // All that were older are known now. What comes later can look older: a clock may be set back.
        self.known_before = None;
        self.seen = all_whole.then_some((changed, looked));
        Ok(())
    }

    fn is_older(&self, blob: &fs::DirEntry) -> bool {
        let written = blob.metadata().and_then(|blob| blob.modified());
        match (self.known_before, written) {
            (Some(known), Ok(written)) => known.duration_since(written).is_ok_and(|age| age > CLOCK_TICK),
            (None, _) | (_, Err(_)) => false,
        }
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
        let blobs = fs::read_dir(store.join("blobs")).unwrap().map(|entry| entry.unwrap().file_name());
        let blobs: HashSet<_> = blobs.collect();
        assert!(!blobs.is_empty());
        assert_eq!(stores()[&store.join("blobs")].known, blobs);
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
    fn a_store_of_which_something_could_not_be_synced_is_not_opened_again() {
        let directory = tempfile::tempdir().unwrap();
        let store = directory.path().join("store");
        drop(sled::Config::new().path(&store).flush_every_ms(None).open().unwrap());
        begin(&store).unwrap();
        sync(&resolved(&store), Writers::None, || Err(io::Error::from_raw_os_error(libc::EIO))).unwrap_err();
        for _ in 0..2 {
            let told = begin(&store).unwrap_err().to_string();
            assert!(told.contains("lost (Input/output error"), "{told}");
        }
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
            blobs.sync(directory.path(), Writers::Others).unwrap();
            assert_eq!(blobs.known.contains("7".as_ref() as &std::ffi::OsStr), length == whole.len(), "{length}");
        }
        // A damaged one of a store that nobody writes is as whole as it will be.
        fs::write(directory.path().join("8"), "odd").unwrap();
        blobs.sync(directory.path(), Writers::None).unwrap();
        assert_eq!(blobs.known.len(), 2);
    }

    #[test]
    fn a_blob_from_before_the_sidecar_is_not_synced_again_and_one_from_after_it_is() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("7"), "half").unwrap();
        let hour = Duration::from_secs(3600);
        for (sidecar, known) in [(SystemTime::now() + hour, 1), (SystemTime::now() - hour, 0)] {
            let mut blobs = Blobs { known_before: Some(sidecar), ..Blobs::default() };
            blobs.sync(directory.path(), Writers::Others).unwrap();
            assert_eq!((blobs.known.len(), blobs.known_before), (known, None));
        }
    }
}
