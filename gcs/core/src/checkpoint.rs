//! Checkpoints: the whole ordered state as bytes, for recovery and for followers that are too far behind.
//!
//! ```text
//! checkpoint  := version u8 = 5, index u64, term u64, group str, membership,
//!                databases ever u32, databases varint × database, lives, crc32c u32 of all before
//! membership  := version u64, format u16, founders varint × (node u64, name str, address str, kind u8),
//!                members varint × (node u64, name str, address str, ordinal u16, role u8, generation u32, directory u64, kind u8),
//!                gone varint × (name str, next generation u32)
//! database    := id u32, name str, head u64,
//!                attachments varint × (node u64, generation u64, attached u8, incarnation u64,
//!                                      committed u64, flushed u64, oldest_base u64),
//!                slots varint × (node u64, slot u32, last u64, collecting u8,
//!                                [sequence u64, chunks varint × (chunk u32, index u64, ordinal u32)]),
//!                horizon u64, holders varint × (position u64, node u64, exclusive varint, shared varint, keys u64 ...),
//!                last mark, marks varint × mark, chunked varint × (position u64, index u64),
//!                token floor u64, tokens varint × (token 16 bytes, position u64, fate u8),
//!                locks, pinned varint × (name u64, position u64, node u64, exclusive varint, shared varint, checked varint, keys u64 ...)
//! mark        := index u64, head u64
//! lives       := varint × (node u64, life u64, closed sessions varint × (first u64, last u64))
//! locks       := varint × (node u64, session u64, last u64, held varint × lock, taken u8, [lock, number u64], waits u8,
//!                          blocks varint × session u64), waiting varint × (node u64, session u64)
//! ```
//!
//! Version 4 is that of a group in format 2, which has no locks. Version 3 is that of a group in format 1 ([`crate::format`]), and does not say so. Version 2 knows full members only, and has no kinds. Version 1, from before the membership could change, has the founders of version 2 in place
//! of the membership.
//!
//! Everything is listed in order, so equal states give equal bytes. The window is listed above the horizon only: what lies
//! below cannot show any more.

mod items;
mod locks;
mod pins;

use bytes::Bytes;
use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::link::MemberRole;
use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind, Position, Sequence, SlotId, Token};
use raft::eraftpb::ConfState;

use crate::api::{Checkpoint, LogIndex, LogRef};
use crate::bounds::{CHECKPOINT_STATE_BYTES_MAX, CHUNKS_MAX, DATABASES_MAX, MARKS_MAX, NAMES_EVER_MAX, TOKENS_MAX};
use crate::certify::{Certifier, Holder, WindowBounds};
use crate::command::{Generation, Report};
use crate::deliver::{Collecting, Database, Slot};
use crate::format::Format;
use crate::locks::{Lives, Locks};
use crate::member::{Attachment, Attachments};
use crate::membership::wish::Founder;
use crate::membership::{Member, Membership};
use crate::retention::{Mark, Retention};
use crate::state::State;
use crate::tokens::{Fate, Tokens, Use};
use items::{list, read_flag, read_keys};

const VERSION: u8 = 5;
const VERSION_WITHOUT_LOCKS: u8 = 4;
const VERSION_OF_FORMAT_1: u8 = 3;
const VERSION_WITHOUT_KINDS: u8 = 2;
const VERSION_OF_FOUNDERS: u8 = 1;

pub fn encode(state: &State) -> Checkpoint {
    let mut out = Vec::new();
    let format = state.membership.format;
    let has_locks = format >= Format::LOCKS;
    out.put_u8(if has_locks {
        VERSION
    } else if format > Format::FIRST {
        VERSION_WITHOUT_LOCKS
    } else {
        VERSION_OF_FORMAT_1
    });
    out.put_u64(state.applied.0);
    out.put_u64(state.applied_term);
    out.put_str(&state.group);
    put_membership(&mut out, &state.membership);
    out.put_u32(state.databases_ever);
    out.put_varint(state.databases.len() as u64);
    for (id, database) in &state.databases {
        out.put_u32(id.0);
        put_database(&mut out, database);
        if has_locks {
            locks::put(&mut out, &database.locks);
            pins::put(&mut out, database.certifier.pins());
        }
    }
    if has_locks {
        locks::put_lives(&mut out, &state.lives);
    }
    let checksum = crc32c::crc32c(&out);
    out.put_u32(checksum);
    Checkpoint { index: state.applied, term: state.applied_term, state: Bytes::from(out) }
}

/// Which group a checkpoint must be of.
#[derive(Clone, Debug)]
pub struct Origin {
    pub group: String,
    pub founders: Vec<Founder>,
    /// Up to which format this node reads.
    pub reads: Format,
}

/// Whether these bytes are a checkpoint of this group as of entry `index` of this term, and these the votes that it ends with.
pub fn check(bytes: &[u8], (index, term): (u64, u64), votes: &ConfState, origin: &Origin) -> Result<(), WireError> {
    let state = decode(bytes, WindowBounds::default())?;
    if (state.applied.0, state.applied_term) != (index, term) {
        return Err(WireError::OutOfRange { what: "index of a checkpoint" });
    }
    if state.group != origin.group || state.membership.founders != origin.founders {
        return Err(WireError::OutOfRange { what: "group of a checkpoint" });
    }
    if state.membership.format > origin.reads {
        return Err(WireError::OutOfRange { what: "format" });
    }
    if !same_votes(&state.membership.votes(), votes) {
        return Err(WireError::OutOfRange { what: "votes of a snapshot" });
    }
    Ok(())
}

/// Raft lists them in the order of a hash map.
pub fn same_votes(a: &ConfState, b: &ConfState) -> bool {
    sorted(a.clone()) == sorted(b.clone())
}

fn sorted(mut votes: ConfState) -> ConfState {
    for list in [&mut votes.voters, &mut votes.learners, &mut votes.voters_outgoing, &mut votes.learners_next] {
        list.sort_unstable();
    }
    votes
}

/// Who the members are as of the end of a checkpoint.
pub fn membership(bytes: &[u8]) -> Result<Membership, WireError> {
    Ok(read_head(&mut Reader::new(bytes))?.membership)
}

/// What a checkpoint begins with.
struct Head {
    has_locks: bool,
    applied: LogIndex,
    applied_term: u64,
    group: String,
    membership: Membership,
}

fn read_head(reader: &mut Reader<'_>) -> Result<Head, WireError> {
    let version = reader.u8()?;
    let applied = LogIndex(reader.u64()?);
    let applied_term = reader.u64()?;
    let group = reader.str("group name", NAME_BYTES_MAX)?.to_owned();
    let membership = match version {
        VERSION | VERSION_WITHOUT_LOCKS => read_membership(reader, read_format, NodeKind::read)?,
        VERSION_OF_FORMAT_1 => read_membership(reader, first_format, NodeKind::read)?,
        VERSION_WITHOUT_KINDS => read_membership(reader, first_format, all_full)?,
        VERSION_OF_FOUNDERS => Membership::new(read_founders(reader, all_full)?),
        version => return Err(WireError::Unknown { what: "checkpoint version", value: u64::from(version) }),
    };
    if !membership.is_sound() {
        return Err(WireError::OutOfRange { what: "membership" });
    }
    Ok(Head { has_locks: version >= VERSION, applied, applied_term, group, membership })
}

fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    out.put_u64(membership.version);
    if membership.format > Format::FIRST {
        out.put_u16(membership.format.0);
    }
    out.put_varint(membership.founders.len() as u64);
    for founder in &membership.founders {
        out.put_u64(founder.node.0);
        out.put_str(&founder.name);
        out.put_str(&founder.address);
        out.put_u8(founder.kind.number());
    }
    out.put_varint(membership.members.len() as u64);
    for member in &membership.members {
        out.put_u64(member.node.0);
        out.put_str(&member.name);
        out.put_str(&member.address);
        out.put_u16(member.ordinal);
        out.put_u8(match member.role {
            MemberRole::Voter => 0,
            MemberRole::Learner => 1,
            MemberRole::Joining => 2,
            MemberRole::Leaving => 3,
        });
        out.put_u32(member.generation);
        out.put_u64(member.directory);
        out.put_u8(member.kind.number());
    }
    out.put_varint(membership.gone.len() as u64);
    for (name, generation) in &membership.gone {
        out.put_str(name);
        out.put_u32(*generation);
    }
}

/// How the kind of a member is found, in this version of the format.
type ReadKind = fn(&mut Reader<'_>) -> Result<NodeKind, WireError>;

fn all_full(_: &mut Reader<'_>) -> Result<NodeKind, WireError> {
    Ok(NodeKind::Full)
}

/// Likewise the group's format.
type ReadFormat = fn(&mut Reader<'_>) -> Result<Format, WireError>;

fn first_format(_: &mut Reader<'_>) -> Result<Format, WireError> {
    Ok(Format::FIRST)
}

/// The first one has another form.
fn read_format(reader: &mut Reader<'_>) -> Result<Format, WireError> {
    let format = Format(reader.u16()?);
    if format > Format::FIRST { Ok(format) } else { Err(WireError::OutOfRange { what: "format" }) }
}

fn read_membership(reader: &mut Reader<'_>, read_format: ReadFormat, read_kind: ReadKind) -> Result<Membership, WireError> {
    let version = reader.u64()?;
    let format = read_format(reader)?;
    let founders = read_founders(reader, read_kind)?;
    let members = list(reader, "members", GROUP_MEMBERS_MAX as u64, |reader| {
        Ok(Member {
            node: NodeId(reader.u64()?),
            name: reader.str("member name", NAME_BYTES_MAX)?.to_owned(),
            address: reader.str("member address", NAME_BYTES_MAX)?.to_owned(),
            ordinal: reader.u16()?,
            role: read_role(reader)?,
            generation: reader.u32()?,
            directory: reader.u64()?,
            kind: read_kind(reader)?,
        })
    })?;
    let gone = list(reader, "names", NAMES_EVER_MAX as u64, |reader| {
        Ok((reader.str("member name", NAME_BYTES_MAX)?.to_owned(), reader.u32()?))
    })?;
    Ok(Membership { founders, version, format, members, gone: gone.into_iter().collect() })
}

fn read_founders(reader: &mut Reader<'_>, read_kind: ReadKind) -> Result<Vec<Founder>, WireError> {
    list(reader, "founders", GROUP_MEMBERS_MAX as u64, |reader| {
        Ok(Founder {
            node: NodeId(reader.u64()?),
            name: reader.str("member name", NAME_BYTES_MAX)?.to_owned(),
            address: reader.str("member address", NAME_BYTES_MAX)?.to_owned(),
            kind: read_kind(reader)?,
        })
    })
}

fn read_role(reader: &mut Reader<'_>) -> Result<MemberRole, WireError> {
    Ok(match reader.u8()? {
        0 => MemberRole::Voter,
        1 => MemberRole::Learner,
        2 => MemberRole::Joining,
        3 => MemberRole::Leaving,
        value => return Err(WireError::Unknown { what: "role of a member", value: u64::from(value) }),
    })
}

pub fn decode(bytes: &[u8], bounds: WindowBounds) -> Result<State, WireError> {
    let mut reader = Reader::new(checked_content(bytes)?);
    let head = read_head(&mut reader)?;
    let databases_ever = reader.u32()?;
    let databases = list(&mut reader, "databases", DATABASES_MAX as u64, |reader| {
        let (id, mut database) = (DatabaseId(reader.u32()?), read_database(reader, bounds)?);
        if head.has_locks {
            database.locks = locks::read(reader)?;
            database.certifier.pin(pins::read(reader)?);
        }
        Ok((id, database))
    })?;
    let lives = if head.has_locks { locks::read_lives(&mut reader)? } else { Lives::default() };
    reader.finish("checkpoint")?;
    let mut state = State::new(head.group, head.membership, bounds);
    state.applied = head.applied;
    state.applied_term = head.applied_term;
    state.databases_ever = databases_ever;
    state.lives = lives;
    state.databases = databases.into_iter().collect();
    Ok(state)
}

fn checked_content(bytes: &[u8]) -> Result<&[u8], WireError> {
    if bytes.len() > CHECKPOINT_STATE_BYTES_MAX {
        let limit = CHECKPOINT_STATE_BYTES_MAX as u64;
        return Err(WireError::TooLarge { what: "checkpoint", value: bytes.len() as u64, limit });
    }
    let split = bytes.len().checked_sub(4).ok_or_else(|| WireError::Truncated { missing: 4 - bytes.len() })?;
    let (content, tail) = bytes.split_at(split);
    let expected = Reader::new(tail).u32()?;
    let found = crc32c::crc32c(content);
    if found == expected { Ok(content) } else { Err(WireError::Checksum { found, expected }) }
}

/// What an attachment is.
const DETACHED: u8 = 0;
const ATTACHED: u8 = 1;
const OUT_OF_SERVICE: u8 = 2;

fn put_database(out: &mut Vec<u8>, database: &Database) {
    out.put_str(&database.name);
    out.put_u64(database.head.0);
    out.put_varint(database.attachments.by_node.len() as u64);
    for (node, attachment) in &database.attachments.by_node {
        out.put_u64(node.0);
        out.put_u64(attachment.generation.0);
        out.put_u8(match (attachment.incarnation, attachment.report.out_of_service) {
            (None, _) => DETACHED,
            (Some(_), false) => ATTACHED,
            (Some(_), true) => OUT_OF_SERVICE,
        });
        out.put_u64(attachment.incarnation.unwrap_or_default().0);
        out.put_u64(attachment.report.committed.0);
        out.put_u64(attachment.report.flushed.0);
        out.put_u64(attachment.report.oldest_base.0);
    }
    out.put_varint(database.slots.len() as u64);
    for ((node, slot), state) in &database.slots {
        out.put_u64(node.0);
        out.put_u32(slot.0);
        put_slot(out, state);
    }
    put_window(out, &database.certifier);
    put_retention(out, &database.retention);
    put_tokens(out, &database.tokens);
}

fn read_database(reader: &mut Reader<'_>, bounds: WindowBounds) -> Result<Database, WireError> {
    let name = reader.str("database name", NAME_BYTES_MAX)?.to_owned();
    let head = Position(reader.u64()?);
    let attachments = list(reader, "attachments", GROUP_MEMBERS_MAX as u64, |reader| {
        Ok((NodeId(reader.u64()?), read_attachment(reader)?))
    })?;
    let slots =
        list(reader, "slots", u64::MAX, |reader| Ok(((NodeId(reader.u64()?), SlotId(reader.u32()?)), read_slot(reader)?)))?;
    let certifier = read_window(reader, bounds)?;
    let retention = read_retention(reader)?;
    let tokens = read_tokens(reader)?;
    Ok(Database {
        name,
        head,
        attachments: Attachments { by_node: attachments.into_iter().collect() },
        slots: slots.into_iter().collect(),
        certifier,
        retention,
        tokens,
        locks: Locks::default(),
    })
}

fn read_attachment(reader: &mut Reader<'_>) -> Result<Attachment, WireError> {
    let generation = Generation(reader.u64()?);
    let state = reader.u8()?;
    if state > OUT_OF_SERVICE {
        return Err(WireError::Unknown { what: "state of an attachment", value: u64::from(state) });
    }
    let incarnation = Incarnation(reader.u64()?);
    Ok(Attachment {
        generation,
        incarnation: (state != DETACHED).then_some(incarnation),
        report: Report {
            committed: Position(reader.u64()?),
            flushed: Position(reader.u64()?),
            oldest_base: Position(reader.u64()?),
            out_of_service: state == OUT_OF_SERVICE,
        },
    })
}

fn put_slot(out: &mut Vec<u8>, slot: &Slot) {
    out.put_u64(slot.last.0);
    out.put_u8(u8::from(slot.collecting.is_some()));
    if let Some(collecting) = &slot.collecting {
        out.put_u64(collecting.sequence.0);
        out.put_varint(collecting.chunks.len() as u64);
        for (chunk, at) in &collecting.chunks {
            out.put_u32(*chunk);
            out.put_u64(at.index.0);
            out.put_u32(at.ordinal);
        }
    }
}

fn read_slot(reader: &mut Reader<'_>) -> Result<Slot, WireError> {
    let last = Sequence(reader.u64()?);
    if !read_flag(reader, "collecting")? {
        return Ok(Slot { last, collecting: None });
    }
    let sequence = Sequence(reader.u64()?);
    let chunks = list(reader, "chunks", u64::from(CHUNKS_MAX), |reader| {
        let chunk = reader.u32()?;
        Ok((chunk, LogRef { index: LogIndex(reader.u64()?), ordinal: reader.u32()? }))
    })?;
    Ok(Slot { last, collecting: Some(Collecting { sequence, chunks: chunks.into_iter().collect() }) })
}

fn put_window(out: &mut Vec<u8>, certifier: &Certifier) {
    out.put_u64(certifier.horizon().0);
    out.put_varint(certifier.holders().count() as u64);
    for holder in certifier.holders() {
        out.put_u64(holder.position.0);
        out.put_u64(holder.node.0);
        out.put_varint(holder.exclusive.len() as u64);
        out.put_varint(holder.shared.len() as u64);
        for key in holder.exclusive.iter().chain(&holder.shared) {
            out.put_u64(key.0);
        }
    }
}

fn read_window(reader: &mut Reader<'_>, bounds: WindowBounds) -> Result<Certifier, WireError> {
    let horizon = Position(reader.u64()?);
    let mut last = horizon;
    let holders = list(reader, "holders", u64::MAX, |reader| {
        let position = Position(reader.u64()?);
        if position <= last {
            return Err(WireError::OutOfRange { what: "position of a holder" });
        }
        last = position;
        let node = NodeId(reader.u64()?);
        let (exclusive, shared) = (reader.varint()?, reader.varint()?);
        Ok(Holder { position, node, exclusive: read_keys(reader, exclusive)?, shared: read_keys(reader, shared)? })
    })?;
    Ok(Certifier::restore(bounds, horizon, &holders))
}

fn put_retention(out: &mut Vec<u8>, retention: &Retention) {
    put_mark(out, retention.last);
    out.put_varint(retention.marks.len() as u64);
    for mark in &retention.marks {
        put_mark(out, *mark);
    }
    out.put_varint(retention.chunked.len() as u64);
    for (position, first) in &retention.chunked {
        out.put_u64(position.0);
        out.put_u64(first.0);
    }
}

fn read_retention(reader: &mut Reader<'_>) -> Result<Retention, WireError> {
    let last = read_mark(reader)?;
    let marks = list(reader, "marks", MARKS_MAX as u64, read_mark)?;
    let chunked =
        list(reader, "chunked writesets", u64::MAX, |reader| Ok((Position(reader.u64()?), LogIndex(reader.u64()?))))?;
    Ok(Retention { marks, last, chunked: chunked.into_iter().collect() })
}

fn put_tokens(out: &mut Vec<u8>, tokens: &Tokens) {
    out.put_u64(tokens.floor().0);
    out.put_varint(tokens.uses().len() as u64);
    for (token, Use { position, fate }) in tokens.uses() {
        out.extend_from_slice(&token.0);
        out.put_u64(position.0);
        out.put_u8(match fate {
            Fate::Certified => 0,
            Fate::Aborted => 1,
            Fate::Fenced => 2,
        });
    }
}

fn read_tokens(reader: &mut Reader<'_>) -> Result<Tokens, WireError> {
    let floor = Position(reader.u64()?);
    let uses = list(reader, "tokens", TOKENS_MAX as u64, |reader| {
        let token = Token(reader.array()?);
        let position = Position(reader.u64()?);
        let fate = match reader.u8()? {
            0 => Fate::Certified,
            1 => Fate::Aborted,
            2 => Fate::Fenced,
            value => return Err(WireError::Unknown { what: "fate of a token", value: u64::from(value) }),
        };
        Ok((token, Use { position, fate }))
    })?;
    Ok(Tokens::restore(floor, uses))
}

fn put_mark(out: &mut Vec<u8>, mark: Mark) {
    out.put_u64(mark.index.0);
    out.put_u64(mark.head.0);
}

fn read_mark(reader: &mut Reader<'_>) -> Result<Mark, WireError> {
    Ok(Mark { index: LogIndex(reader.u64()?), head: Position(reader.u64()?) })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As earlier releases wrote it: a group of two, without databases, as of entry 7.
    fn written(version: u8, membership: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u8(version);
        out.put_u64(7);
        out.put_u64(3);
        out.put_str("g");
        out.extend_from_slice(membership);
        out.put_u32(0);
        out.put_varint(0);
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out
    }

    fn founders(out: &mut Vec<u8>) {
        out.put_varint(2);
        for name in ["a", "b"] {
            out.put_u64(NodeId::of_name(name).0);
            out.put_str(name);
            out.put_str(&format!("{name}:1"));
        }
    }

    #[test]
    fn what_earlier_releases_wrote_is_read_and_its_members_are_full() {
        let mut first = Vec::new();
        founders(&mut first);
        let mut second = Vec::new();
        second.put_u64(0);
        founders(&mut second);
        second.put_varint(2);
        for (ordinal, name) in ["a", "b"].into_iter().enumerate() {
            second.put_u64(NodeId::of_name(name).0);
            second.put_str(name);
            second.put_str(&format!("{name}:1"));
            second.put_u16(ordinal as u16);
            second.put_u8(0);
            second.put_u32(0);
            second.put_u64(0);
        }
        second.put_varint(0);
        for (version, membership) in [(VERSION_OF_FOUNDERS, first), (VERSION_WITHOUT_KINDS, second)] {
            let state = decode(&written(version, &membership), WindowBounds::default()).expect("a checkpoint");
            assert_eq!((state.applied, state.applied_term), (LogIndex(7), 3));
            assert_eq!(state.membership, Membership::new(state.membership.founders.clone()), "version {version}");
            assert!(state.membership.members.iter().all(|member| member.kind == NodeKind::Full));
            assert_eq!(state.membership.members.len(), 2);
        }
        let found = decode(&written(VERSION + 1, &[]), WindowBounds::default()).err();
        assert_eq!(found, Some(WireError::Unknown { what: "checkpoint version", value: u64::from(VERSION) + 1 }));
    }
}
