//! `Notify`: sends what waits in the outbox for this run. Mails go one after another over one connection, Slack beside
//! them, so that a mail server that hangs does not keep Slack waiting, nor the other way round.

use std::sync::Arc;
use std::time::Instant;

use futures::future::BoxFuture;
use jiff::Timestamp;

use super::codes::{MAIL_NOT_CONFIGURED, MAIL_UNCERTAIN, MAIL_UNREACHABLE, OUTBOX};
use super::info_of;
use super::world::World;
use crate::config::Email;
use crate::crash_point::{CrashPoint, pass};
use crate::notify::codes::{MAIL_LOGIN, MAIL_TLS, PASSWORD_FILE, SLACK_NOT_CONFIGURED, SLACK_UNCERTAIN};
use crate::notify::smtp::Smtp;
use crate::notify::{Channel, Deliveries, Group, Outbox, OutboxEntry, OutboxError, OutboxStatus, Recipient};
use crate::notify::{mail, roots, slack};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::code::Code;

/// Its name in workflow files.
pub const NAME: &str = "Notify";

/// The action.
pub struct Notify {
    world: Arc<World>,
}

/// What became of the messages of one channel.
#[derive(Default)]
struct Told {
    notes: Vec<String>,
    failure: Option<Failure>,
}

impl Told {
    fn add(&mut self, entry: &OutboxEntry, sent: Result<Vec<String>, Failure>) {
        match sent {
            Ok(refused) => {
                let but =
                    if refused.is_empty() { String::new() } else { format!(", but not to {}", refused.join("; ")) };
                self.notes.push(match entry.channel {
                    Channel::Mail => format!("mail sent to {}{but}", entry.group),
                    Channel::Slack => "sent to Slack".to_owned(),
                });
            }
            Err(failure) => {
                tracing::info!(code = %failure.code, group = entry.group, "a message was not sent: {}", failure.message);
                self.failure = self.failure.take().or(Some(failure));
            }
        }
    }
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
        let (mails, posts): (Vec<_>, Vec<_>) = waiting
            .into_iter()
            .filter(|entry| entry.status != OutboxStatus::Sent)
            .partition(|entry| entry.channel == Channel::Mail);
        if mails.is_empty() && posts.is_empty() {
            return Ok(Success { detail: None, note: None });
        }
        let environment = self.world.environment.clone();
        let roots = tokio::task::spawn_blocking(move || roots::system(&environment)).await.unwrap_or_default();
        let mut post_office = PostOffice {
            outbox: outbox.as_ref(),
            deliveries: &self.world.deliveries,
            server: self.world.email.as_ref(),
            roots: &roots,
            attempt,
            open: None,
        };
        let by_slack = self.slack(outbox.as_ref(), &posts, &roots, attempt);
        let (by_mail, by_slack) = futures::join!(post_office.send_all(&mails), by_slack);
        let notes = [by_mail.notes, by_slack.notes].concat().join("; ");
        match by_mail.failure.or(by_slack.failure) {
            Some(failure) if notes.is_empty() => Err(failure),
            Some(failure) => {
                let said = Failure::new(failure.class, failure.code, format!("{} ({notes})", failure.message));
                Err(Failure { message: said.message, ..failure })
            }
            None => Ok(Success::default().with_notes(&[notes])),
        }
    }

    async fn slack(&self, outbox: &dyn Outbox, posts: &[OutboxEntry], roots: &[u8], attempt: &Attempt) -> Told {
        let mut told = Told::default();
        let mut silent = false;
        let peer = Peer { name: "Slack".to_owned(), uncertain: SLACK_UNCERTAIN, look: "the message goes out again" };
        for entry in posts {
            if silent || attempt.cancel.is_cancelled() {
                continue;
            }
            let Some(webhook) = outbox.webhook(entry.test) else {
                let message = "there is a message to post, and no slack_alerts_url in the configuration";
                told.add(entry, Err(Failure::new(Class::Permanent, SLACK_NOT_CONFIGURED, message)));
                continue;
            };
            let text = slack::text(entry, entry.run != attempt.run);
            let post = async { slack::post(&webhook, &text, roots).await.map(|()| Vec::new()) };
            if let Some(sent) = deliver(outbox, &self.world.deliveries, entry, attempt, &peer, post).await {
                silent = sent.as_ref().is_err_and(|failure| failure.class == Class::Timeout);
                told.add(entry, sent);
            }
        }
        told
    }
}

/// The mails of one attempt, and the conversation they go over.
struct PostOffice<'a> {
    outbox: &'a dyn Outbox,
    deliveries: &'a Deliveries,
    server: Option<&'a Email>,
    roots: &'a [u8],
    attempt: &'a Attempt,
    open: Option<Smtp>,
}

impl PostOffice<'_> {
    async fn send_all(&mut self, mails: &[OutboxEntry]) -> Told {
        let mut told = Told::default();
        let mut hopeless = false;
        let place = self.server.map(|server| format!(" {}:{}", server.smtp_host, server.smtp_port)).unwrap_or_default();
        let name = format!("the mail server{place}");
        let peer = Peer { name, uncertain: MAIL_UNCERTAIN, look: "look at the mail server" };
        for entry in mails {
            // One mail that cannot go out does not keep back the next, unless it is the server that is the matter.
            if self.attempt.cancel.is_cancelled() || hopeless {
                break;
            }
            let (outbox, deliveries, attempt) = (self.outbox, self.deliveries, self.attempt);
            let sent = deliver(outbox, deliveries, entry, attempt, &peer, self.send(entry)).await;
            if let Some(sent) = sent {
                hopeless = sent.as_ref().is_err_and(is_the_server);
                told.add(entry, sent);
            }
        }
        if let Some(open) = self.open.take() {
            open.quit().await;
        }
        told
    }

    async fn send(&mut self, entry: &OutboxEntry) -> Result<Vec<String>, Failure> {
        let server = self.server.ok_or_else(|| {
            let message = "there is a mail to send, and no email.from in the configuration";
            Failure::new(Class::Permanent, MAIL_NOT_CONFIGURED, message).with_next("set email.from and email.smtpHost")
        })?;
        let letter = mail::letter(entry, entry.run != self.attempt.run)?;
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Smtp::connect(server, self.roots).await?,
        };
        let sent = open.send(&letter).await;
        // A conversation in which something went wrong is only gone on with if the server still answers.
        if sent.is_ok() || (!sent.as_ref().is_err_and(is_the_server) && open.reset().await) {
            self.open = Some(open);
        }
        sent
    }
}

/// Would the next mail fare no better?
fn is_the_server(failure: &Failure) -> bool {
    [MAIL_UNREACHABLE, MAIL_UNCERTAIN, MAIL_NOT_CONFIGURED, MAIL_LOGIN, MAIL_TLS, PASSWORD_FILE].contains(&failure.code)
}

/// Who is waited for.
struct Peer {
    name: String,
    /// What is said when it is not known whether it has the message.
    uncertain: Code,
    look: &'static str,
}

/// Sends a message between the two marks in the outbox. `None`: another process has it.
async fn deliver(
    outbox: &dyn Outbox,
    deliveries: &Deliveries,
    entry: &OutboxEntry,
    attempt: &Attempt,
    to: &Peer,
    send: impl Future<Output = Result<Vec<String>, Failure>>,
) -> Option<Result<Vec<String>, Failure>> {
    match outbox.mark_sending(entry).await {
        Ok(true) => {}
        Ok(false) => return None,
        Err(error) => return Some(Err(unavailable(error))),
    }
    pass(CrashPoint::OutboxSendBefore);
    let since = Instant::now();
    let sent = tokio::select! {
        biased;
        sent = send => sent,
        () = attempt.cancel.cancelled() => {
            let message = format!("{} did not answer in time", to.name);
            Err(Failure::new(Class::Timeout, to.uncertain, message).with_next(to.look))
        }
    };
    pass(CrashPoint::OutboxSendAfter);
    if let Some(group) = Group::of_name(&entry.group) {
        deliveries.add(recipient(group), sent.is_ok(), since);
    }
    let marked = match &sent {
        Ok(_) => outbox.mark_sent(entry, Timestamp::now()).await,
        // What had perhaps gone out before this try may still have.
        Err(failure) if failure.code != to.uncertain && entry.status == OutboxStatus::Prepared => {
            outbox.mark_unsent(entry).await
        }
        Err(_) => Ok(()),
    };
    Some(marked.map_err(unavailable).and(sent))
}

/// As the metrics tell them apart.
fn recipient(group: Group) -> Recipient {
    match group {
        Group::Admins => Recipient::AdminsByMail,
        Group::Slack => Recipient::AdminsBySlack,
        Group::Stakeholders(service) => Recipient::Service(service),
    }
}

fn unavailable(error: OutboxError) -> Failure {
    Failure::new(Class::Transient, OUTBOX, error.to_string()).with_next("mt store verify")
}

impl Action for Notify {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }
}
