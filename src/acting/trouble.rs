//! What the admins are told when no run could begin: the configuration or the workflow cannot be used.
//!
//! And of a store that turns out to be damaged when the run has ended.
//!
//! There is no run and no outbox then: the message goes out at once, and if it cannot, the log says so. The next start
//! tells it again.

use jiff::Timestamp;

use crate::acting::here;
use crate::acting::launch::Notices;
use crate::cli::error::Failed;
use crate::config::{Config, Contact, Email, LoadError};
use crate::notify::smtp::Smtp;
use crate::notify::words::{RunWords, Words, moment};
use crate::notify::{Channel, Group, OutboxEntry, OutboxStatus, Templates, Trouble, mail, roots, slack};
use crate::redact::Secret;
use crate::steps::environment::Snapshot;
use crate::workflow::action::Failure;
use crate::workflow::id::RunId;

/// What is wrong with a run that is not there.
pub const COULD_NOT_BEGIN: &str = "could not begin";

/// Whom to tell, and how.
pub struct Admins {
    email: Option<Email>,
    addresses: Vec<String>,
    webhook: Option<Secret>,
    templates: Templates,
    off: bool,
}

impl Admins {
    /// As far as a configuration names them that cannot be used.
    pub fn of_error(error: &LoadError, notices: &Notices) -> Self {
        let nobody = Contact::default();
        let contact = match error {
            LoadError::Invalid { contact, .. } => contact,
            LoadError::NotFound { .. } | LoadError::Unreadable { .. } | LoadError::UnknownFormat { .. } => &nobody,
        };
        Self {
            email: contact.email.clone(),
            addresses: notices.admin.clone().map_or_else(|| contact.admin_email.clone(), |admin| vec![admin]),
            webhook: contact.slack_alerts_url.clone(),
            templates: Templates::default(),
            off: notices.off || contact.disabled,
        }
    }

    /// As configured.
    pub fn of_config(config: &Config, notices: &Notices) -> Self {
        let configured = &config.notifications;
        Self {
            email: config.email.clone(),
            addresses: notices.admin.clone().map_or_else(|| configured.admin_email.clone(), |admin| vec![admin]),
            webhook: configured.slack_alerts_url.clone(),
            templates: Templates::load(&config.templates),
            off: notices.off || config.disable_notifications,
        }
    }

    /// Tells what is wrong with the workflow's run: that it could not begin, say. Not to somebody who sits before it. Ends
    /// within some seconds.
    pub fn tell(&self, workflow: &str, what: &str, failed: &Failed) {
        if self.off || here::trigger() == "terminal" {
            return;
        }
        let trouble = Trouble { code: failed.code, message: failed.message.clone(), next: failed.next.clone() };
        let words = words(workflow, what, &trouble);
        let runtime = match crate::cli::small_runtime() {
            Ok(runtime) => runtime,
            Err(failed) => return tracing::warn!("cannot tell the admins: {}", failed.message),
        };
        let roots = roots::system(&Snapshot::of_process());
        let (by_mail, by_slack) =
            runtime.block_on(async { futures::join!(self.mail(&words, &roots), self.slack(&words, &roots)) });
        for failure in [by_mail, by_slack].into_iter().filter_map(Result::err) {
            tracing::warn!(code = %failure.code, "cannot tell the admins: {}", failure.message);
        }
    }

    async fn mail(&self, words: &Words, roots: &[u8]) -> Result<(), Failure> {
        let Some(server) = self.email.as_ref().filter(|_| !self.addresses.is_empty()) else { return Ok(()) };
        let message = self.templates.render(crate::notify::templates::Text::AdminMail, words);
        let entry = entry(Group::Admins, &server.from, &self.addresses, message.subject, message.body);
        let letter = mail::letter(&entry, false)?;
        let mut smtp = Smtp::connect(server, roots).await?;
        let refused = smtp.send(&letter).await?;
        if !refused.is_empty() {
            tracing::warn!("some admins were not told: {}", refused.join("; "));
        }
        smtp.quit().await;
        Ok(())
    }

    async fn slack(&self, words: &Words, roots: &[u8]) -> Result<(), Failure> {
        let Some(webhook) = &self.webhook else { return Ok(()) };
        let message = self.templates.render(crate::notify::templates::Text::Slack, words);
        slack::post(webhook, &message.body, roots).await
    }
}

fn words(workflow: &str, what: &str, trouble: &Trouble) -> Words {
    let run = RunWords {
        id: String::new(),
        workflow: workflow.to_owned(),
        host: here::host(),
        started: moment(Timestamp::now()),
        test: false,
        recorded: false,
    };
    Words::of_trouble(run, format!("{workflow} {what}"), trouble)
}

fn entry(group: Group, from: &str, recipients: &[String], subject: String, body: String) -> OutboxEntry {
    let run = RunId::generate();
    let domain = from.trim_end_matches('>').rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    OutboxEntry {
        run,
        started: Timestamp::now(),
        session: 0,
        message_id: format!("<{run}.0.{}@{domain}>", group.name()),
        group: group.name(),
        channel: Channel::Mail,
        test: false,
        subject,
        body,
        from: from.to_owned(),
        recipients: recipients.to_vec(),
        reports: Vec::new(),
        since_then: Vec::new(),
        status: OutboxStatus::Prepared,
        sender: None,
        sent_at: None,
    }
}
