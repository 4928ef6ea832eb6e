//! This process's session with the group's lock table: a connection to gcs of its own (the link's role `Locker`), on which it asks for locks, waits, and
//! gives them back.
//!
//! The connection is the session: when it ends, so that also when this process does, however, all that it holds is free. And the other way round: when it
//! breaks under this process, others may hold what the process believes to hold ([`Locker::is_lost`]).
//!
//! A wait ends when the lock is granted, with an interrupt, at `lock_timeout`, or because the session would wait for itself. Who waits here has no place
//! in PostgreSQL's own lock queues, so its search for deadlocks does not find a circle that goes through the group. Every `deadlock_timeout` the session
//! therefore tells the group which other sessions of this server wait, in those queues, for it: the group looks for the circle
//! (`gcs_core::locks`). Again and again, since whoever begins to wait for it later does not tell.

use std::time::{Duration, Instant};

use gcs_writeset::bounds::LOCKS_AT_ONCE_MAX;
use gcs_writeset::link::{PROTOCOL, RefusalReason, Reply, Request, Role};
use gcs_writeset::{Lock, LockAnswer, LockOp, LockSession, Position};
use postgres_r_protocol::slot::Slot;

use super::read_only;
use crate::guc;
use crate::link::{Link, LinkError};
use crate::node::{self, DatabaseArea};
use crate::pg::latch::GroupLock;
use crate::pg::{advisory, blockers, interrupt, process};

/// A wait looks around so often, whatever wakes it.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How the wait for a lock, or for the word that it is given back, ended.
#[derive(Debug)]
pub enum Ended {
    /// What was ordered before lies at or below.
    Granted(Position),
    /// The one at this place of those that were asked for.
    Found(usize),
    Given,
    NotAvailable,
    /// The group is out of reach.
    NoGroup,
    Deadlock,
    Full,
    Refused(RefusalReason),
    /// Interrupts are to be served.
    Interrupted,
    /// Not granted within `lock_timeout`.
    LockTimeout,
    /// Nothing was heard in time.
    NoAnswer,
    /// The connection broke; nothing is held any more.
    Broken(LinkError),
}

#[derive(Default)]
pub struct Locker {
    link: Option<Link>,
    /// Number of the last request.
    asked: u64,
    session: Option<LockSession>,
    /// The group has just granted the session its first lock.
    is_new: bool,
}

impl Locker {
    /// By which the group knows this session, once it has granted it a lock.
    pub fn session(&self) -> Option<LockSession> {
        self.session
    }

    /// True once for each session.
    pub fn take_is_new(&mut self) -> bool {
        std::mem::take(&mut self.is_new)
    }

    /// Whether the connection is gone on which locks were granted.
    pub fn is_lost(&mut self) -> bool {
        self.link = self.link.take().and_then(|link| alive(link).ok());
        self.link.is_none()
    }

    pub fn forget(&mut self) {
        *self = Locker::default();
        if let Some(slot) = node::my_slot() {
            slot.set_lock_session(None);
            slot.set_lock_life(None);
        }
    }

    /// Asks for a lock, and waits for it if it `waits`.
    pub fn take(&mut self, area: &DatabaseArea, lock: Lock, waits: bool) -> Ended {
        self.take_by(area, of(lock), LockOp::Take { lock, waits, seen: area.gate.committed() }, waits)
    }

    /// Asks for the first of these that is free, and under which nothing was done behind a position that this node has committed.
    pub fn take_first(&mut self, area: &DatabaseArea, locks: Vec<Lock>, seen: Position) -> Ended {
        self.take_by(area, GroupLock::Row, LockOp::First { locks, seen }, false)
    }

    fn take_by(&mut self, area: &DatabaseArea, of: GroupLock, op: LockOp, waits: bool) -> Ended {
        let number = match self.ask(area, op) {
            Ok(number) => number,
            Err(trouble) => return self.broken(trouble),
        };
        let (lock_timeout, deadlock_timeout) = advisory::timeouts();
        let ended = self.wait(Waiting {
            number,
            limit: if waits { Duration::from_millis(lock_timeout) } else { guc::commit_timeout() },
            look_every: waits.then(|| Duration::from_millis(deadlock_timeout)),
            of,
            area,
        });
        match ended {
            Ended::Interrupted | Ended::NoAnswer | Ended::NoGroup => {
                self.withdraw(number);
                // Only a wait for a lock has no other end.
                if waits && matches!(ended, Ended::NoAnswer) { Ended::LockTimeout } else { ended }
            }
            ended => ended,
        }
    }

    /// Gives locks back, and waits until nobody can find them held.
    pub fn give(&mut self, area: &DatabaseArea, locks: Vec<Lock>) -> Ended {
        let of = locks.first().map_or(GroupLock::Advisory, |lock| of(*lock));
        match self.ask(area, LockOp::Give { locks }) {
            Ok(number) => self.wait(Waiting { number, limit: guc::commit_timeout(), look_every: None, of, area }),
            Err(trouble) => self.broken(trouble),
        }
    }

    /// Gives locks back, some time soon. Raises nothing.
    pub fn give_later(&mut self, locks: Vec<Lock>) {
        self.say(LockOp::Give { locks });
    }

    /// Whatever the request for a lock of this number comes to is undone.
    fn withdraw(&mut self, take: u64) {
        self.say(LockOp::Withdraw { take });
    }

    /// Says something that needs no answer, if there is anybody to say it to. What the socket does not take now goes with what comes next.
    fn say(&mut self, op: LockOp) {
        self.asked += 1;
        let number = self.asked;
        self.link = self.link.take().and_then(|mut link| link.send(&Request::Lock { number, op }).is_ok().then_some(link));
    }

    fn ask(&mut self, area: &DatabaseArea, op: LockOp) -> Result<u64, LinkError> {
        if self.link.is_none() {
            // A session that held anything is not replaced: its process must hear that it is lost.
            if self.session.is_some() {
                return Err(LinkError::Closed);
            }
            self.link = Some(connect(area)?);
        }
        self.asked += 1;
        let number = self.asked;
        let link = self.link.as_mut().ok_or(LinkError::Closed)?;
        link.send(&Request::Lock { number, op })?;
        Ok(number)
    }

    fn broken(&mut self, trouble: LinkError) -> Ended {
        self.link = None;
        Ended::Broken(trouble)
    }

    fn wait(&mut self, waiting: Waiting<'_>) -> Ended {
        // Taken out, so that it is gone after whatever ends this early.
        let Some(mut link) = self.link.take() else { return self.broken(LinkError::Closed) };
        match self.hear(&mut link, waiting) {
            Ok(ended) => {
                self.link = Some(link);
                ended
            }
            Err(trouble) => self.broken(trouble),
        }
    }

    fn hear(&mut self, link: &mut Link, waiting: Waiting<'_>) -> Result<Ended, LinkError> {
        let started = Instant::now();
        let mut looks_at = waiting.look_every.map(|every| started + every);
        let mut blocks = Vec::new();
        loop {
            link.flush()?;
            if let Some(ended) = self.answer(link, waiting.number)? {
                return Ok(ended);
            }
            if interrupt::pending() {
                return Ok(Ended::Interrupted);
            }
            let left = if waiting.limit.is_zero() { LOOK_EVERY } else { waiting.limit.saturating_sub(started.elapsed()) };
            // Rows and tables can do without: nobody waits for a group that is not there, or a daemon that does not say so.
            if !matches!(waiting.of, GroupLock::Advisory)
                && waiting.look_every.is_some()
                && read_only::is_without_group(waiting.area)
            {
                return Ok(Ended::NoGroup);
            }
            if left.is_zero() {
                return Ok(Ended::NoAnswer);
            }
            let now = Instant::now();
            if let (Some(at), Some(every)) = (looks_at.filter(|at| *at <= now), waiting.look_every) {
                looks_at = Some(at.max(now) + every);
                let found = waiting_for_me(waiting.area);
                if found != blocks {
                    blocks.clone_from(&found);
                    self.asked += 1;
                    link.put(&Request::Lock { number: self.asked, op: LockOp::Blocks { sessions: found } })?;
                    continue;
                }
            }
            let look = looks_at.map_or(LOOK_EVERY, |at| at.saturating_duration_since(now));
            if link.read()? == 0 {
                link.wait_for_lock(left.min(look).min(LOOK_EVERY), waiting.of);
                interrupt::serve_barrier();
            }
        }
    }

    /// The answer to the request of this number, if it is there. Others are of requests that nobody waits for any more.
    fn answer(&mut self, link: &mut Link, number: u64) -> Result<Option<Ended>, LinkError> {
        let mut ended = None;
        while let Some(frame) = link.front()? {
            match &frame.reply {
                Reply::Failed(failure) => return Err(LinkError::Failed(failure.message.clone())),
                Reply::Lock { number: of, session, answer } if *of == number => {
                    if let LockAnswer::Granted { .. } | LockAnswer::Found { .. } = answer
                        && self.session.replace(*session) != Some(*session)
                    {
                        note_session(*session);
                        self.is_new = true;
                    }
                    ended = Some(outcome(*answer));
                }
                Reply::LockRefused { number: of, reason } if *of == number => ended = Some(Ended::Refused(*reason)),
                _ => {}
            }
            let length = frame.length;
            link.consume(length);
        }
        Ok(ended)
    }
}

pub fn of(lock: Lock) -> GroupLock {
    match lock.key.certified() {
        Some(_) if lock.key.row().is_some() => GroupLock::Row,
        Some(_) => GroupLock::Table,
        None => GroupLock::Advisory,
    }
}

fn outcome(answer: LockAnswer) -> Ended {
    match answer {
        LockAnswer::Granted { position } => Ended::Granted(position),
        LockAnswer::NotAvailable => Ended::NotAvailable,
        LockAnswer::Deadlock => Ended::Deadlock,
        LockAnswer::Full => Ended::Full,
        LockAnswer::Given => Ended::Given,
        LockAnswer::Found { at } => Ended::Found(at as usize),
    }
}

/// One wait for an answer.
struct Waiting<'a> {
    number: u64,
    /// None if zero.
    limit: Duration,
    /// How often to look for those who wait for this process.
    look_every: Option<Duration>,
    of: GroupLock,
    area: &'a DatabaseArea,
}

fn connect(area: &DatabaseArea) -> Result<Link, LinkError> {
    let mut link = Link::connect(&guc::gcs_socket())?;
    link.send(&Request::Hello {
        protocol: PROTOCOL,
        role: Role::Locker,
        database: area.replica.name.get(),
        group: Some(area.replica.group.get()),
        incarnation: area.at().server.incarnation,
    })?;
    Ok(link)
}

/// The link, if its other end has neither hung up nor said that the session is lost.
fn alive(mut link: Link) -> Result<Link, LinkError> {
    link.flush()?;
    while link.read()? > 0 {}
    while let Some(frame) = link.front()? {
        if let Reply::Failed(failure) = &frame.reply {
            return Err(LinkError::Failed(failure.message.clone()));
        }
        let length = frame.length;
        link.consume(length);
    }
    Ok(link)
}

/// Other processes can tell the group that this session waits for them.
fn note_session(session: LockSession) {
    let Some(slot) = node::my_slot() else { return };
    if slot.lock_session().is_none() {
        process::on_exit(|| {
            if let Some(slot) = node::my_slot() {
                slot.set_lock_session(None);
                slot.set_lock_life(None);
            }
        });
    }
    slot.set_lock_session(Some(session.number));
}

/// Sessions with locks of the group, of other processes of this server, that wait for this process: in PostgreSQL's own queues, perhaps behind others.
fn waiting_for_me(area: &DatabaseArea) -> Vec<u64> {
    let others =
        area.at().server.slots.iter().enumerate().filter_map(|(place, slot)| Some((place, Slot::lock_session(slot)?)));
    let candidates = others.filter_map(|(place, session)| Some((process::pid_at(place)?, session)));
    let waiting = candidates.filter(|(pid, _)| blockers::waits_for_me(*pid)).map(|(_, session)| session);
    waiting.take(LOCKS_AT_ONCE_MAX).collect()
}
