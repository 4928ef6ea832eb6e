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

    /// `2026-11-28 08:40:01`, in UTC; with `T` between day and time, with `Z` or ` UTC` behind it, and without seconds or time of day, too.
    pub fn parse(text: &str) -> Option<Moment> {
        let text = text.strip_suffix('Z').or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
        let (day, clock) = text.split_once([' ', 'T']).unwrap_or((text, "00:00"));
        let mut day = day.splitn(3, '-');
        let (year, month) = (day.next()?.parse().ok()?, day.next()?.parse::<u8>().ok()?.try_into().ok()?);
        let date = time::Date::from_calendar_date(year, month, day.next()?.parse().ok()?).ok()?;
        let mut clock = clock.splitn(3, ':');
        let (hour, minute) = (clock.next()?.parse().ok()?, clock.next()?.parse().ok()?);
        let second = clock.next().map_or(Some(0), |second| second.parse().ok())?;
        let clock = time::Time::from_hms(hour, minute, second).ok()?;
        Some(Moment::new(date.with_time(clock).assume_utc().unix_timestamp()))
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
    fn a_moment_is_read_as_it_is_written_and_as_people_write_it() {
        let seconds = |text| Moment::parse(text).map(|moment| moment.unix_seconds);
        for text in ["2026-11-28 08:40:01 UTC", "2026-11-28T08:40:01Z", "2026-11-28 08:40:01"] {
            assert_eq!(seconds(text), Some(1_795_855_201), "{text}");
        }
        assert_eq!(seconds("2026-11-28 08:40"), Some(1_795_855_200));
        assert_eq!(seconds("1970-01-02"), Some(86_400));
        for bad in ["", "yesterday", "2026-13-01", "2026-11-28 25:00", "2026-11-28 08", "2026-11-28 08:40:01+01:00"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_moment_is_written_in_utc_and_counted_in_whole_days() {
        let moment = Moment::new(1_795_855_201);
        assert_eq!(moment.to_string(), "2026-11-28 08:40:01 UTC");
        assert_eq!(moment.after(Duration::from_secs(86_400)).days_since(moment), 1);
        assert_eq!(moment.days_since(moment.after(Duration::from_secs(1))), -1);
        assert_eq!(Moment::new(i64::MAX).to_string(), format!("second {} of Unix time", i64::MAX));
    }
}
