//! What a DDL statement can change for another one, and what it takes from the catalogs itself, as its parse tree tells.
//!
//! It matters for statements of one node that overlap in time: PostgreSQL's own locks let both go on, and neither sees what the other
//! does. On other nodes one of them runs first (`backend::capture::overlap`). A statement that is not named here can change
//! everything and takes everything.

use std::ffi::CStr;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::pg_sys::ObjectType;

use super::{constraint, encoding, list, names};

/// What a statement can change for another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Changes {
    /// What the names that it makes, renames or drops stand for.
    Names,
    /// That, and what functions do that nobody mentions, because others call them.
    Functions,
    Anything,
}

/// What a statement takes from the catalogs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// What the names stand for that it mentions.
    Names,
    /// That, and what functions give that its expressions call.
    Values,
    Anything,
}

#[derive(Clone, Debug)]
pub struct Bearing {
    pub changes: Changes,
    pub takes: Takes,
    /// It fails if somebody uses what it changes, and finds that out by the catalogs, not by a lock.
    pub looks_for_users: bool,
    /// Names of what it gives or takes privileges on; nothing else tells.
    pub granted: Vec<String>,
    pub revoked: Vec<String>,
    /// It changes the privileges that new objects get.
    pub changes_defaults: bool,
}

impl Bearing {
    const AT_LARGE: Bearing = Bearing::new(Changes::Anything, Takes::Anything);
    const BY_NAME: Bearing = Bearing::new(Changes::Names, Takes::Names);
    const BY_VALUE: Bearing = Bearing::new(Changes::Names, Takes::Values);

    const fn new(changes: Changes, takes: Takes) -> Bearing {
        Bearing { changes, takes, looks_for_users: false, granted: Vec::new(), revoked: Vec::new(), changes_defaults: false }
    }
}

/// # Safety
/// `node` must be the parse tree of a utility statement.
pub(super) unsafe fn of(node: *mut pg_sys::Node) -> Bearing {
    // SAFETY: each tag says what the node is.
    unsafe {
        match (*node).type_ {
            // Bounds of a partition are evaluated.
            Tag::T_CreateStmt | Tag::T_CreateForeignTableStmt
                if !(*node.cast::<pg_sys::CreateStmt>()).partbound.is_null() =>
            {
                Bearing::BY_VALUE
            }
            Tag::T_IndexStmt => index(&*node.cast()),
            Tag::T_AlterTableStmt => alter_table(&*node.cast()),
            Tag::T_DropStmt => drop((*node.cast::<pg_sys::DropStmt>()).removeType),
            Tag::T_RenameStmt => rename((*node.cast::<pg_sys::RenameStmt>()).renameType),
            Tag::T_AlterObjectSchemaStmt => rename((*node.cast::<pg_sys::AlterObjectSchemaStmt>()).objectType),
            Tag::T_GrantStmt => grant(&*node.cast()),
            Tag::T_AlterOwnerStmt => give_away(&*node.cast()),
            // Constraints are looked at where the statement is run, and nowhere else.
            Tag::T_AlterDomainStmt => Bearing { looks_for_users: true, ..Bearing::BY_VALUE },
            Tag::T_AlterDefaultPrivilegesStmt => Bearing { changes_defaults: true, ..Bearing::BY_NAME },
            Tag::T_CreateFunctionStmt => Bearing { changes: Changes::Functions, ..Bearing::BY_NAME },
            Tag::T_CreateSchemaStmt if (*node.cast::<pg_sys::CreateSchemaStmt>()).schemaElts.is_null() => Bearing::BY_NAME,
            Tag::T_CreateStmt
            | Tag::T_CreateForeignTableStmt
            | Tag::T_CreateTableAsStmt
            | Tag::T_RefreshMatViewStmt
            | Tag::T_CreateSeqStmt
            | Tag::T_AlterSeqStmt
            | Tag::T_ViewStmt
            | Tag::T_CreateTrigStmt
            | Tag::T_RuleStmt
            | Tag::T_CreatePolicyStmt
            | Tag::T_AlterPolicyStmt
            | Tag::T_CreateStatsStmt
            | Tag::T_AlterStatsStmt
            | Tag::T_CreatePublicationStmt
            | Tag::T_AlterPublicationStmt
            | Tag::T_CreateSubscriptionStmt
            | Tag::T_AlterSubscriptionStmt
            // It fires for what is run on its own node, whoever is first there.
            | Tag::T_CreateEventTrigStmt
            | Tag::T_AlterEventTrigStmt
            | Tag::T_SecLabelStmt
            | Tag::T_CommentStmt
            | Tag::T_TruncateStmt
            | Tag::T_CreateEnumStmt
            | Tag::T_CompositeTypeStmt
            | Tag::T_CreateDomainStmt => Bearing::BY_NAME,
            _ => Bearing::AT_LARGE,
        }
    }
}

/// # Safety
/// Of a parse tree.
unsafe fn index(statement: &pg_sys::IndexStmt) -> Bearing {
    // SAFETY: by contract, a list of IndexElem.
    let has_expressions = unsafe {
        list::pointers::<pg_sys::IndexElem>(statement.indexParams).into_iter().any(|element| !(*element).expr.is_null())
    };
    if has_expressions || !statement.whereClause.is_null() { Bearing::BY_VALUE } else { Bearing::BY_NAME }
}

/// # Safety
/// Of a parse tree.
unsafe fn alter_table(statement: &pg_sys::AlterTableStmt) -> Bearing {
    use pg_sys::AlterTableType as Kind;
    if statement.objtype == ObjectType::OBJECT_TYPE {
        return Bearing::AT_LARGE;
    }
    let mut bearing = Bearing::BY_NAME;
    // SAFETY: by contract, a list of AlterTableCmd.
    let commands = unsafe { list::pointers::<pg_sys::AlterTableCmd>(statement.cmds) };
    // SAFETY: as above.
    for command in commands.into_iter().map(|command| unsafe { &*command }) {
        match command.subtype {
            // SAFETY: by contract, the definition of a constraint.
            Kind::AT_AddConstraint if unsafe { is_key(command.def.cast()) } => {}
            Kind::AT_AddConstraint => bearing.takes = Takes::Values,
            // SAFETY: by contract, the definition of a column.
            Kind::AT_AddColumn if unsafe { adds_only_nulls(command.def.cast()) } => {}
            Kind::AT_ColumnDefault
            | Kind::AT_DropNotNull
            | Kind::AT_SetNotNull
            | Kind::AT_SetStatistics
            | Kind::AT_SetOptions
            | Kind::AT_ResetOptions
            | Kind::AT_SetStorage
            | Kind::AT_SetCompression
            | Kind::AT_DropColumn
            | Kind::AT_DropConstraint
            | Kind::AT_AddIndexConstraint
            | Kind::AT_ChangeOwner
            | Kind::AT_ClusterOn
            | Kind::AT_DropCluster
            | Kind::AT_SetRelOptions
            | Kind::AT_ResetRelOptions
            | Kind::AT_EnableTrig
            | Kind::AT_DisableTrig
            | Kind::AT_ReplicaIdentity
            | Kind::AT_EnableRowSecurity
            | Kind::AT_DisableRowSecurity
            | Kind::AT_ForceRowSecurity
            | Kind::AT_NoForceRowSecurity => {}
            // What the rows are written anew for is looked for in columns of the table's row type.
            _ => {
                bearing.takes = Takes::Values;
                bearing.looks_for_users = true;
            }
        }
    }
    bearing
}

/// A constraint without an expression.
///
/// # Safety
/// `constraint` must be null or of a parse tree.
unsafe fn is_key(constraint: *const pg_sys::Constraint) -> bool {
    use pg_sys::ConstrType as Kind;
    // SAFETY: by contract.
    !constraint.is_null()
        && matches!(
            unsafe { (*constraint).contype },
            Kind::CONSTR_PRIMARY | Kind::CONSTR_UNIQUE | Kind::CONSTR_FOREIGN | Kind::CONSTR_NOTNULL
        )
}

/// A new column of no serial type, and without an expression.
///
/// # Safety
/// `column` must be null or of a parse tree.
unsafe fn adds_only_nulls(column: *const pg_sys::ColumnDef) -> bool {
    use pg_sys::ConstrType as Constraint;
    // SAFETY: by contract; a type's name is a list of strings.
    unsafe {
        if column.is_null() || (*column).typeName.is_null() {
            return false;
        }
        let constraints = list::pointers::<pg_sys::Constraint>((*column).constraints);
        let has_no_values = constraints.into_iter().all(|constraint| {
            matches!(
                (*constraint).contype,
                Constraint::CONSTR_NULL
                    | Constraint::CONSTR_NOTNULL
                    | Constraint::CONSTR_UNIQUE
                    | Constraint::CONSTR_PRIMARY
                    | Constraint::CONSTR_FOREIGN
            )
        });
        let name = list::pointers::<pg_sys::String>((*(*column).typeName).names).pop();
        has_no_values && name.is_some_and(|name| !text((*name).sval).contains("serial"))
    }
}

fn drop(kind: ObjectType::Type) -> Bearing {
    use ObjectType as O;
    let changes = match kind {
        O::OBJECT_TABLE
        | O::OBJECT_INDEX
        | O::OBJECT_SEQUENCE
        | O::OBJECT_VIEW
        | O::OBJECT_MATVIEW
        | O::OBJECT_TRIGGER
        | O::OBJECT_POLICY
        | O::OBJECT_RULE => Changes::Names,
        O::OBJECT_FUNCTION | O::OBJECT_PROCEDURE | O::OBJECT_ROUTINE => Changes::Functions,
        _ => return Bearing::AT_LARGE,
    };
    Bearing { changes, looks_for_users: true, ..Bearing::BY_NAME }
}

/// RENAME and SET SCHEMA: of relations, what is under which name afterwards is found by looking.
fn rename(kind: ObjectType::Type) -> Bearing {
    use ObjectType as O;
    match kind {
        O::OBJECT_TABLE | O::OBJECT_INDEX | O::OBJECT_SEQUENCE | O::OBJECT_VIEW | O::OBJECT_MATVIEW | O::OBJECT_COLUMN => {
            Bearing::BY_NAME
        }
        _ => Bearing::AT_LARGE,
    }
}

/// # Safety
/// Of a parse tree.
unsafe fn grant(statement: &pg_sys::GrantStmt) -> Bearing {
    if statement.targtype != pg_sys::GrantTargetType::ACL_TARGET_OBJECT {
        return Bearing::AT_LARGE;
    }
    let mut bearing = Bearing::BY_NAME;
    // SAFETY: by contract; the kind of object says what the list holds.
    let names: Vec<String> = unsafe {
        match statement.objtype {
            ObjectType::OBJECT_TABLE | ObjectType::OBJECT_SEQUENCE => {
                let named = list::pointers::<pg_sys::RangeVar>(statement.objects);
                named.into_iter().map(|name| text((*name).relname)).collect()
            }
            ObjectType::OBJECT_SCHEMA
            | ObjectType::OBJECT_LANGUAGE
            | ObjectType::OBJECT_FDW
            | ObjectType::OBJECT_FOREIGN_SERVER => {
                let named = list::pointers::<pg_sys::String>(statement.objects);
                named.into_iter().map(|name| text((*name).sval)).collect()
            }
            ObjectType::OBJECT_TYPE | ObjectType::OBJECT_DOMAIN => {
                let named = list::pointers::<pg_sys::List>(statement.objects).into_iter();
                let last = named.filter_map(|name| list::pointers::<pg_sys::String>(name).pop());
                last.map(|name| text((*name).sval)).collect()
            }
            ObjectType::OBJECT_FUNCTION | ObjectType::OBJECT_PROCEDURE | ObjectType::OBJECT_ROUTINE => {
                bearing.changes = Changes::Functions;
                let named = list::pointers::<pg_sys::ObjectWithArgs>(statement.objects);
                let last =
                    |function: *mut pg_sys::ObjectWithArgs| list::pointers::<pg_sys::String>((*function).objname).pop();
                named.into_iter().filter_map(last).map(|name| text((*name).sval)).collect()
            }
            // No other statement needs them: two that change those of one large object meet at its entry in the catalog.
            ObjectType::OBJECT_LARGEOBJECT => Vec::new(),
            _ => return Bearing::AT_LARGE,
        }
    };
    *(if statement.is_grant { &mut bearing.granted } else { &mut bearing.revoked }) = names;
    bearing
}

/// OWNER TO: whoever may do something with the object as its owner is another one then.
///
/// # Safety
/// Of a parse tree.
unsafe fn give_away(statement: &pg_sys::AlterOwnerStmt) -> Bearing {
    use ObjectType as O;
    let mut changes = Changes::Names;
    // SAFETY: by contract; the kind of object says what its name is.
    let name = unsafe {
        match statement.objectType {
            // Who owns it is whose rights it may run with.
            O::OBJECT_FUNCTION | O::OBJECT_PROCEDURE | O::OBJECT_ROUTINE | O::OBJECT_AGGREGATE => {
                changes = Changes::Functions;
                list::pointers::<pg_sys::String>((*statement.object.cast::<pg_sys::ObjectWithArgs>()).objname).pop()
            }
            O::OBJECT_STATISTIC_EXT
            | O::OBJECT_TYPE
            | O::OBJECT_DOMAIN
            | O::OBJECT_COLLATION
            | O::OBJECT_CONVERSION
            | O::OBJECT_TSDICTIONARY
            | O::OBJECT_TSCONFIGURATION => list::pointers::<pg_sys::String>(statement.object.cast()).pop(),
            O::OBJECT_SCHEMA
            | O::OBJECT_PUBLICATION
            | O::OBJECT_SUBSCRIPTION
            | O::OBJECT_EVENT_TRIGGER
            | O::OBJECT_LANGUAGE
            | O::OBJECT_FDW
            | O::OBJECT_FOREIGN_SERVER => Some(statement.object.cast::<pg_sys::String>()),
            // As with GRANT: no other statement needs it.
            O::OBJECT_LARGEOBJECT => return Bearing::BY_NAME,
            _ => None,
        }
    };
    // SAFETY: as above, a name is a C string.
    match name.map(|name| unsafe { text((*name).sval) }) {
        Some(name) => Bearing { changes, granted: vec![name.clone()], revoked: vec![name], ..Bearing::BY_NAME },
        None => Bearing::AT_LARGE,
    }
}

/// # Safety
/// `string` must be a C string.
unsafe fn text(string: *const std::ffi::c_char) -> String {
    // SAFETY: by contract.
    encoding::text(unsafe { CStr::from_ptr(string) })
}

/// What other statements can mention an object by.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Name {
    /// A schema itself has none.
    pub schema: Option<String>,
    pub name: String,
}

/// The name under which other statements can mention an object; none if it has none that they look up by itself, as triggers, which
/// are looked up with their table.
pub fn name_of(class: names::Oid, object: names::Oid) -> Option<Name> {
    // SAFETY: syscache look-ups that give palloc'd copies or null.
    unsafe {
        let (schema, name) = match class {
            pg_sys::RelationRelationId => (pg_sys::get_rel_namespace(object), names::owned(pg_sys::get_rel_name(object))?),
            pg_sys::TypeRelationId => names::type_name(object)?,
            pg_sys::ProcedureRelationId => {
                (pg_sys::get_func_namespace(object), names::owned(pg_sys::get_func_name(object))?)
            }
            pg_sys::NamespaceRelationId => (pg_sys::InvalidOid, names::owned(pg_sys::get_namespace_name(object))?),
            class if class.to_u32() == CONSTRAINTS => {
                (constraint::schema_of(object), names::owned(pg_sys::get_constraint_name(object))?)
            }
            _ => return None,
        };
        Some(Name { schema: names::owned(pg_sys::get_namespace_name(schema)), name })
    }
}

/// Whether there is a schema of this name.
pub fn is_schema(name: &str) -> bool {
    let Some(name) = encoding::c_string(name) else { return false };
    // SAFETY: a look-up by a C string that outlives it.
    unsafe { pg_sys::get_namespace_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}

/// Whether an object of this catalog is made with the privileges that ALTER DEFAULT PRIVILEGES has set. The entry that this statement itself makes
/// in pg_default_acl is not: two sessions may set different ones at the same time.
pub fn gets_default_privileges(class: names::Oid) -> bool {
    matches!(
        class,
        pg_sys::RelationRelationId | pg_sys::TypeRelationId | pg_sys::ProcedureRelationId | pg_sys::NamespaceRelationId
    )
}

/// Of catalog/pg_constraint.h, which pgrx does not bind.
const CONSTRAINTS: u32 = 2606;

/// Where unqualified names are looked for, as set.
pub fn search_path() -> String {
    // SAFETY: a variable of this process, always set.
    unsafe { text(pg_sys::namespace_search_path) }
}

/// Whether users made the function.
pub fn is_of_users(function: names::Oid) -> bool {
    function.to_u32() >= pg_sys::FirstNormalObjectId
}

/// Waits until no other transaction of this database and node is between its submission and its end with DDL in it, and keeps others from
/// it until this one ends.
pub fn take_turns() {
    lock_extension(TURNS, pg_sys::ExclusiveLock);
}

/// This transaction makes up names, which may come to nothing; see [`keep_made_up_names_off`].
pub fn announce_made_up_names() {
    lock_extension(NAMES, pg_sys::RowExclusiveLock);
}

/// PostgreSQL passes over a name that an open transaction has taken. Waits until nobody has taken any, and keeps others from it until this
/// transaction ends.
pub fn keep_made_up_names_off() {
    lock_extension(NAMES, pg_sys::ShareLock);
}

const TURNS: u16 = 0;
const NAMES: u16 = 1;

/// An ordinary lock, released with the transaction or its subtransaction. Nothing else locks the extension while a database is replicated.
fn lock_extension(part: u16, mode: u32) {
    // SAFETY: a look-up, and a lock on what need not be there.
    unsafe {
        let extension = pg_sys::get_extension_oid(c"postgres_r".as_ptr(), true);
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, part, mode as pg_sys::LOCKMODE);
    }
}
