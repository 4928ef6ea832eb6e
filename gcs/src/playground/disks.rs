//! The disks of a playground that was made with `start --disk-size MB`, one a node, and `gcs playground fault fill`.
//!
//! It is made so, or not: the manifest says. Where it is, a node's directory is a mount point ([`super::disk`]) from before the first process of the
//! node starts until after the last one has ended. Every command that starts a process of a node therefore mounts first, and `stop` unmounts last.

use std::fs;

use super::disk::Disk;
use super::group::Playground;
use super::manifest::NodeNumber;
use super::{Error, Result};

impl Playground {
    /// `None` where the nodes share the machine's disk.
    fn disk(&self, number: NodeNumber) -> Option<Disk> {
        self.manifest.disk_size?;
        let home = self.paths.node(self.name(number));
        Some(Disk { image: self.paths.image(self.name(number)), home })
    }

    /// A new node's directory: the account's, empty, and on a disk of its own if this playground has such. When it fails, there is none.
    pub(super) fn make_home(&self, number: NodeNumber) -> Result<()> {
        let home = self.paths.node(self.name(number));
        fs::create_dir(&home).map_err(Error::file("create", &home))?;
        if let (Some(disk), Some(size)) = (self.disk(number), self.manifest.disk_size)
            && let Err(error) = disk.make(size)
        {
            let _ = fs::remove_dir(&home);
            return Err(error);
        }
        self.account.give(&home)
    }

    /// Does nothing if it is mounted, or if there is none.
    pub(super) fn mount_disk(&self, number: NodeNumber) -> Result<()> {
        self.disk(number).map_or(Ok(()), |disk| disk.mount())
    }

    /// All of them, or none.
    pub(super) fn mount_disks(&self) -> Result<()> {
        self.on_all(|number| self.mount_disk(number)).map_err(|error| error.and(self.unmount_disks()))
    }

    /// When no process of the node runs.
    pub(super) fn unmount_disk(&self, number: NodeNumber) -> Result<()> {
        self.disk(number).map_or(Ok(()), |disk| disk.unmount())
    }

    pub(super) fn unmount_disks(&self) -> Result<()> {
        self.on_all(|number| self.unmount_disk(number))
    }

    /// Takes all the room that is left on the node's disk, until [`Playground::heal`].
    pub fn fill(&self, number: NodeNumber) -> Result<()> {
        self.check(number)?;
        let (name, dir) = (self.name(number), self.paths.dir.display());
        let Some(disk) = self.disk(number) else {
            return Err(Error::usage(format!(
                "the playground in {dir} was made without --disk-size: its nodes share one disk"
            ))
            .hint("Make another, as root, with: gcs playground start --disk-size MB --dir DIR"));
        };
        if disk.is_filled() {
            return Err(Error::failed(format!("the disk of {name} is filled already"))
                .hint(format!("To give it room: {}", self.heal_command(number))));
        }
        disk.fill()
    }

    /// The node's disk has room again, if it was filled.
    pub(super) fn empty_disk(&self, number: NodeNumber) -> Result<()> {
        self.disk(number).map_or(Ok(()), |disk| disk.empty())
    }

    /// What to type.
    pub(super) fn heal_command(&self, number: NodeNumber) -> String {
        format!("gcs playground fault heal {} --dir {}", number.0, self.paths.dir.display())
    }

    pub fn is_filled(&self, number: NodeNumber) -> bool {
        self.disk(number).is_some_and(|disk| disk.is_filled())
    }
}

#[cfg(test)]
mod tests {
    use super::super::account::Account;
    use super::super::error::Kind;
    use super::super::manifest::{Manifest, NodeEntry, Paths};
    use super::*;

    /// It was stopped, and nothing is mounted.
    fn playground(dir: &std::path::Path, disk_size: Option<u64>) -> Playground {
        let node = NodeEntry {
            name: "node1".into(),
            port: 6001,
            peer_port: 6101,
            listen_port: None,
            http_port: None,
            joined: false,
            place: None,
            role: None,
            postgres_bin: None,
        };
        let manifest = Manifest::new("postgresr", "shop", vec![node], "/bin".into(), "/bin/gcs".into());
        let manifest = Manifest { disk_size: disk_size.map(|megabytes| megabytes.try_into().unwrap()), ..manifest };
        fs::create_dir(dir.join("node1")).unwrap();
        fs::write(dir.join("node1.disk"), "").unwrap();
        Playground { paths: Paths::of(dir).unwrap(), manifest, account: Account::choose().unwrap() }
    }

    #[test]
    fn where_nodes_share_one_disk_none_is_filled_and_there_is_nothing_to_heal() {
        let dir = tempfile::tempdir().unwrap();
        let playground = playground(dir.path(), None);
        let error = playground.fill(NodeNumber(1)).unwrap_err();
        assert_eq!(error.kind, Kind::Usage);
        assert!(error.message.contains("was made without --disk-size"), "{error}");
        assert!(error.hint.unwrap().contains("start --disk-size MB"));
        for number in [None, Some(NodeNumber(1))] {
            let error = playground.heal(number).unwrap_err();
            assert_eq!(error.kind, Kind::Usage);
            assert!(error.message.contains("without --faults and without --disk-size"), "{error}");
        }
        assert!(!playground.is_filled(NodeNumber(1)));
    }

    #[test]
    fn what_is_filled_is_named_and_healing_it_takes_no_links() {
        let dir = tempfile::tempdir().unwrap();
        let playground = playground(dir.path(), Some(500));
        assert!(playground.fill(NodeNumber(1)).unwrap_err().message.ends_with("node1 is not mounted"));
        assert!(playground.fill(NodeNumber(2)).unwrap_err().message.contains("there is no node 2"));
        fs::write(dir.path().join("node1/.fill"), "").unwrap();
        assert!(playground.is_filled(NodeNumber(1)));
        let error = playground.fill(NodeNumber(1)).unwrap_err();
        assert!(error.message.contains("the disk of node1 is filled already"), "{error}");
        assert!(error.hint.unwrap().contains("fault heal 1 --dir "));
        playground.heal(None).unwrap();
        assert!(!playground.is_filled(NodeNumber(1)));
        assert!(playground.heal(Some(NodeNumber(2))).unwrap_err().message.contains("there is no node 2"));
    }
}
