//! When a vault token expires, asked of the vault: `GET /v1/auth/token/lookup-self`.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Client, StatusCode};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::environment::Snapshot;
use super::tls;
use crate::http_error::{beginning, cause};
use crate::redact::Secret;
use crate::token_file::VaultToken;

/// What the vault says of a token has some hundred bytes.
const MOST_READ: usize = 64 * 1024;

/// A vault that takes longer is in no state to tell; the expiry is then unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The port of a vault server given without one, as htgettoken takes it.
const PORT: u16 = 8200;
/// Where certificates are when no variable says so: the first file that is there, and htgettoken's own directory.
const BUNDLES: &[&str] =
    &["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];
const DIRECTORY: &str = "/etc/grid-security/certificates";
/// The names of certificates in such directories.
const EXTENSIONS: &[&str] = &["pem", "crt", "0"];

/// What the vault says of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lookup {
    /// It is good until then.
    Expires(Timestamp),
    /// It is good, and there is no end to it.
    Lasting,
    /// The vault does not take it.
    Refused,
    /// The vault could not be asked, or its answer not be read; the text says why.
    Unknown(String),
}

/// A client that trusts what htgettoken trusts.
pub(super) struct VaultClient {
    authorities: Vec<PathBuf>,
    client: OnceCell<Arc<Client>>,
}

#[derive(Deserialize)]
struct Answer {
    data: Data,
}

#[derive(Deserialize)]
struct Data {
    #[serde(default)]
    ttl: u64,
    #[serde(default)]
    expire_time: Option<String>,
}

impl VaultClient {
    pub(super) fn new(environment: &Snapshot) -> Self {
        let given = |name| environment.get(name).map(PathBuf::from);
        let bundle = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
        let files = [given("SSL_CERT_FILE").or_else(bundle), given("X509_CERT_FILE")];
        let directories = [given("X509_CERT_DIR").or_else(|| Some(PathBuf::from(DIRECTORY))), given("SSL_CERT_DIR")];
        Self { authorities: files.into_iter().chain(directories).flatten().collect(), client: OnceCell::new() }
    }

    /// What the vault says of the token. Ends by itself within 5 s.
    pub(super) async fn lookup(&self, server: &str, token: &VaultToken) -> Lookup {
        match self.ask(server, token).await {
            Ok(lookup) => lookup,
            // Whatever answers was told the token, and may say it back.
            Err(why) => Lookup::Unknown(Secret::new(token.expose().to_owned()).out_of(&why)),
        }
    }

    async fn ask(&self, server: &str, token: &VaultToken) -> Result<Lookup, String> {
        let url = url(server, "/v1/auth/token/lookup-self")?;
        let client = self.client.get_or_try_init(|| make(self.authorities.clone())).await?;
        let mut header =
            HeaderValue::from_str(token.expose()).map_err(|_| "the token does not fit into a header".to_owned())?;
        header.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("X-Vault-Token", header);
        let response = client.get(url).headers(headers).send().await.map_err(|error| cause(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Ok(Lookup::Refused),
            status => return Err(format!("the vault answers {status}")),
        }
        let answer = beginning(response, MOST_READ).await.map_err(|error| cause(&error))?;
        read_answer(&answer, Timestamp::now())
    }
}

/// What the vault says of a token that it takes.
pub(crate) fn read_answer(body: &[u8], now: Timestamp) -> Result<Lookup, String> {
    let answer: Answer = serde_json::from_slice(body).map_err(|error| format!("its answer cannot be read: {error}"))?;
    answer.data.read(now)
}

impl Data {
    fn read(self, now: Timestamp) -> Result<Lookup, String> {
        match self.expire_time.as_deref().map(str::parse::<Timestamp>) {
            Some(Ok(at)) => Ok(Lookup::Expires(at)),
            Some(Err(error)) => Err(format!("its expire_time cannot be read: {error}")),
            None if self.ttl == 0 => Ok(Lookup::Lasting),
            None => {
                let left = SignedDuration::from_secs(i64::try_from(self.ttl).unwrap_or(i64::MAX));
                now.checked_add(left).map(Lookup::Expires).map_err(|error| format!("its ttl cannot be read: {error}"))
            }
        }
    }
}

/// The URL of this path on a vault server that is named as for htgettoken.
pub(super) fn url(server: &str, path: &str) -> Result<reqwest::Url, String> {
    let with_scheme = if server.contains("://") { server.to_owned() } else { format!("https://{server}") };
    let mut url = reqwest::Url::parse(&with_scheme).map_err(|error| format!("the vault server {server:?}: {error}"))?;
    if url.scheme() != "https" {
        return Err(format!("the vault server {server:?} is not asked without TLS"));
    }
    // `Url::port` hides a port that is the scheme's own; what htgettoken looks at is whether one is written.
    let written = with_scheme.split("://").nth(1).unwrap_or_default().split('/').next().unwrap_or_default();
    if url.port().is_none() && !written.rsplit(']').next().unwrap_or_default().contains(':') {
        url.set_port(Some(PORT)).map_err(|()| format!("the vault server {server:?} cannot have a port"))?;
    }
    url.set_path(path);
    url.set_query(None);
    Ok(url)
}

async fn make(authorities: Vec<PathBuf>) -> Result<Arc<Client>, String> {
    let builder = || tls::builder().connect_timeout(CONNECT_WITHIN).timeout(ANSWER_WITHIN);
    tokio::task::spawn_blocking(move || tls::client(builder, &tls::authorities(&authorities, EXTENSIONS)))
        .await
        .map_err(|error| error.to_string())?
        .map(Arc::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_as_htgettoken_takes_it() {
        let text = |server| url(server, "/v1/auth/token/lookup-self").unwrap().to_string();
        assert_eq!(text("vault.example.org"), "https://vault.example.org:8200/v1/auth/token/lookup-self");
        assert_eq!(text("vault.example.org:8300"), "https://vault.example.org:8300/v1/auth/token/lookup-self");
        assert_eq!(text("https://vault.example.org:443"), "https://vault.example.org/v1/auth/token/lookup-self");
        assert_eq!(text("https://vault.example.org"), "https://vault.example.org:8200/v1/auth/token/lookup-self");
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear() {
        assert!(url("http://vault.example.org", "/").is_err());
    }

    #[test]
    fn the_expiry_is_the_vaults_word_or_made_of_the_ttl() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text: &str| read_answer(text.as_bytes(), now);
        let at = |text: &str| Ok(Lookup::Expires(text.parse().unwrap()));
        let both = r#"{"data":{"ttl":60,"expire_time":"2026-01-08T00:00:00.5Z","id":"hvs.x"}}"#;
        assert_eq!(read(both), at("2026-01-08T00:00:00.5Z"));
        assert_eq!(read(r#"{"data":{"ttl":3600}}"#), at("2026-01-01T01:00:00Z"));
        assert_eq!(read(r#"{"data":{"ttl":0,"expire_time":null}}"#), Ok(Lookup::Lasting));
    }
}
