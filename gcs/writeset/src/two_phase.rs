//! PREPARE TRANSACTION, and what decides on it later (docs/adr/0061-prepared-transactions.md).
//!
//! A writeset that *prepares* is certified as any other, and changes nothing but the list of prepared transactions: its body holds the prepared transaction's own one. From then
//! on nobody else gets its keys. A writeset that *commits* holds these keys, which it need not bring, and changes what the prepared transaction changed; one that
//! *rolls back* lets go of them.

use crate::bounds::{IDENTIFIER_BYTES_MAX, NAME_BYTES_MAX, PREPARED_BODY_BYTES_MAX};
use crate::key::{Key, Namespace, bytes_hash};
use crate::wire::{Put, Reader, WireError};

/// Kinds of items in a body.
pub(crate) const PREPARED: u8 = 16;
pub(crate) const FINISHED: u8 = 17;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Prepare,
    Commit,
    Rollback,
}

impl Phase {
    pub fn number(self) -> u8 {
        match self {
            Phase::Prepare => 1,
            Phase::Commit => 2,
            Phase::Rollback => 3,
        }
    }

    pub fn of(number: u8) -> Result<Phase, WireError> {
        Ok(match number {
            1 => Phase::Prepare,
            2 => Phase::Commit,
            3 => Phase::Rollback,
            value => return Err(WireError::Unknown { what: "phase of a prepared transaction", value: u64::from(value) }),
        })
    }
}

/// What a writeset does to a prepared transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TwoPhase {
    pub phase: Phase,
    /// Which one: [`name`] of its identifier.
    pub name: Key,
}

/// By which the group knows the prepared transaction with this identifier; also the key of its row in the list.
pub fn name(identifier: &str) -> Key {
    Key::new(Namespace::Prepared, 0, bytes_hash(identifier.as_bytes()))
}

/// A prepared transaction, as the list of those has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Prepared<'a> {
    /// What the client calls it.
    pub identifier: &'a str,
    /// The role that has prepared it.
    pub owner: &'a str,
    /// Microseconds since 2000-01-01 UTC.
    pub prepared_at: i64,
    /// Items of what it has changed.
    pub body: &'a [u8],
}

impl Prepared<'_> {
    /// Appends the item.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(PREPARED);
        out.put_str(self.identifier);
        out.put_str(self.owner);
        out.put_i64(self.prepared_at);
        out.put_varint(self.body.len() as u64);
        out.extend_from_slice(self.body);
    }
}

/// Appends the item by which a prepared transaction leaves the list.
pub fn put_finished(out: &mut Vec<u8>, identifier: &str) {
    out.put_u8(FINISHED);
    out.put_str(identifier);
}

pub(crate) fn read_identifier<'a>(reader: &mut Reader<'a>) -> Result<&'a str, WireError> {
    reader.str("transaction identifier", IDENTIFIER_BYTES_MAX)
}

pub(crate) fn read_prepared<'a>(reader: &mut Reader<'a>) -> Result<Prepared<'a>, WireError> {
    Ok(Prepared {
        identifier: read_identifier(reader)?,
        owner: reader.str("role name", NAME_BYTES_MAX)?,
        prepared_at: reader.i64()?,
        body: reader.bytes("body of a prepared transaction", PREPARED_BODY_BYTES_MAX)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Item, Items};

    #[test]
    fn what_joins_and_leaves_the_list_comes_back_as_it_was_written() {
        let prepared = Prepared { identifier: "g\u{e9}", owner: "ana", prepared_at: -2, body: b"\x08" };
        let mut body = Vec::new();
        prepared.put(&mut body);
        put_finished(&mut body, "g");
        assert_eq!(body, b"\x10\x03g\xc3\xa9\x03ana\xfe\xff\xff\xff\xff\xff\xff\xff\x01\x08\x11\x01g");
        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        assert_eq!(items, [Item::Prepared(prepared), Item::Finished { identifier: "g" }]);
        for cut in 1..body.len() {
            assert!(Items::new(&body[..cut]).count() <= items.len());
        }
        let mut long = Vec::new();
        put_finished(&mut long, &"g".repeat(IDENTIFIER_BYTES_MAX + 1));
        assert!(Items::new(&long).next().is_some_and(|item| item.is_err()));
    }

    #[test]
    fn phases_are_what_their_numbers_say() {
        for phase in [Phase::Prepare, Phase::Commit, Phase::Rollback] {
            assert_eq!(Phase::of(phase.number()), Ok(phase));
        }
        assert!(Phase::of(0).is_err() && Phase::of(4).is_err());
        assert_ne!(name("a"), name("b"));
    }
}
