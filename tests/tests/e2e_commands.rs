//! What operators type, on a group that is there: what the commands say, and how they end.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::io::Read;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use gcs::playground::Part;
use gcs::playground::process::Signal;
use postgres_r_tests::harness::damage::{change_rows, may_rebuild};
use postgres_r_tests::harness::race::after_unseen;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};

const WITHIN: Duration = Duration::from_secs(30);

fn config(group: &Group, number: usize) -> PathBuf {
    group.playground.daemon(node(number)).home.join("gcs.toml")
}

/// Status, and what was said.
fn gcs(group: &Group, number: usize, arguments: &[&str]) -> (i32, String) {
    let output = Command::new(harness::gcs()).args(arguments).arg("--config").arg(config(group, number)).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code().unwrap(), said)
}

fn until(group: &Group, number: usize, arguments: &[&str], is_it: impl Fn(i32, &str) -> bool) -> String {
    let look = || {
        let (code, said) = gcs(group, number, arguments);
        if is_it(code, &said) { Ok(said) } else { Err(format!("{code}: {said}")) }
    };
    wait::until(&arguments.join(" "), WITHIN, look).0
}

#[test]
fn status_says_how_far_each_member_is_and_how_to_connect() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE IF NOT EXISTS late (id serial PRIMARY KEY)");
    let stopped = Stopped::remote_backends(&group, node(3));
    for _ in 0..3 {
        group.execute(node(1), "INSERT INTO late DEFAULT VALUES");
    }
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let is_late = |said: &str, number: usize, wanted: fn(&str) -> bool| {
        let name = format!("node{number}");
        said.lines().map(words).any(|line| line.len() == 4 && line[0] == name && line[1] == "shop" && wanted(&line[3]))
    };
    let at_least_3 = |lag: &str| lag.parse::<u64>().is_ok_and(|lag| lag >= 3);
    for number in [1, 3] {
        let said = until(&group, number, &["status", "-v"], |_, said| is_late(said, 3, at_least_3));
        assert!(is_late(&said, 1, |lag| lag == "0"), "{said}");
    }
    drop(stopped);
    let (_, said) = gcs(&group, 2, &["status", "-vv"]);
    let string = said.lines().find_map(|line| line.strip_prefix("connect with: ")).unwrap();
    let target = format!("{string} user=postgres dbname=shop");
    let answer = Command::new("psql").args(["-XAtc", "SHOW transaction_read_only"]).arg(target).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&answer.stdout).trim(), "off", "{string}");
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
}

#[test]
fn status_is_a_plugin_and_goes_on_when_asked_to() {
    let group = harness::shared();
    group.settle();
    until(&group, 1, &["status", "--check"], |code, said| code == 0 && said.starts_with("GCS OK - 3 of 3 online, node"));
    let mut watching = Command::new(harness::gcs())
        .args(["status", "-w", "--interval", "1s", "--config"])
        .arg(config(&group, 1))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    group.signal(node(3), Part::Gcs, Signal::TERM);
    until(&group, 1, &["status", "--check"], |code, said| code == 1 && said.contains("2 of 3 online"));
    let (code, said) = gcs(&group, 3, &["status", "--check"]);
    assert_eq!((code, said.starts_with("GCS CRITICAL - could not reach gcs")), (2, true), "{said}");
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    while !text.contains("unreachable") {
        let count = watching.stdout.as_mut().unwrap().read(&mut piece).unwrap();
        assert!(count > 0, "{text}");
        text += &String::from_utf8_lossy(&piece[..count]);
    }
    assert!(text.starts_with("\x1b[Hquorum yes"), "{text:?}");
    watching.kill().unwrap();
    watching.wait().unwrap();
    group.start_node(node(3));
}

#[test]
fn the_configurations_of_a_playground_have_no_mistakes_and_a_spoilt_one_has_all_of_them() {
    let group = harness::shared();
    let (code, said) = gcs(&group, 2, &["config", "check"]);
    assert_eq!((code, said.trim()), (0, "0 errors, 0 warnings"), "{said}");
    let spoilt = group.dir().join("spoilt.toml");
    let text = std::fs::read_to_string(config(&group, 2)).unwrap();
    std::fs::write(&spoilt, format!("log_retention = \"1 MB\"\nlog_reserv = \"1 MB\"\n{text}")).unwrap();
    let output = Command::new(harness::gcs()).args(["config", "check", "--config"]).arg(&spoilt).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(2));
    for expected in [
        "spoilt.toml:1: error: log_retention must be",
        "spoilt.toml:2: error: unknown key \"log_reserv\", did you mean \"log_reserve\"",
        "2 errors",
    ] {
        assert!(said.contains(expected), "{expected}: {said}");
    }
}

#[test]
fn who_lost_over_what_and_to_whom_is_listed() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE fought (id int PRIMARY KEY, n int); INSERT INTO fought VALUES (7, 0)");
    let update = "UPDATE fought SET n = n + 1 WHERE id = 7";
    let lost = after_unseen(&group, (node(1), update), (node(2), update));
    assert!(lost.is_err(), "{lost:?}");
    let (code, said) = gcs(&group, 2, &["conflicts", "shop"]);
    let line = said.lines().find(|line| line.starts_with("public.fought")).unwrap_or_else(|| panic!("{said}"));
    assert!(
        code == 0 && line.contains("(id) ") && line.contains("node1, position ") && line.ends_with("(id)=(7)"),
        "{said}"
    );
    let (code, said) = gcs(&group, 2, &["conflicts", "shop", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!((code, json[0]["winner_node"].as_str()), (0, Some("node1")), "{said}");
    let (code, said) = gcs(&group, 2, &["conflicts", "nowhere"]);
    assert_eq!((code, said.contains("has no PostgreSQL with database \"nowhere\"")), (1, true), "{said}");
}

#[test]
fn what_a_node_cannot_apply_is_listed_there() {
    let group = harness::shared();
    let (code, said) = gcs(&group, 3, &["failures"]);
    assert_eq!((code, said.as_str()), (0, "everything that was ordered could be applied here\n"));
    let server = |sql: &str| group.playground.connect(node(3), "postgres").unwrap().batch_execute(sql).unwrap();
    server("CREATE EXTENSION IF NOT EXISTS postgres_r");
    group.execute(node(1), "CREATE TABLE mine (id int PRIMARY KEY, n int); INSERT INTO mine VALUES (4, 4)");
    group.settle();
    may_rebuild(&group, node(3), false);
    change_rows(&group, node(3), "mine", &["DELETE FROM mine WHERE id = 4"]);
    group.execute(node(1), "UPDATE mine SET n = 0 WHERE id = 4");
    let said = until(&group, 3, &["failures"], |_, said| said.contains("public.mine"));
    assert!(said.starts_with("database shop, position ") && said.contains(" of node1: "), "{said}");
    may_rebuild(&group, node(3), true);
    group.playground.cluster(node(3)).stop().unwrap();
    group.start_node(node(3));
    until(&group, 3, &["failures"], |_, said| said.starts_with("everything"));
}

#[test]
fn an_archive_for_others_has_what_helps_and_no_secret() {
    let group = harness::shared();
    let (output, log) = (group.dir().join("bundle.tar.gz"), group.dir().join("some.log"));
    std::fs::write(&log, "LOG: ready\nSTATEMENT: ALTER ROLE r PASSWORD 's3cret'\nuses gcs1.s3cret\n").unwrap();
    let (code, said) = {
        let arguments = ["bundle", "--output", output.to_str().unwrap(), "--log", log.to_str().unwrap()];
        gcs(&group, 1, &arguments)
    };
    assert_eq!(code, 0, "{said}");
    let read = Command::new("tar").arg("-xzOf").arg(&output).output().unwrap();
    let text = String::from_utf8_lossy(&read.stdout).into_owned();
    for expected in ["quorum yes", "ok        preload", "gcs_quorum 1", "name = \"node1\"", "LOG: ready", "\"version\":\"0."]
    {
        assert!(text.contains(expected), "{expected} is missing: {text}");
    }
    for secret in ["s3cret", "BEGIN PRIVATE", "BEGIN CERT"] {
        assert!(!text.contains(secret), "{secret}: {text}");
    }
}
