//! Tables: opening them, and a description of one that outlives the transaction.

use std::ffi::CStr;

use gcs_writeset::body::{Datum as Wire, PutItem};
use pgrx::pg_sys;
pub use pgrx::pg_sys::Oid;

use super::datum::{Codec, same_bytes, same_external};
use super::index::{ForeignKey, Index};
use super::list;
use super::memory::Context;

/// An open relation. Closing keeps its lock to the end of the transaction, as PostgreSQL does for what it wrote to.
pub struct Open(pg_sys::Relation);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    AccessShare = pg_sys::AccessShareLock as isize,
    RowExclusive = pg_sys::RowExclusiveLock as isize,
    AccessExclusive = pg_sys::AccessExclusiveLock as isize,
}

impl Open {
    /// None if there is no such relation any more.
    pub fn by_oid(oid: Oid, lock: Lock) -> Option<Open> {
        // SAFETY: takes the lock first, then looks; gives null where nothing is there.
        let raw = unsafe { pg_sys::try_relation_open(oid, lock as pg_sys::LOCKMODE) };
        // An `Open` of null must not even be made: it would be closed.
        (!raw.is_null()).then(|| Open(raw))
    }

    pub fn oid(&self) -> Oid {
        // SAFETY: open, so the entry is there.
        unsafe { (*self.0).rd_id }
    }

    /// Whether no page was ever written.
    pub fn is_empty(&self) -> bool {
        // SAFETY: open, and the caller makes sure that it has a file.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) == 0 }
    }

    pub(super) fn raw(&self) -> pg_sys::Relation {
        self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us; an ERROR releases the reference by the resource owner instead.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// The OID of the table or other relation with this name; none if there is none.
pub fn find(schema: &str, name: &str) -> Option<Oid> {
    let schema = std::ffi::CString::new(schema).ok()?;
    let name = std::ffi::CString::new(name).ok()?;
    // SAFETY: syscache look-ups with C strings that outlive them.
    let oid = unsafe {
        let namespace = pg_sys::get_namespace_oid(schema.as_ptr(), true);
        if namespace == pg_sys::InvalidOid {
            return None;
        }
        pg_sys::get_relname_relid(name.as_ptr(), namespace)
    };
    (oid != pg_sys::InvalidOid).then_some(oid)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    Index,
    Sequence,
    View,
    MaterializedView,
    ForeignTable,
    /// TOAST tables and the row types of composites.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    Permanent,
    Unlogged,
    Temporary,
}

/// A relation as the catalogs show it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub persistence: Persistence,
    /// The file that holds its rows; another one after a rewrite.
    pub file: Oid,
    /// Whether it belongs to PostgreSQL itself or to this extension.
    pub is_internal: bool,
}

/// None if there is no such relation, or none visible yet.
pub fn entry(oid: Oid) -> Option<Entry> {
    // SAFETY: a syscache look-up, its tuple released after what is needed was copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let class = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple);
        let namespace = class.relnamespace;
        let mut entry = Entry {
            schema: String::new(),
            name: name_of(&class.relname),
            kind: match class.relkind as u8 {
                b'r' => RelationKind::Table,
                b'p' => RelationKind::PartitionedTable,
                b'i' | b'I' => RelationKind::Index,
                b'S' => RelationKind::Sequence,
                b'v' => RelationKind::View,
                b'm' => RelationKind::MaterializedView,
                b'f' => RelationKind::ForeignTable,
                _ => RelationKind::Other,
            },
            persistence: match class.relpersistence as u8 {
                b'u' => Persistence::Unlogged,
                b't' => Persistence::Temporary,
                _ => Persistence::Permanent,
            },
            file: class.relfilenode,
            is_internal: false,
        };
        pg_sys::ReleaseSysCache(tuple);
        entry.schema = owned(pg_sys::get_namespace_name(namespace)).unwrap_or_default();
        entry.is_internal = matches!(entry.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast" | "postgres_r");
        Some(entry)
    }
}

/// Keeps those who write rows off until the end of this transaction, and waits for those who have; see `announce_writes`.
pub fn keep_writers_off_types() {
    // SAFETY: an ordinary lock, released with the transaction.
    unsafe { pg_sys::LockRelationOid(pg_sys::TypeRelationId, pg_sys::ShareLock as i32) }
}

/// This transaction writes rows: how types read must stay as it is until it ends. Takes a lock that PostgreSQL's fast path
/// covers and that all of its own DDL shares.
pub fn announce_writes() {
    // SAFETY: as above.
    unsafe { pg_sys::LockRelationOid(pg_sys::TypeRelationId, pg_sys::RowExclusiveLock as i32) }
}

/// The table an index belongs to.
pub fn table_of_index(index: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up.
    let table = unsafe { pg_sys::IndexGetRelation(index, true) };
    (table != pg_sys::InvalidOid).then_some(table)
}

/// Every permanent table of this database that holds users' rows.
pub fn user_tables() -> Vec<Oid> {
    let mut tables = Vec::new();
    // SAFETY: an ordinary scan of pg_class with the catalog snapshot.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(catalog, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            tables.push((*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple)).oid);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    tables.retain(|&oid| {
        entry(oid).is_some_and(|entry| {
            entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent && !entry.is_internal
        })
    });
    tables
}

unsafe extern "C-unwind" {
    /// Of catalog/pg_inherits.h, which pgrx does not bind.
    fn find_all_inheritors(parent: Oid, lock: pg_sys::LOCKMODE, parents: *mut *mut pg_sys::List) -> *mut pg_sys::List;
}

/// A relation and all below it, partitions and tables that inherit, as the catalogs show them now.
pub fn with_children(oid: Oid) -> Vec<Oid> {
    // SAFETY: catalog look-ups; the list is palloc'd and read at once.
    unsafe {
        let none = std::ptr::null_mut();
        list::oids(pg_sys::ffi::pg_guard_ffi_boundary(|| find_all_inheritors(oid, pg_sys::NoLock as i32, none)))
    }
}

/// A relation and, if it is partitioned, its partitions: where rows inserted into it may go.
pub fn with_partitions(oid: Oid) -> Vec<Oid> {
    // SAFETY: a syscache look-up.
    let kind = unsafe { pg_sys::get_rel_relkind(oid) };
    if kind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE { with_children(oid) } else { vec![oid] }
}

/// Schema and name of a relation.
pub fn qualified_name(oid: Oid) -> Option<(String, String)> {
    // SAFETY: syscache look-ups giving palloc'd copies or null.
    unsafe {
        let name = owned(pg_sys::get_rel_name(oid))?;
        let schema = owned(pg_sys::get_namespace_name(pg_sys::get_rel_namespace(oid)))?;
        Some((schema, name))
    }
}

/// Takes over a palloc'd C string.
///
/// # Safety
/// `string` must be null or a palloc'd C string that nobody else uses.
pub(super) unsafe fn owned(string: *mut std::ffi::c_char) -> Option<String> {
    if string.is_null() {
        return None;
    }
    // SAFETY: by contract.
    unsafe {
        let copy = CStr::from_ptr(string).to_string_lossy().into_owned();
        pg_sys::pfree(string.cast());
        Some(copy)
    }
}

pub(super) fn name_of(name: &pg_sys::NameData) -> String {
    // SAFETY: a NameData is zero-terminated within its 64 bytes.
    unsafe { CStr::from_ptr(name.data.as_ptr()).to_string_lossy().into_owned() }
}

pub struct Column {
    pub name: String,
    /// Index among all attributes, dropped ones included.
    pub attribute: usize,
    pub not_null: bool,
    pub codec: Codec,
}

/// What capture and apply need to know of a table. Valid until the relation cache says otherwise.
pub struct Table {
    pub oid: Oid,
    pub schema: String,
    pub name: String,
    pub owner: Oid,
    /// Live columns.
    pub columns: Vec<Column>,
    /// Attributes, dropped ones included.
    pub attributes: usize,
    /// Unique indexes and exclusion constraints that rows are entered into, by name.
    pub indexes: Vec<Index>,
    pub foreign_keys: Vec<ForeignKey>,
    /// Whether any value's text depends on settings.
    pub depends_on_settings: bool,
    /// Other relations whose change makes this description stale.
    pub depends_on: Vec<Oid>,
    /// Holds function look-ups and expressions of the above; dropped last.
    _context: Context,
}

impl Table {
    pub fn describe(relation: &Open) -> Table {
        Table::describe_raw(relation.raw())
    }

    pub(super) fn describe_raw(relation: pg_sys::Relation) -> Table {
        let context = Context::lasting(c"postgres_r table");
        // SAFETY: the caller holds the relation open and locked; everything read here belongs to it or is copied.
        unsafe {
            let class = &*(*relation).rd_rel;
            let oid = (*relation).rd_id;
            let attributes = attributes(relation);
            let columns: Vec<Column> = attributes
                .iter()
                .enumerate()
                .filter(|(_, attribute)| !attribute.attisdropped)
                .map(|(index, attribute)| Column {
                    name: name_of(&attribute.attname),
                    attribute: index,
                    not_null: attribute.attnotnull,
                    codec: Codec::new(
                        attribute.atttypid,
                        attribute.atttypmod,
                        attribute.attlen,
                        attribute.attbyval,
                        &context,
                    ),
                })
                .collect();
            let references: Vec<Oid> = triggers(relation)
                .iter()
                .filter(|trigger| pg_sys::RI_FKey_trigger_type(trigger.tgfoid) == pg_sys::RI_TRIGGER_PK as i32)
                .map(|trigger| trigger.tgconstrindid)
                .collect();
            let is_referenced = |index| references.contains(&index) || references.contains(&pg_sys::InvalidOid);
            let mut indexes: Vec<Index> = list::oids(pg_sys::RelationGetIndexList(relation))
                .into_iter()
                .filter_map(|index| Index::describe(index, is_referenced(index), &context))
                .collect();
            indexes.sort_by(|a, b| a.name.cmp(&b.name));
            let foreign_keys: Vec<ForeignKey> =
                list::pointers::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(relation))
                    .into_iter()
                    .filter_map(|key| ForeignKey::describe(&*key, relation, &context))
                    .collect();
            let mut depends_on: Vec<Oid> = indexes.iter().flat_map(|index| index.depends_on.iter().copied()).collect();
            depends_on.extend(foreign_keys.iter().flat_map(|key| key.depends_on.iter().copied()));
            Table {
                oid,
                schema: owned(pg_sys::get_namespace_name(class.relnamespace)).unwrap_or_default(),
                name: name_of(&class.relname),
                owner: class.relowner,
                attributes: attributes.len(),
                depends_on_settings: columns.iter().any(|column| column.codec.depends_on_settings()),
                columns,
                indexes,
                foreign_keys,
                depends_on,
                _context: context,
            }
        }
    }

    /// Appends every live column's value. `base` is the row's old image: what it has out of line and unchanged is left out,
    /// except in the columns of `always`.
    pub fn put_row(&self, row: Row<'_>, base: Option<Row<'_>>, always: impl Fn(usize) -> bool, out: &mut Vec<u8>) {
        for (index, column) in self.columns.iter().enumerate() {
            let Some(datum) = row.get(column.attribute) else {
                out.put_datum(Wire::Null);
                continue;
            };
            let old =
                base.filter(|_| column.codec.typlen == -1 && !always(index)).and_then(|base| base.get(column.attribute));
            // SAFETY: both are of a column with typlen -1.
            if old.is_some_and(|old| unsafe { same_external(old, datum) }) {
                out.put_datum(Wire::Unchanged);
            } else {
                column.codec.put(datum, out);
            }
        }
    }

    /// Appends the values of the columns that `identity` names, and absence for the others.
    pub fn put_identity(&self, row: Row<'_>, identity: impl Fn(usize) -> bool, out: &mut Vec<u8>) {
        for (index, column) in self.columns.iter().enumerate() {
            match row.get(column.attribute) {
                _ if !identity(index) => out.put_datum(Wire::Absent),
                Some(datum) => column.codec.put(datum, out),
                None => out.put_datum(Wire::Null),
            }
        }
    }
}

/// # Safety
/// `relation` must be open.
unsafe fn attributes<'a>(relation: pg_sys::Relation) -> &'a [pg_sys::FormData_pg_attribute] {
    // SAFETY: a tuple descriptor holds `natts` attributes.
    unsafe {
        let descriptor = (*relation).rd_att;
        (*descriptor).attrs.as_slice((*descriptor).natts as usize)
    }
}

/// # Safety
/// `relation` must be open.
unsafe fn triggers<'a>(relation: pg_sys::Relation) -> &'a [pg_sys::Trigger] {
    // SAFETY: a trigger descriptor holds `numtriggers` triggers.
    unsafe {
        let descriptor = (*relation).trigdesc;
        if descriptor.is_null() {
            return &[];
        }
        std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize)
    }
}

/// A row in memory, taken apart.
#[derive(Clone, Copy)]
pub struct Row<'a> {
    values: &'a [pg_sys::Datum],
    nulls: &'a [bool],
    pub(super) slot: *mut pg_sys::TupleTableSlot,
}

impl<'a> Row<'a> {
    /// # Safety
    /// `slot` must hold a tuple and stay unchanged for `'a`.
    pub(super) unsafe fn of_slot(slot: *mut pg_sys::TupleTableSlot) -> Row<'a> {
        // SAFETY: by contract; after slot_getallattrs, natts values are there.
        unsafe {
            let attributes = (*(*slot).tts_tupleDescriptor).natts as usize;
            if ((*slot).tts_nvalid as usize) < attributes {
                pg_sys::slot_getsomeattrs_int(slot, attributes as i32);
            }
            Row {
                values: std::slice::from_raw_parts((*slot).tts_values, attributes),
                nulls: std::slice::from_raw_parts((*slot).tts_isnull, attributes),
                slot,
            }
        }
    }

    /// The value of the attribute at this index, unless null.
    pub(super) fn get(&self, attribute: usize) -> Option<pg_sys::Datum> {
        (!self.nulls[attribute]).then(|| self.values[attribute])
    }

    /// Whether both rows, of one table, have the very same bytes in an attribute. False says nothing.
    pub(super) fn has_same_bytes(&self, other: Row<'_>, attribute: usize) -> bool {
        match (self.get(attribute), other.get(attribute)) {
            (None, None) => true,
            // SAFETY: both are values of the attribute's type, which the slot's descriptor gives.
            (Some(a), Some(b)) => unsafe {
                let descriptor = (*self.slot).tts_tupleDescriptor;
                let form = &(*descriptor).attrs.as_slice(self.values.len())[attribute];
                if form.attbyval { a.value() == b.value() } else { same_bytes(a, b, form.attlen) }
            },
            _ => false,
        }
    }
}
