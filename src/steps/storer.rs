//! The files of condor_vault_storer, which are hard-wired to `/tmp`.
//!
//! Since 2023 the storer takes `CONDOR_VAULT_STORER_ID` for a part of their names. Every attempt then has names of its
//! own that nobody can guess; they begin with the process's id, so that what a killed process left can be found. An
//! older storer has one name per user and service: there it goes one at a time, and what was there is put back.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};
use tokio::sync::{Mutex, MutexGuard, OnceCell};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use ulid::Ulid;

use super::codes::STORER_FILES;
use super::environment::Snapshot;
use super::off_thread::{off_thread, on_kept};
use super::world::World;
use crate::config::Service;
use crate::token_file::{self, Fingerprint, TokenFileError};
use crate::workflow::action::{Attempt, Class, Failure};
use crate::workflow::input_file;

/// The program.
pub const PROGRAM: &str = "condor_vault_storer";
/// The variable that gives its files names of their own.
pub const VARIABLE: &str = "CONDOR_VAULT_STORER_ID";
/// Where it puts them.
const DIRECTORY: &str = "/tmp";
/// It is a script of some kilobytes.
const MOST_BYTES: u64 = 1 << 20;
const LOCK_FILE: &str = "storer.lock";
const LOCK_EVERY: Duration = Duration::from_millis(50);

/// How the installed storer names its files, and who uses them now.
#[derive(Debug, Default)]
pub(super) struct StorerFiles {
    isolated: OnceCell<bool>,
    one_at_a_time: Mutex<()>,
}

/// The files of one run of the storer. They are removed, and what was there before is put back, when this is dropped.
pub(super) struct Files<'a> {
    /// The value of `CONDOR_VAULT_STORER_ID`, where the storer knows it.
    pub id: Option<String>,
    /// The token the storer reads and writes.
    token: PathBuf,
    /// The copy it makes of a new one.
    copy: PathBuf,
    /// What was there: saved as, and where it was.
    saved: Vec<(PathBuf, PathBuf)>,
    /// Is what has these names now ours to remove?
    cleared: bool,
    _shared: Option<(MutexGuard<'a, ()>, Flock<File>)>,
}

impl StorerFiles {
    /// Names for one run of the storer; the kept token of the credd is put where it looks for one.
    pub(super) async fn prepare<'a>(
        &'a self,
        world: &World,
        service: &Service,
        kept: &Path,
        attempt: &Attempt,
    ) -> Result<(Files<'a>, Option<String>), Failure> {
        let mut files = if self.is_isolated(&world.environment, attempt).await? {
            // Nobody can guess it. The process's own id would not do: it is in the arguments of kinit and htgettoken, which
            // everybody can read, and whoever knows a name in /tmp before us can take it. (The htgettoken that the storer
            // starts shows this one, too: for the time of one attempt.) The guardian removes by that id.
            let id = format!("mt{}-{}", world.process, Ulid::new());
            Files::named(&id.clone(), Some(id), service, None)
        } else {
            let turn = self.turn(world, &attempt.cancel).await?;
            Files::named(&format!("u{}", world.own_uid), None, service, Some(turn))
        };
        files.save(world)?;
        let note = files
            .plant(world, kept, attempt)
            .await
            .err()
            .map(|error| format!("the kept token could not be used: {error}"));
        Ok((files, note))
    }

    async fn is_isolated(&self, environment: &Snapshot, attempt: &Attempt) -> Result<bool, Failure> {
        let look = || async {
            let environment = environment.clone();
            let isolated = off_thread(move || knows_variable(&environment)).await;
            if !isolated {
                info!(
                    "this {PROGRAM} knows no {VARIABLE} (HTCondor before 2023): services and credds go one at a time"
                );
            }
            isolated
        };
        tokio::select! {
            biased;
            isolated = self.isolated.get_or_init(look) => Ok(*isolated),
            // Programs may lie on a file server. Whoever asks next looks anew.
            () = attempt.cancel.cancelled() => {
                let message = format!("{PROGRAM} cannot be read: its file system does not answer");
                Err(Failure::new(Class::Timeout, STORER_FILES, message))
            }
        }
    }

    /// Waits until no other attempt and no other process works with the shared names.
    async fn turn<'a>(
        &'a self,
        world: &World,
        cancel: &CancellationToken,
    ) -> Result<(MutexGuard<'a, ()>, Flock<File>), Failure> {
        let path = world.locks.join(LOCK_FILE);
        let waited = || {
            Failure::new(
                Class::Timeout,
                STORER_FILES,
                format!("another {PROGRAM} held {} all the time", path.display()),
            )
        };
        let broken = |error: std::io::Error| {
            Failure::new(Class::Permanent, STORER_FILES, format!("cannot lock {}: {error}", path.display()))
        };
        let guard = tokio::select! {
            guard = self.one_at_a_time.lock() => guard,
            () = cancel.cancelled() => return Err(waited()),
        };
        let mut file = input_file::open_lock(&path).map_err(broken)?;
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok((guard, lock)),
                Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
                Err((_, errno)) => return Err(broken(errno.into())),
            }
            tokio::select! {
                () = tokio::time::sleep(LOCK_EVERY) => {}
                () = cancel.cancelled() => return Err(waited()),
            }
        }
    }
}

impl<'a> Files<'a> {
    fn named(
        ident: &str,
        id: Option<String>,
        service: &Service,
        turn: Option<(MutexGuard<'a, ()>, Flock<File>)>,
    ) -> Self {
        let token = Path::new(DIRECTORY).join(format!("vt_{ident}-{}", service.issuer_service));
        let copy = Path::new(DIRECTORY).join(format!("vt_{ident}"));
        Self { id, token, copy, saved: Vec::new(), cleared: false, _shared: turn }
    }

    fn save(&mut self, world: &World) -> Result<(), Failure> {
        for path in [&self.token, &self.copy] {
            let saved = world.private_path("saved");
            match token_file::collect(path, &saved) {
                Ok(_) => self.saved.push((saved, path.clone())),
                Err(TokenFileError::Missing { .. }) => {}
                Err(error) => {
                    return Err(Failure::new(Class::Permanent, STORER_FILES, error.to_string())
                        .with_next(format!("remove {}", path.display())));
                }
            }
        }
        self.cleared = true;
        Ok(())
    }

    async fn plant(&self, world: &World, kept: &Path, attempt: &Attempt) -> Result<(), TokenFileError> {
        let staged = world.private_path("credd");
        let (from, to) = (kept.to_owned(), staged.clone());
        let found = on_kept(kept, attempt, move || token_file::stage(&from, &to)).await?;
        // An answer that comes too late must not leave a token in /tmp: only who has waited for it plants it.
        let planted = match found {
            Some(_) => token_file::plant(&staged, &self.token).map(|_| ()),
            None => Ok(()),
        };
        token_file::remove(&staged)?;
        planted
    }

    /// Takes what the storer left, and makes it the kept token of the credd.
    pub(super) async fn collect(
        &self,
        world: &World,
        kept: &Path,
        attempt: &Attempt,
    ) -> Result<Fingerprint, TokenFileError> {
        let staged = world.private_path("credd");
        token_file::collect(&self.token, &staged)?;
        let to = kept.to_owned();
        // The work removes what it has read, be it late.
        on_kept(kept, attempt, move || {
            let kept = token_file::keep(&staged, &to);
            token_file::remove(&staged)?;
            kept
        })
        .await
    }
}

impl Drop for Files<'_> {
    fn drop(&mut self) {
        for path in [&self.token, &self.copy].into_iter().filter(|_| self.cleared) {
            if let Err(error) = token_file::remove(path) {
                warn!(%error, "a file of {PROGRAM} stays behind");
            }
        }
        for (saved, path) in &self.saved {
            if let Err(error) = token_file::plant(saved, path) {
                warn!(%error, "a file that was there before {PROGRAM} could not be put back");
            }
            if let Err(error) = token_file::remove(saved) {
                warn!(%error, "a saved file stays in the private directory");
            }
        }
    }
}

/// Does the storer in the PATH know the variable? A program that cannot be read is taken for an old one.
fn knows_variable(environment: &Snapshot) -> bool {
    let Some(path) = std::env::split_paths(environment.path()).map(|dir| dir.join(PROGRAM)).find(|path| path.is_file())
    else {
        // Starting it will say that it is missing.
        return true;
    };
    input_file::read_anybodys(&path, MOST_BYTES)
        .is_ok_and(|content| content.windows(VARIABLE.len()).any(|window| window == VARIABLE.as_bytes()))
}
