//! Removes what dead processes left: children, private directories, files of the token storer, lock files.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{Pid, UnlinkatFlags, geteuid, unlinkat};

use super::descendants::freeze;
use super::owner::{lock_path, options, owner_is_dead, try_lock};
use super::proc;
use crate::crash_point::{CrashPoint, pass};
use crate::private_dir::PrivateDirError;
use crate::process::MARK;
use crate::workflow::id::ProcessId;

/// How long a killed process may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(2);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(1);

/// What was left of one dead process, and is gone now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Swept {
    /// The dead process.
    pub process: ProcessId,
    /// How many processes carried its mark and were ended.
    pub ended: usize,
    /// The files outside its private directory that were removed.
    pub files: Vec<PathBuf>,
    /// What could not be ended or removed, for the log. Its lock file stays then, and the next sweep tries again.
    pub problems: Vec<String>,
}

/// Clears after every dead owner under `run_dir`; the first thing an acting command does, before it looks for runs to
/// resume. `shared` are the directories in which children leave files named after their process (`/tmp`).
///
/// Ends processes of our own account that carry a dead owner's mark, with their unmarked descendants; never this process,
/// one above it, or one with a living owner's mark. Two sweeps at once share the work: each takes a dead owner's lock
/// first. A `run_dir` that does not exist has nothing to sweep.
pub fn sweep(run_dir: &Path, shared: &[PathBuf]) -> Result<Vec<Swept>, PrivateDirError> {
    pass(CrashPoint::SweepBefore);
    let entries = match fs::read_dir(run_dir) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(source) => return Err(PrivateDirError::Io { doing: "read", path: run_dir.to_owned(), source }),
    };
    let mut dead = BTreeSet::new();
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some(name) = name.to_str() else { continue };
        if name.strip_prefix('.').is_some_and(|rest| rest.ends_with(".new")) {
            remove_unfinished(&entry.path());
        } else if let Ok(process) = name.strip_suffix(".lock").unwrap_or(name).parse() {
            dead.insert(process);
        }
    }
    let swept = dead.into_iter().filter_map(|process| sweep_one(run_dir, process, shared)).collect();
    pass(CrashPoint::SweepAfter);
    Ok(swept)
}

/// Ends what one dead process has left, as [`sweep`] does, or waits until its guardian or another sweep has done it. Who has
/// not done it after this time may be stopped: then the processes with the mark are ended here, and the files are left to it.
/// `false`: something of it cannot be ended. Nothing is left of a process without a lock file.
///
/// The caller knows that the worker is dead, which its lock does not say while the guardian lives.
pub fn bury(run_dir: &Path, process: ProcessId, shared: &[PathBuf], within: Duration) -> bool {
    let until = Instant::now() + within;
    while lock_path(run_dir, process).exists() {
        if let Some(swept) = sweep_one(run_dir, process, shared) {
            return swept.problems.is_empty();
        }
        if Instant::now() >= until {
            return end_marked(process).1.is_empty();
        }
        sleep(PAUSE);
    }
    true
}

/// `None`: alive, or another sweep is at it.
fn sweep_one(run_dir: &Path, process: ProcessId, shared: &[PathBuf]) -> Option<Swept> {
    // Held to the end: to others the owner lives until nothing is left of it.
    let _lock = match options().open(lock_path(run_dir, process)) {
        Ok(file) => Some(file).filter(|file| matches!(try_lock(file), Ok(true)))?,
        // A directory without a lock file: the lock is made first and removed last, so its owner is long gone.
        Err(_) if owner_is_dead(run_dir, process) => {
            return run_dir.join(process.to_string()).exists().then(|| clear(run_dir, process, shared));
        }
        Err(_) => return None,
    };
    Some(clear(run_dir, process, shared))
}

/// A lock file whose maker died before it got its name.
fn remove_unfinished(path: &Path) {
    if let Ok(file) = options().open(path)
        && matches!(try_lock(&file), Ok(true))
    {
        let _ = fs::remove_file(path); // the next sweep tries again
    }
}

/// Ends the marked processes and removes everything of `process`.
pub(super) fn clear(run_dir: &Path, process: ProcessId, shared: &[PathBuf]) -> Swept {
    let (ended, left) = end_marked(process);
    let mut swept = Swept { process, ended, files: Vec::new(), problems: Vec::new() };
    swept.problems.extend(left.into_iter().map(|pid| format!("process {pid} with the mark {process} cannot be ended")));
    remove_files(run_dir, &mut swept, shared);
    swept
}

/// Removes the files of a process that has no children any more; the lock file last, and only if all else is gone.
pub(super) fn remove_files(run_dir: &Path, swept: &mut Swept, shared: &[PathBuf]) {
    for directory in shared {
        match remove_marked(directory, swept.process) {
            Ok(files) => swept.files.extend(files),
            Err(error) => swept.problems.push(format!("cannot look through {}: {error}", directory.display())),
        }
    }
    // `remove_dir_all` works on descriptors and does not follow links, not even ones swapped in while it works.
    remove(&run_dir.join(swept.process.to_string()), |path| fs::remove_dir_all(path), &mut swept.problems);
    if swept.problems.is_empty() {
        remove(&lock_path(run_dir, swept.process), |path| fs::remove_file(path), &mut swept.problems);
    }
}

fn remove(path: &Path, how: impl Fn(&Path) -> io::Result<()>, problems: &mut Vec<String>) {
    match how(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            problems.push(format!("cannot remove {}: {error}", path.display()));
        }
        Ok(()) | Err(_) => {}
    }
}

/// Removes our files `vt_mt…<process id>…` and `bt_mt…<process id>…` from a directory we share with others; links are
/// removed, never followed; directories and what belongs to others stay. Returns what is gone.
pub fn remove_marked(directory: &Path, process: ProcessId) -> io::Result<Vec<PathBuf>> {
    let mut dir = match Dir::open(directory, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()) {
        Ok(dir) => dir,
        Err(Errno::ENOENT) => return Ok(Vec::new()),
        Err(errno) => return Err(errno.into()),
    };
    let id = process.to_string();
    let names: Vec<_> = dir.iter().flatten().map(|entry| entry.file_name().to_owned()).collect();
    let mut gone = Vec::new();
    for name in names {
        let Some(text) = name.to_str().ok().filter(|text| is_marked(text, &id)) else { continue };
        let Ok(stat) = fstatat(dir.as_fd(), name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else { continue };
        if stat.st_uid != geteuid().as_raw() || stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            continue;
        }
        match unlinkat(dir.as_fd(), name.as_c_str(), UnlinkatFlags::NoRemoveDir) {
            Ok(()) => gone.push(directory.join(text)),
            Err(Errno::ENOENT) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Ok(gone)
}

fn is_marked(name: &str, id: &str) -> bool {
    (name.starts_with("vt_mt") || name.starts_with("bt_mt")) && name.to_ascii_lowercase().contains(id)
}

/// Ends the processes of our account with this mark, and those below them that carry none. Returns how many, and those
/// that would not go.
fn end_marked(process: ProcessId) -> (usize, Vec<Pid>) {
    let mark = process.to_string();
    let spared: BTreeSet<Pid> = proc::ancestry().into_iter().collect();
    let account = geteuid().as_raw();
    let found = freeze(|known| {
        let all = proc::of_account(account);
        let mut members = known.clone();
        // A child can stand before its parent in the list: again until nobody joins.
        loop {
            let before = members.len();
            for pid in &all {
                if !members.contains(pid) && !spared.contains(pid) && belongs(*pid, &mark, &members) {
                    members.insert(*pid);
                }
            }
            if members.len() == before {
                break;
            }
        }
        members.difference(known).copied().collect()
    });
    // Between our look and our signal a process may have ended and its number gone to a stranger. Stopped, it cannot
    // change any more: look again, and let a stranger go on.
    let (ours, strangers): (BTreeSet<Pid>, BTreeSet<Pid>) =
        found.iter().partition(|pid| proc::is_dead(**pid) || belongs(**pid, &mark, &found));
    for pid in strangers {
        proc::send(pid, Signal::SIGCONT);
    }
    for pid in &ours {
        proc::send(*pid, Signal::SIGKILL);
    }
    let deadline = Instant::now() + GONE_WITHIN;
    while ours.iter().any(|pid| !proc::is_dead(*pid)) && Instant::now() < deadline {
        sleep(PAUSE);
    }
    let left: Vec<Pid> = ours.iter().copied().filter(|pid| !proc::is_dead(*pid)).collect();
    (ours.len() - left.len(), left)
}

fn belongs(pid: Pid, mark: &str, members: &BTreeSet<Pid>) -> bool {
    match proc::variable(pid, MARK) {
        Some(own) => own == mark,
        None => proc::stat(pid).is_some_and(|stat| members.contains(&stat.parent) && stat.parent != pid),
    }
}
