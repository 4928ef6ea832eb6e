//! The local side: PostgreSQL on a Unix socket (`gcs_writeset::link`).
//!
//! From the top down:
//!
//! - [`session`]: one connection: who calls, what it asks.
//! - [`seat`]: a database has one manager at a time.
//! - [`hub`]: what a step ordered or answered, handed to the feeds.
//! - [`feed`]: the stream of positions to the manager of a database, live or from disk.
//! - [`fetcher`]: single writesets, on a connection of their own.
//! - [`rehearsal`]: transactions that are tried before they are ordered.
//! - [`changes`]: what people want of the membership.
//! - [`reader`]: up to where whoever reads must wait, and who shows what was written.
//! - [`inquiries`], [`examine`], [`looking`], [`events`]: what people's commands want to know, wait for, or tell.
//! - [`forerunner`], [`starter`]: transactions that are applied before they are submitted.
//! - [`backlog`]: positions read back from the log; [`chunk_reader`], [`piece`]: how.
//! - [`requests`], [`error`]: what comes in on a connection, what ends it.
//! - [`this_node`], [`databases`]: what all of them know.
//!
//! Requests go into the [`Inbox`]; what a step orders or answers comes back through the [`Hub`], which writes it to the managers'
//! sockets before the step is over.

mod backlog;
mod changes;
mod chunk_reader;
mod databases;
mod drain;
mod error;
mod events;
mod examine;
mod feed;
mod fetcher;
mod forerunner;
mod hub;
mod inquiries;
mod locker;
mod lockers;
mod looking;
mod piece;
mod reader;
mod readers;
mod rehearsal;
mod requests;
mod seat;
mod session;
mod sessions;
mod starter;
mod this_node;

use std::rc::Rc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::sleep;

use crate::bounds::LOCAL_SESSIONS_MAX;
use crate::copy::Copies;
use crate::log::{LogReader, Usage};
use crate::observe::counted::{Port, Rejection};
use crate::peers::Peers;
use this_node::ThisNode;

pub use hub::Hub;
pub use looking::{Looking, server_of};

/// Starts to accept connections, of users with these ids.
pub fn start(
    copies: Rc<Copies>,
    looking: Looking,
    peers: Rc<Peers>,
    log: LogReader,
    usage: Rc<Usage>,
    uids: Vec<u32>,
    listener: UnixListener,
) -> Rc<Hub> {
    let (inbox, roster) = (peers.inbox.clone(), peers.roster.clone());
    let (rehearsals, shown) = (peers.rehearsals.clone(), peers.shown.clone());
    let (databases, sessions, readers, lockers, complaints, presence) = Default::default();
    let (followed, lost) = Default::default();
    let node = ThisNode {
        roster,
        uids,
        inbox,
        peers,
        rehearsals,
        shown,
        readers,
        lockers,
        copies,
        log,
        usage,
        databases,
        sessions,
        complaints,
        followed,
        lost,
        looking,
        presence,
    };
    let hub = Rc::new(Hub::new(Rc::new(node)));
    hub.show_standing();
    tokio::task::spawn_local(accept(hub.clone(), listener));
    tokio::task::spawn_local(follow(hub.clone()));
    tokio::task::spawn_local({
        let hub = hub.clone();
        async move { drain::run(&hub).await }
    });
    hub
}

/// What daemons say of themselves is shown with what the order says of them.
async fn follow(hub: Rc<Hub>) {
    loop {
        // Made before looking, so that news in between are not missed.
        let news = hub.node.peers.standings.news.notified();
        hub.show_again();
        news.await;
    }
}

async fn accept(hub: Rc<Hub>, listener: UnixListener) {
    loop {
        match listener.accept().await {
            Ok(_) if hub.node.connections() >= LOCAL_SESSIONS_MAX => {
                hub.node.peers.counted.rejected(Port::Local, Rejection::Crowd);
                if let Some(kept_back) = hub.node.complaints.due("crowd", "") {
                    let limit = LOCAL_SESSIONS_MAX;
                    tracing::warn!(limit, kept_back, "too many connections on the local socket, the newest is closed");
                }
            }
            Ok((stream, _)) => {
                let (hub, presence) = (hub.clone(), hub.node.presence.clone());
                tokio::task::spawn_local(async move {
                    session::run(&hub, stream).await;
                    drop(presence);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                tracing::error!(%error, "could not accept a connection on the local socket");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
