//! What the last `gcs verify` of each database found, in a file of the data directory, for `gcs doctor`. A verification by SQL is not noted here.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::log::{LogError, write_atomically};

const FILE: &str = "verified.json";

/// Findings that are kept of a verification; of those beyond it there is only the number.
const FINDINGS_MAX: usize = 20;

/// Databases of which a verification is kept. The oldest goes.
const DATABASES_MAX: usize = 64;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Verification {
    pub database: String,
    /// Unix time.
    pub at: i64,
    /// Tables that were compared.
    pub tables: usize,
    /// How many findings are not "equal", and the first of them.
    pub unequal: usize,
    pub first: Vec<Unequal>,
}

/// What one node holds of one table is not what the others hold, or is not known.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unequal {
    pub table: String,
    pub node: String,
    pub verdict: String,
}

fn path(data_directory: &Path) -> PathBuf {
    data_directory.join(FILE)
}

/// Of each database; none if nobody has verified, or it cannot be read.
pub fn read(data_directory: &Path) -> Vec<Verification> {
    std::fs::read(path(data_directory)).ok().and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
}

/// In the place of what was noted of the database; without a table, of all of it, else of that one.
///
/// # Errors
/// Where the file cannot be written.
pub fn note(data_directory: &Path, mut new: Verification, table: Option<&str>) -> Result<(), LogError> {
    let mut all = read(data_directory);
    if let Some(old) = all.iter().position(|old| old.database == new.database).map(|at| all.remove(at))
        && let Some(table) = table
    {
        let kept: Vec<Unequal> = old.first.into_iter().filter(|unequal| !is_of(unequal, table)).collect();
        (new.at, new.tables) = (new.at, old.tables.max(new.tables));
        new.unequal += kept.len();
        new.first.extend(kept);
    }
    new.first.truncate(FINDINGS_MAX);
    all.insert(0, new);
    all.truncate(DATABASES_MAX);
    // Strings and numbers always have a JSON form.
    let text = serde_json::to_string(&all).unwrap_or_default();
    write_atomically(&path(data_directory), text.as_bytes())
}

/// A table is named with its schema in findings, and with or without by people.
pub fn is_of(unequal: &Unequal, table: &str) -> bool {
    unequal.table == table || unequal.table.strip_suffix(table).is_some_and(|schema| schema.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verification(database: &str, tables: &[&str]) -> Verification {
        let unequal = |table: &&str| Unequal { table: (*table).into(), node: "n3".into(), verdict: "different".into() };
        let (database, first) = (database.to_owned(), tables.iter().map(unequal).collect());
        Verification { database, at: 7, tables: 9, unequal: tables.len(), first }
    }

    #[test]
    fn the_last_one_counts_and_one_table_takes_the_place_of_what_was_said_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path();
        assert!(read(place).is_empty());
        note(place, verification("shop", &["public.item", "public.order"]), None).unwrap();
        note(place, verification("other", &["public.item"]), None).unwrap();
        note(place, verification("shop", &[]), Some("item")).unwrap();
        let found = read(place);
        assert_eq!(found[0], verification("shop", &["public.order"]));
        assert_eq!(found[1], verification("other", &["public.item"]));
        note(place, verification("shop", &[]), None).unwrap();
        assert_eq!(read(place)[0].unequal, 0);
        std::fs::write(path(place), "no JSON").unwrap();
        assert!(read(place).is_empty());
    }
}
