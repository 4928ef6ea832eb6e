//! The user that servers and daemons run as. PostgreSQL refuses to run as root, so root lends them to `postgres`.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, chown};

use super::{Error, Result};

const UNPRIVILEGED_USER: &str = "postgres";

#[derive(Clone, Debug)]
pub struct Account {
    name: String,
    /// Set when it is another user than we are.
    ids: Option<(Uid, Gid)>,
}

impl Account {
    /// Ourselves, or `postgres` when we are root.
    pub fn choose() -> Result<Account> {
        let uid = Uid::effective();
        let wanted = if uid.is_root() { User::from_name(UNPRIVILEGED_USER) } else { User::from_uid(uid) };
        match wanted {
            Ok(Some(user)) => Ok(Account { name: user.name, ids: uid.is_root().then_some((user.uid, user.gid)) }),
            Ok(None) if uid.is_root() => Err(Error::failed(format!("there is no user \"{UNPRIVILEGED_USER}\""))
                .hint("PostgreSQL does not run as root; Debian's package postgresql-common makes that user.")),
            Ok(None) => Ok(Account { name: uid.to_string(), ids: None }),
            Err(error) => Err(Error::failed(format!("could not look up the user to run as: {error}"))),
        }
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn is_other(&self) -> bool {
        self.ids.is_some()
    }

    /// A command that will run as this user, in a process group of its own (a Ctrl-C at the terminal is ours to handle),
    /// with nothing on its standard input, and without the caller's PostgreSQL settings.
    pub fn command(&self, program: &Path, directory: &Path) -> Command {
        let mut command = Account::own_command(program, directory);
        if let Some((uid, gid)) = self.ids {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// The same, but as whoever we are.
    pub fn own_command(program: &Path, directory: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(directory).stdin(Stdio::null()).process_group(0);
        for variable in ["PGHOST", "PGPORT", "PGUSER", "PGDATABASE", "PGDATA", "PGOPTIONS", "PGPASSFILE", "PGSERVICE"] {
            command.env_remove(variable);
        }
        command.env("LC_ALL", "C.UTF-8");
        command
    }

    /// Makes a file or directory of ours theirs.
    pub fn give(&self, path: &Path) -> Result<()> {
        match self.ids {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).map_err(Error::file("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// Fails if the user cannot get to the directory, for instance below another user's closed home.
    pub fn check_reaches(&self, directory: &Path) -> Result<()> {
        let status = self.command(Path::new("/usr/bin/test"), Path::new("/")).arg("-w").arg(directory).status();
        match status {
            Ok(status) if status.success() => Ok(()),
            Ok(_) => Err(Error::usage(format!("user \"{}\" cannot get to {}", self.name, directory.display()))
                .hint("Servers do not run as root; give a --dir that other users can reach, for instance below /tmp.")),
            Err(error) => Err(Error::failed(format!("could not run test: {error}"))),
        }
    }
}
