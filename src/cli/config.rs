//! stub
use super::error::Failed;
use super::exit::ExitCode;
use crate::acting::site::Global;
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ConfigCommand {
    Check,
}
pub fn run(_: &Global, _: &ConfigCommand) -> Result<ExitCode, Failed> {
    Ok(ExitCode::Success)
}
