//! What the group knows of a subscription: rows of the extension's tables, replicated as any others.

use gcs_writeset::NodeId;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::id::Lsn;
use postgres_r_protocol::platform::Exclusion;

use crate::error::Error;
use crate::node::{self, DatabaseArea};
use crate::pg::query::{Row, first_row, literal, rows};
use crate::pg::relation::Oid;
use crate::pg::subscriber::TableState;
use crate::pg::{origin, subscriber};
use crate::session;

/// A subscription, as the group has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub name: String,
    pub carrier: NodeId,
    /// The carrier's name, for people.
    pub node: String,
    /// Goes up whenever another node carries it.
    pub term: i64,
    pub enabled: bool,
}

impl Subscription {
    pub fn is_carried_here(&self) -> bool {
        session::database().is_some_and(|area| area.replica.node() == self.carrier)
    }
}

/// A table of a subscription, as the group has it, on this node.
pub struct Table {
    pub relation: Oid,
    pub state: TableState,
    /// None before it was copied.
    pub position: Option<Lsn>,
    /// By which the node that copied it gets what comes for it.
    pub slot: String,
}

const COLUMNS: &str = "SELECT name, carrier, node, term, enabled FROM postgres_r.subscriptions";

fn subscription(row: Row) -> Option<Subscription> {
    let [Some(name), Some(carrier), Some(node), Some(term), Some(enabled)] = <[_; 5]>::try_from(row).ok()? else {
        return None;
    };
    let carrier = NodeId(carrier.parse::<i64>().ok()?.cast_unsigned());
    Some(Subscription { name, carrier, node, term: term.parse().ok()?, enabled: enabled == "t" })
}

/// None if the group does not know that anybody subscribes.
pub fn find(name: &str) -> Option<Subscription> {
    subscription(first_row(&format!("{COLUMNS} WHERE name = {}", literal(name)))?)
}

pub fn all() -> Vec<Subscription> {
    rows(COLUMNS).into_iter().filter_map(subscription).collect()
}

/// A place in the publisher's log as PostgreSQL writes it.
pub fn lsn_text(lsn: Lsn) -> String {
    format!("{:X}/{:X}", lsn.0 >> 32, lsn.0 & 0xffff_ffff)
}

fn lsn_of(text: &str) -> Option<Lsn> {
    let (high, low) = text.split_once('/')?;
    let half = |digits| u32::from_str_radix(digits, 16).ok();
    Some(Lsn(u64::from(half(high)?) << 32 | u64::from(half(low)?)))
}

fn lsn_literal(lsn: Option<Lsn>) -> String {
    lsn.map_or("NULL".to_owned(), |lsn| format!("'{}'", lsn_text(lsn)))
}

/// How far the group is; none if nothing has come yet.
pub fn position(name: &str) -> Option<Lsn> {
    let row = first_row(&format!(
        "SELECT position FROM postgres_r.subscription_positions WHERE subscription = {}",
        literal(name)
    ))?;
    lsn_of(row.first()?.as_deref()?)
}

pub fn tables(name: &str) -> Vec<Table> {
    let query = format!(
        "SELECT t.relation::oid, t.state, t.position, t.slot FROM postgres_r.subscription_tables t JOIN pg_class c ON c.oid = t.relation
         WHERE t.subscription = {}",
        literal(name)
    );
    let table = |row: Row| {
        let [relation, state, position, slot] = <[_; 4]>::try_from(row).ok()?;
        Some(Table {
            relation: Oid::from(relation?.parse::<u32>().ok()?),
            state: TableState::of_letter(&state?)?,
            position: position.as_deref().and_then(lsn_of),
            slot: slot.unwrap_or_default(),
        })
    };
    rows(&query).into_iter().filter_map(table).collect()
}

/// The subscription's number on this node, its connection to the publisher, and whether this server runs workers for it.
pub fn local(name: &str) -> Option<(Oid, String, bool)> {
    let query = format!(
        "SELECT oid, subconninfo, subenabled FROM pg_subscription
         WHERE subname = {} AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        literal(name)
    );
    let [Some(oid), Some(connection), Some(enabled)] = <[_; 3]>::try_from(first_row(&query)?).ok()? else { return None };
    Some((Oid::from(oid.parse::<u32>().ok()?), connection, enabled == "t"))
}

/// Whether the subscription is to have two_phase, and disable_on_error.
pub fn local_options(name: &str) -> (bool, bool) {
    let query = format!(
        "SELECT subtwophasestate <> 'd', subdisableonerr FROM pg_subscription
         WHERE subname = {} AND subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())",
        literal(name)
    );
    let row = first_row(&query).unwrap_or_default();
    let is = |column: usize| row.get(column).is_some_and(|value| value.as_deref() == Some("t"));
    (is(0), is(1))
}

/// The subscriptions for which this server copies the table, or has it catch up.
pub fn copying(table: Oid) -> Vec<Oid> {
    let query = format!("SELECT srsubid FROM pg_subscription_rel WHERE srrelid = {} AND srsubstate <> 'r'", table.to_u32());
    let number = |row: Row| Some(Oid::from(row.into_iter().next()??.parse::<u32>().ok()?));
    rows(&query).into_iter().filter_map(number).collect()
}

/// How far this server's catalog says that a table is.
pub fn local_state(subscription: Oid, table: Oid) -> Option<(TableState, Option<Lsn>)> {
    let (subscription, table) = (subscription.to_u32(), table.to_u32());
    let query =
        format!("SELECT srsubstate, srsublsn FROM pg_subscription_rel WHERE srsubid = {subscription} AND srrelid = {table}");
    let [Some(state), lsn] = <[_; 2]>::try_from(first_row(&query)?).ok()? else { return None };
    Some((TableState::of_letter(&state)?, lsn.as_deref().and_then(lsn_of)))
}

/// This node's number and name as SQL, and its database.
fn me() -> Option<(&'static DatabaseArea, i64, String)> {
    let (node, area) = (node::get()?, session::database()?);
    let id = area.replica.node();
    let name = node.table.shared(|| area.replica.node_name(id));
    Some((area, id.0.cast_signed(), literal(&name)))
}

/// This node carries the subscription from now on.
pub fn take(name: &str) {
    let Some((_, me, node)) = me() else { return };
    let quoted = literal(name);
    let is_new = find(name).is_none();
    let row = first_row(&format!(
        "INSERT INTO postgres_r.subscriptions AS s VALUES ({quoted}, {me}, {node}, 1, true) ON CONFLICT (name)
         DO UPDATE SET carrier = {me}, node = {node}, enabled = true, term = s.term + (s.carrier <> {me})::int RETURNING term"
    ));
    let Some(term) = row.and_then(|row| row.into_iter().next().flatten()) else { return };
    // Whoever carried it until now changes these rows with everything that it commits: one of the two loses.
    first_row(&format!(
        "INSERT INTO postgres_r.subscription_positions AS p VALUES ({quoted}, {term}, {}) ON CONFLICT (subscription)
         DO UPDATE SET term = excluded.term WHERE p.term <> excluded.term",
        lsn_literal(own_position(name))
    ));
    first_row(&format!(
        "UPDATE postgres_r.subscription_tables SET term = {term} WHERE subscription = {quoted} AND term <> {term}"
    ));
    if is_new {
        note_tables(name);
    }
}

/// What CREATE SUBSCRIPTION has made here, and what it was asked for.
pub fn created(name: &str, enabled: bool) {
    // A subscription of this name that was dropped where the database was not replicated.
    forget(name);
    take(name);
    if !enabled {
        disable(name);
    }
}

/// How far this server's own origin of a subscription is, which the group has not heard of yet.
fn own_position(name: &str) -> Option<Lsn> {
    let (subscription, ..) = local(name)?;
    let reached = origin::reached_by(origin::by_name(&subscriber::origin_name(subscription, None))?);
    (reached > Lsn(0)).then_some(reached)
}

/// The tables of a subscription are those that this server's catalog has; what the group knows of them stays.
pub fn note_tables(name: &str) {
    let quoted = literal(name);
    first_row(&format!(
        "INSERT INTO postgres_r.subscription_tables
         SELECT s.subname, r.srrelid, p.term, translate(r.srsubstate::text, 'd', 'i'), r.srsublsn, NULL
         FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid JOIN postgres_r.subscription_positions p ON p.subscription = s.subname
         WHERE s.subname = {quoted} AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())
         ON CONFLICT DO NOTHING"
    ));
    first_row(&format!(
        "DELETE FROM postgres_r.subscription_tables t WHERE t.subscription = {quoted} AND NOT EXISTS
         (SELECT FROM pg_subscription_rel r JOIN pg_subscription s ON s.oid = r.srsubid WHERE s.subname = t.subscription AND r.srrelid = t.relation)"
    ));
}

/// Nobody is to subscribe.
pub fn disable(name: &str) {
    first_row(&format!("UPDATE postgres_r.subscriptions SET enabled = false WHERE name = {} AND enabled", literal(name)));
}

/// This server runs no workers for the group's subscriptions any more. In a process whose statements concern this node alone.
pub fn leave() {
    let mine = "SELECT format('ALTER SUBSCRIPTION %I DISABLE', s.subname) FROM pg_subscription s JOIN postgres_r.subscriptions g ON g.name = s.subname
        WHERE s.subenabled AND s.subdbid = (SELECT oid FROM pg_database WHERE datname = current_database())";
    rows(mine).into_iter().filter_map(|row| row.into_iter().next().flatten()).for_each(|statement| {
        first_row(&statement);
    });
}

pub fn forget(name: &str) {
    for (table, column) in TABLES {
        first_row(&format!("DELETE FROM postgres_r.{table} WHERE {column} = {}", literal(name)));
    }
}

pub fn rename(name: &str, to: &str) {
    for (table, column) in TABLES {
        first_row(&format!("UPDATE postgres_r.{table} SET {column} = {} WHERE {column} = {}", literal(to), literal(name)));
    }
}

const TABLES: [(&str, &str); 3] =
    [("subscriptions", "name"), ("subscription_positions", "subscription"), ("subscription_tables", "subscription")];

/// The current transaction brings the subscription up to here. Raises if it is there already, or if another node has come to carry it.
pub fn move_to(name: &str, term: i64, to: Lsn) {
    let to = lsn_text(to);
    let moved = first_row(&format!(
        "UPDATE postgres_r.subscription_positions SET position = '{to}'
         WHERE subscription = {} AND term = {term} AND (position IS NULL OR position < '{to}') RETURNING term",
        literal(name)
    ));
    if moved.is_none() {
        overtaken(name).raise();
    }
}

/// The current transaction brings one table of the subscription so far, in this state. Raises as [`move_to`] does.
pub fn move_table(name: &str, term: i64, table: (Oid, &str), state: TableState, to: Option<Lsn>) {
    let (relation, slot) = table;
    let (letter, to) = (state.letter(), lsn_literal(to));
    let moved = first_row(&format!(
        "UPDATE postgres_r.subscription_tables SET state = '{letter}', position = coalesce({to}, position), slot = {}
         WHERE subscription = {} AND relation = {} AND term = {term}
             AND (state <> '{letter}' OR position IS NULL OR position < {to}) RETURNING term",
        literal(slot),
        literal(name),
        relation.to_u32()
    ));
    if moved.is_none() {
        overtaken(name).raise();
    }
}

fn overtaken(name: &str) -> Error {
    Error::new(
        PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("the group is ahead of this worker of subscription \"{name}\""),
    )
    .detail("The transaction is in the group already, or another node has come to carry the subscription.")
}
