//! The pool of names from which statements are made: small, so that they meet.

use crate::rng::Rng;

/// What one session draws from.
pub struct Draw {
    pub rng: Rng,
    /// From 1.
    pub node: usize,
    /// Counts what has been drawn, for names that should be new.
    pub serial: u64,
}

pub const TABLES: u64 = 6;
const SCHEMAS: [&str; 3] = ["public", "s1", "s2"];
/// Roles that every node has.
pub const ROLES: [&str; 2] = ["maker", "reader"];
/// A role of node 1 alone.
pub const LOCAL_ROLE: &str = "only_here";

impl Draw {
    pub fn pick<'a>(&mut self, items: &[&'a str]) -> &'a str {
        items[self.rng.below(items.len() as u64) as usize]
    }

    /// A table by its bare name, or by schema.
    pub fn table(&mut self) -> String {
        let name = format!("t{}", self.rng.below(TABLES));
        if self.rng.percent(85) { name } else { format!("{}.{name}", self.schema()) }
    }

    pub fn column(&mut self) -> String {
        format!("c{}", self.rng.below(4))
    }

    pub fn schema(&mut self) -> &'static str {
        self.pick(&SCHEMAS)
    }

    pub fn role(&mut self) -> &'static str {
        self.pick(&ROLES)
    }

    /// A name that no other statement of any session makes.
    pub fn fresh(&mut self, prefix: &str) -> String {
        self.serial += 1;
        format!("{prefix}_{}_{}", self.rng.below(1_000_000), self.serial)
    }

    pub fn number(&mut self) -> u64 {
        self.rng.below(40)
    }
}
