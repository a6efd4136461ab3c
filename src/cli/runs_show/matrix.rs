//! Machines by steps, at a glance.

use super::super::output::{Cell, Paint, Viewer, table};
use super::super::summary::noun;
use super::trouble::paint;
use super::{RunView, ShowOptions, Told, is_healthy};
use crate::workflow::definition::ForEach;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::run::{Machine, RunState, StepState, TargetState};
use crate::workflow::status::{MachineStatus, StepStatus};

/// The table; `None` if the run has no machine to show.
pub(super) fn render(view: &RunView, state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Option<String> {
    let mut rows = Vec::new();
    let (mut healthy, mut waiting) = (Vec::new(), Vec::new());
    let told = !view.told.is_empty();
    let steps: Vec<&str> = state.run.plan.iter().map(|planned| planned.name.as_str()).collect();
    for machine in state.machines.values().filter(|machine| options.shows(&machine.subject)) {
        let one_by_one = options.all || options.service.is_some();
        match machine.status {
            // Told in a sentence of their own.
            MachineStatus::Skipped | MachineStatus::Superseded | MachineStatus::Gone => continue,
            MachineStatus::Pending if !one_by_one => waiting.push(machine),
            MachineStatus::Succeeded if !one_by_one && is_healthy(machine) => healthy.push(machine),
            MachineStatus::Pending
            | MachineStatus::Running
            | MachineStatus::Succeeded
            | MachineStatus::Failed
            | MachineStatus::TimedOut
            | MachineStatus::Interrupted => {
                let mut row = vec![Cell::plain(machine.subject.as_str())];
                row.extend(steps.iter().map(|name| machine.steps.iter().find(|s| s.name.as_str() == *name)).map(cell));
                row.push(
                    view.told.get(&machine.subject).map_or_else(|| Cell::plain(if told { "-" } else { "" }), telling),
                );
                rows.push(row);
            }
        }
    }
    let alone = rows.is_empty() && waiting.is_empty();
    for (machines, name) in [(&waiting, "not begun"), (&healthy, "others")] {
        if machines.is_empty() {
            continue;
        }
        let count = u32::try_from(machines.len()).unwrap_or(u32::MAX);
        let label = if alone { format!("{count} {}", noun(view.kind, count)) } else { format!("{count} {name}") };
        let mut row = vec![Cell::new(label, Paint::Faint)];
        row.extend(steps.iter().map(|name| folded(name, machines)));
        row.push(Cell::new("(--all lists them)", Paint::Faint));
        rows.push(row);
    }
    if rows.is_empty() {
        return None;
    }
    let mut header = vec![match view.kind {
        ForEach::Service => "SERVICE",
        ForEach::Account => "ACCOUNT",
    }];
    header.extend(&steps);
    header.push(if told { "notify" } else { "" });
    Some(table(&header, rows, &viewer.style))
}

/// One step of many machines that are not told one by one.
fn folded(name: &str, machines: &[&Machine]) -> Cell {
    let did = |machine: &&Machine| {
        machine.steps.iter().any(|step| step.name.as_str() == name && step.status == StepStatus::Succeeded)
    };
    if machines.iter().any(did) { Cell::new("ok", Paint::Good) } else { Cell::new("-", Paint::Faint) }
}

/// One step of one machine: a word, or how many of its targets are fine.
fn cell(step: Option<&StepState>) -> Cell {
    let Some(step) = step else { return Cell::new("-", Paint::Faint) };
    let counted: Vec<&TargetState> = step.targets.iter().filter(|target| target.status != StepStatus::Gone).collect();
    let fans_out = counted.iter().any(|target| !target.name.is_only());
    if fans_out && step.status != StepStatus::NeedsHuman && step.status != StepStatus::Skipped {
        let fine = counted.iter().filter(|target| target.status == StepStatus::Succeeded).count();
        let mark = if step.status == StepStatus::Running { " running" } else { "" };
        let paint = if step.status == StepStatus::Pending { Paint::Warn } else { paint(step.status) };
        return Cell::new(format!("{fine}/{}{mark}", counted.len()), paint);
    }
    let cut_off = step.targets.iter().any(|target| {
        target.attempts.last().is_some_and(|attempt| matches!(attempt.result, Some(AttemptOutcome::Interrupted)))
    });
    let word = match step.status {
        StepStatus::Succeeded => "ok",
        StepStatus::Running => "running",
        StepStatus::Stale => "stale",
        StepStatus::Failed => "failed",
        StepStatus::NeedsHuman => "NEEDS YOU",
        StepStatus::TimedOut => "timed out",
        StepStatus::Gone => "gone",
        StepStatus::Pending if cut_off => return Cell::new("cut off", Paint::Warn),
        StepStatus::Pending | StepStatus::NotAttempted | StepStatus::Skipped => "-",
    };
    Cell::new(word, paint(step.status))
}

/// Was somebody told?
fn telling(told: &Told) -> Cell {
    match told {
        Told::Sent { channel, row: 1 } => Cell::plain(format!("{channel} sent")),
        Told::Sent { channel, row } => Cell::plain(format!("{channel} sent ({} failure in a row)", ordinal(*row))),
        Told::BelowLimit { row, limit } => Cell::plain(format!("below the limit ({row} of {limit})")),
        Told::Waiting => Cell::new("not sent yet", Paint::Busy),
        Told::NotSent { why } => Cell::new(format!("not sent: {why}"), Paint::Bad),
        Told::Off => Cell::new("notifications off", Paint::Faint),
    }
}

fn ordinal(number: u32) -> String {
    let ending = match (number % 10, number % 100) {
        (_, 11..=13) => "th",
        (1, _) => "st",
        (2, _) => "nd",
        (3, _) => "rd",
        (_, _) => "th",
    };
    format!("{number}{ending}")
}
