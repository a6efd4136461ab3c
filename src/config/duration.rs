//! Durations as Go writes them.

use std::time::Duration;

use crate::workflow::duration;

/// What a message says is expected.
pub(super) const EXPECTED: &str = r#"a duration such as "300s", "1m30s", "1.5h" or "500ms""#;
/// What a message says is expected of `minTokenLifetime`.
pub(super) const EXPECTED_LIFETIME: &str = r#"a lifetime as htgettoken reads it, such as "10s", "90m", "12h" or "3d""#;

/// Reads a Go duration: numbers with units, `1h2m3.5s`; also `0`. `None`: it is none, or it is negative, or longer than a year.
pub fn parse_duration(text: &str) -> Option<Duration> {
    // Go knows no days.
    if text.contains('d') { None } else { duration::parse(text).ok() }
}

/// Reads a lifetime as htgettoken does: a whole number and one of `s`, `m`, `h` and `d`. `None`: htgettoken refuses it.
pub fn parse_lifetime(text: &str) -> Option<Duration> {
    let unit = text.chars().last()?;
    let number = &text[..text.len() - unit.len_utf8()];
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return None,
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    number.parse::<u64>().ok()?.checked_mul(seconds).map(Duration::from_secs)
}

/// As the configuration would write it: `1m30s`.
pub fn show_duration(duration: Duration) -> String {
    duration::format(duration)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_go_reads() {
        let cases = [
            ("0", 0),
            ("0s", 0),
            ("300s", 300_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1h", 3_600_000_000_000),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("+5s", 5_000_000_000),
            ("100ms", 100_000_000),
            ("7us", 7_000),
            ("7µs", 7_000),
            ("7μs", 7_000),
            ("9ns", 9),
            ("1h1m1s1ms1us1ns", 3_661_001_001_001),
            ("8784h", 366 * 86_400 * 1_000_000_000),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_duration(text).map(|d| d.as_nanos()), Some(nanoseconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_and_what_makes_no_sense_here() {
        let refused =
            ["", "+", "30", "s", ".s", "1", "-5s", "5 s", "1x", "1d", "3d", "1h1", "1..5s", "1e3s", "５s", " 5s"];
        for text in refused.into_iter().chain(["8785h", "99999999999999999999999h"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn lifetimes_are_those_of_htgettoken() {
        assert_eq!(parse_lifetime("3d"), Some(Duration::from_secs(3 * 86_400)));
        assert_eq!(parse_lifetime("10s"), Some(Duration::from_secs(10)));
        assert_eq!(parse_lifetime("90m"), parse_lifetime("5400s"));
        for refused in ["", "0", "3", "d", "-1s", "+1s", "1w", "ä", "1d12h", "1.5h", "500ms", "99999999999999999999d"]
        {
            assert_eq!(parse_lifetime(refused), None, "{refused:?}");
        }
        assert_eq!(parse_duration("3d"), None, "days are for lifetimes alone");
    }

    #[test]
    fn what_is_shown_can_be_read() {
        for text in ["0s", "1s", "1m30s", "5m", "1h", "1h30m", "500ms", "1.5s", "1h1m1.000000001s", "100h0.25s"] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(parse_duration(&show_duration(duration)), Some(duration), "{text}");
        }
        assert_eq!(show_duration(Duration::from_secs(5_430)), "1h30m30s");
    }
}
