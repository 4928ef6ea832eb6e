//! The hook on utility statements, and running one from its text.
//!
//! PostgreSQL's own code runs between `before` and `after` without a Rust frame that would turn its errors into panics and back:
//! they pass with all their fields (position, constraint, context). So nothing may need a `Drop` across it.

use std::cell::Cell;
use std::ffi::CStr;
use std::sync::OnceLock;

use pgrx::pg_sys;
use postgres_r_protocol::tablespaces::Map;

use super::alter::{self, Given};
use super::bearing::{self, Bearing};
use super::database::{self, About};
use super::encoding;
use super::named::find;
use super::names::Oid;
use super::statement::{self, Class, classify, command_tag, ends_block, explained};
use super::{
    about_tables, concurrent, detach, extension, global, making, materialized, subscription, summons, tablespace, target,
    type_users,
};

#[derive(Clone, Copy)]
pub struct Listener {
    /// May raise an error; the statement then does not run.
    pub before: fn(&mut Utility),
    /// Only if the statement succeeded.
    pub after: fn(&mut Utility),
}

struct Hook {
    listener: Listener,
    previous: pg_sys::ProcessUtility_hook_type,
}

static HOOK: OnceLock<Hook> = OnceLock::new();

/// What [`Listener::after`] has to do once the statement has run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing.
    Through,
    /// The statement is part of another, or only locks: what `before` has put off is left to do.
    Part,
    /// What the statement touched was watched, and is to be looked at.
    Whole,
    /// It was only noted that the statement runs.
    Noted,
    /// It ran in several transactions, of which the last is open.
    Concurrent,
    /// It has made a database under another name than its own.
    Made,
}

/// Tells one run of a utility statement from all others of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Serial(u64);

thread_local! {
    static RUNS: Cell<u64> = const { Cell::new(0) };
}

impl Serial {
    /// Of none.
    pub const NONE: Serial = Serial(0);

    fn next() -> Serial {
        RUNS.set(RUNS.get() + 1);
        Serial(RUNS.get())
    }
}

/// A utility statement.
pub struct Utility {
    pub serial: Serial,
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    left_out: alter::Pending,
    /// Nothing is left of the statement.
    is_done: bool,
    pub stage: Stage,
}

unsafe extern "C-unwind" {
    /// As pgrx binds it, but without the guard.
    #[link_name = "standard_ProcessUtility"]
    fn run_by_postgres(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        read_only_tree: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        params: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        destination: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
}

/// Shows every utility statement to `listener`. Once, while libraries are preloaded.
pub fn on_utility(listener: Listener) {
    // SAFETY: a plain variable, set while the library loads; the previous value is kept and called.
    unsafe {
        if HOOK.set(Hook { listener, previous: pg_sys::ProcessUtility_hook }).is_ok() {
            pg_sys::ProcessUtility_hook = Some(process);
        }
    }
}

/// # Safety
/// Called by PostgreSQL. Not guarded: an ERROR passes through this frame, in which nothing needs a `Drop`.
unsafe extern "C-unwind" fn process(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only_tree: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    params: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    destination: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    let (serial, left_out, stage) = (Serial::next(), alter::Pending::None, Stage::Through);
    let mut utility = Utility { serial, statement, text, read_only_tree, context, left_out, is_done: false, stage };
    // SAFETY: passes on what we were given, but for a statement that `before` replaced by a copy.
    unsafe {
        let is_end = ends_block(utility.node());
        if is_end {
            summons::statement_ends_block();
        } else {
            summons::statement_is_known();
        }
        before(&mut utility);
        let (statement, read_only_tree) = (utility.statement, utility.read_only_tree);
        let run = HOOK.get().and_then(|hook| hook.previous).unwrap_or(run_by_postgres);
        let context = utility.context;
        if !utility.is_done {
            run(statement, text, read_only_tree, context, params, environment, destination, completion);
        }
        if is_end {
            summons::block_is_ending();
        }
        after(&mut utility);
    }
}

/// # Safety
/// `utility` must be valid.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn before(utility: *mut Utility) {
    if let Some(hook) = HOOK.get() {
        // SAFETY: by contract.
        (hook.listener.before)(unsafe { &mut *utility });
    }
}

/// # Safety
/// `utility` must be valid.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn after(utility: *mut Utility) {
    // SAFETY: by contract.
    let utility = unsafe { &mut *utility };
    if let Some(hook) = HOOK.get().filter(|_| utility.stage != Stage::Through) {
        (hook.listener.after)(utility);
    }
}

impl Utility {
    pub(super) fn node(&self) -> *mut pg_sys::Node {
        // SAFETY: the hook is only called with utility statements.
        unsafe { (*self.statement).utilityStmt }
    }

    pub fn class(&self) -> Class {
        // SAFETY: a parse tree that lives as long as the call.
        unsafe { classify(self.node()) }
    }

    pub fn bearing(&self) -> Bearing {
        // SAFETY: as above.
        unsafe { bearing::of(self.node()) }
    }

    /// Its name as in a command tag.
    pub fn tag(&self) -> String {
        // SAFETY: as above.
        unsafe { command_tag(self.node()) }
    }

    /// What it is about, if PostgreSQL has reported nothing. To be asked when it has run.
    pub fn targets(&self) -> Vec<target::Address> {
        // SAFETY: as above.
        unsafe { target::targets(self.node()) }
    }

    /// The tables that it will have for itself, as far as can be told before it has run; `targets` are what its class says.
    pub fn tables(&self, targets: &[Oid]) -> about_tables::Tables {
        // SAFETY: as above.
        unsafe { about_tables::of(self.node(), targets) }
    }

    /// The tables that hold values of the types that it changes, if those can be told.
    pub fn tables_of_types(&self) -> Option<Vec<Oid>> {
        // SAFETY: as above.
        unsafe { type_users::of(self.node()) }
    }

    /// The whole database that it is about, if it is about one and the database is there.
    pub fn about_database(&self) -> Option<About> {
        // SAFETY: as above.
        unsafe { database::about(self.node()) }
    }

    /// What it does to databases as such, if anything.
    pub fn about_databases(&self) -> Option<making::Statement> {
        // SAFETY: as above.
        unsafe { making::statement(self.node()) }
    }

    /// The CREATE DATABASE makes a database of another name.
    pub fn make_under(&mut self, name: &str) {
        // SAFETY: the tree is copied before it is changed.
        unsafe {
            self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
            self.read_only_tree = false;
            making::name_otherwise(self.node(), name);
        }
    }

    /// The table that it makes a view of, as old dumps do it: CREATE RULE ... ON SELECT.
    pub fn makes_view_of(&self) -> Option<Oid> {
        // SAFETY: as above; the tag says what the node is.
        unsafe {
            let node = self.node();
            let rule = ((*node).type_ == pg_sys::NodeTag::T_RuleStmt).then(|| &*node.cast::<pg_sys::RuleStmt>())?;
            (rule.event == pg_sys::CmdType::CMD_SELECT).then(|| find(rule.relation)).flatten()
        }
    }

    /// The tablespace that it names, but for the default one.
    pub fn tablespace(&self) -> Option<String> {
        // SAFETY: as above.
        unsafe { tablespace::named(self.node()) }
    }

    /// Whether it is about tablespaces or databases of this server.
    pub fn is_of_server(&self) -> bool {
        // SAFETY: as above.
        unsafe { statement::is_of_server(self.node()) }
    }

    /// ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY.
    pub fn detaches(&self) -> bool {
        // SAFETY: as above.
        unsafe { detach::concurrent(self.node()).is_some() }
    }

    /// VACUUM, and not ANALYZE alone.
    pub fn vacuums(&self) -> bool {
        // SAFETY: as above; the tag says what the node is.
        unsafe {
            let node = self.node();
            (*node).type_ == pg_sys::NodeTag::T_VacuumStmt && (*node.cast::<pg_sys::VacuumStmt>()).is_vacuumcmd
        }
    }

    /// REINDEX.
    pub fn reindexes(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.node()).type_ == pg_sys::NodeTag::T_ReindexStmt }
    }

    /// DROP TABLE, INDEX and the like.
    pub fn drops(&self) -> bool {
        // SAFETY: as above.
        unsafe { (*self.node()).type_ == pg_sys::NodeTag::T_DropStmt }
    }

    /// DISCARD ALL.
    pub fn discards_all(&self) -> bool {
        // SAFETY: a parse tree that lives as long as the call; the tag says of which kind.
        unsafe {
            let node = self.node();
            (*node).type_ == pg_sys::NodeTag::T_DiscardStmt
                && (*node.cast::<pg_sys::DiscardStmt>()).target == pg_sys::DiscardMode::DISCARD_ALL
        }
    }

    /// Whether a client has sent it as a statement by itself.
    pub fn is_top_level(&self) -> bool {
        self.context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_TOPLEVEL
    }

    /// All that it is to do has been done.
    pub fn has_been_done(&mut self) {
        self.is_done = true;
    }

    pub fn is_done(&self) -> bool {
        self.is_done
    }

    /// Whether it is a part of another statement, which travels as a whole.
    pub fn is_subcommand(&self) -> bool {
        self.context == pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND
    }

    /// From here on it counts as a part of the statement that runs it: no event trigger fires for it by itself.
    pub fn make_part(&mut self) {
        self.context = pg_sys::ProcessUtilityContext::PROCESS_UTILITY_SUBCOMMAND;
    }

    /// The schema into which a foreign table is imported, if that is what this part of a statement does.
    pub fn imports_into(&self) -> Option<String> {
        // SAFETY: a parse tree that lives as long as the call.
        self.is_subcommand().then(|| unsafe { extension::imported_into(self.node()) }).flatten()
    }

    /// The statement's own text, cut out of what the client sent; none if it is not UTF-8.
    pub fn text(&self) -> Option<String> {
        // SAFETY: the location counts bytes of the text; a length of 0 means to its end.
        let bytes = unsafe {
            let all = CStr::from_ptr(self.text).to_bytes();
            let start = usize::try_from((*self.statement).stmt_location).unwrap_or(0).min(all.len());
            match usize::try_from((*self.statement).stmt_len) {
                Ok(length) if length > 0 => &all[start..(start + length).min(all.len())],
                _ => &all[start..],
            }
        };
        encoding::exactly(bytes)
    }

    /// Takes out of a statement, which another node has sent, what it is not to evaluate again.
    pub fn leave_out_decided(&mut self, tablespaces: &Map) {
        use pg_sys::NodeTag::T_IndexStmt;
        use pg_sys::NodeTag::{T_AlterDomainStmt, T_AlterTableStmt, T_CreateForeignTableStmt, T_CreateStmt};
        use pg_sys::NodeTag::{T_AlterRoleStmt, T_CreateRoleStmt, T_CreateTableAsStmt, T_ExplainStmt, T_RefreshMatViewStmt};
        // SAFETY: the tree is copied before anything in it may be changed.
        unsafe {
            let mut tag = (*self.node()).type_;
            if tag == T_ExplainStmt {
                // Only one that makes something comes here. Nobody reads the plan.
                self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
                let Some(made) = explained(&*self.node().cast()) else { return };
                (*self.statement).utilityStmt = made.cast();
                tag = T_CreateTableAsStmt;
            }
            let is_of_view = matches!(tag, T_CreateTableAsStmt | T_RefreshMatViewStmt);
            let is_of_role = matches!(tag, T_AlterRoleStmt | T_CreateRoleStmt);
            if tag == pg_sys::NodeTag::T_IndexStmt && (*self.node().cast::<pg_sys::IndexStmt>()).concurrent {
                self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
                tablespace::put_own(self.node(), tablespaces);
                concurrent::enter(self.node(), self.text);
                self.is_done = true;
                return;
            }
            let is_of_table = matches!(tag, T_AlterTableStmt | T_CreateForeignTableStmt | T_CreateStmt);
            if !is_of_view && !is_of_role && !is_of_table && !matches!(tag, T_AlterDomainStmt | T_IndexStmt) {
                return;
            }
            self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
            self.read_only_tree = false;
            tablespace::put_own(self.node(), tablespaces);
            if tag == T_AlterTableStmt {
                if let Some(tables) = detach::concurrent(self.node()) {
                    detach::mark(tables, alter::given());
                    self.is_done = true;
                    return;
                }
                let statement = &mut *self.node().cast::<pg_sys::AlterTableStmt>();
                self.left_out = alter::leave_out(statement, find(statement.relation));
            } else if is_of_view {
                materialized::leave_out_query(self.node());
            } else if is_of_role {
                alter::leave_out_of_role(self.node());
            } else if is_of_table {
                alter::leave_out_of_table(self.node().cast());
            } else if tag == T_AlterDomainStmt {
                (self.left_out, self.is_done) = alter::leave_out_of_domain(&mut *self.node().cast());
            }
        }
    }

    /// What it is about, if that is a subscription and more than its definition.
    pub fn about_subscription(&self) -> Option<subscription::Statement> {
        // SAFETY: as above.
        unsafe { subscription::statement(self.node()) }
    }

    /// Of ALTER SUBSCRIPTION ... ENABLE: it disables instead.
    pub fn disable_subscription(&mut self) {
        // SAFETY: the tree is copied before anything in it is changed.
        unsafe {
            self.statement = pg_sys::copyObjectImpl(self.statement.cast()).cast();
            self.read_only_tree = false;
            subscription::disable(self.node());
        }
    }

    /// The verifier that a statement with a password has left. To be asked when it has run, and what it did is visible.
    pub fn verifier(&self) -> Option<String> {
        // SAFETY: a parse tree that lives as long as the call.
        unsafe { global::verifier(self.node()) }
    }

    pub fn finish_left_out(&self) {
        // SAFETY: the statement has run, its tree is alive.
        unsafe { alter::finish(self.left_out, |relation| find(relation)) }
    }
}

/// Runs a statement from its text, through SPI, without what was decided already. Errors are PostgreSQL's own.
pub fn run_text(text: &CStr, given: Option<Given>) {
    alter::give(given);
    // SAFETY: connects, runs, disconnects; an ERROR in between cleans up by itself.
    unsafe {
        pg_sys::SPI_connect();
        let result = pg_sys::SPI_execute(text.as_ptr(), false, 0);
        if result < 0 {
            pgrx::error!("could not run an ordered statement: SPI result {result}");
        }
        pg_sys::SPI_finish();
    }
}
