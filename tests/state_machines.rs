//! The pure core: status = fold of events, illegal events are errors, and the page that draws the machines is true.

use jiff::Timestamp;
use managed_tokens::workflow::action::{Class, Failure, Success};
use managed_tokens::workflow::code::Code;
use managed_tokens::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use managed_tokens::workflow::diagram;
use managed_tokens::workflow::event::{
    AttemptOutcome, Event, Fact, MachineEnd, PlannedStep, RunCreated, Selection, SessionEnd,
};
use managed_tokens::workflow::id::{RunId, StepName, Subject, TargetName, WorkflowName};
use managed_tokens::workflow::machine::{aggregate, run_outcome};
use managed_tokens::workflow::run::RunState;
use managed_tokens::workflow::status::{MachineStatus, RunStatus, StepStatus};
use proptest::prelude::*;
use session::session_started;

#[path = "support/session.rs"]
mod session;

const SUBJECTS: [&str; 2] = ["dune_production", "mu2e_production"];
const STEPS: [&str; 2] = ["kinit", "push"];
const TARGETS: [&str; 3] = ["-", "node1", "node2"];

fn created() -> Fact {
    let step = |name: &str, per| PlannedStep {
        name: StepName::new(name),
        action: "Toy".to_owned(),
        per,
        counts_as: CountsAs::Setup,
        on_failure: OnFailure::Stop,
    };
    Fact::RunCreated(RunCreated {
        id: RunId::generate(),
        workflow: WorkflowName::new("toy"),
        definition: "0".to_owned(),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        subjects: SUBJECTS.iter().map(|s| Subject::new(*s)).collect(),
        steps: vec![step(STEPS[0], Per::Subject), step(STEPS[1], Per::Node)],
        finally: vec![step("notify", Per::Subject)],
    })
}

fn session() -> Fact {
    Fact::SessionStarted(session_started())
}

fn failure(class: Class) -> Failure {
    Failure::new(class, Code(1), "it failed")
}

/// Any fact at all, legal or not.
fn any_fact() -> impl Strategy<Value = Fact> {
    let subject = prop::sample::select(&SUBJECTS[..]).prop_map(Subject::new);
    let place = (prop::option::weighted(0.9, subject.clone()), prop::sample::select(&["kinit", "push", "notify"][..]))
        .prop_map(|(s, step)| (s, StepName::new(step)));
    let target = prop::sample::select(&TARGETS[..]).prop_map(TargetName::new);
    let outcome = prop_oneof![
        4 => Just(AttemptOutcome::Succeeded(Success::default())),
        1 => Just(AttemptOutcome::Interrupted),
        1 => Just(AttemptOutcome::Stale { success: Success::default(), failure: failure(Class::Transient) }),
        3 => prop::sample::select(Class::ALL).prop_map(|c| AttemptOutcome::Failed(failure(c))),
    ];
    let end = prop::sample::select(
        &[SessionEnd::Finished, SessionEnd::Interrupted, SessionEnd::Cancelled, SessionEnd::Lost][..],
    );
    let how = prop::sample::select(&[MachineEnd::Done, MachineEnd::Deadline][..]);
    prop_oneof![
        2 => Just(session()),
        2 => end.prop_map(|how| Fact::SessionEnded { how }),
        6 => subject.clone().prop_map(|subject| Fact::MachineStarted { subject }),
        6 => (subject.clone(), how).prop_map(|(subject, how)| Fact::MachineEnded { subject, how }),
        1 => subject.clone().prop_map(|subject| Fact::MachineSkipped { subject, held_by: None }),
        1 => subject.clone().prop_map(|subject| Fact::MachineGone { subject }),
        1 => subject.prop_map(|subject| Fact::MachineSuperseded { subject, by: RunId::generate() }),
        12 => (place.clone(), prop::collection::vec(target.clone(), 0..3))
            .prop_map(|((subject, step), targets)| Fact::StepStarted { subject, step, targets }),
        3 => place.clone().prop_map(|(subject, step)| Fact::StepSkipped { subject, step, why: "mode".into() }),
        3 => place.clone().prop_map(|(subject, step)| Fact::StepNotAttempted { subject, step, why: "stop".into() }),
        3 => place.clone().prop_map(|(subject, step)| Fact::StepCut { subject, step }),
        2 => (place.clone(), target.clone()).prop_map(|((subject, step), target)| Fact::TargetGone { subject, step, target }),
        20 => (place.clone(), target.clone(), 1..4_u32)
            .prop_map(|((subject, step), target, number)| Fact::AttemptStarted { subject, step, target, number }),
        20 => (place, target, outcome, any::<bool>()).prop_map(|((subject, step), target, outcome, retry)| {
            Fact::AttemptEnded { subject, step, target, outcome, retry }
        }),
        1 => Just(Fact::RunCancelled),
        1 => Just(Fact::RunSuperseded { by: RunId::generate() }),
        1 => Just(created()),
    ]
}

fn event(state: &RunState, fact: Fact) -> Event {
    let sessions = u32::try_from(state.run.sessions.len()).unwrap();
    let session = if matches!(fact, Fact::SessionStarted(_)) { sessions + 1 } else { sessions };
    Event { seq: state.run.events, at: Timestamp::UNIX_EPOCH, session, fact }
}

fn begin() -> (RunState, Vec<Event>) {
    let first = Event { seq: 0, at: Timestamp::UNIX_EPOCH, session: 0, fact: created() };
    let mut state = RunState::begin(&first).unwrap();
    let second = event(&state, session());
    state.apply(&second).unwrap();
    (state, vec![first, second])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn status_is_the_fold_of_the_events_and_a_refused_event_changes_nothing(facts in prop::collection::vec(any_fact(), 0..250)) {
        let (mut state, mut history) = begin();
        let mut refused = 0;
        for fact in facts {
            let event = event(&state, fact);
            let before = state.clone();
            match state.apply(&event) {
                Ok(_) => history.push(event),
                Err(_) => {
                    refused += 1;
                    prop_assert_eq!(&state, &before);
                }
            }
        }
        let folded = RunState::fold(&history).unwrap().unwrap();
        prop_assert_eq!(&folded, &state);
        // The history reads the same after a trip through the store's encoding.
        let text = serde_json::to_string(&history).unwrap();
        let read: Vec<Event> = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&RunState::fold(&read).unwrap().unwrap(), &state);
        prop_assert_eq!(state.run.events, history.len() as u64);
        let _ = refused;
    }

    #[test]
    fn derived_statuses_agree_with_what_they_are_derived_from(facts in prop::collection::vec(any_fact(), 0..250)) {
        let (mut state, _) = begin();
        for fact in facts {
            let event = event(&state, fact);
            let _ = state.apply(&event);
        }
        let open = state.run.sessions.last().is_some_and(|s| s.end.is_none());
        for machine in state.machines.values() {
            for step in &machine.steps {
                if let Some(outcome) = aggregate(step.targets.iter().map(|t| t.status))
                    && !step.targets.is_empty()
                    && !matches!(step.status, StepStatus::Pending | StepStatus::NotAttempted | StepStatus::Skipped)
                {
                    prop_assert_eq!(step.status, outcome);
                }
                if step.status == StepStatus::Running {
                    prop_assert_eq!(machine.status, MachineStatus::Running);
                }
            }
            prop_assert!(machine.status != MachineStatus::Running || open);
        }
        let counted: u32 = state.run.tally.values().sum();
        prop_assert_eq!(counted, 2);
        if state.run.status == RunStatus::Running {
            prop_assert!(open);
        } else if let Some(outcome) = run_outcome(state.machines.values().map(|m| m.status)) {
            let others = [RunStatus::Interrupted, RunStatus::Cancelled, RunStatus::Superseded];
            prop_assert!(state.run.status == outcome || others.contains(&state.run.status));
        }
    }
}

#[test]
fn an_event_out_of_order_is_refused() {
    let (mut state, _) = begin();
    let mut late = event(&state, Fact::MachineStarted { subject: Subject::new(SUBJECTS[0]) });
    late.seq += 1;
    assert!(state.apply(&late).unwrap_err().to_string().contains("does not follow"));
}

#[test]
fn an_illegal_pair_is_an_error_that_names_both() {
    let (mut state, _) = begin();
    let end = event(&state, Fact::MachineEnded { subject: Subject::new(SUBJECTS[0]), how: MachineEnd::Done });
    let error = state.apply(&end).unwrap_err().to_string();
    assert!(error.contains("kinit has no outcome"), "{error}");
    let gone = event(&state, Fact::RunCancelled);
    let error = state.apply(&gone).unwrap_err().to_string();
    assert!(error.contains("running") && error.contains("Cancelled"), "{error}");
}

#[test]
fn the_worst_target_names_the_step_and_an_unfinished_one_leaves_it_open() {
    use StepStatus as S;
    assert_eq!(aggregate([]), Some(S::Succeeded));
    assert_eq!(aggregate([S::Succeeded, S::Gone]), Some(S::Succeeded));
    assert_eq!(aggregate([S::Succeeded, S::TimedOut, S::Failed]), Some(S::Failed));
    assert_eq!(aggregate([S::NeedsHuman, S::Failed]), Some(S::NeedsHuman));
    assert_eq!(aggregate([S::Succeeded, S::NotAttempted]), Some(S::NotAttempted));
    assert_eq!(aggregate([S::Failed, S::Pending]), None);
}

#[test]
fn a_run_is_what_its_machines_amount_to() {
    use MachineStatus as M;
    use RunStatus as R;
    let cases = [
        (vec![M::Succeeded, M::Succeeded], Some(R::Succeeded)),
        (vec![M::Succeeded, M::Failed], Some(R::Partial)),
        (vec![M::Failed, M::Failed], Some(R::Failed)),
        (vec![M::Succeeded, M::TimedOut, M::Failed], Some(R::TimedOut)),
        (vec![M::Skipped, M::Skipped], Some(R::Skipped)),
        (vec![M::Skipped, M::Succeeded], Some(R::Succeeded)),
        (vec![M::Gone, M::Superseded], Some(R::Superseded)),
        (vec![M::Gone], Some(R::Succeeded)),
        (vec![], Some(R::Succeeded)),
        (vec![M::Succeeded, M::Interrupted], None),
    ];
    for (machines, expected) in cases {
        assert_eq!(run_outcome(machines.clone()), expected, "{machines:?}");
    }
}

#[test]
fn the_page_that_draws_the_machines_is_generated_from_them() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/state-machines.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, diagram::page()).unwrap();
    }
    let kept = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        kept == diagram::page(),
        "{path} is not what the code says: run `UPDATE_DOCS=1 cargo test --test state_machines`"
    );
}
