//! One owner per subject: a flock in the state directory, held while a machine works. It dies with its holder.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::id::{ProcessId, RunId, Subject};
use crate::workflow::input_file;

/// Ends what a dead process has left, and waits until nothing of it lives; for a few seconds at most.
pub type Bury = Arc<dyn Fn(ProcessId) + Send + Sync>;

/// The directory of leases.
#[derive(Clone)]
pub struct Leases {
    /// Why there is none, if so.
    directory: Result<PathBuf, String>,
    bury: Option<Bury>,
}

/// A subject held by this process; dropping it lets the next one in.
#[derive(Debug)]
pub struct Lease {
    file: File,
    /// Who died holding it. Its children may live on for a moment: [`Leases::bury`] it before the work begins.
    pub after: Option<ProcessId>,
}

/// Somebody else holds the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The run that holds it, where it could be read.
    pub by: Option<RunId>,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Released in order: there is nobody to bury. A name that stays costs the next one a look.
        let _ = self.file.set_len(0);
    }
}

impl Leases {
    /// Leases in this directory, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Ok(directory.into()), bury: None }
    }

    /// Nobody can be locked, and why: every subject is worked on without a lock, which the log says.
    pub fn without(why: impl Into<String>) -> Self {
        Self { directory: Err(why.into()), bury: None }
    }

    /// The same with somebody who clears up after holders that died.
    pub fn burying(self, bury: Bury) -> Self {
        Self { bury: Some(bury), ..self }
    }

    /// Returns when nothing of the dead process lives, or could be ended. A lock dies with its process at once, the
    /// process's children need not. Blocks.
    pub fn bury(&self, process: ProcessId) {
        if let Some(bury) = &self.bury {
            bury(process);
        }
    }

    /// Takes the subject for a run and the process that works on it, without waiting. `Ok(Err(_))`: somebody else holds it.
    ///
    /// # Errors
    /// The lock file, which they name, cannot be opened or locked; or there can be none.
    pub fn take(&self, subject: &Subject, run: RunId, process: ProcessId) -> io::Result<Result<Lease, Held>> {
        let directory = self.directory.as_ref();
        let directory = directory.map_err(|why| io::Error::other(format!("cannot lock {subject}: {why}")))?;
        let path = directory.join(subject.as_str());
        let failed = |doing: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
        };
        let mut file = input_file::open_lock(&path).map_err(|error| failed("open", error))?;
        match file.try_lock() {
            Ok(()) => {
                let (_, after) = holder(&mut file);
                // Only for the one who finds it held: a full disk must not keep us from the work.
                if let Err(error) = name_holder(&mut file, run, process) {
                    tracing::debug!(%error, path = %path.display(), "the lease does not say whose it is");
                }
                Ok(Ok(Lease { file, after: after.filter(|after| *after != process) }))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(Held { by: holder(&mut file).0 })),
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }
}

/// The run and the process that the file names.
fn holder(file: &mut File) -> (Option<RunId>, Option<ProcessId>) {
    let mut text = String::new();
    // Two ids; whatever else lies there is not read to its end.
    if file.take(128).read_to_string(&mut text).is_err() {
        return (None, None);
    }
    let mut words = text.split_whitespace();
    (words.next().and_then(|run| run.parse().ok()), words.next().and_then(|process| process.parse().ok()))
}

fn name_holder(file: &mut File, run: RunId, process: ProcessId) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{run} {process}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_holder_and_the_other_learns_which_run_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::new(directory.path());
        let (subject, run) = (Subject::new("dune_production"), RunId::generate());
        let lease = leases.take(&subject, run, ProcessId::generate()).unwrap().unwrap();
        assert_eq!(
            leases.take(&subject, RunId::generate(), ProcessId::generate()).unwrap().unwrap_err(),
            Held { by: Some(run) }
        );
        assert!(leases.take(&Subject::new("mu2e_production"), run, ProcessId::generate()).unwrap().is_ok());
        drop(lease);
        assert!(leases.take(&subject, RunId::generate(), ProcessId::generate()).unwrap().is_ok());
    }

    #[test]
    fn who_died_holding_a_subject_is_known_to_the_next_and_who_released_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::new(directory.path());
        let (subject, run) = (Subject::new("dune_production"), RunId::generate());
        let (dead, next) = (ProcessId::generate(), ProcessId::generate());
        drop(leases.take(&subject, run, dead).unwrap().unwrap());
        assert_eq!(leases.take(&subject, run, next).unwrap().unwrap().after, None);
        // As a process leaves it that was killed.
        std::fs::write(directory.path().join("dune_production"), format!("{run} {dead}\n")).unwrap();
        assert_eq!(leases.take(&subject, run, dead).unwrap().unwrap().after, None, "it is alive: it is us");
        std::fs::write(directory.path().join("dune_production"), format!("{run} {dead}\n")).unwrap();
        assert_eq!(leases.take(&subject, run, next).unwrap().unwrap().after, Some(dead));
    }

    #[test]
    fn a_link_planted_as_a_lease_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("dune_production")).unwrap();
        let leases = Leases::new(directory.path());
        assert!(leases.take(&Subject::new("dune_production"), RunId::generate(), ProcessId::generate()).is_err());
    }
}
