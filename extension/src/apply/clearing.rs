//! Keeping tables clear of this node's writers, for a session of another node that has locked them in the group (`backend::table_locks`).
//!
//! The table is closed at once (`postgres_r_protocol::closed`): who comes to it from then on asks the group first. Plans that were made before are forgotten everywhere, since who has one does
//! not come by where that is found out. Those who are in it already have a lock on it in this server; the answer goes out when nobody has one any more, and says up to where this node
//! has committed: whatever they have committed lies at or below. Each process that releases locks says so while somebody waits for that.

use std::time::{Duration, Instant};

use gcs_writeset::key::name_hash;
use gcs_writeset::link::Rehearsal;
use gcs_writeset::{TableName, tables};
use postgres_r_protocol::closed::{Closing, Concerns};
use postgres_r_protocol::id::ProcNo;

use crate::node::DatabaseArea;
use crate::pg::relation::{self, Oid};
use crate::pg::writers::{self, Running};
use crate::pg::{about_tables, clock, process, xact};
use crate::relations;

/// For how long writers are waited for at most.
const PATIENCE_MAX: Duration = Duration::from_secs(10);

/// While somebody is waited for. What PostgreSQL gives back by itself in the middle of a statement, nobody says.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Tables of which writers are waited for.
struct Clearing {
    number: u64,
    /// Those in which somebody may still be.
    tables: Vec<Oid>,
    /// Who had read which of them when they were closed. Whoever was only about to come in then, and is held back, has no lock any more, and waits for the asker.
    readers: Vec<(Oid, Running)>,
    until: Instant,
}

/// All of them.
pub struct Clearings {
    area: &'static DatabaseArea,
    open: Vec<Clearing>,
}

impl Clearings {
    pub fn new(area: &'static DatabaseArea) -> Clearings {
        area.closed.set_waits_for_writers(false);
        Clearings { area, open: Vec::new() }
    }

    /// Closes the tables that the request names. An answer if it can't be read, or they can't be found out about.
    pub fn begin(&mut self, number: u64, patience: Duration, request: &[u8]) -> Option<Rehearsal> {
        let Ok((alone, names)) = tables::decode(request) else { return Some(Rehearsal::Partly) };
        let area = self.area;
        area.closed.set_waits_for_writers(true);
        let Ok(tables) = xact::transaction(|| close(area, alone, &names)) else { return Some(Rehearsal::Partly) };
        // Plans are forgotten with that transaction; who comes with a lock from now on comes by.
        let ours = |process| is_ours(area, process);
        let of = |table: &Oid| writers::readers(*table, ours).into_iter().map(|reader| (*table, reader)).collect::<Vec<_>>();
        let readers = if alone { tables.iter().flat_map(of).collect() } else { Vec::new() };
        self.open.push(Clearing { number, tables, readers, until: Instant::now() + patience.min(PATIENCE_MAX) });
        None
    }

    /// Which are clear by now, or are waited for no longer.
    pub fn done(&mut self) -> Vec<(u64, Rehearsal)> {
        let area = self.area;
        for clearing in &mut self.open {
            clearing.tables.retain(|table| writers::are_in(*table, |process| is_ours(area, process)));
            clearing
                .readers
                .retain(|(table, reader)| writers::readers(*table, |process| is_ours(area, process)).contains(reader));
        }
        let is_clear = |clearing: &mut Clearing| clearing.tables.is_empty() && clearing.readers.is_empty();
        let clear: Vec<Clearing> = self.open.extract_if(.., |clearing| is_clear(clearing)).collect();
        let over: Vec<Clearing> = self.open.extract_if(.., |clearing| clearing.until <= Instant::now()).collect();
        area.closed.set_waits_for_writers(!self.open.is_empty());
        let committed = area.gate.committed();
        let clear = clear.into_iter().map(|clearing| (clearing.number, Rehearsal::Clear { committed }));
        clear.chain(over.into_iter().map(|clearing| (clearing.number, Rehearsal::Partly))).collect()
    }

    /// How long nothing need be looked at, if nobody says that locks were released.
    pub fn rest(&self) -> Option<Duration> {
        let until = self.open.iter().map(|clearing| clearing.until).min()?;
        Some(until.saturating_duration_since(Instant::now()).min(LOOK_AGAIN))
    }
}

/// Closes these tables wherever a writer comes by, and forgets plans by which one would not. Gives those in which writers are found.
fn close(area: &DatabaseArea, alone: bool, names: &[TableName]) -> Vec<Oid> {
    let gone: Vec<Closing> = area
        .closed
        .all()
        .filter(|(table, _)| relation::entry(Oid::from(*table)).is_none())
        .map(|(_, closing)| closing)
        .collect();
    gone.iter().for_each(|closing| area.closed.open(closing.number, closing.key));
    let (number, at) = (area.closed.next(), u64::try_from(clock::now()).unwrap_or_default());
    let mut in_which = Vec::new();
    for TableName { schema, name } in names {
        let Some(table) = relation::find(schema, name) else { continue };
        let key = relations::relation_key(name_hash(&[schema, name]));
        let concern = |oid: Oid, concerns| {
            area.closed.close(oid.to_u32(), concerns, Closing { key, number, alone, at });
            writers::forget_plans(oid);
        };
        for above in relation::with_parents(table) {
            concern(above, if above == table { Concerns::ItsWriters } else { Concerns::WritersThroughIt });
            if !in_which.contains(&above) {
                in_which.push(above);
            }
        }
        for child in about_tables::children(&[table]) {
            for way in relation::with_parents(child) {
                concern(way, Concerns::ItsChanges);
            }
        }
    }
    in_which
}

/// Whether it is a process of this extension that takes part in the table's changes without being anybody who changes it.
fn is_ours(area: &DatabaseArea, process: ProcNo) -> bool {
    let is = |of: Option<ProcNo>| of == Some(process);
    is(process::me()) || area.workers.iter().any(|worker| is(worker.process.get()))
}
