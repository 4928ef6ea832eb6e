//! What a commit token has come to: `postgres_r_protocol::ask`, stepped by a client's backend.

use gcs_writeset::link::RefusalReason;
use gcs_writeset::{Position, Token, TokenOutcome};
use postgres_r_protocol::ask::{Ended, Question, Step};
use postgres_r_protocol::id::Moment;
use postgres_r_protocol::slot::State;
use postgres_r_protocol::submission::{Patience, Process, Sent};

use super::connection::{self, Connection};
use super::writable;
use crate::error::{self, Error};
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::{clock, interrupt, latch};
use crate::session;

/// What `token` had come to when this was asked. `fence_after`: see [`gcs_writeset::link::Request::AskToken`].
pub fn ask(area: &'static DatabaseArea, token: Token, fence_after: Option<Position>) -> Result<TokenOutcome, Error> {
    let Some((slot, process)) = node::get().and_then(node::Node::my_slot) else { return Err(error::not_preloaded()) };
    if !matches!(slot.state(), State::Idle | State::Left) {
        return Err(error::ask_while_sending());
    }
    if let Some(error) = writable::group_error(area) {
        return Err(error::cannot_ask(error));
    }
    let mut asking = Asking { area };
    let deadline = asking.now() + guc::commit_timeout();
    let mut question = Question::new(process, token, fence_after, deadline);
    loop {
        match question.step(area.at(), slot, &mut asking) {
            Step::Sleep(span) => latch::wait(Some(span)),
            Step::Ended(Ended::Answered(outcome)) => return Ok(outcome),
            Step::Ended(Ended::Refused(RefusalReason::NoQuorum)) => return Err(error::cannot_ask(session::no_quorum(area))),
            Step::Ended(Ended::Refused(_)) => return Err(error::cannot_ask(error::overloaded())),
            Step::Ended(Ended::NoAnswer) => return Err(error::no_answer(guc::commit_timeout())),
            Step::Ended(Ended::Interrupted) => {
                interrupt::check();
                return Err(error::canceled());
            }
        }
    }
}

/// This process, with its connection, and nothing to submit.
struct Asking {
    area: &'static DatabaseArea,
}

impl Process for Asking {
    fn now(&self) -> Moment {
        clock::moment()
    }

    fn is_interrupted(&self) -> bool {
        interrupt::pending()
    }

    fn is_ending(&self) -> bool {
        interrupt::die_pending()
    }

    fn is_connected(&mut self) -> bool {
        connection::with(Connection::is_alive)
    }

    fn connect(&mut self) -> bool {
        connection::with(|connection| connection.open(self.area).is_ok())
    }

    fn send(&mut self, frame: &[u8], deadline: Moment, patience: Patience) -> Sent {
        connection::with(|connection| connection.send(frame, deadline, patience))
    }
}
