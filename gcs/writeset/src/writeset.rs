//! The envelope of a writeset: what the group reads to certify it, around a body that only PostgreSQL reads.
//!
//! ```text
//! version      u8    2
//! flags        u8    bit 0: the body holds statements; bit 1: there is a commit token
//! chunks       u32   how many chunks of this tag hold the front of the body; 0 for all but large transactions
//! oldest_base  u64   the oldest base that a transaction of this node may still use (the horizon, docs/certification.md)
//! started_at   i64   transaction start, microseconds since 2000-01-01 UTC
//! committed_at i64   when COMMIT was asked for, same unit
//! token        16 bytes and since u64, if the flag says so: see [`crate::token`]
//! application  varint length, then UTF-8: application_name of the session
//! groups       varint, then each: base u64, exclusive varint, shared varint, checked varint, that many u64 keys in that order
//! body         varint length, then the bytes
//! crc32c       u32   of all before
//! ```
//!
//! A key's *index*, which a verdict names, counts the keys as they stand here, through all groups.

use crate::bounds::{KEYS_MAX, NAME_BYTES_MAX};
use crate::id::Position;
use crate::key::{Key, KeyGroup, Mode};
use crate::token::{CommitToken, Token};
use crate::wire::{Put, Reader, WireError};

pub const VERSION: u8 = 2;
const FLAG_STATEMENTS: u8 = 1;
const FLAG_TOKEN: u8 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Envelope {
    pub has_statements: bool,
    pub chunks: u32,
    pub oldest_base: Position,
    pub started_at: i64,
    pub committed_at: i64,
    /// By which the client can ask for the outcome; see `postgres_r.set_commit_token`.
    pub token: Option<CommitToken>,
    /// For whoever loses against this writeset.
    pub application: String,
    pub groups: Vec<KeyGroup>,
}

impl Envelope {
    /// Encodes the envelope around `body`.
    pub fn encode(&self, body: &[u8]) -> Vec<u8> {
        let keys: usize = self.groups.iter().map(|g| g.len()).sum();
        let mut out = Vec::with_capacity(64 + keys * 8 + self.groups.len() * 12 + body.len());
        out.put_u8(VERSION);
        let statements = if self.has_statements { FLAG_STATEMENTS } else { 0 };
        out.put_u8(statements | if self.token.is_some() { FLAG_TOKEN } else { 0 });
        out.put_u32(self.chunks);
        out.put_u64(self.oldest_base.0);
        out.put_i64(self.started_at);
        out.put_i64(self.committed_at);
        if let Some(token) = &self.token {
            out.extend_from_slice(&token.token.0);
            out.put_u64(token.since.0);
        }
        out.put_str(&self.application);
        out.put_varint(self.groups.len() as u64);
        for group in &self.groups {
            out.put_u64(group.base.0);
            out.put_varint(group.exclusive.len() as u64);
            out.put_varint(group.shared.len() as u64);
            out.put_varint(group.checked.len() as u64);
            for key in group.exclusive.iter().chain(&group.shared).chain(&group.checked) {
                out.put_u64(key.0);
            }
        }
        out.put_bytes(body);
        let checksum = crc32c::crc32c(&out);
        out.put_u32(checksum);
        out
    }

    /// Decodes and checks a whole writeset; the body is borrowed.
    pub fn decode(bytes: &[u8]) -> Result<(Envelope, &[u8]), WireError> {
        let split = bytes.len().checked_sub(4).ok_or_else(|| WireError::Truncated { missing: 4 - bytes.len() })?;
        let (content, tail) = bytes.split_at(split);
        let expected = Reader::new(tail).u32()?;
        let found = crc32c::crc32c(content);
        if found != expected {
            return Err(WireError::Checksum { found, expected });
        }
        let mut reader = Reader::new(content);
        let version = reader.u8()?;
        if version != VERSION {
            return Err(WireError::Unknown { what: "writeset version", value: u64::from(version) });
        }
        let flags = reader.u8()?;
        if flags & !(FLAG_STATEMENTS | FLAG_TOKEN) != 0 {
            return Err(WireError::Unknown { what: "writeset flags", value: u64::from(flags) });
        }
        let mut envelope = Envelope {
            has_statements: flags & FLAG_STATEMENTS != 0,
            chunks: reader.u32()?,
            oldest_base: Position(reader.u64()?),
            started_at: reader.i64()?,
            committed_at: reader.i64()?,
            token: (flags & FLAG_TOKEN != 0).then(|| read_token(&mut reader)).transpose()?,
            application: reader.str("application name", NAME_BYTES_MAX)?.to_owned(),
            groups: Vec::new(),
        };
        let mut left = KEYS_MAX as u64;
        for _ in 0..reader.varint()? {
            let group = decode_group(&mut reader, &mut left)?;
            envelope.groups.push(group);
        }
        let body = reader.bytes("writeset body", usize::MAX >> 1)?;
        reader.finish("writeset")?;
        Ok((envelope, body))
    }

    /// The application name of an encoded writeset, without looking at the rest; `None` if it can't be read.
    pub fn peek_application(bytes: &[u8]) -> Option<&str> {
        let mut reader = Reader::new(bytes);
        let (_version, flags) = (reader.u8().ok()?, reader.u8().ok()?);
        reader.take(4 + 3 * 8).ok()?;
        if flags & FLAG_TOKEN != 0 {
            read_token(&mut reader).ok()?;
        }
        reader.str("application name", NAME_BYTES_MAX).ok()
    }

    /// Every key with its base and mode, in index order.
    pub fn keys(&self) -> impl Iterator<Item = (Key, Mode, Position)> + '_ {
        self.groups.iter().flat_map(|group| {
            let exclusive = group.exclusive.iter().map(|&key| (key, Mode::Exclusive, group.base));
            let shared = group.shared.iter().map(|&key| (key, Mode::Shared, group.base));
            exclusive.chain(shared).chain(group.checked.iter().map(|&key| (key, Mode::Checked, group.base)))
        })
    }
}

fn read_token(reader: &mut Reader<'_>) -> Result<CommitToken, WireError> {
    Ok(CommitToken { token: Token(reader.array()?), since: Position(reader.u64()?) })
}

fn decode_group(reader: &mut Reader<'_>, left: &mut u64) -> Result<KeyGroup, WireError> {
    let base = Position(reader.u64()?);
    let exclusive = reader.varint()?;
    let shared = reader.varint()?;
    let checked = reader.varint()?;
    let total = exclusive.saturating_add(shared).saturating_add(checked);
    if total > *left {
        return Err(WireError::TooLarge { what: "number of keys", value: total, limit: *left });
    }
    *left -= total;
    Ok(KeyGroup {
        base,
        exclusive: decode_keys(reader, exclusive)?,
        shared: decode_keys(reader, shared)?,
        checked: decode_keys(reader, checked)?,
    })
}

fn decode_keys(reader: &mut Reader<'_>, count: u64) -> Result<Vec<Key>, WireError> {
    let bytes = reader.take(count as usize * 8)?;
    Ok(bytes.as_chunks::<8>().0.iter().map(|chunk| Key(u64::from_le_bytes(*chunk))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group() -> impl Strategy<Value = KeyGroup> {
        let keys = || prop::collection::vec(any::<u64>().prop_map(Key), 0..8);
        (any::<u64>(), keys(), keys(), keys()).prop_map(|(base, exclusive, shared, checked)| KeyGroup {
            base: Position(base),
            exclusive,
            shared,
            checked,
        })
    }

    fn envelope() -> impl Strategy<Value = Envelope> {
        let head = (any::<bool>(), any::<u32>(), any::<u64>(), any::<i64>(), any::<i64>());
        let token = prop::option::of((any::<[u8; 16]>(), any::<u64>()));
        let names = (token, "[a-zé]{0,20}");
        (head, names, prop::collection::vec(group(), 0..4)).prop_map(|(head, (token, application), groups)| {
            let (has_statements, chunks, oldest_base, started_at, committed_at) = head;
            let oldest_base = Position(oldest_base);
            let token = token.map(|(token, since)| CommitToken { token: Token(token), since: Position(since) });
            Envelope { has_statements, chunks, oldest_base, started_at, committed_at, token, application, groups }
        })
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(envelope in envelope(), body in prop::collection::vec(any::<u8>(), 0..64)) {
            let bytes = envelope.encode(&body);
            prop_assert_eq!(Envelope::peek_application(&bytes), Some(&*envelope.application));
            prop_assert_eq!(Envelope::decode(&bytes), Ok((envelope, &body[..])));
        }

        #[test]
        fn a_changed_byte_is_refused(envelope in envelope(), at in any::<prop::sample::Index>(), flip in 1u8..) {
            let mut bytes = envelope.encode(b"body");
            let at = at.index(bytes.len());
            bytes[at] ^= flip;
            prop_assert!(Envelope::decode(&bytes).is_err());
        }

        #[test]
        fn garbage_is_refused_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..128)) {
            prop_assert!(Envelope::decode(&bytes).is_err());
            let _ = Envelope::peek_application(&bytes);
        }
    }
}
