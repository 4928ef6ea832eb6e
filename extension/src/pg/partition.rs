//! The bounds of partitions: expressions that the statement evaluates once, and what came out of them.

use std::ffi::{CStr, CString};

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::list;
use super::names::{Oid, owned};

/// A table as a statement names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name {
    schema: Option<CString>,
    name: CString,
}

/// Where in a parse tree there is a bound, if there is one: the partition, and the place of the bound.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
unsafe fn place(node: *mut pg_sys::Node) -> Option<(*mut pg_sys::RangeVar, *mut *mut pg_sys::PartitionBoundSpec)> {
    // SAFETY: each tag says what the node is; the kind of a command says what its definition is.
    unsafe {
        match (*node).type_ {
            // The statement of a foreign table begins with that of a table.
            Tag::T_CreateStmt | Tag::T_CreateForeignTableStmt => {
                let statement = &mut *node.cast::<pg_sys::CreateStmt>();
                (!statement.partbound.is_null()).then_some((statement.relation, &raw mut statement.partbound))
            }
            Tag::T_AlterTableStmt => {
                let commands = list::pointers::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds);
                let attach = commands
                    .into_iter()
                    .find(|&command| (*command).subtype == pg_sys::AlterTableType::AT_AttachPartition)?;
                let partition = &mut *(*attach).def.cast::<pg_sys::PartitionCmd>();
                (!partition.bound.is_null()).then_some((partition.name, &raw mut partition.bound))
            }
            _ => None,
        }
    }
}

/// The partition that a statement gives a bound.
///
/// # Safety
/// As for [`place`].
pub(super) unsafe fn bounded(node: *mut pg_sys::Node) -> Option<Name> {
    // SAFETY: by contract; names in a parse tree are null or C strings.
    unsafe {
        let (partition, _) = place(node)?;
        let owned = |name: *mut std::ffi::c_char| (!name.is_null()).then(|| CStr::from_ptr(name).to_owned());
        Some(Name { schema: owned((*partition).schemaname), name: owned((*partition).relname)? })
    }
}

/// Puts this bound in the place of the statement's own, if it has one.
///
/// # Safety
/// As for [`place`]; the tree must be a private copy.
pub(super) unsafe fn bind(node: *mut pg_sys::Node, bound: &str) {
    let Ok(text) = CString::new(format!("CREATE TABLE partition PARTITION OF parent {bound}")) else { return };
    // SAFETY: by contract; the text is PostgreSQL's own, after a statement's beginning.
    unsafe {
        let Some((_, place)) = place(node) else { return };
        let parsed =
            list::pointers::<pg_sys::RawStmt>(pg_sys::raw_parser(text.as_ptr(), pg_sys::RawParseMode::RAW_PARSE_DEFAULT));
        if let Some(&statement) = parsed.first() {
            *place = (*(*statement).stmt.cast::<pg_sys::CreateStmt>()).partbound;
        }
    }
}

/// The bound of a partition as the catalogs have it, in constants: `FOR VALUES FROM ('1') TO ('7')`.
pub fn bound(partition: &Name, find: impl Fn(*mut pg_sys::RangeVar) -> Option<Oid>) -> Option<String> {
    let copy = |name: &CStr| {
        // SAFETY: a palloc'd copy of a C string.
        unsafe { pg_sys::pstrdup(name.as_ptr()) }
    };
    // SAFETY: a syscache look-up, its tuple released after the value was read; pg_get_expr gives a text.
    unsafe {
        let schema = partition.schema.as_deref().map_or(std::ptr::null_mut(), copy);
        let relation = find(pg_sys::makeRangeVar(schema, copy(&partition.name), -1))?;
        let cache = pg_sys::SysCacheIdentifier::RELOID as i32;
        let tuple = pg_sys::SearchSysCache1(cache, pg_sys::Datum::from(relation));
        if tuple.is_null() {
            return None;
        }
        let mut is_null = true;
        let bound = pg_sys::SysCacheGetAttr(cache, tuple, pg_sys::Anum_pg_class_relpartbound as i16, &mut is_null);
        let text = (!is_null).then(|| {
            let function = pg_sys::F_PG_GET_EXPR_PG_NODE_TREE_OID;
            let text = pg_sys::OidFunctionCall2Coll(function, pg_sys::InvalidOid, bound, pg_sys::Datum::from(relation));
            pg_sys::text_to_cstring(text.cast_mut_ptr())
        });
        pg_sys::ReleaseSysCache(tuple);
        owned(text?)
    }
}
