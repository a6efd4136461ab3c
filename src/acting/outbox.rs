//! What people are told: prepared in the transaction that ends the last machine, kept in the store until it is sent.
//!
//! A counter is subtracted only when a channel has accepted the report of it. So a report that could not be sent is
//! simply due again in the next run, and takes the place of the one that waits.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::acting::account_reports;
use crate::acting::launch::Notices;
use crate::cli::runs_show::Told;
use crate::config::{Config, Recipients};
use crate::notify::{DueCounter, Kind, Outbox, OutboxEntry, OutboxError, OutboxStatus, prepare};
use crate::workflow::action::Failure;
use crate::workflow::counters::{Counter, CounterKey, Verdict, is_due, reported, verdicts};
use crate::workflow::definition::{CountsAs, ForEach, Mode};
use crate::workflow::event::{AttemptOutcome, Event, Fact};
use crate::workflow::id::{RunId, Subject, TargetName};
use crate::workflow::recorder::{Epilogue, all_ended};
use crate::workflow::run::{Machine, RunState};
use crate::workflow::session::{IsDead, open_session};
use crate::workflow::status::MachineStatus;
use crate::workflow::store::{Shelf, Store, StoreError, Tx, View};

/// Decides what is told, and prepares it.
pub struct Reports {
    admins: Vec<String>,
    from: Option<String>,
    threshold: u32,
    /// Services whose notifications are off.
    silent: BTreeSet<Subject>,
    off: bool,
    /// `disableNotifications`; a service may have its own switch, an account has none.
    disabled: bool,
}

impl Reports {
    /// For a run in this mode.
    pub fn new(config: &Config, notices: &Notices, mode: Mode) -> Self {
        let recipients: &Recipients = match mode {
            Mode::Test => &config.notifications_test,
            Mode::Normal | Mode::Onboard | Mode::OnboardPush => &config.notifications,
        };
        let onboarding = match mode {
            Mode::Onboard | Mode::OnboardPush => true,
            Mode::Normal | Mode::Test => false,
        };
        let silent = config.services.iter().filter(|s| !s.notifications);
        Self {
            admins: notices.admin.clone().map_or_else(|| recipients.admin_email.clone(), |admin| vec![admin]),
            from: config.email.as_ref().map(|email| email.from.clone()),
            threshold: config.error_count_to_send_message,
            silent: silent.map(|s| Subject::new(s.name.as_str())).collect(),
            off: notices.off || onboarding,
            disabled: config.disable_notifications,
        }
    }

    fn mails(&self, state: &RunState, due: &[DueCounter]) -> Vec<OutboxEntry> {
        let session = u32::try_from(state.run.sessions.len()).unwrap_or(u32::MAX);
        match &self.from {
            Some(from) if !self.off => prepare(state, session, due, from, &self.admins),
            Some(_) | None => Vec::new(),
        }
    }

    /// Every error of the run, for a run that nobody counts: a test, one for accounts, or one that is not recorded.
    fn every_error(&self, state: &RunState) -> Vec<DueCounter> {
        if state.run.for_each == ForEach::Account {
            return if self.disabled { Vec::new() } else { account_reports::due(state) };
        }
        self.failed(state).map(|(machine, key)| due(machine, state, &key, 1, None)).collect()
    }

    fn failed<'a>(&'a self, state: &'a RunState) -> impl Iterator<Item = (&'a Machine, CounterKey)> + 'a {
        let machines = state.machines.values().filter(|m| !self.silent.contains(&m.subject));
        machines.flat_map(|machine| {
            let failed = verdicts(machine, &state.run.plan).into_iter().filter(|(_, v)| *v == Verdict::Failed);
            failed.map(move |(key, _)| (machine, key))
        })
    }

    /// For a run that is not recorded: what `machines_ended` does, in memory.
    pub fn prepare_in_memory(&self, event: &Event, state: &RunState, outbox: &MailsInMemory) {
        let ends = matches!(event.fact, Fact::MachineEnded { .. } | Fact::MachineSkipped { .. });
        if ends && all_ended(state) {
            *lock(&outbox.0) = self.mails(state, &self.every_error(state));
        }
    }
}

impl Epilogue for Reports {
    fn machines_ended(&self, tx: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError> {
        let run = state.run.id;
        let mut told = Vec::new();
        if state.run.for_each == ForEach::Account {
            // What an earlier session of the run has told is not told again.
            let mails = tx.scan_prefix::<OutboxEntry>(Shelf::Outbox, &run.to_string())?;
            let sent = mails.iter().filter(|(_, mail)| mail.status == OutboxStatus::Sent);
            let known: BTreeSet<_> = sent.flat_map(|(_, mail)| &mail.reports).map(|report| &report.counter).collect();
            told = self.every_error(state).into_iter().filter(|due| !known.contains(&due.key())).collect();
        } else if state.run.mode == Mode::Test {
            told = self.every_error(state);
        } else {
            for (machine, key) in self.failed(state) {
                let counter: Option<Counter> = tx.counter(&key.as_key())?;
                if let Some(counter) = counter.filter(|c| is_due(c, run, self.threshold)) {
                    told.push(due(machine, state, &key, counter.value, Some(&counter)));
                }
            }
        }
        let mails = self.mails(state, &told);
        if !mails.is_empty() {
            // What waits from earlier runs is due again, and told by these.
            for (key, waiting) in tx.scan_prefix::<OutboxEntry>(Shelf::Outbox, "")? {
                if waiting.status == OutboxStatus::Prepared && is_counted(tx, &waiting)? {
                    tx.remove(Shelf::Outbox, &key);
                }
            }
        }
        for mail in &mails {
            tx.put(Shelf::Outbox, &mail.key(), mail)?;
        }
        Ok(())
    }
}

/// Does a counter remember all that the mail tells? What happened once, such as a changed UID, is in no counter.
fn is_counted(tx: &Tx<'_>, mail: &OutboxEntry) -> Result<bool, StoreError> {
    for report in &mail.reports {
        if tx.counter::<Counter>(&report.counter.as_key())?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// What is told of one counter.
fn due(machine: &Machine, state: &RunState, key: &CounterKey, value: u32, counter: Option<&Counter>) -> DueCounter {
    let kind = if key.target.is_some() { Kind::Push } else { Kind::Setup };
    let found = failures(machine, state, key);
    let places: BTreeSet<&TargetName> = found.iter().map(|(target, ..)| *target).filter(|t| !t.is_only()).collect();
    let only_place = if places.len() == 1 { places.first().map(|t| (*t).clone()) } else { None };
    let last = found.last();
    DueCounter {
        subject: machine.subject.clone(),
        target: key.target.clone().or(only_place),
        value,
        kind,
        message: last.map_or_else(
            || "failed".to_owned(),
            |(_, step, failure)| match kind {
                Kind::Setup => format!("{step}: {}", failure.message),
                Kind::Push | Kind::News => failure.message.clone(),
            },
        ),
        next: last.and_then(|(.., failure)| failure.next.clone()),
        failing_runs: counter.map_or(1, |c| c.failing_runs),
        failing_since: counter.and_then(|c| c.failing_since),
    }
}

/// The last failures of what a counter counts, in the order of the steps.
fn failures<'a>(
    machine: &'a Machine,
    state: &RunState,
    key: &CounterKey,
) -> Vec<(&'a TargetName, String, &'a Failure)> {
    let counts = |name| state.run.plan.iter().find(|p| &p.name == name).map(|p| p.counts_as);
    let mut found = Vec::new();
    for step in &machine.steps {
        let here = match (counts(&step.name), &key.target) {
            (Some(CountsAs::Setup), None) | (Some(CountsAs::Push), Some(_)) => true,
            (Some(CountsAs::Setup | CountsAs::Push | CountsAs::Nothing) | None, _) => false,
        };
        let targets = step.targets.iter().filter(|t| here && t.status.is_failure());
        for target in targets.filter(|t| key.target.as_ref().is_none_or(|wanted| *wanted == t.name)) {
            let failure = target.attempts.iter().rev().find_map(|attempt| match &attempt.result {
                Some(AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. }) => Some(failure),
                Some(AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted) | None => None,
            });
            found.extend(failure.map(|failure| (&target.name, step.name.to_string(), failure)));
        }
    }
    found
}

/// The mails of a run that is not recorded.
#[derive(Debug, Default)]
pub struct MailsInMemory(Mutex<Vec<OutboxEntry>>);

/// The outbox of a session: in the store, or in memory once the store cannot be used.
pub struct SessionOutbox {
    store: Option<Store>,
    memory: std::sync::Arc<MailsInMemory>,
    is_dead: IsDead,
}

impl SessionOutbox {
    /// Over this store, and these mails where it cannot be used.
    pub fn new(store: Option<Store>, memory: std::sync::Arc<MailsInMemory>, is_dead: IsDead) -> Self {
        Self { store, memory, is_dead }
    }

    async fn mark(&self, entry: &OutboxEntry, status: OutboxStatus, at: Option<Timestamp>) -> Result<(), OutboxError> {
        let mut entry = OutboxEntry { status, sent_at: at, ..entry.clone() };
        let Some(store) = &self.store else {
            lock(&self.memory.0).iter_mut().filter(|e| e.key() == entry.key()).for_each(|e| *e = entry.clone());
            return Ok(());
        };
        let marked = store.write(move |tx| -> Result<(), StoreError> {
            let key = entry.key();
            if tx.get::<OutboxEntry>(Shelf::Outbox, &key)?.is_none() {
                return Ok(());
            }
            if status == OutboxStatus::Sent {
                for report in &entry.reports {
                    let key = report.counter.as_key();
                    if let Some(counter) = tx.counter::<Counter>(&key)? {
                        tx.put_counter(&key, &reported(&counter, entry.run, report.value))?;
                    }
                }
                // What was sent need not be kept in full.
                entry.body = String::new();
            }
            tx.put(Shelf::Outbox, &key, &entry)
        });
        match marked.await {
            Ok(()) => Ok(()),
            // The mail itself is what matters: it was prepared in memory, too.
            Err(error) => {
                tracing::error!(code = %error.code(), "cannot mark a mail in the outbox: {error}");
                Ok(())
            }
        }
    }
}

impl Outbox for SessionOutbox {
    fn pending(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>> {
        Box::pin(async move {
            let in_memory = || lock(&self.memory.0).clone();
            let Some(store) = self.store.clone() else { return Ok(in_memory()) };
            let is_dead = self.is_dead.clone();
            let found = store.read(move |view| waiting(view, run, &is_dead)).await.and_then(|found| found);
            Ok(found.unwrap_or_else(|error| {
                tracing::error!(code = %error.code(), "cannot read the outbox; what this run has to tell is told: {error}");
                in_memory()
            }))
        })
    }

    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(self.mark(entry, OutboxStatus::Sending, None))
    }

    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(self.mark(entry, OutboxStatus::Prepared, None))
    }

    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, at: Timestamp) -> BoxFuture<'a, Result<(), OutboxError>> {
        Box::pin(self.mark(entry, OutboxStatus::Sent, Some(at)))
    }
}

/// The run's mails that are not sent. One that another session was sending waits for that session's owner to be dead.
fn waiting(view: &View<'_>, run: RunId, is_dead: &IsDead) -> Result<Vec<OutboxEntry>, StoreError> {
    let record = view.run(run)?;
    let lives = |number: u32| {
        let record = record.as_ref()?;
        let open = open_session(record)?.number;
        let session = record.sessions.iter().find(|s| s.number == number)?;
        (number != open && !is_dead(session.by.process)).then_some(())
    };
    let all = view.scan_prefix::<OutboxEntry>(Shelf::Outbox, &run.to_string())?;
    Ok(all
        .into_iter()
        .map(|(_, entry)| entry)
        .filter(|entry| match entry.status {
            OutboxStatus::Prepared => true,
            OutboxStatus::Sending => lives(entry.session).is_none(),
            OutboxStatus::Sent => false,
        })
        .collect())
}

/// Who was told of the machines of a run that did not succeed.
pub fn told(
    view: &View<'_>,
    state: &RunState,
    counters: &BTreeMap<CounterKey, Counter>,
    threshold: Option<u32>,
) -> Result<BTreeMap<Subject, Told>, StoreError> {
    let mails = view.scan_prefix::<OutboxEntry>(Shelf::Outbox, &state.run.id.to_string())?;
    let mut told = BTreeMap::new();
    for machine in state.machines.values().filter(|m| m.status != MachineStatus::Succeeded) {
        let reports = mails.iter().flat_map(|(_, mail)| mail.reports.iter().map(move |r| (mail, r)));
        let mine = reports.filter(|(_, r)| r.counter.subject == machine.subject).max_by_key(|(_, r)| r.value);
        let of_run = |c: &&Counter| c.key.subject == machine.subject && c.run == state.run.id;
        let worst = counters.values().filter(of_run).map(|c| c.value).max().filter(|value| *value > 0);
        let word = match (mine, worst, threshold) {
            (Some((mail, report)), ..) => Some(match mail.status {
                OutboxStatus::Sent => Told::Sent { channel: "mail".to_owned(), row: report.value },
                OutboxStatus::Prepared | OutboxStatus::Sending => Told::Waiting,
            }),
            (None, Some(row), Some(limit)) if row < limit => Some(Told::BelowLimit { row, limit }),
            (None, _, _) => None,
        };
        told.extend(word.map(|word| (machine.subject.clone(), word)));
    }
    Ok(told)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Every change replaces a whole value.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
