//! The simulator, as part of the tests: SEEDS (200) seeds from FIRST_SEED (1).

use std::collections::BTreeMap;

use gcs_core::certify::PlantedBug;
use postgres_r_protocol::platform::Planted;
use postgres_r_tests::sim::plan::Plan;
use postgres_r_tests::sim::postgres::Mistake;
use postgres_r_tests::sim::{report, run, run_seeds, run_traced};

/// What 200 seeds must have been through for their silence to mean something.
const CORNERS: [&str; 55] = [
    "a base was below the horizon",
    "a checkpoint was written",
    "a forerunner did not get a lock",
    "a forerunner gave way",
    "a forerunner had not seen enough",
    "a forerunner was told that all was over",
    "a forerunner yielded",
    "a forerunner's node was too far behind",
    "a lock was granted",
    "a lock was lost",
    "a manager died",
    "a manager was stopped for longer than a commit may take",
    "a member came back with an empty disk",
    "a member was removed while it ran",
    "a minority refused a write",
    "a newer format was written",
    "a node said that a transaction cannot be applied there",
    "a position came without its writeset, and no forerunner had it",
    "a position was applied ahead",
    "a process that hears no summons was dislodged",
    "a reader was refused",
    "a reader was told where to read",
    "a remote backend died",
    "a remote backend gave way",
    "a remote backend let go",
    "a remote backend that waited for a lock let go",
    "a row's lock ended with its transaction",
    "a run was claimed",
    "a run was committed",
    "a run would have waited for a lock",
    "a session did not come to commit",
    "a session did not come to let an earlier position through",
    "a session that had lost its locks was refused",
    "a session was ended after its verdict",
    "a snapshot was installed",
    "a submission was left, since its verdict could not come",
    "a submission was sent again",
    "a witness led",
    "a writeset came in chunks",
    "a writeset lost",
    "a writeset was certified",
    "a yield was heard",
    "an application failed for a passing reason",
    "an error came up in the middle of a commit",
    "an orphan was fetched",
    "everything died at once",
    "the first free lock of several was granted",
    "the leader went where most is written",
    "the log was cut",
    "the ring was full",
    "the window was full",
    "too much was ahead for a commit to begin",
    "two voters were seen changing",
    "what was applied ahead was lost and fetched",
    "what was applied ahead was rolled back",
];

/// Seeds that once found something, in the core unless it says otherwise.
///
/// - 234: a follower on its leader's side of a partition went on taking writes after the leader had lost its majority.
/// - 2230: so did one that heard its leader and was not heard.
/// - 1104, 1194, 1282, 1512: the log was cut past entries without positions; a member that needed what followed was sent a
///   snapshot, which skipped it.
/// - 64: a witness that had been sent a snapshot led, and had a full node skip positions (ADR 38).
/// - 3143, 3346, 3449: the log was cut past a chunk that had been ordered before the first one of its writeset.
///
/// In the extension's protocol, as the simulator was when each was found:
///
/// - 39: a certified backend whose client did not read its rows did not hear that it must yield.
/// - 47: an orphan came back while every remote backend waited for a lock of a backend that waited for it.
/// - 55: a verdict stood in the stream behind what had no room before its own transaction let go of its locks.
/// - 104: the second connection reached a daemon that had started anew, while the first was not being read.
/// - 334: an orphan came back while every remote backend was busy, and then all of them waited behind it.
///
/// In the simulator itself, when witnesses were first among the members:
///
/// - 247: what a disk had flushed before it was lost was not counted, though the acknowledgement was on its way.
/// - 622: the operator removed the only node that the database was attached on, with which it ends.
const FINDINGS: [u64; 17] = [39, 47, 55, 64, 104, 234, 247, 334, 622, 1104, 1194, 1282, 1512, 2230, 3143, 3346, 3449];

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
        // As they were found: nothing was applied ahead then.
        run(&Plan::of_seed(seed).with_ahead(false)).unwrap_or_else(|failure| panic!("{}", report(seed, &failure)));
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

/// The first seed, of 600, in which one of these invariants notices.
fn finds_planted(what: &str, plant: impl Fn(Plan) -> Plan, invariants: &[&str]) {
    let found = (1..=600).find_map(|seed| {
        let plan = plant(Plan { reference_certifier: false, ..Plan::of_seed(seed) });
        let failure = run(&plan).err()?;
        println!("{what}: {}", report(seed, &failure));
        invariants.contains(&failure.invariant).then_some(())
    });
    assert!(found.is_some(), "{what} does not show as {invariants:?} in 600 seeds");
}

/// A mistake in what the processes of a server do to one another.
fn finds_in_protocol(planted: Planted, invariants: &[&str]) {
    finds_planted(&format!("{planted:?}"), |plan| Plan { planted: Some(planted), ..plan }, invariants);
}

/// What a member has promised must not be forgotten while it votes: its place is taken by another.
#[test]
fn a_daemon_that_votes_after_its_disk_was_lost_is_found() {
    let harm =
        ["same order", "same verdict", "certified means committed", "durable before acknowledged", "one commit order"];
    let also =
        ["exactly once", "never diverge", "no lost update", "a minority commits nothing", "liveness", "no panic", "core"];
    finds_planted("amnesia", |plan| Plan { operator: true, amnesia: true, ..plan }, &[harm.as_slice(), &also].concat());
}

#[test]
fn a_manager_that_does_not_write_a_verdict_down_is_found() {
    finds_in_protocol(Planted::VerdictDropped, &["the gate moves"]);
}

#[test]
fn a_manager_that_does_not_queue_an_orphans_writeset_is_found() {
    finds_in_protocol(Planted::OrphanNotQueued, &["the gate moves"]);
}

#[test]
fn a_backend_that_does_not_hear_that_it_must_yield_is_found() {
    finds_in_protocol(Planted::YieldUnheard, &["the gate moves", "nobody makes an earlier position wait"]);
}

#[test]
fn a_turn_that_wakes_nobody_is_found() {
    finds_in_protocol(Planted::TurnWakesNobody, &["the gate moves", "doubts have causes"]);
}

#[test]
fn a_submission_that_is_sent_again_under_another_tag_is_found() {
    // Committed twice; or, first, the copy under the other tag needs the locks of the backend that waits for its own.
    finds_in_protocol(Planted::ResubmittedUnderNewTag, &["exactly once", "the gate moves", "doubts have causes"]);
}

#[test]
fn a_run_that_commits_half_is_found() {
    finds_in_protocol(Planted::RunCommitsHalf, &["never diverge", "certified means committed", "equal in the end"]);
}

#[test]
fn a_run_that_begins_before_what_it_depends_on_is_found() {
    finds_in_protocol(Planted::RunAheadOfDependency, &["never diverge"]);
}

#[test]
fn a_forerunner_that_has_not_seen_what_its_transaction_depends_on_is_found() {
    let planted = Some(Planted::AheadOfDependency);
    let plant = |plan: Plan| Plan { planted, ..plan.with_ahead(true) };
    finds_planted("AheadOfDependency", plant, &["never diverge"]);
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
fn a_leader_that_does_not_ask_whether_it_still_leads_is_found() {
    finds(PlantedBug::ReadsUnconfirmed, &["reads see what was told"]);
}

#[test]
fn a_leader_that_has_a_format_written_which_a_member_cannot_read_is_found() {
    let harm = ["core", "recovery", "liveness", "equal in the end"];
    let plant = |plan| Plan { bug: Some(PlantedBug::FormatUnread), upgrades: true, ..plan };
    finds_planted("FormatUnread", plant, &harm);
}

#[test]
fn a_lock_that_is_granted_twice_is_found() {
    finds_lock_bug(PlantedBug::LockGrantedTwice, &["one holder"]);
}

#[test]
fn a_lock_that_is_kept_by_a_dead_session_is_found() {
    finds_lock_bug(PlantedBug::LockKeptByTheDead, &["liveness"]);
}

#[test]
fn a_session_that_commits_as_if_it_held_what_it_has_lost_is_found() {
    finds_lock_bug(PlantedBug::LostSessionCommits, &["one holder"]);
}

fn finds_lock_bug(bug: PlantedBug, invariants: &[&str]) {
    let plant = |plan| Plan { bug: Some(bug), locks: true, upgrades: false, ..plan };
    finds_planted(&format!("{bug:?}"), plant, invariants);
}

#[test]
fn a_certifier_that_lets_everything_start_at_once_is_found() {
    finds(PlantedBug::NoDependencies, &["never diverge"]);
}
