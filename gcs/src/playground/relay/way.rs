//! One direction of a link: what one node says to another, as it comes, and the end of it too.
//!
//! Two halves go on beside each other. The first reads, and notes when each piece is to arrive; the second writes it when that moment has come
//! and the link is not cut. Between them are [`PIECES_MAX`] pieces at most: then the first stops reading and the kernel holds up the sender.
//! So a delay does not make a link narrow, and a link that is cut takes no more room than that. A cut counts between any two bytes: what was not
//! written when it came is written when it is healed.

use std::io;
use std::sync::Arc;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc::{self, Receiver, Sender};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use super::spoiling::Spoils;
use crate::playground::links::LinkFaults;

const PIECE_BYTES: usize = 16 << 10;
/// Under way in one direction, together a megabyte.
const PIECES_MAX: usize = 64;

#[derive(Debug)]
pub struct Way {
    from: String,
    to: String,
    faults: watch::Receiver<LinkFaults>,
    spoils: Arc<Spoils>,
}

/// What is under way.
#[derive(Debug)]
enum Cargo {
    Piece(BytesMut),
    /// The sender has closed its end, or it broke.
    End(io::Result<()>),
}

/// None: at once.
type Due = Option<Instant>;

impl Way {
    pub fn new(from: &str, to: &str, faults: watch::Receiver<LinkFaults>, spoils: Arc<Spoils>) -> Way {
        Way { from: from.to_owned(), to: to.to_owned(), faults, spoils }
    }

    /// Until the link is not cut.
    pub async fn open(&mut self) -> io::Result<()> {
        self.wait(false).await
    }

    async fn wait(&mut self, for_cut: bool) -> io::Result<()> {
        let is_so = |faults: &LinkFaults| faults.is_cut(&self.from, &self.to) == for_cut;
        // The relay is over.
        self.faults.wait_for(is_so).await.map(drop).map_err(io::Error::other)
    }

    /// Until the sender has closed its end, of which the other then hears, or either has broken. `said` was read before.
    pub async fn carry<R, W>(mut self, said: BytesMut, from: R, to: W) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let (departures, arrivals) = mpsc::channel(PIECES_MAX);
        let leaves = Way::new(&self.from, &self.to, self.faults.clone(), self.spoils.clone());
        tokio::try_join!(leaves.depart(said, from, departures), self.arrive(arrivals, to)).map(drop)
    }

    async fn depart<R>(self, mut said: BytesMut, mut from: R, departures: Sender<(Due, Cargo)>) -> io::Result<()>
    where
        R: AsyncRead + Unpin,
    {
        loop {
            let read = if said.is_empty() {
                said.reserve(PIECE_BYTES);
                from.read_buf(&mut said).await
            } else {
                Ok(said.len())
            };
            let cargo = match read {
                Ok(0) => Cargo::End(Ok(())),
                Ok(_) => Cargo::Piece(said.split()),
                Err(error) => Cargo::End(Err(error)),
            };
            let is_last = matches!(cargo, Cargo::End(_));
            let delay = self.faults.borrow().delay(&self.from, &self.to);
            let due = (!delay.is_zero()).then(|| Instant::now() + delay);
            // Who arrives ends before who departs only by an error, which it returns itself.
            if departures.send((due, cargo)).await.is_err() || is_last {
                return Ok(());
            }
        }
    }

    async fn arrive<W>(&mut self, mut arrivals: Receiver<(Due, Cargo)>, mut to: W) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        while let Some((due, cargo)) = arrivals.recv().await {
            if let Some(due) = due {
                sleep_until(due).await;
            }
            self.open().await?;
            match cargo {
                Cargo::Piece(piece) => self.write(piece, &mut to).await?,
                Cargo::End(ended) => {
                    ended?;
                    return to.shutdown().await;
                }
            }
        }
        Ok(())
    }

    async fn write<W>(&mut self, mut piece: BytesMut, to: &mut W) -> io::Result<()>
    where
        W: AsyncWrite + Unpin,
    {
        self.spoils.meddle(&self.from, &self.to, &mut piece);
        while piece.has_remaining() {
            tokio::select! {
                biased;
                cut = self.wait(true) => {
                    cut?;
                    self.open().await?;
                }
                written = to.write_buf(&mut piece) => {
                    if written? == 0 {
                        return Err(io::ErrorKind::WriteZero.into());
                    }
                }
            }
        }
        Ok(())
    }
}
