//! Statements about whole databases: which database each is about, and whether the role may do that.
//!
//! OWNER TO, CONNECTION LIMIT, ALLOW_CONNECTIONS, IS_TEMPLATE and SET change a row of a shared catalog: nobody needs to leave the database for
//! them, and they are not here.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::majors::process::owns_database;
pub use super::names::quoted;
use super::{catalog, list};

/// What a statement does to a whole database. (DROP is told by the object access hook, which knows more.)
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// CREATE DATABASE ... TEMPLATE it.
    Copy,
    /// ALTER DATABASE ... SET TABLESPACE.
    Move,
    Rename,
}

/// A statement about a whole database.
pub struct About {
    pub deed: Deed,
    pub database: pg_sys::Oid,
}

/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn about(node: *mut pg_sys::Node) -> Option<About> {
    // SAFETY: each tag says what the node is; names are C strings or null.
    unsafe {
        let (deed, name) = match (*node).type_ {
            Tag::T_CreatedbStmt => (Deed::Copy, template((*node.cast::<pg_sys::CreatedbStmt>()).options)),
            Tag::T_AlterDatabaseStmt => {
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                option(statement.options, c"tablespace")?;
                (Deed::Move, statement.dbname.cast_const())
            }
            Tag::T_RenameStmt => {
                let statement = &*node.cast::<pg_sys::RenameStmt>();
                if statement.renameType != pg_sys::ObjectType::OBJECT_DATABASE {
                    return None;
                }
                (Deed::Rename, statement.subname.cast_const())
            }
            _ => return None,
        };
        let database = catalog::database_oid((!name.is_null()).then(|| CStr::from_ptr(name))?.to_str().ok()?)?;
        Some(About { deed, database })
    }
}

/// The template's name, as CREATE DATABASE finds it.
unsafe fn template(options: *mut pg_sys::List) -> *const std::ffi::c_char {
    // SAFETY: an option with an argument; the string lives as long as the tree.
    unsafe {
        match option(options, c"template") {
            Some(option) if !(*option).arg.is_null() => pg_sys::defGetString(option),
            _ => c"template1".as_ptr(),
        }
    }
}

unsafe fn option(options: *mut pg_sys::List, name: &CStr) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: a parse tree's list of DefElem, each with a name.
    unsafe {
        let options = list::pointers::<pg_sys::DefElem>(options);
        options.into_iter().find(|&option| CStr::from_ptr((*option).defname) == name)
    }
}

impl About {
    /// Whether the current role may do that, by PostgreSQL's own rule as far as it is about roles. If not, PostgreSQL says so.
    pub fn is_allowed(&self) -> bool {
        // SAFETY: catalog look-ups inside a transaction.
        unsafe {
            let role = pg_sys::GetUserId();
            let owns = owns_database(role, self.database);
            match self.deed {
                Deed::Move | Deed::Rename => owns,
                Deed::Copy => (owns || catalog::is_template(self.database)) && may_create_databases(role),
            }
        }
    }
}

/// As `have_createdb_privilege`, which PostgreSQL keeps to itself.
unsafe fn may_create_databases(role: pg_sys::Oid) -> bool {
    // SAFETY: a syscache look-up; a tuple that was found is given back.
    unsafe {
        if pg_sys::superuser_arg(role) {
            return true;
        }
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::AUTHOID as i32, pg_sys::Datum::from(role));
        if tuple.is_null() {
            return false;
        }
        let allowed = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_authid>(tuple)).rolcreatedb;
        pg_sys::ReleaseSysCache(tuple);
        allowed
    }
}
