//! DDL and LOCK TABLE on tables that all nodes write to: they get through, and writers wait, as on one server.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::group::describe;
use postgres::{Client, Error};
use postgres_r_tests::harness::{self, Group, node, race, wait};

/// Far above what it takes: what does not come within it does not come.
const RESOLVED_MAX: Duration = Duration::from_secs(30);

fn code(error: &Error) -> String {
    error.code().map_or_else(|| error.to_string(), |code| code.code().to_owned())
}

/// The group, once it has locks. With a table of ten rows, and what refers to it, made anew.
fn group() -> harness::Shared {
    let group = harness::shared();
    let mut client = group.connect(node(1));
    wait::until("group locks", RESOLVED_MAX, || {
        client.batch_execute("SELECT pg_advisory_lock(0); SELECT pg_advisory_unlock(0)").map_err(|error| code(&error))
    });
    for statement in [
        "DROP VIEW IF EXISTS busy_view",
        "DROP TABLE IF EXISTS child, new_child, busy, parted, other",
        "CREATE TABLE busy (id int PRIMARY KEY, n int DEFAULT 0, note text)",
        "CREATE TABLE child (id serial PRIMARY KEY, busy int REFERENCES busy)",
        "CREATE TABLE parted (id int PRIMARY KEY, n int DEFAULT 0) PARTITION BY RANGE (id)",
        "CREATE TABLE parted_low PARTITION OF parted FOR VALUES FROM (0) TO (100)",
        "CREATE TABLE other (id int PRIMARY KEY)",
        "CREATE VIEW busy_view AS SELECT id, n FROM busy",
        "INSERT INTO busy SELECT generate_series(1, 10)",
        "INSERT INTO parted SELECT generate_series(1, 10)",
        "CREATE OR REPLACE FUNCTION more(which int) RETURNS void LANGUAGE plpgsql
         AS $$ BEGIN UPDATE busy SET n = n + 1 WHERE id = which; END $$",
    ] {
        client.batch_execute(statement).unwrap();
    }
    group.settle();
    group
}

/// What writers do over and over, each with rows of its own: (the statement as it is prepared, its ways to the tables).
const WRITES: [&str; 6] = [
    "UPDATE busy SET n = n + 1 WHERE id = $1",
    "WITH changed AS (UPDATE busy SET n = n + 1 WHERE id = $1 RETURNING id) INSERT INTO child (busy) SELECT id FROM changed",
    "SELECT more($1)",
    "UPDATE busy_view SET n = n + 1 WHERE id = $1",
    "UPDATE parted SET n = n + 1 WHERE id = $1",
    "SELECT n FROM busy WHERE id = $1 FOR UPDATE",
];

/// What writers were told.
#[derive(Default)]
struct Told {
    stop: AtomicBool,
    done: AtomicU64,
    failed: Mutex<Vec<String>>,
}

impl Told {
    /// Waits until all are at it again.
    fn wait_for_writes(&self) {
        let before = self.done.load(Ordering::SeqCst);
        wait::until("writes", RESOLVED_MAX, || {
            if self.done.load(Ordering::SeqCst) > before + 12 { Ok(()) } else { Err("no writes".to_owned()) }
        });
    }
}

/// Told to stop also where the job fails.
struct Stop<'a>(&'a Told);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.stop.store(true, Ordering::SeqCst);
    }
}

/// Writes in transactions of two statements, prepared and as text by turns, until told to stop.
fn write(group: &Group, number: usize, id: i32, told: &Told) {
    let mut client = group.connect(node(number));
    let prepared: Vec<_> = WRITES.iter().map(|write| client.prepare(write).unwrap()).collect();
    for round in 0.. {
        if told.stop.load(Ordering::SeqCst) {
            return;
        }
        let (first, second) = (round % WRITES.len(), (round + 1 + round / WRITES.len()) % WRITES.len());
        let mut transaction = client.transaction().unwrap();
        let text = WRITES[second].replace("$1", &id.to_string());
        let result = transaction
            .execute(&prepared[first], &[&id])
            .and_then(|_| transaction.batch_execute(&text))
            .and_then(|()| transaction.commit());
        match result {
            Ok(()) => drop(told.done.fetch_add(1, Ordering::SeqCst)),
            Err(error) => {
                let failed = format!("node {number}: {} | {text}: {}", WRITES[first], describe(&error));
                told.failed.lock().unwrap().push(failed);
            }
        }
    }
}

/// Runs `job` while two clients of each node write.
fn while_all_write(group: &Group, job: impl FnOnce(&Told)) {
    let told = Told::default();
    thread::scope(|scope| {
        let stop = Stop(&told);
        for nth in 0..6 {
            let told = &told;
            scope.spawn(move || write(group, nth % 3 + 1, nth as i32 + 1, told));
        }
        job(&told);
        drop(stop);
    });
}

/// Writers that may fail beside all of these.
const FAILED_MAX: usize = 1;

/// Statements that have a table for themselves, one after the other, each on the next node.
const STATEMENTS: [&str; 14] = [
    "CREATE INDEX busy_n ON busy (n)",
    "ALTER TABLE busy ADD COLUMN more int DEFAULT 7",
    "ALTER TABLE busy ADD CHECK (n >= 0)",
    "ALTER TABLE busy DROP COLUMN more",
    "DROP INDEX busy_n",
    "BEGIN; LOCK TABLE busy; UPDATE busy SET note = 'locked' WHERE id = 10; COMMIT",
    "BEGIN; LOCK TABLE busy IN SHARE MODE; INSERT INTO other SELECT count(*) + 100 FROM other; COMMIT",
    "CREATE TABLE new_child (id int PRIMARY KEY, busy int REFERENCES busy)",
    "DROP TABLE new_child",
    "TRUNCATE child",
    "GRANT SELECT ON busy TO PUBLIC",
    "CREATE TABLE parted_high PARTITION OF parted FOR VALUES FROM (100) TO (200)",
    "ALTER TABLE parted_low ADD CHECK (n >= 0)",
    "DO $$ BEGIN EXECUTE 'CREATE INDEX busy_note ON busy (note)'; EXECUTE 'DROP INDEX busy_note'; END $$",
];

#[test]
fn ddl_gets_through_at_once_and_writers_of_all_nodes_wait() {
    let group = group();
    while_all_write(&group, |told| {
        for (nth, statement) in STATEMENTS.iter().enumerate() {
            told.wait_for_writes();
            let result = group.connect(node(nth % 3 + 1)).batch_execute(statement);
            result.unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
            told.wait_for_writes();
        }
        // Without locks each statement would fail several. One in thousands may, where the machine stands still for seconds.
        let failed = std::mem::take(&mut *told.failed.lock().unwrap());
        assert!(failed.len() <= FAILED_MAX && failed.iter().all(|error| error.contains("40001")), "{failed:#?}");
    });
    group.settle();
    harness::assert_equal(&group);
}

/// A writer of another node waits until the transaction has ended, in whatever way the writer comes, and finds the table as it is then.
#[test]
fn a_writer_of_another_node_waits_for_whoever_has_locked_the_table() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    let kept = two.prepare("UPDATE busy SET n = n + 1 WHERE id = $1").unwrap();
    two.execute(&kept, &[&1]).unwrap();
    group.settle();
    for (statement, column) in [
        ("UPDATE busy SET n = n + 1 WHERE id = 1", "a"),
        ("INSERT INTO busy SELECT max(id) + 1, 0, 'b' FROM busy", "b"),
        ("DELETE FROM busy WHERE id = 9", "c"),
        ("INSERT INTO child (busy) VALUES (2)", "d"),
        ("SELECT more(3)", "e"),
        ("SELECT id FROM busy WHERE id = 1 FOR UPDATE", "f"),
        ("UPDATE busy_view SET n = n + 1 WHERE id = 1", "g"),
        ("COPY busy (id) FROM PROGRAM 'echo 77'", "h"),
        ("MERGE INTO busy USING (VALUES (1)) AS v (id) ON v.id = busy.id WHEN MATCHED THEN UPDATE SET n = 0", "i"),
        (
            "/* a comment; */ -- and another\n WITH x AS (SELECT 1 AS id) UPDATE busy SET n = 1 FROM x WHERE busy.id = x.id",
            "j",
        ),
        ("INSERT INTO busy (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET n = 7", "k"),
        ("PREPARE kept AS UPDATE busy SET n = n + 1 WHERE id = 2; EXECUTE kept", "m"),
        ("INSERT INTO child (busy) SELECT id FROM busy WHERE id < 4", "n1"),
        ("DO $$ DECLARE which int; BEGIN which := 1; UPDATE busy SET n = n + 1 WHERE id = which; END $$", "l"),
    ] {
        println!("{statement}");
        one.batch_execute(&format!("BEGIN; ALTER TABLE busy ADD COLUMN {column} int DEFAULT 1")).unwrap();
        let ended = race::while_blocked(&group, (node(2), &mut two), statement, || one.batch_execute("COMMIT").unwrap());
        assert!(ended.is_ok(), "{statement}: {ended:?}");
    }
    // One that is about what is gone by then is told so.
    one.batch_execute("BEGIN; ALTER TABLE busy DROP COLUMN a; ALTER TABLE child RENAME TO infant").unwrap();
    let statement = "UPDATE busy SET a = 2";
    let ended = race::while_blocked(&group, (node(2), &mut two), statement, || one.batch_execute("COMMIT").unwrap());
    assert!(format!("{ended:?}").contains("42703"), "{ended:?}");
    // What is prepared already: of the table, and of one that refers to it.
    let kept_child = two.prepare("INSERT INTO infant (busy) VALUES ($1)").unwrap();
    two.execute(&kept_child, &[&1]).unwrap();
    one.batch_execute("BEGIN; CREATE INDEX ON busy (note)").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| two.execute(&kept_child, &[&1]));
        wait_until_one_waits(&group, 2);
        one.batch_execute("COMMIT").unwrap();
        assert_eq!(waits.join().unwrap().map_err(|error| describe(&error)), Ok(1));
    });
    // What was prepared is planned anew.
    one.batch_execute("BEGIN; DROP VIEW busy_view; ALTER TABLE busy ALTER COLUMN n TYPE bigint").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| two.execute(&kept, &[&1]));
        wait_until_one_waits(&group, 2);
        one.batch_execute("COMMIT").unwrap();
        assert_eq!(waits.join().unwrap().map_err(|error| describe(&error)), Ok(1));
    });
    group.execute(node(1), "DROP TABLE infant");
    group.settle();
    harness::assert_equal(&group);
}

fn wait_until_one_waits(group: &Group, number: usize) {
    let mut watcher = group.connect(node(number));
    wait::until("a wait", RESOLVED_MAX, || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND wait_event = 'relation'";
        let count: i64 = watcher.query_one(waits, &[]).unwrap().get(0);
        if count > 0 { Ok(()) } else { Err("nobody waits".to_owned()) }
    });
}

/// Who was in the table first is waited for, and goes on with it while others wait.
#[test]
fn ddl_waits_for_those_who_are_in_the_table_on_other_nodes() {
    let group = group();
    let (mut one, mut two, mut three) = (group.connect(node(1)), group.connect(node(2)), group.connect(node(3)));
    two.batch_execute("BEGIN; UPDATE busy SET n = 1 WHERE id = 1").unwrap();
    let is_closed = AtomicBool::new(false);
    thread::scope(|scope| {
        let ddl = scope.spawn(|| one.batch_execute("ALTER TABLE busy ADD COLUMN waited int"));
        // It is closed on all nodes when a writer of the third waits.
        let writer = scope.spawn(|| {
            while !is_closed.load(Ordering::SeqCst) {
                three.batch_execute("UPDATE busy SET n = 2 WHERE id = 3")?;
            }
            three.batch_execute("UPDATE busy SET waited = 1 WHERE id = 3")
        });
        wait_until_one_waits(&group, 3);
        is_closed.store(true, Ordering::SeqCst);
        two.batch_execute("UPDATE busy SET n = 2 WHERE id = 1; UPDATE busy SET n = 2 WHERE id = 2; COMMIT").unwrap();
        assert_eq!(ddl.join().unwrap().map_err(|error| describe(&error)), Ok(()));
        assert_eq!(writer.join().unwrap().map_err(|error| describe(&error)), Ok(()));
    });
    group.settle();
    assert_eq!(group.values("SELECT string_agg(n::text, ' ' ORDER BY id) FROM busy WHERE id < 4"), ["2 2 2"; 3]);
    harness::assert_equal(&group);
}

/// Who has read the table, or was in another that was closed with it, goes on to write: the statement waits for that.
#[test]
fn whoever_is_there_already_goes_on() {
    let group = group();
    for (first, ddl) in [
        ("SELECT count(*) FROM busy", "ALTER TABLE busy ADD COLUMN x int"),
        ("INSERT INTO other VALUES (7)", "BEGIN; LOCK TABLE other, busy; INSERT INTO other VALUES (8); COMMIT"),
        ("SELECT n FROM busy WHERE id = 1 FOR UPDATE", "CREATE INDEX ON busy (n)"),
        (
            "UPDATE parted_low SET n = 1 WHERE id = 1; UPDATE busy SET n = 1 WHERE id = 1",
            "ALTER TABLE parted ADD COLUMN x int",
        ),
    ] {
        let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
        two.batch_execute(&format!("BEGIN; {first}")).unwrap();
        let counted = || group.value(node(1), "SELECT tables_not_cleared FROM postgres_r.pg_stat_postgres_r");
        let before = counted();
        thread::scope(|scope| {
            let waits = scope.spawn(|| one.batch_execute(ddl));
            // It has asked, and waits for the answer.
            wait::until("the question", RESOLVED_MAX, || {
                let asks = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND wait_event = 'Extension'
                            AND backend_type = 'client backend'";
                match group.value(node(1), asks) {
                    count if count == "1" => Ok(()),
                    count => Err(count),
                }
            });
            two.batch_execute("UPDATE busy SET n = n + 1 WHERE id = 1; UPDATE parted SET n = 2 WHERE id = 1; COMMIT")
                .unwrap();
            assert_eq!(waits.join().unwrap().map_err(|error| describe(&error)), Ok(()), "{first} | {ddl}");
            assert_eq!(counted(), before, "{first} | {ddl}");
        });
        group.settle();
    }
    harness::assert_equal(&group);
}

#[test]
fn a_wait_ends_as_one_on_one_server_and_an_idle_writer_is_overtaken() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    two.batch_execute("BEGIN; UPDATE busy SET n = 1 WHERE id = 1").unwrap();
    for (limit, expected) in [("lock_timeout", "55P03"), ("statement_timeout", "57014")] {
        one.batch_execute(&format!("SET {limit} = '1s'")).unwrap();
        assert_eq!(code(&one.batch_execute("ALTER TABLE busy ADD COLUMN x int").unwrap_err()), expected);
        one.batch_execute(&format!("RESET {limit}")).unwrap();
    }
    // Nor does it wait at all if it does not want to.
    // A node that does not answer at once is not asked twice; certification decides then.
    let refused = (0..20).find_map(|_| {
        let refused = one.batch_execute("BEGIN; LOCK TABLE busy NOWAIT").err();
        if refused.is_none() {
            one.batch_execute("ROLLBACK").unwrap();
        }
        refused
    });
    assert_eq!(code(&refused.expect("a writer of another node is in the way")), "55P03");
    one.batch_execute("ROLLBACK; BEGIN; LOCK TABLE other NOWAIT").unwrap();
    assert_eq!(
        code(&group.connect(node(3)).batch_execute("BEGIN; LOCK TABLE other IN SHARE MODE NOWAIT").unwrap_err()),
        "55P03"
    );
    one.batch_execute("ROLLBACK").unwrap();
    // Whoever comes now finds that nobody has locked the table any more.
    group.execute(node(2), "UPDATE busy SET n = 1 WHERE id = 2");
    group.execute(node(3), "UPDATE busy SET n = 1 WHERE id = 3");
    one.batch_execute("ALTER TABLE busy ADD COLUMN x int").unwrap();
    let lost = two.batch_execute("COMMIT").unwrap_err();
    assert!(lost.code().is_none() || code(&lost) == "40001", "{}", describe(&lost));
    // Deadlocks are found.
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; LOCK TABLE busy").unwrap();
    two.batch_execute("BEGIN; LOCK TABLE other").unwrap();
    thread::scope(|scope| {
        let waits = scope.spawn(|| one.batch_execute("LOCK TABLE other; COMMIT"));
        wait_until_one_waits(&group, 1);
        let second = two.batch_execute("LOCK TABLE busy; COMMIT");
        drop(two);
        let ends: Vec<String> =
            [waits.join().unwrap(), second].into_iter().filter_map(|end| end.err().map(|e| code(&e))).collect();
        assert_eq!(ends, ["40P01"]);
    });
    group.settle();
    harness::assert_equal(&group);
}

#[test]
fn two_nodes_lock_the_same_table_one_after_the_other() {
    let group = group();
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; LOCK TABLE busy; INSERT INTO other VALUES (1)").unwrap();
    let statement = "BEGIN; LOCK TABLE busy IN SHARE MODE; INSERT INTO other SELECT count(*) + 1 FROM other; COMMIT";
    race::while_blocked(&group, (node(2), &mut two), statement, || one.batch_execute("COMMIT").unwrap()).unwrap();
    group.settle();
    assert_eq!(group.values("SELECT count(*) FROM other"), ["2"; 3]);
    // Given back with the savepoint under which it was taken.
    one.batch_execute("BEGIN; SAVEPOINT s; LOCK TABLE busy; ROLLBACK TO s").unwrap();
    two.batch_execute("SET lock_timeout = '10s'; UPDATE busy SET n = 5 WHERE id = 5").unwrap();
    one.batch_execute("COMMIT").unwrap();
}

#[test]
fn what_is_local_waits_for_nobody() {
    let group = group();
    let mut two = group.connect(node(2));
    two.batch_execute("BEGIN; UPDATE busy SET n = 1 WHERE id = 1").unwrap();
    group.execute(node(1), "SET postgres_r.table_locks = local; ALTER TABLE busy ADD COLUMN x int");
    group.settle();
    assert!(two.batch_execute("COMMIT").is_err());
    // Nor does who writes to what nobody else can be in.
    let before = group.value(node(1), "SELECT tables_cleared FROM postgres_r.pg_stat_postgres_r");
    group.execute(
        node(1),
        "BEGIN; CREATE TABLE fresh (id int); CREATE INDEX ON fresh (id); ALTER TABLE fresh ADD COLUMN n int; COMMIT",
    );
    assert_eq!(group.value(node(1), "SELECT tables_cleared FROM postgres_r.pg_stat_postgres_r"), before);
    group.execute(node(1), "DROP TABLE fresh");
}

#[test]
fn who_may_not_lock_a_table_disturbs_nobody() {
    let group = group();
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap();
        let made = client.batch_execute("CREATE ROLE stranger LOGIN");
        assert!(made.as_ref().is_ok() || code(made.as_ref().unwrap_err()) == "42710");
    }
    group.execute(node(1), "GRANT SELECT, INSERT ON busy TO stranger");
    group.settle();
    let mut two = group.connect(node(2));
    two.batch_execute("BEGIN; UPDATE busy SET n = 1 WHERE id = 1").unwrap();
    let before = group.value(node(1), "SELECT lock_requests FROM postgres_r.pg_stat_postgres_r");
    let mut one = group.connect(node(1));
    one.batch_execute("SET ROLE stranger").unwrap();
    for statement in [
        "LOCK TABLE busy",
        "TRUNCATE busy",
        "ALTER TABLE busy ADD COLUMN x int",
        "DROP TABLE busy",
        "CREATE INDEX ON busy (n)",
    ] {
        assert_eq!(code(&one.batch_execute(&format!("BEGIN; {statement}; COMMIT")).unwrap_err()), "42501", "{statement}");
        one.batch_execute("ROLLBACK").unwrap();
    }
    assert_eq!(group.value(node(1), "SELECT lock_requests FROM postgres_r.pg_stat_postgres_r"), before);
    two.batch_execute("COMMIT").unwrap();
}

/// The session that has locked the table dies with its server, or is without its daemon: the others go on.
#[test]
fn whoever_dies_locks_nothing() {
    let group = group();
    for part in [Part::Gcs, Part::Postgres] {
        let mut one = group.connect(node(1));
        one.batch_execute("BEGIN; LOCK TABLE busy; UPDATE busy SET n = 100 WHERE id = 1").unwrap();
        thread::scope(|scope| {
            let group = &group;
            let writer = scope.spawn(|| {
                let mut two: Client = group.connect(node(2));
                two.batch_execute("UPDATE busy SET n = n + 1 WHERE id = 2")
            });
            wait_until_one_waits(group, 2);
            group.kill(node(1), part);
            assert_eq!(writer.join().unwrap().map_err(|error| describe(&error)), Ok(()));
        });
        drop(one);
        group.start_node(node(1));
        wait::until("node 1 takes writes", RESOLVED_MAX, || {
            let mut client = group.try_connect(node(1)).map_err(|error| describe(&error))?;
            client.batch_execute("UPDATE busy SET n = 0 WHERE id = 1").map_err(|error| describe(&error))
        });
    }
    group.settle();
    harness::assert_equal(&group);
}
