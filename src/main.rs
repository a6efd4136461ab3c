//! Parses the command line, calls it, maps its error to an exit code: nothing else.

use std::process::ExitCode;

use clap::Parser;
use managed_tokens::cli::{Cli, output};
use managed_tokens::private_dir;

fn main() -> ExitCode {
    private_dir::set_umask();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and a reader that has gone away is none either.
            let _ = error.print();
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2));
        }
    };
    log_to_stderr(cli.verbosity());
    match cli.execute() {
        Ok(code) => code.into(),
        Err(failed) => {
            output::write_err(&format!("{}\n", failed.render()));
            failed.exit.into()
        }
    }
}

/// Quiet when all is well: warnings and errors, unless asked for more by `-v` or `MT_LOG`.
fn log_to_stderr(verbosity: u8) {
    use tracing_subscriber::EnvFilter;
    let default = match verbosity {
        0 => "warn",
        1 => "info",
        _ => "debug,hyper=info,reqwest=info,rustls=info,sled=info",
    };
    let filter = EnvFilter::try_from_env("MT_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
}
