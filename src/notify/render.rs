//! The words of a mail: the answer in the subject, then the reason, then the next command.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use jiff::Timestamp;

use super::due::{DueCounter, Kind};
use crate::workflow::definition::{CountsAs, ForEach};
use crate::workflow::event::PlannedStep;
use crate::workflow::id::{Subject, TargetName};
use crate::workflow::run::RunState;

/// All subjects begin with it, for filters.
pub const PREFIX: &str = "[managed tokens]";
/// Longer subjects are cut by mail programs anyway.
const MOST_SUBJECT: usize = 160;

/// What is due, by service, setup first.
fn by_subject(due: &[DueCounter]) -> BTreeMap<&Subject, Vec<&DueCounter>> {
    let mut grouped: BTreeMap<&Subject, Vec<&DueCounter>> = BTreeMap::new();
    for one in due {
        grouped.entry(&one.subject).or_default().push(one);
    }
    for list in grouped.values_mut() {
        list.sort_by_key(|one| (one.kind, one.target.clone()));
    }
    grouped
}

/// The subject of the admins' mail.
pub fn subject(state: &RunState, due: &[DueCounter]) -> String {
    let grouped = by_subject(due);
    let runs = due.iter().map(|one| one.value).max().unwrap_or_default();
    let text = match grouped.iter().next() {
        Some((service, list)) if grouped.len() == 1 => {
            let alone = [Kind::Setup, Kind::News].iter().find_map(|kind| list.iter().find(|one| one.kind == *kind));
            match alone {
                Some(one) => format!("{service}: {}{}", one_line(&one.message), in_a_row(one.value)),
                None => {
                    let failed = list.len();
                    let all = node_count(state, service).max(failed);
                    let nodes = if all == 1 { "node" } else { "nodes" };
                    format!("{service}: token not refreshed on {failed} of {all} {nodes}{}", for_runs(runs))
                }
            }
        }
        Some(_) | None => {
            let names = grouped.keys().map(|service| service.as_str()).collect::<Vec<_>>().join(", ");
            let what = if due.iter().all(|one| one.kind == Kind::News) { "news" } else { "errors" };
            format!("{what} of {} {}: {names}", grouped.len(), noun(state))
        }
    };
    cut(&format!("{PREFIX} {text}"), MOST_SUBJECT)
}

/// The text of the admins' mail.
pub fn body(state: &RunState, due: &[DueCounter]) -> String {
    let mut text = String::new();
    let run = &state.run;
    let host = run.sessions.last().map_or("?", |session| session.by.host.as_str());
    // Writing to a String cannot fail.
    let _ = writeln!(text, "{} on {host}, run of {}", run.workflow, moment(run.started_at));
    for (service, list) in by_subject(due) {
        let _ = writeln!(text, "\n{service}");
        for one in list.iter().filter(|one| one.kind == Kind::Setup) {
            let place = one.target.as_ref().map(|target| format!("{target}: ")).unwrap_or_default();
            let _ = writeln!(text, "  {place}{}", one_line(&one.message));
            if one.failing_runs > 0 {
                let _ = writeln!(text, "    {}", row(one));
            }
            if let Some(next) = &one.next {
                let _ = writeln!(text, "    next: {}", one_line(next));
            }
        }
        for one in list.iter().filter(|one| one.kind == Kind::News) {
            let _ = writeln!(text, "  {}", one_line(&one.message));
        }
        let pushes: Vec<_> = list.iter().filter(|one| one.kind == Kind::Push).collect();
        table(&mut text, &pushes);
        let next: BTreeSet<_> = pushes.iter().filter_map(|one| one.next.as_deref()).map(one_line).collect();
        for next in next {
            let _ = writeln!(text, "    next: {next}");
        }
    }
    let _ = writeln!(text, "\nmt runs show {}", run.id);
    text
}

fn table(text: &mut String, pushes: &[&&DueCounter]) {
    if pushes.is_empty() {
        return;
    }
    let node = |one: &DueCounter| one.target.as_ref().map_or_else(|| "-".to_owned(), ToString::to_string);
    let width = pushes.iter().map(|one| node(one).chars().count()).chain(["Node".len()]).max().unwrap_or_default();
    let _ = writeln!(text, "  {:<width$}  {:>4}  Error", "Node", "Runs");
    for one in pushes {
        let runs = one.failing_runs.max(one.value);
        let _ = writeln!(text, "  {:<width$}  {runs:>4}  {}", node(one), one_line(&one.message));
    }
}

fn row(one: &DueCounter) -> String {
    let since = one.failing_since.map(|at| format!(", since {}", moment(at))).unwrap_or_default();
    let runs = one.failing_runs.max(one.value);
    format!("failing for {runs} {}{since}", if runs == 1 { "run" } else { "runs" })
}

fn noun(state: &RunState) -> &'static str {
    match state.run.for_each {
        ForEach::Service => "services",
        ForEach::Account => "accounts",
    }
}

fn for_runs(runs: u32) -> String {
    if runs > 1 { format!(" for {runs} runs") } else { String::new() }
}

fn in_a_row(runs: u32) -> String {
    if runs > 1 { format!(" ({runs} runs in a row)") } else { String::new() }
}

/// The nodes to which this run was to push for the service.
fn node_count(state: &RunState, service: &Subject) -> usize {
    let pushes = |step: &&PlannedStep| step.counts_as == CountsAs::Push;
    let Some(machine) = state.machines.get(service) else { return 0 };
    let steps: BTreeSet<_> = state.run.plan.iter().filter(pushes).map(|step| &step.name).collect();
    let targets = machine.steps.iter().filter(|step| steps.contains(&step.name)).flat_map(|step| &step.targets);
    targets.map(|target| &target.name).collect::<BTreeSet<&TargetName>>().len()
}

fn moment(at: Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

fn one_line(text: &str) -> String {
    cut(&text.split_whitespace().collect::<Vec<_>>().join(" "), 300)
}

fn cut(text: &str, most: usize) -> String {
    match text.char_indices().nth(most) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
