//! How a run ends: all is well, or what is not.

use gcs_writeset::Position;

use super::locker::Locker;
use super::node::Node;
use super::{HEALED_WITHIN, World};
use crate::sim::fact::{Fact, N};
use crate::sim::time::{Span, ms};

/// A run goes on for so long after trouble has ended, however well everything is.
const CALM_AT_LEAST: Span = ms(4_000);

impl World {
    pub(super) fn is_well(&mut self) -> bool {
        if self.calm_since.is_none_or(|since| self.now.since(since) < CALM_AT_LEAST) {
            return false;
        }
        let members: Vec<usize> = (0..self.plan.nodes).filter(|i| !self.nodes[*i].is_witness()).collect();
        if !self.operations.is_empty() || !self.writers().all(|i| self.wrote_since[i]) {
            return false;
        }
        let at_rest = self.nodes.iter().flat_map(|node| &node.lockers).all(Locker::is_at_rest);
        if !self.all_have_held() || !at_rest {
            return false;
        }
        for i in &members {
            self.nodes[*i].server.be_quiet();
        }
        let heads: Vec<Option<Position>> = self.nodes.iter().map(|node| self.head(node)).collect();
        members.iter().all(|i| {
            let server = &self.nodes[*i].server;
            server.is_up && server.is_idle() && heads.iter().all(|head| *head == Some(server.committed()))
        })
    }

    fn writers(&self) -> impl Iterator<Item = usize> {
        (0..self.plan.nodes).filter(|i| self.nodes[*i].kind.takes_writes())
    }

    pub(super) fn head(&self, node: &Node) -> Option<Position> {
        let state = node.daemon.as_ref()?.core.state();
        state.databases.values().map(|database| database.head).max()
    }

    pub(super) fn what_is_not_well(&self) -> String {
        let mut what = format!("not well {} s after trouble ended:", HEALED_WITHIN.0 / 1_000_000);
        for node in &self.nodes {
            let status = node.daemon.as_ref().map(|daemon| daemon.core.status(None));
            what += &format!(
                " [node {}: {:?}, lockers {:?}, wrote {}, committed {}, known {}, idle {}, head {:?}, leader {:?}, quorum {:?}]",
                node.n.0,
                self.operations.get(&node.n),
                node.lockers,
                self.wrote_since[node.n.0],
                node.server.committed(),
                node.server.known(),
                node.server.is_idle(),
                self.head(node),
                status.as_ref().and_then(|status| status.leader),
                status.as_ref().map(|status| status.quorum),
            );
        }
        what
    }

    pub(super) fn finish(&mut self) {
        for i in 0..self.plan.nodes {
            if !self.nodes[i].is_witness() {
                let server = &self.nodes[i].server;
                let (committed, rows) = (server.committed(), server.snapshot());
                self.facts.push_back(Fact::Final { node: N(i), committed, rows });
            }
        }
        self.check_facts();
        let mut checks = std::mem::take(&mut self.checks);
        for check in &mut checks {
            if let Err(what) = check.end() {
                self.fail(check.name(), what);
            }
        }
    }
}
