//! stub
use super::error::Failed;
use super::exit::ExitCode;
use crate::acting::site::Global;
#[derive(Debug, Clone, clap::Subcommand)]
pub enum ServicesCommand {
    List,
}
pub fn run(_: &Global, _: &ServicesCommand) -> Result<ExitCode, Failed> {
    Ok(ExitCode::Success)
}
