//! What every part of a checkpoint is made of.

use gcs_writeset::wire::{Reader, WireError};

pub(super) fn read_flag(reader: &mut Reader<'_>, what: &'static str) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        value => Err(WireError::Unknown { what, value: u64::from(value) }),
    }
}

/// A varint count of at most `limit`, then that many items. What is allocated is bounded by what was read.
pub(super) fn list<T>(
    reader: &mut Reader<'_>,
    what: &'static str,
    limit: u64,
    mut item: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = reader.varint()?;
    if count > limit {
        return Err(WireError::TooLarge { what, value: count, limit });
    }
    let mut items = Vec::new();
    for _ in 0..count {
        items.push(item(reader)?);
    }
    Ok(items)
}
