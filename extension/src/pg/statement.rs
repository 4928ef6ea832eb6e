//! What kind of utility statement a parse tree is: of this node alone, ordered in the group, or refused.
//!
//! Whatever is not named here is refused: a new kind of statement must be thought about before it is let through.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::alter::{self, Evaluated};
use super::any_object::{about, alter_schema, drop, grant, rename};
pub use super::class::{Class, Fills, Ordered, Refusal, TableLock};
use super::class::{NOT_YET, refused};
use super::kinds::{is_local, is_plain_definition};
use super::list;
use super::named::{find, find_all, is_temporary, is_view};
use super::names::{Oid, quoted};
use super::privilege;
use super::relation::{Persistence, RelationKind};
use super::{
    about_tables, dependency, encoding, extension, foreign, global, lifetimes, partition, relation, setting, subscription,
    table_method, tablespace, two_phase, upkeep,
};

const OTHER_METHOD: &str = "a table with an access method other than heap";
const OURS: &str = "It is what replicates this database. Stop its replication first.";

/// The statement's name as in a command tag, such as `CREATE TABLE`.
///
/// # Safety
/// `node` must be a parse tree.
pub(super) unsafe fn command_tag(node: *mut pg_sys::Node) -> String {
    // SAFETY: by contract; tag names are static strings.
    unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(node))).to_string_lossy().into_owned() }
}

/// Whether a statement ends the transaction block: COMMIT or ROLLBACK by any of their names, AND CHAIN or not; PREPARE TRANSACTION.
///
/// # Safety
/// `node` must be null or a parse tree.
pub(super) unsafe fn ends_block(node: *const pg_sys::Node) -> bool {
    // SAFETY: by contract; the tag says what the node is.
    unsafe {
        !node.is_null()
            && (*node).type_ == Tag::T_TransactionStmt
            && matches!(
                (*node.cast::<pg_sys::TransactionStmt>()).kind,
                pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT
                    | pg_sys::TransactionStmtKind::TRANS_STMT_ROLLBACK
                    | pg_sys::TransactionStmtKind::TRANS_STMT_PREPARE
            )
    }
}

/// # Safety
/// `node` must be the parse tree of a utility statement.
unsafe fn classify_any(node: *mut pg_sys::Node) -> Class {
    let refuse = |hint| {
        // SAFETY: by contract.
        Class::Refused(Refusal { what: unsafe { command_tag(node) }, hint })
    };
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            Tag::T_TransactionStmt => two_phase::statement(&*node.cast()).map_or(Class::Local, Class::TwoPhase),
            Tag::T_VariableSetStmt if imports_snapshot(&*node.cast()) => Class::ImportSnapshot,
            _ if let Some(met) = upkeep::of(node, find) => of_upkeep(met),
            tag if is_local(tag) || tablespace::is_about(tag) => Class::Local,
            Tag::T_NotifyStmt => Class::Notify,
            // Which index a table is clustered on is the group's, the order of rows in the file is not.
            Tag::T_ClusterStmt if (*node.cast::<pg_sys::ClusterStmt>()).indexname.is_null() => Class::Local,
            Tag::T_ClusterStmt => cluster(&*node.cast()),
            Tag::T_LockStmt => lock(&*node.cast()),
            Tag::T_CopyStmt => copy(&*node.cast()),
            Tag::T_ExplainStmt => explain(&*node.cast()),
            Tag::T_CreateTableAsStmt => create_table_as(&*node.cast()),
            Tag::T_RefreshMatViewStmt => refresh(&*node.cast()),
            // An option that PostgreSQL does not know: its own error is the right one, and STOP REPLICATION is taken from there.
            Tag::T_AlterDatabaseStmt if !only_known_options(&*node.cast()) => Class::Local,
            _ if let Some(global) = global::of(node) => about_global(node, global),
            tag if global::is_about_databases(tag) => Class::Local,
            Tag::T_CreateExtensionStmt if extension::is_there_already(&*node.cast()) => Class::Local,
            Tag::T_CommentStmt if extension::says_what_is_said(&*node.cast()) => Class::Local,
            _ if extension::alters_ours(node) => refuse(OURS),
            _ if let Some((what, hint)) = subscription::refusal(node) => refused(what, hint),
            tag if let Some(travels_as) = subscription::elsewhere(node) => {
                let needs_object = tag == Tag::T_DropSubscriptionStmt;
                Class::Ordered(Ordered { needs_object, travels_as: Some(travels_as), ..Ordered::default() })
            }
            _ => classify_definition(node).unwrap_or_else(refuse),
        }
    }
}

/// # Safety
/// As [`classify_any`].
pub(super) unsafe fn classify(node: *mut pg_sys::Node) -> Class {
    // SAFETY: by contract; each tag says what the node is.
    unsafe {
        let relation = match (*node).type_ {
            Tag::T_AlterTableStmt => (*node.cast::<pg_sys::AlterTableStmt>()).relation,
            Tag::T_ClusterStmt => (*node.cast::<pg_sys::ClusterStmt>()).relation,
            Tag::T_IndexStmt => (*node.cast::<pg_sys::IndexStmt>()).relation,
            _ => std::ptr::null_mut(),
        };
        match (classify_any(node), find(relation)) {
            // What is refused of permanent tables is nobody else's business here.
            (Class::Refused(_), Some(target)) if is_temporary(target) => {
                Class::Ordered(Ordered { targets: vec![target], ..Ordered::default() })
            }
            (Class::Ordered(ordered), _) => {
                let names_permanent = lifetimes::names_permanent(node, &ordered.targets) || ordered.travels_as.is_some();
                let lets_writers_go_on = about_tables::lets_writers_go_on(node);
                Class::Ordered(Ordered { names_permanent, lets_writers_go_on, ..ordered })
            }
            (class, _) => class,
        }
    }
}

/// Whether a statement that is of this node alone is about what the server has: tablespaces, databases.
///
/// # Safety
/// As [`classify`].
pub(super) unsafe fn is_of_server(node: *mut pg_sys::Node) -> bool {
    // SAFETY: by contract; each tag says what the node is.
    let kind = unsafe {
        match (*node).type_ {
            tag if tablespace::is_about(tag) || global::is_about_databases(tag) => return true,
            Tag::T_RenameStmt => (*node.cast::<pg_sys::RenameStmt>()).renameType,
            Tag::T_AlterOwnerStmt => (*node.cast::<pg_sys::AlterOwnerStmt>()).objectType,
            Tag::T_CommentStmt => (*node.cast::<pg_sys::CommentStmt>()).objtype,
            Tag::T_SecLabelStmt => (*node.cast::<pg_sys::SecLabelStmt>()).objtype,
            Tag::T_GrantStmt => (*node.cast::<pg_sys::GrantStmt>()).objtype,
            _ => return false,
        }
    };
    matches!(kind, ObjectType::OBJECT_TABLESPACE | ObjectType::OBJECT_DATABASE)
}

/// DDL: ordered, or refused with this hint.
///
/// # Safety
/// As [`classify`].
unsafe fn classify_definition(node: *mut pg_sys::Node) -> Result<Class, &'static str> {
    // SAFETY: each tag says what the node is.
    unsafe {
        Ok(match (*node).type_ {
            Tag::T_CreateStmt => create_table(&*node.cast()),
            Tag::T_AlterTableStmt => alter_table(&*node.cast()),
            Tag::T_IndexStmt => create_index(&*node.cast()),
            Tag::T_DropStmt => drop(&*node.cast())?,
            Tag::T_TruncateStmt => truncate(&*node.cast()),
            Tag::T_RenameStmt => rename(&*node.cast())?,
            Tag::T_AlterOwnerStmt => about((*node.cast::<pg_sys::AlterOwnerStmt>()).objectType)?,
            Tag::T_AlterObjectSchemaStmt => alter_schema(&*node.cast())?,
            Tag::T_CommentStmt => about((*node.cast::<pg_sys::CommentStmt>()).objtype)?,
            Tag::T_GrantStmt => grant(&*node.cast())?,
            Tag::T_ViewStmt => Class::Ordered(Ordered::default()),
            Tag::T_CreateSeqStmt => Class::Ordered(Ordered { needs_relation: true, ..Ordered::default() }),
            Tag::T_AlterSeqStmt => ordered([(*node.cast::<pg_sys::AlterSeqStmt>()).sequence]),
            Tag::T_CreateTrigStmt => {
                let statement = &*node.cast::<pg_sys::CreateTrigStmt>();
                ordered([statement.relation, statement.constrrel])
            }
            Tag::T_RuleStmt => ordered([(*node.cast::<pg_sys::RuleStmt>()).relation]),
            Tag::T_CreatePolicyStmt => ordered([(*node.cast::<pg_sys::CreatePolicyStmt>()).table]),
            Tag::T_AlterPolicyStmt => ordered([(*node.cast::<pg_sys::AlterPolicyStmt>()).table]),
            Tag::T_CreateFunctionStmt => function((*node.cast::<pg_sys::CreateFunctionStmt>()).options),
            Tag::T_AlterFunctionStmt => function((*node.cast::<pg_sys::AlterFunctionStmt>()).actions),
            // An update to the version that is there does nothing.
            Tag::T_CreateExtensionStmt | Tag::T_AlterExtensionStmt => {
                Class::Ordered(Ordered { runs_script: true, needs_object: true, ..Ordered::default() })
            }
            Tag::T_DropOwnedStmt | Tag::T_ReassignOwnedStmt => {
                Class::Ordered(Ordered { of_owners: true, ..Ordered::default() })
            }
            tag if is_plain_definition(tag) => Class::Ordered(Ordered::default()),
            Tag::T_DropUserMappingStmt | Tag::T_DropSubscriptionStmt => {
                Class::Ordered(Ordered { needs_object: true, ..Ordered::default() })
            }
            Tag::T_SecLabelStmt => about((*node.cast::<pg_sys::SecLabelStmt>()).objtype)?,
            Tag::T_CreateForeignTableStmt => create_table(&(*node.cast::<pg_sys::CreateForeignTableStmt>()).base),
            Tag::T_AlterEnumStmt | Tag::T_AlterDomainStmt | Tag::T_AlterTypeStmt => {
                Class::Ordered(Ordered { changes_types: true, ..Ordered::default() })
            }
            _ => return Err(NOT_YET),
        })
    }
}

fn of_upkeep(met: upkeep::Upkeep) -> Class {
    match met {
        upkeep::Upkeep::OnAllNodes(table) => Class::Ordered(Ordered { targets: vec![table], ..Ordered::default() }),
        upkeep::Upkeep::Concurrently(table) => {
            Class::Ordered(Ordered { targets: vec![table], concurrently: true, ..Ordered::default() })
        }
        upkeep::Upkeep::Refused { what, hint } => refused(&what, hint),
    }
}

/// CREATE or ALTER FUNCTION with these options.
unsafe fn function(options: *mut pg_sys::List) -> Class {
    // SAFETY: a parse tree's list of DefElem, each with a name; the argument of SET is a VariableSetStmt.
    unsafe {
        let options = list::pointers::<pg_sys::DefElem>(options).into_iter();
        let mut sets = options.filter(|&option| CStr::from_ptr((*option).defname) == c"set");
        sets.find_map(|set| from_current((*set).arg.cast())).unwrap_or_else(|| Class::Ordered(Ordered::default()))
    }
}

/// Refuses SET ... FROM CURRENT of what each process has its own value of.
unsafe fn from_current(set: *const pg_sys::VariableSetStmt) -> Option<Class> {
    // SAFETY: null or of a parse tree, where the name is null in some forms.
    unsafe {
        if set.is_null() || (*set).kind != pg_sys::VariableSetKind::VAR_SET_CURRENT || (*set).name.is_null() {
            return None;
        }
        let name = CStr::from_ptr((*set).name);
        (setting::reach(name) == setting::Reach::Process).then(|| {
            let what = format!("SET {} FROM CURRENT", name.to_string_lossy());
            refused(&what, "Each node has its own value of it. Write SET ... TO the value.")
        })
    }
}

/// Statements about roles, and about this database.
unsafe fn about_global(node: *mut pg_sys::Node, global: global::Global) -> Class {
    // SAFETY: of a parse tree.
    let (refused, travels_as) = unsafe { (from_current(global::set_by(node)), global::without_password(node)) };
    refused.unwrap_or_else(|| {
        // SAFETY: as above.
        let needs_object = unsafe { (*node).type_ } == Tag::T_DropRoleStmt;
        let has_password = travels_as.is_some();
        Class::Ordered(Ordered { global: Some(global), has_password, needs_object, travels_as, ..Ordered::default() })
    })
}

unsafe fn only_known_options(statement: &pg_sys::AlterDatabaseStmt) -> bool {
    const KNOWN: [&CStr; 4] = [c"is_template", c"allow_connections", c"connection_limit", c"tablespace"];
    // SAFETY: a parse tree's list of DefElem, each with a name.
    unsafe {
        list::pointers::<pg_sys::DefElem>(statement.options)
            .into_iter()
            .all(|option| KNOWN.contains(&CStr::from_ptr((*option).defname)))
    }
}

/// # Safety
/// Each must be null or a parse tree's RangeVar.
unsafe fn ordered<const N: usize>(relations: [*mut pg_sys::RangeVar; N]) -> Class {
    // SAFETY: by contract.
    let targets = relations.into_iter().filter_map(|relation| unsafe { find(relation) }).collect();
    Class::Ordered(Ordered { targets, ..Ordered::default() })
}

/// Of a view, the tables that it shows.
unsafe fn lock(statement: &pg_sys::LockStmt) -> Class {
    let mode = match statement.mode as u32 {
        pg_sys::AccessShareLock | pg_sys::RowShareLock | pg_sys::RowExclusiveLock => TableLock::AsARow,
        pg_sys::ShareUpdateExclusiveLock => TableLock::AgainstItself,
        _ => TableLock::AgainstWriters,
    };
    // SAFETY: of a parse tree.
    let named = unsafe { list::pointers::<pg_sys::RangeVar>(statement.relations) };
    let relations = named.into_iter().flat_map(|name| {
        // SAFETY: as above.
        let (found, with_children) = unsafe { (find(name), (*name).inh) };
        let shown = found.into_iter().flat_map(|oid| if is_view(oid) { dependency::shown_by(oid) } else { vec![oid] });
        let below = shown.flat_map(move |oid| if with_children { relation::with_children(oid) } else { vec![oid] });
        below.filter(|&oid| !is_view(oid))
    });
    Class::Lock(relations.collect(), mode)
}

/// SET TRANSACTION SNAPSHOT.
unsafe fn imports_snapshot(statement: &pg_sys::VariableSetStmt) -> bool {
    // SAFETY: of a parse tree, where names are C strings.
    statement.kind == pg_sys::VariableSetKind::VAR_SET_MULTI
        && unsafe { CStr::from_ptr(statement.name) } == c"TRANSACTION SNAPSHOT"
}

unsafe fn copy(statement: &pg_sys::CopyStmt) -> Class {
    // SAFETY: of a parse tree.
    match unsafe { find(statement.relation) } {
        Some(relation) if statement.is_from => Class::CopyIn(relation),
        Some(relation) => Class::CopyOut(relation),
        _ => Class::Local,
    }
}

/// With ANALYZE, CREATE TABLE AS and CREATE MATERIALIZED VIEW are run.
unsafe fn explain(statement: &pg_sys::ExplainStmt) -> Class {
    // SAFETY: a parse tree's, after its analysis.
    unsafe {
        match explained(statement) {
            Some(made) if executes(statement) => create_table_as(&*made),
            _ => Class::Local,
        }
    }
}

/// The CREATE TABLE AS or CREATE MATERIALIZED VIEW that an EXPLAIN is about.
///
/// # Safety
/// `statement` must be a parse tree's, after its analysis.
pub(super) unsafe fn explained(statement: &pg_sys::ExplainStmt) -> Option<*mut pg_sys::CreateTableAsStmt> {
    // SAFETY: by contract, the query is a Query; with a utility statement inside for those that can be explained.
    unsafe {
        let query = statement.query.cast::<pg_sys::Query>();
        if query.is_null() || (*query).type_ != Tag::T_Query || (*query).utilityStmt.is_null() {
            return None;
        }
        let inner = (*query).utilityStmt;
        ((*inner).type_ == Tag::T_CreateTableAsStmt).then(|| inner.cast())
    }
}

/// EXPLAIN with ANALYZE. Of an option that is given twice, the last one counts.
unsafe fn executes(statement: &pg_sys::ExplainStmt) -> bool {
    // SAFETY: a parse tree's list of DefElem, each with a name. A value that is no boolean is PostgreSQL's own error, now or later.
    unsafe {
        let options = list::pointers::<pg_sys::DefElem>(statement.options).into_iter();
        let analyze = options.filter(|&option| CStr::from_ptr((*option).defname) == c"analyze").last();
        analyze.is_some_and(|option| pg_sys::defGetBoolean(option))
    }
}

/// Local if it makes a temporary table.
unsafe fn create_table_as(statement: &pg_sys::CreateTableAsStmt) -> Class {
    // SAFETY: of a parse tree.
    unsafe {
        let into = &*statement.into;
        if lifetimes::is_to_be_temporary(into.rel) {
            return Class::Local;
        }
        if table_method::is_other(into.accessMethod) {
            return refused(OTHER_METHOD, NOT_YET);
        }
        let fills = if statement.objtype == ObjectType::OBJECT_MATVIEW { Fills::NewView } else { Fills::Table };
        Class::Ordered(Ordered { fills, needs_relation: true, ..Ordered::default() })
    }
}

unsafe fn refresh(statement: &pg_sys::RefreshMatViewStmt) -> Class {
    // SAFETY: of a parse tree.
    let targets = unsafe { find(statement.relation) }.into_iter().collect();
    Class::Ordered(Ordered { targets, fills: Fills::View, needs_relation: true, ..Ordered::default() })
}

unsafe fn create_table(statement: &pg_sys::CreateStmt) -> Class {
    // SAFETY: of a parse tree.
    unsafe {
        if lifetimes::is_to_be_temporary(statement.relation) && !statement.inhRelations.is_null() {
            // What it inherits from has nothing of it.
            return Class::Local;
        }
        if statement.partspec.is_null() && table_method::is_other(statement.accessMethod) {
            return refused(OTHER_METHOD, NOT_YET);
        }
        let mut targets = find_all(statement.inhRelations);
        // LIKE leaves no dependency. Of permanent tables it asks nothing that would have to be kept from changing.
        let elements = list::pointers::<pg_sys::Node>(statement.tableElts).into_iter();
        let like = elements.filter(|&element| (*element).type_ == Tag::T_TableLikeClause);
        let sources = like.filter_map(|element| find((*element.cast::<pg_sys::TableLikeClause>()).relation));
        targets.extend(sources.filter(|&source| is_temporary(source)));
        let partition = partition::bounded(std::ptr::from_ref(statement).cast_mut().cast());
        let evaluated = Evaluated { partition, ..Evaluated::default() };
        let travels_as = lifetimes::spelt_out(statement);
        // With IF NOT EXISTS it may do nothing; else the new relation is reported.
        Class::Ordered(Ordered { targets, needs_relation: true, evaluated, travels_as, ..Ordered::default() })
    }
}

/// The bound of a partition as it is now.
pub fn bound_of(partition: &partition::Name) -> Option<String> {
    // SAFETY: a look-up by a name in a node of its own.
    partition::bound(partition, |relation| unsafe { find(relation) })
}

/// Which index a table is clustered on is the group's, the order of rows in the file is not. A partitioned table remembers none.
unsafe fn cluster(statement: &pg_sys::ClusterStmt) -> Class {
    // SAFETY: of a parse tree, in which names are C strings.
    let (table, index) = unsafe { (find(statement.relation), CStr::from_ptr(statement.indexname)) };
    match table.and_then(|table| Some((table, relation::entry(table)?))) {
        Some((table, entry)) if entry.kind == RelationKind::Table => {
            let (schema, name, index) = (quoted(&entry.schema), quoted(&entry.name), quoted(&encoding::text(index)));
            // Who may only maintain it, as others than the owner may since 17, may not alter it.
            let travels_as = Some(match privilege::is_owner(table) {
                true => format!("ALTER TABLE {schema}.{name} CLUSTER ON {index}"),
                false => format!("CLUSTER {schema}.{name} USING {index}"),
            });
            Class::Ordered(Ordered { targets: vec![table], travels_as, ..Ordered::default() })
        }
        _ => Class::Local,
    }
}

unsafe fn create_index(statement: &pg_sys::IndexStmt) -> Class {
    // SAFETY: of a parse tree.
    let targets: Vec<Oid> = unsafe { find(statement.relation) }.into_iter().collect();
    let concurrently = statement.concurrent && !targets.iter().copied().any(is_temporary);
    Class::Ordered(Ordered { targets, concurrently, ..Ordered::default() })
}

/// Of tables whose rows are of this node alone, or are kept by a foreign server, it is nobody else's business.
unsafe fn truncate(statement: &pg_sys::TruncateStmt) -> Class {
    // SAFETY: of a parse tree.
    let named = unsafe { list::pointers::<pg_sys::RangeVar>(statement.relations) };
    // SAFETY: as above.
    let found = named.into_iter().filter_map(|name| unsafe { Some((find(name)?, (*name).inh)) });
    let mut targets = Vec::new();
    let mut entries = Vec::new();
    for (target, with_children) in found {
        targets.push(target);
        let below = if with_children { relation::with_children(target) } else { vec![target] };
        for (oid, entry) in below.into_iter().filter_map(|oid| Some((oid, relation::entry(oid)?))) {
            foreign::note_emptied(oid, &entry);
            entries.push(entry);
        }
    }
    let is_foreign = |entry: &relation::Entry| entry.kind == RelationKind::ForeignTable;
    if !entries.is_empty() && entries.iter().all(|entry| is_foreign(entry) || entry.persistence.is_of_node()) {
        return Class::Local;
    }
    let mut ordered = Ordered { is_truncate: true, restarts_identity: statement.restart_seqs, ..Ordered::default() };
    if let Some(foreign) = entries.iter().find(|entry| is_foreign(entry)) {
        if statement.restart_seqs || entries.iter().any(|entry| entry.persistence == Persistence::Temporary) {
            return refused(
                &format!("TRUNCATE of foreign table \"{}\" together with others", foreign.name),
                "Truncate it by itself; others with it only if they are permanent, and without RESTART IDENTITY.",
            );
        }
        let Some(travels_as) = without_foreign(&entries, statement.behavior) else { return Class::Local };
        ordered.travels_as = Some(travels_as);
        targets.retain(|&target| !relation::entry(target).is_some_and(|entry| is_foreign(&entry)));
    }
    Class::Ordered(Ordered { targets, ..ordered })
}

/// A foreign table is emptied once, by the origin. None if there is nothing else.
fn without_foreign(entries: &[relation::Entry], behavior: pg_sys::DropBehavior::Type) -> Option<String> {
    let is_there =
        |entry: &&relation::Entry| !matches!(entry.kind, RelationKind::ForeignTable | RelationKind::PartitionedTable);
    let name = |entry: &relation::Entry| format!("ONLY {}.{}", quoted(&entry.schema), quoted(&entry.name));
    let names: Vec<_> = entries.iter().filter(is_there).map(name).collect();
    let cascade = if behavior == pg_sys::DropBehavior::DROP_CASCADE { " CASCADE" } else { "" };
    (!names.is_empty()).then(|| format!("TRUNCATE {}{cascade}", names.join(", ")))
}

unsafe fn alter_table(statement: &pg_sys::AlterTableStmt) -> Class {
    // SAFETY: of a parse tree.
    unsafe {
        let targets: Vec<Oid> = find(statement.relation).into_iter().collect();
        let mut ordered = Ordered { needs_relation: targets.is_empty(), targets, ..Ordered::default() };
        ordered.changes_types = statement.objtype == ObjectType::OBJECT_TYPE;
        ordered.evaluated = alter::evaluated(statement, find(statement.relation));
        ordered.evaluated.partition = partition::bounded(std::ptr::from_ref(statement).cast_mut().cast());
        for command in list::pointers::<pg_sys::AlterTableCmd>(statement.cmds) {
            use pg_sys::AlterTableType as Kind;
            match (*command).subtype {
                // What a temporary table inherits from has nothing of it.
                Kind::AT_AddInherit | Kind::AT_DropInherit if ordered.targets.iter().any(|&target| is_temporary(target)) => {
                    return Class::Local;
                }
                Kind::AT_AddInherit | Kind::AT_DropInherit => ordered.targets.extend(find((*command).def.cast())),
                Kind::AT_AttachPartition => {
                    ordered.targets.extend(find((*(*command).def.cast::<pg_sys::PartitionCmd>()).name));
                }
                Kind::AT_SetAccessMethod if table_method::is_other((*command).name) => {
                    return refused(OTHER_METHOD, NOT_YET);
                }
                Kind::AT_DetachPartition if (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent => {
                    let partition = find((*(*command).def.cast::<pg_sys::PartitionCmd>()).name);
                    if partition.is_some_and(|oid| relation::with_children(oid).len() > 1) {
                        return refused("DETACH PARTITION CONCURRENTLY of a partitioned table", "Use DETACH PARTITION.");
                    }
                    ordered.concurrently = ordered.targets.iter().all(|&target| !is_temporary(target));
                    ordered.targets.extend(partition);
                }
                _ => {}
            }
        }
        Class::Ordered(ordered)
    }
}
