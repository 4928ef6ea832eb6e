//! What ALTER TABLE makes of the rows that are there: whether it would be the same on every node, what came out, and making room for that
//! where it came out elsewhere.

use std::collections::HashSet;

use pgrx::pg_sys;

use super::encoding;
use super::majors::relation::{attributes, give_new_file, reindex_relation};
use super::names::{Oid, owned, valid};
use super::relation::{self, Lock, Open};

/// Functions below this are PostgreSQL's own, with the same number everywhere.
const BUILT_IN_END: u32 = 10_000;

/// Built-in functions that are not immutable, and give the same on every node all the same: by the transaction's time and by settings, which
/// go along with a statement.
const CERTAIN: [(u32, &str); 8] = [
    (1174, "timestamptz(date)"),
    (1178, "date(timestamptz)"),
    (1299, "now()"),
    (1388, "timetz(timestamptz)"),
    (2019, "time(timestamptz)"),
    (2027, "timestamp(timestamptz)"),
    (2028, "timestamptz(timestamp)"),
    (2647, "transaction_timestamp()"),
];

/// Whether a function gives the same on every node, whoever wrote it and whatever it says of itself.
pub fn is_certain(function: Oid) -> bool {
    let number = function.to_u32();
    // SAFETY: a syscache look-up of a function that has just been called.
    let is_immutable = || unsafe { pg_sys::func_volatile(function) } as u8 == pg_sys::PROVOLATILE_IMMUTABLE;
    number < BUILT_IN_END && (CERTAIN.iter().any(|&(certain, _)| certain == number) || is_immutable())
}

/// The value that rows older than a column have in it, as text if it is not null. None if there is no such column.
pub fn missing_value(table: &Open, column: &str) -> Option<Option<String>> {
    let name = encoding::c_string(column)?;
    // SAFETY: the relation is open; the value belongs to its descriptor; the output function is of the column's type.
    unsafe {
        let attribute = pg_sys::get_attnum(table.oid(), name.as_ptr());
        if attribute <= 0 {
            return None;
        }
        let descriptor = (*table.raw()).rd_att;
        let mut is_null = true;
        let value = pg_sys::getmissingattr(descriptor, i32::from(attribute), &mut is_null);
        if is_null {
            return Some(None);
        }
        let attributes = attributes(descriptor);
        let typid = attributes[attribute as usize - 1].atttypid;
        let (mut output, mut is_varlena) = (pg_sys::InvalidOid, false);
        pg_sys::getTypeOutputInfo(typid, &mut output, &mut is_varlena);
        Some(owned(pg_sys::OidOutputFunctionCall(output, value)))
    }
}

/// Tables with foreign keys to this one.
pub fn referencing(table: &Open) -> HashSet<Oid> {
    // SAFETY: the relation is open; its trigger descriptor is read at once.
    unsafe {
        let descriptor = (*table.raw()).trigdesc;
        if descriptor.is_null() {
            return HashSet::new();
        }
        std::slice::from_raw_parts((*descriptor).triggers, (*descriptor).numtriggers as usize)
            .iter()
            .filter(|trigger| pg_sys::RI_FKey_trigger_type(trigger.tgfoid) == pg_sys::RI_TRIGGER_PK as i32)
            .filter_map(|trigger| valid(trigger.tgconstrrelid))
            .flat_map(relation::with_children)
            .collect()
    }
}

/// No row of the table is older than any of its columns.
pub fn forget_missing_values(table: Oid) {
    let Some(open) = Open::by_oid(table, Lock::AccessExclusive) else { return };
    // SAFETY: as ALTER TABLE does it once it has written a table anew; the relation is open and locked.
    unsafe {
        pg_sys::RelationClearMissing(open.raw());
        pg_sys::CommandCounterIncrement();
    }
}

/// Takes all rows out of a table, whatever refers to it.
pub fn empty(table: Oid) -> bool {
    let Some(open) = Open::by_oid(table, Lock::AccessExclusive) else { return false };
    // SAFETY: as TRUNCATE does it with a table that is locked: new files, then the indexes built on nothing.
    unsafe {
        let raw = open.raw();
        give_new_file(raw);
        let toast = (*(*raw).rd_rel).reltoastrelid;
        if let Some(toast) = valid(toast).and_then(|toast| Open::by_oid(toast, Lock::AccessExclusive)) {
            give_new_file(toast.raw());
        }
        reindex_relation(table);
        pg_sys::CommandCounterIncrement();
    }
    true
}
