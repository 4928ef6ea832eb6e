//! What is wrong with the links between the nodes of a playground: which are cut, and which are slow.
//!
//! A node can be cut off from all others, those that come later too, or from one other. Each of these is a fault of its own: a link carries
//! bytes again when none of them holds it any more. How much later bytes arrive is said of a node, and counts for each link at both of its ends.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LinkFaults {
    /// Cut off from everybody.
    alone: BTreeSet<String>,
    /// Cut off from each other; the two in the order of their names.
    apart: BTreeSet<(String, String)>,
    /// By how many milliseconds what they send and are sent is late.
    slow_ms: BTreeMap<String, u64>,
}

impl LinkFaults {
    pub fn cut_off(&mut self, node: &str) {
        self.alone.insert(node.to_owned());
    }

    pub fn cut(&mut self, one: &str, other: &str) {
        self.apart.insert(pair(one, other));
    }

    /// Zero is as if it had never been slow.
    pub fn slow(&mut self, node: &str, milliseconds: u64) {
        match milliseconds {
            0 => self.slow_ms.remove(node),
            _ => self.slow_ms.insert(node.to_owned(), milliseconds),
        };
    }

    /// Takes away what is wrong with the links of one node, but for what is wrong with the other end as a whole.
    pub fn heal(&mut self, node: &str) {
        self.alone.remove(node);
        self.apart.retain(|(one, other)| one != node && other != node);
        self.slow_ms.remove(node);
    }

    pub fn is_cut(&self, one: &str, other: &str) -> bool {
        let is_alone = self.alone.contains(one) || self.alone.contains(other);
        is_alone || (!self.apart.is_empty() && self.apart.contains(&pair(one, other)))
    }

    /// How much later than at once bytes of one arrive at the other.
    pub fn delay(&self, one: &str, other: &str) -> Duration {
        let of = |node: &str| Duration::from_millis(self.slow_ms.get(node).copied().unwrap_or_default());
        of(one) + of(other)
    }

    /// What was done to this node, in words, one fault each.
    pub fn of(&self, node: &str) -> Vec<String> {
        let alone = self.alone.contains(node).then(|| "cut off".to_owned());
        let apart = self.apart.iter().filter_map(|(one, other)| match node {
            _ if node == one => Some(format!("cut off from {other}")),
            _ if node == other => Some(format!("cut off from {one}")),
            _ => None,
        });
        let slow = self.slow_ms.get(node).map(|milliseconds| format!("{milliseconds} ms late"));
        alone.into_iter().chain(apart).chain(slow).collect()
    }
}

fn pair(one: &str, other: &str) -> (String, String) {
    let (first, second) = if one <= other { (one, other) } else { (other, one) };
    (first.to_owned(), second.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_carries_bytes_again_when_nothing_holds_it_any_more() {
        let mut faults = LinkFaults::default();
        faults.cut("b", "a");
        faults.cut_off("b");
        assert!(faults.is_cut("a", "b") && faults.is_cut("c", "b") && !faults.is_cut("a", "c"));
        assert_eq!(faults.of("b"), ["cut off", "cut off from a"]);
        assert_eq!(faults.of("a"), ["cut off from b"]);
        faults.heal("a");
        assert!(faults.is_cut("a", "b"), "b is still cut off from everybody");
        faults.heal("b");
        assert_eq!(faults, LinkFaults::default());
    }

    #[test]
    fn both_ends_of_a_link_can_make_it_slow() {
        let mut faults = LinkFaults::default();
        faults.slow("a", 30);
        faults.slow("b", 5);
        assert_eq!(faults.delay("b", "a"), Duration::from_millis(35));
        assert_eq!(faults.delay("a", "c"), Duration::from_millis(30));
        assert_eq!(faults.of("a"), ["30 ms late"]);
        faults.slow("a", 0);
        assert_eq!(faults.delay("a", "b"), Duration::from_millis(5));
    }
}
