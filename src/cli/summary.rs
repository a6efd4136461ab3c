//! The last word of `mt run`: one line that answers, and where it leads. Without a terminal nothing is said when all is well.

use std::collections::{BTreeMap, BTreeSet};

use super::exit::ExitCode;
use super::output::{self, Viewer, write_err};
use super::runs_list::{paint, spoken};
use super::runs_show::{RunView, Trouble};
use super::time;
use crate::workflow::definition::ForEach;
use crate::workflow::status::{MachineStatus, RunStatus};

/// What [`counts`] says of skipped machines.
const HELD: &str = "held by another run";

/// How much room the counts have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Length {
    /// `48 ok, 2 failed`.
    Short,
    /// `48 services succeeded, 2 failed`.
    Long,
}

/// What the machines of a run came to, in words; nothing that is zero is named.
pub fn counts(tally: &BTreeMap<MachineStatus, u32>, kind: ForEach, length: Length, status: RunStatus) -> String {
    let of = |statuses: &[MachineStatus]| -> u32 { statuses.iter().filter_map(|status| tally.get(status)).sum() };
    let live = status == RunStatus::Running;
    let ok = match length {
        Length::Short => "ok",
        Length::Long => "succeeded",
    };
    let mut parts = vec![(of(&[MachineStatus::Succeeded]), ok), (of(&[MachineStatus::Failed]), "failed")];
    if live {
        parts.push((of(&[MachineStatus::TimedOut, MachineStatus::Interrupted]), "not finished"));
        parts.push((of(&[MachineStatus::Running]), "running"));
        parts.push((of(&[MachineStatus::Pending]), "to come"));
    } else {
        let unfinished =
            [MachineStatus::TimedOut, MachineStatus::Interrupted, MachineStatus::Running, MachineStatus::Pending];
        parts.push((of(&unfinished), "not finished"));
    }
    parts.push((of(&[MachineStatus::Skipped]), HELD));
    parts.push((of(&[MachineStatus::Superseded]), "done by a newer run"));
    parts.push((of(&[MachineStatus::Gone]), "no longer configured"));
    parts.retain(|(count, _)| *count > 0);

    let words: Vec<String> = parts
        .iter()
        .enumerate()
        .map(|(index, (count, word))| match (length, index) {
            (Length::Long, 0) => format!("{count} {} {word}", noun(kind, *count)),
            (Length::Long | Length::Short, _) => format!("{count} {word}"),
        })
        .collect();
    if words.is_empty() { format!("no {}", noun(kind, 0)) } else { words.join(", ") }
}

/// `service`, `services`, `account`, `accounts`.
pub fn noun(kind: ForEach, count: u32) -> &'static str {
    match (kind, count) {
        (ForEach::Service, 1) => "service",
        (ForEach::Service, _) => "services",
        (ForEach::Account, 1) => "account",
        (ForEach::Account, _) => "accounts",
    }
}

/// The answer in one line, without a line end: `run 01k4q8vt partial: 48 services succeeded, 2 failed in 8.1s   →  mt runs show 01k4q8vt`.
/// A run that the store did not take cannot be shown or resumed, and says so.
pub fn line(view: &RunView, recorded: bool, viewer: &Viewer) -> String {
    let state = view.told();
    let run = &state.run;
    let status = viewer.style.paint(paint(run.status), &spoken(run.status));
    let counts = counts(&run.tally, run.for_each, Length::Long, run.status);
    let holders = holders(view);
    let counts = if holders.is_empty() { counts } else { counts.replace(HELD, &format!("held by run {holders}")) };
    let took = view.took(viewer.clock.now).map(|took| format!(" in {}", time::duration(took))).unwrap_or_default();
    let next = match (recorded, run.status) {
        (false, _) => "not recorded: the store could not be used, see the log".to_owned(),
        (true, RunStatus::Interrupted) => format!("mt runs resume {}", view.prefix),
        (
            true,
            RunStatus::Running
            | RunStatus::Succeeded
            | RunStatus::Partial
            | RunStatus::Failed
            | RunStatus::TimedOut
            | RunStatus::Cancelled
            | RunStatus::Superseded
            | RunStatus::Skipped,
        ) => format!("mt runs show {}", view.prefix),
    };
    format!("run {} {status}: {counts}{took}   →  {next}", view.prefix)
}

/// The runs that hold this one's skipped machines.
fn holders(view: &RunView) -> String {
    let skipped = view.state.machines.values().filter(|machine| machine.status == MachineStatus::Skipped);
    let holders: BTreeSet<_> = skipped.filter_map(|machine| machine.other_run).collect();
    holders.iter().map(|holder| view.other(holder)).collect::<Vec<_>>().join(", ")
}

/// What `mt run` leaves on stderr. On a terminal always the line above. Elsewhere (cron) nothing if the exit code is 0, else
/// the line and one more for each failure, because the code alone explains nothing. Empty, or ends with a line end.
pub fn closing(view: &RunView, terminal: bool, code: ExitCode, recorded: bool, viewer: &Viewer) -> String {
    match (terminal, code) {
        (true, _) => format!("{}\n", line(view, recorded, viewer)),
        (false, ExitCode::Success) => String::new(),
        (
            false,
            ExitCode::Unexpected
            | ExitCode::Usage
            | ExitCode::SomeFailed
            | ExitCode::AllFailed
            | ExitCode::Invalid
            | ExitCode::StoreUnusable
            | ExitCode::Skipped
            | ExitCode::Interrupted
            | ExitCode::Terminated,
        ) => {
            let mut text = format!("{}\n", line(view, recorded, viewer));
            for trouble in view.troubles() {
                text.push_str(&one_line(&trouble));
                text.push('\n');
            }
            text
        }
    }
}

/// Prints [`closing`].
pub fn print_closing(view: &RunView, terminal: bool, code: ExitCode, recorded: bool, viewer: &Viewer) {
    write_err(&closing(view, terminal, code, recorded, viewer));
}

/// `mu2e_production  push → mu2e03.fnal.gov  failed: connection refused [MT0042]`.
fn one_line(trouble: &Trouble) -> String {
    let reason = match trouble.last() {
        Some(failure) => format!("{} [{}]", failure.message, failure.code),
        None => trouble.why.clone().unwrap_or_else(|| "no attempt was made".to_owned()),
    };
    let text = format!("  {}  {}  {}: {reason}", trouble.who(), trouble.place(), trouble.verdict());
    output::fit(&text, MAIL_LINE)
}

/// Cron mails what we print: longer lines do not survive every mail server.
const MAIL_LINE: usize = 500;

#[cfg(test)]
mod tests;
