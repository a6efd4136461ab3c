//! Whom we trust when mail and Slack are spoken to over TLS, beside the authorities that are compiled in.

use std::path::PathBuf;

use crate::steps::environment::Snapshot;
use crate::workflow::input_file;

/// Where systems keep the authorities they trust, all in one file.
const BUNDLES: &[&str] =
    &["/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem"];

/// The system's authorities: those of SSL_CERT_FILE, else of the first bundle there is. PEM; empty if there is none.
pub fn system(environment: &Snapshot) -> Vec<u8> {
    let bundle = || BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file());
    let file = environment.get("SSL_CERT_FILE").map(PathBuf::from).or_else(bundle);
    file.and_then(|file: PathBuf| input_file::read_anybodys(&file, input_file::MOST_CERTIFICATES).ok())
        .unwrap_or_default()
}
