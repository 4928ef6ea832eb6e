//! Groups that the database of this process has left (`postgres_r.past_groups`): what it holds is older than the group's, and may be other.

use gcs_writeset::Position;

use crate::pg::query;

/// Inside a transaction.
pub fn remember(group: &str, position: Position, was_told: bool) {
    query::first_row(&format!(
        "INSERT INTO postgres_r.past_groups (group_name, position, was_told) VALUES ({}, {position}, {was_told})",
        query::literal(group)
    ));
}

/// A sentence about the last of them. Inside a transaction.
pub fn last_group() -> Option<String> {
    query::text(
        "SELECT pg_catalog.format('It was replicated in group \"%s\" up to position %s, until %s.', group_name, position, left_at)
         FROM postgres_r.past_groups ORDER BY left_at DESC LIMIT 1",
    )
}
