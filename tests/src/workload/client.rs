//! How a client reads an error: run it again, it failed, or nobody knows.

use gcs::playground::group::describe;
use postgres::Error;
use postgres::error::SqlState;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// 40001 or 40P01: nothing happened; the same may succeed next time.
    Retry,
    /// Nothing happened, for the reason given.
    Definite(String),
    /// It may have happened: 08xxx, or the connection went away.
    Unknown(String),
}

/// For an error of a statement that commits: what does it say about the commit?
pub fn classify(error: &Error) -> Failure {
    let Some(code) = error.code() else { return Failure::Unknown(error.to_string()) };
    let text = describe(error);
    // A server that goes down says so in a class that says nothing about the statement under way.
    let going_down = [SqlState::ADMIN_SHUTDOWN, SqlState::CRASH_SHUTDOWN];
    match code {
        code if *code == SqlState::T_R_SERIALIZATION_FAILURE || *code == SqlState::T_R_DEADLOCK_DETECTED => Failure::Retry,
        code if going_down.contains(code) || code.code().starts_with("08") => Failure::Unknown(text),
        _ => Failure::Definite(text),
    }
}
