//! What goes wrong in the real laboratory, and what `mt` makes of it: class, message, exit code, and nobody else delayed.
//!
//! | file | subject |
//! |---|---|
//! | `table` | THE table: every peer times every fault |
//! | `judge` | what each cell is judged by |
//! | `beside` | plays services that meet a fault while others are well |
//! | `outage` | plays services paused, killed and stood in front of: everybody meets the fault |
//! | `mails` | plays a mail server that does not work; and who is told |
//! | `side` | plays pushgateway, Slack, Loki and trace collector |
//! | `ferry` | plays FERRY |
//! | `page` | what `mt runs show` says of it |
//! | `docs` | `docs/reliability.md` is the table |

use std::sync::LazyLock;

use support::lab::Lab;

#[path = "../support/mod.rs"]
mod support;

mod beside;
mod docs;
mod ferry;
mod judge;
mod mails;
mod outage;
mod page;
mod side;
mod table;

/// For faults that only the service that asks for them meets.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

/// The service that is well. Its name comes after those of all that hang: in a line it would stand behind them.
const HEALTHY: &str = "well_production";

/// Seconds that a step may take. A fault that hangs takes as long; a healthy service must get through meanwhile. That is a
/// question of order, true for any time, unless the machine is so busy that the healthy service cannot work: then a longer
/// time is tried. All are less than what kinit (27 s) and ssh (ConnectTimeout, 30 s) have of their own: as shipped, a
/// step's time is over first.
const TIMES: &[u32] = &[6, 12, 24];
/// The same where neither of the two is to be ended.
const LONG_TIMES: &[u32] = &[6, 20, 60];
