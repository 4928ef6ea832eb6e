//! A backend that uses group locks ([`super::lockers`] makes it act).

use gcs_writeset::{Lock, LockSession};

/// Backends with locks on a node.
pub const EACH: usize = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    Nothing,
    Asks(Lock),
    AsksFirst([Lock; 2]),
    Holds(Lock, LockSession),
    GivesBack,
}

/// One backend.
#[derive(Clone, Debug)]
pub struct Locker {
    /// The connection that it has, in the daemon's life that this was.
    pub connection: Option<(u64, u64)>,
    pub number: u64,
    pub doing: Doing,
    /// Its session has held what its client's transaction may name for long after.
    pub has_held_own: bool,
    /// It has held something since trouble ended.
    pub held_since: bool,
}

impl Locker {
    pub fn new() -> Locker {
        Locker { connection: None, number: 0, doing: Doing::Nothing, has_held_own: false, held_since: false }
    }

    pub fn is_at_rest(&self) -> bool {
        self.doing == Doing::Nothing
    }
}
