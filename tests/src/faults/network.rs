//! A network for each node: a namespace with one address, all on one bridge, and a packet filter in each.
//!
//! Names and addresses come from this process's id, so that two test programs do not meet. Everything is removed when the value is dropped, also
//! by a panic; what a killed test left is removed by the next one.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use gcs::playground::NodeNumber;

/// Begins the names of everything made here.
const PREFIX: &str = "pgrf";
/// Networks that one process makes; each has a subnet of its own.
const NETWORKS_MAX: u32 = 10;

/// What a node's packet filter drops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Everything, both ways.
    All,
    /// What it sends: it hears and is not heard.
    Out,
    /// What is sent to it: it is heard and hears nothing.
    In,
    /// Everything from and to one other node.
    From(NodeNumber),
    /// One packet of five, both ways, at random.
    OneOfFive,
}

#[derive(Debug)]
pub struct Network {
    name: String,
    subnet: String,
    nodes: usize,
}

impl Network {
    /// # Errors
    /// What could not be done, and why: most likely this is not root.
    pub fn make(nodes: usize) -> Result<Network, String> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), MADE.fetch_add(1, Ordering::Relaxed) % NETWORKS_MAX);
        remove_left_behind();
        // 10.128.0.0/9, a /24 for each of 12 bits of the id and up to 8 numbers.
        let place = process % 4096 * 8 + number % 8;
        let network = Network {
            name: format!("{PREFIX}{process}x{number}"),
            subnet: format!("10.{}.{}", 128 + place / 256, place % 256),
            nodes,
        };
        // From here on it is removed, however far it came.
        network.set_up().map_err(|error| {
            format!("could not make network namespaces, which takes root and the packages iproute2 and nftables: {error}")
        })?;
        Ok(network)
    }

    fn set_up(&self) -> Result<(), String> {
        let (bridge, subnet) = (self.bridge(), &self.subnet);
        run(&format!("ip link add {bridge} type bridge"))?;
        run(&format!("ip addr add {}/24 dev {bridge}", self.own_address()))?;
        run(&format!("ip link set {bridge} up"))?;
        for number in (1..=self.nodes).map(NodeNumber) {
            let (namespace, link) = (self.namespace(number), self.link(number));
            run(&format!("ip netns add {namespace}"))?;
            run(&format!("ip link add {link} type veth peer name eth0 netns {namespace}"))?;
            run(&format!("ip link set {link} master {bridge} up"))?;
            run(&format!("ip -n {namespace} addr add {subnet}.{}/24 dev eth0", number.0))?;
            run(&format!("ip -n {namespace} link set eth0 up"))?;
            run(&format!("ip -n {namespace} link set lo up"))?;
            let chain = |hook: &str| format!("add chain inet cut {hook} {{ type filter hook {hook} priority 0; }}");
            self.filter(number, &format!("add table inet cut; {}; {}", chain("input"), chain("output")))?;
        }
        Ok(())
    }

    fn bridge(&self) -> String {
        format!("{}b", self.name)
    }

    pub fn namespace(&self, number: NodeNumber) -> String {
        format!("{}n{}", self.name, number.0)
    }

    pub fn address(&self, number: NodeNumber) -> String {
        format!("{}.{}", self.subnet, number.0)
    }

    /// Of this machine on the bridge.
    pub fn own_address(&self) -> String {
        format!("{}.254", self.subnet)
    }

    /// In addition to what is cut already. Nobody is told: packets vanish.
    pub fn cut(&self, number: NodeNumber, cut: Cut) {
        let rules = match cut {
            Cut::All => vec!["input iifname eth0 drop".to_owned(), "output oifname eth0 drop".to_owned()],
            Cut::Out => vec!["output oifname eth0 drop".to_owned()],
            Cut::In => vec!["input iifname eth0 drop".to_owned()],
            Cut::From(other) => {
                let other = self.address(other);
                vec![format!("input ip saddr {other} drop"), format!("output ip daddr {other} drop")]
            }
            Cut::OneOfFive => ["input", "output"].map(|hook| format!("{hook} numgen random mod 5 == 0 drop")).into(),
        };
        let rules: Vec<String> = rules.iter().map(|rule| format!("add rule inet cut {rule}")).collect();
        self.filter(number, &rules.join("; ")).unwrap_or_else(|error| panic!("{error}"));
    }

    pub fn heal(&self, number: NodeNumber) {
        self.filter(number, "flush table inet cut").unwrap_or_else(|error| panic!("{error}"));
    }

    /// From now on no more than so many bits a second get through, each way, and what is too much waits (`tc` says how a rate is written).
    ///
    /// # Errors
    /// What could not be done, and why.
    pub fn narrow(&self, number: NodeNumber, rate: &str) -> Result<(), String> {
        let (namespace, link) = (self.namespace(number), self.link(number));
        let shape = format!("root tbf rate {rate} burst 16kb latency 2s");
        run(&format!("tc -n {namespace} qdisc add dev eth0 {shape}"))?;
        run(&format!("tc qdisc add dev {link} {shape}"))
    }

    /// Bytes that the node has sent and received.
    ///
    /// # Errors
    /// What the kernel says cannot be read.
    pub fn bytes(&self, number: NodeNumber) -> Result<u64, String> {
        let link = self.link(number);
        let of = |what: &str| {
            let path = format!("/sys/class/net/{link}/statistics/{what}_bytes");
            let text = std::fs::read_to_string(&path).map_err(|error| format!("{path}: {error}"))?;
            text.trim().parse::<u64>().map_err(|error| format!("{path}: {error}"))
        };
        Ok(of("rx")? + of("tx")?)
    }

    /// The node's end on the bridge.
    fn link(&self, number: NodeNumber) -> String {
        format!("{}v{}", self.name, number.0)
    }

    fn filter(&self, number: NodeNumber, rules: &str) -> Result<(), String> {
        let namespace = self.namespace(number);
        run_words(&["ip", "netns", "exec", &namespace, "nft", rules])
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for number in (1..=self.nodes).map(NodeNumber) {
            // With it goes its end of the link, and so the other. What was not made is not there.
            let _ = run(&format!("ip netns del {}", self.namespace(number)));
        }
        let _ = run(&format!("ip link del {}", self.bridge()));
    }
}

/// Of test programs that were killed: their ids are nobody's now.
fn remove_left_behind() {
    let is_left = |name: &str| {
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('x').next());
        process.is_some_and(|process| process.parse::<u32>().is_ok() && !Path::new("/proc").join(process).exists())
    };
    for line in list("ip netns list").iter().filter(|line| is_left(line)) {
        let _ = run(&format!("ip netns del {}", line.split(' ').next().unwrap_or_default()));
    }
    for line in list("ip -brief link show type bridge").iter().filter(|line| is_left(line)) {
        let _ = run(&format!("ip link del {}", line.split(' ').next().unwrap_or_default()));
    }
}

fn list(command: &str) -> Vec<String> {
    let words: Vec<&str> = command.split(' ').collect();
    let output = Command::new(words[0]).args(&words[1..]).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()).unwrap_or_default()
}

fn run(command: &str) -> Result<(), String> {
    run_words(&command.split(' ').collect::<Vec<_>>())
}

fn run_words(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output().map_err(|error| format!("{}: {error}", words[0]))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{}: {}", words.join(" "), String::from_utf8_lossy(&output.stderr).trim()))
}
