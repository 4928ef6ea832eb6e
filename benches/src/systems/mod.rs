//! What is compared: one plain PostgreSQL, with durable and with asynchronous commits; PostgreSQL with two physical standbys, both of which have applied a
//! transaction before it is acknowledged, or one of which has it on its disk; a group of three, its clients on one node or spread over all; one MariaDB;
//! a Galera cluster of three, its clients on one node or spread over all.
//!
//! All have comparable settings and, but for `async`, durable commits, run at the same time, and are loaded by turns. Only what is picked is started, and
//! filled only with what the picked loads work on.
//!
//! - [`kind`]: their names.                                - [`site`]: where servers stand.
//! - [`standbys`]: a primary with its two standbys.        - [`mariadb`], [`galera`]: MariaDB, alone and replicated.

pub mod galera;
pub mod kind;
mod mariadb;
pub mod site;
mod standbys;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gcs::playground::cluster::Cluster;
use postgres_r_tests::harness::{Group, node};
use postgres_r_tests::pgbench::Pgbench;

use crate::load::{Data, Load};
use crate::server::{Server, directories, execute, of_node};

use galera::Galera;
use kind::Kind;
use mariadb::Mariadb;
use site::Site;
use standbys::{Standbys, Waits};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NODES: usize = 3;

/// Servers that clients are spread over.
pub struct System {
    pub kind: Kind,
    pub servers: Vec<Server>,
    /// Where its processes work.
    pub directories: Vec<PathBuf>,
    waits: Option<Waits>,
}

/// Everything that runs, until it is dropped.
pub struct Systems {
    kinds: Vec<Kind>,
    plain: Option<Alone>,
    standbys: Option<Standbys>,
    group: Option<Group>,
    mariadb: Option<Mariadb>,
    galera: Option<Galera>,
    // The last, since the servers stand in its directory.
    site: Site,
}

/// A PostgreSQL by itself.
pub struct Alone(pub Cluster);

impl Systems {
    /// Starts what these systems need, with what these loads need, of that scale.
    pub fn start(kinds: &[Kind], loads: &[Load], scale: u32) -> Result<Systems> {
        let wanted =
            |some: &[Kind]| some.iter().any(|kind| kinds.contains(kind) && loads.iter().any(|load| kind.runs(load)));
        let site = Site::make()?;
        let systems = Systems {
            kinds: kinds.to_vec(),
            plain: wanted(&[Kind::Plain, Kind::Async]).then(|| Alone::start(&site)).transpose()?,
            standbys: wanted(&[Kind::Standbys, Kind::Any1]).then(|| Standbys::start(&site)).transpose()?,
            group: wanted(&[Kind::Group, Kind::Spread]).then(|| Group::try_start(NODES)).transpose()?,
            mariadb: wanted(&[Kind::Mariadb]).then(|| Mariadb::start_alone(&site)).transpose()?,
            galera: wanted(&[Kind::Galera, Kind::GaleraSpread]).then(|| Galera::start(&site, NODES)).transpose()?,
            site,
        };
        let mut data: Vec<Data> = Vec::new();
        for load in loads {
            if !data.contains(&load.data()) {
                data.push(load.data());
            }
        }
        systems.fill(&data, scale)?;
        Ok(systems)
    }

    fn fill(&self, data: &[Data], scale: u32) -> Result<()> {
        let filled = |what: &str, server: &Server, data: Data| -> Result<()> {
            let begin = Instant::now();
            server.fill(data, scale).map_err(|error| format!("could not fill {what}: {error}"))?;
            eprintln!("filled {what} with {data:?} in {:.1} s", begin.elapsed().as_secs_f64());
            Ok(())
        };
        for &data in data {
            for (what, cluster) in [("plain", self.plain()), ("the primary", self.primary())] {
                cluster.map_or(Ok(()), |cluster| filled(what, &postgres(of_cluster(cluster), ""), data))?;
            }
            if let Some(group) = &self.group {
                filled("the group", &postgres(of_node(group, node(1)), ""), data)?;
                let took = group.settle();
                eprintln!("the other nodes have it {:.1} s later", took.as_secs_f64());
            }
            if data == Data::Sysbench {
                self.mariadb.as_ref().map_or(Ok(()), |mariadb| filled("mariadb", &mariadb.server(), data))?;
                self.galera.as_ref().map_or(Ok(()), |galera| filled("galera", &galera.servers()[0], data))?;
            }
        }
        self.tidy_up()
    }

    /// What autovacuum and a checkpoint would do at some moment of the first runs.
    fn tidy_up(&self) -> Result<()> {
        let clusters = [self.plain(), self.primary()].into_iter().flatten().map(of_cluster);
        let nodes = self.group.iter().flat_map(|group| (1..=NODES).map(|number| of_node(group, node(number))));
        for server in clusters.chain(nodes) {
            execute(&server, "VACUUM ANALYZE")?;
            execute(&server, "CHECKPOINT")?;
        }
        self.galera.as_ref().map_or(Ok(()), Galera::settle)
    }

    fn plain(&self) -> Option<&Cluster> {
        self.plain.as_ref().map(|alone| &alone.0)
    }

    fn primary(&self) -> Option<&Cluster> {
        self.standbys.as_ref().map(Standbys::primary)
    }

    /// Those that were picked and could be started.
    pub fn all(&self) -> Vec<System> {
        self.kinds.iter().filter_map(|&kind| self.system(kind)).collect()
    }

    fn system(&self, kind: Kind) -> Option<System> {
        let system = |servers, directories, waits| Some(System { kind, servers, directories, waits });
        match kind {
            Kind::Plain | Kind::Async => {
                let plain = self.plain()?;
                let options = if kind == Kind::Async { "-c synchronous_commit=off" } else { "" };
                system(vec![postgres(of_cluster(plain), options)], vec![plain.data()], None)
            }
            Kind::Standbys | Kind::Any1 => {
                let standbys = self.standbys.as_ref()?;
                let primary = of_cluster(standbys.primary());
                let (level, waits) = match kind {
                    Kind::Standbys => ("remote_apply", Waits::for_both(primary.clone())),
                    _ => ("on", Waits::for_any(primary.clone())),
                };
                let server = postgres(primary, &format!("-c synchronous_commit={level}"));
                system(vec![server], standbys.directories(), Some(waits))
            }
            Kind::Group | Kind::Spread => {
                let group = self.group.as_ref()?;
                let nodes = if kind == Kind::Group { 1 } else { NODES };
                let servers = (1..=nodes).map(|number| postgres(of_node(group, node(number)), "")).collect();
                system(servers, directories(group), None)
            }
            Kind::Mariadb => {
                let mariadb = self.mariadb.as_ref()?;
                system(vec![mariadb.server()], vec![mariadb.data()], None)
            }
            Kind::Galera | Kind::GaleraSpread => {
                let galera = self.galera.as_ref()?;
                let mut servers = galera.servers();
                servers.truncate(if kind == Kind::Galera { 1 } else { NODES });
                system(servers, galera.directories(), None)
            }
        }
    }

    /// For scripts and logs of pgbench.
    pub fn directory(&self) -> &Path {
        self.site.directory()
    }
}

impl System {
    /// To be called before each run.
    pub fn prepare(&self) -> Result<()> {
        self.waits.as_ref().map_or(Ok(()), Waits::choose)
    }
}

impl Alone {
    pub fn start(site: &Site) -> Result<Alone> {
        let cluster = site.cluster("plain")?;
        cluster.init("synchronous_commit = on\n")?;
        cluster.start()?;
        Ok(Alone(cluster))
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        if let Err(error) = self.0.stop() {
            eprintln!("bench: {error}");
        }
    }
}

fn postgres(pgbench: Pgbench, options: &str) -> Server {
    Server::Postgres { pgbench, options: options.to_owned() }
}

fn of_cluster(cluster: &Cluster) -> Pgbench {
    Pgbench { bin: cluster.bin.clone(), port: cluster.port, database: "postgres".to_owned() }
}
