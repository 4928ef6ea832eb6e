//! Certification: which of two writesets that touched the same thing on different nodes is the loser.
//!
//! A writeset at position p conflicts with an earlier certified one at q if both hold a key, not both shared, and q was
//! ordered after the *base* of p's key: p's node had not shown q to the transaction. The first such pair in the order decides:
//! the earlier one stands, the later one aborts. docs/certification.md argues the rule and every detail below by the
//! interleaving that breaks it.
//!
//! Only the last exclusive and the last shared holder of each key matter, so a table of two positions a key answers in one look.
//! The *window* behind it lists certified writesets and their keys in order; it is there to forget by, to name winners, and to
//! be checkpointed.
//!
//! The *horizon* says how far back the window must reach. It is a function of the ordered history alone; what happens to be
//! forgotten already is not, and must never show: a base below the horizon aborts before the table is asked, a holder at or
//! below the horizon can neither conflict (bases are at or above it) nor be waited for (dependencies start there). That is why
//! forgetting may be lazy and a checkpoint may leave out what lies below.

mod pins;
mod rules;
mod table;

use std::borrow::Cow;
use std::collections::VecDeque;

use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, KeyGroup, Mode, NodeId, Phase, Position, TwoPhase};

use crate::bounds::{PURGE_KEYS_MIN, WINDOW_KEYS_MAX, WINDOW_POSITIONS_MAX};
use table::{Holders, Table};

pub use pins::{Pinned, Pins};
pub use rules::{Exact, Planted, PlantedBug, Rules};

/// How far the window reaches; see [`crate::bounds`].
#[derive(Clone, Copy, Debug)]
pub struct WindowBounds {
    pub keys_max: u64,
    pub positions_max: u64,
}

impl Default for WindowBounds {
    fn default() -> WindowBounds {
        WindowBounds { keys_max: WINDOW_KEYS_MAX, positions_max: WINDOW_POSITIONS_MAX }
    }
}

/// One certified writeset of the window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    pub position: Position,
    pub node: NodeId,
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    position: Position,
    node: NodeId,
    exclusive: u32,
    shared: u32,
    /// Keys of this and all earlier records, ever.
    keys_through: u64,
}

/// The certification state of one database.
#[derive(Debug)]
pub struct Certifier {
    bounds: WindowBounds,
    horizon: Position,
    /// Keys of all records at or below the horizon, ever.
    keys_through_horizon: u64,
    /// Index into `records` of the first above the horizon.
    above: usize,
    records: VecDeque<Record>,
    /// The keys of all records, one record after another, exclusive ones first.
    keys: VecDeque<Key>,
    keys_through: u64,
    table: Table,
    pins: Pins,
}

impl Certifier {
    pub fn new(bounds: WindowBounds) -> Certifier {
        Certifier {
            bounds,
            horizon: Position::ZERO,
            keys_through_horizon: 0,
            above: 0,
            records: VecDeque::new(),
            keys: VecDeque::new(),
            keys_through: 0,
            table: Table::default(),
            pins: Pins::default(),
        }
    }

    /// The state whose window above `horizon` is `holders`, in order, and in which nothing is prepared.
    pub fn restore(bounds: WindowBounds, horizon: Position, holders: &[Holder]) -> Certifier {
        let mut certifier = Certifier::new(bounds);
        certifier.horizon = horizon;
        for holder in holders {
            certifier.remember(holder.position, holder.node, holder.exclusive.iter(), holder.shared.iter());
        }
        certifier
    }

    pub fn horizon(&self) -> Position {
        self.horizon
    }

    /// In a state that is read back, this is pinned.
    pub fn pin(&mut self, pins: Pins) {
        self.pins = pins;
    }

    /// What is prepared.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// The window above the horizon, in order: with the horizon and the pins, the whole state.
    pub fn holders(&self) -> impl Iterator<Item = Holder> + '_ {
        let below: usize = self.records.range(..self.above).map(|r| (r.exclusive + r.shared) as usize).sum();
        let mut at = below;
        self.records.range(self.above..).map(move |record| {
            let exclusive = self.keys.range(at..at + record.exclusive as usize).copied().collect();
            at += record.exclusive as usize;
            let shared = self.keys.range(at..at + record.shared as usize).copied().collect();
            at += record.shared as usize;
            Holder { position: record.position, node: record.node, exclusive, shared }
        })
    }

    /// Nobody will use a base below `to` any more, as far as the ordered reports tell. Never lowers the horizon.
    pub fn raise_horizon(&mut self, to: Position) {
        if to <= self.horizon {
            return;
        }
        self.horizon = to;
        while let Some(record) = self.records.get(self.above).filter(|record| record.position <= to) {
            self.keys_through_horizon = record.keys_through;
            self.above += 1;
        }
    }

    /// The verdict on the writeset that was given `position`; remembers it if certified. Positions come in order.
    pub fn certify(&mut self, position: Position, node: NodeId, envelope: &Envelope) -> Verdict {
        self.certify_by(Exact, position, node, envelope)
    }

    /// The same by these rules.
    pub fn certify_by(&mut self, rules: impl Rules, position: Position, node: NodeId, envelope: &Envelope) -> Verdict {
        let (envelope, pinned) = match self.two_phase(position, node, envelope) {
            Ok(found) => found,
            Err(cause) => {
                self.enforce_bounds(position);
                return Verdict::Aborted(cause);
            }
        };
        let verdict = self.judge(rules, position, &envelope);
        if let Verdict::Certified { .. } = verdict {
            match (envelope.two_phase, pinned) {
                (Some(TwoPhase { name, .. }), Some(pinned)) => self.pins.add(name, pinned),
                (Some(TwoPhase { name, .. }), None) => self.pins.remove(name),
                (None, _) => {}
            }
            let exclusive = envelope.groups.iter().flat_map(|group| &group.exclusive);
            let shared = envelope.groups.iter().flat_map(|group| &group.shared);
            let keys = self.remember(position, node, exclusive, shared);
            self.forget(2 * keys.max(PURGE_KEYS_MIN));
        }
        self.enforce_bounds(position);
        verdict
    }

    /// What PREPARE TRANSACTION pins if it is certified. COMMIT PREPARED holds what was pinned from here on: nobody else can have held it since it was.
    fn two_phase<'a>(
        &self,
        position: Position,
        node: NodeId,
        envelope: &'a Envelope,
    ) -> Result<(Cow<'a, Envelope>, Option<Pinned>), AbortCause> {
        let Some(TwoPhase { phase, name }) = envelope.two_phase else { return Ok((Cow::Borrowed(envelope), None)) };
        if phase == Phase::Prepare {
            if self.pins.get(name).is_some() {
                return Err(AbortCause::AlreadyPrepared);
            }
            let pinned = Pinned::of(position, node, envelope);
            let has_room = self.pins.has_room(&pinned);
            return has_room.then_some((Cow::Borrowed(envelope), Some(pinned))).ok_or(AbortCause::TooManyPrepared);
        }
        let pinned = self.pins.get(name).ok_or(AbortCause::NotPrepared)?;
        if phase == Phase::Rollback {
            return Ok((Cow::Borrowed(envelope), None));
        }
        let (exclusive, shared) = (pinned.exclusive.clone(), pinned.shared.clone());
        let mut decided = envelope.clone();
        decided.groups.push(KeyGroup { base: Position(position.0 - 1), exclusive, shared, checked: Vec::new() });
        Ok((Cow::Owned(decided), None))
    }

    fn judge(&self, rules: impl Rules, position: Position, envelope: &Envelope) -> Verdict {
        for group in envelope.groups.iter().filter(|group| !group.is_empty()) {
            if group.base >= position {
                return Verdict::Aborted(AbortCause::Malformed);
            }
            if group.base < self.horizon {
                return Verdict::Aborted(AbortCause::BelowHorizon { horizon: self.horizon });
            }
        }
        let own = envelope.two_phase.and_then(|two_phase| self.pins.get(two_phase.name)).map(|pinned| pinned.position);
        let is_prepared = envelope.two_phase.is_some_and(|two_phase| two_phase.phase == Phase::Prepare);
        let mut depends_on = self.horizon;
        for (key_index, (key, mode, base)) in envelope.keys().enumerate() {
            if let Some(winner) = rules.pinned(self.pins.against(key, mode, is_prepared, own)) {
                let (winner_node, key_index) = (self.pins.node_at(winner), key_index as u32);
                return Verdict::Aborted(AbortCause::Prepared { winner, winner_node, key_index });
            }
            let Some(last) = self.last_conflicting(rules, key, mode) else { continue };
            if last > rules.base(base) {
                let winner_node = self.node_at(last);
                let key_index = key_index as u32;
                return Verdict::Aborted(AbortCause::Conflict { winner: last, winner_node, key_index });
            }
            if mode != Mode::Checked {
                depends_on = depends_on.max(last);
            }
        }
        Verdict::Certified { depends_on: rules.depends_on(depends_on) }
    }

    /// The last holder of `key` whose mode does not go with `mode`.
    fn last_conflicting(&self, rules: impl Rules, key: Key, mode: Mode) -> Option<Position> {
        let Holders { exclusive, shared } = self.table.get(key)?;
        let last = match mode {
            Mode::Exclusive => rules.last_against_exclusive(exclusive, shared),
            Mode::Checked => exclusive.max(shared),
            Mode::Shared => exclusive,
        };
        Some(last).filter(|&last| last > self.horizon)
    }

    /// The last position that held the key in a mode that does not go with an exclusive holder, or a shared one; at least the horizon, below which nobody asks.
    pub fn last_against(&self, key: Key, exclusive: bool) -> Position {
        let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
        self.last_conflicting(Exact, key, mode).unwrap_or(self.horizon)
    }

    /// The last position above the horizon that held the key so, and whose it is.
    pub fn last_change(&self, key: Key, exclusive: bool) -> Option<(Position, NodeId)> {
        let mode = if exclusive { Mode::Exclusive } else { Mode::Shared };
        self.last_conflicting(Exact, key, mode).map(|last| (last, self.node_at(last)))
    }

    /// Which node's writeset was certified at `position`, which lies above the horizon.
    fn node_at(&self, position: Position) -> NodeId {
        match self.records.binary_search_by_key(&position, |record| record.position) {
            Ok(at) => self.records[at].node,
            Err(_) => NodeId::default(),
        }
    }

    /// Adds a certified writeset to the window; gives its number of keys.
    fn remember<'a>(
        &mut self,
        position: Position,
        node: NodeId,
        exclusive: impl Iterator<Item = &'a Key>,
        shared: impl Iterator<Item = &'a Key>,
    ) -> usize {
        let before = self.keys.len();
        for &key in exclusive {
            self.table.hold(key, Holders { exclusive: position, shared: Position::ZERO });
            self.keys.push_back(key);
        }
        let between = self.keys.len();
        for &key in shared {
            self.table.hold(key, Holders { exclusive: Position::ZERO, shared: position });
            self.keys.push_back(key);
        }
        let after = self.keys.len();
        self.keys_through += (after - before) as u64;
        self.records.push_back(Record {
            position,
            node,
            exclusive: (between - before) as u32,
            shared: (after - between) as u32,
            keys_through: self.keys_through,
        });
        after - before
    }

    /// Forgets up to `keys_max` keys below the horizon: a bounded piece of work for each writeset, never all at once.
    fn forget(&mut self, keys_max: usize) {
        let mut left = keys_max as u32;
        while self.above > 0 && left > 0 {
            let Some(record) = self.records.front_mut() else { break };
            let count = left.min(record.exclusive + record.shared);
            let exclusive = count.min(record.exclusive);
            record.exclusive -= exclusive;
            record.shared -= count - exclusive;
            let done = record.exclusive + record.shared == 0;
            for key in self.keys.drain(..count as usize) {
                self.table.forget(key, self.horizon);
            }
            if done {
                self.records.pop_front();
                self.above -= 1;
            }
            left -= count.max(1);
        }
    }

    /// The window is bounded whatever members report; the writeset just ordered stays inside.
    fn enforce_bounds(&mut self, position: Position) {
        let farthest = Position(position.0.saturating_sub(self.bounds.positions_max));
        self.raise_horizon(farthest);
        while self.keys_through - self.keys_through_horizon > self.bounds.keys_max {
            match self.records.get(self.above).map(|record| record.position) {
                Some(oldest) if oldest < position => self.raise_horizon(oldest),
                _ => break,
            }
        }
    }
}
