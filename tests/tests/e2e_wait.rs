//! `gcs wait` returns when it is so, and not before.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use gcs::playground::Part;
use gcs::playground::process::Signal;
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node};

fn waits(group: &Group, number: usize, arguments: &[&str]) -> Child {
    let config = group.playground.daemon(node(number)).home.join("gcs.toml");
    let mut command = Command::new(harness::gcs());
    command.arg("wait").args(arguments).arg("--config").arg(config);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

fn ends(child: Child) -> (i32, String) {
    let output = child.wait_with_output().unwrap();
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_node_that_lacks_something_is_waited_for_until_it_shows_it() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE IF NOT EXISTS late (id serial PRIMARY KEY)");
    assert_eq!(ends(waits(&group, 3, &["--synced", "--writable"])).0, 0);
    let stopped = Stopped::remote_backends(&group, node(3));
    group.execute(node(1), "INSERT INTO late DEFAULT VALUES");
    let (code, said) = ends(waits(&group, 3, &["--synced", "--timeout", "2s"]));
    assert_eq!((code, said.contains("not done in time")), (1, true), "{said}");
    assert_eq!(ends(waits(&group, 1, &["--synced"])).0, 0, "the others are");
    let mut child = waits(&group, 3, &["--synced", "--timeout", "1m"]);
    assert!(child.try_wait().unwrap().is_none());
    let began = Instant::now();
    drop(stopped);
    assert_eq!(ends(child).0, 0);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(group.value(node(3), "SELECT count(*) FROM late"), group.value(node(1), "SELECT count(*) FROM late"));
}

#[test]
fn a_node_whose_server_comes_is_waited_for() {
    let group = harness::shared();
    group.playground.cluster(node(3)).stop().unwrap();
    assert_eq!(ends(waits(&group, 3, &["--writable", "--timeout", "1s"])).0, 1);
    let child = waits(&group, 3, &["--synced", "--writable", "--timeout", "1m"]);
    group.playground.cluster(node(3)).start().unwrap();
    assert_eq!(ends(child).0, 0);
    group.execute(node(3), "SELECT 1");
}

#[test]
fn a_majority_is_waited_for_and_a_daemon_that_is_not_there_is_not() {
    let group = harness::shared();
    for number in [2, 3] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    let (code, said) = ends(waits(&group, 3, &["--writable", "--timeout", "1m"]));
    assert_eq!((code, said.contains("could not reach gcs")), (1, true), "{said}");
    group.becomes(node(1), "current_setting('default_transaction_read_only')", "on", Duration::from_secs(30));
    let (code, said) = ends(waits(&group, 1, &["--writable", "--timeout", "1s"]));
    assert_eq!(code, 1, "{said}");
    let child = waits(&group, 1, &["--writable", "--synced", "--timeout", "1m"]);
    group.start_node(node(2));
    assert_eq!(ends(child).0, 0);
    group.start_node(node(3));
}
