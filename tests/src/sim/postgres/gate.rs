//! The gate: everybody commits in position order, visibly; and what a crash leaves of it.

use gcs_writeset::{Incarnation, Position};

use super::apply::{Remote, RemoteStage};
use super::local::Stage;
use super::locks::Owner;
use super::{Ctx, Known, PgEvent, Postgres};
use crate::sim::fact::Fact;
use crate::sim::time::{ms, us};

/// The commit that is under way.
#[derive(Debug)]
pub struct Commit {
    pub position: Position,
    pub stage: CommitStage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStage {
    /// Has the turn; its record is not written.
    Turn,
    /// The record is written; snapshots do not see it yet.
    Recorded,
    /// Snapshots see it; the committed position does not cover it yet.
    Visible,
}

impl Postgres {
    /// Gives the turn to the next position, if whoever is to commit it is there.
    pub(super) fn pass_gate(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.commit.is_some() {
            return false;
        }
        let position = self.committed.next();
        match self.ring.get(&position) {
            Some(Known::Aborted) => {
                self.ring.remove(&position);
                self.visible = position;
                self.committed = position;
                ctx.fact(Fact::Committed { node: self.n, position });
                true
            }
            Some(Known::Local(_)) | Some(Known::Remote(Remote { stage: RemoteStage::Ready, .. })) => {
                self.commit = Some(Commit { position, stage: CommitStage::Turn });
                ctx.within(us(10), us(400), PgEvent::Commit(position));
                false
            }
            _ => false,
        }
    }

    pub(super) fn commit_goes_on(&mut self, ctx: &mut Ctx<'_>, position: Position) {
        let Some(commit) = self.commit.as_mut().filter(|commit| commit.position == position) else { return };
        match commit.stage {
            CommitStage::Turn => {
                commit.stage = CommitStage::Recorded;
                let body = self.bodies.get(&position).cloned();
                self.table.write(position, body.as_ref().map_or(&[][..], |body| &body.changes));
                self.unflushed.push(position);
            }
            CommitStage::Recorded => {
                commit.stage = CommitStage::Visible;
                self.visible = position;
                ctx.fact(Fact::Visible { node: self.n, position });
            }
            CommitStage::Visible => return self.commit_done(ctx, position),
        }
        ctx.within(us(5), us(200), PgEvent::Commit(position));
    }

    fn commit_done(&mut self, ctx: &mut Ctx<'_>, position: Position) {
        self.commit = None;
        self.committed = position;
        ctx.fact(Fact::Committed { node: self.n, position });
        self.bodies.remove(&position);
        match self.ring.remove(&position) {
            Some(Known::Local(slot)) => {
                if let Some(txn) = self.txns.get(&slot) {
                    ctx.fact(Fact::Acknowledged { node: self.n, txn: txn.id, position });
                }
                self.end(ctx, slot);
            }
            Some(Known::Remote(_)) => self.locks.release(Owner::Remote(position)),
            Some(Known::Aborted) | None => {}
        }
    }

    /// Commit records become durable now and then, not with each commit.
    pub(super) fn flush(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(last) = self.unflushed.last() {
            self.flushed = *last;
            self.unflushed.clear();
        }
        self.flushed_for_sure = self.flushed_for_sure.max(self.committed).max(self.flushed);
        ctx.within(ms(50), ms(600), PgEvent::Flush);
    }

    /// The server starts: crash recovery has found what the last commit record on disk says.
    pub fn start(&mut self, ctx: &mut Ctx<'_>) {
        self.up = true;
        self.incarnation = Incarnation(ctx.rng.draw());
        ctx.fact(Fact::Recovered { node: self.n, position: self.flushed });
        self.visible = self.flushed;
        self.flushed_for_sure = self.flushed;
        self.committed = self.flushed;
        self.received = self.flushed;
        for slot in self.slots() {
            self.within(ctx, ms(1), ms(100), slot);
        }
        ctx.within(ms(50), ms(600), PgEvent::Flush);
        ctx.within(ms(50), ms(300), PgEvent::Report);
        ctx.within(ms(1), ms(50), PgEvent::Attach);
    }

    /// The server dies. Some of what was not flushed may have reached the disk.
    pub fn crash(&mut self, ctx: &mut Ctx<'_>) {
        for slot in self.slots() {
            match self.txns.get(&slot).map(|txn| (&txn.stage, txn.id)) {
                Some((Stage::Sent | Stage::Certified(_), txn)) => ctx.fact(Fact::Unknown { node: self.n, txn }),
                Some((_, txn)) => ctx.fact(Fact::Failed { node: self.n, txn, why: "server is gone" }),
                None => {}
            }
        }
        let survivors = ctx.rng.between(0, self.unflushed.len() as u64) as usize;
        if let Some(last) = self.unflushed[..survivors].last() {
            self.flushed = *last;
        }
        self.unflushed.clear();
        self.table.lose_after(self.flushed);
        self.up = false;
        self.attached = false;
        self.serving = false;
        self.quorum = false;
        self.ring.clear();
        self.bodies.clear();
        self.locks.clear();
        self.txns.clear();
        self.commit = None;
    }
}
