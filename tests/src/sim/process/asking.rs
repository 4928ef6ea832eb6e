//! A client's backend asks the other nodes to apply its transaction before it is submitted, and waits for their answers, though not for long. A model
//! of the extension's `backend/ahead.rs`.
//!
//! The connection that it asks on stays open until the submission has ended. Closed without a word, it withdraws the question.

use gcs_writeset::link::{Rehearsal, Reply, Request};
use gcs_writeset::{Position, Sequence, SlotId};
use postgres_r_protocol::submission::Ahead;

use super::ground::{Action, Ctx};
use crate::sim::time::{Span, Time, ms};
use crate::sim::wire::{Caller, ConnId};

/// For how long, at least and at most, a backend waits for the others.
const PATIENCE: (Span, Span) = (ms(5), ms(200));

/// One transaction's question.
#[derive(Debug)]
pub struct Asking {
    is_wanted: bool,
    /// Until when it waits for answers; known from when it has asked.
    until: Option<Time>,
    /// Nodes that were asked, once that is known, and that have answered.
    asked: Option<u32>,
    answered: u32,
    is_over: bool,
}

impl Asking {
    pub fn new(is_wanted: bool) -> Asking {
        Asking { is_wanted, until: None, asked: None, answered: 0, is_over: false }
    }

    pub fn is_wanted(&self) -> bool {
        self.is_wanted
    }

    /// What is left of its patience, while it waits.
    pub fn left(&self, now: Time) -> Option<Span> {
        self.until.filter(|_| !self.is_over).map(|until| until.since(now))
    }

    pub fn go_on(
        &mut self,
        ctx: &mut Ctx<'_, '_>,
        conn: &mut Option<ConnId>,
        (sequence, chunks): (Sequence, u32),
        after: Position,
    ) -> Ahead {
        if self.until.is_none() {
            self.until = Some(ctx.now() + ctx.between(PATIENCE.0, PATIENCE.1));
            *conn = ctx.connect(Caller::Asker);
            if let Some(conn) = *conn {
                let slot = SlotId(ctx.me.0);
                ctx.request(conn, Request::Ahead { slot, sequence, chunks, after, patience_ms: 0 });
            }
        }
        let ahead = self.listen(ctx, *conn);
        self.is_over = ahead != Ahead::Wait;
        ahead
    }

    fn listen(&mut self, ctx: &mut Ctx<'_, '_>, conn: Option<ConnId>) -> Ahead {
        let Some(conn) = conn else { return Ahead::Over };
        while let Some((reply, _)) = ctx.ground.ends.front(conn) {
            ctx.ground.ends.consume(conn);
            ctx.hand.out.push(Action::Read(conn));
            match reply {
                Reply::Rehearsing { nodes } => self.asked = Some(nodes),
                Reply::Rehearsed { outcome: Rehearsal::Failed(_), .. } => return Ahead::Unappliable,
                Reply::Rehearsed { .. } => self.answered += 1,
                _ => {}
            }
        }
        let have_all_answered = self.asked.is_some_and(|asked| self.answered >= asked);
        let is_late = self.until.is_none_or(|until| ctx.now() >= until);
        if !have_all_answered && is_late {
            ctx.corner("others took too long to apply something ahead");
        }
        if have_all_answered || is_late || ctx.ground.ends.is_over(conn) { Ahead::Over } else { Ahead::Wait }
    }
}
