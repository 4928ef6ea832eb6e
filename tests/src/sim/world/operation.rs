//! What an operator does to a member, step by step.

use crate::sim::fact::N;

/// What the operator is about to do with a member.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    /// It is to go; its machine is gone already, or still there.
    Remove { is_dead: bool },
    /// Its machine is new. It is to become a member again.
    Add,
    /// Its daemon runs; its server has no rows (that are of use). Whose vote it is to have, if that is known.
    Copy { of: Option<N> },
    /// It is to have its vote; perhaps that of another.
    Vote { of: Option<N> },
}
