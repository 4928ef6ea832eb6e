//! What a scan looks for in its table, as a condition on single rows that stands by itself: [`Predicate`].
//!
//! A plan's scan has *conjuncts*: conditions all of which a row must meet. Here they are taken out of the plan when it starts, with the values that they
//! compare with in place of parameters. A conjunct that cannot be evaluated later and elsewhere in the same way is left out: one that depends on another
//! node of the plan, on a function that is not immutable or that is written in SQL or a procedural language, on a domain's checks, on columns that
//! PostgreSQL keeps for itself. What is left is met by more rows than the scan has looked for, never by fewer. `unchanged` evaluates it.

use std::ffi::{CStr, CString, c_void};

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::list;
use super::majors::query::{expression_tree_mutator, planstate_tree_walker};
use super::memory::Context;
use super::names::Oid;

/// The one range table entry of a predicate.
const TABLE: i32 = 1;
/// Of catalog/pg_language.dat: built-in functions, and those written in C.
const NATIVE: [u32; 2] = [12, 13];

/// A condition on rows of a table: a list of expressions, as PostgreSQL writes nodes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Predicate {
    pub(super) conjuncts: CString,
    /// The index by which the scan finds rows, and those of its conjuncts that this index knows, in terms of the index's columns.
    pub(super) by_index: Option<(Oid, CString)>,
}

impl Predicate {
    pub fn bytes(&self) -> usize {
        self.conjuncts.as_bytes().len() + self.by_index.as_ref().map_or(0, |(_, keys)| keys.as_bytes().len())
    }
}

/// What a plan's scans look for.
#[derive(Debug, Default)]
pub struct Searches {
    /// By the place of the scan's relation in the range table. No predicate for a scan of a kind that nobody knows here.
    pub scans: Vec<(u32, Option<Predicate>)>,
    /// Some node does not say what it scans: it joins relations elsewhere.
    pub is_in_the_dark: bool,
}

/// # Safety
/// `state` must be the top of a plan that was initialised.
pub(super) unsafe fn of_plan(state: *mut pg_sys::PlanState) -> Searches {
    let mut found = Searches::default();
    if !state.is_null() {
        // SAFETY: by contract; what is found outlives the walk.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| visit(state, (&raw mut found).cast())) };
    }
    found
}

/// # Safety
/// Called by `planstate_tree_walker` with the nodes of a plan and what [`of_plan`] collects.
unsafe extern "C-unwind" fn visit(state: *mut pg_sys::PlanState, context: *mut c_void) -> bool {
    // SAFETY: by contract.
    unsafe {
        consider(state, context.cast());
        planstate_tree_walker(state, visit, context)
    }
}

/// # Safety
/// As above.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn consider(state: *mut pg_sys::PlanState, found: *mut Searches) {
    // SAFETY: by contract; the tag says what a node is. Each of these begins with a Scan.
    unsafe {
        let plan = (*state).plan;
        let place = match (*plan).type_ {
            Tag::T_SeqScan | Tag::T_IndexScan | Tag::T_IndexOnlyScan | Tag::T_BitmapHeapScan => {
                (*plan.cast::<pg_sys::Scan>()).scanrelid
            }
            Tag::T_SampleScan | Tag::T_TidScan | Tag::T_TidRangeScan | Tag::T_ForeignScan | Tag::T_CustomScan => {
                let place = (*plan.cast::<pg_sys::Scan>()).scanrelid;
                (*found).is_in_the_dark |= place == 0;
                return (*found).scans.push((place, None));
            }
            _ => return,
        };
        let scratch = Context::in_transaction(c"postgres_r predicate");
        let predicate = scratch.with(|| of_scan(state, place as i32));
        (*found).scans.push((place, Some(predicate)));
    }
}

/// # Safety
/// `state` must be one of the four kinds of scans, of the relation at this place.
unsafe fn of_scan(state: *mut pg_sys::PlanState, place: i32) -> Predicate {
    let nil = std::ptr::null_mut();
    // SAFETY: by contract.
    unsafe {
        let plan = (*state).plan;
        let (originals, columns, keys) = match (*plan).type_ {
            Tag::T_IndexScan => {
                let scan = &*plan.cast::<pg_sys::IndexScan>();
                (scan.indexqualorig, nil, Some((scan.indexid, scan.indexqual)))
            }
            // Nothing but the index is read: all is said in terms of its columns.
            Tag::T_IndexOnlyScan => {
                let scan = &*plan.cast::<pg_sys::IndexOnlyScan>();
                (scan.indexqual, scan.indextlist, Some((scan.indexid, scan.indexqual)))
            }
            Tag::T_BitmapHeapScan => {
                let scan = &*plan.cast::<pg_sys::BitmapHeapScan>();
                (scan.bitmapqualorig, nil, of_bitmap((*plan).lefttree))
            }
            _ => (nil, nil, None),
        };
        let mut of_rows = Replacing { state, place, columns, of_index: false, is_unfit: false };
        let mut conjuncts = of_rows.all(originals);
        conjuncts.extend(of_rows.all((*plan).qual));
        let by_index = keys.map(|(index, keys)| {
            let mut of_index = Replacing { state, place, columns: nil, of_index: true, is_unfit: false };
            (index, text(&of_index.all(keys)))
        });
        Predicate { conjuncts: text(&conjuncts), by_index: by_index.filter(|(_, keys)| !keys.is_empty()) }
    }
}

/// An index that finds all rows of a bitmap, and what it is searched by; none if it takes more than one.
///
/// # Safety
/// `plan` must make bitmaps.
unsafe fn of_bitmap(plan: *mut pg_sys::Plan) -> Option<(Oid, *mut pg_sys::List)> {
    // SAFETY: by contract; the tag says what the node is.
    unsafe {
        match (*plan).type_ {
            Tag::T_BitmapIndexScan => {
                let scan = &*plan.cast::<pg_sys::BitmapIndexScan>();
                Some((scan.indexid, scan.indexqual))
            }
            Tag::T_BitmapAnd => {
                let plans = list::pointers::<pg_sys::Plan>((*plan.cast::<pg_sys::BitmapAnd>()).bitmapplans);
                plans.into_iter().find_map(|plan| of_bitmap(plan))
            }
            _ => None,
        }
    }
}

/// Nothing for no nodes.
///
/// # Safety
/// They must be nodes.
unsafe fn text(nodes: &[*mut pg_sys::Node]) -> CString {
    if nodes.is_empty() {
        return CString::default();
    }
    // SAFETY: by contract; a list of pointers, written in the current memory context.
    unsafe {
        let list = nodes.iter().fold(std::ptr::null_mut(), |list, &node| pg_sys::lappend(list, node.cast()));
        CStr::from_ptr(pg_sys::nodeToString(list.cast())).to_owned()
    }
}

/// Conjuncts of a scan on their way out of its plan.
struct Replacing {
    state: *mut pg_sys::PlanState,
    place: i32,
    /// What the columns of an index stand for, as target list; NIL where expressions do not speak of an index.
    columns: *mut pg_sys::List,
    /// Whether they go on speaking of the index's columns.
    of_index: bool,
    /// The expression cannot be taken out.
    is_unfit: bool,
}

impl Replacing {
    /// Those of them that can be taken out, with values for their parameters.
    ///
    /// # Safety
    /// `conjuncts` must be a list of expressions of the scan's plan.
    unsafe fn all(&mut self, conjuncts: *mut pg_sys::List) -> Vec<*mut pg_sys::Node> {
        // SAFETY: by contract.
        let conjuncts = unsafe { list::pointers::<pg_sys::Node>(conjuncts) };
        let taken = conjuncts.into_iter().map(|conjunct| {
            self.is_unfit = false;
            // SAFETY: as above; this outlives the call.
            let replaced = unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| replace(conjunct, (&raw mut *self).cast())) };
            (replaced, self.is_unfit)
        });
        taken.filter(|(_, is_unfit)| !is_unfit).map(|(replaced, _)| replaced).collect()
    }

    /// The expression to put in the place of a node; none to look into it.
    ///
    /// # Safety
    /// `node` must be a node of an expression of the scan.
    unsafe fn in_place_of(&mut self, node: *mut pg_sys::Node) -> Option<*mut pg_sys::Node> {
        // SAFETY: by contract; the tag says what the node is.
        unsafe {
            match (*node).type_ {
                Tag::T_Var => {
                    let found = self.column(node.cast());
                    self.is_unfit |= found.is_none();
                    Some(found.unwrap_or(node))
                }
                Tag::T_Param => {
                    let found = self.parameter(&*node.cast::<pg_sys::Param>());
                    self.is_unfit |= found.is_none();
                    Some(found.unwrap_or(node))
                }
                Tag::T_Const => Some(node),
                Tag::T_SubPlan
                | Tag::T_AlternativeSubPlan
                | Tag::T_SubLink
                | Tag::T_CoerceToDomain
                | Tag::T_NextValueExpr
                | Tag::T_SQLValueFunction
                | Tag::T_CurrentOfExpr
                | Tag::T_XmlExpr => {
                    self.is_unfit = true;
                    Some(node)
                }
                _ => {
                    self.is_unfit |= pg_sys::check_functions_in_node(node, Some(is_unfit), std::ptr::null_mut());
                    self.is_unfit.then_some(node)
                }
            }
        }
    }

    /// # Safety
    /// `variable` must be a Var.
    unsafe fn column(&mut self, variable: *mut pg_sys::Var) -> Option<*mut pg_sys::Node> {
        // SAFETY: by contract; entries of a target list are TargetEntry.
        unsafe {
            let found = &*variable;
            if found.varlevelsup != 0 || found.varattno <= 0 {
                return None;
            }
            if found.varno == pg_sys::INDEX_VAR {
                if self.of_index {
                    return Some(variable.cast());
                }
                let entries = list::pointers::<pg_sys::TargetEntry>(self.columns);
                let entry = entries.into_iter().find(|&entry| (*entry).resno == found.varattno)?;
                return Some(pg_sys::ffi::pg_guard_ffi_boundary(|| replace((*entry).expr.cast(), (&raw mut *self).cast())));
            }
            if found.varno != self.place {
                return None;
            }
            let copy = pg_sys::copyObjectImpl(variable.cast()).cast::<pg_sys::Var>();
            ((*copy).varno, (*copy).varnosyn) = (TABLE, TABLE as u32);
            Some(copy.cast())
        }
    }

    /// The value of a parameter that the query was given. A language that makes values when they are asked for is asked as the planner asks it: it need not know.
    ///
    /// # Safety
    /// The plan must be started.
    unsafe fn parameter(&self, parameter: &pg_sys::Param) -> Option<*mut pg_sys::Node> {
        // SAFETY: by contract; there are as many parameters as it says, from 1.
        unsafe {
            let given = (*(*self.state).state).es_param_list_info;
            if parameter.paramkind != pg_sys::ParamKind::PARAM_EXTERN || given.is_null() || parameter.paramid < 1 {
                return None;
            }
            let mut room = pg_sys::ParamExternData::default();
            let value = match (*given).paramFetch {
                Some(fetch) => &*pg_sys::ffi::pg_guard_ffi_boundary(|| fetch(given, parameter.paramid, true, &mut room)),
                None if parameter.paramid <= (*given).numParams => {
                    &*(*given).params.as_ptr().add(parameter.paramid as usize - 1)
                }
                None => return None,
            };
            if value.ptype != parameter.paramtype {
                return None;
            }
            let (mut length, mut by_value) = (0, false);
            pg_sys::get_typlenbyval(value.ptype, &mut length, &mut by_value);
            let datum = match (value.isnull, length) {
                (true, _) => pg_sys::Datum::from(0),
                // Neither out of line nor expanded: it has to stand by itself.
                (false, -1) => pg_sys::Datum::from(pg_sys::pg_detoast_datum_copy(value.value.cast_mut_ptr())),
                (false, _) => value.value,
            };
            let (modifier, collation) = (parameter.paramtypmod, parameter.paramcollid);
            Some(
                pg_sys::makeConst(value.ptype, modifier, collation, i32::from(length), datum, value.isnull, by_value).cast(),
            )
        }
    }
}

/// # Safety
/// Called by PostgreSQL's mutator with a node of an expression and a [`Replacing`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn replace(node: *mut pg_sys::Node, context: *mut c_void) -> *mut pg_sys::Node {
    // SAFETY: by contract. What turns out to be unfit is not looked at any further.
    unsafe {
        if node.is_null() {
            return node;
        }
        match (*context.cast::<Replacing>()).in_place_of(node) {
            Some(replaced) => replaced,
            None => pg_sys::ffi::pg_guard_ffi_boundary(|| expression_tree_mutator(node, replace, context)),
        }
    }
}

/// Whether what a function gives may depend on more than its arguments, or a function of a user's would run.
///
/// # Safety
/// Called by PostgreSQL with a function's OID.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn is_unfit(function: Oid, _context: *mut c_void) -> bool {
    // SAFETY: a syscache look-up, its tuple released.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::PROCOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(function));
        if tuple.is_null() {
            return true;
        }
        let row = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_proc>(tuple);
        let is_unfit = !NATIVE.contains(&row.prolang.to_u32()) || row.provolatile as u8 != pg_sys::PROVOLATILE_IMMUTABLE;
        pg_sys::ReleaseSysCache(tuple);
        is_unfit
    }
}
