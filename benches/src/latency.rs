//! How long single transactions took, from the logs that pgbench writes of each.

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

/// Reads every log in the directory whose name begins so, and removes it.
pub fn take(directory: &Path, prefix: &str) -> io::Result<Latencies> {
    let mut all = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(prefix) {
            all.extend(microseconds(&fs::read_to_string(entry.path())?));
            fs::remove_file(entry.path())?;
        }
    }
    Ok(Latencies::of(all))
}

/// The third number of a line; a transaction that failed has a word there.
fn microseconds(log: &str) -> impl Iterator<Item = u64> + '_ {
    log.lines().filter_map(|line| line.split_whitespace().nth(2)?.parse().ok())
}

impl Latencies {
    fn of(mut all: Vec<u64>) -> Latencies {
        all.sort_unstable();
        let at = |share: f64| {
            let index = ((all.len() as f64 * share).ceil() as usize).saturating_sub(1);
            all.get(index).map_or(0.0, |&us| us as f64 / 1000.0)
        };
        Latencies { p50: at(0.5), p99: at(0.99), p999: at(0.999), longest: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_those_of_the_lines() {
        let log: String = (1..=1000).map(|n| format!("0 {n} {} 0 1700000000 1 0\n", n * 1000)).collect();
        let latencies = Latencies::of(microseconds(&log).chain(microseconds("0 1 failed 0 1 1 0")).collect());
        assert_eq!(latencies, Latencies { p50: 500.0, p99: 990.0, p999: 999.0, longest: 1000.0 });
        assert_eq!(Latencies::of(Vec::new()), Latencies::default());
    }
}
