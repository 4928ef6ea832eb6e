//! Where copies have their files.

use std::path::PathBuf;

use crate::config::Config;

#[derive(Debug)]
pub struct Directories {
    /// Sockets: beside the local socket, whose path is known to be short enough.
    pub sockets: PathBuf,
    pub dumps: PathBuf,
    /// What the start of a copied server has printed.
    pub start_log: PathBuf,
}

impl Directories {
    pub fn of(config: &Config) -> Directories {
        let sockets = config.local_socket.parent().map(PathBuf::from).unwrap_or_default();
        let (dumps, start_log) = (config.data_directory.join("copy"), config.data_directory.join("start.log"));
        Directories { sockets, dumps, start_log }
    }
}
