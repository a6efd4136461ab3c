//! `mt runs resume --explain`: what a resume would do, and why, without doing it.

use serde::Serialize;

use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Viewer};
use crate::workflow::id::{StepName, Subject, TargetName};

/// What a resume makes of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Its recorded success serves.
    Reuse,
    /// It is tried again, or for the first time.
    Redo,
    /// It is no longer configured.
    Gone,
    /// Its recorded outcome stays as it is, though it is no success.
    Keep,
}

impl What {
    /// The public spelling.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reuse => "reuse",
            Self::Redo => "redo",
            Self::Gone => "gone",
            Self::Keep => "keep",
        }
    }

    fn paint(self) -> Paint {
        match self {
            Self::Reuse => Paint::Good,
            Self::Redo => Paint::Warn,
            Self::Gone | Self::Keep => Paint::Faint,
        }
    }
}

/// One decision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
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
            decisions: &explanation.decisions,
            to_finish: explanation.to_finish,
            complete: explanation.complete,
        }),
        OutputFormat::Ndjson => explanation.decisions.iter().map(output::json_line).collect(),
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
                Cell::new(decision.what.as_str(), decision.what.paint()),
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

#[derive(Serialize)]
struct Document<'a> {
    schema_version: u32,
    decisions: &'a [Decision],
    to_finish: usize,
    complete: usize,
}

#[cfg(test)]
mod tests;
