//! Rows that are about to be locked by SKIP LOCKED and NOWAIT: whoever listens says which of them.
//!
//! A plan node that locks rows takes them from the node below it. For SKIP LOCKED and NOWAIT it is given another to take them from while it runs, which leaves out
//! the rows that the listener does not want: to the plan, rows that somebody has locked. Asking the listener takes long, and while it is asked about one
//! row others may take that. So behind the first one that cannot be had several are read ahead, and the listener picks one of them; those behind it stay for the next
//! time. They are kept with the plan node, and forgotten when the node is to begin anew: PostgreSQL tells it so by a callback of an expression context, which the
//! node is given for that. What a plan does besides reading (a volatile function, another node that locks) is not done ahead: then rows are asked for one by one.
//!
//! While the listener is asked about the first row, this process holds the row's entry in PostgreSQL's table of heavyweight locks, which whoever waits for a
//! row lock takes: the next process of this server that comes for the same row reads ahead at once. It asks for that row too: the order decides between them.

use std::ffi::c_void;
use std::sync::OnceLock;

use gcs_writeset::Lock;
use pgrx::pg_sys;

use super::list;
use super::majors::query::planstate_tree_walker;
use super::majors::relation::try_lock_place;
use super::planstate::{Real, next_of};
use super::row::Row;
use super::rowlock::{Locked, Strength, holders, is_own, strength_of};
use super::snapshot;

/// Rows that are read ahead.
const AHEAD_MAX: usize = 16;
/// Rows of one result that are locked together, of different tables. The listener is asked about further ones, and not told what becomes of them.
const TOGETHER_MAX: usize = 4;

pub struct Listener {
    /// Whether it is to be asked at all, for now.
    pub wanted: fn() -> bool,
    /// The lock that a row must have first; none if there is nothing to ask.
    pub wish: fn(&Locked<'_>) -> Option<Lock>,
    /// Which of these is granted, if any. May raise an error.
    pub first: fn(&[Lock]) -> Option<usize>,
    /// Whether it is granted. May raise an error, or wait.
    pub granted: fn(Lock) -> bool,
    /// Raises the error that a row of this table can't be had.
    pub refuse: fn(&str) -> !,
    /// What was granted is of no use: the row has not been locked.
    pub unused: fn(Lock),
}

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Once, while libraries are preloaded.
pub fn on_candidates(listener: Listener) {
    let _ = LISTENER.set(listener);
}

type Slot = *mut pg_sys::TupleTableSlot;
type Marks = Vec<*mut pg_sys::ExecAuxRowMark>;

/// What a node that locks rows takes them from, while it runs. Begins as any node does.
#[repr(C)]
struct Candidates {
    node: pg_sys::PlanState,
    below: *mut pg_sys::PlanState,
    locking: *mut pg_sys::LockRowsState,
    /// A row was given on, and it is not known what became of it.
    is_open: bool,
    /// One could not be had.
    is_contended: bool,
    /// Granted for the row that was given on.
    granted: [Option<Lock>; TOGETHER_MAX],
    entry: Option<Entry>,
}

/// Rows that were read ahead, as the node below gave them. With the query's memory.
struct Ahead {
    slots: [Slot; AHEAD_MAX],
    next: usize,
    end: usize,
    /// There are no more.
    is_last: bool,
    /// The node has begun anew when this is no more.
    is_registered: bool,
}

/// An entry of a row in the table of heavyweight locks.
#[derive(Clone, Copy)]
struct Entry {
    relation: pg_sys::Relation,
    place: pg_sys::ItemPointerData,
    mode: pg_sys::LOCKMODE,
}

/// A row that is about to be locked, if that is possible at once.
struct Found<'a> {
    locked: Locked<'a>,
    /// Somebody on this server has locked it, or is changing it, or it was deleted after the plan's snapshot: PostgreSQL will see to that.
    is_out_of_question: bool,
    entry: Entry,
    skips: bool,
}

/// What became of a row that the node below has given.
#[repr(u8)]
enum Taken {
    Yes,
    No,
    /// Another process of this server asks for it now.
    Busy,
}

/// Calls the executor's own function of a node that locks rows.
///
/// # Safety
/// `state` must be a node of a plan that runs. An ERROR leaves the plan with a node below that is no more; whatever it comes through ends the execution without looking at the
/// plan. Nothing in this frame needs a `Drop`.
pub(super) unsafe fn through(state: *mut pg_sys::LockRowsState, real: Real) -> Slot {
    // SAFETY: by contract. The node that locks does nothing with the one below it but to ask it for rows.
    unsafe {
        let node: *mut pg_sys::PlanState = state.cast();
        if !concerns(state) {
            return real(node);
        }
        let below = (*node).lefttree;
        let mut candidates = Candidates {
            node: std::mem::zeroed(),
            below,
            locking: state,
            is_open: false,
            is_contended: false,
            granted: [None; TOGETHER_MAX],
            entry: None,
        };
        candidates.node.ExecProcNode = Some(next);
        (*node).lefttree = (&raw mut candidates).cast();
        let slot = real(node);
        (*node).lefttree = below;
        if candidates.is_open {
            settle(&mut candidates, !is_empty(slot));
        }
        slot
    }
}

/// # Safety
/// `slot` must be one, or null.
pub(super) unsafe fn is_empty(slot: Slot) -> bool {
    // SAFETY: by contract.
    unsafe { slot.is_null() || u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_EMPTY != 0 }
}

/// Whether the listener is to be asked about rows of this node, or some were read ahead.
///
/// # Safety
/// `node` must be a node of a plan that runs.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn concerns(node: *mut pg_sys::LockRowsState) -> bool {
    // SAFETY: by contract.
    unsafe {
        let marks = list::pointers::<pg_sys::ExecAuxRowMark>((*node).lr_arowMarks);
        let waits = marks.into_iter().all(|mark| (*(*mark).rowmark).waitPolicy == pg_sys::LockWaitPolicy::LockWaitBlock);
        let is_forward = (*(*node).ps.state).es_direction == pg_sys::ScanDirection::ForwardScanDirection;
        !waits && is_forward && (!ahead_of(node).is_null() || LISTENER.get().is_some_and(|listener| (listener.wanted)()))
    }
}

/// # Safety
/// Called by the executor with what [`through`] made. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn next(node: *mut pg_sys::PlanState) -> Slot {
    // SAFETY: by contract.
    unsafe {
        let candidates = node.cast::<Candidates>();
        loop {
            if (*candidates).is_open {
                settle(candidates, false);
            }
            if !has_ahead(candidates) {
                if (*candidates).is_contended && may_read_ahead(candidates) {
                    begin_ahead(candidates, std::ptr::null_mut());
                } else {
                    let slot = next_of((*candidates).below);
                    if is_empty(slot) {
                        return slot;
                    }
                    match take(candidates, slot) {
                        Taken::Yes => return slot,
                        Taken::No => continue,
                        Taken::Busy => begin_ahead(candidates, slot),
                    }
                }
                while wants_more(candidates) {
                    let slot = next_of((*candidates).below);
                    keep(candidates, slot);
                }
            }
            let slot = take_one(candidates);
            if !slot.is_null() {
                return slot;
            }
        }
    }
}

/// # Safety
/// As [`take`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn settle(candidates: *mut Candidates, is_locked: bool) {
    // SAFETY: by contract.
    let candidates = unsafe { &mut *candidates };
    candidates.is_open = false;
    candidates.leave();
    for lock in candidates.granted.iter_mut().filter_map(Option::take).filter(|_| !is_locked) {
        if let Some(listener) = LISTENER.get() {
            (listener.unused)(lock);
        }
    }
}

/// Whether there are rows that were read ahead, or the end of all rows was.
///
/// # Safety
/// As [`take`].
unsafe fn has_ahead(candidates: *mut Candidates) -> bool {
    // SAFETY: by contract.
    unsafe {
        let ahead = ahead_of((*candidates).locking);
        !ahead.is_null() && ((*ahead).next < (*ahead).end || (*ahead).is_last)
    }
}

/// # Safety
/// As [`take`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn may_read_ahead(candidates: *mut Candidates) -> bool {
    // SAFETY: by contract.
    unsafe { (*candidates).may_read_ahead() }
}

/// Whether all rows of what the node below has given may be locked, as far as the listener is concerned.
///
/// # Safety
/// `candidates` must be what [`through`] made, and its plan run; `slot` must hold what the node below has just given.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn take(candidates: *mut Candidates, slot: Slot) -> Taken {
    // SAFETY: by contract.
    unsafe { (*candidates).take(slot) }
}

/// Begins to read ahead, with this row if it is one.
///
/// # Safety
/// As [`take`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn begin_ahead(candidates: *mut Candidates, slot: Slot) {
    // SAFETY: by contract. Slots are of the kind that the node below gives, which is what the nodes above were made for.
    unsafe {
        let candidates = &mut *candidates;
        let estate = (*candidates.locking).ps.state;
        let context = pg_sys::MemoryContextSwitchTo((*estate).es_query_cxt);
        let mut ahead = ahead_of(candidates.locking);
        if ahead.is_null() {
            ahead = pg_sys::palloc0(size_of::<Ahead>()).cast();
            let kind = pg_sys::ExecGetResultSlotOps(candidates.below, std::ptr::null_mut());
            let shape = pg_sys::ExecGetResultType(candidates.below);
            for slot in &mut (*ahead).slots {
                *slot = pg_sys::ExecAllocTableSlot(&mut (*estate).es_tupleTable, shape, kind);
            }
            let context = pg_sys::CreateExprContext(estate);
            (*context).caseValue_datum = pg_sys::Datum::from(ahead);
            (*candidates.locking).ps.ps_ExprContext = context;
        }
        if !(*ahead).is_registered {
            let arg = pg_sys::Datum::from(ahead);
            pg_sys::RegisterExprContextCallback((*candidates.locking).ps.ps_ExprContext, Some(begins_anew), arg);
            (*ahead).is_registered = true;
        }
        pg_sys::MemoryContextSwitchTo(context);
        ((*ahead).next, (*ahead).end) = (0, 0);
    }
    if !slot.is_null() {
        // SAFETY: by contract.
        unsafe { keep(candidates, slot) };
    }
}

/// # Safety
/// As [`take`]; it has begun to read ahead.
unsafe fn wants_more(candidates: *mut Candidates) -> bool {
    // SAFETY: by contract.
    unsafe {
        let ahead = ahead_of((*candidates).locking);
        !(*ahead).is_last && (*ahead).end < AHEAD_MAX
    }
}

/// # Safety
/// As [`take`]; it has begun to read ahead, and there is room.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn keep(candidates: *mut Candidates, slot: Slot) {
    // SAFETY: by contract.
    unsafe {
        let ahead = &mut *ahead_of((*candidates).locking);
        if is_empty(slot) {
            ahead.is_last = true;
        } else {
            pg_sys::ExecCopySlot(ahead.slots[ahead.end], slot);
            ahead.end += 1;
        }
    }
}

/// The first of the rows that were read ahead that may be locked; null if none may, an empty slot at the end of all. Those behind it stay.
///
/// # Safety
/// As [`take`]; something was read ahead.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn take_one(candidates: *mut Candidates) -> Slot {
    // SAFETY: by contract.
    unsafe { (*candidates).take_one(&mut *ahead_of((*candidates).locking)) }
}

impl Candidates {
    /// # Safety
    /// As the function of that name.
    unsafe fn take(&mut self, slot: Slot) -> Taken {
        let Some(listener) = LISTENER.get() else { return Taken::Yes };
        self.is_open = true;
        // SAFETY: by contract.
        let marks = unsafe { self.marks() };
        for &mark in &marks {
            // SAFETY: by contract.
            let Some(found) = (unsafe { self.find(mark, slot) }) else { continue };
            let Some(lock) = (listener.wish)(&found.locked).filter(|_| !found.is_out_of_question) else { continue };
            let is_granted = if !found.skips {
                (listener.granted)(lock)
            } else {
                // SAFETY: by contract.
                if self.entry.is_none() && unsafe { self.may_read_ahead() } {
                    if !enter(found.entry) {
                        (self.is_open, self.is_contended) = (false, true);
                        return Taken::Busy;
                    }
                    self.entry = Some(found.entry);
                }
                (listener.first)(&[lock]).is_some()
            };
            if !is_granted && !found.skips {
                // SAFETY: the executor holds the relation open; its name is a C string.
                let name = unsafe { pgrx::name_data_to_str(&(*(*found.entry.relation).rd_rel).relname) };
                (listener.refuse)(name);
            }
            if !is_granted {
                self.is_contended = true;
                return Taken::No;
            }
            if let Some(place) = self.granted.iter_mut().find(|place| place.is_none()) {
                *place = Some(lock);
            }
        }
        Taken::Yes
    }

    /// # Safety
    /// As the function of that name.
    unsafe fn take_one(&mut self, ahead: &mut Ahead) -> Slot {
        let Some(listener) = LISTENER.get() else { return std::ptr::null_mut() };
        if ahead.next == ahead.end {
            // SAFETY: a slot of the plan's.
            return unsafe { pg_sys::ExecClearTuple(ahead.slots[0]) };
        }
        // SAFETY: by contract.
        let marks = unsafe { self.marks() };
        let (mut asked, mut free) = (Vec::new(), None);
        for at in ahead.next..ahead.end {
            // SAFETY: by contract.
            let found = marks.iter().find_map(|mark| unsafe { self.find(*mark, ahead.slots[at]) });
            let is_out_of_question = found.as_ref().is_some_and(|found| found.is_out_of_question);
            match found.and_then(|found| (listener.wish)(&found.locked)) {
                Some(_) if is_out_of_question => {}
                Some(lock) => asked.push((at, lock)),
                None => {
                    free = Some(at);
                    break;
                }
            }
        }
        let locks: Vec<Lock> = asked.iter().map(|(_, lock)| *lock).collect();
        let granted = if locks.is_empty() { None } else { (listener.first)(&locks) };
        let granted = granted.and_then(|which| asked.get(which).copied());
        self.granted[0] = granted.map(|(_, lock)| lock);
        let Some(at) = granted.map(|(at, _)| at).or(free) else {
            ahead.next = ahead.end;
            self.is_contended = true;
            return std::ptr::null_mut();
        };
        ahead.next = at + 1;
        self.is_open = true;
        ahead.slots[at]
    }

    fn leave(&mut self) {
        if let Some(entry) = self.entry.take() {
            let mut place = entry.place;
            // SAFETY: the executor holds the relation open; it was entered.
            unsafe { pg_sys::UnlockTuple(entry.relation, &mut place, entry.mode) };
        }
    }

    /// # Safety
    /// As [`take`].
    unsafe fn marks(&self) -> Marks {
        // SAFETY: by contract.
        unsafe { list::pointers((*self.locking).lr_arowMarks) }
    }

    /// Whether each of what the node below gives has one row that is to be locked, and skipped if that can't be (one table, or its partitions), and nothing
    /// is done by giving more of them.
    ///
    /// # Safety
    /// As [`take`].
    unsafe fn may_read_ahead(&self) -> bool {
        // SAFETY: by contract.
        unsafe {
            if !ahead_of(self.locking).is_null() {
                return true;
            }
            let marks = self.marks();
            let table = |mark: *mut pg_sys::ExecAuxRowMark| (*(*mark).rowmark).prti;
            let skips =
                |mark: *mut pg_sys::ExecAuxRowMark| (*(*mark).rowmark).waitPolicy == pg_sys::LockWaitPolicy::LockWaitSkip;
            marks.iter().all(|mark| skips(*mark) && table(*mark) == table(marks[0]))
                && !does_more_than_read(self.below, std::ptr::null_mut())
        }
    }

    /// The row of one mark, as the plan has found it; none if it is waited for, or if there is none.
    ///
    /// # Safety
    /// As [`take`].
    unsafe fn find<'a>(&self, mark: *mut pg_sys::ExecAuxRowMark, slot: Slot) -> Option<Found<'a>> {
        // SAFETY: by contract. As the node itself does, but that it then locks what this only reads.
        unsafe {
            let policy = (*(*mark).rowmark).waitPolicy;
            if policy == pg_sys::LockWaitPolicy::LockWaitBlock {
                return None;
            }
            let Marked { relation, strength, place, row } = marked(self.locking, mark, slot)?;
            let against = |mode| !holders(row, mode).is_empty();
            let is_taken = match strength {
                Strength::Update => against(pg_sys::LockTupleMode::LockTupleExclusive),
                Strength::NoKeyUpdate => against(pg_sys::LockTupleMode::LockTupleNoKeyExclusive),
                Strength::Share | Strength::KeyShare => false,
            };
            let is_out_of_question = is_taken || is_deleted(relation, row, place);
            let locked = Locked { relation, strength, row: Row::of_slot(row) };
            // As PostgreSQL takes for each (`tupleLockExtraInfo` of heapam.c).
            let mode = match strength {
                Strength::KeyShare => pg_sys::AccessShareLock,
                Strength::Share => pg_sys::RowShareLock,
                Strength::NoKeyUpdate => pg_sys::ExclusiveLock,
                Strength::Update => pg_sys::AccessExclusiveLock,
            };
            let entry = Entry { relation, place, mode: mode as pg_sys::LOCKMODE };
            let skips = policy == pg_sys::LockWaitPolicy::LockWaitSkip;
            Some(Found { locked, is_out_of_question, entry, skips })
        }
    }
}

/// A row that a node is about to lock.
pub(super) struct Marked {
    pub relation: pg_sys::Relation,
    pub strength: Strength,
    place: pg_sys::ItemPointerData,
    /// In a buffer.
    pub row: Slot,
}

/// The row of one mark, as the plan has found it; none if there is none, or if it is this transaction's own already.
///
/// # Safety
/// `locking` must be a node of a plan that runs, `mark` one of its, and `slot` what the node below it has just given.
pub(super) unsafe fn marked(
    locking: *mut pg_sys::LockRowsState,
    mark: *mut pg_sys::ExecAuxRowMark,
    slot: Slot,
) -> Option<Marked> {
    // SAFETY: by contract. As the node itself does, but that it then locks what this only reads.
    unsafe {
        let (mark, of) = (&*mark, &*(*mark).rowmark);
        let strength = strength_of(of.markType)?;
        if of.rti != of.prti && attribute(slot, mark.toidAttNo)? != pg_sys::Datum::from(of.relid) {
            return None;
        }
        let relation = of.relation;
        if (*(*relation).rd_rel).relkind == pg_sys::RELKIND_FOREIGN_TABLE as std::ffi::c_char {
            return None;
        }
        let place = attribute(slot, mark.ctidAttNo)?.cast_mut_ptr::<pg_sys::ItemPointerData>();
        let row = pg_sys::EvalPlanQualSlot(&mut (*locking).lr_epqstate, relation, of.rti);
        let is_found = std::ptr::eq((*row).tts_ops, &raw const pg_sys::TTSOpsBufferHeapTuple)
            && pg_sys::table_tuple_fetch_row_version(relation, place, (*(*locking).ps.state).es_snapshot, row);
        (is_found && !is_own(row)).then(|| Marked { relation, strength, place: *place, row })
    }
}

/// Whether a node of the plan calls volatile functions, or locks rows.
///
/// # Safety
/// `state` must be a node of a plan that runs, or null. Called by `planstate_tree_walker` with others. Nothing in this frame needs a `Drop`.
unsafe extern "C-unwind" fn does_more_than_read(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    if state.is_null() {
        return false;
    }
    // SAFETY: by contract.
    unsafe {
        let plan = (*state).plan;
        if (*state).type_ == pg_sys::NodeTag::T_LockRowsState || (*state).type_ == pg_sys::NodeTag::T_ModifyTableState {
            return true;
        }
        let is_volatile = |list: *mut pg_sys::List| pg_sys::contain_volatile_functions(list.cast());
        if is_volatile((*plan).targetlist) || is_volatile((*plan).qual) {
            return true;
        }
        let is_join = matches!(
            (*state).type_,
            pg_sys::NodeTag::T_NestLoopState | pg_sys::NodeTag::T_MergeJoinState | pg_sys::NodeTag::T_HashJoinState
        );
        if is_join && is_volatile((*plan.cast::<pg_sys::Join>()).joinqual) {
            return true;
        }
        planstate_tree_walker(state, does_more_than_read, context)
    }
}

/// What was read ahead for a node; null if nothing ever was.
///
/// # Safety
/// `node` must be a node of a plan that runs. Nobody else gives such a node an expression context.
unsafe fn ahead_of(node: *mut pg_sys::LockRowsState) -> *mut Ahead {
    // SAFETY: by contract.
    unsafe {
        let context = (*node).ps.ps_ExprContext;
        if context.is_null() { std::ptr::null_mut() } else { (*context).caseValue_datum.cast_mut_ptr() }
    }
}

/// # Safety
/// Called by PostgreSQL when the node begins anew, or ends.
unsafe extern "C-unwind" fn begins_anew(ahead: pg_sys::Datum) {
    // SAFETY: by contract: what was registered, in the query's memory.
    unsafe {
        let ahead = &mut *ahead.cast_mut_ptr::<Ahead>();
        (ahead.next, ahead.end, ahead.is_last, ahead.is_registered) = (0, 0, false, false);
    }
}

/// False if another process of this server has it.
fn enter(entry: Entry) -> bool {
    let mut place = entry.place;
    // SAFETY: the executor holds the relation open.
    unsafe { try_lock_place(entry.relation, &mut place, entry.mode) }
}

/// Whether a transaction has deleted the row, and committed, whatever the plan's snapshot says. Above READ COMMITTED that is an error, which PostgreSQL raises.
///
/// # Safety
/// `row` must hold the version of the row that is at `place`, in a buffer.
unsafe fn is_deleted(relation: pg_sys::Relation, row: Slot, place: pg_sys::ItemPointerData) -> bool {
    // SAFETY: by contract the slot pins the buffer.
    unsafe {
        let header = (*(*row.cast::<pg_sys::BufferHeapTupleTableSlot>()).base.tuple).t_data;
        let next = (*header).t_ctid;
        let is_last = next.ip_posid == place.ip_posid
            && next.ip_blkid.bi_hi == place.ip_blkid.bi_hi
            && next.ip_blkid.bi_lo == place.ip_blkid.bi_lo;
        is_last
            && !snapshot::is_kept_for_transaction()
            && !pg_sys::table_tuple_satisfies_snapshot(relation, row, &raw mut pg_sys::SnapshotSelfData)
    }
}

/// # Safety
/// `slot` must hold a row with this attribute.
pub(super) unsafe fn attribute(slot: Slot, number: pg_sys::AttrNumber) -> Option<pg_sys::Datum> {
    // SAFETY: by contract.
    unsafe {
        if (*slot).tts_nvalid < number {
            pg_sys::slot_getsomeattrs_int(slot, i32::from(number));
        }
        let at = usize::try_from(number).ok()?.checked_sub(1)?;
        (!*(*slot).tts_isnull.add(at)).then(|| *(*slot).tts_values.add(at))
    }
}
