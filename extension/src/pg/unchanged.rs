//! Whether what a transaction has looked for is still the same: no row that meets one of its [`Predicate`]s has come, gone or been changed since its
//! snapshot, but by itself.
//!
//! The table is read version by version, whoever sees which. A version matters if one of two snapshots shows it and the other does not: the transaction's
//! own, and a new one. Both are asked as if the transaction had changed nothing: a version that it has made is shown by neither, one that it has replaced
//! by both. What the transaction's snapshot shows, nobody can have removed. PostgreSQL's own bookkeeping for SERIALIZABLE takes no notice of such reading.
//!
//! Where the scan has found its rows by an index, so does this. It is bounded: by versions, and by pages where there is no index to go by.

use std::ffi::c_int;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;
use pgrx::pg_sys::panic::ErrorReport;
use pgrx::{PgLogLevel, PgSqlErrorCode, PgTryBuilder};

use super::expressions::holds;
use super::list;
use super::majors::relation::index_beginscan;
use super::memory::Context;
use super::names::Oid;
use super::predicate::Predicate;
use super::relation::{Lock, Open};
use super::snapshot::Fresh;
use super::xact::{self, Failed};

/// A table with more is not read from one end to the other.
const PAGES_MAX: u32 = 1_024;

/// How many versions of rows may be looked at.
#[derive(Debug)]
pub struct Budget(pub u32);

impl Budget {
    fn take(&mut self) -> bool {
        self.0 = self.0.saturating_sub(1);
        self.0 > 0
    }
}

/// Whether what the predicates say of the table is the same now as at the transaction's snapshot; false if it would take too long to tell. In a transaction
/// that keeps its snapshot.
pub fn is_unchanged(table: Oid, predicates: &[Predicate], budget: &mut Budget) -> bool {
    let Some(open) = Open::by_oid(table, Lock::AccessShare) else { return false };
    let _newer = Fresh::take();
    PgTryBuilder::new(AssertUnwindSafe(|| predicates.iter().all(|predicate| is_same(&open, predicate, budget))))
        .catch_others(|error| {
            let Failed { code, .. } = xact::describe(&error);
            // Class 22, data exceptions.
            if !xact::sqlstate(code as u32).starts_with("22") {
                error.rethrow();
            }
            // A comparison that fails over a row that another transaction has written is nothing that this one's client has done. What the error says could be of
            // a row that a policy hides from it.
            let detail =
                "A condition of a query could not be evaluated for a row that another transaction has changed.".to_owned();
            let summary = "could not serialize access due to read/write dependencies among transactions";
            let code = PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE;
            ErrorReport::new(code, summary, "postgres_r").set_detail(detail).report(PgLogLevel::ERROR);
            false
        })
        .execute()
}

fn is_same(table: &Open, predicate: &Predicate, budget: &mut Budget) -> bool {
    let mut scratch = Context::in_transaction(c"postgres_r unchanged");
    // SAFETY: the snapshots are copies of such as live longer; what is made here is freed here. After an ERROR it goes with the transaction.
    unsafe {
        let mut old = *pg_sys::GetTransactionSnapshot();
        let mut new = *pg_sys::GetActiveSnapshot();
        // What this transaction did is of a later command.
        (old.curcid, new.curcid) = (pg_sys::FirstCommandId, pg_sys::FirstCommandId);
        let estate = pg_sys::CreateExecutorState();
        let econtext = pg_sys::MakePerTupleExprContext(estate);
        let conjuncts = read(&predicate.conjuncts);
        let condition = (!conjuncts.is_null()).then(|| pg_sys::ExecPrepareQual(conjuncts.cast(), estate));
        let slot = pg_sys::table_slot_create(table.raw(), std::ptr::null_mut());
        (*econtext).ecxt_scantuple = slot;
        let mut scan = Scan::begin(table, predicate);
        let mut is_same = scan.is_some();
        while let Some(scan) = &mut scan
            && is_same
            && scan.next(slot)
        {
            super::interrupt::check();
            let shows =
                |snapshot: &mut pg_sys::SnapshotData| pg_sys::table_tuple_satisfies_snapshot(table.raw(), slot, snapshot);
            let is_met = || scratch.with(|| condition.is_none_or(|condition| holds(condition, econtext)));
            is_same = budget.take() && (shows(&mut old) == shows(&mut new) || !is_met());
            scratch.reset();
        }
        if let Some(scan) = scan {
            scan.end();
        }
        pg_sys::ExecDropSingleTupleTableSlot(slot);
        pg_sys::FreeExecutorState(estate);
        is_same
    }
}

/// # Safety
/// `text` must be of a [`Predicate`].
unsafe fn read(text: &std::ffi::CStr) -> *mut pg_sys::List {
    if text.is_empty() {
        return std::ptr::null_mut();
    }
    // SAFETY: by contract, it was written by PostgreSQL.
    unsafe { pg_sys::stringToNode(text.as_ptr()).cast() }
}

/// All versions of rows that could meet a predicate.
enum Scan {
    Whole(pg_sys::TableScanDesc),
    ByIndex { index: pg_sys::Relation, scan: pg_sys::IndexScanDesc },
}

impl Scan {
    /// None if it would be too long.
    ///
    /// # Safety
    /// In a transaction with an active snapshot. The scan is to be ended before `table` is closed.
    unsafe fn begin(table: &Open, predicate: &Predicate) -> Option<Scan> {
        // SAFETY: by contract; a special snapshot that shows every version there is.
        unsafe {
            let any = &raw mut pg_sys::SnapshotAnyData;
            if let Some((index, keys)) = &predicate.by_index
                && let Some(scan) = by_index(table, *index, read(keys), any)
            {
                return Some(scan);
            }
            let pages = pg_sys::RelationGetNumberOfBlocksInFork(table.raw(), pg_sys::ForkNumber::MAIN_FORKNUM);
            (pages <= PAGES_MAX).then(|| Scan::Whole(pg_sys::table_beginscan(table.raw(), any, 0, std::ptr::null_mut())))
        }
    }

    /// # Safety
    /// `slot` must be of the table.
    unsafe fn next(&mut self, slot: *mut pg_sys::TupleTableSlot) -> bool {
        let forward = pg_sys::ScanDirection::ForwardScanDirection;
        // SAFETY: by contract; the scan is open.
        unsafe {
            match self {
                Scan::Whole(scan) => pg_sys::heap_getnextslot(*scan, forward, slot),
                Scan::ByIndex { scan, .. } => pg_sys::index_getnext_slot(*scan, forward, slot),
            }
        }
    }

    /// # Safety
    /// To be called once.
    unsafe fn end(self) {
        // SAFETY: by contract; opened by us.
        unsafe {
            match self {
                Scan::Whole(scan) => pg_sys::table_endscan(scan),
                Scan::ByIndex { index, scan } => {
                    pg_sys::index_endscan(scan);
                    pg_sys::index_close(index, pg_sys::NoLock as pg_sys::LOCKMODE);
                }
            }
        }
    }
}

/// None if the index is gone, or cannot be searched by these conditions.
///
/// # Safety
/// `conjuncts` must be a list of expressions in terms of the index's columns.
unsafe fn by_index(table: &Open, index: Oid, conjuncts: *mut pg_sys::List, snapshot: pg_sys::Snapshot) -> Option<Scan> {
    // SAFETY: by contract; the transaction has locked the table, so no index of it is dropped meanwhile.
    unsafe {
        let raw = pg_sys::try_index_open(index, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        if raw.is_null() {
            return None;
        }
        let mut keys: Vec<_> = list::pointers(conjuncts).into_iter().filter_map(|conjunct| key(raw, conjunct)).collect();
        // The access methods want them in the order of columns.
        keys.sort_by_key(|key| key.sk_attno);
        let is_searchable =
            !keys.is_empty() && keys.len() <= pg_sys::INDEX_MAX_KEYS as usize && (*(*raw).rd_indam).amgettuple.is_some();
        if !is_searchable {
            pg_sys::index_close(raw, pg_sys::NoLock as pg_sys::LOCKMODE);
            return None;
        }
        let scan = index_beginscan(table.raw(), raw, snapshot, keys.len() as c_int);
        pg_sys::index_rescan(scan, keys.as_mut_ptr(), keys.len() as c_int, std::ptr::null_mut(), 0);
        Some(Scan::ByIndex { index: raw, scan })
    }
}

/// What an index is searched by: a column compared with a value, by an operator that the index knows. None for other conditions: without them more is found.
///
/// # Safety
/// `conjunct` must be an expression in terms of the index's columns.
unsafe fn key(index: pg_sys::Relation, conjunct: *mut pg_sys::Node) -> Option<pg_sys::ScanKeyData> {
    // SAFETY: by contract; tags say what nodes are.
    unsafe {
        if (*conjunct).type_ != pg_sys::NodeTag::T_OpExpr {
            return None;
        }
        let comparison = &*conjunct.cast::<pg_sys::OpExpr>();
        let [column, value] = list::pointers::<pg_sys::Node>(comparison.args)[..] else { return None };
        if (*column).type_ != pg_sys::NodeTag::T_Var || (*value).type_ != pg_sys::NodeTag::T_Const {
            return None;
        }
        let (column, value) = (&*column.cast::<pg_sys::Var>(), &*value.cast::<pg_sys::Const>());
        let known = i32::from((*(*index).rd_index).indnkeyatts);
        if value.constisnull || column.varattno < 1 || i32::from(column.varattno) > known {
            return None;
        }
        let family = *(*index).rd_opfamily.add(column.varattno as usize - 1);
        if !pg_sys::op_in_opfamily(comparison.opno, family) {
            return None;
        }
        let (mut strategy, mut left, mut right) = (0, pg_sys::InvalidOid, pg_sys::InvalidOid);
        pg_sys::get_op_opfamily_properties(comparison.opno, family, false, &mut strategy, &mut left, &mut right);
        let mut key = pg_sys::ScanKeyData::default();
        let function = pg_sys::get_opcode(comparison.opno);
        let (number, collation) = (column.varattno, comparison.inputcollid);
        pg_sys::ScanKeyEntryInitialize(&mut key, 0, number, strategy as u16, right, collation, function, value.constvalue);
        Some(key)
    }
}
