//! The one way to stderr. No secret goes out on it.
//!
//! A command that only reads writes at once: whoever reads slowly slows it down. A process that acts waits for no reader: a
//! pipe that is full, a terminal after Ctrl-S, must not stop a run. It keeps what it says ([`hold`]) until its guardian has
//! forked (a fork copies one thread); then a thread of its own writes ([`start`]) and draws what moves ([`show`]). The end
//! of the process waits for that thread, but not for long ([`finish`]). What does not fit any more is lost and counted: the
//! number stands where the words would have stood.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fs::File;
use std::io::{self, Write};
use std::mem;
use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{self, AssertUnwindSafe, PanicHookInfo};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};

use crate::redact::redact;
use crate::workflow::code::Code;

/// Words for stderr were lost.
pub const LOST: Code = Code(202);

/// For `mt explain`.
pub const EXPLANATIONS: &[(Code, &str, &str)] = &[(
    LOST,
    "words for stderr were lost",
    "Nobody read what mt says: the terminal was stopped (Ctrl-S, which Ctrl-Q undoes), or the program behind a pipe did\n\
     not read on. A run does not wait for its readers. So much as is kept was kept, the number says how much was not.\n\
     Nothing else is lost: the log files have every line of the log, and `mt runs show` knows what was done.",
)];

/// So many bytes are kept for a reader who has stopped.
const MOST_WAITING: usize = 4 * 1024 * 1024;
/// Written at once. The system does not mix up what several processes write into one pipe in such pieces.
const PIECE: usize = 4 * 1024;
/// What moves is drawn so often.
const REDRAW: Duration = Duration::from_millis(100);
/// The end of the process waits so long for a reader who reads nothing.
const PATIENCE: Duration = Duration::from_secs(1);
/// And so long in all.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(5);
/// How often the end looks whether the reader has come back.
const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// A few lines below everything that is said, which change. Only for a terminal. All calls are made by the thread that writes.
pub trait Picture: Send {
    /// Shows what has changed. Called about ten times a second.
    fn draw(&mut self);
    /// Takes the lines away, lets `write` write, and draws them below it.
    fn aside(&mut self, write: &mut dyn FnMut());
    /// Takes the lines away for good.
    fn clear(&mut self);
}

/// A picture is shown until this is dropped.
#[derive(Debug)]
pub struct Shown(());

impl Drop for Shown {
    fn drop(&mut self) {
        STDERR.change(None);
    }
}

/// From now on nothing waits for a reader, and nothing is written before [`start`] or [`finish`]. What was kept so far is
/// forgotten: for a copy of this process made by fork, whose original says it.
pub fn hold() {
    static HOOK: Once = Once::new();
    // Rust's own writes by itself, and waits.
    HOOK.call_once(|| panic::set_hook(Box::new(|info| say(&told(info)))));
    STDERR.hold();
}

/// Starts the thread that writes. Not before the guardian has forked. If the system has no thread for us, everything is kept.
pub fn start() {
    if let Ok(out) = own_stderr() {
        STDERR.start(out);
    }
}

/// Says it, without secrets. After [`hold`] this never waits.
pub fn say(text: &str) {
    STDERR.say(text, |text| {
        // Nobody can be told if that fails.
        let _ = write_whole(&mut io::stderr().lock(), text.as_bytes(), || {});
    });
}

/// Shows a picture. Nothing is shown before [`start`].
pub fn show(picture: Box<dyn Picture>) -> Shown {
    STDERR.change(Some(picture));
    Shown(())
}

/// Returns when everything said up to here is written: after a second if nobody reads. The last thing before the process ends.
pub fn finish() {
    let out = io::stderr();
    if STDERR.has_kept() {
        start();
    }
    if STDERR.has_kept() {
        // The system has no thread for us: so much as fits.
        let words = STDERR.lock().next_words();
        write_what_fits(&mut out.lock(), words.as_bytes());
    }
    STDERR.finish(out.as_fd());
}

/// For `tracing`, which writes every event in one piece.
#[derive(Clone, Copy, Debug)]
pub struct Lines;

impl Write for Lines {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        say(&String::from_utf8_lossy(piece));
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

static STDERR: Way = Way::new();

/// A way out, and what waits for it.
struct Way {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    mode: Mode,
    /// What was said and is not yet being written.
    waiting: String,
    /// How often something was said that did not fit, after everything that waits.
    lost: u64,
    /// Another picture, or none, from now on.
    change: Option<Option<Box<dyn Picture>>>,
    /// The thread is writing.
    writing: bool,
    /// How many pieces the thread has written.
    written: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Whoever says something writes it.
    Direct,
    /// It is kept.
    Held,
    /// The thread writes it.
    Thread,
}

impl Way {
    const fn new() -> Self {
        let waiting = String::new();
        let state = State { mode: Mode::Direct, waiting, lost: 0, change: None, writing: false, written: 0 };
        Self { state: Mutex::new(state), changed: Condvar::new() }
    }

    fn hold(&self) {
        let mut state = self.lock();
        (state.mode, state.waiting, state.lost) = (Mode::Held, String::new(), 0);
    }

    /// Is there something that no thread will write?
    fn has_kept(&self) -> bool {
        let state = self.lock();
        state.mode == Mode::Held && state.has_work()
    }

    /// Keeps it without secrets, or hands it so to `write`.
    fn say(&self, text: &str, write: impl FnOnce(&str)) {
        let text = redact(text);
        if !self.take(&text) {
            write(&text);
        }
    }

    /// `false`: it is the caller's to write.
    fn take(&self, text: &str) -> bool {
        let mut state = self.lock();
        if state.mode == Mode::Direct {
            return false;
        }
        // After a loss nothing fits, however short: the number of what was lost must come first.
        let fits = state.waiting.is_empty() || state.waiting.len() + text.len() <= MOST_WAITING;
        if state.lost == 0 && fits {
            state.waiting.push_str(text);
        } else {
            state.lost += 1;
        }
        self.changed.notify_all();
        true
    }

    fn change(&self, picture: Option<Box<dyn Picture>>) {
        let mut state = self.lock();
        // There is nobody who could draw it.
        if state.mode == Mode::Thread {
            state.change = Some(picture);
            self.changed.notify_all();
        }
    }

    fn start(&'static self, out: impl Write + AsFd + Send + 'static) {
        let mut state = self.lock();
        if state.mode == Mode::Thread {
            return;
        }
        let run = move || {
            // A shell's background job that writes to the terminal would be stopped as a whole after `stty tostop`. Where
            // the signal is blocked, the terminal takes the words.
            let _ = SigSet::from(Signal::SIGTTOU).thread_block();
            self.write_for_ever(out);
        };
        if thread::Builder::new().name("mt-stderr".to_owned()).spawn(run).is_ok() {
            state.mode = Mode::Thread;
        }
    }

    fn write_for_ever(&self, mut out: impl Write + AsFd) {
        let mut picture: Option<Box<dyn Picture>> = None;
        loop {
            let (text, change) = self.next(picture.is_some());
            let mut text = Some(text).filter(|text| !text.is_empty());
            let has_words = text.is_some();
            let mut write = || {
                if let Some(text) = text.take() {
                    // Whoever reads has gone away, or the disk is full: nobody can be told.
                    let _ = write_whole(&mut out, text.as_bytes(), || self.lock().written += 1);
                }
            };
            // A defect in a picture costs the picture. The hook has said it.
            let shown = panic::catch_unwind(AssertUnwindSafe(|| {
                if let Some(next) = change
                    && let Some(mut old) = mem::replace(&mut picture, next)
                {
                    old.clear();
                }
                match &mut picture {
                    Some(picture) if has_words => picture.aside(&mut write),
                    Some(picture) => picture.draw(),
                    None => {}
                }
            }));
            if shown.is_err() {
                let defective = picture.take();
                let _ = panic::catch_unwind(AssertUnwindSafe(|| drop(defective)));
            }
            write();
        }
    }

    /// Waits for something to do. Returns without, too, when a picture is to be drawn.
    fn next(&self, draws: bool) -> (String, Option<Option<Box<dyn Picture>>>) {
        let mut state = self.lock();
        state.writing = false;
        self.changed.notify_all();
        while !state.has_work() {
            if draws {
                let (woken, waited) = self.changed.wait_timeout(state, REDRAW).unwrap_or_else(PoisonError::into_inner);
                state = woken;
                if waited.timed_out() {
                    break;
                }
            } else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
        }
        state.writing = true;
        (state.next_words(), state.change.take())
    }

    fn finish(&self, out: BorrowedFd<'_>) {
        let started = Instant::now();
        let mut moved = started;
        let mut state = self.lock();
        let mut written = state.written;
        while state.mode == Mode::Thread && (state.writing || state.has_work()) {
            let now = Instant::now();
            // Only a reader who reads nothing is given up; a thread of ours that gets no processor is not.
            if state.written != written || is_writable(out) {
                (moved, written) = (now, state.written);
            }
            if now.duration_since(moved) >= PATIENCE || now.duration_since(started) >= PATIENCE_IN_ALL {
                return;
            }
            (state, _) = self.changed.wait_timeout(state, LOOK_AGAIN).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// What waits, and how much of what followed was lost.
    fn next_words(&mut self) -> String {
        let mut text = mem::take(&mut self.waiting);
        let lost = mem::take(&mut self.lost);
        if lost > 0 {
            text.push_str(&format!(
                "warning[{LOST}]: {lost} messages are missing here: nobody read on; the log files have what was logged\n"
            ));
        }
        text
    }

    fn has_work(&self) -> bool {
        !self.waiting.is_empty() || self.lost > 0 || self.change.is_some()
    }
}

/// A descriptor of our own: `io::stderr` has a lock, and whoever holds it may wait for ever.
fn own_stderr() -> io::Result<File> {
    io::stderr().as_fd().try_clone_to_owned().map(File::from)
}

/// Writes it piece by piece, cut at line ends where there are any.
fn write_whole(out: &mut (impl Write + AsFd), mut rest: &[u8], mut wrote: impl FnMut()) -> io::Result<()> {
    while !rest.is_empty() {
        let piece = match rest.get(..PIECE) {
            None => rest,
            Some(front) => {
                let line_end = front.iter().rposition(|byte| *byte == b'\n');
                &front[..line_end.map_or(PIECE, |at| at + 1)]
            }
        };
        match out.write(piece) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => {
                rest = &rest[count..];
                wrote();
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody with whom we share it does not want to wait; our words are to arrive all the same.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let mut ready = [PollFd::new(out.as_fd(), PollFlags::POLLOUT)];
                match poll(&mut ready, PollTimeout::NONE) {
                    Ok(_) | Err(Errno::EINTR) => {}
                    Err(errno) => return Err(errno.into()),
                }
            }
            Err(error) => return Err(error),
        }
    }
    out.flush()
}

/// Writes until it would have to wait.
fn write_what_fits(out: &mut (impl Write + AsFd), words: &[u8]) {
    for piece in words.chunks(PIECE) {
        if !is_writable(out.as_fd()) || write_whole(out, piece, || {}).is_err() {
            return;
        }
    }
}

/// Would it take something now? Also if the reader has gone away: then writing fails at once.
fn is_writable(out: BorrowedFd<'_>) -> bool {
    let mut ready = [PollFd::new(out, PollFlags::POLLOUT)];
    poll(&mut ready, PollTimeout::ZERO).is_ok_and(|count| count > 0)
}

/// What Rust's own hook says.
fn told(info: &PanicHookInfo<'_>) -> String {
    let current = thread::current();
    let mut text = format!("\nthread '{}' {info}\n", current.name().unwrap_or("<unnamed>"));
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        text.push_str(&format!("stack backtrace:\n{backtrace}\n"));
    }
    text
}

#[cfg(test)]
mod tests;
