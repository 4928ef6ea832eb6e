//! Three nodes whose daemons have a network each, and the clock that a daemon may be given.

use std::path::{Path, PathBuf};

use gcs::playground::process::{Process, Signal};
use gcs::playground::relay::End;
use gcs::playground::{NodeNumber, Place};

use super::network::Network;
use super::relay::Relay;
use crate::harness::Group;
use crate::harness::stopped::backend;

const NODES: usize = 3;
const PEER_PORT: u16 = 7100;
/// The doors of a relay, by node.
const DOOR_PORT: u16 = 7200;
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// In a daemon's directory: by how much its clock is off.
const CLOCK: &str = "clock";

/// What a fault needs of the nodes it is done to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The daemons reach each other over the bridge.
    Direct,
    /// They reach each other by a relay, and read the time from a library that can be told another.
    Relayed,
}

pub struct Testbed {
    /// Ends first: its daemons live in the network.
    pub group: Group,
    relay: Option<Relay>,
    pub network: Network,
    _clocks: Clocks,
}

/// What the library that fakes the time leaves in shared memory for each process, removed when this is dropped.
struct Clocks(Vec<i32>);

impl Drop for Clocks {
    fn drop(&mut self) {
        for (pid, name) in self.0.iter().flat_map(|pid| [(pid, "faketime_shm_"), (pid, "sem.faketime_sem_")]) {
            // A process that ends in order has done it.
            let _ = std::fs::remove_file(format!("/dev/shm/{name}{pid}"));
        }
    }
}

impl Testbed {
    pub fn start(kind: Kind) -> Testbed {
        Testbed::try_start(kind).unwrap_or_else(|error| panic!("{error}"))
    }

    /// # Errors
    /// What could not be made, most likely since this is not root.
    pub fn try_start(kind: Kind) -> Result<Testbed, String> {
        let network = Network::make(NODES)?;
        let numbers: Vec<NodeNumber> = (1..=NODES).map(NodeNumber).collect();
        let listen = |number: NodeNumber| format!("{}:{PEER_PORT}", network.address(number));
        let door = |number: NodeNumber| format!("{}:{}", network.own_address(), DOOR_PORT + number.0 as u16);
        let is_relayed = kind == Kind::Relayed;
        if is_relayed && !Path::new(FAKETIME).exists() {
            return Err(format!("{FAKETIME} is missing: install the package libfaketime (make setup)"));
        }
        let place = |&number: &NodeNumber| Place {
            launcher: launcher(&network.namespace(number), is_relayed),
            listen: listen(number),
            address: if is_relayed { door(number) } else { listen(number) },
        };
        let places: Vec<Place> = numbers.iter().map(place).collect();
        let end = |&number: &NodeNumber| {
            // As the playground will name it.
            End { name: format!("node{}", number.0), door: door(number), listen: listen(number) }
        };
        let relay = is_relayed.then(|| Relay::start(numbers.iter().map(end).collect())).transpose()?;
        let group = Group::try_start_at(&places)?;
        let processes = numbers.iter().filter_map(|&number| group.playground.daemon(number).process());
        let clocks = Clocks(processes.filter(|_| is_relayed).map(|process| process.pid).collect());
        Ok(Testbed { group, relay, network, _clocks: clocks })
    }

    pub fn relay(&self) -> &Relay {
        self.relay.as_ref().unwrap_or_else(|| panic!("this testbed has no relay"))
    }

    /// The node that leads, as one of these knows.
    pub fn leader(&self) -> Option<NodeNumber> {
        let numbers = self.group.numbers();
        let status = numbers.iter().find_map(|&number| self.group.playground.daemon(number).status().ok())?;
        let leader = status.members.iter().find(|member| Some(member.node) == status.leader)?;
        numbers.into_iter().find(|&number| self.group.playground.name(number) == leader.name)
    }

    pub fn signal_daemon(&self, number: NodeNumber, signal: Signal) {
        let process = self.group.playground.daemon(number).process();
        send(process, "daemon", signal);
    }

    pub fn signal_postmaster(&self, number: NodeNumber, signal: Signal) {
        send(self.group.playground.cluster(number).process(), "postmaster", signal);
    }

    /// The manager of the group's database on that node.
    pub fn manager(&self, number: NodeNumber) -> Process {
        let query = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'postgres_r manager%' AND datname = current_database()";
        let row = self.group.connect(number).query_one(query, &[]).unwrap_or_else(|error| panic!("{number:?}: {error}"));
        backend(&self.group, number, row.get(0)).unwrap_or_else(|| panic!("the manager of node {} has ended", number.0))
    }

    /// From now on the daemon's clock is so many seconds ahead. The time that waiting is measured by goes on as before.
    pub fn set_clock(&self, number: NodeNumber, seconds: i64) {
        let home = self.group.dir().join(self.group.playground.name(number));
        let (draft, clock): (PathBuf, PathBuf) = (home.join("clock.new"), home.join(CLOCK));
        let written = std::fs::write(&draft, format!("{seconds:+}\n")).and_then(|()| std::fs::rename(&draft, &clock));
        written.unwrap_or_else(|error| panic!("{}: {error}", clock.display()));
    }
}

fn send(process: Option<Process>, what: &str, signal: Signal) {
    assert!(process.is_some_and(|process| process.signal(signal)), "there is no {what} to be signalled");
}

/// Into the namespace, as the user that servers run as; with a clock that can be told another time.
fn launcher(namespace: &str, with_clock: bool) -> Vec<String> {
    let enter = format!("nsenter --net=/run/netns/{namespace} --");
    let become_user = "setpriv --reuid=postgres --regid=postgres --clear-groups --";
    let clock = format!(
        "env LD_PRELOAD={FAKETIME} FAKETIME_TIMESTAMP_FILE={CLOCK} FAKETIME_CACHE_DURATION=1 FAKETIME_DONT_FAKE_MONOTONIC=1 \
         DONT_FAKE_MONOTONIC=1"
    );
    let words = if with_clock { format!("{enter} {become_user} {clock}") } else { format!("{enter} {become_user}") };
    words.split_whitespace().map(str::to_owned).collect()
}
