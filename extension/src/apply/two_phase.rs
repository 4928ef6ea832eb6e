//! The list of prepared transactions, `postgres_r.prepared`: the same on every node (docs/adr/0061-prepared-transactions.md).

use gcs_writeset::two_phase::Prepared;

use super::divergence::{Action, Divergence};
use super::precedence;
use crate::pg::query::{first_row, literal};

pub const TABLE: &str = "postgres_r.prepared";

/// In the transaction that applies the writeset which prepares.
pub fn join(prepared: Prepared<'_>) {
    let Prepared { identifier, owner, prepared_at, body } = prepared;
    let position = precedence::position().unwrap_or_default();
    let (identifier, owner) = (literal(identifier), literal(owner));
    let mut hex = String::with_capacity(2 * body.len());
    body.iter().for_each(|byte| {
        hex.push(char::from(DIGITS[usize::from(byte >> 4)]));
        hex.push(char::from(DIGITS[usize::from(byte & 15)]));
    });
    first_row(&format!(
        "INSERT INTO postgres_r.prepared (gid, owner, prepared, position, body)
         VALUES ({identifier}, {owner}, timestamptz '2000-01-01 00:00:00+00' + {prepared_at} * interval '1 microsecond', {position}, decode('{hex}', 'hex'))"
    ));
}

const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// In the transaction that applies the writeset which decides.
pub fn leave(identifier: &str) -> Result<(), Divergence> {
    let identifier = literal(identifier);
    match first_row(&format!("DELETE FROM postgres_r.prepared WHERE gid = {identifier} RETURNING gid")) {
        Some(_) => Ok(()),
        None => Err(Divergence::NoRow {
            action: Action::Delete,
            table: TABLE.to_owned(),
            identity: format!("(gid)=({identifier})"),
        }),
    }
}
