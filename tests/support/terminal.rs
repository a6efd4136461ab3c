//! A program on a terminal of its own, as a shell starts it in the foreground.

use std::fs::{File, OpenOptions};
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::termios::{LocalFlags, SetArg, tcgetattr, tcsetattr};

use super::unread;

/// Starts it with the terminal as stdin, stdout and stderr. The file is the person's side: keyboard and screen. When it is
/// dropped the terminal is closed, because nobody inherits it.
pub fn spawn(command: Command) -> (Child, File) {
    start(command, false)
}

/// The same, but what is shown is full and stays so: as long as nobody reads there is no room for a letter.
#[allow(dead_code, reason = "not every test has such a terminal")]
pub fn spawn_full(command: Command) -> (Child, File) {
    start(command, true)
}

fn start(mut command: Command, full: bool) -> (Child, File) {
    let flags = OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let person = posix_openpt(flags).expect("a terminal");
    grantpt(&person).and_then(|()| unlockpt(&person)).expect("it is ours");
    let name = ptsname_r(&person).expect("it has a name");
    let terminal =
        OpenOptions::new().read(true).write(true).custom_flags(libc::O_NOCTTY).open(&name).expect("its other end");
    // Otherwise a Ctrl-C throws away what is under way, and that can be the very answer to it.
    let mut modes = tcgetattr(&terminal).expect("its modes");
    modes.local_flags |= LocalFlags::NOFLSH;
    tcsetattr(&terminal, SetArg::TCSANOW, &modes).expect("its modes");
    let size = nix::pty::Winsize { ws_row: 50, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the descriptor is open, and the kernel reads the size from a live value of the right type.
    let sized = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
    assert_eq!(sized, 0, "{}", std::io::Error::last_os_error());

    if full {
        // A description of its own: the program's is to block.
        let flags = libc::O_NOCTTY | libc::O_NONBLOCK;
        unread::fill(OpenOptions::new().write(true).custom_flags(flags).open(&name).expect("its other end"));
    }

    let end = || Stdio::from(terminal.try_clone().expect("a descriptor"));
    command.stdin(end()).stdout(end()).stderr(end()).env("TERM", "xterm");
    // SAFETY: both calls may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            if libc::setsid() == -1 || libc::ioctl(0, libc::TIOCSCTTY, 0) == -1 {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    let child = command.spawn().expect("it can be started");
    // The command holds copies of the terminal: with them its end would not be seen. They go with it here.
    // SAFETY: it was opened above and is given away.
    (child, unsafe { File::from_raw_fd(person.into_raw_fd()) })
}
