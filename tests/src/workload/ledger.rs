//! Clients on all nodes insert numbered rows and write each acknowledged number to a file, whatever happens to the nodes.
//!
//! What they remember is what a bank would: a number that was acknowledged must be there, a number that failed for sure must not, and about a
//! number without an answer either is right.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use gcs::playground::{NodeNumber, Playground};
use postgres::Client;

use super::client::{Failure, classify};
use crate::harness::Group;

pub const TABLE: &str = "CREATE TABLE ledger (id bigint PRIMARY KEY, node int NOT NULL, client int NOT NULL)";
/// Between two attempts to get a connection to a node that is down.
const RECONNECT_EVERY: Duration = Duration::from_millis(50);

/// One acknowledged insert: where, when it was asked for, and when the answer came.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    pub node: NodeNumber,
    pub asked: Instant,
    pub answered: Instant,
}

#[derive(Debug, Default)]
pub struct Book {
    pub acknowledged: BTreeSet<i64>,
    pub failed: BTreeSet<i64>,
    pub unknown: BTreeSet<i64>,
    pub times: Vec<Acknowledged>,
    /// Distinct texts of definite failures, for the curious.
    pub reasons: BTreeSet<String>,
}

/// Running clients.
pub struct Ledger {
    threads: Vec<JoinHandle<()>>,
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<Book>>,
}

impl Ledger {
    /// `clients` on each node; acknowledged numbers go to `file`, one a line.
    pub fn start(group: &Group, clients: usize, file: &Path) -> Ledger {
        let stop = Arc::new(AtomicBool::new(false));
        let book = Arc::new(Mutex::new(Book::default()));
        let file = Arc::new(Mutex::new(File::create(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()))));
        let next = Arc::new(AtomicI64::new(1));
        let mut threads = Vec::new();
        for number in group.numbers() {
            for client in 0..clients {
                let (playground, next) = (group.playground.clone(), next.clone());
                let (stop, book, file) = (stop.clone(), book.clone(), file.clone());
                let one = OneClient { playground, number, client: client as i32, next, stop, book, file };
                threads.push(thread::spawn(move || one.run()));
            }
        }
        Ledger { threads, stop, book }
    }

    /// How long after `since` a node other than `except` acknowledged an insert that was asked for later than `since`.
    pub fn first_acknowledged(&self, since: Instant, except: Option<NodeNumber>) -> Option<Duration> {
        let book = self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let later = book.times.iter().filter(|done| done.asked > since && Some(done.node) != except);
        later.map(|done| done.answered - since).min()
    }

    /// How long after `since` this node acknowledged an insert that was asked for later than `since`.
    pub fn first_on(&self, since: Instant, number: NodeNumber) -> Option<Duration> {
        let book = self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        // Its times are in the order of the answers, nearly; what is looked for is near the end.
        let recent = book.times.iter().rev().take_while(|done| done.answered > since);
        recent.filter(|done| done.asked > since && done.node == number).map(|done| done.answered - since).min()
    }

    /// Lets every client finish what it is at.
    pub fn finish(self) -> Book {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        std::mem::take(&mut *self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
    }
}

struct OneClient {
    playground: Playground,
    number: NodeNumber,
    client: i32,
    next: Arc<AtomicI64>,
    stop: Arc<AtomicBool>,
    book: Arc<Mutex<Book>>,
    file: Arc<Mutex<File>>,
}

impl OneClient {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            match self.playground.connect(self.number, &self.playground.manifest.database) {
                Ok(mut session) => self.insert_until_it_breaks(&mut session),
                Err(_) => thread::sleep(RECONNECT_EVERY),
            }
        }
    }

    fn insert_until_it_breaks(&self, session: &mut Client) {
        while !self.stop.load(Ordering::Relaxed) && !session.is_closed() {
            let id = self.next.fetch_add(1, Ordering::Relaxed);
            let asked = Instant::now();
            let done =
                session.execute("INSERT INTO ledger VALUES ($1, $2, $3)", &[&id, &(self.number.0 as i32), &self.client]);
            let refused = done.is_err();
            self.write_down(id, asked, done.map(drop));
            if refused {
                // A node without majority refuses at once; there is no use in asking it a thousand times a second.
                thread::sleep(RECONNECT_EVERY);
            }
        }
    }

    fn write_down(&self, id: i64, asked: Instant, done: Result<(), postgres::Error>) {
        let answered = Instant::now();
        let mut book = self.book.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        match done.map_err(|error| classify(&error)) {
            Ok(()) => {
                let mut file = self.file.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
                writeln!(file, "{id}").unwrap_or_else(|error| panic!("could not write down {id}: {error}"));
                book.acknowledged.insert(id);
                book.times.push(Acknowledged { node: self.number, asked, answered });
            }
            Err(Failure::Retry) => drop(book.failed.insert(id)),
            Err(Failure::Definite(text)) => {
                book.failed.insert(id);
                book.reasons.insert(text);
            }
            Err(Failure::Unknown(_)) => drop(book.unknown.insert(id)),
        }
    }
}

/// What a node holds, compared to the book. Empty when it is right.
pub fn audit(book: &Book, client: &mut Client) -> Vec<String> {
    let rows = match client.query("SELECT id, count(*) FROM ledger GROUP BY id", &[]) {
        Ok(rows) => rows,
        Err(error) => return vec![error.to_string()],
    };
    let mut wrong = Vec::new();
    let mut there = BTreeSet::new();
    for row in rows {
        let (id, count): (i64, i64) = (row.get(0), row.get(1));
        there.insert(id);
        if count != 1 {
            wrong.push(format!("{id} is there {count} times"));
        }
    }
    wrong.extend(book.acknowledged.difference(&there).map(|id| format!("{id} was acknowledged and is missing")));
    wrong.extend(book.failed.intersection(&there).map(|id| format!("{id} was refused and is there")));
    wrong
}
