//! How many instructions it takes to encode, decode and certify a writeset of one row, against committed figures.
//!
//! This program runs itself once more, under callgrind and with nothing but the test [`the_work`], which does each step many times; the
//! steps are functions of their own, so that callgrind's file has them by name. See `postgres_r_tests::instructions`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::process::Command;

use gcs_core::certify::{Certifier, WindowBounds};
use gcs_writeset::body::{Datum, Item, Items, PutItem};
use gcs_writeset::key::name_hash;
use gcs_writeset::link::Verdict;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Key, KeyGroup, Namespace, NodeId, Position};
use postgres_r_tests::instructions::callgrind;
use postgres_r_tests::instructions::figures::{self, Count, Counted};
use postgres_r_tests::instructions::profile::Profile;

const TIMES: u64 = 20_000;
/// Rows that are changed by turns: their keys are in the certifier's table, or were, and it does not grow.
const ROWS: u64 = 1_000;
/// How far transactions are behind.
const BEHIND: u64 = 8;
/// Runs of the same program differ by less than 0.1 %.
const TOLERANCE: u64 = 5;

/// An update of one row of three columns, one of them new.
#[inline(never)]
fn encode(envelope: &Envelope) -> Vec<u8> {
    let mut body = Vec::with_capacity(64);
    body.put_relation("public", "account", 3);
    body.put_update(0);
    body.put_datum(Datum::Physical(&[7, 0, 0, 0]));
    body.put_datum(Datum::Absent);
    body.put_datum(Datum::Absent);
    body.put_datum(Datum::Physical(&[7, 0, 0, 0]));
    body.put_datum(Datum::Physical(&[8, 0, 0, 0]));
    body.put_datum(Datum::Absent);
    envelope.encode(&body)
}

/// What a remote backend has to read of it.
#[inline(never)]
fn decode(writeset: &[u8]) -> usize {
    let (envelope, body) = Envelope::decode(writeset).unwrap();
    let datums = Items::new(body).map(|item| match item.unwrap() {
        Item::Update { identity, new, .. } => identity.datums().chain(new.datums()).count(),
        _ => 0,
    });
    envelope.groups.len() + datums.sum::<usize>()
}

#[inline(never)]
fn certify(certifier: &mut Certifier, position: Position, envelope: &Envelope) -> Verdict {
    certifier.raise_horizon(envelope.oldest_base);
    certifier.certify(position, NodeId(1), envelope)
}

fn envelope(position: u64) -> Envelope {
    let base = Position(position.saturating_sub(BEHIND));
    let exclusive = vec![Key::new(Namespace::Row, name_hash(&["public", "account"]), position % ROWS)];
    let shared = vec![Key::new(Namespace::Relation, name_hash(&["public", "account"]), 0)];
    Envelope {
        oldest_base: base,
        groups: vec![KeyGroup { base, exclusive, shared, ..KeyGroup::default() }],
        ..Envelope::default()
    }
}

#[test]
#[ignore = "run under callgrind by the other test"]
fn the_work() {
    let mut certifier = Certifier::new(WindowBounds::default());
    for position in 1..=TIMES {
        let envelope = envelope(position);
        let writeset = encode(black_box(&envelope));
        assert_eq!(decode(black_box(&writeset)), 7);
        let verdict = certify(&mut certifier, Position(position), black_box(&envelope));
        assert!(matches!(verdict, Verdict::Certified { .. }), "{verdict:?}");
    }
}

#[test]
fn a_writeset_of_one_row_costs_no_more_than_before() {
    if cfg!(debug_assertions) {
        // Other code than what is given out.
        return;
    }
    callgrind::check().unwrap_or_else(|why| panic!("{why}"));
    let directory = tempfile::tempdir().unwrap();
    let program = std::env::current_exe().unwrap();
    let (words, (variable, value)) = (callgrind::words(directory.path()), callgrind::PLAIN_FUNCTIONS);
    let mut command = Command::new(&words[0]);
    command.args(&words[1..]).arg(&program).args(["--ignored", "--exact", "the_work", "--test-threads=1"]);
    let child = command.env(variable, value).stdout(std::process::Stdio::null()).spawn().unwrap();
    let path = directory.path().join(child.id().to_string());
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", output.status);
    let profile = Profile::read(&path).unwrap_or_else(|why| panic!("{why}"));
    let names = [
        ("encode a row's writeset", "encode"),
        ("decode a row's writeset", "decode"),
        ("certify a row's writeset", "certify"),
    ];
    let counts = names.map(|(what, function)| {
        let calls = profile.calls(&format!("core_instructions::{function}"));
        assert_eq!(calls.calls, TIMES, "{function} is not in {}", path.display());
        (what, Count { instructions: calls.instructions / calls.calls, tolerance: TOLERANCE })
    });
    let compiler = figures::compiler_of(&program).unwrap_or_else(|why| panic!("{why}"));
    let counted = Counted { section: "core", compiler, with: String::new(), counts: BTreeMap::from(counts) };
    figures::check(&counted).unwrap_or_else(|why| panic!("{why}"));
}
