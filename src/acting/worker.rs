//! From a command to an acting process: not root, private, guarded, and clean after those who died.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::cli::error::{Failed, codes};
use crate::guardian::{self, Owner};
use crate::private_dir;
use crate::stderr;
use crate::workflow::code::Code;
use crate::workflow::store::StateDir;

use super::here;

/// A look at a file server that hangs keeps its thread for ever: a thousand services with a few tries each must leave some for
/// the others. They are made when they are needed.
const MOST_BLOCKED: usize = 16_384;

/// So much is written for a try: a few caches and tokens.
const PROBE: usize = 64 << 10;

/// A worker under its guardian.
pub struct Worker {
    /// This process: its id and private directory.
    pub owner: Owner,
    /// Who asked for it.
    pub trigger: String,
    /// Where everything of this process is.
    pub places: Places,
}

/// Why the state directory cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{why} [{code}]")]
pub struct Unusable {
    /// What `mt explain` knows about it.
    pub code: Code,
    /// Why.
    pub why: String,
}

/// The directories of a worker.
#[derive(Debug)]
pub struct Places {
    /// The state directory, or why it cannot be used.
    pub state: Result<StateDir, Unusable>,
    /// As configured.
    pub configured: PathBuf,
    /// What holds the next two, and the locks of steps: the state directory, or what stands in for it.
    pub base: PathBuf,
    /// Private directories and owner locks.
    pub run: PathBuf,
    /// Leases.
    pub leases: PathBuf,
}

impl Worker {
    /// Forks: the caller goes on as the worker. No thread may exist yet. Where the state directory cannot be used, the
    /// private directories and leases are in memory: tokens are pushed all the same.
    pub fn enter(state_dir: &Path) -> Result<Self, Failed> {
        guardian::refuse_root(state_dir).map_err(|e| Failed::new(e.code(), e.to_string()))?;
        let trigger = here::trigger();
        let usable = StateDir::create(state_dir).and_then(|state| state.check_room().map(|()| state));
        let (places, owner) = match usable.map(|state| (take(state.path()), state)) {
            Ok((Ok(owner), state)) => (Places::new(Ok(state.clone()), state_dir, state.path()), owner),
            Ok((Err(why), _)) => fall_back(Unusable { code: why.code(), why: why.to_string() }, state_dir)?,
            Err(error) => fall_back(Unusable { code: error.code(), why: error.to_string() }, state_dir)?,
        };
        let owner = guardian::enter(owner).map_err(|e| Failed::new(e.code(), e.to_string()))?;
        stderr::start();
        // An earlier process may have been elsewhere: the state directory could not be used then, or cannot be used now.
        let bases = private_dir::earlier_fallbacks().into_iter().chain([state_dir.to_owned()]);
        let elsewhere: BTreeSet<PathBuf> = bases.map(|base| base.join("run")).collect();
        clean_up(&places.run);
        for run in elsewhere.iter().filter(|run| **run != places.run && private_dir::is_ours(run)) {
            clean_up(run);
        }
        Ok(Self { owner, trigger, places })
    }
}

/// After those who died. What cannot be cleaned up is no reason not to work, and the next start tries again.
fn clean_up(run: &Path) {
    let swept = guardian::sweep(run, &[PathBuf::from("/tmp")]).unwrap_or_else(|error| {
        tracing::warn!(code = %error.code(), "cannot look for what dead processes left: {error}");
        Vec::new()
    });
    for swept in swept {
        tracing::info!(process = %swept.process, ended = swept.ended, files = swept.files.len(), "cleaned up after a process that died");
        for problem in &swept.problems {
            tracing::warn!(code = %guardian::LEFTOVERS, "{problem}");
        }
    }
}

impl Places {
    fn new(state: Result<StateDir, Unusable>, configured: &Path, base: &Path) -> Self {
        Self {
            state,
            configured: configured.to_owned(),
            base: base.to_owned(),
            run: base.join("run"),
            leases: base.join("leases"),
        }
    }
}

fn take(base: &Path) -> Result<Owner, private_dir::PrivateDirError> {
    private_dir::create(&base.join("leases"))?;
    let owner = Owner::take(&base.join("run"))?;
    match try_to_write(&owner.private) {
        Ok(()) => Ok(owner),
        Err(error) => {
            owner.leave();
            Err(error)
        }
    }
}

/// A quota can be at its end on a disk with room: names can be made then, and nothing be put into the files.
fn try_to_write(private: &Path) -> Result<(), private_dir::PrivateDirError> {
    let path = private.join("probe");
    std::fs::write(&path, [0; PROBE])
        .and_then(|()| std::fs::remove_file(&path))
        .map_err(|source| private_dir::PrivateDirError::Io { doing: "write", path, source })
}

fn fall_back(why: Unusable, configured: &Path) -> Result<(Places, Owner), Failed> {
    tracing::error!("{why}");
    let failed = |e: private_dir::PrivateDirError| {
        Failed::new(e.code(), format!("{why}; and there is no other place for private files: {e}"))
    };
    let base = private_dir::fallback().map_err(failed)?;
    let owner = take(&base).map_err(failed)?;
    Ok((Places::new(Err(why), configured, &base), owner))
}

/// A runtime for the work. Only after [`Worker::enter`]: a fork copies one thread.
pub fn runtime() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .max_blocking_threads(MOST_BLOCKED)
        .build()
        .map_err(|e| Failed::new(codes::UNEXPECTED, format!("cannot start the runtime: {e}")))
}

/// Every machine holds a lease, every child three pipes: the soft limit of open files is raised to the hard one.
pub fn raise_open_files() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(soft, hard)| if soft < hard { setrlimit(Resource::RLIMIT_NOFILE, hard, hard) } else { Ok(()) });
    if let Err(errno) = raised {
        tracing::debug!(%errno, "cannot raise the limit of open files");
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Said(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Said {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged meanwhile.
    pub fn said(work: impl FnOnce()) -> String {
        let said = Said::default();
        let writer = said.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(subscriber, work);
        String::from_utf8(said.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn what_cannot_be_swept_is_said_with_its_code() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        // What is no directory cannot be read as one, by root neither.
        std::fs::write(&run, "").unwrap();
        let said = said(|| clean_up(&run));
        let code = guardian::sweep(&run, &[]).unwrap_err().code().to_string();
        assert!(said.contains("WARN") && said.contains(&code) && said.contains(run.to_str().unwrap()), "{said}");
    }
}
