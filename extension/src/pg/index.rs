//! Unique indexes and exclusion constraints, and a row's key in one.

use gcs_writeset::key::{mix, name_hash};
use pgrx::pg_sys;

use super::expressions::{Info, Stored, Values};
use super::hasher::{FIRST, Hasher, is_integer, sign_extended, stored_type};
use super::list;
use super::memory::Context;
use super::names::{Oid, name_of, owned, qualified_name};
use super::object::Class;
use super::row::Row;
use super::types::{Kind, base_and_element, type_kind};

/// What a null is hashed as, where nulls are equal to one another.
const NULL: u64 = 0x006e_756c_6c00;

unsafe extern "C-unwind" {
    /// Of catalog/partition.h, which pgrx does not bind.
    fn get_partition_ancestors(relid: pg_sys::Oid) -> *mut pg_sys::List;
}

/// A row's key in an index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IndexKey {
    /// The row can be equal to no other: a column is null, or the index's predicate leaves the row out.
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
    /// Whether foreign keys refer to this index.
    pub is_referenced: bool,
    pub is_primary: bool,
    pub is_exclusion: bool,
    /// Rows may be found by it, and those that are there keep to it.
    pub is_valid: bool,
    /// Whether the constraint is checked at once, not at the end of the transaction.
    pub is_immediate: bool,
    /// The columns in key order, as indexes among all attributes; none if the index has expressions or a predicate.
    pub attributes: Option<Vec<usize>>,
    nulls_distinct: bool,
    hashers: Vec<Hasher>,
    /// Of an exclusion constraint: the columns that it compares by equality, as indexes among all attributes, and how they are hashed.
    equal: (Vec<usize>, Vec<Hasher>),
    /// Whether expressions or predicate read OIDs of objects, which are others on other nodes: what comes out tells nothing apart there.
    is_of_numbers: bool,
    /// Expressions and predicate are evaluated by it.
    info: Info,
}

impl Index {
    /// None for an index that constrains nothing. One that is not ready yet counts: rows of two nodes that would be equal in it must not both be
    /// certified (docs/adr/0058-concurrently.md). Allocates in `context`.
    pub(super) fn describe(oid: Oid, is_referenced: bool, context: &Context) -> Option<Index> {
        // SAFETY: its table is open and locked, so its index can be opened; what is kept is copied into `context`.
        unsafe {
            let relation = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let form = &*(*relation).rd_index;
            let constrains = (form.indisunique || form.indisexclusion) && form.indislive;
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
            let stored = Stored::of_index(oid);
            let keys = form.indnkeyatts as usize;
            let attributes = form.indkey.values.as_slice(keys);
            let is_of_numbers = stored.as_ref().is_some_and(|stored| reads_numbers(form.indrelid, stored));
            let hashers = if form.indisexclusion || is_of_numbers {
                (0..keys).map(|_| Hasher::Coarse).collect()
            } else {
                (0..keys).map(|i| Hasher::for_index_column(relation, i, context)).collect()
            };
            let names = KeyNames::of_index(oid);
            Index {
                oid,
                name: name_of(&(*(*relation).rd_rel).relname),
                key_name: names.hash,
                depends_on: names.depends_on,
                is_referenced: false,
                is_primary: form.indisprimary,
                is_exclusion: form.indisexclusion,
                is_valid: form.indisvalid,
                is_immediate: form.indimmediate,
                attributes: (stored.is_none() && attributes.iter().all(|&a| a > 0))
                    .then(|| attributes.iter().map(|&a| a as usize - 1).collect()),
                nulls_distinct: !form.indnullsnotdistinct,
                hashers,
                equal: if form.indisexclusion { equal_columns(relation, attributes, context) } else { Default::default() },
                is_of_numbers,
                info: Info::default(),
            }
        }
    }

    /// The row's key in this index.
    pub fn key(&self, row: Row<'_>) -> IndexKey {
        if self.is_exclusion {
            return self.key_of_equal_columns(row);
        }
        if self.is_of_numbers {
            return IndexKey::Hash(0);
        }
        match &self.attributes {
            Some(attributes) => self.hash(attributes.iter().map(|&attribute| row.get(attribute))),
            None => self.evaluate(row),
        }
    }

    /// The same for a new row, of which some indexes' values are there already.
    pub fn key_of_new(&self, row: Row<'_>, computed: Option<&Values>) -> IndexKey {
        match computed.and_then(|values| values.columns(self.oid)) {
            Some(_) if self.is_exclusion => self.key_of_equal_columns(row),
            Some(_) if self.is_of_numbers => IndexKey::Hash(0),
            Some(Some(columns)) => self.hash(columns.iter().copied()),
            Some(None) => IndexKey::None,
            None => self.key(row),
        }
    }

    /// Rows exclude each other only if they are equal in each of these columns, and none is null. Where there is no such column, any two may.
    fn key_of_equal_columns(&self, row: Row<'_>) -> IndexKey {
        let (attributes, hashers) = &self.equal;
        if attributes.is_empty() {
            return IndexKey::Hash(0);
        }
        hash_values(hashers, true, attributes.iter().map(|&attribute| row.get(attribute)))
    }

    /// Whether a foreign key could refer to this index. PostgreSQL then takes its columns for parts of the row's key.
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
        let (class_type, actual) = unsafe { (*(*index).rd_opcintype.add(at), pg_sys::getBaseType(stored_type(index, at))) };
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
            // A narrower integer than the column's own is hashed like the column's: sign-extended.
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

    /// The key of a row in an index with expressions or a predicate, which the executor evaluates.
    fn evaluate(&self, row: Row<'_>) -> IndexKey {
        let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
        let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
        // SAFETY: `info` lives as long as this; its expression states are made here and forgotten before they are
        // freed with the EState. The slot holds the row.
        unsafe {
            let info = self.info.get(self.oid);
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

/// The columns of the table that an exclusion constraint compares by what their types call equal, as far as values can be hashed so.
///
/// # Safety
/// `relation` must be the open index of an exclusion constraint, and `attributes` its key columns.
unsafe fn equal_columns(relation: pg_sys::Relation, attributes: &[i16], context: &Context) -> (Vec<usize>, Vec<Hasher>) {
    // SAFETY: by contract; as many operators are given as there are key columns.
    unsafe {
        let (mut operators, mut functions, mut strategies) =
            (std::ptr::null_mut(), std::ptr::null_mut(), std::ptr::null_mut());
        pg_sys::RelationGetExclusionInfo(relation, &mut operators, &mut functions, &mut strategies);
        let table = (*(*relation).rd_index).indrelid;
        let plain = attributes.iter().enumerate().filter(|&(_, &attribute)| attribute > 0);
        let hashed = plain.map(|(at, &attribute)| {
            let compared = (pg_sys::get_atttype(table, attribute), *operators.add(at));
            (attribute as usize - 1, Hasher::for_excluded_column(relation, at, compared, context))
        });
        hashed.filter(|(_, hasher)| !matches!(hasher, Hasher::Coarse)).unzip()
    }
}

/// Whether an index's expressions or predicate read a column that holds OIDs of objects, or may.
///
fn reads_numbers(table: Oid, stored: &Stored) -> bool {
    let mut columns = std::ptr::null_mut();
    // SAFETY: node trees, or null; the set holds attribute numbers above the lowest, and 0 there for the whole row.
    unsafe {
        for tree in [stored.expressions.cast(), stored.predicate] {
            pg_sys::pull_varattnos(tree, 1, &mut columns);
        }
        let mut member = -1;
        loop {
            member = pg_sys::bms_next_member(columns, member);
            if member < 0 {
                return false;
            }
            let attribute = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            if attribute <= 0 || may_hold_numbers(pg_sys::get_atttype(table, attribute as i16)) {
                return true;
            }
        }
    }
}

fn may_hold_numbers(typid: Oid) -> bool {
    let (_, element) = base_and_element(typid);
    Class::named_by(element).is_some() || type_kind(element) == Kind::Composite
}

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

/// The names that go into the keys of an index.
pub(super) struct KeyNames {
    /// Hash of the names of the topmost partitioned index above it, so that all partitions have the same.
    pub(super) hash: u64,
    pub(super) depends_on: Vec<Oid>,
}

impl KeyNames {
    pub(super) fn of_index(index: Oid) -> KeyNames {
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
            KeyNames { hash: name_hash(&[&schema, &table, &name]), depends_on }
        }
    }
}
