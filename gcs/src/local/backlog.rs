//! Positions read back from disk, as frames, in bounded pieces.
//!
//! A position is found by binary search over the outcomes' heads, and from there outcome by outcome. A writeset in chunks may be
//! far larger than a piece: the piece then ends in the middle, and the next goes on there.

use std::collections::VecDeque;

use gcs_core::command::{Command, decode_entry};
use gcs_core::{EntryOutcome, LogIndex, PositionOutcome};
use gcs_writeset::link::{self, Reply, Verdict};
use gcs_writeset::wire::WireError;
use gcs_writeset::{DatabaseId, Incarnation, NodeId, Position, Tag};

use super::chunk_reader::ChunkReader;
use super::piece::{self, BacklogError, Piece};
use crate::bounds::BACKLOG_PIECE_BYTES;
use crate::log::LogReader;
use crate::outbox::Outbox;
use crate::withheld::Withheld;

/// Who reads a stream: its own writesets are not sent back to it, nor those that its server has applied ahead.
#[derive(Clone, Debug)]
pub struct Origin {
    pub node: NodeId,
    pub incarnation: Incarnation,
    pub withheld: Withheld,
}

impl Origin {
    /// Whether a position is delivered with its writeset: not to the one that submitted it, which has it, and not where it is applied already.
    pub fn carries(&self, outcome: &PositionOutcome, tag: Tag) -> bool {
        let own = tag.node == self.node && tag.incarnation == self.incarnation;
        let is_applied = || !outcome.chunks.is_empty() && self.withheld.contains(tag);
        matches!(outcome.verdict, Verdict::Certified { .. }) && !own && !is_applied()
    }
}

#[derive(Clone, Debug)]
enum Wanted {
    /// Every position, as this reader gets it.
    Stream(Origin),
    /// The writeset of a single one.
    Writeset,
}

#[derive(Debug)]
pub struct Backlog {
    log: LogReader,
    database: DatabaseId,
    wanted: Wanted,
    next: Position,
    /// The outcomes from here on have not been looked at; `None` before the search.
    index: Option<LogIndex>,
    /// Positions of the entry before `index` that have not been sent.
    positions: VecDeque<PositionOutcome>,
    commands: Vec<Command>,
    /// Of the last position that was sent, if it has some.
    chunks: Option<ChunkReader>,
}

impl Backlog {
    /// Every position from `next` on.
    pub fn stream(log: LogReader, origin: Origin, database: DatabaseId, next: Position) -> Backlog {
        Backlog::new(log, database, Wanted::Stream(origin), next)
    }

    /// The writeset of one position.
    pub fn fetch(log: LogReader, database: DatabaseId, position: Position) -> Backlog {
        Backlog::new(log, database, Wanted::Writeset, position)
    }

    fn new(log: LogReader, database: DatabaseId, wanted: Wanted, next: Position) -> Backlog {
        Backlog { log, database, wanted, next, index: None, positions: VecDeque::new(), commands: Vec::new(), chunks: None }
    }

    /// The first position of which nothing has been given out.
    pub fn next_position(&self) -> Position {
        self.next
    }

    /// Whether the rest of a writeset must follow.
    pub fn in_the_middle(&self) -> bool {
        self.chunks.as_ref().is_some_and(|chunks| !chunks.is_at_end())
    }

    fn is_fetch(&self) -> bool {
        matches!(self.wanted, Wanted::Writeset)
    }

    /// Finds the first position, so that what is not there any more is known before anything of it has been promised.
    pub async fn sought(mut self) -> Result<Backlog, BacklogError> {
        let seeking = tokio::task::spawn_blocking(move || {
            let result = self.seek();
            (self, result)
        });
        let (backlog, result) = seeking.await.map_err(|_| BacklogError::Panicked)?;
        result.map(|()| backlog)
    }

    /// Sends the next piece, once everything before it has been written. Reads on a thread that may wait for the disk.
    pub async fn send_piece(self, outbox: &Outbox) -> Result<Backlog, BacklogError> {
        outbox.drained().await;
        let fill = |backlog: &mut Backlog, out: &mut Vec<u8>| backlog.fill(out, BACKLOG_PIECE_BYTES);
        let Piece { reader, frames, result } = piece::read(self, fill).await?;
        piece::send(outbox, frames);
        result.map(|()| reader)
    }

    /// Appends frames until there are `bytes_max`, or no more.
    fn fill(&mut self, out: &mut Vec<u8>, bytes_max: usize) -> Result<(), BacklogError> {
        self.seek()?;
        while out.len() < bytes_max {
            if let Some(chunks) = self.chunks.as_mut().filter(|chunks| !chunks.is_at_end()) {
                chunks.put_next(out)?;
            } else if let Some(outcome) = self.positions.pop_front() {
                self.put_position(out, outcome)?;
            } else if self.is_fetch() || !self.advance()? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Opens the entry that holds the next position, unless that has been done.
    fn seek(&mut self) -> Result<(), BacklogError> {
        if self.index.is_none() {
            self.index = Some(self.find()?);
            self.advance()?;
        }
        Ok(())
    }

    /// Opens the next entry. False at the end of the outcomes.
    fn advance(&mut self) -> Result<bool, BacklogError> {
        let Some(index) = self.index else { return Ok(false) };
        let Some(outcome) = self.log.outcome(index)? else {
            return self.end_or_truncated(index).map(|()| false);
        };
        self.index = Some(LogIndex(index.0 + 1));
        self.open(outcome)?;
        Ok(true)
    }

    /// The entry that holds the next position, or the end of the outcomes.
    fn find(&mut self) -> Result<LogIndex, BacklogError> {
        let range = self.log.outcomes();
        let (mut low, mut high) = (range.start.0, range.end.0);
        while low < high {
            let middle = low + (high - low) / 2;
            // What is truncated while this runs lies before everything that is kept.
            let head = self.log.outcome(LogIndex(middle))?.map_or(Position::ZERO, |outcome| self.head(&outcome));
            if head < self.next {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        Ok(LogIndex(low))
    }

    fn head(&self, outcome: &EntryOutcome) -> Position {
        let known = outcome.heads.iter().find(|(database, _)| *database == self.database);
        known.map_or(Position::ZERO, |(_, head)| *head)
    }

    fn end_or_truncated(&self, index: LogIndex) -> Result<(), BacklogError> {
        if index < self.log.outcomes().start || self.is_fetch() { Err(BacklogError::Truncated) } else { Ok(()) }
    }

    /// Takes the positions of an entry that are still to be sent.
    fn open(&mut self, outcome: EntryOutcome) -> Result<(), BacklogError> {
        let (index, head) = (outcome.index, self.head(&outcome));
        let (database, next) = (self.database, self.next);
        self.positions = outcome.positions.into();
        self.positions.retain(|position| position.database == database && position.position >= next);
        if self.is_fetch() {
            self.positions.retain(|position| position.position == next);
        }
        match self.positions.front() {
            Some(first) if first.position == next => {}
            // The entry that held it is gone, and this is the first behind it.
            _ if head >= next => return Err(BacklogError::Truncated),
            _ => return Ok(()),
        }
        let data = self.log.data(index)?.ok_or(BacklogError::Truncated)?;
        self.commands = decode_entry(&data)?;
        Ok(())
    }

    fn put_position(&mut self, out: &mut Vec<u8>, outcome: PositionOutcome) -> Result<(), BacklogError> {
        let Some(Command::Submit { tag, writeset }) = self.commands.get(outcome.ordinal as usize) else {
            return Err(BacklogError::Wire(WireError::OutOfRange { what: "ordinal of a writeset" }));
        };
        let (position, tag, verdict) = (outcome.position, *tag, outcome.verdict);
        let carries = match &self.wanted {
            Wanted::Stream(origin) => origin.carries(&outcome, tag),
            Wanted::Writeset => true,
        };
        let more = carries && !outcome.chunks.is_empty();
        let payload = if carries { &writeset[..] } else { &[] };
        let reply = match self.wanted {
            Wanted::Stream(_) => Reply::Ordered { position, tag, verdict, more },
            Wanted::Writeset => Reply::Body { position, more },
        };
        link::put_frame(out, &reply, payload)?;
        if more {
            self.chunks = Some(ChunkReader::new(self.log.clone(), position, tag, outcome.chunks));
        }
        self.next = position.next();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use gcs_core::command::encode_entry;
    use gcs_core::{Checkpoint, DurableWrite, LogRef};
    use gcs_writeset::link::AbortCause;
    use gcs_writeset::{Sequence, SlotId};
    use raft::eraftpb::Entry;

    use super::*;
    use crate::log::Log;

    const SHOP: DatabaseId = DatabaseId(1);

    fn tag(database: DatabaseId, sequence: u64) -> Tag {
        Tag { database, node: NodeId(2), incarnation: Incarnation(3), slot: SlotId(4), sequence: Sequence(sequence) }
    }

    fn writeset(position: u64) -> Bytes {
        Bytes::from(format!("writeset {position}"))
    }

    /// Each entry holds two positions of `shop` around one of another database, but every third entry holds nothing.
    fn fill(log: &mut Log, entries: u64) {
        let mut head = 0;
        for index in 1..=entries {
            let mut commands = Vec::new();
            let mut positions = Vec::new();
            if index % 3 != 0 {
                for (ordinal, database) in [SHOP, DatabaseId(2), SHOP].into_iter().enumerate() {
                    let position = if database == SHOP { head + 1 } else { index };
                    head += u64::from(database == SHOP);
                    let submit = Command::Submit { tag: tag(database, position), writeset: writeset(position) };
                    commands.push(submit.encode());
                    let (position, verdict) = (Position(position), Verdict::Certified { depends_on: Position::ZERO });
                    let ordinal = ordinal as u32;
                    positions.push(PositionOutcome { database, position, ordinal, verdict, chunks: Vec::new() });
                }
            }
            let data = if commands.is_empty() { Vec::new() } else { encode_entry(&commands) };
            let heads = if head == 0 { Vec::new() } else { vec![(SHOP, Position(head)), (DatabaseId(2), Position(index))] };
            let write = DurableWrite {
                entries: vec![Entry { index, term: 1, data, ..Default::default() }],
                outcomes: vec![EntryOutcome { index: LogIndex(index), positions, heads }],
                ..Default::default()
            };
            log.write(write).unwrap();
        }
    }

    fn origin() -> Origin {
        Origin { node: NodeId(1), incarnation: Incarnation(1), withheld: Withheld::default() }
    }

    fn open(directory: &std::path::Path) -> Log {
        Log::open(directory).unwrap().0
    }

    fn backlog(log: &Log, next: u64) -> Backlog {
        Backlog::stream(log.reader(), origin(), SHOP, Position(next))
    }

    fn positions(mut frames: &[u8]) -> Vec<u64> {
        let mut found = Vec::new();
        while let Some(length) = link::frame_len(frames).unwrap() {
            let (reply, payload) = link::decode_frame::<Reply>(&frames[..length]).unwrap();
            let (Reply::Ordered { position, .. } | Reply::Body { position, .. }) = reply else { panic!("{reply:?}") };
            assert_eq!(payload, &writeset(position.0)[..]);
            found.push(position.0);
            frames = &frames[length..];
        }
        found
    }

    #[test]
    fn every_position_is_found_from_wherever_one_begins_and_however_it_is_cut() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path());
        fill(&mut log, 20);
        let last = 28;
        for next in 1..=last + 1 {
            let mut backlog = backlog(&log, next);
            let mut found = Vec::new();
            loop {
                let mut frames = Vec::new();
                backlog.fill(&mut frames, 100).unwrap();
                if frames.is_empty() {
                    break;
                }
                found.extend(positions(&frames));
            }
            assert_eq!(found, (next..=last).collect::<Vec<_>>());
            assert_eq!(backlog.next_position(), Position(last + 1));
        }
    }

    #[test]
    fn a_fetch_gives_one_position() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path());
        fill(&mut log, 20);
        for position in 1..=28 {
            let mut frames = Vec::new();
            Backlog::fetch(log.reader(), SHOP, Position(position)).fill(&mut frames, 1 << 20).unwrap();
            assert_eq!(positions(&frames), [position]);
        }
    }

    #[test]
    fn what_is_certified_is_carried_unless_it_is_the_readers_own_or_came_in_chunks_and_is_withheld() {
        let origin = origin();
        let (database, verdict) = (SHOP, Verdict::Certified { depends_on: Position::ZERO });
        let short = PositionOutcome { database, position: Position(1), ordinal: 0, verdict, chunks: Vec::new() };
        let long = PositionOutcome { chunks: vec![LogRef { index: LogIndex(1), ordinal: 0 }], ..short.clone() };
        let aborted = PositionOutcome { verdict: Verdict::Aborted(AbortCause::Malformed), ..short.clone() };
        let others = tag(SHOP, 1);
        let own = Tag { node: origin.node, incarnation: origin.incarnation, ..others };
        assert!(origin.carries(&short, others) && origin.carries(&long, others));
        assert!(!origin.carries(&aborted, others) && !origin.carries(&short, own));
        origin.withheld.add(others);
        assert!(origin.carries(&short, others), "no forerunner applies what has no chunks");
        assert!(!origin.carries(&long, others) && origin.carries(&long, tag(SHOP, 2)));
    }

    #[test]
    fn what_was_truncated_is_missed_and_not_skipped() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = open(directory.path());
        fill(&mut log, 20);
        let checkpoint = Checkpoint { index: LogIndex(10), term: 1, state: Bytes::new() };
        log.write(DurableWrite { checkpoint: Some(checkpoint), ..Default::default() }).unwrap();
        drop(log); // waits until the checkpoint is durable
        let mut log = open(directory.path());
        log.write(DurableWrite { truncate_to: Some(LogIndex(10)), sync: true, ..Default::default() }).unwrap();
        // Entries 1 to 10 held positions 1 to 14.
        for next in 1..=14 {
            let result = backlog(&log, next).fill(&mut Vec::new(), 1 << 20);
            assert!(matches!(result, Err(BacklogError::Truncated)), "{next}: {result:?}");
        }
        let mut frames = Vec::new();
        backlog(&log, 15).fill(&mut frames, 1 << 20).unwrap();
        assert_eq!(positions(&frames), (15..=28).collect::<Vec<_>>());
    }
}
