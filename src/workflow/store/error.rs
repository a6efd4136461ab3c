//! What can go wrong with the store, and what to do about each.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::workflow::code::Code;
use crate::workflow::id::RunId;

/// Another process holds the store and does not let go.
pub const BUSY: Code = Code(70);
/// The disk is full, or nearly.
pub const NO_SPACE: Code = Code(71);
/// The store is not what was written.
pub const DAMAGED: Code = Code(72);
/// A newer `mt` wrote it.
pub const NEWER: Code = Code(73);
/// The state directory is not ours alone.
pub const PERMISSION: Code = Code(74);
/// The operating system refused.
pub const IO: Code = Code(75);
/// The store was used after it had been closed.
pub const CLOSED: Code = Code(76);
/// There is no state directory, or no store in it.
pub const MISSING: Code = Code(77);
/// `mt` asked the store for what it must not do: a bug.
pub const MISUSED: Code = Code(78);
/// The store was not replaced.
pub const NOT_IMPORTED: Code = Code(79);

/// What `mt explain` says about the codes above.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[
    (
        BUSY,
        "another process holds the store and does not let go",
        "One process at a time has the store open; a holder hands it over within a few hundredths of a second.\n\
         A holder that does not is stopped (Ctrl-Z, a debugger) or waits for its disk.\n\
         Look at the process the message names: `kill -CONT PID` continues a stopped one, `kill PID` ends it.\n\
         A run that cannot wait goes on unrecorded and exits 21: its tokens are pushed.",
    ),
    (
        NO_SPACE,
        "the disk that holds the store is full",
        "Nothing that was recorded is lost. The store is not even opened below 16 MiB of free space, because opening writes.\n\
         Free space on that disk, or remove old runs with `mt runs prune --keep 7d` once it can be opened again.\n\
         Until then runs go on unrecorded and exit 21: their tokens are pushed.",
    ),
    (
        DAMAGED,
        "the store is damaged",
        "It opened empty, older than what was safely written, or not at all. It was left exactly as it is.\n\
         Until it is replaced every run is unrecorded and exits 21: tokens are pushed all the same.\n\
         `mt store verify` says what is lost. `mt store export FILE` saves what can be read, even where the store cannot be\n\
         opened. `mt store import FILE` builds a fresh store from that file or from an older one; `mt store import --empty`\n\
         starts an empty one. Both keep the damaged one as `store.damaged-<time>`.",
    ),
    (
        NEWER,
        "a newer mt wrote this store",
        "This `mt` does not know its format, so it will not write to it.\n\
         Install the newer `mt` here too. Whatever can be read is shown all the same.",
    ),
    (
        PERMISSION,
        "the state directory cannot be trusted or used",
        "It must be a directory, not a link, owned by the user who runs `mt`, and writable by that user alone.\n\
         The message says what is wrong with it and which command mends it.",
    ),
    (
        IO,
        "the store could not be read or written",
        "The operating system refused; the message says what and why. Look at the disk (`dmesg`, `df`).\n\
         Runs go on unrecorded and exit 21 until it works again. Where a part of the disk can never be read again, go on as\n\
         with a damaged store: `mt store export FILE` saves the rest of it, `mt store import FILE` builds a fresh one.",
    ),
    (
        CLOSED,
        "the store was closed already",
        "`mt` used the store after it had closed it. This is a mistake in `mt`: please report it with the log.",
    ),
    (
        MISSING,
        "there is no state directory, or no store in it",
        "Nothing has run with this state directory yet, or `--state-dir`, `MT_STATE_DIR` or `stateDir` names the wrong place.\n\
         The first `mt run` creates it.",
    ),
    (
        MISUSED,
        "mt asked the store for what it must not do",
        "The store refused a change that would have made a run's history inconsistent. Nothing was written.\n\
         This is a mistake in `mt`: please report it with the log.",
    ),
    (
        NOT_IMPORTED,
        "the store was not replaced",
        "The file is no whole export of a store, or the store in place is whole and holds runs. Nothing was changed.\n\
         An export ends with a line that says how many records there are; without it the file was cut off.\n\
         `mt store import --partial FILE` takes what can be read of a damaged file. `--replace` puts a whole store aside, as\n\
         `store.replaced-<time>`.",
    ),
];

/// What the process that holds the store is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HolderState {
    /// It runs or sleeps.
    Alive,
    /// It waits for its disk.
    WaitingForDisk,
    /// A signal or a debugger has stopped it.
    Stopped,
    /// It has ended, or is on another host.
    NotFound,
}

impl HolderState {
    /// From `/proc/PID/stat`.
    pub(super) fn of(pid: u32) -> Self {
        let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return Self::NotFound };
        // The command's name stands in parentheses and may itself hold some: the state follows the last one.
        match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
            Some('T' | 't') => Self::Stopped,
            Some('D') => Self::WaitingForDisk,
            Some('Z' | 'X') | None => Self::NotFound,
            Some(_) => Self::Alive,
        }
    }
}

impl fmt::Display for HolderState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Alive => "alive",
            Self::WaitingForDisk => "waiting for its disk",
            Self::Stopped => "stopped",
            Self::NotFound => "not found",
        })
    }
}

/// Why the store did not do what it was asked. Cheap to clone: a failed group commit tells every writer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds the store and did not let go in time.
    #[error("cannot open the store {}: {} has held it for more than {waited:?}; {}", path.display(), holder(*pid, *state), way_out(*pid, *state))]
    Busy {
        /// The store.
        path: PathBuf,
        /// Who holds it, if known.
        pid: Option<u32>,
        /// What the holder does.
        state: HolderState,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The disk is full.
    #[error("cannot use the store {}: {what}; free space on that disk", path.display())]
    NoSpace {
        /// The store.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// The store is not what was written. It was left as it is.
    #[error("the store {} is damaged: {what}; it was left as it is: save what is left with `mt store export FILE`, then `mt store import FILE`, or start anew with `mt store import --empty`", path.display())]
    Damaged {
        /// The store.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// A newer `mt` wrote it.
    #[error("cannot {doing} the store {}: {what}; install that version of mt here too", path.display())]
    Newer {
        /// `read` or `write`.
        doing: &'static str,
        /// The store.
        path: PathBuf,
        /// How it shows.
        what: String,
    },
    /// The state directory is not a directory of ours alone, or we may not use it.
    #[error("cannot use {}: {what}; {next}", path.display())]
    Permission {
        /// What.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
        /// The way out.
        next: String,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}; look at that disk (dmesg, df)", path.display())]
    Io {
        /// `read`, `sync`, …
        doing: &'static str,
        /// What.
        path: PathBuf,
        /// Why.
        source: Arc<io::Error>,
    },
    /// The store's thread does not answer: its disk hangs.
    #[error("the store {} has not answered for {waited:?}; look at its disk (dmesg, `ps -o stat,wchan`)", path.display())]
    Hangs {
        /// The store.
        path: PathBuf,
        /// How long it was waited for.
        waited: Duration,
    },
    /// There is no state directory, or no store in it.
    #[error("{} does not exist: nothing has run with it yet, or --state-dir names the wrong place", path.display())]
    Missing {
        /// The state directory.
        path: PathBuf,
    },
    /// The handle was closed.
    #[error("cannot use the store: it was closed already; this is a mistake in mt, please report it")]
    Closed,
    /// A write through a handle opened for reading.
    #[error("cannot write the store: it was opened for reading; this is a mistake in mt, please report it")]
    ReadOnly,
    /// An event that is not the next of its run.
    #[error(
        "cannot record event {got} of run {run}: the next is {expected}; another session works on it, or it is a mistake in mt"
    )]
    OutOfOrder {
        /// The run.
        run: RunId,
        /// Which event must come next.
        expected: u64,
        /// Which event came.
        got: u64,
    },
    /// A value that cannot be written as JSON.
    #[error("cannot record {what}: {why}; this is a mistake in mt, please report it")]
    Unstorable {
        /// Which record.
        what: String,
        /// Why.
        why: String,
    },
}

impl StoreError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        match self {
            Self::Busy { .. } => BUSY,
            Self::NoSpace { .. } => NO_SPACE,
            Self::Damaged { .. } => DAMAGED,
            Self::Newer { .. } => NEWER,
            Self::Permission { .. } => PERMISSION,
            Self::Io { .. } | Self::Hangs { .. } => IO,
            Self::Missing { .. } => MISSING,
            Self::Closed => CLOSED,
            Self::ReadOnly | Self::OutOfOrder { .. } | Self::Unstorable { .. } => MISUSED,
        }
    }

    /// Will it stay so for the whole life of this process? Then the store is not tried again.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Newer { .. } => true,
            Self::Busy { .. }
            | Self::NoSpace { .. }
            | Self::Permission { .. }
            | Self::Io { .. }
            | Self::Hangs { .. }
            | Self::Missing { .. }
            | Self::Closed
            | Self::ReadOnly
            | Self::OutOfOrder { .. }
            | Self::Unstorable { .. } => false,
        }
    }

    pub(super) fn io(doing: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Self::NoSpace { path, what: format!("cannot {doing} it: {source}") }
            }
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Self::Permission {
                what: format!("cannot {doing} it: {source}"),
                next: format!("run as the owner of {}, and see that its disk is writable", path.display()),
                path,
            },
            _ => Self::Io { doing, path, source: Arc::new(source) },
        }
    }

    pub(super) fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged { path: path.to_owned(), what: what.into() }
    }

    pub(super) fn sled(doing: &'static str, path: &Path, source: sled::Error) -> Self {
        match source {
            // No device says so: a file of sled's is gone, or ends too early.
            sled::Error::Io(source)
                if matches!(source.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) =>
            {
                Self::damaged(path, format!("cannot {doing} it: {source}"))
            }
            sled::Error::Io(source) => Self::io(doing, path, source),
            other @ (sled::Error::CollectionNotFound(_)
            | sled::Error::Unsupported(_)
            | sled::Error::ReportableBug(_)
            | sled::Error::Corruption { .. }) => {
                // sled puts a backtrace behind its words, which is empty unless it was built for it.
                let words = other.to_string();
                let words = words.split("backtrace").next().unwrap_or_default().trim();
                Self::damaged(path, format!("cannot {doing} it: {words}"))
            }
        }
    }
}

fn holder(pid: Option<u32>, state: HolderState) -> String {
    match pid {
        Some(pid) => format!("process {pid} ({state})"),
        None => "another process".to_owned(),
    }
}

fn way_out(pid: Option<u32>, state: HolderState) -> String {
    match (pid, state) {
        (Some(pid), HolderState::Stopped) => format!("continue it with `kill -CONT {pid}` or end it"),
        (Some(pid), HolderState::Alive | HolderState::WaitingForDisk) => {
            format!("look what it does (`ps -p {pid} -f`), end it if it hangs")
        }
        (Some(_), HolderState::NotFound) | (None, _) => {
            format!("find it with `fuser` on the {} file", super::state_dir::STORE_LOCK)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_explained_once_and_lies_in_the_range_of_the_store() {
        let mut codes: Vec<u16> = EXPLANATIONS.iter().map(|(code, ..)| code.0).collect();
        codes.dedup();
        assert_eq!(codes, (70..=79).collect::<Vec<_>>());
    }

    #[test]
    fn a_full_disk_and_a_missing_right_are_told_apart_from_other_errors() {
        let path = Path::new("/x");
        let of = |errno| StoreError::io("write", path, io::Error::from_raw_os_error(errno)).code();
        assert_eq!(of(libc::ENOSPC), NO_SPACE);
        assert_eq!(of(libc::EDQUOT), NO_SPACE);
        assert_eq!(of(libc::EACCES), PERMISSION);
        assert_eq!(of(libc::EROFS), PERMISSION);
        assert_eq!(of(libc::EIO), IO);
    }
}
