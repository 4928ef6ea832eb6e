//! How a link message stands in bytes.
//!
//! A message is a tag of one byte, which says what it is, and its fields in the order in which they are listed here. Every type that
//! occurs in a field has one form:
//!
//! ```text
//! u8, bool             one byte; a bool is 0 or 1
//! u16, u32, counts     varint
//! u64                  eight bytes, little-endian
//! newtypes of ids      as the number in them; a commit token is its 16 bytes
//! String               varint length and UTF-8: at most NAME_BYTES_MAX, a failure's texts TEXT_BYTES_MAX
//! Option               0, or 1 and the value
//! enums                a tag of one byte, then the variant's fields
//! tag, verdict         the form that the group's log has, see `Tag::put` and `Verdict::put`
//! ```
//!
//! Reading checks every length and every tag, allocates nothing that a bound does not cover, and takes a message only if nothing
//! is left behind it. Writing refuses what reading would refuse, so that neither side can send the other what it cannot take.
//!
//! **Other protocols.** A greeting of another protocol is read up to its number and no further, since what follows may have another
//! form. It comes out as a greeting that says nothing but its number, and whoever receives it refuses it by that number.

use crate::bounds::{CERTIFICATES_MAX, CONFLICTS_TOLD_MAX, GROUP_MEMBERS_MAX, NAME_BYTES_MAX, TEXT_BYTES_MAX};
use crate::id::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId, Tag};
use crate::key::Key;
use crate::kind::NodeKind;
use crate::link::{
    AbortCause, Awaited, CertificateStatus, Change, ConflictCount, CopyStatus, Drain, Failure, FailureKind, GroupStatus,
    Inquiry, LogStatus, MemberRole, MemberState, MemberStatus, PROTOCOL, RefusalReason, Rehearsal, RehearsalFailure, Reply,
    Request, Role, ServerPlace, Verdict,
};
use crate::lock::{LockAnswer, LockOp, LockSession};
use crate::token::{Token, TokenOutcome};
use crate::wire::{Put, Reader, WireError};

/// What travels at the front of a frame: a [`Request`] or a [`Reply`].
pub trait Message: Sized {
    /// Appends the message to `out`; after an error `out` may hold a part of it.
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError>;
    /// The message that all of `bytes` is.
    fn decode(bytes: &[u8]) -> Result<Self, WireError>;
}

/// A value with one form on the link.
trait Field: Sized {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError>;
    fn read(reader: &mut Reader<'_>) -> Result<Self, WireError>;
}

/// Enums: each variant by its tag, with its fields in order. A variant or field that is missing here does not compile.
macro_rules! variants {
    ($name:ident $what:literal { $($tag:literal $variant:ident $({ $($field:ident),* })? $(($inner:ident))?,)* }) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                match self {
                    $($name::$variant $({ $($field),* })? $(($inner))? => {
                        out.put_u8($tag);
                        $($(Field::put($field, out)?;)*)?
                        $(Field::put($inner, out)?;)?
                    })*
                }
                Ok(())
            }
            fn read(reader: &mut Reader<'_>) -> Result<$name, WireError> {
                Ok(match reader.u8()? {
                    $($tag => $name::$variant
                        $({ $($field: Field::read(reader)?),* })?
                        $(({ let $inner = Field::read(reader)?; $inner }))?,)*
                    value => return Err(WireError::Unknown { what: $what, value: u64::from(value) }),
                })
            }
        }
    };
}

/// Structs: their fields in order.
macro_rules! fields {
    ($name:ident { $($field:ident),* }) => {
        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                let $name { $($field),* } = self;
                $(Field::put($field, out)?;)*
                Ok(())
            }
            fn read(reader: &mut Reader<'_>) -> Result<$name, WireError> {
                Ok($name { $($field: Field::read(reader)?),* })
            }
        }
    };
}

/// Numbers in a type of their own.
macro_rules! newtypes {
    ($($name:ident)*) => {
        $(impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
                self.0.put(out)
            }
            fn read(reader: &mut Reader<'_>) -> Result<$name, WireError> {
                Ok($name(Field::read(reader)?))
            }
        })*
    };
}

variants! { Request "link request" {
    0 Hello { protocol, role, database, group, incarnation },
    1 Attach { resume_after, founds, leaves, overwrite },
    2 Submit { slot, sequence },
    3 Chunk { slot, sequence, index },
    4 Abandon { slot, sequence },
    5 Progress { committed, flushed, oldest_base, out_of_service },
    6 AskToken { slot, sequence, token, fence_after },
    7 Fetch { position },
    8 Detach,
    9 Status,
    10 Rehearse { after, patience_ms },
    11 Rehearsed { number, outcome },
    12 Server(place),
    13 ReadFrom { number },
    14 AskShown { number, position },
    15 Rebuild { position },
    16 Lock { number, op },
    17 Clear { patience_ms },
    18 Ahead { slot, sequence, chunks, after, patience_ms },
    19 FetchAhead { number },
    20 AheadDone { number },
    21 Conflicts { counts },
    32 Change(change),
    40 Certificates,
    41 AskPlace { database },
    42 Sessions { count },
    43 Drain { node, grace },
    44 AskLog,
    45 Inquire(inquiry),
    46 Await(awaited),
    47 Events { follows },
    48 Note,
    49 Consider(change),
} }

const HELLO: u8 = 0;

variants! { Reply "link reply" {
    0 Welcome { protocol, group, node, name, ordinal },
    1 Attached { database, serve_from },
    2 Ordered { position, tag, verdict, more },
    3 Body { position, more },
    4 ChunkOrdered { slot, sequence, index },
    5 TokenOutcome { slot, sequence, outcome },
    6 Refused { slot, sequence, reason },
    7 Group(status),
    8 Detached,
    9 Failed(failure),
    10 Rehearsing { nodes },
    11 Rehearsed { node, outcome },
    12 Rehearse { number, after },
    13 ReadFrom { number, position },
    14 ReadRefused { number, reason },
    15 Showing { number, nodes },
    16 Shown { number, node },
    17 Watch { position },
    18 Lock { number, session, answer },
    19 LockRefused { number, reason },
    20 Contended { key },
    21 Clear { number, patience_ms },
    22 Ahead { number, tag, chunks, after, patience_ms },
    23 Over { number },
    24 ForerunnerWanted,
    25 AheadOver { tag },
    26 AskConflicts,
    32 Done,
    40 Certificates(certificates),
    41 Place(place),
    42 Drain(drain),
    43 Draining { leads, sessions },
    44 Log(log),
    45 Report,
} }

variants! { Role "role" { 0 Manager, 1 Backend, 2 Control, 3 Fetcher, 4 Rehearsing, 5 Rehearser, 6 Reader, 7 Locker, 8 Forerunner, } }
variants! { RefusalReason "refusal" { 0 NoQuorum, 1 Overloaded, 2 NotAttached, 3 HasContents, 4 Format, } }
variants! { MemberState "member state" { 0 Online, 1 Detached, 2 Unreachable, 3 OutOfService, 4 Draining, 5 Copying, } }
variants! { Drain "drain" { 0 No, 1 Idle, 2 All, } }
variants! { FailureKind "failure" {
    0 Protocol,
    1 WrongGroup,
    2 NotAuthorized,
    3 AlreadyAttached,
    4 LogTruncated,
    5 AheadOfGroup,
    6 ShuttingDown,
    7 NotAttached,
    8 HasContents,
    9 Copying,
    10 Differs,
    16 Removed,
    17 Membership,
    18 Witness,
    19 QueryOnly,
    20 NoContents,
    21 LocksLost,
} }
variants! { Inquiry "inquiry" { 0 Examination, 1 Metrics, } }
variants! { Awaited "what is waited for" { 0 Synced, 1 Writable, } }
variants! { NodeKind "kind of a node" { 0 Full, 1 QueryOnly, 2 Witness, } }
variants! { MemberRole "member role" { 0 Voter, 1 Learner, 2 Joining, 3 Leaving, } }
variants! { Change "change of the membership" {
    0 Evict { name, force },
    1 Leave,
    2 Replace { old, new },
    3 Lead { name },
} }
variants! { TokenOutcome "token outcome" { 0 Unknown, 1 Committed { position }, 2 Aborted { position }, 3 Fenced, } }

variants! { Rehearsal "rehearsal" { 0 Passed, 1 Partly, 2 Absent, 3 Failed(failure), 4 Clear { committed }, } }

variants! { LockAnswer "answer about a lock" { 0 Granted { position }, 1 NotAvailable, 2 Deadlock, 3 Full, 4 Given, 5 Found { at }, } }

fields! { LockSession { life, number } }
fields! { GroupStatus { quorum, leader, term, members } }
fields! { CertificateStatus { name, is_authority, serial, not_after } }
fields! { MemberStatus { node, name, address, ordinal, role, state, committed, ordered, copy, kind } }
fields! { LogStatus { bytes_kept, bytes_max, bytes_a_second, format, reads, waits_for } }
fields! { ConflictCount { table, key, certification, victim, yielded, winner, position, last_at } }
fields! { CopyStatus { database, from, bytes_done, bytes_total, seconds } }

newtypes! { Key Position NodeId Incarnation DatabaseId SlotId Sequence }

impl Message for Request {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        Field::put(self, out)
    }
    fn decode(bytes: &[u8]) -> Result<Request, WireError> {
        if let Some(protocol) = foreign_greeting(bytes) {
            let (database, group) = (String::new(), None);
            return Ok(Request::Hello { protocol, role: Role::Control, database, group, incarnation: Incarnation(0) });
        }
        decode_whole(bytes, "link request")
    }
}

impl Message for Reply {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        Field::put(self, out)
    }
    fn decode(bytes: &[u8]) -> Result<Reply, WireError> {
        decode_whole(bytes, "link reply")
    }
}

fn decode_whole<F: Field>(bytes: &[u8], what: &'static str) -> Result<F, WireError> {
    let mut reader = Reader::new(bytes);
    let message = F::read(&mut reader)?;
    reader.finish(what)?;
    Ok(message)
}

/// The protocol of a greeting, if it is not this one.
fn foreign_greeting(bytes: &[u8]) -> Option<u32> {
    let mut reader = Reader::new(bytes);
    let is_hello = reader.u8().is_ok_and(|tag| tag == HELLO);
    let protocol = u32::read(&mut reader).ok()?;
    (is_hello && protocol != PROTOCOL).then_some(protocol)
}

const CERTIFIED: u8 = 0;
const CONFLICT: u8 = 1;
const BELOW_HORIZON: u8 = 2;
const MALFORMED: u8 = 3;
const TOKEN_USED: u8 = 4;
const TOKEN_FENCED: u8 = 5;
const TOKEN_TOO_OLD: u8 = 6;
const LOCKS_LOST: u8 = 7;
const PREPARED: u8 = 8;
const NOT_PREPARED: u8 = 9;
const ALREADY_PREPARED: u8 = 10;
const TOO_MANY_PREPARED: u8 = 11;

impl Verdict {
    /// Appends the one form that a verdict has, here and among the outcomes in the log.
    pub fn put(&self, out: &mut Vec<u8>) {
        let (tag, position) = match self {
            Verdict::Certified { depends_on } => (CERTIFIED, Some(depends_on)),
            Verdict::Aborted(AbortCause::Conflict { winner, .. }) => (CONFLICT, Some(winner)),
            Verdict::Aborted(AbortCause::BelowHorizon { horizon }) => (BELOW_HORIZON, Some(horizon)),
            Verdict::Aborted(AbortCause::Malformed) => (MALFORMED, None),
            Verdict::Aborted(AbortCause::TokenUsed { first }) => (TOKEN_USED, Some(first)),
            Verdict::Aborted(AbortCause::TokenFenced) => (TOKEN_FENCED, None),
            Verdict::Aborted(AbortCause::TokenTooOld { floor }) => (TOKEN_TOO_OLD, Some(floor)),
            Verdict::Aborted(AbortCause::LocksLost) => (LOCKS_LOST, None),
            Verdict::Aborted(AbortCause::Prepared { winner, .. }) => (PREPARED, Some(winner)),
            Verdict::Aborted(AbortCause::NotPrepared) => (NOT_PREPARED, None),
            Verdict::Aborted(AbortCause::AlreadyPrepared) => (ALREADY_PREPARED, None),
            Verdict::Aborted(AbortCause::TooManyPrepared) => (TOO_MANY_PREPARED, None),
        };
        out.put_u8(tag);
        if let Some(position) = position {
            out.put_varint(position.0);
        }
        if let Verdict::Aborted(
            AbortCause::Conflict { winner_node, key_index, .. } | AbortCause::Prepared { winner_node, key_index, .. },
        ) = self
        {
            out.put_u64(winner_node.0);
            out.put_varint(u64::from(*key_index));
        }
    }

    pub fn read(reader: &mut Reader<'_>) -> Result<Verdict, WireError> {
        let tag = reader.u8()?;
        let mut position = || reader.varint().map(Position);
        Ok(Verdict::Aborted(match tag {
            CERTIFIED => return Ok(Verdict::Certified { depends_on: position()? }),
            CONFLICT => {
                let winner = position()?;
                let (winner_node, key_index) = (NodeId(reader.u64()?), Field::read(reader)?);
                AbortCause::Conflict { winner, winner_node, key_index }
            }
            BELOW_HORIZON => AbortCause::BelowHorizon { horizon: position()? },
            MALFORMED => AbortCause::Malformed,
            TOKEN_USED => AbortCause::TokenUsed { first: position()? },
            TOKEN_FENCED => AbortCause::TokenFenced,
            TOKEN_TOO_OLD => AbortCause::TokenTooOld { floor: position()? },
            LOCKS_LOST => AbortCause::LocksLost,
            PREPARED => {
                let winner = position()?;
                let (winner_node, key_index) = (NodeId(reader.u64()?), Field::read(reader)?);
                AbortCause::Prepared { winner, winner_node, key_index }
            }
            NOT_PREPARED => AbortCause::NotPrepared,
            ALREADY_PREPARED => AbortCause::AlreadyPrepared,
            TOO_MANY_PREPARED => AbortCause::TooManyPrepared,
            value => return Err(WireError::Unknown { what: "verdict", value: u64::from(value) }),
        }))
    }
}

impl Field for Tag {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        Tag::put(self, out);
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<Tag, WireError> {
        Tag::read(reader)
    }
}

impl Field for LockOp {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        LockOp::put(self, out);
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<LockOp, WireError> {
        LockOp::read(reader)
    }
}

impl Field for Verdict {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        Verdict::put(self, out);
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<Verdict, WireError> {
        Verdict::read(reader)
    }
}

impl Field for Failure {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.kind.put(out)?;
        put_text(out, "failure message", &self.message, TEXT_BYTES_MAX)?;
        put_text(out, "failure hint", &self.hint, TEXT_BYTES_MAX)
    }
    fn read(reader: &mut Reader<'_>) -> Result<Failure, WireError> {
        Ok(Failure {
            kind: Field::read(reader)?,
            message: reader.str("failure message", TEXT_BYTES_MAX)?.to_owned(),
            hint: reader.str("failure hint", TEXT_BYTES_MAX)?.to_owned(),
        })
    }
}

impl Field for ServerPlace {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        put_text(out, "socket directory", &self.socket_directory, TEXT_BYTES_MAX)?;
        self.port.put(out)?;
        put_text(out, "user", &self.user, TEXT_BYTES_MAX)?;
        put_text(out, "directory of programs", &self.programs, TEXT_BYTES_MAX)?;
        self.may_rebuild.put(out)
    }
    fn read(reader: &mut Reader<'_>) -> Result<ServerPlace, WireError> {
        Ok(ServerPlace {
            socket_directory: reader.str("socket directory", TEXT_BYTES_MAX)?.to_owned(),
            port: Field::read(reader)?,
            user: reader.str("user", TEXT_BYTES_MAX)?.to_owned(),
            programs: reader.str("directory of programs", TEXT_BYTES_MAX)?.to_owned(),
            may_rebuild: Field::read(reader)?,
        })
    }
}

impl Field for RehearsalFailure {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.code.put(out)?;
        put_text(out, "rehearsal message", &self.message, TEXT_BYTES_MAX)?;
        put_text(out, "rehearsal detail", &self.detail, TEXT_BYTES_MAX)?;
        put_text(out, "rehearsal hint", &self.hint, TEXT_BYTES_MAX)?;
        self.last_statement.put(out)?;
        self.committed.put(out)
    }
    fn read(reader: &mut Reader<'_>) -> Result<RehearsalFailure, WireError> {
        Ok(RehearsalFailure {
            code: Field::read(reader)?,
            message: reader.str("rehearsal message", TEXT_BYTES_MAX)?.to_owned(),
            detail: reader.str("rehearsal detail", TEXT_BYTES_MAX)?.to_owned(),
            hint: reader.str("rehearsal hint", TEXT_BYTES_MAX)?.to_owned(),
            last_statement: Field::read(reader)?,
            committed: Field::read(reader)?,
        })
    }
}

/// A rehearsal's outcome stands by itself between daemons.
impl Rehearsal {
    pub fn encode(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        Field::put(self, out)
    }

    pub fn decode(bytes: &[u8]) -> Result<Rehearsal, WireError> {
        decode_whole(bytes, "rehearsal")
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        put_text(out, "name", self, NAME_BYTES_MAX)
    }
    fn read(reader: &mut Reader<'_>) -> Result<String, WireError> {
        Ok(reader.str("name", NAME_BYTES_MAX)?.to_owned())
    }
}

fn put_text(out: &mut Vec<u8>, what: &'static str, text: &str, limit: usize) -> Result<(), WireError> {
    check_limit(what, text.len(), limit)?;
    out.put_str(text);
    Ok(())
}

fn check_limit(what: &'static str, value: usize, limit: usize) -> Result<(), WireError> {
    if value > limit { Err(WireError::TooLarge { what, value: value as u64, limit: limit as u64 }) } else { Ok(()) }
}

/// What a list is of, and how long it may be.
trait Listed: Field {
    const WHAT: &'static str;
    const MAX: usize = GROUP_MEMBERS_MAX;
}

impl Listed for MemberStatus {
    const WHAT: &'static str = "number of members";
}

/// Names of members.
impl Listed for String {
    const WHAT: &'static str = "number of members";
}

impl Listed for ConflictCount {
    const WHAT: &'static str = "number of tables and keys";
    const MAX: usize = CONFLICTS_TOLD_MAX;
}

impl Listed for CertificateStatus {
    const WHAT: &'static str = "number of certificates";
    const MAX: usize = CERTIFICATES_MAX;
}

impl<L: Listed> Field for Vec<L> {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        check_limit(L::WHAT, self.len(), L::MAX)?;
        out.put_varint(self.len() as u64);
        self.iter().try_for_each(|item| item.put(out))
    }
    fn read(reader: &mut Reader<'_>) -> Result<Vec<L>, WireError> {
        let count = reader.varint()?;
        check_limit(L::WHAT, usize::try_from(count).unwrap_or(usize::MAX), L::MAX)?;
        (0..count).map(|_| Field::read(reader)).collect()
    }
}

impl<F: Field> Field for Option<F> {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        self.is_some().put(out)?;
        self.iter().try_for_each(|value| value.put(out))
    }
    fn read(reader: &mut Reader<'_>) -> Result<Option<F>, WireError> {
        if bool::read(reader)? { F::read(reader).map(Some) } else { Ok(None) }
    }
}

impl Field for Token {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.extend_from_slice(&self.0);
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<Token, WireError> {
        reader.array().map(Token)
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.put_u8(u8::from(*self));
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<bool, WireError> {
        match reader.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            value => Err(WireError::Unknown { what: "flag", value: u64::from(value) }),
        }
    }
}

impl Field for u16 {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.put_varint(u64::from(*self));
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<u16, WireError> {
        u16::try_from(reader.varint()?).map_err(|_| WireError::OutOfRange { what: "number of 16 bits" })
    }
}

impl Field for u32 {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.put_varint(u64::from(*self));
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<u32, WireError> {
        u32::try_from(reader.varint()?).map_err(|_| WireError::OutOfRange { what: "number of 32 bits" })
    }
}

impl Field for u64 {
    fn put(&self, out: &mut Vec<u8>) -> Result<(), WireError> {
        out.put_u64(*self);
        Ok(())
    }
    fn read(reader: &mut Reader<'_>) -> Result<u64, WireError> {
        reader.u64()
    }
}

#[cfg(test)]
#[path = "codec_tests.rs"]
mod tests;
