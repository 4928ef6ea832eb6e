//! Are the catalogs of the nodes equal? What pg_dump says of a schema, and what it leaves out although it matters.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::process::Command;

use gcs::playground::NodeNumber;

use super::Group;

/// Lines of a difference that are shown.
const LINES_SHOWN: usize = 20;

/// What no dump shows: values that rows have without holding them, types' parts by number, how tables and functions are set.
const LEFT_OUT: &str = "
    SELECT format('missing value of %s.%s: %s', attrelid::regclass, attname, attmissingval)
      FROM pg_attribute WHERE atthasmissing AND attrelid >= 16384
    UNION ALL SELECT format('column %s of %s: %s %s', attnum, attrelid::regclass, attname, format_type(atttypid, atttypmod))
      FROM pg_attribute JOIN pg_class c ON c.oid = attrelid JOIN pg_namespace n ON n.oid = relnamespace
      WHERE attnum > 0 AND relkind IN ('r', 'p', 'v', 'm', 'c') AND nspname !~ '^pg_|^information_schema$|^postgres_r$'
    UNION ALL SELECT format('trigger %s of %s: %s', tgname, tgrelid::regclass, tgenabled)
      FROM pg_trigger WHERE NOT tgisinternal
    UNION ALL SELECT format('constraint %s of %s: %s %s', conname, conrelid::regclass, convalidated, pg_get_constraintdef(oid))
      FROM pg_constraint WHERE conrelid >= 16384 AND contype <> 't'
    UNION ALL SELECT format('sequence %s: %s %s %s %s', seqrelid::regclass, seqtypid::regtype, seqincrement, seqmin, seqmax)
      FROM pg_sequence
    UNION ALL SELECT format('security of %s: %s %s', oid::regclass, relrowsecurity, relforcerowsecurity)
      FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'p') AND relnamespace::regnamespace::text !~ '^pg_'
    UNION ALL SELECT format('materialized view %s: %s', oid::regclass, relispopulated) FROM pg_class WHERE relkind = 'm'
    ORDER BY 1";

/// The schema of a node's database, one statement or fact a line.
///
/// # Errors
/// Why it could not be read.
pub fn take(group: &Group, number: NodeNumber) -> Result<Vec<String>, String> {
    let cluster = group.playground.cluster(number);
    let mut dump = Command::new(cluster.bin.join("pg_dump"));
    let output = dump.args(["-s", &cluster.uri(group.database())]).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    }
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let says_something = |line: &&str| !line.is_empty() && !line.starts_with("--") && !line.starts_with('\\');
    let mut lines: Vec<String> = text.lines().filter(says_something).map(str::to_owned).collect();
    let mut client = group.try_connect(number).map_err(|error| error.to_string())?;
    let rows = client.query(LEFT_OUT, &[]).map_err(|error| gcs::playground::group::describe(&error))?;
    lines.extend(rows.iter().map(|row| row.get::<_, String>(0)));
    Ok(lines)
}

/// What differs between the nodes, which must have settled; empty if nothing does.
///
/// # Errors
/// Why a catalog could not be read.
pub fn difference(group: &Group) -> Result<String, String> {
    let numbers = group.numbers();
    let taken: Result<Vec<Vec<String>>, String> = numbers.iter().map(|&number| take(group, number)).collect();
    let taken = taken?;
    let mut text = String::new();
    for (number, other) in numbers.iter().zip(&taken).filter(|(_, other)| **other != taken[0]) {
        let (first, second): (BTreeSet<&String>, BTreeSet<&String>) = (taken[0].iter().collect(), other.iter().collect());
        let _ = writeln!(text, "the schema of node {} differs from that of node {}", number.0, numbers[0].0);
        for (sign, lines) in [("-", first.difference(&second)), ("+", second.difference(&first))] {
            for line in lines.take(LINES_SHOWN) {
                let _ = writeln!(text, "  {sign} {line}");
            }
        }
    }
    Ok(text)
}

/// Fails unless all nodes have the same schema. Settles the group first.
pub fn assert_same(group: &Group) {
    group.settle();
    let difference = difference(group).unwrap_or_else(|error| panic!("{error}"));
    assert!(difference.is_empty(), "{difference}");
}
