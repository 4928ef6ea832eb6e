//! One table: what can go wrong, as SQLSTATE, message, detail and hint.
//!
//! Classes follow what client libraries act on: 40001 is retried, 25006 goes to another node, 57P03 is tried again later, and
//! 08007 says that the outcome is unknown.

use std::time::Duration;

use gcs_writeset::link::RehearsalFailure;
use gcs_writeset::{CommitToken, Position, Token};
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::prelude::*;
use postgres_r_protocol::conflicts::Conflict;

use crate::pg::latch::GroupLock;
use crate::pg::xact;

/// An error of ours, ready to be raised or to be put into another report.
#[derive(Clone, Debug)]
pub struct Error {
    pub code: PgSqlErrorCode,
    pub message: String,
    pub detail: Option<String>,
    pub hint: Option<String>,
}

const RETRY: &str = "Run the transaction again.";
const LOOK_UP: &str = "Look the changes up before you run the transaction again.";

/// What every transaction that loses is told, whatever it lost to.
pub const LOST: &str = "could not serialize access due to a concurrent transaction of the group";

impl Error {
    pub fn new(code: PgSqlErrorCode, message: impl Into<String>) -> Error {
        Error { code, message: message.into(), detail: None, hint: None }
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Error {
        self.detail = Some(detail.into());
        self
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Error {
        self.hint = Some(hint.into());
        self
    }

    /// Raises it as an ERROR.
    pub fn raise(self) -> ! {
        self.report(PgLogLevel::ERROR);
        unreachable!("an ERROR does not return")
    }

    /// Raises it as a FATAL: the session ends.
    pub fn raise_fatal(self) -> ! {
        self.report(PgLogLevel::FATAL);
        unreachable!("a FATAL does not return")
    }

    /// Says it to the client, and goes on: a WARNING if it is one by its code, else a NOTICE.
    pub fn remark(self) {
        let is_warning = self.code == PgSqlErrorCode::ERRCODE_WARNING;
        self.report(if is_warning { PgLogLevel::WARNING } else { PgLogLevel::NOTICE });
    }

    fn report(self, level: PgLogLevel) {
        let mut report = ErrorReport::new(self.code, self.message, "postgres_r");
        if let Some(detail) = self.detail {
            report = report.set_detail(detail);
        }
        if let Some(hint) = self.hint {
            report = report.set_hint(hint);
        }
        report.report(level);
    }
}

impl From<xact::Failed> for Error {
    fn from(failed: xact::Failed) -> Error {
        Error { code: failed.code, message: failed.message, detail: failed.detail, hint: failed.hint }
    }
}

/// `why` there is no link to gcs, on this socket, since so long.
pub fn no_link(socket: &str, why: &str, since: Duration) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, "cannot change data while this node has no group")
        .detail(unreachable_gcs(socket, why, since))
        .hint(
            "Reading is possible. Check that gcs runs and that postgres_r.gcs_socket names its socket, or use another node.",
        )
}

/// `reached` of so many members; not known yet if there are none.
pub fn no_quorum(reached: (usize, usize), since: Duration) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, "cannot change data without a majority of the group")
        .detail(no_majority(reached, since))
        .hint("Reading is possible. Write on a node that is with the majority, or wait until members return.")
}

/// This node takes no writes, whatever becomes of its group.
pub fn query_only() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, "cannot change data on a query-only node")
        .detail("The role of this node in its group is query-only: it applies what other nodes write.")
        .hint("Write on a node whose role in postgres_r.members is voter; target_session_attrs=read-write finds one.")
}

pub fn unreachable_gcs(socket: &str, why: &str, since: Duration) -> String {
    let why = if why.is_empty() { "no answer yet" } else { why };
    format!("This node's gcs has not been reached for {}; socket \"{socket}\": {why}.", seconds(since))
}

pub fn no_majority((reached, members): (usize, usize), since: Duration) -> String {
    match members {
        0 => format!("Nothing has been heard of the group for {}.", seconds(since)),
        _ if reached > members / 2 => format!("The group has elected no leader for {}.", seconds(since)),
        _ => format!(
            "This node has reached only {reached} of {members} members that vote, itself included, for {}.",
            seconds(since)
        ),
    }
}

fn seconds(span: Duration) -> String {
    format!("{} s", span.as_secs())
}

pub fn stopping() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION, "cannot change data while replication is being stopped")
        .hint("Try again in a moment.")
}

/// Clients are not let in yet.
pub fn catching_up(why: &str, hint: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW, "the database has yet to catch up with its group")
        .detail(why)
        .hint(hint)
}

pub fn starting_up() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW, "the server has yet to find out which databases are replicated")
        .hint("Try again in a moment; if it stays like this, see the server's log.")
}

const DRAINED_HINT: &str = "Connect to another node.";

pub fn draining() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW, "this node is being drained, it is about to be shut down")
        .hint(DRAINED_HINT)
}

/// What a session hears that there was before, between two transactions.
pub fn sent_away() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "terminating connection because this node is being drained")
        .hint(DRAINED_HINT)
}

pub fn out_of_service(reason: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_CANNOT_CONNECT_NOW, "the database is out of service on this node")
        .detail(reason.to_string())
        .hint("Use another node. See postgres_r.failures from another database of this server, and docs/operations.md, Failures.")
}

pub fn unknown_node(node: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("node \"{node}\" is not a member of the group"))
        .hint("See postgres_r.members.")
}

pub fn overloaded() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "too many transactions wait to be ordered by the group")
        .hint(RETRY)
}

pub fn behind(positions: u64) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "this node is too far behind its group")
        .detail(format!("It has yet to apply {positions} transactions of other nodes."))
        .hint("Run the transaction again later, or on another node.")
}

pub fn not_attached() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION,
        "cannot change data before this server has joined its group",
    )
    .hint("Try again in a moment.")
}

/// An interrupt that PostgreSQL itself said nothing about.
pub fn canceled() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "canceling statement due to an interrupt")
}

pub fn prepared() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "cannot PREPARE a transaction that changed a replicated database",
    )
    .hint("Send PREPARE TRANSACTION as a statement.")
}

/// Somebody else holds a key until a prepared transaction is decided on.
pub fn pinned(conflict: &Conflict, identifier: Option<&str>) -> Error {
    let which = identifier.map_or(String::new(), |identifier| format!(" \"{identifier}\""));
    let what = match (conflict.table.as_str(), conflict.key.as_str()) {
        ("", _) => "the same data".to_owned(),
        (table, "") => format!("rows of table \"{table}\""),
        (table, key) => format!("table \"{table}\", key {key}"),
    };
    let (position, node) = (conflict.position, &conflict.node);
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!("Prepared transaction{which}, prepared on node \"{node}\" at position {position}, holds {what}."))
        .hint("Run the transaction again when that one has been decided on by COMMIT PREPARED or ROLLBACK PREPARED.")
}

/// As PostgreSQL says it.
pub fn not_prepared(identifier: Option<&str>) -> Error {
    let which = identifier.map_or(String::new(), |identifier| format!(" with identifier \"{identifier}\""));
    Error::new(PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT, format!("prepared transaction{which} does not exist"))
}

/// As PostgreSQL says it.
pub fn already_prepared(identifier: Option<&str>) -> Error {
    let which = identifier.map_or(String::new(), |identifier| format!(" \"{identifier}\""));
    Error::new(PgSqlErrorCode::ERRCODE_DUPLICATE_OBJECT, format!("transaction identifier{which} is already in use"))
}

pub fn too_many_prepared() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED,
        "maximum number of prepared transactions of the group reached",
    )
    .detail("The group keeps so many transactions of a database prepared, and so many rows that they have changed.")
    .hint("Decide on some by COMMIT PREPARED or ROLLBACK PREPARED.")
}

pub fn prepared_locks() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, "cannot PREPARE a transaction that holds locks of the group")
        .hint("Use COMMIT.")
}

pub fn too_large(bytes: u64, limit: u64) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "transaction is too large to be replicated")
        .detail(format!("Its changes take {bytes} bytes so far, postgres_r.max_writeset_size is {limit} bytes."))
        .hint("Change less in one transaction, or have a superuser raise postgres_r.max_writeset_size.")
}

/// As PostgreSQL says it.
pub fn notify_queue_full() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many notifications in the NOTIFY queue")
        .hint("The NOTIFY queue cannot be emptied until a session that listens has ended its transaction.")
}

pub fn notification_not_utf8() -> Error {
    let message = "NOTIFY of what is not UTF-8 is not supported in a replicated database";
    Error::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message)
        .hint("Use a database with encoding UTF8, or SET postgres_r.notify = local.")
}

pub fn too_many_keys(limit: usize) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "transaction is too large to be replicated")
        .detail(format!("Its changes have more than {limit} certification keys."))
        .hint("Change less in one transaction.")
}

/// How a large object is named where a table would be.
pub const LARGE_OBJECT: &str = "large object ";

/// A transaction that was ordered after another one that changed the same.
pub fn conflict(conflict: &Conflict) -> Error {
    let detail = match (conflict.table.as_str(), conflict.key.as_str()) {
        ("", _) => format!("{} changed the same data.", capitalised(&winner(conflict))),
        (object, "") if object.starts_with(LARGE_OBJECT) => {
            format!("{} was changed by {}.", object.replacen('l', "L", 1), winner(conflict))
        }
        (table, "") => format!("Table \"{table}\" was changed by {}.", winner(conflict)),
        (table, key) => format!("Table \"{table}\", key {key} was changed by {}.", winner(conflict)),
    };
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST).detail(detail).hint(RETRY)
}

/// A transaction that held what an earlier position needs.
pub fn victim(conflict: &Conflict) -> Error {
    if conflict.table.is_empty() {
        let detail = format!("A lock that this transaction holds is needed by {}.", winner(conflict));
        return Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST).detail(detail).hint(RETRY);
    }
    self::conflict(conflict)
}

fn winner(Conflict { node, position, application, .. }: &Conflict) -> String {
    let application = application.as_deref().map_or_else(String::new, |name| format!(", application \"{name}\""));
    format!("a transaction of node \"{node}\" at position {position}{application}")
}

fn capitalised(text: &str) -> String {
    text.replacen('a', "A", 1)
}

pub fn below_horizon(horizon: Position) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!(
            "The group no longer keeps the history before position {horizon}, which this transaction started from."
        ))
        .hint(RETRY)
}

/// What a transaction would have done on another node too; it was tried there, and rolled back.
pub fn rehearsal_failed(node: &str, failure: &RehearsalFailure) -> Error {
    let RehearsalFailure { code, message, detail, hint, .. } = failure;
    let code = PgSqlErrorCode::from(*code as isize);
    let more = if detail.is_empty() { String::new() } else { format!(" ({})", detail.trim_end_matches('.')) };
    let hint = if hint.is_empty() { "Make that node able to run it, or leave the statement out." } else { hint };
    Error::new(code, format!("the transaction's statements cannot run on node \"{node}\""))
        .detail(format!("{node}: {message}{more}."))
        .hint(hint)
}

/// CREATE INDEX CONCURRENTLY has failed on another node; the index is there, and valid nowhere.
pub fn index_failed(index: &str, node: &str, failure: &RehearsalFailure) -> Error {
    let detail = if failure.detail.is_empty() { String::new() } else { format!("{} ", failure.detail) };
    Error::new(PgSqlErrorCode::from(failure.code as isize), failure.message.clone())
        .detail(format!("{detail}This was on node \"{node}\"."))
        .hint(format!("Index \"{index}\" is not valid on any node. Drop it and try again."))
}

/// A unique index can't be built while a node does not say that who writes there knows it. `is_left`: it is in the catalogs.
pub fn index_not_known(index: &str, node: &str, is_left: bool) -> Error {
    let message = format!("unique index \"{index}\" cannot be built concurrently while node \"{node}\" is away");
    let otherwise = "Use CREATE INDEX without CONCURRENTLY, or try again when the node is back.";
    let hint = if is_left {
        format!("Drop index \"{index}\", which is not valid on any node. {otherwise}")
    } else {
        otherwise.to_owned()
    };
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail("Who writes on that node may not know the index, and rows that are equal could go in on two nodes.")
        .hint(hint)
}

/// Others were committed meanwhile, up to this position, and what this transaction would do was tried after them.
pub fn ordered_since(winner: Position, node: &str, failure: &RehearsalFailure) -> Error {
    let message = &failure.message;
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!("After what was committed up to position {winner}, node \"{node}\" says: {message}."))
        .hint(RETRY)
}

/// PostgreSQL has passed over a name for the sake of a transaction that came to nothing.
pub fn name_taken_meanwhile(name: &str, before: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!(
            "A relation was named \"{name}\" because another transaction had taken \"{before}\", which is free again."
        ))
        .hint(RETRY)
}

pub fn malformed() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, "the group could not read the transaction's changes")
        .hint("The transaction is rolled back. Check that all nodes run the same version.")
}

/// With a token, the outcome can be asked for; the hint is the question.
pub fn outcome_unknown(why: &str, token: Option<CommitToken>) -> Error {
    let hint = match token {
        Some(CommitToken { token, since }) => {
            format!("Ask for its outcome on any node: SELECT * FROM postgres_r.commit_status('{token}', {since}).")
        }
        None => format!(
            "{LOOK_UP} The outcome of a transaction that calls postgres_r.set_commit_token() can be asked for by postgres_r.commit_status()."
        ),
    };
    Error::new(PgSqlErrorCode::ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN, "the outcome of the transaction is unknown")
        .detail(format!("{why} The group may have committed the transaction, or may yet."))
        .hint(hint)
}

/// What an idempotency key in a table of the application would give.
pub fn token_used(first: Position) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_UNIQUE_VIOLATION, "a transaction with the same commit token is already committed")
        .detail(format!("It was committed at position {first}. This transaction is rolled back."))
        .hint("Do not run the transaction again.")
}

pub fn token_fenced() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "canceling the transaction because its commit token is fenced")
        .detail("Somebody asked postgres_r.commit_status() for the outcome of this token, and was told that it is never committed.")
        .hint("Set another token if you run the transaction again.")
}

pub fn token_too_old(floor: Position) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!(
            "The group no longer knows which commit tokens were used up to position {floor}, and this one was set before."
        ))
        .hint(RETRY)
}

pub fn second_token(first: Token) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION, "the transaction already has another commit token")
        .detail(format!("It is {first}."))
}

pub fn not_replicated(function: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("postgres_r.{function}() needs a replicated database"),
    )
    .detail("The current database is not replicated.")
}

/// The same reason for which nothing can be written now.
pub fn cannot_ask(why: Error) -> Error {
    Error { message: "cannot ask the group for the outcome of a transaction".to_string(), ..why }
        .hint("Ask another node, or try again in a moment.")
}

pub fn ask_while_sending() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION,
        "cannot ask for the outcome of a transaction while this one is being sent",
    )
    .hint("Ask in a transaction of its own.")
}

pub fn no_answer(waited: Duration) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "the group did not answer")
        .detail(format!("Nothing was heard for {} ms.", waited.as_millis()))
        .hint("Ask again, here or on another node.")
}

/// The transaction is committed in the group, but its backend can't say so with an ordinary COMMIT.
pub fn committed_elsewhere(position: Position, why: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_TRANSACTION_RESOLUTION_UNKNOWN,
        "the transaction is committed, but this session could not finish it",
    )
    .detail(format!("{why} The transaction is committed at position {position} and becomes visible here in a moment."))
    .hint("Do not run the transaction again.")
}

/// The same reason for which nothing can be written now.
pub fn cannot_read(level: &str, why: Error) -> Error {
    let message = format!("cannot read at postgres_r.read_level = {} now", level);
    Error { message, ..why }.hint("Read on another node, try again in a moment, or read at a lower level.")
}

/// What this node knows of its group is too old, and it cannot ask.
pub fn too_stale(why: Error, max: Duration, known: Option<Duration>) -> Error {
    let age = known.map_or_else(
        || "It is not known how old what this node shows is.".to_owned(),
        |age| {
            format!(
                "What this node shows may be {} ms old, postgres_r.max_staleness is {} ms.",
                age.as_millis(),
                max.as_millis()
            )
        },
    );
    let detail = why.detail.as_deref().map_or_else(|| age.clone(), |why| format!("{age} {why}"));
    why.detail(detail)
}

/// The position that is waited for, and up to where this node shows and knows the order.
pub fn read_timeout(level: &str, waited: Duration, at: Option<(Position, Position, Position)>) -> Error {
    let message = format!("canceling statement because postgres_r.read_level = {} could not be met in time", level);
    let detail = match at {
        Some((wanted, at, known)) => {
            format!(
                "This node shows position {at}, knows of {known}, and must show {wanted}; it was waited for {} ms.",
                waited.as_millis()
            )
        }
        None => format!("The group did not answer within {} ms.", waited.as_millis()),
    };
    Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message)
        .detail(detail)
        .hint("Read on another node, wait for longer (postgres_r.read_timeout), or read at a lower level.")
}

/// The transaction has one snapshot, and has read by it.
pub fn read_level_too_late(level: &str) -> Error {
    let message = format!("postgres_r.read_level = {} must be set before any query", level);
    Error::new(PgSqlErrorCode::ERRCODE_ACTIVE_SQL_TRANSACTION, message)
        .detail("The transaction has read by its snapshot, which it keeps.")
        .hint("Set it before the transaction's first query, or read at READ COMMITTED.")
}

pub fn bad_session_token(text: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, "postgres_r.read_after is not a session token")
        .detail(format!("It is \"{text}\"."))
        .hint("postgres_r.session_token() gives one.")
}

pub fn foreign_session_token(text: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
        "postgres_r.read_after is a session token of another database",
    )
    .detail(format!("It is \"{text}\"."))
    .hint("A token is good for the same database of the same group, until it is dropped or replicated anew.")
}

pub fn no_session_token(why: Error) -> Error {
    Error { message: "session tokens are not known before this server has joined its group".to_owned(), ..why }
        .hint("Use another node, or try again in a moment.")
}

/// A COMMIT that was to wait until the others show it.
pub fn not_shown(position: Position, missing: &[String], interrupted: bool, waited: Duration) -> Error {
    let names = missing.iter().map(|name| format!("\"{name}\"")).collect::<Vec<_>>().join(", ");
    let why = if interrupted {
        "The wait was ended by an interrupt.".to_owned()
    } else {
        format!("They were waited for {} ms (postgres_r.after_timeout).", waited.as_millis())
    };
    Error::new(PgSqlErrorCode::ERRCODE_WARNING, format!("the transaction is committed, but not yet visible on {names}"))
        .detail(format!("{why} It is committed at position {position} and becomes visible there in its turn."))
}

pub fn not_asked_who_shows(position: Position, why: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_WARNING, "the transaction is committed, but it is not known which nodes show it")
        .detail(format!("It is committed at position {position}. This node's gcs could not be asked: {why}."))
}

/// The postmaster's, while it loads libraries.
pub fn unknown_server() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED,
        "postgres_r cannot give values of sequences, or advisory locks, or notifications, or large objects, on this server",
    )
    .detail("The server's table of built-in functions is not where postgres_r expects it, or its memory can't be changed.")
    .hint("Use a server of the major version that postgres_r was built for, on a system that lets mprotect() work.")
}

fn noun(of: GroupLock) -> &'static str {
    match of {
        GroupLock::Advisory => "an advisory lock",
        GroupLock::Row => "a row lock",
        GroupLock::Table => "a table lock",
    }
}

/// With which it is this node's alone.
fn local_setting(of: GroupLock) -> &'static str {
    match of {
        GroupLock::Advisory => "postgres_r.advisory_locks = local a lock holds on this node alone",
        GroupLock::Row => "postgres_r.row_locks = local rows are locked on this node alone",
        GroupLock::Table => "postgres_r.table_locks = local tables are locked on this node alone",
    }
}

/// `why` the group can't be asked.
pub fn cannot_lock(of: GroupLock, why: Error) -> Error {
    let message = format!("cannot take {} of the group", noun(of));
    Error { message, ..why }.hint(format!("Try again on another node, or in a moment. With {}.", local_setting(of)))
}

/// As PostgreSQL says it of a row that is locked on this server.
pub fn row_not_available(relation: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("could not obtain lock on row in relation \"{relation}\""),
    )
    .detail("A transaction of the group has locked it.")
}

/// As PostgreSQL says it of a table that is locked on this server.
pub fn table_not_available(relation: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, format!("could not obtain lock on relation \"{relation}\""))
        .detail("A transaction of the group has locked it, or is in it.")
}

pub fn lock_not_available() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, "could not obtain an advisory lock of the group")
}

pub fn lock_timeout() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, "canceling statement due to lock timeout")
}

pub fn lock_deadlock(of: GroupLock) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED, "deadlock detected")
        .detail(format!(
            "This session waits for {} of the group whose holder waits, perhaps for others that do, for this session.",
            noun(of)
        ))
        .hint(RETRY)
}

pub fn too_many_locks() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY, "the group has no room for another advisory lock in this database")
        .hint("Give locks back that are not needed any more.")
}

pub fn locks_not_known() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        "advisory locks of the group are not available yet",
    )
    .detail("A member runs an earlier release, or has not been reached since this release was installed.")
    .hint("\"gcs status\" names the members that the group waits for. With postgres_r.advisory_locks = local a lock holds on this node alone.")
}

/// What was done under the lock before takes too long to apply here.
pub fn lock_not_seen(of: GroupLock, position: Position, at: Position, waited: Duration) -> Error {
    let message = format!("this node is too far behind its group for {}", noun(of));
    Error::new(PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE, message)
        .detail(format!(
            "What was committed before the lock was granted reaches to position {position}; after {} ms this node is at {at}.",
            waited.as_millis()
        ))
        .hint("Try again later, or on another node.")
}

const LOCKS_LOST: &str =
    "This node's gcs was restarted, or was out of touch with its group for too long: others may have been given the locks.";

pub fn session_locks_lost() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "terminating connection because its advisory locks are lost")
        .detail(LOCKS_LOST)
        .hint("Connect again, and take them again.")
}

pub fn transaction_locks_lost() -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        "could not go on with the transaction because its locks of the group are lost",
    )
    .detail(LOCKS_LOST)
    .hint(RETRY)
}

pub fn exhausted(sequence: &str, ascends: bool, end: i64) -> Error {
    let which = if ascends { "maximum" } else { "minimum" };
    let message = format!("nextval: reached {which} value of sequence \"{sequence}\" ({end})");
    Error::new(PgSqlErrorCode::ERRCODE_SEQUENCE_GENERATOR_LIMIT_EXCEEDED, message)
}

pub fn no_values(sequence: &str, waited: Duration) -> Error {
    let message = format!("the group gave this node no values of sequence \"{sequence}\"");
    Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, message)
        .detail(format!("Nothing was heard for {} ms.", waited.as_millis()))
        .hint("Try again. If it stays like this, see the server's log.")
}

pub fn too_many_sequences() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES, "too many sequences wait for values of the group").hint(RETRY)
}

pub fn copy_lost(sequence: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, LOST)
        .detail(format!(
            "COPY drew more values of sequence \"{sequence}\" than this node had been given, and another node got some of them."
        ))
        .hint("Run COPY again; if it happens often, copy fewer rows at a time, or into a table without the identity column.")
}

pub fn not_preloaded() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, "postgres_r must be loaded when the server starts")
        .detail("It is not in shared_preload_libraries.")
        .hint("Put shared_preload_libraries = 'postgres_r' into postgresql.conf and restart the server.")
}

/// Nobody knows any more what a statement has touched. It must not be committed.
pub fn lost_statement(tag: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_INTERNAL_ERROR, format!("lost track of {tag} while it ran"))
}
