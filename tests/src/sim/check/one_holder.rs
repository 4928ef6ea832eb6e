//! One holder: no two backends believe that they hold a lock in modes that conflict; and whoever has lost a lock that another was granted commits
//! nothing behind that grant as if it held it.

use std::collections::BTreeMap;

use gcs_writeset::link::Verdict;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Lock, LockSession, NodeId, Position};

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};

#[derive(Clone, Copy)]
struct Held {
    lock: Lock,
    /// A node that was replaced has another identity.
    by: (NodeId, LockSession),
}

#[derive(Default)]
pub struct OneHolder {
    holders: BTreeMap<(N, usize), Held>,
    /// Held when they were lost, and not yet granted to anybody else.
    lost: Vec<Held>,
    /// The last position that is known to be decided.
    decided: Position,
    /// Sessions that may commit nothing behind a position.
    fenced: BTreeMap<(NodeId, LockSession), Position>,
}

impl OneHolder {
    /// Wherever it is seen first. The locks of rows that its session holds are free from there on.
    fn decided(&mut self, position: Position, submitter: NodeId, holder: Option<LockSession>) {
        if position <= self.decided {
            return;
        }
        self.decided = position;
        let goes_on = |held: &Held| held.lock.key.row().is_none() || holder != Some(held.by.1) || held.by.0 != submitter;
        self.holders.retain(|_, held| goes_on(held));
        self.lost.retain(goes_on);
    }

    /// A grant of a row says up to where it was changed: all that is known to be decided was ordered before those who wait for it were told.
    fn granted(&mut self, who: (N, usize), held: Held, position: Position) -> Result<(), String> {
        let lock = held.lock;
        let conflicts = |other: &Held| other.lock.key == lock.key && other.lock.mode.conflicts(lock.mode);
        if let Some((other, _)) = self.holders.iter().find(|(other, held)| **other != who && conflicts(held)) {
            return Err(format!("{lock:?} is granted to {who:?}, and {other:?} holds it"));
        }
        self.holders.insert(who, held);
        let position = if lock.key.row().is_some() { self.decided } else { position };
        let fenced = self.lost.extract_if(.., |held| conflicts(held));
        self.fenced.extend(fenced.map(|held| (held.by, position)));
        Ok(())
    }
}

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "one holder"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::LockGranted { node, id, locker, lock, session, position } => {
                let held = Held { lock: *lock, by: (*id, *session) };
                return self.granted((*node, *locker), held, *position);
            }
            Fact::Ordered { tag, outcome, holder, .. } => self.decided(outcome.position, tag.node, *holder),
            Fact::LockGiven { node, locker } => drop(self.holders.remove(&(*node, *locker))),
            Fact::LockLost { node, locker } => {
                self.lost.extend(self.holders.remove(&(*node, *locker)));
            }
            Fact::Delivered { delivery, .. } => {
                let (position, verdict) = (delivery.outcome.position, delivery.outcome.verdict);
                let Ok((envelope, _)) = Envelope::decode(&delivery.writeset) else { return Ok(()) };
                let fence = envelope.holder.and_then(|session| self.fenced.get(&(delivery.tag.node, session)));
                if let (Verdict::Certified { .. }, Some(fence)) = (verdict, fence)
                    && position > *fence
                {
                    return Err(format!("{position} is of a session whose lock another was granted after {fence}"));
                }
            }
            _ => {}
        }
        Ok(())
    }
}
