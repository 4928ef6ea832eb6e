//! A mutex made of an advisory lock: clients on all nodes count, each in steps that only the lock holds together.
//!
//! A client takes the lock of its session, reads the counter in one transaction, and writes what it read plus one in another, which gives the row no
//! chance to object: an UPDATE without a condition, of a row that nobody else changes as long as there is one holder. Were there two, one's
//! count would go over the other's, and the counter would end below the number of counts that were acknowledged.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::{Client, Error};

use super::client::{Failure, classify};
use crate::harness::{Group, wait};

pub const TABLE: &str = "CREATE TABLE mutex_counter (id int PRIMARY KEY, n bigint); INSERT INTO mutex_counter VALUES (1, 0)";

const GOES_ON_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    pub acknowledged: u64,
    /// The count may have been made.
    pub unknown: u64,
    pub failed: u64,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    unknown: AtomicU64,
    failed: AtomicU64,
}

pub struct Workload {
    tally: Arc<Tally>,
    clients: Vec<JoinHandle<()>>,
}

impl Workload {
    /// So many clients on each node.
    pub fn start(group: &Group, each: usize) -> Workload {
        let tally = Arc::new(Tally::default());
        let numbers = group.numbers();
        let clients = numbers.into_iter().flat_map(|number| std::iter::repeat_n(number, each)).map(|number| {
            let (tally, connect) = (tally.clone(), connector(group, number));
            thread::spawn(move || count(&tally, connect))
        });
        let clients = clients.collect();
        Workload { tally, clients }
    }

    /// Waits for another ten counts.
    pub fn goes_on(&self) {
        let before = self.tally.acknowledged.load(Ordering::SeqCst);
        wait::until("counts under the lock", GOES_ON_MAX, || {
            match self.tally.acknowledged.load(Ordering::SeqCst) - before {
                10.. => Ok(()),
                few => Err(format!("{few} counts")),
            }
        });
    }

    pub fn finish(self) -> Summary {
        self.tally.stop.store(true, Ordering::SeqCst);
        self.clients.into_iter().for_each(|client| client.join().expect("a client does not panic"));
        let of = |count: &AtomicU64| count.load(Ordering::SeqCst);
        Summary {
            acknowledged: of(&self.tally.acknowledged),
            unknown: of(&self.tally.unknown),
            failed: of(&self.tally.failed),
        }
    }
}

fn connector(group: &Group, number: NodeNumber) -> impl Fn() -> Result<Client, Error> + Send + 'static {
    let playground = group.playground.clone();
    move || playground.connect(number, &playground.manifest.database)
}

fn count(tally: &Tally, connect: impl Fn() -> Result<Client, Error>) {
    let mut client = None;
    while !tally.stop.load(Ordering::SeqCst) {
        let Some(connected) = client.take().or_else(|| connect().ok()) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        client = once(tally, connected);
    }
}

/// The client, if it can go on. Whatever went wrong, it comes without the lock, or not at all.
fn once(tally: &Tally, mut client: Client) -> Option<Client> {
    if client.batch_execute("SELECT pg_advisory_lock(1)").is_err() {
        tally.failed.fetch_add(1, Ordering::SeqCst);
        return None;
    }
    let row = client.query_one("SELECT n FROM mutex_counter", &[]).ok()?;
    let next = row.get::<_, i64>(0) + 1;
    match client.batch_execute(&format!("UPDATE mutex_counter SET n = {next}")) {
        Ok(()) => tally.acknowledged.fetch_add(1, Ordering::SeqCst),
        Err(error) => match classify(&error) {
            Failure::Unknown(_) => tally.unknown.fetch_add(1, Ordering::SeqCst),
            Failure::Retry | Failure::Definite(_) => tally.failed.fetch_add(1, Ordering::SeqCst),
        },
    };
    client.batch_execute("SELECT pg_advisory_unlock(1)").ok().map(|()| client)
}
