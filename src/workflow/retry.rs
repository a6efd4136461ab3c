//! How long to wait before the next try.

use std::time::Duration;

use super::action::Failure;
use super::definition::Retry;

/// Should this failed attempt be followed by another? `number` counts from 1.
pub fn try_again(retry: Retry, number: u32, failure: &Failure) -> bool {
    failure.class.is_retried() && !failure.last && number <= retry.times
}

/// The pause after attempt `number` (from 1): doubling from the first to the longest pause, then shortened by up to a
/// quarter so that many targets that failed together do not come back together. `jitter` lies in 0..1.
pub fn pause(retry: Retry, number: u32, jitter: f64) -> Duration {
    let (first, longest) = retry.backoff;
    let doubled = first.saturating_mul(2_u32.saturating_pow(number.saturating_sub(1).min(20)));
    doubled.min(longest.max(first)).mul_f64(1.0 - 0.25 * jitter.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::super::action::Class;
    use super::super::code::Code;
    use super::*;

    const RETRY: Retry = Retry { times: 3, backoff: (Duration::from_secs(2), Duration::from_secs(15)) };

    #[test]
    fn pauses_double_up_to_the_longest() {
        let pauses: Vec<u64> = (1..=5).map(|n| pause(RETRY, n, 0.0).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 15, 15]);
    }

    #[test]
    fn jitter_only_shortens_and_by_a_quarter_at_most() {
        for n in 1..=5 {
            let (full, short) = (pause(RETRY, n, 0.0), pause(RETRY, n, 1.0));
            assert!(short < full && short >= full.mul_f64(0.749), "{short:?} {full:?}");
        }
    }

    #[test]
    fn only_what_may_go_away_is_tried_again_and_only_so_often() {
        for &class in Class::ALL {
            let failure = Failure::new(class, Code(1), "x");
            let retried = matches!(class, Class::Transient | Class::Timeout);
            assert_eq!(try_again(RETRY, 3, &failure), retried, "{class:?}");
            assert!(!try_again(RETRY, 4, &failure), "{class:?}");
            assert!(!try_again(RETRY, 1, &Failure { last: true, ..failure }), "{class:?}");
        }
    }
}
