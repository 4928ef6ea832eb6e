//! What is good and bad of what was gathered: each rule is a function of the facts, and says at least one thing.
//!
//! [`daemon`]: the daemon of this node and its files. [`group`]: what it knows of the group. [`server`]: its PostgreSQL.

mod daemon;
mod group;
mod server;
#[cfg(test)]
mod tests;

use super::facts::Facts;
use super::finding::Finding;

type Rule = fn(&Facts) -> Vec<Finding>;

const OF_EVERY_NODE: [Rule; 8] = [
    daemon::daemon,
    daemon::socket,
    daemon::version,
    daemon::disk,
    daemon::certificate,
    group::majority,
    group::members,
    group::clock,
];

/// A witness has no PostgreSQL.
const OF_DATABASES: [Rule; 8] = [
    group::lag,
    group::divergence,
    group::service,
    server::postgresql,
    server::preload,
    server::connections,
    server::sessions,
    server::slots,
];

/// The worst first; among equals in the order of the rules.
pub fn all(facts: &Facts) -> Vec<Finding> {
    let of_databases: &[Rule] = if facts.here.has_databases { &OF_DATABASES } else { &[] };
    let rules = OF_EVERY_NODE.iter().chain(of_databases);
    let mut findings: Vec<Finding> = rules.flat_map(|rule| rule(facts)).collect();
    findings.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    findings
}
