//! One owner per subject: a flock in the state directory, held while a machine works. It dies with its holder.

use std::collections::BTreeMap;
use std::fs::{File, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::OnceCell;

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
    /// Those who have died and been buried. Who died holding a thousand subjects is buried once.
    buried: Arc<Mutex<BTreeMap<ProcessId, Arc<OnceCell<()>>>>>,
}

/// A subject held by this process; dropping it lets the next one in.
#[derive(Debug)]
pub struct Lease {
    file: File,
    ours: (RunId, ProcessId),
    /// Who died holding it. Its children may live on for a moment: [`Leases::bury`] it before the work begins. Until then the
    /// file's first line goes on naming it, so that whoever comes after us buries it if we do not; the second names us.
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
        // Released in order: there is nobody to bury. Under a name that stays our children would pass for a dead process's,
        // so whoever cannot remove it holds the lease to its end.
        if self.after.is_none() && self.file.set_len(0).is_err() {
            std::mem::forget(self.file.try_clone());
        }
    }
}

impl Lease {
    fn name_us(&mut self) {
        self.name_us_after(0);
    }

    /// Leaves so many bytes as they are: whole lines.
    fn name_us_after(&mut self, length: u64) {
        let (run, process) = self.ours;
        // At once: half a line would hide whom to bury.
        let line = format!("{run} {process}\n");
        let mut write = || {
            self.file.set_len(length)?;
            self.file.seek(SeekFrom::Start(length))?;
            self.file.write_all(line.as_bytes())
        };
        // For the one who finds it held, and for our heir: a full disk must not keep us from the work.
        if let Err(error) = write() {
            tracing::debug!(%error, "the lease does not say whose it is");
        }
    }
}

impl Leases {
    /// Leases in this directory, which exists.
    pub fn new(directory: impl Into<PathBuf>) -> Self {
        Self { directory: Ok(directory.into()), bury: None, buried: Arc::default() }
    }

    /// Nobody can be locked, and why: every subject is worked on without a lock, which the log says.
    pub fn without(why: impl Into<String>) -> Self {
        Self { directory: Err(why.into()), bury: None, buried: Arc::default() }
    }

    /// The same with somebody who clears up after holders that died.
    pub fn burying(self, bury: Bury) -> Self {
        Self { bury: Some(bury), ..self }
    }

    /// Returns when nothing lives of whoever died holding it, or what does cannot be ended. A lock dies with its process at
    /// once, the process's children need not.
    pub async fn bury(&self, lease: &mut Lease) {
        let Some(dead) = lease.after else { return };
        if let Some(bury) = self.bury.clone() {
            let cell = self.buried.lock().unwrap_or_else(PoisonError::into_inner).entry(dead).or_default().clone();
            let once = || async move {
                // A thread that panicked has buried nobody; the work is more important.
                let _ = tokio::task::spawn_blocking(move || bury(dead)).await;
            };
            cell.get_or_init(once).await;
        }
        lease.after = None;
        lease.name_us();
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
                let before = Before::read(&mut file);
                let after = before.first().1.filter(|after| *after != process);
                let mut lease = Lease { file, ours: (run, process), after };
                lease.name_us_after(if after.is_some() { before.first_line().len() as u64 } else { 0 });
                Ok(Ok(lease))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(Held { by: Before::read(&mut file).last().0 })),
            Err(TryLockError::Error(error)) => Err(failed("lock", error)),
        }
    }
}

/// What a lock file says.
struct Before(String);

impl Before {
    fn read(file: &mut File) -> Self {
        let mut text = String::new();
        // Two lines of two ids; whatever else lies there is not read to its end.
        Self(if file.take(128).read_to_string(&mut text).is_ok() { text } else { String::new() })
    }

    fn first_line(&self) -> &str {
        self.0.split_inclusive('\n').next().unwrap_or_default()
    }

    /// Whom to bury, if it is dead.
    fn first(&self) -> (Option<RunId>, Option<ProcessId>) {
        ids(self.first_line())
    }

    /// Who holds the lock, if somebody does.
    fn last(&self) -> (Option<RunId>, Option<ProcessId>) {
        ids(self.0.lines().next_back().unwrap_or_default())
    }
}

/// The run and the process that a line names.
fn ids(line: &str) -> (Option<RunId>, Option<ProcessId>) {
    let mut words = line.split_whitespace();
    (words.next().and_then(|run| run.parse().ok()), words.next().and_then(|process| process.parse().ok()))
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

    /// A holder that was killed, and subjects that it held.
    fn dead_holder(directory: &std::path::Path, names: &[String]) -> (RunId, ProcessId) {
        let (run, dead) = (RunId::generate(), ProcessId::generate());
        names.iter().for_each(|name| std::fs::write(directory.join(name), format!("{run} {dead}\n")).unwrap());
        (run, dead)
    }

    #[tokio::test]
    async fn who_died_holding_many_subjects_is_buried_once_and_all_wait_for_it() {
        let directory = tempfile::tempdir().unwrap();
        let names: Vec<String> = (0..50).map(|n| format!("service{n}")).collect();
        let (run, dead) = dead_holder(directory.path(), &names);
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let (ended, burials) = (Mutex::new(ended), Arc::new(Mutex::new(Vec::new())));
        let leases = Leases::new(directory.path()).burying(Arc::new({
            let burials = burials.clone();
            move |process| {
                ended.lock().unwrap().recv().unwrap();
                burials.lock().unwrap().push(process);
            }
        }));
        let us = ProcessId::generate();
        let mut taken: Vec<Lease> =
            names.iter().map(|name| leases.take(&Subject::new(name), run, us).unwrap().unwrap()).collect();
        {
            let mut all = std::pin::pin!(futures::future::join_all(taken.iter_mut().map(|lease| leases.bury(lease))));
            assert!(futures::poll!(&mut all).is_pending(), "each of them has asked by now");
            assert_eq!(*burials.lock().unwrap(), [], "and nobody has been buried");
            // Once for each of them that would bury it again.
            names.iter().for_each(|_| end.send(()).unwrap());
            all.await;
        }
        assert_eq!(*burials.lock().unwrap(), [dead]);
        assert!(taken.iter().all(|lease| lease.after.is_none()));
        assert_eq!(std::fs::read_to_string(directory.path().join("service7")).unwrap(), format!("{run} {us}\n"));
    }

    #[test]
    fn whoever_lets_a_subject_go_without_burying_leaves_that_to_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let (run, dead) = dead_holder(directory.path(), &["dune".to_owned()]);
        let leases = Leases::new(directory.path());
        for _ in 0..2 {
            let (ours, us) = (RunId::generate(), ProcessId::generate());
            let lease = leases.take(&Subject::new("dune"), ours, us).unwrap().unwrap();
            assert_eq!(lease.after, Some(dead));
            let left = std::fs::read_to_string(directory.path().join("dune")).unwrap();
            let expected = format!("{run} {dead}\n{ours} {us}\n");
            assert_eq!(left, expected, "were we killed now, it would be buried all the same");
            let held =
                leases.take(&Subject::new("dune"), RunId::generate(), ProcessId::generate()).unwrap().unwrap_err();
            assert_eq!(held, Held { by: Some(ours) }, "not the dead one's run");
        }
    }

    #[test]
    fn a_link_planted_as_a_lease_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/etc/passwd", directory.path().join("dune_production")).unwrap();
        let leases = Leases::new(directory.path());
        assert!(leases.take(&Subject::new("dune_production"), RunId::generate(), ProcessId::generate()).is_err());
    }
}
