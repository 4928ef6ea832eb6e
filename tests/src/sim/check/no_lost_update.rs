//! No lost update, no write skew where reads were checked, no child without its parent: certified writesets, one after another
//! in position order, must be a history that one server could have had. Each replaces exactly the version before it, what a
//! SERIALIZABLE transaction read (rows, and how many there are) is still so, and no parent goes while it has children.

use std::collections::BTreeMap;

use gcs_writeset::Position;
use gcs_writeset::link::Verdict;

use super::invariant::Invariant;
use crate::sim::fact::{Fact, View};
use crate::sim::postgres::{Body, Row, Value};

#[derive(Default)]
pub struct NoLostUpdate {
    last: Position,
    /// The version of each row, and its value, as of the last position.
    rows: BTreeMap<Row, (Position, Value)>,
    children: BTreeMap<Row, usize>,
}

impl Invariant for NoLostUpdate {
    fn name(&self) -> &'static str {
        "no lost update"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        let Fact::Delivered { delivery, .. } = fact else { return Ok(()) };
        let position = delivery.outcome.position;
        if position != self.last.next() {
            return Ok(());
        }
        self.last = position;
        let Verdict::Certified { .. } = delivery.outcome.verdict else { return Ok(()) };
        let Ok(body) = Body::decode(&delivery.body) else {
            return Err(format!("position {position} has a body that cannot be read"));
        };
        self.apply(position, &body).map_err(|why| format!("position {position}, transaction {}: {why}", body.txn.0))
    }
}

impl NoLostUpdate {
    fn apply(&mut self, position: Position, body: &Body) -> Result<(), String> {
        let version = |rows: &BTreeMap<Row, (Position, Value)>, row| rows.get(&row).map_or(Position::ZERO, |(at, _)| *at);
        for (row, seen) in &body.reads {
            let is = version(&self.rows, *row);
            if is != *seen {
                return Err(format!("read row {} as of {seen}, but it is of {is}", row.0));
            }
        }
        for (parent, seen) in body.counts.iter().chain(&body.sweeps) {
            let is = self.children.get(parent).copied().unwrap_or_default();
            if is != *seen {
                return Err(format!("counted {seen} children of row {}, but there are {is}", parent.0));
            }
        }
        for change in &body.changes {
            let is = version(&self.rows, change.row);
            if is != change.seen {
                return Err(format!("replaces row {} of {}, but it is of {is}", change.row.0, change.seen));
            }
        }
        for change in &body.changes {
            let existed = self.rows.get(&change.row).is_some_and(|(_, value)| value.is_some());
            self.rows.insert(change.row, (position, change.value.clone()));
            if let Some(parent) = change.row.parent() {
                let count = self.children.entry(parent).or_default();
                match (existed, change.value.is_some()) {
                    (false, true) => *count += 1,
                    (true, false) => *count -= 1,
                    _ => {}
                }
            }
        }
        for change in &body.changes {
            self.check_reference(change.row)?;
        }
        Ok(())
    }

    fn check_reference(&self, row: Row) -> Result<(), String> {
        let parent = row.parent().unwrap_or(row);
        let children = self.children.get(&parent).copied().unwrap_or_default();
        // Rows that were there from the beginning have no entry until somebody changes them.
        let gone = self.rows.get(&parent).is_some_and(|(_, value)| value.is_none());
        if children > 0 && gone { Err(format!("row {} is gone and has {children} children", parent.0)) } else { Ok(()) }
    }
}
