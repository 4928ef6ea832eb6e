//! DDL and LOCK TABLE wait for the writers of all nodes, and those for them, with `postgres_r.table_locks = group` (docs/adr/0049-tables-in-the-group.md).
//!
//! On one server DDL takes a table's lock: it waits for those who have written to the table, and whoever comes later waits behind it. Of a group's servers each has its own lock
//! manager, and DDL that holds the table here is in the way of what others have written there, all the time where the table is busy: it would lose for ever. So before the statement
//! begins its tables are locked in the group, and cleared of the other nodes' writers:
//!
//! ```text
//! n1: ALTER TABLE t     1. has t's lock in the group, alone
//!                       2. asks the others to close t: who comes to it there asks for a share of the lock, and waits
//!                       3. hears from each that those have ended who were in t before, and up to which position they have committed
//!                       4. waits until that is committed here. No row of t is on its way now from another node
//!                       5. runs as ever: t's lock on this server, capture, COMMIT
//! order:                t's lock is free where the transaction is decided, and those who wait get their shares
//! n2: UPDATE t          goes on when the ALTER TABLE is committed here; has t's lock on its server, and gives its share back
//! ```
//!
//! The tables that a statement is about are cleared before those that foreign keys bind to them: a writer who is in the first and comes to the second next is waited for, as on one server.
//!
//! Where the statement lets nobody in at all (ALTER TABLE and the like), those count too who have read the table in a transaction that began before: the first of them who goes on to write is waited for,
//! as on one server. Others who have read it and then come to write wait, and give way when the statement is applied.
//!
//! Nobody waits for writers longer than [`CLEARED_WITHIN`]; then they are overtaken, and lose as they ever did. So neither an idle session stops a group's DDL, nor does
//! a circle of waits last that goes through a writer of another node, which no deadlock detector sees as a whole.
//!
//! What the database keeps consistent does not depend on any of it: certification decides.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gcs_writeset::bounds::TABLES_MAX;
use gcs_writeset::key::name_hash;
use gcs_writeset::link::{Rehearsal, Request};
use gcs_writeset::{Key, Lock, LockKey, LockMode, Position, TableName, tables};
use postgres_r_protocol::closed::{Closing, Concerns};

use super::held::{self, Answer};
use super::hot_rows;
use super::others::{self, Asked};
use super::row_locks::ROWS_MAX;
use crate::error;
use crate::guc::{self, LockScope};
use crate::node::DatabaseArea;
use crate::pg::holding_back::{self, Written};
use crate::pg::relation::{self, Entry, Oid, Open, Persistence, RelationKind};
use crate::pg::statement::{Class, TableLock};
use crate::pg::utility::Utility;
use crate::pg::{advisory, interrupt, privilege, writers, xact};
use crate::{relations, session};

/// How long the writers of other nodes are waited for.
const CLEARED_WITHIN: Duration = Duration::from_secs(5);

/// With NOWAIT: as long as it takes to look.
const AT_ONCE: Duration = Duration::from_millis(50);

/// Beyond that, for the answer.
const ANSWER_TAKES: Duration = Duration::from_millis(500);

thread_local! {
    /// Closings of which this transaction was in a table before: it is waited for, and waits for nobody.
    static IN: RefCell<BTreeSet<u64>> = const { RefCell::new(BTreeSet::new()) };
    /// Shares that it was given, until it has this server's locks; each with the table that it is of.
    static SHARES: RefCell<Vec<(Option<Oid>, Lock)>> = const { RefCell::new(Vec::new()) };
}

/// Called while libraries are preloaded.
pub fn install() {
    holding_back::install(holding_back::Listener { any: is_any_closed, wanted: is_closed, wait, passed });
}

/// The end of every transaction, and of a subtransaction that is rolled back.
pub fn reset() {
    IN.set(BTreeSet::new());
    SHARES.set(Vec::new());
}

fn is_wanted() -> bool {
    session::is_captured() && guc::table_locks() == LockScope::Group && held::takes_rows(ROWS_MAX) && hot_rows::can_wait()
}

/// What a statement wants of its tables.
#[derive(Clone, Copy)]
struct Wish {
    /// Its own lock lets those in who lock rows, or read them.
    shares: bool,
    waits: bool,
}

/// A statement is about to run: its tables are its own when this returns, or the group can't be asked. Whether there was a wait, after which names may mean something else.
pub fn before(utility: &Utility, class: &Class) -> bool {
    if !is_wanted() {
        return false;
    }
    match class {
        Class::Ordered(ordered) if may_write() => {
            let mut tables = utility.tables(&ordered.targets);
            if ordered.changes_types {
                tables.own.extend(utility.tables_of_types().unwrap_or_default());
            }
            let own = lock(&with_children(&tables.own), Wish { shares: tables.shares, waits: true });
            lock(&with_children(&tables.bound), Wish { shares: tables.shares_bound, waits: true }) || own
        }
        Class::Lock(oids, TableLock::AgainstWriters) if may_write() => {
            let tables = utility.tables(oids);
            lock(oids, Wish { shares: tables.shares, waits: tables.waits })
        }
        Class::CopyIn(table) if is_any_closed() => {
            let written = [Written { table: *table, changes: true }];
            if !is_closed(&written) {
                return false;
            }
            let has_waited = wait(&written);
            drop(Open::by_oid(*table, relation::Lock::RowExclusive));
            passed();
            has_waited
        }
        _ => false,
    }
}

/// The table is about to be closed to writers on this server: those of other nodes leave it first, as before a statement that is about it.
pub fn keep_writers_off(table: Oid) {
    if is_wanted() && may_write() {
        lock(&with_children(&[table]), Wish { shares: true, waits: true });
    }
}

/// Whoever may not write here has no say in the group.
fn may_write() -> bool {
    !xact::is_read_only() && session::database().is_some_and(|area| !area.replica.is_query_only())
}

/// Tables that others may write to, and materialized views, of these relations and all below them.
fn with_children(relations: &[Oid]) -> Vec<Oid> {
    let mut tables = Vec::new();
    for &oid in relations {
        let table = relation::table_of_index(oid).unwrap_or(oid);
        if relation::entry(table).is_some_and(|entry| is_table(&entry)) {
            let below = relation::with_children(table).into_iter();
            tables.extend(below.filter(|oid| !relation::is_of_this_transaction(*oid)));
        }
    }
    tables
}

fn is_table(entry: &Entry) -> bool {
    matches!(entry.kind, RelationKind::Table | RelationKind::PartitionedTable | RelationKind::MaterializedView)
        && entry.persistence == Persistence::Permanent
        && !entry.is_internal
}

/// Whoever may not disturbs nobody, and hears of it from PostgreSQL. Who may lock a table may lock what is below it.
fn may_lock(oid: Oid) -> bool {
    relation::with_parents(oid).into_iter().any(privilege::may_lock)
}

fn key_of(schema: &str, name: &str) -> Key {
    relations::relation_key(name_hash(&[schema, name]))
}

/// Locks these tables in the group, and has other nodes' writers leave them. Whether anything was to be done.
///
/// A statement that `shares` its tables with those who lock rows (CREATE INDEX) would have them fail when they change a row next, since in certification who locks a row is in the
/// table. It waits for those of this node, too. Not one that will need more than it gets here: a reader who goes on to write would wait for the former, and be waited for by the latter.
fn lock(oids: &[Oid], wish: Wish) -> bool {
    let Some(area) = session::database() else { return false };
    let oids: Vec<Oid> = oids.iter().copied().filter(|oid| may_lock(*oid)).collect();
    let mut names = Vec::new();
    let mut seen = Position::ZERO;
    for Entry { schema, name, .. } in oids.iter().filter_map(|oid| relation::entry(*oid)).filter(is_table) {
        let lock = Lock { key: LockKey::of_table(key_of(&schema, &name)), mode: LockMode::Exclusive };
        if held::holds(&lock) || names.len() == TABLES_MAX {
            continue;
        }
        match held::ask(lock, wish.waits) {
            Ok(Answer::Granted(position)) => seen = seen.max(position),
            Ok(Answer::NotAvailable) => error::table_not_available(&name).raise(),
            Err(failure) if failure.is_of_wait() => failure.raise(),
            // Certification decides.
            Ok(_) | Err(_) => return !names.is_empty(),
        }
        held::count_advice(lock);
        names.push(TableName { schema, name });
    }
    if names.is_empty() {
        return false;
    }
    seen = seen.max(clear(area, &names, wish));
    held::sees_within(seen, guc::commit_timeout());
    if wish.shares && wish.waits {
        oids.iter().for_each(|oid| drop(Open::by_oid(*oid, relation::Lock::Exclusive)));
    }
    true
}

/// Has writers of other nodes leave these tables, and keeps them out. Up to where they have committed.
fn clear(area: &DatabaseArea, names: &[TableName], wish: Wish) -> Position {
    let (lock_timeout, _) = advisory::timeouts();
    let limit = Duration::from_millis(lock_timeout);
    let is_limited = !limit.is_zero() && limit < CLEARED_WITHIN;
    let patience = match wish.waits {
        true if is_limited => limit,
        true => CLEARED_WITHIN,
        false => AT_ONCE,
    };
    let request = Request::Clear { patience_ms: u32::try_from(patience.as_millis()).unwrap_or(u32::MAX) };
    let tables = tables::encode(!wish.shares, names);
    let (mut committed, mut is_clear) = (Position::ZERO, true);
    let started = Instant::now();
    let asked = others::ask(area, (&request, &tables), patience + ANSWER_TAKES, |_, outcome| {
        match outcome {
            Rehearsal::Clear { committed: there } => committed = committed.max(*there),
            Rehearsal::Absent => {}
            Rehearsal::Passed | Rehearsal::Partly | Rehearsal::Failed(_) => is_clear = false,
        }
        ControlFlow::Continue(())
    });
    interrupt::check();
    let counters = &area.replica.counters;
    counters.tables_cleared.one();
    if !(is_clear && matches!(asked, Ok(Asked::All(_)))) {
        counters.tables_not_cleared.one();
        // Else something else was in the way than writers.
        let has_waited = started.elapsed() >= patience;
        match names.first() {
            Some(table) if has_waited && !wish.waits => error::table_not_available(&table.name).raise(),
            _ if has_waited && is_limited => error::lock_timeout().raise(),
            _ => {}
        }
    }
    committed
}

fn is_any_closed() -> bool {
    session::database().is_some_and(|area| area.closed.any()) && is_wanted()
}

/// What keeps those who come to a table from it, each closing with its lock.
fn closings(area: &DatabaseArea, written: Written) -> Vec<(Lock, Closing)> {
    let of = |closing: Closing| (Lock { key: LockKey::of_table(closing.key), mode: LockMode::Shared }, closing);
    let found = area.closed.of(written.table.to_u32(), written.changes).map(of);
    found.filter(|(lock, closing)| !IN.with_borrow(|known| known.contains(&closing.number)) && !held::serves(lock)).collect()
}

fn is_closed(written: &[Written]) -> bool {
    let Some(area) = session::database() else { return false };
    written.iter().any(|written| !closings(area, *written).is_empty())
}

/// Whether this transaction was in one of the tables that were closed with this one before they were.
fn was_in(area: &DatabaseArea, closing: &Closing) -> bool {
    let has_begun_before = || u64::try_from(xact::started()).is_ok_and(|started| started < closing.at);
    let reads_count = closing.alone && has_begun_before();
    area.closed.tables(closing.number, None).any(|(table, _)| {
        let table = Oid::from(table);
        writers::am_in(table) || reads_count && writers::have_read(table)
    })
}

/// Waits for those who have locked these tables.
fn wait(written: &[Written]) -> bool {
    let Some(area) = session::database() else { return false };
    // What this statement held it holds no more.
    session::locks_released();
    let mut has_waited = false;
    for written in written {
        for (lock, closing) in closings(area, *written) {
            if was_in(area, &closing) {
                IN.with_borrow_mut(|known| known.insert(closing.number));
                continue;
            }
            has_waited = true;
            match held::ask(lock, true) {
                Ok(Answer::Granted(position)) => {
                    held::count_advice(lock);
                    let mut tables = area.closed.tables(closing.number, Some(closing.key));
                    let table = tables.find(|(_, how)| *how == Concerns::ItsWriters).map(|(table, _)| Oid::from(table));
                    SHARES.with_borrow_mut(|shares| shares.push((table, lock)));
                    area.closed.open(closing.number, closing.key);
                    held::sees_within(position, guc::commit_timeout());
                }
                Err(failure) if failure.is_of_wait() => failure.raise(),
                // Certification decides; nothing is gained by asking again in this transaction.
                Ok(_) | Err(_) => {
                    IN.with_borrow_mut(|known| known.insert(closing.number));
                }
            }
        }
    }
    has_waited
}

/// Who has this server's lock on the table is there for everybody to see, and needs no share. One that the statement's own refers to, or that a view shows, it would lock only later.
fn passed() {
    for (table, lock) in SHARES.take() {
        if let Some(table) = table.filter(|table| !writers::am_in(*table)) {
            drop(Open::by_oid(table, relation::Lock::RowShare));
        }
        held::take_back(lock);
    }
}
