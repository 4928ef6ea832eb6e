//! keepalived, with what `gcs gen keepalived` prints: the service's address is where commits can be had, and moves when a daemon is killed.
//!
//! Two network namespaces with a cable between them stand for the networks of two nodes; the nodes themselves run outside. What keepalived asks in a
//! namespace at the address where the node's daemon answers is carried out to it, through a socket in the file system.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs::{self, File};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gcs::playground::group::Started;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{self, Group, http, node, wait};

const PATIENCE: Duration = Duration::from_secs(60);
const ADDRESS: &str = "10.77.0.100";

/// Carries connections: `carry.py LISTEN TO`, either of them a port of loopback or a path.
const CARRY: &str = r#"
import asyncio, sys
listen, to = sys.argv[1:]
async def pipe(reader, writer):
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except OSError:
        pass
    writer.close()
async def carry(reader, writer):
    try:
        other = await (asyncio.open_unix_connection(to) if "/" in to else asyncio.open_connection("127.0.0.1", int(to)))
    except OSError:
        return writer.close()
    await asyncio.gather(pipe(reader, other[1]), pipe(other[0], writer))
async def main():
    server = await (asyncio.start_unix_server(carry, listen) if "/" in listen else asyncio.start_server(carry, "127.0.0.1", int(listen)))
    await server.serve_forever()
asyncio.run(main())
"#;

fn run(arguments: &[&str]) -> String {
    let output = Command::new("ip").args(arguments).output().unwrap();
    assert!(output.status.success(), "ip {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A node's network: its namespace, and what runs in it. It goes with this.
struct Network {
    name: String,
    directory: PathBuf,
    number: NodeNumber,
    children: Vec<Child>,
}

impl Network {
    fn new(group: &Group, number: NodeNumber) -> Network {
        let name = format!("pgr{}n{}", std::process::id(), number.0);
        run(&["netns", "add", &name]);
        run(&["-n", &name, "link", "set", "lo", "up"]);
        let directory = group.dir().join(&name);
        fs::create_dir(&directory).unwrap();
        Network { name, directory, number, children: Vec::new() }
    }

    fn inside(&self) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]);
        command
    }

    fn start(&mut self, mut command: Command, log: &str) {
        let log = File::create(self.directory.join(log)).unwrap();
        let child = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.children.push(child);
    }

    /// What is asked in here at the address of the node's daemon is asked of it.
    fn carry(&mut self, group: &Group) {
        let script = self.directory.join("carry.py");
        fs::write(&script, CARRY).unwrap();
        let (socket, http) = (self.directory.join("http"), http::address(group, self.number));
        let port = http.rsplit_once(':').unwrap().1.to_owned();
        let mut outside = Command::new("python3");
        outside.arg(&script).arg(&socket).arg(&port);
        self.start(outside, "outside.log");
        wait::until("it is carried out", PATIENCE, || {
            UnixStream::connect(&socket).map(drop).map_err(|error| error.to_string())
        });
        let mut inside = self.inside();
        inside.arg("python3").arg(&script).arg(&port).arg(&socket);
        self.start(inside, "inside.log");
    }

    fn start_keepalived(&mut self, group: &Group) {
        let config = group.playground.cluster(self.number).home.join("gcs.toml");
        let mut generate = Command::new(harness::gcs());
        generate.args(["gen", "keepalived", "--interface", "eth0", "--address", &format!("{ADDRESS}/24"), "--config"]);
        let output = generate.arg(config).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = |name: &str| self.directory.join(name);
        fs::write(file("keepalived.conf"), output.stdout).unwrap();
        let mut command = self.inside();
        command.args(["keepalived", "--dont-fork", "--log-console", "--vrrp", "--use-file"]).arg(file("keepalived.conf"));
        command.arg("--pid").arg(file("pid")).arg("--vrrp_pid").arg(file("vrrp_pid"));
        self.start(command, "keepalived.log");
    }

    fn has_address(&self) -> bool {
        run(&["-n", &self.name, "-brief", "address", "show", "eth0"]).contains(&format!("{ADDRESS}/"))
    }

    fn log(&self) -> String {
        fs::read_to_string(self.directory.join("keepalived.log")).unwrap_or_default()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- keepalived in {}\n{}", self.name, self.log());
        }
        // keepalived first, so that it takes its own children along.
        for child in self.children.iter_mut().rev() {
            let _ = Command::new("kill").arg(child.id().to_string()).status();
            let _ = child.wait();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn connect(first: &Network, second: &Network) {
    run(&["link", "add", "eth0", "netns", &first.name, "type", "veth", "peer", "name", "eth0", "netns", &second.name]);
    for (network, address) in [(first, "10.77.0.1/24"), (second, "10.77.0.2/24")] {
        run(&["-n", &network.name, "address", "add", address, "dev", "eth0"]);
        run(&["-n", &network.name, "link", "set", "eth0", "up"]);
    }
}

/// How long it took until the one has the address, and the other has not.
fn comes_to(to: &Network, from: &Network) -> Duration {
    let began = Instant::now();
    wait::until(&format!("the address is {}'s", to.name), PATIENCE, || match (to.has_address(), from.has_address()) {
        (true, false) => Ok(()),
        had => Err(format!("{had:?}")),
    });
    began.elapsed()
}

fn answers(group: &Group, number: NodeNumber) -> bool {
    TcpStream::connect(http::address(group, number)).is_ok()
}

#[test]
fn the_address_moves_to_where_commits_can_be_had_and_stays_there() {
    let group = Group::start();
    let [mut first, mut second] = [node(1), node(2)].map(|number| Network::new(&group, number));
    connect(&first, &second);
    first.carry(&group);
    second.carry(&group);
    first.start_keepalived(&group);
    comes_to(&first, &second);
    second.start_keepalived(&group);
    wait::until("the second one listens", PATIENCE, || {
        if second.log().contains("BACKUP STATE") { Ok(()) } else { Err(second.log()) }
    });
    group.kill(node(1), Part::Gcs);
    println!("after the first daemon was killed: {:?}", comes_to(&second, &first));
    assert!(!answers(&group, node(1)) && answers(&group, node(2)));
    // Whoever has it keeps it.
    assert_eq!(group.start_node(node(1)), Started::Online);
    wait::until("the first one is well again", PATIENCE, || {
        if first.log().matches("BACKUP STATE").count() > 1 { Ok(()) } else { Err(first.log()) }
    });
    assert!(second.has_address() && !first.has_address());
    group.kill(node(2), Part::Gcs);
    println!("after the second daemon was killed: {:?}", comes_to(&first, &second));
}
