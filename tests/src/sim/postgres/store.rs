//! What a server has on its disk, or believes to have: rows, and the commit records that made them.
//!
//! A commit record carries its position, so rows and position come back from a crash together. Records are flushed now and then, not by the
//! commits that write them: a crash loses the last ones.

use gcs_writeset::Position;
use postgres_r_protocol::id::Lsn;

use super::rows::{Change, Row, Table, Value};
use crate::rng::Rng;

#[derive(Debug)]
pub struct Store {
    pub table: Table,
    /// Commit records, in order, that a crash may lose.
    unflushed: Vec<Position>,
    /// The last commit record that it can't.
    flushed: Position,
    /// Counts commit records ever written; what a place in the write-ahead log is here.
    written: u64,
    flushed_to: u64,
    /// Snapshots see everything up to here.
    visible: Position,
}

impl Store {
    pub fn new(rows: u32) -> Store {
        Store {
            table: Table::new(rows),
            unflushed: Vec::new(),
            flushed: Position::ZERO,
            written: 0,
            flushed_to: 0,
            visible: Position::ZERO,
        }
    }

    pub fn visible(&self) -> Position {
        self.visible
    }

    pub fn flushed_to(&self) -> Lsn {
        Lsn(self.flushed_to)
    }

    /// Writes a commit record; where it ends.
    pub fn record(&mut self, position: Position, changes: &[Change]) -> Lsn {
        self.record_run(position, &[(position, changes)])
    }

    /// One commit record for several positions, up to `last`.
    pub fn record_run(&mut self, last: Position, run: &[(Position, &[Change])]) -> Lsn {
        for (position, changes) in run {
            self.table.write(*position, changes);
        }
        self.unflushed.push(last);
        self.written += 1;
        Lsn(self.written)
    }

    /// The transaction has left the process array.
    pub fn show(&mut self, position: Position) {
        self.visible = position;
    }

    pub fn flush(&mut self) {
        self.flushed = self.unflushed.last().copied().unwrap_or(self.flushed);
        self.unflushed.clear();
        self.flushed_to = self.written;
    }

    pub fn durable(&self) -> Position {
        self.flushed
    }

    /// As a crash would leave it that loses everything that it can.
    pub fn copy(&self) -> Store {
        let (flushed, mut table) = (self.flushed, self.table.clone());
        table.lose_after(flushed);
        Store { table, unflushed: Vec::new(), flushed, written: 0, flushed_to: 0, visible: flushed }
    }

    /// The server dies. Some of what was not flushed may have reached the disk.
    pub fn crash(&mut self, rng: &mut Rng) {
        let survivors = rng.between(0, self.unflushed.len() as u64) as usize;
        self.unflushed.truncate(survivors);
        self.flush();
        self.table.lose_after(self.flushed);
    }

    /// Crash recovery has found what the last commit record on disk says.
    pub fn recover(&mut self) -> Position {
        self.visible = self.flushed;
        self.flushed
    }

    /// Every row and what it is now.
    pub fn snapshot(&self) -> Vec<(Row, Value)> {
        self.table.snapshot(self.visible)
    }
}
