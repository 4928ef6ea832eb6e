//! How a transaction fares that is to be applied ahead: whether its writeset is withheld from the manager, and whether its forerunner hears that it is over. The
//! daemon goes by it, and so does the simulator's.
//!
//! ```text
//!           the forerunner answers Passed           its position is ordered
//! Expected ───────────────────────────▶ Withheld ─────────────────────────▶ Ordered
//!     │                                    │
//!     └── ordered, withdrawn, never to be ──┴── withdrawn, never to be ──▶ Over: the forerunner is told
//! ```
//!
//! In *Withheld* and *Ordered* the manager of the database is not sent the writeset. Whether it is sent is decided in the step that orders the
//! position, and so is which of the two ways a transaction goes then: an answer that comes later finds it over and changes nothing. One that
//! is *Ordered* stays so until the forerunner has committed: whoever asked for it may be gone by then.

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    #[default]
    Expected,
    Withheld,
    Ordered,
    Over,
}

#[derive(Debug, Default)]
pub struct Course {
    state: State,
    is_answered: bool,
}

impl Course {
    pub fn is_answered(&self) -> bool {
        self.is_answered
    }

    /// Nothing more is to be done for it.
    pub fn is_over(&self) -> bool {
        self.state == State::Over
    }

    /// The manager is not sent the writeset.
    pub fn is_withheld(&self) -> bool {
        matches!(self.state, State::Withheld | State::Ordered)
    }

    /// The forerunner says what became of it; false if it has done that before.
    pub fn answer(&mut self, has_passed: bool) -> bool {
        if has_passed && !self.is_answered && self.state == State::Expected {
            self.state = State::Withheld;
        }
        !std::mem::replace(&mut self.is_answered, true)
    }

    /// The submission has got a position, or never will. Whether the forerunner is to be told that it is over.
    pub fn end(&mut self, ordered: bool) -> bool {
        let next = match self.state {
            State::Withheld if ordered => State::Ordered,
            State::Ordered => State::Ordered,
            _ => State::Over,
        };
        let was = std::mem::replace(&mut self.state, next);
        next == State::Over && was != State::Over
    }
}
