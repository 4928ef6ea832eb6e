//! From the turn on: the commit record, the process array, the gate. What a client's commit has in common with a forerunner's; between any two of these
//! steps others run.

use gcs_writeset::Position;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::Lsn;
use postgres_r_protocol::turn;

use super::ground::Ctx;
use crate::sim::fact::Fact;
use crate::sim::postgres::{Change, TxnId};

/// What is left of a commit that has its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The commit record is to be written.
    Armed,
    /// It is written up to there; snapshots do not see it.
    Recorded(Lsn),
    /// Snapshots see it; the gate does not know.
    Visible(Lsn),
    /// The gate has moved on; locks are still held.
    Passed,
}

/// Goes one step on with the commit of a transaction that has changed this; what is left then.
pub fn go_on(
    ctx: &mut Ctx<'_, '_>,
    stage: Stage,
    position: Position,
    (txn, changes): (TxnId, impl FnOnce() -> Vec<Change>),
) -> Stage {
    match stage {
        Stage::Armed => Stage::Recorded(ctx.ground.store.record(position, &changes())),
        Stage::Recorded(lsn) => {
            let node = ctx.ground.n;
            ctx.ground.store.show(position);
            ctx.set_xid(None);
            ctx.fact(Fact::Visible { node, position, txn });
            Stage::Visible(lsn)
        }
        Stage::Visible(lsn) => {
            let memory = &ctx.ground.memory;
            turn::pass(memory.at(), position, lsn);
            ending::release(memory.at(), memory.slot(ctx.me));
            Stage::Passed
        }
        Stage::Passed => Stage::Passed,
    }
}
