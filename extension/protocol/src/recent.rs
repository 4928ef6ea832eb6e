//! The nodes and applications behind recent positions, so that whoever loses can be told not only where the winner stands but who it was.
//!
//! Written by the manager as positions come by, read by anybody. Bound: [`crate::bounds::RECENT`] positions; for older ones the name is not known.

use std::sync::atomic::{AtomicU64, Ordering};

use gcs_writeset::{NodeId, Position};

use crate::bounds::NAME_BYTES;
use crate::platform::Platform;
use crate::text::Text;

#[derive(Default)]
pub struct Entry {
    position: AtomicU64,
    node: AtomicU64,
    application: Text<NAME_BYTES>,
}

pub struct Recent<P: Platform> {
    entries: P::Shared<[Entry]>,
}

impl<P: Platform> Recent<P> {
    pub fn new(entries: P::Shared<[Entry]>) -> Recent<P> {
        Recent { entries }
    }

    fn entry(&self, position: Position) -> &Entry {
        &self.entries[position.0 as usize % self.entries.len()]
    }

    /// The manager's.
    pub fn note(&self, position: Position, node: NodeId, application: &str) {
        let entry = self.entry(position);
        entry.position.store(0, Ordering::SeqCst);
        entry.node.store(node.0, Ordering::SeqCst);
        entry.application.set(application);
        entry.position.store(position.0, Ordering::SeqCst);
    }

    /// The node that the writeset at this position is of; none if it is not remembered.
    pub fn node(&self, position: Position) -> Option<NodeId> {
        let entry = self.entry(position);
        let is_there = || entry.position.load(Ordering::SeqCst) == position.0;
        let node = is_there().then(|| NodeId(entry.node.load(Ordering::SeqCst)))?;
        is_there().then_some(node)
    }

    /// The application of the writeset at this position; none if it is not remembered, or had no name.
    pub fn application(&self, position: Position) -> Option<String> {
        let entry = self.entry(position);
        let is_there = || entry.position.load(Ordering::SeqCst) == position.0;
        let name = is_there().then(|| entry.application.get())?;
        (is_there() && !name.is_empty()).then_some(name)
    }

    pub fn clear(&self) {
        self.entries.iter().for_each(|entry| entry.position.store(0, Ordering::SeqCst));
    }
}
