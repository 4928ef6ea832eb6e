//! A length of time as people write it on a command line: a number and s, m, h or d.

use std::time::Duration;

const WANTED: &str = "a number and s, m, h or d is wanted, as in 30m";

/// `90s`, `30m`, `1h`, `2d`; never zero.
///
/// # Errors
/// What is wanted instead, for a person.
pub fn parse(text: &str) -> Result<Duration, String> {
    let unit = text.chars().last().unwrap_or_default();
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 60 * 60,
        'd' => 24 * 60 * 60,
        _ => return Err(WANTED.to_owned()),
    };
    let number: u64 = text[..text.len() - 1].parse().map_err(|_| WANTED.to_owned())?;
    let duration = number.checked_mul(seconds).map(Duration::from_secs);
    duration.filter(|duration| !duration.is_zero()).ok_or_else(|| "it must be 1s at least, and have an end".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_number_and_a_unit() {
        assert_eq!(parse("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("1h"), Ok(Duration::from_secs(3600)));
        for bad in ["", "h", "1", "0s", "-1h", "1.5h", "1é", "99999999999999999999d", "18446744073709551615d"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
