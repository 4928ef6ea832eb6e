//! The point of it all: in the end every row is the same on every node.

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};
use crate::sim::postgres::{Row, Value};

#[derive(Default)]
pub struct EqualInTheEnd {
    first: Option<(N, Vec<(Row, Value)>)>,
}

impl Invariant for EqualInTheEnd {
    fn name(&self) -> &'static str {
        "equal in the end"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        let Fact::Final { node, rows, .. } = fact else { return Ok(()) };
        let Some((other, expected)) = &self.first else {
            self.first = Some((*node, rows.clone()));
            return Ok(());
        };
        match rows.iter().zip(expected).find(|(a, b)| a != b) {
            None if rows.len() == expected.len() => Ok(()),
            difference => Err(format!("nodes {} and {} differ: {difference:?}", node.0, other.0)),
        }
    }
}
