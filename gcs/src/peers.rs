//! Connections to the other daemons.
//!
//! Two connections a pair, each carrying messages one way, from the one that dialled. So nobody has to decide which of
//! two that were made at the same time stays, and a connection that broke in one direction is noticed by the side that
//! reads. A peer is *up* while both are there; the core hears of every change at once, and only hears messages of peers that
//! are up.
//!
//! Whoever sends has something to say at least every [`PING_EVERY`]; a reader that hears nothing for [`PEER_SILENCE_MAX`] takes
//! the peer for dead and drops both connections. Whoever dials tries again for ever, with growing pauses, and at once when
//! the peer itself connects.
//!
//! (docs/adr/0013-peer-connections.md argues for this.)
//!
//! Nothing here is reliable or needs to be: raft sends again whatever is lost, and messages beyond a bound are dropped.
//!
//! [`PING_EVERY`]: crate::bounds::PING_EVERY
//! [`PEER_SILENCE_MAX`]: crate::bounds::PEER_SILENCE_MAX

mod accept;
mod dial;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_core::{Input, Member, PeerMessage};
use gcs_proto::Frame;
use gcs_writeset::NodeId;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::bounds::PEER_QUEUE_BYTES_MAX;
use crate::config::Config;
use crate::inbox::Inbox;
use crate::outbox::{Outbox, Stream};

#[derive(Debug)]
pub struct Peers {
    config: Rc<Config>,
    inbox: Rc<Inbox>,
    peers: BTreeMap<NodeId, Peer>,
    connections: Cell<u64>,
}

#[derive(Debug)]
struct Peer {
    member: Member,
    state: RefCell<State>,
    /// The peer has connected to us: it is there, so dialling makes sense now.
    called: Notify,
    /// Both connections are to be dropped.
    silent: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Where messages to the peer go.
    outbox: Option<Rc<Outbox>>,
    /// The connection that messages of the peer come from.
    incoming: Option<u64>,
    is_up: bool,
    /// Messages dropped since the queue was last empty.
    dropped: u64,
}

impl Peers {
    /// Starts accepting and dialling.
    pub fn start(config: Rc<Config>, inbox: Rc<Inbox>, listener: TcpListener) -> Rc<Peers> {
        let peers = config.peers().map(|member| (member.node, Peer::new(member.clone()))).collect();
        let peers = Rc::new(Peers { config, inbox, peers, connections: Cell::new(0) });
        tokio::task::spawn_local(accept::run(peers.clone(), listener));
        for node in peers.peers.keys() {
            tokio::task::spawn_local(dial::run(peers.clone(), *node));
        }
        peers
    }

    /// Queues messages; [`Peers::flush`] writes them.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        for (node, message) in messages {
            if let Some(peer) = self.peers.get(&node) {
                peer.send(message);
            }
        }
    }

    pub fn flush(&self) {
        for peer in self.peers.values() {
            if let Some(outbox) = &peer.state.borrow().outbox {
                outbox.flush();
            }
        }
    }

    fn next_connection(&self) -> u64 {
        self.connections.set(self.connections.get() + 1);
        self.connections.get()
    }

    /// Tells the core if the peer came or went.
    fn update(&self, peer: &Peer, change: impl FnOnce(&mut State)) {
        let mut state = peer.state.borrow_mut();
        change(&mut state);
        let is_up = state.outbox.is_some() && state.incoming.is_some();
        if is_up == state.is_up {
            return;
        }
        state.is_up = is_up;
        let (node, name, address) = (peer.member.node, &peer.member.name, &peer.member.address);
        if is_up {
            tracing::info!(peer = %name, %address, "peer is up");
            self.inbox.push(Input::PeerUp(node));
        } else {
            tracing::warn!(peer = %name, %address, "peer is down");
            self.inbox.push(Input::PeerDown(node));
        }
    }
}

impl Peer {
    fn new(member: Member) -> Peer {
        Peer { member, state: RefCell::default(), called: Notify::new(), silent: Notify::new() }
    }

    fn send(&self, message: PeerMessage) {
        let mut state = self.state.borrow_mut();
        let Some(outbox) = state.outbox.clone() else { return };
        if outbox.is_full() {
            if state.dropped == 0 {
                let limit = PEER_QUEUE_BYTES_MAX;
                tracing::warn!(peer = %self.member.name, limit, "peer does not read, its messages are dropped for now");
            }
            state.dropped += 1;
            return;
        }
        if state.dropped > 0 {
            tracing::info!(peer = %self.member.name, dropped = state.dropped, "peer reads again");
            state.dropped = 0;
        }
        if let Err(error) = outbox.put(|out| gcs_proto::encode(&Frame::Message(message), out)) {
            tracing::error!(peer = %self.member.name, %error, "a message is too long to be sent");
        }
    }
}

fn outbox(stream: &Rc<Stream>) -> Rc<Outbox> {
    Rc::new(Outbox::new(stream.clone(), PEER_QUEUE_BYTES_MAX))
}
