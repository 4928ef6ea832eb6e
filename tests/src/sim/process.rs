//! A process of a simulated server: it sleeps on its latch, and what it does when it is awake is the extension's own code.
//!
//! - [`client`]: a client's session, from BEGIN to the answer to COMMIT
//! - [`commit`]: its COMMIT; [`asking`]: what it asks other nodes before; [`landing`]: from the turn on
//! - [`transaction`], [`statement`]: what it reads and changes
//! - [`writeset`]: what it submits, and how
//! - [`remote`]: a remote backend
//! - [`forerunner`]: a process that applies a transaction of another node ahead
//! - [`manager`]: the replication manager
//! - [`ground`]: what all of them stand on
//!
//! A process that wakes another sets its latch. A sleeper whose latch is set runs a moment later; one that is busy finds it set when it
//! goes to sleep, and runs again. So a wake-up is lost only where the protocol loses it. A signal is heard at any time, unless the process is
//! stopped; then nothing happens until it goes on.

mod asking;
pub mod client;
mod commit;
pub mod forerunner;
pub mod ground;
mod landing;
pub mod manager;
pub mod remote;
mod statement;
mod transaction;
mod writeset;

use postgres_r_protocol::id::ProcNo;

use super::time::{Span, Time, ms, us};
use crate::rng::Rng;
use client::Client;
use forerunner::Forerunner;
use ground::{Action, Ctx, Ground, Hand, Kind, Next, ServerEvent, Signal};
use manager::ManagerProcess;
use remote::Remote;

pub enum Role {
    Client(Box<Client>),
    Remote(Box<Remote>),
    Manager(Box<ManagerProcess>),
    Forerunner(Box<Forerunner>),
}

impl Role {
    pub fn kind(&self) -> Kind {
        match self {
            Role::Client(_) => Kind::Client,
            Role::Remote(_) => Kind::Remote,
            Role::Manager(_) => Kind::Manager,
            Role::Forerunner(_) => Kind::Forerunner,
        }
    }

    pub fn describe(&self) -> String {
        match self {
            Role::Client(client) => client.describe(),
            Role::Remote(remote) => remote.describe(),
            Role::Manager(manager) => format!("{:?}", manager.link()),
            Role::Forerunner(forerunner) => forerunner.describe(),
        }
    }

    fn step(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        match self {
            Role::Client(client) => client.step(ctx),
            Role::Remote(remote) => remote.step(ctx),
            Role::Manager(manager) => manager.step(ctx),
            Role::Forerunner(forerunner) => forerunner.step(ctx),
        }
    }

    fn hear(&mut self, ctx: &mut Ctx<'_, '_>, signal: Signal) {
        match self {
            Role::Client(client) => client.hear(ctx, signal),
            Role::Remote(remote) => remote.hear(signal),
            Role::Manager(manager) => manager.hear(signal),
            Role::Forerunner(forerunner) => forerunner.hear(signal),
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
