//! `GetVaultToken`: htgettoken, with the kept token reused while it is good enough, and a kept token pushed as stale
//! while the vault is out of order.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::child::run_login;
use super::classify::{TooSlow, not_run, vault};
use super::codes::{TOKEN_FILE, VAULT_UNREACHABLE};
use super::lookup::Lookup;
use super::off_thread::{off_thread, on_kept};
use super::vault_options::{HTGETTOKENOPTS, VaultOptions, htgettoken_options, least_lifetime, resolve};
use super::world::{ServiceContext, TokenSource, World};
use super::{info_of, unknown_service};
use crate::config::{Credds, Service};
use crate::process::{self, Command};
use crate::token_file::{self, Fingerprint, TokenFileError};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, ProductState, Success};
use crate::workflow::definition::Mode;
use crate::workflow::id::Subject;

/// Its name in workflow files.
pub const NAME: &str = "GetVaultToken";

/// How long the vault may take to say whether it takes a token that is to stand in. Less than the engine waits for one: a
/// vault that is slow to answer must not be the end of it.
const ASK_FOR: Duration = Duration::from_secs(2);

/// What is recorded of a token: enough to know it again, nothing to use it with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Detail {
    /// Which token.
    pub fingerprint: Fingerprint,
    /// When it expires; absent where the vault could not be asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// The kept file.
    pub kept: PathBuf,
}

/// The action.
pub struct GetVaultToken {
    world: Arc<World>,
}

impl GetVaultToken {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    fn staged(&self, service: &Service) -> PathBuf {
        self.world.private.join(format!("vt_{}", service.name))
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        let service = &context.service;
        let options = resolve(&self.world, service, &attempt.cancel).await?;
        let (staged, kept) = (self.staged(service), self.world.kept_token(service));
        let mut notes = Vec::new();
        if let Err(error) = stage(&self.world, &kept, &staged, attempt).await {
            // A bad kept file only costs a login at the vault.
            notes.push(format!("the kept token was not used: {error}"));
            token_file::remove(&staged).map_err(|error| unusable(&error))?;
        }

        let bearer = self.world.private_path("bt");
        let command = self.command(service, &options, &staged, &bearer);
        let ended = match attempt.mode {
            Mode::Normal | Mode::Test => self.quietly(command, service, &options, attempt).await,
            Mode::Onboard | Mode::OnboardPush => self.with_a_person(command, service, attempt).await,
        };
        // The bearer token is only htgettoken's proof that the vault token works.
        if let Err(error) = token_file::remove(&bearer) {
            warn!(%error, "a bearer token stays in the private directory");
        }
        ended?;

        let token = token_file::read(&staged).map_err(|error| unusable(&error))?;
        let fingerprint = token.fingerprint();
        let (from, to) = (staged.clone(), kept.clone());
        if let Err(error) = on_kept(&kept, attempt, move || token_file::keep(&from, &to)).await {
            warn!(service = %service.name, %error, "the kept vault token could not be replaced");
            notes.push(format!("the kept file could not be replaced: {error}"));
        }
        let lookup = tokio::select! {
            lookup = self.world.vault.lookup(&options.server, &token) => lookup,
            // The token is there; its expiry is not worth the time that is left.
            () = attempt.cancel.cancelled() => Lookup::Unknown("there was no time to ask".to_owned()),
        };
        match lookup {
            Lookup::Expires(at) => self.world.learn_expiry(&fingerprint, at),
            Lookup::Lasting => {}
            Lookup::Refused => notes.push("its expiry is not known: the vault refuses to tell".to_owned()),
            Lookup::Unknown(why) => notes.push(format!("its expiry is not known: {why}")),
        }
        Ok(self.provide(context, staged, fingerprint, kept, notes))
    }

    fn command(&self, service: &Service, options: &VaultOptions, staged: &Path, bearer: &Path) -> Command {
        self.world
            .command_for("htgettoken", service)
            .env(HTGETTOKENOPTS, htgettoken_options(&self.world.environment, service))
            .args(&options.words)
            .args(["-a", &options.server, "-i", service.issuer.as_str(), "-r", service.role.as_str()])
            .arg("--vaulttokenfile")
            .arg(staged)
            .arg("--vaulttokeninfile")
            .arg(staged)
            .arg("-o")
            .arg(bearer)
    }

    async fn quietly(
        &self,
        command: Command,
        service: &Service,
        options: &VaultOptions,
        attempt: &Attempt,
    ) -> Result<(), Failure> {
        // Without --verbose htgettoken does not say why the vault refused, and an outage looks like a call for a person.
        let command = command.args(["--nooidc", "--verbose"]);
        let ended = run_login(command, &attempt.cancel).await;
        let ended = ended.map_err(|error| not_run(error, vault::too_slow(&options.server), attempt))?;
        if ended.success() {
            return Ok(());
        }
        let facts = [("program", "htgettoken"), ("service", service.name.as_str()), ("vault", options.server.as_str())];
        Err(vault::classify(ended.exit, &ended.output, &facts))
    }

    async fn with_a_person(&self, command: Command, service: &Service, attempt: &Attempt) -> Result<(), Failure> {
        let unfinished = |error| {
            let cause = "nobody finished the authentication in the browser";
            let again = vault::onboard(service.name.as_str());
            not_run(error, TooSlow::new(super::codes::AUTHENTICATION_UNFINISHED, cause, again), attempt)
        };
        let _one_at_a_time = tokio::select! {
            guard = self.world.terminal.lock() => guard,
            () = attempt.cancel.cancelled() => {
                let cancelled = process::RunError::Cancelled { program: "htgettoken".into(), output: String::new() };
                return Err(unfinished(cancelled));
            }
        };
        let command = command.envs(self.world.environment.for_the_terminal()).on_the_terminal();
        let ended = process::run(command, &attempt.cancel).await.map_err(unfinished)?;
        if ended.success() { Ok(()) } else { Err(vault::onboarding(ended.exit, service.name.as_str())) }
    }

    /// Makes the staged token the one that later steps push.
    fn provide(
        &self,
        context: &ServiceContext,
        staged: PathBuf,
        fingerprint: Fingerprint,
        kept: PathBuf,
        notes: Vec<String>,
    ) -> Success {
        let expires_at = self.world.expiry(&fingerprint);
        let source = TokenSource { staged, fingerprint: fingerprint.clone(), expires_at };
        context.update(|shared| shared.token = Some(source));
        let detail = serde_json::to_value(Detail { fingerprint, expires_at, kept }).ok();
        Success { detail, note: None }.with_notes(&notes)
    }

    /// Kept tokens of this service: its own, then those of its credds.
    async fn kept_tokens(&self, service: &Service) -> Vec<PathBuf> {
        let mut found = vec![self.world.kept_token(service)];
        match &service.credds {
            Credds::Fixed(credd) if self.world.other_owner(service, credd.as_str()).is_some() => {}
            Credds::Fixed(credd) => found.push(self.world.kept_token_of_credd(service, credd.as_str())),
            Credds::Collector { .. } => {
                let directory = self.world.token_directory(service);
                let listed = directory.clone();
                let mut names = off_thread(move || file_names(&listed)).await;
                names.retain(|name| self.is_of_a_credd(name, service));
                names.sort();
                found.extend(names.into_iter().map(|name| directory.join(name)));
            }
        }
        found
    }

    /// `vt_u<own uid>-<credd>-<issuer service>`. Both may hold hyphens, and another service's token must never be taken
    /// for this one's: so the credd must be a full host name, whose last label has none, and the name no other's own.
    fn is_of_a_credd(&self, name: &str, service: &Service) -> bool {
        let start = format!("vt_u{}-", self.world.own_uid);
        let end = format!("-{}", service.issuer_service);
        let credd = name.strip_prefix(&start).and_then(|rest| rest.strip_suffix(&end));
        let last_label =
            |credd: &str| credd.rsplit_once('.').is_some_and(|(_, last)| !last.is_empty() && !last.contains('-'));
        credd.is_some_and(|credd| {
            super::credds::is_credd_name(credd) && last_label(credd) && self.world.other_owner(service, credd).is_none()
        })
    }

    async fn find_stand_in(&self, attempt: &Attempt, failure: &Failure) -> Option<Success> {
        if !failure.class.is_retried() {
            return None;
        }
        let context = self.world.service(attempt.subject.as_ref())?;
        let service = &context.service;
        let staged = self.staged(service);
        // A vault that just did not answer is not asked again.
        let answers = failure.class != Class::Timeout && failure.code != VAULT_UNREACHABLE;
        let server = match answers {
            true => resolve(&self.world, service, &attempt.cancel).await.ok().map(|options| options.server),
            false => None,
        };
        for kept in self.kept_tokens(service).await {
            let Ok(Some(fingerprint)) = stage(&self.world, &kept, &staged, attempt).await else { continue };
            if self.world.expiry(&fingerprint).is_some_and(|at| at <= Timestamp::now()) {
                continue;
            }
            if let (Some(server), Ok(token)) = (&server, token_file::read(&staged)) {
                match tokio::time::timeout(ASK_FOR, self.world.vault.lookup(server, &token)).await {
                    Ok(Lookup::Refused) => continue,
                    Ok(Lookup::Expires(at)) => self.world.learn_expiry(&fingerprint, at),
                    Ok(Lookup::Lasting | Lookup::Unknown(_)) | Err(_) => {}
                }
            }
            let note = match self.world.expiry(&fingerprint) {
                Some(at) => format!("the kept token, valid for {}", short(at.duration_since(Timestamp::now()))),
                None => "the kept token, whose expiry is not known".to_owned(),
            };
            return Some(self.provide(context, staged, fingerprint, kept, vec![note]));
        }
        if let Err(error) = token_file::remove(&staged) {
            warn!(%error, "a token that is not used stays in the private directory");
        }
        None
    }

    /// The recorded token, if it is still the kept one and good enough; else why not.
    fn recorded(
        &self,
        subject: Option<&Subject>,
        detail: Option<&Value>,
    ) -> Result<(Arc<ServiceContext>, Detail, String), String> {
        let context = self.world.service(subject).ok_or("its service is not one of this run")?;
        let detail = detail.cloned().map(serde_json::from_value::<Detail>);
        let detail = detail.and_then(Result::ok).ok_or("nothing is recorded of its token")?;
        let expires_at = detail.expires_at.ok_or("the recorded token's expiry is not known")?;
        let kept = self.world.kept_token(&context.service);
        let now = match token_file::read(&kept) {
            Ok(token) => token.fingerprint(),
            Err(TokenFileError::Missing { .. }) => return Err("there is no kept token any more".to_owned()),
            Err(error) => return Err(format!("the kept token cannot be used: {error}")),
        };
        if now != detail.fingerprint {
            return Err("the kept token is another one now".to_owned());
        }
        let left = expires_at.duration_since(Timestamp::now());
        let least = least_lifetime(&self.world, &context.service);
        if left <= SignedDuration::ZERO {
            return Err("the kept token has expired".to_owned());
        }
        if left.unsigned_abs() < least {
            let least = short(SignedDuration::try_from(least).unwrap_or(SignedDuration::MAX));
            return Err(format!("the kept token is valid for {} only, and {least} are asked for", short(left)));
        }
        Ok((Arc::clone(context), detail, format!("kept token unchanged, valid for {}", short(left))))
    }
}

/// Everything in the directory; nothing if it cannot be read.
fn file_names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Stages a kept token, if its file system answers in time.
async fn stage(
    world: &World,
    kept: &Path,
    staged: &Path,
    attempt: &Attempt,
) -> Result<Option<Fingerprint>, TokenFileError> {
    // Under a name of its own first: an answer that comes too late must not put an old token in the place of a new one.
    let fresh = world.private_path("kept");
    let (from, to) = (kept.to_owned(), fresh.clone());
    let found = on_kept(kept, attempt, move || token_file::stage(&from, &to)).await?;
    if found.is_some() {
        token_file::rename_staged(&fresh, staged)?;
    }
    Ok(found)
}

fn unusable(error: &TokenFileError) -> Failure {
    Failure::new(Class::Permanent, TOKEN_FILE, error.to_string())
}

/// `6d 22h`, `3h 12m`, `45s`: the two largest units.
fn short(left: SignedDuration) -> String {
    let seconds = Duration::try_from(left).unwrap_or_default().as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

impl Action for GetVaultToken {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn stand_in<'a>(&'a self, attempt: &'a Attempt, failure: &'a Failure) -> BoxFuture<'a, Option<Success>> {
        Box::pin(self.find_stand_in(attempt, failure))
    }

    fn product_state(&self, subject: Option<&Subject>, detail: Option<&Value>) -> ProductState {
        match self.recorded(subject, detail) {
            Ok((_, _, known)) => ProductState::Usable(known),
            Err(why) => ProductState::Lost(why),
        }
    }

    fn adopt(&self, subject: Option<&Subject>, detail: Option<&Value>) -> Result<(), Failure> {
        let lost = |why: String| Failure::new(Class::Permanent, TOKEN_FILE, why);
        let (context, detail, _) = self.recorded(subject, detail).map_err(lost)?;
        let (staged, kept) = (self.staged(&context.service), self.world.kept_token(&context.service));
        match token_file::stage(&kept, &staged) {
            Ok(Some(fingerprint)) if fingerprint == detail.fingerprint => {
                if let Some(at) = detail.expires_at {
                    self.world.learn_expiry(&fingerprint, at);
                }
                self.provide(&context, staged, fingerprint, kept, Vec::new());
                Ok(())
            }
            Ok(_) => Err(lost("the kept token was replaced just now".to_owned())),
            Err(error) => Err(unusable(&error)),
        }
    }
}
