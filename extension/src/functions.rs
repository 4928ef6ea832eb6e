//! What SQL can call. Views over it are in sql/views.sql, and what is SQL altogether in sql/assess.sql and sql/exclude.sql.

mod copies;
mod databases;
mod verification;

use std::sync::atomic::Ordering;

use gcs_writeset::{Position, Token, TokenOutcome};
use pgrx::Uuid;
use pgrx::prelude::*;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::progress::Line;
use postgres_r_protocol::replica::{Copying, Member, Phase, Presence};
use postgres_r_protocol::statement::Wanted;

use crate::backend::{ask, session_token, token};
use crate::error;
use crate::manager::ask as replication;
use crate::node::{self, DatabaseArea};
use crate::pg::relation::Oid;
use crate::pg::{origin, privilege, role, snapshot, xact};
use crate::session;

/// ALTER DATABASE ... START REPLICATION IN GROUP ..., for clients that can't send that.
#[pg_extern(name = "start_replication_as_text")]
fn start_replication(database: &str, group_name: &str, overwrite: bool) {
    carry_out(database, &Wanted::Start { group: group_name.to_string(), overwrite });
}

/// ALTER DATABASE ... STOP REPLICATION, for clients that can't send that.
#[pg_extern(name = "stop_replication_as_text")]
fn stop_replication(database: &str, force: bool) {
    carry_out(database, &Wanted::Stop { force });
}

fn carry_out(database: &str, wanted: &Wanted) {
    if xact::in_block() {
        replication::in_block(wanted).raise();
    }
    match replication::ask(database, wanted, true) {
        Ok(None) => {}
        Ok(Some(remark)) => remark.remark(),
        Err(error) => error.raise(),
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
        name!(role, String),
        name!(state, String),
        name!(leader, bool),
        name!(committed_position, Option<i64>),
        name!(lag, Option<i64>),
        name!(is_self, bool),
        name!(copies_from, Option<String>),
        name!(copied_bytes, Option<i64>),
        name!(total_bytes, Option<i64>),
        name!(seconds_left, Option<i64>),
    ),
> {
    let rows = match (node::get(), session::database()) {
        (Some(node), Some(area)) => node.table.shared(|| members(area)),
        _ => Vec::new(),
    };
    TableIterator::new(rows)
}

type MemberRow = (
    String,
    String,
    String,
    String,
    bool,
    Option<i64>,
    Option<i64>,
    bool,
    Option<String>,
    Option<i64>,
    Option<i64>,
    Option<i64>,
);

fn members(area: &DatabaseArea) -> Vec<MemberRow> {
    let count = area.replica.member_count.load(Ordering::Relaxed) as usize;
    let attached = area.replica.attached.load(Ordering::SeqCst);
    area.replica.members.iter().take(count).map(|member| row(area, member, attached)).collect()
}

fn row(area: &DatabaseArea, member: &Member, attached: bool) -> MemberRow {
    let node = member.node.load(Ordering::Relaxed);
    let is_self = node == area.replica.node().0;
    let has_databases = member.kind().has_databases();
    let mut committed = member.committed.load(Ordering::Relaxed);
    let mut ordered = member.ordered.load(Ordering::Relaxed);
    let state = match (is_self, area.phase(), attached) {
        (true, Phase::Failed, _) => "out of service",
        (true, _, false) => "detached",
        (true, _, true) if area.replica.failure.is_set() => "out of service",
        (true, _, true) if !area.replica.serving.load(Ordering::SeqCst) => "catching up",
        (false, _, false) => "unknown",
        // It is all there when its daemon is.
        _ if !has_databases && member.presence.load() == Presence::Detached => Presence::Online.name(),
        _ => member.presence.load().name(),
    };
    if is_self {
        committed = area.gate.committed().0;
        ordered = ordered.max(area.gate.known().0);
    }
    let leader = attached && node == area.replica.leader.load(Ordering::Relaxed);
    let lag = has_databases.then(|| ordered.saturating_sub(committed) as i64);
    let committed = has_databases.then_some(committed as i64);
    let (name, address, role) = (member.name.get(), member.address.get(), member.role_name().to_owned());
    let from = Some(member.copy.from.get()).filter(|from| !from.is_empty());
    let of_copy = |value: u64| (from.is_some() && value != Copying::NOT_KNOWN).then_some(value as i64);
    let [done, total, left] = [&member.copy.bytes_done, &member.copy.bytes_total, &member.copy.seconds_left]
        .map(|value| of_copy(value.load(Ordering::Relaxed)));
    (name, address, role, state.to_string(), leader, committed, lag, is_self, from, done, total, left)
}

type FailureRow = (String, i64, String, String, String, Option<String>, Option<String>, Option<TimestampWithTimeZone>, i32);

/// What databases of this server could not apply, and have yet to. The statement is shown to those who may see others' activity.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn failure_list() -> TableIterator<
    'static,
    (
        name!(database, String),
        name!(position, i64),
        name!(node, String),
        name!(sqlstate, String),
        name!(reason, String),
        name!(statement, Option<String>),
        name!(table_name, Option<String>),
        name!(since, Option<TimestampWithTimeZone>),
        name!(attempts, i32),
    ),
> {
    let Some(node) = node::get() else { return TableIterator::new(Vec::new()) };
    let failed = node.databases.iter().filter(|area| area.phase() != Phase::Off && area.replica.failure.is_set());
    let rows: Vec<FailureRow> = node.table.shared(|| failed.map(failure_row).collect());
    TableIterator::new(rows)
}

fn failure_row(area: &DatabaseArea) -> FailureRow {
    let (replica, failure) = (area.replica, &area.replica.failure);
    let named = |text: String| (!text.is_empty()).then_some(text);
    let statement = named(failure.statement.get()).filter(|_| privilege::sees_activity_of(Oid::INVALID));
    (
        replica.name.get(),
        failure.position().0 as i64,
        replica.node_name(failure.node()),
        xact::sqlstate(failure.code.load(Ordering::SeqCst)),
        replica.reason.get(),
        statement,
        named(failure.table.get()),
        TimestampWithTimeZone::try_from(failure.since.load(Ordering::SeqCst)).ok(),
        failure.attempts() as i32,
    )
}

/// A snapshot that other sessions may use while this transaction lasts, and the position whose state it shows, exactly.
///
/// The committed position is read before the snapshot is taken, so that everything up to it is seen. The origin's progress, read behind it, has
/// moved with every commit record: where it has not passed the committed position, nothing behind that can be seen.
#[pg_extern]
fn export_snapshot() -> TableIterator<'static, (name!(snapshot, String), name!(at_position, i64))> {
    let Some(area) = session::database() else { error::not_replicated("export_snapshot").raise() };
    if let Some(error) = session::phase_error(area) {
        error.raise();
    }
    let committed = || area.gate.committed();
    let (name, position) = snapshot::export(committed, |&position| origin::progress(area.origin()) <= position);
    TableIterator::once((name, position.0 as i64))
}

pgrx::extension_sql!(
    r#"
REVOKE ALL ON FUNCTION export_snapshot() FROM PUBLIC;
COMMENT ON FUNCTION export_snapshot() IS 'for a copy of this database: a snapshot, usable while this transaction lasts, and the position that it shows';
"#,
    name = "export_snapshot_rights",
    requires = [export_snapshot]
);

/// The counters of the current database.
#[pg_extern]
fn counter_list() -> TableIterator<'static, (name!(name, String), name!(value, i64))> {
    let counters = session::database().map(|area| area.replica.counters.all()).unwrap_or_default();
    TableIterator::new(counters.into_iter().map(|(name, value)| (name.to_string(), value as i64)))
}

/// Names the current transaction, so that its outcome can be asked for. Gives the position after which the name is used.
#[pg_extern]
fn set_commit_token(token: Uuid) -> i64 {
    token::set(Token(*token.as_bytes())).0 as i64
}

/// What became of the transaction with this token, asked of the group.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn commit_status(
    token: Uuid,
    fence_after: default!(Option<i64>, "NULL"),
) -> TableIterator<
    'static,
    (name!(status, String), name!(position, Option<i64>), name!(is_final, bool), name!(is_visible, bool)),
> {
    let Some(area) = session::database() else { error::not_replicated("commit_status").raise() };
    let fence_after = fence_after.map(|after| Position(after.max(0) as u64));
    let outcome = ask::ask(area, Token(*token.as_bytes()), fence_after).unwrap_or_else(|error| error.raise());
    let (status, position, is_final) = match outcome {
        TokenOutcome::Unknown => ("unknown", None, false),
        TokenOutcome::Committed { position } => ("committed", Some(position), true),
        TokenOutcome::Aborted { position } => ("aborted", Some(position), false),
        TokenOutcome::Fenced => ("aborted", None, true),
    };
    let is_visible = status == "committed" && position.is_some_and(|position| position <= area.gate.committed());
    let position = position.map(|position| position.0 as i64);
    TableIterator::once((status.to_string(), position, is_final, is_visible))
}

/// Conflicts that transactions of the current database lost on this node, those that the role may see.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn conflict_list() -> TableIterator<
    'static,
    (
        name!(at, Option<TimestampWithTimeZone>),
        name!(kind, String),
        name!(table_name, Option<String>),
        name!(key, Option<String>),
        name!(winner_node, String),
        name!(winner_position, i64),
        name!(winner_application, Option<String>),
        name!(usename, Option<String>),
        name!(application, Option<String>),
        name!(pid, i32),
    ),
> {
    let shown = session::database().map(|area| area.conflicts.shown()).unwrap_or_default();
    let named = |text: String| (!text.is_empty()).then_some(text);
    let rows = shown.into_iter().filter(|one| privilege::sees_activity_of(Oid::from(one.role.0))).map(move |one| {
        (
            TimestampWithTimeZone::try_from(one.at).ok(),
            one.kind.name().to_string(),
            named(one.table),
            named(one.key),
            one.node,
            one.position.0 as i64,
            named(one.winner),
            role::name_of(Oid::from(one.role.0)),
            named(one.loser),
            one.pid,
        )
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// How often transactions of the current database lost on this node, by table and key.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn conflict_count_list() -> TableIterator<
    'static,
    (
        name!(table_name, Option<String>),
        name!(key, Option<String>),
        name!(certification, i64),
        name!(victim, i64),
        name!(yielded, i64),
        name!(last_at, Option<TimestampWithTimeZone>),
    ),
> {
    let counted = session::database().map(|area| area.conflicts.counted()).unwrap_or_default();
    let rows = counted.into_iter().map(|one| {
        let [certification, victim, yielded] = one.by_kind.map(|count| count as i64);
        (one.table, one.key, certification, victim, yielded, TimestampWithTimeZone::try_from(one.last_at).ok())
    });
    TableIterator::new(rows.collect::<Vec<_>>())
}

/// The committed position of the current database on this node; null where it is not replicated.
#[pg_extern]
fn committed_position() -> Option<i64> {
    session::database().map(|area| area.gate.committed().0 as i64)
}

/// What this session has seen, for postgres_r.read_after on another node.
#[pg_extern(name = "session_token", volatile, parallel_unsafe)]
fn session_token_text() -> String {
    session_token::current()
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
    let rows: Vec<LargeRow> = match (node::get(), session::database()) {
        (Some(node), Some(area)) => {
            let slots = node.server.slots.iter().map(|slot| &slot.progress);
            let lines = slots.chain([&area.replica.fetched]).filter_map(|progress| progress.line(area.index));
            lines.map(|line| large_row(area, &line)).collect()
        }
        _ => Vec::new(),
    };
    TableIterator::new(rows)
}

fn large_row(area: &DatabaseArea, line: &Line) -> LargeRow {
    let position = line.position.map(|position| position.0 as i64);
    let total = line.total.map(|total| total as i64);
    let node = area.replica.node_name(line.node);
    (line.pid, node, line.stage, position, line.done as i64, total, line.rows as i64, line.started_at)
}

/// Without the library preloaded there is no shared memory, and nothing of this would work.
pub fn require_preload() {
    error::not_preloaded().raise();
}

// A schema that the script makes is the extension's, and not in a dump; the one that the control file names would not be.
extension_sql!("CREATE SCHEMA postgres_r; SET LOCAL search_path = postgres_r, pg_temp;", name = "schema", bootstrap);

extension_sql_file!("../../sql/views.sql", name = "views", finalize);
extension_sql_file!("../../sql/assess.sql", name = "assess");
extension_sql_file!("../../sql/exclude.sql", name = "exclude", requires = ["schema"]);
