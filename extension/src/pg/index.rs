//! Unique indexes, exclusion constraints and foreign keys, and how a row's key in one is hashed.
//!
//! What an index calls equal must hash alike, on every node. By the column's operator class:
//!
//! 1. equal means equal bytes (the class has an *equalimage* support function that says yes: integers, uuid, text under a
//!    deterministic collation, ...): the bytes are hashed, integers by value so that int4 and int8 agree;
//! 2. an enum's bytes are OIDs: its label is hashed;
//! 3. the class's equality is that of the type's default hash class (numeric, float8, citext, non-deterministic text, ...): the
//!    extended hash function is called;
//! 4. else all values count as equal: *coarse*. It costs needless aborts, never a missed conflict.
//!
//! bpchar goes by its hash function whatever its class says (older minor releases say yes): a char(5) that refers to a char(10) is
//! equal to it with fewer blanks.

use gcs_writeset::key::{bytes_hash, mix, name_hash};
use pgrx::pg_sys;

use super::datum::{Kind, is_physical, type_kind, with_varlena};
use super::list;
use super::memory::Context;
use super::relation::{Oid, Row, name_of, owned, qualified_name};

/// The number of btree's support function "equal image".
const EQUALIMAGE: i16 = 4;

/// The number of column conindid of pg_constraint, whose header pgrx does not bind.
const CONINDID: i16 = 10;

unsafe extern "C-unwind" {
    /// Of catalog/partition.h, which pgrx does not bind.
    fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
}

/// A row's key in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKey {
    /// Nulls keep it from being equal to anything, or the index's predicate leaves the row out.
    None,
    Hash(u64),
}

pub struct Index {
    pub oid: Oid,
    pub name: String,
    /// Hash of the names that the index's keys go by: those of the topmost partitioned index above it.
    pub key_name: u64,
    /// Relations whose change makes this description stale.
    pub depends_on: Vec<Oid>,
    /// Whether foreign keys rely on it.
    pub is_referenced: bool,
    pub is_primary: bool,
    pub is_exclusion: bool,
    /// Checked at once, not at the end of the transaction.
    pub is_immediate: bool,
    /// Plain columns in key order, as indexes among all attributes; none if it has expressions or a predicate.
    pub attributes: Option<Vec<usize>>,
    nulls_distinct: bool,
    hashers: Vec<Hasher>,
    /// Expressions and predicate.
    info: *mut pg_sys::IndexInfo,
}

impl Index {
    /// None for indexes that constrain nothing. Memory goes to `context`.
    pub(super) fn describe(oid: Oid, is_referenced: bool, context: &Context) -> Option<Index> {
        // SAFETY: its table is open and locked, so its index can be opened; what is kept is copied into `context`.
        unsafe {
            let relation = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let form = &*(*relation).rd_index;
            let constrains = (form.indisunique || form.indisexclusion) && form.indislive && form.indisready;
            let index = constrains.then(|| Index { is_referenced, ..Index::describe_open(relation, context) });
            pg_sys::index_close(relation, pg_sys::NoLock as i32);
            index
        }
    }

    /// # Safety
    /// `relation` must be an open index.
    unsafe fn describe_open(relation: pg_sys::Relation, context: &Context) -> Index {
        // SAFETY: by contract; indnkeyatts entries are in each of the arrays.
        unsafe {
            let form = &*(*relation).rd_index;
            let oid = (*relation).rd_id;
            let info = context.with(|| pg_sys::BuildIndexInfo(relation));
            let plain = (*info).ii_Expressions.is_null() && (*info).ii_Predicate.is_null();
            let keys = form.indnkeyatts as usize;
            let attributes: Vec<i16> = (0..keys).map(|i| (*info).ii_IndexAttrNumbers[i]).collect();
            let hashers = if form.indisexclusion {
                vec![Hasher::Coarse]
            } else {
                (0..keys).map(|i| Hasher::for_index_column(relation, i, context)).collect()
            };
            let names = Names::of_index(oid);
            Index {
                oid,
                name: name_of(&(*(*relation).rd_rel).relname),
                key_name: names.hash,
                depends_on: names.depends_on,
                is_referenced: false,
                is_primary: form.indisprimary,
                is_exclusion: form.indisexclusion,
                is_immediate: form.indimmediate,
                attributes: (plain && attributes.iter().all(|&a| a > 0))
                    .then(|| attributes.iter().map(|&a| a as usize - 1).collect()),
                nulls_distinct: !(*info).ii_NullsNotDistinct,
                hashers,
                info,
            }
        }
    }

    /// The row's key in this index.
    pub fn key(&self, row: Row<'_>) -> IndexKey {
        if self.is_exclusion {
            return IndexKey::Hash(0);
        }
        match &self.attributes {
            Some(attributes) => self.hash(attributes.iter().map(|&attribute| row.get(attribute))),
            None => self.evaluate(row),
        }
    }

    /// Whether a foreign key could point to it: PostgreSQL takes its columns for the row's key.
    pub fn may_be_referenced(&self) -> bool {
        self.is_immediate && !self.is_exclusion && self.attributes.is_some()
    }

    pub fn column_count(&self) -> usize {
        self.hashers.len()
    }

    /// Whether a value of type `subtype` that is looked for in a column can be hashed like the column's own.
    ///
    /// # Safety
    /// `index` must be this one, open, and have a key column `at`.
    pub(super) unsafe fn can_look_up(&self, index: pg_sys::Relation, at: usize, subtype: Oid) -> bool {
        // SAFETY: by contract.
        let (class_type, actual) = unsafe { (*(*index).rd_opcintype.add(at), pg_sys::getBaseType(parent_type(index, at))) };
        match &self.hashers[at] {
            Hasher::Coarse => false,
            Hasher::Integer(_) if is_integer(actual) => is_integer(subtype),
            // Stored values are padded alike, others need not be.
            _ => subtype == class_type && ![class_type, actual].contains(&pg_sys::BPCHAROID),
        }
    }

    /// The key of a row with these values, each of the type given; see `can_look_up`.
    pub(super) fn key_of_values(&self, values: &[(pg_sys::Datum, Oid)]) -> IndexKey {
        let own = values.iter().map(|&(datum, subtype)| match subtype {
            // As wide as it came, to be hashed as wide as it is kept.
            pg_sys::INT2OID => Some(pg_sys::Datum::from(sign_extended(datum, 2))),
            pg_sys::INT4OID => Some(pg_sys::Datum::from(sign_extended(datum, 4))),
            _ => Some(datum),
        });
        self.hash(own)
    }

    /// Whether an update surely leaves the key as it is: all its columns have the same bytes.
    pub fn is_unchanged(&self, old: Row<'_>, new: Row<'_>) -> bool {
        match &self.attributes {
            Some(attributes) => attributes.iter().all(|&attribute| old.has_same_bytes(new, attribute)),
            None => false,
        }
    }

    /// Whether rows' keys are told apart at all.
    pub fn is_coarse(&self) -> bool {
        self.hashers.iter().any(|hasher| matches!(hasher, Hasher::Coarse))
    }

    fn hash(&self, values: impl Iterator<Item = Option<pg_sys::Datum>>) -> IndexKey {
        hash_values(&self.hashers, self.nulls_distinct, values)
    }

    /// Predicate and expressions, by the executor.
    fn evaluate(&self, row: Row<'_>) -> IndexKey {
        let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
        // SAFETY: `info` lives in the table's context; its expression states are made here and forgotten before they are
        // freed with the EState. The slot holds the row.
        unsafe {
            let info = self.info;
            let estate = pg_sys::CreateExecutorState();
            let econtext = pg_sys::MakePerTupleExprContext(estate);
            (*econtext).ecxt_scantuple = row.slot;
            (*info).ii_ExpressionsState = std::ptr::null_mut();
            let predicate = (*info).ii_Predicate;
            let inside = predicate.is_null() || pg_sys::ExecCheck(pg_sys::ExecPrepareCheck(predicate, estate), econtext);
            let mut key = IndexKey::None;
            if inside {
                pg_sys::FormIndexDatum(info, row.slot, estate, values.as_mut_ptr(), nulls.as_mut_ptr());
                key = self.hash((0..self.hashers.len()).map(|i| (!nulls[i]).then(|| values[i])));
            }
            (*info).ii_ExpressionsState = std::ptr::null_mut();
            pg_sys::FreeExecutorState(estate);
            key
        }
    }
}

/// A foreign key of a table: rows of it need a row of the parent to stay.
pub struct ForeignKey {
    /// As [`Index::key_name`] of the parent's index.
    pub key_name: u64,
    /// Hash of the parent's names.
    pub parent_name: u64,
    pub depends_on: Vec<Oid>,
    /// The referencing columns in the order of the parent's index, as indexes among all attributes.
    pub attributes: Vec<usize>,
    /// None where a value can't be turned into the parent's type here.
    columns: Option<Vec<(Option<Box<pg_sys::FmgrInfo>>, Hasher)>>,
}

impl ForeignKey {
    pub(super) fn describe(
        key: &pg_sys::ForeignKeyCacheInfo,
        child: pg_sys::Relation,
        context: &Context,
    ) -> Option<ForeignKey> {
        // SAFETY: the constraint's index exists as long as the constraint, which the locked child keeps.
        unsafe {
            let oid = referenced_index(key.conoid)?;
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let form = &*(*index).rd_index;
            let columns: Option<Vec<_>> = (0..form.indnkeyatts as usize)
                .map(|at| {
                    let parent_attribute = form.indkey.values.as_slice(form.indnkeyatts as usize)[at];
                    let position = (0..key.nkeys as usize).find(|&i| key.confkey[i] == parent_attribute)?;
                    let child_attribute = key.conkey[position] as usize - 1;
                    let hasher = Hasher::for_index_column(index, at, context);
                    Some((child_attribute, hasher, parent_type(index, at)))
                })
                .collect();
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            let columns = columns?;
            let descriptor = (*child).rd_att;
            let types = (*descriptor).attrs.as_slice((*descriptor).natts as usize);
            let attributes = columns.iter().map(|&(attribute, ..)| attribute).collect();
            let columns = columns
                .into_iter()
                .map(|(attribute, hasher, target)| {
                    let (target, source) = (pg_sys::getBaseType(target), pg_sys::getBaseType(types[attribute].atttypid));
                    match (&hasher, cast(source, target, context)) {
                        (Hasher::Integer(_), _) if is_integer(source) && is_integer(target) => {
                            Some((None, Hasher::Integer(types[attribute].attlen)))
                        }
                        (Hasher::Coarse, _) => Some((None, hasher)),
                        (_, Cast::None) => Some((None, hasher)),
                        (_, Cast::Function(function)) => Some((Some(function), hasher)),
                        (_, Cast::Impossible) => None,
                    }
                })
                .collect();
            let (schema, name) = qualified_name(key.confrelid)?;
            let Names { hash: key_name, mut depends_on } = Names::of_index(oid);
            depends_on.push(key.confrelid);
            Some(ForeignKey { key_name, parent_name: name_hash(&[&schema, &name]), depends_on, attributes, columns })
        }
    }

    /// The key that the row refers to; an error where that can't be told.
    pub fn key(&self, row: Row<'_>) -> Result<IndexKey, Coarse> {
        let mut hash = FIRST;
        let columns = self.columns.as_ref().ok_or(Coarse)?;
        for (attribute, (cast, hasher)) in self.attributes.iter().zip(columns) {
            let Some(mut datum) = row.get(*attribute) else { return Ok(IndexKey::None) };
            if let Some(function) = cast {
                // SAFETY: a cast function of one argument, given a value of its argument type.
                datum = unsafe {
                    let function = std::ptr::from_ref(&**function).cast_mut();
                    pg_sys::FunctionCall1Coll(function, pg_sys::InvalidOid, datum)
                };
            }
            match hasher.hash(datum) {
                Some(value) => hash = mix(hash ^ value),
                None => return Ok(IndexKey::Hash(0)),
            }
        }
        Ok(IndexKey::Hash(hash))
    }

    /// Whether an update leaves the reference as it is, byte for byte.
    pub fn is_unchanged(&self, old: Row<'_>, new: Row<'_>) -> bool {
        self.attributes.iter().all(|&attribute| old.has_same_bytes(new, attribute))
    }
}

/// The parent's index that a foreign key relies on. (get_constraint_index gives a constraint's own.)
fn referenced_index(constraint: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up, its tuple released after what is needed was copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(constraint));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let index = pg_sys::SysCacheGetAttr(cache, tuple, CONINDID, &mut is_null).value() as u32;
        pg_sys::ReleaseSysCache(tuple);
        (!is_null && index != 0).then(|| Oid::from(index))
    }
}

/// A key of single values can't be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coarse;

const FIRST: u64 = 0x756e_6971;
const NULL: u64 = 0x006e_756c_6c00;

fn hash_values(hashers: &[Hasher], nulls_distinct: bool, values: impl Iterator<Item = Option<pg_sys::Datum>>) -> IndexKey {
    let mut hash = Some(FIRST);
    for (hasher, value) in hashers.iter().zip(values) {
        let value = match value {
            None if nulls_distinct => return IndexKey::None,
            None => Some(NULL),
            Some(datum) => hasher.hash(datum),
        };
        hash = hash.zip(value).map(|(hash, value)| mix(hash ^ value));
    }
    IndexKey::Hash(hash.unwrap_or(0))
}

enum Hasher {
    Integer(i16),
    FixedBytes(usize),
    Bytes,
    Label(Box<pg_sys::FmgrInfo>),
    Function(Box<pg_sys::FmgrInfo>, pg_sys::Oid),
    Coarse,
}

impl Hasher {
    /// # Safety
    /// `index` must be open and have a key column `at`.
    unsafe fn for_index_column(index: pg_sys::Relation, at: usize, context: &Context) -> Hasher {
        // SAFETY: by contract the arrays hold that column.
        unsafe {
            let family = *(*index).rd_opfamily.add(at);
            let class_type = *(*index).rd_opcintype.add(at);
            let collation = *(*index).rd_indcollation.add(at);
            let actual = pg_sys::getBaseType(parent_type(index, at));
            if type_kind(actual) == Kind::Enum {
                let (mut output, mut varlena) = (pg_sys::InvalidOid, false);
                pg_sys::getTypeOutputInfo(actual, &mut output, &mut varlena);
                return Hasher::Label(function(output, context));
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
            Hasher::by_function(family, class_type, actual, collation, context)
        }
    }

    fn by_function(family: Oid, class_type: Oid, actual: Oid, collation: Oid, context: &Context) -> Hasher {
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
            let equality = pg_sys::get_opfamily_member(family, class_type, class_type, pg_sys::BTEqualStrategyNumber as i16);
            if equality == pg_sys::InvalidOid || equality != entry.eq_opr || entry.hash_extended_proc == pg_sys::InvalidOid {
                return Hasher::Coarse;
            }
            Hasher::Function(function(entry.hash_extended_proc, context), collation)
        }
    }

    /// None if the column does not tell values apart.
    fn hash(&self, datum: pg_sys::Datum) -> Option<u64> {
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
                Hasher::Function(function, collation) => {
                    let function = std::ptr::from_ref(&**function).cast_mut();
                    pg_sys::FunctionCall2Coll(function, *collation, datum, pg_sys::Datum::from(0u64)).value() as u64
                }
                Hasher::Coarse => return None,
            })
        }
    }
}

fn sign_extended(datum: pg_sys::Datum, length: i16) -> u64 {
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
unsafe fn parent_type(index: pg_sys::Relation, at: usize) -> Oid {
    // SAFETY: by contract. The index's own descriptor names the stored type of each column.
    unsafe { (*(*index).rd_att).attrs.as_slice((*(*index).rd_att).natts as usize)[at].atttypid }
}

fn is_integer(typid: Oid) -> bool {
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

fn function(oid: Oid, context: &Context) -> Box<pg_sys::FmgrInfo> {
    let mut function = Box::new(pg_sys::FmgrInfo::default());
    // SAFETY: the look-up lives in the box, what it allocates in `context`, which the same table owns.
    unsafe { pg_sys::fmgr_info_cxt(oid, &mut *function, context.raw()) };
    function
}

enum Cast {
    None,
    Function(Box<pg_sys::FmgrInfo>),
    Impossible,
}

fn cast(source: Oid, target: Oid, context: &Context) -> Cast {
    if source == target {
        return Cast::None;
    }
    let mut oid = pg_sys::InvalidOid;
    // SAFETY: catalog look-ups.
    unsafe {
        let path = pg_sys::find_coercion_pathway(target, source, pg_sys::CoercionContext::COERCION_IMPLICIT, &mut oid);
        match path {
            pg_sys::CoercionPathType::COERCION_PATH_RELABELTYPE => Cast::None,
            pg_sys::CoercionPathType::COERCION_PATH_FUNC if pg_sys::get_func_nargs(oid) == 1 => {
                Cast::Function(function(oid, context))
            }
            _ => Cast::Impossible,
        }
    }
}

/// What the keys of an index go by.
struct Names {
    /// Of the topmost index above it, so that partitions agree with their parent.
    hash: u64,
    depends_on: Vec<Oid>,
}

impl Names {
    fn of_index(index: Oid) -> Names {
        // SAFETY: catalog look-ups; the list is palloc'd and read at once.
        unsafe {
            let mut depends_on = vec![index];
            if pg_sys::get_rel_relispartition(index) {
                depends_on.extend(list::oids(pg_sys::ffi::pg_guard_ffi_boundary(|| get_partition_ancestors(index))));
            }
            let top = depends_on.last().copied().unwrap_or(index);
            let table = pg_sys::IndexGetRelation(top, false);
            depends_on.push(table);
            let (schema, table) = qualified_name(table).unwrap_or_default();
            let name = owned(pg_sys::get_rel_name(top)).unwrap_or_default();
            Names { hash: name_hash(&[&schema, &table, &name]), depends_on }
        }
    }
}
