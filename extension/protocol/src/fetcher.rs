//! Writesets of positions that no backend or forerunner of this node will commit: asked for on a connection of their own.
//!
//! The manager's stream stands still when the gate's window is full, and the window moves on only when every position in it can be
//! committed. Were the writeset of an orphan to come with the stream, it could stand behind what there is no room for, and
//! neither would ever move again. So the manager opens a second connection while there are orphans. What comes on it always has room: it goes
//! to a file.
//!
//! gcs answers one request after the other, in the order in which they were asked. When the connection is lost, whatever was asked for
//! and has not come is asked for again.

use std::collections::VecDeque;

use gcs_writeset::Position;

use crate::assembly::{Assembly, Spool};
use crate::dispatch::Trouble;
use crate::platform::Platform;
use crate::pool;
use crate::progress::Progress;
use crate::replica::At;

pub struct Fetcher<S: Spool> {
    asked: VecDeque<Position>,
    half: Option<Assembly<S::File>>,
    is_welcome: bool,
    /// What was asked for on a connection that is gone must be asked for again.
    again: bool,
}

impl<S: Spool> Fetcher<S> {
    /// Of a manager that starts. Its predecessor may have asked for something.
    pub fn new<P: Platform>(at: At<'_, P>) -> Fetcher<S> {
        Fetcher { asked: VecDeque::new(), half: None, is_welcome: false, again: at.database.gate.is_fetching() }
    }

    /// Whether a connection is needed.
    pub fn is_wanted<P: Platform>(&self, at: At<'_, P>) -> bool {
        self.again || !self.asked.is_empty() || at.database.gate.orphans() > 0
    }

    /// gcs has greeted.
    pub fn welcome(&mut self) {
        self.is_welcome = true;
    }

    /// What is to be asked for now.
    pub fn requests<P: Platform>(&mut self, at: At<'_, P>) -> Vec<Position> {
        if !self.is_welcome {
            return Vec::new();
        }
        let positions = at.database.gate.take_orphans(std::mem::take(&mut self.again));
        self.asked.extend(&positions);
        positions
    }

    /// The next part of what was asked for.
    pub fn body<P: Platform>(
        &mut self,
        at: At<'_, P>,
        spool: &S,
        position: Position,
        more: bool,
        part: &[u8],
    ) -> Result<(), Trouble> {
        if self.asked.front() != Some(&position) {
            return Err(Trouble::Protocol(format!("the writeset of position {position} came out of place")));
        }
        // How far it is, is not shown; what is fetched comes from this machine's disk.
        self.half.get_or_insert_with(|| Assembly::new(position)).add(spool, part, &Progress::default())?;
        if more {
            return Ok(());
        }
        self.asked.pop_front();
        if let Some(half) = self.half.take() {
            let storage = half.finish(spool)?;
            let database = at.database;
            database.replica.counters.spooled.one();
            if database.gate.requeue(position, storage) {
                pool::queued_below(at, position);
            }
        }
        Ok(())
    }

    /// The connection is gone.
    pub fn lost(&mut self) {
        self.again |= !self.asked.is_empty();
        self.asked.clear();
        self.is_welcome = false;
        if let Some(half) = self.half.take() {
            half.discard();
        }
    }
}
