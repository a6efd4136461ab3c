//! `mt runs list`: which runs there were, and how they ended.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::output::{self, Cell, Here, OutputFormat, Paint, SCHEMA_VERSION, Viewer};
use super::summary::{self, Length};
use super::time;
use crate::workflow::definition::Mode;
use crate::workflow::event::SessionEnd;
use crate::workflow::id::{RunId, Subject, WorkflowName};
use crate::workflow::run::{Run, Session};
use crate::workflow::status::{MachineStatus, RunStatus};

/// One run, with what its record alone does not tell.
#[derive(Clone, Debug, PartialEq)]
pub struct RunRow {
    /// Its record.
    pub run: Run,
    /// Does a process hold the owner lock of its last session?
    pub owner_alive: bool,
    /// The shortest unique prefix of its id, lower case.
    pub prefix: String,
    /// What else is worth a word when all went well: `1 uid changed`.
    pub remark: Option<String>,
}

impl RunRow {
    /// The status people and programs are told: a run that says `running` and whose owner is dead is `interrupted`.
    pub fn status(&self) -> RunStatus {
        told_status(&self.run, self.owner_alive)
    }

    /// How long its sessions worked on it, as far as that is known.
    pub fn took(&self, now: Timestamp) -> Option<Duration> {
        worked(&self.run, self.owner_alive, now)
    }

    /// What came of it, and for an unfinished run the next command.
    fn result(&self, here: &Here) -> String {
        let counts = summary::counts(&self.run.tally, self.run.for_each, Length::Short, self.status());
        match self.status() {
            RunStatus::Interrupted => {
                format!("{}; mt runs resume {}", stopped(&self.run, here), self.prefix)
            }
            RunStatus::Succeeded => match &self.remark {
                Some(remark) => format!("{counts}, {remark}"),
                None => counts,
            },
            RunStatus::Superseded => "a newer run did the rest".to_owned(),
            RunStatus::Running
            | RunStatus::Partial
            | RunStatus::Failed
            | RunStatus::TimedOut
            | RunStatus::Cancelled
            | RunStatus::Skipped => counts,
        }
    }
}

/// The status of a run once it is known whether its owner lives.
pub fn told_status(run: &Run, owner_alive: bool) -> RunStatus {
    match (run.status, owner_alive) {
        (RunStatus::Running, false) => RunStatus::Interrupted,
        (status, _) => status,
    }
}

/// The time its sessions worked, pauses between them left out. Of a session whose process died nobody knows the end: it
/// counts for nothing, and a run with no other session gives `None`.
pub fn worked(run: &Run, owner_alive: bool, now: Timestamp) -> Option<Duration> {
    let last = run.sessions.last().map(|session| session.number);
    let known = run.sessions.iter().filter_map(|session| match (session.end, session.ended_at) {
        (Some(SessionEnd::Lost), _) => None,
        (_, Some(end)) => Some(time::between(session.started_at, end)),
        (_, None) if owner_alive && Some(session.number) == last => Some(time::between(session.started_at, now)),
        (_, None) => None,
    });
    known.fold(None, |sum, took| Some(sum.unwrap_or_default() + took))
}

/// Why an interrupted run stopped: `mt01 rebooted`, `process 4711 is gone`, `stopped by a signal`.
pub fn stopped(run: &Run, here: &Here) -> String {
    match run.sessions.last() {
        None => "no session ever began".to_owned(),
        Some(Session { end: Some(SessionEnd::Interrupted), .. }) => "stopped by a signal".to_owned(),
        Some(Session { end: Some(SessionEnd::Cancelled), .. }) => "cancelled".to_owned(),
        Some(Session { end: Some(SessionEnd::Finished), .. }) => "its last session left work undone".to_owned(),
        Some(Session { end: None | Some(SessionEnd::Lost), by, .. }) => {
            if by.host != here.host {
                format!("process {} on {} is gone", by.pid, by.host)
            } else if by.boot_id != here.boot_id {
                format!("{} rebooted", by.host)
            } else {
                format!("process {} is gone", by.pid)
            }
        }
    }
}

/// Which runs are asked for. The default is all of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Of this workflow.
    pub workflow: Option<WorkflowName>,
    /// With a machine for this service or account.
    pub service: Option<Subject>,
    /// With one of these statuses, as told; empty means any.
    pub statuses: Vec<RunStatus>,
    /// Started then or later.
    pub since: Option<Timestamp>,
    /// The newest so many.
    pub limit: Option<usize>,
}

impl Filter {
    /// The runs asked for, newest first. `has_machine` is asked last, and only until the limit is reached: it reads the store.
    pub fn select(&self, mut rows: Vec<RunRow>, mut has_machine: impl FnMut(&RunId, &Subject) -> bool) -> Vec<RunRow> {
        rows.sort_by_key(|row| std::cmp::Reverse(row.run.id));
        rows.into_iter()
            .filter(|row| {
                self.workflow.as_ref().is_none_or(|workflow| *workflow == row.run.workflow)
                    && (self.statuses.is_empty() || self.statuses.contains(&row.status()))
                    && self.since.is_none_or(|since| row.run.started_at >= since)
                    && self.service.as_ref().is_none_or(|service| has_machine(&row.run.id, service))
            })
            .take(self.limit.unwrap_or(usize::MAX))
            .collect()
    }
}

/// Reads one value of `--status`.
///
/// # Errors
/// The text is no status of a run; the message lists them all.
pub fn parse_status(text: &str) -> Result<RunStatus, String> {
    RunStatus::ALL.iter().copied().find(|status| status.as_str() == text).ok_or_else(|| {
        let all: Vec<&str> = RunStatus::ALL.iter().map(|status| status.as_str()).collect();
        format!("{text:?} is not a status of a run: expected one of {}", all.join(", "))
    })
}

/// The runs as they are to be printed, in the order given.
pub fn render(rows: &[RunRow], format: OutputFormat, viewer: &Viewer) -> String {
    match format {
        OutputFormat::Table => text(rows, viewer),
        OutputFormat::Json => {
            let runs = rows.iter().map(|row| RunJson::of(row, viewer.clock.now)).collect();
            output::json(&ListJson { schema_version: SCHEMA_VERSION, runs })
        }
        OutputFormat::Ndjson => rows
            .iter()
            .map(|row| {
                output::json_line(&LineJson { schema_version: SCHEMA_VERSION, run: RunJson::of(row, viewer.clock.now) })
            })
            .collect(),
    }
}

fn text(rows: &[RunRow], viewer: &Viewer) -> String {
    if rows.is_empty() {
        return "no runs\n".to_owned();
    }
    let lines = rows.iter().map(|row| {
        let took = row.took(viewer.clock.now).map_or_else(|| "-".to_owned(), time::duration);
        vec![
            Cell::plain(&row.prefix),
            Cell::plain(row.run.workflow.as_str()),
            Cell::plain(viewer.clock.ago(row.run.started_at)),
            Cell::plain(took),
            Cell::new(spoken(row.status()), paint(row.status())),
            Cell::plain(row.result(&viewer.here)),
        ]
    });
    output::table(&["RUN", "WORKFLOW", "STARTED", "TOOK", "STATUS", "RESULT"], lines.collect(), &viewer.style)
}

/// The status as people read it: `timed out`.
pub fn spoken(status: RunStatus) -> String {
    status.as_str().replace('-', " ")
}

/// The colour of a run's status.
pub fn paint(status: RunStatus) -> Paint {
    match status {
        RunStatus::Running => Paint::Busy,
        RunStatus::Succeeded => Paint::Good,
        RunStatus::Partial | RunStatus::TimedOut | RunStatus::Interrupted => Paint::Warn,
        RunStatus::Failed => Paint::Bad,
        RunStatus::Cancelled | RunStatus::Superseded | RunStatus::Skipped => Paint::Faint,
    }
}

#[derive(Serialize)]
struct ListJson<'a> {
    schema_version: u32,
    runs: Vec<RunJson<'a>>,
}

#[derive(Serialize)]
struct LineJson<'a> {
    schema_version: u32,
    #[serde(flatten)]
    run: RunJson<'a>,
}

/// One run of the list. The names are public.
#[derive(Serialize)]
struct RunJson<'a> {
    id: String,
    workflow: &'a WorkflowName,
    status: RunStatus,
    mode: Mode,
    started_at: String,
    ended_at: Option<String>,
    /// The sessions' work, pauses left out.
    took_seconds: Option<f64>,
    /// How many machines the run has.
    subjects: u32,
    tally: BTreeMap<MachineStatus, u32>,
    /// Of the last session.
    host: Option<&'a str>,
    pid: Option<u32>,
    sessions: usize,
    superseded_by: Option<String>,
}

impl<'a> RunJson<'a> {
    fn of(row: &'a RunRow, now: Timestamp) -> Self {
        let last = row.run.sessions.last().map(|session| &session.by);
        Self {
            id: row.run.id.to_string(),
            workflow: &row.run.workflow,
            status: row.status(),
            mode: row.run.mode,
            started_at: time::rfc3339(row.run.started_at),
            ended_at: row.run.ended_at.map(time::rfc3339),
            took_seconds: row.took(now).map(time::seconds),
            subjects: row.run.tally.values().sum(),
            tally: told_tally(&row.run, row.owner_alive),
            host: last.map(|by| by.host.as_str()),
            pid: last.map(|by| by.pid),
            sessions: row.run.sessions.len(),
            superseded_by: row.run.superseded_by.map(|id| id.to_string()),
        }
    }
}

/// How many machines stand how, once it is known whether the owner lives: a dead owner's running machines are interrupted.
pub fn told_tally(run: &Run, owner_alive: bool) -> BTreeMap<MachineStatus, u32> {
    let mut tally: BTreeMap<_, _> = run.tally.iter().filter(|(_, count)| **count > 0).map(|(s, c)| (*s, *c)).collect();
    if told_status(run, owner_alive) == RunStatus::Interrupted
        && let Some(running) = tally.remove(&MachineStatus::Running)
    {
        *tally.entry(MachineStatus::Interrupted).or_default() += running;
    }
    tally
}

#[cfg(test)]
mod tests;
