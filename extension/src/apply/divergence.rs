//! Why a writeset cannot be applied: this node does not hold what the writeset was made from.

use std::fmt;

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::items::StreamError;
use thiserror::Error;

/// This node does not hold what the writeset was made from. Never to be passed over.
#[derive(Debug, Error)]
pub enum Divergence {
    #[error("relation \"{schema}.{name}\" does not exist")]
    NoRelation { schema: String, name: String },
    #[error("relation \"{table}\" has {found} columns where the writeset has {expected}")]
    Columns { table: String, found: usize, expected: u32 },
    #[error("row to {action} not found in relation \"{table}\": {identity}")]
    NoRow { action: Action, table: String, identity: String },
    #[error("relation \"{table}\" identifies its rows by other columns than the writeset")]
    Identity { table: String },
    #[error("column {column} of relation \"{table}\" {error}")]
    Value { table: String, column: String, error: String },
    #[error("writeset cannot be read: {0}")]
    Body(#[from] StreamError),
    #[error("statement cannot be read: {0}")]
    Statement(#[from] gcs_writeset::wire::WireError),
    #[error("role \"{0}\" does not exist")]
    NoRole(String),
    #[error("large object {0} does not exist")]
    NoLargeObject(u32),
    #[error("setting \"{name}\" cannot be set to \"{value}\"")]
    Setting { name: String, value: String },
}

impl Divergence {
    pub fn code(&self) -> PgSqlErrorCode {
        match self {
            Divergence::NoRole(_) => PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
            Divergence::Setting { .. } => PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
            Divergence::NoRelation { .. } => PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE,
            _ => PgSqlErrorCode::ERRCODE_DATA_CORRUPTED,
        }
    }
}

/// Whether an error passes: the same may go well when it is tried again.
pub fn is_passing(code: PgSqlErrorCode) -> bool {
    matches!(
        code,
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
            | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
            | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
            | PgSqlErrorCode::ERRCODE_QUERY_CANCELED
            | PgSqlErrorCode::ERRCODE_OBJECT_IN_USE
            | PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY
            | PgSqlErrorCode::ERRCODE_DISK_FULL
            | PgSqlErrorCode::ERRCODE_TOO_MANY_CONNECTIONS
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES
            | PgSqlErrorCode::ERRCODE_CONFIGURATION_LIMIT_EXCEEDED
    )
}

/// Whether a passing error passes only when a person does something: the database is out of service until then, so that it is seen.
pub fn lasts(code: PgSqlErrorCode) -> bool {
    code == PgSqlErrorCode::ERRCODE_DISK_FULL
}

/// Whether an error that comes again in a position's turn proves that this node holds something else than the group, which another node's
/// contents would mend: what is there, or missing, is the database's. (A role, a setting or a right that is missing is the server's, and somebody
/// has to bring it.)
pub fn proves_difference(code: PgSqlErrorCode) -> bool {
    let is_of_server = matches!(
        code,
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT
            | PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE
            | PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE
    );
    let classes = [
        PgSqlErrorCode::ERRCODE_DATA_EXCEPTION,
        PgSqlErrorCode::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
        PgSqlErrorCode::ERRCODE_SYNTAX_ERROR_OR_ACCESS_RULE_VIOLATION,
    ];
    let is_of_contents =
        code == PgSqlErrorCode::ERRCODE_DATA_CORRUPTED || classes.into_iter().any(|of| class(of) == class(code));
    is_of_contents && !is_of_server
}

/// The first two characters of a SQLSTATE, which PostgreSQL packs into six bits each.
fn class(code: PgSqlErrorCode) -> i32 {
    code as i32 & 0xFFF
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Update,
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Update => "update",
            Action::Delete => "delete",
        })
    }
}
