//! Records: one durable write each.
//!
//! ```text
//! length    u32   of the body
//! crc32c    u32   of sequence, synced and body, seeded with the segment's number
//! sequence  u64   one more than the record before
//! synced    u64   everything up to this record had been flushed when this one was written
//! body            items
//! padding         zeros up to a multiple of 8
//!
//! item 1, entries     first index u64, count u32, then each: length u32, crc32c u32, and that many bytes:
//!                     term varint, type u8, data, context (each with a varint length)
//! item 2, hard state  term u64, vote u64, commit u64
//! item 3, outcomes    first index u64, count u32, then each: length u32, crc32c u32, and that many bytes (see `put_outcome`)
//! item 4, base        index u64, term u64: nothing at or below is kept
//! item 5, reset       index u64, term u64: as base, and everything above is dropped as well
//! ```
//!
//! Entries and outcomes have their own checksums so that each can be read by itself.

use std::ops::Range;

use bytes::Bytes;
use gcs_core::{EntryOutcome, LogIndex, LogRef, PositionOutcome};
use gcs_writeset::link::Verdict;
use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{DatabaseId, Position};
use raft::eraftpb::{Entry, HardState};

pub const HEADER_BYTES: usize = 24;
pub const ALIGNMENT: usize = 8;

const ENTRIES: u8 = 1;
const HARD_STATE: u8 = 2;
const OUTCOMES: u8 = 3;
const BASE: u8 = 4;
const RESET: u8 = 5;

/// An index of the Raft log with its term.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Base {
    pub index: u64,
    pub term: u64,
}

/// Where the items of a record are, in bytes from its start.
#[derive(Clone, Debug, PartialEq)]
pub enum RecordItem {
    Entries { first: u64, terms: Vec<u64>, places: Vec<Range<u32>> },
    HardState(HardState),
    Outcomes { first: u64, places: Vec<Range<u32>> },
    Base(Base),
    Reset(Base),
}

/// Builds one record in a buffer that is used again.
#[derive(Debug, Default)]
pub struct RecordBuilder {
    bytes: Vec<u8>,
    items: Vec<RecordItem>,
}

impl RecordBuilder {
    pub fn start(&mut self) {
        self.bytes.clear();
        self.bytes.resize(HEADER_BYTES, 0);
        self.items.clear();
    }

    /// Entries must follow one another; the caller has checked that.
    pub fn entries(&mut self, entries: &[Entry]) {
        let Some(head) = entries.first() else { return };
        self.head(ENTRIES, head.index, entries.len());
        let mut places = Vec::with_capacity(entries.len());
        for entry in entries {
            places.push(self.part(|out| put_entry(out, entry)));
        }
        let terms = entries.iter().map(|entry| entry.term).collect();
        self.items.push(RecordItem::Entries { first: head.index, terms, places });
    }

    pub fn outcomes(&mut self, outcomes: &[EntryOutcome]) {
        let Some(head) = outcomes.first() else { return };
        self.head(OUTCOMES, head.index.0, outcomes.len());
        let mut places = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            places.push(self.part(|out| put_outcome(out, outcome)));
        }
        self.items.push(RecordItem::Outcomes { first: head.index.0, places });
    }

    pub fn hard_state(&mut self, state: &HardState) {
        self.bytes.push(HARD_STATE);
        for value in [state.term, state.vote, state.commit] {
            self.bytes.put_u64(value);
        }
        self.items.push(RecordItem::HardState(state.clone()));
    }

    pub fn base(&mut self, base: Base) {
        self.mark(BASE, base);
        self.items.push(RecordItem::Base(base));
    }

    pub fn reset(&mut self, base: Base) {
        self.mark(RESET, base);
        self.items.push(RecordItem::Reset(base));
    }

    /// The length the record will have, padding included.
    pub fn len(&self) -> usize {
        self.bytes.len().next_multiple_of(ALIGNMENT)
    }

    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Completes the record and gives it out with its items.
    pub fn finish(&mut self, segment: u64, sequence: u64, synced: u64) -> (&[u8], Vec<RecordItem>) {
        let body = (self.bytes.len() - HEADER_BYTES) as u32;
        self.bytes[0..4].copy_from_slice(&body.to_le_bytes());
        self.bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        self.bytes[16..24].copy_from_slice(&synced.to_le_bytes());
        let checksum = checksum(segment, &self.bytes[8..]);
        self.bytes[4..8].copy_from_slice(&checksum.to_le_bytes());
        self.bytes.resize(self.len(), 0);
        (&self.bytes, std::mem::take(&mut self.items))
    }

    fn head(&mut self, kind: u8, first: u64, count: usize) {
        self.bytes.push(kind);
        self.bytes.put_u64(first);
        self.bytes.put_u32(count as u32);
    }

    fn mark(&mut self, kind: u8, base: Base) {
        self.bytes.push(kind);
        self.bytes.put_u64(base.index);
        self.bytes.put_u64(base.term);
    }

    fn part(&mut self, put: impl FnOnce(&mut Vec<u8>)) -> Range<u32> {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 8]);
        put(&mut self.bytes);
        let length = (self.bytes.len() - start - 8) as u32;
        let checksum = crc32c::crc32c(&self.bytes[start + 8..]);
        self.bytes[start..start + 4].copy_from_slice(&length.to_le_bytes());
        self.bytes[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
        start as u32..self.bytes.len() as u32
    }
}

fn checksum(segment: u64, content: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&segment.to_le_bytes()), content)
}

/// The head of a record whose checksum is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub sequence: u64,
    pub synced: u64,
    /// The whole record, padding included.
    pub length: usize,
    body: usize,
}

/// The record at the front of `bytes`, if a whole one is there.
pub fn read_head(segment: u64, bytes: &[u8]) -> Option<Head> {
    let mut reader = Reader::new(bytes);
    let body = reader.u32().ok()? as usize;
    let expected = reader.u32().ok()?;
    let sequence = reader.u64().ok()?;
    let synced = reader.u64().ok()?;
    let content = bytes.get(8..HEADER_BYTES.checked_add(body)?)?;
    let head = Head { sequence, synced, length: (HEADER_BYTES + body).next_multiple_of(ALIGNMENT), body };
    (sequence > 0 && checksum(segment, content) == expected).then_some(head)
}

/// The items of the record at the front of `bytes`.
pub fn read_items(head: &Head, bytes: &[u8]) -> Result<Vec<RecordItem>, WireError> {
    let end = HEADER_BYTES + head.body;
    let mut reader = Reader::new(bytes.get(HEADER_BYTES..end).ok_or(WireError::Truncated { missing: 1 })?);
    let mut items = Vec::new();
    while !reader.is_empty() {
        let item = match reader.u8()? {
            ENTRIES => {
                let first = reader.u64()?;
                let (mut terms, mut places) = (Vec::new(), Vec::new());
                for _ in 0..reader.u32()? {
                    let (part, place) = read_part(&mut reader, end)?;
                    terms.push(Reader::new(part).varint()?);
                    places.push(place);
                }
                RecordItem::Entries { first, terms, places }
            }
            OUTCOMES => {
                let first = reader.u64()?;
                let mut places = Vec::new();
                for _ in 0..reader.u32()? {
                    places.push(read_part(&mut reader, end)?.1);
                }
                RecordItem::Outcomes { first, places }
            }
            HARD_STATE => {
                RecordItem::HardState(HardState { term: reader.u64()?, vote: reader.u64()?, commit: reader.u64()? })
            }
            BASE => RecordItem::Base(Base { index: reader.u64()?, term: reader.u64()? }),
            RESET => RecordItem::Reset(Base { index: reader.u64()?, term: reader.u64()? }),
            kind => return Err(WireError::Unknown { what: "log item", value: u64::from(kind) }),
        };
        items.push(item);
    }
    Ok(items)
}

fn read_part<'a>(reader: &mut Reader<'a>, end: usize) -> Result<(&'a [u8], Range<u32>), WireError> {
    let start = end - reader.remaining();
    let length = reader.u32()? as usize;
    reader.u32()?;
    let part = reader.take(length)?;
    Ok((part, start as u32..(end - reader.remaining()) as u32))
}

/// The content of one entry or outcome read by its place, with its checksum checked.
fn open_part(part: &[u8]) -> Result<Reader<'_>, WireError> {
    let mut reader = Reader::new(part);
    let length = reader.u32()? as usize;
    let expected = reader.u32()?;
    let content = reader.take(length)?;
    let found = crc32c::crc32c(content);
    if found != expected {
        return Err(WireError::Checksum { found, expected });
    }
    Ok(Reader::new(content))
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.put_varint(entry.term);
    out.put_u8(entry.entry_type as u8);
    out.put_bytes(&entry.data);
    out.put_bytes(&entry.context);
}

/// An entry where it was read.
struct EntryParts<'a> {
    term: u64,
    entry_type: i32,
    data: &'a [u8],
    context: &'a [u8],
}

fn read_entry_parts(part: &[u8]) -> Result<EntryParts<'_>, WireError> {
    let mut reader = open_part(part)?;
    let (term, entry_type) = (reader.varint()?, i32::from(reader.u8()?));
    let data = reader.bytes("entry data", usize::MAX >> 1)?;
    let context = reader.bytes("entry context", usize::MAX >> 1)?;
    reader.finish("entry")?;
    Ok(EntryParts { term, entry_type, data, context })
}

pub fn read_entry(index: u64, part: &[u8]) -> Result<Entry, WireError> {
    let EntryParts { term, entry_type, data, context } = read_entry_parts(part)?;
    Ok(Entry { entry_type, term, index, data: data.to_vec(), context: context.to_vec(), ..Default::default() })
}

/// The data of an entry, in the memory that it was read into.
pub fn read_entry_data(part: &Bytes) -> Result<Bytes, WireError> {
    Ok(part.slice_ref(read_entry_parts(part)?.data))
}

fn put_outcome(out: &mut Vec<u8>, outcome: &EntryOutcome) {
    out.put_varint(outcome.heads.len() as u64);
    for (database, position) in &outcome.heads {
        out.put_varint(u64::from(database.0));
        out.put_varint(position.0);
    }
    out.put_varint(outcome.positions.len() as u64);
    for position in &outcome.positions {
        out.put_varint(u64::from(position.database.0));
        out.put_varint(position.position.0);
        out.put_varint(u64::from(position.ordinal));
        position.verdict.put(out);
        out.put_varint(position.chunks.len() as u64);
        for chunk in &position.chunks {
            out.put_varint(chunk.index.0);
            out.put_varint(u64::from(chunk.ordinal));
        }
    }
}

pub fn read_outcome(index: u64, part: &[u8]) -> Result<EntryOutcome, WireError> {
    let mut reader = open_part(part)?;
    let mut outcome = EntryOutcome { index: LogIndex(index), positions: Vec::new(), heads: Vec::new() };
    for _ in 0..reader.varint()? {
        outcome.heads.push((DatabaseId(small(&mut reader)?), Position(reader.varint()?)));
    }
    for _ in 0..reader.varint()? {
        let mut position = PositionOutcome {
            database: DatabaseId(small(&mut reader)?),
            position: Position(reader.varint()?),
            ordinal: small(&mut reader)?,
            verdict: Verdict::read(&mut reader)?,
            chunks: Vec::new(),
        };
        for _ in 0..reader.varint()? {
            position.chunks.push(LogRef { index: LogIndex(reader.varint()?), ordinal: small(&mut reader)? });
        }
        outcome.positions.push(position);
    }
    reader.finish("outcome")?;
    Ok(outcome)
}

fn small(reader: &mut Reader<'_>) -> Result<u32, WireError> {
    u32::try_from(reader.varint()?).map_err(|_| WireError::OutOfRange { what: "number in an outcome" })
}
