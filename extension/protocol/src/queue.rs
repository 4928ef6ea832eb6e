//! Where a writeset waits to be applied: in a ring in shared memory, or in a file when it is large or the ring is full.
//!
//! The ring is used in position order and freed in position order, as positions are committed. A writeset that was fetched
//! comes out of order and always goes to a file.

use crate::bounds::RING_SHARE;
use crate::gate::Storage;
use crate::platform::{Platform, Ring};
use crate::replica::Database;

/// Whether a writeset of that length may ever go into the ring.
pub fn fits_ring<P: Platform>(database: &Database<P>, length: usize) -> bool {
    length <= database.queue.size() / RING_SHARE
}

/// Copies a whole writeset into the ring. None if there is no room (now).
pub fn place_in_ring<P: Platform>(database: &Database<P>, writeset: &[u8]) -> Option<Storage> {
    if !fits_ring(database, writeset.len()) {
        return None;
    }
    let (offset, end) = database.gate.take_ring(database.queue.size(), writeset.len())?;
    database.queue.write(offset, writeset);
    Some(Storage::Ring { offset, length: writeset.len(), end })
}
