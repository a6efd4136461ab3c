//! Ends everything below this process, whatever it does to live on.

use std::collections::BTreeSet;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::proc::{self, Collected};

/// How long a stop signal may take to show. Longer only for a process that waits for a dead disk or file server.
const STILL_WITHIN: Duration = Duration::from_secs(1);
/// How long the dying may take in all.
const DEAD_WITHIN: Duration = Duration::from_secs(10);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(500);

/// Stops, then kills and collects every descendant. The caller must be a child subreaper with no other business with
/// its children. What is left when this returns cannot be killed: another account's, or asleep in the kernel.
pub(super) fn end_all() -> BTreeSet<Pid> {
    let deadline = Instant::now() + DEAD_WITHIN;
    let mut forbidden = BTreeSet::new();
    loop {
        // Killing one by one would lose against a process that forks faster than we walk.
        let found = freeze(|known| below(Pid::this(), known));
        for pid in &found {
            if !proc::send(*pid, Signal::SIGKILL) {
                forbidden.insert(*pid);
            }
        }
        let round = Instant::now() + Duration::from_millis(100);
        while some_live() {
            let left = below(Pid::this(), &forbidden);
            if Instant::now() > deadline || left.is_empty() && !forbidden.is_empty() {
                return below(Pid::this(), &BTreeSet::new());
            }
            if Instant::now() > round {
                break; // somebody slipped through: another round
            }
            sleep(PAUSE);
        }
        if !some_live() {
            return BTreeSet::new();
        }
    }
}

/// Stops, pass after pass, the processes that `find` names (it gets those already known), until a pass names nobody new
/// and all of them stand still. Returns them all.
pub(super) fn freeze(find: impl Fn(&BTreeSet<Pid>) -> BTreeSet<Pid>) -> BTreeSet<Pid> {
    let deadline = Instant::now() + STILL_WITHIN;
    let mut known = BTreeSet::new();
    let mut still = BTreeSet::new();
    loop {
        let fresh = find(&known);
        for pid in &fresh {
            proc::send(*pid, Signal::SIGSTOP);
        }
        let nobody_new = fresh.is_empty();
        // Whoever was still BEFORE the pass that found nobody new cannot have forked since.
        if nobody_new && still.len() == known.len() {
            return known;
        }
        known.extend(fresh);
        if nobody_new && Instant::now() > deadline {
            return known;
        }
        still = known.iter().copied().filter(|pid| proc::is_still(*pid)).collect();
        if nobody_new && still.len() < known.len() {
            sleep(PAUSE);
        }
    }
}

/// The descendants of `top` that are not in `known`; those below a known one are found too.
fn below(top: Pid, known: &BTreeSet<Pid>) -> BTreeSet<Pid> {
    let mut seen = BTreeSet::new();
    let mut open = vec![top];
    while let Some(pid) = open.pop() {
        open.extend(proc::children(pid).into_iter().filter(|child| seen.insert(*child)));
    }
    seen.retain(|pid| !known.contains(pid));
    seen
}

/// Collects the dead children; true if there are living ones. Since orphans come to us, no child at all means no
/// descendant at all.
fn some_live() -> bool {
    loop {
        match proc::collect_one() {
            Collected::Dead(..) => {}
            Collected::Alive => return true,
            Collected::None => return false,
        }
    }
}
