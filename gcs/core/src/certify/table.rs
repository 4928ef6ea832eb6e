//! The certification table: key -> the last positions that held it.
//!
//! On the path of every commit, so a hash map. It is never iterated, hence its order never matters: what has to be listed is
//! listed from the window. Keys are hashes already; hashing them again would buy nothing.

#![allow(clippy::disallowed_types, reason = "a hash map with a fixed hasher that is never iterated is deterministic")]

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};

use gcs_writeset::{Key, Position};

/// The last certified holders of a key; 0 for none that is remembered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holders {
    pub exclusive: Position,
    pub shared: Position,
}

#[derive(Debug, Default)]
pub struct Table {
    map: HashMap<u64, Holders, BuildHasherDefault<Identity>>,
}

impl Table {
    pub fn get(&self, key: Key) -> Option<Holders> {
        self.map.get(&key.0).copied()
    }

    /// Adds holders; later ones replace earlier ones, mode by mode.
    pub fn hold(&mut self, key: Key, by: Holders) {
        match self.map.entry(key.0) {
            Entry::Occupied(mut entry) => {
                let holders = entry.get_mut();
                holders.exclusive = holders.exclusive.max(by.exclusive);
                holders.shared = holders.shared.max(by.shared);
            }
            Entry::Vacant(entry) => {
                entry.insert(by);
            }
        }
    }

    /// Drops the key if nobody above the horizon holds it.
    pub fn forget(&mut self, key: Key, horizon: Position) {
        if let Entry::Occupied(entry) = self.map.entry(key.0)
            && entry.get().exclusive <= horizon
            && entry.get().shared <= horizon
        {
            entry.remove();
        }
    }
}

#[derive(Default)]
struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    /// Only `u64` keys occur; anything else would still hash, badly.
    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(byte);
        }
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}
