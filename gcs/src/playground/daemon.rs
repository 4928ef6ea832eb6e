//! One daemon: configured, started, stopped, asked.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use gcs_writeset::link::GroupStatus;

use crate::control::ControlError;
use crate::copy::MARK;
use crate::status;

use super::account::Account;
use super::cluster::{Cluster, last_complaint};
use super::manifest::NodeEntry;
use super::process::{Process, Signal};
use super::{Error, Result};

const START_MAX: Duration = Duration::from_secs(30);
const STOP_MAX: Duration = Duration::from_secs(20);
/// Between two looks at whether a starting daemon answers.
const LOOK_EVERY: Duration = Duration::from_millis(20);

#[derive(Clone, Debug)]
pub struct Daemon {
    /// The program, where the account can run it.
    pub binary: PathBuf,
    pub account: Account,
    /// Holds the configuration, log, socket and data. Must exist and belong to the account.
    pub home: PathBuf,
    /// Words before the program, see [`super::manifest::Place`].
    pub launcher: Vec<String>,
    /// How much of the log it is to keep, in bytes, if not as much as by itself.
    pub log_retention: Option<u64>,
}

impl Daemon {
    pub fn socket(&self) -> PathBuf {
        self.home.join("gcs.sock")
    }

    pub fn log(&self) -> PathBuf {
        self.home.join("gcs.log")
    }

    fn config(&self) -> PathBuf {
        self.home.join("gcs.toml")
    }

    fn pid_file(&self) -> PathBuf {
        self.home.join("gcs.pid")
    }

    /// Writes the configuration of the node `me` among `nodes`; `server` is to become a copy of another node's.
    pub fn configure(&self, group: &str, me: &NodeEntry, nodes: &[NodeEntry], server: Option<&Cluster>) -> Result<()> {
        let mut text = format!(
            "# Written by gcs playground.\nname = {}\ngroup = {}\ndata_directory = {}\nlocal_socket = {}\npeer_address = {}\n",
            quote(&me.name),
            quote(group),
            quote(&self.home.join("gcs").display().to_string()),
            quote(&self.socket().display().to_string()),
            quote(&listen_address(me)),
        );
        if nodes.iter().any(|node| node.place.is_some()) {
            // Networks inside of one machine.
            text += "allow_plaintext = true\n";
        }
        if let Some(port) = me.http_port {
            text += &format!("http_address = \"127.0.0.1:{port}\"\n");
        }
        if let Some(bytes) = self.log_retention {
            text += &format!("log_retention = \"{bytes} B\"\n");
        }
        if let Some(role) = &me.role {
            text += &format!("role = {}\n", quote(role));
        }
        let others = nodes.iter().filter(|node| node.name != me.name);
        if me.joined {
            let addresses: Vec<String> = others.clone().map(|node| quote(&peer_address(node))).collect();
            text += &format!("join = [{}]\n", addresses.join(", "));
        }
        // Those that the group began with; itself if the others find it elsewhere than where it listens.
        let itself = Some(me).filter(|me| listen_address(me) != peer_address(me));
        for peer in others.filter(|_| !me.joined).chain(itself) {
            text += &format!("\n[[peers]]\nname = {}\naddress = {}\n", quote(&peer.name), quote(&peer_address(peer)));
        }
        if let Some(server) = server {
            let [data, programs] = [server.data(), server.bin.clone()].map(|path| quote(&path.display().to_string()));
            text += &format!("\n[postgresql]\ndata_directory = {data}\nprograms = {programs}\nstart = []\n");
        }
        let file = self.config();
        fs::write(&file, text).map_err(Error::file("write", &file))?;
        self.account.give(&file)
    }

    /// Whether this is the data directory of a server, and not half a copy.
    pub fn has_copied(&self, data: &Path) -> bool {
        data.join("PG_VERSION").exists() && !self.home.join("gcs").join(MARK).exists()
    }

    pub fn process(&self) -> Option<Process> {
        let text = fs::read_to_string(self.pid_file()).ok()?;
        Process::find(text.trim().parse().ok()?, &self.home)
    }

    /// Returns once it answers on its local socket. Does nothing if it runs.
    pub fn start(&self) -> Result<()> {
        if self.process().is_some() {
            return Ok(());
        }
        let log = self.open_log()?;
        let log_before = log.metadata().map_or(0, |meta| meta.len());
        let (stdout, stderr) = (log.try_clone().map_err(Error::file("open", &self.log()))?, log);
        let mut command = match self.launcher.split_first() {
            None => self.account.command(&self.binary, &self.home),
            Some((first, others)) => {
                let mut command = Account::own_command(Path::new(first), &self.home);
                command.args(others).arg(&self.binary);
                command
            }
        };
        command.arg("run").arg("--config").arg(self.config()).stdout(stdout).stderr(stderr);
        let mut child =
            command.spawn().map_err(|error| Error::failed(format!("could not run {}: {error}", self.binary.display())))?;
        let pid = child.id() as i32;
        if let Err(error) = fs::write(self.pid_file(), format!("{pid}\n")) {
            // Its disk may be full. Nobody would find it without.
            let _ = child.kill().and_then(|()| child.wait());
            return Err(Error::file("write", &self.pid_file())(error));
        }
        reap(child);
        self.wait_answering(pid, log_before)
    }

    fn open_log(&self) -> Result<File> {
        let path = self.log();
        let log = OpenOptions::new().create(true).append(true).open(&path).map_err(Error::file("open", &path))?;
        self.account.give(&path)?;
        Ok(log)
    }

    fn wait_answering(&self, pid: i32, log_before: u64) -> Result<()> {
        let deadline = Instant::now() + START_MAX;
        let hint = format!("Its log is {}.", self.log().display());
        loop {
            let last_error = match self.status() {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            match Process::find(pid, &self.home) {
                Some(process) if !process.wait_until(Instant::now() + LOOK_EVERY) => {}
                _ => {
                    let reason = last_complaint(&self.log(), log_before).unwrap_or_else(|| "it left no message".to_owned());
                    return Err(Error::failed(format!("the daemon of {} ended: {reason}", self.name())).hint(hint));
                }
            }
            if Instant::now() > deadline {
                let seconds = START_MAX.as_secs();
                let message = format!("the daemon of {} did not answer within {seconds} s: {last_error}", self.name());
                return Err(Error::failed(message).hint(hint));
            }
        }
    }

    /// True if it ended by itself in time.
    pub fn stop(&self) -> bool {
        let Some(process) = self.process() else { return true };
        process.signal(Signal::TERM);
        process.wait_until(Instant::now() + STOP_MAX) || {
            process.signal(Signal::KILL);
            process.wait_until(Instant::now() + STOP_MAX);
            false
        }
    }

    /// The group as this daemon sees it.
    pub fn status(&self) -> std::result::Result<GroupStatus, ControlError> {
        status::ask(&self.socket())
    }

    fn name(&self) -> String {
        self.home.file_name().unwrap_or_default().display().to_string()
    }
}

/// Copies the daemon's program to where the account can run it.
pub fn copy_program(from: &Path, directory: &Path) -> Result<PathBuf> {
    fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
    let to = directory.join("gcs");
    fs::copy(from, &to).map_err(Error::file("copy", from))?;
    for path in [directory, &to] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).map_err(Error::file("change the mode of", path))?;
    }
    Ok(to)
}

/// A child that ends must be waited for by its parent, or it stays behind as a zombie; we may live longer than it.
pub(super) fn reap(mut child: Child) {
    std::thread::spawn(move || drop(child.wait()));
}

pub(super) fn listen_address(node: &NodeEntry) -> String {
    let port = node.listen_port.unwrap_or(node.peer_port);
    node.place.as_ref().map_or_else(|| format!("127.0.0.1:{port}"), |place| place.listen.clone())
}

/// Where the others find it.
pub(super) fn peer_address(node: &NodeEntry) -> String {
    node.place.as_ref().map_or_else(|| format!("127.0.0.1:{}", node.peer_port), |place| place.address.clone())
}

/// A TOML basic string.
fn quote(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Place;
    use super::*;
    use crate::config::Config;

    #[test]
    fn the_daemon_understands_the_configuration_it_is_given() {
        let home = tempfile::tempdir().unwrap();
        let node = |number: u16| NodeEntry {
            name: format!("node{number}"),
            port: 6000 + number,
            peer_port: 6100 + number,
            listen_port: None,
            http_port: Some(6300 + number),
            joined: number > 3,
            place: None,
            role: None,
            postgres_bin: None,
        };
        let (account, home) = (Account::choose().unwrap(), home.path().to_owned());
        let log_retention = Some(70_000_000);
        let daemon = Daemon { binary: "gcs".into(), account, home, launcher: Vec::new(), log_retention };
        daemon.configure("postgresr", &node(2), &[node(1), node(2), node(3)], None).unwrap();
        let config = Config::load(&daemon.config()).unwrap();
        assert_eq!((config.name.as_str(), config.members.len()), ("node2", 3));
        assert_eq!(config.local_socket, daemon.socket());
        assert_eq!(config.http_address.as_deref(), Some("127.0.0.1:6302"));
        assert_eq!(config.log_retention, 70_000_000);
        daemon.configure("postgresr", &node(4), &[node(1), node(2), node(3), node(4)], None).unwrap();
        assert_eq!(Config::load(&daemon.config()).unwrap().join.len(), 3);
        let (listen, address) = ("10.0.0.2:7000".to_owned(), "10.0.0.9:7002".to_owned());
        let elsewhere = NodeEntry { place: Some(Place { launcher: Vec::new(), listen, address }), ..node(2) };
        daemon.configure("postgresr", &elsewhere, &[node(1), elsewhere.clone()], None).unwrap();
        let config = Config::load(&daemon.config()).unwrap();
        assert_eq!((config.peer_address.as_str(), config.address.as_str()), ("10.0.0.2:7000", "10.0.0.9:7002"));
        for number in [2, 4] {
            let relayed = NodeEntry { listen_port: Some(6202), ..node(number) };
            daemon.configure("postgresr", &relayed, &[node(1), relayed.clone()], None).unwrap();
            let config = Config::load(&daemon.config()).unwrap();
            let address = format!("127.0.0.1:610{number}");
            assert_eq!((config.peer_address.as_str(), config.address), ("127.0.0.1:6202", address));
        }
    }
}
