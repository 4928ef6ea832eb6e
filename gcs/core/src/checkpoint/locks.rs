//! The lock tables in a checkpoint.

use gcs_writeset::wire::{Put, Reader, WireError};
use gcs_writeset::{Lock, NodeId};

use super::items::{list, read_flag};
use crate::bounds::LOCKS_MAX;
use crate::locks::{Life, Lives, Locks, Ranges, Session, Who};

pub(super) fn put(out: &mut Vec<u8>, locks: &Locks) {
    out.put_varint(locks.sessions().len() as u64);
    for (who, session) in locks.sessions() {
        put_who(out, *who);
        out.put_u64(session.last);
        out.put_varint(session.held.len() as u64);
        session.held.iter().for_each(|lock| lock.put(out));
        out.put_u8(u8::from(session.taken.is_some()));
        if let Some((lock, number)) = &session.taken {
            lock.put(out);
            out.put_u64(*number);
        }
        out.put_u8(u8::from(session.waits));
        out.put_varint(session.blocks.len() as u64);
        session.blocks.iter().for_each(|other| out.put_u64(*other));
    }
    let waiting: Vec<Who> = locks.waiting().collect();
    out.put_varint(waiting.len() as u64);
    waiting.into_iter().for_each(|who| put_who(out, who));
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Locks, WireError> {
    let limit = LOCKS_MAX as u64;
    let sessions =
        list(reader, "sessions with locks", limit, |reader| Ok((read_who(reader)?, read_session(reader, limit)?)))?;
    let waiting = list(reader, "sessions that wait", limit, read_who)?;
    Ok(Locks::restore(sessions.into_iter().collect(), &waiting))
}

fn read_session(reader: &mut Reader<'_>, limit: u64) -> Result<Session, WireError> {
    Ok(Session {
        last: reader.u64()?,
        held: list(reader, "locks", limit, Lock::read)?.into_iter().collect(),
        taken: if read_flag(reader, "taken")? { Some((Lock::read(reader)?, reader.u64()?)) } else { None },
        waits: read_flag(reader, "waits")?,
        blocks: list(reader, "sessions that are blocked", limit, |reader| reader.u64())?.into_iter().collect(),
    })
}

fn put_who(out: &mut Vec<u8>, who: Who) {
    out.put_u64(who.node.0);
    out.put_u64(who.session);
}

fn read_who(reader: &mut Reader<'_>) -> Result<Who, WireError> {
    Ok(Who { node: NodeId(reader.u64()?), session: reader.u64()? })
}

pub(super) fn put_lives(out: &mut Vec<u8>, lives: &Lives) {
    out.put_varint(lives.all().len() as u64);
    for (node, life) in lives.all() {
        out.put_u64(node.0);
        out.put_u64(life.number);
        out.put_varint(life.closed.all().len() as u64);
        for (first, last) in life.closed.all() {
            out.put_u64(*first);
            out.put_u64(*last);
        }
    }
}

pub(super) fn read_lives(reader: &mut Reader<'_>) -> Result<Lives, WireError> {
    let lives = list(reader, "lives", u64::MAX, |reader| {
        let (node, number) = (NodeId(reader.u64()?), reader.u64()?);
        let closed = list(reader, "closed sessions", u64::MAX, |reader| Ok((reader.u64()?, reader.u64()?)))?;
        Ok((node, Life { number, closed: Ranges::restore(closed) }))
    })?;
    Ok(Lives::restore(lives))
}
