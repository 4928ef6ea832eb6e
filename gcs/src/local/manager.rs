//! The stream of positions to one manager.
//!
//! After its attach has been ordered a manager gets every position after `resume_after`, in order and once. Either it is *live*:
//! the driver puts each newly ordered position straight into its queue. Or it *catches up*: the feed reads positions
//! from disk, a piece at a time, each time the queue has drained. It becomes live when what it has read is all that was ever
//! handed on, which nothing can change in between: all of this runs on one thread. It falls back to catching up when its queue is
//! full, and for a writeset in chunks, which are not at hand.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use gcs_core::{Input, Local, Ordered};
use gcs_writeset::link::{self, Failure, FailureKind, GroupStatus, RefusalReason, Reply, Verdict};
use gcs_writeset::wire::WireError;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Hub;
use super::backlog::{Backlog, BacklogError, Origin};
use super::session::SessionError;
use crate::bounds::{ATTACH_RETRY, BACKLOG_PIECE_BYTES, FETCHES_MAX};
use crate::outbox::Outbox;

#[derive(Debug)]
pub struct Manager {
    pub database: String,
    pub incarnation: Incarnation,
    node: NodeId,
    outbox: Rc<Outbox>,
    database_id: Cell<Option<DatabaseId>>,
    phase: Cell<Phase>,
    detach: Cell<Detach>,
    fetches: RefCell<VecDeque<Position>>,
    fetched: Notify,
    /// There is something for the feed to do.
    work: Notify,
    ended: Notify,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Greeted,
    /// Waits for its attach to be ordered; `refused` if it must be asked for again.
    Attaching {
        resume_after: Position,
        refused: bool,
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

impl Manager {
    pub fn new(node: NodeId, database: String, incarnation: Incarnation, outbox: Rc<Outbox>) -> Manager {
        Manager {
            database,
            incarnation,
            node,
            outbox,
            database_id: Cell::new(None),
            phase: Cell::new(Phase::Greeted),
            detach: Cell::new(Detach::No),
            fetches: RefCell::default(),
            fetched: Notify::new(),
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

    /// False if it has attached before.
    pub fn attach(&self, resume_after: Position) -> bool {
        let first = self.phase.get() == Phase::Greeted;
        if first {
            self.phase.set(Phase::Attaching { resume_after, refused: false });
        }
        first
    }

    pub fn attached(&self, database: DatabaseId, serve_from: Position, head: Position) {
        let Phase::Attaching { resume_after, .. } = self.phase.get() else { return };
        if resume_after > serve_from {
            return self.fail_later(FailureKind::AheadOfGroup);
        }
        tracing::info!(database = %self.database, %resume_after, %serve_from, "a database has attached");
        self.database_id.set(Some(database));
        self.send(&Reply::Attached { database, serve_from }, &[]);
        let next = resume_after.next();
        self.phase.set(if resume_after == head { Phase::Live { next } } else { Phase::CatchingUp { next } });
        self.work.notify_one();
    }

    pub fn attach_refused(&self, reason: RefusalReason) {
        match (self.phase.get(), self.detach.get()) {
            (Phase::Attaching { resume_after, .. }, _) => self.phase.set(Phase::Attaching { resume_after, refused: true }),
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
        let carries = self.origin().carries(&outcome.verdict, ordered.tag);
        if outcome.position > next || self.outbox.is_full() || (carries && !outcome.chunks.is_empty()) {
            self.phase.set(Phase::CatchingUp { next });
            return self.work.notify_one();
        }
        let (position, tag, verdict) = (outcome.position, ordered.tag, outcome.verdict);
        let payload = if carries { &ordered.writeset[..] } else { &[] };
        self.send(&Reply::Ordered { position, tag, verdict, more: false }, payload);
        self.phase.set(Phase::Live { next: position.next() });
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

    /// Queues a frame; [`Manager::flush`] writes it.
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

    /// Asks for the payload of a position; waits while too many are asked for.
    pub async fn fetch(&self, position: Position) -> Result<(), SessionError> {
        if !self.was_attached() {
            return Err(SessionError::Failed("a fetch without an attach"));
        }
        while self.fetches.borrow().len() >= FETCHES_MAX {
            self.fetched.notified().await;
        }
        self.fetches.borrow_mut().push_back(position);
        self.work.notify_one();
        Ok(())
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

    fn origin(&self) -> Origin {
        Origin { node: self.node, incarnation: self.incarnation }
    }

    /// Does what cannot be done at once, for as long as the session lasts: reads from disk, tries again, fails.
    pub async fn feed(&self, hub: &Rc<Hub>) -> Result<(), SessionError> {
        let mut backlog = None;
        loop {
            let in_the_middle = backlog.as_ref().is_some_and(Backlog::in_the_middle);
            let fetch = if in_the_middle { None } else { self.fetches.borrow_mut().pop_front() };
            if let Some(position) = fetch {
                self.fetched.notify_waiters();
                self.serve_fetch(hub, position).await?;
                continue;
            }
            match self.phase.get() {
                Phase::CatchingUp { next } => {
                    let Some(database) = self.database_id() else { return Ok(()) };
                    let current =
                        backlog.take().unwrap_or_else(|| Backlog::stream(hub.log.clone(), self.origin(), database, next));
                    backlog = self.catch_up(hub, database, current).await?;
                }
                Phase::Attaching { refused: true, resume_after } => {
                    let _ = timeout(ATTACH_RETRY, self.work.notified()).await;
                    self.phase.set(Phase::Attaching { resume_after, refused: false });
                    let (database, incarnation) = (self.database.clone(), self.incarnation);
                    hub.inbox.push(Input::Local(Local::Attach { database, incarnation }));
                }
                Phase::Failed(kind) => return self.fail(kind).await,
                _ if self.detach.get() == Detach::Refused => {
                    let _ = timeout(ATTACH_RETRY, self.work.notified()).await;
                    self.detach.set(Detach::Asked);
                    if let Some(database) = self.database_id() {
                        hub.inbox.push(Input::Local(Local::Detach { database }));
                    }
                }
                _ => self.work.notified().await,
            }
        }
    }

    /// Sends one piece from disk, and goes live if that was all.
    async fn catch_up(
        &self,
        hub: &Rc<Hub>,
        database: DatabaseId,
        backlog: Backlog,
    ) -> Result<Option<Backlog>, SessionError> {
        self.outbox.drained().await;
        let Some(backlog) = self.send_piece(backlog).await? else { return Ok(None) };
        // A detach may have come meanwhile.
        if !matches!(self.phase.get(), Phase::CatchingUp { .. }) {
            return Ok(None);
        }
        if backlog.in_the_middle() {
            return Ok(Some(backlog));
        }
        let next = backlog.next_position();
        if next > hub.head(database) {
            self.phase.set(Phase::Live { next });
            return Ok(None);
        }
        self.phase.set(Phase::CatchingUp { next });
        Ok(Some(backlog))
    }

    /// `None` if it failed.
    async fn send_piece(&self, mut backlog: Backlog) -> Result<Option<Backlog>, SessionError> {
        let reading = tokio::task::spawn_blocking(move || {
            let mut frames = Vec::new();
            let result = backlog.fill(&mut frames, BACKLOG_PIECE_BYTES);
            (backlog, frames, result)
        });
        let (backlog, frames, result) = reading.await.map_err(|_| SessionError::Failed("reading from disk failed"))?;
        // The queue has drained before the piece was read: the piece itself becomes the queue.
        self.outbox.put(|out| if out.is_empty() { *out = frames } else { out.extend_from_slice(&frames) });
        self.outbox.flush();
        match result {
            Ok(()) => Ok(Some(backlog)),
            Err(BacklogError::Truncated) => {
                self.fail_later(FailureKind::LogTruncated);
                Ok(None)
            }
            Err(error @ (BacklogError::Log(_) | BacklogError::Wire(_))) => {
                tracing::error!(database = %self.database, "could not read the log: {error}");
                Err(SessionError::Failed("the log of this node cannot be read"))
            }
        }
    }

    async fn serve_fetch(&self, hub: &Rc<Hub>, position: Position) -> Result<(), SessionError> {
        let Some(database) = self.database_id() else { return Ok(()) };
        if position > hub.head(database) || position == Position::ZERO {
            return Err(SessionError::Failed("a fetch of a position that was never ordered"));
        }
        let mut backlog = Backlog::fetch(hub.log.clone(), self.origin(), database, position);
        loop {
            self.outbox.drained().await;
            match self.send_piece(backlog).await? {
                Some(rest) if rest.in_the_middle() => backlog = rest,
                _ => return Ok(()),
            }
        }
    }

    async fn fail(&self, kind: FailureKind) -> Result<(), SessionError> {
        let (message, hint) = match kind {
            FailureKind::AheadOfGroup => (
                format!("database \"{}\" has seen positions that this group never ordered", self.database),
                "It was replicated in another group, or the group's data directories were replaced.",
            ),
            FailureKind::LogTruncated => (
                format!("the group's log no longer reaches back to where database \"{}\" stopped", self.database),
                "Copy the database from another node.",
            ),
            _ => ("internal error of gcs".to_owned(), ""),
        };
        tracing::error!(database = %self.database, "{message}");
        let failure = Failure { kind, message, hint: hint.to_owned() };
        self.outbox.put(|out| link::put_frame(out, &Reply::Failed(failure), &[]))?;
        self.outbox.flush();
        self.outbox.drained().await;
        Ok(())
    }
}

impl Origin {
    /// Whether a position is delivered with its writeset: not to the one that submitted it, which has it.
    pub fn carries(&self, verdict: &Verdict, tag: gcs_writeset::Tag) -> bool {
        let own = tag.node == self.node && tag.incarnation == self.incarnation;
        matches!(verdict, Verdict::Certified { .. }) && !own
    }
}

impl From<WireError> for BacklogError {
    fn from(error: WireError) -> BacklogError {
        BacklogError::Wire(error)
    }
}
