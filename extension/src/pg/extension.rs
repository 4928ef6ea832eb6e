//! Extensions: what their statements have done, as statements that leave nothing open; and their scripts.
//!
//! `CREATE EXTENSION x` leaves open which version is meant, which schema, and with CASCADE which others come along: all of that is found in
//! the control files of the server where it runs. What came out is in the catalogs, and is said again with every detail.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::encoding;
use super::list;
use super::names::{Oid, name_of, owned, quoted, quoted_text, valid};

/// The extension without which nothing would be replicated.
const OURS: &CStr = c"postgres_r";

/// The columns of pg_extension, whose header pgrx does not bind.
const NAME: i32 = 2;
const SCHEMA: i32 = 4;
const VERSION: i32 = 6;
const OID: i16 = 1;
const BY_OID: u32 = 3080;

unsafe extern "C-unwind" {
    /// Of commands/comment.h, which pgrx does not bind.
    fn GetComment(object: Oid, class: Oid, part: i32) -> *mut std::ffi::c_char;
}

/// Whether the script of an extension runs: PostgreSQL runs its statements as if they had been sent one by one.
pub fn script_runs() -> bool {
    // SAFETY: a variable of this process.
    unsafe { pg_sys::creating_extension }
}

/// Whether an object is this extension itself.
pub fn is_ours(class: Oid, object: Oid) -> bool {
    // SAFETY: a catalog look-up that raises nothing if there is none.
    class == pg_sys::ExtensionRelationId && unsafe { pg_sys::get_extension_oid(OURS.as_ptr(), true) } == object
}

/// An extension as the catalog has it.
struct Entry {
    name: String,
    schema: Oid,
    version: String,
}

fn entry(oid: Oid) -> Option<Entry> {
    // SAFETY: a scan of pg_extension by its index; the columns read are never null.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::ExtensionRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        let equals = pg_sys::BTEqualStrategyNumber as u16;
        pg_sys::ScanKeyInit(&mut key, OID, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(oid));
        let scan = pg_sys::systable_beginscan(catalog, pg_sys::Oid::from(BY_OID), true, std::ptr::null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| {
            let column = |number| {
                let mut is_null = false;
                pg_sys::heap_getattr(tuple, number, (*catalog).rd_att, &mut is_null)
            };
            Entry {
                name: name_of(&*column(NAME).cast_mut_ptr::<pg_sys::NameData>()),
                schema: Oid::from(column(SCHEMA).value() as u32),
                version: owned(pg_sys::text_to_cstring(column(VERSION).cast_mut_ptr())).unwrap_or_default(),
            }
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}

/// CREATE EXTENSION for one that was just made; `made` are the schemas that were made with it: it makes them itself.
pub fn create(extension: Oid, made: &[Oid]) -> Option<String> {
    let Entry { name, schema, version } = entry(extension)?;
    // SAFETY: a syscache look-up that gives a palloc'd copy or null.
    let schema_name = unsafe { owned(pg_sys::get_namespace_name(schema)) }?;
    let schema = if made.contains(&schema) { String::new() } else { format!(" SCHEMA {}", quoted(&schema_name)) };
    Some(format!("CREATE EXTENSION {} WITH{schema} VERSION {}", quoted(&name), quoted_text(&version)))
}

/// ALTER EXTENSION ... UPDATE for one that was just updated.
pub fn update(extension: Oid) -> Option<String> {
    let Entry { name, version, .. } = entry(extension)?;
    Some(format!("ALTER EXTENSION {} UPDATE TO {}", quoted(&name), quoted_text(&version)))
}

/// CREATE EXTENSION IF NOT EXISTS of one that does: PostgreSQL says so, and does nothing.
///
/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn is_there_already(statement: &pg_sys::CreateExtensionStmt) -> bool {
    // SAFETY: by contract; a catalog look-up that raises nothing if there is none.
    statement.if_not_exists && unsafe { valid(pg_sys::get_extension_oid(statement.extname, true)) }.is_some()
}

/// COMMENT ON EXTENSION with the comment that it has, as in each dump: nothing changes.
///
/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn says_what_is_said(statement: &pg_sys::CommentStmt) -> bool {
    if statement.objtype != ObjectType::OBJECT_EXTENSION || statement.object.is_null() || statement.comment.is_null() {
        return false;
    }
    // SAFETY: by contract, an extension is named by a string; look-ups that raise nothing if there is none.
    unsafe {
        let name = (*statement.object.cast::<pg_sys::String>()).sval;
        let comment = valid(pg_sys::get_extension_oid(name, true))
            .map_or(std::ptr::null_mut(), |extension| GetComment(extension, pg_sys::ExtensionRelationId, 0));
        !comment.is_null() && CStr::from_ptr(comment) == CStr::from_ptr(statement.comment)
    }
}

/// Whether a statement alters this extension itself.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn alters_ours(node: *mut pg_sys::Node) -> bool {
    // SAFETY: each tag says what the node is; an extension is named by a C string, or by a string node.
    unsafe {
        let named = |name: *mut pg_sys::Node| (*name.cast::<pg_sys::String>()).sval;
        let name = match (*node).type_ {
            Tag::T_AlterExtensionStmt => (*node.cast::<pg_sys::AlterExtensionStmt>()).extname,
            Tag::T_AlterExtensionContentsStmt => (*node.cast::<pg_sys::AlterExtensionContentsStmt>()).extname,
            Tag::T_AlterObjectSchemaStmt => {
                let statement = &*node.cast::<pg_sys::AlterObjectSchemaStmt>();
                if statement.objectType != ObjectType::OBJECT_EXTENSION {
                    return false;
                }
                named(statement.object)
            }
            Tag::T_DropStmt => {
                let statement = &*node.cast::<pg_sys::DropStmt>();
                return statement.removeType == ObjectType::OBJECT_EXTENSION
                    && list::pointers::<pg_sys::Node>(statement.objects)
                        .into_iter()
                        .any(|name| CStr::from_ptr(named(name)) == OURS);
            }
            _ => return false,
        };
        CStr::from_ptr(name) == OURS
    }
}

/// The schema of a foreign table that IMPORT FOREIGN SCHEMA is about to make; its statement, which the wrapper has written, leaves that out.
///
/// # Safety
/// `node` must be the parse tree of a utility statement that is a part of another.
pub(super) unsafe fn imported_into(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: the tag says what the node is. Nothing else makes a foreign table as a part of it.
    unsafe {
        if (*node).type_ != Tag::T_CreateForeignTableStmt {
            return None;
        }
        let schema = (*(*node.cast::<pg_sys::CreateForeignTableStmt>()).base.relation).schemaname;
        (!schema.is_null()).then(|| encoding::text(CStr::from_ptr(schema)))
    }
}
