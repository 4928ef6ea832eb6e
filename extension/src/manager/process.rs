//! The replication manager: one a replicated database. It owns the link to gcs.
//!
//! One loop over its latch, its sockets and the postmaster's death: read what gcs says, have `postgres_r_protocol::manager` act on it, send what
//! that asks for, keep remote backends running. What it must not do is wait for anything else: a backend that waits for
//! its verdict waits for this process.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::link::{Failure, FailureKind, PROTOCOL, Reply, Request, Role, ServerPlace};
use postgres_r_protocol::dispatch::{Me, Trouble};
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::manager::{self as protocol, Manager, Next};
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::{Phase, Turnaway};
use postgres_r_protocol::slot::Slot;

use super::connection::{Connection, READ_BYTES_A_ROUND, RECONNECT_MAX, RECONNECT_MIN};
use super::forerunners::Forerunners;
use super::{entry, overwriting};
use crate::error;
use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::{self, DatabaseArea, Node, wake};
use crate::node::{making, request};
use crate::pg::latch::WaitSet;
use crate::pg::worker::{self, Kind};
use crate::pg::{clock, interrupt, log, place, process, query, xact};
use crate::session;
use crate::spool::Files;

/// Between attempts to start a remote backend.
const START_WORKER_AGAIN: Duration = Duration::from_secs(1);

/// How long a server that starts looks for its group before it shows what it has.
const OPEN_WITHOUT_GROUP_AFTER: Duration = Duration::from_secs(2);

/// For how long a database that is out of service waits for gcs to answer, so that it can say so.
const FAREWELL_MAX: Duration = Duration::from_secs(2);

/// While a copy is being made, how often gcs is asked for it.
const ASK_FOR_COPY_EVERY: Duration = Duration::from_secs(5);

/// How often sessions are looked at while the node is drained: nobody says when a session has become idle.
const SEND_AWAY_EVERY: Duration = Duration::from_millis(100);

/// The sockets of the wait set.
const STREAM: usize = 0;
pub(super) const FETCHER: usize = 1;

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let Some(area) = node.databases.get(number as usize) else { return };
    let Some((slot, place)) = node.my_slot() else { return };
    if area.phase() == Phase::Off || !area.replica.manager.claim(place) {
        return;
    }
    session::become_housekeeping();
    process::on_exit(move || leave(node, area));
    worker::connect(area.oid());
    let mut manager = ManagerProcess::new(node, area, slot);
    if area.phase() == Phase::Starting {
        match manager.start() {
            Ok(remark) => manager.asker = entry::answer(node, area, Ok(remark)),
            Err(error) => {
                area.set_phase(Phase::Off);
                entry::answer(node, area, Err(error));
                return;
            }
        }
    } else if !manager.knows_whether_it_overwrites() {
        // The launcher starts another one.
        return;
    } else {
        manager.leave_if_dropped();
    }
    manager.run();
}

/// This manager ends, in whatever state.
fn leave(node: &Node, area: &DatabaseArea) {
    area.replica.unlinked(clock::now());
    // Not the gate of a database that another one has taken the place of, nor one that is not there yet.
    if matches!(area.phase(), Phase::Active | Phase::Stopping | Phase::Failed) {
        protocol::resolve(area.at());
    }
    area.replica.manager.set(None);
    wake(&node.registry.launcher);
}

pub(super) struct ManagerProcess {
    pub(super) node: &'static Node,
    pub(super) area: &'static DatabaseArea,
    slot: &'static Slot,
    pub(super) protocol: Manager<Files>,
    stream: Connection,
    pub(super) fetcher: Connection,
    pub(super) wait: WaitSet,
    pub(super) detached: bool,
    /// What gcs said when it would not have this database.
    pub(super) refusal: Option<Failure>,
    /// What was last logged about the link, so that it is said once.
    complaint: Option<String>,
    workers_started: Vec<Option<Instant>>,
    rehearser_started: Option<Instant>,
    forerunners: Forerunners,
    /// When what can't be applied is tried again.
    try_again_at: Option<Instant>,
    leaser_started: Option<Instant>,
    place: ServerPlace,
    /// While the node is drained: when sessions are looked at next, and how many there were, as gcs was told.
    send_away_at: Option<Instant>,
    sessions_told: Option<u32>,
    /// Why the database was last out of service, as logged.
    last_reason: Option<String>,
    /// Out of service, and those whom it concerns know.
    stands_by: bool,
    /// Out of service, and until then gcs is waited for, so that it can be told.
    farewell_until: Option<Instant>,
    /// The session whose START has just been answered: it may be one of this very database, and is to hear the answer before it goes.
    asker: Option<ProcNo>,
}

/// Where gcs finds this server.
fn place() -> ServerPlace {
    ServerPlace {
        socket_directory: place::socket_directory().unwrap_or_default(),
        port: place::port(),
        user: xact::transaction(place::superuser).unwrap_or_default(),
        programs: place::programs(),
        may_rebuild: guc::auto_rebuild(),
    }
}

impl ManagerProcess {
    fn new(node: &'static Node, area: &'static DatabaseArea, slot: &'static Slot) -> ManagerProcess {
        ManagerProcess {
            node,
            area,
            slot,
            protocol: Manager::new(area.at(), Files { database: area.oid() }),
            stream: Connection::new(),
            fetcher: Connection::new(),
            wait: WaitSet::default(),
            detached: false,
            refusal: None,
            complaint: None,
            workers_started: vec![None; area.workers.len()],
            rehearser_started: None,
            forerunners: Forerunners::default(),
            try_again_at: None,
            leaser_started: None,
            place: place(),
            send_away_at: None,
            sessions_told: None,
            last_reason: None,
            stands_by: false,
            farewell_until: None,
            asker: None,
        }
    }

    /// Begins anew, with a gate that goes on after this position.
    pub(super) fn reset(&mut self, committed: Position) {
        self.area.reset(committed);
        self.protocol = Manager::new(self.area.at(), Files { database: self.area.oid() });
    }

    /// A database that has come to no position may be one that is to be overwritten: shared memory has forgotten it where the server has been
    /// restarted. False if that cannot be found out now.
    fn knows_whether_it_overwrites(&self) -> bool {
        if self.area.gate.known() > Position::ZERO {
            return true;
        }
        match xact::transaction(overwriting::is_set) {
            Ok(is_set) => self.area.replica.overwrites.store(is_set, Ordering::SeqCst),
            Err(failed) => {
                let name = self.area.replica.name.get();
                log::warn(
                    format!("could not find out whether database \"{name}\" is to be overwritten"),
                    Some(failed.message),
                    None,
                );
                return false;
            }
        }
        true
    }

    /// A database that is to be dropped may have left the group already. It waits for the maker.
    fn leave_if_dropped(&mut self) {
        let is_dropped = xact::transaction(|| {
            let sql = "SELECT pg_catalog.shobj_description(oid, 'pg_database') FROM pg_catalog.pg_database
                       WHERE datname = pg_catalog.current_database()";
            query::text(sql).as_deref() == Some(making::DROPPING)
        });
        if is_dropped.unwrap_or(false) {
            self.area.replica.leaving.store(true, Ordering::SeqCst);
            let reason = "It is dropped in the group.".to_owned();
            self.node.table.exclusive(|| self.area.replica.reason.set(&reason));
            self.last_reason = Some(reason);
            if self.area.phase() == Phase::Active {
                self.area.set_phase(Phase::Failed);
            }
        }
    }

    fn run(&mut self) {
        loop {
            interrupt::forget_cancel();
            interrupt::check();
            interrupt::reload_config();
            self.heed_settings();
            if self.area.replica.is_lent() {
                self.drop_link();
                return;
            }
            match self.area.phase() {
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

    /// A setting that gcs has to know may be another since the configuration was read anew.
    fn heed_settings(&mut self) {
        let may_rebuild = guc::auto_rebuild();
        if std::mem::replace(&mut self.place.may_rebuild, may_rebuild) == may_rebuild {
            return;
        }
        if self.link() == protocol::Link::Up {
            let place = Request::Server(self.place.clone());
            if let Err(error) = self.send(&place) {
                self.link_lost(&error.to_string());
            }
        } else if may_rebuild && self.area.phase() == Phase::Failed {
            // What it was only allowed to now is tried at once.
            self.try_again();
        }
    }

    fn round(&mut self) {
        self.connect_if_due();
        if let Err(error) = self.serve_stream() {
            self.link_failed(&error, "");
        }
        if let Err(error) = self.fetch() {
            self.link_failed(&error, "could not fetch writesets: ");
        }
        if protocol::has_recovered(self.area.at()) {
            let name = self.area.replica.name.get();
            log::log(format!("database \"{name}\" is in service again on this node"), None, None);
        }
        if protocol::opens_to_clients(self.area.at()) {
            self.area.conditions.serving_changed();
            // It may have a maker to start.
            wake(&self.node.registry.launcher);
        }
        self.open_without_group();
        if let Some(process) = self.protocol.who_never_comes(self.area.at(), clock::moment()) {
            process::terminate(process);
        }
        if let Err(error) = self.send_away() {
            self.link_lost(&error.to_string());
        }
        let worker_missing = self.keep_leaser() | self.keep_workers();
        self.sleep(self.timeout(worker_missing));
    }

    /// While the node is drained, sessions that are idle are to go, and gcs is to know how many are left.
    fn send_away(&mut self) -> Result<(), LinkError> {
        let is_drained = self.area.replica.turnaway.load() != Turnaway::No && self.link() == protocol::Link::Up;
        if !is_drained {
            (self.send_away_at, self.sessions_told) = (None, None);
            return Ok(());
        }
        let now = Instant::now();
        if self.send_away_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        self.send_away_at = Some(now + SEND_AWAY_EVERY);
        let count = process::summon_idle_sessions(self.area.oid());
        if self.sessions_told != Some(count)
            && let Some(link) = &mut self.stream.link
        {
            link.send(&Request::Sessions { count })?;
            self.sessions_told = Some(count);
        }
        Ok(())
    }

    /// A server that was shut down in order has everything that it had ever shown. It shows it again, for reading, where the group cannot be found:
    /// what the group would say of how far it must come is what it had said itself.
    fn open_without_group(&self) {
        let replica = self.area.replica;
        if self.may_open_without_group()
            && clock::since(replica.unwritable_since.load(Ordering::SeqCst)) >= OPEN_WITHOUT_GROUP_AFTER
        {
            let (name, position) = (replica.name.get(), self.area.gate.committed());
            log::log(
                format!("database \"{name}\" is open for reading at position {position}, without its group"),
                None,
                None,
            );
            replica.serving.store(true, Ordering::SeqCst);
            self.area.conditions.serving_changed();
        }
    }

    /// Not one that has nothing of the group's, or is to get another node's: what it has it never showed.
    fn may_open_without_group(&self) -> bool {
        let replica = self.area.replica;
        let is_whole = self.area.gate.committed() > Position::ZERO && !replica.copying.load(Ordering::SeqCst);
        is_whole
            && !replica.serving.load(Ordering::SeqCst)
            && !replica.has_attached()
            && self.node.registry.has_all.load(Ordering::SeqCst)
    }

    /// Sleeps until something happens, or the time is over.
    pub(super) fn sleep(&mut self, timeout: Option<Duration>) {
        let wanted = [self.stream.interest(), self.fetcher.interest()];
        let happened = self.wait.wait(wanted, timeout);
        self.stream.unread |= happened[STREAM].readable;
        self.fetcher.unread |= happened[FETCHER].readable;
    }

    fn timeout(&self, worker_missing: bool) -> Option<Duration> {
        if (self.stream.unread && !self.stream.stalled) || self.fetcher.unread {
            return Some(Duration::ZERO);
        }
        let until = |at: Instant| at.saturating_duration_since(Instant::now());
        let reconnect = self.stream.link.is_none().then(|| until(self.stream.retry_at));
        let is_fetcher_due = self.fetcher.link.is_none() && self.protocol.wants_fetcher(self.area.at());
        let fetch = is_fetcher_due.then_some(Duration::ZERO);
        let report = self.protocol.report_in(self.area.at());
        let workers = worker_missing.then_some(START_WORKER_AGAIN);
        let open = self.may_open_without_group().then_some(OPEN_WITHOUT_GROUP_AFTER / 4);
        let send_away = self.send_away_at.map(until);
        [reconnect, fetch, report, workers, open, send_away].into_iter().flatten().min()
    }

    pub(super) fn link(&self) -> protocol::Link {
        self.protocol.link()
    }

    pub(super) fn connect_if_due(&mut self) {
        if self.stream.link.is_none()
            && Instant::now() >= self.stream.retry_at
            && let Err(error) = self.connect()
        {
            self.link_lost(&error.to_string());
        }
    }

    pub(super) fn connect(&mut self) -> Result<(), LinkError> {
        let mut link = Link::connect(&guc::gcs_socket())?;
        // In one piece: a daemon that refuses the greeting hangs up, and what is sent then fails before its reason has been read.
        link.put(&self.greeting(Role::Manager))?;
        link.send(&Request::Server(self.place.clone()))?;
        link.watch_by(&mut self.wait, STREAM);
        self.stream.opened(link);
        self.protocol.connected();
        Ok(())
    }

    /// A new connection, on which the greeting is on its way.
    pub(super) fn greet(&self, role: Role) -> Result<Link, LinkError> {
        let mut link = Link::connect(&guc::gcs_socket())?;
        link.send(&self.greeting(role))?;
        Ok(link)
    }

    fn greeting(&self, role: Role) -> Request {
        Request::Hello {
            protocol: PROTOCOL,
            role,
            database: self.area.replica.name.get(),
            group: Some(self.area.replica.group.get()),
            incarnation: self.area.at().server.incarnation,
        }
    }

    /// The link is down, by itself or because it is to be.
    pub(super) fn drop_link(&mut self) {
        let was_up = self.link() == protocol::Link::Up;
        self.wait.watch(STREAM, None);
        self.stream.lost(was_up);
        self.close_fetcher();
        let me = self.me();
        self.protocol.lost(self.area.at(), me);
    }

    /// The link is given up after an error.
    fn link_failed(&mut self, error: &LinkError, doing: &str) {
        self.link_lost(&format!("{doing}{error}"));
        if matches!(error, LinkError::Trouble(Trouble::Spool(_))) {
            // For want of room, most likely: what comes again at once finds no more of it.
            self.stream.retry_at = Instant::now() + RECONNECT_MAX;
        }
    }

    pub(super) fn link_lost(&mut self, why: &str) {
        self.drop_link();
        self.node.table.exclusive(|| self.area.replica.link_trouble.set(why));
        if self.complaint.as_deref() != Some(why) {
            let name = self.area.replica.name.get();
            log::log(
                format!("database \"{name}\" has no link to gcs: {why}"),
                Some(format!("The socket is \"{}\".", guc::gcs_socket())),
                None,
            );
            self.complaint = Some(why.to_string());
        }
    }

    pub(super) fn me(&self) -> Me<'static> {
        Me { pid: process::my_pid(), progress: &self.slot.progress, at: clock::now() }
    }

    /// Reads what there is room for, and says what is to be said.
    pub(super) fn serve_stream(&mut self) -> Result<(), LinkError> {
        let Some(link) = &mut self.stream.link else { return Ok(()) };
        link.flush()?;
        let mut budget = READ_BYTES_A_ROUND;
        self.area.gate.want_room(false);
        self.take_frames()?;
        while self.stream.unread && !self.stream.stalled && budget > 0 {
            let Some(link) = &mut self.stream.link else { return Ok(()) };
            let read = link.read()?;
            self.area.replica.counters.bytes_received.add(read as u64);
            budget = budget.saturating_sub(read);
            self.stream.unread = read > 0;
            self.take_frames()?;
        }
        if self.stream.stalled {
            // Told before looking again, so that room made in between is not missed.
            self.area.gate.want_room(true);
            self.take_frames()?;
        }
        let report = self.protocol.report(self.area.at(), clock::moment(), xact::flushed_lsn);
        match (report, &mut self.stream.link) {
            (Some(report), Some(link)) => link.send(&report),
            _ => Ok(()),
        }
    }

    fn take_frames(&mut self) -> Result<(), LinkError> {
        self.stream.stalled = false;
        let (me, members) = (self.me(), &self.node.table);
        let before = self.link();
        let mut requests = Vec::new();
        while let Some(link) = &mut self.stream.link {
            let Some(frame) = link.front()? else { break };
            let parts = (&frame.reply, frame.payload);
            let is_of_members = matches!(frame.reply, Reply::Group(_));
            match self.protocol.take(self.area.at(), me, members, parts, &mut requests)? {
                Next::Go => {}
                Next::Keep => {
                    self.stream.stalled = true;
                    break;
                }
                Next::Forerunner => self.forerunners.start(self.node, self.area),
                Next::Detached => self.detached = true,
                Next::Failed(failure) => return Err(self.failed(failure)),
            }
            let length = frame.length;
            link.consume(length);
            if is_of_members {
                // It looks whether those are there who carry subscriptions.
                wake(self.area.leases.leaser);
            }
            for request in requests.drain(..) {
                link.send(&request)?;
            }
        }
        if before != protocol::Link::Up && self.link() == protocol::Link::Up {
            self.stream.pause = RECONNECT_MIN;
            if self.complaint.take().is_some() {
                log::log(format!("database \"{}\" has a link to gcs again", self.area.replica.name.get()), None, None);
            }
        }
        Ok(())
    }

    /// gcs would not have it.
    fn failed(&mut self, failure: Failure) -> LinkError {
        if failure.kind == FailureKind::Copying {
            self.area.replica.copying.store(true, Ordering::SeqCst);
        }
        if protocol::is_final(failure.kind) {
            let reason = format!("The group's gcs says: {}.", failure.message);
            self.node.table.exclusive(|| {
                self.area.replica.reason.set(&reason);
                // A STOP that has come meanwhile goes on: it attaches anew, in order to leave.
                if self.area.phase() != Phase::Stopping {
                    self.area.set_phase(Phase::Failed);
                }
            });
        }
        let error = LinkError::Failed(failure.message.clone());
        self.refusal = Some(failure);
        error
    }

    pub(super) fn send(&mut self, request: &Request) -> Result<(), LinkError> {
        match &mut self.stream.link {
            Some(link) => link.send(request),
            None => Err(Trouble::Protocol("there is no link".into()).into()),
        }
    }

    /// Starts remote backends that are missing. True if one is.
    pub(super) fn keep_workers(&mut self) -> bool {
        let mut missing = false;
        let wanted = self.node.apply_workers().min(self.area.workers.len());
        for index in 0..wanted {
            if self.area.workers[index].process.get().is_some() {
                continue;
            }
            missing = true;
            if self.workers_started[index].is_some_and(|at| at.elapsed() < START_WORKER_AGAIN) {
                continue;
            }
            self.workers_started[index] = Some(Instant::now());
            let name = format!("postgres_r remote backend {index} of {}", self.area.replica.name.get());
            if !worker::start(Kind::Remote, &name, worker::remote_number(self.area.index, index)) {
                self.complain("could not start a remote backend; raise max_worker_processes and restart the server");
            }
        }
        for worker in &self.area.workers[wanted..] {
            wake(&worker.process);
        }
        self.keep_rehearser() | missing
    }

    /// Starts a missing rehearser, once clients are served. True if one is missing.
    fn keep_rehearser(&mut self) -> bool {
        let replica = self.area.replica;
        if replica.rehearser.get().is_some() || !replica.serving.load(Ordering::SeqCst) {
            return false;
        }
        // A scout, which somebody waits for, takes the last room there may be.
        let scout_wanted = self.node.requests.iter().any(request::Request::is_asked);
        if scout_wanted {
            return true;
        }
        if self.rehearser_started.is_none_or(|at| at.elapsed() >= START_WORKER_AGAIN) {
            self.rehearser_started = Some(Instant::now());
            let name = format!("postgres_r rehearser of {}", replica.name.get());
            if !worker::start(Kind::Rehearser, &name, self.area.index as u64) {
                self.complain("could not start the rehearser; raise max_worker_processes and restart the server");
            }
        }
        true
    }

    /// Starts the leaser if it is missing. True if it is.
    fn keep_leaser(&mut self) -> bool {
        if self.area.leases.leaser.get().is_some() {
            return false;
        }
        if self.leaser_started.is_none_or(|at| at.elapsed() >= START_WORKER_AGAIN) {
            self.leaser_started = Some(Instant::now());
            let name = format!("postgres_r leaser of {}", self.area.replica.name.get());
            if !worker::start(Kind::Leaser, &name, self.area.index as u64) {
                self.complain("could not start the leaser of sequences; raise max_worker_processes and restart the server");
            }
        }
        true
    }

    pub(super) fn wake_workers(&self) {
        self.area.wake_helpers();
    }

    fn complain(&mut self, what: &str) {
        if self.complaint.as_deref() != Some(what) {
            log::warn(what, None, None);
            self.complaint = Some(what.to_string());
        }
    }

    /// Out of service: nothing is read, nothing served, until STOP REPLICATION. What could not be applied is tried again after a pause. A gcs that has
    /// started anew has to be told again that a copy is needed.
    fn stand_by(&mut self) {
        let replica = self.area.replica;
        if !self.stands_by {
            replica.serving.store(false, Ordering::SeqCst);
            if self.awaits_attachment() {
                return;
            }
            self.stands_by = true;
            let reason = self.node.table.shared(|| replica.reason.get());
            if let (Some(farewell), Some(link)) = (self.protocol.farewell(self.area.at()), &mut self.stream.link) {
                // What does not get out now, gcs hears when the link is up again.
                let _ = link.send(&farewell);
            }
            self.drop_link();
            if replica.failure.attempts() <= 1 && self.last_reason.as_ref() != Some(&reason) {
                log::warn(
                    format!("database \"{}\" is out of service on this node", replica.name.get()),
                    Some(reason.clone()),
                    error::out_of_service(&reason).hint,
                );
            }
            self.last_reason = Some(reason);
            process::terminate_sessions(self.area.oid(), self.asker.take());
            self.wake_workers();
            self.area.conditions.serving_changed();
        }
        let awaits_copy = replica.copying.load(Ordering::SeqCst) || replica.failure.needs_copy().is_some();
        let pause = match (awaits_copy, replica.failure.is_set()) {
            (true, _) => ASK_FOR_COPY_EVERY,
            (false, true) => replica.failure.pause(),
            (false, false) => return self.sleep(None),
        };
        let now = Instant::now();
        let at = *self.try_again_at.get_or_insert_with(|| now + pause);
        if now < at {
            return self.sleep(Some(at - now));
        }
        self.try_again();
    }

    /// A position that is tried again may fail before gcs has answered the manager, and gcs would never hear of it: the answer is waited for, for a
    /// moment. False when there is nothing to wait for.
    fn awaits_attachment(&mut self) -> bool {
        let is_awaited = |link| matches!(link, protocol::Link::Greeting | protocol::Link::Attaching);
        if !is_awaited(self.link()) {
            return false;
        }
        let now = Instant::now();
        let until = *self.farewell_until.get_or_insert(now + FAREWELL_MAX);
        if now >= until {
            return false;
        }
        match self.serve_stream() {
            Err(error) => self.link_failed(&error, ""),
            Ok(()) if !is_awaited(self.link()) || self.stream.unread && !self.stream.stalled => {}
            Ok(()) => self.sleep(Some(until - now)),
        }
        true
    }

    fn try_again(&mut self) {
        (self.try_again_at, self.stands_by, self.farewell_until) = (None, false, None);
        self.area.set_phase(Phase::Active);
        // Before anybody can fail again.
        self.connect_if_due();
        self.wake_workers();
    }
}
