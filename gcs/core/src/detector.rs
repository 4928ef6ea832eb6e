//! How soon a silent node is suspected.
//!
//! In ticks: every how many a leader says that it is there, and after how many without a word a follower stands for election. The rest follows
//! from the second: after how many a node stops believing that it is with a majority.
//!
//! Members need not agree. Whoever suspects sooner than others is refused their votes while they hear the leader (pre-vote and the
//! leader's lease), so it disturbs nobody; it is just the first to say that it has no majority. But a leader that speaks rarely and a follower
//! that soon loses patience do not go together, so the configuration should be the same on all (docs/operations.md).

/// Ticks between a leader's heartbeats, and until an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detector {
    pub heartbeat_ticks: u64,
    /// Without a leader before a node stands for election: drawn from this and twice this.
    pub election_ticks: u64,
}

impl Detector {
    /// Machines in one place: an answer takes a millisecond, and whoever is silent for a second is gone.
    pub const LAN: Detector = Detector { heartbeat_ticks: 1, election_ticks: 8 };
    /// Machines far apart: an answer takes up to half a second, and a second without one is daily business.
    pub const WAN: Detector = Detector { heartbeat_ticks: 5, election_ticks: 40 };

    /// Ticks without word from a leader (or, leading, from a majority) after which the node says that it has no quorum: just before the
    /// latest moment at which it stands for election.
    pub fn quorum_ticks_max(self) -> u64 {
        2 * self.election_ticks - 1
    }
}

impl Default for Detector {
    fn default() -> Detector {
        Detector::LAN
    }
}

/// Ticks until a node stands for election that has lost its connection to the leader, as the `rank`th of those that may.
///
/// A connection that broke only for a moment is there again, and the leader heard, before the first of them: whoever asks for votes in that very
/// moment may get a first answer and no second one, and the group has no leader for an election timeout. Two ticks apart, they do not ask
/// at the same time.
pub fn ticks_after_loss(rank: usize) -> u64 {
    3 + 2 * rank as u64
}
