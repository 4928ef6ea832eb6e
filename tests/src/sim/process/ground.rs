//! What a process may use: its server's things, and of the world the time, chance, and what happens later.

use std::rc::Rc;

use gcs_writeset::LockSession;
use gcs_writeset::link::Request;
use postgres_r_protocol::bounds::FORERUNNERS;
use postgres_r_protocol::id::{LocalXid, ProcNo};

use crate::rng::Rng;
use crate::sim::fact::{Fact, N};
use crate::sim::platform::Memory;
use crate::sim::postgres::Mistake;
use crate::sim::postgres::locks::Locks;
use crate::sim::postgres::store::Store;
use crate::sim::spool::SimSpool;
use crate::sim::time::{Span, Time, us};
use crate::sim::wire::{Caller, ConnId, Ends, Up};

/// Remote backends of a server.
pub const WORKERS: usize = 3;

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

/// What signals have asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Interrupts {
    pub cancel: bool,
    pub die: bool,
    /// One of both, since the transaction is to give way.
    pub summoned: bool,
}

impl Interrupts {
    pub fn any(self) -> bool {
        self.cancel || self.die
    }
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
    Forerunner,
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
    /// Of a thousand transactions that travel in small chunks, those that other nodes are to apply ahead. With none there are no forerunners.
    pub ahead_permille: u64,
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
    /// Of sessions that hold locks: of two clients.
    pub lock_sessions: [Option<LockSession>; 2],
    /// Trouble has ended: clients take their time, so that who is behind catches up.
    pub calm: bool,
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
        ProcNo(self.settings.clients + WORKERS as u32)
    }

    pub fn worker(&self, index: usize) -> ProcNo {
        ProcNo(self.settings.clients + index as u32)
    }

    pub fn forerunner(&self, index: usize) -> ProcNo {
        ProcNo(self.manager().0 + 1 + index as u32)
    }

    pub fn places(settings: &Settings) -> usize {
        settings.clients as usize + WORKERS + 1 + FORERUNNERS
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
    pub fn now(&self) -> Time {
        self.hand.now
    }

    pub fn between(&mut self, soonest: Span, latest: Span) -> Span {
        Span(self.hand.rng.between(soonest.0, latest.0))
    }

    pub fn permille(&mut self, chance: u64) -> bool {
        self.hand.rng.permille(chance)
    }

    pub fn fact(&mut self, fact: Fact) {
        self.hand.out.push(Action::Fact(fact));
    }

    pub fn corner(&mut self, what: &'static str) {
        let node = self.ground.n;
        self.fact(Fact::Corner { node, what });
    }

    pub fn xid(&self) -> Option<LocalXid> {
        self.ground.xids[self.me.0 as usize]
    }

    pub fn set_xid(&mut self, xid: Option<LocalXid>) {
        self.ground.xids[self.me.0 as usize] = xid;
    }

    /// The signal arrives soon, if the process is still there then.
    pub fn signal(&mut self, process: ProcNo, signal: Signal) {
        let number = self.ground.numbers[process.0 as usize];
        let span = self.between(us(2), us(60));
        self.hand.out.push(Action::Later(span, ServerEvent::Signal(process, number, signal)));
    }

    pub fn connect(&mut self, caller: Caller) -> Option<ConnId> {
        let conn = self.ground.ends.open(self.me)?;
        let incarnation = self.ground.memory.server.incarnation;
        self.hand.out.push(Action::Up(conn, Up::Hello { caller, incarnation }));
        Some(conn)
    }

    pub fn close(&mut self, conn: ConnId) {
        if self.ground.ends.close(conn) {
            self.hand.out.push(Action::Up(conn, Up::Closed));
        }
    }

    pub fn request(&mut self, conn: ConnId, request: Request) {
        self.hand.out.push(Action::Up(conn, Up::Request(request)));
    }

    /// Row locks go, and whoever waited for one looks again.
    pub fn release_locks(&mut self) {
        for process in self.ground.locks.release(self.me) {
            self.ground.memory.server.wake(process);
        }
    }
}
