//! A checker for list-append histories: transactions that append unique elements to lists and read whole lists.
//!
//! It finds what snapshot isolation (PostgreSQL's REPEATABLE READ) or serializability forbids and nothing that it allows, after
//! Elle (Kingsbury and Alvaro, VLDB 2020): lists show their own version order, versions give dependencies, and every forbidden history is a
//! kind of cycle in the graph of dependencies.
//!
//! - [`history`]: what clients did and saw.  - [`versions`]: version orders, and what is wrong without a graph.
//! - [`graph`]: the dependency graph and its cycles.  - [`anomaly`]: promises, and names for what breaks them.
//!
//! Real time between different clients counts where the history has it ([`history::Span`]): a transaction that began after another was
//! acknowledged is after it.

pub mod anomaly;
pub mod graph;
pub mod history;
pub mod versions;

#[cfg(test)]
mod planted;

use std::collections::BTreeMap;

use anomaly::Anomaly;
use graph::Graph;
use history::{Element, History, Key};

pub use anomaly::Isolation;

/// Everything found. `last`, when given, is what a quiet group showed at the end.
pub fn check(history: &History, isolation: Isolation, last: Option<&BTreeMap<Key, Vec<Element>>>) -> Vec<Anomaly> {
    let mut found = Vec::new();
    let versions = versions::build(history, &mut found);
    let effective = versions::effective(history);
    Graph::build(history, &versions, &effective).find_cycles(history, isolation, &mut found);
    if let Some(last) = last {
        versions::check_final(history, last, &mut found);
    }
    found
}
