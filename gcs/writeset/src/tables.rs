//! Names of tables, as the payload of [`crate::link::Request::Clear`].
//!
//! ```text
//! tables   alone u8 (0 or 1), count varint, each: schema and name, length varint and UTF-8
//! ```

use crate::bounds::{NAME_BYTES_MAX, TABLES_MAX};
use crate::wire::{Put, Reader, WireError};

/// A table by its schema and its name.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub name: String,
}

/// As they travel. No more than [`TABLES_MAX`] of them, with names as PostgreSQL has them. `alone`: readers are to be waited for, too.
pub fn encode(alone: bool, tables: &[TableName]) -> Vec<u8> {
    let mut bytes = vec![u8::from(alone)];
    bytes.put_varint(tables.len() as u64);
    for TableName { schema, name } in tables {
        bytes.put_str(schema);
        bytes.put_str(name);
    }
    bytes
}

pub fn decode(bytes: &[u8]) -> Result<(bool, Vec<TableName>), WireError> {
    let mut reader = Reader::new(bytes);
    let alone = match reader.u8()? {
        0 => false,
        1 => true,
        value => return Err(WireError::Unknown { what: "alone", value: u64::from(value) }),
    };
    let count = reader.varint()?;
    if count > TABLES_MAX as u64 {
        return Err(WireError::TooLarge { what: "number of tables", value: count, limit: TABLES_MAX as u64 });
    }
    let mut name = |what| Ok(reader.str(what, NAME_BYTES_MAX)?.to_owned());
    let tables: Result<Vec<TableName>, WireError> =
        (0..count).map(|_| Ok(TableName { schema: name("schema")?, name: name("name of a table")? })).collect();
    reader.finish("tables")?;
    Ok((alone, tables?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_was_written_is_read(alone in any::<bool>(), names in prop::collection::vec(("[a-zé.]{0,60}", "[a-z ]{0,60}"), 0..20), cut in any::<prop::sample::Index>()) {
            let tables: Vec<TableName> = names.into_iter().map(|(schema, name)| TableName { schema, name }).collect();
            let bytes = encode(alone, &tables);
            prop_assert_eq!(decode(&bytes), Ok((alone, tables)));
            prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = decode(&bytes);
        }
    }

    #[test]
    fn there_are_not_too_many() {
        let tables = vec![TableName::default(); TABLES_MAX + 1];
        assert!(matches!(decode(&encode(false, &tables)), Err(WireError::TooLarge { what: "number of tables", .. })));
    }
}
