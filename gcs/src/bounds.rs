//! Every bound of the shell, and what happens when it is reached (invariant 10).

use std::time::Duration;

use gcs_writeset::bounds::LINK_FRAME_BYTES_MAX;

/// One tick of the core.
pub const TICK: Duration = Duration::from_millis(100);

/// A write of so many bytes is long: before the next one, what came meanwhile is read, so that it goes along.
pub const LONG_WRITE_BYTES: usize = 256 << 10;

/// Bytes of inputs that wait for the next step. Whoever brings more stops reading its socket until the step has taken them.
pub const INBOX_BYTES_MAX: usize = 32 << 20;

/// Bytes that wait for a peer's socket. At the bound its messages are dropped until there is room; raft sends again.
pub const PEER_QUEUE_BYTES_MAX: usize = 32 << 20;

/// Bytes that wait for a manager's socket. At the bound the live stream stops, and goes on from disk when it has drained.
pub const MANAGER_QUEUE_BYTES_MAX: usize = 8 << 20;

/// Bytes read from disk in one go, for a manager that catches up or for a fetch; one writeset may exceed it.
pub const BACKLOG_PIECE_BYTES: usize = 1 << 20;

/// A writeset or chunk in one request: what it is delivered with must fit the same frame. A longer one ends the connection.
pub const SUBMISSION_BYTES_MAX: usize = LINK_FRAME_BYTES_MAX - 1_024;

/// Fetches that wait on one connection. At the bound further ones are not read until one is answered.
pub const FETCHES_MAX: usize = 1_024;

/// Rehearsals that wait for the one rehearser of a database. At the bound the next is answered at once: it is not tried.
pub const REHEARSALS_WAITING_MAX: usize = 16;

/// What a rehearsal's request may carry. A longer one ends the connection.
pub const REHEARSAL_BYTES_MAX: usize = 8 << 20;

/// Questions of peers, about one database, that wait for a position to be shown here. At the bound further ones are not answered.
pub const SHOWN_WAITING_MAX: usize = 16_384;

/// Connections of PostgreSQL at the same time. The next is closed, with a line in the log.
pub const LOCAL_SESSIONS_MAX: usize = 8_192;

/// Connections of peers that have not yet said who they are. Further ones wait in the kernel's queue.
pub const HANDSHAKES_MAX: usize = 64;

/// A frame before the handshake is done. A longer one ends the connection.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 4_096;

/// How long connecting, and then shaking hands, may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// A sender that has nothing to say says that much.
pub const PING_EVERY: Duration = Duration::from_millis(400);

/// A peer that is silent for longer is down: its connections are closed and made anew.
pub const PEER_SILENCE_MAX: Duration = Duration::from_millis(1_500);

/// Pauses between attempts to reach a peer; doubled from the first to the last.
pub const REDIAL_FIRST: Duration = Duration::from_millis(50);
pub const REDIAL_LAST: Duration = Duration::from_secs(1);

/// After a refusal a person must act; asking again need not be quick.
pub const REDIAL_REFUSED: Duration = Duration::from_secs(2);

/// How long a new manager waits for a dead one's connection to be noticed.
pub const MANAGER_TAKEOVER_WAIT: Duration = Duration::from_millis(500);

/// Pause before an attach or detach that was refused is tried again, unless a quorum comes first.
pub const ATTACH_RETRY: Duration = Duration::from_millis(500);

/// How long a stopping daemon waits for its last words to be taken.
pub const SHUTDOWN_WAIT: Duration = Duration::from_secs(1);
