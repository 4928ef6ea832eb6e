//! Files that are written anew, for the user who runs the daemon; they go again unless all of them come to stand.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Uid, User, chown};

use super::error::CommandError;

/// Who may read keys: only whom they are for.
pub const FOR_THE_OWNER: u32 = 0o600;
pub const FOR_ALL: u32 = 0o644;

/// Whom new files are given to.
#[derive(Clone, Copy, Debug)]
pub struct Owner {
    /// `None` for whoever runs this.
    ids: Option<(Uid, Gid)>,
}

impl Owner {
    pub fn choose(user: Option<&str>) -> Result<Owner, CommandError> {
        let is_root = Uid::effective().is_root();
        let name = match user {
            Some(name) => name,
            None if is_root => "postgres",
            None => return Ok(Owner { ids: None }),
        };
        match User::from_name(name) {
            Ok(Some(user)) if user.uid == Uid::effective() => Ok(Owner { ids: None }),
            Ok(Some(user)) => Ok(Owner { ids: Some((user.uid, user.gid)) }),
            _ => Err(CommandError::NoSuchUser(name.to_owned())),
        }
    }

    /// Who owns this file.
    pub fn of(path: &Path) -> Result<Owner, CommandError> {
        let found = fs::metadata(path).map_err(failed("look at", path))?;
        let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
        Ok(Owner { ids: (uid != Uid::effective()).then_some((uid, gid)) })
    }

    pub fn give(self, path: &Path) -> Result<(), CommandError> {
        let Some((uid, gid)) = self.ids else { return Ok(()) };
        let given = chown(path, Some(uid), Some(gid)).map_err(io::Error::from);
        given.map_err(failed("change the owner of", path))
    }
}

/// What was written so far.
#[derive(Debug)]
pub struct NewFiles {
    owner: Owner,
    made: Vec<PathBuf>,
}

impl NewFiles {
    pub fn new(owner: Owner) -> NewFiles {
        NewFiles { owner, made: Vec::new() }
    }

    /// Makes a directory, and those above it, unless it is there.
    pub fn directory(&mut self, path: &Path) -> Result<(), CommandError> {
        if path.is_dir() {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            self.directory(parent)?;
        }
        DirBuilder::new().mode(0o700).create(path).map_err(failed("make directory", path))?;
        self.made.push(path.to_owned());
        self.owner.give(path)
    }

    /// Writes a file that is not there yet.
    pub fn file(&mut self, path: &Path, mode: u32, content: &str) -> Result<(), CommandError> {
        let mut file = match File::options().write(true).create_new(true).mode(mode).open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(CommandError::Exists(path.to_owned())),
            Err(source) => return Err(CommandError::File { action: "write", path: path.to_owned(), source }),
        };
        self.made.push(path.to_owned());
        file.write_all(content.as_bytes()).and_then(|()| file.sync_all()).map_err(failed("write", path))?;
        self.owner.give(path)
    }

    /// They stay.
    pub fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for NewFiles {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // Whatever cannot be removed is named when it is in the way.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

/// Puts another content in the place of a file's, all at once, for the same owner.
pub fn replace(path: &Path, mode: u32, content: &str) -> Result<(), CommandError> {
    let owner = Owner::of(path)?;
    let beside = path.with_extension("new");
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed("remove", &beside)(error)),
        _ => {}
    }
    let mut new = NewFiles::new(owner);
    new.file(&beside, mode, content)?;
    fs::rename(&beside, path).map_err(failed("write", path))?;
    new.keep();
    Ok(())
}

pub fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CommandError + 'a {
    move |source| CommandError::File { action, path: path.to_owned(), source }
}
