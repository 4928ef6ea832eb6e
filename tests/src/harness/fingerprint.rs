//! Are the nodes equal? A fingerprint for each table, and where it differs, the rows.

use std::collections::BTreeMap;
use std::fmt::Write;

use gcs::playground::group::quote_identifier;
use postgres::Client;

use super::Group;

/// Rows shown of a difference.
const ROWS_SHOWN: usize = 10;

/// By table, `schema.name` quoted as needed: row count and an order-free sum of row hashes.
pub type Fingerprints = BTreeMap<String, String>;

/// Every ordinary table, and every materialized view that can be read, outside of system schemas, but for the harness's own marker.
pub fn take(client: &mut Client) -> Result<Fingerprints, postgres::Error> {
    let tables = client.query(
        "SELECT n.nspname, c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE (c.relkind = 'r' AND c.relpersistence = 'p' OR c.relkind = 'm' AND c.relispopulated) AND n.nspname NOT IN ('pg_catalog', 'information_schema', 'postgres_r', 'harness')
           AND n.nspname !~ '^pg_(toast|temp)' AND NOT EXISTS (SELECT FROM postgres_r.excluded_tables e WHERE e.table_name = c.oid) ORDER BY 1, 2",
        &[],
    )?;
    let mut prints = Fingerprints::new();
    for row in tables {
        let (schema, table): (String, String) = (row.get(0), row.get(1));
        let name = format!("{}.{}", quote_identifier(&schema), quote_identifier(&table));
        let row = client.query_one(
            &format!("SELECT count(*) || ':' || coalesce(sum(hashtextextended(t::text, 0)::numeric), 0) FROM {name} t"),
            &[],
        )?;
        prints.insert(name, row.get(0));
    }
    Ok(prints)
}

/// Fails unless all nodes hold the same rows in the same tables. Settles the group first, so that what was acknowledged before is
/// everywhere.
pub fn assert_equal(group: &Group) -> Fingerprints {
    group.settle();
    let prints = of_nodes(group).unwrap_or_else(|error| panic!("{error}"));
    if prints.iter().any(|other| *other != prints[0]) {
        panic!("the nodes differ\n{}", explain(group, &prints));
    }
    prints.into_iter().next().unwrap_or_default()
}

/// What differs between the nodes, which must have settled, in all tables but those `without`; empty if nothing does.
///
/// # Errors
/// Why a table could not be read.
pub fn difference(group: &Group, without: &[&str]) -> Result<String, String> {
    let mut prints = of_nodes(group)?;
    prints.iter_mut().for_each(|prints| prints.retain(|table, _| !without.contains(&table.as_str())));
    Ok(explain(group, &prints))
}

fn of_nodes(group: &Group) -> Result<Vec<Fingerprints>, String> {
    let of_node = |number| {
        let mut client = group.try_connect(number).map_err(|error| format!("{number:?}: {error}"))?;
        take(&mut client).map_err(|error| format!("{number:?}: {}", gcs::playground::group::describe(&error)))
    };
    group.numbers().into_iter().map(of_node).collect()
}

fn explain(group: &Group, prints: &[Fingerprints]) -> String {
    let mut text = String::new();
    let tables: std::collections::BTreeSet<&String> = prints.iter().flat_map(BTreeMap::keys).collect();
    for table in tables {
        let of_nodes: Vec<Option<&String>> = prints.iter().map(|prints| prints.get(table)).collect();
        if of_nodes.iter().all(|print| *print == of_nodes[0]) {
            continue;
        }
        let _ = writeln!(text, "{table}:");
        let rows: Vec<Vec<String>> =
            group.numbers().into_iter().map(|number| rows(&mut group.connect(number), table)).collect();
        for (index, print) in of_nodes.iter().enumerate() {
            let missing: Vec<&String> = rows[0].iter().filter(|row| rows[index].binary_search(row).is_err()).collect();
            let extra: Vec<&String> = rows[index].iter().filter(|row| rows[0].binary_search(row).is_err()).collect();
            let _ = writeln!(text, "  node{} {:?}", index + 1, print);
            for (sign, rows) in [("-", missing), ("+", extra)] {
                for row in rows.iter().take(ROWS_SHOWN) {
                    let _ = writeln!(text, "    {sign} {row}");
                }
            }
        }
    }
    text
}

fn rows(client: &mut Client, table: &str) -> Vec<String> {
    let query = format!("SELECT t::text FROM {table} t ORDER BY t::text COLLATE \"C\"");
    client.query(&query, &[]).map(|rows| rows.iter().map(|row| row.get(0)).collect()).unwrap_or_default()
}
