//! A witness: its PostgreSQL attaches once, to say that it takes no part, and is never seen again.

use gcs_core::{Input, Local, LocalReply};

use super::{Event, World};
use crate::sim::fact::N;
use crate::sim::time::ms;

impl World {
    /// Says, or says again, what has yet to be said.
    pub(super) fn witness(&mut self, n: N, life: u64) {
        let node = &self.nodes[n.0];
        let (Some(witness), Some(daemon)) = (&node.witness, &node.daemon) else { return };
        if node.daemon_life != life || witness.is_retired {
            return;
        }
        let incarnation = witness.incarnation;
        let local = match daemon.database {
            None => Local::Attach { database: "shop".into(), incarnation, founds: false },
            Some(database) => Local::Detach { database },
        };
        self.give(n, Input::Local(local));
        self.later(ms(400), Event::Witness(n, life));
    }

    pub(super) fn answer_witness(&mut self, n: N, reply: &LocalReply) {
        let node = &mut self.nodes[n.0];
        match (reply, &mut node.daemon, &mut node.witness) {
            (LocalReply::Attached { database, .. }, Some(daemon), _) => daemon.database = Some(*database),
            (LocalReply::Detached { .. }, _, Some(witness)) => {
                witness.is_retired = true;
                self.trace.line(self.now, format_args!("{} is a witness", n.0));
            }
            _ => {}
        }
    }
}
