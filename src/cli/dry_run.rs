//! `mt run --dry-run`: what would be done, step by step. Starts nothing, asks nobody, writes nothing.

use std::collections::BTreeMap;

use serde::Serialize;

use super::error::Failed;
use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, SCHEMA_VERSION, Style};
use super::runs;
use super::summary::noun;
use crate::acting::site::{Global, Site};
use crate::acting::subjects::subject_of;
use crate::config::{Credds, Service, TokenGetter};
use crate::workflow::definition::{ForEach, Mode, Per, Step, Workflow};
use crate::workflow::id::Subject;

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Row {
    service: String,
    step: String,
    action: String,
    targets: Vec<String>,
    remark: Option<String>,
}

/// Prints the plan of a run.
pub fn print(
    global: &Global,
    _site: &Site,
    workflow: &Workflow,
    services: &[Service],
    mode: Mode,
) -> Result<ExitCode, Failed> {
    let for_each = workflow.for_each;
    // An account stands for all services that have it.
    let subjects: BTreeMap<_, _> = services.iter().rev().map(|s| (subject_of(for_each, s), s)).collect();
    let rows: Vec<Row> = subjects
        .iter()
        .flat_map(|(subject, service)| workflow.steps.iter().map(move |step| row(subject, service, step, mode)))
        .collect();
    let text = match global.output {
        OutputFormat::Table => table(&rows, workflow, subjects.len()),
        OutputFormat::Json => output::json(&serde_json::json!({
            "schema_version": SCHEMA_VERSION, "workflow": workflow.name, "mode": mode, "steps": rows,
        })),
        OutputFormat::Ndjson => rows.iter().map(output::json_line).collect(),
    };
    runs::print(&text)?;
    Ok(ExitCode::Success)
}

fn row(subject: &Subject, service: &Service, step: &Step, mode: Mode) -> Row {
    let (targets, remark) = if step.when.contains(&mode) {
        targets(service, step)
    } else {
        (Vec::new(), Some("this mode leaves it out".to_owned()))
    };
    Row { service: subject.to_string(), step: step.name.to_string(), action: step.action.name.clone(), targets, remark }
}

fn targets(service: &Service, step: &Step) -> (Vec<String>, Option<String>) {
    match step.per {
        Per::Subject => (vec!["-".to_owned()], None),
        Per::Node => (service.nodes.iter().map(ToString::to_string).collect(), None),
        Per::Credd => match (&service.token_getter, &service.credds) {
            (TokenGetter::GetToken, _) => (Vec::new(), Some("tokenGetterOverride is getToken: no credd".to_owned())),
            (TokenGetter::StoreAndGetToken, Credds::Fixed(credd)) => (vec![credd.to_string()], None),
            (TokenGetter::StoreAndGetToken, Credds::Collector { collectors, .. }) => {
                let asked =
                    if collectors.is_empty() { "HTCondor's own".to_owned() } else { collectors.join(", then ") };
                (Vec::new(), Some(format!("credds are asked of the collector: {asked}")))
            }
        },
    }
}

fn table(rows: &[Row], workflow: &Workflow, subjects: usize) -> String {
    let cells = rows.iter().map(|row| {
        let what = match &row.remark {
            Some(remark) => remark.clone(),
            None => row.targets.join(" "),
        };
        vec![Cell::plain(&row.service), Cell::plain(&row.step), Cell::plain(what)]
    });
    let header = match workflow.for_each {
        ForEach::Service => "SERVICE",
        ForEach::Account => "ACCOUNT",
    };
    let table = output::table(&[header, "STEP", "TARGETS"], cells.collect(), &Style::stdout());
    let noun = noun(workflow.for_each, u32::try_from(subjects).unwrap_or(u32::MAX));
    format!("{table}{}: {subjects} {noun}. Nothing was started (--dry-run).\n", workflow.name)
}
