//! What goes wrong.

use std::collections::BTreeSet;

use super::fact::N;
use super::process::ground::{Kind, Signal};
use super::time::{Span, ms, us};
use crate::rng::Rng;

#[derive(Clone, Debug)]
pub enum Fault {
    /// A daemon dies and comes back after a while.
    Daemon(N, Span),
    /// A PostgreSQL dies and comes back after a while.
    Postgres(N, Span),
    /// Both at once.
    Machine(N, Span),
    /// Everything everywhere, at once.
    Everything(Span),
    /// No messages between these nodes and the others; connections break after a while, or not at all.
    Split(BTreeSet<N>, Span, Option<Span>),
    /// Messages from the first to the second are lost; nobody notices.
    OneWay(N, N, Span),
    /// Connections of a node break.
    Reset(N),
    SlowDisk(N, Span),
    /// Processes of this kind do not run for a while, as by SIGSTOP.
    Pause(N, Kind, Span),
}

impl Fault {
    pub fn random(rng: &mut Rng, nodes: usize, witness: bool) -> Fault {
        // A witness holds no log back: one that was long away has to be sent a snapshot.
        if witness && rng.permille(150) {
            return Fault::Daemon(N(nodes - 1), ms(rng.between(4_000, 10_000)));
        }
        let n = N(rng.below(nodes as u64) as usize);
        let span = ms(*rng.pick(&[50, 300, 1_000, 3_000, 7_000]) + rng.below(500));
        match rng.below(100) {
            0..15 => Fault::Daemon(n, span),
            15..35 => Fault::Postgres(n, span),
            35..50 => Fault::Machine(n, span),
            50..55 => Fault::Everything(span),
            55..80 => {
                let side = (0..nodes).map(N).filter(|_| rng.permille(400)).collect();
                let noticed = rng.permille(600).then(|| ms(rng.between(1, 3_000)));
                Fault::Split(side, span, noticed)
            }
            80..88 => Fault::OneWay(n, N(rng.below(nodes as u64) as usize), span),
            88..90 => Fault::Reset(n),
            90..94 => Fault::SlowDisk(n, span),
            _ => Fault::Pause(n, *rng.pick(&[Kind::Client, Kind::Remote, Kind::Manager, Kind::Manager]), span),
        }
    }
}

/// A small trouble of one server, of which there are many.
#[derive(Clone, Copy, Debug)]
pub enum Nuisance {
    /// Somebody cancels what a session does, or ends the session.
    Session(Signal),
    /// A remote backend, the manager, or a forerunner ends by itself.
    Dies(Kind),
    /// A connection of such a process breaks.
    Hangup(Kind),
    /// A process is not scheduled for a while.
    Slow(Kind, Span),
}

impl Nuisance {
    pub fn random(rng: &mut Rng) -> Nuisance {
        let kind = *rng.pick(&[Kind::Client, Kind::Client, Kind::Remote, Kind::Manager]);
        match rng.below(100) {
            0..30 => Nuisance::Session(Signal::Cancel),
            30..50 => Nuisance::Session(Signal::Terminate),
            50..58 => Nuisance::Dies(Kind::Remote),
            58..62 => Nuisance::Dies(Kind::Manager),
            62..75 => Nuisance::Hangup(if rng.permille(500) { Kind::Client } else { Kind::Manager }),
            _ => Nuisance::Slow(kind, us(*rng.pick(&[1_000, 20_000, 150_000]) + rng.below(1_000))),
        }
    }

    /// Troubles of forerunners, and of those who come before them.
    pub fn of_forerunner(rng: &mut Rng) -> Nuisance {
        match rng.below(100) {
            0..25 => Nuisance::Dies(Kind::Forerunner),
            25..40 => Nuisance::Hangup(Kind::Forerunner),
            40..70 => Nuisance::Slow(Kind::Remote, us(*rng.pick(&[5_000, 20_000, 60_000]) + rng.below(1_000))),
            _ => Nuisance::Slow(Kind::Forerunner, us(*rng.pick(&[1_000, 20_000, 150_000, 1_500_000]) + rng.below(1_000))),
        }
    }
}
