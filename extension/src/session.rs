//! What this process is to replication: the questions that capture asks.

use gcs_writeset::Position;

/// Whether this process's database is replicated on this node and this is a process whose changes are the group's business
/// (a client backend, a background worker of someone's, a remote backend).
pub fn replicated() -> bool {
    false
}

/// A remote backend: what it writes has been captured elsewhere.
pub fn is_remote_backend() -> bool {
    false
}

/// The committed position of this process's database on this node.
pub fn committed() -> Position {
    Position::ZERO
}

/// Called at a transaction's first write. Raises 25006 when the group cannot take it, 57P03 while the node catches up.
pub fn ensure_writable() {}

/// This node's place in the group, from 0 to `bounds::GROUP_MEMBERS_MAX` - 1; fixed while it is a member.
pub fn ordinal() -> u16 {
    0
}
