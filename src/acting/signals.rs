//! The signals that end a session early.

use std::sync::{Arc, Mutex, PoisonError};

use nix::sys::signal::Signal;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::cli::exit::StopSignal;
use crate::guardian;

/// The first signal that came, if one did.
#[derive(Clone, Debug, Default)]
pub struct Stop {
    token: CancellationToken,
    by: Arc<Mutex<Option<StopSignal>>>,
}

impl Stop {
    /// Listens from now on. SIGHUP (the terminal was closed) counts as SIGTERM. What the caller has ignored (`nohup`, a shell's
    /// job in the background) stays ignored.
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let kinds = [
            (Signal::SIGINT, StopSignal::Interrupt),
            (Signal::SIGTERM, StopSignal::Terminate),
            (Signal::SIGHUP, StopSignal::Terminate),
        ];
        for (kind, means) in kinds.into_iter().filter(|(kind, _)| !guardian::is_ignored(*kind)) {
            let mut heard = signal(SignalKind::from_raw(kind as i32))?;
            let stop = stop.clone();
            tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    stop.strike(means);
                }
            });
        }
        Ok(stop)
    }

    pub(super) fn strike(&self, means: StopSignal) {
        let mut by = self.by.lock().unwrap_or_else(PoisonError::into_inner);
        if by.is_none() {
            tracing::warn!(signal = ?means, "asked to stop: children are ended, the run can be resumed");
            *by = Some(means);
        }
        self.token.cancel();
    }

    /// Cancelled by the first signal.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Waits for a signal.
    pub async fn struck(&self) -> StopSignal {
        self.token.cancelled().await;
        // It is set before the token is cancelled.
        self.by().unwrap_or(StopSignal::Terminate)
    }

    /// Which signal came first.
    pub fn by(&self) -> Option<StopSignal> {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
