//! `FetchUid`: the UID of an account, asked of FERRY. It stays in the step's record, so that a resumed run need not ask
//! again.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::accounts::Accounts;
use super::ferry::codes::UIDS_UNUSABLE;
use super::info_of;
use super::world::World;
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, ProductState, Success};
use crate::workflow::id::Subject;

/// Its name in workflow files.
pub const NAME: &str = "FetchUid";

/// What is recorded of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// What FERRY said.
    pub uid: u32,
}

/// The action.
pub struct FetchUid {
    world: Arc<World>,
}

impl FetchUid {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let (accounts, account) = Accounts::of(&self.world, attempt)?;
        let uid = accounts.ferry.uid(&self.world, account, attempt).await?;
        accounts.learn(account, uid);
        Ok(Success { detail: serde_json::to_value(Fetched { uid }).ok(), note: None })
    }
}

fn recorded(detail: Option<&Value>) -> Option<Fetched> {
    serde_json::from_value(detail?.clone()).ok()
}

impl Action for FetchUid {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn product_state(&self, _subject: Option<&Subject>, detail: Option<&Value>) -> ProductState {
        match recorded(detail) {
            Some(fetched) => ProductState::Usable(format!("FERRY said {}", fetched.uid)),
            None => ProductState::Lost("the UID was not recorded".to_owned()),
        }
    }

    fn adopt(&self, subject: Option<&Subject>, detail: Option<&Value>) -> Result<(), Failure> {
        let accounts = Accounts::all_of(&self.world)?;
        match (accounts.name(subject), recorded(detail)) {
            (Some(account), Some(fetched)) => {
                accounts.learn(account, fetched.uid);
                Ok(())
            }
            (None, _) | (_, None) => {
                Err(Failure::new(Class::Permanent, UIDS_UNUSABLE, "the recorded UID cannot be taken over"))
            }
        }
    }
}
