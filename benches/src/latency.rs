//! How long single transactions took: from the logs that pgbench writes of each, or from the histogram of sysbench.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

/// In milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latencies {
    pub p50: f64,
    pub p99: f64,
    pub p999: f64,
    pub longest: f64,
}

/// Transactions of one or more clients' programs.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Samples {
    /// Milliseconds, and how many transactions took about that long.
    counts: Vec<(f64, u64)>,
    longest: f64,
}

/// Reads every log in the directory whose name begins so, and removes it.
pub fn take(directory: &Path, prefix: &str) -> io::Result<Latencies> {
    Ok(Samples::take(directory, prefix)?.latencies())
}

/// The third number of a line, in microseconds; a transaction that failed has a word there.
fn milliseconds(log: &str) -> impl Iterator<Item = f64> + '_ {
    log.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse::<u64>().ok()).map(|us| us as f64 / 1000.0)
}

impl Samples {
    /// Of pgbench's logs, which are removed.
    pub fn take(directory: &Path, prefix: &str) -> io::Result<Samples> {
        let mut all = Samples::default();
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                all.add(Samples::of_log(&fs::read_to_string(entry.path())?));
                fs::remove_file(entry.path())?;
            }
        }
        Ok(all)
    }

    fn of_log(log: &str) -> Samples {
        let counts: Vec<(f64, u64)> = milliseconds(log).map(|ms| (ms, 1)).collect();
        let longest = counts.iter().map(|(ms, _)| *ms).fold(0.0, f64::max);
        Samples { counts, longest }
    }

    /// Of a histogram's buckets, whose last one says less well than `longest` what took longest.
    pub fn of_histogram(counts: Vec<(f64, u64)>, longest: f64) -> Samples {
        Samples { counts, longest }
    }

    pub fn add(&mut self, other: Samples) {
        self.counts.extend(other.counts);
        self.longest = self.longest.max(other.longest);
    }

    pub fn latencies(mut self) -> Latencies {
        self.counts.sort_unstable_by(|a, b| a.0.total_cmp(&b.0));
        let total: u64 = self.counts.iter().map(|(_, count)| count).sum();
        let at = |share: f64| {
            let rank = (total as f64 * share).ceil() as u64;
            let mut seen = 0;
            let bucket = self.counts.iter().find(|(_, count)| {
                seen += count;
                seen >= rank
            });
            bucket.map_or(0.0, |(ms, _)| *ms)
        };
        Latencies { p50: at(0.5), p99: at(0.99), p999: at(0.999), longest: self.longest }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_lines() {
        let log: String = (1..=1000).map(|n| format!("0 {n} {} 0 1700000000 1 0\n", n * 1000)).collect();
        let latencies = Samples::of_log(&format!("{log}0 1 failed 0 1 1 0\n")).latencies();
        assert_eq!(latencies, Latencies { p50: 500.0, p99: 990.0, p999: 999.0, longest: 1000.0 });
        assert_eq!(Samples::default().latencies(), Latencies::default());
    }

    #[test]
    fn percentiles_of_histograms_are_those_of_all_transactions_in_them() {
        let mut samples = Samples::of_histogram(vec![(1.0, 90), (2.0, 8)], 2.3);
        samples.add(Samples::of_histogram(vec![(1.5, 1), (8.0, 1)], 8.1));
        assert_eq!(samples.latencies(), Latencies { p50: 1.0, p99: 2.0, p999: 8.0, longest: 8.1 });
    }
}
