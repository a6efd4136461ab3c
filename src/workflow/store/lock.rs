//! Who has the store open: sled serves one process at a time, so processes take turns.
//!
//! Whoever wants it takes `queue.lock`, then `store.lock`, then lets the queue go. So at most one process waits for
//! the store itself, and the holder sees that somebody does by trying the queue. The kernel wakes those who wait for a
//! file lock in the order of their coming: nobody starves.
//!
//! A file lock cannot be waited for with a time limit. So a thread waits in line, and the store's thread waits for
//! that thread; if it gives up, the next attempt finds the same thread still in its place, and only looks whether its turn
//! has come: a holder that is stopped costs a process its patience once, however many requests it makes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::error::{HolderState, StoreError};
use super::state_dir::StateDir;
use crate::workflow::input_file;

/// Whoever has waited in vain before waits only so long: its thread has been in line all the time.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The right to have the store open, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _store: Flock<File>,
}

#[derive(Debug)]
enum Place {
    /// Waits for `queue.lock`.
    InQueue,
    /// Is next.
    Next,
    /// Has its turn, which nobody has taken over yet.
    Turn(Turn),
    Failed(StoreError),
    /// The thread has ended.
    Gone,
}

#[derive(Debug)]
struct Shared {
    place: Place,
    /// Does anybody still want the turn? If not, the thread lets it go at once.
    wanted: bool,
}

type Waiting = Arc<(Mutex<Shared>, Condvar)>;

fn locked(waiting: &Waiting) -> MutexGuard<'_, Shared> {
    waiting.0.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where one handle of the store stands in line.
#[derive(Debug)]
pub(super) struct Line {
    queue: PathBuf,
    store: PathBuf,
    store_directory: PathBuf,
    /// For looking whether somebody waits.
    probe: Option<File>,
    /// The place of an attempt that has waited in vain.
    waiting: Option<Waiting>,
}

impl Line {
    pub(super) fn new(state: &StateDir) -> Self {
        Self {
            queue: state.queue_lock(),
            store: state.store_lock(),
            store_directory: state.store(),
            probe: None,
            waiting: None,
        }
    }

    /// Waits for its turn; after an attempt in vain, no longer than it takes to see whether it has come.
    pub(super) fn turn(&mut self, patience: Duration) -> Result<Turn, StoreError> {
        let still_there = self.waiting.take().filter(|waiting| {
            let mut shared = locked(waiting);
            shared.wanted = !matches!(shared.place, Place::Gone | Place::Failed(_));
            shared.wanted
        });
        let (waiting, wait) = match still_there {
            Some(waiting) => (waiting, LOOK_AGAIN.min(patience)),
            None => match self.line_up()? {
                Ok(turn) => return Ok(turn),
                Err(waiting) => (waiting, patience),
            },
        };
        let since = Instant::now();
        let mut shared = locked(&waiting);
        loop {
            match std::mem::replace(&mut shared.place, Place::Gone) {
                Place::Turn(turn) => return Ok(turn),
                Place::Failed(error) => return Err(error),
                Place::Gone => {
                    return Err(StoreError::io("lock", &self.store, io::Error::other("the waiting thread ended")));
                }
                place @ (Place::InQueue | Place::Next) => {
                    let left = wait.saturating_sub(since.elapsed());
                    if left.is_zero() {
                        let (pid, state) = self.culprit(&place);
                        shared.place = place;
                        shared.wanted = false;
                        drop(shared);
                        self.waiting = Some(waiting);
                        return Err(StoreError::Busy {
                            path: self.store_directory.clone(),
                            pid,
                            state,
                            waited: patience,
                        });
                    }
                    shared.place = place;
                    let (again, _) = waiting.1.wait_timeout(shared, left).unwrap_or_else(PoisonError::into_inner);
                    shared = again;
                }
            }
        }
    }

    /// Does another process wait for the store that we hold?
    pub(super) fn somebody_waits(&mut self) -> Result<bool, StoreError> {
        let file = match self.probe.take() {
            Some(file) => file,
            None => open(&self.queue)?,
        };
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => {
                self.probe = lock.unlock().ok();
                Ok(false)
            }
            Err((file, Errno::EWOULDBLOCK)) => {
                self.probe = Some(file);
                Ok(true)
            }
            Err((_, errno)) => Err(StoreError::io("lock", &self.queue, errno.into())),
        }
    }

    /// Who keeps us waiting: whoever holds the store, or a stopped process that is next and will not take it.
    fn culprit(&self, place: &Place) -> (Option<u32>, HolderState) {
        let named = |path| holder(path).map(|pid| (Some(pid), HolderState::of(pid)));
        let next = if matches!(place, Place::InQueue) { named(&self.queue) } else { None };
        next.filter(|(_, state)| *state == HolderState::Stopped)
            .or_else(|| named(&self.store))
            .unwrap_or((None, HolderState::NotFound))
    }

    /// Takes the turn if nobody is before us, else sends a thread to wait.
    fn line_up(&self) -> Result<Result<Turn, Waiting>, StoreError> {
        let (queue, store) = (open(&self.queue)?, open(&self.store)?);
        let (queue, store) = match Flock::lock(queue, FlockArg::LockExclusiveNonblock) {
            Ok(queue) => match Flock::lock(store, FlockArg::LockExclusiveNonblock) {
                Ok(store) => {
                    sign(&store);
                    return Ok(Ok(Turn { _store: store }));
                }
                Err((store, Errno::EWOULDBLOCK)) => {
                    sign(&queue);
                    (Ok(queue), store)
                }
                Err((_, errno)) => return Err(StoreError::io("lock", &self.store, errno.into())),
            },
            Err((queue, Errno::EWOULDBLOCK)) => (Err(queue), store),
            Err((_, errno)) => return Err(StoreError::io("lock", &self.queue, errno.into())),
        };
        let place = if queue.is_ok() { Place::Next } else { Place::InQueue };
        let waiting: Waiting = Arc::new((Mutex::new(Shared { place, wanted: true }), Condvar::new()));
        let (theirs, path) = (Arc::clone(&waiting), self.store.clone());
        std::thread::Builder::new()
            .name("mt-store-line".to_owned())
            .spawn(move || wait_in_line(&theirs, queue, store, &path))
            .map_err(|e| StoreError::io("wait for", &self.store, e))?;
        Ok(Err(waiting))
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(waiting) = &self.waiting {
            locked(waiting).wanted = false;
        }
    }
}

fn wait_in_line(waiting: &Waiting, queue: Result<Flock<File>, File>, store: File, path: &Path) {
    let wait = || -> Result<Turn, StoreError> {
        let queue = match queue {
            Ok(queue) => queue,
            Err(file) => {
                let queue = blocking(file).map_err(|e| StoreError::io("lock", path, e))?;
                sign(&queue);
                queue
            }
        };
        locked(waiting).place = Place::Next;
        let store = blocking(store).map_err(|e| StoreError::io("lock", path, e))?;
        sign(&store);
        drop(queue);
        Ok(Turn { _store: store })
    };
    let result = wait();
    let mut shared = locked(waiting);
    shared.place = match (result, shared.wanted) {
        (Ok(turn), true) => Place::Turn(turn),
        (Ok(_), false) => Place::Gone,
        (Err(error), _) => Place::Failed(error),
    };
    waiting.1.notify_all();
}

fn blocking(mut file: File) -> io::Result<Flock<File>> {
    loop {
        match Flock::lock(file, FlockArg::LockExclusive) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EINTR)) => file = again,
            Err((_, errno)) => return Err(errno.into()),
        }
    }
}

fn open(path: &Path) -> Result<File, StoreError> {
    input_file::open_lock(path).map_err(|e| StoreError::io("open", path, e))
}

/// Leaves our pid in the lock file, for the message of whoever waits in vain. On a full disk there is no name.
fn sign(file: &File) {
    let _ = file.set_len(0).and_then(|()| file.write_all_at(format!("{}\n", std::process::id()).as_bytes(), 0));
}

fn holder(path: &Path) -> Option<u32> {
    std::fs::read_to_string(path).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(30);

    fn lines() -> (tempfile::TempDir, Line, Line, Line) {
        let tmp = tempfile::tempdir().unwrap();
        let state = StateDir::create(tmp.path().join("s")).unwrap();
        let line = || Line::new(&state);
        (tmp, line(), line(), line())
    }

    /// The turn of one that has waited in vain before, once the holder has let go: its thread needs a moment for it.
    fn soon(line: &mut Line) -> Turn {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            match line.turn(SHORT) {
                Ok(turn) => return turn,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
        }
    }

    #[test]
    fn one_holds_the_store_and_sees_when_another_waits() {
        let (_tmp, mut a, mut b, _) = lines();
        let turn = a.turn(SHORT).unwrap();
        assert!(!a.somebody_waits().unwrap());
        let StoreError::Busy { pid, state, .. } = b.turn(SHORT).unwrap_err() else { panic!("must be busy") };
        assert_eq!((pid, state), (Some(std::process::id()), HolderState::Alive));
        assert!(a.somebody_waits().unwrap(), "whoever gave up keeps its place");
        drop(turn);
        soon(&mut b);
    }

    #[test]
    fn whoever_has_waited_in_vain_does_not_wait_so_long_again_and_loses_nothing_by_it() {
        const LONG: Duration = Duration::from_secs(60);
        let (_tmp, mut a, mut b, mut c) = lines();
        let turn = a.turn(SHORT).unwrap();
        assert!(b.turn(SHORT).is_err() && c.turn(SHORT).is_err());
        let since = Instant::now();
        for _ in 0..2 {
            assert!(b.turn(LONG).is_err() && c.turn(LONG).is_err());
        }
        assert!(since.elapsed() < LONG, "{:?}", since.elapsed());
        drop(turn);
        drop(soon(&mut b));
        drop(soon(&mut c));
        assert!(b.waiting.is_none() && c.waiting.is_none(), "the next time they wait as long as anybody");
    }

    #[test]
    fn a_turn_that_nobody_wants_any_more_is_passed_on() {
        let (_tmp, mut a, mut b, mut c) = lines();
        let turn = a.turn(SHORT).unwrap();
        assert!(b.turn(SHORT).is_err());
        drop(turn);
        c.turn(Duration::from_secs(10)).unwrap();
    }

    #[test]
    fn a_handle_that_went_away_leaves_no_place_in_line() {
        let (_tmp, mut a, mut b, mut c) = lines();
        let turn = a.turn(SHORT).unwrap();
        assert!(b.turn(SHORT).is_err());
        drop(b);
        assert!(c.turn(SHORT).is_err());
        drop(turn);
        soon(&mut c);
    }
}
