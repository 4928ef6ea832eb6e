//! Statements about what all databases of a server share, as far as they are replicated: those about roles, and those about the database that
//! they are sent in. And the passwords in them.
//!
//! A password is in nothing that travels, is kept or is shown. The statement is written anew from its parse tree, with [`HIDDEN`] in the place
//! of the password; beside it travels the verifier, as the statement has left it in pg_authid. Where the statement is applied, the verifier goes
//! into the parse tree, and PostgreSQL takes a verifier as it is. So messages, contexts and logs there can show the text and say nothing.

use std::cell::Cell;
use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::catalog;
use super::encoding;
use super::list;
use super::names::{quoted, quoted_text, valid};

/// What stands in the place of a password.
const HIDDEN: &str = "********";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Global {
    /// All databases of the server share it.
    Roles,
    /// It is the current database's alone, though it stands in a catalog that all share.
    ThisDatabase,
}

thread_local! {
    /// The statement of another node that is applied here, or was the last to be.
    static APPLIED: Cell<Option<Global>> = const { Cell::new(None) };
}

/// A statement of another node begins here.
pub fn note_applied(global: Option<Global>) {
    APPLIED.set(global);
}

/// Whether the last statement of another node that was begun here is about what the server has, and not about the database's contents.
pub fn is_applied() -> bool {
    APPLIED.get().is_some()
}

/// None for every other statement, among them those about other databases.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Option<Global> {
    // SAFETY: each tag says what the node is; the name of a database is a C string or null.
    unsafe {
        match (*node).type_ {
            Tag::T_CreateRoleStmt | Tag::T_AlterRoleStmt | Tag::T_DropRoleStmt | Tag::T_GrantRoleStmt => Some(Global::Roles),
            Tag::T_AlterRoleSetStmt => match (*node.cast::<pg_sys::AlterRoleSetStmt>()).database {
                database if database.is_null() => Some(Global::Roles),
                database => is_current(database).then_some(Global::ThisDatabase),
            },
            Tag::T_AlterDatabaseSetStmt => {
                is_current((*node.cast::<pg_sys::AlterDatabaseSetStmt>()).dbname).then_some(Global::ThisDatabase)
            }
            Tag::T_AlterDatabaseStmt => {
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                let mut options = list::pointers::<pg_sys::DefElem>(statement.options).into_iter();
                let moves = options.any(|option| CStr::from_ptr((*option).defname) == c"tablespace");
                (!moves && is_current(statement.dbname)).then_some(Global::ThisDatabase)
            }
            Tag::T_AlterOwnerStmt => {
                let statement = &*node.cast::<pg_sys::AlterOwnerStmt>();
                (statement.objectType == ObjectType::OBJECT_DATABASE
                    && is_current((*statement.object.cast::<pg_sys::String>()).sval))
                .then_some(Global::ThisDatabase)
            }
            Tag::T_RenameStmt => {
                let kind = (*node.cast::<pg_sys::RenameStmt>()).renameType;
                (kind == ObjectType::OBJECT_ROLE).then_some(Global::Roles)
            }
            Tag::T_CommentStmt => {
                let statement = &*node.cast::<pg_sys::CommentStmt>();
                match statement.objtype {
                    ObjectType::OBJECT_ROLE => Some(Global::Roles),
                    ObjectType::OBJECT_DATABASE => {
                        is_current((*statement.object.cast::<pg_sys::String>()).sval).then_some(Global::ThisDatabase)
                    }
                    _ => None,
                }
            }
            Tag::T_SecLabelStmt => {
                let statement = &*node.cast::<pg_sys::SecLabelStmt>();
                match statement.objtype {
                    ObjectType::OBJECT_ROLE => Some(Global::Roles),
                    ObjectType::OBJECT_DATABASE => {
                        is_current((*statement.object.cast::<pg_sys::String>()).sval).then_some(Global::ThisDatabase)
                    }
                    _ => None,
                }
            }
            Tag::T_GrantStmt => {
                let statement = &*node.cast::<pg_sys::GrantStmt>();
                let named = || list::pointers::<pg_sys::String>(statement.objects);
                match statement.objtype {
                    ObjectType::OBJECT_PARAMETER_ACL => Some(Global::Roles),
                    ObjectType::OBJECT_DATABASE => {
                        named().into_iter().all(|name| is_current((*name).sval)).then_some(Global::ThisDatabase)
                    }
                    _ => None,
                }
            }
            _ => None,
        }
    }
}

/// Statements about other databases of the server, or about having them: of that server alone.
pub(super) fn is_about_databases(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::T_AlterRoleSetStmt
            | Tag::T_CreatedbStmt
            | Tag::T_AlterDatabaseStmt
            | Tag::T_AlterDatabaseSetStmt
            | Tag::T_DropdbStmt
    )
}

/// Whether a GRANT on databases names the current one.
///
/// # Safety
/// `statement` must be a parse tree's, on databases.
pub(super) unsafe fn names_this_database(statement: &pg_sys::GrantStmt) -> bool {
    // SAFETY: by contract, a list of names.
    unsafe { list::pointers::<pg_sys::String>(statement.objects).into_iter().any(|name| is_current((*name).sval)) }
}

/// # Safety
/// `database` must be a C string.
unsafe fn is_current(database: *const std::ffi::c_char) -> bool {
    // SAFETY: by contract; reads a variable of this process.
    let (name, current) = unsafe { (encoding::text(CStr::from_ptr(database)), pg_sys::MyDatabaseId) };
    catalog::database_oid(&name) == Some(current)
}

/// The SET of ALTER ROLE ... SET and ALTER DATABASE ... SET; null for other statements.
///
/// # Safety
/// As [`of`].
pub(super) unsafe fn set_by(node: *mut pg_sys::Node) -> *mut pg_sys::VariableSetStmt {
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_AlterRoleSetStmt => (*node.cast::<pg_sys::AlterRoleSetStmt>()).setstmt,
            Tag::T_AlterDatabaseSetStmt => (*node.cast::<pg_sys::AlterDatabaseSetStmt>()).setstmt,
            _ => std::ptr::null_mut(),
        }
    }
}

/// The option PASSWORD of CREATE or ALTER ROLE, unless it is PASSWORD NULL.
///
/// # Safety
/// As [`of`].
unsafe fn password(node: *mut pg_sys::Node) -> Option<*mut pg_sys::DefElem> {
    // SAFETY: each tag says what the node is; an option has a name.
    unsafe {
        let options = match (*node).type_ {
            Tag::T_CreateRoleStmt => (*node.cast::<pg_sys::CreateRoleStmt>()).options,
            Tag::T_AlterRoleStmt => (*node.cast::<pg_sys::AlterRoleStmt>()).options,
            _ => return None,
        };
        let mut options = list::pointers::<pg_sys::DefElem>(options).into_iter();
        options.find(|&option| CStr::from_ptr((*option).defname) == c"password" && !(*option).arg.is_null())
    }
}

/// A statement with a password, without the password; none for one that has none.
///
/// # Safety
/// As [`of`].
pub(super) unsafe fn without_password(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: each tag says what the node is; a new role has a name.
    unsafe {
        password(node)?;
        let (mut text, options) = if (*node).type_ == Tag::T_CreateRoleStmt {
            let statement = &*node.cast::<pg_sys::CreateRoleStmt>();
            let kind = match statement.stmt_type {
                pg_sys::RoleStmtType::ROLESTMT_USER => "USER",
                pg_sys::RoleStmtType::ROLESTMT_GROUP => "GROUP",
                _ => "ROLE",
            };
            let name = quoted(&encoding::text(CStr::from_ptr(statement.role)));
            (format!("CREATE {kind} {name} WITH"), statement.options)
        } else {
            let statement = &*node.cast::<pg_sys::AlterRoleStmt>();
            (format!("ALTER ROLE {} WITH", role_name(statement.role)), statement.options)
        };
        for option in list::pointers::<pg_sys::DefElem>(options) {
            text.push(' ');
            text.push_str(&option_text(option));
        }
        Some(text)
    }
}

/// # Safety
/// `option` must be an option of CREATE or ALTER ROLE in a parse tree.
unsafe fn option_text(option: *mut pg_sys::DefElem) -> String {
    // SAFETY: by contract; the name of an option says what its argument is.
    unsafe {
        let flag = |keyword: &str| if pg_sys::defGetBoolean(option) { keyword.to_owned() } else { format!("NO{keyword}") };
        let roles = |keyword: &str| {
            let roles = list::pointers::<pg_sys::RoleSpec>((*option).arg.cast());
            let names: Vec<String> = roles.into_iter().map(|role| role_name(role)).collect();
            format!("{keyword} {}", names.join(", "))
        };
        match CStr::from_ptr((*option).defname).to_bytes() {
            b"password" if (*option).arg.is_null() => "PASSWORD NULL".to_owned(),
            b"password" => format!("PASSWORD {}", quoted_text(HIDDEN)),
            b"superuser" => flag("SUPERUSER"),
            b"inherit" => flag("INHERIT"),
            b"createrole" => flag("CREATEROLE"),
            b"createdb" => flag("CREATEDB"),
            b"canlogin" => flag("LOGIN"),
            b"isreplication" => flag("REPLICATION"),
            b"bypassrls" => flag("BYPASSRLS"),
            b"connectionlimit" => format!("CONNECTION LIMIT {}", pg_sys::defGetInt32(option)),
            b"validUntil" => {
                let until = CStr::from_ptr((*(*option).arg.cast::<pg_sys::String>()).sval);
                format!("VALID UNTIL {}", quoted_text(&encoding::text(until)))
            }
            b"rolemembers" => roles("USER"),
            b"adminmembers" => roles("ADMIN"),
            b"addroleto" => roles("IN ROLE"),
            // Only SYSID is left, which PostgreSQL passes over.
            _ => String::new(),
        }
    }
}

/// # Safety
/// `role` must be of a parse tree.
unsafe fn role_name(role: *const pg_sys::RoleSpec) -> String {
    use pg_sys::RoleSpecType as Kind;
    // SAFETY: by contract; one of this kind has a name.
    unsafe {
        match (*role).roletype {
            Kind::ROLESPEC_CURRENT_ROLE => "CURRENT_ROLE".to_owned(),
            Kind::ROLESPEC_CURRENT_USER => "CURRENT_USER".to_owned(),
            Kind::ROLESPEC_SESSION_USER => "SESSION_USER".to_owned(),
            Kind::ROLESPEC_PUBLIC => "PUBLIC".to_owned(),
            _ => quoted(&encoding::text(CStr::from_ptr((*role).rolename))),
        }
    }
}

/// The verifier that a statement with a password has left in pg_authid. None if the statement has none, or if PostgreSQL has taken its password
/// for none.
///
/// # Safety
/// `node` must be the parse tree of a utility statement that has just run, and what it did must be visible.
pub(super) unsafe fn verifier(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: the tag says what the node is; look-ups that raise nothing if there is no such role. A tuple that was found is given back, when its
    // column has been copied.
    unsafe {
        password(node)?;
        let role = valid(match (*node).type_ {
            Tag::T_CreateRoleStmt => pg_sys::get_role_oid((*node.cast::<pg_sys::CreateRoleStmt>()).role, true),
            _ => pg_sys::get_rolespec_oid((*node.cast::<pg_sys::AlterRoleStmt>()).role, true),
        })?;
        let cache = pg_sys::SysCacheIdentifier::AUTHOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(role));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let column = pg_sys::Anum_pg_authid_rolpassword as pg_sys::AttrNumber;
        let value = pg_sys::SysCacheGetAttr(cache, tuple, column, &mut is_null);
        let verifier = (!is_null).then(|| super::names::owned(pg_sys::text_to_cstring(value.cast_mut_ptr()))).flatten();
        pg_sys::ReleaseSysCache(tuple);
        verifier
    }
}

/// Puts the verifier in the place of the password; without one, the role gets none.
///
/// # Safety
/// `node` must be a private copy of the parse tree of a utility statement.
pub(super) unsafe fn give_verifier(node: *mut pg_sys::Node, verifier: Option<&str>) {
    // SAFETY: by contract; the string is palloc'd, like the tree.
    unsafe {
        let Some(option) = password(node) else { return };
        (*option).arg = match verifier.and_then(encoding::c_string) {
            Some(verifier) => pg_sys::makeString(pg_sys::pstrdup(verifier.as_ptr())).cast(),
            None => std::ptr::null_mut(),
        };
    }
}
