//! Columns whose values are numbers of this node: those that name objects, which travel as names, and those that nothing can translate.

use pgrx::pg_sys;

use super::heap;
use super::names::{Oid, name_of};
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
        (*descriptor).attrs.as_slice((*descriptor).natts as usize)
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
