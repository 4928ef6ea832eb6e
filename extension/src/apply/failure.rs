//! An error of this node's, as it is told to whoever has asked for what failed: a session of another node.

use gcs_writeset::link::RehearsalFailure;

use crate::error::Error;
use crate::node::DatabaseArea;

/// Of a text for people in a link message; see `TEXT_BYTES_MAX`.
const TEXT_BYTES: usize = 1024;

pub(super) fn failure(area: &DatabaseArea, error: Error) -> RehearsalFailure {
    RehearsalFailure {
        code: error.code as u32,
        message: cut(error.message),
        detail: cut(error.detail.unwrap_or_default()),
        hint: cut(error.hint.unwrap_or_default()),
        last_statement: area.replica.last_statement(),
        committed: area.gate.committed(),
    }
}

/// As much of it as may travel.
fn cut(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES));
    text
}
