//! A client's session: one transaction after another, each with a few statements and a COMMIT; until somebody ends it.
//!
//! It is told to stop what it does by signals, heard whenever they come and served where PostgreSQL serves interrupts: while it is idle, while it
//! waits, not between the turn and the commit record.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use gcs_writeset::Position;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::LocalXid;
use postgres_r_protocol::precedence::summons;
use postgres_r_protocol::submission::Submission;
use postgres_r_protocol::turn::LocalTurn;
use postgres_r_protocol::victim::Summons;

use super::ground::{Ctx, Interrupts, Next, Signal};
use super::landing::Stage;
use super::statement::{self, Outcome};
use super::transaction::{Isolation, Op, Txn};
use super::writeset::Reading;
use crate::sim::fact::{Doubt, Elsewhere, Fact};
use crate::sim::postgres::TxnId;
use crate::sim::time::{Span, Time, ms, us};
use crate::sim::wire::ConnId;

/// A transaction that waits so long for another of its own server is in a deadlock.
const DEADLOCK_AFTER: Span = ms(300);

const VICTIM: &str = "victim of an earlier position";

/// Positions ahead of the committed one, above which a statement that writes lets them go first; and for how long.
pub const LAG_TARGET: u64 = 5;
const LAG_WAIT_MAX: Span = ms(500);

/// What a session that waits for others is woken for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaits {
    Nothing,
    /// Few enough positions ahead.
    Lag,
    Writable,
}

pub(super) enum Doing {
    /// Between two transactions.
    Away,
    /// Between two statements.
    Idle,
    /// A statement lets what is ordered go first.
    LagWait {
        since: Time,
    },
    LockWait {
        since: Time,
    },
    /// COMMIT waits for the node to be able to write.
    WritableWait {
        since: Time,
    },
    Submitting(Submission, Reading),
    /// Certified before the client has read its rows, which it takes its time to do.
    Decided(Position),
    AtGate(LocalTurn, Position),
    Committing(Stage, Position),
}

/// A transaction is over: what its client is told.
pub(super) enum Told {
    Acknowledged(Position),
    Failed(&'static str),
    Doubt(Doubt),
    Elsewhere(Position, Elsewhere),
    /// It changed nothing.
    Nothing,
}

pub struct Client {
    pub(super) doing: Doing,
    /// When the session goes on by itself.
    pub(super) until: Time,
    pub(super) txn: Option<Txn>,
    pub(super) conn: Option<ConnId>,
    /// On which other nodes were asked to apply the transaction ahead.
    pub(super) asking: Option<ConnId>,
    pub(super) interrupts: Interrupts,
    xids: u32,
}

impl Client {
    /// A session begins. `xids`: so many transactions had the sessions before it in this place.
    pub fn new(ctx: &mut Ctx<'_, '_>) -> Client {
        let slot = ctx.ground.memory.slot(ctx.me);
        // A process that is somebody's background worker does not hear.
        slot.victim.set_hears(!ctx.hand.rng.permille(100));
        let until = ctx.hand.now + us(ctx.hand.rng.between(500, 30_000));
        // A local transaction id is never used twice in one place.
        let xids = (ctx.ground.numbers[ctx.me.0 as usize] as u32) << 16;
        let interrupts = Interrupts::default();
        Client { doing: Doing::Away, until, txn: None, conn: None, asking: None, interrupts, xids }
    }

    pub fn is_idle(&self) -> bool {
        self.txn.is_none()
    }

    pub fn describe(&self) -> String {
        let doing = match &self.doing {
            Doing::Away => "away".into(),
            Doing::Idle => "idle in transaction".into(),
            Doing::LagWait { since } => format!("waits since {since} for less to be ahead"),
            Doing::LockWait { since } => format!("waits for a lock since {since}"),
            Doing::WritableWait { since } => format!("waits since {since} to write"),
            Doing::Submitting(..) => "submitting".into(),
            Doing::Decided(position) => format!("decided at {position}"),
            Doing::AtGate(_, position) => format!("at the gate for {position}"),
            Doing::Committing(stage, position) => format!("committing {position}, {stage:?}"),
        };
        format!("{doing}, {:?}", self.interrupts)
    }

    pub fn awaits(&self) -> Awaits {
        match self.doing {
            Doing::LagWait { .. } => Awaits::Lag,
            Doing::WritableWait { .. } => Awaits::Writable,
            _ => Awaits::Nothing,
        }
    }

    /// The transaction under way, and whether its outcome is open if the server dies now.
    pub fn under_way(&self) -> Option<(TxnId, bool)> {
        let is_sent =
            matches!(self.doing, Doing::Submitting(..) | Doing::Decided(_) | Doing::AtGate(..) | Doing::Committing(..));
        self.txn.as_ref().map(|txn| (txn.id, is_sent && txn.is_sent))
    }

    pub fn hear(&mut self, ctx: &mut Ctx<'_, '_>, signal: Signal) {
        let is_idle = matches!(self.doing, Doing::Away | Doing::Idle);
        let interrupts = &mut self.interrupts;
        match signal {
            Signal::Terminate => interrupts.die = true,
            Signal::Cancel => interrupts.cancel |= !is_idle,
            // A process without the handler ignores the signal.
            Signal::Summon if !ctx.ground.memory.slot(ctx.me).victim.hears() => {}
            Signal::Summon => match summons(ctx.ground.memory.slot(ctx.me), ctx.xid()) {
                Summons::Nothing | Summons::Leave => {}
                Summons::Cancel if is_idle => {}
                Summons::End if is_idle => (interrupts.die, interrupts.summoned) = (true, true),
                Summons::Cancel | Summons::End => (interrupts.cancel, interrupts.summoned) = (true, true),
            },
            Signal::Dislodge if is_idle => (interrupts.die, interrupts.summoned) = (true, true),
            Signal::Dislodge => (interrupts.cancel, interrupts.summoned) = (true, true),
        }
    }

    pub fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        loop {
            if let Some(next) = self.go_on(ctx) {
                return next;
            }
        }
    }

    fn go_on(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let wait = self.until.since(ctx.now());
        match self.doing {
            Doing::Away if self.interrupts.die => Some(self.exit(ctx)),
            Doing::Idle if self.interrupts.die => Some(self.interrupted(ctx)),
            Doing::Away | Doing::Idle if wait > us(0) => Some(Next::Sleep(Some(wait))),
            Doing::Away => self.begin(ctx),
            Doing::Idle => self.next_statement(ctx),
            Doing::LagWait { since } => self.wait_for_lag(ctx, since),
            Doing::LockWait { since } => self.wait_for_lock(ctx, since),
            Doing::WritableWait { since } => self.wait_for_writable(ctx, since),
            Doing::Submitting(..) => self.submit(ctx),
            Doing::Decided(position) => self.read_rows(ctx, position, wait),
            Doing::AtGate(_, position) => self.wait_for_turn(ctx, position),
            Doing::Committing(stage, position) => Some(self.commit_goes_on(ctx, stage, position)),
        }
    }

    /// Does nothing for a while, or until it is woken.
    pub(super) fn rest(&mut self, ctx: &mut Ctx<'_, '_>, soonest: Span, latest: Span) -> Option<Next> {
        let span = ctx.between(soonest, latest);
        self.until = ctx.now() + span;
        None
    }

    fn begin(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let replica = &ctx.ground.memory.database.replica;
        if !replica.serving.load(Ordering::SeqCst) || ctx.ground.quiet {
            return self.rest(ctx, ms(50), ms(50));
        }
        if !replica.is_writable() {
            let node = ctx.ground.n;
            ctx.fact(Fact::RefusedWrite { node });
            return self.rest(ctx, ms(50), ms(200));
        }
        let isolation = match ctx.hand.rng.below(100) {
            0..35 => Isolation::Serializable,
            35..60 => Isolation::RepeatableRead,
            _ => Isolation::ReadCommitted,
        };
        let (rows, things) = (ctx.ground.settings.rows, ctx.ground.settings.things);
        let count = ctx.hand.rng.between(1, 4);
        let mut ops: VecDeque<Op> = (0..count).map(|_| Op::random(ctx.hand.rng, rows, things, isolation)).collect();
        if ctx.ground.settings.ahead_permille > 0 {
            ops.extend(Op::more(ctx.hand.rng, rows, things));
        }
        *ctx.hand.txns += 1;
        self.xids += 1;
        ctx.set_xid(Some(LocalXid(self.xids)));
        // The base first, the snapshot after it.
        let committed = ctx.ground.memory.database.gate.committed();
        self.txn = Some(Txn::new(TxnId(*ctx.hand.txns), isolation, ctx.ground.store.visible(), committed, ops));
        ctx.ground.memory.slot(ctx.me).announce_base(0, committed);
        self.be_idle(ctx, us(100), us(3_000))
    }

    fn be_idle(&mut self, ctx: &mut Ctx<'_, '_>, soonest: Span, latest: Span) -> Option<Next> {
        // A cancel that comes too late for a statement is not for the next one.
        self.interrupts.cancel = false;
        self.doing = Doing::Idle;
        self.rest(ctx, soonest, latest)
    }

    /// Whether an earlier position has made this transaction give way.
    pub(super) fn is_victim(&self, ctx: &Ctx<'_, '_>) -> bool {
        ctx.xid().is_some_and(|xid| ctx.ground.memory.slot(ctx.me).victim.winner_of(xid).is_some())
    }

    fn next_statement(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        if self.is_victim(ctx) {
            return Some(self.finish(ctx, Told::Failed(VICTIM)));
        }
        let Some(op) = self.txn.as_ref().and_then(|txn| txn.ops.front().copied()) else { return self.commit(ctx) };
        if op.writes() && ctx.ground.memory.database.gate.to_apply() > LAG_TARGET {
            self.doing = Doing::LagWait { since: ctx.now() };
            return None;
        }
        self.run_statement(ctx, op, ctx.now())
    }

    fn run_statement(&mut self, ctx: &mut Ctx<'_, '_>, op: Op, since: Time) -> Option<Next> {
        let txn = self.txn.as_mut()?;
        match statement::run(ctx, txn, op) {
            Outcome::Done => {
                txn.ops.pop_front();
                self.be_idle(ctx, us(100), us(4_000))
            }
            Outcome::Wait => {
                self.doing = Doing::LockWait { since };
                let left = (since + DEADLOCK_AFTER).since(ctx.now());
                Some(Next::Sleep(Some(left)))
            }
            Outcome::Fail(why) => Some(self.finish(ctx, Told::Failed(why))),
        }
    }

    fn wait_for_lag(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        if self.interrupts.any() {
            return Some(self.interrupted(ctx));
        }
        let left = (since + LAG_WAIT_MAX).since(ctx.now());
        if left > us(0) && ctx.ground.memory.database.gate.to_apply() > LAG_TARGET {
            return Some(Next::Sleep(Some(left)));
        }
        let op = self.txn.as_ref().and_then(|txn| txn.ops.front().copied())?;
        self.run_statement(ctx, op, ctx.now())
    }

    fn wait_for_lock(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        if self.interrupts.any() {
            return Some(self.interrupted(ctx));
        }
        if ctx.now().since(since) >= DEADLOCK_AFTER {
            return Some(self.finish(ctx, Told::Failed("deadlock detected")));
        }
        let op = self.txn.as_ref().and_then(|txn| txn.ops.front().copied())?;
        self.run_statement(ctx, op, since)
    }

    /// Interrupts are served while nothing of the transaction is in the group.
    pub(super) fn interrupted(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        let why = match self.interrupts {
            Interrupts { summoned: true, .. } => VICTIM,
            Interrupts { die: true, .. } => "terminating connection due to administrator command",
            _ if self.is_victim(ctx) => VICTIM,
            _ => "canceling statement due to user request",
        };
        self.finish(ctx, Told::Failed(why))
    }

    /// The transaction is over, however it went: what the group has committed must not be forgotten with it.
    pub(super) fn finish(&mut self, ctx: &mut Ctx<'_, '_>, told: Told) -> Next {
        let slot = ctx.ground.memory.slot(ctx.me);
        ending::release(ctx.ground.memory.at(), slot);
        slot.victim.clear();
        slot.clear_base();
        slot.progress.clear();
        ctx.set_xid(None);
        ctx.release_locks();
        // Unless it was said that the order decides, this withdraws the question.
        if let Some(conn) = self.asking.take() {
            ctx.close(conn);
        }
        self.tell(ctx, told);
        if self.interrupts.die {
            return self.exit(ctx);
        }
        self.interrupts = Interrupts::default();
        self.doing = Doing::Away;
        let span = if ctx.ground.calm { ctx.between(ms(20), ms(200)) } else { ctx.between(us(500), us(30_000)) };
        self.until = ctx.now() + span;
        Next::Sleep(Some(span))
    }

    fn tell(&mut self, ctx: &mut Ctx<'_, '_>, told: Told) {
        let Some(txn) = self.txn.take() else { return };
        let (node, txn) = (ctx.ground.n, txn.id);
        ctx.fact(match told {
            Told::Nothing => return,
            Told::Acknowledged(position) => Fact::Acknowledged { node, txn, position },
            Told::Failed(why) => Fact::Failed { node, txn, why },
            Told::Doubt(why) => Fact::Unknown { node, txn, why },
            Told::Elsewhere(position, why) => Fact::CommittedElsewhere { node, txn, position, why },
        });
    }

    /// The session is over.
    fn exit(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        ctx.ground.memory.slot(ctx.me).victim.set_hears(false);
        if let Some(conn) = self.conn.take() {
            ctx.close(conn);
        }
        Next::Exit
    }
}
