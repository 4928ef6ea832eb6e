//! `gcs playground fault cut` and `slow`: a playground whose daemons reach each other by a relay ([`super::relay`]).
//!
//! It is made so, or not (`start --faults`). The address of a node in the membership is then a door of the relay, and the daemon listens
//! elsewhere. The relay is a process of its own in DIR/relay, there for as long as the group runs; what is wrong with links ends with it.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use super::cluster::last_complaint;
use super::daemon::{listen_address, peer_address, reap};
use super::group::Playground;
use super::links::LinkFaults;
use super::manifest::{NodeEntry, NodeNumber, lock};
use super::process::{Process, Signal, wait_readable};
use super::relay::End;
use super::relay_process::{self, READY, Request};
use super::{Error, Result};

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(10);

impl Playground {
    /// From now on no byte passes between the node and the other one, or all others.
    pub fn cut(&self, number: NodeNumber, other: Option<NodeNumber>) -> Result<()> {
        self.check(number)?;
        other.map_or(Ok(()), |other| self.check(other))?;
        if other == Some(number) {
            return Err(Error::usage(format!("{} has no link to itself", self.name(number))));
        }
        self.change_links(|faults| match other {
            None => faults.cut_off(self.name(number)),
            Some(other) => faults.cut(self.name(number), self.name(other)),
        })
    }

    /// From now on whatever the node sends or is sent arrives so much later.
    pub fn slow(&self, number: NodeNumber, milliseconds: u64) -> Result<()> {
        self.check(number)?;
        self.change_links(|faults| faults.slow(self.name(number), milliseconds))
    }

    /// The node's links, or all, are as they were.
    pub(super) fn heal_links(&self, number: Option<NodeNumber>) -> Result<()> {
        self.change_links(|faults| match number {
            None => *faults = LinkFaults::default(),
            Some(number) => faults.heal(self.name(number)),
        })
    }

    fn change_links(&self, change: impl FnOnce(&mut LinkFaults)) -> Result<()> {
        let dir = self.paths.dir.display();
        if !self.manifest.is_relayed() {
            return Err(Error::usage(format!("the playground in {dir} was made without --faults: its links are its own"))
                .hint("Make another with: gcs playground start --faults --dir DIR"));
        }
        if self.relay().is_none() {
            return Err(Error::failed(format!("the relay of the playground in {dir} does not run"))
                .hint("It runs while the group does: start the playground, or stop it first if it runs."));
        }
        // A lock of its own: a command that waits for a node to come online may wait for just this.
        let _lock = lock(&self.relay_home().join("relay.lock"))?;
        let mut faults = relay_process::ask(&self.relay_home(), &Request::Tell)?;
        change(&mut faults);
        relay_process::ask(&self.relay_home(), &Request::Set(faults)).map(drop)
    }

    /// What is wrong with the links; nothing where there is no relay.
    pub fn link_faults(&self) -> LinkFaults {
        if self.relay().is_none() {
            return LinkFaults::default();
        }
        relay_process::ask(&self.relay_home(), &Request::Tell).unwrap_or_default()
    }

    fn relay_home(&self) -> PathBuf {
        self.paths.dir.join("relay")
    }

    fn relay_pid_file(&self) -> PathBuf {
        self.relay_home().join("relay.pid")
    }

    fn relay(&self) -> Option<Process> {
        let text = fs::read_to_string(self.relay_pid_file()).ok()?;
        Process::find(text.trim().parse().ok()?, &self.relay_home())
    }

    /// Returns once it listens for every node. Does nothing if it runs, or if this playground has none.
    pub(super) fn start_relay(&self) -> Result<()> {
        if !self.manifest.is_relayed() || self.relay().is_some() {
            return Ok(());
        }
        let home = self.relay_home();
        fs::create_dir_all(&home).map_err(Error::file("create", &home))?;
        self.account.give(&home)?;
        let log_path = home.join("relay.log");
        let log = OpenOptions::new().create(true).append(true).open(&log_path).map_err(Error::file("open", &log_path))?;
        let log_before = log.metadata().map_or(0, |meta| meta.len());
        let child = self.spawn_relay(log)?;
        self.wait_ready(child).map_err(|why| {
            let reason = last_complaint(&log_path, log_before).unwrap_or(why);
            Error::failed(format!("the relay did not start: {reason}")).hint(format!("Its log is {}.", log_path.display()))
        })?;
        self.manifest.nodes.iter().try_for_each(|node| self.open_door(node))
    }

    fn spawn_relay(&self, log: File) -> Result<Child> {
        let program = &self.manifest.gcs;
        let mut command = self.account.command(program, &self.relay_home());
        command.args(["playground", "relay"]).stdout(Stdio::piped()).stderr(log);
        let child =
            command.spawn().map_err(|error| Error::failed(format!("could not run {}: {error}", program.display())))?;
        let pid_file = self.relay_pid_file();
        fs::write(&pid_file, format!("{}\n", child.id())).map_err(Error::file("write", &pid_file))?;
        Ok(child)
    }

    /// Until it can be spoken to.
    fn wait_ready(&self, mut child: Child) -> std::result::Result<(), String> {
        let stdout = child.stdout.take();
        reap(child);
        let Some(mut stdout) = stdout else { return Err("it has no standard output".to_owned()) };
        if !wait_readable(&stdout, Instant::now() + START_MAX) {
            return Err(format!("it said nothing for {} s", START_MAX.as_secs()));
        }
        let mut said = [0; READY.len()];
        stdout.read_exact(&mut said).map_err(|_| "it left no message".to_owned())
    }

    /// Has the relay listen for one node, if there is a relay.
    pub(super) fn open_door(&self, node: &NodeEntry) -> Result<()> {
        if !self.manifest.is_relayed() {
            return Ok(());
        }
        let end = End { name: node.name.clone(), door: peer_address(node), listen: listen_address(node) };
        relay_process::ask(&self.relay_home(), &Request::Open(end)).map(drop)
    }

    /// When no daemon needs it any more.
    pub(super) fn stop_relay(&self) {
        if let Some(relay) = self.relay() {
            relay.signal(Signal::TERM);
            if !relay.wait_until(Instant::now() + STOP_MAX) {
                relay.signal(Signal::KILL);
                relay.wait_until(Instant::now() + STOP_MAX);
            }
        }
    }
}
