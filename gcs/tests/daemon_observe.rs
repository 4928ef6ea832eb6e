//! Metrics and health of real daemons, over HTTP: what each endpoint says from start to end, and what a flood of connections does.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use gcs_writeset::link::{Reply, Request};
use gcs_writeset::{Incarnation, Position};
use support::{Daemon, Group, Manager, PATIENCE, free_addresses, writeset};

/// Daemons that tell over HTTP, not started; and where each does.
fn configure(nodes: usize) -> (Group, Vec<String>) {
    let group = Group::configure(nodes);
    let addresses = free_addresses(nodes);
    group.daemons.iter().zip(&addresses).for_each(|(daemon, address)| tell_at(daemon, address));
    (group, addresses)
}

fn tell_at(daemon: &Daemon, address: &str) {
    let config = fs::read_to_string(&daemon.config).unwrap();
    fs::write(&daemon.config, format!("http_address = \"{address}\"\n{config}")).unwrap();
}

/// Sends this and reads to the end: status, headers and body.
fn say(address: &str, text: &str) -> Option<(u16, String, String)> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (headers, body) = answer.split_once("\r\n\r\n")?;
    let status = headers.split(' ').nth(1)?.parse().ok()?;
    Some((status, headers.to_owned(), body.to_owned()))
}

/// As soon as somebody listens.
fn get(address: &str, path: &str) -> (u16, String) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some((status, _, body)) = say(address, &format!("GET {path} HTTP/1.1\r\nHost: gcs\r\n\r\n")) {
            return (status, body);
        }
        assert!(Instant::now() < deadline, "nobody answers on {address}");
        // There is no event for a port that is not there yet.
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn status(address: &str, path: &str) -> u16 {
    get(address, path).0
}

fn json(address: &str, path: &str) -> serde_json::Value {
    serde_json::from_str(&get(address, path).1).unwrap()
}

fn becomes(address: &str, path: &str, wanted: u16) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let found = get(address, path);
        if found.0 == wanted {
            return;
        }
        assert!(Instant::now() < deadline, "{path} stays {found:?}");
        // There is no event for what a daemon knows.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Until it is refused with this in its reason.
fn because(address: &str, path: &str, text: &str) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let (status, body) = get(address, path);
        let answer: serde_json::Value = serde_json::from_str(&body).unwrap();
        if status == 503 && answer["reason"].as_str().unwrap().contains(text) {
            return;
        }
        assert!(Instant::now() < deadline, "{path} does not say {text}: {answer}");
        // There is no event for what a daemon knows.
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The value of a metric, with the labels as they are written.
fn metric(address: &str, name: &str) -> Option<f64> {
    let text = get(address, "/metrics").1;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?;
    Some(line.parse().unwrap())
}

/// Who asks again at once is told the same for a moment, and whoever was sent away may be counted a moment later.
fn metric_becomes(address: &str, name: &str, wanted: f64) {
    let deadline = Instant::now() + PATIENCE;
    while metric(address, name) != Some(wanted) {
        assert!(Instant::now() < deadline, "{name} stays {:?}", metric(address, name));
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn progress(manager: &mut Manager, committed: u64, out_of_service: bool) {
    let committed = Position(committed);
    manager.link.send(&Request::Progress { committed, flushed: committed, oldest_base: committed, out_of_service }, &[]);
}

#[test]
fn a_node_says_what_it_can_do_from_its_start_through_the_loss_of_the_majority_and_back() {
    let (mut group, http) = configure(3);
    let first = &http[0];
    group.daemons[0].start();
    assert_eq!(status(first, "/healthz"), 200, "it is alone, and healthy");
    because(first, "/readyz", "no database");
    assert_eq!([status(first, "/writable"), status(first, "/synced")], [503; 2]);
    group.daemons[1..].iter_mut().for_each(Daemon::start);
    let managers = group.attach_all();
    for address in &http {
        becomes(address, "/writable", 200);
        assert_eq!([status(address, "/readyz"), status(address, "/synced?database=shop")], [200; 2]);
        assert_eq!(status(address, "/readyz?database=bank"), 503);
    }
    for killed in [1, 2] {
        group.daemons[killed].kill();
    }
    because(first, "/writable", "no majority");
    assert_eq!([status(first, "/healthz"), status(first, "/readyz")], [200; 2], "it reads");
    assert_eq!([status(first, "/synced"), status(first, "/readyz?lag=1000000")], [503; 2], "who knows");
    metric_becomes(first, "gcs_quorum", 0.0);
    group.daemons[1].start();
    becomes(first, "/writable", 200);
    becomes(first, "/synced", 200);
    drop(managers);
    because(first, "/readyz", "not connected");
    assert_eq!(status(first, "/healthz"), 200);
}

#[test]
fn lag_is_counted_in_positions_and_whoever_waits_for_them_hears_of_the_last_at_once() {
    let (mut group, http) = configure(3);
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut managers = group.attach_all();
    for key in 0..3 {
        managers[0].submit(&writeset(key, Position::ZERO));
        managers.iter_mut().for_each(|manager| drop(manager.next_delivered()));
    }
    let address = &http[1];
    assert_eq!(status(address, "/readyz?lag=3"), 200);
    let late = json(address, "/readyz?lag=2");
    assert!(late["reason"].as_str().unwrap().contains("3 positions behind"), "{late}");
    assert_eq!((late["databases"][0]["behind"].as_u64(), late["databases"][0]["received"].as_u64()), (Some(3), Some(3)));
    assert_eq!([status(address, "/readyz"), status(address, "/writable")], [200; 2], "that they do not promise");
    metric_becomes(address, "gcs_database_apply_lag_positions{database=\"shop\"}", 3.0);
    assert_eq!(metric(address, "gcs_ordered_total{outcome=\"certified\"}"), Some(3.0));
    // Whoever waits is told when the last position is there, not at the next report. The first that was waited for has not come yet.
    managers[1].wait_for(|reply| matches!(reply, Reply::Watch { position } if *position == Position(1)).then_some(()));
    progress(&mut managers[1], 1, false);
    std::thread::scope(|scope| {
        let synced = scope.spawn(|| status(address, "/synced"));
        managers[1].wait_for(|reply| matches!(reply, Reply::Watch { position } if *position == Position(3)).then_some(()));
        progress(&mut managers[1], 3, false);
        assert_eq!(synced.join().unwrap(), 200);
    });
    metric_becomes(address, "gcs_database_lag_positions{database=\"shop\"}", 0.0);
    progress(&mut managers[1], 3, true);
    because(address, "/readyz", "out of service");
    progress(&mut managers[1], 3, false);
    becomes(address, "/readyz", 200);
}

#[test]
fn a_node_that_waits_to_be_let_in_is_healthy_for_however_long() {
    let mut group = Group::configure(1);
    let nobody = free_addresses(1).remove(0);
    let http = free_addresses(1).remove(0);
    let joiner = group.configure_joiner("n2", &[&nobody]);
    tell_at(&group.daemons[joiner], &http);
    group.daemons[joiner].start();
    assert_eq!(get(&http, "/healthz").0, 200);
    assert_eq!(json(&http, "/healthz")["state"], "starting");
    for path in ["/readyz", "/readyz?lag=5", "/writable", "/synced"] {
        let answer = json(&http, path);
        assert!(answer["reason"].as_str().unwrap().contains("joining"), "{path}: {answer}");
    }
    assert_eq!(metric(&http, "gcs_state_known"), Some(0.0));
    assert_eq!(metric(&http, "gcs_quorum"), None, "nobody knows");
}

#[test]
fn what_is_asked_wrongly_is_refused_and_a_port_that_is_taken_ends_the_daemon_at_once() {
    let (mut group, http) = configure(1);
    group.daemons[0].start();
    let address = &http[0];
    assert_eq!([status(address, "/page"), status(address, "/metrics/"), status(address, "/health")], [404; 3]);
    assert_eq!(
        [status(address, "/readyz?lag=x"), status(address, "/writable?lag=1"), status(address, "/healthz?a=b")],
        [400; 3]
    );
    let (code, headers, _) = say(address, "POST /healthz HTTP/1.1\r\nHost: gcs\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert!(code == 405 && headers.contains("allow: GET, HEAD"), "{headers}");
    let (code, headers, body) = say(address, "GET / HTTP/1.1\r\nHost: gcs\r\n\r\n").unwrap();
    assert!(code == 200 && body.contains("</html>") && headers.contains("default-src 'none'"), "{headers}");
    let (code, headers, body) = say(address, "HEAD /metrics HTTP/1.1\r\nHost: gcs\r\n\r\n").unwrap();
    assert!(code == 200 && body.is_empty() && headers.contains("application/openmetrics-text"), "{headers}");
    assert_eq!(say(address, "OPTIONS /healthz HTTP/1.0\r\n\r\n").unwrap().0, 405, "as balancers ask without being told how");
    let long = format!("GET /healthz HTTP/1.1\r\nHost: gcs\r\nX: {}\r\n\r\n", "x".repeat(9_000));
    assert_eq!(say(address, &long).unwrap().0, 431);
    let began = Instant::now();
    assert!(say(address, "GET /healthz HTTP/1.1\r\n").is_none(), "half a request");
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    metric_becomes(address, "gcs_connections_rejected_total{port=\"http\",cause=\"refused\"}", 1.0);
    metric_becomes(address, "gcs_connections_rejected_total{port=\"http\",cause=\"late\"}", 1.0);
    // And on the port of the peers.
    say(&group.daemons[0].peer_address, "GET / HTTP/1.1\r\n\r\n");
    metric_becomes(address, "gcs_connections_rejected_total{port=\"peers\",cause=\"refused\"}", 1.0);

    let other = Group::configure(1);
    tell_at(&other.daemons[0], address);
    let (code, said) = Daemon::run_to_end(&other.daemons[0].config);
    assert!(code == Some(2) && said.contains(&format!("could not listen for HTTP on {address}")), "{said}");
    let other = Group::configure(1);
    tell_at(&other.daemons[0], "nowhere");
    let (code, said) = Daemon::run_to_end(&other.daemons[0].config);
    assert!(code == Some(2) && said.contains("http_address is \"nowhere\", but must be host:port"), "{said}");
}

#[test]
fn two_thousand_connections_cost_no_transaction_and_little_memory() {
    const FLOOD: usize = 2_000;
    let (mut group, http) = configure(3);
    group.daemons.iter_mut().for_each(Daemon::start);
    let mut managers = group.attach_all();
    let address = &http[0];
    becomes(address, "/writable", 200);
    let before = group.daemons[0].resident_kib();
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| {
            let half = |_| {
                let mut stream = TcpStream::connect(address).unwrap();
                // It may be closed already.
                let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ");
                stream
            };
            (0..FLOOD).map(half).collect::<Vec<_>>()
        });
        for key in 0..200 {
            managers[0].submit(&writeset(key, Position::ZERO));
            managers[0].next_delivered();
        }
        let held = flood.join().unwrap();
        assert_eq!(status(address, "/writable"), 200, "the newest is heard");
        let after = group.daemons[0].resident_kib();
        assert!(after < before + (16 << 10), "{before} KiB before, {after} KiB after");
        assert!(metric(address, "process_open_fds").unwrap() < 200.0);
        drop(held);
    });
    let rejected = metric(address, "gcs_connections_rejected_total{port=\"http\",cause=\"crowd\"}").unwrap();
    assert!(rejected > FLOOD as f64 * 0.9, "{rejected}");
    assert_eq!(group.daemons[0].loud_lines("too many connections at once"), 1);
}

/// A file system of its own, which can be stopped.
struct Stoppable<'a>(&'a Path);

impl Stoppable<'_> {
    /// None where this user may not mount.
    fn mount(at: &Path) -> Option<Stoppable<'_>> {
        let image = at.with_extension("disk");
        fs::create_dir(at).unwrap();
        fs::File::create(&image).unwrap().set_len(300 << 20).unwrap();
        let run = |program: &str, args: &[&str], paths: &[&Path]| {
            let output = Command::new(program).args(args).args(paths).output();
            output.is_ok_and(|output| output.status.success())
        };
        let is_mounted = run("mkfs.ext4", &["-q"], &[&image]) && run("mount", &["-o", "loop"], &[&image, at]);
        is_mounted.then_some(Stoppable(at))
    }

    fn stop(&self, stop: bool) {
        let flag = if stop { "-f" } else { "-u" };
        assert!(Command::new("fsfreeze").arg(flag).arg(self.0).status().unwrap().success());
    }
}

impl Drop for Stoppable<'_> {
    fn drop(&mut self) {
        let _ = Command::new("fsfreeze").arg("-u").arg(self.0).output();
        // Lazily: the daemon may be a moment behind.
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_daemon_whose_disk_hangs_is_not_healthy_and_says_so_at_once() {
    let (mut group, http) = configure(1);
    let directory = group.daemons[0].data_directory();
    let Some(disk) = Stoppable::mount(&directory) else {
        return println!("not tried: no file system can be mounted here");
    };
    group.daemons[0].start();
    let mut manager = Manager::attach(&group.daemons[0].socket, Incarnation(1), Position::ZERO);
    becomes(&http[0], "/writable", 200);
    disk.stop(true);
    manager.submit(&writeset(1, Position::ZERO));
    because(&http[0], "/writable", "does not answer");
    becomes(&http[0], "/healthz", 503);
    let began = Instant::now();
    assert!(json(&http[0], "/healthz")["silence_ms"].as_u64().unwrap() >= 10_000);
    assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    assert!(metric(&http[0], "gcs_event_loop_silence_seconds").unwrap() > 10.0);
    disk.stop(false);
    becomes(&http[0], "/healthz", 200);
    manager.next_delivered();
    becomes(&http[0], "/writable", 200);
    drop(manager);
    group.daemons[0].terminate();
}

fn docs(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file)).unwrap()
}

/// As Prometheus stores them.
fn told() -> BTreeSet<String> {
    let (mut group, http) = configure(1);
    group.daemons[0].start();
    let text = get(&http[0], "/metrics").1;
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let stored = types.map(|(name, kind)| match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    });
    stored.collect()
}

#[test]
fn every_metric_is_documented_and_rules_and_dashboard_name_no_other() {
    let told = told();
    let page = docs("metrics.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> =
        rows.filter(|name| name.starts_with("gcs_") || name.starts_with("process_")).map(str::to_owned).collect();
    assert_eq!(documented, told, "the table of docs/metrics.md and what /metrics says");
    let named = |text: &str| {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).map(str::to_owned);
        words.filter(|word| word.starts_with("gcs_") || word.starts_with("process_")).collect::<Vec<_>>()
    };
    let exists = |name: &str| {
        let base = ["_bucket", "_sum", "_count"].iter().find_map(|part| name.strip_suffix(part));
        told.contains(name) || base.is_some_and(|base| told.contains(base))
    };
    let rules = yaml_rust2::YamlLoader::load_from_str(&docs("monitoring/alerts.yml")).unwrap();
    let rules = rules[0]["groups"][0]["rules"].as_vec().unwrap();
    assert!(rules.len() >= 15);
    for rule in rules {
        let (name, expression) = (rule["alert"].as_str().unwrap(), rule["expr"].as_str().unwrap());
        assert!(
            rule["labels"]["severity"].as_str().is_some() && rule["annotations"]["summary"].as_str().is_some(),
            "{name}"
        );
        let wrong: Vec<String> = named(expression).into_iter().filter(|metric| !exists(metric)).collect();
        assert!(wrong.is_empty(), "{name} names {wrong:?}");
        assert!(!named(expression).is_empty() || expression.starts_with("up{"), "{name} names nothing");
    }
    let dashboard: serde_json::Value = serde_json::from_str(&docs("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().filter_map(|panel| panel["targets"].as_array()).flatten();
    let expressions: Vec<&str> = targets.map(|target| target["expr"].as_str().unwrap()).collect();
    assert!(expressions.len() >= 20);
    for expression in expressions {
        let wrong: Vec<String> = named(expression).into_iter().filter(|metric| !exists(metric)).collect();
        assert!(wrong.is_empty() && !named(expression).is_empty(), "{expression} names {wrong:?}");
    }
}
