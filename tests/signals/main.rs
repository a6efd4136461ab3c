//! Signals and deadlines on real runs: every way to end an `mt`, at every step, and children that do not want to end.
//!
//! | file | subject |
//! |---|---|
//! | `table` | what each signal does: status, exit code, and that the run can be resumed |
//! | `case` | one signal at one step of one run |
//! | `held` | what holds the step up meanwhile |
//! | `starting` | signals before the work begins |
//! | `stubborn` | children that ignore, flood, hide or multiply, at the deadline |

use std::sync::LazyLock;

use support::lab::Lab;

#[path = "../support/mod.rs"]
mod support;

mod case;
mod held;
mod starting;
mod stubborn;
mod table;

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

const DUNE: &str = "dune_production";
