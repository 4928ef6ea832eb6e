//! Newtypes for every number that crosses a module.

use std::fmt;

use crate::wire::{Put, Reader, WireError};

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number! {
    /// The dense number of an ordered writeset, certified or aborted, of one database. The first is 1; 0 is "before all".
    Position(u64)
}

number! {
    /// A member of the group; also its Raft id. Never 0. Derived from the node's name, see [`NodeId::of_member`].
    NodeId(u64)
}

number! {
    /// One life of one PostgreSQL server, drawn at random when the server starts.
    Incarnation(u64)
}

number! {
    /// A replicated database, numbered by the group in the order in which databases were first started.
    DatabaseId(u32)
}

number! {
    /// A backend's place in its server's process array. One slot has at most one submission outstanding.
    SlotId(u32)
}

number! {
    /// Counts the submissions of one slot; larger is later. 0 is never used.
    Sequence(u64)
}

impl Position {
    pub const ZERO: Position = Position(0);

    pub fn next(self) -> Position {
        Position(self.0 + 1)
    }

    /// The position before this one; 0 stays 0.
    pub fn previous(self) -> Position {
        Position(self.0.saturating_sub(1))
    }
}

impl NodeId {
    /// FNV-1a (64 bit) of the name, so that every member derives the same id without asking; 0 becomes 1.
    pub fn of_name(name: &str) -> NodeId {
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3));
        NodeId(hash.max(1))
    }

    /// Of a name that is in the group for the `generation`th time, from 0. A Raft id is never given twice: what its holder has promised may
    /// be forgotten with its disk.
    pub fn of_member(name: &str, generation: u32) -> NodeId {
        if generation == 0 { NodeId::of_name(name) } else { NodeId::of_name(&format!("{name}#{generation}")) }
    }
}

/// Names one submission for ever. A resubmission carries the same tag, so the group orders it at most once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    pub database: DatabaseId,
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub slot: SlotId,
    pub sequence: Sequence,
}

impl Tag {
    /// Appends the one form that a tag has, wherever it stands: 32 bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_u32(self.database.0);
        out.put_u64(self.node.0);
        out.put_u64(self.incarnation.0);
        out.put_u32(self.slot.0);
        out.put_u64(self.sequence.0);
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Tag, WireError> {
        Ok(Tag {
            database: DatabaseId(reader.u32()?),
            node: NodeId(reader.u64()?),
            incarnation: Incarnation(reader.u64()?),
            slot: SlotId(reader.u32()?),
            sequence: Sequence(reader.u64()?),
        })
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{:x}/{:x}/{}/{}", self.database, self.node.0, self.incarnation.0, self.slot, self.sequence)
    }
}
