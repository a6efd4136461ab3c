//! The directory that holds everything `mt` remembers.

use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Uid, User};

use super::error::StoreError;
use crate::workflow::id::ProcessId;

pub(super) const STORE_LOCK: &str = "store.lock";

/// A state directory that has been checked: a directory, not a link, ours, and writable by nobody else.
///
/// | in it | what |
/// |---|---|
/// | `store/`, `store.json` | the store and its sidecar |
/// | `queue.lock`, `store.lock` | who has the store open, and who is next |
/// | `uids.json`, `uids.lock` | stands in for the store when it cannot be used; who changes it |
/// | `run/` | a private directory and an owner lock for every live process |
/// | `leases/` | a lock for every subject a machine works on |
/// | `tokens/` | kept vault tokens, unless the configuration names another place |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateDir(PathBuf);

impl StateDir {
    /// The directory, created (0700) with its subdirectories where they are missing.
    ///
    /// # Errors
    /// [`StoreError::Permission`] if it cannot be trusted, [`StoreError::NoSpace`] or [`StoreError::Io`] if it cannot be made.
    pub fn create(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = path.into();
        make_directory(&path, true)?;
        let state = Self::existing(path)?;
        for directory in [state.run(), state.leases(), state.tokens()] {
            make_directory(&directory, false)?;
            check_directory(&directory)?;
        }
        Ok(state)
    }

    /// The directory as it is; nothing is created. For commands that only read.
    ///
    /// # Errors
    /// [`StoreError::Missing`] if there is none, else as [`StateDir::create`].
    pub fn existing(path: impl Into<PathBuf>) -> Result<Self, StoreError> {
        let path = std::path::absolute(path.into()).map_err(|e| StoreError::io("find", Path::new("."), e))?;
        check_parent(&path)?;
        check_directory(&path)?;
        Ok(Self(path))
    }

    /// The directory itself, absolute.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// sled's directory.
    pub fn store(&self) -> PathBuf {
        self.0.join("store")
    }

    /// A store that is being made; renamed when it is whole.
    pub(super) fn new_store(&self) -> PathBuf {
        self.0.join("store.new")
    }

    /// A copy of a store that looks damaged, for trying it without touching the original.
    pub(super) fn copied_store(&self) -> PathBuf {
        self.0.join("store.copy")
    }

    /// What the store must at least contain.
    pub fn sidecar(&self) -> PathBuf {
        self.0.join("store.json")
    }

    /// Held by whoever is next.
    pub fn queue_lock(&self) -> PathBuf {
        self.0.join("queue.lock")
    }

    /// Held by whoever has the store open.
    pub fn store_lock(&self) -> PathBuf {
        self.0.join(STORE_LOCK)
    }

    /// The UIDs, for when the store cannot be used.
    pub fn uids_json(&self) -> PathBuf {
        self.0.join("uids.json")
    }

    /// Private directories and owner locks of processes.
    pub fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// The private directory of a process. Not created here: the guardian does that.
    pub fn private(&self, process: ProcessId) -> PathBuf {
        self.run().join(process.to_string())
    }

    /// Locks of subjects.
    pub fn leases(&self) -> PathBuf {
        self.0.join("leases")
    }

    /// Kept vault tokens.
    pub fn tokens(&self) -> PathBuf {
        self.0.join("tokens")
    }
}

/// Makes a directory 0700; fine if there is one. Parents that are missing get 0755, as `/var/lib` has.
pub(super) fn make_directory(path: &Path, parents: bool) -> Result<(), StoreError> {
    if parents && let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty() && !p.exists()) {
        DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(parent)
            .map_err(|e| StoreError::io("create", parent, e))?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(e) => Err(StoreError::io("create", path, e)),
    }
}

/// Where everybody may rename our directory away and put another in its place, none can be trusted.
fn check_parent(path: &Path) -> Result<(), StoreError> {
    let Some(parent) = path.parent() else { return Ok(()) };
    match fs::metadata(parent) {
        Ok(meta) if meta.mode() & 0o1002 == 0o002 => Err(StoreError::Permission {
            path: parent.to_owned(),
            what: format!("everybody may write to it and swap {}", path.display()),
            next: format!("`chmod o-w {}`", parent.display()),
        }),
        // What else is wrong with it shows when the directory itself is looked at.
        Ok(_) | Err(_) => Ok(()),
    }
}

pub(super) fn check_directory(path: &Path) -> Result<(), StoreError> {
    let refuse = |what: String, next: String| Err(StoreError::Permission { path: path.to_owned(), what, next });
    let meta = match fs::symlink_metadata(path) {
        Ok(meta) => meta,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(StoreError::Missing { path: path.to_owned() }),
        Err(e) => return Err(StoreError::io("look at", path, e)),
    };
    if meta.file_type().is_symlink() {
        return refuse("it is a symbolic link".to_owned(), "name the directory itself".to_owned());
    }
    if !meta.is_dir() {
        return refuse("it is not a directory".to_owned(), "move it away or name another".to_owned());
    }
    let us = Uid::effective();
    if meta.uid() != us.as_raw() {
        let owner = name_of(Uid::from_raw(meta.uid()));
        let (what, us) = (format!("it belongs to {owner}, and this is {}", name_of(us)), path.display());
        return refuse(what, format!("run as its owner: `runuser -u {owner} -- mt ...` (state directory {us})"));
    }
    if meta.mode() & 0o022 != 0 {
        return refuse(
            format!("others may write to it (mode {:04o})", meta.mode() & 0o7777),
            format!("look who did, then `chmod go-w {}`", path.display()),
        );
    }
    Ok(())
}

/// The name of an account, or its number where it has none: for messages.
pub(crate) fn name_of(uid: Uid) -> String {
    match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn refusal(path: &Path) -> String {
        let error = StateDir::create(path).expect_err("must be refused");
        assert!(matches!(error, StoreError::Permission { .. }), "{error}");
        error.to_string()
    }

    #[test]
    fn a_state_directory_is_made_for_its_owner_alone() {
        let tmp = tempfile::tempdir().unwrap();
        let state = StateDir::create(tmp.path().join("a/b")).unwrap();
        for directory in [state.path().to_owned(), state.run(), state.leases(), state.tokens()] {
            assert_eq!(fs::metadata(&directory).unwrap().mode() & 0o7777, 0o700, "{}", directory.display());
        }
        assert_eq!(StateDir::existing(state.path()).unwrap(), state);
    }

    #[test]
    fn a_link_a_file_and_a_directory_others_can_write_are_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let real = tmp.path().join("real");
        fs::create_dir(&real).unwrap();
        symlink(&real, tmp.path().join("link")).unwrap();
        assert!(refusal(&tmp.path().join("link")).contains("symbolic link"));
        fs::write(tmp.path().join("file"), "").unwrap();
        assert!(refusal(&tmp.path().join("file")).contains("not a directory"));
        for mode in [0o770, 0o707] {
            fs::set_permissions(&real, fs::Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&real).contains("chmod go-w"));
        }
        fs::set_permissions(&real, fs::Permissions::from_mode(0o755)).unwrap();
        StateDir::create(&real).unwrap();
    }

    #[test]
    fn a_foreign_directory_is_refused_with_its_owners_name() {
        // `/` belongs to root; as root, a directory given away is foreign.
        let tmp = tempfile::tempdir().unwrap();
        let foreign = if Uid::effective().is_root() {
            std::os::unix::fs::chown(tmp.path(), Some(65534), None).unwrap();
            tmp.path()
        } else {
            Path::new("/")
        };
        assert!(refusal(foreign).contains("it belongs to"));
    }

    #[test]
    fn reading_a_missing_directory_says_so_and_creates_nothing() {
        let tmp = tempfile::tempdir().unwrap();
        let path = tmp.path().join("none");
        assert!(matches!(StateDir::existing(&path), Err(StoreError::Missing { .. })));
        assert!(!path.exists());
    }
}
