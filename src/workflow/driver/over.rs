//! When the work of a session is over: at a moment, or by a signal.

use std::sync::{Arc, OnceLock};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Why it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Why {
    /// The deadline struck.
    Deadline,
    /// A signal came.
    Stopped,
}

/// See the module's documentation. Its timer ends with the last clone.
#[derive(Clone, Debug)]
pub(super) struct Over {
    token: CancellationToken,
    why: Arc<OnceLock<Why>>,
    _timer: Arc<Timer>,
}

#[derive(Debug)]
struct Timer(tokio::task::JoinHandle<()>);

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Over {
    /// Over at `moment`, or when `stop` is cancelled.
    pub(super) fn at(moment: Instant, stop: CancellationToken) -> Self {
        let token = CancellationToken::new();
        let why = Arc::new(OnceLock::new());
        let timer = tokio::spawn({
            let (token, why) = (token.clone(), why.clone());
            async move {
                let reason = tokio::select! {
                    () = stop.cancelled() => Why::Stopped,
                    () = tokio::time::sleep_until(moment) => Why::Deadline,
                };
                // Set once, here, before anybody can see the token cancelled.
                let _first = why.set(reason);
                token.cancel();
            }
        });
        Self { token, why, _timer: Arc::new(Timer(timer)) }
    }

    /// Why it is over; `None` while it is not.
    pub(super) fn why(&self) -> Option<Why> {
        if self.token.is_cancelled() { self.why.get().copied() } else { None }
    }

    /// Waits until it is over.
    pub(super) async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Cancelled when it is over; may be cancelled before.
    pub(super) fn child(&self) -> CancellationToken {
        self.token.child_token()
    }
}
