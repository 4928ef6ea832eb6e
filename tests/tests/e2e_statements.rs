//! START and STOP REPLICATION as people type them, on a second database beside the group's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::Command;
use std::time::Duration;

use gcs::playground::group::quote_identifier;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::{self, Group, node, wait};

const START: &str = "ALTER DATABASE extra START REPLICATION IN GROUP postgresr";
const STOP: &str = "ALTER DATABASE extra STOP REPLICATION";

/// A new, empty database on every node, with the extension, not replicated. The group never forgets a database that it once ordered
/// writesets for: a new one of the same name would get the old one's rows. So only what stays empty uses a name twice.
fn make_database(group: &Group, name: &str) {
    for number in group.numbers() {
        let mut client = admin(group, number);
        let quoted = quote_identifier(name);
        client.batch_execute(&format!("DROP DATABASE IF EXISTS {quoted}")).unwrap();
        client.batch_execute(&format!("CREATE DATABASE {quoted}")).unwrap();
        connect(group, number, name).batch_execute("CREATE EXTENSION postgres_r").unwrap();
    }
}

fn admin(group: &Group, number: NodeNumber) -> Client {
    connect(group, number, "postgres")
}

fn connect(group: &Group, number: NodeNumber, database: &str) -> Client {
    group.playground.connect(number, database).unwrap()
}

/// Ends replication wherever it is on, and drops.
fn drop_database(group: &Group, name: &str) {
    let name = quote_identifier(name);
    for number in group.numbers() {
        let _ = admin(group, number).batch_execute(&format!("ALTER DATABASE {name} STOP REPLICATION"));
        let mut client = admin(group, number);
        wait::until("DROP DATABASE", Duration::from_secs(20), || {
            client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).map_err(|e| e.to_string())
        });
    }
}

/// The statement's error, which must have its own code and a hint.
fn refused(client: &mut Client, statement: &str) -> (String, String) {
    let error = match client.batch_execute(statement) {
        Ok(()) => panic!("{statement}: it was expected to fail"),
        Err(error) => error,
    };
    let error = error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}"));
    println!("{statement}\n  {} {} / {:?} / {:?}", error.code().code(), error.message(), error.detail(), error.hint());
    assert!(error.hint().is_some_and(|hint| hint.ends_with('.')), "{statement}: no hint: {}", error.message());
    (error.code().code().to_owned(), error.message().to_owned())
}

fn is_replicated(group: &Group, number: NodeNumber, database: &str) -> bool {
    let query = "SELECT count(*) FROM pg_replication_origin o, pg_database d
        WHERE d.datname = $1 AND o.roname LIKE 'postgres_r/%/' || d.oid";
    admin(group, number).query_one(query, &[&database]).unwrap().get::<_, i64>(0) == 1
}

fn assert_flows(group: &Group, database: &str) {
    let mut first = connect(group, node(1), database);
    first.batch_execute("CREATE TABLE IF NOT EXISTS flows (n bigint PRIMARY KEY)").unwrap();
    let insert = "INSERT INTO flows SELECT count(*) + 1 FROM flows RETURNING n";
    let n: i64 = first.query_one(insert, &[]).unwrap().get(0);
    for number in group.numbers() {
        wait::until("the row on every node", Duration::from_secs(20), || {
            let mut client = group.playground.connect(number, database).map_err(|error| error.to_string())?;
            let row = client.query_one("SELECT count(*) FROM flows", &[]).map_err(|error| error.to_string())?;
            if row.get::<_, i64>(0) == n { Ok(()) } else { Err("not yet".to_owned()) }
        });
    }
}

#[test]
fn the_statement_works_as_typed_in_any_case_and_spacing() {
    let group = harness::shared();
    make_database(&group, "extra");
    let pairs = [
        (START, STOP),
        ("alter database extra start replication in group postgresr;", "alter database extra stop replication;"),
        (
            "  ALTER\n\tDatabase  \"extra\"\n  Start   Replication IN Group \"postgresr\" Using GCS ;  ",
            " Alter Database\n\"extra\" Stop\tReplication ; ",
        ),
        ("ALTER DATABASE EXTRA START REPLICATION IN GROUP POSTGRESR USING gcs", "ALTER DATABASE Extra STOP REPLICATION"),
        ("SELECT postgres_r.start_replication('extra', 'postgresr')", "SELECT postgres_r.stop_replication('extra')"),
        (
            "SELECT postgres_r.start_replication(database => 'extra', group_name => 'postgresr')",
            "SELECT postgres_r.stop_replication(database => 'extra')",
        ),
    ];
    for (start, stop) in pairs {
        let mut client = connect(&group, node(1), "extra");
        client.batch_execute(start).unwrap_or_else(|error| panic!("{start}: {error:?}"));
        assert!(is_replicated(&group, node(1), "extra"), "{start}: it did nothing");
        client.batch_execute("SELECT 1").unwrap_or_else(|error| panic!("the session is broken after {start}: {error}"));
        client.batch_execute(stop).unwrap_or_else(|error| panic!("{stop}: {error:?}"));
        assert!(!is_replicated(&group, node(1), "extra"), "{stop}: it did nothing");
    }
    drop_database(&group, "extra");
}

#[test]
fn a_quoted_name_is_taken_as_it_is() {
    let group = harness::shared();
    make_database(&group, "My \"shop\"");
    let mut client = connect(&group, node(1), "My \"shop\"");
    client.batch_execute("ALTER DATABASE \"My \"\"shop\"\"\" START REPLICATION IN GROUP postgresr").unwrap();
    assert!(is_replicated(&group, node(1), "My \"shop\""));
    drop_database(&group, "My \"shop\"");
}

/// psql shows the command tag and ends with status 0, or the server's own error.
#[test]
fn psql_takes_the_statement() {
    let group = harness::shared();
    make_database(&group, "extra");
    let cluster = group.playground.cluster(node(2));
    let psql = |statement: &str| {
        let uri = cluster.uri("extra");
        Command::new(cluster.bin.join("psql")).args(["-X", "-v", "ON_ERROR_STOP=1", "-c", statement, &uri]).output().unwrap()
    };
    for statement in [START, STOP] {
        let output = psql(statement);
        assert!(output.status.success(), "{statement}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "ALTER DATABASE");
    }
    let output = psql("ALTER DATABASE extra START REPLICATION IN GROUP nobody");
    assert!(!output.status.success());
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(stderr.starts_with("ERROR:") && stderr.contains("HINT:"), "{stderr}");
    drop_database(&group, "extra");
}

/// pgbench -M extended speaks libpq's PQsendQueryParams.
#[test]
fn libpq_takes_the_statement_over_the_extended_protocol() {
    let group = harness::shared();
    make_database(&group, "extra");
    let cluster = group.playground.cluster(node(3));
    let script = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(script.path(), format!("{START};\n{STOP};\n{START};\n")).unwrap();
    let output = Command::new(cluster.bin.join("pgbench"))
        .args([
            "-n",
            "-M",
            "extended",
            "-t",
            "1",
            "-h",
            "127.0.0.1",
            "-U",
            "postgres",
            "-p",
            &cluster.port.to_string(),
            "-f",
        ])
        .arg(script.path())
        .arg("extra")
        .output()
        .unwrap();
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{stdout}{}", String::from_utf8_lossy(&output.stderr));
    assert!(stdout.contains("number of transactions actually processed: 1/1"), "{stdout}");
    assert!(is_replicated(&group, node(3), "extra"));
    drop_database(&group, "extra");
}

#[test]
fn each_thing_that_can_be_wrong_has_its_own_error_with_a_hint() {
    let group = harness::shared();
    make_database(&group, "extra");
    let mut client = connect(&group, node(1), "extra");
    let mut errors = vec![
        refused(&mut client, "ALTER DATABASE extra START REPLICATION IN GROUP nobody"),
        refused(&mut client, "ALTER DATABASE nowhere START REPLICATION IN GROUP postgresr"),
        refused(&mut client, STOP),
    ];
    assert_eq!(errors[1].0, "3D000");

    client.batch_execute("BEGIN").unwrap();
    errors.push(refused(&mut client, START));
    assert_eq!(errors[3].0, "25001");
    client.batch_execute("ROLLBACK").unwrap();

    let mut without = admin(&group, node(1));
    without.batch_execute("DROP DATABASE IF EXISTS bare").unwrap();
    without.batch_execute("CREATE DATABASE bare").unwrap();
    errors.push(refused(&mut without, "ALTER DATABASE bare START REPLICATION IN GROUP postgresr"));
    without.batch_execute("DROP DATABASE bare").unwrap();

    client.batch_execute(START).unwrap();
    errors.push(refused(&mut client, START));
    client.batch_execute(STOP).unwrap();

    group.kill(node(1), Part::Gcs);
    errors.push(refused(&mut client, START));
    group.start_node(node(1));

    let distinct: std::collections::BTreeSet<&String> = errors.iter().map(|(_, message)| message).collect();
    assert_eq!(distinct.len(), errors.len(), "two of these say the same: {errors:#?}");
    drop_database(&group, "extra");
}

/// Read now and run later: it must not run while it is read, nor be gone when it is to run.
#[test]
fn a_prepared_statement_starts_nothing_while_it_is_read() {
    let group = harness::shared();
    make_database(&group, "extra");
    let mut client = connect(&group, node(1), "extra");
    for (round, (options, argument)) in [("", ""), (" WITH (OVERWRITE)", ", overwrite => true")].into_iter().enumerate() {
        let error = client.prepare(&format!("{START}{options}")).err().unwrap();
        let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
        assert_eq!(error.code().code(), "0A000", "{}", error.message());
        let hint = error.hint().unwrap_or_default();
        assert!(hint.contains(&format!("postgres_r.start_replication('extra', 'postgresr'{argument})")), "{hint}");
        assert!(!is_replicated(&group, node(1), "extra"), "round {round}: it was started while it was read");
    }
    // What the hint says works, and STOP, which PostgreSQL can read, runs when it is executed.
    let start = client.prepare("SELECT postgres_r.start_replication('extra', 'postgresr')").unwrap();
    assert!(!is_replicated(&group, node(1), "extra"));
    client.query(&start, &[]).unwrap();
    let stop = client.prepare(STOP).unwrap();
    assert!(is_replicated(&group, node(1), "extra"), "it was stopped while it was read");
    client.execute(&stop, &[]).unwrap();
    assert!(!is_replicated(&group, node(1), "extra"));
    client.batch_execute("SELECT 1").unwrap();
    drop(client);
    drop_database(&group, "extra");
}

#[test]
fn a_statement_among_others_is_refused_and_nothing_is_half_done() {
    let group = harness::shared();
    make_database(&group, "extra");
    let mut client = connect(&group, node(1), "extra");
    client.batch_execute("CREATE TABLE written (n int)").unwrap();
    for text in [
        format!("INSERT INTO written VALUES (1); {START}"),
        format!("{START}; INSERT INTO written VALUES (1)"),
        format!("INSERT INTO written VALUES (1); {START} WITH (OVERWRITE)"),
        format!("INSERT INTO written VALUES (1); {STOP}"),
        format!("{STOP}; INSERT INTO written VALUES (1)"),
        format!("DO $$BEGIN INSERT INTO written VALUES (1); {STOP}; END$$"),
        format!("DO $$BEGIN EXECUTE '{STOP}'; END$$"),
    ] {
        let (code, message) = refused(&mut client, &text);
        assert!(code == "25001" && message.contains("among other statements"), "{text}: {code} {message}");
        assert!(!is_replicated(&group, node(1), "extra"));
        assert_eq!(client.query_one("SELECT count(*) FROM written", &[]).unwrap().get::<_, i64>(0), 0, "{text}");
    }
    drop(client);
    drop_database(&group, "extra");
}

#[test]
fn an_extension_that_is_there_is_not_made_again() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    for statement in ["CREATE EXTENSION IF NOT EXISTS postgres_r", "CREATE EXTENSION IF NOT EXISTS plpgsql"] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error:?}"));
    }
    for (statement, code) in
        [("CREATE EXTENSION postgres_r", "42710"), ("CREATE EXTENSION IF NOT EXISTS nobody_has_this", "0A000")]
    {
        let error = client.batch_execute(statement).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some(code), "{statement}: {error}");
    }
}

#[test]
fn only_superusers_and_the_owner_may() {
    let group = harness::shared();
    make_database(&group, "extra");
    let mut client = connect(&group, node(1), "extra");
    client.batch_execute("DROP ROLE IF EXISTS ana; DROP ROLE IF EXISTS bia; CREATE ROLE ana; CREATE ROLE bia").unwrap();
    client.batch_execute("ALTER DATABASE extra OWNER TO ana; SET SESSION AUTHORIZATION bia").unwrap();
    assert_eq!(refused(&mut client, START).0, "42501");
    client.batch_execute("RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION ana").unwrap();
    client.batch_execute(START).unwrap();
    assert!(is_replicated(&group, node(1), "extra"));
    client.batch_execute("RESET SESSION AUTHORIZATION; SET SESSION AUTHORIZATION bia").unwrap();
    assert_eq!(refused(&mut client, STOP).0, "42501");
    client.batch_execute("RESET SESSION AUTHORIZATION").unwrap();
    drop(client);
    drop_database(&group, "extra");
    admin(&group, node(1)).batch_execute("DROP ROLE ana; DROP ROLE bia").unwrap();
}

#[test]
fn what_is_no_such_statement_stays_a_syntax_error() {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    for statement in [
        "ALTER DATABASE shop START REPLICATION",
        "ALTER DATABASE shop START REPLICATION IN GROUP",
        "ALTER DATABASE shop START REPLICATION IN GROUP a b",
        "ALTER DATABASE shop START REPLICATION IN GROUP g USING raft",
        "ALTER DATABASE shop STOP REPLICATION NOW",
        "ALTER TABLE shop START REPLICATION IN GROUP g",
        "ALTER DATABASE shop START REPLICATION IN GROUP g WITH OVERWRITE",
        "SELEC 1",
    ] {
        let error = client.batch_execute(statement).unwrap_err();
        assert_eq!(error.code().map(|code| code.code()), Some("42601"), "{statement}: {error}");
    }
    for (options, message) in [
        ("FORCE", "unrecognized START REPLICATION option \"force\""),
        ("overwrite = on, OVERWRITE", "START REPLICATION option \"overwrite\" is given more than once"),
        ("overwrite = perhaps", "START REPLICATION option \"overwrite\" requires a Boolean value"),
    ] {
        let statement = format!("ALTER DATABASE shop START REPLICATION IN GROUP g WITH ({options})");
        for text in [statement.clone(), format!("SELECT 1; {statement}")] {
            assert_eq!(refused(&mut client, &text), ("42601".to_owned(), message.to_owned()), "{text}");
        }
    }
    client.batch_execute("SELECT 1").unwrap();
}

#[test]
fn replication_of_a_second_database_survives_restarts_of_either_side() {
    let group = harness::shared();
    make_database(&group, "second");
    for number in group.numbers() {
        connect(&group, number, "second")
            .batch_execute("ALTER DATABASE second START REPLICATION IN GROUP postgresr")
            .unwrap();
    }
    assert_flows(&group, "second");
    for part in [Part::Gcs, Part::Postgres, Part::Both] {
        group.kill(node(2), part);
        group.start_node(node(2));
        assert_flows(&group, "second");
    }
    drop_database(&group, "second");
}
