//! Holding back a statement that is about to change or to lock rows of a table, before it has a lock on the table.
//!
//! PostgreSQL locks what a statement is about while it analyses the statement, and there is no hook before that. The hook behind it gives all those locks back, waits, and has
//! the statement analysed again, from its text: in between the tables may have become others. So does PostgreSQL itself with a plan that it has kept, and finds out of date when it
//! has its locks.
//!
//! ```text
//! parse_analyze     locks t: ROW EXCLUSIVE
//! hook              the listener wants it held back: gives the lock back, and the listener waits
//! hook              analyses it anew, which locks t; if the listener has waited, looks again
//! ```
//!
//! A statement whose text can't be found again (a part of another, an expression of PL/pgSQL), or that may mean something else by now (what a backslash means depends on settings), is not
//! held back; nor is one in which the analysis has made two entries of one (a row that is expanded), since how many locks it took can't be told then. One whose plan was kept is not analysed, and so comes here only when
//! its plan is out of date: whoever wants it held back sees to that ([`super::writers::forget_plans`]).

use std::ffi::{CStr, c_void};
use std::sync::OnceLock;

use pgrx::pg_sys;
use pgrx::pg_sys::NodeTag as Tag;

use super::list;
use super::majors::query::{expression_tree_walker, query_tree_walker};
use super::names::Oid;
use super::writers;

/// A table that a statement comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub table: Oid,
    /// To change rows, and not only to lock them.
    pub changes: bool,
}

#[derive(Clone, Copy)]
pub struct Listener {
    /// Whether anything may have to be held back, for now.
    pub any: fn() -> bool,
    /// Whether who comes to these is to be held back.
    pub wanted: fn(&[Written]) -> bool,
    /// Waits. No lock of the statement's own is held. Whether there was anything to wait for.
    pub wait: fn(&[Written]) -> bool,
    /// The statement has its locks again. Not called if it could not be analysed: the transaction, or a part of it, is rolled back then.
    pub passed: fn(),
}

static LISTENER: OnceLock<Listener> = OnceLock::new();

/// Called while libraries are preloaded.
pub fn install(listener: Listener) {
    let _ = LISTENER.set(listener);
}

/// Looks at a statement again so many times.
const ROUNDS_MAX: usize = 10;

/// How deep views of views are looked into.
const VIEWS_MAX: usize = 16;

// Of the parser. Without pgrx's guard: errors of the analysis pass with all their fields.
unsafe extern "C-unwind" {
    fn make_parsestate(parent: *mut pg_sys::ParseState) -> *mut pg_sys::ParseState;
    fn free_parsestate(state: *mut pg_sys::ParseState);
    fn transformTopLevelStmt(state: *mut pg_sys::ParseState, statement: *mut pg_sys::RawStmt) -> *mut pg_sys::Query;
}

/// # Safety
/// To be called by the hook behind the analysis, with what it was given. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
pub(super) unsafe fn after_analysis(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) {
    if !LISTENER.get().is_some_and(|listener| (listener.any)()) {
        return;
    }
    for _ in 0..ROUNDS_MAX {
        // SAFETY: by contract; after the first round, of what was analysed last.
        unsafe {
            let mut held = Held { statement: std::ptr::null_mut(), has_waited: false };
            hold_back(state, query, &mut held);
            if held.statement.is_null() {
                return;
            }
            analyse_again(state, query, held.statement);
            pass();
            if !held.has_waited {
                return;
            }
        }
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn pass() {
    if let Some(listener) = LISTENER.get() {
        (listener.passed)();
    }
}

/// What came of holding back: nothing if there is no statement.
struct Held {
    statement: *mut pg_sys::RawStmt,
    has_waited: bool,
}

/// # Safety
/// As [`after_analysis`].
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn hold_back(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query, held: *mut Held) {
    let Some(listener) = LISTENER.get() else { return };
    // SAFETY: by contract.
    unsafe {
        let entries = entries_of(query);
        let written = written(&entries);
        if written.is_empty() || !(listener.wanted)(&written) || are_copied(&entries) {
            return;
        }
        let statement = statement_of(state, query);
        if statement.is_null() {
            return;
        }
        // Else a table that is dropped meanwhile would be gone from under it.
        if !(*state).p_target_relation.is_null() {
            pg_sys::table_close((*state).p_target_relation, pg_sys::NoLock as i32);
            (*state).p_target_relation = std::ptr::null_mut();
        }
        entries.iter().for_each(|&entry| writers::release((*entry).relid, (*entry).rellockmode));
        (*held).has_waited = (listener.wait)(&written);
        (*held).statement = statement;
    }
}

/// The entries of a query's range tables that stand for relations which the analysis has locked.
///
/// # Safety
/// `query` must be what came out of the analysis.
unsafe fn entries_of(query: *mut pg_sys::Query) -> Vec<*mut pg_sys::RangeTblEntry> {
    let mut entries: Vec<*mut pg_sys::RangeTblEntry> = Vec::new();
    // SAFETY: by contract; the walker is given what it takes.
    unsafe { walk(query.cast(), (&raw mut entries).cast()) };
    entries
}

/// # Safety
/// Called by the tree walkers with nodes or null, and a vector of entries. Nothing in this frame needs a `Drop`.
unsafe extern "C-unwind" fn walk(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    // SAFETY: by contract; the tag says what a node is.
    unsafe {
        if node.is_null() {
            return false;
        }
        match (*node).type_ {
            Tag::T_Query => {
                let query = node.cast::<pg_sys::Query>();
                if !(*query).utilityStmt.is_null() {
                    return false;
                }
                query_tree_walker(query, walk, context, pg_sys::QTW_EXAMINE_RTES_BEFORE as i32)
            }
            Tag::T_RangeTblEntry => {
                let entry = node.cast::<pg_sys::RangeTblEntry>();
                // The pseudo-relation EXCLUDED of ON CONFLICT has the kind of a row type, and no lock of its own.
                if (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION
                    && (*entry).relkind as u8 != pg_sys::RELKIND_COMPOSITE_TYPE
                {
                    (*context.cast::<Vec<*mut pg_sys::RangeTblEntry>>()).push(entry);
                }
                false
            }
            _ => expression_tree_walker(node, walk, context),
        }
    }
}

/// Whether one entry may be a copy of another, which has no lock of its own.
///
/// # Safety
/// The entries must be live.
unsafe fn are_copied(entries: &[*mut pg_sys::RangeTblEntry]) -> bool {
    let pairs = entries.iter().enumerate().flat_map(|(at, one)| entries[..at].iter().map(move |other| (*one, *other)));
    // SAFETY: by contract.
    unsafe { pairs.into_iter().any(|(one, other)| pg_sys::equal(one.cast(), other.cast())) }
}

/// The relations whose rows are changed or locked; of a view those that it shows.
///
/// # Safety
/// The entries must be of relations that this process has locked.
unsafe fn written(entries: &[*mut pg_sys::RangeTblEntry]) -> Vec<Written> {
    let mut written = Vec::new();
    // SAFETY: by contract.
    unsafe {
        for &entry in entries.iter().filter(|&&entry| (*entry).rellockmode >= pg_sys::RowShareLock as i32) {
            let changes = (*entry).rellockmode >= pg_sys::RowExclusiveLock as i32;
            if (*entry).relkind as u8 == pg_sys::RELKIND_VIEW {
                let shown = shown_by((*entry).relid, VIEWS_MAX);
                written.extend(shown.into_iter().map(|table| Written { table, changes }));
            } else {
                written.push(Written { table: (*entry).relid, changes });
            }
        }
    }
    written
}

/// The tables that a view shows. Keeps no lock.
fn shown_by(view: Oid, depth: usize) -> Vec<Oid> {
    let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
    let mut shown = Vec::new();
    // SAFETY: a view that is there has a rule with a query, whose range table holds entries. Read while it is open and locked; what it shows is looked at when it is closed.
    unsafe {
        let relation = pg_sys::try_relation_open(view, lock);
        if relation.is_null() {
            return Vec::new();
        }
        let is_view = (*(*relation).rd_rel).relkind as u8 == pg_sys::RELKIND_VIEW && !(*relation).rd_rules.is_null();
        if is_view && (*(*relation).rd_rules).numLocks > 0 {
            let query = pg_sys::get_view_query(relation);
            let entries = list::pointers::<pg_sys::RangeTblEntry>((*query).rtable).into_iter();
            // OLD and NEW, which a view's rule has, are the view itself.
            let others =
                entries.filter(|&entry| (*entry).rtekind == pg_sys::RTEKind::RTE_RELATION && (*entry).relid != view);
            shown.extend(others.map(|entry| ((*entry).relid, (*entry).relkind as u8)));
        }
        pg_sys::relation_close(relation, lock);
    }
    let mut tables = Vec::new();
    for (oid, kind) in shown {
        match kind {
            pg_sys::RELKIND_VIEW if depth > 0 => tables.extend(shown_by(oid, depth - 1)),
            pg_sys::RELKIND_VIEW => {}
            _ => tables.push(oid),
        }
    }
    tables
}

/// The statement that the query came from, parsed anew from the text; null if that is not it.
///
/// # Safety
/// As [`after_analysis`].
unsafe fn statement_of(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query) -> *mut pg_sys::RawStmt {
    let none = std::ptr::null_mut();
    // SAFETY: by contract; the text is a C string, and was parsed before.
    unsafe {
        if (*state).p_sourcetext.is_null() || !(*state).parentParseState.is_null() {
            return none;
        }
        let text = CStr::from_ptr((*state).p_sourcetext);
        let at = usize::try_from((*query).stmt_location).unwrap_or(0);
        let command = (*query).commandType;
        let begins = |rest: &[u8]| begins_a_statement(rest, command);
        if !text.to_bytes().get(at..).is_some_and(begins) || depends_on_settings(text.to_bytes()) {
            return none;
        }
        let mode = pg_sys::RawParseMode::RAW_PARSE_DEFAULT;
        let parsed = list::pointers::<pg_sys::RawStmt>(pg_sys::raw_parser(text.as_ptr(), mode));
        let found = parsed.into_iter().find(|&statement| (*statement).stmt_location == (*query).stmt_location);
        let Some(statement) = found.filter(|&statement| !(*statement).stmt.is_null()) else { return none };
        // PREPARE has its statement analysed where it stands.
        if (*(*statement).stmt).type_ == Tag::T_PrepareStmt {
            (*statement).stmt = (*(*statement).stmt.cast::<pg_sys::PrepareStmt>()).query;
        }
        if is_of((*statement).stmt, command) { statement } else { none }
    }
}

/// What stands in quotes may have been read under other settings than those of now (`standard_conforming_strings`, `backslash_quote`), if it has either of these.
fn depends_on_settings(text: &[u8]) -> bool {
    text.contains(&b'\\') || text.windows(2).any(|pair| pair.eq_ignore_ascii_case(b"u&"))
}

/// Whether a text is a statement's that does this, so that it can be parsed as one. The expressions of PL/pgSQL do not begin so.
fn begins_a_statement(text: &[u8], command: pg_sys::CmdType::Type) -> bool {
    use pg_sys::CmdType as C;
    let own: &[u8] = match command {
        C::CMD_SELECT => b"select",
        C::CMD_INSERT => b"insert",
        C::CMD_UPDATE => b"update",
        C::CMD_DELETE => b"delete",
        C::CMD_MERGE => b"merge",
        _ => return false,
    };
    let text = without_remarks(text);
    let behind = |word: &[u8]| {
        let (first, rest) = text.split_at_checked(word.len())?;
        let is_whole = rest.first().is_none_or(|next| !next.is_ascii_alphanumeric() && *next != b'_');
        (is_whole && first.eq_ignore_ascii_case(word)).then_some(rest)
    };
    // A variable may go by the name of this word; then something else follows than a name.
    let is_name =
        |rest: &[u8]| without_remarks(rest).first().is_some_and(|next| next.is_ascii_alphabetic() || b"_\"".contains(next));
    behind(own).is_some() || behind(b"with").is_some() || behind(b"prepare").is_some_and(is_name)
}

/// What follows white space, comments and the end of the statement before.
fn without_remarks(mut text: &[u8]) -> &[u8] {
    loop {
        text = text.trim_ascii_start();
        if let Some(rest) = text.strip_prefix(b";") {
            text = rest;
        } else if text.starts_with(b"--") {
            let end = text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len());
            text = &text[end..];
        } else if text.starts_with(b"/*") {
            text = behind_comment(text);
        } else {
            return text;
        }
    }
}

/// Comments nest.
fn behind_comment(text: &[u8]) -> &[u8] {
    let (mut depth, mut at) = (0_usize, 0);
    while let Some(pair) = text.get(at..at + 2) {
        match pair {
            b"/*" => (depth, at) = (depth + 1, at + 2),
            b"*/" if depth == 1 => return &text[at + 2..],
            b"*/" => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
    }
    b""
}

/// # Safety
/// `node` must be null or a node.
unsafe fn is_of(node: *mut pg_sys::Node, command: pg_sys::CmdType::Type) -> bool {
    use pg_sys::CmdType as C;
    if node.is_null() {
        return false;
    }
    // SAFETY: by contract.
    let tag = unsafe { (*node).type_ };
    matches!(
        (tag, command),
        (Tag::T_SelectStmt, C::CMD_SELECT)
            | (Tag::T_InsertStmt, C::CMD_INSERT)
            | (Tag::T_UpdateStmt, C::CMD_UPDATE)
            | (Tag::T_DeleteStmt, C::CMD_DELETE)
            | (Tag::T_MergeStmt, C::CMD_MERGE)
    )
}

/// Puts what comes out of the analysis now in the place of what came out before.
///
/// # Safety
/// As [`after_analysis`]; `statement` must be the one that `query` came from.
unsafe fn analyse_again(state: *mut pg_sys::ParseState, query: *mut pg_sys::Query, statement: *mut pg_sys::RawStmt) {
    // SAFETY: by contract; what the caller of the analysis has told it (the text, parameters and their types) is told again.
    unsafe {
        let anew = make_parsestate(std::ptr::null_mut());
        (*anew).p_sourcetext = (*state).p_sourcetext;
        (*anew).p_queryEnv = (*state).p_queryEnv;
        (*anew).p_pre_columnref_hook = (*state).p_pre_columnref_hook;
        (*anew).p_post_columnref_hook = (*state).p_post_columnref_hook;
        (*anew).p_paramref_hook = (*state).p_paramref_hook;
        (*anew).p_coerce_param_hook = (*state).p_coerce_param_hook;
        (*anew).p_ref_hook_state = (*state).p_ref_hook_state;
        let result = transformTopLevelStmt(anew, statement);
        (*result).queryId = (*query).queryId;
        (*query) = *result;
        free_parsestate(anew);
    }
}
