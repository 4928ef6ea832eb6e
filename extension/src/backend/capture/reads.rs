//! What a SERIALIZABLE transaction reads, as checked keys: one for each relation, which every change of its rows holds; or, where a
//! table is only looked into by its primary key (whatever identifies its rows), the keys of each row looked for.
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
use std::collections::{HashMap, HashSet};

use gcs_writeset::key::name_hash;
use gcs_writeset::{Key, KeyGroup, Namespace};

use super::base;
use crate::pg::execution::{Plan, Reads};
use crate::pg::index::{Index, IndexKey};
use crate::pg::lookup::Lookup;
use crate::pg::relation::{self, Oid, Persistence, RelationKind};
use crate::pg::{subtransaction, xact};
use crate::relations::{self, Identity, Known};

/// Relations told apart in one transaction; at the bound it is taken to have read everything.
const RELATIONS_MAX: usize = 16_384;
/// Rows looked for in one transaction that have keys of their own; at the bound the relation's key says it all.
const LOOKUPS_MAX: usize = 65_536;

struct Relation {
    key: Key,
    /// For messages.
    name: String,
    is_read: bool,
    is_looked_into: bool,
}

#[derive(Default)]
struct ReadSet {
    relations: Vec<Relation>,
    /// None for those that need no key.
    by_oid: HashMap<u32, Option<usize>>,
    /// Inserted into, at which subtransaction level.
    inserted: Vec<(i32, usize)>,
    /// Keys of rows looked for, with the relation of each.
    lookups: Vec<(Key, usize)>,
    looked_for: HashSet<Key>,
}

thread_local! {
    static STATE: RefCell<ReadSet> = RefCell::default();
}

/// A plan starts, not a foreign key's own.
pub fn on_start(plan: &Plan) {
    if !matter() {
        return;
    }
    plan.stay_in_this_process();
    let Reads { looked_up, inserted, .. } = plan.reads();
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

/// Its nodes are there: what it will look for one by one, and what it reads otherwise.
pub fn on_started(plan: &Plan) {
    if !matter() {
        return;
    }
    let watched = plan.watch_lookups(&|lookup| {
        if interned(lookup.table()).is_none() {
            return false;
        }
        let known = relations::known(lookup.table(), || lookup.describe());
        identity(&known).is_some_and(|index| index.oid == lookup.index() && lookup.is_exact(index))
    });
    for (place, oid) in plan.reads().scanned {
        if !watched.contains(&place) {
            note(oid, true);
        }
    }
}

/// A row is looked for, and may or may not be there. If it is, changing it takes its row key; if not, inserting it its unique key.
pub fn on_lookup(lookup: &Lookup<'_>) {
    let oid = lookup.table();
    let known = relations::known(oid, || lookup.describe());
    let Some(index) = identity(&known).filter(|index| index.oid == lookup.index()) else { return note(oid, true) };
    let Some(IndexKey::Hash(hash)) = lookup.key(index) else { return };
    let row = Key::new(Namespace::Row, known.name, hash);
    let unique = Key::new(Namespace::Unique, index.key_name, hash);
    if let Some(relation) = interned(oid) {
        let has_room = STATE.with_borrow_mut(|state| state.look_up(relation, [row, unique]));
        if !has_room {
            note(oid, true);
        }
    }
}

fn identity(known: &Known) -> Option<&Index> {
    match known.identity {
        Identity::Index { index, .. } => known.table.indexes.get(index),
        Identity::WholeRow => None,
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

fn interned(oid: Oid) -> Option<usize> {
    let found = STATE.with_borrow(|state| state.by_oid.get(&oid.to_u32()).copied());
    found.unwrap_or_else(|| {
        let relation = describe(oid);
        if relation.is_some() {
            base::announce();
        }
        STATE.with_borrow_mut(|state| state.intern(oid, relation))
    })
}

fn note(oid: Oid, is_read: bool) {
    if let Some(index) = interned(oid) {
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
        is_looked_into: false,
    })
}

impl ReadSet {
    fn intern(&mut self, oid: Oid, relation: Option<Relation>) -> Option<usize> {
        let Some(relation) = relation else {
            self.by_oid.insert(oid.to_u32(), None);
            return None;
        };
        let index = self.relations.len();
        if index >= RELATIONS_MAX {
            // Every writeset holds this one.
            self.relations[index - 1] =
                Relation { key: relations::types_key(), name: "any".to_owned(), is_read: true, is_looked_into: false };
            return Some(index - 1);
        }
        self.relations.push(relation);
        self.by_oid.insert(oid.to_u32(), Some(index));
        Some(index)
    }

    /// False if there are too many.
    fn look_up(&mut self, relation: usize, keys: [Key; 2]) -> bool {
        self.relations[relation].is_looked_into = true;
        if self.looked_for.contains(&keys[0]) {
            return true;
        }
        if self.looked_for.len() >= LOOKUPS_MAX {
            return false;
        }
        self.looked_for.insert(keys[0]);
        self.lookups.extend(keys.map(|key| (key, relation)));
        true
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
    let ReadSet { relations, lookups, .. } = STATE.take();
    let name = |key: Key, relation: &Relation| (key, relation.name.clone());
    // Statements and writers of whole tables keep off rows, as for those that change them.
    let (shared, mut names): (Vec<Key>, Vec<String>) =
        relations.iter().filter(|relation| relation.is_looked_into).map(|relation| name(relation.key, relation)).unzip();
    let of_relations = relations.iter().filter(|relation| relation.is_read).map(|relation| name(relation.key, relation));
    let of_rows = lookups.iter().map(|&(key, relation)| name(key, &relations[relation]));
    let (checked, checked_names): (Vec<Key>, Vec<String>) = of_relations.chain(of_rows).unzip();
    names.extend(checked_names);
    // The snapshot is the transaction's, so is the base.
    let group = KeyGroup { base: base::current(), shared, checked, ..KeyGroup::default() };
    (!group.is_empty()).then_some((group, names))
}

pub fn reset() {
    STATE.with_borrow_mut(|state| {
        if !state.by_oid.is_empty() {
            *state = ReadSet::default();
        }
    });
}
