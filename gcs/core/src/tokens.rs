//! What became of commit tokens: the ordered memory behind `postgres_r.commit_status`.
//!
//! A token names one transaction of an application through all attempts. The first attempt that is certified is the last: every
//! later writeset with the token aborts, and says where the first one stands. An attempt that lost may be repeated.
//!
//! A *fence* is a token that nobody may use any more. Whoever asks for the outcome can have it put, and then "not committed" is
//! final: an attempt that is still on its way meets the fence when it arrives.
//!
//! **The memory is bounded**, by positions and by number; what is oldest goes first. The *floor* is the last position of which
//! something was forgotten. It keeps what is forgotten from being taken for what never was:
//!
//! - an attempt says since when its token can have been used. If that lies below the floor, an earlier attempt or a fence may be
//!   among what was forgotten, and the attempt aborts;
//! - a question that fences says so too. If that lies below the floor, the answer is that nothing is known.

use std::collections::{BTreeMap, BTreeSet};

use gcs_writeset::link::AbortCause;
use gcs_writeset::{CommitToken, Position, Token, TokenOutcome};

use crate::bounds::{TOKEN_POSITIONS_MAX, TOKENS_MAX};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Certified,
    Aborted,
    Fenced,
}

/// What a token came to, and the position at which it did. A fence stands before the next position: whoever sets the token
/// where that is not yet committed may have done so before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub position: Position,
    pub fate: Fate,
}

#[derive(Clone, Copy, Debug)]
pub struct TokenBounds {
    pub count_max: usize,
    pub positions_max: u64,
}

impl Default for TokenBounds {
    fn default() -> TokenBounds {
        TokenBounds { count_max: TOKENS_MAX, positions_max: TOKEN_POSITIONS_MAX }
    }
}

/// The tokens of one database.
#[derive(Clone, Debug, Default)]
pub struct Tokens {
    bounds: TokenBounds,
    floor: Position,
    uses: BTreeMap<Token, Use>,
    /// The same, oldest first.
    by_age: BTreeSet<(Position, Token)>,
}

impl Tokens {
    pub fn new(bounds: TokenBounds) -> Tokens {
        Tokens { bounds, ..Tokens::default() }
    }

    pub fn restore(floor: Position, uses: impl IntoIterator<Item = (Token, Use)>) -> Tokens {
        let mut tokens = Tokens { floor, ..Tokens::default() };
        for (token, is) in uses {
            tokens.put(token, is);
        }
        tokens
    }

    pub fn floor(&self) -> Position {
        self.floor
    }

    /// Everything remembered, oldest first.
    pub fn uses(&self) -> impl ExactSizeIterator<Item = (Token, Use)> + '_ {
        self.by_age.iter().map(|(_, token)| (*token, self.uses[token]))
    }

    /// Why a writeset with this token may not be certified, whatever its keys say.
    pub fn refuse(&self, token: CommitToken) -> Option<AbortCause> {
        match self.uses.get(&token.token) {
            Some(Use { position, fate: Fate::Certified }) => Some(AbortCause::TokenUsed { first: *position }),
            Some(Use { fate: Fate::Fenced, .. }) => Some(AbortCause::TokenFenced),
            _ if token.since < self.floor => Some(AbortCause::TokenTooOld { floor: self.floor }),
            _ => None,
        }
    }

    /// A writeset with this token, which was not refused, has its verdict.
    pub fn decided(&mut self, token: Token, position: Position, certified: bool) {
        let fate = if certified { Fate::Certified } else { Fate::Aborted };
        self.put(token, Use { position, fate });
    }

    /// What the token has come to. With `fence_after`, before which it cannot have been used, no use of it counts from here on.
    pub fn ask(&mut self, token: Token, fence_after: Option<Position>, head: Position) -> TokenOutcome {
        let known = self.uses.get(&token).copied();
        match (known, fence_after) {
            (Some(Use { position, fate: Fate::Certified }), _) => TokenOutcome::Committed { position },
            (_, Some(after)) if after < self.floor => TokenOutcome::Unknown,
            // Also where a fence is already: what is said now is to hold from now on.
            (_, Some(_)) => {
                self.put(token, Use { position: head.next(), fate: Fate::Fenced });
                self.forget(head);
                TokenOutcome::Fenced
            }
            (Some(Use { fate: Fate::Fenced, .. }), None) => TokenOutcome::Fenced,
            (Some(Use { position, fate: Fate::Aborted }), None) => TokenOutcome::Aborted { position },
            (None, None) => TokenOutcome::Unknown,
        }
    }

    /// Forgets what is too old or too much as of `head`.
    pub fn forget(&mut self, head: Position) {
        while let Some(&(position, token)) = self.by_age.first() {
            let is_old = head.0.saturating_sub(position.0) >= self.bounds.positions_max;
            if !is_old && self.by_age.len() <= self.bounds.count_max {
                break;
            }
            self.by_age.pop_first();
            self.uses.remove(&token);
            self.floor = self.floor.max(position);
        }
    }

    fn put(&mut self, token: Token, is: Use) {
        if let Some(before) = self.uses.insert(token, is) {
            self.by_age.remove(&(before.position, token));
        }
        self.by_age.insert((is.position, token));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// One thing that is ordered: an attempt with a token and what its keys say, or a question.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Attempt { token: u8, since_ago: u64, wins: bool },
        Ask { token: u8, fence: Option<u64> },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..6u8, 0..12u64, any::<bool>()).prop_map(|(token, since_ago, wins)| Step::Attempt { token, since_ago, wins }),
            1 => (0..6u8, prop::option::of(0..12u64)).prop_map(|(token, fence)| Step::Ask { token, fence }),
        ]
    }

    fn named(token: u8) -> Token {
        Token([token; 16])
    }

    /// Everything that ever happened to one token.
    #[derive(Clone, Debug, Default)]
    struct Truth {
        certified: Vec<u64>,
        /// Questions that were answered "never", and before which position its use was ruled out.
        never: Vec<(u64, u64)>,
    }

    proptest! {
        /// Whatever is forgotten: a use is certified at most once since any position that it names, what was said never to be
        /// committed is not (unless by a use that begins after that was said), and "committed" is only said of what is.
        #[test]
        fn no_answer_is_ever_a_lie(steps in prop::collection::vec(step(), 1..80)) {
            let mut tokens = Tokens::new(TokenBounds { count_max: 3, positions_max: 8 });
            let mut truth = vec![Truth::default(); 6];
            let mut head = 0u64;
            for step in steps {
                match step {
                    Step::Attempt { token, since_ago, wins } => {
                        let since = head.saturating_sub(since_ago);
                        // The application keeps its promise: nothing was used at or before `since`.
                        let is_true = truth[token as usize].certified.iter().all(|&at| at > since);
                        head += 1;
                        let commit = CommitToken { token: named(token), since: Position(since) };
                        let refused = tokens.refuse(commit);
                        if refused.is_none() {
                            tokens.decided(named(token), Position(head), wins);
                            if wins {
                                if is_true {
                                    prop_assert!(truth[token as usize].certified.is_empty(), "committed twice");
                                }
                                for &(said_at, _) in &truth[token as usize].never {
                                    prop_assert!(since > said_at, "committed after it was said that it never would be");
                                }
                                truth[token as usize].certified.push(head);
                            }
                        }
                        if let Some(AbortCause::TokenUsed { first }) = refused {
                            prop_assert!(truth[token as usize].certified.contains(&first.0));
                        }
                        tokens.forget(Position(head));
                    }
                    Step::Ask { token, fence } => {
                        let after = fence.map(|ago| head.saturating_sub(ago));
                        let certified = &truth[token as usize].certified;
                        match tokens.ask(named(token), after.map(Position), Position(head)) {
                            TokenOutcome::Committed { position } => prop_assert!(certified.contains(&position.0)),
                            TokenOutcome::Fenced => if let Some(after) = after {
                                prop_assert!(certified.iter().all(|&at| at <= after), "it is committed");
                                truth[token as usize].never.push((head, after));
                            },
                            TokenOutcome::Aborted { .. } | TokenOutcome::Unknown => {}
                        }
                    }
                }
                prop_assert!(tokens.uses.len() <= 3 && tokens.uses.len() == tokens.by_age.len());
                let restored = Tokens::restore(tokens.floor(), tokens.uses());
                prop_assert_eq!(restored.uses, tokens.uses.clone());
            }
        }
    }
}
