//! A node that cannot write says so before anybody tries: to client libraries that look for a server that takes writes, and to sessions that run.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use gcs::playground::process::Signal;
use gcs::playground::{NodeNumber, Part};
use postgres::Client;
use postgres_r_tests::harness::database::value;
use postgres_r_tests::harness::libpq::led_to;
use postgres_r_tests::harness::{self, Group, node, wait};

const SAID_WITHIN: Duration = Duration::from_secs(20);
const BOTH: &str = "current_setting('transaction_read_only') || ' ' || current_setting('default_transaction_read_only')";

fn says(client: &mut Client, wanted: &str) {
    let (_, took) = wait::until(&format!("\"{wanted}\""), SAID_WITHIN, || match value(client, BOTH) {
        found if found == wanted => Ok(()),
        found => Err(found),
    });
    println!("\"{wanted}\" after {took:?}");
}

/// Two of three daemons end; node 3 is left without a majority until this is over.
fn in_a_minority(group: &Group, test: impl FnOnce()) {
    for number in [1, 2] {
        group.signal(node(number), Part::Gcs, Signal::TERM);
    }
    test();
    for number in [1, 2] {
        group.start_node(node(number));
    }
}

#[test]
fn libpq_passes_a_node_by_that_cannot_write() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE passed (n int PRIMARY KEY)");
    group.settle();
    let mut client = group.connect(node(3));
    assert_eq!(value(&mut client, BOTH), "off off");
    assert_eq!(led_to(&group, &[3, 1, 2], "read-write").unwrap(), "node3");
    // Its own daemon is away; the others are a majority.
    group.kill(node(3), Part::Gcs);
    says(&mut client, "on on");
    assert_eq!(led_to(&group, &[3, 1, 2], "read-write").unwrap(), "node1");
    assert_eq!(led_to(&group, &[1, 2, 3], "read-only").unwrap(), "node3");
    assert_eq!(led_to(&group, &[3, 2, 1], "any").unwrap(), "node3");
    // It is no standby.
    assert_eq!(led_to(&group, &[3, 1], "primary").unwrap(), "node3");
    assert_eq!(led_to(&group, &[3, 1], "prefer-standby").unwrap(), "node3");
    assert!(led_to(&group, &[3, 1, 2], "standby").unwrap_err().contains("standby"));
    assert!(led_to(&group, &[3], "read-write").unwrap_err().contains("read-only"));
    // A database that is not replicated is nobody's business.
    let mut other = group.playground.connect(node(3), "postgres").unwrap();
    assert_eq!(value(&mut other, BOTH), "off off");
    group.start_node(node(3));
    says(&mut client, "off off");
    assert_eq!(led_to(&group, &[3, 1, 2], "read-write").unwrap(), "node3");
    client.batch_execute("INSERT INTO passed VALUES (1)").unwrap();
    harness::assert_equal(&group);
}

#[test]
fn running_sessions_see_it_come_and_go() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE seen (n int PRIMARY KEY)");
    group.settle();
    let mut plain = group.connect(node(3));
    let mut careful = group.connect(node(3));
    careful.batch_execute("SET default_transaction_read_only = on").unwrap();
    let mut bold = group.connect(node(3));
    bold.batch_execute("SET default_transaction_read_only = off").unwrap();
    let mut in_block = group.connect(node(3));
    in_block.batch_execute("BEGIN READ WRITE").unwrap();
    in_a_minority(&group, || {
        for client in [&mut plain, &mut careful, &mut bold, &mut in_block] {
            says(client, "on on");
        }
        // Everybody who looks sees the same.
        let view = "SELECT string_agg(setting, ' ') FROM pg_settings WHERE name LIKE '%transaction_read_only'";
        assert_eq!(value(&mut plain, view), "on on");
        let shown: String = plain.query_one("SHOW transaction_read_only", &[]).unwrap().get(0);
        assert_eq!(shown, "on");
        // A write fails as ever, and no SET makes it possible.
        bold.batch_execute("SET transaction_read_only = off; SET default_transaction_read_only = off").unwrap();
        assert_eq!(value(&mut bold, BOTH), "on on");
        let error = bold.batch_execute("INSERT INTO seen VALUES (1)").unwrap_err();
        assert_eq!(error.code().unwrap().code(), "25006");
        assert!(error.as_db_error().unwrap().message().contains("majority"), "{error:?}");
        // What touches this session only is still possible.
        bold.batch_execute("CREATE TEMP TABLE own (n int); INSERT INTO own VALUES (1)").unwrap();
    });
    says(&mut plain, "off off");
    says(&mut bold, "off off");
    // What a session has chosen for itself, it has again.
    assert_eq!(value(&mut careful, BOTH), "on on");
    let error = careful.batch_execute("INSERT INTO seen VALUES (1)").unwrap_err();
    assert!(error.as_db_error().unwrap().message().contains("read-only transaction"), "{error:?}");
    careful.batch_execute("SET default_transaction_read_only = off").unwrap();
    for (n, client) in [&mut plain, &mut careful, &mut bold].into_iter().enumerate() {
        client.batch_execute(&format!("INSERT INTO seen VALUES ({n})")).unwrap();
    }
    in_block.batch_execute("INSERT INTO seen VALUES (4); COMMIT").unwrap();
    harness::assert_equal(&group);
}

/// A SET that ends with its transaction still does, though the server has looked at the setting in between.
#[test]
fn a_local_setting_stays_local() {
    let group = harness::shared();
    let mut client = group.connect(node(3));
    client.batch_execute("BEGIN; SET LOCAL default_transaction_read_only = on").unwrap();
    let mut other = group.connect(node(3));
    other.batch_execute("BEGIN; SET default_transaction_read_only = on").unwrap();
    in_a_minority(&group, || {
        says(&mut client, "on on");
        says(&mut other, "on on");
    });
    wait::until("the majority", SAID_WITHIN, || {
        let mut fresh = group.try_connect(node(3)).map_err(|error| error.to_string())?;
        if value(&mut fresh, BOTH) == "off off" { Ok(()) } else { Err("read-only".to_owned()) }
    });
    assert_eq!(value(&mut client, BOTH), "off on");
    client.batch_execute("COMMIT").unwrap();
    assert_eq!(value(&mut client, BOTH), "off off");
    other.batch_execute("ROLLBACK").unwrap();
    assert_eq!(value(&mut other, BOTH), "off off");
}

/// A client that speaks the protocol by itself, to hear what the server reports.
struct Listener(TcpStream);

impl Listener {
    fn connect(group: &Group, number: NodeNumber) -> (Listener, Vec<(String, String)>) {
        let mut stream = TcpStream::connect(("127.0.0.1", group.playground.cluster(number).port)).unwrap();
        stream.set_read_timeout(Some(SAID_WITHIN)).unwrap();
        let parameters = b"\x00\x03\x00\x00user\0postgres\0database\0shop\0\0";
        stream.write_all(&(parameters.len() as u32 + 4).to_be_bytes()).unwrap();
        stream.write_all(parameters).unwrap();
        let mut listener = Listener(stream);
        let reported = listener.until_ready();
        (listener, reported)
    }

    fn query(&mut self, sql: &str) -> Vec<(String, String)> {
        self.0.write_all(b"Q").unwrap();
        self.0.write_all(&(sql.len() as u32 + 5).to_be_bytes()).unwrap();
        self.0.write_all(sql.as_bytes()).unwrap();
        self.0.write_all(b"\0").unwrap();
        self.until_ready()
    }

    /// What is reported until the server waits for a query.
    fn until_ready(&mut self) -> Vec<(String, String)> {
        let mut reported = Vec::new();
        loop {
            let mut head = [0; 5];
            self.0.read_exact(&mut head).unwrap();
            let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize - 4;
            let mut body = vec![0; length];
            self.0.read_exact(&mut body).unwrap();
            match head[0] {
                b'S' => {
                    let text = String::from_utf8(body).unwrap();
                    let mut parts = text.split('\0').map(str::to_owned);
                    reported.push((parts.next().unwrap(), parts.next().unwrap()));
                }
                b'Z' => return reported,
                _ => {}
            }
        }
    }
}

fn of_default(reported: &[(String, String)]) -> Option<&str> {
    reported.iter().find(|(name, _)| name == "default_transaction_read_only").map(|(_, value)| value.as_str())
}

#[test]
fn the_server_reports_it_to_new_sessions_and_to_running_ones() {
    let group = harness::shared();
    let (mut running, at_first) = Listener::connect(&group, node(3));
    assert_eq!(of_default(&at_first), Some("off"));
    assert_eq!(of_default(&running.query("SELECT 1")), None);
    let hears = |running: &mut Listener, wanted: &str| {
        wait::until(&format!("a report of {wanted}"), SAID_WITHIN, || {
            let reported = running.query("SELECT 1");
            if of_default(&reported) == Some(wanted) { Ok(()) } else { Err(format!("{reported:?}")) }
        });
    };
    in_a_minority(&group, || {
        hears(&mut running, "on");
        assert_eq!(of_default(&running.query("SET work_mem = '5MB'")), None, "once is enough");
        let (_, reported) = Listener::connect(&group, node(3));
        assert_eq!(of_default(&reported), Some("on"));
    });
    hears(&mut running, "off");
    let (_, reported) = Listener::connect(&group, node(3));
    assert_eq!(of_default(&reported), Some("off"));
    // And of what the session sets itself, as on any server.
    assert_eq!(of_default(&running.query("SET default_transaction_read_only = on")), Some("on"));
    assert_eq!(of_default(&running.query("BEGIN; SET LOCAL default_transaction_read_only = off")), Some("off"));
    assert_eq!(of_default(&running.query("ROLLBACK")), Some("on"));
}

/// The first thing that a session hears of it may be the error of its own write.
#[test]
fn a_write_that_is_refused_comes_with_the_report() {
    let group = harness::shared();
    group.execute(node(1), "CREATE TABLE told (n int PRIMARY KEY)");
    group.settle();
    let (mut running, _) = Listener::connect(&group, node(3));
    in_a_minority(&group, || {
        let mut others = group.connect(node(3));
        says(&mut others, "on on");
        assert_eq!(of_default(&running.query("INSERT INTO told VALUES (1)")), Some("on"));
    });
    harness::assert_equal(&group);
}
