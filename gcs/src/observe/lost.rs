//! Conflicts that transactions of this node have lost, as the managers last told: they are asked when somebody looks, and what they say is shown to
//! whoever looks next. No values of keys are among it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use gcs_writeset::link::ConflictCount;

#[derive(Debug, Default)]
pub struct Lost(RefCell<BTreeMap<String, Vec<ConflictCount>>>);

impl Lost {
    pub fn told(&self, database: &str, counts: Vec<ConflictCount>) {
        self.0.borrow_mut().insert(database.to_owned(), counts);
    }

    /// The database's manager has gone.
    pub fn forget(&self, database: &str) {
        self.0.borrow_mut().remove(database);
    }

    pub fn all(&self) -> BTreeMap<String, Vec<ConflictCount>> {
        self.0.borrow().clone()
    }
}
