//! Kinds of statements that take any kind of object: DROP, RENAME, SET SCHEMA, OWNER TO, COMMENT, GRANT. Those about objects whose creation is ordered are
//! ordered, too.

use pgrx::pg_sys;
use pgrx::pg_sys::ObjectType;

use super::class::{Class, NOT_YET, Ordered, SHARED_OBJECT};
use super::list;
use super::named::find;
use super::names::{Oid, valid};
use super::relation::Persistence;
use super::{global, lifetimes, relation, trigger, upkeep};

/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn drop(statement: &pg_sys::DropStmt) -> Result<Class, &'static str> {
    use ObjectType as O;
    match statement.removeType {
        O::OBJECT_INDEX => {
            // SAFETY: of a parse tree.
            let (travels_as, temporary) =
                unsafe { (upkeep::drops_not_valid(statement, find), upkeep::drops_temporary(statement, find)) };
            // SAFETY: as above.
            let travels_as = travels_as.or_else(|| unsafe { lifetimes::without_temporary(statement) });
            let concurrently = statement.concurrent && !temporary;
            Ok(Class::Ordered(Ordered { needs_relation: true, concurrently, travels_as, ..Ordered::default() }))
        }
        O::OBJECT_TABLE | O::OBJECT_FOREIGN_TABLE | O::OBJECT_SEQUENCE | O::OBJECT_VIEW | O::OBJECT_MATVIEW => {
            // SAFETY: of a parse tree.
            let travels_as = unsafe { lifetimes::without_temporary(statement) };
            Ok(Class::Ordered(Ordered { needs_relation: true, travels_as, ..Ordered::default() }))
        }
        // SAFETY: of a parse tree.
        O::OBJECT_TRIGGER => Ok(unsafe { drop_trigger(statement) }),
        // A value of a type that goes is in a column that goes with it.
        kind => by_object_type(kind).map(|class| match class {
            Class::Ordered(ordered) => Class::Ordered(Ordered { needs_object: true, changes_types: false, ..ordered }),
            other => other,
        }),
    }
}

/// Without the trigger that excludes a table from replication, the rows of the node where it is dropped become everybody's.
unsafe fn drop_trigger(statement: &pg_sys::DropStmt) -> Class {
    let mut ordered = Ordered { needs_object: true, ..Ordered::default() };
    // SAFETY: of a parse tree: lists of the table's name, with the trigger's behind it.
    unsafe {
        for name in list::pointers::<pg_sys::List>(statement.objects) {
            let mut parts = list::pointers::<pg_sys::String>(name);
            let (Some(trigger), false) = (parts.pop(), parts.is_empty()) else { continue };
            let table = parts.iter().fold(std::ptr::null_mut(), |names, &part| pg_sys::lappend(names, part.cast()));
            let Some(table) = find(pg_sys::makeRangeVarFromNameList(table)) else { continue };
            let is_excluded = relation::entry(table).is_some_and(|entry| entry.persistence == Persistence::Excluded);
            let trigger = valid(pg_sys::get_trigger_oid(table, (*trigger).sval, true));
            if is_excluded && trigger::marks_among(trigger.into_iter()) {
                ordered.targets.push(table);
                ordered.evaluated.shares = true;
            }
        }
    }
    Class::Ordered(ordered)
}

/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn rename(statement: &pg_sys::RenameStmt) -> Result<Class, &'static str> {
    use ObjectType as O;
    // SAFETY: of a parse tree.
    let targets = unsafe { find(statement.relation) }.into_iter().collect();
    match statement.renameType {
        O::OBJECT_SCHEMA | O::OBJECT_ATTRIBUTE | O::OBJECT_TYPE | O::OBJECT_DOMAIN => {
            Ok(Class::Ordered(Ordered { targets, changes_types: true, ..Ordered::default() }))
        }
        O::OBJECT_COLUMN | O::OBJECT_TABCONSTRAINT => Ok(Class::Ordered(Ordered { targets, ..Ordered::default() })),
        kind => by_object_type(kind).map(|class| match class {
            Class::Ordered(ordered) => Class::Ordered(Ordered { targets, ..ordered }),
            other => other,
        }),
    }
}

/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn alter_schema(statement: &pg_sys::AlterObjectSchemaStmt) -> Result<Class, &'static str> {
    // SAFETY: of a parse tree.
    let targets: Vec<Oid> = unsafe { find(statement.relation) }.into_iter().collect();
    by_object_type(statement.objectType).map(|class| match class {
        Class::Ordered(ordered) => Class::Ordered(Ordered { targets, ..ordered }),
        other => other,
    })
}

/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn grant(statement: &pg_sys::GrantStmt) -> Result<Class, &'static str> {
    // SAFETY: of a parse tree.
    if statement.objtype == ObjectType::OBJECT_DATABASE && unsafe { global::names_this_database(statement) } {
        return Err("Grant on this database, which is replicated, by itself.");
    }
    about(statement.objtype)
}

/// COMMENT, GRANT and OWNER TO leave how a type reads as it is.
pub(super) fn about(kind: ObjectType::Type) -> Result<Class, &'static str> {
    by_object_type(kind).map(|class| match class {
        Class::Ordered(ordered) => Class::Ordered(Ordered { changes_types: false, ..ordered }),
        other => other,
    })
}

/// Statements that take any kind of object: those whose creation is ordered are too.
fn by_object_type(kind: ObjectType::Type) -> Result<Class, &'static str> {
    use ObjectType as O;
    match kind {
        O::OBJECT_ACCESS_METHOD
        | O::OBJECT_AGGREGATE
        | O::OBJECT_AMOP
        | O::OBJECT_AMPROC
        | O::OBJECT_CAST
        | O::OBJECT_COLLATION
        | O::OBJECT_COLUMN
        | O::OBJECT_CONVERSION
        | O::OBJECT_DEFAULT
        | O::OBJECT_DEFACL
        | O::OBJECT_EVENT_TRIGGER
        | O::OBJECT_FDW
        | O::OBJECT_FOREIGN_SERVER
        | O::OBJECT_FOREIGN_TABLE
        | O::OBJECT_FUNCTION
        | O::OBJECT_INDEX
        | O::OBJECT_LANGUAGE
        | O::OBJECT_LARGEOBJECT
        | O::OBJECT_OPCLASS
        | O::OBJECT_MATVIEW
        | O::OBJECT_OPERATOR
        | O::OBJECT_OPFAMILY
        | O::OBJECT_POLICY
        | O::OBJECT_PROCEDURE
        | O::OBJECT_PUBLICATION
        | O::OBJECT_PUBLICATION_NAMESPACE
        | O::OBJECT_PUBLICATION_REL
        | O::OBJECT_ROUTINE
        | O::OBJECT_RULE
        | O::OBJECT_SCHEMA
        | O::OBJECT_SEQUENCE
        | O::OBJECT_STATISTIC_EXT
        | O::OBJECT_SUBSCRIPTION
        | O::OBJECT_TABCONSTRAINT
        | O::OBJECT_TABLE
        | O::OBJECT_TRANSFORM
        | O::OBJECT_TRIGGER
        | O::OBJECT_TSCONFIGURATION
        | O::OBJECT_TSDICTIONARY
        | O::OBJECT_TSPARSER
        | O::OBJECT_TSTEMPLATE
        | O::OBJECT_USER_MAPPING
        | O::OBJECT_VIEW => Ok(Class::Ordered(Ordered::default())),
        O::OBJECT_TYPE | O::OBJECT_DOMAIN | O::OBJECT_DOMCONSTRAINT | O::OBJECT_ATTRIBUTE | O::OBJECT_EXTENSION => {
            Ok(Class::Ordered(Ordered { changes_types: true, ..Ordered::default() }))
        }
        O::OBJECT_TABLESPACE | O::OBJECT_DATABASE => Ok(Class::Local),
        O::OBJECT_ROLE | O::OBJECT_PARAMETER_ACL => Err(SHARED_OBJECT),
        _ => Err(NOT_YET),
    }
}
