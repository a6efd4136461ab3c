//! The guardian itself: a process without threads that waits for signals and for its worker.

use std::io;
use std::mem::MaybeUninit;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::{
    SaFlags, SigAction, SigHandler, SigSet, SigmaskHow, Signal, kill, raise, sigaction, sigprocmask,
};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{ForkResult, Pid, fork, getppid};

use super::proc::{self, Collected, End};
use super::sweep::{Swept, remove_files};
use super::{LEFTOVERS, NO_GUARDIAN, Owner, descendants};
use crate::crash_point::{CrashPoint, pass};
use crate::process;
use crate::stderr;
use crate::workflow::code::Code;

/// A second signal means "now" only if it comes this much after the first: service managers and hang-ups signal both of
/// us, and a person's impatience takes longer.
const IMPATIENT_AFTER: Duration = Duration::from_secs(1);

/// What the guardian passes on. Not SIGTSTP: stopping is the terminal's business, and the default does it. Not
/// SIGCONT: it takes effect by itself.
const FORWARDED: [Signal; 6] =
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT, Signal::SIGUSR1, Signal::SIGUSR2];

/// The guardian could not be started.
#[derive(Debug, thiserror::Error)]
pub enum EnterError {
    /// A fork copies only the calling thread.
    #[error("cannot start the guardian: {0} threads exist already (a mistake in mt)")]
    Threads(usize),
    /// The system said no.
    #[error("cannot start the guardian: {doing}: {source}")]
    System {
        /// The call.
        doing: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl EnterError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        NO_GUARDIAN
    }
}

/// Tells an impatient person from the echo of one signal.
#[derive(Clone, Copy, Debug, Default)]
pub struct Impatience {
    first: Option<Instant>,
}

impl Impatience {
    /// A signal that asks us to end has come. True if it means "now": it came 1 s or more after the first.
    pub fn heard(&mut self, at: Instant) -> bool {
        at.duration_since(*self.first.get_or_insert(at)) >= IMPATIENT_AFTER
    }
}

/// Has whoever started this program had it ignored, and meant it? `nohup` does that to SIGHUP, a shell without job control to
/// SIGINT and SIGQUIT of what it starts in the background.
pub(crate) fn is_ignored(signal: Signal) -> bool {
    if !matches!(signal, Signal::SIGHUP | Signal::SIGINT | Signal::SIGQUIT) {
        return false;
    }
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action nothing is changed, and the kernel fills in the old one.
    let asked = unsafe { libc::sigaction(signal as libc::c_int, std::ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroes are a valid value of it, and the call has filled it in if it could.
    asked == 0 && unsafe { now.assume_init() }.sa_sigaction == libc::SIG_IGN
}

/// Forks. The caller goes on in the child, the worker; the parent, which has the pid that was started, stays behind as the
/// guardian and never returns from here:
///
/// - it passes signals on that a process sent; a terminal's keys reach the worker anyway, its end (SIGHUP) may not. Those that
///   we were started to ignore change nothing. The second request to end kills the worker if it comes 1 s or more after the
///   first;
/// - when the worker is gone, it ends everything below itself, removes the private directory and the lock file;
/// - it exits as the worker did: with its code, or by the same signal. A worker killed for impatience: 128 + the first signal,
///   of which SIGHUP counts as SIGTERM.
///
/// The worker gets SIGTERM when its guardian is killed, and its children carry the owner's mark. No thread may exist yet.
///
/// If the caller has children already, they are not ours to end, and their orphans are not either. Then the pid that was
/// started stays in front of the guardian, which is a process of its own.
pub fn enter(mut owner: Owner) -> Result<Owner, EnterError> {
    let system = |doing| move |errno: Errno| EnterError::System { doing, source: errno.into() };
    let threads = std::fs::read_dir("/proc/self/task")
        .map_err(|source| EnterError::System { doing: "counting threads", source })?
        .count();
    if threads != 1 {
        return Err(EnterError::Threads(threads));
    }
    // An inherited "ignore" would make the kernel discard how our children ended.
    let default = SigAction::new(SigHandler::SigDfl, SaFlags::empty(), SigSet::empty());
    // SAFETY: the default action runs no code of ours.
    unsafe { sigaction(Signal::SIGCHLD, &default) }.map_err(system("resetting SIGCHLD"))?;
    // Blocked before the fork: what comes between is kept for the parent, which passes it on.
    let mut heard: SigSet = FORWARDED.into_iter().filter(|signal| !is_ignored(*signal)).collect();
    heard.add(Signal::SIGCHLD);
    let mut before = SigSet::empty();
    sigprocmask(SigmaskHow::SIG_BLOCK, Some(&heard), Some(&mut before)).map_err(system("blocking signals"))?;
    // Nothing has happened when it fails; the caller may want to go on without a guardian.
    let undo = |errno| {
        let _ = sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
        system("fork")(errno)
    };
    if has_children() {
        let first = Pid::this();
        // SAFETY: there is one thread, so the child is a whole copy and may go on as if it were the parent.
        match unsafe { fork() }.map_err(undo)? {
            ForkResult::Parent { child } => stand_before(child, &heard),
            ForkResult::Child => die_with(first).map_err(system("asking for the first process's death signal"))?,
        }
    }
    prctl::set_child_subreaper(true).map_err(system("becoming the reaper of orphans"))?;
    let guardian = Pid::this();
    // SAFETY: as above.
    match unsafe { fork() }.map_err(undo)? {
        ForkResult::Parent { child } => guard(owner, child, &heard),
        ForkResult::Child => {
            // The reaper attribute is not inherited, so orphans pass us by and go to the guardian.
            die_with(guardian)
                .and_then(|()| sigprocmask(SigmaskHow::SIG_SETMASK, Some(&before), None))
                .map_err(system("asking for the guardian's death signal"))?;
            process::set_mark(owner.process);
            owner.guardian = Some(guardian);
            Ok(owner)
        }
    }
}

/// A program can be started by a process that has children: `helper & exec mt …`. They, and what they may yet start, are
/// nobody's business here.
fn has_children() -> bool {
    let look = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
    waitid(Id::All, look) != Err(Errno::ECHILD)
}

/// Asks for SIGTERM at the death of our parent, which was `parent` when we were made.
fn die_with(parent: Pid) -> Result<(), Errno> {
    prctl::set_pdeathsig(Signal::SIGTERM)?;
    if getppid() != parent {
        // It died before we could ask.
        let _ = raise(Signal::SIGTERM);
    }
    Ok(())
}

/// The pid that was started, with the children that came with it, in front of a guardian that has none but the worker: it
/// passes on what the guardian passes on, and ends as the guardian does.
fn stand_before(guardian: Pid, heard: &SigSet) -> ! {
    let _ = prctl::set_name(c"mt-guardian"); // for `ps`
    loop {
        match wait_for_signal(heard) {
            Some((Signal::SIGCHLD, _)) => match proc::collect(guardian) {
                Some(End::Exited(code)) => exit(code),
                Some(End::Signalled(signal)) => die_by(signal),
                None => {}
            },
            Some((signal, sender)) => pass_on(guardian, signal, sender),
            None => {}
        }
    }
}

/// A terminal's keys reach the whole foreground group. Its end is told to the leader of the session alone, which we may be;
/// and `to` may hear of it twice.
fn pass_on(to: Pid, signal: Signal, sender: Sender) {
    if sender == Sender::Process || signal == Signal::SIGHUP {
        let _ = kill(to, signal);
    }
}

/// How the worker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum WorkerEnd {
    ByItself(End),
    /// We killed it because a second signal asked for it; this was the first.
    Impatience(Signal),
}

fn guard(owner: Owner, worker: Pid, heard: &SigSet) -> ! {
    // A panic must not unwind into the caller: there would be two workers then.
    let end = catch_unwind(AssertUnwindSafe(|| {
        // What waits to be said is the worker's to say.
        stderr::hold();
        let _ = prctl::set_name(c"mt-guardian"); // for `ps`
        let end = watch(worker, heard);
        clean_up(&owner);
        end
    }));
    // Whoever reads it may have stopped. Nothing is left to do, so it may have a thread now, and a second.
    let _ = catch_unwind(stderr::finish);
    match end {
        Ok(WorkerEnd::ByItself(End::Exited(code))) => exit(code),
        Ok(WorkerEnd::ByItself(End::Signalled(signal))) => die_by(signal),
        Ok(WorkerEnd::Impatience(Signal::SIGHUP)) => exit(128 + Signal::SIGTERM as i32),
        Ok(WorkerEnd::Impatience(signal)) => exit(128 + signal as i32),
        Err(_) => exit(1),
    }
}

fn clean_up(owner: &Owner) {
    pass(CrashPoint::GuardianBefore);
    let left = descendants::end_all();
    pass(CrashPoint::GuardianEnded);
    let problems = left.into_iter().map(|pid| format!("process {pid} cannot be ended")).collect();
    let mut swept = Swept { process: owner.process, ended: 0, files: Vec::new(), problems };
    remove_files(&owner.run_dir, &mut swept, &owner.shared);
    pass(CrashPoint::GuardianAfter);
    for problem in swept.problems {
        // Not `eprintln`, which panics if nobody reads any more: the exit code would be lost.
        stderr::say(&format!("mt: {problem} [{LEFTOVERS}]\n"));
    }
}

fn watch(worker: Pid, heard: &SigSet) -> WorkerEnd {
    let mut impatience = Impatience::default();
    let mut first = None;
    let mut killed = false;
    loop {
        let Some((signal, sender)) = wait_for_signal(heard) else { continue };
        if signal == Signal::SIGCHLD {
            if let Some(end) = collect(worker) {
                return match (killed, first) {
                    (true, Some(first)) => WorkerEnd::Impatience(first),
                    (true, None) | (false, _) => WorkerEnd::ByItself(end),
                };
            }
            continue;
        }
        if matches!(signal, Signal::SIGINT | Signal::SIGTERM | Signal::SIGHUP | Signal::SIGQUIT) {
            first.get_or_insert(signal);
            if impatience.heard(Instant::now()) {
                killed = true;
                let _ = kill(worker, Signal::SIGKILL);
                continue;
            }
        }
        pass_on(worker, signal, sender);
    }
}

/// Who sent a signal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sender {
    Process,
    Kernel,
}

fn wait_for_signal(heard: &SigSet) -> Option<(Signal, Sender)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    // SAFETY: both pointers are to live values of the right type, and the kernel fills in the second.
    let number = unsafe { libc::sigwaitinfo(heard.as_ref(), info.as_mut_ptr()) };
    let signal = Signal::try_from(number).ok()?; // -1: EINTR after a stop
    // SAFETY: all zeroes is a valid value, and sigwaitinfo has filled it in.
    let info = unsafe { info.assume_init() };
    let sender = match info.si_code {
        libc::SI_USER | libc::SI_QUEUE | libc::SI_TKILL => Sender::Process,
        _ => Sender::Kernel,
    };
    Some((signal, sender))
}

/// Collects every dead child: orphans come to us while the worker lives.
fn collect(worker: Pid) -> Option<End> {
    let mut end = None;
    loop {
        match proc::collect_one() {
            Collected::Dead(pid, how) if pid == worker => end = Some(how),
            Collected::Dead(..) => {}
            Collected::Alive => return end,
            // Nobody else collects our children, so the worker was among them; if not, it counts as failed.
            Collected::None => return end.or(Some(End::Exited(1))),
        }
    }
}

/// So that a shell sees what it would have seen without us.
fn die_by(signal: i32) -> ! {
    // SAFETY: the default action runs no code of ours, and the set is a live value.
    unsafe {
        libc::signal(signal, libc::SIG_DFL);
        libc::raise(signal);
        let mut unblocked = MaybeUninit::zeroed();
        libc::sigemptyset(unblocked.as_mut_ptr());
        libc::sigaddset(unblocked.as_mut_ptr(), signal);
        libc::sigprocmask(libc::SIG_UNBLOCK, unblocked.as_ptr(), std::ptr::null_mut());
    }
    exit(128 + signal) // still here: its default is to be ignored
}

/// Without flushing or running anything that belongs to the worker, of which we are a copy.
fn exit(code: i32) -> ! {
    // SAFETY: it only ends the process.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_signal_within_a_second_is_an_echo_and_a_later_one_means_now() {
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        let mut impatience = Impatience::default();
        assert!(!impatience.heard(start));
        assert!(!impatience.heard(after(999)));
        assert!(impatience.heard(after(1000)), "counted from the first, not from the last");
        assert!(impatience.heard(after(5000)));
    }

    #[test]
    fn a_process_with_threads_is_not_forked() {
        // The test harness has threads of its own.
        let dir = tempfile::tempdir().unwrap();
        let owner = Owner::take(&dir.path().join("run")).unwrap();
        assert!(matches!(enter(owner), Err(EnterError::Threads(n)) if n > 1));
    }
}
