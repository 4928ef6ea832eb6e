//! What becomes of a database whose place a copy takes.
//!
//! It is renamed in the transaction that puts the copy in its place, and only what holds nothing is dropped then. What a database is taken for can
//! change while the copy is made: somebody stops its replication, fills it, and has it overwritten, which finds the copy under way. So everybody
//! who wants the copy says what the database is worth, the highest counts, and it is looked at when the copy is in its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Displaced {
    /// It holds nothing, and is dropped.
    Empty,
    /// It held what the group holds, or was to. It is kept until it is rebuilt another time.
    Rebuilt,
    /// Somebody has had it overwritten. It is kept until somebody drops it.
    Overwritten,
}

/// What the database of one copy is worth, by all that was said.
#[derive(Clone, Debug)]
pub struct Worth(Arc<AtomicU8>);

impl Worth {
    pub fn of(displaced: Displaced) -> Worth {
        Worth(Arc::new(AtomicU8::new(displaced as u8)))
    }

    /// It is worth that at least.
    pub fn raise(&self, displaced: Displaced) {
        self.0.fetch_max(displaced as u8, Ordering::SeqCst);
    }

    pub fn get(&self) -> Displaced {
        let all = [Displaced::Empty, Displaced::Rebuilt];
        let worth = self.0.load(Ordering::SeqCst);
        all.into_iter().find(|&displaced| displaced as u8 == worth).unwrap_or(Displaced::Overwritten)
    }
}

impl Displaced {
    /// What is said of a database that gcs keeps for a time, as a comment on it: by that, and by nothing else, gcs knows what it may drop.
    pub fn mark(self, database: &str) -> Option<String> {
        match self {
            Displaced::Empty => {
                Some(format!("gcs: held nothing when a copy took the place of database \"{database}\"; may be dropped"))
            }
            Displaced::Rebuilt => Some(format!(
                "gcs: what database \"{database}\" held before it was rebuilt; is dropped when it is rebuilt again, unless this comment is removed"
            )),
            Displaced::Overwritten => None,
        }
    }

    /// What has been kept, and need not be kept once this has been displaced as well.
    pub fn outlives(self) -> &'static [Displaced] {
        match self {
            Displaced::Empty | Displaced::Overwritten => &[Displaced::Empty],
            Displaced::Rebuilt => &[Displaced::Empty, Displaced::Rebuilt],
        }
    }
}

/// As [`Displaced::mark`], of a copy that is being made.
pub fn incoming_mark(database: &str) -> String {
    format!("gcs: a copy of database \"{database}\" of another node, which is being made; may be dropped if gcs makes none")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_is_worth_the_most_that_was_ever_said_of_it() {
        let worth = Worth::of(Displaced::Empty);
        assert_eq!(worth.get(), Displaced::Empty);
        for (said, is_worth) in [
            (Displaced::Rebuilt, Displaced::Rebuilt),
            (Displaced::Empty, Displaced::Rebuilt),
            (Displaced::Overwritten, Displaced::Overwritten),
            (Displaced::Rebuilt, Displaced::Overwritten),
        ] {
            worth.raise(said);
            assert_eq!(worth.get(), is_worth, "{said:?}");
        }
    }

    #[test]
    fn what_somebody_had_overwritten_is_never_known_as_something_to_drop() {
        assert_eq!(Displaced::Overwritten.mark("shop"), None);
        for displaced in [Displaced::Empty, Displaced::Rebuilt, Displaced::Overwritten] {
            assert!(!displaced.outlives().contains(&Displaced::Overwritten));
        }
    }
}
