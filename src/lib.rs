//! `mt` keeps valid vault tokens on every destination node of every service, and can always say what it did.
//!
//! | module | subject |
//! |---|---|
//! | [`workflow`] | the engine: runs, machines, steps, targets, the store. It knows nothing of tokens |
//! | [`steps`] | what the shipped workflows do: one file per action |
//! | [`config`] | the configuration file, resolved into one [`config::Service`] per experiment and role |
//! | [`process`] | the only place that starts a child process |
//! | [`guardian`] | the parent of every acting `mt`: ends what is left when the worker dies |
//! | [`private_dir`] | directories that only we may enter, and where they are when there is no state directory |
//! | [`token_file`] | the only place that reads, writes or moves a token file |
//! | [`redact`] | secrets out of text that people or disks will see |
//! | [`stderr`] | the one way to stderr, which stops no run |
//! | [`notify`] | mail to the people who can mend what failed |
//! | [`telemetry`] | what is told of a run beside what people see: log files, Loki, the pushgateway, traces |
//! | [`cli`] | one file per subcommand; prints, never decides |
//! | [`crash_point`] | where tests end the process; nothing in a release |
//! | [`explain`] | what every error code means and what to do about it |

pub mod acting;
pub mod cli;
pub mod config;
#[cfg(test)]
mod cpu_time;
pub mod crash_point;
pub mod explain;
#[doc(hidden)]
pub mod fuzzing;
pub mod guardian;
mod http_error;
pub mod notify;
pub mod private_dir;
pub mod process;
pub mod redact;
pub mod stderr;
pub mod steps;
pub mod telemetry;
pub mod token_file;
pub mod workflow;
