//! Being told of statements: analysed, started, ended, and what their plans read, write and lock. Other extensions' hooks stay in
//! the chain.

use std::sync::OnceLock;

use pgrx::pg_sys;

use super::list;
use super::majors::query::wanted_of;
use super::names::Oid;
use super::predicate::{self, Searches};
use super::statement::ends_block;
use super::{before_change, foreign, holding_back, lock_rows, lookup, summons};

#[derive(Clone, Copy)]
pub struct Listener {
    /// A statement was parsed and analysed; it may run soon, with a snapshot not yet taken.
    pub analysed: fn(),
    /// A plan starts; the snapshot it sees by is active.
    pub starts: fn(&Plan),
    /// The nodes of the plan are initialised, none has run.
    pub started: fn(&Plan),
    /// The plan has run to its end, and its nodes are still there.
    pub ending: fn(&Plan),
    pub ends: fn(Execution),
}

struct Hooks {
    listener: Listener,
    analyse: pg_sys::post_parse_analyze_hook_type,
    start: pg_sys::ExecutorStart_hook_type,
    end: pg_sys::ExecutorEnd_hook_type,
}

static HOOKS: OnceLock<Hooks> = OnceLock::new();

/// Installs the hooks; once a process, from `_PG_init`.
pub fn on_execution(listener: Listener) {
    // SAFETY: hooks are plain variables, set while the library loads; the previous values are kept and called.
    unsafe {
        let hooks = Hooks {
            listener,
            analyse: pg_sys::post_parse_analyze_hook,
            start: pg_sys::ExecutorStart_hook,
            end: pg_sys::ExecutorEnd_hook,
        };
        if HOOKS.set(hooks).is_ok() {
            pg_sys::post_parse_analyze_hook = Some(analyse);
            pg_sys::ExecutorStart_hook = Some(start);
            pg_sys::ExecutorEnd_hook = Some(end);
        }
    }
}

/// Tells one execution from others that are open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Execution(usize);

/// A plan that is about to run.
pub struct Plan {
    query: *mut pg_sys::QueryDesc,
}

impl Plan {
    pub fn execution(&self) -> Execution {
        Execution(self.query as usize)
    }

    /// The relations that it writes to.
    pub fn written(&self) -> Vec<Oid> {
        // SAFETY: the hooks are given a query with its plan.
        unsafe { written_by(self.query) }
    }

    /// Whether the plan is a query of a foreign key's trigger, or of a trigger that such a query fired.
    pub fn is_in_foreign_key_trigger(&self) -> bool {
        let (mut user, mut context) = (pg_sys::InvalidOid, 0);
        // SAFETY: writes to two variables of ours.
        unsafe { pg_sys::GetUserIdAndSecContext(&mut user, &mut context) };
        context as u32 & pg_sys::SECURITY_NOFORCE_RLS != 0
    }

    /// The relations that the plan reads, and those that it only inserts into.
    pub fn reads(&self) -> Reads {
        // SAFETY: by the hooks' contract; a range table is counted from 1.
        unsafe {
            let plan = (*self.query).plannedstmt;
            let table = list::pointers::<pg_sys::RangeTblEntry>((*plan).rtable);
            let inserts = inserts(plan);
            let mut reads = Reads::default();
            for (index, &entry) in (1..).zip(&table) {
                // The pseudo-relation EXCLUDED of ON CONFLICT has the kind of a row type.
                let is_relation = (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                    && (*entry).relkind as u8 != pg_sys::RELKIND_COMPOSITE_TYPE;
                if !is_relation {
                    continue;
                }
                match inserts.iter().find(|insert| insert.targets.contains(&index)) {
                    Some(insert) if insert.looks_for_conflicts => reads.looked_up.push((*entry).relid),
                    Some(_) => reads.inserted.push((*entry).relid),
                    None => reads.scanned.push((index as u32, (*entry).relid)),
                }
            }
            reads
        }
    }

    /// Keeps the plan from running in parallel: what functions read in another process, nobody would record.
    pub fn stay_in_this_process(&self) {
        // SAFETY: the plan may be shared with other executions, so a copy of its top is changed. It is allocated where the query
        // descriptor was, and what it points to lives as long as the original.
        unsafe {
            if (*(*self.query).plannedstmt).parallelModeNeeded {
                let copy: *mut pg_sys::PlannedStmt = pg_sys::palloc(size_of::<pg_sys::PlannedStmt>()).cast();
                copy.copy_from_nonoverlapping((*self.query).plannedstmt, 1);
                (*copy).parallelModeNeeded = false;
                (*self.query).plannedstmt = copy;
            }
        }
    }

    /// Shows the listener of [`lookup`] every value that the plan's index scans by equality look for, if `wanted` says so of the
    /// scan. Gives the places of those scans' relations in the range table.
    pub fn watch_lookups(&self, wanted: &dyn Fn(&lookup::Lookup<'_>) -> bool) -> Vec<u32> {
        // SAFETY: by the hooks' contract; the nodes are there.
        unsafe { lookup::watch((*self.query).planstate, wanted) }
    }

    /// What the plan's scans look for.
    pub fn searches(&self) -> Searches {
        // SAFETY: by the hooks' contract; the nodes are there.
        unsafe { predicate::of_plan((*self.query).planstate) }
    }

    /// Has the rows counted that are given to an INSERT ... ON CONFLICT at the top of the plan.
    pub fn count_proposed(&self) {
        // SAFETY: by the hooks' contract; the node has not run, and looks for a counter when it first does. What is allocated lives as long as it.
        unsafe {
            let Some(source) = self.source_of_insert() else { return };
            if (*source).instrument.is_null() {
                let before = pg_sys::CurrentMemoryContext;
                pg_sys::CurrentMemoryContext = (*(*self.query).estate).es_query_cxt;
                (*source).instrument = pg_sys::InstrAlloc(1, pg_sys::InstrumentOption::INSTRUMENT_ROWS as i32, false);
                pg_sys::CurrentMemoryContext = before;
            }
        }
    }

    /// Whether it has inserted or updated a row for each that it was given. If a plan has run and they were counted.
    pub fn has_written_all_proposed(&self) -> bool {
        // SAFETY: by the hooks' contract.
        unsafe {
            let Some(source) = self.source_of_insert() else { return false };
            let Some(counter) = (*source).instrument.as_ref() else { return false };
            counter.ntuples + counter.tuplecount == (*(*self.query).estate).es_processed as f64
        }
    }

    /// The node that gives an INSERT at the top of the plan its rows.
    ///
    /// # Safety
    /// The nodes must be there.
    unsafe fn source_of_insert(&self) -> Option<*mut pg_sys::PlanState> {
        // SAFETY: by contract; the tag says what a node is.
        unsafe {
            let top = (*self.query).planstate;
            if top.is_null() || (*(*top).plan).type_ != pg_sys::NodeTag::T_ModifyTable {
                return None;
            }
            let insert = &*(*top).plan.cast::<pg_sys::ModifyTable>();
            let counts = insert.operation == pg_sys::CmdType::CMD_INSERT && insert.canSetTag;
            (counts && !(*top).lefttree.is_null()).then_some((*top).lefttree)
        }
    }

    /// Shows the listener of [`before_change`] the rows that the plan changes, before it does.
    pub fn watch_changes(&self) {
        // SAFETY: by the hooks' contract; the nodes are there.
        unsafe {
            if !(*(*self.query).plannedstmt).resultRelations.is_null() {
                before_change::watch((*self.query).planstate);
            }
        }
    }

    /// Shows the listener of [`lock_rows`] every row that the plan locks for FOR UPDATE, FOR SHARE and the like, and that of [`before_change`] before it does.
    pub fn watch_row_locks(&self) {
        // SAFETY: by the hooks' contract; the nodes are there.
        unsafe {
            if !(*(*self.query).plannedstmt).rowMarks.is_null() {
                lock_rows::watch((*self.query).planstate);
            }
        }
    }
}

/// Relations by what a plan does with their rows.
#[derive(Debug, Default)]
pub struct Reads {
    /// Read, each with its place in the range table.
    pub scanned: Vec<(u32, Oid)>,
    /// Inserted into by INSERT ... ON CONFLICT, which looks for equal keys and goes on.
    pub looked_up: Vec<Oid>,
    /// Inserted into by a plain INSERT, which looks for equal keys and fails if there are any.
    pub inserted: Vec<Oid>,
}

struct Insert {
    /// Places in the range table of the relations that rows go to.
    targets: Vec<i32>,
    looks_for_conflicts: bool,
}

/// # Safety
/// `plan` must be a plan. Nodes that insert are at the top of it or of a common table expression.
unsafe fn inserts(plan: *mut pg_sys::PlannedStmt) -> Vec<Insert> {
    // SAFETY: by contract.
    unsafe {
        let tops = std::iter::once((*plan).planTree).chain(list::pointers::<pg_sys::Plan>((*plan).subplans));
        tops.filter(|&top| !top.is_null() && (*top).type_ == pg_sys::NodeTag::T_ModifyTable)
            .map(|top| &*top.cast::<pg_sys::ModifyTable>())
            .filter(|node| node.operation == pg_sys::CmdType::CMD_INSERT)
            .map(|node| {
                let mut targets = list::integers(node.resultRelations);
                targets.extend([node.rootRelation as i32, node.nominalRelation as i32]);
                let looks_for_conflicts = node.onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE;
                Insert { targets, looks_for_conflicts }
            })
            .collect()
    }
}

/// The relations that a plan writes to.
///
/// # Safety
/// `query` must be a query descriptor.
unsafe fn written_by(query: *mut pg_sys::QueryDesc) -> Vec<Oid> {
    // SAFETY: by contract; resultRelations are indexes, from 1, into the range table.
    unsafe {
        let plan = (*query).plannedstmt;
        if (*plan).resultRelations.is_null() {
            return Vec::new();
        }
        let table = list::pointers::<pg_sys::RangeTblEntry>((*plan).rtable);
        list::integers((*plan).resultRelations)
            .into_iter()
            .filter_map(|index| table.get(usize::try_from(index).ok()?.checked_sub(1)?).copied())
            .filter(|&entry| !changes_estimates(plan, entry))
            .map(|entry| (*entry).relid)
            .collect()
    }
}

/// Whether nothing but estimates of pg_class is changed, which each node has of its own: relpages, reltuples, relallvisible.
///
/// # Safety
/// `entry` must be a plan's, of a relation that the plan changes.
unsafe fn changes_estimates(plan: *const pg_sys::PlannedStmt, entry: *mut pg_sys::RangeTblEntry) -> bool {
    const ESTIMATES: [u32; 3] =
        [pg_sys::Anum_pg_class_relpages, pg_sys::Anum_pg_class_reltuples, pg_sys::Anum_pg_class_relallvisible];
    // SAFETY: by contract; a set of column numbers, above an offset.
    unsafe {
        if (*entry).relid != pg_sys::RelationRelationId {
            return false;
        }
        let (wanted, updated) = wanted_of(plan, entry);
        if wanted & u64::from(pg_sys::ACL_INSERT | pg_sys::ACL_DELETE) != 0 || updated.is_null() {
            return false;
        }
        let mut column = -1;
        loop {
            column = pg_sys::bms_next_member(updated, column);
            let number = column + pg_sys::FirstLowInvalidHeapAttributeNumber;
            if column < 0 {
                return true;
            }
            if !ESTIMATES.iter().any(|&estimate| estimate as i32 == number) {
                return false;
            }
        }
    }
}

unsafe extern "C-unwind" {
    /// As pgrx binds them, but without the guard: errors of the executor pass with all their fields.
    #[link_name = "standard_ExecutorStart"]
    fn start_by_postgres(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int);
    #[link_name = "standard_ExecutorEnd"]
    fn end_by_postgres(query: *mut pg_sys::QueryDesc);
}

/// # Safety
/// Called by PostgreSQL. Like the two below not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn analyse(
    state: *mut pg_sys::ParseState,
    query: *mut pg_sys::Query,
    jumble: *mut pg_sys::JumbleState,
) {
    // SAFETY: passes on what we were given.
    unsafe {
        if ends_block((*query).utilityStmt) {
            summons::statement_ends_block();
        } else {
            summons::statement_is_known();
        }
        holding_back::after_analysis(state, query);
        tell_analysed();
        if let Some(previous) = HOOKS.get().and_then(|hooks| hooks.analyse) {
            previous(state, query, jumble);
        }
    }
}

unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: std::ffi::c_int) {
    // SAFETY: passes on what we were given.
    unsafe {
        tell_start(query);
        HOOKS.get().and_then(|hooks| hooks.start).unwrap_or(start_by_postgres)(query, flags);
        tell_started(query);
    }
}

unsafe extern "C-unwind" fn end(query: *mut pg_sys::QueryDesc) {
    // SAFETY: passes on what we were given.
    unsafe {
        if has_ends(query) {
            tell_ending(query);
        }
        HOOKS.get().and_then(|hooks| hooks.end).unwrap_or(end_by_postgres)(query);
        tell_end(query);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_analysed() {
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.analysed)();
    }
}

/// # Safety
/// `query` must be what the executor is about to start.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_start(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by contract.
    unsafe { foreign::before_start(query) };
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.starts)(&Plan { query });
    }
}

/// # Safety
/// `query` must be what the executor has started.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_started(query: *mut pg_sys::QueryDesc) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.started)(&Plan { query });
    }
}

/// Whether it is known only at the end of a plan what it has done: rows went to partitions, or ON CONFLICT had its say.
///
/// # Safety
/// `query` must be what the executor is about to end.
unsafe fn has_ends(query: *mut pg_sys::QueryDesc) -> bool {
    // SAFETY: by contract; the tag says what the node is.
    unsafe {
        let top = (*(*query).plannedstmt).planTree;
        !(*(*query).estate).es_tuple_routing_result_relations.is_null()
            || (*top).type_ == pg_sys::NodeTag::T_ModifyTable
                && (*top.cast::<pg_sys::ModifyTable>()).onConflictAction != pg_sys::OnConflictAction::ONCONFLICT_NONE
    }
}

/// # Safety
/// `query` must be what the executor is about to end.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_ending(query: *mut pg_sys::QueryDesc) {
    // SAFETY: by contract.
    unsafe { foreign::before_end(query) };
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.ending)(&Plan { query });
    }
}

/// The executor has ended the query: its address still tells the execution, and must not be followed.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell_end(query: *mut pg_sys::QueryDesc) {
    if let Some(hooks) = HOOKS.get() {
        (hooks.listener.ends)(Execution(query as usize));
    }
}
