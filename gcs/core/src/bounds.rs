//! Every bound of the core, and what happens when it is reached (invariant 10).
//!
//! Bounds that decide verdicts or what the ordered state keeps (marked *ordered*) must be the same on all nodes: changing one is
//! a change of the group's protocol.

/// Commands of this node's PostgreSQL that wait to be ordered. The next is refused as overloaded.
pub const PENDING_COUNT_MAX: usize = 16_384;

/// Bytes of those commands; likewise.
pub const PENDING_BYTES_MAX: usize = 128 << 20;

/// Chunks of large writesets that leave in one step, unless a single one is already longer; the rest leaves with the next ones. So
/// long, as bytes on their way to the disk, others wait for somebody's large transaction while it is sent.
pub const CHUNK_BYTES_PER_STEP_MAX: usize = 2 << 20;

/// One command, encoded. Longer ones are refused at the door, and dropped when a peer forwards them.
pub const COMMAND_BYTES_MAX: usize = (64 << 20) + 256;

/// Commands gathered into one log entry, unless a single one is already longer.
pub const ENTRY_BYTES_MAX: usize = 1 << 20;

/// Commands in one log entry; the rest goes into the next.
pub const ENTRY_COMMANDS_MAX: usize = 8_192;

/// Commands sent to the leader in one message, unless a single one is already longer.
pub const FORWARD_BYTES_MAX: usize = 1 << 20;

/// Entries in one append message, unless a single one is already longer.
pub const APPEND_BYTES_MAX: u64 = 1 << 20;

/// Append messages on their way to one follower; more entries wait for an acknowledgement.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;

/// Entries a leader has proposed and not yet seen committed. At the bound its proposals stay with their senders.
pub const UNCOMMITTED_BYTES_MAX: u64 = 256 << 20;

/// Committed entries handled in one step; the rest follows in the next.
pub const COMMITTED_BYTES_PER_STEP_MAX: u64 = 8 << 20;

/// Databases of one group (*ordered*). The attach of the next is refused as overloaded.
pub const DATABASES_MAX: usize = 64;

/// Names that members of a group have ever had (*ordered*). A member of a further name is refused.
pub const NAMES_EVER_MAX: usize = 1_024;

/// Wishes of this node about the membership at the same time. The next is refused as too late.
pub const WISHES_MAX: usize = 64;

/// Ticks after which a wish that has not come true is given up.
pub const WISH_TICKS_MAX: u64 = 100;

/// The same for one that waits for a learner to catch up.
pub const REPLACE_TICKS_MAX: u64 = 36_000;

/// Entries that a learner may be behind in its log when it becomes a voter.
pub const PROMOTE_ENTRIES_MAX: u64 = 1_024;

/// Entries that a full node may be behind when the leader hands over to it by itself: what is on its way under load.
pub const HANDS_OVER_ENTRIES_MAX: u64 = 64;

/// Ticks for which transactions are counted by their origin, and how many there must be for the leader to go where most of them come from.
pub const WRITERS_WINDOW_TICKS: u64 = 50;
pub const WRITERS_LEAST: u64 = 50;

/// Positions that its PostgreSQL may be behind then, in each database.
pub const PROMOTE_POSITIONS_MAX: u64 = 1_024;

/// Backends of one server that can submit (*ordered*); PostgreSQL's own limit. Others' commands are dropped.
pub const SLOTS_MAX: u32 = 1 << 18;

/// Chunks of one writeset (*ordered*). Further ones are dropped, and the writeset is found malformed.
pub const CHUNKS_MAX: u32 = 1 << 16;

/// Submissions of other nodes that are followed here, to be applied ahead. The next is said to be over at once: it is applied from the log.
pub const FOLLOWED_MAX: usize = 64;

/// Keys of certified writesets above the horizon of one database (*ordered*). At the bound the horizon rises, and transactions
/// older than it abort.
pub const WINDOW_KEYS_MAX: u64 = 1 << 21;

/// Transactions of one database that are prepared and not decided on (*ordered*). At the bound a PREPARE TRANSACTION aborts.
pub const PREPARED_MAX: usize = 1024;

/// Keys of all those together (*ordered*); likewise.
pub const PINNED_KEYS_MAX: usize = 1 << 20;

/// Positions above the horizon of one database (*ordered*); likewise.
pub const WINDOW_POSITIONS_MAX: u64 = 1 << 20;

/// Positions for which the group remembers what a commit token came to (*ordered*). Older ones are unknown.
pub const TOKEN_POSITIONS_MAX: u64 = 1 << 20;

/// Commit tokens of one database that are remembered (*ordered*). At the bound the oldest is forgotten, however young it is.
pub const TOKENS_MAX: usize = 1 << 19;

/// Sessions that use group locks in one database, and locks that they hold, together (*ordered*). At the bound a request is answered that there is no
/// room.
pub const LOCKS_MAX: usize = 1 << 17;

/// Ticks that a node may be silent, as its leader sees it, before what its sessions hold is given to others.
pub const LOCKS_LOST_TICKS: u64 = 100;

/// Ticks without sessions that use locks after which a node's life of them ends.
pub const LOCKS_IDLE_TICKS: u64 = 600;

/// Ticks after which a server is told again that other nodes fight over a row, and rows that it is told of in that time.
pub const CONTENDED_TICKS: u64 = 100;
pub const CONTENDED_MAX: usize = 1024;

/// Ticks between two questions of a node whose sessions use locks, whether its leader hears it.
pub const TOUCH_TICKS: u64 = 10;

/// Ticks after which a node that has not been in touch with the group gives up what its sessions hold: before others get it.
pub const LOCKS_GIVEN_UP_TICKS: u64 = 50;

/// Requests of one session that wait for the one before to be ordered. A session that has more is closed.
pub const LOCK_REQUESTS_MAX: usize = 64;

/// Keys forgotten for each certified writeset, at the least; it is always twice what the writeset added. Forgetting never
/// changes a verdict.
pub const PURGE_KEYS_MIN: usize = 32;

/// Entries between two marks of which positions an index holds (*ordered*).
pub const MARK_EVERY_ENTRIES: u64 = 64;

/// Marks of one database (*ordered*). At the bound every other one goes: the log is then kept a little longer.
pub const MARKS_MAX: usize = 1_024;

/// Entries applied since the last checkpoint, after which a new one is written.
pub const CHECKPOINT_ENTRIES_MAX: u64 = 32_768;

/// Bytes of those entries; likewise.
pub const CHECKPOINT_BYTES_MAX: u64 = 64 << 20;

/// The state in one checkpoint; a longer one from a peer is dropped.
pub const CHECKPOINT_STATE_BYTES_MAX: usize = 1 << 30;

/// Ticks after which a command that was sent to the leader and has not been ordered is sent again.
pub const RESEND_TICKS: u64 = 20;

/// Questions of readers that wait for an answer. The next is refused as overloaded.
pub const READS_MAX: usize = 16_384;

/// Ticks after which a round of such questions that has no answer goes again.
pub const RESEND_READ_TICKS: u64 = 3;

/// Rounds of all members that a leader has yet to confirm. Further ones are dropped; whoever asked goes again.
pub const READ_ROUNDS_MAX: usize = 1_024;

/// What tells one such round from another, in a message of Raft. A longer one is dropped.
pub const READ_CONTEXT_BYTES_MAX: usize = 24;

/// Ticks between two progress reports of one database into the order.
pub const PROGRESS_TICKS: u64 = 10;

/// Ticks between two status reports that differ only in positions.
pub const STATUS_TICKS: u64 = 10;

/// Ticks a snapshot may be on its way to a follower before it counts as lost, and one more for so many bytes of it: 2.5 MB a second.
pub const SNAPSHOT_TICKS_MAX: u64 = 100;
pub const SNAPSHOT_BYTES_A_TICK: u64 = 250_000;

/// Terms and indexes that a peer may name; beyond it the message is dropped (arithmetic on them must not overflow).
pub const RAFT_NUMBER_MAX: u64 = 1 << 56;
