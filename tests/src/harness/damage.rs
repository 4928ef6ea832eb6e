//! What no statement does to a node: its PostgreSQL is stopped, its files or rows are changed behind everybody's back, and it is started again.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use gcs::playground::NodeNumber;

use super::{Group, wait};

/// For a daemon that has just been told.
const ONLINE_MAX: Duration = Duration::from_secs(30);

/// Changes rows of a table on one node; nothing captures them. Other tables, and what their triggers do, stay as they are.
pub fn change_rows(group: &Group, number: NodeNumber, table: &str, statements: &[&str]) {
    let has_triggers = |has: bool| format!("UPDATE pg_class SET relhastriggers = {has} WHERE oid = '{table}'::regclass");
    let mut script = vec![has_triggers(false)];
    script.extend(statements.iter().map(|statement| (*statement).to_owned()));
    script.push(has_triggers(true));
    run_alone(group, number, &script);
}

/// Whether a node that turns out to hold something else is to be rebuilt by itself, from now on and after a restart.
pub fn may_rebuild(group: &Group, number: NodeNumber, may: bool) {
    let mut client = group.playground.connect(number, "postgres").unwrap_or_else(|error| panic!("{error}"));
    let setting = if may { "on" } else { "off" };
    for statement in [&format!("ALTER SYSTEM SET postgres_r.auto_rebuild = {setting}"), "SELECT pg_reload_conf()"] {
        client.batch_execute(statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    }
}

/// Runs statements, one a line, in a server without postgres_r.
pub fn run_alone(group: &Group, number: NodeNumber, statements: &[String]) {
    let cluster = group.playground.cluster(number);
    group.settle();
    cluster.stop().unwrap_or_else(|error| panic!("{error}"));
    let mut single = cluster.account.command(&cluster.bin.join("postgres"), &cluster.home);
    single.args(["--single", "-D"]).arg(cluster.data());
    single.args(["-c", "shared_preload_libraries=", "-c", "exit_on_error=on", group.database()]);
    let mut child = single
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("postgres --single: {error}"));
    if let Some(mut stdin) = child.stdin.take() {
        for statement in statements {
            let _ = writeln!(stdin, "{}", statement.replace('\n', " "));
        }
    }
    let output = child.wait_with_output().unwrap_or_else(|error| panic!("postgres --single: {error}"));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("ERROR:"), "{statements:?}: {said}");
    group.start_node(number);
    until_known_online(group, number);
}

/// The file of a relation on a node, once it is there.
pub fn file_of(group: &Group, number: NodeNumber, relation: &str) -> PathBuf {
    group.settle();
    let path = group.value(number, &format!("SELECT pg_relation_filepath('{relation}')"));
    group.playground.cluster(number).data().join(path)
}

/// Lets `damage` change a relation's file while the node is down.
pub fn change_file(group: &Group, number: NodeNumber, relation: &str, damage: impl FnOnce(&mut Vec<u8>)) {
    let path = file_of(group, number, relation);
    group.playground.cluster(number).stop().unwrap_or_else(|error| panic!("{error}"));
    let mut bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    damage(&mut bytes);
    // In place: the file stays its owner's.
    let write = || {
        let mut file = fs::OpenOptions::new().write(true).open(&path)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(&bytes)
    };
    write().unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    group.start_node(number);
    until_known_online(group, number);
}

/// The daemon there has heard of its PostgreSQL.
fn until_known_online(group: &Group, number: NodeNumber) {
    wait::until("all members are online, as the node knows it", ONLINE_MAX, || {
        let states = group.value(number, "SELECT string_agg(DISTINCT state, ' ') FROM postgres_r.members");
        if states == "online" { Ok(()) } else { Err(states) }
    });
}

/// Flips one bit of the first place where the file holds these bytes.
pub fn flip_a_bit(bytes: &mut [u8], of: &[u8], bit: usize) {
    let at = bytes.windows(of.len()).position(|window| window == of);
    let at = at.unwrap_or_else(|| panic!("{} is not in the file", String::from_utf8_lossy(of)));
    bytes[at + bit / 8] ^= 1 << (bit % 8);
}
