//! How far the group is with a sequence: a row of `postgres_r.sequences`, in the form of a sequence's own row, replicated as any other row.
//!
//! A row is found by the sequence's schema and name, which are the same on all nodes. What renames a sequence renames its row in the same
//! transaction ([`super::pending`]).

use postgres_r_protocol::lease::State;

use crate::node::leases::Sequence;
use crate::pg::names;
use crate::pg::query::{first_row, literal};
use crate::pg::relation::{Lock, Oid, Persistence};
use crate::pg::{self};
use crate::session;

/// A sequence's name: its schema, and its own.
pub type Name = (String, String);

fn is_named((schema, name): &Name) -> String {
    format!("schema = {} AND name = {}", literal(schema), literal(name))
}

fn state(row: &[Option<String>]) -> Option<State> {
    let [Some(last), Some(is_called)] = row else { return None };
    Some(State { last: last.parse().ok()?, is_called: is_called == "t" })
}

/// None if the group has not heard of it.
pub fn read(name: &Name) -> Option<State> {
    state(&first_row(&format!("SELECT last_value, is_called FROM postgres_r.sequences WHERE {}", is_named(name)))?)
}

/// The same, and locks the row. What is to be written follows from what was read here, never from [`read`]: with READ COMMITTED another node's lease
/// may become visible between two queries, and what is written over it would be given out again.
pub fn hold(name: &Name) -> Option<State> {
    let condition = is_named(name);
    state(&first_row(&format!("SELECT last_value, is_called FROM postgres_r.sequences WHERE {condition} FOR UPDATE"))?)
}

/// The same of a sequence that is not the current transaction's own. Where the group has not heard of it, as of those that came with the data
/// of a first node, it is where this node's is; a row that is not there cannot be locked, so it is made first: of two nodes that do it, one loses.
pub fn hold_or_make(name: &Name, own: impl FnOnce() -> Option<State>) -> Option<State> {
    if let Some(held) = hold(name) {
        return Some(held);
    }
    let State { last, is_called } = own()?;
    let (schema, sequence) = (literal(&name.0), literal(&name.1));
    first_row(&format!(
        "INSERT INTO postgres_r.sequences VALUES ({schema}, {sequence}, {last}, {is_called}) ON CONFLICT DO NOTHING"
    ));
    hold(name)
}

/// Also where nothing changes: a lease of another node must not come in between.
pub fn write(name: &Name, state: State) {
    let State { last, is_called } = state;
    first_row(&format!(
        "INSERT INTO postgres_r.sequences VALUES ({}, {}, {last}, {is_called})
         ON CONFLICT (schema, name) DO UPDATE SET last_value = excluded.last_value, is_called = excluded.is_called",
        literal(&name.0),
        literal(&name.1)
    ));
}

pub fn remove(name: &Name) {
    first_row(&format!("DELETE FROM postgres_r.sequences WHERE {}", is_named(name)));
}

/// How far the group is, as far as this node knows, given how far its own sequence is.
pub fn shown(oid: Oid, own: State) -> State {
    let is_the_groups = pg::sequence::Sequence::open(oid, Lock::AccessShare).is_some_and(|sequence| {
        sequence.persistence() == Persistence::Permanent && !sequence.is_own() && pg::sequence::may_see(oid)
    });
    let name = names::qualified_name(oid).filter(|_| is_the_groups && session::database().is_some());
    match name.and_then(|name| read(&name)) {
        Some(group) => newest(oid, group, own),
        None => own,
    }
}

/// What the group's row says, or how far the node's own sequence is: that one is right where the node has the last lease, since what it has
/// not given yet, nobody has.
pub fn newest(oid: Oid, group: State, own: State) -> State {
    let Some(area) = session::database() else { return own };
    let Some(sequence) = pg::sequence::Sequence::open(oid, Lock::AccessShare) else { return own };
    let of = Sequence { oid, file: sequence.file() };
    if area.leases.has_the_last(of, group.last) { own } else { group }
}
