//! Sessions of clients on this node, as the managers of its databases count them while it is drained ([`super::drain`]).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use gcs_writeset::Incarnation;
use gcs_writeset::link::Drain;

/// Of the node's databases.
#[derive(Debug, Default)]
pub struct Sessions {
    stage: Cell<Drain>,
    /// As their managers have counted them since it began, and in which life of the server.
    counted: RefCell<BTreeMap<String, (Incarnation, Option<u32>)>>,
}

impl Sessions {
    pub fn stage(&self) -> Drain {
        self.stage.get()
    }

    pub fn is_draining(&self) -> bool {
        self.stage() != Drain::No
    }

    pub fn set_stage(&self, stage: Drain) {
        self.stage.set(stage);
    }

    /// The databases that are to be counted, each in this life of its server.
    pub fn begin(&self, databases: Vec<(String, Incarnation)>) {
        let counted = databases.into_iter().map(|(database, life)| (database, (life, None)));
        *self.counted.borrow_mut() = counted.collect();
    }

    /// A manager says how many sessions its database has.
    pub fn count(&self, database: &str, life: Incarnation, count: u32) {
        self.counted.borrow_mut().insert(database.to_owned(), (life, Some(count)));
    }

    /// A manager has come. Whether it belongs to another life of the server than that which was to be drained.
    pub fn is_another_life(&self, database: &str, life: Incarnation) -> bool {
        self.stage() != Drain::No && self.counted.borrow().get(database).is_some_and(|(known, _)| *known != life)
    }

    /// The database's manager has gone. Its sessions may be there yet, and nobody counts them: until one comes again, it is not known how many.
    pub fn lost(&self, database: &str) {
        if let Some((_, count)) = self.counted.borrow_mut().get_mut(database) {
            *count = None;
        }
    }

    /// The database is not replicated any more: its sessions are nobody's business.
    pub fn forget(&self, database: &str) {
        self.counted.borrow_mut().remove(database);
    }

    /// Of all databases together; none if one of them has not counted yet.
    pub fn total(&self) -> Option<u32> {
        self.counted.borrow().values().map(|(_, count)| *count).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_is_drained_when_every_database_has_counted_none() {
        let sessions = Sessions::default();
        let (one, other) = (Incarnation(1), Incarnation(2));
        sessions.begin(vec![("a".to_owned(), one), ("b".to_owned(), one)]);
        sessions.count("a", one, 0);
        assert_eq!(sessions.total(), None, "the other has not counted");
        sessions.count("b", one, 3);
        assert_eq!(sessions.total(), Some(3));
        sessions.lost("b");
        assert_eq!(sessions.total(), None, "whoever would count them is not there");
        sessions.count("b", one, 2);
        sessions.forget("b");
        assert_eq!(sessions.total(), Some(0));
        sessions.count("b", one, 0);
        assert!(!sessions.is_another_life("a", other), "it works");
        sessions.set_stage(Drain::Idle);
        assert!(sessions.is_another_life("a", other));
        assert!(!sessions.is_another_life("a", one));
    }
}
