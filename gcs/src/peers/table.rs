//! The other members, each with what this daemon knows of its two connections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_core::{Input, Member, PeerMessage};
use gcs_proto::{Frame, ShownHere};
use gcs_writeset::NodeId;
use tokio::sync::Notify;

use crate::bounds::PEER_QUEUE_BYTES_MAX;
use crate::config::Config;
use crate::inbox::Inbox;
use crate::outbox::Outbox;
use crate::rehearsals::Rehearsals;
use crate::shown::{self, Shown};

#[derive(Debug)]
pub struct Peers {
    pub config: Rc<Config>,
    pub inbox: Rc<Inbox>,
    pub rehearsals: Rc<Rehearsals>,
    pub shown: Rc<Shown>,
    pub by_node: BTreeMap<NodeId, Peer>,
    /// Connections accepted so far: each has a number of its own.
    accepted: Cell<u64>,
}

#[derive(Debug)]
pub struct Peer {
    pub member: Member,
    pub connections: RefCell<Connections>,
    /// The peer has connected to us: it is there, so dialling makes sense now.
    pub called: Notify,
    /// Both connections are to be dropped.
    pub silent: Notify,
}

#[derive(Debug, Default)]
pub struct Connections {
    /// Where messages to the peer go.
    pub outbox: Option<Rc<Outbox>>,
    /// The connection that messages of the peer come from.
    pub incoming: Option<u64>,
    pub is_up: bool,
    /// Messages dropped since the queue was last empty.
    dropped: u64,
}

impl Peers {
    pub fn new(config: Rc<Config>, inbox: Rc<Inbox>) -> Peers {
        let by_node = config.peers().map(|member| (member.node, Peer::new(member.clone()))).collect();
        Peers { config, inbox, rehearsals: Rc::default(), shown: Rc::default(), by_node, accepted: Cell::new(0) }
    }

    /// Queues messages; [`Peers::flush`] writes them.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        for (node, message) in messages {
            if let Some(peer) = self.by_node.get(&node) {
                peer.send(&Frame::Message(message));
            }
        }
    }

    /// Queues a frame for one peer.
    pub fn send_frame(&self, node: NodeId, frame: &Frame) {
        if let Some(peer) = self.by_node.get(&node) {
            peer.send(frame);
        }
    }

    /// Queues a frame for every peer that is up. Their number.
    pub fn send_to_all(&self, frame: &Frame) -> u32 {
        let up = self.by_node.values().filter(|peer| peer.connections.borrow().is_up);
        up.map(|peer| peer.send(frame)).count() as u32
    }

    /// Peers that can be reached.
    pub fn up(&self) -> Vec<NodeId> {
        let up = self.by_node.values().filter(|peer| peer.connections.borrow().is_up);
        up.map(|peer| peer.member.node).collect()
    }

    /// Tells peers that positions they asked for are shown here, or that nobody reads here.
    pub fn send_shown(&self, answers: Vec<shown::Answer>) {
        if answers.is_empty() {
            return;
        }
        for (peer, number) in answers {
            self.send_frame(peer, &Frame::ShownHere(ShownHere { number }));
        }
        self.flush();
    }

    pub fn flush(&self) {
        for peer in self.by_node.values() {
            if let Some(outbox) = &peer.connections.borrow().outbox {
                outbox.flush();
            }
        }
    }

    pub fn next_connection(&self) -> u64 {
        self.accepted.set(self.accepted.get() + 1);
        self.accepted.get()
    }

    /// Tells the core if the peer came or went.
    pub fn update(&self, peer: &Peer, change: impl FnOnce(&mut Connections)) {
        let mut connections = peer.connections.borrow_mut();
        change(&mut connections);
        let is_up = connections.outbox.is_some() && connections.incoming.is_some();
        if is_up == connections.is_up {
            return;
        }
        connections.is_up = is_up;
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
        Peer { member, connections: RefCell::default(), called: Notify::new(), silent: Notify::new() }
    }

    fn send(&self, frame: &Frame) {
        let mut connections = self.connections.borrow_mut();
        let Some(outbox) = connections.outbox.clone() else { return };
        if outbox.is_full() {
            if connections.dropped == 0 {
                let limit = PEER_QUEUE_BYTES_MAX;
                tracing::warn!(peer = %self.member.name, limit, "peer does not read, its messages are dropped for now");
            }
            connections.dropped += 1;
            return;
        }
        if connections.dropped > 0 {
            tracing::info!(peer = %self.member.name, dropped = connections.dropped, "peer reads again");
            connections.dropped = 0;
        }
        if let Err(error) = outbox.put(|out| gcs_proto::encode(frame, out)) {
            tracing::error!(peer = %self.member.name, %error, "a message is too long to be sent");
        }
    }
}
