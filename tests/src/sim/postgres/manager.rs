//! The manager: attaches, takes positions and answers from the daemon, reports progress.

use std::rc::Rc;

use gcs_core::{Local, LocalReply};
use gcs_writeset::link::Verdict;
use gcs_writeset::{Position, SlotId};

use super::apply::Remote;
use super::local::Stage;
use super::model::Body;
use super::{Action, Ctx, Known, PgEvent, Postgres, Up};
use crate::sim::fact::{Delivery, Fact};
use crate::sim::time::ms;

impl Postgres {
    /// The daemon is there (again).
    pub fn link_up(&mut self, ctx: &mut Ctx<'_>) {
        ctx.within(ms(1), ms(50), PgEvent::Attach);
    }

    pub fn link_down(&mut self) {
        self.attached = false;
        self.quorum = false;
    }

    pub(super) fn attach(&mut self, ctx: &mut Ctx<'_>) {
        if !self.attached {
            let (incarnation, resume_after) = (self.incarnation, self.committed);
            ctx.out.push(Action::Up(Up::Attach { incarnation, resume_after }));
        }
    }

    pub(super) fn reply(&mut self, ctx: &mut Ctx<'_>, reply: LocalReply) {
        match reply {
            LocalReply::Attached { database, incarnation, serve_from, .. } if incarnation == self.incarnation => {
                self.database = Some(database);
                self.attached = true;
                self.serve_from = serve_from;
                self.serve_if_ready(ctx);
                self.send_all_again(ctx);
            }
            LocalReply::AttachRefused { incarnation, .. } if incarnation == self.incarnation => {
                ctx.within(ms(100), ms(500), PgEvent::Attach);
            }
            LocalReply::ChunkOrdered { tag, index } if tag.incarnation == self.incarnation => {
                self.chunk_ordered(ctx, tag, index);
            }
            LocalReply::Refused { tag, .. } if tag.incarnation == self.incarnation => self.refused(ctx, tag),
            _ => {}
        }
    }

    /// The next position. After a new attach some come again.
    pub(super) fn delivered(&mut self, ctx: &mut Ctx<'_>, delivery: &Rc<Delivery>) {
        let position = delivery.outcome.position;
        ctx.fact(Fact::Delivered { node: self.n, delivery: delivery.clone() });
        if position <= self.received {
            return;
        }
        debug_assert_eq!(position, self.received.next(), "positions are delivered without gaps");
        self.received = position;
        let local = self.waiting_for(delivery);
        match delivery.outcome.verdict {
            Verdict::Aborted(_) => {
                self.ring.insert(position, Known::Aborted);
                if let Some(slot) = local {
                    self.fail(ctx, slot, "could not serialize access due to a transaction on another node");
                }
            }
            Verdict::Certified { depends_on } => {
                let Ok(body) = Body::decode(&delivery.body) else {
                    return ctx.fact(Fact::Diverged { node: self.n, position, row: super::Row(u32::MAX) });
                };
                let body = Rc::new(body);
                self.bodies.insert(position, body.clone());
                let known = match local.and_then(|slot| Some((slot, self.txns.get_mut(&slot)?))) {
                    Some((slot, txn)) => {
                        txn.stage = Stage::Certified(position);
                        Known::Local(slot)
                    }
                    None => Known::Remote(Remote::queued(depends_on, body)),
                };
                self.ring.insert(position, known);
            }
        }
        self.serve_if_ready(ctx);
    }

    /// The backend that waits for this verdict, if it still does.
    fn waiting_for(&self, delivery: &Delivery) -> Option<SlotId> {
        let tag = delivery.tag;
        let ours = tag.node == self.node && tag.incarnation == self.incarnation;
        let txn = self.txns.get(&tag.slot).filter(|txn| ours && txn.sequence == tag.sequence)?;
        matches!(txn.stage, Stage::Sent).then_some(tag.slot)
    }

    /// Tells the daemon how far this server is.
    pub(super) fn report(&mut self, ctx: &mut Ctx<'_>) {
        if let Some(database) = self.database.filter(|_| self.attached) {
            let (committed, flushed, oldest_base) = (self.committed, self.flushed_for_sure, self.oldest_base());
            ctx.up(Local::Progress { database, committed, flushed, oldest_base });
        }
        ctx.within(ms(50), ms(300), PgEvent::Report);
        self.serve_if_ready(ctx);
    }

    /// Chunks of a transaction that ends before it was submitted are of no use.
    pub(super) fn abandon(&mut self, ctx: &mut Ctx<'_>, slot: SlotId) {
        if let Some(tag) = self.tag(slot)
            && matches!(self.txns.get(&slot).map(|txn| &txn.stage), Some(Stage::Sending { .. }))
        {
            ctx.up(Local::Abandon { tag });
        }
    }

    /// Clients are let in once everything is committed that this server may have shown before.
    fn serve_if_ready(&mut self, ctx: &mut Ctx<'_>) {
        if !self.serving && self.attached && self.committed >= self.serve_from {
            self.serving = true;
            ctx.fact(Fact::Serving { node: self.n, visible: self.visible });
        }
    }

    /// The server's own view of the end of the order.
    pub fn received(&self) -> Position {
        self.received
    }
}
