//! What a statement is about, for those of which PostgreSQL reports nothing while they run: COMMENT, GRANT and REVOKE, DEPENDS ON EXTENSION, SECURITY LABEL
//! of a large object.
//!
//! Names are resolved as the statement did it, in its session and search_path, once it has succeeded: so they mean what it has found, and its
//! locks are held. What is gone again (an event trigger has dropped it) is left out.

use pgrx::pg_sys;
use pgrx::pg_sys::GrantTargetType::ACL_TARGET_ALL_IN_SCHEMA;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::list;
use super::named::find;
use super::names::{Oid, valid};

/// An object: its catalog and its OID.
pub type Address = (Oid, Oid);

/// # Safety
/// `node` must be the parse tree of a utility statement that has just run.
pub(super) unsafe fn targets(node: *mut pg_sys::Node) -> Vec<Address> {
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_CommentStmt => {
                let statement = &*node.cast::<pg_sys::CommentStmt>();
                address(statement.objtype, statement.object).into_iter().collect()
            }
            Tag::T_SecLabelStmt => {
                let statement = &*node.cast::<pg_sys::SecLabelStmt>();
                let is_large_object = statement.objtype == ObjectType::OBJECT_LARGEOBJECT;
                is_large_object.then(|| address(statement.objtype, statement.object)).flatten().into_iter().collect()
            }
            Tag::T_AlterObjectDependsStmt => {
                let statement = &*node.cast::<pg_sys::AlterObjectDependsStmt>();
                match find(statement.relation) {
                    // An index or a view, or what belongs to a table: as temporary as that.
                    Some(relation) => vec![(pg_sys::RelationRelationId, relation)],
                    None => address(statement.objectType, statement.object).into_iter().collect(),
                }
            }
            Tag::T_GrantStmt => granted(&*node.cast()),
            _ => Vec::new(),
        }
    }
}

/// # Safety
/// As [`targets`].
unsafe fn granted(statement: &pg_sys::GrantStmt) -> Vec<Address> {
    use ObjectType as O;
    // SAFETY: of a parse tree; the type of object says what the list holds.
    unsafe {
        if statement.targtype == ACL_TARGET_ALL_IN_SCHEMA {
            // Whatever is in a schema is as temporary as the schema; which may go by the name pg_temp.
            let schemas = list::pointers::<pg_sys::String>(statement.objects).into_iter();
            let found = schemas.filter_map(|name| valid(pg_sys::LookupExplicitNamespace((*name).sval, true)));
            return found.map(|schema| (pg_sys::NamespaceRelationId, schema)).collect();
        }
        match statement.objtype {
            // The name of a table may be that of a view or a sequence.
            O::OBJECT_TABLE | O::OBJECT_SEQUENCE | O::OBJECT_COLUMN => list::pointers::<pg_sys::RangeVar>(statement.objects)
                .into_iter()
                .filter_map(|relation| Some((pg_sys::RelationRelationId, find(relation)?)))
                .collect(),
            // Lists of a name's parts; and a domain may go by the name of a type.
            O::OBJECT_TYPE | O::OBJECT_DOMAIN => list::pointers::<pg_sys::List>(statement.objects)
                .into_iter()
                .filter_map(|name| address(O::OBJECT_TYPE, pg_sys::makeTypeNameFromNameList(name).cast()))
                .collect(),
            kind => addresses(kind, statement.objects),
        }
    }
}

/// # Safety
/// `names` must be a parse tree's list of names of this kind of object.
pub(super) unsafe fn addresses(kind: ObjectType::Type, names: *mut pg_sys::List) -> Vec<Address> {
    // SAFETY: by contract.
    unsafe { list::pointers::<pg_sys::Node>(names).into_iter().filter_map(|name| address(kind, name)).collect() }
}

/// # Safety
/// `name` must be a parse tree's name of this kind of object.
unsafe fn address(kind: ObjectType::Type, name: *mut pg_sys::Node) -> Option<Address> {
    // SAFETY: by contract; nothing is raised if there is no such object. The relation that a part belongs to is opened, and closed here; the lock
    // on it stays, below the one that the statement has taken.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let mut relation: pg_sys::Relation = std::ptr::null_mut();
        let found = pg_sys::get_object_address(kind, name, &mut relation, lock, true);
        if !relation.is_null() {
            pg_sys::relation_close(relation, pg_sys::NoLock as pg_sys::LOCKMODE);
        }
        Some((found.classId, valid(found.objectId)?))
    }
}
