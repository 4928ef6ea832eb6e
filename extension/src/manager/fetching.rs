//! Fetching: writesets that no backend of this node will commit come on a connection of their own, while there are any
//! (`postgres_r_protocol::fetcher` says when, and what is asked for).

use gcs_writeset::link::Role;
use postgres_r_protocol::manager::Next;

use super::connection::{Connection, READ_BYTES_A_ROUND};
use super::process::{FETCHER, ManagerProcess};
use crate::link::LinkError;

impl ManagerProcess {
    /// Opens and closes the connection as it is wanted, and reads what has come. After an error the link is
    /// to be given up as well: both end at the same gcs.
    pub(super) fn fetch(&mut self) -> Result<(), LinkError> {
        let is_wanted = self.protocol.wants_fetcher(self.area.at());
        match (is_wanted, self.fetcher.link.is_some()) {
            (true, false) => self.open_fetcher()?,
            (false, true) => {
                self.close_fetcher();
                self.protocol.fetcher_closed(self.area.at());
            }
            _ => {}
        }
        self.serve_fetcher()
    }

    fn open_fetcher(&mut self) -> Result<(), LinkError> {
        let link = self.greet(Role::Fetcher)?;
        link.watch_by(&mut self.wait, FETCHER);
        self.fetcher.opened(link);
        Ok(())
    }

    pub(super) fn close_fetcher(&mut self) {
        if self.fetcher.link.is_some() {
            self.wait.watch(FETCHER, None);
        }
        self.fetcher = Connection::new();
    }

    fn serve_fetcher(&mut self) -> Result<(), LinkError> {
        let (at, me) = (self.area.at(), self.me());
        let Some(link) = &mut self.fetcher.link else { return Ok(()) };
        link.flush()?;
        let mut budget = READ_BYTES_A_ROUND;
        while self.fetcher.unread && budget > 0 {
            let read = link.read()?;
            self.area.replica.counters.bytes_received.add(read as u64);
            budget = budget.saturating_sub(read);
            self.fetcher.unread = read > 0;
            while let Some(frame) = link.front()? {
                if let Next::Failed(failure) = self.protocol.take_fetched(at, me, (&frame.reply, frame.payload))? {
                    return Err(LinkError::Failed(failure.message));
                }
                let length = frame.length;
                link.consume(length);
            }
        }
        for request in self.protocol.fetches(at) {
            link.send(&request)?;
        }
        Ok(())
    }
}
