//! The process around the replication manager: its two connections, its clock, the remote backends that it keeps running.
//!
//! One loop: read what gcs says, as much as there is room for; fetch what orphans need; report; start who is missing; sleep.

use gcs_writeset::link::Reply;
use postgres_r_protocol::dispatch::{Me, Trouble};
use postgres_r_protocol::manager::{self, Link, Manager, Next as Told};

use super::ground::{Action, Ctx, Next, ServerEvent, Signal, WORKERS};
use crate::sim::fact::Fact;
use crate::sim::spool::SimSpool;
use crate::sim::time::{Span, Time, ms, us};
use crate::sim::wire::{Caller, ConnId};

/// Between attempts to reach gcs.
const RECONNECT_MIN: Span = ms(50);
const RECONNECT_MAX: Span = ms(1_000);

/// Between attempts to start a remote backend.
const START_WORKER_AGAIN: Span = ms(1_000);

/// Frames that are read before other duties get their turn.
const FRAMES_A_ROUND: usize = 8;

pub struct ManagerProcess {
    protocol: Manager<SimSpool>,
    conn: Option<ConnId>,
    fetching: Option<ConnId>,
    retry_at: Time,
    pause: Span,
    workers_started: [Option<Time>; WORKERS],
    dies: bool,
}

impl ManagerProcess {
    /// A manager begins, unless there is one.
    pub fn new(ctx: &Ctx<'_, '_>) -> Option<ManagerProcess> {
        let memory = &ctx.ground.memory;
        if !memory.database.replica.manager.claim(ctx.me) {
            return None;
        }
        Some(ManagerProcess {
            protocol: Manager::new(memory.at(), ctx.ground.spool.clone()),
            conn: None,
            fetching: None,
            retry_at: ctx.now(),
            pause: RECONNECT_MIN,
            workers_started: [None; WORKERS],
            dies: false,
        })
    }

    pub fn link(&self) -> Link {
        self.protocol.link()
    }

    pub fn hear(&mut self, signal: Signal) {
        self.dies |= signal == Signal::Terminate;
    }

    pub fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        if self.dies {
            return self.leave(ctx);
        }
        self.connect_if_due(ctx);
        let is_unread = self.serve_link(ctx);
        self.serve_fetches(ctx);
        let (memory, now) = (ctx.ground.memory.clone(), ctx.now().moment());
        let flushed = ctx.ground.store.flushed_to();
        if let (Some(conn), Some(report)) = (self.conn, self.protocol.report(memory.at(), now, || flushed)) {
            ctx.request(conn, report);
        }
        if manager::opens_to_clients(memory.at()) {
            let (node, visible) = (ctx.ground.n, ctx.ground.store.visible());
            ctx.fact(Fact::Serving { node, visible });
        }
        if let Some(process) = self.protocol.who_never_comes(memory.at(), now) {
            ctx.corner("a session did not come to commit");
            ctx.signal(process, Signal::Terminate);
        }
        let is_worker_missing = self.keep_workers(ctx);
        if is_unread {
            return Next::Busy(ctx.between(us(5), us(100)));
        }
        Next::Sleep(self.timeout(ctx, is_worker_missing))
    }

    fn timeout(&self, ctx: &Ctx<'_, '_>, is_worker_missing: bool) -> Option<Span> {
        let at = ctx.ground.memory.at();
        let reconnect = self.conn.is_none().then(|| self.retry_at.since(ctx.now()));
        let report = self.protocol.report_in(at).map(Span::of);
        let workers = is_worker_missing.then_some(START_WORKER_AGAIN);
        [reconnect, report, workers].into_iter().flatten().min()
    }

    fn connect_if_due(&mut self, ctx: &mut Ctx<'_, '_>) {
        if self.conn.is_some() || ctx.now() < self.retry_at {
            return;
        }
        self.conn = ctx.connect(Caller::Manager);
        match self.conn {
            Some(_) => self.protocol.connected(),
            None => self.link_lost(ctx),
        }
    }

    fn with_me<R>(&mut self, ctx: &Ctx<'_, '_>, act: impl FnOnce(&mut Manager<SimSpool>, Me<'_>) -> R) -> R {
        let progress = &ctx.ground.memory.slot(ctx.me).progress;
        let me = Me { pid: ctx.ground.numbers[ctx.me.0 as usize] as i32, progress, at: ctx.now().0 as i64 };
        act(&mut self.protocol, me)
    }

    fn link_lost(&mut self, ctx: &mut Ctx<'_, '_>) {
        if let Some(conn) = self.conn.take() {
            ctx.close(conn);
        }
        let was_up = self.protocol.link() == Link::Up;
        self.hang_up_fetcher(ctx);
        let memory = ctx.ground.memory.clone();
        self.with_me(ctx, |protocol, me| protocol.lost(memory.at(), me));
        self.pause = if was_up { RECONNECT_MIN } else { RECONNECT_MAX.min(Span(self.pause.0 * 2)) };
        self.retry_at = ctx.now() + self.pause;
    }

    /// Reads frames while there is room for them. True if there is more to be read at once.
    fn serve_link(&mut self, ctx: &mut Ctx<'_, '_>) -> bool {
        let memory = ctx.ground.memory.clone();
        memory.database.gate.want_room(false);
        for _ in 0..FRAMES_A_ROUND {
            let Some(conn) = self.conn else { return false };
            let Some((reply, payload)) = ctx.ground.ends.front(conn) else {
                if ctx.ground.ends.is_over(conn) {
                    self.link_lost(ctx);
                }
                return false;
            };
            if !self.take(ctx, conn, &reply, &payload) {
                // Told before looking again, so that room made in between is not missed.
                memory.database.gate.want_room(true);
                if !self.take(ctx, conn, &reply, &payload) {
                    let is_window = memory.database.gate.ahead() >= memory.database.gate.window();
                    ctx.corner(if is_window { "the window was full" } else { "the ring was full" });
                    return false;
                }
                memory.database.gate.want_room(false);
            }
        }
        true
    }

    /// Takes one frame; false if it has to stay where it is.
    fn take(&mut self, ctx: &mut Ctx<'_, '_>, conn: ConnId, reply: &Reply, payload: &[u8]) -> bool {
        let memory = ctx.ground.memory.clone();
        let mut out = Vec::new();
        let lost_before = memory.database.replica.counters.ahead_lost.get();
        let told =
            self.with_me(ctx, |protocol, me| protocol.take(memory.at(), me, &memory.members, (reply, payload), &mut out));
        if let Ok(Told::Keep) = told {
            return false;
        }
        if memory.database.replica.counters.ahead_lost.get() > lost_before {
            ctx.corner("a position came without its writeset, and no forerunner had it");
        }
        ctx.ground.ends.consume(conn);
        ctx.hand.out.push(Action::Read(conn));
        out.into_iter().for_each(|request| ctx.request(conn, request));
        self.follow(ctx, told);
        true
    }

    fn follow(&mut self, ctx: &mut Ctx<'_, '_>, told: Result<Told, Trouble>) {
        let node = ctx.ground.n;
        match told {
            Ok(Told::Go | Told::Keep) => {}
            Ok(Told::Forerunner) => self.start_forerunner(ctx),
            Ok(Told::Detached) => ctx.fact(Fact::Misunderstood { node, what: "detached, unasked".into() }),
            Ok(Told::Failed(failure)) => {
                if manager::is_final(failure.kind) {
                    ctx.fact(Fact::Misunderstood { node, what: failure.message });
                }
                self.link_lost(ctx);
            }
            Err(trouble) => {
                ctx.fact(Fact::Misunderstood { node, what: trouble.to_string() });
                self.link_lost(ctx);
            }
        }
    }

    /// The second connection, on which the writesets of orphans come.
    fn serve_fetches(&mut self, ctx: &mut Ctx<'_, '_>) {
        let memory = ctx.ground.memory.clone();
        let is_wanted = self.protocol.wants_fetcher(memory.at());
        if self.fetching.is_none() && is_wanted {
            self.fetching = ctx.connect(Caller::Fetcher);
            if self.fetching.is_none() {
                return self.link_lost(ctx);
            }
        }
        let Some(conn) = self.fetching else { return };
        if !is_wanted {
            return self.hang_up_fetcher(ctx);
        }
        while let Some((reply, payload)) = ctx.ground.ends.front(conn) {
            ctx.ground.ends.consume(conn);
            ctx.hand.out.push(Action::Read(conn));
            let told = self.with_me(ctx, |protocol, me| protocol.take_fetched(memory.at(), me, (&reply, &payload)));
            self.follow(ctx, told);
            if self.fetching.is_none() {
                return;
            }
            if let Reply::Body { more: false, .. } = reply {
                ctx.corner("an orphan was fetched");
            }
        }
        if ctx.ground.ends.is_over(conn) {
            return self.link_lost(ctx);
        }
        for request in self.protocol.fetches(memory.at()) {
            ctx.request(conn, request);
        }
    }

    fn hang_up_fetcher(&mut self, ctx: &mut Ctx<'_, '_>) {
        if let Some(conn) = self.fetching.take() {
            ctx.close(conn);
        }
        self.protocol.fetcher_closed(ctx.ground.memory.at());
    }

    /// Starts remote backends that are missing. True if one is.
    fn keep_workers(&mut self, ctx: &mut Ctx<'_, '_>) -> bool {
        let mut is_missing = false;
        for index in 0..WORKERS {
            if ctx.ground.memory.database.workers[index].process.get().is_some() {
                continue;
            }
            is_missing = true;
            let started = &mut self.workers_started[index];
            if started.is_none_or(|at| ctx.hand.now.since(at) >= START_WORKER_AGAIN) {
                *started = Some(ctx.hand.now);
                let (place, span) = (ctx.ground.worker(index), ctx.between(ms(1), ms(20)));
                ctx.hand.out.push(Action::Later(span, ServerEvent::Start(place)));
            }
        }
        is_missing
    }

    /// If there is a place. Forerunners end by themselves.
    fn start_forerunner(&mut self, ctx: &mut Ctx<'_, '_>) {
        let forerunners = &ctx.ground.memory.database.forerunners;
        let free = forerunners.iter().position(|forerunner| forerunner.process.get().is_none());
        if let Some(index) = free {
            let (place, span) = (ctx.ground.forerunner(index), ctx.between(ms(1), ms(20)));
            ctx.hand.out.push(Action::Later(span, ServerEvent::Start(place)));
        }
    }

    /// It dies.
    fn leave(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        let memory = ctx.ground.memory.clone();
        for conn in [self.conn.take(), self.fetching.take()].into_iter().flatten() {
            ctx.close(conn);
        }
        memory.database.replica.unlinked(ctx.now().0 as i64);
        memory.database.replica.manager.set(None);
        manager::resolve(memory.at());
        memory.slot(ctx.me).progress.clear();
        ctx.corner("a manager died");
        Next::Exit
    }
}
