//! A relay between daemons: it stands where the daemons are found, and does to their links what a network can do to them.
//!
//! ```text
//! node1's daemon -> door of node2 (node2's address in the membership) -> relay -> where node2's daemon listens in fact
//! ```
//!
//! Daemons of a playground all call from one address, so who calls is told by the first frame, which names the caller ([`caller`]; this needs
//! daemons without TLS, as all are here). From then on nothing that passes is understood: a connection is a *link*, a stream of bytes each way
//! ([`way`]), and what is wrong with it is looked up in [`LinkFaults`] by the two names.
//!
//! On a link that is cut nobody hears of anything: not of bytes, and not of the end of a connection either. What is sent meanwhile stays in
//! bounded buffers and arrives, in order, when the link is healed, as TCP would have it sent again; if the two have given the connection up
//! by then, they have made another. A new connection on a link that is cut is taken and then hears nothing.
//!
//! Bounds: connections ([`CONNECTIONS_MAX`]), what is under way on each ([`way`]), how long a caller may take to say who it is.
//!
//! The tests of faults use the same relay, between daemons in networks of their own; for them it can also spoil bytes and break connections.
//!
//! Left out on purpose: lost and reordered packets, which a stream does not have (`tests/src/faults/network.rs` has).

mod caller;
pub mod spoiling;
mod way;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::{sleep, timeout};

use super::links::LinkFaults;
use crate::bounds::HANDSHAKE_TIMEOUT;
use spoiling::{Spoiling, Spoils};
use way::Way;

/// Connections at the same time: two for each pair of eight nodes, and room for copies and for attempts on links that are cut. At the bound the
/// next one waits to be accepted.
pub const CONNECTIONS_MAX: usize = 512;

/// Pause after a connection that could not be accepted.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// A node as the relay knows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    pub name: String,
    /// Where the others find it: here the relay listens.
    pub door: String,
    /// Where it listens itself.
    pub listen: String,
}

/// Must be used inside of a tokio runtime, and carries bytes for as long as that runs.
#[derive(Debug)]
pub struct Relay {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    faults: watch::Sender<LinkFaults>,
    spoils: Arc<Spoils>,
    broken: Notify,
    places: Arc<Semaphore>,
}

impl Default for Relay {
    fn default() -> Relay {
        let (faults, spoils, broken) = (watch::Sender::default(), Arc::default(), Notify::new());
        Relay { shared: Arc::new(Shared { faults, spoils, broken, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) }) }
    }
}

impl Relay {
    /// Listens for a node from now on; at the address that comes back.
    pub async fn open(&self, end: End) -> io::Result<SocketAddr> {
        let door = TcpListener::bind(&end.door).await?;
        let address = door.local_addr()?;
        tokio::spawn(accept(self.shared.clone(), door, Arc::new(end)));
        Ok(address)
    }

    /// These are in force from now on, and no others.
    pub fn set(&self, faults: LinkFaults) {
        self.shared.faults.send_replace(faults);
    }

    pub fn faults(&self) -> LinkFaults {
        self.shared.faults.borrow().clone()
    }

    /// Nothing is wrong any more.
    pub fn heal(&self) {
        self.shared.spoils.clear();
        self.set(LinkFaults::default());
    }

    /// Something happens to the next bytes that pass from one node to the other.
    pub fn spoil(&self, from: &str, to: &str, spoiling: Spoiling) {
        self.shared.spoils.add(from, to, spoiling);
    }

    /// Breaks every connection that is open.
    pub fn break_all(&self) {
        self.shared.broken.notify_waiters();
    }
}

async fn accept(shared: Arc<Shared>, door: TcpListener, end: Arc<End>) {
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = shared.places.clone().acquire_owned().await else { return };
        let stream = match door.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                eprintln!("gcs: could not accept a connection for {}: {error}", end.name);
                // Out of file descriptors, most likely: the pause keeps this from spinning.
                sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let (shared, end) = (shared.clone(), end.clone());
        tokio::spawn(async move {
            let broken = shared.broken.notified();
            tokio::select! {
                // Whatever ended it, both ends see theirs closed, as they would without a relay.
                _ = connection(&shared, stream, &end) => {}
                () = broken => {}
            }
            drop(place);
        });
    }
}

async fn connection(shared: &Shared, mut caller: TcpStream, end: &End) -> io::Result<()> {
    caller.set_nodelay(true)?;
    let (name, mut said) = timeout(HANDSHAKE_TIMEOUT, caller::who(&mut caller)).await.map_err(io::Error::other)??;
    let way = |from: &str, to: &str| Way::new(from, to, shared.faults.subscribe(), shared.spoils.clone());
    let (mut there, back) = (way(&name, &end.name), way(&end.name, &name));
    tokio::select! {
        open = there.open() => open?,
        gone = caller::gone(&mut caller, &mut said) => return Err(gone),
    }
    let called = timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(&end.listen)).await.map_err(io::Error::other)??;
    called.set_nodelay(true)?;
    let ((from_caller, to_caller), (from_called, to_called)) = (caller.into_split(), called.into_split());
    tokio::try_join!(there.carry(said, from_caller, to_called), back.carry(BytesMut::new(), from_called, to_caller))?;
    Ok(())
}

#[cfg(test)]
mod tests;
