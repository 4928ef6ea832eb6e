//! Reading a log that somebody else may be writing: of a daemon that runs, or of one that does not. Nothing is opened for writing, made, locked or cut.
//!
//! The newest segments are read, record by record, up to the first that is not whole: an unfinished write, or one that is under way. A segment that has been deleted since its
//! directory was listed was the oldest one, and is left out.

use std::io::ErrorKind;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use gcs_core::{Checkpoint, Recovered};
use parking_lot::RwLock;
use raft::eraftpb::HardState;

use super::reader::{LogReader, LogState, Shared};
use super::record::{read_head, read_items};
use super::segment::{self, HEADER_BYTES, Segment};
use super::{LogError, checkpoint};

/// What was found.
pub struct Found {
    pub reader: LogReader,
    /// Nothing older is kept.
    pub is_all: bool,
    checkpoint: Option<Checkpoint>,
    hard_state: HardState,
}

impl Found {
    /// The newest `segments_max` segments of the log in this data directory.
    ///
    /// # Errors
    /// What cannot be read, or is damaged in its middle.
    pub fn look(data_directory: &Path, segments_max: usize) -> Result<Found, LogError> {
        let (directory, checkpoints) = (data_directory.join("log"), data_directory.join("checkpoints"));
        let numbers = segment::list(&directory)?;
        let skipped = numbers.len().saturating_sub(segments_max);
        let mut state = LogState::default();
        for number in numbers[skipped..].iter().copied() {
            let segment = match Segment::open_to_read(&directory, number) {
                Err(LogError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => continue,
                opened => Arc::new(opened?),
            };
            if !take(&mut state, &segment)? {
                break;
            }
        }
        let checkpoint = checkpoint::newest(&checkpoints, state.base.index, state.last_index())?;
        let (hard_state, written, cut_to) = (state.hard_state.clone(), AtomicU64::new(0), AtomicU64::new(0));
        let shared = Shared { state: RwLock::new(state), checkpoints, written, cut_to };
        let reader = LogReader { shared: Arc::new(shared) };
        Ok(Found { reader, is_all: skipped == 0, checkpoint, hard_state })
    }

    /// What a core needs to know of the same state as the daemon's. None if what was read does not reach back to the last checkpoint.
    pub fn recovered(&self) -> Option<Recovered> {
        let state = self.reader.shared.state.read();
        let applied = self.checkpoint.as_ref().map_or(0, |checkpoint| checkpoint.index.0);
        let entries = state.entries.range();
        let reaches_back = entries.is_empty() || entries.start <= applied + 1;
        let hard_state = Some(self.hard_state.clone()).filter(|state| *state != HardState::default());
        reaches_back.then(|| Recovered { hard_state, checkpoint: self.checkpoint.clone() })
    }
}

/// Takes in the records of a segment. False if it was not begun, or ends before its last record.
fn take(state: &mut LogState, segment: &Arc<Segment>) -> Result<bool, LogError> {
    let bytes = segment.read_all()?;
    let Some(header) = segment::read_header(segment.number, &bytes) else { return Ok(false) };
    let (mut at, mut sequence) = (HEADER_BYTES as usize, header.first_sequence);
    while let Some(head) = read_head(u64::from(segment.number), bytes.get(at..).unwrap_or_default())
        && head.sequence == sequence
    {
        let damaged = |source| LogError::Damaged { path: segment.path.clone(), offset: at as u64, source };
        let items = read_items(&head, &bytes[at..]).map_err(damaged)?;
        state.apply(segment.number, at as u32, items);
        sequence += 1;
        at += head.length;
    }
    state.segments.insert(segment.number, segment.clone());
    Ok(bytes.get(at..).unwrap_or_default().iter().all(|byte| *byte == 0))
}

#[cfg(test)]
mod tests {
    use gcs_core::{DurableWrite, EntryOutcome, LogIndex};
    use raft::eraftpb::Entry;

    use super::*;
    use crate::log::Log;

    fn fill(log: &mut Log, indexes: std::ops::RangeInclusive<u64>, bytes: usize) {
        for index in indexes {
            let outcome = EntryOutcome { index: LogIndex(index), positions: Vec::new(), heads: Vec::new() };
            let entries = vec![Entry { index, term: 1, data: vec![index as u8; bytes], ..Default::default() }];
            log.write(DurableWrite { entries, outcomes: vec![outcome], ..Default::default() }).unwrap();
        }
    }

    fn files(directory: &Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
        let mut found: Vec<_> = ["log", "checkpoints"]
            .iter()
            .flat_map(|name| std::fs::read_dir(directory.join(name)).unwrap())
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_name() != "spare")
            .map(|entry| (entry.path(), entry.metadata().unwrap().len(), entry.metadata().unwrap().modified().unwrap()))
            .collect();
        found.sort();
        found
    }

    #[test]
    fn the_log_of_a_running_daemon_is_read_and_nothing_of_it_is_changed() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap().0;
        fill(&mut log, 1..=40, 100_000);
        let before = files(directory.path());
        let all = Found::look(directory.path(), usize::MAX).unwrap();
        let newest = Found::look(directory.path(), 1).unwrap();
        assert_eq!(files(directory.path()), before);
        assert_eq!(all.reader.outcomes(), LogIndex(1)..LogIndex(41));
        assert!(all.is_all && all.recovered().is_some());
        assert!(!newest.is_all && newest.recovered().is_none());
        assert!(newest.reader.outcomes().start.0 > 1 && newest.reader.outcomes().end == LogIndex(41));
        assert_eq!(newest.reader.data(LogIndex(40)).unwrap().unwrap(), vec![40; 100_000]);
        fill(&mut log, 41..=42, 100);
        assert_eq!(Found::look(directory.path(), 1).unwrap().reader.outcomes().end, LogIndex(43), "it goes on");
    }

    #[test]
    fn an_unfinished_write_at_the_end_is_not_there_and_stays_where_it_is() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap().0;
        fill(&mut log, 1..=3, 100);
        drop(log);
        let segment = segment::path(&directory.path().join("log"), 1);
        let mut bytes = std::fs::read(&segment).unwrap();
        let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
        bytes[end] ^= 1;
        std::fs::write(&segment, &bytes).unwrap();
        let found = Found::look(directory.path(), usize::MAX).unwrap();
        assert_eq!(found.reader.outcomes(), LogIndex(1)..LogIndex(3));
        assert_eq!(std::fs::read(&segment).unwrap(), bytes);
    }
}
