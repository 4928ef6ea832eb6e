//! The points at which certification, and some other rules of the order, could be wrong without being caught by a type.
//!
//! The rules of docs/certification.md are [`Exact`]. A simulator must show that it would find a certifier that breaks one, so
//! each point that [`Planted`] can break is a function here. The rules are a type: a daemon, whose rules are exact, is compiled
//! without a trace of the others.

use gcs_writeset::Position;

pub trait Rules: Copy {
    /// The last certified writeset that an exclusive key conflicts with, given the last exclusive and the last shared holder.
    #[inline]
    fn last_against_exclusive(self, exclusive: Position, shared: Position) -> Position {
        exclusive.max(shared)
    }

    /// Holders after this position conflict with a key of this base.
    #[inline]
    fn base(self, base: Position) -> Position {
        base
    }

    /// What a certified writeset must wait for, given the last holder of any of its keys.
    #[inline]
    fn depends_on(self, last: Position) -> Position {
        last
    }

    /// The prepared transaction that a key meets.
    #[inline]
    fn pinned(self, by: Option<Position>) -> Option<Position> {
        by
    }

    /// Whether a leader has a majority confirm that it still is one before it says up to where must be read.
    #[inline]
    fn reads_are_confirmed(self) -> bool {
        true
    }

    /// Whether a leader has a newer format written only when every member has said that it reads it ([`crate::format`]), and not as soon as those have that
    /// are connected.
    #[inline]
    fn formats_wait_for_all(self) -> bool {
        true
    }

    /// Whether a lock is granted only when nobody else holds or awaits it in a mode that conflicts ([`crate::locks`]).
    #[inline]
    fn locks_exclude(self) -> bool {
        true
    }

    /// Whether what a session holds is free when its life ends.
    #[inline]
    fn locks_end_with_their_life(self) -> bool {
        true
    }

    /// Whether a session that is given up for lost can commit nothing more.
    #[inline]
    fn lost_sessions_are_fenced(self) -> bool {
        true
    }
}

/// The rules as they are.
#[derive(Clone, Copy, Debug, Default)]
pub struct Exact;

impl Rules for Exact {}

/// A deliberate mistake, for a simulator to show that it would find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PlantedBug {
    /// A holder ordered just after the base is overlooked.
    BaseOffByOne,
    /// Exclusive keys are not held against earlier shared ones.
    SharedForgotten,
    /// Everything may start at once.
    NoDependencies,
    /// What is prepared keeps nobody off.
    PinsForgotten,
    /// A leader says up to where must be read without asking whether it still is one.
    ReadsUnconfirmed,
    /// A leader has a format written that a member which is away cannot read.
    FormatUnread,
    /// A lock is granted although somebody holds it.
    LockGrantedTwice,
    /// What a session holds stays held when its life ends.
    LockKeptByTheDead,
    /// A session whose locks others may hold commits as if it held them.
    LostSessionCommits,
}

/// The rules with a mistake, if one is planted. For tests of tests only.
#[derive(Clone, Copy, Debug, Default)]
pub struct Planted(pub Option<PlantedBug>);

impl Rules for Planted {
    fn last_against_exclusive(self, exclusive: Position, shared: Position) -> Position {
        if self.0 == Some(PlantedBug::SharedForgotten) { exclusive } else { Exact.last_against_exclusive(exclusive, shared) }
    }

    fn base(self, base: Position) -> Position {
        if self.0 == Some(PlantedBug::BaseOffByOne) { base.next() } else { Exact.base(base) }
    }

    fn depends_on(self, last: Position) -> Position {
        if self.0 == Some(PlantedBug::NoDependencies) { Position::ZERO } else { Exact.depends_on(last) }
    }

    fn pinned(self, by: Option<Position>) -> Option<Position> {
        if self.0 == Some(PlantedBug::PinsForgotten) { None } else { Exact.pinned(by) }
    }

    fn reads_are_confirmed(self) -> bool {
        self.0 != Some(PlantedBug::ReadsUnconfirmed)
    }

    fn formats_wait_for_all(self) -> bool {
        self.0 != Some(PlantedBug::FormatUnread)
    }

    fn locks_exclude(self) -> bool {
        self.0 != Some(PlantedBug::LockGrantedTwice)
    }

    fn locks_end_with_their_life(self) -> bool {
        self.0 != Some(PlantedBug::LockKeptByTheDead)
    }

    fn lost_sessions_are_fenced(self) -> bool {
        self.0 != Some(PlantedBug::LostSessionCommits)
    }
}
