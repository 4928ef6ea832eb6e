//! The replication manager: one a replicated database. It owns the link to gcs.
//!
//! One loop over its latch, its socket and the postmaster's death: read what gcs says, give verdicts to backends and
//! writesets to remote backends, report progress. What it must not do is wait for anything else: a backend that waits for
//! its verdict waits for this process.
//!
//! The stream is resumed after the last position that is completely known here; nothing is lost when the link is, and
//! nothing is taken twice. Flow control is by not reading: when the gate's window or the apply queue is full, frames stay in
//! the socket, and whoever moves the gate wakes the manager.

pub mod assembly;
pub mod dispatch;
pub mod launcher;
pub mod link;
pub mod progress;
pub mod request;
pub mod scout;
pub mod start;
pub mod statement;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::{Failure, PROTOCOL, Request, Role};

use crate::apply;
use crate::commit;
use crate::error;
use crate::guc;
use crate::pg::latch::{Interest, SOCKETS, WaitSet};
use crate::pg::worker::{self, Kind};
use crate::pg::{interrupt, log, process};
use crate::session;
use crate::shmem::{self, DatabaseArea, Phase, Shared};

use dispatch::{Dispatch, Outcome};
use link::{Link, LinkError};
use progress::Progress;

/// Between attempts to reach gcs.
const RECONNECT_MIN: Duration = Duration::from_millis(50);
const RECONNECT_MAX: Duration = Duration::from_secs(1);

/// Between attempts to start a remote backend.
const START_WORKER_AGAIN: Duration = Duration::from_secs(1);

/// How long a backend whose turn it is may be busy with something else.
const OVERDUE: Duration = Duration::from_millis(500);

/// What is read before other duties get their turn.
const READ_BYTES_A_ROUND: usize = 4 << 20;

pub fn main(number: u64) {
    let Some(shared) = shmem::get() else { return };
    let Some(area) = shared.databases.get(number as usize) else { return };
    let Some(place) = process::me() else { return };
    if area.state.phase() == Phase::Off || !area.state.manager.claim(place) {
        return;
    }
    session::become_housekeeping();
    process::on_exit(move || leave(shared, place));
    worker::connect(area.state.oid());
    worker::set_setting("default_transaction_read_only", "off");
    let mut manager = Manager::new(shared, area);
    if area.state.phase() == Phase::Starting {
        match manager.start() {
            Ok(()) => launcher::answer(shared, area, Ok(())),
            Err(error) => {
                area.state.set_phase(Phase::Off);
                launcher::answer(shared, area, Err(error));
                return;
            }
        }
    }
    manager.run();
}

fn leave(shared: &Shared, place: process::ProcNo) {
    for area in &shared.databases {
        if area.state.manager.get() == Some(place) {
            area.state.set_writable(false, false);
            area.state.manager.set(None);
        }
    }
    shared.server.launcher.wake();
}

enum Connection {
    Down {
        retry_at: Instant,
    },
    /// Greeted; the welcome has yet to come.
    Greeting(Link),
    /// The attach has yet to be ordered. Streaming may have begun.
    Attaching(Link),
    Up(Link),
}

struct Manager {
    shared: &'static Shared,
    area: &'static DatabaseArea,
    connection: Connection,
    pause: Duration,
    wait: WaitSet,
    dispatch: Dispatch,
    progress: Progress,
    /// There was no room for the frame at the front of the input.
    stalled: bool,
    /// There may be more to read at once.
    unread: bool,
    detached: bool,
    /// What gcs said when it would not have us.
    refusal: Option<Failure>,
    /// What was last logged about the link, so that it is said once.
    complaint: Option<String>,
    workers_started: Vec<Option<Instant>>,
    /// The next position, since when it is a backend's that does not come to commit it.
    overdue: Option<(Position, Instant)>,
}

impl Manager {
    fn new(shared: &'static Shared, area: &'static DatabaseArea) -> Manager {
        Manager {
            shared,
            area,
            connection: Connection::Down { retry_at: Instant::now() },
            pause: RECONNECT_MIN,
            wait: WaitSet::default(),
            dispatch: Dispatch::new(shared, area),
            progress: Progress::new(area),
            stalled: false,
            unread: false,
            detached: false,
            refusal: None,
            complaint: None,
            workers_started: vec![None; area.workers.len()],
            overdue: None,
        }
    }

    fn run(&mut self) {
        loop {
            interrupt::forget_cancel();
            interrupt::check();
            interrupt::reload_config();
            match self.area.state.phase() {
                Phase::Active => self.round(),
                Phase::Stopping => {
                    self.stop();
                    return;
                }
                Phase::Failed => self.stand_by(),
                Phase::Off | Phase::Starting => return,
            }
        }
    }

    fn round(&mut self) {
        self.connect_if_due();
        if let Err(error) = self.serve_link() {
            self.link_lost(&error.to_string());
        }
        self.open_to_clients();
        self.end_who_never_comes();
        let worker_missing = self.keep_workers();
        let timeout = self.timeout(worker_missing);
        let (read, write) = match &self.connection {
            Connection::Down { .. } => (false, false),
            Connection::Greeting(link) | Connection::Attaching(link) | Connection::Up(link) => {
                (!self.stalled, link.wants_to_write())
            }
        };
        let wanted = Interest { readable: read, writable: write };
        let [happened, _] = self.wait.wait([wanted, Interest::NOTHING], timeout);
        self.unread |= happened.readable;
    }

    fn timeout(&self, worker_missing: bool) -> Option<Duration> {
        if self.unread && !self.stalled {
            return Some(Duration::ZERO);
        }
        let reconnect = match &self.connection {
            Connection::Down { retry_at } => Some(retry_at.saturating_duration_since(Instant::now())),
            Connection::Up(_) => self.progress.next(self.area),
            _ => None,
        };
        let workers = worker_missing.then_some(START_WORKER_AGAIN);
        [reconnect, workers].into_iter().flatten().min()
    }

    fn connect_if_due(&mut self) {
        let Connection::Down { retry_at } = self.connection else { return };
        if Instant::now() < retry_at {
            return;
        }
        if let Err(error) = self.connect() {
            self.link_lost(&error.to_string());
        }
    }

    fn connect(&mut self) -> Result<(), LinkError> {
        let mut link = Link::connect(&guc::gcs_socket())?;
        link.watch_by(&mut self.wait);
        link.send(&Request::Hello {
            protocol: PROTOCOL,
            role: Role::Manager,
            database: self.area.state.name.get(),
            group: Some(self.area.state.group.get()),
            incarnation: self.shared.incarnation(),
        })?;
        self.connection = Connection::Greeting(link);
        self.stalled = false;
        self.unread = true;
        Ok(())
    }

    fn link(&mut self) -> Option<&mut Link> {
        match &mut self.connection {
            Connection::Down { .. } => None,
            Connection::Greeting(link) | Connection::Attaching(link) | Connection::Up(link) => Some(link),
        }
    }

    /// The link is down, by itself or because we want it to be.
    fn drop_link(&mut self) {
        let was_up = matches!(self.connection, Connection::Up(_));
        self.area.state.set_writable(false, false);
        self.wait.watch(0, None);
        self.dispatch.link_lost();
        self.stalled = false;
        self.unread = false;
        self.pause = if was_up { RECONNECT_MIN } else { (self.pause * 2).min(RECONNECT_MAX) };
        self.connection = Connection::Down { retry_at: Instant::now() + self.pause };
    }

    fn link_lost(&mut self, why: &str) {
        self.drop_link();
        if self.complaint.as_deref() != Some(why) {
            let name = self.area.state.name.get();
            log::log(
                format!("database \"{name}\" has no link to gcs: {why}"),
                Some(format!("The socket is \"{}\".", guc::gcs_socket())),
                None,
            );
            self.complaint = Some(why.to_string());
        }
    }

    fn serve_link(&mut self) -> Result<(), LinkError> {
        let Some(link) = self.link() else { return Ok(()) };
        link.flush()?;
        let mut budget = READ_BYTES_A_ROUND;
        self.area.gate.want_room(false);
        self.take_frames()?;
        while self.unread && !self.stalled && budget > 0 {
            let Some(link) = self.link() else { return Ok(()) };
            let read = link.read()?;
            self.area.state.counters.bytes_received.add(read as u64);
            budget = budget.saturating_sub(read);
            self.unread = read > 0;
            self.take_frames()?;
        }
        if self.stalled {
            // Told before looking again, so that room made in between is not missed.
            self.area.gate.want_room(true);
            self.take_frames()?;
        }
        self.send_fetches(false)?;
        self.send_progress()
    }

    fn take_frames(&mut self) -> Result<(), LinkError> {
        self.stalled = false;
        loop {
            let link = match &mut self.connection {
                Connection::Down { .. } => return Ok(()),
                Connection::Greeting(link) | Connection::Attaching(link) | Connection::Up(link) => link,
            };
            let Some(frame) = link.front()? else { return Ok(()) };
            let outcome = self.dispatch.handle(&frame)?;
            if let Outcome::Stalled = outcome {
                self.stalled = true;
                return Ok(());
            }
            let length = frame.length;
            link.consume(length);
            self.follow(outcome)?;
        }
    }

    fn follow(&mut self, outcome: Outcome) -> Result<(), LinkError> {
        match outcome {
            Outcome::Done | Outcome::Stalled => Ok(()),
            Outcome::Welcome => self.attach(),
            Outcome::Attached => self.attached(),
            Outcome::Detached => {
                self.detached = true;
                Ok(())
            }
            Outcome::Failed(failure) => self.failed(&failure),
        }
    }

    fn attach(&mut self) -> Result<(), LinkError> {
        let previous = std::mem::replace(&mut self.connection, Connection::Down { retry_at: Instant::now() });
        let Connection::Greeting(mut link) = previous else {
            return Err(LinkError::Protocol("a welcome out of place".into()));
        };
        link.send(&Request::Attach { resume_after: self.area.gate.known() })?;
        self.connection = Connection::Attaching(link);
        Ok(())
    }

    fn attached(&mut self) -> Result<(), LinkError> {
        let previous = std::mem::replace(&mut self.connection, Connection::Down { retry_at: Instant::now() });
        match previous {
            Connection::Attaching(link) | Connection::Up(link) => self.connection = Connection::Up(link),
            _ => return Err(LinkError::Protocol("an attach out of place".into())),
        }
        let state = self.area.state;
        state.counters.attaches.one();
        state.attaches.fetch_add(1, Ordering::SeqCst);
        state.set_writable(true, state.quorum.load(Ordering::SeqCst));
        self.pause = RECONNECT_MIN;
        self.progress.forget();
        self.dispatch.wake_waiting();
        if self.complaint.take().is_some() {
            log::log(format!("database \"{}\" has a link to gcs again", state.name.get()), None, None);
        }
        self.send_fetches(true)
    }

    fn failed(&mut self, failure: &Failure) -> Result<(), LinkError> {
        if dispatch::is_final(failure.kind) {
            let reason = format!("The group's gcs says: {}.", failure.message);
            self.shared.table.exclusive(|| self.area.state.reason.set(&reason));
            self.area.state.set_phase(Phase::Failed);
        }
        self.refusal = Some(failure.clone());
        Err(LinkError::Protocol(failure.message.clone()))
    }

    /// Asks for writesets whose backends could not finish.
    fn send_fetches(&mut self, again: bool) -> Result<(), LinkError> {
        let Connection::Up(link) = &mut self.connection else { return Ok(()) };
        for position in self.area.gate.take_orphans(again) {
            self.dispatch.fetch_sent(position);
            link.send(&Request::Fetch { position })?;
        }
        Ok(())
    }

    fn send_progress(&mut self) -> Result<(), LinkError> {
        let Connection::Up(link) = &mut self.connection else { return Ok(()) };
        match self.progress.report(self.shared, self.area) {
            Some(report) => link.send(&report),
            None => Ok(()),
        }
    }

    fn open_to_clients(&self) {
        let state = self.area.state;
        if !state.serving.load(Ordering::SeqCst) && self.area.caught_up() {
            state.serving.store(true, Ordering::SeqCst);
            state.serving_changed.broadcast();
        }
    }

    /// Starts remote backends that are missing. True if one is.
    fn keep_workers(&mut self) -> bool {
        let mut missing = false;
        let wanted = guc::apply_workers().min(self.area.workers.len());
        for index in 0..wanted {
            if self.area.workers[index].place.get().is_some() {
                continue;
            }
            missing = true;
            if self.workers_started[index].is_some_and(|at| at.elapsed() < START_WORKER_AGAIN) {
                continue;
            }
            self.workers_started[index] = Some(Instant::now());
            let name = format!("postgres_r remote backend {index} of {}", self.area.state.name.get());
            if !worker::start(Kind::Remote, &name, apply::worker::number(self.area.index, index)) {
                self.complain("could not start a remote backend; raise max_worker_processes and restart the server");
            }
        }
        for worker in &self.area.workers[wanted..] {
            worker.place.wake();
        }
        missing
    }

    /// A statement by itself is decided before its rows are sent, and a client that does not read them would keep everybody
    /// behind it waiting. Its session is ended, the position applied from the log.
    fn end_who_never_comes(&mut self) {
        let found = self
            .area
            .gate
            .next_local()
            .filter(|(position, process)| self.shared.slot_of(*process).is_some_and(|slot| slot.is_overdue(*position)));
        let Some((position, process)) = found else {
            self.overdue = None;
            return;
        };
        let since = match self.overdue {
            Some((known, since)) if known == position => since,
            _ => Instant::now(),
        };
        self.overdue = Some((position, since));
        if since.elapsed() >= OVERDUE {
            self.area.state.counters.sessions_ended.one();
            process::terminate(process);
            self.overdue = None;
        }
    }

    fn complain(&mut self, what: &str) {
        if self.complaint.as_deref() != Some(what) {
            log::warn(what, None, None);
            self.complaint = Some(what.to_string());
        }
    }

    /// Out of service: nothing is read, nothing served, until STOP REPLICATION.
    fn stand_by(&mut self) {
        let state = self.area.state;
        if state.serving.swap(false, Ordering::SeqCst) || !matches!(self.connection, Connection::Down { .. }) {
            let reason = self.shared.table.shared(|| state.reason.get());
            self.drop_link();
            log::warn(
                format!("database \"{}\" is out of service on this node", state.name.get()),
                Some(reason.clone()),
                error::out_of_service(&reason).hint,
            );
            process::terminate_sessions(state.oid());
            for worker in self.area.workers {
                worker.place.wake();
            }
            state.serving_changed.broadcast();
        }
        self.wait.wait([Interest::NOTHING; SOCKETS], None);
    }
}

/// Whether a client may come in; waits a bounded time while the node catches up. Called before the session has a database.
pub fn admit(database: &str) {
    let Some(shared) = shmem::get() else { return };
    if process::in_recovery() {
        return;
    }
    let adopted = || shared.server.adopted.load(Ordering::SeqCst);
    if !adopted() && !shared.server.adopted_changed.wait_until(ADMIT_TIMEOUT, adopted) {
        error::starting_up().raise_fatal();
    }
    let concerns = |area: &&DatabaseArea| area.state.phase() != Phase::Off && area.state.name.is(database);
    let Some(area) = shared.databases.iter().find(concerns) else { return };
    let open = || match area.state.phase() {
        Phase::Active => area.state.serving.load(Ordering::SeqCst),
        Phase::Failed => true,
        Phase::Off | Phase::Starting | Phase::Stopping => true,
    };
    if !area.state.serving_changed.wait_until(ADMIT_TIMEOUT, open) {
        error::catching_up().raise_fatal();
    }
    if let (Phase::Failed, Some(error)) = (area.state.phase(), commit::phase_error(area)) {
        error.raise_fatal();
    }
}

/// How long a client waits to be let in.
const ADMIT_TIMEOUT: Duration = Duration::from_secs(5);
