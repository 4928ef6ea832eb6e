//! Daemons of nodes that are no full ones: witnesses and query-only nodes, as founders and as joiners.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::path::Path;

use gcs_writeset::link::{FailureKind, Request, Role};
use gcs_writeset::{Incarnation, Position};

use support::{Daemon, Group, Link, Manager, writeset};

/// Two full nodes, and a third founder of this role.
fn group_with(role: &str) -> Group {
    let mut group = Group::configure(3);
    for daemon in &group.daemons {
        list_as(&daemon.config, role);
    }
    group.daemons.iter_mut().for_each(Daemon::start);
    group
}

fn list_as(config: &Path, role: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    let entry = "[[peers]]\nname = \"n3\"\n";
    assert!(text.contains(entry));
    std::fs::write(config, text.replace(entry, &format!("{entry}role = \"{role}\"\n"))).unwrap();
}

fn with_line(config: &Path, line: &str) {
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, format!("{line}\n{text}")).unwrap();
}

fn progress(manager: &mut Manager, position: u64) {
    let (committed, flushed, oldest_base) = (Position(position), Position(position), Position(position));
    manager.link.send(&Request::Progress { committed, flushed, oldest_base, out_of_service: false }, &[]);
}

fn leader(daemon: &Daemon) -> Option<String> {
    let (_, text) = daemon.gcs(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    status["leader"].as_str().map(str::to_owned)
}

#[test]
fn two_full_daemons_and_a_witness_order_without_any_one_of_them() {
    let mut group = group_with("witness");
    let mut managers: Vec<Manager> = [0, 1]
        .map(|at: usize| Manager::attach(&group.daemons[at].socket, Incarnation(at as u64 + 1), Position::ZERO))
        .into();
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[1].delivered(1);
    let roles: Vec<String> =
        group.daemons[0].members().into_iter().map(|member| format!("{} {}", member.1, member.2)).collect();
    assert_eq!(roles, ["voter online", "voter online", "witness online"]);
    group.daemons[2].kill();
    managers[0].submit(&writeset(2, Position::ZERO));
    managers[1].delivered(1);
    group.daemons[2].start();
    group.daemons[2].wait_until("the witness is back", |daemon| leader(daemon).is_some());
    group.daemons[0].wait_until("nor does it lead", |daemon| leader(daemon).is_some_and(|leader| leader != "n3"));
    group.daemons[0].kill();
    managers[1].submit(&writeset(3, Position::ZERO));
    managers[1].delivered(1);
    group.daemons[1].wait_until("the other full node leads", |daemon| leader(daemon).as_deref() == Some("n2"));
}

#[test]
fn a_witness_takes_no_postgresql_and_says_so() {
    let group = group_with("witness");
    for role in [Role::Manager, Role::Backend, Role::Reader, Role::Rehearser, Role::Forerunner, Role::Fetcher] {
        let mut link = Link::hello(&group.daemons[2].socket, role, Incarnation(1), Some("g"));
        assert_eq!(link.failure(), FailureKind::Witness, "{role:?}");
    }
    group.daemons[0].wait_until("it runs", |daemon| leader(daemon).is_some());
    let (code, said) = group.daemons[0].gcs(&["lead", "n3"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("it is a witness"), "{said}");
}

#[test]
fn a_witness_that_joins_votes_by_its_log_alone_and_is_not_taken_for_another_role() {
    let mut group = Group::start(2);
    let mut managers = group.attach_all();
    for key in 0..20 {
        managers[0].submit(&writeset(key, Position::ZERO));
    }
    managers[1].delivered(20);
    let asked = group.daemons[1].peer_address.clone();
    let witness = group.configure_joiner("w", &[&asked]);
    with_line(&group.daemons[witness].config, "witness = true");
    group.daemons[witness].start();
    group.daemons[0].wait_until("it votes", |daemon| daemon.role_of("w").as_deref() == Some("witness"));
    let (code, said) = group.daemons[0].gcs(&["replace", "n2", "--with", "w"]);
    assert_eq!(code, Some(0), "one full voter and a witness are a group: {said}");
    let (code, said) = group.daemons[0].gcs(&["leave"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("the only full member that votes"), "{said}");
    // Its directory is a witness's for as long as it is a member.
    group.daemons[witness].kill();
    let config = group.daemons[witness].config.clone();
    let text = std::fs::read_to_string(&config).unwrap();
    std::fs::write(&config, text.replace("witness = true", "role = \"full\"")).unwrap();
    group.daemons[witness].start();
    group.daemons[witness].wait_for_log("this node is witness, not full");
    assert_eq!(group.daemons[0].role_of("w").as_deref(), Some("witness"));
}

#[test]
fn a_query_only_daemon_gets_everything_never_votes_and_brings_no_contents() {
    let mut group = group_with("query-only");
    let mut link = Link::hello(&group.daemons[2].socket, Role::Manager, Incarnation(9), Some("g"));
    link.send(&Request::Attach { resume_after: Position::ZERO, founds: true, leaves: false, overwrite: false }, &[]);
    assert_eq!(link.failure(), FailureKind::QueryOnly);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    for manager in &mut managers {
        manager.delivered(1);
        progress(manager, 1);
    }
    assert_eq!(group.daemons[0].role_of("n3").as_deref(), Some("query-only"));
    let (code, said) = group.daemons[0].gcs(&["replace", "n1", "--with", "n3"]);
    assert_eq!(code, Some(1));
    assert!(said.contains("it never votes"), "{said}");
    // Nobody needs it.
    group.daemons[2].kill();
    managers[0].submit(&writeset(2, Position::ZERO));
    managers[1].delivered(1);
}

#[test]
fn founders_that_list_each_other_otherwise_do_not_meet_and_one_at_least_is_full() {
    let mut group = Group::configure(3);
    list_as(&group.daemons[0].config, "witness");
    list_as(&group.daemons[2].config, "witness");
    group.daemons.iter_mut().for_each(Daemon::start);
    group.daemons[1].wait_for_log("another list of the first members");
    let alone = Group::configure(1);
    with_line(&alone.daemons[0].config, "witness = true");
    let (code, said) = Daemon::run_to_end(&alone.daemons[0].config);
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("none of the members is a full node"), "{said}");
}
