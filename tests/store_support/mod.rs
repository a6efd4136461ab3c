//! Values and directories for the tests of the store.
#![allow(dead_code, reason = "every test file uses a part")]

use std::collections::BTreeMap;
use std::path::Path;

use jiff::{SignedDuration, Timestamp};
use managed_tokens::workflow::definition::{ForEach, Mode};
use managed_tokens::workflow::event::{Event, Fact, Selection};
use managed_tokens::workflow::id::{RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::run::{Machine, Run, Session};
use managed_tokens::workflow::status::{MachineStatus, RunStatus};
use managed_tokens::workflow::store::{Access, StateDir, Store, StoreError};
use tempfile::TempDir;
use ulid::Ulid;

use self::session::session_started;

#[path = "../support/session.rs"]
mod session;

pub fn state() -> (TempDir, StateDir) {
    let tmp = tempfile::tempdir().unwrap();
    let state = StateDir::create(tmp.path().join("state")).unwrap();
    (tmp, state)
}

pub fn writer(state: &StateDir) -> Store {
    Store::open(state, Access::ReadWrite).unwrap()
}

pub fn reader(state: &StateDir) -> Store {
    Store::open(state, Access::ReadOnly).unwrap()
}

pub fn id(ms: u64, random: u128) -> RunId {
    RunId(Ulid::from_parts(ms, random))
}

/// A run that began and ended `age` ago.
pub fn run(id: RunId, status: RunStatus, age: SignedDuration) -> Run {
    let at = Timestamp::now() - age;
    let by = session_started();
    let over = status != RunStatus::Running;
    Run {
        id,
        workflow: WorkflowName::new("token-push"),
        definition: "none".to_owned(),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        status,
        started_at: at,
        ended_at: over.then_some(at),
        sessions: vec![Session { number: 1, by, started_at: at, ended_at: over.then_some(at), end: None }],
        tally: BTreeMap::from([(MachineStatus::Succeeded, 48), (MachineStatus::TimedOut, 2)]),
        plan: Vec::new(),
        steps: Vec::new(),
        superseded_by: None,
        events: 0,
    }
}

pub fn fresh(id: RunId) -> Run {
    run(id, RunStatus::Running, SignedDuration::ZERO)
}

pub fn machine(subject: &str) -> Machine {
    Machine {
        subject: Subject::new(subject),
        status: MachineStatus::Pending,
        started_at: None,
        ended_at: None,
        steps: Vec::new(),
        other_run: None,
    }
}

pub fn event(seq: u64) -> Event {
    let fact = Fact::AttemptStarted {
        subject: Some(Subject::new("dune_production")),
        step: StepName::new("push"),
        target: TargetName::new("node1"),
        number: 1,
    };
    Event { seq, at: Timestamp::now(), session: 1, fact }
}

/// A counter raised by one: what it was before.
pub fn raise(store: &Store, key: &'static str) -> Result<u64, StoreError> {
    store.write_blocking(move |tx| {
        let before = tx.counter::<u64>(key)?.unwrap_or(0);
        tx.put_counter(key, &(before + 1))?;
        Ok::<_, StoreError>(before)
    })
}

pub fn counter(store: &Store, key: &'static str) -> u64 {
    store.read_blocking(move |view| view.counter(key)).unwrap().unwrap().unwrap_or(0)
}

/// Every file below a directory with its content.
pub fn content(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(content(&path));
        } else {
            found.insert(path.display().to_string(), std::fs::read(&path).unwrap());
        }
    }
    found
}
