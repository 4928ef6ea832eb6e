//! What a statement has made out of rows on its origin, as it stands in a body ([`crate::body`]): the same statement elsewhere evaluates nothing.

use crate::bounds::NAME_BYTES_MAX;
use crate::wire::{Reader, WireError};

/// One value may be as long as PostgreSQL's largest varlena.
pub(crate) const DATUM_BYTES_MAX: usize = 1 << 30;

/// What the origin's statement has made out of rows: the same one elsewhere evaluates nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided<'a> {
    pub(crate) tables: &'a [u8],
    pub(crate) columns: &'a [u8],
    /// The bound of the partition that it makes or attaches, in constants.
    pub bound: Option<&'a str>,
}

impl<'a> Decided<'a> {
    /// The tables that are emptied before the statement runs, for their rows follow as inserts.
    pub fn tables(self) -> impl Iterator<Item = Remade<'a>> {
        let mut reader = Reader::new(self.tables);
        std::iter::from_fn(move || if reader.is_empty() { None } else { read_remade(&mut reader).ok() })
    }

    /// Each new column whose default must not be evaluated, and its value in the rows that stay; none is null.
    pub fn columns(self) -> impl Iterator<Item = (&'a str, Option<&'a str>)> {
        let mut reader = Reader::new(self.columns);
        std::iter::from_fn(move || if reader.is_empty() { None } else { read_column(&mut reader).ok() })
    }
}

/// A table whose rows follow a statement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Remade<'a> {
    pub schema: &'a str,
    pub name: &'a str,
    /// The origin has written the table anew: no row there is older than a column.
    pub anew: bool,
    /// The table is emptied when the statement has run, not before: the statement makes it, or fills it.
    pub afterwards: bool,
}

pub(crate) fn read_remade<'a>(reader: &mut Reader<'a>) -> Result<Remade<'a>, WireError> {
    let (schema, name) = (reader.str("schema name", NAME_BYTES_MAX)?, reader.str("relation name", NAME_BYTES_MAX)?);
    match reader.u8()? {
        flags @ 0..=3 => Ok(Remade { schema, name, anew: flags & 1 != 0, afterwards: flags & 2 != 0 }),
        flags => Err(WireError::Unknown { what: "how a table was made", value: u64::from(flags) }),
    }
}

pub(crate) fn read_column<'a>(reader: &mut Reader<'a>) -> Result<(&'a str, Option<&'a str>), WireError> {
    let name = reader.str("column name", NAME_BYTES_MAX)?;
    Ok((name, read_optional(reader, "value of a column")?))
}

pub(crate) fn read_optional<'a>(reader: &mut Reader<'a>, what: &'static str) -> Result<Option<&'a str>, WireError> {
    match reader.u8()? {
        0 => Ok(None),
        1 => reader.str(what, DATUM_BYTES_MAX).map(Some),
        _ => Err(WireError::OutOfRange { what }),
    }
}
