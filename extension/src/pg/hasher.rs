//! How one value of an index's column is hashed.
//!
//! What an index calls equal must hash alike, on every node. By the column's operator class:
//!
//! 1. equal means equal bytes (the class has an *equalimage* support function that says yes: integers, uuid, text under a
//!    deterministic collation, ...): the bytes are hashed, integers by value so that int4 and int8 agree;
//! 2. an enum's bytes are OIDs: its label is hashed;
//! 3. a regclass or its kin is an OID: the identity of the object that it names is hashed;
//! 4. the class's equality is that of the type's default hash class (numeric, float8, citext, non-deterministic text, ...): the
//!    extended hash function is called;
//! 5. else all values count as equal: *coarse*. It costs needless aborts, never a missed conflict.
//!
//! bpchar goes by its hash function whatever its class says (older minor releases say yes): a char(5) that refers to a char(10) is
//! equal to it with fewer blanks.

use gcs_writeset::key::{bytes_hash, mix};
use pgrx::pg_sys;

use super::majors::relation::attributes;
use super::memory::Context;
use super::names::Oid;
use super::naming;
use super::object::Class;
use super::types::{Kind, is_physical, type_kind};
use super::varlena::with_varlena;

/// The number of btree's support function "equal image".
const EQUALIMAGE: i16 = 4;

/// What the hash of a whole key starts from: of an index and of a foreign key that refers to it alike.
pub(super) const FIRST: u64 = 0x756e_6971;

pub(super) enum Hasher {
    Integer(i16),
    FixedBytes(usize),
    Bytes,
    Label(Box<pg_sys::FmgrInfo>),
    Name(Class),
    Function(Box<pg_sys::FmgrInfo>, pg_sys::Oid),
    Coarse,
}

impl Hasher {
    /// # Safety
    /// `index` must be open and have a key column `at`.
    pub(super) unsafe fn for_index_column(index: pg_sys::Relation, at: usize, context: &Context) -> Hasher {
        // SAFETY: by contract the arrays hold that column.
        unsafe {
            let family = *(*index).rd_opfamily.add(at);
            let class_type = *(*index).rd_opcintype.add(at);
            let collation = *(*index).rd_indcollation.add(at);
            let actual = pg_sys::getBaseType(stored_type(index, at));
            if let Some(hasher) = Hasher::by_name(actual, context) {
                return hasher;
            }
            if type_kind(class_type) == Kind::Base
                && class_type != pg_sys::BPCHAROID
                && has_equal_images(family, class_type, collation)
                && is_physical(actual)
            {
                let (mut length, mut byval) = (0, false);
                pg_sys::get_typlenbyval(actual, &mut length, &mut byval);
                return match length {
                    _ if byval => Hasher::Integer(length),
                    -1 => Hasher::Bytes,
                    length if length > 0 => Hasher::FixedBytes(length as usize),
                    _ => Hasher::Coarse,
                };
            }
            let equality = pg_sys::get_opfamily_member(family, class_type, class_type, pg_sys::BTEqualStrategyNumber as i16);
            Hasher::by_function(equality, class_type, actual, collation, context)
        }
    }

    /// For a column of an exclusion constraint that compares it by `operator`; its values are of type `declared`, which need not be what the index
    /// stores. Coarse unless the operator is what the type calls equal: only then are rows that exclude each other equal in this column.
    ///
    /// # Safety
    /// `index` must be open and have a key column `at`.
    pub(super) unsafe fn for_excluded_column(
        index: pg_sys::Relation,
        at: usize,
        (declared, operator): (Oid, Oid),
        context: &Context,
    ) -> Hasher {
        // SAFETY: by contract the arrays hold that column.
        unsafe {
            let class_type = *(*index).rd_opcintype.add(at);
            let collation = *(*index).rd_indcollation.add(at);
            let actual = pg_sys::getBaseType(declared);
            let looked_up = if type_kind(class_type) == Kind::Pseudo { actual } else { class_type };
            if operator != (*pg_sys::lookup_type_cache(looked_up, pg_sys::TYPECACHE_EQ_OPR as i32)).eq_opr {
                return Hasher::Coarse;
            }
            let by_name = Hasher::by_name(actual, context);
            by_name.unwrap_or_else(|| Hasher::by_function(operator, class_type, actual, collation, context))
        }
    }

    /// Of a type whose values are OIDs of something.
    fn by_name(actual: Oid, context: &Context) -> Option<Hasher> {
        if type_kind(actual) != Kind::Enum {
            return Class::named_by(actual).map(Hasher::Name);
        }
        let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
        // SAFETY: a look-up in the catalogs.
        unsafe { pg_sys::getTypeOutputInfo(actual, &mut output, &mut varlena) };
        Some(Hasher::Label(function(output, context)))
    }

    fn by_function(equality: Oid, class_type: Oid, actual: Oid, collation: Oid, context: &Context) -> Hasher {
        // Extension types are taken at their word; what is made of other types only if those are physical.
        let trusted = is_physical(actual) || (type_kind(actual) == Kind::Base && !is_array(actual));
        if !trusted {
            return Hasher::Coarse;
        }
        let looked_up = if type_kind(class_type) == Kind::Pseudo { actual } else { class_type };
        // SAFETY: catalog look-ups; the entry lives as long as the process.
        unsafe {
            let flags = pg_sys::TYPECACHE_EQ_OPR | pg_sys::TYPECACHE_HASH_EXTENDED_PROC;
            let entry = &*pg_sys::lookup_type_cache(looked_up, flags as i32);
            if equality == pg_sys::InvalidOid || equality != entry.eq_opr || entry.hash_extended_proc == pg_sys::InvalidOid {
                return Hasher::Coarse;
            }
            Hasher::Function(function(entry.hash_extended_proc, context), collation)
        }
    }

    /// None if this hasher does not tell values apart.
    pub(super) fn hash(&self, datum: pg_sys::Datum) -> Option<u64> {
        // SAFETY: each hasher is made for the type of the values it is given.
        unsafe {
            Some(match self {
                Hasher::Integer(length) => mix(sign_extended(datum, *length)),
                Hasher::FixedBytes(length) => bytes_hash(std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), *length)),
                Hasher::Bytes => with_varlena(datum, bytes_hash),
                Hasher::Label(output) => {
                    let output = std::ptr::from_ref(&**output).cast_mut();
                    let label = pg_sys::OutputFunctionCall(output, datum);
                    let hash = bytes_hash(std::ffi::CStr::from_ptr(label).to_bytes());
                    pg_sys::pfree(label.cast());
                    hash
                }
                Hasher::Name(class) => bytes_hash(&naming::bytes(*class, Oid::from(datum.value() as u32))),
                Hasher::Function(function, collation) => {
                    let function = std::ptr::from_ref(&**function).cast_mut();
                    pg_sys::FunctionCall2Coll(function, *collation, datum, pg_sys::Datum::from(0u64)).value() as u64
                }
                Hasher::Coarse => return None,
            })
        }
    }
}

pub(super) fn sign_extended(datum: pg_sys::Datum, length: i16) -> u64 {
    let value = datum.value() as u64;
    match length {
        1 => value as i8 as i64 as u64,
        2 => value as i16 as i64 as u64,
        4 => value as i32 as i64 as u64,
        _ => value,
    }
}

/// # Safety
/// `index` must be open and have a key column `at`.
pub(super) unsafe fn stored_type(index: pg_sys::Relation, at: usize) -> Oid {
    // SAFETY: by contract. The index's own descriptor names the stored type of each column.
    unsafe { attributes((*index).rd_att)[at].atttypid }
}

pub(super) fn is_integer(typid: Oid) -> bool {
    [pg_sys::INT2OID, pg_sys::INT4OID, pg_sys::INT8OID].contains(&typid)
}

fn is_array(typid: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::get_element_type(typid) != pg_sys::InvalidOid }
}

/// Whether the operator class says that equal values have equal bytes.
fn has_equal_images(family: Oid, class_type: Oid, collation: Oid) -> bool {
    // SAFETY: support function 4 of a btree class takes the type's OID and gives a boolean.
    unsafe {
        let function = pg_sys::get_opfamily_proc(family, class_type, class_type, EQUALIMAGE);
        function != pg_sys::InvalidOid
            && pg_sys::OidFunctionCall1Coll(function, collation, pg_sys::Datum::from(class_type)).value() & 0xff != 0
    }
}

pub(super) fn function(oid: Oid, context: &Context) -> Box<pg_sys::FmgrInfo> {
    let mut function = Box::new(pg_sys::FmgrInfo::default());
    // SAFETY: the look-up lives in the box, what it allocates in `context`, which the same table owns.
    unsafe { pg_sys::fmgr_info_cxt(oid, &mut *function, context.raw()) };
    function
}
