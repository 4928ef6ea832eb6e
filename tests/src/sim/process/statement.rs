//! The statements of a transaction: what they read, lock and change.

use std::rc::Rc;

use gcs_writeset::Position;

use super::ground::Ctx;
use super::transaction::{Isolation, Op, Txn};
use crate::sim::postgres::locks::LockMode;
use crate::sim::postgres::{Change, ChangeKind, Row};

/// How a statement went.
pub enum Outcome {
    Done,
    /// These hold what it needs.
    Wait,
    Fail(&'static str),
}

pub fn run(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, op: Op) -> Outcome {
    match op {
        Op::Read(row) => {
            if txn.isolation == Isolation::Serializable {
                let (seen, _) = ctx.ground.store.table.read(row, txn.snapshot);
                txn.reads.entry(row).or_insert(seen);
            }
            Outcome::Done
        }
        Op::Count(parent) => {
            if txn.isolation == Isolation::Serializable {
                let seen = ctx.ground.store.table.children(parent, txn.snapshot).len();
                txn.counts.entry(parent).or_insert(seen);
            }
            Outcome::Done
        }
        Op::Append(row) => change(ctx, txn, row, ChangeKind::Append),
        Op::Insert(row) => change(ctx, txn, row, ChangeKind::Insert),
        Op::Delete(row) => change(ctx, txn, row, ChangeKind::Delete),
        Op::Refer(row) => refer(ctx, txn, row),
        Op::Unrefer(row) => unrefer(ctx, txn, row),
        Op::Touch(thing) => touch(ctx, txn, thing),
        Op::Sweep(parent) => sweep(ctx, txn, parent),
    }
}

fn change(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, row: Row, kind: ChangeKind) -> Outcome {
    if ctx.ground.locks.take(row, LockMode::of(kind), ctx.me).is_err() {
        return Outcome::Wait;
    }
    if txn.changes.contains_key(&row) || txn.referred.contains(&row) {
        return Outcome::Done;
    }
    let (seen, old) = ctx.ground.store.table.latest(row);
    if txn.isolation != Isolation::ReadCommitted && seen > txn.snapshot {
        return Outcome::Fail("could not serialize access due to concurrent update");
    }
    let value = match (kind, old) {
        (ChangeKind::Insert, None) => Some(Rc::new(vec![txn.id])),
        (ChangeKind::Insert, Some(_)) => return Outcome::Fail("duplicate key"),
        (_, None) => return Outcome::Done,
        (ChangeKind::Append, Some(old)) => {
            let mut list = old.as_ref().clone();
            list.push(txn.id);
            Some(Rc::new(list))
        }
        (ChangeKind::Delete, Some(_)) => {
            // Read before the check for children takes its snapshot: remote backends insert children without a lock
            // on their parent.
            let base = ctx.ground.memory.database.gate.committed();
            if !ctx.ground.store.table.children(row, ctx.ground.store.visible()).is_empty() {
                return Outcome::Fail("still referenced");
            }
            txn.deleted.push((row, base));
            None
        }
    };
    txn.changes.insert(row, Change { row, kind, seen, value });
    Outcome::Done
}

fn refer(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, parent: Row) -> Outcome {
    if ctx.ground.locks.take(parent, LockMode::KeyShare, ctx.me).is_err() {
        return Outcome::Wait;
    }
    if txn.changes.contains_key(&parent) || txn.referred.contains(&parent) {
        return Outcome::Done;
    }
    if ctx.ground.store.table.latest(parent).1.is_none() {
        return Outcome::Fail("no such parent");
    }
    let row = parent.child(txn.id);
    if ctx.ground.locks.take(row, LockMode::Update, ctx.me).is_err() {
        return Outcome::Wait;
    }
    txn.referred.push(parent);
    let value = Some(Rc::new(vec![txn.id]));
    txn.changes.insert(row, Change { row, kind: ChangeKind::Insert, seen: Position::ZERO, value });
    Outcome::Done
}

fn unrefer(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, parent: Row) -> Outcome {
    for child in ctx.ground.store.table.children(parent, txn.snapshot).into_iter().take(5) {
        match change(ctx, txn, child, ChangeKind::Delete) {
            Outcome::Done => {}
            other => return other,
        }
    }
    Outcome::Done
}

fn touch(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, thing: Row) -> Outcome {
    if ctx.ground.locks.take(thing, LockMode::Update, ctx.me).is_err() {
        return Outcome::Wait;
    }
    if !txn.things.contains(&thing) {
        txn.things.push(thing);
    }
    Outcome::Done
}

/// Takes no locks: what keeps others from its rows is a key.
fn sweep(ctx: &mut Ctx<'_, '_>, txn: &mut Txn, parent: Row) -> Outcome {
    let base = ctx.ground.memory.database.gate.committed();
    let found = ctx.ground.store.table.children(parent, ctx.ground.store.visible()).len();
    txn.sweeps.push((parent, found, base));
    Outcome::Done
}
