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
    /// Listens from now on. SIGHUP (the terminal was closed) counts as SIGTERM, unless the caller has it ignored (`nohup`).
    pub fn listen() -> std::io::Result<Self> {
        let stop = Self::default();
        let kinds = [
            (SignalKind::interrupt(), StopSignal::Interrupt),
            (SignalKind::terminate(), StopSignal::Terminate),
            (SignalKind::hangup(), StopSignal::Terminate),
        ];
        let nohup = guardian::is_ignored(Signal::SIGHUP);
        for (kind, means) in kinds.into_iter().filter(|(kind, _)| !(nohup && *kind == SignalKind::hangup())) {
            let mut heard = signal(kind)?;
            let stop = stop.clone();
            tokio::spawn(async move {
                while heard.recv().await.is_some() {
                    stop.strike(means);
                }
            });
        }
        Ok(stop)
    }

    fn strike(&self, means: StopSignal) {
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

    /// Which signal came first.
    pub fn by(&self) -> Option<StopSignal> {
        *self.by.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
