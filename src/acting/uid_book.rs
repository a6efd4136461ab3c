//! The book of UIDs over the store, with `uids.json` beside it.
//!
//! The file stands in for the store where that cannot be used, and is rewritten with every change, so that a run that
//! cannot open the store still knows where to push.

use std::collections::BTreeMap;
use std::path::PathBuf;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::acting::uids;
use crate::config::AccountName;
use crate::steps::accounts::{Recorded, UidBook, UidError};
use crate::workflow::store::{KnownUid, Store, StoreError};

/// See the module's documentation.
pub struct SessionUids {
    store: Option<Store>,
    /// `uids.json`, and whose turn it is to write it.
    file: tokio::sync::Mutex<PathBuf>,
}

impl SessionUids {
    /// Over this store; without one, the file is all there is.
    pub fn new(store: Option<Store>, file: PathBuf) -> Self {
        Self { store, file: tokio::sync::Mutex::new(file) }
    }

    async fn record(&self, account: &AccountName, uid: u32) -> Result<Recorded, UidError> {
        // One at a time: what the file holds is then what the store held last.
        let file = self.file.lock().await;
        let why = match &self.store {
            None => "the store cannot be used".to_owned(),
            Some(store) => match in_store(store, account.as_str(), uid).await {
                Ok(before) => {
                    let note = beside(file.clone(), store.clone()).await.err().map(|why| {
                        tracing::warn!("cannot write {}: {why}", file.display());
                        format!("it is not in {}: {why}", file.display())
                    });
                    return Ok(Recorded { before, note });
                }
                Err(error) => {
                    tracing::error!(code = %error.code(), "cannot record a UID in the store: {error}");
                    error.to_string()
                }
            },
        };
        let (before, path) = (in_file(file.clone(), account.to_string(), uid).await?, file.display());
        Ok(Recorded { before, note: Some(format!("only {path} has it: {why}")) })
    }

    async fn all(&self) -> Result<BTreeMap<String, u32>, UidError> {
        let file = self.file.lock().await;
        if let Some(store) = &self.store {
            match store.read(|view| view.uids()).await.and_then(|uids| uids) {
                Ok(uids) => return Ok(plain(uids)),
                Err(error) => tracing::error!(code = %error.code(), "cannot read the UIDs in the store: {error}"),
            }
        }
        let path = file.clone();
        off_the_runtime("read", move || uids::read(&path)).await
    }
}

impl UidBook for SessionUids {
    fn all(&self) -> BoxFuture<'_, Result<BTreeMap<String, u32>, UidError>> {
        Box::pin(self.all())
    }

    fn record<'a>(&'a self, account: &'a AccountName, uid: u32) -> BoxFuture<'a, Result<Recorded, UidError>> {
        Box::pin(self.record(account, uid))
    }
}

/// What the store keeps, as the file does.
pub fn plain(uids: BTreeMap<String, KnownUid>) -> BTreeMap<String, u32> {
    uids.into_iter().map(|(account, known)| (account, known.uid)).collect()
}

async fn in_store(store: &Store, account: &str, uid: u32) -> Result<Option<u32>, StoreError> {
    let account = account.to_owned();
    store
        .write(move |tx| {
            let before = tx.uid(&account)?.map(|known| known.uid);
            tx.put_uid(&account, KnownUid { uid, recorded_at: Timestamp::now() })?;
            Ok(before)
        })
        .await
}

/// Has the file say what the store holds.
async fn beside(path: PathBuf, store: Store) -> Result<(), UidError> {
    off_the_runtime("write", move || uids::follow(&path, || held(&store))).await
}

/// What the store holds, for [`uids::follow`].
pub fn held(store: &Store) -> std::io::Result<BTreeMap<String, u32>> {
    store.read_blocking(|view| view.uids()).and_then(|uids| uids).map(plain).map_err(std::io::Error::other)
}

async fn in_file(path: PathBuf, account: String, uid: u32) -> Result<Option<u32>, UidError> {
    off_the_runtime("write", move || {
        // Another process must not add to what we have read before we have written it.
        let _turn = uids::turn(&path)?;
        let mut all = uids::read(&path)?;
        let before = all.insert(account, uid);
        if before != Some(uid) {
            uids::write(&path, &all)?;
        }
        Ok(before)
    })
    .await
}

async fn off_the_runtime<T: Send + 'static>(
    doing: &'static str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, UidError> {
    let done = tokio::task::spawn_blocking(work).await.map_err(std::io::Error::other).and_then(|done| done);
    done.map_err(|error| UidError { doing, why: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::store::{Access, StateDir};

    fn account() -> AccountName {
        AccountName::checked("dunepro")
    }

    #[tokio::test]
    async fn a_uid_goes_into_the_store_and_into_the_file_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        let store = Store::open(&state, Access::ReadWrite).unwrap();
        let book = SessionUids::new(Some(store.clone()), state.uids_json());
        assert_eq!(book.record(&account(), 1234).await.unwrap(), Recorded { before: None, note: None });
        assert_eq!(book.record(&account(), 4321).await.unwrap(), Recorded { before: Some(1234), note: None });
        let expected = BTreeMap::from([("dunepro".to_owned(), 4321)]);
        assert_eq!(book.all().await.unwrap(), expected);
        assert_eq!(uids::read(&state.uids_json()).unwrap(), expected);
        assert_eq!(store.read(|view| view.uid("dunepro")).await.unwrap().unwrap().unwrap().uid, 4321);
    }

    #[tokio::test]
    async fn a_file_that_was_damaged_is_whole_after_the_next_change() {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        std::fs::write(state.uids_json(), "{\"dune").unwrap();
        let book = SessionUids::new(Some(Store::open(&state, Access::ReadWrite).unwrap()), state.uids_json());
        assert_eq!(book.record(&account(), 1234).await.unwrap().note, None);
        assert_eq!(uids::read(&state.uids_json()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn without_a_store_the_file_alone_has_it_and_the_remark_says_so() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("uids.json");
        uids::write(&file, &BTreeMap::from([("dunepro".to_owned(), 1), ("mu2epro".to_owned(), 2)])).unwrap();
        let book = SessionUids::new(None, file.clone());
        let recorded = book.record(&account(), 1234).await.unwrap();
        assert_eq!(recorded.before, Some(1));
        assert!(recorded.note.unwrap().contains("uids.json has it: the store cannot be used"));
        assert_eq!(
            uids::read(&file).unwrap(),
            BTreeMap::from([("dunepro".to_owned(), 1234), ("mu2epro".to_owned(), 2)])
        );
    }

    #[tokio::test]
    async fn processes_without_a_store_lose_no_uid_of_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("uids.json");
        let recordings = (1..=16).map(|uid| {
            let book = SessionUids::new(None, file.clone());
            tokio::spawn(async move { book.record(&AccountName::checked(format!("pro{uid}")), uid).await })
        });
        for recording in recordings.collect::<Vec<_>>() {
            recording.await.unwrap().unwrap();
        }
        assert_eq!(uids::read(&file).unwrap().into_values().sum::<u32>(), 136, "1 to 16");
    }
}
