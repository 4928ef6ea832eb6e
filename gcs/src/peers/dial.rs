//! The sending connection: dialled, kept, dialled again.

use std::io;
use std::rc::Rc;
use std::time::Duration;

use gcs_proto::message::PROTOCOL;
use gcs_proto::{Decoder, Frame, HandshakeRefusal, Hello, Refused};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use super::table::{Peer, Peers};
use crate::bounds::{
    HANDSHAKE_FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, PEER_QUEUE_BYTES_MAX, PING_EVERY, REDIAL_FIRST, REDIAL_LAST,
    REDIAL_REFUSED,
};
use crate::outbox::{Outbox, Stream};

#[derive(Debug, Error)]
enum DialError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", HANDSHAKE_TIMEOUT.as_secs())]
    Timeout,
    #[error("refused: {}", .0.message)]
    Refused(Refused),
    #[error("answered with something else than a daemon would: {0}")]
    Garbage(String),
}

/// Until it is no peer any more.
pub async fn run(peers: Rc<Peers>, peer: Rc<Peer>) {
    let peer = &*peer;
    let mut pause = REDIAL_FIRST;
    // A peer that cannot be reached is reported once, not at every attempt.
    let mut reported = String::new();
    while !peer.is_dropped() {
        let error = match connect(&peers, peer).await {
            Ok(stream) => {
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
        let wait = if matches!(error, DialError::Refused(_)) { REDIAL_REFUSED } else { pause };
        pause = (pause * 2).min(REDIAL_LAST);
        wait_or_call(peer, wait).await;
    }
}

fn report(peer: &Peer, error: &DialError, reported: &mut String) {
    let (name, address, text) = (&peer.name, peer.address(), error.to_string());
    if *reported == text {
        return;
    }
    match error {
        // It will know this node soon: what has just become a member is ahead of the others.
        DialError::Refused(refused) if refused.reason() == HandshakeRefusal::NotAMember => {
            tracing::warn!(peer = %name, %address, "{text}");
        }
        DialError::Refused(_) | DialError::Garbage(_) => tracing::error!(peer = %name, %address, "{text}"),
        _ => tracing::info!(peer = %name, %address, error = %text, "peer cannot be reached, trying again"),
    }
    *reported = text;
}

async fn wait_or_call(peer: &Peer, pause: Duration) {
    tokio::select! {
        () = sleep(pause) => {}
        () = peer.called.notified() => {}
    }
}

async fn connect(peers: &Peers, peer: &Peer) -> Result<Rc<Stream>, DialError> {
    let shake = async {
        let stream = TcpStream::connect(peer.address()).await?;
        stream.set_nodelay(true)?;
        let stream = Rc::new(Stream::Tcp(stream));
        greet(peers, peer, &stream).await?;
        Ok(stream)
    };
    timeout(HANDSHAKE_TIMEOUT, shake).await.unwrap_or(Err(DialError::Timeout))
}

async fn greet(peers: &Peers, peer: &Peer, stream: &Rc<Stream>) -> Result<(), DialError> {
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
    });
    let greeting = Outbox::new(stream.clone(), HANDSHAKE_FRAME_BYTES_MAX);
    greeting.put(|out| gcs_proto::encode(&hello, out)).map_err(|error| DialError::Garbage(error.to_string()))?;
    greeting.flush();
    let answer = async {
        let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.next_frame().map_err(|error| DialError::Garbage(error.to_string()))? {
                return Ok(frame);
            }
            if stream.read(&mut decoder.buffer).await? == 0 {
                return Err(DialError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    };
    let frame = tokio::select! {
        frame = answer => frame?,
        error = greeting.run() => return Err(error.into()),
    };
    match frame {
        Frame::Welcome(welcome) if welcome.node == peer.node.0 => Ok(()),
        Frame::Welcome(_) => Err(DialError::Garbage(format!("another daemon than \"{}\" answers", peer.name))),
        Frame::Refused(refused) => Err(DialError::Refused(refused)),
        _ => Err(DialError::Garbage("a frame that is not an answer".to_owned())),
    }
}

/// Until the connection breaks or the peer falls silent.
async fn serve(peers: &Peers, peer: &Peer, stream: Rc<Stream>) -> DialError {
    let outbox = Rc::new(Outbox::new(stream.clone(), PEER_QUEUE_BYTES_MAX));
    peers.update(peer, |connections| connections.outbox = Some(outbox.clone()));
    let error = tokio::select! {
        error = outbox.run() => error.into(),
        error = watch(&stream) => error,
        () = ping(&outbox) => DialError::Timeout,
        () = peer.silent.notified() => DialError::Timeout,
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
