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

/// The same, and locks the row.
pub fn read_for_update(name: &Name) -> Option<State> {
    let condition = is_named(name);
    state(&first_row(&format!("SELECT last_value, is_called FROM postgres_r.sequences WHERE {condition} FOR UPDATE"))?)
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

/// How far the group is, as far as this node knows, given how far its own sequence is. That one is right where the node has the last lease:
/// what it has not given yet, nobody has.
pub fn shown(oid: Oid, own: State) -> State {
    let Some(area) = session::database() else { return own };
    let Some(sequence) = pg::sequence::Sequence::open(oid, Lock::AccessShare) else { return own };
    if sequence.persistence() != Persistence::Permanent || sequence.is_own() || !pg::sequence::may_see(oid) {
        return own;
    }
    let of = Sequence { oid, file: sequence.file() };
    match names::qualified_name(oid).and_then(|name| read(&name)) {
        Some(group) if !area.leases.has_the_last(of, group.last) => group,
        _ => own,
    }
}
