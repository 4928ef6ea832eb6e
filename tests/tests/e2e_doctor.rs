//! `gcs doctor` names what is wrong: each of these things is caused for real, and the doctor asked. (The rules by themselves: `gcs/src/doctor/rules/tests.rs`.)

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::damage::{change_rows, may_rebuild};
use postgres_r_tests::harness::stopped::Stopped;
use postgres_r_tests::harness::{self, Group, node, wait};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(30);
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

/// What the doctor said, and how it ended.
#[derive(Debug)]
struct Said {
    status: i32,
    findings: Vec<Value>,
}

impl Said {
    /// Severity and message of the finding with this name about something whose name has this in it; the worst, since it comes first.
    fn of(&self, name: &str, subject: &str) -> Option<(&str, &str)> {
        let is_it = |finding: &&Value| finding["name"] == name && finding["subject"].as_str().unwrap().contains(subject);
        let found = self.findings.iter().find(is_it)?;
        Some((found["severity"].as_str().unwrap(), found["message"].as_str().unwrap()))
    }

    fn has(&self, severity: &str, name: &str, subject: &str) -> bool {
        self.of(name, subject).is_some_and(|(found, _)| found == severity)
    }

    /// A finding that is not "ok" says what to do.
    fn assert(&self, severity: &str, name: &str, subject: &str) {
        assert!(self.has(severity, name, subject), "{name} of {subject} is not {severity}: {self:#?}");
    }
}

fn config(group: &Group, number: usize) -> PathBuf {
    group.playground.daemon(node(number)).home.join("gcs.toml")
}

fn doctor_of(config: &Path) -> Said {
    let output = Command::new(harness::gcs()).args(["doctor", "--json", "--config"]).arg(config).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    Said { status: output.status.code().unwrap(), findings: said["findings"].as_array().unwrap().clone() }
}

fn doctor(group: &Group, number: usize) -> Said {
    doctor_of(&config(group, number))
}

/// Until the node's doctor says this.
fn until_said(group: &Group, number: usize, severity: &str, name: &str, subject: &str) -> Said {
    let look = || {
        let said = doctor(group, number);
        if said.has(severity, name, subject) { Ok(said) } else { Err(format!("{said:#?}")) }
    };
    wait::until(&format!("{severity} {name} {subject}"), WITHIN, look).0
}

/// Of all but the disk, which is this machine's.
fn assert_well(group: &Group) {
    group.settle();
    for number in 1..=3 {
        let is_well = || {
            let said = doctor(group, number);
            let bad: Vec<&Value> =
                said.findings.iter().filter(|it| it["severity"] != "ok" && it["name"] != "disk").collect();
            if bad.is_empty() { Ok(()) } else { Err(format!("{bad:#?}")) }
        };
        wait::until("all is well", WITHIN, is_well);
    }
}

fn restart_daemon(group: &Group, number: NodeNumber) {
    group.playground.daemon(number).stop();
    group.start_node(number);
}

#[test]
fn a_group_that_is_well_is_said_to_be_well() {
    let group = harness::shared();
    assert_well(&group);
    let said = doctor(&group, 1);
    assert!(said.of("disk", "").is_some() && said.of("disk", "").unwrap().1.contains("% of the disk"), "{said:#?}");
    let text = Command::new(harness::gcs()).args(["doctor", "--config"]).arg(config(&group, 1)).output().unwrap();
    assert!(String::from_utf8_lossy(&text.stdout).contains("ok        majority     postgresr: 3 of 3 members are in touch"));
}

#[test]
fn a_daemon_that_is_down_is_named_on_its_node_and_on_the_others_and_two_are_the_majority() {
    let group = harness::shared();
    group.signal(node(3), Part::Gcs, Signal::TERM);
    let said = doctor(&group, 3);
    assert_eq!(said.status, 2);
    said.assert("critical", "daemon", "node3");
    said.assert("unknown", "majority", "node3");
    until_said(&group, 1, "warning", "members", "node3");
    group.signal(node(2), Part::Gcs, Signal::TERM);
    let said = until_said(&group, 1, "critical", "majority", "postgresr");
    assert_eq!(said.status, 2);
    group.start_node(node(2));
    group.start_node(node(3));
    assert_well(&group);
}

#[test]
fn a_socket_that_is_not_the_daemons_is_named_from_either_side() {
    let group = harness::shared();
    let text = fs::read_to_string(config(&group, 3)).unwrap();
    let of_another = group.dir().join("another.toml");
    let write = |socket: &str| {
        let lines = text.lines().map(|line| match line.starts_with("local_socket") {
            true => format!("local_socket = \"{socket}\""),
            false => line.to_owned(),
        });
        fs::write(&of_another, lines.collect::<Vec<_>>().join("\n")).unwrap();
        doctor_of(&of_another)
    };
    write("/nowhere/gcs.sock").assert("critical", "socket", "/nowhere/gcs.sock");
    let socket_of_1 = group.playground.daemon(node(1)).socket();
    let said = write(&socket_of_1.display().to_string());
    said.assert("critical", "socket", "node1/gcs.sock");
    assert!(said.of("socket", "").unwrap().1.contains("the daemon of node \"node1\""), "{said:#?}");
    let server = |sql: &str| group.playground.connect(node(3), "postgres").unwrap().execute(sql, &[]).map(drop).unwrap();
    server("ALTER SYSTEM SET postgres_r.gcs_socket = '/elsewhere/gcs.sock'");
    server("SELECT pg_reload_conf()");
    let said = until_said(&group, 3, "critical", "socket", "node3/gcs.sock");
    assert!(said.of("socket", "").unwrap().1.contains("/elsewhere/gcs.sock"), "{said:#?}");
    server("ALTER SYSTEM RESET postgres_r.gcs_socket");
    server("SELECT pg_reload_conf()");
    assert_well(&group);
}

#[test]
fn a_clock_that_is_off_is_named_by_all_and_by_its_own_node() {
    let group = harness::shared();
    if !Path::new(FAKETIME).exists() {
        return println!("not tried: {FAKETIME} is missing");
    }
    let mut daemon = group.playground.daemon(node(3));
    daemon.stop();
    let words = format!(
        "setpriv --reuid={0} --regid={0} --clear-groups -- env LD_PRELOAD={FAKETIME} FAKETIME=+90s FAKETIME_DONT_FAKE_MONOTONIC=1 \
         DONT_FAKE_MONOTONIC=1",
        daemon.account.name()
    );
    daemon.launcher = words.split_whitespace().map(str::to_owned).collect();
    daemon.start().unwrap();
    for number in 1..=3 {
        let said = until_said(&group, number, "warning", "clock", "node3");
        let message = said.of("clock", "").unwrap().1;
        assert!(message.contains(" s ahead of the others'"), "{message}");
        assert!(!said.has("warning", "clock", "node1"), "{said:#?}");
    }
    restart_daemon(&group, node(3));
    assert_well(&group);
}

/// The directory's files on a file system of their own, in memory, as long as this lives.
struct Small(PathBuf);

impl Small {
    /// None where this user may not mount. Nobody may use the directory.
    fn of(directory: &Path, megabytes: u64) -> Option<Small> {
        let kept = directory.with_extension("before");
        fs::rename(directory, &kept).unwrap();
        fs::create_dir(directory).unwrap();
        let size = format!("size={megabytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(directory).output().unwrap();
        if !mounted.status.success() {
            fs::remove_dir(directory).unwrap();
            fs::rename(&kept, directory).unwrap();
            return None;
        }
        assert!(Command::new("cp").arg("-a").arg(kept.join(".")).arg(directory).status().unwrap().success());
        Some(Small(directory.to_owned()))
    }

    /// Takes all but this many megabytes, which stay for the log.
    fn fill_but(&self, megabytes: u64) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = File::create(&path).unwrap();
        let piece = vec![0; 1 << 20];
        while file.write_all(&piece).is_ok() {}
        let length = file.metadata().unwrap().len();
        file.set_len(length - (megabytes << 20)).unwrap();
        path
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let kept = self.0.with_extension("before");
        let _ = fs::remove_dir_all(&kept);
        // What was written meanwhile is the log's.
        let _ = Command::new("cp").arg("-a").arg(self.0.join(".")).arg(&kept).status();
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
        let _ = fs::remove_dir(&self.0);
        let _ = fs::rename(&kept, &self.0);
    }
}

#[test]
fn a_disk_that_is_nearly_full_is_named() {
    let group = harness::shared();
    let daemon = group.playground.daemon(node(3));
    daemon.stop();
    let Some(small) = Small::of(&daemon.home.join("gcs"), 400) else {
        return println!("not tried: only root may mount");
    };
    group.start_node(node(3));
    assert!(doctor(&group, 3).has("ok", "disk", "node3/gcs"), "{:#?}", doctor(&group, 3));
    let filler = small.fill_but(4);
    let said = doctor(&group, 3);
    said.assert("critical", "disk", "node3/gcs");
    assert!(said.of("disk", "node3/gcs").unwrap().1.starts_with("1 % of the disk of the log of gcs"), "{said:#?}");
    fs::remove_file(filler).unwrap();
    daemon.stop();
    drop(small);
    group.start_node(node(3));
    assert_well(&group);
}

#[test]
fn a_node_that_does_not_apply_is_named_on_itself_and_elsewhere() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE IF NOT EXISTS late (id serial PRIMARY KEY)");
    let stopped = Stopped::remote_backends(&group, node(3));
    for _ in 0..5 {
        group.execute(node(1), "INSERT INTO late DEFAULT VALUES");
    }
    for number in [1, 3] {
        let said = until_said(&group, number, "warning", "lag", "node3");
        assert!(!said.has("warning", "lag", "node2"), "{said:#?}");
        assert!(said.of("lag", "").unwrap().1.contains("positions behind"), "{said:#?}");
    }
    drop(stopped);
    assert_well(&group);
}

#[test]
fn a_server_that_is_down_is_named_and_one_that_does_not_load_the_extension() {
    let group = harness::shared();
    let cluster = group.playground.cluster(node(3));
    cluster.stop().unwrap();
    let said = doctor(&group, 3);
    said.assert("critical", "postgresql", "node3");
    said.assert("unknown", "preload", "node3");
    let settings = cluster.data().join("postgresql.auto.conf");
    let before = fs::read(&settings).unwrap();
    OpenOptions::new().append(true).open(&settings).unwrap().write_all(b"shared_preload_libraries = ''\n").unwrap();
    cluster.start().unwrap();
    let said = doctor(&group, 3);
    said.assert("critical", "preload", "node3");
    said.assert("ok", "postgresql", "node3");
    assert_eq!(said.status, 2);
    fs::write(&settings, before).unwrap();
    cluster.stop().unwrap();
    group.start_node(node(3));
    assert_well(&group);
}

/// The daemon's program, which says of itself that it is of another version.
fn of_another_version(group: &Group) -> PathBuf {
    let mut program = fs::read(&group.playground.daemon(node(3)).binary).unwrap();
    let marked = format!("gcs version {}", env!("CARGO_PKG_VERSION"));
    let at = program.windows(marked.len()).position(|window| window == marked.as_bytes()).unwrap();
    let version = at + marked.len() - env!("CARGO_PKG_VERSION").len();
    program[version] = b'9';
    let directory = group.dir().join("bin9");
    fs::create_dir_all(&directory).unwrap();
    let path = directory.join("gcs");
    fs::write(&path, program).unwrap();
    assert!(Command::new("chmod").args(["-R", "a+rx"]).arg(&directory).status().unwrap().success());
    path
}

#[test]
fn daemons_and_programs_of_other_versions_are_named() {
    let group = harness::shared();
    let mut daemon = group.playground.daemon(node(3));
    daemon.stop();
    daemon.binary = of_another_version(&group);
    daemon.start().unwrap();
    let said = until_said(&group, 1, "warning", "version", "node3");
    assert!(said.of("version", "").unwrap().1.contains("its daemon is version 9"), "{said:#?}");
    // There the extension is of another version than the daemon.
    let said = until_said(&group, 3, "warning", "version", "node3");
    assert!(said.findings.iter().any(|it| it["message"].as_str().unwrap().contains("the extension")), "{said:#?}");
    restart_daemon(&group, node(3));
    assert_well(&group);
    // As a manager of an older extension greets: a frame with a greeting of protocol 10.
    let mut stream = UnixStream::connect(group.playground.daemon(node(2)).socket()).unwrap();
    stream.write_all(&[6, 0, 0, 0, 2, 0, 0, 0, 0, 10]).unwrap();
    let said = until_said(&group, 2, "critical", "version", "node2");
    assert!(said.of("version", "").unwrap().1.contains("link protocol 10"), "{said:#?}");
    restart_daemon(&group, node(2));
    assert_well(&group);
}

fn gcs(arguments: &[&str], config: &Path) -> i32 {
    let output = Command::new(harness::gcs()).args(arguments).arg("--config").arg(config).output().unwrap();
    output.status.code().unwrap()
}

#[test]
fn a_node_that_holds_something_else_is_named_by_the_last_verification_until_it_is_repaired() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE stock (id int PRIMARY KEY, n int); INSERT INTO stock SELECT n, n FROM generate_series(1, 9) n",
    );
    change_rows(&group, node(3), "stock", &["UPDATE stock SET n = -1 WHERE id = 4"]);
    assert_eq!(gcs(&["verify", group.database(), "--table", "stock"], &config(&group, 1)), 3);
    let said = doctor(&group, 1);
    said.assert("critical", "divergence", "node3");
    assert!(said.of("divergence", "node3").unwrap().1.contains("public.stock"), "{said:#?}");
    assert_eq!(gcs(&["repair", "node3", "stock", "--database", group.database()], &config(&group, 1)), 0);
    doctor(&group, 1).assert("ok", "divergence", "node1");
    assert_well(&group);
}

#[test]
fn a_node_that_cannot_apply_what_was_ordered_is_named_by_itself() {
    let group = harness::shared();
    group.execute(
        node(1),
        "CREATE TABLE mine (id int PRIMARY KEY, n int); INSERT INTO mine SELECT n, n FROM generate_series(1, 9) n",
    );
    group.settle();
    may_rebuild(&group, node(3), false);
    change_rows(&group, node(3), "mine", &["DELETE FROM mine WHERE id = 4"]);
    group.execute(node(1), "UPDATE mine SET n = 0 WHERE id = 4");
    let said = until_said(&group, 3, "critical", "divergence", "node3");
    assert!(said.of("divergence", "").unwrap().1.contains("could not apply position"), "{said:#?}");
    until_said(&group, 3, "critical", "service", "node3");
    until_said(&group, 1, "critical", "service", "node3");
    may_rebuild(&group, node(3), true);
    assert_well(&group);
}

/// Another group's first node, whose certificate was made so many days ago.
fn certified(directory: &Path, days_ago: u32) -> PathBuf {
    let config = directory.join("gcs.toml");
    let made = Command::new(harness::gcs())
        .args(["init", "--group", "g", "--name", "n1", "--address", "127.0.0.1:1"])
        .arg("--directory")
        .arg(directory.join("gcs"))
        .arg("--config")
        .arg(&config)
        .arg("--socket")
        .arg(directory.join("gcs.sock"))
        .env("LD_PRELOAD", FAKETIME)
        .env("FAKETIME", format!("-{days_ago}d"))
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    config
}

#[test]
fn a_certificate_that_has_expired_or_is_about_to_is_named() {
    if !Path::new(FAKETIME).exists() {
        return println!("not tried: {FAKETIME} is missing");
    }
    for (days_ago, severity) in [(1, "ok"), (360, "warning"), (400, "critical")] {
        let directory = tempfile::tempdir().unwrap();
        let said = doctor_of(&certified(directory.path(), days_ago));
        said.assert(severity, "certificate", "certificate O=g, CN=n1");
    }
}

#[test]
fn a_session_that_others_wait_for_is_named_with_how_to_end_it() {
    let group = harness::shared();
    group.execute(node(2), "CREATE TABLE held (id int PRIMARY KEY, n int); INSERT INTO held VALUES (1, 1)");
    let mut holder = group.connect(node(2));
    holder.batch_execute("BEGIN; UPDATE held SET n = 2").unwrap();
    let mut waiter = group.connect(node(2));
    let waits = std::thread::spawn(move || waiter.batch_execute("UPDATE held SET n = 3"));
    let said = until_said(&group, 2, "warning", "sessions", "session ");
    let remedy = said.findings.iter().find(|it| it["name"] == "sessions").unwrap()["remedy"].as_str().unwrap();
    assert!(remedy.contains("pg_terminate_backend"), "{remedy}");
    holder.batch_execute("COMMIT").unwrap();
    let _ = waits.join().unwrap();
    assert_well(&group);
}
