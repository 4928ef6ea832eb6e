//! Gathers what this machine, its daemon and its files say. Nothing here judges; whatever cannot be had says why.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use gcs_writeset::link::{FailureKind, Inquiry};
use nix::sys::statvfs::statvfs;

use super::facts::{Certificate, Daemon, Disk, Facts, Here, Room};
use super::server::{self, Where};
use crate::config::{Config, Tls};
use crate::control::{self, ControlError};
use crate::introduction::version;
use crate::tls::certificate::Facts as CertificateFacts;
use crate::tls::{Moment, files};
use crate::verified;

/// The daemon takes two seconds while a peer does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub fn gather(config: &Config, config_file: &Path, place: &Where) -> Facts {
    let daemon = ask_daemon(config);
    let (databases, known): (Vec<String>, _) = match &daemon {
        Daemon::Answers(found) => {
            let serving = found.databases.iter().filter(|database| database.service == "serving");
            (serving.map(|database| database.name.clone()).collect(), found.server.clone())
        }
        _ => (Vec::new(), None),
    };
    let (postgresql, directory) = server::ask(&place.resolve(config, known), &databases);
    let mut disks = vec![disk("the log of gcs", &config.data_directory)];
    if let Some(directory) = directory {
        disks.push(disk("the data directory of PostgreSQL", &directory));
        if fs::symlink_metadata(directory.join("pg_wal")).is_ok_and(|found| found.is_symlink()) {
            disks.push(disk("the WAL of PostgreSQL", &directory.join("pg_wal")));
        }
    }
    Facts {
        now: Moment::now(),
        here: Here {
            config_file: config_file.display().to_string(),
            node: config.name.clone(),
            group: config.group.clone(),
            socket: config.local_socket.clone(),
            has_databases: config.kind.has_databases(),
            version: version().to_owned(),
        },
        daemon,
        certificates: config.tls.as_ref().map_or_else(|| Ok(Vec::new()), certificates),
        disks,
        postgresql,
        verifications: verified::read(&config.data_directory),
    }
}

fn ask_daemon(config: &Config) -> Daemon {
    let answer = control::inquire(&config.local_socket, Inquiry::Examination, ANSWER_TIMEOUT);
    let error = match answer {
        Ok(text) => match serde_json::from_str(&text) {
            Ok(found) => return Daemon::Answers(Box::new(found)),
            Err(error) => return Daemon::Foreign { why: format!("its answer is not understood: {error}") },
        },
        Err(error) => error,
    };
    let why = error.to_string();
    match error {
        ControlError::Connect { .. } => Daemon::Silent { why, process: holder(&config.data_directory.join("lock")) },
        ControlError::Wire(_) => Daemon::Foreign { why },
        ControlError::Refused(failure) if failure.kind == FailureKind::Protocol => Daemon::Foreign { why },
        ControlError::Refused(_) | ControlError::Config(_) => Daemon::Refuses { why },
        ControlError::Io(_) | ControlError::Closed | ControlError::Late => Daemon::Hangs { why },
    }
}

/// The process that has locked the file, if one has. To try the lock would be in the way of a daemon that starts.
fn holder(lock: &Path) -> Option<u32> {
    let inode = fs::metadata(lock).ok()?.ino();
    holder_in(&fs::read_to_string("/proc/locks").ok()?, inode)
}

/// A line: `1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF`, the last number of the sixth word being the inode.
fn holder_in(locks: &str, inode: u64) -> Option<u32> {
    locks.lines().find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, "FLOCK", _, "WRITE", process, file, ..] = words[..] else { return None };
        let is_it = file.rsplit(':').next()?.parse::<u64>().ok()? == inode;
        is_it.then(|| process.parse().ok())?
    })
}

fn disk(what: &'static str, path: &Path) -> Disk {
    let room = statvfs(path).map(|found| {
        let block = found.fragment_size();
        Room {
            bytes_free: found.blocks_available().saturating_mul(block),
            bytes_total: found.blocks().saturating_mul(block),
        }
    });
    Disk { what, path: path.to_owned(), room: room.map_err(|errno| errno.desc().to_owned()) }
}

/// As they stand in the files, which a daemon that runs has taken up a few seconds after they have changed.
fn certificates(tls: &Tls) -> Result<Vec<Certificate>, String> {
    let mut found = Vec::new();
    for (what, path, is_authority) in [("certificate_file", &tls.certificate_file, false), ("ca_file", &tls.ca_file, true)] {
        for der in files::certificates(what, path).map_err(|error| error.to_string())? {
            let facts = CertificateFacts::of(&der).map_err(|error| format!("{what} \"{}\" {error}", path.display()))?;
            found.push(Certificate { name: facts.subject, is_authority, expires: facts.not_after });
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_holds_a_lock_is_found_by_the_file() {
        let locks = "1: POSIX  ADVISORY  WRITE 11 fe:00:77 0 EOF\n2: FLOCK  ADVISORY  WRITE 4711 fe:00:78 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 12 fe:00:79 0 EOF\nnonsense\n";
        assert_eq!(holder_in(locks, 78), Some(4711));
        assert_eq!([77, 79, 80].map(|inode| holder_in(locks, inode)), [None; 3]);
    }

    #[test]
    fn a_lock_of_this_process_is_its_own() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(holder(&directory.path().join("lock")), None);
        let lock = crate::log::DirectoryLock::take(directory.path()).unwrap();
        assert_eq!(holder(&directory.path().join("lock")), Some(std::process::id()));
        drop(lock);
        assert_eq!(holder(&directory.path().join("lock")), None);
    }
}
