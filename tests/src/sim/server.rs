//! One simulated PostgreSQL server with `postgres_r`: its processes, its shared memory, its disk; its lives and deaths.
//!
//! Whatever one process does to another goes through shared memory, latches and signals. A latch that was set during a step becomes an event for
//! the sleeper; see [`super::process`].

use std::rc::Rc;

use gcs_writeset::{Incarnation, LockSession, Position};
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::manager::Link;

use super::fact::{Doubt, Fact, N};
use super::platform::{Memory, Note, Sizes};
use super::postgres::locks::Locks;
use super::postgres::store::Store;
use super::postgres::{Row, Value};
use super::process::client::{Awaits, Client, LAG_TARGET};
use super::process::forerunner::Forerunner;
use super::process::ground::{Action, Ctx, Ground, Hand, Kind, ServerEvent, Settings, Signal, WORKERS};
use super::process::manager::ManagerProcess;
use super::process::remote::Remote;
use super::process::{Process, Role, stopped_span};
use super::spool::SimSpool;
use super::time::{Span, Time, ms};
use super::wire::{ConnId, Down};

/// Time that a process's place stays empty after it has ended.
const NEW_SESSION_AFTER: (Span, Span) = (ms(1), ms(200));
const NEW_MANAGER_AFTER: (Span, Span) = (ms(20), ms(1_000));

pub struct Server {
    ground: Ground,
    processes: Vec<Process>,
    pub is_up: bool,
    /// What was last reported of the gate.
    committed: Position,
    /// When something last kept the server from going on.
    disturbed_at: Time,
}

impl Server {
    pub fn new(n: N, settings: Settings) -> Server {
        let places = Ground::places(&settings);
        let memory = new_memory(&settings, Incarnation(0), Position::ZERO);
        let ground = Ground {
            n,
            memory: Rc::new(memory),
            store: Store::new(settings.rows),
            locks: Locks::default(),
            spool: SimSpool::default(),
            ends: Default::default(),
            xids: vec![None; places],
            numbers: vec![0; places],
            stopped_until: vec![Time(0); places],
            quiet: false,
            lock_sessions: [None; 2],
            calm: false,
            settings,
        };
        let processes = (0..places as u32).map(|place| Process::vacant(ProcNo(place))).collect();
        Server { ground, processes, is_up: false, committed: Position::ZERO, disturbed_at: Time(0) }
    }

    /// The session with locks that the transactions of a client belong to.
    pub fn set_lock_session(&mut self, locker: usize, session: Option<LockSession>) {
        self.ground.lock_sessions[locker] = session;
    }

    pub fn be_calm(&mut self) {
        self.ground.calm = true;
    }

    pub fn committed(&self) -> Position {
        self.ground.memory.database.gate.committed()
    }

    pub fn known(&self) -> Position {
        self.ground.memory.database.gate.known()
    }

    /// Every row and what it is now.
    pub fn snapshot(&self) -> Vec<(Row, Value)> {
        self.ground.store.snapshot()
    }

    /// Clients begin nothing new.
    pub fn be_quiet(&mut self) {
        self.ground.quiet = true;
    }

    pub fn is_idle(&self) -> bool {
        let is_idle = |process: &Process| match process.role() {
            Some(Role::Client(client)) => client.is_idle(),
            _ => true,
        };
        self.committed() == self.known() && self.processes.iter().all(is_idle)
    }

    pub fn connections(&self) -> Vec<ConnId> {
        self.ground.ends.all()
    }

    pub fn connections_of(&self, process: ProcNo) -> Vec<ConnId> {
        self.ground.ends.of(process)
    }

    /// The places where processes of this kind are running.
    pub fn places(&self, kind: Kind) -> Vec<ProcNo> {
        let is_there = |process: &&Process| process.role().is_some_and(|role| role.kind() == kind);
        self.processes.iter().filter(is_there).map(|process| process.place).collect()
    }

    /// Whether the daemon can be reached from now on.
    pub fn daemon_is_there(&mut self, is_there: bool) {
        self.ground.ends.daemon_is_there = is_there;
    }

    /// Up to where its commits survive a crash.
    pub fn durable(&self) -> Position {
        self.ground.store.durable()
    }

    /// Its rows as of there, as a base backup has them.
    pub fn copy(&self) -> Store {
        self.ground.store.copy()
    }

    /// Has these rows and no others when it starts.
    pub fn take(&mut self, rows: Store) {
        self.ground.store = rows;
    }

    /// The server starts: crash recovery has found what the last commit record on disk says.
    pub fn start(&mut self, hand: &mut Hand<'_>) {
        let position = self.ground.store.recover();
        let incarnation = Incarnation(hand.rng.draw());
        self.ground.memory = Rc::new(new_memory(&self.ground.settings, incarnation, position));
        self.ground.locks = Locks::default();
        self.ground.spool = SimSpool::default();
        self.ground.xids.fill(None);
        self.ground.stopped_until.fill(Time(0));
        self.is_up = true;
        self.committed = position;
        self.disturbed_at = hand.now;
        hand.out.push(Action::Fact(Fact::Recovered { node: self.ground.n, position }));
        self.start_soon(hand, self.ground.manager(), (ms(1), ms(50)));
        for place in (0..self.ground.settings.clients).map(ProcNo) {
            self.start_soon(hand, place, (ms(1), ms(100)));
        }
        flush_later(hand);
    }

    fn start_soon(&self, hand: &mut Hand<'_>, place: ProcNo, (soonest, latest): (Span, Span)) {
        let span = Span(hand.rng.between(soonest.0, latest.0));
        hand.out.push(Action::Later(span, ServerEvent::Start(place)));
    }

    /// The server dies, and all of its processes with it. The connections that break.
    pub fn crash(&mut self, hand: &mut Hand<'_>) -> Vec<ConnId> {
        let node = self.ground.n;
        for process in &mut self.processes {
            if let Some(Role::Client(client)) = process.role()
                && let Some((txn, is_open)) = client.under_way()
            {
                hand.out.push(Action::Fact(if is_open {
                    Fact::Unknown { node, txn, why: Doubt::ServerGone }
                } else {
                    Fact::Failed { node, txn, why: "server is gone" }
                }));
            }
            *process = Process::vacant(process.place);
        }
        self.ground.store.crash(hand.rng);
        self.is_up = false;
        self.ground.ends.close_all()
    }

    pub fn handle(&mut self, hand: &mut Hand<'_>, event: ServerEvent) {
        match event {
            ServerEvent::Go(place, planned) => {
                let process = &mut self.processes[place.0 as usize];
                let kind = process.role().map(Role::kind);
                if process.go(planned, &mut self.ground, hand) {
                    self.ended(hand, place, kind);
                }
            }
            ServerEvent::Signal(place, number, signal) => self.signal(hand, place, number, signal),
            ServerEvent::Start(place) => self.begin(hand, place),
            ServerEvent::Flush => {
                self.ground.store.flush();
                flush_later(hand);
            }
        }
        self.settle(hand);
    }

    /// Something has come on a connection.
    pub fn receive(&mut self, hand: &mut Hand<'_>, conn: ConnId, down: Down) {
        if let Down::Closed = down {
            self.disturbed_at = hand.now;
        }
        // Backends look at theirs when they need it; only those that ask have something to read.
        let is_frame = matches!(down, Down::Frame(..));
        let manager = self.ground.manager();
        let is_heard = |owner: &ProcNo| is_frame || *owner >= manager;
        if let Some(owner) = self.ground.ends.receive(conn, down).filter(is_heard) {
            self.processes[owner.0 as usize].wake(hand);
        }
    }

    fn begin(&mut self, hand: &mut Hand<'_>, place: ProcNo) {
        if self.processes[place.0 as usize].role().is_some() {
            return;
        }
        self.ground.numbers[place.0 as usize] += 1;
        self.ground.stopped_until[place.0 as usize] = Time(0);
        let (clients, manager) = (self.ground.settings.clients, self.ground.manager());
        let mut ctx = Ctx { me: place, ground: &mut self.ground, hand };
        let role = if place == manager {
            ManagerProcess::new(&ctx).map(|manager| Role::Manager(Box::new(manager)))
        } else if place > manager {
            Forerunner::new(&mut ctx).map(|forerunner| Role::Forerunner(Box::new(forerunner)))
        } else if place.0 >= clients {
            Remote::new(&ctx, (place.0 - clients) as usize).map(|remote| Role::Remote(Box::new(remote)))
        } else {
            Some(Role::Client(Box::new(Client::new(&mut ctx))))
        };
        if let Some(role) = role {
            self.processes[place.0 as usize].begin(hand, role);
        }
    }

    /// A process has ended: who is to begin in its place.
    fn ended(&mut self, hand: &mut Hand<'_>, place: ProcNo, kind: Option<Kind>) {
        // A forerunner that has gone keeps nothing from moving.
        if kind != Some(Kind::Forerunner) {
            self.disturbed_at = hand.now;
        }
        match kind {
            Some(Kind::Client) => self.start_soon(hand, place, NEW_SESSION_AFTER),
            Some(Kind::Manager) => self.start_soon(hand, place, NEW_MANAGER_AFTER),
            Some(Kind::Remote | Kind::Forerunner) | None => {}
        }
    }

    fn signal(&mut self, hand: &mut Hand<'_>, place: ProcNo, number: u64, signal: Signal) {
        if self.ground.numbers[place.0 as usize] != number {
            return;
        }
        let stopped_until = self.ground.stopped_until[place.0 as usize];
        if hand.now < stopped_until {
            let event = ServerEvent::Signal(place, number, signal);
            return hand.out.push(Action::Later(stopped_span(hand.now, stopped_until), event));
        }
        self.processes[place.0 as usize].hear(signal, &mut self.ground, hand);
    }

    /// Sends a signal to whoever is in that place.
    pub fn send_signal(&mut self, hand: &mut Hand<'_>, place: ProcNo, signal: Signal) {
        let number = self.ground.numbers[place.0 as usize];
        self.signal(hand, place, number, signal);
        self.settle(hand);
    }

    /// A process does not run until then.
    pub fn stop(&mut self, place: ProcNo, until: Time) {
        let stopped_until = &mut self.ground.stopped_until[place.0 as usize];
        *stopped_until = until.max(*stopped_until);
    }

    pub fn continue_all(&mut self, now: Time) {
        self.ground.stopped_until.iter_mut().for_each(|until| *until = (*until).min(now));
    }

    /// Wakes whom somebody has woken, and says how far the gate is.
    fn settle(&mut self, hand: &mut Hand<'_>) {
        for note in self.ground.memory.server.waker.take() {
            match note {
                Note::Wake(process) => self.processes[process.0 as usize].wake(hand),
                Note::Ahead(positions) if positions <= LAG_TARGET => self.wake_those(hand, Awaits::Lag),
                Note::Ahead(_) => {}
                Note::Writable => self.wake_those(hand, Awaits::Writable),
            }
        }
        let position = self.committed();
        if position != self.committed {
            self.committed = position;
            hand.out.push(Action::Fact(Fact::Committed { node: self.ground.n, position }));
        }
    }

    fn wake_those(&mut self, hand: &mut Hand<'_>, awaited: Awaits) {
        for process in &mut self.processes {
            if let Some(Role::Client(client)) = process.role()
                && client.awaits() == awaited
            {
                process.wake(hand);
            }
        }
    }

    /// Everything at a glance, for whoever reads the trace of a failure.
    pub fn describe(&self) -> String {
        let (memory, gate) = (&self.ground.memory, &self.ground.memory.database.gate);
        let mut text = format!(
            "committed {}, known {}, queued {}, orphans {}, next local {:?}, fetching {}, xids {:?}",
            gate.committed(),
            gate.known(),
            gate.queued(),
            gate.orphans(),
            gate.next_local(),
            gate.is_fetching(),
            self.ground.xids,
        );
        for (place, slot) in memory.server.slots.iter().enumerate() {
            let (state, position, remote) = (slot.state(), slot.position(), slot.remote());
            let doing = self.processes[place].role().map(|role| role.describe());
            text += &format!("\n  process {place}: slot {state:?} {position}, remote {remote:?}, {doing:?}");
        }
        for (index, worker) in memory.database.workers.iter().enumerate() {
            text += &format!("\n  worker {index}: {:?} {}", worker.doing.load(), worker.position());
        }
        text
    }

    /// How far the gate is, and for how long nothing has kept it from moving but the protocol.
    pub fn gate(&mut self, now: Time) -> Fact {
        let is_stopped = self.ground.stopped_until.iter().any(|until| *until > now);
        let is_attached = self.processes.iter().any(|process| match process.role() {
            Some(Role::Manager(manager)) => manager.link() == Link::Up,
            _ => false,
        });
        let are_all_there = (0..WORKERS).all(|index| {
            let place = self.ground.worker(index);
            self.processes[place.0 as usize].role().is_some()
        });
        let is_writable = self.ground.memory.database.replica.is_writable();
        if !self.is_up || is_stopped || !is_attached || !are_all_there || !is_writable {
            self.disturbed_at = now;
        }
        let (node, committed, known) = (self.ground.n, self.committed(), self.known());
        Fact::Gate { node, committed, known, undisturbed: now.since(self.disturbed_at) }
    }
}

fn new_memory(settings: &Settings, incarnation: Incarnation, committed: Position) -> Memory {
    let (places, workers) = (Ground::places(settings), WORKERS);
    let sizes = Sizes { places, workers, window: settings.window, ring_bytes: settings.ring_bytes };
    Memory::new(incarnation, sizes, committed)
}

/// Commit records become durable now and then, not with each commit.
fn flush_later(hand: &mut Hand<'_>) {
    let span = Span(hand.rng.between(ms(50).0, ms(600).0));
    hand.out.push(Action::Later(span, ServerEvent::Flush));
}
