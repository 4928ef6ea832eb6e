//! The link: messages on the Unix socket between PostgreSQL and its daemon.
//!
//! A frame is `length u32` (of all that follows), `head u32` (length of the message), the message, and then a payload of raw
//! bytes. `link/codec.rs` says how a message stands in bytes, and docs/formats.md lists every one of them. There is no checksum: the
//! socket does not leave the machine, and a writeset carries its own.
//!
//! Every connection opens with [`Request::Hello`] and is answered [`Reply::Welcome`] or [`Reply::Failed`]. Then, by role:
//!
//! - **Manager** (one for each database): sends `Attach`, then `Progress` as it goes; receives `Attached`, then every position
//!   in order as `Ordered` (and `Body` for what did not fit one frame), and `Group` whenever the group's state changes. All
//!   answers to submissions come here too, also those made on other connections.
//!
//!   *The stream.* Nothing but `Group` comes between `Attach` and `Attached`, which waits until the attach has been ordered: for as
//!   long as there is no majority, and then by itself. After it come the positions after `resume_after`, each once and without a
//!   gap, from disk first and then live; a manager that reads slowly falls back to the disk, and notices nothing of it. After
//!   `Detach` the stream goes on until `Detached`.
//!
//!   *Parts.* Between an `Ordered` with `more` and its last `Body` only `Group`, `ChunkOrdered`, `TokenOutcome` and `Refused` can
//!   come. The `Body` frames that answer a `Fetch` come in order, but other frames, also `Ordered`, may stand between them. Fetches
//!   are answered one after the other, in the order in which they were asked.
//! - **Backend**: only writes, `Submit`, `Chunk` and `AskToken`; nothing but `Welcome` is ever sent to it.
//! - **Control**: `Status`, answered `Group`; used by people and by the playground.
//!
//! When the daemon goes away, the manager reconnects, attaches again after its own committed position, and the backends that
//! were waiting submit again under the same tag; the group drops what it had already ordered.

mod codec;

pub use codec::Message;

use crate::bounds::LINK_FRAME_BYTES_MAX;
use crate::id::{DatabaseId, Incarnation, NodeId, Position, Sequence, SlotId, Tag};
use crate::token::{Token, TokenOutcome};
use crate::wire::{Reader, WireError};

/// Goes up when a frame or a message changes; both sides refuse another number with a clear error. So that they can, two things
/// keep their form in every protocol: the beginning of a [`Request::Hello`] up to this number, and a [`Reply::Failed`].
pub const PROTOCOL: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Manager,
    Backend,
    Control,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Hello {
        protocol: u32,
        role: Role,
        /// Empty for `Control`.
        database: String,
        /// The group the caller expects; `None` where it does not matter.
        group: Option<String>,
        incarnation: Incarnation,
    },
    /// Joins the group's order for the Hello's database, which the group numbers on first sight.
    Attach {
        resume_after: Position,
    },
    /// Payload: an encoded writeset. The tag is completed from the Hello.
    Submit {
        slot: SlotId,
        sequence: Sequence,
    },
    /// Payload: the next part of a body; answered `ChunkOrdered`.
    Chunk {
        slot: SlotId,
        sequence: Sequence,
        index: u32,
    },
    /// Drops the chunks that were sent for this submission.
    Abandon {
        slot: SlotId,
        sequence: Sequence,
    },
    /// Where this node is; goes into the group's horizon and log retention.
    Progress {
        committed: Position,
        flushed: Position,
        oldest_base: Position,
    },
    /// Asks what a commit token has come to: answered `TokenOutcome` from the question's place in the order. With `fence_after`,
    /// before which the token was not used, nothing with it will be committed from there on.
    AskToken {
        slot: SlotId,
        sequence: Sequence,
        token: Token,
        fence_after: Option<Position>,
    },
    /// Asks for the payload of a position that was delivered without (its backend is gone): answered `Body`.
    Fetch {
        position: Position,
    },
    /// Ends replication of the database on this node: answered `Detached` once ordered.
    Detach,
    Status,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Welcome {
        protocol: u32,
        group: String,
        node: NodeId,
        name: String,
        ordinal: u16,
    },
    /// The attach was ordered. No submission of an earlier incarnation can be ordered any more, and everything this node may
    /// have shown its clients lies at or below `serve_from`: clients wait until that is committed here.
    Attached {
        database: DatabaseId,
        serve_from: Position,
    },
    /// The next position. Payload: the encoded writeset, if certified and not submitted by the attached incarnation.
    /// With `more`, `Body` frames follow: first the chunks in order, then nothing else.
    Ordered {
        position: Position,
        tag: Tag,
        verdict: Verdict,
        more: bool,
    },
    /// Payload: a further part for `position`; for `Fetch`, first the encoded writeset, then its chunks.
    Body {
        position: Position,
        more: bool,
    },
    ChunkOrdered {
        slot: SlotId,
        sequence: Sequence,
        index: u32,
    },
    TokenOutcome {
        slot: SlotId,
        sequence: Sequence,
        outcome: TokenOutcome,
    },
    /// The submission (or question) was never sent and never will be.
    Refused {
        slot: SlotId,
        sequence: Sequence,
        reason: RefusalReason,
    },
    Group(GroupStatus),
    Detached,
    /// The connection ends after this.
    Failed(Failure),
}

/// A pure function of the ordered history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// May be applied once everything up to `depends_on` is committed; commits in position order.
    Certified {
        depends_on: Position,
    },
    Aborted(AbortCause),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AbortCause {
    /// The key at `key_index` was also held by `winner`, ordered after the key's base.
    Conflict { winner: Position, winner_node: NodeId, key_index: u32 },
    /// The history needed to certify the base has been purged.
    BelowHorizon { horizon: Position },
    /// The writeset could not be decoded, or its chunks are incomplete.
    Malformed,
    /// A transaction with the same commit token was certified before.
    TokenUsed { first: Position },
    /// Somebody who asked for the token's outcome was told that it will never be committed.
    TokenFenced,
    /// The token may have been used at or before a position up to which tokens are forgotten.
    TokenTooOld { floor: Position },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalReason {
    /// No majority can be reached: 25006.
    NoQuorum,
    /// Too much is waiting to be ordered: 53000, try again.
    Overloaded,
    /// This incarnation is not attached (any more).
    NotAttached,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupStatus {
    pub quorum: bool,
    pub leader: Option<NodeId>,
    pub term: u64,
    pub members: Vec<MemberStatus>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberStatus {
    pub node: NodeId,
    pub name: String,
    pub address: String,
    pub ordinal: u16,
    pub state: MemberState,
    /// Of the attached database; for `Control`, the highest of any database.
    pub committed: Position,
    /// The last position ordered in that database, as known here.
    pub ordered: Position,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MemberState {
    /// Its daemon is connected and its PostgreSQL attached.
    Online,
    /// Its daemon is connected; no PostgreSQL has attached.
    Detached,
    Unreachable,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: FailureKind,
    pub message: String,
    pub hint: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FailureKind {
    Protocol,
    WrongGroup,
    NotAuthorized,
    /// Another manager holds this database on this node.
    AlreadyAttached,
    /// The log no longer reaches back to `resume_after`.
    LogTruncated,
    /// `resume_after` lies beyond everything the group ever ordered: this is not the group this database belongs to.
    AheadOfGroup,
    ShuttingDown,
}

/// Before the message: the frame's length, and the message's.
const LENGTH_BYTES: usize = 4;
const FRONT_BYTES: usize = 8;

/// Appends one frame to `out`, or nothing if it cannot be written.
pub fn put_frame<M: Message>(out: &mut Vec<u8>, message: &M, payload: &[u8]) -> Result<(), WireError> {
    put_frame_with(out, message, |out| {
        out.extend_from_slice(payload);
        Ok(())
    })
}

/// Appends one frame to `out`, or nothing if it cannot be written. `put_payload` appends the payload where it belongs in the
/// frame, so that what is made for this frame alone need not be put together elsewhere first.
pub fn put_frame_with<M: Message>(
    out: &mut Vec<u8>,
    message: &M,
    put_payload: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    let result = put_parts(out, message, put_payload);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn put_parts<M: Message>(
    out: &mut Vec<u8>,
    message: &M,
    put_payload: impl FnOnce(&mut Vec<u8>) -> Result<(), WireError>,
) -> Result<(), WireError> {
    let start = out.len();
    out.extend_from_slice(&[0; FRONT_BYTES]);
    message.put(out)?;
    let payload_at = out.len();
    put_payload(out)?;
    assert!(out.len() >= payload_at, "a payload is appended and takes nothing away");
    let length = out.len() - start - LENGTH_BYTES;
    check_length(length as u64)?;
    let head = payload_at - start - FRONT_BYTES;
    out[start..start + LENGTH_BYTES].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + LENGTH_BYTES..start + FRONT_BYTES].copy_from_slice(&(head as u32).to_le_bytes());
    Ok(())
}

fn check_length(length: u64) -> Result<(), WireError> {
    let limit = LINK_FRAME_BYTES_MAX as u64;
    if length > limit { Err(WireError::TooLarge { what: "link frame", value: length, limit }) } else { Ok(()) }
}

/// How long the frame at the front of `input` is, length field included; `None` if even that is not there yet.
pub fn frame_len(input: &[u8]) -> Result<Option<usize>, WireError> {
    let Ok(length) = Reader::new(input).u32() else { return Ok(None) };
    check_length(u64::from(length))?;
    Ok(Some(length as usize + LENGTH_BYTES))
}

/// Decodes one whole frame, as measured by [`frame_len`]; the payload is borrowed.
pub fn decode_frame<M: Message>(frame: &[u8]) -> Result<(M, &[u8]), WireError> {
    let mut reader = Reader::new(frame);
    let length = reader.u32()? as usize;
    let mut content = Reader::new(reader.take(length)?);
    reader.finish("link frame")?;
    let head = content.u32()? as usize;
    let message = M::decode(content.take(head)?)?;
    Ok((message, content.rest()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SUBMIT: Request = Request::Submit { slot: SlotId(3), sequence: Sequence(9) };

    #[test]
    fn a_frame_carries_its_message_and_its_payload() {
        let mut out = Vec::new();
        put_frame(&mut out, &SUBMIT, b"writeset").unwrap();
        assert_eq!(frame_len(&out), Ok(Some(out.len())));
        assert_eq!(decode_frame::<Request>(&out), Ok((SUBMIT, &b"writeset"[..])));
    }

    #[test]
    fn a_payload_may_be_made_inside_the_frame() {
        let (mut whole, mut made) = (b"before".to_vec(), b"before".to_vec());
        put_frame(&mut whole, &SUBMIT, b"writeset").unwrap();
        let put_payload = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"write");
            out.extend_from_slice(b"set");
            Ok(())
        };
        put_frame_with(&mut made, &SUBMIT, put_payload).unwrap();
        assert_eq!(made, whole);
    }

    #[test]
    fn what_cannot_be_written_leaves_nothing_behind() {
        let mut out = b"before".to_vec();
        let refused = WireError::OutOfRange { what: "payload" };
        let put_payload = |out: &mut Vec<u8>| {
            out.extend_from_slice(b"half");
            Err(refused.clone())
        };
        assert_eq!(put_frame_with(&mut out, &SUBMIT, put_payload), Err(refused.clone()));
        assert_eq!(out, b"before");

        let long = vec![0; LINK_FRAME_BYTES_MAX];
        assert!(matches!(put_frame(&mut out, &SUBMIT, &long), Err(WireError::TooLarge { what: "link frame", .. })));
        assert_eq!(out, b"before");
    }

    #[test]
    fn a_frame_that_is_not_as_long_as_it_says_is_refused() {
        let mut out = Vec::new();
        put_frame(&mut out, &SUBMIT, b"writeset").unwrap();
        assert!(matches!(decode_frame::<Request>(&out[..out.len() - 1]), Err(WireError::Truncated { missing: 1 })));
        out.push(0);
        assert!(matches!(decode_frame::<Request>(&out), Err(WireError::Trailing { what: "link frame", extra: 1 })));
    }

    proptest! {
        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let _ = frame_len(&bytes);
            let _ = decode_frame::<Request>(&bytes);
            let _ = decode_frame::<Reply>(&bytes);
        }
    }
}
