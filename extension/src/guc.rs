//! Every setting, sorted by name. docs/settings.md says the same to users.

use std::ffi::CStr;
use std::time::Duration;

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting, PostgresGucEnum};
use postgres_r_protocol::bounds::WINDOW;

/// The most remote backends one database may have.
pub const APPLY_WORKERS_MAX: usize = 16;

/// How much of what the group has committed a transaction surely sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum ReadLevel {
    #[name = c"eventual"]
    Eventual,
    #[name = c"session"]
    Session,
    #[name = c"bounded"]
    Bounded,
    #[name = c"strong"]
    Strong,
}

impl ReadLevel {
    pub fn name(self) -> &'static str {
        match self {
            ReadLevel::Eventual => "eventual",
            ReadLevel::Session => "session",
            ReadLevel::Bounded => "bounded",
            ReadLevel::Strong => "strong",
        }
    }
}

/// Where a transaction must be visible before COMMIT returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum CommitLevel {
    #[name = c"here"]
    Here,
    #[name = c"after"]
    After,
}

/// Where a lock holds, and whom a notification reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum LockScope {
    #[name = c"group"]
    Group,
    #[name = c"local"]
    Local,
}

/// What is done for a member that is further behind than `max_apply_lag`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PostgresGucEnum)]
pub enum LagPolicy {
    #[name = c"fall_behind"]
    FallBehind,
    #[name = c"throttle"]
    Throttle,
}

static ADVISORY_LOCKS: GucSetting<LockScope> = GucSetting::<LockScope>::new(LockScope::Group);
static AFTER_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static APPLY_LAG_TARGET: GucSetting<i32> = GucSetting::<i32>::new(8);
static APPLY_QUEUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(16 * 1024);
static APPLY_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(4);
static AUTO_REBUILD: GucSetting<bool> = GucSetting::<bool>::new(true);
static COMMIT_LEVEL: GucSetting<CommitLevel> = GucSetting::<CommitLevel>::new(CommitLevel::Here);
static COMMIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static GCS_SOCKET: GucSetting<Option<std::ffi::CString>> =
    GucSetting::<Option<std::ffi::CString>>::new(Some(DEFAULT_SOCKET));
static MAX_APPLY_LAG: GucSetting<i32> = GucSetting::<i32>::new(100_000);
static MAX_APPLY_LAG_POLICY: GucSetting<LagPolicy> = GucSetting::<LagPolicy>::new(LagPolicy::FallBehind);
/// A second of work at most, where rows are as narrow as they can be.
static APPLY_AHEAD_SIZE: GucSetting<i32> = GucSetting::<i32>::new(4 * 1024);
static MAX_DATABASES: GucSetting<i32> = GucSetting::<i32>::new(4);
static MAX_STALENESS: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static MAX_WRITESET_SIZE: GucSetting<i32> = GucSetting::<i32>::new(4 * 1024 * 1024);
static REPLICATE_DATABASES: GucSetting<bool> = GucSetting::<bool>::new(false);
static REPLACE_DATABASE: GucSetting<bool> = GucSetting::<bool>::new(false);
static NOTIFY: GucSetting<LockScope> = GucSetting::<LockScope>::new(LockScope::Group);
static READ_AFTER: GucSetting<Option<std::ffi::CString>> = GucSetting::<Option<std::ffi::CString>>::new(Some(c""));
static READ_LEVEL: GucSetting<ReadLevel> = GucSetting::<ReadLevel>::new(ReadLevel::Eventual);
static READ_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(10_000);
static READER_GRACE: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static REHEARSAL_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(2_000);
static RETRY_AUTOCOMMIT: GucSetting<i32> = GucSetting::<i32>::new(100);
static ROW_LOCKS: GucSetting<LockScope> = GucSetting::<LockScope>::new(LockScope::Group);
static TABLE_LOCKS: GucSetting<LockScope> = GucSetting::<LockScope>::new(LockScope::Group);
static TABLESPACES: GucSetting<Option<std::ffi::CString>> = GucSetting::<Option<std::ffi::CString>>::new(Some(c""));
static WARN_OF_LOCAL_DATA: GucSetting<bool> = GucSetting::<bool>::new(true);

/// As many chunks as the group keeps of one writeset (`CHUNKS_MAX` of gcs_core), in kB.
const MAX_WRITESET_KB: i32 = 64 << 20;

const DEFAULT_SOCKET: &CStr = c"/run/gcs/gcs.sock";

/// Called while libraries are preloaded.
pub fn define() {
    define_a_to_c();
    define_databases();
    define_g_to_r();
    define_lag();
    define_levels();
    define_locks();
    define_notify();
    define_warnings();
}

fn define_warnings() {
    GucRegistry::define_string_guc(
        c"postgres_r.tablespaces",
        c"Tablespaces of this server for those that statements of other nodes name, as name=own, ...",
        c"One that is not named here is the one of the same name; if this server has none, the default is used.",
        &TABLESPACES,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"postgres_r.warn_of_local_data",
        c"Whether a statement warns of what it makes that means something on one node only.",
        c"Columns of types like oid and xid, unlogged tables, tables and tablespaces that are of one node.",
        &WARN_OF_LOCAL_DATA,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn define_notify() {
    GucRegistry::define_enum_guc(
        c"postgres_r.notify",
        c"Whether NOTIFY reaches listeners on all nodes of the group (group) or on this node alone (local).",
        c"Counts when NOTIFY or pg_notify() is run, not at COMMIT.",
        &NOTIFY,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn define_locks() {
    GucRegistry::define_enum_guc(
        c"postgres_r.advisory_locks",
        c"Whether advisory locks hold on all nodes of the group (group) or on this node alone (local).",
        c"Sessions exclude each other only if they have the same setting.",
        &ADVISORY_LOCKS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"postgres_r.row_locks",
        c"Whether SKIP LOCKED and NOWAIT see the rows that are locked on other nodes (group) or on this node alone (local).",
        c"Sessions see each other's locks only if they have the same setting.",
        &ROW_LOCKS,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"postgres_r.table_locks",
        c"Whether DDL and LOCK TABLE wait for the writers of all nodes, and these for them (group), or for those of this node alone (local).",
        c"With local, transactions of several nodes that would wait for each other on one server fail with 40001.",
        &TABLE_LOCKS,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn define_lag() {
    GucRegistry::define_int_guc(
        c"postgres_r.max_apply_lag",
        c"How many positions a node in service may be behind before postgres_r.max_apply_lag_policy counts.",
        c"Nodes say once a second how far they are: give it the transactions of some seconds.",
        &MAX_APPLY_LAG,
        1,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"postgres_r.max_apply_lag_policy",
        c"Whether statements that write on this node wait for a node that is further behind (throttle) or let it fall behind (fall_behind).",
        c"With throttle each transaction waits until it is not, before it writes, for a second at most.",
        &MAX_APPLY_LAG_POLICY,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

fn define_a_to_c() {
    GucRegistry::define_int_guc(
        c"postgres_r.apply_ahead_size",
        c"Transactions whose changes are larger are applied on the other nodes before they are ordered.",
        c"So that nobody waits there for as long as that takes. So are statements that take longer to try than postgres_r.rehearsal_timeout. -1 leaves it out.",
        &APPLY_AHEAD_SIZE,
        -1,
        MAX_WRITESET_KB,
        GucContext::Userset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"postgres_r.apply_lag_target",
        c"How many positions may wait to be applied here while a statement begins to write.",
        c"With more of them it waits, for a quarter of a second in each transaction: what it writes would probably lose to one of them.",
        &APPLY_LAG_TARGET,
        0,
        WINDOW as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.apply_queue_size",
        c"Shared memory for writesets of other nodes that wait to be applied, for each replicated database.",
        c"What does not fit goes to files in the data directory.",
        &APPLY_QUEUE_SIZE,
        1024,
        1024 * 1024,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"postgres_r.apply_workers",
        c"Remote backends that apply the writesets of other nodes, for each replicated database.",
        c"They count against max_worker_processes.",
        &APPLY_WORKERS,
        1,
        APPLY_WORKERS_MAX as i32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"postgres_r.auto_rebuild",
        c"Whether a database that has lost the group's order is replaced by a copy of another node's.",
        c"Off, it is out of service until somebody drops it and starts its replication again.",
        &AUTO_REBUILD,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.commit_timeout",
        c"How long a COMMIT waits for the group's word before it says that the outcome is unknown.",
        c"The error is 08007; the transaction may yet be committed.",
        &COMMIT_TIMEOUT,
        100,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

fn define_g_to_r() {
    GucRegistry::define_string_guc(
        c"postgres_r.gcs_socket",
        c"The Unix socket of this node's gcs.",
        c"As in gcs's own configuration.",
        &GCS_SOCKET,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.max_databases",
        c"How many databases of this server can be replicated.",
        c"Each takes postgres_r.apply_queue_size and a megabyte of shared memory.",
        &MAX_DATABASES,
        1,
        64,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.max_writeset_size",
        c"The largest transaction, as the size of its changes.",
        c"A larger one fails with 54000 as soon as it is.",
        &MAX_WRITESET_SIZE,
        1024,
        MAX_WRITESET_KB,
        GucContext::Suset,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"postgres_r.reader_grace",
        c"How long a transaction that only reads may stand in the way of a writeset that is committed in the group.",
        c"After that it fails with 40001.",
        &READER_GRACE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"postgres_r.rehearsal_timeout",
        c"How long a transaction with DDL is tried on the other nodes before it is ordered.",
        c"What can't run there is an error here. 0 leaves it out: what can't run on a node then takes that node out of service.",
        &REHEARSAL_TIMEOUT,
        0,
        60_000,
        GucContext::Suset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_bool_guc(
        c"postgres_r.replace_database",
        c"Lets this session rename a database that is out of service and give its place in the group to another.",
        c"For gcs, where it has made a copy.",
        &REPLACE_DATABASE,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
    GucRegistry::define_int_guc(
        c"postgres_r.retry_autocommit",
        c"How often a statement outside of a transaction block is run again when it loses to another node.",
        c"For INSERT, UPDATE, DELETE and MERGE under READ COMMITTED; 0 gives every loss to the client.",
        &RETRY_AUTOCOMMIT,
        0,
        1000,
        GucContext::Userset,
        GucFlags::default(),
    );
}

fn define_databases() {
    GucRegistry::define_bool_guc(
        c"postgres_r.replicate_databases",
        c"Whether CREATE and DROP DATABASE, in the group's first database, make and drop the database on every node.",
        c"Off, they are of this server alone.",
        &REPLICATE_DATABASES,
        GucContext::Suset,
        GucFlags::default(),
    );
}

/// What a session reads, and what its commits wait for.
fn define_levels() {
    GucRegistry::define_int_guc(
        c"postgres_r.after_timeout",
        c"How long a COMMIT waits for other nodes to show the transaction, with postgres_r.commit_level = after.",
        c"Those that do not show it by then are named by a warning; the transaction is committed all the same.",
        &AFTER_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_enum_guc(
        c"postgres_r.commit_level",
        c"Where a transaction must be visible before COMMIT returns: on this node (here), or on every node that can be reached (after).",
        c"",
        &COMMIT_LEVEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.max_staleness",
        c"How old what is read may be with postgres_r.read_level = bounded.",
        c"Whatever was acknowledged longer ago is seen.",
        &MAX_STALENESS,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"postgres_r.read_after",
        c"What a transaction must see with postgres_r.read_level = session: what session_token() gave on another node.",
        c"Empty for nothing but what this node shows.",
        &READ_AFTER,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_enum_guc(
        c"postgres_r.read_level",
        c"How much of what the group has committed a transaction surely sees: eventual, session, bounded or strong.",
        c"Counts at a transaction's first statement that looks at data.",
        &READ_LEVEL,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"postgres_r.read_timeout",
        c"How long a transaction waits for what its postgres_r.read_level promises.",
        c"Then it fails with 57014.",
        &READ_TIMEOUT,
        1,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
}

pub fn advisory_locks() -> LockScope {
    ADVISORY_LOCKS.get()
}

pub fn notify() -> LockScope {
    NOTIFY.get()
}

pub fn tablespaces() -> String {
    TABLESPACES.get().map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

pub fn warns_of_local_data() -> bool {
    WARN_OF_LOCAL_DATA.get()
}

pub fn row_locks() -> LockScope {
    ROW_LOCKS.get()
}

pub fn table_locks() -> LockScope {
    TABLE_LOCKS.get()
}

pub fn after_timeout() -> Duration {
    Duration::from_millis(AFTER_TIMEOUT.get() as u64)
}

/// By how much a node may be behind before those who write here wait for it; none if they never do.
pub fn throttled_above() -> Option<u64> {
    (MAX_APPLY_LAG_POLICY.get() == LagPolicy::Throttle).then(|| MAX_APPLY_LAG.get() as u64)
}

pub fn apply_lag_target() -> u64 {
    APPLY_LAG_TARGET.get() as u64
}

pub fn apply_queue_bytes() -> usize {
    APPLY_QUEUE_SIZE.get() as usize * 1024
}

pub fn apply_workers() -> usize {
    (APPLY_WORKERS.get() as usize).min(APPLY_WORKERS_MAX)
}

pub fn auto_rebuild() -> bool {
    AUTO_REBUILD.get()
}

pub fn commit_level() -> CommitLevel {
    COMMIT_LEVEL.get()
}

pub fn commit_timeout() -> Duration {
    Duration::from_millis(COMMIT_TIMEOUT.get() as u64)
}

pub fn gcs_socket() -> String {
    GCS_SOCKET.get().map(|path| path.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Bytes of a transaction's changes from which on it is applied ahead; none if none is.
pub fn apply_ahead_bytes() -> Option<u64> {
    u64::try_from(APPLY_AHEAD_SIZE.get()).ok().map(|kilobytes| kilobytes * 1024)
}

pub fn max_databases() -> usize {
    MAX_DATABASES.get() as usize
}

pub fn max_staleness() -> Duration {
    Duration::from_millis(MAX_STALENESS.get() as u64)
}

pub fn max_writeset_bytes() -> u64 {
    MAX_WRITESET_SIZE.get() as u64 * 1024
}

pub fn read_after() -> String {
    READ_AFTER.get().map(|token| token.to_string_lossy().into_owned()).unwrap_or_default()
}

pub fn read_level() -> ReadLevel {
    READ_LEVEL.get()
}

pub fn read_timeout() -> Duration {
    Duration::from_millis(READ_TIMEOUT.get() as u64)
}

pub fn reader_grace() -> Duration {
    Duration::from_millis(READER_GRACE.get() as u64)
}

pub fn replace_database() -> bool {
    REPLACE_DATABASE.get()
}

pub fn replicate_databases() -> bool {
    REPLICATE_DATABASES.get()
}

pub fn rehearsal_timeout() -> Duration {
    Duration::from_millis(REHEARSAL_TIMEOUT.get() as u64)
}

pub fn retry_autocommit() -> u32 {
    RETRY_AUTOCOMMIT.get() as u32
}
