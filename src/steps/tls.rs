//! Whom we trust when we ask a server ourselves.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use reqwest::{Certificate, Client, ClientBuilder, redirect};

use crate::http_error::cause;
use crate::workflow::input_file;

/// Directories of authorities have some hundreds.
const MOST_FILES: usize = 2_000;

/// What all our clients have in common: no proxy, no redirection, no authorities but those that are named.
pub(super) fn builder() -> ClientBuilder {
    Client::builder()
        .no_proxy()
        // A secret in a header would go along to wherever it leads.
        .redirect(redirect::Policy::none())
        .tls_built_in_root_certs(false)
}

/// A client that trusts these authorities. `make` gives a builder each time it is called.
pub(super) fn client(make: impl Fn() -> ClientBuilder, authorities: &[Certificate]) -> Result<Client, String> {
    let build = |certificates: &[Certificate]| {
        certificates.iter().cloned().fold(make(), ClientBuilder::add_root_certificate).build()
    };
    if let Ok(client) = build(authorities) {
        return Ok(client);
    }
    // One odd authority among hundreds must not spoil the others.
    let good: Vec<Certificate> =
        authorities.iter().filter(|one| build(std::slice::from_ref(*one)).is_ok()).cloned().collect();
    build(&good).map_err(|error| cause(&error))
}

/// The authorities in these files, and in those files of these directories whose name ends so. What cannot be read is
/// left out.
pub(super) fn authorities(places: &[PathBuf], extensions: &[&str]) -> Vec<Certificate> {
    let wanted = |path: &Path| path.extension().is_some_and(|found| extensions.iter().any(|known| found == *known));
    let mut files = BTreeSet::new();
    for place in places {
        if place.is_dir() {
            let entries = std::fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
            let named = entries.filter(|path| wanted(path)).take(MOST_FILES);
            files.extend(named.filter_map(|path| path.canonicalize().ok()));
        } else {
            files.extend(place.canonicalize());
        }
    }
    let texts = files.iter().filter_map(|path| input_file::read_anybodys(path, input_file::MOST_CERTIFICATES).ok());
    texts.filter_map(|text| Certificate::from_pem_bundle(&text).ok()).flatten().collect()
}
