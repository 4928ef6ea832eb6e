//! Customers with a unique e-mail address, and their invoices: what constraints forbid is tried all the time, from every node.
//!
//! Few addresses and few customers, so that two nodes often want the same one at once: take an address that is free, give it up,
//! move to another, go while an invoice comes in.

use std::time::{Duration, Instant};

use postgres::Client;
use postgres::error::SqlState;

use super::client::{Failure, classify};
use super::fan;
use crate::harness::Group;
use crate::rng::Rng;

pub const TABLES: &str = "
    CREATE TABLE customer (id serial PRIMARY KEY, email text NOT NULL UNIQUE);
    CREATE TABLE invoice (id serial PRIMARY KEY, customer int NOT NULL REFERENCES customer, amount int NOT NULL);
    CREATE TABLE reminder (id serial PRIMARY KEY, customer int REFERENCES customer ON DELETE CASCADE);
    CREATE INDEX ON invoice (customer);
    CREATE INDEX ON reminder (customer)";

const ADDRESSES: u64 = 60;

/// What all clients together did.
#[derive(Debug, Default)]
pub struct Summary {
    pub transactions: u64,
    /// Statements that a constraint forbade, as it would have on one server.
    pub forbidden: u64,
    pub retries: u64,
    /// Commits answered with 08007 that said "is committed".
    pub late: u64,
    /// Acknowledged customers and invoices, less those acknowledged to be gone.
    pub customers: i64,
    pub invoices: i64,
    /// Anything else; a healthy group gives none.
    pub errors: Vec<String>,
}

/// Runs `clients` clients on each node.
pub fn run(group: &Group, clients: usize, time: Duration) -> Summary {
    let end = Instant::now() + time;
    let mut all = Summary::default();
    for one in fan::on_all_nodes(group, clients, |client, seed| one_client(client, seed, end)) {
        all.transactions += one.transactions;
        all.forbidden += one.forbidden;
        all.retries += one.retries;
        all.late += one.late;
        all.customers += one.customers;
        all.invoices += one.invoices;
        all.errors.extend(one.errors);
    }
    all
}

fn one_client(client: &mut Client, seed: u64, end: Instant) -> Summary {
    let mut rng = Rng::new(seed);
    let mut summary = Summary::default();
    while Instant::now() < end && summary.errors.len() < 10 {
        match step(client, &mut rng) {
            Ok(Done { customers, invoices, late }) => {
                summary.transactions += 1;
                summary.late += u64::from(late);
                summary.customers += customers;
                summary.invoices += invoices;
            }
            Err(error) if is_forbidden(&error) => summary.forbidden += 1,
            Err(error) => match classify(&error) {
                Failure::Retry => summary.retries += 1,
                Failure::Definite(text) | Failure::Unknown(text) => summary.errors.push(text),
            },
        }
    }
    summary
}

fn is_late(error: &postgres::Error) -> bool {
    error.as_db_error().is_some_and(|error| error.code().code() == "08007" && error.message().contains("is committed"))
}

fn is_forbidden(error: &postgres::Error) -> bool {
    matches!(error.code(), Some(code) if *code == SqlState::UNIQUE_VIOLATION || *code == SqlState::FOREIGN_KEY_VIOLATION)
}

/// A committed transaction: by how many customers and invoices there are more.
struct Done {
    customers: i64,
    invoices: i64,
    late: bool,
}

fn step(client: &mut Client, rng: &mut Rng) -> Result<Done, postgres::Error> {
    let email = format!("c{}@example.org", rng.below(ADDRESSES));
    let one = "(SELECT id FROM customer ORDER BY hashint4(id + $1) LIMIT 1)";
    let dice = rng.below(1 << 30) as i32;
    let mut transaction = client.transaction()?;
    let (customers, invoices) = match rng.below(100) {
        0..25 => (transaction.execute("INSERT INTO customer (email) VALUES ($1)", &[&email])? as i64, 0),
        25..40 => {
            transaction.execute(&format!("UPDATE customer SET email = $2 WHERE id = {one}"), &[&dice, &email])?;
            (0, 0)
        }
        40..65 => {
            // The customer may be gone by the time of the insert: an error, or an invoice for somebody who is there.
            let found = transaction.query_opt(&format!("SELECT {one}"), &[&dice])?;
            let customer: Option<i32> = found.and_then(|row| row.get(0));
            transaction.execute("INSERT INTO reminder (customer) SELECT $1::int WHERE $1::int IS NOT NULL", &[&customer])?;
            let sql = "INSERT INTO invoice (customer, amount) SELECT $1::int, 7 WHERE $1::int IS NOT NULL";
            (0, transaction.execute(sql, &[&customer])? as i64)
        }
        65..80 => (0, -(transaction.execute(&format!("DELETE FROM invoice WHERE customer = {one}"), &[&dice])? as i64)),
        80..90 => (-(transaction.execute(&format!("DELETE FROM customer WHERE id = {one}"), &[&dice])? as i64), 0),
        _ => {
            // All of it, in one transaction: the address is free for whoever comes next.
            let found = transaction.query_opt(&format!("SELECT {one}"), &[&dice])?;
            let customer: Option<i32> = found.and_then(|row| row.get(0));
            let invoices = transaction.execute("DELETE FROM invoice WHERE customer = $1", &[&customer])?;
            let customers = transaction.execute("DELETE FROM customer WHERE id = $1", &[&customer])?;
            (-(customers as i64), -(invoices as i64))
        }
    };
    let late = match transaction.commit() {
        Ok(()) => false,
        Err(error) if is_late(&error) => true,
        Err(error) => return Err(error),
    };
    Ok(Done { customers, invoices, late })
}
