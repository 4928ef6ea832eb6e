//! Real daemons that talk under TLS, and callers that they must not talk to.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use gcs::config::Tls;
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Frame, HandshakeRefusal, Hello};
use gcs_writeset::link::{MemberState, Verdict};
use gcs_writeset::{Incarnation, Position};

use support::pki::{Caller, Pki, hello, nobody, table};
use support::{Daemon, Group, Manager, PATIENCE, order, writeset, writeset_with};

/// Three nodes with certificates of one authority, and that authority.
fn configure() -> (Group, Pki) {
    let pki_directory = |directory: &Path| directory.join("pki");
    let group = Group::configure_with(3, |directory, node| {
        let directory = pki_directory(directory);
        let pki = if node == 1 { Pki::make(&directory, "g") } else { Pki::at(&directory, "g") };
        table(&pki.issue(&format!("n{node}")))
    });
    let pki = Pki::at(&pki_directory(group.directory.path()), "g");
    (group, pki)
}

fn start() -> (Group, Pki) {
    let (mut group, pki) = configure();
    group.daemons.iter_mut().for_each(Daemon::start);
    (group, pki)
}

fn status(config: &Path, json: bool) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_gcs"));
    let output = command.args(["status", "--config"]).arg(config).args(json.then_some("--json")).output().unwrap();
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

fn refusal(frame: Option<Frame>) -> (HandshakeRefusal, String) {
    match frame {
        Some(Frame::Refused(refused)) => (refused.reason(), refused.message),
        other => panic!("not a refusal: {other:?}"),
    }
}

/// Positions go on being ordered by those that stay.
fn order_one(managers: &mut [&mut Manager], key: u64) {
    managers[0].submit(&writeset(key, Position::ZERO));
    let first = managers[0].next_delivered();
    for manager in &mut managers[1..] {
        assert_eq!(manager.next_delivered().position, first.position);
    }
}

#[test]
fn three_daemons_with_certificates_deliver_the_same_stream() {
    let (group, _pki) = start();
    let mut managers = group.attach_all();
    let large = vec![7; 3 << 20];
    for (node, manager) in managers.iter_mut().enumerate() {
        manager.submit(&writeset_with(node as u64, Position::ZERO, 0, &large));
        for key in 0..20 {
            manager.submit(&writeset(100 * (node as u64 + 1) + key, Position::ZERO));
        }
    }
    let streams: Vec<_> = managers.iter_mut().map(|manager| manager.delivered(63)).collect();
    for stream in &streams {
        assert_eq!(order(stream), order(&streams[0]));
        assert!(stream.iter().all(|one| matches!(one.verdict, Verdict::Certified { .. })));
    }
    let json: serde_json::Value = serde_json::from_str(&status(&group.daemons[0].config, true)).unwrap();
    assert_eq!(json["encrypted"], true);
    let own = &json["certificates"][0];
    assert!(own["name"].as_str().unwrap().contains("CN=n1") && own["authority"] == false, "{own}");
    assert!(own["days_left"].as_i64().unwrap() >= 363 && json["certificates"][1]["authority"] == true, "{json}");
    let text = status(&group.daemons[0].config, false);
    assert!(text.contains("certificate ") && text.contains("CN=n1, expires on ") && text.contains("authority "), "{text}");
}

#[test]
fn whoever_shows_no_certificate_or_another_s_is_refused_and_told_why() {
    let (group, pki) = start();
    let address = &group.daemons[0].peer_address;
    let _managers = group.attach_all();
    let refused = |config, hello: Hello| refusal(Caller::connect(address, config).ask(&Frame::Hello(hello)));

    let (reason, message) = refused(nobody(&pki.ca_file()), hello("g", "n3"));
    assert_eq!(reason, HandshakeRefusal::Certificate);
    assert!(message.contains("no certificate was shown") && message.contains("gcs join"), "{message}");

    let (reason, message) = refused(pki.caller("n2"), hello("g", "n3"));
    assert_eq!(reason, HandshakeRefusal::OtherName);
    assert!(message.contains("of gcs://g/n2, not of gcs://g/n3"), "{message}");

    // A node of another group that has the same authority, under its own name and under one of ours.
    let other_group = Pki::at(&pki.directory, "h");
    let (reason, _) = refused(other_group.caller("n3"), hello("g", "n3"));
    assert_eq!(reason, HandshakeRefusal::OtherName);
    let (reason, message) = refused(other_group.caller("n3"), hello("h", "n3"));
    assert_eq!(reason, HandshakeRefusal::WrongGroup);
    assert!(message.contains("is in group \"g\", not \"h\""), "{message}");

    // Its node id is another's, though its name is its own.
    let (reason, _) = refused(pki.caller("n2"), Hello { node: hello("g", "n3").node, ..hello("g", "n2") });
    assert_eq!(reason, HandshakeRefusal::NotAMember);

    let (reason, message) = refused(pki.caller("n2"), Hello { protocol: PROTOCOL - 1, ..hello("g", "n2") });
    assert_eq!(reason, HandshakeRefusal::Protocol);
    assert!(message.contains("run the same or neighbouring releases"), "{message}");

    for daemon in &group.daemons {
        assert_eq!(daemon.lines("panicked"), 0);
    }
    assert_eq!(group.daemons[0].loud_lines("no certificate was shown"), 1);
}

#[test]
fn a_certificate_that_names_no_node_or_two_is_nobody_s() {
    let (group, pki) = start();
    let _managers = group.attach_all();
    let uris = |uris: &[&str]| uris.iter().map(|uri| (*uri).to_owned()).collect::<Vec<_>>();
    let cases = [
        (uris(&[]), "names no node"),
        (uris(&["https://example.org/n2"]), "names no node"),
        (uris(&["gcs://g/n2/x"]), "names no node"),
        (uris(&["gcs://g/n2", "gcs://g/n3"]), "more than one name"),
    ];
    for (uris, expected) in cases {
        let tls = pki.issue_odd("odd", &uris, -1, 10);
        let (reason, message) =
            refusal(Caller::connect(&group.daemons[0].peer_address, raw(&tls)).ask(&Frame::Hello(hello("g", "n2"))));
        assert_eq!(reason, HandshakeRefusal::Certificate, "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

/// A caller that shows whatever is in these files, without a look at it.
fn raw(tls: &Tls) -> std::sync::Arc<rustls::ClientConfig> {
    let authority = gcs::tls::files::certificates("ca_file", &tls.ca_file).unwrap().remove(0);
    let config = gcs::enrolment::question::by_fingerprint(gcs::enrolment::token::fingerprint(&authority)).unwrap();
    let mut config = (*config).clone();
    let chain = gcs::tls::files::certificates("certificate_file", &tls.certificate_file).unwrap();
    let key = gcs::tls::files::key("key_file", &tls.key_file).unwrap();
    let key = rustls::crypto::ring::sign::any_ecdsa_type(&key).unwrap();
    let shown = std::sync::Arc::new(rustls::sign::CertifiedKey::new(chain, key));
    config.client_auth_cert_resolver = std::sync::Arc::new(Shown(shown));
    std::sync::Arc::new(config)
}

#[derive(Debug)]
struct Shown(std::sync::Arc<rustls::sign::CertifiedKey>);

impl rustls::client::ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<std::sync::Arc<rustls::sign::CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

#[test]
fn expired_early_and_foreign_certificates_end_the_handshake_and_are_logged_once() {
    let (group, pki) = start();
    let mut managers = group.attach_all();
    let foreign = Pki::make(&group.directory.path().join("foreign"), "g");
    let expired = pki.issue_for_days("expired", -10, -1);
    let early = pki.issue_for_days("early", 1, 10);
    let mut strange = foreign.issue("n3");
    strange.ca_file = pki.ca_file();
    for (tls, expected) in [
        (&expired, "its certificate expired on"),
        (&early, "set the clocks"),
        (&strange, "not issued by an authority in ca_file"),
    ] {
        for _ in 0..3 {
            let mut caller = Caller::connect(&group.daemons[0].peer_address, raw(tls));
            assert_eq!(caller.ask(&Frame::Hello(hello("g", "n3"))), None, "{expected}");
        }
        group.daemons[0].wait_for_lines(expected, 3);
    }
    // All three have the same cause, a certificate that cannot be accepted, and the same address.
    assert_eq!(group.daemons[0].loud_lines("its certificate"), 1);
    let [a, b, c] = &mut managers[..] else { panic!() };
    order_one(&mut [a, b, c], 1);
}

#[test]
fn a_node_whose_certificate_ran_out_starts_says_so_and_is_back_with_a_new_one() {
    let (mut group, pki) = configure();
    pki.issue_for_days("n3", -10, -1);
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut first = Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
    first.submit(&writeset(1, Position::ZERO));
    first.next_delivered();
    group.daemons[2].wait_for_lines("no other node will talk to this one until there is a valid certificate", 1);
    group.daemons[2].wait_for_lines("the other side does not accept this node's certificate: it has expired", 1);
    group.daemons[0].wait_for_lines("its certificate expired on", 1);
    let text = status(&group.daemons[2].config, false);
    assert!(text.contains("CN=") && text.contains("expired on"), "{text}");

    // Further attempts, which come every two seconds, are not worth a line each.
    group.daemons[0].wait_for_lines("DEBUG connection dropped before its handshake", 2);
    assert!(group.daemons[0].loud_lines("its certificate expired on") <= 2, "{}", group.daemons[0].log_text());

    pki.issue("n3");
    group.daemons[2].reload();
    let mut third = Manager::attach(&group.daemons[2].socket, Incarnation(3), Position::ZERO);
    assert_eq!(third.next_delivered().position, Position(1));
}

#[test]
fn a_daemon_that_is_another_than_the_one_dialled_is_not_talked_to() {
    let (mut group, pki) = configure();
    // At the third one's address is the second's twin.
    let config = std::fs::read_to_string(&group.daemons[2].config).unwrap();
    let twin = config
        .replace("name = \"n3\"\ngroup", "name = \"n2\"\ngroup")
        .replace("n3.pem", "n2.pem")
        .replace("n3.key", "n2.key")
        .replace(&group.daemons[1].peer_address, &group.daemons[2].peer_address.replace("127.0.0.1", "127.0.0.2"));
    std::fs::write(&group.daemons[2].config, twin).unwrap();
    assert!(pki.ca_file().exists());
    for daemon in [0, 2] {
        group.daemons[daemon].start();
    }
    group.daemons[0].wait_for_lines("the certificate there is of gcs://g/n2, but this address is that of gcs://g/n3", 1);
}

#[test]
fn plaintext_and_tls_tell_each_other_what_is_missing() {
    let (mut group, _pki) = configure();
    let config = std::fs::read_to_string(&group.daemons[2].config).unwrap();
    let (plain, _) = config.split_once("[tls]").unwrap();
    std::fs::write(&group.daemons[2].config, plain).unwrap();
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut managers: Vec<_> = [1, 2]
        .map(|node| Manager::attach(&group.daemons[node as usize - 1].socket, Incarnation(node), Position::ZERO))
        .into();
    let [a, b] = &mut managers[..] else { panic!() };
    order_one(&mut [a, b], 1);
    group.daemons[0].wait_for_lines("the other side does not speak TLS", 1);
    group.daemons[2].wait_for_lines("the daemon there speaks TLS, but this one runs without", 2);
    group.daemons[2].wait_for_lines("it speaks TLS, but this daemon runs without", 1);
    assert_eq!(status(&group.daemons[2].config, false).lines().last(), Some("link not encrypted"));
}

#[test]
fn files_that_do_not_fit_together_are_one_line_and_status_2() {
    let (group, pki) = configure();
    let good = std::fs::read_to_string(&group.daemons[0].config).unwrap();
    let path = group.directory.path().join("bad.toml");
    let attempt = |config: String| {
        std::fs::write(&path, config).unwrap();
        let (status, stderr) = Daemon::run_to_end(&path);
        assert_eq!(status, Some(2), "{stderr}");
        assert!(stderr.starts_with("gcs: error: ") && stderr.trim_end().lines().count() == 1, "{stderr}");
        stderr
    };
    assert!(attempt(good.replace("n1.pem", "n2.pem")).contains("is of gcs://g/n2, but this node is gcs://g/n1"));
    assert!(attempt(good.replace("n1.key", "n2.key")).contains("does not belong to the certificate"));
    assert!(attempt(good.replace("n1.pem", "none.pem")).contains("could not read certificate_file"));
    assert!(attempt(good.replace("n1.pem", "n1.key")).contains("nothing in it that can be read as a certificate"));
    assert!(attempt(good.replace("n1.key", "n1.pem")).contains("can be read by others"));
    assert!(attempt(good.replace("ca.pem", "n2.pem")).contains("was not issued by an authority in ca_file"));
    assert!(attempt(good.replace("ca_file", "ca_fil")).contains("did you mean \"ca_file\"?"));
    let foreign = Pki::make(&group.directory.path().join("foreign"), "g");
    assert!(
        attempt(good.replace(&pki.ca_file().display().to_string(), &foreign.ca_file().display().to_string()))
            .contains("authority")
    );

    use std::os::unix::fs::PermissionsExt;
    let key = pki.directory.join("n1.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    let error = attempt(good.clone());
    assert!(error.contains("n1.key") && error.contains("can be read by others (mode 0644)"), "{error}");
}

#[test]
fn without_tls_no_address_that_others_can_reach_is_listened_on() {
    let mut group = Group::configure(1);
    let good = std::fs::read_to_string(&group.daemons[0].config).unwrap();
    let open = good.replace("127.0.0.1", "0.0.0.0");
    std::fs::write(&group.daemons[0].config, &open).unwrap();
    let (status, stderr) = Daemon::run_to_end(&group.daemons[0].config);
    assert_eq!(status, Some(2));
    assert!(
        stderr.contains("there is no [tls]") && stderr.contains("gcs init") && stderr.contains("allow_plaintext"),
        "{stderr}"
    );

    std::fs::write(&group.daemons[0].config, format!("allow_plaintext = true\n{open}")).unwrap();
    for _ in 0..2 {
        group.daemons[0].start();
        Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
        group.daemons[0].kill();
    }
    assert_eq!(group.daemons[0].lines("WARN allow_plaintext is set"), 2, "{}", group.daemons[0].log_text());
}

/// Connections that say nothing are a bounded number, and those that mean it come through all the same.
#[test]
fn a_thousand_silent_connections_keep_nobody_out() {
    let (mut group, pki) = start();
    let mut managers = group.attach_all();
    let address = group.daemons[0].peer_address.clone();
    let before = group.daemons[0].resident_kib();
    let silent: Vec<_> = (0..1_000).map(|_| TcpStream::connect(&address).unwrap()).collect();
    // One that comes while they are there is heard.
    let (reason, _) = refusal(Caller::connect(&address, nobody(&pki.ca_file())).ask(&Frame::Hello(hello("g", "n2"))));
    assert_eq!(reason, HandshakeRefusal::Certificate);
    // So is a member that comes back.
    group.daemons[1].kill();
    group.daemons[1].start();
    let mut second = Manager::attach(&group.daemons[1].socket, Incarnation(20), Position::ZERO);
    let [first, _, third] = &mut managers[..] else { panic!() };
    order_one(&mut [first, &mut second, third], 1);
    let after = group.daemons[0].resident_kib();
    assert!(after < before + 64 * 1024, "{before} KiB, then {after} KiB");
    drop(silent);
    group.daemons[0].wait_for_lines("too many connections at once that say nothing", 1);
    assert!(group.daemons[0].loud_lines("connection dropped before its handshake") <= 3, "{}", group.daemons[0].log_text());
    assert_eq!(group.daemons[0].loud_lines("too many connections at once"), 1);
}

/// A generator without a seed from outside: the same bytes every time.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..length).map(|_| next()).collect()
}

#[test]
fn noise_on_every_port_is_dropped_logged_once_and_costs_no_memory() {
    let (mut group, pki) = start();
    let mut managers = group.attach_all();
    let daemon = &group.daemons[0];
    let before = daemon.resident_kib();
    let plain = |bytes: &[u8]| {
        let mut peer = TcpStream::connect(&daemon.peer_address).unwrap();
        peer.set_read_timeout(Some(PATIENCE)).unwrap();
        let _ = peer.write_all(bytes);
        let _ = peer.shutdown(std::net::Shutdown::Write);
        let _ = peer.read_to_end(&mut Vec::new());
    };
    for seed in 0..200 {
        plain(&noise(seed, 1 + seed as usize * 37 % 5_000));
    }
    let greeting = client_greeting(&pki);
    for length in 0..greeting.len() {
        plain(&greeting[..length]);
    }
    // A record that says it is long, one of each kind, and a greeting with a changed byte.
    for kind in 0..=255 {
        plain(&[&[kind, 3, 3, 0xff, 0xff][..], &noise(u64::from(kind), 70_000)].concat());
    }
    for at in 0..greeting.len() {
        let mut changed = greeting.clone();
        changed[at] ^= 0x55;
        plain(&changed);
    }
    // Under TLS, without a certificate and with one: frames that are too long, or none.
    for (number, config) in [nobody(&pki.ca_file()), pki.caller("n2")].into_iter().enumerate() {
        for length in [5_000u32, 80 << 20, u32::MAX, 3] {
            let mut caller = Caller::connect(&daemon.peer_address, config.clone());
            let _ = caller.send_raw(&[&length.to_le_bytes()[..], &noise(number as u64, 3_000)].concat());
            assert_eq!(caller.receive(), None, "{length}");
        }
    }
    for length in [5_000u32, 60 << 20, u32::MAX, 0] {
        let mut local = support::Link::connect(&daemon.socket);
        local.send_raw(&[&length.to_le_bytes()[..], &noise(9, 64)].concat());
        while local.receive().is_some() {}
    }
    let after = daemon.resident_kib();
    assert!(after < before + 32 * 1024, "{before} KiB, then {after} KiB");
    let [a, b, c] = &mut managers[..] else { panic!() };
    order_one(&mut [a, b, c], 1);
    let daemon = &mut group.daemons[0];
    assert!(daemon.is_running());
    let loud = daemon.loud_lines("connection dropped before its handshake");
    assert!((1..=8).contains(&loud), "{loud} lines: {}", daemon.log_text());
}

/// What a TLS client says first.
fn client_greeting(pki: &Pki) -> Vec<u8> {
    let mut session = rustls::ClientConnection::new(nobody(&pki.ca_file()), gcs::tls::stream::server_name()).unwrap();
    let mut greeting = Vec::new();
    session.write_tls(&mut greeting).unwrap();
    greeting
}

#[test]
fn certificates_are_replaced_under_load_without_losing_a_connection() {
    let (group, pki) = start();
    let mut managers = group.attach_all();
    for round in 0..5u64 {
        for node in 1..=3 {
            pki.issue(&format!("n{node}"));
        }
        for (node, manager) in managers.iter_mut().enumerate() {
            for key in 0..40 {
                manager.submit(&writeset(round * 1_000 + node as u64 * 100 + key, Position::ZERO));
            }
        }
        group.daemons.iter().for_each(Daemon::reload);
        for daemon in &group.daemons {
            daemon.wait_for_lines("certificates were loaded again", round as usize + 1);
        }
        let streams: Vec<_> = managers.iter_mut().map(|manager| manager.delivered(120)).collect();
        assert!(streams.iter().all(|stream| order(stream) == order(&streams[0])));
    }
    for daemon in &group.daemons {
        assert_eq!(daemon.lines("peer is down"), 0, "{}", daemon.log_text());
        assert_eq!(daemon.loud_lines("could not load certificates"), 0, "{}", daemon.log_text());
    }
}

#[test]
fn a_file_that_changes_is_found_without_a_signal() {
    let (group, pki) = start();
    let _managers = group.attach_all();
    pki.issue("n1");
    group.daemons[0].wait_for_lines("certificates were loaded again", 1);
}

#[test]
fn a_reload_that_fails_keeps_the_old_certificates() {
    let (group, pki) = start();
    let mut managers = group.attach_all();
    let certificate = pki.directory.join("n1.pem");
    let before = std::fs::read(&certificate).unwrap();
    let mut count = 0;
    let mut attempt = |expected: &str| {
        group.daemons[0].reload();
        group.daemons[0].wait_for_lines(expected, 1);
        count += 1;
        assert!(group.daemons[0].lines("the old ones stay in force") >= count);
    };
    std::fs::write(&certificate, "nonsense").unwrap();
    attempt("nothing in it that can be read as a certificate");
    std::fs::remove_file(&certificate).unwrap();
    attempt("could not read certificate_file");
    std::fs::write(&certificate, std::fs::read(pki.directory.join("n2.pem")).unwrap()).unwrap();
    attempt("is of gcs://g/n2");
    pki.issue_for_days("n1", -10, -1);
    attempt("n1.pem\" expired on");
    std::fs::write(&certificate, before).unwrap();
    attempt("does not belong to the certificate");

    let [a, b, c] = &mut managers[..] else { panic!() };
    order_one(&mut [a, b, c], 1);
    assert_eq!(group.daemons[0].lines("peer is down"), 0);
    let json: serde_json::Value = serde_json::from_str(&status(&group.daemons[0].config, true)).unwrap();
    assert!(json["certificates"][0]["days_left"].as_i64().unwrap() > 300, "{json}");
}

#[test]
fn a_revoked_node_is_cut_off_at_once_and_nobody_else() {
    let (mut group, pki) = configure();
    let revoked = group.directory.path().join("revoked");
    std::fs::write(&revoked, "# none yet\n").unwrap();
    for daemon in &mut group.daemons {
        let config = std::fs::read_to_string(&daemon.config).unwrap();
        std::fs::write(&daemon.config, format!("{config}revoked_file = \"{}\"\n", revoked.display())).unwrap();
        daemon.start();
    }
    let mut managers = group.attach_all();
    {
        let [a, b, c] = &mut managers[..] else { panic!() };
        order_one(&mut [a, b, c], 1);
    }
    let certificate = gcs::tls::files::certificates("c", &pki.directory.join("n3.pem")).unwrap().remove(0);
    let serial = gcs::tls::certificate::Facts::of(&certificate).unwrap().serial;
    std::fs::write(&revoked, format!("{serial} # n3 was stolen\n")).unwrap();
    for daemon in &group.daemons[..2] {
        daemon.reload();
    }
    managers[0].wait_for_status(|status| status.quorum && status.members[2].state == MemberState::Unreachable);
    group.daemons[0].wait_for_lines("no longer welcome", 1);
    let [a, b, _] = &mut managers[..] else { panic!() };
    order_one(&mut [a, b], 2);
    group.daemons[2].wait_for_lines("is revoked", 1);
    for (daemon, other) in [(0, "n2"), (1, "n1")] {
        let down = format!("peer is down peer={other}");
        assert_eq!(group.daemons[daemon].lines(&down), 0, "{}", group.daemons[daemon].log_text());
    }
    let text = group.daemons[0].log_text();
    assert!(text.contains("peer is down") && text.contains("n3"), "{text}");
}

#[test]
fn a_new_authority_replaces_the_old_one_step_by_step_without_an_outage() {
    let (group, pki) = start();
    let mut managers = group.attach_all();
    let old = std::fs::read_to_string(pki.ca_file()).unwrap();
    let newer = Pki::make(&group.directory.path().join("newer"), "g");
    let new = std::fs::read_to_string(newer.ca_file()).unwrap();
    let mut loads = 0;
    let mut reload_all = |managers: &mut [Manager], key: u64| {
        loads += 1;
        for daemon in &group.daemons {
            daemon.reload();
            daemon.wait_for_lines("certificates were loaded again", loads);
        }
        let [a, b, c] = managers else { panic!() };
        order_one(&mut [a, b, c], key);
    };
    // Both are believed; then everybody has a certificate of the new one; then the old one goes.
    std::fs::write(pki.ca_file(), format!("{old}{new}")).unwrap();
    reload_all(&mut managers, 1);
    for node in ["n1", "n2", "n3"] {
        let from = newer.issue(node);
        let to = pki.files(node);
        std::fs::copy(from.key_file, &to.key_file).unwrap();
        std::fs::copy(from.certificate_file, &to.certificate_file).unwrap();
    }
    reload_all(&mut managers, 2);
    std::fs::write(pki.ca_file(), new).unwrap();
    reload_all(&mut managers, 3);
}

#[test]
fn the_local_socket_is_for_its_user_unless_others_are_named() {
    use std::os::unix::fs::PermissionsExt;
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let mut group = Group::configure(1);
    let config = std::fs::read_to_string(&group.daemons[0].config).unwrap();
    for (users, socket_mode, directory_mode) in [("", 0o600, 0o700), ("local_users = [\"root\"]\n", 0o666, 0o711)] {
        let directory = group.directory.path().join(format!("run{}", users.len()));
        group.daemons[0].socket = directory.join("gcs.sock");
        let socket = format!("local_socket = \"{}\"", group.daemons[0].socket.display());
        let text = format!("{users}{}", config.replace("local_socket = \"n1.sock\"", &socket));
        std::fs::write(&group.daemons[0].config, text).unwrap();
        group.daemons[0].start();
        Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
        assert_eq!((mode(&group.daemons[0].socket), mode(&directory)), (socket_mode, directory_mode));
        group.daemons[0].kill();
    }
}
