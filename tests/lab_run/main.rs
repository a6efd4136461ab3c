//! `mt run` and `mt runs` against the real laboratory: what is recorded, what overlaps, what is resumed, what stops.
//!
//! One laboratory for all that disturb nobody; each test has a corner of its own in it. Tests that set faults have a
//! laboratory of their own.

use std::sync::LazyLock;

use support::lab::Lab;

#[path = "../support/mod.rs"]
mod support;

mod edited;
mod many;
mod modes;
mod overlap;
mod record;
mod resume;
mod signals;
mod together;
mod unusable;

/// The shared laboratory. It goes down with the test process, which a watcher outside sees to.
static LAB: LazyLock<Option<Lab>> = LazyLock::new(Lab::up);

const DUNE: &str = "dune_production";
const MU2E: &str = "mu2e_production";
const NODE1: &str = "node1.lab.test";
const NODE2: &str = "node2.lab.test";
