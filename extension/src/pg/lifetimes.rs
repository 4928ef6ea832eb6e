//! Statements that name temporary objects and permanent ones.
//!
//! What a statement names decides where it goes; what it comes to from there need not be alike. A DROP of something permanent takes along temporary views
//! of its session, and an ALTER TABLE goes down to temporary tables that inherit from a permanent one: other nodes do the same without them. A DROP that
//! names both travels without the temporary ones.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType as O;

use super::definition;
use super::dependency::{self, Lifetime};
use super::encoding;
use super::list;
use super::named::{find, is_temporary};
use super::names::{Oid, owned, qualified_name, quoted};
use super::relation::{Lock, Open};
use super::target;

/// Whether a statement names nothing temporary, so that whatever else it touches, it touches because of permanent objects. Asked before it runs.
///
/// # Safety
/// `node` must be the parse tree of a utility statement, and `targets` the relations that its class says it names.
pub(super) unsafe fn names_permanent(node: *mut pg_sys::Node, targets: &[Oid]) -> bool {
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_AlterTableStmt | Tag::T_RenameStmt | Tag::T_TruncateStmt => {
                !targets.is_empty() && !targets.iter().any(|&target| is_temporary(target))
            }
            Tag::T_DropStmt => drop_names_permanent(&*node.cast()),
            Tag::T_DropOwnedStmt | Tag::T_ReassignOwnedStmt => true,
            _ => false,
        }
    }
}

fn is_relation(kind: O::Type) -> bool {
    matches!(
        kind,
        O::OBJECT_TABLE
            | O::OBJECT_FOREIGN_TABLE
            | O::OBJECT_INDEX
            | O::OBJECT_SEQUENCE
            | O::OBJECT_VIEW
            | O::OBJECT_MATVIEW
    )
}

/// Relations that a DROP names, as far as they are there.
unsafe fn relations(statement: &pg_sys::DropStmt) -> Vec<Oid> {
    // SAFETY: of a parse tree, for these kinds a list of lists of names.
    unsafe {
        let names = list::pointers::<pg_sys::List>(statement.objects).into_iter();
        names.filter_map(|name| find(pg_sys::makeRangeVarFromNameList(name))).collect()
    }
}

unsafe fn drop_names_permanent(statement: &pg_sys::DropStmt) -> bool {
    // SAFETY: of a parse tree.
    unsafe {
        match statement.removeType {
            kind if is_relation(kind) => !relations(statement).into_iter().any(is_temporary),
            // Parts of a relation: nothing else goes with them. To ask for them would lock the relation ahead of the statement.
            O::OBJECT_RULE | O::OBJECT_TRIGGER | O::OBJECT_POLICY => false,
            kind => {
                let named = target::addresses(kind, statement.objects);
                !named.into_iter().any(|(class, oid)| dependency::lifetime(class, oid) == Lifetime::Temporary)
            }
        }
    }
}

/// A DROP of temporary relations and permanent ones, for other nodes: of the permanent ones.
pub(super) unsafe fn without_temporary(statement: &pg_sys::DropStmt) -> Option<String> {
    if !is_relation(statement.removeType) {
        return None;
    }
    // SAFETY: of a parse tree.
    let (temporary, permanent): (Vec<Oid>, Vec<Oid>) =
        unsafe { relations(statement) }.into_iter().partition(|&relation| is_temporary(relation));
    if temporary.is_empty() || permanent.is_empty() {
        return None;
    }
    let kind = match statement.removeType {
        O::OBJECT_FOREIGN_TABLE => "FOREIGN TABLE",
        O::OBJECT_INDEX => "INDEX",
        O::OBJECT_SEQUENCE => "SEQUENCE",
        O::OBJECT_VIEW => "VIEW",
        O::OBJECT_MATVIEW => "MATERIALIZED VIEW",
        _ => "TABLE",
    };
    let names = permanent.into_iter().filter_map(qualified_name);
    let names: Vec<String> = names.map(|(schema, name)| format!("{}.{}", quoted(&schema), quoted(&name))).collect();
    let cascade = if statement.behavior == pg_sys::DropBehavior::DROP_CASCADE { " CASCADE" } else { "" };
    Some(format!("DROP {kind} {}{cascade}", names.join(", ")))
}

/// Whether a relation that is about to be made is temporary by its name.
///
/// # Safety
/// `name` must be a parse tree's.
pub(super) unsafe fn is_to_be_temporary(name: *const pg_sys::RangeVar) -> bool {
    // SAFETY: by contract; a schema's name is null or a C string.
    unsafe {
        let schema = (*name).schemaname;
        (*name).relpersistence as u8 == pg_sys::RELPERSISTENCE_TEMP
            || (!schema.is_null() && CStr::from_ptr(schema) == c"pg_temp")
    }
}

/// CREATE TABLE (LIKE a temporary table), without anything else, for other nodes: with its columns spelt out.
pub(super) unsafe fn spelt_out(statement: &pg_sys::CreateStmt) -> Option<String> {
    // SAFETY: of a parse tree; each tag says what the node is. The schema that the table will be in is looked up as the statement will.
    unsafe {
        let elements = list::pointers::<pg_sys::Node>(statement.tableElts);
        let [element] = elements.as_slice() else { return None };
        let is_plain = statement.inhRelations.is_null()
            && statement.partspec.is_null()
            && statement.partbound.is_null()
            && statement.ofTypename.is_null()
            && statement.options.is_null()
            && !statement.if_not_exists;
        if !is_plain || (**element).type_ != Tag::T_TableLikeClause || is_to_be_temporary(statement.relation) {
            return None;
        }
        let like = element.cast::<pg_sys::TableLikeClause>();
        let source = find((*like).relation).filter(|&source| (*like).options == 0 && is_temporary(source))?;
        let columns = definition::like(&Open::by_oid(source, Lock::AccessShare)?);
        let schema = pg_sys::RangeVarGetCreationNamespace(statement.relation);
        let schema = owned(pg_sys::get_namespace_name(schema))?;
        let name = encoding::text(CStr::from_ptr((*statement.relation).relname));
        Some(format!("CREATE TABLE {}.{} ({columns})", quoted(&schema), quoted(&name)))
    }
}
