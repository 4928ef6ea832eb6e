//! Every pair of operations on two nodes, in each order, from one file (`tests/isolation/pairs.txt`).
//!
//! The file lists operations with the keys that each holds, and a table of verdicts. [`Pairs::parse`] refuses a table that does not
//! follow from the keys, so a verdict is an argument, not a record. Each pair then becomes a spec of two permutations:
//!
//! ```text
//! at_once   begin1 begin2 first second commit1(async) commit2    certification decides, or giving way, whichever is sooner
//! settled   begin1 begin2 first second commit1 commit2           the first is applied on the second's node while that is open
//! ```
//!
//! Both must give the same verdict: who gives way on a node and who loses in the order are one rule. Where a key says more than the
//! operations need, the table says `either`, and the file why.

use std::collections::BTreeMap;

use super::lexer::{self, Word, Wrong, wrong};
use super::run::Outcome;
use super::spec::Spec;

#[derive(Clone, Debug)]
pub struct Operation {
    pub name: String,
    pub sql: String,
    /// Key and whether it is held exclusively.
    pub holds: BTreeMap<String, bool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Both commit.
    Both,
    /// The second gets 40001.
    Lost,
    /// They have a key in common, but what the second does is right in either order: it may lose, or not.
    Either,
}

pub struct Pairs {
    pub setup: String,
    pub teardown: String,
    pub operations: Vec<Operation>,
    /// By first, then by second.
    pub verdicts: Vec<Vec<Verdict>>,
}

/// How the two commits follow each other.
pub const PERMUTATIONS: [&str; 2] = ["at once", "settled"];

impl Operation {
    /// The first key, in alphabetical order, that decides between the two.
    pub fn conflict<'a>(&'a self, other: &Operation) -> Option<&'a str> {
        let conflicts = |(key, is_exclusive): &(&String, &bool)| {
            other.holds.get(*key).is_some_and(|other_is_exclusive| **is_exclusive || *other_is_exclusive)
        };
        self.holds.iter().find(conflicts).map(|(key, _)| key.as_str())
    }
}

impl Pairs {
    pub fn parse(text: &str) -> Result<Pairs, Wrong> {
        let mut parser = Parser { words: lexer::words(text)?, at: 0 };
        parser.keyword("setup")?;
        let setup = parser.sql()?;
        parser.keyword("teardown")?;
        let teardown = parser.sql()?;
        let mut operations: Vec<Operation> = Vec::new();
        while parser.is_next("operation") {
            operations.push(parser.operation()?);
        }
        parser.keyword("verdicts")?;
        let verdicts = operations.iter().map(|first| parser.row(first, &operations)).collect::<Result<_, _>>()?;
        match parser.words.get(parser.at) {
            None => Ok(Pairs { setup, teardown, operations, verdicts }),
            Some((word, line)) => Err(wrong(*line, format!("unexpected {word:?}"))),
        }
    }

    /// The pair's spec; its permutations are [`PERMUTATIONS`].
    pub fn spec(&self, first: usize, second: usize) -> Spec {
        let text = format!(
            "setup {{ {} }} teardown {{ {} }}
             session s1 on n1 setup {{ BEGIN }} step first {{ {} }} step commit1 {{ COMMIT }}
             session s2 on n2 setup {{ BEGIN }} step second {{ {} }} step commit2 {{ COMMIT }}
             permutation first second commit1(async) commit2
             permutation first second commit1 commit2",
            self.setup, self.teardown, self.operations[first].sql, self.operations[second].sql
        );
        Spec::parse(&text).unwrap_or_else(|error| unreachable!("a spec of our own: {error}"))
    }
}

impl Verdict {
    pub fn allows(self, found: Verdict) -> bool {
        self == Verdict::Either || self == found
    }
}

/// What the servers said to both; anything but a commit of the first and a verdict on the second is no verdict.
pub fn verdict(outcomes: &[Outcome]) -> Result<Verdict, String> {
    let failures: Vec<_> =
        outcomes.iter().filter_map(|outcome| Some((outcome.step, outcome.reply.as_ref().err()?))).collect();
    match failures.as_slice() {
        [] => Ok(Verdict::Both),
        [(step, failure)] if step.session == 1 && failure.code == "40001" => Ok(Verdict::Lost),
        other => Err(format!("neither of both: {other:?}")),
    }
}

struct Parser {
    words: Vec<(Word, usize)>,
    at: usize,
}

impl Parser {
    fn line(&self) -> usize {
        self.words.get(self.at).or(self.words.last()).map_or(1, |(_, line)| *line)
    }

    fn is_next(&self, keyword: &str) -> bool {
        matches!(self.words.get(self.at), Some((Word::Plain(word), _)) if word == keyword)
    }

    fn keyword(&mut self, keyword: &str) -> Result<(), Wrong> {
        if !self.is_next(keyword) {
            return Err(wrong(self.line(), format!("\"{keyword}\" is missing")));
        }
        self.at += 1;
        Ok(())
    }

    fn sql(&mut self) -> Result<String, Wrong> {
        match self.words.get(self.at) {
            Some((Word::Sql(sql), _)) => {
                self.at += 1;
                Ok(sql.clone())
            }
            _ => Err(wrong(self.line(), "an SQL block is missing")),
        }
    }

    fn name(&mut self) -> Result<String, Wrong> {
        match self.words.get(self.at) {
            Some((Word::Plain(name) | Word::Quoted(name), _)) => {
                self.at += 1;
                Ok(name.clone())
            }
            _ => Err(wrong(self.line(), "a name is missing")),
        }
    }

    fn operation(&mut self) -> Result<Operation, Wrong> {
        self.keyword("operation")?;
        let (name, sql) = (self.name()?, self.sql()?);
        self.keyword("holds")?;
        let mut holds = BTreeMap::new();
        while self.is_next("X") || self.is_next("S") {
            let is_exclusive = self.name()? == "X";
            holds.insert(self.name()?, is_exclusive);
        }
        Ok(Operation { name, sql, holds })
    }

    fn row(&mut self, first: &Operation, operations: &[Operation]) -> Result<Vec<Verdict>, Wrong> {
        self.keyword(&first.name)?;
        operations.iter().map(|second| self.verdict(first, second)).collect()
    }

    /// The next verdict of the table, if the keys say the same.
    fn verdict(&mut self, first: &Operation, second: &Operation) -> Result<Verdict, Wrong> {
        let line = self.line();
        let pair = format!("{}, {}", first.name, second.name);
        match (self.name()?.as_str(), first.conflict(second)) {
            ("both", None) => Ok(Verdict::Both),
            ("lost", Some(_)) => Ok(Verdict::Lost),
            ("either", Some(_)) => Ok(Verdict::Either),
            ("both", Some(key)) => Err(wrong(line, format!("{pair}: both cannot commit, they share {key}"))),
            ("lost" | "either", None) => Err(wrong(line, format!("{pair}: no key makes the second lose"))),
            (other, _) => Err(wrong(line, format!("{pair}: \"{other}\" is no verdict"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "setup {} teardown {}
        operation a { A } holds X \"k\" operation b { B } holds S \"k\" operation c { C } holds S \"k\" X \"m\" verdicts ";

    #[test]
    fn a_table_that_follows_from_the_keys_is_accepted() {
        let pairs = Pairs::parse(&format!("{HEAD} a lost lost lost b lost both both c lost both lost")).unwrap();
        assert_eq!(pairs.verdicts[1], [Verdict::Lost, Verdict::Both, Verdict::Both]);
        assert_eq!(pairs.spec(0, 1).permutations.len(), PERMUTATIONS.len());
    }

    #[test]
    fn a_verdict_without_a_reason_is_refused() {
        let told = |table: &str| Pairs::parse(&format!("{HEAD} {table}")).err().unwrap().what;
        assert!(told("a both lost lost b lost both both c lost both lost").contains("they share k"));
        assert!(told("a lost lost lost b lost lost both c lost both lost").contains("no key"));
    }
}
