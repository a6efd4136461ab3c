//! The lines of a session, sent to Loki when it has ended. What goes wrong here is a warning.

use std::time::Duration;

use jiff::Timestamp;
use reqwest::{Client, Url, redirect};
use serde_json::json;

use crate::config::Loki;
use crate::http_error::{beginning, cause};
use crate::redact::{redact, without_login, without_password};
use crate::telemetry::BUDGET;
use crate::telemetry::http;

/// Where Loki takes lines.
const PUSH: &str = "/loki/api/v1/push";
/// Loki takes 4 MB at once.
const MOST_AT_ONCE: usize = 1024 * 1024;
/// So much of an answer is shown.
const MOST_WORDS: usize = 200;
/// More bytes of an answer are not read.
const MOST_READ: usize = 4096;

/// A line with its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// When it was said.
    pub at: Timestamp,
    /// Without secrets.
    pub line: String,
}

/// Who says so: Loki's labels, as the existing service sets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Labels {
    /// The executable that mt stands in for, such as `token-push`.
    pub command: String,
    /// `devEnvironmentLabel`.
    pub environment: String,
}

/// Sends the lines; an error says in words for people what went wrong. What was sent before it has arrived.
pub(super) async fn push(loki: &Loki, labels: &Labels, entries: &[Entry]) -> Result<(), String> {
    let url = address(&loki.host)?;
    let shown = without_password(url.as_str());
    let within = loki.response_header_timeout;
    let builder = || {
        Client::builder()
            .redirect(redirect::Policy::none())
            .connect_timeout(within)
            .read_timeout(within)
            .timeout(BUDGET.min(within.saturating_mul(2)))
    };
    let client = http::client(builder, &url).map_err(|error| format!("cannot send to {shown}: {}", cause(&error)))?;
    for batch in batches(entries) {
        send(&client, &url, labels, batch, within).await.map_err(|why| format!("cannot send to {shown}: {why}"))?;
    }
    Ok(())
}

async fn send(client: &Client, url: &Url, labels: &Labels, batch: &[Entry], within: Duration) -> Result<(), String> {
    let values: Vec<_> = batch.iter().map(|e| [e.at.as_nanosecond().to_string(), e.line.clone()]).collect();
    let stream = json!({ "app": "managed-tokens", "command": labels.command, "environment": labels.environment });
    let body = json!({ "streams": [{ "stream": stream, "values": values }] });
    let answer = client
        .post(url.clone())
        .json(&body)
        .send()
        .await
        .map_err(|error| if error.is_timeout() { format!("no answer within {within:?}") } else { cause(&error) })?;
    let status = answer.status();
    let words = beginning(answer, MOST_READ).await.unwrap_or_default();
    let words = without_login(url, &String::from_utf8_lossy(&words));
    let words: String = redact(&words).split_whitespace().collect::<Vec<_>>().join(" ");
    let words: String = words.chars().filter(|c| !c.is_control()).take(MOST_WORDS).collect();
    // Loki says nothing. A page is from something in the way, such as a proxy that wants a login.
    match (status.is_success(), words.starts_with('<')) {
        (true, false) => Ok(()),
        (true, true) => Err(format!("what answers there is not Loki: {words}")),
        (false, _) => Err(format!("it answers {status} {words}").trim().to_owned()),
    }
}

/// A host without a scheme is asked over https; an address that names the way already is taken as it is.
fn address(host: &str) -> Result<Url, String> {
    let wrong = |why: &dyn std::fmt::Display| format!("loki.host {:?} is no address: {why}", without_password(host));
    let with_scheme = if host.contains("://") { host.to_owned() } else { format!("https://{host}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| wrong(&error))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&"its scheme is not http or https"));
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(PUSH) {
        url.set_path(&format!("{path}{PUSH}"));
    }
    Ok(url)
}

/// Pieces that Loki takes at once.
fn batches(entries: &[Entry]) -> impl Iterator<Item = &[Entry]> {
    let mut rest = entries;
    std::iter::from_fn(move || {
        let mut size = 0;
        let fitting = rest.iter().take_while(|entry| {
            size += entry.line.len();
            size <= MOST_AT_ONCE
        });
        // One line alone always goes.
        let count = fitting.count().max(1).min(rest.len());
        let (batch, after) = rest.split_at(count);
        rest = after;
        (!batch.is_empty()).then_some(batch)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_where_loki_takes_them() {
        for (host, expected) in [
            ("https://loki.example.org", "https://loki.example.org/loki/api/v1/push"),
            ("http://loki:3100/", "http://loki:3100/loki/api/v1/push"),
            ("loki:3100", "https://loki:3100/loki/api/v1/push"),
            ("https://x/tenant/", "https://x/tenant/loki/api/v1/push"),
            ("https://x/loki/api/v1/push", "https://x/loki/api/v1/push"),
        ] {
            assert_eq!(address(host).unwrap().as_str(), expected);
        }
        let error = address("ftp://me:hunter2@x").unwrap_err();
        assert!(error.contains("scheme") && !error.contains("hunter2"), "{error}");
    }

    #[tokio::test]
    async fn what_it_repeats_of_the_password_in_its_address_is_not_told() {
        let (place, server) = http::answers_once(http::refusal("bad login mt/opaque or Basic bXQ6b3BhcXVl")).await;
        let loki = Loki { host: format!("http://mt:opaque@{place}"), response_header_timeout: Duration::from_secs(60) };
        let labels = Labels { command: "token-push".to_owned(), environment: "test".to_owned() };
        let entry = Entry { at: Timestamp::now(), line: "a line".to_owned() };
        let error = push(&loki, &labels, &[entry]).await.unwrap_err();
        assert!(server.await.unwrap().contains("a line"));
        assert!(error.ends_with("401 Unauthorized bad login mt/[redacted] or Basic [redacted]"), "{error}");
    }

    #[test]
    fn every_line_is_in_one_batch_and_none_is_too_large() {
        let line = |size: usize| Entry { at: Timestamp::UNIX_EPOCH, line: "x".repeat(size) };
        let entries = [line(10), line(MOST_AT_ONCE), line(2 * MOST_AT_ONCE), line(1), line(1)];
        let sizes: Vec<_> = batches(&entries).map(<[Entry]>::len).collect();
        assert_eq!(sizes, [1, 1, 1, 2]);
        assert_eq!(batches(&[]).count(), 0);
    }
}
