//! The truth about a run while a session works on it: applies every fact, then makes it durable.
//!
//! Facts are applied under one lock and handed to the store in the same order, so the history in the store is the
//! history that was applied. `record` returns when the facts are durable. When the store fails the session goes on
//! unrecorded: the facts are still applied, and `unrecorded` says why nothing is kept.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use jiff::Timestamp;

use super::code::Code;
use super::counters::{count, mode_counts, verdicts};
use super::event::{Event, Fact, Scope};
use super::fold::{IllegalEvent, Touched};
use super::id::Subject;
use super::run::{Machine, Run, RunState};
use super::status::MachineStatus;
use super::store::{MISSING, Store, StoreError, Tx};

/// Why nothing is recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// Why.
    pub why: String,
}

impl From<&StoreError> for Unrecorded {
    fn from(error: &StoreError) -> Self {
        Self { code: error.code(), why: error.to_string() }
    }
}

/// There is no store, for this reason.
impl From<&str> for Unrecorded {
    fn from(why: &str) -> Self {
        Self { code: MISSING, why: why.to_owned() }
    }
}

/// What the engine's user adds to the transactions that end machines.
pub trait Epilogue: Send + Sync {
    /// In the transaction that ends the last machine of the session: every counter has its new value. Once in a session.
    fn machines_ended(&self, tx: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError>;
}

/// Sees every event right after it was applied. Called under the recorder's lock: it must return at once.
pub type Observer = Arc<dyn Fn(&Event, &RunState) + Send + Sync>;

/// See the module's documentation.
pub struct Recorder {
    held: Mutex<Held>,
    store: Option<Store>,
    unrecorded: OnceLock<Unrecorded>,
    epilogue: Option<Arc<dyn Epilogue>>,
    observer: Option<Observer>,
}

/// What a session knows.
struct Held {
    state: RunState,
    /// Machines that this session has yet to end. Some have ended in an earlier session and are worked on again: until
    /// then their outcome is the old one.
    awaited: BTreeSet<Subject>,
    /// A machine has ended in this session.
    some_ended: bool,
}

/// What some facts change in the store.
pub(super) struct Batch {
    run: Run,
    machines: Vec<Machine>,
    events: Vec<Event>,
    /// Machines whose counters change.
    counted: Vec<Machine>,
    /// The status of a machine changes: it may be the last to end.
    ends: bool,
    /// The whole state, if the last machine of the session has just ended.
    ended: Option<RunState>,
}

impl Held {
    /// Has every machine ended, and none of them is still to be worked on?
    fn is_over(&self) -> bool {
        self.awaited.is_empty() && all_ended(&self.state)
    }
}

impl Batch {
    /// Nothing but what follows the end of the last machine.
    fn of_the_end(state: &RunState) -> Self {
        let (machines, events, counted) = (Vec::new(), Vec::new(), Vec::new());
        Self { run: state.run.clone(), machines, events, counted, ends: true, ended: Some(state.clone()) }
    }

    /// Writes events, derived records and counters: all in the caller's transaction.
    pub(super) fn write(&self, tx: &mut Tx<'_>, epilogue: Option<&dyn Epilogue>) -> Result<(), StoreError> {
        let run = &self.run;
        for event in &self.events {
            tx.append_event(run.id, event)?;
        }
        for machine in &self.machines {
            tx.put_machine(run.id, machine)?;
        }
        tx.put_run(run)?;
        let now = self.events.last().map_or_else(Timestamp::now, |e| e.at);
        for machine in &self.counted {
            for (key, verdict) in verdicts(machine, &run.plan) {
                let record = tx.counter(&key.as_key())?;
                if let Some(next) = count(record.as_ref(), &key, run.id, verdict, now)
                    && record.as_ref() != Some(&next)
                {
                    tx.put_counter(&key.as_key(), &next)?;
                }
            }
        }
        match (epilogue, &self.ended) {
            (Some(epilogue), Some(state)) => epilogue.machines_ended(tx, state),
            (None, _) | (_, None) => Ok(()),
        }
    }
}

impl Recorder {
    /// A recorder for a run whose state up to here is already in the store.
    pub fn new(
        state: RunState,
        store: Option<Store>,
        epilogue: Option<Arc<dyn Epilogue>>,
        observer: Option<Observer>,
    ) -> Self {
        let held = Held { state, awaited: BTreeSet::new(), some_ended: false };
        Self { held: Mutex::new(held), store, unrecorded: OnceLock::new(), epilogue, observer }
    }

    /// A recorder that keeps nothing, and why.
    pub fn unrecorded(state: RunState, why: impl Into<Unrecorded>, observer: Option<Observer>) -> Self {
        let this = Self::new(state, None, None, observer);
        this.give_up(why.into());
        this
    }

    /// Why nothing is kept, if that is so.
    pub fn why_unrecorded(&self) -> Option<&str> {
        self.is_unrecorded().map(|unrecorded| unrecorded.why.as_str())
    }

    /// The same with its code.
    pub fn is_unrecorded(&self) -> Option<&Unrecorded> {
        self.unrecorded.get()
    }

    /// The store, while it can be used.
    pub fn store(&self) -> Option<&Store> {
        if self.unrecorded.get().is_some() { None } else { self.store.as_ref() }
    }

    /// Reads the state.
    pub fn with<T>(&self, read: impl FnOnce(&RunState) -> T) -> T {
        read(&self.lock().state)
    }

    /// The session will work on these machines: what follows the end of the last waits for all of them.
    pub(super) fn expect(&self, subjects: impl IntoIterator<Item = Subject>) {
        self.lock().awaited.extend(subjects);
    }

    /// The session leaves a machine that it was to work on as an earlier one has ended it.
    pub(super) async fn leave(&self, subject: &Subject) {
        let pending = {
            let mut held = self.lock();
            let last = held.awaited.remove(subject) && held.is_over() && held.some_ended;
            let batch = last.then(|| Batch::of_the_end(&held.state));
            batch.and_then(|batch| self.store().map(|store| self.submit(store, batch)))
        };
        self.finish(pending).await;
    }

    /// Applies the facts and returns when they are durable. On an illegal event nothing of the call is recorded.
    pub async fn record(&self, facts: Vec<Fact>) -> Result<(), IllegalEvent> {
        if facts.is_empty() {
            return Ok(());
        }
        let pending = {
            let mut held = self.lock();
            let mut batch = apply(&mut held.state, facts)?;
            for subject in batch.events.iter().filter_map(|event| event.fact.ended()) {
                held.awaited.remove(subject);
                held.some_ended = true;
            }
            // Only then: of a thousand machines that are left to another run each is the last of those that had ended.
            if batch.ends && held.is_over() {
                batch.ended = Some(held.state.clone());
            }
            if let Some(observer) = &self.observer {
                batch.events.iter().for_each(|event| observer(event, &held.state));
            }
            // Handed over under the lock, so that the store sees the events in their order.
            self.store().map(|store| self.submit(store, batch))
        };
        self.finish(pending).await;
        Ok(())
    }

    async fn finish(&self, pending: Option<impl Future<Output = Result<(), StoreError>>>) {
        if let Some(pending) = pending
            && let Err(error) = pending.await
        {
            self.give_up((&error).into());
        }
    }

    fn submit(
        &self,
        store: &Store,
        batch: Batch,
    ) -> impl Future<Output = Result<(), StoreError>> + Send + 'static + use<> {
        let epilogue = self.epilogue.clone();
        store.submit(move |tx| batch.write(tx, epilogue.as_deref()))
    }

    fn give_up(&self, unrecorded: Unrecorded) {
        if self.unrecorded.set(unrecorded.clone()).is_ok() {
            let Unrecorded { code, why } = unrecorded;
            tracing::error!(%code, %why, "the store cannot be used: this run goes on and is not recorded");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        // `record` replaces the state as a whole, so a panic never leaves it half changed.
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Applies all facts, or none.
pub(super) fn apply(state: &mut RunState, facts: Vec<Fact>) -> Result<Batch, IllegalEvent> {
    let everywhere = facts.iter().any(|f| f.scope() == Scope::EveryMachine);
    let before: Vec<Machine> = if everywhere {
        state.machines.values().cloned().collect()
    } else {
        let named: BTreeSet<&Subject> = facts.iter().filter_map(Fact::subject).collect();
        named.into_iter().filter_map(|subject| state.machines.get(subject)).cloned().collect()
    };
    let run_before = state.run.clone();

    match apply_each(state, facts) {
        Ok(batch) => Ok(batch),
        Err(illegal) => {
            state.run = run_before;
            state.machines.extend(before.into_iter().map(|m| (m.subject.clone(), m)));
            Err(illegal)
        }
    }
}

fn apply_each(state: &mut RunState, facts: Vec<Fact>) -> Result<Batch, IllegalEvent> {
    let at = Timestamp::now();
    let (mut touched, mut ended) = (BTreeSet::new(), BTreeSet::<Subject>::new());
    let (mut all, mut ends) = (false, false);
    let mut events = Vec::with_capacity(facts.len());
    for fact in facts {
        let session = u32::try_from(state.run.sessions.len()).unwrap_or(u32::MAX);
        let session = if matches!(fact, Fact::SessionStarted(_)) { session + 1 } else { session };
        if let Fact::MachineEnded { subject, .. } = &fact {
            ended.insert(subject.clone());
        }
        ends |= fact.scope() == Scope::Machine;
        let event = Event { seq: state.run.events, at, session, fact };
        match state.apply(&event)? {
            Touched::Run => {}
            Touched::Machine(subject) => {
                touched.insert(subject);
            }
            Touched::All => all = true,
        }
        events.push(event);
    }
    let records = |subjects: &BTreeSet<Subject>| -> Vec<Machine> {
        subjects.iter().filter_map(|s| state.machines.get(s)).cloned().collect()
    };
    let machines = if all { state.machines.values().cloned().collect() } else { records(&touched) };
    let counted = if mode_counts(state.run.mode) { records(&ended) } else { Vec::new() };
    Ok(Batch { run: state.run.clone(), machines, events, counted, ends, ended: None })
}

/// Has every machine ended?
pub fn all_ended(state: &RunState) -> bool {
    state.machines.values().all(|m| match m.status {
        MachineStatus::Pending | MachineStatus::Running | MachineStatus::Interrupted => false,
        MachineStatus::Succeeded
        | MachineStatus::Failed
        | MachineStatus::TimedOut
        | MachineStatus::Skipped
        | MachineStatus::Gone
        | MachineStatus::Superseded => true,
    })
}
