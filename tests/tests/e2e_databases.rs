//! CREATE and DROP DATABASE in the group, with postgres_r.replicate_databases: on one node, and then on all; or on none.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use gcs::playground::group::describe;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::database::{Database, value};
use postgres_r_tests::harness::{self, Group, node, wait};

const WITHIN: Duration = Duration::from_secs(30);

/// A session in the group's first database with the setting on.
fn session(group: &Group, number: NodeNumber) -> Client {
    let mut client = group.connect(number);
    client.batch_execute("SET postgres_r.replicate_databases = on").unwrap();
    client
}

fn run(group: &Group, number: NodeNumber, statement: &str) {
    let done = session(group, number).batch_execute(statement);
    done.unwrap_or_else(|error| panic!("node {}: {statement}: {}", number.0, describe(&error)));
}

/// The code, and message, detail and hint together.
fn refused(client: &mut Client, statement: &str) -> (String, String) {
    let error = client.batch_execute(statement).expect_err(statement);
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}")).clone();
    let said = [Some(error.message()), error.detail(), error.hint()];
    (error.code().code().to_owned(), said.into_iter().flatten().collect::<Vec<_>>().join(" | "))
}

fn assert_refused(client: &mut Client, statement: &str, code: &str, says: &[&str]) {
    let (found, said) = refused(client, statement);
    assert!(found == code && says.iter().all(|part| said.contains(part)), "{statement}: {found} {said}");
}

/// How many databases of this name, finished or not, the server has.
fn count(group: &Group, number: NodeNumber, name: &str) -> String {
    let mut server = group.playground.connect(number, "postgres").unwrap();
    value(&mut server, &format!("SELECT count(*) FROM pg_database WHERE datname = '{name}'"))
}

fn becomes_gone(group: &Group, name: &str) {
    for number in group.numbers() {
        wait::until(&format!("{name} to be gone from node {}", number.0), WITHIN, || match count(group, number, name) {
            found if found == "0" => Ok(()),
            found => Err(found),
        });
    }
}

/// Nothing is under way any more, and nothing is left of what was broken off.
fn assert_clean(group: &Group) {
    let left = "SELECT count(*) FROM pg_database WHERE datname LIKE 'postgres_r_making_%'
                OR shobj_description(oid, 'pg_database') SIMILAR TO 'postgres_r (makes|drops) this database%'";
    for number in group.numbers() {
        wait::until(&format!("node {} to be done", number.0), WITHIN, || {
            let mut server = group.playground.connect(number, "postgres").map_err(|error| error.to_string())?;
            match value(&mut server, left).as_str() {
                "0" => Ok(()),
                left => Err(format!("{left} databases are half done")),
            }
        });
    }
}

/// Rows of each node reach all others.
fn assert_replicated(group: &Group, name: &str) {
    let database = Database { group, name };
    let tables = "SELECT count(*) FROM pg_tables WHERE tablename = 'of_all'";
    for number in group.numbers() {
        database.arrives(number, "SELECT postgres_r.committed_position() IS NOT NULL", "true");
    }
    database.execute(node(1), "CREATE TABLE of_all (n int PRIMARY KEY)");
    for number in group.numbers() {
        database.arrives(number, tables, "1");
        database.execute(number, &format!("INSERT INTO of_all VALUES ({})", number.0));
    }
    for number in group.numbers() {
        database.arrives(number, "SELECT count(*) FROM of_all", &group.numbers().len().to_string());
    }
    database.execute(node(1), "DROP TABLE of_all");
}

#[test]
fn create_database_makes_it_on_every_node_and_drop_takes_it_from_all() {
    let group = harness::shared();
    for round in 1..=2 {
        let mut client = session(&group, node(1 + round % 2));
        client.batch_execute("CREATE DATABASE test_db").unwrap_or_else(|error| panic!("{}", describe(&error)));
        let own = Database { group: &group, name: "test_db" };
        own.execute(node(1 + round % 2), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
        for number in group.numbers() {
            own.arrives(number, "SELECT count(*) FROM t", "1");
        }
        assert_replicated(&group, "test_db");
        assert_refused(&mut client, "CREATE DATABASE test_db", "42P04", &["database \"test_db\" already exists"]);
        client.batch_execute("DROP DATABASE test_db").unwrap_or_else(|error| panic!("{}", describe(&error)));
        assert_eq!(count(&group, node(1 + round % 2), "test_db"), "0");
        becomes_gone(&group, "test_db");
        assert_refused(&mut client, "DROP DATABASE test_db", "3D000", &["does not exist"]);
        client.batch_execute("DROP DATABASE IF EXISTS test_db").unwrap();
    }
    // As a test suite does: other nodes may not have dropped the last one when the next is asked for.
    for round in 1..=6 {
        run(&group, node(1 + round % 3), "CREATE DATABASE test_db");
        run(&group, node(1 + round % 3), "DROP DATABASE test_db");
    }
    becomes_gone(&group, "test_db");
    assert_clean(&group);
    harness::assert_equal(&group);
}

#[test]
fn what_a_statement_leaves_to_defaults_is_the_origins_on_every_node() {
    let group = harness::shared();
    group.execute(node(1), "CREATE ROLE \"the owner\" CREATEDB");
    group.settle();
    // The default of a server is its own.
    let mut server = group.playground.connect(node(2), "postgres").unwrap();
    server.batch_execute("ALTER DATABASE template1 CONNECTION LIMIT 7").unwrap();
    run(
        &group,
        node(2),
        "CREATE DATABASE \"Odd \"\" name\" OWNER \"the owner\" TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'
         CONNECTION LIMIT 3 STRATEGY file_copy",
    );
    run(&group, node(2), "CREATE DATABASE plain");
    let shown = |name: &str| {
        format!(
            "SELECT concat_ws(' ', pg_get_userbyid(datdba), pg_encoding_to_char(encoding), datlocprovider, datcollate, datctype, datconnlimit,
                              datallowconn, datistemplate, shobj_description(oid, 'pg_database')) FROM pg_database WHERE datname = '{name}'"
        )
    };
    for (name, wanted) in
        [("Odd \" name", "the owner LATIN1 c C C 3 t f"), ("plain", "postgres UTF8 c C.UTF-8 C.UTF-8 -1 t f")]
    {
        let database = Database { group: &group, name };
        for number in group.numbers() {
            database.arrives(number, "SELECT postgres_r.committed_position() IS NOT NULL", "true");
        }
        assert_clean(&group);
        for number in group.numbers() {
            let found = value(&mut group.playground.connect(number, "postgres").unwrap(), &shown(name));
            assert_eq!(found, wanted, "node {}", number.0);
        }
        assert_replicated(&group, name);
    }
    run(&group, node(3), "DROP DATABASE \"Odd \"\" name\"");
    run(&group, node(3), "DROP DATABASE plain");
    server.batch_execute("ALTER DATABASE template1 CONNECTION LIMIT -1").unwrap();
    becomes_gone(&group, "plain");
    becomes_gone(&group, "Odd \" name");
    group.execute(node(1), "DROP ROLE \"the owner\"");
    assert_clean(&group);
}

#[test]
fn what_the_template_of_the_origin_holds_comes_to_every_node() {
    let group = harness::shared();
    for (number, what) in [(1, "of node one"), (2, "of node two")] {
        let mut template = group.playground.connect(node(number), "template1").unwrap();
        template
            .batch_execute(&format!(
                "CREATE TABLE brought (t text PRIMARY KEY); INSERT INTO brought VALUES ('{what}');
                 CREATE FUNCTION tell() RETURNS text LANGUAGE sql AS $$ SELECT '{what}'::text $$"
            ))
            .unwrap();
    }
    run(&group, node(1), "CREATE DATABASE with_contents");
    let own = Database { group: &group, name: "with_contents" };
    for number in group.numbers() {
        own.arrives(number, "SELECT t || ', ' || tell() FROM brought", "of node one, of node one");
    }
    own.execute(node(2), "INSERT INTO brought VALUES ('later')");
    own.arrives(node(3), "SELECT count(*) FROM brought", "2");
    run(&group, node(2), "DROP DATABASE with_contents");
    becomes_gone(&group, "with_contents");
    for number in [1, 2] {
        let mut template = group.playground.connect(node(number), "template1").unwrap();
        template.batch_execute("DROP TABLE brought; DROP FUNCTION tell()").unwrap();
    }
    assert_clean(&group);
}

#[test]
fn what_one_node_cannot_make_no_node_makes() {
    let group = harness::shared();
    let here = Database { group: &group, name: "only_here" };
    here.on_server(node(3), "CREATE DATABASE only_here").unwrap();
    here.on_server(node(3), "CREATE ROLE only_here").unwrap();
    let mut client = session(&group, node(1));
    assert_refused(&mut client, "CREATE DATABASE only_here", "42P04", &["node3", "already exists"]);
    // PostgreSQL's own words, and in its order.
    assert_refused(
        &mut client,
        "CREATE DATABASE other OWNER nobody_at_all",
        "42704",
        &["role \"nobody_at_all\" does not exist"],
    );
    assert_refused(
        &mut client,
        "CREATE DATABASE other TEMPLATE nothing",
        "3D000",
        &["template database \"nothing\" does not exist"],
    );
    assert_refused(&mut client, "BEGIN; CREATE DATABASE other", "25001", &["transaction block"]);
    client.batch_execute("ROLLBACK").unwrap();
    let template = group.playground.connect(node(1), "template1").unwrap();
    assert_refused(&mut client, "CREATE DATABASE other", "55006", &["is being accessed by other users"]);
    drop(template);
    // A role that one node has not got.
    here.on_server(node(1), "CREATE ROLE here_alone").unwrap();
    assert_refused(&mut client, "CREATE DATABASE other OWNER here_alone", "42704", &["node", "here_alone"]);
    // What PostgreSQL had made here goes in a moment.
    assert_clean(&group);
    here.on_server(node(1), "DROP ROLE here_alone").unwrap();
    here.on_server(node(3), "DROP ROLE only_here").unwrap();
    assert_clean(&group);
    for number in group.numbers() {
        assert_eq!(count(&group, number, "other"), "0");
        assert_eq!(count(&group, number, "only_here"), if number == node(3) { "1" } else { "0" });
    }
    // The statement by its own rights.
    group.execute(node(1), "CREATE ROLE plain_user");
    group.settle();
    client.batch_execute("SET ROLE plain_user").unwrap();
    assert_refused(&mut client, "CREATE DATABASE other", "42501", &["permission denied"]);
    client.batch_execute("RESET ROLE; DROP ROLE plain_user").unwrap();
    here.on_server(node(3), "DROP DATABASE only_here").unwrap();
    client.batch_execute("CREATE DATABASE only_here").unwrap();
    assert_replicated(&group, "only_here");
    client.batch_execute("DROP DATABASE only_here").unwrap();
    becomes_gone(&group, "only_here");
    harness::assert_equal(&group);
}

#[test]
fn it_is_taken_in_the_first_database_and_nowhere_else() {
    let group = harness::shared();
    run(&group, node(1), "CREATE DATABASE second");
    let own = Database { group: &group, name: "second" };
    own.arrives(node(2), "SELECT postgres_r.committed_position() IS NOT NULL", "true");
    let first = group.database().to_owned();
    let mut outside = own.server(node(2));
    let mut inside = own.connect(node(2));
    for client in [&mut outside, &mut inside] {
        client.batch_execute("SET postgres_r.replicate_databases = on").unwrap();
        assert_refused(client, "CREATE DATABASE third", "0A000", &[&format!("Run it in database \"{first}\"")]);
    }
    assert_refused(&mut outside, "DROP DATABASE second", "0A000", &[&format!("Run it in database \"{first}\"")]);
    for statement in [
        "ALTER DATABASE second CONNECTION LIMIT 5",
        "ALTER DATABASE second OWNER TO postgres",
        "ALTER DATABASE second SET work_mem = '1MB'",
        "GRANT CONNECT ON DATABASE second TO PUBLIC",
        "COMMENT ON DATABASE second IS 'said'",
    ] {
        assert_refused(&mut outside, statement, "0A000", &["Run it in database \"second\""]);
        assert_refused(&mut session(&group, node(1)), statement, "0A000", &["Run it in database \"second\""]);
    }
    inside.batch_execute("ALTER DATABASE second CONNECTION LIMIT 5").unwrap();
    let limit = "SELECT datconnlimit FROM pg_database WHERE datname = 'second'";
    own.arrives(node(3), limit, "5");
    assert_refused(&mut session(&group, node(1)), "ALTER DATABASE second RENAME TO third", "55006", &["it is replicated"]);
    // With the setting off all is as it was: of one server.
    drop(inside);
    own.on_server(node(2), "CREATE DATABASE third").unwrap();
    assert_eq!(count(&group, node(1), "third"), "0");
    own.on_server(node(2), "DROP DATABASE third").unwrap();
    run(&group, node(2), "DROP DATABASE second");
    becomes_gone(&group, "second");
    assert_clean(&group);
}

#[test]
fn a_session_on_another_node_keeps_it_from_being_dropped_but_not_by_force() {
    let group = harness::shared();
    run(&group, node(1), "CREATE DATABASE in_use");
    let own = Database { group: &group, name: "in_use" };
    own.arrives(node(3), "SELECT postgres_r.committed_position() IS NOT NULL", "true");
    let mut there = own.connect(node(3));
    let mut client = session(&group, node(1));
    assert_refused(&mut client, "DROP DATABASE in_use", "55006", &["node3", "is being accessed by other users"]);
    let here = own.connect(node(1));
    assert_refused(&mut client, "DROP DATABASE in_use", "55006", &["is being accessed by other users"]);
    drop(here);
    there.batch_execute("CREATE TABLE still (n int)").unwrap();
    own.arrives(node(1), "SELECT count(*) FROM pg_tables WHERE tablename = 'still'", "1");
    client.batch_execute("DROP DATABASE in_use WITH (FORCE)").unwrap_or_else(|error| panic!("{}", describe(&error)));
    becomes_gone(&group, "in_use");
    wait::until("the session to be ended", WITHIN, || {
        there.batch_execute("SELECT 1").map_or_else(|_| Ok(()), |()| Err("it lives".to_owned()))
    });
    // A database whose replication somebody has started by hand goes as well.
    let by_hand = Database::replicated(&group, "by_hand");
    client.batch_execute("DROP DATABASE by_hand").unwrap_or_else(|error| panic!("{}", describe(&error)));
    becomes_gone(&group, by_hand.name);
    assert_clean(&group);
    harness::assert_equal(&group);
}

#[test]
fn a_node_that_was_down_makes_and_drops_it_when_it_is_back() {
    let group = harness::shared();
    run(&group, node(1), "CREATE DATABASE old");
    let old = Database { group: &group, name: "old" };
    old.arrives(node(3), "SELECT postgres_r.committed_position() IS NOT NULL", "true");
    group.kill(node(3), Part::Both);
    run(&group, node(1), "DROP DATABASE old");
    run(&group, node(2), "CREATE DATABASE young");
    let young = Database { group: &group, name: "young" };
    young.execute(node(2), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
    young.arrives(node(1), "SELECT count(*) FROM t", "1");
    // The group still counts on node 3 for the old one.
    let mut client = session(&group, node(1));
    assert_refused(&mut client, "CREATE DATABASE old", "55000", &["could not be made", "No node has it"]);
    assert_eq!(count(&group, node(1), "old"), "0");
    group.start_node(node(3));
    young.arrives(node(3), "SELECT count(*) FROM t", "1");
    becomes_gone(&group, "old");
    assert_clean(&group);
    run(&group, node(3), "CREATE DATABASE old");
    assert_replicated(&group, "old");
    run(&group, node(1), "DROP DATABASE old");
    run(&group, node(1), "DROP DATABASE young");
    becomes_gone(&group, "young");
    becomes_gone(&group, "old");
    harness::assert_equal(&group);
}

#[test]
fn of_two_nodes_that_make_one_name_at_once_one_does() {
    let group = harness::shared();
    for round in 0..3 {
        let outcomes: Vec<Result<(), String>> = thread::scope(|scope| {
            let make = |number: usize| {
                let mut client = session(&group, node(number));
                move || {
                    let code = |error: postgres::Error| error.code().map(|code| code.code().to_owned()).unwrap_or_default();
                    client.batch_execute("CREATE DATABASE fought_over").map_err(code)
                }
            };
            let runners: Vec<_> = [1, 2, 3].map(|number| scope.spawn(make(number))).into_iter().collect();
            runners.into_iter().map(|runner| runner.join().unwrap()).collect()
        });
        let made = outcomes.iter().filter(|outcome| outcome.is_ok()).count();
        let is_told =
            |outcome: &Result<(), String>| outcome.as_ref().err().is_none_or(|code| code == "42P04" || code == "40001");
        assert!(made == 1 && outcomes.iter().all(is_told), "round {round}: {outcomes:?}");
        assert_replicated(&group, "fought_over");
        // One drops it while the others make it anew: whichever way it goes, all nodes agree.
        let (dropped, made) = thread::scope(|scope| {
            let mut one = session(&group, node(1));
            let mut other = session(&group, node(2));
            let dropper = scope.spawn(move || one.batch_execute("DROP DATABASE fought_over").is_ok());
            let maker = scope.spawn(move || other.batch_execute("CREATE DATABASE fought_over").is_ok());
            (dropper.join().unwrap(), maker.join().unwrap())
        });
        assert!(dropped, "round {round}");
        assert_clean(&group);
        group.settle();
        if made {
            assert_replicated(&group, "fought_over");
            run(&group, node(3), "DROP DATABASE fought_over");
        }
        becomes_gone(&group, "fought_over");
    }
    assert_clean(&group);
    harness::assert_equal(&group);
}

/// A server dies somewhere between the order and the end, the origin's or another; it goes on from there.
#[test]
fn a_node_that_dies_while_it_makes_or_drops_one_goes_on_when_it_is_back() {
    let group = harness::shared();
    // All of them in a campaign.
    let step = if harness::workload_seconds() < Duration::from_secs(60) { 3 } else { 1 };
    for (round, delay_ms) in [0, 40, 80, 120, 200, 300, 400, 600].into_iter().step_by(step).enumerate() {
        let [origin, other, survivor] = [0, 1, 2].map(|offset| node(1 + (round + offset) % 3));
        let victim = if round % 2 == 0 { origin } else { other };
        let killed_during = |statement: &'static str| {
            let mut client = session(&group, origin);
            let runner = thread::spawn(move || client.batch_execute(statement).is_ok());
            thread::sleep(Duration::from_millis(delay_ms));
            group.kill(victim, Part::Postgres);
            let is_done = runner.join().unwrap();
            group.start_node(victim);
            group.settle();
            is_done
        };
        let state = || {
            let state = "SELECT coalesce(max(state), 'none') FROM postgres_r.databases WHERE name = 'cut_short'";
            group.value(survivor, state)
        };
        let made = killed_during("CREATE DATABASE cut_short");
        wait::until("its end", WITHIN, || match state() {
            found if found == "making" => Err(found),
            _ => Ok(()),
        });
        assert_clean(&group);
        assert!(!made || state() == "ready", "round {round}: {}", state());
        if state() == "ready" {
            assert_replicated(&group, "cut_short");
            let dropped = killed_during("DROP DATABASE cut_short");
            assert!(!dropped || state() == "dropped", "round {round}: {}", state());
            if state() == "ready" {
                run(&group, survivor, "DROP DATABASE cut_short WITH (FORCE)");
            }
        }
        becomes_gone(&group, "cut_short");
        assert_clean(&group);
    }
    harness::assert_equal(&group);
}

/// By the group's log or a copy of each database, and by a copy of another's whole server.
#[test]
fn a_node_that_joins_later_has_it_too() {
    for is_physical in [false, true] {
        let mut group = Group::start_nodes(2);
        run(&group, node(1), "CREATE DATABASE earlier");
        let earlier = Database { group: &group, name: "earlier" };
        earlier.execute(node(1), "CREATE TABLE t (n int PRIMARY KEY); INSERT INTO t VALUES (1)");
        earlier.arrives(node(2), "SELECT count(*) FROM t", "1");
        let added = if is_physical { group.add_node_with_server() } else { group.add_node() };
        added.unwrap();
        group.reload();
        let earlier = Database { group: &group, name: "earlier" };
        earlier.arrives(node(3), "SELECT count(*) FROM t", "1");
        assert_replicated(&group, "earlier");
        run(&group, node(3), "CREATE DATABASE later");
        assert_replicated(&group, "later");
        run(&group, node(2), "DROP DATABASE earlier");
        run(&group, node(1), "DROP DATABASE later");
        becomes_gone(&group, "earlier");
        becomes_gone(&group, "later");
        assert_clean(&group);
    }
}
