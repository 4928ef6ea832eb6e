//! Being told that what the catalogs say of a relation changed.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::names::{Oid, valid};

type Listener = fn(Option<Oid>);

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Calls `listener` with each relation that changed, none meaning any. Once a process; the listener must not raise errors.
pub fn on_relation_change(listener: Listener) {
    if LISTENER.set(listener).is_ok() {
        // SAFETY: registers callbacks for the life of the process. A schema's new name changes no relation's entry, a
        // constraint's or type's neither, so these count as a change of everything.
        unsafe {
            pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), pg_sys::Datum::null());
            for cache in [pg_sys::SysCacheIdentifier::NAMESPACEOID, pg_sys::SysCacheIdentifier::TYPEOID] {
                pg_sys::CacheRegisterSyscacheCallback(cache as i32, Some(anything_changed), pg_sys::Datum::null());
            }
        }
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn relation_changed(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    if let Some(listener) = LISTENER.get() {
        listener(valid(relation));
    }
}

#[pgrx::pg_guard]
extern "C-unwind" fn anything_changed(_argument: pg_sys::Datum, _cache: std::ffi::c_int, _hash: u32) {
    if let Some(listener) = LISTENER.get() {
        listener(None);
    }
}
