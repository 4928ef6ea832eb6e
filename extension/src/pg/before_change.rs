//! Rows that a plan is about to change, or to lock, waiting for whoever has locked them: whoever listens is told of each before that.
//!
//! A node of a plan that changes or locks rows takes them from the node below it. While the listener wants to be told, another stands in between, on the stack of the
//! call, and tells of each row on its way up. The listener may wait as long as it likes: the row is not locked yet, and whatever is done to it meanwhile PostgreSQL
//! notices afterwards, as it would had it waited itself.
//!
//! Where the listener does not want to be told, which is nearly always, that costs a question for each statement.

use std::ffi::c_void;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::candidates::{attribute, is_empty, marked};
use super::list;
use super::majors::query::{is_of_target_rows, planstate_tree_walker};
use super::planstate::{Real, next_of};
use super::row::Row;
use super::rowlock::{Locked, Strength, is_own};

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether it is to be told of anything, for now.
    pub wanted: fn() -> bool,
    /// A row is about to be changed, or locked. May wait, and raise an error.
    pub row: fn(&Locked<'_>),
}

static LISTENER: OnceLock<Listener> = OnceLock::new();
/// What the executor itself calls for a node that changes rows.
static MODIFY_TABLE: OnceLock<Real> = OnceLock::new();

/// Once, while libraries are preloaded.
pub fn on_change(listener: Listener) {
    let _ = LISTENER.set(listener);
}

type Slot = *mut pg_sys::TupleTableSlot;

/// What a node takes its rows from, while it runs. Begins as any node does.
#[repr(C)]
struct Between {
    node: pg_sys::PlanState,
    below: *mut pg_sys::PlanState,
    above: Above,
    /// For rows of the relation that the last one was of.
    row: Slot,
    of: pg_sys::Relation,
}

#[derive(Clone, Copy)]
enum Above {
    Locks(*mut pg_sys::LockRowsState),
    Changes(*mut pg_sys::ModifyTableState),
}

fn is_wanted() -> bool {
    LISTENER.get().is_some_and(|listener| (listener.wanted)())
}

/// Has every row that a node of this plan changes shown to the listener, if it wants that.
///
/// # Safety
/// `state` must be the top of a plan that was initialised and has not run.
pub(super) unsafe fn watch(state: *mut pg_sys::PlanState) {
    if !state.is_null() && is_wanted() {
        // SAFETY: by contract.
        unsafe { visit(state, std::ptr::null_mut()) };
    }
}

/// # Safety
/// Called by `planstate_tree_walker` with the nodes of a plan. Nothing in this frame needs a `Drop`.
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: by contract. The first call of a node goes through PostgreSQL's own wrapper, which then uses `ExecProcNodeReal`.
    unsafe {
        if (*state).type_ == pg_sys::NodeTag::T_ModifyTableState
            && let Some(real) = (*state).ExecProcNodeReal
            && std::ptr::fn_addr_eq(*MODIFY_TABLE.get_or_init(|| real), real)
        {
            (*state).ExecProcNodeReal = Some(modify_table);
        }
        planstate_tree_walker(state, visit, context)
    }
}

/// # Safety
/// Called by the executor. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn modify_table(node: *mut pg_sys::PlanState) -> Slot {
    // SAFETY: only nodes that were watched come here.
    unsafe {
        match MODIFY_TABLE.get() {
            Some(real) => through(node, Above::Changes(node.cast()), *real),
            None => std::ptr::null_mut(),
        }
    }
}

/// Whether the listener is to be told of rows that this node locks: it wants to be, and they are all waited for.
///
/// # Safety
/// `node` must be a node of a plan that runs, which locks rows.
#[pgrx::pg_guard]
pub(super) unsafe extern "C-unwind" fn concerns_lock(node: *mut pg_sys::PlanState) -> bool {
    if !is_wanted() {
        return false;
    }
    // SAFETY: by contract.
    unsafe {
        let marks = list::pointers::<pg_sys::ExecAuxRowMark>((*node.cast::<pg_sys::LockRowsState>()).lr_arowMarks);
        marks.into_iter().all(|mark| (*(*mark).rowmark).waitPolicy == pg_sys::LockWaitPolicy::LockWaitBlock)
    }
}

/// Calls the executor's own function of a node that locks rows.
///
/// # Safety
/// As [`through`].
pub(super) unsafe fn through_lock(node: *mut pg_sys::PlanState, real: Real) -> Slot {
    // SAFETY: by contract.
    unsafe { through(node, Above::Locks(node.cast()), real) }
}

/// Calls the executor's own function of a node.
///
/// # Safety
/// `node` must be a node of a plan that runs, and `above` say what it is. An ERROR leaves the plan with a node below that is no more; whatever it comes through ends
/// the execution without looking at the plan. Nothing in this frame needs a `Drop`.
unsafe fn through(node: *mut pg_sys::PlanState, above: Above, real: Real) -> Slot {
    // SAFETY: by contract. The node asks the one below it for rows, and for the kind of slot that they come in where it prepares an expression meanwhile: of one that is
    // all zero it is told that they come in any.
    unsafe {
        let below = (*node).lefttree;
        let mut between =
            Between { node: std::mem::zeroed(), below, above, row: std::ptr::null_mut(), of: std::ptr::null_mut() };
        between.node.ExecProcNode = Some(next);
        (*node).lefttree = (&raw mut between).cast();
        let slot = real(node);
        (*node).lefttree = below;
        if !between.row.is_null() {
            drop_row(&mut between);
        }
        slot
    }
}

/// # Safety
/// Called by the executor with what [`through`] made. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn next(node: *mut pg_sys::PlanState) -> Slot {
    // SAFETY: by contract.
    unsafe {
        let between = node.cast::<Between>();
        let slot = next_of((*between).below);
        if !is_empty(slot) {
            tell(between, slot);
        }
        slot
    }
}

/// # Safety
/// `between` must be what [`through`] made, and its plan run; `slot` must hold what the node below has just given.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(between: *mut Between, slot: Slot) {
    let Some(listener) = LISTENER.get().filter(|listener| (listener.wanted)()) else { return };
    // SAFETY: by contract.
    unsafe {
        match (*between).above {
            Above::Locks(node) => {
                for mark in list::pointers::<pg_sys::ExecAuxRowMark>((*node).lr_arowMarks) {
                    if let Some(found) = marked(node, mark, slot) {
                        let row = Row::of_slot(found.row);
                        (listener.row)(&Locked { relation: found.relation, strength: found.strength, row });
                    }
                }
            }
            Above::Changes(node) => {
                if let Some((relation, strength, row)) = to_be_changed(&mut *between, node, slot) {
                    (listener.row)(&Locked { relation, strength, row: Row::of_slot(row) });
                }
            }
        }
    }
}

/// The row that a node is about to change; none if it changes none, or none of a table, or if it is this transaction's own already.
///
/// # Safety
/// As [`tell`].
unsafe fn to_be_changed(
    between: &mut Between,
    node: *mut pg_sys::ModifyTableState,
    slot: Slot,
) -> Option<(pg_sys::Relation, Strength, Slot)> {
    // SAFETY: by contract: what the node itself does to find out which row is meant.
    unsafe {
        let target = if (*node).mt_resultOidAttno > 0 {
            let table = attribute(slot, (*node).mt_resultOidAttno as pg_sys::AttrNumber)?;
            pg_sys::ExecLookupResultRelByOid(node, pg_sys::Oid::from(table.value() as u32), true, false)
        } else {
            (*node).resultRelInfo
        };
        if target.is_null() {
            return None;
        }
        let relation = (*target).ri_RelationDesc;
        let is_heap = std::ptr::eq(pg_sys::table_slot_callbacks(relation), &raw const pg_sys::TTSOpsBufferHeapTuple);
        if (*(*relation).rd_rel).relkind as u8 != pg_sys::RELKIND_RELATION || !is_heap {
            return None;
        }
        let plan = (*node).ps.plan.cast::<pg_sys::ModifyTable>();
        if (*node).operation == pg_sys::CmdType::CMD_INSERT {
            // The row that is there already, if any, has the same key, where that is the primary key.
            let updates = (*plan).onConflictAction == pg_sys::OnConflictAction::ONCONFLICT_UPDATE
                && pg_sys::list_member_oid((*target).ri_onConflictArbiterIndexes, (*relation).rd_pkindex);
            return updates.then_some((relation, Strength::NoKeyUpdate, slot));
        }
        if (*node).operation == pg_sys::CmdType::CMD_MERGE && !changes_what_matches(plan) {
            return None;
        }
        // A MERGE has none where nothing matches.
        let place = attribute(slot, (*target).ri_RowIdAttNo)?.cast_mut_ptr::<pg_sys::ItemPointerData>();
        if between.of != relation {
            if !between.row.is_null() {
                drop_row(between);
            }
            between.row = pg_sys::MakeSingleTupleTableSlot((*relation).rd_att, &raw const pg_sys::TTSOpsBufferHeapTuple);
            between.of = relation;
        }
        let snapshot = (*(*node).ps.state).es_snapshot;
        let is_found = pg_sys::table_tuple_fetch_row_version(relation, place, snapshot, between.row);
        (is_found && !is_own(between.row)).then_some((relation, Strength::NoKeyUpdate, between.row))
    }
}

/// Whether a MERGE may change or delete a row that matches; whether it does, its conditions say, which are not evaluated beforehand.
///
/// # Safety
/// `plan` must be that of a MERGE.
unsafe fn changes_what_matches(plan: *mut pg_sys::ModifyTable) -> bool {
    // SAFETY: by contract: for each target a list of actions.
    unsafe {
        let changes = |action: *mut pg_sys::MergeAction| {
            let of_rows = matches!((*action).commandType, pg_sys::CmdType::CMD_UPDATE | pg_sys::CmdType::CMD_DELETE);
            is_of_target_rows(&*action) && of_rows
        };
        let targets = list::pointers::<pg_sys::List>((*plan).mergeActionLists);
        targets.into_iter().any(|actions| list::pointers::<pg_sys::MergeAction>(actions).into_iter().any(changes))
    }
}

/// # Safety
/// There must be one.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn drop_row(between: *mut Between) {
    // SAFETY: by contract.
    unsafe {
        pg_sys::ExecDropSingleTupleTableSlot((*between).row);
        ((*between).row, (*between).of) = (std::ptr::null_mut(), std::ptr::null_mut());
    }
}
