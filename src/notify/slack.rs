//! One message to Slack's incoming webhook: `POST {"text": …}`. The webhook's address is a secret and in no message.

use std::time::Duration;

use reqwest::{Certificate, Client, StatusCode, redirect};

use super::codes::{SLACK_REFUSED, SLACK_UNCERTAIN, SLACK_UNREACHABLE};
use super::outbox::OutboxEntry;
use super::prepare::remarks;
use crate::http_error::{beginning, cause};
use crate::redact::{Secret, redact};
use crate::workflow::action::{Class, Failure};

/// All of it, from looking up the name to the answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// Slack says a word. More than this of an answer is not read.
const MOST_READ: usize = 4096;

/// What to do where Slack, or the way to it, does not work.
const LOOK: &str = "look at slack_alerts_url and at the network";
/// What to do where it works and says no.
const NEW_WEBHOOK: &str = "make a new webhook in Slack, set slack_alerts_url to it, and  mt config check";

/// The text as it goes out. `late`: another run had it to send.
pub fn text(entry: &OutboxEntry, late: bool) -> String {
    let remarks: String = remarks(entry, late).iter().map(|one| format!("({one})\n")).collect();
    remarks + &entry.body
}

/// Posts a text. `roots`: the system's authorities, PEM. After a failure with [`SLACK_UNCERTAIN`] it may have been
/// taken, after any other not.
pub async fn post(webhook: &Secret, text: &str, roots: &[u8]) -> Result<(), Failure> {
    let client = client(roots).map_err(|error| unreachable(error, Class::Permanent))?;
    let sent = client.post(webhook.expose()).json(&serde_json::json!({ "text": text })).send().await;
    let answer = match sent {
        Ok(answer) => answer,
        Err(error) if error.is_connect() || error.is_builder() => return Err(unreachable(error, Class::Transient)),
        Err(error) => {
            let message = format!("Slack does not answer: {}", cause(&error));
            return Err(Failure::new(Class::Timeout, SLACK_UNCERTAIN, message).with_next(LOOK));
        }
    };
    let status = answer.status();
    if status.is_success() {
        let words = beginning(answer, MOST_READ).await.unwrap_or_default();
        // Slack says `ok`. A page is from something in the way, such as a proxy that wants a login.
        return match words.trim_ascii_start().starts_with(b"<") {
            false => Ok(()),
            true => Err(Failure::new(
                Class::Transient,
                SLACK_UNREACHABLE,
                "what answers at slack_alerts_url is not Slack: a page of HTML",
            )
            .with_next("look at what is between this machine and Slack")),
        };
    }
    let class = match status {
        StatusCode::TOO_MANY_REQUESTS => Class::Transient,
        status if status.is_server_error() => Class::Transient,
        _ => Class::Permanent,
    };
    let (code, next) = match class {
        Class::Permanent => (SLACK_REFUSED, NEW_WEBHOOK),
        Class::Transient | Class::NeedsHuman | Class::Timeout => (SLACK_UNREACHABLE, LOOK),
    };
    let why = beginning(answer, MOST_READ).await.unwrap_or_default();
    // Before anything is cut off: of half a secret nobody knows that it is one.
    // And what is known first: redacting may leave the rest of it.
    let why: String = redact(&without(webhook, &String::from_utf8_lossy(&why))).chars().take(100).collect();
    Err(Failure::new(class, code, format!("Slack answers {status}: {}", super::words::one_line(&why))).with_next(next))
}

/// Without the webhook's address, of which an answer may hold the whole or its path.
fn without(webhook: &Secret, text: &str) -> String {
    let text = webhook.out_of(text);
    match reqwest::Url::parse(webhook.expose()) {
        Ok(url) if url.path().len() > 1 => Secret::new(url.path().to_owned()).out_of(&text),
        Ok(_) | Err(_) => text,
    }
}

fn client(roots: &[u8]) -> Result<Client, reqwest::Error> {
    let build = |authorities: Vec<Certificate>| {
        // Whoever knows the address can post: it goes where the configuration says, and nowhere else.
        let builder = Client::builder().timeout(ANSWER_WITHIN).redirect(redirect::Policy::none());
        authorities.into_iter().fold(builder, reqwest::ClientBuilder::add_root_certificate).build()
    };
    // An odd authority in the system's bundle: those that are compiled in still are there.
    build(Certificate::from_pem_bundle(roots).unwrap_or_default()).or_else(|_| build(Vec::new()))
}

fn unreachable(error: reqwest::Error, class: Class) -> Failure {
    let message = format!("Slack cannot be reached: {}", cause(&error));
    Failure::new(class, SLACK_UNREACHABLE, message).with_next(LOOK)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn an_answer_without_end_that_repeats_the_webhook_is_cut_off_and_does_not_tell_it() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let webhook = Secret::new(format!("http://{}/services/T0&B0/opaque", listener.local_addr().unwrap()));
        let flood = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await.unwrap();
            let head = "HTTP/1.1 403 Forbidden\r\n\r\nno page password=/services/T0&B0/opaque, hvs.CAESIJ0aB0123456789abcdefg ";
            stream.write_all(head.as_bytes()).await.unwrap();
            // Until nobody reads any more.
            while stream.write_all(&[b'x'; 4096]).await.is_ok() {}
        });
        let failure = post(&webhook, "text", b"").await.unwrap_err();
        assert_eq!(failure.code, SLACK_REFUSED, "{failure:?}");
        assert!(failure.message.contains("no page password=[redacted], [redacted] xxx"), "{failure:?}");
        flood.await.unwrap();
    }
}
