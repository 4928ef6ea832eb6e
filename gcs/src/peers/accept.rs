//! Receiving connections: who calls is checked, then everything that comes goes to the core.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gcs_core::Input;
use gcs_proto::{Decoder, FRAME_BYTES_MAX, Frame, FrameError, Join, Welcome};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::table::{Peer, Peers};
use super::{admission, dial, join};
use crate::bounds::{HANDSHAKE_FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, PEER_SILENCE_MAX};
use crate::outbox::{Outbox, Stream};

#[derive(Debug, Error)]
enum ReceiveError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("connection closed")]
    Closed,
    #[error("nothing heard for {} ms", PEER_SILENCE_MAX.as_millis())]
    Silent,
    #[error("replaced by a newer connection")]
    Replaced,
    #[error("garbage received: {0}")]
    Frame(#[from] FrameError),
    #[error("garbage received: a handshake in the middle")]
    Unexpected,
}

/// Who has called.
enum Greeted {
    Peer {
        peer: Rc<Peer>,
        life: u64,
        stream: Rc<Stream>,
        decoder: Decoder,
    },
    /// It waits for an answer, which takes as long as the group takes.
    Joiner {
        join: Join,
        stream: Rc<Stream>,
    },
}

pub async fn run(peers: Rc<Peers>, listener: TcpListener) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    loop {
        let Ok(permit) = handshakes.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, address)) => {
                let peers = peers.clone();
                tokio::task::spawn_local(async move {
                    let greeted = timeout(HANDSHAKE_TIMEOUT, greet(&peers, stream)).await;
                    drop(permit);
                    match greeted {
                        Ok(Ok(Greeted::Peer { peer, life, stream, decoder })) => {
                            receive(&peers, &peer, life, &stream, decoder).await;
                        }
                        Ok(Ok(Greeted::Joiner { join, stream })) => {
                            let answer = join::answer(&peers, join).await;
                            if let Err(error) = put_answer(&stream, &answer).await {
                                tracing::debug!(%address, "a node that wants to join has gone: {error}");
                            }
                        }
                        // A health check that only looks whether the port answers; or a peer that was refused, which says so in its own log.
                        Ok(Err(error @ (ReceiveError::Closed | ReceiveError::Io(_)))) => {
                            tracing::debug!(%address, "connection ended before its handshake: {error}");
                        }
                        Ok(Err(error)) => tracing::warn!(%address, "connection dropped before its handshake: {error}"),
                        Err(_) => tracing::warn!(%address, "connection dropped: no handshake in time"),
                    }
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                tracing::error!(%error, "could not accept a peer's connection");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet(peers: &Rc<Peers>, stream: TcpStream) -> Result<Greeted, ReceiveError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?;
    let stream = Rc::new(Stream::Tcp(stream));
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let hello = loop {
        match decoder.next_frame()? {
            Some(Frame::Hello(hello)) => break hello,
            Some(Frame::Join(join)) => {
                return Ok(Greeted::Joiner { join, stream });
            }
            Some(_) => return Err(ReceiveError::Unexpected),
            None => {}
        }
        if stream.read(&mut decoder.buffer).await? == 0 {
            return Err(ReceiveError::Closed);
        }
    };
    let admitted = admission::admit(peers, &hello);
    let answer = match &admitted {
        Ok(_) => Frame::Welcome(Welcome { node: peers.roster.node.0 }),
        Err(refused) => Frame::Refused(refused.clone()),
    };
    put_answer(&stream, &answer).await?;
    let (peer, is_new) = match admitted {
        Ok(admitted) => admitted,
        Err(refused) => {
            tracing::debug!(%address, name = %hello.name, "peer refused: {}", refused.message);
            return Err(ReceiveError::Closed);
        }
    };
    if is_new {
        tokio::task::spawn_local(dial::run(peers.clone(), peer.clone()));
    }
    decoder.set_limit(FRAME_BYTES_MAX);
    Ok(Greeted::Peer { peer, life: hello.life, stream, decoder })
}

/// Against the direction: nothing follows it.
async fn put_answer(stream: &Rc<Stream>, answer: &Frame) -> Result<(), ReceiveError> {
    let outbox = Outbox::new(stream.clone(), HANDSHAKE_FRAME_BYTES_MAX);
    outbox.put(|out| gcs_proto::encode(answer, out))?;
    outbox.flush();
    tokio::select! {
        () = outbox.drained() => Ok(()),
        error = outbox.run() => Err(error.into()),
    }
}

async fn receive(peers: &Peers, peer: &Peer, life: u64, stream: &Stream, decoder: Decoder) {
    let connection = peers.next_connection();
    let replaces = peer.connections.borrow().incoming.is_some();
    if replaces {
        // What was on the old one is lost: the core hears of it as of any loss.
        peers.update(peer, |connections| connections.incoming = None);
    }
    peers.update(peer, |connections| {
        connections.incoming = Some(connection);
        connections.life = life;
        connections.heard = Some(Instant::now());
    });
    peer.called.notify_one();
    let error = read(peers, peer, connection, stream, decoder).await;
    match &error {
        ReceiveError::Frame(_) | ReceiveError::Unexpected => {
            tracing::warn!(peer = %peer.name, "connection dropped: {error}");
        }
        _ => tracing::debug!(peer = %peer.name, "connection ended: {error}"),
    }
    if peer.connections.borrow().incoming == Some(connection) {
        peers.update(peer, |connections| connections.incoming = None);
        if matches!(error, ReceiveError::Silent) {
            peer.silent.notify_waiters();
        }
    }
}

async fn read(peers: &Peers, peer: &Peer, connection: u64, stream: &Stream, mut decoder: Decoder) -> ReceiveError {
    loop {
        loop {
            match decoder.next_frame() {
                Ok(Some(Frame::Message(message))) => {
                    let from = peer.node;
                    if peer.connections.borrow().is_up {
                        peers.inbox.push(Input::Peer { from, message });
                    }
                }
                Ok(Some(Frame::Ping)) => {}
                Ok(Some(Frame::Rehearse(asked))) => {
                    let from = peer.node;
                    if let Some(answer) = peers.rehearsals.came(from, asked) {
                        peers.send_frame(from, &Frame::Rehearsed(answer));
                        peers.flush();
                    }
                }
                Ok(Some(Frame::Rehearsed(answer))) => peers.rehearsals.answered(peer.node, &answer),
                Ok(Some(_)) => return ReceiveError::Unexpected,
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        peers.inbox.room().await;
        match timeout(PEER_SILENCE_MAX, stream.read(&mut decoder.buffer)).await {
            Ok(Ok(0)) => return ReceiveError::Closed,
            Ok(Ok(_)) => peer.connections.borrow_mut().heard = Some(Instant::now()),
            Ok(Err(error)) => return error.into(),
            Err(_) => return ReceiveError::Silent,
        }
        if peer.connections.borrow().incoming != Some(connection) {
            return ReceiveError::Replaced;
        }
    }
}
