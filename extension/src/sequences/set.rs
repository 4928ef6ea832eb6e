//! setval(): an ALTER SEQUENCE ... RESTART WITH for all nodes, in the current transaction, and then PostgreSQL's own setval for what it does
//! beyond that: `currval`, and whether the value counts as given.
//!
//! In the group it is part of its transaction: undone by ROLLBACK, and nobody else draws values until the end.

use crate::pg::names::{self, quoted};
use crate::pg::relation::{Lock, Oid, Persistence};
use crate::pg::role::Acting;
use crate::pg::sequence::{self, Sequence};
use crate::pg::{encoding, utility, xact};
use crate::session;

/// A call of setval, before PostgreSQL's own runs. What that refuses, it refuses.
pub fn on_setval(oid: Oid, value: i64) {
    if !session::is_captured() || xact::is_read_only() || !sequence::may_set(oid) {
        return;
    }
    let Some(sequence) = Sequence::open(oid, Lock::RowExclusive) else { return };
    let in_range = sequence.declared().is_some_and(|declared| (declared.series.min..=declared.series.max).contains(&value));
    let (Some((schema, name)), true) = (names::qualified_name(oid), in_range) else { return };
    if sequence.persistence() != Persistence::Permanent {
        return;
    }
    let text = format!("ALTER SEQUENCE {}.{} RESTART WITH {value}", quoted(&schema), quoted(&name));
    // It needs no more than UPDATE, which the role has.
    let _role = Acting::fully(sequence.owner());
    drop(sequence);
    utility::run_text(&encoding::c_string(&text).unwrap_or_default(), None);
}
