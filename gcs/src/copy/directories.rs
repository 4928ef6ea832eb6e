//! Where copies have their files.

use std::path::PathBuf;

use crate::config::Config;

#[derive(Debug)]
pub struct Directories {
    /// Sockets: beside the local socket, whose path is known to be short enough.
    pub sockets: PathBuf,
    pub dumps: PathBuf,
}

impl Directories {
    pub fn of(config: &Config) -> Directories {
        let sockets = config.local_socket.parent().map(PathBuf::from).unwrap_or_default();
        Directories { sockets, dumps: config.data_directory.join("copy") }
    }
}
