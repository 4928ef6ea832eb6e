//! The workload of the 2008 study of Postgres-R: one table, clients on every node that insert, update, delete and read.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use postgres::Client;

use super::client::{Failure, classify};
use super::fan;
use crate::harness::Group;
use crate::rng::Rng;

pub const TABLE: &str = "CREATE TABLE pessoas (codigo serial PRIMARY KEY, nome text)";

/// What all clients together did.
#[derive(Debug, Default)]
pub struct Summary {
    pub inserted: BTreeSet<i32>,
    /// Rows whose deletion was acknowledged.
    pub deleted: BTreeSet<i32>,
    /// Rows that a deletion of unknown outcome was about, and names of inserts without an answer.
    pub unknown: usize,
    pub transactions: u64,
    pub retries: u64,
    /// Anything but a retry; a healthy group gives none.
    pub errors: Vec<String>,
}

impl Summary {
    fn absorb(&mut self, other: Summary) {
        for code in other.inserted {
            // A serial value given out twice.
            if !self.inserted.insert(code) {
                self.errors.push(format!("codigo {code} was inserted twice"));
            }
        }
        self.deleted.extend(other.deleted);
        self.unknown += other.unknown;
        self.transactions += other.transactions;
        self.retries += other.retries;
        self.errors.extend(other.errors);
    }
}

/// Runs `clients` clients on each node: 30 % INSERT, 20 % UPDATE, 10 % DELETE, 40 % SELECT.
pub fn run(group: &Group, clients: usize, time: Duration) -> Summary {
    let end = Instant::now() + time;
    let mut summary = Summary::default();
    for done in fan::on_all_nodes(group, clients, |client, seed| one_client(client, seed, end)) {
        summary.absorb(done);
    }
    summary
}

fn one_client(client: &mut Client, seed: u64, end: Instant) -> Summary {
    let mut rng = Rng::new(seed);
    let mut summary = Summary::default();
    while Instant::now() < end && summary.errors.len() < 10 {
        let dice = rng.below(100);
        let step = |client: &mut Client, rng: &mut Rng, summary: &mut Summary| match dice {
            0..30 => insert(client, rng, summary),
            30..50 => update(client, rng),
            50..60 => delete(client, rng, summary),
            _ => client.query("SELECT count(*) FROM pessoas WHERE codigo % 97 = $1", &[&(rng.below(97) as i32)]).map(drop),
        };
        match step(client, &mut rng, &mut summary) {
            Ok(()) => summary.transactions += 1,
            Err(error) => match classify(&error) {
                Failure::Retry => summary.retries += 1,
                Failure::Definite(text) | Failure::Unknown(text) => summary.errors.push(text),
            },
        }
    }
    summary
}

fn insert(client: &mut Client, rng: &mut Rng, summary: &mut Summary) -> Result<(), postgres::Error> {
    let name = format!("pessoa {}", rng.below(1 << 40));
    let code: i32 = client.query_one("INSERT INTO pessoas (nome) VALUES ($1) RETURNING codigo", &[&name])?.get(0);
    if !summary.inserted.insert(code) {
        summary.errors.push(format!("codigo {code} was given out twice"));
    }
    Ok(())
}

/// Some row near a random point; none if there is none.
const PICK: &str = "(SELECT codigo FROM pessoas WHERE codigo >= $1 ORDER BY codigo LIMIT 1)";

fn update(client: &mut Client, rng: &mut Rng) -> Result<(), postgres::Error> {
    let near = pick(client, rng)?;
    let name = format!("outra {}", rng.below(1 << 40));
    client.execute(&format!("UPDATE pessoas SET nome = $2 WHERE codigo = {PICK}"), &[&near, &name]).map(drop)
}

fn delete(client: &mut Client, rng: &mut Rng, summary: &mut Summary) -> Result<(), postgres::Error> {
    let near = pick(client, rng)?;
    let gone = client.query(&format!("DELETE FROM pessoas WHERE codigo = {PICK} RETURNING codigo"), &[&near])?;
    summary.deleted.extend(gone.iter().map(|row| row.get::<_, i32>(0)));
    Ok(())
}

fn pick(client: &mut Client, rng: &mut Rng) -> Result<i32, postgres::Error> {
    let highest: Option<i32> = client.query_one("SELECT max(codigo) FROM pessoas", &[])?.get(0);
    Ok(rng.below(highest.unwrap_or(1).max(1) as u64) as i32)
}
