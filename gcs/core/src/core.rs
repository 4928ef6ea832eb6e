//! The core: one step after another, through the rooms.
//!
//! A step takes inputs through flow and order, and at most one durable write out. Two kinds of write take turns:
//!
//! - what *committed* entries became (outcomes, sometimes a checkpoint), with the ordered writesets beside it. It is given out
//!   first and without a flush, so that verdicts do not wait for the disk;
//! - what Raft must have *durable* (a snapshot, entries, term and vote), with the promises that rest on it.
//!
//! Between handing out a write and [`Input::Written`] the core only waits, as Raft's ready demands.

mod locks;
mod lost;
mod members;

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use gcs_writeset::link::GroupStatus;
use gcs_writeset::{DatabaseId, NodeId};
use raft::eraftpb::{self, EntryType, HardState};
use raft::{Ready, Storage};

use crate::api::*;
use crate::bounds::*;
use crate::certify::{Exact, Planted, PlantedBug, Rules, WindowBounds};
use crate::command::{self, Encoded};
use crate::error::CoreError;
use crate::flow::{Flow, Ticket};
use crate::followed::Followed;
use crate::format::Readers;
use crate::order::Order;
use crate::quorum::Quorum;
use crate::reads::Reads;
use crate::state::{Event, State};
use crate::wishes::Wishes;
use crate::writers::{Following, Writers};
use crate::{checkpoint, recovery, status};
use lost::{Lost, Touch};

/// What the core is waiting for.
enum Stage {
    Free,
    /// A write of outcomes is being made; then a ready that was held back for it, if any.
    Outcomes {
        number: u64,
        held: Option<Held>,
    },
    /// What this ready must have durable is being written.
    Durable {
        number: u64,
        ready: Box<Ready>,
    },
}

/// A ready whose committed entries and immediate messages have been handled.
struct Held {
    ready: Box<Ready>,
    install: Option<Checkpoint>,
    entries: Vec<eraftpb::Entry>,
    hard_state: Option<HardState>,
    messages: Vec<eraftpb::Message>,
}

/// Limits that a test may want to meet. The window's must be the same on all members.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub window: WindowBounds,
    pub checkpoint_entries_max: u64,
    pub checkpoint_bytes_max: u64,
    pub following: Following,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            window: WindowBounds::default(),
            checkpoint_entries_max: CHECKPOINT_ENTRIES_MAX,
            checkpoint_bytes_max: CHECKPOINT_BYTES_MAX,
            following: Following::default(),
        }
    }
}

/// `L` reads the log; `R` are the rules of certification, exact but in a simulator.
pub struct Core<L: Storage, R: Rules = Exact> {
    config: CoreConfig,
    limits: Limits,
    rules: R,
    order: Order<L>,
    state: State,
    flow: Flow,
    quorum: Quorum,
    readers: Readers,
    reads: Reads,
    followed: Followed,
    wishes: Wishes,
    writers: Writers,
    /// Peers that are up and being drained.
    draining: BTreeSet<NodeId>,
    stage: Stage,
    writes: u64,
    /// The last hard state, and whether it has changed since it was last written.
    hard_state: HardState,
    hard_state_is_news: bool,
    /// Entries and their bytes applied since the last checkpoint.
    since_checkpoint: (u64, u64),
    /// A checkpoint must be written whatever there was since.
    checkpoint_is_due: bool,
    status: StatusNote,
    status_is_due: bool,
    has_quorum: bool,
    /// Leader and term as of the last step.
    led_by: (Option<NodeId>, u64),
    /// The version of the membership that was last given out.
    told_version: Option<u64>,
    /// Leading: the membership and the term for which a change was last proposed.
    proposed_for: Option<(u64, u64)>,
    /// Leading: when it last began to hand over by itself.
    handed_over_at: Option<Tick>,
    lost: Lost,
    touch: Touch,
    /// Inputs that came while a write was outstanding.
    waiting: VecDeque<Input>,
}

/// The last status given out.
#[derive(Default)]
struct StatusNote {
    last: Option<GroupStatus>,
    at: Tick,
}

impl<L: Storage> Core<L> {
    /// A core with exact rules and the usual limits.
    ///
    /// `recovered` is what the log store found; `log` reads what was made durable (the driver writes to it between steps).
    ///
    /// The driver's [`raft::Storage`] keeps entries, a hard state and checkpoints. Its `initial_state` is not asked, and the
    /// membership in what its `snapshot` returns is filled in here; it returns the newest checkpoint as metadata (index, term)
    /// and data (`Checkpoint::state`), or `SnapshotTemporarilyUnavailable` while there is none. After `truncate_to`, the term of
    /// the entry at that index must still be known. An error from it, other than those that Raft knows, is a panic.
    pub fn new(config: CoreConfig, log: L, recovered: Recovered) -> Result<Core<L>, CoreError> {
        Core::with_limits(config, log, recovered, Limits::default())
    }
}

impl<L: Storage> Core<L, Planted> {
    /// For tests of tests only: certifies wrongly from now on.
    #[doc(hidden)]
    pub fn plant(&mut self, bug: PlantedBug) {
        self.rules = Planted(Some(bug));
    }
}

impl<L: Storage, R: Rules + Default> Core<L, R> {
    /// Like [`Core::new`], with smaller limits, for tests to meet them.
    pub fn with_limits(config: CoreConfig, log: L, recovered: Recovered, limits: Limits) -> Result<Core<L, R>, CoreError> {
        let state = recovery::state(&config, recovered.checkpoint.as_ref(), limits.window)?;
        let hard_state = recovered.hard_state.unwrap_or_default();
        let order = Order::new(&config, &state, log, hard_state.clone())?;
        Ok(Core {
            flow: Flow::new(config.node, config.seed),
            quorum: Quorum::new(config.node, config.detector.quorum_ticks_max()),
            readers: Readers::default(),
            reads: Reads::new(config.node, config.seed),
            followed: Followed::default(),
            wishes: Wishes::new(config.node, config.address.clone(), config.directory),
            writers: Writers::new(limits.following),
            draining: BTreeSet::new(),
            config,
            limits,
            rules: R::default(),
            order,
            state,
            stage: Stage::Free,
            writes: 0,
            hard_state,
            hard_state_is_news: false,
            since_checkpoint: (0, 0),
            checkpoint_is_due: false,
            status: StatusNote::default(),
            status_is_due: true,
            has_quorum: false,
            led_by: (None, 0),
            told_version: None,
            proposed_for: None,
            handed_over_at: None,
            lost: Lost::default(),
            touch: Touch::default(),
            waiting: VecDeque::new(),
        })
    }
}

impl<L: Storage, R: Rules> Core<L, R> {
    /// Feeds inputs in order and returns everything to be done. An error is a broken invariant or a storage failure: the
    /// process must end. Bad input from peers or PostgreSQL is never an error here: it is dropped or refused.
    ///
    /// While a write is outstanding, inputs other than its `Written` are only kept.
    pub fn step(&mut self, now: Tick, inputs: Vec<Input>) -> Result<Effects, CoreError> {
        let mut effects = Effects::default();
        let mut forwarded = Vec::new();
        self.follow_membership(&mut effects);
        for input in inputs {
            match input {
                Input::Written(number) => self.written(now, number, &mut effects)?,
                other => self.waiting.push_back(other),
            }
        }
        while let Stage::Free = self.stage
            && let Some(input) = self.waiting.pop_front()
        {
            self.take(now, input, &mut forwarded, &mut effects);
        }
        if let Stage::Free = self.stage {
            self.follow_leader(now);
            self.judge_quorum(now, &mut effects);
            self.see_to_wishes(now, &mut effects);
            self.send_out(now, forwarded, &mut effects);
            self.reads.send(self.rules, now, &mut self.order);
            self.work(now, &mut effects)?;
        }
        // Whoever waited for the end of a round need not wait for a tick; but nothing is asked of Raft while it waits for a write.
        if let Stage::Free = self.stage {
            self.reads.send(self.rules, now, &mut self.order);
            self.work(now, &mut effects)?;
        }
        self.follow_membership(&mut effects);
        self.reads.answer(&self.state, &mut effects.replies);
        self.touch.take_answer(&mut effects.replies);
        if std::mem::take(&mut self.status_is_due) {
            self.note_status(now, &mut effects);
        }
        Ok(effects)
    }

    /// The ordered state as of `applied()`, for `DurableWrite::checkpoint` on recovery.
    pub fn applied(&self) -> LogIndex {
        self.state.applied
    }

    /// The last entry that is committed, as far as is known here.
    pub fn committed(&self) -> LogIndex {
        self.order.committed()
    }

    /// Leading only: by how many entries a member's log is behind, if it takes entries as they come.
    pub fn behind(&self, node: NodeId) -> Option<u64> {
        self.order.behind(node)
    }

    /// What PostgreSQL wants ordered and is not yet: how many commands, of how many bytes.
    pub fn unordered(&self) -> (usize, usize) {
        self.flow.waiting()
    }

    /// The ordered state, to be looked at.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The group as seen here, with positions of one database, or the highest of any.
    pub fn status(&self, database: Option<DatabaseId>) -> GroupStatus {
        status::status(&self.order, &self.quorum, &self.state, self.has_quorum, database)
    }

    fn take(&mut self, now: Tick, input: Input, forwarded: &mut Vec<Encoded>, effects: &mut Effects) {
        match input {
            Input::Tick => {
                self.order.tick(now);
                self.flow.tick(now);
                self.writers.tick(now);
                self.touch_locks(now, &mut effects.replies);
                self.lead_locks(now);
                self.status_is_due = true;
            }
            Input::PeerUp { node, reads } => {
                self.quorum.peer_up(node);
                self.readers.up(node, reads);
                self.flow.connected(node);
                self.hear_peers();
                self.status_is_due = true;
            }
            Input::PeerDrains { node, drains: true } => drop(self.draining.insert(node)),
            Input::PeerDrains { node, drains: false } => drop(self.draining.remove(&node)),
            Input::PeerDown(node) => {
                self.draining.remove(&node);
                self.quorum.peer_down(node);
                self.readers.down(node);
                self.hear_peers();
                self.order.peer_down(node);
                self.status_is_due = true;
            }
            Input::Peer { from, message: PeerMessage::Raft(mut message) } => {
                let age = Quorum::unmark(&mut message);
                let (term, is_answer) = (message.term, Quorum::is_answer(&message));
                if self.order.step(from, *message) {
                    self.quorum.said(from, now);
                    if is_answer {
                        self.quorum.heard(from, now);
                    }
                    if let Some(age) = age.filter(|_| self.order.leader() == Some(from) && self.order.term() == term) {
                        self.quorum.led(now, age);
                    }
                }
            }
            Input::Peer { from, message: PeerMessage::Forward(commands) } => {
                if self.is_other_member(from) && self.order.is_leader() {
                    forwarded.extend(commands.into_iter().filter(|command| is_forwardable(from, command)));
                }
            }
            Input::Peer { from, message: PeerMessage::Wish(wish) } => {
                if self.is_other_member(from) && self.order.is_leader() {
                    self.wishes.asked(wish, now);
                }
            }
            Input::Local(Local::Wish { number, wish, force }) => self.wish((number, wish), force, now, effects),
            Input::Local(Local::Consider { number, wish, force }) => self.consider((number, &wish), force, effects),
            Input::Local(Local::Follow { number, tag, chunks }) => {
                self.followed.follow(number, (tag, chunks), &self.state, &mut effects.replies);
            }
            Input::Local(Local::Unfollow { number }) => self.followed.unfollow(number),
            Input::Local(local) => self.flow.local(local, &self.state, &mut effects.replies),
            Input::Read(question) => self.reads.ask(question, self.has_quorum, &mut effects.replies),
            Input::Written(_) => {}
        }
    }

    fn follow_leader(&mut self, now: Tick) {
        let leader = (self.order.leader(), self.order.term());
        if leader != self.led_by {
            self.led_by = leader;
            self.status_is_due = true;
            self.writers.stays(now);
        }
        self.flow.set_leader(leader.0.map(|node| (node, leader.1)));
    }

    fn judge_quorum(&mut self, now: Tick, effects: &mut Effects) {
        let has_quorum = self.quorum.judge(now, self.order.is_leader());
        if has_quorum != self.has_quorum {
            self.has_quorum = has_quorum;
            self.status_is_due = true;
            self.flow.set_quorum(has_quorum, &self.state, &mut effects.replies);
            if !has_quorum {
                self.reads.quorum_lost(&mut effects.replies);
            }
        }
    }

    /// Leading: everything that waits becomes log entries. Following: it goes to the leader.
    fn send_out(&mut self, now: Tick, forwarded: Vec<Encoded>, effects: &mut Effects) {
        let Some(leader) = self.order.leader() else { return };
        if leader == self.config.node {
            self.propose(now, forwarded);
        } else if self.quorum.is_up(leader) {
            self.forward(now, leader, effects);
        }
    }

    fn propose(&mut self, now: Tick, forwarded: Vec<Encoded>) {
        let mut batch = Batch::default();
        for command in forwarded.into_iter().chain(self.flow.reports(now, &self.state)) {
            if batch.is_full_for(&command, ENTRY_BYTES_MAX) && !self.propose_batch(now, &mut batch) {
                return;
            }
            batch.push(None, command);
        }
        while let Some((ticket, command)) = self.flow.next(&self.state) {
            if batch.is_full_for(&command, ENTRY_BYTES_MAX) && !self.propose_batch(now, &mut batch) {
                return self.flow.put_back(ticket);
            }
            batch.push(Some(ticket), command);
        }
        self.propose_batch(now, &mut batch);
    }

    /// `false` if the log takes no more now; then nothing of the batch was sent.
    fn propose_batch(&mut self, now: Tick, batch: &mut Batch) -> bool {
        let Batch { tickets, commands, .. } = std::mem::take(batch);
        if commands.is_empty() {
            return true;
        }
        let proposed = self.order.propose(command::encode_entry(&commands));
        for ticket in tickets {
            if proposed { self.flow.sent(ticket, now) } else { self.flow.put_back(ticket) }
        }
        proposed
    }

    fn forward(&mut self, now: Tick, leader: NodeId, effects: &mut Effects) {
        let mut batch = Batch::default();
        for command in self.flow.reports(now, &self.state) {
            batch.push(None, command);
        }
        while let Some((ticket, command)) = self.flow.next(&self.state) {
            if batch.is_full_for(&command, FORWARD_BYTES_MAX) {
                let commands = std::mem::take(&mut batch).commands;
                effects.send_now.push((leader, PeerMessage::Forward(commands)));
            }
            self.flow.sent(ticket, now);
            batch.push(None, command);
        }
        if !batch.commands.is_empty() {
            effects.send_now.push((leader, PeerMessage::Forward(batch.commands)));
        }
    }

    /// The outstanding write is done.
    fn written(&mut self, now: Tick, written: u64, effects: &mut Effects) -> Result<(), CoreError> {
        match (&self.stage, effects.write.is_none()) {
            (Stage::Outcomes { number, .. } | Stage::Durable { number, .. }, true) if *number == written => {}
            _ => return Err(CoreError::Contract("a write was reported that was not asked for")),
        }
        match std::mem::replace(&mut self.stage, Stage::Free) {
            Stage::Free => Ok(()),
            Stage::Outcomes { held: None, .. } => {
                self.order.advance_apply();
                Ok(())
            }
            Stage::Outcomes { held: Some(held), .. } => self.settle(now, held, effects),
            Stage::Durable { ready, .. } => self.advance(now, ready, effects),
        }
    }

    /// Handles what Raft has ready until a write is needed or nothing is left.
    fn work(&mut self, now: Tick, effects: &mut Effects) -> Result<(), CoreError> {
        while matches!(self.stage, Stage::Free) && self.order.has_ready() {
            let mut ready = Box::new(self.order.ready());
            let messages = ready.take_messages();
            self.post(now, messages, effects);
            self.reads.confirmed(ready.take_read_states());
            if let Some(hard_state) = ready.hs() {
                self.hard_state = hard_state.clone();
                self.hard_state_is_news = true;
            }
            let committed = ready.take_committed_entries();
            let install = self.install(&ready, effects)?;
            let held = Held {
                install,
                entries: ready.take_entries(),
                hard_state: ready.must_sync().then(|| self.hard_state.clone()),
                messages: ready.take_persisted_messages(),
                ready,
            };
            if !committed.is_empty() {
                self.apply(committed, Some(held), effects)?;
            } else {
                self.settle(now, held, effects)?;
            }
        }
        Ok(())
    }

    fn advance(&mut self, now: Tick, ready: Box<Ready>, effects: &mut Effects) -> Result<(), CoreError> {
        let mut light = self.order.advance(*ready);
        if let Some(commit) = light.commit_index() {
            self.hard_state.commit = commit;
            self.hard_state_is_news = true;
        }
        let messages = light.take_messages();
        self.post(now, messages, effects);
        let committed = light.take_committed_entries();
        if committed.is_empty() { Ok(()) } else { self.apply(committed, None, effects) }
    }

    /// A snapshot replaces the state at once; the log follows with the durable write.
    fn install(&mut self, ready: &Ready, effects: &mut Effects) -> Result<Option<Checkpoint>, CoreError> {
        let snapshot = ready.snapshot();
        if snapshot.is_empty() {
            return Ok(None);
        }
        let metadata = snapshot.get_metadata();
        let checkpoint = Checkpoint {
            index: LogIndex(metadata.index),
            term: metadata.term,
            state: Bytes::copy_from_slice(&snapshot.data),
        };
        self.state = recovery::of_checkpoint(&self.config, &checkpoint, self.state.bounds)?;
        self.since_checkpoint = (0, 0);
        self.flow.skipped_to(&self.state, &mut effects.replies);
        self.followed.skipped(&mut effects.replies);
        Ok(Some(checkpoint))
    }

    /// Applies committed entries and asks for their outcomes to be written; `held` has its turn afterwards.
    fn apply(&mut self, committed: Vec<eraftpb::Entry>, held: Option<Held>, effects: &mut Effects) -> Result<(), CoreError> {
        let mut outcomes = Vec::with_capacity(committed.len());
        for mut entry in committed {
            let (index, term) = (LogIndex(entry.index), entry.term);
            let data = Bytes::from(entry.take_data());
            self.since_checkpoint.0 += 1;
            self.since_checkpoint.1 += data.len() as u64;
            if entry.entry_type != EntryType::EntryNormal as i32 {
                outcomes.push(self.apply_votes(index, term, &data)?);
                self.followed.applied(&[], &self.state, &mut effects.replies);
                continue;
            }
            let commands = command::decode_entry(&data).map_err(|cause| CoreError::Entry { index, cause })?;
            let (outcome, events) = self.state.apply(self.rules, index, term, commands);
            recovery::check_format(&self.config, &self.state.membership)?;
            outcomes.push(outcome);
            self.followed.applied(&events, &self.state, &mut effects.replies);
            for event in events {
                self.flow.ordered(&event, &mut effects.replies);
                if matches!(event, Event::Attached { .. } | Event::Detached { .. }) {
                    // Of one database: that of all together may be what it was, and is given out all the same.
                    self.status.last = None;
                    self.status_is_due = true;
                }
                if let Event::Ordered(ordered) = event {
                    self.writers.ordered(ordered.tag.node);
                    effects.ordered.push(ordered);
                }
            }
        }
        let mut write = DurableWrite { outcomes, ..DurableWrite::default() };
        let (entries, bytes) = self.since_checkpoint;
        let is_full = entries >= self.limits.checkpoint_entries_max || bytes >= self.limits.checkpoint_bytes_max;
        if std::mem::take(&mut self.checkpoint_is_due) || is_full {
            self.since_checkpoint = (0, 0);
            let releasable = self.state.releasable();
            write.checkpoint = Some(checkpoint::encode(&self.state));
            write.truncate_to = Some(releasable).filter(|index| index.0 > 0);
            write.sync = true;
        }
        // Raft's ready that is held back may already have moved term and vote, which belong with its entries.
        if self.hard_state_is_news && held.as_ref().is_none_or(|held| held.hard_state.is_none()) {
            write.hard_state = Some(self.hard_state.clone());
            self.hard_state_is_news = false;
        }
        let number = self.number(&mut write);
        effects.write = Some(write);
        self.stage = Stage::Outcomes { number, held };
        Ok(())
    }

    /// The committed entries of a ready have had their turn; now for what it wants durable, if anything.
    fn settle(&mut self, now: Tick, held: Held, effects: &mut Effects) -> Result<(), CoreError> {
        let Held { ready, install, entries, hard_state, messages } = held;
        effects.send_after_write.extend(messages.into_iter().map(envelope));
        if !ready.must_sync() {
            return self.advance(now, ready, effects);
        }
        let mut write = DurableWrite { install, entries, hard_state, sync: true, ..DurableWrite::default() };
        self.hard_state_is_news = false;
        let number = self.number(&mut write);
        effects.write = Some(write);
        self.stage = Stage::Durable { number, ready };
        Ok(())
    }

    fn number(&mut self, write: &mut DurableWrite) -> u64 {
        self.writes += 1;
        write.number = self.writes;
        self.writes
    }

    fn post(&mut self, now: Tick, messages: Vec<eraftpb::Message>, effects: &mut Effects) {
        self.order.sending(&messages, now);
        effects.send_now.extend(messages.into_iter().map(|mut message| {
            self.quorum.mark(now, &mut message);
            envelope(message)
        }));
    }

    /// Positions alone are reported now and then; everything else at once.
    fn note_status(&mut self, now: Tick, effects: &mut Effects) {
        let status = self.status(None);
        let rested = now.0.saturating_sub(self.status.at.0) >= STATUS_TICKS;
        let news = match &self.status.last {
            None => true,
            Some(last) if rested => *last != status,
            Some(last) => status::differs_beyond_positions(last, &status),
        };
        if news {
            self.status = StatusNote { last: Some(status.clone()), at: now };
            effects.status = Some(status);
        }
    }
}

/// Commands gathered for one entry.
#[derive(Default)]
struct Batch {
    tickets: Vec<Ticket>,
    commands: Vec<Encoded>,
    bytes: usize,
}

impl Batch {
    fn is_full_for(&self, command: &Encoded, bytes_max: usize) -> bool {
        !self.commands.is_empty() && (self.bytes + command.length() > bytes_max || self.commands.len() >= ENTRY_COMMANDS_MAX)
    }

    fn push(&mut self, ticket: Option<Ticket>, command: Encoded) {
        self.tickets.extend(ticket);
        self.bytes += command.length();
        self.commands.push(command);
    }
}

fn envelope(message: eraftpb::Message) -> (NodeId, PeerMessage) {
    (NodeId(message.to), PeerMessage::Raft(Box::new(message)))
}

/// A peer may only forward commands of its own, and only such as everybody can read.
fn is_forwardable(from: NodeId, command: &Encoded) -> bool {
    command.length() <= COMMAND_BYTES_MAX && command.node() == Ok(from)
}
