//! Roles belong to a whole server. Statements about them in a replicated database are in force on every node, in their transaction and in the
//! order; a password is in nothing that travels or is shown.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs;
use std::path::Path;
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::error::DbError;
use postgres::{Client, NoTls};
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::{self, Group, everywhere, node, step, wait};

const WITHIN: Duration = Duration::from_secs(30);

/// A session in a database that is not replicated, where statements about roles are of one server.
fn server(group: &Group, number: NodeNumber) -> Client {
    group.playground.connect(number, "postgres").unwrap()
}

fn error_of(client: &mut Client, statement: &str) -> DbError {
    let error = client.batch_execute(statement).expect_err(statement);
    error.as_db_error().unwrap_or_else(|| panic!("{statement}: {error}")).clone()
}

fn code(client: &mut Client, statement: &str) -> String {
    error_of(client, statement).code().code().to_owned()
}

fn assert_online(group: &Group) {
    group.settle();
    wait::until("all online", WITHIN, || {
        let others = group.values("SELECT count(*) FROM postgres_r.members WHERE state <> 'online'");
        if others == ["0", "0", "0"] { Ok(()) } else { Err(format!("not online: {others:?}")) }
    });
}

/// From now on these users show a password when they come by TCP.
fn ask_for_passwords(group: &Group, users: &str) {
    for number in group.numbers() {
        let file = group.playground.cluster(number).data().join("pg_hba.conf");
        let rules = fs::read_to_string(&file).unwrap();
        fs::write(&file, format!("host all {users} 127.0.0.1/32 scram-sha-256\n{rules}")).unwrap();
        server(group, number).batch_execute("SELECT pg_reload_conf()").unwrap();
    }
}

fn login(group: &Group, number: NodeNumber, user: &str, password: &str) -> Result<Client, String> {
    let mut config = postgres::Config::new();
    config.host("127.0.0.1").port(group.playground.cluster(number).port).user(user).password(password).dbname("shop");
    config.connect(NoTls).map_err(|error| format!("{error:?}"))
}

/// Files below this directory in which the text stands.
fn files_with(directory: &Path, text: &str, found: &mut Vec<String>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => files_with(&path, text, found),
            Ok(kind) if kind.is_file() => {
                let bytes = fs::read(&path).unwrap_or_default();
                if bytes.windows(text.len()).any(|window| window == text.as_bytes()) {
                    found.push(path.display().to_string());
                }
            }
            _ => {}
        }
    }
}

const ROLE: &str = "SELECT coalesce((SELECT concat_ws(' ', rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolconnlimit, rolvaliduntil, rolpassword)
    FROM pg_authid WHERE rolname = 'ROLE'), 'none')";

fn role(group: &Group, name: &str) -> String {
    everywhere(group, &ROLE.replace("ROLE", name))
}

/// The password of the test, of which only the beginning stays the same.
fn assert_no_file_has_it(group: &Group) {
    // Of the whole group: data directories, logs, the daemons' log of the order.
    let mut found = Vec::new();
    files_with(group.dir(), "tOp-seCret", &mut found);
    files_with(group.dir(), "tOp\\002DseCret", &mut found);
    assert!(found.is_empty(), "{found:?}");
    let mut found = Vec::new();
    files_with(group.dir(), "Mrs \"\"O'Hara", &mut found);
    assert!(!found.is_empty(), "the search has looked at the files of the order");
}

#[test]
fn a_role_made_on_one_node_logs_in_on_all_with_its_password_and_no_file_has_it() {
    let group = harness::shared();
    ask_for_passwords(&group, "clerk,\"Mrs \"\"O'Hara\"");
    step(
        &group,
        1,
        "SET log_statement = 'none'; CREATE USER clerk PASSWORD 'tOp-seCret-1' CONNECTION LIMIT 7 VALID UNTIL '2099-01-01 UTC' CREATEDB",
    );
    assert!(role(&group, "clerk").starts_with("t f t f 7 2099-01-01 00:00:00+00 SCRAM-SHA-256$"));
    for number in group.numbers() {
        let mut clerk = login(&group, number, "clerk", "tOp-seCret-1").unwrap();
        assert_eq!(harness::database::value(&mut clerk, "SELECT session_user"), "clerk");
        login(&group, number, "clerk", "tOp-seCret-2").map(drop).unwrap_err();
    }
    // Each its own, by itself: they are no superuser's words.
    group.settle();
    login(&group, node(2), "clerk", "tOp-seCret-1")
        .unwrap()
        .batch_execute("ALTER USER CURRENT_USER PASSWORD 'tOp-seCret-3'")
        .unwrap();
    group.settle();
    for number in group.numbers() {
        login(&group, number, "clerk", "tOp-seCret-3").unwrap();
        login(&group, number, "clerk", "tOp-seCret-1").map(drop).unwrap_err();
    }
    // As PostgreSQL takes it: in any quotes, hashed before, in another way, for no password at all.
    step(&group, 3, "ALTER ROLE clerk PASSWORD $x$tOp-seCret-4$x$");
    let verifier = everywhere(&group, "SELECT rolpassword FROM pg_authid WHERE rolname = 'clerk'");
    login(&group, node(1), "clerk", "tOp-seCret-4").unwrap();
    step(&group, 1, "ALTER ROLE clerk PASSWORD NULL");
    assert!(role(&group, "clerk").ends_with("+00"));
    step(&group, 2, &format!("ALTER ROLE clerk ENCRYPTED PASSWORD '{verifier}'"));
    assert!(role(&group, "clerk").ends_with(&verifier));
    login(&group, node(3), "clerk", "tOp-seCret-4").unwrap();
    step(&group, 1, "SET password_encryption = 'md5'; ALTER ROLE clerk PASSWORD U&'tOp\\002DseCret-5' NOCREATEDB");
    assert_eq!(role(&group, "clerk").rsplit_once(' ').unwrap().1.get(..3), Some("md5"));
    step(&group, 2, "ALTER ROLE clerk PASSWORD ''");
    assert!(role(&group, "clerk").starts_with("t f f f 7") && role(&group, "clerk").ends_with("+00"));
    step(
        &group,
        3,
        "CREATE ROLE \"Mrs \"\"O'Hara\" LOGIN PASSWORD 'tOp-seCret-6' IN ROLE pg_monitor, pg_signal_backend ROLE postgres ADMIN clerk NOINHERIT",
    );
    group.settle();
    for number in group.numbers() {
        login(&group, number, "Mrs \"O'Hara", "tOp-seCret-6").unwrap();
    }
    let members = "SELECT string_agg(roleid::regrole || '>' || member::regrole || admin_option, ' ' ORDER BY roleid::regrole::text, member::regrole::text)
        FROM pg_auth_members WHERE 'Mrs \"O''Hara' IN (pg_get_userbyid(roleid), pg_get_userbyid(member))";
    let hers = "\"Mrs \"\"O'Hara\"";
    assert_eq!(
        everywhere(&group, members),
        format!("{hers}>clerktrue {hers}>postgresfalse pg_monitor>{hers}false pg_signal_backend>{hers}false")
    );
    // In a block, a function, a statement that fails here or elsewhere.
    step(&group, 1, "DO $$ BEGIN EXECUTE format('ALTER ROLE clerk PASSWORD %L', 'tOp-seCret-7'); END $$");
    group.settle();
    login(&group, node(2), "clerk", "tOp-seCret-7").unwrap();
    server(&group, node(3)).batch_execute("CREATE ROLE here_already").unwrap();
    let mut client = group.connect(node(1));
    client.batch_execute("SET log_min_error_statement = 'panic'").unwrap();
    let error = error_of(&mut client, "CREATE ROLE here_already PASSWORD 'tOp-seCret-8'");
    assert_eq!(error.code().code(), "42710", "{error:?}");
    assert!(!format!("{error:?}").contains("tOp-seCret"), "{error:?}");
    server(&group, node(3)).batch_execute("DROP ROLE here_already").unwrap();
    step(&group, 2, &format!("DROP ROLE clerk, {hers}"));
    assert_eq!(role(&group, "clerk"), "none");
    assert_online(&group);
    assert_no_file_has_it(&group);
}

#[test]
fn roles_are_altered_granted_renamed_described_and_dropped_everywhere() {
    let group = harness::shared();
    step(&group, 1, "CREATE ROLE staff; CREATE GROUP crew; CREATE ROLE anna LOGIN IN ROLE staff; CREATE USER bob");
    step(&group, 2, "GRANT staff, crew TO bob WITH ADMIN OPTION; ALTER GROUP crew ADD USER anna; ALTER ROLE anna CREATEDB");
    step(&group, 3, "ALTER ROLE anna SET work_mem = '7MB'; ALTER ROLE bob IN DATABASE shop SET search_path = app, public");
    step(&group, 1, "ALTER ROLE ALL SET app.everybody = 'x'; SET app.mine = 'y'; ALTER ROLE bob SET app.mine FROM CURRENT");
    step(&group, 2, "COMMENT ON ROLE staff IS 'who works here'; ALTER DATABASE shop SET app.here = 'z'");
    let members = "SELECT string_agg(roleid::regrole || '>' || member::regrole || admin_option, ' ' ORDER BY roleid::regrole::text, member::regrole::text)
        FROM pg_auth_members WHERE roleid >= 16384";
    assert_eq!(everywhere(&group, members), "crew>annafalse crew>bobtrue staff>annafalse staff>bobtrue");
    let settings = "SELECT string_agg(concat_ws(' ', d.datname, r.rolname, s.setconfig), ';' ORDER BY d.datname, r.rolname)
        FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole LEFT JOIN pg_database d ON d.oid = setdatabase";
    assert_eq!(
        everywhere(&group, settings),
        "shop bob {\"search_path=app, public\"};shop {app.here=z};anna {work_mem=7MB};bob {app.mine=y};{app.everybody=x}"
    );
    assert_eq!(everywhere(&group, "SELECT shobj_description('staff'::regrole, 'pg_authid')"), "who works here");
    step(
        &group,
        3,
        "ALTER ROLE staff RENAME TO \"Staff\"; REVOKE ADMIN OPTION FOR \"Staff\" FROM bob; REVOKE crew FROM anna",
    );
    assert_eq!(everywhere(&group, members), "\"Staff\">annafalse \"Staff\">bobfalse crew>bobtrue");
    step(
        &group,
        1,
        "ALTER ROLE ALL RESET ALL; ALTER ROLE anna RESET work_mem; ALTER ROLE bob RESET ALL; ALTER DATABASE shop RESET app.here",
    );
    step(&group, 1, "ALTER ROLE bob IN DATABASE shop RESET ALL");
    assert_eq!(everywhere(&group, settings), "NULL");
    // What is not there is passed over; what owns something stays.
    step(&group, 1, "DROP ROLE IF EXISTS nobody; CREATE TABLE of_anna (n int); ALTER TABLE of_anna OWNER TO anna");
    group.settle();
    assert_eq!(code(&mut group.connect(node(2)), "DROP ROLE anna"), "2BP01");
    step(&group, 2, "BEGIN; DROP TABLE of_anna; DROP ROLE anna, bob; DROP GROUP crew; DROP USER \"Staff\"; COMMIT");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM pg_roles WHERE oid >= 16384"), "0");
    let error = error_of(&mut group.connect(node(1)), "ALTER ROLE postgres SET lock_timeout FROM CURRENT");
    assert!(error.code().code() == "0A000" && error.message().starts_with("SET lock_timeout FROM CURRENT"), "{error:?}");
    harness::assert_equal(&group);
}

#[test]
fn a_role_is_part_of_its_transaction_and_gives_way_like_other_ddl() {
    let group = harness::shared();
    step(&group, 1, "CREATE TABLE part (n int PRIMARY KEY, t text)");
    step(
        &group,
        2,
        "BEGIN; INSERT INTO part VALUES (1, 'before'); SAVEPOINT s; CREATE ROLE undone; INSERT INTO part VALUES (2, 'undone');
         ROLLBACK TO s; CREATE ROLE kept PASSWORD 'first'; GRANT SELECT ON part TO kept; INSERT INTO part VALUES (3, 'behind');
         ALTER TABLE part OWNER TO kept; COMMIT",
    );
    assert_eq!(
        everywhere(&group, "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE oid >= 16384"),
        "kept"
    );
    assert_eq!(
        everywhere(
            &group,
            "SELECT string_agg(t || ' ' || tableowner, ', ' ORDER BY n) FROM part, pg_tables WHERE tablename = 'part'"
        ),
        "before kept, behind kept"
    );
    step(&group, 3, "BEGIN; CREATE ROLE undone; INSERT INTO part VALUES (9, 'undone'); ROLLBACK");
    assert_eq!(role(&group, "undone"), "none");
    // Two nodes at once: in the order, one of them comes second.
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; CREATE ROLE doubled LOGIN; INSERT INTO part VALUES (4, 'one')").unwrap();
    two.batch_execute("BEGIN; CREATE ROLE doubled NOLOGIN; INSERT INTO part VALUES (5, 'two')").unwrap();
    one.batch_execute("COMMIT").unwrap();
    assert_eq!(code(&mut two, "COMMIT"), "40001");
    assert!(role(&group, "doubled").starts_with("t f"));
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(3)));
    one.batch_execute("BEGIN; ALTER ROLE doubled PASSWORD 'one'").unwrap();
    two.batch_execute("BEGIN; ALTER ROLE doubled PASSWORD 'two'; ALTER ROLE doubled CREATEDB").unwrap();
    one.batch_execute("COMMIT").unwrap();
    assert_eq!(code(&mut two, "COMMIT"), "40001");
    assert!(role(&group, "doubled").starts_with("t f f"));
    step(&group, 2, "DROP TABLE part; DROP ROLE kept, doubled");
    harness::assert_equal(&group);
}

#[test]
fn statements_run_with_the_rights_of_whoever_ran_them() {
    let group = harness::shared();
    step(
        &group,
        1,
        "CREATE ROLE chief LOGIN CREATEROLE CREATEDB; CREATE ROLE team; GRANT team TO chief WITH ADMIN OPTION; CREATE ROLE worker LOGIN",
    );
    let as_chief = |number, statements: &str| {
        group.settle();
        let mut chief = group.connect(node(number));
        chief.batch_execute("SET SESSION AUTHORIZATION chief").unwrap();
        chief.batch_execute(statements).map_err(|error| Box::new(error.as_db_error().unwrap().clone()))
    };
    as_chief(1, "CREATE ROLE hired LOGIN PASSWORD 'welcome'; GRANT team TO hired; ALTER ROLE hired CREATEDB").unwrap();
    let granted = "SELECT string_agg(member::regrole || ' by ' || grantor::regrole, ', ' ORDER BY member::regrole::text)
        FROM pg_auth_members WHERE roleid = 'team'::regrole";
    assert_eq!(everywhere(&group, granted), "chief by postgres, hired by chief");
    as_chief(2, "ALTER ROLE hired RENAME TO gone; SET ROLE team; RESET ROLE; DROP ROLE gone").unwrap();
    assert_eq!(role(&group, "hired"), "none");
    for statement in ["CREATE ROLE boss SUPERUSER PASSWORD 'x'", "ALTER ROLE postgres PASSWORD 'x'", "DROP ROLE postgres"] {
        assert_eq!(as_chief(3, statement).unwrap_err().code().code(), "42501", "{statement}");
    }
    // On node 2 alone the chief is none any more.
    server(&group, node(2)).batch_execute("ALTER ROLE chief NOCREATEROLE").unwrap();
    let error = as_chief(1, "CREATE ROLE hired PASSWORD 'welcome'").unwrap_err();
    assert_eq!(error.message(), "the transaction's statements cannot run on node \"node2\"", "{error:?}");
    server(&group, node(2)).batch_execute("ALTER ROLE chief CREATEROLE").unwrap();
    assert_eq!(role(&group, "hired"), "none");
    // A session whose role is gone: as on one server.
    group.settle();
    let mut worker = group.connect(node(3));
    worker.batch_execute("SET SESSION AUTHORIZATION worker").unwrap();
    step(&group, 1, "DROP ROLE worker");
    group.settle();
    assert_eq!(harness::database::value(&mut worker, "SELECT 1"), "1");
    assert_eq!(code(&mut worker, "CREATE ROLE by_nobody"), "42501");
    step(&group, 1, "DROP ROLE chief, team");
    harness::assert_equal(&group);
}

#[test]
fn what_one_server_has_or_lacks_is_an_error_that_names_it() {
    let group = harness::shared();
    server(&group, node(3)).batch_execute("CREATE ROLE local").unwrap();
    let mut client = group.connect(node(1));
    let error = error_of(&mut client, "CREATE ROLE local");
    assert_eq!(error.code().code(), "42710");
    assert_eq!(error.message(), "the transaction's statements cannot run on node \"node3\"");
    assert_eq!(error.detail(), Some("node3: role \"local\" already exists."));
    assert_eq!(group.values("SELECT count(*) FROM pg_roles WHERE rolname = 'local'"), ["0", "0", "1"]);
    let error = error_of(&mut group.connect(node(3)), "CREATE ROLE local");
    assert_eq!((error.code().code(), error.message()), ("42710", "role \"local\" already exists"));
    let error = error_of(&mut group.connect(node(3)), "ALTER ROLE local LOGIN");
    assert!(error.code().code() == "42704" && error.message().contains("cannot run on node"), "{error:?}");
    server(&group, node(3)).batch_execute("DROP ROLE local").unwrap();
    // It owns something on node 2, in a database that is none of the group's.
    step(&group, 1, "CREATE ROLE holder");
    group.settle();
    server(&group, node(2)).batch_execute("CREATE TABLE held (n int); ALTER TABLE held OWNER TO holder").unwrap();
    let error = error_of(&mut client, "DROP ROLE holder");
    assert_eq!(
        (error.code().code(), error.message()),
        ("2BP01", "the transaction's statements cannot run on node \"node2\"")
    );
    server(&group, node(2)).batch_execute("DROP TABLE held").unwrap();
    step(&group, 1, "DROP ROLE holder");
    assert_online(&group);
    harness::assert_equal(&group);
}

#[test]
fn rows_that_name_a_role_follow_it() {
    let group = harness::shared();
    for number in [node(2), node(3)] {
        // OIDs are another server's from here on.
        (0..number.0).for_each(|_| server(&group, number).batch_execute("CREATE ROLE r; DROP ROLE r").unwrap());
    }
    step(
        &group,
        1,
        "CREATE ROLE first; CREATE ROLE second; CREATE TABLE loose (r regrole, n int); CREATE TABLE names (id int PRIMARY KEY, r regrole)",
    );
    step(
        &group,
        2,
        "INSERT INTO names VALUES (1, 'first'), (2, 'second'), (3, 'postgres'); INSERT INTO loose VALUES ('second', 1)",
    );
    step(&group, 3, "ALTER ROLE first RENAME TO renamed");
    assert_eq!(everywhere(&group, "SELECT string_agg(r::text, ' ' ORDER BY id) FROM names"), "renamed second postgres");
    // One names the role that another drops.
    let (mut one, mut two) = (group.connect(node(1)), group.connect(node(2)));
    one.batch_execute("BEGIN; DROP ROLE second").unwrap();
    two.batch_execute("BEGIN; INSERT INTO names VALUES (4, 'second')").unwrap();
    one.batch_execute("COMMIT").unwrap();
    assert_eq!(code(&mut two, "COMMIT"), "40001");
    // A number on each node from now on, and another one on each, by which rows without a key are found all the same.
    step(&group, 3, "DELETE FROM names WHERE id = 3");
    step(&group, 2, "UPDATE loose SET n = 2 WHERE r IS NOT NULL");
    step(&group, 1, "DELETE FROM loose WHERE n = 2");
    assert_eq!(everywhere(&group, "SELECT count(*) FROM loose"), "0");
    step(&group, 1, "DROP TABLE names, loose; DROP ROLE renamed");
    harness::assert_equal(&group);
}

#[test]
fn of_several_databases_the_first_of_the_group_takes_statements_about_roles() {
    let group = Group::start();
    let books = Database::replicated(&group, "books of roles");
    let mut client = books.connect(node(2));
    let error = error_of(&mut client, "CREATE ROLE elsewhere PASSWORD 'x'");
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    assert_eq!(error.message(), "CREATE ROLE is not supported in replicated database \"books of roles\"");
    assert_eq!(error.hint(), Some("Run it in database \"shop\"."));
    for statement in
        ["ALTER ROLE postgres SET work_mem = '8MB'", "GRANT pg_monitor TO postgres", "COMMENT ON ROLE postgres IS 'x'"]
    {
        assert_eq!(code(&mut client, statement), "0A000", "{statement}");
    }
    // What is of this database alone is taken in this one.
    step(&group, 1, "CREATE ROLE reader");
    group.settle();
    client.batch_execute("ALTER ROLE reader IN DATABASE \"books of roles\" SET work_mem = '6MB'").unwrap();
    client.batch_execute("ALTER DATABASE \"books of roles\" SET work_mem = '5MB'").unwrap();
    let settings = "SELECT string_agg(setconfig::text, ' ' ORDER BY setrole) FROM pg_db_role_setting WHERE setdatabase = (SELECT oid FROM pg_database WHERE datname = current_database())";
    for number in group.numbers() {
        books.arrives(number, settings, "{work_mem=5MB} {work_mem=6MB}");
    }
    // Node 1 has only this one from now on, and nobody there could tell; the others do.
    let shop = Database { group: &group, name: "shop" };
    shop.stop(node(1)).unwrap();
    let error = error_of(&mut books.connect(node(1)), "CREATE ROLE elsewhere");
    assert_eq!(error.code().code(), "0A000", "{error:?}");
    assert!(error.message().starts_with("the transaction's statements cannot run on node"), "{error:?}");
    assert!(error.detail().unwrap().contains("is not supported in replicated database"), "{error:?}");
    for number in group.numbers() {
        assert_eq!(books.value(number, "SELECT count(*) FROM pg_roles WHERE rolname = 'elsewhere'"), "0");
    }
    shop.stop(node(2)).unwrap();
    shop.stop(node(3)).unwrap();
    books.execute(node(1), "CREATE ROLE elsewhere; DROP ROLE reader");
    for number in group.numbers() {
        books.arrives(number, "SELECT string_agg(rolname, ' ') FROM pg_roles WHERE oid >= 16384", "elsewhere");
    }
}

#[test]
fn what_is_said_of_the_database_holds_on_every_node_and_in_copies() {
    let group = harness::shared();
    let books = Database { group: &group, name: "granted \"books\"" };
    let name = "\"granted \"\"books\"\"\"";
    step(&group, 1, "CREATE ROLE reader; CREATE ROLE guest; CREATE ROLE keeper");
    group.settle();
    for number in [node(1), node(2)] {
        books.make(number);
        books.on_server(number, &format!("ALTER DATABASE {name} OWNER TO keeper")).unwrap();
        if number == node(1) {
            // Contents of before, which make it that others get a copy.
            books.execute(number, "CREATE TABLE held AS SELECT 1 AS n");
        }
        books.start(number).unwrap();
    }
    books.arrives(node(2), "SELECT n FROM held", "1");
    books.execute(
        node(2),
        &format!(
            "GRANT CONNECT, TEMP ON DATABASE {name} TO reader WITH GRANT OPTION; REVOKE ALL ON DATABASE {name} FROM PUBLIC;
             SET ROLE reader; GRANT CONNECT ON DATABASE {name} TO guest; RESET ROLE;
             COMMENT ON DATABASE {name} IS E'it''s \\\\ ours';
             ALTER DATABASE {name} SET app.here = 'y'"
        ),
    );
    books.execute(node(1), &format!("BEGIN; GRANT ALL ON DATABASE {name} TO PUBLIC; ROLLBACK"));
    let said = "SELECT datacl::text || ' ' || coalesce(shobj_description(d.oid, 'pg_database'), 'nothing') || ' ' || setconfig::text
        FROM pg_database d JOIN pg_db_role_setting s ON setdatabase = d.oid WHERE datname = current_database()";
    let wanted = "{keeper=CTc/keeper,reader=T*c*/keeper,guest=c/reader} it's \\ ours {app.here=y}";
    books.arrives(node(1), said, wanted);
    books.arrives(node(2), said, wanted);
    // Node 3 gets a copy.
    books.make(node(3));
    books.start(node(3)).unwrap();
    books.arrives(node(3), said, wanted);
    books.execute(
        node(3),
        &format!("REVOKE CONNECT ON DATABASE {name} FROM reader CASCADE; COMMENT ON DATABASE {name} IS NULL"),
    );
    for number in group.numbers() {
        books.arrives(number, said, "{keeper=CTc/keeper,reader=T*/keeper} nothing {app.here=y}");
    }
    books.end();
    step(&group, 1, "DROP ROLE reader, guest, keeper");
}
