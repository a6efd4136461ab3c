//! Is what the store holds consistent in itself? And what becomes of a run that is not.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::Path;

use super::error::StoreError;
use super::keys::{self, Tree};
use super::record;
use super::view::{KnownUid, View};
use crate::workflow::event::Event;
use crate::workflow::id::RunId;
use crate::workflow::run::RunState;
use crate::workflow::status::RunStatus;

/// How a run is, by all that is there of it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Finding {
    /// What is wrong with it, in words.
    pub(super) what: String,
    pub(super) remedy: Remedy,
}

/// What can be done about a run that is not whole.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Remedy {
    /// Its record stays as it is: it says more than what is left of its history.
    Keep,
    /// Its record is made anew from its history, of which this many events are whole.
    Rebuild(Box<RunState>),
    /// Nothing can be made of what is left.
    Drop,
}

/// Is this a record as `mt` writes them, as far as can be said without knowing what it is for? [`known_runs`] and whoever
/// looks for a run by its id find no others.
pub(super) fn is_one_of_ours(store: &Path, tree: Tree, key: &str, value: &[u8]) -> Result<(), StoreError> {
    let strange = |what: &str| Err(StoreError::damaged(store, format!("record {tree}/{key} {what}")));
    let run = key.split('/').next().and_then(|id| id.parse::<RunId>().ok());
    let is_named = match (tree, run) {
        (Tree::Meta | Tree::Counters | Tree::Uids | Tree::Metrics | Tree::Outbox, _) => !key.is_empty(),
        (Tree::Runs, Some(run)) => key == keys::run(run),
        (Tree::Events, Some(run)) => {
            keys::event_seq(key.as_bytes()).is_some_and(|number| key == keys::event(run, number))
        }
        (Tree::Machines, Some(run)) => key.strip_prefix(&keys::of_run(run, "")).is_some_and(|rest| !rest.is_empty()),
        (Tree::Runs | Tree::Machines | Tree::Events, None) => false,
    };
    if !is_named {
        return strange("has no key of that tree");
    }
    match tree {
        // 0 is root's, and the last one means "no user" to the system.
        Tree::Uids => match record::decode::<KnownUid>(store, tree, key.as_bytes(), value)?.uid {
            0 | u32::MAX => strange("holds no UID"),
            _ => Ok(()),
        },
        Tree::Meta | Tree::Runs | Tree::Machines | Tree::Events | Tree::Counters | Tree::Metrics | Tree::Outbox => {
            record::decode::<serde::de::IgnoredAny>(store, tree, key.as_bytes(), value).map(|_| ())
        }
    }
}

/// Every run of which anything is there, but for those that are being pruned.
pub(super) fn known_runs(view: &View<'_>) -> Result<BTreeSet<RunId>, StoreError> {
    let mut runs = BTreeSet::new();
    for tree in [Tree::Runs, Tree::Machines, Tree::Events] {
        view.scan_raw(tree, "", &mut |key, _| {
            let id = key.split(|byte| *byte == b'/').next().unwrap_or_default();
            runs.extend(std::str::from_utf8(id).ok().and_then(|id| id.parse::<RunId>().ok()));
            Ok(ControlFlow::Continue(()))
        })?;
    }
    view.scan_raw(Tree::Meta, keys::PRUNING, &mut |key, _| {
        let id = std::str::from_utf8(key).ok().and_then(|key| key.strip_prefix(keys::PRUNING));
        if let Some(pruned) = id.and_then(|id| id.parse().ok()) {
            runs.remove(&pruned);
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(runs)
}

/// `None`: it is whole. Its history has no gap, and its record and its machines are what the history says.
pub(super) fn look_at(view: &View<'_>, run: RunId) -> Result<Option<Finding>, StoreError> {
    let (record, machines) = (readable(view.run(run))?, readable(view.machines(run))?);
    let history = history(view, run)?;
    let (folded, refused) = fold(&history.events);
    let what = match (&record, &machines, &folded) {
        (None, _, _) => Some("its record cannot be read".to_owned()),
        (Some(None), _, _) => Some("its record is missing".to_owned()),
        (Some(Some(_)), None, _) => Some("a machine of it cannot be read".to_owned()),
        (Some(Some(_)), _, _) if history.missing.is_some() => history.missing.clone(),
        (Some(Some(_)), _, None) => Some("its history is missing".to_owned()),
        (Some(Some(_)), _, Some(_)) if refused.is_some() => refused.clone(),
        (Some(Some(record)), Some(machines), Some(state)) => {
            if state.run != *record {
                Some("its record is not what its history says".to_owned())
            } else if !state.machines.values().eq(machines) {
                Some("its machines are not what its history says".to_owned())
            } else {
                None
            }
        }
    };
    let Some(what) = what else { return Ok(None) };
    let whole = history.missing.is_none() && refused.is_none();
    let remedy = match (record.flatten(), folded) {
        (_, Some(state)) if whole => Remedy::Rebuild(Box::new(state)),
        // Nobody will append to it any more.
        (Some(record), _) if is_final(record.status) && machines.is_some() => Remedy::Keep,
        (_, Some(state)) => Remedy::Rebuild(Box::new(state)),
        (Some(_), None) if machines.is_some() => Remedy::Keep,
        (Some(_) | None, None) => Remedy::Drop,
    };
    Ok(Some(Finding { what, remedy }))
}

/// The definition that the run names, if the store does not have it.
pub(super) fn missing_definition(view: &View<'_>, run: RunId) -> Result<Option<String>, StoreError> {
    let Some(record) = readable(view.run(run))?.flatten() else { return Ok(None) };
    let there = readable(view.definition(&record.definition))?.flatten().is_some();
    Ok((!there).then_some(record.definition))
}

/// A record that is there and cannot be read is a finding; anything else ends the look.
fn readable<T>(read: Result<T, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Ok(value) => Ok(Some(value)),
        Err(StoreError::Damaged { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

struct History {
    /// From the first to the last before a gap.
    events: Vec<Event>,
    missing: Option<String>,
}

fn history(view: &View<'_>, run: RunId) -> Result<History, StoreError> {
    let (mut events, mut missing) = (Vec::new(), None);
    view.scan_raw(Tree::Events, &keys::of_run(run, ""), &mut |key, value| {
        let expected = events.len() as u64;
        let event = value.split_first().and_then(|(_, json)| serde_json::from_slice::<Event>(json).ok());
        match (keys::event_seq(key), event) {
            (Some(seq), Some(event)) if seq == expected && event.seq == seq => events.push(event),
            (Some(seq), Some(_)) if seq > expected => {
                missing = Some(format!("its events {expected} to {} are missing", seq - 1));
                return Ok(ControlFlow::Break(()));
            }
            (Some(_) | None, _) => {
                missing = Some(format!("its event {expected} cannot be read"));
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    })?;
    Ok(History { events, missing })
}

/// The state after the last event that makes sense, and what the next one has against it.
fn fold(events: &[Event]) -> (Option<RunState>, Option<String>) {
    let mut state: Option<RunState> = None;
    for event in events {
        let applied = match &mut state {
            None => RunState::begin(event).map(|begun| state = Some(begun)),
            // An event that is refused changes nothing.
            Some(state) => state.apply(event).map(|_| ()),
        };
        if let Err(illegal) = applied {
            return (state, Some(format!("its history makes no sense: {illegal}")));
        }
    }
    (state, None)
}

fn is_final(status: RunStatus) -> bool {
    match status {
        RunStatus::Succeeded | RunStatus::Cancelled | RunStatus::Superseded | RunStatus::Skipped => true,
        RunStatus::Running | RunStatus::Partial | RunStatus::Failed | RunStatus::TimedOut | RunStatus::Interrupted => {
            false
        }
    }
}
