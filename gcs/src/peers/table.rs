//! The other nodes, each with what this daemon knows of its two connections.
//!
//! The table follows the ordered membership ([`Peers::follow`]): whoever becomes a member is dialled, whoever ceases to be one is dropped. A
//! node that was away may be called by one that became a member meanwhile: it is let in as a *guest*, by which this node learns the rest
//! (`admission`).

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use gcs_core::{Format, Input, PeerMessage};
use gcs_proto::{Frame, ShownHere, Standing};
use gcs_writeset::NodeId;
use tokio::sync::Notify;

use super::places::Places;
use crate::bounds::{GUESTS_MAX, PEER_QUEUE_BYTES_MAX};
use crate::enrolment::desk::Desk;
use crate::inbox::Inbox;
use crate::observe::counted::Counted;
use crate::outbox::{Outbox, Stream};
use crate::rehearsals::Rehearsals;
use crate::roster::Roster;
use crate::shown::{self, Shown};
use crate::standings::Standings;
use crate::tls::Security;
use crate::tls::credentials::{PeerProblem, Side};
use crate::wishes::Pending;

#[derive(Debug)]
pub struct Peers {
    pub roster: Rc<Roster>,
    pub inbox: Rc<Inbox>,
    pub rehearsals: Rc<Rehearsals>,
    pub shown: Rc<Shown>,
    pub places: Rc<Places>,
    pub standings: Rc<Standings>,
    pub security: Rc<Security>,
    /// Where a node gets its certificate, if this one signs.
    pub desk: Desk,
    /// Wishes of this daemon about the membership.
    pub wishes: Rc<Pending>,
    pub counted: Arc<Counted>,
    by_node: RefCell<BTreeMap<NodeId, Rc<Peer>>>,
    /// Connections accepted so far: each has a number of its own.
    accepted: Cell<u64>,
}

#[derive(Debug)]
pub struct Peer {
    pub node: NodeId,
    pub name: String,
    /// Where it is: as the membership says, or as it said itself when it last called.
    address: RefCell<String>,
    /// Where the configuration says it is, if that is elsewhere; and whether that is what is tried next.
    listed: Option<String>,
    tries_listed: Cell<bool>,
    /// The version of the membership by which it came in, if it is not yet known here as a member.
    guest: Cell<Option<u64>>,
    is_dropped: Cell<bool>,
    pub connections: RefCell<Connections>,
    /// The peer has connected to us: it is there, so dialling makes sense now.
    pub called: Notify,
    /// Both connections are to be dropped.
    pub silent: Notify,
}

impl Peer {
    /// Bytes that wait for its socket.
    pub fn queue_bytes(&self) -> usize {
        self.connections.borrow().outbox.as_ref().map_or(0, |outbox| outbox.waiting())
    }
}

#[derive(Debug, Default)]
pub struct Connections {
    /// Where messages to the peer go.
    pub outbox: Option<Rc<Outbox>>,
    /// The connection that messages of the peer come from.
    pub incoming: Option<u64>,
    /// The process at its other end, and when it last said something.
    pub life: u64,
    pub heard: Option<Instant>,
    /// Up to which format of the group that process reads.
    pub reads: Format,
    pub is_up: bool,
    /// Messages dropped since the queue was last empty.
    dropped: u64,
}

impl Peers {
    pub fn new(roster: Rc<Roster>, security: Rc<Security>, desk: Desk, inbox: Rc<Inbox>, counted: Arc<Counted>) -> Peers {
        let (rehearsals, shown, places, standings, wishes, by_node) = Default::default();
        Peers {
            roster,
            inbox,
            rehearsals,
            shown,
            places,
            standings,
            security,
            desk,
            wishes,
            counted,
            by_node,
            accepted: Cell::new(0),
        }
    }

    pub fn get(&self, node: NodeId) -> Option<Rc<Peer>> {
        self.by_node.borrow().get(&node).cloned()
    }

    pub fn all(&self) -> Vec<Rc<Peer>> {
        self.by_node.borrow().values().cloned().collect()
    }

    pub fn is_up(&self, node: NodeId) -> bool {
        self.get(node).is_some_and(|peer| peer.connections.borrow().is_up)
    }

    /// The membership is another: drops whoever is no member, and returns those that are to be dialled from now on.
    pub fn follow(&self) -> Vec<Rc<Peer>> {
        let is_removed = self.roster.removed().is_some();
        let members = if is_removed { Vec::new() } else { self.roster.others() };
        let version = self.roster.version();
        for peer in self.all() {
            match members.iter().find(|member| member.node == peer.node) {
                Some(member) => {
                    peer.guest.set(None);
                    *peer.address.borrow_mut() = member.address.clone();
                }
                None if !is_removed && peer.guest.get().is_some_and(|came| came > version) => {}
                None => self.remove(&peer),
            }
        }
        let new = members.iter().filter(|member| self.get(member.node).is_none());
        new.map(|member| self.insert(self.peer(member.node, &member.name, &member.address))).collect()
    }

    /// Lets a node in that is no member as far as is known here; `None` if there are too many.
    pub fn invite(&self, node: NodeId, name: &str, address: &str, version: u64) -> Option<Rc<Peer>> {
        let guests = self.all().iter().filter(|peer| peer.guest.get().is_some()).count();
        let peer = self.peer(node, name, address);
        peer.guest.set(Some(version));
        (guests < GUESTS_MAX).then(|| self.insert(peer))
    }

    fn peer(&self, node: NodeId, name: &str, address: &str) -> Peer {
        Peer {
            node,
            name: name.to_owned(),
            address: RefCell::new(address.to_owned()),
            listed: self.roster.listed.get(name).cloned(),
            tries_listed: Cell::new(false),
            guest: Cell::new(None),
            is_dropped: Cell::new(false),
            connections: RefCell::default(),
            called: Notify::new(),
            silent: Notify::new(),
        }
    }

    fn insert(&self, peer: Peer) -> Rc<Peer> {
        let peer = Rc::new(peer);
        self.by_node.borrow_mut().insert(peer.node, peer.clone());
        peer
    }

    fn remove(&self, peer: &Peer) {
        self.by_node.borrow_mut().remove(&peer.node);
        peer.is_dropped.set(true);
        self.update(peer, |connections| {
            connections.outbox = None;
            connections.incoming = None;
        });
        peer.silent.notify_waiters();
        peer.called.notify_one();
    }

    /// Queues messages; [`Peers::flush`] writes them.
    pub fn send(&self, messages: Vec<(NodeId, PeerMessage)>) {
        for (node, message) in messages {
            if let Some(peer) = self.by_node.borrow().get(&node) {
                peer.send(&Frame::Message(message));
            }
        }
    }

    /// Queues a frame for one peer.
    pub fn send_frame(&self, node: NodeId, frame: &Frame) {
        if let Some(peer) = self.by_node.borrow().get(&node) {
            peer.send(frame);
        }
    }

    /// Queues a frame for each of these.
    pub fn send_to_each<'a>(&self, nodes: impl IntoIterator<Item = &'a NodeId>, frame: &Frame) {
        nodes.into_iter().for_each(|node| self.send_frame(*node, frame));
    }

    /// Peers that can be reached.
    pub fn up(&self) -> Vec<NodeId> {
        let peers = self.by_node.borrow();
        let up = peers.values().filter(|peer| peer.connections.borrow().is_up);
        up.map(|peer| peer.node).collect()
    }

    /// Members that do not read this format, or are not there to say so, by name.
    pub fn readers_missing(&self, format: Format) -> Vec<String> {
        let reads =
            |peer: &Rc<Peer>| Some(peer.connections.borrow()).filter(|it| it.is_up).is_some_and(|it| it.reads >= format);
        let others = self.roster.others().into_iter();
        others.filter(|member| !self.get(member.node).as_ref().is_some_and(reads)).map(|member| member.name).collect()
    }

    /// Tells peers that positions they asked for are shown here, or that nobody reads here.
    pub fn send_shown(&self, answers: Vec<shown::Answer>) {
        if answers.is_empty() {
            return;
        }
        for (peer, number) in answers {
            match peer == self.roster.node {
                true => self.shown.answered(peer, ShownHere { number, said: None }),
                false => self.send_frame(peer, &Frame::ShownHere(ShownHere { number, said: None })),
            }
        }
        self.flush();
    }

    /// Changes what is to be known of this daemon, and tells the others.
    pub fn change_standing(&self, change: impl FnOnce(&mut Standing)) {
        if self.standings.change(change) {
            self.send_to_each(&self.up(), &Frame::Standing(self.standings.own()));
            self.flush();
        }
    }

    pub fn flush(&self) {
        for peer in self.by_node.borrow().values() {
            if let Some(outbox) = &peer.connections.borrow().outbox {
                outbox.flush();
            }
        }
    }

    pub fn next_connection(&self) -> u64 {
        self.accepted.set(self.accepted.get() + 1);
        self.accepted.get()
    }

    /// Ends when other certificates are in force by which the other side of the connection may not take part.
    pub async fn unwelcome(&self, peer: &Peer, stream: &Stream, side: Side) -> PeerProblem {
        let mut renewed = self.security.renewed();
        loop {
            if renewed.changed().await.is_err() {
                // Nothing changes any more.
                std::future::pending::<()>().await;
            }
            let (Stream::Tls(stream), Some(credentials)) = (stream, self.security.credentials()) else { continue };
            let checked = stream.with_peer_certificates(|chain| credentials.check_again(side, chain));
            match checked {
                Ok(name) if name.node == peer.name => {}
                Ok(name) => return PeerProblem::Untrusted(format!("the certificate is of {name}")),
                Err(problem) => return problem,
            }
        }
    }

    /// Tells the core if the peer came or went.
    pub fn update(&self, peer: &Peer, change: impl FnOnce(&mut Connections)) {
        let mut connections = peer.connections.borrow_mut();
        let was_heard = connections.incoming.is_some();
        change(&mut connections);
        if was_heard && connections.incoming.is_none() {
            self.rehearsals.lost(peer.node);
        }
        let is_up = connections.outbox.is_some() && connections.incoming.is_some() && !peer.is_dropped.get();
        if is_up == connections.is_up {
            return;
        }
        connections.is_up = is_up;
        if !is_up {
            self.rehearsals.unreachable(peer.node);
        }
        let (node, name, address) = (peer.node, &peer.name, peer.address());
        if is_up {
            tracing::info!(peer = %name, %address, "peer is up");
            self.inbox.push(Input::PeerUp { node, reads: connections.reads });
            drop(connections);
            peer.send(&Frame::Standing(self.standings.own()));
            self.flush();
        } else {
            tracing::warn!(peer = %name, %address, "peer is down");
            self.inbox.push(Input::PeerDown(node));
            self.standings.lost(node);
        }
    }
}

impl Peer {
    pub fn address(&self) -> String {
        let listed = self.listed.as_ref().filter(|_| self.tries_listed.get());
        listed.cloned().unwrap_or_else(|| self.address.borrow().clone())
    }

    /// Nobody has answered there.
    pub fn try_elsewhere(&self) {
        self.tries_listed.set(!self.tries_listed.get());
    }

    /// It has called and says that it is there: it has moved, and cannot have that ordered before it is reached.
    pub fn moved(&self, address: &str) {
        if *self.address.borrow() != address {
            *self.address.borrow_mut() = address.to_owned();
        }
    }

    /// Ends when it is neither a member nor a guest any more.
    pub async fn dropped(&self) {
        let mut silent = std::pin::pin!(self.silent.notified());
        silent.as_mut().enable();
        while !self.is_dropped() {
            silent.as_mut().await;
            silent.set(self.silent.notified());
            silent.as_mut().enable();
        }
    }

    /// Neither a member nor a guest any more.
    pub fn is_dropped(&self) -> bool {
        self.is_dropped.get()
    }

    fn send(&self, frame: &Frame) {
        let mut connections = self.connections.borrow_mut();
        let Some(outbox) = connections.outbox.clone() else { return };
        if outbox.is_full() {
            if connections.dropped == 0 {
                let limit = PEER_QUEUE_BYTES_MAX;
                tracing::warn!(peer = %self.name, limit, "peer does not read, its messages are dropped for now");
            }
            connections.dropped += 1;
            return;
        }
        if connections.dropped > 0 {
            tracing::info!(peer = %self.name, dropped = connections.dropped, "peer reads again");
            connections.dropped = 0;
        }
        if let Err(error) = outbox.put(|out| gcs_proto::encode(frame, out)) {
            tracing::error!(peer = %self.name, %error, "a message is too long to be sent");
        }
    }
}
