//! `mt runs resume --explain`: what a resume would do, and why, without doing it.

use serde::Serialize;

use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Viewer};
use crate::workflow::id::{StepName, Subject, TargetName};
use crate::workflow::resume::What;

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Whose; `None` for a run-wide step.
    pub subject: Option<Subject>,
    /// Which step.
    pub step: StepName,
    /// On what; `-` for a step that does not fan out.
    pub target: TargetName,
    /// What.
    pub what: What,
    /// Why, in a few words.
    pub why: String,
}

/// The decisions and how many machines they are about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Explanation {
    /// In the order of machines and steps; machines that are complete need not be in it.
    pub decisions: Vec<Decision>,
    /// Machines with something left to do.
    pub to_finish: usize,
    /// Machines with nothing left to do.
    pub complete: usize,
}

/// The explanation as it is to be printed.
pub fn render(explanation: &Explanation, format: OutputFormat, viewer: &Viewer) -> String {
    match format {
        OutputFormat::Table => text(explanation, viewer),
        OutputFormat::Json => output::json(&Document {
            schema_version: SCHEMA_VERSION,
            decisions: explanation.decisions.iter().map(DecisionJson::of).collect(),
            to_finish: explanation.to_finish,
            complete: explanation.complete,
        }),
        OutputFormat::Ndjson => explanation
            .decisions
            .iter()
            .map(DecisionJson::of)
            .map(|decision| output::json_line(&LineJson { schema_version: SCHEMA_VERSION, decision }))
            .collect(),
    }
}

fn text(explanation: &Explanation, viewer: &Viewer) -> String {
    let rows: Vec<Vec<Cell>> = explanation
        .decisions
        .iter()
        .map(|decision| {
            vec![
                Cell::plain(decision.subject.as_ref().map_or("whole run", Subject::as_str)),
                Cell::plain(decision.step.as_str()),
                Cell::plain(decision.target.as_str()),
                Cell::new(decision.what.as_str(), paint(decision.what)),
                Cell::plain(&decision.why),
            ]
        })
        .collect();
    let mut text = String::new();
    if !rows.is_empty() {
        text = output::table(&["SERVICE", "STEP", "TARGET", "WHAT", "WHY"], rows, &viewer.style);
    }
    let machines = if explanation.to_finish == 1 { "machine" } else { "machines" };
    text.push_str(&format!(
        "{} {machines} to finish, {} complete. Nothing was started (--explain).\n",
        explanation.to_finish, explanation.complete
    ));
    text
}

fn paint(what: What) -> Paint {
    match what {
        What::Reuse => Paint::Good,
        What::Redo => Paint::Warn,
        What::Gone | What::Leave => Paint::Faint,
    }
}

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    decisions: Vec<DecisionJson<'a>>,
    to_finish: usize,
    complete: usize,
}

#[derive(Serialize)]
struct LineJson<'a> {
    schema_version: u32,
    #[serde(flatten)]
    decision: DecisionJson<'a>,
}

#[derive(Serialize)]
struct DecisionJson<'a> {
    subject: Option<&'a Subject>,
    step: &'a StepName,
    target: &'a TargetName,
    what: &'static str,
    why: &'a str,
}

impl<'a> DecisionJson<'a> {
    fn of(decision: &'a Decision) -> Self {
        let Decision { subject, step, target, what, why } = decision;
        Self { subject: subject.as_ref(), step, target, what: what.as_str(), why }
    }
}

#[cfg(test)]
mod tests;
