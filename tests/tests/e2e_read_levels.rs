//! Read levels: what a session that changes nodes sees there, on a node that is behind, in a minority, and when the leader dies.
//!
//! A node is *behind* while its remote backends are stopped: what others commit is ordered and not visible there. That it can be seen to be behind
//! (`eventual`) is shown each time, so that the other levels have something to do.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::group::describe;
use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::{Client, Error, SimpleQueryMessage};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

/// Where is written, and where is read.
const THERE: usize = 1;
const HERE: usize = 2;

const WAITS_WITHIN: Duration = Duration::from_secs(20);

/// A table of its own for each test.
fn table(group: &Group, name: &str) {
    group.execute(node(THERE), &format!("DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (n int PRIMARY KEY)"));
    group.settle();
}

fn code(error: &Error) -> &str {
    error.code().map_or("no code", |code| code.code())
}

fn pid(client: &mut Client) -> i32 {
    client.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0)
}

/// The last value that a query string gives.
fn last_value(client: &mut Client, sql: &str) -> Result<String, Error> {
    let rows = client.simple_query(sql)?.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row.get(row.len() - 1).unwrap_or_default().to_owned()),
        _ => None,
    });
    Ok(rows.last().unwrap_or_default())
}

/// A value that no other call gives.
fn fresh() -> u32 {
    static LAST: AtomicU32 = AtomicU32::new(0);
    LAST.fetch_add(1, Ordering::SeqCst) + 1
}

/// Commits `write` on the other node while this one is behind; then `read` runs here until it waits, and only then this node goes on.
fn read_while_behind<T: Send>(
    group: &Group,
    client: &mut Client,
    write: &str,
    read: impl FnOnce(&mut Client) -> T + Send,
) -> T {
    let mut watcher = group.connect(node(HERE));
    let reader = pid(client);
    let behind = Stopped::remote_backends(group, node(HERE));
    group.execute(node(THERE), write);
    thread::scope(|scope| {
        let runner = scope.spawn(|| read(client));
        wait::until("the reader waits", WAITS_WITHIN, || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'Extension'";
            let is_waiting = watcher.query_one(waits, &[&reader]).is_ok_and(|row| row.get::<_, i64>(0) == 1);
            if is_waiting || runner.is_finished() { Ok(()) } else { Err("it does not wait".to_owned()) }
        });
        assert!(!runner.is_finished(), "it did not wait");
        drop(behind);
        runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

#[test]
fn a_node_that_is_behind_shows_stale_data_at_eventual_and_not_at_strong() {
    let group = harness::shared();
    table(&group, "strong_read");
    let mut client = group.connect(node(HERE));
    let behind = Stopped::remote_backends(&group, node(HERE));
    group.execute(node(THERE), "INSERT INTO strong_read VALUES (1)");
    assert_eq!(last_value(&mut client, "SELECT count(*) FROM strong_read").unwrap(), "0", "it is behind");
    client.batch_execute("SET postgres_r.read_level = strong; SET postgres_r.read_timeout = '300ms'").unwrap();
    let error = last_value(&mut client, "SELECT count(*) FROM strong_read").unwrap_err();
    assert_eq!(code(&error), "57014", "{}", describe(&error));
    assert!(describe(&error).contains("read_level = strong"), "{}", describe(&error));
    drop(behind);
    client.batch_execute("RESET postgres_r.read_timeout").unwrap();
    assert_eq!(last_value(&mut client, "SELECT count(*) FROM strong_read").unwrap(), "1");
    let seen = read_while_behind(&group, &mut client, "INSERT INTO strong_read VALUES (2)", |client| {
        last_value(client, "SELECT count(*) FROM strong_read").unwrap()
    });
    assert_eq!(seen, "2");
}

/// Whatever the first statement is, and however it comes: it sees what was acknowledged before it.
#[test]
fn every_kind_of_statement_waits_before_its_transactions_first_snapshot() {
    let group = harness::shared();
    table(&group, "kinds");
    group.execute(
        node(THERE),
        "CREATE TABLE copies (n int);
         CREATE OR REPLACE FUNCTION seen_stable(v int) RETURNS bool LANGUAGE sql STABLE AS 'SELECT EXISTS (SELECT FROM kinds WHERE n = v)';
         CREATE OR REPLACE FUNCTION seen_volatile(v int) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN RETURN EXISTS (SELECT FROM kinds WHERE n = v); END';
         CREATE OR REPLACE PROCEDURE seen_by_call(v int, INOUT seen bool) LANGUAGE plpgsql AS
            'BEGIN seen := EXISTS (SELECT FROM kinds WHERE n = v); END'",
    );
    group.settle();
    let exists = "EXISTS (SELECT FROM kinds WHERE n = $)";
    let statements = [
        format!("SELECT {exists}"),
        format!("BEGIN; SELECT {exists}; COMMIT"),
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT {exists}; COMMIT"),
        format!("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT {exists}; COMMIT"),
        format!("BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY; SELECT {exists}; COMMIT"),
        format!("BEGIN; SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SHOW TimeZone; SELECT {exists}; COMMIT"),
        format!("BEGIN; SAVEPOINT s; SELECT {exists}; COMMIT"),
        format!(
            "BEGIN ISOLATION LEVEL REPEATABLE READ; SAVEPOINT s; SELECT {exists}; ROLLBACK TO s; SELECT {exists}; COMMIT"
        ),
        format!("BEGIN; DECLARE c CURSOR FOR SELECT {exists}; FETCH c; COMMIT"),
        format!("BEGIN ISOLATION LEVEL REPEATABLE READ; DECLARE c CURSOR FOR SELECT {exists}; FETCH c; COMMIT"),
        "SELECT seen_stable($)".to_owned(),
        "SELECT seen_volatile($)".to_owned(),
        "CALL seen_by_call($, false)".to_owned(),
        format!("PREPARE p AS SELECT {exists}; EXECUTE p; DEALLOCATE p"),
        "WITH copied AS (INSERT INTO copies SELECT n FROM kinds WHERE n = $ RETURNING n) SELECT count(*) = 1 FROM copied"
            .to_owned(),
        format!("INSERT INTO copies SELECT 1 WHERE {exists} RETURNING true"),
        format!("CREATE TEMP TABLE made AS SELECT {exists} AS seen; SELECT seen FROM made; DROP TABLE made"),
        "DO $$BEGIN IF NOT seen_volatile($) THEN RAISE 'not seen'; END IF; END$$; SELECT true".replace("$$", "$x$"),
        format!("TABLE kinds; SELECT {exists}"),
    ];
    for isolation in ["read committed", "repeatable read", "serializable"] {
        for statement in &statements {
            let mut client = group.connect(node(HERE));
            client.batch_execute(&format!("SET default_transaction_isolation = '{isolation}'")).unwrap();
            let value = fresh();
            let statement = statement.replace("$x$", "\u{1}").replace('$', &value.to_string()).replace('\u{1}', "$x$");
            client.batch_execute("SET postgres_r.read_level = strong").unwrap();
            let write = format!("INSERT INTO kinds VALUES ({value})");
            let seen = read_while_behind(&group, &mut client, &write, |client| last_value(client, &statement));
            let seen = seen.unwrap_or_else(|error| panic!("{isolation}: {statement}: {}", describe(&error)));
            assert_eq!(seen, "t", "{isolation}: {statement}");
        }
    }
    harness::assert_equal(&group);
}

/// A plan from the cache is run without being analysed: the first that is heard of it has its snapshot.
#[test]
fn a_statement_that_was_prepared_before_waits_as_well() {
    let group = harness::shared();
    table(&group, "prepared");
    let mut client = group.connect(node(HERE));
    for isolation in ["read committed", "repeatable read", "serializable"] {
        client.batch_execute(&format!("SET default_transaction_isolation = '{isolation}'")).unwrap();
        let select = client.prepare("SELECT count(*) FROM prepared WHERE n = $1").unwrap();
        let insert = client.prepare("INSERT INTO prepared SELECT -n FROM prepared WHERE n = $1").unwrap();
        // Often enough for a generic plan.
        for _ in 0..8 {
            client.query_one(&select, &[&0]).unwrap();
            client.execute(&insert, &[&0]).unwrap();
        }
        client.batch_execute("SET postgres_r.read_level = strong").unwrap();
        for in_block in [false, true] {
            let value = fresh() as i32 + 1_000_000;
            let write = format!("INSERT INTO prepared VALUES ({value})");
            let seen = read_while_behind(&group, &mut client, &write, |client| {
                if in_block {
                    let mut transaction = client.transaction().unwrap();
                    let count: i64 = transaction.query_one(&select, &[&value]).unwrap().get(0);
                    transaction.commit().unwrap();
                    return count;
                }
                client.query_one(&select, &[&value]).unwrap().get(0)
            });
            assert_eq!(seen, 1, "{isolation}, in a block: {in_block}");
        }
        let value = fresh() as i32 + 1_000_000;
        let write = format!("INSERT INTO prepared VALUES ({value})");
        let copied = read_while_behind(&group, &mut client, &write, |client| client.execute(&insert, &[&value]).unwrap());
        assert_eq!(copied, 1, "{isolation}");
        let value = fresh() as i32 + 1_000_000;
        let by_name = format!("PREPARE by_name AS SELECT count(*) FROM prepared WHERE n = {value}");
        client.batch_execute(&format!("SET postgres_r.read_level = eventual; {by_name}")).unwrap();
        let execute = client.prepare("EXECUTE by_name").unwrap();
        client.query_one(&execute, &[]).unwrap();
        client.batch_execute("SET postgres_r.read_level = strong").unwrap();
        let write = format!("INSERT INTO prepared VALUES ({value})");
        let seen = read_while_behind(&group, &mut client, &write, |client| {
            client.query_one(&execute, &[]).unwrap().get::<_, i64>(0)
        });
        assert_eq!(seen, 1, "{isolation}: EXECUTE");
        client.batch_execute("DEALLOCATE by_name; SET postgres_r.read_level = eventual").unwrap();
    }
    harness::assert_equal(&group);
}

#[test]
fn what_needs_no_data_does_not_wait() {
    let group = harness::shared();
    table(&group, "no_data");
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = strong; SET postgres_r.read_timeout = '10s'").unwrap();
    let _behind = Stopped::remote_backends(&group, node(HERE));
    group.execute(node(THERE), "INSERT INTO no_data VALUES (1)");
    // Who waits fails: nothing comes.
    client
        .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SET LOCAL work_mem = '8MB'; SHOW work_mem; COMMIT")
        .unwrap();
    for statement in ["DISCARD ALL", "LISTEN a", "UNLISTEN a", "BEGIN", "SAVEPOINT a", "RELEASE a", "ROLLBACK"] {
        client.batch_execute(statement).unwrap();
        client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    }
    // Chosen for one transaction, another level holds for it.
    let read = "BEGIN; SET LOCAL postgres_r.read_level = eventual; SELECT count(*) FROM no_data; COMMIT";
    assert_eq!(last_value(&mut client, read).unwrap(), "0");
}

#[test]
fn a_session_finds_its_own_writes_on_another_node_by_its_token() {
    let group = harness::shared();
    table(&group, "session_read");
    let (mut there, mut here) = (group.connect(node(THERE)), group.connect(node(HERE)));
    for value in 1..=3 {
        let behind = Stopped::remote_backends(&group, node(HERE));
        there.batch_execute(&format!("INSERT INTO session_read VALUES ({value})")).unwrap();
        let token = last_value(&mut there, "SELECT postgres_r.session_token()").unwrap();
        let count = "SELECT count(*) FROM session_read";
        here.batch_execute("SET postgres_r.read_level = session; SET postgres_r.read_after = ''").unwrap();
        assert_eq!(last_value(&mut here, count).unwrap(), (value - 1).to_string(), "it is behind");
        here.batch_execute(&format!("SET postgres_r.read_after = '{token}'; SET postgres_r.read_timeout = '200ms'"))
            .unwrap();
        assert_eq!(code(&last_value(&mut here, count).unwrap_err()), "57014");
        drop(behind);
        here.batch_execute("RESET postgres_r.read_timeout").unwrap();
        assert_eq!(last_value(&mut here, count).unwrap(), value.to_string());
        // What it has seen here, it takes back.
        let back = last_value(&mut here, "SELECT postgres_r.session_token()").unwrap();
        there.batch_execute(&format!("SET postgres_r.read_level = session; SET postgres_r.read_after = '{back}'")).unwrap();
        assert_eq!(last_value(&mut there, count).unwrap(), value.to_string());
    }
}

#[test]
fn a_token_that_is_none_or_of_another_database_is_refused() {
    let group = harness::shared();
    table(&group, "tokens");
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = session").unwrap();
    for bad in ["x", "postgresr/1", "postgresr/1/x", "postgresr//1", "/1/1", "other/1/1", "postgresr/77/1", "postgresr/1/-1"]
    {
        client.batch_execute(&format!("SET postgres_r.read_after = '{bad}'")).unwrap();
        let error = last_value(&mut client, "SELECT count(*) FROM tokens").unwrap_err();
        assert_eq!(code(&error), "22023", "{bad}: {}", describe(&error));
    }
    client.batch_execute("SET postgres_r.read_after = ''").unwrap();
    let token = last_value(&mut client, "SELECT postgres_r.session_token()").unwrap();
    let (front, _) = token.rsplit_once('/').unwrap();
    client.batch_execute(&format!("SET postgres_r.read_after = '{front}/{}'", u64::MAX)).unwrap();
    client.batch_execute("SET postgres_r.read_timeout = '200ms'").unwrap();
    assert_eq!(code(&last_value(&mut client, "SELECT count(*) FROM tokens").unwrap_err()), "57014");
    let mut elsewhere = group.playground.connect(node(HERE), "postgres").unwrap();
    elsewhere.batch_execute("SET postgres_r.read_level = strong; SET postgres_r.commit_level = after; SELECT 1").unwrap();
}

#[test]
fn a_bounded_read_shows_what_is_a_little_old_and_nothing_older() {
    let group = harness::shared();
    table(&group, "bounded_read");
    let mut client = group.connect(node(HERE));
    let count = "SELECT count(*) FROM bounded_read";
    // How far the group is, this node has just heard.
    client.batch_execute("SET postgres_r.read_level = strong; SELECT 1; SET postgres_r.read_level = bounded").unwrap();
    let behind = Stopped::remote_backends(&group, node(HERE));
    client.batch_execute("SET postgres_r.max_staleness = '1min'").unwrap();
    group.execute(node(THERE), "INSERT INTO bounded_read VALUES (1)");
    assert_eq!(last_value(&mut client, count).unwrap(), "0", "it may be a minute old");
    client.batch_execute("SET postgres_r.max_staleness = '1ms'; SET postgres_r.read_timeout = '200ms'").unwrap();
    assert_eq!(code(&last_value(&mut client, count).unwrap_err()), "57014");
    drop(behind);
    client.batch_execute("RESET postgres_r.read_timeout").unwrap();
    assert_eq!(last_value(&mut client, count).unwrap(), "1");
    let seen = read_while_behind(&group, &mut client, "INSERT INTO bounded_read VALUES (2)", |client| {
        last_value(client, count).unwrap()
    });
    assert_eq!(seen, "2");
}

#[test]
fn in_a_minority_each_level_does_what_it_can_at_once() {
    let group = harness::shared();
    table(&group, "minority_read");
    group.execute(node(THERE), "INSERT INTO minority_read VALUES (1)");
    group.settle();
    let mut client = group.connect(node(HERE));
    let count = "SELECT count(*) FROM minority_read";
    let token = last_value(&mut client, "SELECT postgres_r.session_token()").unwrap();
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    assert_eq!(last_value(&mut client, count).unwrap(), "1");
    for number in [1, 3] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    let error = last_value(&mut client, count).unwrap_err();
    assert_eq!(code(&error), "25006", "{}", describe(&error));
    let error = last_value(&mut client, count).unwrap_err();
    assert_eq!(code(&error), "25006", "{}", describe(&error));
    assert!(error.as_db_error().unwrap().detail().unwrap().contains("members"), "{}", describe(&error));
    for (level, setting, seen) in [
        ("bounded", "postgres_r.max_staleness = '10min'".to_owned(), Ok("1")),
        ("bounded", "postgres_r.max_staleness = '1ms'".to_owned(), Err("25006")),
        ("eventual", "work_mem = '4MB'".to_owned(), Ok("1")),
        ("session", "postgres_r.read_after = ''".to_owned(), Ok("1")),
        ("session", format!("postgres_r.read_after = '{token}'"), Ok("1")),
        ("session", format!("postgres_r.read_after = '{token}9'"), Err("25006")),
    ] {
        client.batch_execute(&format!("SET postgres_r.read_level = {level}; SET {setting}")).unwrap();
        let result = last_value(&mut client, count);
        let result = result.as_deref().map_err(|error| code(error).to_owned());
        assert_eq!(result, seen.map_err(str::to_owned), "{level}, {setting}");
    }
    for number in [1, 3] {
        group.start_node(node(number));
    }
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    wait::until("strong reads are back", Duration::from_secs(10), || {
        last_value(&mut client, count).map_err(|e| describe(&e))
    });
}

#[test]
fn a_leader_that_dies_in_the_middle_costs_a_moment_and_no_stale_read() {
    let group = harness::shared();
    table(&group, "leader_dies");
    let leads = group.status().nodes.iter().position(|status| status.leader).unwrap();
    let leader = group.numbers()[leads];
    let others: Vec<NodeNumber> = group.numbers().into_iter().filter(|number| *number != leader).collect();
    let end = Instant::now() + Duration::from_secs(6);
    let written = AtomicU32::new(0);
    let longest = thread::scope(|scope| {
        scope.spawn(|| {
            let mut client = group.connect(others[0]);
            while Instant::now() < end {
                let next = written.load(Ordering::SeqCst) + 1;
                if client.batch_execute(&format!("INSERT INTO leader_dies VALUES ({next})")).is_err() {
                    client = group.connect(others[0]);
                    let found = last_value(&mut client, "SELECT coalesce(max(n), 0) FROM leader_dies").unwrap();
                    written.store(found.parse().unwrap(), Ordering::SeqCst);
                    continue;
                }
                written.store(next, Ordering::SeqCst);
            }
        });
        let reader = scope.spawn(|| {
            let mut client = group.connect(others[1]);
            client.batch_execute("SET postgres_r.read_level = strong").unwrap();
            let (mut longest, mut reads) = (Duration::ZERO, 0);
            while Instant::now() < end {
                let (before, start) = (written.load(Ordering::SeqCst), Instant::now());
                match last_value(&mut client, "SELECT coalesce(max(n), 0) FROM leader_dies") {
                    Ok(seen) => {
                        assert!(seen.parse::<u32>().unwrap() >= before, "{seen} after {before} was acknowledged");
                        reads += 1;
                    }
                    Err(error) => assert_eq!(code(&error), "25006", "{}", describe(&error)),
                }
                longest = longest.max(start.elapsed());
            }
            assert!(reads > 0);
            longest
        });
        thread::sleep(Duration::from_secs(2));
        group.kill(leader, Part::Gcs);
        reader.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    println!("the longest read took {longest:?}");
    group.start_node(leader);
    harness::assert_equal(&group);
}

#[test]
fn a_wait_can_be_cancelled_timed_out_and_terminated() {
    let group = harness::shared();
    table(&group, "cancelled");
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    let reader = pid(&mut client);
    let behind = Stopped::remote_backends(&group, node(HERE));
    group.execute(node(THERE), "INSERT INTO cancelled VALUES (1)");
    let error = last_value(&mut client, "SET statement_timeout = '200ms'; SELECT count(*) FROM cancelled").unwrap_err();
    assert!(describe(&error).contains("statement timeout"), "{}", describe(&error));
    client.batch_execute("SET statement_timeout = 0").unwrap();
    for (signal, expected) in [("pg_cancel_backend", "57014"), ("pg_terminate_backend", "57P01")] {
        let mut other = group.connect(node(HERE));
        let error = thread::scope(|scope| {
            let runner = scope.spawn(|| last_value(&mut client, "SELECT count(*) FROM cancelled").unwrap_err());
            wait::until("the reader waits", WAITS_WITHIN, || {
                let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'Extension'";
                let count: i64 = other.query_one(waits, &[&reader]).unwrap().get(0);
                if count == 1 { Ok(()) } else { Err("it does not".to_owned()) }
            });
            other.execute(&format!("SELECT {signal}({reader})"), &[]).unwrap();
            runner.join().unwrap()
        });
        assert_eq!(code(&error), expected, "{}", describe(&error));
    }
    drop(behind);
    assert_eq!(group.value(node(HERE), "SELECT count(*) FROM cancelled"), "1");
}

#[test]
fn a_savepoint_survives_a_wait_that_failed_and_the_level_can_be_lowered() {
    let group = harness::shared();
    table(&group, "lowered");
    let mut client = group.connect(node(HERE));
    let behind = Stopped::remote_backends(&group, node(HERE));
    group.execute(node(THERE), "INSERT INTO lowered VALUES (1)");
    client.batch_execute("SET postgres_r.read_level = strong; SET postgres_r.read_timeout = '200ms'").unwrap();
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SAVEPOINT s")).unwrap();
        assert_eq!(code(&last_value(&mut client, "SELECT count(*) FROM lowered").unwrap_err()), "57014");
        client.batch_execute("ROLLBACK TO s; SET LOCAL postgres_r.read_level = eventual").unwrap();
        assert_eq!(last_value(&mut client, "SELECT count(*) FROM lowered").unwrap(), "0");
        client.batch_execute("COMMIT").unwrap();
    }
    drop(behind);
    // Raised in the middle, it holds from the next statement on, where each has a snapshot of its own.
    client.batch_execute("SET postgres_r.read_level = eventual; RESET postgres_r.read_timeout; BEGIN; SELECT 1").unwrap();
    let seen = read_while_behind(&group, &mut client, "INSERT INTO lowered VALUES (2)", |client| {
        last_value(client, "SET LOCAL postgres_r.read_level = strong; SELECT count(*) FROM lowered").unwrap()
    });
    assert_eq!(seen, "2");
    client.batch_execute("COMMIT").unwrap();
    for isolation in ["REPEATABLE READ", "SERIALIZABLE"] {
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SELECT 1 FROM lowered")).unwrap();
        let late = last_value(&mut client, "SET LOCAL postgres_r.read_level = strong; SELECT count(*) FROM lowered");
        assert_eq!(code(&late.unwrap_err()), "25001");
        client.batch_execute("ROLLBACK").unwrap();
    }
}

/// What failed has read nothing: the next attempt waits as the first did, though PostgreSQL has a snapshot by then.
#[test]
fn a_wait_that_failed_does_not_make_the_next_read_stale() {
    let group = harness::shared();
    table(&group, "tried_again");
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    for isolation in ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"] {
        let value = fresh();
        client.batch_execute(&format!("BEGIN ISOLATION LEVEL {isolation}; SAVEPOINT s")).unwrap();
        let read = format!("SELECT count(*) FROM tried_again WHERE n = {value}");
        let behind = Stopped::remote_backends(&group, node(HERE));
        group.execute(node(THERE), &format!("INSERT INTO tried_again VALUES ({value})"));
        let error = last_value(&mut client, &format!("SET LOCAL postgres_r.read_timeout = '200ms'; {read}")).unwrap_err();
        assert_eq!(code(&error), "57014", "{}", describe(&error));
        drop(behind);
        client.batch_execute("ROLLBACK TO s; SET LOCAL postgres_r.read_timeout = '10s'").unwrap();
        let seen = last_value(&mut client, &read).unwrap();
        assert_eq!(seen, "1", "{isolation}");
        client.batch_execute("COMMIT").unwrap();
    }
}

/// A procedure that commits begins another transaction, which waits as well.
#[test]
fn what_a_procedure_reads_after_its_commit_is_as_fresh_as_its_level() {
    let group = harness::shared();
    table(&group, "in_procedure");
    group.execute(
        node(THERE),
        "CREATE OR REPLACE PROCEDURE reads_twice(v int, INOUT seen bigint) LANGUAGE plpgsql AS
            $$BEGIN PERFORM count(*) FROM in_procedure; COMMIT; PERFORM pg_sleep(1.5); COMMIT;
            SELECT count(*) INTO seen FROM in_procedure WHERE n = v; END$$",
    );
    group.settle();
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    let seen = thread::scope(|scope| {
        let runner = scope.spawn(|| last_value(&mut client, "CALL reads_twice(1, 0)").unwrap());
        thread::sleep(Duration::from_millis(700));
        let behind = Stopped::remote_backends(&group, node(HERE));
        group.execute(node(THERE), "INSERT INTO in_procedure VALUES (1)");
        thread::sleep(Duration::from_secs(2));
        assert!(!runner.is_finished(), "it did not wait");
        drop(behind);
        runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    assert_eq!(seen, "1");
}

#[test]
fn a_reader_that_waits_for_a_truncate_of_its_own_table_does_not_hold_it_up() {
    let group = harness::shared();
    table(&group, "truncated");
    group.execute(node(THERE), "INSERT INTO truncated VALUES (1)");
    group.settle();
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET postgres_r.read_level = strong").unwrap();
    let seen = read_while_behind(&group, &mut client, "TRUNCATE truncated", |client| {
        last_value(client, "SELECT count(*) FROM truncated")
    });
    match seen {
        Ok(count) => assert_eq!(count, "0"),
        Err(error) => assert_eq!(code(&error), "40001", "{}", describe(&error)),
    }
    assert_eq!(last_value(&mut client, "SELECT count(*) FROM truncated").unwrap(), "0");
}

#[test]
fn the_level_comes_from_the_role_the_database_or_the_server_and_our_own_processes_do_not_mind() {
    let group = harness::shared();
    table(&group, "everywhere");
    group.execute(node(THERE), "CREATE TABLE numbered (n bigserial PRIMARY KEY)");
    for number in group.numbers() {
        let mut server = group.playground.connect(number, "postgres").unwrap();
        let database = group.database();
        server.batch_execute(&format!("ALTER DATABASE {database} SET postgres_r.read_level = strong")).unwrap();
        assert_eq!(group.value(number, "SELECT current_setting('postgres_r.read_level')"), "strong");
        server.batch_execute(&format!("ALTER DATABASE {database} RESET postgres_r.read_level")).unwrap();
        server.batch_execute("ALTER SYSTEM SET postgres_r.read_level = strong").unwrap();
        server.batch_execute("ALTER SYSTEM SET postgres_r.commit_level = after").unwrap();
        server.batch_execute("SELECT pg_reload_conf()").unwrap();
    }
    for number in group.numbers() {
        wait::until("the configuration counts", WAITS_WITHIN, || {
            match group.value(number, "current_setting('postgres_r.commit_level')") {
                level if level == "after" => Ok(()),
                level => Err(level),
            }
        });
    }
    for number in group.numbers() {
        let mut client = group.connect(number);
        client.batch_execute(&format!("CREATE TABLE everywhere_{} (n int DEFAULT 1)", number.0)).unwrap();
        client.batch_execute("INSERT INTO numbered SELECT FROM generate_series(1, 50)").unwrap();
        client
            .batch_execute("SET force_parallel_mode = on; SELECT count(*) FROM numbered; EXPLAIN ANALYZE TABLE numbered")
            .unwrap();
    }
    assert_eq!(group.values("SELECT count(*) FROM numbered"), ["150", "150", "150"]);
    for number in group.numbers() {
        let mut server = group.playground.connect(number, "postgres").unwrap();
        server.batch_execute("ALTER SYSTEM RESET postgres_r.read_level").unwrap();
        server.batch_execute("ALTER SYSTEM RESET postgres_r.commit_level").unwrap();
        server.batch_execute("SELECT pg_reload_conf()").unwrap();
    }
    harness::assert_equal(&group);
}

#[test]
fn an_imported_snapshot_stays_what_it_is() {
    let group = harness::shared();
    table(&group, "imported");
    let (mut giver, mut taker) = (group.connect(node(HERE)), group.connect(node(HERE)));
    giver.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    let name = last_value(&mut giver, "SELECT pg_export_snapshot()").unwrap();
    group.execute(node(THERE), "INSERT INTO imported VALUES (1)");
    group.settle();
    taker.batch_execute("SET postgres_r.read_level = strong; BEGIN ISOLATION LEVEL REPEATABLE READ").unwrap();
    taker.batch_execute(&format!("SET TRANSACTION SNAPSHOT '{name}'")).unwrap();
    assert_eq!(last_value(&mut taker, "SELECT count(*) FROM imported").unwrap(), "0");
    taker.batch_execute("COMMIT").unwrap();
    assert_eq!(last_value(&mut taker, "SELECT count(*) FROM imported").unwrap(), "1");
    giver.batch_execute("COMMIT").unwrap();
}
