//! FERRY, which knows the UID of every account: `GET <host>:<port>/getUserInfo?username=<account>`.
//!
//! | file | subject |
//! |---|---|
//! | `mod` | who we are to it, and the exchange |
//! | `answer` | what it says |
//! | `bearer` | the token that one run uses for all accounts |
//! | `codes` | the numbers of the failures, and what `mt explain` says about them |

mod answer;
mod bearer;
pub mod codes;

pub(crate) use answer::uid as uid_of_answer;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::AUTHORIZATION;
use reqwest::{Client, Identity, RequestBuilder, StatusCode, Url};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use super::tls;
use super::world::World;
use crate::config::{AccountName, Ferry};
use crate::http_error::cause;
use crate::redact::{redact, without_login, without_password};
use crate::workflow::action::{Attempt, Class, Failure};
use crate::workflow::input_file;
use bearer::Bearer;
use codes::*;

/// A FERRY that does not take a connection in this time will not in the rest of the attempt's either.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);
/// An answer has a few hundred bytes.
const MOST_BYTES: usize = 64 * 1024;
/// So much of an answer that is none is shown.
const MOST_SHOWN: usize = 400;

/// How we show FERRY who we are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AuthMethod {
    /// With the client certificate `ferry.hostCert`.
    #[default]
    Tls,
    /// With a token from the vault server `ferry.vaultServer`.
    Jwt,
}

impl AuthMethod {
    /// How a run's record says it; nothing for the usual method.
    pub fn as_option(self) -> Option<&'static str> {
        match self {
            Self::Tls => None,
            Self::Jwt => Some("--authmethod=jwt"),
        }
    }

    /// The method in a run's record.
    pub fn of_options(options: &[String]) -> Self {
        let jwt = options.iter().any(|option| Some(option.as_str()) == Self::Jwt.as_option());
        if jwt { Self::Jwt } else { Self::Tls }
    }
}

/// One FERRY, asked in one way.
pub(super) struct FerryClient {
    settings: Ferry,
    method: AuthMethod,
    client: OnceCell<Arc<Client>>,
    bearer: Bearer,
}

impl FerryClient {
    pub(super) fn new(settings: Ferry, method: AuthMethod) -> Self {
        Self { settings, method, client: OnceCell::new(), bearer: Bearer::default() }
    }

    /// The UID of the account. Ends when the attempt is cancelled.
    pub(super) async fn uid(&self, world: &World, account: &AccountName, attempt: &Attempt) -> Result<u32, Failure> {
        let mut url = self.url(account)?;
        let client = self.client.get_or_try_init(|| self.connect()).await?;
        let by_hand = self.by_hand(&url);
        if self.method == AuthMethod::Jwt {
            // What the URL has would be a second Authorization. An https URL takes both.
            let _ = url.set_username("");
            let _ = url.set_password(None);
        }
        let place = url.origin().ascii_serialization();
        let mut request = client.get(url.clone());
        if self.method == AuthMethod::Jwt {
            request = request.header(AUTHORIZATION, self.bearer.header(world, &self.settings, attempt).await?);
        }
        let uid = tokio::select! {
            answer = exchange(request, &place) => {
                answer.and_then(|(status, body)| self.read(status, &body, account, &url))
            }
            () = attempt.cancel.cancelled() => Err(too_slow(&place)),
        };
        uid.map_err(|failure| self.advised(failure, account, by_hand))
    }

    /// How a person asks the same and sees the whole answer: without a token, which has no place on a command line.
    fn by_hand(&self, url: &Url) -> String {
        let url = quoted(&without_password(url.as_str()));
        match (&self.settings.host_cert, &self.settings.host_key, self.method) {
            (Some(certificate), Some(key), AuthMethod::Tls) => {
                let [certificate, key] = [certificate, key].map(|path| quoted(&path.to_string_lossy()));
                format!("curl -k --cert {certificate} --key {key} {url}")
            }
            (_, _, AuthMethod::Tls | AuthMethod::Jwt) => format!("curl -k {url}"),
        }
    }

    /// With the next command, where FERRY's word alone does not say what to do.
    fn advised(&self, failure: Failure, account: &AccountName, by_hand: String) -> Failure {
        if failure.next.is_some() {
            return failure;
        }
        let next = match failure.code {
            FERRY_REFUSED => match (&self.settings.host_cert, self.method) {
                (Some(certificate), AuthMethod::Tls) => format!(
                    "openssl x509 -noout -subject -dates -in {}  and send its subject to those who run FERRY",
                    quoted(&certificate.to_string_lossy())
                ),
                (_, AuthMethod::Tls | AuthMethod::Jwt) => {
                    "ask those who run FERRY for the rights of ferry.serviceRole".to_owned()
                }
            },
            FERRY_SAYS_NO | FERRY_BAD_UID => format!("ask those who run FERRY; until then  mt uids set {account} UID"),
            FERRY_UNREACHABLE if failure.class == Class::Timeout => {
                format!("{by_hand}  must answer; else ask those who run FERRY, or raise timeouts.ferryRequestTimeout")
            }
            FERRY_UNREACHABLE => {
                format!("{by_hand}  must answer; else correct ferry.host and ferry.port, or ask those who run FERRY")
            }
            _ => format!("look at what answers:  {by_hand}"),
        };
        failure.with_next(next)
    }

    fn url(&self, account: &AccountName) -> Result<Url, Failure> {
        let base = self.settings.base_url().ok_or_else(|| missing("host"))?;
        let mut url = Url::parse(&base).map_err(|error| {
            Failure::new(
                Class::Permanent,
                FERRY_NOT_CONFIGURED,
                format!("ferry.host gives no URL ({}): {error}", without_password(&base)),
            )
        })?;
        if url.scheme() != "https" {
            let message = format!("FERRY is not asked without TLS: ferry.host gives {}", without_password(&base));
            return Err(
                Failure::new(Class::Permanent, FERRY_NOT_CONFIGURED, message).with_next("write https:// in ferry.host")
            );
        }
        let path = format!("{}/getUserInfo", url.path().trim_end_matches('/'));
        url.set_path(&path);
        url.query_pairs_mut().clear().append_pair("username", account.as_str());
        Ok(url)
    }

    async fn connect(&self) -> Result<Arc<Client>, Failure> {
        let ca_path = self.settings.ca_path.clone().ok_or_else(|| missing("caPath"))?;
        let own = match self.method {
            AuthMethod::Jwt => None,
            AuthMethod::Tls => {
                let certificate = self.settings.host_cert.clone().ok_or_else(|| missing("hostCert"))?;
                let key = self.settings.host_key.clone().ok_or_else(|| missing("hostKey"))?;
                Some((certificate, key))
            }
        };
        let made = tokio::task::spawn_blocking(move || make(ca_path, own)).await;
        made.map_err(|error| bad_files(error.to_string()))?.map(Arc::new)
    }

    fn read(&self, status: StatusCode, body: &[u8], account: &AccountName, url: &Url) -> Result<u32, Failure> {
        let said = without_login(url, &String::from_utf8_lossy(body));
        let shown = shown(said.as_bytes());
        let failed = |class, code, message: String| Err(Failure::new(class, code, message).with_output(shown.as_str()));
        match status {
            // From something in the way, such as a proxy that wants a login.
            StatusCode::OK if body.trim_ascii_start().starts_with(b"<") => {
                let place = url.origin().ascii_serialization();
                let message = format!("what answers at {place} is not FERRY: a page of HTML");
                failed(Class::Transient, FERRY_ANSWER, message)
            }
            // Taken out only of what is told: a UID may have the same digits, and JSON may have written it otherwise.
            StatusCode::OK => answer::uid(body, account.as_str()).map_err(|failure| Failure {
                message: without_login(url, &failure.message),
                output: failure.output.map(|output| without_login(url, &output)),
                ..failure
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let who = match self.method {
                    AuthMethod::Tls => "the client certificate ferry.hostCert",
                    AuthMethod::Jwt => "the token of ferry.serviceExperiment and serviceRole",
                };
                failed(Class::Permanent, FERRY_REFUSED, format!("FERRY does not accept {who} ({status})"))
            }
            _ => {
                let passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
                let class = if passing { Class::Transient } else { Class::Permanent };
                failed(class, FERRY_ERROR, format!("FERRY answers {status}"))
            }
        }
    }
}

/// As a shell takes it for one word.
fn quoted(text: &str) -> String {
    shell_words::quote(text).into_owned()
}

/// A key that the chosen method needs is not in the configuration.
fn missing(key: &str) -> Failure {
    Failure::new(Class::Permanent, FERRY_NOT_CONFIGURED, format!("ferry.{key} is not set"))
        .with_next(format!("set ferry.{key} in the configuration"))
}

fn bad_files(why: String) -> Failure {
    Failure::new(Class::Permanent, FERRY_CERTIFICATE, why)
}

/// A client that trusts every `*.pem` of the directory and, where there is one, shows its own certificate. Blocks.
fn make(ca_path: PathBuf, own: Option<(PathBuf, PathBuf)>) -> Result<Client, Failure> {
    let authorities = tls::authorities(std::slice::from_ref(&ca_path), &["pem"]);
    if authorities.is_empty() {
        return Err(bad_files(format!("there is no certificate in {}/*.pem (ferry.caPath)", ca_path.display())));
    }
    let identity = own.map(|(certificate, key)| identity(&certificate, &key)).transpose()?;
    let builder = || {
        let builder = tls::builder().connect_timeout(CONNECT_WITHIN);
        identity.iter().cloned().fold(builder, reqwest::ClientBuilder::identity)
    };
    tls::client(builder, &authorities)
        .map_err(|why| bad_files(format!("the certificates for FERRY cannot be used: {why}")))
}

fn identity(certificate: &Path, key: &Path) -> Result<Identity, Failure> {
    let read = |name: &str, path: &Path| {
        input_file::read(path, input_file::MOST_CERTIFICATES)
            .map_err(|error| bad_files(format!("cannot read ferry.{name} {}: {error}", path.display())))
    };
    let mut both = read("hostCert", certificate)?;
    both.push(b'\n');
    both.extend(read("hostKey", key)?);
    Identity::from_pem(&both).map_err(|error| {
        let places = format!("{} and {}", certificate.display(), key.display());
        bad_files(format!("ferry.hostCert and hostKey ({places}) are no certificate with its key: {}", cause(&error)))
    })
}

async fn exchange(request: RequestBuilder, place: &str) -> Result<(StatusCode, Vec<u8>), Failure> {
    let mut response = request.send().await.map_err(|error| unreachable(&error, place))?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| unreachable(&error, place))? {
        body.extend_from_slice(&chunk);
        if body.len() > MOST_BYTES {
            let message = format!("FERRY's answer is longer than {MOST_BYTES} bytes");
            return Err(Failure::new(Class::Permanent, FERRY_ANSWER, message));
        }
    }
    Ok((response.status(), body))
}

/// FERRY, or the connection to it, took longer than it has.
fn too_slow(place: &str) -> Failure {
    Failure::new(Class::Timeout, FERRY_UNREACHABLE, format!("FERRY at {place} did not answer in time"))
}

/// No answer, or not a whole one.
fn unreachable(error: &reqwest::Error, place: &str) -> Failure {
    // The connection's own time may be shorter than the attempt's, and is spent on the handshake as well.
    if error.is_timeout() {
        return too_slow(place);
    }
    let why = cause(error);
    if why.contains("invalid peer certificate") {
        let message = format!("the certificate of FERRY at {place} is not trusted: {why}");
        return Failure::new(Class::Permanent, FERRY_UNTRUSTED, message)
            .with_next("look at ferry.host and ferry.caPath");
    }
    // With TLS 1.3 the server's word on our certificate comes in place of the answer.
    if why.contains("received fatal alert") {
        let message = format!("FERRY at {place} refuses the connection: {why}");
        return Failure::new(Class::Permanent, FERRY_REFUSED, message);
    }
    Failure::new(Class::Transient, FERRY_UNREACHABLE, format!("FERRY at {place} cannot be reached: {why}"))
}

/// The beginning of an answer, for people.
fn shown(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = redact(&text);
    match text.char_indices().nth(MOST_SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.into_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(host: &str, port: Option<u16>) -> Result<String, Failure> {
        let settings = Ferry { host: Some(host.to_owned()), port, ..Ferry::default() };
        let client = FerryClient::new(settings, AuthMethod::Tls);
        client.url(&AccountName::checked("dune&pro")).map(|url| url.to_string())
    }

    #[test]
    fn an_account_is_asked_for_by_name_and_cannot_change_the_question() {
        let asked = "https://ferry.example.org:8445/getUserInfo?username=dune%26pro";
        assert_eq!(url("https://ferry.example.org", Some(8445)).unwrap(), asked);
        assert_eq!(url("ferry.example.org/", Some(8445)).unwrap(), asked);
    }

    #[test]
    fn the_command_for_people_has_no_password_of_the_url_in_it() {
        let settings = Ferry { host: Some("https://mt:hunter2@ferry.example.org".to_owned()), ..Ferry::default() };
        let client = FerryClient::new(settings, AuthMethod::Tls);
        let by_hand = client.by_hand(&client.url(&AccountName::checked("dunepro")).unwrap());
        assert_eq!(by_hand, "curl -k 'https://ferry.example.org/getUserInfo?username=dunepro'");
    }

    #[test]
    fn nobody_is_asked_without_tls_and_the_address_is_shown_without_its_login() {
        for host in ["http://opaque@ferry.example.org", "http://mt:opaque@ferry.example.org", "https://opaque@:8445"] {
            let refused = url(host, None).unwrap_err();
            assert_eq!((refused.class, refused.code), (Class::Permanent, FERRY_NOT_CONFIGURED));
            assert!(!refused.message.contains("opaque"), "{refused:?}");
        }
    }

    #[test]
    fn what_ferry_repeats_of_the_login_in_its_address_is_not_told() {
        let client = FerryClient::new(Ferry::default(), AuthMethod::Tls);
        let account = AccountName::checked("dunepro");
        let read = |password: &str, status, body: &str| {
            let url = format!("https://mt:{password}@ferry.example.org").parse().unwrap();
            client.read(status, body.as_bytes(), &account, &url)
        };
        let failure = r#"{"ferry_status":"failure","ferry_error":["no mt/p\"\u00e4ss"]}"#;
        for body in [failure, "no mt/p\"ä\u{1}ss"] {
            for status in [StatusCode::OK, StatusCode::UNAUTHORIZED] {
                let failure = read("p%22%C3%A4ss", status, body).unwrap_err();
                let said = format!("{failure:?}");
                assert!(said.contains("mt/[redacted]") && !said.contains("ss\""), "{said}");
            }
        }
        let found = r#"{"ferry_status":"success","ferry_error":[],"ferry_output":{"uid":12345,"username":"dunepro"}}"#;
        assert_eq!(read("12345", StatusCode::OK, found), Ok(12345), "a UID may have the same digits");
    }

    #[tokio::test]
    async fn a_missing_key_or_file_is_named() {
        let directory = tempfile::tempdir().unwrap();
        let mut settings = Ferry::default();
        let connect = async |settings: &Ferry| FerryClient::new(settings.clone(), AuthMethod::Tls).connect().await;
        assert!(connect(&settings).await.unwrap_err().message.contains("ferry.caPath"));
        settings.ca_path = Some(directory.path().to_owned());
        assert!(connect(&settings).await.unwrap_err().message.contains("ferry.hostCert"));
        settings.host_cert = Some(directory.path().join("cert.pem"));
        settings.host_key = Some(directory.path().join("key.pem"));
        let no_authority = connect(&settings).await.unwrap_err();
        assert!(no_authority.message.contains("*.pem"), "{no_authority:?}");
        assert_eq!(no_authority.code, FERRY_CERTIFICATE);
    }
}
