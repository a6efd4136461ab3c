//! From a message that waits to the mail that goes over the line.

use lettre::address::Address;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};

use super::outbox::OutboxEntry;
use super::prepare::remarks;
use super::smtp::Letter;
use crate::steps::codes::MAIL_ADDRESS;
use crate::workflow::action::{Class, Failure};

/// The mail. `late`: another run had it to send.
pub fn letter(entry: &OutboxEntry, late: bool) -> Result<Letter, Failure> {
    let to = entry.recipients.iter().map(|one| mailbox(one).map(|mailbox| mailbox.email));
    let to = to.collect::<Result<Vec<Address>, _>>()?;
    Ok(Letter { from: mailbox(&entry.from)?.email, to, text: compose(entry, late)? })
}

fn compose(entry: &OutboxEntry, late: bool) -> Result<Vec<u8>, Failure> {
    let remarks = remarks(entry, late);
    let (mut subject, mut body) = (entry.subject.clone(), entry.body.clone());
    if !remarks.is_empty() {
        body = format!("{}\n\n{body}", remarks.iter().map(|one| format!("({one})")).collect::<Vec<_>>().join("\n"));
        // In the subject only what tells whether to read it.
        let short = remarks.iter().map(|one| one.split(':').next().unwrap_or(one).trim_end_matches(" since"));
        let short = short.collect::<Vec<_>>().join(", ");
        subject = format!("{subject} ({short})");
    }
    let mut builder = Message::builder()
        .from(mailbox(&entry.from)?)
        .subject(subject)
        .message_id(Some(entry.message_id.clone()))
        .date_now()
        // Holiday replies to a program help nobody.
        .raw_header(HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".to_owned()))
        .header(ContentType::TEXT_PLAIN);
    for recipient in &entry.recipients {
        builder = builder.to(mailbox(recipient)?);
    }
    let message = builder.body(body);
    message.map(|message| message.formatted()).map_err(|error| bad_address(&entry.from, &error.to_string()))
}

fn mailbox(text: &str) -> Result<Mailbox, Failure> {
    text.parse::<Mailbox>().map_err(|error| bad_address(text, &error.to_string()))
}

fn bad_address(text: &str, why: &str) -> Failure {
    Failure::new(Class::Permanent, MAIL_ADDRESS, format!("{text:?} is not a mail address: {why}"))
}
