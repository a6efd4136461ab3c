//! Telling people: which mails a run has to send, what they say, how they go out.
//!
//! | file | subject |
//! |---|---|
//! | `due` | what people are to be told |
//! | `delivery` | what was sent, for the metrics |
//! | `render` | the words of a mail |
//! | `outbox` | mails that wait, and where they wait |
//! | `mail` | one mail to one server |

pub mod delivery;
pub mod due;
pub mod mail;
pub mod outbox;
pub mod render;

pub use delivery::{Deliveries, Delivery, Recipient};
pub use due::{DueCounter, Kind};
pub use outbox::{Outbox, OutboxEntry, OutboxError, OutboxStatus, prepare};

#[cfg(test)]
mod tests;
