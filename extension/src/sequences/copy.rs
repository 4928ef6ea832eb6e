//! COPY into a table whose identity column it does not name: the values are drawn where nobody can ask about each of them.
//!
//! So there are enough of them beforehand, and afterwards they are looked at together: all between the first and the last must be of one lease,
//! which may have grown meanwhile. If another node has got some of them, COPY has lost, and fails with 40001.

use std::cell::RefCell;

use super::draw;
use crate::error;
use crate::node::leases::Sequence;
use crate::node::{self, DatabaseArea};
use crate::pg::names;
use crate::pg::relation::{Lock, Oid, Persistence};
use crate::pg::sequence::{self, Declared};
use crate::pg::utility::Serial;
use crate::session;

/// Values that a COPY is to have before it begins.
const AT_LEAST: u32 = 1 << 16;

/// A sequence that a COPY draws from, and the value that comes first.
struct Drawn {
    /// The number of the statement: functions that COPY calls may run another.
    by: Serial,
    of: Sequence,
    first: i64,
}

thread_local! {
    static COPYING: RefCell<Vec<Drawn>> = const { RefCell::new(Vec::new()) };
}

/// A COPY, the statement `by`, begins that draws from these sequences.
pub fn starts(by: Serial, sequences: &[Oid]) {
    let Some(area) = session::database().filter(|_| session::is_captured()) else { return };
    let drawn: Vec<Drawn> = sequences.iter().filter_map(|&oid| make_ready(area, by, oid)).collect();
    COPYING.with_borrow_mut(|copying| copying.extend(drawn));
}

fn open(oid: Oid) -> Option<(sequence::Sequence, Declared)> {
    let sequence = sequence::Sequence::open(oid, Lock::RowExclusive)?;
    let declared = sequence.declared()?;
    (sequence.persistence() == Persistence::Permanent && !sequence.is_own()).then_some((sequence, declared))
}

fn make_ready(area: &DatabaseArea, by: Serial, oid: Oid) -> Option<Drawn> {
    let (sequence, declared) = open(oid)?;
    let of = Sequence { oid, file: sequence.file() };
    let next = |sequence: &sequence::Sequence| declared.series.next(sequence.state()).ok();
    let has_enough = |value: i64| {
        let left = area.leases.range_of(of, value).map_or(0, |range| range.last.abs_diff(value));
        left / declared.series.increment.unsigned_abs() >= u64::from(AT_LEAST) / 2
    };
    if !next(&sequence).is_some_and(has_enough) {
        draw::lease(area, of, None, AT_LEAST);
        // The values before are left alone, if they are not of one piece with these.
        let latest = area.leases.latest(of)?;
        if next(&sequence).is_none_or(|value| area.leases.range_of(of, value).is_none_or(|range| range.last != latest.last))
        {
            sequence.advance(&declared.series, latest.first);
        }
    }
    Some(Drawn { by, of, first: next(&sequence)? })
}

/// Forgets those that failed; at the end of every transaction.
pub fn reset() {
    COPYING.with_borrow_mut(Vec::clear);
}

/// The statement `by` has ended.
pub fn ends(by: Serial) {
    let ended: Vec<Drawn> = COPYING.with_borrow_mut(|copying| {
        let (ended, others) = std::mem::take(copying).into_iter().partition(|drawn| drawn.by == by);
        *copying = others;
        ended
    });
    let Some(area) = session::database() else { return };
    for Drawn { of, first, .. } in ended {
        let Some((sequence, declared)) = open(of.oid) else { continue };
        let state = sequence.state();
        drop(sequence);
        if declared.series.is_behind(state, first) || declared.series.next(state) == Ok(first) {
            // It drew nothing.
            continue;
        }
        let is_whole = || area.leases.range_of(of, first).is_some_and(|range| range.contains(state.last));
        if !is_whole() {
            draw::lease(area, of, Some(state.last), 0);
        }
        if !is_whole() {
            let name = names::qualified_name(of.oid).map(|(_, name)| name).unwrap_or_default();
            node::wake(area.leases.leaser);
            error::copy_lost(&name).raise();
        }
    }
}
