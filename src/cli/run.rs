//! `mt run`, and what all commands that act share.

use std::collections::BTreeSet;

use clap::Args;

use super::error::{Failed, codes};
use super::exit::ExitCode;
use super::output::Style;
use crate::acting::effective::overrides;
use crate::acting::launch::{Launcher, Notices, Order};
use crate::acting::site::{Global, Site};
use crate::acting::trouble::{Admins, COULD_NOT_BEGIN};
use crate::acting::worker::{Worker, runtime};
use crate::config::{Service, is_mail_address};
use crate::stderr;
use crate::steps::catalog::{ShippedActions, library};
use crate::steps::ferry::AuthMethod;
use crate::workflow::definition::{Diagnostic, ForEach, Mode, Workflow, effective, render};
use crate::workflow::event::Selection;

/// `mt run`
#[derive(Clone, Debug, Args)]
pub struct RunArgs {
    /// The workflow's name, or a file
    workflow: String,
    /// This service only; may be given several times
    #[arg(short, long = "service", value_name = "SERVICE")]
    services: Vec<String>,
    /// The services of this experiment only; may be given several times
    #[arg(short, long = "experiment", value_name = "EXPERIMENT")]
    experiments: Vec<String>,
    /// Get credentials and touch no node; every error goes to the test recipients
    #[arg(long, conflicts_with = "onboard")]
    test: bool,
    /// A person authenticates for one service (-s), on this terminal
    #[arg(long)]
    onboard: bool,
    /// With --onboard: push the token, too
    #[arg(long, requires = "onboard")]
    push: bool,
    /// Say what would be done, and do nothing
    #[arg(long)]
    dry_run: bool,
    /// Start a new run, even if one that was cut off could be resumed
    #[arg(long)]
    new: bool,
    /// ferry-refresh: how FERRY learns who we are [default: tls]
    #[arg(long, value_enum, value_name = "METHOD")]
    authmethod: Option<AuthMethod>,
    #[command(flatten)]
    notices: NoticeArgs,
    #[command(flatten)]
    sending: SendingArgs,
}

/// What is sent beside messages.
#[derive(Clone, Debug, Args)]
pub struct SendingArgs {
    /// Send no lines of the log to Loki
    #[arg(long)]
    no_loki: bool,
}

impl SendingArgs {
    pub(super) fn apply(&self, site: &mut Site) {
        if self.no_loki {
            site.config.loki = None;
        }
    }
}

/// Who is told.
#[derive(Clone, Debug, Args)]
pub struct NoticeArgs {
    /// Tell nobody; errors go on being counted
    #[arg(long)]
    no_notify: bool,
    /// Tell this address instead of the configured admins
    #[arg(long, value_name = "ADDR", value_parser = mail_address)]
    admin: Option<String>,
}

/// Before anything is done: afterwards there would be nobody to tell.
fn mail_address(text: &str) -> Result<String, String> {
    match is_mail_address(text) {
        true => Ok(text.to_owned()),
        false => Err("not a mail address".to_owned()),
    }
}

impl From<&NoticeArgs> for Notices {
    fn from(args: &NoticeArgs) -> Self {
        Self { off: args.no_notify, admin: args.admin.clone() }
    }
}

/// `mt run`
pub fn run(global: &Global, args: &RunArgs) -> Result<ExitCode, Failed> {
    if !args.dry_run {
        stderr::hold();
    }
    let notices = Notices::from(&args.notices);
    // Who tries something out is not to call the admins.
    let usual = !(args.test || args.onboard || args.dry_run);
    let mut site = Site::load(global).map_err(|error| {
        let failed = super::of_config(&error);
        if usual {
            Admins::of_error(&error, &notices).tell(&args.workflow, COULD_NOT_BEGIN, &failed);
        }
        failed
    })?;
    args.sending.apply(&mut site);
    let workflow = in_force(&site, &args.workflow).inspect_err(|failed| {
        if usual && failed.code != codes::NO_SUCH_WORKFLOW {
            Admins::of_config(&site.config, &notices).tell(&args.workflow, COULD_NOT_BEGIN, failed);
        }
    })?;
    fits(args, &workflow)?;
    let selected = site.config.select(&args.services, &args.experiments).map_err(|e| {
        Failed::new(codes::NO_SUCH_SERVICE, e.to_string()).next("mt services list").exit(ExitCode::Usage)
    })?;
    let services: Vec<Service> = selected.into_iter().cloned().collect();
    let mode = match (args.test, args.onboard, args.push) {
        (true, _, _) => Mode::Test,
        (false, false, _) => Mode::Normal,
        (false, true, false) => Mode::Onboard,
        (false, true, true) => Mode::OnboardPush,
    };
    if args.onboard && args.services.len() != 1 {
        return Err(Failed::new(codes::USAGE, "--onboard works for one service at a time")
            .next(format!("mt run {} --onboard -s SERVICE", args.workflow))
            .exit(ExitCode::Usage));
    }
    if args.dry_run {
        return super::dry_run::print(global, &site, &workflow, &services, mode);
    }
    let order = Order { workflow, selection: selection(args), services, mode, fresh: args.new, notices };
    let worker = Worker::enter(&site.state_dir)?;
    act(async {
        let launcher = Launcher::new(site, worker).await?;
        let code = launcher.start(order).await;
        launcher.leave();
        code
    })
}

/// Not every argument means something to every workflow.
fn fits(args: &RunArgs, workflow: &Workflow) -> Result<(), Failed> {
    let unfit = match workflow.for_each {
        ForEach::Service => args.authmethod.map(|_| "--authmethod is for workflows that work for accounts"),
        ForEach::Account => args.onboard.then_some("--onboard is for workflows that work for services"),
    };
    match unfit {
        None => Ok(()),
        Some(why) => {
            let message = format!("{} cannot run like this: {why}", workflow.name);
            Err(Failed::new(codes::USAGE, message).next("mt run --help").exit(ExitCode::Usage))
        }
    }
}

/// Runs the work on a runtime of its own. When it has ended, nothing is waited for any more, such as a look at a file server
/// that hangs.
pub(super) fn act(work: impl Future<Output = Result<ExitCode, Failed>>) -> Result<ExitCode, Failed> {
    let runtime = runtime()?;
    let code = runtime.block_on(work);
    runtime.shutdown_background();
    code
}

/// The selecting arguments, sorted and without repetition.
fn selection(args: &RunArgs) -> Selection {
    let sorted = |names: &[String]| {
        let names: BTreeSet<String> = names.iter().map(|n| n.to_lowercase()).collect();
        names.into_iter().collect()
    };
    let options = args.authmethod.and_then(AuthMethod::as_option).map(str::to_owned);
    Selection {
        services: sorted(&args.services),
        experiments: sorted(&args.experiments),
        shard: None,
        options: options.into_iter().collect(),
    }
}

/// The workflow of that name with the configuration's values.
pub(super) fn in_force(site: &Site, name: &str) -> Result<Workflow, Failed> {
    let found = library().find(name).map_err(|d| of_diagnostics(&[d]))?;
    let (workflow, warnings) = found.parse(&ShippedActions).map_err(|ds| of_diagnostics(&ds))?;
    warn(&warnings);
    let effective = effective(&workflow, &overrides(&site.config), &found.file);
    for warning in &effective.warnings {
        tracing::info!(code = %warning.code, "{}: {}", warning.file, warning.message);
    }
    Ok(effective.workflow)
}

fn warn(warnings: &[Diagnostic]) {
    for warning in warnings {
        tracing::warn!(code = %warning.code, "{}: {}", warning.file, warning.message);
    }
}

pub(super) fn of_diagnostics(diagnostics: &[Diagnostic]) -> Failed {
    let code = diagnostics.iter().find(|d| d.is_error()).map_or(codes::NO_SUCH_WORKFLOW, |d| d.code);
    Failed::new(code, render(diagnostics, Style::stderr().colour)).exit(ExitCode::Invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_hangs_in_the_kernel_does_not_keep_the_command_from_its_end() {
        let (free, held) = std::sync::mpsc::channel::<()>();
        let code = act(async {
            drop(tokio::task::spawn_blocking(move || held.recv()));
            Ok(ExitCode::Success)
        });
        assert_eq!(code.unwrap(), ExitCode::Success);
        drop(free);
    }
}
