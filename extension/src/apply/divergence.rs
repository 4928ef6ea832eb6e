//! Why a writeset cannot be applied: this node does not hold what the writeset was made from.

use std::fmt;

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
    #[error("setting \"{name}\" cannot be set to \"{value}\"")]
    Setting { name: String, value: String },
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
