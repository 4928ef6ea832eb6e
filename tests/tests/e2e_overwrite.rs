//! START REPLICATION ... WITH (OVERWRITE): the group's contents take the place of those that a database has, which are kept under another name.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::group::describe;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::database::{Database, value};
use postgres_r_tests::harness::{Group, node, wait};

const COPIED_WITHIN: Duration = Duration::from_secs(120);

/// What the group has.
const GROUPS: &str = "
    CREATE TABLE item (id bigserial PRIMARY KEY, name text);
    INSERT INTO item (name) SELECT 'item ' || n FROM generate_series(1, 1000) n;
    CREATE TABLE written (n int PRIMARY KEY)";

/// What a node has of its own: a table of the same name among it, which means something else.
const OWN: &str = "
    CREATE ROLE owner_of_old LOGIN PASSWORD 'secret';
    CREATE TABLE item (id int, colour text); INSERT INTO item VALUES (7, 'blue');
    CREATE TABLE old (n int PRIMARY KEY); INSERT INTO old SELECT generate_series(1, 50);
    ALTER TABLE old OWNER TO owner_of_old";

const CONTENTS: &str = "concat_ws('|',
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM item t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM written t),
    (SELECT string_agg(concat_ws(' ', relname, relkind, relowner::regrole), ',' ORDER BY relname)
     FROM pg_class WHERE relnamespace = 'public'::regnamespace))";

const OLD: &str = "SELECT concat_ws('|', (SELECT count(*) FROM old), (SELECT max(colour) FROM item),
                                         (SELECT relowner::regrole FROM pg_class WHERE relname = 'old'))";

fn overwrite(database: &Database<'_>, number: NodeNumber) -> Result<(), postgres::Error> {
    let Database { name, group } = database;
    let group = &group.playground.manifest.group;
    database.on_server(number, &format!("ALTER DATABASE {name} START REPLICATION IN GROUP {group} WITH (OVERWRITE)"))
}

/// SQLSTATE, message and hint.
fn refusal(result: Result<(), postgres::Error>) -> (String, String) {
    let error = result.expect_err("it was not refused");
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error:?}"));
    (error.code().code().to_owned(), format!("{} {}", error.message(), error.hint().unwrap_or_default()))
}

fn made<'a>(group: &'a Group, name: &'a str) -> Database<'a> {
    let database = Database { group, name };
    for number in group.numbers() {
        database.make(number);
    }
    database.execute(node(1), GROUPS);
    database
}

/// Another database of the node's server.
fn other(database: &Database<'_>, number: NodeNumber, name: &str) -> Client {
    database.group.playground.connect(number, name).unwrap_or_else(|error| panic!("{name}: {}", describe(&error)))
}

/// Databases of the node that are named after this one.
fn kin(database: &Database<'_>, number: NodeNumber) -> String {
    let query =
        format!("SELECT string_agg(datname, ' ' ORDER BY datname) FROM pg_database WHERE datname ~ '^{}_'", database.name);
    value(&mut database.server(number), &query)
}

/// Waits until these are the databases that are named after this one.
fn are_named(database: &Database<'_>, number: NodeNumber, wanted: &str) {
    wait::until(&format!("databases {wanted} on node {}", number.0), COPIED_WITHIN, || match kin(database, number) {
        found if found == wanted => Ok(()),
        found => Err(found),
    });
}

fn await_copy(database: &Database<'_>, number: NodeNumber) {
    wait::until(&format!("the copy on node {}", number.0), COPIED_WITHIN, || {
        let mut client = database.try_connect(number).map_err(|error| describe(&error))?;
        client.query_one("SELECT count(*) FROM written", &[]).map(drop).map_err(|error| describe(&error))
    });
}

fn assert_equal(database: &Database<'_>, number: NodeNumber) {
    database.arrives(number, CONTENTS, &database.value(node(1), CONTENTS));
}

/// What node 2 had of its own.
fn is_kept_as_an_ordinary_database(database: &Database<'_>) {
    assert_eq!(kin(database, node(2)), "taken_before");
    let mut before = other(database, node(2), "taken_before");
    assert_eq!(value(&mut before, OLD), "50|blue|owner_of_old");
    before.batch_execute("INSERT INTO old VALUES (52); CREATE TABLE later ()").unwrap();
    assert_eq!(value(&mut before, "SELECT count(*) FROM postgres_r.overwriting WHERE group_name = 'postgresr'"), "1");
    let origins = "SELECT count(*) FROM pg_replication_origin WHERE roname = 'postgres_r/postgresr/' ||
                   (SELECT oid FROM pg_database WHERE datname = current_database())";
    assert_eq!(value(&mut before, origins), "0");
    let may_log_in = "SELECT rolcanlogin AND rolpassword LIKE 'SCRAM%' FROM pg_authid WHERE rolname = 'owner_of_old'";
    assert_eq!(value(&mut before, may_log_in), "true");
}

/// By the function. Nothing that was kept before is lost.
fn is_overwritten_again(database: &Database<'_>) {
    database.execute(node(2), "INSERT INTO item (name) VALUES ('of the group')");
    database.stop(node(2)).unwrap();
    database.execute(node(2), "CREATE TABLE second (n int); INSERT INTO written VALUES (-1)");
    let again = "SELECT postgres_r.start_replication('taken', 'postgresr', overwrite => true)";
    // From another database: this one's sessions are ended.
    other(database, node(2), "shop").execute(again, &[]).unwrap();
    await_copy(database, node(2));
    assert_equal(database, node(2));
    assert_eq!(database.value(node(2), "SELECT min(n) FROM written"), "1");
    assert_eq!(kin(database, node(2)), "taken_before taken_before_2");
    assert_eq!(value(&mut other(database, node(2), "taken_before"), "SELECT max(n) FROM old"), "52");
    assert_eq!(value(&mut other(database, node(2), "taken_before_2"), "SELECT min(n) FROM written"), "-1");
}

#[test]
fn a_database_that_is_in_use_gets_the_groups_contents_and_its_own_are_kept() {
    let group = Group::start();
    let database = made(&group, "taken");
    database.execute(node(2), OWN);

    // The group has nothing to overwrite it with: the database is as before, and the group has let it go.
    let (code, said) = refusal(overwrite(&database, node(2)));
    assert!(code == "55000" && said.contains("has no contents") && said.contains("without the option"), "{code} {said}");
    assert_eq!(database.value(node(2), OLD), "50|blue|owner_of_old");
    database.start(node(1)).unwrap();

    let (code, said) = refusal(database.start(node(2)));
    assert!(code == "55000" && said.contains("is not empty") && said.contains("WITH (OVERWRITE)"), "{code} {said}");

    let mut user = database.connect(node(2));
    user.batch_execute("BEGIN; INSERT INTO old VALUES (51)").unwrap();
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| {
            let mut client = database.connect(node(1));
            (1..)
                .take_while(|n| {
                    client.execute("INSERT INTO written VALUES ($1)", &[n]).unwrap();
                    !stop.load(Ordering::SeqCst)
                })
                .count()
        });
        overwrite(&database, node(2)).unwrap();
        assert!(database.try_connect(node(2)).is_err(), "what is written now would be lost to the group");
        await_copy(&database, node(2));
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    assert!(user.batch_execute("COMMIT").is_err(), "its session ended when the group had taken the database");
    let count = "SELECT count(*) FROM written";
    assert_eq!(database.value(node(1), count), (written + 1).to_string());
    assert_equal(&database, node(2));

    is_kept_as_an_ordinary_database(&database);
    is_overwritten_again(&database);

    // An empty one is filled as without the option, and is not kept.
    overwrite(&database, node(3)).unwrap();
    await_copy(&database, node(3));
    database.execute(node(3), "INSERT INTO item (name) VALUES ('of the third')");
    assert_equal(&database, node(2));
    assert_equal(&database, node(3));
    are_named(&database, node(3), "NULL");
}

#[test]
fn an_overwrite_that_is_broken_off_goes_on_and_nothing_of_what_was_there_is_lost() {
    let group = Group::start();
    let database = made(&group, "torn");
    database.start(node(1)).unwrap();
    database.execute(node(2), OWN);
    database.execute(node(3), OWN);
    // pg_dump waits for this lock.
    let mut holder = database.connect(node(1));
    holder.batch_execute("BEGIN; LOCK TABLE item").unwrap();
    for number in [node(2), node(3)] {
        overwrite(&database, number).unwrap();
        are_named(&database, number, "torn_incoming");
    }
    // The daemon, then all of the node: the server has to know by itself what is to become of the database.
    // It is not online before it has its copy.
    group.kill(node(2), Part::Gcs);
    group.playground.daemon(node(2)).start().unwrap();
    are_named(&database, node(2), "torn_incoming");
    group.kill(node(2), Part::Both);
    group.playground.daemon(node(2)).start().unwrap();
    group.playground.cluster(node(2)).start().unwrap();
    are_named(&database, node(2), "torn_incoming");
    let error = database.try_connect(node(2)).err().unwrap();
    assert_eq!(error.code().map(|code| code.code()), Some("57P03"), "{error:?}");

    // Whoever does not want it any more has the database as it was.
    database.stop(node(3)).unwrap();
    assert_eq!(database.value(node(3), OLD), "50|blue|owner_of_old");
    database.execute(node(3), "INSERT INTO old VALUES (51)");

    holder.batch_execute("ROLLBACK").unwrap();
    await_copy(&database, node(2));
    assert_equal(&database, node(2));
    are_named(&database, node(2), "torn_before");
    assert_eq!(value(&mut other(&database, node(2), "torn_before"), OLD), "50|blue|owner_of_old");
    are_named(&database, node(3), "NULL");
    assert_eq!(database.value(node(3), OLD), "51|blue|owner_of_old");
}
