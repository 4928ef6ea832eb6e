//! What passes the gate in one step; see [`crate::run`].

use gcs_writeset::Position;

/// Positions that are committed together: one, or those of a run with the aborted ones in between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    pub first: Position,
    pub last: Position,
}

impl Run {
    pub fn of(position: Position) -> Run {
        Run { first: position, last: position }
    }
}

/// How much may be taken together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Most {
    pub positions: usize,
    /// Of writesets as they are queued.
    pub bytes: usize,
}

impl Most {
    pub const ONE: Most = Most { positions: 1, bytes: 0 };
}
