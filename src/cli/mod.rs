//! The command line: one file per subcommand, and what they print. Prints, never decides.
//!
//! Everything that people or programs read is made by pure functions from values to text, so that it can be
//! compared with snapshots without a store, a clock or a terminal.

pub mod config;
pub mod counters;
pub mod dry_run;
pub mod error;
pub mod exit;
pub mod explain;
pub mod explain_resume;
pub mod old_names;
pub mod output;
pub mod progress;
pub mod resume;
pub mod run;
pub mod runs;
pub mod runs_list;
pub mod runs_show;
pub mod services;
pub mod store;
pub mod summary;
pub mod time;
pub mod uids;
pub mod workflow;

#[cfg(test)]
pub(crate) mod samples;

use clap::{CommandFactory, Parser, Subcommand};

use crate::acting::effective::overrides;
use crate::acting::site::{Global, Site};
use crate::config::{Environment, LoadError};
use error::{Failed, codes};
use exit::ExitCode;

/// Keeps valid vault tokens on every destination node of every service, and can always say what it did.
#[derive(Debug, Parser)]
#[command(name = "mt", version, propagate_version = true, disable_help_subcommand = false, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a workflow
    Run(run::RunArgs),
    /// Runs: list, show, resume, cancel, prune
    #[command(subcommand)]
    Runs(runs::RunsCommand),
    /// Workflows: list, show, check
    #[command(subcommand)]
    Workflow(workflow::WorkflowCommand),
    /// Configured services: list, show
    #[command(subcommand)]
    Services(services::ServicesCommand),
    /// The configuration: check, show
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// UIDs of accounts: list, set
    #[command(subcommand)]
    Uids(uids::UidsCommand),
    /// Errors in a row: list, reset
    #[command(subcommand)]
    Counters(counters::CountersCommand),
    /// The store itself: verify, export, import, compact
    #[command(subcommand)]
    Store(store::StoreCommand),
    /// What an error code means and what to do about it
    Explain(explain::ExplainArgs),
    /// Completions for a shell, on stdout
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// The manual page, on stdout
    Man,
    /// `token-push --list-services`
    #[command(hide = true)]
    ListServiceNames,
}

impl Cli {
    /// How much is said on stderr: 0 quiet, 1 more, 2 everything.
    pub fn verbosity(&self) -> u8 {
        self.global.verbose
    }

    /// Does what was asked.
    pub fn execute(&self) -> Result<ExitCode, Failed> {
        let global = &self.global;
        match &self.command {
            Command::Run(args) => run::run(global, args),
            Command::Runs(command) => runs::run(global, command),
            Command::Workflow(command) => {
                let library = crate::steps::catalog::library();
                let overrides = Site::load(global).map(|site| overrides(&site.config)).map_err(|e| e.to_string());
                let around = workflow::Around {
                    library: &library,
                    catalog: &crate::steps::catalog::ShippedActions,
                    overrides,
                    colour: output::Style::stdout().colour,
                    output: global.output,
                };
                printed(|out, err| workflow::run(command, &around, out, err))
            }
            Command::Services(command) => {
                let environment = Environment::of_process();
                printed(|out, err| services::run(command, &about_configuration(global, &environment), out, err))
            }
            Command::Config(command) => {
                let environment = Environment::of_process();
                printed(|out, err| config::run(*command, &about_configuration(global, &environment), out, err))
            }
            Command::Uids(command) => uids::run(global, command),
            Command::ListServiceNames => old_names::list_service_names(global),
            Command::Counters(command) => counters::run(global, command),
            Command::Store(command) => store::run(global, command),
            Command::Explain(args) => printed(|out, err| explain::run(args, out, err)),
            Command::Completions { shell } => {
                let mut text = Vec::new();
                clap_complete::generate(*shell, &mut Self::command(), "mt", &mut text);
                runs::print(&String::from_utf8_lossy(&text))?;
                Ok(ExitCode::Success)
            }
            Command::Man => {
                let mut text = Vec::new();
                clap_mangen::Man::new(Self::command())
                    .render(&mut text)
                    .map_err(|e| Failed::new(codes::UNEXPECTED, format!("cannot make the manual page: {e}")))?;
                runs::print(&String::from_utf8_lossy(&text))?;
                Ok(ExitCode::Success)
            }
        }
    }
}

fn about_configuration<'a>(global: &'a Global, environment: &'a Environment) -> config::Around<'a> {
    config::Around {
        configfile: global.configfile.as_deref(),
        environment,
        output: global.output,
        style: output::Style::stdout(),
    }
}

/// A configuration error as a command prints it.
pub fn of_config(error: &LoadError) -> Failed {
    let message = match error {
        LoadError::Invalid { .. } => error.render(),
        LoadError::NotFound { .. } | LoadError::Unreadable { .. } | LoadError::UnknownFormat { .. } => {
            error.to_string()
        }
    };
    Failed::new(error.code(), message).exit(ExitCode::Invalid)
}

/// A runtime for one short wait.
pub fn small_runtime() -> Result<tokio::runtime::Runtime, Failed> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failed::new(codes::UNEXPECTED, format!("cannot start the runtime: {e}")))
}

/// A command that writes to two streams and says its exit code.
fn printed(
    command: impl FnOnce(&mut dyn std::io::Write, &mut dyn std::io::Write) -> std::io::Result<u8>,
) -> Result<ExitCode, Failed> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let number =
        command(&mut out, &mut err).map_err(|e| Failed::new(codes::UNEXPECTED, format!("cannot print: {e}")))?;
    output::write_err(&String::from_utf8_lossy(&err));
    runs::print(&String::from_utf8_lossy(&out))?;
    Ok(ExitCode::of_number(number).unwrap_or(ExitCode::Unexpected))
}
