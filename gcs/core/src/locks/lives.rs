//! Lives: which sessions of which node there can be.
//!
//! A node's sessions belong to its *life*, a number that only grows. It grows when the node's daemon starts to take locks, and when the leader has not
//! heard of the node for so long that it gives it up. As with attaches, whoever has a new life ordered says which one it follows, so that a copy of the
//! request, or two who want the same, end one life and not two.
//!
//! Sessions of a life are numbered from 0 without a gap, and those that are closed are remembered as ranges: at most one more than there are
//! open ones.

use std::collections::BTreeMap;

use gcs_writeset::NodeId;

/// The present life of one node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Life {
    pub number: u64,
    pub closed: Ranges,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lives {
    by_node: BTreeMap<NodeId, Life>,
}

impl Lives {
    pub fn restore(lives: impl IntoIterator<Item = (NodeId, Life)>) -> Lives {
        Lives { by_node: lives.into_iter().collect() }
    }

    pub fn all(&self) -> &BTreeMap<NodeId, Life> {
        &self.by_node
    }

    /// The present life of a node; 0 before its first.
    pub fn of(&self, node: NodeId) -> u64 {
        self.by_node.get(&node).map_or(0, |life| life.number)
    }

    /// The next life of a node, if it is this one that ends.
    pub fn end(&mut self, node: NodeId, number: u64) -> Option<u64> {
        if self.of(node) != number {
            return None;
        }
        let next = number + 1;
        self.by_node.insert(node, Life { number: next, closed: Ranges::default() });
        Some(next)
    }

    /// The node is no member any more, and nothing is held by its sessions.
    pub fn forget(&mut self, node: NodeId) {
        self.by_node.remove(&node);
    }

    /// Whether a session is of the present life, and not closed.
    pub fn counts(&self, node: NodeId, life: u64, session: u64) -> bool {
        self.by_node.get(&node).is_some_and(|known| known.number == life && !known.closed.has(session))
    }

    pub fn close(&mut self, node: NodeId, session: u64) {
        if let Some(life) = self.by_node.get_mut(&node) {
            life.closed.add(session);
        }
    }
}

/// A set of numbers, as the ranges that it consists of: each by its first and its last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranges {
    ranges: BTreeMap<u64, u64>,
}

impl Ranges {
    pub fn restore(ranges: impl IntoIterator<Item = (u64, u64)>) -> Ranges {
        Ranges { ranges: ranges.into_iter().collect() }
    }

    pub fn all(&self) -> &BTreeMap<u64, u64> {
        &self.ranges
    }

    pub fn has(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, &last)| number <= last)
    }

    pub fn add(&mut self, number: u64) {
        if self.has(number) {
            return;
        }
        let last = number.checked_add(1).and_then(|next| self.ranges.remove(&next)).unwrap_or(number);
        match self.ranges.range_mut(..number).next_back() {
            Some((_, end)) if *end + 1 == number => *end = last,
            _ => {
                self.ranges.insert(number, last);
            }
        }
    }
}
