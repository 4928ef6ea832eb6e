//! The handshake between daemons, and the form of forwarded commands. Raft's own messages are raft-rs' protobuf (eraftpb).

use bytes::Bytes;
use gcs_core::command::Encoded;
use gcs_core::{Format, Wish};
use gcs_writeset::{NodeId, NodeKind};
use prost::encoding::{WireType, encode_key, encode_varint};

/// Goes up when frames or messages change in a way that an older daemon does not pass over. A connection speaks the lower one of its two ends'.
pub const PROTOCOL: u32 = 4;

/// The oldest one that this release speaks: that of the release before it. Daemons between which there is none in common refuse each other by name.
pub const PROTOCOL_OLDEST: u32 = 4;

/// Whether there is a protocol in common with whoever says this of itself; one that says a single number (`oldest` is 0) speaks that one.
pub fn check_protocol(newest: u32, oldest: u32) -> Result<(), Refused> {
    let oldest = if oldest == 0 { newest } else { oldest };
    if oldest <= PROTOCOL && PROTOCOL_OLDEST <= newest {
        return Ok(());
    }
    let message = format!("peer protocol {PROTOCOL} here, {newest} there: run the same or neighbouring releases of gcs");
    Err(Refused { reason: HandshakeRefusal::Protocol.into(), message })
}

/// Who calls, and which group it believes to be in.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(string, tag = "2")]
    pub group: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(fixed64, tag = "4")]
    pub node: u64,
    /// Of the founders: they must be the same everywhere.
    #[prost(fixed64, tag = "5")]
    pub members_hash: u64,
    /// For the how manieth time, from 0, the name is in the group.
    #[prost(uint32, tag = "6")]
    pub generation: u32,
    /// Of the caller's data directory.
    #[prost(fixed64, tag = "7")]
    pub directory: u64,
    /// Where the caller listens.
    #[prost(string, tag = "8")]
    pub address: String,
    /// Of the membership as the caller knows it.
    #[prost(uint64, tag = "9")]
    pub version: u64,
    /// Of the caller's process.
    #[prost(fixed64, tag = "10")]
    pub life: u64,
    /// A database, if the connection is to be one to the PostgreSQL that has it; after the welcome come PostgreSQL's own messages.
    #[prost(string, tag = "11")]
    pub tunnel_to: String,
    /// Likewise, to whatever PostgreSQL is there: for a copy of the whole server.
    #[prost(bool, tag = "12")]
    pub tunnel_to_server: bool,
    /// Up to which format of the group the caller reads; 0 before there were formats ([`gcs_core::format`]).
    #[prost(uint32, tag = "13")]
    pub reads: u32,
    /// The oldest protocol that the caller speaks; 0 if it speaks one only.
    #[prost(uint32, tag = "14")]
    pub protocol_oldest: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    #[prost(fixed64, tag = "1")]
    pub node: u64,
    /// At the other end of a tunnel: the superuser that initdb made.
    #[prost(string, tag = "2")]
    pub superuser: String,
    /// And where the programs of its version are, there.
    #[prost(string, tag = "3")]
    pub programs: String,
}

/// What a daemon tells the others of itself that is not in the order: whether its node is being drained, whether its PostgreSQL is there, and what is copied to it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Standing {
    #[prost(bool, tag = "1")]
    pub is_draining: bool,
    #[prost(bool, tag = "2")]
    pub leads: bool,
    /// Of clients, if they have been counted.
    #[prost(uint32, optional, tag = "3")]
    pub sessions: Option<u32>,
    #[prost(message, optional, tag = "4")]
    pub copy: Option<CopyUnderWay>,
    /// None of its databases is connected with it: its PostgreSQL is down, most likely.
    #[prost(bool, tag = "5")]
    pub is_detached: bool,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct CopyUnderWay {
    /// Empty for a whole server.
    #[prost(string, tag = "1")]
    pub database: String,
    #[prost(string, tag = "2")]
    pub from: String,
    #[prost(uint64, tag = "3")]
    pub bytes_done: u64,
    #[prost(uint64, tag = "4")]
    pub bytes_total: u64,
    #[prost(uint64, tag = "5")]
    pub seconds: u64,
}

/// The receiver's node is to be drained, or to work again.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct DrainOrder {
    /// Seconds that sessions have to go by themselves; none if it is to work again.
    #[prost(uint32, optional, tag = "1")]
    pub grace: Option<u32>,
}

/// Why a connection was refused, in words for the log of the one that dialled.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Refused {
    #[prost(enumeration = "HandshakeRefusal", tag = "1")]
    pub reason: i32,
    #[prost(string, tag = "2")]
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum HandshakeRefusal {
    Unspecified = 0,
    Protocol = 1,
    WrongGroup = 2,
    NotAMember = 3,
    MembersDiffer = 4,
    /// There is no PostgreSQL with this database that could be asked.
    NoDatabase = 5,
    /// The caller shows no certificate, or one that counts nothing here.
    Certificate = 16,
    /// The caller's certificate is of somebody else than it says it is.
    OtherName = 17,
    /// Asked for a certificate: no such token was made here.
    TokenUnknown = 18,
    TokenExpired = 19,
    TokenUsed = 20,
    /// The token was made for a node of another name.
    TokenOfAnother = 21,
    /// The name or the address belongs to a member already, or no further member has room.
    NameTaken = 22,
    /// The clocks of the two are too far apart.
    Clock = 23,
    /// This node cannot sign certificates; the message says which can.
    NotTheAuthority = 24,
    /// What was asked for makes no sense.
    Malformed = 25,
    /// The node failed to do it.
    Failed = 26,
    /// The caller was a member and is not any more.
    Removed = 32,
    /// The caller's data directory is not the one that the group knows.
    OtherDirectory = 33,
    /// Another process of the caller's name is connected.
    TwiceAtOnce = 34,
    /// Why it cannot become a member.
    CannotJoin = 35,
    /// The caller cannot read what the group writes.
    Format = 36,
}

/// A node with an empty data directory wants to become a member: what it sends in place of a [`Hello`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Join {
    #[prost(uint32, tag = "1")]
    pub protocol: u32,
    #[prost(string, tag = "2")]
    pub group: String,
    #[prost(string, tag = "3")]
    pub name: String,
    #[prost(string, tag = "4")]
    pub address: String,
    #[prost(fixed64, tag = "5")]
    pub directory: u64,
    /// [`NodeKind::number`].
    #[prost(uint32, tag = "6")]
    pub kind: u32,
    /// As in a [`Hello`].
    #[prost(uint32, tag = "7")]
    pub reads: u32,
    #[prost(uint32, tag = "8")]
    pub protocol_oldest: u32,
}

/// It is one: what it must know before it has anything of the group's log.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Joined {
    #[prost(uint32, tag = "1")]
    pub generation: u32,
    #[prost(message, repeated, tag = "2")]
    pub founders: Vec<FoundingMember>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct FoundingMember {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub address: String,
    /// [`NodeKind::number`].
    #[prost(uint32, tag = "3")]
    pub kind: u32,
}

/// Something for the leader to bring about: [`gcs_core::Wish`].
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct WishMessage {
    #[prost(enumeration = "WishKind", tag = "1")]
    pub kind: i32,
    #[prost(fixed64, tag = "2")]
    pub node: u64,
    #[prost(fixed64, tag = "3")]
    pub other: u64,
    #[prost(string, tag = "4")]
    pub name: String,
    #[prost(string, tag = "5")]
    pub address: String,
    #[prost(fixed64, tag = "6")]
    pub directory: u64,
    #[prost(uint32, tag = "7")]
    pub generation: u32,
    /// [`NodeKind::number`], of who is to be added.
    #[prost(uint32, tag = "8")]
    pub node_kind: u32,
    /// Up to which format it reads, likewise.
    #[prost(uint32, tag = "9")]
    pub reads: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, prost::Enumeration)]
#[repr(i32)]
pub enum WishKind {
    Unspecified = 0,
    Add = 1,
    Remove = 2,
    Replace = 3,
    Address = 4,
    Claim = 5,
    Lead = 6,
}

impl WishMessage {
    pub fn of(wish: &Wish) -> WishMessage {
        let empty = WishMessage::default();
        let kind = |kind: WishKind| kind as i32;
        match wish.clone() {
            Wish::Add { name, generation, address, directory, kind: of, reads } => {
                let (node_kind, reads, kind) = (of.number().into(), reads.0.into(), kind(WishKind::Add));
                WishMessage { kind, name, generation, address, directory, node_kind, reads, ..empty }
            }
            Wish::Remove { node } => WishMessage { kind: kind(WishKind::Remove), node: node.0, ..empty },
            Wish::Replace { old, new } => WishMessage { kind: kind(WishKind::Replace), node: old.0, other: new.0, ..empty },
            Wish::Address { node, address } => WishMessage { kind: kind(WishKind::Address), node: node.0, address, ..empty },
            Wish::Claim { node, directory } => WishMessage { kind: kind(WishKind::Claim), node: node.0, directory, ..empty },
            Wish::Lead { node } => WishMessage { kind: kind(WishKind::Lead), node: node.0, ..empty },
        }
    }

    /// `None`: a wish, or a kind of node, that this version does not know.
    pub fn wish(self) -> Option<Wish> {
        let node = NodeId(self.node);
        Some(match self.kind() {
            WishKind::Unspecified => return None,
            WishKind::Add => {
                let (kind, reads) = (kind_of(self.node_kind)?, Format::of_peer(self.reads));
                let WishMessage { name, generation, address, directory, .. } = self;
                Wish::Add { name, generation, address, directory, kind, reads }
            }
            WishKind::Remove => Wish::Remove { node },
            WishKind::Replace => Wish::Replace { old: node, new: NodeId(self.other) },
            WishKind::Address => Wish::Address { node, address: self.address },
            WishKind::Claim => Wish::Claim { node, directory: self.directory },
            WishKind::Lead => Wish::Lead { node },
        })
    }
}

/// A transaction with statements that is to be tried: `gcs_writeset::link::Request::Rehearse`.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rehearse {
    /// By which the answer is told from others.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(string, tag = "2")]
    pub database: String,
    #[prost(uint64, tag = "3")]
    pub after: u64,
    #[prost(uint32, tag = "4")]
    pub patience_ms: u32,
    #[prost(bytes = "bytes", tag = "5")]
    pub writeset: Bytes,
    /// Instead: tables that are to be kept clear of writers, `gcs_writeset::link::Request::Clear`.
    #[prost(bytes = "bytes", tag = "6")]
    pub tables: Bytes,
    /// Instead: the writeset is that of a transaction that is to be applied ahead, `gcs_writeset::link::Request::Ahead`. A daemon that does not know this tries a writeset whose
    /// body is empty, which harms nobody.
    #[prost(message, optional, tag = "7")]
    pub ahead: Option<Ahead>,
    /// What was asked under this number is withdrawn; nothing else in here counts. There is no database, so a daemon that does not know this has nobody try anything.
    #[prost(bool, tag = "8")]
    pub over: bool,
}

/// Which transaction is to be applied ahead: with the database and the node that asks, its tag.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Ahead {
    #[prost(fixed64, tag = "1")]
    pub incarnation: u64,
    #[prost(uint32, tag = "2")]
    pub slot: u32,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    /// In so many chunks its body is in the order.
    #[prost(uint32, tag = "4")]
    pub chunks: u32,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Rehearsed {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// As on the link.
    #[prost(bytes = "bytes", tag = "2")]
    pub outcome: Bytes,
}

/// Does this node show the position to its clients? (`gcs_writeset::link::Request::AskShown`.) Answered when it does.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Show {
    /// By which the answer is told from others.
    #[prost(uint64, tag = "1")]
    pub number: u64,
    #[prost(uint32, tag = "2")]
    pub database: u32,
    #[prost(uint64, tag = "3")]
    pub position: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ShownHere {
    #[prost(uint64, tag = "1")]
    pub number: u64,
    /// If position 0 was asked for, which is shown everywhere: who only wants to hear of the daemon asks so.
    #[prost(message, optional, tag = "2")]
    pub said: Option<Said>,
}

/// What a daemon says of itself to whoever asks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Said {
    /// Its wall clock, in milliseconds of Unix time.
    #[prost(int64, tag = "1")]
    pub clock_ms: i64,
    #[prost(string, tag = "2")]
    pub version: String,
    /// Where its PostgreSQL listens; 0 if none has attached.
    #[prost(uint32, tag = "3")]
    pub postgresql_port: u32,
}

/// Commands for the leader to propose.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Forward {
    #[prost(bytes = "bytes", repeated, tag = "1")]
    pub commands: Vec<Bytes>,
}

/// Appends what encoding a [`Forward`] would, from where the commands are: what they carry lies apart from their heads, and is
/// copied here for the first time.
pub fn put_forward(commands: &[Encoded], out: &mut Vec<u8>) {
    for command in commands {
        encode_key(1, WireType::LengthDelimited, out);
        encode_varint(command.length() as u64, out);
        command.put(out);
    }
}

/// The kind of a node by its number, in a message.
pub fn kind_of(number: u32) -> Option<NodeKind> {
    u8::try_from(number).ok().and_then(NodeKind::numbered)
}

/// FNV-1a over the sorted members: each one's name, a zero byte, its address, and a byte that is the number of its kind.
pub fn members_hash<'a>(members: impl Iterator<Item = (&'a str, &'a str, NodeKind)>) -> u64 {
    let member = |(name, address, kind): (&str, &str, NodeKind)| {
        [name.as_bytes(), b"\0", address.as_bytes(), &[kind.number()]].concat()
    };
    let text: Vec<u8> = members.flat_map(member).collect();
    // The hash that node ids are made with serves here as well.
    NodeId::of_name(&String::from_utf8_lossy(&text)).0
}
