//! Which sequences a statement has to do with, by its parse tree.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::encoding;
use super::list;
use super::names::{Oid, valid};
use super::sequence;
use super::utility::Utility;

impl Utility {
    /// Sequences that it changes in a way that makes them start again, from the value at which they are.
    pub fn sequences_that_go_on(&self) -> Vec<Oid> {
        let node = self.node();
        // SAFETY: each tag says what the node is.
        unsafe {
            match (*node).type_ {
                Tag::T_AlterSeqStmt => {
                    let statement = &*node.cast::<pg_sys::AlterSeqStmt>();
                    let goes_on = goes_on(statement.options);
                    find(statement.sequence).filter(|_| goes_on).into_iter().collect()
                }
                Tag::T_AlterTableStmt => {
                    let statement = &*node.cast::<pg_sys::AlterTableStmt>();
                    let commands = list::pointers::<pg_sys::AlterTableCmd>(statement.cmds);
                    if commands.iter().any(|&command| (*command).subtype == pg_sys::AlterTableType::AT_SetUnLogged) {
                        return find(statement.relation).map(sequence::with_owned).unwrap_or_default();
                    }
                    let table = if commands.iter().any(|&command| alters_identity(command)) {
                        find(statement.relation)
                    } else {
                        None
                    };
                    table.map(sequence::of_identity_columns).unwrap_or_default()
                }
                _ => Vec::new(),
            }
        }
    }

    /// The old name of a schema that it renames.
    pub fn renamed_schema(&self) -> Option<String> {
        let node = self.node();
        // SAFETY: as above; the subject's name is there in this form.
        unsafe {
            let statement = ((*node).type_ == Tag::T_RenameStmt).then(|| &*node.cast::<pg_sys::RenameStmt>())?;
            let is_schema = statement.renameType == pg_sys::ObjectType::OBJECT_SCHEMA && !statement.subname.is_null();
            is_schema.then(|| encoding::text(CStr::from_ptr(statement.subname)))
        }
    }

    /// For COPY FROM: the sequences of identity columns that it does not name, whose values it draws.
    pub fn sequences_of_unnamed_columns(&self) -> Vec<Oid> {
        let node = self.node();
        // SAFETY: as above; a list of columns holds strings.
        unsafe {
            if (*node).type_ != Tag::T_CopyStmt {
                return Vec::new();
            }
            let statement = &*node.cast::<pg_sys::CopyStmt>();
            let named: Vec<&CStr> = list::pointers::<pg_sys::String>(statement.attlist)
                .into_iter()
                .map(|column| CStr::from_ptr((*column).sval))
                .collect();
            match find(statement.relation).filter(|_| statement.is_from && !named.is_empty()) {
                Some(table) => sequence::of_identity_columns_but(table, &named),
                None => Vec::new(),
            }
        }
    }
}

/// # Safety
/// `command` must be part of an ALTER TABLE.
unsafe fn alters_identity(command: *const pg_sys::AlterTableCmd) -> bool {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: by contract.
    matches!(unsafe { (*command).subtype }, Kind::AT_AlterColumnType | Kind::AT_SetIdentity)
}

/// # Safety
/// `options` must be of an ALTER SEQUENCE.
unsafe fn goes_on(options: *mut pg_sys::List) -> bool {
    // SAFETY: by contract, a list of DefElem, each with a name.
    let names: Vec<&CStr> = unsafe {
        list::pointers::<pg_sys::DefElem>(options).into_iter().map(|option| CStr::from_ptr((*option).defname)).collect()
    };
    names.iter().any(|&name| name != c"owned_by") && !names.contains(&c"restart")
}

/// # Safety
/// `name` must be null or a parse tree's RangeVar.
unsafe fn find(name: *mut pg_sys::RangeVar) -> Option<Oid> {
    if name.is_null() {
        return None;
    }
    // SAFETY: a look-up by name that raises nothing if it is not there.
    unsafe {
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        valid(pg_sys::RangeVarGetRelidExtended(name, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut()))
    }
}
