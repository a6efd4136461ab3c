//! Runs of the past, as consistent as those that `mt` leaves.

use jiff::Timestamp;
use managed_tokens::workflow::action::Success;
use managed_tokens::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use managed_tokens::workflow::event::{
    AttemptOutcome, Event, Fact, MachineEnd, PlannedStep, RunCreated, Selection, SessionEnd, SessionStarted,
};
use managed_tokens::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::store::{Store, StoreError, hash_of_definition};

/// The definition of every run here.
pub const DEFINITION: &str = "Workflow(name: \"token-push\")";

/// A run that is over: one step for one node, for so many services. Six events a service, and three.
pub fn run(id: RunId, services: usize) -> (RunState, Vec<Event>) {
    let (at, push, node) = (Timestamp::now(), StepName::new("push"), TargetName::new("node01.example.org"));
    let subjects: Vec<Subject> = (0..services).map(|n| Subject::new(format!("exp{n:03}_production"))).collect();
    let by = SessionStarted {
        process: ProcessId::generate(),
        host: "mt01".to_owned(),
        boot_id: "b".to_owned(),
        pid: 1,
        start_ticks: None,
        trigger: "cron".to_owned(),
        trace: None,
    };
    let plan = PlannedStep {
        name: push.clone(),
        action: "Push".to_owned(),
        per: Per::Node,
        counts_as: CountsAs::Push,
        on_failure: OnFailure::Continue,
    };
    let mut facts = vec![
        Fact::RunCreated(RunCreated {
            id,
            workflow: WorkflowName::new("token-push"),
            definition: hash_of_definition(DEFINITION),
            for_each: ForEach::Service,
            mode: Mode::Normal,
            selection: Selection::default(),
            subjects: subjects.clone(),
            steps: vec![plan],
            finally: Vec::new(),
        }),
        Fact::SessionStarted(by),
    ];
    for subject in subjects {
        let of = Some(subject.clone());
        let outcome = AttemptOutcome::Succeeded(Success { detail: None, note: Some("as ever".to_owned()) });
        facts.extend([
            Fact::MachineStarted { subject: subject.clone() },
            Fact::StepStarted { subject: of.clone(), step: push.clone(), targets: vec![node.clone()] },
            Fact::AttemptStarted { subject: of.clone(), step: push.clone(), target: node.clone(), number: 1 },
            Fact::AttemptEnded { subject: of, step: push.clone(), target: node.clone(), outcome, retry: false },
            Fact::MachineEnded { subject, how: MachineEnd::Done },
        ]);
    }
    facts.push(Fact::SessionEnded { how: SessionEnd::Finished });
    let events: Vec<Event> =
        (0..).zip(facts).map(|(seq, fact)| Event { seq, at, session: u32::from(seq > 0), fact }).collect();
    let state = RunState::fold(&events).expect("a history that makes sense").expect("with a beginning");
    (state, events)
}

/// Puts runs into the store, many a transaction; the n-th has this id.
pub fn fill(store: &Store, runs: std::ops::Range<u64>, services: usize, id: fn(u64) -> RunId) {
    let all: Vec<u64> = runs.collect();
    for some in all.chunks(50) {
        let some = some.to_vec();
        let put = store.write_blocking(move |tx| -> Result<(), StoreError> {
            tx.put_definition(DEFINITION)?;
            for n in some {
                let (state, events) = run(id(n), services);
                tx.put_run(&state.run)?;
                state.machines.values().try_for_each(|machine| tx.put_machine(state.run.id, machine))?;
                events.iter().try_for_each(|event| tx.append_event(state.run.id, event))?;
            }
            Ok(())
        });
        put.expect("the store takes them");
    }
}

/// Puts one run into the store, if it is not there yet.
#[allow(dead_code, reason = "not every user needs it")]
pub fn fill_new(store: &Store, n: u64, id: fn(u64) -> RunId) {
    if store.read_blocking(move |view| view.run(id(n))).expect("open").expect("readable").is_none() {
        fill(store, n..n + 1, 3, id);
    }
}
