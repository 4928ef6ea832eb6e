//! A change of a large object, as it stands in a body ([`crate::body`]): in the order in which the transaction made them, each is done again
//! elsewhere.
//!
//! A large object goes by its number, which is the same on every node.

use crate::bounds::NAME_BYTES_MAX;
use crate::wire::{Put, Reader, WireError};

/// What one write carries. Writers split what is longer, so that whoever applies it holds no more than this of it at a time.
pub const PIECE_BYTES_MAX: usize = 1 << 20;

const CREATE: u8 = 0;
const WRITE: u8 = 1;
const TRUNCATE: u8 = 2;
const UNLINK: u8 = 3;

/// One change of the large object with this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LargeObject<'a> {
    pub number: u32,
    pub change: Change<'a>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// It is made, empty, and belongs to this role.
    Create { owner: &'a str },
    /// These bytes are put at this offset. What lies between its end so far and the offset reads as zeros.
    Write { offset: u64, bytes: &'a [u8] },
    /// It is so long from here on: what is behind is gone, what was not there reads as zeros.
    Truncate { length: u64 },
    /// It is gone.
    Unlink,
}

impl<'a> LargeObject<'a> {
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.number);
        match self.change {
            Change::Create { owner } => {
                out.put_u8(CREATE);
                out.put_str(owner);
            }
            Change::Write { offset, bytes } => {
                debug_assert!(bytes.len() <= PIECE_BYTES_MAX, "longer writes are split");
                out.put_u8(WRITE);
                out.put_varint(offset);
                out.put_bytes(bytes);
            }
            Change::Truncate { length } => {
                out.put_u8(TRUNCATE);
                out.put_varint(length);
            }
            Change::Unlink => out.put_u8(UNLINK),
        }
    }

    pub(crate) fn read(reader: &mut Reader<'a>) -> Result<LargeObject<'a>, WireError> {
        let number = reader.u32()?;
        let change = match reader.u8()? {
            CREATE => Change::Create { owner: reader.str("role name", NAME_BYTES_MAX)? },
            WRITE => {
                let offset = reader.varint()?;
                Change::Write { offset, bytes: reader.bytes("write to a large object", PIECE_BYTES_MAX)? }
            }
            TRUNCATE => Change::Truncate { length: reader.varint()? },
            UNLINK => Change::Unlink,
            kind => return Err(WireError::Unknown { what: "change of a large object", value: u64::from(kind) }),
        };
        Ok(LargeObject { number, change })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body::{Item, Items, PutItem};

    const CHANGES: [Change<'static>; 4] = [
        Change::Create { owner: "eva \u{e9}" },
        Change::Write { offset: 300, bytes: b"ab" },
        Change::Truncate { length: 1 << 40 },
        Change::Unlink,
    ];

    #[test]
    fn changes_of_large_objects_come_back_as_they_were_written() {
        let mut body = Vec::new();
        for change in CHANGES {
            body.put_large_object(LargeObject { number: 0x0102_0304, change });
        }
        assert_eq!(
            body,
            b"\x0c\x04\x03\x02\x01\x00\x06eva \xc3\xa9\x0c\x04\x03\x02\x01\x01\xac\x02\x02ab\
              \x0c\x04\x03\x02\x01\x02\x80\x80\x80\x80\x80\x20\x0c\x04\x03\x02\x01\x03"
        );
        let items: Vec<_> = Items::new(&body).collect::<Result<_, _>>().unwrap();
        let expected = CHANGES.map(|change| Item::LargeObject(LargeObject { number: 0x0102_0304, change }));
        assert_eq!(items, expected);
        for cut in 1..body.len() {
            assert!(Items::new(&body[..cut]).count() <= items.len());
        }
    }

    #[test]
    fn a_write_that_should_have_been_split_is_refused() {
        let mut body = b"\x0c\x04\x03\x02\x01\x01\x00".to_vec();
        body.put_bytes(&vec![0; PIECE_BYTES_MAX + 1]);
        assert!(Items::new(&body).next().is_some_and(|item| item.is_err()));
        assert!(Items::new(b"\x0c\x04\x03\x02\x01\x04").next().is_some_and(|item| item.is_err()));
    }
}
