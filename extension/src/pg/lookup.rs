//! Index scans by equality: being shown each value that a scan looks for.

use std::ffi::c_void;
use std::sync::OnceLock;

use pgrx::pg_sys;

use super::index::{Index, IndexKey};
use super::majors::query::planstate_tree_walker;
use super::names::Oid;
use super::planstate::rescan_by_postgres;
use super::table::Table;

/// A scan of an index by equality with one value in each of some of its columns.
pub struct Lookup<'a> {
    relation: pg_sys::Relation,
    index: pg_sys::Relation,
    keys: &'a [pg_sys::ScanKeyData],
}

impl Lookup<'_> {
    pub fn table(&self) -> Oid {
        // SAFETY: the executor holds the relation open.
        unsafe { (*self.relation).rd_id }
    }

    pub fn describe(&self) -> Table {
        Table::describe_raw(self.relation)
    }

    pub fn index(&self) -> Oid {
        // SAFETY: the executor holds the index open.
        unsafe { (*self.index).rd_id }
    }

    /// Whether the scan gives one value for each key column of `index`, of a type that can be hashed like the keys. `index` must be
    /// the one that is scanned.
    pub fn is_exact(&self, index: &Index) -> bool {
        let of_column = |column: usize| self.keys.iter().filter(move |key| key.sk_attno as usize == column + 1);
        let columns = index.column_count();
        self.keys.len() == columns
            && (0..columns).all(|column| of_column(column).count() == 1)
            && self.keys.iter().all(|key| {
                // SAFETY: the executor holds the index open.
                unsafe { index.can_look_up(self.index, key.sk_attno as usize - 1, key.sk_subtype) }
            })
    }

    /// The key that is looked for; `index` must be the one that is scanned, and the look-up exact. None if nothing can be found.
    pub fn key(&self, index: &Index) -> Option<IndexKey> {
        if self.keys.iter().any(|key| key.sk_flags as u32 & pg_sys::SK_ISNULL != 0) {
            return None;
        }
        let value = |column: usize| self.keys.iter().find(|key| key.sk_attno as usize == column + 1);
        let values: Option<Vec<_>> =
            (0..index.column_count()).map(|column| value(column).map(|key| (key.sk_argument, key.sk_subtype))).collect();
        Some(index.key_of_values(&values?))
    }
}

type Run = unsafe extern "C-unwind" fn(*mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot;

static LISTENER: OnceLock<fn(&Lookup<'_>)> = OnceLock::new();
/// What the executor itself calls for the two kinds of index scans.
static INDEX_SCAN: OnceLock<Run> = OnceLock::new();
static INDEX_ONLY_SCAN: OnceLock<Run> = OnceLock::new();

/// Calls `listener` for each value that a watched scan looks for. Once, while libraries are preloaded.
pub fn on_lookup(listener: fn(&Lookup<'_>)) {
    let _ = LISTENER.set(listener);
}

struct Search<'a> {
    wanted: &'a dyn Fn(&Lookup<'_>) -> bool,
    watched: Vec<u32>,
}

/// Watches the plan's index scans by equality that `wanted` picks. Gives the places of their relations in the range table.
///
/// # Safety
/// `state` must be the top of a plan that was initialised and has not run.
pub(super) unsafe fn watch(state: *mut pg_sys::PlanState, wanted: &dyn Fn(&Lookup<'_>) -> bool) -> Vec<u32> {
    let mut search = Search { wanted, watched: Vec::new() };
    if !state.is_null() {
        // SAFETY: by contract; the search outlives the walk.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| visit(state, (&raw mut search).cast())) };
    }
    search.watched
}

/// # Safety
/// Called by `planstate_tree_walker` with the nodes of a plan and a [`Search`].
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: by contract. The first call of a node goes through PostgreSQL's own wrapper, which then uses `ExecProcNodeReal`.
    unsafe {
        consider(state, context.cast());
        planstate_tree_walker(state, visit, context)
    }
}

/// # Safety
/// As above.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn consider(state: *mut pg_sys::PlanState, search: *mut Search<'_>) {
    // SAFETY: by contract.
    unsafe {
        let (kept, ours): (_, Run) = match (*state).type_ {
            pg_sys::NodeTag::T_IndexScanState => (&INDEX_SCAN, index_scan),
            pg_sys::NodeTag::T_IndexOnlyScanState => (&INDEX_ONLY_SCAN, index_only_scan),
            _ => return,
        };
        let (Some(real), Some(lookup)) = ((*state).ExecProcNodeReal, lookup(state)) else { return };
        if std::ptr::fn_addr_eq(*kept.get_or_init(|| real), real) && ((*search).wanted)(&lookup) {
            (*state).ExecProcNodeReal = Some(ours);
            (*search).watched.push((*(*state).plan.cast::<pg_sys::Scan>()).scanrelid);
        }
    }
}

/// None unless the scan is by equality only.
///
/// # Safety
/// `state` must be an index scan that was initialised.
unsafe fn lookup<'a>(state: *mut pg_sys::PlanState) -> Option<Lookup<'a>> {
    // SAFETY: by contract; there are as many keys as it says.
    unsafe {
        let (relation, index, keys, count, orders) = if (*state).type_ == pg_sys::NodeTag::T_IndexScanState {
            let scan = &*state.cast::<pg_sys::IndexScanState>();
            let (keys, count) = (scan.iss_ScanKeys, scan.iss_NumScanKeys);
            (scan.ss.ss_currentRelation, scan.iss_RelationDesc, keys, count, scan.iss_NumOrderByKeys)
        } else {
            let scan = &*state.cast::<pg_sys::IndexOnlyScanState>();
            let (keys, count) = (scan.ioss_ScanKeys, scan.ioss_NumScanKeys);
            (scan.ss.ss_currentRelation, scan.ioss_RelationDesc, keys, count, scan.ioss_NumOrderByKeys)
        };
        // EXPLAIN leaves the index closed.
        if relation.is_null() || index.is_null() || keys.is_null() || orders != 0 {
            return None;
        }
        let keys = std::slice::from_raw_parts(keys, usize::try_from(count).ok()?);
        let is_equality = |key: &pg_sys::ScanKeyData| {
            key.sk_flags as u32 & !pg_sys::SK_ISNULL == 0
                && u32::from(key.sk_strategy) == pg_sys::BTEqualStrategyNumber
                && key.sk_attno > 0
        };
        keys.iter().all(is_equality).then_some(Lookup { relation, index, keys })
    }
}

/// # Safety
/// Called by the executor, like the next. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn index_scan(state: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: only nodes that are watched come here. Values known only now are computed as the node itself would.
    unsafe {
        let scan = state.cast::<pg_sys::IndexScanState>();
        if (*scan).iss_NumRuntimeKeys != 0 && !(*scan).iss_RuntimeKeysReady {
            rescan_by_postgres(state);
        }
        tell(state);
        INDEX_SCAN.get().map_or(std::ptr::null_mut(), |real| real(state))
    }
}

unsafe extern "C-unwind" fn index_only_scan(state: *mut pg_sys::PlanState) -> *mut pg_sys::TupleTableSlot {
    // SAFETY: as above.
    unsafe {
        let scan = state.cast::<pg_sys::IndexOnlyScanState>();
        if (*scan).ioss_NumRuntimeKeys != 0 && !(*scan).ioss_RuntimeKeysReady {
            rescan_by_postgres(state);
        }
        tell(state);
        INDEX_ONLY_SCAN.get().map_or(std::ptr::null_mut(), |real| real(state))
    }
}

/// # Safety
/// `state` must be a scan that is watched, its keys ready.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn tell(state: *mut pg_sys::PlanState) {
    // SAFETY: by contract.
    if let (Some(listener), Some(lookup)) = (LISTENER.get(), unsafe { lookup(state) }) {
        listener(&lookup);
    }
}
