//! Clients on all nodes append to lists and read them, and keep a history for [`crate::append`].
//!
//! Lists are spread over a few tables, since SERIALIZABLE compares by table what is not read by primary key. A client changes nodes now and then.
//! Its session goes with it, by its read level: with none it waits on the new node by itself until that one has committed all that the old one
//! had; at `session` it takes a token along; at `strong` it takes nothing, and what any client was told before counts too.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use gcs::playground::NodeNumber;
use postgres::{Client, IsolationLevel, Transaction};

use super::client::{Failure, classify};
use crate::append::history::{Element, History, Key, Op, Outcome, Session, Span, Txn};
use crate::harness::{Group, wait};
use crate::rng::Rng;

/// Lists that are in use at the same time; few, so that transactions meet.
const LISTS_ACTIVE: u32 = 8;
/// A list is left alone after about so many appends: every read carries it whole.
const APPENDS_A_LIST: u64 = 60;
const LISTS: u32 = 4000;
const OPS_MAX: u64 = 4;
/// A client leaves its node for another after so many transactions on average.
const STAY: u64 = 20;
const FOLLOW_MAX: Duration = Duration::from_secs(30);

/// How the lists are kept and read.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    pub isolation: IsolationLevel,
    pub tables: u32,
    pub level: Level,
    /// One session in so many has its transactions applied ahead; none at 0.
    pub ahead: u64,
}

/// `postgres_r.read_level`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Eventual,
    Session,
    Strong,
}

impl Shape {
    fn table(self, key: Key) -> String {
        format!("lists_{}", key.0 % self.tables)
    }
}

impl Level {
    fn setting(self) -> &'static str {
        match self {
            Level::Eventual => "SET postgres_r.read_level = eventual",
            Level::Session => "SET postgres_r.read_level = session",
            Level::Strong => "SET postgres_r.read_level = strong",
        }
    }
}

/// What all clients share.
struct Board {
    next_element: AtomicU64,
    next_session: AtomicU32,
    began: Instant,
}

impl Board {
    fn new_session(&self) -> Session {
        Session(self.next_session.fetch_add(1, Ordering::Relaxed))
    }

    fn key(&self, rng: &mut Rng) -> Key {
        let turn = self.next_element.load(Ordering::Relaxed) / (APPENDS_A_LIST * u64::from(LISTS_ACTIVE));
        Key(((turn as u32 * LISTS_ACTIVE) + rng.below(u64::from(LISTS_ACTIVE)) as u32) % LISTS)
    }
}

/// Empty lists, whatever was there.
pub fn prepare(group: &Group, shape: Shape) {
    for table in 0..shape.tables {
        let name = shape.table(Key(table));
        group.execute(
            group.numbers()[0],
            &format!(
                "DROP TABLE IF EXISTS {name}; CREATE TABLE {name} (key int PRIMARY KEY, elements text NOT NULL);
                 INSERT INTO {name} SELECT key, '' FROM generate_series(0, {}) key WHERE key % {} = {table}",
                LISTS - 1,
                shape.tables
            ),
        );
    }
    group.settle();
}

/// Runs `clients` on each node, which move to another node now and then.
pub fn run(group: &Group, shape: Shape, clients: usize, time: Duration) -> History {
    let end = Instant::now() + time;
    let board = Board { next_element: AtomicU64::new(1), next_session: AtomicU32::new(0), began: Instant::now() };
    let board = &board;
    let mut history = History::default();
    thread::scope(|scope| {
        let mut threads = Vec::new();
        for number in group.numbers() {
            for client in 0..clients {
                let seed = (number.0 * 1000 + client) as u64;
                threads.push(scope.spawn(move || one_client(group, shape, number, board, seed, end)));
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

fn one_client(group: &Group, shape: Shape, home: NodeNumber, board: &Board, seed: u64, end: Instant) -> Vec<Txn> {
    let mut rng = Rng::new(seed);
    let mut txns = Vec::new();
    let mut number = home;
    let mut session = board.new_session();
    let mut past: Option<String> = None;
    while Instant::now() < end {
        let Ok(mut client) = group.try_connect(number) else { continue };
        let is_ahead = shape.ahead > 0 && rng.below(shape.ahead) == 0;
        let size = if is_ahead { "0" } else { "DEFAULT" };
        let ahead = format!("SET postgres_r.apply_ahead_size = {size}");
        if client.batch_execute(shape.level.setting()).and_then(|()| client.batch_execute(&ahead)).is_err() {
            continue;
        }
        let follows = past.take().is_some_and(|past| follow(&mut client, shape.level, &past).is_ok());
        if !follows {
            session = board.new_session();
        }
        while Instant::now() < end && !client.is_closed() && rng.below(STAY) != 0 {
            txns.push(one_txn(&mut client, shape, session, board, &mut rng));
            if txns.last().is_some_and(|txn| txn.outcome == Outcome::Unknown) {
                break;
            }
        }
        past = take_along(&mut client, shape.level).ok();
        number = group.numbers()[rng.below(group.numbers().len() as u64) as usize];
    }
    txns
}

fn committed_position(client: &mut Client) -> Result<i64, postgres::Error> {
    client.query_one("SELECT postgres_r.committed_position()", &[]).map(|row| row.get(0))
}

/// What a session has to carry to its next node.
fn take_along(client: &mut Client, level: Level) -> Result<String, postgres::Error> {
    match level {
        Level::Eventual => committed_position(client).map(|position| position.to_string()),
        Level::Session => client.query_one("SELECT postgres_r.session_token()", &[]).map(|row| row.get(0)),
        Level::Strong => Ok(String::new()),
    }
}

/// The session goes on here.
fn follow(client: &mut Client, level: Level, past: &str) -> Result<(), postgres::Error> {
    match level {
        Level::Eventual => catch_up(client, past.parse().unwrap_or_default()),
        Level::Session => client.batch_execute(&format!("SET postgres_r.read_after = '{past}'")),
        Level::Strong => Ok(()),
    }
}

/// Until this node has committed everything up to `past`.
fn catch_up(client: &mut Client, past: i64) -> Result<(), postgres::Error> {
    let (reached, _) = wait::until("a node to catch up with a session", FOLLOW_MAX, || match committed_position(client) {
        Ok(position) if position < past => Err(format!("{position} of {past}")),
        Ok(_) => Ok(Ok(())),
        Err(error) => Ok(Err(error)),
    });
    reached
}

fn one_txn(client: &mut Client, shape: Shape, session: Session, board: &Board, rng: &mut Rng) -> Txn {
    let mut ops = Vec::new();
    let began = board.began.elapsed();
    let outcome = match attempt(client, shape, board, rng, &mut ops) {
        Ok(()) => Outcome::Committed,
        Err(Stage::Before(_)) => Outcome::Aborted,
        Err(Stage::Commit(error)) => match classify(&error) {
            Failure::Unknown(_) => Outcome::Unknown,
            Failure::Retry | Failure::Definite(_) => Outcome::Aborted,
        },
    };
    // Real time counts only where it was promised.
    let span = (shape.level == Level::Strong).then(|| Span { began, ended: board.began.elapsed() });
    Txn { session, outcome, ops, span }
}

/// Where it failed: before COMMIT was asked for, nothing can have happened.
enum Stage {
    Before(#[expect(dead_code, reason = "kept for a debugger")] postgres::Error),
    Commit(postgres::Error),
}

fn attempt(client: &mut Client, shape: Shape, board: &Board, rng: &mut Rng, ops: &mut Vec<Op>) -> Result<(), Stage> {
    let builder = client.build_transaction().isolation_level(shape.isolation);
    let mut transaction = builder.start().map_err(Stage::Before)?;
    for _ in 0..=rng.below(OPS_MAX) {
        let key = board.key(rng);
        if rng.percent(50) {
            let element = Element(board.next_element.fetch_add(1, Ordering::Relaxed));
            // Written down first: if it fails, the history must know whose element this was.
            ops.push(Op::Append(key, element));
            append(&mut transaction, shape, key, element).map_err(Stage::Before)?;
        } else {
            let list = read(&mut transaction, shape, key, rng).map_err(Stage::Before)?;
            ops.push(Op::Read(key, list));
        }
    }
    transaction.commit().map_err(Stage::Commit)
}

fn append(transaction: &mut Transaction<'_>, shape: Shape, key: Key, element: Element) -> Result<(), postgres::Error> {
    let update = format!("UPDATE {} SET elements = elements || ' ' || $2 WHERE key = $1", shape.table(key));
    transaction.execute(&update, &[&(key.0 as i32), &element.0.to_string()]).map(drop)
}

/// Mostly by the index; now and then by looking at every list of the table.
fn read(transaction: &mut Transaction<'_>, shape: Shape, key: Key, rng: &mut Rng) -> Result<Vec<Element>, postgres::Error> {
    let column = if rng.below(8) == 0 { "key + 0" } else { "key" };
    let query = format!("SELECT elements FROM {} WHERE {column} = $1", shape.table(key));
    let row = transaction.query_one(&query, &[&(key.0 as i32)])?;
    Ok(parse(row.get(0)))
}

fn parse(elements: &str) -> Vec<Element> {
    elements.split_whitespace().filter_map(|text| text.parse().ok()).map(Element).collect()
}

/// All lists as a node shows them, once it is quiet.
pub fn read_all(client: &mut Client, shape: Shape) -> BTreeMap<Key, Vec<Element>> {
    let tables = (0..shape.tables).map(|table| {
        let query = format!("SELECT key, elements FROM {} WHERE elements <> ''", shape.table(Key(table)));
        client.query(&query, &[]).unwrap_or_else(|error| panic!("{error}"))
    });
    tables.flatten().map(|row| (Key(row.get::<_, i32>(0) as u32), parse(row.get(1)))).collect()
}

/// The last state as one more transaction of a session of its own, so that the checker knows every list to its end.
pub fn add_final_read(history: &mut History, last: &BTreeMap<Key, Vec<Element>>) {
    let ops = last.iter().map(|(key, list)| Op::Read(*key, list.clone())).collect();
    history.txns.push(Txn { session: Session(u32::MAX), outcome: Outcome::Committed, ops, span: None });
}
