//! What a command works from: the configuration and the state directory.

use std::path::PathBuf;

use crate::config::{self, Config, Environment};

/// Options that every command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Global {
    /// The configuration file [default: managedTokens.{json,yml,yaml,ron} in /etc/managed-tokens, ~/.managed-tokens, .]
    #[arg(short = 'c', long = "configfile", global = true, env = "MT_CONFIG", value_name = "FILE")]
    pub configfile: Option<PathBuf>,
    /// The state directory [default: the configuration's, else /var/lib/managed-tokens]
    #[arg(long, global = true, env = "MT_STATE_DIR", value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// What stdout gets
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: crate::cli::output::OutputFormat,
    /// Say more on stderr; twice for everything
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Site {
    /// The configuration.
    pub config: Config,
    /// What was taken from the process around it.
    pub environment: Environment,
    /// The state directory, not looked at yet.
    pub state_dir: PathBuf,
}

impl Site {
    /// Loads the configuration. Its warnings go to the log.
    pub fn load(global: &Global) -> Result<Self, config::LoadError> {
        let environment = Environment::of_process();
        let given = global.configfile.as_deref().filter(|path| !path.as_os_str().is_empty());
        let config = config::load(given, &environment)?;
        for warning in &config.warnings {
            tracing::warn!("{}", warning.render("warning"));
        }
        let state_dir = config.state_dir(global.state_dir.as_deref(), &environment);
        Ok(Self { config, environment, state_dir })
    }

    /// The state directory of a command that needs no configuration: where there is none, the given or the default one.
    pub fn state_dir(global: &Global) -> Result<PathBuf, config::LoadError> {
        match &global.state_dir {
            Some(given) => Ok(Environment::of_process().absolute(given)),
            None => Self::load(global).map(|site| site.state_dir),
        }
    }
}
