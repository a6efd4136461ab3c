//! What is told of a run beside what people see of it.
//!
//! | module | subject |
//! |---|---|
//! | [`logs`] | the log files, and Loki |
//! | [`metrics`] | the pushgateway |
//! | [`traces`] | a trace collector |

use std::time::Duration;

mod http;
pub mod logs;
pub mod metrics;
pub mod traces;

/// All that follows a session to the outside, taken together, ends after this long: what has not gone out is given up.
pub const BUDGET: Duration = Duration::from_secs(5);
