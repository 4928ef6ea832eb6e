//! The commands: each changes what runs under DIR and returns when that is done.
//!
//! What *done* means: a started group answers and is online on every node; a killed part has no process left; a started node
//! is online again, or, while too few daemons run for a majority, runs and waits for one (the caller is told which).

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use gcs_writeset::NodeKind;
use gcs_writeset::bounds::GROUP_MEMBERS_MAX;
use gcs_writeset::link::{MemberRole, MemberState};
use postgres::{Client, NoTls};

use super::account::Account;
use super::cluster::{self, Cluster, SUPERUSER};
use super::daemon::{self, Daemon};
use super::disk::{self, DiskSize};
use super::manifest::{Manifest, NodeEntry, NodeNumber, Paths, Place};
use super::process::{Signal, is_fatal};
use super::{Error, Result};

/// From the start of the last process to all nodes online; catching up after a long absence counts in.
const ONLINE_MAX: Duration = Duration::from_secs(120);
/// The same, with a copy of the database in between.
const COPIED_MAX: Duration = Duration::from_secs(900);
/// How long a killed process may take to be gone.
const GONE_MAX: Duration = Duration::from_secs(60);
const CONNECT_MAX: Duration = Duration::from_secs(5);
/// Between two looks at a state that nothing announces to us.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// Node i listens for peers on base port + this + i - 1.
const PEER_PORT_OFFSET: u16 = 100;
/// With a relay, that is where the relay listens for it, and it listens itself so much higher.
const LISTEN_PORT_OFFSET: u16 = 100;
/// From a node's port to where its daemon tells metrics and health.
const HTTP_PORT_OFFSET: u16 = 150;
const DEFAULT_PG_CONFIG: &str = "/usr/lib/postgresql/15/bin/pg_config";

/// What to make.
#[derive(Clone, Debug)]
pub struct NewGroup {
    pub dir: PathBuf,
    pub nodes: usize,
    pub base_port: u16,
    pub database: String,
    pub group: String,
    /// The daemon's program.
    pub gcs: PathBuf,
    /// Lines for every node's postgresql.conf.
    pub settings: String,
    /// Where the daemons run, one a node in their order; none: here, on loopback.
    pub places: Vec<Place>,
    /// Puts a relay between the daemons, so that links can be cut and be slow.
    pub faults: bool,
    /// Gives each node a disk of its own, so that one can be full. Only root can.
    pub disk_size: Option<DiskSize>,
}

/// What of a node a command is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    Both,
    Postgres,
    Gcs,
}

impl Part {
    fn has_postgres(self) -> bool {
        self != Part::Gcs
    }

    fn has_gcs(self) -> bool {
        self != Part::Postgres
    }
}

/// What a node that is added gets from another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gets {
    Database,
    Server,
}

/// How far a started node came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Started {
    Online,
    /// Its processes run; too few daemons do for a majority.
    WaitsForMajority,
}

#[derive(Clone, Debug)]
pub struct Playground {
    pub paths: Paths,
    pub manifest: Manifest,
    pub(super) account: Account,
}

impl Playground {
    /// Opens what `create` made, running or not.
    pub fn open(dir: &Path) -> Result<Playground> {
        let paths = Paths::of(dir)?;
        let manifest = Manifest::load(&paths)?;
        Ok(Playground { paths, manifest, account: Account::choose()? })
    }

    /// As other commands have left it meanwhile.
    pub fn as_it_is(&self) -> Result<Playground> {
        Ok(Playground { manifest: Manifest::load(&self.paths)?, ..self.clone() })
    }

    /// Makes the group and starts it. When it fails, nothing runs; the files stay, to be looked at.
    pub fn create(new: &NewGroup) -> Result<Playground> {
        if new.disk_size.is_some() {
            disk::check_allowed()?;
        }
        let postgres_bin = find_postgres()?;
        let account = Account::choose()?;
        let nodes = plan_nodes(new)?;
        make_empty(&new.dir)?;
        let paths = Paths::of(&new.dir)?;
        account.give(&paths.dir)?;
        account.check_reaches(&paths.dir)?;
        let _lock = paths.lock()?;
        let gcs = if account.is_other() { daemon::copy_program(&new.gcs, &paths.dir.join("bin"))? } else { new.gcs.clone() };
        let manifest = Manifest::new(&new.group, &new.database, nodes, postgres_bin, gcs);
        let manifest = Manifest { settings: new.settings.clone(), disk_size: new.disk_size, ..manifest };
        manifest.save(&paths)?;
        let playground = Playground { paths, manifest, account };
        let made = playground.make();
        if let Err(error) = made {
            playground.stop_processes();
            let error = error.and(playground.unmount_disks());
            playground.remember_running(false)?;
            return Err(error);
        }
        Ok(playground)
    }

    fn make(&self) -> Result<()> {
        self.on_all(|number| self.make_node(number))?;
        self.start_relay()?;
        self.on_all(|number| self.daemon(number).start())?;
        self.on_all(|number| {
            self.cluster(number).start()?;
            self.make_database(number)
        })?;
        for number in self.numbers() {
            self.start_replication(number)?;
        }
        self.wait_online(&self.numbers()).map(drop)
    }

    fn make_node(&self, number: NodeNumber) -> Result<()> {
        let (cluster, daemon) = (self.cluster(number), self.daemon(number));
        self.make_home(number)?;
        daemon.configure(&self.manifest.group, &self.manifest.nodes[number.index()], &self.manifest.nodes, None)?;
        cluster.init(&format!("{}{}", replication_settings(&daemon), self.settings()))
    }

    /// Lines for every node's postgresql.conf: those that its disk asks for, and those that the playground was made with.
    fn settings(&self) -> String {
        let of_disk = self.manifest.disk_size.map(DiskSize::wal_settings).unwrap_or_default();
        format!("{of_disk}{}", self.manifest.settings)
    }

    /// Makes one more node, which joins the group as it is and gets its database, or its whole server, from another. Returns when it is online.
    pub fn add_node(&mut self, gets: Gets, kind: NodeKind) -> Result<NodeNumber> {
        let _lock = self.paths.lock()?;
        if !self.manifest.running {
            return Err(Error::usage(format!("the playground in {} is stopped", self.paths.dir.display()))
                .hint("Start it first: a group takes a node in while it runs."));
        }
        let mut manifest = self.manifest.clone();
        let role = (kind != NodeKind::Full).then(|| kind.name().to_owned());
        let postgres_bin = Some(find_postgres()?).filter(|bin| *bin != manifest.postgres_bin);
        manifest.nodes.push(NodeEntry { role, postgres_bin, ..plan_next(&manifest)? });
        let number = NodeNumber(manifest.nodes.len());
        let grown = Playground { manifest, ..self.clone() };
        let made = match gets {
            Gets::Database => grown.make_node(number),
            Gets::Server => grown.make_node_without_server(number),
        };
        if let Err(error) = made.and_then(|()| grown.manifest.save(&grown.paths)) {
            // No other command will know of this node.
            return Err(error.and(grown.unmount_disk(number)));
        }
        *self = grown;
        self.open_door(&self.manifest.nodes[number.index()])?;
        self.daemon(number).start()?;
        if gets == Gets::Server {
            self.await_server(number)?;
        }
        self.cluster(number).start()?;
        if gets == Gets::Database {
            self.make_database(number)?;
            self.start_replication(number)?;
        }
        self.wait_online_for(&[number], COPIED_MAX).map(|_| number)
    }

    /// Its daemon is to get one.
    fn make_node_without_server(&self, number: NodeNumber) -> Result<()> {
        let (cluster, daemon) = (self.cluster(number), self.daemon(number));
        self.make_home(number)?;
        daemon.configure(&self.manifest.group, &self.manifest.nodes[number.index()], &self.manifest.nodes, Some(&cluster))
    }

    /// Until the copy of another node's server is whole; then it gets its own port, and the rest of its own.
    fn await_server(&self, number: NodeNumber) -> Result<()> {
        let (cluster, daemon) = (self.cluster(number), self.daemon(number));
        let deadline = Instant::now() + COPIED_MAX;
        while !daemon.has_copied(&cluster.data()) {
            let hint = format!("Its log is {}.", daemon.log().display());
            if daemon.process().is_none() {
                return Err(Error::failed(format!("the daemon of {} has ended", self.name(number))).hint(hint));
            }
            if Instant::now() > deadline {
                let message = format!("{} has no server after {} s", self.name(number), COPIED_MAX.as_secs());
                return Err(Error::failed(message).hint(hint));
            }
            thread::sleep(LOOK_EVERY);
        }
        cluster.configure(&self.settings())
    }

    fn make_database(&self, number: NodeNumber) -> Result<()> {
        let name = quote_identifier(&self.manifest.database);
        self.execute(number, "postgres", &format!("CREATE DATABASE {name}"))?;
        self.execute(number, &self.manifest.database, "CREATE EXTENSION postgres_r")
    }

    fn start_replication(&self, number: NodeNumber) -> Result<()> {
        let (database, group) = (quote_identifier(&self.manifest.database), quote_identifier(&self.manifest.group));
        self.execute(
            number,
            &self.manifest.database,
            &format!("ALTER DATABASE {database} START REPLICATION IN GROUP {group}"),
        )
    }

    fn execute(&self, number: NodeNumber, database: &str, statement: &str) -> Result<()> {
        let failed = |error: postgres::Error| {
            Error::failed(format!("{}: {statement}: {}", self.name(number), describe(&error)))
                .hint(format!("Its log is {}.", self.cluster(number).log().display()))
        };
        let mut client = self.connect(number, database).map_err(failed)?;
        client.batch_execute(statement).map_err(failed)
    }

    /// A connection as superuser to the node's PostgreSQL.
    pub fn connect(&self, number: NodeNumber, database: &str) -> std::result::Result<Client, postgres::Error> {
        self.connection(number, database).connect(NoTls)
    }

    /// How to connect, for who wants more than a session.
    pub fn connection(&self, number: NodeNumber, database: &str) -> postgres::Config {
        let mut config = postgres::Config::new();
        config.host("127.0.0.1").port(self.manifest.nodes[number.index()].port).user(SUPERUSER).dbname(database);
        config.connect_timeout(CONNECT_MAX).application_name("gcs playground");
        config
    }

    /// Starts whatever of the group is down.
    pub fn start_all(&mut self) -> Result<()> {
        let _lock = self.paths.lock()?;
        self.mount_disks()?;
        self.remember_running(true)?;
        self.start_relay()?;
        self.on_all(|number| self.daemon(number).start())?;
        self.on_all(|number| self.cluster(number).start())?;
        self.wait_online(&self.numbers()).map(drop)
    }

    /// Ends every process of the group. The names of those that had to be forced come back.
    pub fn stop(&mut self) -> Result<Vec<String>> {
        let _lock = self.paths.lock()?;
        let forced = self.stop_processes();
        self.remember_running(false)?;
        let left: Vec<String> = forced.iter().filter(|line| line.contains("does not end")).cloned().collect();
        if !left.is_empty() {
            return Err(Error::failed(left.join("; ")));
        }
        self.unmount_disks().map(|()| forced)
    }

    /// PostgreSQL first: while it shuts down, its daemon is still there to talk to.
    fn stop_processes(&self) -> Vec<String> {
        let stop_one = |number: NodeNumber| {
            let mut forced = Vec::new();
            // Who is paused hears no signal to end.
            if self.is_paused(number) {
                self.go_on(number);
            }
            // Who ends gently writes. If it fails, mounting tries again.
            let _ = self.empty_disk(number);
            match self.cluster(number).stop() {
                Ok(true) => {}
                Ok(false) => forced.push(format!("PostgreSQL of {} had to be forced to stop", self.name(number))),
                Err(error) => forced.push(error.message),
            }
            if !self.daemon(number).stop() {
                forced.push(format!("the daemon of {} had to be forced to stop", self.name(number)));
            }
            forced
        };
        let forced = thread::scope(|scope| {
            let threads: Vec<_> = self.numbers().into_iter().map(|number| scope.spawn(move || stop_one(number))).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap_or_default()).collect()
        });
        self.stop_relay();
        forced
    }

    fn remember_running(&self, running: bool) -> Result<()> {
        Manifest { running, ..self.manifest.clone() }.save(&self.paths)
    }

    /// Sends the signal, and waits for the end of what it ends: of a postmaster, all its backends too.
    pub fn kill(&self, number: NodeNumber, part: Part, signal: Signal) -> Result<()> {
        self.check(number)?;
        let _lock = self.paths.lock()?;
        let (cluster, daemon) = (self.cluster(number), self.daemon(number));
        let mut targets = Vec::new();
        if part.has_gcs() {
            targets.push((daemon.process(), "daemon"));
        }
        if part.has_postgres() {
            targets.push((cluster.process(), "PostgreSQL"));
        }
        if targets.iter().all(|(process, _)| process.is_none()) {
            return Err(Error::failed(format!("nothing of {} that this is about runs", self.name(number))));
        }
        for process in targets.iter().filter_map(|(process, _)| process.as_ref()) {
            process.signal(signal);
        }
        if !is_fatal(signal) {
            return Ok(());
        }
        let deadline = Instant::now() + GONE_MAX;
        for (process, what) in &targets {
            if process.as_ref().is_some_and(|process| !process.wait_until(deadline)) {
                let seconds = GONE_MAX.as_secs();
                return Err(Error::failed(format!("the {what} of {} still runs after {seconds} s", self.name(number))));
            }
        }
        if part.has_postgres() {
            cluster.wait_orphans()?;
        }
        Ok(())
    }

    /// Starts whatever of the node is down.
    pub fn start_node(&self, number: NodeNumber) -> Result<Started> {
        self.check(number)?;
        let _lock = self.paths.lock()?;
        let start = || {
            self.daemon(number).start()?;
            self.cluster(number).start()?;
            self.wait_online(&[number])
        };
        self.mount_disk(number)?;
        start().map_err(|error| {
            let hint = format!("Its disk is full. To give it room: {}", self.heal_command(number));
            if self.is_filled(number) { error.hint(hint) } else { error }
        })
    }

    /// Waits until each of the nodes replicates and takes clients.
    pub fn wait_online(&self, numbers: &[NodeNumber]) -> Result<Started> {
        self.wait_online_for(numbers, ONLINE_MAX)
    }

    fn wait_online_for(&self, numbers: &[NodeNumber], patience: Duration) -> Result<Started> {
        let deadline = Instant::now() + patience;
        for &number in numbers {
            while let Err(why) = self.check_online(number) {
                if !self.majority_runs(number) {
                    return Ok(Started::WaitsForMajority);
                }
                if self.daemon(number).process().is_none() || self.cluster(number).process().is_none() {
                    return Err(Error::failed(format!("{} went down again while it started", self.name(number)))
                        .hint(format!("Its logs are in {}.", self.cluster(number).home.display())));
                }
                if Instant::now() > deadline {
                    let seconds = patience.as_secs();
                    return Err(Error::failed(format!("{} is not online after {seconds} s: {why}", self.name(number)))
                        .hint(format!("Its logs are in {}.", self.cluster(number).home.display())));
                }
                thread::sleep(LOOK_EVERY);
            }
        }
        Ok(Started::Online)
    }

    fn check_online(&self, number: NodeNumber) -> std::result::Result<(), String> {
        let status = self.daemon(number).status().map_err(|error| format!("its daemon does not answer: {error}"))?;
        if !status.quorum {
            return Err("its daemon sees no majority".to_owned());
        }
        match status.members.iter().find(|member| member.name == self.name(number)).map(|member| member.state) {
            Some(MemberState::Online) => {}
            _ => return Err("its PostgreSQL has not joined the group".to_owned()),
        }
        let mut client = self.connect(number, &self.manifest.database).map_err(|error| describe(&error))?;
        client.batch_execute("SELECT 1").map_err(|error| describe(&error))
    }

    /// As many daemons run, and are not cut off from this node's.
    fn majority_runs(&self, number: NodeNumber) -> bool {
        let (faults, own) = (self.link_faults(), self.name(number));
        let is_seen = |other: NodeNumber| other == number || !faults.is_cut(own, self.name(other));
        let votes = self.voters().unwrap_or_else(|| self.numbers());
        let running = votes.iter().filter(|&&other| is_seen(other) && self.daemon(other).process().is_some()).count();
        running > votes.len() / 2
    }

    /// Who votes, as a daemon knows that answers.
    fn voters(&self) -> Option<Vec<NodeNumber>> {
        let status = self.numbers().into_iter().find_map(|number| self.daemon(number).status().ok())?;
        let is_voter = |number: &NodeNumber| {
            status.members.iter().any(|member| member.name == self.name(*number) && member.role != MemberRole::Learner)
        };
        Some(self.numbers().into_iter().filter(is_voter).collect())
    }

    pub fn numbers(&self) -> Vec<NodeNumber> {
        (1..=self.manifest.nodes.len()).map(NodeNumber).collect()
    }

    pub fn name(&self, number: NodeNumber) -> &str {
        &self.manifest.nodes[number.index()].name
    }

    pub fn uri(&self, number: NodeNumber) -> String {
        self.cluster(number).uri(&self.manifest.database)
    }

    /// Host and port where the node's daemon tells metrics and health.
    pub fn http(&self, number: NodeNumber) -> Option<String> {
        self.manifest.nodes[number.index()].http_port.map(|port| format!("127.0.0.1:{port}"))
    }

    pub fn cluster(&self, number: NodeNumber) -> Cluster {
        let node = &self.manifest.nodes[number.index()];
        let bin = node.postgres_bin.as_ref().unwrap_or(&self.manifest.postgres_bin).clone();
        let account = self.account.clone();
        Cluster { bin, account, home: self.paths.node(&node.name), port: node.port }
    }

    pub fn daemon(&self, number: NodeNumber) -> Daemon {
        let home = self.paths.node(self.name(number));
        let place = self.manifest.nodes[number.index()].place.as_ref();
        let launcher = place.map(|place| place.launcher.clone()).unwrap_or_default();
        let log_retention = self.manifest.disk_size.map(DiskSize::log_retention);
        Daemon { binary: self.manifest.gcs.clone(), account: self.account.clone(), home, launcher, log_retention }
    }

    pub(super) fn check(&self, number: NodeNumber) -> Result<()> {
        if (1..=self.manifest.nodes.len()).contains(&number.0) {
            return Ok(());
        }
        Err(Error::usage(format!("there is no node {}; this playground has 1 to {}", number.0, self.manifest.nodes.len())))
    }

    /// Does the same on all nodes at once; the first error wins.
    pub(super) fn on_all(&self, job: impl Fn(NodeNumber) -> Result<()> + Sync) -> Result<()> {
        let job = &job;
        thread::scope(|scope| {
            let threads: Vec<_> = self.numbers().into_iter().map(|number| scope.spawn(move || job(number))).collect();
            let panicked = |_| Err(Error::failed("a thread panicked"));
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(panicked))
        })
    }
}

fn replication_settings(daemon: &Daemon) -> String {
    format!(
        "shared_preload_libraries = 'postgres_r'\npostgres_r.gcs_socket = '{}'\nmax_worker_processes = 32\n",
        cluster::quote_setting(&daemon.socket())
    )
}

/// Names and ports, after a look whether the ports are free.
fn plan_nodes(new: &NewGroup) -> Result<Vec<NodeEntry>> {
    if !(1..=GROUP_MEMBERS_MAX).contains(&new.nodes) {
        return Err(Error::usage(format!("a group has 1 to {GROUP_MEMBERS_MAX} nodes, not {}", new.nodes)));
    }
    if !new.places.is_empty() && new.places.len() != new.nodes {
        return Err(Error::usage(format!("{} places for {} nodes", new.places.len(), new.nodes)));
    }
    let offset = if new.faults { PEER_PORT_OFFSET + LISTEN_PORT_OFFSET } else { HTTP_PORT_OFFSET };
    let highest = usize::from(new.base_port) + usize::from(offset) + new.nodes;
    if new.base_port == 0 || highest > usize::from(u16::MAX) {
        return Err(Error::usage(format!("base port {} leaves no room for the ports above it", new.base_port)));
    }
    let node = |index: u16| {
        let (port, peer_port) = (new.base_port + index, new.base_port + PEER_PORT_OFFSET + index);
        let place = new.places.get(usize::from(index)).cloned();
        let listen_port = new.faults.then(|| peer_port + LISTEN_PORT_OFFSET);
        // In another network nobody here would reach it.
        let http_port = place.is_none().then(|| port + HTTP_PORT_OFFSET);
        let name = format!("node{}", index + 1);
        NodeEntry { name, port, peer_port, listen_port, http_port, joined: false, place, role: None, postgres_bin: None }
    };
    let nodes: Vec<NodeEntry> = (0..new.nodes as u16).map(node).collect();
    nodes.iter().try_for_each(|node| check_ports(node, "Give another --base-port."))?;
    Ok(nodes)
}

/// One more, with the ports next to the others'.
fn plan_next(manifest: &Manifest) -> Result<NodeEntry> {
    let count = manifest.nodes.len();
    if count >= GROUP_MEMBERS_MAX {
        return Err(Error::usage(format!(
            "this playground has {count} nodes, and a group has {GROUP_MEMBERS_MAX} at the most"
        )));
    }
    let (first, next) = (&manifest.nodes[0], count as u16);
    let port = |base: u16| {
        base.checked_add(next).ok_or_else(|| Error::failed(format!("there is no port above {base} for another node")))
    };
    let name = format!("node{}", count + 1);
    let node = NodeEntry {
        name,
        port: port(first.port)?,
        peer_port: port(first.peer_port)?,
        listen_port: first.listen_port.map(port).transpose()?,
        http_port: first.http_port.map(port).transpose()?,
        joined: true,
        place: None,
        role: None,
        postgres_bin: None,
    };
    check_ports(&node, "End what uses it.")?;
    Ok(node)
}

fn check_ports(node: &NodeEntry, hint: &str) -> Result<()> {
    for port in [node.port, node.peer_port].into_iter().chain(node.listen_port).chain(node.http_port) {
        TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .map_err(|error| Error::usage(format!("port {port} cannot be used: {error}")).hint(hint))?;
    }
    Ok(())
}

fn make_empty(dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
    match fs::read_dir(dir).map_err(Error::file("read", dir))?.next() {
        None => Ok(()),
        Some(_) => {
            Err(Error::usage(format!("{} is not empty", dir.display())).hint("Give a --dir that does not exist yet."))
        }
    }
}

/// The directory of PostgreSQL's programs, by PG_CONFIG or Debian's place, once it is clear that it will do.
pub fn find_postgres() -> Result<PathBuf> {
    let pg_config = std::env::var_os("PG_CONFIG").map_or_else(|| PathBuf::from(DEFAULT_PG_CONFIG), PathBuf::from);
    let ask = |option: &str| {
        cluster::run(Command::new(&pg_config).arg(option), "pg_config").map(|answer| PathBuf::from(answer.trim()))
    };
    let bin = ask("--bindir")?;
    let library = ask("--pkglibdir")?.join("postgres_r.so");
    if !library.exists() {
        return Err(Error::failed(format!("the extension is not installed: {} is missing", library.display()))
            .hint("Run `make install` first."));
    }
    Ok(bin)
}

/// Quotes only what needs it, so that a plain name reads as one would type it.
pub fn quote_identifier(name: &str) -> String {
    let plain = name.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if plain { name.to_owned() } else { format!("\"{}\"", name.replace('"', "\"\"")) }
}

/// The server's own words, with detail and hint, or the client's.
pub fn describe(error: &postgres::Error) -> String {
    let Some(error) = error.as_db_error() else { return error.to_string() };
    let mut text = format!("{} ({})", error.message(), error.code().code());
    for more in [error.detail(), error.hint()].into_iter().flatten() {
        text += &format!(" {more}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::error::Kind;

    fn new_group(base_port: u16, nodes: usize) -> NewGroup {
        let (database, group) = ("shop".to_owned(), "postgresr".to_owned());
        let (dir, gcs) = (PathBuf::from("/nowhere"), PathBuf::from("gcs"));
        let (settings, places) = (String::new(), Vec::new());
        NewGroup { dir, nodes, base_port, database, group, gcs, settings, places, faults: true, disk_size: None }
    }

    #[test]
    fn a_taken_port_is_named_before_anything_is_made() {
        let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = taken.local_addr().unwrap().port();
        let error = plan_nodes(&new_group(port, 1)).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.message.contains(&format!("port {port} cannot be used")), "{error}");
    }

    #[test]
    fn a_group_that_cannot_be_is_refused() {
        assert_eq!(plan_nodes(&new_group(6001, 0)).unwrap_err().kind, Kind::Usage);
        assert_eq!(plan_nodes(&new_group(6001, 9)).unwrap_err().kind, Kind::Usage);
        assert_eq!(plan_nodes(&new_group(65400, 3)).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn a_directory_with_something_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("precious"), "").unwrap();
        assert!(make_empty(dir.path()).unwrap_err().message.ends_with("is not empty"));
    }

    #[test]
    fn plain_names_stay_as_typed_and_others_are_quoted() {
        assert_eq!(quote_identifier("shop"), "shop");
        assert_eq!(quote_identifier("My \"shop\""), "\"My \"\"shop\"\"\"");
        assert_eq!(quote_identifier(""), "\"\"");
    }
}
