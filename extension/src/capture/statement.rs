//! Statements.
use crate::pg::relation::Oid;
pub fn init() {}
pub fn reset() {}
pub fn truncated(_table: Oid) {}
