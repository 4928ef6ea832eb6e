//! A process of a simulated server: it sleeps on its latch, and what it does when it is awake is the extension's own code.
//!
//! - [`client`]: a client's session, from BEGIN to the answer to COMMIT
//! - [`commit`]: its COMMIT
//! - [`transaction`], [`statement`]: what it reads and changes
//! - [`writeset`]: what it submits, and how
//! - [`remote`]: a remote backend
//! - [`manager`]: the replication manager
//!
//! A process that wakes another sets its latch. A sleeper whose latch is set runs a moment later; one that is busy finds it set when it
//! goes to sleep, and runs again. So a wake-up is lost only where the protocol loses it. A signal is heard at any time, unless the process is
//! stopped; then nothing happens until it goes on.

pub mod client;
mod commit;
pub mod manager;
pub mod remote;
mod statement;
mod transaction;
mod writeset;

use std::rc::Rc;

use gcs_writeset::link::Request;
use postgres_r_protocol::id::{LocalXid, ProcNo};

use super::fact::{Fact, N};
use super::platform::Memory;
use super::postgres::Mistake;
use super::postgres::locks::Locks;
use super::postgres::store::Store;
use super::spool::SimSpool;
use super::time::{Span, Time, ms, us};
use super::wire::{Caller, ConnId, Ends, Up};
use crate::rng::Rng;
use client::Client;
use manager::ManagerProcess;
use remote::Remote;

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    Cancel,
    Terminate,
    /// To give way: SIGUSR2.
    Summon,
    /// PostgreSQL's own recovery conflict.
    Dislodge,
}

/// How a process goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// Until its latch is set, no longer than this.
    Sleep(Option<Span>),
    /// It works for so long; whatever comes meanwhile is seen afterwards.
    Busy(Span),
    /// It ends.
    Exit,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Client,
    Remote,
    Manager,
}

/// What a seed decides about every server.
#[derive(Clone, Debug)]
pub struct Settings {
    pub clients: u32,
    pub rows: u32,
    /// Things without a key that transactions lock now and then.
    pub things: u32,
    pub window: usize,
    pub ring_bytes: usize,
    pub commit_timeout: Span,
    pub reader_grace: Span,
    pub mistake: Option<Mistake>,
    /// Of a thousand commits, those at which something is done to the session at the worst moment.
    pub ambush_permille: u64,
}

/// What happens on a server later.
#[derive(Clone, Copy, Debug)]
pub enum ServerEvent {
    /// A process goes on, if nothing else was planned for it since.
    Go(ProcNo, u64),
    /// A signal for the process that had this number.
    Signal(ProcNo, u64, Signal),
    /// A process begins in that place, if there is none.
    Start(ProcNo),
    Flush,
}

#[derive(Debug)]
pub enum Action {
    Later(Span, ServerEvent),
    Fact(Fact),
    Up(ConnId, Up),
    /// Something was read from this connection.
    Read(ConnId),
}

/// What the processes of a server share, and what the world knows of it.
pub struct Ground {
    pub n: N,
    pub settings: Settings,
    pub memory: Rc<Memory>,
    pub store: Store,
    pub locks: Locks,
    pub spool: SimSpool,
    pub ends: Ends,
    /// The transaction that each process is in, as the process array shows it.
    pub xids: Vec<Option<LocalXid>>,
    /// The number of the process in each place, ever.
    pub numbers: Vec<u64>,
    /// Until when each process is (or was last) stopped.
    pub stopped_until: Vec<Time>,
    /// Clients begin nothing new.
    pub quiet: bool,
}

impl Ground {
    pub fn manager(&self) -> ProcNo {
        ProcNo(self.settings.clients + remote::WORKERS as u32)
    }

    pub fn worker(&self, index: usize) -> ProcNo {
        ProcNo(self.settings.clients + index as u32)
    }

    pub fn places(settings: &Settings) -> usize {
        settings.clients as usize + remote::WORKERS + 1
    }
}

/// What a server may use of the world.
pub struct Hand<'a> {
    pub now: Time,
    pub rng: &'a mut Rng,
    /// Counts transactions of the whole world.
    pub txns: &'a mut u64,
    pub out: &'a mut Vec<Action>,
}

/// What a process may use of its server and the world.
pub struct Ctx<'a, 'b> {
    pub me: ProcNo,
    pub ground: &'a mut Ground,
    pub hand: &'a mut Hand<'b>,
}

impl Ctx<'_, '_> {
    fn now(&self) -> Time {
        self.hand.now
    }

    fn between(&mut self, soonest: Span, latest: Span) -> Span {
        Span(self.hand.rng.between(soonest.0, latest.0))
    }

    fn permille(&mut self, chance: u64) -> bool {
        self.hand.rng.permille(chance)
    }

    fn fact(&mut self, fact: Fact) {
        self.hand.out.push(Action::Fact(fact));
    }

    fn corner(&mut self, what: &'static str) {
        let node = self.ground.n;
        self.fact(Fact::Corner { node, what });
    }

    fn xid(&self) -> Option<LocalXid> {
        self.ground.xids[self.me.0 as usize]
    }

    fn set_xid(&mut self, xid: Option<LocalXid>) {
        self.ground.xids[self.me.0 as usize] = xid;
    }

    /// The signal arrives soon, if the process is still there then.
    fn signal(&mut self, process: ProcNo, signal: Signal) {
        let number = self.ground.numbers[process.0 as usize];
        let span = self.between(us(2), us(60));
        self.hand.out.push(Action::Later(span, ServerEvent::Signal(process, number, signal)));
    }

    fn connect(&mut self, caller: Caller) -> Option<ConnId> {
        let conn = self.ground.ends.open(self.me)?;
        let incarnation = self.ground.memory.server.incarnation;
        self.hand.out.push(Action::Up(conn, Up::Hello { caller, incarnation }));
        Some(conn)
    }

    fn close(&mut self, conn: ConnId) {
        if self.ground.ends.close(conn) {
            self.hand.out.push(Action::Up(conn, Up::Closed));
        }
    }

    fn request(&mut self, conn: ConnId, request: Request) {
        self.hand.out.push(Action::Up(conn, Up::Request(request)));
    }

    /// Row locks go, and whoever waited for one looks again.
    fn release_locks(&mut self) {
        for process in self.ground.locks.release(self.me) {
            self.ground.memory.server.wake(process);
        }
    }
}

pub enum Role {
    Client(Box<Client>),
    Remote(Box<Remote>),
    Manager(Box<ManagerProcess>),
}

impl Role {
    pub fn kind(&self) -> Kind {
        match self {
            Role::Client(_) => Kind::Client,
            Role::Remote(_) => Kind::Remote,
            Role::Manager(_) => Kind::Manager,
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Role::Client(client) => client.describe(),
            Role::Remote(remote) => remote.describe(),
            Role::Manager(manager) => format!("{:?}", manager.link()),
        }
    }

    fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        match self {
            Role::Client(client) => client.step(ctx),
            Role::Remote(remote) => remote.step(ctx),
            Role::Manager(manager) => manager.step(ctx),
        }
    }

    fn hear(&mut self, ctx: &mut Ctx<'_, '_>, signal: Signal) {
        match self {
            Role::Client(client) => client.hear(ctx, signal),
            Role::Remote(remote) => remote.hear(signal),
            Role::Manager(manager) => manager.hear(signal),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rest {
    Asleep,
    Busy,
}

pub struct Process {
    pub place: ProcNo,
    /// None when there is no process in the place.
    role: Option<Role>,
    latch: bool,
    rest: Rest,
    /// The number of the event that lets it go on.
    planned: u64,
}

impl Process {
    pub fn vacant(place: ProcNo) -> Process {
        Process { place, role: None, latch: false, rest: Rest::Busy, planned: 0 }
    }

    pub fn role(&self) -> Option<&Role> {
        self.role.as_ref()
    }

    /// A process begins here.
    pub fn begin(&mut self, hand: &mut Hand<'_>, role: Role) {
        self.role = Some(role);
        self.latch = false;
        self.go_on(hand, Next::Busy(us(1)));
    }

    fn plan(&mut self, hand: &mut Hand<'_>, span: Span) {
        self.planned += 1;
        hand.out.push(Action::Later(span, ServerEvent::Go(self.place, self.planned)));
    }

    /// Its latch is set.
    pub fn wake(&mut self, hand: &mut Hand<'_>) {
        if self.role.is_some() && !std::mem::replace(&mut self.latch, true) && self.rest == Rest::Asleep {
            self.rest = Rest::Busy;
            let span = wake_span(hand.rng);
            self.plan(hand, span);
        }
    }

    fn go_on(&mut self, hand: &mut Hand<'_>, next: Next) {
        match next {
            Next::Exit => {
                self.role = None;
                self.planned += 1;
            }
            Next::Busy(span) => {
                self.rest = Rest::Busy;
                self.plan(hand, span);
            }
            Next::Sleep(_) if self.latch => {
                self.rest = Rest::Busy;
                let span = wake_span(hand.rng);
                self.plan(hand, span);
            }
            Next::Sleep(timeout) => {
                self.rest = Rest::Asleep;
                self.planned += 1;
                if let Some(span) = timeout {
                    // A timer is never early.
                    let late = us(hand.rng.between(1, 60));
                    self.plan(hand, Span(span.0 + late.0));
                }
            }
        }
    }

    /// The planned event has come. True if the process has ended.
    pub fn go(&mut self, planned: u64, ground: &mut Ground, hand: &mut Hand<'_>) -> bool {
        let Some(role) = self.role.as_mut().filter(|_| self.planned == planned) else { return false };
        let stopped_until = ground.stopped_until[self.place.0 as usize];
        if hand.now < stopped_until {
            self.rest = Rest::Busy;
            self.plan(hand, stopped_span(hand.now, stopped_until));
            return false;
        }
        self.latch = false;
        let next = role.step(&mut Ctx { me: self.place, ground, hand });
        self.go_on(hand, next);
        next == Next::Exit
    }

    /// A signal handler runs.
    pub fn hear(&mut self, signal: Signal, ground: &mut Ground, hand: &mut Hand<'_>) {
        if let Some(role) = &mut self.role {
            role.hear(&mut Ctx { me: self.place, ground, hand }, signal);
            self.wake(hand);
        }
    }
}

/// When to look again whether a process that is stopped goes on: it may be continued earlier than was planned.
pub fn stopped_span(now: Time, until: Time) -> Span {
    Span(until.since(now).0 + 1).min(ms(50))
}

/// How long it takes a process to run once it may: now and then it does not get the processor for a while.
fn wake_span(rng: &mut Rng) -> Span {
    match rng.below(1000) {
        0..4 => ms(rng.between(1, 60)),
        4..60 => us(rng.between(100, 1_000)),
        _ => us(rng.between(5, 100)),
    }
}
