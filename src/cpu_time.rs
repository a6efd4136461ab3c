//! What work costs, for tests that compare two sizes of it: what else the machine does is no part of it.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// The processor time that this thread spends on it.
pub fn of(work: impl FnOnce()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).expect("every Linux has this clock"));
    let start = now();
    work();
    now() - start
}
