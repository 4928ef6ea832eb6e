//! A disk: batches are atomic, and a crash loses those not flushed, from the end.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use bytes::Bytes;
use gcs_core::{Checkpoint, DurableWrite, LogIndex, LogRef, PositionOutcome, Recovered};
use gcs_writeset::{DatabaseId, Position, Tag};
use raft::eraftpb::{Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use crate::rng::Rng;

/// What is on it, flushed or not.
#[derive(Clone, Default)]
pub struct Content {
    /// Index and term of what the entries follow.
    base: (u64, u64),
    entries: Vec<Rc<Entry>>,
    hard_state: Option<HardState>,
    checkpoint: Option<Checkpoint>,
    outcomes: BTreeMap<(DatabaseId, Position), (LogIndex, PositionOutcome)>,
}

impl Content {
    fn write(&mut self, write: &DurableWrite) {
        if let Some(install) = &write.install {
            self.base = (install.index.0, install.term);
            self.entries.clear();
            self.outcomes.clear();
            self.checkpoint = Some(install.clone());
        }
        if let Some(first) = write.entries.first() {
            self.entries.truncate((first.index - 1 - self.base.0) as usize);
            self.entries.extend(write.entries.iter().cloned().map(Rc::new));
        }
        if let Some(hard_state) = &write.hard_state {
            self.hard_state = Some(hard_state.clone());
        }
        for outcome in &write.outcomes {
            for position in &outcome.positions {
                self.outcomes.insert((position.database, position.position), (outcome.index, position.clone()));
            }
        }
        if let Some(checkpoint) = &write.checkpoint {
            self.checkpoint = Some(checkpoint.clone());
        }
        if let Some(LogIndex(index)) = write.truncate_to
            && index > self.base.0
        {
            let count = (index - self.base.0) as usize;
            self.base = (index, self.entries[count - 1].term);
            self.entries.drain(..count);
            self.outcomes.retain(|_, (at, _)| at.0 > index);
        }
    }

    fn entry(&self, index: u64) -> Option<&Rc<Entry>> {
        self.entries.get(index.checked_sub(self.base.0 + 1)? as usize)
    }

    /// Whether entry `index` with these very bytes is here, or was, before it was released.
    pub fn holds(&self, index: LogIndex, data: &[u8]) -> bool {
        index.0 <= self.base.0 || self.entry(index.0).is_some_and(|entry| entry.data == data)
    }
}

#[derive(Default)]
pub struct Disk {
    flushed: Content,
    current: Content,
    unflushed: Vec<DurableWrite>,
}

impl Disk {
    pub fn write(&mut self, write: DurableWrite) {
        self.current.write(&write);
        let flush = write.sync;
        self.unflushed.push(write);
        if flush {
            for write in self.unflushed.drain(..) {
                self.flushed.write(&write);
            }
        }
    }

    /// Power is lost. A prefix of what was not flushed may have got there all the same.
    pub fn crash(&mut self, rng: &mut Rng) {
        let survivors = rng.between(0, self.unflushed.len() as u64) as usize;
        for write in self.unflushed.drain(..).take(survivors) {
            self.flushed.write(&write);
        }
        self.current = self.flushed.clone();
    }

    pub fn flushed(&self) -> &Content {
        &self.flushed
    }

    pub fn recovered(&self) -> Recovered {
        Recovered { hard_state: self.current.hard_state.clone(), checkpoint: self.current.checkpoint.clone() }
    }

    pub fn data(&self, index: LogIndex) -> Option<Bytes> {
        self.current.entry(index.0).map(|entry| Bytes::copy_from_slice(&entry.data))
    }

    pub fn payload(&self, at: LogRef) -> Option<(Tag, Bytes)> {
        gcs_core::command::payload_at(&self.data(at.index)?, at.ordinal).ok()
    }

    pub fn outcome(&self, database: DatabaseId, position: Position) -> Option<&(LogIndex, PositionOutcome)> {
        self.current.outcomes.get(&(database, position))
    }
}

/// Shared between a core, which reads, and its driver, which writes.
#[derive(Clone, Default)]
pub struct SimLog(pub Rc<RefCell<Disk>>);

impl Storage for SimLog {
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
        let content = &disk.current;
        if low <= content.base.0 {
            return Err(raft::Error::Store(StorageError::Compacted));
        }
        let range = (low - content.base.0 - 1) as usize..(high - content.base.0 - 1) as usize;
        let mut entries: Vec<Entry> = content.entries[range].iter().map(|entry| (**entry).clone()).collect();
        raft::util::limit_size(&mut entries, max_size.into());
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let disk = self.0.borrow();
        let content = &disk.current;
        if index < content.base.0 {
            Err(raft::Error::Store(StorageError::Compacted))
        } else if index == content.base.0 {
            Ok(content.base.1)
        } else {
            content.entry(index).map(|entry| entry.term).ok_or(raft::Error::Store(StorageError::Unavailable))
        }
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.0.borrow().current.base.0 + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        let disk = self.0.borrow();
        Ok(disk.current.base.0 + disk.current.entries.len() as u64)
    }

    fn snapshot(&self, _: u64, _: u64) -> raft::Result<Snapshot> {
        let disk = self.0.borrow();
        let Some(checkpoint) = &disk.current.checkpoint else {
            return Err(raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable));
        };
        let metadata = SnapshotMetadata { index: checkpoint.index.0, term: checkpoint.term, conf_state: None };
        Ok(Snapshot { data: checkpoint.state.to_vec(), metadata: Some(metadata) })
    }
}
