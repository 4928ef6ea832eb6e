//! Commands: what the group orders, and how they stand in log entries and between daemons.
//!
//! ```text
//! entry    := version u8 = 1, count u32, then each: length u32, command
//! command  := 1 attach    node u64, incarnation u64, generation u64, database str
//!           | 2 detach    node u64, generation u64, database u32
//!           | 3 submit    tag, writeset (to the end)
//!           | 4 chunk     tag, index u32, bytes (to the end)
//!           | 5 abandon   tag
//!           | 6 progress  node u64, incarnation u64, database u32, committed u64, flushed u64, oldest_base u64
//!           | 7 ask       tag, token 16 bytes, fences u8, fence_after u64
//!           | 8 change    of the membership, see `membership::change`; none that changes votes
//!           | 9 life      node u64, life u64, by u64
//!           | 10 lock     node u64, life u64, session u64, database u32, number u64, op, see `gcs_writeset::lock`
//! tag      := database u32, node u64, incarnation u64, slot u32, sequence u64
//! ```
//!
//! An entry holds everything that waited when it was proposed, so that a busy group pays for one append and one flush where an
//! idle one does.
//!
//! *Copies.* Encoding a command makes only its head; the writeset or chunk behind it stays where the socket was read into
//! ([`Encoded`]), and is copied once, into the entry or into the frame that forwards it. Nothing is copied out of an entry either:
//! decoding hands out slices of it.
//!
//! *Generation*: attaches and detaches of one node have no natural order (incarnations are drawn at random), yet a copy of an
//! old attach, still on its way when its daemon died, must not undo a newer one. So each says which one it follows: it counts
//! only if exactly `generation` attaches and detaches of this node and database were ordered before it.

use bytes::Bytes;
use gcs_writeset::bounds::NAME_BYTES_MAX;
use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{DatabaseId, Incarnation, LockOp, LockSession, NodeId, Position, Tag, Token};

use crate::bounds::{COMMAND_BYTES_MAX, ENTRY_COMMANDS_MAX};
use crate::membership::Change;

const ENTRY_VERSION: u8 = 1;
const ENTRY_HEADER_BYTES: usize = 5;

const ATTACH: u8 = 1;
const DETACH: u8 = 2;
const SUBMIT: u8 = 3;
const CHUNK: u8 = 4;
const ABANDON: u8 = 5;
const PROGRESS: u8 = 6;
const ASK: u8 = 7;
const CHANGE: u8 = 8;
const LIFE: u8 = 9;
const LOCK: u8 = 10;

/// How many attaches and detaches of one node and database were ordered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Generation(pub u64);

impl Generation {
    pub fn next(self) -> Generation {
        Generation(self.0 + 1)
    }
}

/// Where a node is in one database.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub committed: Position,
    pub flushed: Position,
    pub oldest_base: Position,
    /// The member's PostgreSQL can't apply what comes next.
    pub out_of_service: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `founds`: the database brings its contents, which nobody else has; they are position 1.
    Attach {
        node: NodeId,
        incarnation: Incarnation,
        generation: Generation,
        database: String,
        founds: bool,
    },
    Detach {
        node: NodeId,
        generation: Generation,
        database: DatabaseId,
    },
    Submit {
        tag: Tag,
        writeset: Bytes,
    },
    Chunk {
        tag: Tag,
        index: u32,
        bytes: Bytes,
    },
    Abandon {
        tag: Tag,
    },
    Progress {
        node: NodeId,
        incarnation: Incarnation,
        database: DatabaseId,
        report: Report,
    },
    Ask {
        tag: Tag,
        token: Token,
        fence_after: Option<Position>,
    },
    Change(Change),
    /// Ends this life of the node's sessions; the next one begins ([`crate::locks`]).
    Life {
        node: NodeId,
        life: u64,
        /// The process of the node that begins the next one; 0 if the leader gives the node up.
        by: u64,
    },
    Lock {
        node: NodeId,
        session: LockSession,
        database: DatabaseId,
        number: u64,
        op: LockOp,
    },
}

impl Command {
    /// The member whose command this is. Nobody may send commands of another.
    pub fn node(&self) -> NodeId {
        match self {
            Command::Attach { node, .. }
            | Command::Detach { node, .. }
            | Command::Progress { node, .. }
            | Command::Life { node, .. }
            | Command::Lock { node, .. } => *node,
            Command::Submit { tag, .. }
            | Command::Chunk { tag, .. }
            | Command::Abandon { tag }
            | Command::Ask { tag, .. } => tag.node,
            // The leader's, which nobody forwards.
            Command::Change(_) => NodeId(0),
        }
    }

    /// Makes the head; what the command carries is shared with it.
    pub fn encode(&self) -> Encoded {
        let mut out = Vec::with_capacity(HEAD_BYTES);
        let mut payload = Bytes::new();
        match self {
            Command::Attach { node, incarnation, generation, database, founds } => {
                out.put_u8(ATTACH);
                out.put_u64(node.0);
                out.put_u64(incarnation.0);
                out.put_u64(generation.0);
                out.put_str(database);
                // A log from before databases could bring contents is read as well.
                if *founds {
                    out.put_u8(1);
                }
            }
            Command::Detach { node, generation, database } => {
                out.put_u8(DETACH);
                out.put_u64(node.0);
                out.put_u64(generation.0);
                out.put_u32(database.0);
            }
            Command::Submit { tag, writeset } => {
                out.put_u8(SUBMIT);
                tag.put(&mut out);
                payload = writeset.clone();
            }
            Command::Chunk { tag, index, bytes } => {
                out.put_u8(CHUNK);
                tag.put(&mut out);
                out.put_u32(*index);
                payload = bytes.clone();
            }
            Command::Abandon { tag } => {
                out.put_u8(ABANDON);
                tag.put(&mut out);
            }
            Command::Progress { node, incarnation, database, report } => {
                out.put_u8(PROGRESS);
                out.put_u64(node.0);
                out.put_u64(incarnation.0);
                out.put_u32(database.0);
                out.put_u64(report.committed.0);
                out.put_u64(report.flushed.0);
                out.put_u64(report.oldest_base.0);
                // A log from before there was such a state is read as well.
                if report.out_of_service {
                    out.put_u8(1);
                }
            }
            Command::Ask { tag, token, fence_after } => {
                out.put_u8(ASK);
                tag.put(&mut out);
                put_question(&mut out, *token, *fence_after);
            }
            Command::Change(change) => {
                out.put_u8(CHANGE);
                change.put(&mut out);
            }
            Command::Life { node, life, by } => {
                out.put_u8(LIFE);
                [node.0, *life, *by].into_iter().for_each(|number| out.put_u64(number));
            }
            Command::Lock { node, session, database, number, op } => {
                out.put_u8(LOCK);
                put_lock(&mut out, (*node, *session), *database, *number);
                op.put(&mut out);
            }
        }
        Encoded { head: Bytes::from(out), payload }
    }

    /// Writesets and chunks share the memory of `bytes`.
    pub fn decode(bytes: &Bytes) -> Result<Command, WireError> {
        Ok(match read(bytes)? {
            Read::Attach { node, incarnation, generation, database, founds } => {
                Command::Attach { node, incarnation, generation, database: database.to_owned(), founds }
            }
            Read::Submit { tag, writeset } => Command::Submit { tag, writeset: bytes.slice_ref(writeset) },
            Read::Chunk { tag, index, bytes: chunk } => Command::Chunk { tag, index, bytes: bytes.slice_ref(chunk) },
            Read::Small(command) => command,
        })
    }
}

fn put_question(out: &mut Vec<u8>, token: Token, fence_after: Option<Position>) {
    out.extend_from_slice(&token.0);
    out.put_u8(u8::from(fence_after.is_some()));
    out.put_u64(fence_after.unwrap_or_default().0);
}

/// Whose request about locks it is, and which.
fn put_lock(out: &mut Vec<u8>, (node, session): (NodeId, LockSession), database: DatabaseId, number: u64) {
    out.put_u64(node.0);
    out.put_u64(session.life);
    out.put_u64(session.number);
    out.put_u32(database.0);
    out.put_u64(number);
}

/// Room for the head of any command but an attach, whose name may be longer.
const HEAD_BYTES: usize = 64;

/// An encoded command on its way into an entry or a frame, in two parts that belong behind each other.
///
/// A command of this node's PostgreSQL keeps the memory that its session read it into for as long as it waits to be ordered. That is
/// bounded as the sessions are: a backend has one submission outstanding, in a buffer that its session would hold anyway, and chunks
/// come in buffers of their size.
#[derive(Clone, Debug, Default)]
pub struct Encoded {
    /// Everything in front of the writeset or chunk. Empty if the command came from a peer and is whole already.
    head: Bytes,
    payload: Bytes,
}

impl Encoded {
    /// A command as a peer forwarded it. Nobody has looked at it yet.
    pub fn whole(bytes: Bytes) -> Encoded {
        Encoded { head: Bytes::new(), payload: bytes }
    }

    /// How many bytes it is.
    pub fn length(&self) -> usize {
        self.head.len() + self.payload.len()
    }

    /// Appends the bytes.
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(&self.payload);
    }

    /// The member whose command this is; an error if it is none. A head is a command by itself, of an empty writeset or chunk.
    pub fn node(&self) -> Result<NodeId, WireError> {
        let front = if self.head.is_empty() { &self.payload } else { &self.head };
        Ok(Command::decode(front)?.node())
    }
}

impl PartialEq for Encoded {
    /// By bytes, wherever they are divided.
    fn eq(&self, other: &Encoded) -> bool {
        let bytes = |encoded: &Encoded| encoded.head.iter().chain(&encoded.payload).copied().collect::<Vec<u8>>();
        bytes(self) == bytes(other)
    }
}

/// A command as it stands in memory that belongs to somebody else.
enum Read<'a> {
    Attach { node: NodeId, incarnation: Incarnation, generation: Generation, database: &'a str, founds: bool },
    Submit { tag: Tag, writeset: &'a [u8] },
    Chunk { tag: Tag, index: u32, bytes: &'a [u8] },
    Small(Command),
}

fn read(bytes: &[u8]) -> Result<Read<'_>, WireError> {
    let mut reader = Reader::new(bytes);
    let command = match reader.u8()? {
        ATTACH => Read::Attach {
            node: NodeId(reader.u64()?),
            incarnation: Incarnation(reader.u64()?),
            generation: Generation(reader.u64()?),
            database: reader.str("database name", NAME_BYTES_MAX)?,
            founds: !reader.is_empty() && reader.u8()? == 1,
        },
        DETACH => Read::Small(Command::Detach {
            node: NodeId(reader.u64()?),
            generation: Generation(reader.u64()?),
            database: DatabaseId(reader.u32()?),
        }),
        SUBMIT => return Ok(Read::Submit { tag: Tag::read(&mut reader)?, writeset: reader.rest() }),
        CHUNK => {
            return Ok(Read::Chunk { tag: Tag::read(&mut reader)?, index: reader.u32()?, bytes: reader.rest() });
        }
        ABANDON => Read::Small(Command::Abandon { tag: Tag::read(&mut reader)? }),
        PROGRESS => Read::Small(Command::Progress {
            node: NodeId(reader.u64()?),
            incarnation: Incarnation(reader.u64()?),
            database: DatabaseId(reader.u32()?),
            report: Report {
                committed: Position(reader.u64()?),
                flushed: Position(reader.u64()?),
                oldest_base: Position(reader.u64()?),
                out_of_service: !reader.is_empty() && reader.u8()? == 1,
            },
        }),
        ASK => Read::Small(read_ask(&mut reader)?),
        CHANGE => Read::Small(read_change(&mut reader)?),
        LIFE => Read::Small(Command::Life { node: NodeId(reader.u64()?), life: reader.u64()?, by: reader.u64()? }),
        LOCK => Read::Small(Command::Lock {
            node: NodeId(reader.u64()?),
            session: LockSession { life: reader.u64()?, number: reader.u64()? },
            database: DatabaseId(reader.u32()?),
            number: reader.u64()?,
            op: LockOp::read(&mut reader)?,
        }),
        kind => return Err(WireError::Unknown { what: "command kind", value: u64::from(kind) }),
    };
    reader.finish("command")?;
    Ok(command)
}

fn read_change(reader: &mut Reader<'_>) -> Result<Command, WireError> {
    let change = Change::read(reader)?;
    // Raft would not hear of it.
    if change.step.is_of_votes() {
        return Err(WireError::OutOfRange { what: "change of the membership" });
    }
    Ok(Command::Change(change))
}

fn read_ask(reader: &mut Reader<'_>) -> Result<Command, WireError> {
    let tag = Tag::read(reader)?;
    let token = Token(reader.array()?);
    let fences = match reader.u8()? {
        0 => false,
        1 => true,
        value => return Err(WireError::Unknown { what: "fences", value: u64::from(value) }),
    };
    let after = Position(reader.u64()?);
    Ok(Command::Ask { tag, token, fence_after: fences.then_some(after) })
}

/// One log entry of these encoded commands, of which there is at least one.
pub fn encode_entry(commands: &[Encoded]) -> Vec<u8> {
    debug_assert!(!commands.is_empty() && commands.len() <= ENTRY_COMMANDS_MAX);
    let mut out = Vec::with_capacity(ENTRY_HEADER_BYTES + commands.iter().map(|c| 4 + c.length()).sum::<usize>());
    out.put_u8(ENTRY_VERSION);
    out.put_u32(commands.len() as u32);
    for command in commands {
        out.put_u32(command.length() as u32);
        command.put(&mut out);
    }
    out
}

/// The commands of a log entry. An entry without data (a new leader's first) holds none.
pub fn decode_entry(data: &Bytes) -> Result<Vec<Command>, WireError> {
    let mut commands = Vec::new();
    for_each_command(data, |command| {
        commands.push(Command::decode(&data.slice_ref(command))?);
        Ok(())
    })?;
    Ok(commands)
}

/// Whether [`decode_entry`] would succeed, without keeping anything.
pub fn check_entry(data: &[u8]) -> Result<(), WireError> {
    for_each_command(data, |command| read(command).map(drop))
}

/// The tag and the writeset or chunk at `ordinal` of an entry's data: how a driver follows a [`LogRef`](crate::LogRef), and how
/// it finds the writeset of a [`PositionOutcome`](crate::PositionOutcome).
pub fn payload_at(data: &Bytes, ordinal: u32) -> Result<(Tag, Bytes), WireError> {
    match command_at(data, ordinal)? {
        Command::Submit { tag, writeset } => Ok((tag, writeset)),
        Command::Chunk { tag, bytes, .. } => Ok((tag, bytes)),
        _ => Err(WireError::OutOfRange { what: "ordinal of a payload" }),
    }
}

/// The tag, the index and the bytes of the chunk at `ordinal` of an entry's data.
pub fn chunk_at(data: &Bytes, ordinal: u32) -> Result<(Tag, u32, Bytes), WireError> {
    match command_at(data, ordinal)? {
        Command::Chunk { tag, index, bytes } => Ok((tag, index, bytes)),
        _ => Err(WireError::OutOfRange { what: "ordinal of a chunk" }),
    }
}

fn command_at(data: &Bytes, ordinal: u32) -> Result<Command, WireError> {
    let mut found = None;
    let mut at = 0;
    for_each_command(data, |command| {
        if at == ordinal {
            found = Some(data.slice_ref(command));
        }
        at += 1;
        Ok(())
    })?;
    Command::decode(&found.ok_or(WireError::OutOfRange { what: "ordinal of a command" })?)
}

fn for_each_command<'a>(data: &'a [u8], mut visit: impl FnMut(&'a [u8]) -> Result<(), WireError>) -> Result<(), WireError> {
    if data.is_empty() {
        return Ok(());
    }
    let mut reader = Reader::new(data);
    let version = reader.u8()?;
    if version != ENTRY_VERSION {
        return Err(WireError::Unknown { what: "entry version", value: u64::from(version) });
    }
    let count = reader.u32()?;
    if count as usize > ENTRY_COMMANDS_MAX {
        let limit = ENTRY_COMMANDS_MAX as u64;
        return Err(WireError::TooLarge { what: "number of commands", value: u64::from(count), limit });
    }
    for _ in 0..count {
        let length = reader.u32()? as usize;
        if length > COMMAND_BYTES_MAX {
            let limit = COMMAND_BYTES_MAX as u64;
            return Err(WireError::TooLarge { what: "command", value: length as u64, limit });
        }
        visit(reader.take(length)?)?;
    }
    reader.finish("entry")
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::{Sequence, SlotId};
    use proptest::prelude::*;

    fn tag() -> impl Strategy<Value = Tag> {
        (any::<u32>(), any::<u64>(), any::<u64>(), any::<u32>(), any::<u64>()).prop_map(
            |(database, node, incarnation, slot, sequence)| Tag {
                database: DatabaseId(database),
                node: NodeId(node),
                incarnation: Incarnation(incarnation),
                slot: SlotId(slot),
                sequence: Sequence(sequence),
            },
        )
    }

    fn payload() -> impl Strategy<Value = Bytes> {
        prop::collection::vec(any::<u8>(), 0..64).prop_map(Bytes::from)
    }

    fn command() -> impl Strategy<Value = Command> {
        prop_oneof![
            (any::<u64>(), any::<u64>(), any::<u64>(), "[a-z]{0,9}", any::<bool>()).prop_map(
                |(node, incarnation, generation, database, founds)| {
                    Command::Attach {
                        node: NodeId(node),
                        incarnation: Incarnation(incarnation),
                        generation: Generation(generation),
                        database,
                        founds,
                    }
                }
            ),
            (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(node, generation, database)| Command::Detach {
                node: NodeId(node),
                generation: Generation(generation),
                database: DatabaseId(database),
            }),
            (tag(), payload()).prop_map(|(tag, writeset)| Command::Submit { tag, writeset }),
            (tag(), any::<u32>(), payload()).prop_map(|(tag, index, bytes)| Command::Chunk { tag, index, bytes }),
            tag().prop_map(|tag| Command::Abandon { tag }),
            (tag(), any::<[u8; 16]>(), prop::option::of(any::<u64>())).prop_map(|(tag, token, fence_after)| {
                Command::Ask { tag, token: Token(token), fence_after: fence_after.map(Position) }
            }),
            (any::<[u64; 3]>()).prop_map(|[node, life, by]| Command::Life { node: NodeId(node), life, by }),
            (any::<[u64; 5]>(), any::<u32>()).prop_map(|(n, database)| Command::Lock {
                node: NodeId(n[0]),
                session: LockSession { life: n[1], number: n[2] },
                database: DatabaseId(database),
                number: n[3],
                op: if n[4] % 2 == 0 { LockOp::Withdraw { take: n[4] } } else { LockOp::Blocks { sessions: vec![n[4]] } },
            }),
            (any::<[u64; 5]>(), any::<u32>()).prop_map(|(n, database)| Command::Progress {
                node: NodeId(n[0]),
                incarnation: Incarnation(n[1]),
                database: DatabaseId(database),
                report: Report {
                    committed: Position(n[2]),
                    flushed: Position(n[3]),
                    oldest_base: Position(n[4]),
                    out_of_service: n[0] % 2 == 1
                },
            }),
        ]
    }

    proptest! {
        #[test]
        fn an_entry_gives_back_its_commands(commands in prop::collection::vec(command(), 1..8)) {
            let encoded: Vec<Encoded> = commands.iter().map(Command::encode).collect();
            let data = Bytes::from(encode_entry(&encoded));
            prop_assert_eq!(decode_entry(&data), Ok(commands.clone()));
            for (ordinal, command) in commands.iter().enumerate() {
                prop_assert_eq!(&command_at(&data, ordinal as u32).unwrap(), command);
            }
            prop_assert!(command_at(&data, commands.len() as u32).is_err());
            prop_assert_eq!(check_entry(&data), Ok(()));
        }

        #[test]
        fn a_command_in_two_parts_is_the_same_as_one_that_came_whole(command in command()) {
            let encoded = command.encode();
            let mut bytes = Vec::new();
            encoded.put(&mut bytes);
            prop_assert_eq!(encoded.length(), bytes.len());
            let whole = Encoded::whole(Bytes::from(bytes));
            prop_assert_eq!(encoded.node(), Ok(command.node()));
            prop_assert_eq!(whole.node(), Ok(command.node()));
            prop_assert_eq!(whole, encoded);
        }

        #[test]
        fn a_shortened_entry_is_refused(commands in prop::collection::vec(command(), 1..4), cut in any::<prop::sample::Index>()) {
            let encoded: Vec<Encoded> = commands.iter().map(Command::encode).collect();
            let data = encode_entry(&encoded);
            let data = Bytes::copy_from_slice(&data[..1 + cut.index(data.len() - 1)]);
            prop_assert!(decode_entry(&data).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            let bytes = Bytes::from(bytes);
            let _ = decode_entry(&bytes);
            let _ = Command::decode(&bytes);
        }
    }

    #[test]
    fn the_empty_entry_of_a_new_leader_holds_no_commands() {
        assert_eq!(decode_entry(&Bytes::new()), Ok(Vec::new()));
    }
}
