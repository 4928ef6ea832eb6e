//! An index that a node is to build, as the payload of [`crate::link::Request::Clear`], which goes the same way
//! (docs/adr/0058-concurrently.md).
//!
//! ```text
//! building  2 u8, schema str, name str: of the index; after varint: a position at or behind the one that made it, or took its validity;
//!           wish 0 u8: to say when all who write there know the index; 1 u8 and varint: to build it when everything up to that position is
//!           committed there; 2 u8: to say when nobody uses it any more, who does not enter rows either
//! ```
//!
//! [`crate::tables`] begins with 0 or 1.

use crate::bounds::NAME_BYTES_MAX;
use crate::id::Position;
use crate::wire::{Put, Reader, WireError};

const MARK: u8 = 2;

/// What the node is to do, and then to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To wait until all who write there know the index.
    Known,
    /// To build it, when everything up to this position is committed there: rows may have been written by those who did not know it.
    Built(Position),
    /// To wait until nobody uses it, and to have no rows entered any more.
    Unused,
}

impl Wish {
    /// Whether there is nothing to it but to wait for other transactions.
    pub fn is_wait(self) -> bool {
        !matches!(self, Wish::Built(_))
    }
}

/// What is asked of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Building {
    pub schema: String,
    pub name: String,
    /// Not before the node has committed this.
    pub after: Position,
    pub wish: Wish,
}

/// Whether the payload is one of these.
pub fn is_building(bytes: &[u8]) -> bool {
    bytes.first() == Some(&MARK)
}

impl Building {
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = vec![MARK];
        bytes.put_str(&self.schema);
        bytes.put_str(&self.name);
        bytes.put_varint(self.after.0);
        match self.wish {
            Wish::Known => bytes.put_u8(0),
            Wish::Built(seen) => {
                bytes.put_u8(1);
                bytes.put_varint(seen.0);
            }
            Wish::Unused => bytes.put_u8(2),
        }
        bytes
    }

    pub fn decode(bytes: &[u8]) -> Result<Building, WireError> {
        let mut reader = Reader::new(bytes);
        match reader.u8()? {
            MARK => {}
            value => return Err(WireError::Unknown { what: "kind of question", value: u64::from(value) }),
        }
        let schema = reader.str("schema", NAME_BYTES_MAX)?.to_owned();
        let name = reader.str("name of an index", NAME_BYTES_MAX)?.to_owned();
        let after = Position(reader.varint()?);
        let wish = match reader.u8()? {
            0 => Wish::Known,
            1 => Wish::Built(Position(reader.varint()?)),
            2 => Wish::Unused,
            value => return Err(WireError::Unknown { what: "wish", value: u64::from(value) }),
        };
        reader.finish("building")?;
        Ok(Building { schema, name, after, wish })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn wish() -> impl Strategy<Value = Wish> {
        prop_oneof![Just(Wish::Known), Just(Wish::Unused), any::<u64>().prop_map(|seen| Wish::Built(Position(seen)))]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(schema in "[a-zé.]{0,60}", name in "[a-z ]{0,60}", after in any::<u64>(), wish in wish(), cut in any::<prop::sample::Index>()) {
            let building = Building { schema, name, after: Position(after), wish };
            let bytes = building.encode();
            prop_assert!(is_building(&bytes) && crate::tables::decode(&bytes).is_err());
            prop_assert!(Building::decode(&bytes[..cut.index(bytes.len())]).is_err());
            prop_assert_eq!(Building::decode(&bytes), Ok(building));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Building::decode(&bytes);
        }
    }

    #[test]
    fn the_bytes_are_these() {
        let building = Building { schema: "s".into(), name: "i".into(), after: Position(7), wish: Wish::Built(Position(9)) };
        assert_eq!(building.encode(), [2, 1, b's', 1, b'i', 7, 1, 9]);
    }
}
