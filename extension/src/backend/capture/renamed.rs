//! Objects that a statement makes, renames, moves or drops, by their identities (`pg::object`): rows of other transactions may name them.
//!
//! An identity that appears or disappears is a key of the statement. What rows here have named and is dropped is remembered, on every node
//! (`pg::naming`).

use std::collections::HashMap;

use crate::pg::naming;
use crate::pg::object::{self, Class, Identity, Reading};
use crate::pg::relation::Oid;

#[derive(Default)]
pub struct Renamed {
    /// As first seen: before anything happened to it, unless the statement has made it.
    before: HashMap<(Class, u32), Option<Identity>>,
}

/// Hashes of identities that changed hands.
#[derive(Default)]
pub struct Identities {
    /// Those that were there before the statement.
    pub lost: Vec<u64>,
    pub gained: Vec<u64>,
}

impl Renamed {
    /// The object of the catalog `class` is about to change, or has and it does not show yet.
    pub fn see(&mut self, class: Oid, oid: Oid) {
        if let Some(class) = Class::of_catalog(class) {
            self.before.entry((class, oid.to_u32())).or_insert_with(|| object::identity(class, oid, Reading::Cached).ok());
        }
    }

    /// The statement has ended, and what it did shows.
    pub fn finish(self) -> Identities {
        let mut identities = Identities::default();
        for ((class, oid), before) in self.before {
            let oid = Oid::from(oid);
            let after = object::identity(class, oid, Reading::Cached).ok();
            if before == after {
                continue;
            }
            if let Some(before) = &before {
                identities.lost.push(before.hash());
                if after.is_none() && !object::exists(class, oid) {
                    naming::dropped(class, oid, before);
                }
            }
            identities.gained.extend(after.as_ref().map(Identity::hash));
        }
        identities
    }
}
