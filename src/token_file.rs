//! The only place that reads, writes or moves a token file.
//!
//! Three kinds of places: *kept* files, which outlive the process, in a configured directory; *staged* files in a private
//! directory; and files in `/tmp`, where the token storer wants them. No link is followed anywhere, nothing that is not a
//! regular file of ours is read, and a reader of any of them sees the old content or the new, never half of one.
//!
//! All of this blocks, for at most [`LOCK_WITHIN`]: call it from `spawn_blocking` where an executor must not wait.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, fchmod, fstat, fstatat};
use nix::unistd::{UnlinkatFlags, fsync, geteuid, unlinkat};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use ulid::Ulid;

use crate::crash_point::{CrashPoint, pass};
use crate::private_dir::{PrivateDirError, account, open_shared};
use crate::redact::Secret;
use crate::workflow::code::Code;

/// There is no token file.
pub const TOKEN_FILE_MISSING: Code = Code(96);
/// The file cannot be trusted.
pub const TOKEN_FILE_REFUSED: Code = Code(97);
/// The file holds something else.
pub const NOT_A_TOKEN: Code = Code(98);
/// Reading or writing failed.
pub const TOKEN_FILE_IO: Code = Code(99);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        TOKEN_FILE_MISSING,
        "a token file is missing",
        "A program that should have left a token there did not, or somebody removed it.\n\
         Look at the program's output in  mt runs show ; the next run makes a new one.",
    ),
    (
        TOKEN_FILE_REFUSED,
        "a token file cannot be trusted",
        "mt reads and replaces only regular files of its own account that nobody else may write to, in directories\n\
         where nobody else can swap them. The message says what is wrong with the one it found.\n\
         Look at it with  ls -la FILE  and find out who made it. Then remove it: the next run makes a new one.",
    ),
    (
        NOT_A_TOKEN,
        "a token file does not hold a token",
        "A vault token begins with hvs. or s., a bearer token with eyJ; the file holds something else, or nothing.\n\
         A full disk or a program that was cut off leaves such files. Remove it: the next run makes a new one.",
    ),
    (
        TOKEN_FILE_IO,
        "a token file could not be read or written",
        "The message names the file and what the system said. Mostly: the disk is full, or the directory belongs to\n\
         another account. Look with  df FILE  and  ls -ld DIRECTORY .\n\
         A kept file that cannot be replaced is a warning only: the token was pushed all the same.",
    ),
];

/// How long to wait for another process that holds a kept file's lock. Nobody holds it for longer than a small copy.
pub const LOCK_WITHIN: Duration = Duration::from_secs(5);
/// Larger files are not tokens.
const LARGEST: u64 = 64 * 1024;
/// For us alone.
const PRIVATE: Mode = Mode::from_bits_truncate(0o600);

/// The sha256 of a token's text, in hex: what the store may know of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A vault token as read from a file.
#[derive(Clone, Debug)]
pub struct VaultToken(Secret);

impl VaultToken {
    /// The token, for the one request that must carry it.
    pub fn expose(&self) -> &str {
        self.0.expose()
    }

    /// What may be recorded of it.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint(Sha256::digest(self.expose()).iter().map(|byte| format!("{byte:02x}")).collect())
    }
}

/// What was wrong with a token file.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// No such file.
    #[error("{}: no such file", path.display())]
    Missing {
        /// Which.
        path: PathBuf,
    },
    /// A link, a FIFO, a foreign owner, a mode that lets others write: not to be trusted.
    #[error("{}: {what}", path.display())]
    Refused {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// It does not hold a vault token.
    #[error("{}: not a vault token (it must begin with hvs. or s.)", path.display())]
    NotAToken {
        /// Which.
        path: PathBuf,
    },
    /// It does not hold a bearer token.
    #[error("{}: not a bearer token (it must begin with eyJ)", path.display())]
    NotABearer {
        /// Which.
        path: PathBuf,
    },
    /// Reading or writing failed.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `read`, `write`, `move`, …
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
}

impl TokenFileError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        match self {
            Self::Missing { .. } => TOKEN_FILE_MISSING,
            Self::Refused { .. } => TOKEN_FILE_REFUSED,
            Self::NotAToken { .. } | Self::NotABearer { .. } => NOT_A_TOKEN,
            Self::Io { .. } => TOKEN_FILE_IO,
        }
    }
}

impl From<PrivateDirError> for TokenFileError {
    fn from(error: PrivateDirError) -> Self {
        match error {
            PrivateDirError::Refused { path, what } => Self::Refused { path, what },
            PrivateDirError::Io { path, source, .. } if source.kind() == io::ErrorKind::NotFound => {
                Self::Missing { path }
            }
            PrivateDirError::Io { doing, path, source } => Self::Io { doing, path, source },
        }
    }
}

/// Reads a vault token; refuses links, foreign owners, and files others can write to. One that others can read (a kept
/// file of the predecessor is 0644) is tightened to 0600 first.
pub fn read(path: &Path) -> Result<VaultToken, TokenFileError> {
    Ok(vault_token(&Place::of(path)?)?.0)
}

/// Reads a bearer token (a JWT) with the same care.
pub fn read_bearer(path: &Path) -> Result<Secret, TokenFileError> {
    let place = Place::of(path)?;
    bearer_in(&place.content()?).ok_or(TokenFileError::NotABearer { path: place.path })
}

/// Copies a kept token into a private directory (0600), under the shared flock of the kept file. A file that is staged
/// already is replaced. `Ok(None)`, and nothing staged, when there is no kept file.
pub fn stage(kept: &Path, staged: &Path) -> Result<Option<Fingerprint>, TokenFileError> {
    let (token, content) = match Place::of(kept).and_then(|place| {
        let _lock = place.lock(FlockArg::LockSharedNonblock)?;
        vault_token(&place)
    }) {
        Ok(found) => found,
        Err(TokenFileError::Missing { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    Place::of(staged)?.replace(&content, Durable::No)?;
    Ok(Some(token.fingerprint()))
}

/// Gives a staged file another name; one that has it already is replaced.
pub fn rename_staged(from: &Path, to: &Path) -> Result<(), TokenFileError> {
    let (from, to) = (Place::of(from)?, Place::of(to)?);
    renameat(&from.directory, from.name.as_os_str(), &to.directory, to.name.as_os_str())
        .map_err(|errno| from.io("rename", errno))
}

/// What to say of a file whose file system does not answer.
pub fn no_answer(path: &Path) -> TokenFileError {
    let source = io::Error::new(io::ErrorKind::TimedOut, "its file system does not answer");
    TokenFileError::Io { doing: "reach", path: path.to_owned(), source }
}

/// Replaces the kept file by the staged one: written beside it, synced, renamed, under the exclusive flock. The staged
/// file stays. The kept file's directory is made (0700) if only it is missing.
pub fn keep(staged: &Path, kept: &Path) -> Result<Fingerprint, TokenFileError> {
    let (token, content) = vault_token(&Place::of(staged)?)?;
    let place = match Place::of(kept) {
        Err(TokenFileError::Missing { path }) => {
            crate::private_dir::create(&path)?;
            Place::of(kept)?
        }
        place => place?,
    };
    let _lock = place.lock(FlockArg::LockExclusiveNonblock)?;
    place.replace(&content, Durable::Yes)?;
    Ok(token.fingerprint())
}

/// Moves a vault token that a child left in `/tmp` into a private directory. Refuses one that somebody else made, a link,
/// and a file that has a second name.
pub fn collect(from: &Path, staged: &Path) -> Result<Fingerprint, TokenFileError> {
    let place = Place::of(from)?;
    let (token, content) = vault_token(&place)?;
    if place.stat()?.is_some_and(|stat| stat.st_nlink > 1) {
        return Err(place.refused("it has a second name (a hard link)"));
    }
    Place::of(staged)?.replace(&content, Durable::No)?;
    place.unlink("remove")?;
    Ok(token.fingerprint())
}

/// Copies a staged token to a path in `/tmp` where nothing may be yet (0600, `O_EXCL`), for a child that expects it there.
pub fn plant(staged: &Path, to: &Path) -> Result<Fingerprint, TokenFileError> {
    let (token, content) = vault_token(&Place::of(staged)?)?;
    let place = Place::of(to)?;
    let written = place.create(&place.name).and_then(|mut file| {
        // Whoever looks before the write is done sees a prefix; but the child that is to read it is not there yet.
        file.write_all(content.as_bytes()).map_err(|source| {
            let _ = place.unlink("remove");
            place.io("write", source)
        })
    });
    match written {
        Err(TokenFileError::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
            Err(place.refused("something is there already"))
        }
        result => result.map(|()| token.fingerprint()),
    }
}

/// Writes a small non-secret companion file (the default role file) 0600 into a private directory; one that is there is
/// replaced.
pub fn write_private(path: &Path, content: &str) -> Result<(), TokenFileError> {
    Place::of(path)?.replace(content, Durable::No)
}

/// Removes a token file, or a link in its place but not what it points to; fine if there is none.
pub fn remove(path: &Path) -> Result<(), TokenFileError> {
    match Place::of(path) {
        Ok(place) => place.unlink("remove"),
        Err(TokenFileError::Missing { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The token, and the file's content as it is: copies are faithful to the last newline.
fn vault_token(place: &Place) -> Result<(VaultToken, String), TokenFileError> {
    let content = place.content()?;
    match vault_token_in(&content) {
        Some(token) => Ok((token, content)),
        None => Err(TokenFileError::NotAToken { path: place.path.clone() }),
    }
}

fn vault_token_in(content: &str) -> Option<VaultToken> {
    let text = content.trim();
    let rest = text.strip_prefix("hvs.").or_else(|| text.strip_prefix("s."));
    let is_token = rest.is_some_and(|rest| !rest.is_empty()) && is_one_word(text);
    is_token.then(|| VaultToken(Secret::new(text.to_owned())))
}

fn bearer_in(content: &str) -> Option<Secret> {
    let text = content.trim();
    (text.starts_with("eyJ") && is_one_word(text)).then(|| Secret::new(text.to_owned()))
}

/// What is taken for a token fits into a header and is not printed: for what tries hostile contents.
pub(crate) fn try_content(content: &[u8]) {
    let content = String::from_utf8_lossy(content);
    let vault = vault_token_in(&content);
    let bearer = bearer_in(&content);
    for token in vault.iter().map(VaultToken::expose).chain(bearer.iter().map(Secret::expose)) {
        assert!(reqwest::header::HeaderValue::from_str(token).is_ok(), "a token that is no header's value: {token:?}");
    }
    if let Some(token) = &vault {
        assert_eq!(token.fingerprint().to_string().len(), 64, "a fingerprint is a sha256");
        assert!(token.expose().len() < 5 || !format!("{vault:?} {bearer:?}").contains(token.expose()), "printed");
    }
}

fn is_one_word(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Must the bytes be on the disk before the name points to them?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// A name in an open directory: what was checked stays what is used, whatever happens to the path meanwhile.
struct Place {
    directory: OwnedFd,
    name: OsString,
    path: PathBuf,
}

impl Place {
    /// `Missing` (with the directory's path) if the directory does not exist.
    fn of(path: &Path) -> Result<Self, TokenFileError> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(TokenFileError::Refused { path: path.to_owned(), what: "not the name of a file".to_owned() });
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        Ok(Self { directory: open_shared(parent)?, name: name.to_owned(), path: path.to_owned() })
    }

    fn io(&self, doing: &'static str, source: impl Into<io::Error>) -> TokenFileError {
        TokenFileError::Io { doing, path: self.path.clone(), source: source.into() }
    }

    fn refused(&self, what: impl Into<String>) -> TokenFileError {
        TokenFileError::Refused { path: self.path.clone(), what: what.into() }
    }

    /// What the name stands for, without following it; `None`: nothing.
    fn stat(&self) -> Result<Option<FileStat>, TokenFileError> {
        match fstatat(&self.directory, self.name.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(self.io("look at", errno)),
        }
    }

    /// The text of the file, if the file can be trusted.
    fn content(&self) -> Result<String, TokenFileError> {
        // O_NONBLOCK: opening a planted FIFO must not wait for its other end.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let file = match openat(&self.directory, self.name.as_os_str(), flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::ENOENT) => return Err(TokenFileError::Missing { path: self.path.clone() }),
            Err(Errno::ELOOP) => return Err(self.refused("it is a symbolic link")),
            Err(Errno::ENXIO) => return Err(self.refused("not a regular file")), // a socket
            Err(errno) => return Err(self.io("open", errno)),
        };
        let stat = fstat(&file).map_err(|errno| self.io("look at", errno))?;
        if let Some(what) = distrust(&stat) {
            return Err(self.refused(what));
        }
        if stat.st_mode & 0o077 != 0 {
            fchmod(&file, PRIVATE).map_err(|errno| self.io("set the mode of", errno))?;
        }
        let mut bytes = Vec::new();
        File::from(file).take(LARGEST + 1).read_to_end(&mut bytes).map_err(|source| self.io("read", source))?;
        if bytes.len() as u64 > LARGEST {
            return Err(self.refused("larger than 64 KiB"));
        }
        // What is not UTF-8 is no token either; the caller says so.
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// A new file under this name in our directory.
    fn create(&self, name: &OsStr) -> Result<File, TokenFileError> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name, flags, PRIVATE).map_err(|errno| self.io("make", errno))?;
        Ok(File::from(file))
    }

    /// Whoever opens the name sees the old content or this one.
    fn replace(&self, content: &str, durable: Durable) -> Result<(), TokenFileError> {
        // A rename would replace a link and not follow it; but a link here is somebody's plan, and we say so.
        if let Some(what) = self.stat()?.as_ref().and_then(distrust) {
            return Err(self.refused(what));
        }
        let fresh = match durable {
            // Under the exclusive lock one name is enough, and what a killed process left goes away here.
            Durable::Yes => {
                let fresh = hidden(&self.name, "new");
                match unlinkat(&self.directory, fresh.as_os_str(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(Errno::ENOENT) => fresh,
                    Err(errno) => return Err(self.io("replace", errno)),
                }
            }
            Durable::No => hidden(&self.name, &Ulid::new().to_string()),
        };
        let mut file = self.create(&fresh)?;
        let written = file
            .write_all(content.as_bytes())
            .map_err(|source| self.io("write", source))
            .and_then(|()| match durable {
                Durable::Yes => file.sync_all().map_err(|source| self.io("sync", source)),
                Durable::No => Ok(()),
            })
            .and_then(|()| {
                pass(CrashPoint::TokenRenameBefore);
                renameat(&self.directory, fresh.as_os_str(), &self.directory, self.name.as_os_str())
                    .map_err(|errno| self.io("replace", errno))
            });
        if written.is_err() {
            let _ = unlinkat(&self.directory, fresh.as_os_str(), UnlinkatFlags::NoRemoveDir);
        }
        written?;
        pass(CrashPoint::TokenRenameAfter);
        match durable {
            Durable::Yes => fsync(&self.directory).map_err(|errno| self.io("sync the directory of", errno)),
            Durable::No => Ok(()),
        }
    }

    fn unlink(&self, doing: &'static str) -> Result<(), TokenFileError> {
        match unlinkat(&self.directory, self.name.as_os_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(self.io(doing, errno)),
        }
    }

    /// Takes the flock `.<name>.lock` beside the file. `None` for a reader that may not make one: the rename keeps its
    /// view whole even so. The lock file is never removed, or two could hold it.
    fn lock(&self, how: FlockArg) -> Result<Option<Flock<File>>, TokenFileError> {
        let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK;
        let name = hidden(&self.name, "lock");
        let file = match openat(&self.directory, name.as_os_str(), flags, PRIVATE) {
            Ok(file) => file,
            Err(Errno::EACCES | Errno::EROFS) if how == FlockArg::LockSharedNonblock => return Ok(None),
            Err(Errno::ELOOP) => return Err(self.refused("its lock file is a symbolic link")),
            Err(errno) => return Err(self.io("lock", errno)),
        };
        let stat = fstat(file.as_fd()).map_err(|errno| self.io("lock", errno))?;
        if let Some(what) = distrust(&stat) {
            return Err(self.refused(format!("its lock file: {what}")));
        }
        let deadline = Instant::now() + LOCK_WITHIN;
        let mut file = File::from(file);
        loop {
            file = match Flock::lock(file, how) {
                Ok(lock) => return Ok(Some(lock)),
                Err((file, Errno::EWOULDBLOCK)) if Instant::now() < deadline => file,
                Err((_, Errno::EWOULDBLOCK)) => {
                    let why = "another process has held its lock for 5 s";
                    return Err(self.io("lock", io::Error::new(io::ErrorKind::WouldBlock, why)));
                }
                Err((_, errno)) => return Err(self.io("lock", errno)),
            };
            // Not a blocking flock: a stopped holder would keep the thread, and with it the whole process, for ever.
            sleep(Duration::from_millis(2));
        }
    }
}

/// Why a file is not to be trusted. Readable for others is not among it: that can be mended.
fn distrust(stat: &FileStat) -> Option<String> {
    match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => {}
        libc::S_IFLNK => return Some("it is a symbolic link".to_owned()),
        _ => return Some("not a regular file".to_owned()),
    }
    if stat.st_uid != geteuid().as_raw() {
        return Some(format!("it belongs to {}, not to us", account(stat.st_uid)));
    }
    (stat.st_mode & 0o022 != 0).then(|| format!("others may write to it (mode {:04o})", stat.st_mode & 0o7777))
}

/// `.<name>.<suffix>`.
fn hidden(name: &OsStr, suffix: &str) -> OsString {
    let mut hidden = OsString::from(".");
    hidden.push(name);
    hidden.push(".");
    hidden.push(suffix);
    hidden
}
