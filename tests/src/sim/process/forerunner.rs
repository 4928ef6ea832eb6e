//! A forerunner: applies a transaction of another node before that is submitted, keeps its own transaction open, and commits it when the position comes.
//! A model of the extension's `apply/forerunner.rs`.
//!
//! ```text
//! Idle ─▶ Behind ─▶ Fetching ─▶ Locking ─▶ Writing ─▶ Waiting ─▶ AtGate ─▶ Committing ─▶ Idle
//!           │          │           │          │          │          │
//!           └──────────┴───────────┴──────────┴──────────┴──────────┴─▶ rolled back: Idle
//! ```
//!
//! It makes nobody give way, and gives way to whoever is in the order. It sleeps without a limit while it waits for its position, so that a wake-up that the
//! protocol owes it is missed if it does not come.

use gcs_writeset::link::{AbortCause, Rehearsal, RehearsalFailure, Reply, Request};
use gcs_writeset::{Position, Tag};
use postgres_r_protocol::ending::{self, Released};
use postgres_r_protocol::forerunner;
use postgres_r_protocol::id::LocalXid;
use postgres_r_protocol::offer::Forerunner as Record;
use postgres_r_protocol::slot::State;
use postgres_r_protocol::turn::{LocalTurn, Unfinished, Wait};

use super::ground::{Action, Ctx, Next, Signal, WORKERS};
use super::landing::{self, Stage};
use crate::sim::fact::Fact;
use crate::sim::postgres::{Body, Row, locks};
use crate::sim::time::{Span, Time, ms, us};
use crate::sim::wire::{Caller, ConnId};

/// Without anything to do it ends after this.
const IDLE_TIME: Span = ms(300);

/// How long this node may take to commit what the origin had, and to have all chunks; and how long a lock may take.
const BEHIND_MAX: Span = ms(100);
const FETCHING_MAX: Span = ms(200);
const LOCK_MAX: Span = ms(50);

const LOOK_AGAIN: Span = ms(3);

/// Of a thousand transactions that are applied, those with which something goes wrong soon.
const FAILS_PERMILLE: u64 = 80;

/// Of a thousand, those with which everybody who comes before them is slow, while there is trouble.
const AMBUSH_PERMILLE: u64 = 60;

enum Doing {
    /// Nothing, since then.
    Idle(Time),
    /// This node has not committed what the origin had.
    Behind(Time),
    /// The chunks have yet to come.
    Fetching(Time),
    /// Has so many locks, and has been waiting for the next one since then.
    Locking(usize, Time),
    /// Until then.
    Writing(Time),
    /// All is applied; the position has yet to come.
    Waiting,
    AtGate(LocalTurn, Position),
    Committing(Stage, Position),
}

/// What is applied ahead.
struct Task {
    number: u64,
    tag: Tag,
    after: Position,
    chunks: Vec<u8>,
    body: Option<Body>,
    /// A row that it found in another version than the origin had, or a parent with other children.
    misfit: Option<Row>,
    has_answered: bool,
    /// It is not to be submitted, or has a position that somebody else applies.
    is_over: bool,
}

pub struct Forerunner {
    index: usize,
    conn: ConnId,
    doing: Doing,
    task: Option<Task>,
    xids: u32,
    /// When something will go wrong with what it has applied, unless it is committed by then.
    fails_at: Option<Time>,
    dies: bool,
    is_canceled: bool,
}

impl Forerunner {
    /// A forerunner begins, if its place is free and there is a daemon.
    pub fn new(ctx: &mut Ctx<'_, '_>) -> Option<Forerunner> {
        let memory = ctx.ground.memory.clone();
        let index = (ctx.me.0 - ctx.ground.forerunner(0).0) as usize;
        let record = memory.database.forerunners.get(index).filter(|record| record.enter(ctx.me))?;
        let Some(conn) = ctx.connect(Caller::Forerunner) else {
            record.leave();
            return None;
        };
        memory.slot(ctx.me).victim.set_hears(true);
        let (doing, xids) = (Doing::Idle(ctx.now()), (ctx.ground.numbers[ctx.me.0 as usize] as u32) << 16);
        Some(Forerunner { index, conn, doing, task: None, xids, fails_at: None, dies: false, is_canceled: false })
    }

    pub fn hear(&mut self, signal: Signal) {
        // A summons is looked up where the mark is.
        self.dies |= signal == Signal::Terminate;
        self.is_canceled |= matches!(signal, Signal::Cancel | Signal::Dislodge);
    }

    pub fn describe(&self) -> String {
        let doing = match &self.doing {
            Doing::Idle(since) => format!("idle since {since}"),
            Doing::Behind(since) => format!("waits for what is ahead since {since}"),
            Doing::Fetching(since) => format!("fetching since {since}"),
            Doing::Locking(at, since) => format!("locking {at} since {since}"),
            Doing::Writing(until) => format!("writing until {until}"),
            Doing::Waiting => "waits for its position".into(),
            Doing::AtGate(_, position) => format!("at the gate for {position}"),
            Doing::Committing(stage, position) => format!("committing {position}, {stage:?}"),
        };
        let task = self.task.as_ref().map(|task| (task.number, task.tag, task.is_over));
        format!("forerunner {doing}, {task:?}")
    }

    fn record<'m>(&self, ctx: &'m Ctx<'_, '_>) -> &'m Record {
        &ctx.ground.memory.database.forerunners[self.index]
    }

    pub fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        self.listen(ctx);
        loop {
            let is_early = matches!(
                self.doing,
                Doing::Behind(_) | Doing::Fetching(_) | Doing::Locking(..) | Doing::Writing(_) | Doing::Waiting
            );
            let fails = self.fails_at.is_some_and(|at| ctx.now() >= at);
            let next = match self.doing {
                Doing::Waiting | Doing::AtGate(..) if fails => Some(self.roll_back(ctx)),
                _ if is_early && self.must_give_up(ctx) => Some(self.roll_back(ctx)),
                Doing::Idle(since) => self.look(ctx, since),
                Doing::Behind(since) => self.begin(ctx, since),
                Doing::Fetching(since) => self.fetch(ctx, since),
                Doing::Locking(at, since) => self.lock(ctx, at, since),
                Doing::Writing(until) => self.written(ctx, until),
                Doing::Waiting => self.wait_for_position(ctx),
                Doing::AtGate(_, position) => Some(self.wait_for_turn(ctx, position)),
                Doing::Committing(stage, position) => Some(self.commit_goes_on(ctx, stage, position)),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    /// Reads what the daemon says.
    fn listen(&mut self, ctx: &mut Ctx<'_, '_>) {
        while let Some((reply, payload)) = ctx.ground.ends.front(self.conn) {
            ctx.ground.ends.consume(self.conn);
            ctx.hand.out.push(Action::Read(self.conn));
            match (reply, &mut self.task) {
                (Reply::Ahead { number, tag, after, .. }, None) => self.task = Some(Task::new(number, tag, after)),
                (Reply::Body { more, .. }, Some(task)) => {
                    task.chunks.extend_from_slice(&payload);
                    if !more {
                        task.body = Body::decode(&task.chunks).ok();
                        if task.body.is_none() {
                            let (node, what) = (ctx.ground.n, "what is to be applied ahead cannot be read".into());
                            ctx.fact(Fact::Misunderstood { node, what });
                        }
                    }
                }
                (Reply::Over { number }, Some(task)) if task.number == number => task.is_over = true,
                // The rest of what was given up.
                _ => {}
            }
        }
    }

    /// Whether a transaction without a position cannot get one, or is not to.
    fn must_give_up(&self, ctx: &mut Ctx<'_, '_>) -> bool {
        let slot = ctx.ground.memory.slot(ctx.me);
        if matches!(slot.state(), State::Certified | State::Yielded | State::Deciding) {
            return false;
        }
        if slot.state() == State::Aborted {
            let has_seen_too_little = slot.abort() == AbortCause::Malformed;
            ctx.corner(if has_seen_too_little {
                "a forerunner had not seen enough"
            } else {
                "a forerunner heard of an abort"
            });
            return true;
        }
        if ctx.xid().is_some_and(|xid| slot.victim.is_marked(xid)) {
            ctx.corner("a forerunner gave way");
            return true;
        }
        let is_over = self.task.as_ref().is_none_or(|task| task.is_over);
        if is_over {
            ctx.corner("a forerunner was told that all was over");
        }
        is_over || self.dies || self.is_canceled || ctx.ground.ends.is_over(self.conn)
    }

    fn look(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        // What came for the last task is not for the next.
        self.is_canceled = false;
        let left = (since + IDLE_TIME).since(ctx.now());
        if self.dies || ctx.ground.ends.is_over(self.conn) || (self.task.is_none() && left == us(0)) {
            return Some(self.leave(ctx));
        }
        if self.task.is_none() {
            return Some(Next::Sleep(Some(left)));
        }
        self.doing = Doing::Behind(ctx.now());
        None
    }

    /// A transaction begins, once everything is here that the origin had.
    fn begin(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        let (memory, task) = (ctx.ground.memory.clone(), self.task.as_mut()?);
        let Some(seen) = forerunner::begin(memory.at(), task.after) else {
            if ctx.now().since(since) < BEHIND_MAX {
                return Some(Next::Sleep(Some(LOOK_AGAIN)));
            }
            ctx.corner("a forerunner's node was too far behind");
            return Some(self.roll_back(ctx));
        };
        self.xids += 1;
        let (xid, slot) = (LocalXid(self.xids), memory.slot(ctx.me));
        ctx.set_xid(Some(xid));
        slot.in_transaction(xid);
        // A manager has yet to notice how the last one ended.
        let Some(sequence) = slot.open(memory.database.index) else { return Some(self.roll_back(ctx)) };
        memory.database.forerunners[self.index].begin(&task.tag, seen, sequence);
        let number = task.number;
        ctx.request(self.conn, Request::FetchAhead { number });
        self.doing = Doing::Fetching(ctx.now());
        None
    }

    fn fetch(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        if self.task.as_ref()?.body.is_some() {
            self.doing = Doing::Locking(0, ctx.now());
            return Some(Next::Busy(ctx.between(us(20), us(150))));
        }
        let left = (since + FETCHING_MAX).since(ctx.now());
        Some(if left > us(0) { Next::Sleep(Some(left)) } else { self.roll_back(ctx) })
    }

    /// Takes one lock after the other, and makes nobody give way.
    fn lock(&mut self, ctx: &mut Ctx<'_, '_>, at: usize, since: Time) -> Option<Next> {
        let task = self.task.as_mut()?;
        let body = task.body.as_ref()?;
        let Some((row, mode, seen)) = locks::wanted(body, at) else {
            task.misfit = task.misfit.or(body.misfit(&ctx.ground.store.table, &[]));
            let span = ctx.between(us(50), us(3_000));
            self.doing = Doing::Writing(ctx.now() + span);
            return None;
        };
        if ctx.ground.locks.take(row, mode, ctx.me).is_err() {
            if ctx.now().since(since) < LOCK_MAX {
                return Some(Next::Sleep(Some(LOOK_AGAIN)));
            }
            ctx.corner("a forerunner did not get a lock");
            return Some(self.roll_back(ctx));
        }
        if seen.is_some_and(|seen| ctx.ground.store.table.latest(row).0 != seen) {
            task.misfit = Some(row);
        }
        self.doing = Doing::Locking(at + 1, ctx.now());
        if ctx.permille(300) { Some(Next::Busy(ctx.between(us(10), us(200)))) } else { None }
    }

    fn written(&mut self, ctx: &mut Ctx<'_, '_>, until: Time) -> Option<Next> {
        let left = until.since(ctx.now());
        if left > us(0) {
            return Some(Next::Sleep(Some(left)));
        }
        match ctx.hand.rng.below(1_000) {
            0..5 => return Some(self.roll_back(ctx)),
            5..8 => return Some(self.roll_back_saying(ctx, Rehearsal::Failed(RehearsalFailure::default()))),
            _ => {}
        }
        let task = self.task.as_mut()?;
        let (number, outcome) = (task.number, Rehearsal::Passed);
        task.has_answered = true;
        ctx.ground.memory.database.forerunners[self.index].done();
        ctx.request(self.conn, Request::Rehearsed { number, outcome });
        let span = ctx.between(us(50), ms(15));
        self.fails_at = ctx.permille(FAILS_PERMILLE).then(|| ctx.now() + span);
        if ctx.permille(AMBUSH_PERMILLE) && !ctx.ground.calm {
            self.ambush(ctx);
        }
        self.doing = Doing::Waiting;
        None
    }

    /// No remote backend gets the processor for a while: what is ordered before this transaction comes to need its locks when it is certified.
    fn ambush(&self, ctx: &mut Ctx<'_, '_>) {
        let until = ctx.now() + ctx.between(ms(5), ms(40));
        for index in 0..WORKERS {
            let place = ctx.ground.worker(index).0 as usize;
            ctx.ground.stopped_until[place] = ctx.ground.stopped_until[place].max(until);
        }
    }

    fn wait_for_position(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let (memory, now) = (ctx.ground.memory.clone(), ctx.now().moment());
        let slot = memory.slot(ctx.me);
        if !matches!(slot.state(), State::Certified | State::Yielded) {
            return Some(Next::Sleep(self.fails_at.map(|at| at.since(ctx.now()))));
        }
        let (position, timeout) = (slot.position(), ctx.ground.settings.commit_timeout.duration());
        self.doing = Doing::AtGate(LocalTurn::new(memory.at(), slot, position, timeout, now), position);
        None
    }

    fn wait_for_turn(&mut self, ctx: &mut Ctx<'_, '_>, position: Position) -> Next {
        let (memory, now) = (ctx.ground.memory.clone(), ctx.now().moment());
        let Doing::AtGate(turn, _) = &mut self.doing else { return Next::Busy(us(1)) };
        match turn.step(memory.at(), memory.slot(ctx.me), self.dies, now) {
            Wait::Turn => {
                self.doing = Doing::Committing(Stage::Armed, position);
                Next::Busy(ctx.between(us(10), us(400)))
            }
            Wait::Sleep(span) => {
                Next::Sleep(self.fails_at.map(|at| at.since(ctx.now())).into_iter().chain([Span::of(span)]).min())
            }
            Wait::Unfinished(why) => {
                if why == Unfinished::Yielded {
                    ctx.corner("a forerunner yielded");
                }
                self.roll_back(ctx)
            }
        }
    }

    fn commit_goes_on(&mut self, ctx: &mut Ctx<'_, '_>, stage: Stage, position: Position) -> Next {
        let (Some(task), node) = (&self.task, ctx.ground.n) else { return self.roll_back(ctx) };
        let Some(body) = &task.body else { return self.roll_back(ctx) };
        match stage {
            Stage::Armed if ctx.permille(5) => return self.roll_back(ctx),
            // What the origin saw must be what was here, or the position must not have been this process's.
            Stage::Armed => {
                if let Some(row) = task.misfit {
                    ctx.fact(Fact::Diverged { node, position, row });
                }
            }
            Stage::Recorded(_) => {}
            Stage::Visible(_) => {
                let counters = &ctx.ground.memory.database.replica.counters;
                counters.applied.one();
                counters.applied_ahead.one();
                self.record(ctx).take_back();
            }
            Stage::Passed => {
                ctx.corner("a position was applied ahead");
                return self.end(ctx);
            }
        }
        let next = landing::go_on(ctx, stage, position, (body.txn, || body.changes.clone()));
        self.doing = Doing::Committing(next, position);
        Next::Busy(ctx.between(us(5), us(200)))
    }

    fn roll_back(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        self.roll_back_saying(ctx, Rehearsal::Partly)
    }

    /// Whatever the reason: nothing of it remains, and the position is applied when it comes.
    fn roll_back_saying(&mut self, ctx: &mut Ctx<'_, '_>, outcome: Rehearsal) -> Next {
        let released = self.abort(ctx);
        match &self.task {
            Some(task) if task.has_answered => ctx.corner("what was applied ahead was rolled back"),
            Some(task) => {
                let number = task.number;
                ctx.request(self.conn, Request::Rehearsed { number, outcome });
            }
            None => {}
        }
        if let Released::HandedOver(_) = released {
            ctx.corner("what was applied ahead was lost and fetched");
        }
        self.end(ctx)
    }

    /// What the end of a transaction does, committed or not.
    fn abort(&mut self, ctx: &mut Ctx<'_, '_>) -> Released {
        self.record(ctx).take_back();
        let slot = ctx.ground.memory.slot(ctx.me);
        let released = ending::release(ctx.ground.memory.at(), slot);
        slot.victim.clear();
        slot.progress.clear();
        ctx.set_xid(None);
        ctx.release_locks();
        released
    }

    /// The daemon may give it another.
    fn end(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        self.abort(ctx);
        if let Some(Task { number, .. }) = self.task.take() {
            ctx.request(self.conn, Request::AheadDone { number });
        }
        self.fails_at = None;
        self.doing = Doing::Idle(ctx.now());
        Next::Busy(ctx.between(us(10), us(100)))
    }

    /// It ends. What it was busy with has been rolled back.
    fn leave(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        self.abort(ctx);
        self.record(ctx).leave();
        ctx.ground.memory.slot(ctx.me).victim.set_hears(false);
        ctx.close(self.conn);
        Next::Exit
    }
}

impl Task {
    fn new(number: u64, tag: Tag, after: Position) -> Task {
        Task { number, tag, after, chunks: Vec::new(), body: None, misfit: None, has_answered: false, is_over: false }
    }
}
