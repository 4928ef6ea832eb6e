//! Remote backends: they apply what others wrote, in parallel as far as dependencies allow, and nobody makes them wait for a
//! later position.

use std::rc::Rc;

use gcs_writeset::{Position, SlotId};

use super::local::Stage;
use super::locks::{LockMode, Owner};
use super::model::{Body, Row};
use super::{Ctx, Known, PgEvent, Postgres};
use crate::sim::fact::Fact;
use crate::sim::time::us;

/// Remote backends of a server.
const WORKERS: usize = 3;

#[derive(Debug)]
pub struct Remote {
    pub depends_on: Position,
    pub body: Rc<Body>,
    pub stage: RemoteStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RemoteStage {
    Queued,
    /// Has the locks of so many of its rows.
    Locking(usize),
    /// Writes; the number tells this attempt from an earlier one that was cancelled.
    Writing(u64),
    /// Waits at the gate.
    Ready,
}

impl Remote {
    pub fn queued(depends_on: Position, body: Rc<Body>) -> Remote {
        Remote { depends_on, body, stage: RemoteStage::Queued }
    }
}

impl Postgres {
    /// Starts and moves remote backends, earlier positions first.
    pub(super) fn apply_some(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let mut moved = self.start_some();
        let locking: Vec<Position> = self.remotes(|stage| matches!(stage, RemoteStage::Locking(_)));
        for position in locking {
            moved |= self.lock_more(ctx, position);
        }
        moved
    }

    pub(super) fn applied(&mut self, position: Position, attempt: u64) {
        if let Some(Known::Remote(remote)) = self.ring.get_mut(&position)
            && remote.stage == RemoteStage::Writing(attempt)
        {
            remote.stage = RemoteStage::Ready;
        }
    }

    /// Whether a remote backend is waiting for this very lock: it goes before local transactions.
    pub(super) fn remote_wants(&self, row: Row, mode: LockMode) -> bool {
        let wants = |known: &Known| match known {
            Known::Remote(Remote { stage: RemoteStage::Locking(at), body, .. }) => {
                let next = &body.changes[*at];
                next.row == row && (mode != LockMode::KeyShare || LockMode::of(next.kind) == LockMode::Update)
            }
            _ => false,
        };
        self.ring.values().any(wants)
    }

    fn remotes(&self, wanted: impl Fn(RemoteStage) -> bool) -> Vec<Position> {
        let matching = self.ring.iter().filter(|(_, known)| matches!(known, Known::Remote(remote) if wanted(remote.stage)));
        matching.map(|(position, _)| *position).collect()
    }

    fn start_some(&mut self) -> bool {
        let mut busy = self.remotes(|stage| stage != RemoteStage::Queued);
        let mut moved = false;
        for position in self.remotes(|stage| stage == RemoteStage::Queued) {
            let committed = self.committed;
            if busy.len() >= WORKERS {
                // The next position must not wait for a backend that waits for it.
                if position != committed.next() {
                    break;
                }
                let Some(last) = busy.pop().filter(|last| *last > position) else { break };
                self.cancel(last);
            }
            if let Some(Known::Remote(remote)) = self.ring.get_mut(&position)
                && remote.depends_on <= committed
            {
                remote.stage = RemoteStage::Locking(0);
                busy.push(position);
                busy.sort_unstable();
                moved = true;
            }
        }
        moved
    }

    /// A later position gives way: it rolls back, and is taken up again.
    fn cancel(&mut self, position: Position) {
        self.locks.release(Owner::Remote(position));
        if let Some(Known::Remote(remote)) = self.ring.get_mut(&position) {
            remote.stage = RemoteStage::Queued;
        }
    }

    /// Takes the next row locks of a remote backend; `false` if it has to wait.
    fn lock_more(&mut self, ctx: &mut Ctx<'_>, position: Position) -> bool {
        let mut moved = false;
        loop {
            let Some(Known::Remote(Remote { stage: RemoteStage::Locking(at), body, .. })) = self.ring.get(&position) else {
                return moved;
            };
            let (at, body) = (*at, body.clone());
            let Some(change) = body.changes.get(at) else {
                self.attempts += 1;
                let attempt = self.attempts;
                self.set_stage(position, RemoteStage::Writing(attempt));
                ctx.within(us(50), us(3_000), PgEvent::Applied(position, attempt));
                return true;
            };
            let mode = LockMode::of(change.kind);
            let me = Owner::Remote(position);
            for blocker in self.locks.blockers(change.row, mode, me) {
                moved |= self.deal_with(ctx, position, blocker);
            }
            if !self.locks.blockers(change.row, mode, me).is_empty() {
                return moved;
            }
            self.locks.take(change.row, mode, me);
            // What the origin saw, for all that is committed here before it, must be what is here.
            if self.table.latest(change.row).0 != change.seen {
                ctx.fact(Fact::Diverged { node: self.n, position, row: change.row });
            }
            self.set_stage(position, RemoteStage::Locking(at + 1));
            moved = true;
        }
    }

    fn set_stage(&mut self, position: Position, stage: RemoteStage) {
        if let Some(Known::Remote(remote)) = self.ring.get_mut(&position) {
            remote.stage = stage;
        }
    }

    /// Who gives way (docs/architecture.md): whether the blocker did.
    fn deal_with(&mut self, ctx: &mut Ctx<'_>, position: Position, blocker: Owner) -> bool {
        match blocker {
            Owner::Remote(other) if other > position && self.commit.as_ref().is_none_or(|c| c.position != other) => {
                self.cancel(other);
                true
            }
            Owner::Remote(_) => false,
            Owner::Local(slot) => self.deal_with_local(ctx, position, slot),
        }
    }

    fn deal_with_local(&mut self, ctx: &mut Ctx<'_>, position: Position, slot: SlotId) -> bool {
        match self.txns.get(&slot).map(|txn| &txn.stage) {
            Some(Stage::Open | Stage::Waiting { .. } | Stage::Sending { .. }) => {
                self.abandon(ctx, slot);
                self.fail(ctx, slot, "victim of an earlier position");
                true
            }
            Some(Stage::Certified(own)) if *own > position => {
                let own = *own;
                self.give_way(ctx, slot, own);
                true
            }
            Some(Stage::Sent | Stage::Certified(_)) | None => false,
        }
    }
}
