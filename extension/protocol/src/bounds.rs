//! Every bound of what processes of one server share, and what happens when it is reached (invariant 10).

use std::time::Duration;

/// Positions known ahead of the committed one. At the bound the manager stops reading from gcs, which goes on from disk later.
pub const WINDOW: usize = 8192;

/// The share of the apply queue's ring that one writeset may take, as a divisor. A larger writeset goes to a file.
pub const RING_SHARE: usize = 4;

/// Queued writesets for each remote backend that is awake, above which one more is called.
pub const BACKLOG: u32 = 8;

/// What a remote backend applies in one transaction, if so much waits. A longer run saves little more: what a commit costs is shared by all of it; and
/// whoever waits for a position in it waits for all of it.
pub const RUN_POSITIONS: usize = 16;
pub const RUN_BYTES: usize = 16 << 10;

/// So many positions after a run that came to nothing are applied one by one: most likely sessions of this node are holding what comes from others.
pub const RUN_PAUSE: u64 = 64;

/// Bytes of a name, a table with its schema, a key in words. What is longer is cut.
pub const NAME_BYTES: usize = 64;
pub const TABLE_BYTES: usize = 128;
pub const KEY_BYTES: usize = 128;

/// Bytes of the reason for which a database is out of service. What is longer is cut.
pub const REASON_BYTES: usize = 512;

/// Bytes of a statement that could not be applied. What is longer is cut.
pub const WHAT_BYTES: usize = 1024;

/// How long chunks may wait for room before the transaction is rolled back with 53000.
pub const CHUNK_TIMEOUT: Duration = Duration::from_secs(60);

/// How often a process that waits for the group looks whether its connection still lives, should nobody tell it otherwise.
pub const LOOK_AROUND: Duration = Duration::from_secs(1);

/// The share of the window that this node may be behind before its own transactions wait, as a divisor, and the pause between two looks. A
/// transaction that waits for longer than `postgres_r.commit_timeout` is rolled back with 53000.
pub const BEHIND_SHARE: u64 = 8;
pub const BEHIND_PAUSE: Duration = Duration::from_millis(10);

/// Between a refusal for want of an attach and the next copy.
pub const REFUSED_PAUSE: Duration = Duration::from_millis(20);

/// How long an idle session has, to come with its next statement after its transaction was told to give way. Then it is ended.
pub const IDLE_GRACE: Duration = Duration::from_millis(300);

/// How long a backend whose turn it is may be busy with something else. Then its session is ended, and the position applied from the log.
pub const OVERDUE: Duration = Duration::from_millis(500);

/// A manager reports where its node is no more often than this, and no later than this after something changed.
pub const REPORT_EVERY: Duration = Duration::from_millis(100);

/// Conflicts that are kept of each database; the oldest makes room.
pub const CONFLICTS_KEPT: usize = 256;

/// Tables and kinds of keys whose conflicts are counted apart. What comes when all are taken counts under no name.
pub const CONFLICTS_COUNTED: usize = 128;

/// Transactions of other nodes that a database applies ahead at a time; a further one is applied in its turn.
pub const FORERUNNERS: usize = 2;

/// Positions whose application is remembered, for whoever loses to them. For older ones the name is not known.
pub const RECENT: usize = 4096;

/// Tables of each database at which a server's writers find a closing; the earliest makes room.
pub const CLOSED_TABLES: usize = 1024;

/// Rows that are fought over, of each database, that a server knows at once.
pub const HOT_KEYS: usize = 1024;
