//! Row locks.

use std::collections::BTreeMap;

use gcs_writeset::{Position, SlotId};

use super::model::{ChangeKind, Row};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Owner {
    Local(SlotId),
    Remote(Position),
}

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

#[derive(Debug, Default)]
pub struct Locks {
    rows: BTreeMap<Row, Vec<(Owner, LockMode)>>,
}

impl Locks {
    /// Who stands in the way.
    pub fn blockers(&self, row: Row, mode: LockMode, me: Owner) -> Vec<Owner> {
        let held = self.rows.get(&row).map_or(&[][..], Vec::as_slice);
        held.iter().filter(|(owner, held)| *owner != me && mode.conflicts(*held)).map(|(owner, _)| *owner).collect()
    }

    pub fn take(&mut self, row: Row, mode: LockMode, me: Owner) {
        let held = self.rows.entry(row).or_default();
        if !held.contains(&(me, mode)) {
            held.push((me, mode));
        }
    }

    pub fn release(&mut self, me: Owner) {
        self.rows.retain(|_, held| {
            held.retain(|(owner, _)| *owner != me);
            !held.is_empty()
        });
    }

    pub fn clear(&mut self) {
        self.rows.clear();
    }
}
