//! Large objects: whatever is done to them, by SQL, by libpq's functions or by statements, is done on every node, under the same number; of two
//! transactions that get in each other's way one loses.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeSet;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, damage, everywhere, node, step, wait};
use postgres_r_tests::rng::Rng;

const WITHIN: Duration = Duration::from_secs(20);

/// What can be read in each large object: number, owner, privileges, comment, length, contents.
const ALL: &str = "(SELECT coalesce(string_agg(concat_ws(' ', m.oid, m.lomowner::regrole, m.lomacl, obj_description(m.oid, 'pg_largeobject'),
        length(lo_get(m.oid)), md5(lo_get(m.oid))), E'\\n' ORDER BY m.oid), 'none')
    FROM pg_largeobject_metadata m)";

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

/// All nodes hold the same tables and large objects; gives what there is of the latter.
fn assert_same(group: &Group) -> String {
    harness::assert_equal(group);
    let found = group.values(&format!("SELECT {ALL}"));
    assert!(found.iter().all(|of_node| *of_node == found[0]), "{found:#?}");
    let pages = "SELECT count(*) FROM pg_largeobject WHERE loid NOT IN (SELECT oid FROM pg_largeobject_metadata)";
    assert_eq!(everywhere(group, pages), "0", "pages of no large object");
    found[0].clone()
}

fn contents(group: &Group, number: u32) -> Vec<String> {
    group.settle();
    group.values(&format!("SELECT encode(lo_get({number}), 'escape')"))
}

/// A group without large objects.
fn emptied() -> harness::Shared {
    let group = harness::shared();
    group.execute(node(1), "SELECT lo_unlink(oid) FROM pg_largeobject_metadata");
    group.settle();
    group
}

fn succeeded(output: &Output, what: &str) {
    let (out, error) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{what}: {}\n{out}\n{error}", output.status);
}

fn psql(group: &Group, number: usize, commands: &[&str]) {
    let cluster = group.playground.cluster(node(number));
    let mut psql = Command::new(cluster.bin.join("psql"));
    psql.args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", &cluster.uri(group.database())]);
    commands.iter().for_each(|command| {
        psql.args(["-c", command]);
    });
    succeeded(&psql.output().unwrap(), &commands.join("; "));
}

#[test]
fn what_functions_do_to_large_objects_is_done_on_every_node() {
    let group = emptied();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "SELECT lo_create(0), lo_creat(-1), lo_from_bytea(0, 'some'), lo_create(4711), lo_from_bytea(4712, repeat('x', 10000)::bytea)",
            "SELECT lo_put(4711, 5000, 'behind a hole'), lo_put(4712, 2047, 'across'), lo_put(4712, 0, '')",
            "BEGIN; SELECT lo_open(4711, x'60000'::int); SELECT lowrite(0, 'front'); SELECT lo_lseek(0, 3, 0); SELECT lowrite(0, '!');
             SELECT lo_lseek64(0, 7000, 0); SELECT lowrite(0, 'end'); SELECT lo_truncate(0, 7001); SELECT lo_close(0); COMMIT",
            "BEGIN; SELECT lo_open(4712, x'20000'::int); SELECT lo_truncate64(0, 3000); COMMIT",
            "CREATE TABLE doc (id int PRIMARY KEY, body oid);
             INSERT INTO doc SELECT n, lo_from_bytea(0, convert_to(n || ' of many', 'UTF8')) FROM generate_series(1, 20) n",
            "DO $$ BEGIN FOR n IN 1..5 LOOP PERFORM lo_put((SELECT body FROM doc WHERE id = n), 1, 'in a loop'); END LOOP; END $$",
            "CREATE TABLE made AS SELECT n, lo_from_bytea(0, 'by a query') AS body FROM generate_series(1, 3) n",
            "CREATE TEMP TABLE fleeting AS SELECT lo_from_bytea(0, 'for a temporary table') AS body",
            "SELECT lo_unlink(body) FROM doc WHERE id > 15",
            "ALTER TABLE doc ADD COLUMN more oid DEFAULT lo_from_bytea(0, 'by a default')",
        ],
    );
    let all = assert_same(&group);
    assert_eq!(all.lines().count(), 24 + 20, "{all}");
    assert_eq!(contents(&group, 4712)[2].len(), 3000);
    let read = "SELECT encode(substr(lo_get(body), 1, 30), 'escape') FROM doc WHERE id = 3";
    assert_eq!(everywhere(&group, read), "3in a loop");
}

#[test]
fn files_and_the_functions_of_libpq_work_as_on_one_server() {
    let group = emptied();
    let file = group.dir().join("large_object");
    let bytes: Vec<u8> = (0..2_500_000u32).map(|n| (n ^ (n >> 8)) as u8).collect();
    std::fs::write(&file, &bytes).unwrap();
    let path = file.display().to_string();
    group.execute(node(2), &format!("SELECT lo_import('{path}', 99); SELECT lo_import('{path}')"));
    psql(&group, 3, &[&format!("\\lo_import {path} 'sent by psql'")]);
    let all = assert_same(&group);
    let length = format!(" {} ", bytes.len());
    assert!(all.lines().count() == 3 && all.lines().all(|line| line.contains(&length)), "{all}");
    assert!(all.contains("sent by psql"), "{all}");
    // What another node has sent is what comes out, through the protocol too.
    let out = group.dir().join("exported");
    group.settle();
    psql(&group, 1, &[&format!("\\lo_export 99 {}", out.display()), "\\lo_unlink 99"]);
    assert_eq!(std::fs::read(&out).unwrap(), bytes);
    assert_eq!(assert_same(&group).lines().count(), 2);
}

/// The protocol's function calls come by no statement. (The first one of a connection does: libpq looks up the functions.)
#[test]
fn what_libpq_opens_is_as_fresh_as_the_read_level_says() {
    let group = emptied();
    group.execute(node(1), "SELECT lo_from_bytea(101, 'old')");
    group.settle();
    let (first, second) = (group.dir().join("first"), group.dir().join("second"));
    let cluster = group.playground.cluster(node(2));
    let mut watcher = group.connect(node(2));
    let uri = format!("{}?application_name=exports&options=-cpostgres_r.read_level%3Dstrong", cluster.uri(group.database()));
    let mut psql = Command::new(cluster.bin.join("psql"));
    let mut psql = psql.args(["-X", "-q", "-d", &uri]).stdin(Stdio::piped()).spawn().unwrap();
    let mut commands = psql.stdin.take().unwrap();
    writeln!(commands, "\\lo_export 101 {}", first.display()).unwrap();
    let written = |file: &Path| std::fs::read(file).is_ok_and(|bytes| bytes.len() == 3);
    wait::until("the first file", WITHIN, || if written(&first) { Ok(()) } else { Err("it is not there".to_owned()) });
    let behind = Stopped::remote_backends(&group, node(2));
    group.execute(node(1), "SELECT lo_put(101, 0, 'new')");
    writeln!(commands, "\\lo_export 101 {}", second.display()).unwrap();
    wait::until("psql waits", WITHIN, || {
        let waits = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'exports' AND wait_event = 'Extension'";
        let is_waiting = watcher.query_one(waits, &[]).is_ok_and(|row| row.get::<_, i64>(0) == 1);
        if is_waiting || written(&second) { Ok(()) } else { Err("it does not wait".to_owned()) }
    });
    drop((behind, commands));
    succeeded(&psql.wait_with_output().unwrap(), "psql");
    assert_eq!(std::fs::read_to_string(second).unwrap(), "new");
}

#[test]
fn what_a_savepoint_takes_back_is_not_sent() {
    let group = emptied();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "SELECT lo_from_bytea(1, 'one')",
            "BEGIN; SELECT lo_open(1, x'20000'::int); SELECT lowrite(0, 'A'); SAVEPOINT s; SELECT lowrite(0, 'B'); SELECT lo_create(2);
             SELECT lo_open(1, x'20000'::int); SELECT lowrite(1, 'gone'); ROLLBACK TO s; SELECT lowrite(0, 'C');
             SAVEPOINT t; SELECT lo_from_bytea(3, 'kept'); RELEASE t; COMMIT",
            "BEGIN; SAVEPOINT s; SELECT lo_unlink(1); ROLLBACK TO s; SELECT lo_put(1, 3, '...'); COMMIT",
            "BEGIN; SELECT lo_unlink(3); SELECT lo_create(3); SELECT lo_put(3, 0, 'anew'); COMMIT",
            "BEGIN; SELECT lo_create(4); ROLLBACK",
        ],
    );
    let all = assert_same(&group);
    assert_eq!(all.lines().count(), 2, "{all}");
    // The descriptor keeps the place that it had come to.
    assert_eq!(contents(&group, 1), ["AnC..."; 3]);
    assert_eq!(contents(&group, 3)[1], "anew");
}

#[test]
fn statements_about_large_objects_are_replicated() {
    let group = emptied();
    let mut client = group.connect(node(2));
    run(
        &mut client,
        &[
            "CREATE ROLE lo_owner; CREATE ROLE lo_heir; CREATE ROLE lo_reader",
            "SET ROLE lo_owner; SELECT lo_from_bytea(n::oid, 'of the owner') FROM generate_series(11, 16) n; RESET ROLE",
            "GRANT SELECT ON LARGE OBJECT 11, 12 TO lo_reader WITH GRANT OPTION; GRANT ALL ON LARGE OBJECT 13 TO PUBLIC",
            "REVOKE UPDATE ON LARGE OBJECT 13 FROM PUBLIC; COMMENT ON LARGE OBJECT 11 IS 'the first'",
            "ALTER LARGE OBJECT 14 OWNER TO lo_heir; BEGIN; SELECT lo_create(17); ALTER LARGE OBJECT 17 OWNER TO lo_heir;
             GRANT UPDATE ON LARGE OBJECT 17 TO lo_reader; COMMENT ON LARGE OBJECT 17 IS 'at once'; SELECT lo_put(17, 0, 'x'); COMMIT",
        ],
    );
    let all = assert_same(&group);
    assert!(all.contains("11 lo_owner {lo_owner=rw/lo_owner,lo_reader=r*/lo_owner} the first"), "{all}");
    assert!(all.contains("17 lo_heir {lo_heir=rw/lo_heir,lo_reader=w/lo_heir} at once 1 "), "{all}");
    // Rights hold where they are asked for, on whichever node.
    let mut reader = group.connect(node(3));
    run(&mut reader, &["SET ROLE lo_reader; SELECT lo_get(11); SELECT lo_get(13)"]);
    assert_eq!(code(&mut reader, "SELECT lo_put(11, 0, 'x')"), "42501");
    assert_eq!(code(&mut reader, "SELECT lo_get(14)"), "42501");
    assert_eq!(code(&mut reader, "SELECT lo_unlink(11)"), "42501");
    run(&mut reader, &["RESET ROLE; SET lo_compat_privileges = on; SET ROLE lo_reader; SELECT lo_put(12, 0, 'x')"]);
    group.settle();
    // What a role owns, and what it has been given.
    step(&group, 1, "DROP OWNED BY lo_reader; REASSIGN OWNED BY lo_heir TO lo_owner");
    let all = assert_same(&group);
    assert!(!all.contains("lo_reader") && !all.contains("lo_heir ") && all.lines().count() == 7, "{all}");
    step(&group, 3, "BEGIN; SELECT lo_create(18); DROP OWNED BY lo_owner; SELECT lo_create(19); COMMIT");
    let all = assert_same(&group);
    assert!(all.starts_with("18 ") && all.lines().count() == 2, "{all}");
    step(&group, 1, "DROP ROLE lo_owner; DROP ROLE lo_heir; DROP ROLE lo_reader");
}

#[test]
fn a_descriptor_of_what_is_dropped_by_a_statement_writes_nothing() {
    let group = emptied();
    let mut client = group.connect(node(1));
    run(&mut client, &["CREATE ROLE lo_dropped; SET ROLE lo_dropped; SELECT lo_create(21); RESET ROLE"]);
    run(&mut client, &["BEGIN; SELECT lo_open(21, x'20000'::int); DROP OWNED BY lo_dropped"]);
    assert_eq!(code(&mut client, "SELECT lowrite(0, 'x')"), "42704");
    run(&mut client, &["BEGIN; SELECT lo_open(21, x'20000'::int); SAVEPOINT s; DROP OWNED BY lo_dropped; ROLLBACK TO s"]);
    run(&mut client, &["SELECT lowrite(0, 'there again'); COMMIT"]);
    assert_eq!(contents(&group, 21)[1], "there again");
    run(&mut client, &["DROP OWNED BY lo_dropped; DROP ROLE lo_dropped"]);
    assert_eq!(assert_same(&group), "none");
}

#[test]
fn nodes_never_choose_the_same_number() {
    let group = emptied();
    let mut clients = [1, 2, 3, 1].map(|number| group.connect(node(number)));
    for _ in 0..3 {
        for client in &mut clients {
            run(client, &["BEGIN; SELECT lo_create(0), lo_creat(-1), lo_from_bytea(0, 'x') FROM generate_series(1, 200)"]);
        }
        for client in &mut clients {
            run(client, &["COMMIT"]);
        }
    }
    let all = assert_same(&group);
    let numbers: BTreeSet<&str> = all.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(numbers.len(), 3 * 4 * 600);
}

/// Each pair, on nodes 1 and 2, of which the first begins before the second is committed: it must lose.
#[test]
fn of_two_nodes_that_change_one_large_object_one_loses() {
    let group = emptied();
    group.execute(node(1), "CREATE ROLE lo_maker; CREATE ROLE lo_other");
    let pairs = [
        ("SELECT lo_create(30)", "SELECT lo_create(30)"),
        ("SELECT lo_put(31, 0, 'x')", "SELECT lo_put(31, 1, 'y')"),
        ("SELECT lo_put(31, 9000, 'x')", "SELECT lo_put(31, 0, 'y')"),
        // No lock of PostgreSQL stands between these.
        ("SELECT lo_put(31, 9000, 'x')", "SELECT lo_unlink(31)"),
        ("SELECT lo_open(31, x'20000'::int); SELECT lo_lseek(0, 9000, 0); SELECT lowrite(0, 'x')", "SELECT lo_unlink(31)"),
        ("SELECT lo_put(31, 9000, 'x')", "BEGIN; SELECT lo_open(31, x'20000'::int); SELECT lo_truncate(0, 5); COMMIT"),
        ("SELECT lo_open(31, x'20000'::int); SELECT lo_truncate(0, 5)", "SELECT lo_put(31, 9000, 'x')"),
        ("SELECT lo_unlink(31)", "SELECT lo_put(31, 9000, 'x')"),
        ("GRANT SELECT ON LARGE OBJECT 31 TO PUBLIC", "SELECT lo_unlink(31)"),
        ("COMMENT ON LARGE OBJECT 31 IS 'x'", "SELECT lo_unlink(31)"),
        ("ALTER LARGE OBJECT 31 OWNER TO lo_other", "SELECT lo_unlink(31)"),
        ("SET LOCAL ROLE lo_maker; SELECT lo_create(32)", "DROP ROLE lo_maker"),
        ("REASSIGN OWNED BY lo_other TO lo_maker", "SET ROLE lo_other; SELECT lo_create(33); RESET ROLE"),
        ("DROP OWNED BY lo_other", "SET ROLE lo_other; SELECT lo_create(33); RESET ROLE"),
    ];
    // Once the winner has been applied on the loser's node, whose locks are in its way; and once it has not, so that only keys tell.
    for (loser, winner, is_applied) in
        pairs.iter().flat_map(|(loser, winner)| [(loser, winner, true), (loser, winner, false)])
    {
        let (mut first, mut second) = (group.connect(node(1)), group.connect(node(2)));
        run(
            &mut second,
            &[
                "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT lo_from_bytea(31, repeat('.', 5000)::bytea)",
                "DO $$ BEGIN CREATE ROLE lo_maker; EXCEPTION WHEN duplicate_object THEN NULL; END $$",
            ],
        );
        group.settle();
        // Without a rehearsal, which would find that there is no such object any more.
        run(&mut first, &["SET postgres_r.commit_timeout = '5s'; SET postgres_r.rehearsal_timeout = 0; BEGIN"]);
        run(&mut first, &[loser]);
        let behind = (!is_applied).then(|| Stopped::remote_backends(&group, node(1)));
        run(&mut second, &[winner]);
        if is_applied {
            group.settle();
        }
        let outcome = first.batch_execute("COMMIT").map_err(|error| describe(&error));
        drop(behind);
        assert!(
            outcome.as_ref().is_err_and(|error| error.contains("40001")),
            "{loser}; {winner}; {is_applied}: {outcome:?}"
        );
        assert_same(&group);
    }
    group.execute(node(1), "SELECT lo_unlink(oid) FROM pg_largeobject_metadata; DROP ROLE lo_maker; DROP ROLE lo_other");
}

/// On one node too: what one adds the other does not see, so that on one server pages of no large object would stay.
#[test]
fn of_two_sessions_of_one_node_one_loses_where_no_lock_is_between_them() {
    let group = emptied();
    for (loser, winner) in [
        ("SELECT lo_put(41, 9000, 'x')", "SELECT lo_unlink(41)"),
        ("SELECT lo_open(41, x'20000'::int); SELECT lo_truncate(0, 5)", "SELECT lo_put(41, 9000, 'x')"),
        ("SELECT lo_unlink(41)", "SELECT lo_put(41, 9000, 'x')"),
    ] {
        let (mut first, mut second) = (group.connect(node(1)), group.connect(node(1)));
        run(&mut second, &["SELECT lo_unlink(oid) FROM pg_largeobject_metadata; SELECT lo_from_bytea(41, 'there')"]);
        run(&mut first, &["BEGIN"]);
        run(&mut first, &[loser]);
        run(&mut second, &[winner]);
        let error = first.batch_execute("COMMIT").expect_err(loser);
        let error = error.as_db_error().unwrap();
        assert_eq!(error.code().code(), "40001", "{loser}; {winner}: {}", error.message());
        assert!(error.detail().is_some_and(|detail| detail.starts_with("Large object 41 was changed by")), "{error:?}");
        assert_same(&group);
    }
}

/// Who comes later writes to what is there by then: nothing is lost where nobody was in the way.
#[test]
fn writers_of_all_nodes_one_after_the_other_lose_nothing() {
    let group = emptied();
    group.execute(node(1), "SELECT lo_create(51)");
    for n in 0..30 {
        group.settle();
        let mut client = group.connect(node(n % 3 + 1));
        run(&mut client, &[&format!("SELECT lo_put(51, {}, '{n:03}')", n * 1000)]);
    }
    assert_same(&group);
    let read = "SELECT string_agg(encode(lo_get(51, n * 1000, 3), 'escape'), ' ' ORDER BY n) FROM generate_series(0, 29) n";
    let wanted: Vec<_> = (0..30).map(|n| format!("{n:03}")).collect();
    assert_eq!(everywhere(&group, read), wanted.join(" "));
}

/// What one server refuses here too, or loses to somebody.
const MAY_FAIL: [&str; 5] = ["40001", "40P01", "42704", "23505", "XX000"];

fn random_change(rng: &mut Rng) -> String {
    let number = rng.between(201, 206);
    let offset = rng.below(9000);
    match rng.below(12) {
        0 => format!("SELECT lo_create({number})"),
        1 => format!("SELECT lo_from_bytea({number}, repeat('n', {offset})::bytea)"),
        2 => format!("SELECT lo_unlink({number})"),
        3 => format!("SELECT lo_truncate(lo_open({number}, x'20000'::int), {offset})"),
        4 => "SELECT lo_create(0)".to_owned(),
        5 => format!("COMMENT ON LARGE OBJECT {number} IS '{offset}'"),
        6 => format!("SAVEPOINT s; SELECT lo_put({number}, {offset}, 'never'); ROLLBACK TO s"),
        7 => format!("SELECT lowrite(lo_open({number}, x'60000'::int), repeat('w', {offset})::bytea)"),
        _ => format!("SELECT lo_put({number}, {offset}, repeat('{}', 300)::bytea)", rng.below(10)),
    }
}

/// Six sessions on three nodes change six large objects; what they may do to each other is what they do on one server, or 40001.
#[test]
fn whatever_is_done_at_once_the_nodes_end_equal() {
    let group = emptied();
    let committed: usize = thread::scope(|scope| {
        let sessions: Vec<_> = (0..6)
            .map(|session| {
                let mut client = group.connect(node(session % 3 + 1));
                scope.spawn(move || {
                    let (mut rng, mut committed) = (Rng::new(session as u64), 0);
                    for _ in 0..120 {
                        let changes: Vec<_> = (0..rng.between(1, 3)).map(|_| random_change(&mut rng)).collect();
                        let block = format!("BEGIN; {}; COMMIT", changes.join("; "));
                        let Err(error) = client.batch_execute(&block) else {
                            committed += 1;
                            continue;
                        };
                        let code = error.code().map_or("no code", |code| code.code());
                        assert!(MAY_FAIL.contains(&code), "{block}: {}", describe(&error));
                        let _ = client.batch_execute("ROLLBACK");
                    }
                    committed
                })
            })
            .collect();
        sessions.into_iter().map(|session| session.join().unwrap()).sum()
    });
    assert!(committed > 60, "{committed} of 720 committed");
    assert_same(&group);
}

/// A database whose only contents are large objects has contents: they are the group's, with what is written while it starts.
#[test]
fn large_objects_that_a_database_brings_are_copied() {
    let group = Group::start();
    let database = Database { group: &group, name: "brings" };
    group.numbers().into_iter().for_each(|number| database.make(number));
    database.execute(
        node(1),
        "CREATE ROLE lo_bringer; SELECT lo_from_bytea(91, repeat('x', 5000)::bytea), lo_create(92), lo_create(93)",
    );
    database.execute(node(1), "ALTER LARGE OBJECT 92 OWNER TO lo_bringer; COMMENT ON LARGE OBJECT 93 IS 'brought'");
    // START waits for whoever has written; who comes then is captured as soon as it is done.
    let mut before = database.connect(node(1));
    run(&mut before, &["BEGIN; SELECT lo_put(91, 0, 'before')"]);
    let mut meanwhile = thread::scope(|scope| {
        let starts = scope.spawn(|| database.start(node(1)));
        let locks = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'pg_largeobject'::regclass AND mode = 'ShareRowExclusiveLock'";
        database.arrives(node(1), locks, "true");
        let meanwhile = scope.spawn(|| {
            let mut client = database.connect(node(1));
            // Just before the database opens, it is told so.
            wait::until("it is open", WITHIN, || {
                let done = client.batch_execute("BEGIN; SELECT lo_put(93, 0, 'meanwhile')");
                done.map_err(|error| {
                    assert_eq!(error.code().unwrap().code(), "57P03", "{}", describe(&error));
                    let _ = client.batch_execute("ROLLBACK");
                    describe(&error)
                })
            });
            client
        });
        let waits = "SELECT count(*) > 0 FROM pg_locks WHERE relation = 'pg_largeobject'::regclass AND mode = 'RowExclusiveLock' AND NOT granted";
        database.arrives(node(1), waits, "true");
        run(&mut before, &["COMMIT"]);
        starts.join().unwrap().unwrap();
        meanwhile.join().unwrap()
    });
    let brought = database.value(node(1), ALL);
    for number in [node(2), node(3)] {
        database.start(number).unwrap();
        database.arrives(number, ALL, &brought);
    }
    // It began before there was a position: it may lose, and is not lost.
    if let Err(error) = meanwhile.batch_execute("COMMIT") {
        assert!(describe(&error).contains("40001"), "{}", describe(&error));
        run(&mut meanwhile, &["SELECT lo_put(93, 0, 'meanwhile')"]);
    }
    let wanted = database.value(node(1), ALL);
    assert!(wanted.contains("92 lo_bringer") && wanted.contains("93 postgres brought 9 "), "{wanted}");
    for number in [node(2), node(3)] {
        database.arrives(number, ALL, &wanted);
    }
    database.execute(node(3), "SELECT lo_put(91, 4, 'later'), lo_unlink(92)");
    let wanted = database.value(node(3), ALL);
    database.arrives(node(1), ALL, &wanted);
}

#[test]
fn who_holds_a_page_gives_way_to_what_is_ordered() {
    let group = emptied();
    group.execute(node(1), "SELECT lo_from_bytea(61, 'there')");
    group.settle();
    let (mut open, mut adds) = (group.connect(node(1)), group.connect(node(1)));
    run(&mut open, &["BEGIN; SELECT lo_put(61, 0, 'open')"]);
    run(&mut adds, &["BEGIN; SELECT lo_create(62)"]);
    step(&group, 2, "SELECT lo_put(61, 0, 'first'), lo_from_bytea(62, 'elsewhere')");
    let wanted = "first elsewhere";
    let read = "SELECT concat_ws(' ', encode(lo_get(61), 'escape'), encode(lo_get(62), 'escape'))";
    group.becomes(node(1), read, wanted, Duration::from_secs(10));
    assert_eq!(code(&mut open, "SELECT 1"), "40001");
    assert_eq!(code(&mut adds, "SELECT 1"), "40001");
    assert_same(&group);
}

#[test]
fn contrib_lo_and_vacuumlo_drop_on_every_node() {
    let group = emptied();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "CREATE EXTENSION lo; CREATE TABLE picture (id int PRIMARY KEY, raster lo)",
            "CREATE TRIGGER managed BEFORE UPDATE OR DELETE ON picture FOR EACH ROW EXECUTE FUNCTION lo_manage(raster)",
            "INSERT INTO picture SELECT n, lo_from_bytea(0, 'picture') FROM generate_series(1, 6) n",
        ],
    );
    group.settle();
    step(
        &group,
        2,
        "DELETE FROM picture WHERE id = 1; UPDATE picture SET raster = lo_from_bytea(0, 'another') WHERE id < 4",
    );
    assert_eq!(assert_same(&group).lines().count(), 5);
    step(&group, 3, "SELECT lo_from_bytea(0, 'nobody''s') FROM generate_series(1, 7)");
    group.settle();
    let cluster = group.playground.cluster(node(2));
    let vacuum = Command::new(cluster.bin.join("vacuumlo")).arg(cluster.uri(group.database())).output().unwrap();
    succeeded(&vacuum, "vacuumlo");
    assert_eq!(assert_same(&group).lines().count(), 5);
    run(&mut client, &["DROP TABLE picture; DROP EXTENSION lo"]);
}

#[test]
fn a_dump_with_large_objects_is_restored_on_every_node() {
    let group = emptied();
    run(&mut group.connect(node(1)), &["CREATE ROLE lo_dumped"]);
    let mut server = group.playground.connect(node(1), "postgres").unwrap();
    run(&mut server, &["CREATE DATABASE source"]);
    let mut source = group.playground.connect(node(1), "source").unwrap();
    run(
        &mut source,
        &[
            "SELECT lo_from_bytea(n::oid, decode(repeat(md5(n::text), n), 'hex')) FROM generate_series(1000, 1100) n",
            "SELECT lo_put(1000, 3000000, 'far'); ALTER LARGE OBJECT 1001 OWNER TO lo_dumped; GRANT SELECT ON LARGE OBJECT 1002 TO lo_dumped;
             COMMENT ON LARGE OBJECT 1003 IS 'with a comment'; SELECT lo_create(1200)",
        ],
    );
    let wanted: String = source.query_one(&format!("SELECT {ALL}"), &[]).unwrap().get(0);
    drop(source);
    let (cluster, file) = (group.playground.cluster(node(1)), group.dir().join("source.dump"));
    let mut dump = Command::new(cluster.bin.join("pg_dump"));
    succeeded(&dump.args(["-Fc", "-f"]).arg(&file).arg(cluster.uri("source")).output().unwrap(), "pg_dump");
    let mut restore = Command::new(cluster.bin.join("pg_restore"));
    succeeded(&restore.args(["-j", "2", "-d", &cluster.uri(group.database())]).arg(&file).output().unwrap(), "pg_restore");
    assert_eq!(assert_same(&group), wanted);
    run(&mut server, &["DROP DATABASE source"]);
    run(&mut group.connect(node(1)), &["SELECT lo_unlink(oid) FROM pg_largeobject_metadata; DROP ROLE lo_dumped"]);
}

/// Long values and many small ones: neither is held in memory as a whole, and both are applied ahead.
#[test]
fn large_objects_may_be_large() {
    let group = emptied();
    let mut client = group.connect(node(1));
    run(
        &mut client,
        &[
            "SELECT lo_from_bytea(71, decode(repeat(md5('x'), 2000000), 'hex'))",
            "BEGIN; SELECT lo_create(72); SELECT lo_open(72, x'20000'::int);
             SELECT count(lowrite(0, decode(repeat(md5(n::text), 128), 'hex'))) FROM generate_series(1, 20000) n; COMMIT",
            "SELECT lo_put(71, 30000000, repeat('y', 5000000)::bytea)",
        ],
    );
    let all = assert_same(&group);
    assert!(all.contains("71 postgres 35000000 ") && all.contains("72 postgres 40960000 "), "{all}");
    assert_eq!(group.value(node(2), "SELECT applied_ahead > 0 FROM postgres_r.pg_stat_postgres_r"), "true");
    let mut client = group.connect(node(1));
    run(&mut client, &["SET postgres_r.max_writeset_size = '8MB'"]);
    assert_eq!(code(&mut client, "SELECT lo_put(71, 0, repeat('z', 9000000)::bytea)"), "54000");
    run(&mut client, &["RESET postgres_r.max_writeset_size"]);
    assert_same(&group);
}

#[test]
fn verify_compares_what_is_in_large_objects() {
    let group = Group::start();
    group.execute(node(1), "SELECT lo_from_bytea(81, repeat('x', 5000)::bytea), lo_from_bytea(82, 'small')");
    group.settle();
    let wrong =
        "SELECT concat_ws(' ', table_name, node, verdict, key_range) FROM postgres_r.verify() WHERE verdict <> 'equal'";
    assert_eq!(group.connect(node(2)).query(wrong, &[]).unwrap().len(), 0);
    damage::run_alone(
        &group,
        node(3),
        &[
            "SELECT lo_put(81, 4000, 'y')".to_owned(),
            "SELECT lo_create(83)".to_owned(),
            "SELECT lo_put(82, 9, '')".to_owned(),
        ],
    );
    let found = group.connect(node(1)).query(wrong, &[]).unwrap();
    let found: Vec<String> = found.iter().map(|row| row.get(0)).collect();
    assert_eq!(found, ["catalogs node3 different large object 81, large object 83"]);
    // It cannot be written to where it is missing: that node is rebuilt.
    damage::run_alone(&group, node(3), &["SELECT lo_unlink(82)".to_owned()]);
    group.execute(node(1), "SELECT lo_put(82, 0, 'SM')");
    wait::until("node 3 is rebuilt", Duration::from_secs(120), || {
        let mut client = group.try_connect(node(3)).map_err(|error| describe(&error))?;
        let read = client.query_one("SELECT encode(lo_get(82), 'escape')", &[]).map_err(|error| describe(&error))?;
        if read.get::<_, String>(0) == "SMall" { Ok(()) } else { Err("it does not show the write".to_owned()) }
    });
    assert_same(&group);
}
