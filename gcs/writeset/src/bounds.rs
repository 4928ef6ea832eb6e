//! Every bound of the shared formats, and what happens when it is reached (invariant 10).

/// Members a group may have, down ones included. The next is refused. It is also the stride of sequences (ADR 4), so that
/// a node can join later without renumbering anybody's sequences.
pub const GROUP_MEMBERS_MAX: usize = 8;

/// One frame between PostgreSQL and its daemon, header excluded. A longer one is refused by the writer and ends the
/// connection at the reader.
pub const LINK_FRAME_BYTES_MAX: usize = 64 << 20;

/// A body above this travels in chunks of at most this size; see `writeset`.
pub const CHUNK_BYTES_MAX: usize = 1 << 20;

/// Chunks one transaction may have in flight before it waits for the first to be ordered.
pub const CHUNKS_IN_FLIGHT_MAX: u32 = 8;

/// The identifier of a prepared transaction: PostgreSQL takes less than 200 bytes of the database's encoding; a character of one byte there has three at most here.
pub const IDENTIFIER_BYTES_MAX: usize = 3 * 200;

/// The body of a prepared transaction, which waits in a row of a table until it is decided on. PREPARE TRANSACTION of a larger one fails with 54000.
pub const PREPARED_BODY_BYTES_MAX: usize = 32 << 20;

/// Keys in one writeset. Beyond it the transaction fails with 54000 (program_limit_exceeded).
pub const KEYS_MAX: usize = 4 << 20;

/// Bytes of an identifier on the wire (PostgreSQL's NAMEDATALEN is 64; quoted multi-byte names stay below this).
pub const NAME_BYTES_MAX: usize = 256;

/// Certificates that a daemon tells of at once: its own, and those of the authorities that it believes; further ones are not shown.
pub const CERTIFICATES_MAX: usize = 32;

/// Tables and kinds of keys whose lost conflicts a manager tells of.
pub const CONFLICTS_TOLD_MAX: usize = 32;

/// Locks, or sessions, that one request names. A backend that has more to say sends several.
pub const LOCKS_AT_ONCE_MAX: usize = 1_024;

/// Tables that a statement locks in the group. Of one that is about more the rest are left to certification.
pub const TABLES_MAX: usize = 256;

/// Bytes of a text for people in a link message: why something failed, what to do about it. A longer one is refused by the writer
/// and ends the connection at the reader.
pub const TEXT_BYTES_MAX: usize = 4096;
