//! Materialized views: statements without their query, and making room for rows that the query has given elsewhere.
//!
//! Only the origin of CREATE MATERIALIZED VIEW and REFRESH evaluates the query. Everywhere else both run WITH NO DATA, which plans and calls
//! nothing, and then the rows come as those of a table do, below the executor.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::majors::relation::attributes;
use super::names::Oid;
use super::relation::{Lock, Open};
use super::rewrite;

unsafe extern "C-unwind" {
    /// Of commands/matview.h, which pgrx does not bind.
    fn SetMatViewPopulatedState(relation: pg_sys::Relation, is_populated: bool);
    /// Of commands/cluster.h, which pgrx does not bind.
    fn finish_heap_swap(
        old: Oid,
        new: Oid,
        is_system_catalog: bool,
        swap_toast_by_content: bool,
        check_constraints: bool,
        is_internal: bool,
        frozen: pg_sys::TransactionId,
        cutoff: pg_sys::MultiXactId,
        persistence: std::ffi::c_char,
    );
}

/// Makes a statement evaluate no query, and take a lock with which the view can be emptied.
///
/// # Safety
/// `node` must be a private copy of a CREATE TABLE AS or REFRESH that was analysed.
pub(super) unsafe fn leave_out_query(node: *mut pg_sys::Node) {
    // SAFETY: by contract; the tag says which it is.
    unsafe {
        if (*node).type_ == Tag::T_CreateTableAsStmt {
            (*(*node.cast::<pg_sys::CreateTableAsStmt>()).into).skipData = true;
        } else {
            let statement = node.cast::<pg_sys::RefreshMatViewStmt>();
            (*statement).skipData = true;
            (*statement).concurrent = false;
        }
    }
}

fn is_view(relation: &Open) -> bool {
    // SAFETY: the relation is open.
    unsafe { (*(*relation.raw()).rd_rel).relkind as u8 == pg_sys::RELKIND_MATVIEW }
}

/// Whether it can be read: its rows are those of its query, as of some time.
pub fn is_populated(view: &Open) -> bool {
    // SAFETY: the relation is open.
    unsafe { (*(*view.raw()).rd_rel).relispopulated }
}

/// Takes all rows out of a materialized view, and lets it be read. False if it is none.
pub fn make_room(view: Oid) -> bool {
    let Some(open) = Open::by_oid(view, Lock::AccessExclusive).filter(is_view) else { return false };
    if !open.is_empty() && !rewrite::empty(view) {
        return false;
    }
    populate(&open);
    true
}

/// Why rows can't be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    NoView,
    NoTable,
    OtherColumns,
}

/// The rows of a permanent table become those of a materialized view with the same columns, instead of the rows that it had, and the table is dropped:
/// as REFRESH does it with the table that it makes. Indexes are built anew, by PostgreSQL, as the owner of the view.
pub fn take_over(view: Oid, table: Oid) -> Result<(), Unfit> {
    let view = Open::by_oid(view, Lock::AccessExclusive).filter(is_view).ok_or(Unfit::NoView)?;
    let table = Open::by_oid(table, Lock::AccessExclusive).filter(is_plain_table).ok_or(Unfit::NoTable)?;
    if types(&view) != types(&table) {
        return Err(Unfit::OtherColumns);
    }
    populate(&view);
    // SAFETY: the table is open; it says itself how old its rows may be.
    let (frozen, cutoff) = unsafe { ((*(*table.raw()).rd_rel).relfrozenxid, (*(*table.raw()).rd_rel).relminmxid) };
    let (old, new) = (view.oid(), table.oid());
    // Their locks stay, and nothing of ours has the table open when it is dropped.
    drop((view, table));
    let persistence = pg_sys::RELPERSISTENCE_PERMANENT as std::ffi::c_char;
    // SAFETY: both are locked, not shared with anybody, and store rows in the same form.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| {
            finish_heap_swap(old, new, false, false, true, true, frozen, cutoff, persistence);
        });
        pg_sys::CommandCounterIncrement();
    }
    Ok(())
}

/// Without indexes, which would be dropped with it.
fn is_plain_table(relation: &Open) -> bool {
    // SAFETY: the relation is open.
    let class = unsafe { &*(*relation.raw()).rd_rel };
    class.relkind as u8 == pg_sys::RELKIND_RELATION
        && class.relpersistence as u8 == pg_sys::RELPERSISTENCE_PERMANENT
        && !class.relhasindex
        && !class.relispartition
}

/// Types of all attributes, dropped ones included: none for those.
fn types(relation: &Open) -> Vec<(Oid, i32)> {
    // SAFETY: the relation is open; its descriptor holds `natts` attributes.
    let attributes = unsafe {
        let descriptor = (*relation.raw()).rd_att;
        attributes(descriptor)
    };
    attributes.iter().map(|attribute| (attribute.atttypid, attribute.atttypmod)).collect()
}

fn populate(view: &Open) {
    if is_populated(view) {
        return;
    }
    // SAFETY: as REFRESH does it; the view is open and locked.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| SetMatViewPopulatedState(view.raw(), true));
    }
}
