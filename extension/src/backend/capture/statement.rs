//! Ordered statements: DDL runs on its origin inside the transaction, and travels as its text with its role and settings, in
//! its place among the row changes.
//!
//! What a statement touches is not guessed from its parse tree but reported by PostgreSQL while it runs (`touched`): cascades and
//! inherited effects are covered. Keys: exclusive for each relation touched, by old and new name; and for DDL as such (`overlap`),
//! because statements depend on catalogs in ways that no list of relations shows (a view on a table dropped elsewhere).
//!
//! On the origin and wherever a statement is applied, tables get their capture trigger right after the statement. Whatever is neither local nor
//! ordered is refused by name.

use std::cell::RefCell;
use std::collections::HashSet;
use std::sync::OnceLock;

use gcs_writeset::body::PutItem;
use gcs_writeset::key::name_hash;
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::order::Command;
use postgres_r_protocol::tablespaces::Map;

use super::item::{item_in, item_of, refuse};
use super::running::{Origin, Watched};
use super::touched::Touched;
use super::{
    base, catalogs, concurrently, decided, extensions, global, large_object, making, overlap, reads, running, staying,
    subscriptions, transaction,
};
use crate::backend::{advisory, databases, read_only, table_locks};
use crate::error;
use crate::guc;
use crate::pg::access::{self, Happened, Object};
use crate::pg::bearing;
use crate::pg::global::note_applied;
use crate::pg::relation::{self, Lock, Oid, Open, Persistence, RelationKind};
use crate::pg::statement::{Class, Fills, Ordered, Refusal, TableLock};
use crate::pg::utility::{self, Stage, Utility};
use crate::pg::{capture, definition, extension, heap, materialized, notify, privilege, role, trigger, two_phase, xact};
use crate::{relations, sequences, session};

/// A statement that does nothing.
const NOTHING: &str = "SELECT";

const FINISH: &str = "Use COMMIT PREPARED or ROLLBACK PREPARED.";

static TWO_PHASE: OnceLock<fn(&mut Utility, &two_phase::Statement)> = OnceLock::new();

thread_local! {
    /// What the LOCK TABLE that runs now locks.
    static LOCKING: RefCell<Option<(Vec<Oid>, TableLock)>> = const { RefCell::new(None) };
    /// Relations known to be captured (or to need no capture), as of a count of `relations::changes`.
    static CAPTURED: RefCell<(u64, HashSet<u32>)> = RefCell::default();
}

pub fn init() {
    utility::on_utility(utility::Listener { before, after });
    access::on_access(access::Listener { object: on_object, function: running::on_function });
}

/// Whoever carries out PREPARE TRANSACTION and its kin.
pub fn on_two_phase(run: fn(&mut Utility, &two_phase::Statement)) {
    let _ = TWO_PHASE.set(run);
}

fn on_object(happened: Happened, object: Object) {
    databases::on_object(happened, object);
    let (class, oid) = object.address();
    if happened == Happened::Dropped && extension::is_ours(class, oid) && session::is_captured() {
        let hint = "It is what replicates this database. Stop its replication first.";
        refuse(&Refusal { what: "dropping extension \"postgres_r\"".to_owned(), hint });
    }
    concurrently::on_object(happened, object);
    if happened == Happened::Dropped
        && let Object::Relation(table) = object
    {
        subscriptions::dropped(table);
    }
    match object.large_object() {
        // The doing of a function, whatever statement has called that; or of DROP OWNED.
        Some(number) if happened == Happened::Created => large_object::created(number),
        Some(number) if happened == Happened::Dropped => large_object::dropped(number),
        _ => running::on_object(happened, object),
    }
}

/// The end of every transaction.
pub fn reset() {
    running::reset();
    LOCKING.set(None);
}

fn before(utility: &mut Utility) {
    databases::before_statement(utility);
    read_only::note();
    making::before(utility);
    if !session::replicated() || utility.stage == Stage::Made || utility.is_done() {
        return;
    }
    // One that failed left this behind.
    LOCKING.set(None);
    if extension::script_runs() {
        part_of_script(utility);
    } else if utility.is_subcommand() && utility.imports_into().is_none() {
        utility.stage = Stage::Part;
        sequences::statement::before(utility);
    } else {
        running::look();
        let class = utility.class();
        if session::is_remote_backend() {
            watch_remote(utility, class);
        } else {
            let class = if table_locks::before(utility, &class) { utility.class() } else { class };
            base::before_snapshot();
            watch(utility, class);
        }
        if utility.stage == Stage::Through && !running::is_empty() {
            // What it touches is not what the statement touches that set it off.
            running::enter(utility.serial, None);
            utility.stage = Stage::Noted;
        }
    }
}

/// Wherever the script of an extension runs, its statements belong to the one that runs it.
fn part_of_script(utility: &mut Utility) {
    utility.make_part();
    utility.stage = Stage::Part;
    match utility.class() {
        Class::CopyIn(table) => require_capture(table),
        Class::Ordered(Ordered { changes_types: true, .. }) => {
            relation::keep_writers_off_types();
            running::change_types();
        }
        _ => {}
    }
    sequences::statement::before(utility);
}

fn after(utility: &mut Utility) {
    utility.finish_left_out();
    notify::statement_has_run(utility);
    sequences::copy_ends(utility.serial);
    if utility.discards_all() {
        advisory::all_given();
    }
    if let Some((relations, lock)) = LOCKING.take() {
        lock_keys(&relations, lock);
    }
    match utility.stage {
        Stage::Whole => {
            running::add_targets(utility.targets());
            match running::leave(utility.serial) {
                Some((touched, watched)) => running::aside(|| {
                    succeeded(watched, utility, &touched);
                    if session::is_captured() {
                        subscriptions::after(utility);
                    }
                }),
                None => error::lost_statement(&utility.tag()).raise(),
            }
        }
        // A procedure may have ended its transaction.
        Stage::Noted => drop(running::leave(utility.serial)),
        Stage::Concurrent => concurrently::finish(utility.serial),
        Stage::Made => making::created(),
        Stage::Through | Stage::Part => {}
    }
}

fn watch(utility: &mut Utility, class: Class) {
    match class {
        Class::Ordered(ordered) if ordered.concurrently => {
            refuse_ours_and_toast(&ordered.targets);
            concurrently::begin(utility, &ordered.targets);
            utility.stage = Stage::Concurrent;
        }
        Class::Ordered(mut ordered) => {
            refuse_ours_and_toast(&ordered.targets);
            global::require_database(utility, &ordered);
            sequences::statement::before(utility);
            subscriptions::before(utility);
            let item = item(utility, ordered.travels_as.as_deref());
            if !ordered.only_looks() {
                bearing::announce_made_up_names();
            }
            keep_writers_off(utility, &mut ordered);
            if ordered.targets.iter().any(|&target| is_permanent(target)) {
                // Before it may run for long; what it makes anew may still turn out to be temporary.
                transaction::ensure_writable();
            }
            if guc::warns_of_local_data() {
                staying::say_where(utility);
            }
            utility.stage = Stage::Whole;
            let targets = ordered.targets.clone();
            running::enter(utility.serial, Some(Watched { ordered, origin: Some(Origin::begin(item)) }));
            running::add(&targets);
            make_room(utility);
        }
        Class::Refused(refusal) => refuse(&refusal),
        // What a DO block or CALL runs is looked at statement by statement.
        Class::Local if utility.discards_all() => utility.stage = Stage::Part,
        // It marks pages all of whose rows have committed, as it can tell: commits of the group return before their records are on disk.
        Class::Local if utility.vacuums() => xact::flush_commits(),
        Class::Local => staying::say_of_server(utility),
        Class::CopyIn(table) => {
            require_capture(table);
            staying::copied_to(table);
            sequences::copy_starts(utility.serial, &utility.sequences_of_unnamed_columns());
            utility.stage = Stage::Part;
        }
        Class::CopyOut(table) => reads::add(table),
        Class::Notify => utility.stage = Stage::Part,
        Class::TwoPhase(statement) => {
            if let Some(run) = TWO_PHASE.get() {
                run(utility, &statement);
            }
        }
        Class::Lock(relations, lock) => {
            LOCKING.set(Some((relations, lock)));
            utility.stage = Stage::Part;
        }
        Class::ImportSnapshot => {
            if xact::is_serializable() && !xact::is_read_only() {
                refuse(&Refusal {
                    what: "SET TRANSACTION SNAPSHOT in a SERIALIZABLE transaction that may write".to_owned(),
                    hint: "Nobody knows which position of the group an imported snapshot shows. Make the transaction READ ONLY.",
                });
            }
        }
    }
}

/// A statement from another node runs here: what belongs to it is done, nothing is recorded.
fn watch_remote(utility: &mut Utility, class: Class) {
    let Class::Ordered(mut ordered) = class else { return };
    note_applied(ordered.global);
    if session::is_rehearser() {
        global::require_database(utility, &ordered);
    }
    if !ordered.only_looks() {
        // Elsewhere none of what is open here was in the way. Whoever is, loses: DDL of two nodes excludes each other.
        if session::is_rehearser() { bearing::announce_made_up_names() } else { bearing::keep_made_up_names_off() }
    }
    keep_writers_off(utility, &mut ordered);
    sequences::statement::before(utility);
    subscriptions::applied(utility);
    utility.leave_out_decided(&Map::read(&guc::tablespaces()));
    utility.stage = Stage::Whole;
    running::enter(utility.serial, Some(Watched { ordered, origin: None }));
    make_room(utility);
}

/// Whoever writes values of a type that the statement changes has ended when this returns, and waits from now on.
fn keep_writers_off(utility: &Utility, ordered: &mut Ordered) {
    if !ordered.changes_types {
        return;
    }
    ordered.tables_of_types = utility.tables_of_types();
    match &ordered.tables_of_types {
        Some(tables) => tables.iter().for_each(|&table| drop(Open::by_oid(table, Lock::ShareRowExclusive))),
        None => relation::keep_writers_off_types(),
    }
}

/// A table of which a statement makes a view must have no trigger.
fn make_room(utility: &Utility) {
    if let Some(table) = utility.makes_view_of().filter(|&table| !is_view(table) && privilege::is_owner(table)) {
        running::aside(|| capture::make_room_for_rule(table));
    }
}

fn is_view(relation: Oid) -> bool {
    relation::entry(relation).is_some_and(|entry| entry.kind == RelationKind::View)
}

fn is_permanent(relation: Oid) -> bool {
    relation::entry(relation).is_some_and(|entry| entry.persistence == Persistence::Permanent)
}

/// TOAST tables are named after OIDs, which differ between nodes. What is prepared is the order's to say.
fn refuse_ours_and_toast(targets: &[Oid]) {
    for entry in targets.iter().filter_map(|&target| relation::entry(target)) {
        if (&*entry.schema, &*entry.name) == ("postgres_r", "prepared") {
            refuse(&Refusal { what: "DDL on \"prepared\"".to_owned(), hint: FINISH });
        }
        if entry.schema != "pg_toast" {
            continue;
        }
        refuse(&Refusal { what: format!("DDL on \"{}\"", entry.name), hint: "Its name is another one on other nodes." });
    }
}

/// LOCK TABLE holds in the group, if the transaction writes. The locks are granted: who had them before has ended, and is seen.
fn lock_keys(relations: &[Oid], lock: TableLock) {
    let held = Guard::Held(session::committed());
    for &relation in relations.iter().filter(|&&relation| is_permanent(relation)) {
        let Some(entry) = relation::entry(relation) else { continue };
        let name = name_hash(&[&entry.schema, &entry.name]);
        let strength = if lock == TableLock::AgainstWriters { Strength::Exclusive } else { Strength::Shared };
        transaction::add_key(relations::relation_key(name), Strength::Shared, held);
        transaction::add_key(relations::table_lock_key(name), strength, held);
        if lock == TableLock::AgainstItself {
            transaction::add_key(relations::weak_table_lock_key(name), Strength::Exclusive, held);
        }
    }
}

fn succeeded(Watched { ordered, origin }: Watched, utility: &Utility, touched: &Touched) {
    let Some(origin) = origin else { return settle(touched, &ordered) };
    if touched.is_temporary && !touched.is_permanent {
        return;
    }
    touched.columns.refuse_unroutable();
    refuse_uneven(utility, touched, &ordered);
    if touched.on_loan {
        return lend(utility, &origin, &ordered);
    }
    staying::refuse_crossing(touched);
    let decided = decided::by(&ordered, touched);
    if decided.as_ref().is_some_and(|decided| decided.merges) {
        refuse(&Refusal {
            what: "ALTER TABLE ADD COLUMN of one that a table below has already, with a default that each node would evaluate for itself,"
                .to_owned(),
            hint: "Add the column without a default, UPDATE it, then set the default.",
        });
    }
    if ordered.needs_relation && touched.is_empty() || ordered.needs_object && touched.is_nothing() {
        return;
    }
    transaction::ensure_writable();
    settle(touched, &ordered);
    if guc::warns_of_local_data() {
        touched.columns.warn();
        staying::warn(touched, ordered.evaluated.keeps);
    }
    // Its locks are held by now. Rows and tables that others only lock, on other nodes, do not meet them.
    let held = Guard::Held(session::committed());
    match ordered.lets_writers_go_on {
        true => touched.names.iter().for_each(|&name| transaction::add_definition(name, held)),
        false => touched.names.iter().for_each(|&name| transaction::add_whole(name, held)),
    }
    // No lock of ours keeps rows from naming what goes, so that they may have come since the statement began.
    for &identity in &touched.identities.lost {
        transaction::add_key(relations::object_key(identity), Strength::Exclusive, Guard::Since(origin.base));
    }
    for &identity in &touched.identities.gained {
        transaction::add_key(relations::object_key(identity), Strength::Exclusive, held);
        transaction::add_key(relations::object_key(identity), Strength::Exclusive, Guard::Locked);
    }
    overlap::add_keys(utility, &origin.noted, origin.base, &ordered);
    large_object::add_keys(touched, origin.base, &ordered);
    match &ordered.tables_of_types {
        Some(tables) => tables.iter().filter_map(|&table| relation::entry(table)).for_each(|entry| {
            transaction::add_whole(name_hash(&[&entry.schema, &entry.name]), held);
        }),
        None if ordered.changes_types => {
            transaction::add_key(relations::types_key(), Strength::Exclusive, Guard::Locked);
        }
        None => {}
    }
    if ordered.runs_script {
        extensions::append(&origin, touched, item_of);
    } else if ordered.fills == Fills::Table {
        touched.filled_by_query().for_each(|table| fill(&origin, table));
    } else if let Some(decided) = decided {
        decided.append(origin.place(), &origin.item);
    } else if ordered.has_password {
        transaction::append_statement(origin.place(), &global::item(&origin, utility));
    } else {
        transaction::append_statement(origin.place(), &origin.item);
    }
    if ordered.runs_script || matches!(ordered.fills, Fills::NewView | Fills::View) {
        touched.views().for_each(fill_view);
    }
}

/// A function of a temporary type is as temporary as the type, though it has a place in a schema that others use, too. Other nodes do nothing, in
/// its place in the order: whoever makes one of that name there meanwhile loses.
fn lend(utility: &Utility, origin: &Origin, ordered: &Ordered) {
    transaction::ensure_writable();
    overlap::add_keys(utility, &origin.noted, origin.base, ordered);
    transaction::append_statement(origin.place(), &item_of(NOTHING));
}

/// CREATE TABLE AS would give other rows elsewhere: it travels as the table that it made, and the rows.
fn fill(origin: &Origin, table: Oid) {
    let Some(table) = Open::by_oid(table, Lock::AccessShare) else { return };
    let definition = origin.definition.clone().unwrap_or_else(|| definition::create_table(&table));
    transaction::append_statement(origin.place(), &item_of(&definition));
    if relation::entry(table.oid()).is_some_and(|entry| entry.persistence.is_of_node()) {
        return;
    }
    let command = trigger::current_command();
    heap::for_each_new_row(&table, |row| super::trigger::on_new_row(&table, command, row));
}

/// Elsewhere the statement has left the materialized view without rows. What the query has given here is put in there, behind whatever the
/// statement has set off: that may have refreshed the view once more.
fn fill_view(view: Oid) {
    let Some(view) = Open::by_oid(view, Lock::AccessShare).filter(materialized::is_populated) else { return };
    let known = relations::known_open(&view);
    let command = trigger::current_command();
    let mut item = Vec::new();
    item.put_fill(transaction::define(&known));
    transaction::append_statement(Command(command), &item);
    // What indexes enter is computed once more here, as PostgreSQL has computed it.
    let _owner = role::Acting::restricted(known.table.owner);
    heap::for_each_new_row(&view, |row| super::trigger::on_remade_row(&view, command, row));
}

/// After the statement, on every node: capture triggers, and which sequences it has started again.
fn settle(touched: &Touched, ordered: &Ordered) {
    if !ordered.is_truncate {
        for table in touched.tables() {
            capture_table(table);
        }
    }
    for (table, ..) in touched.staying() {
        leave_uncaptured(table);
    }
    if ordered.evaluated.logs {
        sequences::statement::restarted_with(&ordered.targets);
    }
    if ordered.restarts_identity {
        sequences::statement::restarted_with(&touched.truncated);
    }
}

/// Refuses what would come out differently on different nodes, now that it can be told; the ERROR undoes it.
fn refuse_uneven(utility: &Utility, touched: &Touched, ordered: &Ordered) {
    // REFRESH ... CONCURRENTLY has temporary tables of its own, and so may have the script of an extension.
    let mixes = touched.is_temporary && !ordered.names_permanent;
    let lends = touched.on_loan && (touched.is_permanent || touched.lends_more_than_functions);
    let what = if mixes && ordered.fills != Fills::View && !ordered.runs_script {
        format!("{} of temporary and permanent relations at once", utility.tag())
    } else if lends {
        format!("{} of a permanent object that depends on a temporary one", utility.tag())
    } else {
        return;
    };
    refuse(&Refusal { what, hint: "docs/compatibility.md lists what is replicated." });
}

/// The statement as it travels.
fn item(utility: &Utility, instead: Option<&str>) -> Vec<u8> {
    if let Some(text) = instead {
        return item_of(text);
    }
    let Some(text) = utility.text() else {
        refuse(&Refusal { what: "a statement that is not UTF-8".to_owned(), hint: "Use a database with encoding UTF8." });
        return Vec::new();
    };
    item_in(utility.imports_into().as_deref(), &text)
}

/// Raises an error unless rows written to this relation by a query or COPY are captured, or need not be.
pub fn require_capture(oid: Oid) {
    if extension::script_runs() {
        return running::fill(oid);
    }
    let changes = relations::changes();
    let is_known = CAPTURED.with_borrow_mut(|(as_of, known)| {
        if *as_of != changes {
            known.clear();
            *as_of = changes;
        }
        known.contains(&oid.to_u32())
    });
    if is_known {
        return;
    }
    let Some(entry) = relation::entry(oid) else { return };
    let refuse_rows = |what: &str, hint| {
        refuse(&Refusal { what: format!("changing rows of {what} \"{}\"", entry.name), hint });
    };
    match (entry.kind, entry.persistence) {
        // PostgreSQL itself keeps everybody but REFRESH ... CONCURRENTLY from changing a materialized view.
        (_, Persistence::Temporary)
        | (RelationKind::View | RelationKind::PartitionedTable | RelationKind::MaterializedView, _) => {}
        // Of this node alone; and written on the foreign server, once.
        (RelationKind::Table, Persistence::Unlogged | Persistence::Excluded) | (RelationKind::ForeignTable, _) => {
            return staying::note();
        }
        _ if entry.is_internal && entry.schema != "postgres_r" => {
            return catalogs::note(&entry.name);
        }
        (RelationKind::Table, _) if (&*entry.schema, &*entry.name) == ("postgres_r", "prepared") => {
            refuse_rows("relation", FINISH);
        }
        (RelationKind::Table, Persistence::Permanent) => {
            let is_captured =
                entry.is_internal || Open::by_oid(oid, Lock::AccessShare).is_none_or(|table| trigger::is_in_force(&table));
            if !is_captured && running::has_made(oid) {
                running::aside(|| capture_table(oid));
            } else if !is_captured {
                refuse_rows("uncaptured table", "Have a superuser run SELECT postgres_r.capture_tables().");
            }
        }
        _ => refuse_rows("relation", "Its rows are not captured; docs/compatibility.md lists what is replicated."),
    }
    CAPTURED.with_borrow_mut(|(as_of, known)| {
        if *as_of == relations::changes() {
            known.insert(oid.to_u32());
        }
    });
}

/// The rows of one table stay on their node from now on.
fn leave_uncaptured(oid: Oid) {
    let is_captured = Open::by_oid(oid, Lock::AccessShare).is_some_and(|table| trigger::is_in_force(&table));
    if let Some(trigger) = is_captured.then(|| capture::trigger_of(oid)).flatten() {
        running::aside(|| capture::remove(trigger));
    }
}

/// Gives one table its capture trigger.
fn capture_table(oid: Oid) {
    if let Some(table) = Open::by_oid(oid, Lock::AccessShare) {
        trigger::ensure(&table);
    }
}

/// Gives every permanent table its capture trigger; for tables that were there before replication started.
pub fn capture_tables() {
    let own = relations::OWN_TABLES.into_iter().filter_map(|name| relation::find("postgres_r", name));
    relation::user_tables().into_iter().chain(own).for_each(capture_table);
}
