//! The UIDs that a run works with: from the configuration, else from the store, else from `uids.json`.
//!
//! `uids.json` beside the store is written with every change of a UID, so that tokens can be pushed when the store
//! cannot be used. A number in it is what the store says, too. What was recorded while the store could not be used has its
//! time with it, until the store has got it. So the file is never written over what could not be read at the moment, and what
//! is damaged is kept under another name:
//!
//! ```json
//! {
//!   "dunepro": { "uid": 5678, "recorded_at": "2026-11-28T05:00:00Z" },
//!   "mu2epro": 1235
//! }
//! ```

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::workflow::input_file;
use crate::workflow::store::KnownUid;

/// An account takes some 100 bytes at most.
const MOST_BYTES: u64 = 16 << 20;

/// So long somebody else may write the file, who has to wait for the store meanwhile. StoreUid has 10 s for all it does.
pub const TURN_WITHIN: Duration = Duration::from_secs(3);
const TURN_EVERY: Duration = Duration::from_millis(5);

/// What the file says of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Entry {
    /// The store says so, too.
    Held(u32),
    /// The store does not know yet.
    Alone(KnownUid),
}

impl Entry {
    fn uid(self) -> u32 {
        match self {
            Self::Held(uid) => uid,
            Self::Alone(known) => known.uid,
        }
    }
}

type Entries = BTreeMap<String, Entry>;

/// The UIDs in the file; empty if there is none. What cannot be a UID is left out with a warning.
pub fn read(path: &Path) -> io::Result<BTreeMap<String, u32>> {
    Ok(entries(path)?.0.into_iter().map(|(account, entry)| (account, entry.uid())).collect())
}

/// The UIDs in the file that the store may not know yet.
pub fn alone(path: &Path) -> io::Result<BTreeMap<String, KnownUid>> {
    Ok(only_alone(entries(path)?.0))
}

fn only_alone(entries: Entries) -> BTreeMap<String, KnownUid> {
    let alone = |(account, entry)| match entry {
        Entry::Held(_) => None,
        Entry::Alone(known) => Some((account, known)),
    };
    entries.into_iter().filter_map(alone).collect()
}

/// Is it what the file says that makes no sense? Another attempt would find the same then. Else it could not be read at the
/// moment, and may say what nobody else knows.
pub fn is_damaged(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::FileTooLarge)
}

/// Does the file say what the store holds, and nothing else?
pub fn agrees(path: &Path, held: &BTreeMap<String, u32>) -> io::Result<bool> {
    let (entries, all_make_sense) = entries(path)?;
    Ok(all_make_sense && entries == held_entries(held))
}

fn held_entries(held: &BTreeMap<String, u32>) -> Entries {
    held.iter().map(|(account, uid)| (account.clone(), Entry::Held(*uid))).collect()
}

/// Is what the store holds the later word? A time that is yet to come is of a clock that was wrong, and says nothing.
pub fn is_later(held: KnownUid, other: KnownUid) -> bool {
    held.recorded_at > other.recorded_at && held.recorded_at <= Timestamp::now()
}

/// Adds those to what the store says that were recorded later.
pub fn newest(mut known: BTreeMap<String, KnownUid>, alone: BTreeMap<String, KnownUid>) -> BTreeMap<String, KnownUid> {
    for (account, uid) in alone {
        if known.get(&account).is_none_or(|held| held.recorded_at != uid.recorded_at && !is_later(*held, uid)) {
            known.insert(account, uid);
        }
    }
    known
}

/// What the file says, and whether all of it makes sense. A UID of 0 is root's: no account has it, and no other source of
/// UIDs lets it pass.
fn entries(path: &Path) -> io::Result<(Entries, bool)> {
    let text = match input_file::read_text(path, MOST_BYTES) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((Entries::new(), true)),
        Err(error) => return Err(error),
    };
    let mut entries = Entries::new();
    let all = serde_json::from_str::<BTreeMap<String, serde_json::Value>>(&text);
    let all = all.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
    let many = all.len();
    for (account, value) in all {
        match serde_json::from_value::<Entry>(value) {
            Ok(entry) if entry.uid() != 0 => {
                entries.insert(account, entry);
            }
            Ok(_) => tracing::warn!("{} says that {account} has the UID 0: it is left out", path.display()),
            Err(_) => tracing::warn!("{} has no UID of {account} that makes sense: it is left out", path.display()),
        }
    }
    let all_make_sense = entries.len() == many;
    Ok((entries, all_make_sense))
}

/// The right to change the file, among all processes. Given back when dropped.
#[derive(Debug)]
pub struct Turn {
    path: PathBuf,
    _lock: File,
}

/// Waits for the right to change this file. Blocks. After so long in vain: [`io::ErrorKind::TimedOut`].
pub fn turn(path: &Path, patience: Duration) -> io::Result<Turn> {
    // A file of its own, for `uids.json` is another one after every change. Not the directory: whoever can read a file can
    // lock it, and others may read that.
    let name = path.with_extension("lock");
    let lock = input_file::open_lock(&name)
        .map_err(|error| io::Error::new(error.kind(), format!("cannot lock {}: {error}", name.display())))?;
    let until = Instant::now() + patience;
    loop {
        match lock.try_lock() {
            Ok(()) => return Ok(Turn { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(TURN_EVERY),
            Err(TryLockError::WouldBlock) => {
                let why = "another process is about to write it and does not come to an end";
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
}

impl Turn {
    /// What the store may not know yet. A damaged file says nothing.
    pub fn alone(&self) -> io::Result<BTreeMap<String, KnownUid>> {
        match alone(&self.path) {
            Err(error) if is_damaged(&error) => Ok(BTreeMap::new()),
            alone => alone,
        }
    }

    /// Has the file say what the store holds. To be asked for what it holds in the same turn: whoever writes last has then
    /// looked last.
    pub fn follow(&self, held: &BTreeMap<String, u32>) -> io::Result<()> {
        if let Some((error, kept)) = self.keep_damaged()? {
            let (file, kept) = (self.path.display(), kept.display());
            tracing::warn!("{file} could not be read ({error}), is written anew, and is kept: {kept}");
        }
        if agrees(&self.path, held)? { Ok(()) } else { self.write(&held_entries(held)) }
    }

    /// Renames the file if it is damaged, so that somebody can look at it. Gives what is wrong, and its new place.
    pub fn keep_damaged(&self) -> io::Result<Option<(io::Error, PathBuf)>> {
        let error = match entries(&self.path) {
            Ok(_) => return Ok(None),
            Err(error) if is_damaged(&error) => error,
            Err(error) => return Err(error),
        };
        let name = format!("json.damaged-{}", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
        // Nobody else has a turn: a name that is free stays so.
        let kept = (1..)
            .map(|n| self.path.with_extension(if n == 1 { name.clone() } else { format!("{name}-{n}") }))
            .find(|kept| fs::symlink_metadata(kept).is_err())
            .unwrap_or_default();
        fs::rename(&self.path, &kept)?;
        Ok(Some((error, kept)))
    }

    /// Records a UID in the file alone; says what it had before.
    pub fn record(&self, account: &str, uid: u32) -> io::Result<Option<u32>> {
        let (mut all, _) = entries(&self.path)?;
        let before = all.insert(account.to_owned(), Entry::Alone(KnownUid { uid, recorded_at: Timestamp::now() }));
        self.write(&all)?;
        Ok(before.map(Entry::uid))
    }

    /// Replaces the file as a whole: readers see the old one or the new one.
    fn write(&self, all: &Entries) -> io::Result<()> {
        // Nobody else has a turn: what is there is of a process that was killed.
        let fresh = self.path.with_extension("json.new");
        match fs::remove_file(&fresh) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let text = serde_json::to_string_pretty(all).map_err(io::Error::other)?;
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
            .and_then(|()| fs::rename(&fresh, &self.path));
        if written.is_err() {
            // The first error is the one to tell.
            let _ = fs::remove_file(&fresh);
        }
        written?;
        match self.path.parent() {
            Some(directory) => File::open(directory)?.sync_all(),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;

    fn file() -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("uids.json");
        (directory, path)
    }

    fn uids<const N: usize>(uids: [(&str, u32); N]) -> BTreeMap<String, u32> {
        uids.into_iter().map(|(account, uid)| (account.to_owned(), uid)).collect()
    }

    #[test]
    fn one_at_a_time_has_its_turn_and_whoever_waits_is_told_when_it_is_in_vain() {
        let (_directory, path) = file();
        let one = turn(&path, Duration::ZERO).unwrap();
        assert_eq!(turn(&path, Duration::ZERO).unwrap_err().kind(), io::ErrorKind::TimedOut);
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let turn = turn(&path, Duration::from_secs(60)).unwrap();
                // It comes after what was written in the turn before.
                assert_eq!(read(&path).unwrap(), uids([("dunepro", 1)]));
                turn.follow(&uids([("dunepro", 1), ("mu2epro", 2)])).unwrap();
            });
            one.follow(&uids([("dunepro", 1)])).unwrap();
            drop(one);
            other.join().unwrap();
        });
        assert_eq!(read(&path).unwrap(), uids([("dunepro", 1), ("mu2epro", 2)]));
    }

    #[test]
    fn what_was_written_is_read_back_and_what_a_killed_process_left_is_gone() {
        let (directory, path) = file();
        assert_eq!(read(&path).unwrap(), uids([]));
        fs::write(directory.path().join("uids.json.new"), "{\"dune").unwrap();
        let turn = turn(&path, Duration::ZERO).unwrap();
        turn.follow(&uids([("dunepro", 1234), ("mu2epro", 1235)])).unwrap();
        assert_eq!(read(&path).unwrap(), uids([("dunepro", 1234), ("mu2epro", 1235)]));
        let left = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name());
        assert_eq!(left.collect::<BTreeSet<_>>(), BTreeSet::from(["uids.json", "uids.lock"].map(Into::into)));
        // Nothing is written where nothing has changed.
        let before = fs::metadata(&path).unwrap().ino();
        turn.follow(&uids([("dunepro", 1234), ("mu2epro", 1235)])).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before);
    }

    #[test]
    fn what_the_store_does_not_know_is_marked_until_the_file_follows_it() {
        let (_directory, path) = file();
        let turn = turn(&path, Duration::ZERO).unwrap();
        turn.follow(&uids([("dunepro", 1234), ("mu2epro", 1235)])).unwrap();
        assert_eq!(turn.record("dunepro", 5678).unwrap(), Some(1234));
        assert_eq!(read(&path).unwrap(), uids([("dunepro", 5678), ("mu2epro", 1235)]));
        assert_eq!(turn.alone().unwrap().into_keys().collect::<Vec<_>>(), ["dunepro"]);
        turn.follow(&uids([("dunepro", 5678), ("mu2epro", 1235)])).unwrap();
        assert_eq!(alone(&path).unwrap(), BTreeMap::new());
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"dunepro\": 5678,\n  \"mu2epro\": 1235\n}\n");
    }

    #[test]
    fn of_two_uids_of_an_account_the_one_that_was_recorded_later_counts() {
        let known = |uid, second| KnownUid { uid, recorded_at: Timestamp::from_second(second).unwrap() };
        let map = |all: &[(&str, KnownUid)]| -> BTreeMap<String, KnownUid> {
            all.iter().map(|(account, uid)| ((*account).to_owned(), *uid)).collect()
        };
        let held = map(&[("older", known(1, 20)), ("newer", known(1, 10)), ("only held", known(1, 10))]);
        let alone = map(&[("older", known(2, 10)), ("newer", known(2, 20)), ("only alone", known(2, 20))]);
        let all = newest(held, alone).into_iter().map(|(account, known)| (account, known.uid)).collect();
        assert_eq!(uids([("newer", 2), ("older", 1), ("only alone", 2), ("only held", 1)]), all);
    }

    #[test]
    fn root_is_nobodys_uid_and_what_is_no_uid_costs_no_other_account_its_own() {
        let (_directory, path) = file();
        let root = r#"{"uid": 0, "recorded_at": "2026-11-28T05:00:00Z"}"#;
        let text = format!(r#"{{"dunepro": 0, "mu2epro": 1235, "novapro": -1, "oldpro": "7", "rootpro": {root}}}"#);
        fs::write(&path, text).unwrap();
        assert_eq!(read(&path).unwrap(), uids([("mu2epro", 1235)]));
        assert_eq!(alone(&path).unwrap(), BTreeMap::new());
        // The next change leaves it out for good.
        turn(&path, Duration::ZERO).unwrap().follow(&uids([("mu2epro", 1235)])).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\n  \"mu2epro\": 1235\n}\n");
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_an_empty_list_and_is_replaced_and_kept() {
        let (directory, path) = file();
        let turn = turn(&path, Duration::ZERO).unwrap();
        let damaged = [&b"{\"dunepro\": 12"[..], b"{\"dunepro\xff\": 12}", b""];
        for content in damaged {
            fs::write(&path, content).unwrap();
            assert!(is_damaged(&read(&path).unwrap_err()));
            assert!(turn.record("dunepro", 7).is_err(), "what else it said would be lost");
            assert!(turn.alone().unwrap().is_empty());
            turn.follow(&uids([("dunepro", 1234)])).unwrap();
            assert_eq!(read(&path).unwrap(), uids([("dunepro", 1234)]));
        }
        let kept = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().path());
        let is_kept = |path: &PathBuf| path.to_string_lossy().contains("uids.json.damaged-");
        let mut kept: Vec<_> = kept.filter(is_kept).map(|kept| fs::read(kept).unwrap()).collect();
        kept.sort_unstable();
        assert_eq!(kept, [damaged[2], damaged[0], damaged[1]], "in one second, too");
    }

    #[test]
    fn a_file_that_cannot_be_read_at_the_moment_is_left_alone() {
        let (_directory, path) = file();
        let turn = turn(&path, Duration::ZERO).unwrap();
        turn.record("dunepro", 5678).unwrap();
        // It is refused as long as everybody may write to it.
        let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        mode(0o606);
        assert!(!is_damaged(&turn.alone().unwrap_err()));
        assert!(turn.keep_damaged().is_err());
        assert!(turn.follow(&uids([("mu2epro", 1235)])).is_err());
        mode(0o600);
        assert_eq!(turn.alone().unwrap().into_keys().collect::<Vec<_>>(), ["dunepro"]);
    }
}
