//! Whose data directory this is. A directory of another node or group must never be opened: it holds other promises.
//!
//! ```text
//! gcs data directory, format 2
//! node <name>
//! group <name>
//! directory <16 hex digits>       drawn when the directory was made: no two are the same
//! generation <n>                  for the how manieth time the node's name is in the group
//! founder <name> <address> [<role>]  what the group's log began with, one line each; none before the node has joined. The role of one that is not full
//! ```
//!
//! Format 1 held the founders' names only; the addresses are then the configuration's.

use std::fs::File;
use std::path::{Path, PathBuf};

use gcs_core::Founder;
use gcs_writeset::{NodeId, NodeKind};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};

use super::{LogError, write_atomically};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    pub node: String,
    pub group: String,
    pub directory: u64,
    pub generation: u32,
    /// Sorted by name. Empty while the node has yet to join.
    pub founders: Vec<Founder>,
}

const FORMAT: &str = "gcs data directory, format 2";
const FORMAT_OF_NAMES: &str = "gcs data directory, format 1";

/// What an identity file says.
enum Found {
    Nothing,
    Whole(Identity),
    /// Format 1: a node, a group, and the names of its members.
    Names {
        node: String,
        group: String,
        names: Vec<String>,
    },
}

impl Identity {
    /// The Raft id that goes with it.
    pub fn id(&self) -> NodeId {
        NodeId::of_member(&self.node, self.generation)
    }

    /// Claims a new directory for this identity, or gives back the one that the directory has, if it is of the same node and group. What
    /// the group is, the directory then knows better.
    pub fn claim(self, directory: &Path) -> Result<Identity, LogError> {
        match read(directory)? {
            Found::Nothing => {
                self.write(directory)?;
                Ok(self)
            }
            Found::Whole(found) => {
                self.check(directory, &found.node, &found.group)?;
                Ok(found)
            }
            Found::Names { node, group, names } => {
                self.check(directory, &node, &group)?;
                let ours: Vec<&str> = self.founders.iter().map(|founder| founder.name.as_str()).collect();
                if names != ours {
                    let (theirs, ours) = (names.join(" "), ours.join(" "));
                    let message = format!("belongs to a group of \"{theirs}\", but the configuration says \"{ours}\"");
                    return Err(not_ours(directory, message));
                }
                self.write(directory)?;
                Ok(self)
            }
        }
    }

    /// Whether nobody has claimed the directory yet.
    pub fn is_missing(directory: &Path) -> Result<bool, LogError> {
        Ok(matches!(read(directory)?, Found::Nothing))
    }

    pub fn write(&self, directory: &Path) -> Result<(), LogError> {
        let Identity { node, group, directory: number, generation, founders } = self;
        let founders: String = founders.iter().map(founder_line).collect();
        let text =
            format!("{FORMAT}\nnode {node}\ngroup {group}\ndirectory {number:016x}\ngeneration {generation}\n{founders}");
        write_atomically(&directory.join("identity"), text.as_bytes())
    }

    fn check(&self, directory: &Path, node: &str, group: &str) -> Result<(), LogError> {
        let differs = |what: &str, theirs: &str, ours: &str| {
            let message = format!("belongs to \"{what} {theirs}\", but the configuration says \"{what} {ours}\"");
            Err(not_ours(directory, message))
        };
        if node != self.node {
            return differs("node", node, &self.node);
        }
        if group != self.group {
            return differs("group", group, &self.group);
        }
        Ok(())
    }
}

fn read(directory: &Path) -> Result<Found, LogError> {
    let path = directory.join("identity");
    match std::fs::read_to_string(&path) {
        Ok(text) => parse(&text).ok_or_else(|| not_ours(directory, "has a damaged identity file".to_owned())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if directory.join("log").exists() {
                return Err(not_ours(directory, "has a log but no identity file".to_owned()));
            }
            Ok(Found::Nothing)
        }
        Err(source) => Err(LogError::Io { action: "read", path, source }),
    }
}

fn parse(text: &str) -> Option<Found> {
    let mut lines = text.lines();
    let format = lines.next()?;
    let node = lines.next()?.strip_prefix("node ")?.to_owned();
    let group = lines.next()?.strip_prefix("group ")?.to_owned();
    if format == FORMAT_OF_NAMES {
        let names = lines.next()?.strip_prefix("members ")?.split(' ').map(str::to_owned).collect();
        return Some(Found::Names { node, group, names });
    }
    if format != FORMAT {
        return None;
    }
    let directory = u64::from_str_radix(lines.next()?.strip_prefix("directory ")?, 16).ok()?;
    let generation = lines.next()?.strip_prefix("generation ")?.parse().ok()?;
    let founders: Option<Vec<Founder>> = lines.map(founder).collect();
    Some(Found::Whole(Identity { node, group, directory, generation, founders: founders? }))
}

fn founder(line: &str) -> Option<Founder> {
    let (name, rest) = line.strip_prefix("founder ")?.split_once(' ')?;
    let (address, kind) = match rest.split_once(' ') {
        Some((address, kind)) => (address, NodeKind::named(kind)?),
        None => (rest, NodeKind::Full),
    };
    Some(Founder { node: NodeId::of_name(name), name: name.to_owned(), address: address.to_owned(), kind })
}

fn founder_line(Founder { name, address, kind, .. }: &Founder) -> String {
    match kind {
        NodeKind::Full => format!("founder {name} {address}\n"),
        kind => format!("founder {name} {address} {}\n", kind.name()),
    }
}

fn not_ours(path: &Path, message: String) -> LogError {
    LogError::NotOurs { path: path.to_owned(), message }
}

/// Keeps a second daemon out of the directory while it lives.
#[derive(Debug)]
pub struct DirectoryLock {
    _lock: Flock<File>,
}

impl DirectoryLock {
    /// Creates the directory if need be, and locks it.
    pub fn take(directory: &Path) -> Result<DirectoryLock, LogError> {
        std::fs::create_dir_all(directory).map_err(LogError::io("create directory", directory))?;
        let path: PathBuf = directory.join("lock");
        let file =
            File::options().create(true).truncate(false).write(true).open(&path).map_err(LogError::io("open", &path))?;
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(DirectoryLock { _lock: lock }),
            Err((_, Errno::EWOULDBLOCK)) => Err(LogError::InUse(directory.to_owned())),
            Err((_, errno)) => Err(LogError::Io { action: "lock", path, source: errno.into() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(node: &str) -> Identity {
        let mut founders = ["n1", "n2"].map(|name| founder(&format!("founder {name} h:{name}")).unwrap()).to_vec();
        founders.push(founder("founder n3 h:n3 witness").unwrap());
        Identity { node: node.to_owned(), group: "g".to_owned(), directory: 0xfeed, generation: 2, founders }
    }

    #[test]
    fn a_directory_remembers_whose_it_is_and_what_its_group_began_with() {
        let directory = tempfile::tempdir().unwrap();
        assert!(Identity::is_missing(directory.path()).unwrap());
        let first = identity("n1").claim(directory.path()).unwrap();
        let again = Identity { directory: 1, generation: 0, founders: Vec::new(), ..identity("n1") };
        assert_eq!(again.claim(directory.path()).unwrap(), first);
        let error = identity("n2").claim(directory.path()).unwrap_err().to_string();
        assert!(error.contains("belongs to \"node n1\", but the configuration says \"node n2\""), "{error}");
    }

    #[test]
    fn a_directory_from_before_the_membership_could_change_is_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("identity");
        std::fs::write(&file, "gcs data directory, format 1\nnode n1\ngroup g\nmembers n1 n2 n3\n").unwrap();
        let taken = identity("n1").claim(directory.path()).unwrap();
        assert_eq!(taken, identity("n1"));
        assert!(std::fs::read_to_string(&file).unwrap().starts_with(FORMAT));
        std::fs::write(&file, "gcs data directory, format 1\nnode n1\ngroup g\nmembers n1 n4\n").unwrap();
        let error = identity("n1").claim(directory.path()).unwrap_err().to_string();
        assert!(error.contains("n1 n4") && error.contains("n1 n2"), "{error}");
    }

    #[test]
    fn a_damaged_file_and_a_log_without_one_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("log")).unwrap();
        assert!(identity("n1").claim(directory.path()).unwrap_err().to_string().contains("no identity file"));
        std::fs::write(directory.path().join("identity"), "gcs data directory, format 2\nnode n1\n").unwrap();
        assert!(identity("n1").claim(directory.path()).unwrap_err().to_string().contains("damaged"));
    }
}
