//! What must be true after a round, whoever was shot.
//!
//! Two records are compared: the store's, and the one that the children write themselves, line after line into one file.
//! A line that a child has written was preceded by what the engine promises: its intent was durable, its service was held
//! by its process alone, and no session before it had recorded its success.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use managed_tokens::notify::{Channel, OutboxEntry, OutboxStatus, Report};
use managed_tokens::workflow::counters::{Counter, CounterKey, Verdict, count, mode_counts, reported, verdicts};
use managed_tokens::workflow::event::{AttemptOutcome, Event, Fact};
use managed_tokens::workflow::id::{ProcessId, RunId};
use managed_tokens::workflow::run::{Run, RunState};
use managed_tokens::workflow::session::load;
use managed_tokens::workflow::store::{Access, Shelf, StateDir, Store};

use crate::support::lab::Mail;

/// More runs than a site has.
const ALL: usize = 100_000;

/// What was looked at for the first time.
pub struct Found {
    pub runs: usize,
    pub children: usize,
    pub events: usize,
    pub messages: usize,
}

/// See the module's documentation.
pub struct Oracle {
    lines: PathBuf,
    /// Lines of rounds in which somebody went on without the store: nothing can be compared with them.
    exempt: BTreeSet<usize>,
    seen: Found,
    seen_lines: usize,
}

/// A run as the store has it.
struct Record {
    run: Run,
    events: Vec<Event>,
}

/// A child's word.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Line {
    what: What,
    run: String,
    process: ProcessId,
    service: String,
    step: String,
    target: String,
    pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Begin,
    Alive,
    End,
}

/// Run, process, service, step, target.
type Place = (String, ProcessId, String, String, String);

impl Line {
    fn place(&self) -> Place {
        (self.run.clone(), self.process, self.service.clone(), self.step.clone(), self.target.clone())
    }
}

impl Oracle {
    pub fn new(lines: PathBuf) -> Self {
        let seen = Found { runs: 0, children: 0, events: 0, messages: 0 };
        Self { lines, exempt: BTreeSet::new(), seen, seen_lines: 0 }
    }

    /// Looks at everything. Nobody works there now. `recorded`: the store took all that happened in this round.
    pub fn check(&mut self, state: &Path, mails: &[Mail], recorded: bool) -> Found {
        let text = fs::read_to_string(&self.lines).unwrap_or_default();
        let lines: Vec<Line> = text.lines().map(parse).collect();
        if !recorded {
            self.exempt.extend(self.seen_lines..lines.len());
        }
        self.seen_lines = lines.len();
        let Stored { records, counters, outbox } = read(state);

        for record in &records {
            assert_history(record);
        }
        assert_one_owner(&lines);
        let counted: Vec<Line> =
            lines.iter().enumerate().filter(|(n, _)| !self.exempt.contains(n)).map(|(_, line)| line.clone()).collect();
        assert_intents(&records, &counted);
        assert_successes(&records, &lines);
        let sent: Vec<&OutboxEntry> = outbox.iter().filter(|entry| entry.status == OutboxStatus::Sent).collect();
        assert_counters(&records, &sent, &counters);
        assert_mails(&sent, mails);

        let now = Found {
            runs: records.len(),
            children: lines.iter().filter(|line| line.what == What::Begin).count(),
            events: records.iter().map(|record| record.events.len()).sum(),
            messages: sent.len(),
        };
        let new = Found {
            runs: now.runs - self.seen.runs,
            children: now.children - self.seen.children,
            events: now.events - self.seen.events,
            messages: now.messages - self.seen.messages,
        };
        self.seen = now;
        new
    }
}

fn parse(line: &str) -> Line {
    let words: Vec<&str> = line.split(' ').collect();
    let [what, run, process, service, step, target, pid] = words[..] else { panic!("half a line: {line:?}") };
    let what = match what {
        "begin" => What::Begin,
        "alive" => What::Alive,
        "end" => What::End,
        other => panic!("{other}"),
    };
    Line {
        what,
        run: run.to_owned(),
        process: process.parse().expect("the mark"),
        service: service.to_owned(),
        step: step.to_owned(),
        target: target.to_owned(),
        pid: pid.parse().expect("a pid"),
    }
}

/// Everything in the store.
struct Stored {
    records: Vec<Record>,
    counters: BTreeMap<String, Counter>,
    outbox: Vec<OutboxEntry>,
}

/// Read from a copy: the store itself belongs to the client account.
fn read(state: &Path) -> Stored {
    let copy = tempfile::tempdir().expect("a directory");
    let to = copy.path().join("state");
    copy_below(state, &to);
    let state = StateDir::existing(&to).expect("a state directory");
    let store = Store::open(&state, Access::ReadOnly).expect("shots do not spoil the store");
    let read = store.read_blocking(|view| {
        let runs = view.newest_runs(ALL).expect("runs can be read");
        let records = runs.into_iter().rev().map(|run| {
            let events = view.events(run.id).expect("events can be read");
            let state = load(view, run.id).expect("records can be read").expect("there is a run");
            let folded = RunState::fold(&events).expect("a legal history").expect("a run");
            assert_eq!(folded, state, "status = fold of the events");
            Record { run, events }
        });
        let records: Vec<Record> = records.collect();
        let counters = view.counters::<Counter>("").expect("counters can be read");
        let outbox = view.scan_prefix(Shelf::Outbox, "").expect("the outbox can be read");
        let outbox = outbox.into_iter().map(|(_, entry)| entry).collect();
        Stored { records, counters: counters.into_iter().collect(), outbox }
    });
    store.close();
    read.expect("the store can be read")
}

fn copy_below(from: &Path, to: &Path) {
    fs::create_dir(to).expect("a new directory");
    for entry in fs::read_dir(from).expect("it can be read").flatten() {
        let (path, to) = (entry.path(), to.join(entry.file_name()));
        if path.is_dir() {
            copy_below(&path, &to);
        } else {
            fs::copy(&path, &to).expect("it can be copied");
        }
    }
}

/// No gap, and as many events as the run's record says.
fn assert_history(record: &Record) {
    let seqs: Vec<u64> = record.events.iter().map(|event| event.seq).collect();
    assert_eq!(seqs, (0..record.run.events).collect::<Vec<_>>(), "a gap in the history of {}", record.run.id);
}

/// While a child of one process lives, no other process begins to work on its service.
fn assert_one_owner(lines: &[Line]) {
    // By service: the children that have begun, and what has begun since by another process.
    let mut began: BTreeMap<(ProcessId, u32, Place), usize> = BTreeMap::new();
    let mut begins: BTreeMap<&str, Vec<(usize, ProcessId)>> = BTreeMap::new();
    for (n, line) in lines.iter().enumerate() {
        let child = (line.process, line.pid, line.place());
        match line.what {
            What::Begin => {
                began.insert(child, n);
                begins.entry(&line.service).or_default().push((n, line.process));
            }
            What::Alive | What::End => {
                let since = began[&child];
                let others = begins[line.service.as_str()].iter().rev().take_while(|(at, _)| *at > since);
                for (at, process) in others {
                    assert_eq!(
                        *process, line.process,
                        "two owners of a service: {:?} while this lived: {line:?}",
                        lines[*at]
                    );
                }
            }
        }
    }
}

/// The number of the session that this process had in the run.
fn session(run: &Run, process: ProcessId) -> Option<u32> {
    run.sessions.iter().find(|session| session.by.process == process).map(|session| session.number)
}

/// Whoever began had been announced: acknowledged events are present. As many tries as children, or more.
fn assert_intents(records: &[Record], lines: &[Line]) {
    let runs: BTreeMap<String, &Record> = records.iter().map(|record| (record.run.id.to_string(), record)).collect();
    let mut began: BTreeMap<Place, usize> = BTreeMap::new();
    for line in lines.iter().filter(|line| line.what == What::Begin) {
        *began.entry(line.place()).or_default() += 1;
    }
    for ((run, process, service, step, target), children) in began {
        let record = runs.get(&run).unwrap_or_else(|| panic!("a child of run {run}, which is lost"));
        let number = session(&record.run, process).unwrap_or_else(|| panic!("session {process} of {run} is lost"));
        let announced = record.events.iter().filter(|event| {
            let fits = |s: &Option<_>, at: &_, on: &_| {
                s.as_ref().is_some_and(|s: &managed_tokens::workflow::id::Subject| s.as_str() == service)
                    && *at == step
                    && *on == target
            };
            event.session == number
                && matches!(&event.fact, Fact::AttemptStarted { subject, step, target, .. }
                    if fits(subject, &step.to_string(), &target.to_string()))
        });
        let announced = announced.count();
        assert!(announced >= children, "{children} children, {announced} intents: {run} {service} {step} {target}");
    }
}

/// A success has a child that came to its end, once; and nobody did it again in a later session.
fn assert_successes(records: &[Record], lines: &[Line]) {
    let mut begun: BTreeSet<Place> = BTreeSet::new();
    let mut ended: BTreeSet<Place> = BTreeSet::new();
    for line in lines {
        match line.what {
            What::Begin => drop(begun.insert(line.place())),
            What::End => drop(ended.insert(line.place())),
            What::Alive => {}
        }
    }
    for record in records {
        for event in &record.events {
            let Fact::AttemptEnded {
                subject: Some(subject), step, target, outcome: AttemptOutcome::Succeeded(_), ..
            } = &event.fact
            else {
                continue;
            };
            if step.as_str() == "kinit" {
                continue;
            }
            let place = |process| -> Place {
                (record.run.id.to_string(), process, subject.to_string(), step.to_string(), target.to_string())
            };
            for session in &record.run.sessions {
                let place = place(session.by.process);
                if session.number == event.session {
                    assert!(ended.contains(&place), "a success that no child had: {place:?}");
                } else if session.number > event.session {
                    assert!(!begun.contains(&place), "done again: {place:?}");
                }
            }
        }
    }
}

/// What changes a counter.
enum Change {
    Ended(RunId, Verdict),
    Told(RunId, Report),
}

/// The counters are what the machines' ends amount to, in the order in which they came, less what was told. A service has one
/// owner, so the ends of its machines have one order. When a message was taken in between does not matter to what is compared.
fn assert_counters(records: &[Record], sent: &[&OutboxEntry], stored: &BTreeMap<String, Counter>) {
    let mut changes: Vec<(Timestamp, CounterKey, Change)> = Vec::new();
    for record in records.iter().filter(|record| mode_counts(record.run.mode)) {
        let (first, rest) = record.events.split_first().expect("a run begins with an event");
        let mut state = RunState::begin(first).expect("it makes the run");
        for event in rest {
            state.apply(event).expect("it was folded before");
            if let Fact::MachineEnded { subject, .. } = &event.fact {
                let verdicts = verdicts(&state.machines[subject], &record.run.plan).into_iter();
                changes.extend(verdicts.map(|(key, verdict)| (event.at, key, Change::Ended(record.run.id, verdict))));
            }
        }
    }
    // The messages of a run to several people tell the same, which counts once: when the first was taken.
    let mut sent: Vec<_> = sent.iter().map(|entry| (entry.sent_at.expect("when it was sent"), entry)).collect();
    sent.sort_by_key(|(at, _)| *at);
    let mut told = BTreeSet::new();
    for (at, entry) in sent {
        for report in &entry.reports {
            assert!(report.settled, "it was taken and not subtracted: {entry:?}");
            if told.insert((entry.run, report.row())) {
                changes.push((at, report.counter.clone(), Change::Told(entry.run, report.clone())));
            }
        }
    }
    changes.sort_by_key(|(at, ..)| *at);
    let mut counters: BTreeMap<String, Counter> = BTreeMap::new();
    for (at, key, change) in changes {
        let name = key.as_key();
        let before = counters.get(&name);
        let after = match change {
            Change::Ended(run, verdict) => count(before, &key, run, verdict, at),
            Change::Told(run, report) => before.map(|before| reported(before, run, report.value, report.since)),
        };
        if let Some(after) = after {
            counters.insert(name, after);
        }
    }
    let compared = |counters: &BTreeMap<String, Counter>| -> BTreeMap<String, _> {
        let compared = |c: &Counter| (c.value, c.run, c.failing_runs, c.failing_since);
        counters.iter().map(|(name, counter)| (name.clone(), compared(counter))).collect()
    };
    assert_eq!(compared(stored), compared(&counters), "counters = fold of the outcomes");
}

/// What is marked as sent has arrived, and once, unless the others say that they may be repeats.
fn assert_mails(sent: &[&OutboxEntry], mails: &[Mail]) {
    for entry in sent.iter().filter(|entry| entry.channel == Channel::Mail) {
        let arrived: Vec<&Mail> = mails.iter().filter(|mail| mail.text.contains(&entry.message_id)).collect();
        let repeats = arrived.iter().filter(|mail| mail.text.contains("possibly a repeat")).count();
        assert!(!arrived.is_empty(), "marked as sent, and never arrived: {entry:?}");
        assert!(arrived.len() <= 1 + repeats, "{} arrived, {repeats} say that: {entry:?}", arrived.len());
    }
}
