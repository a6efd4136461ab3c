//! `Kinit`: a Kerberos ticket in a private cache, checked to be the right one.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;

use futures::future::BoxFuture;

use super::classify::{TooSlow, kerberos, not_run};
use super::codes::{KEYTAB_MISSING, KEYTAB_UNREADABLE, KINIT_FAILED, WRONG_PRINCIPAL};
use super::off_thread::within;
use super::world::{World, cache_name};
use super::{info_of, unknown_service};
use crate::process;
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::input_file;

/// Its name in workflow files.
pub const NAME: &str = "Kinit";

/// The action.
pub struct Kinit {
    world: Arc<World>,
}

impl Kinit {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        let service = &context.service;
        let cache = self.world.ticket_cache(service);
        ticket(&self.world, &service.keytab, &service.principal, &cache, attempt).await?;
        context.update(|shared| shared.ticket = Some(cache));
        Ok(Success::default())
    }
}

/// Gets a ticket into the cache, and looks whose it is.
pub(super) async fn ticket(
    world: &World,
    keytab: &Path,
    principal: &str,
    cache: &Path,
    attempt: &Attempt,
) -> Result<(), Failure> {
    check_keytab(keytab, principal, attempt).await?;
    let named = keytab.to_string_lossy();
    let facts = |program| kerberos::facts(program, &named, principal);
    let command = |program| world.command(program).env("KRB5CCNAME", cache_name(cache));

    let kinit = command("kinit").arg("-k").arg("-t").arg(keytab).arg("--").arg(principal);
    let kinit = process::run(kinit, &attempt.cancel).await;
    let kinit = kinit.map_err(|error| not_run(error, kerberos::too_slow(&facts("kinit")), attempt))?;
    if !kinit.success() {
        return Err(kerberos::classify(kinit.exit, &kinit.output, &facts("kinit")));
    }

    let klist = process::run(command("klist").arg("-c").arg(cache_name(cache)), &attempt.cancel).await;
    let klist =
        klist.map_err(|error| not_run(error, TooSlow::local(KINIT_FAILED, "the ticket cannot be read"), attempt))?;
    if !klist.success() {
        return Err(kerberos::classify(klist.exit, &klist.output, &facts("klist")));
    }
    let shown = String::from_utf8_lossy(&klist.stdout);
    let got = default_principal(&shown).unwrap_or("nobody");
    if got != principal {
        let message = format!("the ticket is for {got}, not for {principal}");
        return Err(Failure::new(Class::Permanent, WRONG_PRINCIPAL, message).with_output(klist.output));
    }
    Ok(())
}

/// Names the plain mistakes in plain words, before Kerberos names them in its own.
async fn check_keytab(keytab: &Path, principal: &str, attempt: &Attempt) -> Result<(), Failure> {
    let path = keytab.to_owned();
    match within(attempt.timeout, &attempt.cancel, move || input_file::open(&path).map(|_| ())).await {
        Some(Ok(())) => Ok(()),
        None => {
            let message = format!("the keytab {} cannot be read: its file system does not answer", keytab.display());
            Err(Failure::new(Class::Timeout, KEYTAB_UNREADABLE, message).with_next(format!("df {}", keytab.display())))
        }
        Some(Err(error)) if error.kind() == ErrorKind::NotFound => {
            let message = format!("there is no keytab {}", keytab.display());
            let put = kerberos::put(&kerberos::facts("kinit", &keytab.to_string_lossy(), principal));
            Err(Failure::new(Class::Permanent, KEYTAB_MISSING, message).with_next(put))
        }
        Some(Err(error)) => {
            let message = format!("the keytab {} cannot be read: {error}", keytab.display());
            Err(Failure::new(Class::Permanent, KEYTAB_UNREADABLE, message)
                .with_next(format!("ls -l {}", keytab.display())))
        }
    }
}

pub(crate) fn default_principal(klist: &str) -> Option<&str> {
    klist.lines().find_map(|line| line.trim().strip_prefix("Default principal:")).map(str::trim)
}

impl Action for Kinit {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }
}
