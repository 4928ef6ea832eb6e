//! The chunks of one submission, read from the log one after the other, as `Body` frames.

use std::collections::VecDeque;

use gcs_core::LogRef;
use gcs_core::command::chunk_at;
use gcs_writeset::link::{self, Reply};
use gcs_writeset::wire::WireError;
use gcs_writeset::{Position, Tag};

use super::piece::BacklogError;
use crate::log::LogReader;

#[derive(Debug)]
pub struct ChunkReader {
    log: LogReader,
    /// What the frames say they belong to.
    position: Position,
    tag: Tag,
    /// The index of the first of those that are left.
    next: u32,
    left: VecDeque<LogRef>,
}

impl ChunkReader {
    /// All chunks of a submission, which stand at these places.
    pub fn new(log: LogReader, position: Position, tag: Tag, chunks: Vec<LogRef>) -> ChunkReader {
        ChunkReader { log, position, tag, next: 0, left: chunks.into() }
    }

    pub fn is_at_end(&self) -> bool {
        self.left.is_empty()
    }

    /// Appends the next chunk, if there is one.
    pub fn put_next(&mut self, out: &mut Vec<u8>) -> Result<(), BacklogError> {
        let Some(at) = self.left.pop_front() else { return Ok(()) };
        let data = self.log.data(at.index)?.ok_or(BacklogError::Truncated)?;
        let (tag, index, bytes) = chunk_at(&data, at.ordinal)?;
        if (tag, index) != (self.tag, self.next) {
            return Err(BacklogError::Wire(WireError::OutOfRange { what: "place of a chunk" }));
        }
        self.next += 1;
        link::put_frame(out, &Reply::Body { position: self.position, more: !self.is_at_end() }, &bytes)?;
        Ok(())
    }

    /// Appends chunks until there are `bytes_max`, or no more.
    pub fn fill(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), BacklogError> {
        while !self.is_at_end() && out.len() < bytes_max {
            self.put_next(out)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gcs_core::command::{Command, encode_entry};
    use gcs_core::{DurableWrite, LogIndex};
    use gcs_writeset::{DatabaseId, Incarnation, NodeId, Sequence, SlotId};
    use raft::eraftpb::Entry;

    use super::*;
    use crate::log::Log;

    const TAG: Tag = Tag {
        database: DatabaseId(1),
        node: NodeId(2),
        incarnation: Incarnation(3),
        slot: SlotId(4),
        sequence: Sequence(5),
    };

    /// Entry 1 holds chunk 1, and entry 2 chunks 2 and 0.
    fn log(directory: &std::path::Path) -> Log {
        let chunk = |index: u32| Command::Chunk { tag: TAG, index, bytes: Bytes::from(vec![index as u8; 100]) }.encode();
        let entries = [vec![chunk(1)], vec![chunk(2), chunk(0)]];
        let entries = (1..).zip(entries).map(|(index, commands)| {
            let data = encode_entry(&commands);
            Entry { index, term: 1, data, ..Default::default() }
        });
        let mut log = Log::open(directory).unwrap().0;
        log.write(DurableWrite { entries: entries.collect(), ..Default::default() }).unwrap();
        log
    }

    fn at(index: u64, ordinal: u32) -> LogRef {
        LogRef { index: LogIndex(index), ordinal }
    }

    #[test]
    fn chunks_are_read_in_their_order_however_it_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        for bytes_max in [1, 150, 1_000] {
            let chunks = vec![at(2, 1), at(1, 0), at(2, 0)];
            let mut reader = ChunkReader::new(log.reader(), Position::ZERO, TAG, chunks);
            let mut found = Vec::new();
            while !reader.is_at_end() {
                let mut frames = Vec::new();
                reader.fill(&mut frames, bytes_max).unwrap();
                let mut frames = &frames[..];
                while let Some(length) = link::frame_len(frames).unwrap() {
                    let (reply, payload) = link::decode_frame::<Reply>(&frames[..length]).unwrap();
                    found.push((reply, payload.to_vec()));
                    frames = &frames[length..];
                }
            }
            let body = |i: u8| (Reply::Body { position: Position::ZERO, more: i < 2 }, vec![i; 100]);
            assert_eq!(found, [body(0), body(1), body(2)]);
        }
    }

    #[test]
    fn what_is_not_the_chunk_that_it_should_be_is_not_sent() {
        let directory = tempfile::tempdir().unwrap();
        let log = log(directory.path());
        let read = |tag: Tag, chunk: LogRef| {
            let mut frames = Vec::new();
            let result = ChunkReader::new(log.reader(), Position::ZERO, tag, vec![chunk]).put_next(&mut frames);
            assert!(frames.is_empty() || result.is_ok());
            result
        };
        assert!(read(TAG, at(2, 1)).is_ok());
        assert!(matches!(read(TAG, at(1, 0)), Err(BacklogError::Wire(_))), "another index");
        assert!(matches!(read(TAG, at(1, 7)), Err(BacklogError::Wire(_))), "nothing is there");
        assert!(matches!(read(Tag { slot: SlotId(9), ..TAG }, at(2, 1)), Err(BacklogError::Wire(_))));
        assert!(matches!(read(TAG, at(9, 0)), Err(BacklogError::Truncated)));
    }
}
