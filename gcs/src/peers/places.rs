//! Where the PostgreSQL of each database of this node is, as its manager said.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gcs_writeset::link::ServerPlace;

#[derive(Debug, Default)]
pub struct Places(RefCell<BTreeMap<String, ServerPlace>>);

impl Places {
    pub fn set(&self, database: &str, place: ServerPlace) {
        self.0.borrow_mut().insert(database.to_owned(), place);
    }

    pub fn of(&self, database: &str) -> Option<ServerPlace> {
        self.0.borrow().get(database).cloned()
    }

    /// Of whatever database.
    pub fn any(&self) -> Option<ServerPlace> {
        self.0.borrow().values().next().cloned()
    }
}
