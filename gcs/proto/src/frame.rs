//! The frame around every message between daemons.
//!
//! ```text
//! length   u32   of everything behind this field: 6 up to FRAME_BYTES_MAX
//! crc32c   u32   of everything behind this field
//! version  u8    1
//! kind     u8    1 Hello, 2 Welcome, 3 Refused, 4 Ping, 5 Raft, 6 Forward, 7 Rehearse, 8 Rehearsed, 9 Show, 10 ShownHere,
//!                11 Standing, 12 Drain, 13 Piece,
//!                32 Enrol, 33 Enrolled, 48 Join, 49 Joined, 50 Wish
//! body           protobuf, empty for Ping
//! ```
//!
//! Numbers are little-endian. Whatever does not fit this is an error, and an error ends the connection: there is no way to
//! find the next frame behind a broken one, and raft sends again what was lost.

use bytes::{Buf, Bytes, BytesMut};
use gcs_core::PeerMessage;
use gcs_core::command::Encoded;
use prost::Message as _;
use raft::eraftpb;
use raft_prost::Message as _;
use thiserror::Error;

use crate::enrolment::{Enrol, Enrolled};
use crate::message::{
    DrainOrder, Forward, Hello, Join, Joined, Refused, Rehearse, Rehearsed, Show, ShownHere, Standing, Welcome, WishMessage,
    put_forward,
};
use crate::pieces::{self, PIECE_BYTES, PIECED_BYTES_MAX, PieceError, Pieces};

pub const VERSION: u8 = 1;

/// One frame, length field excluded: the longest submission (64 MiB) and what is around it. The sender does not send a longer
/// one, the receiver ends the connection.
pub const FRAME_BYTES_MAX: usize = 80 << 20;

/// Checksum, version and kind.
const HEADER_BYTES: usize = 6;

const KIND_HELLO: u8 = 1;
const KIND_WELCOME: u8 = 2;
const KIND_REFUSED: u8 = 3;
const KIND_PING: u8 = 4;
const KIND_RAFT: u8 = 5;
const KIND_FORWARD: u8 = 6;
const KIND_REHEARSE: u8 = 7;
const KIND_REHEARSED: u8 = 8;
const KIND_SHOW: u8 = 9;
const KIND_SHOWN: u8 = 10;
const KIND_STANDING: u8 = 11;
const KIND_DRAIN: u8 = 12;
const KIND_PIECE: u8 = 13;
const KIND_ENROL: u8 = 32;
const KIND_ENROLLED: u8 = 33;
const KIND_JOIN: u8 = 48;
const KIND_JOINED: u8 = 49;
const KIND_WISH: u8 = 50;

#[derive(Clone, Debug, PartialEq)]
pub enum Frame {
    Hello(Hello),
    Welcome(Welcome),
    Refused(Refused),
    Ping,
    Message(PeerMessage),
    Rehearse(Rehearse),
    Rehearsed(Rehearsed),
    Show(Show),
    ShownHere(ShownHere),
    Standing(Standing),
    Drain(DrainOrder),
    Enrol(Enrol),
    Enrolled(Enrolled),
    Join(Join),
    Joined(Joined),
}

#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum FrameError {
    #[error("a frame of {length} bytes, which cannot be (limit {FRAME_BYTES_MAX})")]
    Length { length: usize },
    #[error("checksum is {found:08x}, expected {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("frame version {0}, which this daemon does not speak")]
    Version(u8),
    #[error("frame kind {0} is unknown")]
    Kind(u8),
    #[error("{0}")]
    Piece(#[from] PieceError),
    #[error("a {what} that cannot be decoded")]
    Body { what: &'static str },
}

/// Appends one frame to `out`, or several for a message of Raft that is too long for one; nothing if it would be too long.
pub fn encode(frame: &Frame, out: &mut Vec<u8>) -> Result<(), FrameError> {
    if let Frame::Message(PeerMessage::Raft(message)) = frame
        && message.encoded_len() > FRAME_BYTES_MAX - HEADER_BYTES
    {
        return encode_in_pieces(&message.encode_to_vec(), PIECE_BYTES, out);
    }
    frame_around(out, |out| put_body(frame, out))
}

fn encode_in_pieces(message: &[u8], piece_bytes: usize, out: &mut Vec<u8>) -> Result<(), FrameError> {
    if message.len() > PIECED_BYTES_MAX {
        return Err(PieceError::TooLong { length: message.len() }.into());
    }
    for (is_last, piece) in pieces::cut(message, piece_bytes) {
        frame_around(out, |out| {
            put(out, KIND_PIECE, |out| {
                out.push(u8::from(is_last));
                out.extend_from_slice(piece);
                true
            })
        })?;
    }
    Ok(())
}

/// Kind and body.
fn put_body(frame: &Frame, out: &mut Vec<u8>) -> bool {
    // Writing to a vector cannot fail: it grows.
    match frame {
        Frame::Hello(hello) => put(out, KIND_HELLO, |out| hello.encode(out).is_ok()),
        Frame::Welcome(welcome) => put(out, KIND_WELCOME, |out| welcome.encode(out).is_ok()),
        Frame::Refused(refused) => put(out, KIND_REFUSED, |out| refused.encode(out).is_ok()),
        Frame::Ping => put(out, KIND_PING, |_| true),
        Frame::Rehearse(rehearse) => put(out, KIND_REHEARSE, |out| rehearse.encode(out).is_ok()),
        Frame::Rehearsed(rehearsed) => put(out, KIND_REHEARSED, |out| rehearsed.encode(out).is_ok()),
        Frame::Show(show) => put(out, KIND_SHOW, |out| show.encode(out).is_ok()),
        Frame::ShownHere(shown) => put(out, KIND_SHOWN, |out| shown.encode(out).is_ok()),
        Frame::Standing(standing) => put(out, KIND_STANDING, |out| standing.encode(out).is_ok()),
        Frame::Drain(order) => put(out, KIND_DRAIN, |out| order.encode(out).is_ok()),
        Frame::Enrol(enrol) => put(out, KIND_ENROL, |out| enrol.encode(out).is_ok()),
        Frame::Enrolled(enrolled) => put(out, KIND_ENROLLED, |out| enrolled.encode(out).is_ok()),
        Frame::Join(join) => put(out, KIND_JOIN, |out| join.encode(out).is_ok()),
        Frame::Joined(joined) => put(out, KIND_JOINED, |out| joined.encode(out).is_ok()),
        Frame::Message(PeerMessage::Wish(wish)) => put(out, KIND_WISH, |out| WishMessage::of(wish).encode(out).is_ok()),
        Frame::Message(PeerMessage::Raft(message)) => put(out, KIND_RAFT, |out| message.encode(out).is_ok()),
        Frame::Message(PeerMessage::Forward(commands)) => put(out, KIND_FORWARD, |out| {
            put_forward(commands, out);
            true
        }),
    }
}

fn frame_around(out: &mut Vec<u8>, content: impl FnOnce(&mut Vec<u8>) -> bool) -> Result<(), FrameError> {
    let start = out.len();
    out.extend_from_slice(&[0; 8]);
    out.push(VERSION);
    let encoded = content(out);
    let length = out.len() - start - 4;
    if !encoded || length > FRAME_BYTES_MAX {
        out.truncate(start);
        return Err(FrameError::Length { length });
    }
    let checksum = crc32c::crc32c(&out[start + 8..]);
    out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
    out[start + 4..start + 8].copy_from_slice(&checksum.to_le_bytes());
    Ok(())
}

fn put(out: &mut Vec<u8>, kind: u8, body: impl FnOnce(&mut Vec<u8>) -> bool) -> bool {
    out.push(kind);
    body(out)
}

/// Cuts frames out of the bytes of a connection.
#[derive(Debug)]
pub struct Decoder {
    pub buffer: BytesMut,
    limit: usize,
    /// Of a message that comes in pieces.
    pieces: Pieces,
}

impl Decoder {
    /// Nobody may send more than `limit` bytes in one frame; before the handshake that is little.
    pub fn new(limit: usize) -> Decoder {
        Decoder {
            buffer: BytesMut::with_capacity(limit.min(64 << 10)),
            limit: limit.min(FRAME_BYTES_MAX),
            pieces: Pieces::default(),
        }
    }

    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit.min(FRAME_BYTES_MAX);
    }

    /// The next frame, or `None` until more bytes have come.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        while let Some(frame) = self.cut_frame()? {
            match decode(frame)? {
                Decoded::Frame(frame) if self.pieces.is_empty() => return Ok(Some(frame)),
                Decoded::Frame(_) => return Err(FrameError::Body { what: "message in pieces" }),
                // Before the handshake nobody has anything long to say.
                Decoded::Piece(_) if self.limit < FRAME_BYTES_MAX => return Err(FrameError::Kind(KIND_PIECE)),
                Decoded::Piece(body) => {
                    if let Some(message) = self.pieces.add(body)? {
                        return raft_message(message).map(Some);
                    }
                }
            }
        }
        Ok(None)
    }

    /// The bytes of the next frame, length field excluded.
    fn cut_frame(&mut self) -> Result<Option<Bytes>, FrameError> {
        let Some(head) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*head) as usize;
        if length < HEADER_BYTES || length > self.limit {
            return Err(FrameError::Length { length });
        }
        if self.buffer.len() < 4 + length {
            // A large frame is read in one piece instead of by doubling.
            self.buffer.reserve(4 + length - self.buffer.len());
            return Ok(None);
        }
        self.buffer.advance(4);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

enum Decoded {
    Frame(Frame),
    Piece(Bytes),
}

/// Decodes one frame, length field excluded.
fn decode(mut frame: Bytes) -> Result<Decoded, FrameError> {
    if frame.len() < HEADER_BYTES {
        return Err(FrameError::Length { length: frame.len() });
    }
    let expected = frame.get_u32_le();
    let found = crc32c::crc32c(&frame);
    if found != expected {
        return Err(FrameError::Checksum { found, expected });
    }
    let version = frame.get_u8();
    if version != VERSION {
        return Err(FrameError::Version(version));
    }
    match frame.get_u8() {
        KIND_PIECE => Ok(Decoded::Piece(frame)),
        kind => of_kind(kind, frame).map(Decoded::Frame),
    }
}

fn raft_message(bytes: Bytes) -> Result<Frame, FrameError> {
    eraftpb::Message::decode(bytes)
        .map(|message| Frame::Message(PeerMessage::Raft(Box::new(message))))
        .map_err(|_| FrameError::Body { what: "raft message" })
}

fn of_kind(kind: u8, frame: Bytes) -> Result<Frame, FrameError> {
    match kind {
        KIND_HELLO => Hello::decode(frame).map(Frame::Hello).map_err(|_| FrameError::Body { what: "hello" }),
        KIND_WELCOME => Welcome::decode(frame).map(Frame::Welcome).map_err(|_| FrameError::Body { what: "welcome" }),
        KIND_REFUSED => Refused::decode(frame).map(Frame::Refused).map_err(|_| FrameError::Body { what: "refusal" }),
        KIND_PING if frame.is_empty() => Ok(Frame::Ping),
        KIND_PING => Err(FrameError::Body { what: "ping" }),
        KIND_RAFT => raft_message(frame),
        KIND_FORWARD => Forward::decode(frame)
            .map(|forward| Frame::Message(PeerMessage::Forward(forward.commands.into_iter().map(Encoded::whole).collect())))
            .map_err(|_| FrameError::Body { what: "forwarded batch" }),
        KIND_REHEARSE => Rehearse::decode(frame).map(Frame::Rehearse).map_err(|_| FrameError::Body { what: "rehearsal" }),
        KIND_REHEARSED => {
            Rehearsed::decode(frame).map(Frame::Rehearsed).map_err(|_| FrameError::Body { what: "rehearsal's outcome" })
        }
        KIND_SHOW => {
            Show::decode(frame).map(Frame::Show).map_err(|_| FrameError::Body { what: "question about a position" })
        }
        KIND_SHOWN => {
            ShownHere::decode(frame).map(Frame::ShownHere).map_err(|_| FrameError::Body { what: "answer about a position" })
        }
        KIND_STANDING => Standing::decode(frame).map(Frame::Standing).map_err(|_| FrameError::Body { what: "standing" }),
        KIND_DRAIN => DrainOrder::decode(frame).map(Frame::Drain).map_err(|_| FrameError::Body { what: "order to drain" }),
        KIND_ENROL => Enrol::decode(frame).map(Frame::Enrol).map_err(|_| FrameError::Body { what: "enrolment" }),
        KIND_ENROLLED => {
            Enrolled::decode(frame).map(Frame::Enrolled).map_err(|_| FrameError::Body { what: "answer to an enrolment" })
        }
        KIND_JOIN => Join::decode(frame).map(Frame::Join).map_err(|_| FrameError::Body { what: "wish to join" }),
        KIND_JOINED => Joined::decode(frame).map(Frame::Joined).map_err(|_| FrameError::Body { what: "answer to a joiner" }),
        KIND_WISH => {
            let wish = WishMessage::decode(frame).ok().and_then(WishMessage::wish);
            wish.map(|wish| Frame::Message(PeerMessage::Wish(wish))).ok_or(FrameError::Body { what: "wish" })
        }
        kind => Err(FrameError::Kind(kind)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::enrolment::EnrolledMember;
    use crate::message::{Ahead, CopyUnderWay, FoundingMember};
    use gcs_core::command::Command;
    use gcs_core::{Format, Wish};
    use gcs_writeset::{DatabaseId, Incarnation, NodeId, NodeKind, Sequence, SlotId, Tag};
    use proptest::prelude::*;

    fn entry() -> impl Strategy<Value = eraftpb::Entry> {
        (any::<u64>(), any::<u64>(), prop::collection::vec(any::<u8>(), 0..32))
            .prop_map(|(index, term, data)| eraftpb::Entry { index, term, data, ..Default::default() })
    }

    fn of_membership() -> impl Strategy<Value = Frame> {
        let join = (any::<u32>(), ".*", ".*", ".*", any::<u64>(), any::<u32>(), any::<u32>()).prop_map(
            |(protocol, group, name, address, directory, kind, reads)| {
                let protocol_oldest = protocol / 2;
                Frame::Join(Join { protocol, group, name, address, directory, kind, reads, protocol_oldest })
            },
        );
        let founder = (".*", ".*", any::<u32>()).prop_map(|(name, address, kind)| FoundingMember { name, address, kind });
        let joined = (any::<u32>(), prop::collection::vec(founder, 0..4))
            .prop_map(|(generation, founders)| Frame::Joined(Joined { generation, founders }));
        let node = || any::<u64>().prop_map(NodeId);
        let wish = prop_oneof![
            (".*", any::<u32>(), ".*", any::<u64>(), prop::sample::select(NodeKind::ALL.to_vec()), 1..9u16).prop_map(
                |(name, generation, address, directory, kind, reads)| {
                    let reads = Format(reads);
                    Wish::Add { name, generation, address, directory, kind, reads }
                }
            ),
            node().prop_map(|node| Wish::Remove { node }),
            (node(), node()).prop_map(|(old, new)| Wish::Replace { old, new }),
            (node(), ".*").prop_map(|(node, address)| Wish::Address { node, address }),
            (node(), any::<u64>()).prop_map(|(node, directory)| Wish::Claim { node, directory }),
            node().prop_map(|node| Wish::Lead { node }),
        ];
        let wish = wish.prop_map(|wish| Frame::Message(PeerMessage::Wish(wish)));
        prop_oneof![join, joined, wish]
    }

    fn of_standing() -> impl Strategy<Value = Frame> {
        let copy = (".*", ".*", any::<u64>(), any::<u64>(), any::<u64>()).prop_map(
            |(database, from, bytes_done, bytes_total, seconds)| CopyUnderWay {
                database,
                from,
                bytes_done,
                bytes_total,
                seconds,
            },
        );
        let standing = (any::<[bool; 3]>(), prop::option::of(any::<u32>()), prop::option::of(copy)).prop_map(
            |([is_draining, leads, is_detached], sessions, copy)| {
                Frame::Standing(Standing { is_draining, leads, sessions, copy, is_detached })
            },
        );
        let drain = prop::option::of(any::<u32>()).prop_map(|grace| Frame::Drain(DrainOrder { grace }));
        prop_oneof![standing, drain]
    }

    fn frame() -> impl Strategy<Value = Frame> {
        let caller = (any::<u32>(), any::<u64>(), ".*", any::<u64>(), any::<u64>(), (".*", any::<bool>(), any::<u32>()));
        let hello = (any::<u32>(), ".*", ".*", any::<u64>(), any::<u64>(), caller).prop_map(
            |(protocol, group, name, node, members_hash, (generation, directory, address, version, life, tunnel))| {
                let (tunnel_to, tunnel_to_server, reads) = tunnel;
                Frame::Hello(Hello {
                    protocol,
                    group,
                    name,
                    node,
                    members_hash,
                    generation,
                    directory,
                    address,
                    version,
                    life,
                    tunnel_to,
                    tunnel_to_server,
                    reads,
                    protocol_oldest: protocol / 2,
                })
            },
        );
        let refused = (0..6i32, ".*").prop_map(|(reason, message)| Frame::Refused(Refused { reason, message }));
        let raft = (0..19i32, any::<u64>(), any::<u64>(), prop::collection::vec(entry(), 0..4)).prop_map(
            |(msg_type, from, term, entries)| {
                let message = eraftpb::Message { msg_type, from, term, entries, ..Default::default() };
                Frame::Message(PeerMessage::Raft(Box::new(message)))
            },
        );
        let commands = prop::collection::vec(
            prop::collection::vec(any::<u8>(), 0..32).prop_map(|bytes| Encoded::whole(bytes.into())),
            0..4,
        );
        let forward = commands.prop_map(|commands| Frame::Message(PeerMessage::Forward(commands)));
        let welcome = (any::<u64>(), ".*", ".*")
            .prop_map(|(node, superuser, programs)| Frame::Welcome(Welcome { node, superuser, programs }));
        let payload = || prop::collection::vec(any::<u8>(), 0..32).prop_map(Bytes::from);
        let ahead = (any::<[u64; 2]>(), any::<[u32; 2]>()).prop_map(|([incarnation, sequence], [slot, chunks])| Ahead {
            incarnation,
            slot,
            sequence,
            chunks,
        });
        let beside = (payload(), payload(), prop::option::of(ahead), any::<bool>());
        let rehearse = (any::<u64>(), ".*", any::<u64>(), any::<u32>(), beside).prop_map(
            |(number, database, after, patience_ms, (writeset, tables, ahead, over))| {
                Frame::Rehearse(Rehearse { number, database, after, patience_ms, writeset, tables, ahead, over })
            },
        );
        let rehearsed =
            (any::<u64>(), payload()).prop_map(|(number, outcome)| Frame::Rehearsed(Rehearsed { number, outcome }));
        let show = (any::<u64>(), any::<u32>(), any::<u64>())
            .prop_map(|(number, database, position)| Frame::Show(Show { number, database, position }));
        let enrol = (any::<u32>(), payload(), ".*", ".*", payload(), any::<i64>()).prop_map(
            |(protocol, secret, name, address, request, clock)| {
                Frame::Enrol(Enrol { protocol, secret, name, address, request, clock })
            },
        );
        let members = prop::collection::vec((".*", ".*").prop_map(|(name, address)| EnrolledMember { name, address }), 0..4);
        let enrolled = (".*", payload(), prop::collection::vec(payload(), 0..3), members).prop_map(
            |(group, certificate, authorities, members)| {
                Frame::Enrolled(Enrolled { group, certificate, authorities, members })
            },
        );
        let known = prop_oneof![hello, refused, raft, forward, welcome, Just(Frame::Ping), rehearse, rehearsed];
        prop_oneof![known, prop_oneof![enrol, enrolled, show, shown(), of_standing()], of_membership()]
    }

    fn shown() -> impl Strategy<Value = Frame> {
        let said = (any::<i64>(), "[0-9.]{1,10}", any::<u32>())
            .prop_map(|(clock_ms, version, postgresql_port)| crate::Said { clock_ms, version, postgresql_port });
        (any::<u64>(), prop::option::of(said)).prop_map(|(number, said)| Frame::ShownHere(ShownHere { number, said }))
    }

    fn decode_all(bytes: &[u8], piece: usize) -> Result<Vec<Frame>, FrameError> {
        let mut decoder = Decoder::new(FRAME_BYTES_MAX);
        let mut frames = Vec::new();
        for piece in bytes.chunks(piece.max(1)) {
            decoder.buffer.extend_from_slice(piece);
            while let Some(frame) = decoder.next_frame()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn a_command_is_forwarded_behind_its_head() {
        let (incarnation, slot, sequence) = (Incarnation(3), SlotId(4), Sequence(5));
        let tag = Tag { database: DatabaseId(1), node: NodeId(2), incarnation, slot, sequence };
        let commands = [Bytes::from_static(b"writeset"), Bytes::new()];
        let commands: Vec<_> = commands.map(|writeset| Command::Submit { tag, writeset }.encode()).into();
        let frame = Frame::Message(PeerMessage::Forward(commands));
        let mut bytes = Vec::new();
        encode(&frame, &mut bytes).unwrap();
        assert_eq!(decode_all(&bytes, bytes.len()).unwrap(), [frame]);
    }

    fn raft_of(bytes: usize) -> Frame {
        let snapshot = eraftpb::Snapshot { data: vec![7; bytes], ..Default::default() };
        let message = eraftpb::Message { msg_type: 7, from: 1, snapshot: Some(snapshot), ..Default::default() };
        Frame::Message(PeerMessage::Raft(Box::new(message)))
    }

    #[test]
    fn a_snapshot_that_is_too_long_for_a_frame_comes_in_pieces_and_other_frames_behind_it() {
        let snapshot = raft_of(FRAME_BYTES_MAX);
        let mut bytes = Vec::new();
        encode(&snapshot, &mut bytes).unwrap();
        encode(&Frame::Ping, &mut bytes).unwrap();
        assert_eq!(decode_all(&bytes, 1 << 20).unwrap(), [snapshot, Frame::Ping]);
    }

    #[test]
    fn nothing_comes_between_two_pieces_and_none_before_the_handshake() {
        let Frame::Message(PeerMessage::Raft(message)) = raft_of(100) else { return };
        let mut bytes = Vec::new();
        encode_in_pieces(&message.encode_to_vec(), 64, &mut bytes).unwrap();
        let mut early = Decoder::new(1000);
        early.buffer.extend_from_slice(&bytes);
        assert_eq!(early.next_frame(), Err(FrameError::Kind(KIND_PIECE)));
        let first = 4 + u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        bytes.truncate(first);
        encode(&Frame::Ping, &mut bytes).unwrap();
        assert_eq!(decode_all(&bytes, 50), Err(FrameError::Body { what: "message in pieces" }));
    }

    #[test]
    fn a_frame_above_the_limit_is_neither_sent_nor_taken() {
        let commands = vec![Encoded::whole(Bytes::from(vec![0; FRAME_BYTES_MAX]))];
        let mut out = b"before".to_vec();
        assert!(encode(&Frame::Message(PeerMessage::Forward(commands)), &mut out).is_err());
        assert_eq!(out, b"before");

        let mut decoder = Decoder::new(1000);
        decoder.buffer.extend_from_slice(&1001u32.to_le_bytes());
        assert_eq!(decoder.next_frame(), Err(FrameError::Length { length: 1001 }));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_however_it_is_cut(frames in prop::collection::vec(frame(), 0..6), piece in 1usize..200) {
            let mut bytes = Vec::new();
            for frame in &frames {
                encode(frame, &mut bytes).unwrap();
            }
            prop_assert_eq!(decode_all(&bytes, piece).unwrap(), frames);
        }

        #[test]
        fn garbage_is_an_error_or_unfinished_but_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode_all(&bytes, 64);
        }

        #[test]
        fn garbage_with_a_right_checksum_never_panics(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..128)) {
            let content = [&[VERSION, kind][..], &body].concat();
            let mut bytes = ((content.len() + 4) as u32).to_le_bytes().to_vec();
            bytes.extend_from_slice(&crc32c::crc32c(&content).to_le_bytes());
            bytes.extend_from_slice(&content);
            let _ = decode_all(&bytes, bytes.len());
        }

        #[test]
        fn a_changed_byte_is_noticed(frame in frame(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = Vec::new();
            encode(&frame, &mut bytes).unwrap();
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            // A longer length only waits for more.
            prop_assert!(!matches!(decode_all(&bytes, 64), Ok(frames) if !frames.is_empty()));
        }
    }
}
