//! The network between daemons: messages take time, overtake each other, come twice or never.

use std::collections::BTreeSet;

use super::fact::N;
use super::plan::Plan;
use super::time::{Span, Time, us};
use crate::rng::Rng;

#[derive(Debug)]
pub struct Net {
    drop_permille: u64,
    duplicate_permille: u64,
    slow_permille: u64,
    delay_usual: Span,
    delay_slow: Span,
    /// Directions in which nothing gets through, and until when.
    cut: Vec<(N, N, Time)>,
}

impl Net {
    pub fn new(plan: &Plan) -> Net {
        Net {
            drop_permille: plan.drop_permille,
            duplicate_permille: plan.duplicate_permille,
            slow_permille: plan.slow_permille,
            delay_usual: plan.delay_usual,
            delay_slow: plan.delay_slow,
            cut: Vec::new(),
        }
    }

    /// After how long each copy of a message arrives.
    pub fn delays(&self, rng: &mut Rng) -> Vec<Span> {
        let copies = if rng.permille(self.drop_permille) { 0 } else { 1 + u64::from(rng.permille(self.duplicate_permille)) };
        (0..copies).map(|_| self.delay(rng)).collect()
    }

    fn delay(&self, rng: &mut Rng) -> Span {
        let most = if rng.permille(self.slow_permille) { self.delay_slow } else { self.delay_usual };
        us(rng.between(100, most.0.max(100)))
    }

    pub fn cut(&mut self, from: N, to: N, until: Time) {
        self.cut.push((from, to, until));
    }

    /// Splits the nodes in two.
    pub fn split(&mut self, side: &BTreeSet<N>, all: usize, until: Time) {
        for a in (0..all).map(N) {
            for b in (0..all).map(N).filter(|b| side.contains(&a) != side.contains(b)) {
                self.cut(a, b, until);
            }
        }
    }

    pub fn passes(&self, from: N, to: N, now: Time) -> bool {
        !self.cut.iter().any(|(a, b, until)| (*a, *b) == (from, to) && now < *until)
    }

    pub fn forget_old(&mut self, now: Time) {
        self.cut.retain(|(_, _, until)| now < *until);
    }

    /// From now on, nothing goes wrong.
    pub fn heal(&mut self) {
        self.cut.clear();
        self.drop_permille = 0;
        self.duplicate_permille = 0;
        self.slow_permille = 0;
    }
}
