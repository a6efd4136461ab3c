//! A system that does not do what it is asked for: a disk that does not give some of what is on it, a file system that does
//! not exchange directories.
//!
//! The program has its own `pread64`, `read` and `renameat2`, which the linker takes in the place of the C library's: they fail where
//! a test wants.

mod store_support;

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use managed_tokens::workflow::store::{
    self, From, ImportError, ImportOrder, Options, Shelf, StateDir, Store, StoreError,
};
use nix::errno::Errno;
use store_support::{content, counter, raise, reader, state, writer};
use tempfile::TempDir;

/// The device and the number of a file.
type FileId = (u64, u64);

fn file_id(of: &Metadata) -> FileId {
    (of.dev(), of.ino())
}

struct Bad {
    file: FileId,
    /// Where it begins.
    at: i64,
    /// How often it is not read; `None`: ever.
    times: Option<usize>,
    /// What the system says then.
    errno: Errno,
}

/// Sectors that cannot be read.
static BAD: Mutex<Vec<Bad>> = Mutex::new(Vec::new());

const SECTOR: i64 = 4096;

fn bad() -> MutexGuard<'static, Vec<Bad>> {
    BAD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sector that cannot be read for as long as this lives. The file has to outlive it: the number of a removed file is given
/// to another, which would have the sector then.
struct BadSector(FileId);

impl BadSector {
    /// In the middle of a file.
    fn within(path: &Path, times: Option<usize>, errno: Errno) -> BadSector {
        let of = fs::metadata(path).unwrap();
        let middle = of.len() as i64 / 2 / SECTOR * SECTOR + 16 * SECTOR;
        bad().push(Bad { file: file_id(&of), at: middle, times, errno });
        BadSector(file_id(&of))
    }
}

impl Drop for BadSector {
    fn drop(&mut self) {
        bad().retain(|bad| bad.file != self.0);
    }
}

/// What the system says in place of what is there. `from` is where it is read.
fn refusal(file: c_int, from: impl Fn() -> i64, length: usize) -> Option<Errno> {
    let mut all = bad();
    if all.is_empty() {
        return None;
    }
    let file = fs::metadata(format!("/proc/self/fd/{file}")).map(|file| file_id(&file)).ok()?;
    let meets = |bad: &&mut Bad| bad.file == file && from() < bad.at + SECTOR && from() + length as i64 > bad.at;
    match all.iter_mut().find(meets)? {
        Bad { times: None, errno, .. } => Some(*errno),
        Bad { times: Some(0), .. } => None,
        Bad { times: Some(times), errno, .. } => {
            *times -= 1;
            Some(*errno)
        }
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(file: c_int, buffer: *mut c_void, length: usize, from: i64) -> isize {
    if let Some(errno) = refusal(file, || from, length) {
        errno.set();
        return -1;
    }
    // SAFETY: the caller vouches for the buffer.
    unsafe { libc::syscall(libc::SYS_pread64, file, buffer, length, from) as isize }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn read(file: c_int, buffer: *mut c_void, length: usize) -> isize {
    // SAFETY: no memory is touched.
    if let Some(errno) = refusal(file, || unsafe { libc::lseek(file, 0, libc::SEEK_CUR) }, length) {
        errno.set();
        return -1;
    }
    // SAFETY: the caller vouches for the buffer.
    unsafe { libc::syscall(libc::SYS_read, file, buffer, length) as isize }
}

/// Below this name nothing is exchanged.
const CANNOT_EXCHANGE: &str = "cannot-exchange";

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: the caller vouches for the name.
    let name = unsafe { CStr::from_ptr(new) }.to_string_lossy();
    if name.contains(CANNOT_EXCHANGE) && flags == libc::RENAME_EXCHANGE {
        Errno::EINVAL.set();
        return -1;
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_renameat2, from, old, to, new, flags) as c_int }
}

#[test]
fn where_directories_cannot_be_exchanged_nothing_is_copied_and_the_store_stays() {
    let tmp = tempfile::tempdir().unwrap();
    let state = StateDir::create(tmp.path().join(CANNOT_EXCHANGE)).unwrap();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.close();
    let refused = store::compact(&state, &Options::default()).unwrap_err();
    assert!(matches!(refused, StoreError::Io { doing: "exchange with its copy", .. }), "{refused}");
    let left: Vec<_> = fs::read_dir(state.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(!left.iter().any(|name| name == "store.new" || name == "store.copy"), "{left:?}");
    assert_eq!(counter(&reader(&state), "n"), 1);
}

/// Given up in this order.
struct Corner {
    _sector: BadSector,
    tmp: TempDir,
    state: StateDir,
}

/// A store of some segments, closed in good order and opened again, with a bad sector in the middle of its log.
fn with_a_bad_sector(times: Option<usize>, errno: Errno) -> Corner {
    let (tmp, state) = state();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    for n in 0..200 {
        store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n:03}"), &"x".repeat(9_000))).unwrap();
    }
    store.close();
    writer(&state).close();
    let sector = BadSector::within(&state.store().join("db"), times, errno);
    Corner { _sector: sector, tmp, state }
}

fn order(from: From, replace: bool) -> ImportOrder {
    ImportOrder { from, uids: BTreeMap::new(), replace }
}

#[test]
fn with_a_bad_sector_the_rest_is_saved_and_imported() {
    let Corner { ref tmp, ref state, .. } = with_a_bad_sector(None, Errno::EIO);
    let found = store::verify(state, &Options::default()).unwrap();
    assert!(!found.is_whole(), "{found:?}");
    assert!(matches!(found.unusable, Some(StoreError::Io { .. })), "{found:?}");
    assert!(found.trouble.iter().any(|what| what == "the disk withholds 4096 bytes of its log"), "{found:?}");
    let (exported, text) = store::export(state, &Options::default(), || Ok(Vec::new())).unwrap();
    assert!(exported.records > 150, "one sector has cost {} of 200 records", 200 - exported.records);
    assert!(!exported.is_whole());
    let path = tmp.path().join("export");
    fs::write(&path, text).unwrap();
    let done = store::import(state, &order(From::File { path, partial: false }, false), &Options::default()).unwrap();
    assert!(done.aside.unwrap().to_string_lossy().contains("store.damaged-"));
    assert_eq!(done.records, exported.records);
    let store = writer(state);
    raise(&store, "n").unwrap();
    store.close();
    assert_eq!(counter(&reader(state), "n"), 2);
}

#[test]
fn with_a_bad_sector_a_fresh_store_is_begun_when_that_is_asked_for() {
    for replace in [false, true] {
        let Corner { ref state, .. } = with_a_bad_sector(None, Errno::EIO);
        let done = store::import(state, &order(From::Empty, replace), &Options::default()).unwrap();
        assert!(done.aside.unwrap().join("db").exists());
        writer(state).close();
    }
}

#[test]
fn a_whole_store_is_not_replaced_because_it_could_not_be_read_once() {
    let Corner { ref state, .. } = with_a_bad_sector(Some(1), Errno::EIO);
    let refused = store::import(state, &order(From::Empty, false), &Options::default());
    assert!(matches!(refused, Err(ImportError::Store(StoreError::Io { .. }))), "{refused:?}");
    assert_eq!(counter(&reader(state), "n"), 1);
}

#[test]
fn a_whole_store_is_not_replaced_because_the_system_has_no_memory_to_read_it() {
    for replace in [false, true] {
        let Corner { _sector: sector, tmp: _tmp, ref state } = with_a_bad_sector(None, Errno::ENOMEM);
        let refused = store::import(state, &order(From::Empty, replace), &Options::default());
        assert!(matches!(refused, Err(ImportError::Store(StoreError::Io { .. }))), "{refused:?}");
        drop(sector);
        assert_eq!(counter(&reader(state), "n"), 1);
    }
}

/// A store that this process uses, with a sector of a page in a file of its own that cannot be read.
fn with_a_bad_blob(times: Option<usize>, errno: Errno) -> (Corner, Store) {
    let (tmp, state) = state();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    store.write_blocking(|tx| tx.put(Shelf::Metrics, "large", &"x".repeat(300 << 10))).unwrap();
    // Another one has it now: the first has to open it again.
    let other = writer(&state);
    other.read_blocking(|_| ()).unwrap();
    other.close();
    let blobs = content(&state.store().join("blobs"));
    let largest = blobs.iter().max_by_key(|(_, content)| content.len()).unwrap().0;
    let sector = BadSector::within(Path::new(largest), times, errno);
    (Corner { _sector: sector, tmp, state }, store)
}

#[test]
fn a_store_is_not_damaged_because_a_file_of_it_could_not_be_read_for_a_moment() {
    for (errno, is_suspicious) in [(Errno::EIO, false), (Errno::ENOMEM, false), (Errno::EMFILE, true)] {
        let (corner, store) = with_a_bad_blob(Some(2), errno);
        if is_suspicious {
            // Without a snapshot a copy is tried first.
            let files = fs::read_dir(corner.state.store()).unwrap().map(|entry| entry.unwrap().path());
            let snapshots = files.filter(|path| path.to_string_lossy().contains("/snap."));
            snapshots.for_each(|path| fs::remove_file(path).unwrap());
        }
        let refused = raise(&store, "n").unwrap_err();
        assert!(matches!(refused, StoreError::Io { .. }), "{refused}");
        assert!(refused.to_string().contains("its file blobs/"), "{refused}");
        // From a moment on every request succeeds.
        let until = Instant::now() + Duration::from_secs(60);
        while let Err(error) = raise(&store, "n") {
            assert!(Instant::now() < until, "it is given up: {error}");
        }
        assert_eq!(raise(&store, "n").unwrap(), 2);
        drop((store, corner));
    }
}

#[test]
fn a_store_of_which_a_file_can_never_be_read_is_put_aside_and_the_rest_of_it_saved() {
    let (ref corner, store) = with_a_bad_blob(None, Errno::EIO);
    store.close();
    let found = store::verify(&corner.state, &Options::default()).unwrap();
    assert!(matches!(found.unusable, Some(StoreError::Io { .. })), "{found:?}");
    assert!(found.trouble.iter().any(|what| what.contains("blobs/")), "{found:?}");
    let (exported, _) = store::export(&corner.state, &Options::default(), || Ok(Vec::new())).unwrap();
    assert!(exported.records > 0 && !exported.is_whole(), "{exported:?}");
    let done = store::import(&corner.state, &order(From::Empty, false), &Options::default()).unwrap();
    assert!(done.aside.unwrap().to_string_lossy().contains("store.damaged-"));
}
