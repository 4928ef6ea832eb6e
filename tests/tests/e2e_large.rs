//! Transactions larger than anybody wants to hold in memory.
//!
//! Small by default, as tests go: some tens of megabytes, many times what a process may keep in memory of one. `LARGE=full` makes
//! them what the documentation promises: gigabytes, millions of rows, values of 100 MB.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::io::Write;
use std::thread;
use std::time::Duration;

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::memory::Watch;
use postgres_r_tests::harness::{self, Group, node, wait};

/// What any one process may hold, in MB, whatever is sent (docs/operations.md).
const FULL_MEMORY_MB: u64 = 512;
/// As much for transactions of `wide_rows()` KB: far below what they change, far above what a process needs for itself.
const SMALL_BACKEND_MB: u64 = 60;

const WITHIN: Duration = Duration::from_secs(180);

fn is_full() -> bool {
    std::env::var("LARGE").is_ok_and(|scale| scale == "full")
}

fn scaled<T>(small: T, full: T) -> T {
    if is_full() { full } else { small }
}

/// Rows of a kilobyte, where it only matters that a transaction takes its time.
fn wide_rows() -> u64 {
    scaled(60_000, 200_000)
}

fn narrow_rows() -> u64 {
    scaled(200_000, 5_000_000)
}

fn make_wide(group: &Group, name: &str) {
    group.execute(node(1), &format!("CREATE TABLE {name} (id bigint PRIMARY KEY, s text)"));
    group.settle();
}

/// Made by the server itself; too short to be compressed.
fn insert_wide(name: &str, from: u64, rows: u64) -> String {
    format!("INSERT INTO {name} SELECT i, repeat(md5(i::text), 32) FROM generate_series({from}, {}) i", from + rows - 1)
}

fn count(group: &Group, name: &str) -> Vec<String> {
    group.values(&format!("SELECT count(*) FROM {name}"))
}

/// Phase and bytes done of the large transactions that the node knows of.
fn large(client: &mut Client) -> Vec<(String, i64)> {
    let rows = client.query("SELECT phase, bytes_done FROM postgres_r.large_transactions", &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn wait_for_phase(client: &mut Client, wanted: &str) {
    wait::until(&format!("phase {wanted}"), WITHIN, || {
        let seen = large(client);
        if seen.iter().any(|(phase, done)| phase == wanted && *done > 0) { Ok(()) } else { Err(format!("{seen:?}")) }
    });
}

fn run_in_background(group: &Group, number: NodeNumber, sql: String) -> thread::JoinHandle<Result<(), postgres::Error>> {
    let mut client = group.connect(number);
    thread::spawn(move || client.batch_execute(&sql))
}

/// Neither PostgreSQL's temporary files nor ours stay behind.
fn assert_no_files_left(group: &Group) {
    for number in group.numbers() {
        wait::until("no temporary files", Duration::from_secs(60), || {
            let ours = std::fs::read_dir(group.playground.cluster(number).data().join("postgres_r")).into_iter().flatten();
            let theirs = group.value(number, "SELECT count(*) FROM pg_ls_tmpdir()");
            match (ours.count(), theirs.as_str()) {
                (0, "0") => Ok(()),
                (ours, theirs) => Err(format!("node {}: {ours} of ours, {theirs} of PostgreSQL's", number.0)),
            }
        });
    }
}

fn assert_all_have(group: &Group, name: &str, rows: u64) {
    harness::assert_equal(group);
    assert_eq!(count(group, name), vec![rows.to_string(); group.numbers().len()]);
    assert_no_files_left(group);
}

/// Makes room on the disk.
fn drop_table(group: &Group, name: &str) {
    group.execute(node(1), &format!("DROP TABLE {name}"));
    group.settle();
}

#[test]
fn a_large_copy_arrives_everywhere_and_nobody_holds_it_in_memory() {
    let group = harness::shared();
    make_wide(&group, "copied");
    let watch = Watch::start(&group);
    let mut views = [group.connect(node(1)), group.connect(node(2))];
    let mut client = group.connect(node(1));
    let rows = scaled(60_000, 2_000_000);
    thread::scope(|scope| {
        let mut writer = client.copy_in("COPY copied FROM STDIN").unwrap();
        for id in 0..rows {
            writeln!(writer, "{id}\t{}", format!("{:032x}", u128::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)).repeat(32))
                .unwrap();
        }
        // Rows are captured when the statement ends.
        let [origin, other] = &mut views;
        scope.spawn(|| wait_for_phase(origin, "capturing"));
        let applied = scope.spawn(|| wait_for_phase(other, "applying"));
        assert_eq!(writer.finish().unwrap(), rows);
        applied.join().unwrap();
    });
    group.settle();
    let peaks = watch.peaks();
    assert_all_have(&group, "copied", rows);
    drop_table(&group, "copied");
    println!("{rows} rows of 1 KB; MB held: {peaks:?}");
    for (name, held) in &peaks {
        // The daemon keeps its log's index and recent entries, whatever the size of a transaction.
        let bound = if name == "gcs" { 200 } else { SMALL_BACKEND_MB };
        let bound = if is_full() { FULL_MEMORY_MB } else { bound };
        assert!(*held < bound, "{name} held {held} MB; {peaks:?}");
    }
}

#[test]
fn changes_of_every_row_arrive_everywhere() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE every (id bigint PRIMARY KEY, n int NOT NULL, s text)");
    group.settle();
    let watch = Watch::start(&group);
    let rows = narrow_rows();
    let insert = format!("INSERT INTO every SELECT i, i % 100, 'row ' || i FROM generate_series(1, {rows}) i");
    group.execute(node(1), &insert);
    group.settle();
    // More rows than have keys of their own.
    group.execute(node(2), "UPDATE every SET n = n + 1");
    assert_all_have(&group, "every", rows);
    assert_eq!(group.value(node(3), "SELECT sum(n) FROM every"), (rows / 100 * 5050).to_string());
    group.execute(node(3), "UPDATE every SET id = -id WHERE id % 10 = 0");
    assert_all_have(&group, "every", rows);
    group.execute(node(1), "DELETE FROM every");
    assert_all_have(&group, "every", 0);
    let peaks = watch.peaks();
    drop_table(&group, "every");
    println!("{rows} rows; MB held: {peaks:?}");
    assert!(peaks.values().all(|held| *held < FULL_MEMORY_MB), "{peaks:?}");
}

/// Each row takes the value that another one has until its own turn comes: all of them are in doubt until the end.
#[test]
fn a_deferred_constraint_that_every_row_breaks_for_a_while_holds_in_the_end() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE shifted (id int PRIMARY KEY, p int UNIQUE DEFERRABLE INITIALLY DEFERRED)");
    group.settle();
    let rows = scaled(100_000, 500_000);
    group.execute(node(1), &format!("INSERT INTO shifted SELECT i, i FROM generate_series(1, {rows}) i"));
    group.execute(node(1), "UPDATE shifted SET p = p + 1");
    assert_all_have(&group, "shifted", rows);
}

#[test]
fn values_of_many_megabytes_arrive_whole() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE big (id int PRIMARY KEY, b bytea, s text, n int)");
    group.settle();
    let watch = Watch::start(&group);
    let megabytes = scaled(20, 100);
    group.execute(node(1), &format!("INSERT INTO big SELECT 1, NULL, repeat('x', {megabytes}000000), 0"));
    // Nothing in it repeats, so it is stored as it is.
    let blocks = megabytes * 1_000_000 / 64;
    let noise = format!("(SELECT string_agg(sha512(i::text::bytea), ''::bytea) FROM generate_series(1, {blocks}) i)");
    group.execute(node(2), &format!("INSERT INTO big VALUES (2, {noise}, 'short', 0)"));
    group.settle();
    group.execute(node(3), "UPDATE big SET n = n + 1");
    group.settle();
    group.execute(node(3), "UPDATE big SET s = left(b::text, 1000000) WHERE id = 2");
    group.settle();
    let peaks = watch.peaks();
    println!("values of {megabytes} MB; MB held: {peaks:?}");
    assert!(peaks.values().all(|held| *held < FULL_MEMORY_MB), "{peaks:?}");
    assert_all_have(&group, "big", 2);
    let lengths =
        group.value(node(1), "SELECT string_agg(length(s) + coalesce(length(b), 0) || '', ' ' ORDER BY id) FROM big");
    assert_eq!(lengths, format!("{megabytes}000000 {}", blocks * 64 + 1_000_000));
    drop_table(&group, "big");
}

#[test]
fn a_transaction_above_the_limit_is_refused_as_soon_as_it_is_above() {
    let group = harness::shared();
    make_wide(&group, "limited");
    let mut client = group.connect(node(1));
    client.batch_execute("SET postgres_r.max_writeset_size = '8MB'; BEGIN").unwrap();
    client.batch_execute(&insert_wide("limited", 1, 5_000)).unwrap();
    let error = client.batch_execute(&insert_wide("limited", 5_001, 5_000)).unwrap_err();
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "54000", "{error:?}");
    assert!(error.detail().unwrap().contains("8388608"), "{error:?}");
    assert!(error.hint().unwrap().contains("postgres_r.max_writeset_size"), "{error:?}");
    client.batch_execute("ROLLBACK").unwrap();
    client.batch_execute(&insert_wide("limited", 1, 5_000)).unwrap();
    assert_all_have(&group, "limited", 5_000);
}

#[test]
fn a_temporary_file_of_a_transaction_counts_against_temp_file_limit() {
    let group = harness::shared();
    make_wide(&group, "spilled");
    let mut client = group.connect(node(1));
    client.batch_execute("SET temp_file_limit = '6MB'").unwrap();
    let error = client.batch_execute(&insert_wide("spilled", 1, 20_000)).unwrap_err();
    assert_eq!(error.as_db_error().unwrap().code().code(), "53400", "{error:?}");
    client.batch_execute(&insert_wide("spilled", 1, 1_000)).unwrap();
    assert_all_have(&group, "spilled", 1_000);
}

#[test]
fn what_a_savepoint_undoes_after_it_has_spilled_leaves_nothing_behind() {
    let group = harness::shared();
    make_wide(&group, "undone");
    let some = scaled(6_000, 100_000);
    let mut client = group.connect(node(1));
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(&insert_wide("undone", 1, some)).unwrap();
    client.batch_execute("SAVEPOINT a").unwrap();
    client.batch_execute(&insert_wide("undone", some + 1, 2 * some)).unwrap();
    client.batch_execute("UPDATE undone SET s = 'other' WHERE id % 7 = 0; SAVEPOINT b").unwrap();
    client.batch_execute("DELETE FROM undone; RELEASE b; ROLLBACK TO a").unwrap();
    client.batch_execute(&insert_wide("undone", 10 * some, some)).unwrap();
    client.batch_execute("COMMIT").unwrap();
    assert_all_have(&group, "undone", 2 * some);
    // Nothing is left to be sent, but the file is there.
    client.batch_execute("BEGIN; SAVEPOINT a").unwrap();
    client.batch_execute(&insert_wide("undone", 20 * some, some)).unwrap();
    client.batch_execute("ROLLBACK TO a; COMMIT").unwrap();
    assert_all_have(&group, "undone", 2 * some);
    client.batch_execute("BEGIN").unwrap();
    client.batch_execute(&insert_wide("undone", 20 * some, some)).unwrap();
    client.batch_execute("ROLLBACK").unwrap();
    assert_all_have(&group, "undone", 2 * some);
}

/// The trigger of a row changes the next one, which is there already but whose own capture has yet to come: as captured, that
/// update stands before the insert of its row.
#[test]
fn what_triggers_write_for_each_row_keeps_its_order_after_spilling() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE chain (id int PRIMARY KEY, touched int NOT NULL DEFAULT 0, s text);
         CREATE TABLE chain_log (id bigserial PRIMARY KEY, of int NOT NULL);
         CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             UPDATE chain SET touched = touched + NEW.id WHERE id = NEW.id + 1;
             INSERT INTO chain_log (of) VALUES (NEW.id);
             RETURN NULL; END $$;
         CREATE TRIGGER touch AFTER INSERT ON chain FOR EACH ROW EXECUTE FUNCTION touch()",
    );
    group.settle();
    let rows = scaled(30_000, 500_000);
    let text = "repeat(md5(i::text), 8)";
    group.execute(node(1), &format!("INSERT INTO chain SELECT i, 0, {text} FROM generate_series(1, {rows}) i"));
    assert_all_have(&group, "chain_log", rows);
    assert_eq!(group.value(node(2), "SELECT count(*) FROM chain WHERE touched = id - 1"), rows.to_string());
}

#[test]
fn others_commit_while_a_large_transaction_is_being_sent() {
    let group = harness::shared();
    make_wide(&group, "sent");
    group.execute(node(1), "CREATE TABLE meanwhile (n int PRIMARY KEY)");
    group.settle();
    let mut view = group.connect(node(1));
    let (mut here, mut there) = (group.connect(node(1)), group.connect(node(3)));
    let sending = run_in_background(&group, node(1), insert_wide("sent", 1, wide_rows()));
    wait_for_phase(&mut view, "sending");
    here.batch_execute("INSERT INTO meanwhile VALUES (1)").unwrap();
    there.batch_execute("INSERT INTO meanwhile VALUES (2)").unwrap();
    assert_eq!(large(&mut view).first().map(|(phase, _)| phase.clone()), Some("sending".to_owned()), "it was over too soon");
    sending.join().unwrap().unwrap();
    assert_all_have(&group, "sent", wide_rows());
    drop_table(&group, "sent");
}

#[test]
fn a_commit_waits_for_a_large_one_that_goes_first_longer_than_commit_timeout() {
    let group = harness::shared();
    make_wide(&group, "slow");
    // Each costs where the row is applied what it costs where it is made: seconds in all.
    for n in 0..16 {
        group.execute(node(1), &format!("CREATE INDEX ON slow (md5(s || '{n}'))"));
    }
    group.execute(node(1), "CREATE TABLE quick (n int PRIMARY KEY)");
    group.settle();
    let mut view = group.connect(node(2));
    let mut client = group.connect(node(2));
    client.batch_execute("SET postgres_r.commit_timeout = '1s'").unwrap();
    let sending = run_in_background(&group, node(1), insert_wide("slow", 1, wide_rows()));
    wait_for_phase(&mut view, "applying");
    client.batch_execute("INSERT INTO quick VALUES (1)").unwrap();
    sending.join().unwrap().unwrap();
    assert_all_have(&group, "slow", wide_rows());
    drop_table(&group, "slow");
}

fn survives_the_end_of(daemon_of: impl Fn(&Group) -> NodeNumber, name: &str) {
    let group = harness::shared();
    make_wide(&group, name);
    let mut view = group.connect(node(1));
    let sending = run_in_background(&group, node(1), insert_wide(name, 1, wide_rows()));
    wait_for_phase(&mut view, "sending");
    let number = daemon_of(&group);
    group.kill(number, Part::Gcs);
    group.start_node(number);
    sending.join().unwrap().unwrap();
    assert_all_have(&group, name, wide_rows());
    drop_table(&group, name);
}

#[test]
fn a_large_transaction_survives_kill_9_of_its_own_daemon() {
    survives_the_end_of(|_| node(1), "own_daemon");
}

#[test]
fn a_large_transaction_survives_kill_9_of_the_leader() {
    let leader = |group: &Group| {
        let name = group.value(node(1), "SELECT node FROM postgres_r.members WHERE leader");
        group.numbers().into_iter().find(|number| group.playground.name(*number) == name).unwrap()
    };
    survives_the_end_of(leader, "the_leader");
}

/// Waits until the node takes clients again.
fn wait_for_clients(group: &Group, number: NodeNumber) {
    wait::until("the node takes clients", Duration::from_secs(120), || {
        let mut client = group.try_connect(number).map_err(|error| error.to_string())?;
        client.batch_execute("SELECT 1").map_err(|error| error.to_string())
    });
}

#[test]
fn nothing_is_left_of_a_large_transaction_whose_backend_is_killed_while_it_is_sent() {
    let group = harness::shared();
    make_wide(&group, "killed");
    let mut view = group.connect(node(1));
    let sending = run_in_background(&group, node(1), insert_wide("killed", 1, wide_rows()));
    wait_for_phase(&mut view, "sending");
    let pid: i32 = view.query_one("SELECT pid FROM postgres_r.large_transactions", &[]).unwrap().get(0);
    let data = group.playground.cluster(node(1)).data();
    let backend = gcs::playground::process::Process::find(pid, &data).unwrap();
    assert!(backend.signal(Signal::KILL));
    sending.join().unwrap().unwrap_err();
    drop(view);
    wait_for_clients(&group, node(1));
    assert_all_have(&group, "killed", 0);
    group.execute(node(1), &insert_wide("killed", 1, 10_000));
    assert_all_have(&group, "killed", 10_000);
}

#[test]
fn a_node_that_is_killed_while_it_applies_a_large_transaction_applies_it_again() {
    let group = harness::shared();
    make_wide(&group, "again");
    let mut view = group.connect(node(2));
    // In its turn, and not ahead of it.
    let insert = insert_wide("again", 1, wide_rows());
    group.execute(node(1), &format!("SET postgres_r.apply_ahead_size = -1; {insert}"));
    wait_for_phase(&mut view, "applying");
    group.kill(node(2), Part::Postgres);
    drop(view);
    group.start_node(node(2));
    wait_for_clients(&group, node(2));
    assert_all_have(&group, "again", wide_rows());
    drop_table(&group, "again");
}

/// A large table is read by parallel workers, in which no newer snapshot may be taken.
#[test]
fn a_query_of_a_replicated_table_runs_in_parallel() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE read (n int PRIMARY KEY); INSERT INTO read SELECT generate_series(1, 1000)");
    group.settle();
    for number in group.numbers() {
        let mut client = group.connect(number);
        client.batch_execute("SET force_parallel_mode = on").unwrap();
        let count: i64 = client.query_one("SELECT count(*) FROM read", &[]).unwrap().get(0);
        assert_eq!(count, 1000);
    }
}
