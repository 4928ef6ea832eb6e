//! What benchmarks share: repeated measurements of two systems in one run, and what is written down of them.
//!
//! One number of a shared machine means little; the ratio of two systems measured by turns, round after round, means more. So
//! results are medians over rounds, with every round kept beside them, and the thing that counts is the ratio.

use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// The same load on the plain server and on the group, by turns.
#[derive(Clone, Debug, Serialize)]
pub struct Comparison {
    pub load: String,
    pub clients: u32,
    pub plain: Series,
    pub group: Series,
    /// Group to plain, of the medians of transactions per second.
    pub ratio: f64,
}

/// One system under one load.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Series {
    pub tps: Vec<f64>,
    pub latency_ms: Vec<f64>,
    pub tps_median: f64,
    pub latency_ms_median: f64,
}

impl Series {
    pub fn add(&mut self, tps: f64, latency_ms: f64) {
        self.tps.push(tps);
        self.latency_ms.push(latency_ms);
        self.tps_median = median(&self.tps);
        self.latency_ms_median = median(&self.latency_ms);
    }
}

/// The middle one, or the mean of the two in the middle; 0 of none.
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[n / 2],
        n => (sorted[n / 2 - 1] + sorted[n / 2]) / 2.0,
    }
}

/// Writes `<target>/bench/<name>.json` and says where.
pub fn write_json(name: &str, value: &impl Serialize) -> std::io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(format!("{name}.json"));
    let mut file = std::fs::File::create(&path)?;
    serde_json::to_writer_pretty(&mut file, value)?;
    writeln!(file)?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median(&[]), 0.0);
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
    }
}
