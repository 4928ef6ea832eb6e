//! What is compared: one plain PostgreSQL; PostgreSQL with two physical standbys that have applied each transaction before it is acknowledged; a group
//! of three, its clients on one node; the same group, its clients spread over all nodes.
//!
//! All have the same settings and durable commits, run at the same time, and are loaded by turns.

use std::error::Error;
use std::path::{Path, PathBuf};

use gcs::playground::account::Account;
use gcs::playground::cluster::{Cluster, SUPERUSER, run};
use postgres_r_tests::harness::{Group, node, ports};
use postgres_r_tests::pgbench::Pgbench;

use crate::load::TABLES;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Servers that clients are spread over.
pub struct System {
    pub name: &'static str,
    pub servers: Vec<Pgbench>,
    /// Where its processes work.
    pub directories: Vec<PathBuf>,
}

/// Everything that runs, until it is dropped.
pub struct Systems {
    group: Group,
    clusters: Vec<Cluster>,
    directory: tempfile::TempDir,
    bin: PathBuf,
    account: Account,
}

impl Systems {
    /// Starts all, with pgbench's tables of that scale.
    pub fn start(scale: u32) -> Result<Systems> {
        let group = Group::try_start(3)?;
        let directory = tempfile::Builder::new().prefix("postgres_r.bench.").tempdir()?;
        let account = Account::choose()?;
        account.give(directory.path())?;
        let bin = group.playground.cluster(node(1)).bin;
        let mut systems = Systems { group, clusters: Vec::new(), directory, bin, account };
        let plain = systems.make("plain")?;
        let primary = systems.make("primary")?;
        for cluster in [&plain, &primary] {
            cluster.init("synchronous_commit = on\n")?;
            cluster.start()?;
            fill(&of_cluster(cluster), scale)?;
        }
        systems.clusters = vec![plain, primary.clone()];
        for name in ["standby1", "standby2"] {
            let standby = systems.make_standby(name, &primary)?;
            systems.clusters.push(standby);
        }
        let primary = of_cluster(&primary);
        execute(&primary, "ALTER SYSTEM SET synchronous_standby_names = 'FIRST 2 (standby1, standby2)'")?;
        execute(&primary, "ALTER SYSTEM SET synchronous_commit = remote_apply")?;
        execute(&primary, "SELECT pg_reload_conf()")?;
        let first = systems.of_node(1);
        fill(&first, scale)?;
        systems.group.settle();
        Ok(systems)
    }

    pub fn all(&self) -> Vec<System> {
        let nodes: Vec<Pgbench> = (1..=self.group.numbers().len()).map(|number| self.of_node(number)).collect();
        let clusters = |range: std::ops::Range<usize>| self.clusters[range].iter().map(Cluster::data).collect();
        let homes = || self.group.numbers().into_iter().map(|number| self.group.playground.cluster(number));
        let group: Vec<PathBuf> = homes().flat_map(|cluster| [cluster.data(), cluster.home]).collect();
        vec![
            System { name: "plain", servers: vec![of_cluster(&self.clusters[0])], directories: clusters(0..1) },
            System { name: "standbys", servers: vec![of_cluster(&self.clusters[1])], directories: clusters(1..4) },
            System { name: "group", servers: nodes[..1].to_vec(), directories: group.clone() },
            System { name: "spread", servers: nodes, directories: group },
        ]
    }

    /// For scripts and logs of pgbench.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn of_node(&self, number: usize) -> Pgbench {
        let port = self.group.playground.cluster(node(number)).port;
        Pgbench { bin: self.bin.clone(), port, database: self.group.database().to_owned() }
    }

    fn make(&self, name: &str) -> Result<Cluster> {
        let home = self.directory.path().canonicalize()?.join(name);
        std::fs::create_dir(&home)?;
        self.account.give(&home)?;
        Ok(Cluster { bin: self.bin.clone(), account: self.account.clone(), home, port: ports::free_one() })
    }

    fn make_standby(&self, name: &str, primary: &Cluster) -> Result<Cluster> {
        let standby = self.make(name)?;
        let from = format!("host=127.0.0.1 port={} user={SUPERUSER} application_name={name}", primary.port);
        let mut copy = self.account.command(&self.bin.join("pg_basebackup"), &standby.home);
        copy.args(["-R", "-X", "stream", "-c", "fast", "-d", &from, "-D"]).arg(standby.data());
        run(&mut copy, "pg_basebackup")?;
        standby.configure(&format!("primary_conninfo = '{from}'\n"))?;
        standby.start()?;
        Ok(standby)
    }
}

impl Drop for Systems {
    fn drop(&mut self) {
        // Standbys first: a primary waits for them.
        for cluster in self.clusters.iter().rev() {
            if let Err(error) = cluster.stop() {
                eprintln!("bench: {error}");
            }
        }
    }
}

fn of_cluster(cluster: &Cluster) -> Pgbench {
    Pgbench { bin: cluster.bin.clone(), port: cluster.port, database: "postgres".to_owned() }
}

fn fill(server: &Pgbench, scale: u32) -> Result<()> {
    server.initialize(scale)?;
    execute(server, TABLES)
}

fn execute(server: &Pgbench, sql: &str) -> Result<()> {
    let config = format!("host=127.0.0.1 port={} user={SUPERUSER} dbname={}", server.port, server.database);
    postgres::Client::connect(&config, postgres::NoTls)?.batch_execute(sql)?;
    Ok(())
}
