//! Entering rows into the indexes of a table, where rows may carry what an index's expressions and predicate gave on their origin.
//!
//! Such an index is opened with a description of our own: a parameter in the place of each expression and of the predicate, set from row to
//! row. PostgreSQL then does as ever, and no function of a user runs. An exclusion constraint of such an index is not checked again: its
//! certification key excludes every other row that came in meanwhile, and the check would evaluate the expressions of the rows that are there.
//!
//! An index for which rows carry nothing (REINDEX CONCURRENTLY makes one of this node) is evaluated here.

use std::rc::Rc;

use gcs_writeset::body::{self, Datum as Wire, PutItem};
use gcs_writeset::wire::Reader;
use pgrx::pg_sys;

use super::datum::DatumError;
use super::list;
use super::names::Oid;
use super::table::{Computed, Table};

/// An index for which rows carry values, as their relation was defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CarriedIndex {
    name: String,
    has_predicate: bool,
    expressions: usize,
}

impl CarriedIndex {
    pub fn of(index: body::Index<'_>) -> CarriedIndex {
        CarriedIndex {
            name: index.name.to_owned(),
            has_predicate: index.has_predicate,
            expressions: index.expressions as usize,
        }
    }

    /// Whether it is this index of ours, or one that is being made anew from it or in its place.
    fn is(&self, own: &Computed) -> bool {
        let is_alike = self.has_predicate == own.has_predicate && self.expressions == own.types().len();
        is_alike && (self.name == own.name || home_name(&self.name) == home_name(&own.name))
    }

    fn datums(&self) -> usize {
        self.expressions + usize::from(self.has_predicate)
    }
}

/// The name without what REINDEX CONCURRENTLY puts behind it for a while.
fn home_name(name: &str) -> &str {
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit());
    name.strip_suffix("_ccnew").or_else(|| name.strip_suffix("_ccold")).unwrap_or(name)
}

/// What a row carries for indexes: the datums as they stand in its image; none if no index here takes them.
pub(super) type Carried = Option<Rc<[u8]>>;

/// What one of the datums is for.
#[derive(Clone, Copy)]
enum Place {
    Predicate,
    /// Of the index at this place of `Table::computed`, the expression at that place.
    Expression(usize, usize),
}

pub(super) struct Entering {
    /// Null if no index takes what rows carry.
    parameters: pg_sys::ParamListInfo,
    /// By datum; none if no index here takes it.
    places: Vec<Option<Place>>,
}

impl Entering {
    /// Opens the indexes of a result relation, as ExecOpenIndices does it. What is made belongs to the current memory context.
    ///
    /// # Safety
    /// `info` must be initialised for the open relation that `table` describes, `estate` be new.
    pub(super) unsafe fn open(
        info: *mut pg_sys::ResultRelInfo,
        estate: *mut pg_sys::EState,
        table: &Table,
        carried: &[CarriedIndex],
    ) -> Entering {
        // SAFETY: by contract; the arrays have room for every index.
        unsafe {
            let indexes = list::oids(pg_sys::RelationGetIndexList((*info).ri_RelationDesc));
            let count = carried.iter().map(CarriedIndex::datums).sum();
            let mut entering = Entering { parameters: std::ptr::null_mut(), places: vec![None; count] };
            if count > 0 {
                entering.parameters = pg_sys::makeParamList(count as i32);
                (*estate).es_param_list_info = entering.parameters;
            }
            if indexes.is_empty() {
                return entering;
            }
            let relations = pg_sys::palloc0(indexes.len() * size_of::<pg_sys::Relation>()).cast::<pg_sys::Relation>();
            let infos =
                pg_sys::palloc0(indexes.len() * size_of::<*mut pg_sys::IndexInfo>()).cast::<*mut pg_sys::IndexInfo>();
            (*info).ri_NumIndices = indexes.len() as i32;
            (*info).ri_IndexRelationDescs = relations;
            (*info).ri_IndexRelationInfo = infos;
            for (at, &index) in indexes.iter().enumerate() {
                let relation = pg_sys::index_open(index, pg_sys::RowExclusiveLock as i32);
                *relations.add(at) = relation;
                *infos.add(at) = match entering.find(table, carried, index) {
                    Some((own, first)) => entering.with_parameters(relation, table, own, first),
                    None => pg_sys::BuildIndexInfo(relation),
                };
            }
            entering
        }
    }

    /// The place of this index in `Table::computed`, and the first datum that is for it.
    fn find(&self, table: &Table, carried: &[CarriedIndex], index: Oid) -> Option<(usize, usize)> {
        let own = table.computed.iter().position(|own| own.index == index)?;
        let exact = carried.iter().position(|carried| carried.name == table.computed[own].name);
        let at = exact.filter(|&at| carried[at].is(&table.computed[own]));
        let at = at.or_else(|| carried.iter().position(|carried| carried.is(&table.computed[own])))?;
        Some((own, carried[..at].iter().map(CarriedIndex::datums).sum()))
    }

    /// # Safety
    /// `relation` must be the open index at `own` of `table.computed`.
    unsafe fn with_parameters(
        &mut self,
        relation: pg_sys::Relation,
        table: &Table,
        own: usize,
        first: usize,
    ) -> *mut pg_sys::IndexInfo {
        let computed = &table.computed[own];
        let mut next = first;
        // SAFETY: by contract; makes nodes in the current memory context.
        unsafe {
            let info = pg_sys::BuildDummyIndexInfo(relation);
            if computed.has_predicate {
                self.places[next] = Some(Place::Predicate);
                (*info).ii_Predicate = pg_sys::lappend(std::ptr::null_mut(), self.parameter(next, pg_sys::BOOLOID).cast());
                next += 1;
            }
            (*info).ii_Expressions = std::ptr::null_mut();
            for (expression, (_, typid)) in computed.types().iter().enumerate() {
                self.places[next] = Some(Place::Expression(own, expression));
                (*info).ii_Expressions = pg_sys::lappend((*info).ii_Expressions, self.parameter(next, *typid).cast());
                next += 1;
            }
            info
        }
    }

    /// A node that stands for the datum at this place.
    unsafe fn parameter(&mut self, at: usize, typid: Oid) -> *mut pg_sys::Param {
        // SAFETY: the list has a parameter for each datum; a node is plain memory with a tag.
        unsafe {
            let external = &mut *(*self.parameters).params.as_mut_ptr().add(at);
            external.ptype = typid;
            external.isnull = true;
            let node = pg_sys::palloc0(size_of::<pg_sys::Param>()).cast::<pg_sys::Param>();
            (*node).xpr.type_ = pg_sys::NodeTag::T_Param;
            (*node).paramkind = pg_sys::ParamKind::PARAM_EXTERN;
            (*node).paramid = at as i32 + 1;
            (*node).paramtype = typid;
            (*node).paramtypmod = -1;
            node
        }
    }

    /// Sets what a row carries; the values belong to the current memory context. Gives the datums, to be set again later.
    pub(super) fn take<'a>(&mut self, table: &Table, datums: impl Iterator<Item = Wire<'a>>) -> Result<Carried, DatumError> {
        if self.parameters.is_null() {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        datums.for_each(|datum| bytes.put_datum(datum));
        let carried: Rc<[u8]> = bytes.into();
        self.set(table, &carried)?;
        Ok(Some(carried))
    }

    /// Sets what a row carried before.
    pub(super) fn set(&mut self, table: &Table, carried: &[u8]) -> Result<(), DatumError> {
        if self.parameters.is_null() {
            return Ok(());
        }
        let mut reader = Reader::new(carried);
        for (at, place) in self.places.iter().enumerate() {
            let wire = body::read_datum(&mut reader)?;
            let value = match place {
                None => None,
                Some(Place::Predicate) => Some(pg_sys::Datum::from(wire == Wire::Physical(&[1]))),
                Some(Place::Expression(own, expression)) => table.computed[*own].types()[*expression].0.take(wire)?,
            };
            // SAFETY: the list has a parameter for each datum.
            unsafe {
                let external = &mut *(*self.parameters).params.as_mut_ptr().add(at);
                external.isnull = value.is_none();
                external.value = value.unwrap_or(pg_sys::Datum::null());
            }
        }
        Ok(())
    }
}
