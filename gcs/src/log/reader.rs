//! Reading what is kept, from any thread, and the log as raft sees it.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use gcs_core::{EntryOutcome, LogIndex};
use parking_lot::RwLock;
use raft::eraftpb::{ConfState, Entry, HardState, Snapshot, SnapshotMetadata};
use raft::{GetEntriesContext, RaftState, Storage, StorageError};

use super::index::{Place, Places, Terms};
use super::record::{Base, RecordItem, read_entry, read_entry_data, read_outcome};
use super::segment::{SEGMENT_BYTES, Segment};
use super::{LogError, checkpoint, reserve};

/// Entries kept in memory: raft reads every entry once more when it is committed, just after it was written.
const RECENT_BYTES_MAX: usize = 16 << 20;

/// What an entry costs beside its data, in limits.
const ENTRY_OVERHEAD_BYTES: usize = 32;

#[derive(Debug)]
pub struct Shared {
    pub state: RwLock<LogState>,
    pub checkpoints: PathBuf,
    /// Bytes, since the log was opened.
    pub written: AtomicU64,
    /// The last entry that went because there was no room for it, since the log was opened.
    pub cut_to: AtomicU64,
}

/// What the records, taken in order, add up to.
#[derive(Debug, Default)]
pub struct LogState {
    pub base: Base,
    pub hard_state: HardState,
    pub checkpoint: Option<Base>,
    pub entries: Places,
    pub terms: Terms,
    pub outcomes: Places,
    pub segments: BTreeMap<u32, Arc<Segment>>,
    recent: VecDeque<Recent>,
    recent_bytes: usize,
}

/// An entry at hand. Raft is given copies, since its entries own their data; whoever else reads it shares the data.
#[derive(Debug)]
struct Recent {
    index: u64,
    term: u64,
    entry_type: i32,
    data: Bytes,
    context: Vec<u8>,
}

impl Recent {
    fn new(entry: Entry) -> Recent {
        let Entry { index, term, entry_type, data, context, .. } = entry;
        Recent { index, term, entry_type, data: data.into(), context }
    }

    fn entry(&self) -> Entry {
        let (data, context) = (self.data.to_vec(), self.context.clone());
        Entry { index: self.index, term: self.term, entry_type: self.entry_type, data, context, ..Default::default() }
    }

    fn cost(&self) -> usize {
        self.data.len() + self.context.len() + ENTRY_OVERHEAD_BYTES
    }
}

impl Shared {
    /// False if a newer one is already there.
    pub fn publish_checkpoint(&self, checkpoint: Base) -> bool {
        let mut state = self.state.write();
        let newer = state.checkpoint.is_none_or(|known| known.index < checkpoint.index);
        if newer {
            state.checkpoint = Some(checkpoint);
        }
        newer
    }
}

impl LogState {
    pub fn last_index(&self) -> u64 {
        let range = self.entries.range();
        if range.is_empty() { self.base.index } else { range.end - 1 }
    }

    pub fn term(&self, index: u64) -> Option<u64> {
        if index == self.base.index {
            return Some(self.base.term);
        }
        if self.entries.range().contains(&index) { self.terms.get(index) } else { None }
    }

    /// Takes in the items of the record at `offset` of segment `segment`.
    pub fn apply(&mut self, segment: u32, offset: u32, items: Vec<RecordItem>) {
        let place = |range: Range<u32>| Place { segment, offset: offset + range.start, length: range.end - range.start };
        for item in items {
            match item {
                RecordItem::Entries { first, terms, places } => {
                    self.terms.append(first, terms.into_iter());
                    self.entries.append(first, places.into_iter().map(place));
                }
                RecordItem::Outcomes { first, places } => self.outcomes.append(first, places.into_iter().map(place)),
                RecordItem::HardState(state) => self.hard_state = state,
                RecordItem::Base(base) if base.index > self.base.index => {
                    self.base = base;
                    self.entries.drop_to(base.index);
                    self.outcomes.drop_to(base.index);
                    self.terms.drop_to(base.index);
                }
                RecordItem::Base(_) => {}
                RecordItem::Reset(base) => {
                    self.base = base;
                    self.entries.reset(base.index);
                    self.outcomes.reset(base.index);
                    self.terms.clear();
                    self.recent.clear();
                    self.recent_bytes = 0;
                }
            }
        }
    }

    /// Keeps entries that were just written at hand.
    pub fn remember(&mut self, entries: Vec<Entry>) {
        let Some(first) = entries.first().map(|entry| entry.index) else { return };
        while self.recent.back().is_some_and(|last| last.index >= first) {
            self.recent_bytes -= self.recent.pop_back().map_or(0, |entry| entry.cost());
        }
        if self.recent.back().is_some_and(|last| last.index + 1 != first) {
            self.recent.clear();
            self.recent_bytes = 0;
        }
        self.recent_bytes += entries.iter().map(cost).sum::<usize>();
        self.recent.extend(entries.into_iter().map(Recent::new));
        while self.recent_bytes > RECENT_BYTES_MAX && self.recent.len() > 1 {
            self.recent_bytes -= self.recent.pop_front().map_or(0, |entry| entry.cost());
        }
    }

    fn recent(&self, index: u64) -> Option<&Recent> {
        let at = index.checked_sub(self.recent.front()?.index)?;
        self.recent.get(usize::try_from(at).ok()?)
    }

    fn locate(&self, place: Option<Place>) -> Option<(Arc<Segment>, Place)> {
        let place = place?;
        Some((self.segments.get(&place.segment)?.clone(), place))
    }
}

fn cost(entry: &Entry) -> usize {
    entry.data.len() + entry.context.len() + ENTRY_OVERHEAD_BYTES
}

/// Reads the log; cheap to clone, and to be used from other threads than the one that writes.
#[derive(Clone, Debug)]
pub struct LogReader {
    pub(super) shared: Arc<Shared>,
}

impl LogReader {
    /// Bytes that have been written since the log was opened.
    pub fn written(&self) -> u64 {
        self.shared.written.load(Ordering::Relaxed)
    }

    /// The last entry that went because the log may not be longer, though somebody may need it; 0 if none did since the log was opened.
    pub fn cut_to(&self) -> u64 {
        self.shared.cut_to.load(Ordering::Relaxed)
    }

    /// Bytes of the files that are kept.
    pub fn kept(&self) -> u64 {
        self.shared.state.read().segments.len() as u64 * SEGMENT_BYTES
    }

    /// Of these files, how many there are.
    pub fn segments(&self) -> usize {
        self.shared.state.read().segments.len()
    }

    /// What is free on their disk, if that can be told.
    pub fn bytes_free(&self) -> Option<u64> {
        reserve::free(&self.shared.checkpoints).ok()
    }

    /// The Raft indexes whose outcomes are kept.
    pub fn outcomes(&self) -> Range<LogIndex> {
        let range = self.shared.state.read().outcomes.range();
        LogIndex(range.start)..LogIndex(range.end)
    }

    /// `None` if it is not there, or not any more.
    pub fn outcome(&self, index: LogIndex) -> Result<Option<EntryOutcome>, LogError> {
        let found = {
            let state = self.shared.state.read();
            state.locate(state.outcomes.get(index.0))
        };
        let Some((segment, place)) = found else { return Ok(None) };
        let bytes = segment.read(u64::from(place.offset), place.length as usize)?;
        read_outcome(index.0, &bytes).map(Some).map_err(|source| damaged(&segment, place, source))
    }

    /// `None` if it is not there, or not any more.
    pub fn entry(&self, index: LogIndex) -> Result<Option<Entry>, LogError> {
        let found = {
            let state = self.shared.state.read();
            if let Some(entry) = state.recent(index.0) {
                return Ok(Some(entry.entry()));
            }
            state.locate(state.entries.get(index.0))
        };
        let Some((segment, place)) = found else { return Ok(None) };
        let bytes = segment.read(u64::from(place.offset), place.length as usize)?;
        read_entry(index.0, &bytes).map(Some).map_err(|source| damaged(&segment, place, source))
    }

    /// The data of an entry, which is not copied; `None` if it is not there, or not any more.
    pub fn data(&self, index: LogIndex) -> Result<Option<Bytes>, LogError> {
        let found = {
            let state = self.shared.state.read();
            if let Some(entry) = state.recent(index.0) {
                return Ok(Some(entry.data.clone()));
            }
            state.locate(state.entries.get(index.0))
        };
        let Some((segment, place)) = found else { return Ok(None) };
        let bytes = Bytes::from(segment.read(u64::from(place.offset), place.length as usize)?);
        read_entry_data(&bytes).map(Some).map_err(|source| damaged(&segment, place, source))
    }
}

fn damaged(segment: &Segment, place: Place, source: gcs_writeset::wire::WireError) -> LogError {
    LogError::Damaged { path: segment.path.clone(), offset: u64::from(place.offset), source }
}

fn other(error: LogError) -> raft::Error {
    raft::Error::Store(StorageError::Other(Box::new(error)))
}

impl Storage for LogReader {
    fn initial_state(&self) -> raft::Result<RaftState> {
        // Who votes is in the ordered state, which is not the log's to read.
        Ok(RaftState::new(self.shared.state.read().hard_state.clone(), ConfState::default()))
    }

    fn entries(
        &self,
        low: u64,
        high: u64,
        max_size: impl Into<Option<u64>>,
        _context: GetEntriesContext,
    ) -> raft::Result<Vec<Entry>> {
        let limit = max_size.into().unwrap_or(u64::MAX);
        let (mut entries, mut size) = (Vec::new(), 0u64);
        for index in low..high {
            let Some(entry) = self.entry(LogIndex(index)).map_err(other)? else { break };
            size = size.saturating_add(cost(&entry) as u64);
            if size > limit && !entries.is_empty() {
                return Ok(entries);
            }
            entries.push(entry);
        }
        if entries.len() as u64 != high - low {
            let compacted = low <= self.shared.state.read().base.index;
            let error = if compacted { StorageError::Compacted } else { StorageError::Unavailable };
            return Err(raft::Error::Store(error));
        }
        Ok(entries)
    }

    fn term(&self, index: u64) -> raft::Result<u64> {
        let state = self.shared.state.read();
        state.term(index).ok_or_else(|| {
            let compacted = index < state.base.index;
            raft::Error::Store(if compacted { StorageError::Compacted } else { StorageError::Unavailable })
        })
    }

    fn first_index(&self) -> raft::Result<u64> {
        Ok(self.shared.state.read().base.index + 1)
    }

    fn last_index(&self) -> raft::Result<u64> {
        Ok(self.shared.state.read().last_index())
    }

    fn snapshot(&self, request_index: u64, _to: u64) -> raft::Result<Snapshot> {
        let unavailable = raft::Error::Store(StorageError::SnapshotTemporarilyUnavailable);
        let Some(newest) = self.shared.state.read().checkpoint.filter(|newest| newest.index >= request_index) else {
            return Err(unavailable);
        };
        // A newer one may just have taken its place; raft asks again.
        let Some(checkpoint) = checkpoint::load(&self.shared.checkpoints, newest.index).map_err(other)? else {
            return Err(unavailable);
        };
        Ok(Snapshot {
            data: checkpoint.state.to_vec(),
            metadata: Some(SnapshotMetadata { conf_state: None, index: checkpoint.index.0, term: checkpoint.term }),
        })
    }
}
