//! One child from its start to its end.

use std::fmt;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::FutureExt;
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, Interest};
use tokio::process::{Child, ChildStderr, ChildStdout};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::CancellationToken;

use super::capture::{Capture, Stream};
use super::{Command, Exit, MARK, MARKED, lookup};
use crate::crash_point::{CrashPoint, pass};

/// From SIGTERM to SIGKILL.
const TERM_TO_KILL: Duration = Duration::from_secs(2);
/// From SIGKILL to our giving up on a child that the kernel keeps.
const KILL_TO_LEAVE: Duration = Duration::from_millis(300);
/// How long members of the group may go on writing after the child itself has exited.
const LAST_WORDS: Duration = Duration::from_millis(200);
/// How long killed members of the group may take to vanish.
const GONE_WITHIN: Duration = Duration::from_millis(200);
/// One read.
const CHUNK: usize = 8 * 1024;

/// How it ended.
pub(super) enum End {
    /// By itself; an error says that its status was lost.
    Exited(io::Result<ExitStatus>),
    /// By us.
    Cancelled,
}

impl End {
    /// The exit code of a child that ended by itself.
    pub(super) fn code(&self) -> Option<i32> {
        match self {
            Self::Exited(Ok(status)) => status.code(),
            Self::Exited(Err(_)) | Self::Cancelled => None,
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(Ok(status)) => match Exit::from(*status) {
                Exit::Code(code) => write!(f, "exit {code}"),
                Exit::Signal(signal) => write!(f, "signal {signal}"),
            },
            Self::Exited(Err(error)) => write!(f, "its status was lost: {error}"),
            Self::Cancelled => f.write_str("stopped by us"),
        }
    }
}

pub(super) struct Running {
    // Before `child`: dropped first, while the child's pid is surely its own.
    group: Group,
    child: Child,
    /// Tells that the child has exited without collecting it. `None` on kernels before 5.3.
    exit: Option<AsyncFd<OwnedFd>>,
    stdout: Pipe<ChildStdout>,
    stderr: Pipe<ChildStderr>,
    capture: Capture,
}

/// How often a program that is open for writing is tried again, and after which pause.
const BUSY_TRIES: u32 = 10;
const BUSY_PAUSE: std::time::Duration = std::time::Duration::from_millis(5);

/// Starts it. A program that is open for writing cannot be started: one that is just being installed, or one that was
/// written while another thread forked, whose child holds the file open until it has become its own program. Both pass.
fn spawn(command: &mut tokio::process::Command) -> io::Result<tokio::process::Child> {
    for _ in 0..BUSY_TRIES {
        match command.spawn() {
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy => std::thread::sleep(BUSY_PAUSE),
            spawned => return spawned,
        }
    }
    command.spawn()
}

impl Running {
    pub(super) fn start(command: &Command) -> io::Result<Self> {
        let search = command.env.get(std::ffi::OsStr::new("PATH")).map(|path| path.as_os_str());
        let program = lookup::find(&command.program, search)?;
        let directory = command.directory.as_deref().unwrap_or(Path::new("/"));
        let mut child = tokio::process::Command::new(&program);
        child.args(&command.args).env_clear().envs(&command.env).current_dir(directory);
        if let Some(process) = MARKED.get() {
            child.env(MARK, process.to_string());
        }
        if !command.terminal {
            child.process_group(0).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = spawn(&mut child).map_err(|error| lookup::explain(error, &program, directory))?;
        let pid = child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw);
        // `id` is `None` only once the child was collected, which nobody has done.
        let pid = pid.ok_or_else(|| io::Error::other("it has no pid"))?;
        Ok(Self {
            group: Group { pid, whole: !command.terminal, armed: true },
            exit: exit_event(pid).ok(),
            stdout: Pipe::new(child.stdout.take()),
            stderr: Pipe::new(child.stderr.take()),
            child,
            capture: Capture::default(),
        })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.group.pid.as_raw()
    }

    /// How it ended, the head of its stdout, and the end of all it said.
    pub(super) async fn until_the_end(mut self, cancel: &CancellationToken) -> (End, Vec<u8>, String) {
        let cancelled = self.until_exit(cancel).await;
        pass(CrashPoint::ChildEndBefore);
        let end = match cancelled {
            Left::ByItself => None,
            Left::Cancelled => Some(End::Cancelled),
            // Its zombie will be collected by tokio.
            Left::Stuck => {
                self.group.armed = false;
                return self.finish(End::Cancelled);
            }
        };
        let last_words = Instant::now() + LAST_WORDS;
        while self.is_open() {
            match timeout_at(last_words, self.read()).await {
                Ok((stream, count)) => self.take(stream, count),
                Err(_) => break,
            }
        }
        // The child is not collected yet, so this number cannot be another group's.
        self.group.signal(Signal::SIGKILL);
        self.group.armed = false;
        let status = self.child.wait().await;
        self.group.vanished().await;
        self.drain();
        self.finish(end.unwrap_or(End::Exited(status)))
    }

    /// Reads until the child itself has exited.
    async fn until_exit(&mut self, cancel: &CancellationToken) -> Left {
        let mut stop = Stop::NotYet;
        loop {
            let next = tokio::select! {
                biased;
                () = exited(self.exit.as_ref(), &mut self.child) => Next::Exited,
                () = cancel.cancelled(), if matches!(stop, Stop::NotYet) => Next::Cancelled,
                () = stop.due() => Next::Due,
                count = self.stdout.read() => Next::Said(Stream::Stdout, count),
                count = self.stderr.read() => Next::Said(Stream::Stderr, count),
            };
            match next {
                Next::Exited if matches!(stop, Stop::NotYet) => return Left::ByItself,
                Next::Exited => return Left::Cancelled,
                Next::Cancelled => {
                    self.group.signal(Signal::SIGTERM);
                    // One that is stopped (by a terminal it may not read from) would not hear it.
                    self.group.signal(Signal::SIGCONT);
                    stop = Stop::Kill(Instant::now() + TERM_TO_KILL);
                }
                Next::Due => match stop {
                    Stop::Kill(_) => {
                        self.group.signal(Signal::SIGKILL);
                        stop = Stop::Leave(Instant::now() + KILL_TO_LEAVE);
                    }
                    Stop::NotYet | Stop::Leave(_) => return Left::Stuck,
                },
                Next::Said(stream, count) => self.take(stream, count),
            }
        }
    }

    async fn read(&mut self) -> (Stream, usize) {
        tokio::select! {
            count = self.stdout.read() => (Stream::Stdout, count),
            count = self.stderr.read() => (Stream::Stderr, count),
        }
    }

    fn is_open(&self) -> bool {
        self.stdout.is_open() || self.stderr.is_open()
    }

    /// `count` bytes have been read; 0 is the end of the stream.
    fn take(&mut self, stream: Stream, count: usize) {
        match stream {
            Stream::Stdout => self.stdout.hand_over(count, |chunk| self.capture.add(stream, chunk)),
            Stream::Stderr => self.stderr.hand_over(count, |chunk| self.capture.add(stream, chunk)),
        }
    }

    /// What is in the pipes already. Bounded: somebody who has left the group may still write.
    fn drain(&mut self) {
        for _ in 0..64 {
            match self.read().now_or_never() {
                Some((stream, count)) => self.take(stream, count),
                None => break,
            }
        }
    }

    fn finish(self, end: End) -> (End, Vec<u8>, String) {
        let whole = !self.is_open();
        let (stdout, output) = self.capture.finish(whole);
        (end, stdout, output)
    }
}

/// What happened first.
enum Next {
    Exited,
    Cancelled,
    Due,
    Said(Stream, usize),
}

/// How the child itself came to its end.
enum Left {
    ByItself,
    Cancelled,
    /// Killed, and still there: asleep in the kernel.
    Stuck,
}

/// What we do next to end it, and when.
enum Stop {
    NotYet,
    Kill(Instant),
    Leave(Instant),
}

impl Stop {
    async fn due(&self) {
        match self {
            Self::NotYet => std::future::pending().await,
            Self::Kill(at) | Self::Leave(at) => sleep_until(*at).await,
        }
    }
}

/// A pipe with the buffer that one read fills.
struct Pipe<R> {
    pipe: Option<R>,
    buffer: Vec<u8>,
}

impl<R: AsyncRead + Unpin> Pipe<R> {
    fn new(pipe: Option<R>) -> Self {
        Self { buffer: vec![0; if pipe.is_some() { CHUNK } else { 0 }], pipe }
    }

    fn is_open(&self) -> bool {
        self.pipe.is_some()
    }

    /// Never comes back once the stream has ended. A read that is given up has taken nothing.
    async fn read(&mut self) -> usize {
        match &mut self.pipe {
            // A pipe that cannot be read has nothing more to say.
            Some(pipe) => pipe.read(&mut self.buffer).await.unwrap_or(0),
            None => std::future::pending().await,
        }
    }

    fn hand_over(&mut self, count: usize, mut to: impl FnMut(&[u8])) {
        match count {
            0 => self.pipe = None,
            _ => to(&self.buffer[..count]),
        }
    }
}

/// Whom we signal; killed when dropped, as long as it is armed.
struct Group {
    pid: Pid,
    /// The whole group; a child on the terminal shares ours and gets its signals alone.
    whole: bool,
    /// Not yet collected, so the number is its own.
    armed: bool,
}

impl Group {
    fn signal(&self, signal: Signal) {
        // One that is gone needs no signal, and one that we may not signal we cannot end.
        let _ = if self.whole { killpg(self.pid, signal) } else { kill(self.pid, signal) };
    }

    /// Waits until nobody is left in it. Its dead are collected by the guardian (or init), which takes a moment.
    async fn vanished(&self) {
        let deadline = Instant::now() + GONE_WITHIN;
        let mut pause = Duration::from_micros(200);
        while self.whole && killpg(self.pid, None) == Ok(()) && Instant::now() < deadline {
            sleep(pause).await;
            pause *= 2;
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if self.armed {
            self.signal(Signal::SIGKILL);
        }
    }
}

/// An event source that becomes readable when the process exits, and does not collect it.
fn exit_event(pid: Pid) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: the call has no pointers; it returns a new descriptor, close-on-exec, or -1.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = Errno::result(fd)?;
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    // SAFETY: it was made just now and is nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: an `OwnedFd` stays open and the same for as long as it lives.
    Ok(unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }?)
}

async fn exited(event: Option<&AsyncFd<OwnedFd>>, child: &mut Child) {
    if let Some(event) = event
        && event.readable().await.is_ok()
    {
        return;
    }
    // Collects it: between this and the last signal to the group its number could become another's. Only on old kernels.
    let _ = child.wait().await;
}
