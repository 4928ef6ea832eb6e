//! Receiving connections: who calls is checked, then everything that comes goes to the core.

use std::io;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gcs_core::Input;
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Decoder, FRAME_BYTES_MAX, Frame, FrameError, HandshakeRefusal, Hello, Refused, Welcome};
use gcs_writeset::NodeId;
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::table::{Peer, Peers};
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
                        Ok(Ok((node, stream, decoder))) => receive(&peers, node, &stream, decoder).await,
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

async fn greet(peers: &Peers, stream: TcpStream) -> Result<(NodeId, Rc<Stream>, Decoder), ReceiveError> {
    stream.set_nodelay(true)?;
    let address = stream.peer_addr()?;
    let stream = Rc::new(Stream::Tcp(stream));
    let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
    let hello = loop {
        match decoder.next_frame()? {
            Some(Frame::Hello(hello)) => break hello,
            Some(_) => return Err(ReceiveError::Unexpected),
            None => {}
        }
        if stream.read(&mut decoder.buffer).await? == 0 {
            return Err(ReceiveError::Closed);
        }
    };
    let verdict = check(peers, &hello);
    let answer = match &verdict {
        Ok(()) => Frame::Welcome(Welcome { node: peers.config.node.0 }),
        Err(refused) => Frame::Refused(refused.clone()),
    };
    let outbox = Outbox::new(stream.clone(), HANDSHAKE_FRAME_BYTES_MAX);
    outbox.put(|out| gcs_proto::encode(&answer, out))?;
    outbox.flush();
    tokio::select! {
        () = outbox.drained() => {}
        error = outbox.run() => return Err(error.into()),
    }
    if let Err(refused) = verdict {
        tracing::debug!(%address, name = %hello.name, "peer refused: {}", refused.message);
        return Err(ReceiveError::Closed);
    }
    decoder.set_limit(FRAME_BYTES_MAX);
    Ok((NodeId(hello.node), stream, decoder))
}

/// Whether this is a member that believes what we believe.
fn check(peers: &Peers, hello: &Hello) -> Result<(), Refused> {
    let config = &peers.config;
    let refuse = |reason: HandshakeRefusal, message: String| Err(Refused { reason: reason.into(), message });
    if hello.protocol != PROTOCOL {
        let message =
            format!("peer protocol {} here, {} there: run the same version of gcs on all nodes", PROTOCOL, hello.protocol);
        return refuse(HandshakeRefusal::Protocol, message);
    }
    if hello.group != config.group {
        let message = format!("node \"{}\" is in group \"{}\", not \"{}\"", config.name, config.group, hello.group);
        return refuse(HandshakeRefusal::WrongGroup, message);
    }
    let known = peers.by_node.get(&NodeId(hello.node)).is_some_and(|peer| peer.member.name == hello.name);
    if !known {
        let message = format!("node \"{}\" does not know \"{}\": list the same peers on all nodes", config.name, hello.name);
        return refuse(HandshakeRefusal::NotAMember, message);
    }
    if hello.members_hash != config.members_hash() {
        let message =
            format!("node \"{}\" has another member list: names and addresses must be the same on all nodes", config.name);
        return refuse(HandshakeRefusal::MembersDiffer, message);
    }
    Ok(())
}

async fn receive(peers: &Peers, node: NodeId, stream: &Stream, decoder: Decoder) {
    let Some(peer) = peers.by_node.get(&node) else { return };
    let connection = peers.next_connection();
    let replaces = peer.connections.borrow().incoming.is_some();
    if replaces {
        // What was on the old one is lost: the core hears of it as of any loss.
        peers.update(peer, |connections| connections.incoming = None);
    }
    peers.update(peer, |connections| connections.incoming = Some(connection));
    peer.called.notify_one();
    let error = read(peers, peer, connection, stream, decoder).await;
    match &error {
        ReceiveError::Frame(_) | ReceiveError::Unexpected => {
            tracing::warn!(peer = %peer.member.name, "connection dropped: {error}");
        }
        _ => tracing::debug!(peer = %peer.member.name, "connection ended: {error}"),
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
                    let from = peer.member.node;
                    if peer.connections.borrow().is_up {
                        peers.inbox.push(Input::Peer { from, message });
                    }
                }
                Ok(Some(Frame::Ping)) => {}
                Ok(Some(Frame::Rehearse(asked))) => {
                    let from = peer.member.node;
                    if let Some(answer) = peers.rehearsals.came(from, asked) {
                        peers.send_frame(from, &Frame::Rehearsed(answer));
                        peers.flush();
                    }
                }
                Ok(Some(Frame::Show(asked))) => {
                    let from = peer.member.node;
                    if peers.shown.came(from, &asked) {
                        peers.send_shown(vec![(from, asked.number)]);
                    }
                }
                Ok(Some(Frame::ShownHere(answer))) => peers.shown.answered(peer.member.node, &answer),
                Ok(Some(Frame::Rehearsed(answer))) => peers.rehearsals.answered(peer.member.node, &answer),
                Ok(Some(_)) => return ReceiveError::Unexpected,
                Ok(None) => break,
                Err(error) => return error.into(),
            }
        }
        peers.inbox.room().await;
        match timeout(PEER_SILENCE_MAX, stream.read(&mut decoder.buffer)).await {
            Ok(Ok(0)) => return ReceiveError::Closed,
            Ok(Ok(_)) => {}
            Ok(Err(error)) => return error.into(),
            Err(_) => return ReceiveError::Silent,
        }
        if peer.connections.borrow().incoming != Some(connection) {
            return ReceiveError::Replaced;
        }
    }
}
