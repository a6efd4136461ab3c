//! Messages that wait. They are prepared in the transaction that ends the last machine of a run, so none is forgotten,
//! and marked as sent only when a channel has taken them, so one may go out twice but none is lost.

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::redact::Secret;
use crate::workflow::counters::CounterKey;
use crate::workflow::id::{ProcessId, RunId, Subject};

/// For whom a message is. Every group of a run has a message of its own with a fate of its own.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// The operators, by mail.
    Admins,
    /// The operators, by Slack.
    Slack,
    /// The people behind a service, by mail.
    Stakeholders(Subject),
}

impl Group {
    const STAKEHOLDERS: &'static str = "stakeholders-";

    /// Its name in keys and Message-IDs.
    pub fn name(&self) -> String {
        match self {
            Self::Admins => "admins".to_owned(),
            Self::Slack => "slack".to_owned(),
            Self::Stakeholders(service) => format!("{}{service}", Self::STAKEHOLDERS),
        }
    }

    /// The group of that name.
    pub fn of_name(name: &str) -> Option<Self> {
        match name {
            "admins" => Some(Self::Admins),
            "slack" => Some(Self::Slack),
            other => other.strip_prefix(Self::STAKEHOLDERS).map(|service| Self::Stakeholders(Subject::new(service))),
        }
    }

    /// How it is reached.
    pub fn channel(&self) -> Channel {
        match self {
            Self::Admins | Self::Stakeholders(_) => Channel::Mail,
            Self::Slack => Channel::Slack,
        }
    }
}

/// How a message goes out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Channel {
    /// By mail.
    #[default]
    Mail,
    /// Through the webhook of the configuration. Its address is a secret, and so it is not kept with the message.
    Slack,
}

impl Channel {
    /// As people read it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Mail => "mail",
            Self::Slack => "slack",
        }
    }
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The run that has something to tell.
    pub run: RunId,
    /// When that run began.
    pub started: Timestamp,
    /// The session that prepared it.
    pub session: u32,
    /// Whom it is for ([`Group::name`]): with run and session this is its key.
    pub group: String,
    /// How it goes out.
    #[serde(default)]
    pub channel: Channel,
    /// It is for the recipients of test runs.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
    /// The same every time it is sent, so that mail programs show it once.
    pub message_id: String,
    /// One line; empty for Slack.
    pub subject: String,
    /// Plain text. Empty once it is sent.
    pub body: String,
    /// The sender; empty for Slack.
    pub from: String,
    /// Addresses; none for Slack.
    pub recipients: Vec<String>,
    /// What it reports: subtracted from the counters once, when the first channel has accepted it.
    pub reports: Vec<Report>,
    /// What has come to work again while it waited.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub since_then: Vec<String>,
    /// How far it has come.
    pub status: OutboxStatus,
    /// The process that was sending it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<ProcessId>,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
}

/// How far a message has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboxStatus {
    /// It waits.
    Prepared,
    /// Its text was about to go out. Found in this state later, it may have arrived.
    Sending,
    /// It was taken.
    Sent,
}

/// One counter that a message tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which counter.
    pub counter: CounterKey,
    /// The value told.
    pub value: u32,
    /// When the row of errors began that it tells of; `None`: of what nobody counts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Another message of the same run with the same report was accepted before: nothing is left to subtract.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub settled: bool,
}

impl Report {
    /// What it tells of: a counter, and which row of its errors.
    pub fn row(&self) -> (CounterKey, Option<Timestamp>) {
        (self.counter.clone(), self.since)
    }
}

impl OutboxEntry {
    /// `<run>/<session>/<group>`, for a store's key: sorts by run.
    pub fn key(&self) -> String {
        format!("{}/{:06}/{}", self.run, self.session, self.group)
    }
}

/// The outbox could not be read or written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot {doing} the outbox: {why}")]
pub struct OutboxError {
    /// `read` or `write`.
    pub doing: &'static str,
    /// Why.
    pub why: String,
}

/// Where messages wait. What a call has answered is durable.
pub trait Outbox: Send + Sync {
    /// What this run is to send: its own messages and those that earlier runs could not send, in the order of their keys.
    /// Not what another living process sends or is about to send.
    fn pending(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>>;

    /// Before the text goes out. `false`: another process has it.
    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<bool, OutboxError>>;

    /// After a failure that proves that it was not taken: it is `Prepared` again.
    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>>;

    /// After it was taken: one transaction marks the entry and subtracts what it reports from the counters, unless
    /// another message of the same run has done so.
    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, at: Timestamp) -> BoxFuture<'a, Result<(), OutboxError>>;

    /// Where messages to Slack go, those of test runs or the others.
    fn webhook(&self, test: bool) -> Option<Secret>;
}
