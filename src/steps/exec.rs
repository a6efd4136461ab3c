//! `Exec(command: [..], needs: [..], provides: [..])`: a program of the site's own.

use std::sync::Arc;

use futures::future::BoxFuture;

use super::catalog::ExecArguments;
use super::classify::{TooSlow, not_run};
use super::codes::{EXEC_FAILED, EXEC_TEMPORARY};
use super::store_in_credd::StoreInCredd;
use super::world::World;
use super::{BuildError, is_node, nodes};
use crate::process::{self, Command, Exit};
use crate::workflow::action::{Action, ActionInfo, Attempt, AttemptResult, Class, Failure, Success};
use crate::workflow::definition::{ActionSpec, Per};
use crate::workflow::id::{Subject, TargetName};

/// Its name in workflow files.
pub const NAME: &str = "Exec";
/// sysexits.h: "temporary failure; the user is invited to retry".
const EX_TEMPFAIL: i32 = 75;

/// Reads what a workflow file says of it.
pub fn arguments(action: &ActionSpec) -> Result<ExecArguments, BuildError> {
    let wrong = |why: String| BuildError::Arguments { action: action.name.clone(), why };
    ExecArguments::parse(action.arguments.as_deref().unwrap_or_default()).map_err(|mistakes| {
        wrong(mistakes.iter().map(|mistake| mistake.message.as_str()).collect::<Vec<_>>().join("; "))
    })
}

/// The action.
pub struct Exec {
    arguments: ExecArguments,
    per: Per,
    world: Arc<World>,
    credds: StoreInCredd,
}

impl Exec {
    /// Over this world.
    pub fn new(arguments: ExecArguments, per: Per, world: Arc<World>) -> Self {
        Self { arguments, per, credds: StoreInCredd::new(Arc::clone(&world)), world }
    }

    fn command(&self, attempt: &Attempt) -> Command {
        let program = self.arguments.command.first().expect("`parse` refuses an empty command");
        let context = self.world.service(attempt.subject.as_ref());
        let mut command = match context {
            Some(context) => self.world.command_for(program, &context.service),
            None => self.world.command(program),
        };
        command = command.args(&self.arguments.command[1..]).env("MT_RUN", attempt.run.to_string());
        if !attempt.target.is_only() {
            command = command.env("MT_TARGET", attempt.target.as_str());
        }
        let Some(context) = context else { return command };
        let service = &context.service;
        command = command
            .env("MT_SERVICE", service.name.as_str())
            .env("MT_EXPERIMENT", service.experiment.as_str())
            .env("MT_ROLE", service.role.as_str())
            .env("MT_ACCOUNT", service.account.as_str());
        if let Some(uid) = context.uid {
            command = command.env("MT_UID", uid.to_string());
        }
        if let Some(token) = context.shared().token {
            command = command.env("MT_TOKEN_FILE", token.staged);
        }
        command
    }

    async fn run(&self, attempt: &Attempt) -> AttemptResult {
        let command = self.command(attempt);
        let program = command.program().to_string_lossy().into_owned();
        let ended = process::run(command, &attempt.cancel).await;
        let ended = ended.map_err(|error| not_run(error, TooSlow::local(EXEC_FAILED, "it took too long"), attempt))?;
        let (class, code, how) = match ended.exit {
            Exit::Code(0) => return Ok(Success::default()),
            Exit::Code(EX_TEMPFAIL) => {
                (Class::Transient, EXEC_TEMPORARY, format!("exit code {EX_TEMPFAIL}: try again later"))
            }
            Exit::Code(code) => (Class::Permanent, EXEC_FAILED, format!("exit code {code}")),
            Exit::Signal(signal) => (Class::Permanent, EXEC_FAILED, format!("signal {signal}")),
        };
        Err(Failure::new(class, code, format!("{program} ended with {how}")).with_output(ended.output))
    }
}

impl Action for Exec {
    fn info(&self) -> ActionInfo {
        self.arguments.info()
    }

    fn targets<'a>(
        &'a self,
        attempt: &'a Attempt,
        recorded: &'a [TargetName],
    ) -> BoxFuture<'a, Result<Vec<TargetName>, Failure>> {
        match self.per {
            Per::Subject => Box::pin(async { Ok(vec![TargetName::only()]) }),
            Per::Node => Box::pin(async { nodes(&self.world, attempt) }),
            Per::Credd => self.credds.targets(attempt, recorded),
        }
    }

    fn attempt<'a>(&'a self, attempt: &'a Attempt) -> BoxFuture<'a, AttemptResult> {
        Box::pin(self.run(attempt))
    }

    fn is_configured(&self, subject: Option<&Subject>, target: &TargetName) -> bool {
        match self.per {
            Per::Subject => true,
            Per::Node => is_node(&self.world, subject, target),
            Per::Credd => self.credds.is_configured(subject, target),
        }
    }
}
