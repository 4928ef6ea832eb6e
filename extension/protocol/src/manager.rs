//! The replication manager's side of its link to gcs: what it says, in which order, and what it does besides reading.
//!
//! | state of the link | what happens | next |
//! |---|---|---|
//! | `Down` | the socket is connected, the greeting sent | `Greeting` |
//! | `Greeting` | `Welcome` comes: the manager attaches after the last position that is known here | `Attaching` |
//! | `Attaching` | positions come, then `Attached` | `Up` |
//! | `Up` | positions come; the manager reports, asks for orphans, opens the node to clients | `Up` |
//! | any | the connection is lost, or gcs says `Failed` | `Down` |
//!
//! While there are orphans, there is a second connection ([`crate::fetcher`]). It shares the fate of the first: when either is lost, both are.
//!
//! The stream is resumed after the last position that is completely known here; nothing is lost when the link is, and nothing is taken twice.
//! Flow control is by not reading: when the gate's window or the apply queue is full, the frame is *stalled*: it stays where it is, and
//! whoever moves the gate wakes the manager.
//!
//! The process around it (extension: `manager/`) owns the sockets and the clock.

use std::time::Duration;

use gcs_writeset::Position;
use gcs_writeset::link::{Failure, FailureKind, Reply, Request};

use crate::assembly::Spool;
use crate::bounds::OVERDUE;
use crate::dispatch::{self, Dispatch, Me, Taken, Trouble};
use crate::fetcher::Fetcher;
use crate::id::{Lsn, Moment, ProcNo};
use crate::platform::{Platform, Wake};
use crate::replica::{At, Phase};
use crate::report::Report;
use crate::slot::Resolved;
use crate::sync::Ordering;
use crate::{conflicts, ending, forerunner, pool, turn};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Down,
    /// Greeted; the welcome has yet to come.
    Greeting,
    /// The attach has yet to be ordered. Streaming may have begun.
    Attaching,
    Up,
}

/// What the process around must do about a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Go,
    /// Keep the frame, and give it again when there is room.
    Keep,
    /// Start a forerunner, unless there are as many as there may be.
    Forerunner,
    /// The database is no longer in the group's order.
    Detached,
    /// gcs would not have it; the connection is over. If trying again cannot mend it, the database is out of service.
    Failed(Failure),
}

pub struct Manager<S: Spool> {
    link: Link,
    dispatch: Dispatch<S>,
    fetcher: Fetcher<S>,
    report: Report,
    /// The next position, since when it is a backend's that does not come to commit it.
    overdue: Option<(Position, Moment)>,
}

impl<S: Spool> Manager<S> {
    /// A manager starts. What its predecessor left half decided is brought to an end.
    pub fn new<P: Platform>(at: At<'_, P>, spool: S) -> Manager<S> {
        resolve(at);
        // Its predecessor may have been told of them, and this one is not told again.
        forerunner::all_over(at);
        Manager {
            link: Link::Down,
            dispatch: Dispatch::new(spool),
            fetcher: Fetcher::new(at),
            report: Report::new(at),
            overdue: None,
        }
    }

    pub fn link(&self) -> Link {
        self.link
    }

    /// The socket is connected and the greeting is on its way.
    pub fn connected(&mut self) {
        self.link = Link::Greeting;
    }

    /// The link is down, by itself or because it is to be.
    pub fn lost<P: Platform>(&mut self, at: At<'_, P>, me: Me<'_>) {
        at.database.replica.unlinked(me.at);
        self.dispatch.link_lost(me.progress);
        forerunner::all_over(at);
        self.fetcher.lost(at);
        self.link = Link::Down;
    }

    /// A frame from gcs. Requests to be sent are added to `out`. `members` guards the list of members.
    pub fn take<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        members: &P::Lock,
        (reply, payload): (&Reply, &[u8]),
        out: &mut Vec<Request>,
    ) -> Result<Next, Trouble> {
        match self.dispatch.take(at, me, members, reply, payload)? {
            Taken::Done => {}
            Taken::Stalled => return Ok(Next::Keep),
            Taken::Welcome if self.link == Link::Greeting => {
                let replica = &at.database.replica;
                let founds = replica.founds.load(Ordering::SeqCst);
                // What it lacks is not to be brought to it any more.
                let overwrite = replica.overwrites.load(Ordering::SeqCst);
                let is_behind = overwrite || replica.copying.load(Ordering::SeqCst) || replica.failure.is_set();
                let is_stopping = replica.phase.load() == Phase::Stopping;
                let leaves = (is_behind || replica.leaving.load(Ordering::SeqCst)) && is_stopping;
                out.push(Request::Attach { resume_after: at.database.gate.known(), founds, leaves, overwrite });
                self.link = Link::Attaching;
            }
            Taken::Welcome => return Err(Trouble::Protocol("a welcome out of place".into())),
            Taken::Attached if matches!(self.link, Link::Attaching | Link::Up) => {
                self.attached(at, me);
                let failure = &at.database.replica.failure;
                out.extend(failure.needs_copy().map(|position| Request::Rebuild { position }));
            }
            Taken::Attached => return Err(Trouble::Protocol("an attach out of place".into())),
            Taken::Quorum(quorum) => writable(at, me, at.database.replica.is_attached(), quorum),
            Taken::Conflicts => {
                out.push(Request::Conflicts { counts: conflicts::told(at.database.conflicts.counted()) });
            }
            Taken::ForerunnerWanted => return Ok(Next::Forerunner),
            Taken::Detached => return Ok(Next::Detached),
            Taken::Failed(failure) => return Ok(Next::Failed(failure)),
        }
        Ok(Next::Go)
    }

    fn attached<P: Platform>(&mut self, at: At<'_, P>, me: Me<'_>) {
        self.link = Link::Up;
        let replica = &at.database.replica;
        replica.counters.attaches.one();
        replica.attaches.fetch_add(1, Ordering::SeqCst);
        writable(at, me, true, replica.quorum.load(Ordering::SeqCst));
        self.report.forget();
        dispatch::wake_waiting(at);
    }

    /// What to tell gcs now, though it did not ask.
    pub fn report<P: Platform>(&mut self, at: At<'_, P>, now: Moment, flushed: impl Fn() -> Lsn) -> Option<Request> {
        if self.link == Link::Up { self.report.request(at, now, flushed) } else { None }
    }

    /// What to tell gcs before the link is given up, since the database is out of service.
    pub fn farewell<P: Platform>(&self, at: At<'_, P>) -> Option<Request> {
        (self.link == Link::Up).then(|| self.report.out_of_service(at))
    }

    /// When to look again for something to report.
    pub fn report_in<P: Platform>(&self, at: At<'_, P>) -> Option<Duration> {
        if self.link == Link::Up { self.report.next(at) } else { None }
    }

    /// Whether the second connection is needed, on which orphans' writesets come.
    pub fn wants_fetcher<P: Platform>(&self, at: At<'_, P>) -> bool {
        self.link == Link::Up && self.fetcher.is_wanted(at)
    }

    /// The second connection was closed, since it is not needed any more. One that is lost, refused or can't be opened is another matter: then
    /// the link is to be given up too ([`Manager::lost`]). Both end at the same gcs, and a link that is not being read, for want of room, does
    /// not show that gcs has started anew and has not heard of this database yet.
    pub fn fetcher_closed<P: Platform>(&mut self, at: At<'_, P>) {
        self.fetcher.lost(at);
    }

    /// A frame on the second connection.
    pub fn take_fetched<P: Platform>(
        &mut self,
        at: At<'_, P>,
        me: Me<'_>,
        (reply, payload): (&Reply, &[u8]),
    ) -> Result<Next, Trouble> {
        match reply {
            Reply::Welcome { .. } => self.fetcher.welcome(),
            Reply::Body { position, more } => {
                self.fetcher.body(at, me, &self.dispatch.spool, (*position, *more), payload)?;
            }
            Reply::Failed(failure) => return Ok(Next::Failed(failure.clone())),
            _ => return Err(Trouble::Protocol("a frame on the wrong connection".into())),
        }
        Ok(Next::Go)
    }

    /// What is to be asked for on the second connection now.
    pub fn fetches<P: Platform>(&mut self, at: At<'_, P>) -> Vec<Request> {
        self.fetcher.requests(at).into_iter().map(|position| Request::Fetch { position }).collect()
    }

    /// A statement by itself is decided before its rows are sent, and a client that does not read them would keep every process
    /// behind it waiting. Its session is to be ended; the position is applied from the log.
    pub fn who_never_comes<P: Platform>(&mut self, at: At<'_, P>, now: Moment) -> Option<ProcNo> {
        let is_overdue = |position, process| at.server.slot_of(process).is_some_and(|slot| slot.is_overdue(position));
        let found = at.database.gate.next_local().filter(|&(position, process)| is_overdue(position, process));
        let Some((position, process)) = found else {
            self.overdue = None;
            return None;
        };
        let since = self.overdue.filter(|(known, _)| *known == position).map_or(now, |(_, since)| since);
        self.overdue = Some((position, since));
        let is_over = now.since(since) >= OVERDUE;
        if is_over {
            at.database.replica.counters.sessions_ended.one();
            self.overdue = None;
        }
        is_over.then_some(process)
    }
}

fn writable<P: Platform>(at: At<'_, P>, me: Me<'_>, attached: bool, quorum: bool) {
    if at.database.replica.set_writable(attached, quorum, me.at) {
        at.server.waker.writable(at.database.index);
    }
}

/// The position that could not be applied is committed. True if that is news.
pub fn has_recovered<P: Platform>(at: At<'_, P>) -> bool {
    let failure = &at.database.replica.failure;
    let has_recovered = failure.is_set() && at.database.gate.committed() >= failure.position();
    if has_recovered {
        failure.forget();
    }
    has_recovered
}

/// Clients are let in once everything is committed here that this node may have shown before. True if that is news.
pub fn opens_to_clients<P: Platform>(at: At<'_, P>) -> bool {
    let replica = &at.database.replica;
    !replica.serving.load(Ordering::SeqCst) && at.database.is_caught_up() && !replica.serving.swap(true, Ordering::SeqCst)
}

/// A manager of this database has ended, perhaps in the middle of a verdict: every slot that it was writing to is brought into a state in
/// which its backend can go on. Called by the manager that ends, and by the one that starts.
pub fn resolve<P: Platform>(at: At<'_, P>) {
    for (index, slot) in at.server.slots.iter().enumerate().filter(|(_, slot)| slot.is_in(at.database.index)) {
        let process = ProcNo(index as u32);
        match slot.resolve(|position| at.database.gate.is_local_of(position, process)) {
            Resolved::Nothing => {}
            Resolved::Waits => at.server.wake(process),
            Resolved::Left(settled) => {
                if let Some(position) = settled {
                    ending::hand_over(at, position);
                }
                ending::free(at, process);
            }
        }
    }
    // Whoever sleeps may have been about to be woken.
    at.database.workers.iter().for_each(|worker| at.server.wake_holder(&worker.process));
    turn::announce(at, at.database.gate.moved_last());
    pool::see_to_queue(at);
}

/// Failures that trying again does not mend.
pub fn is_final(kind: FailureKind) -> bool {
    use FailureKind::{AheadOfGroup, Copying, Differs, HasContents, LogTruncated, NoContents, QueryOnly, Removed};
    matches!(kind, LogTruncated | AheadOfGroup | HasContents | NoContents | Copying | Differs | QueryOnly | Removed)
}
