//! What SQL can call. Views over it are in sql/views.sql.

use std::sync::atomic::Ordering;

use pgrx::prelude::*;

use crate::error;
use crate::manager::request::{self, Wanted};
use crate::manager::statement;
use crate::pg::xact;
use crate::progress::Line;
use crate::session;
use crate::shmem::{self, DatabaseArea, Member, Phase};

/// ALTER DATABASE ... START REPLICATION IN GROUP ..., for clients that can't send that.
#[pg_extern(name = "start_replication_as_text")]
fn start_replication(database: &str, group_name: &str) {
    carry_out(database, &Wanted::Start { group: group_name.to_string() });
}

/// ALTER DATABASE ... STOP REPLICATION, for clients that can't send that.
#[pg_extern(name = "stop_replication_as_text")]
fn stop_replication(database: &str) {
    carry_out(database, &Wanted::Stop);
}

fn carry_out(database: &str, wanted: &Wanted) {
    if xact::in_block() {
        statement::in_block(wanted).raise();
    }
    if let Err(error) = request::ask(database, wanted, true) {
        error.raise();
    }
}

/// The group's members, as seen from this node, for the current database.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn member_list() -> TableIterator<
    'static,
    (
        name!(node, String),
        name!(address, String),
        name!(state, String),
        name!(leader, bool),
        name!(committed_position, i64),
        name!(lag, i64),
        name!(is_self, bool),
    ),
> {
    let rows = match (shmem::get(), session::database()) {
        (Some(shared), Some(area)) => shared.table.shared(|| members(area)),
        _ => Vec::new(),
    };
    TableIterator::new(rows)
}

type MemberRow = (String, String, String, bool, i64, i64, bool);

fn members(area: &DatabaseArea) -> Vec<MemberRow> {
    let count = area.state.member_count.load(Ordering::Relaxed) as usize;
    let attached = area.state.attached.load(Ordering::SeqCst);
    area.state.members.iter().take(count).map(|member| row(area, member, attached)).collect()
}

fn row(area: &DatabaseArea, member: &Member, attached: bool) -> MemberRow {
    let node = member.node.load(Ordering::Relaxed);
    let is_self = node == area.state.node().0;
    let mut committed = member.committed.load(Ordering::Relaxed);
    let mut ordered = member.ordered.load(Ordering::Relaxed);
    let state = match (is_self, area.state.phase(), attached) {
        (true, Phase::Failed, _) => "out of service",
        (true, _, false) => "detached",
        (true, _, true) if !area.state.serving.load(Ordering::SeqCst) => "catching up",
        (false, _, false) => "unknown",
        _ => member.state(),
    };
    if is_self {
        committed = area.gate.committed().0;
        ordered = ordered.max(area.gate.known().0);
    }
    let leader = attached && node == area.state.leader.load(Ordering::Relaxed);
    let lag = ordered.saturating_sub(committed) as i64;
    (member.name.get(), member.address.get(), state.to_string(), leader, committed as i64, lag, is_self)
}

/// The counters of the current database.
#[pg_extern]
fn counter_list() -> TableIterator<'static, (name!(name, String), name!(value, i64))> {
    let counters = session::database().map(|area| area.state.counters.all()).unwrap_or_default();
    TableIterator::new(counters.into_iter().map(|(name, value)| (name.to_string(), value as i64)))
}

/// The committed position of the current database on this node; null where it is not replicated.
#[pg_extern]
fn committed_position() -> Option<i64> {
    session::database().map(|area| area.gate.committed().0 as i64)
}

type LargeRow = (i32, String, &'static str, Option<i64>, i64, Option<i64>, i64, i64);

/// Large transactions under way in the current database on this node.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn large_transaction_list() -> TableIterator<
    'static,
    (
        name!(pid, i32),
        name!(node, String),
        name!(phase, &'static str),
        name!(position, Option<i64>),
        name!(bytes_done, i64),
        name!(bytes_total, Option<i64>),
        name!(rows, i64),
        name!(started_at, i64),
    ),
> {
    let rows: Vec<LargeRow> = match (shmem::get(), session::database()) {
        (Some(shared), Some(area)) => {
            let lines = shared.slots.iter().filter_map(|slot| slot.progress.line(area));
            lines.map(|line| large_row(area, &line)).collect()
        }
        _ => Vec::new(),
    };
    TableIterator::new(rows)
}

fn large_row(area: &DatabaseArea, line: &Line) -> LargeRow {
    let position = line.position.map(|position| position.0 as i64);
    let total = line.total.map(|total| total as i64);
    let node = area.state.node_name(line.node);
    (line.pid, node, line.phase, position, line.done as i64, total, line.rows as i64, line.started_at)
}

/// Without the library preloaded there is no shared memory, and nothing of this would work.
pub fn require_preload() {
    error::not_preloaded().raise();
}

extension_sql_file!("../../sql/views.sql", name = "views", finalize);
