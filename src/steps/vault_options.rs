//! Which vault server, and which options htgettoken gets beside mt's own.
//!
//! HTCondor's setting SEC_CREDENTIAL_GETTOKEN_OPTS is where a site keeps them; an environment variable of that name with
//! `_condor_` before it wins over HTCondor's files.

use std::time::Duration;

use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::child::run_within;
use super::codes::{HTGETTOKEN_OPTIONS, VAULT_SERVER_UNKNOWN};
use super::environment::Snapshot;
use super::world::World;
use crate::config::{Service, parse_lifetime};

use crate::process;
use crate::workflow::action::{Class, Failure};

/// The variable that HTCondor reads in place of its setting.
pub const VARIABLE: &str = "_condor_SEC_CREDENTIAL_GETTOKEN_OPTS";
const SETTING: &str = "SEC_CREDENTIAL_GETTOKEN_OPTS";
/// The variable that htgettoken reads.
pub const HTGETTOKENOPTS: &str = "HTGETTOKENOPTS";
/// condor_config_val reads files; if it takes longer, its configuration is on a network file system that hangs.
const ASK_FOR: Duration = Duration::from_secs(5);

/// What HTCondor's configuration says, asked once per process.
#[derive(Debug, Default)]
pub(super) struct CondorOptions(OnceCell<Option<String>>);

/// Where to ask for a token, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VaultOptions {
    /// As htgettoken takes it: a host, `host:port` or a URL.
    pub server: String,
    /// The site's options, as one string; empty if there are none.
    pub previous: String,
    /// The same as words, to come before mt's own.
    pub words: Vec<String>,
}

impl CondorOptions {
    async fn get(&self, world: &World, cancel: &CancellationToken) -> Option<String> {
        if let Some(options) = world.environment.get(VARIABLE) {
            return Some(options.trim().to_owned());
        }
        self.0.get_or_try_init(|| ask(world, cancel)).await.ok().cloned().flatten()
    }

    /// What is known without asking.
    fn known(&self, environment: &Snapshot) -> Option<String> {
        environment.get(VARIABLE).map(|options| options.trim().to_owned()).or_else(|| self.0.get().cloned().flatten())
    }
}

/// `Err` where the answer is not to be remembered: it may be another the next time.
async fn ask(world: &World, cancel: &CancellationToken) -> Result<Option<String>, ()> {
    let answer = run_within(world.command("condor_config_val").arg(SETTING), cancel, ASK_FOR).await;
    match answer {
        Ok(finished) if finished.success() => {
            let text = String::from_utf8_lossy(&finished.stdout).trim().to_owned();
            Ok((!text.is_empty()).then_some(text))
        }
        // Not defined, or a broken configuration: either way there is nothing to take from it.
        Ok(_) => Ok(None),
        Err(process::RunError::Start { source, .. }) => {
            debug!(%source, "HTCondor's configuration is not asked for options of htgettoken");
            Ok(None)
        }
        // The attempt that asked is over.
        Err(process::RunError::Cancelled { .. }) if cancel.is_cancelled() => Err(()),
        // Remembered, too: service after service would wait for it, each behind the one before.
        Err(process::RunError::Cancelled { .. }) => {
            warn!("condor_config_val did not answer within {ASK_FOR:?}: {SETTING} is taken as not set");
            Ok(None)
        }
    }
}

/// The vault server: the variable's, else the configuration's, else HTCondor's.
pub(super) async fn resolve(
    world: &World,
    service: &Service,
    cancel: &CancellationToken,
) -> Result<VaultOptions, Failure> {
    let previous = world.condor_options.get(world, cancel).await.unwrap_or_default();
    choose(&previous, world.environment.get(VARIABLE).is_some(), service.vault_server.as_deref())
}

/// For what tries hostile texts: what comes of options that HTCondor's configuration has.
pub(crate) fn try_options(previous: &str) -> Result<String, Failure> {
    choose(previous, false, None).map(|options| options.server)
}

fn choose(previous: &str, of_environment: bool, configured: Option<&str>) -> Result<VaultOptions, Failure> {
    let words = shell_words::split(previous).map_err(|error| {
        Failure::new(Class::Permanent, HTGETTOKEN_OPTIONS, format!("{SETTING} is {previous:?}: {error}"))
    })?;
    let theirs = last_option(&words, "-a", "--vaultserver");
    let server = if of_environment {
        theirs.or(configured.map(str::to_owned))
    } else {
        configured.map(str::to_owned).or(theirs)
    };
    let Some(server) = server else {
        return Err(Failure::new(Class::Permanent, VAULT_SERVER_UNKNOWN, "nothing says which vault server to use")
            .with_next("set vaultServer in the configuration"));
    };
    Ok(VaultOptions { server, previous: previous.to_owned(), words })
}

/// `HTGETTOKENOPTS` for a child: an inherited value is kept.
pub fn htgettoken_options(environment: &Snapshot, service: &Service) -> String {
    options_for(environment, &service.principal, Some(&service.min_token_lifetime))
}

/// The same for this principal. Without a least lifetime, htgettoken's own holds.
pub(super) fn options_for(environment: &Snapshot, principal: &str, least_lifetime: Option<&str>) -> String {
    let credkey = principal.split('@').next().unwrap_or_default();
    let credkey = shell_words::quote(credkey);
    match (environment.get(HTGETTOKENOPTS), least_lifetime) {
        (None, Some(least)) => format!("--vaulttokenminttl={least} --credkey={credkey}"),
        (None, None) => format!("--credkey={credkey}"),
        (Some(inherited), _) => {
            let words = shell_words::split(inherited).unwrap_or_default();
            match last_option(&words, "", "--credkey") {
                Some(_) => inherited.to_owned(),
                None => format!("{} --credkey={credkey}", inherited.trim_end()),
            }
        }
    }
}

/// How much lifetime a kept token must have left for htgettoken to use it again.
pub(super) fn least_lifetime(world: &World, service: &Service) -> Duration {
    let mut words = shell_words::split(&htgettoken_options(&world.environment, service)).unwrap_or_default();
    // What is on the command line comes after the variable, and the last one counts.
    let condor = world.condor_options.known(&world.environment).unwrap_or_default();
    words.extend(shell_words::split(&condor).unwrap_or_default());
    last_option(&words, "", "--vaulttokenminttl").and_then(|text| parse_lifetime(&text)).unwrap_or_default()
}

/// The value of the last option of that name: `-a X`, `-aX`, `--long X` or `--long=X`. An empty `short` is none.
fn last_option(words: &[String], short: &str, long: &str) -> Option<String> {
    let mut found = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == long || (!short.is_empty() && word == short) {
            found = words.next().cloned().or(found);
        } else if let Some(value) = word.strip_prefix(long).and_then(|rest| rest.strip_prefix('=')) {
            found = Some(value.to_owned());
        } else if !short.is_empty() && !word.starts_with("--") && word.len() > short.len() && word.starts_with(short) {
            found = Some(word[short.len()..].to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::steps::world::test_support::service;

    #[test]
    fn the_variable_wins_over_the_configuration_and_that_over_htcondors_files() {
        let server =
            |previous, of_environment, configured| choose(previous, of_environment, configured).unwrap().server;
        assert_eq!(server("-a one", true, Some("two")), "one");
        assert_eq!(server("-a one", false, Some("two")), "two");
        assert_eq!(server("--vaultserver=one", false, None), "one");
        assert_eq!(server("--nossh", true, Some("two")), "two");
        assert_eq!(choose("--nossh", true, None).unwrap_err().code, VAULT_SERVER_UNKNOWN);
    }

    #[test]
    fn the_last_of_several_servers_counts_as_with_htgettoken() {
        let words = shell_words::split("-a one --vaultserver two -athree --audience x").unwrap();
        assert_eq!(last_option(&words, "-a", "--vaultserver").as_deref(), Some("three"));
    }

    #[test]
    fn an_inherited_htgettokenopts_is_kept_and_gets_only_the_credkey() {
        let service = service("dune_production");
        let none = Snapshot::default();
        assert_eq!(
            htgettoken_options(&none, &service),
            "--vaulttokenminttl=3d --credkey=dunepro/managedtokens/lab.test"
        );
        let some = Snapshot::new([(HTGETTOKENOPTS, "--vaulttokenminttl=1h")]);
        assert_eq!(
            htgettoken_options(&some, &service),
            "--vaulttokenminttl=1h --credkey=dunepro/managedtokens/lab.test"
        );
        let all = Snapshot::new([(HTGETTOKENOPTS, "--credkey=me")]);
        assert_eq!(htgettoken_options(&all, &service), "--credkey=me");
    }
}
