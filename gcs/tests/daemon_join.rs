//! How nodes get their certificates: `gcs init`, `gcs token`, `gcs join`, `gcs renew`, as an operator types them.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use gcs::enrolment::authority::make_request;
use gcs::enrolment::token::Token;
use gcs::tls::{Moment, NodeName};
use gcs_proto::message::PROTOCOL;
use gcs_proto::{Enrol, Frame, HandshakeRefusal};
use gcs_writeset::{Incarnation, Position};
use tempfile::TempDir;

use support::pki::{Caller, Pki, nobody};
use support::{Daemon, Manager, free_addresses, order, writeset};

/// Machines that have nothing yet, as directories and addresses.
struct Machines {
    addresses: Vec<String>,
    directory: TempDir,
}

impl Machines {
    fn new(count: usize) -> Machines {
        let addresses = free_addresses(count);
        Machines { addresses, directory: tempfile::tempdir().unwrap() }
    }

    fn home(&self, node: usize) -> PathBuf {
        self.directory.path().join(format!("m{node}"))
    }

    fn config(&self, node: usize) -> PathBuf {
        self.home(node).join("gcs.toml")
    }

    fn address(&self, node: usize) -> &str {
        &self.addresses[node - 1]
    }

    /// Runs a command of gcs as on that machine, whose directory is there.
    fn run(&self, node: usize, arguments: &[&str]) -> Output {
        std::fs::create_dir_all(self.home(node)).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_gcs"));
        command.args(arguments).arg("--config").arg(self.config(node));
        if !matches!(arguments[0], "token" | "renew") {
            let user = nix::unistd::User::from_uid(nix::unistd::Uid::effective()).unwrap().unwrap().name;
            let socket = self.home(node).join("gcs.sock");
            command.args(["--user", &user, "--directory"]).arg(self.home(node).join("lib")).arg("--socket").arg(socket);
        }
        command.output().unwrap()
    }

    fn done(&self, node: usize, arguments: &[&str]) -> String {
        let output = self.run(node, arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says when it does nothing.
    fn refused(&self, node: usize, arguments: &[&str]) -> String {
        let output = self.run(node, arguments);
        let text = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && text.starts_with("gcs: error: "), "{arguments:?}: {text}");
        text
    }

    fn init(&self, node: usize, group: &str) {
        self.done(node, &["init", "--group", group, "--name", &format!("n{node}"), "--address", self.address(node)]);
    }

    fn token(&self, arguments: &[&str]) -> String {
        self.done(1, &[&["token"][..], arguments].concat()).trim().to_owned()
    }

    fn join_arguments<'a>(&'a self, node: usize, token: &'a str, name: &'a str) -> [&'a str; 8] {
        ["join", self.address(1), "--token", token, "--name", name, "--address", self.address(node)]
    }

    fn daemon(&self, node: usize) -> Daemon {
        let home = self.home(node);
        Daemon::new(self.config(node), home.join("gcs.sock"), home.join("gcs.log"), self.address(node).to_owned())
    }

    /// The first node, which runs.
    fn first(&self) -> Daemon {
        self.init(1, "g");
        let mut daemon = self.daemon(1);
        daemon.start();
        Manager::attach(&daemon.socket, Incarnation(1), Position::ZERO);
        daemon
    }

    fn certificates(&self, node: usize) -> PathBuf {
        self.home(node).join("lib/tls")
    }
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn three_machines_are_set_up_by_init_token_and_join_and_order_the_same() {
    let machines = Machines::new(3);
    let mut first = machines.first();
    for node in [2, 3] {
        let token = machines.token(&[]);
        let name = format!("n{node}");
        let text = machines.done(node, &machines.join_arguments(node, &token, &name));
        assert!(text.contains("has a certificate of group g") && text.contains("gcs run --config"), "{text}");
        let config = std::fs::read_to_string(machines.config(node)).unwrap();
        assert!(config.contains(&format!("join = [\"{}\"]", machines.address(1))), "{config}");
        assert!(config.contains(&format!("name = \"n{node}\"\ngroup = \"g\"\n")), "{config}");
        assert_eq!(mode(&machines.certificates(node).join("node.key")), 0o600);
        assert_eq!(mode(&machines.certificates(node)), 0o700);
        assert!(!machines.certificates(node).join("ca.key").exists());
    }
    assert_eq!(mode(&machines.certificates(1).join("ca.key")), 0o600);
    first.terminate();

    // The three as a group of their own, with these very certificates.
    let mut daemons = Vec::new();
    for node in 1..=3 {
        let config = std::fs::read_to_string(machines.config(node)).unwrap();
        let config: String =
            config.lines().filter(|line| !line.starts_with("join = ")).map(|line| format!("{line}\n")).collect();
        let mut config = config.replace("lib/data\"", "lib/static\"");
        for peer in 1..=3 {
            config += &format!("[[peers]]\nname = \"n{peer}\"\naddress = \"{}\"\n", machines.address(peer));
        }
        std::fs::write(machines.config(node), config).unwrap();
        let mut daemon = machines.daemon(node);
        daemon.start();
        daemons.push(daemon);
    }
    let attach = |(daemon, node): (&Daemon, u64)| Manager::attach(&daemon.socket, Incarnation(node), Position::ZERO);
    let mut managers: Vec<_> = daemons.iter().zip(1..).map(attach).collect();
    for (key, manager) in managers.iter_mut().enumerate() {
        manager.submit(&writeset(key as u64, Position::ZERO));
    }
    let streams: Vec<_> = managers.iter_mut().map(|manager| manager.delivered(3)).collect();
    assert!(streams.iter().all(|stream| order(stream) == order(&streams[0])));
}

#[test]
fn nodes_that_joined_run_with_what_was_written_for_them() {
    let machines = Machines::new(3);
    let mut daemons = vec![machines.first()];
    for node in [2, 3] {
        let name = format!("n{node}");
        machines.done(node, &machines.join_arguments(node, &machines.token(&[]), &name));
        let mut daemon = machines.daemon(node);
        daemon.start();
        daemons[0].wait_until("it has joined", |first| first.role_of(&name).is_some());
        daemon.wait_for_lines("gcs is running", 1);
        daemons.push(daemon);
    }
    // The third was told of the second as well, and each of them has met the others under TLS.
    let config = std::fs::read_to_string(machines.config(3)).unwrap();
    assert!(config.contains(machines.address(1)) && config.contains(machines.address(2)), "{config}");
    for daemon in &daemons {
        daemon.wait_for_lines("peer is up", 2);
        daemon.wait_until("it knows of all three", |daemon| daemon.members().len() == 3);
    }
}

#[test]
fn a_token_lets_one_node_in_once_for_a_while_and_in_its_own_group() {
    let machines = Machines::new(4);
    let mut first = machines.first();
    let join = |node: usize, token: &str, name: &str| machines.refused(node, &machines.join_arguments(node, token, name));

    let token = machines.token(&[]);
    machines.done(2, &machines.join_arguments(2, &token, "n2"));
    let used = "the token was used already, by node \"n2\"";
    assert!(join(3, &token, "n3").contains(used));
    first.kill();
    first.start();
    Manager::attach(&first.socket, Incarnation(2), Position::ZERO);
    let error = join(3, &token, "n3");
    assert!(error.contains(used) && error.contains("hint: Make another with gcs token."), "{error}");

    let short = machines.token(&["--ttl", "1s"]);
    std::thread::sleep(std::time::Duration::from_millis(2_100));
    assert!(join(3, &short, "n3").contains("the token expired on "));

    let bound = machines.token(&["--name", "n9"]);
    assert!(join(3, &bound, "n3").contains("the token is for a node of the name \"n9\""));

    let unknown = Token { secret: [7; 16], ..Token::parse(&token).unwrap() }.to_string();
    assert!(join(3, &unknown, "n3").contains("no such token was made on this node"));
    assert!(join(3, &token[..40], "n3").contains("the token is damaged"));
    assert!(join(3, "secret", "n3").contains("this is no token of gcs"));

    // A token of another group, which has an authority of its own.
    machines.init(4, "h");
    let foreign = machines.done(4, &["token"]);
    let error = join(3, foreign.trim(), "n3");
    assert!(error.contains("belongs to another group than the token"), "{error}");

    // Nothing of all this is left, and none of these mistakes stands in the way.
    assert!(!machines.certificates(3).exists() && !machines.config(3).exists());
    machines.done(3, &machines.join_arguments(3, &machines.token(&[]), "n3"));
    // Once in each life of the daemon.
    assert_eq!(first.loud_lines("the token was used already"), 2, "{}", first.log_text());
}

#[test]
fn a_name_or_an_address_that_is_taken_costs_no_token() {
    let machines = Machines::new(2);
    let _first = machines.first();
    let token = machines.token(&[]);
    let error = machines.refused(2, &machines.join_arguments(2, &token, "n1"));
    assert!(error.contains("\"n1\" is a member of the group already") && error.contains("has not been used"), "{error}");
    let same_address = ["join", machines.address(1), "--token", &token, "--name", "n2", "--address", machines.address(1)];
    let error = machines.refused(2, &same_address);
    assert!(error.contains("is the address of node \"n1\" already"), "{error}");
    let bad_name = machines.refused(2, &machines.join_arguments(2, &token, "n 2"));
    assert!(bad_name.contains("but must be"), "{bad_name}");
    machines.done(2, &machines.join_arguments(2, &token, "n2"));
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_half_done() {
    let machines = Machines::new(2);
    let mut first = machines.first();
    let files = |node: usize| {
        let mut files: Vec<_> =
            std::fs::read_dir(machines.certificates(node)).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.iter().map(|path| (path.clone(), std::fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let before = files(1);
    let again = ["init", "--group", "g", "--name", "n1", "--address", machines.address(1)];
    let error = machines.refused(1, &again);
    assert!(error.contains("is there already, and is not overwritten") && error.contains("hint: "), "{error}");
    let token = machines.token(&[]);
    let error = machines.refused(1, &machines.join_arguments(2, &token, "n2"));
    assert!(error.contains("is not overwritten"), "{error}");
    assert_eq!(files(1), before);

    // Whoever cannot write finds out before the token is used; whoever cannot reach the daemon leaves nothing behind.
    std::fs::create_dir_all(machines.home(2)).unwrap();
    std::fs::write(machines.home(2).join("lib"), "in the way").unwrap();
    let error = machines.refused(2, &machines.join_arguments(2, &token, "n2"));
    assert!(error.contains("could not"), "{error}");
    std::fs::remove_file(machines.home(2).join("lib")).unwrap();
    first.kill();
    let error = machines.refused(2, &machines.join_arguments(2, &token, "n2"));
    assert!(error.contains("could not reach"), "{error}");
    assert!(!machines.home(2).join("lib").exists() && !machines.config(2).exists());
    first.start();
    Manager::attach(&first.socket, Incarnation(2), Position::ZERO);
    machines.done(2, &machines.join_arguments(2, &token, "n2"));
}

/// What `gcs join` asks, with a certificate of nobody or of a node.
fn enrol(secret: &[u8], name: &str) -> Enrol {
    Enrol {
        protocol: PROTOCOL,
        secret: secret.to_vec().into(),
        name: name.to_owned(),
        address: "127.0.0.1:9".to_owned(),
        request: make_request(&NodeName::new("g", name)).unwrap().request.into(),
        clock: Moment::now().unix_seconds,
    }
}

#[test]
fn a_question_that_makes_no_sense_is_refused_by_its_own_reason_and_costs_no_token() {
    let machines = Machines::new(1);
    let mut first = machines.first();
    let pki = Pki::at(&machines.certificates(1), "g");
    let token = Token::parse(&machines.token(&[])).unwrap();
    let good = enrol(&token.secret, "n2");
    let ask = |enrol: Enrol| match Caller::connect(machines.address(1), nobody(&pki.ca_file())).ask(&Frame::Enrol(enrol)) {
        Some(Frame::Refused(refused)) => (refused.reason(), refused.message),
        other => panic!("{other:?}"),
    };
    let now = Moment::now().unix_seconds;
    for (clock, expected) in
        [(now - 3_600, "behind"), (now + 3_600, "ahead of"), (i64::MIN, "behind"), (i64::MAX, "ahead of")]
    {
        let (reason, message) = ask(Enrol { clock, ..good.clone() });
        assert_eq!(reason, HandshakeRefusal::Clock);
        assert!(message.contains(expected) && message.contains("set the clocks"), "{message}");
    }
    let cases = [
        (Enrol { request: b"garbage".to_vec().into(), ..good.clone() }, HandshakeRefusal::Malformed),
        (Enrol { request: Vec::new().into(), ..good.clone() }, HandshakeRefusal::Malformed),
        (Enrol { name: "n/2".to_owned(), ..good.clone() }, HandshakeRefusal::Malformed),
        (Enrol { name: String::new(), ..good.clone() }, HandshakeRefusal::Malformed),
        (Enrol { address: "nowhere".to_owned(), ..good.clone() }, HandshakeRefusal::Malformed),
        (Enrol { protocol: PROTOCOL + 1, ..good.clone() }, HandshakeRefusal::Protocol),
        (Enrol { secret: Vec::new().into(), ..good.clone() }, HandshakeRefusal::Certificate),
        (Enrol { secret: vec![0; 15].into(), ..good.clone() }, HandshakeRefusal::TokenUnknown),
        (Enrol { secret: vec![0; 2_000].into(), ..good.clone() }, HandshakeRefusal::TokenUnknown),
    ];
    for (enrol, expected) in cases {
        let (reason, message) = ask(enrol);
        assert_eq!(reason, expected, "{message}");
    }
    // Longer than a caller without a certificate may say anything.
    let long = Enrol { request: vec![0; 10_000].into(), ..good.clone() };
    assert_eq!(Caller::connect(machines.address(1), nobody(&pki.ca_file())).ask(&Frame::Enrol(long)), None);
    // It asks for one thing, and then the connection ends.
    let mut caller = Caller::connect(machines.address(1), nobody(&pki.ca_file()));
    let Some(Frame::Enrolled(enrolled)) = caller.ask(&Frame::Enrol(good)) else { panic!() };
    assert_eq!((enrolled.group.as_str(), enrolled.members.len(), enrolled.authorities.len()), ("g", 1, 1));
    assert_eq!(caller.receive(), None);
    assert!(first.is_running());
}

#[test]
fn a_node_without_the_authority_s_key_says_whom_to_ask() {
    let machines = Machines::new(3);
    let mut first = machines.first();
    machines.done(2, &machines.join_arguments(2, &machines.token(&[]), "n2"));
    let token = machines.token(&[]);
    first.kill();
    // The second runs by itself; the third asks it.
    let config = std::fs::read_to_string(machines.config(2)).unwrap();
    let config: String =
        config.lines().filter(|line| !line.starts_with("join = ")).map(|line| format!("{line}\n")).collect();
    std::fs::write(machines.config(2), config).unwrap();
    let mut second = machines.daemon(2);
    second.start();
    Manager::attach(&second.socket, Incarnation(1), Position::ZERO);
    let arguments = ["join", machines.address(2), "--token", &token, "--name", "n3", "--address", machines.address(3)];
    let error = machines.refused(3, &arguments);
    assert!(error.contains("node \"n2\" cannot sign certificates: ask node \"n1\""), "{error}");
    let error = machines.refused(2, &["token"]);
    assert!(error.contains("cannot sign certificates") && error.contains("made on node \"n1\""), "{error}");
}

#[test]
fn a_daemon_without_tls_gives_out_nothing() {
    let mut group = support::Group::start(1);
    Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
    let machines = Machines::new(2);
    machines.init(1, "g");
    let token = machines.token(&[]);
    let arguments = [
        "join",
        &group.daemons[0].peer_address.clone(),
        "--token",
        &token,
        "--name",
        "n2",
        "--address",
        machines.address(2),
    ];
    let error = machines.refused(2, &arguments);
    assert!(error.contains("no connection to") && error.contains("does not speak TLS"), "{error}");
    group.daemons[0].wait_for_lines("it speaks TLS, but this daemon runs without", 1);
    let error = {
        std::fs::copy(&group.daemons[0].config, machines.home(2).join("gcs.toml")).unwrap();
        machines.refused(2, &["token"])
    };
    assert!(error.contains("has no [tls]"), "{error}");
    assert!(group.daemons[0].is_running());
}

fn expiry_serial(machines: &Machines, node: usize) -> String {
    let file = machines.certificates(node).join("node.pem");
    let certificate = gcs::tls::files::certificates("c", &file).unwrap().remove(0);
    gcs::tls::certificate::Facts::of(&certificate).unwrap().serial
}

#[test]
fn a_certificate_is_renewed_by_the_node_itself_and_taken_up_by_its_daemon() {
    let machines = Machines::new(3);
    let mut first = machines.first();
    machines.done(2, &machines.join_arguments(2, &machines.token(&[]), "n2"));

    // One that is no member may not go on by renewing.
    let error = machines.refused(3, &machines.join_arguments(3, "gcs1.", "n3"));
    assert!(error.contains("damaged"), "{error}");
    let joined = std::fs::read_to_string(machines.config(2)).unwrap();
    let without_join: String =
        joined.lines().filter(|line| !line.starts_with("join = ")).map(|line| format!("{line}\n")).collect();
    std::fs::write(machines.config(2), &without_join).unwrap();
    let error = machines.refused(2, &["renew", "--from", machines.address(1)]);
    assert!(error.contains("\"n2\" is not a member of the group"), "{error}");

    // Now it is one.
    first.terminate();
    let config = std::fs::read_to_string(machines.config(1)).unwrap().replace("lib/data\"", "lib/static\"");
    let peers: String =
        (1..=2).map(|node| format!("[[peers]]\nname = \"n{node}\"\naddress = \"{}\"\n", machines.address(node))).collect();
    std::fs::write(machines.config(1), format!("{config}{peers}")).unwrap();
    std::fs::write(machines.config(2), format!("{without_join}{peers}")).unwrap();
    first.start();
    let mut second = machines.daemon(2);
    second.start();
    let _manager = Manager::attach(&second.socket, Incarnation(1), Position::ZERO);
    let before = [1, 2].map(|node| expiry_serial(&machines, node));
    for node in [1, 2] {
        let text = machines.done(node, &["renew"]);
        assert!(text.contains("counts until"), "{text}");
        assert_eq!(mode(&machines.certificates(node).join("node.key")), 0o600);
        assert_ne!(expiry_serial(&machines, node), before[node - 1]);
    }
    for daemon in [&first, &second] {
        daemon.wait_for_lines("certificates were loaded again", 1);
        assert_eq!(daemon.lines("peer is down"), 0);
    }

    // One that expired while nobody looked: a token for this very node.
    let pki = Pki::at(&machines.certificates(1), "g");
    let expired = pki.issue_for_days("n2", -10, -1);
    std::fs::copy(&expired.key_file, machines.certificates(2).join("node.key")).unwrap();
    std::fs::copy(&expired.certificate_file, machines.certificates(2).join("node.pem")).unwrap();
    let error = machines.refused(2, &["renew", "--from", machines.address(1)]);
    assert!(error.contains("expired"), "{error}");
    let token = machines.token(&["--name", "n2"]);
    machines.done(2, &["renew", "--from", machines.address(1), "--token", &token]);
    assert_eq!(expiry_serial(&machines, 2).len(), 32);
}
