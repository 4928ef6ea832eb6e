//! The names of what must not happen, after Adya (*Weak Consistency*, MIT 1999) and Cerone and Gotsman (*Analysing Snapshot
//! Isolation*, PODC 2016).

use std::fmt;

use super::history::{History, TxnId};

/// What all transactions of a history were promised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// PostgreSQL's REPEATABLE READ.
    Snapshot,
    Serializable,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// An element twice in a list.
    Duplicate,
    /// An element that nobody appended.
    Garbage,
    /// An acknowledged append that is gone.
    LostAppend,
    /// A transaction does not see its own appends, or two of its reads differ.
    Internal,
    /// Two reads of a list of which neither is a prefix of the other: it has two histories.
    Fork,
    /// A read of something aborted.
    G1a,
    /// A read of something intermediate.
    G1b,
    /// A cycle of overwrites.
    G0,
    /// A cycle of overwrites and reads-from.
    G1c,
    /// Both read a version and both appended to it: a G-single over one list.
    LostUpdate,
    /// A cycle with exactly one anti-dependency: a snapshot that was none.
    GSingle,
    /// A cycle with anti-dependencies of which no two follow each other: two snapshots that disagree on the order of two
    /// transactions (the long fork). Snapshot isolation forbids it, too.
    GNonadjacent,
    /// Any other cycle with anti-dependencies: write skew, and the snapshot that shows it. Only serializability forbids it.
    G2,
}

/// One finding with the transactions that show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anomaly {
    pub kind: Kind,
    pub txns: Vec<TxnId>,
    pub text: String,
}

impl Anomaly {
    pub fn new(kind: Kind, txns: Vec<TxnId>, text: String) -> Anomaly {
        Anomaly { kind, txns, text }
    }

    /// The finding with its transactions spelt out, for a failing test.
    pub fn explain(&self, history: &History) -> String {
        let mut text = self.to_string();
        for &txn in &self.txns {
            text += &format!("\n    T{} {}", txn.0, history[txn]);
        }
        text
    }
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.text)
    }
}
