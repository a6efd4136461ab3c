//! The pushgateway: one group, replaced as a whole by every run, so it always gets the whole set.
//!
//! The store keeps the last known samples of every workflow and subject. A run changes those of the subjects it has
//! worked on; what is pushed is made of all of them. So a run for one service, or the daily job, removes nobody's
//! series, and what is no longer configured is gone with the next push.
//!
//! | file | subject |
//! |---|---|
//! | `families` | the names: one table |
//! | `stored` | what is kept between runs |
//! | `samples` | from the state of a run to what is kept: pure |
//! | `render` | from what is kept to the text that is pushed: pure |
//! | `gateway` | that text, sent |
//! | `codes` | what can go wrong |

pub mod codes;
pub mod families;
pub mod gateway;
pub mod render;
pub mod samples;
pub mod stored;

#[cfg(test)]
mod tests;

pub use gateway::{Gateway, GatewayError, Replace};
pub use render::{Configured, Counts, render};
pub use samples::samples;
pub use stored::Stored;
