//! A step of an index that another node makes or drops CONCURRENTLY, at its position (docs/adr/0058-concurrently.md).
//!
//! What a node does by itself before the step, the step does not wait for: where it is not done, it is done here and now, with locks that keep
//! writers off, as without CONCURRENTLY. So the step comes out the same on a node that was away, has been started again or is a copy of another.

use gcs_writeset::body::{Indexed, Step};

use super::divergence::Divergence;
use crate::pg::concurrent::{self, State};
use crate::pg::names::quoted;
use crate::pg::relation::{self, Lock, Oid, Open};
use crate::pg::{encoding, utility};
use crate::{relations, session};

pub fn apply(indexed: &Indexed<'_>) -> Result<(), Divergence> {
    let Indexed { step, schema, name, definition, .. } = *indexed;
    let found = relation::find(schema, name).and_then(|index| Some((index, concurrent::state(index)?)));
    let node = session::database().map(|area| area.replica.node());
    let is_done = indexed.nodes().any(|done| Some(done) == node);
    match (step, found) {
        (Step::Valid | Step::ValidIdentity, Some((index, state))) => {
            let is_identity = step == Step::ValidIdentity;
            make_valid(index, &state, is_identity, is_done);
        }
        // A copy of a database has no index that was not valid.
        (Step::Valid | Step::ValidIdentity, None) => run(definition)?,
        (Step::Invalid, Some((index, state))) => {
            lock(&state, state.tells_rows_apart && !relations::has_primary_key(state.table));
            concurrent::make_invalid(index, &state);
        }
        (Step::Dropped, Some((index, state))) if is_done && !state.is_live => concurrent::drop_unused(index),
        (Step::Dropped, Some(_)) => run(&format!("DROP INDEX {}.{}", quoted(schema), quoted(name)))?,
        (Step::Invalid | Step::Dropped, None) => {}
    }
    Ok(())
}

fn lock(state: &State, against_writers: bool) {
    if against_writers {
        drop(Open::by_oid(state.table, Lock::ShareRowExclusive));
    } else {
        concurrent::lock_table(state.table);
    }
}

fn make_valid(index: Oid, state: &State, is_identity: bool, is_done: bool) {
    let is_complete = is_done && state.is_ready && state.is_live;
    // One that is valid already was built by something else that builds all indexes of a table (TRUNCATE).
    if state.is_valid || is_complete {
        lock(state, is_identity);
        concurrent::make_valid(index, state);
    } else {
        concurrent::rebuild(index);
    }
}

fn run(text: &str) -> Result<(), Divergence> {
    let damaged = gcs_writeset::wire::WireError::OutOfRange { what: "zero byte in a statement" };
    utility::run_text(&encoding::c_string(text).ok_or(damaged)?, None);
    Ok(())
}
