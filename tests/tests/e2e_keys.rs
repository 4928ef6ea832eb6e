//! Certification keys, one test a kind: pairs of transactions on two nodes of which neither has seen the other. The pairs that one
//! server would not let through together conflict, in the order written; the others both commit.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use gcs::playground::group::describe;
use postgres_r_tests::harness::{self, Group, node, race};
use postgres_r_tests::workload::client::Failure;

/// The first of each pair commits on node 1, the second then runs on node 2, where the first is not yet applied.
struct Pairs<'a> {
    conflict: &'a [(&'a str, &'a str)],
    pass: &'a [(&'a str, &'a str)],
}

fn check(group: &Group, setup: &str, pairs: Pairs<'_>) {
    group.execute(node(1), setup);
    let conflicts = pairs.conflict.iter().map(|pair| (pair, Err(Failure::Retry)));
    let passes = pairs.pass.iter().map(|pair| (pair, Ok(())));
    let mut wrong = Vec::new();
    for ((first, second), expected) in conflicts.chain(passes) {
        let outcome = race::after_unseen(group, (node(1), first), (node(2), second));
        if outcome != expected {
            println!("{first} / {second}: {outcome:?}");
            wrong.push(format!("{first} / {second}: {outcome:?}"));
        }
    }
    assert!(wrong.is_empty(), "conflicts missed, or without need:\n{}", wrong.join("\n"));
    harness::assert_equal(group);
}

#[test]
fn a_primary_key_is_taken_once_and_its_row_changed_by_one() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE pk (id int PRIMARY KEY, v int); INSERT INTO pk SELECT n, 0 FROM generate_series(1, 20) n",
        Pairs {
            conflict: &[
                ("INSERT INTO pk VALUES (100, 1)", "INSERT INTO pk VALUES (100, 2)"),
                ("UPDATE pk SET v = 1 WHERE id = 1", "UPDATE pk SET v = 2 WHERE id = 1"),
                ("UPDATE pk SET id = 102 WHERE id = 2", "UPDATE pk SET v = 2 WHERE id = 2"),
                ("UPDATE pk SET v = 1 WHERE id = 3", "UPDATE pk SET id = 103 WHERE id = 3"),
                ("DELETE FROM pk WHERE id = 4", "UPDATE pk SET v = 2 WHERE id = 4"),
                ("UPDATE pk SET v = 1 WHERE id = 5", "DELETE FROM pk WHERE id = 5"),
                ("DELETE FROM pk WHERE id = 6", "DELETE FROM pk WHERE id = 6"),
                ("UPDATE pk SET id = 107 WHERE id = 7", "INSERT INTO pk VALUES (107, 2)"),
                ("INSERT INTO pk VALUES (108, 1)", "UPDATE pk SET id = 108 WHERE id = 8"),
                ("DELETE FROM pk WHERE id = 9; INSERT INTO pk VALUES (9, 9)", "UPDATE pk SET v = 2 WHERE id = 9"),
            ],
            pass: &[
                ("INSERT INTO pk VALUES (200, 1)", "INSERT INTO pk VALUES (201, 2)"),
                ("UPDATE pk SET v = 1 WHERE id = 10", "UPDATE pk SET v = 2 WHERE id = 11"),
                ("DELETE FROM pk WHERE id = 12", "UPDATE pk SET id = 213 WHERE id = 13"),
                ("UPDATE pk SET v = 1 WHERE id = 14", "INSERT INTO pk VALUES (214, 2)"),
            ],
        },
    );
}

#[test]
fn every_unique_index_counts_whatever_its_form() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE un (id serial PRIMARY KEY, a int, b text, c text UNIQUE, UNIQUE (a, b) INCLUDE (c));
         CREATE TABLE pa (id serial PRIMARY KEY, code text, active bool);
         CREATE UNIQUE INDEX ON pa (code) WHERE active;
         INSERT INTO pa (code, active) VALUES ('asleep', false), ('awake', true);
         CREATE TABLE fn (id serial PRIMARY KEY, mail text); CREATE UNIQUE INDEX ON fn (lower(mail));
         CREATE TABLE inc (a int, b int, PRIMARY KEY (a) INCLUDE (b)); INSERT INTO inc VALUES (1, 1), (2, 2);
         CREATE TABLE nnd (id serial PRIMARY KEY, a int, b int, UNIQUE NULLS NOT DISTINCT (a, b));
         CREATE TABLE de (id serial PRIMARY KEY, a int UNIQUE DEFERRABLE INITIALLY DEFERRED);
         INSERT INTO de (a) VALUES (1), (2), (3);
         CREATE TABLE only_unique (a int NOT NULL UNIQUE, v int); INSERT INTO only_unique VALUES (1, 1), (2, 2)",
        Pairs {
            conflict: &[
                ("INSERT INTO un (c) VALUES ('x')", "INSERT INTO un (c) VALUES ('x')"),
                ("INSERT INTO un (a, b) VALUES (1, 'x')", "INSERT INTO un (a, b, c) VALUES (1, 'x', 'other')"),
                ("INSERT INTO pa (code, active) VALUES ('x', true)", "INSERT INTO pa (code, active) VALUES ('x', true)"),
                (
                    "UPDATE pa SET active = true WHERE code = 'asleep'",
                    "INSERT INTO pa (code, active) VALUES ('asleep', true)",
                ),
                ("INSERT INTO fn (mail) VALUES ('Ana@x.org')", "INSERT INTO fn (mail) VALUES ('ana@X.org')"),
                ("INSERT INTO inc VALUES (10, 1)", "INSERT INTO inc VALUES (10, 2)"),
                ("UPDATE inc SET b = 3 WHERE a = 1", "UPDATE inc SET b = 4 WHERE a = 1"),
                ("INSERT INTO nnd (a, b) VALUES (1, NULL)", "INSERT INTO nnd (a, b) VALUES (1, NULL)"),
                ("INSERT INTO nnd (a, b) VALUES (NULL, NULL)", "INSERT INTO nnd (a, b) VALUES (NULL, NULL)"),
                ("INSERT INTO de (a) VALUES (10)", "INSERT INTO de (a) VALUES (10)"),
                ("INSERT INTO de (a) VALUES (11)", "UPDATE de SET a = a + 9 WHERE a = 2"),
                ("UPDATE only_unique SET v = 3 WHERE a = 1", "UPDATE only_unique SET v = 4 WHERE a = 1"),
            ],
            pass: &[
                ("INSERT INTO un (a, b) VALUES (2, 'ab')", "INSERT INTO un (a, b) VALUES (2, 'a')"),
                ("INSERT INTO un (a, b) VALUES (3, NULL)", "INSERT INTO un (a, b) VALUES (3, NULL)"),
                ("INSERT INTO un (c) VALUES (NULL)", "INSERT INTO un (c) VALUES (NULL)"),
                ("INSERT INTO pa (code, active) VALUES ('y', true)", "INSERT INTO pa (code, active) VALUES ('y', false)"),
                ("INSERT INTO fn (mail) VALUES ('bia')", "INSERT INTO fn (mail) VALUES ('caio')"),
                ("UPDATE inc SET b = 5 WHERE a = 1", "UPDATE inc SET b = 6 WHERE a = 2"),
                ("INSERT INTO nnd (a, b) VALUES (2, NULL)", "INSERT INTO nnd (a, b) VALUES (3, NULL)"),
                ("INSERT INTO de (a) VALUES (20)", "INSERT INTO de (a) VALUES (21)"),
                ("UPDATE only_unique SET v = 5 WHERE a = 1", "UPDATE only_unique SET v = 6 WHERE a = 2"),
            ],
        },
    );
}

#[test]
fn what_an_operator_class_calls_equal_is_equal() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE COLLATION nocase (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
         CREATE TYPE colour AS ENUM ('red', 'green');
         CREATE TYPE pair AS (a int, b numeric);
         CREATE DOMAIN amount AS numeric CHECK (VALUE > 0);
         CREATE TABLE eq (id serial PRIMARY KEY, n numeric UNIQUE, f float8 UNIQUE, t text COLLATE nocase UNIQUE,
             c bpchar UNIQUE, iv interval UNIQUE, j jsonb UNIQUE, na numeric[] UNIQUE, r numrange UNIQUE, e colour UNIQUE,
             z timestamptz UNIQUE, p pair UNIQUE, plain text UNIQUE, d amount UNIQUE, ta text[] COLLATE nocase UNIQUE);
         CREATE TABLE eq_key (n numeric PRIMARY KEY, v int); INSERT INTO eq_key VALUES (1.0, 0), (2.0, 0)",
        Pairs {
            conflict: &[
                ("INSERT INTO eq (n) VALUES (1.0)", "INSERT INTO eq (n) VALUES (1.00)"),
                ("INSERT INTO eq (f) VALUES ('-0')", "INSERT INTO eq (f) VALUES (0)"),
                ("INSERT INTO eq (f) VALUES ('NaN')", "INSERT INTO eq (f) VALUES ('NaN')"),
                ("INSERT INTO eq (t) VALUES ('Ana')", "INSERT INTO eq (t) VALUES ('aNA')"),
                ("INSERT INTO eq (c) VALUES ('a')", "INSERT INTO eq (c) VALUES ('a  ')"),
                ("INSERT INTO eq (iv) VALUES ('1 day')", "INSERT INTO eq (iv) VALUES ('24 hours')"),
                (
                    "INSERT INTO eq (j) VALUES ('{\"a\": 1.0, \"b\": 2}')",
                    "INSERT INTO eq (j) VALUES ('{\"b\": 2, \"a\": 1.00}')",
                ),
                ("INSERT INTO eq (na) VALUES ('{1.0,NULL}')", "INSERT INTO eq (na) VALUES ('{1.00,NULL}')"),
                ("INSERT INTO eq (r) VALUES ('[1.0,2]')", "INSERT INTO eq (r) VALUES ('[1.00,2]')"),
                ("INSERT INTO eq (e) VALUES ('red')", "INSERT INTO eq (e) VALUES ('red')"),
                (
                    "INSERT INTO eq (z) VALUES ('2020-01-01 00:00:00+00')",
                    "INSERT INTO eq (z) VALUES ('2020-01-01 02:00:00+02')",
                ),
                ("INSERT INTO eq (p) VALUES ('(1,1.0)')", "INSERT INTO eq (p) VALUES ('(1,1.00)')"),
                ("INSERT INTO eq (d) VALUES (1.0)", "INSERT INTO eq (d) VALUES (1.00)"),
                ("INSERT INTO eq (ta) VALUES ('{Ana}')", "INSERT INTO eq (ta) VALUES ('{aNA}')"),
                ("UPDATE eq_key SET n = 1.00 WHERE n = 1", "UPDATE eq_key SET v = 1 WHERE n = 1"),
            ],
            pass: &[
                ("INSERT INTO eq (n) VALUES (2.1)", "INSERT INTO eq (n) VALUES (2.2)"),
                ("INSERT INTO eq (plain) VALUES ('Ana')", "INSERT INTO eq (plain) VALUES ('aNA')"),
                ("INSERT INTO eq (t) VALUES ('bia')", "INSERT INTO eq (t) VALUES ('caio')"),
                ("INSERT INTO eq (c) VALUES ('b')", "INSERT INTO eq (c) VALUES ('c')"),
                ("INSERT INTO eq (na) VALUES ('{3,4}')", "INSERT INTO eq (na) VALUES ('{3,5}')"),
                ("INSERT INTO eq (r) VALUES ('[3,4]')", "INSERT INTO eq (r) VALUES ('[3,5]')"),
                ("UPDATE eq_key SET v = 2 WHERE n = 1", "UPDATE eq_key SET v = 2 WHERE n = 2"),
            ],
        },
    );
}

#[test]
fn a_foreign_key_keeps_child_and_parent_together() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE parent (id int PRIMARY KEY, a int, b int, v int DEFAULT 0, UNIQUE (a, b));
         INSERT INTO parent SELECT n, n, n FROM generate_series(1, 60) n;
         CREATE TABLE child (id serial PRIMARY KEY, parent int REFERENCES parent);
         INSERT INTO child (parent) VALUES (50);
         CREATE TABLE child_two (id serial PRIMARY KEY, a bigint, b int, FOREIGN KEY (b, a) REFERENCES parent (b, a));
         CREATE TABLE child_full (id serial PRIMARY KEY, a int, b int, FOREIGN KEY (a, b) REFERENCES parent (a, b) MATCH FULL);
         CREATE TABLE child_late (id serial PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED);
         CREATE TABLE child_soft (id serial PRIMARY KEY, parent int); INSERT INTO child_soft (parent) VALUES (-1);
         ALTER TABLE child_soft ADD FOREIGN KEY (parent) REFERENCES parent NOT VALID;
         CREATE TABLE tree (id int PRIMARY KEY, above int REFERENCES tree);
         INSERT INTO tree VALUES (1, NULL), (2, 1), (3, 1), (4, 4)",
        Pairs {
            conflict: &[
                ("INSERT INTO child (parent) VALUES (1)", "DELETE FROM parent WHERE id = 1"),
                ("DELETE FROM parent WHERE id = 2", "INSERT INTO child (parent) VALUES (2)"),
                ("UPDATE child SET parent = 3 WHERE parent = 50", "DELETE FROM parent WHERE id = 3"),
                ("DELETE FROM parent WHERE id = 4", "UPDATE child SET parent = 4 WHERE parent = 3"),
                ("UPDATE parent SET id = 105 WHERE id = 5", "INSERT INTO child (parent) VALUES (5)"),
                ("INSERT INTO child (parent) VALUES (6)", "UPDATE parent SET id = 106 WHERE id = 6"),
                // Nothing is wrong with the child; but PostgreSQL's lock on its parent would be in the update's way.
                ("UPDATE parent SET a = -30 WHERE id = 30", "INSERT INTO child (parent) VALUES (30)"),
                ("INSERT INTO child_two (a, b) VALUES (7, 7)", "DELETE FROM parent WHERE id = 7"),
                ("UPDATE parent SET b = -8 WHERE id = 8", "INSERT INTO child_two (a, b) VALUES (8, 8)"),
                ("INSERT INTO child_full (a, b) VALUES (9, 9)", "UPDATE parent SET a = -9 WHERE id = 9"),
                ("DELETE FROM parent WHERE id = 10", "INSERT INTO child_full (a, b) VALUES (10, 10)"),
                ("INSERT INTO child_late (parent) VALUES (11)", "DELETE FROM parent WHERE id = 11"),
                ("DELETE FROM parent WHERE id = 12", "INSERT INTO child_late (parent) VALUES (12)"),
                ("INSERT INTO child_soft (parent) VALUES (13)", "DELETE FROM parent WHERE id = 13"),
                ("DELETE FROM parent WHERE id = 14", "INSERT INTO child_soft (parent) VALUES (14)"),
                ("INSERT INTO tree VALUES (10, 2)", "DELETE FROM tree WHERE id = 2"),
                ("DELETE FROM tree WHERE id = 3", "INSERT INTO tree VALUES (11, 3)"),
                ("DELETE FROM tree WHERE id = 4", "INSERT INTO tree VALUES (12, 4)"),
            ],
            pass: &[
                ("INSERT INTO child (parent) VALUES (20)", "INSERT INTO child (parent) VALUES (20)"),
                ("INSERT INTO child (parent) VALUES (21)", "UPDATE parent SET v = 1 WHERE id = 21"),
                ("UPDATE parent SET v = 1 WHERE id = 22", "INSERT INTO child (parent) VALUES (22)"),
                ("INSERT INTO child (parent) VALUES (23)", "DELETE FROM parent WHERE id = 24"),
                ("INSERT INTO child (parent) VALUES (NULL)", "DELETE FROM parent WHERE id = 26"),
                ("INSERT INTO child_two (a, b) VALUES (27, NULL)", "DELETE FROM parent WHERE id = 27"),
                ("INSERT INTO tree VALUES (20, 1)", "INSERT INTO tree VALUES (21, 1)"),
            ],
        },
    );
}

#[test]
fn a_child_of_another_type_names_the_same_parent() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE p_int (id int PRIMARY KEY); INSERT INTO p_int SELECT generate_series(1, 9);
         CREATE TABLE p_numeric (id numeric PRIMARY KEY); INSERT INTO p_numeric VALUES (1.0), (2.0), (3.0);
         CREATE TABLE p_char (id char(10) PRIMARY KEY); INSERT INTO p_char VALUES ('a'), ('b'), ('c');
         CREATE TABLE p_real (id real PRIMARY KEY); INSERT INTO p_real VALUES (1.5), (2.5), (3.5);
         CREATE TABLE p_time (id timestamp PRIMARY KEY); INSERT INTO p_time VALUES ('2020-01-01'), ('2020-01-02');
         CREATE TABLE of_small (id serial PRIMARY KEY, p smallint REFERENCES p_int);
         CREATE TABLE of_big (id serial PRIMARY KEY, p bigint REFERENCES p_int);
         CREATE TABLE of_int (id serial PRIMARY KEY, p int REFERENCES p_numeric);
         CREATE TABLE of_char (id serial PRIMARY KEY, p char(3) REFERENCES p_char);
         CREATE TABLE of_double (id serial PRIMARY KEY, p float8 REFERENCES p_real);
         CREATE TABLE of_date (id serial PRIMARY KEY, p date REFERENCES p_time)",
        Pairs {
            conflict: &[
                ("INSERT INTO of_small (p) VALUES (1)", "DELETE FROM p_int WHERE id = 1"),
                ("DELETE FROM p_int WHERE id = 2", "INSERT INTO of_big (p) VALUES (2)"),
                ("INSERT INTO of_int (p) VALUES (1)", "DELETE FROM p_numeric WHERE id = 1"),
                ("DELETE FROM p_numeric WHERE id = 2", "INSERT INTO of_int (p) VALUES (2)"),
                ("INSERT INTO of_char (p) VALUES ('a')", "DELETE FROM p_char WHERE id = 'a'"),
                ("DELETE FROM p_char WHERE id = 'b'", "INSERT INTO of_char (p) VALUES ('b')"),
                ("INSERT INTO of_double (p) VALUES (1.5)", "DELETE FROM p_real WHERE id = 1.5"),
                ("DELETE FROM p_real WHERE id = 2.5", "INSERT INTO of_double (p) VALUES (2.5)"),
                ("INSERT INTO of_date (p) VALUES ('2020-01-01')", "DELETE FROM p_time WHERE id = '2020-01-01'"),
            ],
            pass: &[
                ("INSERT INTO of_big (p) VALUES (3)", "DELETE FROM p_int WHERE id = 4"),
                ("INSERT INTO of_int (p) VALUES (1)", "DELETE FROM p_numeric WHERE id = 3"),
                ("INSERT INTO of_char (p) VALUES ('a')", "DELETE FROM p_char WHERE id = 'c'"),
                ("INSERT INTO of_date (p) VALUES ('2020-01-01')", "DELETE FROM p_time WHERE id = '2020-01-02'"),
            ],
        },
    );
}

#[test]
fn what_a_foreign_key_does_to_children_is_theirs_to_lose() {
    let group = harness::shared_without_table_locks();
    let actions = ["NO ACTION", "RESTRICT", "CASCADE", "SET NULL", "SET DEFAULT"];
    for (number, action) in actions.into_iter().enumerate() {
        let (parent, child) = (format!("act_p{number}"), format!("act_c{number}"));
        let setup = format!(
            "CREATE TABLE {parent} (id int PRIMARY KEY); INSERT INTO {parent} SELECT generate_series(0, 20);
             CREATE TABLE {child} (id serial PRIMARY KEY, v int DEFAULT 0,
                 parent int DEFAULT 0 REFERENCES {parent} ON DELETE {action} ON UPDATE {action});
             INSERT INTO {child} (parent) VALUES (10), (11), (12), (13)"
        );
        let insert = |id: i32| format!("INSERT INTO {child} (parent) VALUES ({id})");
        let delete = |id: i32| format!("DELETE FROM {parent} WHERE id = {id}");
        let rename = |id: i32| format!("UPDATE {parent} SET id = id + 100 WHERE id = {id}");
        let touch = |id: i32| format!("UPDATE {child} SET v = 1 WHERE parent = {id}");
        let mut conflict =
            vec![(insert(1), delete(1)), (delete(2), insert(2)), (insert(3), rename(3)), (rename(4), insert(4))];
        if number >= 2 {
            conflict.extend([(delete(10), touch(10)), (touch(11), delete(11)), (rename(12), touch(12))]);
        }
        if action == "SET DEFAULT" {
            // The child of 13 now refers to its default, as the first to do so.
            conflict.insert(0, (delete(13), delete(0)));
        }
        let conflict: Vec<(&str, &str)> = conflict.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        let (insert_5, insert_6, delete_7, delete_8) = (insert(5), insert(6), delete(7), delete(8));
        let pass = [(insert_5.as_str(), delete_7.as_str()), (delete_8.as_str(), insert_6.as_str())];
        check(&group, &setup, Pairs { conflict: &conflict, pass: &pass });
    }
}

#[test]
fn an_exclusion_constraint_lets_one_at_a_time_in() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE room (id serial PRIMARY KEY, during int4range, v int, EXCLUDE USING gist (during WITH &&));
         INSERT INTO room (during) VALUES ('[1,5)'), ('[10,15)');
         CREATE TABLE late_room (id serial PRIMARY KEY, during int4range,
             EXCLUDE USING gist (during WITH &&) DEFERRABLE INITIALLY DEFERRED)",
        Pairs {
            conflict: &[
                ("INSERT INTO room (during) VALUES ('[20,25)')", "INSERT INTO room (during) VALUES ('[24,30)')"),
                ("UPDATE room SET during = '[40,45)' WHERE id = 1", "INSERT INTO room (during) VALUES ('[44,50)')"),
                ("INSERT INTO late_room (during) VALUES ('[1,5)')", "INSERT INTO late_room (during) VALUES ('[2,3)')"),
            ],
            pass: &[
                ("UPDATE room SET v = 1 WHERE during @> 41", "UPDATE room SET v = 2 WHERE during @> 10"),
                ("UPDATE room SET v = 1 WHERE during @> 41", "INSERT INTO room (during) VALUES ('[60,61)')"),
            ],
        },
    );
}

#[test]
fn a_table_without_a_key_has_its_whole_rows_for_keys() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE loose (a int, b text);
         INSERT INTO loose VALUES (1, 'x'), (2, 'x'), (3, NULL), (4, 'twin'), (4, 'twin'), (5, 'x'), (6, 'x'), (7, 'x');
         CREATE TABLE full_identity (id int PRIMARY KEY, v int); ALTER TABLE full_identity REPLICA IDENTITY FULL;
         CREATE TABLE no_identity (id int PRIMARY KEY, v int); ALTER TABLE no_identity REPLICA IDENTITY NOTHING;
         CREATE TABLE by_index (id int PRIMARY KEY, code int NOT NULL, v int);
         CREATE UNIQUE INDEX by_index_code ON by_index (code); ALTER TABLE by_index REPLICA IDENTITY USING INDEX by_index_code;
         CREATE TABLE loose_nothing (a int); ALTER TABLE loose_nothing REPLICA IDENTITY NOTHING;
         INSERT INTO full_identity VALUES (1, 0), (2, 0); INSERT INTO no_identity VALUES (1, 0), (2, 0);
         INSERT INTO by_index VALUES (1, 1, 0), (2, 2, 0); INSERT INTO loose_nothing VALUES (1), (2)",
        Pairs {
            conflict: &[
                ("UPDATE loose SET b = 'y' WHERE a = 1", "UPDATE loose SET b = 'z' WHERE a = 1"),
                ("DELETE FROM loose WHERE a = 2", "UPDATE loose SET b = 'z' WHERE a = 2"),
                ("UPDATE loose SET b = 'y' WHERE a = 3", "DELETE FROM loose WHERE a = 3"),
                (
                    "DELETE FROM loose WHERE ctid = (SELECT min(ctid) FROM loose WHERE a = 4)",
                    "DELETE FROM loose WHERE ctid = (SELECT max(ctid) FROM loose WHERE a = 4)",
                ),
                ("UPDATE full_identity SET v = 1 WHERE id = 1", "UPDATE full_identity SET v = 2 WHERE id = 1"),
                ("UPDATE no_identity SET v = 1 WHERE id = 1", "UPDATE no_identity SET v = 2 WHERE id = 1"),
                ("UPDATE by_index SET v = 1 WHERE id = 1", "UPDATE by_index SET v = 2 WHERE id = 1"),
                ("UPDATE loose_nothing SET a = 10 WHERE a = 1", "DELETE FROM loose_nothing WHERE a = 1"),
            ],
            pass: &[
                ("INSERT INTO loose VALUES (9, 'x')", "INSERT INTO loose VALUES (9, 'x')"),
                ("UPDATE loose SET b = 'y' WHERE a = 5", "DELETE FROM loose WHERE a = 6"),
                ("DELETE FROM loose WHERE a = 5", "INSERT INTO loose VALUES (5, 'x')"),
                ("UPDATE full_identity SET v = 3 WHERE id = 1", "UPDATE full_identity SET v = 3 WHERE id = 2"),
                ("UPDATE no_identity SET v = 3 WHERE id = 1", "UPDATE no_identity SET v = 3 WHERE id = 2"),
                ("UPDATE by_index SET v = 3 WHERE id = 1", "UPDATE by_index SET v = 3 WHERE id = 2"),
            ],
        },
    );
}

#[test]
fn partitions_agree_on_the_keys_of_their_parent() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE part (id int, k int, v int DEFAULT 0, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE part_low PARTITION OF part FOR VALUES FROM (0) TO (100);
         CREATE TABLE part_high PARTITION OF part FOR VALUES FROM (100) TO (200) PARTITION BY RANGE (k);
         CREATE TABLE part_higher (v int DEFAULT 0, k int NOT NULL, id int NOT NULL);
         ALTER TABLE part_high ATTACH PARTITION part_higher FOR VALUES FROM (100) TO (200);
         CREATE TABLE part_rest PARTITION OF part DEFAULT;
         INSERT INTO part SELECT n, n FROM generate_series(1, 20) n;
         CREATE TABLE above (id int, k int, PRIMARY KEY (id, k)) PARTITION BY RANGE (k);
         CREATE TABLE above_low PARTITION OF above FOR VALUES FROM (0) TO (100);
         CREATE TABLE above_high PARTITION OF above FOR VALUES FROM (100) TO (200);
         INSERT INTO above SELECT n, n FROM generate_series(1, 20) n;
         CREATE TABLE below (id serial PRIMARY KEY, p int, k int, FOREIGN KEY (p, k) REFERENCES above) PARTITION BY RANGE (id);
         CREATE TABLE below_all PARTITION OF below DEFAULT;
         CREATE TABLE joins (id int NOT NULL, k int NOT NULL, v int, PRIMARY KEY (id, k)); INSERT INTO joins VALUES (1, 300, 0);
         CREATE TABLE base (id int, v int); CREATE TABLE derived (x int) INHERITS (base);
         INSERT INTO derived VALUES (1, 1), (2, 2)",
        Pairs {
            conflict: &[
                ("INSERT INTO part VALUES (100, 1)", "INSERT INTO part_low VALUES (100, 1)"),
                ("INSERT INTO part VALUES (101, 150)", "INSERT INTO part_higher (id, k) VALUES (101, 150)"),
                ("UPDATE part SET k = 101 WHERE id = 1", "UPDATE part SET v = 1 WHERE id = 1"),
                ("UPDATE part SET v = 1 WHERE id = 2", "UPDATE part SET k = 102 WHERE id = 2"),
                ("UPDATE part SET k = 103 WHERE id = 3", "INSERT INTO part VALUES (3, 103)"),
                ("UPDATE part SET k = 104 WHERE id = 4", "UPDATE part_low SET k = 14 WHERE id = 4"),
                ("INSERT INTO below (p, k) VALUES (5, 5)", "DELETE FROM above WHERE id = 5"),
                ("UPDATE above SET k = 106 WHERE id = 6", "INSERT INTO below (p, k) VALUES (6, 6)"),
                ("INSERT INTO below (p, k) VALUES (7, 7)", "TRUNCATE above CASCADE"),
                ("INSERT INTO below_all (id, p, k) VALUES (-1, 8, 8)", "DELETE FROM below; ALTER TABLE above DETACH PARTITION above_low"),
                ("INSERT INTO part_rest VALUES (1, 250, -1)", "CREATE TABLE part_new PARTITION OF part FOR VALUES FROM (200) TO (300)"),
                ("INSERT INTO joins VALUES (2, 500, 0)", "ALTER TABLE part ATTACH PARTITION joins FOR VALUES FROM (300) TO (400)"),
                ("INSERT INTO part_low VALUES (200, 1, -5)", "ALTER TABLE part ADD CHECK (v > -5)"),
                ("INSERT INTO derived VALUES (3, -1)", "ALTER TABLE base ADD CHECK (v > 0)"),
                ("UPDATE base SET v = 9 WHERE id = 1", "UPDATE derived SET v = 8 WHERE id = 1"),
                ("ALTER TABLE part DETACH PARTITION part_low", "INSERT INTO part VALUES (201, 1)"),
                ("ALTER TABLE part ATTACH PARTITION part_low FOR VALUES FROM (0) TO (100)", "INSERT INTO part_low VALUES (202, 1)"),
                ("ALTER INDEX part_pkey RENAME TO part_key", "INSERT INTO part VALUES (203, 1)"),
                ("INSERT INTO part VALUES (204, 1)", "INSERT INTO part VALUES (204, 1)"),
            ],
            pass: &[
                ("INSERT INTO part VALUES (300, 1)", "INSERT INTO part VALUES (300, 101)"),
                ("UPDATE part SET v = 5 WHERE id = 8", "UPDATE part SET v = 5 WHERE id = 9"),
                ("UPDATE part SET k = 110 WHERE id = 10", "UPDATE part SET k = 111 WHERE id = 11"),
                ("INSERT INTO below (p, k) VALUES (12, 12)", "INSERT INTO below (p, k) VALUES (12, 12)"),
                ("INSERT INTO below (p, k) VALUES (13, 13)", "DELETE FROM above WHERE id = 14"),
                ("UPDATE derived SET v = 7 WHERE id = 1", "UPDATE base SET v = 7 WHERE id = 2"),
            ],
        },
    );
}

#[test]
fn truncate_and_ddl_exclude_writers_of_what_they_touch() {
    check(
        &harness::shared_without_table_locks(),
        "CREATE TABLE tr (id serial PRIMARY KEY, v int); INSERT INTO tr (v) VALUES (1), (2);
         CREATE TABLE tr_child (id serial PRIMARY KEY, tr int REFERENCES tr ON DELETE CASCADE);
         CREATE TABLE tr_other (id serial PRIMARY KEY, v int);
         CREATE TABLE tr_referred (id int PRIMARY KEY); INSERT INTO tr_referred VALUES (1);
         CREATE TABLE tr_referring (id serial PRIMARY KEY, v int); INSERT INTO tr_referring (v) VALUES (1)",
        Pairs {
            conflict: &[
                ("TRUNCATE tr_other", "INSERT INTO tr_other (v) VALUES (1)"),
                ("INSERT INTO tr_other (v) VALUES (1)", "TRUNCATE tr_other RESTART IDENTITY"),
                ("INSERT INTO tr_child (tr) SELECT min(id) FROM tr", "TRUNCATE tr CASCADE"),
                ("TRUNCATE tr RESTART IDENTITY CASCADE", "INSERT INTO tr_child (tr) SELECT min(id) FROM tr"),
                ("TRUNCATE tr_other", "TRUNCATE tr_other"),
                ("INSERT INTO tr_other (v) VALUES (-1)", "ALTER TABLE tr_other ADD CHECK (v > 0)"),
                ("CREATE UNIQUE INDEX ON tr_other (v)", "INSERT INTO tr_other (v) VALUES (7)"),
                ("ALTER TABLE tr_other RENAME TO tr_another", "INSERT INTO tr_other (v) VALUES (8)"),
                ("ALTER TABLE tr_referring ADD FOREIGN KEY (v) REFERENCES tr_referred", "DELETE FROM tr_referred"),
                ("CREATE TABLE a_new_one (id int)", "CREATE TABLE a_new_one (id text)"),
            ],
            pass: &[
                ("TRUNCATE tr_child", "INSERT INTO tr (v) VALUES (3)"),
                ("CREATE TABLE a_second (id int)", "INSERT INTO tr (v) VALUES (4)"),
            ],
        },
    );
}

/// Tables to be changed by statements of every kind, also through views, rules and policies.
const WAYS: &str = "CREATE TABLE ways (id int PRIMARY KEY, v int, mine bool DEFAULT true);
    INSERT INTO ways SELECT n, 0 FROM generate_series(1, 30) n;
    CREATE TABLE audit (id serial PRIMARY KEY, way int UNIQUE);
    CREATE VIEW few AS SELECT id, v FROM ways WHERE id < 1000;
    CREATE VIEW joined AS SELECT w.id, w.v, a.id AS audit FROM ways w LEFT JOIN audit a ON a.way = w.id;
    CREATE RULE joined_update AS ON UPDATE TO joined DO INSTEAD UPDATE ways SET v = new.v WHERE id = old.id;
    CREATE TABLE ruled (id int PRIMARY KEY); INSERT INTO ruled SELECT generate_series(1, 9);
    CREATE RULE also AS ON DELETE TO ruled DO ALSO INSERT INTO audit (way) VALUES (old.id);
    CREATE TABLE guarded (id int PRIMARY KEY, v int, owner name DEFAULT current_user);
    INSERT INTO guarded VALUES (1, 0, 'clerk'), (2, 0, 'clerk'), (3, 0, 'postgres');
    ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; GRANT ALL ON guarded TO clerk;
    CREATE POLICY own ON guarded USING (owner = current_user)";

const CHANGES_OF_WAYS: Pairs<'static> = Pairs {
    conflict: &[
        (
            "MERGE INTO ways USING (VALUES (1)) s (id) ON ways.id = s.id WHEN MATCHED THEN UPDATE SET v = 1",
            "UPDATE ways SET v = 2 WHERE id = 1",
        ),
        (
            "INSERT INTO ways VALUES (100, 1)",
            "MERGE INTO ways USING (VALUES (100)) s (id) ON ways.id = s.id WHEN NOT MATCHED THEN INSERT VALUES (s.id, 2)",
        ),
        ("INSERT INTO ways VALUES (101, 1)", "INSERT INTO ways VALUES (101, 2) ON CONFLICT DO NOTHING"),
        (
            "UPDATE ways SET v = 1 WHERE id = 2",
            "INSERT INTO ways VALUES (2, 2) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        ),
        (
            "INSERT INTO ways VALUES (102, 1) ON CONFLICT DO NOTHING",
            "INSERT INTO ways VALUES (102, 2) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        ),
        (
            "WITH gone AS (DELETE FROM ways WHERE id = 3 RETURNING *) INSERT INTO ways SELECT 103, v FROM gone",
            "UPDATE ways SET v = 2 WHERE id = 3",
        ),
        (
            "INSERT INTO ways VALUES (104, 1)",
            "WITH new AS (INSERT INTO ways VALUES (104, 2) RETURNING id) SELECT count(*) FROM new",
        ),
        ("UPDATE few SET v = 1 WHERE id = 5", "DELETE FROM few WHERE id = 5"),
        ("INSERT INTO few VALUES (105, 1)", "INSERT INTO ways VALUES (105, 2)"),
        ("UPDATE joined SET v = 1 WHERE id = 6", "UPDATE ways SET v = 2 WHERE id = 6"),
        ("DELETE FROM ruled WHERE id = 7", "INSERT INTO audit (way) VALUES (7)"),
        ("UPDATE guarded SET v = 1 WHERE id = 1", "SET LOCAL ROLE clerk; UPDATE guarded SET v = 2"),
        ("COPY ways FROM PROGRAM 'echo 106,1,t' CSV", "INSERT INTO ways VALUES (106, 2)"),
        (
            "DO $$ BEGIN FOR i IN 8..9 LOOP UPDATE ways SET v = i WHERE id = i; END LOOP; END $$",
            "UPDATE ways SET v = 2 WHERE id = 9",
        ),
    ],
    pass: &[
        ("INSERT INTO ways VALUES (10, 1) ON CONFLICT DO NOTHING", "UPDATE ways SET v = 2 WHERE id = 10"),
        (
            "MERGE INTO ways USING (VALUES (11)) s (id) ON ways.id = s.id WHEN MATCHED THEN DO NOTHING",
            "UPDATE ways SET v = 2 WHERE id = 11",
        ),
        (
            "INSERT INTO ways VALUES (12, 1) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
            "INSERT INTO ways VALUES (13, 2) ON CONFLICT (id) DO UPDATE SET v = excluded.v",
        ),
        ("UPDATE few SET v = 1 WHERE id = 14", "UPDATE joined SET v = 2 WHERE id = 15"),
        ("UPDATE guarded SET v = 1 WHERE id = 3", "SET LOCAL ROLE clerk; UPDATE guarded SET v = 2"),
        ("DELETE FROM ruled WHERE id = 8", "DELETE FROM ruled WHERE id = 9"),
    ],
};

#[test]
fn a_change_counts_however_it_is_written() {
    let group = harness::shared_without_table_locks();
    for number in group.numbers() {
        let mut admin = group.playground.connect(number, "postgres").unwrap();
        admin.batch_execute("CREATE ROLE clerk").unwrap_or_else(|error| panic!("{}", describe(&error)));
    }
    check(&group, WAYS, CHANGES_OF_WAYS);
}
