//! NOTIFY in the group (ADR 53): listeners on every node are told, once, in the order of the group, when and only if the transaction commits.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::group::describe;
use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres::fallible_iterator::FallibleIterator;
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait, workload_seconds};

/// Far above what it takes: what does not come within it does not come.
const WITHIN: Duration = Duration::from_secs(30);

/// The last notification of a test, in each database that is listened to.
const END: &str = "end";

#[derive(Clone, Debug, PartialEq, Eq)]
struct Heard {
    channel: String,
    payload: String,
    pid: i32,
}

fn run(client: &mut Client, statements: &[&str]) {
    for statement in statements {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {}", describe(&error)));
    }
}

fn code(client: &mut Client, statement: &str) -> String {
    let error = client.batch_execute(statement).expect_err(statement);
    let _ = client.batch_execute("ROLLBACK");
    error.code().map(|code| code.code().to_owned()).unwrap_or_default()
}

fn listening(mut client: Client, channels: &str) -> Client {
    for channel in channels.split(' ') {
        run(&mut client, &[&format!("LISTEN {channel}")]);
    }
    client
}

/// One that listens on each node.
fn listeners(group: &Group, channels: &str) -> Vec<Client> {
    group.numbers().into_iter().map(|number| listening(group.connect(number), channels)).collect()
}

/// What came before the end, and nothing behind it.
fn heard(client: &mut Client) -> Vec<Heard> {
    let mut heard = Vec::new();
    let mut notifications = client.notifications();
    let mut waiting = notifications.timeout_iter(WITHIN);
    while let Some(notification) = waiting.next().unwrap() {
        let (channel, payload) = (notification.channel().to_owned(), notification.payload().to_owned());
        if payload == END {
            return heard;
        }
        heard.push(Heard { channel, payload, pid: notification.process_id() });
    }
    panic!("the end did not come within {WITHIN:?}; before it came {heard:?}");
}

fn payloads(client: &mut Client) -> Vec<String> {
    heard(client).into_iter().map(|heard| heard.payload).collect()
}

/// What each node's listener has heard of one channel, once it has heard the end.
fn heard_everywhere(group: &Group, listeners: &mut [Client], channel: &str) -> Vec<Vec<String>> {
    group.execute(node(1), &format!("NOTIFY {channel}, '{END}'"));
    listeners.iter_mut().map(payloads).collect()
}

const OBJECTS: &str = "CREATE TABLE told (id int PRIMARY KEY, n int);
    CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('news', 'row ' || NEW.id); RETURN NEW; END $$;
    CREATE TRIGGER tell AFTER INSERT ON told FOR EACH ROW EXECUTE FUNCTION tell();
    CREATE FUNCTION tell_all() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NOTIFY news, 'deferred'; RETURN NULL; END $$;
    CREATE CONSTRAINT TRIGGER last AFTER INSERT ON told DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION tell_all();
    CREATE TABLE ruled (id int PRIMARY KEY);
    CREATE RULE ruled AS ON INSERT TO ruled DO ALSO NOTIFY news, 'rule';
    CREATE FUNCTION tries() RETURNS void LANGUAGE plpgsql AS $$ BEGIN
        NOTIFY news, 'kept';
        BEGIN PERFORM pg_notify('news', 'caught'); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NOTIFY news, 'handled'; END;
        BEGIN PERFORM pg_notify('news', 'inner'); EXCEPTION WHEN OTHERS THEN NULL; END;
        NOTIFY news, 'caught';
    END $$";

/// Each a message of its own.
const STATEMENTS: [&str; 22] = [
    "NOTIFY news",
    "NOTIFY news, 'alone'",
    "SELECT pg_notify('news', 'function')",
    "SELECT pg_notify('news', NULL), pg_notify('news', '')",
    "BEGIN; INSERT INTO told VALUES (1); NOTIFY news, 'with rows'; INSERT INTO told VALUES (2); COMMIT",
    "BEGIN; NOTIFY news, 'rolled back'; INSERT INTO told VALUES (3); ROLLBACK",
    "BEGIN; NOTIFY news, 'a'; NOTIFY news, 'b'; NOTIFY news, 'a'; NOTIFY more, 'a'; NOTIFY news, 'a'; COMMIT",
    "NOTIFY news, 'a'",
    "BEGIN; NOTIFY news, '1'; SAVEPOINT s; NOTIFY news, '2'; NOTIFY news, '1'; ROLLBACK TO s; NOTIFY news, '3'; NOTIFY news, '2'; COMMIT",
    "BEGIN; SAVEPOINT s; NOTIFY news, 'x'; SAVEPOINT t; NOTIFY news, 'y'; RELEASE t; NOTIFY news, 'x'; ROLLBACK TO s; NOTIFY news, 'z'; COMMIT",
    "BEGIN; SAVEPOINT s; SAVEPOINT t; NOTIFY news, 'p'; RELEASE t; NOTIFY news, 'q'; NOTIFY news, 'p'; RELEASE s; NOTIFY news, 'p'; COMMIT",
    "SELECT pg_notify('news', 'n' || n % 5) FROM generate_series(1, 40) n",
    "INSERT INTO told SELECT n, n FROM generate_series(10, 30) n",
    "INSERT INTO told VALUES (40, 1) ON CONFLICT DO NOTHING",
    "INSERT INTO ruled VALUES (1)",
    "DO $$ BEGIN PERFORM pg_notify('more', 'from do'); EXECUTE 'NOTIFY news, ''executed'''; END $$",
    "SELECT tries()",
    "SELECT pg_notify('news', repeat('long', 1999))",
    "BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT count(*) FROM told; NOTIFY news, 'serializable'; COMMIT",
    "BEGIN READ ONLY; NOTIFY news, 'read only'; COMMIT",
    "CREATE TEMP TABLE own (id int); INSERT INTO own VALUES (1); NOTIFY news, 'temporary'",
    "BEGIN; CREATE TABLE made (id int); NOTIFY news, 'made'; COMMIT",
];

#[test]
fn what_one_server_would_tell_every_node_tells() {
    let group = harness::shared();
    let mut plain = group.playground.connect(node(1), "postgres").unwrap();
    let mut here = group.connect(node(2));
    run(&mut plain, &[OBJECTS]);
    run(&mut here, &[OBJECTS]);
    group.settle();
    let mut of_plain = listening(group.playground.connect(node(1), "postgres").unwrap(), "news more");
    let mut listeners = listeners(&group, "news more");
    for statement in STATEMENTS {
        run(&mut plain, &[statement]);
        run(&mut here, &[statement]);
    }
    run(&mut plain, &["NOTIFY more, 'end'"]);
    run(&mut here, &["NOTIFY more, 'end'"]);
    let shown = |heard: Vec<Heard>| heard.into_iter().map(|one| (one.channel, one.payload)).collect::<Vec<_>>();
    let expected = shown(heard(&mut of_plain));
    assert!(expected.len() > 50, "{expected:?}");
    for (number, listener) in group.numbers().into_iter().zip(&mut listeners) {
        assert_eq!(shown(heard(listener)), expected, "on node {}", number.0);
    }
    // PostgreSQL's own errors, before anybody else is asked.
    assert_eq!(code(&mut here, "SELECT pg_notify('', 'x')"), "22023");
    assert_eq!(code(&mut here, "SELECT pg_notify('news', repeat('x', 8000))"), "22023");
    assert_eq!(code(&mut here, &format!("SELECT pg_notify('{}', '')", "c".repeat(64))), "22023");
    run(&mut plain, &["DROP TABLE told, ruled, made; DROP FUNCTION tell, tell_all, tries"]);
    harness::assert_equal(&group);
}

#[test]
fn whoever_listens_hears_of_a_process_of_its_own_node() {
    let group = harness::shared();
    let mut listeners = listeners(&group, "whose");
    let mut here = group.connect(node(1));
    let pid: i32 = here.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    run(&mut here, &["NOTIFY whose, 'me'", "NOTIFY whose, 'end'"]);
    let pids: Vec<i32> = listeners.iter_mut().map(|listener| heard(listener)[0].pid).collect();
    assert_eq!(pids[0], pid);
    for (number, pid) in group.numbers().into_iter().zip(&pids).skip(1) {
        let query = format!("SELECT backend_type LIKE 'postgres_r remote%' FROM pg_stat_activity WHERE pid = {pid}");
        assert_eq!(group.value(number, &query), "true");
    }
}

#[test]
fn with_notify_local_and_in_other_databases_nobody_else_hears() {
    let group = harness::shared();
    let mut listeners = listeners(&group, "quiet");
    let mut other = listening(group.playground.connect(node(2), "postgres").unwrap(), "quiet");
    let mut here = group.connect(node(1));
    run(
        &mut here,
        &[
            "SET postgres_r.notify = local",
            "NOTIFY quiet, 'local'",
            "BEGIN; CREATE TABLE quiet (id int); NOTIFY quiet, 'local, with a table'; COMMIT",
            // What counts is the setting when NOTIFY is run.
            "BEGIN; NOTIFY quiet, 'first'; SET LOCAL postgres_r.notify = 'group'; NOTIFY quiet, 'second'; COMMIT",
        ],
    );
    let mut plain = group.playground.connect(node(1), "postgres").unwrap();
    run(&mut plain, &["NOTIFY quiet, 'of another database'"]);
    let heard = heard_everywhere(&group, &mut listeners, "quiet");
    assert_eq!(heard[0], ["local", "local, with a table", "first", "second"]);
    assert_eq!(heard[1], ["second"]);
    assert_eq!(heard[2], ["second"]);
    run(&mut group.playground.connect(node(2), "postgres").unwrap(), &["NOTIFY quiet, 'end'"]);
    assert_eq!(payloads(&mut other), [""; 0]);
}

#[test]
fn what_several_transactions_say_alike_is_said_as_often_although_they_are_applied_together() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE alike (id int PRIMARY KEY)");
    group.settle();
    let mut listeners = listeners(&group, "alike");
    let runs =
        |group: &Group| group.value(node(2), "SELECT apply_runs FROM postgres_r.pg_stat_postgres_r").parse::<i64>().unwrap();
    let before = runs(&group);
    let stopped = Stopped::remote_backends(&group, node(2));
    let mut here = group.connect(node(1));
    for n in 0..40 {
        let payload = if n < 20 { format!("job {n}") } else { "job".to_owned() };
        run(&mut here, &[&format!("BEGIN; INSERT INTO alike VALUES ({n}); NOTIFY alike, '{payload}'; COMMIT")]);
    }
    drop(stopped);
    let heard = heard_everywhere(&group, &mut listeners, "alike");
    let expected: Vec<String> = (0..20).map(|n| format!("job {n}")).chain((20..40).map(|_| "job".to_owned())).collect();
    assert!(heard.iter().all(|of_node| *of_node == expected), "{heard:?}");
    assert!(runs(&group) > before, "nothing was applied together");
    harness::assert_equal(&group);
}

#[test]
fn what_is_applied_ahead_is_told_once() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE ahead (id int PRIMARY KEY)");
    group.settle();
    let mut listeners = listeners(&group, "ahead");
    let ahead = |group: &Group| {
        group.value(node(2), "SELECT applied_ahead FROM postgres_r.pg_stat_postgres_r").parse::<i64>().unwrap()
    };
    let before = ahead(&group);
    let mut here = group.connect(node(1));
    let fill = "INSERT INTO ahead SELECT generate_series(1, 20000)";
    run(
        &mut here,
        &[
            "SET postgres_r.apply_ahead_size = 0",
            &format!("BEGIN; {fill}; NOTIFY ahead, 'filled'; COMMIT"),
            "BEGIN; DELETE FROM ahead; NOTIFY ahead, 'rolled back'; ROLLBACK",
            "BEGIN; DELETE FROM ahead; NOTIFY ahead, 'emptied'; COMMIT",
        ],
    );
    let heard = heard_everywhere(&group, &mut listeners, "ahead");
    assert!(heard.iter().all(|of_node| *of_node == ["filled", "emptied"]), "{heard:?}");
    assert!(ahead(&group) >= before + 2, "nothing was applied ahead");
}

#[test]
fn a_transaction_that_its_session_could_not_finish_is_told_once() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE unfinished (id int PRIMARY KEY)");
    group.settle();
    let mut listeners = listeners(&group, "unfinished");
    let mut there = group.connect(node(2));
    let pid: i32 = there.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    let stopped = Stopped::remote_backends(&group, node(2));
    group.execute(node(1), "INSERT INTO unfinished VALUES (1)");
    thread::scope(|scope| {
        let waiting = scope.spawn(move || {
            there.batch_execute("BEGIN; INSERT INTO unfinished VALUES (2); NOTIFY unfinished, 'handed over'; COMMIT")
        });
        // It is certified, and waits for its turn behind what is not applied there.
        group.becomes(node(1), "SELECT count(*) FROM unfinished", "2", WITHIN);
        group.execute(node(2), &format!("SELECT pg_terminate_backend({pid})"));
        waiting.join().unwrap().unwrap_err();
    });
    drop(stopped);
    let heard = heard_everywhere(&group, &mut listeners, "unfinished");
    assert!(heard.iter().all(|of_node| *of_node == ["handed over"]), "{heard:?}");
    harness::assert_equal(&group);
}

#[test]
fn without_a_majority_notify_is_refused_as_a_write_is() {
    let group = harness::shared();
    group.settle();
    let mut listeners = listeners(&group, "minority");
    let mut here = group.connect(node(3));
    for number in [1, 2] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    assert_eq!(code(&mut here, "NOTIFY minority, 'refused'"), "25006");
    assert_eq!(code(&mut here, "BEGIN READ ONLY; SELECT pg_notify('minority', 'refused'); COMMIT"), "25006");
    run(&mut here, &["SET postgres_r.notify = local; NOTIFY minority, 'local'; RESET postgres_r.notify"]);
    for number in [1, 2] {
        group.start_node(node(number));
    }
    wait::until("a notification after the daemons are back", WITHIN, || {
        here.batch_execute("NOTIFY minority, 'back'").map_err(|error| describe(&error))
    });
    group.settle();
    let heard = heard_everywhere(&group, &mut listeners, "minority");
    assert_eq!(heard, [vec!["back"], vec!["back"], vec!["local", "back"]]);
}

#[test]
fn a_node_that_was_killed_tells_those_who_listen_again() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE killed (id int PRIMARY KEY)");
    let mut others = listeners(&group, "killed");
    let lost = others.pop().unwrap();
    group.kill(node(3), Part::Postgres);
    drop(lost);
    run(&mut group.connect(node(1)), &["BEGIN; INSERT INTO killed VALUES (1); NOTIFY killed, 'while away'; COMMIT"]);
    group.start_node(node(3));
    let (back, _) =
        wait::until("the node takes clients", WITHIN, || group.try_connect(node(3)).map_err(|error| error.to_string()));
    let back = listening(back, "killed");
    run(&mut group.connect(node(2)), &["BEGIN; INSERT INTO killed VALUES (2); NOTIFY killed, 'again'; COMMIT"]);
    others.push(back);
    let heard = heard_everywhere(&group, &mut others, "killed");
    assert_eq!(heard[0], ["while away", "again"]);
    assert_eq!(heard[1], heard[0]);
    // What was told while it was away may come late to whoever is quick to listen; it never comes twice, nor in another order.
    assert!(heard[2].ends_with(&["again".to_owned()]) && heard[0].ends_with(&heard[2]), "{heard:?}");
    harness::assert_equal(&group);
}

fn make(database: &Database<'_>, encoding: &str) {
    for number in database.group.numbers() {
        let name = database.name;
        let sql = format!("CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0");
        database.on_server(number, &sql).unwrap();
        database.execute(number, "CREATE EXTENSION postgres_r");
        database.start(number).unwrap();
        wait::until("its copy", Duration::from_secs(120), || {
            database.try_connect(number).map(drop).map_err(|error| describe(&error))
        });
    }
}

#[test]
fn a_database_of_another_encoding_tells_the_same_everywhere() {
    let group = harness::shared();
    let database = Database { group: &group, name: "latin_news" };
    make(&database, "LATIN1");
    let mut listeners: Vec<Client> =
        group.numbers().into_iter().map(|number| listening(database.connect(number), "größe")).collect();
    let long = "é".repeat(7999);
    database.execute(node(2), "NOTIFY größe, 'für'");
    database.execute(node(2), &format!("SELECT pg_notify('größe', '{long}')"));
    database.execute(node(2), "NOTIFY größe, 'end'");
    for listener in &mut listeners {
        assert_eq!(payloads(listener), ["für", &long]);
    }
    drop(listeners);
    database.end();
}

#[test]
fn in_a_database_without_an_encoding_what_is_not_utf8_is_refused() {
    let group = harness::shared();
    let database = Database { group: &group, name: "ascii_news" };
    make(&database, "SQL_ASCII");
    let mut listener = listening(database.connect(node(1)), "bytes");
    let mut here = database.connect(node(2));
    let bytes = "SELECT pg_notify('bytes', convert_from('\\xe9', 'SQL_ASCII'))";
    assert_eq!(code(&mut here, bytes), "0A000");
    run(&mut here, &["NOTIFY bytes, 'für'", "SET postgres_r.notify = local", bytes, "RESET postgres_r.notify"]);
    run(&mut here, &["NOTIFY bytes, 'end'"]);
    assert_eq!(payloads(&mut listener), ["für"]);
    drop((listener, here));
    database.end();
}

/// The server's queue in shared memory, AsyncQueueControl of async.c: what fills it, 8 GB that wait to be read, is pretended.
struct Queue {
    memory: File,
    start: u64,
}

impl Queue {
    /// Two positions of two integers each stand before the page at which the queue is cut off; then the first listener, and a time.
    const HEAD_PAGE: u64 = 0;
    const STOP_PAGE: u64 = 16;
    const SEGMENT_PAGES: i32 = 32;
    const LISTENERS: u64 = 32;
    /// Of a listener: its pid, its database, the next one, its position.
    const LISTENER_BYTES: u64 = 20;
    const POSITION: u64 = 12;
    const PAGES: i32 = 32 << 16;

    fn of(group: &Group, number: NodeNumber) -> Queue {
        let query = "SELECT off FROM pg_shmem_allocations WHERE name = 'Async Queue Control'";
        let offset: u64 = group.value(number, query).parse().unwrap();
        let pid = group.playground.cluster(number).process().unwrap().pid;
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
        let segment = maps.lines().find(|line| line.contains("/dev/zero")).unwrap();
        let start = u64::from_str_radix(segment.split('-').next().unwrap(), 16).unwrap();
        let memory = OpenOptions::new().read(true).write(true).open(format!("/proc/{pid}/mem")).unwrap();
        Queue { memory, start: start + offset }
    }

    fn read(&self, at: u64) -> i32 {
        let mut bytes = [0; 4];
        self.memory.read_exact_at(&mut bytes, self.start + at).unwrap();
        i32::from_le_bytes(bytes)
    }

    fn write(&self, at: u64, value: i32) {
        self.memory.write_all_at(&value.to_le_bytes(), self.start + at).unwrap();
    }

    /// Where the page stands up to which this listener has read.
    fn page_of(&self, pid: i32) -> u64 {
        let mut listeners = (0..400).map(|nth| Queue::LISTENERS + nth * Queue::LISTENER_BYTES);
        listeners.find(|&at| self.read(at) == pid).unwrap() + Queue::POSITION
    }
}

#[test]
fn where_the_queue_is_nearly_full_notify_is_refused_before_it_is_ordered() {
    let group = harness::shared();
    group.settle();
    let mut listeners = listeners(&group, "nearly");
    let mut lazy = listening(group.connect(node(2)), "other");
    let pid: i32 = lazy.query_one("SELECT pg_backend_pid()", &[]).unwrap().get(0);
    // It reads nothing meanwhile.
    run(&mut lazy, &["BEGIN"]);
    let queue = Queue::of(&group, node(2));
    let place = queue.page_of(pid);
    let page = queue.read(place);
    queue.write(place, (page + Queue::PAGES - Queue::PAGES / 2 / 1000 * 995) % Queue::PAGES);
    let refused = code(&mut group.connect(node(2)), "NOTIFY nearly, 'refused'");
    let other = group.connect(node(1)).batch_execute("NOTIFY nearly, 'of another node'");
    queue.write(place, page);
    assert_eq!(refused, "54000");
    other.unwrap();
    run(&mut lazy, &["COMMIT"]);
    run(&mut group.connect(node(2)), &["NOTIFY nearly, 'again'"]);
    let heard = heard_everywhere(&group, &mut listeners, "nearly");
    assert!(heard.iter().all(|of_node| *of_node == ["of another node", "again"]), "{heard:?}");
}

#[test]
fn where_the_queue_is_full_rows_are_applied_without_being_told() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE untold (id int PRIMARY KEY)");
    group.settle();
    let mut listeners = listeners(&group, "untold");
    let lost = "SELECT notifications_lost FROM postgres_r.pg_stat_postgres_r";
    assert_eq!(group.value(node(2), lost), "0");
    // In a segment ahead of where the queue is written.
    let queue = Queue::of(&group, node(2));
    let written = queue.read(Queue::HEAD_PAGE);
    queue.write(Queue::STOP_PAGE, (written / Queue::SEGMENT_PAGES + 2) * Queue::SEGMENT_PAGES);
    run(&mut group.connect(node(1)), &["BEGIN; INSERT INTO untold VALUES (1); NOTIFY untold, 'of another node'; COMMIT"]);
    group.settle();
    assert_eq!(group.value(node(2), lost), "1");
    // Certified before it turns out that there is no room.
    assert_eq!(
        code(&mut group.connect(node(2)), "BEGIN; INSERT INTO untold VALUES (2); NOTIFY untold, 'here'; COMMIT"),
        "08007"
    );
    group.settle();
    assert_eq!(group.value(node(2), lost), "2");
    assert_eq!(group.values("SELECT count(*) FROM untold"), ["2", "2", "2"]);
    queue.write(Queue::STOP_PAGE, written / Queue::SEGMENT_PAGES * Queue::SEGMENT_PAGES);
    let heard = heard_everywhere(&group, &mut listeners, "untold");
    assert_eq!(heard[0], ["of another node", "here"]);
    assert_eq!(heard[1], [""; 0]);
    assert_eq!(heard[2], heard[0]);
    harness::assert_equal(&group);
}

/// Keeps whoever notifies on that server, in a database that is not replicated, in the middle of its commit: it waits for a standby that is not there, with the
/// lock that all who notify take.
fn standby(group: &Group, number: NodeNumber, name: &str) {
    let mut server = group.playground.connect(number, "postgres").unwrap();
    run(&mut server, &[&format!("ALTER SYSTEM SET synchronous_standby_names = '{name}'"), "SELECT pg_reload_conf()"]);
    group.becomes(number, "SELECT current_setting('synchronous_standby_names')", name, WITHIN);
}

fn keeps_waiting(group: &Group, number: NodeNumber, meanwhile: impl FnOnce()) {
    let mut other = group.playground.connect(number, "postgres").unwrap();
    run(&mut other, &["CREATE TABLE IF NOT EXISTS kept (n int)"]);
    standby(group, number, "nobody");
    thread::scope(|scope| {
        let keeper = scope.spawn(move || {
            run(&mut other, &["BEGIN; INSERT INTO kept VALUES (1); NOTIFY other; COMMIT", "SELECT 1"]);
        });
        group.becomes(number, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'", "1", WITHIN);
        meanwhile();
        standby(group, number, "");
        keeper.join().unwrap();
    });
}

/// Until a process of this kind waits for that lock, and then for so long that it would have done something about it.
fn waits_in_its_turn(group: &Group, number: NodeNumber, kind: &str) {
    let query = format!(
        "SELECT count(*) FROM pg_locks l JOIN pg_stat_activity a USING (pid) WHERE NOT l.granted AND l.locktype = 'object'
         AND l.classid = 'pg_database'::regclass AND l.objid = 0 AND a.backend_type LIKE '{kind}'
         AND now() - a.xact_start > '1.5 s'"
    );
    group.becomes(number, &query, "1", WITHIN);
}

#[test]
fn who_keeps_the_turn_waiting_in_the_middle_of_a_commit_is_let_through() {
    let group = harness::shared();
    let mut listeners = listeners(&group, "kept");
    let ended =
        |group: &Group| group.value(node(2), "SELECT sessions_ended + aborts_victim FROM postgres_r.pg_stat_postgres_r");
    let before = ended(&group);
    // A remote backend has the turn.
    keeps_waiting(&group, node(2), || {
        group.execute(node(1), "NOTIFY kept, 'of another node'");
        waits_in_its_turn(&group, node(2), "postgres_r remote%");
    });
    // A session has it, which waits for no lock longer than this otherwise.
    let mut here = group.connect(node(2));
    run(&mut here, &["SET lock_timeout = '200ms'"]);
    keeps_waiting(&group, node(2), || {
        let committing = thread::spawn(move || {
            run(&mut here, &["NOTIFY kept, 'here'; SELECT 1", "SHOW lock_timeout", "BEGIN; NOTIFY kept, 'again'; COMMIT"]);
        });
        waits_in_its_turn(&group, node(2), "client backend");
        standby(&group, node(2), "");
        committing.join().unwrap();
    });
    let heard = heard_everywhere(&group, &mut listeners, "kept");
    assert!(heard.iter().all(|of_node| *of_node == ["of another node", "here", "again"]), "{heard:?}");
    assert_eq!(ended(&group), before, "nobody had to give way");
}

const COUNTS: &str = "CREATE TABLE counts (id int PRIMARY KEY, n bigint DEFAULT 0);
    INSERT INTO counts SELECT generate_series(0, 40)";

/// One client: transactions that each count, in a row of its own or in one that all nodes change, and notify the count.
fn counts(mut client: Client, own: usize, stop: &AtomicBool) -> i64 {
    let mut committed = 0;
    for round in 0.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let row = if round % 4 == 0 { 0 } else { own };
        let statement = format!(
            "WITH counted AS (UPDATE counts SET n = n + 1 WHERE id = {row} RETURNING id, n)
             SELECT pg_notify('load', id || ' ' || n) FROM counted"
        );
        match client.query(&statement, &[]) {
            Ok(_) => committed += 1,
            Err(error) => {
                let code = error.code().map(|code| code.code().to_owned());
                assert!(matches!(code.as_deref(), Some("40001" | "40P01")), "{}", describe(&error));
            }
        }
    }
    committed
}

/// Every notification, in order: each row's counts are all there, one after the other.
fn check(heard: &[String], committed: i64) {
    let mut last: BTreeMap<&str, i64> = BTreeMap::new();
    for payload in heard {
        let (row, n) = payload.split_once(' ').unwrap();
        let n: i64 = n.parse().unwrap();
        let before = last.insert(row, n).unwrap_or(0);
        assert_eq!(n, before + 1, "of row {row}");
    }
    assert_eq!(heard.len() as i64, committed);
}

/// Listens until the end, and looks now and then whether the rows are there that it is told of.
fn listens(mut client: Client, mut looker: Client) -> Vec<String> {
    let mut heard = Vec::new();
    let mut notifications = client.notifications();
    let mut waiting = notifications.timeout_iter(WITHIN);
    let query = "SELECT n FROM counts WHERE id = $1";
    while let Some(notification) = waiting.next().unwrap() {
        let payload = notification.payload();
        if payload == END {
            return heard;
        }
        if heard.len() % 16 == 0 {
            let (row, n) = payload.split_once(' ').unwrap();
            let there: i64 = looker.query_one(query, &[&row.parse::<i32>().unwrap()]).unwrap().get(0);
            assert!(there >= n.parse().unwrap(), "{payload} was told, and {there} is there");
        }
        heard.push(payload.to_owned());
    }
    panic!("the end did not come within {WITHIN:?}; {} came", heard.len());
}

/// Writes until it is stopped, in a database that is not replicated, and notifies.
fn makes_noise(mut client: Client, stop: &AtomicBool) {
    run(&mut client, &["CREATE TABLE IF NOT EXISTS noise (n int)"]);
    while !stop.load(Ordering::SeqCst) {
        run(&mut client, &["BEGIN; INSERT INTO noise VALUES (1); NOTIFY noise; COMMIT"]);
    }
}

/// What was heard in one database, by node, and how many transactions were committed there.
type Told = (Vec<Vec<String>>, i64);

/// So many clients a node count in the database until they are stopped; each node's listener hears of it.
fn load(numbers: &[NodeNumber], connect: &(dyn Fn(NodeNumber) -> Client + Sync), clients: usize, stop: &AtomicBool) -> Told {
    thread::scope(|scope| {
        let of_node = |&number: &NodeNumber| {
            let (client, looker) = (listening(connect(number), "load"), connect(number));
            scope.spawn(move || listens(client, looker))
        };
        let listeners: Vec<_> = numbers.iter().map(of_node).collect();
        let of_client = |number: NodeNumber, client: usize| {
            let session = connect(number);
            scope.spawn(move || counts(session, (number.0 - 1) * clients + client + 1, stop))
        };
        let writers: Vec<_> = numbers.iter().flat_map(|&number| (0..clients).map(move |client| (number, client))).collect();
        let writers: Vec<_> = writers.into_iter().map(|(number, client)| of_client(number, client)).collect();
        let committed = writers.into_iter().map(|writer| writer.join().unwrap()).sum();
        run(&mut connect(numbers[0]), &["NOTIFY load, 'end'"]);
        (listeners.into_iter().map(|listener| listener.join().unwrap()).collect(), committed)
    })
}

/// Four clients a node count in one database, one in another, one notifies in a third that is not replicated. Whoever has its turn in either group waits for the
/// other's commits, and for the third's.
#[test]
fn under_load_from_all_nodes_nothing_is_lost_nor_told_twice_and_the_order_is_the_commits() {
    let group = harness::shared();
    let second = Database::replicated(&group, "second_load");
    group.execute(node(1), COUNTS);
    second.execute(node(1), COUNTS);
    group.settle();
    for number in group.numbers() {
        second.arrives(number, "SELECT count(*) FROM counts", "41");
    }
    let stop = AtomicBool::new(false);
    let numbers = group.numbers();
    let told = thread::scope(|scope| {
        let noises: Vec<_> = numbers.iter().map(|&number| group.playground.connect(number, "postgres").unwrap()).collect();
        noises.into_iter().for_each(|client| drop(scope.spawn(|| makes_noise(client, &stop))));
        let first = scope.spawn(|| load(&numbers, &|number| group.connect(number), 4, &stop));
        let other = scope.spawn(|| load(&numbers, &|number| second.connect(number), 1, &stop));
        let since = Instant::now();
        // How long the load lasts is what is wanted here, not a wait for anything.
        while since.elapsed() < workload_seconds() {
            thread::park_timeout(workload_seconds().saturating_sub(since.elapsed()));
        }
        stop.store(true, Ordering::SeqCst);
        [first.join().unwrap(), other.join().unwrap()]
    });
    for (heard, committed) in &told {
        println!("{committed} transactions in {:?}", workload_seconds());
        assert!(*committed > 10, "{committed}");
        heard.iter().for_each(|of_node| check(of_node, *committed));
        assert!(heard.iter().all(|of_node| *of_node == heard[0]), "nodes tell in different orders");
    }
    harness::assert_equal(&group);
    second.end();
}
