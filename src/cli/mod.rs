//! The command line: one file per subcommand, and what they print. Prints, never decides.
//!
//! Everything that people or programs read is made by pure functions from values to text, so that it can be
//! compared with snapshots without a store, a clock or a terminal.

pub mod config;
pub mod error;
pub mod exit;
pub mod explain;
pub mod explain_resume;
pub mod output;
pub mod progress;
pub mod runs_list;
pub mod runs_show;
pub mod services;
pub mod summary;
pub mod time;
pub mod workflow;

#[cfg(test)]
pub(crate) mod samples;
