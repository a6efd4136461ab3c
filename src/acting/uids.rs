//! The UIDs that a run works with: from the configuration, else from the store, else from `uids.json`.
//!
//! `uids.json` beside the store is written with every change of a UID, so that tokens can be pushed when the store
//! cannot be used.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::workflow::input_file;

/// An account takes some 20 bytes.
const MOST_BYTES: u64 = 16 << 20;

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

#[cfg(test)]
mod tests {
    use super::*;

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
