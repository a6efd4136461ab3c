//! The head of the page, the machines the run had nothing to do for, remarks, and the last word.

use std::collections::BTreeMap;

use super::super::output::{self, Paint, Viewer, wrap};
use super::super::runs_list::{paint, spoken, stopped};
use super::super::summary::{self, Length};
use super::super::time;
use super::{RunView, ShowOptions, name_some, place};
use crate::workflow::definition::Mode;
use crate::workflow::event::{AttemptOutcome, SessionEnd};
use crate::workflow::id::{RunId, Subject};
use crate::workflow::run::{RunState, Session};
use crate::workflow::status::{MachineStatus, RunStatus};

/// What it was, how it ended, when, how long, by whom; and the counts.
pub(super) fn head(view: &RunView, state: &RunState, viewer: &Viewer) -> String {
    let run = &state.run;
    let style = &viewer.style;
    let status = style.paint(paint(run.status), &spoken(run.status));
    let mut parts = vec![
        format!("run {}  {}", view.prefix, output::clean(run.workflow.as_str())),
        format!("{status}   {} ({})", viewer.clock.time(run.started_at), viewer.clock.ago(run.started_at)),
    ];
    match run.mode {
        Mode::Normal => {}
        Mode::Test => parts.insert(1, "test".to_owned()),
        Mode::Onboard => parts.insert(1, "onboarding".to_owned()),
        Mode::OnboardPush => parts.insert(1, "onboarding and push".to_owned()),
    }
    parts.extend(view.took(viewer.clock.now).map(time::duration));
    let mut text = parts.join("  ");
    if let Some(first) = run.sessions.first() {
        text.push_str(&format!("   {}", by(first)));
    }
    text.push('\n');

    text.push_str(&summary::counts(&run.tally, run.for_each, Length::Long, run.status));
    if let [only] = run.sessions.as_slice() {
        text.push_str(&trace(only, view, viewer));
    }
    text.push('\n');
    text.push_str(
        &reason(view, state, viewer).map(|reason| format!("{}\n", output::clean(&reason))).unwrap_or_default(),
    );
    if run.sessions.len() > 1 {
        for session in &run.sessions {
            text.push_str(&session_line(session, view, state, viewer));
        }
    }
    text
}

/// `   trace 4bf92f3577b34da6a3ce929d0e0e4736`. A process that died has sent none.
fn trace(session: &Session, view: &RunView, viewer: &Viewer) -> String {
    let died = match session.end {
        Some(SessionEnd::Lost) => true,
        Some(SessionEnd::Finished | SessionEnd::Interrupted | SessionEnd::Cancelled) => false,
        None => !view.owner_alive,
    };
    let trace = session.by.trace.as_deref().filter(|_| !died).map(|trace| format!("   trace {}", output::clean(trace)));
    trace.map(|trace| viewer.style.paint(Paint::Faint, &trace)).unwrap_or_default()
}

/// `cron on mt01`.
fn by(session: &Session) -> String {
    output::clean(&format!("{} on {}", session.by.trigger, session.by.host)).into_owned()
}

/// Why the run as a whole did not come to its end.
fn reason(view: &RunView, state: &RunState, viewer: &Viewer) -> Option<String> {
    let run = &state.run;
    match run.status {
        RunStatus::Interrupted => Some(stopped(run, &viewer.here)),
        RunStatus::TimedOut => Some("the deadline struck before every machine had come to its end".to_owned()),
        RunStatus::Cancelled => Some("cancelled by a person: it cannot be resumed".to_owned()),
        RunStatus::Superseded => run.superseded_by.map(|by| format!("run {} did the rest", view.other(&by))),
        RunStatus::Running | RunStatus::Succeeded | RunStatus::Partial | RunStatus::Failed | RunStatus::Skipped => None,
    }
}

/// `session 2  14:20:00  resume on mt01, process 4990   finished after 3.2s   trace 4bf92f3577b34da6a3ce929d0e0e4736`.
fn session_line(session: &Session, view: &RunView, state: &RunState, viewer: &Viewer) -> String {
    let last = state.run.sessions.last().map(|last| last.number) == Some(session.number);
    let took =
        || session.ended_at.map(|end| format!(" after {}", time::duration(time::between(session.started_at, end))));
    let end = match session.end {
        Some(SessionEnd::Finished) => format!("finished{}", took().unwrap_or_default()),
        Some(SessionEnd::Interrupted) => format!("stopped by a signal{}", took().unwrap_or_default()),
        Some(SessionEnd::Cancelled) => format!("cancelled{}", took().unwrap_or_default()),
        None if last && view.owner_alive => "works on it".to_owned(),
        Some(SessionEnd::Lost) | None => "its process died".to_owned(),
    };
    format!(
        "  session {}  {}  {}, process {}   {end}{}\n",
        session.number,
        viewer.clock.time(session.started_at),
        by(session),
        session.by.pid,
        trace(session, view, viewer),
    )
}

/// The machines the run had nothing to do for: held by another run, done by a newer one, or no longer configured.
pub(super) fn left_out(view: &RunView, state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Option<String> {
    let mut groups: BTreeMap<(Left, Option<RunId>), Vec<&Subject>> = BTreeMap::new();
    for machine in state.machines.values().filter(|machine| options.shows(&machine.subject)) {
        let left = match machine.status {
            MachineStatus::Skipped => Left::Held,
            MachineStatus::Superseded => Left::Superseded,
            MachineStatus::Gone => Left::Gone,
            MachineStatus::Pending
            | MachineStatus::Running
            | MachineStatus::Succeeded
            | MachineStatus::Failed
            | MachineStatus::TimedOut
            | MachineStatus::Interrupted => continue,
        };
        groups.entry((left, machine.other_run)).or_default().push(&machine.subject);
    }
    let most = if options.all { usize::MAX - 1 } else { 6 };
    let mut text = String::new();
    for ((left, other), subjects) in groups {
        let count = u32::try_from(subjects.len()).unwrap_or(u32::MAX);
        let other = other.map(|id| view.other(&id));
        let why = match (left, other) {
            (Left::Held, Some(id)) => format!("held by run {id} at that time  →  mt runs show {id}"),
            (Left::Held, None) => "held by another run at that time".to_owned(),
            (Left::Superseded, Some(id)) => format!("done by the newer run {id}  →  mt runs show {id}"),
            (Left::Superseded, None) => "done by a newer run".to_owned(),
            (Left::Gone, _) => "no longer configured".to_owned(),
        };
        text.push_str(&format!("{count} {} {why}\n", summary::noun(state.run.for_each, count)));
        let names = name_some(subjects.iter().map(|subject| subject.as_str()), most);
        for line in wrap(&names, viewer.style.after(4), if options.all { usize::MAX } else { 4 }) {
            text.push_str(&format!("    {line}\n"));
        }
    }
    (!text.is_empty()).then_some(text)
}

/// Why a machine did nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Left {
    Held,
    Superseded,
    Gone,
}

/// What successful attempts remarked; for one service, also why steps were left out.
pub(super) fn notes(state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Option<String> {
    let machines = state.machines.values().filter(|machine| options.shows(&machine.subject));
    let machine_steps = machines.flat_map(|machine| machine.steps.iter().map(|step| (machine.subject.as_str(), step)));
    let run_wide = state.run.steps.iter().filter(|_| options.service.is_none()).map(|step| ("whole run", step));
    let mut lines = Vec::new();
    for (who, step) in machine_steps.chain(run_wide) {
        if options.service.is_some() && !step.status.is_failure() {
            let status = step.status.as_str().replace('-', " ");
            lines.extend(step.why.as_ref().map(|why| format!("{who}  {}   {status}: {why}", step.name)));
        }
        for target in &step.targets {
            let note = target.attempts.last().and_then(|attempt| match &attempt.result {
                Some(AttemptOutcome::Succeeded(success)) => success.note.as_deref(),
                Some(AttemptOutcome::Stale { .. } | AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted) | None => {
                    None
                }
            });
            lines.extend(note.map(|note| format!("{who}  {}   note: {note}", place(&step.name, Some(&target.name)))));
        }
    }
    let most = if options.all || options.service.is_some() { usize::MAX } else { 10 };
    let hidden = lines.len().saturating_sub(most);
    let mut text: String =
        lines.iter().take(most).map(|line| format!("{}\n", output::fit(line, viewer.style.width.min(500)))).collect();
    if hidden > 0 {
        text.push_str(&format!("and {hidden} more notes (--all)\n"));
    }
    (!text.is_empty()).then_some(text)
}

/// What to do about the run as a whole, where the failures do not say it.
pub(super) fn next(view: &RunView, state: &RunState) -> Option<String> {
    let prefix = &view.prefix;
    let unfinished = state.machines.values().any(|machine| match machine.status {
        MachineStatus::Pending | MachineStatus::TimedOut | MachineStatus::Interrupted => true,
        MachineStatus::Running
        | MachineStatus::Succeeded
        | MachineStatus::Failed
        | MachineStatus::Skipped
        | MachineStatus::Gone
        | MachineStatus::Superseded => false,
    });
    match state.run.status {
        RunStatus::Interrupted => {
            Some(format!("next: mt runs resume {prefix}   (what it would do: mt runs resume {prefix} --explain)\n"))
        }
        RunStatus::TimedOut if unfinished => Some(format!("next: mt runs resume {prefix}\n")),
        RunStatus::Running => Some(format!("next: mt runs show {prefix} --watch\n")),
        RunStatus::Succeeded
        | RunStatus::Partial
        | RunStatus::Failed
        | RunStatus::TimedOut
        | RunStatus::Cancelled
        | RunStatus::Superseded
        | RunStatus::Skipped => None,
    }
}
