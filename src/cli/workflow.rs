//! `mt workflow list | show | check`: they read files and print, so root may use them too.

use std::io::{self, Write};

use clap::{Args, Subcommand, ValueEnum};
use serde::Serialize;

use super::output::{OutputFormat, SCHEMA_VERSION};
use crate::workflow::definition::{
    Catalog, Diagnostic, Format, Found, Library, Listed, Overrides, Workflow, effective, printable, render, show,
};
use crate::workflow::duration;

/// See, check and draw workflow files.
#[derive(Subcommand, Clone, Debug)]
pub enum WorkflowCommand {
    /// The workflows that can be run, and where each comes from.
    List,
    /// Draw what a workflow will do.
    Show(ShowArgs),
    /// Name every mistake in workflow files, with its line.
    Check(CheckArgs),
}

/// `mt workflow show`.
#[derive(Args, Clone, Debug)]
pub struct ShowArgs {
    /// The name of a workflow, or a path: what holds a / or ends in .ron.
    #[arg(value_name = "NAME|FILE")]
    pub workflow: String,
    /// With the values of the configuration in place, and where each value comes from.
    #[arg(long)]
    pub effective: bool,
    /// How to draw.
    #[arg(long, value_enum, default_value_t)]
    pub format: Drawing,
}

/// `mt workflow check`.
#[derive(Args, Clone, Debug)]
pub struct CheckArgs {
    /// Names of workflows or paths; without any, all workflows of `mt workflow list`.
    #[arg(value_name = "NAME|FILE")]
    pub workflows: Vec<String>,
}

/// `--format` of `show`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Drawing {
    /// For the terminal.
    #[default]
    Text,
    /// A Mermaid state diagram.
    Mermaid,
    /// A Graphviz graph.
    Dot,
}

/// What the commands work with.
pub struct Around<'a> {
    /// Where workflows are found.
    pub library: &'a Library,
    /// The actions there are.
    pub catalog: &'a dyn Catalog,
    /// What the configuration says, or why it cannot be read. Only `show --effective` insists on it.
    pub overrides: Result<Overrides, String>,
    /// Is stdout a terminal, and `NO_COLOR` not set?
    pub colour: bool,
    /// `--output`.
    pub output: OutputFormat,
}

/// The exit code of an invalid workflow.
const INVALID: u8 = 20;

/// Runs a subcommand. The exit code: 0, or 20 for a workflow that cannot be used.
///
/// # Errors
/// `out` or `err` cannot be written.
pub fn run(command: &WorkflowCommand, around: &Around<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    match command {
        WorkflowCommand::List => list(around, out),
        WorkflowCommand::Show(args) => draw(args, around, out, err),
        WorkflowCommand::Check(args) => check(args, around, out),
    }
}

#[derive(Serialize)]
struct Row {
    name: String,
    /// `None`: compiled in.
    file: Option<String>,
    overrides_shipped: bool,
    /// Absent if the file holds errors.
    deadline_seconds: Option<f64>,
    steps: Vec<String>,
    finally: Vec<String>,
    errors: usize,
    #[serde(skip)]
    deadline: Option<String>,
}

impl Row {
    fn of(listed: &Listed, catalog: &dyn Catalog) -> Self {
        let path = match &listed.found {
            Ok(found) => found.path.as_ref().map(|path| path.display().to_string()),
            Err(unreadable) => Some(unreadable.file.clone()),
        };
        let mut row = Self {
            name: listed.name.clone(),
            file: path,
            overrides_shipped: listed.overrides,
            deadline_seconds: None,
            steps: Vec::new(),
            finally: Vec::new(),
            errors: 1,
            deadline: None,
        };
        match listed.found.as_ref().map(|found| found.parse(catalog)) {
            Ok(Ok((workflow, _))) => {
                let names = |steps: &[_]| steps.iter().map(step_name).collect();
                row.deadline_seconds = Some(workflow.deadline.as_secs_f64());
                row.deadline = Some(duration::format(workflow.deadline));
                row.steps = names(&workflow.steps);
                row.finally = names(&workflow.finally);
                row.errors = 0;
            }
            Ok(Err(diagnostics)) => row.errors = diagnostics.iter().filter(|d| d.is_error()).count(),
            Err(_) => {}
        }
        row
    }
}

fn step_name(step: &crate::workflow::definition::Step) -> String {
    step.name.to_string()
}

fn list(around: &Around<'_>, out: &mut dyn Write) -> io::Result<u8> {
    let rows: Vec<_> = around.library.list().iter().map(|listed| Row::of(listed, around.catalog)).collect();
    match around.output {
        OutputFormat::Table => {
            let cells = rows.iter().map(|row| {
                let from = match (row.file.as_deref().map(printable), row.overrides_shipped) {
                    (None, _) => "compiled in".to_owned(),
                    (Some(file), false) => file,
                    (Some(file), true) => format!("{file} (wins over the compiled-in one)"),
                };
                let what = match row.errors {
                    0 => row.steps.iter().chain(&row.finally).cloned().collect::<Vec<_>>().join(" → "),
                    count => format!("{}: mt workflow check {}", counted(count, "error"), printable(&row.name)),
                };
                [printable(&row.name), row.deadline.clone().unwrap_or_else(|| "-".to_owned()), from, what]
            });
            columns(out, [["WORKFLOW", "DEADLINE", "FROM", "STEPS"].map(str::to_owned)].into_iter().chain(cells))?;
        }
        OutputFormat::Json => {
            #[derive(Serialize)]
            struct Document {
                schema_version: u32,
                workflows: Vec<Row>,
            }
            json(out, &Document { schema_version: SCHEMA_VERSION, workflows: rows })?;
        }
        OutputFormat::Ndjson => ndjson(out, &rows)?,
    }
    Ok(0)
}

fn draw(args: &ShowArgs, around: &Around<'_>, out: &mut dyn Write, err: &mut dyn Write) -> io::Result<u8> {
    let (found, workflow, mut warnings) = match read(&args.workflow, around) {
        Ok(read) => read,
        Err(diagnostics) => {
            err.write_all(render(&diagnostics, false).as_bytes())?;
            return Ok(INVALID);
        }
    };
    let overrides = match (&around.overrides, args.effective) {
        (_, false) => Overrides::default(),
        (Ok(overrides), true) => overrides.clone(),
        (Err(why), true) => {
            writeln!(err, "cannot tell which values the configuration sets: {why}")?;
            return Ok(INVALID);
        }
    };
    let format = match args.format {
        Drawing::Text => Format::Text,
        Drawing::Mermaid => Format::Mermaid,
        Drawing::Dot => Format::Dot,
    };
    let effective = effective(&workflow, &overrides, &found.file);
    warnings.extend_from_slice(&effective.warnings);
    out.write_all(show(&effective, around.catalog, format, args.effective).as_bytes())?;
    err.write_all(render(&warnings, false).as_bytes())?;
    Ok(0)
}

fn check(args: &CheckArgs, around: &Around<'_>, out: &mut dyn Write) -> io::Result<u8> {
    let names = match args.workflows.is_empty() {
        true => around.library.list().into_iter().map(|listed| listed.name).collect(),
        false => args.workflows.clone(),
    };
    let mut all = Vec::new();
    let mut fine = Vec::new();
    for name in &names {
        match read(name, around) {
            Ok((found, workflow, mut diagnostics)) => {
                // A configuration that cannot be read has its own command; the file can be checked without it.
                if let Ok(overrides) = &around.overrides {
                    diagnostics.extend(effective(&workflow, overrides, &found.file).warnings);
                }
                if diagnostics.is_empty() {
                    fine.push((found, workflow));
                }
                all.extend(diagnostics);
            }
            Err(diagnostics) => all.extend(diagnostics),
        }
    }
    match around.output {
        OutputFormat::Table => {
            out.write_all(render(&all, around.colour).as_bytes())?;
            for (found, workflow) in &fine {
                writeln!(out, "{}: no mistakes in {}", found.file, size(workflow))?;
            }
            let errors = all.iter().filter(|diagnostic| diagnostic.is_error()).count();
            let counts = [(errors, "error"), (all.len() - errors, "warning")];
            let counts: Vec<_> = counts.iter().filter(|(n, _)| *n > 0).map(|(n, what)| counted(*n, what)).collect();
            if let (false, Some(first)) = (counts.is_empty(), all.first()) {
                writeln!(out, "{}; more about each: mt explain {}", counts.join(" and "), first.code)?;
            }
        }
        OutputFormat::Json => {
            #[derive(Serialize)]
            struct Document<'a> {
                schema_version: u32,
                diagnostics: &'a [Diagnostic],
            }
            json(out, &Document { schema_version: SCHEMA_VERSION, diagnostics: &all })?;
        }
        OutputFormat::Ndjson => ndjson(out, &all)?,
    }
    Ok(if all.iter().any(Diagnostic::is_error) { INVALID } else { 0 })
}

fn read(name: &str, around: &Around<'_>) -> Result<(Found, Workflow, Vec<Diagnostic>), Vec<Diagnostic>> {
    let found = around.library.find(name).map_err(|diagnostic| vec![diagnostic])?;
    let (workflow, warnings) = found.parse(around.catalog)?;
    Ok((found, workflow, warnings))
}

fn size(workflow: &Workflow) -> String {
    format!("{} and {} in finally", counted(workflow.steps.len(), "step"), workflow.finally.len())
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

fn columns<const N: usize>(out: &mut dyn Write, rows: impl Iterator<Item = [String; N]>) -> io::Result<()> {
    let rows: Vec<_> = rows.collect();
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    for row in rows {
        let line: String = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}  ")).collect();
        writeln!(out, "{}", line.trim_end())?;
    }
    Ok(())
}

fn json(out: &mut dyn Write, value: &impl Serialize) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, value)?;
    writeln!(out)
}

fn ndjson(out: &mut dyn Write, values: &[impl Serialize]) -> io::Result<()> {
    for value in values {
        serde_json::to_writer(&mut *out, value)?;
        writeln!(out)?;
    }
    Ok(())
}
