//! Columns whose values are numbers of this node: those that name objects, which travel as names, and those that nothing can translate.

use pgrx::pg_sys;

use super::heap;
use super::list;
use super::majors::relation::attributes;
use super::names::{Oid, name_of, owned};
use super::naming;
use super::object::Class;
use super::relation::Open;
use super::table::Table;
use super::types::{Kind, base_and_element, type_kind};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Objects of the database, by name.
    Objects,
    /// Something of this node: an OID, a transaction, a place in a file.
    OfThisNode,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Column {
    number: i16,
    type_: Oid,
    pub name: String,
    pub meaning: Meaning,
}

/// Of catalog/pg_type.dat.
const SNAPSHOT_TYPES: [u32; 2] = [2970, 5038];

const OF_THIS_NODE: [Oid; 6] =
    [pg_sys::OIDOID, pg_sys::XIDOID, pg_sys::XID8OID, pg_sys::CIDOID, pg_sys::TIDOID, pg_sys::OIDVECTOROID];

/// The table's columns of such types.
pub fn of_numbers(table: &Open) -> Vec<Column> {
    // SAFETY: the relation is open; its descriptor holds `natts` attributes.
    let attributes = unsafe {
        let descriptor = (*table.raw()).rd_att;
        attributes(descriptor)
    };
    let live = attributes.iter().filter(|attribute| !attribute.attisdropped);
    let columns = live.filter_map(|attribute| {
        let (base, element) = base_and_element(attribute.atttypid);
        let is_of_this_node =
            [base, element].iter().any(|typid| OF_THIS_NODE.contains(typid)) || SNAPSHOT_TYPES.contains(&element.to_u32());
        let meaning = if is_of_this_node {
            Meaning::OfThisNode
        } else if Class::named_by(element).is_some() || type_kind(element) == Kind::Composite {
            Meaning::Objects
        } else {
            return None;
        };
        let (number, type_) = (attribute.attnum, attribute.atttypid);
        Some(Column { number, type_, name: name_of(&attribute.attname), meaning })
    });
    columns.collect()
}

/// Of catalog/pg_partitioned_table.h, which pgrx does not bind.
/// Letters of partstrat.
const HASH: u8 = b'h';
const RANGE: u8 = b'r';

const STRATEGY: i16 = 2;
const KEY_COUNT: i16 = 3;
const KEY_ATTRIBUTES: i16 = 5;
const KEY_EXPRESSIONS: i16 = 8;

/// The type in the table's partition key, if there is one, by which other nodes would look for a row in another partition: an OID hashes and
/// sorts differently on every node, an enum's value hashes so. (Values of a list are found by what they name.)
pub fn unroutable_type(table: &Open) -> Option<String> {
    let cache = pg_sys::SysCacheIdentifier::PARTRELID as i32;
    // SAFETY: a syscache look-up; the columns are never null but for the last, which is the text of a node tree.
    let (strategy, types) = unsafe {
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(table.oid()));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let mut column = |number| pg_sys::SysCacheGetAttr(cache, tuple, number, &mut is_null);
        let (strategy, count) = (column(STRATEGY).value() as u8, column(KEY_COUNT).value() as u16);
        let attributes = &*column(KEY_ATTRIBUTES).cast_mut_ptr::<pg_sys::int2vector>();
        let attributes = attributes.values.as_slice(usize::from(count)).iter().filter(|&&attribute| attribute != 0);
        let mut types: Vec<Oid> = attributes.map(|&attribute| pg_sys::get_atttype(table.oid(), attribute)).collect();
        let expressions = column(KEY_EXPRESSIONS);
        if !is_null {
            let expressions = pg_sys::stringToNode(pg_sys::text_to_cstring(expressions.cast_mut_ptr()));
            let expressions = list::pointers::<pg_sys::Node>(expressions.cast());
            types.extend(expressions.into_iter().map(|expression| pg_sys::exprType(expression)));
        }
        pg_sys::ReleaseSysCache(tuple);
        (strategy, types)
    };
    let is_unroutable = |typid: &Oid| {
        let (_, element) = base_and_element(*typid);
        let names = Class::named_by(element).is_some();
        match strategy {
            HASH => names || matches!(type_kind(element), Kind::Enum | Kind::Composite),
            RANGE => names,
            _ => false,
        }
    };
    let typid = types.into_iter().find(is_unroutable)?;
    // SAFETY: a catalog look-up that gives a palloc'd string.
    unsafe { owned(pg_sys::format_type_extended(typid, -1, 0)) }
}

/// Notes which objects the rows of a table name: a statement has written them.
pub fn note_objects(table: &Open) {
    let known = Table::describe(table);
    let mut scratch = Vec::new();
    naming::noting(|| {
        heap::for_each_new_row(table, |row| {
            known.put_names(row, &mut scratch);
            scratch.clear();
        });
    });
}
