//! The sign that a process lives: a lock file and a private directory under `<state>/run/`.
//!
//! The lock is an open-file-description lock: like flock it is shared with the guardian across the fork and gone when the last
//! of the two is gone; unlike flock it can be tested without being taken, so that no reader ever makes a dead owner look
//! alive or a live one lose its place.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{Pid, getppid};

use super::sweep::clear;
use crate::private_dir::{self, PrivateDirError};
use crate::workflow::id::ProcessId;

/// Where condor_vault_storer leaves its files.
const STORER_DIRECTORY: &str = "/tmp";

/// This acting process: its id, its private directory, and the lock that says it lives.
///
/// The private directory and the lock file go away with the guardian (see [`super::enter`]) or with [`Owner::leave`].
#[derive(Debug)]
pub struct Owner {
    /// The id, which its children carry as `MT_PROCESS`.
    pub process: ProcessId,
    /// `<state>/run/<process id>/`, 0700: caches, staged files, bearer files.
    pub private: PathBuf,
    pub(super) run_dir: PathBuf,
    pub(super) shared: Vec<PathBuf>,
    pub(super) guardian: Option<Pid>,
    _lock: File,
}

impl Owner {
    /// Makes a new process id and everything that belongs to it under `run_dir`, which is made too if its parent exists.
    /// Call it before [`super::enter`], which shares the lock with the guardian.
    pub fn take(run_dir: &Path) -> Result<Self, PrivateDirError> {
        private_dir::create(run_dir)?;
        loop {
            let process = ProcessId::generate();
            // Locked under another name first: a lock file that can be seen is held from its first moment on.
            let fresh = run_dir.join(format!(".{process}.new"));
            let lock = lock_path(run_dir, process);
            let failed = |doing, path: &Path, source| PrivateDirError::Io { doing, path: path.to_owned(), source };
            let mut file = options().create_new(true).open(&fresh).map_err(|e| failed("make", &fresh, e))?;
            let described = format!("pid {}\nhost {}\n", std::process::id(), host());
            // For people only, so a full disk must not end us here.
            let _ = file.write_all(described.as_bytes());
            if !try_lock(&file).map_err(|e| failed("lock", &fresh, e))? {
                continue; // a sweeping neighbour took it for a leftover just now
            }
            match fs::rename(&fresh, &lock) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("make", &lock, error)),
            }
            let private = run_dir.join(process.to_string());
            private_dir::create(&private)?;
            return Ok(Self {
                process,
                private,
                run_dir: run_dir.to_owned(),
                shared: vec![PathBuf::from(STORER_DIRECTORY)],
                guardian: None,
                _lock: file,
            });
        }
    }

    /// The directories, besides the private one, in which children leave files named after this process; without this, `/tmp`.
    pub fn leaving_files_in(mut self, directories: Vec<PathBuf>) -> Self {
        self.shared = directories;
        self
    }

    /// The last thing a worker does. While the guardian lives, nothing: it cleans up. Without one (killed, or never
    /// there) this ends the processes that carry our mark and removes the private directory and the lock file.
    pub fn leave(self) {
        if self.guardian.is_some_and(|guardian| guardian == getppid()) {
            return;
        }
        // What is left after this is found by the next acting start.
        clear(&self.run_dir, self.process, &self.shared);
    }
}

/// Is the process gone, and its guardian too? True when its lock file is missing or not locked. A lock file that cannot be
/// looked at counts as a live owner's.
pub fn owner_is_dead(run_dir: &Path, process: ProcessId) -> bool {
    let file = match options().open(lock_path(run_dir, process)) {
        Ok(file) => file,
        Err(error) => return error.kind() == io::ErrorKind::NotFound,
    };
    let mut lock = whole_file();
    match fcntl(file.as_fd(), FcntlArg::F_OFD_GETLK(&mut lock)) {
        Ok(_) => lock.l_type == libc::F_UNLCK as libc::c_short,
        Err(_) => false,
    }
}

pub(super) fn lock_path(run_dir: &Path, process: ProcessId) -> PathBuf {
    run_dir.join(format!("{process}.lock"))
}

/// How every lock file is opened: never through a link, never inherited by a child, never waiting for a FIFO's other end.
pub(super) fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    options
}

/// Takes the lock if nobody has it. It is held until the last copy of the descriptor is closed.
pub(super) fn try_lock(file: &File) -> io::Result<bool> {
    match fcntl(file.as_fd(), FcntlArg::F_OFD_SETLK(&whole_file())) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN | Errno::EACCES) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn whole_file() -> libc::flock {
    libc::flock {
        l_type: libc::F_WRLCK as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0, // must be 0 for this kind of lock
    }
}

fn host() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn an_owner_is_alive_while_its_lock_is_held_and_dead_afterwards() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        let owner = Owner::take(&run).unwrap();
        let process = owner.process;
        for _ in 0..3 {
            assert!(!owner_is_dead(&run, process), "asking must not change the answer");
        }
        drop(owner);
        assert!(lock_path(&run, process).exists());
        assert!(owner_is_dead(&run, process));
        fs::remove_file(lock_path(&run, process)).unwrap();
        assert!(owner_is_dead(&run, process), "a missing lock file is a dead owner");
    }

    #[test]
    fn what_an_owner_makes_is_for_it_alone() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::take(&dir.path().join("run")).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o7777;
        assert_eq!(mode(&owner.run_dir), 0o700);
        assert_eq!(mode(&owner.private), 0o700);
        assert_eq!(mode(&lock_path(&owner.run_dir, owner.process)), 0o600);
    }

    #[test]
    fn an_owner_without_a_guardian_cleans_up_when_it_leaves() {
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::take(&dir.path().join("run")).unwrap().leaving_files_in(vec![dir.path().to_owned()]);
        let (run, private) = (owner.run_dir.clone(), owner.private.clone());
        fs::write(private.join("krb5cc"), "x").unwrap();
        owner.leave();
        assert_eq!(fs::read_dir(run).unwrap().count(), 0);
        assert!(!private.exists());
    }
}
