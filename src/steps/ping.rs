//! `Ping`: is a node there? One that does not answer gets one push attempt instead of several.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::classify::{not_run, remote};
use super::world::World;
use super::{info_of, is_node, node_of, nodes, unknown_service};
use crate::process;
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Failure, Success};
use crate::workflow::id::{Subject, TargetName};

/// Its name in workflow files.
pub const NAME: &str = "Ping";

/// The action.
pub struct Ping {
    world: Arc<World>,
}

impl Ping {
    /// Over this world.
    pub fn new(world: Arc<World>) -> Self {
        Self { world }
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let context = self.world.service(attempt.subject.as_ref()).ok_or_else(|| unknown_service(attempt))?;
        let node = node_of(context, attempt)?;
        let command = self.world.command("ping").args(&context.service.ping_options);
        let command = command.arg("--").arg(node.as_str());
        let failure = match process::run(command, &attempt.cancel).await {
            Ok(finished) if finished.success() => {
                context.update(|shared| {
                    shared.unpingable.remove(node);
                });
                return Ok(Success::default());
            }
            Ok(finished) => {
                let facts = [("program", "ping"), ("node", node.as_str())];
                remote::ping(finished.exit, &finished.output, &facts)
            }
            Err(error) => not_run(error, remote::unpingable(node.as_str()), attempt),
        };
        context.update(|shared| {
            shared.unpingable.insert(node.clone());
        });
        Err(failure)
    }
}

impl Action for Ping {
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
