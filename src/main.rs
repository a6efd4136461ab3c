//! Parses the command line, calls it, maps its error to an exit code: nothing else.

use std::process::ExitCode;

use managed_tokens::cli::{error, old_names, output};
use managed_tokens::telemetry::{logs, traces};
use managed_tokens::{private_dir, stderr};

fn main() -> ExitCode {
    private_dir::set_umask();
    private_dir::leave_no_core();
    #[cfg(feature = "failpoints")]
    managed_tokens::crash_point::arm();
    // SAFETY: this is the only thread.
    unsafe { traces::forget_environment() };
    if let Err(failed) = error::check_words(std::env::args_os()) {
        output::write_err(&format!("{}\n", failed.render()));
        return failed.exit.into();
    }
    let cli = match old_names::parse(std::env::args_os()) {
        Ok(cli) => cli,
        Err(mistake) => {
            // Help and version are no errors, and a reader that has gone away is none either.
            let _ = mistake.print();
            return ExitCode::from(u8::try_from(mistake.exit_code()).unwrap_or(2));
        }
    };
    logs::install(cli.verbosity());
    let _said = Said;
    match cli.execute() {
        Ok(code) => code.into(),
        Err(failed) => {
            tracing::error!(target: logs::FILES_ONLY, code = %failed.code, "{}", failed.message);
            output::write_err(&format!("{}\n", failed.render()));
            failed.exit.into()
        }
    }
}

/// Whatever ends `main`, a panic too: what was said is written.
struct Said;

impl Drop for Said {
    fn drop(&mut self) {
        logs::flush();
        stderr::finish();
    }
}
