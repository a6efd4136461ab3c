//! Removing old runs, and the definitions that only they used.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};

use super::error::StoreError;
use super::handle::Store;
use super::keys::{self, Tree};
use super::tx::Tx;
use super::view::View;
use crate::workflow::id::RunId;
use crate::workflow::run::Run;

/// One write removes at most so many keys: long transactions delay everybody.
const KEYS_PER_WRITE: usize = 1_000;

/// The trees whose keys begin with a run's id.
const PARTS: [Tree; 3] = [Tree::Machines, Tree::Events, Tree::Outbox];

/// What pruning removed, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PruneReport {
    /// The runs, newest first.
    pub runs: Vec<RunId>,
    /// How many runs stay.
    pub kept: usize,
    /// How many records went with the runs: machines, events, outbox. With `dry_run`: would go.
    pub records: usize,
    /// How many definitions no run uses any more. With `dry_run`: 0, they are not looked for.
    pub definitions: usize,
}

/// Which runs may go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Runs whose last session ended longer ago than this.
    pub keep: Duration,
    /// This many of the newest stay, however old.
    pub min_runs: usize,
}

type IsLive = Arc<dyn Fn(&Run) -> bool + Send + Sync>;

impl Store {
    /// Removes old runs with all that belongs to them. `is_live` says whether a process works on a run: such a run stays,
    /// whatever its age. It is asked on the store's thread, in the transaction that removes the run.
    ///
    /// A kill in the middle leaves runs whole or gone; what is left of the gone ones is removed by the next pruning.
    ///
    /// # Errors
    /// As [`Store::write`].
    pub fn prune<F>(&self, retention: Retention, dry_run: bool, is_live: F) -> Result<PruneReport, StoreError>
    where
        F: Fn(&Run) -> bool + Send + Sync + 'static,
    {
        let is_live: IsLive = Arc::new(is_live);
        let before = Timestamp::now()
            .checked_sub(SignedDuration::try_from(retention.keep).unwrap_or(SignedDuration::MAX))
            .unwrap_or(Timestamp::MIN);
        let asked = Arc::clone(&is_live);
        let (runs, kept) = self.read_blocking(move |view| candidates(view, before, retention.min_runs, &asked))??;
        let mut report = PruneReport { kept, ..PruneReport::default() };
        if dry_run {
            let counted = runs.clone();
            report.records = self.read_blocking(move |view| count(view, &counted))??;
            report.runs = runs;
            return Ok(report);
        }
        for run in runs {
            let is_live = Arc::clone(&is_live);
            if self.write_blocking(move |tx| condemn(tx, run, before, &is_live))? {
                report.runs.push(run);
            } else {
                report.kept += 1;
            }
        }
        // Of this pruning, and of an earlier one that was killed.
        let condemned = self.read_blocking(condemned)??;
        for run in condemned {
            loop {
                let removed = self.write_blocking(move |tx| remove_parts(tx, run))?;
                report.records += removed;
                if removed < KEYS_PER_WRITE {
                    break;
                }
            }
        }
        report.definitions = self.write_blocking(remove_unused_definitions)?;
        Ok(report)
    }
}

/// When nothing has happened to the run any more. A run whose process died has no end.
fn last_sign_of_life(run: &Run) -> Timestamp {
    run.ended_at.or_else(|| run.sessions.last().map(|session| session.started_at)).unwrap_or(run.started_at)
}

fn candidates(
    view: &View<'_>,
    before: Timestamp,
    min_runs: usize,
    is_live: &IsLive,
) -> Result<(Vec<RunId>, usize), StoreError> {
    let (mut old, mut kept) = (Vec::new(), 0);
    view.runs_newest_first(|run| {
        if kept < min_runs || last_sign_of_life(&run) >= before || is_live(&run) {
            kept += 1;
        } else {
            old.push(run.id);
        }
        ControlFlow::Continue(())
    })?;
    Ok((old, kept))
}

fn count(view: &View<'_>, runs: &[RunId]) -> Result<usize, StoreError> {
    let mut records = 0;
    for run in runs {
        for tree in PARTS {
            view.scan_raw(tree, &keys::of_run(*run, ""), &mut |_, _| {
                records += 1;
                Ok(ControlFlow::Continue(()))
            })?;
        }
    }
    Ok(records)
}

/// Takes the run itself away and notes that its parts must follow. Somebody may have resumed it since it was chosen.
fn condemn(tx: &mut Tx<'_>, run: RunId, before: Timestamp, is_live: &IsLive) -> Result<bool, StoreError> {
    match tx.run(run)? {
        Some(found) if last_sign_of_life(&found) < before && !is_live(&found) => {}
        Some(_) | None => return Ok(false),
    }
    tx.remove_from(Tree::Runs, &keys::run(run));
    tx.remove_from(Tree::Meta, &keys::cancel(run));
    tx.record_as(Tree::Meta, &keys::pruning(run), &true)?;
    Ok(true)
}

fn condemned(view: &View<'_>) -> Result<Vec<RunId>, StoreError> {
    let mut runs = Vec::new();
    view.scan_raw(Tree::Meta, keys::PRUNING, &mut |key, _| {
        let id = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(keys::PRUNING));
        match id.and_then(|id| id.parse().ok()) {
            Some(run) => runs.push(run),
            None => {
                let what = format!("{:?} names no run", String::from_utf8_lossy(key));
                return Err(StoreError::damaged(view.path(), what));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(runs)
}

/// Removes up to a write's worth of what belonged to the run, and the note with the last of it.
fn remove_parts(tx: &mut Tx<'_>, run: RunId) -> Result<usize, StoreError> {
    let mut doomed = Vec::new();
    for tree in PARTS {
        tx.scan_raw(tree, &keys::of_run(run, ""), &mut |key, _| {
            if doomed.len() == KEYS_PER_WRITE {
                return Ok(ControlFlow::Break(()));
            }
            doomed.push((tree, String::from_utf8_lossy(key).into_owned()));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    for (tree, key) in &doomed {
        tx.remove_from(*tree, key);
    }
    if doomed.len() < KEYS_PER_WRITE {
        tx.remove_from(Tree::Meta, &keys::pruning(run));
    }
    Ok(doomed.len())
}

fn remove_unused_definitions(tx: &mut Tx<'_>) -> Result<usize, StoreError> {
    let mut used = BTreeSet::new();
    tx.runs_newest_first(|run| {
        used.insert(keys::definition(&run.definition));
        ControlFlow::Continue(())
    })?;
    let mut unused = Vec::new();
    tx.scan_raw(Tree::Meta, keys::DEFINITIONS, &mut |key, _| {
        let key = String::from_utf8_lossy(key).into_owned();
        if !used.contains(&key) {
            unused.push(key);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    for key in &unused {
        tx.remove_from(Tree::Meta, key);
    }
    Ok(unused.len())
}
