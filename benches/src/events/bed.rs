//! What events happen to: a group of three, and one plain server with the same settings.

use std::path::PathBuf;

use gcs::playground::account::Account;
use gcs::playground::cluster::{Cluster, SUPERUSER};
use gcs::playground::{NodeNumber, Part};
use postgres::{Client, NoTls};
use postgres_r_tests::harness::{Group, node, ports, wait};
use postgres_r_tests::pgbench::Pgbench;

use super::figure::Result;

/// Of pgbench's tables.
const SCALE: u32 = 10;
/// A leader is there within this time, or something is broken.
const LEADER_WITHIN: std::time::Duration = std::time::Duration::from_secs(30);

pub struct Bed {
    pub group: Group,
    plain: Cluster,
    directory: tempfile::TempDir,
    bin: PathBuf,
}

impl Bed {
    pub fn start() -> Result<Bed> {
        let group = Group::try_start(3)?;
        let directory = tempfile::Builder::new().prefix("postgres_r.bench.").tempdir()?;
        let account = Account::choose()?;
        account.give(directory.path())?;
        let home = directory.path().canonicalize()?.join("plain");
        std::fs::create_dir(&home)?;
        account.give(&home)?;
        let bin = group.playground.cluster(node(1)).bin;
        let plain = Cluster { bin: bin.clone(), account, home, port: ports::free_one() };
        plain.init("synchronous_commit = on\n")?;
        plain.start()?;
        let bed = Bed { group, plain, directory, bin };
        bed.plain().initialize(SCALE)?;
        bed.node(1).initialize(SCALE)?;
        bed.group.settle();
        Ok(bed)
    }

    /// For scripts and logs of pgbench.
    pub fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    pub fn plain(&self) -> Pgbench {
        Pgbench { bin: self.bin.clone(), port: self.plain.port, database: "postgres".to_owned() }
    }

    pub fn node(&self, number: usize) -> Pgbench {
        self.of(node(number))
    }

    pub fn of(&self, number: NodeNumber) -> Pgbench {
        of_group(&self.group, number)
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
}

impl Drop for Bed {
    fn drop(&mut self) {
        if let Err(error) = self.plain.stop() {
            eprintln!("bench: {error}");
        }
    }
}

pub fn of_group(group: &Group, number: NodeNumber) -> Pgbench {
    let cluster = group.playground.cluster(number);
    Pgbench { bin: cluster.bin, port: cluster.port, database: group.database().to_owned() }
}

pub fn directories(group: &Group) -> Vec<PathBuf> {
    let homes = group.numbers().into_iter().map(|number| group.playground.cluster(number));
    homes.flat_map(|cluster| [cluster.data(), cluster.home]).collect()
}

/// The node that leads, as one of the daemons knows.
fn leader(group: &Group) -> Option<NodeNumber> {
    let numbers = group.numbers();
    let status = numbers.iter().find_map(|&number| group.playground.daemon(number).status().ok())?;
    let leader = status.members.iter().find(|member| Some(member.node) == status.leader)?;
    numbers.into_iter().find(|&number| group.playground.name(number) == leader.name)
}

/// A session on that server.
pub fn connect(server: &Pgbench) -> Result<Client> {
    let config = format!("host=127.0.0.1 port={} user={SUPERUSER} dbname={}", server.port, server.database);
    Ok(Client::connect(&config, NoTls)?)
}

pub fn execute(server: &Pgbench, sql: &str) -> Result<()> {
    Ok(connect(server)?.batch_execute(sql)?)
}
