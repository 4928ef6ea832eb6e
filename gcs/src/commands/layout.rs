//! Where `gcs init` and `gcs join` put things: all below one directory, but for the configuration file and the socket.

use std::path::{Path, PathBuf};

use clap::Args;

use super::error::CommandError;
use super::files::Owner;

#[derive(Clone, Debug, Args)]
pub struct LayoutArgs {
    /// Holds the certificates and the data of the daemon.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/gcs")]
    directory: PathBuf,
    /// The configuration file that is written.
    #[arg(long, value_name = "FILE", default_value = "/etc/gcs.toml")]
    config: PathBuf,
    /// The Unix socket for PostgreSQL (postgres_r.gcs_socket).
    #[arg(long, value_name = "FILE", default_value = "/run/gcs/gcs.sock")]
    socket: PathBuf,
    /// Who runs the daemon, and owns what is written: by default postgres if root asks, else whoever asks.
    #[arg(long, value_name = "USER")]
    user: Option<String>,
}

/// The same with absolute paths.
#[derive(Debug)]
pub struct Layout {
    pub directory: PathBuf,
    pub config: PathBuf,
    pub socket: PathBuf,
    pub owner: Owner,
}

impl LayoutArgs {
    pub fn resolve(&self) -> Result<Layout, CommandError> {
        let layout = Layout {
            directory: absolute(&self.directory)?,
            config: absolute(&self.config)?,
            socket: absolute(&self.socket)?,
            owner: Owner::choose(self.user.as_deref())?,
        };
        layout.check_free()?;
        Ok(layout)
    }
}

impl Layout {
    pub fn certificates(&self) -> PathBuf {
        self.directory.join("tls")
    }

    pub fn ca_file(&self) -> PathBuf {
        self.certificates().join("ca.pem")
    }

    pub fn ca_key_file(&self) -> PathBuf {
        self.certificates().join("ca.key")
    }

    pub fn certificate_file(&self) -> PathBuf {
        self.certificates().join("node.pem")
    }

    pub fn key_file(&self) -> PathBuf {
        self.certificates().join("node.key")
    }

    pub fn data_directory(&self) -> PathBuf {
        self.directory.join("data")
    }

    /// A node that was here before must not lose what it has promised to its group.
    fn check_free(&self) -> Result<(), CommandError> {
        let files = [self.ca_file(), self.ca_key_file(), self.certificate_file(), self.key_file(), self.data_directory()];
        for path in files.into_iter().chain([self.config.clone()]) {
            match std::fs::symlink_metadata(&path) {
                Ok(_) => return Err(CommandError::Exists(path)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => return Err(CommandError::File { action: "look at", path, source }),
            }
        }
        Ok(())
    }
}

pub fn absolute(path: &Path) -> Result<PathBuf, CommandError> {
    std::path::absolute(path).map_err(|source| CommandError::File { action: "find", path: path.to_owned(), source })
}
