//! Nodes that come to a group which has data and is written to: by `join`, a copy of the database, and the log behind it.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::group::Started;
use gcs::playground::{NodeNumber, Part};
use postgres_r_tests::harness::{Group, assert_equal, node, wait};

const COPIED_WITHIN: Duration = Duration::from_secs(120);

const SETUP: &str = "
    CREATE TABLE item (id int PRIMARY KEY, body text);
    INSERT INTO item SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 40000) n;
    CREATE TABLE written (node int, n int, PRIMARY KEY (node, n));
    CREATE TABLE numbered (id serial PRIMARY KEY, node int)";

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a session that writes until it is told to stop was told. A node that dies, and comes back, may have taken what it did not acknowledge.
#[derive(Default)]
struct Ledger {
    acknowledged: Vec<i32>,
    longest_pause: Duration,
}

fn write(group: &Group, number: NodeNumber, stop: &AtomicBool) -> Ledger {
    let mut ledger = Ledger::default();
    let (mut client, mut last) = (group.connect(number), Instant::now());
    for n in 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let statement = "WITH row AS (INSERT INTO numbered (node) VALUES ($1)) INSERT INTO written VALUES ($1, $2)";
        if client.execute(statement, &[&(number.0 as i32), &n]).is_ok() {
            ledger.longest_pause = ledger.longest_pause.max(last.elapsed());
            last = Instant::now();
            ledger.acknowledged.push(n);
        } else if client.is_closed() {
            wait::until("the node takes clients again", COPIED_WITHIN, || {
                client = group.try_connect(number).map_err(|error| error.to_string())?;
                Ok(())
            });
            last = Instant::now();
        }
    }
    ledger
}

/// The node that a copy is being read from, once there is one.
fn source(group: &Group) -> NodeNumber {
    let reads = "SELECT count(*) > 0 FROM pg_stat_activity WHERE application_name IN ('gcs copy', 'pg_dump')";
    let (number, _) = wait::until("a copy is read", COPIED_WITHIN, || {
        let is_read = |number: &NodeNumber| {
            let row = group.try_connect(*number).and_then(|mut client| client.query_one(reads, &[]));
            row.is_ok_and(|row| row.get(0))
        };
        group.numbers().into_iter().find(is_read).ok_or_else(|| "by nobody".to_owned())
    });
    number
}

fn members(group: &Group, number: NodeNumber) -> String {
    group.value(number, "SELECT string_agg(concat_ws(' ', node, role, state), ', ' ORDER BY node) FROM postgres_r.members")
}

#[test]
fn a_fourth_node_joins_while_three_write_though_the_one_it_copies_from_is_killed() {
    let mut group = Group::start();
    group.execute(node(1), SETUP);
    group.settle();
    let stop = AtomicBool::new(false);
    let ledgers = thread::scope(|scope| {
        let writers: Vec<_> = group
            .numbers()
            .into_iter()
            .map(|number| {
                scope.spawn({
                    let (group, stop) = (&group, &stop);
                    move || write(group, number, stop)
                })
            })
            .collect();
        // Also where the test fails.
        let _stop = Stop(&stop);
        let joining = scope.spawn(|| group.add_node());
        let killed = source(&group);
        group.kill(killed, Part::Postgres);
        assert_eq!(group.start_node(killed), Started::Online);
        joining.join().unwrap().unwrap();
        stop.store(true, Ordering::SeqCst);
        let ledgers = writers.into_iter().map(|writer| writer.join().unwrap());
        ledgers.zip(group.numbers()).filter(|(_, number)| *number != killed).collect::<Vec<_>>()
    });
    group.reload();
    assert_equal(&group);
    for (ledger, number) in &ledgers {
        let there =
            format!("SELECT count(*) FROM written WHERE node = {} AND n = ANY ('{:?}')", number.0, ledger.acknowledged);
        let there = there.replace('[', "{").replace(']', "}");
        assert_eq!(group.values(&there), vec![ledger.acknowledged.len().to_string(); 4], "nothing acknowledged is lost");
        println!("longest pause of a writer on node {}: {:?}", number.0, ledger.longest_pause);
    }
    let all = "node1 voter online, node2 voter online, node3 voter online, node4 voter online";
    wait::until("the new node votes", COPIED_WITHIN, || {
        let members = members(&group, node(4));
        if members == all { Ok(()) } else { Err(members) }
    });
    // It writes like the others, what it gives out is nobody else's, and the group does without one more node than before.
    group.execute(node(4), "INSERT INTO numbered (node) SELECT 4 FROM generate_series(1, 100)");
    group.execute(node(4), "CREATE TABLE made_there (id int PRIMARY KEY); INSERT INTO made_there VALUES (1)");
    group.kill(node(1), Part::Both);
    wait::until("three of four go on", COPIED_WITHIN, || {
        let mut client = group.try_connect(node(4)).map_err(|error| error.to_string())?;
        client.batch_execute("INSERT INTO numbered (node) VALUES (4)").map_err(|error| error.to_string())
    });
    assert_eq!(group.start_node(node(1)), Started::Online);
    assert_equal(&group);
}
