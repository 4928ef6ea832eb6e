//! The end of a commit: whatever happens at whichever step, what the client is told is what the log says.
//!
//! Each step is held open from outside: a deferred trigger that sleeps (captured, not sent), a stopped daemon (sent, no verdict),
//! stopped remote backends (certified, not its turn), a lock on the session's temporary table (its turn, no commit record). Then
//! something happens to the session. What its client heard is compared with `commit_status` and with the rows on all nodes.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::group::describe;
use gcs::playground::process::{Process, Signal};
use postgres::{Client, Error};
use postgres_r_tests::harness::stopped::{self, Stopped};
use postgres_r_tests::harness::{self, Group, node, wait};

const REACHED_WITHIN: Duration = Duration::from_secs(20);

/// The node whose session commits, and one that is asked what came of it.
const HERE: usize = 1;
const THERE: usize = 2;

/// What a client heard of its COMMIT.
#[derive(Debug, PartialEq)]
enum Told {
    Committed,
    /// 08007: it is committed, but not by this session.
    CommittedElsewhere,
    /// Nothing of it remains, with this SQLSTATE.
    RolledBack(String),
    /// 08007, or the connection was lost.
    Nothing(String),
}

impl Told {
    fn of(result: Result<(), Error>) -> Told {
        let Err(error) = result else { return Told::Committed };
        println!("told: {}", describe(&error));
        let Some(db) = error.as_db_error() else { return Told::Nothing(error.to_string()) };
        match db.code().code() {
            "08007" if db.message().contains("is committed") => Told::CommittedElsewhere,
            "08007" => {
                assert!(db.hint().unwrap_or_default().contains("commit_status("), "{:?}", db.hint());
                Told::Nothing(db.message().to_owned())
            }
            "57P01" | "57P02" => Told::Nothing(db.message().to_owned()),
            code => Told::RolledBack(code.to_owned()),
        }
    }
}

/// A transaction on its way: a token, and a row that is there if it was committed.
struct Attempt {
    table: &'static str,
    token: String,
    since: i64,
    client: Client,
    pid: i32,
}

impl Attempt {
    /// A session of node 1 in a transaction that has written. `set_up` runs first.
    fn begin(group: &Group, table: &'static str, set_up: &str) -> Attempt {
        let mut client = group.connect(node(HERE));
        client.batch_execute(set_up).unwrap();
        let row = client.query_one("SELECT gen_random_uuid()::text, pg_backend_pid()", &[]).unwrap();
        let (token, pid): (String, i32) = (row.get(0), row.get(1));
        client.batch_execute("BEGIN").unwrap();
        let since = client.query_one(&format!("SELECT postgres_r.set_commit_token('{token}')"), &[]).unwrap().get(0);
        client.batch_execute(&format!("INSERT INTO {table} VALUES ('{token}')")).unwrap();
        Attempt { table, token, since, client, pid }
    }

    /// Commits; while it does and `reached` says that it has come to where it should, `act`, then `let_go`.
    fn commit(&mut self, reached: impl Fn() -> bool, act: impl FnOnce(i32), let_go: impl FnOnce()) -> Told {
        let pid = self.pid;
        let client = &mut self.client;
        thread::scope(|scope| {
            let committing = scope.spawn(move || Told::of(client.batch_execute("COMMIT")));
            wait::until("the step", REACHED_WITHIN, || if reached() { Ok(()) } else { Err("not there".into()) });
            act(pid);
            let_go();
            committing.join().unwrap()
        })
    }

    /// Whether it is committed: the same everywhere, in rows and by status, and what was told does not contradict it.
    fn assert_true(&self, group: &Group, told: &Told) -> bool {
        group.settle();
        let is_committed = truth(group, self.table, &self.token, self.since);
        match told {
            Told::Committed | Told::CommittedElsewhere => assert!(is_committed, "told {told:?}, but it is rolled back"),
            Told::RolledBack(_) => assert!(!is_committed, "told {told:?}, but it is committed"),
            Told::Nothing(_) => {}
        }
        is_committed
    }
}

/// Fenced where it is not committed, so that this stays true.
fn truth(group: &Group, table: &str, token: &str, since: i64) -> bool {
    let final_answer = format!("SELECT status FROM postgres_r.commit_status('{token}', {since})");
    let status = group.value(node(THERE), &final_answer);
    group.settle();
    let rows = group.values(&format!("SELECT count(*) FROM {table} WHERE id = '{token}'"));
    let expected = if status == "committed" { "1" } else { "0" };
    println!("truth: {status}, rows {rows:?}");
    assert!(matches!(status.as_str(), "committed" | "aborted"), "{status}");
    assert!(rows.iter().all(|count| count == expected), "{status}, but rows {rows:?}");
    status == "committed"
}

fn make_table(group: &Group, name: &str) {
    group.execute(node(HERE), &format!("CREATE TABLE {name} (id uuid PRIMARY KEY)"));
    group.settle();
}

fn cancel(watcher: &mut Client, pid: i32) {
    assert!(watcher.query_one("SELECT pg_cancel_backend($1)", &[&pid]).unwrap().get::<_, bool>(0));
}

fn terminate(watcher: &mut Client, pid: i32) {
    assert!(watcher.query_one("SELECT pg_terminate_backend($1)", &[&pid]).unwrap().get::<_, bool>(0));
}

/// SIGKILL: its server starts again.
fn kill(group: &Group, pid: i32) {
    assert!(stopped::backend(group, node(HERE), pid).unwrap().signal(Signal::KILL));
}

/// What a question about one process gives just now.
fn sees(group: &Group, query: &str) -> bool {
    group.value(node(HERE), query) == "true"
}

/// It waits in COMMIT, for the group or for the gate.
fn waits(group: &Group, pid: i32) -> bool {
    sees(
        group,
        &format!("SELECT wait_event_type = 'Extension' FROM pg_stat_activity WHERE pid = {pid} AND query = 'COMMIT'"),
    )
}

/// It has answered, or is gone.
fn is_no_longer_active(group: &Group, pid: i32) {
    let query = format!("SELECT count(*) = 0 FROM pg_stat_activity WHERE pid = {pid} AND state = 'active'");
    wait::until("an answer", REACHED_WITHIN, || if sees(group, &query) { Ok(()) } else { Err("none".into()) });
}

#[test]
fn a_token_is_the_same_on_every_node() {
    let group = harness::shared();
    make_table(&group, "tokens");
    let mut attempt = Attempt::begin(&group, "tokens", "");
    attempt.client.batch_execute("COMMIT").unwrap();
    let token = attempt.token.clone();
    let asked = format!("SELECT s::text FROM postgres_r.commit_status('{token}') s");
    group.settle();
    let answers = group.values(&asked);
    assert!(answers[0].starts_with("(committed,") && answers[0].ends_with(",t,t)"), "{answers:?}");
    assert!(answers.iter().all(|answer| *answer == answers[0]), "{answers:?}");

    // A second use is refused, and says where the first one is.
    let mut client = group.connect(node(THERE));
    let again =
        format!("BEGIN; SELECT postgres_r.set_commit_token('{token}'); INSERT INTO tokens VALUES (gen_random_uuid())");
    client.batch_execute(&again).unwrap();
    let error = client.batch_execute("COMMIT").unwrap_err();
    let error = error.as_db_error().unwrap();
    let position = answers[0].split(',').nth(1).unwrap();
    assert_eq!(error.code().code(), "23505", "{}", error.message());
    assert!(error.detail().unwrap().contains(&format!("position {position}")), "{:?}", error.detail());

    // Nobody has heard of a token that changed nothing, or was rolled back; and a transaction has one.
    let other = "11111111-2222-4333-8444-555555555555";
    client.batch_execute(&format!("BEGIN; SELECT postgres_r.set_commit_token('{other}'); SELECT 1; COMMIT")).unwrap();
    let rolled_back = format!(
        "BEGIN; SELECT postgres_r.set_commit_token('{other}'); INSERT INTO tokens VALUES ('{other}'); ROLLBACK;
         INSERT INTO tokens VALUES (gen_random_uuid())"
    );
    client.batch_execute(&rolled_back).unwrap();
    assert_eq!(group.value(node(3), &format!("SELECT status FROM postgres_r.commit_status('{other}')")), "unknown");
    client
        .batch_execute(&format!(
            "BEGIN; SELECT postgres_r.set_commit_token('{other}'), postgres_r.set_commit_token('{other}')"
        ))
        .unwrap();
    let error = client.batch_execute(&format!("SELECT postgres_r.set_commit_token('{token}')")).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25001", "{error}");
    client.batch_execute("ROLLBACK").unwrap();
}

#[test]
fn a_token_may_be_used_again_until_it_is_committed() {
    let group = harness::shared();
    make_table(&group, "retried");
    group.execute(node(HERE), "INSERT INTO retried VALUES ('00000000-0000-4000-8000-000000000000')");
    group.settle();
    let token = "00000000-0000-4000-8000-000000000001";
    let status = format!("SELECT status || ' ' || is_final FROM postgres_r.commit_status('{token}')");
    let (mut winner, mut loser) = (group.connect(node(THERE)), group.connect(node(HERE)));
    let stopped = Stopped::remote_backends(&group, node(HERE));
    winner.batch_execute("UPDATE retried SET id = id").unwrap();
    // Nothing of the winner is visible here, so this loses however it is timed.
    let use_it = format!("BEGIN; SELECT postgres_r.set_commit_token('{token}'); UPDATE retried SET id = id");
    loser.batch_execute(&use_it).unwrap();
    let error = thread::scope(|scope| {
        let committing = scope.spawn(|| loser.batch_execute("COMMIT").unwrap_err());
        // The verdict is known at once; the roll back needs no turn.
        committing.join().unwrap()
    });
    assert_eq!(error.code().unwrap().code(), "40001", "{error}");
    assert_eq!(group.value(node(3), &status), "aborted false");
    drop(stopped);
    group.settle();
    loser.batch_execute(&use_it).unwrap();
    loser.batch_execute("COMMIT").unwrap();
    assert_eq!(group.value(node(3), &status), "committed true");
}

#[test]
fn a_question_says_that_it_needs_a_replicated_database() {
    let group = harness::shared();
    let mut client = group.playground.connect(node(HERE), "postgres").unwrap();
    client.batch_execute("CREATE EXTENSION IF NOT EXISTS postgres_r").unwrap();
    for call in ["set_commit_token(gen_random_uuid())", "commit_status(gen_random_uuid())"] {
        let error = client.batch_execute(&format!("SELECT postgres_r.{call}")).unwrap_err();
        assert_eq!(error.code().unwrap().code(), "55000", "{error}");
    }
}

/// Captured, not sent: a deferred trigger runs in COMMIT. Whatever happens, nothing of it remains.
#[test]
fn before_it_is_sent_a_commit_can_be_taken_back() {
    let group = harness::shared();
    make_table(&group, "unsent");
    group.execute(
        node(HERE),
        "CREATE FUNCTION linger() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_sleep(current_setting('test.linger')::int); RETURN NULL; END $$;
         CREATE CONSTRAINT TRIGGER lingers AFTER INSERT ON unsent DEFERRABLE INITIALLY DEFERRED
             FOR EACH ROW EXECUTE FUNCTION linger()",
    );
    group.settle();
    let mut watcher = group.connect(node(HERE));
    for what in ["cancel", "terminate", "kill"] {
        let mut attempt = Attempt::begin(&group, "unsent", "SET test.linger = 30");
        let pid = attempt.pid;
        let sleeps = || sees(&group, &format!("SELECT wait_event = 'PgSleep' FROM pg_stat_activity WHERE pid = {pid}"));
        let act = |pid| match what {
            "cancel" => cancel(&mut watcher, pid),
            "terminate" => terminate(&mut watcher, pid),
            _ => kill(&group, pid),
        };
        let told = attempt.commit(sleeps, act, || {});
        group.start_node(node(HERE));
        assert!(!attempt.assert_true(&group, &told), "{what}: {told:?}");
        if what == "cancel" {
            assert_eq!(told, Told::RolledBack("57014".into()));
        }
    }
    harness::assert_equal(&group);
}

/// Sent, no verdict: this node's daemon is stopped, so what was sent waits in its socket.
#[test]
fn once_it_is_sent_only_the_log_says_what_became_of_a_commit() {
    let group = harness::shared();
    make_table(&group, "sent");
    for what in ["nothing", "cancel", "statement_timeout", "terminate", "commit_timeout", "manager", "daemon", "kill"] {
        println!("--- {what}");
        let mut watcher = group.connect(node(HERE));
        let set_up = match what {
            "statement_timeout" => "SET statement_timeout = '300ms'",
            "commit_timeout" => "SET postgres_r.commit_timeout = '300ms'",
            _ => "",
        };
        let mut attempt = Attempt::begin(&group, "sent", set_up);
        let pid = attempt.pid;
        let stopped = Stopped::daemon(&group, node(HERE));
        let act = |pid| match what {
            "cancel" => cancel(&mut watcher, pid),
            "terminate" => {
                terminate(&mut watcher, pid);
                is_no_longer_active(&group, pid);
            }
            "kill" => kill(&group, pid),
            // What it was sent with is lost; it is sent again.
            "daemon" => {
                group.kill(node(HERE), Part::Gcs);
                group.start_node(node(HERE));
            }
            "manager" => {
                let manager = "SELECT pid FROM pg_stat_activity WHERE backend_type LIKE 'postgres_r%manager%'";
                let manager: i32 = watcher.query_one(manager, &[]).unwrap().get(0);
                terminate(&mut watcher, manager);
            }
            "statement_timeout" => thread::sleep(Duration::from_millis(600)),
            "commit_timeout" => is_no_longer_active(&group, pid),
            _ => {}
        };
        let told = attempt.commit(|| waits(&group, pid), act, || drop(stopped));
        group.start_node(node(HERE));
        attempt.assert_true(&group, &told);
        match what {
            // The daemon may refuse what it finds when it goes on without a majority; nothing else may be said.
            "nothing" | "cancel" | "statement_timeout" | "manager" | "daemon" => {
                assert!(matches!(&told, Told::Committed) || told == Told::RolledBack("25006".into()), "{what}: {told:?}");
            }
            _ => assert!(matches!(told, Told::Nothing(_)), "{what}: {told:?}"),
        }
    }
    harness::assert_equal(&group);
}

/// A statement by itself is submitted before its end; what interrupts it then comes too late.
#[test]
fn a_statement_by_itself_is_not_interrupted_once_it_is_sent() {
    let group = harness::shared();
    make_table(&group, "alone_sent");
    for (what, token) in
        [("cancel", "00000000-0000-4000-8000-000000000004"), ("statement_timeout", "00000000-0000-4000-8000-000000000005")]
    {
        let mut watcher = group.connect(node(HERE));
        let mut client = group.connect(node(HERE));
        client.batch_execute(if what == "cancel" { "" } else { "SET statement_timeout = '700ms'" }).unwrap();
        let row = client.query_one("SELECT pg_backend_pid(), postgres_r.committed_position()", &[]).unwrap();
        let (pid, since): (i32, i64) = (row.get(0), row.get(1));
        let stopped = Stopped::daemon(&group, node(HERE));
        let statement = format!("INSERT INTO alone_sent SELECT '{token}' FROM postgres_r.set_commit_token('{token}')");
        let told = thread::scope(|scope| {
            let running = scope.spawn(|| Told::of(client.batch_execute(&statement)));
            let waiting =
                format!("SELECT wait_event_type = 'Extension' AND state = 'active' FROM pg_stat_activity WHERE pid = {pid}");
            wait::until(
                "the step",
                REACHED_WITHIN,
                || if sees(&group, &waiting) { Ok(()) } else { Err("not there".into()) },
            );
            if what == "cancel" {
                cancel(&mut watcher, pid)
            } else {
                thread::sleep(Duration::from_millis(900))
            }
            drop(stopped);
            running.join().unwrap()
        });
        group.start_node(node(HERE));
        group.settle();
        let is_committed = truth(&group, "alone_sent", token, since);
        assert_eq!(told == Told::Committed, is_committed, "{what}: {told:?}");
        assert!(is_committed || told == Told::RolledBack("25006".into()), "{what}: {told:?}");
    }
}

/// While it is on its way nobody can say more than "unknown"; asked for more, the group ends it.
#[test]
fn a_fence_makes_the_answer_final_while_the_commit_is_on_its_way() {
    let group = harness::shared();
    make_table(&group, "fenced");
    let mut attempt = Attempt::begin(&group, "fenced", "");
    let (pid, token, since) = (attempt.pid, attempt.token.clone(), attempt.since);
    let stopped = Stopped::daemon(&group, node(HERE));
    let ask = |arguments: &str| {
        // The others may be electing a leader, if the stopped one led.
        let query = format!("SELECT status || ' ' || is_final FROM postgres_r.commit_status({arguments})");
        wait::until("an answer", REACHED_WITHIN, || {
            let row = group.connect(node(THERE)).query_one(&query, &[]);
            row.map(|row| row.get::<_, String>(0)).map_err(|error| describe(&error))
        })
        .0
    };
    let act = |_| {
        assert_eq!(ask(&format!("'{token}'")), "unknown false");
        assert_eq!(ask(&format!("'{token}', {since}")), "aborted true");
    };
    let told = attempt.commit(|| waits(&group, pid), act, || drop(stopped));
    group.start_node(node(HERE));
    assert!(!attempt.assert_true(&group, &told));
    assert!(told == Told::RolledBack("57014".into()) || told == Told::RolledBack("25006".into()), "{told:?}");
}

fn psql(group: &Group, script: &str) -> Child {
    Command::new(group.playground.manifest.postgres_bin.join("psql"))
        .args([&group.playground.uri(node(HERE)), "-c", script])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

#[test]
fn a_session_that_is_ended_at_the_gate_is_told_that_it_is_committed() {
    let group = harness::shared();
    make_table(&group, "ended");
    let stopped = Stopped::remote_backends(&group, node(HERE));
    let waits = "SELECT gate_waits FROM postgres_r.pg_stat_postgres_r";
    let before = group.value(node(HERE), waits);
    group.execute(node(THERE), "INSERT INTO ended VALUES (gen_random_uuid())");
    let id = "00000000-0000-4000-8000-000000000006";
    let client = psql(&group, &format!("BEGIN; INSERT INTO ended VALUES ('{id}'); COMMIT /* ended */"));
    wait::until("the gate", REACHED_WITHIN, || {
        if group.value(node(HERE), waits) != before { Ok(()) } else { Err("not there".into()) }
    });
    group.execute(
        node(HERE),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query LIKE '%/* ended */' AND pid <> pg_backend_pid()",
    );
    let output = client.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(told.contains("FATAL:  the transaction is committed, but this session could not finish it"), "{told}");
    drop(stopped);
    group.settle();
    assert_eq!(group.values(&format!("SELECT count(*) FROM ended WHERE id = '{id}'")), ["1", "1", "1"]);
}

/// A client that hears nothing because it is gone.
#[test]
fn the_commit_of_a_client_that_is_gone_goes_on() {
    let group = harness::shared();
    make_table(&group, "gone");
    let token = "00000000-0000-4000-8000-000000000002";
    let script = format!(
        "BEGIN; SELECT postgres_r.set_commit_token('{token}'); INSERT INTO gone VALUES ('{token}'); COMMIT /* gone */"
    );
    let stopped = Stopped::daemon(&group, node(HERE));
    let mut client = psql(&group, &script);
    let waiting = "SELECT count(*) = 1 FROM pg_stat_activity
                   WHERE query LIKE '%/* gone */' AND wait_event_type = 'Extension' AND state = 'active'";
    wait::until("the step", REACHED_WITHIN, || if sees(&group, waiting) { Ok(()) } else { Err("not there".into()) });
    client.kill().unwrap();
    client.wait().unwrap();
    drop(stopped);
    group.start_node(node(HERE));
    let over = "SELECT count(*) = 0 FROM pg_stat_activity WHERE query LIKE '%/* gone */' AND state = 'active'";
    wait::until("its end", REACHED_WITHIN, || if sees(&group, over) { Ok(()) } else { Err("still there".into()) });
    truth(&group, "gone", token, 0);
}

/// Certified, but an earlier position has yet to be applied here: it is committed, whatever becomes of its session.
#[test]
fn once_it_is_certified_a_commit_is_committed() {
    let group = harness::shared();
    make_table(&group, "certified");
    make_table(&group, "certified_before");
    for what in ["nothing", "cancel", "terminate", "commit_timeout", "kill"] {
        println!("--- {what}");
        let mut watcher = group.connect(node(HERE));
        let set_up = if what == "commit_timeout" { "SET postgres_r.commit_timeout = '500ms'" } else { "" };
        let mut attempt = Attempt::begin(&group, "certified", set_up);
        let stopped = Stopped::remote_backends(&group, node(HERE));
        let before = group.value(node(HERE), "SELECT gate_waits FROM postgres_r.pg_stat_postgres_r");
        group.execute(node(THERE), "INSERT INTO certified_before VALUES (gen_random_uuid())");
        let at_the_gate = || group.value(node(HERE), "SELECT gate_waits FROM postgres_r.pg_stat_postgres_r") != before;
        let act = |pid| match what {
            "cancel" => cancel(&mut watcher, pid),
            "terminate" => {
                terminate(&mut watcher, pid);
                is_no_longer_active(&group, pid);
            }
            "kill" => kill(&group, pid),
            "commit_timeout" => is_no_longer_active(&group, pid),
            _ => {}
        };
        let told = attempt.commit(at_the_gate, act, || drop(stopped));
        group.start_node(node(HERE));
        assert!(attempt.assert_true(&group, &told), "{what}: {told:?}");
        match what {
            "nothing" | "cancel" => assert_eq!(told, Told::Committed, "{what}"),
            "commit_timeout" => assert_eq!(told, Told::CommittedElsewhere, "{what}"),
            // The client library may see the end of the connection first; psql does not, below.
            "terminate" => assert!(matches!(told, Told::CommittedElsewhere | Told::Nothing(_)), "{what}: {told:?}"),
            _ => assert!(matches!(told, Told::Nothing(_)), "{what}: {told:?}"),
        }
    }
    harness::assert_equal(&group);
}

/// Its turn has come, and what PostgreSQL does before the commit record takes long: it empties a temporary table that somebody
/// looks at.
#[test]
fn nothing_comes_between_the_turn_and_the_commit_record() {
    let group = harness::shared();
    make_table(&group, "turned");
    for what in ["nothing", "cancel", "terminate", "kill"] {
        println!("--- {what}");
        let mut watcher = group.connect(node(HERE));
        let mut attempt = Attempt::begin(&group, "turned", "CREATE TEMP TABLE emptied (x int) ON COMMIT DELETE ROWS");
        attempt.client.batch_execute("INSERT INTO emptied VALUES (1)").unwrap();
        let pid = attempt.pid;
        let row = attempt.client.query_one("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()", &[]).unwrap();
        let schema: String = row.get(0);
        let mut onlooker = group.connect(node(HERE));
        onlooker.batch_execute(&format!("BEGIN; LOCK TABLE {schema}.emptied IN ACCESS SHARE MODE")).unwrap();
        let blocked = || sees(&group, &format!("SELECT count(*) > 0 FROM pg_locks WHERE pid = {pid} AND NOT granted"));
        let act = |pid| match what {
            "cancel" => cancel(&mut watcher, pid),
            "terminate" => terminate(&mut watcher, pid),
            "kill" => kill(&group, pid),
            _ => {}
        };
        let told = attempt.commit(blocked, act, || drop(onlooker));
        group.start_node(node(HERE));
        assert!(attempt.assert_true(&group, &told), "{what}: {told:?}");
        match what {
            "nothing" | "cancel" => assert_eq!(told, Told::Committed, "{what}"),
            // It is told both, and the client library may only look at the last.
            "terminate" => assert!(matches!(told, Told::Committed | Told::Nothing(_)), "{what}: {told:?}"),
            _ => assert!(matches!(told, Told::Nothing(_)), "{what}: {told:?}"),
        }
    }
    harness::assert_equal(&group);
}

/// The timeout of a CALL goes off while a COMMIT inside waits for the group: the commit is not disturbed, the rest is ended.
#[test]
fn a_timeout_that_goes_off_in_a_commit_ends_what_comes_after_it() {
    let group = harness::shared();
    make_table(&group, "called");
    group.execute(
        node(HERE),
        "CREATE PROCEDURE write_and_sleep() LANGUAGE plpgsql AS $$ BEGIN
             INSERT INTO called VALUES ('00000000-0000-4000-8000-000000000003'); COMMIT; PERFORM pg_sleep(30); END $$",
    );
    group.settle();
    let mut client = group.connect(node(HERE));
    client.batch_execute("SET statement_timeout = '1s'").unwrap();
    let stopped = Stopped::remote_backends(&group, node(HERE));
    let waited = group.value(node(HERE), "SELECT gate_waits FROM postgres_r.pg_stat_postgres_r");
    group.execute(node(THERE), "INSERT INTO called VALUES (gen_random_uuid())");
    let error = thread::scope(|scope| {
        let calling = scope.spawn(|| client.batch_execute("CALL write_and_sleep()").unwrap_err());
        wait::until("the gate", REACHED_WITHIN, || {
            let now = group.value(node(HERE), "SELECT gate_waits FROM postgres_r.pg_stat_postgres_r");
            if now != waited { Ok(()) } else { Err(now) }
        });
        thread::sleep(Duration::from_millis(1200));
        drop(stopped);
        calling.join().unwrap()
    });
    assert_eq!(error.code().unwrap().code(), "57014", "{error}");
    group.settle();
    let rows = group.values("SELECT count(*) FROM called WHERE id = '00000000-0000-4000-8000-000000000003'");
    assert_eq!(rows, ["1", "1", "1"]);
}

#[test]
fn a_node_without_a_majority_says_that_it_cannot_know() {
    let group = harness::shared();
    make_table(&group, "alone");
    for number in [2, 3] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    let error =
        group.connect(node(HERE)).query("SELECT * FROM postgres_r.commit_status(gen_random_uuid())", &[]).unwrap_err();
    assert_eq!(error.code().unwrap().code(), "25006", "{}", describe(&error));
    for number in [2, 3] {
        group.start_node(node(number));
    }
    group.settle();
}

/// The rows of RETURNING may be more than the network takes, even though they were planned to be few, and the client may not care to
/// read them: certified by then, the transaction must not wait for it.
#[test]
fn a_client_that_does_not_read_its_rows_holds_nobody_up() {
    let group = harness::shared();
    group.execute(node(HERE), "CREATE TABLE unread (id int PRIMARY KEY)");
    group.settle();
    let script = "INSERT INTO unread SELECT g FROM generate_series(1, 200) g RETURNING repeat('x', 500000) /* unread */";
    let mut client = psql(&group, script);
    let running = "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%/* unread */' AND state = 'active'";
    wait::until("the statement", REACHED_WITHIN, || if sees(&group, running) { Ok(()) } else { Err("not there".into()) });
    let reader = Process::find(client.id() as i32, &std::env::current_dir().unwrap()).unwrap();
    assert!(reader.signal(Signal::STOP));
    let writing =
        "SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE '%/* unread */' AND wait_event = 'ClientWrite'";
    wait::until("a full socket", REACHED_WITHIN, || if sees(&group, writing) { Ok(()) } else { Err("not there".into()) });
    group.execute(node(THERE), "INSERT INTO unread VALUES (0)");
    wait::until("what others wrote", REACHED_WITHIN, || {
        if sees(&group, "SELECT count(*) = 1 FROM unread WHERE id = 0") { Ok(()) } else { Err("not there".into()) }
    });
    client.kill().unwrap();
    client.wait().unwrap();
    harness::assert_equal(&group);
}
