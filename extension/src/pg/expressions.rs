//! What an index enters for a row besides its columns: the values of its expressions, and whether its predicate lets the row in.
//!
//! Functions of users may run there, and what they give may depend on more than their arguments, whatever they are declared as: on
//! search_path, settings, the role, other tables. So they run on the origin, in the session that wrote the row, and what came out travels
//! with the row ([`Computed`]). Built-in functions that are immutable give the same everywhere; an index that calls no others is evaluated
//! where the row is stored, and its rows carry nothing more.
//!
//! Expressions are looked at as the catalog holds them. PostgreSQL's own description of an index has SQL functions inlined, which means
//! to read them under the search_path of the moment: it is only made on the origin.

use std::cell::OnceCell;
use std::ffi::c_void;

use gcs_writeset::body::{Datum as Wire, PutItem};
use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::SysCacheIdentifier as Cache;

use super::datum::Codec;
use super::list;
use super::majors::query::expression_tree_walker;
use super::memory::Context;
use super::names::{Oid, name_of};
use super::row::Row;

/// The first OID that initdb or a user may assign to a function.
pub(super) const FIRST_OF_OTHERS: u32 = 10_000;

/// An index's expressions and predicate as the catalog holds them; in the current memory context.
pub(super) struct Stored {
    pub expressions: *mut pg_sys::List,
    /// Null if there is none.
    pub predicate: *mut pg_sys::Node,
}

impl Stored {
    /// None for an index on plain columns.
    pub(super) fn of_index(index: Oid) -> Option<Stored> {
        // SAFETY: a syscache look-up; both columns are null or the text of a node tree, which is copied before the tuple is released.
        unsafe {
            let tuple = pg_sys::SearchSysCache1(Cache::INDEXRELID as i32, pg_sys::Datum::from(index));
            if tuple.is_null() {
                return None;
            }
            let tree = |column: u32| {
                let mut is_null = false;
                let text = pg_sys::SysCacheGetAttr(Cache::INDEXRELID as i32, tuple, column as i16, &mut is_null);
                if is_null {
                    std::ptr::null_mut()
                } else {
                    pg_sys::stringToNode(pg_sys::text_to_cstring(text.cast_mut_ptr()))
                }
            };
            let expressions = tree(pg_sys::Anum_pg_index_indexprs).cast::<pg_sys::List>();
            let predicate = tree(pg_sys::Anum_pg_index_indpred).cast::<pg_sys::Node>();
            pg_sys::ReleaseSysCache(tuple);
            (!expressions.is_null() || !predicate.is_null()).then_some(Stored { expressions, predicate })
        }
    }

    /// Whether functions of users may run, or such as give something else at another time.
    fn runs_functions_of_users(&self) -> bool {
        // SAFETY: node trees, or null.
        unsafe {
            runs_other(self.expressions.cast(), std::ptr::null_mut()) || runs_other(self.predicate, std::ptr::null_mut())
        }
    }
}

/// # Safety
/// Called by PostgreSQL's tree walker with a node of an expression.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn runs_other(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: by contract.
    unsafe {
        if node.is_null() {
            return false;
        }
        // A domain's checks may be anything.
        (*node).type_ == Tag::T_CoerceToDomain
            || pg_sys::check_functions_in_node(node, Some(is_other), context)
            || pg_sys::ffi::pg_guard_ffi_boundary(|| expression_tree_walker(node, runs_other, context))
    }
}

/// # Safety
/// Called by PostgreSQL with a function's OID.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn is_other(function: Oid, _context: *mut c_void) -> bool {
    // SAFETY: a syscache look-up.
    function.to_u32() >= FIRST_OF_OTHERS || unsafe { pg_sys::func_volatile(function) } as u8 != pg_sys::PROVOLATILE_IMMUTABLE
}

/// An index whose expressions or predicate are evaluated on the origin only.
pub struct Computed {
    pub index: Oid,
    pub name: String,
    pub has_predicate: bool,
    /// Of the expressions, in order.
    types: Vec<(Codec, Oid)>,
    /// PostgreSQL's own description, once rows are captured here.
    info: Info,
}

impl Computed {
    /// None for an index that rows need not carry anything for. Allocates in `context`.
    pub(super) fn describe(index: Oid, context: &Context) -> Option<Computed> {
        let stored = Stored::of_index(index)?;
        if !stored.runs_functions_of_users() {
            return None;
        }
        // SAFETY: its table is open and locked, so its index can be opened; a list of expressions, each with a type.
        unsafe {
            let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
            let form = &*(*relation).rd_index;
            let takes_rows = form.indislive && form.indisready;
            let name = name_of(&(*(*relation).rd_rel).relname);
            pg_sys::index_close(relation, pg_sys::NoLock as i32);
            if !takes_rows {
                return None;
            }
            let types = list::pointers::<pg_sys::Node>(stored.expressions).into_iter().map(|expression| {
                let (typid, typmod) = (pg_sys::exprType(expression), pg_sys::exprTypmod(expression));
                let (mut length, mut byval) = (0, false);
                pg_sys::get_typlenbyval(typid, &mut length, &mut byval);
                (Codec::new(typid, typmod, length, byval, context), typid)
            });
            let types = types.collect();
            Some(Computed { index, name, has_predicate: !stored.predicate.is_null(), types, info: Info::default() })
        }
    }

    /// As the index is defined to rows that carry its values.
    pub fn as_wire(&self) -> gcs_writeset::body::Index<'_> {
        let expressions = self.types.len() as u32;
        gcs_writeset::body::Index { name: &self.name, has_predicate: self.has_predicate, expressions }
    }

    pub fn depends_on_settings(&self) -> bool {
        self.types.iter().any(|(codec, _)| codec.depends_on_settings())
    }

    pub fn names_objects(&self) -> bool {
        self.types.iter().any(|(codec, _)| codec.names_objects())
    }

    pub(super) fn types(&self) -> &[(Codec, Oid)] {
        &self.types
    }
}

/// PostgreSQL's own description of an index of an open table, made when it is first needed.
#[derive(Default)]
pub(super) struct Info(OnceCell<(*mut pg_sys::IndexInfo, Context)>);

impl Info {
    pub(super) fn get(&self, index: Oid) -> *mut pg_sys::IndexInfo {
        let made = self.0.get_or_init(|| {
            let context = Context::lasting(c"postgres_r index");
            // SAFETY: its table is open and locked, so its index can be opened.
            unsafe {
                let relation = pg_sys::index_open(index, pg_sys::AccessShareLock as i32);
                let info = context.with(|| pg_sys::BuildIndexInfo(relation));
                pg_sys::index_close(relation, pg_sys::NoLock as i32);
                (info, context)
            }
        });
        made.0
    }
}

/// What the indexes of a table give for a row, until dropped.
pub struct Values {
    estate: *mut pg_sys::EState,
    of_indexes: Vec<Entry>,
}

/// What one index gives for a row.
struct Entry {
    index: Oid,
    /// None if the predicate leaves the row out; else a value for each column of the index, unless null.
    columns: Option<Vec<Option<pg_sys::Datum>>>,
    /// Which of the columns are expressions.
    expressions: Vec<usize>,
}

impl Values {
    pub(super) fn compute(computed: &[Computed], row: Row<'_>) -> Values {
        // SAFETY: as the executor evaluates an index; states of expressions are made here and forgotten before they are freed with the
        // EState, to which the values belong. The slot holds the row.
        unsafe {
            let estate = pg_sys::CreateExecutorState();
            let econtext = pg_sys::MakePerTupleExprContext(estate);
            (*econtext).ecxt_scantuple = row.slot;
            let of_indexes = computed.iter().map(|index| {
                let info = index.info.get(index.index);
                let columns = evaluate(info, row, estate, econtext);
                let count = usize::try_from((*info).ii_NumIndexAttrs).unwrap_or(0);
                let expressions = (0..count).filter(|&at| (*info).ii_IndexAttrNumbers[at] == 0).collect();
                Entry { index: index.index, columns, expressions }
            });
            let of_indexes = of_indexes.collect();
            Values { estate, of_indexes }
        }
    }

    /// The columns of this index, if they were computed; none of them if its predicate leaves the row out.
    pub(super) fn columns(&self, index: Oid) -> Option<Option<&[Option<pg_sys::Datum>]>> {
        let entry = self.of_indexes.iter().find(|entry| entry.index == index)?;
        Some(entry.columns.as_deref())
    }

    /// Appends them, in the order of `computed`.
    pub(super) fn put(&self, computed: &[Computed], out: &mut Vec<u8>) {
        for (index, entry) in computed.iter().zip(&self.of_indexes) {
            if index.has_predicate {
                out.put_datum(Wire::Physical(&[u8::from(entry.columns.is_some())]));
            }
            for ((codec, _), &column) in index.types.iter().zip(&entry.expressions) {
                match entry.columns.as_ref().and_then(|columns| columns[column]) {
                    Some(datum) => codec.put(datum, out),
                    None => out.put_datum(Wire::Null),
                }
            }
        }
    }
}

impl Drop for Values {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: made by `compute`, freed once. After an ERROR its memory goes with the context in which it was made.
            unsafe { pg_sys::FreeExecutorState(self.estate) }
        }
    }
}

/// # Safety
/// `info` must describe an index of the row's table, `econtext` be of `estate` and have the row for its scan tuple.
unsafe fn evaluate(
    info: *mut pg_sys::IndexInfo,
    row: Row<'_>,
    estate: *mut pg_sys::EState,
    econtext: *mut pg_sys::ExprContext,
) -> Option<Vec<Option<pg_sys::Datum>>> {
    let mut values = [pg_sys::Datum::null(); pg_sys::INDEX_MAX_KEYS as usize];
    let mut nulls = [false; pg_sys::INDEX_MAX_KEYS as usize];
    // SAFETY: by contract.
    unsafe {
        (*info).ii_ExpressionsState = std::ptr::null_mut();
        let predicate = (*info).ii_Predicate;
        let is_inside = predicate.is_null() || holds(pg_sys::ExecPrepareQual(predicate, estate), econtext);
        if is_inside {
            pg_sys::FormIndexDatum(info, row.slot, estate, values.as_mut_ptr(), nulls.as_mut_ptr());
        }
        (*info).ii_ExpressionsState = std::ptr::null_mut();
        let count = usize::try_from((*info).ii_NumIndexAttrs).unwrap_or(0);
        is_inside.then(|| (0..count).map(|at| (!nulls[at]).then(|| values[at])).collect())
    }
}

/// As the executor's own ExecQual, which is inlined.
///
/// # Safety
/// `qual` must be a prepared qualification, `econtext` a context for it.
pub(super) unsafe fn holds(qual: *mut pg_sys::ExprState, econtext: *mut pg_sys::ExprContext) -> bool {
    let mut is_null = false;
    // SAFETY: by contract. A qualification is never null, but false.
    unsafe {
        let Some(evaluate) = (*qual).evalfunc else { return false };
        pg_sys::ffi::pg_guard_ffi_boundary(|| evaluate(qual, econtext, &mut is_null)).value() & 0xff != 0
    }
}
