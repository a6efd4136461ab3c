//! What every sender of telemetry needs of HTTP.

use std::path::PathBuf;

use reqwest::{Certificate, Client, ClientBuilder, Url};

use crate::workflow::input_file;

/// Beside the authorities that are compiled in: what the machine trusts.
const BUNDLES: &[&str] = &["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];

/// A client for this address, which trusts what the machine trusts.
pub(super) fn client(builder: impl Fn() -> ClientBuilder, url: &Url) -> reqwest::Result<Client> {
    let trusted = if url.scheme() == "https" { authorities() } else { Vec::new() };
    let client = trusted.into_iter().fold(builder(), ClientBuilder::add_root_certificate).build();
    // An authority that cannot be used must not spoil the others.
    client.or_else(|_| builder().build())
}

/// A server on this machine that answers one request like this; where it is, and the request.
#[cfg(test)]
pub(super) async fn answers_once(answer: Vec<u8>) -> (std::net::SocketAddr, tokio::task::JoinHandle<String>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let place = listener.local_addr().expect("it has one");
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("somebody asks");
        // Head and body may come apart; an answer before the end would break the connection under the sender.
        let mut request = Vec::new();
        while !is_whole(&request) {
            assert_ne!(stream.read_buf(&mut request).await.expect("it can be read"), 0, "the sender stopped early");
        }
        stream.write_all(&answer).await.expect("the sender reads");
        String::from_utf8_lossy(&request).into_owned()
    });
    (place, server)
}

#[cfg(test)]
fn is_whole(request: &[u8]) -> bool {
    let text = String::from_utf8_lossy(request).to_lowercase();
    let Some((head, _)) = text.split_once("\r\n\r\n") else { return false };
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    request.len() >= head.len() + 4 + length.unwrap_or(0)
}

/// A refusal that repeats a login, as a careless server does.
#[cfg(test)]
pub(super) fn refusal(words: &str) -> Vec<u8> {
    format!("HTTP/1.1 401 Unauthorized\r\nContent-Length: {}\r\n\r\n{words}", words.len()).into_bytes()
}

fn authorities() -> Vec<Certificate> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = given.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    let found = files.filter_map(|path| input_file::read_anybodys(&path, input_file::MOST_CERTIFICATES).ok()).next();
    found.and_then(|text| Certificate::from_pem_bundle(&text).ok()).unwrap_or_default()
}
