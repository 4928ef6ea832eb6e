//! What became of a statement: an ordinary user's life, or something that may not happen.

use gcs::playground::group::describe;
use postgres::Error;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The SQLSTATE and message of an error that a user may meet.
    Ordinary(String, String),
    /// What may not happen: the server's own errors, lost connections, unknown outcomes, a node that cannot write, time that ran out.
    Fault(String),
}

/// SQLSTATE classes of errors that a statement can bring upon itself.
const ORDINARY: [&str; 20] =
    ["09", "0A", "0L", "0P", "21", "22", "23", "24", "25", "27", "2B", "2F", "34", "38", "39", "3B", "3F", "42", "44", "55"];

/// PostgreSQL's own words for two sessions of one server that change one catalog entry at the same time.
const RACES: [&str; 5] = [
    "tuple concurrently updated",
    "tuple concurrently deleted",
    "cache lookup failed",
    "could not find tuple for",
    "could not open relation with OID",
];

impl Outcome {
    pub fn of(result: &Result<(), Error>) -> Outcome {
        let Err(error) = result else { return Outcome::Done };
        let Some(known) = error.as_db_error() else { return Outcome::Fault(error.to_string()) };
        let (code, message) = (known.code().code(), known.message());
        let is_ordinary = match code {
            "25006" => false,
            "40001" | "40P01" | "P0001" | "54001" | "54011" => true,
            // It is committed, and says so: an earlier position needed its locks meanwhile.
            "08007" => message.starts_with("the transaction is committed"),
            "XX000" => RACES.iter().any(|race| message.contains(race)),
            code => ORDINARY.iter().any(|class| code.starts_with(class)),
        };
        if is_ordinary { Outcome::Ordinary(code.to_owned(), message.to_owned()) } else { Outcome::Fault(describe(error)) }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Outcome::Done => write!(out, "done"),
            Outcome::Ordinary(code, message) => write!(out, "{code} {message}"),
            Outcome::Fault(text) => write!(out, "FAULT {text}"),
        }
    }
}
