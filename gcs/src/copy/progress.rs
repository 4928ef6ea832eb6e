//! How far a copy is: for the log, and for what all nodes show of this one.

use std::path::Path;
use std::rc::Rc;
use std::time::Instant;

use gcs_proto::CopyUnderWay;
use tokio::time::{MissedTickBehavior, interval};

use crate::bounds::{COPY_LOOK_EVERY, COPY_REPORT_EVERY};
use crate::peers::Peers;

/// A copy that is under way is shown as long as this is there.
pub struct Progress {
    peers: Rc<Peers>,
    /// Empty for a whole server.
    database: String,
    from: String,
    bytes_total: u64,
    began: Instant,
}

impl Progress {
    pub fn begin(peers: &Rc<Peers>, database: &str, from: &str, bytes_total: u64) -> Progress {
        let (database, from) = (database.to_owned(), from.to_owned());
        let progress = Progress { peers: peers.clone(), database, from, bytes_total, began: Instant::now() };
        progress.show(0, bytes_total);
        progress
    }

    /// Looks at what is being written into a directory until `work` is done.
    pub async fn while_running<T>(&self, into: &Path, work: impl Future<Output = T>) -> T {
        tokio::pin!(work);
        let mut clock = interval(COPY_LOOK_EVERY);
        clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut logged = Instant::now();
        loop {
            tokio::select! {
                done = &mut work => return done,
                _ = clock.tick() => {
                    let written = size(into);
                    self.show(written, self.bytes_total);
                    if logged.elapsed() >= COPY_REPORT_EVERY {
                        logged = Instant::now();
                        let (database, bytes) = (&self.database, self.bytes_total);
                        tracing::info!(database, written, original_bytes = bytes, "the copy is being read");
                    }
                }
            }
        }
    }

    /// All has been read; what is left to do has no known end.
    pub fn all_is_read(&self) {
        self.show(0, 0);
    }

    fn show(&self, bytes_done: u64, bytes_total: u64) {
        let (database, from, seconds) = (self.database.clone(), self.from.clone(), self.began.elapsed().as_secs());
        let copy = CopyUnderWay { database, from, bytes_done, bytes_total, seconds };
        self.peers.change_standing(|own| own.copy = Some(copy));
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.peers.change_standing(|own| own.copy = None);
    }
}

/// Bytes of the files below a directory, as far as they can be told.
fn size(directory: &Path) -> u64 {
    let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
    let bytes = |entry: std::fs::DirEntry| match entry.metadata() {
        Ok(found) if found.is_dir() => size(&entry.path()),
        Ok(found) => found.len(),
        Err(_) => 0,
    };
    entries.map(bytes).sum()
}
