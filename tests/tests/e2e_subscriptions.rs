//! Subscriptions of a group to a publisher that is an ordinary server: one node carries each, and another takes it over. Whatever happens to the carrier, each
//! transaction of the publisher is there once, on every node.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::account::Account;
use gcs::playground::cluster::Cluster;
use gcs::playground::process::{Process, Signal};
use gcs::playground::{NodeNumber, Part};
use postgres::{Client, NoTls};
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::{self, Group, everywhere, node, ports, wait};

/// A carrier that is away is given 10 s, and PostgreSQL starts a worker again after 5 s.
const PATIENCE: Duration = Duration::from_secs(90);

const DIGEST: &str = "SELECT count(*) || ' ' || coalesce(md5(string_agg(t::text, ',' ORDER BY id)), '') FROM";

/// An ordinary server whose tables are published.
struct Publisher {
    cluster: Cluster,
    _directory: tempfile::TempDir,
}

impl Publisher {
    fn start() -> Publisher {
        let directory = tempfile::tempdir().unwrap();
        let account = Account::choose().unwrap();
        account.give(directory.path()).unwrap();
        let pg_config = std::env::var("PG_CONFIG").unwrap_or_else(|_| "/usr/lib/postgresql/15/bin/pg_config".to_owned());
        let bin = PathBuf::from(pg_config).parent().unwrap().to_owned();
        let cluster = Cluster { bin, account, home: directory.path().canonicalize().unwrap(), port: ports::free_one() };
        cluster.init("wal_level = logical\nmax_wal_senders = 20\nmax_replication_slots = 20\n").unwrap();
        cluster.start().unwrap();
        Publisher { cluster, _directory: directory }
    }

    fn connect(&self) -> Client {
        Client::connect(&self.cluster.uri("postgres"), NoTls).unwrap()
    }

    fn run(&self, statements: &str) {
        self.connect().batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    fn value(&self, query: &str) -> String {
        self.connect().query_one(&format!("SELECT ({query})::text"), &[]).unwrap().get(0)
    }

    fn connection(&self) -> String {
        format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.cluster.port)
    }

    fn create(&self, name: &str, publication: &str) -> String {
        format!("CREATE SUBSCRIPTION {name} CONNECTION '{}' PUBLICATION {publication}", self.connection())
    }

    /// Each node shows what the publisher has in this table.
    fn is_everywhere(&self, group: &Group, table: &str) {
        let digest = format!("{DIGEST} {table} t");
        let wanted = self.value(&digest);
        for number in group.numbers() {
            group.becomes(number, &digest, &wanted, PATIENCE);
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        let _ = self.cluster.stop();
    }
}

fn carrier(group: &Group, on: NodeNumber, name: &str) -> String {
    group.value(on, &format!("SELECT node FROM postgres_r.subscriptions WHERE name = '{name}'"))
}

/// Who of the others carries it now.
fn other_carrier(group: &Group, name: &str, before: NodeNumber) -> NodeNumber {
    let asked = group.numbers().into_iter().find(|&number| number != before).unwrap();
    let (found, _) = wait::until("another carrier", PATIENCE, || match carrier(group, asked, name) {
        node if node == format!("node{}", before.0) => Err(node),
        node => Ok(node),
    });
    node(found.trim_start_matches("node").parse().unwrap())
}

/// Writes transactions of two rows to a published table until told to stop; gives how many.
fn write(publisher: &Publisher, table: &str, stop: &AtomicBool) -> u64 {
    let mut client = publisher.connect();
    let mut written = 0;
    while !stop.load(Ordering::Relaxed) {
        client
            .batch_execute(&format!(
                "BEGIN; INSERT INTO {table} (t) VALUES ('new'); INSERT INTO {table} (t) VALUES ('new');
                 UPDATE {table} SET t = t || '+' WHERE id = (SELECT max(id) FROM {table}) - 5; COMMIT"
            ))
            .unwrap();
        written += 1;
        thread::sleep(Duration::from_millis(4));
    }
    written
}

/// Runs `fault` while the publisher writes to the table. Afterwards all nodes have what the publisher has.
fn under_load(publisher: &Publisher, group: &Group, table: &str, fault: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let written = thread::scope(|scope| {
        let writer = scope.spawn(|| write(publisher, table, &stop));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(fault));
        stop.store(true, Ordering::Relaxed);
        let written = writer.join().unwrap();
        outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        written
    });
    assert!(written > 100, "{written} transactions are no load");
    publisher.is_everywhere(group, table);
}

fn end(group: &Group, on: NodeNumber, name: &str) {
    group.execute(on, &format!("DROP SUBSCRIPTION {name}"));
    assert_eq!(everywhere(group, "SELECT count(*) FROM pg_subscription"), "0");
    assert_eq!(everywhere(group, "SELECT count(*) FROM postgres_r.subscription_tables"), "0");
    harness::assert_equal(group);
}

#[test]
fn what_the_publisher_has_and_what_it_changes_are_on_every_node_once() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let table = "CREATE TABLE plain (id serial PRIMARY KEY, t text, up int)";
    publisher.run(&format!(
        "{table}; INSERT INTO plain (t) SELECT 'old' FROM generate_series(1, 500); CREATE PUBLICATION one FOR TABLE plain"
    ));
    group.execute(node(1), table);
    group.settle();
    group.execute(node(2), &publisher.create("sub", "one"));
    publisher.is_everywhere(&group, "plain");
    publisher.run(
        "INSERT INTO plain (t) SELECT 'more' FROM generate_series(1, 100); UPDATE plain SET t = 'changed', up = id WHERE id < 50; DELETE FROM plain WHERE id = 77",
    );
    publisher.is_everywhere(&group, "plain");
    assert_eq!(carrier(&group, node(3), "sub"), "node2");
    assert_eq!(group.values("SELECT subenabled FROM pg_subscription"), ["false", "true", "false"]);
    assert_eq!(everywhere(&group, "SELECT count(*) FROM postgres_r.subscriptions WHERE enabled"), "1");
    // What is written here stays as it is.
    group.execute(node(3), "UPDATE plain SET up = -1 WHERE id = 1");
    publisher.run("UPDATE plain SET t = 'again' WHERE id = 2; UPDATE plain SET up = -1 WHERE id = 1");
    publisher.is_everywhere(&group, "plain");
    // One more table; and the first under another name, which is its name everywhere.
    publisher.run("CREATE TABLE second (id int PRIMARY KEY, t text); INSERT INTO second VALUES (1, 'x'); ALTER PUBLICATION one ADD TABLE second");
    group.execute(node(1), "CREATE TABLE second (id int PRIMARY KEY, t text)");
    group.settle();
    group.execute(node(2), "ALTER SUBSCRIPTION sub REFRESH PUBLICATION");
    publisher.is_everywhere(&group, "second");
    assert_eq!(
        everywhere(
            &group,
            "SELECT string_agg(relation::text, ',' ORDER BY relation::text) FROM postgres_r.subscription_tables"
        ),
        "plain,second"
    );
    group.execute(node(3), "ALTER SUBSCRIPTION sub RENAME TO renamed");
    assert_eq!(everywhere(&group, "SELECT name FROM postgres_r.subscriptions"), "renamed");
    publisher.run("INSERT INTO second VALUES (2, 'y')");
    publisher.is_everywhere(&group, "second");
    end(&group, node(2), "renamed");
    assert_eq!(publisher.value("SELECT count(*) FROM pg_replication_slots"), "0");
    group.execute(node(1), "DROP TABLE plain, second");
}

#[test]
fn truncate_that_arrives_stands_in_its_place_among_the_rows() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let tables = "CREATE TABLE emptied (id int PRIMARY KEY, t text); CREATE TABLE child (id int PRIMARY KEY, t int REFERENCES emptied)";
    publisher.run(&format!(
        "{tables}; INSERT INTO emptied VALUES (1, 'old'), (2, 'old'); CREATE PUBLICATION one FOR TABLE emptied, child"
    ));
    group.execute(node(1), tables);
    group.settle();
    group.execute(node(1), &publisher.create("sub", "one"));
    publisher.is_everywhere(&group, "emptied");
    publisher.run(
        "BEGIN; UPDATE emptied SET t = 'changed' WHERE id = 1; INSERT INTO emptied VALUES (3, 'goes'); INSERT INTO child VALUES (1, 3);
         TRUNCATE emptied, child; INSERT INTO emptied VALUES (1, 'new'), (4, 'goes'); INSERT INTO child VALUES (1, 4);
         TRUNCATE emptied CASCADE; INSERT INTO emptied VALUES (1, 'newest'); INSERT INTO child VALUES (2, 1); COMMIT;
         INSERT INTO emptied VALUES (5, 'behind'); TRUNCATE child",
    );
    publisher.is_everywhere(&group, "emptied");
    publisher.is_everywhere(&group, "child");
    end(&group, node(1), "sub");
    group.execute(node(1), "DROP TABLE emptied, child");
}

fn begin_with_load(publisher: &Publisher, group: &Group) {
    let table = "CREATE TABLE busy (id serial PRIMARY KEY, t text)";
    publisher.run(&format!(
        "{table}; INSERT INTO busy (t) SELECT 'old' FROM generate_series(1, 1000); CREATE PUBLICATION one FOR TABLE busy"
    ));
    group.execute(node(1), table);
    group.settle();
    group.execute(node(1), &publisher.create("sub", "one"));
    publisher.is_everywhere(group, "busy");
}

#[test]
fn another_node_carries_on_when_the_carrier_is_killed_under_load() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    begin_with_load(&publisher, &group);
    let mut last = node(1);
    under_load(&publisher, &group, "busy", || {
        for _ in 0..2 {
            thread::sleep(Duration::from_secs(2));
            group.kill(last, Part::Both);
            let next = other_carrier(&group, "sub", last);
            // It comes back as one that does not carry.
            group.start_node(last);
            last = next;
        }
    });
    let enabled = group.values("SELECT subenabled FROM pg_subscription");
    assert_eq!(enabled.iter().filter(|enabled| *enabled == "true").count(), 1, "{enabled:?}");
    end(&group, last, "sub");
    assert_eq!(publisher.value("SELECT count(*) FROM pg_replication_slots"), "0");
    group.execute(node(1), "DROP TABLE busy");
}

#[test]
fn a_carrier_that_is_back_in_time_goes_on_where_the_group_is() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    begin_with_load(&publisher, &group);
    under_load(&publisher, &group, "busy", || {
        for part in [Part::Postgres, Part::Gcs, Part::Both] {
            thread::sleep(Duration::from_secs(1));
            group.kill(node(1), part);
            group.start_node(node(1));
        }
        thread::sleep(Duration::from_secs(1));
    });
    let carrier = carrier(&group, node(1), "sub").trim_start_matches("node").parse().unwrap();
    end(&group, node(carrier), "sub");
    group.execute(node(1), "DROP TABLE busy");
}

#[test]
fn a_carrier_that_is_cut_off_commits_nothing_more_while_another_carries_on() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    begin_with_load(&publisher, &group);
    under_load(&publisher, &group, "busy", || {
        thread::sleep(Duration::from_secs(1));
        // Its server goes on, with its connection to the publisher.
        group.signal(node(1), Part::Gcs, Signal::STOP);
        wait::until("another carrier", PATIENCE, || match carrier(&group, node(2), "sub") {
            node if node == "node1" => Err(node),
            _ => Ok(()),
        });
        thread::sleep(Duration::from_secs(1));
        group.signal(node(1), Part::Gcs, Signal::CONT);
        thread::sleep(Duration::from_secs(1));
    });
    let carrier = carrier(&group, node(1), "sub").trim_start_matches("node").parse().unwrap();
    end(&group, node(carrier), "sub");
    group.execute(node(1), "DROP TABLE busy");
}

/// The process that the carrier runs for the subscription, or for one of its tables.
fn worker(group: &Group, number: NodeNumber, of_table: bool) -> Process {
    let query = format!("SELECT pid FROM pg_stat_subscription WHERE pid IS NOT NULL AND (relid IS NOT NULL) = {of_table}");
    let (pid, _) = wait::until("a worker", PATIENCE, || {
        let mut client = group.try_connect(number).map_err(|error| error.to_string())?;
        let row = client.query_opt(&query, &[]).map_err(|error| error.to_string())?;
        row.map(|row| row.get::<_, i32>(0)).ok_or_else(|| "none".to_owned())
    });
    harness::stopped::backend(group, number, pid).unwrap()
}

#[test]
fn a_carrier_is_killed_while_it_copies_and_the_copy_begins_again() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let table = "CREATE TABLE copied (id serial PRIMARY KEY, t text)";
    publisher.run(&format!("{table}; INSERT INTO copied (t) SELECT 'old' FROM generate_series(1, 20000); CREATE PUBLICATION one FOR TABLE copied"));
    // On node 1 each row takes its time.
    let port = group.value(node(1), "SELECT current_setting('port')");
    group.execute(
        node(1),
        &format!(
            "{table}; CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS
                 $$ BEGIN IF current_setting('port') = '{port}' THEN PERFORM pg_sleep(0.01); END IF; RETURN NEW; END $$;
             CREATE TRIGGER slow BEFORE INSERT ON copied FOR EACH ROW EXECUTE FUNCTION slow(); ALTER TABLE copied ENABLE ALWAYS TRIGGER slow"
        ),
    );
    group.settle();
    group.execute(node(1), &publisher.create("sub", "one"));
    worker(&group, node(1), true);
    group.becomes(node(1), "SELECT sum(tuples_processed) > 100 FROM pg_stat_progress_copy", "true", PATIENCE);
    group.kill(node(1), Part::Both);
    let carrier = other_carrier(&group, "sub", node(1));
    publisher.run("INSERT INTO copied (t) VALUES ('new'); UPDATE copied SET t = 'changed' WHERE id = 1");
    group.start_node(node(1));
    publisher.is_everywhere(&group, "copied");
    end(&group, carrier, "sub");
    group.execute(node(1), "DROP TABLE copied; DROP FUNCTION slow");
}

#[test]
fn a_table_that_is_copied_and_has_not_caught_up_is_taken_over_with_its_place() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    // No key: what came twice would be there twice.
    let tables = "CREATE TABLE behind (id int, t text); CREATE TABLE other (id serial PRIMARY KEY, t text)";
    publisher.run(&format!(
        "{tables}; INSERT INTO behind SELECT n, 'old' FROM generate_series(1, 1000) n; INSERT INTO other (t) VALUES ('old');
         CREATE PUBLICATION one FOR TABLE other; CREATE PUBLICATION two FOR TABLE behind"
    ));
    group.execute(node(1), tables);
    group.settle();
    group.execute(node(1), &publisher.create("sub", "one"));
    publisher.is_everywhere(&group, "other");
    group.becomes(node(1), "SELECT string_agg(srsubstate::text, '') FROM pg_subscription_rel", "r", PATIENCE);
    // A transaction that is open on the publisher keeps the copy from beginning.
    let mut client = publisher.connect();
    // What is open on the publisher keeps the copy from beginning.
    client.batch_execute("BEGIN; CREATE TABLE in_the_way ()").unwrap();
    group.execute(node(1), "ALTER SUBSCRIPTION sub ADD PUBLICATION two");
    worker(&group, node(1), true);
    // The subscription is stopped where it stands, while the copy goes on: nobody tells its worker to catch up.
    assert!(worker(&group, node(1), false).signal(Signal::STOP));
    client.batch_execute("COMMIT").unwrap();
    let state = "SELECT state FROM postgres_r.subscription_tables WHERE relation = 'behind'::regclass";
    group.becomes(node(2), state, "f", PATIENCE);
    publisher.run("INSERT INTO behind VALUES (1001, 'new'); INSERT INTO other (t) VALUES ('new')");
    group.kill(node(1), Part::Both);
    let carrier = other_carrier(&group, "sub", node(1));
    group.start_node(node(1));
    publisher.is_everywhere(&group, "behind");
    publisher.is_everywhere(&group, "other");
    publisher.run("INSERT INTO behind VALUES (1002, 'newer')");
    publisher.is_everywhere(&group, "behind");
    end(&group, carrier, "sub");
    group.execute(node(1), "DROP TABLE behind, other");
}

#[test]
fn enable_disable_and_drop_mean_the_same_on_every_node() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    begin_with_load(&publisher, &group);
    under_load(&publisher, &group, "busy", || {
        thread::sleep(Duration::from_millis(500));
        group.execute(node(2), "ALTER SUBSCRIPTION sub DISABLE");
        group.settle();
        assert_eq!(group.values("SELECT subenabled FROM pg_subscription"), ["false"; 3]);
        group.execute(node(3), "ALTER SUBSCRIPTION sub ENABLE");
        assert_eq!(everywhere(&group, "SELECT node FROM postgres_r.subscriptions"), "node3");
        thread::sleep(Duration::from_secs(1));
    });
    let refused = |number, statement: &str| {
        let error = group.connect(node(number)).batch_execute(statement).expect_err(statement);
        error.as_db_error().unwrap().message().to_owned()
    };
    let carried = "subscription \"sub\" is carried by node \"node3\"";
    assert_eq!(refused(1, "DROP SUBSCRIPTION sub"), carried);
    assert_eq!(refused(2, "ALTER SUBSCRIPTION sub REFRESH PUBLICATION"), carried);
    assert_eq!(
        refused(1, "ALTER SUBSCRIPTION sub SET (slot_name = NONE)"),
        "cannot set slot_name of subscription \"sub\" while it is enabled"
    );
    for option in ["disable_on_error", "two_phase"] {
        let message = format!("a subscription with {option} is not supported in a replicated database");
        assert_eq!(refused(1, &format!("{} WITH ({option} = true)", publisher.create("x", "one"))), message);
    }
    group.execute(node(1), "ALTER SUBSCRIPTION sub DISABLE");
    group.settle();
    end(&group, node(1), "sub");
    assert_eq!(publisher.value("SELECT count(*) FROM pg_replication_slots"), "0");
    group.execute(node(1), "DROP TABLE busy");
}

#[test]
fn a_node_whose_database_leaves_the_group_leaves_the_subscription_to_the_others() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let table = "CREATE TABLE left_behind (id int PRIMARY KEY, t text)";
    publisher
        .run(&format!("{table}; INSERT INTO left_behind VALUES (1, 'old'); CREATE PUBLICATION one FOR TABLE left_behind"));
    // Enabled before the database is replicated.
    let database = Database { group: &group, name: "leaving" };
    for number in group.numbers() {
        database.make(number);
        if number == node(1) {
            database.execute(number, table);
            database.execute(number, &publisher.create("sub", "one"));
            database.arrives(number, "SELECT count(*) FROM left_behind", "1");
        }
        database.start(number).unwrap();
    }
    publisher.run("INSERT INTO left_behind VALUES (2, 'replicated')");
    for number in group.numbers() {
        database.arrives(number, "SELECT count(*) FROM left_behind", "2");
    }
    database.stop(node(1)).unwrap();
    publisher.run("INSERT INTO left_behind VALUES (3, 'for those who are left')");
    for number in [2, 3] {
        database.arrives(node(number), "SELECT count(*) FROM left_behind", "3");
    }
    assert_eq!(database.value(node(1), "SELECT count(*) FROM left_behind"), "2");
    assert_eq!(database.value(node(1), "SELECT subenabled FROM pg_subscription"), "false");
    let carrier = database.value(node(2), "SELECT node FROM postgres_r.subscriptions");
    let carrier = node(carrier.trim_start_matches("node").parse().unwrap());
    database.execute(carrier, "DROP SUBSCRIPTION sub");
    database.execute(node(1), "ALTER SUBSCRIPTION sub SET (slot_name = NONE); DROP SUBSCRIPTION sub");
    database.end();
}

#[test]
fn a_table_that_is_copied_may_be_dropped_on_another_node() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let table = "CREATE TABLE stays (id int PRIMARY KEY, t text)";
    publisher.run(&format!("{table}; INSERT INTO stays VALUES (1, 'old'); CREATE PUBLICATION one FOR TABLE stays"));
    group.execute(node(1), table);
    group.settle();
    group.execute(node(1), &publisher.create("sub", "one"));
    publisher.is_everywhere(&group, "stays");
    let mut client = publisher.connect();
    publisher.run("CREATE TABLE late (id int PRIMARY KEY, t text); ALTER PUBLICATION one ADD TABLE late");
    group.execute(node(1), "CREATE TABLE late (id int PRIMARY KEY, t text)");
    client.batch_execute("BEGIN; CREATE TABLE in_the_way ()").unwrap();
    group.execute(node(1), "ALTER SUBSCRIPTION sub REFRESH PUBLICATION");
    worker(&group, node(1), true);
    group.settle();
    group.execute(node(2), "DROP TABLE late");
    group.settle();
    client.batch_execute("COMMIT").unwrap();
    publisher.run("INSERT INTO stays VALUES (2, 'new')");
    publisher.is_everywhere(&group, "stays");
    end(&group, node(1), "sub");
    group.execute(node(1), "DROP TABLE stays");
}

#[test]
fn what_is_streamed_comes_as_one_transaction_and_what_is_skipped_on_another_node_does_not_come() {
    let (publisher, group) = (Publisher::start(), harness::shared());
    let table = "CREATE TABLE streamed (id int PRIMARY KEY, t text)";
    publisher.run(&format!("{table}; CREATE PUBLICATION one FOR TABLE streamed"));
    publisher.run("ALTER SYSTEM SET logical_decoding_work_mem = '64kB'");
    publisher.run("SELECT pg_reload_conf()");
    group.execute(node(1), table);
    group.settle();
    group.execute(node(1), &format!("{} WITH (streaming = on)", publisher.create("sub", "one")));
    publisher.run(
        "BEGIN; INSERT INTO streamed SELECT n, repeat('y', 100) FROM generate_series(1, 10000) n; SAVEPOINT a;
         INSERT INTO streamed SELECT n, repeat('z', 100) FROM generate_series(10001, 20000) n; ROLLBACK TO a;
         UPDATE streamed SET t = 'changed' WHERE id < 100; COMMIT",
    );
    publisher.is_everywhere(&group, "streamed");
    assert_ne!(publisher.value("SELECT stream_txns FROM pg_stat_replication_slots"), "0");
    // The same key on both sides: the worker cannot go on, until somebody, somewhere, has it leave that transaction out.
    group.execute(node(3), "INSERT INTO streamed VALUES (50000, 'here')");
    publisher.run("INSERT INTO streamed VALUES (50000, 'there')");
    let log = group.playground.cluster(node(1)).log();
    let (finished, _) = wait::until("the worker's complaint", PATIENCE, || {
        let text = std::fs::read_to_string(&log).map_err(|error| error.to_string())?;
        let mut of_row = text
            .lines()
            .filter(|line| line.contains("public.streamed"))
            .filter_map(|line| line.split("finished at ").nth(1));
        of_row.next_back().map(str::to_owned).ok_or_else(|| "none".to_owned())
    });
    group.execute(node(2), &format!("ALTER SUBSCRIPTION sub SKIP (lsn = '{finished}')"));
    publisher.run("UPDATE streamed SET t = 'here' WHERE id = 50000; INSERT INTO streamed VALUES (50001, 'behind')");
    publisher.is_everywhere(&group, "streamed");
    end(&group, node(1), "sub");
    group.execute(node(1), "DROP TABLE streamed");
}
