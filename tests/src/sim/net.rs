//! The network between daemons: messages take time, overtake each other, come twice or never.

use std::collections::BTreeSet;

use super::fact::N;
use super::plan::Plan;
use super::time::{Span, Time, ms, us};
use crate::rng::Rng;

#[derive(Debug)]
pub struct Net {
    drop_permille: u64,
    duplicate_permille: u64,
    slow_permille: u64,
    delay_usual: Span,
    delay_slow: Span,
    cuts: Vec<Cut>,
}

/// A direction in which nothing gets through for a while.
#[derive(Debug)]
struct Cut {
    from: N,
    to: N,
    since: Time,
    until: Time,
}

impl Net {
    pub fn new(plan: &Plan) -> Net {
        Net {
            drop_permille: plan.drop_permille,
            duplicate_permille: plan.duplicate_permille,
            slow_permille: plan.slow_permille,
            delay_usual: plan.delay_usual,
            delay_slow: plan.delay_slow,
            cuts: Vec::new(),
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

    pub fn cut(&mut self, from: N, to: N, since: Time, until: Time) {
        self.cuts.push(Cut { from, to, since, until });
    }

    /// Splits the nodes in two.
    pub fn split(&mut self, side: &BTreeSet<N>, all: usize, since: Time, until: Time) {
        for a in (0..all).map(N) {
            for b in (0..all).map(N).filter(|b| side.contains(&a) != side.contains(b)) {
                self.cut(a, b, since, until);
            }
        }
    }

    pub fn passes(&self, from: N, to: N, now: Time) -> bool {
        !self.cuts.iter().any(|cut| (cut.from, cut.to) == (from, to) && cut.since <= now && now < cut.until)
    }

    /// Whether something could get through at some moment of a span.
    pub fn passed(&self, from: N, to: N, since: Time, now: Time) -> bool {
        let ends = self.cuts.iter().map(|cut| cut.until).filter(|end| since < *end && *end <= now);
        ends.chain([since, now]).any(|moment| self.passes(from, to, moment))
    }

    pub fn forget_old(&mut self, now: Time) {
        self.cuts.retain(|cut| now < cut.until + ms(1_000));
    }

    /// From now on, nothing goes wrong.
    pub fn heal(&mut self) {
        self.cuts.clear();
        self.drop_permille = 0;
        self.duplicate_permille = 0;
        self.slow_permille = 0;
    }
}
