//! The sending connection: dialled, kept, dialled again.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use gcs_proto::message::{PROTOCOL, PROTOCOL_OLDEST};
use gcs_proto::{Decoder, Frame, HandshakeRefusal, Hello, Refused, Welcome};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::secure::{self, SecureError};
use super::table::{Peer, Peers};
use crate::bounds::{
    HANDSHAKE_FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, PEER_QUEUE_BYTES_MAX, PING_EVERY, REDIAL_FIRST, REDIAL_LAST,
    REDIAL_REFUSED,
};
use crate::outbox::{Outbox, Stream};
use crate::tls::NodeName;
use crate::tls::credentials::{PeerProblem, Side};
use crate::tls::stream::HandshakeError;

#[derive(Debug, Error)]
pub enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("refused: {}", .0.message)]
    Refused(Refused),
    #[error("answered with something else than a daemon would: {0}")]
    Garbage(String),
    #[error("{0}")]
    Tls(String),
    #[error("{0}")]
    Secure(SecureError),
    #[error("the certificate there is of {found}, but this address is that of {expected}")]
    OtherNode { found: NodeName, expected: NodeName },
    #[error("{0}")]
    Unwelcome(PeerProblem),
}

impl DialError {
    /// What is the same at the next attempt.
    fn kind(&self) -> String {
        match self {
            // The text has the time in it.
            DialError::Secure(SecureError::Tls(HandshakeError::Tls(rustls::Error::InvalidCertificate(problem)))) => {
                format!("certificate {:?}", std::mem::discriminant(problem))
            }
            error => error.to_string(),
        }
    }
}

impl From<SecureError> for DialError {
    fn from(error: SecureError) -> DialError {
        match error {
            SecureError::Io(error) => DialError::Io(error),
            error => DialError::Secure(error),
        }
    }
}

/// Until it is no peer any more.
pub async fn run(peers: Rc<Peers>, peer: Rc<Peer>) {
    let peer = &*peer;
    let mut pause = REDIAL_FIRST;
    // A peer that cannot be reached is reported once, not at every attempt.
    let mut reported = String::new();
    while !peer.is_dropped() {
        let error = match connect(&peers, peer, None).await {
            Ok((stream, _)) => {
                reported.clear();
                pause = REDIAL_FIRST;
                serve(&peers, peer, stream).await
            }
            Err(error) => {
                report(peer, &error, &mut reported);
                if !matches!(error, DialError::Refused(_)) {
                    peer.try_elsewhere();
                }
                if let DialError::Refused(refused) = &error
                    && refused.reason() == HandshakeRefusal::Removed
                {
                    peers.roster.set_removed(refused.message.clone());
                }
                error
            }
        };
        let wait = if matches!(error, DialError::Io(_) | DialError::Timeout) { pause } else { REDIAL_REFUSED };
        pause = (pause * 2).min(REDIAL_LAST);
        wait_or_call(peer, wait).await;
    }
}

fn report(peer: &Peer, error: &DialError, reported: &mut String) {
    let (text, kind) = (error.to_string(), error.kind());
    if *reported == kind {
        return;
    }
    let (name, address) = (&peer.name, peer.address());
    match error {
        // It will know this node soon: what has just become a member is ahead of the others.
        DialError::Refused(refused) if refused.reason() == HandshakeRefusal::NotAMember => {
            tracing::warn!(peer = %name, %address, "{text}");
        }
        DialError::Io(_) | DialError::Timeout => {
            tracing::info!(peer = %name, %address, error = %text, "peer cannot be reached, trying again");
        }
        _ => tracing::error!(peer = %name, %address, "{text}"),
    }
    *reported = kind;
}

async fn wait_or_call(peer: &Peer, pause: Duration) {
    tokio::select! {
        () = sleep(pause) => {}
        () = peer.called.notified() => {}
    }
}

/// What a connection to PostgreSQL is to.
#[derive(Clone, Debug)]
pub enum To {
    /// The PostgreSQL that has this database.
    Database(String),
    /// Whatever PostgreSQL is there.
    Server,
}

/// Connects, for messages or to PostgreSQL.
pub(super) async fn connect(peers: &Peers, peer: &Peer, tunnel_to: Option<&To>) -> Result<(Rc<Stream>, Welcome), DialError> {
    let shake = async {
        let stream = TcpStream::connect(peer.address()).await?;
        stream.set_nodelay(true)?;
        let (stream, found) = secure::dial(&peers.security, stream).await?;
        let expected = NodeName::new(&peers.roster.group, &peer.name);
        if let Some(found) = found.filter(|found| *found != expected) {
            return Err(DialError::OtherNode { found, expected });
        }
        let stream = Rc::new(stream);
        let welcome = greet(peers, peer, &stream, tunnel_to).await?;
        Ok((stream, welcome))
    };
    timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or(Err(DialError::Timeout))
}

async fn greet(peers: &Peers, peer: &Peer, stream: &Rc<Stream>, tunnel_to: Option<&To>) -> Result<Welcome, DialError> {
    let roster = &peers.roster;
    let hello = Frame::Hello(Hello {
        protocol: PROTOCOL,
        group: roster.group.clone(),
        name: roster.name.clone(),
        node: roster.node.0,
        members_hash: roster.founders_hash,
        generation: roster.generation,
        directory: roster.directory,
        address: roster.address.clone(),
        version: roster.version(),
        life: roster.life,
        tunnel_to: if let Some(To::Database(database)) = tunnel_to { database.clone() } else { String::new() },
        tunnel_to_server: matches!(tunnel_to, Some(To::Server)),
        reads: roster.reads.0.into(),
        protocol_oldest: PROTOCOL_OLDEST,
    });
    let greeting = Outbox::new(stream.clone(), HANDSHAKE_FRAME_BYTES_MAX);
    greeting.put(|out| gcs_proto::encode(&hello, out)).map_err(|error| DialError::Garbage(error.to_string()))?;
    greeting.flush();
    let answer = async {
        let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => return Ok(frame),
                Ok(None) => {}
                Err(_) if decoder.buffer.starts_with(&TLS_ALERT) => return Err(DialError::Tls(TLS_THERE.to_owned())),
                Err(error) => return Err(DialError::Garbage(error.to_string())),
            }
            if read(stream, &mut decoder.buffer).await? == 0 {
                return Err(DialError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    };
    let frame = tokio::select! {
        frame = answer => frame?,
        error = greeting.run() => return Err(error.into()),
    };
    match frame {
        Frame::Welcome(welcome) if welcome.node == peer.node.0 => Ok(welcome),
        Frame::Welcome(_) => Err(DialError::Garbage(format!("another daemon than \"{}\" answers", peer.name))),
        Frame::Refused(refused) => Err(DialError::Refused(refused)),
        _ => Err(DialError::Garbage("a frame that is not an answer".to_owned())),
    }
}

/// The other side looks at our certificate after this side has finished, so that what it thinks of it is read here.
async fn read(stream: &Stream, buffer: &mut bytes::BytesMut) -> Result<usize, DialError> {
    stream.read(buffer).await.map_err(|error| match error.kind() {
        io::ErrorKind::InvalidData => DialError::Tls(error.to_string()),
        _ => DialError::Io(error),
    })
}

/// How a daemon with TLS answers one without: an alert record, of version 3.
const TLS_ALERT: [u8; 2] = [21, 3];
const TLS_THERE: &str = "the daemon there speaks TLS, but this one runs without: give it [tls] too";

/// Until the connection breaks or the peer falls silent.
async fn serve(peers: &Peers, peer: &Peer, stream: Rc<Stream>) -> DialError {
    let outbox = Rc::new(Outbox::new(stream.clone(), PEER_QUEUE_BYTES_MAX));
    peers.update(peer, |connections| connections.outbox = Some(outbox.clone()));
    let error = tokio::select! {
        error = outbox.run() => error.into(),
        error = watch(&stream) => error,
        () = ping(&outbox) => DialError::Timeout,
        () = peer.silent.notified() => DialError::Timeout,
        problem = peers.unwelcome(peer, &stream, Side::Answerer) => {
            tracing::warn!(peer = %peer.name, "connection dropped: no longer welcome: {problem}");
            DialError::Unwelcome(problem)
        }
    };
    peers.update(peer, |connections| connections.outbox = None);
    error
}

/// Nothing comes against the direction; what does come is its end.
async fn watch(stream: &Stream) -> DialError {
    let mut buffer = bytes::BytesMut::new();
    match stream.read(&mut buffer).await {
        Ok(0) => DialError::Io(io::ErrorKind::UnexpectedEof.into()),
        Ok(_) => DialError::Garbage("bytes where none may come".to_owned()),
        Err(error) => error.into(),
    }
}

async fn ping(outbox: &Outbox) {
    let mut clock = interval(PING_EVERY);
    clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        if outbox.waiting() == 0 {
            let _ = outbox.put(|out| gcs_proto::encode(&Frame::Ping, out));
            outbox.flush();
        }
    }
}
