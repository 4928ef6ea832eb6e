//! What a SERIALIZABLE transaction reads, as checked keys: one for each relation, which every change of its rows holds.
//!
//! If such a key was held by anything ordered between the transaction's snapshot and its own position, the transaction aborts.
//! So what it read is, at its position, still what it read, and it might as well have run there (docs/certification.md). A
//! transaction that changes nothing is not submitted: it sees a prefix of the order, on whichever node.
//!
//! A *read* is every relation that a plan scans, in whichever function or trigger, and the table of COPY TO. A plain INSERT
//! reads nothing: equal keys are its own keys' business. Unless it fails and a savepoint or an exception block carries on: then
//! the transaction knows what was there. What foreign key triggers look at is left out: keys of the foreign key say it exactly.
//! A rolled-back savepoint does not make the transaction forget what it has seen, so nothing is dropped with it.
//!
//! Left out on purpose: catalogs, sequences and temporary tables, as in PostgreSQL's own SERIALIZABLE.

use std::cell::RefCell;
use std::collections::HashMap;

use gcs_writeset::key::name_hash;
use gcs_writeset::{Key, KeyGroup, Namespace};

use super::base;
use super::statement::types_key;
use crate::pg::execution::{Plan, Reads};
use crate::pg::relation::{self, Oid, Persistence, RelationKind};
use crate::pg::{subtransaction, xact};
use crate::session;

/// Relations told apart in one transaction; at the bound it is taken to have read everything.
const RELATIONS_MAX: usize = 16_384;

struct Relation {
    key: Key,
    /// For messages.
    name: String,
    is_read: bool,
}

#[derive(Default)]
struct State {
    relations: Vec<Relation>,
    /// None for those that need no key.
    by_oid: HashMap<u32, Option<usize>>,
    /// Inserted into, at which subtransaction level.
    inserted: Vec<(i32, usize)>,
}

thread_local! {
    static STATE: RefCell<State> = RefCell::default();
}

/// A plan starts, not a foreign key's own.
pub fn on_start(plan: &Plan) {
    if !matter() {
        return;
    }
    plan.stay_in_this_process();
    let Reads { scanned, looked_up, inserted } = plan.reads();
    for oid in scanned {
        note(oid, true);
    }
    // Where rows will go is not in the plan.
    for oid in looked_up.into_iter().flat_map(relation::with_partitions) {
        note(oid, true);
    }
    if subtransaction::level() > 1 {
        for oid in inserted.into_iter().flat_map(relation::with_partitions) {
            note(oid, false);
        }
    }
}

/// A table is read by other means than a plan.
pub fn add(oid: Oid) {
    if matter() {
        note(oid, true);
    }
}

fn matter() -> bool {
    xact::is_serializable() && !xact::is_read_only()
}

fn note(oid: Oid, is_read: bool) {
    let found = STATE.with_borrow(|state| state.by_oid.get(&oid.to_u32()).copied());
    let index = found.unwrap_or_else(|| {
        let relation = describe(oid);
        if relation.is_some() {
            session::announce_base();
        }
        STATE.with_borrow_mut(|state| state.intern(oid, relation))
    });
    if let Some(index) = index {
        STATE.with_borrow_mut(|state| {
            if is_read {
                state.relations[index].is_read = true;
            } else {
                state.inserted.push((subtransaction::level(), index));
            }
        });
    }
}

/// None for a relation whose reads need no key.
fn describe(oid: Oid) -> Option<Relation> {
    let entry = relation::entry(oid)?;
    let is_wanted = entry.persistence == Persistence::Permanent
        && !entry.is_internal
        && !matches!(entry.kind, RelationKind::Sequence | RelationKind::Other);
    is_wanted.then(|| Relation {
        key: Key::new(Namespace::Relation, name_hash(&[&entry.schema, &entry.name]), 0),
        name: format!("{}.{}", entry.schema, entry.name),
        is_read: false,
    })
}

impl State {
    fn intern(&mut self, oid: Oid, relation: Option<Relation>) -> Option<usize> {
        let Some(relation) = relation else {
            self.by_oid.insert(oid.to_u32(), None);
            return None;
        };
        let index = self.relations.len();
        if index >= RELATIONS_MAX {
            // Every writeset holds this one.
            self.relations[index - 1] = Relation { key: types_key(), name: "any".to_owned(), is_read: true };
            return Some(index - 1);
        }
        self.relations.push(relation);
        self.by_oid.insert(oid.to_u32(), Some(index));
        Some(index)
    }
}

pub fn subtransaction_released(level: i32) {
    STATE.with_borrow_mut(|state| {
        for (at, _) in state.inserted.iter_mut().filter(|(at, _)| *at >= level) {
            *at = level - 1;
        }
        state.inserted.retain(|(at, _)| *at > 1);
        state.inserted.dedup();
    });
}

/// An INSERT in it may have failed over what is there.
pub fn subtransaction_aborted(level: i32) {
    STATE.with_borrow_mut(|state| {
        for (at, index) in std::mem::take(&mut state.inserted) {
            if at >= level {
                state.relations[index].is_read = true;
            } else {
                state.inserted.push((at, index));
            }
        }
    });
}

/// What was read: the keys, and the names of their relations in the same order.
pub fn take() -> Option<(KeyGroup, Vec<String>)> {
    let state = STATE.take();
    let (checked, names): (Vec<Key>, Vec<String>) =
        state.relations.into_iter().filter(|relation| relation.is_read).map(|read| (read.key, read.name)).unzip();
    // The snapshot is the transaction's, so is the base.
    let group = KeyGroup { base: base::current(), checked, ..KeyGroup::default() };
    (!group.is_empty()).then_some((group, names))
}

pub fn reset() {
    STATE.with_borrow_mut(|state| {
        if !state.by_oid.is_empty() {
            *state = State::default();
        }
    });
}
