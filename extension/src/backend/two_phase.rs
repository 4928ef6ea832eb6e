//! PREPARE TRANSACTION, COMMIT PREPARED and ROLLBACK PREPARED in the group (docs/adr/0061-prepared-transactions.md).
//!
//! ```text
//! PREPARE TRANSACTION  what COMMIT would do first (deferred triggers); a writeset with the transaction's keys and, as one item, with its body;
//!                      the verdict. The transaction itself is rolled back here: the position goes to the remote backends, which put the item into
//!                      postgres_r.prepared on every node. From its position on the order keeps everybody off the keys.
//! COMMIT PREPARED      on any node: a writeset with that body. It is applied on this node as on all others; the session waits for that.
//! ROLLBACK PREPARED    likewise, without the body.
//! ```
//!
//! Nothing is kept in this process or in PostgreSQL's own list of prepared transactions: a transaction that is prepared outlives its session, its server and
//! its node.

use std::cell::Cell;
use std::time::Instant;

use gcs_writeset::bounds::PREPARED_BODY_BYTES_MAX;
use gcs_writeset::two_phase::{self as wire, Prepared};
use gcs_writeset::{KeyGroup, Phase, Position, TwoPhase};
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::ending;
use postgres_r_protocol::id::ProcNo;
use postgres_r_protocol::slot::Slot;

use super::capture::Captured;
use super::failure::Failure;
use super::{capture, commit, held, levels, lost, shown, submit, writable};
use crate::error::{self, Error};
use crate::guc;
use crate::node::{self, DatabaseArea};
use crate::pg::query::{self, literal};
use crate::pg::two_phase::{self, Bound, Statement};
use crate::pg::utility::Utility;
use crate::pg::{foreign, prepared_list, role, xact};
use crate::sequences;
use crate::session;
use crate::turn::{self, Turn};

/// PostgreSQL takes identifiers of less bytes.
const IDENTIFIER_BYTES: usize = 200;

/// How often a decision is made anew when another one of the same name was ordered first.
const TRIES_MAX: usize = 16;

thread_local! {
    /// What this session has prepared last, until it is seen here.
    static OWN: Cell<Option<Position>> = const { Cell::new(None) };
}

/// Called while libraries are preloaded. A server that can't be made to show what is prepared must not start: nobody would decide on it.
pub fn install() {
    if !prepared_list::on_list(listed) {
        error::unknown_server().raise();
    }
    capture::statement::on_two_phase(run);
}

/// As `pg_prepared_xact()` shows what this server has prepared. In the group no transaction has a number yet.
fn listed() -> Vec<[String; prepared_list::COLUMNS]> {
    if session::database().is_none() {
        return Vec::new();
    }
    let rows = query::rows(
        "SELECT '0', p.gid, p.prepared, coalesce(a.oid, 0), d.oid
         FROM postgres_r.prepared p LEFT JOIN pg_catalog.pg_authid a ON a.rolname = p.owner
         JOIN pg_catalog.pg_database d ON d.datname = pg_catalog.current_database() ORDER BY p.prepared",
    );
    rows.into_iter().filter_map(|row| <[_; 5]>::try_from(row).ok()).map(|row| row.map(Option::unwrap_or_default)).collect()
}

/// What this session has prepared is seen by its next statement. Whether a snapshot may be too old for that.
pub fn see_own() -> bool {
    let (Some(position), Some(area)) = (OWN.take(), session::database()) else { return false };
    // If it does not come in time, it comes later.
    let _ = levels::until_visible(area, position, Instant::now() + guc::commit_timeout());
    true
}

/// Carries the statement out, unless what is to be said to it is PostgreSQL's to say.
fn run(utility: &mut Utility, statement: &Statement) {
    match statement.phase {
        // Outside of a block PostgreSQL warns; a block that has failed is rolled back.
        Phase::Prepare if !two_phase::is_in_block() => return,
        Phase::Prepare => two_phase::ending_the_block(|| prepare(statement)),
        Phase::Commit => {
            two_phase::not_in_block(utility.is_top_level(), c"COMMIT PREPARED");
            finish(statement);
        }
        Phase::Rollback => {
            two_phase::not_in_block(utility.is_top_level(), c"ROLLBACK PREPARED");
            finish(statement);
        }
    }
    utility.has_been_done();
}

struct Submitter {
    area: &'static DatabaseArea,
    slot: &'static Slot,
    process: ProcNo,
}

impl Submitter {
    fn this() -> Submitter {
        let found = session::database().zip(node::get().and_then(|node| node.my_slot()));
        let Some((area, (slot, process))) = found else { error::not_attached().raise() };
        Submitter { area, slot, process }
    }

    fn submit(&self, captured: &mut Captured) -> Result<(Position, i64), Failure> {
        commit::submits(self.area);
        submit::submit(self.area, self.slot, self.process, captured, false)
    }
}

/// In a block that is rolled back afterwards.
fn prepare(statement: &Statement) {
    let submitter = Submitter::this();
    lost::raise_if_victim(submitter.area, submitter.slot);
    two_phase::run_deferred();
    let identifier = identifier(statement);
    refuse_what_stays_here();
    capture::catalogs::refuse_commit();
    writable::ensure();
    held::check();
    sequences::flush();
    let base = session::committed();
    refuse_what_is_there(identifier);
    xact::check_serializable();
    let mut captured = captured(identifier);
    captured.unguarded.push(name_group(identifier, base));
    captured.two_phase = Some(TwoPhase { phase: Phase::Prepare, name: wire::name(identifier) });
    match submitter.submit(&mut captured) {
        Ok((position, _)) => OWN.set(Some(position)),
        Err(Failure::AlreadyPrepared) => error::already_prepared(Some(identifier)).raise(),
        Err(failure) => failure.raise(),
    }
}

/// The transaction's keys, and its body as one item.
fn captured(identifier: &str) -> Captured {
    let has_writes = capture::has_writes();
    let mut captured = capture::take();
    capture::reset();
    if captured.has_statements {
        refused("a transaction that has run DDL or TRUNCATE in a replicated database", "Use COMMIT.").raise();
    }
    // What it has only read need not stand until it is decided on.
    if !has_writes {
        captured.unguarded.iter_mut().for_each(|group| group.checked.clear());
    }
    let length = captured.body.length();
    let Some(bytes) = usize::try_from(length).ok().filter(|bytes| *bytes <= PREPARED_BODY_BYTES_MAX) else {
        too_large(length).raise()
    };
    let mut body = Vec::new();
    captured.body.read(&mut body, bytes);
    let owner = role::name_of(role::outer()).unwrap_or_default();
    let (_, prepared_at) = xact::times();
    let mut item = Vec::with_capacity(body.len() + 1024);
    Prepared { identifier, owner: &owner, prepared_at, body: &body }.put(&mut item);
    captured.carry(Captured::of_items([&item[..]]));
    captured
}

/// Whoever prepares or decides under this name excludes everybody else who does.
fn name_group(identifier: &str, base: Position) -> KeyGroup {
    KeyGroup { base, exclusive: vec![wire::name(identifier)], ..KeyGroup::default() }
}

fn identifier(statement: &Statement) -> &str {
    let Some(identifier) = &statement.identifier else { not_utf8().raise() };
    if statement.identifier_bytes >= IDENTIFIER_BYTES {
        too_long(identifier).raise();
    }
    if two_phase::server_limit() == 0 {
        disabled().raise();
    }
    identifier
}

fn refuse_what_stays_here() {
    // As the wrapper itself does on one server.
    if let Some(wrapper) = foreign::wrapper() {
        refused(&format!("a transaction that has operated on {wrapper} foreign tables"), "").raise();
    }
    match two_phase::bound() {
        None => {}
        Some(Bound::Temporary) => refused("a transaction that has operated on temporary objects", "").raise(),
        Some(Bound::ExportedSnapshot) => refused("a transaction that has exported snapshots", "").raise(),
        Some(Bound::HeldCursor) => refused("a transaction that has created a cursor WITH HOLD", "").raise(),
    }
    if held::are_of_transaction() {
        error::prepared_locks().raise();
    }
    if capture::stays_here() {
        refused("a transaction that has changed unlogged or foreign tables in a replicated database", "Use COMMIT.").raise();
    }
}

/// As PostgreSQL does on one server. Of two that do not see each other the order refuses one.
fn refuse_what_is_there(identifier: &str) {
    let quoted = literal(identifier);
    let sql = format!("SELECT count(*), coalesce(bool_or(gid = {quoted}), false) FROM postgres_r.prepared");
    let Some([Some(count), Some(is_there)]) = query::first_row(&sql).and_then(|row| <[_; 2]>::try_from(row).ok()) else {
        return;
    };
    if is_there == "t" {
        error::already_prepared(Some(identifier)).raise();
    }
    let limit = two_phase::server_limit();
    if count.parse::<usize>().is_ok_and(|count| count >= limit) {
        server_is_full(limit).raise();
    }
}

/// Decides on a prepared transaction, whichever node prepared it.
fn finish(statement: &Statement) {
    let submitter = Submitter::this();
    let Some(identifier) = &statement.identifier else { not_utf8().raise() };
    writable::ensure();
    held::check();
    for _ in 0..TRIES_MAX {
        match decide(&submitter, identifier, statement.phase) {
            // Another decision was ordered first, and another transaction may be prepared under that name by now.
            Err(Failure::Lost { .. }) => {}
            Err(Failure::NotPrepared) => error::not_prepared(Some(identifier)).raise(),
            Err(failure) => failure.raise(),
            Ok((position, committed_at)) => return wait_for(&submitter, statement.phase, position, committed_at),
        }
    }
    error::not_prepared(Some(identifier)).raise()
}

fn decide(submitter: &Submitter, identifier: &str, phase: Phase) -> Result<(Position, i64), Failure> {
    levels::see_acknowledged(submitter.area).map_err(Failure::Definite)?;
    let base = session::committed();
    let Some(found) = find(identifier) else { return Err(Failure::NotPrepared) };
    if !role::is_superuser() && role::name_of(role::outer()).as_deref() != Some(&*found.owner) {
        return Err(Failure::Definite(not_the_owner()));
    }
    let mut finished = Vec::new();
    wire::put_finished(&mut finished, identifier);
    let body = if phase == Phase::Commit { &found.body[..] } else { &[] };
    let items = [body, &finished];
    let mut captured = Captured::of_items(items.into_iter().filter(|item| !item.is_empty()));
    captured.unguarded.push(name_group(identifier, base));
    captured.two_phase = Some(TwoPhase { phase, name: wire::name(identifier) });
    submitter.submit(&mut captured)
}

/// The position goes to the remote backends of this node. It is decided; what comes up while it is waited for says so.
fn wait_for(submitter: &Submitter, phase: Phase, position: Position, committed_at: i64) {
    let Submitter { area, slot, .. } = *submitter;
    if phase == Phase::Commit {
        turn::expect(Turn::of(area, position, committed_at));
    }
    ending::release(area.at(), slot);
    let limit = guc::commit_timeout();
    let seen = levels::until_visible(area, position, Instant::now() + limit);
    if phase == Phase::Commit {
        if seen.is_err() {
            let why = "Earlier transactions of the group take too long to apply here.";
            error::committed_elsewhere(position, why).raise();
        }
        shown::committed(area, position);
    }
    turn::forget();
}

struct Found {
    owner: String,
    body: Vec<u8>,
}

fn find(identifier: &str) -> Option<Found> {
    let quoted = literal(identifier);
    let sql = format!("SELECT owner, encode(body, 'hex') FROM postgres_r.prepared WHERE gid = {quoted}");
    let [owner, body] = <[_; 2]>::try_from(query::first_row(&sql)?).ok()?;
    Some(Found { owner: owner?, body: bytes(&body?)? })
}

/// What two digits each stand for.
fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = hex.as_bytes().as_chunks::<2>();
    let pair = |[high, low]: &[u8; 2]| Some(digit(*high)? << 4 | digit(*low)?);
    rest.is_empty().then(|| pairs.iter().map(pair).collect())?
}

fn refused(what: &str, hint: &str) -> Error {
    let error = Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, format!("cannot PREPARE {what}"));
    if hint.is_empty() { error } else { error.hint(hint) }
}

fn too_large(bytes: u64) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "transaction is too large to be prepared")
        .detail(format!("Its changes take {bytes} bytes, of at most {PREPARED_BODY_BYTES_MAX}."))
        .hint("Use COMMIT, or change less in one transaction.")
}

fn too_long(identifier: &str) -> Error {
    let message = format!("transaction identifier \"{identifier}\" is too long");
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

fn not_utf8() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "transaction identifier cannot be converted to UTF-8")
}

/// As PostgreSQL says it.
fn disabled() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "prepared transactions are disabled")
        .hint("Set max_prepared_transactions to a nonzero value.")
}

/// As PostgreSQL says it.
fn server_is_full(limit: usize) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "maximum number of prepared transactions reached")
        .hint(format!("Increase max_prepared_transactions (currently {limit})."))
}

/// As PostgreSQL says it.
fn not_the_owner() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to finish prepared transaction")
        .hint("Must be superuser or the user that prepared the transaction.")
}
