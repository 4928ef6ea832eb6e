//! What a type is, and whether its values have the same bytes on every node.

use pgrx::pg_sys;

use super::object::Class;

/// The first OID that initdb or a user may assign; below it every node has the same.
const FIRST_UNPINNED_OID: u32 = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Base,
    Composite,
    Enum,
    Range,
    Pseudo,
}

/// What a type is, domains looked through.
pub(super) fn type_kind(typid: pg_sys::Oid) -> Kind {
    // SAFETY: syscache look-ups.
    let kind = unsafe { pg_sys::get_typtype(pg_sys::getBaseType(typid)) } as u8;
    match kind {
        b'c' => Kind::Composite,
        b'e' => Kind::Enum,
        b'r' | b'm' => Kind::Range,
        b'p' => Kind::Pseudo,
        _ => Kind::Base,
    }
}

/// Whether the in-memory bytes of a type mean the same on every node.
pub(super) fn is_physical(typid: pg_sys::Oid) -> bool {
    let (base, looked_at) = base_and_element(typid);
    base.to_u32() < FIRST_UNPINNED_OID
        && looked_at.to_u32() < FIRST_UNPINNED_OID
        && matches!(type_kind(looked_at), Kind::Base | Kind::Range)
        && !holds_oids(typid)
}

/// Whether a type's values, or the elements of its arrays, stand for objects of this node by their OIDs.
fn holds_oids(typid: pg_sys::Oid) -> bool {
    let element = base_and_element(typid).1;
    element == pg_sys::ACLITEMOID || Class::named_by(element).is_some()
}

/// The type without domains, and what it is an array of, else itself.
pub(super) fn base_and_element(typid: pg_sys::Oid) -> (pg_sys::Oid, pg_sys::Oid) {
    // SAFETY: syscache look-ups.
    let (base, element) = unsafe {
        let base = pg_sys::getBaseType(typid);
        (base, pg_sys::get_element_type(base))
    };
    (base, if element == pg_sys::InvalidOid { base } else { element })
}
