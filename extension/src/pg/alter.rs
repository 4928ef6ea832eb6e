//! ALTER TABLE and ALTER DOMAIN: what they evaluate, and the same statements without that.
//!
//! On its origin a statement runs as it was written. Elsewhere it may have been decided already what came out of its expressions
//! ([`Given`]). Then it runs with other expressions in their places, which evaluate nothing: `USING NULL` on tables that were emptied
//! before, and a constant for the default of a new column, which gets its real default right after. Constraints that it adds or validates
//! are taken for valid wherever it is applied: the origin has looked at the same rows.

use std::cell::RefCell;
use std::ffi::CStr;

use pgrx::pg_sys::AlterTableType as Kind;
use pgrx::pg_sys::ConstrType;
use pgrx::pg_sys::NodeTag as Tag;
use pgrx::{PgLogLevel, PgSqlErrorCode, pg_sys};

use super::constraint;
use super::encoding;
use super::list;
use super::majors::query::raw_expression_tree_walker;
use super::names::Oid;
use super::{global, partition, relation};

unsafe extern "C-unwind" {
    /// Of catalog/heap.h, which pgrx does not bind.
    fn RemoveAttrDefault(
        relation: Oid,
        attribute: i16,
        behavior: pg_sys::DropBehavior::Type,
        complain: bool,
        internal: bool,
    );
}

/// What an ALTER TABLE may evaluate, once or for each row.
#[derive(Default)]
pub struct Evaluated {
    /// New columns that have a default.
    pub defaults: Vec<String>,
    /// Whether it adds a column.
    pub adds: bool,
    /// Whether it changes the type of a column.
    pub converts: bool,
    /// Whether rows of one node become everybody's: an unlogged table is logged from now on.
    pub shares: bool,
    /// Whether an unlogged table or sequence is logged from now on.
    pub logs: bool,
    /// Whether everybody's rows become those of each node: the table is unlogged from now on.
    pub keeps: bool,
    /// Whether a new column takes values of a sequence without calling a function, or an expression asks for the session or the
    /// database in SQL's own words, which call none either.
    pub asks: bool,
    /// The partition that gets a bound.
    pub partition: Option<partition::Name>,
    /// A table below has a column of that name already: the new one is merged with it, and its default is not.
    pub merges: bool,
}

/// What takes the place of what a statement evaluates.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// New columns and the value of the rows that are there, as text.
    pub columns: Vec<(String, Option<String>)>,
    /// The bound of a partition.
    pub bound: Option<String>,
    /// The verifier of a password.
    pub verifier: Option<String>,
}

thread_local! {
    static GIVEN: RefCell<Option<Given>> = const { RefCell::new(None) };
}

/// The next statement to be run from its text is to evaluate nothing.
pub(super) fn give(given: Option<Given>) {
    GIVEN.set(given);
}

/// What the next statement was given.
pub(super) fn given() -> Option<Given> {
    GIVEN.take()
}

/// What remains to be done after a statement that [`leave_out`] or [`leave_out_of_domain`] has changed.
#[derive(Clone, Copy)]
pub(super) enum Pending {
    None,
    /// By their names (lists of `String` nodes): new columns of the table that are to have no default of their own, and constraints that are
    /// valid now.
    Table {
        table: *mut pg_sys::RangeVar,
        bare: *mut pg_sys::List,
        valid: *mut pg_sys::List,
    },
    /// The constraint of the domain with this name is valid now; or without a name, those that were not there before.
    Domain {
        domain: Oid,
        name: *const std::ffi::c_char,
        /// A list of OIDs.
        before: *mut pg_sys::List,
    },
}

/// # Safety
/// `statement` must be a parse tree's, and `table` the relation it names.
pub(super) unsafe fn evaluated(statement: &pg_sys::AlterTableStmt, table: Option<Oid>) -> Evaluated {
    let mut evaluated = Evaluated::default();
    // SAFETY: of a parse tree; the kind of a command says what its definition is.
    unsafe {
        for command in list::pointers::<pg_sys::AlterTableCmd>(statement.cmds) {
            let column = (*command).def.cast::<pg_sys::ColumnDef>();
            match (*command).subtype {
                Kind::AT_AddColumn => {
                    if table.is_some_and(|table| (*command).missing_ok && has_column(table, (*column).colname)) {
                        continue;
                    }
                    evaluated.adds = true;
                    let constraints = list::pointers::<pg_sys::Constraint>((*column).constraints);
                    evaluated.asks |= constraints.iter().any(|&constraint| {
                        (*constraint).contype == ConstrType::CONSTR_IDENTITY || asks((*constraint).raw_expr)
                    });
                    let says = |kind| constraints.iter().any(|&constraint| (*constraint).contype == kind);
                    let has_values = says(ConstrType::CONSTR_GENERATED) || says(ConstrType::CONSTR_IDENTITY);
                    if says(ConstrType::CONSTR_DEFAULT) || (!has_values && has_default_by_type(column)) {
                        evaluated.defaults.push(encoding::text(CStr::from_ptr((*column).colname)));
                        let below = table.map(relation::with_children).unwrap_or_default();
                        evaluated.merges |= below.into_iter().any(|below| has_column(below, (*column).colname));
                    }
                }
                Kind::AT_SetLogged => {
                    evaluated.logs = table.is_some_and(is_unlogged);
                    evaluated.shares = evaluated.logs && table.is_some_and(holds_rows);
                }
                Kind::AT_SetUnLogged => evaluated.keeps = true,
                Kind::AT_AlterColumnType => {
                    evaluated.converts = true;
                    evaluated.asks |= !column.is_null() && asks((*column).raw_default);
                }
                _ => {}
            }
        }
    }
    evaluated
}

fn is_unlogged(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_persistence(relation) }) as u8 == pg_sys::RELPERSISTENCE_UNLOGGED
}

fn holds_rows(relation: Oid) -> bool {
    // SAFETY: a syscache look-up.
    (unsafe { pg_sys::get_rel_relkind(relation) }) as u8 == pg_sys::RELKIND_RELATION
}

/// Whether an expression, as parsed, asks for what differs between sessions and is no function.
unsafe fn asks(expression: *mut pg_sys::Node) -> bool {
    unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut std::ffi::c_void) -> bool {
        use pg_sys::SQLValueFunctionOp::SVFOP_SESSION_USER;
        // SAFETY: the walker hands us nodes of the tree or null.
        unsafe {
            if node.is_null() {
                return false;
            }
            let is_of_session = (*node).type_ == Tag::T_SQLValueFunction
                && (*node.cast::<pg_sys::SQLValueFunction>()).op >= SVFOP_SESSION_USER;
            is_of_session || raw_expression_tree_walker(node, walk, context)
        }
    }
    // SAFETY: walks a parse tree; the context is not used.
    unsafe { walk(expression, std::ptr::null_mut()) }
}

/// # Safety
/// `column` must be of a parse tree.
unsafe fn has_default_by_type(column: *mut pg_sys::ColumnDef) -> bool {
    // SAFETY: by contract; a type that is not there is none, as `serial` is none.
    unsafe {
        let mut typmod = -1;
        let tuple = pg_sys::LookupTypeName(std::ptr::null_mut(), (*column).typeName, &mut typmod, true);
        if tuple.is_null() {
            return false;
        }
        let oid = (*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_type>(tuple)).oid;
        pg_sys::ReleaseSysCache(tuple);
        !pg_sys::get_typdefault(oid).is_null()
    }
}

/// # Safety
/// `name` must be a C string.
unsafe fn has_column(table: Oid, name: *const std::ffi::c_char) -> bool {
    // SAFETY: a syscache look-up.
    unsafe { pg_sys::get_attnum(table, name) != 0 }
}

/// Takes expressions out of a statement that is applied here (a private copy), if that was asked for; and takes its constraints for valid.
///
/// # Safety
/// `statement` must be a parse tree's, and `table` the relation it names.
pub(super) unsafe fn leave_out(statement: &mut pg_sys::AlterTableStmt, table: Option<Oid>) -> Pending {
    let given = GIVEN.take();
    bind(std::ptr::from_mut(statement).cast(), given.as_ref());
    let mut left = given.as_ref().map(|given| given.columns.iter().collect::<Vec<_>>()).unwrap_or_default();
    let (mut bare, mut valid) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: of a parse tree; the kind of a command says what its definition is. What is made is palloc'd, like the tree.
    unsafe {
        let mut commands = std::ptr::null_mut();
        for command in list::pointers::<pg_sys::AlterTableCmd>(statement.cmds) {
            if matches!((*command).subtype, Kind::AT_ValidateConstraint) {
                valid = pg_sys::lappend(valid, pg_sys::makeString((*command).name).cast());
                continue;
            }
            commands = pg_sys::lappend(commands, command.cast());
            let column = (*command).def.cast::<pg_sys::ColumnDef>();
            match (*command).subtype {
                Kind::AT_AddConstraint => trust((*command).def.cast()),
                Kind::AT_AlterColumnType if given.is_some() && !(*column).raw_default.is_null() => {
                    (*column).raw_default = constant(None);
                }
                Kind::AT_AddColumn => {
                    let constraints = list::pointers::<pg_sys::Constraint>((*column).constraints);
                    constraints.iter().for_each(|&constraint| trust(constraint));
                    if table.is_some_and(|table| (*command).missing_ok && has_column(table, (*column).colname)) {
                        continue;
                    }
                    let name = encoding::text(CStr::from_ptr((*column).colname));
                    let Some(at) = left.iter().position(|(other, _)| *other == name) else { continue };
                    let (_, value) = left.swap_remove(at);
                    match constraints.into_iter().find(|&one| (*one).contype == ConstrType::CONSTR_DEFAULT) {
                        Some(default) => {
                            let expression = std::mem::replace(&mut (*default).raw_expr, constant(value.as_deref()));
                            commands = pg_sys::lappend(commands, set_default((*column).colname, expression).cast());
                        }
                        None => {
                            let default = node::<pg_sys::Constraint>(Tag::T_Constraint);
                            (*default).contype = ConstrType::CONSTR_DEFAULT;
                            (*default).location = -1;
                            (*default).raw_expr = constant(value.as_deref());
                            (*column).constraints = pg_sys::lappend((*column).constraints, default.cast());
                            bare = pg_sys::lappend(bare, pg_sys::makeString((*column).colname).cast());
                        }
                    }
                }
                _ => {}
            }
        }
        statement.cmds = commands;
    }
    Pending::Table { table: statement.relation, bare, valid }
}

/// The same for CREATE TABLE, which evaluates the bounds of a partition.
///
/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn leave_out_of_table(statement: *mut pg_sys::CreateStmt) {
    bind(statement.cast(), GIVEN.take().as_ref());
}

fn bind(statement: *mut pg_sys::Node, given: Option<&Given>) {
    if let Some(bound) = given.and_then(|given| given.bound.as_ref()) {
        // SAFETY: our callers have a private copy of a parse tree.
        unsafe { partition::bind(statement, bound) }
    }
}

/// The same for CREATE and ALTER ROLE, whose password stays on the origin.
///
/// # Safety
/// `statement` must be a private copy of a parse tree.
pub(super) unsafe fn leave_out_of_role(statement: *mut pg_sys::Node) {
    let verifier = GIVEN.take().and_then(|given| given.verifier);
    // SAFETY: by contract.
    unsafe { global::give_verifier(statement, verifier.as_deref()) }
}

/// The same for ALTER DOMAIN; and whether there is nothing left to run.
///
/// # Safety
/// `statement` must be a parse tree's.
pub(super) unsafe fn leave_out_of_domain(statement: &mut pg_sys::AlterDomainStmt) -> (Pending, bool) {
    // SAFETY: of a parse tree; for ADD CONSTRAINT the definition is a constraint.
    unsafe {
        let name = pg_sys::makeTypeNameFromNameList(statement.typeName);
        let domain = pg_sys::LookupTypeNameOid(std::ptr::null_mut(), name, true);
        match statement.subtype as u8 {
            _ if domain == pg_sys::InvalidOid => (Pending::None, false),
            b'V' => (Pending::Domain { domain, name: statement.name, before: std::ptr::null_mut() }, true),
            b'C' if !(*statement.def.cast::<pg_sys::Constraint>()).skip_validation => {
                trust(statement.def.cast());
                let before = constraint::not_valid_of_domain(domain);
                let before = before.into_iter().fold(std::ptr::null_mut(), |list, oid| pg_sys::lappend_oid(list, oid));
                (Pending::Domain { domain, name: std::ptr::null(), before }, false)
            }
            _ => (Pending::None, false),
        }
    }
}

/// # Safety
/// The statement that `pending` came from must have run, and its parse tree be alive; `find` gives the relation it named.
pub(super) unsafe fn finish(pending: Pending, find: impl Fn(*mut pg_sys::RangeVar) -> Option<Oid>) {
    match pending {
        Pending::None => {}
        Pending::Table { bare, valid, .. } if bare.is_null() && valid.is_null() => {}
        Pending::Table { table, bare, valid } => {
            let Some(table) = find(table) else { return };
            // SAFETY: lists of nodes with strings.
            for column in unsafe { list::pointers::<pg_sys::String>(bare) } {
                // SAFETY: as above.
                unsafe { take_default(table, (*column).sval) }
            }
            // SAFETY: as above.
            for name in unsafe { list::pointers::<pg_sys::String>(valid) } {
                // SAFETY: as above.
                let name = unsafe { CStr::from_ptr((*name).sval) };
                if !constraint::set_valid(table, name) {
                    missing(name);
                }
            }
        }
        Pending::Domain { domain, name, before } => {
            // SAFETY: null or of the parse tree; a list of OIDs.
            let (name, before) = unsafe { ((!name.is_null()).then(|| CStr::from_ptr(name)), list::oids(before)) };
            let is_found = constraint::set_valid_of_domain(domain, name, &before);
            if let Some(name) = name.filter(|_| !is_found) {
                missing(name);
            }
        }
    }
}

fn missing(name: &CStr) -> ! {
    pgrx::ereport!(
        PgLogLevel::ERROR,
        PgSqlErrorCode::ERRCODE_UNDEFINED_OBJECT,
        format!("constraint \"{}\" does not exist", encoding::text(name))
    );
    unreachable!("an ERROR does not return")
}

/// Takes its default from a new column of the table and of those below it.
///
/// # Safety
/// `column` must be a C string.
unsafe fn take_default(table: Oid, column: *const std::ffi::c_char) {
    // SAFETY: between two commands; the defaults were made by the last one.
    unsafe {
        pg_sys::CommandCounterIncrement();
        for relation in relation::with_children(table) {
            let attribute = pg_sys::get_attnum(relation, column);
            pg_sys::ffi::pg_guard_ffi_boundary(|| {
                RemoveAttrDefault(relation, attribute, pg_sys::DropBehavior::DROP_RESTRICT, false, true);
            });
        }
        pg_sys::CommandCounterIncrement();
    }
}

/// A constraint that the statement would look at rows for.
///
/// # Safety
/// `constraint` must be of a parse tree.
unsafe fn trust(constraint: *mut pg_sys::Constraint) {
    // SAFETY: by contract.
    unsafe {
        let is_checked = matches!((*constraint).contype, ConstrType::CONSTR_CHECK | ConstrType::CONSTR_FOREIGN);
        if is_checked && !(*constraint).skip_validation {
            (*constraint).skip_validation = true;
            (*constraint).initially_valid = true;
        }
    }
}

/// A literal of no type yet.
unsafe fn constant(value: Option<&str>) -> *mut pg_sys::Node {
    // SAFETY: the node is palloc'd, and so is the copy of the text; a text that PostgreSQL gave has no zero byte.
    unsafe {
        let literal = node::<pg_sys::A_Const>(Tag::T_A_Const);
        (*literal).location = -1;
        match value.and_then(encoding::c_string) {
            None => (*literal).isnull = true,
            Some(value) => {
                (*literal).val.sval = pg_sys::String { type_: Tag::T_String, sval: pg_sys::pstrdup(value.as_ptr()) };
            }
        }
        literal.cast()
    }
}

/// `ALTER COLUMN column SET DEFAULT expression`
unsafe fn set_default(column: *mut std::ffi::c_char, expression: *mut pg_sys::Node) -> *mut pg_sys::AlterTableCmd {
    // SAFETY: as the parser makes it.
    unsafe {
        let command = node::<pg_sys::AlterTableCmd>(Tag::T_AlterTableCmd);
        (*command).subtype = Kind::AT_ColumnDefault;
        (*command).name = column;
        (*command).def = expression;
        command
    }
}

/// # Safety
/// `T` must be the type of nodes with this tag, for which all bits zero is a value.
unsafe fn node<T>(tag: Tag) -> *mut T {
    // SAFETY: by contract; each node begins with its tag.
    unsafe {
        let node = pg_sys::palloc0(size_of::<T>()).cast::<T>();
        (*node.cast::<pg_sys::Node>()).type_ = tag;
        node
    }
}
