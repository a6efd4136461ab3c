//! Ends of pipes and terminals that nobody reads: what is written there has no room.

use std::io::{self, PipeReader, PipeWriter, Write};
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Writes until there is no more room. Writing must not block.
pub fn fill(mut end: impl Write + AsFd) {
    loop {
        match end.write(&[b'x'; 1_024]) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                // Linux moves what is written to a terminal to the other side later, and there is room once more.
                let mut room = [PollFd::new(end.as_fd(), PollFlags::POLLOUT)];
                if poll(&mut room, PollTimeout::from(200_u8)).expect("it is open") == 0 {
                    return;
                }
            }
            Err(error) => panic!("it cannot be filled: {error}"),
        }
    }
}

/// A pipe that is full. As long as its reader is kept and not read from, whoever writes waits.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = io::pipe().expect("a pipe");
    let flags = OFlag::from_bits_retain(fcntl(&writer, FcntlArg::F_GETFL).expect("its flags"));
    fcntl(&writer, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK)).expect("its flags");
    fill(&writer);
    // Whoever gets it shares them, and is to wait.
    fcntl(&writer, FcntlArg::F_SETFL(flags)).expect("its flags");
    (reader, writer)
}
