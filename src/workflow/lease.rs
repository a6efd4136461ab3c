//! One owner per subject: a flock in the state directory, held while a machine works. It dies with its holder.

use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::PathBuf;

use super::id::{RunId, Subject};
use crate::workflow::input_file;

/// The directory of leases.
#[derive(Clone, Debug)]
pub struct Leases {
    /// Why there is none, if so.
    directory: Result<PathBuf, String>,
}

/// A subject held by this process; dropping it lets the next one in.
#[derive(Debug)]
pub struct Lease {
    _file: File,
}

/// Somebody else holds the subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The run that holds it, where it could be read.
    pub by: Option<RunId>,
}

impl Leases {
    /// Leases in this directory, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Ok(directory.into()) }
    }

    /// Nobody can be locked, and why: every subject is worked on without a lock, which the log says.
    pub fn without(why: impl Into<String>) -> Self {
        Self { directory: Err(why.into()) }
    }

    /// Takes the subject for a run, without waiting. `Ok(Err(_))`: somebody else holds it.
    ///
    /// # Errors
    /// The lock file, which they name, cannot be opened or locked; or there can be none.
    pub fn take(&self, subject: &Subject, run: RunId) -> io::Result<Result<Lease, Held>> {
        let directory =
            self.directory.as_ref().map_err(|why| io::Error::other(format!("cannot lock {subject}: {why}")))?;
        let path = directory.join(subject.as_str());
        let failed = |doing: &str, error: io::Error| {
            io::Error::new(error.kind(), format!("cannot {doing} {}: {error}", path.display()))
        };
        let mut file = input_file::open_lock(&path).map_err(|error| failed("open", error))?;
        match file.try_lock() {
            Ok(()) => {
                // Only for the one who finds it held: a full disk must not keep us from the work.
                if let Err(error) = name_holder(&mut file, run) {
                    tracing::debug!(%error, path = %path.display(), "the lease does not say whose it is");
                }
                Ok(Ok(Lease { _file: file }))
            }
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                let by = match file.read_to_string(&mut text) {
                    Ok(_) => text.trim().parse().ok(),
                    Err(_) => None,
                };
                Ok(Err(Held { by }))
            }
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }
}

fn name_holder(file: &mut File, run: RunId) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{run}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_subject_has_one_holder_and_the_other_learns_which_run_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let leases = Leases::new(directory.path());
        let (subject, run) = (Subject::new("dune_production"), RunId::generate());
        let lease = leases.take(&subject, run).unwrap().unwrap();
        assert_eq!(leases.take(&subject, RunId::generate()).unwrap().unwrap_err(), Held { by: Some(run) });
        assert!(leases.take(&Subject::new("mu2e_production"), run).unwrap().is_ok());
        drop(lease);
        assert!(leases.take(&subject, RunId::generate()).unwrap().is_ok());
    }

    #[test]
    fn a_link_planted_as_a_lease_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("dune_production")).unwrap();
        let leases = Leases::new(directory.path());
        assert!(leases.take(&Subject::new("dune_production"), RunId::generate()).is_err());
    }
}
