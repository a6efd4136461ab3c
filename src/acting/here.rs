//! This process, as the history of a run remembers it.

use std::io::IsTerminal;

use crate::guardian;
use crate::workflow::event::SessionStarted;
use crate::workflow::id::ProcessId;

/// How far up the tree of processes to look for who asked.
const ANCESTORS: usize = 6;

/// Who works on the run from now on, who asked for it (`trigger`, see [`trigger`]), and the id of the trace that will be sent.
pub fn session(process: ProcessId, trigger: String, trace: Option<String>) -> SessionStarted {
    let pid = std::process::id();
    let start_ticks = guardian::start_ticks(pid);
    SessionStarted { process, host: host(), boot_id: boot_id(), pid, start_ticks, trigger, trace }
}

/// The host's name.
pub fn host() -> String {
    nix::unistd::gethostname().map_or_else(|_| "unknown".to_owned(), |name| name.to_string_lossy().into_owned())
}

/// The kernel's id of this boot: tells a process that died from a host that rebooted.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned()
}

/// Who asked: `terminal`, `cron`, `systemd`, else the name of the parent process. To be called before the guardian forks.
pub fn trigger() -> String {
    if std::io::stderr().is_terminal() {
        return "terminal".to_owned();
    }
    let mut pid = nix::unistd::getppid().as_raw();
    let mut parent = None;
    for _ in 0..ANCESTORS {
        let Some((name, above)) = process(pid) else { break };
        if matches!(name.as_str(), "cron" | "crond" | "anacron") {
            return "cron".to_owned();
        }
        parent.get_or_insert(name);
        pid = above;
    }
    if std::env::var_os("INVOCATION_ID").is_some() {
        return "systemd".to_owned();
    }
    parent.unwrap_or_else(|| "unknown".to_owned())
}

/// Name and parent of a process, from `/proc/PID/stat`.
fn process(pid: i32) -> Option<(String, i32)> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (before, after) = stat.rsplit_once(')')?;
    let name = before.split_once('(')?.1;
    let parent = after.split_whitespace().nth(1)?.parse().ok()?;
    Some((name.to_owned(), parent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_a_name_and_a_parent() {
        let (name, parent) = process(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(!name.is_empty());
        assert_eq!(parent, nix::unistd::getppid().as_raw());
    }

    #[test]
    fn a_boot_has_an_id() {
        assert_eq!(boot_id().len(), 36);
    }
}
