//! CREATE, DROP and REINDEX INDEX CONCURRENTLY on their origin, and DETACH PARTITION ([`super::detached`]; docs/adr/0058-concurrently.md).
//!
//! PostgreSQL runs the statement. CREATE takes four transactions that it begins and ends itself. What makes the group of it happens when they end:
//!
//! ```text
//! 1. the index is entered into the catalogs   ordered: on every node it is there, neither ready nor valid, when this has committed
//!    (PostgreSQL waits for those who write to the table without knowing the index)
//! 2. the index is built, and made ready       here only; before its commit: all nodes say that who writes there knows the index
//!    (PostgreSQL waits for those who write without entering rows)
//! 3. rows that came meanwhile are entered     here only
//!    (PostgreSQL waits for snapshots in which the index would be wrong)
//! 4. the index is made valid                  before its commit: the other nodes build theirs, and say so; ordered
//! ```
//!
//! Whatever goes wrong after the first leaves an index that is valid on no node. DROP takes three:
//!
//! ```text
//! 1. the index is not valid any more          ordered
//!    (PostgreSQL waits for those who may use it)
//! 2. no rows are entered any more             here only
//!    (PostgreSQL waits for those who may still enter some)
//! 3. the index is dropped                     before its commit: the other nodes do the same as in 2, and say so; ordered
//! ```
//!
//! REINDEX of an index that is valid is of its node alone. Of one that is not valid, the transaction that makes it valid is ordered; before its
//! commit, writers are kept off, and it is looked once more for rows that are equal (docs/adr/0066-mended-as-on-one-server.md):
//!
//! ```text
//! 1. a second index is made, built, filled up      here only, while others write; if rows are equal, the statement fails here
//! 2. the two change their names, the new one valid  before its commit: writers of all nodes are kept off, a unique index is built once more; ordered:
//!                                                   the other nodes build their index, with locks
//! 3. the old one is dropped                         here only
//! ```

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use gcs_writeset::body::{PutItem, Step};
use gcs_writeset::building::{Building, Wish};
use gcs_writeset::key::name_hash;
use gcs_writeset::link::{Rehearsal, RehearsalFailure, Request};
use gcs_writeset::{NodeId, Position};
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::order::Command;
use postgres_r_protocol::platform::Exclusion;

use super::detached::{self, Tables};
use super::{base, item, overlap, transaction};
use crate::backend::others::{self, Asked};
use crate::backend::table_locks;
use crate::error;
use crate::node::{self, DatabaseArea};
use crate::pg::access::{Happened, Object};
use crate::pg::concurrent::{self, State};
use crate::pg::relation::{self, Entry, Lock, Oid, Open, RelationKind};
use crate::pg::utility::{Serial, Utility};
use crate::pg::{advisory, interrupt, latch, trigger};
use crate::{relations, session};

/// How long one question waits for its answers; then it is asked again.
const ROUND: Duration = Duration::from_secs(5);

/// Beyond that, for the answer.
const ANSWER_TAKES: Duration = Duration::from_millis(500);

/// A node that can be reached and has nobody to answer is asked again for so long: its processes may just have been started.
const ANSWERS_WITHIN: Duration = Duration::from_secs(10);
const ASK_AGAIN: Duration = Duration::from_millis(200);

thread_local! {
    static RUNNING: RefCell<Option<Running>> = const { RefCell::new(None) };
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Create,
    Drop,
    /// Of an index that is not valid.
    Reindex,
    Detach(Tables),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Done {
    Nothing,
    /// The first step is ordered.
    Begun,
    /// All who write know it, on all nodes that have said so; up to here those have committed who did not.
    Known(Position),
}

#[derive(Clone)]
struct Running {
    serial: Serial,
    kind: Kind,
    base: Position,
    index: Option<Oid>,
    /// What a partition gets in the place of its bound.
    constraint: Option<Oid>,
    /// As it was called at the first step.
    named: Option<Named>,
    done: Done,
}

/// The statement is about to run.
pub fn begin(utility: &Utility, targets: &[Oid]) {
    transaction::ensure_writable();
    let kind = match *targets {
        [parent, partition] if utility.detaches() => Kind::Detach((parent, partition)),
        // PostgreSQL says what is missing.
        _ if utility.detaches() => return RUNNING.set(None),
        _ if utility.drops() => Kind::Drop,
        _ if utility.reindexes() => Kind::Reindex,
        _ => Kind::Create,
    };
    let (serial, base) = (utility.serial, base::current());
    RUNNING.set(Some(Running { serial, kind, base, index: None, constraint: None, named: None, done: Done::Nothing }));
}

/// From the object access hook: the first relation that is made, or dropped, is the index. (Of REINDEX the new one.)
pub fn on_object(happened: Happened, object: Object) {
    let (class, oid) = object.address();
    RUNNING.with(|running| {
        if let Ok(mut running) = running.try_borrow_mut()
            && let Some(running) = running.as_mut().filter(|running| running.done == Done::Nothing)
        {
            let is_relation = matches!(object, Object::Relation(_));
            match (running.kind, happened) {
                (Kind::Create | Kind::Reindex, Happened::Created) | (Kind::Drop, Happened::Dropped) if is_relation => {
                    running.index.get_or_insert(oid);
                }
                (Kind::Detach(_), Happened::Created) if concurrent::is_constraint(class) => {
                    running.constraint.get_or_insert(oid);
                }
                _ => {}
            }
        }
    });
}

/// The transaction has failed, and the statement with it.
pub fn aborted() {
    RUNNING.set(None);
}

/// Every transaction of this process passes here before it commits.
pub fn before_commit() {
    let Some(mut running) = RUNNING.with_borrow(Clone::clone) else { return };
    if let (Kind::Detach(tables), Done::Nothing) = (running.kind, running.done) {
        detached::mark(tables, running.constraint, running.base);
        return RUNNING.set(Some(Running { done: Done::Begun, ..running }));
    }
    let (Some(index), Some(area)) = (running.index, session::database()) else { return };
    let Some(named) = Named::of(index) else { return };
    running.done = match (running.done, running.kind) {
        (Done::Nothing, Kind::Create) => {
            if named.state.is_unique {
                require_all(area, &named);
            }
            enter(&named, running.base);
            Done::Begun
        }
        (Done::Nothing, Kind::Drop) => {
            put_step(&named, Step::Invalid, "", &[]);
            Done::Begun
        }
        (Done::Begun, Kind::Create) => {
            let heard = ask_all(area, &named, Wish::Known);
            let known = heard.values().map(|heard| heard.1).max().unwrap_or_default();
            Done::Known(known.max(area.gate.known()))
        }
        (Done::Nothing, Kind::Reindex) if named.state.is_valid => {
            replace(&named);
            Done::Begun
        }
        (done, _) => done,
    };
    running.named = Some(named);
    RUNNING.set(Some(running));
}

/// The statement has run, and its last transaction is open.
pub fn finish(serial: Serial) {
    let Some(running) = RUNNING.take().filter(|running| running.serial == serial) else { return };
    if let (Kind::Detach(tables), Done::Begun) = (running.kind, running.done) {
        return detached::finish(tables);
    }
    // IF [NOT] EXISTS did nothing, or the statement did without transactions of its own.
    let (Some(index), Some(named), Some(area)) = (running.index, running.named, session::database()) else { return };
    match (running.kind, running.done) {
        (Kind::Create, Done::Known(known)) => {
            // PostgreSQL has just given back the lock that it had on the table all the time.
            concurrent::lock_table(named.state.table);
            let nodes = numbers(area, ask_all(area, &named, Wish::Built(known)));
            // Others may have renamed it meanwhile.
            let Some(named) = Named::of(index) else { return };
            let step = if named.may_be_identity() { Step::ValidIdentity } else { Step::Valid };
            put_step(&named, step, &concurrent::definition(index).unwrap_or_default(), &nodes);
        }
        (Kind::Drop, Done::Begun) => {
            let nodes = numbers(area, ask_all(area, &named, Wish::Unused));
            overlap::add_keys_at_large(session::committed());
            put_step(&named, Step::Dropped, "", &nodes);
        }
        _ => {}
    }
}

/// This node, and those.
fn numbers(area: &DatabaseArea, heard: Heard) -> Vec<NodeId> {
    heard.into_values().map(|heard| heard.0).chain([area.replica.node()]).collect()
}

/// An index, its table, and what they are called.
#[derive(Clone)]
struct Named {
    oid: Oid,
    index: Entry,
    table: Entry,
    state: State,
}

impl Named {
    fn of(oid: Oid) -> Option<Named> {
        let index = relation::entry(oid).filter(|entry| entry.kind == RelationKind::Index)?;
        let state = concurrent::state(oid)?;
        Some(Named { oid, index, table: relation::entry(state.table)?, state })
    }

    /// Whether rows are told apart by it when it is valid, or may be.
    fn may_be_identity(&self) -> bool {
        self.state.tells_rows_apart && !relations::has_primary_key(self.state.table)
    }
}

/// A step that nodes take at its position.
fn put_step(named: &Named, step: Step, definition: &str, nodes: &[NodeId]) {
    transaction::ensure_writable();
    let is_of_identity = step == Step::ValidIdentity || step == Step::Invalid && named.may_be_identity();
    hold_table(named, is_of_identity);
    append_step(named, step, definition, nodes);
}

fn append_step(named: &Named, step: Step, definition: &str, nodes: &[NodeId]) {
    let mut item = Vec::new();
    item.put_indexed(step, (&named.index.schema, &named.index.name), definition, nodes);
    transaction::append_statement(Command(trigger::current_command()), &item);
}

/// The first step: every node has the index.
fn enter(named: &Named, base: Position) {
    let Some(definition) = concurrent::definition(named.oid) else { return };
    transaction::ensure_writable();
    hold_table(named, false);
    overlap::add_keys_at_large(base);
    let statement = item::item_of(&concurrent::concurrently(&definition));
    transaction::append_statement(Command(trigger::current_command()), &statement);
}

/// The index that was built here has the name of the one that is not valid anywhere, and is to be valid. Nobody else was kept from writing rows
/// that are equal, and those of other nodes were entered here without being refused: so it is built once more, with writers kept off. No node
/// counts as done: should this session fail from here on, its node still has the old one.
fn replace(named: &Named) {
    transaction::ensure_writable();
    hold_table(named, true);
    if named.state.is_unique {
        concurrent::rebuild(named.oid);
    }
    overlap::add_keys_at_large(session::committed());
    let step = if named.may_be_identity() { Step::ValidIdentity } else { Step::Valid };
    append_step(named, step, &concurrent::definition(named.oid).unwrap_or_default(), &[]);
}

/// Before there is anything to be left behind.
fn require_all(area: &DatabaseArea, named: &Named) {
    if let Some(away) = other_members(area).into_iter().find(|(_, (_, is_online))| !is_online) {
        error::index_not_known(&named.index.name, &away.0, false).raise();
    }
}

/// Other DDL on the table, and TRUNCATE, exclude the step; those who change rows do not, unless rows are told apart in another way from here on.
fn hold_table(Named { index, table, state, .. }: &Named, against_writers: bool) {
    let name = name_hash(&[&table.schema, &table.name]);
    // One step is applied behind the other.
    let steps = relations::relation_key(name_hash(&[&index.schema, &index.name]));
    transaction::add_key(steps, Strength::Exclusive, Guard::Held(session::committed()));
    if against_writers {
        table_locks::keep_writers_off(state.table);
        drop(Open::by_oid(state.table, Lock::ShareRowExclusive));
        transaction::add_whole(name, Guard::Held(session::committed()));
    } else {
        transaction::add_key(relations::relation_key(name), Strength::Shared, Guard::Held(session::committed()));
    }
}

/// What each node says, by its name: its number, and a position.
type Heard = BTreeMap<String, (NodeId, Position)>;

/// Asks all other nodes until each has said yes that can be reached. A node that cannot do it does it at the last step; but of a unique index all
/// must say that who writes there knows it, or rows that are equal could go in on two nodes. Raises what a node says if it has failed.
fn ask_all(area: &'static DatabaseArea, named: &Named, wish: Wish) -> Heard {
    let members = other_members(area);
    let building =
        Building { schema: named.index.schema.clone(), name: named.index.name.clone(), after: area.gate.committed(), wish };
    let payload = building.encode();
    // What is waited for is other transactions, as for a lock; but not while something is built.
    let limit = Duration::from_millis(advisory::timeouts().0);
    let is_limited = wish.is_wait() && !limit.is_zero();
    let patience = if is_limited { ROUND.min(limit) } else { ROUND };
    let request = Request::Clear { patience_ms: patience.as_millis() as u32 };
    let began = Instant::now();
    let mut all_answered = began;
    loop {
        concurrent::forget_catalog_snapshot();
        let mut round = Round::default();
        let asked =
            others::ask(area, (&request, &payload), patience + ANSWER_TAKES, |node, outcome| round.take(node, outcome));
        interrupt::check();
        match asked {
            Ok(Asked::All(_)) if !round.is_unable => all_answered = Instant::now(),
            _ => round.is_unable = true,
        }
        // Where it can't be taken out of use it is dropped with a lock that keeps others off.
        if let Some((node, failure)) = round.failed.filter(|_| wish != Wish::Unused) {
            error::index_failed(&named.index.name, &node, &failure).raise();
        }
        if round.is_under_way && is_limited && began.elapsed() >= limit {
            error::lock_timeout().raise();
        }
        let is_patient = all_answered.elapsed() < ANSWERS_WITHIN;
        if round.is_under_way || round.is_unable && is_patient {
            if round.is_unable {
                latch::wait(Some(ASK_AGAIN));
                interrupt::check();
            }
            continue;
        }
        let find = |(name, (id, _)): (&String, &(NodeId, bool))| Some((name.clone(), (*id, *round.reached.get(name)?)));
        let heard: Heard = members.iter().filter_map(find).collect();
        if let Some(silent) = members.keys().find(|name| !heard.contains_key(*name))
            && named.state.is_unique
            && wish == Wish::Known
        {
            error::index_not_known(&named.index.name, silent, true).raise();
        }
        return heard;
    }
}

/// Answers to one question.
#[derive(Default)]
struct Round {
    reached: BTreeMap<String, Position>,
    is_under_way: bool,
    is_unable: bool,
    failed: Option<(String, RehearsalFailure)>,
}

impl Round {
    fn take(&mut self, node: &str, outcome: &Rehearsal) -> ControlFlow<()> {
        match outcome {
            Rehearsal::Clear { committed: Position::ZERO } => self.is_under_way = true,
            Rehearsal::Clear { committed } => {
                self.reached.insert(node.to_owned(), *committed);
            }
            Rehearsal::Passed | Rehearsal::Partly | Rehearsal::Absent => self.is_unable = true,
            Rehearsal::Failed(failure) => {
                self.failed = Some((node.to_owned(), failure.clone()));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    }
}

/// The group's other members that hold databases, and whether each is online.
fn other_members(area: &DatabaseArea) -> BTreeMap<String, (NodeId, bool)> {
    use std::sync::atomic::Ordering::SeqCst;
    let Some(node) = node::get() else { return BTreeMap::new() };
    node.table.shared(|| {
        let count = area.replica.member_count.load(SeqCst) as usize;
        let members = area.replica.members.iter().take(count).filter(|member| member.kind().has_databases());
        let named = members
            .map(|member| (member.name.get(), (NodeId(member.node.load(SeqCst)), member.presence.load().is_online())));
        named.filter(|(_, (id, _))| *id != area.replica.node()).collect()
    })
}
