//! What an object depends on: whether it is temporary, or depends on an object that is; and the relations that a view shows.

use pgrx::pg_sys;

use super::names::{Oid, valid};

/// Of catalog/pg_depend.h, which pgrx does not bind: the catalog, its index by the depending object, and its columns.
const CATALOG: u32 = 2608;
const BY_OBJECT: u32 = 2673;
const CLASS: i16 = 1;
const OBJECT: i16 = 2;
const REFERENCED_CLASS: i32 = 4;
const REFERENCED_OBJECT: i32 = 5;
const KIND: i32 = 7;

/// Catalogs of what belongs to a relation or a domain, and lives as long: column defaults, constraints, rules, triggers, policies.
const PARTS: [u32; 5] = [2604, 2606, 2618, 2620, 3256];
const CASTS: u32 = 2605;
const RULES: u32 = 2618;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    Permanent,
    /// In the schema of a session's temporary objects, or part of what is there.
    Temporary,
    /// Permanent itself, but it depends on a temporary object and is dropped with it.
    OnLoan,
}

/// Whether this is the catalog of functions.
pub fn is_function(class: Oid) -> bool {
    class == pg_sys::ProcedureRelationId
}

/// Makes visible to [`lifetime`] what the current statement did to the catalogs.
pub fn see_own_changes() {
    // SAFETY: between two commands.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// The lifetime of the object with this OID in the catalog `class`.
pub fn lifetime(class: Oid, object: Oid) -> Lifetime {
    let schema = if class == pg_sys::NamespaceRelationId { Some(object) } else { schema_of(class, object) };
    if schema.is_some_and(is_temporary_schema) {
        return Lifetime::Temporary;
    }
    let mut lifetime = Lifetime::Permanent;
    for (referenced_class, referenced, kind) in dependencies(class, object) {
        let belongs = PARTS.contains(&class.to_u32())
            && (kind == pg_sys::DependencyType::DEPENDENCY_AUTO || kind == pg_sys::DependencyType::DEPENDENCY_INTERNAL);
        let is_temporary = if referenced_class == pg_sys::NamespaceRelationId {
            is_temporary_schema(referenced)
        } else if belongs && PARTS.contains(&referenced_class.to_u32()) {
            // A foreign key's trigger, of its constraint.
            self::lifetime(referenced_class, referenced) == Lifetime::Temporary
        } else if schema_of(referenced_class, referenced).is_some_and(is_temporary_schema) {
            lifetime = Lifetime::OnLoan;
            // Without the type, nobody could use the cast.
            belongs || (class.to_u32() == CASTS && referenced_class == pg_sys::TypeRelationId)
        } else {
            false
        };
        if is_temporary {
            return Lifetime::Temporary;
        }
    }
    lifetime
}

fn is_temporary_schema(schema: Oid) -> bool {
    // SAFETY: a catalog look-up.
    unsafe { pg_sys::isAnyTempNamespace(schema) }
}

/// What the object depends on, and how: catalog, OID, kind.
fn dependencies(class: Oid, object: Oid) -> Vec<(Oid, Oid, pg_sys::DependencyType::Type)> {
    let mut found = Vec::new();
    // SAFETY: a scan of pg_depend by its index; the columns that are read are NOT NULL, two oids and a char.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::Oid::from(CATALOG), pg_sys::AccessShareLock as i32);
        let mut keys = [pg_sys::ScanKeyData::default(), pg_sys::ScanKeyData::default()];
        for (key, (column, value)) in keys.iter_mut().zip([(CLASS, class), (OBJECT, object)]) {
            let equals = pg_sys::BTEqualStrategyNumber as u16;
            pg_sys::ScanKeyInit(key, column, equals, pg_sys::F_OIDEQ.into(), pg_sys::Datum::from(value));
        }
        let index = pg_sys::Oid::from(BY_OBJECT);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 2, keys.as_mut_ptr());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let column = |number| {
                let mut is_null = false;
                pg_sys::heap_getattr(tuple, number, (*catalog).rd_att, &mut is_null).value() as u32
            };
            let kind = pg_sys::DependencyType::Type::from(column(KIND) as u8);
            found.push((Oid::from(column(REFERENCED_CLASS)), Oid::from(column(REFERENCED_OBJECT)), kind));
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}

/// A view and what it shows, views in it too.
pub fn shown_by(view: Oid) -> Vec<Oid> {
    let mut found = vec![view];
    let mut next = 0;
    while let Some(&view) = found.get(next) {
        next += 1;
        // SAFETY: closed again at once; a view has its rule, and rules are read before anything else is looked up.
        let rule = unsafe {
            let relation = pg_sys::try_relation_open(view, pg_sys::AccessShareLock as i32);
            if relation.is_null() {
                continue;
            }
            let rules = (*relation).rd_rules;
            let is_view = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_VIEW;
            let rule = (is_view && !rules.is_null() && (*rules).numLocks > 0).then(|| (**(*rules).rules).ruleId);
            pg_sys::relation_close(relation, pg_sys::AccessShareLock as i32);
            rule
        };
        let Some(rule) = rule else { continue };
        for (class, relation, _) in dependencies(Oid::from(RULES), rule) {
            if class == pg_sys::RelationRelationId && !found.contains(&relation) {
                found.push(relation);
            }
        }
    }
    found
}

/// The schema of a relation, function or type; none for objects of other kinds, which are not looked at.
fn schema_of(class: Oid, object: Oid) -> Option<Oid> {
    // SAFETY: syscache look-ups; a tuple is released after its schema was read.
    let schema = unsafe {
        match class {
            pg_sys::RelationRelationId => pg_sys::get_rel_namespace(object),
            pg_sys::ProcedureRelationId => pg_sys::get_func_namespace(object),
            pg_sys::TypeRelationId => {
                let cache = pg_sys::SysCacheIdentifier::TYPEOID as i32;
                let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(object));
                if tuple.is_null() {
                    return None;
                }
                let schema = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple)).typnamespace;
                pg_sys::ReleaseSysCache(tuple);
                schema
            }
            _ => return None,
        }
    };
    valid(schema)
}
