//! Bystanders: a client on each of some servers that commits one row, again and again, while something else happens. What they feel of it are their pauses.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use postgres::Client;
use postgres_r_tests::pgbench::Pgbench;

use super::bed::{connect, execute};
use super::figure::Result;

/// After a connection that failed.
const CONNECT_AGAIN: Duration = Duration::from_millis(5);

/// What was acknowledged to one of them, and when; the first is when it began.
type Moments = Vec<Instant>;

/// Their commits, so far; one of these for each server.
pub struct Watch {
    moments: Vec<Mutex<Moments>>,
    errors: AtomicU64,
    stop: AtomicBool,
}

impl Watch {
    /// The longest time in which any of these servers acknowledged nothing, of what lies between two moments. One that never wrote again waits until the end.
    pub fn longest_pause(&self, servers: &[usize], since: Instant, until: Instant) -> Duration {
        servers.iter().map(|&server| longest_gap(&self.lock(server), since, until)).max().unwrap_or_default()
    }

    /// When the server first acknowledged something after a moment.
    pub fn first_after(&self, server: usize, since: Instant) -> Option<Instant> {
        self.lock(server).iter().copied().find(|&at| at > since)
    }

    /// Statements that failed, and connections.
    pub fn errors(&self) -> u64 {
        self.errors.load(Ordering::SeqCst)
    }

    fn lock(&self, server: usize) -> std::sync::MutexGuard<'_, Moments> {
        self.moments[server].lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

/// Told to stop also where the job fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// What they write to; the first of the servers tells the others.
pub fn prepare(servers: &[Pgbench]) -> Result<()> {
    let rows = servers.len();
    let first = servers.first().ok_or("bystanders need a server")?;
    execute(
        first,
        &format!(
            "DROP TABLE IF EXISTS bystander; CREATE TABLE bystander (id int PRIMARY KEY, n bigint NOT NULL);
             INSERT INTO bystander SELECT generate_series(0, {rows} - 1), 0"
        ),
    )
}

/// Runs the job while there is a bystander on each server.
pub fn during<T>(servers: &[Pgbench], job: impl FnOnce(&Watch) -> Result<T>) -> Result<T> {
    let moments = servers.iter().map(|_| Mutex::new(vec![Instant::now()])).collect();
    let watch = Watch { moments, errors: AtomicU64::new(0), stop: AtomicBool::new(false) };
    thread::scope(|scope| {
        for (number, server) in servers.iter().enumerate() {
            let watch = &watch;
            scope.spawn(move || stand_by(watch, number, server));
        }
        let _stop = Stop(&watch.stop);
        job(&watch)
    })
}

fn stand_by(watch: &Watch, number: usize, server: &Pgbench) {
    let mut client: Option<Client> = None;
    while !watch.stop.load(Ordering::SeqCst) {
        let Some(session) = &mut client else {
            client = connect(server).ok();
            if client.is_none() {
                watch.errors.fetch_add(1, Ordering::SeqCst);
                thread::sleep(CONNECT_AGAIN);
            }
            continue;
        };
        match session.execute("UPDATE bystander SET n = n + 1 WHERE id = $1", &[&(number as i32)]) {
            Ok(_) => watch.lock(number).push(Instant::now()),
            Err(_) => {
                watch.errors.fetch_add(1, Ordering::SeqCst);
                client = client.filter(|session| !session.is_closed());
            }
        }
    }
}

fn longest_gap(moments: &[Instant], since: Instant, until: Instant) -> Duration {
    // The last one before counts: a pause may have begun with it.
    let first = moments.partition_point(|&at| at <= since).saturating_sub(1);
    let within = moments[first..].iter().copied().map(|at| at.max(since)).take_while(|&at| at < until);
    let ends: Vec<Instant> = within.chain([until]).collect();
    ends.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_what_lies_between_two_commits_and_within_what_is_asked_for() {
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        let moments = [at(0), at(10), at(200), at(210), at(215)];
        assert_eq!(longest_gap(&moments, at(0), at(300)), Duration::from_millis(190));
        assert_eq!(longest_gap(&moments, at(100), at(220)), Duration::from_millis(100));
        assert_eq!(longest_gap(&moments, at(205), at(1000)), Duration::from_millis(785));
        assert_eq!(longest_gap(&moments, at(500), at(700)), Duration::from_millis(200));
    }
}
