//! The feed of a database's manager: the stream of positions, and everything else that a manager is told.
//!
//! After its attach has been ordered a manager gets every position after `resume_after`, in order and once. Either it is *live*:
//! the driver puts each newly ordered position straight into its queue. Or it *catches up*: positions are read
//! from disk, a piece at a time, each time the queue has drained. It becomes live when what it has read is all that was ever
//! handed on, which nothing can change in between: all of this runs on one thread. It falls back to catching up when its queue is
//! full, and for a writeset in chunks, which are not at hand.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use gcs_core::{Input, Local, Ordered};
use gcs_writeset::link::{self, Failure, FailureKind, GroupStatus, RefusalReason, Reply};
use gcs_writeset::{DatabaseId, Incarnation, Position};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::backlog::{Backlog, Origin};
use super::error::SessionError;
use super::piece::BacklogError;
use super::this_node::ThisNode;
use crate::bounds::ATTACH_RETRY;
use crate::copy::Displaced;
use crate::outbox::Outbox;

pub struct Feed {
    pub database: String,
    pub incarnation: Incarnation,
    node: Rc<ThisNode>,
    outbox: Rc<Outbox>,
    /// Whom its stream is for.
    origin: Origin,
    database_id: Cell<Option<DatabaseId>>,
    phase: Cell<Phase>,
    /// Where the database stood when it attached, and where the group did.
    resume_after: Cell<Position>,
    serve_from: Cell<Position>,
    /// What it attaches for is to be detached: the log need not reach back to where it stands.
    leaves: Cell<bool>,
    /// What it attaches for is a copy that takes its place, whatever the log reaches back to.
    overwrites: Cell<bool>,
    detach: Cell<Detach>,
    /// Between the database and other nodes'.
    difference: RefCell<String>,
    /// There is something for [`Feed::run`] to do.
    work: Notify,
    ended: Notify,
}

/// How far a stream that flows has come.
#[derive(Clone, Copy, Debug)]
pub struct Reached {
    /// The last position that is on its way, or there.
    pub received: Position,
    pub resumed_after: Position,
    /// Clients are let in from here on.
    pub serve_from: Position,
}

/// What a manager asks for when it attaches, as [`link::Request::Attach`] has it.
#[derive(Clone, Copy, Debug)]
pub struct Wish {
    pub resume_after: Position,
    pub founds: bool,
    pub leaves: bool,
    pub overwrite: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeted,
    /// A database without anything of the group's is compared with other nodes' before the group hears of it.
    Comparing {
        founds: bool,
    },
    /// Waits for its attach to be ordered; `refused` if it must be asked for again.
    Attaching {
        resume_after: Position,
        founds: bool,
        refused: bool,
    },
    /// Attached in order to be detached.
    Leaving,
    /// Attached in order to be overwritten, and to be detached since the group has nothing to overwrite it with.
    GivingUp,
    /// Attached; the manager is told when it is known that the log reaches back to where the database stands. Else its database is not in service.
    Opening {
        next: Position,
        serve_from: Position,
    },
    CatchingUp {
        next: Position,
    },
    Live {
        next: Position,
    },
    Failed(FailureKind),
    Ended,
}

/// Whether the database is leaving. Its stream goes on until that has been ordered: backends wait for their verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detach {
    No,
    Asked,
    Refused,
}

impl Feed {
    pub fn new(node: Rc<ThisNode>, database: String, incarnation: Incarnation, outbox: Rc<Outbox>) -> Feed {
        let withheld = node.rehearsals.forerunners.withheld.clone();
        Feed {
            database,
            incarnation,
            origin: Origin { node: node.id(), incarnation, withheld },
            node,
            outbox,
            database_id: Cell::new(None),
            phase: Cell::new(Phase::Greeted),
            resume_after: Cell::new(Position::ZERO),
            serve_from: Cell::new(Position::ZERO),
            leaves: Cell::new(false),
            overwrites: Cell::new(false),
            detach: Cell::new(Detach::No),
            difference: RefCell::default(),
            work: Notify::new(),
            ended: Notify::new(),
        }
    }

    /// Known once the attach has been ordered.
    pub fn database_id(&self) -> Option<DatabaseId> {
        self.database_id.get()
    }

    pub fn was_attached(&self) -> bool {
        self.database_id().is_some()
    }

    /// The group has taken the database, and has not let it go.
    pub fn is_in_group(&self) -> bool {
        self.was_attached() && !matches!(self.phase.get(), Phase::Ended | Phase::Failed(FailureKind::NoContents))
    }

    /// None if nothing flows, or not yet.
    pub fn reached(&self) -> Option<Reached> {
        let (Phase::CatchingUp { next } | Phase::Live { next }) = self.phase.get() else { return None };
        let (resumed_after, serve_from) = (self.resume_after.get(), self.serve_from.get());
        Some(Reached { received: next.previous(), resumed_after, serve_from })
    }

    /// Bytes that wait for the manager's socket.
    pub fn queue_bytes(&self) -> usize {
        self.outbox.waiting()
    }

    /// False if it has attached before.
    pub fn attach(&self, Wish { resume_after, founds, leaves, overwrite }: Wish) -> bool {
        let first = self.phase.get() == Phase::Greeted;
        if first && founds && !self.node.roster.kind().takes_writes() {
            self.fail_later(FailureKind::QueryOnly);
            return true;
        }
        if first {
            self.resume_after.set(resume_after);
            self.leaves.set(leaves);
            self.overwrites.set(overwrite && !leaves);
            if resume_after == Position::ZERO && !leaves {
                self.phase.set(Phase::Comparing { founds });
                self.work.notify_one();
            } else {
                self.ask_to_attach(founds);
            }
        }
        first
    }

    fn ask_to_attach(&self, founds: bool) {
        let (database, incarnation) = (self.database.clone(), self.incarnation);
        self.phase.set(Phase::Attaching { resume_after: self.resume_after.get(), founds, refused: false });
        self.node.inbox.push(Input::Local(Local::Attach { database, incarnation, founds }));
    }

    /// The attach has been ordered.
    pub fn attached(&self, database: DatabaseId, serve_from: Position) {
        let Phase::Attaching { resume_after, .. } = self.phase.get() else { return };
        // One that leaves may have left before, and with it all others: this is another life of the name then.
        if resume_after > serve_from && !self.leaves.get() {
            return self.fail_later(FailureKind::AheadOfGroup);
        }
        tracing::info!(database = %self.database, %resume_after, %serve_from, "a database has attached");
        self.database_id.set(Some(database));
        self.serve_from.set(serve_from);
        if self.overwrites.get() {
            return self.overwrite(database, serve_from);
        }
        let next = resume_after.next();
        if !self.leaves.get() && resume_after != self.node.databases.head(database) {
            self.phase.set(Phase::Opening { next, serve_from });
            return self.work.notify_one();
        }
        self.send(&Reply::Attached { database, serve_from }, &[]);
        self.phase.set(if self.leaves.get() { Phase::Leaving } else { Phase::Live { next } });
        self.work.notify_one();
    }

    /// The group's contents take the place of the database's, if there are any. If there are none, nobody has brought any, or written anything: the
    /// database is not to be replaced by nothing, and the group lets it go again.
    fn overwrite(&self, database: DatabaseId, head: Position) {
        if head > Position::ZERO {
            return self.fail_later(self.copy(database, Displaced::Overwritten));
        }
        self.phase.set(Phase::GivingUp);
        self.detach.set(Detach::Asked);
        self.node.inbox.push(Input::Local(Local::Detach { database }));
    }

    pub fn attach_refused(&self, reason: RefusalReason) {
        match (self.phase.get(), self.detach.get()) {
            (Phase::Attaching { .. }, _) if reason == RefusalReason::HasContents => {
                return self.fail_later(FailureKind::HasContents);
            }
            (Phase::Attaching { resume_after, founds, .. }, _) => {
                self.phase.set(Phase::Attaching { resume_after, founds, refused: true });
            }
            (_, Detach::Asked) => self.detach.set(Detach::Refused),
            _ => return,
        }
        tracing::debug!(database = %self.database, ?reason, "attach or detach refused, trying again");
        self.work.notify_one();
    }

    /// The database, if it is attached.
    pub fn detach(&self) -> Option<DatabaseId> {
        let database = self.database_id()?;
        self.detach.set(Detach::Asked);
        Some(database)
    }

    pub fn detached(&self) {
        tracing::info!(database = %self.database, "a database has detached");
        if self.phase.get() == Phase::GivingUp {
            return self.fail_later(FailureKind::NoContents);
        }
        self.send(&Reply::Detached, &[]);
        self.phase.set(Phase::Ended);
    }

    /// The next position of the database, straight from the step that ordered it.
    pub fn ordered(&self, ordered: &Ordered) {
        let Phase::Live { next } = self.phase.get() else { return };
        let outcome = &ordered.outcome;
        if outcome.position < next {
            return;
        }
        let carries = self.origin.carries(outcome, ordered.tag);
        if outcome.position > next || self.outbox.is_full() || (carries && !outcome.chunks.is_empty()) {
            self.phase.set(Phase::CatchingUp { next });
            return self.work.notify_one();
        }
        let (position, tag, verdict) = (outcome.position, ordered.tag, outcome.verdict);
        let payload = if carries { &ordered.writeset[..] } else { &[] };
        self.send(&Reply::Ordered { position, tag, verdict, more: false }, payload);
        self.phase.set(Phase::Live { next: position.next() });
    }

    /// The database cannot apply this position: it gets another node's contents, if it is sure that it is this node that differs, and if it may.
    /// Else it stays as it is until somebody decides.
    pub fn rebuild(&self, position: Position) {
        let Some(database) = self.database_id() else { return };
        if self.node.copies.is_proven_wrong(&self.database, position)
            && self.copy(database, self.worth()) == FailureKind::Copying
        {
            self.fail_later(FailureKind::Copying);
        }
    }

    pub fn status(&self, status: GroupStatus) {
        let quorum = status.quorum;
        self.send(&Reply::Group(status), &[]);
        let waits =
            matches!(self.phase.get(), Phase::Attaching { refused: true, .. }) || self.detach.get() == Detach::Refused;
        if quorum && waits {
            self.work.notify_one();
        }
    }

    /// Queues a frame; [`Feed::flush`] writes it.
    pub fn send(&self, reply: &Reply, payload: &[u8]) {
        if let Err(error) = self.outbox.put(|out| link::put_frame(out, reply, payload)) {
            // Writesets come through frames of the same bound, so this is a bug; never leave a gap behind it.
            tracing::error!(database = %self.database, %error, "a frame to the manager is too long");
            self.fail_later(FailureKind::Protocol);
        }
    }

    pub fn flush(&self) {
        self.outbox.flush();
    }

    pub async fn drained(&self) {
        self.outbox.drained().await;
    }

    pub fn end(&self) {
        self.phase.set(Phase::Ended);
        self.ended.notify_waiters();
    }

    pub async fn ended(&self) {
        self.ended.notified().await;
    }

    fn fail_later(&self, kind: FailureKind) {
        self.phase.set(Phase::Failed(kind));
        self.work.notify_one();
    }

    /// Does what cannot be done at once, for as long as the session lasts: reads from disk, tries again, fails.
    pub async fn run(&self) -> Result<(), SessionError> {
        let mut backlog = None;
        loop {
            match self.phase.get() {
                Phase::Opening { next, serve_from } => {
                    let Some(database) = self.database_id() else { return Ok(()) };
                    backlog = self.open(database, next, serve_from).await?;
                }
                Phase::CatchingUp { next } => {
                    let Some(database) = self.database_id() else { return Ok(()) };
                    let current = backlog.take().unwrap_or_else(|| self.backlog(database, next));
                    backlog = self.catch_up(database, current).await?;
                }
                Phase::Comparing { founds } => match self.node.copies.difference(&self.database).await {
                    _ if self.phase.get() != (Phase::Comparing { founds }) => {}
                    Some(difference) => {
                        self.difference.replace(difference);
                        self.phase.set(Phase::Failed(FailureKind::Differs));
                    }
                    None => self.ask_to_attach(founds),
                },
                Phase::Attaching { refused: true, founds, .. } => {
                    let _ = timeout(ATTACH_RETRY, self.work.notified()).await;
                    self.ask_to_attach(founds);
                }
                Phase::Failed(kind) => return self.fail(kind).await,
                _ if self.detach.get() == Detach::Refused => {
                    let _ = timeout(ATTACH_RETRY, self.work.notified()).await;
                    self.detach.set(Detach::Asked);
                    if let Some(database) = self.database_id() {
                        self.node.inbox.push(Input::Local(Local::Detach { database }));
                    }
                }
                _ => self.work.notified().await,
            }
        }
    }

    fn backlog(&self, database: DatabaseId, next: Position) -> Backlog {
        Backlog::stream(self.node.log.clone(), self.origin.clone(), database, next)
    }

    /// Tells the manager that its database is attached, if what it lacks is in the log.
    async fn open(
        &self,
        database: DatabaseId,
        next: Position,
        serve_from: Position,
    ) -> Result<Option<Backlog>, SessionError> {
        let Some(backlog) = self.unless_truncated(database, self.backlog(database, next).sought().await)? else {
            return Ok(None);
        };
        if self.phase.get() != (Phase::Opening { next, serve_from }) {
            return Ok(None);
        }
        self.send(&Reply::Attached { database, serve_from }, &[]);
        self.outbox.flush();
        self.phase.set(Phase::CatchingUp { next });
        Ok(Some(backlog))
    }

    /// What is not in the log any more, the database gets as a copy, if it may.
    fn unless_truncated(
        &self,
        database: DatabaseId,
        read: Result<Backlog, BacklogError>,
    ) -> Result<Option<Backlog>, SessionError> {
        match read {
            Ok(backlog) => Ok(Some(backlog)),
            Err(BacklogError::Truncated) => {
                self.fail_later(self.copy(database, self.worth()));
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Sends one piece from disk, and goes live if that was all.
    async fn catch_up(&self, database: DatabaseId, backlog: Backlog) -> Result<Option<Backlog>, SessionError> {
        let Some(backlog) = self.unless_truncated(database, backlog.send_piece(&self.outbox).await)? else {
            return Ok(None);
        };
        // A detach may have come meanwhile.
        if !matches!(self.phase.get(), Phase::CatchingUp { .. }) {
            return Ok(None);
        }
        if backlog.in_the_middle() {
            return Ok(Some(backlog));
        }
        let next = backlog.next_position();
        if next > self.node.databases.head(database) {
            self.phase.set(Phase::Live { next });
            return Ok(None);
        }
        self.phase.set(Phase::CatchingUp { next });
        Ok(Some(backlog))
    }

    /// What the log has no longer, a copy of another node's database has.
    fn copy(&self, database: DatabaseId, displaced: Displaced) -> FailureKind {
        if !self.node.copies.begin(&self.database, displaced) {
            return FailureKind::LogTruncated;
        }
        // Until it is there, nothing is applied here.
        let zero = Position::ZERO;
        let out = Local::Progress { database, committed: zero, flushed: zero, oldest_base: zero, out_of_service: true };
        self.node.inbox.push(Input::Local(out));
        FailureKind::Copying
    }

    /// Of what the database holds, for all that is known of how it attached.
    fn worth(&self) -> Displaced {
        if self.resume_after.get() == Position::ZERO { Displaced::Empty } else { Displaced::Rebuilt }
    }

    async fn fail(&self, kind: FailureKind) -> Result<(), SessionError> {
        let (message, hint) = match kind {
            FailureKind::AheadOfGroup => (
                format!("database \"{}\" has seen positions that this group never ordered", self.database),
                "It was replicated in another group, or the group's data directories were replaced.",
            ),
            FailureKind::HasContents => (
                format!("group \"{}\" has contents for database \"{}\" already", self.node.group(), self.database),
                "Start replication of an empty database, which the group fills, or WITH (OVERWRITE).",
            ),
            FailureKind::NoContents => (
                format!("no node has brought contents of database \"{}\" to group \"{}\"", self.database, self.node.group()),
                "Start its replication without the option OVERWRITE: what the database holds becomes the group's.",
            ),
            FailureKind::QueryOnly => (
                format!(
                    "node \"{}\" is query-only: it cannot bring the contents of database \"{}\"",
                    self.node.name(),
                    self.database
                ),
                "Start replication on a full node first, and of an empty database on this one.",
            ),
            FailureKind::Copying => (
                format!("database \"{}\" is being copied from another node", self.database),
                "It opens by itself. The log of gcs says how far it is.",
            ),
            FailureKind::Differs => (
                self.difference.borrow().clone(),
                "What values mean must be the same on all nodes: make the database anew, as it is there.",
            ),
            FailureKind::LogTruncated => (
                format!("the group's log no longer reaches back to where database \"{}\" stopped", self.database),
                "Copy the database from another node.",
            ),
            _ => ("internal error of gcs".to_owned(), ""),
        };
        match kind {
            FailureKind::Copying
            | FailureKind::HasContents
            | FailureKind::NoContents
            | FailureKind::QueryOnly
            | FailureKind::Differs => {
                tracing::info!(database = %self.database, "{message}")
            }
            _ => tracing::error!(database = %self.database, "{message}"),
        }
        let failure = Failure { kind, message, hint: hint.to_owned() };
        self.outbox.put(|out| link::put_frame(out, &Reply::Failed(failure), &[]))?;
        self.outbox.flush();
        self.outbox.drained().await;
        Ok(())
    }
}
