//! ALTER TYPE and ALTER DOMAIN in a group that writes: only those who write values of the type have to do with it, and they are waited for.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use gcs::playground::group::describe;
use postgres_r_tests::harness::{self, everywhere, node, step};

/// Runs `work` while node 2 and 3 insert by these statements; gives how many rows each statement wrote.
fn while_writing(group: &harness::Group, statements: &[&str], work: impl FnOnce()) -> Vec<u64> {
    let stop = AtomicBool::new(false);
    let write = |number: usize, statement: &str| {
        let mut client = group.connect(node(number));
        let mut rows = 0;
        while !stop.load(Ordering::Relaxed) {
            match client.execute(statement, &[]) {
                Ok(written) => rows += written,
                // Only what the group may say.
                Err(error) => {
                    assert_eq!(error.code().map(|code| code.code()), Some("40001"), "{statement}: {}", describe(&error))
                }
            }
        }
        rows
    };
    let write = &write;
    thread::scope(|scope| {
        let writers: Vec<_> = statements
            .iter()
            .enumerate()
            .map(|(at, &statement)| scope.spawn(move || write(2 + at % 2, statement)))
            .collect();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let rows = writers.into_iter().map(|writer| writer.join().unwrap()).collect();
        result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        rows
    })
}

/// Locks that let writers go on let them go on everywhere, those of the statement's own node too, and neither loses.
#[test]
fn statements_that_let_writers_go_on_lose_against_nobody() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TABLE above (id int PRIMARY KEY); INSERT INTO above VALUES (1);
         CREATE TABLE busy (id serial PRIMARY KEY, a int REFERENCES above, n int, t text); CREATE ROLE looks;
         ALTER TABLE busy ADD CONSTRAINT c CHECK (n > 0) NOT VALID;
         ALTER TABLE busy ADD CONSTRAINT f FOREIGN KEY (n) REFERENCES above NOT VALID",
    );
    group.settle();
    let statements = [
        "ALTER TABLE busy VALIDATE CONSTRAINT c",
        "ALTER TABLE busy VALIDATE CONSTRAINT f",
        "ALTER TABLE busy ALTER t SET STATISTICS 300",
        "ALTER TABLE busy ALTER n SET (n_distinct = 5)",
        "ALTER TABLE busy SET (fillfactor = 70), CLUSTER ON busy_pkey",
        "ALTER INDEX busy_pkey SET (fillfactor = 80)",
        "CREATE STATISTICS of_busy ON a, n FROM busy",
        "GRANT SELECT ON busy TO looks",
        "REVOKE SELECT ON busy FROM looks",
        "COMMENT ON TABLE busy IS 'busy'",
    ];
    let insert = "INSERT INTO busy (a, n, t) VALUES (1, 1, 'x')";
    let lost = std::cell::Cell::new(0);
    let rows = while_writing(&group, &[insert, insert, insert], || {
        for round in 0..3 {
            for statement in statements {
                // Node 2 writes, too.
                let mut client = group.connect(node(1 + round % 2));
                // A statement by itself would be tried again.
                let block = format!("BEGIN; SELECT 1; {statement}; SELECT count(*) FROM busy; COMMIT");
                let statement = if statement.starts_with("CREATE STATISTICS") && round > 0 { "SELECT" } else { &block };
                if let Err(error) = client.batch_execute(statement) {
                    println!("{statement}: {}", describe(&error));
                    lost.set(lost.get() + 1);
                }
            }
        }
    });
    assert!(rows.iter().all(|&rows| rows > 0), "{rows:?}");
    assert_eq!(lost.get(), 0);
    group.settle();
    let valid =
        "SELECT string_agg(conname || convalidated, ' ' ORDER BY conname) FROM pg_constraint WHERE conname IN ('c', 'f')";
    assert_eq!(group.values(valid), ["ctrue ftrue"; 3]);
    harness::assert_equal(&group);
}

#[test]
fn types_are_altered_while_others_write() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN small AS int; CREATE TYPE pair AS (a int, b mood)",
    );
    step(
        &group,
        1,
        "CREATE TABLE apart (id bigserial PRIMARY KEY); CREATE TABLE moody (id bigserial PRIMARY KEY, m mood NOT NULL, p pair, s small)",
    );
    step(
        &group,
        1,
        "CREATE FUNCTION of_mood(int) RETURNS mood LANGUAGE sql IMMUTABLE AS $$ SELECT 'ok'::mood $$; CREATE TABLE by_key (id bigserial PRIMARY KEY, n int); CREATE INDEX ON by_key (of_mood(n))",
    );
    group.settle();
    let writes = [
        "INSERT INTO apart DEFAULT VALUES",
        "INSERT INTO moody (m, p, s) VALUES ('ok', (1, 'ok'), 1)",
        "INSERT INTO by_key (n) VALUES (1)",
    ];
    let rows = while_writing(&group, &writes, || {
        let mut client = group.connect(node(1));
        for statement in [
            "ALTER TYPE mood ADD VALUE 'happy'",
            "ALTER TYPE mood ADD VALUE IF NOT EXISTS 'cool' BEFORE 'ok'",
            "ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'",
            "ALTER DOMAIN small ADD CONSTRAINT fits CHECK (VALUE < 100)",
            "ALTER DOMAIN small SET DEFAULT 3",
            "ALTER TYPE pair RENAME ATTRIBUTE a TO first",
            "ALTER TYPE pair RENAME TO duo",
        ] {
            client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
        }
    });
    assert!(rows.iter().all(|&rows| rows > 0), "{rows:?}");
    let counted =
        "SELECT (SELECT count(*) FROM apart) || ' ' || (SELECT count(*) FROM moody) || ' ' || (SELECT count(*) FROM by_key)";
    assert_eq!(everywhere(&group, counted), format!("{} {} {}", rows[0], rows[1], rows[2]));
    assert_eq!(everywhere(&group, "SELECT enum_range(NULL::mood)::text"), "{blue,cool,ok,happy}");
    step(&group, 3, "INSERT INTO moody (m, p) VALUES ('happy', (2, 'blue'))");
    harness::assert_equal(&group);
}

/// What was written with the old label, and not committed, must not meet the new one.
#[test]
fn a_value_that_is_renamed_meets_nobody_who_writes_it() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE TYPE state AS ENUM ('new', 'old'); CREATE TABLE stateful (id int PRIMARY KEY, s state); INSERT INTO stateful VALUES (1, 'new')",
    );
    group.settle();
    let mut writer = group.connect(node(2));
    writer.batch_execute("BEGIN; INSERT INTO stateful VALUES (2, 'new')").unwrap();
    group.execute(node(1), "SET postgres_r.table_locks = 'local'; ALTER TYPE state RENAME VALUE 'new' TO 'fresh'");
    let error = writer.batch_execute("COMMIT").unwrap_err();
    assert_eq!(error.code().unwrap().code(), "40001", "{}", describe(&error));
    step(&group, 3, "INSERT INTO stateful VALUES (2, 'fresh')");
    assert_eq!(everywhere(&group, "SELECT string_agg(s::text, ' ' ORDER BY id) FROM stateful"), "fresh fresh");
    harness::assert_equal(&group);
}
