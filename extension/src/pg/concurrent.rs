//! The steps by which PostgreSQL makes and drops an index without keeping writers off, one by one, each in a transaction of its caller's
//! (docs/adr/0058-concurrently.md).
//!
//! On the node where the statement is run, PostgreSQL takes all of these steps itself. Elsewhere the index is entered into the catalogs by
//! [`enter`], where a transaction of another node is applied. PostgreSQL's own function for that ends the transaction; so a table without rows
//! and with the same columns is made for a moment, gets the index, and PostgreSQL's function for REINDEX CONCURRENTLY copies the definition.

use std::ffi::{c_char, c_int};

use pgrx::pg_sys;

use super::majors::process::{virtual_id, virtual_parts};
use super::majors::relation::{define_index, reindex_index};
use super::names::{Oid, owned};
use super::relation::{self, Lock, Open, RelationKind};
use super::role::Acting;
use super::setting;
use super::writers;

/// pg_constraint, which pgrx does not name.
const CONSTRAINTS: u32 = 2606;

unsafe extern "C-unwind" {
    /// Of commands/cluster.h, which pgrx does not bind.
    fn make_new_heap(old: Oid, tablespace: Oid, access_method: Oid, persistence: c_char, lock: pg_sys::LOCKMODE) -> Oid;
    /// Of parser/parse_utilcmd.h, which pgrx does not bind.
    fn transformIndexStmt(table: Oid, statement: *mut pg_sys::IndexStmt, text: *const c_char) -> *mut pg_sys::IndexStmt;
}

/// What the catalogs say of an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    pub table: Oid,
    pub is_valid: bool,
    /// Writers enter rows.
    pub is_ready: bool,
    pub is_live: bool,
    pub is_unique: bool,
    pub is_exclusion: bool,
    /// Rows could be told apart by it: it is unique at once, on plain columns that are never null.
    pub tells_rows_apart: bool,
}

impl State {
    /// Rows are kept out by it once it is valid.
    pub fn is_constraint(&self) -> bool {
        self.is_unique || self.is_exclusion
    }
}

/// None if there is no such index any more.
pub fn state(index: Oid) -> Option<State> {
    let cache = pg_sys::SysCacheIdentifier::INDEXRELID as i32;
    // SAFETY: a syscache look-up, released after its fields were read; as many key columns follow as it says.
    unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(index));
        if tuple.is_null() {
            return None;
        }
        let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_index>(tuple);
        let keys = form.indkey.values.as_slice(form.indnkeyatts as usize);
        let mut has_predicate = true;
        pg_sys::SysCacheGetAttr(cache, tuple, pg_sys::Anum_pg_index_indpred as i16, &mut has_predicate);
        let is_plain = keys.iter().all(|&key| key > 0) && has_predicate;
        let (table, is_at_once) = (form.indrelid, form.indisunique && form.indimmediate);
        let tells_rows_apart = is_at_once && is_plain && keys.iter().all(|&key| is_never_null(table, key));
        let state = State {
            table,
            is_valid: form.indisvalid,
            is_ready: form.indisready,
            is_live: form.indislive,
            is_unique: form.indisunique,
            is_exclusion: form.indisexclusion,
            tells_rows_apart,
        };
        pg_sys::ReleaseSysCache(tuple);
        Some(state)
    }
}

fn is_never_null(table: Oid, attribute: i16) -> bool {
    let cache = pg_sys::SysCacheIdentifier::ATTNUM as i32;
    // SAFETY: a syscache look-up, released after its field was read.
    unsafe {
        let tuple = pg_sys::SearchSysCache2(cache, pg_sys::Datum::from(table), pg_sys::Datum::from(attribute));
        if tuple.is_null() {
            return false;
        }
        let not_null = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_attribute>(tuple)).attnotnull;
        pg_sys::ReleaseSysCache(tuple);
        not_null
    }
}

/// Whether this catalog is that of constraints.
pub fn is_constraint(class: Oid) -> bool {
    class.to_u32() == CONSTRAINTS
}

/// The statement that makes the index, with its own name and the names of all that it mentions. The active search path plays no part.
pub fn definition(index: Oid) -> Option<String> {
    let _readable = setting::Scope::readable();
    // SAFETY: a look-up in the catalogs, which gives a palloc'd string.
    unsafe { owned(pg_sys::pg_get_indexdef_string(index)) }
}

/// The same CONCURRENTLY.
pub fn concurrently(definition: &str) -> String {
    definition.replacen("INDEX ", "INDEX CONCURRENTLY ", 1)
}

/// Enters an index of CREATE INDEX CONCURRENTLY into the catalogs: it is neither valid nor ready, and has no file yet that could be read.
///
/// # Safety
/// `node` must be the parse tree of a CREATE INDEX that names its index, with `text` as its text.
pub(super) unsafe fn enter(node: *const pg_sys::Node, text: *const c_char) {
    // SAFETY: by contract; the tree is copied before it is changed; what is opened is closed, and the lock on the table stays.
    unsafe {
        let statement = pg_sys::copyObjectImpl(node.cast()).cast::<pg_sys::IndexStmt>();
        let lock = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
        let table = pg_sys::RangeVarGetRelidExtended((*statement).relation, lock, 0, None, std::ptr::null_mut());
        let statement = pg_sys::ffi::pg_guard_ffi_boundary(|| transformIndexStmt(table, statement, text));
        let raw = pg_sys::relation_open(table, pg_sys::NoLock as pg_sys::LOCKMODE);
        let (tablespace, method) = ((*(*raw).rd_rel).reltablespace, (*(*raw).rd_rel).relam);
        let persistence = (*(*raw).rd_rel).relpersistence;
        let shadow = pg_sys::ffi::pg_guard_ffi_boundary(|| {
            make_new_heap(table, tablespace, method, persistence, pg_sys::AccessShareLock as pg_sys::LOCKMODE)
        });
        let name = (*statement).idxname;
        (*statement).idxname = std::ptr::null_mut();
        (*statement).concurrent = false;
        (*statement).if_not_exists = false;
        let copied = define_index(shadow, statement);
        pg_sys::CommandCounterIncrement();
        {
            // Functions in its expressions and its predicate are called here already, where they are constant.
            let _owner = Acting::restricted((*(*raw).rd_rel).relowner);
            pg_sys::index_concurrently_create_copy(raw, copied, pg_sys::get_rel_tablespace(copied), name);
        }
        pg_sys::relation_close(raw, pg_sys::NoLock as pg_sys::LOCKMODE);
        let shadow = pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: shadow, objectSubId: 0 };
        let flags = pg_sys::PERFORM_DELETION_INTERNAL as c_int;
        pg_sys::performDeletion(&shadow, pg_sys::DropBehavior::DROP_RESTRICT, flags);
        pg_sys::CommandCounterIncrement();
    }
}

/// Waits until those transactions have ended that hold a lock on the table as writers do.
pub fn wait_for_writers(table: Oid) {
    // SAFETY: in a transaction that holds no lock on the table.
    unsafe { pg_sys::WaitForLockers(writers::tag(table), pg_sys::ShareLock as pg_sys::LOCKMODE, false) };
}

/// The same of all who use it.
pub fn wait_for_users(table: Oid) {
    // SAFETY: as above.
    unsafe { pg_sys::WaitForLockers(writers::tag(table), pg_sys::AccessExclusiveLock as pg_sys::LOCKMODE, false) };
}

/// Builds the index from the rows that are there, and makes it ready. False if there is no such index any more.
pub fn build(index: Oid) -> bool {
    let Some(State { table, .. }) = state(index) else { return false };
    // SAFETY: in a transaction of its own; the table is locked by the function itself, which raises if it is gone.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::index_concurrently_build(table, index);
        pg_sys::PopActiveSnapshot();
    }
    true
}

/// A transaction id: older snapshots may show rows that the index does not lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Horizon(pg_sys::TransactionId);

/// Enters the rows that were written while the index was built.
pub fn validate(index: Oid) -> Option<Horizon> {
    let State { table, .. } = state(index)?;
    // SAFETY: in a transaction of its own; the snapshot is registered for as long as it is used.
    unsafe {
        let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::PushActiveSnapshot(snapshot);
        pg_sys::validate_index(table, index, snapshot);
        let limit = (*snapshot).xmin;
        pg_sys::PopActiveSnapshot();
        pg_sys::UnregisterSnapshot(snapshot);
        Some(Horizon(limit))
    }
}

/// Waits until no snapshot of this database is older, but those that cannot look into the table.
pub fn wait_for_older_snapshots(Horizon(limit): Horizon) {
    let mut waited_for = older(limit);
    loop {
        // One that has a newer snapshot by now need not end.
        let now = older(limit);
        waited_for.retain(|(backend, transaction)| now.contains(&(*backend, *transaction)));
        let Some((backend, transaction)) = waited_for.pop() else { return };
        let id = virtual_id((backend, transaction));
        // SAFETY: waits as for a lock.
        unsafe { pg_sys::VirtualXactLock(id, true) };
    }
}

fn older(limit: pg_sys::TransactionId) -> Vec<(c_int, u32)> {
    let passed_over = pg_sys::PROC_IS_AUTOVACUUM | pg_sys::PROC_IN_VACUUM | pg_sys::PROC_IN_SAFE_IC;
    let mut count = 0;
    // SAFETY: gives a palloc'd array of so many entries, which is freed.
    unsafe {
        let found = pg_sys::GetCurrentVirtualXIDs(limit, true, false, passed_over as c_int, &mut count);
        let all = std::slice::from_raw_parts(found, usize::try_from(count).unwrap_or(0));
        let ids = all.iter().map(virtual_parts).collect();
        pg_sys::pfree(found.cast());
        ids
    }
}

/// This transaction shows nobody an old snapshot while it waits.
pub fn forget_catalog_snapshot() {
    // SAFETY: it is taken again when it is needed.
    unsafe { pg_sys::InvalidateCatalogSnapshot() };
}

/// From the end of this transaction on, the index answers queries. It must be ready, and complete. Who plans a query hears of it.
pub fn make_valid(index: Oid, state: &State) {
    // SAFETY: as the last step of CREATE INDEX CONCURRENTLY.
    unsafe {
        if !state.is_valid {
            pg_sys::index_set_state_flags(index, pg_sys::IndexStateFlagsAction::INDEX_CREATE_SET_VALID);
        }
        pg_sys::CacheInvalidateRelcacheByRelid(state.table);
        pg_sys::CommandCounterIncrement();
    }
}

/// From the end of this transaction on, no query that is planned uses the index.
pub fn make_invalid(index: Oid, state: &State) {
    // SAFETY: as the first step of DROP INDEX CONCURRENTLY.
    unsafe {
        if state.is_valid {
            pg_sys::index_set_state_flags(index, pg_sys::IndexStateFlagsAction::INDEX_DROP_CLEAR_VALID);
        }
        pg_sys::CacheInvalidateRelcacheByRelid(state.table);
        pg_sys::CommandCounterIncrement();
    }
}

/// From the end of this transaction on, nobody enters rows. Nobody must use it for queries any more.
pub fn make_dead(index: Oid, table: Oid) {
    // SAFETY: as the second step of DROP INDEX CONCURRENTLY; takes the locks itself.
    unsafe {
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        pg_sys::index_concurrently_set_dead(table, index);
        pg_sys::PopActiveSnapshot();
    }
}

/// Builds the index anew, whatever it was, and makes it valid: writers are kept off until the end of the transaction.
pub fn rebuild(index: Oid) {
    let Some(open) = Open::by_oid(index, Lock::AccessShare) else { return };
    // SAFETY: an index; it is opened anew, and locked, by the function.
    unsafe {
        let persistence = (*(*open.raw()).rd_rel).relpersistence;
        drop(open);
        // At the end of a transaction there is none; functions in the index may want one.
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        reindex_index(index, persistence);
        pg_sys::PopActiveSnapshot();
        pg_sys::CommandCounterIncrement();
    }
}

/// Drops an index that nobody uses: keeps neither readers nor writers off.
pub fn drop_unused(index: Oid) {
    let address = pg_sys::ObjectAddress { classId: pg_sys::RelationRelationId, objectId: index, objectSubId: 0 };
    let flags = (pg_sys::PERFORM_DELETION_CONCURRENT_LOCK | pg_sys::PERFORM_DELETION_INTERNAL) as c_int;
    // SAFETY: takes its locks itself.
    unsafe { pg_sys::performDeletion(&address, pg_sys::DropBehavior::DROP_RESTRICT, flags) };
}

/// Takes the lock that CREATE INDEX CONCURRENTLY has on its table: DDL waits, writers do not.
pub fn lock_table(table: Oid) {
    // SAFETY: waits as for a lock.
    unsafe { pg_sys::LockRelationOid(table, pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE) };
}

/// The indexes of these tables that are not valid, but for those of partitioned tables, which hold nothing.
pub fn not_valid_of(tables: &[Oid]) -> Vec<Oid> {
    let is_not_valid = |&index: &Oid| {
        let is_index = relation::entry(index).is_some_and(|entry| entry.kind == RelationKind::Index);
        is_index && has_file(index) && state(index).is_some_and(|state| !state.is_valid)
    };
    tables.iter().flat_map(|&table| relation::indexes_of(table)).filter(is_not_valid).collect()
}

/// Whether it is an index with rows of its own.
fn has_file(index: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_relkind(index) }) as u8 == pg_sys::RELKIND_INDEX
}
