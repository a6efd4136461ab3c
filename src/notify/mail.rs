//! One mail to one server: plain SMTP without authentication, as the configuration knows it.

use std::time::Duration;

use lettre::address::{Address, Envelope};
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::message::{Mailbox, Message};
use lettre::transport::smtp::client::AsyncSmtpConnection;
use lettre::transport::smtp::extension::ClientId;

use super::outbox::{OutboxEntry, OutboxStatus};
use crate::config::Email;
use crate::steps::codes::{MAIL_ADDRESS, MAIL_LATER, MAIL_REFUSED, MAIL_UNCERTAIN, MAIL_UNREACHABLE};
use crate::workflow::action::{Class, Failure};

/// A mail server that is there answers at once.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// What to do when it is not.
pub const LOOK: &str = "look at the mail server";
/// Put before and into a mail that may have arrived already.
const REPEAT: &str = "possibly a repeat";

/// Sends a mail. `Ok` as soon as the server has taken it for at least one recipient; the text then names the others.
pub async fn send(server: &Email, entry: &OutboxEntry) -> Result<Option<String>, Failure> {
    let text = compose(entry)?;
    let from = address(&entry.from)?;
    let recipients = entry.recipients.iter().map(|one| address(one)).collect::<Result<Vec<_>, _>>()?;
    let failure = match deliver(server, &from, &recipients, &text).await {
        Ok(()) => return Ok(None),
        Err(failure) => failure,
    };
    // One address that the server does not know must not silence the others.
    if failure.code != MAIL_REFUSED || recipients.len() < 2 {
        return Err(failure);
    }
    let mut refused = Vec::new();
    for recipient in &recipients {
        if let Err(failure) = deliver(server, &from, std::slice::from_ref(recipient), &text).await {
            refused.push(format!("{recipient}: {}", failure.message));
        }
    }
    if refused.len() == recipients.len() { Err(failure) } else { Ok(Some(refused.join("; "))) }
}

/// The text as it goes over the line.
fn compose(entry: &OutboxEntry) -> Result<Vec<u8>, Failure> {
    let mailbox = |text: &str| text.parse::<Mailbox>().map_err(|error| bad_address(text, &error.to_string()));
    let (subject, body) = match entry.status {
        OutboxStatus::Prepared | OutboxStatus::Sent => (entry.subject.clone(), entry.body.clone()),
        OutboxStatus::Sending => (format!("{} ({REPEAT})", entry.subject), format!("({REPEAT})\n\n{}", entry.body)),
    };
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

fn address(text: &str) -> Result<Address, Failure> {
    text.parse::<Mailbox>().map(|mailbox| mailbox.email).map_err(|error| bad_address(text, &error.to_string()))
}

fn bad_address(text: &str, why: &str) -> Failure {
    Failure::new(Class::Permanent, MAIL_ADDRESS, format!("{text:?} is not a mail address: {why}"))
}

async fn deliver(server: &Email, from: &Address, to: &[Address], text: &[u8]) -> Result<(), Failure> {
    let place = format!("{}:{}", server.smtp_host, server.smtp_port);
    let envelope =
        Envelope::new(Some(from.clone()), to.to_vec()).map_err(|error| bad_address("", &error.to_string()))?;
    let own_name = ClientId::default();
    let connect = AsyncSmtpConnection::connect_tokio1(
        (server.smtp_host.as_str(), server.smtp_port),
        Some(CONNECT_WITHIN),
        &own_name,
        None,
        None,
    );
    let connected = tokio::time::timeout(CONNECT_WITHIN, connect).await;
    let mut connection = match connected {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => return Err(classify(&error, &place, MAIL_UNREACHABLE)),
        Err(_) => {
            let message = format!("the mail server {place} says nothing");
            return Err(Failure::new(Class::Timeout, MAIL_UNREACHABLE, message).with_next(LOOK));
        }
    };
    match connection.send(&envelope, text).await {
        Ok(_) => {
            // It has the mail; whether it likes our goodbye does not matter.
            let _ = connection.quit().await;
            Ok(())
        }
        Err(error) => {
            let failure = classify(&error, &place, MAIL_UNCERTAIN);
            connection.abort().await;
            Err(failure)
        }
    }
}

/// `lost` is what it means when there was no answer.
fn classify(error: &lettre::transport::smtp::Error, place: &str, lost: crate::workflow::code::Code) -> Failure {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        source = inner.source();
    }
    let (class, code, next) = if error.is_permanent() {
        (Class::Permanent, MAIL_REFUSED, "correct email.from or the addresses")
    } else if error.is_transient() {
        (Class::Transient, MAIL_LATER, LOOK)
    } else {
        (Class::Transient, lost, LOOK)
    };
    Failure::new(class, code, format!("the mail server {place}: {text}")).with_next(next)
}
