//! What holds a step up, so that a signal meets it.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use crate::case::Step;
use crate::support::corner::{Corner, wait_for};

/// Whoever has it may change uids.json.
pub const UIDS_LOCK: &str = "uids.lock";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// A program does not go on. So many of them run at once, at least.
    Program(&'static str, usize),
    /// The mail server does not say a word; there is something to say, because nodes do not answer a ping.
    MailServer,
    /// It is another process's turn to write uids.json.
    Turn,
}

impl Held {
    /// Does the step have children?
    pub fn has_children(self) -> bool {
        match self {
            Self::Program(..) => true,
            Self::MailServer | Self::Turn => false,
        }
    }
}

/// A step that is held up in a corner.
pub struct Hold<'c> {
    corner: &'c Corner<'c>,
    held: Held,
    closed: PathBuf,
    _server: Option<MailServer>,
    turn: std::cell::Cell<Option<File>>,
}

impl<'c> Hold<'c> {
    /// Prepares the corner. Children that are deaf have to be killed.
    pub fn of(corner: &'c Corner<'c>, step: Step, deaf: bool) -> Self {
        let closed = corner.path("closed");
        fs::write(&closed, "").expect("it can be written");
        let trap = if deaf { "trap '' TERM INT HUP; " } else { "" };
        // A child of the child belongs to the group, too.
        let wait = format!("{trap}while [ -e {} ]; do sleep 0.1; done", closed.display());
        let (mut server, mut turn) = (None, None);
        match step.held {
            Held::Program(program, _) if step.workflow == "own" => {
                let calls = corner.path("calls").join(program);
                corner.program(program, &format!("#!/bin/sh\necho called >>{}\n{wait}\n", calls.display()));
            }
            Held::Program(program, _) => corner.spy(program, &wait),
            Held::MailServer => {
                corner.program("ping", "#!/bin/sh\nexit 1\n");
                server = Some(MailServer::start(corner, &closed));
            }
            Held::Turn => {
                corner.spy("htgettoken", "");
                let lock = File::create(corner.state().join(UIDS_LOCK)).expect("it can be made");
                corner.give(&corner.state().join(UIDS_LOCK));
                lock.lock().expect("nobody else has it");
                turn = Some(lock);
            }
        }
        corner.configure(|config| {
            let role = &mut config["experiments"]["dune"]["roles"]["production"];
            let role = role.as_object_mut().expect("a map");
            if step.name == "store-in-credd" {
                role.remove("tokenGetterOverride");
            }
            if step.workflow == "ferry-refresh" {
                role.remove("desiredUIDOverride");
                let ferry = config["ferry"].as_object_mut().expect("a map");
                ferry.retain(|key, _| !matches!(key.as_str(), "hostCert" | "hostKey"));
            }
            if let Some(server) = &server {
                config["errorCountToSendMessage"] = 1.into();
                config["email"]["smtpHost"] = "127.0.0.1".into();
                config["email"]["smtpPort"] = server.port.into();
            }
        });
        Self { corner, held: step.held, closed, _server: server, turn: std::cell::Cell::new(turn) }
    }

    /// Waits until the step is held up. A child is its own program by then: before that it would hear the terminal's
    /// signals, too.
    pub fn wait(&self) {
        match self.held {
            Held::Program(program, calls) => {
                wait_for("the step's children", || self.corner.calls(program).len() >= calls);
            }
            Held::MailServer => wait_for("a caller", || !self.corner.calls("smtp").is_empty()),
            Held::Turn => {
                wait_for("the step before", || !self.corner.calls("htgettoken").is_empty());
                // It waits for three seconds: nothing slower than this would do.
                wait_for("whoever waits for its turn", || is_open(self.corner, &self.corner.state().join(UIDS_LOCK)));
            }
        }
    }

    /// The step may go on, and every later one like it.
    pub fn open(&self) {
        let _ = fs::remove_file(&self.closed);
        self.turn.set(None);
        if self.held == Held::MailServer {
            self.corner.program("ping", "#!/bin/sh\nexit 0\n");
        }
    }
}

/// Does a worker of this corner have the file open?
pub fn is_open(corner: &Corner<'_>, file: &Path) -> bool {
    let opened = |pid: i32| fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    corner.mt_pids().into_iter().flat_map(opened).any(|fd| fs::read_link(fd.path()).is_ok_and(|path| path == file))
}

/// Stands in front of the laboratory's mail server.
struct MailServer {
    server: Child,
    port: u16,
}

impl MailServer {
    const SCRIPT: &'static str = r#"
import os, socket, sys, threading, time
closed, calls = sys.argv[1:]
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
def pump(a, b):
    try:
        while data := a.recv(65536):
            b.sendall(data)
        b.shutdown(socket.SHUT_WR)
    except OSError:
        pass
def serve(client):
    with open(calls, "a") as file:
        file.write("called\n")
    while os.path.exists(closed):
        time.sleep(0.02)
    real = socket.create_connection(("smtp.lab.test", 25))
    threading.Thread(target=pump, args=(real, client), daemon=True).start()
    pump(client, real)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"#;

    fn start(corner: &Corner<'_>, closed: &Path) -> Self {
        let calls = corner.path("calls/smtp");
        let words = ["/usr/bin/python3", "-c", Self::SCRIPT].map(std::ffi::OsStr::new);
        let mut command = corner.lab.command(&[&words[..], &[closed.as_os_str(), calls.as_os_str()]].concat());
        let mut server = command.stdout(Stdio::piped()).spawn().expect("lab/lab can be started");
        let mut port = String::new();
        let mut said = server.stdout.take().expect("a pipe");
        while !port.ends_with('\n') {
            let mut piece = [0];
            said.read_exact(&mut piece).expect("it says its port");
            port.push(char::from(piece[0]));
        }
        Self { server, port: port.trim().parse().expect("a port") }
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}
