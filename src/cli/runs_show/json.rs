//! The public JSON of one run. Its names and their meaning are a promise: see `SCHEMA_VERSION`.

use serde::Serialize;

use super::super::output::SCHEMA_VERSION;
use super::super::time;
use super::ShowOptions;
use super::trouble::failure;
use crate::workflow::action::{Class, Failure};
use crate::workflow::code::Code;
use crate::workflow::definition::{ForEach, Mode, Per};
use crate::workflow::event::{AttemptOutcome, SessionEnd};
use crate::workflow::id::{StepName, Subject, TargetName, WorkflowName};
use crate::workflow::run::{AttemptRecord, Machine, RunState, Session, StepState};
use crate::workflow::status::{MachineStatus, RunStatus, StepStatus};

#[derive(Serialize)]
pub(super) struct Document<'a> {
    schema_version: u32,
    run: RunJson<'a>,
}

#[derive(Serialize)]
struct RunJson<'a> {
    id: String,
    workflow: &'a WorkflowName,
    status: RunStatus,
    mode: Mode,
    started_at: String,
    ended_at: Option<String>,
    superseded_by: Option<String>,
    sessions: Vec<SessionJson<'a>>,
    /// The run-wide ones.
    steps: Vec<StepJson<'a>>,
    machines: Vec<MachineJson<'a>>,
}

#[derive(Serialize)]
struct SessionJson<'a> {
    number: u32,
    process: String,
    host: &'a str,
    boot_id: &'a str,
    pid: u32,
    trigger: &'a str,
    trace: Option<&'a str>,
    started_at: String,
    ended_at: Option<String>,
    end: Option<SessionEnd>,
}

#[derive(Serialize)]
struct MachineJson<'a> {
    subject: &'a Subject,
    /// `service` or `account`.
    kind: &'static str,
    status: MachineStatus,
    started_at: Option<String>,
    ended_at: Option<String>,
    /// The run that held the subject, or did its work later.
    other_run: Option<String>,
    steps: Vec<StepJson<'a>>,
}

#[derive(Serialize)]
struct StepJson<'a> {
    name: &'a StepName,
    status: StepStatus,
    why: Option<&'a str>,
    targets: Vec<TargetJson<'a>>,
}

#[derive(Serialize)]
struct TargetJson<'a> {
    name: TargetName,
    status: StepStatus,
    attempts: Vec<AttemptJson<'a>>,
}

#[derive(Serialize)]
struct AttemptJson<'a> {
    session: u32,
    number: u32,
    started_at: String,
    ended_at: Option<String>,
    /// `null` while it goes on.
    outcome: Option<Outcome>,
    class: Option<Class>,
    code: Option<Code>,
    message: Option<&'a str>,
    output: Option<&'a str>,
    next: Option<&'a str>,
    note: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "kebab-case")]
enum Outcome {
    Succeeded,
    Stale,
    Failed,
    NeedsHuman,
    TimedOut,
    Interrupted,
}

impl Outcome {
    fn of(outcome: &AttemptOutcome) -> Self {
        match outcome {
            AttemptOutcome::Succeeded(_) => Self::Succeeded,
            AttemptOutcome::Stale { .. } => Self::Stale,
            AttemptOutcome::Interrupted => Self::Interrupted,
            AttemptOutcome::Failed(Failure { class, .. }) => match class {
                Class::Transient | Class::Permanent => Self::Failed,
                Class::NeedsHuman => Self::NeedsHuman,
                Class::Timeout => Self::TimedOut,
            },
        }
    }
}

/// The run as programs are told it; with `service`, with that machine only.
pub(super) fn document<'a>(state: &'a RunState, options: &ShowOptions) -> Document<'a> {
    let run = &state.run;
    let machines = state.machines.values().filter(|machine| options.shows(&machine.subject));
    Document {
        schema_version: SCHEMA_VERSION,
        run: RunJson {
            id: run.id.to_string(),
            workflow: &run.workflow,
            status: run.status,
            mode: run.mode,
            started_at: time::rfc3339(run.started_at),
            ended_at: run.ended_at.map(time::rfc3339),
            superseded_by: run.superseded_by.map(|id| id.to_string()),
            sessions: run.sessions.iter().map(session).collect(),
            steps: run.steps.iter().map(|state| step(state, Per::Subject)).collect(),
            machines: machines.map(|of| machine(of, state)).collect(),
        },
    }
}

fn session(session: &Session) -> SessionJson<'_> {
    let by = &session.by;
    SessionJson {
        number: session.number,
        process: by.process.to_string(),
        host: &by.host,
        boot_id: &by.boot_id,
        pid: by.pid,
        trigger: &by.trigger,
        trace: by.trace.as_deref(),
        started_at: time::rfc3339(session.started_at),
        ended_at: session.ended_at.map(time::rfc3339),
        end: session.end,
    }
}

fn machine<'a>(machine: &'a Machine, state: &RunState) -> MachineJson<'a> {
    let per = |name: &StepName| {
        let planned = state.run.plan.iter().find(|planned| planned.name == *name);
        planned.map_or(Per::Subject, |planned| planned.per)
    };
    MachineJson {
        subject: &machine.subject,
        kind: match state.run.for_each {
            ForEach::Service => "service",
            ForEach::Account => "account",
        },
        status: machine.status,
        started_at: machine.started_at.map(time::rfc3339),
        ended_at: machine.ended_at.map(time::rfc3339),
        other_run: machine.other_run.map(|id| id.to_string()),
        steps: machine.steps.iter().map(|state| step(state, per(&state.name))).collect(),
    }
}

/// A step that does not fan out has its one target from the beginning; one that does has none before it began.
fn step(step: &StepState, per: Per) -> StepJson<'_> {
    let mut targets: Vec<TargetJson> = step
        .targets
        .iter()
        .map(|target| TargetJson {
            name: target.name.clone(),
            status: target.status,
            attempts: target.attempts.iter().map(attempt).collect(),
        })
        .collect();
    match per {
        Per::Subject if targets.is_empty() => {
            targets.push(TargetJson { name: TargetName::only(), status: step.status, attempts: vec![] });
        }
        Per::Subject | Per::Credd | Per::Node => {}
    }
    StepJson { name: &step.name, status: step.status, why: step.why.as_deref(), targets }
}

fn attempt(attempt: &AttemptRecord) -> AttemptJson<'_> {
    let failure = failure(attempt);
    let note = match &attempt.result {
        Some(AttemptOutcome::Succeeded(success) | AttemptOutcome::Stale { success, .. }) => success.note.as_deref(),
        Some(AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted) | None => None,
    };
    AttemptJson {
        session: attempt.session,
        number: attempt.number,
        started_at: time::rfc3339(attempt.started_at),
        ended_at: attempt.ended_at.map(time::rfc3339),
        outcome: attempt.result.as_ref().map(Outcome::of),
        class: failure.map(|failure| failure.class),
        code: failure.map(|failure| failure.code),
        message: failure.map(|failure| failure.message.as_str()),
        output: failure.and_then(|failure| failure.output.as_deref()),
        next: failure.and_then(|failure| failure.next.as_deref()),
        note,
    }
}
