//! What events happen to: a group of three, and one plain server with the same settings.

use std::path::PathBuf;

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{Group, node, wait};
use postgres_r_tests::pgbench::Pgbench;

use super::figure::Result;
pub use crate::server::{connect, directories, execute, of_node};
use crate::systems::Alone;
use crate::systems::site::Site;

/// Of pgbench's tables.
const SCALE: u32 = 10;
/// A leader is there within this time, or something is broken.
const LEADER_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

pub struct Bed {
    pub group: Group,
    plain: Alone,
    // The last, since the server stands in its directory.
    site: Site,
}

impl Bed {
    pub fn start() -> Result<Bed> {
        let group = Group::try_start(3)?;
        let site = Site::make()?;
        let plain = Alone::start(&site)?;
        let bed = Bed { group, plain, site };
        bed.plain().initialize(SCALE)?;
        bed.node(1).initialize(SCALE)?;
        bed.group.settle();
        Ok(bed)
    }

    /// For scripts and logs of pgbench.
    pub fn directory(&self) -> &std::path::Path {
        self.site.directory()
    }

    pub fn plain(&self) -> Pgbench {
        Pgbench { bin: self.site.bin.clone(), port: self.plain.0.port, database: "postgres".to_owned() }
    }

    pub fn node(&self, number: usize) -> Pgbench {
        self.of(node(number))
    }

    pub fn of(&self, number: NodeNumber) -> Pgbench {
        of_node(&self.group, number)
    }

    /// Where the processes of the group work.
    pub fn directories(&self) -> Vec<PathBuf> {
        directories(&self.group)
    }

    /// Whoever leads now.
    pub fn leader(&self) -> NodeNumber {
        wait::until("a leader", LEADER_WITHIN, || leader(&self.group).ok_or_else(|| "none".to_owned())).0
    }

    /// As if the power of that node had gone.
    pub fn power_off(&self, number: NodeNumber) {
        self.group.kill(number, Part::Both);
    }

    /// Returns once it takes clients again.
    pub fn power_on(&self, number: NodeNumber) -> Result<()> {
        self.group.playground.start_node(number)?;
        Ok(())
    }
}

/// The node that leads, as one of the daemons knows.
fn leader(group: &Group) -> Option<NodeNumber> {
    let numbers = group.numbers();
    let status = numbers.iter().find_map(|&number| group.playground.daemon(number).status().ok())?;
    let leader = status.members.iter().find(|member| Some(member.node) == status.leader)?;
    numbers.into_iter().find(|&number| group.playground.name(number) == leader.name)
}
