//! The error that explains itself, and what is left of it in `postgres_r.conflicts`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres::Client;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

const SOON: Duration = Duration::from_secs(20);

/// A role that can log in, on every node: roles are each server's own.
fn make_role(group: &Group, name: &str) {
    for number in group.numbers() {
        let mut client = group.playground.connect(number, "postgres").unwrap();
        let exists = client.query_opt("SELECT 1 FROM pg_roles WHERE rolname = $1", &[&name]).unwrap().is_some();
        if !exists {
            client.batch_execute(&format!("CREATE ROLE {name} LOGIN")).unwrap();
        }
    }
}

fn make_table(group: &Group, name: &str, more: &str) {
    group.execute(
        node(1),
        &format!("CREATE TABLE {name} (id int PRIMARY KEY, x int); INSERT INTO {name} SELECT n, 0 FROM generate_series(1, 9) n; {more}"),
    );
    group.settle();
}

fn session(group: &Group, number: NodeNumber, application: &str, role: Option<&str>) -> Client {
    let mut client = group.connect(number);
    client.batch_execute(&format!("SET application_name = '{application}'")).unwrap();
    if let Some(role) = role {
        client.batch_execute(&format!("SET ROLE {role}")).unwrap();
    }
    client
}

/// A transaction of node 2 that is ordered after one of node 1 that changed the same row; its error's detail.
fn lose(group: &Group, table: &str, role: Option<&str>) -> String {
    let mut loser = session(group, node(2), "the loser", role);
    let mut winner = session(group, node(1), "the winner", None);
    let _stopped = Stopped::remote_backends(group, node(2));
    loser.batch_execute(&format!("BEGIN; UPDATE {table} SET x = 2 WHERE id = 3")).unwrap();
    winner.batch_execute(&format!("UPDATE {table} SET x = 1 WHERE id = 3")).unwrap();
    let error = loser.batch_execute("COMMIT").unwrap_err();
    println!("{}", describe(&error));
    let error = error.as_db_error().unwrap();
    assert_eq!(error.code().code(), "40001");
    error.detail().unwrap().to_owned()
}

#[test]
fn who_loses_is_told_over_what_and_to_whom() {
    let group = harness::shared();
    make_table(&group, "explained", "");
    let detail = lose(&group, "explained", None);
    for part in ["\"public.explained\"", "(id)=(3)", "node \"node1\"", "position ", "application \"the winner\""] {
        assert!(detail.contains(part), "{part} is missing in: {detail}");
    }
    harness::assert_equal(&group);
}

/// A transaction of node 2 that holds row 3 while one of node 1 changes it; its error's detail.
fn fall_victim(group: &Group, table: &str, role: Option<&str>, touch: &str) -> String {
    let mut victim = session(group, node(2), "the loser", role);
    let error =
        thread::scope(|scope| {
            let losing = scope.spawn(|| victim.batch_execute(&format!("BEGIN; {touch}; SELECT pg_sleep(30)")).unwrap_err());
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            wait::until("it holds the row", SOON, || {
                if group.value(node(2), sleeps) == "1" { Ok(()) } else { Err("no".into()) }
            });
            session(group, node(1), "the winner", None)
                .batch_execute(&format!("UPDATE {table} SET x = 1 WHERE id = 3"))
                .unwrap();
            losing.join().unwrap()
        });
    println!("{}", describe(&error));
    let error = error.as_db_error().unwrap_or_else(|| panic!("{error}"));
    assert_eq!(error.code().code(), "40001");
    error.detail().unwrap().to_owned()
}

#[test]
fn a_victim_is_told_over_what_and_to_whom() {
    let group = harness::shared();
    make_table(&group, "victims", "");
    let detail = fall_victim(&group, "victims", None, "UPDATE victims SET x = 2 WHERE id = 3");
    for part in ["\"public.victims\"", "(id)=(3)", "node \"node1\"", "position ", "application \"the winner\""] {
        assert!(detail.contains(part), "{part} is missing in: {detail}");
    }
    let kept = "SELECT format('%s %s %s %s %s %s', kind, table_name, key, winner_node, winner_application, application)
                FROM postgres_r.conflicts WHERE table_name = 'public.victims'";
    assert_eq!(group.value(node(2), kept), "victim public.victims (id)=(3) node1 the winner the loser");
    harness::assert_equal(&group);
}

#[test]
fn conflicts_are_kept_and_counted_where_they_were_lost() {
    let group = harness::shared();
    make_table(&group, "kept", "");
    let details: Vec<String> = (0..3).map(|_| lose(&group, "kept", None)).collect();
    let kept = "SELECT count(*) FROM postgres_r.conflicts WHERE table_name = 'public.kept' AND winner_node = 'node1'
                AND winner_application = 'the winner' AND application = 'the loser' AND database = current_database()
                AND key = '(id)=(3)' AND pid > 0 AND at > now() - interval '1 hour'";
    assert_eq!(group.value(node(2), kept), "3");
    let positions = "SELECT array_agg(winner_position ORDER BY winner_position) FROM postgres_r.conflicts WHERE table_name = 'public.kept'";
    let mut told: Vec<u64> = details
        .iter()
        .map(|detail| {
            detail.split("position ").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap().parse().unwrap()
        })
        .collect();
    told.sort_unstable();
    assert_eq!(group.value(node(2), positions), format!("{told:?}").replace('[', "{").replace(']', "}").replace(' ', ""));
    let counted = "SELECT certification FROM postgres_r.conflict_counts WHERE table_name = 'public.kept' AND key = '(id)'";
    assert_eq!(group.value(node(2), counted), "3");
    assert_eq!(group.value(node(1), "SELECT count(*) FROM postgres_r.conflicts WHERE table_name = 'public.kept'"), "0");
}

/// Whoever may change a row but not read it, or only some rows, is not shown the values of its key.
#[test]
fn values_of_keys_are_not_shown_to_whom_may_not_see_them() {
    let group = harness::shared();
    make_role(&group, "blind");
    make_table(
        &group,
        "unseen",
        "CREATE FUNCTION touch_unseen() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'UPDATE unseen SET x = x + 1 WHERE id = 3';
         GRANT UPDATE ON unseen TO blind",
    );
    make_table(
        &group,
        "rows_unseen",
        "ALTER TABLE rows_unseen ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_it ON rows_unseen USING (true);
         GRANT SELECT, UPDATE ON rows_unseen TO blind",
    );
    let detail = lose(&group, "rows_unseen", Some("blind"));
    assert!(detail.contains("\"public.rows_unseen\"") && !detail.contains("=(3)"), "{detail}");
    assert!(lose(&group, "rows_unseen", None).contains("(id)=(3)"));

    let mut blind = session(&group, node(2), "the loser", Some("blind"));
    let stopped = Stopped::remote_backends(&group, node(2));
    blind.batch_execute("BEGIN; SELECT touch_unseen()").unwrap();
    group.execute(node(1), "UPDATE unseen SET x = 1 WHERE id = 3");
    let error = blind.batch_execute("COMMIT").unwrap_err();
    drop(stopped);
    let detail = error.as_db_error().unwrap().detail().unwrap().to_owned();
    let as_victim = fall_victim(&group, "unseen", Some("blind"), "SELECT touch_unseen()");
    for detail in [detail, as_victim] {
        assert!(detail.contains("\"public.unseen\"") && !detail.contains("=(3)"), "{detail}");
    }

    // What was not told is not kept either, and others' conflicts are nobody's business.
    let kept = "SELECT count(*) || ' ' || count(*) FILTER (WHERE key LIKE '%=(3)')
                FROM postgres_r.conflicts WHERE table_name = 'public.unseen'";
    assert_eq!(group.value(node(2), kept), "2 0");
    let mut blind = session(&group, node(2), "the loser", Some("blind"));
    blind.batch_execute("ROLLBACK").unwrap();
    let own = blind.query("SELECT DISTINCT usename::text FROM postgres_r.conflicts", &[]).unwrap();
    let own: Vec<String> = own.iter().map(|row| row.get(0)).collect();
    assert_eq!(own, ["blind"]);
    harness::assert_equal(&group);
}
