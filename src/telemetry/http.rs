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

fn authorities() -> Vec<Certificate> {
    let given = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let files = given.into_iter().chain(BUNDLES.iter().map(PathBuf::from));
    let found = files.filter_map(|path| input_file::read_anybodys(&path, input_file::MOST_CERTIFICATES).ok()).next();
    found.and_then(|text| Certificate::from_pem_bundle(&text).ok()).unwrap_or_default()
}
