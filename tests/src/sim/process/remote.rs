//! A remote backend: claims the lowest queued positions, waits for what they depend on, reads them, takes their locks, writes, waits for the
//! turn, commits. Rolled back, it does the same again, or gives the position back; a run, position by position.

use gcs_writeset::Position;
use gcs_writeset::writeset::Envelope;
use postgres_r_protocol::ending;
use postgres_r_protocol::gate::{Job, Run, Storage};
use postgres_r_protocol::id::{LocalXid, Lsn, ProcNo};
use postgres_r_protocol::platform::Ring;
use postgres_r_protocol::pool::{self, Wait};
use postgres_r_protocol::precedence::{Pressing, Pressure};
use postgres_r_protocol::run::{self, Claimed};
use postgres_r_protocol::slot::State;
use postgres_r_protocol::turn;
use postgres_r_protocol::victim::{Holder, Winner};
use postgres_r_protocol::worker::{self, Worker};

use super::ground::{Ctx, Next, Signal};
use crate::sim::fact::Fact;
use crate::sim::platform::SimPlatform;
use crate::sim::postgres::{Body, Row, locks};
use crate::sim::time::{Span, Time, ms, us};

/// Pauses between attempts at the same position.
const RETRY_PAUSE_MIN: Span = ms(1);
const RETRY_PAUSE_MAX: Span = ms(100);

/// Before the first look-up of who holds a lock that is waited for, but for the one before the wait; and between look-ups.
const LOOK_UP_AFTER: Span = ms(10);
const LOOK_UP_EVERY: Span = ms(20);

/// Something later may stand in an earlier position's way for so long.
const HELD_UP_MAX: Span = ms(2_000);

#[derive(Debug)]
enum Doing {
    /// Looks for work.
    Looking,
    AwaitsDependency,
    /// Has the locks of all rows of so many writesets, and of so many rows of the next one.
    Locking(usize, usize),
    Writing,
    AtGate,
    Committing(Stage),
    /// Rolled back, and to be done again.
    Again,
    /// Rolled back, and for another to do.
    GivesBack,
}

#[derive(Clone, Copy, Debug)]
enum Stage {
    Armed,
    Recorded(Lsn),
    Visible(Lsn),
    Passed,
}

/// Something later that stands in the way, and since when it could have been gone.
struct Standing {
    process: ProcNo,
    transaction: LocalXid,
    since: Time,
}

pub struct Remote {
    index: usize,
    doing: Doing,
    claimed: Option<Claimed>,
    bodies: Vec<Body>,
    pressing: Pressing,
    standing: Vec<Standing>,
    /// Until when it writes, or pauses.
    until: Time,
    pause: Span,
    xids: u32,
    dies: bool,
}

impl Remote {
    /// A remote backend begins, if its place among the workers is free.
    pub fn new(ctx: &Ctx<'_, '_>, index: usize) -> Option<Remote> {
        if !pool::enter(&ctx.ground.memory.database.workers[index], ctx.me) {
            return None;
        }
        ctx.ground.memory.slot(ctx.me).victim.set_hears(true);
        Some(Remote {
            index,
            doing: Doing::Looking,
            claimed: None,
            bodies: Vec::new(),
            pressing: Pressing::default(),
            standing: Vec::new(),
            until: Time(0),
            pause: RETRY_PAUSE_MIN,
            xids: (ctx.ground.numbers[ctx.me.0 as usize] as u32) << 16,
            dies: false,
        })
    }

    pub fn hear(&mut self, signal: Signal) {
        // A summons is looked up where the mark is.
        self.dies |= signal == Signal::Terminate;
    }

    pub fn describe(&self) -> String {
        format!("{:?} {:?}", self.doing, self.claimed)
    }

    fn me<'m>(&self, ctx: &'m Ctx<'_, '_>) -> &'m Worker {
        &ctx.ground.memory.database.workers[self.index]
    }

    fn run(&self) -> Run {
        self.claimed.as_ref().map_or(Run::of(Position::ZERO), Claimed::run)
    }

    /// The first, whose turn is waited for.
    fn position(&self) -> Position {
        self.run().first
    }

    fn is_several(&self) -> bool {
        self.claimed.as_ref().is_some_and(Claimed::is_several)
    }

    pub fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        if self.dies && !matches!(self.doing, Doing::Committing(_)) {
            return self.leave(ctx);
        }
        loop {
            let wait = self.until.since(ctx.now());
            let next = match self.doing {
                Doing::Looking => self.look(ctx),
                Doing::AwaitsDependency => self.await_dependency(ctx),
                Doing::Locking(..) | Doing::Writing if self.must_roll_back(ctx) => self.roll_back(ctx),
                Doing::Locking(nth, at) => self.lock(ctx, nth, at),
                Doing::Writing | Doing::Again if wait > us(0) => Some(Next::Sleep(Some(wait))),
                Doing::Writing => self.written(ctx),
                Doing::AtGate => self.wait_for_turn(ctx),
                Doing::Committing(stage) => self.commit_goes_on(ctx, stage),
                Doing::Again => self.apply(ctx),
                Doing::GivesBack => self.give_back(ctx),
            };
            if let Some(next) = next {
                return next;
            }
        }
    }

    fn look(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let memory = ctx.ground.memory.clone();
        let (at, me) = (memory.at(), &memory.database.workers[self.index]);
        me.doing.store(worker::Doing::Applying);
        let gate = &memory.database.gate;
        let Some(claimed) = Claimed::new::<SimPlatform>(gate.claim_run(ctx.me, run::MOST)) else {
            return pool::may_sleep(at, me).then_some(Next::Sleep(None));
        };
        let (first, depends_on) = (claimed.run().first, claimed.depends_on());
        if claimed.is_several() {
            ctx.corner("a run was claimed");
        }
        me.set_position(first);
        memory.slot(ctx.me).set_remote(first);
        self.claimed = Some(claimed);
        self.pause = RETRY_PAUSE_MIN;
        self.doing = Doing::AwaitsDependency;
        if gate.committed() < depends_on {
            me.awaits(depends_on);
            pool::before_waiting(at, me);
        }
        None
    }

    fn await_dependency(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let memory = ctx.ground.memory.clone();
        let (at, me) = (memory.at(), &memory.database.workers[self.index]);
        let depends_on = self.claimed.as_ref().map_or(Position::ZERO, Claimed::depends_on);
        let wait = pool::wait_for_dependency(at, me, depends_on);
        if wait == Wait::Sleep {
            return Some(Next::Sleep(None));
        }
        me.awaits(Position::ZERO);
        pool::after_waiting(me);
        if wait == Wait::Over {
            return self.read(ctx);
        }
        ctx.corner("a remote backend let go");
        self.give_back(ctx)
    }

    /// Reads the queued writesets.
    fn read(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        self.bodies.clear();
        for job in self.claimed.as_ref()?.jobs() {
            match read(ctx, job) {
                Ok(body) => self.bodies.push(body),
                Err(what) => {
                    let node = ctx.ground.n;
                    ctx.fact(Fact::Unreadable { node, position: job.position, what });
                }
            }
        }
        self.apply(ctx)
    }

    /// A transaction begins.
    fn apply(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        self.xids += 1;
        ctx.set_xid(Some(LocalXid(self.xids)));
        self.pressing.begin();
        self.standing.clear();
        self.doing = Doing::Locking(0, 0);
        Some(Next::Busy(ctx.between(us(20), us(150))))
    }

    fn is_victim(&self, ctx: &Ctx<'_, '_>) -> bool {
        ctx.xid().is_some_and(|xid| ctx.ground.memory.slot(ctx.me).victim.is_marked(xid))
    }

    fn must_roll_back(&self, ctx: &mut Ctx<'_, '_>) -> bool {
        let is_victim = self.is_victim(ctx);
        let why = pool::must_roll_back(ctx.ground.memory.at(), self.me(ctx), is_victim);
        self.say_why(ctx, why);
        why.is_some()
    }

    fn say_why(&self, ctx: &mut Ctx<'_, '_>, why: Option<Wait>) {
        match why {
            Some(Wait::LetGo) => ctx.corner("a remote backend let go"),
            Some(Wait::GiveWay) => ctx.corner("a remote backend gave way"),
            _ => {}
        }
    }

    /// Takes one lock after the other; whoever stands in the way is dealt with, but a run waits for nobody.
    fn lock(&mut self, ctx: &mut Ctx<'_, '_>, nth: usize, at: usize) -> Option<Next> {
        let (node, me) = (ctx.ground.n, ctx.me);
        let Some(body) = self.bodies.get(nth) else {
            self.doing = Doing::Writing;
            self.until = ctx.now() + ctx.between(us(50), us(3_000));
            return None;
        };
        let Some((row, mode, seen)) = locks::wanted(body, at) else {
            if let Some(row) = body.misfit(&ctx.ground.store.table, &self.bodies[..nth]) {
                ctx.fact(Fact::Diverged { node, position: self.nth(nth), row });
            }
            self.doing = Doing::Locking(nth + 1, 0);
            return None;
        };
        match ctx.ground.locks.take(row, mode, me) {
            Ok(()) => {}
            Err(_) if self.is_several() => {
                ctx.corner("a run would have waited for a lock");
                return self.roll_back(ctx);
            }
            Err(blockers) => {
                let first = self.standing.is_empty();
                for blocker in blockers {
                    self.deal_with(ctx, blocker, row);
                }
                if !first && pool::must_leave_lock(ctx.ground.memory.at(), self.me(ctx)) {
                    ctx.corner("a remote backend that waited for a lock let go");
                    return self.roll_back(ctx);
                }
                return Some(Next::Sleep(Some(if first { LOOK_UP_AFTER } else { LOOK_UP_EVERY })));
            }
        }
        // What the origin saw, for all that is committed here before it, must be what is here.
        if seen.is_some_and(|seen| self.version(ctx, row, nth) != seen) {
            ctx.fact(Fact::Diverged { node, position: self.nth(nth), row });
        }
        self.doing = Doing::Locking(nth, at + 1);
        if ctx.permille(300) { Some(Next::Busy(ctx.between(us(10), us(200)))) } else { None }
    }

    /// The position of the nth writeset of the run.
    fn nth(&self, nth: usize) -> Position {
        self.claimed.as_ref().map_or(Position::ZERO, |claimed| claimed.jobs()[nth].position)
    }

    /// The row's version as the nth writeset of the run finds it: what those before it did is not committed.
    fn version(&self, ctx: &Ctx<'_, '_>, row: Row, nth: usize) -> Position {
        let jobs = self.claimed.as_ref().map_or(&[][..], Claimed::jobs);
        let mut before = jobs.iter().zip(&self.bodies).take(nth).rev();
        let own = before.find(|(_, body)| body.changes.iter().any(|change| change.row == row));
        own.map_or_else(|| ctx.ground.store.table.latest(row).0, |(job, _)| job.position)
    }

    /// Who gives way (docs/architecture.md).
    fn deal_with(&mut self, ctx: &mut Ctx<'_, '_>, process: ProcNo, row: Row) {
        let Some(transaction) = ctx.ground.xids[process.0 as usize] else { return };
        let (position, memory) = (self.position(), ctx.ground.memory.clone());
        let node = self.claimed.as_ref().map_or(Default::default(), |claimed| claimed.jobs()[0].node);
        let winner = Winner { position, node, table: "rows".into(), key: format!("(row)=({})", row.0) };
        let holder = Holder { process, transaction, writes: true };
        let slot = memory.slot(process);
        self.watch(ctx, &holder, slot.state(), slot.remote(), slot.position());
        let (grace, now) = (ctx.ground.settings.reader_grace.duration(), ctx.now().moment());
        match self.pressing.deal_with(memory.at(), slot, &holder, &winner, grace, now) {
            Pressure::Wait => {}
            Pressure::Wake => memory.server.wake(process),
            Pressure::Summon => ctx.signal(process, Signal::Summon),
            Pressure::End => {
                ctx.corner("a session did not come to let an earlier position through");
                ctx.signal(process, Signal::Terminate);
            }
            Pressure::Dislodge => {
                memory.database.replica.counters.sessions_ended.one();
                ctx.corner("a process that hears no summons was dislodged");
                ctx.signal(process, Signal::Dislodge);
                ctx.signal(process, Signal::Summon);
            }
        }
    }

    /// Says so when something later has been standing in the way for too long, though nobody was stopped.
    fn watch(&mut self, ctx: &mut Ctx<'_, '_>, holder: &Holder, state: State, remote: Option<Position>, theirs: Position) {
        let is_later = match (remote, state) {
            (Some(theirs), _) => theirs > self.position(),
            (None, State::Idle | State::Open | State::Yielded) => true,
            (None, State::Certified) => theirs > self.position(),
            _ => false,
        };
        let is_known = |s: &Standing| (s.process, s.transaction) == (holder.process, holder.transaction);
        let known = self.standing.iter_mut().find(|standing| is_known(standing));
        let now = ctx.hand.now;
        let stopped = |process: ProcNo| ctx.ground.stopped_until[process.0 as usize];
        let Some(standing) = known else {
            let (process, transaction) = (holder.process, holder.transaction);
            self.standing.push(Standing { process, transaction, since: now });
            return;
        };
        if !is_later {
            standing.since = now;
        }
        standing.since = standing.since.max(stopped(holder.process)).max(stopped(ctx.me));
        let since = standing.since;
        if now.since(since) > HELD_UP_MAX {
            let (node, position) = (ctx.ground.n, self.position());
            let by = format!("process {} in state {state:?}", holder.process.0);
            ctx.fact(Fact::HeldUp { node, position, by, since });
        }
    }

    fn written(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        if ctx.permille(3) {
            ctx.corner("an application failed for a passing reason");
            return self.roll_back(ctx);
        }
        let memory = ctx.ground.memory.clone();
        if !memory.database.gate.is_turn(self.position()) {
            pool::before_waiting(memory.at(), self.me(ctx));
        }
        self.doing = Doing::AtGate;
        None
    }

    fn wait_for_turn(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let is_victim = self.is_victim(ctx);
        let wait = pool::wait_for_turn(ctx.ground.memory.at(), self.me(ctx), self.position(), is_victim);
        if wait == Wait::Sleep {
            return Some(Next::Sleep(None));
        }
        pool::after_waiting(self.me(ctx));
        if wait == Wait::Over {
            self.doing = Doing::Committing(Stage::Armed);
            return Some(Next::Busy(ctx.between(us(10), us(400))));
        }
        self.say_why(ctx, Some(wait));
        if wait == Wait::LetGo { self.roll_back_and_give_back(ctx) } else { self.roll_back(ctx) }
    }

    fn commit_goes_on(&mut self, ctx: &mut Ctx<'_, '_>, stage: Stage) -> Option<Next> {
        let (node, run) = (ctx.ground.n, self.run());
        let claimed = self.claimed.as_ref()?;
        let done = || claimed.jobs().iter().map(|job| job.position).zip(&self.bodies);
        let next = match stage {
            Stage::Armed => {
                let changes: Vec<_> = done().map(|(position, body)| (position, &body.changes[..])).collect();
                Stage::Recorded(ctx.ground.store.record_run(run.last, &changes))
            }
            Stage::Recorded(lsn) => {
                ctx.ground.store.show(run.last);
                ctx.set_xid(None);
                for (position, body) in done() {
                    ctx.fact(Fact::Visible { node, position, txn: body.txn });
                }
                if claimed.is_several() {
                    ctx.corner("a run was committed");
                }
                Stage::Visible(lsn)
            }
            Stage::Visible(lsn) => {
                let memory = &ctx.ground.memory;
                turn::pass_run(memory.at(), run, lsn);
                memory.database.replica.counters.applied.add(claimed.jobs().len() as u64);
                Stage::Passed
            }
            Stage::Passed => {
                let is_in_file = |job: &&Job| matches!(job.storage, Storage::File { .. });
                claimed.jobs().iter().filter(is_in_file).for_each(|job| ctx.ground.spool.remove(job.position));
                self.abort(ctx);
                self.put_down(ctx);
                return None;
            }
        };
        self.doing = Doing::Committing(next);
        Some(Next::Busy(ctx.between(us(5), us(200))))
    }

    /// What the end of a transaction does, committed or not.
    fn abort(&mut self, ctx: &mut Ctx<'_, '_>) {
        let slot = ctx.ground.memory.slot(ctx.me);
        ending::release(ctx.ground.memory.at(), slot);
        slot.victim.clear();
        slot.progress.clear();
        ctx.set_xid(None);
        ctx.release_locks();
    }

    /// The position is no longer this process's.
    fn put_down(&mut self, ctx: &mut Ctx<'_, '_>) {
        self.me(ctx).set_position(Position::ZERO);
        ctx.ground.memory.slot(ctx.me).set_remote(Position::ZERO);
        self.claimed = None;
        self.bodies.clear();
        self.doing = Doing::Looking;
    }

    fn give_back(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let position = self.position();
        self.put_down(ctx);
        ctx.ground.memory.database.gate.unclaim(position);
        None
    }

    fn roll_back(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        self.abort(ctx);
        let memory = ctx.ground.memory.clone();
        let database = &memory.database;
        database.replica.counters.apply_retries.one();
        if self.is_several() {
            database.gate.break_up(self.run());
            self.put_down(ctx);
            return Some(Next::Busy(ctx.between(us(10), us(100))));
        }
        let is_better_elsewhere = database.gate.queued() > 0 && !database.gate.is_turn(self.position());
        self.doing = if is_better_elsewhere { Doing::GivesBack } else { Doing::Again };
        let rolled_back = ctx.now() + ctx.between(us(10), us(100));
        self.until = rolled_back + self.pause;
        self.pause = RETRY_PAUSE_MAX.min(Span(self.pause.0 * 2));
        Some(Next::Busy(rolled_back.since(ctx.now())))
    }

    fn roll_back_and_give_back(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        self.abort(ctx);
        self.doing = Doing::GivesBack;
        Some(Next::Busy(ctx.between(us(10), us(100))))
    }

    /// It dies.
    fn leave(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        self.abort(ctx);
        let memory = &ctx.ground.memory;
        memory.slot(ctx.me).set_remote(Position::ZERO);
        memory.slot(ctx.me).victim.set_hears(false);
        pool::leave(memory.at(), self.me(ctx));
        ctx.corner("a remote backend died");
        Next::Exit
    }
}

/// A queued writeset, from the ring or from its file.
fn read(ctx: &Ctx<'_, '_>, job: &Job) -> Result<Body, String> {
    match job.storage {
        Storage::Ring { offset, length, .. } => {
            let mut writeset = Vec::new();
            ctx.ground.memory.database.queue.read(offset, length, &mut writeset);
            decode(&[], &writeset)
        }
        Storage::File { chunks, length } => match ctx.ground.spool.read(job.position) {
            Some(file) if file.len() as u64 == length => decode(&file[..chunks as usize], &file[chunks as usize..]),
            Some(file) => Err(format!("its file has {} bytes, not {length}", file.len())),
            None => Err("its file is gone".into()),
        },
    }
}

fn decode(chunks: &[u8], writeset: &[u8]) -> Result<Body, String> {
    let (_, rest) = Envelope::decode(writeset).map_err(|error| error.to_string())?;
    Body::decode(&[chunks, rest].concat()).map_err(|error| error.to_string())
}
