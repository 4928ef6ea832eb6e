//! One holder: no two backends believe that they hold a lock in modes that conflict; and whoever has lost a lock that another was granted commits
//! nothing behind that grant as if it held it.

use std::collections::BTreeMap;

use gcs_writeset::link::Verdict;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{Lock, LockSession, NodeId, Position};

use super::invariant::Invariant;
use crate::sim::fact::{Fact, N, View};

#[derive(Default)]
pub struct OneHolder {
    holders: BTreeMap<(N, usize), (Lock, LockSession)>,
    /// Held when they were lost, and not yet granted to anybody else.
    lost: Vec<(N, Lock, LockSession)>,
    /// Sessions that may commit nothing behind a position.
    fenced: BTreeMap<(NodeId, LockSession), Position>,
}

fn id(node: N) -> NodeId {
    NodeId::of_name(&format!("n{}", node.0))
}

impl OneHolder {
    fn granted(&mut self, who: (N, usize), lock: Lock, session: LockSession, position: Position) -> Result<(), String> {
        let conflicts = |other: &Lock| other.key == lock.key && other.mode.conflicts(lock.mode);
        if let Some((other, _)) = self.holders.iter().find(|(other, (held, _))| **other != who && conflicts(held)) {
            return Err(format!("{lock:?} is granted to {who:?}, and {other:?} holds it"));
        }
        self.holders.insert(who, (lock, session));
        let fenced = self.lost.extract_if(.., |(_, held, _)| conflicts(held));
        let fenced: Vec<_> = fenced.map(|(node, _, session)| ((id(node), session), position)).collect();
        self.fenced.extend(fenced);
        Ok(())
    }
}

impl Invariant for OneHolder {
    fn name(&self) -> &'static str {
        "one holder"
    }

    fn observe(&mut self, fact: &Fact, _: &View<'_>) -> Result<(), String> {
        match fact {
            Fact::LockGranted { node, locker, lock, session, position } => {
                return self.granted((*node, *locker), *lock, *session, *position);
            }
            Fact::LockGiven { node, locker } => drop(self.holders.remove(&(*node, *locker))),
            Fact::LockLost { node, locker } => {
                if let Some((lock, session)) = self.holders.remove(&(*node, *locker)) {
                    self.lost.push((*node, lock, session));
                }
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
