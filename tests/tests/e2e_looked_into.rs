//! What an operator's commands show of the log and of rates, and what they would do: `gcs log`, `gcs stat`, `gcs top`, and `--dry-run`.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use gcs::playground::Part;
use postgres_r_tests::harness::{self, Group, node};
use serde_json::Value;

fn config(group: &Group, number: usize) -> PathBuf {
    group.playground.cluster(node(number)).home.join("gcs.toml")
}

/// What it prints, what it complains of, and its exit status.
fn gcs(group: &Group, number: usize, arguments: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(harness::gcs()).args(arguments).arg("--config").arg(config(group, number)).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn done(group: &Group, number: usize, arguments: &[&str]) -> String {
    let (said, complaint, status) = gcs(group, number, arguments);
    assert_eq!(status, Some(0), "{arguments:?}: {said}{complaint}");
    said
}

fn log(group: &Group, number: usize, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["log", "--json"];
    all.extend(arguments);
    done(group, number, &all).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn position(line: &Value) -> u64 {
    line["position"].as_u64().unwrap()
}

#[test]
fn the_log_of_a_daemon_that_runs_and_of_one_that_does_not_says_what_is_in_it() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE shelf (id int PRIMARY KEY, body text)");
    group.execute(node(1), "INSERT INTO shelf SELECT n, 'a secret' FROM generate_series(1, 3) n");
    group.execute(node(2), "BEGIN; UPDATE shelf SET body = 'another' WHERE id = 1; DELETE FROM shelf WHERE id = 2; COMMIT");
    group.settle();
    let lines = log(&group, 1, &["--count", "50"]);
    let created = lines.iter().find(|line| line["statements"][0] == "CREATE TABLE").unwrap();
    let inserted = lines.iter().find(|line| line["items"]["insert"] == 3).unwrap();
    let changed = lines.iter().find(|line| line["items"]["update"] == 1 && line["items"]["delete"] == 1).unwrap();
    for (line, origin) in [(created, "node1"), (inserted, "node1"), (changed, "node2")] {
        assert_eq!(
            (&line["origin"], &line["verdict"], &line["database"]),
            (&origin.into(), &"certified".into(), &"shop".into())
        );
    }
    assert_eq!(changed["tables"][0], "public.shelf");
    assert!(position(created) < position(inserted) && position(inserted) < position(changed));
    let text = done(&group, 1, &["log"]);
    assert!(!text.contains("secret") && text.contains("1 delete; 1 update; on public.shelf"), "{text}");

    let from = position(inserted).to_string();
    let two = log(&group, 1, &["--from", &from, "--count", "2", "--database", "shop"]);
    assert_eq!(two.iter().map(position).collect::<Vec<_>>(), [position(inserted), position(inserted) + 1]);
    let (_, complaint, status) = gcs(&group, 1, &["log", "--database", "nowhere"]);
    assert!(status == Some(1) && complaint.contains("there are: shop"), "{complaint}");

    // The other nodes have the same in the same places, also one that does not run; and it can be started again.
    let of = |lines: &[Value]| -> BTreeMap<u64, Value> { lines.iter().map(|line| (position(line), line.clone())).collect() };
    group.kill(node(3), Part::Gcs);
    let (there, here) = (of(&log(&group, 3, &["--count", "50"])), of(&log(&group, 1, &["--count", "50"])));
    assert!(there.contains_key(&position(changed)));
    for (at, line) in &there {
        assert_eq!(here.get(at), Some(line));
    }
    group.start_node(node(3));
    group.settle();
    harness::assert_equal(&group);
}

#[test]
fn an_abort_stands_in_the_log_with_its_winner() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE fight (id int PRIMARY KEY, n int); INSERT INTO fight VALUES (1, 0)");
    group.settle();
    let all = || log(&group, 1, &["--count", "200"]);
    let is_lost = |line: &Value| line["verdict"].as_str().unwrap().starts_with("aborted: conflict, ");
    let mut clients = [1, 2].map(|number| group.connect(node(number)));
    for _ in 0..200 {
        std::thread::scope(|scope| {
            for client in &mut clients {
                // Whoever loses is not heard here.
                scope.spawn(|| {
                    client
                        .batch_execute("BEGIN; UPDATE fight SET n = n + 1; COMMIT")
                        .or_else(|_| client.batch_execute("ROLLBACK"))
                        .ok()
                });
            }
        });
        if all().iter().any(is_lost) {
            return;
        }
    }
    panic!("no conflict in 200 attempts");
}

#[test]
fn rates_are_lines_with_commas_and_a_screen() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE tick (id serial PRIMARY KEY)");
    group.settle();
    let said = std::thread::scope(|scope| {
        let stat = scope.spawn(|| done(&group, 1, &["stat", "--csv", "--count", "3"]));
        let mut client = group.connect(node(2));
        while !stat.is_finished() {
            client.batch_execute("INSERT INTO tick DEFAULT VALUES").unwrap();
        }
        stat.join().unwrap()
    });
    let lines: Vec<Vec<&str>> = said.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 4, "{said}");
    assert_eq!(lines[0][..3], ["time", "certified", "conflict"]);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{said}");
    assert!(lines[1..].iter().all(|line| line[1].parse::<f64>().unwrap() > 0.0), "{said}");
    let screen = done(&group, 1, &["top", "--count", "1"]);
    for words in ["majority yes", "writable yes", "node2                online", "shop                 serving"] {
        assert!(screen.contains(words), "{screen}");
    }
    assert_eq!(done(&group, 1, &["stat", "--count", "2"]).lines().count(), 3);
}

#[test]
fn a_dry_run_says_what_would_be_done_and_does_nothing() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1)");
    group.settle();
    let before = done(&group, 1, &["members"]);
    let says = |arguments: &[&str], words: &str| {
        let said = done(&group, 1, arguments);
        assert!(said.contains(words) && said.contains("nothing was done"), "{arguments:?}: {said}");
    };
    let refuses = |arguments: &[&str], words: &str| {
        let (said, complaint, status) = gcs(&group, 1, arguments);
        assert!(status == Some(1) && complaint.contains(words), "{arguments:?}: {said}{complaint}");
    };
    says(&["leave", "--dry-run"], "\"node1\" would be removed; of the 2 voters that stay 2 are in touch");
    says(&["evict", "node3", "--force", "--dry-run"], "would be removed");
    refuses(&["evict", "node3", "--dry-run"], "is running");
    refuses(&["evict", "node9", "--dry-run"], "no member");
    says(&["replace", "node2", "--with", "node3", "--dry-run"], "member \"node2\" would be removed");
    refuses(&["replace", "node2", "--with", "node9", "--dry-run"], "no member");
    says(&["lead", "node2", "--dry-run"], "member \"node2\"");
    says(&["drain", "node2", "--dry-run"], "would be drained");
    says(&["drain", "--cancel", "--dry-run"], "works already");
    refuses(&["drain", "node9", "--dry-run"], "no member");
    says(&["repair", "node2", "kept", "--database", "shop", "--dry-run"], "would get the rows that differ");
    refuses(&["repair", "node2", "nowhere", "--database", "shop", "--dry-run"], "does not exist");
    refuses(&["repair", "node1", "kept", "--database", "shop", "--dry-run"], "whose rows count");
    assert!(done(&group, 1, &["reserve", "release", "--dry-run"]).contains("nothing was done"));
    assert_eq!(done(&group, 1, &["members"]), before);

    group.kill(node(3), Part::Gcs);
    harness::wait::until("node3 is unreachable", std::time::Duration::from_secs(10), || {
        let members = done(&group, 1, &["members"]);
        if members.contains("unreachable") { Ok(()) } else { Err(members) }
    });
    says(&["evict", "node3", "--dry-run"], "of the 2 voters that stay 2 are in touch");
    refuses(&["lead", "node3", "--dry-run"], "cannot lead");
    refuses(&["drain", "node3", "--dry-run"], "cannot be reached");
    says(&["leave", "--dry-run"], "1 are in touch, which is no majority");
    group.kill(node(2), Part::Gcs);
    harness::wait::until("the majority is lost", std::time::Duration::from_secs(10), || {
        let (_, complaint, status) = gcs(&group, 1, &["evict", "node3", "--dry-run"]);
        if status == Some(1) && complaint.contains("majority of the voters") { Ok(()) } else { Err(complaint) }
    });
    for number in [2, 3] {
        group.start_node(node(number));
    }
    group.settle();
    harness::assert_equal(&group);
}
