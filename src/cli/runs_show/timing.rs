//! `--timing`: when each step began first and ended last, over all machines, session by session.

use std::time::Duration;

use jiff::Timestamp;

use super::super::output::{Cell, Paint, Viewer, table};
use super::super::time;
use super::ShowOptions;
use super::trouble::span;
use crate::workflow::event::SessionEnd;
use crate::workflow::id::StepName;
use crate::workflow::run::{AttemptRecord, RunState, Session, StepState};
use crate::workflow::status::RunStatus;

/// Columns of the longest bar.
const BAR: usize = 40;

/// One table a session; none for a session in which nothing was tried.
pub(super) fn render(state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Vec<String> {
    let sessions = state.run.sessions.iter();
    sessions.filter_map(|session| of_session(state, session, options, viewer)).collect()
}

fn of_session(state: &RunState, session: &Session, options: &ShowOptions, viewer: &Viewer) -> Option<String> {
    let machines = state.machines.values().filter(|machine| options.shows(&machine.subject));
    let all: Vec<&StepState> = machines.flat_map(|machine| &machine.steps).chain(&state.run.steps).collect();
    let horizon = horizon(state, session, &all, viewer);
    let names = state.run.plan.iter().map(|planned| &planned.name).chain(state.run.steps.iter().map(|step| &step.name));
    let spans: Vec<(&StepName, Timestamp, Timestamp, usize)> = names
        .filter_map(|name| {
            let attempts: Vec<&AttemptRecord> = all
                .iter()
                .filter(|step| step.name == *name)
                .flat_map(|step| &step.targets)
                .flat_map(|target| &target.attempts)
                .filter(|attempt| attempt.session == session.number)
                .collect();
            let (start, end) = span(attempts.iter().copied())?;
            Some((name, start, end.unwrap_or(horizon), attempts.len()))
        })
        .collect();
    let last = spans.iter().map(|(_, _, end, _)| *end).max()?;
    let whole = time::between(session.started_at, last);
    let rows = spans.iter().map(|(name, start, end, attempts)| {
        let (after, took) = (time::between(session.started_at, *start), time::between(*start, *end));
        vec![
            Cell::plain(name.as_str()),
            Cell::plain(format!("+{}", time::duration(after))),
            Cell::plain(time::duration(took)),
            Cell::plain(attempts.to_string()),
            Cell::new(bar(after, took, whole), Paint::Busy),
        ]
    });
    let title = match state.run.sessions.len() {
        1 => String::new(),
        _ => format!("session {}\n", session.number),
    };
    Some(format!("{title}{}", table(&["STEP", "BEGAN", "TOOK", "ATTEMPTS", ""], rows.collect(), &viewer.style)))
}

/// When what has no recorded end in that session ended, or how long it has been seen to go on.
fn horizon(state: &RunState, session: &Session, steps: &[&StepState], viewer: &Viewer) -> Timestamp {
    let known = match session.end {
        Some(SessionEnd::Finished | SessionEnd::Interrupted | SessionEnd::Cancelled) => session.ended_at,
        None if state.run.status == RunStatus::Running => Some(viewer.clock.now),
        // Its process died, nobody knows when: not before the last thing it recorded.
        Some(SessionEnd::Lost) | None => None,
    };
    known.unwrap_or_else(|| {
        let attempts = steps.iter().flat_map(|step| &step.targets).flat_map(|target| &target.attempts);
        let of_session = attempts.filter(|attempt| attempt.session == session.number);
        let times = of_session.flat_map(|attempt| [Some(attempt.started_at), attempt.ended_at]);
        times.flatten().fold(session.started_at, Timestamp::max)
    })
}

/// A bar on the line of the whole session, at least one column long.
fn bar(after: Duration, took: Duration, whole: Duration) -> String {
    let scale = |part: Duration| match whole.as_millis() {
        0 => 0,
        whole => usize::try_from(part.as_millis() * BAR as u128 / whole).unwrap_or(BAR).min(BAR),
    };
    let start = scale(after).min(BAR - 1);
    let length = scale(took).clamp(1, BAR - start);
    format!("{}{}", "·".repeat(start), "█".repeat(length))
}
