//! The databases that have been attached since this daemon started, and how far each has been ordered.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gcs_writeset::{DatabaseId, Position};

#[derive(Debug, Default)]
pub struct Databases {
    ids: RefCell<BTreeMap<String, DatabaseId>>,
    /// The last position of each database that was handed on; its outcome and entry are in the log.
    heads: RefCell<BTreeMap<DatabaseId, Position>>,
}

impl Databases {
    /// The attach of a database has been ordered; `serve_from` is the last position ordered before it.
    pub fn attached(&self, name: String, id: DatabaseId, serve_from: Position) {
        self.ids.borrow_mut().insert(name, id);
        self.ordered(id, serve_from);
    }

    /// Entries behind the last checkpoint are ordered once more after a restart, so a position may have been seen before.
    pub fn ordered(&self, id: DatabaseId, position: Position) {
        let mut heads = self.heads.borrow_mut();
        let head = heads.entry(id).or_default();
        *head = (*head).max(position);
    }

    pub fn id(&self, name: &str) -> Option<DatabaseId> {
        self.ids.borrow().get(name).copied()
    }

    pub fn all(&self) -> BTreeMap<String, DatabaseId> {
        self.ids.borrow().clone()
    }

    pub fn head(&self, id: DatabaseId) -> Position {
        self.heads.borrow().get(&id).copied().unwrap_or_default()
    }
}
