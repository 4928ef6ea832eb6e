//! A client's COMMIT: submit, wait for the turn, write the commit record, become visible, pass the turn on.
//!
//! Up to the turn the session can be ended, and an error can come up; what the group has committed is applied from the log then. Between the
//! turn and the commit record an error is still possible, afterwards nothing is.

use gcs_writeset::Position;
use gcs_writeset::link::Request;
use postgres_r_protocol::ending::{self, Released};
use postgres_r_protocol::submission::{Ended, Step, Submission};
use postgres_r_protocol::turn::{LocalTurn, Unfinished, Wait};

use super::client::{Client, Doing, Told};
use super::ground::{self, Ctx, Next, ServerEvent, Signal};
use super::landing::{self, Stage};
use super::writeset::{Outlet, Reading};
use crate::sim::fact::{Doubt, Elsewhere};
use crate::sim::time::{Span, Time, ms, us};

/// A node without its group for longer refuses writes at once.
const WRITABLE_GRACE: Span = ms(1_500);

impl Client {
    /// COMMIT. Nothing of the transaction is in the group.
    pub(super) fn commit(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        let has_written = self.txn.as_ref().is_some_and(|txn| !txn.changes.is_empty());
        if !has_written {
            return Some(self.finish(ctx, Told::Nothing));
        }
        if ctx.permille(ctx.ground.settings.ambush_permille) {
            self.ambush(ctx);
        }
        self.doing = Doing::WritableWait { since: ctx.now() };
        None
    }

    /// Somebody cancels what this session does, or ends it, about when the verdict comes.
    fn ambush(&mut self, ctx: &mut Ctx<'_, '_>) {
        let signal = if ctx.permille(400) { Signal::Cancel } else { Signal::Terminate };
        let number = ctx.ground.numbers[ctx.me.0 as usize];
        let latest = if ctx.permille(700) { ms(6) } else { ms(60) };
        let span = ctx.between(us(1), latest);
        ctx.hand.out.push(ground::Action::Later(span, ServerEvent::Signal(ctx.me, number, signal)));
    }

    /// A leader that changes costs a moment, not an error.
    pub(super) fn wait_for_writable(&mut self, ctx: &mut Ctx<'_, '_>, since: Time) -> Option<Next> {
        if self.interrupts.any() || self.is_victim(ctx) {
            return Some(self.interrupted(ctx));
        }
        let left = (since + WRITABLE_GRACE).since(ctx.now());
        if ctx.ground.memory.database.replica.is_writable() {
            self.start_submission(ctx);
            return None;
        }
        if left > us(0) { Some(Next::Sleep(Some(left))) } else { Some(self.finish(ctx, Told::Failed("no quorum"))) }
    }

    fn start_submission(&mut self, ctx: &mut Ctx<'_, '_>) {
        let (conn, asking, interrupts) = (&mut self.conn, &mut self.asking, self.interrupts);
        if let Some(txn) = &mut self.txn {
            let mut reading = Reading::new(ctx, txn);
            let me = ctx.me;
            let submission = Submission::new(me, &Outlet { ctx, txn, reading: &mut reading, conn, asking, interrupts });
            self.doing = Doing::Submitting(submission, reading);
        }
    }

    pub(super) fn submit(&mut self, ctx: &mut Ctx<'_, '_>) -> Option<Next> {
        if ctx.permille(1) {
            return Some(self.fail_somehow(ctx));
        }
        let (conn, asking, interrupts) = (&mut self.conn, &mut self.asking, self.interrupts);
        let (Doing::Submitting(submission, reading), Some(txn)) = (&mut self.doing, &mut self.txn) else { return None };
        // What the machine reads of shared memory while it also uses the connection: a handle on the same.
        let memory = ctx.ground.memory.clone();
        let slot = memory.slot(ctx.me);
        let step = submission.step(memory.at(), slot, &mut Outlet { ctx, txn, reading, conn, asking, interrupts });
        let patience = reading.asking.left(ctx.now());
        match step {
            Step::Sleep(span) => Some(Next::Sleep(patience.into_iter().chain([Span::of(span)]).min())),
            Step::Ended(ended) => {
                self.order_decides(ctx, ended);
                match ended {
                    Ended::Certified(position) => self.certified(ctx, position),
                    ended => Some(self.not_certified(ctx, ended)),
                }
            }
        }
    }

    /// Those who were asked to apply it ahead hear from the order how it went, or will go.
    fn order_decides(&mut self, ctx: &mut Ctx<'_, '_>, ended: Ended) {
        let decides = matches!(ended, Ended::Certified(_) | Ended::Aborted(_) | Ended::Unknown | Ended::UnknownAtEnd);
        if let Some(conn) = self.asking.take_if(|_| decides) {
            ctx.request(conn, Request::AheadDone { number: 0 });
            ctx.close(conn);
        }
    }

    fn not_certified(&mut self, ctx: &mut Ctx<'_, '_>, ended: Ended) -> Next {
        let slot = ctx.ground.memory.slot(ctx.me);
        let told = match ended {
            Ended::Certified(_) => return Next::Busy(us(1)),
            Ended::Interrupted => return self.interrupted(ctx),
            Ended::Aborted(_) => Told::Failed("could not serialize access due to a transaction on another node"),
            Ended::Refused(_) => Told::Failed("refused"),
            Ended::NoLink => Told::Failed("no link"),
            Ended::Behind(_) => {
                ctx.corner("too much was ahead for a commit to begin");
                Told::Failed("too far behind")
            }
            Ended::TooManyKeys | Ended::TooLarge => Told::Failed("too large"),
            Ended::Unappliable => {
                ctx.corner("a node said that a transaction cannot be applied there");
                Told::Failed("cannot be applied on another node")
            }
            Ended::Unknown if slot.is_asked_to_leave(slot.sequence()) => {
                ctx.corner("a submission was left, since its verdict could not come");
                Told::Doubt(Doubt::InTheWay)
            }
            Ended::Unknown => Told::Doubt(Doubt::NoVerdict),
            Ended::UnknownAtEnd => Told::Doubt(Doubt::SessionEnded),
        };
        self.finish(ctx, told)
    }

    fn certified(&mut self, ctx: &mut Ctx<'_, '_>, position: Position) -> Option<Next> {
        if ctx.permille(40) {
            self.doing = Doing::Decided(position);
            let latest = if ctx.permille(300) { ms(2_500) } else { ms(20) };
            return self.rest(ctx, us(10), latest);
        }
        self.come_to_gate(ctx, position);
        None
    }

    /// The rows of a statement that was decided early are sent; then its commit goes on.
    pub(super) fn read_rows(&mut self, ctx: &mut Ctx<'_, '_>, position: Position, wait: Span) -> Option<Next> {
        if self.interrupts.die {
            ctx.corner("a session was ended after its verdict");
            return Some(self.finish(ctx, Told::Elsewhere(position, Elsewhere::SessionEnded)));
        }
        if wait > us(0) {
            return Some(Next::Sleep(Some(wait)));
        }
        self.come_to_gate(ctx, position);
        None
    }

    fn come_to_gate(&mut self, ctx: &mut Ctx<'_, '_>, position: Position) {
        let (memory, timeout) = (&ctx.ground.memory, ctx.ground.settings.commit_timeout.duration());
        let turn = LocalTurn::new(memory.at(), memory.slot(ctx.me), position, timeout, ctx.now().moment());
        self.doing = Doing::AtGate(turn, position);
    }

    pub(super) fn wait_for_turn(&mut self, ctx: &mut Ctx<'_, '_>, position: Position) -> Option<Next> {
        if ctx.permille(1) {
            return Some(self.fail_somehow(ctx));
        }
        let Doing::AtGate(turn, _) = &mut self.doing else { return None };
        let memory = &ctx.ground.memory;
        let why = match turn.step(memory.at(), memory.slot(ctx.me), self.interrupts.die, ctx.hand.now.moment()) {
            Wait::Turn => {
                self.doing = Doing::Committing(Stage::Armed, position);
                return Some(Next::Busy(ctx.between(us(10), us(400))));
            }
            Wait::Sleep(span) => return Some(Next::Sleep(Some(Span::of(span)))),
            Wait::Unfinished(Unfinished::Yielded) => {
                ctx.corner("a yield was heard");
                Elsewhere::Yielded
            }
            Wait::Unfinished(Unfinished::Ending) => {
                ctx.corner("a session was ended after its verdict");
                Elsewhere::SessionEnded
            }
            Wait::Unfinished(Unfinished::TooLate) => Elsewhere::TooLate,
        };
        Some(self.finish(ctx, Told::Elsewhere(position, why)))
    }

    pub(super) fn commit_goes_on(&mut self, ctx: &mut Ctx<'_, '_>, stage: Stage, position: Position) -> Next {
        match stage {
            Stage::Armed if ctx.permille(2) => return self.fail_somehow(ctx),
            Stage::Visible(_) => ctx.ground.memory.database.replica.counters.commits.one(),
            Stage::Passed => return self.finish(ctx, Told::Acknowledged(position)),
            _ => {}
        }
        let Some(txn) = &self.txn else { return self.finish(ctx, Told::Nothing) };
        let next = landing::go_on(ctx, stage, position, (txn.id, || txn.changes()));
        self.doing = Doing::Committing(next, position);
        Next::Busy(ctx.between(us(5), us(200)))
    }

    /// An error of PostgreSQL's own: out of memory, a failing ON COMMIT action. The client is told by what becomes of the submission.
    fn fail_somehow(&mut self, ctx: &mut Ctx<'_, '_>) -> Next {
        let memory = &ctx.ground.memory;
        let told = match ending::release(memory.at(), memory.slot(ctx.me)) {
            Released::Nothing => Told::Failed("some error"),
            Released::Undecided => Told::Doubt(Doubt::Error),
            Released::HandedOver(position) => Told::Elsewhere(position, Elsewhere::Error),
        };
        ctx.corner("an error came up in the middle of a commit");
        self.finish(ctx, told)
    }
}
