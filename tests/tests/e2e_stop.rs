//! STOP REPLICATION: what stays is an ordinary database, and it can be had without the group too. And what a server says that cannot find its
//! group is the reason for it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::{Client, NoTls};
use postgres_r_tests::harness::database::{Database, value};
use postgres_r_tests::harness::{self, Group, node, wait};

const CAPTURE_TRIGGERS: &str = r"SELECT count(*) FROM pg_trigger WHERE tgname LIKE E'\001postgres_r%'";

/// `code message | detail | hint`
fn failure<T>(result: Result<T, postgres::Error>) -> String {
    let Err(error) = result else { panic!("it was let through") };
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    let (detail, hint) = (error.detail().unwrap_or_default(), error.hint().unwrap_or_default());
    format!("{} {} | {detail} | {hint}", error.code().code(), error.message())
}

fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "\"{part}\" is missing in: {text}");
    }
}

/// A session that keeps the notices it gets.
fn listening(group: &Group, number: NodeNumber) -> (Client, Arc<Mutex<Vec<String>>>) {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let ears = heard.clone();
    let mut config: postgres::Config = group.playground.cluster(number).uri("postgres").parse().unwrap();
    config.notice_callback(move |notice| {
        let (detail, hint) = (notice.detail().unwrap_or_default(), notice.hint().unwrap_or_default());
        ears.lock().unwrap().push(format!("{} {} | {detail} | {hint}", notice.severity(), notice.message()));
    });
    (config.connect(NoTls).unwrap(), heard)
}

fn filled<'a>(group: &'a Group, name: &'a str) -> Database<'a> {
    let books = Database::replicated(group, name);
    books.execute(
        node(1),
        "CREATE TABLE t (n int PRIMARY KEY); CREATE TABLE parts (n int) PARTITION BY RANGE (n);
         CREATE TABLE part PARTITION OF parts FOR VALUES FROM (0) TO (100); INSERT INTO t VALUES (1); INSERT INTO parts VALUES (1)",
    );
    for number in group.numbers() {
        books.arrives(number, "SELECT count(*) FROM t", "1");
    }
    books
}

#[test]
fn a_database_whose_replication_was_stopped_is_an_ordinary_one() {
    let group = harness::shared();
    let books = filled(&group, "ordinary");
    let mut running = books.connect(node(2));
    let (mut server, heard) = listening(&group, node(2));
    server.batch_execute("ALTER DATABASE ordinary STOP REPLICATION").unwrap();
    let said = heard.lock().unwrap().join("\n");
    assert_says(
        &said,
        &["NOTICE", "no longer replicated on this node", "group \"postgresr\"", "stays here", "drop it here"],
    );
    assert_eq!(value(&mut running, CAPTURE_TRIGGERS), "0");
    // What is refused in a replicated database is not any more; what is written stays here.
    running
        .batch_execute(
            "INSERT INTO t VALUES (2); INSERT INTO parts VALUES (2); CREATE UNLOGGED TABLE fast (n int); INSERT INTO fast VALUES (1);
             CREATE MATERIALIZED VIEW seen AS SELECT * FROM t",
        )
        .unwrap_or_else(|error| panic!("{error:?}"));
    running.batch_execute("CREATE INDEX CONCURRENTLY later ON t (n)").unwrap();
    books.execute(node(1), "INSERT INTO t VALUES (3)");
    books.arrives(node(3), "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t", "1 3");
    assert_eq!(books.value(node(2), "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t"), "1 2");
    // Nothing but the extension is left, and nothing holds on to that.
    running.batch_execute("DROP EXTENSION postgres_r; UPDATE t SET n = n + 10; DELETE FROM parts").unwrap();
    drop(running);
    books.end();
}

#[test]
fn starting_again_what_was_stopped_is_refused_with_the_reason() {
    let group = harness::shared();
    let books = filled(&group, "again");
    books.stop(node(3)).unwrap();
    let said = failure(books.start(node(3)));
    assert_says(
        &said,
        &[
            "55000",
            "is not empty",
            "It contains table public.",
            "was replicated in group \"postgresr\" up to position",
            "Drop",
        ],
    );
    // It does not matter whether it is the same group, and the function says the same.
    let mut server = books.server(node(3));
    let by_function = failure(server.execute("SELECT postgres_r.start_replication('again', 'postgresr')", &[]));
    assert_says(&by_function, &["does not exist"]);
    let by_function =
        failure(books.connect(node(3)).execute("SELECT postgres_r.start_replication('again', 'postgresr')", &[]));
    assert_eq!(by_function, said);
    // What the hint says helps.
    books.on_server(node(3), "DROP DATABASE again").unwrap();
    books.make(node(3));
    books.start(node(3)).unwrap();
    books.arrives(node(3), "SELECT count(*) FROM t", "1");
    books.execute(node(3), "INSERT INTO t VALUES (2)");
    books.arrives(node(1), "SELECT count(*) FROM t", "2");
    // A database that never was replicated is told nothing of the kind: on the first node its contents are the group's, on others they are in the way.
    let fresh = Database { group: &group, name: "never" };
    for number in [3, 1] {
        fresh.make(node(number));
        fresh.execute(node(number), "CREATE TABLE t (n int)");
    }
    fresh.start(node(3)).unwrap();
    let said = failure(fresh.start(node(1)));
    assert_says(&said, &["55000", "is not empty"]);
    assert!(!said.contains("was replicated"), "{said}");
    fresh.end();
    books.end();
}

#[test]
fn a_table_in_use_does_not_keep_replication_from_being_stopped() {
    let group = harness::shared();
    let books = filled(&group, "in_use");
    let mut reader = books.connect(node(1));
    reader.batch_execute("BEGIN; SELECT * FROM t").unwrap();
    let (mut server, heard) = listening(&group, node(1));
    server.batch_execute("SELECT 1; ").unwrap();
    server.batch_execute("ALTER DATABASE in_use STOP REPLICATION").unwrap();
    assert_says(&heard.lock().unwrap().join("\n"), &["1 of them, keep a trigger that does nothing"]);
    books.execute(node(1), "INSERT INTO t VALUES (2); UPDATE t SET n = n + 10; DELETE FROM t WHERE n = 12");
    reader.batch_execute("COMMIT").unwrap();
    assert_eq!(books.value(node(1), CAPTURE_TRIGGERS), "1");
    drop(reader);
    books.end();
}

/// A transaction that is open while replication is stopped has changed what is an ordinary database by the time that it commits.
#[test]
fn a_transaction_that_is_open_while_replication_is_stopped_commits_here() {
    let group = harness::shared();
    let books = filled(&group, "open");
    let mut writer = books.connect(node(2));
    writer.batch_execute("BEGIN; INSERT INTO t VALUES (2)").unwrap();
    books.stop(node(2)).unwrap();
    writer.batch_execute("INSERT INTO t VALUES (3); COMMIT").unwrap();
    assert_eq!(books.value(node(2), "SELECT count(*) FROM t"), "3");
    books.execute(node(3), "INSERT INTO t VALUES (2)");
    books.arrives(node(1), "SELECT count(*) FROM t", "2");
    drop(writer);
    books.end();
}

#[test]
fn without_a_majority_a_database_leaves_by_force() {
    let group = harness::shared();
    let books = filled(&group, "forced");
    for number in [1, 2] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    let said = failure(books.stop(node(3)));
    assert_says(&said, &["25006", "could not tell the group", "1 of 3 members", "STOP REPLICATION FORCE"]);
    // It is as it was, once its manager has found gcs again.
    wait::until("the true reason", Duration::from_secs(20), || {
        let said = failure(books.connect(node(3)).batch_execute("INSERT INTO t VALUES (2)"));
        if said.contains("25006") && said.contains("1 of 3 members") { Ok(()) } else { Err(said) }
    });
    let (mut server, heard) = listening(&group, node(3));
    server.batch_execute("ALTER DATABASE forced STOP REPLICATION FORCE").unwrap_or_else(|error| panic!("{error:?}"));
    assert_says(&heard.lock().unwrap().join("\n"), &["WARNING", "no longer replicated", "was not told"]);
    books.execute(node(3), "INSERT INTO t VALUES (2)");
    assert_eq!(books.value(node(3), CAPTURE_TRIGGERS), "0");
    for number in [1, 2] {
        group.start_node(node(number));
    }
    // The others know nothing of it; here the reason is told.
    wait::until("the others to go on", Duration::from_secs(20), || {
        let mut client = books.try_connect(node(1)).map_err(|error| error.to_string())?;
        client.batch_execute("INSERT INTO t VALUES (3)").map_err(|error| error.to_string())
    });
    books.arrives(node(2), "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t", "1 3");
    assert_says(&failure(books.start(node(3))), &["55000", "was replicated in group", "until"]);
    books.on_server(node(3), "DROP DATABASE forced").unwrap();
    books.make(node(3));
    books.start(node(3)).unwrap();
    books.arrives(node(3), "SELECT string_agg(n::text, ' ' ORDER BY n) FROM t", "1 3");
    books.end();
    harness::assert_equal(&group);
}

#[test]
fn without_its_daemon_a_database_leaves_by_force_through_the_function_too() {
    let group = harness::shared();
    let books = filled(&group, "alone");
    group.kill(node(2), Part::Gcs);
    assert_says(&failure(books.stop(node(2))), &["08001", "could not tell the group", "FORCE"]);
    let mut client = books.connect(node(2));
    assert_says(&failure(client.execute("SELECT postgres_r.stop_replication('alone')", &[])), &["08001", "FORCE"]);
    client.execute("SELECT postgres_r.stop_replication('alone', force => true)", &[]).unwrap();
    client.batch_execute("INSERT INTO t VALUES (2)").unwrap();
    drop(client);
    group.start_node(node(2));
    // With a majority, force tells the group all the same.
    let (mut server, heard) = listening(&group, node(1));
    server.batch_execute("ALTER DATABASE alone STOP REPLICATION FORCE").unwrap();
    assert!(!heard.lock().unwrap().join("\n").contains("was not told"));
    books.end();
    harness::assert_equal(&group);
}

#[test]
fn force_stands_alone_as_start_does() {
    let group = harness::shared();
    let books = filled(&group, "forms");
    let mut client = books.connect(node(1));
    let statement = "ALTER DATABASE forms STOP REPLICATION FORCE";
    let refused = failure(client.batch_execute(&format!("PREPARE p AS SELECT 1; {statement}")));
    assert_says(&refused, &["25001", "among other statements", "force => true"]);
    assert_says(&failure(client.prepare(statement).map(drop)), &["0A000", "stop_replication('forms', force => true)"]);
    client.batch_execute("BEGIN").unwrap();
    assert_says(&failure(client.batch_execute(statement)), &["25001", "inside a transaction block"]);
    client.batch_execute("ROLLBACK; INSERT INTO t VALUES (2)").unwrap();
    books.arrives(node(2), "SELECT count(*) FROM t", "2");
    let mut stranger = books.server(node(1));
    stranger.batch_execute("CREATE ROLE any_one; SET ROLE any_one").unwrap();
    assert_says(&failure(stranger.batch_execute(statement)), &["42501"]);
    stranger.batch_execute("RESET ROLE; DROP ROLE any_one").unwrap();
    drop(client);
    books.end();
}

fn daemons(group: &Group, numbers: &[usize], signal: Signal) {
    for &number in numbers {
        group.signal(node(number), Part::Gcs, signal);
    }
}

#[test]
fn a_server_that_was_shut_down_and_cannot_find_its_group_shows_what_it_has() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE shown (n int PRIMARY KEY); INSERT INTO shown VALUES (1)");
    group.settle();
    // Its own daemon is away, and then the others'.
    for away in [&[2][..], &[1, 3]] {
        daemons(&group, away, Signal::TERM);
        let cluster = group.playground.cluster(node(2));
        assert!(cluster.stop().unwrap(), "it had to be forced");
        cluster.start().unwrap();
        let mut client = group.connect(node(2));
        assert_eq!(value(&mut client, "SELECT count(*) FROM shown"), "1");
        let said = failure(client.batch_execute("INSERT INTO shown VALUES (2)"));
        if away == [2] {
            assert_says(&said, &["25006", "gcs.sock", "has not been reached for", "Reading is possible"]);
        } else {
            assert_says(&said, &["25006", "Reading is possible"]);
        }
        for &number in away {
            group.start_node(node(number));
        }
        wait::until("a write", Duration::from_secs(20), || {
            client.batch_execute("UPDATE shown SET n = n").map_err(|error| gcs::playground::group::describe(&error))
        });
        harness::assert_equal(&group);
    }
}

#[test]
fn a_server_that_has_crashed_and_cannot_find_its_group_says_what_it_waits_for() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE hidden (n int PRIMARY KEY); INSERT INTO hidden VALUES (1)");
    group.settle();
    let refused = |away: &[usize], parts: &[&str]| {
        daemons(&group, away, Signal::TERM);
        group.kill(node(3), Part::Postgres);
        group.playground.cluster(node(3)).start().unwrap();
        let (said, _) = wait::until("the reason", Duration::from_secs(20), || {
            let said = failure(group.try_connect(node(3)));
            if said.contains("yet to catch up") { Ok(said) } else { Err(said) }
        });
        println!("{said}");
        assert_says(&said, &["57P03", "crashed", "Use another node"]);
        assert_says(&said, parts);
        for &number in away {
            group.start_node(node(number));
        }
        wait::until("a write", Duration::from_secs(30), || {
            let mut client = group.try_connect(node(3)).map_err(|error| error.to_string())?;
            client.batch_execute("UPDATE hidden SET n = n").map_err(|error| error.to_string())
        });
    };
    refused(&[3], &["gcs.sock", "has not been reached for", "No such file"]);
    refused(&[1, 2], &["1 of 3 members"]);
    harness::assert_equal(&group);
}
