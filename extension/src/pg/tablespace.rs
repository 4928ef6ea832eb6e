//! Tablespaces: where a node keeps its files is the node's own affair.
//!
//! A tablespace is a directory of one machine. So statements about tablespaces themselves are of the node on which they are run, and a statement that puts a
//! table or an index into one means, wherever it is applied, the tablespace that this node has for it: as the node's configuration says
//! (`postgres_r.tablespaces`), else the one of the same name, else none, which is the node's default.

use std::ffi::{CStr, CString, c_char};

use pgrx::pg_sys;
use pgrx::pg_sys::AlterTableType as Kind;
use pgrx::pg_sys::NodeTag as Tag;
use postgres_r_protocol::tablespaces::Map;

use super::encoding;
use super::list;

/// Statements about tablespaces themselves, but for those that take any kind of object.
pub(super) fn is_about(tag: Tag) -> bool {
    matches!(
        tag,
        Tag::T_CreateTableSpaceStmt
            | Tag::T_DropTableSpaceStmt
            | Tag::T_AlterTableSpaceOptionsStmt
            // Which tables it moves depends on where each node keeps them.
            | Tag::T_AlterTableMoveAllStmt
    )
}

/// The places in a statement where a tablespace is named.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
unsafe fn places(node: *mut pg_sys::Node) -> Vec<*mut *mut c_char> {
    let mut places = Vec::new();
    // SAFETY: each tag says what the node is; the kind of a command says what its definition is.
    unsafe {
        match (*node).type_ {
            Tag::T_CreateStmt => {
                let statement = node.cast::<pg_sys::CreateStmt>();
                places.push(&raw mut (*statement).tablespacename);
                for element in [(*statement).tableElts, (*statement).constraints] {
                    for element in list::pointers::<pg_sys::Node>(element) {
                        in_element(element, &mut places);
                    }
                }
            }
            Tag::T_IndexStmt => places.push(&raw mut (*node.cast::<pg_sys::IndexStmt>()).tableSpace),
            Tag::T_CreateTableAsStmt => {
                places.push(&raw mut (*(*node.cast::<pg_sys::CreateTableAsStmt>()).into).tableSpaceName);
            }
            Tag::T_AlterTableStmt => {
                for command in list::pointers::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds) {
                    match (*command).subtype {
                        Kind::AT_SetTableSpace => places.push(&raw mut (*command).name),
                        Kind::AT_AddConstraint | Kind::AT_AddColumn => in_element((*command).def, &mut places),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
        places.retain(|&place| !(*place).is_null());
    }
    places
}

/// # Safety
/// `element` must be a parse tree's column, constraint, or something else of a table.
unsafe fn in_element(element: *mut pg_sys::Node, places: &mut Vec<*mut *mut c_char>) {
    // SAFETY: the tag says what the node is.
    unsafe {
        match (*element).type_ {
            Tag::T_Constraint => places.push(&raw mut (*element.cast::<pg_sys::Constraint>()).indexspace),
            Tag::T_ColumnDef => {
                let constraints = list::pointers::<pg_sys::Constraint>((*element.cast::<pg_sys::ColumnDef>()).constraints);
                places.extend(constraints.into_iter().map(|constraint| &raw mut (*constraint).indexspace));
            }
            _ => {}
        }
    }
}

/// The tablespace that a statement names, but for the one that every server has.
///
/// # Safety
/// As [`places`].
pub(super) unsafe fn named(node: *mut pg_sys::Node) -> Option<String> {
    // SAFETY: by contract; names are C strings.
    let mut names = unsafe { places(node).into_iter().map(|place| CStr::from_ptr(*place)) };
    names.find(|&name| name != c"pg_default").map(encoding::text)
}

/// The node's own tablespace for one of another node; none if that is its default.
pub(super) fn own(theirs: &CStr, map: &Map) -> Option<CString> {
    let mapped = map.find(&encoding::text(theirs)).and_then(|name| CString::new(name).ok());
    let name = mapped.unwrap_or_else(|| theirs.to_owned());
    // SAFETY: missing_ok.
    let is_here = unsafe { pg_sys::get_tablespace_oid(name.as_ptr(), true) } != pg_sys::InvalidOid;
    is_here.then_some(name)
}

/// Puts the node's own tablespaces in the place of those of another node. Of an ALTER TABLE that only moves the table to where it may stay, no command is left.
///
/// # Safety
/// `node` must be a private copy of a parse tree.
pub(super) unsafe fn put_own(node: *mut pg_sys::Node, map: &Map) {
    // SAFETY: by contract; names are C strings, and what takes their places is palloc'd like the tree.
    unsafe {
        for place in places(node) {
            let own = own(CStr::from_ptr(*place), map);
            *place = own.map_or(std::ptr::null_mut(), |name| pg_sys::pstrdup(name.as_ptr()));
        }
        if (*node).type_ == Tag::T_AlterTableStmt {
            let statement = node.cast::<pg_sys::AlterTableStmt>();
            let commands = list::pointers::<pg_sys::AlterTableCmd>((*statement).cmds).into_iter();
            let left =
                commands.filter(|&command| (*command).subtype != Kind::AT_SetTableSpace || !(*command).name.is_null());
            (*statement).cmds =
                left.fold(std::ptr::null_mut(), |commands, command| pg_sys::lappend(commands, command.cast()));
        }
    }
}
