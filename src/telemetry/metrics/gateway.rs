//! The text, sent to the pushgateway. Nothing that goes wrong here is more than a warning.

use std::time::Duration;

use prometheus::TEXT_FORMAT;
use reqwest::header::CONTENT_TYPE;
use reqwest::{Client, Method, Response, Url, redirect};

use super::codes;
use crate::http_error::cause;
use crate::redact::{redact, without_login, without_password};
use crate::telemetry::http;
use crate::workflow::code::Code;

/// A gateway that takes longer is given up.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// So much of an answer is shown.
const MOST_WORDS: usize = 200;

/// What becomes of the metrics that the group has already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replace {
    /// All are replaced (PUT): the text is the whole set.
    Group,
    /// Those that the text names are replaced (POST): the text is all that is known.
    Named,
}

/// Why nothing was pushed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GatewayError {
    /// Host or job cannot be used.
    #[error("cannot push metrics to prometheus.host {host:?}, job {job:?}: {why}")]
    Address {
        /// As configured.
        host: String,
        /// As configured.
        job: String,
        /// Why.
        why: String,
    },
    /// Nobody is there, or the connection broke.
    #[error("cannot push metrics to {url}: {why}")]
    Unreachable {
        /// Where.
        url: String,
        /// Why.
        why: String,
    },
    /// No answer in time.
    #[error("cannot push metrics to {url}: no answer within {ANSWER_WITHIN:?}")]
    Slow {
        /// Where.
        url: String,
    },
    /// Not what a pushgateway answers when it has taken them.
    #[error("cannot push metrics to {url}: {answer}")]
    Refused {
        /// Where.
        url: String,
        /// What it said.
        answer: String,
    },
}

impl GatewayError {
    /// What `mt explain` knows about it.
    pub fn code(&self) -> Code {
        match self {
            Self::Address { .. } => codes::ADDRESS,
            Self::Unreachable { .. } => codes::UNREACHABLE,
            Self::Slow { .. } => codes::SLOW,
            Self::Refused { .. } => codes::REFUSED,
        }
    }
}

/// One group of one pushgateway.
#[derive(Clone, Debug)]
pub struct Gateway {
    client: Client,
    url: Url,
}

impl Gateway {
    /// The group of this job. A host without a scheme is asked over http, as the Go service did.
    ///
    /// # Errors
    /// [`GatewayError::Address`].
    pub fn new(host: &str, job: &str) -> Result<Self, GatewayError> {
        let wrong = |why: String| GatewayError::Address { host: without_password(host), job: job.to_owned(), why };
        let url = url(host, job).map_err(wrong)?;
        let builder = || {
            Client::builder()
                // What answers with another address is no pushgateway.
                .redirect(redirect::Policy::none())
                .connect_timeout(CONNECT_WITHIN)
                .timeout(ANSWER_WITHIN)
        };
        let client = http::client(builder, &url).map_err(|error| wrong(cause(&error)))?;
        Ok(Self { client, url })
    }

    /// Sends the text. Ends by itself within 3 s.
    ///
    /// # Errors
    /// Whatever went wrong, in words for people. The gateway may have taken the text all the same.
    pub async fn send(&self, text: String, replace: Replace) -> Result<(), GatewayError> {
        let method = match replace {
            Replace::Group => Method::PUT,
            Replace::Named => Method::POST,
        };
        let request = self.client.request(method, self.url.clone()).header(CONTENT_TYPE, TEXT_FORMAT).body(text);
        let answer = request.send().await.map_err(|error| self.failed(&error))?;
        let status = answer.status();
        let words = self.words(answer).await?;
        // A pushgateway that has taken them says nothing else.
        match (status.is_success(), words.is_empty()) {
            (true, true) => Ok(()),
            (true, false) => Err(self.refused(format!("what answers there is no pushgateway: {words}"))),
            (false, _) => Err(self.refused(format!("{status} {words}").trim().to_owned())),
        }
    }

    fn refused(&self, answer: String) -> GatewayError {
        GatewayError::Refused { url: self.shown(), answer }
    }

    /// The beginning of the answer in one line, redacted. However long it is, no more than its first piece is read.
    async fn words(&self, mut answer: Response) -> Result<String, GatewayError> {
        let first = answer.chunk().await.map_err(|error| self.failed(&error))?.unwrap_or_default();
        let text = without_login(&self.url, &String::from_utf8_lossy(&first));
        let text = redact(&text).split_whitespace().collect::<Vec<_>>().join(" ");
        let printable = text.chars().filter(|c| !c.is_control());
        Ok(printable.take(MOST_WORDS).collect())
    }

    fn failed(&self, error: &reqwest::Error) -> GatewayError {
        let url = self.shown();
        if error.is_timeout() {
            return GatewayError::Slow { url };
        }
        GatewayError::Unreachable { url, why: cause(error) }
    }

    fn shown(&self) -> String {
        without_password(self.url.as_str())
    }
}

fn url(host: &str, job: &str) -> Result<Url, String> {
    let with_scheme = if host.contains("://") { host.to_owned() } else { format!("http://{host}") };
    let mut url = Url::parse(&with_scheme).map_err(|error| error.to_string())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(format!("the scheme {} is not http or https", url.scheme()));
    }
    if job.is_empty() || job.contains('/') {
        return Err("a job name is not empty and has no /".to_owned());
    }
    url.set_query(None);
    url.set_fragment(None);
    let mut path = url.path_segments_mut().map_err(|()| "it is no address of a server".to_owned())?;
    path.pop_if_empty().extend(["metrics", "job", job]);
    drop(path);
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_addressed_as_the_go_service_did() {
        let address = |host, job| url(host, job).map(|url| url.to_string());
        let at = |text: &str| Ok(text.to_owned());
        assert_eq!(address("http://gw:9091", "mt"), at("http://gw:9091/metrics/job/mt"));
        assert_eq!(address("gw:9091/", "mt"), at("http://gw:9091/metrics/job/mt"));
        assert_eq!(
            address("https://gw/push/", "managed_tokens_dev"),
            at("https://gw/push/metrics/job/managed_tokens_dev")
        );
        assert_eq!(address("http://gw", "a b"), at("http://gw/metrics/job/a%20b"));
    }

    #[test]
    fn an_address_that_cannot_be_used_is_refused_with_its_reason() {
        for (host, job) in [("ftp://gw", "mt"), ("http://", "mt"), ("http://gw", ""), ("http://gw", "a/b")] {
            let error = Gateway::new(host, job).unwrap_err();
            assert_eq!(error.code(), codes::ADDRESS, "{error}");
        }
    }

    #[test]
    fn a_password_in_the_address_is_never_shown() {
        let gateway = Gateway::new("http://user:secret@gw:9091", "mt").unwrap();
        assert_eq!(gateway.shown(), "http://gw:9091/metrics/job/mt");
        assert!(!Gateway::new("ftp://user:secret@gw", "mt").unwrap_err().to_string().contains("secret"));
    }

    /// What becomes of a push to somebody who answers like this.
    async fn answered(answer: &[u8]) -> Result<(), GatewayError> {
        let (place, server) = http::answers_once(answer.to_vec()).await;
        let host = format!("http://mt:opaque@{place}");
        let sent = Gateway::new(&host, "mt").unwrap().send("a 1\n".to_owned(), Replace::Group).await;
        assert!(server.await.unwrap().starts_with("PUT /metrics/job/mt HTTP/1.1\r\n"));
        sent
    }

    #[tokio::test]
    async fn what_it_repeats_of_the_password_in_its_address_is_not_told() {
        let error =
            answered(&http::refusal("bad login mt/opaque or Basic bXQ6b3BhcXVl")).await.unwrap_err().to_string();
        assert!(error.ends_with("401 Unauthorized bad login mt/[redacted] or Basic [redacted]"), "{error}");
    }

    #[tokio::test]
    async fn only_an_empty_answer_with_success_is_a_pushgateways() {
        let refused = async |answer: &[u8]| {
            let error = answered(answer).await.unwrap_err();
            (error.code(), error.to_string())
        };
        assert_eq!(answered(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").await, Ok(()));
        let (code, text) = refused(b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n<html>\x1b[2J</h").await;
        assert_eq!(code, codes::REFUSED);
        assert!(text.contains("no pushgateway: <html>") && !text.contains('\x1b'), "{text}");
        let (code, text) = refused(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 12\r\n\r\npushed\ntwice").await;
        assert_eq!(code, codes::REFUSED);
        assert!(text.ends_with("400 Bad Request pushed twice"), "{text}");
        let (code, _) =
            refused(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(code, codes::REFUSED);
        for garbage in [b"SSH-2.0-OpenSSH_9.2\r\n".as_slice(), b""] {
            let (code, text) = refused(garbage).await;
            assert_eq!(code, codes::UNREACHABLE);
            assert!(!text.contains("error sending request"), "the cause alone: {text}");
        }
    }
}
