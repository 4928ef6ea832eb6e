//! What goes wrong.

use std::collections::BTreeSet;

use super::fact::N;
use super::time::{Span, ms};
use super::world::{Event, World};
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
            88..92 => Fault::Reset(n),
            _ => Fault::SlowDisk(n, span),
        }
    }
}

pub fn inflict(world: &mut World, fault: Fault) {
    let all = world.plan.nodes;
    match fault {
        Fault::Daemon(n, span) => {
            world.crash_daemon(n);
            world.later(span, Event::StartDaemon(n));
        }
        Fault::Postgres(n, span) => {
            if !world.nodes[n.0].witness {
                world.crash_postgres(n);
                world.later(span, Event::StartPostgres(n));
            }
        }
        Fault::Machine(n, span) => {
            inflict(world, Fault::Daemon(n, span));
            inflict(world, Fault::Postgres(n, span));
        }
        Fault::Everything(span) => {
            *world.tally.corners.entry("everything died at once").or_default() += 1;
            for n in (0..all).map(N) {
                let span = Span(span.0 / 2 + world.rng.below(span.0));
                inflict(world, Fault::Machine(n, span));
            }
        }
        Fault::Split(side, span, noticed) => {
            let until = world.now + span;
            world.net.split(&side, all, world.now, until);
            if let Some(within) = noticed {
                for a in side {
                    for b in (0..all).map(N).filter(|b| *b != a) {
                        world.break_connection(a, b, within);
                    }
                }
            }
        }
        Fault::OneWay(from, to, span) => {
            let until = world.now + span;
            world.net.cut(from, to, world.now, until);
        }
        Fault::Reset(n) => {
            for other in (0..all).map(N).filter(|other| *other != n) {
                world.break_connection(n, other, ms(5));
            }
        }
        Fault::SlowDisk(n, span) => world.nodes[n.0].slow_until = world.now + span,
    }
}
