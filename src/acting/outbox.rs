//! The outbox of a session: in the store, or in memory once the store cannot be used.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::acting::launch::NO_STORE;
use crate::acting::reports::{Reports, store_trouble};
use crate::notify::{Outbox, OutboxEntry, OutboxError, OutboxStatus};
use crate::redact::Secret;
use crate::workflow::counters::{Counter, reported};
use crate::workflow::id::{ProcessId, RunId};
use crate::workflow::recorder::{Recorder, Unrecorded};
use crate::workflow::session::{IsDead, open_session};
use crate::workflow::store::{Shelf, Store, StoreError, Tx, View};

/// See the module's documentation.
pub struct SessionOutbox {
    store: Option<Store>,
    reports: Arc<Reports>,
    process: ProcessId,
    is_dead: IsDead,
    recorder: OnceLock<Arc<Recorder>>,
    /// The messages of a run that is not recorded, once they were asked for.
    memory: Mutex<Option<Vec<OutboxEntry>>>,
    troubles_added: AtomicBool,
}

impl SessionOutbox {
    /// Over this store, for this process.
    pub fn new(store: Option<Store>, reports: Arc<Reports>, process: ProcessId, is_dead: IsDead) -> Self {
        Self {
            store,
            reports,
            process,
            is_dead,
            recorder: OnceLock::new(),
            memory: Mutex::default(),
            troubles_added: AtomicBool::new(false),
        }
    }

    /// Whose run it is for: knows whether the run is recorded. To be called once, before the run begins.
    pub fn attach(&self, recorder: Arc<Recorder>) {
        let _first = self.recorder.set(recorder);
    }

    /// The store, while the run is recorded in it.
    fn store(&self) -> Option<&Store> {
        let recorded = self.recorder.get().is_none_or(|recorder| recorder.why_unrecorded().is_none());
        self.store.as_ref().filter(|_| recorded)
    }

    /// What a run that is not recorded has to tell.
    fn in_memory(&self, why: &Unrecorded) -> Vec<OutboxEntry> {
        let prepare = || match self.recorder.get() {
            Some(recorder) => recorder.with(|state| self.reports.unrecorded(state, store_trouble(why))),
            None => Vec::new(),
        };
        lock(&self.memory).get_or_insert_with(prepare).clone()
    }

    /// Once a session, before anything goes out.
    async fn add_troubles(&self, store: &Store) {
        let Some(recorder) = self.recorder.get().filter(|_| !self.troubles_added.swap(true, Ordering::Relaxed)) else {
            return;
        };
        let (reports, state) = (self.reports.clone(), recorder.with(Clone::clone));
        if let Err(error) = store.write(move |tx| reports.add_troubles(tx, &state)).await {
            tracing::error!(code = %error.code(), "cannot write the outbox; what went wrong at the end of the run is not told: {error}");
        }
    }

    /// Changes an entry as it is now, in the store or in memory. `None`: it is not there.
    async fn change<T: Send + 'static>(
        &self,
        key: String,
        change: impl FnOnce(&mut Keeper<'_, '_>, OutboxEntry) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<Option<T>, OutboxError> {
        let kept = lock(&self.memory).as_ref().and_then(|all| all.iter().find(|e| e.key() == key).cloned());
        let changed = match (kept, self.store()) {
            (Some(entry), _) => change(&mut Keeper::Memory(&mut lock(&self.memory)), entry).map(Some),
            (None, None) => return Ok(None),
            (None, Some(store)) => {
                let write = store.write(move |tx| -> Result<Option<T>, StoreError> {
                    let Some(entry) = tx.get::<OutboxEntry>(Shelf::Outbox, &key)? else { return Ok(None) };
                    change(&mut Keeper::Store(tx), entry).map(Some)
                });
                write.await
            }
        };
        changed.map_err(|error| OutboxError { doing: "write", why: format!("{error} [{}]", error.code()) })
    }
}

/// Where an entry is kept.
enum Keeper<'a, 'tx> {
    Store(&'a mut Tx<'tx>),
    Memory(&'a mut Option<Vec<OutboxEntry>>),
}

impl Keeper<'_, '_> {
    fn put(&mut self, entry: OutboxEntry) -> Result<(), StoreError> {
        match self {
            Self::Store(tx) => tx.put(Shelf::Outbox, &entry.key(), &entry),
            Self::Memory(all) => {
                let all = all.iter_mut().flatten().filter(|kept| kept.key() == entry.key());
                all.for_each(|kept| *kept = entry.clone());
                Ok(())
            }
        }
    }

    /// Subtracts from the counters what the entry tells, unless that has been done.
    fn settle(&mut self, entry: &mut OutboxEntry) -> Result<(), StoreError> {
        let Self::Store(tx) = self else { return Ok(()) };
        let mut rows = BTreeSet::new();
        for report in entry.reports.iter_mut().filter(|report| !report.settled) {
            let key = report.counter.as_key();
            if let Some(counter) = tx.counter::<Counter>(&key)? {
                tx.put_counter(&key, &reported(&counter, entry.run, report.value, report.since))?;
            }
            report.settled = true;
            rows.insert(report.row());
        }
        if rows.is_empty() {
            return Ok(());
        }
        // The other messages of the run tell the same: that is not to be subtracted again.
        for (key, mut other) in tx.scan_prefix::<OutboxEntry>(Shelf::Outbox, &entry.run.to_string())? {
            if key != entry.key() && other.reports.iter().any(|report| rows.contains(&report.row())) {
                other.reports.iter_mut().filter(|report| rows.contains(&report.row())).for_each(|r| r.settled = true);
                tx.put(Shelf::Outbox, &key, &other)?;
            }
        }
        Ok(())
    }
}

impl Outbox for SessionOutbox {
    fn pending(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>> {
        Box::pin(async move {
            if self.reports.to.off {
                return Ok(Vec::new());
            }
            let Some(store) = self.store().cloned() else {
                let why = self.recorder.get().and_then(|recorder| recorder.is_unrecorded().cloned());
                return Ok(self.in_memory(&why.unwrap_or_else(|| Unrecorded::from(NO_STORE))));
            };
            self.add_troubles(&store).await;
            let (process, is_dead) = (self.process, self.is_dead.clone());
            let found = store.read(move |view| waiting(view, run, process, &is_dead)).await.and_then(|found| found);
            let found = match found {
                Ok(found) => found,
                Err(error) => {
                    tracing::error!(code = %error.code(), "cannot read the outbox; every error of this run is told: {error}");
                    return Ok(self.in_memory(&Unrecorded::from(&error)));
                }
            };
            let (mut ready, mut nobodys) = (Vec::new(), Vec::new());
            for entry in found {
                match self.reports.to.readdressed(&entry) {
                    Some(entry) => ready.push(entry),
                    None => nobodys.push(entry.key()),
                }
            }
            if !nobodys.is_empty() {
                tracing::info!(messages = %nobodys.join(" "), "nobody is to be told any more");
                let drop = store.write(move |tx| -> Result<(), StoreError> {
                    nobodys.iter().for_each(|key| tx.remove(Shelf::Outbox, key));
                    Ok(())
                });
                if let Err(error) = drop.await {
                    tracing::warn!(code = %error.code(), "cannot remove messages from the outbox: {error}");
                }
            }
            Ok(ready)
        })
    }

    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<bool, OutboxError>> {
        let (process, is_dead) = (self.process, self.is_dead.clone());
        let recipients = entry.recipients.clone();
        Box::pin(async move {
            let claimed = self.change(entry.key(), move |keeper, mut kept| {
                let free = match kept.status {
                    OutboxStatus::Prepared => true,
                    OutboxStatus::Sending => is_free(kept.sender, process, &is_dead),
                    OutboxStatus::Sent => false,
                };
                if free {
                    kept.status = OutboxStatus::Sending;
                    kept.sender = Some(process);
                    kept.recipients = recipients;
                    keeper.put(kept)?;
                }
                Ok(free)
            });
            match claimed.await {
                Ok(claimed) => Ok(claimed.unwrap_or(false)),
                // The message itself is what matters, and not that the store knows of it.
                Err(error) => {
                    tracing::error!("{error}");
                    Ok(true)
                }
            }
        })
    }

    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(async move {
            let changed = self.change(entry.key(), |keeper, mut kept| {
                kept.status = OutboxStatus::Prepared;
                kept.sender = None;
                keeper.put(kept)
            });
            changed.await.map(|_| ())
        })
    }

    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, at: Timestamp) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(async move {
            let changed = self.change(entry.key(), move |keeper, mut kept| {
                keeper.settle(&mut kept)?;
                kept.status = OutboxStatus::Sent;
                kept.sent_at = Some(at);
                kept.sender = None;
                // What was sent need not be kept in full.
                kept.body = String::new();
                keeper.put(kept)
            });
            changed.await.map(|_| ())
        })
    }

    fn webhook(&self, test: bool) -> Option<Secret> {
        self.reports.to.webhook(test)
    }
}

fn is_free(sender: Option<ProcessId>, process: ProcessId, is_dead: &IsDead) -> bool {
    sender.is_none_or(|sender| sender == process || is_dead(sender))
}

/// What is not sent and what no other living process sends, or will send at the end of its run.
fn waiting(view: &View<'_>, run: RunId, process: ProcessId, is_dead: &IsDead) -> Result<Vec<OutboxEntry>, StoreError> {
    let mut found = Vec::new();
    for (_, entry) in view.scan_prefix::<OutboxEntry>(Shelf::Outbox, "")? {
        let free = match entry.status {
            OutboxStatus::Sent => false,
            OutboxStatus::Sending => is_free(entry.sender, process, is_dead),
            OutboxStatus::Prepared if entry.run == run => true,
            OutboxStatus::Prepared => {
                let owner = view.run(entry.run)?.and_then(|run| open_session(&run).map(|session| session.by.process));
                is_free(owner, process, is_dead)
            }
        };
        if free {
            found.push(entry);
        }
    }
    Ok(found)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change replaces a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
