//! The tables that a utility statement will have for itself, so that nobody else changes their rows: as far as can be told before it runs.
//!
//! In two steps, as the statement takes its locks: the tables that it is about, then those that are bound to them by foreign keys that it makes or drops. What else
//! there may be (the objects that depend on what is dropped, say) PostgreSQL finds on its way.

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::list;
use super::named::find;
use super::names::Oid;
use super::upkeep;

#[derive(Debug, Default)]
pub struct Tables {
    /// Relations: an index stands for its table.
    pub own: Vec<Oid>,
    pub bound: Vec<Oid>,
    /// Of its own tables the statement's lock leaves those in who lock rows, and others who do the same; and of those that are bound.
    pub shares: bool,
    pub shares_bound: bool,
    /// It does not want to wait (LOCK TABLE ... NOWAIT).
    pub waits: bool,
}

/// # Safety
/// `node` must be the parse tree of a utility statement, and `targets` what [`super::statement::classify`] has found in it.
pub(super) unsafe fn of(node: *mut pg_sys::Node, targets: &[Oid]) -> Tables {
    let mut tables = Tables { own: targets.to_vec(), waits: true, ..Tables::default() };
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_DropStmt if (*node.cast::<pg_sys::DropStmt>()).concurrent => {}
            Tag::T_DropStmt => {
                let statement = &*node.cast::<pg_sys::DropStmt>();
                tables.own.extend(dropped(statement));
                if statement.removeType == ObjectType::OBJECT_TABLE {
                    tables.bound.extend(tables.own.iter().flat_map(|table| parents(*table)));
                    if statement.behavior == pg_sys::DropBehavior::DROP_CASCADE {
                        tables.bound.extend(referring(&tables.own));
                    }
                }
            }
            Tag::T_TruncateStmt if (*node.cast::<pg_sys::TruncateStmt>()).behavior == pg_sys::DropBehavior::DROP_CASCADE => {
                tables.bound.extend(referring(&tables.own));
            }
            _ if lets_writers_go_on(node) => tables.own.clear(),
            // Its writers go on.
            Tag::T_IndexStmt if (*node.cast::<pg_sys::IndexStmt>()).concurrent => tables.own.clear(),
            Tag::T_ReindexStmt if upkeep::is_concurrent(&*node.cast()) => tables.own.clear(),
            // Nobody who has read a materialized view goes on to change its rows.
            Tag::T_IndexStmt | Tag::T_CreateTrigStmt | Tag::T_RefreshMatViewStmt => tables.shares = true,
            Tag::T_LockStmt => {
                let statement = &*node.cast::<pg_sys::LockStmt>();
                tables.shares = statement.mode < pg_sys::ExclusiveLock as i32;
                tables.waits = !statement.nowait;
            }
            Tag::T_CreateStmt | Tag::T_CreateForeignTableStmt => {
                let statement = &*node.cast::<pg_sys::CreateStmt>();
                // One that is there already is left alone, and what it would refer to.
                let is_there = statement.if_not_exists && find(statement.relation).is_some();
                if !is_there && (*statement.relation).relpersistence as u8 != pg_sys::RELPERSISTENCE_TEMP {
                    tables.bound.extend(referenced_by(list::pointers(statement.tableElts)));
                }
                tables.shares_bound = true;
            }
            Tag::T_AlterTableStmt if super::detach::concurrent(node).is_some() => tables.own.clear(),
            Tag::T_AlterTableStmt => {
                let commands = list::pointers::<pg_sys::AlterTableCmd>((*node.cast::<pg_sys::AlterTableStmt>()).cmds);
                tables.shares = commands.iter().all(|&command| adds_foreign_key(command));
                tables.shares_bound = true;
                for command in commands {
                    use pg_sys::AlterTableType as Kind;
                    match (*command).subtype {
                        Kind::AT_AddConstraint | Kind::AT_AddColumn => {
                            tables.bound.extend(referenced_by(vec![(*command).def]));
                        }
                        Kind::AT_DropConstraint | Kind::AT_DropColumn => {
                            tables.bound.extend(tables.own.iter().flat_map(|table| parents(*table)));
                            tables.shares_bound = false;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    tables
}

/// Whether PostgreSQL's lock lets others change rows of the statement's tables meanwhile, and nothing of what it does has to do with what they change: privileges, statistics, VALIDATE CONSTRAINT,
/// SET (fillfactor = ...) and the like. What is attached or detached as a partition has.
///
/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn lets_writers_go_on(node: *mut pg_sys::Node) -> bool {
    use pg_sys::AlterTableType as Kind;
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_GrantStmt | Tag::T_CreateStatsStmt => true,
            Tag::T_AlterTableStmt => {
                let commands = (*node.cast::<pg_sys::AlterTableStmt>()).cmds;
                let binds = |command: *mut pg_sys::AlterTableCmd| {
                    let kind = (*command).subtype;
                    matches!(kind, Kind::AT_AttachPartition | Kind::AT_DetachPartition | Kind::AT_DetachPartitionFinalize)
                };
                !list::pointers(commands).into_iter().any(binds)
                    && pg_sys::AlterTableGetLockLevel(commands) <= pg_sys::ShareUpdateExclusiveLock as i32
            }
            _ => false,
        }
    }
}

/// # Safety
/// As [`of`].
unsafe fn dropped(statement: &pg_sys::DropStmt) -> Vec<Oid> {
    use ObjectType as O;
    // How many parts of a name follow that of the table.
    let behind = match statement.removeType {
        O::OBJECT_TABLE | O::OBJECT_MATVIEW | O::OBJECT_INDEX => 0,
        O::OBJECT_TRIGGER | O::OBJECT_POLICY | O::OBJECT_RULE => 1,
        _ => return Vec::new(),
    };
    // SAFETY: of a parse tree: lists of the parts of names.
    unsafe {
        let names = list::pointers::<pg_sys::List>(statement.objects).into_iter();
        let tables = names.filter_map(|name| {
            let parts = (*name).length - behind;
            (parts > 0).then(|| pg_sys::list_truncate(pg_sys::list_copy(name), parts))
        });
        tables.filter_map(|name| find(pg_sys::makeRangeVarFromNameList(name))).collect()
    }
}

/// # Safety
/// Must be a command of a parse tree's ALTER TABLE.
unsafe fn adds_foreign_key(command: *mut pg_sys::AlterTableCmd) -> bool {
    // SAFETY: by contract; what is added is a constraint.
    unsafe {
        (*command).subtype == pg_sys::AlterTableType::AT_AddConstraint
            && (*(*command).def).type_ == Tag::T_Constraint
            && (*(*command).def.cast::<pg_sys::Constraint>()).contype == pg_sys::ConstrType::CONSTR_FOREIGN
    }
}

/// The tables that foreign keys among these definitions refer to.
///
/// # Safety
/// Must be definitions of columns and constraints, as a parse tree has them, or null.
unsafe fn referenced_by(definitions: Vec<*mut pg_sys::Node>) -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: by contract; the tag says what a node is.
    unsafe {
        for node in definitions.into_iter().filter(|node| !node.is_null()) {
            match (*node).type_ {
                Tag::T_ColumnDef => {
                    found.extend(referenced_by(list::pointers((*node.cast::<pg_sys::ColumnDef>()).constraints)));
                }
                Tag::T_Constraint => found.extend(find((*node.cast::<pg_sys::Constraint>()).pktable)),
                _ => {}
            }
        }
    }
    found
}

/// The tables that a table's foreign keys refer to. Keeps no lock.
pub fn parents(table: Oid) -> Vec<Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    // SAFETY: what was opened is closed; the list is read before.
    unsafe {
        let relation = pg_sys::try_relation_open(table, lock);
        if relation.is_null() {
            return Vec::new();
        }
        let keys = list::pointers::<pg_sys::ForeignKeyCacheInfo>(pg_sys::RelationGetFKeyList(relation));
        let parents = keys.into_iter().map(|key| (*key).confrelid).collect();
        pg_sys::relation_close(relation, lock);
        parents
    }
}

/// The tables whose foreign keys refer to one of these, or to one of those that are found.
fn referring(tables: &[Oid]) -> Vec<Oid> {
    let mut found: Vec<Oid> = tables.to_vec();
    loop {
        let more = children(&found);
        if more.is_empty() {
            return found.split_off(tables.len());
        }
        found.extend(more);
    }
}

/// The tables whose foreign keys refer to one of these, without these themselves.
pub fn children(tables: &[Oid]) -> Vec<Oid> {
    // SAFETY: a scan of a catalog; the lists are palloc'd.
    unsafe {
        let oids = tables.iter().fold(std::ptr::null_mut(), |oids, &oid| pg_sys::lappend_oid(oids, oid));
        list::oids(pg_sys::heap_truncate_find_FKs(oids))
    }
}
