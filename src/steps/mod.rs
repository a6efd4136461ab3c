//! What the shipped workflows do: one file per action, each implementing the engine's [`Action`].
//!
//! | file | subject |
//! |---|---|
//! | `world` | what the steps of a process share: services, tickets, staged tokens |
//! | `environment` | what children find in their environment |
//! | `child` | children with a time limit of their own |
//! | `off_thread` | work on files, which may lie on a file server that is away |
//! | `catalog` | what workflow files may say about the actions: needs, products, arguments |
//! | `classify` | what a program's exit code and words mean: one table per program |
//! | `vault_options` | which vault server, and which options htgettoken gets beside mt's own |
//! | `lookup` | when a vault token expires, asked of the vault |
//! | `credds` | which credds there are, asked of the collector once |
//! | `storer` | the files of condor_vault_storer in `/tmp` |
//! | `staging` | the files of one push, under their destination names |
//! | `kinit`, `get_vault_token`, `store_in_credd`, `ping`, `push`, `notify`, `exec` | one action each |
//! | `accounts`, `ferry`, `tls` | the UIDs of accounts, and FERRY, which knows them |
//! | `fetch_uid`, `store_uid`, `verify_uids` | one action each |
//! | `codes` | the numbers of the failures, and what `mt explain` says about them |

pub mod accounts;
pub mod catalog;
mod child;
pub mod classify;
pub mod codes;
pub mod credds;
pub mod environment;
pub mod exec;
pub mod ferry;
pub mod fetch_uid;
pub mod get_vault_token;
pub mod kinit;
pub mod lookup;
pub mod notify;
mod off_thread;
pub mod ping;
pub mod push;
pub mod staging;
pub mod store_in_credd;
pub mod store_uid;
pub mod storer;
mod tls;
pub mod vault_options;
pub mod verify_uids;
pub mod world;

use std::sync::Arc;

use crate::config::NodeName;
use crate::workflow::action::{Action, Attempt, Class, Failure};
use crate::workflow::definition::Step;
use crate::workflow::id::{Subject, TargetName};

use catalog::info_of;

pub use world::{ServiceContext, Setup, World};

/// The step cannot be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// No such action.
    #[error(
        "there is no action {name:?}; the actions are Kinit, GetVaultToken, StoreInCredd, Ping, Push, FetchUid, StoreUid, VerifyUids, Notify and Exec"
    )]
    UnknownAction {
        /// As written.
        name: String,
    },
    /// Its arguments cannot be read.
    #[error("cannot read the arguments of {action}: {why}")]
    Arguments {
        /// The action.
        action: String,
        /// What is wrong.
        why: String,
    },
}

/// The action of a step, over the world it works in.
pub fn build(step: &Step, world: &Arc<World>) -> Result<Arc<dyn Action>, BuildError> {
    let world = Arc::clone(world);
    let name = step.action.name.as_str();
    if name != exec::NAME && step.action.arguments.is_some() {
        return Err(BuildError::Arguments { action: name.to_owned(), why: "it takes none".to_owned() });
    }
    Ok(match name {
        kinit::NAME => Arc::new(kinit::Kinit::new(world)),
        get_vault_token::NAME => Arc::new(get_vault_token::GetVaultToken::new(world)),
        store_in_credd::NAME => Arc::new(store_in_credd::StoreInCredd::new(world)),
        ping::NAME => Arc::new(ping::Ping::new(world)),
        push::NAME => Arc::new(push::Push::new(world)),
        fetch_uid::NAME => Arc::new(fetch_uid::FetchUid::new(world)),
        store_uid::NAME => Arc::new(store_uid::StoreUid::new(world)),
        verify_uids::NAME => Arc::new(verify_uids::VerifyUids::new(world)),
        notify::NAME => Arc::new(notify::Notify::new(world)),
        exec::NAME => Arc::new(exec::Exec::new(exec::arguments(&step.action)?, step.per, world)),
        _ => return Err(BuildError::UnknownAction { name: name.to_owned() }),
    })
}

/// The targets of a step that fans out over nodes.
fn nodes(world: &World, attempt: &Attempt) -> Result<Vec<TargetName>, Failure> {
    let context = world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
    Ok(context.service.nodes.iter().map(|node| TargetName::new(node.as_str())).collect())
}

/// Is the target one of the service's nodes?
fn is_node(world: &World, subject: Option<&Subject>, target: &TargetName) -> bool {
    let has = |context: &Arc<ServiceContext>| context.service.nodes.iter().any(|node| node.as_str() == target.as_str());
    world.service(subject).is_some_and(has)
}

/// The configured node that is meant: only checked names reach a command line.
fn node_of<'a>(context: &'a ServiceContext, attempt: &Attempt) -> Result<&'a NodeName, Failure> {
    let found = context.service.nodes.iter().find(|node| node.as_str() == attempt.target.as_str());
    found.ok_or_else(|| {
        let message = format!("{} is not a configured node of {}", attempt.target, context.service.name);
        Failure::new(Class::Permanent, codes::PUSH_FAILED, message)
    })
}

/// The engine asked for a subject that is not in this world.
fn unknown_service(attempt: &Attempt) -> Failure {
    let name = attempt.subject.as_ref().map_or("(none)", |subject| subject.as_str());
    let message = format!("the step {} works for a service, and {name} is not one of this run", attempt.step);
    Failure::new(Class::Permanent, codes::NO_SERVICE, message)
}

#[cfg(test)]
mod tests;
