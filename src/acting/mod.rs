//! What commands that act have in common, from the configuration to the last record of a session.
//!
//! | file | subject |
//! |---|---|
//! | `site` | the configuration and the state directory |
//! | `worker` | from a command to a guarded process with private directories |
//! | `launch` | which run a worker makes, or goes on with |
//! | `drive`, `ending` | one session of it; what follows when its work is done |
//! | `effective` | the configuration's values laid over the workflow's |
//! | `subjects` | what machines are made for |
//! | `history`, `uids` | what a session takes from earlier ones |
//! | `takeover` | the existing service's UIDs and error counters, taken over once |
//! | `uid_book` | where ferry-refresh keeps what it has learnt |
//! | `addressees`, `reports`, `account_reports`, `reasons` | who is told what, and why |
//! | `outbox`, `told` | what people are told, kept in the store; who has been told |
//! | `trouble` | what people are told when no run could begin |
//! | `metrics` | what the pushgateway is told at the end |
//! | `explain` | a session that is only thought through |
//! | `here`, `signals`, `log` | this process, what stops it, what it says |

pub mod account_reports;
pub mod addressees;
pub mod drive;
pub mod effective;
pub mod ending;
pub mod explain;
pub mod here;
pub mod history;
pub mod launch;
pub mod log;
pub mod metrics;
pub mod outbox;
pub mod reasons;
pub mod reports;
pub mod signals;
pub mod site;
pub mod subjects;
pub mod takeover;
pub mod told;
pub mod trouble;
pub mod uid_book;
pub mod uids;
pub mod worker;
