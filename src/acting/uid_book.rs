//! The book of UIDs over the store, with `uids.json` beside it.
//!
//! The file stands in for the store where that cannot be used, and is rewritten with every change, so that a run that
//! cannot open the store still knows where to push. What is recorded in the file alone goes into the store as soon as
//! somebody can use it, unless another UID was recorded there later.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::Timestamp;

use crate::acting::uids::{self, TURN_WITHIN, Turn, newest};
use crate::config::AccountName;
use crate::steps::accounts::{Recorded, UidBook, UidError};
use crate::workflow::store::{KnownUid, Store, StoreError, Tx};

/// How long a session waits for the store, where the file can take its place. A record asks twice and waits for the file
/// once; StoreUid has 10 s for it.
const STORE_WITHIN: Duration = Duration::from_secs(3);

/// See the module's documentation.
pub struct SessionUids(tokio::sync::Mutex<Book>);

/// One record at a time: what the file holds is then what the store held last.
struct Book {
    /// Why not: it has failed once. Every account would wait for it again.
    store: Result<Store, String>,
    /// `uids.json`.
    file: PathBuf,
    /// How long others that write the file are waited for: nobody is waited for twice.
    patience: Duration,
}

impl SessionUids {
    /// Over this store; without one, the file is all there is.
    pub fn new(store: Option<Store>, file: PathBuf) -> Self {
        let store = store.ok_or_else(|| "the store cannot be used".to_owned());
        Self(tokio::sync::Mutex::new(Book { store, file, patience: TURN_WITHIN }))
    }
}

impl Book {
    async fn record(&mut self, account: &AccountName, uid: u32) -> Result<Recorded, UidError> {
        let why = match self.store.clone() {
            Err(why) => why,
            Ok(store) => match in_time(in_store(&store, account.as_str(), uid)).await {
                Ok((before, now)) => {
                    let beside = self.beside(&store).await.err().map(|error| {
                        tracing::warn!("cannot write {}: {}", self.file.display(), error.why);
                        format!("it is not in {}: {}", self.file.display(), error.why)
                    });
                    let newer = (now != uid).then(|| format!("{uid} is not recorded: {now} was, later"));
                    let notes: Vec<String> = newer.into_iter().chain(beside).collect();
                    return Ok(Recorded { before, now, note: (!notes.is_empty()).then(|| notes.join("; ")) });
                }
                Err(why) => self.without_store("cannot record a UID in the store", why),
            },
        };
        let account = account.to_string();
        let before = self.in_turn(move |turn| turn.record(&account, uid)).await?;
        Ok(Recorded { before, now: uid, note: Some(format!("only {} has it: {why}", self.file.display())) })
    }

    async fn all(&mut self) -> Result<BTreeMap<String, u32>, UidError> {
        if let Ok(store) = self.store.clone() {
            let read = async { store.read(|view| view.uids()).await.and_then(|uids| uids) };
            match in_time(read).await {
                Ok(uids) => return Ok(plain(uids)),
                Err(why) => drop(self.without_store("cannot read the UIDs in the store", why)),
            }
        }
        let path = self.file.clone();
        off_the_runtime(move || uids::read(&path)).await.map_err(|error| of_file("read", &error))
    }

    /// From now on the file is all there is.
    fn without_store(&mut self, what: &str, why: String) -> String {
        tracing::error!("{what}, which is not tried again: {why}");
        self.store = Err(why.clone());
        why
    }

    /// Has the file say what the store holds.
    async fn beside(&mut self, store: &Store) -> Result<(), UidError> {
        let (turn, alone) = self
            .in_turn(|turn| {
                let alone = turn.alone()?;
                Ok((turn, alone))
            })
            .await?;
        match in_time(taken_in(store, alone)).await {
            Ok(held) => off_the_runtime(move || turn.follow(&held)).await.map_err(|error| of_file("write", &error)),
            Err(why) => Err(UidError { doing: "write", why: self.without_store("cannot read the UIDs", why) }),
        }
    }

    /// Does it in this process's turn with the file.
    async fn in_turn<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(Turn) -> io::Result<T> + Send + 'static,
    ) -> Result<T, UidError> {
        let (path, patience) = (self.file.clone(), self.patience);
        let done = off_the_runtime(move || uids::turn(&path, patience).and_then(work)).await;
        done.map_err(|error| {
            if error.kind() == io::ErrorKind::TimedOut && !self.patience.is_zero() {
                let file = self.file.display();
                tracing::error!("cannot write {file}, and this run does not wait for it any more: {error}");
                self.patience = Duration::ZERO;
            }
            of_file("write", &error)
        })
    }
}

impl UidBook for SessionUids {
    fn all(&self) -> BoxFuture<'_, Result<BTreeMap<String, u32>, UidError>> {
        Box::pin(async { self.0.lock().await.all().await })
    }

    fn record<'a>(&'a self, account: &'a AccountName, uid: u32) -> BoxFuture<'a, Result<Recorded, UidError>> {
        Box::pin(async move { self.0.lock().await.record(account, uid).await })
    }
}

/// What the store keeps, as the file does.
pub fn plain(uids: BTreeMap<String, KnownUid>) -> BTreeMap<String, u32> {
    uids.into_iter().map(|(account, known)| (account, known.uid)).collect()
}

/// Has the store and the file say the same, if they do not: a process had no store, or has come to a bad end between the
/// two. Blocks.
pub fn agree(store: &Store, file: &Path) -> io::Result<()> {
    let held = store.read_blocking(|view| view.uids()).and_then(|uids| uids).map_err(io::Error::other)?;
    let agree = match uids::agrees(file, &plain(held)) {
        // It is written anew.
        Err(error) if uids::is_damaged(&error) => false,
        agree => agree?,
    };
    if agree { Ok(()) } else { follow(store, file) }
}

/// Has the store say what the file alone has, and the file what the store holds. Blocks.
pub fn follow(store: &Store, file: &Path) -> io::Result<()> {
    let turn = uids::turn(file, TURN_WITHIN)?;
    let alone = turn.alone()?;
    let held = store.write_blocking(move |tx| take_in(tx, alone)).map_err(io::Error::other)?;
    turn.follow(&held)
}

/// Records what the file alone has; gives all that the store then holds.
fn take_in(tx: &mut Tx<'_>, alone: BTreeMap<String, KnownUid>) -> Result<BTreeMap<String, u32>, StoreError> {
    let held = tx.uids()?;
    let all = newest(held, alone.clone());
    for (account, known) in alone {
        let now = all.get(&account).copied().unwrap_or(known);
        if now == known {
            tracing::info!(account, uid = known.uid, "the store has the UID that was recorded without it");
            tx.put_uid(&account, known)?;
        } else if now.uid != known.uid {
            let (uid, stays) = (known.uid, now.uid);
            tracing::warn!(account, uid, stays, "a UID that was recorded without the store is older than the store's");
        }
    }
    Ok(plain(all))
}

async fn taken_in(store: &Store, alone: BTreeMap<String, KnownUid>) -> Result<BTreeMap<String, u32>, StoreError> {
    store.write(move |tx| take_in(tx, alone)).await
}

async fn in_store(store: &Store, account: &str, uid: u32) -> Result<(Option<u32>, u32), StoreError> {
    // If it comes too late, what the file has got meanwhile is the newer word.
    let (account, known) = (account.to_owned(), KnownUid { uid, recorded_at: Timestamp::now() });
    store.write(move |tx| put_unless_later(tx, &account, known)).await
}

/// Records a UID, unless the store has got a newer one since; says what it had before, and what it has now. A write that
/// waits in line is done when nobody waits for it any more, too.
fn put_unless_later(tx: &mut Tx<'_>, account: &str, known: KnownUid) -> Result<(Option<u32>, u32), StoreError> {
    let before = tx.uid(account)?;
    let now = match before {
        Some(held) if uids::is_later(held, known) => {
            let (uid, stays) = (known.uid, held.uid);
            tracing::warn!(account, uid, stays, "a UID has come to the store late and is older than the store's");
            held.uid
        }
        Some(_) | None => {
            tx.put_uid(account, known)?;
            known.uid
        }
    };
    Ok((before.map(|held| held.uid), now))
}

/// The store's answer, if it comes within [`STORE_WITHIN`].
async fn in_time<T>(answer: impl Future<Output = Result<T, StoreError>>) -> Result<T, String> {
    match tokio::time::timeout(STORE_WITHIN, answer).await {
        Ok(answer) => answer.map_err(|error| format!("{error} [{}]", error.code())),
        Err(_) => Err(format!("the store has not answered within {STORE_WITHIN:?}")),
    }
}

async fn off_the_runtime<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done)
}

fn of_file(doing: &'static str, error: &io::Error) -> UidError {
    UidError { doing, why: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use jiff::SignedDuration;

    use super::*;
    use crate::workflow::store::{Access, StateDir};

    fn account() -> AccountName {
        AccountName::checked("dunepro")
    }

    fn state() -> (tempfile::TempDir, StateDir) {
        let directory = tempfile::tempdir().unwrap();
        let state = StateDir::create(directory.path().join("state")).unwrap();
        (directory, state)
    }

    fn open(state: &StateDir) -> Store {
        Store::open(state, Access::ReadWrite).unwrap()
    }

    fn uids<const N: usize>(uids: [(&str, u32); N]) -> BTreeMap<String, u32> {
        uids.into_iter().map(|(account, uid)| (account.to_owned(), uid)).collect()
    }

    fn held(store: &Store) -> BTreeMap<String, KnownUid> {
        store.read_blocking(|view| view.uids()).unwrap().unwrap()
    }

    #[tokio::test]
    async fn a_uid_goes_into_the_store_and_into_the_file_beside_it() {
        let (_directory, state) = state();
        let store = open(&state);
        let book = SessionUids::new(Some(store.clone()), state.uids_json());
        assert_eq!(book.record(&account(), 1234).await.unwrap(), Recorded { before: None, now: 1234, note: None });
        assert_eq!(
            book.record(&account(), 4321).await.unwrap(),
            Recorded { before: Some(1234), now: 4321, note: None }
        );
        let expected = uids([("dunepro", 4321)]);
        assert_eq!(book.all().await.unwrap(), expected);
        assert_eq!(uids::read(&state.uids_json()).unwrap(), expected);
        assert_eq!(plain(held(&store)), expected);
    }

    #[tokio::test]
    async fn a_file_that_was_damaged_is_whole_after_the_next_change() {
        let (_directory, state) = state();
        std::fs::write(state.uids_json(), "{\"dune").unwrap();
        let book = SessionUids::new(Some(open(&state)), state.uids_json());
        assert_eq!(book.record(&account(), 1234).await.unwrap().note, None);
        assert_eq!(uids::read(&state.uids_json()).unwrap().len(), 1);
    }

    #[tokio::test]
    async fn a_uid_that_only_the_file_has_is_not_lost_when_the_file_cannot_be_read_for_a_moment() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        SessionUids::new(None, file.clone()).record(&account(), 5678).await.unwrap();
        // It is refused as long as everybody may write to it.
        let mode = |mode| std::fs::set_permissions(&file, std::fs::Permissions::from_mode(mode)).unwrap();
        mode(0o606);
        agree(&store, &file).unwrap_err();
        follow(&store, &file).unwrap_err();
        let book = SessionUids::new(Some(store.clone()), file.clone());
        let recorded = book.record(&AccountName::checked("mu2epro"), 1235).await.unwrap();
        assert!(recorded.note.unwrap().contains("it is not in"));
        mode(0o600);
        agree(&store, &file).unwrap();
        let expected = uids([("dunepro", 5678), ("mu2epro", 1235)]);
        assert_eq!(plain(held(&store)), expected);
        assert_eq!(uids::read(&file).unwrap(), expected);
    }

    #[tokio::test]
    async fn without_a_store_the_file_alone_has_it_and_the_remark_says_so() {
        let (_directory, state) = state();
        let file = state.uids_json();
        uids::turn(&file, TURN_WITHIN).unwrap().follow(&uids([("dunepro", 1), ("mu2epro", 2)])).unwrap();
        let book = SessionUids::new(None, file.clone());
        let recorded = book.record(&account(), 1234).await.unwrap();
        assert_eq!(recorded.before, Some(1));
        assert!(recorded.note.unwrap().contains("uids.json has it: the store cannot be used"));
        assert_eq!(uids::read(&file).unwrap(), uids([("dunepro", 1234), ("mu2epro", 2)]));
    }

    #[tokio::test]
    async fn a_uid_that_was_recorded_without_the_store_comes_into_it_and_no_other_change_undoes_it() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        SessionUids::new(Some(store.clone()), file.clone()).record(&account(), 1234).await.unwrap();
        SessionUids::new(None, file.clone()).record(&account(), 5678).await.unwrap();
        let recorded = uids::alone(&file).unwrap();
        // `mt uids set`, or a ferry-refresh that can use the store, for another account.
        let other = AccountName::checked("mu2epro");
        SessionUids::new(Some(store.clone()), file.clone()).record(&other, 1235).await.unwrap();
        let expected = uids([("dunepro", 5678), ("mu2epro", 1235)]);
        assert_eq!(plain(held(&store)), expected);
        assert_eq!(held(&store)["dunepro"], recorded["dunepro"], "with the time at which it was recorded");
        assert_eq!(uids::read(&file).unwrap(), expected);
        assert!(uids::alone(&file).unwrap().is_empty());
    }

    #[tokio::test]
    async fn a_start_finds_store_and_file_in_agreement_wherever_the_process_before_was_killed() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        let without = SessionUids::new(None, file.clone());
        let expected = uids([("dunepro", 5678)]);
        let agreed = || {
            agree(&store, &file).unwrap();
            assert_eq!(plain(held(&store)), expected);
            assert_eq!(uids::read(&file).unwrap(), expected);
            assert!(uids::alone(&file).unwrap().is_empty());
        };
        // Only the file has it.
        without.record(&account(), 5678).await.unwrap();
        agreed();
        // The store has got it, and the file still says that it has it alone.
        without.record(&account(), 5678).await.unwrap();
        let alone = uids::alone(&file).unwrap();
        store.write(move |tx| take_in(tx, alone)).await.unwrap();
        agreed();
        // Only the store has it.
        uids::turn(&file, TURN_WITHIN).unwrap().follow(&uids([("dunepro", 1234)])).unwrap();
        agreed();
        std::fs::remove_file(&file).unwrap();
        agreed();
    }

    #[tokio::test]
    async fn a_uid_that_the_store_got_later_is_not_undone_by_an_older_one_in_the_file() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        SessionUids::new(None, file.clone()).record(&account(), 5678).await.unwrap();
        in_store(&store, "dunepro", 9999).await.unwrap();
        agree(&store, &file).unwrap();
        assert_eq!(plain(held(&store)), uids([("dunepro", 9999)]));
        assert_eq!(uids::read(&file).unwrap(), uids([("dunepro", 9999)]));
    }

    #[test]
    fn a_clock_that_was_wrong_when_the_store_got_a_uid_keeps_out_none_that_is_learnt_without_it() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        let ahead = KnownUid { uid: 9999, recorded_at: Timestamp::now() + SignedDuration::from_secs(3600) };
        store.write_blocking(move |tx| tx.put_uid("dunepro", ahead)).unwrap();
        uids::turn(&file, TURN_WITHIN).unwrap().record("dunepro", 5678).unwrap();
        agree(&store, &file).unwrap();
        assert_eq!(plain(held(&store)), uids([("dunepro", 5678)]));
        assert_eq!(uids::read(&file).unwrap(), uids([("dunepro", 5678)]));
    }

    #[test]
    fn a_uid_that_comes_to_the_store_late_does_not_undo_a_newer_one() {
        let (_directory, state) = state();
        let store = open(&state);
        let put = |uid, recorded_at| {
            let known = KnownUid { uid, recorded_at };
            store.write_blocking(move |tx| put_unless_later(tx, "dunepro", known)).unwrap()
        };
        let now = Timestamp::now();
        let ago = |seconds| now - SignedDuration::from_secs(seconds);
        assert_eq!(put(9999, ago(1)), (None, 9999));
        assert_eq!(put(5678, ago(2)), (Some(9999), 9999));
        assert_eq!(plain(held(&store)), uids([("dunepro", 9999)]));
        assert_eq!(put(1111, now), (Some(9999), 1111));
        assert_eq!(plain(held(&store)), uids([("dunepro", 1111)]));
        // A clock that was wrong keeps no UID out.
        put(2222, ago(-3600));
        put(3333, now);
        assert_eq!(plain(held(&store)), uids([("dunepro", 3333)]));
    }

    #[tokio::test]
    async fn processes_with_and_without_a_store_lose_no_uid_of_each_other() {
        let (_directory, state) = state();
        let (store, file) = (open(&state), state.uids_json());
        let recordings = (1..=16).map(|uid| {
            let book = SessionUids::new((uid % 4 == 0).then(|| store.clone()), file.clone());
            tokio::spawn(async move {
                // On a busy machine one may wait in vain for its turn, and says so.
                while book.record(&AccountName::checked(format!("pro{uid}")), uid).await.is_err() {}
            })
        });
        for recording in recordings.collect::<Vec<_>>() {
            recording.await.unwrap();
        }
        agree(&store, &file).unwrap();
        assert_eq!(plain(held(&store)).into_values().sum::<u32>(), 136, "1 to 16");
        assert_eq!(uids::read(&file).unwrap(), plain(held(&store)));
    }

    #[tokio::test]
    async fn a_store_that_somebody_keeps_is_waited_for_once_and_not_for_every_account() {
        let (_directory, state) = state();
        let store = open(&state);
        // Takes its place in line, and its turn, like a process that is stopped then.
        let (locks, locked) = std::sync::mpsc::channel();
        let (stopped, lock) = (state.store_lock(), state.queue_lock());
        let holder = std::thread::spawn(move || {
            let queue = std::fs::File::open(lock).unwrap();
            queue.lock().unwrap();
            let turn = std::fs::File::open(stopped).unwrap();
            turn.lock().unwrap();
            drop(queue);
            locks.send(turn).unwrap();
        });
        let turn = locked.recv().unwrap();
        holder.join().unwrap();
        let book = SessionUids::new(Some(store.clone()), state.uids_json());
        let first = book.record(&account(), 1234).await.unwrap();
        assert!(first.note.unwrap().contains("uids.json has it: the store has not answered within"));
        drop(turn);
        let second = book.record(&AccountName::checked("mu2epro"), 1235).await.unwrap();
        assert!(second.note.unwrap().contains("uids.json has it"), "it is not tried again");
        assert_eq!(book.all().await.unwrap(), uids([("dunepro", 1234), ("mu2epro", 1235)]));
        agree(&store, &state.uids_json()).unwrap();
        assert_eq!(plain(held(&store)), uids([("dunepro", 1234), ("mu2epro", 1235)]));
    }

    #[tokio::test]
    async fn a_process_that_does_not_come_to_an_end_with_the_file_is_waited_for_once_and_keeps_no_uid_out_of_the_store()
    {
        let (_directory, state) = state();
        let store = open(&state);
        let book = SessionUids::new(Some(store.clone()), state.uids_json());
        let turn = uids::turn(&state.uids_json(), TURN_WITHIN).unwrap();
        for (account, uid) in [("dunepro", 1234), ("mu2epro", 1235)] {
            let recorded = book.record(&AccountName::checked(account), uid).await.unwrap();
            assert!(recorded.note.unwrap().contains("it is not in"));
            assert_eq!(book.0.lock().await.patience, Duration::ZERO);
        }
        assert_eq!(plain(held(&store)), uids([("dunepro", 1234), ("mu2epro", 1235)]));
        drop(turn);
        // It is still tried, and the file gets all.
        assert_eq!(book.record(&account(), 1234).await.unwrap().note, None);
        assert_eq!(uids::read(&state.uids_json()).unwrap(), uids([("dunepro", 1234), ("mu2epro", 1235)]));
    }
}
