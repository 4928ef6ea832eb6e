//! Receiving connections: who calls is checked ([`super::greet`]), then everything that comes goes to the core.

use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use gcs_core::Input;
use gcs_proto::{Decoder, Frame, FrameError, Show, ShownHere};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::greet::{self, GreetError, Greeted, Process};
use super::join;
use super::silence::{Silence, SilenceError};
use super::table::{Peer, Peers};
use super::tunnel;
use super::waiting::Waiting;
use crate::bounds::{HANDSHAKE_FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX};
use crate::complaints::Complaints;
use crate::introduction::introduction;
use crate::observe::counted::{Port, Rejection};
use crate::outbox::Stream;
use crate::tls::credentials::{PeerProblem, Side};

#[derive(Debug, Error)]
enum ReceiveError {
    #[error("{0}")]
    Ended(#[from] SilenceError),
    #[error("replaced by a newer connection")]
    Replaced,
    #[error("garbage received: {0}")]
    Frame(#[from] FrameError),
    #[error("garbage received: a handshake in the middle")]
    Unexpected,
    #[error("no longer welcome: {0}")]
    Unwelcome(PeerProblem),
}

pub async fn run(peers: Rc<Peers>, listener: TcpListener) {
    let waiting = Rc::new(Waiting::new(HANDSHAKES_MAX, HANDSHAKES_OF_ADDRESS_MAX));
    let complaints = Rc::new(Complaints::default());
    let counted = peers.counted.clone();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let (peers, their_complaints) = (peers.clone(), complaints.clone());
                let turned_away = waiting.admit(address.ip(), |place| {
                    let task = tokio::task::spawn_local(async move {
                        let greeted = greet_in_time(&peers, stream, address, &their_complaints).await;
                        drop(place);
                        match greeted {
                            Some(Greeted::Peer { peer, process, stream, decoder }) => {
                                receive(&peers, &peer, process, &stream, decoder).await;
                            }
                            Some(Greeted::Tunnel { peer, stream, place }) => {
                                tunnel::serve(&peers, &peer, stream, &place).await;
                            }
                            Some(Greeted::Joiner { join, stream }) => {
                                let answer = join::answer(&peers, join).await;
                                if let Err(error) = greet::say(&stream, &answer, HANDSHAKE_FRAME_BYTES_MAX).await {
                                    tracing::debug!(%address, "a node that wants to join has gone: {error}");
                                }
                            }
                            None => {}
                        }
                    });
                    task.abort_handle()
                });
                if let Some(caller) = turned_away {
                    counted.rejected(Port::Peers, Rejection::Crowd);
                    if let Some(kept_back) = complaints.due("crowd", &caller.to_string()) {
                        tracing::warn!(%caller, kept_back, "too many connections at once that say nothing, the oldest is closed");
                    }
                }
            }
            Err(error) => {
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                if let Some(kept_back) = complaints.due("accept", "") {
                    tracing::error!(%error, kept_back, "could not accept a peer's connection");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn greet_in_time(
    peers: &Rc<Peers>,
    stream: TcpStream,
    address: SocketAddr,
    complaints: &Complaints,
) -> Option<Greeted> {
    let greeted = timeout(HANDSHAKE_TIMEOUT, greet::run(peers, stream)).await;
    let error = match greeted {
        Ok(Ok(greeted)) => return greeted,
        Ok(Err(error)) => error,
        Err(_) => GreetError::Late,
    };
    if error.cause().is_some() {
        let cause = if matches!(error, GreetError::Late) { Rejection::Late } else { Rejection::Refused };
        peers.counted.rejected(Port::Peers, cause);
    }
    match error.cause() {
        // A health check that only looks whether the port answers.
        None => tracing::debug!(%address, "connection ended before its handshake: {error}"),
        Some(cause) => match complaints.due(cause, &address.ip().to_string()) {
            Some(kept_back) => tracing::warn!(%address, kept_back, "connection dropped before its handshake: {error}"),
            None => tracing::debug!(%address, "connection dropped before its handshake: {error}"),
        },
    }
    None
}

async fn receive(peers: &Peers, peer: &Peer, Process { life, reads }: Process, stream: &Stream, decoder: Decoder) {
    let connection = peers.next_connection();
    let replaces = peer.connections.borrow().incoming.is_some();
    if replaces {
        // What was on the old one is lost: the core hears of it as of any loss.
        peers.update(peer, |connections| connections.incoming = None);
    }
    peers.update(peer, |connections| {
        connections.incoming = Some(connection);
        connections.life = life;
        connections.reads = reads;
        connections.heard = Some(Instant::now());
    });
    peer.called.notify_one();
    let error = tokio::select! {
        error = read(peers, peer, connection, stream, decoder) => error,
        problem = peers.unwelcome(peer, stream, Side::Caller) => ReceiveError::Unwelcome(problem),
    };
    match &error {
        ReceiveError::Frame(_)
        | ReceiveError::Unexpected
        | ReceiveError::Unwelcome(_)
        | ReceiveError::Ended(SilenceError::Stuck { .. }) => {
            tracing::warn!(peer = %peer.name, "connection dropped: {error}");
        }
        _ => tracing::debug!(peer = %peer.name, "connection ended: {error}"),
    }
    if peer.connections.borrow().incoming == Some(connection) {
        peers.update(peer, |connections| connections.incoming = None);
        if matches!(error, ReceiveError::Ended(SilenceError::Silent(_))) {
            peer.silent.notify_waiters();
        }
    }
}

async fn read(peers: &Peers, peer: &Peer, connection: u64, stream: &Stream, mut decoder: Decoder) -> ReceiveError {
    let mut silence = Silence::of(&peer.name, peers.roster.silence_max);
    loop {
        while let Some(next) = decoder.next_frame().transpose() {
            silence.complete();
            match next {
                Ok(Frame::Message(message)) => {
                    let from = peer.node;
                    if peer.connections.borrow().is_up {
                        peers.inbox.push(Input::Peer { from, message });
                    }
                }
                Ok(Frame::Ping) => {}
                Ok(Frame::Rehearse(asked)) => {
                    let from = peer.node;
                    if let Some(answer) = peers.rehearsals.came(from, asked) {
                        peers.send_frame(from, &Frame::Rehearsed(answer));
                        peers.flush();
                    }
                }
                Ok(Frame::Show(Show { number, position: 0, .. })) => {
                    let said = Some(introduction(peers.places.any().map(|place| place.port)));
                    peers.send_frame(peer.node, &Frame::ShownHere(ShownHere { number, said }));
                    peers.flush();
                }
                Ok(Frame::Show(asked)) => {
                    let from = peer.node;
                    if peers.shown.came(from, &asked) {
                        peers.send_shown(vec![(from, asked.number)]);
                    }
                }
                Ok(Frame::Standing(standing)) => {
                    peers.inbox.push(Input::PeerDrains { node: peer.node, drains: standing.is_draining });
                    peers.standings.heard(peer.node, standing);
                }
                Ok(Frame::Drain(order)) => peers.standings.order(order),
                Ok(Frame::ShownHere(answer)) => peers.shown.answered(peer.node, answer),
                Ok(Frame::Rehearsed(answer)) => peers.rehearsals.answered(peer.node, &answer),
                Ok(_) => return ReceiveError::Unexpected,
                Err(error) => return error.into(),
            }
        }
        peers.inbox.room().await;
        if let Err(error) = silence.read(stream, &mut decoder.buffer).await {
            return error.into();
        }
        peer.connections.borrow_mut().heard = Some(Instant::now());
        if peer.connections.borrow().incoming != Some(connection) {
            return ReceiveError::Replaced;
        }
    }
}
