//! The data directory that a server is copied into: what it holds, emptied before, finished afterwards.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Beside the daemon's log: names the directory that is being copied into.
pub const MARK: &str = "copying_server";

#[derive(Debug, Error)]
pub enum DirectoryError {
    #[error("could not {action} \"{}\": {source}", path.display())]
    File { action: &'static str, path: PathBuf, source: io::Error },
    #[error("directory \"{}\" has a server in it: if it was started in a copy that was broken off, stop it", .0.display())]
    InUse(PathBuf),
    #[error(
        "directory \"{}\" holds something that is not a data directory of PostgreSQL: empty it, or name another in [postgresql]",
        .0.display()
    )]
    Foreign(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holds {
    Nothing,
    /// Of a copy that was broken off.
    Part,
    Server,
}

#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    mark: PathBuf,
}

fn file<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> DirectoryError + 'a {
    move |source| DirectoryError::File { action, path: path.to_owned(), source }
}

impl Directory {
    /// `beside` is the daemon's own.
    pub fn new(path: &Path, beside: &Path) -> Directory {
        Directory { path: path.to_owned(), mark: beside.join(MARK) }
    }

    pub fn holds(&self) -> Result<Holds, DirectoryError> {
        if self.is_marked()? {
            return Ok(Holds::Part);
        }
        let mut entries = match fs::read_dir(&self.path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Holds::Nothing),
            Err(source) => return Err(file("look into", &self.path)(source)),
        };
        if entries.next().is_none() {
            return Ok(Holds::Nothing);
        }
        if self.path.join("PG_VERSION").is_file() {
            Ok(Holds::Server)
        } else {
            Err(DirectoryError::Foreign(self.path.clone()))
        }
    }

    /// Empty, and known for one that is being copied into, on disk.
    pub fn begin(&self) -> Result<(), DirectoryError> {
        if self.is_marked()? && self.path.join("postmaster.pid").exists() {
            return Err(DirectoryError::InUse(self.path.clone()));
        }
        if self.holds()? == Holds::Server {
            return Err(DirectoryError::InUse(self.path.clone()));
        }
        let mut mark = File::create(&self.mark).map_err(file("write", &self.mark))?;
        let named = self.path.as_os_str().as_encoded_bytes();
        mark.write_all(named).and_then(|()| mark.sync_all()).map_err(file("write", &self.mark))?;
        sync(self.mark.parent())?;
        DirBuilder::new().recursive(true).mode(0o700).create(&self.path).map_err(file("make", &self.path))?;
        for entry in fs::read_dir(&self.path).map_err(file("look into", &self.path))? {
            let path = entry.map_err(file("look into", &self.path))?.path();
            // A tablespace is a link, of which the link goes.
            let is_directory = fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir());
            let removed = if is_directory { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(file("remove", &path))?;
        }
        Ok(())
    }

    /// The copy is whole: its server will find this node's daemon.
    pub fn finish(&self, local_socket: &Path) -> Result<(), DirectoryError> {
        let settings = self.path.join("postgresql.auto.conf");
        let mut out = OpenOptions::new().append(true).create(true).open(&settings).map_err(file("open", &settings))?;
        let socket = local_socket.display().to_string().replace('\'', "''");
        let line = format!("postgres_r.gcs_socket = '{socket}'\n");
        out.write_all(line.as_bytes()).and_then(|()| out.sync_all()).map_err(file("write", &settings))?;
        fs::remove_file(&self.mark).map_err(file("remove", &self.mark))?;
        sync(self.mark.parent())
    }

    /// Also of another directory's copy there may be a mark: the configuration was changed.
    fn is_marked(&self) -> Result<bool, DirectoryError> {
        match fs::read(&self.mark) {
            Ok(named) => Ok(named == self.path.as_os_str().as_encoded_bytes()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(source) => Err(file("read", &self.mark)(source)),
        }
    }
}

fn sync(directory: Option<&Path>) -> Result<(), DirectoryError> {
    let directory = directory.unwrap_or(Path::new("."));
    File::open(directory).and_then(|opened| opened.sync_all()).map_err(file("write", directory))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made() -> (tempfile::TempDir, Directory) {
        let place = tempfile::tempdir().unwrap();
        fs::create_dir(place.path().join("gcs")).unwrap();
        let directory = Directory::new(&place.path().join("pg"), &place.path().join("gcs"));
        (place, directory)
    }

    #[test]
    fn a_server_that_is_there_is_left_alone() {
        let (place, directory) = made();
        assert_eq!(directory.holds().unwrap(), Holds::Nothing, "not there");
        fs::create_dir(place.path().join("pg")).unwrap();
        assert_eq!(directory.holds().unwrap(), Holds::Nothing, "empty");
        fs::write(place.path().join("pg/notes"), "mine").unwrap();
        assert!(matches!(directory.holds(), Err(DirectoryError::Foreign(_))));
        fs::write(place.path().join("pg/PG_VERSION"), "15\n").unwrap();
        assert_eq!(directory.holds().unwrap(), Holds::Server);
        assert!(matches!(directory.begin(), Err(DirectoryError::InUse(_))));
        assert!(place.path().join("pg/notes").exists());
    }

    #[test]
    fn what_was_broken_off_is_no_server_and_is_emptied() {
        let (place, directory) = made();
        directory.begin().unwrap();
        fs::write(place.path().join("pg/PG_VERSION"), "15\n").unwrap();
        fs::create_dir(place.path().join("pg/base")).unwrap();
        let again = Directory::new(&place.path().join("pg"), &place.path().join("gcs"));
        assert_eq!(again.holds().unwrap(), Holds::Part);
        again.begin().unwrap();
        assert_eq!(fs::read_dir(place.path().join("pg")).unwrap().count(), 0);
        fs::write(place.path().join("pg/postmaster.pid"), "1\n").unwrap();
        assert!(matches!(again.begin(), Err(DirectoryError::InUse(_))), "somebody has started a server in it");
        fs::remove_file(place.path().join("pg/postmaster.pid")).unwrap();
        fs::write(place.path().join("pg/PG_VERSION"), "15\n").unwrap();
        again.finish(Path::new("/run/it's.sock")).unwrap();
        assert_eq!(again.holds().unwrap(), Holds::Server);
        let settings = fs::read_to_string(place.path().join("pg/postgresql.auto.conf")).unwrap();
        assert_eq!(settings, "postgres_r.gcs_socket = '/run/it''s.sock'\n");
    }
}
