//! A queue of jobs in a table: workers on all nodes take one after the other with FOR UPDATE SKIP LOCKED, and delete it in the transaction that does it.
//!
//! A worker holds a job from when it is told its number until its transaction is over, as it sees it. Two that hold a job at the same time would both do
//! the work, though only one of them could commit: where nothing fails that must never be. Where nodes are killed a job is done by another as soon as
//! its worker's session is gone, whether the worker has heard of that or not; so there it counts only if both go on to commit.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::{Client, Error};

use super::client::{Failure, classify};
use crate::harness::{Group, wait};

/// A job that is done is noted under its number, by whom.
pub const TABLES: &str = "CREATE TABLE queue_jobs (id int PRIMARY KEY, payload text);
    CREATE TABLE queue_done (id int PRIMARY KEY, worker int)";

const GOES_ON_MAX: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// How often each job was acknowledged as done.
    pub done: BTreeMap<i32, u32>,
    /// Transactions that had a job and lost it to another (40001).
    pub lost: u64,
    /// Jobs that two held at the same time.
    pub held_twice: u64,
    pub failed: u64,
    pub unknown: u64,
}

#[derive(Default)]
struct Tally {
    stop: AtomicBool,
    summary: Mutex<Summary>,
    /// Who holds each job.
    held: Mutex<BTreeMap<i32, u32>>,
}

pub struct Workload {
    tally: Arc<Tally>,
    workers: Vec<JoinHandle<()>>,
}

/// Jobs with these numbers.
pub fn fill(group: &Group, number: NodeNumber, first: i32, last: i32) {
    group.execute(
        number,
        &format!("INSERT INTO queue_jobs SELECT id, 'job ' || id FROM generate_series({first}, {last}) id"),
    );
}

impl Workload {
    /// So many workers on each node.
    pub fn start(group: &Group, each: usize) -> Workload {
        let tally = Arc::new(Tally::default());
        let places = group.numbers().into_iter().flat_map(|number| std::iter::repeat_n(number, each));
        let workers = places.zip(1..).map(|(number, me)| {
            let (tally, playground) = (tally.clone(), group.playground.clone());
            let connect = move || playground.connect(number, &playground.manifest.database);
            thread::spawn(move || work(&tally, me, connect))
        });
        let workers = workers.collect();
        Workload { tally, workers }
    }

    pub fn done(&self) -> usize {
        lock(&self.tally.summary).done.len()
    }

    /// Waits for another ten jobs.
    pub fn goes_on(&self) {
        let before = self.done();
        wait::until("jobs are done", GOES_ON_MAX, || match self.done() - before {
            10.. => Ok(()),
            few => Err(format!("{few} jobs")),
        });
    }

    pub fn finish(self) -> Summary {
        self.tally.stop.store(true, Ordering::SeqCst);
        self.workers.into_iter().for_each(|worker| worker.join().expect("a worker does not panic"));
        lock(&self.tally.summary).clone()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().expect("nobody panics with it")
}

fn work(tally: &Tally, me: u32, connect: impl Fn() -> Result<Client, Error>) {
    let mut client = None;
    while !tally.stop.load(Ordering::SeqCst) {
        let Some(mut connected) = client.take().or_else(|| connect().ok()) else {
            thread::sleep(Duration::from_millis(50));
            continue;
        };
        let mut held = None;
        let outcome = one_job(tally, me, &mut connected, &mut held);
        if let Some(job) = held {
            lock(&tally.held).retain(|id, by| *id != job || *by != me);
        }
        let mut summary = lock(&tally.summary);
        let Err(error) = outcome else {
            client = Some(connected);
            continue;
        };
        match classify(&error) {
            Failure::Retry => summary.lost += 1,
            Failure::Unknown(_) => summary.unknown += 1,
            Failure::Definite(_) => summary.failed += 1,
        }
        client = (!connected.is_closed()).then_some(connected).filter(|_| error.code().is_some());
    }
}

/// Takes a job, if there is one, and does it.
fn one_job(tally: &Tally, me: u32, client: &mut Client, held: &mut Option<i32>) -> Result<(), Error> {
    let mut transaction = client.transaction()?;
    let next = "SELECT id FROM queue_jobs ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED";
    let Some(row) = transaction.query_opt(next, &[])? else {
        // Others may hold the last of them, and fail.
        thread::sleep(Duration::from_millis(2));
        return transaction.rollback();
    };
    let job: i32 = row.get(0);
    *held = Some(job);
    if lock(&tally.held).insert(job, me).is_some() {
        lock(&tally.summary).held_twice += 1;
    }
    // Every seventh fails at first, and somebody else has to do it.
    if job % 7 == 0 && me % 2 == 1 {
        lock(&tally.held).remove(&job);
        *held = None;
        return transaction.rollback();
    }
    transaction.execute("DELETE FROM queue_jobs WHERE id = $1", &[&job])?;
    transaction.execute("INSERT INTO queue_done VALUES ($1, $2)", &[&job, &(me as i32)])?;
    transaction.commit()?;
    *lock(&tally.summary).done.entry(job).or_default() += 1;
    Ok(())
}
