//! One attempt to copy a database, from one node.

use std::path::PathBuf;
use std::rc::Rc;

use gcs_writeset::link::ServerPlace;
use gcs_writeset::{NodeId, Position};
use thiserror::Error;

use super::aside::Aside;
use super::directories::Directories;
use super::displaced::Worth;
use super::programs::{self, ProgramError};
use super::progress::Progress;
use super::source::{Source, SourceError};
use super::target::{Target, TargetError};
use crate::peers::{DialError, Pace, Peers, To, Tunnel};

#[derive(Debug, Error)]
pub enum CopyError {
    #[error("{0}")]
    Dial(#[from] DialError),
    #[error("there: {0}")]
    Source(#[from] SourceError),
    #[error("here: {0}")]
    Target(#[from] TargetError),
    #[error("{0}")]
    Program(#[from] ProgramError),
    #[error("the thread that asked PostgreSQL has panicked")]
    Panicked,
}

pub struct Attempt<'a> {
    peers: Rc<Peers>,
    directories: &'a Directories,
    pace: Rc<Pace>,
    database: &'a str,
    place: &'a ServerPlace,
    worth: &'a Worth,
    node: NodeId,
    from: &'a str,
}

impl CopyError {
    /// Nobody wants the copy any more.
    pub fn is_final(&self) -> bool {
        matches!(self, CopyError::Target(TargetError::Gone(_) | TargetError::Stopped(_)))
    }
}

impl<'a> Attempt<'a> {
    pub fn new(
        peers: Rc<Peers>,
        directories: &'a Directories,
        pace: Rc<Pace>,
        database: &'a str,
        place: &'a ServerPlace,
        worth: &'a Worth,
        (node, from): (NodeId, &'a str),
    ) -> Attempt<'a> {
        Attempt { peers, directories, pace, database, place, worth, node, from }
    }

    /// The position as of which the database is a copy now.
    pub async fn make(&self) -> Result<Position, CopyError> {
        let to = To::Database(self.database.to_owned());
        let tunnel = Tunnel::open(&self.peers, self.node, to, &self.tunnel_directory(), &self.pace).await?;
        let (host, user, database) = (tunnel.directory.clone(), tunnel.superuser.clone(), self.database.to_owned());
        let source = blocking(move || Source::open(&host, &user, &database)).await??;
        let (position, bytes) = (source.position, source.bytes);
        tracing::info!(database = self.database, from = self.from, %position, bytes, "a copy is made");

        let (place, group, database) = (self.place.clone(), self.peers.roster.group.clone(), self.database.to_owned());
        let (source, target) = blocking(move || {
            let target = Target::prepare(&place, &group, &database, &source.description)?;
            Ok::<_, TargetError>((source, target))
        })
        .await??;
        let (snapshot, incoming, views) = (source.snapshot.clone(), target.incoming().to_owned(), source.views.clone());
        let without_rows_of = [views.as_slice(), &source.excluded].concat();
        let held = Aside::new((source, target));
        let files = self.files_directory();
        let dumped = programs::Dump {
            programs: &self.place.programs,
            from: &tunnel.directory,
            user: &tunnel.superuser,
            database: self.database,
            snapshot: &snapshot,
            without_rows_of: &without_rows_of,
            into: &files,
        };
        let progress = Progress::begin(&self.peers, self.database, self.from, bytes);
        dumped.run(&progress).await?;
        progress.all_is_read();
        let restored = programs::Restore { place: self.place, database: &incoming, files: &files };
        restored.run().await?;
        let worth = self.worth.clone();
        blocking(move || {
            let Some((mut source, mut target)) = held.take() else { return Err(CopyError::Panicked) };
            for view in views {
                target.fill_view(&view, &mut source.rows_of(&view)?)?;
            }
            target.fill_in(&source.own_rows()?)?;
            // Whatever is ordered from here on is in the log.
            source.close();
            match target.take_place(position, &worth) {
                Err(error @ (TargetError::Gone(_) | TargetError::Stopped(_))) => {
                    target.discard()?;
                    Err(error.into())
                }
                other => other.map_err(CopyError::from),
            }
        })
        .await??;
        Ok(position)
    }

    fn tunnel_directory(&self) -> PathBuf {
        let (number, _) = NodeId::of_name(self.database).0.overflowing_shr(32);
        self.directories.sockets.join(format!("pg-{number:08x}"))
    }

    fn files_directory(&self) -> PathBuf {
        self.directories.dumps.join(format!("{:016x}", NodeId::of_name(self.database).0))
    }
}

pub async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CopyError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CopyError::Panicked)
}
