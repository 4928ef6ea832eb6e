//! Whether a database here can hold what another node's holds: asked when its replication starts, before the group hears of it.
//!
//! Rows travel as bytes in the database's encoding, text is sorted by its locale, and so on; two databases that differ in such a thing would hold different
//! values without a word. A copy is compared too, but a group without a row has nothing to copy.

use std::path::Path;
use std::rc::Rc;

use gcs_writeset::NodeId;
use gcs_writeset::link::ServerPlace;

use super::attempt::{CopyError, blocking};
use super::{source, target};
use crate::peers::{Pace, Peers, To, Tunnel};

/// By what the database differs from that of `node`; `directory` is for the tunnel's socket.
pub async fn with(
    peers: &Rc<Peers>,
    node: NodeId,
    database: &str,
    place: &ServerPlace,
    directory: &Path,
    pace: &Rc<Pace>,
) -> Result<Vec<String>, CopyError> {
    let tunnel = Tunnel::open(peers, node, To::Database(database.to_owned()), directory, pace).await?;
    let (host, user) = (tunnel.directory.clone(), tunnel.superuser.clone());
    let (place, database) = (place.clone(), database.to_owned());
    blocking(move || {
        let there = source::description(&host, &user, &database)?;
        Ok(target::differences(&place, &database, &there)?)
    })
    .await?
}
