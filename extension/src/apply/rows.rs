//! Applies writesets inside an open transaction: one, or those of a run.
//!
//! Row images rule: nothing is evaluated again. Each row is found by its identity with a snapshot of our own (not by
//! PostgreSQL's helper for logical replication, which looks with SnapshotDirty and can miss a row that is being updated), and a
//! row that is not there, or is there twice, is divergence: the node must stop, nothing is skipped.
//!
//! A row may be held by somebody who must give way (`victim`); we tell them, then wait as PostgreSQL does. When they
//! committed first, we look again with a new snapshot: dependencies of this writeset were committed before we started, so
//! that can only be somebody whose change does not matter to us, such as a row lock that turned into nothing.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

use gcs_writeset::body::Datum::Absent;
use gcs_writeset::body::{self, Image, Item};
use gcs_writeset::wire::WireError;
use pgrx::{PgSqlErrorCode, pg_sys};
use postgres_r_protocol::items::StreamError;

use super::divergence::{Action, Divergence};
use super::queued::Queued;
use super::{indexed, large_object, precedence, repair, statement, two_phase};
use crate::error::{Error, LARGE_OBJECT};
use crate::node::making;
use crate::pg::datum::TransmissionModes;
use crate::pg::heap::{BadColumn, CarriedIndex, Doubt, Outcome, Patience, RowPlace, Target};
use crate::pg::memory::Context;
use crate::pg::relation::{self, Lock, Open};
use crate::pg::role::Acting;
use crate::pg::snapshot::Fresh;
use crate::pg::{clock, difference, materialized, naming, notify};
use crate::relations::{self, Identity, KeyDescription, Known};
use crate::session;
use crate::verify::mark;

/// How often a row may slip away under us before the writeset is given up and tried again as a whole.
const ATTEMPTS_MAX: usize = 16;

/// How often we say how far we are, and look whether we must give way.
const REPORT_EVERY_ROWS: u64 = 512;

thread_local! {
    /// Which item of the writeset is being applied, or was when it failed.
    static ITEM: Cell<u64> = const { Cell::new(0) };
}

/// What an item of a writeset is, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The text.
    Statement(String),
    /// The table, with its schema, or the large object.
    Row(String),
}

/// What was being applied when an application failed: to be asked before the next one.
pub fn failed_at(writeset: &Queued) -> Option<What> {
    let (mut number, mut names, mut found) = (0, Vec::new(), None);
    // What can't be read was not applied.
    let _ = writeset.for_each_item(|item, _| {
        number += 1;
        let table = |relation: u32| names.get(relation as usize).cloned().unwrap_or_default();
        let what = match item {
            Item::Relation { schema, name, .. } => {
                names.push(format!("{schema}.{name}"));
                return Ok::<(), StreamError>(());
            }
            Item::Insert { relation, .. } | Item::Update { relation, .. } | Item::Delete { relation, .. } => {
                What::Row(table(relation))
            }
            Item::Statement { text, .. } => What::Statement(text.to_owned()),
            Item::Indexed(indexed) => What::Statement(indexed.definition.to_owned()),
            Item::Decided(_) | Item::Verifier(_) | Item::Repaired | Item::Notify { .. } => return Ok(()),
            Item::LargeObject(object) => What::Row(format!("{LARGE_OBJECT}{}", object.number)),
            Item::Prepared(_) | Item::Finished { .. } => What::Row(two_phase::TABLE.to_owned()),
            Item::Repair(body::Repair { relation, .. }) | Item::Fill { relation } => What::Row(table(relation)),
        };
        if number == ITEM.get() {
            found = Some(what);
        }
        Ok(())
    });
    found
}

/// What a writeset did here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    pub rows: u64,
    pub statements: u64,
}

/// Whether listeners of this node are told what a writeset tells them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notifying {
    Yes,
    No,
}

/// Applies a whole writeset; tells every now and then how many bytes and rows are done. Needs an open transaction without an active snapshot of its own. PostgreSQL's own errors pass; what
/// is done must then be rolled back, as after `Err`.
pub fn apply(writeset: &Queued, notifying: Notifying, progress: impl FnMut(u64, u64)) -> Result<Applied, Divergence> {
    if writeset.head.has_statements {
        // now() is what it was on the origin: a column's default is computed once for all rows that are there.
        clock::pretend_started_at(writeset.head.started_at);
    }
    let mut application = Application::begin();
    application.notifying = notifying;
    application.apply(writeset, progress)
}

/// A relation that the writeset defined, opened when first needed.
struct Relation {
    schema: String,
    name: String,
    columns: u32,
    /// Indexes for which its rows carry values.
    carried: Vec<CarriedIndex>,
    open: Option<Opened>,
}

impl Relation {
    fn is_same(&self, other: &Relation) -> bool {
        (&self.schema, &self.name, self.columns, &self.carried)
            == (&other.schema, &other.name, other.columns, &other.carried)
    }
}

struct Opened {
    target: Target,
    known: Rc<Known>,
}

/// One transaction of a remote backend: a writeset, or several one after the other. Tables that were opened for one stay open for the next.
pub struct Application {
    // Dropped in this order: relations before the snapshot.
    relations: Vec<Relation>,
    /// Which of them the writeset at hand means by its numbers.
    numbers: Vec<usize>,
    snapshot: Fresh,
    /// In force once a relation needs it.
    modes: Option<TransmissionModes>,
    scratch: Context,
    doubts: Vec<(usize, Doubt)>,
    /// Where the rows of `doubts` are: an update of every row may leave each in doubt, and then look for each.
    in_doubt: HashSet<(usize, RowPlace)>,
    /// What the next statement would evaluate.
    decided: Option<statement::Decided>,
    /// The inserts at hand repair another node.
    is_for_another: bool,
    notifying: Notifying,
    /// What the writesets of a run have sent so far, each with the number of the first that has.
    sent: HashMap<(String, String), u32>,
    writesets: u32,
    /// Whether something was written that the snapshot does not show yet.
    wrote: bool,
    applied: Applied,
}

impl Application {
    /// In an open transaction without an active snapshot of its own, after everything that the writesets depend on is committed.
    pub fn begin() -> Application {
        naming::apply();
        difference::forget();
        Application {
            relations: Vec::new(),
            numbers: Vec::new(),
            snapshot: Fresh::take(),
            modes: None,
            scratch: Context::in_transaction(c"postgres_r apply"),
            doubts: Vec::new(),
            in_doubt: HashSet::new(),
            decided: None,
            is_for_another: false,
            notifying: Notifying::Yes,
            sent: HashMap::new(),
            writesets: 0,
            wrote: false,
            applied: Applied::default(),
        }
    }

    /// The next writeset; as [`apply`]. What is told and given back counts from the beginning.
    pub fn apply(&mut self, writeset: &Queued, mut progress: impl FnMut(u64, u64)) -> Result<Applied, Divergence> {
        self.numbers.clear();
        self.writesets += 1;
        let mut next_report = self.applied.rows + REPORT_EVERY_ROWS;
        let mut number = 0;
        writeset.for_each_item(|item, bytes| {
            number += 1;
            self.apply_item(item, number)?;
            if self.applied.rows >= next_report {
                next_report += REPORT_EVERY_ROWS;
                progress(bytes, self.applied.rows);
            }
            Ok::<(), Divergence>(())
        })?;
        self.settle()?;
        Ok(self.applied)
    }

    /// The next relation that the writeset at hand defines.
    fn define(&mut self, relation: Relation) {
        let known = self.relations.iter().position(|known| known.is_same(&relation));
        let number = known.unwrap_or_else(|| {
            self.relations.push(relation);
            self.relations.len() - 1
        });
        self.numbers.push(number);
    }

    fn apply_item(&mut self, item: Item<'_>, number: u64) -> Result<(), Divergence> {
        if !matches!(item, Item::Statement { .. }) {
            ITEM.set(number);
        }
        match item {
            Item::Relation { schema, name, columns, indexes } => {
                let carried = indexes.iter().map(CarriedIndex::of).collect();
                let (schema, name) = (schema.to_owned(), name.to_owned());
                self.define(Relation { schema, name, columns, carried, open: None });
                return Ok(());
            }
            Item::Insert { .. } if self.is_for_another => return Ok(()),
            Item::Insert { relation, new } => self.insert(self.numbers[relation as usize], new)?,
            Item::Update { relation, identity, new } => {
                self.change(self.numbers[relation as usize], Action::Update, identity, Some(new))?;
            }
            Item::Delete { relation, identity } => {
                self.change(self.numbers[relation as usize], Action::Delete, identity, None)?;
            }
            Item::Statement { actor, settings, text } => {
                precedence::be_alone();
                self.close_all()?;
                ITEM.set(number);
                statement::execute(actor, settings, text, self.decided.take())?;
                naming::apply();
                difference::forget();
                self.snapshot.renew();
                self.wrote = true;
                self.applied.statements += 1;
                return Ok(());
            }
            Item::Decided(decided) => {
                self.decided = Some(statement::Decided::read(decided));
                return Ok(());
            }
            Item::Indexed(step) => {
                precedence::be_alone();
                self.close_all()?;
                indexed::apply(&step)?;
                self.snapshot.renew();
                self.wrote = true;
                self.applied.statements += 1;
                return Ok(());
            }
            Item::Verifier(verifier) => {
                self.decided = Some(statement::Decided::with_verifier(verifier));
                return Ok(());
            }
            Item::Repair(repair) => self.begin_repair(repair)?,
            Item::LargeObject(change) => self.scratch.with(|| large_object::apply(change))?,
            Item::Repaired => self.is_for_another = false,
            Item::Notify { channel, payload } => return self.notify(channel, payload),
            Item::Fill { relation } => return self.begin_fill(self.numbers[relation as usize]),
            Item::Prepared(prepared) => two_phase::join(prepared),
            Item::Finished { identifier } => two_phase::leave(identifier)?,
        }
        self.wrote = true;
        self.applied.rows += 1;
        self.scratch.reset();
        Ok(())
    }

    /// PostgreSQL sends what one transaction says twice once. That holds for one writeset, and not for the whole of a run.
    fn notify(&mut self, channel: &str, payload: &str) -> Result<(), Divergence> {
        if self.notifying == Notifying::No {
            return Ok(());
        }
        if precedence::is_in_run() {
            let first = *self.sent.entry((channel.to_owned(), payload.to_owned())).or_insert(self.writesets);
            if first != self.writesets {
                precedence::be_alone();
            }
        }
        let damaged = StreamError::Damaged(WireError::OutOfRange { what: "notification" });
        if notify::send(channel, payload) { Ok(()) } else { Err(damaged.into()) }
    }

    /// On the node that is meant, what is wrong goes; inserts follow. On others they are passed over.
    fn begin_repair(&mut self, repair: body::Repair<'_>) -> Result<(), Divergence> {
        precedence::be_alone();
        self.is_for_another = !repair::is_for_this_node(repair);
        if self.is_for_another {
            return Ok(());
        }
        self.close_all()?;
        self.snapshot.renew();
        let this = &self.relations[self.numbers[repair.relation as usize]];
        repair::clear(&this.schema, &this.name, repair)?;
        self.snapshot.renew();
        Ok(())
    }

    /// The rows of a materialized view follow.
    fn begin_fill(&mut self, relation: usize) -> Result<(), Divergence> {
        precedence::be_alone();
        self.close_all()?;
        let Relation { schema, name, .. } = &self.relations[relation];
        if !relation::find(schema, name).is_some_and(materialized::make_room) {
            return Err(Divergence::NoRelation { schema: schema.clone(), name: name.clone() });
        }
        self.snapshot.renew();
        self.wrote = true;
        Ok(())
    }

    fn insert(&mut self, relation: usize, new: Image<'_>) -> Result<(), Divergence> {
        let this = &self.relations[relation];
        mark::applied(&this.schema, &this.name, Some(new));
        making::note_change(&this.schema, &this.name);
        self.open(relation)?;
        let Some(opened) = &mut self.relations[relation].open else { return Ok(()) };
        let _owner = Acting::restricted(opened.known.table.owner);
        let doubts =
            opened.target.insert(&opened.known.table, new, &self.scratch).map_err(|bad| bad_value(&opened.known, bad))?;
        self.doubt(relation, doubts);
        Ok(())
    }

    fn change(
        &mut self,
        relation: usize,
        action: Action,
        identity: Image<'_>,
        new: Option<Image<'_>>,
    ) -> Result<(), Divergence> {
        let this = &self.relations[relation];
        mark::applied(&this.schema, &this.name, None);
        making::note_change(&this.schema, &this.name);
        self.open(relation)?;
        for _ in 0..ATTEMPTS_MAX {
            if std::mem::take(&mut self.wrote) {
                self.snapshot.see_own_changes();
            }
            self.find(relation, action, identity)?;
            match self.try_change(relation, new, Patience::Report)? {
                Outcome::Done => return Ok(()),
                Outcome::Gone => {}
                Outcome::Held(holders) => {
                    self.note_heat(relation, &holders);
                    let what = self.describe(relation, identity);
                    holders.into_iter().for_each(|holder| precedence::give_way(holder, &what));
                    if self.try_change(relation, new, Patience::Wait)? == Outcome::Done {
                        return Ok(());
                    }
                }
            }
            self.snapshot.renew();
        }
        let table = &self.relations[relation].name;
        let message = format!("could not {action} a row of relation \"{table}\"");
        Error::new(PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE, message)
            .detail(format!("Others changed it {ATTEMPTS_MAX} times first."))
            .raise()
    }

    /// Notes constraints that what was just written may break.
    fn doubt(&mut self, relation: usize, doubts: Vec<Doubt>) {
        for doubt in doubts {
            self.in_doubt.insert((relation, doubt.place));
            self.doubts.push((relation, doubt));
        }
    }

    /// Somebody here loses the row found last, to what is being applied.
    fn note_heat(&self, relation: usize, holders: &[pg_sys::TransactionId]) {
        if let (Some(area), Some(position)) = (session::database(), precedence::position())
            && let Some(Opened { target, known }) = &self.relations[relation].open
            && !holders.is_empty()
            && let Some(key) = known.row_key(target.found())
        {
            area.heat.lost(key, position, clock::millis());
        }
    }

    /// The table and the row, in the words of a user.
    fn describe(&self, relation: usize, identity: Image<'_>) -> KeyDescription {
        let Some(Opened { known, .. }) = &self.relations[relation].open else { return KeyDescription::default() };
        let columns = known.table.columns.iter().enumerate();
        let attributes = columns.filter(|(nth, _)| known.identity.has_column(*nth)).map(|(_, column)| column.attribute);
        let (table, key) = (full_name(known), identity_text(known, identity));
        KeyDescription { table, key, relation: known.table.oid, attributes: attributes.collect() }
    }

    /// Changes the row found last.
    fn try_change(&mut self, relation: usize, new: Option<Image<'_>>, patience: Patience) -> Result<Outcome, Divergence> {
        let Some(opened) = &mut self.relations[relation].open else { return Ok(Outcome::Gone) };
        let _owner = Acting::restricted(opened.known.table.owner);
        let Some(new) = new else { return Ok(opened.target.delete(patience)) };
        let (outcome, doubts) = opened
            .target
            .update(&opened.known.table, new, patience, &self.scratch)
            .map_err(|bad| bad_value(&opened.known, bad))?;
        self.doubt(relation, doubts);
        Ok(outcome)
    }

    fn find(&mut self, relation: usize, action: Action, identity: Image<'_>) -> Result<(), Divergence> {
        let Some(Opened { target, known }) = &mut self.relations[relation].open else { return Ok(()) };
        let in_doubt = &self.in_doubt;
        let found = match &known.identity {
            Identity::Index { index, columns } => {
                let agrees = identity.datums().zip(columns).all(|(datum, &is_part)| is_part == (datum != Absent));
                if !agrees {
                    return Err(Divergence::Identity { table: full_name(known) });
                }
                let index = known.table.indexes[*index].oid;
                let is_in_doubt = |place| in_doubt.contains(&(relation, place));
                target
                    .find_by_index(&known.table, index, identity, is_in_doubt, &self.scratch)
                    .map_err(|bad| bad_value(known, bad))?
            }
            Identity::WholeRow => target.find_by_image(&known.table, identity),
        };
        if found { Ok(()) } else { Err(no_row(known, action, identity)) }
    }

    fn open(&mut self, relation: usize) -> Result<(), Divergence> {
        let this = &mut self.relations[relation];
        if this.open.is_some() {
            return Ok(());
        }
        let missing = || Divergence::NoRelation { schema: this.schema.clone(), name: this.name.clone() };
        let oid = relation::find(&this.schema, &this.name).ok_or_else(missing)?;
        let open = Open::by_oid(oid, Lock::RowExclusive).ok_or_else(missing)?;
        let known = relations::known_open(&open);
        if known.table.columns.len() != this.columns as usize {
            return Err(Divergence::Columns {
                table: full_name(&known),
                found: known.table.columns.len(),
                expected: this.columns,
            });
        }
        if known.table.depends_on_settings && self.modes.is_none() {
            self.modes = Some(TransmissionModes::enter());
        }
        this.open = Some(Opened { target: Target::new(open, &known.table, &this.carried), known });
        Ok(())
    }

    /// Checks what was put off, and closes every relation: a statement may change them.
    fn close_all(&mut self) -> Result<(), Divergence> {
        self.settle()?;
        for relation in &mut self.relations {
            relation.open = None;
        }
        self.modes = None;
        Ok(())
    }

    fn settle(&mut self) -> Result<(), Divergence> {
        self.in_doubt.clear();
        for (relation, doubt) in std::mem::take(&mut self.doubts) {
            let Some(Opened { target, known }) = &mut self.relations[relation].open else { continue };
            let _owner = Acting::restricted(known.table.owner);
            let what = KeyDescription { table: full_name(known), relation: known.table.oid, ..KeyDescription::default() };
            target
                .rivals(&known.table, &doubt, &self.scratch)
                .into_iter()
                .for_each(|rival| precedence::give_way(rival, &what));
            target.settle(&known.table, &doubt, &self.scratch);
            self.scratch.reset();
        }
        if std::mem::take(&mut self.wrote) {
            self.snapshot.see_own_changes();
        }
        Ok(())
    }
}

fn full_name(known: &Known) -> String {
    format!("{}.{}", known.table.schema, known.table.name)
}

fn bad_value(known: &Known, bad: BadColumn) -> Divergence {
    let column = known.table.columns.get(bad.column).map_or_else(String::new, |column| column.name.clone());
    Divergence::Value { table: full_name(known), column, error: bad.error.to_string() }
}

fn no_row(known: &Known, action: Action, identity: Image<'_>) -> Divergence {
    Divergence::NoRow { action, table: full_name(known), identity: identity_text(known, identity) }
}

/// For a person: the identity as `(id)=(7)`.
fn identity_text(known: &Known, identity: Image<'_>) -> String {
    let (mut names, mut values) = (Vec::new(), Vec::new());
    for (column, datum) in known.table.columns.iter().zip(identity.datums()) {
        if let Some(text) = column.codec.text(datum) {
            names.push(column.name.as_str());
            values.push(text);
        }
    }
    format!("({})=({})", names.join(", "), values.join(", "))
}
