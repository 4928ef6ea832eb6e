//! What a statement made of rows that were there, and would be made again where it is applied: as values (docs/adr/0028).
//!
//! An ALTER TABLE evaluates expressions: once for a new column, or for each row where it writes a table anew. If any function ran that is
//! not known to give the same on every node ([`rewrite::is_certain`]), the statement travels together with what came out:
//!
//! - of a new column that is the same in all rows that are there: that value;
//! - of a table that was written anew: all its rows, as inserts. Elsewhere it is emptied, then the statement runs, then the rows come.
//!
//! So do all rows of an unlogged table that is logged from now on: each node had its own.
//!
//! And the bound of a partition, which may be any expression, as a constant.
//!
//! What ran is not read from the statement but seen: casts, operators, checks of domains and functions within functions are no exceptions.
//! A statement of which everything is certain travels as its text alone, however large the table.

use gcs_writeset::body::{PutItem, Remade};
use postgres_r_protocol::capture::order::Command;

use super::touched::Touched;
use super::{transaction, trigger};
use crate::pg::relation::{self, Lock, Oid, Open};
use crate::pg::statement::{self, Ordered};
use crate::pg::{heap, rewrite, role, setting};
use crate::relations;

pub struct Decided {
    /// Tables whose rows travel; those in front were written anew.
    tables: Vec<Oid>,
    anew: usize,
    /// New columns and what the rows have in them that do not travel.
    columns: Vec<(String, Option<String>)>,
    /// The bound of a partition.
    bound: Option<String>,
    pub merges: bool,
}

/// None if the statement may be evaluated again.
pub fn by(ordered: &Ordered, touched: &Touched) -> Option<Decided> {
    let evaluated = &ordered.evaluated;
    let evaluates = evaluated.adds || evaluated.converts || evaluated.shares || evaluated.partition.is_some();
    let is_certain = || !evaluated.asks && !evaluated.shares && touched.functions().all(rewrite::is_certain);
    if !evaluates || is_certain() {
        return None;
    }
    let below: Vec<Oid> = ordered.targets.iter().flat_map(|&target| relation::with_children(target)).collect();
    let bound = evaluated.partition.as_ref().and_then(|partition| {
        let _readable = setting::Scope::readable_here();
        statement::bound_of(partition)
    });
    let mut tables = touched.rewritten();
    if evaluated.shares {
        tables.extend(ordered.targets.iter().copied().filter(|target| !tables.contains(target)).collect::<Vec<_>>());
    }
    let anew = tables.len();
    let mut decided = Decided { tables, anew, columns: Vec::new(), bound, merges: evaluated.merges };
    if evaluated.converts {
        // Also where the values could stay as they are: a check of the column was made anew, and looked at; and elsewhere there is no USING.
        decided.add(touched.with_rows().filter(|table| below.contains(table)));
        decided.add_referencing(touched);
    }
    for column in &evaluated.defaults {
        let tables = touched.with_rows().filter(|table| below.contains(table) && !decided.tables.contains(table)).collect();
        decided.add_column(column, tables, &below);
    }
    let is_plain = decided.tables.is_empty() && decided.columns.is_empty() && decided.bound.is_none() && !evaluated.converts;
    (!is_plain).then_some(decided)
}

impl Decided {
    fn add(&mut self, tables: impl Iterator<Item = Oid>) {
        for table in tables {
            if !self.tables.contains(&table) {
                self.tables.push(table);
            }
        }
    }

    /// A foreign key to a column of another type is made anew, and looked at: there must be no rows without those that they refer to.
    fn add_referencing(&mut self, touched: &Touched) {
        for table in self.tables.clone() {
            let referencing =
                Open::by_oid(table, Lock::AccessShare).map(|table| rewrite::referencing(&table)).unwrap_or_default();
            self.add(touched.with_rows().filter(|table| referencing.contains(table)));
        }
    }

    /// A column that these tables have now, without having been written anew. If there are none with rows, it is one of all that have got it:
    /// the catalog keeps the value all the same.
    fn add_column(&mut self, column: &str, tables: Vec<Oid>, all: &[Oid]) {
        let value = |&table: &Oid| rewrite::missing_value(&Open::by_oid(table, Lock::AccessShare)?, column);
        let readable = setting::Scope::readable();
        let mut values: Vec<Option<String>> = tables.iter().filter_map(value).collect();
        if tables.is_empty() {
            values.extend(all.iter().filter_map(value).find(Option::is_some));
        }
        drop(readable);
        values.dedup();
        if values.len() > 1 {
            // It was evaluated for each of them.
            self.add(tables.into_iter());
            values.clear();
        }
        self.columns.push((column.to_owned(), values.pop().flatten()));
    }

    pub fn append(&self, command: Command, statement: &[u8]) {
        let entry = |(nth, &table): (usize, &Oid)| relation::entry(table).map(|entry| (entry, nth < self.anew));
        let entries: Vec<_> = self.tables.iter().enumerate().filter_map(entry).collect();
        let remade = entries.iter().map(|(entry, anew)| Remade {
            schema: &entry.schema,
            name: &entry.name,
            anew: *anew,
            afterwards: false,
        });
        let remade: Vec<_> = remade.collect();
        let mut item = Vec::with_capacity(statement.len() + 256);
        item.put_decided(&remade, &self.columns, self.bound.as_deref());
        item.extend_from_slice(statement);
        transaction::append_statement(command, &item);
        let command = crate::pg::trigger::current_command();
        for table in self.tables.iter().filter_map(|&table| Open::by_oid(table, Lock::AccessShare)) {
            // What indexes enter is computed once more here, as PostgreSQL has computed it.
            let _owner = role::Acting::restricted(relations::known_open(&table).table.owner);
            heap::for_each_new_row(&table, |row| trigger::on_remade_row(&table, command, row));
        }
    }
}
