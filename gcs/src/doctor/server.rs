//! Asks the PostgreSQL of this node, as its superuser on its own socket: where its manager said that it is, or where it was last.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use postgres::{Client, NoTls, Row};

use super::facts::{Asked, Failure, Holder, Open, Postgresql, Slot};
use crate::config::Config;
use crate::copy::describe;
use crate::examined::Server;
use crate::local::server_of;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);

/// What every server has.
const DATABASE: &str = "postgres";

/// Where the server is, if a person says so.
#[derive(Debug, Default, Args)]
pub struct Where {
    /// The directory of PostgreSQL's socket: by default where this node's server is, or was last.
    #[arg(long, value_name = "DIR")]
    host: Option<String>,
    /// Its port.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// A superuser of it.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

impl Where {
    /// What a person says goes before what the daemon knows, that before what it knew last.
    pub fn resolve(&self, config: &Config, known: Option<Server>) -> Option<Server> {
        let known = known.or_else(|| server_of(&config.data_directory)).or_else(|| of_directory(config));
        if self.host.is_none() && self.port.is_none() && self.user.is_none() {
            return known;
        }
        let known = known.unwrap_or_else(|| Server {
            socket_directory: "/var/run/postgresql".to_owned(),
            port: 5432,
            user: "postgres".to_owned(),
        });
        Some(Server {
            socket_directory: self.host.clone().unwrap_or(known.socket_directory),
            port: self.port.unwrap_or(known.port),
            user: self.user.clone().unwrap_or(known.user),
        })
    }
}

/// Where the server in `[postgresql]` listens, if it runs: the fourth and the fifth line of postmaster.pid.
fn of_directory(config: &Config) -> Option<Server> {
    let directory = &config.postgresql.as_ref()?.data_directory;
    let text = std::fs::read_to_string(directory.join("postmaster.pid")).ok()?;
    let mut lines = text.lines().skip(3);
    let port = lines.next()?.trim().parse().ok()?;
    let socket_directory = lines.next()?.trim().to_owned();
    Some(Server { socket_directory, port, user: "postgres".to_owned() })
}

/// What it says, and where its data directory is.
pub fn ask(at: &Option<Server>, databases: &[String]) -> (Postgresql, Option<PathBuf>) {
    let Some(at) = at.clone() else { return (Postgresql::Nowhere, None) };
    let mut client = match connect(&at, DATABASE) {
        Ok(client) => client,
        Err(error) => {
            let why = describe(&error);
            let is_there = error.as_db_error().is_some();
            return (if is_there { Postgresql::Refuses { at, why } } else { Postgresql::Silent { at, why } }, None);
        }
    };
    match asked(&mut client, &at, databases) {
        Ok((asked, directory)) => (Postgresql::Answers(Box::new(asked)), Some(directory)),
        Err(error) => (Postgresql::Refuses { at, why: describe(&error) }, None),
    }
}

fn connect(at: &Server, database: &str) -> Result<Client, postgres::Error> {
    let mut server = postgres::Config::new();
    server.host_path(&at.socket_directory).port(at.port).user(&at.user).dbname(database);
    // It must not wait for what it looks for.
    server.connect_timeout(CONNECT_TIMEOUT).options("-c statement_timeout=5s -c lock_timeout=1s");
    server.application_name("gcs doctor").connect(NoTls)
}

const SETTINGS: &str = "
    SELECT current_setting('shared_preload_libraries'), nullif(current_setting('postgres_r.gcs_socket', true), ''), current_setting('data_directory'),
           current_setting('max_connections')::bigint, (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
           (SELECT default_version FROM pg_available_extensions WHERE name = 'postgres_r'), to_regclass('postgres_r.failures') IS NOT NULL";

/// Those that others wait for and that do not wait themselves.
const HOLDERS: &str = "
    SELECT b.pid, coalesce(b.datname, '')::text, coalesce(b.usename, '')::text, coalesce(b.state, ''),
           coalesce(extract(epoch FROM clock_timestamp() - b.xact_start), 0)::bigint,
           count(DISTINCT l.pid), coalesce(max(extract(epoch FROM clock_timestamp() - l.waitstart)), 0)::bigint
    FROM pg_locks l CROSS JOIN LATERAL unnest(pg_blocking_pids(l.pid)) AS blocker (pid) JOIN pg_stat_activity b ON b.pid = blocker.pid
    WHERE NOT l.granted AND b.backend_type = 'client backend' AND NOT EXISTS (SELECT FROM pg_locks w WHERE w.pid = b.pid AND NOT w.granted)
    GROUP BY b.pid, b.datname, b.usename, b.state, b.xact_start ORDER BY 7 DESC LIMIT 5";

const OLDEST: &str = "
    SELECT pid, coalesce(datname, '')::text, coalesce(usename, '')::text, coalesce(state, ''),
           extract(epoch FROM clock_timestamp() - xact_start)::bigint
    FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() AND xact_start IS NOT NULL ORDER BY xact_start LIMIT 1";

const SLOTS: &str = "
    SELECT slot_name::text, active, coalesce(wal_status, ''), coalesce(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn), 0)::bigint
    FROM pg_replication_slots WHERE NOT pg_is_in_recovery()";

const FAILURES: &str = "SELECT database, position, sqlstate, reason FROM postgres_r.failures";

const EXTENSION: &str = "SELECT extversion FROM pg_extension WHERE extname = 'postgres_r'";

fn asked(client: &mut Client, at: &Server, databases: &[String]) -> Result<(Asked, PathBuf), postgres::Error> {
    let settings = client.query_one(SETTINGS, &[])?;
    let has_failures: bool = settings.try_get(6)?;
    let directory: String = settings.try_get(2)?;
    let gcs_socket: Option<String> = settings.try_get(1)?;
    let failures = if has_failures { client.query(FAILURES, &[])? } else { Vec::new() };
    let oldest = client.query_opt(OLDEST, &[])?;
    // One that lets nobody in is told of elsewhere.
    let extension_of = |database: &String| {
        let row = connect(at, database).and_then(|mut client| client.query_opt(EXTENSION, &[])).ok()??;
        Some((database.clone(), row.try_get(0).ok()?))
    };
    let asked = Asked {
        at: at.clone(),
        shared_preload_libraries: settings.try_get(0)?,
        gcs_socket: gcs_socket.map(PathBuf::from),
        extension: settings.try_get(5)?,
        extensions: databases.iter().filter_map(extension_of).collect(),
        connections: settings.try_get(4)?,
        max_connections: settings.try_get(3)?,
        holders: client.query(HOLDERS, &[])?.iter().map(holder).collect::<Result<_, _>>()?,
        oldest: oldest.as_ref().map(open).transpose()?,
        slots: client.query(SLOTS, &[])?.iter().map(slot).collect::<Result<_, _>>()?,
        failures: failures.iter().map(failure).collect::<Result<_, _>>()?,
    };
    Ok((asked, PathBuf::from(directory)))
}

fn open(row: &Row) -> Result<Open, postgres::Error> {
    Ok(Open {
        pid: row.try_get(0)?,
        database: row.try_get(1)?,
        user: row.try_get(2)?,
        state: row.try_get(3)?,
        seconds: row.try_get(4)?,
    })
}

fn holder(row: &Row) -> Result<Holder, postgres::Error> {
    Ok(Holder { session: open(row)?, waiting: row.try_get(5)?, longest_seconds: row.try_get(6)? })
}

fn slot(row: &Row) -> Result<Slot, postgres::Error> {
    let (name, is_active) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Slot { name, is_active, wal_status: row.try_get(2)?, wal_bytes: row.try_get(3)? })
}

fn failure(row: &Row) -> Result<Failure, postgres::Error> {
    let (database, position) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Failure { database, position, sqlstate: row.try_get(2)?, reason: row.try_get(3)? })
}
