//! What a client's backend submits, and the way it takes: [`postgres_r_protocol::submission::Backend`] for a simulated process.

use std::time::Duration;

use bytes::Bytes;
use gcs_writeset::bounds::CHUNK_BYTES_MAX;
use gcs_writeset::link::{Request, decode_frame, put_frame};
use gcs_writeset::wire::WireError;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Position, Sequence, Tag};
use postgres_r_protocol::id::{LocalXid, Moment};
use postgres_r_protocol::submission::{Ahead, Backend, Patience, Process, Sent};

use super::asking::Asking;
use super::ground::{Action, Ctx, Interrupts};
use super::transaction::Txn;
use crate::sim::fact::Fact;
use crate::sim::wire::{Caller, ConnId, Up};

/// A body that is being read from front to end.
#[derive(Debug)]
pub struct Reading {
    body: Vec<u8>,
    read: usize,
    /// Now and then so small that the front travels in chunks.
    chunk_bytes: usize,
    pub asking: Asking,
}

impl Reading {
    pub fn new(ctx: &mut Ctx<'_, '_>, txn: &Txn) -> Reading {
        let body = txn.body().encode();
        let ahead_permille = ctx.ground.settings.ahead_permille;
        let is_small = ctx.permille(80) || (ahead_permille > 0 && ctx.permille(250));
        let chunk_bytes = if is_small { ctx.hand.rng.between(4, 60) as usize } else { CHUNK_BYTES_MAX };
        let asking = Asking::new(is_small && ahead_permille > 0 && ctx.permille(ahead_permille));
        Reading { body, read: 0, chunk_bytes, asking }
    }

    fn next(&mut self, bytes: usize) -> &[u8] {
        let from = self.read;
        self.read = self.body.len().min(from.saturating_add(bytes));
        &self.body[from..self.read]
    }
}

/// A process that submits.
pub struct Outlet<'c, 'a, 'b> {
    pub ctx: &'c mut Ctx<'a, 'b>,
    pub txn: &'c mut Txn,
    pub reading: &'c mut Reading,
    pub conn: &'c mut Option<ConnId>,
    /// Another connection, on which other nodes are asked.
    pub asking: &'c mut Option<ConnId>,
    pub interrupts: Interrupts,
}

impl Outlet<'_, '_, '_> {
    fn hang_up(&mut self) {
        if let Some(conn) = self.conn.take() {
            self.ctx.close(conn);
        }
    }

    fn note(&mut self, frame: &[u8]) {
        let Ok((Request::Submit { slot, sequence }, _)) = decode_frame::<Request>(frame) else { return };
        let (node, txn, memory) = (self.ctx.ground.n, self.txn.id, &self.ctx.ground.memory);
        let replica = &memory.database.replica;
        let (database, incarnation) = (replica.number(), memory.server.incarnation);
        let tag = Tag { database, node: replica.node(), incarnation, slot, sequence };
        let again = std::mem::replace(&mut self.txn.is_sent, true);
        self.ctx.fact(if again { Fact::SentAgain { node, txn } } else { Fact::Submitted { node, txn, tag } });
    }
}

impl Process for Outlet<'_, '_, '_> {
    fn now(&self) -> Moment {
        self.ctx.hand.now.moment()
    }

    fn is_interrupted(&self) -> bool {
        self.interrupts.any()
    }

    fn is_ending(&self) -> bool {
        self.interrupts.die
    }

    fn is_connected(&mut self) -> bool {
        let is_open = self.conn.is_some_and(|conn| self.ctx.ground.ends.is_open(conn));
        if !is_open {
            self.hang_up();
        }
        is_open
    }

    fn connect(&mut self) -> bool {
        if !self.is_connected() {
            *self.conn = self.ctx.connect(Caller::Backend);
        }
        self.conn.is_some()
    }

    fn send(&mut self, frame: &[u8], _: Moment, patience: Patience) -> Sent {
        let Some(conn) = *self.conn else { return Sent::Nothing };
        // The kernel takes nothing of it: the connection is gone, or the buffer is full for too long.
        let refuses = self.ctx.permille(3) || (patience == Patience::UntilInterrupted && self.interrupts.any());
        if refuses {
            self.hang_up();
            return Sent::Nothing;
        }
        self.note(frame);
        let is_cut = self.ctx.permille(3);
        if !is_cut || self.ctx.permille(500) {
            self.ctx.hand.out.push(Action::Up(conn, Up::Frame(Bytes::copy_from_slice(frame))));
        }
        if is_cut {
            self.hang_up();
            return Sent::Perhaps;
        }
        Sent::Whole
    }
}

impl Backend for Outlet<'_, '_, '_> {
    fn transaction(&self) -> LocalXid {
        self.ctx.xid().unwrap_or(LocalXid::NONE)
    }

    fn commit_timeout(&self) -> Duration {
        self.ctx.ground.settings.commit_timeout.duration()
    }

    fn chunk_bytes(&self) -> usize {
        self.reading.chunk_bytes
    }

    fn body_length(&self) -> u64 {
        self.reading.body.len() as u64
    }

    fn rows(&self) -> u64 {
        self.txn.changes.len() as u64
    }

    fn read_body(&mut self, out: &mut Vec<u8>, bytes: usize) {
        out.extend_from_slice(self.reading.next(bytes));
    }

    fn put_writeset(
        &mut self,
        frame: &mut Vec<u8>,
        request: &Request,
        chunks: u32,
        base: Position,
        oldest_base: Position,
    ) -> Result<(), WireError> {
        let groups = self.txn.groups(base, self.ctx.ground.settings.mistake);
        let client = self.ctx.me.0 as usize;
        let holder = self.ctx.ground.lock_sessions.get(client).copied().flatten();
        let envelope = Envelope { chunks, oldest_base, groups, holder, ..Envelope::default() };
        let writeset = envelope.encode(self.reading.next(usize::MAX));
        put_frame(frame, request, &writeset)
    }

    fn sending(&mut self, _: u64) {}

    fn is_to_go_ahead(&self) -> bool {
        self.reading.asking.is_wanted()
    }

    fn go_ahead(&mut self, sequence: Sequence, chunks: u32, after: Position) -> Ahead {
        self.reading.asking.go_on(self.ctx, self.asking, (sequence, chunks), after)
    }
}
