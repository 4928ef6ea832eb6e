//! Prepared transactions in a checkpoint.

use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{Key, NodeId, Position};

use super::items::{list, read_keys};
use crate::bounds::PREPARED_MAX;
use crate::certify::{Pinned, Pins};

pub(super) fn put(out: &mut Vec<u8>, pins: &Pins) {
    out.put_varint(pins.all().len() as u64);
    for (name, pinned) in pins.all() {
        out.put_u64(name.0);
        out.put_u64(pinned.position.0);
        out.put_u64(pinned.node.0);
        let lists = [&pinned.exclusive, &pinned.shared, &pinned.checked];
        lists.iter().for_each(|keys| out.put_varint(keys.len() as u64));
        lists.into_iter().flatten().for_each(|key| out.put_u64(key.0));
    }
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Pins, WireError> {
    let pinned = list(reader, "prepared transactions", PREPARED_MAX as u64, |reader| {
        let name = Key(reader.u64()?);
        let (position, node) = (Position(reader.u64()?), NodeId(reader.u64()?));
        let [exclusive, shared, checked] = [reader.varint()?, reader.varint()?, reader.varint()?];
        let (exclusive, shared) = (read_keys(reader, exclusive)?, read_keys(reader, shared)?);
        Ok((name, Pinned { position, node, exclusive, shared, checked: read_keys(reader, checked)? }))
    })?;
    Ok(Pins::restore(pinned))
}
