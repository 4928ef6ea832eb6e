//! Opening and writing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Instant, SystemTime};

use gcs_core::{Checkpoint, DurableWrite, Recovered};
use parking_lot::RwLock;
use raft::eraftpb::HardState;

use super::keeper::Keeper;
use super::reader::{LogReader, LogState, Shared};
use super::record::{Base, RecordBuilder, read_head, read_items};
use super::segment::{self, HEADER_BYTES, Header, SEGMENT_BYTES, Segment};
use super::{LogError, checkpoint, sync_directory};
use crate::observe::counted::Counted;

/// The one that is written to, and one that a checkpoint may lie in.
const SEGMENTS_MIN: u64 = 2;

/// The only writer of the log. Used by one thread; readers are given out with [`Log::reader`].
#[derive(Debug)]
pub struct Log {
    directory: PathBuf,
    shared: Arc<Shared>,
    keeper: Keeper,
    record: RecordBuilder,
    current: Arc<Segment>,
    tail: u64,
    next_sequence: u64,
    /// Everything up to this record is on disk.
    synced: u64,
    /// What the core allows to forget; waits for a checkpoint that is durable.
    truncate_to: u64,
    /// Segments that are kept whatever anybody needs; `None` without a limit.
    segments_max: Option<usize>,
    /// The record that last moved the base; segments before it go when it has been flushed.
    base_sequence: Option<u64>,
    /// Where flushes are counted, if anywhere.
    counted: Option<Arc<Counted>>,
}

impl Log {
    /// Opens the log in a data directory that the caller has locked and claimed, or begins one.
    pub fn open(data_directory: &Path) -> Result<(Log, Recovered), LogError> {
        let directory = data_directory.join("log");
        let checkpoints = data_directory.join("checkpoints");
        for path in [&directory, &checkpoints] {
            std::fs::create_dir_all(path).map_err(LogError::io("create directory", path))?;
        }
        sync_directory(data_directory)?;
        let Replay { mut state, end } = Replay::run(&directory)?;
        let checkpoint = recover_checkpoint(&checkpoints, &directory, &state)?;
        state.checkpoint = checkpoint.as_ref().map(|c| Base { index: c.index.0, term: c.term });
        checkpoint::delete_others(&checkpoints, state.checkpoint)?;
        let hard_state = Some(state.hard_state.clone()).filter(|state| *state != HardState::default());

        let mut shared =
            Shared { state: RwLock::new(state), checkpoints, written: AtomicU64::new(0), cut_to: AtomicU64::new(0) };
        let (current, tail) = match end.current {
            Some(current) => (current, end.tail),
            None => {
                let number = end.next_number;
                let header = Header { previous_end: end.tail, first_sequence: end.next_sequence };
                let current = Arc::new(Segment::open(&directory, number)?);
                current.fill()?;
                current.write_header(&header)?;
                shared.state.get_mut().segments.insert(number, current.clone());
                (current, HEADER_BYTES)
            }
        };
        // Whatever was read is now relied on, so it must also survive the next crash.
        current.flush()?;
        sync_directory(&directory)?;
        let shared = Arc::new(shared);
        let mut log = Log {
            keeper: Keeper::start(&directory, shared.clone())?,
            directory,
            shared,
            record: RecordBuilder::default(),
            current,
            tail,
            next_sequence: end.next_sequence,
            synced: end.next_sequence - 1,
            truncate_to: 0,
            segments_max: None,
            base_sequence: None,
            counted: None,
        };
        if log.tail == HEADER_BYTES {
            log.write_state()?;
        }
        Ok((log, Recovered { hard_state, checkpoint }))
    }

    /// From now on the log gives up its oldest end beyond so many bytes, also if the core still wants it: whoever needs it, and has not read
    /// it, finds that the log does not reach back far enough. What is ordered but not in a durable checkpoint stays.
    pub fn keep_at_most(&mut self, bytes: u64) {
        let segments = (bytes / SEGMENT_BYTES).max(SEGMENTS_MIN);
        self.segments_max = Some(usize::try_from(segments).unwrap_or(usize::MAX));
    }

    pub fn count_in(&mut self, counted: Arc<Counted>) {
        self.counted = Some(counted);
    }

    /// When a log was last written to, as the file system has it; `None` if there is no segment.
    pub fn last_written(data_directory: &Path) -> Result<Option<SystemTime>, LogError> {
        let directory = data_directory.join("log");
        let numbers = if directory.exists() { segment::list(&directory)? } else { Vec::new() };
        let Some(newest) = numbers.last().copied() else { return Ok(None) };
        let path = segment::path(&directory, newest);
        let modified = std::fs::metadata(&path).and_then(|metadata| metadata.modified());
        modified.map(Some).map_err(LogError::io("look at", &path))
    }

    pub fn reader(&self) -> LogReader {
        LogReader { shared: self.shared.clone() }
    }

    /// Makes all of `write` durable, in one piece.
    pub fn write(&mut self, write: DurableWrite) -> Result<(), LogError> {
        self.keeper.check()?;
        self.check_contract(&write)?;
        self.record.start();
        if let Some(install) = &write.install {
            // The file first: the record makes it valid. Alone, it lies beyond the end of the log and counts for nothing.
            checkpoint::save(&self.shared.checkpoints, install)?;
            self.record.reset(Base { index: install.index.0, term: install.term });
        }
        self.record.entries(&write.entries);
        if let Some(hard_state) = &write.hard_state {
            self.record.hard_state(hard_state);
        }
        self.record.outcomes(&write.outcomes);
        self.truncate_to = self.truncate_to.max(write.truncate_to.map_or(0, |index| index.0));
        let moves_base = self.move_base(write.install.is_some());
        self.put_record(write.entries)?;
        if moves_base || write.install.is_some() {
            self.base_sequence = Some(self.next_sequence - 1);
        }
        if write.sync {
            self.flush()?;
        }
        if let Some(install) = &write.install {
            self.shared.publish_checkpoint(Base { index: install.index.0, term: install.term });
        }
        if let Some(checkpoint) = write.checkpoint {
            self.keeper.save(checkpoint, self.current.clone());
        }
        Ok(())
    }

    /// Everything written so far survives a crash afterwards.
    pub fn flush(&mut self) -> Result<(), LogError> {
        if self.synced + 1 < self.next_sequence {
            let began = Instant::now();
            self.current.flush()?;
            if let Some(counted) = &self.counted {
                counted.flushed(began.elapsed());
            }
            self.synced = self.next_sequence - 1;
        }
        if self.base_sequence.is_some_and(|sequence| sequence <= self.synced) {
            self.base_sequence = None;
            self.delete_segments();
        }
        Ok(())
    }

    fn check_contract(&self, write: &DurableWrite) -> Result<(), LogError> {
        let state = self.shared.state.read();
        let (base, last) = match &write.install {
            Some(install) => (install.index.0, install.index.0),
            None => (state.base.index, state.last_index()),
        };
        if let Some(first) = write.entries.first().map(|entry| entry.index) {
            let dense = write.entries.iter().zip(first..).all(|(entry, index)| entry.index == index);
            if !dense || first <= base || first > last + 1 {
                return Err(LogError::Contract(format!("entries from {first} on a log of {}..={last}", base + 1)));
            }
        }
        if let Some(first) = write.outcomes.first().map(|outcome| outcome.index.0) {
            let known = if write.install.is_some() { 0..0 } else { state.outcomes.range() };
            let dense = write.outcomes.iter().zip(first..).all(|(outcome, index)| outcome.index.0 == index);
            if !dense || first <= base || (!known.is_empty() && first > known.end) {
                return Err(LogError::Contract(format!("outcomes from {first} behind {known:?}")));
            }
        }
        if write.install.is_some() && !write.sync {
            return Err(LogError::Contract("a snapshot installed without a flush".to_owned()));
        }
        Ok(())
    }

    /// Adds the new base to the record if there is one.
    fn move_base(&mut self, installs: bool) -> bool {
        let state = self.shared.state.read();
        let Some(checkpoint) = state.checkpoint.filter(|_| !installs) else { return false };
        let surplus = self.surplus(&state);
        let index = self.truncate_to.max(surplus).min(checkpoint.index);
        if index <= state.base.index {
            return false;
        }
        if index > self.truncate_to {
            self.shared.cut_to.store(index, Ordering::Relaxed);
            let bytes = state.segments.len() as u64 * SEGMENT_BYTES;
            tracing::warn!(
                index,
                bytes,
                "the log has reached log_retention, its oldest end goes: a node that was away for longer gets a copy"
            );
        }
        let Some(term) = state.term(index) else { return false };
        self.record.base(Base { index, term });
        true
    }

    /// The last entry of those segments that are too many; 0 if none are.
    fn surplus(&self, state: &LogState) -> u64 {
        let Some(first_kept) = self.segments_max.and_then(|max| self.current.number.checked_sub(max as u32 - 1)) else {
            return 0;
        };
        if state.segments.len() <= self.segments_max.unwrap_or(usize::MAX) {
            return 0;
        }
        state.entries.first_in(first_kept).map_or(0, |index| index.saturating_sub(1))
    }

    fn put_record(&mut self, entries: Vec<raft::eraftpb::Entry>) -> Result<(), LogError> {
        if self.record.is_empty() {
            return Ok(());
        }
        if self.tail > HEADER_BYTES && self.tail + self.record.len() as u64 > SEGMENT_BYTES {
            let record = std::mem::take(&mut self.record);
            self.roll()?;
            self.record = record;
        }
        let sequence = self.next_sequence;
        let (bytes, items) = self.record.finish(u64::from(self.current.number), sequence, self.synced);
        self.current.write(self.tail, bytes)?;
        self.shared.written.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let mut state = self.shared.state.write();
        state.apply(self.current.number, self.tail as u32, items);
        state.remember(entries);
        drop(state);
        self.tail += bytes.len() as u64;
        self.next_sequence += 1;
        Ok(())
    }

    /// Goes on in a new segment, which opens with all that earlier segments said and is not an entry or outcome.
    fn roll(&mut self) -> Result<(), LogError> {
        self.flush()?;
        let number = self.current.number + 1;
        if let Some(spare) = self.keeper.take_spare() {
            let path = segment::path(&self.directory, number);
            std::fs::rename(spare, &path).map_err(LogError::io("rename", spare))?;
        }
        let next = Arc::new(Segment::open(&self.directory, number)?);
        next.write_header(&Header { previous_end: self.tail, first_sequence: self.next_sequence })?;
        sync_directory(&self.directory)?;
        self.keeper.prepare_spare();
        self.shared.state.write().segments.insert(number, next.clone());
        self.current = next;
        self.tail = HEADER_BYTES;
        self.write_state()
    }

    fn write_state(&mut self) -> Result<(), LogError> {
        self.record.start();
        {
            let state = self.shared.state.read();
            self.record.base(state.base);
            self.record.hard_state(&state.hard_state);
        }
        self.put_record(Vec::new())
    }

    /// Hands segments to the keeper that hold nothing that is kept.
    fn delete_segments(&mut self) {
        let mut state = self.shared.state.write();
        let oldest = [state.entries.oldest_segment(), state.outcomes.oldest_segment()];
        let keep_from = oldest.into_iter().flatten().min().unwrap_or(self.current.number);
        while let Some(segment) = state.segments.first_entry().filter(|segment| *segment.key() < keep_from) {
            self.keeper.delete(segment.remove());
        }
    }
}

/// The checkpoint to go on from. A log that does not start at the beginning cannot do without.
fn recover_checkpoint(checkpoints: &Path, log: &Path, state: &LogState) -> Result<Option<Checkpoint>, LogError> {
    let outcomes = state.outcomes.range();
    // What the checkpoint covers is not applied again, so its outcomes must be here.
    let covered = if outcomes.is_empty() { state.base.index } else { outcomes.end - 1 };
    let found = checkpoint::newest(checkpoints, state.base.index, covered.min(state.last_index()))?;
    let hole = |message| Err(LogError::Hole { path: log.to_owned(), message });
    if found.is_none() && state.base.index > 0 {
        return hole(format!("it begins behind index {}, and there is no checkpoint of that", state.base.index));
    }
    if let Some(found) = &found
        && state.term(found.index.0) != Some(found.term)
    {
        return hole(format!("the checkpoint at index {} is of another term than the entry", found.index.0));
    }
    Ok(found)
}

/// Reads the segments in order.
struct Replay {
    state: LogState,
    end: End,
}

/// Where writing goes on.
struct End {
    /// The segment to go on in; `None` if a new one must be begun.
    current: Option<Arc<Segment>>,
    next_number: u32,
    /// End of the last record in the last segment.
    tail: u64,
    next_sequence: u64,
}

impl Replay {
    fn run(directory: &Path) -> Result<Replay, LogError> {
        let numbers = segment::list(directory)?;
        let first = numbers.first().copied().unwrap_or(1);
        let end = End { current: None, next_number: first, tail: 0, next_sequence: 1 };
        let mut replay = Replay { state: LogState::default(), end };
        for (at, number) in numbers.iter().copied().enumerate() {
            if number != replay.end.next_number {
                return Err(hole(directory, format!("segment {:08x} is missing", replay.end.next_number)));
            }
            replay.segment(directory, number, at == 0, at + 1 == numbers.len())?;
        }
        replay.check(directory)?;
        Ok(replay)
    }

    fn segment(&mut self, directory: &Path, number: u32, is_first: bool, is_last: bool) -> Result<(), LogError> {
        let segment = Segment::open(directory, number)?;
        let bytes = segment.read_all()?;
        let expected = self.end.next_sequence;
        let Some(header) = segment::read_header(number, &bytes) else {
            return self.cut(directory, segment, &bytes, 0, is_last);
        };
        if is_first {
            self.end.next_sequence = header.first_sequence;
        } else if header.previous_end != self.end.tail || header.first_sequence != expected {
            return Err(hole(directory, format!("segment {:08x} ends early, at byte {}", number - 1, self.end.tail)));
        }
        let mut at = HEADER_BYTES as usize;
        while let Some(head) = read_head(u64::from(number), &bytes[at.min(bytes.len())..])
            && head.sequence == self.end.next_sequence
        {
            let items = read_items(&head, &bytes[at..]).map_err(|source| LogError::Damaged {
                path: segment.path.clone(),
                offset: at as u64,
                source,
            })?;
            self.state.apply(number, at as u32, items);
            self.end.next_sequence += 1;
            at += head.length;
        }
        self.end.next_number = number + 1;
        self.end.tail = at as u64;
        let rest = bytes.get(at..).unwrap_or_default();
        if is_last && rest.iter().any(|byte| *byte != 0) {
            return self.cut(directory, segment, &bytes, at, is_last);
        }
        let segment = Arc::new(segment);
        self.state.segments.insert(number, segment.clone());
        if is_last {
            self.end.current = Some(segment);
        }
        Ok(())
    }

    /// A broken end at byte `at`: cut if nobody can have relied on it.
    fn cut(&mut self, directory: &Path, segment: Segment, bytes: &[u8], at: usize, is_last: bool) -> Result<(), LogError> {
        let expected = self.end.next_sequence;
        if !is_last {
            return Err(hole(directory, format!("segment {:08x} is broken at byte {at}", segment.number)));
        }
        if let Some(witness) = segment::find_witness(segment.number, bytes, at, expected) {
            let message = format!(
                "record {expected} in segment {:08x} at byte {at} is broken, but record {} says that it had been flushed",
                segment.number, witness.sequence
            );
            return Err(hole(directory, message));
        }
        tracing::warn!(segment = %segment.path.display(), byte = at, "cutting off an unfinished write at the end of the log");
        segment.truncate(at as u64)?;
        if at == 0 {
            // Not even its header got there: it is begun anew.
            self.end.next_number = segment.number;
        } else {
            self.end.next_number = segment.number + 1;
            self.end.tail = at as u64;
            self.state.segments.insert(segment.number, Arc::new(segment));
        }
        Ok(())
    }

    fn check(&self, directory: &Path) -> Result<(), LogError> {
        let state = &self.state;
        let entries = state.entries.range();
        if !entries.is_empty() && entries.start > state.base.index + 1 {
            return Err(hole(directory, format!("entries {} to {} are missing", state.base.index + 1, entries.start - 1)));
        }
        if state.hard_state.commit > state.last_index() {
            let message = format!("it ends at {}, but {} was committed", state.last_index(), state.hard_state.commit);
            return Err(hole(directory, message));
        }
        Ok(())
    }
}

fn hole(path: &Path, message: String) -> LogError {
    LogError::Hole { path: path.to_owned(), message }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
