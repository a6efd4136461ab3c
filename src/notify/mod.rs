//! Telling people: which messages a run has to send, what they say, how they go out.
//!
//! | file | subject |
//! |---|---|
//! | `due` | what people are to be told |
//! | `delivery` | what was sent, for the metrics |
//! | `words`, `templates`, `sample` | the words of a message, shipped or a site's own |
//! | `prepare`, `outbox` | messages that wait, and where they wait |
//! | `mail`, `smtp` | a mail, and the conversation with the mail server |
//! | `slack` | a message to Slack |
//! | `roots` | whom we trust over TLS |
//! | `codes` | the numbers of what can go wrong |

pub mod codes;
pub mod delivery;
pub mod due;
pub mod mail;
pub mod outbox;
pub mod prepare;
pub mod roots;
mod sample;
pub mod slack;
pub mod smtp;
pub mod templates;
pub mod words;

pub use delivery::{Deliveries, Delivery, Recipient};
pub use due::{DueCounter, Kind, News, Trouble};
pub use outbox::{Channel, Group, Outbox, OutboxEntry, OutboxError, OutboxStatus, Report};
pub use prepare::{Envelope, prepare};
pub use templates::Templates;

#[cfg(test)]
mod tests;
