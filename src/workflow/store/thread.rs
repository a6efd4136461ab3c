//! The one thread that touches sled.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use super::caught::{caught, drop_within};
use super::error::StoreError;
use super::handle::{Access, Counts, Options};
use super::lock::{Line, Turn};
use super::open::Opened;
use super::overlay::Overlay;
use super::state_dir::StateDir;
use super::tx::Tx;
use super::view::View;

/// How often a holder with nothing to do looks whether somebody waits.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A holder with work to do keeps the store this long before it hands it over, about as long as opening takes: with four busy
/// processes whoever waits gets it within 250 ms.
const HOLD_AT_LEAST: Duration = Duration::from_millis(15);

/// A writer with nothing to do lets the store go after this long, whether somebody waits or not.
const HOLD_IDLE: Duration = Duration::from_secs(2);

/// A group commit takes at most this many writes.
const GROUP_WRITES: usize = 1024;

/// A group commit takes no further write once its changes are this big, in bytes.
const GROUP_BYTES: usize = 2 << 20;

/// How long closing a store that could not be written may take.
pub(super) const DROP_WITHIN: Duration = Duration::from_secs(1);

/// Tells a writer how the commit went.
pub(super) type Ack = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// A write: gives no `Ack` if it has told its writer already, that is if it failed.
pub(super) type Write = Box<dyn FnOnce(Result<&mut Tx<'_>, StoreError>) -> Option<Ack> + Send>;

pub(super) type Read = Box<dyn FnOnce(Result<&View<'_>, StoreError>) + Send>;

pub(super) enum Request {
    Write(Write),
    Read(Read),
    Close(SyncSender<()>),
}

/// The store while it is our turn. Nothing that was read from it outlives this value.
#[derive(Debug)]
struct Holding {
    /// `None`: there is no store, and we only read. Dropped before the turn ends.
    opened: Option<Opened>,
    _turn: Turn,
    since: Instant,
    last_used: Instant,
}

pub(super) struct Worker {
    state: StateDir,
    access: Access,
    options: Options,
    counts: Arc<Counts>,
    line: Line,
    holding: Option<Holding>,
    /// The store is damaged or newer: it is not opened again.
    given_up: Option<StoreError>,
}

impl Worker {
    pub(super) fn new(state: StateDir, access: Access, options: Options, counts: Arc<Counts>) -> Self {
        let line = Line::new(&state);
        Self { state, access, options, counts, line, holding: None, given_up: None }
    }

    /// Serves until every handle is gone or one of them is closed.
    pub(super) fn work(mut self, requests: &Receiver<Request>) {
        loop {
            let first = if self.holding.is_some() {
                match requests.recv_timeout(LOOK_EVERY) {
                    Ok(request) => Some(request),
                    Err(RecvTimeoutError::Timeout) => None,
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            } else {
                match requests.recv() {
                    Ok(request) => Some(request),
                    Err(_) => break,
                }
            };
            let idle = first.is_none();
            if let Some(first) = first
                && let Some(closed) = self.serve(first, requests)
            {
                self.let_go();
                // Whoever closes may have stopped waiting.
                let _ = closed.send(());
                return;
            }
            self.hand_over(idle);
        }
        self.let_go();
    }

    /// Serves one request and, with a write, all that wait behind it, as one group.
    fn serve(&mut self, first: Request, requests: &Receiver<Request>) -> Option<SyncSender<()>> {
        if let Request::Close(closed) = first {
            return Some(closed);
        }
        if let Err(error) = self.hold() {
            // Those who came while we waited in line have waited too.
            return std::iter::once(first).chain(requests.try_iter()).find_map(|request| refuse(request, &error));
        }
        let path = self.state.store();
        let Some(holding) = &mut self.holding else { return None };
        let (mut group, mut acks, mut close) = (Overlay::default(), Vec::new(), None);
        let mut next = Some(first);
        while let Some(request) = next {
            let base = holding.opened.as_ref().map(Opened::base);
            match request {
                Request::Read(read) => read(Ok(&View::new(base, None, &path))),
                Request::Write(write) => {
                    let mut tx = Tx::new(View::new(base, Some(&group), &path));
                    if let Some(ack) = write(Ok(&mut tx)) {
                        let changes = tx.into_changes();
                        acks.push((ack, !changes.is_empty()));
                        group.absorb(changes);
                    }
                }
                Request::Close(closed) => {
                    close = Some(closed);
                    break;
                }
            }
            let full = acks.len() >= GROUP_WRITES || group.bytes() >= GROUP_BYTES;
            next = if full { None } else { requests.try_recv().ok() };
        }
        let mut broken = false;
        let committed = match (&mut holding.opened, group.is_empty()) {
            (_, true) => Ok(()),
            (Some(opened), false) => match opened.check_room(group.bytes()) {
                Ok(()) => opened.commit(group).inspect_err(|_| broken = true),
                // Nothing was touched: what is recorded can still be read.
                Err(error) => Err(error),
            },
            (None, false) => Err(StoreError::ReadOnly),
        };
        holding.last_used = Instant::now();
        let writes = acks.iter().filter(|(_, changed)| *changed).count();
        match &committed {
            Ok(()) if writes > 0 => {
                self.counts.commits.fetch_add(1, Ordering::Relaxed);
                self.counts.writes.fetch_add(writes as u64, Ordering::Relaxed);
            }
            Ok(()) => {}
            Err(error) if broken => {
                self.given_up = error.is_final().then(|| error.clone());
                self.drop_broken(error);
            }
            Err(_) => {}
        }
        for (ack, _) in acks {
            ack(committed.clone());
        }
        close
    }

    /// Sees to it that the store is open.
    fn hold(&mut self) -> Result<(), StoreError> {
        if self.holding.is_some() {
            return Ok(());
        }
        if let Some(error) = &self.given_up {
            return Err(error.clone());
        }
        let turn = self.line.turn(self.options.patience)?;
        let opened = Opened::open_caught(&self.state, self.access, self.options.min_free, &self.counts);
        match opened {
            Ok(opened) => {
                self.counts.turns.fetch_add(1, Ordering::Relaxed);
                let now = Instant::now();
                self.holding = Some(Holding { opened, _turn: turn, since: now, last_used: now });
                Ok(())
            }
            Err(error) => {
                self.given_up = error.is_final().then(|| error.clone());
                Err(error)
            }
        }
    }

    /// Lets the store go if another process waits and has waited long enough, or if there has been nothing to do.
    fn hand_over(&mut self, idle: bool) {
        let Some(holding) = &self.holding else { return };
        let for_good = match self.access {
            Access::ReadWrite => holding.last_used.elapsed() >= HOLD_IDLE,
            // People read: they leave a pager open, or stop what looks again every second.
            Access::ReadOnly => true,
        };
        if idle && for_good {
            self.let_go();
        } else if idle || holding.since.elapsed() >= HOLD_AT_LEAST {
            // If nobody can tell, somebody may wait.
            if self.line.somebody_waits().unwrap_or(true) {
                self.counts.hand_overs.fetch_add(1, Ordering::Relaxed);
                self.let_go();
            }
        }
    }

    /// Closes the store in good order and ends our turn.
    fn let_go(&mut self) {
        if let Some(opened) = self.holding.as_mut().and_then(|holding| holding.opened.as_mut())
            && let Err(error) = opened.checkpoint()
        {
            // Nothing is lost by it: the sidecar says less than it could.
            tracing::warn!(code = %error.code(), "{error}");
        }
        self.drop_store();
    }

    fn drop_store(&mut self) {
        if let Some(holding) = self.holding.take() {
            // sled writes what it has left when it is dropped.
            let _ = caught(|| drop(holding));
        }
    }

    /// Drops a store whose commit failed. If that does not come to an end, this process keeps its turn and never opens the
    /// store again: it cannot, sled's own lock being still held.
    fn drop_broken(&mut self, error: &StoreError) {
        let Some(holding) = self.holding.take() else { return };
        if !drop_within(holding, DROP_WITHIN) {
            self.given_up = Some(error.clone());
        }
    }
}

fn refuse(request: Request, error: &StoreError) -> Option<SyncSender<()>> {
    match request {
        Request::Write(write) => {
            write(Err(error.clone()));
            None
        }
        Request::Read(read) => {
            read(Err(error.clone()));
            None
        }
        Request::Close(closed) => Some(closed),
    }
}
