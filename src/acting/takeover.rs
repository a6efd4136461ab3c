//! The existing service's database, taken over once: its UIDs and its error counters.
//!
//! A site that replaces the package between two hourly runs must have a good run next. So the first start that finds no
//! UID in the store looks for the SQLite file at `dbLocation`. The file is only read: what SQLite opens is a copy in
//! the private directory, with its journals, so that a half-finished write of the old service is undone in the copy.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OpenFlags, Row};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use crate::acting::uid_book::{follow, plain};
use crate::acting::uids;
use crate::config::{Config, DEFAULT_STATE_DIRECTORY};
use crate::steps::ferry::codes::TAKEOVER;
use crate::workflow::counters::{Counter, CounterKey};
use crate::workflow::id::{RunId, Subject, TargetName};
use crate::workflow::input_file;
use crate::workflow::store::{KnownUid, StateDir, Store, StoreError, Tx, View};

/// Where the existing service keeps its database when `dbLocation` does not say otherwise.
const DEFAULT_FILE: &str = "uid.db";
/// The store's mark that it was done.
const MARK: &str = "taken-over";
/// What the existing service writes into its file's header.
const APPLICATION: i64 = 0x5da8_2553;
/// The newest version of its tables that is known.
const SCHEMA: i64 = 1;
/// It holds a few hundred short rows.
const MOST_BYTES: u64 = 64 * 1024 * 1024;

/// Why the file was not taken over.
#[derive(Debug, thiserror::Error)]
pub enum TakeoverError {
    /// It cannot be read or copied.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// `read`, `copy` or `make`.
        doing: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is something else, or too new.
    #[error("{}: {why}", path.display())]
    Foreign {
        /// Which.
        path: PathBuf,
        /// What it is.
        why: String,
    },
    /// SQLite cannot read it.
    #[error("{}: {source}", path.display())]
    Sqlite {
        /// Which.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
}

/// What the file holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// By account.
    pub uids: BTreeMap<String, u32>,
    /// Consecutive errors of a service (no node) or of a service and a node; none is 0.
    pub counters: BTreeMap<(String, Option<String>), u32>,
    /// Rows that make no sense.
    pub odd: usize,
}

/// What was taken, as the store remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    at: Timestamp,
    file: PathBuf,
    uids: usize,
    counters: usize,
}

/// Takes the file over if the store has no UID yet and never did so before. A file that cannot be used is a warning.
/// Blocks.
pub fn once(store: &Store, state: &StateDir, config: &Config, private: &Path) {
    let database = config.db_location.clone().unwrap_or_else(|| Path::new(DEFAULT_STATE_DIRECTORY).join(DEFAULT_FILE));
    match store.read_blocking(is_wanted).and_then(|wanted| wanted) {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            return tracing::warn!(code = %error.code(), "cannot see whether UIDs are to be taken over: {error}");
        }
    }
    let mut found = match read(&database, private) {
        Ok(Some(found)) => found,
        Ok(None) => {
            let file = database.display();
            return tracing::info!(%file, "no UID is known yet, and there is no database of the existing service to take over");
        }
        Err(error) => {
            return tracing::warn!(code = %TAKEOVER, "the existing service's database is not taken over: {error}");
        }
    };
    if found.odd > 0 {
        tracing::warn!(code = %TAKEOVER, rows = found.odd, "rows of {} make no sense and are left out", database.display());
    }
    // What was recorded while the store could not be used is newer.
    let newer = match uids::alone(&state.uids_json()) {
        Ok(newer) => newer,
        Err(error) if uids::is_damaged(&error) => BTreeMap::new(),
        // The next run tries it again.
        Err(error) => {
            let file = state.uids_json();
            let file = file.display();
            return tracing::warn!(code = %TAKEOVER, "the existing service's database is not taken over: cannot read {file}: {error}");
        }
    };
    found.uids.retain(|account, _| !newer.contains_key(account));
    let (file, known) = (database.clone(), Known::of(config));
    match store.write_blocking(move |tx| take(tx, &file, &found, &known)) {
        Ok(None) => {}
        Ok(Some(taken)) => {
            let (uids, counters, file) = (taken.uids.len(), taken.counters, database.display());
            tracing::info!(uids, counters, %file, "took over UIDs and error counters of the existing service; its file stays as it is");
            if let Err(error) = follow(store, &state.uids_json()) {
                tracing::warn!("cannot write {}: {error}", state.uids_json().display());
            }
        }
        Err(error) => tracing::warn!(code = %error.code(), "cannot record what was taken over: {error}"),
    }
}

fn is_wanted(view: &View<'_>) -> Result<bool, StoreError> {
    Ok(view.mark::<Mark>(MARK)?.is_none() && view.uids()?.is_empty())
}

/// The counters that mean something here.
struct Known(BTreeSet<(String, Option<String>)>);

impl Known {
    fn of(config: &Config) -> Self {
        let of_service = |service: &crate::config::Service| {
            let name = service.name.to_string();
            let nodes = service.nodes.iter().map(|node| Some(node.to_string()));
            nodes.chain([None]).map(move |node| (name.clone(), node)).collect::<Vec<_>>()
        };
        Self(config.services.iter().flat_map(of_service).collect())
    }
}

/// What was taken over.
struct Taken {
    uids: BTreeMap<String, u32>,
    counters: usize,
}

/// Records it; `None` if another process was quicker.
fn take(tx: &mut Tx<'_>, file: &Path, found: &Found, known: &Known) -> Result<Option<Taken>, StoreError> {
    if !is_wanted(tx)? {
        return Ok(None);
    }
    let at = Timestamp::now();
    for (account, uid) in &found.uids {
        tx.put_uid(account, KnownUid { uid: *uid, recorded_at: at })?;
    }
    let mut counters = 0;
    for (place, value) in found.counters.iter().filter(|(place, _)| known.0.contains(*place)) {
        let (service, node) = place;
        let key = CounterKey { subject: Subject::new(service), target: node.as_deref().map(TargetName::new) };
        if tx.counter::<Counter>(&key.as_key())?.is_none() {
            tx.put_counter(&key.as_key(), &counter(key.clone(), *value))?;
            counters += 1;
        }
    }
    let mark = Mark { at, file: file.to_owned(), uids: found.uids.len(), counters };
    tx.put_mark(MARK, &mark)?;
    Ok(Some(Taken { uids: plain(tx.uids()?), counters }))
}

/// As if a run before all others had left it.
fn counter(key: CounterKey, value: u32) -> Counter {
    let run = RunId(Ulid::nil());
    Counter {
        key,
        value,
        run,
        before: value,
        reported_by: None,
        failing_since: None,
        failing_runs: value,
        told: false,
        recovered_by: None,
    }
}

/// What the file holds; `None` if there is none. `private` gets a copy for as long as this takes.
pub fn read(database: &Path, private: &Path) -> Result<Option<Found>, TakeoverError> {
    let cannot_read = |source| TakeoverError::Io { doing: "read", path: database.to_owned(), source };
    let meta = match std::fs::metadata(database) {
        Ok(meta) => meta,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(cannot_read(error)),
    };
    let foreign = |why: String| TakeoverError::Foreign { path: database.to_owned(), why };
    if !meta.is_file() {
        return Err(foreign("it is no file".to_owned()));
    }
    if meta.len() > MOST_BYTES {
        return Err(foreign(format!("it has {} bytes, which the existing service never needs", meta.len())));
    }
    let copies = private.join(MARK);
    let cannot_make = |source| TakeoverError::Io { doing: "make", path: copies.clone(), source };
    std::fs::create_dir(&copies).map_err(cannot_make)?;
    let found = copy(database, &copies).and_then(|copy| read_copy(&copy, database));
    if let Err(error) = std::fs::remove_dir_all(&copies) {
        tracing::debug!(%error, "a copy of the existing service's database stays in the private directory");
    }
    found.map(Some)
}

/// Copies the database and what belongs to it. SQLite finds journals by their names.
fn copy(database: &Path, directory: &Path) -> Result<PathBuf, TakeoverError> {
    let to = directory.join(DEFAULT_FILE);
    for suffix in ["", "-wal", "-journal"] {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let (from, to) = (beside(database), beside(&to));
        // Its UIDs decide where tokens go: it is trusted as a configuration is. SQLite must be able to write the copy.
        let copied = input_file::read(&from, MOST_BYTES).and_then(|bytes| {
            let mut new = std::fs::OpenOptions::new();
            new.write(true).create_new(true).mode(0o600).open(&to)?.write_all(&bytes)
        });
        match copied {
            Err(error) if !suffix.is_empty() && error.kind() == io::ErrorKind::NotFound => {}
            copied => copied.map_err(|source| TakeoverError::Io { doing: "copy", path: from, source })?,
        }
    }
    Ok(to)
}

fn read_copy(copy: &Path, database: &Path) -> Result<Found, TakeoverError> {
    let sqlite = |source| TakeoverError::Sqlite { path: database.to_owned(), source };
    let foreign = |why: String| TakeoverError::Foreign { path: database.to_owned(), why };
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(copy, flags).map_err(sqlite)?;
    let number = |pragma| connection.query_row(pragma, [], |row| row.get::<_, i64>(0)).map_err(sqlite);
    let application = number("PRAGMA application_id")?;
    if application != APPLICATION {
        return Err(foreign(format!("it is not the existing service's (application id {application:#x})")));
    }
    let version = number("PRAGMA user_version")?;
    if version > SCHEMA {
        return Err(foreign(format!("its tables have version {version}, and this mt knows {SCHEMA}")));
    }
    let check: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(sqlite)?;
    if check != "ok" {
        return Err(foreign(format!("it is damaged: {check}")));
    }

    let mut found = Found::default();
    rows(&connection, "SELECT username, uid FROM uids", |row| {
        let uid = whole(row, 1).filter(|uid| *uid > 0);
        match (name(row, 0), uid) {
            (Some(account), Some(uid)) => drop(found.uids.insert(account, uid)),
            (None, _) | (_, None) => found.odd += 1,
        }
    })
    .map_err(sqlite)?;
    // An older version of the service counted no errors.
    let counts = "SELECT count(*) FROM sqlite_master WHERE type = 'table' AND name IN ('setup_errors', 'push_errors')";
    if number(counts)? < 2 {
        return Ok(found);
    }
    let setup = "SELECT s.name, NULL, e.count FROM setup_errors e JOIN services s ON s.id = e.service_id";
    let push = "SELECT s.name, n.name, e.count FROM push_errors e JOIN services s ON s.id = e.service_id JOIN nodes n ON n.id = e.node_id";
    for (query, has_node) in [(setup, false), (push, true)] {
        rows(&connection, query, |row| match (name(row, 0), name(row, 1), whole(row, 2)) {
            (Some(_), node, Some(0)) if node.is_some() == has_node => {}
            (Some(service), node, Some(count)) if node.is_some() == has_node => {
                found.counters.insert((service, node), count);
            }
            (_, _, _) => found.odd += 1,
        })
        .map_err(sqlite)?;
    }
    Ok(found)
}

fn rows(connection: &Connection, query: &str, mut each: impl FnMut(&Row<'_>)) -> rusqlite::Result<()> {
    let mut statement = connection.prepare(query)?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        each(row);
    }
    Ok(())
}

/// A column that holds a name.
fn name(row: &Row<'_>, column: usize) -> Option<String> {
    match row.get_ref(column).ok()? {
        ValueRef::Text(text) => {
            let text = std::str::from_utf8(text).ok()?;
            let fine = !text.is_empty() && text.len() <= 255 && !text.chars().any(|c| c.is_control() || c == '/');
            fine.then(|| text.to_owned())
        }
        ValueRef::Null | ValueRef::Integer(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

/// A column that holds a whole number. SQLite keeps any type in any column.
fn whole(row: &Row<'_>, column: usize) -> Option<u32> {
    match row.get_ref(column).ok()? {
        ValueRef::Integer(number) => u32::try_from(number).ok().filter(|number| *number < u32::MAX),
        ValueRef::Null | ValueRef::Text(_) | ValueRef::Real(_) | ValueRef::Blob(_) => None,
    }
}

#[cfg(test)]
mod tests;
