//! The handshake between daemons, and the form of forwarded commands. Raft's own messages are raft-rs' protobuf (eraftpb).

use bytes::Bytes;
use gcs_core::command::Encoded;
use gcs_writeset::NodeId;
use prost::encoding::{WireType, encode_key, encode_varint};

/// Goes up when frames or messages change; daemons refuse another number by name.
pub const PROTOCOL: u32 = 3;

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
    /// Of the sorted member list: names and addresses must be the same everywhere.
    #[prost(fixed64, tag = "5")]
    pub members_hash: u64,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    #[prost(fixed64, tag = "1")]
    pub node: u64,
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

/// FNV-1a over the sorted members, a zero byte behind each name and address.
pub fn members_hash<'a>(members: impl Iterator<Item = (&'a str, &'a str)>) -> u64 {
    let text: Vec<u8> =
        members.flat_map(|(name, address)| [name.as_bytes(), b"\0", address.as_bytes(), b"\0"].concat()).collect();
    // The hash that node ids are made with serves here as well.
    NodeId::of_name(&String::from_utf8_lossy(&text)).0
}
