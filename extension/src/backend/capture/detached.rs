//! ALTER TABLE ... DETACH PARTITION ... CONCURRENTLY on its origin, as [`super::concurrently`] (docs/adr/0058-concurrently.md).
//!
//! PostgreSQL takes two transactions. In the first the partition gets a constraint in the place of its bound, and is marked: from then on no query
//! is planned with it. It travels with that constraint, and other nodes do the same. The second, behind a wait for those who use the partitioned
//! table, detaches it; it travels as FINALIZE.

use gcs_writeset::body::PutItem;
use gcs_writeset::key::name_hash;
use postgres_r_protocol::capture::buffer::{Guard, Strength};
use postgres_r_protocol::capture::order::Command;

use super::{item, overlap, transaction};
use crate::pg::names::quoted;
use crate::pg::relation::{self, Entry, Oid};
use crate::pg::{detach, trigger};
use crate::{relations, session};

/// The partitioned table and the partition.
pub type Tables = (Oid, Oid);

fn named(tables: Tables) -> Option<(Entry, Entry)> {
    Some((relation::entry(tables.0)?, relation::entry(tables.1)?))
}

fn text((parent, partition): &(Entry, Entry), how: &str) -> String {
    let name = |entry: &Entry| format!("{}.{}", quoted(&entry.schema), quoted(&entry.name));
    format!("ALTER TABLE {} DETACH PARTITION {} {how}", name(parent), name(partition))
}

/// The first step. Rows may go into the partition all the while.
pub fn mark(tables: Tables, constraint: Option<Oid>, base: gcs_writeset::Position) {
    let Some(named) = named(tables) else { return };
    transaction::ensure_writable();
    for Entry { schema, name, .. } in [&named.0, &named.1] {
        let key = relations::relation_key(name_hash(&[schema, name]));
        transaction::add_key(key, Strength::Shared, Guard::Held(session::committed()));
    }
    overlap::add_keys_at_large(base);
    let mut item = Vec::new();
    if let Some((name, check)) = constraint.and_then(detach::constraint) {
        item.put_decided(&[], &[(name, Some(check))], None);
    }
    item.extend(item::item_of(&text(&named, "CONCURRENTLY")));
    transaction::append_statement(Command(trigger::current_command()), &item);
}

/// The second step. Nobody else uses the partition here.
pub fn finish(tables: Tables) {
    let Some(named) = named(tables) else { return };
    transaction::ensure_writable();
    let held = Guard::Held(session::committed());
    transaction::add_whole(name_hash(&[&named.1.schema, &named.1.name]), held);
    let parent = relations::relation_key(name_hash(&[&named.0.schema, &named.0.name]));
    transaction::add_key(parent, Strength::Shared, held);
    overlap::add_keys_at_large(session::committed());
    let finalize = item::item_of(&text(&named, "FINALIZE"));
    transaction::append_statement(Command(trigger::current_command()), &finalize);
}
