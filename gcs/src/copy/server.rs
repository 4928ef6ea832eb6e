//! A whole server as a copy of another member's: what `[postgresql]` in the configuration asks for.
//!
//! A node that is new has the certificates and the log of its daemon, and a data directory of PostgreSQL that is empty or not there. It gets what
//! another member's has, file by file: roles, databases, settings.
//!
//! ```text
//! here    the directory is new, or a copy was broken off in it: it is emptied         [`directory`]
//! there   pg_basebackup, through a tunnel, with the WAL that is written meanwhile      [`backup`]
//! here    the server is told the local socket of this daemon, and started              [`start`]
//! ```
//!
//! Which position each database of the copy is as of, nobody need say: a server that starts from a base backup replays the WAL to the end of the
//! backup, and finds there, as after a crash, the position of the last commit of each replication origin. Its managers attach behind
//! that. The log reaches back to it: a member whose PostgreSQL has never attached has flushed nothing, so everything since it became a member is
//! kept, up to `log_retention`. Where that was not enough, or the copied server had not got the database, [`super`] makes a copy of the database alone.
//!
//! A directory that holds something is left alone, for ever: a server that is there is this node's, however old it is. What is being copied says so
//! in a file beside the daemon's log, on disk before the first byte of the copy is; so a copy that was broken off is known for one after a crash,
//! and nobody takes it for a server.

mod backup;
mod directory;
mod start;

use std::path::PathBuf;
use std::rc::Rc;

use gcs_writeset::NodeId;
use thiserror::Error;
use tokio::time::sleep;

use super::attempt::CopyError;
use super::programs::ProgramError;
use super::progress::Progress;
use super::{Copies, attempt};
use crate::bounds::{COPY_AGAIN_FIRST, COPY_AGAIN_LAST};
use crate::config::Postgresql;
use crate::peers::{To, Tunnel};
use backup::Backup;
use directory::{Directory, DirectoryError, Holds};

pub use directory::MARK;

#[derive(Debug, Error)]
pub enum ServerError {
    #[error("{0}")]
    Directory(#[from] DirectoryError),
    #[error("{0}")]
    Copy(#[from] CopyError),
    #[error("{0}")]
    Program(#[from] ProgramError),
    #[error(
        "PostgreSQL is {here} here and {there} there, and a whole server is copied to the same major version only; with an empty server here, ALTER DATABASE ... START REPLICATION copies each database"
    )]
    Major { here: i32, there: i32 },
}

impl ServerError {
    /// Whether another attempt, from whomever, would end the same way.
    fn is_final(&self) -> bool {
        matches!(self, ServerError::Directory(DirectoryError::InUse(_) | DirectoryError::Foreign(_)))
    }
}

/// What there is to do for a server, and where.
#[derive(Debug)]
pub struct Server {
    config: Postgresql,
    directory: Directory,
    local_socket: PathBuf,
    name: String,
}

impl Copies {
    /// Gives this node a server if the configuration wants one and there is none.
    pub async fn fill_server(self: Rc<Self>, server: Server) {
        match server.directory.holds() {
            Ok(Holds::Server) => return,
            Ok(Holds::Nothing) => {}
            Ok(Holds::Part) => tracing::warn!(
                directory = %server.config.data_directory.display(),
                "a copy of a server was broken off, and is made again"
            ),
            Err(error) => return tracing::error!("no copy of another member's server is made: {error}"),
        }
        let mut pause = COPY_AGAIN_FIRST;
        let mut failed: Vec<NodeId> = Vec::new();
        loop {
            let sources = self.sources(&failed);
            if sources.is_empty() {
                tracing::info!(pause_s = pause.as_secs(), "the copy of a server must wait: no other node is in service");
            }
            for (node, name) in sources {
                match self.copy_server(&server, node, &name).await {
                    Ok(()) => return,
                    Err(error) if error.is_final() => return tracing::error!("no copy of a server is made: {error}"),
                    Err(error) => {
                        tracing::warn!(from = name, %error, "a copy of a server could not be made");
                        let text = format!("a copy of the whole server from {name} could not be made: {error}");
                        self.history.copy_failed("", text);
                    }
                }
                failed.retain(|&other| other != node);
                failed.push(node);
            }
            sleep(pause).await;
            pause = (pause * 2).min(COPY_AGAIN_LAST);
        }
    }

    async fn copy_server(&self, server: &Server, node: NodeId, name: &str) -> Result<(), ServerError> {
        let tunnel_directory = self.directories.sockets.join("pg-server");
        let tunnel = Tunnel::open(&self.peers, node, To::Server, &tunnel_directory, &self.pace).await;
        let tunnel = tunnel.map_err(CopyError::Dial)?;
        let (host, user) = (tunnel.directory.clone(), tunnel.superuser.clone());
        let found = attempt::blocking(move || super::source::server(&host, &user)).await?;
        let (bytes, there) = found.map_err(CopyError::Source)?;
        let programs = backup::programs(server.config.programs.as_deref(), &tunnel.programs);
        let here = backup::major(programs.as_deref()).await?;
        if here != there {
            return Err(ServerError::Major { here, there });
        }
        let into = &server.config.data_directory;
        tracing::info!(from = name, bytes, directory = %into.display(), "a copy of a server is made");
        server.directory.begin()?;
        let label = format!("gcs: node {} from node {name}", server.name);
        let backup = Backup { programs: programs.as_deref(), tunnel: &tunnel, label: &label, into };
        let progress = Progress::begin(&self.peers, "", name, bytes);
        backup.run(&progress).await?;
        drop(progress);
        server.directory.finish(&server.local_socket)?;
        drop(tunnel);
        tracing::info!(from = name, directory = %into.display(), "the copy of a server is whole");
        start::run(&server.config, programs.as_deref(), &self.directories.start_log).await;
        Ok(())
    }
}

impl Server {
    pub fn of(config: &crate::config::Config) -> Option<Server> {
        let postgresql = config.postgresql.clone()?;
        let directory = Directory::new(&postgresql.data_directory, &config.data_directory);
        Some(Server { config: postgresql, directory, local_socket: config.local_socket.clone(), name: config.name.clone() })
    }
}
