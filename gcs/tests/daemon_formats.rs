//! A group in which one daemon is of a release that reads less, or says so.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::path::Path;

use gcs_writeset::{Incarnation, Position};

use support::{Daemon, Group, Manager, writeset};

const HELD: &str = "hold_format = 1\n";

fn hold(config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, format!("{HELD}{text}")).unwrap();
}

fn release(config: &Path) {
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace(HELD, "")).unwrap();
}

/// What the group writes, and whom it waits for.
fn format(daemon: &Daemon) -> Option<(u64, Vec<String>)> {
    let (_, text) = daemon.gcs(&["status", "--json"]);
    let status: serde_json::Value = serde_json::from_str(&text).ok()?;
    let waits_for = status["format"]["waits_for"].as_array()?.iter();
    Some((status["format"]["written"].as_u64()?, waits_for.filter_map(|name| name.as_str().map(str::to_owned)).collect()))
}

fn newest() -> u64 {
    gcs_core::Format::NEWEST.0.into()
}

#[test]
fn a_daemon_that_reads_less_holds_the_format_back_and_is_not_let_in_when_it_is_raised() {
    let mut group = Group::configure(3);
    hold(&group.daemons[2].config);
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut managers = group.attach_all();
    let held = Some((1, vec!["n3".to_owned()]));
    group.daemons[0].wait_until("n3 is waited for", |daemon| format(daemon) == held);
    let (_, text) = group.daemons[0].gcs(&["status"]);
    assert!(text.contains(&format!("format 1: {} as soon as n3 can read it", newest())), "{text}");
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[2].delivered(1);

    // Whoever is away is waited for.
    group.daemons[2].kill();
    managers[0].submit(&writeset(2, Position::ZERO));
    managers[1].delivered(2);
    assert_eq!(format(&group.daemons[0]), held);

    release(&group.daemons[2].config);
    group.daemons[2].start();
    for daemon in &group.daemons {
        daemon.wait_until("the newer format is written", |daemon| format(daemon).is_some_and(|(it, _)| it == newest()));
    }
    // Back to the release of before: its own log is more than it can read.
    group.daemons[2].kill();
    hold(&group.daemons[2].config);
    group.daemons[2].start();
    let name = format!("group \"g\" writes format {}, this node reads up to 1", newest());
    group.daemons[2].wait_for_log(&name);
    release(&group.daemons[2].config);
    group.daemons[2].kill();
    group.daemons[2].start();
    let mut third = Manager::attach(&group.daemons[2].socket, Incarnation(3), Position::ZERO);
    third.delivered(2);
}

#[test]
fn a_joiner_of_an_older_release_is_refused_by_name() {
    let mut group = Group::start(3);
    group.daemons[0]
        .wait_until("the newer format is written", |daemon| format(daemon).is_some_and(|(it, _)| it == newest()));
    let asked = group.daemons[0].peer_address.clone();
    let joiner = group.configure_joiner("n4", &[&asked]);
    hold(&group.daemons[joiner].config);
    group.daemons[joiner].start();
    let refused = format!("group \"g\" writes format {}, node \"n4\" reads up to 1: run the release", newest());
    group.daemons[joiner].wait_for_log(&refused);
    let text = std::fs::read_to_string(&group.daemons[joiner].config).unwrap();
    std::fs::write(&group.daemons[joiner].config, text.replace(HELD, "hold_format = 9\n")).unwrap();
    let (code, said) = group.daemons[joiner].gcs(&["status"]);
    assert_eq!(code, Some(2));
    assert!(said.contains(&format!("hold_format is 9: this release reads formats 1 to {}", newest())), "{said}");
}
