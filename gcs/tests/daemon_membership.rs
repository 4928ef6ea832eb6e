//! Real daemons come, go, and come again.

mod support;

use gcs_writeset::link::{FailureKind, Reply, Request, Role};
use gcs_writeset::{Incarnation, Position};

use support::{Daemon, Group, Link, Manager, free_addresses, joining, order, writeset};

/// Tells the group that the database has come this far.
fn progress(manager: &mut Manager, position: u64) {
    let (committed, flushed, oldest_base) = (Position(position), Position(position), Position(position));
    manager.link.send(&Request::Progress { committed, flushed, oldest_base, out_of_service: false }, &[]);
}

/// Attaches the database of a daemon that has joined; it comes with everything up to `has`.
fn attach(daemon: &Daemon, incarnation: u64, has: u64) -> Manager {
    let mut manager = Manager::attach(&daemon.socket, Incarnation(incarnation), Position(has));
    progress(&mut manager, has);
    manager
}

fn wait_for_vote(daemon: &Daemon, name: &str) {
    daemon.wait_until(&format!("{name} votes"), |daemon| daemon.role_of(name).as_deref() == Some("voter"));
}

/// The daemons' directories are known, a change for each that was there from the beginning, and the newest format is written, which is one more.
fn wait_for_claims(group: &Group) {
    let count = group.daemons.len() + 1;
    for daemon in &group.daemons {
        daemon.wait_for_log(&format!("the membership has changed version={count}"));
    }
}

fn names(daemon: &Daemon) -> Vec<String> {
    daemon.members().into_iter().map(|member| member.0).collect()
}

#[test]
fn a_fourth_daemon_joins_three_gets_everything_and_votes_only_then() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    for key in 0..20 {
        managers[0].submit(&writeset(key, Position::ZERO));
    }
    let stream = managers[1].delivered(20);
    let asked = group.daemons[1].peer_address.clone();
    let n4 = group.configure_joiner("n4", &[&asked]);
    group.daemons[n4].start();
    group.daemons[n4].wait_until("n4 is a member", |daemon| daemon.role_of("n4").is_some());
    assert_eq!(group.daemons[0].role_of("n4").as_deref(), Some("learner"));
    let mut joined = attach(&group.daemons[n4], 4, 0);
    assert_eq!(order(&joined.delivered(20)), order(&stream));
    progress(&mut joined, 20);
    wait_for_vote(&group.daemons[0], "n4");
    let member = group.daemons[2].members().pop().unwrap();
    assert_eq!((member.0.as_str(), member.3), ("n4", 3));
    // Three of four are a majority, whoever led.
    group.daemons[0].kill();
    joined.wait_for_status(|status| status.quorum);
    joined.submit(&writeset(100, Position::ZERO));
    assert_eq!(joined.next_delivered().position, Position(21));
    // It is a member by its log now, not by its configuration.
    group.daemons[n4].kill();
    group.daemons[n4].start();
    Manager::attach(&group.daemons[n4].socket, Incarnation(5), Position(21));
}

#[test]
fn a_member_that_is_evicted_hears_it_and_serves_nobody() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    let (status, text) = group.daemons[0].gcs(&["evict", "n3"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("member \"n3\" is running") && text.contains("gcs evict n3 --force"), "{text}");
    let (status, text) = group.daemons[0].gcs(&["evict", "n9"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("has no member \"n9\"") && text.contains("\"n1\", \"n2\", \"n3\""), "{text}");
    let (status, text) = group.daemons[0].gcs(&["evict", "n3", "--force"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(managers[2].link.failure(), FailureKind::Removed);
    let mut again = Link::hello(&group.daemons[2].socket, Role::Manager, Incarnation(9), Some("g"));
    assert_eq!(again.failure(), FailureKind::Removed);
    assert_eq!(names(&group.daemons[0]), ["n1", "n2"]);
    managers[0].submit(&writeset(1, Position::ZERO));
    assert_eq!(managers[1].next_delivered().position, Position(1));
    // It hears it again when it is started again.
    group.daemons[2].kill();
    group.daemons[2].start();
    group.daemons[2].wait_for_log("node \"n3\" was removed from group \"g\"");
}

#[test]
fn a_member_that_comes_with_an_empty_directory_is_not_let_in_until_it_joins_anew() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    managers[0].submit(&writeset(1, Position::ZERO));
    let stream = managers[0].delivered(1);
    group.daemons[2].kill();
    std::fs::remove_dir_all(group.daemons[2].data_directory()).unwrap();
    group.daemons[2].start();
    group.daemons[2].wait_for_log("the data directory of \"n3\" is not the one that the group knows");
    group.daemons[2].kill();
    let (status, text) = group.daemons[0].gcs(&["evict", "n3"]);
    assert_eq!(status, Some(0), "{text}");

    std::fs::remove_dir_all(group.daemons[2].data_directory()).unwrap();
    let (own, join) = (group.daemons[2].peer_address.clone(), group.daemons[0].peer_address.clone());
    std::fs::write(&group.daemons[2].config, joining("n3", "g", &own, &[&join])).unwrap();
    group.daemons[2].start();
    let mut back = attach(&group.daemons[2], 33, 0);
    assert_eq!(order(&back.delivered(1)), order(&stream));
    progress(&mut back, 1);
    wait_for_vote(&group.daemons[0], "n3");
    assert_eq!(group.daemons[0].members()[2].3, 2, "its ordinal was free again");
    managers[1].submit(&writeset(2, Position::ZERO));
    assert_eq!(back.next_delivered().position, Position(2));
}

#[test]
fn a_group_goes_down_to_one_and_up_to_three_again() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    for manager in &mut managers {
        manager.next_delivered();
    }
    progress(&mut managers[0], 1);
    for gone in ["n2", "n3"] {
        let at = if gone == "n2" { 1 } else { 2 };
        let (status, text) = group.daemons[at].gcs(&["leave"]);
        assert_eq!(status, Some(0), "{text}");
        group.daemons[at].kill();
        std::fs::remove_dir_all(group.daemons[at].data_directory()).unwrap();
    }
    group.daemons[0].wait_until("n1 is alone", |daemon| names(daemon) == ["n1"]);
    managers[0].wait_for_status(|status| status.quorum && status.members.len() == 1);
    managers[0].submit(&writeset(2, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(2));
    let (status, text) = group.daemons[0].gcs(&["leave"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("it is the only member that votes"), "{text}");

    let join = group.daemons[0].peer_address.clone();
    for (at, name) in [(1, "n2"), (2, "n3")] {
        let own = group.daemons[at].peer_address.clone();
        std::fs::write(&group.daemons[at].config, joining(name, "g", &own, &[&join])).unwrap();
        group.daemons[at].start();
        // With a copy of what the other has, which is all that the log still reaches back to.
        let back = attach(&group.daemons[at], 20 + at as u64, 2);
        wait_for_vote(&group.daemons[0], name);
        managers[at] = back;
    }
    group.daemons[0].kill();
    managers[1].wait_for_status(|status| {
        let leads = status.members.iter().find(|member| Some(member.node) == status.leader);
        status.quorum && leads.is_some_and(|leader| leader.name != "n1")
    });
    managers[1].submit(&writeset(3, Position::ZERO));
    assert_eq!(managers[2].next_delivered().position, Position(3));
}

#[test]
fn a_leader_leaves_and_another_leads() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    let (status, text) = group.daemons[1].gcs(&["lead", "n1"]);
    assert_eq!((status, text.as_str()), (Some(0), "member \"n1\" leads\n"));
    let (status, text) = group.daemons[0].gcs(&["leave"]);
    assert_eq!(status, Some(0), "{text}");
    assert_eq!(managers[0].link.failure(), FailureKind::Removed);
    managers[1].wait_for_status(|status| status.quorum && status.members.len() == 2);
    managers[1].submit(&writeset(1, Position::ZERO));
    assert_eq!(managers[2].next_delivered().position, Position(1));
    let (status, text) = group.daemons[1].gcs(&["lead", "n1"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("has no member \"n1\""), "{text}");
}

#[test]
fn a_member_that_moves_is_found_at_its_new_address() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    group.daemons[2].kill();
    let moved = free_addresses(1).remove(0);
    let config = std::fs::read_to_string(&group.daemons[2].config).unwrap();
    std::fs::write(&group.daemons[2].config, config.replace(&group.daemons[2].peer_address, &moved)).unwrap();
    group.daemons[2].start();
    group.daemons[0].wait_until("it has moved", |daemon| daemon.gcs(&["members"]).1.contains(&moved));
    managers[2].reattach(&group.daemons[2].socket);
    managers[2].submit(&writeset(1, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(1));
    let (_, text) = group.daemons[0].gcs(&["members"]);
    assert!(text.contains(&moved), "{text}");
    // The others' files still say otherwise. They are told once what counts.
    group.daemons[0].kill();
    group.daemons[0].start();
    group.daemons[0].wait_for_log(&format!("\"n3\" is at {moved}, not at {}", group.daemons[2].peer_address));
    managers[0].reattach(&group.daemons[0].socket);
    managers[2].submit(&writeset(2, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(2));
}

#[test]
fn a_whole_group_moves_while_it_is_down() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[0].next_delivered();
    let moved = free_addresses(3);
    let old: Vec<_> = group.daemons.iter().map(|daemon| daemon.peer_address.clone()).collect();
    for daemon in &mut group.daemons {
        daemon.kill();
        let mut config = std::fs::read_to_string(&daemon.config).unwrap();
        for (old, new) in old.iter().zip(&moved) {
            config = config.replace(old, new);
        }
        std::fs::write(&daemon.config, config).unwrap();
    }
    for daemon in &mut group.daemons {
        daemon.start();
    }
    managers[0].reattach(&group.daemons[0].socket);
    group.daemons[1].wait_until("all addresses are known", |daemon| {
        let text = daemon.gcs(&["members"]).1;
        moved.iter().all(|address| text.contains(address))
    });
    managers[0].submit(&writeset(2, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(2));
}

#[test]
fn everything_is_killed_in_the_middle_of_a_replacement_which_is_then_finished() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[0].next_delivered();
    let join = group.daemons[0].peer_address.clone();
    let n4 = group.configure_joiner("n4", &[&join]);
    group.daemons[n4].start();
    let mut joined = attach(&group.daemons[n4], 4, 0);
    let asking = std::process::Command::new(env!("CARGO_BIN_EXE_gcs"))
        .args(["replace", "n3", "--with", "n4", "--config"])
        .arg(&group.daemons[0].config)
        .stderr(std::process::Stdio::null())
        .spawn();
    joined.next_delivered();
    progress(&mut joined, 1);
    for daemon in &mut group.daemons {
        daemon.kill();
    }
    asking.unwrap().wait().unwrap();
    for daemon in &mut group.daemons {
        daemon.start();
    }
    managers[0].reattach(&group.daemons[0].socket);
    let mut joined = attach(&group.daemons[n4], 5, 1);
    if group.daemons[0].role_of("n3").is_some() {
        let (status, text) = group.daemons[0].gcs(&["replace", "n3", "--with", "n4"]);
        assert_eq!(status, Some(0), "{text}");
    }
    wait_for_vote(&group.daemons[0], "n4");
    assert_eq!(names(&group.daemons[0]), ["n1", "n2", "n4"]);
    managers[0].submit(&writeset(2, Position::ZERO));
    assert_eq!(joined.next_delivered().position, Position(2));
}

#[test]
fn a_clone_of_a_node_is_not_let_in_beside_it() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    let original = &group.daemons[2];
    let copy = group.directory.path().join("clone");
    std::fs::create_dir(&copy).unwrap();
    let status = std::process::Command::new("cp").arg("-r").args([&original.data_directory(), &copy]).status().unwrap();
    assert!(status.success());
    let elsewhere = free_addresses(1).remove(0);
    let config = std::fs::read_to_string(&original.config).unwrap().replace(&original.peer_address, &elsewhere);
    std::fs::write(copy.join("n3.toml"), config).unwrap();
    let clone = group.configure_joiner("clone", &[]);
    group.daemons[clone].config = copy.join("n3.toml");
    group.daemons[clone].start();
    group.daemons[clone].wait_for_log("another daemon is connected as \"n3\"");
    managers[2].submit(&writeset(1, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(1));
}

#[test]
fn whoever_cannot_join_is_told_why_by_name() {
    let mut group = Group::start(3);
    wait_for_claims(&group);
    let join = group.daemons[0].peer_address.clone();
    let n4 = group.configure_joiner("n4", &[&join]);
    let (config, own) = (group.daemons[n4].config.clone(), group.daemons[n4].peer_address.clone());
    let taken = group.daemons[1].peer_address.clone();
    let cases = [
        (joining("n2", "g", &own, &[&join]), "\"n2\" is a member of the group, and is running at"),
        (joining("n4", "other", &own, &[&join]), "is in group \"g\", not \"other\""),
        (joining("n4", "g", &own, &[&join]).replace(&own, &taken), "another member has that address"),
    ];
    for (text, expected) in cases {
        // Another directory each time: a directory that was refused under one name is not another's.
        let text = text.replace("data_directory = \"n", "data_directory = \"refused-n");
        let text = text.replace("local_socket = \"n", "local_socket = \"refused-n");
        std::fs::write(&config, text).unwrap();
        let (status, said) = Daemon::run_to_end(&config);
        assert_eq!(status, Some(2), "{said}");
        assert!(said.contains(expected), "{said}");
        for name in ["n2", "n4"] {
            let _ = std::fs::remove_dir_all(group.directory.path().join(format!("refused-{name}")));
        }
    }
    group.daemons[2].kill();
    group.daemons[0].wait_until("n3 is away", |daemon| daemon.members()[2].2 == "unreachable");
    std::fs::write(&config, joining("n3", "g", &own, &[&join]).replace("= \"n3\"\nlocal", "= \"refused-n3\"\nlocal"))
        .unwrap();
    let (status, said) = Daemon::run_to_end(&config);
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("gcs evict n3"), "{said}");
    assert_eq!(names(&group.daemons[0]), ["n1", "n2", "n3"]);
}

#[test]
fn a_change_without_a_majority_says_so() {
    let mut group = Group::start(2);
    let mut managers = group.attach_all();
    group.daemons[1].kill();
    managers[0].wait_for_status(|status| !status.quorum);
    let (status, text) = group.daemons[0].gcs(&["evict", "n2"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("the group did not do it in time") && text.contains("majority"), "{text}");
    let (status, text) = group.daemons[1].gcs(&["members"]);
    assert_eq!(status, Some(1));
    assert!(text.contains("could not reach gcs"), "{text}");
    // It was only too late: with a majority it would have been done.
    group.daemons[1].start();
    managers[0].wait_for_status(|status| status.quorum);
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[0].wait_for(|reply| matches!(reply, Reply::Ordered { .. }).then_some(()));
}

/// Ends daemons and starts again none.
fn kill(group: &mut Group, which: &[usize]) {
    which.iter().for_each(|at| group.daemons[*at].kill());
}

#[test]
fn two_of_three_are_destroyed_and_the_third_goes_on_with_all_that_was_acknowledged_there() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    for key in 0..5 {
        managers[0].submit(&writeset(key, Position::ZERO));
        managers[1].submit(&writeset(100 + key, Position::ZERO));
    }
    let acknowledged = order(&managers[0].delivered(10));
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("is in use by another daemon") && text.contains("hint: Stop gcs"), "{text}");

    kill(&mut group, &[1, 2]);
    std::fs::remove_dir_all(group.daemons[2].data_directory()).unwrap();
    managers[0].wait_for_status(|status| !status.quorum);
    kill(&mut group, &[0]);
    let (status, said) = group.daemons[0].gcs(&["recover"]);
    assert_eq!(status, Some(3), "{said}");
    for expected in
        ["log ends at", "last written", "shop             position 10,", "  n2 ", "  n3 ", "may be lost", "Nothing was done"]
    {
        assert!(said.contains(expected), "no \"{expected}\": {said}");
    }
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(0), "{text}");
    let end = said.lines().find(|line| line.contains("log ends at")).unwrap();
    assert!(text.contains(end) && text.contains("is the only member of group \"g\" now"), "{text}");
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("is a majority by itself"), "{text}");

    group.daemons[0].start();
    managers[0] = Manager::attach(&group.daemons[0].socket, Incarnation(11), Position::ZERO);
    assert_eq!(order(&managers[0].delivered(10)), acknowledged);
    assert_eq!(names(&group.daemons[0]), ["n1"]);
    progress(&mut managers[0], 10);
    managers[0].submit(&writeset(1_000, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(11));

    // One of the lost comes back with what it had.
    group.daemons[1].start();
    group.daemons[1].wait_for_log("node \"n2\" was removed from group \"g\": it serves nobody any more");
    let mut refused = Link::hello(&group.daemons[1].socket, Role::Manager, Incarnation(9), Some("g"));
    assert_eq!(refused.failure(), FailureKind::Removed);
    kill(&mut group, &[1]);
    let (status, text) = group.daemons[1].gcs(&["recover"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("node \"n2\" was removed from group \"g\""), "{text}");

    // The other's name joins again, and so does a new one.
    let (own, join) = (group.daemons[2].peer_address.clone(), group.daemons[0].peer_address.clone());
    std::fs::write(&group.daemons[2].config, joining("n3", "g", &own, &[&join])).unwrap();
    let n4 = group.configure_joiner("n4", &[&join]);
    for (at, name) in [(2, "n3"), (n4, "n4")] {
        group.daemons[at].start();
        let back = attach(&group.daemons[at], 30 + at as u64, 11);
        wait_for_vote(&group.daemons[0], name);
        managers.truncate(at);
        managers.push(back);
    }
    assert_eq!(names(&group.daemons[n4]), ["n1", "n3", "n4"]);
    kill(&mut group, &[0]);
    managers[n4].wait_for_status(|status| {
        let leads = status.members.iter().find(|member| Some(member.node) == status.leader);
        status.quorum && leads.is_some_and(|leader| leader.name != "n1")
    });
    managers[n4].submit(&writeset(2_000, Position::ZERO));
    assert_eq!([n4, 2].map(|at| managers[at].next_delivered().position), [Position(12); 2]);
}

/// Whoever has heard that it is gone votes for nobody, also after a restart, and with nobody there to say so again.
#[test]
fn members_of_an_ended_epoch_are_no_majority_once_one_of_them_has_been_told() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[0].next_delivered();
    kill(&mut group, &[0, 1, 2]);
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(0), "{text}");
    group.daemons[0].start();
    group.daemons[1].start();
    group.daemons[1].wait_for_log("node \"n2\" was removed from group \"g\": it serves nobody any more");
    kill(&mut group, &[0, 1]);
    for at in [1, 2] {
        group.daemons[at].start();
    }
    group.daemons[2].wait_for_log("refused: node \"n2\" was removed from group \"g\"");
    let (status, text) = group.daemons[2].gcs(&["status", "--json"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("\"quorum\":false"), "{text}");
    // It is told as soon as the one that went on is there.
    group.daemons[0].start();
    group.daemons[2].wait_for_log("node \"n3\" was removed from group \"g\"");
}

/// Else it would be let in as one that knows more, and a leader among such would have its log taken for the group's.
#[test]
fn a_member_of_the_ended_epoch_that_the_survivor_never_heard_of_is_refused_too() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    wait_for_claims(&group);
    kill(&mut group, &[0]);
    let join = group.daemons[1].peer_address.clone();
    let n4 = group.configure_joiner("n4", &[&join]);
    group.daemons[n4].start();
    let mut joined = attach(&group.daemons[n4], 4, 0);
    wait_for_vote(&group.daemons[1], "n4");
    managers[1].submit(&writeset(1, Position::ZERO));
    assert_eq!(joined.next_delivered().position, Position(1));
    kill(&mut group, &[1, 2, n4]);
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("shop             position 0,") && !text.contains("n4"), "{text}");
    for at in [0, n4] {
        group.daemons[at].start();
    }
    group.daemons[n4].wait_for_log("node \"n4\" was removed from group \"g\": it serves nobody any more");
    assert_eq!(names(&group.daemons[0]), ["n1"]);
    // It joins as another.
    let own = group.daemons[n4].peer_address.clone();
    kill(&mut group, &[n4]);
    std::fs::remove_dir_all(group.daemons[n4].data_directory()).unwrap();
    std::fs::write(&group.daemons[n4].config, joining("n4", "g", &own, &[&group.daemons[0].peer_address])).unwrap();
    group.daemons[n4].start();
    attach(&group.daemons[n4], 5, 0);
    wait_for_vote(&group.daemons[0], "n4");
}

#[test]
fn there_is_nothing_to_recover_in_an_empty_directory_nor_in_anothers_nor_alone() {
    let mut group = Group::configure(1);
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("holds nothing of a group"), "{text}");
    assert!(!group.daemons[0].data_directory().exists(), "looking made the directory");
    group.daemons[0].start();
    Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
    kill(&mut group, &[0]);
    let (status, text) = group.daemons[0].gcs(&["recover"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("node \"n1\" is a majority by itself"), "{text}");
    let config = std::fs::read_to_string(&group.daemons[0].config).unwrap();
    std::fs::write(&group.daemons[0].config, config.replace("name = \"n1\"", "name = \"n2\"")).unwrap();
    let (status, text) = group.daemons[0].gcs(&["recover", "--accept-loss"]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.contains("belongs to \"node n1\""), "{text}");
}
