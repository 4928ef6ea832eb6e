//! The current transaction's commit token: set by the client, sent with the writeset, forgotten when the transaction ends.
//!
//! A token belongs to the transaction, not to the savepoint in which it was set. One that changes nothing orders nothing, so
//! nobody will know its token.

use std::cell::Cell;

use gcs_writeset::{CommitToken, Position, Token};

use crate::error;
use crate::session;

thread_local! {
    static CURRENT: Cell<Option<CommitToken>> = const { Cell::new(None) };
}

/// Gives the transaction this token; the position after which it is used for the first time. The same token again changes nothing.
pub fn set(token: Token) -> Position {
    let Some(area) = session::database() else { error::not_replicated("set_commit_token").raise() };
    match CURRENT.get() {
        Some(known) if known.token == token => known.since,
        Some(known) => error::second_token(known.token).raise(),
        None => {
            let since = area.gate.committed();
            CURRENT.set(Some(CommitToken { token, since }));
            since
        }
    }
}

pub fn current() -> Option<CommitToken> {
    CURRENT.get()
}

/// At the end of every transaction.
pub fn forget() {
    CURRENT.set(None);
}
