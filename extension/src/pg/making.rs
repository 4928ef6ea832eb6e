//! Making and dropping whole databases: the statements, and what PostgreSQL does for them, for whoever does it by itself
//! (docs/adr/0068-databases.md).

use std::ffi::{CStr, CString, c_char, c_int};

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;
use postgres_r_protocol::tablespaces::Map;

use super::names::Oid;
use super::{catalog, encoding, list, query, tablespace};

/// What a statement does to a database other than its rows. Names are in UTF-8.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Statement {
    /// CREATE DATABASE.
    Create { name: String },
    /// DROP DATABASE.
    Drop { name: String, force: bool },
    /// Any other that changes what the server has noted of these databases: owner, options, settings, privileges, comment.
    Alter { names: Vec<String> },
}

/// None for other statements; START and STOP REPLICATION among them, RENAME and SET TABLESPACE, which others see to.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn statement(node: *mut pg_sys::Node) -> Option<Statement> {
    // SAFETY: each tag says what the node is; names are C strings or null.
    unsafe {
        let text = |name: *const c_char| (!name.is_null()).then(|| encoding::text(CStr::from_ptr(name)));
        let one = |name: *const c_char| text(name).map(|name| Statement::Alter { names: vec![name] });
        let object = |kind: ObjectType::Type, object: *mut pg_sys::Node| {
            if kind == ObjectType::OBJECT_DATABASE { one((*object.cast::<pg_sys::String>()).sval) } else { None }
        };
        match (*node).type_ {
            Tag::T_CreatedbStmt => {
                text((*node.cast::<pg_sys::CreatedbStmt>()).dbname).map(|name| Statement::Create { name })
            }
            Tag::T_DropdbStmt => {
                let statement = &*node.cast::<pg_sys::DropdbStmt>();
                let mut options = list::pointers::<pg_sys::DefElem>(statement.options).into_iter();
                let force = options.any(|option| CStr::from_ptr((*option).defname) == c"force");
                text(statement.dbname).map(|name| Statement::Drop { name, force })
            }
            Tag::T_AlterDatabaseStmt => {
                const NOTED: [&CStr; 3] = [c"is_template", c"allow_connections", c"connection_limit"];
                let statement = &*node.cast::<pg_sys::AlterDatabaseStmt>();
                let mut options = list::pointers::<pg_sys::DefElem>(statement.options).into_iter();
                let is_noted = options.all(|option| NOTED.contains(&CStr::from_ptr((*option).defname)));
                if is_noted { one(statement.dbname) } else { None }
            }
            Tag::T_AlterDatabaseSetStmt => one((*node.cast::<pg_sys::AlterDatabaseSetStmt>()).dbname),
            Tag::T_AlterRoleSetStmt => one((*node.cast::<pg_sys::AlterRoleSetStmt>()).database),
            Tag::T_AlterOwnerStmt => {
                let statement = &*node.cast::<pg_sys::AlterOwnerStmt>();
                object(statement.objectType, statement.object)
            }
            Tag::T_CommentStmt => {
                let statement = &*node.cast::<pg_sys::CommentStmt>();
                object(statement.objtype, statement.object)
            }
            Tag::T_SecLabelStmt => {
                let statement = &*node.cast::<pg_sys::SecLabelStmt>();
                object(statement.objtype, statement.object)
            }
            Tag::T_GrantStmt if (*node.cast::<pg_sys::GrantStmt>()).objtype == ObjectType::OBJECT_DATABASE => {
                let named = list::pointers::<pg_sys::String>((*node.cast::<pg_sys::GrantStmt>()).objects);
                Some(Statement::Alter { names: named.into_iter().filter_map(|name| text((*name).sval)).collect() })
            }
            _ => None,
        }
    }
}

/// Puts another name in the place of that of the database that a CREATE DATABASE makes.
///
/// # Safety
/// `node` must be a private copy of such a statement's parse tree.
pub(super) unsafe fn name_otherwise(node: *mut pg_sys::Node, name: &str) {
    if let Some(name) = encoding::c_string(name) {
        // SAFETY: by contract; the string is palloc'd, like the tree.
        unsafe { (*node.cast::<pg_sys::CreatedbStmt>()).dbname = pg_sys::pstrdup(name.as_ptr()) }
    }
}

/// Commits the transaction of a utility statement that runs by itself, and begins another, in which the statement goes on: as PostgreSQL does
/// in CREATE INDEX CONCURRENTLY. The statement must be one that PostgreSQL takes in no transaction block.
pub fn commit_and_go_on() {
    // SAFETY: by contract the transaction is the statement's alone; the portal's snapshot is the only active one, and PostgreSQL looks whether it
    // is there when the statement has run.
    unsafe {
        if pg_sys::ActiveSnapshotSet() {
            pg_sys::PopActiveSnapshot();
        }
        pg_sys::CommitTransactionCommand();
        pg_sys::StartTransactionCommand();
    }
}

unsafe extern "C-unwind" {
    /// Of utils/pg_locale.h, which pgrx does not bind.
    fn check_locale(category: c_int, locale: *const c_char, canonical: *mut *mut c_char) -> bool;
}

/// A CREATE DATABASE that this node wrote, or another one.
struct Definition {
    statement: *mut pg_sys::CreatedbStmt,
    text: CString,
}

impl Definition {
    /// Inside a transaction, whose memory it is in.
    fn parse(text: &str) -> Option<Definition> {
        let text = encoding::c_string(text)?;
        // SAFETY: the text outlives the call; a raw statement holds the tree. A syntax error is PostgreSQL's own.
        unsafe {
            let parsed = list::pointers::<pg_sys::RawStmt>(pg_sys::pg_parse_query(text.as_ptr()));
            let node = (**parsed.first()?).stmt;
            ((*node).type_ == Tag::T_CreatedbStmt).then(|| Definition { statement: node.cast(), text })
        }
    }

    fn option(&self, name: &CStr) -> Option<*mut pg_sys::DefElem> {
        // SAFETY: a parse tree's list of DefElem, each with a name.
        unsafe {
            let options = list::pointers::<pg_sys::DefElem>((*self.statement).options);
            options.into_iter().find(|&option| CStr::from_ptr((*option).defname) == name && !(*option).arg.is_null())
        }
    }

    fn value(&self, name: &CStr) -> Option<*const c_char> {
        // SAFETY: an option with an argument gives a C string that lives as long as the tree.
        self.option(name).map(|option| unsafe { pg_sys::defGetString(option) }.cast_const())
    }
}

/// Makes a database as the definition says, with this server's tablespace for the one that is named, and marks it, in the transaction at hand.
/// False if the definition is none.
pub fn make(definition: &str, tablespaces: &Map, mark: &str) -> bool {
    let Some(definition) = Definition::parse(definition) else { return false };
    // SAFETY: in a transaction of a process of ours that has no other work in it; the tree is this function's own.
    unsafe {
        if let Some(option) = definition.option(c"tablespace") {
            let own = tablespace::own(CStr::from_ptr(pg_sys::defGetString(option)), tablespaces);
            let name = own.unwrap_or_else(|| c"pg_default".to_owned());
            (*option).arg = pg_sys::makeString(pg_sys::pstrdup(name.as_ptr())).cast();
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_sourcetext = definition.text.as_ptr();
        let oid = pg_sys::createdb(state, definition.statement);
        comment(oid, Some(mark));
        pg_sys::PopActiveSnapshot();
    }
    true
}

/// Raises what CREATE DATABASE by this definition would raise on this server if there is no such role. A locale that this server has not got comes
/// back.
pub fn check(definition: &str) -> Option<String> {
    let definition = Definition::parse(definition)?;
    if let Some(owner) = definition.value(c"owner") {
        // SAFETY: a C string; raises an error if there is no such role.
        unsafe { pg_sys::get_role_oid(owner, false) };
    }
    for (option, category) in [(c"lc_collate", libc::LC_COLLATE), (c"lc_ctype", libc::LC_CTYPE)] {
        let Some(locale) = definition.value(option) else { continue };
        // SAFETY: a C string; puts the process's locale back.
        let is_known =
            unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| check_locale(category, locale, std::ptr::null_mut())) };
        if !is_known {
            // SAFETY: as above.
            return Some(encoding::text(unsafe { CStr::from_ptr(locale) }));
        }
    }
    None
}

/// Drops the database, whoever is connected to it; nothing if there is none. In a transaction at whose end it must be committed.
pub fn drop(name: &str) {
    if let Some(name) = encoding::c_string(name) {
        // SAFETY: in a transaction of a process of ours that has no other work in it.
        unsafe { pg_sys::dropdb(name.as_ptr(), true, true) }
    }
}

/// Raises PostgreSQL's own error if that cannot be.
pub fn rename(from: &str, to: &str) {
    if let (Some(from), Some(to)) = (encoding::c_string(from), encoding::c_string(to)) {
        // SAFETY: in a transaction; strings that outlive the call.
        unsafe { pg_sys::RenameDatabase(from.as_ptr(), to.as_ptr()) };
    }
}

/// Keeps everybody from dropping or renaming the database until the transaction ends; waits for whoever does. Whether it goes by this name then.
pub fn hold(name: &str) -> bool {
    lock(name, pg_sys::AccessShareLock)
}

/// Keeps everybody from connecting to it, and waits for those who [`hold`] it.
pub fn take(name: &str) -> bool {
    lock(name, pg_sys::AccessExclusiveLock)
}

fn lock(name: &str, mode: u32) -> bool {
    let Some(oid) = catalog::database_oid(name) else { return false };
    // SAFETY: in a transaction, which gives the lock back.
    unsafe { pg_sys::LockSharedObject(pg_sys::DatabaseRelationId, oid, 0, mode as pg_sys::LOCKMODE) };
    catalog::database_oid(name) == Some(oid)
}

/// Gives the database this comment, or none; inside a transaction.
pub fn mark(name: &str, mark: Option<&str>) {
    if let Some(oid) = catalog::database_oid(name) {
        comment(oid, mark);
    }
}

fn comment(oid: Oid, text: Option<&str>) {
    let text = text.and_then(encoding::c_string);
    let pointer = text.as_ref().map_or(std::ptr::null(), |text| text.as_ptr());
    // SAFETY: writes to a shared catalog in the transaction at hand; the string outlives the call.
    unsafe { pg_sys::CreateSharedComments(oid, pg_sys::DatabaseRelationId, pointer) }
}

/// CREATE DATABASE for a database like this one, under another name, from nothing: what its own statement left to defaults is said.
pub fn definition_of(made: &str, name: &str) -> Option<String> {
    // SAFETY: in a transaction: what it has done so far is to be seen.
    unsafe { pg_sys::CommandCounterIncrement() };
    query::text(&format!(
        "SELECT pg_catalog.format('CREATE DATABASE %I WITH TEMPLATE template0 OWNER %I ENCODING %L LOCALE_PROVIDER %s LC_COLLATE %L LC_CTYPE %L%s'
                ' TABLESPACE %I CONNECTION LIMIT %s ALLOW_CONNECTIONS %s IS_TEMPLATE %s', {}::text, pg_catalog.pg_get_userbyid(d.datdba),
                pg_catalog.pg_encoding_to_char(d.encoding), CASE d.datlocprovider WHEN 'i' THEN 'icu' WHEN 'b' THEN 'builtin' ELSE 'libc' END, d.datcollate, d.datctype,
                CASE d.datlocprovider WHEN 'i' THEN pg_catalog.format(' ICU_LOCALE %L', l.locale) WHEN 'b' THEN pg_catalog.format(' BUILTIN_LOCALE %L', l.locale) ELSE '' END
                || CASE WHEN l.rules <> '' THEN pg_catalog.format(' ICU_RULES %L', l.rules) ELSE '' END, t.spcname, d.datconnlimit, d.datallowconn::text, d.datistemplate::text)
         FROM pg_catalog.pg_database d JOIN pg_catalog.pg_tablespace t ON t.oid = d.dattablespace,
              LATERAL (SELECT coalesce(pg_catalog.to_jsonb(d)->>'datlocale', pg_catalog.to_jsonb(d)->>'daticulocale') AS locale,
                              pg_catalog.to_jsonb(d)->>'daticurules' AS rules) l
         WHERE d.datname = {}",
        query::literal(name),
        query::literal(made)
    ))
}
