//! Points in time, as certificates and tokens have them: whole seconds, always UTC.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use time::OffsetDateTime;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Moment {
    pub unix_seconds: i64,
}

const DAY_SECONDS: i64 = 24 * 60 * 60;

impl Moment {
    pub fn new(unix_seconds: i64) -> Moment {
        Moment { unix_seconds }
    }

    pub fn now() -> Moment {
        Moment::of(SystemTime::now())
    }

    pub fn of(time: SystemTime) -> Moment {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        Moment::new(i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
    }

    pub fn after(self, duration: Duration) -> Moment {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Moment::new(self.unix_seconds.saturating_add(seconds))
    }

    pub fn before(self, duration: Duration) -> Moment {
        let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Moment::new(self.unix_seconds.saturating_sub(seconds))
    }

    /// From `earlier` to this; negative if it is the later one.
    pub fn seconds_since(self, earlier: Moment) -> i64 {
        self.unix_seconds.saturating_sub(earlier.unix_seconds)
    }

    /// Whole days from `earlier` to this; negative if it is the later one.
    pub fn days_since(self, earlier: Moment) -> i64 {
        self.seconds_since(earlier).div_euclid(DAY_SECONDS)
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match OffsetDateTime::from_unix_timestamp(self.unix_seconds) {
            Ok(at) => {
                let (year, month, day) = (at.year(), u8::from(at.month()), at.day());
                write!(f, "{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02} UTC", at.hour(), at.minute(), at.second())
            }
            // A year of more than four digits.
            Err(_) => write!(f, "second {} of Unix time", self.unix_seconds),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_is_written_in_utc_and_counted_in_whole_days() {
        let moment = Moment::new(1_795_855_201);
        assert_eq!(moment.to_string(), "2026-11-28 08:40:01 UTC");
        assert_eq!(moment.after(Duration::from_secs(86_400)).days_since(moment), 1);
        assert_eq!(moment.days_since(moment.after(Duration::from_secs(1))), -1);
        assert_eq!(Moment::new(i64::MAX).to_string(), format!("second {} of Unix time", i64::MAX));
    }
}
