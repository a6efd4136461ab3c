//! Durations as Go writes them.

use std::time::Duration;

/// What a message says is expected.
pub(super) const EXPECTED: &str = r#"a duration such as "300s", "1m30s", "1.5h" or "500ms""#;
/// What a message says is expected of `minTokenLifetime`.
pub(super) const EXPECTED_LIFETIME: &str = r#"a lifetime such as "10s", "90m", "12h" or "3d""#;

const NANOSECONDS: &[(&str, u128)] = &[
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60 * 1_000_000_000),
    ("h", 3_600 * 1_000_000_000),
];
const DAY: (&str, u128) = ("d", 24 * 3_600 * 1_000_000_000);

/// Reads a Go duration: numbers with units, `1h2m3.5s`; also `0`. `None`: it is none, or it is negative, or longer
/// than Go's longest (292 years).
pub fn parse_duration(text: &str) -> Option<Duration> {
    parse(text, NANOSECONDS)
}

/// Like [`parse_duration`], with `d` for days.
pub(super) fn parse_lifetime(text: &str) -> Option<Duration> {
    let units: Vec<_> = NANOSECONDS.iter().copied().chain([DAY]).collect();
    parse(text, &units)
}

fn parse(text: &str, units: &[(&str, u128)]) -> Option<Duration> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, after) = rest.split_at(number_end);
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        let (_, nanoseconds) = units.iter().find(|(name, _)| *name == unit)?;
        total = total.checked_add(scaled(number, *nanoseconds)?)?;
        rest = after;
    }
    i64::try_from(total).ok()?;
    Some(Duration::new(u64::try_from(total / 1_000_000_000).ok()?, u32::try_from(total % 1_000_000_000).ok()?))
}

/// `1.5` times the unit, in whole nanoseconds.
fn scaled(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') || whole.len() > 20 {
        return None;
    }
    // Digits beyond the 18th are less than a nanosecond of an hour.
    let fraction = &fraction[..fraction.len().min(18)];
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    let power = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)?.checked_mul(unit)? / power)
}

/// As the configuration would write it: `1m30s`.
pub fn show_duration(duration: Duration) -> String {
    let (seconds, nanoseconds) = (duration.as_secs(), duration.subsec_nanos());
    if duration.is_zero() {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, length) in [("h", 3_600), ("m", 60)] {
        let count = seconds / length % if unit == "m" { 60 } else { u64::MAX };
        if count > 0 {
            text += &format!("{count}{unit}");
        }
    }
    match (seconds % 60, nanoseconds) {
        (0, 0) => {}
        (rest, 0) => text += &format!("{rest}s"),
        (0, nanos) if nanos % 1_000_000 == 0 => text += &format!("{}ms", nanos / 1_000_000),
        (rest, nanos) => text += format!("{rest}.{nanos:09}").trim_end_matches('0').to_owned().as_str(),
    }
    if text.ends_with(|c: char| c.is_ascii_digit()) { text + "s" } else { text }
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
            ("2562047h47m16.854775807s", i64::MAX as u128),
        ];
        for (text, nanoseconds) in cases {
            assert_eq!(parse_duration(text).map(|d| d.as_nanos()), Some(nanoseconds), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses_and_what_makes_no_sense_here() {
        let refused =
            ["", "+", "30", "s", ".s", "1", "-5s", "5 s", "1x", "1d", "3d", "1h1", "1..5s", "1e3s", "５s", " 5s"];
        for text in refused.into_iter().chain(["2562048h", "99999999999999999999999h"]) {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn days_are_for_lifetimes_only() {
        assert_eq!(parse_lifetime("3d"), Some(Duration::from_secs(3 * 86_400)));
        assert_eq!(parse_lifetime("1d12h"), Some(Duration::from_secs(36 * 3_600)));
        assert_eq!(parse_duration("3d"), None);
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
