//! Tools that define much at once on one node of a group, while other nodes write: pg_restore in parallel, and an application's migrations.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use postgres_r_tests::harness::{self, Group, catalog, node};
use postgres_r_tests::workload::client::{Failure, classify};

/// Runs `work` while nodes 2 and 3 write to a table of their own; what they wrote is there afterwards.
fn while_others_write<T>(group: &Group, work: impl FnOnce() -> T) -> T {
    group.execute(node(1), "CREATE SCHEMA IF NOT EXISTS shop; DROP TABLE IF EXISTS shop.sales; CREATE TABLE shop.sales (id bigserial PRIMARY KEY, n int)");
    group.settle();
    let stop = AtomicBool::new(false);
    let write = |number| {
        let mut client = group.connect(number);
        let mut written = 0;
        while !stop.load(Ordering::Relaxed) {
            match client.batch_execute("INSERT INTO shop.sales (n) VALUES (1)") {
                Ok(()) => written += 1,
                Err(error) => assert_eq!(classify(&error), Failure::Retry, "{error:?}"),
            }
        }
        written
    };
    let write = &write;
    let (result, written) = thread::scope(|scope| {
        let writers: Vec<_> = [2, 3].map(|number| scope.spawn(move || write(node(number)))).into();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        let written: usize = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        (result, written)
    });
    let result = result.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    group.settle();
    assert_eq!(group.value(node(1), "SELECT count(*) FROM shop.sales"), written.to_string());
    result
}

fn succeeded(output: &Output, what: &str) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{error}", output.status);
}

/// A dump of a database, not replicated, in which these statements were run.
fn dump(group: &Group, statements: &str) -> PathBuf {
    let mut client = group.playground.connect(node(1), "postgres").unwrap();
    client.batch_execute("DROP DATABASE IF EXISTS source").unwrap();
    client.batch_execute("CREATE DATABASE source").unwrap();
    group.playground.connect(node(1), "source").unwrap().batch_execute(statements).unwrap();
    let (cluster, file) = (group.playground.cluster(node(1)), group.dir().join("source.dump"));
    let mut dump = Command::new(cluster.bin.join("pg_dump"));
    succeeded(&dump.args(["-Fc", "-f"]).arg(&file).arg(cluster.uri("source")).output().unwrap(), "pg_dump");
    file
}

/// Restores in four sessions at once; whatever pg_restore says on its error output is a failure, too.
fn restore(group: &Group, file: &PathBuf) {
    let cluster = group.playground.cluster(node(1));
    let mut restore = Command::new(cluster.bin.join("pg_restore"));
    let output = restore.args(["-j", "4", "-d", &cluster.uri(group.database())]).arg(file).output().unwrap();
    succeeded(&output, "pg_restore");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}

fn emptied() -> harness::Shared {
    let group = harness::shared();
    group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    group
}

#[test]
fn six_tables_are_restored_by_four_sessions_at_once() {
    let group = emptied();
    let mut statements = String::new();
    for n in 0..6 {
        let _ = write!(
            statements,
            "CREATE TABLE part{n} (id int PRIMARY KEY, up int, name text, code int UNIQUE);
             INSERT INTO part{n} SELECT i, i, 'name ' || i, i * 7 FROM generate_series(1, 5000) i;
             CREATE INDEX part{n}_name ON part{n} (name);
             CREATE INDEX part{n}_lower ON part{n} (lower(name)) WHERE id > 10;
             CREATE UNIQUE INDEX part{n}_pair ON part{n} (code, name);
             GRANT SELECT ON part{n} TO public;"
        );
        if n > 0 {
            let _ = write!(statements, "ALTER TABLE part{n} ADD FOREIGN KEY (up) REFERENCES part{};", n - 1);
        }
    }
    let file = dump(&group, &statements);
    for _ in 0..3 {
        group.execute(node(1), "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
        while_others_write(&group, || restore(&group, &file));
        let objects = "SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'i')";
        assert_eq!(group.value(node(3), objects), (6 * 6).to_string());
        assert_eq!(group.value(node(2), "SELECT count(*) FROM part5"), "5000");
        catalog::assert_same(&group);
        harness::assert_equal(&group);
    }
}

#[test]
fn three_hundred_objects_are_restored_by_four_sessions_at_once() {
    let group = emptied();
    for number in group.numbers() {
        let role = "DO 'BEGIN CREATE ROLE clerk; EXCEPTION WHEN duplicate_object THEN END'";
        group.playground.connect(number, "postgres").unwrap().batch_execute(role).unwrap();
    }
    let mut statements = "CREATE SCHEMA desk; CREATE TYPE desk.mood AS ENUM ('sad', 'ok'); CREATE DOMAIN desk.positive AS int CHECK (VALUE > 0);
        CREATE FUNCTION desk.touch() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN new.name := upper(new.name); RETURN new; END';
        ALTER DEFAULT PRIVILEGES IN SCHEMA desk GRANT SELECT ON TABLES TO clerk; GRANT USAGE ON SCHEMA desk TO clerk;"
        .to_owned();
    for n in 0..50 {
        let _ = write!(
            statements,
            "CREATE TABLE desk.item{n} (id serial PRIMARY KEY, up int, name text, mood desk.mood, amount desk.positive);
             INSERT INTO desk.item{n} (up, name, amount) SELECT i, 'n' || i, i FROM generate_series(1, 50) i;
             CREATE INDEX ON desk.item{n} (name); CREATE INDEX ON desk.item{n} (mood, amount);
             CREATE VIEW desk.shown{n} AS SELECT id, name FROM desk.item{n};
             CREATE FUNCTION desk.count{n}() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM desk.item{n}';
             COMMENT ON TABLE desk.item{n} IS 'item {n}'; GRANT UPDATE ON desk.item{n} TO clerk;
             CREATE TRIGGER touch BEFORE UPDATE ON desk.item{n} FOR EACH ROW EXECUTE FUNCTION desk.touch();"
        );
        if n > 0 {
            let _ = write!(statements, "ALTER TABLE desk.item{n} ADD FOREIGN KEY (up) REFERENCES desk.item{};", n - 1);
        }
        if n % 10 == 0 {
            let _ = write!(
                statements,
                "ALTER TABLE desk.item{n} ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON desk.item{n} USING (id > 0);
                 CREATE RULE quiet AS ON DELETE TO desk.shown{n} DO INSTEAD NOTHING; REVOKE EXECUTE ON FUNCTION desk.count{n} FROM public;"
            );
        }
    }
    let file = dump(&group, &statements);
    while_others_write(&group, || restore(&group, &file));
    assert_eq!(group.value(node(3), "SELECT sum(desk.count7()) FROM desk.item49"), "2500");
    catalog::assert_same(&group);
    harness::assert_equal(&group);
    group.execute(node(2), "UPDATE desk.item3 SET name = 'changed' WHERE id = 7");
    group.execute(node(1), "DROP SCHEMA desk CASCADE");
}

/// Python with what tests/django/requirements.txt names, as a client of this node.
fn python(group: &Group, number: usize) -> Command {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("../target"), PathBuf::from);
    let python = target.join("django/bin/python");
    assert!(python.is_file(), "{} is not there; run `make django` first", python.display());
    let port = group.playground.cluster(node(number)).port.to_string();
    let mut command = Command::new(python);
    command.env("PYTHONDONTWRITEBYTECODE", "1").env("PGDATABASE", group.database());
    command.envs([("PGHOST", "127.0.0.1"), ("PGPORT", &port), ("PGUSER", "postgres")]);
    command
}

/// Django's command, run against node 1.
fn django(group: &Group, arguments: &[&str]) -> Output {
    let mut command = python(group, 1);
    command.args(["-m", "django"]).args(arguments);
    command.env("PYTHONPATH", PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("django"));
    command.env("DJANGO_SETTINGS_MODULE", "shop_settings").output().unwrap()
}

/// 30 revisions with changes of data between them, up on one node, down on another, and up again.
#[test]
fn a_chain_of_alembic_revisions_goes_up_and_down_while_others_write() {
    let group = emptied();
    let scripts = tempfile::tempdir().unwrap();
    let migrate = |number, command: &str, to: &str| {
        let program = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("alembic/chain.py");
        let output = python(&group, number).arg(program).arg(scripts.path()).args([command, to]).output().unwrap();
        succeeded(&output, &format!("{command} {to}"));
        group.settle();
    };
    while_others_write(&group, || {
        migrate(1, "upgrade", "head");
        migrate(2, "downgrade", "12");
        migrate(3, "upgrade", "head");
    });
    catalog::assert_same(&group);
    harness::assert_equal(&group);
    assert_eq!(group.value(node(3), "SELECT version_num FROM alembic_version"), "30");
    assert_eq!(group.value(node(2), "SELECT count(*) FROM customer"), "501");
    // The downgrade has dropped what was archived.
    assert_eq!(group.value(node(1), "SELECT (SELECT count(*) FROM orders) + (SELECT count(*) FROM archive.orders)"), "429");
    migrate(1, "downgrade", "base");
    let left =
        "SELECT count(*) FROM pg_class WHERE relname IN ('customer', 'orders', 'purchase', 'item', 'event', 'totals')";
    assert_eq!(group.values(left), ["0", "0", "0"]);
}

#[test]
fn the_migrations_of_djangos_own_applications_run_while_others_write() {
    let group = emptied();
    while_others_write(&group, || {
        succeeded(&django(&group, &["migrate"]), "migrate");
        let user = ["createsuperuser", "--noinput", "--username", "ana", "--email", "ana@example.com"];
        succeeded(&django(&group, &user), "createsuperuser");
        // Back to nothing, and again.
        succeeded(&django(&group, &["migrate", "flatpages", "zero"]), "migrate to zero");
        succeeded(&django(&group, &["migrate"]), "the second migrate");
    });
    catalog::assert_same(&group);
    harness::assert_equal(&group);
    assert_eq!(group.value(node(3), "SELECT string_agg(username, ',') FROM auth_user"), "ana");
    let applied: usize = group.value(node(2), "SELECT count(*) FROM django_migrations").parse().unwrap();
    assert!(applied > 20, "{applied}");
}
