//! The simulator, as part of the tests: SEEDS (200) seeds from FIRST_SEED (1).

use std::collections::BTreeMap;

use gcs_core::certify::PlantedBug;
use postgres_r_tests::sim::plan::Plan;
use postgres_r_tests::sim::postgres::Mistake;
use postgres_r_tests::sim::{report, run, run_seeds, run_traced};

/// What 200 seeds must have been through for their silence to mean something.
const CORNERS: [&str; 11] = [
    "a base was below the horizon",
    "a certified backend gave way",
    "a checkpoint was written",
    "a minority refused a write",
    "a snapshot was installed",
    "a submission was sent again",
    "a writeset came in chunks",
    "a writeset lost",
    "a writeset was certified",
    "the log was cut",
    "everything died at once",
];

/// Seeds that once found something, all in the core.
///
/// - 234: a follower on its leader's side of a partition went on taking writes after the leader had lost its majority.
/// - 2230: so did one that heard its leader and was not heard.
/// - 1104, 1194, 1282, 1512: the log was cut past entries without positions; a member that needed what followed was sent a
///   snapshot, which skipped it.
/// - 3143, 3346, 3449: the log was cut past a chunk that had been ordered before the first one of its writeset.
const FINDINGS: [u64; 9] = [234, 1104, 1194, 1282, 1512, 2230, 3143, 3346, 3449];

fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
}

#[test]
fn every_invariant_holds_whatever_the_seed_and_the_group_heals() {
    let first = number("FIRST_SEED", 1);
    let seeds = number("SEEDS", 200);
    let (mut failures, mut corners) = (Vec::new(), BTreeMap::new());
    for (seed, result) in run_seeds(first, seeds) {
        match result {
            Ok(tally) => tally.corners.into_iter().for_each(|(corner, n)| *corners.entry(corner).or_insert(0) += n),
            Err(failure) => failures.push(report(seed, &failure)),
        }
    }
    println!("{corners:#?}");
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    if seeds >= 200 {
        let missed: Vec<&str> = CORNERS.into_iter().filter(|corner| corners.get(corner).is_none_or(|n| *n == 0)).collect();
        assert!(missed.is_empty(), "never happened: {missed:?}");
    }
}

#[test]
fn what_was_once_found_stays_mended() {
    for seed in FINDINGS {
        run(&Plan::of_seed(seed)).unwrap_or_else(|failure| panic!("{}", report(seed, &failure)));
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in 1..=5 {
        let plan = Plan::of_seed(seed);
        let (first, second) = (run_traced(&plan).1, run_traced(&plan).1);
        assert!(first.len() > 1_000, "seed {seed} does not do much: {} lines", first.len());
        if let Some(at) = first.iter().zip(&second).position(|(a, b)| a != b) {
            panic!("seed {seed} differs from itself in line {at}:\n{}\n{}", first[at], second[at]);
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

/// The harm itself must be noticed, not just that a verdict is not the reference's.
fn finds(bug: PlantedBug, invariants: &[&str]) {
    finds_planted(&format!("{bug:?}"), |plan| Plan { bug: Some(bug), ..plan }, invariants);
}

fn finds_mistake(mistake: Mistake) {
    finds_planted(&format!("{mistake:?}"), |plan| plan.with_mistake(mistake), &["no lost update"]);
}

fn finds_planted(what: &str, plant: impl Fn(Plan) -> Plan, invariants: &[&str]) {
    let found = (1..=200).find_map(|seed| {
        let plan = plant(Plan { reference_certifier: false, ..Plan::of_seed(seed) });
        run(&plan).err().map(|failure| (seed, failure))
    });
    let (seed, failure) = found.unwrap_or_else(|| panic!("{what} stays unnoticed for 200 seeds"));
    println!("{what}: {}", report(seed, &failure));
    assert!(invariants.contains(&failure.invariant), "{what} shows as {}", failure.invariant);
}

#[test]
fn a_server_that_compares_reads_with_what_comes_after_commit_is_found() {
    finds_mistake(Mistake::ReadBaseAtSubmit);
}

#[test]
fn a_server_that_treats_serializable_as_repeatable_read_is_found() {
    finds_mistake(Mistake::ReadsNotChecked);
}

#[test]
fn a_certifier_that_overlooks_the_position_after_the_base_is_found() {
    finds(PlantedBug::BaseOffByOne, &["no lost update", "never diverge"]);
}

#[test]
fn a_certifier_that_forgets_shared_holders_is_found() {
    finds(PlantedBug::SharedForgotten, &["no lost update", "never diverge"]);
}

#[test]
fn a_certifier_that_lets_everything_start_at_once_is_found() {
    finds(PlantedBug::NoDependencies, &["never diverge"]);
}
