//! One node's disk: a file system of the node's own, which can be full while the disks of all others are not.
//!
//! What fills a disk takes the room from everybody who writes to it. So a node whose disk is to be full needs a disk that nobody shares with it,
//! and on one machine that is a file system inside of an ordinary file (the *image*), mounted at the node's directory:
//!
//! ```text
//! DIR/node1.disk      the image: as long as the disk is to be large; it takes up no more room than has been written to it
//! DIR/node1           the file system that is in it: the cluster, the daemon's log, their sockets, all that the node keeps
//! DIR/node1/.fill     the *filler*, there while the disk is full: it has all blocks that were free, and nobody reads it
//! ```
//!
//! The filler is not written but allocated (`posix_fallocate`), in pieces that get smaller until not one block is left: that is done in a moment,
//! and the image does not grow by it. The file system keeps nothing back for root, so what root has taken nobody else can have.
//!
//! Invariants:
//! - A filler is only ever made on the node's own file system. On any other it would fill the machine's disk, so the open file itself is asked where
//!   it is, not its path.
//! - Whoever mounts begins without a filler: like all faults of a playground, a full disk does not outlive `stop`.
//! - Unmounted is what nobody uses any more. Never lazily: what is still in use is named to the caller.
//!
//! Knows nothing of nodes and groups ([`super::disks`] does).
//!
//! Left out on purpose: disks that are slow, or fail, or lose what was flushed; disks without inodes; a disk of the daemon alone
//! (`gcs/tests/daemon_disk_full.rs` has one).

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use nix::unistd::Uid;
use serde::{Deserialize, Serialize};

use super::account::Account;
use super::{Error, Result};
use crate::bounds::LOG_RETENTION_MIN;

/// Measured: of 400 MB the file system itself takes 50. A new node takes 175 (25 are its tables, 18 WAL, 67 the daemon's log, 64 its reserve), and 240 when
/// log and WAL are as large as they get. That leaves 100 for tables. With 300 MB a node whose disk was not filled ran out of room all the same.
const MEGABYTES_MIN: u64 = 400;
const MEGABYTES_MAX: u64 = 1_000_000;

/// Of the file system; the smallest piece that can be taken of it.
const BLOCK_BYTES: i64 = 4096;
/// The first piece of a filler.
const PIECE_BYTES_MAX: i64 = 1 << 30;

/// How long somebody who only looks (`status`) may keep a file system from being unmounted.
const UNMOUNT_MAX: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

const MOUNT_HINT: &str =
    "To mount takes root's rights and a loop device (/dev/loop0 and on); in a container both have to be given to it.";

/// Where Debian keeps `mkfs.ext4`, which is not in everybody's PATH.
const MORE_PATH: &str = "/usr/sbin:/sbin:/usr/bin:/bin";

/// How large each node's disk is, in whole megabytes (10^6 bytes).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "u64", into = "u64")]
pub struct DiskSize(u64);

impl DiskSize {
    pub fn megabytes(self) -> u64 {
        self.0
    }

    fn bytes(self) -> u64 {
        self.0 * 1_000_000
    }

    /// What a node writes for those that are away must not fill its own disk: when one disk is full, the others are to go on. The daemon's log and
    /// PostgreSQL's WAL get an eighth each.
    pub fn log_retention(self) -> u64 {
        (self.bytes() / 8).max(LOG_RETENTION_MIN)
    }

    /// Lines for postgresql.conf.
    pub fn wal_settings(self) -> String {
        format!("min_wal_size = '32MB'\nmax_wal_size = '{}MB'\n", self.megabytes() / 8)
    }
}

impl TryFrom<u64> for DiskSize {
    type Error = String;

    fn try_from(megabytes: u64) -> std::result::Result<DiskSize, String> {
        if (MEGABYTES_MIN..=MEGABYTES_MAX).contains(&megabytes) {
            return Ok(DiskSize(megabytes));
        }
        Err(format!("a node needs a disk of {MEGABYTES_MIN} to {MEGABYTES_MAX} MB"))
    }
}

impl From<DiskSize> for u64 {
    fn from(size: DiskSize) -> u64 {
        size.0
    }
}

impl FromStr for DiskSize {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<DiskSize, String> {
        text.parse::<u64>().map_err(|_| "must be a whole number of megabytes".to_owned())?.try_into()
    }
}

/// Fails for everybody but root.
pub fn check_allowed() -> Result<()> {
    if Uid::effective().is_root() {
        return Ok(());
    }
    Err(Error::usage("only root can give each node a disk of its own (--disk-size)")
        .hint("Each disk is a file system that has to be mounted. Run this as root, or without --disk-size."))
}

#[derive(Clone, Debug)]
pub struct Disk {
    pub image: PathBuf,
    /// Where it is mounted: a directory that exists.
    pub home: PathBuf,
}

impl Disk {
    /// Makes the image, with an empty file system in it, and mounts it. When it fails, there is none; an image that was there before stays.
    pub fn make(&self, size: DiskSize) -> Result<()> {
        let image = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.image);
        let image = image.map_err(Error::file("create", &self.image))?;
        let sized = image.set_len(size.bytes()).map_err(Error::file("write", &self.image));
        let made = sized.and_then(|()| self.make_file_system()).and_then(|()| self.mount());
        made.inspect_err(|_| drop(fs::remove_file(&self.image)))
    }

    /// Nothing is kept back for root (-m 0), and nothing is left to be written later.
    fn make_file_system(&self) -> Result<()> {
        let block = BLOCK_BYTES.to_string();
        let options = ["-q", "-F", "-m", "0", "-b", &block, "-E", "lazy_itable_init=0,lazy_journal_init=0"];
        run("mkfs.ext4", "e2fsprogs", &options, &[&self.image])
    }

    /// Returns when it is mounted, and not filled. Does nothing if it was mounted before.
    pub fn mount(&self) -> Result<()> {
        if self.is_mounted() {
            return Ok(());
        }
        // Whoever the node runs as can write to the image's directory: what is in it gets no rights.
        let mounted = run("mount", "mount", &["-t", "ext4", "-o", "loop,nosuid,nodev"], &[&self.image, &self.home]);
        mounted.map_err(|error| match error.hint {
            Some(_) => error,
            None => error.hint(MOUNT_HINT),
        })?;
        self.empty()
    }

    /// Fails when somebody still uses it. Does nothing if it is not mounted.
    pub fn unmount(&self) -> Result<()> {
        let deadline = Instant::now() + UNMOUNT_MAX;
        while self.is_mounted() {
            match run("umount", "mount", &[], &[&self.home]) {
                Err(error) if Instant::now() > deadline => {
                    let hint = "If a shell or another program works in it, end that, then: gcs playground stop --dir DIR";
                    return Err(error.hint(hint));
                }
                Err(_) => thread::sleep(LOOK_EVERY),
                Ok(()) => {}
            }
        }
        Ok(())
    }

    pub fn is_mounted(&self) -> bool {
        fs::metadata(&self.home).is_ok_and(|home| self.is_own(&home))
    }

    /// Whether something below the home is on this disk, and not on the one that the image is on.
    fn is_own(&self, found: &fs::Metadata) -> bool {
        fs::metadata(&self.image).is_ok_and(|image| image.dev() != found.dev())
    }

    /// Takes all the room that is left, until [`Disk::empty`].
    pub fn fill(&self) -> Result<()> {
        let path = self.filler();
        let options = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
        let file = options.map_err(Error::file("create", &path))?;
        self.fill_with(&file).inspect_err(|_| drop(fs::remove_file(&path)))
    }

    fn fill_with(&self, filler: &File) -> Result<()> {
        let path = self.filler();
        if !self.is_own(&filler.metadata().map_err(Error::file("look at", &path))?) {
            return Err(Error::failed(format!("{} is not mounted", self.home.display()))
                .hint("It is while the playground runs: start it first."));
        }
        take_all(filler).map_err(Error::file("fill", &path))
    }

    /// Gives back what [`Disk::fill`] took, if it did.
    pub fn empty(&self) -> Result<()> {
        match fs::remove_file(self.filler()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::file("remove", &self.filler())(error)),
            _ => Ok(()),
        }
    }

    pub fn is_filled(&self) -> bool {
        self.filler().exists()
    }

    fn filler(&self) -> PathBuf {
        self.home.join(".fill")
    }
}

/// Ends when not one block is free. Large pieces come first, since there are few of them; a piece that failed may have got a part, and the next
/// one begins there.
fn take_all(file: &File) -> io::Result<()> {
    let (mut taken, mut piece) = (0, PIECE_BYTES_MAX);
    while piece >= BLOCK_BYTES {
        match posix_fallocate(file, taken, piece) {
            Ok(()) => taken += piece,
            Err(Errno::ENOSPC) => piece /= 2,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Runs a program of the system to its end; what it said on stderr becomes the error.
fn run(program: &str, package: &str, options: &[&str], paths: &[&Path]) -> Result<()> {
    let mut command = Account::own_command(Path::new(program), Path::new("/"));
    let path = std::env::var("PATH").map_or_else(|_| MORE_PATH.to_owned(), |path| format!("{path}:{MORE_PATH}"));
    let output = command.env("PATH", path).args(options).args(paths).output().map_err(|error| {
        Error::failed(format!("could not run {program}: {error}")).hint(format!("Debian's package {package} has it."))
    })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Error::failed(format!("{program} failed: {}", in_one_line(program, &said))))
}

fn in_one_line(program: &str, said: &str) -> String {
    let prefix = format!("{program}: ");
    let lines = said.lines().map(|line| line.trim().trim_start_matches(&prefix).trim_end_matches('.'));
    let lines: Vec<&str> = lines.filter(|line| !line.is_empty()).collect();
    if lines.is_empty() { "no message".to_owned() } else { lines.join("; ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_as_large_as_a_node_needs_and_no_larger_than_makes_sense() {
        assert_eq!("500".parse(), Ok(DiskSize(500)));
        for text in ["0", "399", "1000001", "500MB", "-1", ""] {
            assert!(text.parse::<DiskSize>().is_err(), "{text}");
        }
        assert!("1".parse::<DiskSize>().unwrap_err().contains("400 to 1000000 MB"));
        assert_eq!(DiskSize(400).bytes(), 400_000_000);
    }

    #[test]
    fn a_disk_that_is_not_mounted_is_not_filled_and_nothing_is_left_of_the_attempt() {
        let dir = tempfile::tempdir().unwrap();
        let disk = Disk { image: dir.path().join("node1.disk"), home: dir.path().join("node1") };
        fs::create_dir(&disk.home).unwrap();
        fs::write(&disk.image, "").unwrap();
        assert!(!disk.is_mounted());
        assert!(disk.fill().unwrap_err().message.ends_with("is not mounted"));
        assert!(!disk.is_filled());
        assert!(disk.make(DiskSize(400)).unwrap_err().message.contains("could not create"));
        assert!(disk.image.exists(), "an image that was there before stays");
        disk.empty().unwrap();
        disk.unmount().unwrap();
    }

    #[test]
    fn what_a_program_says_is_told_in_one_line() {
        assert_eq!(in_one_line("umount", "umount: /tmp/a: target is busy.\n\n"), "/tmp/a: target is busy");
        assert_eq!(in_one_line("mount", "mount: /a: bad superblock.\n       See dmesg.\n"), "/a: bad superblock; See dmesg");
        assert_eq!(in_one_line("mount", ""), "no message");
    }

    #[test]
    fn a_program_that_is_missing_is_named_with_its_package() {
        let error = run("no-such-program", "nosuch", &[], &[]).unwrap_err();
        assert!(error.message.starts_with("could not run no-such-program: "), "{error}");
        assert!(error.hint.unwrap().contains("package nosuch"));
    }
}
