//! Changing the rows of one table directly, below the executor: no plan, no triggers, no defaults, no checks. (Triggers that
//! would fire for applied rows, ENABLE ALWAYS and REPLICA, do so in the sessions that write: docs/adr/0059-always-and-replica.md.)
//!
//! A [`Target`] is one table that is open for such changes, with its indexes, for the length of one writeset. Rows are looked up with an
//! MVCC snapshot that the caller keeps fresh. A row that another transaction holds is reported with its holders before anybody waits.
//!
//! Unique indexes are not enforced as rows go in: a possible duplicate is noted and checked again at the end, like a deferred
//! constraint. (One that is not valid constrains nothing here: whoever builds it finds duplicates, docs/adr/0058-concurrently.md.) Only so can the items of statements that ran inside one another be applied in order of their command ids.

use gcs_writeset::body::{Datum as Wire, Image};
use gcs_writeset::key::bytes_hash;
use pgrx::pg_sys;

use super::datum::DatumError;
pub use super::entering::CarriedIndex;
use super::entering::{Carried, Entering};
use super::list;
use super::majors::relation::{Entered, heap_update, index_beginscan, insert_index_tuples};
use super::memory::Context;
use super::names::Oid;
use super::relation::Open;
use super::row::Row;
use super::table::Table;
pub use super::version::RowPlace;
use super::version::{self, clear};

pub use pg_sys::TransactionId;

/// How a change of an existing row went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// These transactions hold the row in modes that conflict with the change.
    Held(Vec<TransactionId>),
    /// Another transaction changed the row first and committed: the caller must look for the row again.
    Gone,
}

/// What to do when other transactions hold the row: come back with [`Outcome::Held`], or sleep.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    Report,
    Wait,
}

/// A row that went in although another may be equal to it in a unique index, or conflict with it in an exclusion constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    pub index: Oid,
    pub place: RowPlace,
    carried: Carried,
}

/// A column's value that could not be used.
#[derive(Debug, PartialEq, Eq)]
pub struct BadColumn {
    pub column: usize,
    pub error: DatumError,
}

pub struct Target {
    info: *mut pg_sys::ResultRelInfo,
    estate: *mut pg_sys::EState,
    /// The row found last, pinned in its buffer.
    found: *mut pg_sys::TupleTableSlot,
    /// The row put in last.
    made: *mut pg_sys::TupleTableSlot,
    values: Vec<pg_sys::Datum>,
    nulls: Vec<bool>,
    lookup: Option<Lookup>,
    /// Hash of the identity sought last.
    sought: u64,
    entering: Entering,
    /// What the row at hand carries for indexes.
    carried: Carried,
    // After the raw pointers: they point into it.
    relation: Open,
}

/// A prepared look-up by a unique index.
struct Lookup {
    scan: pg_sys::IndexScanDesc,
    keys: Vec<pg_sys::ScanKeyData>,
    /// Attribute (from 0) of each key.
    attributes: Vec<usize>,
}

impl Target {
    /// Opens the table's indexes; rows carry values for those of `carried`. The current memory context must live as long as the target.
    pub fn new(relation: Open, table: &Table, carried: &[CarriedIndex]) -> Target {
        let raw = relation.raw();
        // SAFETY: the relation stays open as long as the target; all of this is allocated in the current context.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let info = pg_sys::palloc0(size_of::<pg_sys::ResultRelInfo>()).cast::<pg_sys::ResultRelInfo>();
            (*info).type_ = pg_sys::NodeTag::T_ResultRelInfo;
            pg_sys::InitResultRelInfo(info, raw, 0, std::ptr::null_mut(), 0);
            let entering = Entering::open(info, estate, table, carried);
            let descriptor = (*raw).rd_att;
            let attributes = (*descriptor).natts as usize;
            Target {
                info,
                estate,
                found: pg_sys::table_slot_create(raw, std::ptr::null_mut()),
                made: pg_sys::MakeSingleTupleTableSlot(descriptor, &pg_sys::TTSOpsHeapTuple),
                values: vec![pg_sys::Datum::null(); attributes],
                nulls: vec![true; attributes],
                lookup: None,
                sought: 0,
                entering,
                carried: None,
                relation,
            }
        }
    }

    pub fn relation(&self) -> &Open {
        &self.relation
    }

    /// The row found last.
    pub fn found(&self) -> Row<'_> {
        // SAFETY: a slot of the relation's.
        unsafe { Row::of_slot(self.found) }
    }

    /// Puts in a row; gives the constraints that the row may break. Memory for the row's values comes from `scratch`.
    pub fn insert(&mut self, table: &Table, new: Image<'_>, scratch: &Context) -> Result<Vec<Doubt>, BadColumn> {
        self.fill(table, new, false, scratch)?;
        // SAFETY: the arrays hold a value for each attribute of the open relation.
        unsafe {
            let tuple = scratch.with(|| self.form());
            let command = pg_sys::GetCurrentCommandId(true);
            pg_sys::heap_insert(self.relation.raw(), tuple, command, 0, std::ptr::null_mut());
            Ok(self.enter_into_indexes(tuple, Entered::Everywhere, scratch))
        }
    }

    /// Replaces the row found last.
    pub fn update(
        &mut self,
        table: &Table,
        new: Image<'_>,
        patience: Patience,
        scratch: &Context,
    ) -> Result<(Outcome, Vec<Doubt>), BadColumn> {
        self.fill(table, new, true, scratch)?;
        // SAFETY: as in `insert`; `found` holds a row of the relation.
        unsafe {
            let tuple = scratch.with(|| self.form());
            let mut place = (*self.found).tts_tid;
            let mut failure = pg_sys::TM_FailureData::default();
            let mut mode = pg_sys::LockTupleMode::LockTupleExclusive;
            let waits = patience == Patience::Wait;
            let (result, entered) = heap_update(self.relation.raw(), &mut place, tuple, waits, &mut failure, &mut mode);
            let outcome = self.outcome(result, mode);
            if outcome == Outcome::Done && self.lookup.is_some() {
                version::remember(self.relation.oid(), self.sought, RowPlace((*tuple).t_self));
            }
            let doubts = match outcome {
                Outcome::Done if entered != Entered::Nowhere => self.enter_into_indexes(tuple, entered, scratch),
                _ => Vec::new(),
            };
            Ok((outcome, doubts))
        }
    }

    /// Deletes the row found last.
    pub fn delete(&mut self, patience: Patience) -> Outcome {
        // SAFETY: `found` holds a row of the relation.
        unsafe {
            let mut place = (*self.found).tts_tid;
            let mut failure = pg_sys::TM_FailureData::default();
            let result = pg_sys::heap_delete(
                self.relation.raw(),
                &mut place,
                pg_sys::GetCurrentCommandId(true),
                std::ptr::null_mut(),
                patience == Patience::Wait,
                &mut failure,
                false,
            );
            self.outcome(result, pg_sys::LockTupleMode::LockTupleExclusive)
        }
    }

    /// Finds the row with these key values in a plain unique index. `avoid` passes over rows, unless there is no other.
    pub fn find_by_index(
        &mut self,
        table: &Table,
        index: Oid,
        identity: Image<'_>,
        avoid: impl Fn(RowPlace) -> bool,
        scratch: &Context,
    ) -> Result<bool, BadColumn> {
        if self.lookup.is_none() {
            self.lookup = Some(self.prepare(index));
        }
        self.fill_identity(table, identity, scratch)?;
        let (values, found) = (&self.values, self.found);
        let Some(lookup) = &mut self.lookup else { return Ok(false) };
        for (key, &attribute) in lookup.keys.iter_mut().zip(&lookup.attributes) {
            key.sk_argument = values[attribute];
        }
        self.sought = bytes_hash(identity.bytes());
        // SAFETY: the scan is open on an index of the relation; the active snapshot is current.
        unsafe {
            if let Some(place) = version::recall(self.relation.oid(), self.sought)
                && version::follow(self.relation.raw(), place, found)
                && !avoid(RowPlace((*found).tts_tid))
            {
                let row = Row::of_slot(found);
                if lookup.attributes.iter().all(|&attribute| row.has_bytes_of(Some(values[attribute]), attribute)) {
                    return Ok(true);
                }
            }
            (*lookup.scan).xs_snapshot = pg_sys::GetActiveSnapshot();
            let mut passed_over = None;
            loop {
                let keys = lookup.keys.len() as i32;
                if passed_over.is_none() {
                    pg_sys::index_rescan(lookup.scan, lookup.keys.as_mut_ptr(), keys, std::ptr::null_mut(), 0);
                }
                if !pg_sys::index_getnext_slot(lookup.scan, pg_sys::ScanDirection::ForwardScanDirection, found) {
                    break;
                }
                if !avoid(RowPlace((*found).tts_tid)) {
                    return Ok(true);
                }
                passed_over = Some(());
            }
            if passed_over.is_none() {
                return Ok(false);
            }
            // Only rows to be avoided are there: take the first after all.
            pg_sys::index_rescan(lookup.scan, lookup.keys.as_mut_ptr(), lookup.keys.len() as i32, std::ptr::null_mut(), 0);
            Ok(pg_sys::index_getnext_slot(lookup.scan, pg_sys::ScanDirection::ForwardScanDirection, found))
        }
    }

    /// Finds a row whose image is exactly this one, by reading the whole table.
    pub fn find_by_image(&mut self, table: &Table, identity: Image<'_>) -> bool {
        let mut bytes = Vec::new();
        // SAFETY: a plain sequential scan with the active snapshot; `found` is a slot of this relation.
        unsafe {
            let scan = pg_sys::table_beginscan(self.relation.raw(), pg_sys::GetActiveSnapshot(), 0, std::ptr::null_mut());
            let mut is_found = false;
            while !is_found && pg_sys::heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.found) {
                bytes.clear();
                table.put_identity(Row::of_slot(self.found), |_| true, &mut bytes);
                table.put_no_values(&mut bytes);
                is_found = bytes == identity.bytes();
            }
            pg_sys::table_endscan(scan);
            is_found
        }
    }

    /// The open transactions that put in or deleted a row equal to the one in doubt: whether the constraint holds depends on how
    /// they end.
    pub fn rivals(&mut self, table: &Table, doubt: &Doubt, scratch: &Context) -> Vec<TransactionId> {
        let mut rivals = Vec::new();
        // SAFETY: a dirty scan of an open index, as PostgreSQL's own check of exclusion constraints does it.
        unsafe {
            let Some((index, info)) = self.index(doubt.index) else { return rivals };
            if !(*info).ii_ExclusionOps.is_null() || !self.fetch(doubt.place) {
                return rivals;
            }
            let (mut values, mut nulls) = index_values();
            scratch.with(|| {
                // It could be read before.
                let _ = doubt.carried.as_deref().map(|carried| self.entering.set(table, carried));
                self.index_datums(info, &mut values, &mut nulls);
            });
            let mut keys: Vec<pg_sys::ScanKeyData> = (0..(*(*index).rd_index).indnkeyatts as usize)
                .map(|at| equality_key(index, at, values[at], nulls[at]))
                .collect();
            let mut dirty =
                pg_sys::SnapshotData { snapshot_type: pg_sys::SnapshotType::SNAPSHOT_DIRTY, ..Default::default() };
            let scan = index_beginscan(self.relation.raw(), index, &mut dirty, keys.len() as i32);
            pg_sys::index_rescan(scan, keys.as_mut_ptr(), keys.len() as i32, std::ptr::null_mut(), 0);
            while pg_sys::index_getnext_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, self.found) {
                let others = [dirty.xmin, dirty.xmax];
                rivals.extend(others.into_iter().filter(|&xid| xid != pg_sys::InvalidTransactionId));
            }
            pg_sys::index_endscan(scan);
        }
        rivals
    }

    /// Raises PostgreSQL's own error if the row in doubt breaks the constraint; waits for open transactions that matter.
    pub fn settle(&mut self, table: &Table, doubt: &Doubt, scratch: &Context) {
        // SAFETY: as unique_key_recheck in commands/constraint.c does it for deferred constraints.
        unsafe {
            let Some((index, info)) = self.index(doubt.index) else { return };
            if !self.fetch(doubt.place) {
                return;
            }
            let (mut values, mut nulls) = index_values();
            scratch.with(|| {
                // It could be read before.
                let _ = doubt.carried.as_deref().map(|carried| self.entering.set(table, carried));
                self.index_datums(info, &mut values, &mut nulls);
            });
            let mut place = doubt.place.0;
            if (*info).ii_ExclusionOps.is_null() {
                pg_sys::index_insert(
                    index,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    &mut place,
                    self.relation.raw(),
                    pg_sys::IndexUniqueCheck::UNIQUE_CHECK_EXISTING,
                    false,
                    info,
                );
            } else {
                // The version that went in may have had HOT updates since: the row itself must not count as a rival, and PostgreSQL
                // knows it by its live version's place, which is in `found`.
                let mut live = (*self.found).tts_tid;
                pg_sys::check_exclusion_constraint(
                    self.relation.raw(),
                    index,
                    info,
                    &mut live,
                    values.as_mut_ptr(),
                    nulls.as_mut_ptr(),
                    self.estate,
                    false,
                );
            }
        }
    }

    /// Takes an image apart into the arrays; with `update`, what the image leaves out comes from the row found last.
    fn fill(&mut self, table: &Table, image: Image<'_>, update: bool, scratch: &Context) -> Result<(), BadColumn> {
        // SAFETY: `found` holds the row to update; its values stay as long as it does.
        let old = update.then(|| unsafe { Row::of_slot(self.found) });
        let (values, nulls) = (&mut self.values, &mut self.nulls);
        nulls.fill(true);
        scratch.with(|| {
            for (at, (column, wire)) in table.columns.iter().zip(image.datums()).enumerate() {
                let datum = match (wire, old) {
                    (Wire::Unchanged, Some(old)) => old.get(column.attribute),
                    (wire, _) => column.codec.take(wire).map_err(|error| BadColumn { column: at, error })?,
                };
                nulls[column.attribute] = datum.is_none();
                values[column.attribute] = datum.unwrap_or(pg_sys::Datum::null());
            }
            let carried = image.datums().skip(table.columns.len());
            self.carried = self.entering.take(table, carried).map_err(|error| BadColumn { column: usize::MAX, error })?;
            Ok(())
        })
    }

    fn fill_identity(&mut self, table: &Table, identity: Image<'_>, scratch: &Context) -> Result<(), BadColumn> {
        let values = &mut self.values;
        scratch.with(|| {
            for (at, (column, wire)) in table.columns.iter().zip(identity.datums()).enumerate() {
                if wire == Wire::Absent {
                    continue;
                }
                let datum = column.codec.take(wire).and_then(|datum| datum.ok_or(DatumError::Missing));
                values[column.attribute] = datum.map_err(|error| BadColumn { column: at, error })?;
            }
            Ok(())
        })
    }

    /// # Safety
    /// The arrays must hold the values of a row.
    unsafe fn form(&mut self) -> pg_sys::HeapTuple {
        // SAFETY: by contract.
        unsafe {
            let descriptor = (*self.relation.raw()).rd_att;
            let tuple = pg_sys::heap_form_tuple(descriptor, self.values.as_mut_ptr(), self.nulls.as_mut_ptr());
            (*tuple).t_tableOid = self.relation.oid();
            tuple
        }
    }

    /// # Safety
    /// `tuple` must just have been put into the table.
    unsafe fn enter_into_indexes(&mut self, tuple: pg_sys::HeapTuple, entered: Entered, scratch: &Context) -> Vec<Doubt> {
        // SAFETY: by contract; the slot does not own the tuple and is emptied before the tuple goes.
        unsafe {
            if (*self.info).ri_NumIndices == 0 {
                return Vec::new();
            }
            pg_sys::ExecStoreHeapTuple(tuple, self.made, false);
            (*self.made).tts_tid = (*tuple).t_self;
            (*self.made).tts_tableOid = self.relation.oid();
            let place = RowPlace((*tuple).t_self);
            let doubtful = scratch.with(|| insert_index_tuples(self.info, self.made, self.estate, entered));
            let doubts = list::oids(doubtful)
                .into_iter()
                .filter(|&index| self.index(index).is_some_and(|(index, _)| (*(*index).rd_index).indisvalid))
                .map(|index| Doubt { index, place, carried: self.carried.clone() })
                .collect();
            clear(self.made);
            let econtext = (*self.estate).es_per_tuple_exprcontext;
            if !econtext.is_null() {
                pg_sys::MemoryContextReset((*econtext).ecxt_per_tuple_memory);
            }
            doubts
        }
    }

    /// # Safety
    /// `found` must hold the row that was tried.
    unsafe fn outcome(&self, result: pg_sys::TM_Result::Type, mode: pg_sys::LockTupleMode::Type) -> Outcome {
        match result {
            pg_sys::TM_Result::TM_Ok => Outcome::Done,
            pg_sys::TM_Result::TM_BeingModified | pg_sys::TM_Result::TM_WouldBlock => {
                // SAFETY: by contract.
                Outcome::Held(unsafe { super::rowlock::holders(self.found, mode) })
            }
            _ => Outcome::Gone,
        }
    }

    fn index(&self, oid: Oid) -> Option<(pg_sys::Relation, *mut pg_sys::IndexInfo)> {
        // SAFETY: ExecOpenIndices filled both arrays.
        unsafe {
            let count = (*self.info).ri_NumIndices as usize;
            (0..count)
                .map(|i| (*(*self.info).ri_IndexRelationDescs.add(i), *(*self.info).ri_IndexRelationInfo.add(i)))
                .find(|(index, _)| !index.is_null() && (**index).rd_id == oid)
        }
    }

    fn prepare(&self, index: Oid) -> Lookup {
        let Some((relation, info)) = self.index(index) else {
            panic!("identity index {} is not among the table's indexes", index.to_u32());
        };
        // SAFETY: the index is open; a scan on it lives until the target is closed.
        unsafe {
            let count = (*(*relation).rd_index).indnkeyatts as usize;
            let keys: Vec<_> = (0..count).map(|at| equality_key(relation, at, pg_sys::Datum::null(), false)).collect();
            let attributes = (0..count).map(|at| (*info).ii_IndexAttrNumbers[at] as usize - 1).collect();
            let scan = index_beginscan(self.relation.raw(), relation, pg_sys::GetActiveSnapshot(), count as i32);
            Lookup { scan, keys, attributes }
        }
    }

    /// Brings a row version into `found`, if this transaction sees it alive.
    unsafe fn fetch(&mut self, place: RowPlace) -> bool {
        // SAFETY: SnapshotSelf sees our own latest changes; the slot is of this relation.
        unsafe {
            let mut place = place.0;
            let self_snapshot = std::ptr::addr_of_mut!(pg_sys::SnapshotSelfData);
            let mut again = false;
            let scan = (*(*self.relation.raw()).rd_tableam).index_fetch_begin.map(|begin| begin(self.relation.raw()));
            let Some(scan) = scan else { return false };
            let table = &*(*self.relation.raw()).rd_tableam;
            let found = table
                .index_fetch_tuple
                .is_some_and(|fetch| fetch(scan, &mut place, self_snapshot, self.found, &mut again, std::ptr::null_mut()));
            if let Some(end) = table.index_fetch_end {
                end(scan);
            }
            found
        }
    }

    unsafe fn index_datums(&self, info: *mut pg_sys::IndexInfo, values: &mut [pg_sys::Datum], nulls: &mut [bool]) {
        // SAFETY: `found` holds the row; the arrays have room for every key.
        unsafe {
            let econtext = match (*self.estate).es_per_tuple_exprcontext {
                context if context.is_null() => pg_sys::MakePerTupleExprContext(self.estate),
                context => context,
            };
            (*econtext).ecxt_scantuple = self.found;
            pg_sys::FormIndexDatum(info, self.found, self.estate, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        // SAFETY: all made by `new` and `prepare`, ended once, in reverse order. After an ERROR PostgreSQL does it.
        unsafe {
            if let Some(lookup) = self.lookup.take() {
                pg_sys::index_endscan(lookup.scan);
            }
            pg_sys::ExecDropSingleTupleTableSlot(self.found);
            pg_sys::ExecDropSingleTupleTableSlot(self.made);
            pg_sys::ExecCloseIndices(self.info);
            pg_sys::FreeExecutorState(self.estate);
        }
    }
}

/// Calls `f` with every row of a table that this transaction has made and filled.
pub fn for_each_new_row(table: &Open, mut f: impl FnMut(Row<'_>)) {
    let mut scratch = Context::in_transaction(c"postgres_r new rows");
    // SAFETY: a plain sequential scan that sees what this transaction did last; the slot is of this relation.
    unsafe {
        let slot = pg_sys::table_slot_create(table.raw(), std::ptr::null_mut());
        let snapshot = std::ptr::addr_of_mut!(pg_sys::SnapshotSelfData);
        let scan = pg_sys::table_beginscan(table.raw(), snapshot, 0, std::ptr::null_mut());
        while pg_sys::heap_getnextslot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot) {
            super::interrupt::check();
            let row = Row::of_slot(slot);
            scratch.with(|| f(row));
            scratch.reset();
        }
        pg_sys::table_endscan(scan);
        pg_sys::ExecDropSingleTupleTableSlot(slot);
    }
}

fn index_values() -> ([pg_sys::Datum; 32], [bool; 32]) {
    ([pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize], [true; pg_sys::INDEX_MAX_KEYS as usize])
}

/// `column = value` for key column `at` of an index.
///
/// # Safety
/// `index` must be an open btree index with such a column.
unsafe fn equality_key(index: pg_sys::Relation, at: usize, value: pg_sys::Datum, is_null: bool) -> pg_sys::ScanKeyData {
    // SAFETY: by contract; the operator's function is looked up into the key.
    unsafe {
        let class_type = *(*index).rd_opcintype.add(at);
        let operator = pg_sys::get_opfamily_member(
            *(*index).rd_opfamily.add(at),
            class_type,
            class_type,
            pg_sys::BTEqualStrategyNumber as i16,
        );
        let mut key = pg_sys::ScanKeyData::default();
        pg_sys::ScanKeyEntryInitialize(
            &mut key,
            if is_null { (pg_sys::SK_ISNULL | pg_sys::SK_SEARCHNULL) as i32 } else { 0 },
            at as i16 + 1,
            pg_sys::BTEqualStrategyNumber as u16,
            pg_sys::InvalidOid,
            *(*index).rd_indcollation.add(at),
            if is_null { pg_sys::InvalidOid } else { pg_sys::get_opcode(operator) },
            value,
        );
        key
    }
}
