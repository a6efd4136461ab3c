//! Children with a time limit of their own, shorter than their attempt's.

use std::convert::Infallible;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::process::{self, Command, Finished, RunError};

/// Runs a child to its end, or ends it when `cancel` is cancelled or `limit` is over. Either way it is gone on return.
pub async fn run_within(command: Command, cancel: &CancellationToken, limit: Duration) -> Result<Finished, RunError> {
    let own = cancel.child_token();
    let watch = async {
        tokio::time::sleep(limit).await;
        own.cancel();
        // `run` ends by itself now; dropping it before that could leave the child behind.
        std::future::pending::<Infallible>().await
    };
    tokio::select! {
        finished = process::run(command, &own) => finished,
        never = watch => match never {},
    }
}
