//! What clients of a list-append test saw.

use std::fmt;
use std::time::Duration;

/// Names one list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// One appended value; no two appends of a history carry the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Element(pub u64);

/// A transaction's place in the history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TxnId(pub usize);

/// A client's session. Its transactions follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Session(pub u32);

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Op {
    Append(Key, Element),
    Read(Key, Vec<Element>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Committed,
    /// It said that it failed: nothing of it may ever be seen.
    Aborted,
    /// Nobody knows: it counts as committed if anybody saw it.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Txn {
    pub session: Session,
    pub outcome: Outcome,
    pub ops: Vec<Op>,
    /// When it ran, where all clients were promised that real time counts.
    pub span: Option<Span>,
}

/// By one clock: before its BEGIN was sent, and after the answer to its COMMIT had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub began: Duration,
    pub ended: Duration,
}

/// Transactions; those of one session stand in the order in which it ran them.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub txns: Vec<Txn>,
}

impl History {
    pub fn ids(&self) -> impl Iterator<Item = TxnId> + '_ {
        (0..self.txns.len()).map(TxnId)
    }
}

impl std::ops::Index<TxnId> for History {
    type Output = Txn;

    fn index(&self, id: TxnId) -> &Txn {
        &self.txns[id.0]
    }
}

impl fmt::Display for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Op::Append(key, element) => write!(f, "append({}, {})", key.0, element.0),
            Op::Read(key, list) => {
                let list: Vec<String> = list.iter().map(|element| element.0.to_string()).collect();
                write!(f, "read({}, [{}])", key.0, list.join(" "))
            }
        }
    }
}

impl fmt::Display for Txn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops: Vec<String> = self.ops.iter().map(Op::to_string).collect();
        write!(f, "s{} {:?}: {}", self.session.0, self.outcome, ops.join(", "))
    }
}
