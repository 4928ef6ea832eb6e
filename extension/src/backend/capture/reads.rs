//! What a SERIALIZABLE transaction reads, as checked keys: one for each relation, which every change of its rows holds; or, where a
//! table is only looked into by its primary key (whatever identifies its rows), the keys of each row looked for.
//!
//! If such a key was held by anything ordered between the transaction's snapshot and its own position, the transaction aborts.
//! So what it read is, at its position, still what it read, and it might as well have run there (docs/certification.md). A
//! transaction that changes nothing is not submitted: it sees a prefix of the order, on whichever node.
//!
//! A relation's key says too much: most changes of a table are of rows that nobody has looked for. So where it is known what a plan's scans look for
//! ([`Predicate`]), it is looked at once more before the transaction is submitted. If nothing of it has changed up to the committed position of that moment,
//! then that position is the base of the relation's key.
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
use gcs_writeset::{Key, KeyGroup, Namespace, Position};

use super::base;
use crate::pg::execution::{Execution, Plan, Reads};
use crate::pg::index::{Index, IndexKey};
use crate::pg::lookup::Lookup;
use crate::pg::predicate::{Predicate, Searches};
use crate::pg::relation::{self, Oid, Persistence, RelationKind};
use crate::pg::unchanged::{self, Budget};
use crate::pg::{subtransaction, xact};
use crate::relations::{self, Identity, Known};
use crate::session;

/// Relations told apart in one transaction; at the bound it is taken to have read everything.
const RELATIONS_MAX: usize = 16_384;
/// Rows looked for in one transaction that have keys of their own; at the bound the relation's key says it all.
const LOOKUPS_MAX: usize = 65_536;

/// Bytes of predicates in one transaction; beyond, a relation is taken to be read as a whole.
const PREDICATE_BYTES_MAX: usize = 64 << 10;
/// Versions of rows looked at once more before a transaction is submitted.
const VERSIONS_MAX: u32 = 65_536;

/// What was read of a relation.
#[derive(Debug, PartialEq, Eq)]
enum Extent {
    Nothing,
    /// The rows that meet one of these.
    Rows(Vec<Predicate>),
    Whole,
}

struct Relation {
    oid: Oid,
    key: Key,
    /// For messages.
    name: String,
    read: Extent,
    is_looked_into: bool,
}

impl Relation {
    fn read_whole(&mut self) {
        self.read = Extent::Whole;
    }
}

/// An INSERT ... ON CONFLICT that has not come to its end: if it never does, its tables are read.
struct Unread {
    execution: Execution,
    level: i32,
    relations: Vec<usize>,
}

#[derive(Default)]
struct ReadSet {
    relations: Vec<Relation>,
    /// None for those that need no key.
    by_oid: HashMap<u32, Option<usize>>,
    predicate_bytes: usize,
    unread: Vec<Unread>,
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
    let looked_up: Vec<usize> = looked_up.into_iter().flat_map(relation::with_partitions).filter_map(interned).collect();
    if !looked_up.is_empty() {
        let unread = Unread { execution: plan.execution(), level: subtransaction::level(), relations: looked_up };
        STATE.with_borrow_mut(|state| state.unread.push(unread));
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
    if STATE.with_borrow(|state| state.unread.iter().any(|unread| unread.execution == plan.execution())) {
        plan.count_proposed();
    }
    let Searches { mut scans, is_in_the_dark } = plan.searches();
    for (place, oid) in plan.reads().scanned {
        if watched.contains(&place) {
            continue;
        }
        let of_place = scans.extract_if(.., |(at, _)| *at == place);
        let predicates: Option<Vec<Predicate>> = of_place.map(|(_, predicate)| predicate).collect();
        match predicates {
            None => note(oid, true),
            // Views, partitioned tables, tables that the planner need not look into: of those it is the definition that is read.
            Some(none) if none.is_empty() && !is_in_the_dark => note_definition(oid),
            Some(none) if none.is_empty() => note(oid, true),
            Some(predicates) => note_rows(oid, predicates),
        }
    }
}

/// A plan has run. An INSERT ... ON CONFLICT that has inserted or updated a row for each that it was given has learnt nothing that the keys of those rows
/// do not say.
pub fn on_ending(plan: &Plan) {
    STATE.with_borrow_mut(|state| {
        let Some(at) = state.unread.iter().position(|unread| unread.execution == plan.execution()) else { return };
        let Unread { relations, .. } = state.unread.swap_remove(at);
        let level = subtransaction::level();
        if !plan.has_written_all_proposed() {
            relations.into_iter().for_each(|relation| state.relations[relation].read_whole());
        } else if level > 1 {
            state.inserted.extend(relations.into_iter().map(|relation| (level, relation)));
        }
    });
}

fn note_definition(oid: Oid) {
    if let Some(relation) = interned(oid) {
        STATE.with_borrow_mut(|state| state.relations[relation].is_looked_into = true);
    }
}

fn note_rows(oid: Oid, predicates: Vec<Predicate>) {
    if let Some(relation) = interned(oid) {
        STATE.with_borrow_mut(|state| predicates.into_iter().for_each(|predicate| state.read_rows(relation, predicate)));
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
                state.relations[index].read_whole();
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
        oid,
        key: Key::new(Namespace::Relation, name_hash(&[&entry.schema, &entry.name]), 0),
        name: format!("{}.{}", entry.schema, entry.name),
        read: Extent::Nothing,
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
            let (key, name) = (relations::types_key(), "any".to_owned());
            self.relations[index - 1] = Relation { oid, key, name, read: Extent::Whole, is_looked_into: false };
            return Some(index - 1);
        }
        self.relations.push(relation);
        self.by_oid.insert(oid.to_u32(), Some(index));
        Some(index)
    }

    fn read_rows(&mut self, relation: usize, predicate: Predicate) {
        let relation = &mut self.relations[relation];
        if let Extent::Rows(known) = &relation.read
            && known.contains(&predicate)
        {
            return;
        }
        let bytes = predicate.bytes();
        let has_room = self.predicate_bytes + bytes <= PREDICATE_BYTES_MAX;
        match &mut relation.read {
            Extent::Whole => return,
            _ if !has_room => return relation.read_whole(),
            Extent::Rows(known) => known.push(predicate),
            Extent::Nothing => relation.read = Extent::Rows(vec![predicate]),
        }
        self.predicate_bytes += bytes;
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
        for unread in state.unread.iter_mut().filter(|unread| unread.level >= level) {
            unread.level = level - 1;
        }
        state.inserted.retain(|(at, _)| *at > 1);
        state.inserted.dedup();
    });
}

/// An INSERT in it may have failed over what is there.
pub fn subtransaction_aborted(level: i32) {
    STATE.with_borrow_mut(|state| {
        for Unread { relations, .. } in state.unread.extract_if(.., |unread| unread.level >= level) {
            relations.into_iter().for_each(|relation| state.relations[relation].read_whole());
        }
        for (at, index) in std::mem::take(&mut state.inserted) {
            if at >= level {
                state.relations[index].read_whole();
            } else {
                state.inserted.push((at, index));
            }
        }
    });
}

/// What was read: the keys, and the names of their relations in the same order. To be called when nothing more will be read.
pub fn take() -> (Vec<KeyGroup>, Vec<String>) {
    if STATE.with_borrow(|state| state.by_oid.is_empty()) {
        return (Vec::new(), Vec::new());
    }
    let ReadSet { mut relations, lookups, unread, .. } = STATE.take();
    unread.into_iter().flat_map(|unread| unread.relations).for_each(|relation| relations[relation].read_whole());
    let name = |key: Key, relation: &Relation| (key, relation.name.clone());
    let base = base::current();
    let (renewed, raised) = renew(&relations, base);
    // Statements and writers of whole tables keep off rows, as for those that change them.
    let (shared, mut names): (Vec<Key>, Vec<String>) =
        relations.iter().filter(|relation| relation.is_looked_into).map(|relation| name(relation.key, relation)).unzip();
    let is_read = |relation: &&Relation| relation.read != Extent::Nothing;
    let of_relations = relations.iter().filter(is_read).filter(|relation| !renewed.contains(&relation.key));
    let of_rows = lookups.iter().map(|&(key, relation)| name(key, &relations[relation]));
    let of_relations = of_relations.map(|relation| name(relation.key, relation));
    let (checked, checked_names): (Vec<Key>, Vec<String>) = of_relations.chain(of_rows).unzip();
    names.extend(checked_names);
    // The snapshot is the transaction's, so is the base.
    let as_of_snapshot = KeyGroup { base, shared, checked, ..KeyGroup::default() };
    let of_renewed = relations.iter().filter(|relation| renewed.contains(&relation.key));
    names.extend(of_renewed.map(|relation| relation.name.clone()));
    let as_of_now = KeyGroup { base: raised, checked: renewed, ..KeyGroup::default() };
    let groups = [as_of_snapshot, as_of_now].into_iter().filter(|group| !group.is_empty()).collect();
    (groups, names)
}

/// The keys of the relations of which nothing that was looked for has changed up to a later position, and that position.
fn renew(relations: &[Relation], base: Position) -> (Vec<Key>, Position) {
    // Read before the snapshots by which is looked once more.
    let committed = session::committed();
    let mut budget = Budget(VERSIONS_MAX);
    let mut is_unchanged = |relation: &&Relation| match &relation.read {
        Extent::Rows(predicates) => unchanged::is_unchanged(relation.oid, predicates, &mut budget),
        Extent::Nothing | Extent::Whole => false,
    };
    let unchanged = relations.iter().filter(|_| committed > base).filter(|relation| is_unchanged(relation));
    (unchanged.map(|relation| relation.key).collect(), committed)
}

pub fn reset() {
    STATE.with_borrow_mut(|state| {
        if !state.by_oid.is_empty() {
            *state = ReadSet::default();
        }
    });
}
