//! One connection, in a thread of its own, so that a step that waits keeps nobody.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::{NoTls, SimpleQueryMessage};

use crate::harness::Group;

/// What a session was told.
pub type Reply = Result<Vec<SimpleQueryMessage>, Failure>;

#[derive(Clone, Debug)]
pub struct Failure {
    pub severity: String,
    /// Empty when the connection was gone.
    pub code: String,
    pub message: String,
    pub detail: Option<String>,
}

impl From<&postgres::Error> for Failure {
    fn from(error: &postgres::Error) -> Failure {
        match error.as_db_error() {
            Some(error) => Failure {
                severity: error.severity().to_owned(),
                code: error.code().code().to_owned(),
                message: error.message().to_owned(),
                detail: error.detail().map(str::to_owned),
            },
            None => Failure {
                severity: "the session is gone".to_owned(),
                code: String::new(),
                message: error.to_string(),
                detail: None,
            },
        }
    }
}

pub struct Session {
    pub node: NodeNumber,
    pub pid: i32,
    commands: Sender<String>,
    replies: Receiver<Reply>,
    notices: Receiver<String>,
    /// How many notices have come in so far.
    pub noticed: usize,
}

impl Session {
    pub fn open(group: &Group, node: NodeNumber, name: &str) -> Result<Session, postgres::Error> {
        let (to_notices, notices) = channel();
        let mut config: postgres::Config = group.playground.cluster(node).uri(group.database()).parse()?;
        let prefix = name.to_owned();
        config.application_name(&format!("isolation/{name}")).notice_callback(move |notice| {
            // Nobody listens when the spec has failed.
            let _ = to_notices.send(format!("{prefix}: {}:  {}\n", notice.severity(), notice.message()));
        });
        let mut client = config.connect(NoTls)?;
        let pid = client.query_one("SELECT pg_backend_pid()", &[])?.get(0);
        let (commands, inbox) = channel::<String>();
        let (outbox, replies) = channel();
        thread::spawn(move || {
            for sql in inbox {
                let reply = client.simple_query(&sql).map_err(|error| Failure::from(&error));
                if outbox.send(reply).is_err() {
                    break;
                }
            }
        });
        Ok(Session { node, pid, commands, replies, notices, noticed: 0 })
    }

    pub fn send(&self, sql: &str) {
        // The thread lives as long as we do.
        let _ = self.commands.send(sql.to_owned());
    }

    /// The reply to what was sent, if it comes within that time.
    pub fn reply(&self, at_most: Duration) -> Option<Reply> {
        match self.replies.recv_timeout(at_most) {
            Ok(reply) => Some(reply),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => unreachable!("the session's thread lives as long as the session"),
        }
    }

    /// The notices that have come since the last call.
    pub fn take_notices(&mut self) -> String {
        let notices: Vec<String> = self.notices.try_iter().collect();
        self.noticed += notices.len();
        notices.concat()
    }
}
