//! PostgreSQL with two physical standbys, which serves as two systems: clients say how far a transaction must have come before it is acknowledged
//! (synchronous_commit), and the primary, before each run, on how many standbys (synchronous_standby_names).
//!
//! The primary itself has synchronous_commit = local, so that only the loads wait for standbys.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use gcs::playground::cluster::{Cluster, SUPERUSER, run};
use postgres_r_tests::harness::wait;
use postgres_r_tests::pgbench::Pgbench;

use super::site::Site;
use crate::server::{connect, execute};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const NAMES: [&str; 2] = ["standby1", "standby2"];
/// Of a reload of settings.
const RELOADED_WITHIN: Duration = Duration::from_secs(30);
/// No standby has that name: nobody is synchronous.
const NOBODY: &str = "FIRST 1 (nobody)";

/// The primary first. Ended when it is dropped.
pub struct Standbys {
    clusters: Vec<Cluster>,
}

/// Which standbys a primary waits for.
#[derive(Clone, Debug)]
pub struct Waits {
    primary: Pgbench,
    names: &'static str,
    /// What PostgreSQL makes of that for each standby: 1 for all of a quorum.
    priorities: [i32; 2],
}

impl Standbys {
    pub fn start(site: &Site) -> Result<Standbys> {
        let primary = site.cluster("primary")?;
        // Set from the start, since whether there are synchronous standbys at all takes effect late while a checkpoint is written.
        primary.init(&format!("synchronous_commit = local\nsynchronous_standby_names = '{NOBODY}'\n"))?;
        let mut standbys = Standbys { clusters: vec![primary.clone()] };
        primary.start()?;
        for name in NAMES {
            let standby = copy(site, name, &primary)?;
            standbys.clusters.push(standby.clone());
            standby.start()?;
        }
        Ok(standbys)
    }

    pub fn primary(&self) -> &Cluster {
        &self.clusters[0]
    }

    pub fn directories(&self) -> Vec<PathBuf> {
        self.clusters.iter().map(Cluster::data).collect()
    }
}

impl Drop for Standbys {
    fn drop(&mut self) {
        // Standbys first: a primary waits for them.
        for cluster in self.clusters.iter().rev() {
            if let Err(error) = cluster.stop() {
                eprintln!("bench: {error}");
            }
        }
    }
}

fn copy(site: &Site, name: &str, primary: &Cluster) -> Result<Cluster> {
    let standby = site.cluster(name)?;
    let from = format!("host=127.0.0.1 port={} user={SUPERUSER} application_name={name}", primary.port);
    let mut copy = site.account.command(&site.bin.join("pg_basebackup"), &standby.home);
    copy.args(["-R", "-X", "stream", "-c", "fast", "-d", &from, "-D"]).arg(standby.data());
    run(&mut copy, "pg_basebackup")?;
    standby.configure(&format!("primary_conninfo = '{from}'\n"))?;
    Ok(standby)
}

impl Waits {
    pub fn for_both(primary: Pgbench) -> Waits {
        Waits { primary, names: "FIRST 2 (standby1, standby2)", priorities: [1, 2] }
    }

    pub fn for_any(primary: Pgbench) -> Waits {
        Waits { primary, names: "ANY 1 (standby1, standby2)", priorities: [1, 1] }
    }

    /// Returns once every process that has a say in it knows. One setting may look like another to a standby's sender, so it goes by way of one that does
    /// not.
    pub fn choose(&self) -> Result<()> {
        self.set(NOBODY, [0, 0])?;
        self.set(self.names, self.priorities)
    }

    fn set(&self, names: &str, priorities: [i32; 2]) -> Result<()> {
        execute(&self.primary, &format!("ALTER SYSTEM SET synchronous_standby_names = '{names}'"))?;
        execute(&self.primary, "SELECT pg_reload_conf()")?;
        let expected = (names.to_owned(), priorities.to_vec());
        wait::until(&format!("synchronous_standby_names = '{names}'"), RELOADED_WITHIN, || {
            // A new session each time, since it has what the postmaster has.
            let found = self.look().map_err(|error| error.to_string())?;
            if found == expected { Ok(()) } else { Err(format!("there is {found:?}")) }
        });
        Ok(())
    }

    /// The setting, and what the senders have made of it.
    fn look(&self) -> Result<(String, Vec<i32>)> {
        const PRIORITIES: &str = "SELECT sync_priority FROM pg_stat_replication \
                                  WHERE state = 'streaming' ORDER BY application_name";
        let mut client = connect(&self.primary)?;
        let names = client.query_one("SHOW synchronous_standby_names", &[])?.get(0);
        let priorities = client.query(PRIORITIES, &[])?.iter().map(|row| row.get(0)).collect();
        Ok((names, priorities))
    }
}
