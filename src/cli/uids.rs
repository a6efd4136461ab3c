//! `mt uids list | set`: the UIDs of accounts on the nodes.

use std::collections::{BTreeMap, BTreeSet};

use clap::Subcommand;
use jiff::Timestamp;
use serde::Serialize;

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::output::{self, Cell, OutputFormat, SCHEMA_VERSION, Style};
use super::runs::{self, of_store};
use crate::acting::site::{Global, Site};
use crate::acting::uid_book::follow;
use crate::acting::uids;
use crate::config::AccountName;
use crate::guardian;
use crate::workflow::store::{Access, KnownUid, StateDir, Store, StoreError};

/// `mt uids …`
#[derive(Clone, Debug, Subcommand)]
pub enum UidsCommand {
    /// Every configured account, its UID and where that comes from
    List,
    /// Record the UID of an account
    Set {
        /// The account, as configured
        account: String,
        /// Its numeric id on the nodes
        #[arg(value_parser = clap::value_parser!(u32).range(1..))]
        uid: u32,
    },
}

#[derive(Clone, Debug, Serialize)]
struct Row {
    account: String,
    uid: Option<u32>,
    source: &'static str,
    recorded_at: Option<Timestamp>,
}

/// Dispatches `mt uids …`.
pub fn run(global: &Global, command: &UidsCommand) -> Result<ExitCode, Failed> {
    let site = Site::load(global).map_err(|e| super::of_config(&e))?;
    guardian::refuse_root(&site.state_dir).map_err(|e| Failed::new(e.code(), e.to_string()))?;
    match command {
        UidsCommand::List => list(&site, global.output),
        UidsCommand::Set { account, uid } => set(&site, account, *uid),
    }
}

fn list(site: &Site, format: OutputFormat) -> Result<ExitCode, Failed> {
    let state = StateDir::existing(&site.state_dir).map_err(|e| of_store(&e))?;
    let store = Store::open(&state, Access::ReadOnly).map_err(|e| of_store(&e))?;
    let stored = store.read_blocking(|view| view.uids()).and_then(|u| u).map_err(|e| of_store(&e))?;
    // As a run does that cannot put them into the store.
    let alone = uids::alone(&state.uids_json()).unwrap_or_else(|error| {
        let file = state.uids_json();
        output::write_err(&format!("{} cannot be read, and may have newer UIDs: {error}\n", file.display()));
        BTreeMap::new()
    });
    let rows = rows(site, &stored, alone);
    let text = match format {
        OutputFormat::Table => table(&rows),
        OutputFormat::Json => output::json(&serde_json::json!({ "schema_version": SCHEMA_VERSION, "uids": rows })),
        OutputFormat::Ndjson => rows.iter().map(output::json_line).collect(),
    };
    runs::print(&text)?;
    Ok(ExitCode::Success)
}

fn rows(site: &Site, stored: &BTreeMap<String, KnownUid>, alone: BTreeMap<String, KnownUid>) -> Vec<Row> {
    let newest = uids::newest(stored.clone(), alone);
    let mut overrides: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for service in &site.config.services {
        let given = overrides.entry(service.account.as_str()).or_default();
        given.extend(service.uid_override);
    }
    overrides
        .into_iter()
        .flat_map(|(account, given)| {
            let known = newest.get(account);
            let row = |uid, source, recorded_at| Row { account: account.to_owned(), uid, source, recorded_at };
            let from_store = match known {
                Some(known) if stored.get(account) == Some(known) => {
                    row(Some(known.uid), "store", Some(known.recorded_at))
                }
                Some(known) => row(Some(known.uid), "uids.json; the store gets it", Some(known.recorded_at)),
                None => row(None, "unknown: mt run ferry-refresh, or mt uids set ACCOUNT UID", None),
            };
            let from_overrides: Vec<Row> =
                given.into_iter().map(|uid| row(Some(uid), "desiredUIDOverride", None)).collect();
            if from_overrides.is_empty() { vec![from_store] } else { from_overrides }
        })
        .collect()
}

fn table(rows: &[Row]) -> String {
    let cells = rows.iter().map(|row| {
        let uid = row.uid.map_or_else(|| "-".to_owned(), |uid| uid.to_string());
        vec![Cell::plain(&row.account), Cell::plain(uid), Cell::plain(row.source)]
    });
    output::table(&["ACCOUNT", "UID", "FROM"], cells.collect(), &Style::stdout())
}

fn set(site: &Site, account: &str, uid: u32) -> Result<ExitCode, Failed> {
    let known: Vec<AccountName> = crate::config::Config::accounts(&site.config.services);
    if !known.iter().any(|a| a.as_str() == account) {
        return Err(Failed::new(codes::NO_SUCH_ACCOUNT, format!("no service has the account {account:?}"))
            .next("mt uids list")
            .exit(ExitCode::Usage));
    }
    let state = StateDir::create(&site.state_dir).map_err(|e| of_store(&e))?;
    let store = Store::open(&state, Access::ReadWrite).map_err(|e| of_store(&e))?;
    let name = account.to_owned();
    let before = store
        .write_blocking(move |tx| -> Result<_, StoreError> {
            let before = tx.uid(&name)?;
            tx.put_uid(&name, KnownUid { uid, recorded_at: Timestamp::now() })?;
            Ok(before)
        })
        .map_err(|e| of_store(&e))?;
    let beside = follow(&store, &state.uids_json());
    store.close();
    let was = before.map_or_else(|| "unknown before".to_owned(), |b| format!("was {}", b.uid));
    output::write_err(&format!("{account}: {uid} ({was})\n"));
    beside.map_err(|e| {
        let file = state.uids_json();
        let message = format!("the store has it, and {} does not: {e}", file.display());
        Failed::new(codes::UNEXPECTED, message).next("mend that: the next run brings the file into step")
    })?;
    Ok(ExitCode::Success)
}
