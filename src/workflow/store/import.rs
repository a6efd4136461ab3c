//! A fresh store from an export, or an empty one. What was there before is put aside, never removed.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jiff::Timestamp;
use serde::Deserialize;
use serde_json::value::RawValue;
use ulid::Ulid;

use super::check::{self, Remedy};
use super::error::{NOT_IMPORTED, StoreError};
use super::export::{EndLine, Header, NAMED};
use super::fresh::{Fresh, put_in_place, sidecar_of};
use super::handle::{Access, Options};
use super::keys::{self, Tree};
use super::lock::Line as TurnLine;
use super::open::{Opened, read_all};
use super::record;
use super::sidecar::{FORMAT, Sidecar, newer, sync_directory};
use super::state_dir::StateDir;
use super::view::{KnownUid, View};
use crate::crash_point::{CrashPoint, pass};
use crate::workflow::code::Code;
use crate::workflow::id::RunId;
use crate::workflow::input_file;

/// No line has more bytes. The longest that `mt` writes are definitions, of a file of 256 KiB at most, and records of runs.
const MOST_LINE: u64 = 64 << 20;

/// No store has made so many commits. One that says so could make no more.
const MOST_COMMITS: u64 = u64::MAX >> 1;

/// What the fresh store gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum From {
    /// The records of an export.
    File {
        /// The export.
        path: PathBuf,
        /// Take what there is of a file that was cut off or is damaged.
        partial: bool,
    },
    /// Nothing.
    Empty,
}

/// What is to be done.
#[derive(Clone, Debug)]
pub struct ImportOrder {
    /// What the fresh store gets.
    pub from: From,
    /// UIDs that were recorded beside the store. They win: they are written with every change, when the store cannot be
    /// used too.
    pub uids: BTreeMap<String, u32>,
    /// Put a store aside that is whole and not empty.
    pub replace: bool,
}

/// What was done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Records, those of the file.
    pub records: usize,
    /// Runs that the store has now.
    pub runs: usize,
    /// Where the store is that was there before.
    pub aside: Option<PathBuf>,
    /// Runs that were not whole, what was wrong with them, and what became of them.
    pub mended: Vec<(RunId, String)>,
    /// What the export lacks, in its own words.
    pub missing: Vec<String>,
    /// UIDs taken from beside the store that the export did not have so.
    pub uids: usize,
}

/// Why no fresh store was made. What was there before is there still.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The export.
    #[error("cannot read the export {}: {source}", path.display())]
    Read {
        /// The export.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Something else than an export.
    #[error("cannot import {}: line {line} is not what an export has there: {why}; take another export, or what can be read of it with --partial", path.display())]
    Strange {
        /// The file.
        path: PathBuf,
        /// Where.
        line: usize,
        /// What is wrong.
        why: String,
    },
    /// A newer `mt` wrote it.
    #[error("cannot import {}: a newer mt gave it format {format}, this one knows {FORMAT}; install that version of mt here too", path.display())]
    Newer {
        /// The export.
        path: PathBuf,
        /// Its format.
        format: u32,
    },
    /// Its end is missing.
    #[error("cannot import {}: it was cut off after {records} records; take another, or what there is with --partial", path.display())]
    CutOff {
        /// The export.
        path: PathBuf,
        /// How many there are.
        records: usize,
    },
    /// The store in place is whole.
    #[error("the store {} is whole and holds {runs} runs and {uids} UIDs: it is not replaced; --replace puts it aside and does it", path.display())]
    InUse {
        /// The store.
        path: PathBuf,
        /// Its runs.
        runs: usize,
        /// Its UIDs.
        uids: usize,
    },
}

impl ImportError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        match self {
            Self::Store(error) => error.code(),
            Self::Read { .. } | Self::Strange { .. } | Self::CutOff { .. } | Self::InUse { .. } => NOT_IMPORTED,
            Self::Newer { .. } => super::error::NEWER,
        }
    }
}

/// Makes the fresh store, puts the present one aside and the fresh one in its place. Holds the store all the time: runs that
/// begin meanwhile wait, or go on unrecorded if it takes too long.
///
/// A kill leaves the present store, or a state that says it is damaged and is mended by importing again.
///
/// # Errors
/// [`ImportError`]; nothing was changed then.
pub fn import(state: &StateDir, order: &ImportOrder, options: &Options) -> Result<Imported, ImportError> {
    let _turn = TurnLine::new(state).turn(options.patience)?;
    let why_aside = present(state, order.replace, options)?;
    // Opening it never waits: others wait for us.
    let export = match &order.from {
        From::File { path, partial } => {
            let failed = |source| ImportError::Read { path: path.clone(), source };
            Some((path.as_path(), BufReader::new(input_file::open(path).map_err(failed)?), *partial))
        }
        From::Empty => None,
    };
    let now = Timestamp::now();
    let (new, made, mut imported) = make(state, order, options, export, now)?;
    let (store_id, sequence) = made;
    if let Some(why) = why_aside {
        imported.aside = put_aside(state, why, now, &sidecar_of(&new, store_id, sequence)?)?;
    }
    put_in_place(state, &new, store_id, sequence)?;
    Ok(imported)
}

/// An export that is open, its name, and whether what there is of it is enough.
type Export<'a> = (&'a Path, BufReader<File>, bool);

/// Fills the fresh store beside its place: where it is, its id and sequence.
fn make(
    state: &StateDir,
    order: &ImportOrder,
    options: &Options,
    export: Option<Export<'_>>,
    now: Timestamp,
) -> Result<(PathBuf, (Ulid, u64), Imported), ImportError> {
    let mut fresh = Fresh::begin(state, options.min_free)?;
    let mut imported = Imported::default();
    let mut sequence = 0;
    if let Some((path, file, partial)) = export {
        sequence = read(path, file, partial, &mut fresh, &mut imported)?;
    }
    mend(&mut fresh, &mut imported)?;
    for (account, uid) in &order.uids {
        let known = fresh.view().uid(account);
        if known.ok().flatten().is_some_and(|known| known.uid == *uid) {
            continue;
        }
        let value = record::encode(Tree::Uids, account, &KnownUid { uid: *uid, recorded_at: now })?;
        fresh.put(Tree::Uids, account.as_bytes(), &value)?;
        imported.uids += 1;
    }
    let store_id = Ulid::new();
    let new = fresh.finish(store_id, sequence)?;
    Ok((new, (store_id, sequence), imported))
}

/// What the present store is put aside as; `None`: there is none.
fn present(state: &StateDir, replace: bool, options: &Options) -> Result<Option<&'static str>, ImportError> {
    match Sidecar::read(&state.sidecar(), &state.store()) {
        // What a newer mt keeps where this one does not look is not to be taken for nothing.
        Ok(Some(Sidecar { format, .. })) if format > FORMAT && !replace => {
            return Err(newer("replace", &state.store(), format).into());
        }
        // Opening it says what is wrong.
        Ok(_) | Err(_) => {}
    }
    match held(state, options) {
        Ok(None) => Ok(None),
        Ok(Some((0, 0))) => Ok(Some("replaced")),
        Ok(Some(_)) if replace => Ok(Some("replaced")),
        Ok(Some((runs, uids))) => Err(ImportError::InUse { path: state.store(), runs, uids }),
        Err(StoreError::Damaged { .. }) => Ok(Some("damaged")),
        Err(StoreError::Io { .. }) if read_through(&state.store()).is_err_and(|e| is_of_the_disk(&e)) => {
            Ok(Some("damaged"))
        }
        Err(StoreError::Newer { .. }) if replace => Ok(Some("replaced")),
        Err(other) => Err(other.into()),
    }
}

/// How many runs and UIDs there are in a store of which every record can be read.
fn held(state: &StateDir, options: &Options) -> Result<Option<(usize, usize)>, StoreError> {
    let Some(opened) = Opened::open_caught(state, Access::ReadOnly, options.min_free, &Arc::default())? else {
        return Ok(None);
    };
    let path = state.store();
    let view = View::new(Some(opened.base()), None, &path);
    let held = read_all(&view).and_then(|()| Ok((view.newest_runs(usize::MAX)?.len(), view.uids()?.len())));
    held.map(Some)
}

/// Does the disk, or the file system, withhold what is there? Then nobody can read it. Not for want of a file descriptor or of
/// memory, say.
fn is_of_the_disk(error: &io::Error) -> bool {
    let withheld = [libc::EIO, libc::EUCLEAN, libc::EBADMSG, libc::ENODATA, libc::EILSEQ, libc::EREMOTEIO];
    error.raw_os_error().is_some_and(|errno| withheld.contains(&errno))
}

fn read_through(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() {
            read_through(&entry.path())?;
        } else if kind.is_file() {
            let (file, mut buffer, mut at) = (File::open(entry.path())?, vec![0; 1 << 20], 0);
            while let read @ 1.. = file.read_at(&mut buffer, at)? {
                at += read as u64;
            }
        }
    }
    Ok(())
}

/// One line of the file that is neither its first nor its last.
#[derive(Deserialize)]
struct RecordLine<'a> {
    tree: String,
    key: String,
    version: u8,
    #[serde(borrow)]
    value: &'a RawValue,
}

/// Copies the records of the file and gives the sequence the exported store had.
fn read(
    path: &Path,
    mut file: BufReader<File>,
    partial: bool,
    fresh: &mut Fresh,
    imported: &mut Imported,
) -> Result<u64, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let (mut text, mut number) = (Vec::new(), 0);
    let mut header: Option<Header> = None;
    let mut left_out = LeftOut::default();
    loop {
        text.clear();
        let length = file.by_ref().take(MOST_LINE).read_until(b'\n', &mut text).map_err(failed)?;
        let whole = text.pop_if(|last| *last == b'\n').is_some();
        let end = serde_json::from_slice::<EndLine>(&text).ok();
        let strange = |why: String| ImportError::Strange { path: path.to_owned(), line: number + 1, why };
        if length as u64 == MOST_LINE && !whole {
            return Err(strange(format!("it is longer than {} MiB", MOST_LINE >> 20)));
        }
        if length == 0 || (!whole && end.is_none()) {
            break;
        }
        if header.is_none() {
            let first: Header = serde_json::from_slice(&text).map_err(|e| strange(e.to_string()))?;
            if first.format > FORMAT {
                return Err(ImportError::Newer { path: path.to_owned(), format: first.format });
            }
            if first.sequence > MOST_COMMITS {
                return Err(strange(format!("no store has made {} commits", first.sequence)));
            }
            header = Some(first);
            number += 1;
            continue;
        }
        if let Some(EndLine { end }) = end {
            let why = format!("it says that there are {} records, and {} came", end.records, imported.records);
            imported.missing = end.missing;
            match (end.records == imported.records, partial) {
                (true, _) => {}
                (false, true) => imported.missing.push(format!("records of the export: {why}")),
                (false, false) => return Err(strange(why)),
            }
            imported.missing.extend(left_out.told());
            return Ok(header.map_or(0, |header| header.sequence));
        }
        let record = record_of(&text).map_err(strange);
        number += 1;
        let (tree, key, value) = match record {
            Ok(record) => record,
            Err(_) if partial => {
                left_out.unreadable.push(number);
                continue;
            }
            Err(strange) => return Err(strange),
        };
        imported.records += 1;
        match check::is_one_of_ours(path, tree, &key, &value) {
            Ok(()) => fresh.put(tree, key.as_bytes(), &value)?,
            Err(newer @ StoreError::Newer { .. }) => return Err(newer.into()),
            Err(_) => left_out.add(tree, number),
        }
    }
    match header {
        None => Err(ImportError::Strange { path: path.to_owned(), line: 1, why: "it is empty".to_owned() }),
        Some(header) if partial => {
            imported.missing.push("the end of the export".to_owned());
            imported.missing.extend(left_out.told());
            Ok(header.sequence)
        }
        Some(_) => Err(ImportError::CutOff { path: path.to_owned(), records: imported.records }),
    }
}

/// A record as it lies in a store.
fn record_of(text: &[u8]) -> Result<(Tree, String, Vec<u8>), String> {
    let line: RecordLine<'_> = serde_json::from_slice(text).map_err(|e| e.to_string())?;
    let tree = Tree::ALL.iter().copied().find(|tree| tree.as_str() == line.tree);
    let tree = tree.ok_or_else(|| format!("there is no tree {:?}", line.tree.chars().take(20).collect::<String>()))?;
    Ok((tree, line.key, [&[line.version], line.value.get().as_bytes()].concat()))
}

/// What of an export does not come into the store.
#[derive(Default)]
struct LeftOut {
    /// Records that `mt` does not write, by tree: how many, and the line of the first. In the store they would be damage that
    /// no further export and import mends.
    strange: BTreeMap<Tree, (usize, usize)>,
    /// Lines that are no records.
    unreadable: Vec<usize>,
}

impl LeftOut {
    fn add(&mut self, tree: Tree, line: usize) {
        self.strange.entry(tree).or_insert((0, line)).0 += 1;
    }

    fn told(&self) -> impl Iterator<Item = String> {
        let lines = self.unreadable.len();
        let named: Vec<String> = self.unreadable.iter().take(NAMED).map(ToString::to_string).collect();
        let more = if lines > NAMED { ", …" } else { "" };
        let unreadable = format!("{lines} lines of the export cannot be read: {}{more}", named.join(", "));
        let strange = self.strange.iter().map(|(tree, (count, line))| {
            format!(
                "{count} records of the tree {tree} that no mt writes were left out, the first of them in line {line}"
            )
        });
        strange.chain((lines > 0).then_some(unreadable))
    }
}

/// Makes every run consistent that is not: a run whose record and history disagree could neither be resumed nor trusted.
fn mend(fresh: &mut Fresh, imported: &mut Imported) -> Result<(), StoreError> {
    fresh.write()?;
    let runs = check::known_runs(&fresh.view())?;
    imported.runs = runs.len();
    for run in runs {
        let Some(finding) = check::look_at(&fresh.view(), run)? else { continue };
        let became = match finding.remedy {
            Remedy::Keep => "kept as it is",
            Remedy::Rebuild(state) => {
                let events = keys::event(run, state.run.events);
                remove(fresh, Tree::Machines, &keys::of_run(run, ""), "")?;
                remove(fresh, Tree::Events, &keys::of_run(run, ""), &events)?;
                for machine in state.machines.values() {
                    let key = keys::machine(run, &machine.subject);
                    fresh.put(Tree::Machines, key.as_bytes(), &record::encode(Tree::Machines, &key, machine)?)?;
                }
                let key = keys::run(run);
                fresh.put(Tree::Runs, key.as_bytes(), &record::encode(Tree::Runs, &key, &state.run)?)?;
                "made anew from its history"
            }
            Remedy::Drop => {
                fresh.remove(Tree::Runs, keys::run(run).as_bytes())?;
                for tree in [Tree::Machines, Tree::Events, Tree::Outbox] {
                    remove(fresh, tree, &keys::of_run(run, ""), "")?;
                }
                imported.runs -= 1;
                "lost"
            }
        };
        imported.mended.push((run, format!("{}: {became}", finding.what)));
    }
    fresh.write()
}

/// Removes the records whose key begins so, from this key on.
fn remove(fresh: &mut Fresh, tree: Tree, prefix: &str, from: &str) -> Result<(), StoreError> {
    let mut doomed = Vec::new();
    fresh.view().scan_raw(tree, prefix, &mut |key, _| {
        if key >= from.as_bytes() {
            doomed.push(key.to_vec());
        }
        Ok(std::ops::ControlFlow::Continue(()))
    })?;
    doomed.iter().try_for_each(|key| fresh.remove(tree, key))
}

/// Renames the store and keeps its sidecar under the same name; gives the store's new place, or the sidecar's if that was
/// all there was.
///
/// A sidecar stands all the while: that of before, or, where none was, that of the store to come. Whoever opens the place
/// after a kill finds no store, or not the one it speaks of, and never takes the place for one where nothing has been.
fn put_aside(state: &StateDir, why: &str, now: Timestamp, to_come: &Sidecar) -> Result<Option<PathBuf>, StoreError> {
    let time = now.strftime("%Y%m%dT%H%M%SZ").to_string();
    let named = |name: String| state.path().join(name);
    let aside = (1..)
        .map(|n| if n == 1 { format!("store.{why}-{time}") } else { format!("store.{why}-{time}-{n}") })
        .find(|name| !named(name.clone()).exists() && !named(format!("{name}.json")).exists())
        .unwrap_or_default();
    let (store, sidecar) = (named(aside.clone()), named(format!("{aside}.json")));
    let moved = |done: io::Result<()>, from: &Path| match done {
        Ok(()) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(StoreError::io("put aside", from, e)),
    };
    let had_sidecar = moved(fs::hard_link(state.sidecar(), &sidecar), &state.sidecar())?;
    if !had_sidecar {
        to_come.write(&state.sidecar())?;
    }
    let was_there = moved(fs::rename(state.store(), &store), &state.store())?;
    pass(CrashPoint::StoreAsideAfter);
    sync_directory(state.path()).map_err(|e| StoreError::io("sync", state.path(), e))?;
    Ok(if was_there { Some(store) } else { had_sidecar.then_some(sidecar) })
}
