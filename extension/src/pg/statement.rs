//! What kind of utility statement a parse tree is: of this node alone, ordered in the group, or refused.
//!
//! Whatever is not named here is refused: a new kind of statement must be thought about before it is let through.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::alter::{self, Evaluated};
use super::kinds::{is_local, is_plain_definition};
use super::list;
use super::names::{Oid, quoted, valid};
use super::relation::{Persistence, RelationKind};
use super::{encoding, extension, global, partition, relation, setting};

pub enum Class {
    /// Changes nothing that other nodes must know of.
    Local,
    Ordered(Ordered),
    Refused(Refusal),
    /// COPY into this relation; its rows are captured.
    CopyIn(Oid),
    /// Runs here, and reads this table.
    CopyOut(Oid),
    /// LOCK TABLE in a mode that keeps writers out.
    Lock(Vec<Oid>, TableLock),
    ImportSnapshot,
    /// NOTIFY.
    Notify,
}

/// A statement that travels as its text.
#[derive(Default)]
pub struct Ordered {
    /// Relations that the statement names and that exist before it.
    pub targets: Vec<Oid>,
    /// Changes how values of a type read or are stored.
    pub changes_types: bool,
    pub is_truncate: bool,
    pub restarts_identity: bool,
    /// Does nothing if it touches no relation (DROP ... IF EXISTS).
    pub needs_relation: bool,
    /// Does nothing if it touches nothing at all.
    pub needs_object: bool,
    /// What an ALTER TABLE may evaluate.
    pub evaluated: Evaluated,
    pub fills: Fills,
    /// Runs the script of an extension (CREATE or ALTER EXTENSION): travels as what came out.
    pub runs_script: bool,
    /// It is about what all databases of the server share.
    pub global: Option<global::Global>,
    /// It has a password, with which its text is not to go anywhere.
    pub has_password: bool,
    /// What is for other nodes of it, where that is another statement.
    pub travels_as: Option<String>,
}

impl Ordered {
    /// It changes nothing in the catalogs that other DDL takes from there.
    pub fn only_looks(&self) -> bool {
        self.is_truncate || self.fills == Fills::View
    }
}

/// What PostgreSQL puts the rows of a statement's own query into. The query is evaluated on the origin only: its rows travel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fills {
    #[default]
    Nothing,
    /// CREATE TABLE AS: the definition of the table travels in the statement's place.
    Table,
    /// CREATE MATERIALIZED VIEW: the statement travels, and makes the view without rows.
    NewView,
    /// REFRESH: the statement travels, and takes the rows out.
    View,
}

pub struct Refusal {
    pub what: String,
    pub hint: &'static str,
}

const SHARED_OBJECT: &str = "It changes an object that all databases of the server share. Run it on every node, from a database \
                             that is not replicated.";
const NOT_YET: &str = "docs/compatibility.md lists what is replicated.";
const OURS: &str = "It is what replicates this database. Stop its replication first.";

/// What LOCK TABLE keeps other transactions from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableLock {
    /// No more than what a transaction that reads or changes rows keeps them from: up to ROW EXCLUSIVE.
    AsARow,
    /// That, and taking the same lock: SHARE UPDATE EXCLUSIVE.
    AgainstItself,
    /// Changing rows: SHARE and above.
    AgainstWriters,
}

/// The statement's name as in a command tag, such as `CREATE TABLE`.
///
/// # Safety
/// `node` must be a parse tree.
pub(super) unsafe fn command_tag(node: *mut pg_sys::Node) -> String {
    // SAFETY: by contract; tag names are static strings.
    unsafe { CStr::from_ptr(pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(node))).to_string_lossy().into_owned() }
}

/// Whether a statement ends the transaction block: COMMIT or ROLLBACK by any of their names, AND CHAIN or not.
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
                pg_sys::TransactionStmtKind::TRANS_STMT_COMMIT | pg_sys::TransactionStmtKind::TRANS_STMT_ROLLBACK
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
            Tag::T_TransactionStmt => match (*node.cast::<pg_sys::TransactionStmt>()).kind {
                pg_sys::TransactionStmtKind::TRANS_STMT_PREPARE => {
                    refuse("Two-phase commit of another coordinator can't be made one with the group's order.")
                }
                _ => Class::Local,
            },
            Tag::T_VariableSetStmt if imports_snapshot(&*node.cast()) => Class::ImportSnapshot,
            tag if is_local(tag) => Class::Local,
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
            tag if global::is_of_server(tag) => refuse(SHARED_OBJECT),
            Tag::T_CreateExtensionStmt if extension::is_there_already(&*node.cast()) => Class::Local,
            Tag::T_CommentStmt if extension::says_what_is_said(&*node.cast()) => Class::Local,
            _ if extension::alters_ours(node) => refuse(OURS),
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
            (class, _) => class,
        }
    }
}

fn is_temporary(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_persistence(relation) }) as u8 == pg_sys::RELPERSISTENCE_TEMP
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
            Tag::T_DefineStmt => define(&*node.cast()),
            Tag::T_ViewStmt => Class::Ordered(Ordered::default()),
            Tag::T_CreateSeqStmt => create_sequence(&*node.cast()),
            Tag::T_AlterSeqStmt => ordered([(*node.cast::<pg_sys::AlterSeqStmt>()).sequence]),
            Tag::T_CreateTrigStmt => {
                let statement = &*node.cast::<pg_sys::CreateTrigStmt>();
                ordered([statement.relation, statement.constrrel])
            }
            Tag::T_AlterEventTrigStmt => alter_event_trigger(&*node.cast()),
            Tag::T_RuleStmt => ordered([(*node.cast::<pg_sys::RuleStmt>()).relation]),
            Tag::T_CreatePolicyStmt => ordered([(*node.cast::<pg_sys::CreatePolicyStmt>()).table]),
            Tag::T_AlterPolicyStmt => ordered([(*node.cast::<pg_sys::AlterPolicyStmt>()).table]),
            Tag::T_CreateFunctionStmt => function((*node.cast::<pg_sys::CreateFunctionStmt>()).options),
            Tag::T_AlterFunctionStmt => function((*node.cast::<pg_sys::AlterFunctionStmt>()).actions),
            // An update to the version that is there does nothing.
            Tag::T_CreateExtensionStmt | Tag::T_AlterExtensionStmt => {
                Class::Ordered(Ordered { runs_script: true, needs_object: true, ..Ordered::default() })
            }
            tag if is_plain_definition(tag) => Class::Ordered(Ordered::default()),
            Tag::T_DropUserMappingStmt => Class::Ordered(Ordered { needs_object: true, ..Ordered::default() }),
            Tag::T_SecLabelStmt => about((*node.cast::<pg_sys::SecLabelStmt>()).objtype)?,
            Tag::T_CreateForeignTableStmt => create_table(&(*node.cast::<pg_sys::CreateForeignTableStmt>()).base),
            Tag::T_AlterEnumStmt | Tag::T_AlterDomainStmt | Tag::T_AlterTypeStmt => {
                Class::Ordered(Ordered { changes_types: true, ..Ordered::default() })
            }
            _ => return Err(NOT_YET),
        })
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

fn refused(what: &str, hint: &'static str) -> Class {
    Class::Refused(Refusal { what: what.to_owned(), hint })
}

/// # Safety
/// Each must be null or a parse tree's RangeVar.
unsafe fn ordered<const N: usize>(relations: [*mut pg_sys::RangeVar; N]) -> Class {
    // SAFETY: by contract.
    let targets = relations.into_iter().filter_map(|relation| unsafe { find(relation) }).collect();
    Class::Ordered(Ordered { targets, ..Ordered::default() })
}

/// # Safety
/// `relation` must be null or a parse tree's RangeVar.
pub(super) unsafe fn find(relation: *mut pg_sys::RangeVar) -> Option<Oid> {
    if relation.is_null() {
        return None;
    }
    // SAFETY: a look-up by name, without a lock; nothing is raised if it is not there.
    unsafe {
        let flags = pg_sys::RVROption::RVR_MISSING_OK;
        valid(pg_sys::RangeVarGetRelidExtended(relation, pg_sys::NoLock as i32, flags, None, std::ptr::null_mut()))
    }
}

unsafe fn find_all(relations: *mut pg_sys::List) -> Vec<Oid> {
    // SAFETY: a parse tree's list of RangeVars.
    unsafe { list::pointers::<pg_sys::RangeVar>(relations).into_iter().filter_map(|relation| find(relation)).collect() }
}

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
        found.into_iter().flat_map(move |oid| if with_children { relation::with_children(oid) } else { vec![oid] })
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

unsafe fn explain(statement: &pg_sys::ExplainStmt) -> Class {
    // SAFETY: after analysis, the query is a Query; with a utility statement inside for those that can be explained.
    unsafe {
        let query = statement.query.cast::<pg_sys::Query>();
        if !query.is_null() && (*query).type_ == Tag::T_Query && !(*query).utilityStmt.is_null() {
            let inner = (*query).utilityStmt;
            if (*inner).type_ == Tag::T_CreateTableAsStmt && !matches!(create_table_as(&*inner.cast()), Class::Local) {
                return refused(&format!("EXPLAIN of {}", command_tag_as(&*inner.cast())), "Explain its query instead.");
            }
        }
    }
    Class::Local
}

/// SELECT INTO goes by this name, too.
fn command_tag_as(statement: &pg_sys::CreateTableAsStmt) -> &'static str {
    if statement.objtype == ObjectType::OBJECT_MATVIEW { "CREATE MATERIALIZED VIEW" } else { "CREATE TABLE AS" }
}

/// Local if it makes a temporary table.
unsafe fn create_table_as(statement: &pg_sys::CreateTableAsStmt) -> Class {
    // SAFETY: of a parse tree.
    unsafe {
        let into = &*statement.into;
        let relation = into.rel;
        let is_temporary = (*relation).relpersistence as u8 == b't'
            || (!(*relation).schemaname.is_null() && CStr::from_ptr((*relation).schemaname) == c"pg_temp");
        if is_temporary {
            return Class::Local;
        }
        if !into.accessMethod.is_null() && CStr::from_ptr(into.accessMethod) != c"heap" {
            return refused("a table with an access method other than heap", NOT_YET);
        }
        if !into.tableSpaceName.is_null() {
            return refused(&format!("{} with TABLESPACE", command_tag_as(statement)), "Tablespaces belong to a node.");
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
        if !statement.accessMethod.is_null() && CStr::from_ptr(statement.accessMethod) != c"heap" {
            return refused("a table with an access method other than heap", NOT_YET);
        }
        let mut targets = find_all(statement.inhRelations);
        // LIKE leaves no dependency. Of permanent tables it asks nothing that would have to be kept from changing.
        let elements = list::pointers::<pg_sys::Node>(statement.tableElts).into_iter();
        let like = elements.filter(|&element| (*element).type_ == Tag::T_TableLikeClause);
        let sources = like.filter_map(|element| find((*element.cast::<pg_sys::TableLikeClause>()).relation));
        targets.extend(sources.filter(|&source| is_temporary(source)));
        let partition = partition::bounded(std::ptr::from_ref(statement).cast_mut().cast());
        let evaluated = Evaluated { partition, ..Evaluated::default() };
        // With IF NOT EXISTS it may do nothing; else the new relation is reported.
        Class::Ordered(Ordered { targets, needs_relation: true, evaluated, ..Ordered::default() })
    }
}

/// The bound of a partition as it is now.
pub fn bound_of(partition: &partition::Name) -> Option<String> {
    // SAFETY: a look-up by a name in a node of its own.
    partition::bound(partition, |relation| unsafe { find(relation) })
}

unsafe fn create_sequence(statement: &pg_sys::CreateSeqStmt) -> Class {
    // SAFETY: of a parse tree.
    if unsafe { (*statement.sequence).relpersistence } as u8 == pg_sys::RELPERSISTENCE_UNLOGGED {
        return refused("CREATE UNLOGGED SEQUENCE", "Each node would give the same values. Create it without UNLOGGED.");
    }
    Class::Ordered(Ordered { needs_relation: true, ..Ordered::default() })
}

/// Which index a table is clustered on is the group's, the order of rows in the file is not. A partitioned table remembers none.
unsafe fn cluster(statement: &pg_sys::ClusterStmt) -> Class {
    // SAFETY: of a parse tree, in which names are C strings.
    let (table, index) = unsafe { (find(statement.relation), CStr::from_ptr(statement.indexname)) };
    match table.and_then(|table| Some((table, relation::entry(table)?))) {
        Some((table, entry)) if entry.kind == RelationKind::Table => {
            let (schema, name) = (quoted(&entry.schema), quoted(&entry.name));
            let travels_as = Some(format!("ALTER TABLE {schema}.{name} CLUSTER ON {}", quoted(&encoding::text(index))));
            Class::Ordered(Ordered { targets: vec![table], travels_as, ..Ordered::default() })
        }
        _ => Class::Local,
    }
}

unsafe fn create_index(statement: &pg_sys::IndexStmt) -> Class {
    if statement.concurrent {
        return refused("CREATE INDEX CONCURRENTLY", "Use CREATE INDEX.");
    }
    // SAFETY: of a parse tree.
    unsafe { ordered([statement.relation]) }
}

/// Of tables whose rows are of this node alone, or are kept by a foreign server, it is nobody else's business.
unsafe fn truncate(statement: &pg_sys::TruncateStmt) -> Class {
    // SAFETY: of a parse tree.
    let targets = unsafe { find_all(statement.relations) };
    let entries: Vec<_> =
        targets.iter().flat_map(|&target| relation::with_children(target)).filter_map(relation::entry).collect();
    let stays =
        |entry: &relation::Entry| entry.kind == RelationKind::ForeignTable || entry.persistence == Persistence::Unlogged;
    if !entries.is_empty() && entries.iter().all(stays) {
        return Class::Local;
    }
    if let Some(foreign) = entries.iter().find(|entry| entry.kind == RelationKind::ForeignTable) {
        return refused(
            &format!("TRUNCATE of foreign table \"{}\" together with others", foreign.name),
            "Each node would empty it, one after the other. Truncate it by itself.",
        );
    }
    Class::Ordered(Ordered { targets, is_truncate: true, restarts_identity: statement.restart_seqs, ..Ordered::default() })
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
                Kind::AT_AddInherit | Kind::AT_DropInherit => ordered.targets.extend(find((*command).def.cast())),
                Kind::AT_AttachPartition => {
                    ordered.targets.extend(find((*(*command).def.cast::<pg_sys::PartitionCmd>()).name));
                }
                Kind::AT_EnableAlwaysTrig | Kind::AT_EnableReplicaTrig => {
                    return refused(
                        "ALTER TABLE ENABLE ALWAYS or REPLICA TRIGGER",
                        "What the trigger writes is replicated already; it would be written once more on each node.",
                    );
                }
                Kind::AT_SetLogged if ordered.targets.iter().any(|&target| draws_for_itself(target)) => {
                    return refused(
                        "ALTER TABLE SET LOGGED of a table with sequences",
                        "Each node has drawn its own values. Create a table without UNLOGGED, and INSERT ... SELECT.",
                    );
                }
                Kind::AT_SetUnLogged => return refused("ALTER TABLE SET UNLOGGED", "Its rows would not be replicated."),
                Kind::AT_SetTableSpace => {
                    return refused("ALTER TABLE SET TABLESPACE", "Tablespaces belong to a node.");
                }
                Kind::AT_SetAccessMethod => return refused("ALTER TABLE SET ACCESS METHOD", NOT_YET),
                Kind::AT_DetachPartition if (*(*command).def.cast::<pg_sys::PartitionCmd>()).concurrent => {
                    return refused("DETACH PARTITION CONCURRENTLY", "Use DETACH PARTITION.");
                }
                _ => {}
            }
        }
        Class::Ordered(ordered)
    }
}

/// An unlogged sequence, or a table that owns one.
fn draws_for_itself(relation: Oid) -> bool {
    // SAFETY: a scan of a catalog; the list is palloc'd.
    let owned = unsafe { list::oids(pg_sys::getOwnedSequences(relation)) };
    let is_unlogged_sequence = |oid: Oid| {
        relation::entry(oid)
            .is_some_and(|entry| entry.kind == RelationKind::Sequence && entry.persistence == Persistence::Unlogged)
    };
    is_unlogged_sequence(relation) || owned.into_iter().any(is_unlogged_sequence)
}

unsafe fn drop(statement: &pg_sys::DropStmt) -> Result<Class, &'static str> {
    use ObjectType as O;
    if statement.concurrent {
        return Ok(refused("DROP INDEX CONCURRENTLY", "Use DROP INDEX."));
    }
    match statement.removeType {
        O::OBJECT_TABLE
        | O::OBJECT_FOREIGN_TABLE
        | O::OBJECT_INDEX
        | O::OBJECT_SEQUENCE
        | O::OBJECT_VIEW
        | O::OBJECT_MATVIEW => Ok(Class::Ordered(Ordered { needs_relation: true, ..Ordered::default() })),
        kind => by_object_type(kind).map(|class| match class {
            Class::Ordered(ordered) => Class::Ordered(Ordered { needs_object: true, ..ordered }),
            other => other,
        }),
    }
}

unsafe fn rename(statement: &pg_sys::RenameStmt) -> Result<Class, &'static str> {
    use ObjectType as O;
    // SAFETY: of a parse tree.
    let targets = unsafe { find(statement.relation) }.into_iter().collect();
    match statement.renameType {
        O::OBJECT_SCHEMA | O::OBJECT_ATTRIBUTE | O::OBJECT_TYPE | O::OBJECT_DOMAIN => {
            Ok(Class::Ordered(Ordered { targets, changes_types: true, ..Ordered::default() }))
        }
        O::OBJECT_COLUMN | O::OBJECT_TABCONSTRAINT => Ok(Class::Ordered(Ordered { targets, ..Ordered::default() })),
        kind => by_object_type(kind).map(|class| match class {
            Class::Ordered(ordered) => Class::Ordered(Ordered { targets, ..ordered }),
            other => other,
        }),
    }
}

unsafe fn alter_schema(statement: &pg_sys::AlterObjectSchemaStmt) -> Result<Class, &'static str> {
    // SAFETY: of a parse tree.
    let targets: Vec<Oid> = unsafe { find(statement.relation) }.into_iter().collect();
    by_object_type(statement.objectType).map(|class| match class {
        Class::Ordered(ordered) => Class::Ordered(Ordered { targets, ..ordered }),
        other => other,
    })
}

/// Where statements are applied, sessions are in replica mode.
unsafe fn alter_event_trigger(statement: &pg_sys::AlterEventTrigStmt) -> Class {
    if matches!(statement.tgenabled as u8, pg_sys::TRIGGER_FIRES_ALWAYS | pg_sys::TRIGGER_FIRES_ON_REPLICA) {
        return refused(
            "ALTER EVENT TRIGGER ENABLE ALWAYS or REPLICA",
            "What the trigger does is replicated already; it would be done once more on each node.",
        );
    }
    Class::Ordered(Ordered::default())
}

unsafe fn grant(statement: &pg_sys::GrantStmt) -> Result<Class, &'static str> {
    about(statement.objtype)
}

/// COMMENT, GRANT and OWNER TO leave how a type reads as it is.
fn about(kind: ObjectType::Type) -> Result<Class, &'static str> {
    by_object_type(kind).map(|class| match class {
        Class::Ordered(ordered) => Class::Ordered(Ordered { changes_types: false, ..ordered }),
        other => other,
    })
}

unsafe fn define(statement: &pg_sys::DefineStmt) -> Class {
    let changes_types = statement.kind == ObjectType::OBJECT_TYPE;
    Class::Ordered(Ordered { changes_types, ..Ordered::default() })
}

/// Statements that take any kind of object: those whose creation is ordered are too.
fn by_object_type(kind: ObjectType::Type) -> Result<Class, &'static str> {
    use ObjectType as O;
    match kind {
        O::OBJECT_ACCESS_METHOD
        | O::OBJECT_AGGREGATE
        | O::OBJECT_AMOP
        | O::OBJECT_AMPROC
        | O::OBJECT_CAST
        | O::OBJECT_COLLATION
        | O::OBJECT_COLUMN
        | O::OBJECT_CONVERSION
        | O::OBJECT_DEFAULT
        | O::OBJECT_DEFACL
        | O::OBJECT_EVENT_TRIGGER
        | O::OBJECT_FDW
        | O::OBJECT_FOREIGN_SERVER
        | O::OBJECT_FOREIGN_TABLE
        | O::OBJECT_FUNCTION
        | O::OBJECT_INDEX
        | O::OBJECT_LANGUAGE
        | O::OBJECT_OPCLASS
        | O::OBJECT_MATVIEW
        | O::OBJECT_OPERATOR
        | O::OBJECT_OPFAMILY
        | O::OBJECT_POLICY
        | O::OBJECT_PROCEDURE
        | O::OBJECT_PUBLICATION
        | O::OBJECT_PUBLICATION_NAMESPACE
        | O::OBJECT_PUBLICATION_REL
        | O::OBJECT_ROUTINE
        | O::OBJECT_RULE
        | O::OBJECT_SCHEMA
        | O::OBJECT_SEQUENCE
        | O::OBJECT_STATISTIC_EXT
        | O::OBJECT_TABCONSTRAINT
        | O::OBJECT_TABLE
        | O::OBJECT_TRANSFORM
        | O::OBJECT_TRIGGER
        | O::OBJECT_TSCONFIGURATION
        | O::OBJECT_TSDICTIONARY
        | O::OBJECT_TSPARSER
        | O::OBJECT_TSTEMPLATE
        | O::OBJECT_USER_MAPPING
        | O::OBJECT_VIEW => Ok(Class::Ordered(Ordered::default())),
        O::OBJECT_TYPE | O::OBJECT_DOMAIN | O::OBJECT_DOMCONSTRAINT | O::OBJECT_ATTRIBUTE | O::OBJECT_EXTENSION => {
            Ok(Class::Ordered(Ordered { changes_types: true, ..Ordered::default() }))
        }
        O::OBJECT_ROLE | O::OBJECT_DATABASE | O::OBJECT_TABLESPACE | O::OBJECT_PARAMETER_ACL => Err(SHARED_OBJECT),
        _ => Err(NOT_YET),
    }
}
