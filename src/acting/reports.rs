//! Decides who is told what, in the transaction that ends the last machine of a run.
//!
//! - A counter at the threshold is told once: while a report of its row waits and no channel has taken it, it is not due.
//! - Every group has a message of its own. One that still waits with a report of the same row stands for the new one:
//!   however long a channel is down, a row waits in it once.
//! - What works again is told to those who were told that it did not. If that very message still waits, it gets a line.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::acting::addressees::Addressees;
use crate::acting::{account_reports, reasons};
use crate::config::Config;
use crate::notify::{
    Channel, DueCounter, Envelope, Group, Kind, News, OutboxEntry, OutboxStatus, Templates, Trouble, prepare,
};
use crate::notify::{words, words::again};
use crate::workflow::counters::{Counter, CounterKey, Verdict, is_due, mode_counts, recovery_told, verdicts};
use crate::workflow::definition::{ForEach, Mode};
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::Subject;
use crate::workflow::recorder::Epilogue;
use crate::workflow::recorder::Unrecorded;
use crate::workflow::run::{Machine, RunState};
use crate::workflow::status::MachineStatus;
use crate::workflow::store::{Shelf, StoreError, Tx};

/// See the module's documentation.
pub struct Reports {
    /// Who is told.
    pub to: Addressees,
    threshold: u32,
    templates: Templates,
}

/// A counter, and which row of its errors.
type Row = (CounterKey, Option<Timestamp>);

impl Reports {
    /// For a run to these addressees.
    pub fn new(config: &Config, to: Addressees) -> Self {
        Self { to, threshold: config.error_count_to_send_message, templates: Templates::load(&config.templates) }
    }

    /// What nobody counts is told at once: the errors of a test, and those of accounts.
    fn at_once(&self, state: &RunState) -> Option<Vec<DueCounter>> {
        match (state.run.mode, state.run.for_each) {
            (Mode::Test, _) | (_, ForEach::Account) => Some(self.every_error(state)),
            (Mode::Normal | Mode::Onboard | Mode::OnboardPush, ForEach::Service) => None,
        }
    }

    /// Every error of the run, for a run that nobody counts: a test, one for accounts, or one that is not recorded.
    fn every_error(&self, state: &RunState) -> Vec<DueCounter> {
        if state.run.for_each == ForEach::Account {
            return if self.to.disabled { Vec::new() } else { account_reports::due(state) };
        }
        self.with(state, Verdict::Failed).map(|(machine, key)| reasons::due(machine, state, &key, 1, None)).collect()
    }

    /// The counters of which the run says this.
    fn with<'a>(
        &'a self,
        state: &'a RunState,
        wanted: Verdict,
    ) -> impl Iterator<Item = (&'a Machine, CounterKey)> + 'a {
        let machines = state.machines.values().filter(|m| !self.to.is_silent(&m.subject));
        machines.flat_map(move |machine| {
            let found = verdicts(machine, &state.run.plan).into_iter().filter(move |(_, verdict)| *verdict == wanted);
            found.map(move |(key, _)| (machine, key))
        })
    }

    /// The message of a group, if there is anything to tell and somebody to tell it to.
    fn message(&self, state: &RunState, group: Group, news: &News, recorded: bool) -> Option<OutboxEntry> {
        let recipients = self.to.of(&group, state.run.mode == Mode::Test)?;
        let from = match group {
            Group::Slack => "",
            // Without a sender no mail is configured.
            Group::Admins | Group::Stakeholders(_) => self.to.from.as_deref()?,
        };
        let envelope = Envelope { group, from, recipients, templates: &self.templates };
        Some(prepare(state, &envelope, news, recorded))
    }

    /// Puts what went wrong in the run-wide steps of this session into the operators' messages. When those were prepared
    /// nobody could know of it.
    pub fn add_troubles(&self, tx: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError> {
        let troubles = troubles_of_the_run(state);
        if self.to.off || self.to.disabled || troubles.is_empty() {
            return Ok(());
        }
        let lines: Vec<String> = troubles.iter().map(words::trouble_line).collect();
        let news = News { troubles, due: Vec::new(), recovered: Vec::new() };
        for group in [Group::Admins, Group::Slack] {
            let Some(mut message) = self.message(state, group, &news, true) else { continue };
            match tx.get::<OutboxEntry>(Shelf::Outbox, &message.key())? {
                None => {}
                Some(kept) if kept.status == OutboxStatus::Prepared => {
                    let subject = match kept.channel {
                        Channel::Mail => format!("{}; an error outside them", kept.subject),
                        Channel::Slack => String::new(),
                    };
                    message = OutboxEntry { subject, body: format!("{}\n\n{}", lines.join("\n"), kept.body), ..kept };
                }
                // It went out as it was.
                Some(_) => continue,
            }
            tx.put(Shelf::Outbox, &message.key(), &message)?;
        }
        Ok(())
    }

    /// The messages of a run that is not recorded: its counters being unknown, the operators get every error.
    pub fn unrecorded(&self, state: &RunState, trouble: Trouble) -> Vec<OutboxEntry> {
        if self.to.off {
            return Vec::new();
        }
        let mut troubles = vec![trouble];
        troubles.extend(troubles_of_the_run(state));
        let news = News { troubles, due: self.every_error(state), recovered: Vec::new() };
        [Group::Admins, Group::Slack].into_iter().filter_map(|group| self.message(state, group, &news, false)).collect()
    }

    /// What is due of a run that counts.
    fn due(&self, tx: &Tx<'_>, state: &RunState, waiting: &[OutboxEntry]) -> Result<Vec<DueCounter>, StoreError> {
        let unsettled = waiting.iter().flat_map(|entry| &entry.reports).filter(|report| !report.settled);
        let unsettled: BTreeSet<Row> = unsettled.map(|report| report.row()).collect();
        let mut due = Vec::new();
        for (machine, key) in self.with(state, Verdict::Failed) {
            let counter: Option<Counter> = tx.counter(&key.as_key())?;
            if let Some(counter) = counter.filter(|c| is_due(c, state.run.id, self.threshold)) {
                let one = reasons::due(machine, state, &key, counter.value, Some(&counter));
                if !unsettled.contains(&(key, counter.failing_since)) {
                    due.push(one);
                }
            }
        }
        Ok(due)
    }

    /// What works again in this run: `true` where somebody has been told that it did not.
    fn recovered(
        &self,
        tx: &Tx<'_>,
        state: &RunState,
        waiting: &[OutboxEntry],
    ) -> Result<BTreeMap<CounterKey, bool>, StoreError> {
        let reported: BTreeSet<&CounterKey> =
            waiting.iter().flat_map(|entry| &entry.reports).map(|report| &report.counter).collect();
        let mut recovered = BTreeMap::new();
        for (_, key) in self.with(state, Verdict::Succeeded) {
            let counter: Option<Counter> = tx.counter(&key.as_key())?;
            let known = counter.is_some_and(|counter| counter.recovered_by.is_some());
            if known || reported.contains(&key) {
                recovered.insert(key, known);
            }
        }
        Ok(recovered)
    }

    /// Puts a line into the messages that still wait to say that these do not work. Gives what each group has so been told.
    fn amend(
        tx: &mut Tx<'_>,
        waiting: &[OutboxEntry],
        recovered: &BTreeMap<CounterKey, bool>,
    ) -> Result<BTreeSet<(String, CounterKey)>, StoreError> {
        let mut amended = BTreeSet::new();
        for entry in waiting {
            let over = entry.reports.iter().map(|report| &report.counter).filter(|key| recovered.contains_key(*key));
            let over: BTreeSet<&CounterKey> = over.collect();
            let lines: Vec<String> = over.iter().map(|key| again(key)).collect();
            let new: Vec<String> = lines.into_iter().filter(|line| !entry.since_then.contains(line)).collect();
            amended.extend(over.into_iter().map(|key| (entry.group.clone(), key.clone())));
            if !new.is_empty() {
                let mut entry = entry.clone();
                entry.since_then.extend(new);
                tx.put(Shelf::Outbox, &entry.key(), &entry)?;
            }
        }
        Ok(amended)
    }

    fn groups(&self, state: &RunState) -> Vec<Group> {
        let operators = [Group::Admins, Group::Slack].into_iter();
        if !mode_counts(state.run.mode) || state.run.for_each != ForEach::Service {
            return operators.collect();
        }
        operators.chain(state.machines.keys().cloned().map(Group::Stakeholders)).collect()
    }
}

/// The part of the news that a group is told.
fn for_group(group: &Group, news: &News) -> News {
    match group {
        Group::Admins | Group::Slack => news.clone(),
        Group::Stakeholders(service) => {
            let is_theirs = |subject: &Subject, is_push: bool| subject == service && is_push;
            News {
                troubles: Vec::new(),
                due: news.due.iter().filter(|d| is_theirs(&d.subject, d.kind == Kind::Push)).cloned().collect(),
                recovered: news
                    .recovered
                    .iter()
                    .filter(|k| is_theirs(&k.subject, k.target.is_some()))
                    .cloned()
                    .collect(),
            }
        }
    }
}

impl Epilogue for Reports {
    fn machines_ended(&self, tx: &mut Tx<'_>, state: &RunState) -> Result<(), StoreError> {
        if self.to.off {
            return Ok(());
        }
        let run = state.run.id;
        let kept = tx.scan_prefix::<OutboxEntry>(Shelf::Outbox, "")?.into_iter().map(|(_, entry)| entry);
        let test = state.run.mode == Mode::Test;
        let (of_run, others): (Vec<_>, Vec<_>) =
            kept.filter(|entry| entry.test == test).partition(|entry| entry.run == run);
        let waits = |entry: &&OutboxEntry| entry.status != OutboxStatus::Sent;
        let waiting: Vec<OutboxEntry> = of_run.iter().chain(&others).filter(waits).cloned().collect();

        let at_once = self.at_once(state);
        let counts = at_once.is_none();
        let due = match at_once {
            Some(errors) => errors,
            None => self.due(tx, state, &waiting)?,
        };
        let recovered = if counts { self.recovered(tx, state, &waiting)? } else { BTreeMap::new() };
        let amended = Self::amend(tx, &waiting, &recovered)?;
        let known = recovered.iter().filter(|(_, known)| **known).map(|(key, _)| key.clone());
        let all = News { troubles: Vec::new(), due, recovered: known.collect() };

        for group in self.groups(state) {
            let name = group.name();
            let mut news = for_group(&group, &all);
            // A run that was resumed has told some of it, and some still waits.
            let told = if counts { &waiting } else { &of_run };
            let told: BTreeSet<Row> =
                told.iter().filter(|entry| entry.group == name).flat_map(|e| &e.reports).map(|r| r.row()).collect();
            news.due.retain(|one| !told.contains(&(one.key(), one.failing_since)));
            news.recovered.retain(|key| !amended.contains(&(name.clone(), key.clone())));
            let went_well = group == Group::Slack && is_good_test(state) && of_run.is_empty();
            if (!news.is_empty() || went_well)
                && let Some(message) = self.message(state, group, &news, true)
            {
                tx.put(Shelf::Outbox, &message.key(), &message)?;
            }
        }
        for key in all.recovered {
            if let Some(counter) = tx.counter::<Counter>(&key.as_key())? {
                tx.put_counter(&key.as_key(), &recovery_told(&counter))?;
            }
        }
        Ok(())
    }
}

/// Why the run-wide steps of this session failed that have ended by now: the step that asks has not.
fn troubles_of_the_run(state: &RunState) -> Vec<Trouble> {
    let session = state.run.sessions.last().map(|session| session.number);
    let targets = state.run.steps.iter().flat_map(|step| step.targets.iter().map(move |target| (&step.name, target)));
    let failed = targets.filter(|(_, target)| target.status.is_failure());
    let last = failed.filter_map(|(step, target)| Some((step, target.attempts.last()?)));
    last.filter(|(_, attempt)| Some(attempt.session) == session)
        .filter_map(|(step, attempt)| match attempt.result.as_ref()? {
            AttemptOutcome::Failed(failure) | AttemptOutcome::Stale { failure, .. } => Some(Trouble {
                code: failure.code,
                message: format!("{step}: {}", failure.message),
                next: failure.next.clone(),
            }),
            AttemptOutcome::Succeeded(_) | AttemptOutcome::Interrupted => None,
        })
        .collect()
}

/// A test in which every service succeeded.
fn is_good_test(state: &RunState) -> bool {
    state.run.mode == Mode::Test && state.machines.values().all(|machine| machine.status == MachineStatus::Succeeded)
}

/// The trouble that a run has with the store.
pub fn store_trouble(unrecorded: &Unrecorded) -> Trouble {
    let why = words::one_line(&unrecorded.why);
    Trouble {
        code: unrecorded.code,
        message: format!("the store cannot be used; the work was done and is not recorded: {why}"),
        next: Some("mt store verify".to_owned()),
    }
}
