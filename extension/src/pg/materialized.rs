//! Materialized views: statements without their query, and making room for rows that the query has given elsewhere.
//!
//! Only the origin of CREATE MATERIALIZED VIEW and REFRESH evaluates the query. Everywhere else both run WITH NO DATA, which plans and calls
//! nothing, and then the rows come as those of a table do, below the executor.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::names::Oid;
use super::relation::{Lock, Open};
use super::rewrite;

unsafe extern "C-unwind" {
    /// Of commands/matview.h, which pgrx does not bind.
    fn SetMatViewPopulatedState(relation: pg_sys::Relation, is_populated: bool);
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

fn populate(view: &Open) {
    if is_populated(view) {
        return;
    }
    // SAFETY: as REFRESH does it; the view is open and locked.
    unsafe {
        pg_sys::ffi::pg_guard_ffi_boundary(|| SetMatViewPopulatedState(view.raw(), true));
    }
}
