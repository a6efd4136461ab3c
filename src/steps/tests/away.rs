//! Directories on a file server that is away: whoever opens something there waits in the kernel until it is back.

use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::sync::mpsc;
use std::thread::JoinHandle;

use super::*;

/// A test that has waited for this long has a thread that should not wait.
const AT_MOST: Duration = Duration::from_secs(20);

/// A directory whose files, and itself, nobody can open until this is dropped: the kernel asks us, and we do not answer.
struct Away {
    back: Option<mpsc::Sender<()>>,
    server: Option<JoinHandle<bool>>,
}

impl Away {
    /// `None` where the kernel does not ask: that takes root.
    fn of(directory: &Path) -> Option<Self> {
        let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).unwrap();
        let kinds = libc::FAN_OPEN_PERM | libc::FAN_EVENT_ON_CHILD | libc::FAN_ONDIR;
        let how = libc::FAN_CLASS_CONTENT | libc::FAN_CLOEXEC | libc::FAN_NONBLOCK;
        // SAFETY: takes numbers, gives a new descriptor or -1.
        let asked = unsafe { libc::fanotify_init(how, libc::O_RDONLY as u32) };
        if asked < 0 {
            eprintln!("skipped: only root can keep a file from being opened");
            return None;
        }
        // SAFETY: it is new, and nobody else's.
        let asked = unsafe { OwnedFd::from_raw_fd(asked) };
        let number = std::os::fd::AsRawFd::as_raw_fd(&asked);
        // SAFETY: the path ends with a NUL and lives as long as the call.
        let marked = unsafe { libc::fanotify_mark(number, libc::FAN_MARK_ADD, kinds, libc::AT_FDCWD, path.as_ptr()) };
        if marked < 0 {
            eprintln!("skipped: this kernel does not ask who may open a file: {}", std::io::Error::last_os_error());
            return None;
        }
        let (back, wait) = mpsc::channel::<()>();
        let server = std::thread::spawn(move || {
            let in_time = wait.recv_timeout(AT_MOST) != Err(mpsc::RecvTimeoutError::Timeout);
            let_in(asked);
            in_time
        });
        Some(Self { back: Some(back), server: Some(server) })
    }

    /// The server is back. Nobody was to wait for it.
    fn end(mut self) {
        drop(self.back.take());
        let in_time = self.server.take().unwrap().join().unwrap();
        assert!(in_time, "somebody waited for a file server that was away for {AT_MOST:?}");
    }
}

/// Lets everybody in who waits. Closing the descriptor alone is not enough: a child that waits before it is its own program
/// has a copy of it.
fn let_in(asked: OwnedFd) {
    const ONE: usize = size_of::<libc::fanotify_event_metadata>();
    let asked = std::fs::File::from(asked);
    let number = std::os::fd::AsRawFd::as_raw_fd(&asked);
    // SAFETY: no path is given; nobody is asked about from here on.
    unsafe { libc::fanotify_mark(number, libc::FAN_MARK_FLUSH, 0, libc::AT_FDCWD, std::ptr::null()) };
    let mut events = [0; 64 * ONE];
    while let Ok(length @ 1..) = (&asked).read(&mut events) {
        for event in events[..length].chunks_exact(ONE) {
            // SAFETY: the kernel writes such events of this size; none is longer without flags that ask for more.
            let event = unsafe { std::ptr::read_unaligned(event.as_ptr().cast::<libc::fanotify_event_metadata>()) };
            // SAFETY: it is new, and nobody else's.
            let opened = unsafe { OwnedFd::from_raw_fd(event.fd) };
            let number = std::os::fd::AsRawFd::as_raw_fd(&opened);
            let answer = [number.to_ne_bytes(), libc::FAN_ALLOW.to_ne_bytes()].concat();
            (&asked).write_all(&answer).expect("the answer is taken");
        }
    }
}

/// Nothing is asked for before the kept file.
fn bench() -> Bench {
    let mut bench = Bench::new();
    bench.variables.push(("_condor_SEC_CREDENTIAL_GETTOKEN_OPTS".to_owned(), "-a vault.lab.test".to_owned()));
    bench
}

/// Kept files have a quarter of this.
fn hasty(target: &str) -> Attempt {
    Attempt { timeout: Duration::from_millis(200), ..attempt(target) }
}

#[tokio::test]
async fn a_token_directory_that_is_away_keeps_nobody_from_a_token() {
    let bench = bench();
    keep(&bench.kept(), OTHER);
    bench.htgettoken(TOKEN);
    let world = bench.world();
    let Some(away) = Away::of(&bench.path("state/tokens")) else { return };
    let got = action("GetVaultToken", &world).attempt(&hasty("-")).await;
    away.end();
    let note = got.unwrap().note.unwrap();
    let cause = format!("cannot reach {}: its file system does not answer", bench.kept().display());
    assert!(note.contains(&format!("the kept token was not used: {cause}")), "{note}");
    assert!(note.contains(&format!("the kept file could not be replaced: {cause}")), "{note}");
    let staged = world.service(Some(&subject())).unwrap().shared().token.unwrap().staged;
    assert_eq!(fs::read_to_string(staged).unwrap().trim(), TOKEN);
}

#[tokio::test]
async fn a_kept_token_that_comes_too_late_does_not_take_the_place_of_a_new_one() {
    let bench = bench();
    keep(&bench.kept(), OTHER);
    bench.script("htgettoken", "exit 1");
    let world = bench.world();
    let Some(away) = Away::of(&bench.path("state/tokens")) else { return };
    action("GetVaultToken", &world).attempt(&hasty("-")).await.unwrap_err();
    // As the next attempt has it from the vault.
    let staged = bench.path("private/vt_dune_production");
    keep(&staged, TOKEN);
    away.end();
    let token = || fs::read_to_string(&staged).unwrap().trim().to_owned();
    until("the late answer", || !bench.in_private().is_empty() || token() != TOKEN).await;
    assert_eq!(token(), TOKEN);
}

#[tokio::test]
async fn a_look_for_a_token_that_stands_in_can_be_given_up() {
    let mut bench = bench();
    bench.service.credds = Credds::Collector { collectors: vec![], constraint: None };
    keep(&bench.kept(), OTHER);
    let get = action("GetVaultToken", &bench.world());
    let Some(away) = Away::of(&bench.path("state/tokens")) else { return };
    let failure = Failure::new(Class::Timeout, VAULT_UNREACHABLE, "down");
    let attempt = attempt("-");
    let found = tokio::time::timeout(Duration::from_millis(20), get.stand_in(&attempt, &failure)).await;
    away.end();
    assert!(found.is_err(), "{found:?}");
}

#[tokio::test]
async fn a_keytab_that_is_away_is_a_timeout_that_says_so() {
    let mut bench = bench();
    bench.script("kinit", "");
    bench.service.keytab = bench.path("locks/keytab");
    fs::write(&bench.service.keytab, "keys").unwrap();
    let kinit = action("Kinit", &bench.world());
    let Some(away) = Away::of(&bench.path("locks")) else { return };
    let attempt = attempt("-");
    let (ended, ()) = tokio::join!(kinit.attempt(&attempt), async { attempt.cancel.cancel() });
    away.end();
    let failure = ended.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Timeout, KEYTAB_UNREADABLE));
    assert!(failure.message.ends_with("keytab cannot be read: its file system does not answer"), "{failure:?}");
    assert_eq!(bench.log("kinit"), "");
}

#[tokio::test]
async fn a_token_directory_that_is_away_keeps_no_credential_from_its_credd() {
    let bench = bench();
    let credd = "schedd1.lab.test";
    bench.script(
        "condor_vault_storer",
        &format!("# CONDOR_VAULT_STORER_ID\numask 077; echo {TOKEN} >/tmp/vt_$CONDOR_VAULT_STORER_ID-$2"),
    );
    keep(&bench.kept_of(credd), OTHER);
    let store = action("StoreInCredd", &bench.world());
    let Some(away) = Away::of(&bench.path("state/tokens")) else { return };
    let stored = store.attempt(&hasty(credd)).await;
    away.end();
    let note = stored.unwrap().note.unwrap();
    assert!(note.contains("the kept token could not be used: cannot reach"), "{note}");
    assert!(note.contains("the kept file could not be replaced: cannot reach"), "{note}");
    assert_eq!(bench.in_tmp(), Vec::<String>::new());
}

#[tokio::test]
async fn a_program_on_a_server_that_is_away_holds_up_its_own_attempt_alone() {
    let mut bench = bench();
    bench.script("kinit", "");
    fs::rename(bench.path("bin/kinit"), bench.path("locks/kinit")).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", bench.path("locks").display(), bench.path("bin").display());
    bench.variables.push(("PATH".to_owned(), path));
    let kinit = action("Kinit", &bench.world());
    let Some(away) = Away::of(&bench.path("locks")) else { return };
    let attempt = attempt("-");
    let (ended, ()) = tokio::join!(kinit.attempt(&attempt), async {
        // Time for it to be started, if that did not take as long as the server is away.
        tokio::time::sleep(Duration::from_millis(20)).await;
        attempt.cancel.cancel();
    });
    away.end();
    assert_eq!(code(ended), (Class::Timeout, KDC_UNREACHABLE));
}

#[tokio::test]
async fn a_storer_on_a_server_that_is_away_is_a_timeout() {
    let mut bench = bench();
    bench.script("condor_vault_storer", "");
    fs::rename(bench.path("bin/condor_vault_storer"), bench.path("locks/condor_vault_storer")).unwrap();
    let path = format!("{}:{}:/usr/bin:/bin", bench.path("locks").display(), bench.path("bin").display());
    bench.variables.push(("PATH".to_owned(), path));
    let store = action("StoreInCredd", &bench.world());
    let Some(away) = Away::of(&bench.path("locks")) else { return };
    let attempt = attempt("schedd1.lab.test");
    let (ended, ()) = tokio::join!(store.attempt(&attempt), async { attempt.cancel.cancel() });
    away.end();
    let failure = ended.unwrap_err();
    assert_eq!((failure.class, failure.code), (Class::Timeout, STORER_FILES));
    assert!(failure.message.contains("does not answer"), "{failure:?}");
}
