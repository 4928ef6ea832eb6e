//! Deferred constraints: what holds at COMMIT holds on every node, whatever a row went through on its way there.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use postgres_r_tests::harness::{self, node};

#[test]
fn a_row_that_replaces_an_excluded_one_and_is_updated_in_place_is_no_rival_of_its_own() {
    let group = harness::shared();
    group.settle();
    let mut client = group.connect(node(1));
    let statements = [
        "CREATE TABLE replaced (f1 int, f2 int, CONSTRAINT one EXCLUDE (f1 WITH =) INITIALLY DEFERRED)",
        "INSERT INTO replaced VALUES (2, NULL)",
        // The update changes no indexed column, so the index keeps pointing at the version that was inserted.
        "BEGIN; INSERT INTO replaced VALUES (2, 1); DELETE FROM replaced WHERE f2 IS NULL; UPDATE replaced SET f2 = 2; COMMIT",
    ];
    for statement in statements {
        client.batch_execute(statement).unwrap();
    }
    harness::assert_equal(&group);
    assert_eq!(group.values("SELECT f1 + f2 FROM replaced"), ["4", "4", "4"]);

    let broken =
        client.batch_execute("BEGIN; INSERT INTO replaced VALUES (2, 3); UPDATE replaced SET f2 = 4 WHERE f2 = 3; COMMIT");
    assert_eq!(broken.unwrap_err().code().map(|code| code.code().to_owned()).as_deref(), Some("23P01"));
    harness::assert_equal(&group);
}
