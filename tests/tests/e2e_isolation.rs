//! Isolation across nodes: the specs of tests/isolation, and every pair of operations on two nodes.
//!
//! `ACCEPT=1` writes the expected output of the specs anew. Of a pair, one order is tried with both commits at once, the other one with
//! the first settled; `PAIRS=full` tries both orders both ways, as `make campaign` does.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;

use postgres_r_tests::harness::{self, Group};
use postgres_r_tests::isolation::pairs::{self, Pairs, Verdict};
use postgres_r_tests::isolation::{Runner, Spec, expected};

/// Readers in the way of a position get a shorter grace than by default: specs wait for it.
fn shorten_grace(group: &Group) {
    for number in group.numbers() {
        group.execute(number, "ALTER SYSTEM SET postgres_r.reader_grace = '100ms'");
        group.execute(number, "SELECT pg_reload_conf()");
    }
}

#[test]
fn every_spec_gives_its_expected_output() {
    let group = harness::shared_without_table_locks();
    shorten_grace(&group);
    let mut failures = Vec::new();
    let mut files: Vec<_> = fs::read_dir(expected::directory()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|ending| ending == "spec"));
    files.sort();
    assert!(!files.is_empty());
    for file in files {
        let name = file.file_stem().unwrap().to_string_lossy().into_owned();
        let spec = Spec::parse(&fs::read_to_string(&file).unwrap()).unwrap_or_else(|error| panic!("{name}: {error}"));
        let output = Runner::new(&group).run(&spec);
        if let Err(error) = output.and_then(|output| expected::check(&name, &output)) {
            failures.push(format!("{name}: {error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    harness::assert_equal(&group);
}

#[test]
fn every_pair_of_operations_ends_as_the_rules_say() {
    let text = fs::read_to_string(expected::directory().join("pairs.txt")).unwrap();
    let pairs = Pairs::parse(&text).unwrap_or_else(|error| panic!("pairs.txt: {error}"));
    let group = harness::shared_without_table_locks();
    shorten_grace(&group);
    let both_ways = std::env::var("PAIRS").is_ok_and(|pairs| pairs == "full");
    let mut runner = Runner::new(&group);
    let mut wrong = Vec::new();
    for (first, one) in pairs.operations.iter().enumerate() {
        for (second, two) in pairs.operations.iter().enumerate() {
            let spec = pairs.spec(first, second);
            for (starts, how) in spec.permutations.iter().zip(pairs::PERMUTATIONS) {
                if !both_ways && (first <= second) != (how == pairs::PERMUTATIONS[0]) {
                    continue;
                }
                let mut out = String::new();
                let outcomes = runner.permutation(&spec, starts, &mut out).unwrap_or_else(|error| panic!("{error}\n{out}"));
                let found = pairs::verdict(&outcomes);
                if !found.as_ref().is_ok_and(|&found| pairs.verdicts[first][second].allows(found)) {
                    let reason = one.conflict(two).map_or("no key in common".to_owned(), |key| format!("both hold {key}"));
                    wrong.push(format!("{}, {} ({how}): {found:?}, but {reason}", one.name, two.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let lost = pairs.verdicts.iter().flatten().filter(|&&verdict| verdict == Verdict::Lost).count();
    println!("{} pairs, in {lost} of them the second loses", pairs.operations.len().pow(2));
    harness::assert_equal(&group);
}
