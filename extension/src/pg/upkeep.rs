//! REINDEX, VACUUM FULL and CLUSTER, which are of one node, where they come upon an index that is not valid.
//!
//! Whatever builds all indexes of a table makes those valid, too, that a CREATE or DROP INDEX CONCURRENTLY has left behind, and would do so on one
//! node only. So what can be ordered is ordered then, and runs on every node; the rest is refused (docs/adr/0058-concurrently.md).

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ReindexObjectType as Reindexed;

use super::concurrent;
use super::list;
use super::names::{Oid, quoted};
use super::relation::{self, Persistence, RelationKind};

const HINT: &str = "It would be valid on this node only. REINDEX INDEX makes it valid on all nodes; or drop it.";

/// Finds what a parse tree names.
type Find = unsafe fn(*mut pg_sys::RangeVar) -> Option<Oid>;

/// What is to be done about a statement that would make such an index valid.
pub(super) enum Upkeep {
    /// It runs on all nodes. The table.
    OnAllNodes(Oid),
    /// It takes several transactions here, and the one that makes the index valid does so on all nodes. The table.
    Concurrently(Oid),
    Refused {
        what: String,
        hint: &'static str,
    },
}

/// None if there is no such index, or if the statement leaves it as it is.
///
/// # Safety
/// `node` must be a parse tree.
pub(super) unsafe fn of(node: *const pg_sys::Node, find: Find) -> Option<Upkeep> {
    // SAFETY: the tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_ReindexStmt => of_reindex(&*node.cast(), find),
            Tag::T_VacuumStmt => {
                let statement = &*node.cast::<pg_sys::VacuumStmt>();
                if !is_set(statement.options, c"full") {
                    return None;
                }
                let tables = list::pointers::<pg_sys::VacuumRelation>(statement.rels).into_iter();
                let named: Vec<Oid> = tables.filter_map(|table| find((*table).relation)).collect();
                let mut below = below(if statement.rels.is_null() { relation::with_indexes() } else { named });
                if is_set(statement.options, c"skip_locked") {
                    // It passes over those, and so does whoever looks at their indexes first.
                    below.retain(|&table| is_free(table));
                }
                refused_unless_constrained("VACUUM FULL", &below)
            }
            Tag::T_ClusterStmt => {
                let statement = &*node.cast::<pg_sys::ClusterStmt>();
                let named: Vec<Oid> = find(statement.relation).into_iter().collect();
                let named = if statement.relation.is_null() { relation::with_indexes() } else { named };
                refused_unless_constrained("CLUSTER", &below(named))
            }
            _ => None,
        }
    }
}

/// Whether nobody has the table to himself now.
fn is_free(table: Oid) -> bool {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: a lock that is given back at once.
    unsafe {
        let is_free = pg_sys::ConditionalLockRelationOid(table, lock);
        if is_free {
            pg_sys::UnlockRelationOid(table, lock);
        }
        is_free
    }
}

/// A boolean option that a statement is given.
unsafe fn is_set(options: *mut pg_sys::List, name: &CStr) -> bool {
    // SAFETY: a parse tree's list of DefElem, each with a name.
    unsafe {
        let mut options = list::pointers::<pg_sys::DefElem>(options).into_iter();
        options.any(|option| CStr::from_ptr((*option).defname) == name && pg_sys::defGetBoolean(option))
    }
}

/// REINDEX CONCURRENTLY.
///
/// # Safety
/// `statement` must be of a parse tree.
pub(super) unsafe fn is_concurrent(statement: &pg_sys::ReindexStmt) -> bool {
    // SAFETY: by contract.
    unsafe { is_set(statement.params, c"concurrently") }
}

unsafe fn of_reindex(statement: &pg_sys::ReindexStmt, find: Find) -> Option<Upkeep> {
    // SAFETY: of a parse tree.
    let (named, is_concurrent) = unsafe { (find(statement.relation), is_concurrent(statement)) };
    match statement.kind {
        Reindexed::REINDEX_OBJECT_INDEX => of_index(named?, is_concurrent),
        // Of several it passes over those that are not valid.
        _ if is_concurrent => None,
        Reindexed::REINDEX_OBJECT_TABLE => {
            let table = named?;
            let entry = relation::entry(table)?;
            if entry.kind == RelationKind::PartitionedTable {
                return refused("REINDEX", vec![table]);
            }
            let is_ordered = !not_valid(&[table]).is_empty();
            is_ordered.then_some(Upkeep::OnAllNodes(table))
        }
        Reindexed::REINDEX_OBJECT_SYSTEM => None,
        _ => refused("REINDEX", relation::with_indexes()),
    }
}

fn of_index(index: Oid, is_concurrent: bool) -> Option<Upkeep> {
    let table = relation::table_of_index(index)?;
    if relation::entry(table)?.kind == RelationKind::PartitionedTable {
        return refused("REINDEX", vec![table]);
    }
    if !not_valid(&[table]).contains(&index) {
        return None;
    }
    Some(if is_concurrent { Upkeep::Concurrently(table) } else { Upkeep::OnAllNodes(table) })
}

/// Of these tables, and all below them, that other nodes have, too.
fn not_valid(tables: &[Oid]) -> Vec<Oid> {
    not_valid_among(&below(tables.to_vec()))
}

fn below(tables: Vec<Oid>) -> Vec<Oid> {
    tables.into_iter().flat_map(relation::with_children).collect()
}

fn not_valid_among(tables: &[Oid]) -> Vec<Oid> {
    let mut found = concurrent::not_valid_of(tables);
    found.retain(|&index| relation::entry(index).is_some_and(|entry| entry.persistence != Persistence::Temporary));
    found
}

fn refused(what: &str, tables: Vec<Oid>) -> Option<Upkeep> {
    refused_for(what, not_valid_among(&below(tables)))
}

/// VACUUM FULL and CLUSTER look for no duplicates, so they leave an index that is not valid as it is if it has a constraint to keep.
fn refused_unless_constrained(what: &str, tables: &[Oid]) -> Option<Upkeep> {
    let mut found = not_valid_among(tables);
    found.retain(|&index| concurrent::state(index).is_some_and(|state| !state.is_constraint()));
    refused_for(what, found)
}

fn refused_for(what: &str, indexes: Vec<Oid>) -> Option<Upkeep> {
    let name = relation::entry(indexes.into_iter().next()?)?.name;
    Some(Upkeep::Refused { what: format!("{what} of index \"{name}\", which is not valid,"), hint: HINT })
}

/// What a DROP INDEX names, as far as it is there.
unsafe fn named(statement: &pg_sys::DropStmt, find: Find) -> Vec<Oid> {
    // SAFETY: a parse tree's lists of the parts of names.
    unsafe {
        let names = list::pointers::<pg_sys::List>(statement.objects).into_iter();
        names.filter_map(|name| find(pg_sys::makeRangeVarFromNameList(name))).collect()
    }
}

/// Whether a DROP INDEX names a temporary one.
///
/// # Safety
/// `statement` must be of a parse tree.
pub(super) unsafe fn drops_temporary(statement: &pg_sys::DropStmt, find: Find) -> bool {
    // SAFETY: by contract.
    let mut entries = unsafe { named(statement, find) }.into_iter().filter_map(relation::entry);
    entries.any(|entry| entry.persistence == Persistence::Temporary)
}

/// The statement that drops the indexes of a DROP INDEX on a node that may lack some of them: a copy of a database has none that was not valid. None
/// if all are valid.
///
/// # Safety
/// `statement` must be of a parse tree.
pub(super) unsafe fn drops_not_valid(statement: &pg_sys::DropStmt, find: Find) -> Option<String> {
    // SAFETY: by contract.
    let found = unsafe { named(statement, find) };
    let is_not_valid = |&index: &Oid| concurrent::state(index).is_some_and(|state| !state.is_valid);
    if !found.iter().any(is_not_valid) {
        return None;
    }
    let entries = found.into_iter().filter_map(relation::entry);
    let names: Vec<String> = entries.map(|entry| format!("{}.{}", quoted(&entry.schema), quoted(&entry.name))).collect();
    let is_cascade = statement.behavior == pg_sys::DropBehavior::DROP_CASCADE;
    Some(format!("DROP INDEX IF EXISTS {}{}", names.join(", "), if is_cascade { " CASCADE" } else { "" }))
}
