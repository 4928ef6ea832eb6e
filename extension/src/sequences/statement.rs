//! Statements that change a sequence and let it go on from where it is: ALTER SEQUENCE INCREMENT, MAXVALUE, AS ... without RESTART, and those of
//! ALTER TABLE that become such for an identity column.
//!
//! "Where it is" must be the same on all nodes, else such a statement works on one and fails on another (MAXVALUE below the value), or lets a
//! node go on behind the others. So before it runs, the sequence is set to where the group is: on the origin, which writes that to the
//! group's row, and wherever the statement is applied, which reads it there. Both do it by starting the sequence again, so that it is undone with
//! the transaction; and nobody draws from it any more until the end.

use super::{pending, state};
use crate::pg::names;
use crate::pg::privilege;
use crate::pg::relation::{self, Lock, Oid, Persistence};
use crate::pg::role::Acting;
use crate::pg::sequence::{self, Sequence};
use crate::pg::utility::Utility;
use crate::session;

/// The statement is about to run, here or as one of another node.
pub fn before(utility: &Utility) {
    for oid in utility.sequences_that_go_on() {
        if session::is_remote_backend() {
            take_up(oid);
        } else {
            settle(oid);
        }
    }
    if let Some(schema) = utility.renamed_schema().filter(|_| session::is_captured()) {
        for oid in relation::sequences_in(&schema) {
            if let Some((schema, name)) = names::qualified_name(oid) {
                pending::note(oid, &schema, &name);
            }
        }
    }
}

/// These sequences, and those of these tables, were started again, or are the group's from now on.
pub fn restarted_with(relations: &[Oid]) {
    for oid in relations.iter().flat_map(|&relation| sequence::with_owned(relation)) {
        if let Some((schema, name)) = names::qualified_name(oid) {
            pending::note(oid, &schema, &name);
        }
    }
}

/// On the origin: makes where the group is a part of the transaction.
fn settle(oid: Oid) {
    // Whoever may not alter it must not keep others off either.
    if !privilege::is_owner(oid) {
        return;
    }
    sequence::keep_others_off(oid);
    let (Some(found), Some(name)) = (Sequence::open(oid, Lock::AccessShare), names::qualified_name(oid)) else { return };
    if found.persistence() != Persistence::Permanent || found.is_own() {
        return;
    }
    let own = found.state();
    drop(found);
    let Some(held) = state::hold_or_make(&name, || Some(own)) else { return };
    let group = state::newest(oid, held, own);
    {
        let _role = Acting::superuser();
        sequence::restart(&name.0, &name.1, group.last);
    }
    if let Some(own) = Sequence::open(oid, Lock::AccessShare) {
        own.place(group);
    }
    pending::note(oid, &name.0, &name.1);
    state::write(&name, group);
}

/// Where a statement of another node is applied: the value it was settled at has come before it.
fn take_up(oid: Oid) {
    let (Some(found), Some(name)) = (Sequence::open(oid, Lock::AccessShare), names::qualified_name(oid)) else { return };
    if found.persistence() != Persistence::Permanent {
        return;
    }
    let (group, declared) = (state::read(&name), found.declared());
    drop(found);
    if let (Some(group), Some(declared)) = (group, declared)
        && (declared.series.min..=declared.series.max).contains(&group.last)
    {
        sequence::restart(&name.0, &name.1, group.last);
        if let Some(own) = Sequence::open(oid, Lock::AccessShare) {
            own.place(group);
        }
    }
}
