//! Sequences that the current transaction has made, started again, renamed or dropped: at its end their state becomes the group's.
//!
//! What is noted is only a suspicion: a savepoint may have been rolled back. At the end the catalogs tell what has become of each.

use std::cell::RefCell;
use std::collections::BTreeMap;

use super::state::{self, Name};
use crate::pg::names;
use crate::pg::relation::{Lock, Oid, Persistence};
use crate::pg::sequence::Sequence;

thread_local! {
    /// By OID: the name that it had when it was first noted. For a sequence from before the transaction that is its row's.
    static NOTED: RefCell<BTreeMap<u32, Name>> = const { RefCell::new(BTreeMap::new()) };
}

/// A sequence with this name is, or may be, changed by the current transaction.
pub fn note(oid: Oid, schema: &str, name: &str) {
    NOTED.with_borrow_mut(|noted| {
        noted.entry(oid.to_u32()).or_insert_with(|| (schema.to_owned(), name.to_owned()));
    });
}

/// At the end of every transaction.
pub fn reset() {
    NOTED.with_borrow_mut(BTreeMap::clear);
}

/// Writes what has become of them, as the last thing that the transaction does.
pub fn flush() {
    let noted = NOTED.take();
    let (mut gone, mut there) = (Vec::new(), Vec::new());
    for (oid, before) in noted {
        let oid = Oid::from(oid);
        let Some(sequence) = Sequence::open(oid, Lock::AccessShare) else {
            gone.push(before);
            continue;
        };
        let Some(name) = names::qualified_name(oid) else { continue };
        if sequence.persistence() != Persistence::Permanent {
            // Unlogged from now on: each node draws by itself.
            gone.push(before);
            continue;
        }
        let is_renamed = !sequence.is_new() && name != before;
        let state =
            if sequence.is_own() { Some(sequence.state()) } else { is_renamed.then(|| state::hold(&before)).flatten() };
        if is_renamed {
            gone.push(before);
        }
        there.extend(state.map(|state| (name, state)));
    }
    // A name may have gone from one to another.
    gone.iter().for_each(state::remove);
    there.iter().for_each(|(name, state)| state::write(name, *state));
}
