//! A replicated database of a test's own, beside the group's: what is done to it leaves the group as it was.

use std::time::Duration;

use gcs::playground::NodeNumber;
use gcs::playground::group::{describe, quote_identifier};
use postgres::Client;

use super::{Group, wait};

const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

pub struct Database<'a> {
    pub group: &'a Group,
    pub name: &'a str,
}

impl<'a> Database<'a> {
    /// Makes it on every node and starts its replication. The name must be a new one: the group remembers what it has ordered.
    pub fn replicated(group: &'a Group, name: &'a str) -> Database<'a> {
        let database = Database { group, name };
        for number in group.numbers() {
            database.make(number);
            database.start(number).unwrap_or_else(|error| panic!("node {}: {}", number.0, describe(&error)));
        }
        database
    }

    pub fn make(&self, number: NodeNumber) {
        let made = self.on_server(number, &format!("CREATE DATABASE {}", quote_identifier(self.name)));
        made.unwrap_or_else(|error| panic!("node {}: {}", number.0, describe(&error)));
        self.execute(number, "CREATE EXTENSION postgres_r");
    }

    pub fn start(&self, number: NodeNumber) -> Result<(), postgres::Error> {
        let (name, group) = (quote_identifier(self.name), quote_identifier(&self.group.playground.manifest.group));
        self.on_server(number, &format!("ALTER DATABASE {name} START REPLICATION IN GROUP {group}"))
    }

    pub fn stop(&self, number: NodeNumber) -> Result<(), postgres::Error> {
        self.on_server(number, &format!("ALTER DATABASE {} STOP REPLICATION", quote_identifier(self.name)))
    }

    /// From a database of that server that is not replicated.
    pub fn on_server(&self, number: NodeNumber, sql: &str) -> Result<(), postgres::Error> {
        self.server(number).batch_execute(sql)
    }

    pub fn server(&self, number: NodeNumber) -> Client {
        self.group.playground.connect(number, "postgres").unwrap_or_else(|error| panic!("node {}: {error}", number.0))
    }

    pub fn try_connect(&self, number: NodeNumber) -> Result<Client, postgres::Error> {
        self.group.playground.connect(number, self.name)
    }

    pub fn connect(&self, number: NodeNumber) -> Client {
        self.try_connect(number).unwrap_or_else(|error| panic!("node {}: {}", number.0, describe(&error)))
    }

    pub fn execute(&self, number: NodeNumber, sql: &str) {
        let done = self.connect(number).batch_execute(sql);
        done.unwrap_or_else(|error| panic!("node {}: {sql}: {}", number.0, describe(&error)));
    }

    /// The first column of the first row, as text.
    pub fn value(&self, number: NodeNumber, query: &str) -> String {
        value(&mut self.connect(number), query)
    }

    /// Waits until the query gives this value on the node.
    pub fn arrives(&self, number: NodeNumber, query: &str, wanted: &str) {
        wait::until(&format!("{wanted} of {query} on node {}", number.0), ARRIVES_WITHIN, || {
            let mut client = self.try_connect(number).map_err(|error| describe(&error))?;
            let row = client.query_one(&format!("SELECT ({query})::text"), &[]).map_err(|error| describe(&error))?;
            let found: Option<String> = row.get(0);
            if found.as_deref() == Some(wanted) { Ok(()) } else { Err(format!("it gives {found:?}")) }
        });
    }

    /// Stops its replication where it is replicated, and drops it everywhere.
    pub fn end(self) {
        for number in self.group.numbers() {
            let _ = self.stop(number);
            self.on_server(number, &format!("DROP DATABASE IF EXISTS {}", quote_identifier(self.name)))
                .unwrap_or_else(|error| panic!("node {}: {}", number.0, describe(&error)));
        }
    }
}

pub fn value(client: &mut Client, query: &str) -> String {
    let row = client.query_one(&format!("SELECT ({query})::text"), &[]);
    let value: Option<String> = row.unwrap_or_else(|error| panic!("{query}: {}", describe(&error))).get(0);
    value.unwrap_or_else(|| "NULL".to_owned())
}
