//! The handle: what the rest of `mt` holds of the store.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::oneshot;

use super::error::StoreError;
use super::open::MIN_FREE;
use super::state_dir::StateDir;
use super::thread::{Ack, Request, Worker};
use super::tx::Tx;
use super::view::View;

/// What a handle is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Makes the store if there is none.
    ReadWrite,
    /// A store that is missing reads as an empty one; one of a newer `mt` is read as far as it is understood.
    ReadOnly,
}

/// What tests and benches may set otherwise.
#[derive(Clone, Debug)]
pub struct Options {
    /// How long other processes are waited for: 10 s.
    pub patience: Duration,
    /// How long every call waits for an answer in all, the time in line included: 30 s. It takes longer only if a disk
    /// hangs.
    pub answer: Duration,
    /// Below this much free space (in bytes) the store is not opened: [`MIN_FREE`].
    pub min_free: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { patience: Duration::from_secs(10), answer: Duration::from_secs(30), min_free: MIN_FREE }
    }
}

/// What a handle has done so far.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) commits: AtomicU64,
    pub(super) writes: AtomicU64,
    pub(super) turns: AtomicU64,
    pub(super) hand_overs: AtomicU64,
    /// The first damage it came upon.
    pub(super) damage: OnceLock<StoreError>,
}

impl Counts {
    /// Remembers a damage.
    pub(super) fn noting<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        done.inspect_err(|error| {
            if let StoreError::Damaged { .. } = error {
                // The first one counts.
                let _ = self.damage.set(error.clone());
            }
        })
    }
}

/// What a handle has done so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stats {
    /// Group commits: each is one transaction, one flush and one sync.
    pub commits: u64,
    /// Acknowledged writes that changed something.
    pub writes: u64,
    /// How often the store was opened.
    pub turns: u64,
    /// How often it was let go because another process waited.
    pub hand_overs: u64,
}

/// A handle of the store; clones share it. Behind it is one OS thread, which opens the store when there is work, hands it
/// to other processes that wait, and lets it go when there is nothing to do.
///
/// The closures given to `write` and `read` run on that thread: they must be short and must not wait for anything.
#[derive(Clone, Debug)]
pub struct Store {
    requests: mpsc::Sender<Request>,
    counts: Arc<Counts>,
    access: Access,
    path: Arc<Path>,
    answer: Duration,
}

impl Store {
    /// Opens the store once, to see that it can be, and gives a handle. Blocks, for 10 s at most.
    ///
    /// # Errors
    /// Every kind of [`StoreError`] but `Closed`: the caller goes on unrecorded, or gives up and prints it.
    pub fn open(state: &StateDir, access: Access) -> Result<Self, StoreError> {
        Self::open_with(state, access, Options::default())
    }

    /// The same with other limits.
    ///
    /// # Errors
    /// As [`Store::open`].
    pub fn open_with(state: &StateDir, access: Access, options: Options) -> Result<Self, StoreError> {
        let (requests, incoming) = mpsc::channel();
        let counts = Arc::new(Counts::default());
        let (path, answer) = (state.store().into(), options.answer);
        let worker = Worker::new(state.clone(), access, options, Arc::clone(&counts));
        std::thread::Builder::new()
            .name("mt-store".to_owned())
            .spawn(move || worker.work(&incoming))
            .map_err(|e| StoreError::io("start a thread for", &state.store(), e))?;
        let store = Self { requests, counts, access, path, answer };
        store.read_blocking(|_| ())?;
        Ok(store)
    }

    /// Changes the store. What the closure reads and writes is one atomic step; it is durable when this returns `Ok`.
    /// If the closure fails, nothing it changed is kept.
    ///
    /// After an error of the commit itself (`Io`, `Hangs`) the changes may or may not be there.
    ///
    /// # Errors
    /// The closure's own, or a [`StoreError`] turned into it.
    ///
    /// # Panics
    /// If the closure panics. Other writes are not affected.
    pub async fn write<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        self.submit(change).await
    }

    /// [`Store::write`], queued when this returns and not only when the answer is waited for: writes are made in the
    /// order in which they were submitted.
    pub fn submit<T, E, F>(&self, change: F) -> impl Future<Output = Result<T, E>> + Send + 'static + use<T, E, F>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let sent = self.send_write(change, move |outcome| drop(reply.send(outcome)));
        let (limit, hangs) = (self.answer, self.hangs());
        async move {
            sent?;
            unwound(within(limit, answer, hangs).await?)
        }
    }

    /// [`Store::write`] for code that is not async.
    ///
    /// # Errors
    /// As [`Store::write`].
    ///
    /// # Panics
    /// As [`Store::write`].
    pub fn write_blocking<T, E, F>(&self, change: F) -> Result<T, E>
    where
        F: FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send_write(change, move |outcome| drop(reply.send(outcome)))?;
        self.wait_for_answer(&answer)?
    }

    /// Reads committed state.
    ///
    /// # Errors
    /// If the store cannot be opened. What the closure's own reads say is in its result.
    ///
    /// # Panics
    /// If the closure panics.
    pub async fn read<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        F: FnOnce(&View<'_>) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        self.send_read(look, move |outcome| drop(reply.send(outcome)))?;
        unwound(within(self.answer, answer, self.hangs()).await?)
    }

    /// [`Store::read`] for code that is not async.
    ///
    /// # Errors
    /// As [`Store::read`].
    ///
    /// # Panics
    /// As [`Store::read`].
    pub fn read_blocking<T, F>(&self, look: F) -> Result<T, StoreError>
    where
        F: FnOnce(&View<'_>) -> T + Send + 'static,
        T: Send + 'static,
    {
        let (reply, answer) = mpsc::sync_channel(1);
        self.send_read(look, move |outcome| drop(reply.send(outcome)))?;
        self.wait_for_answer(&answer)?
    }

    /// Finishes what was asked for before, lets the store go and ends its thread. Blocks. Every clone is closed with it.
    /// Not needed for durability: a write is durable when it returns. But what is written to the sidecar here makes it
    /// certain that a later loss is noticed, so every command ends with it.
    pub fn close(self) {
        let (done, closed) = mpsc::sync_channel(1);
        if self.requests.send(Request::Close(done)).is_ok() {
            // An error means that the thread has ended, which is as good, or that its disk hangs.
            let _ = closed.recv_timeout(self.answer);
        }
    }

    /// The first damage that this handle has come upon, whoever was told of it: a store that opens may have parts that
    /// cannot be read.
    pub fn damage(&self) -> Option<StoreError> {
        self.counts.damage.get().cloned()
    }

    /// What this handle has done so far.
    pub fn stats(&self) -> Stats {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Stats {
            commits: of(&self.counts.commits),
            writes: of(&self.counts.writes),
            turns: of(&self.counts.turns),
            hand_overs: of(&self.counts.hand_overs),
        }
    }

    fn wait_for_answer<T, E>(&self, answer: &mpsc::Receiver<Outcome<T, E>>) -> Result<Result<T, E>, StoreError> {
        match answer.recv_timeout(self.answer) {
            Ok(outcome) => Ok(unwound(outcome)),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(StoreError::Closed),
            Err(mpsc::RecvTimeoutError::Timeout) => Err(self.hangs()),
        }
    }

    fn hangs(&self) -> StoreError {
        StoreError::Hangs { path: self.path.to_path_buf(), waited: self.answer }
    }

    fn send_write<T, E>(
        &self,
        change: impl FnOnce(&mut Tx<'_>) -> Result<T, E> + Send + 'static,
        reply: impl FnOnce(Outcome<T, E>) + Send + 'static,
    ) -> Result<(), StoreError>
    where
        T: Send + 'static,
        E: From<StoreError> + Send + 'static,
    {
        if self.access == Access::ReadOnly {
            return Err(StoreError::ReadOnly);
        }
        let request = Request::Write(Box::new(move |tx| {
            let tx = match tx {
                Ok(tx) => tx,
                Err(error) => {
                    reply(Ok(Err(error.into())));
                    return None;
                }
            };
            match catch_unwind(AssertUnwindSafe(|| change(tx))) {
                Ok(Ok(value)) => {
                    let ack: Ack = Box::new(move |committed| reply(Ok(committed.map(|()| value).map_err(E::from))));
                    Some(ack)
                }
                Ok(Err(error)) => {
                    reply(Ok(Err(error)));
                    None
                }
                Err(panic) => {
                    reply(Err(panic));
                    None
                }
            }
        }));
        self.requests.send(request).map_err(|_| StoreError::Closed)
    }

    fn send_read<T: Send + 'static>(
        &self,
        look: impl FnOnce(&View<'_>) -> T + Send + 'static,
        reply: impl FnOnce(Outcome<T, StoreError>) + Send + 'static,
    ) -> Result<(), StoreError> {
        let request = Request::Read(Box::new(move |view| {
            reply(match view {
                Ok(view) => catch_unwind(AssertUnwindSafe(|| look(view))).map(Ok),
                Err(error) => Ok(Err(error)),
            });
        }));
        self.requests.send(request).map_err(|_| StoreError::Closed)
    }
}

/// The thread's answer, if it comes in time. The time is waited for in parts: when this process was stopped for a while,
/// all of it may be over at once, and the thread must still have its turn.
async fn within<T>(limit: Duration, answer: oneshot::Receiver<T>, hangs: StoreError) -> Result<T, StoreError> {
    let mut answer = answer;
    for _ in 0..PARTS {
        if let Ok(answered) = tokio::time::timeout(limit / PARTS, &mut answer).await {
            return answered.map_err(|_| StoreError::Closed);
        }
    }
    Err(hangs)
}

/// See [`within`].
const PARTS: u32 = 3;

/// A closure's result, or the panic that ended it.
type Outcome<T, E> = Result<Result<T, E>, Box<dyn Any + Send>>;

fn unwound<T, E>(outcome: Outcome<T, E>) -> Result<T, E> {
    outcome.unwrap_or_else(|panic| resume_unwind(panic))
}
