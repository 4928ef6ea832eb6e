//! Keys of prepared transactions: *pinned*, until the transaction is decided on (docs/adr/0061-prepared-transactions.md).
//!
//! A transaction that PREPARE TRANSACTION has certified may yet commit, at a position that nobody knows. It fits there only if nothing that it changed or read was
//! changed in between. So a writeset that holds or changes a pinned key aborts, whatever its base. A checked key of a later writeset meets no pin: what it stands for was read before
//! the prepared transaction commits, which comes later still. If the later writeset is itself to be prepared, that is not so: its checked key would be a pin that the earlier transaction
//! meets when it is committed. So it aborts, and what is prepared can be committed, whatever else is prepared.
//!
//! What is pinned is a function of the ordered history alone. It does not move with the horizon, and is bounded by itself.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, Mode, NodeId, Position};

use crate::bounds::{PINNED_KEYS_MAX, PREPARED_MAX};

/// One prepared transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pinned {
    /// Where it was prepared, and by which node.
    pub position: Position,
    pub node: NodeId,
    pub exclusive: Vec<Key>,
    pub shared: Vec<Key>,
    pub checked: Vec<Key>,
}

impl Pinned {
    pub(super) fn of(position: Position, node: NodeId, envelope: &Envelope) -> Pinned {
        let groups = || envelope.groups.iter();
        Pinned {
            position,
            node,
            exclusive: groups().flat_map(|group| &group.exclusive).copied().collect(),
            shared: groups().flat_map(|group| &group.shared).copied().collect(),
            checked: groups().flat_map(|group| &group.checked).copied().collect(),
        }
    }

    fn len(&self) -> usize {
        self.exclusive.len() + self.shared.len() + self.checked.len()
    }

    fn keys(&self) -> impl Iterator<Item = (Key, Mode)> + '_ {
        let of = |keys: &[Key], mode| keys.iter().map(move |key| (*key, mode)).collect::<Vec<_>>();
        let exclusive = of(&self.exclusive, Mode::Exclusive).into_iter();
        exclusive.chain(of(&self.shared, Mode::Shared)).chain(of(&self.checked, Mode::Checked))
    }
}

/// Who has pinned a key, by positions.
#[derive(Debug, Default)]
struct Holders {
    exclusive: BTreeSet<Position>,
    shared: BTreeSet<Position>,
    checked: BTreeSet<Position>,
}

impl Holders {
    fn of(&mut self, mode: Mode) -> &mut BTreeSet<Position> {
        match mode {
            Mode::Exclusive => &mut self.exclusive,
            Mode::Shared => &mut self.shared,
            Mode::Checked => &mut self.checked,
        }
    }

    fn is_empty(&self) -> bool {
        self.exclusive.is_empty() && self.shared.is_empty() && self.checked.is_empty()
    }
}

/// The prepared transactions of one database, by name.
#[derive(Debug, Default)]
pub struct Pins {
    by_name: BTreeMap<Key, Pinned>,
    by_key: BTreeMap<Key, Holders>,
    keys: usize,
}

impl Pins {
    /// In order of names: the whole state.
    pub fn all(&self) -> &BTreeMap<Key, Pinned> {
        &self.by_name
    }

    pub fn restore(pinned: impl IntoIterator<Item = (Key, Pinned)>) -> Pins {
        let mut pins = Pins::default();
        pinned.into_iter().for_each(|(name, pinned)| pins.add(name, pinned));
        pins
    }

    pub(super) fn get(&self, name: Key) -> Option<&Pinned> {
        self.by_name.get(&name)
    }

    /// Whether another transaction with these keys can be prepared.
    pub(super) fn has_room(&self, pinned: &Pinned) -> bool {
        self.by_name.len() < PREPARED_MAX && self.keys + pinned.len() <= PINNED_KEYS_MAX
    }

    pub(super) fn add(&mut self, name: Key, pinned: Pinned) {
        for (key, mode) in pinned.keys() {
            self.by_key.entry(key).or_default().of(mode).insert(pinned.position);
        }
        self.keys += pinned.len();
        self.by_name.insert(name, pinned);
    }

    pub(super) fn remove(&mut self, name: Key) {
        let Some(pinned) = self.by_name.remove(&name) else { return };
        for (key, mode) in pinned.keys() {
            let Some(holders) = self.by_key.get_mut(&key) else { continue };
            holders.of(mode).remove(&pinned.position);
            if holders.is_empty() {
                self.by_key.remove(&key);
            }
        }
        self.keys -= pinned.len();
    }

    /// The first that has pinned the key in a mode that does not go with this one, but for the one that was prepared at `own`. Whether the key is to be pinned is what a checked one depends on.
    pub(super) fn against(&self, key: Key, mode: Mode, is_pinned: bool, own: Option<Position>) -> Option<Position> {
        let holders = self.by_key.get(&key)?;
        let first = |of: &BTreeSet<Position>| of.iter().copied().find(|position| Some(*position) != own);
        let found = match mode {
            Mode::Exclusive => [first(&holders.exclusive), first(&holders.shared), first(&holders.checked)],
            Mode::Shared => [first(&holders.exclusive), first(&holders.checked), None],
            Mode::Checked if is_pinned => [first(&holders.exclusive), first(&holders.shared), None],
            Mode::Checked => [None; 3],
        };
        found.into_iter().flatten().min()
    }

    /// The node that prepared a transaction at this position.
    pub(super) fn node_at(&self, position: Position) -> NodeId {
        let found = self.by_name.values().find(|pinned| pinned.position == position);
        found.map_or(NodeId::default(), |pinned| pinned.node)
    }
}
