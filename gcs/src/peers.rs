//! Connections to the other daemons.
//!
//! Two connections a pair, each carrying messages one way, from the one that dialled. So nobody has to decide which of
//! two that were made at the same time stays, and a connection that broke in one direction is noticed by the side that
//! reads. A peer is *up* while both are there; the core hears of every change at once, and only hears messages of peers that
//! are up.
//!
//! Whoever sends has something to say at least every [`PING_EVERY`]; a reader that hears nothing for as long as
//! `[detector]` says takes the peer for dead and drops both connections. At half of that time it warns, once ([`silence`]). Whoever dials tries again for ever, with growing pauses, and at once when
//! the peer itself connects.
//!
//! (docs/adr/0013-peer-connections.md argues for this.)
//!
//! With `[tls]` both sides show certificates and each looks at the other's ([`crate::tls`]): the dialler in [`dial`], the acceptor in
//! [`greet`], both by [`secure`]. Callers that have not yet said who they are wait in bounded number ([`waiting`]).
//!
//! Beside the two a connection may be a [`tunnel`]: what a program of one node says to the PostgreSQL of another.
//!
//! Nothing here is reliable or needs to be: raft sends again whatever is lost, and messages beyond a bound are dropped.
//!
//! [`PING_EVERY`]: crate::bounds::PING_EVERY

mod accept;
mod admission;
mod dial;
mod greet;
mod join;
mod pace;
mod places;
mod secure;
mod silence;
mod table;
mod tunnel;
mod waiting;

use std::rc::Rc;
use std::sync::Arc;

use tokio::net::TcpListener;

use crate::enrolment::desk::Desk;
use crate::inbox::Inbox;
use crate::observe::counted::Counted;
use crate::roster::Roster;
use crate::tls::Security;

pub use dial::{DialError, To};
pub use join::{JoinError, join};
pub use pace::Pace;
pub use places::Places;
pub use table::Peers;
pub use tunnel::Tunnel;
pub use waiting::{Place, Waiting};

/// Starts accepting and dialling.
pub fn start(
    roster: Rc<Roster>,
    security: Rc<Security>,
    desk: Desk,
    inbox: Rc<Inbox>,
    counted: Arc<Counted>,
    listener: TcpListener,
) -> Rc<Peers> {
    let peers = Rc::new(Peers::new(roster, security, desk, inbox, counted));
    tokio::task::spawn_local(accept::run(peers.clone(), listener));
    follow(&peers);
    tokio::task::spawn_local({
        let peers = peers.clone();
        async move {
            peers.roster.removal().await;
            follow(&peers);
        }
    });
    peers
}

/// The roster is another: connections come and go. A node that was removed has none.
pub fn follow(peers: &Rc<Peers>) {
    for peer in peers.follow() {
        tokio::task::spawn_local(dial::run(peers.clone(), peer));
    }
}
