//! The first step of ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY, where it is applied: the partition is about to be detached, as PostgreSQL's own
//! function has marked it on the origin, and has a constraint in the place of its bound. That function would end the transaction
//! (docs/adr/0058-concurrently.md).

use std::ffi::CString;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::prelude::*;

use super::alter::Given;
use super::list;
use super::named::find;
use super::names::{Oid, owned, quoted};
use super::setting;

/// Of catalog/pg_inherits.h, which pgrx does not bind: the catalog, its index by children, the column of the child and that of the mark.
const CATALOG: u32 = 2611;
const BY_CHILD: u32 = 2680;
const CHILD: i16 = 1;
const COLUMNS: usize = 4;
const IS_PENDING: usize = 3;

/// The partitioned table and the partition of a DETACH PARTITION ... CONCURRENTLY.
///
/// # Safety
/// `node` must be a parse tree.
pub(super) unsafe fn concurrent(node: *const pg_sys::Node) -> Option<(*mut pg_sys::RangeVar, *mut pg_sys::RangeVar)> {
    // SAFETY: the tag says what the node is; the kind of a command says what its definition is.
    unsafe {
        if (*node).type_ != Tag::T_AlterTableStmt {
            return None;
        }
        let statement = &*node.cast::<pg_sys::AlterTableStmt>();
        let mut commands = list::pointers::<pg_sys::AlterTableCmd>(statement.cmds).into_iter();
        let is_detach = |&command: &*mut pg_sys::AlterTableCmd| {
            (*command).subtype == pg_sys::AlterTableType::AT_DetachPartition
                && (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent
        };
        let command = commands.find(is_detach)?;
        Some((statement.relation, (*(*command).def.cast::<pg_sys::PartitionCmd>()).name))
    }
}

/// A constraint's name, and what it says.
pub fn constraint(oid: Oid) -> Option<(String, String)> {
    let _readable = setting::Scope::readable();
    // SAFETY: look-ups in the catalogs; the function gives a text.
    unsafe {
        let name = owned(pg_sys::get_constraint_name(oid))?;
        let function = pg_sys::F_PG_GET_CONSTRAINTDEF_OID;
        let text = pg_sys::OidFunctionCall1Coll(function, pg_sys::InvalidOid, pg_sys::Datum::from(oid));
        Some((name, owned(pg_sys::text_to_cstring(text.cast_mut_ptr()))?))
    }
}

/// # Safety
/// Must be of a parse tree, as [`concurrent`] gives them.
pub(super) unsafe fn mark((parent, partition): (*mut pg_sys::RangeVar, *mut pg_sys::RangeVar), given: Option<Given>) {
    // SAFETY: by contract.
    let (Some(parent), Some(partition)) = (unsafe { (find(parent), find(partition)) }) else {
        ereport!(ERROR, PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE, "the partition to detach does not exist");
    };
    let lock = pg_sys::ShareUpdateExclusiveLock as pg_sys::LOCKMODE;
    // SAFETY: both are locked until the end of the transaction; what is opened is closed.
    unsafe {
        pg_sys::LockRelationOid(parent, lock);
        let open = pg_sys::relation_open(partition, lock);
        set_pending(partition);
        for (name, check) in given.into_iter().flat_map(|given| given.columns) {
            add_constraint(open, &name, check.as_deref().unwrap_or_default());
        }
        pg_sys::relation_close(open, pg_sys::NoLock as pg_sys::LOCKMODE);
        pg_sys::CacheInvalidateRelcacheByRelid(parent);
        pg_sys::CommandCounterIncrement();
    }
}

/// A partition has one row in the catalog.
fn set_pending(partition: Oid) {
    // SAFETY: a scan of a catalog by its index; the changed row has all of its columns.
    unsafe {
        let catalog = pg_sys::table_open(Oid::from(CATALOG), pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
        let mut key = pg_sys::ScanKeyData::default();
        let equals = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&mut key, CHILD, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(partition));
        let scan = pg_sys::systable_beginscan(catalog, Oid::from(BY_CHILD), true, std::ptr::null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        if !tuple.is_null() {
            let mut values = [pg_sys::Datum::null(); COLUMNS];
            let mut nulls = [false; COLUMNS];
            let mut replaced = [false; COLUMNS];
            (values[IS_PENDING], replaced[IS_PENDING]) = (pg_sys::Datum::from(true), true);
            let descriptor = (*catalog).rd_att;
            let changed =
                pg_sys::heap_modify_tuple(tuple, descriptor, values.as_mut_ptr(), nulls.as_mut_ptr(), replaced.as_mut_ptr());
            pg_sys::CatalogTupleUpdate(catalog, &mut (*changed).t_self, changed);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::RowExclusiveLock as pg_sys::LOCKMODE);
    }
}

/// All rows keep to it: it says what the bound says.
///
/// # Safety
/// `partition` must be open.
unsafe fn add_constraint(partition: pg_sys::Relation, name: &str, check: &str) {
    let text = format!("ALTER TABLE partition ADD CONSTRAINT {} {check}", quoted(name));
    let Ok(text) = CString::new(text) else { return };
    // SAFETY: by contract; the text is PostgreSQL's own, behind the beginning of a statement with one command.
    unsafe {
        let parsed =
            list::pointers::<pg_sys::RawStmt>(pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT));
        let Some(&statement) = parsed.first() else { return };
        let commands = list::pointers::<pg_sys::AlterTableCmd>((*(*statement).stmt.cast::<pg_sys::AlterTableStmt>()).cmds);
        let Some(&command) = commands.first() else { return };
        let constraint = (*command).def.cast::<pg_sys::Constraint>();
        ((*constraint).skip_validation, (*constraint).initially_valid) = (true, true);
        let constraints = pg_sys::lappend(std::ptr::null_mut(), constraint.cast());
        let none = std::ptr::null_mut();
        pg_sys::AddRelationNewConstraints(partition, none, constraints, false, true, true, std::ptr::null());
    }
}
