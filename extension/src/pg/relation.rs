//! Relations: finding and opening them, and what the catalogs say of one now. [`super::table`] describes a table for longer.

use pgrx::pg_sys;

use super::encoding;
pub use super::inheritance::{with_children, with_parents};
use super::majors::relation::new_file_since;
use super::mark;
pub use super::names::Oid;
use super::names::{name_of, owned, valid};

/// An open relation. Closing keeps its lock to the end of the transaction, as PostgreSQL does for what it wrote to.
pub struct Open(pg_sys::Relation);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lock {
    AccessShare = pg_sys::AccessShareLock as isize,
    /// Of those who lock rows.
    RowShare = pg_sys::RowShareLock as isize,
    RowExclusive = pg_sys::RowExclusiveLock as isize,
    /// Keeps writers out, and lets readers in.
    ShareRowExclusive = pg_sys::ShareRowExclusiveLock as isize,
    /// The same, and each other's.
    Exclusive = pg_sys::ExclusiveLock as isize,
    AccessExclusive = pg_sys::AccessExclusiveLock as isize,
}

impl Open {
    /// None if there is no such relation any more.
    pub fn by_oid(oid: Oid, lock: Lock) -> Option<Open> {
        // SAFETY: takes the lock first, then looks; gives null where nothing is there.
        let raw = unsafe { pg_sys::try_relation_open(oid, lock as pg_sys::LOCKMODE) };
        // An `Open` of null must not even be made: it would be closed.
        (!raw.is_null()).then(|| Open(raw))
    }

    pub fn oid(&self) -> Oid {
        // SAFETY: open, so the entry is there.
        unsafe { (*self.0).rd_id }
    }

    /// Whether no page was ever written.
    pub fn is_empty(&self) -> bool {
        // SAFETY: open, and the caller makes sure that it has a file.
        unsafe { pg_sys::RelationGetNumberOfBlocksInFork(self.0, pg_sys::ForkNumber::MAIN_FORKNUM) == 0 }
    }

    pub(super) fn raw(&self) -> pg_sys::Relation {
        self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by us; an ERROR releases the reference by the resource owner instead.
            unsafe { pg_sys::relation_close(self.0, pg_sys::NoLock as pg_sys::LOCKMODE) }
        }
    }
}

/// The OID of the table or other relation with this name; none if there is none.
pub fn find(schema: &str, name: &str) -> Option<Oid> {
    let schema = encoding::c_string(schema)?;
    let name = encoding::c_string(name)?;
    // SAFETY: syscache look-ups with C strings that outlive them.
    unsafe {
        let namespace = valid(pg_sys::get_namespace_oid(schema.as_ptr(), true))?;
        valid(pg_sys::get_relname_relid(name.as_ptr(), namespace))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RelationKind {
    Table,
    PartitionedTable,
    Index,
    Sequence,
    View,
    MaterializedView,
    ForeignTable,
    /// TOAST tables and the row types of composites.
    Other,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// Its rows are the group's.
    Permanent,
    Unlogged,
    /// Permanent, and its rows are of this node: somebody has excluded it from replication.
    Excluded,
    Temporary,
}

impl Persistence {
    /// Whether rows stay where they are written, though all nodes have the table.
    pub fn is_of_node(self) -> bool {
        matches!(self, Persistence::Unlogged | Persistence::Excluded)
    }
}

/// A relation as the catalogs show it now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub schema: String,
    pub name: String,
    pub kind: RelationKind,
    pub persistence: Persistence,
    /// The file that holds its rows; another one after a rewrite.
    pub file: Oid,
    /// Whether it belongs to PostgreSQL itself or to this extension.
    pub is_internal: bool,
}

/// None if there is no such relation, or none visible yet.
pub fn entry(oid: Oid) -> Option<Entry> {
    // SAFETY: a syscache look-up, its tuple released after what is needed was copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(oid));
        if tuple.is_null() {
            return None;
        }
        let class = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple);
        let namespace = class.relnamespace;
        let mut entry = Entry {
            schema: String::new(),
            name: name_of(&class.relname),
            kind: match class.relkind as u8 {
                b'r' => RelationKind::Table,
                b'p' => RelationKind::PartitionedTable,
                b'i' | b'I' => RelationKind::Index,
                b'S' => RelationKind::Sequence,
                b'v' => RelationKind::View,
                b'm' => RelationKind::MaterializedView,
                b'f' => RelationKind::ForeignTable,
                _ => RelationKind::Other,
            },
            persistence: match class.relpersistence as u8 {
                b'u' => Persistence::Unlogged,
                b't' => Persistence::Temporary,
                _ => Persistence::Permanent,
            },
            file: class.relfilenode,
            is_internal: false,
        };
        let may_be_marked = class.relhastriggers && entry.kind == RelationKind::Table;
        pg_sys::ReleaseSysCache(tuple);
        if may_be_marked && entry.persistence == Persistence::Permanent && mark::marks_excluded(oid) {
            entry.persistence = Persistence::Excluded;
        }
        entry.schema = owned(pg_sys::get_namespace_name(namespace)).unwrap_or_default();
        entry.is_internal = matches!(entry.schema.as_str(), "pg_catalog" | "information_schema" | "pg_toast" | "postgres_r");
        Some(entry)
    }
}

/// Whether a relation is a partition of another.
pub fn is_partition(oid: Oid) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::get_rel_relispartition(oid) }
}

/// PostgreSQL's own objects have lower numbers.
const FIRST_OF_USERS: u32 = 16384;

/// Of c.h, which pgrx does not bind.
const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;

/// Whether this transaction has made the relation: nobody else can be in it. Keeps no lock.
pub fn is_of_this_transaction(oid: Oid) -> bool {
    // SAFETY: as in `Open::by_oid`; what was opened is closed, and its lock released.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let raw = pg_sys::try_relation_open(oid, lock);
        if raw.is_null() {
            return false;
        }
        let is_new = (*raw).rd_createSubid != NO_SUBTRANSACTION;
        pg_sys::relation_close(raw, lock);
        is_new
    }
}

/// The file of a table, and how long it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    pub file: Oid,
    pub blocks: u32,
}

/// None for what has no file, or is gone. Keeps no lock: whoever looks may be about to take a stronger one, and two that both hold this one
/// would wait for each other.
pub fn extent(oid: Oid) -> Option<Extent> {
    // SAFETY: as in `Open::by_oid`; what was opened is closed, and its lock released.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let raw = pg_sys::try_relation_open(oid, lock);
        if raw.is_null() {
            return None;
        }
        let file = (*(*raw).rd_rel).relfilenode;
        let has_file = valid(file).is_some() && (*(*raw).rd_rel).relkind as u8 == pg_sys::RELKIND_RELATION;
        let extent = has_file.then(|| {
            let blocks = pg_sys::RelationGetNumberOfBlocksInFork(raw, pg_sys::ForkNumber::MAIN_FORKNUM);
            Extent { file, blocks }
        });
        pg_sys::relation_close(raw, lock);
        extent
    }
}

/// Whether this transaction has given a relation that was there a new file, as TRUNCATE does.
pub fn has_new_file(oid: Oid) -> bool {
    // SAFETY: as in `extent`.
    unsafe {
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let raw = pg_sys::try_relation_open(oid, lock);
        if raw.is_null() {
            return false;
        }
        let is_there = (*raw).rd_createSubid == 0 && new_file_since(raw) != 0;
        pg_sys::relation_close(raw, lock);
        is_there
    }
}

/// Keeps those who write rows off until the end of this transaction, and waits for those who have; see `announce_writes`.
pub fn keep_writers_off_types() {
    // SAFETY: an ordinary lock, released with the transaction.
    unsafe { pg_sys::LockRelationOid(pg_sys::TypeRelationId, pg_sys::ShareLock as i32) }
}

/// This transaction writes rows: how types read must stay as it is until it ends. Takes a lock that PostgreSQL's fast path
/// covers and that all of its own DDL shares.
pub fn announce_writes() {
    // SAFETY: as above.
    unsafe { pg_sys::LockRelationOid(pg_sys::TypeRelationId, pg_sys::RowExclusiveLock as i32) }
}

/// The table an index belongs to.
pub fn table_of_index(index: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up.
    valid(unsafe { pg_sys::IndexGetRelation(index, true) })
}

/// The indexes of a table, valid or not. Keeps no lock.
pub fn indexes_of(table: Oid) -> Vec<Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: what was opened is closed; the list is read before.
    unsafe {
        let raw = pg_sys::try_relation_open(table, lock);
        if raw.is_null() {
            return Vec::new();
        }
        let indexes = super::list::oids(pg_sys::RelationGetIndexList(raw));
        pg_sys::relation_close(raw, lock);
        indexes
    }
}

/// Tables and materialized views of this database, but for PostgreSQL's own.
pub fn with_indexes() -> Vec<Oid> {
    all(|class| class.relhasindex && class.oid.to_u32() >= FIRST_OF_USERS && class.relpersistence as u8 != b't')
}

/// The OIDs in pg_class of which `is_wanted`.
fn all(is_wanted: impl Fn(&pg_sys::FormData_pg_class) -> bool) -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: an ordinary scan of pg_class with the catalog snapshot.
    unsafe {
        let catalog = pg_sys::table_open(pg_sys::RelationRelationId, pg_sys::AccessShareLock as i32);
        let scan =
            pg_sys::systable_beginscan(catalog, pg_sys::InvalidOid, false, std::ptr::null_mut(), 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let class = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_class>(tuple);
            if is_wanted(class) {
                found.push(class.oid);
            }
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(catalog, pg_sys::AccessShareLock as i32);
    }
    found
}

/// Every permanent table of this database that holds users' rows.
pub fn user_tables() -> Vec<Oid> {
    let mut tables = all(|_| true);
    tables.retain(|&oid| {
        entry(oid).is_some_and(|entry| {
            entry.kind == RelationKind::Table && entry.persistence == Persistence::Permanent && !entry.is_internal
        })
    });
    tables
}

/// The sequences of a schema.
pub fn sequences_in(schema: &str) -> Vec<Oid> {
    let Some(schema) = encoding::c_string(schema) else { return Vec::new() };
    // SAFETY: a catalog look-up with a C string that outlives it.
    let namespace = unsafe { valid(pg_sys::get_namespace_oid(schema.as_ptr(), true)) };
    namespace.map_or_else(Vec::new, |namespace| {
        all(|class| class.relkind as u8 == pg_sys::RELKIND_SEQUENCE && class.relnamespace == namespace)
    })
}

/// A relation and, if it is partitioned, its partitions: where rows inserted into it may go.
pub fn with_partitions(oid: Oid) -> Vec<Oid> {
    // SAFETY: a syscache look-up.
    let kind = unsafe { pg_sys::get_rel_relkind(oid) };
    if kind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE { with_children(oid) } else { vec![oid] }
}
