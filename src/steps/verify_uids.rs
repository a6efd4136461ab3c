//! `VerifyUids`: reads back what this session has stored.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::accounts::{Accounts, unusable};
use super::ferry::codes::UIDS_DIFFER;
use super::info_of;
use super::world::World;
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};

/// Its name in workflow files.
pub const NAME: &str = "VerifyUids";

/// The action.
pub struct VerifyUids {
    world: Arc<World>,
}

impl VerifyUids {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self) -> AttemptResult {
        let accounts = Accounts::all_of(&self.world)?;
        let stored = accounts.stored();
        if stored.is_empty() {
            return Ok(Success { detail: None, note: Some("this session has stored no UID".to_owned()) });
        }
        let found = accounts.uids()?.all().await.map_err(|error| unusable(&error))?;
        let differing: Vec<String> = stored
            .iter()
            .filter(|(account, uid)| found.get(account.as_str()) != Some(uid))
            .map(|(account, uid)| {
                let there = found.get(account.as_str()).map_or_else(|| "none".to_owned(), u32::to_string);
                format!("{account} has {there}, and {uid} was stored")
            })
            .collect();
        if differing.is_empty() {
            return Ok(Success::default());
        }
        let message = format!("the UIDs that were read back are not those that were stored: {}", differing.join("; "));
        // The machines have ended well, so the exit code will not tell.
        tracing::error!(code = %UIDS_DIFFER, "{message}");
        Err(Failure::new(Class::Permanent, UIDS_DIFFER, message).with_next("mt uids list"))
    }
}

impl Action for VerifyUids {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, _attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run())
    }
}
