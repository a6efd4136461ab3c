//! The UIDs that a run works with: from the configuration, else from the store, else from `uids.json`.
//!
//! `uids.json` beside the store is written with every change of a UID, so that tokens can be pushed when the store
//! cannot be used.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::workflow::input_file;

/// An account takes some 20 bytes.
const MOST_BYTES: u64 = 16 << 20;

/// So long somebody else may write the file: as long as one may wait for the store, and a little.
const TURN_WITHIN: Duration = Duration::from_secs(15);
const TURN_EVERY: Duration = Duration::from_millis(5);

/// The right to change the file, among all processes. Given back when dropped.
#[derive(Debug)]
pub struct Turn {
    /// The lock is the directory's own: the file is another one after every change.
    _directory: File,
}

/// Waits for the right to change this file. Blocks.
pub fn turn(path: &Path) -> io::Result<Turn> {
    let directory = File::open(path.parent().unwrap_or(Path::new(".")))?;
    let until = Instant::now() + TURN_WITHIN;
    loop {
        match directory.try_lock() {
            Ok(()) => return Ok(Turn { _directory: directory }),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(TURN_EVERY),
            Err(TryLockError::WouldBlock) => {
                let why = format!("another process has been writing it for {TURN_WITHIN:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

/// The UIDs in the file; empty if there is none.
pub fn read(path: &Path) -> io::Result<BTreeMap<String, u32>> {
    match input_file::read_text(path, MOST_BYTES) {
        Ok(text) => serde_json::from_str(&text).map_err(io::Error::other),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => Err(error),
    }
}

/// Replaces the file as a whole: readers see the old one or the new one.
pub fn write(path: &Path, uids: &BTreeMap<String, u32>) -> io::Result<()> {
    let fresh = path.with_extension(format!("json.{}", std::process::id()));
    // A leftover of a process that died with our pid.
    match fs::remove_file(&fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let text = serde_json::to_string_pretty(uids).map_err(io::Error::other)?;
    let written = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .custom_flags(libc::O_NOFOLLOW)
        .open(&fresh)
        .and_then(|mut file| {
            writeln!(file, "{text}")?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&fresh, path));
    if written.is_err() {
        // The first error is the one to tell.
        let _ = fs::remove_file(&fresh);
    }
    written?;
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

/// Has the file say what is held. Among all processes one at a time looks and writes: whoever writes last has looked last.
pub fn follow(path: &Path, held: impl FnOnce() -> io::Result<BTreeMap<String, u32>>) -> io::Result<()> {
    let _turn = turn(path)?;
    let now = held()?;
    // A damaged file is replaced by a good one.
    if read(path).is_ok_and(|known| known == now) { Ok(()) } else { write(path, &now) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_uid_that_another_process_records_meanwhile_is_in_the_file_in_the_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uids.json");
        let all = |count: u32| (0..count).map(|n| (format!("account{n}"), 1000 + n)).collect::<BTreeMap<_, _>>();
        std::thread::scope(|scope| {
            follow(&path, || {
                let older = all(1);
                let other = scope.spawn(|| follow(&path, || Ok(all(2))).unwrap());
                // It would come to its end now, if it had not to wait for us to come to ours.
                std::thread::sleep(Duration::from_millis(50));
                assert!(!other.is_finished());
                Ok(older)
            })
            .unwrap();
        });
        assert_eq!(read(&path).unwrap(), all(2));
    }

    #[test]
    fn what_was_written_is_read_back_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uids.json");
        assert_eq!(read(&path).unwrap(), BTreeMap::new());
        let uids = BTreeMap::from([("dunepro".to_owned(), 1234), ("mu2epro".to_owned(), 1235)]);
        write(&path, &uids).unwrap();
        write(&path, &uids).unwrap();
        assert_eq!(read(&path).unwrap(), uids);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_list() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uids.json");
        fs::write(&path, "{\"dunepro\": 12").unwrap();
        assert!(read(&path).is_err());
    }
}
