//! Row locks, and who waits for them. A process that waits is woken when a lock on its row goes; then it looks for itself.

use std::collections::BTreeMap;

use gcs_writeset::Position;
use postgres_r_protocol::id::ProcNo;

use super::rows::{Body, ChangeKind, Row};

/// PostgreSQL's FOR KEY SHARE, FOR NO KEY UPDATE, FOR UPDATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LockMode {
    KeyShare,
    NoKeyUpdate,
    Update,
}

impl LockMode {
    pub fn of(kind: ChangeKind) -> LockMode {
        match kind {
            ChangeKind::Append => LockMode::NoKeyUpdate,
            ChangeKind::Insert | ChangeKind::Delete => LockMode::Update,
        }
    }

    fn conflicts(self, other: LockMode) -> bool {
        match (self, other) {
            (LockMode::KeyShare, mode) | (mode, LockMode::KeyShare) => mode == LockMode::Update,
            _ => true,
        }
    }
}

/// The nth lock that whoever applies a transaction takes, and which version of a row the transaction had found.
pub fn wanted(body: &Body, nth: usize) -> Option<(Row, LockMode, Option<Position>)> {
    match body.things.get(nth) {
        Some(thing) => Some((*thing, LockMode::Update, None)),
        None => body.changes.get(nth - body.things.len()).map(|c| (c.row, LockMode::of(c.kind), Some(c.seen))),
    }
}

#[derive(Debug, Default)]
pub struct Locks {
    rows: BTreeMap<Row, Vec<(ProcNo, LockMode)>>,
    waiting: BTreeMap<ProcNo, Row>,
}

impl Locks {
    /// Takes a lock, or says who stands in the way; `me` waits for it then.
    pub fn take(&mut self, row: Row, mode: LockMode, me: ProcNo) -> Result<(), Vec<ProcNo>> {
        let held = self.rows.entry(row).or_default();
        let blocks = |(owner, held): &&(ProcNo, LockMode)| *owner != me && mode.conflicts(*held);
        let blockers: Vec<ProcNo> = held.iter().filter(blocks).map(|(owner, _)| *owner).collect();
        if !blockers.is_empty() {
            self.waiting.insert(me, row);
            return Err(blockers);
        }
        self.waiting.remove(&me);
        if !held.contains(&(me, mode)) {
            held.push((me, mode));
        }
        Ok(())
    }

    /// The transaction is over: whom to wake.
    pub fn release(&mut self, me: ProcNo) -> Vec<ProcNo> {
        self.waiting.remove(&me);
        let mut freed = Vec::new();
        self.rows.retain(|row, held| {
            let before = held.len();
            held.retain(|(owner, _)| *owner != me);
            if held.len() < before {
                freed.push(*row);
            }
            !held.is_empty()
        });
        self.waiting.iter().filter(|(_, row)| freed.contains(row)).map(|(process, _)| *process).collect()
    }
}
