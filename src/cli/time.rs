//! Times and durations as people and programs read them. The present is passed in, so that every text can be tested.

use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// The present, and the zone in which people are told times of day.
#[derive(Clone, Debug)]
pub struct Clock {
    /// Now.
    pub now: Timestamp,
    /// The reader's zone.
    pub zone: TimeZone,
}

impl Clock {
    /// The system's clock, read once, and its zone.
    pub fn system() -> Self {
        Self { now: Timestamp::now(), zone: TimeZone::system() }
    }

    /// How long ago it was: `40 s ago`, `2 min ago`, `1 h ago`, `3 d ago`. A time ahead of ours (clocks differ) is `just now`.
    pub fn ago(&self, at: Timestamp) -> String {
        let seconds = between(at, self.now).as_secs();
        match seconds {
            0..5 => "just now".to_owned(),
            5..60 => format!("{seconds} s ago"),
            60..3_600 => format!("{} min ago", seconds / 60),
            3_600..172_800 => format!("{} h ago", seconds / 3_600),
            172_800.. => format!("{} d ago", seconds / 86_400),
        }
    }

    /// The time of day to the second: `13:58:00`, with the date if it was not today.
    pub fn time(&self, at: Timestamp) -> String {
        self.format(at, "%H:%M:%S")
    }

    /// The time of day to the minute: `11:58`, with the date if it was not today.
    pub fn minute(&self, at: Timestamp) -> String {
        self.format(at, "%H:%M")
    }

    /// The time of day to the millisecond, for histories, with the date if it was not today.
    pub fn millisecond(&self, at: Timestamp) -> String {
        self.format(at, "%H:%M:%S%.3f")
    }

    fn format(&self, at: Timestamp, time: &str) -> String {
        let local = at.to_zoned(self.zone.clone());
        if local.date() == self.now.to_zoned(self.zone.clone()).date() {
            local.strftime(time).to_string()
        } else {
            local.strftime(&format!("%Y-%m-%d {time}")).to_string()
        }
    }
}

/// From one time to a later one; zero if it is not later.
pub fn between(from: Timestamp, to: Timestamp) -> Duration {
    Duration::try_from(to.duration_since(from)).unwrap_or(Duration::ZERO)
}

/// How long something took: `12ms`, `8.1s`, `5m00s`, `3h 12m`, `6d 22h`. Rounded to what is shown.
pub fn duration(took: Duration) -> String {
    let milliseconds = took.as_millis();
    let tenths = (milliseconds + 50) / 100;
    let seconds = (milliseconds + 500) / 1_000;
    let minutes = seconds / 60;
    if milliseconds < 100 {
        format!("{milliseconds}ms")
    } else if tenths < 600 {
        format!("{}.{}s", tenths / 10, tenths % 10)
    } else if seconds < 3_600 {
        format!("{minutes}m{:02}s", seconds % 60)
    } else if minutes < 48 * 60 {
        format!("{}h {:02}m", minutes / 60, minutes % 60)
    } else {
        format!("{}d {}h", minutes / 1_440, minutes % 1_440 / 60)
    }
}

/// How long something took, for programs: seconds with milliseconds.
pub fn seconds(took: Duration) -> f64 {
    // Whole milliseconds, so that the text of the number stays short.
    (took.as_secs_f64() * 1_000.0).round() / 1_000.0
}

/// RFC 3339 in UTC, to the millisecond: always of one width, so that it also sorts as text.
pub fn rfc3339(at: Timestamp) -> String {
    format!("{at:.3}")
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::*;

    fn clock(now: &str) -> Clock {
        Clock { now: now.parse().unwrap(), zone: TimeZone::UTC }
    }

    #[test]
    fn relative_times_use_the_largest_unit_that_fits() {
        let clock = clock("2025-11-22T14:00:00Z");
        let ago = |seconds| clock.ago(clock.now - SignedDuration::from_secs(seconds));
        let cases = [0, 4, 5, 59, 60, 119, 120, 3_599, 3_600, 7_199, 172_799, 172_800, 999_999];
        let texts: Vec<String> = cases.iter().map(|seconds| ago(*seconds)).collect();
        assert_eq!(
            texts,
            [
                "just now",
                "just now",
                "5 s ago",
                "59 s ago",
                "1 min ago",
                "1 min ago",
                "2 min ago",
                "59 min ago",
                "1 h ago",
                "1 h ago",
                "47 h ago",
                "2 d ago",
                "11 d ago"
            ]
        );
        assert_eq!(ago(-600), "just now");
    }

    #[test]
    fn durations_never_show_sixty_seconds_or_sixty_minutes() {
        let cases =
            [0, 12, 99, 100, 849, 850, 8_100, 59_949, 59_950, 60_000, 300_000, 3_599_499, 3_599_500, 11_520_000];
        let texts: Vec<String> = cases.iter().map(|ms| duration(Duration::from_millis(*ms))).collect();
        assert_eq!(
            texts,
            [
                "0ms", "12ms", "99ms", "0.1s", "0.8s", "0.9s", "8.1s", "59.9s", "1m00s", "1m00s", "5m00s", "59m59s",
                "1h 00m", "3h 12m"
            ]
        );
        assert_eq!(duration(Duration::from_secs(6 * 86_400 + 22 * 3_600 + 59 * 60)), "6d 22h");
    }

    #[test]
    fn a_time_of_another_day_carries_its_date_in_the_readers_zone() {
        let mut clock = clock("2025-11-22T01:00:00Z");
        let at: Timestamp = "2025-11-21T23:58:07.25Z".parse().unwrap();
        assert_eq!(clock.time(at), "2025-11-21 23:58:07");
        assert_eq!(clock.minute(at), "2025-11-21 23:58");
        clock.zone = TimeZone::fixed(jiff::tz::offset(-6));
        assert_eq!(clock.time(at), "17:58:07");
        assert_eq!(clock.minute(at), "17:58");
        assert_eq!(clock.millisecond(at), "17:58:07.250");
    }

    #[test]
    fn programs_read_utc_with_milliseconds() {
        assert_eq!(rfc3339("2025-11-22T13:58:00-06:00".parse().unwrap()), "2025-11-22T19:58:00.000Z");
        assert_eq!(rfc3339("2025-11-22T13:58:00.1239Z".parse().unwrap()), "2025-11-22T13:58:00.123Z");
        assert_eq!(seconds(Duration::from_micros(8_100_400)), 8.1);
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_negative() {
        let clock = clock("2025-11-22T14:00:00Z");
        assert_eq!(between(clock.now, clock.now - SignedDuration::from_secs(5)), Duration::ZERO);
    }
}
