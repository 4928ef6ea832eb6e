//! A table's definition as a statement: its columns with their types and collations, nothing else.

use pgrx::pg_sys;

use super::names::{name_of, owned, qualified_name, quoted};
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
        let attributes = (*descriptor).attrs.as_slice((*descriptor).natts as usize);
        attributes.iter().filter(|attribute| !attribute.attisdropped).map(column).collect()
    };
    format!("CREATE TABLE {}.{} ({})", quoted(&schema), quoted(&name), columns.join(", "))
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
