//! What a run for accounts works with: FERRY, and the book of UIDs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use futures::future::BoxFuture;

use super::codes::NO_SERVICE;
use super::ferry::codes::UIDS_UNUSABLE;
use super::ferry::{AuthMethod, FerryClient};
use super::world::World;
use crate::config::{AccountName, Ferry};
use crate::workflow::action::{Attempt, Class, Failure};
use crate::workflow::id::Subject;

/// What a session of ferry-refresh works from.
#[derive(Clone)]
pub struct AccountSetup {
    /// The selected accounts.
    pub accounts: Vec<AccountName>,
    /// `ferry.*`.
    pub ferry: Ferry,
    /// How FERRY learns who we are.
    pub method: AuthMethod,
    /// Where UIDs are kept; `None` in commands that only think.
    pub uids: Option<Arc<dyn UidBook>>,
}

/// The UIDs could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {doing} the UIDs: {why}")]
pub struct UidError {
    /// `read` or `write`.
    pub doing: &'static str,
    /// Why.
    pub why: String,
}

/// What became of a UID that was to be recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// The UID that was recorded before.
    pub before: Option<u32>,
    /// The one that is recorded now: another process may have recorded a newer one first.
    pub now: u32,
    /// A remark for people: where it is not recorded.
    pub note: Option<String>,
}

/// Where the UIDs of accounts are kept. What a call has answered is durable.
pub trait UidBook: Send + Sync {
    /// All that is recorded, by account.
    fn all(&self) -> BoxFuture<'_, Result<BTreeMap<String, u32>, UidError>>;

    /// Records the UID of an account.
    fn record<'a>(&'a self, account: &'a AccountName, uid: u32) -> BoxFuture<'a, Result<Recorded, UidError>>;
}

/// What the steps of a run for accounts share.
pub(super) struct Accounts {
    names: BTreeMap<Subject, AccountName>,
    pub(super) ferry: FerryClient,
    uids: Option<Arc<dyn UidBook>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    fetched: BTreeMap<AccountName, u32>,
    stored: BTreeMap<AccountName, u32>,
}

impl Accounts {
    pub(super) fn new(setup: AccountSetup) -> Self {
        let names = setup.accounts.into_iter().map(|name| (Subject::new(name.as_str()), name));
        Self {
            names: names.collect(),
            ferry: FerryClient::new(setup.ferry, setup.method),
            uids: setup.uids,
            seen: Mutex::default(),
        }
    }

    /// The accounts of this world, and the one that the attempt is for.
    pub(super) fn of<'a>(world: &'a World, attempt: &Attempt) -> Result<(&'a Self, &'a AccountName), Failure> {
        let accounts = Self::all_of(world)?;
        let name = attempt.subject.as_ref().and_then(|subject| accounts.names.get(subject));
        name.map(|name| (accounts, name)).ok_or_else(|| no_account(attempt.subject.as_ref()))
    }

    /// The accounts of this world.
    pub(super) fn all_of(world: &World) -> Result<&Self, Failure> {
        world.accounts.as_ref().ok_or_else(|| no_account(None))
    }

    pub(super) fn name(&self, subject: Option<&Subject>) -> Option<&AccountName> {
        self.names.get(subject?)
    }

    pub(super) fn uids(&self) -> Result<&dyn UidBook, Failure> {
        self.uids.as_deref().ok_or_else(|| {
            let error = UidError { doing: "write", why: "nothing is kept here".to_owned() };
            unusable(&error)
        })
    }

    /// What FERRY says, for the steps that follow.
    pub(super) fn fetched(&self, account: &AccountName) -> Option<u32> {
        self.seen(|seen| seen.fetched.get(account).copied())
    }

    pub(super) fn learn(&self, account: &AccountName, uid: u32) {
        self.seen(|seen| seen.fetched.insert(account.clone(), uid));
    }

    /// What this process has stored.
    pub(super) fn stored(&self) -> BTreeMap<AccountName, u32> {
        self.seen(|seen| seen.stored.clone())
    }

    pub(super) fn note_stored(&self, account: &AccountName, uid: u32) {
        self.seen(|seen| seen.stored.insert(account.clone(), uid));
    }

    fn seen<T>(&self, look: impl FnOnce(&mut Seen) -> T) -> T {
        // Every change is one insertion.
        look(&mut self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

pub(super) fn unusable(error: &UidError) -> Failure {
    Failure::new(Class::Transient, UIDS_UNUSABLE, error.to_string()).with_next("mt store verify")
}

fn no_account(subject: Option<&Subject>) -> Failure {
    let name = subject.map_or("(none)", |subject| subject.as_str());
    Failure::new(
        Class::Permanent,
        NO_SERVICE,
        format!("the step works for an account, and {name} is not one of this run"),
    )
}
