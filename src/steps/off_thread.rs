//! Work on files, off the runtime's few threads: every machine stands still while one of those waits for a lock or a disk.
//!
//! Kept tokens, keytabs and programs may lie on a file server, and one that is away keeps whoever asks it for as long as it
//! is away. So such work has a limit, and ends with its attempt; the thread stays behind. The private directory and the
//! locks lie beside the store, without which nothing goes on anyway, and `/tmp` is of this machine: what is done there,
//! in a moment, is done in place.

use std::path::Path;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::token_file::{self, TokenFileError};
use crate::workflow::action::Attempt;

/// Reading and replacing a kept token get this part of the attempt's time each: a token can be got and pushed without the
/// kept one, and there must be time left to do so.
const KEPT_SHARE: u32 = 4;

/// Does the work to its end, however long it takes.
pub(super) async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is shutting down, and this task with it.
            Err(_) => std::future::pending().await,
        },
    }
}

/// The same, but waits for it no longer than this, and not after the attempt is over: `None` then. What the work comes to
/// later is lost, so it must harm nobody later.
pub(super) async fn within<T: Send + 'static>(
    limit: Duration,
    cancel: &CancellationToken,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::select! {
        biased;
        done = off_thread(work) => Some(done),
        () = cancel.cancelled() => None,
        () = tokio::time::sleep(limit) => None,
    }
}

/// The same for work on this kept token.
pub(super) async fn on_kept<T: Send + 'static>(
    kept: &Path,
    attempt: &Attempt,
    work: impl FnOnce() -> Result<T, TokenFileError> + Send + 'static,
) -> Result<T, TokenFileError> {
    let done = within(attempt.timeout / KEPT_SHARE, &attempt.cancel, work).await;
    done.unwrap_or_else(|| Err(token_file::no_answer(kept)))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// Work that goes on until the other end is dropped.
    fn hanging() -> (mpsc::Sender<()>, impl FnOnce() + Send + 'static) {
        let (free, held) = mpsc::channel::<()>();
        (free, move || {
            let _ = held.recv();
        })
    }

    #[tokio::test]
    async fn work_that_hangs_ends_with_its_attempt() {
        let (free, work) = hanging();
        let cancel = CancellationToken::new();
        let canceller = cancel.clone();
        // On the one thread of this test: it gets its turn only if the work is elsewhere.
        let (done, ()) = tokio::join!(within(LONG, &cancel, work), async move { canceller.cancel() });
        assert_eq!(done, None);
        drop(free);
    }

    #[tokio::test]
    async fn work_that_hangs_is_given_up_after_its_limit() {
        let (free, work) = hanging();
        assert_eq!(within(Duration::from_millis(1), &CancellationToken::new(), work).await, None);
        drop(free);
    }

    #[tokio::test]
    async fn work_that_ends_in_time_counts() {
        let cancel = CancellationToken::new();
        assert_eq!(within(LONG, &cancel, || 7).await, Some(7));
    }
}
