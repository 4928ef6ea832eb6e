//! Proof of equality: what nodes say of their tables at one and the same position, and what follows from it (docs/adr/0034).
//!
//! A *look* is what all nodes compute at one position. The first is a fingerprint of each table; where those differ, the next ones go down
//! into parts of the table, by the leading digits of the hash of a row's identity, until few enough rows are left to be named. Between looks
//! the group goes on writing. A difference counts only if a second look, at a later position, finds it again: names of objects are read as
//! they are when a row is read, which may be after the position.
//!
//! This module is arithmetic on answers; who asks and who looks is the extension's.

pub mod comparison;
pub mod sums;

use sums::{Bucket, Sums};

/// What all nodes are to look at: one object, or every one if there is no entry at all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    pub object: String,
    /// Only rows whose identities fall into these, all of the same number of digits; every row if there are none.
    pub buckets: Vec<Bucket>,
    pub depth: Depth,
}

crate::numbered! {
    /// How far a look takes an object apart.
    pub enum Depth else Whole {
        /// One fingerprint.
        Whole = 0,
        /// One for each bucket of two digits more than those asked for.
        Buckets = 1,
        /// Each row.
        Rows = 2,
    }
}

/// The object that stands for all that was asked for, where a node could say nothing at all.
pub const EVERYTHING: &str = "*";

/// One thing that a node says of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub object: String,
    pub part: Part,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    Whole(Sums),
    Bucket(Bucket, Sums),
    Row(Row),
    Trouble(Trouble),
}

/// A row that a node has: hashes of its identity and of all of it, and its identity for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub identity: u128,
    pub hash: u128,
    pub text: String,
}

/// Why a node cannot say what it has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// What was there at the position is not there any more: a statement has changed the table since.
    Changed,
    /// Somebody needed the table, or the look took too long.
    Interrupted(String),
    /// PostgreSQL cannot read it.
    Unreadable(String),
}

impl Trouble {
    /// Whether a later look may do better.
    pub fn passes(&self) -> bool {
        !matches!(self, Trouble::Unreadable(_))
    }

    pub fn text(&self) -> &str {
        match self {
            Trouble::Changed => "a statement changed it while it was read",
            Trouble::Interrupted(why) | Trouble::Unreadable(why) => why,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Equal,
    Different,
    /// The node has it and cannot read it.
    Unreadable,
    NotKnown,
}

impl Verdict {
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Different => "different",
            Verdict::Unreadable => "unreadable",
            Verdict::NotKnown => "not known",
        }
    }
}

/// What is said in the end of one object on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub object: String,
    /// Index of the node.
    pub node: usize,
    pub verdict: Verdict,
    pub rows: Option<u64>,
    /// Rows that differ from the group's, by identity, if all of them could be named.
    pub differing: Option<Vec<Differing>>,
    pub detail: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Differing {
    pub identity: u128,
    pub text: String,
}

/// Keys that are listed one by one; more are a range.
const KEYS_LISTED: usize = 5;

impl Finding {
    /// The differing rows for a person.
    pub fn key_range(&self) -> Option<String> {
        let mut texts: Vec<&str> = self.differing.as_deref()?.iter().map(|row| row.text.as_str()).collect();
        // Numbers of one sign come out in their order so.
        texts.sort_by_key(|text| (text.len(), *text));
        texts.dedup();
        match (texts.first(), texts.last()) {
            (Some(first), Some(last)) if texts.len() > KEYS_LISTED => Some(format!("{first} to {last}, {}", texts.len())),
            (Some(_), _) => Some(texts.join(", ")),
            _ => None,
        }
    }
}
