//! What a session takes from the store before it begins.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::acting::drive::{uids_alone, uids_beside};
use crate::acting::uid_book::plain;
use crate::acting::uids::newest;
use crate::acting::worker::Places;
use crate::config::Service;
use crate::workflow::event::AttemptOutcome;
use crate::workflow::id::{RunId, Subject};
use crate::workflow::run::{Machine, Run};
use crate::workflow::session;
use crate::workflow::store::{KnownUid, Store, StoreError, View};

/// So many of the newest runs are looked through for the expiry of kept tokens.
const RUNS_WITH_EXPIRIES: usize = 5;

/// See the module's documentation.
#[derive(Clone, Debug, Default)]
pub struct Known {
    /// UIDs by account.
    pub uids: BTreeMap<String, u32>,
    /// When kept tokens expire, by their fingerprint.
    pub expiries: BTreeMap<String, Timestamp>,
    /// For a resumed run: whose machine has ended in a newer one.
    pub newer: BTreeMap<Subject, RunId>,
}

impl Known {
    /// The UID of a service's account: the configuration's word wins.
    pub fn uid(&self, service: &Service) -> Option<u32> {
        service.uid_override.or_else(|| self.uids.get(service.account.as_str()).copied())
    }
}

/// Reads it; without a usable store, from the files beside it. UIDs that the store has not got yet count, too.
pub async fn known(store: Option<&Store>, places: &Places, run: &Run) -> Known {
    let fallback = || Known { uids: uids_beside(places), ..Known::default() };
    let Some(store) = store else { return fallback() };
    let run = run.clone();
    // Before the store is asked: what leaves the file has come to the store first.
    let alone = uids_alone(places);
    match store.read(move |view| read(view, &run, alone)).await.and_then(|known| known) {
        Ok(known) => known,
        Err(error) => {
            tracing::error!(code = %error.code(), "cannot read the store: {error}");
            fallback()
        }
    }
}

fn read(view: &View<'_>, run: &Run, alone: BTreeMap<String, KnownUid>) -> Result<Known, StoreError> {
    let uids = plain(newest(view.uids()?, alone));
    let newer = if run.sessions.len() > 1 { session::ended_later(view, run)? } else { BTreeMap::new() };
    let mut expiries = BTreeMap::new();
    for run in view.newest_runs(RUNS_WITH_EXPIRIES)? {
        for machine in view.machines(run.id)? {
            expiries.extend(recorded_expiries(&machine));
        }
    }
    Ok(Known { uids, expiries, newer })
}

fn recorded_expiries(machine: &Machine) -> impl Iterator<Item = (String, Timestamp)> + '_ {
    let attempts = machine.steps.iter().flat_map(|s| &s.targets).flat_map(|t| &t.attempts);
    attempts.filter_map(|attempt| {
        let detail = match attempt.result.as_ref()? {
            AttemptOutcome::Succeeded(success) | AttemptOutcome::Stale { success, .. } => success.detail.as_ref()?,
            AttemptOutcome::Failed(_) | AttemptOutcome::Interrupted => return None,
        };
        let fingerprint = detail.get("fingerprint")?.as_str()?.to_owned();
        let at = detail.get("expires_at")?.as_str()?.parse().ok()?;
        Some((fingerprint, at))
    })
}
