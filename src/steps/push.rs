//! `Push`: one ssh connection per node carries the vault token, under both its names, and the default role file.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::classify::{not_run, remote};
use super::codes::{TOKEN_FILE, UID_UNKNOWN};
use super::staging::Staging;
use super::vault_options::resolve;
use super::world::{ServiceContext, World};
use super::{info_of, is_node, node_of, nodes, unknown_service};
use crate::config::{NodeName, Service};
use crate::process::{self, Command, Finished, RunError};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::id::{Subject, TargetName};

/// Its name in workflow files.
pub const NAME: &str = "Push";
/// Nobody is there to answer a question. ssh takes the first value it meets, so this comes after the configuration's own.
const SSH_OPTION: &str = "BatchMode=yes";

/// The action.
pub struct Push {
    world: Arc<World>,
}

impl Push {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        let node = node_of(context, attempt)?;
        self.push(context, node, attempt).await.map_err(|mut failure| {
            failure.last = context.shared().unpingable.contains(node);
            failure
        })
    }

    async fn push(&self, context: &ServiceContext, node: &NodeName, attempt: &Attempt) -> AttemptResult {
        let service = &context.service;
        let token = context.shared().token;
        let token =
            token.ok_or_else(|| Failure::new(Class::Permanent, TOKEN_FILE, "there is no vault token to push"))?;
        let uid = context.uid.ok_or_else(|| uid_unknown(service))?;
        let vault = match service.vault_server {
            Some(_) => None,
            // The template may name it; nothing else here needs it.
            None => resolve(&self.world, service, &attempt.cancel).await.ok().map(|options| options.server),
        };
        let (staging, note) = Staging::make(&self.world, service, uid, vault.as_deref(), &token)
            .map_err(|error| Failure::new(error.class(), TOKEN_FILE, format!("cannot stage the files: {error}")))?;

        let facts = [
            ("program", "rsync"),
            ("node", node.as_str()),
            ("account", service.account.as_str()),
            ("principal", service.principal.as_str()),
        ];
        let pinged = !context.shared().unpingable.contains(node);
        let slow = remote::too_slow(&facts, pinged);
        let not_run = |error| not_run(error, slow.clone(), attempt);

        let ended = self.rsync(&staging, true, service, node, attempt).await.map_err(not_run)?;
        if ended.success() {
            return Ok(Success::default().with_notes(note.as_slice()));
        }
        let failure = remote::push(ended.exit, &ended.output, &facts);
        // The token is what matters; the default role file alone is not worth a failure.
        let name = staging.role().and_then(|path| path.file_name()).map(|name| name.to_string_lossy().into_owned());
        let Some(name) = name.filter(|name| ended.output.contains(name.as_str())) else { return Err(failure) };
        let note = Some(format!("the default role file was not pushed: {}", failure.message));
        if remote::only_about(ended.exit, &ended.output, &name) {
            return Ok(Success::default().with_notes(note.as_slice()));
        }
        let again = self.rsync(&staging, false, service, node, attempt).await.map_err(not_run)?;
        if again.success() {
            return Ok(Success::default().with_notes(note.as_slice()));
        }
        Err(remote::push(again.exit, &again.output, &facts))
    }

    async fn rsync(
        &self,
        staging: &Staging,
        with_role: bool,
        service: &Service,
        node: &NodeName,
        attempt: &Attempt,
    ) -> Result<Finished, RunError> {
        let operands = staging.operands(with_role);
        let mut command: Command = self
            .world
            .command_for("rsync", service)
            .directory(staging.directory())
            // Equal size and time must not keep an old token there.
            .arg("--ignore-times")
            .args(&service.copier_options);
        if operands.relative {
            command = command.args(["--relative", "--no-implied-dirs"]);
        }
        let command = command
            .arg("-e")
            .arg(remote_shell(&service.ssh_options))
            .arg("--")
            .args(operands.sources)
            .arg(format!("{}@{}:{}", service.account, bracketed(node), operands.destination));
        process::run(command, &attempt.cancel).await
    }
}

fn uid_unknown(service: &Service) -> Failure {
    let message = format!("the UID of the account {} is not known", service.account);
    Failure::new(Class::Permanent, UID_UNKNOWN, message).with_next("ask FERRY for it:  mt run ferry-refresh")
}

/// An IPv6 address has colons, and rsync ends the host at the first.
fn bracketed(node: &NodeName) -> String {
    let node = node.as_str();
    if node.contains(':') && !node.starts_with('[') { format!("[{node}]") } else { node.to_owned() }
}

/// `ssh` with its options as rsync's `-e` takes it: split at spaces, quotes but no backslashes.
fn remote_shell(options: &[String]) -> String {
    let words =
        [["ssh"].as_slice(), &options.iter().map(String::as_str).collect::<Vec<_>>(), &["-o", SSH_OPTION]].concat();
    words.into_iter().map(quoted).collect::<Vec<_>>().join(" ")
}

fn quoted(word: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_=./,:@%+".contains(&byte);
    if !word.is_empty() && word.bytes().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "''"))
}

impl Action for Push {
    fn info(&self) -> ActionInfo {
        info_of(NAME)
    }

    fn targets<'a>(
        &'a self,
        attempt: &'a Attempt,
        _recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        Box::pin(async { nodes(&self.world, attempt) })
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn is_configured(&self, subject: Option<&Subject>, target: &TargetName) -> bool {
        is_node(&self.world, subject, target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_configurations_ssh_options_come_first_because_ssh_takes_the_first() {
        let words = |options: &str| remote_shell(&shell_words::split(options).unwrap());
        assert_eq!(words("-o ConnectTimeout=3 -4"), "ssh -o ConnectTimeout=3 -4 -o BatchMode=yes");
    }

    #[test]
    fn a_word_with_spaces_or_quotes_stays_one_word_for_rsync() {
        let options = ["-o".to_owned(), "ProxyCommand=ssh -W %h:%p it's".to_owned()];
        assert_eq!(remote_shell(&options), "ssh -o 'ProxyCommand=ssh -W %h:%p it''s' -o BatchMode=yes");
    }
}
