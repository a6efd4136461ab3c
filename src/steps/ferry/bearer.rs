//! The token that a run shows FERRY: got once, used for all accounts.
//!
//! Whichever account comes first gets it, the others wait. A failure is shared as well: fifty accounts do not ask a KDC
//! that is down fifty times. The second try of an account asks again, once for all second tries.

use std::collections::BTreeMap;

use reqwest::header::HeaderValue;
use tokio::sync::Mutex;
use tracing::warn;

use super::missing;
use crate::config::Ferry;
use crate::process;
use crate::redact::Secret;
use crate::steps::classify::{not_run, vault};
use crate::steps::codes::{TOKEN_FILE, VAULT_UNREACHABLE};
use crate::steps::kinit;
use crate::steps::vault_options::{HTGETTOKENOPTS, options_for};
use crate::steps::world::{World, cache_name};
use crate::token_file;
use crate::workflow::action::{Attempt, Class, Failure};

#[derive(Default)]
pub(super) struct Bearer(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    token: Option<Secret>,
    /// What became of the first tries, the second tries, and so on.
    failed: BTreeMap<u32, Failure>,
}

impl Bearer {
    /// `Bearer <token>`, marked as sensitive.
    pub(super) async fn header(
        &self,
        world: &World,
        settings: &Ferry,
        attempt: &Attempt,
    ) -> Result<HeaderValue, Failure> {
        let mut shared = tokio::select! {
            shared = self.0.lock() => shared,
            () = attempt.cancel.cancelled() => {
                let message = "the token for FERRY did not come in time";
                return Err(Failure::new(Class::Timeout, VAULT_UNREACHABLE, message));
            }
        };
        let token = match (&shared.token, shared.failed.get(&attempt.number)) {
            (Some(token), _) => token,
            (None, Some(failure)) => return Err(failure.clone()),
            (None, None) => match get(world, settings, attempt).await {
                Ok(token) => shared.token.insert(token),
                Err(failure) => {
                    shared.failed.insert(attempt.number, failure.clone());
                    return Err(failure);
                }
            },
        };
        let value = HeaderValue::from_str(&format!("Bearer {}", token.expose()));
        let mut value = value.map_err(|_| {
            Failure::new(Class::Permanent, TOKEN_FILE, "the token for FERRY does not fit into a header")
        })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

async fn get(world: &World, settings: &Ferry, attempt: &Attempt) -> Result<Secret, Failure> {
    let needed = |value: &Option<String>, key| value.clone().ok_or_else(|| missing(key));
    let keytab = settings.service_keytab_path.as_ref().ok_or_else(|| missing("serviceKeytabPath"))?;
    let principal = needed(&settings.service_kerberos_principal, "serviceKerberosPrincipal")?;
    let experiment = needed(&settings.service_experiment, "serviceExperiment")?;
    let role = needed(&settings.service_role, "serviceRole")?;
    let server = needed(&settings.vault_server, "vaultServer")?;

    // The name is no service's: those have an underscore.
    let cache = world.private_path("krb5cc-ferry");
    kinit::ticket(world, keytab, &principal, &cache, attempt).await?;

    let (vault_token, bearer) = (world.private_path("vt-ferry"), world.private_path("bt-ferry"));
    let options = options_for(&world.environment, &principal, None);
    let command = world
        .command("htgettoken")
        .env("KRB5CCNAME", cache_name(&cache))
        .env(HTGETTOKENOPTS, &options)
        .args(["-a", &server, "-i", &experiment, "-r", &role])
        .arg("--vaulttokenfile")
        .arg(&vault_token)
        .arg("-o")
        .arg(&bearer)
        .args(["--nooidc", "--verbose"]);
    let ended = process::run(command, &attempt.cancel).await;
    let token = match ended.map_err(|error| not_run(error, vault::too_slow(&server), attempt)) {
        Ok(ended) if ended.success() => token_file::read_bearer(&bearer)
            .map_err(|error| Failure::new(Class::Permanent, TOKEN_FILE, error.to_string())),
        Ok(ended) => {
            let service = format!("{experiment}_{role}");
            let facts = [("program", "htgettoken"), ("service", service.as_str()), ("vault", server.as_str())];
            let mut failure = vault::classify(ended.exit, &ended.output, &facts);
            if failure.class == Class::NeedsHuman {
                // Not one of our services: it cannot be onboarded with `mt run`.
                let options = shell_words::quote(&options);
                failure.next =
                    Some(format!("HTGETTOKENOPTS={options} htgettoken -a {server} -i {experiment} -r {role}"));
            }
            Err(failure)
        }
        Err(failure) => Err(failure),
    };
    // All is in memory now, and the private directory goes at the end anyway.
    for file in [&vault_token, &bearer] {
        if let Err(error) = token_file::remove(file) {
            warn!(%error, "a token stays in the private directory");
        }
    }
    token
}
