//! Commit tokens: the name that an application gives to a transaction, so that it can ask later what became of it.
//!
//! The group remembers for a bounded number of positions what each token came to. A token therefore says *since* when it can have
//! been used: the position that was committed where it was set. Whatever the group has forgotten lies further back than that, or
//! the group says that it does not know.

use std::fmt;

use crate::id::Position;

/// A token as the application chose it: a UUID.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Token(pub [u8; 16]);

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A token in a transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CommitToken {
    pub token: Token,
    /// No transaction with this token, of this attempt or an earlier one, was ordered at or before this position.
    pub since: Position,
}

/// What a token has come to, as of the place in the order that the question was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenOutcome {
    /// No transaction with it is remembered. One may be on its way, or forgotten.
    Unknown,
    Committed {
        position: Position,
    },
    /// The last transaction that was ordered with it lost. The application may have tried again.
    Aborted {
        position: Position,
    },
    /// No transaction with it was committed, and none will be.
    Fenced,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_shown_as_a_uuid() {
        let token = Token(*b"\x01\x23\x45\x67\x89\xab\xcd\xef\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(token.to_string(), "01234567-89ab-cdef-0123-456789abcdef");
    }
}
