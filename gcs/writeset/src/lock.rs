//! Group locks: what sessions ask of the lock table that the group keeps in its order (`gcs_core::locks`).
//!
//! A lock is named by a key and held in a mode, by a *session*: the connection of a backend to its daemon, numbered by the daemon in its
//! present *life*. A life ends when the daemon starts anew or the group gives it up for lost; all that its sessions held is free then. Each
//! session numbers what it asks, so that a copy of a request is told from the next one.
//!
//! ```text
//! lock         space u8, value u64, mode u8 (0 shared, 1 exclusive)
//! op           1 take      lock, waits u8
//!              2 give      count u32, locks
//!              3 withdraw  number u64 of the take
//!              4 blocks    count u32, numbers of sessions u64
//!              5 close
//!              6 first     count u32, locks, seen u64
//! ```

use crate::bounds::LOCKS_AT_ONCE_MAX;
use crate::id::Position;
use crate::key::Key;
use crate::wire::{Put, Reader, WireError};

/// What is locked, within a database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockKey {
    /// Keys of different kinds do not meet: see [`LockKey::ADVISORY`].
    pub space: u8,
    pub value: u64,
}

impl LockKey {
    /// Advisory locks by one bigint.
    pub const ADVISORY: u8 = 1;
    /// Advisory locks by two integers.
    pub const ADVISORY_PAIR: u8 = 2;
    /// Rows, by the certification key of each. What a session holds of these is its transaction's: the order gives it back where it decides on the writeset that
    /// names the session as its holder.
    pub const ROW: u8 = 3;

    /// Tables, by the certification key of each. A transaction's too: exclusive of DDL and the like, shared of whoever has found it held so, and changes rows.
    pub const TABLE: u8 = 4;

    pub fn of_row(key: Key) -> LockKey {
        LockKey { space: LockKey::ROW, value: key.0 }
    }

    pub fn of_table(key: Key) -> LockKey {
        LockKey { space: LockKey::TABLE, value: key.0 }
    }

    /// The certification key of the row, if it is one.
    pub fn row(self) -> Option<Key> {
        (self.space == LockKey::ROW).then_some(Key(self.value))
    }

    /// What certification knows it by, if it is a row or a table: such locks are a transaction's, and end where the order decides on that.
    pub fn certified(self) -> Option<Key> {
        matches!(self.space, LockKey::ROW | LockKey::TABLE).then_some(Key(self.value))
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LockMode {
    #[default]
    Shared,
    Exclusive,
}

impl LockMode {
    pub fn conflicts(self, other: LockMode) -> bool {
        self == LockMode::Exclusive || other == LockMode::Exclusive
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lock {
    pub key: LockKey,
    pub mode: LockMode,
}

/// A session as its own node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LockSession {
    pub life: u64,
    pub number: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LockOp {
    /// Answered once it is held, or that it can't be had. `seen` is up to where its node has committed: so the order can tell a row that nodes fight over.
    Take { lock: Lock, waits: bool, seen: Position },
    /// Of no effect where the session does not hold one. Answered [`LockAnswer::Given`].
    Give { locks: Vec<Lock> },
    /// Whatever the `Take` of this number has come to is undone: it waits no longer, and if it was granted, the lock is given back.
    Withdraw { take: u64 },
    /// These sessions of the same node wait, on that node, for something that this one holds: as told after it has waited for a while
    /// itself. Takes the place of what was told before.
    Blocks { sessions: Vec<u64> },
    /// The session is over.
    Close,
    /// The first of these that can be had now, and under which nothing was done behind `seen`, which the session's node has committed: for whoever takes
    /// what is free and skips the rest. Answered [`LockAnswer::Found`], or `NotAvailable`.
    First { locks: Vec<Lock>, seen: Position },
}

impl LockOp {
    /// Whether it asks for a lock, so that nothing is amiss if it is refused.
    pub fn is_for_lock(&self) -> bool {
        matches!(self, LockOp::Take { .. } | LockOp::First { .. })
    }

    /// How many locks it names.
    pub fn len(&self) -> usize {
        match self {
            LockOp::Take { .. } => 1,
            LockOp::Give { locks } | LockOp::First { locks, .. } => locks.len(),
            LockOp::Withdraw { .. } | LockOp::Blocks { .. } | LockOp::Close => 0,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockAnswer {
    /// What was ordered before the lock was granted lies at or below this position; of a row, what changed or locked it.
    Granted {
        position: Position,
    },
    /// Somebody else holds it, and the session would not wait.
    NotAvailable,
    /// The session would wait for itself.
    Deadlock,
    /// There is no room for another lock.
    Full,
    Given,
    /// The lock at this place of those that were named is held.
    Found {
        at: u32,
    },
}

const TAKE: u8 = 1;
const GIVE: u8 = 2;
const WITHDRAW: u8 = 3;
const BLOCKS: u8 = 4;
const CLOSE: u8 = 5;
const FIRST: u8 = 6;

impl Lock {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(self.key.space);
        out.put_u64(self.key.value);
        out.put_u8(match self.mode {
            LockMode::Shared => 0,
            LockMode::Exclusive => 1,
        });
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Lock, WireError> {
        let key = LockKey { space: reader.u8()?, value: reader.u64()? };
        let mode = match reader.u8()? {
            0 => LockMode::Shared,
            1 => LockMode::Exclusive,
            value => return Err(WireError::Unknown { what: "mode of a lock", value: u64::from(value) }),
        };
        Ok(Lock { key, mode })
    }
}

impl LockOp {
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            LockOp::Take { lock, waits, seen } => {
                out.put_u8(TAKE);
                lock.put(out);
                out.put_u8(u8::from(*waits));
                out.put_u64(seen.0);
            }
            LockOp::Give { locks } => {
                out.put_u8(GIVE);
                out.put_u32(locks.len() as u32);
                locks.iter().for_each(|lock| lock.put(out));
            }
            LockOp::Withdraw { take } => {
                out.put_u8(WITHDRAW);
                out.put_u64(*take);
            }
            LockOp::Blocks { sessions } => {
                out.put_u8(BLOCKS);
                out.put_u32(sessions.len() as u32);
                sessions.iter().for_each(|session| out.put_u64(*session));
            }
            LockOp::Close => out.put_u8(CLOSE),
            LockOp::First { locks, seen } => {
                out.put_u8(FIRST);
                out.put_u32(locks.len() as u32);
                locks.iter().for_each(|lock| lock.put(out));
                out.put_u64(seen.0);
            }
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<LockOp, WireError> {
        Ok(match reader.u8()? {
            TAKE => {
                let lock = Lock::read(reader)?;
                let waits = match reader.u8()? {
                    0 => false,
                    1 => true,
                    value => return Err(WireError::Unknown { what: "waits", value: u64::from(value) }),
                };
                LockOp::Take { lock, waits, seen: Position(reader.u64()?) }
            }
            GIVE => LockOp::Give { locks: several(reader, Lock::read)? },
            WITHDRAW => LockOp::Withdraw { take: reader.u64()? },
            BLOCKS => LockOp::Blocks { sessions: several(reader, |reader| reader.u64())? },
            CLOSE => LockOp::Close,
            FIRST => LockOp::First { locks: several(reader, Lock::read)?, seen: Position(reader.u64()?) },
            value => return Err(WireError::Unknown { what: "request for a lock", value: u64::from(value) }),
        })
    }
}

fn several<T>(
    reader: &mut Reader<'_>,
    mut one: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = reader.u32()?;
    if count as usize > LOCKS_AT_ONCE_MAX {
        let limit = LOCKS_AT_ONCE_MAX as u64;
        return Err(WireError::TooLarge { what: "number of locks", value: u64::from(count), limit });
    }
    (0..count).map(|_| one(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lock() -> impl Strategy<Value = Lock> {
        (any::<u8>(), any::<u64>(), any::<bool>()).prop_map(|(space, value, exclusive)| Lock {
            key: LockKey { space, value },
            mode: if exclusive { LockMode::Exclusive } else { LockMode::Shared },
        })
    }

    fn op() -> impl Strategy<Value = LockOp> {
        prop_oneof![
            (lock(), any::<bool>(), any::<u64>()).prop_map(|(lock, waits, seen)| LockOp::Take {
                lock,
                waits,
                seen: Position(seen)
            }),
            prop::collection::vec(lock(), 0..5).prop_map(|locks| LockOp::Give { locks }),
            any::<u64>().prop_map(|take| LockOp::Withdraw { take }),
            prop::collection::vec(any::<u64>(), 0..5).prop_map(|sessions| LockOp::Blocks { sessions }),
            Just(LockOp::Close),
            (prop::collection::vec(lock(), 0..5), any::<u64>())
                .prop_map(|(locks, seen)| LockOp::First { locks, seen: Position(seen) }),
        ]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read(op in op(), cut in any::<prop::sample::Index>()) {
            let mut bytes = Vec::new();
            op.put(&mut bytes);
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(LockOp::read(&mut reader), Ok(op));
            prop_assert!(reader.is_empty());
            prop_assert!(LockOp::read(&mut Reader::new(&bytes[..cut.index(bytes.len())])).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = LockOp::read(&mut Reader::new(&bytes));
        }
    }
}
