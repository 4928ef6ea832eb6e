//! A handful of cores on a perfect network, each with a log in memory: enough to watch the core at work. Faults are the
//! simulator's business (`tests/sim`).

#![allow(dead_code, reason = "each test file uses its part")]

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;

use bytes::Bytes;
use gcs_core::*;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{DatabaseId, Incarnation, Key, KeyGroup, NodeId, NodeKind, Position, Sequence, SlotId, Tag};
use raft::eraftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

#[derive(Default)]
pub struct Disk {
    /// Index and term of what the entries follow.
    pub base: (u64, u64),
    pub entries: Vec<Entry>,
    pub hard_state: Option<HardState>,
    pub checkpoint: Option<Checkpoint>,
    pub outcomes: Vec<EntryOutcome>,
}

/// Shared between a core, which reads, and its driver, which writes.
#[derive(Clone, Default)]
pub struct MemLog(pub Rc<RefCell<Disk>>);

impl MemLog {
    pub fn write(&self, write: &DurableWrite) {
        let mut disk = self.0.borrow_mut();
        if let Some(install) = &write.install {
            disk.base = (install.index.0, install.term);
            disk.entries.clear();
            disk.checkpoint = Some(install.clone());
        }
        if let Some(first) = write.entries.first() {
            let keep = first.index - 1 - disk.base.0;
            disk.entries.truncate(keep as usize);
            disk.entries.extend(write.entries.iter().cloned());
        }
        disk.hard_state = write.hard_state.clone().or(disk.hard_state.take());
        disk.outcomes.extend(write.outcomes.iter().cloned());
        disk.checkpoint = write.checkpoint.clone().or(disk.checkpoint.take());
        if let Some(LogIndex(index)) = write.truncate_to
            && index > disk.base.0
        {
            let count = (index - disk.base.0) as usize;
            disk.base = (index, disk.entries[count - 1].term);
            disk.entries.drain(..count);
        }
    }

    pub fn recovered(&self) -> Recovered {
        let disk = self.0.borrow();
        Recovered { hard_state: disk.hard_state.clone(), checkpoint: disk.checkpoint.clone() }
    }
}

impl Storage for MemLog {
    fn initial_state(&self) -> raft::Result<RaftState> {
        Ok(RaftState::default())
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let disk = self.0.borrow();
        if low <= disk.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let range = (low - disk.base.0 - 1) as usize..(high - disk.base.0 - 1) as usize;
        let mut entries = disk.entries[range].to_vec();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let disk = self.0.borrow();
        match index.checked_sub(disk.base.0) {
            None => Err(raft::Error::Store(StorageError::Compacted)),
            Some(0) => Ok(disk.base.1),
            Some(nth) => disk
                .entries
                .get(nth as usize - 1)
                .map(|entry| entry.term)
                .ok_or(raft::Error::Store(StorageError::Unavailable)),
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        let disk = self.0.borrow();
        Ok(disk.base.0 + disk.entries.len() as u64)
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        let disk = self.0.borrow();
        let Some(checkpoint) = &disk.checkpoint else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let metadata = SnapshotMetadata { index: checkpoint.index.0, term: checkpoint.term, conf_state: None };
        Ok(Snapshot { data: checkpoint.state.to_vec(), metadata: Some(metadata) })
    }
}

pub struct Node {
    pub core: Core<MemLog>,
    pub reads: Format,
    pub log: MemLog,
    pub inbox: VecDeque<Input>,
    pub ordered: Vec<Ordered>,
    pub replies: Vec<LocalReply>,
    pub up: bool,
}

/// Nodes a, b, c ... with ids 1, 2, 3 ...
pub struct Cluster {
    pub now: Tick,
    pub nodes: BTreeMap<NodeId, Node>,
    pub founders: Vec<Founder>,
    pub cut: BTreeSet<(NodeId, NodeId)>,
    pub limits: Limits,
    /// Up to which format nodes read that are started from now on.
    pub reads: Format,
}

pub fn node(name: &str) -> NodeId {
    NodeId(u64::from(name.as_bytes()[0] - b'a' + 1))
}

impl Cluster {
    pub fn new(size: usize) -> Cluster {
        Cluster::of(&vec![NodeKind::Full; size])
    }

    /// One node for each kind.
    pub fn of(kinds: &[NodeKind]) -> Cluster {
        let founders: Vec<Founder> = kinds
            .iter()
            .enumerate()
            .map(|(i, kind)| {
                let name = char::from(b'a' + i as u8).to_string();
                Founder { node: node(&name), address: format!("{name}:1"), name, kind: *kind }
            })
            .collect();
        let mut cluster = Cluster {
            now: Tick(0),
            nodes: BTreeMap::new(),
            founders: founders.clone(),
            cut: BTreeSet::new(),
            limits: Limits::default(),
            reads: Format::FIRST,
        };
        for founder in &founders {
            cluster.start(founder.node, MemLog::default());
        }
        cluster
    }

    pub fn config(&self, node: NodeId) -> CoreConfig {
        let founder = self.founders.iter().find(|founder| founder.node == node);
        let address = founder.map_or_else(|| format!("{node}:1"), |founder| founder.address.clone());
        let (group, founders) = ("postgresr".into(), self.founders.clone());
        CoreConfig {
            group,
            node,
            address,
            directory: 0,
            founders,
            reads: self.reads,
            seed: 7,
            detector: Detector::LAN,
            follows_writers: true,
        }
    }

    pub fn start(&mut self, id: NodeId, log: MemLog) {
        self.start_as(self.config(id), log);
    }

    pub fn start_as(&mut self, config: CoreConfig, log: MemLog) {
        let (id, reads) = (config.node, config.reads);
        let core = Core::with_limits(config, log.clone(), log.recovered(), self.limits).expect("the core starts");
        let mut inbox = VecDeque::new();
        let peers = self.nodes.iter().filter(|(other, n)| **other != id && n.up).map(|(other, n)| (*other, n.reads));
        for (peer, of_peer) in peers.collect::<Vec<_>>() {
            inbox.push_back(Input::PeerUp { node: peer, reads: of_peer });
            self.give(peer, Input::PeerUp { node: id, reads });
        }
        self.nodes.insert(id, Node { core, reads, log, inbox, ordered: Vec::new(), replies: Vec::new(), up: true });
    }

    /// The process ends; its log stays.
    pub fn stop(&mut self, id: NodeId) -> MemLog {
        let node = self.nodes.get_mut(&id).expect("a member");
        node.up = false;
        node.inbox.clear();
        let log = node.log.clone();
        let others: Vec<NodeId> = self.nodes.keys().copied().filter(|other| *other != id).collect();
        others.into_iter().for_each(|other| self.give(other, Input::PeerDown(id)));
        log
    }

    pub fn give(&mut self, id: NodeId, input: Input) {
        if let Some(node) = self.nodes.get_mut(&id).filter(|node| node.up) {
            node.inbox.push_back(input);
        }
    }

    pub fn local(&mut self, id: NodeId, local: Local) {
        self.give(id, Input::Local(local));
    }

    pub fn ticks(&mut self, count: u64) {
        for _ in 0..count {
            self.now.0 += 1;
            let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
            ids.into_iter().for_each(|id| self.give(id, Input::Tick));
            self.settle();
        }
    }

    /// Runs so many times whoever has something to do, ticking when nobody has.
    pub fn some_steps(&mut self, count: usize) {
        for _ in 0..count {
            match self.nodes.iter().find(|(_, n)| n.up && !n.inbox.is_empty()).map(|(id, _)| *id) {
                Some(id) => self.run(id),
                None => {
                    self.now.0 += 1;
                    let ids: Vec<NodeId> = self.nodes.keys().copied().collect();
                    ids.into_iter().for_each(|id| self.give(id, Input::Tick));
                }
            }
        }
    }

    /// Runs until nobody has anything to do.
    pub fn settle(&mut self) {
        while let Some(id) = self.nodes.iter().find(|(_, n)| n.up && !n.inbox.is_empty()).map(|(id, _)| *id) {
            self.run(id);
        }
    }

    fn run(&mut self, id: NodeId) {
        let node = self.nodes.get_mut(&id).expect("a member");
        let mut inputs: Vec<Input> = node.inbox.drain(..).collect();
        let mut posted = Vec::new();
        loop {
            let effects = node.core.step(self.now, std::mem::take(&mut inputs)).expect("no broken invariant");
            posted.extend(effects.send_now);
            if let Some(write) = &effects.write {
                node.log.write(write);
                inputs.push(Input::Written(write.number));
            }
            posted.extend(effects.send_after_write);
            node.ordered.extend(effects.ordered);
            node.replies.extend(effects.replies);
            if inputs.is_empty() {
                break;
            }
        }
        for (to, message) in posted {
            if !self.cut.contains(&(id, to)) {
                self.give(to, Input::Peer { from: id, message });
            }
        }
    }

    /// Whom every running node takes for the leader, if they agree, it runs, and each sees a quorum.
    pub fn leader(&self) -> Option<NodeId> {
        let mut views = self.nodes.values().filter(|n| n.up).map(|n| n.core.status(None));
        let leader = views.next().filter(|status| status.quorum)?.leader?;
        (self.nodes[&leader].up && views.all(|status| status.quorum && status.leader == Some(leader))).then_some(leader)
    }

    /// Ticks until there is a leader.
    pub fn elect(&mut self) -> NodeId {
        for _ in 0..100 {
            self.ticks(1);
            if let Some(leader) = self.leader() {
                self.ticks(1);
                return leader;
            }
        }
        panic!("no leader after 100 ticks");
    }

    pub fn replies(&mut self, id: NodeId) -> Vec<LocalReply> {
        std::mem::take(&mut self.nodes.get_mut(&id).expect("a member").replies)
    }

    pub fn ordered(&mut self, id: NodeId) -> Vec<Ordered> {
        std::mem::take(&mut self.nodes.get_mut(&id).expect("a member").ordered)
    }
}

pub fn tag(node: NodeId, incarnation: u64, slot: u32, sequence: u64) -> Tag {
    Tag {
        database: DatabaseId(1),
        node,
        incarnation: Incarnation(incarnation),
        slot: SlotId(slot),
        sequence: Sequence(sequence),
    }
}

pub fn writeset(base: u64, exclusive: &[u64], shared: &[u64]) -> Bytes {
    let keys = |keys: &[u64]| keys.iter().copied().map(Key).collect();
    let group = KeyGroup { base: Position(base), exclusive: keys(exclusive), shared: keys(shared), ..KeyGroup::default() };
    let envelope = Envelope { oldest_base: Position(base), groups: vec![group], ..Envelope::default() };
    Bytes::from(envelope.encode(b"body"))
}
