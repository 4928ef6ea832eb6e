//! What an event measures, and how much of everything it does.

use std::error::Error;
use std::time::Duration;

use serde::Serialize;

use crate::median;

pub type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// One thing that was measured, as often as it was.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figure {
    pub event: &'static str,
    pub name: String,
    pub unit: &'static str,
    pub median: f64,
    pub most: f64,
    pub values: Vec<f64>,
}

impl Figure {
    pub fn new(name: impl Into<String>, unit: &'static str, values: Vec<f64>) -> Figure {
        let most = values.iter().copied().fold(0.0, f64::max);
        Figure { event: "", name: name.into(), unit, median: median(&values), most, values }
    }

    pub fn one(name: impl Into<String>, unit: &'static str, value: f64) -> Figure {
        Figure::new(name, unit, vec![value])
    }
}

/// How much of everything.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Extent {
    /// What rows, bytes and times are multiplied by; 1 is what the tables in docs/benchmarks.md are made of.
    pub size: f64,
    /// How often whatever is short is repeated.
    pub rounds: u64,
}

impl Extent {
    /// So much of a number that is meant for a size of 1; not nothing.
    pub fn of(&self, whole: u64) -> u64 {
        ((whole as f64 * self.size).round() as u64).max(1)
    }

    pub fn seconds(&self, whole: u64) -> Duration {
        Duration::from_secs(self.of(whole).max(2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_has_the_middle_and_the_most_of_its_values() {
        let figure = Figure::new("pause", "ms", vec![3.0, 1.0, 2.0]);
        assert_eq!((figure.median, figure.most), (2.0, 3.0));
    }

    #[test]
    fn an_extent_makes_nothing_vanish() {
        let extent = Extent { size: 0.001, rounds: 1 };
        assert_eq!((extent.of(5_000_000), extent.of(10)), (5_000, 1));
    }
}
