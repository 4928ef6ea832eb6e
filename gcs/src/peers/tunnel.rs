//! Tunnels: connections of programs on one node to the PostgreSQL of another, inside of connections between the daemons.
//!
//! ```text
//! pg_dump -> Unix socket of a directory of its own -> gcs here ==(peer port)==> gcs there -> Unix socket of PostgreSQL
//! ```
//!
//! So nothing but the peer port need be open between the machines, whoever may use it is known, and PostgreSQL sees a local connection of the
//! user that gcs runs as. After the welcome a tunnel carries PostgreSQL's own messages, of which nothing here reads any. A tunnel reads no more
//! than the other end takes.

use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bytes::BytesMut;
use gcs_proto::{HandshakeRefusal, Hello, Refused, Welcome};
use gcs_writeset::NodeId;
use gcs_writeset::link::ServerPlace;
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::admission::refuse;
use super::dial::{self, DialError, To};
use super::pace::Pace;
use super::table::{Peer, Peers};
use crate::bounds::TUNNEL_QUEUE_BYTES_MAX;
use crate::outbox::{Outbox, Stream};
use crate::tls::credentials::Side;

/// A socket at which the PostgreSQL of another node is found, until dropped.
#[derive(Debug)]
pub struct Tunnel {
    pub directory: PathBuf,
    /// The superuser there that initdb made.
    pub superuser: String,
    /// Where the programs of its version are, there.
    pub programs: String,
    accepting: JoinHandle<()>,
}

impl Tunnel {
    /// As programs of PostgreSQL call the socket for it.
    pub const PORT: u16 = 5432;

    /// To a PostgreSQL of `node`; `directory` is made, for this daemon's user alone.
    pub async fn open(
        peers: &Rc<Peers>,
        node: NodeId,
        to: To,
        directory: &Path,
        pace: &Rc<Pace>,
    ) -> Result<Tunnel, DialError> {
        let peer = peers.get(node).ok_or_else(|| DialError::Io(io::ErrorKind::NotFound.into()))?;
        let (_, welcome) = dial::connect(peers, &peer, Some(&to)).await?;
        clear(directory)?;
        DirBuilder::new().mode(0o700).create(directory)?;
        let listener = UnixListener::bind(directory.join(socket_name(Tunnel::PORT)))?;
        let accepting = tokio::task::spawn_local(accept(peers.clone(), node, to, listener, pace.clone()));
        let Welcome { superuser, programs, .. } = welcome;
        Ok(Tunnel { directory: directory.to_owned(), superuser, programs, accepting })
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.accepting.abort();
        if let Err(error) = clear(&self.directory) {
            tracing::warn!(%error, directory = %self.directory.display(), "could not remove a directory");
        }
    }
}

fn socket_name(port: u16) -> String {
    format!(".s.PGSQL.{port}")
}

fn clear(directory: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

async fn accept(peers: Rc<Peers>, node: NodeId, to: To, listener: UnixListener, pace: Rc<Pace>) {
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => return tracing::error!(%error, "could not accept a connection to another node's PostgreSQL"),
        };
        let (peers, to, pace) = (peers.clone(), to.clone(), pace.clone());
        connections.spawn_local(async move {
            let Some(peer) = peers.get(node) else { return };
            match dial::connect(&peers, &peer, Some(&to)).await {
                Ok((there, _)) => relay(Rc::new(Stream::Unix(stream)), there, &pace).await,
                Err(error) => tracing::info!(peer = %peer.name, "could not connect to its PostgreSQL: {error}"),
            }
        });
        while connections.try_join_next().is_some() {}
    }
}

/// The PostgreSQL at which a caller's tunnel is to end; none if it wants no tunnel.
pub(super) fn place(peers: &Peers, hello: &Hello) -> Result<Option<ServerPlace>, Refused> {
    let database = &hello.tunnel_to;
    if database.is_empty() && !hello.tunnel_to_server {
        return Ok(None);
    }
    // A guest says of itself that it is a member.
    if peers.roster.member(NodeId(hello.node)).is_none() {
        let message = format!("node \"{}\" knows no member \"{}\"", peers.roster.name, hello.name);
        return refuse(HandshakeRefusal::NotAMember, message);
    }
    let (place, what) = if hello.tunnel_to_server {
        (peers.places.any(), " attached".to_owned())
    } else {
        (peers.places.of(database), format!(" with database \"{database}\""))
    };
    match place {
        Some(place) => Ok(Some(place)),
        None => refuse(HandshakeRefusal::NoDatabase, format!("node \"{}\" has no PostgreSQL{what}", peers.roster.name)),
    }
}

/// This end of a tunnel: PostgreSQL. Until it ends, or the caller may not have it any more.
pub(super) async fn serve(peers: &Peers, peer: &Peer, stream: Rc<Stream>, place: &ServerPlace) {
    let path = Path::new(&place.socket_directory).join(socket_name(place.port));
    let server = match UnixStream::connect(&path).await {
        Ok(server) => server,
        Err(error) => {
            return tracing::warn!(path = %path.display(), %error, "could not connect to PostgreSQL for another node");
        }
    };
    let any = Pace::of(None);
    tokio::select! {
        () = relay(stream.clone(), Rc::new(Stream::Unix(server)), &any) => {}
        () = peer.dropped() => tracing::warn!(peer = %peer.name, "its connection to PostgreSQL is ended: no longer a member"),
        problem = peers.unwelcome(peer, &stream, Side::Caller) => {
            tracing::warn!(peer = %peer.name, "its connection to PostgreSQL is ended: no longer welcome: {problem}");
        }
    }
}

/// Until either end is closed; what comes from `other` comes at this pace.
async fn relay(one: Rc<Stream>, other: Rc<Stream>, pace: &Pace) {
    let (to_one, to_other) =
        (Outbox::new(one.clone(), TUNNEL_QUEUE_BYTES_MAX), Outbox::new(other.clone(), TUNNEL_QUEUE_BYTES_MAX));
    let any = Pace::of(None);
    let ended = tokio::select! {
        ended = pump(&one, &to_other, &any) => ended,
        ended = pump(&other, &to_one, pace) => ended,
        error = to_one.run() => Err(error),
        error = to_other.run() => Err(error),
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection to PostgreSQL has ended");
    }
}

async fn pump(from: &Stream, to: &Outbox, pace: &Pace) -> io::Result<()> {
    let mut buffer = BytesMut::new();
    while from.read(&mut buffer).await? > 0 {
        let bytes = buffer.len();
        to.put(|out| out.extend_from_slice(&buffer));
        buffer.clear();
        to.flush();
        to.drained().await;
        pace.pass(bytes).await;
        // One who has much to say leaves the daemon's thread to others in between.
        tokio::task::yield_now().await;
    }
    to.drained().await;
    Ok(())
}
