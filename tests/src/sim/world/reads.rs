//! Whoever reads at a node and wants everything that anybody was told before: asks the daemon now and then, all through the trouble.

use gcs_core::{Input, LocalReply, Question};

use super::World;
use crate::sim::fact::{Fact, N};

/// Of a thousand ticks of a daemon, those after which somebody asks, and those after which several do.
const ASKS_PERMILLE: u64 = 600;

impl World {
    pub(super) fn ask_where_to_read(&mut self, n: N) {
        let Some(database) = self.nodes[n.0].daemon.as_ref().and_then(|daemon| daemon.database) else { return };
        if !self.rng.permille(ASKS_PERMILLE) {
            return;
        }
        for _ in 0..self.rng.between(1, 3) {
            self.questions += 1;
            let number = self.questions;
            self.facts.push_back(Fact::AskedWhereToRead { number });
            self.give(n, Input::Read(Question { number, database }));
        }
    }

    /// False if the reply is about something else.
    pub(super) fn answered_where_to_read(&mut self, n: N, reply: &LocalReply) -> bool {
        let corner = match *reply {
            LocalReply::ReadFrom { number, position } => {
                self.facts.push_back(Fact::ToldWhereToRead { node: n, number, position });
                "a reader was told where to read"
            }
            LocalReply::ReadRefused { .. } => "a reader was refused",
            _ => return false,
        };
        *self.tally.corners.entry(corner).or_default() += 1;
        true
    }
}
