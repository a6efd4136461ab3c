//! The state machines as pictures, drawn by asking the functions that the engine runs on.

use std::collections::BTreeMap;
use std::fmt::{Debug, Write};

use super::machine::{
    Illegal, MachineInput, RunInput, StepInput, TargetInput, next_machine, next_run, next_step, next_target,
};
use super::status::{MachineStatus, RunStatus, StepStatus};

/// The page `docs/state-machines.md`.
pub fn page() -> String {
    let mut page = String::from(
        "# State machines\n\nGenerated from `src/workflow/machine.rs`; a test compares this page with the code.\n\
         A pair of status and event that has no arrow is an error that names both. Loops are left out.\n",
    );
    let statuses = |all: &[StepStatus]| all.iter().map(|s| (*s, s.as_str())).collect::<Vec<_>>();
    section(
        &mut page,
        "A run",
        &RunStatus::ALL.iter().map(|s| (*s, s.as_str())).collect::<Vec<_>>(),
        &RunInput::all(),
        next_run,
    );
    section(
        &mut page,
        "A machine",
        &MachineStatus::ALL.iter().map(|s| (*s, s.as_str())).collect::<Vec<_>>(),
        MachineInput::ALL,
        next_machine,
    );
    section(&mut page, "A step", &statuses(StepStatus::ALL), &StepInput::all(), next_step);
    section(&mut page, "A target", &statuses(StepStatus::ALL), TargetInput::ALL, next_target);
    page
}

fn section<S: Copy + PartialEq, I: Copy + Debug>(
    page: &mut String,
    title: &str,
    statuses: &[(S, &str)],
    inputs: &[I],
    next: impl Fn(S, I) -> Result<S, Illegal>,
) {
    let name = |status: S| statuses.iter().find(|(s, _)| *s == status).map_or("?", |(_, name)| *name);
    // One arrow per pair of statuses, with every event that takes it.
    let mut arrows: BTreeMap<(usize, usize), Vec<String>> = BTreeMap::new();
    for (from, (status, _)) in statuses.iter().enumerate() {
        for &input in inputs {
            let Ok(after) = next(*status, input) else { continue };
            let Some(to) = statuses.iter().position(|(s, _)| *s == after) else { continue };
            let label = label(&format!("{input:?}"));
            let labels = arrows.entry((from, to)).or_default();
            if from != to && !labels.contains(&label) {
                labels.push(label);
            }
        }
    }
    // Writing to a String cannot fail.
    let _ = writeln!(page, "\n## {title}\n\n```mermaid\nstateDiagram-v2");
    for (status, text) in statuses {
        let id = name(*status).replace('-', "_");
        let _ = if id == *text { writeln!(page, "    {id}") } else { writeln!(page, "    {id} : {text}") };
    }
    for ((from, to), labels) in arrows.iter().filter(|(_, labels)| !labels.is_empty()) {
        let (from, to) = (statuses[*from].1.replace('-', "_"), statuses[*to].1.replace('-', "_"));
        let _ = writeln!(page, "    {from} --> {to} : {}", labels.join(", "));
    }
    page.push_str("```\n");
}

/// The event's name without what does not matter to the reader.
fn label(debug: &str) -> String {
    let words = debug.split(['{', '(']).next().unwrap_or(debug).trim().to_owned();
    let qualifiers = [("Done", "done"), ("Deadline", "deadline"), ("Finished", "finished"), ("Lost", "lost")];
    let more = [("Interrupted", "interrupted"), ("Cancelled", "cancelled")];
    let inside = debug.strip_prefix(words.as_str()).unwrap_or_default();
    let found = qualifiers.iter().chain(&more).find(|(word, _)| inside.contains(&format!("how: {word}")));
    match found {
        Some((_, word)) => format!("{words} {word}"),
        None => words,
    }
}
