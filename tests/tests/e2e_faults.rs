//! Each fault of processes, networks and clocks once, with a ledger (`make test-faults` does it twenty times, and looks at the times too).

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use postgres_r_tests::faults::fault::ALL;
use postgres_r_tests::faults::network::Cut;
use postgres_r_tests::faults::testbed::Kind;
use postgres_r_tests::faults::{Fault, Testbed, campaign, report};
use postgres_r_tests::harness::libpq::led_to;
use postgres_r_tests::harness::{assert_equal, node, wait};

const NOTICED_WITHIN: Duration = Duration::from_secs(30);

#[test]
fn nothing_acknowledged_is_lost_and_nothing_refused_is_there_whatever_fails() {
    // Two groups at the same time: most of it is waiting.
    let of_kind = |kind| ALL.into_iter().filter(|fault| fault.testbed() == kind).collect::<Vec<Fault>>();
    let results = thread::scope(|scope| {
        let relayed = scope.spawn(|| campaign::run(&of_kind(Kind::Relayed), 1));
        let mut results = campaign::run(&of_kind(Kind::Direct), 1);
        results.extend(relayed.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)));
        results
    });
    println!("{}", report::table(&results));
    assert_eq!(results.len(), ALL.len());
    assert!(results.iter().all(|result| result.acknowledged > 0));
}

/// What a daemon has logged.
fn logged(testbed: &Testbed, number: usize, text: &str) -> bool {
    let log = testbed.group.playground.daemon(node(number)).log();
    std::fs::read_to_string(log).unwrap().lines().any(|line| line.contains(text))
}

#[test]
fn libpq_is_led_past_a_node_that_is_cut_off_and_the_others_saw_it_coming() {
    let testbed = Testbed::start(Kind::Direct);
    let group = &testbed.group;
    group.execute(node(1), "CREATE TABLE led (n int PRIMARY KEY)");
    group.settle();
    assert_eq!(led_to(group, &[3, 1, 2], "read-write"), Ok("node3".to_owned()));
    testbed.network.cut(node(3), Cut::All);
    wait::until("node 3 is passed by", NOTICED_WITHIN, || match led_to(group, &[3, 1, 2], "read-write")?.as_str() {
        "node1" => Ok(()),
        found => Err(format!("led to {found}")),
    });
    assert_eq!(led_to(group, &[1, 2, 3], "read-only"), Ok("node3".to_owned()));
    let error = group.connect(node(3)).batch_execute("INSERT INTO led VALUES (3)").unwrap_err();
    assert_eq!(error.code().map(|code| code.code()), Some("25006"), "{error}");
    group.execute(node(1), "INSERT INTO led VALUES (1)");
    for number in [1, 2] {
        assert!(logged(&testbed, number, "will soon be taken for dead peer=node3"), "node {number} was not warned");
    }
    testbed.network.heal(node(3));
    wait::until("node 3 takes writes", NOTICED_WITHIN, || match led_to(group, &[3, 1, 2], "read-write")?.as_str() {
        "node3" => Ok(()),
        found => Err(format!("led to {found}")),
    });
    group.execute(node(3), "INSERT INTO led VALUES (3)");
    assert_equal(group);
}
