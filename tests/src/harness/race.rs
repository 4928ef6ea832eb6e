//! Two transactions on two nodes, neither of which has seen the other.
//!
//! [`after_unseen`] makes the plain race: the first is ordered while the remote backends of the second's node are stopped, so the second
//! runs to its end on a node where the first has not been applied. What certification does not catch there, nothing does.
//! [`while_open`] makes the race that base positions are for: the first is applied on the second's node in the middle of the second.

use std::thread;
use std::time::Duration;

use gcs::playground::NodeNumber;
use postgres::Client;

use super::stopped::Stopped;
use super::{Group, wait};
use crate::workload::client::{Failure, classify};

const WAIT_MAX: Duration = Duration::from_secs(20);

/// Commits `first` on one node, then runs `second` as one transaction on another, which has not applied the first. What became of
/// the second.
pub fn after_unseen(group: &Group, first: (NodeNumber, &str), second: (NodeNumber, &str)) -> Result<(), Failure> {
    let mut client = group.connect(second.0);
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).map_or(0, |row| row.get(0));
    let mut watcher = group.connect(second.0);
    group.settle();
    draw_from_all(&mut watcher);
    let stopped = Stopped::remote_backends(group, second.0);
    group.execute(first.0, first.1);
    thread::scope(|scope| {
        let runner = scope.spawn(|| run(&mut client, &["BEGIN", second.1, "COMMIT"]));
        // It has lost, or waits for the first to be applied.
        wait::until("the second at its end", WAIT_MAX, || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1
                         AND wait_event = 'Extension' AND query = 'COMMIT'";
            let is_waiting = watcher.query_one(waits, &[&pid]).is_ok_and(|row| row.get::<_, i64>(0) == 1);
            if is_waiting || runner.is_finished() { Ok(()) } else { Err("it runs".to_owned()) }
        });
        drop(stopped);
        runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

/// A lease of a sequence is a transaction like others, and could not be had while nothing is applied. After so many values there are enough left.
fn draw_from_all(client: &mut Client) {
    // One may be at its end: then nobody draws from it.
    for row in client.query("SELECT oid FROM pg_class WHERE relkind = 'S' AND relpersistence = 'p'", &[]).unwrap_or_default()
    {
        let sequence: u32 = row.get(0);
        let _ = client.batch_execute(&format!("SELECT nextval({sequence}::regclass) FROM generate_series(1, 40)"));
    }
}

/// Begins a transaction with `open` on one node, commits `first` on another, waits until that is applied on the former (or has
/// ended the open transaction), and then commits. What became of the open one.
pub fn while_open(group: &Group, open: (NodeNumber, &str), first: (NodeNumber, &str)) -> Result<(), Failure> {
    group.settle();
    let mut client = group.connect(open.0);
    run(&mut client, &["BEGIN", open.1])?;
    group.execute(first.0, first.1);
    group.settle();
    run(&mut client, &["COMMIT"])
}

fn run(client: &mut Client, statements: &[&str]) -> Result<(), Failure> {
    for statement in statements {
        client.batch_execute(statement).map_err(|error| classify(&error))?;
    }
    Ok(())
}

/// Runs a statement until it waits for a lock, then `meanwhile`, then lets it end. What became of it.
pub fn while_blocked(
    group: &Group,
    (number, client): (NodeNumber, &mut Client),
    statement: &str,
    meanwhile: impl FnOnce(),
) -> Result<(), Failure> {
    let pid: i32 = client.query_one("SELECT pg_backend_pid()", &[]).map_or(0, |row| row.get(0));
    let mut watcher = group.connect(number);
    thread::scope(|scope| {
        let runner = scope.spawn(|| run(client, &[statement]));
        wait::until("the statement waits for a lock", WAIT_MAX, || {
            let waits = "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock'";
            let is_waiting = watcher.query_one(waits, &[&pid]).is_ok_and(|row| row.get::<_, i64>(0) == 1);
            if is_waiting { Ok(()) } else { Err("it does not wait".to_owned()) }
        });
        meanwhile();
        runner.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
