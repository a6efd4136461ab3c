//! `StoreInCredd`: condor_vault_storer, once per credd.

use std::sync::Arc;

use futures::future::BoxFuture;
use serde_json::json;
use tracing::warn;

use super::child::run_login;
use super::classify::{TooSlow, condor, not_run};
use super::codes::{CREDD_UNREACHABLE, STORER_FILES};
use super::credds::{self, is_credd_name};
use super::storer::{PROGRAM, VARIABLE};
use super::vault_options::{self, HTGETTOKENOPTS, htgettoken_options, resolve};
use super::world::World;
use super::{info_of, unknown_service};
use crate::config::service::TokenGetter;
use crate::config::{Credds, Service};
use crate::token_file::{self, TokenFileError};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::id::{Subject, TargetName};

/// Its name in workflow files.
pub const NAME: &str = "StoreInCredd";

/// The action.
pub struct StoreInCredd {
    world: Arc<World>,
}

impl StoreInCredd {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn find(&self, attempt: &Attempt, recorded: &[TargetName]) -> Result<Vec<TargetName>, Failure> {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        if context.service.token_getter == TokenGetter::GetToken {
            return Ok(Vec::new());
        }
        match credds::of(&self.world, &context.service, attempt.timeout, &attempt.cancel).await {
            Ok(found) => Ok(found.credds.iter().map(|credd| TargetName::new(credd.as_str())).collect()),
            Err(failure) if recorded.is_empty() => Err(failure),
            Err(failure) => {
                let service = &context.service.name;
                warn!(%service, why = %failure.message, "the credds of the run's earlier session are used");
                Ok(recorded.to_vec())
            }
        }
    }

    /// What the storer is to use as the collector: the one that answered, else all that are configured.
    async fn collector(&self, service: &Service, attempt: &Attempt) -> Option<String> {
        let configured = match &service.credds {
            Credds::Fixed(_) => return None,
            Credds::Collector { collectors, .. } => collectors,
        };
        // Asked before, when the targets were; from the second time on this is a look into memory.
        let found = credds::of(&self.world, service, attempt.timeout, &attempt.cancel).await.ok();
        found.and_then(|found| found.collector).or_else(|| (!configured.is_empty()).then(|| configured.join(",")))
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        let service = &context.service;
        let credd = attempt.target.as_str();
        if !is_credd_name(credd) {
            let message = format!("{credd:?} cannot be the name of a credd");
            return Err(Failure::new(Class::Permanent, CREDD_UNREACHABLE, message));
        }
        if let Some(other) = self.world.other_owner(service, credd) {
            let message = format!("the kept token for the credd {credd} would have the name of that of {other}");
            let next = format!("name the credd by its full host name, or rename the experiment of {other}");
            return Err(Failure::new(Class::Permanent, STORER_FILES, message).with_next(next));
        }
        let options = resolve(&self.world, service, &attempt.cancel).await?;
        let collector = self.collector(service, attempt).await;
        let kept = self.world.kept_token_of_credd(service, credd);
        let (files, note) = self.world.storer.prepare(&self.world, service, &kept, attempt).await?;
        let mut notes: Vec<String> = note.into_iter().collect();

        let bearer = self.world.private_path("bt");
        let separator = if options.previous.is_empty() { "" } else { " " };
        let mut command = self
            .world
            .command_for(PROGRAM, service)
            // Without -v the first htgettoken's reasons are lost.
            .arg("-v")
            .arg(service.issuer_service.as_str())
            .env("_condor_CREDD_HOST", credd)
            .env(vault_options::VARIABLE, format!("{}{separator}-a {}", options.previous, options.server))
            .env(HTGETTOKENOPTS, htgettoken_options(&self.world.environment, service))
            .env("BEARER_TOKEN_FILE", &bearer);
        if let Some(collector) = collector {
            command = command.env("_condor_COLLECTOR_HOST", collector);
        }
        if let Some(id) = &files.id {
            command = command.env(VARIABLE, id);
        }
        let ended = run_login(command, &attempt.cancel).await;
        if let Err(error) = token_file::remove(&bearer) {
            warn!(%error, "a bearer token stays in the private directory");
        }
        // It asks the vault first and the credd then, and does not say where it is.
        let cause = format!("storing in the credd {credd} took too long");
        let slow = TooSlow::new(CREDD_UNREACHABLE, cause, format!("look at the credd {credd} and at the vault server"));
        let ended = ended.map_err(|error| not_run(error, slow, attempt))?;
        if !ended.success() {
            let facts = [
                ("program", PROGRAM),
                ("service", service.name.as_str()),
                ("credd", credd),
                ("vault", options.server.as_str()),
            ];
            return Err(condor::store(ended.exit, &ended.output, &facts));
        }
        // The credential is in the credd; a token that cannot be kept costs a login at the vault the next time.
        let detail = match files.collect(&self.world, &kept, attempt).await {
            Ok(fingerprint) => Some(json!({ "fingerprint": fingerprint, "kept": kept })),
            Err(error @ TokenFileError::Refused { .. }) => {
                return Err(Failure::new(Class::Permanent, STORER_FILES, error.to_string()));
            }
            Err(error) => {
                warn!(service = %service.name, credd, %error, "the credd's vault token could not be kept");
                notes.push(format!("the kept file could not be replaced: {error}"));
                None
            }
        };
        Ok(Success { detail, note: None }.with_notes(&notes))
    }
}

impl Action for StoreInCredd {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn targets<'a>(
        &'a self,
        attempt: &'a Attempt,
        recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        Box::pin(self.find(attempt, recorded))
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn is_configured(&self, subject: Option<&Subject>, target: &TargetName) -> bool {
        self.world.service(subject).is_some_and(|context| {
            let service = &context.service;
            match (&service.credds, service.token_getter) {
                (_, TokenGetter::GetToken) => false,
                (Credds::Fixed(credd), TokenGetter::StoreAndGetToken) => credd.as_str() == target.as_str(),
                // Only the collector knows.
                (Credds::Collector { .. }, TokenGetter::StoreAndGetToken) => true,
            }
        })
    }
}
