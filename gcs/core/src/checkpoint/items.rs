//! What every part of a checkpoint is made of.

use gcs_writeset::Key;
use gcs_writeset::bounds::KEYS_MAX;
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

/// So many keys.
pub(super) fn read_keys(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Key>, WireError> {
    if count > KEYS_MAX as u64 {
        return Err(WireError::TooLarge { what: "number of keys", value: count, limit: KEYS_MAX as u64 });
    }
    let bytes = reader.take(count as usize * 8)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| Key(u64::from_le_bytes(*chunk))).collect())
}
