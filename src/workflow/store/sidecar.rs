//! `store.json`: what the store must at least contain, kept outside of it.
//!
//! sled opens some damaged directories as if they were empty. The sidecar knows better: it holds the store's id and
//! the sequence the store had reached when it was last written here. A store that opens without that id or behind that
//! sequence has lost something. The sequence rises with every group commit; the sidecar follows at every 64th and
//! whenever the store is let go, so what a damage hides without being noticed is at most the last 64 group commits of
//! a process that was killed.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::error::StoreError;
use crate::crash_point::{CrashPoint, pass};
use crate::workflow::input_file;

/// The format this `mt` writes: trees, keys and records.
pub(super) const FORMAT: u32 = 1;

/// After how many group commits the sidecar is written again while the store stays open.
pub(super) const CHECKPOINT_EVERY: u64 = 64;

/// It has some lines.
const MOST_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sidecar {
    pub(super) format: u32,
    pub(super) store_id: Ulid,
    pub(super) checkpoint: u64,
    /// How long sled's log was then. A shorter one is looked at with suspicion: sled does shorten it, but seldom.
    #[serde(default)]
    pub(super) log_bytes: u64,
    /// What the store took on the disk, with its blobs, when it had just been made or copied.
    #[serde(default)]
    pub(super) fresh_bytes: u64,
}

/// The part that every format has.
#[derive(Deserialize)]
struct AnyFormat {
    format: u32,
}

impl Sidecar {
    pub(super) fn read(path: &Path, store: &Path) -> Result<Option<Self>, StoreError> {
        let text = match input_file::read(path, MOST_BYTES) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(StoreError::io("read", path, e)),
        };
        match (serde_json::from_slice(&text), serde_json::from_slice::<AnyFormat>(&text)) {
            (Ok(sidecar), _) => Ok(Some(sidecar)),
            (Err(_), Ok(AnyFormat { format })) if format > FORMAT => Err(newer("read", store, format)),
            (Err(e), _) => Err(StoreError::damaged(store, format!("{} cannot be read: {e}", path.display()))),
        }
    }

    /// Replaces the file; durable when it returns.
    pub(super) fn write(&self, path: &Path) -> Result<(), StoreError> {
        let new = path.with_extension("json.new");
        let write = || -> io::Result<()> {
            // A leftover of a process that was killed, or whatever else is in the way.
            match fs::remove_file(&new) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
                Ok(()) | Err(_) => {}
            }
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
            serde_json::to_writer(&mut file, self)?;
            file.write_all(b"\n")?;
            file.sync_all()?;
            pass(CrashPoint::SidecarRenameBefore);
            fs::rename(&new, path)?;
            pass(CrashPoint::SidecarRenameAfter);
            sync_directory(path.parent().unwrap_or(Path::new("/")))
        };
        write().map_err(|e| StoreError::io("write", path, e))
    }
}

pub(super) fn newer(doing: &'static str, store: &Path, format: u32) -> StoreError {
    StoreError::Newer {
        doing,
        path: store.to_owned(),
        what: format!("a newer mt gave it format {format}, this one knows {FORMAT}"),
    }
}

/// Makes renames and new files in a directory durable.
pub(super) fn sync_directory(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sidecar_comes_back_as_it_was_and_a_strange_one_is_told_apart() {
        let tmp = tempfile::tempdir().unwrap();
        let (path, store) = (tmp.path().join("store.json"), tmp.path().join("store"));
        assert_eq!(Sidecar::read(&path, &store).unwrap(), None);
        let sidecar = Sidecar { format: FORMAT, store_id: Ulid::new(), checkpoint: 7, log_bytes: 8, fresh_bytes: 9 };
        sidecar.write(&path).unwrap();
        assert_eq!(Sidecar::read(&path, &store).unwrap(), Some(sidecar));
        fs::write(&path, r#"{"format":99,"shape":"unknown"}"#).unwrap();
        assert!(matches!(Sidecar::read(&path, &store), Err(StoreError::Newer { .. })));
        fs::write(&path, r#"{"form"#).unwrap();
        assert!(matches!(Sidecar::read(&path, &store), Err(StoreError::Damaged { .. })));
    }
}
