//! From a history to the order of each list's versions, and everything that can be wrong before any graph is drawn.
//!
//! A list only grows at its end, so a read shows not just a version but all versions before it. The longest read of a list
//! is its version order; every other read must be a prefix of it (Kingsbury and Alvaro, *Elle*, VLDB 2020, §4).

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::anomaly::{Anomaly, Kind};
use super::history::{Element, History, Key, Op, Outcome, TxnId};

/// The order of the elements of each list, and who wrote and who read what.
#[derive(Debug, Default)]
pub struct Versions {
    pub order: BTreeMap<Key, Vec<Element>>,
    pub writer: HashMap<Element, TxnId>,
    /// The first outside read of each list by each transaction that took effect: how long the list was.
    pub reads: Vec<(TxnId, Key, usize)>,
}

/// Transactions whose writes are in the lists: committed ones, and unknown ones that somebody saw.
pub fn effective(history: &History) -> BTreeSet<TxnId> {
    let seen: BTreeSet<Element> = committed_reads(history).flat_map(|(_, _, list)| list.iter().copied()).collect();
    let was_seen =
        |id: TxnId| history[id].ops.iter().any(|op| matches!(op, Op::Append(_, element) if seen.contains(element)));
    let took_effect = |id: &TxnId| match history[*id].outcome {
        Outcome::Committed => true,
        Outcome::Aborted => false,
        Outcome::Unknown => was_seen(*id),
    };
    history.ids().filter(took_effect).collect()
}

fn committed_reads(history: &History) -> impl Iterator<Item = (TxnId, Key, &Vec<Element>)> {
    let committed = history.ids().filter(|&id| history[id].outcome == Outcome::Committed);
    committed.flat_map(|id| {
        history[id].ops.iter().filter_map(move |op| match op {
            Op::Read(key, list) => Some((id, *key, list)),
            Op::Append(..) => None,
        })
    })
}

/// Builds the version orders. What contradicts them is reported and left out, so that the rest can still be judged.
pub fn build(history: &History, found: &mut Vec<Anomaly>) -> Versions {
    let mut versions = Versions { writer: writers(history), ..Versions::default() };
    for (txn, key, list) in committed_reads(history) {
        check_elements(history, &versions.writer, txn, key, list, found);
        if list.len() > versions.order.get(&key).map_or(0, Vec::len) {
            versions.order.insert(key, list.clone());
        }
    }
    for (txn, key, list) in committed_reads(history) {
        let longest = versions.order.get(&key).map_or(&[][..], Vec::as_slice);
        if !longest.starts_with(list) {
            let text = format!("list {}: {list:?} is no prefix of {longest:?}", key.0);
            found.push(Anomaly::new(Kind::Fork, vec![txn], text));
        }
    }
    check_internal(history, found);
    collect_reads(history, &mut versions);
    versions
}

fn writers(history: &History) -> HashMap<Element, TxnId> {
    let appends = history.ids().flat_map(|id| {
        history[id].ops.iter().filter_map(move |op| match op {
            Op::Append(_, element) => Some((*element, id)),
            Op::Read(..) => None,
        })
    });
    appends.collect()
}

/// Each element of a read must have been written once, by a transaction that did not fail, and to its end.
fn check_elements(
    history: &History,
    writer: &HashMap<Element, TxnId>,
    txn: TxnId,
    key: Key,
    list: &[Element],
    found: &mut Vec<Anomaly>,
) {
    let mut seen = BTreeSet::new();
    for element in list {
        if !seen.insert(*element) {
            found.push(Anomaly::new(Kind::Duplicate, vec![txn], format!("list {}: element {} twice", key.0, element.0)));
        }
        match writer.get(element) {
            None => {
                found.push(Anomaly::new(Kind::Garbage, vec![txn], format!("list {}: nobody wrote {}", key.0, element.0)));
            }
            Some(&from) if history[from].outcome == Outcome::Aborted => {
                let text = format!("list {}: element {} of an aborted transaction", key.0, element.0);
                found.push(Anomaly::new(Kind::G1a, vec![txn, from], text));
            }
            Some(_) => {}
        }
    }
    if let Some(last) = list.last()
        && let Some(&from) = writer.get(last)
        && from != txn
        && appends_to(history, from, key).last() != Some(last)
    {
        let text = format!("list {}: ends with {}, which its writer had gone on from", key.0, last.0);
        found.push(Anomaly::new(Kind::G1b, vec![txn, from], text));
    }
}

fn appends_to(history: &History, txn: TxnId, key: Key) -> Vec<Element> {
    let ops = history[txn].ops.iter();
    ops.filter_map(|op| match op {
        Op::Append(at, element) if *at == key => Some(*element),
        _ => None,
    })
    .collect()
}

/// Within one transaction at REPEATABLE READ: a list is what it was at first, plus what the transaction itself appended.
fn check_internal(history: &History, found: &mut Vec<Anomaly>) {
    for id in history.ids().filter(|&id| history[id].outcome == Outcome::Committed) {
        let mut expected: BTreeMap<Key, (bool, Vec<Element>)> = BTreeMap::new();
        for op in &history[id].ops {
            match op {
                Op::Append(key, element) => expected.entry(*key).or_default().1.push(*element),
                Op::Read(key, list) => {
                    let (whole, known) = expected.entry(*key).or_default();
                    let agrees = if *whole { list == known } else { list.ends_with(known) };
                    if !agrees {
                        let text = format!("list {}: expected {known:?}, read {list:?}", key.0);
                        found.push(Anomaly::new(Kind::Internal, vec![id], text));
                    }
                    (*whole, *known) = (true, list.clone());
                }
            }
        }
    }
}

/// A transaction's first read of a list, less its own appends before it, is the version it saw of others.
fn collect_reads(history: &History, versions: &mut Versions) {
    for id in history.ids().filter(|&id| history[id].outcome == Outcome::Committed) {
        let mut own: BTreeMap<Key, usize> = BTreeMap::new();
        let mut read = BTreeSet::new();
        for op in &history[id].ops {
            match op {
                Op::Append(key, _) => *own.entry(*key).or_default() += 1,
                Op::Read(key, list) if read.insert(*key) => {
                    let length = list.len().saturating_sub(own.get(key).copied().unwrap_or(0));
                    let order = versions.order.get(key).map_or(&[][..], Vec::as_slice);
                    if order.starts_with(&list[..length]) {
                        versions.reads.push((id, *key, length));
                    }
                }
                Op::Read(..) => {}
            }
        }
    }
}

/// Acknowledged appends that the last, quiet reads of the lists do not show.
pub fn check_final(history: &History, last: &BTreeMap<Key, Vec<Element>>, found: &mut Vec<Anomaly>) {
    for id in history.ids().filter(|&id| history[id].outcome == Outcome::Committed) {
        for op in &history[id].ops {
            if let Op::Append(key, element) = op
                && !last.get(key).is_some_and(|list| list.contains(element))
            {
                let text = format!("list {}: {} was acknowledged and is gone", key.0, element.0);
                found.push(Anomaly::new(Kind::LostAppend, vec![id], text));
            }
        }
    }
}
