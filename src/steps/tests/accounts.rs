//! What becomes of a UID once it is fetched, over a book in memory. Fetching is tried on a real FERRY in `tests/ferry`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;

use futures::future::BoxFuture;
use serde_json::json;

use super::*;
use crate::config::{AccountName, Ferry};
use crate::steps::accounts::{AccountSetup, Recorded, UidBook, UidError};
use crate::steps::ferry::AuthMethod;
use crate::steps::ferry::codes::{UIDS_DIFFER, UIDS_UNUSABLE};

/// A book; it adds `lie` to what it is given.
#[derive(Default)]
struct Book {
    uids: Mutex<BTreeMap<String, u32>>,
    lie: u32,
    broken: bool,
}

impl UidBook for Book {
    fn all(&self) -> BoxFuture<'_, Result<BTreeMap<String, u32>, UidError>> {
        Box::pin(async { Ok(self.uids.lock().unwrap().clone()) })
    }

    fn record<'a>(&'a self, account: &'a AccountName, uid: u32) -> BoxFuture<'a, Result<Recorded, UidError>> {
        Box::pin(async move {
            if self.broken {
                return Err(UidError { doing: "write", why: "no space".to_owned() });
            }
            let before = self.uids.lock().unwrap().insert(account.to_string(), uid + self.lie);
            Ok(Recorded { before, now: uid, note: None })
        })
    }
}

/// A world of one account whose UID was fetched in an earlier session.
fn world(book: Book, fetched: Option<u32>) -> Arc<World> {
    let world = Arc::new(World::new(Setup {
        process: ProcessId::generate(),
        private: PathBuf::from("/nowhere"),
        state: PathBuf::from("/nowhere"),
        locks: PathBuf::from("/nowhere"),
        environment: Snapshot::default(),
        own_uid: 1,
        services: vec![],
        issuer_services: BTreeSet::new(),
        expiries: BTreeMap::new(),
        email: None,
        outbox: None,
        accounts: Some(AccountSetup {
            accounts: vec![AccountName::checked("dunepro")],
            ferry: Ferry::default(),
            method: AuthMethod::Tls,
            uids: Some(Arc::new(book)),
        }),
    }));
    if let Some(uid) = fetched {
        let fetch = action("FetchUid", &world);
        let detail = json!({ "uid": uid });
        let usable = fetch.product_state(Some(&account()), Some(&detail));
        assert_eq!(usable, ProductState::Usable(format!("FERRY said {uid}")));
        fetch.adopt(Some(&account()), Some(&detail)).unwrap();
    }
    world
}

fn account() -> Subject {
    Subject::new("dunepro")
}

async fn on(name: &str, world: &Arc<World>, subject: Option<Subject>) -> AttemptResult {
    action(name, world).attempt(&Attempt { subject, ..attempt("-") }).await
}

#[tokio::test]
async fn a_new_uid_is_recorded_with_the_one_before_and_an_equal_one_is_no_news() {
    let uids = Mutex::new(BTreeMap::from([("dunepro".to_owned(), 1)]));
    let world = world(Book { uids, ..Book::default() }, Some(1234));
    let changed = on("StoreUid", &world, Some(account())).await.unwrap();
    assert_eq!(changed.detail, Some(json!({"uid": 1234, "before": 1})));
    assert_eq!(changed.note.as_deref(), Some("the UID has changed: 1 before, 1234 now"));
    let same = on("StoreUid", &world, Some(account())).await.unwrap();
    assert_eq!((same.detail, same.note), (Some(json!({"uid": 1234, "before": 1234})), None));
    on("VerifyUids", &world, None).await.unwrap();
}

#[tokio::test]
async fn a_first_uid_is_no_change() {
    let world = world(Book::default(), Some(1234));
    let stored = on("StoreUid", &world, Some(account())).await.unwrap();
    assert_eq!((stored.detail, stored.note), (Some(json!({"uid": 1234})), None));
}

#[tokio::test]
async fn what_is_read_back_must_be_what_was_stored() {
    let world = world(Book { lie: 1, ..Book::default() }, Some(1234));
    on("StoreUid", &world, Some(account())).await.unwrap();
    let failure = on("VerifyUids", &world, None).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Permanent, UIDS_DIFFER));
    assert!(failure.message.ends_with("dunepro has 1235, and 1234 was stored"), "{failure:?}");
}

#[tokio::test]
async fn what_was_not_stored_is_not_compared() {
    let world = world(Book { lie: 1, ..Book::default() }, Some(1234));
    assert!(on("VerifyUids", &world, None).await.unwrap().note.is_some());
}

#[tokio::test]
async fn a_book_that_cannot_be_written_is_tried_again() {
    let world = world(Book { broken: true, ..Book::default() }, Some(1234));
    let failure = on("StoreUid", &world, Some(account())).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Transient, UIDS_UNUSABLE));
}

#[tokio::test]
async fn nothing_is_stored_that_was_not_fetched() {
    let world = world(Book::default(), None);
    let failure = on("StoreUid", &world, Some(account())).await.unwrap_err();
    assert_eq!(failure.code, UIDS_UNUSABLE);
    let lost = action("FetchUid", &world).product_state(Some(&account()), Some(&json!({"uid": "x"})));
    assert!(matches!(lost, ProductState::Lost(_)), "{lost:?}");
}

#[tokio::test]
async fn a_subject_that_is_no_account_of_the_run_is_refused() {
    let world = world(Book::default(), Some(1234));
    let failure = on("StoreUid", &world, Some(Subject::new("other"))).await.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Permanent, NO_SERVICE));
}
