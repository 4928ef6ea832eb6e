//! A table as capture and apply need to know it: its columns with their codecs, its indexes, its foreign keys. The description
//! outlives the transaction that made it.

use gcs_writeset::body::{Datum as Wire, PutItem};
use pgrx::pg_sys;

use super::datum::Codec;
pub use super::expressions::{Computed, Values};
use super::foreign_key::ForeignKey;
use super::index::Index;
use super::list;
use super::memory::Context;
use super::names::{Oid, name_of, owned};
use super::relation::Open;
use super::row::Row;
use super::varlena::same_external;

pub struct Column {
    pub name: String,
    /// Index among all attributes, dropped ones included.
    pub attribute: usize,
    pub not_null: bool,
    pub codec: Codec,
}

/// A table's description. It holds until PostgreSQL reports a change of the table or of one of `depends_on`.
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
    /// Indexes for which rows carry values, by name.
    pub computed: Vec<Computed>,
    /// Whether any value's text depends on settings.
    pub depends_on_settings: bool,
    /// Whether any value may name objects, or be of a row type.
    pub names_objects: bool,
    /// Other relations whose change makes this description stale.
    pub depends_on: Vec<Oid>,
    /// Memory of the function look-ups and expressions in the fields above; dropped last.
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
            let mut computed: Vec<Computed> = list::oids(pg_sys::RelationGetIndexList(relation))
                .into_iter()
                .filter_map(|index| Computed::describe(index, &context))
                .collect();
            computed.sort_by(|a, b| a.name.cmp(&b.name));
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
                depends_on_settings: columns.iter().any(|column| column.codec.depends_on_settings())
                    || computed.iter().any(Computed::depends_on_settings),
                names_objects: columns.iter().any(|column| column.codec.names_objects())
                    || computed.iter().any(Computed::names_objects),
                computed,
                columns,
                indexes,
                foreign_keys,
                depends_on,
                _context: context,
            }
        }
    }

    /// Appends every live column's value. `base` is the row's old image: what it has out of line and unchanged is left out, and what
    /// names objects and is unchanged, except in the columns of `always`.
    pub fn put_row(&self, row: Row<'_>, base: Option<Row<'_>>, always: impl Fn(usize) -> bool, out: &mut Vec<u8>) {
        for (index, column) in self.columns.iter().enumerate() {
            let Some(datum) = row.get(column.attribute) else {
                out.put_datum(Wire::Null);
                continue;
            };
            let base = base.filter(|_| !always(index));
            let old = base.filter(|_| column.codec.typlen == -1).and_then(|base| base.get(column.attribute));
            // SAFETY: both are of a column with typlen -1.
            let is_same_external = old.is_some_and(|old| unsafe { same_external(old, datum) });
            let keeps_name =
                || column.codec.names_objects() && base.is_some_and(|base| base.has_same_bytes(row, column.attribute));
            if is_same_external || keeps_name() {
                out.put_datum(Wire::Unchanged);
            } else {
                column.codec.put(datum, out);
            }
        }
    }

    /// Appends the value of one live column.
    pub fn put_value(&self, row: Row<'_>, column: usize, out: &mut Vec<u8>) {
        let column = &self.columns[column];
        match row.get(column.attribute) {
            Some(datum) => column.codec.put(datum, out),
            None => out.put_datum(Wire::Null),
        }
    }

    /// The value of one live column for a person; none if it is null.
    pub fn text(&self, row: Row<'_>, column: usize) -> Option<String> {
        let column = &self.columns[column];
        row.get(column.attribute).and_then(|datum| column.codec.text_of(datum))
    }

    /// What indexes give for a new row; functions of users run. None if rows of this table carry nothing for indexes.
    pub fn compute(&self, row: Row<'_>) -> Option<Values> {
        (!self.computed.is_empty()).then(|| Values::compute(&self.computed, row))
    }

    /// Appends what `compute` gave.
    pub fn put_values(&self, values: &Values, out: &mut Vec<u8>) {
        values.put(&self.computed, out);
    }

    /// Appends absence in the place of what `compute` would give.
    pub fn put_no_values(&self, out: &mut Vec<u8>) {
        let count: u32 = self.computed.iter().map(|index| index.as_wire().datums()).sum();
        (0..count).for_each(|_| out.put_datum(Wire::Absent));
    }

    /// Appends the values that may name objects.
    pub(super) fn put_names(&self, row: Row<'_>, out: &mut Vec<u8>) {
        for column in self.columns.iter().filter(|column| column.codec.names_objects()) {
            if let Some(datum) = row.get(column.attribute) {
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
        super::majors::relation::attributes(descriptor)
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
