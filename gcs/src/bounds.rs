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

/// Rehearsals, and tables that are to be cleared, which wait for the one rehearser of a database; and those of the latter that it works on at a time. At the bound the next is answered at once: it is not tried.
pub const REHEARSALS_WAITING_MAX: usize = 16;

/// For how long tables are cleared at most, whatever is asked.
pub const CLEAR_MAX: Duration = Duration::from_secs(10);

/// What is to be applied ahead and waits for a forerunner, of all databases. At the bound the next is applied in its turn; so is what none has come for in time.
pub const FORERUNNERS_AWAITED_MAX: usize = 8;
pub const FORERUNNER_COMES_WITHIN: Duration = Duration::from_secs(2);

/// What a rehearsal's request may carry. A longer one ends the connection.
pub const REHEARSAL_BYTES_MAX: usize = 8 << 20;

/// The first frame on the local socket, before its caller has said what it wants. A longer one ends the connection.
pub const GREETING_BYTES_MAX: usize = 4_096;
/// Questions of peers, about one database, that wait for a position to be shown here. At the bound further ones are not answered.
pub const SHOWN_WAITING_MAX: usize = 16_384;

/// Connections of PostgreSQL at the same time. The next is closed, with a line in the log.
pub const LOCAL_SESSIONS_MAX: usize = 8_192;

/// Connections to the peer port that have not yet said who they are, in all and from one address. At either bound the oldest of them is
/// closed for the newest: whoever really wants to talk is done long before that, however many others only hold the door.
pub const HANDSHAKES_MAX: usize = 256;
pub const HANDSHAKES_OF_ADDRESS_MAX: usize = 64;

/// A frame before the handshake is done. A longer one ends the connection.
pub const HANDSHAKE_FRAME_BYTES_MAX: usize = 8_192;

/// The answer to a node that joins: a certificate, those of the authorities, the members. A longer one ends the connection.
pub const ENROLMENT_FRAME_BYTES_MAX: usize = 128 << 10;

/// How long connecting, and then shaking hands, may take.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long a node that joins waits until the group has ordered it.
pub const JOIN_TIMEOUT: Duration = Duration::from_secs(15);

/// Nodes let in that are no members as far as is known here. The next is refused.
pub const GUESTS_MAX: usize = 8;

/// A sender that has nothing to say says that much.
pub const PING_EVERY: Duration = Duration::from_millis(400);

/// In the time after which a silent peer is down (`[detector]`): what must have come of a frame that is not complete. A length that was changed on the
/// way would else make the connection swallow whatever comes, for as long as it comes slowly.
pub const PEER_PROGRESS_BYTES_MIN: u64 = 16 << 10;

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

/// Bytes of the log, unless the configuration says otherwise, and at least.
pub const LOG_RETENTION: u64 = 16_000_000_000;
pub const LOG_RETENTION_MIN: u64 = 64_000_000;

/// Bytes that are kept free for the day on which the disk is full, unless the configuration says otherwise: two segments.
pub const LOG_RESERVE: u64 = 64_000_000;

/// Bytes of one direction of a tunnel that wait to be written.
pub const TUNNEL_QUEUE_BYTES_MAX: usize = 256 << 10;

/// Pause after a copy that failed, at first and at last.
pub const COPY_AGAIN_FIRST: Duration = Duration::from_secs(1);
pub const COPY_AGAIN_LAST: Duration = Duration::from_secs(30);

/// A copy that is slower (bytes a second) would hardly ever end.
pub const COPY_RATE_MIN: u64 = 100_000;

/// Connections for HTTP at the same time, in all and from one address. The next pushes the oldest out.
pub const HTTP_CONNECTIONS_MAX: usize = 64;
pub const HTTP_CONNECTIONS_OF_ADDRESS_MAX: usize = 32;

/// Bytes of a request over HTTP. A longer one is refused (431), and its connection ended.
pub const HTTP_REQUEST_BYTES_MAX: usize = 8 << 10;

/// How often a commit is followed from its submission until it is visible everywhere, how long it is waited for, and how many are kept, for those who
/// look at the page; and for how long after a look at the page that is done.
pub const FOLLOW_EVERY: Duration = Duration::from_millis(500);
pub const FOLLOW_WITHIN: Duration = Duration::from_secs(10);
pub const COURSES_KEPT: usize = 40;
pub const LOOKED_AT_WITHIN: Duration = Duration::from_secs(5);

/// Each of the two files of the history. At the bound the older one goes.
pub const EVENTS_FILE_BYTES_MAX: u64 = 1 << 20;

/// Events in memory, for the page and for those who follow. Who is further behind misses the oldest.
pub const EVENTS_AT_HAND: usize = 100;

/// Events that wait for the command of `[hooks]`. At the bound the oldest is dropped, which the log says.
pub const HOOKS_WAITING_MAX: usize = 256;

/// The command of `[hooks]` is killed after so long.
pub const HOOK_WITHIN: Duration = Duration::from_secs(10);

/// From the beginning of a connection for HTTP to the end of its answer. Then it is ended.
pub const HTTP_WITHIN: Duration = Duration::from_secs(5);

/// Questions of those who look on that wait for the driver: one for each connection, so that the bound is never met.
pub const QUESTIONS_MAX: usize = HTTP_CONNECTIONS_MAX;

/// A driver that takes longer to answer one does not answer.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(1);

/// Those who only look are given an answer that is so old at the most.
pub const SNAPSHOT_AGE_MAX: Duration = Duration::from_millis(100);

/// How long a question for the lag waits for the group's answer, and for PostgreSQL to get there.
pub const CATCH_UP_WAIT: Duration = Duration::from_secs(1);

/// Whoever waits for the node to be synced or writable has it looked at whenever something changes, and after so long at the latest.
pub const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Questions for the lag that the group has yet to answer. The next is not asked: how far the group is is not known.
pub const LOOKS_MAX: usize = 64;

/// A driver that does not step for longer hangs.
pub const SILENCE_MAX: Duration = Duration::from_secs(10);

/// A database that starts is compared with another node's for so long.
pub const COMPARE_MAX: Duration = Duration::from_secs(3);

/// Sessions of a node that is drained have so long at the most before none of them begins another transaction.
pub const DRAIN_GRACE_MAX: Duration = Duration::from_secs(86_400);

/// Between two looks whether a node that is drained leads.
pub const HAND_OVER_AGAIN: Duration = Duration::from_secs(2);

/// Between two looks at how large a copy is.
pub const COPY_LOOK_EVERY: Duration = Duration::from_secs(1);

/// Between two lines of the log about a copy that goes on.
pub const COPY_REPORT_EVERY: Duration = Duration::from_secs(10);
/// The same complaint about the same address is repeated in the log at most so often.
pub const COMPLAIN_AGAIN: Duration = Duration::from_secs(600);

/// Complaints that are remembered for that. At the bound the oldest is forgotten, and would be repeated early.
pub const COMPLAINTS_MAX: usize = 1_024;

/// How often it is looked whether the files of certificates have changed, and whether one comes to its end.
pub const CERTIFICATES_LOOK_EVERY: Duration = Duration::from_secs(3);

/// Days before the end of a certificate: of a warning, and of an error.
pub const EXPIRY_WARNING_DAYS: i64 = 30;
pub const EXPIRY_LAST_WARNING_DAYS: i64 = 7;

/// How far the clock of a node that joins may be from the clock of the node that signs its certificate.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_secs(600);
