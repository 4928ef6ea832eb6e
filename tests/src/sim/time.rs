//! Simulated time, in microseconds since the beginning.

use std::fmt;
use std::ops::Add;
use std::time::Duration;

use postgres_r_protocol::id::Moment;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(pub u64);

/// A span of simulated time, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub u64);

pub const fn us(count: u64) -> Span {
    Span(count)
}

pub const fn ms(count: u64) -> Span {
    Span(count * 1_000)
}

impl Span {
    pub fn of(duration: Duration) -> Span {
        Span(duration.as_micros() as u64)
    }

    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0)
    }
}

impl Add<Span> for Time {
    type Output = Time;

    fn add(self, span: Span) -> Time {
        Time(self.0 + span.0)
    }
}

impl Time {
    pub fn since(self, earlier: Time) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }

    /// The same as the protocol's processes know it.
    pub fn moment(self) -> Moment {
        Moment(Duration::from_micros(self.0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}
