//! The checker on histories with a known anomaly, and on ones that look bad and are allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use super::anomaly::{Isolation, Kind};
use super::check;
use super::history::{Element, History, Key, Op, Outcome, Session, Span, Txn};

fn append(key: u32, element: u64) -> Op {
    Op::Append(Key(key), Element(element))
}

fn read(key: u32, list: &[u64]) -> Op {
    Op::Read(Key(key), list.iter().copied().map(Element).collect())
}

/// Each transaction in a session of its own.
fn history(txns: &[(Outcome, &[Op])]) -> History {
    let txn = |(number, (outcome, ops)): (usize, &(Outcome, &[Op]))| Txn {
        session: Session(number as u32),
        outcome: *outcome,
        ops: ops.to_vec(),
        span: None,
    };
    History { txns: txns.iter().enumerate().map(txn).collect() }
}

fn committed(txns: &[&[Op]]) -> History {
    let txns: Vec<(Outcome, &[Op])> = txns.iter().map(|ops| (Outcome::Committed, *ops)).collect();
    history(&txns)
}

fn kinds_at(isolation: Isolation, history: &History) -> Vec<Kind> {
    let mut kinds: Vec<Kind> = check(history, isolation, None).into_iter().map(|anomaly| anomaly.kind).collect();
    kinds.sort();
    kinds.dedup();
    kinds
}

/// At REPEATABLE READ. What it forbids, SERIALIZABLE forbids, by the same name.
fn kinds(history: &History) -> Vec<Kind> {
    let kinds = kinds_at(Isolation::Snapshot, history);
    let at_serializable: Vec<Kind> =
        kinds_at(Isolation::Serializable, history).into_iter().filter(|kind| *kind != Kind::G2).collect();
    assert_eq!(at_serializable, kinds);
    kinds
}

#[test]
fn one_after_the_other_is_clean() {
    let h =
        committed(&[&[append(1, 1)], &[read(1, &[1]), append(1, 2)], &[append(2, 3), read(1, &[1, 2])], &[read(2, &[3])]]);
    assert_eq!(kinds(&h), []);
}

#[test]
fn write_skew_is_allowed_at_repeatable_read_and_g2_at_serializable() {
    let h = committed(&[&[read(1, &[]), append(2, 1)], &[read(2, &[]), append(1, 2)], &[read(1, &[2]), read(2, &[1])]]);
    assert_eq!(kinds(&h), []);
    assert_eq!(kinds_at(Isolation::Serializable, &h), [Kind::G2]);
}

#[test]
fn a_write_skew_of_three_is_g2_at_serializable() {
    let h = committed(&[
        &[read(1, &[]), append(2, 1)],
        &[read(2, &[]), append(3, 2)],
        &[read(3, &[]), append(1, 3)],
        &[read(1, &[3]), read(2, &[1]), read(3, &[2])],
    ]);
    assert_eq!(kinds(&h), []);
    assert_eq!(kinds_at(Isolation::Serializable, &h), [Kind::G2]);
}

/// A receipt goes to the batch it saw open; the batch was closed meanwhile, and a reader saw it closed without the receipt. Each
/// pair by itself can be ordered (Fekete, O'Neil, O'Neil: *A Read-Only Transaction Anomaly*, 2004).
#[test]
fn a_reader_that_shows_an_order_that_was_not_is_g2_at_serializable() {
    let (batch, receipts) = (1, 2);
    let h = committed(&[
        &[read(batch, &[]), append(receipts, 1)],
        &[append(batch, 2)],
        &[read(batch, &[2]), read(receipts, &[])],
        &[read(batch, &[2]), read(receipts, &[1])],
    ]);
    assert_eq!(kinds(&h), []);
    assert_eq!(kinds_at(Isolation::Serializable, &h), [Kind::G2]);
    let without_the_reader = History { txns: [&h.txns[..2], &h.txns[3..]].concat() };
    assert_eq!(kinds_at(Isolation::Serializable, &without_the_reader), []);
}

#[test]
fn a_cycle_of_overwrites_is_g0() {
    let h =
        committed(&[&[append(1, 1), append(2, 3)], &[append(1, 2), append(2, 4)], &[read(1, &[1, 2])], &[read(2, &[4, 3])]]);
    assert_eq!(kinds(&h), [Kind::G0]);
}

#[test]
fn a_read_of_an_aborted_append_is_g1a() {
    let h = history(&[(Outcome::Aborted, &[append(1, 1)]), (Outcome::Committed, &[read(1, &[1])])]);
    assert_eq!(kinds(&h), [Kind::G1a]);
}

#[test]
fn a_read_of_an_intermediate_list_is_g1b() {
    let h = committed(&[&[append(1, 1), append(1, 2)], &[read(1, &[1])], &[read(1, &[1, 2])]]);
    // It is also an unrepeatable snapshot: the reader both saw and missed the writer.
    assert_eq!(kinds(&h), [Kind::G1b, Kind::GSingle]);
}

#[test]
fn two_transactions_that_see_each_other_are_g1c() {
    let h = committed(&[&[append(1, 1), read(2, &[2])], &[append(2, 2), read(1, &[1])]]);
    assert_eq!(kinds(&h), [Kind::G1c]);
}

#[test]
fn half_of_a_transaction_is_g_single() {
    let h = committed(&[&[append(1, 1), append(2, 2)], &[read(1, &[1]), read(2, &[])], &[read(2, &[2])]]);
    assert_eq!(kinds(&h), [Kind::GSingle]);
}

#[test]
fn two_appends_to_the_same_version_are_a_lost_update() {
    let h = committed(&[&[read(1, &[]), append(1, 1)], &[read(1, &[]), append(1, 2)], &[read(1, &[1, 2])]]);
    assert_eq!(kinds(&h), [Kind::LostUpdate]);
}

#[test]
fn an_acknowledged_append_that_is_gone_is_lost() {
    let h = committed(&[&[append(1, 1)], &[append(1, 2)], &[read(1, &[2])]]);
    assert_eq!(kinds(&h), []);
    let last = BTreeMap::from([(Key(1), vec![Element(2)])]);
    let found = check(&h, Isolation::Snapshot, Some(&last));
    assert_eq!(found.iter().map(|anomaly| anomaly.kind).collect::<Vec<_>>(), [Kind::LostAppend]);
    assert_eq!(found[0].txns[0].0, 0);
}

#[test]
fn two_orders_of_one_list_are_a_fork() {
    let h = committed(&[&[append(1, 1)], &[append(1, 2)], &[read(1, &[1, 2])], &[read(1, &[2])]]);
    assert_eq!(kinds(&h), [Kind::Fork]);
}

#[test]
fn two_snapshots_that_disagree_on_an_order_are_a_long_fork() {
    let h = committed(&[
        &[append(1, 1)],
        &[append(2, 2)],
        &[read(1, &[1]), read(2, &[])],
        &[read(1, &[]), read(2, &[2])],
        &[read(1, &[1]), read(2, &[2])],
    ]);
    assert_eq!(kinds(&h), [Kind::GNonadjacent]);
}

#[test]
fn a_session_that_loses_sight_of_its_own_append_is_found() {
    let mut h = committed(&[&[append(1, 1)], &[read(1, &[])], &[read(1, &[1])]]);
    h.txns[1].session = h.txns[0].session;
    assert_eq!(kinds(&h), [Kind::GSingle]);
}

/// In milliseconds, from and to.
fn timed(mut history: History, spans: &[(u64, u64)]) -> History {
    for (txn, &(began, ended)) in history.txns.iter_mut().zip(spans) {
        let (began, ended) = (Duration::from_millis(began), Duration::from_millis(ended));
        txn.span = Some(Span { began, ended });
    }
    history
}

#[test]
fn a_read_that_misses_what_another_client_was_told_before_is_stale() {
    let h = committed(&[&[append(1, 1)], &[read(1, &[])], &[read(1, &[1])]]);
    assert_eq!(kinds(&h), [], "without time nobody can tell");
    assert_eq!(kinds(&timed(h.clone(), &[(0, 10), (5, 20), (30, 40)])), [], "it had begun before");
    assert_eq!(kinds(&timed(h, &[(0, 10), (11, 20), (30, 40)])), [Kind::GSingle]);
}

#[test]
fn a_stale_read_is_found_across_what_happened_in_between() {
    let h = committed(&[&[append(1, 1)], &[append(2, 2)], &[append(3, 3)], &[read(1, &[])], &[read(1, &[1])]]);
    assert_eq!(kinds(&timed(h, &[(0, 10), (11, 20), (21, 30), (31, 40), (50, 60)])), [Kind::GSingle]);
}

#[test]
fn an_overwrite_that_goes_back_in_time_is_g1c() {
    let h = committed(&[&[append(1, 2)], &[append(1, 1)], &[read(1, &[1, 2])]]);
    assert_eq!(kinds(&timed(h, &[(0, 10), (20, 30), (40, 50)])), [Kind::G1c]);
}

#[test]
fn an_unknown_transaction_that_was_seen_has_a_beginning_and_no_end() {
    let mut h = committed(&[&[append(1, 1)], &[read(1, &[])], &[read(1, &[1])]]);
    h.txns[0].outcome = Outcome::Unknown;
    assert_eq!(kinds(&timed(h, &[(0, 10), (20, 30), (40, 50)])), []);
}

#[test]
fn a_transaction_that_does_not_see_itself_is_internal() {
    let h = committed(&[&[append(1, 1), read(1, &[])], &[read(1, &[1])]]);
    assert!(kinds(&h).contains(&Kind::Internal));
    let h = committed(&[&[read(1, &[]), read(1, &[1])], &[append(1, 1)]]);
    assert!(kinds(&h).contains(&Kind::Internal));
}

#[test]
fn duplicates_and_values_from_nowhere_are_found() {
    assert!(kinds(&committed(&[&[append(1, 1)], &[read(1, &[1, 1])]])).contains(&Kind::Duplicate));
    assert_eq!(kinds(&committed(&[&[read(1, &[7])]])), [Kind::Garbage]);
}

#[test]
fn an_unknown_transaction_counts_only_if_it_was_seen() {
    let unseen = history(&[(Outcome::Unknown, &[append(1, 1)]), (Outcome::Committed, &[read(1, &[])])]);
    assert_eq!(kinds(&unseen), []);
    let seen = history(&[
        (Outcome::Unknown, &[append(1, 1), append(2, 2)]),
        (Outcome::Committed, &[read(1, &[1]), read(2, &[])]),
        (Outcome::Committed, &[read(2, &[2])]),
    ]);
    assert_eq!(kinds(&seen), [Kind::GSingle]);
}

/// A serial execution, shuffled into sessions, with many lists: the checker must be silent and quick, with real time too.
#[test]
fn a_long_serial_history_is_clean() {
    let mut lists: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let mut h = History::default();
    for number in 0..20_000u64 {
        let (a, b) = (
            (number * 7 % 40) as u32 + (number / 2000) as u32 * 100,
            (number * 13 % 40) as u32 + (number / 2000) as u32 * 100,
        );
        let seen = lists.entry(b).or_default().clone();
        let mut ops = vec![read(b, &seen)];
        lists.entry(a).or_default().push(number);
        ops.push(append(a, number));
        h.txns.push(Txn { session: Session((number % 12) as u32), outcome: Outcome::Committed, ops, span: None });
    }
    assert_eq!(kinds_at(Isolation::Serializable, &h), []);
    let spans: Vec<(u64, u64)> = (0..20_000).map(|number| (10 * number, 10 * number + 9)).collect();
    assert_eq!(kinds_at(Isolation::Serializable, &timed(h, &spans)), []);
}
