//! Advisory locks hold in the group: each function of PostgreSQL's, each end of a lock, and who is told when one is lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread::{self, JoinHandle};
use std::time::Duration;

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node, wait};
use postgres_r_tests::workload::mutex;

/// Far above what it takes: what does not come within it does not come.
const RESOLVED_MAX: Duration = Duration::from_secs(30);

fn is(client: &mut Client, call: &str) -> bool {
    client.query_one(&format!("SELECT {call}"), &[]).unwrap_or_else(|error| panic!("{call}: {error:?}")).get(0)
}

fn run(client: &mut Client, call: &str) {
    client.batch_execute(&format!("SELECT {call}")).unwrap_or_else(|error| panic!("{call}: {error:?}"));
}

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// Its session was ended. A client that had nothing to ask when the server said so finds a closed connection.
fn says_it_ended(error: &Error) -> bool {
    error.is_closed() || code(error) == "57P01"
}

/// The group, once it has locks: a moment after its members have met.
fn group() -> harness::Shared {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    wait::until("group locks", RESOLVED_MAX, || {
        client.batch_execute("SELECT pg_advisory_lock(0); SELECT pg_advisory_unlock(0)").map_err(|error| code(&error))
    });
    group
}

/// Runs statements on a node, each by itself, of which the first is to wait: returns when it does.
fn waiting(group: &Group, number: NodeNumber, before: &str, statements: &str) -> JoinHandle<Result<(), Error>> {
    let mut client = group.connect(number);
    client.batch_execute(before).unwrap();
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let statements = statements.to_owned();
    let waiter = thread::spawn(move || statements.split("; ").try_for_each(|statement| client.batch_execute(statement)));
    wait::until("the statement waits", RESOLVED_MAX, || {
        let query = format!("SELECT wait_event IS NOT NULL AND state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
        if group.value(number, &query) == "true" { Ok(()) } else { Err("it runs".to_owned()) }
    });
    waiter
}

#[test]
fn every_function_locks_on_all_nodes() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    // By one bigint and by two integers: the same numbers are different locks.
    for (keys, other) in [("7", "0, 7"), ("0, 7", "7"), ("-7", "7"), ("-1, -7", "-1, 7")] {
        for (lock, unlock) in [("", ""), ("_shared", "_shared")] {
            run(&mut one, &format!("pg_advisory_lock{lock}({keys})"));
            assert!(!is(&mut two, &format!("pg_try_advisory_lock({keys})")), "{keys}");
            assert!(!is(&mut two, &format!("pg_try_advisory_xact_lock({keys})")), "{keys}");
            let is_shared = lock == "_shared";
            assert_eq!(is(&mut two, &format!("pg_try_advisory_xact_lock_shared({keys})")), is_shared, "{keys}");
            assert_eq!(is(&mut two, &format!("pg_try_advisory_lock_shared({keys})")), is_shared, "{keys}");
            assert!(is(&mut two, &format!("pg_try_advisory_xact_lock({other})")), "{other}");
            assert!(is(&mut one, &format!("pg_advisory_unlock{unlock}({keys})")), "{keys}");
            assert_eq!(is(&mut two, &format!("pg_advisory_unlock_shared({keys})")), is_shared, "{keys}");
            assert!(is(&mut two, &format!("pg_try_advisory_lock({keys})")), "{keys}: free again at once");
            assert!(is(&mut two, &format!("pg_advisory_unlock({keys})")), "{keys}");
        }
    }
    // Taken twice, given back twice; what is not held is not given back, with PostgreSQL's warning.
    assert!(is(&mut one, "pg_try_advisory_lock(1)") && is(&mut one, "pg_try_advisory_lock(1)"));
    run(&mut one, "pg_advisory_xact_lock(1)");
    assert!(is(&mut one, "pg_advisory_unlock(1)"));
    assert!(!is(&mut two, "pg_try_advisory_lock(1)"));
    assert!(is(&mut one, "pg_advisory_unlock(1)"));
    assert!(!is(&mut one, "pg_advisory_unlock(1)"));
    assert!(is(&mut two, "pg_try_advisory_lock(1)"));
    // In the group's eyes it is one session's own, in both modes.
    run(&mut one, "pg_advisory_lock_shared(2), pg_advisory_lock(2)");
    assert!(is(&mut one, "pg_advisory_unlock(2)"));
    assert!(!is(&mut two, "pg_try_advisory_lock(2)") && is(&mut two, "pg_try_advisory_lock_shared(2)"));
    run(&mut one, "pg_advisory_unlock_all()");
    run(&mut two, "pg_advisory_unlock_all()");
    // PostgreSQL's own view shows what its node's sessions hold.
    run(&mut one, "pg_advisory_lock(3)");
    let held = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted";
    assert_eq!((group.value(node(1), held), group.value(node(2), held)), ("1".to_owned(), "0".to_owned()));
}

#[test]
fn a_lock_ends_with_what_it_was_taken_by() {
    let group = group();
    let mut two = group.connect(node(2));
    let mut free = |key: u32| is(&mut two, &format!("pg_try_advisory_xact_lock({key})"));
    let mut one = group.connect(node(1));
    // A transaction, whichever way it ends; a session's lock stays.
    for end in ["COMMIT", "ROLLBACK", "PREPARE TRANSACTION 'no'"] {
        one.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1), pg_advisory_lock(2)").unwrap();
        assert!(!free(1) && !free(2), "{end}");
        if one.batch_execute(end).is_err() {
            one.batch_execute("ROLLBACK").unwrap();
        }
        wait::until("the lock is free", RESOLVED_MAX, || if free(1) { Ok(()) } else { Err(end.to_owned()) });
        assert!(!free(2), "{end}");
        assert!(is(&mut one, "pg_advisory_unlock(2)"));
        assert!(free(2), "{end}");
    }
    // A savepoint that is rolled back, and not one that is released.
    one.batch_execute("BEGIN; SAVEPOINT s; SELECT pg_advisory_xact_lock(1); RELEASE s; SAVEPOINT s").unwrap();
    one.batch_execute("SELECT pg_advisory_xact_lock(2), pg_advisory_xact_lock(1); ROLLBACK TO s").unwrap();
    wait::until("the savepoint's lock is free", RESOLVED_MAX, || if free(2) { Ok(()) } else { Err("held".to_owned()) });
    assert!(!free(1));
    // An error.
    one.batch_execute("RELEASE s").unwrap();
    assert!(one.batch_execute("SELECT 1 / 0").is_err());
    wait::until("an aborted transaction's lock is free", RESOLVED_MAX, || {
        if free(1) { Ok(()) } else { Err("held".to_owned()) }
    });
    one.batch_execute("ROLLBACK").unwrap();
    // A session, in order and not.
    for end in ["DISCARD ALL", "SELECT pg_advisory_unlock_all()", "", "SELECT pg_terminate_backend(pg_backend_pid())"] {
        let mut session = group.connect(node(3));
        session.batch_execute("SELECT pg_advisory_lock(1), pg_advisory_lock(1), pg_advisory_lock_shared(2)").unwrap();
        assert!(!free(1) && !free(2), "{end}");
        let _ = session.batch_execute(end);
        let kept = Some(session).filter(|_| !end.is_empty());
        wait::until("a session's locks are free", RESOLVED_MAX, || {
            if free(1) && free(2) { Ok(()) } else { Err(end.to_owned()) }
        });
        drop(kept);
    }
}

#[test]
fn who_waits_gets_the_lock_in_turn_and_sees_what_was_committed_under_it() {
    let group = group();
    group.execute(node(1), "CREATE TABLE under_lock (n int)");
    group.settle();
    let mut one = group.connect(node(1));
    run(&mut one, "pg_advisory_lock(1)");
    let insert =
        "SELECT pg_advisory_lock(1); INSERT INTO under_lock SELECT count(*) FROM under_lock; SELECT pg_advisory_unlock(1)";
    let waiters: Vec<_> = [2, 3, 1, 2].map(|number| waiting(&group, node(number), "", insert)).into();
    one.batch_execute("INSERT INTO under_lock VALUES (0)").unwrap();
    assert!(is(&mut one, "pg_advisory_unlock(1)"));
    waiters.into_iter().for_each(|waiter| waiter.join().unwrap().unwrap());
    group.settle();
    assert_eq!(group.value(node(3), "SELECT string_agg(n::text, ' ' ORDER BY n) FROM under_lock"), "0 1 2 3 4");
    // Whoever took it for a transaction gives it back with the commit, which is seen.
    let mut open = group.connect(node(1));
    open.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1); INSERT INTO under_lock VALUES (10)").unwrap();
    let next = waiting(
        &group,
        node(2),
        "BEGIN",
        "SELECT pg_advisory_xact_lock(1); INSERT INTO under_lock SELECT max(n) + 1 FROM under_lock",
    );
    open.batch_execute("COMMIT").unwrap();
    next.join().unwrap().unwrap();
}

#[test]
fn a_circle_is_a_deadlock_and_a_wait_ends_when_it_is_told_to() {
    let group = group();
    group.execute(node(1), "CREATE TABLE circle (id int PRIMARY KEY, x int); INSERT INTO circle VALUES (1, 0), (2, 0)");
    group.settle();
    // Across nodes.
    let mut one = group.connect(node(1));
    one.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").unwrap();
    let two = waiting(&group, node(2), "BEGIN; SELECT pg_advisory_xact_lock(2)", "SELECT pg_advisory_xact_lock(1)");
    assert_eq!(code(&one.batch_execute("SELECT pg_advisory_xact_lock(2)").unwrap_err()), "40P01");
    one.batch_execute("ROLLBACK").unwrap();
    two.join().unwrap().unwrap();
    // On one node, where PostgreSQL knows of a half: a row.
    one.batch_execute("BEGIN; UPDATE circle SET x = 1 WHERE id = 1").unwrap();
    let other = waiting(&group, node(1), "BEGIN; SELECT pg_advisory_xact_lock(1)", "UPDATE circle SET x = 2 WHERE id = 1");
    assert_eq!(code(&one.batch_execute("SELECT pg_advisory_xact_lock(1)").unwrap_err()), "40P01");
    one.batch_execute("ROLLBACK").unwrap();
    other.join().unwrap().unwrap();
    // Through both: node 2's holder waits for a row of a session there that waits for node 1's.
    one.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1)").unwrap();
    let mut rows = group.connect(node(2));
    rows.batch_execute("BEGIN; UPDATE circle SET x = 3 WHERE id = 2").unwrap();
    let holder = waiting(&group, node(2), "BEGIN; SELECT pg_advisory_xact_lock(2)", "UPDATE circle SET x = 4 WHERE id = 2");
    let first = thread::spawn(move || {
        let result = one.batch_execute("SELECT pg_advisory_xact_lock(2)");
        one.batch_execute("ROLLBACK").unwrap();
        result
    });
    let second = rows.batch_execute("SELECT pg_advisory_xact_lock(1)");
    rows.batch_execute("ROLLBACK").unwrap();
    let results = [first.join().unwrap(), second, holder.join().unwrap()];
    let codes: Vec<String> = results.iter().filter_map(|result| result.as_ref().err().map(code)).collect();
    assert_eq!(codes, ["40P01"], "one gives way");
}

#[test]
fn a_wait_ends_at_its_limit_and_with_a_cancel_and_leaves_nothing_behind() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    run(&mut one, "pg_advisory_lock(1)");
    for (limit, wanted) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        two.batch_execute(&format!("SET {limit} = '200ms'")).unwrap();
        assert_eq!(code(&two.batch_execute("SELECT pg_advisory_lock(1)").unwrap_err()), wanted);
        two.batch_execute(&format!("RESET {limit}")).unwrap();
    }
    let cancel = two.cancel_token();
    let waiter = thread::spawn(move || {
        let result = two.batch_execute("SELECT pg_advisory_lock(1)");
        (two, result)
    });
    wait::until("the waiter waits", RESOLVED_MAX, || {
        let query = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_advisory_lock(1)' AND state = 'active'";
        if group.value(node(2), query) == "1" { Ok(()) } else { Err("not yet".to_owned()) }
    });
    cancel.cancel_query(postgres::NoTls).unwrap();
    let (mut two, result) = waiter.join().unwrap();
    assert_eq!(code(&result.unwrap_err()), "57014");
    // Nobody else waits before the next one, and the holder still holds it.
    assert!(!is(&mut two, "pg_try_advisory_lock(1)"));
    assert!(is(&mut one, "pg_advisory_unlock(1)"));
    assert!(is(&mut two, "pg_try_advisory_lock(1)"));
}

#[test]
fn who_waits_for_a_lock_gives_way_to_what_the_group_has_committed() {
    let group = group();
    group.execute(node(1), "CREATE TABLE in_the_way (id int PRIMARY KEY, x int); INSERT INTO in_the_way VALUES (1, 0)");
    group.settle();
    let mut holder = group.connect(node(3));
    run(&mut holder, "pg_advisory_lock(1)");
    let before = "BEGIN; UPDATE in_the_way SET x = 1 WHERE id = 1";
    let waiter = waiting(&group, node(1), before, "SELECT pg_advisory_xact_lock(1)");
    group.execute(node(2), "UPDATE in_the_way SET x = 2 WHERE id = 1");
    assert_eq!(code(&waiter.join().unwrap().unwrap_err()), "40001");
    // What it asked for is withdrawn: nobody else gets the lock for it.
    assert!(is(&mut holder, "pg_advisory_unlock(1)") && is(&mut holder, "pg_try_advisory_lock(1)"));
    group.settle();
    assert_eq!(group.values("SELECT x FROM in_the_way"), ["2", "2", "2"]);
}

#[test]
fn a_lock_of_this_node_alone_is_to_be_had_for_the_asking() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    for client in [&mut one, &mut two] {
        client.batch_execute("SET postgres_r.advisory_locks = local").unwrap();
    }
    assert!(is(&mut one, "pg_try_advisory_lock(1)") && is(&mut two, "pg_try_advisory_lock(1)"));
    let mut other = group.connect(node(1));
    assert!(!is(&mut other, "pg_try_advisory_lock(1)"), "the server's own lock is held");
    assert!(is(&mut one, "pg_advisory_unlock(1)") && is(&mut two, "pg_advisory_unlock(1)"));
    // What was taken in the group is given back there, whatever the setting says then.
    one.batch_execute(
        "SET postgres_r.advisory_locks = 'group'; SELECT pg_advisory_lock(2); SET postgres_r.advisory_locks = local",
    )
    .unwrap();
    two.batch_execute("SET postgres_r.advisory_locks = 'group'").unwrap();
    assert!(!is(&mut two, "pg_try_advisory_lock(2)"));
    assert!(is(&mut one, "pg_advisory_unlock(2)") && is(&mut two, "pg_try_advisory_lock(2)"));
}

/// Takes the lock there as soon as it is to be had.
fn taken(client: &mut Client, key: u32) {
    wait::until("the lock of a node that is gone", RESOLVED_MAX, || {
        if is(client, &format!("pg_try_advisory_lock({key})")) { Ok(()) } else { Err("held".to_owned()) }
    });
    assert!(is(client, &format!("pg_advisory_unlock({key})")));
}

#[test]
fn a_node_that_is_lost_holds_nothing_and_its_sessions_are_told() {
    let group = group();
    group.execute(node(1), "CREATE TABLE lost (n int)");
    group.settle();
    let mut other = group.connect(node(3));
    // Its server is killed, and comes back; its daemon is killed, and comes back.
    for part in [Part::Postgres, Part::Gcs, Part::Both] {
        let mut holder = group.connect(node(2));
        run(&mut holder, "pg_advisory_lock(1)");
        assert!(!is(&mut other, "pg_try_advisory_lock(1)"), "{part:?}");
        group.kill(node(2), part);
        if part == Part::Both {
            // Nobody comes back to say so.
            taken(&mut other, 1);
        }
        group.start_node(node(2));
        taken(&mut other, 1);
        let error = holder.batch_execute("INSERT INTO lost VALUES (1)").unwrap_err();
        if part == Part::Gcs {
            assert!(says_it_ended(&error), "{error:?}");
        }
        wait::until("the node is back", RESOLVED_MAX, || {
            let mut client = group.try_connect(node(2)).map_err(|error| error.to_string())?;
            client.batch_execute("SELECT pg_advisory_lock(1)").map_err(|error| code(&error))
        });
    }
    harness::assert_equal(&group);
}

#[test]
fn who_has_lost_a_lock_hears_of_it_and_commits_nothing() {
    let group = group();
    group.execute(node(1), "CREATE TABLE fenced (n int)");
    group.settle();
    let mut other = group.connect(node(3));
    // A session that is idle, and whose lock the group gives to another of its own server.
    let mut holder = group.connect(node(2));
    run(&mut holder, "pg_advisory_lock(1)");
    group.kill(node(2), Part::Gcs);
    group.start_node(node(2));
    let mut next = group.connect(node(2));
    wait::until("the lock of an idle session", RESOLVED_MAX, || {
        next.batch_execute("SET lock_timeout = '5s'; SELECT pg_advisory_lock(1)").map_err(|error| code(&error))
    });
    assert!(says_it_ended(&holder.batch_execute("SELECT 1").unwrap_err()));
    assert!(is(&mut next, "pg_advisory_unlock(1)"));
    // The locks of a transaction alone: it fails, and its session lives. A savepoint does not help.
    let mut holder = group.connect(node(2));
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1); INSERT INTO fenced VALUES (2); SAVEPOINT s").unwrap();
    group.kill(node(2), Part::Gcs);
    group.start_node(node(2));
    taken(&mut other, 1);
    assert_eq!(code(&holder.batch_execute("SELECT 1").unwrap_err()), "40001");
    holder.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(code(&holder.batch_execute("INSERT INTO fenced VALUES (2)").unwrap_err()), "40001");
    holder.batch_execute("ROLLBACK TO s").unwrap();
    assert_eq!(code(&holder.batch_execute("COMMIT").unwrap_err()), "40001");
    holder.batch_execute("SELECT 1").unwrap();
    let mut holder = group.connect(node(2));
    holder.batch_execute("BEGIN; SELECT pg_advisory_xact_lock(1); INSERT INTO fenced VALUES (2)").unwrap();
    group.kill(node(2), Part::Gcs);
    group.start_node(node(2));
    taken(&mut other, 1);
    assert_eq!(code(&holder.batch_execute("COMMIT").unwrap_err()), "40001");
    holder.batch_execute("SELECT 1").unwrap();
    // One that is stopped for longer than the group waits for it: what it holds, others get; what it commits then is refused.
    let mut holder = group.connect(node(2));
    wait::until("the daemon is back", RESOLVED_MAX, || {
        holder.batch_execute("SELECT pg_advisory_lock(1)").map_err(|error| code(&error))
    });
    group.signal(node(2), Part::Gcs, Signal::STOP);
    taken(&mut other, 1);
    let commit = thread::spawn(move || holder.batch_execute("INSERT INTO fenced VALUES (3)").map_err(|error| code(&error)));
    group.signal(node(2), Part::Gcs, Signal::CONT);
    let refused = commit.join().unwrap();
    assert!(refused.is_err(), "a session whose lock others got has committed");
    group.settle();
    assert_eq!(group.value(node(1), "SELECT count(*) FROM fenced"), "0");
    harness::assert_equal(&group);
}

#[test]
fn a_node_without_a_majority_gives_no_lock() {
    let group = group();
    let mut holder = group.connect(node(1));
    run(&mut holder, "pg_advisory_lock(1)");
    for number in [2, 3] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    let mut client = group.connect(node(1));
    for call in ["pg_try_advisory_lock(2)", "pg_advisory_lock(2)", "pg_advisory_xact_lock_shared(2, 3)"] {
        assert_eq!(code(&client.batch_execute(&format!("SELECT {call}")).unwrap_err()), "25006", "{call}");
    }
    // A lock that is held on this server needs no group to be refused.
    assert!(!is(&mut client, "pg_try_advisory_lock(1)"));
    wait::until("the holder is told", RESOLVED_MAX, || match holder.batch_execute("SELECT 1") {
        Ok(()) => Err("it believes to hold its lock".to_owned()),
        Err(error) if says_it_ended(&error) => Ok(()),
        Err(error) => panic!("{error:?}"),
    });
    for number in [2, 3] {
        group.start_node(node(number));
    }
    wait::until("locks again", RESOLVED_MAX, || {
        client.batch_execute("SELECT pg_advisory_lock(1)").map_err(|error| code(&error))
    });
}

#[test]
fn a_mutex_of_three_nodes_has_one_holder_whatever_is_killed() {
    let group = group();
    group.execute(node(1), mutex::TABLE);
    group.settle();
    let running = mutex::Workload::start(&group, 2);
    group.kill_each_in_turn(|| running.goes_on());
    running.goes_on();
    let summary = running.finish();
    println!("{summary:?}");
    group.settle();
    let counted: u64 = group.value(node(2), "SELECT n FROM mutex_counter").parse().unwrap();
    assert!(summary.acknowledged > 0);
    assert!(
        (summary.acknowledged..=summary.acknowledged + summary.unknown).contains(&counted),
        "{counted} counted, {summary:?}: two held the lock, and one's count went over the other's"
    );
    harness::assert_equal(&group);
}
