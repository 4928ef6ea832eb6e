//! Certification keys.
//!
//! A key is a 64-bit hash in a namespace. Hashes come from the operator class of the index they stand for, so that what the
//! index calls equal is equal; names, never OIDs, tell relations apart, since OIDs differ between nodes. Two different
//! keys that hash alike cost a needless abort, never a missed one. docs/certification.md argues each namespace.

use crate::id::Position;

/// What a key stands for. The namespace is mixed into the hash, so equal values of different namespaces differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Namespace {
    Row = 1,
    Unique = 2,
    Exclusion = 3,
    Relation = 4,
    Schema = 5,
    /// Of prepared transactions, by their identifiers.
    Prepared = 6,
}

/// Two holders conflict unless both are shared. A checked key conflicts with every earlier holder and is not held itself: what
/// was read must still stand, and later writers do not mind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mode {
    Exclusive,
    Shared,
    Checked,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u64);

impl Key {
    /// A key of `namespace` for the object `name` (for instance `schema.table` and an index) and a value already hashed by
    /// the operator class; `value` is 0 where the object itself is meant.
    pub fn new(namespace: Namespace, name: u64, value: u64) -> Key {
        Key(mix(mix(mix(0x5057_5f52 ^ namespace as u64) ^ name) ^ value))
    }
}

/// Hashes an object's name for [`Key::new`]. Parts are length-prefixed, so `("a.b","c")` and `("a","b.c")` differ.
pub fn name_hash(parts: &[&str]) -> u64 {
    parts.iter().fold(0x0067_6373, |hash, part| {
        let seeded = mix(hash ^ part.len() as u64);
        part.bytes().fold(seeded, |h, byte| (h ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
    })
}

/// Hashes a value's bytes for [`Key::new`], eight at a time.
pub fn bytes_hash(bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut tail = [0u8; 8];
    tail[..rest.len()].copy_from_slice(rest);
    let hash = words.iter().fold(mix(bytes.len() as u64), |hash, word| mix(hash ^ u64::from_le_bytes(*word)));
    mix(hash ^ u64::from_le_bytes(tail))
}

/// The finaliser of splitmix64 (Steele, Lea, Flood, 2014): a bijection that spreads every input bit.
pub fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

/// Keys that share one base position: the writeset conflicts with what was ordered after `base`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyGroup {
    pub base: Position,
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
    pub checked: Vec<Key>,
}

impl KeyGroup {
    /// How many keys.
    pub fn len(&self) -> usize {
        self.exclusive.len() + self.shared.len() + self.checked.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
