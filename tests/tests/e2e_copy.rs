//! Databases that are copied from another node: where the group began with contents, and where the log does not reach. Others write meanwhile.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::database::Database;
use postgres_r_tests::harness::{Group, damage, fingerprint, node, wait};

const COPIED_WITHIN: Duration = Duration::from_secs(120);

/// What every node must hold: rows, definitions, privileges, settings, what sequences would give.
const CONTENTS: &str = "concat_ws('|',
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM item t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM part t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM written t),
    (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM \"as of\" t), (SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM of_view t),
    (SELECT string_agg(concat_ws(' ', relname, relispopulated), ',' ORDER BY relname) FROM pg_class WHERE relkind = 'm'),
    (SELECT string_agg(concat_ws(' ', relname, relkind, relacl, relowner::regrole), ',' ORDER BY relname)
     FROM pg_class WHERE relnamespace = 'public'::regnamespace),
    (SELECT string_agg(indexdef, ',' ORDER BY indexname) FROM pg_indexes WHERE schemaname = 'public'),
    obj_description('item'::regclass), (SELECT count(*) FROM seen), current_setting('app.tenant'),
    (SELECT string_agg(concat_ws(' ', sequencename, increment_by, data_type), ',' ORDER BY sequencename) FROM pg_sequences))";

const SETUP: &str = "
    CREATE ROLE reader_of_copies LOGIN PASSWORD 'secret' CONNECTION LIMIT 7;
    CREATE ROLE owner_of_copies; GRANT owner_of_copies TO reader_of_copies;
    CREATE TABLE item (id bigserial PRIMARY KEY, name text COLLATE \"C\", price numeric(10, 2), at timestamptz DEFAULT now(), tags text[],
        body bytea, twice numeric GENERATED ALWAYS AS (price * 2) STORED);
    CREATE INDEX item_name ON item (lower(name)) WHERE price > 1;
    COMMENT ON TABLE item IS 'things';
    GRANT SELECT ON item TO reader_of_copies;
    INSERT INTO item (name, price, tags, body)
        SELECT 'item ' || n, n / 7.0, ARRAY['a', n::text], decode(repeat(md5(n::text), 200), 'hex') FROM generate_series(1, 3000) n;
    CREATE TABLE part (item bigint REFERENCES item, n int, PRIMARY KEY (item, n)) PARTITION BY RANGE (n);
    CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (10);
    CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (10) TO (100);
    INSERT INTO part SELECT n, n % 20 FROM generate_series(1, 500) n;
    CREATE FUNCTION cheap(n numeric) RETURNS boolean LANGUAGE sql IMMUTABLE AS 'SELECT n < 10';
    CREATE VIEW seen AS SELECT id FROM item WHERE cheap(price);
    CREATE MATERIALIZED VIEW \"as of\" AS SELECT id, price, tags, body, random() AS r, now() AS at, regclass 'part' AS named FROM item;
    CREATE UNIQUE INDEX as_of_id ON \"as of\" (id); CREATE INDEX as_of_cheap ON \"as of\" (cheap(price)) WHERE cheap(price);
    ALTER MATERIALIZED VIEW \"as of\" OWNER TO owner_of_copies; GRANT SELECT ON \"as of\" TO reader_of_copies;
    CREATE MATERIALIZED VIEW of_view AS SELECT count(*), clock_timestamp() AS at FROM \"as of\"; CREATE MATERIALIZED VIEW never AS SELECT 1 AS one WITH NO DATA;
    UPDATE item SET price = price + 1 WHERE id > 2990;
    CREATE TABLE written (id serial PRIMARY KEY, node int, n int, UNIQUE (node, n));
    ALTER TABLE item OWNER TO owner_of_copies";

fn populated<'a>(group: &'a Group, name: &'a str) -> Database<'a> {
    let database = Database { group, name };
    for number in group.numbers() {
        database.make(number);
    }
    database.execute(node(1), SETUP);
    database.on_server(node(1), &format!("ALTER DATABASE {name} SET app.tenant = 'it''s 7'")).unwrap();
    database
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// Rows that were acknowledged, by a session that writes until it is told to stop; it is told of what is no outage.
fn write(database: &Database<'_>, number: NodeNumber, stop: &AtomicBool) -> Vec<i32> {
    let mut acknowledged = Vec::new();
    let mut client = database.connect(number);
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        client.execute("INSERT INTO written (node, n) VALUES ($1, $2)", &[&(number.0 as i32), &n]).unwrap();
        acknowledged.push(n);
    }
    acknowledged
}

fn assert_equal(database: &Database<'_>) {
    let first = database.value(node(1), CONTENTS);
    for number in &database.group.numbers()[1..] {
        database.arrives(*number, CONTENTS, &first);
    }
}

fn await_copy(database: &Database<'_>, number: NodeNumber) {
    wait::until(&format!("the copy on node {}", number.0), COPIED_WITHIN, || {
        let mut client = database.try_connect(number).map_err(|error| gcs::playground::group::describe(&error))?;
        client
            .query_one("SELECT count(*) FROM item", &[])
            .map(drop)
            .map_err(|error| gcs::playground::group::describe(&error))
    });
}

#[test]
fn the_first_node_brings_its_data_and_the_others_receive_it_while_it_writes() {
    let group = Group::start();
    let database = populated(&group, "brought");
    database.execute(
        node(1),
        "CREATE TABLE of_one (id int PRIMARY KEY); INSERT INTO of_one VALUES (1); SELECT postgres_r.exclude('of_one')",
    );
    let stop = AtomicBool::new(false);
    let acknowledged = thread::scope(|scope| {
        let writer = scope.spawn(|| write(&database, node(1), &stop));
        // Also where the test fails.
        let _stop = Stop(&stop);
        database.start(node(1)).unwrap();
        for number in [node(2), node(3)] {
            database.start(number).unwrap();
            assert!(database.try_connect(number).is_err(), "nobody may see half a copy");
            await_copy(&database, number);
        }
        stop.store(true, Ordering::SeqCst);
        writer.join().unwrap()
    });
    assert_equal(&database);
    let rows = format!("SELECT count(*) FROM written WHERE node = 1 AND n BETWEEN 1 AND {}", acknowledged.len());
    for number in group.numbers() {
        assert_eq!(database.value(number, &rows), acknowledged.len().to_string(), "nothing acknowledged is lost");
        database.execute(
            number,
            &format!("INSERT INTO written (node, n) SELECT {}, -n FROM generate_series(1, 50) n", number.0),
        );
        database.execute(number, "INSERT INTO item (name, price) VALUES ('later', 3); DELETE FROM part WHERE item = 3");
        let verifier = "SELECT count(*) FROM pg_authid WHERE rolname = 'reader_of_copies' AND rolpassword LIKE 'SCRAM%'
                        AND rolconnlimit = 7 AND pg_has_role(oid, 'owner_of_copies', 'member')";
        assert_eq!(database.value(number, verifier), "1");
    }
    // Of an excluded table everybody has the definition.
    let own = group.numbers().into_iter().map(|number| database.value(number, "SELECT count(*) FROM of_one"));
    assert_eq!(own.collect::<Vec<_>>(), ["1", "0", "0"]);
    let by_index = "SELECT count(*) FROM \"as of\" WHERE cheap(price)";
    assert_eq!(database.value(node(3), by_index), database.value(node(1), by_index));
    database.execute(node(2), "REFRESH MATERIALIZED VIEW CONCURRENTLY \"as of\"; REFRESH MATERIALIZED VIEW never");
    database.execute(node(3), "ALTER TABLE item ADD COLUMN more serial; CREATE TABLE fresh (id serial PRIMARY KEY)");
    database.arrives(node(2), "SELECT count(more) > 3000 FROM item", "true");
    assert_equal(&database);
    // The group has contents now: nobody else can bring any.
    database.stop(node(2)).unwrap();
    let error = database.start(node(2)).unwrap_err();
    assert!(error.as_db_error().is_some_and(|error| error.message().contains("is not empty")), "{error:?}");
}

#[test]
fn a_node_whose_database_is_made_again_gets_a_copy_and_another_source_when_the_first_dies() {
    let group = Group::start();
    let database = populated(&group, "remade");
    for number in group.numbers() {
        database.start(number).unwrap();
        await_copy(&database, number);
    }
    assert_equal(&database);
    database.stop(node(3)).unwrap();
    wait::until("nobody uses the database", Duration::from_secs(30), || {
        let dropped = database.on_server(node(3), "DROP DATABASE remade WITH (FORCE)");
        dropped.map_err(|error| gcs::playground::group::describe(&error))
    });
    database.make(node(3));
    database.start(node(3)).unwrap();
    // Whichever node it copies from: both others are gone for a moment.
    for number in [node(1), node(2)] {
        group.kill(number, Part::Postgres);
        group.start_node(number);
    }
    await_copy(&database, node(3));
    assert_equal(&database);
    for number in group.numbers() {
        database
            .execute(number, &format!("INSERT INTO written (node, n) SELECT {}, n FROM generate_series(1, 20) n", number.0));
    }
    assert_equal(&database);
}

#[test]
fn a_copy_outlives_its_daemon_and_ends_when_replication_is_stopped() {
    let group = Group::start();
    let database = populated(&group, "held");
    database.start(node(1)).unwrap();
    // pg_dump waits for this lock.
    let mut holder = database.connect(node(1));
    holder.batch_execute("BEGIN; LOCK TABLE item").unwrap();
    database.start(node(2)).unwrap();
    database.start(node(3)).unwrap();
    let incoming = "SELECT count(*) FROM pg_database WHERE datname = 'held_incoming'";
    let is_made = |number: NodeNumber, wanted: i64| {
        wait::until(&format!("{wanted} copies on node {}", number.0), COPIED_WITHIN, || {
            match database.server(number).query_one(incoming, &[]).unwrap().get::<_, i64>(0) {
                found if found == wanted => Ok(()),
                found => Err(format!("{found}")),
            }
        });
    };
    is_made(node(2), 1);
    is_made(node(3), 1);
    group.kill(node(2), Part::Gcs);
    // Not online before it has its copy.
    group.playground.daemon(node(2)).start().unwrap();
    // At whatever point of being copied it is: the group is told.
    database.stop(node(3)).unwrap();
    let told = "SELECT was_told FROM postgres_r.past_groups";
    assert_eq!(database.value(node(3), told), "true");
    holder.batch_execute("ROLLBACK").unwrap();
    await_copy(&database, node(2));
    is_made(node(3), 0);
    assert_eq!(database.value(node(3), "SELECT count(*) FROM pg_class WHERE relname = 'item'"), "0", "it stays as it is");
    let same = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text)) FROM item t";
    database.arrives(node(2), same, &database.value(node(1), same));
}

/// Rows of node 2 are changed behind everybody's back, until it cannot apply what comes. Whether it is node 2 that differs, or the node which the
/// position is of, only a third can say; so nothing is replaced before that one is there.
#[test]
fn a_node_that_differs_is_rebuilt_by_itself_as_soon_as_a_majority_says_otherwise() {
    let group = Group::start();
    for number in group.numbers() {
        server(&group, number).batch_execute("CREATE EXTENSION postgres_r").unwrap();
    }
    group.execute(
        node(1),
        "CREATE TABLE thing (id int PRIMARY KEY, v text); INSERT INTO thing SELECT n, 'v' || n FROM generate_series(1, 1000) n",
    );
    let damages = ["DELETE FROM thing WHERE id = 5", "UPDATE thing SET v = 'other' WHERE id = 6"];
    damage::change_rows(&group, node(2), "thing", &damages);
    group.kill(node(3), Part::Both);
    group.execute(node(1), "UPDATE thing SET v = 'new' WHERE id = 5");
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop\\__%'";
    let copies = |number: NodeNumber| server(&group, number).query_one(kept, &[]).unwrap().get::<_, i64>(0);
    wait::until("several attempts", COPIED_WITHIN, || {
        let failures = "SELECT sqlstate, attempts FROM postgres_r.failures WHERE database = 'shop'";
        match server(&group, node(2)).query_opt(failures, &[]).unwrap().map(|row| (row.get(0), row.get(1))) {
            Some::<(String, i32)>((code, attempts)) if attempts >= 3 && code == "XX001" => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    assert_eq!(copies(node(2)), 0);

    group.start_node(node(3));
    let is_mended = "SELECT concat_ws(' ', count(*), max(v) FILTER (WHERE id = 5), max(v) FILTER (WHERE id = 6)) FROM thing";
    wait::until("node 2 back, with the group's rows", COPIED_WITHIN, || {
        let mut client = group.try_connect(node(2)).map_err(|error| gcs::playground::group::describe(&error))?;
        let found = client.query_one(is_mended, &[]).map_err(|error| gcs::playground::group::describe(&error))?;
        match found.get::<_, String>(0) {
            found if found == "1000 new v6" => Ok(()),
            found => Err(found),
        }
    });
    group.execute(node(2), "UPDATE thing SET v = 'after' WHERE id = 6");
    group.settle();
    fingerprint::assert_equal(&group);
    assert_eq!(group.numbers().into_iter().map(copies).collect::<Vec<_>>(), [0, 1, 0], "what node 2 held is kept");
    let before =
        group.playground.connect(node(2), "shop_before").unwrap().query_one("SELECT v FROM thing WHERE id = 6", &[]);
    assert_eq!(before.unwrap().get::<_, String>(0), "other");
}

/// The same with everybody there, on a node where a person wants to look first, and then has it done.
#[test]
fn a_node_that_differs_is_left_as_it_is_until_it_may_be_rebuilt() {
    let group = Group::start();
    for number in group.numbers() {
        server(&group, number).batch_execute("CREATE EXTENSION postgres_r").unwrap();
    }
    let may_rebuild = |may: bool| damage::may_rebuild(&group, node(2), may);
    group.execute(node(1), "CREATE TABLE thing (id int PRIMARY KEY); INSERT INTO thing SELECT generate_series(1, 100)");
    damage::change_rows(&group, node(2), "thing", &["DELETE FROM thing WHERE id = 5"]);
    // Of a server that runs, and has told its daemon otherwise.
    may_rebuild(false);
    group.execute(node(1), "DELETE FROM thing WHERE id = 5");
    wait::until("more attempts than a rebuild waits for", COPIED_WITHIN, || {
        let failures = "SELECT attempts FROM postgres_r.failures WHERE database = 'shop'";
        match server(&group, node(2)).query_opt(failures, &[]).unwrap().map(|row| row.get::<_, i32>(0)) {
            Some(attempts) if attempts >= 5 => Ok(()),
            found => Err(format!("{found:?}")),
        }
    });
    let kept = "SELECT count(*) FROM pg_database WHERE datname LIKE 'shop\\__%'";
    let copies = || server(&group, node(2)).query_one(kept, &[]).unwrap().get::<_, i64>(0);
    assert_eq!(copies(), 0);
    may_rebuild(true);
    wait::until("node 2 back", COPIED_WITHIN, || {
        group.try_connect(node(2)).map(drop).map_err(|error| gcs::playground::group::describe(&error))
    });
    assert_eq!(copies(), 1);
    group.settle();
    fingerprint::assert_equal(&group);
}

/// Another database of the server.
fn server(group: &Group, number: NodeNumber) -> postgres::Client {
    group.playground.connect(number, "postgres").unwrap()
}
