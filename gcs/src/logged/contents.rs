//! What the body of a writeset does, in counts and names: no values, and of statements only the words that they begin with.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::body::{Item, Items};

/// Names of tables, and statements, that are told of one writeset.
const NAMES_MAX: usize = 50;

/// Words of a statement that are told: `CREATE TABLE`, `ALTER DEFAULT PRIVILEGES`.
const WORDS_MAX: usize = 2;

#[derive(Debug, Default)]
pub struct Contents {
    pub items: BTreeMap<&'static str, u64>,
    pub statements: Vec<String>,
    pub tables: BTreeSet<String>,
    /// All of it could be read.
    pub is_whole: bool,
}

impl Contents {
    pub fn of(body: &[u8]) -> Contents {
        let mut contents = Contents { is_whole: true, ..Contents::default() };
        for item in Items::new(body) {
            match item {
                Ok(item) => contents.add(item),
                Err(_) => contents.is_whole = false,
            }
        }
        contents
    }

    fn add(&mut self, item: Item<'_>) {
        let kind = match item {
            Item::Relation { schema, name, .. } => {
                if self.tables.len() < NAMES_MAX {
                    self.tables.insert(format!("{schema}.{name}"));
                }
                return;
            }
            Item::Insert { .. } => "insert",
            Item::Update { .. } => "update",
            Item::Delete { .. } => "delete",
            Item::Statement { text, .. } => {
                if self.statements.len() < NAMES_MAX {
                    self.statements.push(beginning(text));
                }
                "statement"
            }
            Item::Decided(_) | Item::Verifier(_) | Item::Repaired => return,
            Item::Repair(_) => "repair",
            Item::Notify { .. } => "notify",
            Item::Fill { .. } => "fill",
            Item::LargeObject(_) => "large object",
            Item::Indexed(_) => "index concurrently",
            Item::Prepared(_) => "prepared",
            Item::Finished { .. } => "finished",
        };
        *self.items.entry(kind).or_default() += 1;
    }
}

/// The first words, as far as they are plain ones: what follows may be anybody's data.
fn beginning(statement: &str) -> String {
    let is_plain = |word: &&str| word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let words = statement.split_whitespace().take(WORDS_MAX).take_while(is_plain);
    let words: Vec<String> = words.map(str::to_ascii_uppercase).collect();
    if words.is_empty() { "a statement".to_owned() } else { words.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_statements_nothing_is_told_that_could_be_data() {
        assert_eq!(beginning("create  table secret (a int)"), "CREATE TABLE");
        assert_eq!(beginning("SELECT 'password'"), "SELECT");
        assert_eq!(beginning("/* x */ DROP TABLE t"), "a statement");
    }

    #[test]
    fn a_body_that_is_cut_off_is_told_as_far_as_it_goes() {
        let contents = Contents::of(&[250, 1, 2]);
        assert!(!contents.is_whole && contents.items.is_empty());
        assert!(Contents::of(&[]).is_whole);
    }
}
