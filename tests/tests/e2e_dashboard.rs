//! The page that a daemon serves for people, in a real browser, while a node is lost and comes back.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::browser::Browser;
use postgres_r_tests::harness::{self, Group, damage, http, node, race, wait};
use serde_json::Value;

/// The page of the first node's daemon.
fn look(group: &Group) -> Browser {
    let browser = Browser::start(false);
    browser.open(&format!("http://{}/", http::address(group, node(1))));
    for number in group.numbers() {
        browser.shows(&card(number), "online");
    }
    browser
}

fn card(number: NodeNumber) -> String {
    format!("[data-member=node{}]", number.0)
}

/// On the card and among the events.
fn is_told(browser: &Browser, number: NodeNumber, state: &str) {
    browser.shows(&format!("{}[data-state=\"{state}\"] .state", card(number)), state);
    browser.shows("#event-list", &format!("node{}: {state}", number.0));
}

fn gcs(group: &Group, number: NodeNumber, arguments: &[&str]) {
    let config = group.playground.cluster(number).home.join("gcs.toml");
    let output = Command::new(harness::gcs()).args(arguments).arg("--config").arg(config).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_node_is_lost_and_returns_and_each_of_its_states_is_shown() {
    let group = harness::shared();
    let browser = look(&group);
    browser.shows("#group", "postgresr");
    browser.shows("#banner", "node1 takes reads and writes");
    browser.click(&format!("{} summary", card(node(3))));
    assert!(browser.text(&card(node(3))).contains("connected"), "its details are open");

    group.kill(node(3), Part::Postgres);
    is_told(&browser, node(3), "detached");
    group.kill(node(3), Part::Gcs);
    is_told(&browser, node(3), "unreachable");
    assert!(browser.text(&card(node(3))).contains("not connected"));
    browser.shows("#banner", "node1 takes reads and writes");
    group.kill(node(2), Part::Gcs);
    browser.shows("#banner[data-kind=bad]", "No majority");
    group.start_node(node(2));
    browser.shows("#banner[data-kind=good]", "node1 takes reads and writes");
    group.start_node(node(3));
    browser.shows(&format!("{}[data-state=online]", card(node(3))), "online");
    is_told(&browser, node(3), "online");

    gcs(&group, node(2), &["drain"]);
    is_told(&browser, node(2), "draining");
    gcs(&group, node(2), &["drain", "--cancel"]);
    browser.shows(&format!("{}[data-state=online]", card(node(2))), "online");
}

/// By a group of its own: a node's rows are changed behind its back.
#[test]
fn a_node_out_of_service_gets_a_copy_before_the_eyes_of_whoever_looks() {
    let group = Group::start();
    let browser = look(&group);
    let may_rebuild = |may: bool| damage::may_rebuild(&group, node(2), may);
    group.execute(node(1), "CREATE TABLE thing (id int PRIMARY KEY); INSERT INTO thing SELECT generate_series(1, 100)");
    damage::change_rows(&group, node(2), "thing", &["DELETE FROM thing WHERE id = 5"]);
    may_rebuild(false);
    group.execute(node(1), "DELETE FROM thing WHERE id = 5");
    is_told(&browser, node(2), "out of service");
    browser.shows("#database-list", "out of service");
    may_rebuild(true);
    browser.shows(&format!("{}[data-state=online]", card(node(2))), "online");
    is_told(&browser, node(2), "online");
    harness::assert_equal(&group);
}

#[test]
fn commits_and_conflicts_are_shown_with_their_steps_and_winners() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE stock (item int PRIMARY KEY, pieces int); INSERT INTO stock VALUES (1, 0)");
    group.settle();
    let browser = look(&group);
    browser.click("nav a[href='#commit']");
    // A commit is followed while the page is open, so one comes after the other until one was.
    let mut client = group.connect(node(1));
    let mut commit = || client.batch_execute("UPDATE stock SET pieces = pieces + 1").unwrap();
    wait::until("a commit was followed", Duration::from_secs(60), || {
        commit();
        let count = browser.value("document.querySelectorAll('#course-steps li').length");
        if count == 0 { Err(count.to_string()) } else { Ok(()) }
    });
    for step in ["submitted", "ordered and certified", "visible on node1", "visible on node2", "visible on node3"] {
        browser.shows("#course-steps", step);
    }
    browser.shows("#database-list", "shop: serving here");
    let label = browser.value("document.getElementById('commits').getAttribute('aria-label')");
    assert!(label.as_str().unwrap().starts_with("Commits a second, last five minutes: now commits"), "{label}");

    let winner = "UPDATE stock SET pieces = 1 WHERE item = 1";
    let loser = "UPDATE stock SET pieces = 2 WHERE item = 1";
    race::after_unseen(&group, (node(2), winner), (node(1), loser)).expect_err("it was ordered behind the other");
    browser.shows("#conflict-table tbody", "public.stock");
    browser.shows("#conflict-table tbody", "node2, position");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/dashboard.png");
        browser.value("window.scrollTo(0, 0)");
        browser.screenshot(&file);
    }
}

#[test]
fn whoever_has_no_mouse_and_whoever_likes_it_dark_can_use_it_and_nothing_comes_from_elsewhere() {
    let group = harness::shared();
    let browser = look(&group);
    let is_open = |browser: &Browser| browser.value("document.querySelector('[data-member=node1]').open");
    let tabs = (0..20).take_while(|_| {
        browser.press("\u{e004}");
        browser.value("document.activeElement.closest('[data-member=node1]') === null") == Value::Bool(true)
    });
    assert!(tabs.count() < 20, "the card is not reached by the tabulator key");
    browser.press("\u{e007}");
    assert_eq!(is_open(&browser), Value::Bool(true), "the Enter key opens it");
    let uptime = browser.text("#uptime");
    wait::until("the page goes on", Duration::from_secs(20), || {
        if browser.text("#uptime") == uptime { Err(uptime.clone()) } else { Ok(()) }
    });
    assert_eq!(is_open(&browser), Value::Bool(true), "it stays open");
    let has_focus = browser.value("document.activeElement.closest('[data-member=node1]') !== null");
    assert_eq!(has_focus, Value::Bool(true), "it keeps the focus");

    let foreign = "performance.getEntriesByType('resource').filter(it => !it.name.startsWith(location.origin)).length";
    assert_eq!(browser.value(foreign), Value::from(0));
    let unnamed = "[...document.querySelectorAll('button, select, meter, progress, svg')].filter(it => \
                   !it.textContent && !it.labels?.length && !it.getAttribute('aria-label')).map(it => it.id || it.tagName)";
    assert_eq!(browser.value(unnamed), Value::Array(Vec::new()), "a screen reader has a name for everything");

    let paper = "getComputedStyle(document.body).backgroundColor";
    let dark = Browser::start(true);
    dark.open(&format!("http://{}/", http::address(&group, node(1))));
    dark.shows(&card(node(1)), "online");
    assert_ne!(dark.value(paper), browser.value(paper));
}

/// By a group of its own: the daemon of the page is killed.
#[test]
fn a_daemon_that_is_gone_is_told_and_what_it_said_last_stays() {
    let group = Group::start();
    let browser = look(&group);
    group.kill(node(1), Part::Gcs);
    browser.shows("#banner[data-kind=bad]", "does not answer");
    browser.shows(&card(node(2)), "online");
    group.start_node(node(1));
    browser.shows("#banner[data-kind=good]", "node1 takes reads and writes");
    browser.shows("#event-list", "the daemon answers again");
}
