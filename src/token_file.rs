//! The only place that reads, writes or moves a token file.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::redact::Secret;

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
        unimplemented!("being written")
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
    /// A link, a FIFO, a foreign owner, a mode that lets others read: not to be trusted.
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

/// Reads a token; refuses links, foreign owners, and files others can read or write (a kept file of the
/// predecessor is 0644: it is tightened to 0600 first, if it is ours).
pub fn read(_path: &Path) -> Result<VaultToken, TokenFileError> {
    unimplemented!("being written")
}

/// Copies a kept token into a private directory (0600, O_EXCL), under a shared flock of the kept file's lock.
/// `Ok(None)` when there is no kept file.
pub fn stage(_kept: &Path, _staged: &Path) -> Result<Option<Fingerprint>, TokenFileError> {
    unimplemented!("being written")
}

/// Replaces the kept file by the staged one: written beside it, synced, renamed, under the exclusive flock. The staged file stays.
pub fn keep(_staged: &Path, _kept: &Path) -> Result<Fingerprint, TokenFileError> {
    unimplemented!("being written")
}

/// Writes a small non-secret companion file (the default role file) 0600 into a private directory.
pub fn write_private(_path: &Path, _content: &str) -> Result<(), TokenFileError> {
    unimplemented!("being written")
}

/// Removes a token file; fine if there is none.
pub fn remove(_path: &Path) -> Result<(), TokenFileError> {
    unimplemented!("being written")
}
