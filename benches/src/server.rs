//! One server that clients are sent to, and one program of clients that runs against it.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::cluster::SUPERUSER;
use postgres_r_tests::harness::Group;
use postgres_r_tests::pgbench::{self, Pgbench};

use crate::latency::Samples;
use crate::load::{Data, HOT_SCALE, HOT_SCHEMA, Load, TABLES, Tool, arguments};
use crate::sysbench::{self, Connection};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// What it speaks decides which programs can load it.
#[derive(Clone, Debug)]
pub enum Server {
    Postgres {
        pgbench: Pgbench,
        /// Settings of the clients' sessions, as PGOPTIONS has them.
        options: String,
    },
    Mariadb(Connection),
}

/// A program that runs.
pub struct Running {
    child: Child,
    logs: Option<Logs>,
}

/// Where pgbench writes how long each transaction took.
struct Logs {
    directory: PathBuf,
    prefix: String,
}

/// What a program reports of its clients.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub transactions: u64,
    pub tps: f64,
    /// Times that a transaction lost and was run again.
    pub retries: u64,
    pub samples: Samples,
}

impl Server {
    /// Fills it with what loads need.
    pub fn fill(&self, data: Data, scale: u32) -> Result<()> {
        match (self, data) {
            (Server::Postgres { pgbench, .. }, Data::Pgbench) => {
                pgbench.initialize(scale)?;
                execute(pgbench, TABLES)
            }
            (Server::Postgres { pgbench, .. }, Data::Hot) => {
                execute(pgbench, &format!("CREATE SCHEMA {HOT_SCHEMA}"))?;
                Ok(pgbench.initialize_with(HOT_SCALE, &data.options())?)
            }
            (Server::Postgres { pgbench, .. }, Data::Sysbench) => Ok(connection(pgbench).prepare()?),
            (Server::Mariadb(connection), Data::Sysbench) => Ok(connection.prepare()?),
            (Server::Mariadb(_), Data::Pgbench | Data::Hot) => Err("pgbench cannot fill a MariaDB".into()),
        }
    }

    /// Starts so many clients. `nth` tells servers of one system apart.
    pub fn spawn(&self, load: &Load, clients: u32, time: Duration, directory: &Path, nth: u32) -> Result<Running> {
        match (self, load.tool) {
            (Server::Postgres { pgbench, options }, Tool::Pgbench { arguments: words, script, .. }) => {
                let logs = Logs { directory: directory.to_owned(), prefix: format!("latencies-{nth}.") };
                let mut all = arguments(load.name, words, script, directory)?;
                let prefix = directory.join(logs.prefix.trim_end_matches('.'));
                all.extend(["--log".to_owned(), format!("--log-prefix={}", prefix.display())]);
                let all: Vec<&str> = all.iter().map(String::as_str).collect();
                let mut command = pgbench.timed(clients, time, &all);
                let child = command.env("PGOPTIONS", format!("{options} {}", load.options())).spawn()?;
                Ok(Running { child, logs: Some(logs) })
            }
            (Server::Postgres { pgbench, options }, Tool::Sysbench) => {
                let mut command = connection(pgbench).timed(load.name, clients, time);
                Ok(Running { child: command.env("PGOPTIONS", options).spawn()?, logs: None })
            }
            (Server::Mariadb(connection), Tool::Sysbench) => {
                Ok(Running { child: connection.timed(load.name, clients, time).spawn()?, logs: None })
            }
            (Server::Mariadb(_), Tool::Pgbench { .. }) => Err(format!("{} is not for MariaDB", load.name).into()),
        }
    }
}

impl Running {
    /// Waits for its end.
    pub fn finish(self) -> Result<Outcome> {
        let Some(logs) = self.logs else {
            let report = sysbench::finish(self.child)?;
            let sysbench::Report { transactions, tps, ignored, samples } = report;
            return Ok(Outcome { transactions, tps, retries: ignored, samples });
        };
        let report = pgbench::finish(self.child)?;
        Ok(Outcome {
            transactions: report.transactions,
            tps: report.tps,
            retries: report.retries,
            samples: Samples::take(&logs.directory, &logs.prefix)?,
        })
    }
}

fn connection(server: &Pgbench) -> Connection {
    Connection::postgres(server.port, SUPERUSER, &server.database)
}

/// A session on that server.
pub fn connect(server: &Pgbench) -> Result<postgres::Client> {
    let config = format!("host=127.0.0.1 port={} user={SUPERUSER} dbname={}", server.port, server.database);
    Ok(postgres::Client::connect(&config, postgres::NoTls)?)
}

pub fn execute(server: &Pgbench, sql: &str) -> Result<()> {
    Ok(connect(server)?.batch_execute(sql)?)
}

/// The server of a node of a group.
pub fn of_node(group: &Group, number: NodeNumber) -> Pgbench {
    let cluster = group.playground.cluster(number);
    Pgbench { bin: cluster.bin, port: cluster.port, database: group.database().to_owned() }
}

/// Where the processes of a group work.
pub fn directories(group: &Group) -> Vec<PathBuf> {
    let homes = group.numbers().into_iter().map(|number| group.playground.cluster(number));
    homes.flat_map(|cluster| [cluster.data(), cluster.home]).collect()
}
