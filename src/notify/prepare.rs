//! From what is to be told to a message that waits.

use super::due::News;
use super::outbox::{Group, OutboxEntry, OutboxStatus, Report};
use super::templates::{Templates, Text};
use super::words::Words;
use crate::workflow::definition::Mode;
use crate::workflow::run::RunState;

/// To whom, from whom, in which words.
#[derive(Clone, Debug)]
pub struct Envelope<'a> {
    /// For whom.
    pub group: Group,
    /// The sender of mail; empty for Slack.
    pub from: &'a str,
    /// Addresses; none for Slack.
    pub recipients: &'a [String],
    /// The texts.
    pub templates: &'a Templates,
}

/// The message. `recorded`: the store knows the run.
pub fn prepare(state: &RunState, envelope: &Envelope<'_>, news: &News, recorded: bool) -> OutboxEntry {
    let run = state.run.id;
    let session = u32::try_from(state.run.sessions.len()).unwrap_or(u32::MAX);
    let text = match envelope.group {
        Group::Admins => Text::AdminMail,
        Group::Stakeholders(_) => Text::StakeholderMail,
        Group::Slack => Text::Slack,
    };
    let message = envelope.templates.render(text, &Words::of(state, news, recorded));
    let group = envelope.group.name();
    // The part after the @ has only to be ours; the sender's domain is.
    let domain = envelope.from.trim_end_matches('>').rsplit_once('@').map_or("localhost", |(_, domain)| domain);
    let report = |one: &super::DueCounter| Report {
        counter: one.key(),
        value: one.value,
        since: one.failing_since,
        settled: false,
    };
    OutboxEntry {
        run,
        started: state.run.started_at,
        session,
        message_id: format!("<{run}.{session}.{group}@{domain}>"),
        group,
        channel: envelope.group.channel(),
        test: state.run.mode == Mode::Test,
        subject: message.subject,
        body: message.body,
        from: envelope.from.to_owned(),
        recipients: envelope.recipients.to_vec(),
        reports: news.due.iter().map(report).collect(),
        since_then: Vec::new(),
        status: OutboxStatus::Prepared,
        sender: None,
        sent_at: None,
    }
}

/// What is put before a text that does not go out as it was prepared: late, again, overtaken by what happened since.
pub fn remarks(entry: &OutboxEntry, late: bool) -> Vec<String> {
    let mut remarks = Vec::new();
    if late {
        remarks.push(format!("late: from the run of {}", super::words::moment(entry.started)));
    }
    if entry.status == OutboxStatus::Sending {
        remarks.push("possibly a repeat".to_owned());
    }
    if !entry.since_then.is_empty() {
        remarks.push(format!("works again since: {}", entry.since_then.join(", ")));
    }
    remarks
}
