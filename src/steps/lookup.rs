//! When a vault token expires, asked of the vault: `GET /v1/auth/token/lookup-self`.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use reqwest::header::{HeaderMap, HeaderValue};
use reqwest::{Certificate, Client, StatusCode, redirect};
use serde::Deserialize;
use tokio::sync::OnceCell;

use super::environment::Snapshot;
use crate::token_file::VaultToken;

/// A vault that takes longer is in no state to tell; the expiry is then unknown.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const CONNECT_WITHIN: Duration = Duration::from_secs(2);
/// The port of a vault server given without one, as htgettoken takes it.
const PORT: u16 = 8200;
/// Where certificates are when no variable says so: the first file that is there, and htgettoken's own directory.
const BUNDLES: &[&str] =
    &["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];
const DIRECTORY: &str = "/etc/grid-security/certificates";
/// Directories of authorities have some hundreds.
const MOST_FILES: usize = 2_000;

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
            Err(why) => Lookup::Unknown(why),
        }
    }

    async fn ask(&self, server: &str, token: &VaultToken) -> Result<Lookup, String> {
        let url = url(server)?;
        let client = self.client.get_or_try_init(|| make(self.authorities.clone())).await?;
        let mut header =
            HeaderValue::from_str(token.expose()).map_err(|_| "the token does not fit into a header".to_owned())?;
        header.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert("X-Vault-Token", header);
        let response = client.get(url).headers(headers).send().await.map_err(|error| chain(&error))?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::FORBIDDEN => return Ok(Lookup::Refused),
            status => return Err(format!("the vault answers {status}")),
        }
        let answer: Answer = response.json().await.map_err(|error| chain(&error))?;
        answer.data.read(Timestamp::now())
    }
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

fn url(server: &str) -> Result<reqwest::Url, String> {
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
    url.set_path("/v1/auth/token/lookup-self");
    url.set_query(None);
    Ok(url)
}

async fn make(authorities: Vec<PathBuf>) -> Result<Arc<Client>, String> {
    tokio::task::spawn_blocking(move || client(&certificates(&authorities)))
        .await
        .map_err(|error| error.to_string())?
        .map(Arc::new)
}

fn client(authorities: &[Certificate]) -> Result<Client, String> {
    let builder = |certificates: &[Certificate]| {
        let builder = Client::builder()
            .no_proxy()
            // The header would go along to wherever it leads.
            .redirect(redirect::Policy::none())
            .connect_timeout(CONNECT_WITHIN)
            .timeout(ANSWER_WITHIN)
            .tls_built_in_root_certs(false);
        certificates.iter().cloned().fold(builder, reqwest::ClientBuilder::add_root_certificate).build()
    };
    if let Ok(client) = builder(authorities) {
        return Ok(client);
    }
    // One odd authority among hundreds must not spoil the others.
    let good: Vec<Certificate> =
        authorities.iter().filter(|one| builder(std::slice::from_ref(*one)).is_ok()).cloned().collect();
    builder(&good).map_err(|error| chain(&error))
}

/// What the files and directories hold; what cannot be read is left out.
fn certificates(places: &[PathBuf]) -> Vec<Certificate> {
    let mut files = BTreeSet::new();
    for place in places {
        if place.is_dir() {
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
            files.extend(
                entries
                    .filter(|path| is_certificate(path))
                    .take(MOST_FILES)
                    .filter_map(|path| path.canonicalize().ok()),
            );
        } else {
            files.extend(place.canonicalize());
        }
    }
    let texts = files.iter().filter_map(|path| std::fs::read(path).ok());
    texts.filter_map(|text| Certificate::from_pem_bundle(&text).ok()).flatten().collect()
}

fn is_certificate(path: &Path) -> bool {
    path.extension().is_some_and(|extension| ["pem", "crt", "0"].iter().any(|known| extension == *known))
}

/// An error with its causes; reqwest's own text does not name them.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text = format!("{text}: {inner}");
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_is_taken_as_htgettoken_takes_it() {
        let text = |server| url(server).unwrap().to_string();
        assert_eq!(text("vault.example.org"), "https://vault.example.org:8200/v1/auth/token/lookup-self");
        assert_eq!(text("vault.example.org:8300"), "https://vault.example.org:8300/v1/auth/token/lookup-self");
        assert_eq!(text("https://vault.example.org:443"), "https://vault.example.org/v1/auth/token/lookup-self");
        assert_eq!(text("https://vault.example.org"), "https://vault.example.org:8200/v1/auth/token/lookup-self");
    }

    #[test]
    fn a_token_is_never_sent_in_the_clear() {
        assert!(url("http://vault.example.org").is_err());
    }

    #[test]
    fn the_expiry_is_the_vaults_word_or_made_of_the_ttl() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let read = |text: &str| serde_json::from_str::<Answer>(text).unwrap().data.read(now);
        let at = |text: &str| Ok(Lookup::Expires(text.parse().unwrap()));
        let both = r#"{"data":{"ttl":60,"expire_time":"2026-01-08T00:00:00.5Z","id":"hvs.x"}}"#;
        assert_eq!(read(both), at("2026-01-08T00:00:00.5Z"));
        assert_eq!(read(r#"{"data":{"ttl":3600}}"#), at("2026-01-01T01:00:00Z"));
        assert_eq!(read(r#"{"data":{"ttl":0,"expire_time":null}}"#), Ok(Lookup::Lasting));
    }
}
