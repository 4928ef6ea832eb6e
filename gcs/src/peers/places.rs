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

    /// The group has not taken the database, or has let it go: what it holds is nothing that others could be compared with.
    pub fn forget(&self, database: &str) {
        self.0.borrow_mut().remove(database);
    }

    pub fn of(&self, database: &str) -> Option<ServerPlace> {
        self.0.borrow().get(database).cloned()
    }

    /// Of whatever database.
    pub fn any(&self) -> Option<ServerPlace> {
        self.0.borrow().values().next().cloned()
    }
}
