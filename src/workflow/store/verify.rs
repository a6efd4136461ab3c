//! Is the store whole? Looks at every record, changes nothing.

use std::ops::ControlFlow;
use std::path::PathBuf;

use super::check::{self, Finding};
use super::error::StoreError;
use super::handle::Options;
use super::keys::{TREES, Tree};
use super::open::size_of;
use super::record;
use super::salvage::repeated;
use super::source::Source;
use super::state_dir::StateDir;
use super::view::{KnownUid, View};
use crate::workflow::id::RunId;

/// How many keys, or runs, are looked at in one go.
const KEYS: usize = 5_000;
const RUNS: usize = 20;

/// How the store is.
#[derive(Clone, Debug)]
pub struct Verification {
    /// The store.
    pub path: PathBuf,
    /// Why it cannot be used, if so: then the rest is what its log still holds.
    pub unusable: Option<StoreError>,
    /// What each tree holds, in the order of [`Tree::ALL`].
    pub trees: Vec<TreeReport>,
    /// How many runs are whole: no gap in the history, and everything else is what the history says.
    pub whole_runs: usize,
    /// The others, oldest first, and what is wrong with each.
    pub damaged_runs: Vec<(RunId, String)>,
    /// What is missing or doubtful besides, in words.
    pub trouble: Vec<String>,
    /// What the store takes on the disk.
    pub bytes_on_disk: u64,
}

/// A tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TreeReport {
    /// Which.
    pub tree: Tree,
    /// Records in it.
    pub records: usize,
    /// Those of them that cannot be read.
    pub unreadable: usize,
    /// Their keys and values together.
    pub bytes: u64,
}

impl Verification {
    /// Is nothing wrong with it?
    pub fn is_whole(&self) -> bool {
        self.unusable.is_none()
            && self.damaged_runs.is_empty()
            && self.trouble.is_empty()
            && self.trees.iter().all(|tree| tree.unreadable == 0)
    }
}

/// Looks at every record. A store that another process uses is shared with it; one that sled does not open is read without it.
///
/// # Errors
/// If nothing can be said: no state directory, a holder that does not let go, a store of a newer `mt`.
pub fn verify(state: &StateDir, options: &Options) -> Result<Verification, StoreError> {
    let source = Source::of(state, options)?;
    let first = verify_from(state, &source);
    let by_sled = matches!(source, Source::Store(_));
    source.close();
    match first {
        Err(why @ (StoreError::Damaged { .. } | StoreError::Io { .. })) if by_sled => {
            verify_from(state, &Source::salvaged(state, options, why)?)
        }
        other => other,
    }
}

fn verify_from(state: &StateDir, source: &Source) -> Result<Verification, StoreError> {
    let (unusable, mut trouble) = match source {
        Source::Store(_) => (None, Vec::new()),
        Source::Salvaged { from, why, .. } => (Some(why.clone()), from.trouble.clone()),
    };
    let mut trees = Vec::with_capacity(TREES);
    for tree in Tree::ALL.iter().copied() {
        let mut report = TreeReport { tree, records: 0, unreadable: 0, bytes: 0 };
        let mut after: Option<String> = None;
        loop {
            let (part, last) = source.look(move |view| count(view, tree, after.as_deref()))?;
            report.records += part.records;
            report.unreadable += part.unreadable;
            report.bytes += part.bytes;
            if last.is_none() {
                break;
            }
            after = last;
        }
        trees.push(report);
    }
    let runs: Vec<RunId> = source.look(check::known_runs)?.into_iter().collect();
    let (mut whole_runs, mut damaged_runs, mut without_definition) = (0, Vec::new(), Vec::new());
    for some in runs.chunks(RUNS) {
        let some = some.to_vec();
        let looked = source.look(move |view| {
            let looks =
                some.iter().map(|run| Ok((*run, check::look_at(view, *run)?, check::missing_definition(view, *run)?)));
            looks.collect::<Result<Vec<(RunId, Option<Finding>, Option<String>)>, StoreError>>()
        })?;
        for (run, finding, definition) in looked {
            without_definition.extend(definition);
            match finding {
                None => whole_runs += 1,
                Some(finding) => damaged_runs.push((run, finding.what)),
            }
        }
    }
    if !damaged_runs.is_empty() {
        // A run that was pruned since its name was read had lost its record by then, or more.
        let left = source.look(check::known_runs)?;
        damaged_runs.retain(|(run, _)| left.contains(run));
    }
    if !without_definition.is_empty() {
        let runs = without_definition.len();
        trouble.push(format!("the definition of {runs} runs is missing: a resume of one uses the present file"));
    }
    let path = state.store();
    let bytes_on_disk = size_of(&path).unwrap_or(0);
    Ok(Verification { path, unusable, trees, whole_runs, damaged_runs, trouble: repeated(trouble), bytes_on_disk })
}

fn count(view: &View<'_>, tree: Tree, after: Option<&str>) -> Result<(TreeReport, Option<String>), StoreError> {
    let mut report = TreeReport { tree, records: 0, unreadable: 0, bytes: 0 };
    let mut last = None;
    view.scan_after(tree, after, &mut |key, bytes| {
        if report.records == KEYS {
            return Ok(ControlFlow::Break(()));
        }
        last = Some(String::from_utf8_lossy(key).into_owned());
        report.records += 1;
        report.bytes += (key.len() + bytes.len()) as u64;
        let read = match tree {
            Tree::Uids => record::decode::<KnownUid>(view.path(), tree, key, bytes).map(|_| ()),
            Tree::Meta | Tree::Runs | Tree::Machines | Tree::Events | Tree::Counters | Tree::Metrics | Tree::Outbox => {
                record::decode::<serde::de::IgnoredAny>(view.path(), tree, key, bytes).map(|_| ())
            }
        };
        match read {
            Ok(()) => {}
            Err(StoreError::Damaged { .. }) => report.unreadable += 1,
            Err(other) => return Err(other),
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok((report, last.filter(|_| report.records == KEYS)))
}
