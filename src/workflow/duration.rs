//! Durations as people write them: `20s`, `1m30s`, `2h`, `500ms`.

use std::time::Duration;

const NANOS: &[(&str, u64)] = &[
    // Longest spelling first: `ms` before `m`.
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
    ("d", 86_400_000_000_000),
];

/// The longest duration that is taken: far more than any use, far less than what overflows a clock.
pub const LONGEST: Duration = Duration::from_secs(366 * 86_400);

/// Why a text is not a duration. Each message fits after "bad duration: ".
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadDuration {
    /// Nothing there.
    #[error("it is empty")]
    Empty,
    /// A minus sign.
    #[error("it is negative")]
    Negative,
    /// A number was due.
    #[error("a number is missing")]
    NoNumber,
    /// A number without a unit.
    #[error("a unit is missing after a number")]
    NoUnit,
    /// Letters that are no unit.
    #[error("it has an unknown unit")]
    UnknownUnit,
    /// Longer than [`LONGEST`].
    #[error("it is longer than a year")]
    TooLong,
}

/// Reads a duration as Go writes it: numbers, with a fraction if need be, each with its unit (`ns`, `us`, `ms`, `s`, `m`,
/// `h`) and no space between; `d` (24 hours) is ours. A lone `0` needs no unit.
pub fn parse(text: &str) -> Result<Duration, BadDuration> {
    if text.is_empty() {
        return Err(BadDuration::Empty);
    }
    if text.starts_with('-') {
        return Err(BadDuration::Negative);
    }
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Ok(Duration::ZERO);
    }
    if rest.is_empty() {
        return Err(BadDuration::NoNumber);
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let (whole, after) = digits(rest);
        let (fraction, after) = match after.strip_prefix('.') {
            Some(after) => digits(after),
            None => ("", after),
        };
        if whole.is_empty() && fraction.is_empty() {
            return Err(BadDuration::NoNumber);
        }
        let unit_end = after.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(after.len());
        let (unit, after) = after.split_at(unit_end);
        if unit.is_empty() {
            return Err(BadDuration::NoUnit);
        }
        let Some(&(_, nanos)) = NANOS.iter().find(|(name, _)| *name == unit) else {
            return Err(BadDuration::UnknownUnit);
        };
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| BadDuration::TooLong)? };
        let nanos = u128::from(nanos);
        let mut part = whole.checked_mul(nanos).ok_or(BadDuration::TooLong)?;
        let mut place = nanos;
        for digit in fraction.bytes() {
            place /= 10;
            part += u128::from(digit - b'0') * place;
        }
        total = total.checked_add(part).ok_or(BadDuration::TooLong)?;
        if total > LONGEST.as_nanos() {
            return Err(BadDuration::TooLong);
        }
        rest = after;
    }
    let seconds = u64::try_from(total / 1_000_000_000).map_err(|_| BadDuration::TooLong)?;
    let nanos = u32::try_from(total % 1_000_000_000).map_err(|_| BadDuration::TooLong)?;
    Ok(Duration::new(seconds, nanos))
}

fn digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes a duration the way [`parse`] reads it, in the fewest words: `5m`, `4m30s`, `1h`, `1.5s`, `500ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds == 0 {
        let nanos = duration.subsec_nanos();
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000 => format!("{nanos}ns"),
            1_000..1_000_000 => format!("{}us", decimal(u64::from(nanos / 1_000), nanos % 1_000, 3)),
            _ => format!("{}ms", decimal(u64::from(nanos / 1_000_000), nanos % 1_000_000, 6)),
        };
    }
    let (hours, minutes, rest) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let mut text = String::new();
    if hours > 0 {
        text.push_str(&format!("{hours}h"));
    }
    if minutes > 0 {
        text.push_str(&format!("{minutes}m"));
    }
    if rest > 0 || duration.subsec_nanos() > 0 {
        text.push_str(&format!("{}s", decimal(rest, duration.subsec_nanos(), 9)));
    }
    text
}

fn decimal(whole: u64, fraction: u32, places: usize) -> String {
    if fraction == 0 {
        return whole.to_string();
    }
    let digits = format!("{fraction:0places$}");
    format!("{whole}.{}", digits.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_what_go_reads() {
        for (text, millis) in [
            ("20s", 20_000),
            ("1m30s", 90_000),
            ("2h", 7_200_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            (".5s", 500),
            ("0", 0),
            ("+3s", 3_000),
            ("1h0m1s", 3_601_000),
            ("30d", 2_592_000_000),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse("7µs"), Ok(Duration::from_micros(7)));
    }

    #[test]
    fn says_what_is_wrong_with_the_rest() {
        for (text, why) in [
            ("", BadDuration::Empty),
            ("-1s", BadDuration::Negative),
            ("s", BadDuration::NoNumber),
            ("+", BadDuration::NoNumber),
            (".s", BadDuration::NoNumber),
            ("20", BadDuration::NoUnit),
            ("1m30", BadDuration::NoUnit),
            ("20 s", BadDuration::UnknownUnit),
            ("2 weeks", BadDuration::UnknownUnit),
            ("1s ", BadDuration::UnknownUnit),
            ("9999999h", BadDuration::TooLong),
            ("99999999999999999999999999999999999999999999999h", BadDuration::TooLong),
        ] {
            assert_eq!(parse(text), Err(why), "{text}");
        }
    }

    #[test]
    fn writes_the_shortest_spelling() {
        for text in ["5m", "4m30s", "1h", "1h1s", "1.5s", "500ms", "1.25ms", "3us", "7ns", "0s", "26h"] {
            assert_eq!(format(parse(text).unwrap()), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(seconds in 0..LONGEST.as_secs(), nanos in 0..1_000_000_000u32) {
            let duration = Duration::new(seconds, nanos);
            prop_assert_eq!(parse(&format(duration)), Ok(duration));
        }

        #[test]
        fn no_text_makes_it_panic(text in "[-+]?[0-9.]{0,40}[a-zµ ]{0,3}[0-9.]{0,5}[a-zµ]{0,2}|.*") {
            let _ = parse(&text);
        }
    }
}
