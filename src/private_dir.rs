//! Directories that only we may enter, and where they are when the state directory cannot be used.

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::{env, io};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, umask};
use nix::unistd::{Uid, geteuid, mkdir};

use ulid::Ulid;

use crate::workflow::code::Code;

/// A directory for everybody on a file system that is always there.
const IN_MEMORY: &str = "/dev/shm";

/// A private directory is not ours alone, or cannot be made.
pub const PRIVATE_DIRECTORY: Code = Code(93);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[(
    PRIVATE_DIRECTORY,
    "a private directory cannot be used",
    "mt keeps Kerberos caches and staged tokens in directories that only its own account may enter (mode 0700).\n\
     The directory named in the message is a link, belongs to another account, or cannot be made.\n\
     Look at it with  ls -ld DIRECTORY ; remove it if nothing needs it, or give it to the account that runs mt:\n\
     chown ACCOUNT DIRECTORY; chmod 700 DIRECTORY\n\
     A full or read-only disk gives this message too.",
)];

/// A directory could not be made private.
#[derive(Debug, thiserror::Error)]
pub enum PrivateDirError {
    /// It is there and cannot be trusted.
    #[error("{}: {what}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The system said no.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `make`, `open`, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl PrivateDirError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        PRIVATE_DIRECTORY
    }
}

/// Files and directories made from now on are for us alone. Call it first thing in `main`, before any thread exists.
pub fn set_umask() {
    umask(Mode::from_bits_truncate(0o077));
}

/// A crash leaves no core: it would have the tokens that the process has in memory. Children inherit it. Call it first thing
/// in `main`.
pub fn leave_no_core() {
    // Not 0: where cores go to a program (`core_pattern` with a `|`), the kernel asks for no limit but this one, which means
    // none. A file of one byte is none either. To lower a limit is always allowed.
    let most = getrlimit(Resource::RLIMIT_CORE).map_or(0, |(_, most)| most.min(1));
    let _ = setrlimit(Resource::RLIMIT_CORE, most, most);
    // Where the limit is 0 already, a program gets a core without any of the memory. Where cores cannot be made there is no
    // such file. Not PR_SET_DUMPABLE: it ends with the next exec, and hides `environ` from the guardian of another run.
    let _ = std::fs::write("/proc/self/coredump_filter", "0");
}

/// Makes the directory (its parent must exist) with mode 0700, or checks the one that is there: a real directory, not a
/// link, and ours. One of ours that others may enter is tightened to 0700.
pub fn create(path: &Path) -> Result<(), PrivateDirError> {
    let failed = |doing, errno: Errno| PrivateDirError::Io { doing, path: path.to_owned(), source: errno.into() };
    match mkdir(path, Mode::S_IRWXU) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(failed("make", errno)),
    }
    // Always through a descriptor that did not follow a link: what is checked is what is used.
    let flags = OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let directory = match open(path, flags, Mode::empty()) {
        Ok(directory) => directory,
        Err(Errno::ELOOP | Errno::ENOTDIR) => {
            return Err(PrivateDirError::Refused { path: path.to_owned(), what: "not a directory, or a link".into() });
        }
        Err(errno) => return Err(failed("open", errno)),
    };
    let stat = fstat(&directory).map_err(|errno| failed("look at", errno))?;
    if stat.st_uid != geteuid().as_raw() {
        let what = format!("belongs to {}, not to us ({})", account(stat.st_uid), account(geteuid().as_raw()));
        return Err(PrivateDirError::Refused { path: path.to_owned(), what });
    }
    if stat.st_mode & 0o777 != 0o700 {
        fchmod(&directory, Mode::S_IRWXU).map_err(|errno| failed("set the mode of", errno))?;
    }
    Ok(())
}

/// Where private directories, locks and leases live when the state directory cannot be used: `mt-<uid>/` in
/// `$XDG_RUNTIME_DIR` if nobody else can swap what is there, else in `/dev/shm`, where it is `mt-<uid>-<ulid>/` if somebody
/// else has taken the name. Made and checked as [`create`] does.
pub fn fallback() -> Result<PathBuf, PrivateDirError> {
    fallback_of(runtime_dir(), Path::new(IN_MEMORY))
}

fn fallback_of(runtime: Option<PathBuf>, in_memory: &Path) -> Result<PathBuf, PrivateDirError> {
    let Some(dir) = runtime else { return in_shared(in_memory) };
    let path = below(&dir);
    match open_shared(&dir).and_then(|_| create(&path)) {
        Ok(()) => Ok(path),
        // `su` and `runuser` leave the variable of the account before.
        Err(error) => {
            tracing::warn!("XDG_RUNTIME_DIR is not used, {} is: {error}", in_memory.display());
            in_shared(in_memory)
        }
    }
}

/// Anybody may have made what has our name there. Then one that nobody could foresee serves, the same for all our processes.
fn in_shared(parent: &Path) -> Result<PathBuf, PrivateDirError> {
    let path = below(parent);
    let Err(error) = create(&path) else { return Ok(path) };
    if ours_beside(&path).is_empty() {
        create(&parent.join(format!("{}-{}", name(), Ulid::new())))?;
    }
    // Of two that were made at once all take the older.
    let Some(oldest) = ours_beside(&path).into_iter().next() else { return Err(error) };
    create(&oldest)?;
    Ok(oldest)
}

/// Our directories with a longer name, the oldest first.
fn ours_beside(path: &Path) -> Vec<PathBuf> {
    let prefix = format!("{}-", name());
    let entries = path.parent().and_then(|parent| std::fs::read_dir(parent).ok()).into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix));
    let mut ours: Vec<_> = named.map(|entry| entry.path()).filter(|path| is_ours(path)).collect();
    ours.sort();
    ours
}

/// Where [`fallback`] may have been for an earlier process: a terminal has a runtime directory, cron has none. Those that
/// are there and ours; none is made.
pub fn earlier_fallbacks() -> Vec<PathBuf> {
    let in_memory = below(Path::new(IN_MEMORY));
    let beside = ours_beside(&in_memory);
    let runtime = runtime_dir().filter(|dir| open_shared(dir).is_ok());
    let places = runtime.map(|dir| below(&dir)).into_iter().chain([in_memory]).chain(beside);
    places.filter(|path| is_ours(path)).collect()
}

fn runtime_dir() -> Option<PathBuf> {
    env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|dir| dir.is_absolute() && dir.is_dir())
}

fn below(parent: &Path) -> PathBuf {
    parent.join(name())
}

fn name() -> String {
    format!("mt-{}", geteuid())
}

/// A real directory of our own account. Where it stands nobody else may put another in its place.
pub fn is_ours(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir() && found.uid() == geteuid().as_raw())
}

/// Opens a directory that holds files of ours beside files of others: ours or root's, and not writable for everybody
/// unless sticky, because there anybody could swap our files. Links on the way are followed, since the path is configured; but
/// where it ends with one it must be ours or root's, too.
pub(crate) fn open_shared(path: &Path) -> Result<OwnedFd, PrivateDirError> {
    let flags = OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_RDONLY;
    let failed = |doing, errno: Errno| PrivateDirError::Io { doing, path: path.to_owned(), source: errno.into() };
    if let Ok(found) = std::fs::symlink_metadata(path)
        && found.is_symlink()
        && ![0, geteuid().as_raw()].contains(&found.uid())
    {
        let what = format!("a link that belongs to {}, who can lead it elsewhere", account(found.uid()));
        return Err(PrivateDirError::Refused { path: path.to_owned(), what });
    }
    let directory = open(path, flags, Mode::empty()).map_err(|errno| failed("open", errno))?;
    let stat = fstat(directory.as_fd()).map_err(|errno| failed("look at", errno))?;
    match distrust(&stat) {
        Some(what) => Err(PrivateDirError::Refused { path: path.to_owned(), what }),
        None => Ok(directory),
    }
}

fn distrust(stat: &FileStat) -> Option<String> {
    const STICKY: u32 = 0o1000;
    if stat.st_uid != geteuid().as_raw() && stat.st_uid != 0 {
        return Some(format!("the directory belongs to {}, who could swap the files in it", account(stat.st_uid)));
    }
    if stat.st_mode & 0o002 != 0 && stat.st_mode & STICKY == 0 {
        return Some("everybody may write to the directory and swap the files in it: chmod o-w it".to_owned());
    }
    None
}

/// The name of an account, or its number where it has none: for messages.
pub(crate) fn account(uid: u32) -> String {
    match nix::unistd::User::from_uid(Uid::from_raw(uid)) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => format!("uid {uid}"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[test]
    fn a_new_directory_is_for_us_alone_whatever_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        create(&path).unwrap();
        assert_eq!(mode(&path), 0o700);
        create(&path).expect("a second start finds it and is content");
    }

    #[test]
    fn one_of_ours_that_others_may_enter_is_tightened() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        create(dir.path()).unwrap();
        assert_eq!(mode(dir.path()), 0o700);
    }

    #[test]
    fn a_planted_link_is_refused_and_its_target_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("target");
        std::fs::create_dir(&target).unwrap();
        std::fs::set_permissions(&target, std::fs::Permissions::from_mode(0o755)).unwrap();
        let name = format!("mt-{}", geteuid());
        symlink(&target, dir.path().join(&name)).unwrap();
        let error = create(&below(dir.path())).unwrap_err();
        assert!(matches!(error, PrivateDirError::Refused { .. }), "{error}");
        assert_eq!(mode(&target), 0o755);
    }

    #[test]
    fn whoever_takes_our_name_keeps_us_from_nothing() {
        let dir = tempfile::tempdir().unwrap();
        // What is not ours cannot be made without root; a file serves.
        std::fs::write(below(dir.path()), "").unwrap();
        let taken = in_shared(dir.path()).unwrap();
        assert!(is_ours(&taken) && taken != below(dir.path()) && mode(&taken) == 0o700, "{taken:?}");
        assert_eq!(in_shared(dir.path()).unwrap(), taken, "the next process is in the same");
        assert_eq!(ours_beside(&below(dir.path())), [taken], "and it is swept");
    }

    #[test]
    fn a_runtime_directory_that_others_could_swap_or_that_is_another_accounts_is_not_used() {
        let (runtime, memory) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let fallback = || fallback_of(Some(runtime.path().to_owned()), memory.path()).unwrap();
        assert_eq!(fallback(), below(runtime.path()));
        std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(fallback(), below(memory.path()));
        std::fs::set_permissions(runtime.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        // What is not ours cannot be made without root; a file serves.
        std::fs::remove_dir(below(runtime.path())).unwrap();
        std::fs::write(below(runtime.path()), "").unwrap();
        assert_eq!(fallback(), below(memory.path()));
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        if !geteuid().is_root() {
            return; // only root can give a directory away
        }
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("run");
        std::fs::create_dir(&path).unwrap();
        std::os::unix::fs::chown(&path, Some(65534), None).unwrap();
        assert!(matches!(create(&path).unwrap_err(), PrivateDirError::Refused { .. }));
        assert!(matches!(open_shared(&path).unwrap_err(), PrivateDirError::Refused { .. }));
    }

    #[test]
    fn a_directory_everybody_may_write_to_is_trusted_only_when_sticky() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(open_shared(dir.path()).is_err());
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o1777)).unwrap();
        assert!(open_shared(dir.path()).is_ok());
    }
}
