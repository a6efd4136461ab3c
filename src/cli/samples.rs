//! Runs made by hand, with fixed times, for the snapshots of what people and programs read.

use std::collections::BTreeMap;

use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::output::{Here, Style, Viewer};
use super::runs_list::RunRow;
use super::runs_show::RunView;
use super::time::Clock;
use crate::workflow::action::{Class, Failure, Success};
use crate::workflow::code::Code;
use crate::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use crate::workflow::event::{AttemptOutcome, PlannedStep, Selection, SessionEnd, SessionStarted};
use crate::workflow::id::{ProcessId, RunId, StepName, Subject, TargetName, WorkflowName};
use crate::workflow::run::{AttemptRecord, Machine, Run, RunState, Session, StepState, TargetState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

/// Milliseconds after 13:58:00 of the day of the samples.
pub fn at(milliseconds: i64) -> Timestamp {
    let start: Timestamp = "2025-11-22T13:58:00Z".parse().unwrap();
    start + SignedDuration::from_millis(milliseconds)
}

/// A reader on mt01, two minutes after the start, without colour.
pub fn viewer(width: usize) -> Viewer {
    Viewer {
        clock: Clock { now: at(128_000), zone: TimeZone::UTC },
        style: Style { colour: false, width },
        here: Here { host: "mt01".to_owned(), boot_id: "boot-a".to_owned() },
    }
}

pub fn run_id(prefix: &str) -> RunId {
    format!("{prefix:0<26}").parse().unwrap()
}

pub fn subject(name: &str) -> Subject {
    Subject::new(name)
}

fn planned(name: &str, action: &str, per: Per, counts_as: CountsAs, on_failure: OnFailure) -> PlannedStep {
    PlannedStep { name: StepName::new(name), action: action.to_owned(), per, counts_as, on_failure }
}

pub fn plan() -> Vec<PlannedStep> {
    vec![
        planned("kinit", "Kinit", Per::Subject, CountsAs::Setup, OnFailure::Stop),
        planned("get-vault-token", "GetVaultToken", Per::Subject, CountsAs::Setup, OnFailure::Stop),
        planned("store-in-credd", "StoreInCredd", Per::Credd, CountsAs::Setup, OnFailure::Continue),
        planned("ping", "Ping", Per::Node, CountsAs::Setup, OnFailure::Continue),
        planned("push", "Push", Per::Node, CountsAs::Push, OnFailure::Continue),
    ]
}

pub fn attempt(number: u32, start: i64, end: i64, result: AttemptOutcome) -> AttemptRecord {
    AttemptRecord { session: 1, number, started_at: at(start), ended_at: Some(at(end)), result: Some(result) }
}

pub fn good(start: i64, end: i64) -> AttemptRecord {
    attempt(1, start, end, AttemptOutcome::Succeeded(Success::default()))
}

pub fn bad(number: u32, start: i64, end: i64, failure: Failure) -> AttemptRecord {
    attempt(number, start, end, AttemptOutcome::Failed(failure))
}

pub fn open(start: i64) -> AttemptRecord {
    AttemptRecord { session: 1, number: 1, started_at: at(start), ended_at: None, result: None }
}

pub fn target(name: &str, status: StepStatus, attempts: Vec<AttemptRecord>) -> TargetState {
    TargetState { name: TargetName::new(name), status, attempts }
}

/// A step whose status is given; its targets are as given.
pub fn step(name: &str, status: StepStatus, targets: Vec<TargetState>) -> StepState {
    StepState { name: StepName::new(name), status, targets, why: None }
}

/// A step that does not fan out.
pub fn single(name: &str, status: StepStatus, attempts: Vec<AttemptRecord>) -> StepState {
    step(name, status, vec![target("-", status, attempts)])
}

fn fanned(name: &str, targets: &[&str], start: i64, end: i64) -> StepState {
    let done = targets.iter().map(|name| target(name, StepStatus::Succeeded, vec![good(start, end)]));
    step(name, StepStatus::Succeeded, done.collect())
}

pub fn not_attempted(name: &str, why: &str) -> StepState {
    StepState { why: Some(why.to_owned()), ..step(name, StepStatus::NotAttempted, vec![]) }
}

/// A machine with these steps.
pub fn machine(name: &str, status: MachineStatus, steps: Vec<StepState>) -> Machine {
    let ended = !matches!(status, MachineStatus::Pending | MachineStatus::Running | MachineStatus::Interrupted);
    Machine {
        subject: subject(name),
        status,
        started_at: (status != MachineStatus::Pending).then(|| at(10)),
        ended_at: ended.then(|| at(7_900)),
        steps,
        other_run: None,
    }
}

/// A machine on which everything went well.
pub fn healthy(name: &str) -> Machine {
    healthy_on(name, &["node1.fnal.gov", "node2.fnal.gov"])
}

pub fn healthy_on(name: &str, nodes: &[&str]) -> Machine {
    let mut steps = before_push(&["schedd1", "schedd2"], nodes);
    steps.push(fanned("push", nodes, 2_200, 3_100));
    machine(name, MachineStatus::Succeeded, steps)
}

/// The steps before the push, all well.
pub fn before_push(credds: &[&str], nodes: &[&str]) -> Vec<StepState> {
    vec![
        single("kinit", StepStatus::Succeeded, vec![good(20, 60)]),
        single("get-vault-token", StepStatus::Succeeded, vec![good(61, 900)]),
        fanned("store-in-credd", credds, 901, 2_100),
        fanned("ping", nodes, 2_101, 2_150),
    ]
}

/// A machine that has not begun, as the store has it.
pub fn waiting(name: &str) -> Machine {
    machine(
        name,
        MachineStatus::Pending,
        plan().iter().map(|p| step(p.name.as_str(), StepStatus::Pending, vec![])).collect(),
    )
}

/// Without work in this run: held by another, superseded or gone.
pub fn without_work(name: &str, status: MachineStatus, other: Option<&str>) -> Machine {
    Machine { status, other_run: other.map(run_id), ..waiting(name) }
}

pub fn refused(node: &str) -> Failure {
    Failure::new(Class::Transient, Code(42), format!("{node} refused the connection"))
        .with_output(format!(
            "ssh: connect to host {node} port 22: Connection refused\nrsync: connection unexpectedly closed\n"
        ))
        .with_next("look at the node")
}

/// One push was refused four times.
pub fn refused_machine(name: &str) -> Machine {
    let node = "mu2e03.fnal.gov";
    let mut steps = before_push(&["schedd1", "schedd2"], &["mu2e01.fnal.gov", "mu2e02.fnal.gov", node]);
    let tries = (1..=4).map(|n| bad(n, 1_000 + 1_500 * i64::from(n), 1_300 + 1_500 * i64::from(n), refused(node)));
    let mut push = fanned("push", &["mu2e01.fnal.gov", "mu2e02.fnal.gov"], 2_200, 3_100);
    push.status = StepStatus::Failed;
    push.targets.push(target(node, StepStatus::Failed, tries.collect()));
    steps.push(push);
    machine(name, MachineStatus::Failed, steps)
}

/// A person must authenticate.
pub fn unauthenticated_machine(name: &str) -> Machine {
    let failure = Failure::new(Class::NeedsHuman, Code(31), "the vault holds no usable refresh token for this service")
        .with_output("htgettoken: Failure getting token from https://vault.fnal.gov:8200\n")
        .with_next(format!("mt run token-push --onboard --push -s {name}"));
    let why = "get-vault-token needs a person";
    machine(
        name,
        MachineStatus::Failed,
        vec![
            single("kinit", StepStatus::Succeeded, vec![good(20, 60)]),
            single("get-vault-token", StepStatus::NeedsHuman, vec![bad(1, 61, 1_000, failure)]),
            not_attempted("store-in-credd", why),
            not_attempted("ping", why),
            not_attempted("push", why),
        ],
    )
}

/// A run of these machines: one session by cron on mt01, ended (or not) so many milliseconds after its start.
pub fn state(status: RunStatus, ended: Option<i64>, machines: Vec<Machine>) -> RunState {
    let mut tally = BTreeMap::new();
    for machine in &machines {
        *tally.entry(machine.status).or_default() += 1;
    }
    let run = Run {
        id: run_id("01k4q8vt"),
        workflow: WorkflowName::new("token-push"),
        definition: "0".repeat(64),
        for_each: ForEach::Service,
        mode: Mode::Normal,
        selection: Selection::default(),
        status,
        started_at: at(0),
        ended_at: ended.map(at),
        sessions: vec![Session {
            number: 1,
            by: by("cron", 4711),
            started_at: at(0),
            ended_at: ended.map(at),
            end: ended.map(|_| SessionEnd::Finished),
        }],
        tally,
        plan: plan(),
        steps: vec![step("notify", StepStatus::Pending, vec![])],
        superseded_by: None,
        events: 100,
    };
    RunState { run, machines: machines.into_iter().map(|machine| (machine.subject.clone(), machine)).collect() }
}

pub fn by(trigger: &str, pid: u32) -> SessionStarted {
    SessionStarted {
        process: ProcessId("01K4Q8VTP00000000000000000".parse().unwrap()),
        host: "mt01".to_owned(),
        boot_id: "boot-a".to_owned(),
        pid,
        start_ticks: None,
        trigger: trigger.to_owned(),
        trace: Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned()),
    }
}

/// What `mt runs show` is given: the owner lives as long as the run says `running`.
pub fn view(state: RunState) -> RunView {
    RunView {
        owner_alive: state.run.status == RunStatus::Running,
        state,
        prefix: "01k4q8vt".to_owned(),
        others: BTreeMap::from([(run_id("01k4p1m3"), "01k4p1m3".to_owned())]),
        failing: BTreeMap::new(),
        told: BTreeMap::new(),
    }
}

/// A line of the list for that state.
pub fn row(prefix: &str, state: &RunState) -> RunRow {
    RunRow {
        run: Run { id: run_id(prefix), ..state.run.clone() },
        owner_alive: state.run.status == RunStatus::Running,
        prefix: prefix.to_owned(),
        remark: None,
    }
}

/// So many healthy services: `exp00_production`, ….
pub fn healthy_services(count: usize) -> Vec<Machine> {
    (0..count).map(|number| healthy(&format!("exp{number:02}_production"))).collect()
}

/// 48 fine, one push refused, one service without a refresh token.
pub fn partial() -> RunState {
    let mut machines = healthy_services(48);
    machines.extend([refused_machine("mu2e_production"), unauthenticated_machine("nova_production")]);
    let mut state = state(RunStatus::Partial, Some(8_100), machines);
    state.run.steps = vec![single("notify", StepStatus::Succeeded, vec![good(8_000, 8_090)])];
    state
}

/// The process died at work: 2 complete, one cut off in store-in-credd, 3 not begun. Nothing recorded its death.
pub fn cut_off() -> RunState {
    let mut steps = before_push(&["schedd1"], &[]);
    steps.truncate(3);
    steps[2].status = StepStatus::Running;
    steps[2].targets.push(target("schedd2", StepStatus::Running, vec![open(1_000)]));
    steps.extend(["ping", "push"].map(|name| step(name, StepStatus::Pending, vec![])));
    let mut machines = healthy_services(2);
    machines.push(machine("dune_production", MachineStatus::Running, steps));
    machines.extend(["icarus_production", "nova_production", "sbnd_production"].map(waiting));
    state(RunStatus::Running, None, machines)
}

/// The same, resumed an hour later and finished.
pub fn resumed() -> RunState {
    let mut state = cut_off();
    let hour = 3_600_000;
    state.run.status = RunStatus::Succeeded;
    state.run.ended_at = Some(at(hour + 4_000));
    state.run.sessions[0].end = Some(SessionEnd::Lost);
    state.run.sessions[0].ended_at = Some(at(hour));
    state.run.sessions.push(Session {
        number: 2,
        by: by("resume", 4990),
        started_at: at(hour),
        ended_at: Some(at(hour + 4_000)),
        end: Some(SessionEnd::Finished),
    });
    for machine in state.machines.values_mut().filter(|machine| machine.status != MachineStatus::Succeeded) {
        let old = std::mem::replace(machine, healthy(machine.subject.as_str()));
        for (step, old) in machine.steps.iter_mut().zip(old.steps) {
            for target in &mut step.targets {
                for attempt in &mut target.attempts {
                    attempt.session = 2;
                    attempt.started_at += SignedDuration::from_millis(hour);
                    attempt.ended_at = attempt.ended_at.map(|end| end + SignedDuration::from_millis(hour));
                }
                if let Some(old) = old.targets.iter().find(|old| old.name == target.name) {
                    let kept = old.status == StepStatus::Succeeded && step.name.as_str() != "kinit";
                    let new = if kept { vec![] } else { std::mem::take(&mut target.attempts) };
                    target.attempts = old.attempts.iter().cloned().chain(new).collect();
                }
                for attempt in &mut target.attempts {
                    attempt.result.get_or_insert(AttemptOutcome::Interrupted);
                }
            }
        }
    }
    state.run.tally = BTreeMap::from([(MachineStatus::Succeeded, 6)]);
    state.run.steps = vec![single(
        "notify",
        StepStatus::Succeeded,
        vec![AttemptRecord { session: 2, ..good(hour + 3_500, hour + 3_900) }],
    )];
    state
}

/// The deadline struck: 2 fine, one failed, one at work, one not begun.
pub fn timed_out() -> RunState {
    let mut machines = healthy_services(2);
    machines.push(unauthenticated_machine("nova_production"));
    let late = Failure::new(Class::Timeout, Code(30), "no answer from vault.fnal.gov within 60s");
    machines.push(machine(
        "sbnd_production",
        MachineStatus::TimedOut,
        vec![
            single("kinit", StepStatus::Succeeded, vec![good(20, 60)]),
            single("get-vault-token", StepStatus::TimedOut, vec![bad(1, 61, 60_061, late)]),
            not_attempted("store-in-credd", "the deadline struck"),
            not_attempted("ping", "the deadline struck"),
            not_attempted("push", "the deadline struck"),
        ],
    ));
    machines.push(Machine { status: MachineStatus::TimedOut, ..waiting("uboone_production") });
    state(RunStatus::TimedOut, Some(300_000), machines)
}
