//! What machines are told of a run when it has ended.
//!
//! | module | subject |
//! |---|---|
//! | [`metrics`] | the pushgateway |

use std::time::Duration;

pub mod metrics;

/// All that follows a session to the outside, taken together, ends after this long: what has not gone out is given up.
pub const BUDGET: Duration = Duration::from_secs(5);
