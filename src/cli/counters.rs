//! `mt counters list | reset`: consecutive errors across runs, and who has been told.

use std::collections::BTreeMap;

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, Paint, SCHEMA_VERSION, Style};
use super::runs::{self, of_store};
use super::time::Clock;
use crate::acting::site::{Global, Site};
use crate::guardian;
use crate::workflow::counters::{Counter, CounterKey};
use crate::workflow::id::{RunId, Subject, TargetName};
use crate::workflow::store::{Access, StateDir, Store, StoreError};

/// `mt counters …`
#[derive(Clone, Debug, Subcommand)]
pub enum CountersCommand {
    /// Every service and node with errors in a row, and whether somebody was told
    List,
    /// Forget the errors of a service, as if its last run had gone well; nobody is told
    Reset {
        /// The service
        service: String,
        /// Its errors on this node only
        node: Option<String>,
    },
}

/// One counter, as JSON has it.
#[derive(Clone, Debug, Serialize)]
struct Row {
    service: String,
    /// Null: the service's own errors, before any push.
    node: Option<String>,
    /// Errors that nobody has been told of.
    value: u32,
    /// At how many somebody is told.
    threshold: u32,
    failing_runs: u32,
    failing_since: Option<Timestamp>,
    /// Somebody has been told of the present row.
    told: bool,
    run: String,
    reported_by: Option<String>,
}

/// Dispatches `mt counters …`.
pub fn run(global: &Global, command: &CountersCommand) -> Result<ExitCode, Failed> {
    let site = Site::load(global).map_err(|e| super::of_config(&e))?;
    guardian::refuse_root(&site.state_dir).map_err(|e| Failed::new(e.code(), e.to_string()))?;
    match command {
        CountersCommand::List => list(&site, global.output),
        CountersCommand::Reset { service, node } => reset(&site, service, node.as_deref()),
    }
}

fn list(site: &Site, format: OutputFormat) -> Result<ExitCode, Failed> {
    let state = StateDir::existing(&site.state_dir).map_err(|e| of_store(&e))?;
    let store = Store::open(&state, Access::ReadOnly).map_err(|e| of_store(&e))?;
    let counters =
        store.read_blocking(|view| view.counters::<Counter>("")).and_then(|c| c).map_err(|e| of_store(&e))?;
    let threshold = site.config.error_count_to_send_message;
    let failing = counters.into_iter().map(|(_, counter)| counter).filter(|c| c.value > 0 || c.failing_runs > 0);
    let rows: Vec<Row> = failing.map(|counter| row(&counter, threshold)).collect();
    let text = match format {
        OutputFormat::Table if rows.is_empty() => "no service has errors in a row\n".to_owned(),
        OutputFormat::Table => table(&rows, &Clock::system()),
        OutputFormat::Json => output::json(&serde_json::json!({ "schema_version": SCHEMA_VERSION, "counters": rows })),
        OutputFormat::Ndjson => rows.iter().map(output::json_line).collect(),
    };
    runs::print(&text)?;
    Ok(ExitCode::Success)
}

fn row(counter: &Counter, threshold: u32) -> Row {
    Row {
        service: counter.key.subject.to_string(),
        node: counter.key.target.as_ref().map(ToString::to_string),
        value: counter.value,
        threshold,
        failing_runs: counter.failing_runs,
        failing_since: counter.failing_since,
        told: counter.told,
        run: counter.run.to_string(),
        reported_by: counter.reported_by.as_ref().map(RunId::to_string),
    }
}

fn table(rows: &[Row], clock: &Clock) -> String {
    let cells = rows.iter().map(|row| {
        let since = row.failing_since.map_or_else(|| "-".to_owned(), |since| clock.ago(since));
        let runs = if row.failing_runs == 1 { "1 run".to_owned() } else { format!("{} runs", row.failing_runs) };
        let paint = if row.value >= row.threshold { Paint::Bad } else { Paint::Plain };
        vec![
            Cell::plain(&row.service),
            Cell::plain(row.node.as_deref().unwrap_or("(setup)")),
            Cell::new(format!("{} of {}", row.value, row.threshold), paint),
            Cell::plain(format!("{runs}, since {since}")),
            Cell::plain(if row.told { "told" } else { "-" }),
        ]
    });
    output::table(&["SERVICE", "NODE", "ERRORS", "FAILING FOR", "ADMINS"], cells.collect(), &Style::stdout())
}

fn reset(site: &Site, service: &str, node: Option<&str>) -> Result<ExitCode, Failed> {
    let state = StateDir::existing(&site.state_dir).map_err(|e| of_store(&e))?;
    let store = Store::open(&state, Access::ReadWrite).map_err(|e| of_store(&e))?;
    let subject = Subject::new(service.to_lowercase());
    let wanted = node.map(TargetName::new);
    let removed = store
        .write_blocking(move |tx| -> Result<BTreeMap<CounterKey, u32>, StoreError> {
            let found = tx.counters::<Counter>(subject.as_str())?;
            // A prefix also finds the counters of a service whose name begins with this one's.
            let of_service = found.into_iter().map(|(_, counter)| counter).filter(|c| c.key.subject == subject);
            let chosen = of_service.filter(|c| wanted.is_none() || c.key.target == wanted);
            let mut removed = BTreeMap::new();
            for counter in chosen {
                tx.remove_counter(&counter.key.as_key());
                removed.insert(counter.key, counter.value);
            }
            Ok(removed)
        })
        .map_err(|e| of_store(&e))?;
    store.close();
    if removed.is_empty() {
        let known = site.config.services.iter().any(|s| s.name.as_str() == service.to_lowercase());
        let what = node.map_or_else(|| service.to_owned(), |node| format!("{service} on {node}"));
        if !known {
            return Err(Failed::new(codes::NO_SUCH_SERVICE, format!("nothing is counted for {what:?}"))
                .next("mt counters list")
                .exit(ExitCode::Usage));
        }
        output::write_err(&format!("nothing was counted for {what}\n"));
        return Ok(ExitCode::Success);
    }
    for (key, value) in removed {
        let node = key.target.map_or_else(|| "(setup)".to_owned(), |node| node.to_string());
        output::write_err(&format!("{} {node}: 0 (was {value})\n", key.subject));
    }
    Ok(ExitCode::Success)
}
