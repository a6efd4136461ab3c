//! Tells one process to end, and no other that got its pid later.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::proc;

/// When the kernel started the process, in clock ticks since the boot. `None`: there is no such process.
pub fn start_ticks(pid: u32) -> Option<u64> {
    proc::start_ticks(Pid::from_raw(i32::try_from(pid).ok()?))
}

/// Sends SIGTERM to the process that has this pid and was started then. False: it is gone, whoever has its pid now.
///
/// # Errors
/// It belongs to another account.
pub fn terminate(pid: u32, started: u64) -> io::Result<bool> {
    let Some(pid) = i32::try_from(pid).ok().filter(|pid| *pid > 0).map(Pid::from_raw) else { return Ok(false) };
    let sent = match hold(pid) {
        Err(Errno::ESRCH) => return Ok(false),
        // Whatever happens to the pid from here on, what is held is the process that is looked at.
        Ok(held) if proc::start_ticks(pid) == Some(started) => signal(&held),
        // A kernel before 5.3: between the look and the signal a process would have to end and its pid come round again.
        Err(_) if proc::start_ticks(pid) == Some(started) => kill(pid, Signal::SIGTERM),
        Ok(_) | Err(_) => return Ok(false),
    };
    match sent {
        Ok(()) => Ok(true),
        Err(Errno::ESRCH) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn hold(pid: Pid) -> Result<OwnedFd, Errno> {
    // SAFETY: the call takes two integers and gives a new descriptor or -1.
    let descriptor = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    let descriptor = i32::try_from(descriptor).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just given it to us, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

fn signal(held: &OwnedFd) -> Result<(), Errno> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null pointer stands for what kill would say.
    let sent = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, held.as_raw_fd(), Signal::SIGTERM as i32, none, 0) };
    Errno::result(sent).map(drop)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;
    use std::process::{Child, Command};

    use super::*;

    fn sleeper() -> (Child, u64) {
        let child = Command::new("sleep").arg("1000").spawn().unwrap();
        let started = start_ticks(child.id()).unwrap();
        (child, started)
    }

    #[test]
    fn the_process_that_is_meant_is_told() {
        let (mut child, started) = sleeper();
        assert!(terminate(child.id(), started).unwrap());
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
        assert!(!terminate(child.id(), started).unwrap(), "it is gone");
    }

    #[test]
    fn another_process_with_the_same_pid_is_left_alone() {
        let (mut child, started) = sleeper();
        for other in [started - 1, started + 1, 0] {
            assert!(!terminate(child.id(), other).unwrap());
        }
        assert!(child.try_wait().unwrap().is_none());
        child.kill().unwrap();
        // The first signal that reaches it tells how it ends.
        assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGKILL as i32));
    }

    #[test]
    fn a_pid_that_means_a_group_or_everybody_is_nobodys() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert!(!terminate(pid, 1).unwrap(), "{pid}");
        }
    }
}
