//! What a copy has written goes to disk as it is written.
//!
//! Left to itself the kernel collects it, and pg_basebackup has all of it written at its end: hundreds of megabytes at once, behind which every other
//! fsync of that disk waits, those of a COMMIT too. So the files that have changed are synced every second, by a thread of its own: only what came in a
//! second is ever in the way. Whether everything is on disk in the end is for pg_basebackup to see to; an error here is met there again.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use tokio::task::JoinHandle;

pub struct WriteBack {
    directory: PathBuf,
    /// When the files were last looked at.
    looked: SystemTime,
    pass: Option<JoinHandle<()>>,
}

impl WriteBack {
    pub fn of(directory: &Path) -> WriteBack {
        WriteBack { directory: directory.to_owned(), looked: SystemTime::UNIX_EPOCH, pass: None }
    }

    /// Begins another pass, unless the one before is not over.
    pub fn go_on(&mut self) {
        if self.pass.as_ref().is_some_and(|pass| !pass.is_finished()) {
            return;
        }
        let since = std::mem::replace(&mut self.looked, SystemTime::now());
        let directory = self.directory.clone();
        self.pass = Some(tokio::task::spawn_blocking(move || sync_changed(&directory, since)));
    }
}

/// Whoever writes them goes on meanwhile, so some may be gone.
fn sync_changed(directory: &Path, since: SystemTime) {
    for path in changed(directory, since) {
        let _ = File::open(path).and_then(|file| file.sync_data());
    }
}

/// Files below a directory that were written since then.
fn changed(directory: &Path, since: SystemTime) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
        match entry.metadata() {
            Ok(of) if of.is_dir() => found.extend(changed(&entry.path(), since)),
            Ok(of) if of.is_file() && of.modified().is_ok_and(|at| at >= since) => found.push(entry.path()),
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_what_was_written_since_is_synced() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().join("base");
        std::fs::create_dir(&base).unwrap();
        let [old, new] = ["1", "2"].map(|name| base.join(name));
        let now = SystemTime::now();
        for (path, at) in [(&old, now - Duration::from_secs(2)), (&new, now)] {
            File::create(path).and_then(|file| file.set_modified(at)).unwrap();
        }
        assert_eq!(changed(directory.path(), now - Duration::from_secs(1)), [new]);
        assert_eq!(changed(&directory.path().join("gone"), now), [] as [PathBuf; 0]);
    }
}
