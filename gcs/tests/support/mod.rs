//! Real daemons on loopback, and a PostgreSQL that only speaks the link.

#![allow(clippy::unwrap_used, reason = "a panic here is a failed test")]
#![allow(dead_code, reason = "not every test program needs all of it")]

pub mod pki;

use std::collections::{BTreeMap, VecDeque};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use gcs_writeset::link::{self, FailureKind, GroupStatus, Reply, Request, Role, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Incarnation, Key, KeyGroup, Position, Sequence, SlotId, Tag};
use tempfile::TempDir;

/// Nothing here takes that long unless it is broken.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Of the slots that `Manager::submit` uses, one for each submission; those below are for tests that name theirs.
const FIRST_OF_MANY: u32 = 100;

pub struct Group {
    pub daemons: Vec<Daemon>,
    /// Goes last: their logs are in it.
    pub directory: TempDir,
}

pub struct Daemon {
    pub config: PathBuf,
    pub socket: PathBuf,
    pub log: PathBuf,
    pub peer_address: String,
    child: Option<Child>,
}

/// Below Linux's ephemeral ports: nobody's outgoing connection takes one before the daemon does, or while it is down.
const PORTS: std::ops::Range<u32> = 30_000..32_700;

/// Where nobody listens, no two the same in this process.
pub fn free_addresses(count: usize) -> Vec<String> {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let begin = std::process::id().wrapping_mul(61);
    let candidates = std::iter::from_fn(|| {
        let tried = begin.wrapping_add(TRIED.fetch_add(1, Ordering::Relaxed));
        Some(format!("127.0.0.1:{}", PORTS.start + tried % (PORTS.end - PORTS.start)))
    });
    candidates.filter(|address| TcpListener::bind(address).is_ok()).take(count).collect()
}

impl Group {
    /// Starts so many daemons.
    pub fn start(nodes: usize) -> Group {
        let mut group = Group::configure(nodes);
        for daemon in &mut group.daemons {
            daemon.start();
        }
        group
    }

    pub fn configure(nodes: usize) -> Group {
        Group::configure_with(nodes, |_, _| String::new())
    }

    /// `more` is what the file of a node ends with, by the directory of all and the number of the node, from 1.
    pub fn configure_with(nodes: usize, more: impl Fn(&Path, usize) -> String) -> Group {
        let directory = tempfile::tempdir().unwrap();
        let addresses = free_addresses(nodes);
        let peers: String =
            (1..=nodes).map(|i| format!("[[peers]]\nname = \"n{i}\"\naddress = \"{}\"\n", addresses[i - 1])).collect();
        let daemons = (1..=nodes).map(|i| {
            let path = |suffix: &str| directory.path().join(format!("n{i}{suffix}"));
            let config = format!(
                "name = \"n{i}\"\ngroup = \"g\"\ndata_directory = \"n{i}\"\nlocal_socket = \"n{i}.sock\"\npeer_address = \"{}\"\n{peers}{}",
                addresses[i - 1],
                more(directory.path(), i)
            );
            std::fs::write(path(".toml"), config).unwrap();
            let peer_address = addresses[i - 1].clone();
            Daemon { config: path(".toml"), socket: path(".sock"), log: path(".log"), peer_address, child: None }
        });
        let daemons = daemons.collect();
        Group { directory, daemons }
    }

    /// One more daemon, which is to ask those at `join` to let it in.
    pub fn configure_joiner(&mut self, name: &str, join: &[&str]) -> usize {
        let address = free_addresses(1).remove(0);
        let path = |suffix: &str| self.directory.path().join(format!("{name}{suffix}"));
        let (config, socket, log) = (path(".toml"), path(".sock"), path(".log"));
        std::fs::write(&config, joining(name, "g", &address, join)).unwrap();
        self.daemons.push(Daemon { config, socket, log, peer_address: address, child: None });
        self.daemons.len() - 1
    }

    /// Attaches database `shop` everywhere, each from the beginning.
    pub fn attach_all(&self) -> Vec<Manager> {
        let incarnations = 1..;
        self.daemons
            .iter()
            .zip(incarnations)
            .map(|(daemon, incarnation)| Manager::attach(&daemon.socket, Incarnation(incarnation), Position::ZERO))
            .collect()
    }
}

/// The configuration of a node that joins.
pub fn joining(name: &str, group: &str, address: &str, join: &[&str]) -> String {
    format!(
        "name = \"{name}\"\ngroup = \"{group}\"\ndata_directory = \"{name}\"\nlocal_socket = \"{name}.sock\"\n\
         peer_address = \"{address}\"\njoin = {join:?}\n"
    )
}

impl Daemon {
    /// One that was configured by somebody else.
    pub fn new(config: PathBuf, socket: PathBuf, log: PathBuf, peer_address: String) -> Daemon {
        Daemon { config, socket, log, peer_address, child: None }
    }

    /// Runs a command of `gcs` for this daemon: exit status, and what it said, errors behind the rest.
    pub fn gcs(&self, args: &[&str]) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_gcs")).args(args).arg("--config").arg(&self.config).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    }

    /// Name, role, state and ordinal of every member, as this daemon knows them.
    pub fn members(&self) -> Vec<(String, String, String, u64)> {
        let deadline = Instant::now() + PATIENCE;
        let text = loop {
            match self.gcs(&["members", "--json"]) {
                (Some(0), text) => break text,
                // It has just been started.
                (_, text) if text.contains("could not reach") && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(20));
                }
                (_, text) => panic!("{text}"),
            }
        };
        let members: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        let text = |member: &serde_json::Value, key: &str| member[key].as_str().unwrap().to_owned();
        let ordinal = |member: &serde_json::Value| member["ordinal"].as_u64().unwrap();
        members.iter().map(|m| (text(m, "name"), text(m, "role"), text(m, "state"), ordinal(m))).collect()
    }

    pub fn role_of(&self, name: &str) -> Option<String> {
        self.members().into_iter().find(|member| member.0 == name).map(|member| member.1)
    }

    /// Until it is so; there is no event for what a daemon knows.
    pub fn wait_until(&self, what: &str, is_so: impl Fn(&Daemon) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !is_so(self) {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.members());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn wait_for_log(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.log_text().contains(text) {
            assert!(Instant::now() < deadline, "the log does not say: {text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub fn data_directory(&self) -> PathBuf {
        self.config.with_extension("")
    }

    pub fn start(&mut self) {
        let log = std::fs::File::options().create(true).append(true).open(&self.log).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_gcs"))
            .args(["run", "--config"])
            .arg(&self.config)
            .env_remove("RUST_LOG")
            .env("GCS_LOG", "debug")
            .stderr(Stdio::from(log))
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Until it ends by itself.
    pub fn wait(&mut self) -> ExitStatus {
        self.child.take().unwrap().wait().unwrap()
    }

    pub fn terminate(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let pid = nix::unistd::Pid::from_raw(child.id() as i32);
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
        child.wait().unwrap()
    }

    fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(self.child.as_ref().unwrap().id() as i32)
    }

    /// SIGHUP.
    pub fn reload(&self) {
        nix::sys::signal::kill(self.pid(), nix::sys::signal::Signal::SIGHUP).unwrap();
    }

    /// Memory that it has in use, in KiB.
    pub fn resident_kib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Waits until the log has so many lines with this in it.
    pub fn wait_for_lines(&self, text: &str, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.lines(text) < count {
            assert!(Instant::now() < deadline, "no \"{text}\" in {}", self.log.display());
            // There is no event for a line in a file.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn lines(&self, text: &str) -> usize {
        self.log_text().lines().filter(|line| line.contains(text)).count()
    }

    /// The same without those that only somebody who looks for a mistake would see.
    pub fn loud_lines(&self, text: &str) -> usize {
        self.log_text().lines().filter(|line| line.contains(text) && !line.contains("DEBUG")).count()
    }

    /// Keeps it from running (or lets it go on), with its connections open.
    pub fn freeze(&self, freeze: bool) {
        use nix::sys::signal::{Signal, kill};
        let pid = nix::unistd::Pid::from_raw(self.child.as_ref().unwrap().id() as i32);
        kill(pid, if freeze { Signal::SIGSTOP } else { Signal::SIGCONT }).unwrap();
    }

    /// Runs to its end: exit status and what it said on stderr.
    pub fn run_to_end(config: &Path) -> (Option<i32>, String) {
        let output = Command::new(env!("CARGO_BIN_EXE_gcs"))
            .args(["run", "--config"])
            .arg(config)
            .env("GCS_LOG", "error")
            .output()
            .unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    }

    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| child.try_wait().unwrap().is_none())
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(&self.log)
        {
            eprintln!("--- {}\n{log}", self.log.display());
        }
    }
}

/// One connection to a daemon.
/// So many replies are told when one is missing.
const HEARD_KEPT: usize = 4;

pub struct Link {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// The newest first: said when nothing more comes.
    heard: VecDeque<Reply>,
}

impl Link {
    /// Connects as soon as somebody listens.
    pub fn connect(socket: &Path) -> Link {
        let deadline = Instant::now() + PATIENCE;
        let stream = loop {
            match UnixStream::connect(socket) {
                Ok(stream) => break stream,
                // There is no event for a socket that is not there yet.
                Err(error) if Instant::now() > deadline => panic!("{}: {error}", socket.display()),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        };
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        Link { stream, buffer: Vec::new(), heard: VecDeque::new() }
    }

    pub fn hello(socket: &Path, role: Role, incarnation: Incarnation, group: Option<&str>) -> Link {
        let mut link = Link::connect(socket);
        link.send(
            &Request::Hello {
                protocol: link::PROTOCOL,
                role,
                database: if role == Role::Control { String::new() } else { "shop".to_owned() },
                group: group.map(str::to_owned),
                incarnation,
            },
            &[],
        );
        link
    }

    pub fn send(&mut self, request: &Request, payload: &[u8]) {
        let mut out = Vec::new();
        link::put_frame(&mut out, request, payload).unwrap();
        self.stream.write_all(&out).unwrap();
    }

    pub fn send_raw(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).unwrap();
    }

    /// The next reply; `None` at the end of the connection.
    pub fn receive(&mut self) -> Option<(Reply, Vec<u8>)> {
        loop {
            if let Some(length) = link::frame_len(&self.buffer).unwrap().filter(|length| *length <= self.buffer.len()) {
                let frame: Vec<u8> = self.buffer.drain(..length).collect();
                let (reply, payload) = link::decode_frame::<Reply>(&frame).unwrap();
                self.heard.push_front(reply.clone());
                self.heard.truncate(HEARD_KEPT);
                return Some((reply, payload.to_vec()));
            }
            let mut piece = vec![0; 64 << 10];
            match self.stream.read(&mut piece) {
                Ok(0) => return None,
                Ok(count) => self.buffer.extend_from_slice(&piece[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return None,
                // By a stop and its end, of this process or the whole machine.
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => panic!("no reply: {error}; the last were {:#?}", self.heard),
            }
        }
    }

    pub fn failure(&mut self) -> FailureKind {
        loop {
            match self.receive() {
                Some((Reply::Failed(failure), _)) => {
                    assert!(self.receive().is_none(), "the connection ends after a failure");
                    return failure.kind;
                }
                Some(_) => {}
                None => panic!("the connection ended without a failure"),
            }
        }
    }
}

/// A connection that fetches single writesets.
pub struct Fetcher {
    pub link: Link,
}

impl Fetcher {
    pub fn greet(socket: &Path) -> Fetcher {
        let mut link = Link::hello(socket, Role::Fetcher, Incarnation(0), Some("g"));
        assert!(matches!(link.receive(), Some((Reply::Welcome { .. }, _))));
        Fetcher { link }
    }

    pub fn ask(&mut self, position: Position) {
        self.link.send(&Request::Fetch { position }, &[]);
    }

    /// The parts of the next answer, which must be about `position`: the writeset, then its chunks.
    pub fn answer(&mut self, position: Position) -> Vec<Vec<u8>> {
        let mut parts = Vec::new();
        loop {
            let (reply, part) = self.link.receive().expect("the daemon closed the connection");
            let Reply::Body { position: of, more } = reply else { panic!("not an answer to a fetch: {reply:?}") };
            assert_eq!(of, position);
            parts.push(part);
            if !more {
                return parts;
            }
        }
    }

    pub fn fetch(&mut self, position: Position) -> Vec<Vec<u8>> {
        self.ask(position);
        self.answer(position)
    }
}

/// A position as a manager got it.
#[derive(Clone, Debug, PartialEq)]
pub struct Delivered {
    pub position: Position,
    pub tag: Tag,
    pub verdict: Verdict,
    pub payload: Vec<u8>,
    pub bodies: Vec<Vec<u8>>,
}

pub struct Manager {
    pub link: Link,
    pub incarnation: Incarnation,
    pub serve_from: Position,
    /// Frames that were not waited for, oldest first.
    skipped: VecDeque<(Reply, Vec<u8>)>,
    next: Position,
    sequence: u64,
    /// What was submitted, to be submitted again if it is refused.
    sent: BTreeMap<(SlotId, Sequence), Vec<u8>>,
    refused: Vec<(SlotId, Sequence)>,
}

impl Manager {
    pub fn attach(socket: &Path, incarnation: Incarnation, resume_after: Position) -> Manager {
        let mut manager = Manager::greet(socket, incarnation);
        manager.link.send(&Request::Attach { resume_after, founds: false, leaves: false, overwrite: false }, &[]);
        manager.next = resume_after.next();
        manager.serve_from = manager.wait_for(|reply| match reply {
            Reply::Attached { serve_from, .. } => Some(*serve_from),
            _ => None,
        });
        manager
    }

    pub fn greet(socket: &Path, incarnation: Incarnation) -> Manager {
        let link = Link::hello(socket, Role::Manager, incarnation, Some("g"));
        Manager {
            link,
            incarnation,
            serve_from: Position::ZERO,
            skipped: VecDeque::new(),
            next: Position(1),
            sequence: 0,
            sent: BTreeMap::new(),
            refused: Vec::new(),
        }
    }

    /// The first such reply from now on; what comes before it is kept for [`Manager::next_delivered`].
    pub fn wait_for<T>(&mut self, matches: impl Fn(&Reply) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let (reply, payload) = self.link.receive().expect("the daemon closed the connection");
            if let Some(found) = matches(&reply) {
                return found;
            }
            assert!(Instant::now() < deadline, "no such reply, but {reply:?}");
            self.skipped.push_back((reply, payload));
        }
    }

    fn next_frame(&mut self) -> (Reply, Vec<u8>) {
        let kept = self.skipped.pop_front();
        kept.unwrap_or_else(|| self.link.receive().expect("the daemon closed the connection"))
    }

    pub fn wait_for_status(&mut self, matches: impl Fn(&GroupStatus) -> bool) {
        self.wait_for(|reply| match reply {
            Reply::Group(status) if matches(status) => Some(()),
            _ => None,
        });
    }

    /// Submits for a backend that nothing else is submitted for: a backend waits for one verdict at a time.
    pub fn submit(&mut self, writeset: &[u8]) -> Sequence {
        self.sequence += 1;
        let sequence = Sequence(self.sequence);
        self.submit_for(SlotId(FIRST_OF_MANY + self.sequence as u32), sequence, writeset);
        sequence
    }

    /// Takes up the place of a manager whose daemon was killed, in the same life of its server.
    pub fn reattach(&mut self, socket: &Path) {
        let mut again = Manager::attach(socket, self.incarnation, self.next.previous());
        again.sequence = self.sequence;
        again.sent = std::mem::take(&mut self.sent);
        *self = again;
    }

    /// Submits for a backend of its own; again, if it is refused for want of a majority.
    pub fn submit_for(&mut self, slot: SlotId, sequence: Sequence, writeset: &[u8]) {
        self.sent.insert((slot, sequence), writeset.to_vec());
        self.link.send(&Request::Submit { slot, sequence }, writeset);
    }

    /// Does what a manager does with everything but the stream.
    fn other(&mut self, reply: Reply) {
        match reply {
            Reply::Refused { slot, sequence, .. } => {
                self.refused.push((slot, sequence));
                self.link.send(&Request::Status, &[]);
            }
            Reply::Group(status) if status.quorum => {
                for (slot, sequence) in std::mem::take(&mut self.refused) {
                    // What a test sent past `submit_for` is the test's to send again.
                    let Some(writeset) = self.sent.get(&(slot, sequence)) else { continue };
                    self.link.send(&Request::Submit { slot, sequence }, writeset);
                }
            }
            _ => {}
        }
    }

    /// The next position; positions must come without gap or duplicate.
    pub fn next_delivered(&mut self) -> Delivered {
        loop {
            let (reply, payload) = self.next_frame();
            let Reply::Ordered { position, tag, verdict, mut more } = reply else {
                self.other(reply);
                continue;
            };
            assert_eq!(position, self.next);
            self.next = position.next();
            let mut bodies = Vec::new();
            while more {
                match self.next_frame() {
                    (Reply::Body { position: of, more: further }, body) => {
                        assert_eq!(of, position);
                        bodies.push(body);
                        more = further;
                    }
                    (other, _) => self.other(other),
                }
            }
            return Delivered { position, tag, verdict, payload, bodies };
        }
    }

    pub fn delivered(&mut self, count: usize) -> Vec<Delivered> {
        (0..count).map(|_| self.next_delivered()).collect()
    }
}

/// A writeset that updates the row with this key, read at `base`.
pub fn writeset(key: u64, base: Position) -> Vec<u8> {
    writeset_with(key, base, 0, format!("body of {key}").as_bytes())
}

pub fn writeset_with(key: u64, base: Position, chunks: u32, body: &[u8]) -> Vec<u8> {
    let groups = vec![KeyGroup { base, exclusive: vec![Key(key)], ..KeyGroup::default() }];
    Envelope { groups, chunks, oldest_base: base, ..Default::default() }.encode(body)
}

/// The stream without what may differ between nodes: payloads are left out for the one that submitted.
pub fn order(delivered: &[Delivered]) -> Vec<(Position, Tag, Verdict)> {
    delivered.iter().map(|one| (one.position, one.tag, one.verdict)).collect()
}
