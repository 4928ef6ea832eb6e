//! The table of a campaign, and whether it is good enough.

use std::time::Duration;

use super::campaign::Result;
use super::fault::Fault;

/// From the kill -9 of a leader to writes on the others: in the middle, and at worst.
const KILLED_BACK_MEDIAN: Duration = Duration::from_millis(1_000);
const KILLED_BACK_WORST: Duration = Duration::from_secs(2);
/// From the end of any fault to writes everywhere, and all nodes equal.
const HEALED_WORST: Duration = Duration::from_secs(10);

/// One line a fault. Times in milliseconds, median and worst.
pub fn table(results: &[Result]) -> String {
    let mut text = format!(
        "{:<24} {:>6} {:>15} {:>15} {:>15} {:>12} {:>8} {:>8}\n",
        "fault", "rounds", "back, ms", "refused, ms", "healed, ms", "acknowledged", "refused", "unknown"
    );
    for result in results {
        let pair = |times: &[Duration]| match (median(times), times.iter().max()) {
            (Some(median), Some(worst)) => format!("{} {:>6}", median.as_millis(), worst.as_millis()),
            _ => "-".to_owned(),
        };
        text += &format!(
            "{:<24} {:>6} {:>15} {:>15} {:>15} {:>12} {:>8} {:>8}\n",
            result.fault.name(),
            result.times.len(),
            pair(&back(result)),
            pair(&result.times.iter().filter_map(|times| times.refused).collect::<Vec<_>>()),
            pair(&healed(result)),
            result.acknowledged,
            result.refused,
            result.unknown
        );
    }
    text
}

/// Every bound that was missed.
pub fn missed(results: &[Result]) -> Vec<String> {
    let mut missed = Vec::new();
    let mut check = |result: &Result, what: &str, found: Option<Duration>, bound: Duration| {
        if found.is_none_or(|found| found > bound) {
            missed.push(format!("{}: {what} is {found:?}, the bound {bound:?}", result.fault.name()));
        }
    };
    for result in results {
        if result.fault == Fault::LeaderKilled {
            check(result, "the median time to writes", median(&back(result)), KILLED_BACK_MEDIAN);
            check(result, "the worst time to writes", back(result).into_iter().max(), KILLED_BACK_WORST);
        }
        check(result, "the worst time after the heal", healed(result).into_iter().max(), HEALED_WORST);
    }
    missed
}

fn back(result: &Result) -> Vec<Duration> {
    result.times.iter().filter_map(|times| times.back).collect()
}

fn healed(result: &Result) -> Vec<Duration> {
    result.times.iter().map(|times| times.healed).collect()
}

fn median(times: &[Duration]) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get(times.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::super::round::Times;
    use super::*;

    fn result(back_ms: &[u64], healed_ms: u64) -> Result {
        let healed = Duration::from_millis(healed_ms);
        let times = |&ms: &u64| Times { back: Some(Duration::from_millis(ms)), refused: None, healed };
        let times = back_ms.iter().map(times).collect();
        Result { fault: Fault::LeaderKilled, times, acknowledged: 1, refused: 0, unknown: 0, reasons: Default::default() }
    }

    #[test]
    fn a_bound_that_is_missed_is_named() {
        assert_eq!(missed(&[result(&[200, 300, 1_900], 9_000)]), Vec::<String>::new());
        let wrong = missed(&[result(&[200, 1_100, 2_100], 11_000)]);
        assert_eq!(wrong.len(), 3, "{wrong:?}");
        assert_eq!(missed(&[result(&[], 1)]).len(), 3, "nothing measured is nothing shown");
    }
}
