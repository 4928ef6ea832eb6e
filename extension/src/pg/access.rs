//! Being told of every object that is created, altered, dropped or truncated, and of every function about to run.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::large_object;
use super::names::Oid;

/// Catalogs whose entries are reported by the OID of the relation that they are of: pg_index and pg_inherits.
const BY_RELATION: [u32; 2] = [2610, 2611];
const DEFAULTS: pg_sys::Oid = pg_sys::Oid::from_u32(2604);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happened {
    /// Not yet visible in the catalogs.
    Created,
    Altered,
    /// Still visible.
    Dropped,
    Truncated,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Object {
    Relation(Oid),
    Trigger(Oid),
    Type(Oid),
    /// The default of a column, which has no OID yet where this is reported.
    Default {
        relation: Oid,
        column: i16,
    },
    /// An object of the catalog `class`.
    Other {
        class: Oid,
        oid: Oid,
    },
}

impl Object {
    /// The catalog that holds the object, and the object's OID; none for what has none yet.
    pub fn address(self) -> (Oid, Oid) {
        match self {
            Object::Relation(oid) => (pg_sys::RelationRelationId, oid),
            Object::Trigger(oid) => (pg_sys::TriggerRelationId, oid),
            Object::Type(oid) => (pg_sys::TypeRelationId, oid),
            Object::Default { relation, column } => {
                // SAFETY: a scan of pg_attrdef by its index; InvalidOid if there is none.
                let find = || unsafe { GetAttrDefaultOid(relation, column) };
                // SAFETY: an ERROR becomes a panic here.
                (DEFAULTS, unsafe { pg_sys::ffi::pg_guard_ffi_boundary(find) })
            }
            Object::Other { class, oid } => (class, oid),
        }
    }
}

#[derive(Clone, Copy)]
pub struct Listener {
    pub object: fn(Happened, Object),
    pub function: fn(Oid),
}

unsafe extern "C-unwind" {
    /// Of catalog/pg_attrdef.h, which pgrx does not bind.
    fn GetAttrDefaultOid(relation: Oid, column: pg_sys::AttrNumber) -> Oid;
}

struct Hook {
    listener: Listener,
    previous: pg_sys::object_access_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// Installs the hook; once a process, from `_PG_init`.
pub fn on_access(listener: Listener) {
    // SAFETY: a plain variable, set while the library loads; the previous value is kept and called.
    unsafe {
        if HOOK.set(Hook { listener, previous: pg_sys::object_access_hook }).is_ok() {
            pg_sys::object_access_hook = Some(accessed);
        }
    }
}

/// # Safety
/// Called by PostgreSQL. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn accessed(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: std::ffi::c_int,
    argument: *mut std::ffi::c_void,
) {
    // SAFETY: passes on what we were given.
    unsafe {
        if let Some(previous) = HOOK.get().and_then(|hook| hook.previous) {
            previous(access, class, object, part, argument);
        }
        tell(access, class, object, part);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(
    access: pg_sys::ObjectAccessType::Type,
    class: pg_sys::Oid,
    object: pg_sys::Oid,
    part: std::ffi::c_int,
) {
    let Some(hook) = HOOK.get() else { return };
    let happened = match access {
        pg_sys::ObjectAccessType::OAT_POST_CREATE => Happened::Created,
        pg_sys::ObjectAccessType::OAT_POST_ALTER => Happened::Altered,
        pg_sys::ObjectAccessType::OAT_DROP => Happened::Dropped,
        pg_sys::ObjectAccessType::OAT_TRUNCATE => Happened::Truncated,
        pg_sys::ObjectAccessType::OAT_FUNCTION_EXECUTE => {
            (hook.listener.function)(object);
            return;
        }
        _ => return,
    };
    // A new, changed or dropped column changes its relation.
    let happened = if part != 0 { Happened::Altered } else { happened };
    match class {
        DEFAULTS if part != 0 => {
            (hook.listener.object)(happened, Object::Default { relation: object, column: part as i16 });
        }
        _ if BY_RELATION.contains(&class.to_u32()) => (hook.listener.object)(happened, Object::Relation(object)),
        pg_sys::RelationRelationId => (hook.listener.object)(happened, Object::Relation(object)),
        pg_sys::TriggerRelationId => (hook.listener.object)(happened, Object::Trigger(object)),
        pg_sys::TypeRelationId => (hook.listener.object)(happened, Object::Type(object)),
        _ => (hook.listener.object)(happened, Object::Other { class, oid: object }),
    }
}

impl Object {
    /// The database that it is, if it is one.
    pub fn database(self) -> Option<Oid> {
        match self {
            Object::Other { class, oid } if class == pg_sys::DatabaseRelationId => Some(oid),
            _ => None,
        }
    }

    /// The number of the large object that it is, if it is one.
    pub fn large_object(self) -> Option<Oid> {
        match self {
            Object::Other { class, oid } if class.to_u32() == large_object::CATALOG => Some(oid),
            _ => None,
        }
    }
}

/// The catalog of triggers.
pub const TRIGGERS: Oid = pg_sys::TriggerRelationId;

/// The table a trigger belongs to.
pub fn table_of_trigger(trigger: Oid) -> Option<Oid> {
    of_trigger(trigger, |form| form.tgrelid)
}

/// The function that a trigger calls.
pub(super) fn function_of_trigger(trigger: Oid) -> Option<Oid> {
    of_trigger(trigger, |form| form.tgfoid)
}

fn of_trigger(trigger: Oid, part: fn(&pg_sys::FormData_pg_trigger) -> Oid) -> Option<Oid> {
    // SAFETY: a scan of pg_trigger by its index on oid.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::TriggerRelationId, pg_sys::AccessShareLock as i32);
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyInit(
            &mut key,
            pg_sys::Anum_pg_trigger_oid as i16,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::F_OIDEQ.into(),
            pg_sys::Datum::from(trigger),
        );
        let index = pg_sys::Oid::from(pg_sys::TriggerOidIndexId);
        let scan = pg_sys::systable_beginscan(catalog, index, true, std::ptr::null_mut(), 1, &mut key);
        let tuple = pg_sys::systable_getnext(scan);
        let found = (!tuple.is_null()).then(|| part(&*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_trigger>(tuple)));
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
        found
    }
}
