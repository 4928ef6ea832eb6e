//! What every check is.

use crate::sim::fact::{Fact, View};

pub trait Invariant {
    fn name(&self) -> &'static str;

    fn observe(&mut self, fact: &Fact, view: &View<'_>) -> Result<(), String>;

    /// All is well and over.
    fn end(&mut self) -> Result<(), String> {
        Ok(())
    }
}
