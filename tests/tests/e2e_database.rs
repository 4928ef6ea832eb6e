//! Statements about a replicated database as a whole: each does what it does on any server, or is refused and says what to do. And whatever
//! becomes of a database, this node's place for it does not get lost.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres_r_tests::harness::database::{Database, value};
use postgres_r_tests::harness::{self, Group, node, wait};

/// The default of postgres_r.max_databases, and `shop` has one.
const PLACES: usize = 4;

const NOTICED_WITHIN: Duration = Duration::from_secs(15);

fn assert_refused(result: Result<(), postgres::Error>, code: &str, message: &str, hint: &str) {
    let error = result.unwrap_err();
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    let (found, said) = (error.code().code(), error.message());
    assert!(found == code && said.contains(message), "{found} {said}, {:?}", error.detail());
    assert!(error.hint().unwrap_or_default().contains(hint), "{said}: its hint is {:?}", error.hint());
}

fn log_since(group: &Group, number: NodeNumber, from: usize) -> String {
    let bytes = fs::read(group.playground.cluster(number).log()).unwrap();
    String::from_utf8_lossy(&bytes[from.min(bytes.len())..]).into_owned()
}

fn log_length(group: &Group, number: NodeNumber) -> usize {
    fs::metadata(group.playground.cluster(number).log()).map_or(0, |file| file.len() as usize)
}

const ORIGINS_WITHOUT_DATABASE: &str = "SELECT count(*) FROM pg_replication_origin o
    WHERE roname LIKE 'postgres_r/%' AND NOT EXISTS (SELECT FROM pg_database d WHERE o.roname LIKE '%/' || d.oid)";

/// Replicates as many databases on the node as there are places, and lets them go again.
fn assert_all_places_are_free(group: &Group, number: NodeNumber, prefix: &str) {
    let names: Vec<String> = (1..PLACES).map(|index| format!("{prefix}_{index}")).collect();
    let databases: Vec<Database> = names.iter().map(|name| Database { group, name }).collect();
    for database in &databases {
        database.make(number);
        database.start(number).unwrap_or_else(|error| panic!("{}: {error:?}", database.name));
    }
    databases.into_iter().for_each(Database::end);
}

#[test]
fn dropping_a_replicated_database_is_refused_until_its_replication_is_stopped() {
    let group = harness::shared();
    let books = Database::replicated(&group, "dropped \"books\"");
    books.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let name = "\"dropped \"\"books\"\"\"";
    for statement in [
        format!("DROP DATABASE {name}"),
        format!("DROP DATABASE {name} WITH (FORCE)"),
        format!("DROP DATABASE IF EXISTS {name}"),
        format!("DROP DATABASE IF EXISTS {name} (FORCE)"),
    ] {
        let hint = format!("ALTER DATABASE {name} STOP REPLICATION");
        assert_refused(books.on_server(node(2), &statement), "55006", "it is replicated", &hint);
    }
    // PostgreSQL's own reasons come first.
    books.on_server(node(2), "CREATE ROLE stranger LOGIN CREATEDB").unwrap();
    let denied = books.on_server(node(2), &format!("SET ROLE stranger; DROP DATABASE {name}")).unwrap_err();
    assert_eq!(denied.code().unwrap().code(), "25001", "{denied:?}");
    let mut stranger = books.server(node(2));
    stranger.batch_execute("SET ROLE stranger").unwrap();
    assert_refused(stranger.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")), "42501", "must be owner", "");
    // Nothing has happened to it.
    books.execute(node(2), "INSERT INTO t VALUES (2)");
    books.arrives(node(3), "SELECT count(*) FROM t", "2");
    books.stop(node(2)).unwrap();
    books.on_server(node(2), &format!("DROP DATABASE {name} WITH (FORCE); ")).unwrap();
    books.on_server(node(2), "DROP ROLE stranger").unwrap();
    books.execute(node(1), "INSERT INTO t VALUES (3)");
    books.arrives(node(3), "SELECT count(*) FROM t", "3");
    books.end();
    assert_all_places_are_free(&group, node(2), "after_drop");
    assert_eq!(value(&mut group.connect(node(2)), ORIGINS_WITHOUT_DATABASE), "0");
}

#[test]
fn renaming_a_replicated_database_is_refused_by_name() {
    let group = harness::shared();
    let books = Database::replicated(&group, "renamed");
    let rename = "ALTER DATABASE renamed RENAME TO other";
    assert_refused(books.on_server(node(1), rename), "55006", "it is replicated", "ALTER DATABASE renamed STOP REPLICATION");
    books.on_server(node(1), "CREATE ROLE nobody_here").unwrap();
    let mut stranger = books.server(node(1));
    stranger.batch_execute("SET ROLE nobody_here").unwrap();
    assert_refused(stranger.batch_execute(rename), "42501", "must be owner", "");
    books.on_server(node(1), "DROP ROLE nobody_here").unwrap();
    books.stop(node(1)).unwrap();
    books.on_server(node(1), rename).unwrap();
    books.on_server(node(1), "ALTER DATABASE other RENAME TO renamed").unwrap();
    books.end();
}

#[test]
fn a_replicated_database_can_be_a_template_while_other_nodes_write() {
    let group = harness::shared();
    let books = Database::replicated(&group, "template");
    books.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (0)");
    books.arrives(node(2), "SELECT count(*) FROM t", "1");
    let over = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = books.connect(node(1));
            let mut written = 0;
            while !over.load(Ordering::SeqCst) {
                written += 1;
                client.batch_execute(&format!("INSERT INTO t VALUES ({written})")).unwrap();
            }
            written
        });
        for (index, more) in ["", " STRATEGY file_copy", " STRATEGY wal_log"].iter().enumerate() {
            let made = books.on_server(node(2), &format!("CREATE DATABASE copy_{index} TEMPLATE template{more}"));
            over.store(index == 2 || made.is_err(), Ordering::SeqCst);
            made.unwrap_or_else(|error| panic!("{error:?}"));
        }
        writer.join().unwrap()
    });
    // Whatever was committed on the node at that time is in the copy; it is an ordinary database.
    for name in ["copy_0", "copy_1", "copy_2"] {
        let copy = Database { group: &group, name };
        let dense = "SELECT count(*) > 0 AND count(*) = max(n) + 1 FROM t";
        assert_eq!(copy.value(node(2), dense), "true", "{name}");
        copy.execute(node(2), "INSERT INTO t VALUES (-1)");
        copy.on_server(node(2), &format!("DROP DATABASE {name}")).unwrap();
    }
    books.arrives(node(2), "SELECT count(*) FROM t", &(written + 1).to_string());
    books.execute(node(2), "INSERT INTO t VALUES (-2)");
    books.arrives(node(1), "SELECT count(*) FROM t", &(written + 2).to_string());

    // With a client in it PostgreSQL says what it says on any server, and counts that client only.
    let client = books.connect(node(2));
    let error = books.on_server(node(2), "CREATE DATABASE copy_3 TEMPLATE template").unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "55006");
    assert_eq!(error.detail(), Some("There is 1 other session using the database."), "{}", error.message());
    drop(client);
    books.execute(node(2), "INSERT INTO t VALUES (-3)");
    books.end();
}

#[test]
fn a_replicated_database_moves_to_another_tablespace() {
    let group = harness::shared();
    let books = Database::replicated(&group, "moved");
    books.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    let mut server = books.server(node(3));
    server.batch_execute("SET allow_in_place_tablespaces = on").unwrap();
    server.batch_execute("CREATE TABLESPACE elsewhere LOCATION ''").unwrap();
    books.arrives(node(3), "SELECT count(*) FROM t", "1");
    server.batch_execute("ALTER DATABASE moved SET TABLESPACE elsewhere").unwrap();
    books.execute(node(2), "INSERT INTO t VALUES (2)");
    books.arrives(node(3), "SELECT count(*) FROM t", "2");
    books.execute(node(3), "INSERT INTO t VALUES (3)");
    books.arrives(node(1), "SELECT count(*) FROM t", "3");
    server.batch_execute("ALTER DATABASE moved SET TABLESPACE pg_default").unwrap();
    server.batch_execute("DROP TABLESPACE elsewhere").unwrap();
    books.end();
}

/// What is said of who may connect, and who owns it, is said of clients.
#[test]
fn a_database_that_lets_no_client_in_goes_on_being_replicated() {
    let group = harness::shared();
    let books = Database::replicated(&group, "closed");
    books.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY)");
    books.arrives(node(2), "SELECT count(*) FROM t", "0");
    let from = log_length(&group, node(2));
    let mut server = books.server(node(2));
    for statement in [
        "CREATE ROLE keeper",
        "ALTER DATABASE closed OWNER TO keeper",
        "ALTER DATABASE closed CONNECTION LIMIT 0",
        "ALTER DATABASE closed SET default_transaction_read_only = on",
        "ALTER DATABASE closed ALLOW_CONNECTIONS false",
        "REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
        "ALTER DATABASE closed IS_TEMPLATE true",
    ] {
        server.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    let ours = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = 'closed'";
    assert_ne!(value(&mut server, ours), "0");
    books.execute(node(1), "INSERT INTO t VALUES (1)");
    let workers = "SELECT count(*) >= 5 FROM pg_stat_activity WHERE datname = 'closed' AND backend_type LIKE 'postgres_r%'";
    wait::until("its workers", NOTICED_WITHIN, || match value(&mut server, workers).as_str() {
        "true" => Ok(()),
        _ => Err("too few".to_owned()),
    });
    let log = log_since(&group, node(2), from);
    assert!(!log.contains("not currently accepting connections"), "{log}");
    for statement in [
        "ALTER DATABASE closed ALLOW_CONNECTIONS true",
        "ALTER DATABASE closed IS_TEMPLATE false",
        "ALTER DATABASE closed RESET default_transaction_read_only",
        "ALTER DATABASE closed OWNER TO postgres",
        "DROP ROLE keeper",
    ] {
        server.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    books.arrives(node(2), "SELECT count(*) FROM t", "1");
    books.end();
}

/// Ends the manager of a database that is gone, and looks what the launcher makes of it.
fn assert_its_place_is_freed(group: &Group, number: NodeNumber, name: &str, gone: &str) {
    let from = log_length(group, number);
    let mut server = group.playground.connect(number, "postgres").unwrap();
    server.batch_execute(&format!("SET allow_system_table_mods = on; {gone}")).unwrap();
    server
        .batch_execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'postgres_r manager'
                 AND datid NOT IN (SELECT oid FROM pg_database WHERE datconnlimit <> -2)",
        )
        .unwrap();
    wait::until("the origin to be gone", NOTICED_WITHIN, || {
        let left = ORIGINS_WITHOUT_DATABASE.replace("d.oid)", "d.oid AND d.datconnlimit <> -2)");
        match value(&mut server, &left).as_str() {
            "0" => Ok(()),
            left => Err(format!("{left} are left")),
        }
    });
    let log = log_since(group, number, from);
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!(said(&format!("database \"{name}\" does not exist any more")), 1, "{log}");
    assert_eq!(said("FATAL:  database"), 0, "{log}");
}

#[test]
fn a_database_that_vanishes_while_the_server_runs_frees_its_place() {
    let group = harness::shared();
    let lost = Database::replicated(&group, "lost");
    let broken = Database::replicated(&group, "broken");
    for database in [&lost, &broken] {
        database.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
        database.arrives(node(3), "SELECT count(*) FROM t", "1");
    }
    assert_its_place_is_freed(&group, node(3), "lost", "DELETE FROM pg_database WHERE datname = 'lost'");
    // What a DROP DATABASE leaves that was interrupted.
    let interrupted = "UPDATE pg_database SET datconnlimit = -2 WHERE datname = 'broken'";
    assert_its_place_is_freed(&group, node(3), "broken", interrupted);
    broken.on_server(node(3), "DROP DATABASE broken").unwrap();
    // The others go on, and this one comes back to them.
    lost.execute(node(2), "INSERT INTO t VALUES (2)");
    lost.arrives(node(1), "SELECT count(*) FROM t", "2");
    lost.make(node(3));
    lost.start(node(3)).unwrap();
    lost.arrives(node(3), "SELECT count(*) FROM t", "2");
    lost.end();
    broken.end();
    assert_all_places_are_free(&group, node(3), "after_loss");
    harness::assert_equal(&group);
}

#[test]
fn a_database_that_was_dropped_behind_our_back_leaves_no_origin() {
    let group = harness::shared();
    let books = Database::replicated(&group, "behind");
    let cluster = group.playground.cluster(node(2));
    cluster.stop().unwrap();
    let file = cluster.data().join("postgresql.conf");
    let before = fs::read_to_string(&file).unwrap();
    fs::OpenOptions::new().append(true).open(&file).unwrap().write_all(b"shared_preload_libraries = ''\n").unwrap();
    cluster.start().unwrap();
    books.on_server(node(2), "DROP DATABASE behind").unwrap();
    cluster.stop().unwrap();
    fs::write(&file, before).unwrap();
    let from = log_length(&group, node(2));
    group.start_node(node(2));
    assert_eq!(value(&mut group.connect(node(2)), ORIGINS_WITHOUT_DATABASE), "0");
    let log = log_since(&group, node(2), from);
    let said = |what: &str| log.lines().filter(|line| line.contains(what)).count();
    assert_eq!((said("replication origin"), said("FATAL:  database")), (1, 0), "{log}");
    books.end();
    harness::assert_equal(&group);
}
