//! What the errors of a client's backend say: those of transactions that lost, and those that would call a committed transaction failed.

use pgrx::prelude::*;
use postgres_r_protocol::conflicts::{Conflict, Kind, Loser};
use postgres_r_protocol::id::RoleId;
use postgres_r_protocol::slot::{Slot, State};
use postgres_r_protocol::victim::Winner;

use super::{held, token};
use crate::error::{self, Error};
use crate::node::{self, DatabaseArea};
use crate::pg::log::{Level, Report};
use crate::pg::{clock, process, role, setting};
use crate::session;
use crate::turn;

/// Keeps and counts a conflict that this process lost; gives it back. Raises nothing, reads no catalog.
pub fn noted(area: &DatabaseArea, conflict: Conflict) -> Conflict {
    let (role, application) = (RoleId(role::outer().to_u32()), setting::application_name());
    area.conflicts.note(&conflict, &Loser { pid: process::my_pid(), role, application }, clock::now());
    conflict
}

/// Raises the error of a transaction that must give way, if this one must.
pub fn raise_if_victim(area: &DatabaseArea, slot: &Slot) {
    if let Some(winner) = process::my_transaction().and_then(|transaction| slot.victim.winner_of(transaction)) {
        victim(area, winner).raise();
    }
}

/// The error of a transaction that stood in the way.
fn victim(area: &DatabaseArea, winner: Winner) -> Error {
    area.replica.counters.aborts_victim.one();
    error::victim(&noted(area, area.conflict(Kind::Victim, winner)))
}

/// Sees every report of an error before it is written anywhere.
pub fn on_report(report: &mut Report) {
    if !matches!(report.level(), Level::Error | Level::Fatal) {
        return;
    }
    if let Some(error) = truth_about(report) {
        report.rewrite(error.code, &error.message, error.detail.as_deref(), error.hint.as_deref());
    }
}

fn truth_about(report: &Report) -> Option<Error> {
    if process::was_sent_away() && report.is(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN) {
        return Some(error::sent_away());
    }
    if report.is(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN) && held::are_lost() {
        return Some(error::session_locks_lost());
    }
    if let Some(position) = turn::expected().map(|turn| turn.position()) {
        let ours = report.is(PgSqlErrorCode::ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN);
        return (!ours).then(|| error::committed_elsewhere(position, "Finishing it here failed."));
    }
    let (area, slot) = (session::database()?, node::my_slot()?);
    if matches!(slot.state(), State::Sent | State::Deciding | State::Certified) {
        area.replica.counters.outcomes_unknown.one();
        let why = "An error came up while the transaction was being committed.";
        return Some(error::outcome_unknown(why, token::current()));
    }
    // A summons that was heard was meant, though a late mark for an earlier transaction may have replaced the one it was for.
    let summoned = process::was_summoned();
    let marked = slot.victim.winner_of(process::my_transaction()?);
    let winner = marked.or_else(|| summoned.then(|| slot.victim.winner()))?;
    let by_summons = report.is(PgSqlErrorCode::ERRCODE_QUERY_CANCELED);
    let by_end = report.is(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN) && process::was_ended();
    let by_conflict = report.is(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE) && !report.says(error::LOST);
    (by_summons || by_end || by_conflict).then(|| {
        if by_end {
            area.replica.counters.sessions_ended.one();
        }
        victim(area, winner)
    })
}
