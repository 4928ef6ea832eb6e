//! The manifest, playground.json: what was made. And where each thing stands.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::disk::DiskSize;
use super::{Error, Result};

const MANIFEST_VERSION: u32 = 1;
/// A Unix socket's path ends at 107 bytes; this much of it is below DIR ("/node8/.s.PGSQL.65535").
const SOCKET_PATH_MAX: usize = 107;
const SOCKET_TAIL: usize = 21;

/// Counts from 1, as on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeNumber(pub usize);

impl NodeNumber {
    pub fn index(self) -> usize {
        self.0 - 1
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    pub version: u32,
    pub group: String,
    pub database: String,
    pub nodes: Vec<NodeEntry>,
    /// PostgreSQL's programs.
    pub postgres_bin: PathBuf,
    /// The daemon's program.
    pub gcs: PathBuf,
    /// Lines for every node's postgresql.conf, those that are added later too.
    #[serde(default)]
    pub settings: String,
    /// Of each node's own disk; none: they share the machine's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_size: Option<DiskSize>,
    /// False from `stop` to the next `start`.
    pub running: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    pub name: String,
    pub port: u16,
    /// Where the other daemons find its daemon.
    pub peer_port: u16,
    /// Where its daemon listens, if a relay stands at the port above.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub listen_port: Option<u16>,
    /// Where its daemon tells metrics and health, on loopback; none in playgrounds that were made before there was that, or in another network.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http_port: Option<u16>,
    /// It came when the group was there already.
    #[serde(default)]
    pub joined: bool,
    /// Where its daemon runs, if not simply here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub place: Option<Place>,
    /// Not full, but this.
    #[serde(default)]
    pub role: Option<String>,
    /// PostgreSQL's programs, if not the group's: while it is upgraded, nodes have other versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub postgres_bin: Option<PathBuf>,
}

/// Where a daemon runs and is found: for programs that put each into a network of its own.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Place {
    /// Words before the daemon's program, run as the caller: they enter the place, and become the unprivileged user.
    pub launcher: Vec<String>,
    /// Where it listens, and where the others find it.
    pub listen: String,
    pub address: String,
}

impl Manifest {
    pub fn new(group: &str, database: &str, nodes: Vec<NodeEntry>, postgres_bin: PathBuf, gcs: PathBuf) -> Manifest {
        let (group, database) = (group.to_owned(), database.to_owned());
        let (settings, disk_size) = (String::new(), None);
        Manifest { version: MANIFEST_VERSION, group, database, nodes, postgres_bin, gcs, settings, disk_size, running: true }
    }

    /// Whether a relay stands between the daemons.
    pub fn is_relayed(&self) -> bool {
        self.nodes.iter().any(|node| node.listen_port.is_some())
    }

    pub fn load(paths: &Paths) -> Result<Manifest> {
        let file = paths.manifest();
        let text = fs::read_to_string(&file).map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::usage(format!("{} is not a playground", paths.dir.display()))
                .hint("Make one with: gcs playground start --dir DIR"),
            _ => Error::failed(format!("could not read {}: {error}", file.display())),
        })?;
        let manifest: Manifest = serde_json::from_str(&text).map_err(Error::file("understand", &file))?;
        if manifest.version != MANIFEST_VERSION {
            let message =
                format!("{} is of version {}, this program's is {MANIFEST_VERSION}", file.display(), manifest.version);
            return Err(Error::usage(message).hint("Use the gcs that made it, or start a new playground elsewhere."));
        }
        Ok(manifest)
    }

    /// Written whole or not at all: a reader never sees half of it.
    pub fn save(&self, paths: &Paths) -> Result<()> {
        let (file, draft) = (paths.manifest(), paths.dir.join("playground.json.new"));
        let text = serde_json::to_string_pretty(self).map_err(Error::file("write", &file))?;
        fs::write(&draft, text + "\n").map_err(Error::file("write", &draft))?;
        fs::rename(&draft, &file).map_err(Error::file("write", &file))
    }
}

/// Where everything stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    pub dir: PathBuf,
}

impl Paths {
    /// `dir` must exist. Links are followed, since processes report their working directory that way.
    pub fn of(dir: &Path) -> Result<Paths> {
        let dir = dir.canonicalize().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Error::usage(format!("{} does not exist", dir.display())),
            _ => Error::failed(format!("could not open {}: {error}", dir.display())),
        })?;
        if dir.as_os_str().len() + SOCKET_TAIL > SOCKET_PATH_MAX {
            return Err(Error::usage(format!("the path of {} is too long for Unix sockets below it", dir.display()))
                .hint(format!("Give a --dir of at most {} bytes.", SOCKET_PATH_MAX - SOCKET_TAIL)));
        }
        Ok(Paths { dir })
    }

    pub fn manifest(&self) -> PathBuf {
        self.dir.join("playground.json")
    }

    pub fn node(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// What the node's disk is inside of, if it has one of its own.
    pub fn image(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.disk"))
    }

    /// Held by a command while it changes anything, so that two do not cross each other; freed on drop.
    pub fn lock(&self) -> Result<File> {
        lock(&self.dir.join("playground.lock"))
    }
}

/// Waits until nobody else has it; freed on drop.
pub(super) fn lock(path: &Path) -> Result<File> {
    let file = File::create(path).map_err(Error::file("open", path))?;
    file.lock().map_err(Error::file("lock", path))?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::playground::error::Kind;

    #[test]
    fn what_is_saved_is_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::of(dir.path()).unwrap();
        let node = NodeEntry {
            name: "node1".into(),
            port: 6001,
            peer_port: 6101,
            listen_port: Some(6201),
            http_port: None,
            joined: false,
            place: None,
            role: None,
            postgres_bin: None,
        };
        let manifest = Manifest::new("postgresr", "shop", vec![node], "/bin".into(), "/bin/gcs".into());
        manifest.save(&paths).unwrap();
        assert_eq!(Manifest::load(&paths).unwrap(), manifest);
        assert!(
            !fs::read_to_string(paths.manifest()).unwrap().contains("disk_size"),
            "as manifests were before there were disks"
        );
        let manifest = Manifest { disk_size: Some(DiskSize::try_from(500).unwrap()), ..manifest };
        manifest.save(&paths).unwrap();
        assert_eq!(Manifest::load(&paths).unwrap(), manifest);
    }

    #[test]
    fn another_directory_is_not_taken_for_a_playground() {
        let dir = tempfile::tempdir().unwrap();
        let error = Manifest::load(&Paths::of(dir.path()).unwrap()).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.message.ends_with("is not a playground"), "{error}");
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_refused_before_anything_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let long = dir.path().join("x".repeat(100));
        fs::create_dir(&long).unwrap();
        assert!(Paths::of(&long).unwrap_err().message.contains("too long"));
    }
}
