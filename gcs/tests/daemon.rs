//! Three real daemons and a PostgreSQL that only speaks the link.

mod support;

use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gcs_writeset::link::{AbortCause, FailureKind, MemberState, RefusalReason, Reply, Request, Role, Verdict};
use gcs_writeset::{Incarnation, Position, Sequence, SlotId};

use support::{Daemon, Delivered, Fetcher, Group, Link, Manager, order, writeset, writeset_with};

#[test]
fn every_node_delivers_the_same_stream() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    const EACH: u64 = 50;
    for i in 0..EACH {
        for (node, manager) in managers.iter_mut().enumerate() {
            manager.submit(&writeset(node as u64 * 1000 + i, Position::ZERO));
        }
    }
    let streams: Vec<_> = managers.iter_mut().map(|manager| manager.delivered(3 * EACH as usize)).collect();
    for stream in &streams[1..] {
        assert_eq!(order(stream), order(&streams[0]));
    }
    for (manager, stream) in managers.iter().zip(&streams) {
        for one in stream {
            assert!(matches!(one.verdict, Verdict::Certified { .. }));
            let own = one.tag.incarnation == manager.incarnation;
            assert_eq!(one.payload.is_empty(), own, "a writeset is not sent back to where it came from");
        }
    }
    let remote = streams[0].iter().find(|one| one.tag.incarnation == Incarnation(2)).unwrap();
    assert_eq!(remote.payload, writeset(1000 + remote.tag.sequence.0 - 1, Position::ZERO));
}

#[test]
fn of_two_writers_of_a_row_the_first_wins_on_every_node() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(5, Position::ZERO));
    managers[1].submit(&writeset(5, Position::ZERO));
    let streams: Vec<_> = managers.iter_mut().map(|manager| manager.delivered(2)).collect();
    for stream in &streams {
        assert_eq!(order(stream), order(&streams[0]));
        let Verdict::Aborted(AbortCause::Conflict { winner, .. }) = stream[1].verdict else { panic!("{:?}", stream[1]) };
        assert_eq!(winner, Position(1));
        assert!(stream[1].payload.is_empty(), "what has aborted is not carried");
    }
}

#[test]
fn a_killed_daemon_comes_back_and_its_database_gets_what_it_missed() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    for manager in &mut managers {
        manager.next_delivered();
    }
    group.daemons[2].kill();
    assert!(managers[2].link.receive().is_none());
    for key in 2..300 {
        managers[0].submit(&writeset(key, Position::ZERO));
    }
    let missed = managers[0].delivered(298);

    group.daemons[2].start();
    // Its server has restarted too, and has position 1.
    let mut back = Manager::attach(&group.daemons[2].socket, Incarnation(33), Position(1));
    assert_eq!(back.serve_from, Position(299));
    for key in 300..310 {
        managers[1].submit(&writeset(key, Position::ZERO));
    }
    let live = managers[0].delivered(10);
    let all = back.delivered(308);
    assert_eq!(order(&all), order(&[missed, live].concat()));
    // Not always key 2: what was refused while a leader was elected is ordered behind what was not.
    assert_eq!(all[0].payload, writeset(all[0].tag.sequence.0, Position::ZERO));

    // The log is the same after all of them were killed at once.
    for daemon in &mut group.daemons {
        daemon.kill();
    }
    for daemon in &mut group.daemons {
        daemon.start();
    }
    let mut again = Manager::attach(&group.daemons[2].socket, Incarnation(34), Position(1));
    assert_eq!(again.delivered(308), all);
}

#[test]
fn whoever_is_killed_every_submission_is_ordered_once_and_nothing_acknowledged_is_lost() {
    const BATCH: u64 = 20;
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    let mut streams: Vec<Vec<Delivered>> = vec![Vec::new(); 3];
    for round in 0..9u64 {
        let origin = (round % 3) as usize;
        let submit_all = |manager: &mut Manager| {
            for i in 0..BATCH {
                let bytes = writeset(round * 1000 + i, Position::ZERO);
                manager.submit_for(SlotId(i as u32), Sequence(round + 1), &bytes);
            }
        };
        submit_all(&mut managers[origin]);
        let early = managers[origin].delivered(5);
        streams[origin].extend(early);
        let victims = match round % 4 {
            0 => vec![origin],
            1 => vec![(origin + 1) % 3],
            2 => vec![(origin + 1) % 3, (origin + 2) % 3],
            _ => vec![0, 1, 2],
        };
        for &victim in &victims {
            group.daemons[victim].kill();
        }
        for &victim in &victims {
            group.daemons[victim].start();
        }
        for &victim in &victims {
            managers[victim].reattach(&group.daemons[victim].socket);
        }
        submit_all(&mut managers[origin]);
        let total = ((round + 1) * BATCH) as usize;
        for (manager, stream) in managers.iter_mut().zip(&mut streams) {
            stream.extend(manager.delivered(total - stream.len()));
        }
    }
    for stream in &streams {
        assert_eq!(order(stream), order(&streams[0]));
        let mut tags: Vec<_> = stream.iter().map(|one| one.tag).collect();
        tags.sort();
        tags.dedup();
        assert_eq!(tags.len(), 9 * BATCH as usize, "each once");
    }
}

#[test]
fn a_minority_refuses_within_two_seconds_and_takes_writes_again_with_a_majority() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    managers[0].next_delivered();
    group.daemons[1].kill();
    group.daemons[2].kill();
    let lost = Instant::now();
    managers[0].wait_for_status(|status| !status.quorum);
    let sequence = managers[0].submit(&writeset(2, Position::ZERO));
    let reason = managers[0].wait_for(|reply| match reply {
        Reply::Refused { sequence: refused, reason, .. } if *refused == sequence => Some(*reason),
        _ => None,
    });
    assert_eq!(reason, RefusalReason::NoQuorum);
    assert!(lost.elapsed() < Duration::from_secs(2), "{:?}", lost.elapsed());

    group.daemons[1].start();
    managers[0].wait_for_status(|status| status.quorum);
    managers[0].submit(&writeset(3, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(2));
}

#[test]
fn peers_that_fall_silent_count_as_lost_and_catch_up_when_they_speak_again() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    group.daemons[1].freeze(true);
    group.daemons[2].freeze(true);
    let frozen = Instant::now();
    managers[0].wait_for_status(|status| !status.quorum);
    assert!(frozen.elapsed() < Duration::from_secs(2), "{:?}", frozen.elapsed());
    group.daemons[1].freeze(false);
    group.daemons[2].freeze(false);
    managers[0].wait_for_status(|status| status.quorum);
    managers[0].submit(&writeset(1, Position::ZERO));
    for manager in &mut managers {
        assert_eq!(manager.next_delivered().position, Position(1));
    }
}

#[test]
fn an_attach_and_a_detach_wait_for_a_majority() {
    let mut group = Group::configure(3);
    group.daemons[0].start();
    let mut manager = Manager::greet(&group.daemons[0].socket, Incarnation(1));
    manager
        .link
        .send(&Request::Attach { resume_after: Position::ZERO, founds: false, leaves: false, overwrite: false }, &[]);
    manager.wait_for_status(|status| !status.quorum);
    group.daemons[1].start();
    manager.wait_for(|reply| matches!(reply, Reply::Attached { .. }).then_some(()));

    group.daemons[1].kill();
    manager.wait_for_status(|status| !status.quorum);
    manager.link.send(&Request::Detach, &[]);
    group.daemons[2].start();
    manager.wait_for(|reply| matches!(reply, Reply::Detached).then_some(()));
}

#[test]
fn a_group_of_one_needs_nobody() {
    let group = Group::start(1);
    let mut managers = group.attach_all();
    managers[0].submit(&writeset(1, Position::ZERO));
    assert_eq!(managers[0].next_delivered().position, Position(1));
}

#[test]
fn a_writeset_in_chunks_arrives_whole_and_can_be_fetched() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    let chunks: Vec<Vec<u8>> = (0..5u8).map(|i| vec![i; 1 << 20]).collect();
    let (slot, sequence) = (SlotId(9), Sequence(1));
    for (index, chunk) in chunks.iter().enumerate() {
        managers[0].link.send(&Request::Chunk { slot, sequence, index: index as u32 }, chunk);
    }
    for wanted in 0..chunks.len() as u32 {
        managers[0].wait_for(|reply| match reply {
            Reply::ChunkOrdered { index, .. } if *index == wanted => Some(()),
            _ => None,
        });
    }
    let end = writeset_with(1, Position::ZERO, chunks.len() as u32, b"the end");
    managers[0].link.send(&Request::Submit { slot, sequence }, &end);
    managers[0].submit(&writeset(2, Position::ZERO));
    for (node, manager) in managers.iter_mut().enumerate() {
        let stream = manager.delivered(2);
        assert!(matches!(stream[0].verdict, Verdict::Certified { .. }), "{:?}", stream[0].verdict);
        assert!(stream[1].bodies.is_empty());
        if node == 0 {
            assert!(stream[0].payload.is_empty() && stream[0].bodies.is_empty());
        } else {
            assert!(stream[0].payload == end && stream[0].bodies == chunks);
        }
    }

    let mut fetcher = Fetcher::greet(&group.daemons[0].socket);
    let mut fetched = fetcher.fetch(Position(1));
    assert_eq!(fetched.remove(0), end);
    assert!(fetched == chunks);
}

/// The stream of a manager that reads nothing stands still, in its socket and in the daemon. What the manager fetches must not stand
/// behind the stream: a manager without room for more positions may have none before it has what it fetches.
#[test]
fn a_fetch_is_answered_while_the_stream_stands_still() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    let own = writeset(1_000, Position::ZERO);
    managers[1].submit(&own);
    let first = managers[0].delivered(1);
    // More than the queue of a manager and its socket hold.
    let body = vec![1; 256 << 10];
    for key in 0..60 {
        managers[0].submit(&writeset_with(key, Position::ZERO, 0, &body));
    }
    managers[0].delivered(60);

    let mut fetcher = Fetcher::greet(&group.daemons[1].socket);
    assert_eq!(fetcher.fetch(Position(1)), [own]);
    assert_eq!(fetcher.fetch(Position(40)), [writeset_with(38, Position::ZERO, 0, &body)]);
    let stream = managers[1].delivered(61);
    assert_eq!(order(&stream[..1]), order(&first));
}

#[test]
fn fetches_that_were_asked_together_are_answered_in_their_order() {
    let group = Group::start(1);
    let mut manager = group.attach_all().remove(0);
    let body = vec![1; 128 << 10];
    let writesets: Vec<_> = (0..30).map(|key| writeset_with(key, Position::ZERO, 0, &body)).collect();
    for writeset in &writesets {
        manager.submit(writeset);
    }
    manager.delivered(writesets.len());
    let mut fetcher = Fetcher::greet(&group.daemons[0].socket);
    for position in (1..=30).rev() {
        fetcher.ask(Position(position));
    }
    for position in (1..=30).rev() {
        assert!(fetcher.answer(Position(position)) == [&writesets[position as usize - 1][..]], "{position}");
    }
}

#[test]
fn a_fetch_that_cannot_be_answered_says_why() {
    let mut group = Group::start(1);
    let socket = group.daemons[0].socket.clone();
    let mut early = Fetcher::greet(&socket);
    early.ask(Position(1));
    assert_eq!(early.link.failure(), FailureKind::NotAttached);

    let mut manager = Manager::attach(&socket, Incarnation(1), Position::ZERO);
    manager.submit(&writeset(1, Position::ZERO));
    manager.next_delivered();
    for never_ordered in [Position::ZERO, Position(2)] {
        let mut fetcher = Fetcher::greet(&socket);
        fetcher.ask(never_ordered);
        assert_eq!(fetcher.link.failure(), FailureKind::Protocol);
    }
    let mut fetcher = Fetcher::greet(&socket);
    fetcher.link.send(&Request::Status, &[]);
    assert_eq!(fetcher.link.failure(), FailureKind::Protocol);
    manager.link.send(&Request::Fetch { position: Position(1) }, &[]);
    assert_eq!(manager.link.failure(), FailureKind::Protocol);

    // What was ordered in an earlier life of the daemon can be had once the database has been attached in this one.
    group.daemons[0].kill();
    group.daemons[0].start();
    let mut fetcher = Fetcher::greet(&socket);
    let _manager = Manager::attach(&socket, Incarnation(2), Position(1));
    assert_eq!(fetcher.fetch(Position(1)), [writeset(1, Position::ZERO)]);
}

#[test]
fn a_manager_that_reads_late_still_gets_everything_once() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    // More than its queue and its socket hold, so its stream must fall back to the disk.
    let body = vec![1; 256 << 10];
    for key in 0..60 {
        managers[0].submit(&writeset_with(key, Position::ZERO, 0, &body));
    }
    let first = managers[0].delivered(60);
    let late = managers[1].delivered(60);
    assert_eq!(order(&late), order(&first));
    managers[0].submit(&writeset(100, Position::ZERO));
    assert_eq!(managers[1].next_delivered().position, Position(61));
}

#[test]
fn backends_submit_on_connections_of_their_own() {
    let group = Group::start(3);
    let mut managers = group.attach_all();
    let mut backend = Link::hello(&group.daemons[1].socket, Role::Backend, Incarnation(2), None);
    assert!(matches!(backend.receive(), Some((Reply::Welcome { .. }, _))));
    backend.send(&Request::Submit { slot: SlotId(1), sequence: Sequence(1) }, &writeset(1, Position::ZERO));
    let delivered = managers[1].next_delivered();
    assert_eq!((delivered.tag.slot, delivered.tag.incarnation), (SlotId(1), Incarnation(2)));
    // Answers go to the manager: one of a life that is over hears nothing, and the manager neither.
    let mut old = Link::hello(&group.daemons[1].socket, Role::Backend, Incarnation(99), None);
    old.send(&Request::Submit { slot: SlotId(1), sequence: Sequence(5) }, &writeset(2, Position::ZERO));
    backend.send(&Request::Submit { slot: SlotId(1), sequence: Sequence(2) }, &writeset(3, Position::ZERO));
    assert_eq!(managers[1].next_delivered().tag.sequence, Sequence(2));
}

#[test]
fn wrong_callers_are_told_why() {
    let group = Group::start(3);
    let socket = &group.daemons[0].socket;
    let wrong = |group| Link::hello(socket, Role::Manager, Incarnation(1), Some(group)).failure();
    assert_eq!(wrong("other"), FailureKind::WrongGroup);

    let first = Manager::attach(socket, Incarnation(1), Position::ZERO);
    let mut second = Link::hello(socket, Role::Manager, Incarnation(2), Some("g"));
    assert_eq!(second.failure(), FailureKind::AlreadyAttached);
    // One that has gone leaves its place, at once.
    drop(first);
    let third = Manager::attach(socket, Incarnation(2), Position::ZERO);
    drop(third);

    let mut ahead = Manager::greet(socket, Incarnation(3));
    ahead.link.send(&Request::Attach { resume_after: Position(77), founds: false, leaves: false, overwrite: false }, &[]);
    assert_eq!(ahead.link.failure(), FailureKind::AheadOfGroup);

    let mut rude = Link::connect(socket);
    rude.send(&Request::Status, &[]);
    assert_eq!(rude.failure(), FailureKind::Protocol);
}

#[test]
fn a_database_is_overwritten_by_contents_that_the_group_has_and_let_go_if_it_has_none() {
    let group = Group::start(2);
    let ask = |incarnation| {
        let mut link = Link::hello(&group.daemons[1].socket, Role::Manager, Incarnation(incarnation), Some("g"));
        link.send(&Request::Attach { resume_after: Position::ZERO, founds: false, leaves: false, overwrite: true }, &[]);
        link.failure()
    };
    assert_eq!(ask(1), FailureKind::NoContents);
    // Only where no other node has the database can one bring contents.
    let mut first = Manager::greet(&group.daemons[0].socket, Incarnation(2));
    first.link.send(&Request::Attach { resume_after: Position(1), founds: true, leaves: false, overwrite: false }, &[]);
    first.wait_for(|reply| matches!(reply, Reply::Attached { .. }).then_some(()));
    // It would be copied, but there is no server to copy into.
    assert_eq!(ask(3), FailureKind::LogTruncated);
}

#[test]
fn a_database_is_not_attached_before_it_is_known_that_the_log_reaches_back_to_it() {
    let group = Group::start(2);
    let mut first = Manager::greet(&group.daemons[0].socket, Incarnation(1));
    // It brings contents, which are in no log.
    first.link.send(&Request::Attach { resume_after: Position(1), founds: true, leaves: false, overwrite: false }, &[]);
    first.wait_for(|reply| matches!(reply, Reply::Attached { .. }).then_some(()));
    let mut second = Link::hello(&group.daemons[1].socket, Role::Manager, Incarnation(2), Some("g"));
    second.send(&Request::Attach { resume_after: Position::ZERO, founds: false, leaves: false, overwrite: false }, &[]);
    loop {
        match second.receive() {
            // There is no server to copy into.
            Some((Reply::Failed(failure), _)) => return assert_eq!(failure.kind, FailureKind::LogTruncated),
            Some((reply, _)) => assert!(!matches!(reply, Reply::Attached { .. }), "it was let in, then sent away"),
            None => panic!("the connection ended without a failure"),
        }
    }
}

#[test]
fn garbage_is_dropped_and_logged_and_hurts_nobody() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    let garbage: Vec<u8> = (0..5000u32).map(|i| (i * 31 % 251) as u8).collect();
    for daemon in &group.daemons {
        let mut peer = TcpStream::connect(&daemon.peer_address).unwrap();
        peer.set_read_timeout(Some(support::PATIENCE)).unwrap();
        let _ = peer.write_all(&garbage);
        let mut local = Link::connect(&daemon.socket);
        local.send_raw(&[255; 64]);
        assert_eq!(local.failure(), FailureKind::Protocol);
        // It is closed by the other side.
        let _ = std::io::Read::read(&mut peer, &mut [0; 16]);
    }
    managers[2].submit(&writeset(1, Position::ZERO));
    for (daemon, manager) in group.daemons.iter_mut().zip(&mut managers) {
        assert_eq!(manager.next_delivered().position, Position(1));
        assert!(daemon.is_running());
        let log = daemon.log_text();
        assert!(
            log.contains("connection dropped before its handshake") && log.contains("local connection dropped"),
            "{log}"
        );
    }
}

/// What load balancers and port checks do every second.
#[test]
fn a_caller_that_says_nothing_is_not_worth_a_warning() {
    let group = Group::start(1);
    let _managers = group.attach_all();
    let daemon = &group.daemons[0];
    for _ in 0..3 {
        drop(TcpStream::connect(&daemon.peer_address).unwrap());
        drop(std::os::unix::net::UnixStream::connect(&daemon.socket).unwrap());
    }
    let deadline = Instant::now() + support::PATIENCE;
    while daemon.log_text().matches("connection ended before its handshake").count() < 3 {
        assert!(Instant::now() < deadline, "{}", daemon.log_text());
        std::thread::yield_now();
    }
    assert!(!daemon.log_text().contains("WARN"), "{}", daemon.log_text());
}

#[test]
fn sigterm_says_goodbye_and_ends_with_status_0() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    let status = group.daemons[0].terminate();
    assert_eq!(status.code(), Some(0));
    assert_eq!(managers[0].link.failure(), FailureKind::ShuttingDown);
    assert!(!group.daemons[0].socket.exists());
    group.daemons[0].start();
    Manager::attach(&group.daemons[0].socket, Incarnation(9), Position::ZERO);
}

/// Its file is on a disk that is full.
#[test]
fn a_log_that_cannot_be_written_ends_no_daemon() {
    let mut group = Group::configure(1);
    let daemon = &mut group.daemons[0];
    daemon.log = "/dev/full".into();
    daemon.start();
    let mut manager = Manager::attach(&daemon.socket, Incarnation(1), Position::ZERO);
    manager.submit(&writeset(1, Position::ZERO));
    assert_eq!(manager.next_delivered().position, Position(1));
    // Another one for the same directory cannot start, and its status says so.
    let mut second = Daemon::new(daemon.config.clone(), daemon.socket.clone(), daemon.log.clone(), String::new());
    second.start();
    assert_eq!(second.wait().code(), Some(2));
    assert_eq!(daemon.terminate().code(), Some(0));
}

#[test]
fn status_says_how_the_group_is() {
    let mut group = Group::start(3);
    let mut managers = group.attach_all();
    group.daemons[2].kill();
    managers[0].wait_for_status(|status| status.quorum && status.members[2].state == MemberState::Unreachable);
    let ask = |json: bool, config: &Path| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcs"));
        command.args(["status", "--config"]).arg(config).args(json.then_some("--json"));
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap())
    };
    let (code, json) = ask(true, &group.daemons[0].config);
    let status: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((code, &status["quorum"]), (Some(0), &serde_json::Value::Bool(true)));
    assert_eq!(
        (status["members"][0]["name"].as_str(), status["members"][0]["state"].as_str()),
        (Some("n1"), Some("online"))
    );
    assert_eq!(status["members"][2]["state"].as_str(), Some("unreachable"));
    let (code, table) = ask(false, &group.daemons[1].config);
    assert!(code == Some(0) && table.starts_with("quorum yes, leader n"), "{table}");
    let (code, error) = ask(false, &group.daemons[2].config);
    assert!(code == Some(1) && error.starts_with("gcs: error: could not reach gcs"), "{error}");
}

#[test]
fn a_start_that_cannot_work_is_one_line_and_status_2() {
    let mut group = Group::configure(2);
    let good = std::fs::read_to_string(&group.daemons[0].config).unwrap();
    let path = group.directory.path().join("bad.toml");
    let attempt = |config: &str| {
        std::fs::write(&path, config).unwrap();
        let (status, stderr) = Daemon::run_to_end(&path);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.starts_with("gcs: error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
        stderr
    };
    assert!(attempt(&good.replace("local_socket", "local_sockt")).contains("did you mean \"local_socket\"?"));
    std::fs::write(group.directory.path().join("file"), "").unwrap();
    let unusable = attempt(&good.replace("\"n1\"\nlocal", "\"file/data\"\nlocal"));
    assert!(unusable.contains("could not create directory"), "{unusable}");
    let missing = Daemon::run_to_end(&group.directory.path().join("none.toml"));
    assert!(missing.0 == Some(2) && missing.1.contains("could not read configuration file"), "{missing:?}");

    let taken = TcpListener::bind(&group.daemons[0].peer_address).unwrap();
    let port = attempt(&good);
    assert!(port.contains("could not listen for peers") && port.contains("in use"), "{port}");
    drop(taken);

    group.daemons[0].start();
    Link::connect(&group.daemons[0].socket);
    assert!(attempt(&good).contains("in use by another daemon"));
    group.daemons[0].kill();
    let other = attempt(&good.replace("group = \"g\"", "group = \"h\""));
    assert!(other.contains("belongs to \"group g\""), "{other}");
    let nobody = attempt(&format!("local_users = [\"no-such-user\"]\n{good}"));
    assert!(nobody.contains("does not exist"), "{nobody}");
}

#[test]
fn a_peer_of_another_group_is_refused_and_told_what_to_do() {
    let mut group = Group::configure(3);
    let config = &group.daemons[2].config;
    let text = std::fs::read_to_string(config).unwrap();
    std::fs::write(config, text.replace("group = \"g\"", "group = \"h\"")).unwrap();
    for daemon in &mut group.daemons {
        daemon.start();
    }
    let mut manager = Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
    manager.submit(&writeset(1, Position::ZERO));
    manager.next_delivered();
    // The stranger hears it on its own side, where the mistake is.
    let deadline = Instant::now() + support::PATIENCE;
    while !group.daemons[2].log_text().contains("is in group \"g\", not \"h\"") {
        assert!(Instant::now() < deadline, "{}", group.daemons[2].log_text());
        std::thread::yield_now();
    }
}

/// The reader and the writer of a broken connection meet its end in any order; the place is free after either.
#[test]
fn a_manager_that_is_cut_off_under_load_leaves_its_place_every_time() {
    let group = Group::start(3);
    let mut writer = Manager::attach(&group.daemons[1].socket, Incarnation(1), Position::ZERO);
    for round in 0..20 {
        let cut_off = Manager::attach(&group.daemons[0].socket, Incarnation(100 + round), Position::ZERO);
        for key in 0..50 {
            writer.submit(&writeset(round * 50 + key, Position::ZERO));
        }
        drop(cut_off);
        writer.delivered(50);
    }
}
