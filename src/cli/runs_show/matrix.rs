//! Machines by steps, at a glance.

use std::collections::BTreeMap;

use super::super::output::{Cell, Paint, Viewer, table, table_fits, wrap};
use super::super::summary::noun;
use super::trouble::paint;
use super::{RunView, ShowOptions, Told, is_healthy, name_some};
use crate::workflow::definition::ForEach;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::StepName;
use crate::workflow::run::{Machine, RunState, StepState, TargetState};
use crate::workflow::status::{MachineStatus, StepStatus};

/// One line of the matrix.
struct Row {
    label: String,
    steps: Vec<Cell>,
    remark: Remark,
}

/// What stands beside the steps.
#[derive(PartialEq)]
enum Remark {
    Nothing,
    /// Who was told.
    Told(String, Paint),
    /// The line stands for machines that are not listed.
    Hidden,
}

/// The table; `None` if the run has no machine to show. Where the last column has no room, its texts follow the table.
pub(super) fn render(view: &RunView, state: &RunState, options: &ShowOptions, viewer: &Viewer) -> Option<String> {
    let rows = rows(view, state, options);
    if rows.is_empty() {
        return None;
    }
    let tells = !view.told.is_empty();
    let mut header = vec![match state.run.for_each {
        ForEach::Service => "SERVICE",
        ForEach::Account => "ACCOUNT",
    }];
    header.extend(state.run.plan.iter().map(|planned| planned.name.as_str()));
    let cells = |row: &Row| -> Vec<Cell> { [&[Cell::plain(&row.label)], row.steps.as_slice()].concat() };
    let bare: Vec<Vec<Cell>> = rows.iter().map(cells).collect();
    let mut whole = bare.clone();
    for (cells, row) in whole.iter_mut().zip(&rows) {
        cells.push(match &row.remark {
            Remark::Nothing => Cell::plain(if tells { "-" } else { "" }),
            Remark::Told(text, paint) => Cell::new(text, *paint),
            Remark::Hidden => Cell::new("(--all lists them)", Paint::Faint),
        });
    }
    let wide_header = [header.as_slice(), &[if tells { "notify" } else { "" }]].concat();
    if table_fits(&wide_header, &whole, &viewer.style) {
        return Some(table(&wide_header, whole, &viewer.style));
    }
    Some(table(&header, bare, &viewer.style) + &below(&rows, viewer))
}

fn rows(view: &RunView, state: &RunState, options: &ShowOptions) -> Vec<Row> {
    let one_by_one = options.all || options.service.is_some();
    let mut rows = Vec::new();
    let (mut healthy, mut waiting) = (Vec::new(), Vec::new());
    for machine in state.machines.values().filter(|machine| options.shows(&machine.subject)) {
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
            | MachineStatus::Interrupted => rows.push(one(machine, view)),
        }
    }
    let alone = rows.is_empty() && (waiting.is_empty() || healthy.is_empty());
    for (machines, name) in [(waiting, "not begun"), (healthy, "others")] {
        let count = u32::try_from(machines.len()).unwrap_or(u32::MAX);
        match machines.as_slice() {
            [] => {}
            [machine] => rows.push(one(machine, view)),
            many => {
                // Said once is enough.
                rows.iter_mut().filter(|row| row.remark == Remark::Hidden).for_each(|row| row.remark = Remark::Nothing);
                let steps = state.run.plan.iter().map(|planned| folded(&planned.name, many)).collect();
                let label = if alone {
                    format!("{count} {}", noun(state.run.for_each, count))
                } else {
                    format!("{count} {name}")
                };
                rows.push(Row { label, steps, remark: Remark::Hidden });
            }
        }
    }
    rows
}

/// The line of one machine.
fn one(machine: &Machine, view: &RunView) -> Row {
    let step = |name: &StepName| machine.steps.iter().find(|step| step.name == *name);
    Row {
        label: machine.subject.to_string(),
        steps: view.state.run.plan.iter().map(|planned| cell(step(&planned.name))).collect(),
        remark: view.told.get(&machine.subject).map_or(Remark::Nothing, telling),
    }
}

/// What has no room beside the steps: who was told, those with the same words together.
fn below(rows: &[Row], viewer: &Viewer) -> String {
    let mut told: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for row in rows {
        if let Remark::Told(text, _) = &row.remark {
            told.entry(text).or_default().push(&row.label);
        }
    }
    let mut lines: Vec<String> =
        told.into_iter().map(|(text, names)| format!("notify: {text}: {}", name_some(names.into_iter(), 6))).collect();
    if rows.iter().any(|row| row.remark == Remark::Hidden) {
        lines.push("--all lists every one".to_owned());
    }
    let lines = lines.iter().flat_map(|line| wrap(line, viewer.style.width, 4));
    lines.map(|line| format!("{line}\n")).collect()
}

/// One step of many machines that are not told one by one.
fn folded(name: &StepName, machines: &[&Machine]) -> Cell {
    let did = |machine: &&Machine| {
        machine.steps.iter().any(|step| step.name == *name && step.status == StepStatus::Succeeded)
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
fn telling(told: &Told) -> Remark {
    let (text, paint) = match told {
        Told::Sent { channel, row: 1 } => (format!("{channel} sent"), Paint::Plain),
        Told::Sent { channel, row } => (format!("{channel} sent ({} failure in a row)", ordinal(*row)), Paint::Plain),
        Told::BelowLimit { row, limit } => (format!("below the limit ({row} of {limit})"), Paint::Plain),
        Told::Waiting => ("not sent yet".to_owned(), Paint::Busy),
        Told::PerhapsSent => ("perhaps sent".to_owned(), Paint::Busy),
    };
    Remark::Told(text, paint)
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
