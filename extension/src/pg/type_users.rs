//! The tables that hold values of a type, for statements that change how such values read (ALTER TYPE, ALTER DOMAIN).
//!
//! A value may stand in a column, in an array, a range, a row or a domain over the type, or in the key of an index. Whoever writes to another table has nothing to do
//! with the statement: neither waits for the other, nor loses.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::named::find;
use super::names::{Oid, valid};
use super::query;

/// The types that a statement changes. None where they cannot be told, or the names of relations change with them.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
unsafe fn changed(node: *mut pg_sys::Node) -> Option<Vec<Oid>> {
    // SAFETY: each tag says what the node is; the type of object says what a name is.
    unsafe {
        let found = match (*node).type_ {
            Tag::T_AlterEnumStmt => by_name((*node.cast::<pg_sys::AlterEnumStmt>()).typeName),
            Tag::T_AlterDomainStmt => by_name((*node.cast::<pg_sys::AlterDomainStmt>()).typeName),
            Tag::T_AlterTypeStmt => by_name((*node.cast::<pg_sys::AlterTypeStmt>()).typeName),
            Tag::T_AlterTableStmt => row_type((*node.cast::<pg_sys::AlterTableStmt>()).relation),
            Tag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                match statement.renameType {
                    ObjectType::OBJECT_TYPE | ObjectType::OBJECT_DOMAIN => by_name(statement.object.cast()),
                    ObjectType::OBJECT_ATTRIBUTE => row_type(statement.relation),
                    _ => return None,
                }
            }
            _ => return None,
        };
        Some(found.into_iter().collect())
    }
}

/// # Safety
/// `name` must be a parse tree's list of the parts of a type's name.
unsafe fn by_name(name: *mut pg_sys::List) -> Option<Oid> {
    // SAFETY: by contract; a look-up that raises nothing if there is none. The tuple is released after its OID was read.
    unsafe {
        let name = pg_sys::makeTypeNameFromNameList(name);
        let tuple = pg_sys::LookupTypeName(std::ptr::null_mut(), name, std::ptr::null_mut(), true);
        if tuple.is_null() {
            return None;
        }
        let oid = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple)).oid;
        pg_sys::ReleaseSysCache(tuple);
        Some(oid)
    }
}

/// # Safety
/// `relation` must be a parse tree's.
unsafe fn row_type(relation: *mut pg_sys::RangeVar) -> Option<Oid> {
    // SAFETY: by contract; a syscache look-up.
    unsafe { valid(pg_sys::get_rel_type_id(find(relation)?)) }
}

/// The permanent tables that hold values of the types that a statement changes; None where they cannot be told. To be asked before it runs.
///
/// # Safety
/// As [`changed`].
pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Option<Vec<Oid>> {
    // SAFETY: by contract.
    let types = unsafe { changed(node) }?;
    if types.is_empty() {
        return Some(Vec::new());
    }
    let types: Vec<String> = types.into_iter().map(|oid| oid.to_u32().to_string()).collect();
    let rows = query::rows(&USERS.replace("TYPES", &types.join(", ")));
    Some(rows.into_iter().filter_map(|row| row.into_iter().next()??.parse::<u32>().ok()).map(Oid::from).collect())
}

const USERS: &str = "
    WITH RECURSIVE used (oid) AS (
        SELECT unnest(ARRAY[TYPES]::oid[])
        UNION
        SELECT made.oid FROM used, LATERAL (
            SELECT t.oid FROM pg_type t WHERE t.typelem = used.oid OR t.typbasetype = used.oid
            UNION ALL SELECT unnest(ARRAY[r.rngtypid, r.rngmultitypid]) FROM pg_range r WHERE r.rngsubtype = used.oid
            UNION ALL SELECT c.reltype FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid
                      WHERE a.atttypid = used.oid AND a.attnum > 0 AND NOT a.attisdropped AND c.reltype <> 0) made (oid))
    SELECT DISTINCT coalesce(i.indrelid, c.oid)
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE a.atttypid IN (SELECT oid FROM used) AND a.attnum > 0 AND NOT a.attisdropped AND c.relpersistence = 'p'
      AND c.relkind IN ('r', 'p', 'm', 'i', 'I')
    ORDER BY 1";
