//! What `/proc` says about processes. Every answer may be old by the time it is read; the callers look again.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// One line of `/proc/PID/stat`, or of one of its threads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    /// `R`, `S`, `D`, `T`, `Z`, …
    pub state: u8,
    /// Its parent.
    pub parent: Pid,
}

/// `None`: it is gone.
pub(super) fn stat(pid: Pid) -> Option<Stat> {
    parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name stands in brackets and may hold anything, brackets and blanks included: read on behind the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let mut fields = text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace();
    let state = *fields.next()?.as_bytes().first()?;
    let parent = fields.next()?.parse().ok()?;
    Some(Stat { state, parent: Pid::from_raw(parent) })
}

/// When the kernel started it, in clock ticks since the boot.
pub(super) fn start_ticks(pid: Pid) -> Option<u64> {
    parse_start(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The 22nd field; the first behind the name is the third.
fn parse_start(text: &str) -> Option<u64> {
    text.get(text.rfind(')')? + 1..)?.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Can it do nothing more: every thread stopped, or dead? A stop signal takes effect a moment after it was sent, and
/// until then the process can still fork.
pub(super) fn is_still(pid: Pid) -> bool {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    tasks.flatten().all(|task| match fs::read_to_string(task.path().join("stat")) {
        Ok(text) => parse_stat(&text).is_none_or(|stat| matches!(stat.state, b'T' | b't' | b'Z' | b'X')),
        Err(_) => true,
    })
}

/// Gone, or a zombie that its parent has not collected: it runs no more.
pub(super) fn is_dead(pid: Pid) -> bool {
    stat(pid).is_none_or(|stat| matches!(stat.state, b'Z' | b'X'))
}

/// The processes whose parent it is, over all its threads.
pub(super) fn children(pid: Pid) -> Vec<Pid> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_ascii_whitespace().filter_map(|word| word.parse().ok()).collect::<Vec<_>>())
        .map(Pid::from_raw)
        .collect()
}

/// Every process of the account.
pub(super) fn of_account(uid: u32) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry)))
        .filter(|(_, entry)| entry.metadata().is_ok_and(|meta| meta.uid() == uid))
        .map(|(pid, _)| Pid::from_raw(pid))
        .collect()
}

/// A variable of the environment it was started with.
pub(super) fn variable(pid: Pid, name: &str) -> Option<String> {
    let environ = fs::read(format!("/proc/{pid}/environ")).ok()?;
    environ.split(|byte| *byte == 0).find_map(|entry| {
        let value = entry.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
        Some(String::from_utf8_lossy(value).into_owned())
    })
}

/// This process and those above it.
pub(super) fn ancestry() -> Vec<Pid> {
    let mut line = vec![Pid::this()];
    let mut next = nix::unistd::getppid();
    // The bound is for a /proc that changes while we climb.
    while next.as_raw() > 0 && line.len() < 1000 && !line.contains(&next) {
        line.push(next);
        next = stat(next).map_or(Pid::from_raw(0), |stat| stat.parent);
    }
    line
}

/// Signals one process; whether it is gone already does not matter. False: we may not.
pub(super) fn send(pid: Pid, signal: Signal) -> bool {
    kill(pid, signal) != Err(Errno::EPERM)
}

/// One look at our own children.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Collected {
    /// A dead one, with how it ended.
    Dead(Pid, End),
    /// There are some, and none has died.
    Alive,
    /// There is none.
    None,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// With a code.
    Exited(i32),
    /// By a signal, which may be a realtime one.
    Signalled(i32),
}

/// Collects one dead child, if there is one.
pub(super) fn collect_one() -> Collected {
    wait_for(-1)
}

/// Collects this child if it is dead, and no other.
pub(super) fn collect(child: Pid) -> Option<End> {
    match wait_for(child.as_raw()) {
        Collected::Dead(_, end) => Some(end),
        Collected::Alive => None,
        // Nobody else collects our children.
        Collected::None => Some(End::Exited(1)),
    }
}

fn wait_for(child: libc::pid_t) -> Collected {
    loop {
        let mut status = 0;
        // Not nix's: that one calls a death by a realtime signal an error, and the child is collected all the same.
        // SAFETY: the pointer is to a live integer.
        match unsafe { libc::waitpid(child, &mut status, libc::WNOHANG) } {
            0 => return Collected::Alive,
            -1 if Errno::last() == Errno::EINTR => {}
            -1 => return Collected::None,
            pid if libc::WIFSIGNALED(status) => {
                return Collected::Dead(Pid::from_raw(pid), End::Signalled(libc::WTERMSIG(status)));
            }
            pid => return Collected::Dead(Pid::from_raw(pid), End::Exited(libc::WEXITSTATUS(status))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_name_cannot_forge_its_state() {
        let stat = parse_stat("42 (evil) Z 1 (x) S 7 42 42 0 -1").unwrap();
        assert_eq!(stat, Stat { state: b'S', parent: Pid::from_raw(7) });
        assert_eq!(parse_stat(""), None);
        assert_eq!(parse_stat("42 (x"), None);
        let whole = "42 (a 1) b) S 1 42 42 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987654 11 22";
        assert_eq!(parse_start(whole), Some(987_654));
    }

    #[test]
    fn we_are_our_own_first_ancestor_and_our_parent_the_second() {
        assert_eq!(ancestry()[..2], [Pid::this(), nix::unistd::getppid()]);
    }
}
