//! Clients on all nodes append to lists and read them, and keep a history for [`crate::append`].

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::NodeNumber;
use postgres::{Client, IsolationLevel, Transaction};

use super::client::{Failure, classify};
use crate::append::history::{Element, History, Key, Op, Outcome, Session, Txn};
use crate::harness::Group;
use crate::rng::Rng;

/// Lists that are in use at the same time; few, so that transactions meet.
const LISTS_ACTIVE: u32 = 8;
/// A list is left alone after about so many appends: every read carries it whole.
const APPENDS_A_LIST: u64 = 60;
const LISTS: u32 = 4000;
const OPS_MAX: u64 = 4;
/// A client leaves its node for another after so many transactions on average.
const STAY: u64 = 50;

pub const TABLE: &str = "CREATE TABLE lists (key int PRIMARY KEY, elements text NOT NULL)";

/// What all clients share.
struct Board {
    next_element: AtomicU64,
    next_session: AtomicU32,
}

impl Board {
    fn key(&self, rng: &mut Rng) -> Key {
        let turn = self.next_element.load(Ordering::Relaxed) / (APPENDS_A_LIST * u64::from(LISTS_ACTIVE));
        Key(((turn as u32 * LISTS_ACTIVE) + rng.below(u64::from(LISTS_ACTIVE)) as u32) % LISTS)
    }
}

pub fn prepare(group: &Group) {
    let fill = format!("INSERT INTO lists SELECT key, '' FROM generate_series(0, {}) key", LISTS - 1);
    group.execute(group.numbers()[0], TABLE);
    group.execute(group.numbers()[0], &fill);
    group.settle();
}

/// Runs `clients` on each node at REPEATABLE READ, some of which move to another node now and then.
pub fn run(group: &Group, clients: usize, time: Duration) -> History {
    let end = Instant::now() + time;
    let board = Board { next_element: AtomicU64::new(1), next_session: AtomicU32::new(0) };
    let board = &board;
    let mut history = History::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in group.numbers() {
            for client in 0..clients {
                let seed = (number.0 * 1000 + client) as u64;
                threads.push(scope.spawn(move || one_client(group, number, board, seed, end)));
            }
        }
        for thread in threads {
            match thread.join() {
                Ok(txns) => history.txns.extend(txns),
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    });
    history
}

/// Each connection is a session of its own: what it promised about order does not follow a client to another node.
fn one_client(group: &Group, home: NodeNumber, board: &Board, seed: u64, end: Instant) -> Vec<Txn> {
    let mut rng = Rng::new(seed);
    let mut txns = Vec::new();
    let mut number = home;
    while Instant::now() < end {
        let Ok(mut client) = group.try_connect(number) else { continue };
        let session = Session(board.next_session.fetch_add(1, Ordering::Relaxed));
        while Instant::now() < end && !client.is_closed() && rng.below(STAY) != 0 {
            txns.push(one_txn(&mut client, session, board, &mut rng));
            if txns.last().is_some_and(|txn| txn.outcome == Outcome::Unknown) {
                break;
            }
        }
        number = group.numbers()[rng.below(group.numbers().len() as u64) as usize];
    }
    txns
}

fn one_txn(client: &mut Client, session: Session, board: &Board, rng: &mut Rng) -> Txn {
    let mut ops = Vec::new();
    let outcome = match attempt(client, board, rng, &mut ops) {
        Ok(()) => Outcome::Committed,
        Err(Stage::Before(_)) => Outcome::Aborted,
        Err(Stage::Commit(error)) => match classify(&error) {
            Failure::Unknown(_) => Outcome::Unknown,
            Failure::Retry | Failure::Definite(_) => Outcome::Aborted,
        },
    };
    Txn { session, outcome, ops }
}

/// Where it failed: before COMMIT was asked for, nothing can have happened.
enum Stage {
    Before(#[expect(dead_code, reason = "kept for a debugger")] postgres::Error),
    Commit(postgres::Error),
}

fn attempt(client: &mut Client, board: &Board, rng: &mut Rng, ops: &mut Vec<Op>) -> Result<(), Stage> {
    let builder = client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
    let mut transaction = builder.start().map_err(Stage::Before)?;
    for _ in 0..=rng.below(OPS_MAX) {
        let key = board.key(rng);
        if rng.percent(50) {
            let element = Element(board.next_element.fetch_add(1, Ordering::Relaxed));
            // Written down first: if it fails, the history must know whose element this was.
            ops.push(Op::Append(key, element));
            append(&mut transaction, key, element).map_err(Stage::Before)?;
        } else {
            let list = read(&mut transaction, key).map_err(Stage::Before)?;
            ops.push(Op::Read(key, list));
        }
    }
    transaction.commit().map_err(Stage::Commit)
}

fn append(transaction: &mut Transaction<'_>, key: Key, element: Element) -> Result<(), postgres::Error> {
    let update = "UPDATE lists SET elements = elements || ' ' || $2 WHERE key = $1";
    transaction.execute(update, &[&(key.0 as i32), &element.0.to_string()]).map(drop)
}

fn read(transaction: &mut Transaction<'_>, key: Key) -> Result<Vec<Element>, postgres::Error> {
    let row = transaction.query_one("SELECT elements FROM lists WHERE key = $1", &[&(key.0 as i32)])?;
    Ok(parse(row.get(0)))
}

fn parse(elements: &str) -> Vec<Element> {
    elements.split_whitespace().filter_map(|text| text.parse().ok()).map(Element).collect()
}

/// All lists as a node shows them, once it is quiet.
pub fn read_all(client: &mut Client) -> BTreeMap<Key, Vec<Element>> {
    let rows = client.query("SELECT key, elements FROM lists WHERE elements <> ''", &[]);
    let rows = rows.unwrap_or_else(|error| panic!("{error}"));
    rows.iter().map(|row| (Key(row.get::<_, i32>(0) as u32), parse(row.get(1)))).collect()
}

/// The last state as one more transaction of a session of its own, so that the checker knows every list to its end.
pub fn add_final_read(history: &mut History, last: &BTreeMap<Key, Vec<Element>>) {
    let ops = last.iter().map(|(key, list)| Op::Read(*key, list.clone())).collect();
    history.txns.push(Txn { session: Session(u32::MAX), outcome: Outcome::Committed, ops });
}
