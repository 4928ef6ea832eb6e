//! Each rule on facts that are good but for one thing.

use std::path::PathBuf;

use super::all;
use crate::doctor::facts::{Asked, Certificate, Daemon, Disk, Facts, Failure, Here, Holder, Open, Postgresql, Room, Slot};
use crate::doctor::finding::{Finding, Severity, worst};
use crate::examined::{Database, Examination, Member, Strangers};
use crate::tls::Moment;
use crate::verified::{Unequal, Verification};

const NOW: Moment = Moment { unix_seconds: 1_800_000_000 };
const DAY: i64 = 86_400;

fn member(name: &str) -> Member {
    Member {
        name: name.to_owned(),
        address: format!("{name}:7100"),
        role: "voter".to_owned(),
        state: "online".to_owned(),
        is_self: name == "n1",
        is_connected: true,
        version: Some("0.1.0".to_owned()),
        clock_ahead_ms: Some(3),
        ..Member::default()
    }
}

fn examination() -> Examination {
    let (name, service) = ("shop".to_owned(), "serving".to_owned());
    Examination {
        version: "0.1.0".to_owned(),
        group: "g".to_owned(),
        node: "n1".to_owned(),
        quorum: true,
        leader: Some("n2".to_owned()),
        members: ["n1", "n2", "n3"].map(member).to_vec(),
        databases: vec![Database { name, service, ordered: 9, received: 9, applied: 9, cannot_apply: None }],
        ..Examination::default()
    }
}

fn asked() -> Asked {
    Asked {
        shared_preload_libraries: "pg_stat_statements, postgres_r".to_owned(),
        gcs_socket: Some(PathBuf::from("/nowhere/gcs.sock")),
        extension: Some("0.1.0".to_owned()),
        extensions: vec![("shop".to_owned(), "0.1.0".to_owned())],
        connections: 10,
        max_connections: 100,
        ..Asked::default()
    }
}

fn good() -> Facts {
    let (what, path) = ("the log of gcs", PathBuf::from("/data"));
    let certificate = |days: i64| Certificate {
        name: "n1".to_owned(),
        is_authority: false,
        expires: Moment::new(NOW.unix_seconds + days * DAY),
    };
    Facts {
        now: NOW,
        here: Here {
            config_file: "/etc/gcs.toml".to_owned(),
            node: "n1".to_owned(),
            group: "g".to_owned(),
            socket: PathBuf::from("/nowhere/gcs.sock"),
            has_databases: true,
            version: "0.1.0".to_owned(),
        },
        daemon: Daemon::Answers(Box::new(examination())),
        certificates: Ok(vec![certificate(100)]),
        disks: vec![Disk { what, path, room: Ok(Room { bytes_free: 50, bytes_total: 100 }) }],
        postgresql: Postgresql::Answers(Box::new(asked())),
        verifications: Vec::new(),
    }
}

/// What is found beyond "ok", as severity, name, subject.
fn found(facts: &Facts) -> Vec<(Severity, &'static str, String)> {
    let bad = all(facts).into_iter().filter(|finding| finding.severity != Severity::Ok);
    bad.map(|Finding { severity, name, subject, .. }| (severity, name, subject)).collect()
}

fn with_group(change: impl FnOnce(&mut Examination)) -> Facts {
    let mut examination = examination();
    change(&mut examination);
    Facts { daemon: Daemon::Answers(Box::new(examination)), ..good() }
}

fn with_server(change: impl FnOnce(&mut Asked)) -> Facts {
    let mut asked = asked();
    change(&mut asked);
    Facts { postgresql: Postgresql::Answers(Box::new(asked)), ..good() }
}

fn one(facts: &Facts, severity: Severity, name: &str, subject: &str) {
    let found = found(facts);
    assert!(matches!(&found[..], [(s, n, about)] if (*s, *n, about.as_str()) == (severity, name, subject)), "{found:?}");
    let all = all(facts);
    assert!(all[0].remedy.as_ref().is_some_and(|remedy| !remedy.is_empty()), "{:?}", all[0]);
}

use Severity::{Critical, Unknown, Warning};

#[test]
fn of_a_healthy_node_every_rule_says_ok() {
    assert_eq!(found(&good()), []);
    assert_eq!(worst(&all(&good())), Severity::Ok);
    let names: std::collections::BTreeSet<_> = all(&good()).iter().map(|finding| finding.name).collect();
    assert_eq!(names.len(), 16, "one name a rule");
    let witness = Facts { here: Here { has_databases: false, ..good().here }, postgresql: Postgresql::Nowhere, ..good() };
    assert_eq!(found(&witness), []);
}

#[test]
fn a_daemon_that_is_down_is_named_and_what_only_it_knows_is_unknown() {
    let (why, process) = ("no such file".to_owned(), None);
    let down = Facts { daemon: Daemon::Silent { why: why.clone(), process }, ..good() };
    let said = found(&down);
    assert_eq!(said[0], (Critical, "daemon", "n1".to_owned()));
    assert!(said[1..].iter().all(|(severity, ..)| *severity == Unknown), "{said:?}");
    let hangs = Facts { daemon: Daemon::Hangs { why: why.clone() }, ..good() };
    assert_eq!(found(&hangs)[0], (Critical, "daemon", "n1".to_owned()));
    let refuses = Facts { daemon: Daemon::Refuses { why }, ..good() };
    assert!(found(&refuses).iter().all(|(severity, ..)| *severity == Unknown));
    one(&with_group(|it| it.removed = Some("removed".to_owned())), Critical, "daemon", "n1");
}

#[test]
fn a_socket_that_is_not_the_daemons_is_named() {
    let elsewhere = Facts { daemon: Daemon::Silent { why: "gone".to_owned(), process: Some(7) }, ..good() };
    assert_eq!(found(&elsewhere)[0], (Critical, "socket", "/nowhere/gcs.sock".to_owned()));
    assert!(!found(&elsewhere).iter().any(|(severity, name, _)| (*severity, *name) == (Critical, "daemon")));
    let other = with_group(|it| it.node = "n2".to_owned());
    assert_eq!(found(&other)[0], (Critical, "socket", "/nowhere/gcs.sock".to_owned()));
    let postgres = with_server(|it| it.gcs_socket = Some(PathBuf::from("/run/gcs/gcs.sock")));
    one(&postgres, Critical, "socket", "/nowhere/gcs.sock");
}

#[test]
fn versions_that_differ_are_named_each() {
    one(&with_group(|it| it.members[2].version = Some("0.2.0".to_owned())), Warning, "version", "n3");
    one(&with_server(|it| it.extension = Some("0.0.9".to_owned())), Warning, "version", "n1");
    one(&with_server(|it| it.extensions[0].1 = "0.0.9".to_owned()), Warning, "version", "n1");
    let strangers = |seconds_ago| Some(Strangers { protocol: 10, own: 11, seconds_ago });
    one(&with_group(|it| it.strangers = strangers(3)), Critical, "version", "n1");
    assert_eq!(found(&with_group(|it| it.strangers = strangers(3_600))), []);
    let foreign = Facts { daemon: Daemon::Foreign { why: "protocol".to_owned() }, ..good() };
    assert_eq!(found(&foreign)[0], (Critical, "version", "n1".to_owned()));
    let newer = Facts { here: Here { version: "0.2.0".to_owned(), ..good().here }, ..good() };
    one(&newer, Warning, "version", "n1");
}

#[test]
fn a_disk_is_judged_by_its_part_that_is_free_and_a_large_one_by_its_bytes() {
    let disk = |bytes_free, bytes_total| {
        let mut facts = good();
        facts.disks[0].room = Ok(Room { bytes_free, bytes_total });
        facts
    };
    one(&disk(9, 100), Warning, "disk", "/data");
    one(&disk(2, 100), Critical, "disk", "/data");
    one(&disk(0, 0), Critical, "disk", "/data");
    assert_eq!(found(&disk(200_000_000_000, 100_000_000_000_000)), []);
    let mut facts = good();
    facts.disks[0].room = Err("permission denied".to_owned());
    assert_eq!(found(&facts), [(Unknown, "disk", "/data".to_owned())]);
}

#[test]
fn a_certificate_is_warned_of_two_weeks_before_its_end() {
    let expiring = |seconds: i64| {
        let mut facts = good();
        facts.certificates.as_mut().unwrap()[0].expires = Moment::new(NOW.unix_seconds + seconds);
        facts
    };
    assert_eq!(found(&expiring(14 * DAY)), []);
    one(&expiring(14 * DAY - 1), Warning, "certificate", "certificate n1");
    one(&expiring(0), Critical, "certificate", "certificate n1");
    let unreadable = Facts { certificates: Err("no such file".to_owned()), ..good() };
    one(&unreadable, Critical, "certificate", "n1");
    let expires = NOW.unix_seconds - 1;
    let used = crate::examined::Certificate { name: "n1".to_owned(), is_authority: false, expires };
    one(&with_group(|it| it.certificates.push(used)), Critical, "certificate", "certificate n1");
}

#[test]
fn without_a_majority_or_a_member_the_group_is_not_well() {
    one(&with_group(|it| it.quorum = false), Critical, "majority", "g");
    one(&with_group(|it| it.leader = None), Warning, "majority", "g");
    for state in ["unreachable", "detached", "draining", "copying"] {
        one(&with_group(|it| it.members[1].state = state.to_owned()), Warning, "members", "n2");
    }
    one(&with_group(|it| it.members[1].state = "out of service".to_owned()), Critical, "service", "n2");
}

#[test]
fn who_has_not_shown_what_was_ordered_is_late_however_little_it_lacks() {
    let late = |lag| {
        with_group(|it| {
            (it.members[2].not_shown, it.members[2].lag) = (vec!["shop".to_owned()], lag);
        })
    };
    one(&late(1), Warning, "lag", "n3");
    one(&late(10_000), Critical, "lag", "n3");
    assert_eq!(found(&with_group(|it| it.members[2].lag = 500)), [], "what came after the question is not counted");
}

#[test]
fn the_clock_that_is_off_is_the_one_that_differs_from_most() {
    let clocks = |ahead: [i64; 3]| {
        with_group(|it| {
            for (member, ahead) in it.members.iter_mut().zip(ahead) {
                member.clock_ahead_ms = Some(ahead);
            }
        })
    };
    one(&clocks([0, 5, 61_000]), Warning, "clock", "n3");
    one(&clocks([0, -3_600_000, 2]), Warning, "clock", "n2");
    one(&clocks([0, 3_600_000, 3_600_100]), Warning, "clock", "n1");
    assert_eq!(found(&clocks([0, 59_000, -500])), []);
    let mut unsure = clocks([0, 61_000, 0]);
    if let Daemon::Answers(found) = &mut unsure.daemon {
        found.members[1].clock_error_ms = 2_000;
    }
    assert_eq!(found(&unsure), [], "it may have been the way");
    let of_two = with_group(|it| {
        it.members.pop();
        it.members[1].clock_ahead_ms = Some(90_000);
    });
    one(&of_two, Warning, "clock", "n2");
}

#[test]
fn a_database_that_differs_is_named_by_what_it_could_not_apply_and_by_the_last_verification() {
    one(&with_group(|it| it.databases[0].cannot_apply = Some(7)), Critical, "divergence", "n1");
    let unequal = Unequal { table: "public.t".to_owned(), node: "n3".to_owned(), verdict: "different".to_owned() };
    let (database, first) = ("shop".to_owned(), vec![unequal]);
    let verification = Verification { database, at: NOW.unix_seconds, tables: 3, unequal: 1, first };
    let verified = Facts { verifications: vec![verification.clone()], ..good() };
    one(&verified, Critical, "divergence", "n3");
    assert!(all(&verified)[0].remedy.as_ref().unwrap().contains("gcs repair n3 public.t --database shop"));
    let more = Facts { verifications: vec![Verification { unequal: 4, ..verification }], ..good() };
    assert!(found(&more).iter().all(|(severity, name, _)| (*severity, *name) == (Critical, "divergence")));
    assert_eq!(found(&more).len(), 2);
}

#[test]
fn a_database_that_does_not_serve_is_named_with_its_reason() {
    let mut out = with_group(|it| it.databases[0].service = "out of service".to_owned());
    one(&out, Critical, "service", "n1");
    let (database, sqlstate) = ("shop".to_owned(), "53100".to_owned());
    let failure = Failure { database, position: 9, sqlstate, reason: "no space left".to_owned() };
    out.postgresql = with_server(|it| it.failures.push(failure)).postgresql;
    assert!(all(&out)[0].message.ends_with("position 9: no space left (53100)"), "{:?}", all(&out)[0]);
    one(&with_group(|it| it.databases[0].service = "detached".to_owned()), Warning, "service", "n1");
}

#[test]
fn a_server_that_is_down_or_not_known_or_without_the_extension_is_named() {
    let at = crate::examined::Server::default();
    let down = Facts { postgresql: Postgresql::Silent { at: at.clone(), why: "refused".to_owned() }, ..good() };
    assert_eq!(found(&down)[0], (Critical, "postgresql", "n1".to_owned()));
    let nowhere = Facts { postgresql: Postgresql::Nowhere, ..good() };
    assert_eq!(worst(&all(&nowhere)), Unknown);
    let refuses = Facts { postgresql: Postgresql::Refuses { at, why: "28000".to_owned() }, ..good() };
    assert_eq!(worst(&all(&refuses)), Unknown);
    for libraries in ["", "pg_stat_statements", "postgres_really"] {
        one(&with_server(|it| it.shared_preload_libraries = libraries.to_owned()), Critical, "preload", "n1");
    }
    for libraries in ["postgres_r", "a,\"$libdir/postgres_r.so\"", " postgres_r , b"] {
        assert_eq!(found(&with_server(|it| it.shared_preload_libraries = libraries.to_owned())), []);
    }
}

#[test]
fn too_many_connections_and_those_who_hold_others_up_are_named() {
    one(&with_server(|it| it.connections = 80), Warning, "connections", "n1");
    one(&with_server(|it| it.connections = 97), Critical, "connections", "n1");
    let open = |state: &str, seconds| Open { pid: 7, state: state.to_owned(), seconds, ..Open::default() };
    let holder = |longest_seconds| Holder { session: open("idle in transaction", 9), waiting: 2, longest_seconds };
    one(&with_server(|it| it.holders.push(holder(3))), Warning, "sessions", "session 7");
    one(&with_server(|it| it.holders.push(holder(60))), Critical, "sessions", "session 7");
    assert_eq!(found(&with_server(|it| it.holders.push(holder(1)))), []);
    one(&with_server(|it| it.oldest = Some(open("idle in transaction", 300))), Warning, "sessions", "session 7");
    one(&with_server(|it| it.oldest = Some(open("active", 3_600))), Warning, "sessions", "session 7");
    assert_eq!(found(&with_server(|it| it.oldest = Some(open("active", 300)))), []);
}

#[test]
fn a_slot_that_keeps_wal_for_nobody_is_named() {
    let slot = |is_active, wal_status: &str, wal_bytes| Slot {
        name: "s".to_owned(),
        is_active,
        wal_status: wal_status.to_owned(),
        wal_bytes,
    };
    one(&with_server(|it| it.slots.push(slot(false, "extended", 2_000_000_000))), Warning, "slots", "slot s");
    one(&with_server(|it| it.slots.push(slot(false, "lost", 0))), Warning, "slots", "slot s");
    one(&with_server(|it| it.slots.push(slot(true, "extended", 16_000_000_000))), Warning, "slots", "slot s");
    assert_eq!(found(&with_server(|it| it.slots.push(slot(true, "extended", 2_000_000_000)))), []);
}
