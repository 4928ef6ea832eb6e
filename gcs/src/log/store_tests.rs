//! The store against a model: after any crash it is what it was at some point since the last flush.

use bytes::Bytes;
use gcs_core::{Checkpoint, DurableWrite, EntryOutcome, LogIndex, PositionOutcome};
use gcs_writeset::link::Verdict;
use gcs_writeset::{DatabaseId, Position};
use proptest::prelude::*;
use raft::eraftpb::Entry;
use raft::{GetEntriesContext, Storage};

use super::*;

fn open(directory: &Path) -> Result<(Log, Recovered), LogError> {
    Log::open(directory)
}

fn entry(index: u64, term: u64, length: usize) -> Entry {
    Entry { index, term, data: vec![index as u8; length], ..Default::default() }
}

fn outcome(index: u64) -> EntryOutcome {
    let position = PositionOutcome {
        database: DatabaseId(1),
        position: Position(index),
        ordinal: 0,
        verdict: Verdict::Certified { depends_on: Position(index - 1) },
        chunks: Vec::new(),
    };
    EntryOutcome { index: LogIndex(index), positions: vec![position], heads: vec![(DatabaseId(1), Position(index))] }
}

fn hard_state(term: u64, commit: u64) -> HardState {
    HardState { term, vote: 1, commit }
}

fn append(from: u64, to: u64, term: u64) -> DurableWrite {
    let entries = (from..=to).map(|index| entry(index, term, 100)).collect();
    DurableWrite { entries, hard_state: Some(hard_state(term, from - 1)), sync: true, ..Default::default() }
}

fn all(log: &Log) -> Vec<(u64, u64)> {
    let reader = log.reader();
    let (first, last) = (reader.first_index().unwrap(), reader.last_index().unwrap());
    let entries = reader.entries(first, last + 1, None, GetEntriesContext::empty(false)).unwrap();
    entries.iter().map(|entry| (entry.index, entry.term)).collect()
}

fn checkpoint(index: u64, term: u64) -> Checkpoint {
    Checkpoint { index: LogIndex(index), term, state: Bytes::from(format!("state {index}")) }
}

#[test]
fn what_was_written_is_there_again() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (mut log, recovered) = open(directory.path()).unwrap();
        assert!(recovered.hard_state.is_none() && recovered.checkpoint.is_none());
        log.write(append(1, 3, 1)).unwrap();
        log.write(append(3, 5, 2)).unwrap();
        log.write(DurableWrite { outcomes: (1..=2).map(outcome).collect(), ..Default::default() }).unwrap();
    }
    let (log, recovered) = open(directory.path()).unwrap();
    assert_eq!(all(&log), [(1, 1), (2, 1), (3, 2), (4, 2), (5, 2)]);
    assert_eq!(recovered.hard_state, Some(hard_state(2, 2)));
    let reader = log.reader();
    assert_eq!(reader.outcome(LogIndex(2)).unwrap(), Some(outcome(2)));
    assert_eq!(reader.outcomes(), LogIndex(1)..LogIndex(3));
    assert_eq!(reader.term(3).unwrap(), 2);
}

#[test]
fn a_locked_directory_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let _lock = super::super::DirectoryLock::take(directory.path()).unwrap();
    let error = super::super::DirectoryLock::take(directory.path()).unwrap_err();
    assert!(matches!(error, LogError::InUse(_)), "{error}");
}

#[test]
fn truncation_waits_for_a_durable_checkpoint_and_then_frees_segments() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path()).unwrap();
    // Three entries a segment.
    for index in 1..=10u64 {
        let write = DurableWrite {
            entries: vec![entry(index, 1, 256 << 10)],
            hard_state: Some(hard_state(1, index)),
            outcomes: vec![outcome(index)],
            truncate_to: Some(LogIndex(index)),
            sync: true,
            ..Default::default()
        };
        log.write(write).unwrap();
    }
    assert_eq!(log.reader().first_index().unwrap(), 1);
    log.write(DurableWrite { checkpoint: Some(checkpoint(9, 1)), ..Default::default() }).unwrap();
    drop(log); // waits for the keeper

    let (mut log, recovered) = open(directory.path()).unwrap();
    assert_eq!(recovered.checkpoint, Some(checkpoint(9, 1)));
    log.write(DurableWrite { truncate_to: Some(LogIndex(10)), sync: true, ..Default::default() }).unwrap();
    assert_eq!(log.reader().first_index().unwrap(), 10);
    assert_eq!(log.reader().term(9).unwrap(), 1);
    assert!(log.reader().outcome(LogIndex(9)).unwrap().is_none());
    drop(log);
    assert!(segment::list(&directory.path().join("log")).unwrap()[0] > 2);
    let (log, recovered) = open(directory.path()).unwrap();
    assert_eq!((all(&log), recovered.checkpoint), (vec![(10, 1)], Some(checkpoint(9, 1))));
    assert_eq!(log.reader().snapshot(0, 2).unwrap().data, b"state 9");
}

/// Without the limit nothing goes that the core wants kept.
#[test]
fn beyond_its_limit_the_log_gives_up_its_oldest_end_but_nothing_behind_the_checkpoint() {
    for (limit, is_kept_whole) in [(None, true), (Some(4), false)] {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path()).unwrap();
        if let Some(segments) = limit {
            log.keep_at_most(segments * SEGMENT_BYTES);
        }
        // Three entries a segment.
        let mut write = |index: u64, checkpoint: Option<Checkpoint>| {
            let write = DurableWrite {
                entries: vec![entry(index, 1, 256 << 10)],
                hard_state: Some(hard_state(1, index)),
                outcomes: vec![outcome(index)],
                checkpoint,
                sync: true,
                ..Default::default()
            };
            log.write(write).unwrap();
            log.reader().first_index().unwrap()
        };
        assert_eq!((1..=30).map(|index| write(index, None)).max(), Some(1), "there is no checkpoint to go on from");
        write(31, Some(checkpoint(3, 1)));
        let with_checkpoint = (32..=40)
            .map(|index| {
                std::thread::yield_now();
                write(index, None)
            })
            .max()
            .unwrap();
        assert!(with_checkpoint <= 4, "{with_checkpoint}");
        write(41, Some(checkpoint(40, 1)));
        drop(log); // waits for the keeper

        let (mut log, _) = open(directory.path()).unwrap();
        if let Some(segments) = limit {
            log.keep_at_most(segments * SEGMENT_BYTES);
        }
        log.write(append(42, 42, 1)).unwrap();
        assert_eq!(log.reader().first_index().unwrap() == 1, is_kept_whole);
        let (first, count) =
            (log.reader().first_index().unwrap(), segment::list(&directory.path().join("log")).unwrap().len());
        drop(log);
        assert!(is_kept_whole || (first > 25 && count > 4), "{first} {count}");
        assert!(is_kept_whole || segment::list(&directory.path().join("log")).unwrap().len() <= 6);
        let (log, _) = open(directory.path()).unwrap();
        assert_eq!(all(&log).last(), Some(&(42, 1)));
    }
}

#[test]
fn a_snapshot_takes_the_place_of_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path()).unwrap();
    log.write(append(1, 5, 1)).unwrap();
    log.write(DurableWrite { outcomes: vec![outcome(1)], ..Default::default() }).unwrap();
    let write = DurableWrite {
        install: Some(checkpoint(100, 7)),
        entries: vec![entry(101, 7, 10)],
        hard_state: Some(hard_state(7, 100)),
        sync: true,
        ..Default::default()
    };
    log.write(write).unwrap();
    log.write(DurableWrite { outcomes: vec![outcome(101)], ..Default::default() }).unwrap();
    for _ in 0..2 {
        assert_eq!((all(&log), log.reader().term(100).unwrap()), (vec![(101, 7)], 7));
        assert_eq!(log.reader().outcomes(), LogIndex(101)..LogIndex(102));
        drop(log);
        let (reopened, recovered) = open(directory.path()).unwrap();
        assert_eq!(recovered.checkpoint, Some(checkpoint(100, 7)));
        log = reopened;
    }
}

#[test]
fn a_checkpoint_whose_record_never_came_counts_for_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path()).unwrap();
    log.write(append(1, 5, 1)).unwrap();
    drop(log);
    super::checkpoint::save(&directory.path().join("checkpoints"), &checkpoint(100, 7)).unwrap();
    let (log, recovered) = open(directory.path()).unwrap();
    assert_eq!((all(&log).len(), recovered.checkpoint), (5, None));
}

#[test]
fn a_flipped_byte_in_front_of_flushed_records_is_a_hole_and_behind_them_is_cut() {
    let directory = tempfile::tempdir().unwrap();
    let (mut log, _) = open(directory.path()).unwrap();
    log.write(append(1, 1, 1)).unwrap();
    let middle = log.tail;
    log.write(append(2, 2, 1)).unwrap();
    let end = log.tail;
    log.write(append(3, 3, 1)).unwrap();
    drop(log);
    let path = segment::path(&directory.path().join("log"), 1);
    let whole = std::fs::read(&path).unwrap();

    let mut broken = whole.clone();
    broken[middle as usize + 40] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    let error = open(directory.path()).unwrap_err().to_string();
    assert!(error.contains("has a hole") && error.contains("had been flushed"), "{error}");

    let mut broken = whole;
    broken[end as usize + 40] ^= 1;
    std::fs::write(&path, &broken).unwrap();
    let (mut log, _) = open(directory.path()).unwrap();
    assert_eq!(all(&log), [(1, 1), (2, 1)]);
    log.write(append(3, 4, 2)).unwrap();
    drop(log);
    assert_eq!(all(&open(directory.path()).unwrap().0), [(1, 1), (2, 1), (3, 2), (4, 2)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// A crash leaves the file cut anywhere behind the last flush, possibly with garbage in the rest.
    #[test]
    fn a_crash_loses_only_what_was_not_flushed(
        writes in prop::collection::vec((1u64..4, 0u64..3, any::<bool>()), 1..12),
        cut in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 0..40),
        again in any::<bool>(),
    ) {
        let directory = tempfile::tempdir().unwrap();
        let (mut log, _) = open(directory.path()).unwrap();
        let (mut term, mut flushed, mut states) = (1, log.tail, vec![(log.tail, vec![])]);
        let mut flushed_state = 0;
        for (count, back, sync) in writes {
            let last = log.reader().last_index().unwrap();
            let first = (last + 1).saturating_sub(back).max(1);
            term += 1;
            let entries = (first..first + count).map(|index| entry(index, term, 30)).collect();
            log.write(DurableWrite { entries, sync, ..Default::default() }).unwrap();
            states.push((log.tail, all(&log)));
            if sync {
                (flushed, flushed_state) = (log.tail, states.len() - 1);
            }
        }
        let tail = log.tail;
        drop(log);
        let path = segment::path(&directory.path().join("log"), 1);
        let whole = std::fs::read(&path).unwrap();
        let cut = flushed as usize + cut.index((tail - flushed) as usize + 1);
        let mut bytes = whole[..cut].to_vec();
        bytes.extend_from_slice(&garbage);
        std::fs::write(&path, &bytes).unwrap();

        // What is missing reads as zeros, so a record that ends in zeros is whole without them; and what stands in its padding
        // does not matter.
        bytes.resize(bytes.len().max(tail as usize), 0);
        let content_end = |start: usize| {
            let length = whole[start..].first_chunk::<4>().copied().map_or(0, u32::from_le_bytes);
            start + crate::log::record::HEADER_BYTES + length as usize
        };
        let is_whole = |start: u64| {
            let range = start as usize..content_end(start as usize);
            bytes[range.clone()] == whole[range]
        };
        let expected = (1..states.len()).take_while(|&at| is_whole(states[at - 1].0)).last().unwrap_or(0);
        prop_assert!(expected >= flushed_state);
        let (mut log, _) = open(directory.path()).unwrap();
        prop_assert_eq!(&all(&log), &states[expected].1);
        if again {
            let last = log.reader().last_index().unwrap();
            log.write(DurableWrite { entries: vec![entry(last + 1, term, 1)], sync: true, ..Default::default() }).unwrap();
            let before = all(&log);
            drop(log);
            prop_assert_eq!(all(&open(directory.path()).unwrap().0), before);
        }
    }
}
