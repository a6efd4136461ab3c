//! Children with a time limit of their own, shorter than their attempt's, and those that log in at the vault.

use std::convert::Infallible;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tracing::info;

use super::classify::vault;
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

/// Runs a program that logs in at the vault with Kerberos, and runs it once more if that vault turned the login down.
///
/// A vault that sees two logins of one principal at the same instant may take the second for a replay of the first and
/// answer `Unauthorized` (OpenBao 2.6.1: 158 of 24,000 logins of four clients; its log says KRB_AP_ERR_REPEAT). The credds
/// of a service are served at once, with the same ticket. A login that is refused for another reason is refused again.
pub async fn run_login(command: Command, cancel: &CancellationToken) -> Result<Finished, RunError> {
    let finished = process::run(command.clone(), cancel).await?;
    if finished.success() || !vault::login_was_turned_down(&finished.output) {
        return Ok(finished);
    }
    info!("the vault turned the Kerberos login down, perhaps for a replay: tried once more");
    process::run(command, cancel).await
}
