//! A question out, an answer in: what a commit token came to.
//!
//! The question is ordered like a writeset, and answered from its place in the order: whatever had been ordered when it was asked
//! counts, however far behind this node is. It takes no position. Asking changes nothing that could not be asked again, so
//! interrupts are served all along, and what is lost with a link is sent again.

use std::time::Instant;

use gcs_writeset::link::{RefusalReason, Request, put_frame};
use gcs_writeset::{Position, SlotId, Token, TokenOutcome};

use super::connection::Sent;
use super::slot::State;
use super::{CONNECTION, LOOK_AROUND, REFUSED_PAUSE};
use crate::error::{self, Error};
use crate::guc;
use crate::pg::{interrupt, latch};
use crate::session;
use crate::shmem::{DatabaseArea, Shared};

/// What `token` had come to when this was asked. `fence_after`: see [`Request::AskToken`].
pub fn ask(
    shared: &'static Shared,
    area: &'static DatabaseArea,
    token: Token,
    fence_after: Option<Position>,
) -> Result<TokenOutcome, Error> {
    let Some((slot, place)) = shared.my_slot() else { return Err(error::not_preloaded()) };
    if slot.state() != State::Idle {
        return Err(error::ask_while_sending());
    }
    if let Some(error) = session::group_error(area) {
        return Err(error::cannot_ask(error));
    }
    let sequence = slot.open(area.index);
    let mut frame = Vec::with_capacity(64);
    let request = Request::AskToken { slot: SlotId(place.0), sequence, token, fence_after };
    put_frame(&mut frame, &request, &[]).map_err(|_| error::not_preloaded())?;
    let deadline = Instant::now() + guc::commit_timeout();
    let mut sent_under = None;
    let answer = loop {
        if let Some(outcome) = slot.answer(sequence) {
            break Ok(outcome);
        }
        if slot.state() == State::Refused {
            match slot.refusal() {
                RefusalReason::NotAttached => {
                    slot.open_again(sequence);
                    sent_under = None;
                    latch::wait(Some(REFUSED_PAUSE));
                }
                RefusalReason::NoQuorum => break Err(error::cannot_ask(error::no_quorum())),
                RefusalReason::Overloaded => break Err(error::cannot_ask(error::overloaded())),
            }
        }
        if interrupt::pending() {
            slot.finish();
            interrupt::check();
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break Err(error::no_answer(guc::commit_timeout()));
        }
        let attach = area.state.attaches.load(std::sync::atomic::Ordering::SeqCst);
        let is_attached = area.state.attached.load(std::sync::atomic::Ordering::SeqCst);
        let is_alive = CONNECTION.with_borrow_mut(super::connection::Connection::is_alive);
        if is_attached && (sent_under != Some(attach) || !is_alive) && send(shared, area, &frame, deadline) {
            sent_under = Some(attach);
        }
        latch::wait(Some(left.min(LOOK_AROUND)));
    };
    slot.finish();
    answer
}

fn send(shared: &Shared, area: &DatabaseArea, frame: &[u8], deadline: Instant) -> bool {
    CONNECTION.with_borrow_mut(|connection| {
        connection.open(shared, area).is_ok() && matches!(connection.send(frame, deadline, interrupt::pending), Sent::Whole)
    })
}
