//! Shared catalogs, as far as the launcher needs them.

use pgrx::pg_sys;
use pgrx::prelude::*;

use super::encoding;
use super::majors::process::owns_database;
use super::names::{owned, valid};
use super::origin::OriginId;

/// Inside a transaction.
pub fn database_oid(name: &str) -> Option<pg_sys::Oid> {
    let name = encoding::c_string(name)?;
    // SAFETY: missing_ok.
    valid(unsafe { pg_sys::get_database_oid(name.as_ptr(), true) })
}

/// Inside a transaction.
pub fn database_name(oid: pg_sys::Oid) -> Option<String> {
    // SAFETY: returns null or a palloc'd C string.
    unsafe { owned(pg_sys::get_database_name(oid)) }
}

/// Whether the role may start and stop replication of the database. Inside a transaction.
pub fn may_replicate(role: pg_sys::Oid, database: pg_sys::Oid) -> bool {
    // SAFETY: catalog look-ups.
    unsafe { pg_sys::superuser_arg(role) || owns_database(role, database) }
}

pub fn current_role() -> pg_sys::Oid {
    // SAFETY: reads this process's state.
    unsafe { pg_sys::GetUserId() }
}

/// All replication origins of the server. Inside a transaction.
pub fn origins() -> Vec<(OriginId, String)> {
    let mut found = Vec::new();
    // SAFETY: a sequential scan of a shared catalog with the transaction's catalog snapshot; both columns are NOT NULL, roident
    // is a fixed-width oid and roname a text.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::ReplicationOriginRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let descriptor = (*relation).rd_att;
            let mut is_null = false;
            let id = pg_sys::heap_getattr(tuple, 1, descriptor, &mut is_null);
            let name = pg_sys::heap_getattr(tuple, 2, descriptor, &mut is_null);
            if let Some(name) = String::from_datum(name, is_null) {
                found.push((OriginId(id.value() as u16), name));
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// What pg_database says of one database.
struct DatabaseRow {
    oid: pg_sys::Oid,
    is_template: bool,
    allows_connections: bool,
    /// A DROP DATABASE was interrupted: nobody can connect to what is left of it.
    is_invalid: bool,
}

/// datconnlimit of a database whose DROP was interrupted (DATCONNLIMIT_INVALID_DB).
const CONNECTION_LIMIT_OF_INVALID: i32 = -2;

/// Whether every role that may create databases may copy it. Inside a transaction.
pub fn is_template(oid: pg_sys::Oid) -> bool {
    databases().into_iter().any(|row| row.oid == oid && row.is_template)
}

/// Reads pg_database, which can be read without a database. Inside a transaction.
fn databases() -> Vec<DatabaseRow> {
    let mut found = Vec::new();
    // SAFETY: as in `origins`.
    unsafe {
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(relation, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let descriptor = (*relation).rd_att;
            let mut is_null = false;
            let mut column = |name: u32| pg_sys::heap_getattr(tuple, name as i32, descriptor, &mut is_null);
            found.push(DatabaseRow {
                oid: pg_sys::Oid::from(column(pg_sys::Anum_pg_database_oid).value() as u32),
                is_template: column(pg_sys::Anum_pg_database_datistemplate).value() != 0,
                allows_connections: column(pg_sys::Anum_pg_database_datallowconn).value() != 0,
                is_invalid: column(pg_sys::Anum_pg_database_datconnlimit).value() as i32 == CONNECTION_LIMIT_OF_INVALID,
            });
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as i32);
    }
    found
}

/// A database to connect to for a moment, to read what only a connection to a database can read. No template if possible: a
/// connection to one is in the way of CREATE DATABASE. Inside a transaction.
pub fn any_database() -> Option<pg_sys::Oid> {
    let usable = databases().into_iter().filter(|row| row.allows_connections && !row.is_invalid);
    usable.min_by_key(|row| (row.is_template, row.oid.to_u32())).map(|row| row.oid)
}

/// Whether there is such a database, and not only what an interrupted DROP has left of it. Inside a transaction.
pub fn database_exists(oid: pg_sys::Oid) -> bool {
    databases().into_iter().any(|row| row.oid == oid && !row.is_invalid)
}

/// Whether the extension is installed in the database this process is connected to. Inside a transaction.
pub fn extension_installed(name: &str) -> bool {
    let Some(name) = encoding::c_string(name) else { return false };
    // SAFETY: missing_ok.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}
