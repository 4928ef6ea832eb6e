//! What is kept for those who look at this daemon over the local socket: how the driver is asked, and what happened that nothing else remembers.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use gcs_writeset::Position;
use gcs_writeset::link::ServerPlace;
use tokio::sync::Notify;

use crate::examined::Server;
use crate::history::History;
use crate::history::event::Happening;
use crate::log::write_atomically;
use crate::observe::asker::Asker;
use crate::observe::pulse::Pulse;

/// In the data directory: where this node's PostgreSQL was last, as JSON. For the day on which it does not come by itself any more.
const SERVER_FILE: &str = "server.json";

pub struct Looking {
    pub asker: Asker,
    pub pulse: Arc<Pulse>,
    pub history: Rc<History>,
    /// The protocol of the last program that spoke another one, and when it came.
    pub strangers: Cell<Option<(u32, Instant)>>,
    /// By database, the position that its manager could not apply time and again.
    cannot_apply: RefCell<BTreeMap<String, Position>>,
    /// Something has changed that somebody may wait for.
    pub news: Notify,
    data_directory: PathBuf,
}

impl Looking {
    pub fn new(asker: Asker, pulse: Arc<Pulse>, history: Rc<History>, data_directory: &Path) -> Looking {
        let data_directory = data_directory.to_owned();
        let (strangers, cannot_apply, news) = Default::default();
        Looking { asker, pulse, history, strangers, cannot_apply, news, data_directory }
    }

    /// A program of another protocol has come, and is sent away.
    pub fn stranger(&self, protocol: u32) {
        self.strangers.set(Some((protocol, Instant::now())));
    }

    pub fn cannot_apply(&self, database: &str) -> Option<Position> {
        self.cannot_apply.borrow().get(database).copied()
    }

    pub fn set_cannot_apply(&self, database: &str, position: Position) {
        if self.cannot_apply.borrow_mut().insert(database.to_owned(), position) != Some(position) {
            let text = format!("database {database} here cannot apply position {position}: it is not what the group holds");
            self.history.record(Happening::new("divergence", text).of_database(database));
        }
    }

    /// So far the database has come.
    pub fn applied(&self, database: &str, committed: Position) {
        self.news.notify_waiters();
        let mut cannot_apply = self.cannot_apply.borrow_mut();
        if cannot_apply.get(database).is_some_and(|position| *position <= committed) {
            cannot_apply.remove(database);
        }
    }

    /// Remembers where the server is, also for after a restart of this daemon.
    pub fn remember(&self, place: &ServerPlace) {
        let server = Server::of(place);
        if self.server().as_ref() == Some(&server) {
            return;
        }
        // Strings and a number always have a JSON form.
        let text = serde_json::to_string(&server).unwrap_or_default();
        if let Err(error) = write_atomically(&self.data_directory.join(SERVER_FILE), text.as_bytes()) {
            tracing::warn!(%error, "could not note where the server is");
        }
    }

    pub fn data_directory(&self) -> &Path {
        &self.data_directory
    }

    pub fn server(&self) -> Option<Server> {
        server_of(&self.data_directory)
    }
}

/// Where the PostgreSQL of the node with this data directory was last.
pub fn server_of(data_directory: &Path) -> Option<Server> {
    serde_json::from_slice(&std::fs::read(data_directory.join(SERVER_FILE)).ok()?).ok()
}
