//! Foreign keys: which key of the parent a row refers to, hashed as the parent's own index hashes it.

use gcs_writeset::key::{mix, name_hash};
use pgrx::pg_sys;

use super::hasher::{FIRST, Hasher, function, is_integer, stored_type};
use super::index::{IndexKey, KeyNames};
use super::majors::relation::attributes;
use super::majors::relation::constraint::CONINDID;
use super::memory::Context;
use super::names::{Oid, qualified_name};
use super::row::Row;

/// Keys cannot be told apart: the values can't be turned into the parent's type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coarse;

/// A foreign key of a table: a row of the table needs the parent's row that it refers to.
pub struct ForeignKey {
    /// As [`super::index::Index::key_name`] of the parent's index.
    pub key_name: u64,
    /// Hash of the parent's names.
    pub parent_name: u64,
    pub depends_on: Vec<Oid>,
    /// The referencing columns in the order of the parent's index, as indexes among all attributes.
    pub attributes: Vec<usize>,
    /// For each, the cast to the type of the parent's column, if one is needed, and how the result is hashed. None where there is
    /// no such cast of one argument.
    columns: Option<Vec<(Option<Box<pg_sys::FmgrInfo>>, Hasher)>>,
}

impl ForeignKey {
    pub(super) fn describe(
        key: &pg_sys::ForeignKeyCacheInfo,
        child: pg_sys::Relation,
        context: &Context,
    ) -> Option<ForeignKey> {
        // SAFETY: the constraint's index exists as long as the constraint, which the locked child keeps.
        unsafe {
            let oid = referenced_index(key.conoid)?;
            let index = pg_sys::index_open(oid, pg_sys::AccessShareLock as i32);
            let form = &*(*index).rd_index;
            let columns: Option<Vec<_>> = (0..form.indnkeyatts as usize)
                .map(|at| {
                    let parent_attribute = form.indkey.values.as_slice(form.indnkeyatts as usize)[at];
                    let position = (0..key.nkeys as usize).find(|&i| key.confkey[i] == parent_attribute)?;
                    let child_attribute = key.conkey[position] as usize - 1;
                    let hasher = Hasher::for_index_column(index, at, context);
                    Some((child_attribute, hasher, stored_type(index, at)))
                })
                .collect();
            pg_sys::index_close(index, pg_sys::NoLock as i32);
            let columns = columns?;
            let descriptor = (*child).rd_att;
            let types = attributes(descriptor);
            let attributes = columns.iter().map(|&(attribute, ..)| attribute).collect();
            let columns = columns
                .into_iter()
                .map(|(attribute, hasher, target)| {
                    let (target, source) = (pg_sys::getBaseType(target), pg_sys::getBaseType(types[attribute].atttypid));
                    match (&hasher, cast(source, target, context)) {
                        (Hasher::Integer(_), _) if is_integer(source) && is_integer(target) => {
                            Some((None, Hasher::Integer(types[attribute].attlen)))
                        }
                        (Hasher::Coarse, _) => Some((None, hasher)),
                        (_, Cast::None) => Some((None, hasher)),
                        (_, Cast::Function(function)) => Some((Some(function), hasher)),
                        (_, Cast::Impossible) => None,
                    }
                })
                .collect();
            let (schema, name) = qualified_name(key.confrelid)?;
            let KeyNames { hash: key_name, mut depends_on } = KeyNames::of_index(oid);
            depends_on.push(key.confrelid);
            Some(ForeignKey { key_name, parent_name: name_hash(&[&schema, &name]), depends_on, attributes, columns })
        }
    }

    /// The key that the row refers to; an error where the keys of this foreign key can't be told apart.
    pub fn key(&self, row: Row<'_>) -> Result<IndexKey, Coarse> {
        let mut hash = FIRST;
        let columns = self.columns.as_ref().ok_or(Coarse)?;
        for (attribute, (cast, hasher)) in self.attributes.iter().zip(columns) {
            let Some(mut datum) = row.get(*attribute) else { return Ok(IndexKey::None) };
            if let Some(function) = cast {
                // SAFETY: a cast function of one argument, given a value of its argument type.
                datum = unsafe {
                    let function = std::ptr::from_ref(&**function).cast_mut();
                    pg_sys::FunctionCall1Coll(function, pg_sys::InvalidOid, datum)
                };
            }
            match hasher.hash(datum) {
                Some(value) => hash = mix(hash ^ value),
                None => return Ok(IndexKey::Hash(0)),
            }
        }
        Ok(IndexKey::Hash(hash))
    }

    /// Whether an update leaves the reference as it is, byte for byte.
    pub fn is_unchanged(&self, old: Row<'_>, new: Row<'_>) -> bool {
        self.attributes.iter().all(|&attribute| old.has_same_bytes(new, attribute))
    }
}

/// The parent's index that a foreign key refers to. (`get_constraint_index` gives the index that a constraint itself has made.)
fn referenced_index(constraint: Oid) -> Option<Oid> {
    // SAFETY: a syscache look-up, its tuple released after what is needed was copied.
    unsafe {
        let cache = pg_sys::SysCacheIdentifier::CONSTROID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(constraint));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = false;
        let index = pg_sys::SysCacheGetAttr(cache, tuple, CONINDID, &mut is_null).value() as u32;
        pg_sys::ReleaseSysCache(tuple);
        (!is_null && index != 0).then(|| Oid::from(index))
    }
}

enum Cast {
    None,
    Function(Box<pg_sys::FmgrInfo>),
    Impossible,
}

fn cast(source: Oid, target: Oid, context: &Context) -> Cast {
    if source == target {
        return Cast::None;
    }
    let mut oid = pg_sys::InvalidOid;
    // SAFETY: catalog look-ups.
    unsafe {
        let path = pg_sys::find_coercion_pathway(target, source, pg_sys::CoercionContext::COERCION_IMPLICIT, &mut oid);
        match path {
            pg_sys::CoercionPathType::COERCION_PATH_RELABELTYPE => Cast::None,
            pg_sys::CoercionPathType::COERCION_PATH_FUNC if pg_sys::get_func_nargs(oid) == 1 => {
                Cast::Function(function(oid, context))
            }
            _ => Cast::Impossible,
        }
    }
}
