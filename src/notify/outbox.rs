//! Mails that wait. They are prepared in the transaction that ends the last machine of a run, so none is forgotten, and
//! marked as sent only when the server has taken them, so one may go out twice but none is lost.

use futures::future::BoxFuture;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::due::DueCounter;
use super::render;
use crate::workflow::counters::CounterKey;
use crate::workflow::id::RunId;
use crate::workflow::run::RunState;

/// The recipients of the one mail that goes to the operators.
pub const ADMINS: &str = "admins";

/// One mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxEntry {
    /// The run that has something to tell.
    pub run: RunId,
    /// The session that prepared it.
    pub session: u32,
    /// Whom it is for: with run and session this is its key.
    pub group: String,
    /// The same every time it is sent, so that mail programs show it once.
    pub message_id: String,
    /// One line.
    pub subject: String,
    /// Plain text.
    pub body: String,
    /// The sender.
    pub from: String,
    /// Addresses.
    pub recipients: Vec<String>,
    /// What it reports: subtracted from the counters once it is sent.
    pub reports: Vec<Report>,
    /// How far it has come.
    pub status: OutboxStatus,
    /// When it was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_at: Option<Timestamp>,
}

/// How far a mail has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OutboxStatus {
    /// It waits.
    Prepared,
    /// Its text was about to go to the server. Found in this state later, it may have arrived.
    Sending,
    /// The server has taken it.
    Sent,
}

/// One counter that a mail tells of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which counter.
    pub counter: CounterKey,
    /// The value told.
    pub value: u32,
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

/// Where mails wait. What a call has answered is durable.
pub trait Outbox: Send + Sync {
    /// The mails of a run that are not `Sent` and that no other living session is sending, in the order of their keys.
    fn pending(&self, run: RunId) -> BoxFuture<'_, Result<Vec<OutboxEntry>, OutboxError>>;

    /// Before the text goes to the server.
    fn mark_sending<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>>;

    /// After a failure that proves that the server has not taken it: it is `Prepared` again.
    fn mark_unsent<'a>(&'a self, entry: &'a OutboxEntry) -> BoxFuture<'a, Result<(), OutboxError>>;

    /// After the server has taken it: one transaction marks the entry and subtracts what it reports from the counters.
    fn mark_sent<'a>(&'a self, entry: &'a OutboxEntry, at: Timestamp) -> BoxFuture<'a, Result<(), OutboxError>>;
}

/// The mails a run has to send: one to the admins with all that is due. None if nothing is due, or nobody is to be told.
pub fn prepare(state: &RunState, session: u32, due: &[DueCounter], from: &str, admins: &[String]) -> Vec<OutboxEntry> {
    if due.is_empty() || admins.is_empty() {
        return Vec::new();
    }
    let run = state.run.id;
    // The part after the @ has only to be ours; the sender's domain is.
    let domain = from.trim_end_matches('>').rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let group = ADMINS.to_owned();
    vec![OutboxEntry {
        run,
        session,
        message_id: format!("<{run}.{session}.{group}@{domain}>"),
        group,
        subject: render::subject(state, due),
        body: render::body(state, due),
        from: from.to_owned(),
        recipients: admins.to_vec(),
        reports: due.iter().map(|one| Report { counter: one.key(), value: one.value }).collect(),
        status: OutboxStatus::Prepared,
        sent_at: None,
    }]
}
