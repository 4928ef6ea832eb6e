//! The transaction's writeset goes out, the verdict comes in: `postgres_r_protocol::submission`, stepped by a client's backend.

use std::time::{Duration, Instant};

use gcs_writeset::bounds::KEYS_MAX;
use gcs_writeset::link::{AbortCause, RefusalReason, Request, put_frame_with};
use gcs_writeset::wire::WireError;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{KeyGroup, Position, Sequence};
use postgres_r_protocol::conflicts::Kind;
use postgres_r_protocol::id::{LocalXid, Moment, ProcNo};
use postgres_r_protocol::progress::{Stage, Whose};
use postgres_r_protocol::slot::Slot;
use postgres_r_protocol::submission::{Ahead, Backend, Ended, Patience, Process, Sent, Step, Submission};
use postgres_r_protocol::victim::Winner;

use super::ahead::Asking;
use super::capture::Captured;
use super::connection::{self, Connection};
use super::failure::Failure;
use super::{held, hot_rows, lost, rehearsal, token};
use crate::error;
use crate::guc;
use crate::node::DatabaseArea;
use crate::pg::{clock, interrupt, latch, process, query, role, setting, xact};
use crate::session;

/// Sends what the transaction changed and waits for the verdict: the position to commit at, and when that was asked for. `is_long`: its statements take long.
pub fn submit(
    area: &'static DatabaseArea,
    slot: &'static Slot,
    process: ProcNo,
    captured: &mut Captured,
    is_long: bool,
) -> Result<(Position, i64), Failure> {
    check_keys(captured)?;
    let started = Instant::now();
    let asking = Asking::new(area, process, captured, is_long);
    let mut backend = Submitting { area, slot, captured, times: None, asking };
    let mut submission = Submission::new(process, &backend);
    let ended = loop {
        interrupt::serve_barrier();
        match submission.step(area.at(), slot, &mut backend) {
            Step::Sleep(span) => latch::wait(Some(span)),
            Step::Ended(ended) => break ended,
        }
    };
    area.replica.counters.verdict_wait_us.time(started.elapsed());
    match ended {
        Ended::Certified(_) | Ended::Aborted(_) => held::decided(),
        Ended::Unknown | Ended::UnknownAtEnd => held::in_doubt(),
        _ => {}
    }
    // What may never be ordered is withdrawn: who has applied it then applies it in its turn, if it has one.
    if matches!(ended, Ended::Certified(_) | Ended::Aborted(_)) {
        backend.asking.submitted();
    }
    match ended {
        Ended::Certified(position) => Ok((position, backend.times().1)),
        Ended::Interrupted => {
            interrupt::check();
            Err(Failure::Definite(error::canceled()))
        }
        Ended::Unappliable => match backend.asking.failure() {
            Some((node, failure)) => {
                area.replica.counters.rehearsals_failed.one();
                Err(rehearsal::refused(captured, &node, &failure))
            }
            None => Err(Failure::Definite(error::not_attached())),
        },
        ended => Err(failure(area, captured, ended)),
    }
}

fn check_keys(captured: &Captured) -> Result<(), Failure> {
    let groups = captured.unguarded.iter().map(KeyGroup::len);
    let keys = captured.exclusive.len() + captured.shared.len() + groups.sum::<usize>();
    if keys > KEYS_MAX { Err(Failure::Definite(error::too_many_keys(KEYS_MAX))) } else { Ok(()) }
}

fn failure(area: &'static DatabaseArea, captured: &Captured, ended: Ended) -> Failure {
    let counters = &area.replica.counters;
    match ended {
        Ended::Aborted(cause) => return aborted(area, captured, cause),
        Ended::Unknown => {
            counters.outcomes_unknown.one();
            let why = format!("The group did not answer within {} ms.", guc::commit_timeout().as_millis());
            return Failure::Unknown(error::outcome_unknown(&why, token::current()));
        }
        Ended::UnknownAtEnd => {
            counters.outcomes_unknown.one();
            let why = "The session was ended while the transaction was being committed.";
            return Failure::Terminated(error::outcome_unknown(why, token::current()));
        }
        _ => {}
    }
    Failure::Definite(match ended {
        Ended::Refused(RefusalReason::NoQuorum) => {
            counters.refused_quorum.one();
            session::no_quorum(area)
        }
        Ended::Refused(RefusalReason::Overloaded) => {
            counters.refused_overload.one();
            error::overloaded()
        }
        Ended::Behind(positions) => {
            counters.refused_overload.one();
            error::behind(positions)
        }
        Ended::NoLink => session::no_link(area),
        Ended::TooManyKeys => error::too_many_keys(KEYS_MAX),
        Ended::TooLarge => error::too_large(captured.body.length(), guc::max_writeset_bytes()),
        _ => error::not_attached(),
    })
}

fn aborted(area: &'static DatabaseArea, captured: &Captured, cause: AbortCause) -> Failure {
    let counters = &area.replica.counters;
    let error = match cause {
        AbortCause::Conflict { winner, winner_node, key_index } => {
            counters.aborts_conflict.one();
            captured.row_key(key_index).into_iter().for_each(|key| hot_rows::lost(key, winner));
            let found = captured.describe(key_index).unwrap_or_default();
            let key = found.key_for(Some(role::outer()));
            let winner = Winner { position: winner, node: winner_node, table: found.table, key };
            let position = winner.position;
            let conflict = lost::noted(area, area.conflict(Kind::Certification, winner));
            return Failure::Lost { winner: position, error: error::conflict(&conflict) };
        }
        AbortCause::BelowHorizon { horizon } => {
            counters.aborts_horizon.one();
            error::below_horizon(horizon)
        }
        AbortCause::Malformed => {
            counters.aborts_malformed.one();
            error::malformed()
        }
        AbortCause::Prepared { winner, winner_node, key_index } => {
            counters.aborts_conflict.one();
            let found = captured.describe(key_index).unwrap_or_default();
            let key = found.key_for(Some(role::outer()));
            let winner = Winner { position: winner, node: winner_node, table: found.table, key };
            let identifier = identifier_at(winner.position);
            let conflict = lost::noted(area, area.conflict(Kind::Certification, winner));
            error::pinned(&conflict, identifier.as_deref())
        }
        AbortCause::NotPrepared => return Failure::NotPrepared,
        AbortCause::AlreadyPrepared => return Failure::AlreadyPrepared,
        AbortCause::TooManyPrepared => error::too_many_prepared(),
        AbortCause::LocksLost => {
            counters.aborts_locks_lost.one();
            held::refused()
        }
        AbortCause::TokenUsed { first } => {
            counters.refused_token.one();
            error::token_used(first)
        }
        AbortCause::TokenFenced => {
            counters.refused_token.one();
            error::token_fenced()
        }
        AbortCause::TokenTooOld { floor } => {
            counters.aborts_horizon.one();
            error::token_too_old(floor)
        }
    };
    Failure::Definite(error)
}

/// What the client calls the transaction that was prepared at this position, if this node shows it.
fn identifier_at(position: Position) -> Option<String> {
    query::text(&format!("SELECT gid FROM postgres_r.prepared WHERE position = {position}"))
}

/// This process, with its connection and a writeset.
struct Submitting<'a> {
    area: &'static DatabaseArea,
    slot: &'static Slot,
    captured: &'a mut Captured,
    /// When the transaction began and when COMMIT was asked for, microseconds since 2000; known once anybody is told.
    times: Option<(i64, i64)>,
    /// What the other nodes apply ahead.
    asking: Asking,
}

impl Submitting<'_> {
    fn times(&mut self) -> (i64, i64) {
        *self.times.get_or_insert_with(xact::times)
    }

    fn envelope(&mut self, chunks: u32, base: Position, oldest_base: Position) -> Envelope {
        let (started_at, committed_at) = self.times();
        let captured = &mut *self.captured;
        let mut groups = vec![KeyGroup {
            base,
            exclusive: std::mem::take(&mut captured.exclusive),
            shared: std::mem::take(&mut captured.shared),
            ..KeyGroup::default()
        }];
        groups.append(&mut captured.unguarded);
        let has_statements = captured.has_statements;
        let two_phase = captured.two_phase;
        // What has this token is not committed before it is decided on.
        let token = token::current().filter(|_| two_phase.is_none());
        let application = setting::application_name();
        self.slot.set_application(&application);
        let holder = held::holder();
        let locks_are_advice = holder.is_some() && held::are_advice();
        Envelope {
            has_statements,
            chunks,
            oldest_base,
            started_at,
            committed_at,
            token,
            holder,
            locks_are_advice,
            two_phase,
            application,
            groups,
        }
    }
}

impl Process for Submitting<'_> {
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

impl Backend for Submitting<'_> {
    fn transaction(&self) -> LocalXid {
        process::my_transaction().unwrap_or(LocalXid::NONE)
    }

    fn commit_timeout(&self) -> Duration {
        guc::commit_timeout()
    }

    fn body_length(&self) -> u64 {
        self.captured.body.length()
    }

    fn rows(&self) -> u64 {
        self.captured.rows
    }

    fn read_body(&mut self, out: &mut Vec<u8>, bytes: usize) {
        self.captured.body.read(out, bytes);
    }

    fn put_writeset(
        &mut self,
        frame: &mut Vec<u8>,
        request: &Request,
        chunks: u32,
        base: Position,
        oldest_base: Position,
    ) -> Result<(), WireError> {
        let envelope = self.envelope(chunks, base, oldest_base);
        let body = &mut self.captured.body;
        // What has not gone ahead in chunks goes from where it was captured into the frame, in one copy.
        let Ok(rest) = usize::try_from(body.left()) else { return Err(WireError::OutOfRange { what: "writeset body" }) };
        put_frame_with(frame, request, |frame| envelope.encode_into(frame, rest, |frame| body.read(frame, rest)))
    }

    fn sending(&mut self, total: u64) {
        let progress = &self.slot.progress;
        if progress.is_idle() {
            let (pid, node, started_at) = (process::my_pid(), self.area.replica.node(), clock::now());
            let whose = Whose { pid, database: self.area.index, node, started_at };
            progress.start(whose, Position::ZERO, Stage::Sending);
        }
        progress.total(total);
    }

    fn is_to_go_ahead(&self) -> bool {
        self.asking.is_wanted()
    }

    fn go_ahead(&mut self, sequence: Sequence, chunks: u32, after: Position) -> Ahead {
        let times = self.times();
        self.asking.ask(self.captured, times, (sequence, chunks), after)
    }
}
