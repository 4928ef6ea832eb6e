//! Sequences: what the catalogs say of one, and its one row, on a page of its own.
//!
//! PostgreSQL changes that row in place, under the page's lock, whatever becomes of the transaction. What makes a sequence start again inside
//! of a transaction (ALTER SEQUENCE, TRUNCATE ... RESTART IDENTITY) writes a new file instead. So do we: a row is only changed in place where
//! it moves forward, or where its file is the current transaction's own.

use pgrx::pg_sys;
use postgres_r_protocol::lease::{Series, State};

use super::encoding;
use super::list;
use super::majors::relation::{attributes, identity_sequence, log_file_and, new_file_since};
use super::names::{Oid, valid};
use super::relation::{Lock, Open, Persistence};

/// InvalidSubTransactionId of c.h, which pgrx does not bind.
const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;

/// A row of pg_sequence, which pgrx does not bind.
#[repr(C)]
#[derive(Clone, Copy)]
struct Parameters {
    seqrelid: pg_sys::Oid,
    seqtypid: pg_sys::Oid,
    seqstart: i64,
    seqincrement: i64,
    seqmax: i64,
    seqmin: i64,
    seqcache: i64,
    seqcycle: bool,
}

/// What follows the header of a sequence's row: FormData_pg_sequence_data, which pgrx does not bind.
#[repr(C)]
struct Row {
    last_value: i64,
    log_cnt: i64,
    is_called: bool,
}

unsafe extern "C-unwind" {
    /// Of commands/sequence.h, which pgrx does not bind.
    fn AlterSequence(state: *mut pg_sys::ParseState, statement: *mut pg_sys::AlterSeqStmt) -> pg_sys::ObjectAddress;
}

/// An open sequence.
pub struct Sequence {
    relation: Open,
}

/// A sequence as it is declared.
#[derive(Clone, Copy, Debug)]
pub struct Declared {
    pub series: Series,
    /// How many values a session fetches at a time.
    pub cache: i64,
}

impl Sequence {
    /// None if there is no such sequence.
    pub fn open(oid: Oid, lock: Lock) -> Option<Sequence> {
        let relation = Open::by_oid(oid, lock)?;
        // SAFETY: open.
        let kind = unsafe { (*(*relation.raw()).rd_rel).relkind };
        (kind as u8 == pg_sys::RELKIND_SEQUENCE).then_some(Sequence { relation })
    }

    pub fn persistence(&self) -> Persistence {
        // SAFETY: open.
        match unsafe { (*(*self.relation.raw()).rd_rel).relpersistence } as u8 {
            b'u' => Persistence::Unlogged,
            b't' => Persistence::Temporary,
            _ => Persistence::Permanent,
        }
    }

    pub fn file(&self) -> Oid {
        // SAFETY: open.
        unsafe { (*(*self.relation.raw()).rd_rel).relfilenode }
    }

    pub fn owner(&self) -> Oid {
        // SAFETY: open.
        unsafe { (*(*self.relation.raw()).rd_rel).relowner }
    }

    /// Whether the current transaction has made it.
    pub fn is_new(&self) -> bool {
        // SAFETY: open.
        unsafe { (*self.relation.raw()).rd_createSubid != NO_SUBTRANSACTION }
    }

    /// Whether the current transaction has made it, or made it start again: nobody else can see its file yet.
    pub fn is_own(&self) -> bool {
        // SAFETY: open.
        self.is_new() || unsafe { new_file_since(self.relation.raw()) != NO_SUBTRANSACTION }
    }

    pub fn declared(&self) -> Option<Declared> {
        // SAFETY: a syscache look-up, its tuple released after it was copied.
        unsafe {
            let cache = pg_sys::SysCacheIdentifier::SEQRELID as i32;
            let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(self.relation.oid()));
            if tuple.is_null() {
                return None;
            }
            let found = *pg_sys::heap_tuple_get_struct::<Parameters>(tuple);
            pg_sys::ReleaseSysCache(tuple);
            let series =
                Series { increment: found.seqincrement, min: found.seqmin, max: found.seqmax, cycles: found.seqcycle };
            Some(Declared { series, cache: found.seqcache })
        }
    }

    pub fn state(&self) -> State {
        let mut state = State { last: 0, is_called: false };
        self.look(pg_sys::BUFFER_LOCK_SHARE, |row| {
            state = State { last: row.last_value, is_called: row.is_called };
            None
        });
        state
    }

    /// Makes `value` the one that comes next, unless the sequence is there already or past it.
    pub fn advance(&self, series: &Series, value: i64) {
        self.look(pg_sys::BUFFER_LOCK_EXCLUSIVE, |row| {
            let here = State { last: row.last_value, is_called: row.is_called };
            series.is_behind(here, value).then_some(State { last: value, is_called: false })
        });
    }

    /// For a sequence whose file is the current transaction's own.
    pub fn place(&self, state: State) {
        assert!(self.is_own(), "a sequence that others use is only moved forward");
        self.look(pg_sys::BUFFER_LOCK_EXCLUSIVE, |_| Some(state));
    }

    /// Looks at the row under its page's lock, and writes what comes back.
    fn look(&self, lock: u32, change: impl FnOnce(&Row) -> Option<State>) {
        let relation = self.relation.raw();
        // SAFETY: a sequence has one page with one tuple on it, whose data are a `Row`. Nothing between the lock and its release raises: the
        // closure computes, and space for the log record was made sure of by its smallness.
        unsafe {
            if lock == pg_sys::BUFFER_LOCK_EXCLUSIVE {
                // As nextval does, so that the record is of a transaction.
                pg_sys::GetTopTransactionId();
            }
            let buffer = pg_sys::ReadBuffer(relation, 0);
            pg_sys::LockBuffer(buffer, lock as i32);
            let page = pg_sys::BufferGetPage(buffer);
            let item = pg_sys::PageGetItemId(page, 1);
            let tuple = pg_sys::PageGetItem(page, item).cast::<pg_sys::HeapTupleHeaderData>();
            let row = &mut *tuple.cast::<u8>().add((*tuple).t_hoff as usize).cast::<Row>();
            if let Some(state) = change(row) {
                pg_sys::CritSectionCount += 1;
                row.last_value = state.last;
                row.is_called = state.is_called;
                row.log_cnt = 0;
                pg_sys::MarkBufferDirty(buffer);
                if self.is_logged() {
                    log(relation, buffer, page, tuple, (*item).lp_len());
                }
                pg_sys::CritSectionCount -= 1;
            }
            pg_sys::UnlockReleaseBuffer(buffer);
        }
    }

    /// RelationNeedsWAL of PostgreSQL: what a transaction makes anew is not logged under wal_level = minimal.
    fn is_logged(&self) -> bool {
        // SAFETY: a variable of this process.
        let is_minimal = unsafe { pg_sys::wal_level } < pg_sys::WalLevel::WAL_LEVEL_REPLICA as i32;
        self.persistence() == Persistence::Permanent && !(is_minimal && self.is_own())
    }
}

/// Logs a sequence's page as nextval does: the record holds the whole tuple, from which the page is made again.
///
/// # Safety
/// The page of the open relation must be locked and marked dirty, in a critical section.
unsafe fn log(
    relation: pg_sys::Relation,
    buffer: pg_sys::Buffer,
    page: pg_sys::Page,
    tuple: *mut pg_sys::HeapTupleHeaderData,
    length: u32,
) {
    // SAFETY: by contract; xl_seq_rec is where the file is, and XLOG_SEQ_LOG is 0.
    unsafe {
        pg_sys::XLogBeginInsert();
        pg_sys::XLogRegisterBuffer(0, buffer, pg_sys::REGBUF_WILL_INIT as u8);
        log_file_and(relation, tuple.cast(), length);
        let end = pg_sys::XLogInsert(pg_sys::RmgrIds::RM_SEQ_ID as u8, 0);
        let header = page.cast::<pg_sys::PageHeaderData>();
        (*header).pd_lsn = pg_sys::PageXLogRecPtr { xlogid: (end >> 32) as u32, xrecoff: end as u32 };
    }
}

/// ALTER SEQUENCE ... RESTART WITH `value`, in the current transaction and without passing the utility hook. As its owner, or a superuser.
pub fn restart(schema: &str, name: &str, value: i64) {
    let text = |text: &str| encoding::c_string(text).unwrap_or_default();
    // SAFETY: nodes as the parser makes them, palloc'd: numbers beyond an int are kept as text.
    unsafe {
        let copy = |text: std::ffi::CString| pg_sys::pstrdup(text.as_ptr());
        let number = pg_sys::makeFloat(copy(text(&value.to_string()))).cast::<pg_sys::Node>();
        let option = pg_sys::makeDefElem(copy(text("restart")), number, -1);
        let mut statement = pg_sys::AlterSeqStmt {
            type_: pg_sys::NodeTag::T_AlterSeqStmt,
            sequence: pg_sys::makeRangeVar(copy(text(schema)), copy(text(name)), -1),
            options: pg_sys::lappend(std::ptr::null_mut(), option.cast()),
            ..pg_sys::AlterSeqStmt::default()
        };
        let statement = &raw mut statement;
        pg_sys::ffi::pg_guard_ffi_boundary(|| AlterSequence(std::ptr::null_mut(), statement));
        pg_sys::CommandCounterIncrement();
    }
}

/// Keeps everybody else from drawing values until the end of the transaction, as ALTER SEQUENCE does.
pub fn keep_others_off(sequence: Oid) {
    // SAFETY: an ordinary lock, released with the transaction.
    unsafe { pg_sys::LockRelationOid(sequence, pg_sys::ShareRowExclusiveLock as i32) }
}

/// The sequences that a table's columns own.
pub fn owned_by(table: Oid) -> Vec<Oid> {
    // SAFETY: a catalog look-up.
    unsafe { list::oids(pg_sys::getOwnedSequences(table)) }
}

/// A sequence, or the sequences that a table owns.
pub fn with_owned(relation: Oid) -> Vec<Oid> {
    // SAFETY: a syscache look-up.
    let kind = unsafe { pg_sys::get_rel_relkind(relation) } as u8;
    if kind == pg_sys::RELKIND_SEQUENCE { vec![relation] } else { owned_by(relation) }
}

/// The sequences of a table's identity columns.
pub(super) fn of_identity_columns(table: Oid) -> Vec<Oid> {
    of_identity_columns_but(table, &[])
}

/// The sequences of a table's identity columns but for those with these names.
pub(super) fn of_identity_columns_but(table: Oid, names: &[&std::ffi::CStr]) -> Vec<Oid> {
    let Some(open) = Open::by_oid(table, Lock::AccessShare) else { return Vec::new() };
    // SAFETY: the relation is open; its descriptor holds `natts` attributes, with names that end in a zero.
    unsafe {
        let descriptor = (*open.raw()).rd_att;
        let attributes = attributes(descriptor);
        attributes
            .iter()
            .filter(|column| !column.attisdropped && column.attidentity != 0)
            .filter(|column| !names.contains(&std::ffi::CStr::from_ptr(column.attname.data.as_ptr())))
            .filter_map(|column| valid(identity_sequence(open.raw(), column.attnum)))
            .collect()
    }
}

/// Whether the current role may know its value.
pub fn may_see(sequence: Oid) -> bool {
    has_right(sequence, pg_sys::ACL_SELECT | pg_sys::ACL_USAGE)
}

/// Whether the current role may draw values.
pub fn may_draw(sequence: Oid) -> bool {
    has_right(sequence, pg_sys::ACL_USAGE | pg_sys::ACL_UPDATE)
}

/// Whether the current role may set the value.
pub fn may_set(sequence: Oid) -> bool {
    has_right(sequence, pg_sys::ACL_UPDATE)
}

fn has_right(sequence: Oid, rights: u32) -> bool {
    // SAFETY: a catalog look-up.
    unsafe {
        let answer = pg_sys::pg_class_aclcheck(sequence, pg_sys::GetUserId(), rights as pg_sys::AclMode);
        answer == pg_sys::AclResult::ACLCHECK_OK
    }
}
