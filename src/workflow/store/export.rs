//! Everything as text: the backup of a store for which no repair tool exists, and what is left of a damaged one.
//!
//! The first line is a [`Header`], the last an [`End`]; each line between them is one record. An export without its last
//! line was cut off.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::StoreError;
use super::handle::{Options, Store};
use super::keys::{SEQUENCE, STORE_ID, Tree};
use super::record;
use super::salvage::repeated;
use super::sidecar::FORMAT;
use super::source::Source;
use super::state_dir::StateDir;
use super::view::View;

/// How many records are read in one go: in between, writers and other processes have their turn.
const PORTION: usize = 2_000;

/// So many records that cannot be read are named one by one.
pub(super) const NAMED: usize = 20;

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Header {
    pub(super) format: u32,
    pub(super) store_id: Option<String>,
    pub(super) sequence: u64,
}

/// Each further line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    tree: &'static str,
    key: &'a str,
    version: u8,
    value: &'a RawValue,
}

/// The last line.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct End {
    /// How many records there are.
    pub(super) records: usize,
    /// What the store must have held and could not be read, in words.
    pub(super) missing: Vec<String>,
}

#[derive(Serialize, Deserialize)]
pub(super) struct EndLine {
    pub(super) end: End,
}

/// What was exported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exported {
    /// Records.
    pub records: usize,
    /// Runs among them.
    pub runs: usize,
    /// What could not be read, in words; empty: everything was.
    pub missing: Vec<String>,
    /// Why sled did not open the store, if so: the records were read from its log.
    pub salvaged: Option<String>,
}

/// Writing the export failed.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export could not be written.
    #[error("cannot write the export: {0}")]
    Write(#[from] io::Error),
}

impl Exported {
    /// Is it all that was ever recorded? A store that could not be opened may have held more than anybody can tell.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty() && self.salvaged.is_none()
    }
}

impl Store {
    /// Writes every record as a line of JSON, after a line with the format and before one with their number. The store
    /// stays usable meanwhile: each portion of records is consistent in itself, and a record that changes is exported
    /// once, old or new. The caller syncs what it writes to.
    ///
    /// # Errors
    /// If the store cannot be read or the writer fails.
    pub fn export(&self, out: &mut dyn Write) -> Result<Exported, ExportError> {
        export_from(&Source::Store(self.clone()), out)
    }
}

/// [`Store::export`] for a store in any condition: what sled does not open is read from its log.
///
/// `begin` gives a writer to write to from the beginning. It is called again if sled, in the middle, does not go on.
///
/// # Errors
/// As [`Store::export`].
pub fn export<W: Write>(
    state: &StateDir,
    options: &Options,
    mut begin: impl FnMut() -> io::Result<W>,
) -> Result<(Exported, W), ExportError> {
    let source = Source::of(state, options)?;
    let mut out = begin()?;
    let first = export_from(&source, &mut out);
    let by_sled = matches!(source, Source::Store(_));
    source.close();
    match first {
        Err(ExportError::Store(why @ (StoreError::Damaged { .. } | StoreError::Io { .. }))) if by_sled => {
            let mut out = begin()?;
            Ok((export_from(&Source::salvaged(state, options, why)?, &mut out)?, out))
        }
        other => other.map(|exported| (exported, out)),
    }
}

fn export_from(source: &Source, out: &mut dyn Write) -> Result<Exported, ExportError> {
    writeln!(out, "{}", line(&source.look(header)?)?)?;
    let mut exported = Exported::default();
    if let Source::Salvaged { from, why, .. } = source {
        exported.salvaged = Some(why.to_string());
        exported.missing.clone_from(&from.trouble);
    }
    let mut unreadable: BTreeMap<Tree, Vec<String>> = BTreeMap::new();
    for tree in Tree::ALL.iter().copied() {
        let mut after = None;
        loop {
            let portion = source.look(move |view| portion(view, tree, after.as_deref()))?;
            for line in &portion.lines {
                out.write_all(line.as_bytes())?;
                out.write_all(b"\n")?;
            }
            exported.records += portion.lines.len();
            exported.runs += if tree == Tree::Runs { portion.lines.len() } else { 0 };
            if !portion.unreadable.is_empty() {
                unreadable.entry(tree).or_default().extend(portion.unreadable);
            }
            if portion.last.is_none() {
                break;
            }
            after = portion.last;
        }
    }
    for (tree, keys) in unreadable {
        let named = keys.iter().take(NAMED).cloned().collect::<Vec<_>>().join(", ");
        let more = if keys.len() > NAMED { ", …" } else { "" };
        exported.missing.push(format!("{} records of its tree {tree} cannot be read: {named}{more}", keys.len()));
    }
    exported.missing = repeated(exported.missing);
    let end = End { records: exported.records, missing: exported.missing.clone() };
    writeln!(out, "{}", line(&EndLine { end })?)?;
    out.flush()?;
    Ok(exported)
}

fn header(view: &View<'_>) -> Result<Header, StoreError> {
    // A damaged store may not know its own name.
    let store_id = known(view.store_id())?.flatten().map(|id| id.to_string());
    let sequence = known(view.sequence())?.unwrap_or(0);
    Ok(Header { format: FORMAT, store_id, sequence })
}

fn known<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn line<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|e| StoreError::Unstorable { what: "a line of an export".to_owned(), why: e.to_string() })
}

#[derive(Default)]
struct Portion {
    lines: Vec<String>,
    unreadable: Vec<String>,
    /// Where to go on; `None`: this was the end of the tree.
    last: Option<String>,
}

fn portion(view: &View<'_>, tree: Tree, after: Option<&str>) -> Result<Portion, StoreError> {
    let mut portion = Portion::default();
    let mut seen = 0;
    view.scan_after(tree, after, &mut |key, bytes| {
        if seen == PORTION {
            return Ok(ControlFlow::Break(()));
        }
        seen += 1;
        let key_text = String::from_utf8_lossy(key).into_owned();
        portion.last = Some(key_text.clone());
        // The store's own identity is in the header; an import makes a new one.
        if tree == Tree::Meta && [STORE_ID, SEQUENCE].iter().any(|own| own.as_bytes() == key) {
            return Ok(ControlFlow::Continue(()));
        }
        match record::decode::<Box<RawValue>>(view.path(), tree, key, bytes) {
            Ok(value) => portion.lines.push(line(&Line {
                tree: tree.as_str(),
                key: &key_text,
                version: bytes.first().copied().unwrap_or_default(),
                value: &value,
            })?),
            Err(StoreError::Damaged { .. }) => portion.unreadable.push(key_text.replace('\0', " ")),
            Err(other) => return Err(other),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    if seen < PORTION {
        portion.last = None;
    }
    Ok(portion)
}
