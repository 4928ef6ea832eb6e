//! The mark on a transaction that must give way to an earlier position, in the slot of its process. Who is marked, and how hard a process is
//! pressed, [`crate::precedence`] decides.

use gcs_writeset::{NodeId, Position};

use crate::bounds::{KEY_BYTES, TABLE_BYTES};
use crate::id::{LocalXid, ProcNo, RoleId};
use crate::sync::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use crate::text::Text;

/// The writeset that a transaction gives way to, and over what, as far as that is known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Winner {
    pub position: Position,
    pub node: NodeId,
    /// Empty where it is not known.
    pub table: String,
    pub key: String,
}

/// A transaction that holds a lock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Holder {
    pub process: ProcNo,
    pub transaction: LocalXid,
    /// It has a transaction id, so it has written.
    pub writes: bool,
}

/// The mark, in the slot of the process that is to give way.
#[derive(Default)]
pub struct Victim {
    /// The transaction that must give way, by its local number.
    marked: AtomicU32,
    /// The same number, when its session may be ended if it is idle.
    pressed: AtomicU32,
    /// The process in this place hears a summons.
    hears: AtomicBool,
    /// The session's role as of its last statement, whose error must not show more than that role may see.
    role: AtomicU32,
    position: AtomicU64,
    node: AtomicU64,
    table: Text<TABLE_BYTES>,
    key: Text<KEY_BYTES>,
}

impl Victim {
    pub(crate) fn set_winner(&self, winner: &Winner) {
        self.table.set(&winner.table);
        self.key.set(&winner.key);
        self.position.store(winner.position.0, Ordering::SeqCst);
        self.node.store(winner.node.0, Ordering::SeqCst);
    }

    pub fn mark(&self, transaction: LocalXid, winner: &Winner) {
        // Marked again for the same winner, the transaction keeps the table and key that it was told first.
        let is_told = self.is_marked(transaction) && self.position.load(Ordering::SeqCst) == winner.position.0;
        if !winner.table.is_empty() || !is_told {
            self.set_winner(winner);
        }
        self.marked.store(transaction.0, Ordering::SeqCst);
    }

    /// Whether this transaction must give way. Atomics only: a signal handler asks.
    pub fn is_marked(&self, transaction: LocalXid) -> bool {
        self.marked.load(Ordering::SeqCst) == transaction.0
    }

    /// Being told was not enough.
    pub(crate) fn press(&self, transaction: LocalXid) {
        self.pressed.store(transaction.0, Ordering::SeqCst);
    }

    pub(crate) fn is_pressed(&self, transaction: LocalXid) -> bool {
        self.pressed.load(Ordering::SeqCst) == transaction.0
    }

    /// Told by the process itself when it starts and when it ends: whether it hears a summons.
    pub fn set_hears(&self, hears: bool) {
        self.hears.store(hears, Ordering::SeqCst);
    }

    pub fn hears(&self) -> bool {
        self.hears.load(Ordering::SeqCst)
    }

    /// What this transaction must give way to, if it must.
    pub fn winner_of(&self, transaction: LocalXid) -> Option<Winner> {
        self.is_marked(transaction).then(|| self.winner())
    }

    /// Whom the last mark was for, whichever transaction it was put on.
    pub fn winner(&self) -> Winner {
        Winner {
            position: Position(self.position.load(Ordering::SeqCst)),
            node: NodeId(self.node.load(Ordering::SeqCst)),
            table: self.table.get(),
            key: self.key.get(),
        }
    }

    pub fn clear(&self) {
        self.marked.store(0, Ordering::SeqCst);
    }

    pub fn set_role(&self, role: RoleId) {
        self.role.store(role.0, Ordering::Relaxed);
    }

    /// The role of the session in this place, if it has run a statement.
    pub fn role(&self) -> Option<RoleId> {
        let role = RoleId(self.role.load(Ordering::Relaxed));
        (role != RoleId(0)).then_some(role)
    }
}

/// What a summoned process is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Summons {
    /// It was not meant.
    Nothing,
    /// Cancel what it runs. An idle session learns at its next statement.
    Cancel,
    /// If it is idle, end the session; else cancel what it runs.
    End,
    /// If it has been idle for a while, outside of a transaction, end the session; else leave it alone.
    Leave,
}
