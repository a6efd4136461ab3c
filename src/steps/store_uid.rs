//! `StoreUid`: records the UID that was fetched.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::accounts::{Accounts, unusable};
use super::ferry::codes::UIDS_UNUSABLE;
use super::info_of;
use super::world::World;
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, ProductState, Success};
use crate::workflow::id::Subject;
use crate::workflow::resume::recorded_success;
use crate::workflow::run::{Machine, RunState};

/// Its name in workflow files.
pub const NAME: &str = "StoreUid";

/// What is recorded of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// What was stored.
    pub uid: u32,
    /// What was stored before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u32>,
}

impl Stored {
    fn of(detail: Option<&Value>) -> Option<Self> {
        serde_json::from_value(detail?.clone()).ok()
    }

    /// The UID before and now, if another one was known before.
    pub fn change(self) -> Option<(u32, u32)> {
        self.before.filter(|before| *before != self.uid).map(|before| (before, self.uid))
    }
}

/// The accounts of a run whose UID it has changed, with the old one and the new one.
pub fn changes(state: &RunState) -> Vec<(&Subject, u32, u32)> {
    let stores = state.run.plan.iter().filter(|planned| planned.action == NAME);
    let names: Vec<_> = stores.map(|planned| &planned.name).collect();
    let of = |machine: &Machine| {
        let steps = machine.steps.iter().filter(|step| names.contains(&&step.name));
        steps.filter_map(|step| Stored::of(recorded_success(step)?.detail.as_ref())?.change()).next()
    };
    state.machines.values().filter_map(|machine| of(machine).map(|(old, new)| (&machine.subject, old, new))).collect()
}

/// The action.
pub struct StoreUid {
    world: Arc<World>,
}

impl StoreUid {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let (accounts, account) = Accounts::of(&self.world, attempt)?;
        let uid = accounts.fetched(account).ok_or_else(|| {
            Failure::new(Class::Permanent, UIDS_UNUSABLE, format!("no UID of {account} was fetched in this run"))
        })?;
        let recorded = accounts.uids()?.record(account, uid).await.map_err(|error| unusable(&error))?;
        accounts.note_stored(account, recorded.now);
        let stored = Stored { uid: recorded.now, before: recorded.before };
        let changed = stored.change().map(|(old, new)| format!("the UID has changed: {old} before, {new} now"));
        let notes: Vec<String> = changed.into_iter().chain(recorded.note).collect();
        Ok(Success { detail: serde_json::to_value(stored).ok(), note: None }.with_notes(&notes))
    }
}

impl Action for StoreUid {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn product_state(&self, _subject: Option<&Subject>, detail: Option<&Value>) -> ProductState {
        match Stored::of(detail) {
            Some(stored) => ProductState::Usable(format!("{} is stored", stored.uid)),
            None => ProductState::Lost("what was stored was not recorded".to_owned()),
        }
    }
}
