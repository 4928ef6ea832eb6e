//! Sessions that write to nodes of a group while something else happens, and keep a record of what they were told.

#![allow(clippy::unwrap_used, reason = "a test fails by panic, its helpers too")]

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use gcs::playground::NodeNumber;
use gcs::playground::group::describe;
use postgres::error::SqlState;

use super::database::Database;
use super::{node, wait};

/// A node that was killed is back within this time.
const BACK_WITHIN: Duration = Duration::from_secs(120);

/// What they write to.
pub const TABLES: &str = "
    CREATE TABLE written (node int, n int, PRIMARY KEY (node, n));
    CREATE TABLE numbered (id serial PRIMARY KEY, node int)";

/// Told to stop also where the job fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What a session that writes until it is told to stop was told. A node that dies, and comes back, may have taken what it did not acknowledge.
pub struct Ledger {
    pub acknowledged: Vec<i32>,
    pub longest_pause: Duration,
    /// To be found in the logs.
    pub longest_pause_ended: SystemTime,
}

impl Ledger {
    fn acknowledge(&mut self, n: i32, took: Duration) {
        self.acknowledged.push(n);
        if took > self.longest_pause {
            (self.longest_pause, self.longest_pause_ended) = (took, SystemTime::now());
        }
    }
}

fn write(database: &Database<'_>, number: NodeNumber, stop: &AtomicBool) -> Ledger {
    let mut ledger =
        Ledger { acknowledged: Vec::new(), longest_pause: Duration::ZERO, longest_pause_ended: SystemTime::now() };
    let mut client = database.connect(number);
    let row = client.query_one("SELECT coalesce(max(n), 0) FROM written WHERE node = $1", &[&(number.0 as i32)]).unwrap();
    let (first, mut last): (i32, _) = (row.get(0), Instant::now());
    for n in first + 1.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        let statement = "WITH row AS (INSERT INTO numbered (node) VALUES ($1)) INSERT INTO written VALUES ($1, $2)";
        let answer = client.execute(statement, &[&(number.0 as i32), &n]);
        let code = answer.as_ref().err().and_then(postgres::Error::code);
        assert_ne!(code, Some(&SqlState::UNIQUE_VIOLATION), "no two nodes give the same number: {answer:?}");
        if answer.is_ok() {
            ledger.acknowledge(n, last.elapsed());
            last = Instant::now();
        } else if client.is_closed() {
            (client, _) = wait::until("the node takes clients again", BACK_WITHIN, || {
                database.try_connect(number).map_err(|error| describe(&error))
            });
            last = Instant::now();
        }
    }
    ledger
}

/// What each of the nodes was told while `job` ran and clients wrote to the first three.
pub fn while_three_write(database: &Database<'_>, job: impl FnOnce()) -> Vec<(Ledger, NodeNumber)> {
    while_they_write(database, [1, 2, 3].map(node), job)
}

/// Likewise, to these.
pub fn while_they_write(database: &Database<'_>, numbers: [NodeNumber; 3], job: impl FnOnce()) -> Vec<(Ledger, NodeNumber)> {
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let start = |number| {
            scope.spawn({
                let stop = &stop;
                move || (write(database, number, stop), number)
            })
        };
        let writers = numbers.map(start);
        // Also where the job fails.
        let _stop = Stop(&stop);
        job();
        stop.store(true, Ordering::SeqCst);
        writers.into_iter().map(|writer| writer.join().unwrap()).collect()
    })
}

/// Nothing that was acknowledged is missing on any node, and no two nodes hold another.
pub fn assert_all_there(database: &Database<'_>, digest_of: &str, ledgers: &[(Ledger, NodeNumber)]) {
    wait::until("all nodes hold the same", BACK_WITHIN, || {
        let digests: Vec<String> =
            database.group.numbers().into_iter().map(|number| database.value(number, digest_of)).collect();
        if digests.windows(2).all(|pair| pair[0] == pair[1]) { Ok(()) } else { Err(format!("{digests:?}")) }
    });
    for number in database.group.numbers() {
        assert_there(database, number, ledgers);
    }
}

/// Nothing that was acknowledged is missing on this node.
pub fn assert_there(database: &Database<'_>, number: NodeNumber, ledgers: &[(Ledger, NodeNumber)]) {
    for (ledger, writer) in ledgers {
        let acknowledged = format!("{:?}", ledger.acknowledged).replace('[', "{").replace(']', "}");
        let rows = format!("SELECT count(*) FROM written WHERE node = {} AND n = ANY ('{acknowledged}')", writer.0);
        assert_eq!(database.value(number, &rows), ledger.acknowledged.len().to_string(), "nothing acknowledged is lost");
    }
}
