//! A table's definition as a statement: its columns with their types and collations, and its storage parameters; nothing else.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::encoding;
use super::list;
use super::majors::relation::attributes;
use super::names::{Oid, name_of, owned, qualified_name, quoted, quoted_text, valid};
use super::relation::Open;

unsafe extern "C-unwind" {
    /// Of utils/ruleutils.h, which pgrx does not bind.
    fn generate_collation_name(collation: pg_sys::Oid) -> *mut std::ffi::c_char;
}

/// `CREATE TABLE` for a table that has neither constraints nor defaults.
pub fn create_table(table: &Open) -> String {
    let (schema, name) = qualified_name(table.oid()).unwrap_or_default();
    // SAFETY: the relation is open; its descriptor holds `natts` attributes.
    let columns: Vec<String> = unsafe {
        let descriptor = (*table.raw()).rd_att;
        let attributes = attributes(descriptor);
        attributes.iter().filter(|attribute| !attribute.attisdropped).map(column).collect()
    };
    // SAFETY: the relation is open.
    let toast = valid(unsafe { (*(*table.raw()).rd_rel).reltoastrelid });
    let mut parameters = parameters(table.oid(), "");
    parameters.extend(toast.into_iter().flat_map(|toast| self::parameters(toast, "toast.")));
    let with = if parameters.is_empty() { String::new() } else { format!(" WITH ({})", parameters.join(", ")) };
    // SAFETY: the relation is open.
    let is_unlogged = unsafe { (*(*table.raw()).rd_rel).relpersistence } as u8 == pg_sys::RELPERSISTENCE_UNLOGGED;
    let unlogged = if is_unlogged { "UNLOGGED " } else { "" };
    // SAFETY: as above; a table has an access method, whose name is palloc'd.
    let method = unsafe { owned(pg_sys::get_am_name((*(*table.raw()).rd_rel).relam)) };
    let using = method.map(|method| format!(" USING {}", quoted(&method))).unwrap_or_default();
    format!("CREATE {unlogged}TABLE {}.{} ({}){using}{with}", quoted(&schema), quoted(&name), columns.join(", "))
}

/// The columns of a table as LIKE takes them over without options: with NOT NULL, and nothing else.
pub(super) fn like(table: &Open) -> String {
    // SAFETY: the relation is open; its descriptor holds `natts` attributes.
    let attributes = unsafe {
        let descriptor = (*table.raw()).rd_att;
        attributes(descriptor)
    };
    let there = attributes.iter().filter(|attribute| !attribute.attisdropped);
    let columns: Vec<String> =
        there.map(|attribute| column(attribute) + if attribute.attnotnull { " NOT NULL" } else { "" }).collect();
    columns.join(", ")
}

/// Storage parameters of a relation, as `name = 'value'`.
fn parameters(relation: Oid, prefix: &str) -> Vec<String> {
    // SAFETY: a syscache look-up, its tuple released after its options were copied; options are DefElems with strings.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return Vec::new();
        }
        let mut is_null = true;
        let options = pg_sys::SysCacheGetAttr(cache, tuple, pg_sys::Anum_pg_class_reloptions as i16, &mut is_null);
        let options = if is_null { std::ptr::null_mut() } else { pg_sys::untransformRelOptions(options) };
        let text = |option: *mut pg_sys::DefElem| {
            let name = encoding::text(CStr::from_ptr((*option).defname));
            let value = (*option).arg.cast::<pg_sys::String>();
            let value = if value.is_null() { "true".to_owned() } else { encoding::text(CStr::from_ptr((*value).sval)) };
            format!("{prefix}{} = {}", quoted(&name), quoted_text(&value))
        };
        let parameters = list::pointers::<pg_sys::DefElem>(options).into_iter().map(text).collect();
        pg_sys::ReleaseSysCache(tuple);
        parameters
    }
}

fn column(attribute: &pg_sys::FormData_pg_attribute) -> String {
    let flags = pg_sys::FORMAT_TYPE_TYPEMOD_GIVEN | pg_sys::FORMAT_TYPE_FORCE_QUALIFY;
    // SAFETY: catalog look-ups that give palloc'd strings.
    unsafe {
        let type_name = owned(pg_sys::format_type_extended(attribute.atttypid, attribute.atttypmod, flags as u16));
        let name = name_of(&attribute.attname);
        let mut column = format!("{} {}", quoted(&name), type_name.unwrap_or_default());
        let collation = attribute.attcollation;
        if collation != pg_sys::InvalidOid && collation != pg_sys::get_typcollation(attribute.atttypid) {
            let name = pg_sys::ffi::pg_guard_ffi_boundary(|| generate_collation_name(collation));
            column.push_str(&format!(" COLLATE {}", owned(name).unwrap_or_default()));
        }
        column
    }
}
