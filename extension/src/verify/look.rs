//! What a node sees when it looks: fingerprints of tables and of the catalogs, as of one snapshot.
//!
//! A snapshot is not enough. TRUNCATE and rewrites leave nothing for older snapshots to see, and a table is read by its definition of today. So
//! a table's definition and file are read twice: by the snapshot, and as they are once the table is locked against statements. Where
//! they are not the same, a statement came in between, and the node does not know ([`Trouble::Changed`]). Each table is read in a
//! subtransaction that is rolled back: its lock is held no longer than that, and what cannot be read costs nothing but its own look.

use std::collections::{BTreeMap, HashSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

use gcs_writeset::Position;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::verification::sums::{Bucket, Sums, hash};
use postgres_r_protocol::verification::{Answer, Depth, Look, Part, Row, Trouble};

use super::row::{self, Fingerprint};
use super::{CATALOGS, catalogs};
use crate::error::Error;
use crate::node::{self, DatabaseArea};
use crate::pg::datum::TransmissionModes;
use crate::pg::query::{self, literal};
use crate::pg::relation::{Lock, Oid, Open};
use crate::pg::{process, scan, subtransaction, worker, xact};
use crate::relations;

/// How often we say how far we are.
const REPORT_EVERY_ROWS: u64 = 512;

/// Digits by which one look takes parts apart.
const DIGITS_A_LOOK: u32 = 2;

/// Rows that one look names at most. The group goes on writing, so there may be more than when it was decided to name them.
const ROWS_MAX: usize = 4000;

/// A table of which the snapshot shows this.
struct Table {
    oid: Oid,
    /// Definition and file.
    shape: String,
}

/// Schema and name of tables whose rows are the group's, each with what must not change while it is read.
const TABLES: &str = "
    SELECT format('%I.%I', n.nspname, c.relname), c.oid,
           concat_ws(' ', c.relfilenode, c.relkind,
               (SELECT string_agg(concat_ws(' ', quote_ident(a.attname), a.atttypid, a.atttypmod, a.attnum), ',' ORDER BY a.attnum)
                FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
    WHERE c.relkind IN ('r', 'm') AND c.relpersistence = 'p' AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
      AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgfoid = 'postgres_r.excluded'::regproc)
      AND (n.nspname <> 'postgres_r' OR c.relname = 'sequences')";

fn table(row: query::Row) -> Option<(String, Table)> {
    let [Some(object), Some(oid), shape] = <[Option<String>; 3]>::try_from(row).ok()? else { return None };
    Some((object, Table { oid: Oid::from(oid.parse::<u32>().ok()?), shape: shape.unwrap_or_default() }))
}

/// The tables of the database that are verified, as of now: this one and what is below it, or all.
pub fn tables_below(oid: Oid) -> Vec<String> {
    let sql = format!(
        "{TABLES} AND c.oid IN (WITH RECURSIVE below AS (SELECT {0}::oid AS oid UNION
             SELECT i.inhrelid FROM pg_inherits i JOIN below b ON b.oid = i.inhparent
             JOIN pg_class p ON p.oid = i.inhparent AND p.relkind = 'p') SELECT oid FROM below) ORDER BY 1",
        oid.to_u32()
    );
    query::rows(&sql).into_iter().filter_map(table).map(|(object, _)| object).collect()
}

/// The table of that name, if its rows are the group's.
pub fn oid_of(object: &str) -> Option<Oid> {
    let sql = format!("{TABLES} AND format('%I.%I', n.nspname, c.relname) = {}", literal(object));
    query::rows(&sql).into_iter().find_map(table).map(|(_, table)| table.oid)
}

/// Whether anybody still wants to know what is seen at a mark.
pub struct Watch {
    area: &'static DatabaseArea,
    mark: i64,
    /// As of the last look at the tables of verifications.
    changes: u64,
    has_ended: bool,
}

impl Watch {
    pub fn new(area: &'static DatabaseArea, mark: i64) -> Watch {
        Watch { area, mark, changes: area.verification.changes(), has_ended: false }
    }

    fn is_wanted(&mut self) -> bool {
        let changes = self.area.verification.changes();
        if changes != self.changes {
            self.changes = changes;
            let sql = format!("SELECT 1 FROM postgres_r.verification_marks WHERE id = {}", self.mark);
            self.has_ended |= query::first_row(&sql).is_none();
        }
        !self.has_ended && self.area.is_in_use()
    }

    fn check(&mut self) {
        if !self.is_wanted() {
            Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "the verification has ended").raise();
        }
    }
}

/// Looks by the active snapshot, which shows the database as it was before `position`: at these, or at everything. None if nobody wants to
/// know any more.
pub fn look(position: Position, looks: &[Look], mut watch: Watch) -> Option<Vec<Answer>> {
    let area = watch.area;
    let tables: BTreeMap<String, Table> = query::rows_by_snapshot(TABLES).into_iter().filter_map(table).collect();
    let whole = |object: &String| Look { object: object.clone(), buckets: Vec::new(), depth: Depth::Whole };
    let everything = || [CATALOGS.to_owned()].iter().chain(tables.keys()).map(whole).collect();
    let looks: Vec<Look> = if looks.is_empty() { everything() } else { looks.to_vec() };
    let progress = &area.verification.progress;
    progress.begin(looks.len());
    let mut answers = Vec::new();
    for look in &looks {
        if !watch.is_wanted() {
            break;
        }
        progress.look_at(&look.object);
        worker::report_activity(Some(&format!("verifying {}", look.object)));
        let parts = match tables.get(&look.object) {
            Some(table) => settled(subtransaction::attempt(|| read_table(&mut watch, table, look))),
            None if look.object == CATALOGS => of_catalogs(area, position, look),
            // It is not there.
            None => Vec::new(),
        };
        answers.extend(parts.into_iter().map(|part| Answer { object: look.object.clone(), part }));
        progress.done.fetch_add(1, Ordering::Relaxed);
    }
    progress.end();
    worker::report_activity(None);
    watch.is_wanted().then_some(answers)
}

/// What an attempt to look came to.
fn settled(attempted: Result<Option<Vec<Part>>, xact::Failed>) -> Vec<Part> {
    let trouble = match attempted {
        Ok(Some(parts)) => return parts,
        Ok(None) => Trouble::Changed,
        Err(failed) => trouble(failed),
    };
    vec![Part::Trouble(trouble)]
}

fn trouble(failed: xact::Failed) -> Trouble {
    // Whoever needed the table has it now.
    process::forget_summons();
    if let Some(slot) = node::my_slot() {
        slot.victim.clear();
    }
    match failed.code {
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
        | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
        | PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE
        | PgSqlErrorCode::ERRCODE_QUERY_CANCELED => Trouble::Interrupted("a statement needed the table".to_owned()),
        PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY | PgSqlErrorCode::ERRCODE_INSUFFICIENT_RESOURCES => {
            Trouble::Interrupted(failed.message)
        }
        _ => Trouble::Unreadable(failed.message),
    }
}

/// None if the table is not what the snapshot shows any more.
fn read_table(watch: &mut Watch, table: &Table, look: &Look) -> Option<Vec<Part>> {
    let open = Open::by_oid(table.oid, Lock::AccessShare)?;
    let now = query::rows(&format!("{TABLES} AND c.oid = {}", table.oid.to_u32()));
    let (object, now) = now.into_iter().find_map(self::table)?;
    if object != look.object || now.shape != table.shape {
        return None;
    }
    let known = relations::known_open(&open);
    let modes = known.table.depends_on_settings.then(TransmissionModes::enter);
    let mut fingerprint = Fingerprint::new(Rc::clone(&known));
    let mut found = Found::new(look);
    let mut rows = 0;
    scan::for_each_row(&open, |row| {
        rows += 1;
        if rows % REPORT_EVERY_ROWS == 0 {
            watch.area.verification.progress.rows.fetch_add(REPORT_EVERY_ROWS, Ordering::Relaxed);
            watch.check();
        }
        let identity = if found.asks_identity() { fingerprint.identity(row) } else { 0 };
        if found.is_wanted(identity) {
            let hash = fingerprint.row(row);
            found.add(identity, hash, || row::text(&known, row));
        }
    });
    drop(modes);
    Some(found.parts())
}

fn of_catalogs(area: &DatabaseArea, position: Position, look: &Look) -> Vec<Part> {
    let attempted = subtransaction::attempt(|| {
        let mut found = Found::new(look);
        for object in catalogs::objects() {
            let identity = hash(object.name.as_bytes());
            if found.is_wanted(identity) {
                let hash = hash(format!("{}\0{}", object.name, object.definition).as_bytes());
                found.add(identity, hash, || object.name.clone());
            }
        }
        Some(found.parts())
    });
    // Definitions are those of today.
    if area.replica.last_statement() > position { vec![Part::Trouble(Trouble::Changed)] } else { settled(attempted) }
}

/// What has been found of one object so far.
struct Found {
    depth: Depth,
    /// Digits of the parts that are asked for.
    digits: u32,
    buckets: HashSet<Bucket>,
    whole: Sums,
    parts: BTreeMap<Bucket, Sums>,
    rows: Vec<Row>,
}

impl Found {
    fn new(look: &Look) -> Found {
        Found {
            depth: look.depth,
            digits: look.buckets.first().map_or(0, |bucket| bucket.digits),
            buckets: look.buckets.iter().copied().collect(),
            whole: Sums::default(),
            parts: BTreeMap::new(),
            rows: Vec::new(),
        }
    }

    fn asks_identity(&self) -> bool {
        self.depth != Depth::Whole || !self.buckets.is_empty()
    }

    fn is_wanted(&self, identity: u128) -> bool {
        self.buckets.is_empty() || self.buckets.contains(&Bucket::of(identity, self.digits))
    }

    fn add(&mut self, identity: u128, hash: u128, text: impl FnOnce() -> String) {
        match self.depth {
            Depth::Whole => self.whole.add(hash),
            Depth::Buckets => {
                self.parts.entry(Bucket::of(identity, self.digits + DIGITS_A_LOOK)).or_default().add(hash);
            }
            Depth::Rows if self.rows.len() <= ROWS_MAX => self.rows.push(Row { identity, hash, text: text() }),
            Depth::Rows => {}
        }
    }

    /// An object without a row says so: it is there.
    fn parts(self) -> Vec<Part> {
        match self.depth {
            Depth::Rows if self.rows.len() > ROWS_MAX => {
                vec![Part::Trouble(Trouble::Interrupted("too many rows were written meanwhile".to_owned()))]
            }
            Depth::Rows => self.rows.into_iter().map(Part::Row).collect(),
            Depth::Buckets if !self.parts.is_empty() => {
                self.parts.into_iter().map(|(bucket, sums)| Part::Bucket(bucket, sums)).collect()
            }
            Depth::Buckets | Depth::Whole => vec![Part::Whole(self.whole)],
        }
    }
}
