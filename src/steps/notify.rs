//! `Notify`: sends what waits in the outbox for this run.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::codes::{MAIL_NOT_CONFIGURED, MAIL_UNCERTAIN, OUTBOX};
use super::world::World;
use super::{info_of, only_target};
use crate::config::Email;
use crate::notify::outbox::ADMINS;
use crate::notify::{Outbox, OutboxEntry, OutboxError, OutboxStatus, Recipient, mail};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::id::{Subject, TargetName};

/// Its name in workflow files.
pub const NAME: &str = "Notify";

/// The action.
pub struct Notify {
    world: Arc<World>,
}

impl Notify {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let Some(outbox) = &self.world.outbox else {
            return Ok(Success { detail: None, note: Some("nothing is kept to be sent".to_owned()) });
        };
        let waiting = outbox.pending(attempt.run).await.map_err(unavailable)?;
        let waiting: Vec<_> = waiting.into_iter().filter(|entry| entry.status != OutboxStatus::Sent).collect();
        if waiting.is_empty() {
            return Ok(Success { detail: None, note: None });
        }
        let server = self.world.email.as_ref().ok_or_else(|| {
            Failure::new(
                Class::Permanent,
                MAIL_NOT_CONFIGURED,
                "there is a mail to send, and no email.from in the configuration",
            )
            .with_next("set email.from and email.smtpHost")
        })?;
        let mut notes = Vec::new();
        let mut failed = None;
        // One mail that cannot go out does not keep back the next.
        for entry in &waiting {
            match self.send(outbox.as_ref(), server, entry, attempt).await {
                Ok(None) => notes.push(format!("mail sent to {}", entry.group)),
                Ok(Some(refused)) => notes.push(format!("mail sent to {}, but not to {refused}", entry.group)),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        match failed {
            Some(failure) => Err(failure),
            None => Ok(Success { detail: None, note: Some(notes.join("; ")) }),
        }
    }

    async fn send(
        &self,
        outbox: &dyn Outbox,
        server: &Email,
        entry: &OutboxEntry,
        attempt: &Attempt,
    ) -> Result<Option<String>, Failure> {
        outbox.mark_sending(entry).await.map_err(unavailable)?;
        let since = Instant::now();
        let sent = tokio::select! {
            sent = mail::send(server, entry) => sent,
            () = attempt.cancel.cancelled() => {
                let place = format!("{}:{}", server.smtp_host, server.smtp_port);
                let message = format!("the mail server {place} did not answer in time");
                Err(Failure::new(Class::Timeout, MAIL_UNCERTAIN, message).with_next(mail::LOOK))
            }
        };
        self.world.deliveries.add(recipient(entry), sent.is_ok(), since);
        match &sent {
            Ok(_) => outbox.mark_sent(entry, Timestamp::now()).await.map_err(unavailable)?,
            // What had perhaps gone out before this try may still have.
            Err(failure) if failure.code != MAIL_UNCERTAIN && entry.status == OutboxStatus::Prepared => {
                outbox.mark_unsent(entry).await.map_err(unavailable)?;
            }
            Err(_) => {}
        }
        sent
    }
}

/// The groups of mails: one of the admins, one of each service.
fn recipient(entry: &OutboxEntry) -> Recipient {
    match entry.group.as_str() {
        ADMINS => Recipient::AdminsByMail,
        service => Recipient::Service(Subject::new(service)),
    }
}

fn unavailable(error: OutboxError) -> Failure {
    Failure::new(Class::Transient, OUTBOX, error.to_string()).with_next("mt store verify")
}

impl Action for Notify {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn targets<'a>(
        &'a self,
        _attempt: &'a Attempt,
        _recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        only_target()
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }
}
