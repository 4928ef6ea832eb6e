//! What a faulty machine on the way can do to bytes. Once each: to the next piece that passes.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};

use bytes::BytesMut;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Spoiling {
    /// One bit is another.
    Changed,
    /// One byte comes twice.
    Repeated,
}

/// What is to be done, by the names of who sends and who is sent to.
#[derive(Debug, Default)]
pub struct Spoils(Mutex<BTreeMap<(String, String), Spoiling>>);

impl Spoils {
    pub fn add(&self, from: &str, to: &str, spoiling: Spoiling) {
        self.lock().insert((from.to_owned(), to.to_owned()), spoiling);
    }

    pub fn clear(&self) {
        self.lock().clear();
    }

    /// Does to a piece what is to be done.
    pub fn meddle(&self, from: &str, to: &str, piece: &mut BytesMut) {
        let mut spoils = self.lock();
        // Almost always.
        if spoils.is_empty() {
            return;
        }
        let middle = piece.len() / 2;
        match spoils.remove(&(from.to_owned(), to.to_owned())) {
            None => {}
            Some(Spoiling::Changed) => piece[middle] ^= 1,
            Some(Spoiling::Repeated) => {
                let rest = piece.split_off(middle);
                piece.extend_from_slice(&rest[..1]);
                piece.extend_from_slice(&rest);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<(String, String), Spoiling>> {
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}
