//! What benchmarks share: loads, the systems that are loaded by turns, what is measured of them, and the report.
//!
//! One number of a shared machine means little; the ratio of two systems measured by turns, round after round, means more. So
//! results are medians over rounds, with every round kept beside them, and the thing that counts is the ratio.

pub mod charts;
pub mod events;
pub mod goals;
pub mod latency;
pub mod load;
pub mod measure;
pub mod meter;
pub mod plots;
pub mod report;
pub mod server;
pub mod settings;
pub mod sysbench;
pub mod systems;
pub mod throughput;

use std::path::{Path, PathBuf};

use serde::Serialize;

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
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    write_text(&format!("{name}.json"), &text)
}

/// Writes a file of that name beside it.
pub fn write_text(name: &str, text: &str) -> std::io::Result<PathBuf> {
    let target = std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../target"), PathBuf::from);
    let directory = target.join("bench");
    std::fs::create_dir_all(&directory)?;
    let path = directory.join(name);
    std::fs::write(&path, text)?;
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
