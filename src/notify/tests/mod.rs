//! What messages say, and what becomes of them.

mod sending;
mod words;

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::{DueCounter, Envelope, Group, Kind, News, OutboxEntry, Templates, prepare};
use crate::workflow::definition::{CountsAs, ForEach, Mode, OnFailure, Per};
use crate::workflow::event::{PlannedStep, Selection, SessionStarted};
use crate::workflow::id::{ProcessId, StepName, Subject, TargetName, WorkflowName};
use crate::workflow::run::{Machine, Run, RunState, Session, StepState, TargetState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

const RUN: &str = "01K4Q8VTP00000000000000000";

fn at() -> Timestamp {
    "2026-09-03T13:58:00Z".parse().unwrap()
}

/// A run of two services, mu2e_production with three nodes.
fn state() -> RunState {
    let push = PlannedStep {
        name: StepName::new("push"),
        action: "Push".to_owned(),
        per: Per::Node,
        counts_as: CountsAs::Push,
        on_failure: OnFailure::Continue,
    };
    let target = |n| TargetState {
        name: TargetName::new(format!("mu2e0{n}.fnal.gov")),
        status: StepStatus::Failed,
        attempts: vec![],
    };
    let step = StepState {
        name: push.name.clone(),
        status: StepStatus::Failed,
        targets: (1..=3).map(target).collect(),
        why: None,
    };
    let machine = |name: &str, steps| Machine {
        subject: Subject::new(name),
        status: MachineStatus::Failed,
        started_at: None,
        ended_at: None,
        steps,
        other_run: None,
    };
    let machines = [machine("mu2e_production", vec![step]), machine("nova_production", vec![])];
    let by = SessionStarted {
        process: ProcessId(RUN.parse().unwrap()),
        host: "mt01".to_owned(),
        boot_id: String::new(),
        pid: 1,
        start_ticks: None,
        trigger: "cron".to_owned(),
        trace: None,
    };
    RunState {
        run: Run {
            id: RUN.parse().unwrap(),
            workflow: WorkflowName::new("token-push"),
            definition: String::new(),
            for_each: ForEach::Service,
            mode: Mode::Normal,
            selection: Selection::default(),
            status: RunStatus::Running,
            started_at: at(),
            ended_at: None,
            sessions: vec![Session { number: 1, by, started_at: at(), ended_at: None, end: None }],
            tally: BTreeMap::new(),
            plan: vec![push],
            steps: vec![],
            superseded_by: None,
            events: 0,
        },
        machines: machines.into_iter().map(|machine| (machine.subject.clone(), machine)).collect(),
    }
}

fn push(node: &str) -> DueCounter {
    DueCounter {
        subject: Subject::new("mu2e_production"),
        target: Some(TargetName::new(node)),
        value: 3,
        kind: Kind::Push,
        message: format!("ssh: connect to host {node} port 22: Connection refused"),
        next: Some("look at the node; then  mt runs resume".to_owned()),
        failing_runs: 6,
        failing_since: Some(at()),
    }
}

fn setup() -> DueCounter {
    DueCounter {
        subject: Subject::new("nova_production"),
        target: None,
        value: 3,
        kind: Kind::Setup,
        message: "get-vault-token: the vault holds no usable refresh token for this service".to_owned(),
        next: Some("mt run token-push --onboard -s nova_production".to_owned()),
        failing_runs: 3,
        failing_since: Some(at()),
    }
}

fn news(due: &[DueCounter]) -> News {
    News { due: due.to_vec(), ..News::default() }
}

fn message(group: Group, news: &News) -> OutboxEntry {
    let recipients = ["admin@lab.test".to_owned(), "second@lab.test".to_owned()];
    let templates = Templates::default();
    let envelope = Envelope { group, from: "managed-tokens@lab.test", recipients: &recipients, templates: &templates };
    let mut state = state();
    state.run.sessions.push(state.run.sessions[0].clone());
    prepare(&state, &envelope, news, true)
}
