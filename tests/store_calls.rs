//! A system that does not do what it is asked for: a disk that does not give some of what is on it, a file system that does
//! not exchange directories.
//!
//! The program has its own `pread64` and `renameat2`, which the linker takes in the place of the C library's: they fail where
//! a test wants.

mod store_support;

use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use managed_tokens::workflow::store::{self, From, ImportError, ImportOrder, Options, Shelf, StateDir, StoreError};
use store_support::{counter, raise, reader, state, writer};
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
    fn within(path: &Path, times: Option<usize>) -> BadSector {
        let of = fs::metadata(path).unwrap();
        let middle = of.len() as i64 / 2 / SECTOR * SECTOR + 16 * SECTOR;
        bad().push(Bad { file: file_id(&of), at: middle, times });
        BadSector(file_id(&of))
    }
}

impl Drop for BadSector {
    fn drop(&mut self) {
        bad().retain(|bad| bad.file != self.0);
    }
}

fn is_bad(file: c_int, from: i64, length: usize) -> bool {
    let mut all = bad();
    if all.is_empty() {
        return false;
    }
    let Ok(file) = fs::metadata(format!("/proc/self/fd/{file}")).map(|file| file_id(&file)) else { return false };
    let meets = |bad: &&mut Bad| bad.file == file && from < bad.at + SECTOR && from + length as i64 > bad.at;
    match all.iter_mut().find(meets) {
        Some(Bad { times: None, .. }) => true,
        Some(Bad { times: Some(times), .. }) if *times > 0 => {
            *times -= 1;
            true
        }
        Some(_) | None => false,
    }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn pread64(file: c_int, buffer: *mut c_void, length: usize, from: i64) -> isize {
    if is_bad(file, from, length) {
        nix::errno::Errno::EIO.set();
        return -1;
    }
    // SAFETY: the caller vouches for the buffer.
    unsafe { libc::syscall(libc::SYS_pread64, file, buffer, length, from) as isize }
}

/// Below this name nothing is exchanged.
const CANNOT_EXCHANGE: &str = "cannot-exchange";

#[unsafe(no_mangle)]
unsafe extern "C" fn renameat2(from: c_int, old: *const c_char, to: c_int, new: *const c_char, flags: c_uint) -> c_int {
    // SAFETY: the caller vouches for the name.
    let name = unsafe { CStr::from_ptr(new) }.to_string_lossy();
    if name.contains(CANNOT_EXCHANGE) && flags == libc::RENAME_EXCHANGE {
        nix::errno::Errno::EINVAL.set();
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
fn with_a_bad_sector(times: Option<usize>) -> Corner {
    let (tmp, state) = state();
    let store = writer(&state);
    raise(&store, "n").unwrap();
    for n in 0..200 {
        store.write_blocking(move |tx| tx.put(Shelf::Metrics, &format!("k{n:03}"), &"x".repeat(9_000))).unwrap();
    }
    store.close();
    writer(&state).close();
    let sector = BadSector::within(&state.store().join("db"), times);
    Corner { _sector: sector, tmp, state }
}

fn order(from: From, replace: bool) -> ImportOrder {
    ImportOrder { from, uids: BTreeMap::new(), replace }
}

#[test]
fn with_a_bad_sector_the_rest_is_saved_and_imported() {
    let Corner { ref tmp, ref state, .. } = with_a_bad_sector(None);
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
        let Corner { ref state, .. } = with_a_bad_sector(None);
        let done = store::import(state, &order(From::Empty, replace), &Options::default()).unwrap();
        assert!(done.aside.unwrap().join("db").exists());
        writer(state).close();
    }
}

#[test]
fn a_whole_store_is_not_replaced_because_it_could_not_be_read_once() {
    let Corner { ref state, .. } = with_a_bad_sector(Some(1));
    let refused = store::import(state, &order(From::Empty, false), &Options::default());
    assert!(matches!(refused, Err(ImportError::Store(StoreError::Io { .. }))), "{refused:?}");
    assert_eq!(counter(&reader(state), "n"), 1);
}
