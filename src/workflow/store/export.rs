//! Everything as text: the backup of a store for which no repair tool exists.

use std::io::{self, Write};
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::error::StoreError;
use super::handle::Store;
use super::keys::{SEQUENCE, STORE_ID, Tree};
use super::record;
use super::sidecar::FORMAT;
use super::view::View;

/// How many records are read in one go: in between, writers and other processes have their turn.
const PORTION: usize = 2_000;

/// The first line of an export.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    store_id: Option<String>,
    sequence: u64,
}

/// Each further line.
#[derive(Debug, Serialize)]
struct Line<'a> {
    tree: &'static str,
    key: &'a str,
    version: u8,
    value: &'a RawValue,
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

impl Store {
    /// Writes every record as a line of JSON, after a line with the format, and gives how many there were. The store stays
    /// usable meanwhile: each portion of records is consistent in itself, and a record that changes is exported once, old
    /// or new. The caller syncs what it writes to.
    ///
    /// # Errors
    /// If the store cannot be read or the writer fails.
    pub fn export(&self, out: &mut dyn Write) -> Result<usize, ExportError> {
        let header = self.read_blocking(header)??;
        writeln!(out, "{}", line(&header)?)?;
        let mut records = 0;
        for tree in Tree::ALL.iter().copied() {
            let mut after = None;
            loop {
                let (lines, last) = self.read_blocking(move |view| portion(view, tree, after.as_deref()))??;
                for line in &lines {
                    out.write_all(line.as_bytes())?;
                    out.write_all(b"\n")?;
                }
                records += lines.len();
                if lines.len() < PORTION {
                    break;
                }
                after = last;
            }
        }
        out.flush()?;
        Ok(records)
    }
}

fn header(view: &View<'_>) -> Result<Header, StoreError> {
    Ok(Header { format: FORMAT, store_id: view.store_id()?.map(|id| id.to_string()), sequence: view.sequence()? })
}

fn line<T: Serialize>(value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value)
        .map_err(|e| StoreError::Unstorable { what: "a line of an export".to_owned(), why: e.to_string() })
}

type Portion = (Vec<String>, Option<String>);

fn portion(view: &View<'_>, tree: Tree, after: Option<&str>) -> Result<Portion, StoreError> {
    let (mut lines, mut last) = (Vec::new(), None);
    view.scan_after(tree, after, &mut |key, bytes| {
        // The store's own identity is in the header; an import makes a new one.
        if tree == Tree::Meta && [STORE_ID, SEQUENCE].iter().any(|own| own.as_bytes() == key) {
            return Ok(ControlFlow::Continue(()));
        }
        let value: Box<RawValue> = record::decode(view.path(), tree, key, bytes)?;
        let key = String::from_utf8_lossy(key);
        lines.push(line(&Line {
            tree: tree.as_str(),
            key: &key,
            version: bytes.first().copied().unwrap_or_default(),
            value: &value,
        })?);
        last = Some(key.into_owned());
        Ok(if lines.len() < PORTION { ControlFlow::Continue(()) } else { ControlFlow::Break(()) })
    })?;
    Ok((lines, last))
}
