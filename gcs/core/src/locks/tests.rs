//! The lock table against what it promises, over histories drawn at random.

use super::*;
use crate::certify::{Exact, Planted, PlantedBug};
use gcs_writeset::Position;
use proptest::prelude::*;

const KEYS: u64 = 4;

/// The last of the keys is a row's.
fn lock(value: u64, exclusive: bool) -> Lock {
    let space = match KEYS - value {
        1 => LockKey::ROW,
        2 => LockKey::TABLE,
        _ => LockKey::ADVISORY,
    };
    let key = LockKey { space, value };
    Lock { key, mode: if exclusive { LockMode::Exclusive } else { LockMode::Shared } }
}

fn who(node: u64, session: u64) -> Who {
    Who { node: NodeId(node), session }
}

#[derive(Clone, Debug)]
enum Step {
    Take(Who, Lock, bool),
    Give(Who, Lock),
    Withdraw(Who),
    Blocks(Who, Vec<u64>),
    Close(Who),
    Lose(u64),
    /// Of these, in this order; one that is stale is not wanted.
    First(Who, Vec<Lock>, Option<Lock>),
    Decided(Who),
}

fn step() -> impl Strategy<Value = Step> {
    let anyone = || (1..4u64, 0..3u64).prop_map(|(node, session)| who(node, session));
    let any_lock = || (0..KEYS, any::<bool>()).prop_map(|(value, exclusive)| lock(value, exclusive));
    prop_oneof![
        8 => (anyone(), any_lock(), any::<bool>()).prop_map(|(who, lock, waits)| Step::Take(who, lock, waits)),
        4 => (anyone(), any_lock()).prop_map(|(who, lock)| Step::Give(who, lock)),
        1 => anyone().prop_map(Step::Withdraw),
        1 => (anyone(), prop::collection::vec(0..3u64, 0..2)).prop_map(|(who, sessions)| Step::Blocks(who, sessions)),
        1 => anyone().prop_map(Step::Close),
        1 => (1..4u64).prop_map(Step::Lose),
        4 => (anyone(), prop::collection::vec(any_lock(), 0..4), prop::option::of(any_lock()))
            .prop_map(|(who, locks, stale)| Step::First(who, locks, stale)),
        2 => anyone().prop_map(Step::Decided),
    ]
}

/// A table, and what those who asked were told.
#[derive(Default)]
struct World {
    locks: Locks,
    number: u64,
    held: BTreeSet<(Who, Lock)>,
    waiting: BTreeMap<Who, Lock>,
    takes: BTreeMap<Who, u64>,
}

impl World {
    fn ask(&mut self, rules: impl Rules, who: Who, number: u64, op: &LockOp) -> Vec<Told> {
        self.locks.request(rules, who, (number, op), |_| true)
    }

    /// The first of these that nobody else holds or awaits in a mode that conflicts.
    fn first_free(&self, who: Who, locks: &[Lock], stale: Option<Lock>) -> Option<usize> {
        let conflicts =
            |lock: &Lock, (other, of): (&Who, &Lock)| *other != who && of.key == lock.key && of.mode.conflicts(lock.mode);
        locks.iter().position(|lock| {
            let is_own_key = self.held.iter().any(|(holder, held)| *holder == who && held.key == lock.key);
            let is_held = self.held.iter().any(|(holder, held)| conflicts(lock, (holder, held)));
            let is_awaited = self.waiting.iter().any(|awaiting| conflicts(lock, awaiting));
            let has_it = self.held.contains(&(who, *lock));
            stale != Some(*lock) && (has_it || !is_held && (is_own_key || !is_awaited))
        })
    }

    fn run(&mut self, rules: impl Rules, step: &Step) -> Result<(), TestCaseError> {
        self.number += 1;
        let number = self.number;
        let told = match step {
            Step::Take(who, lock, waits) => {
                // Its next request ends what it waited for.
                self.waiting.insert(*who, *lock);
                self.takes.insert(*who, number);
                self.ask(rules, *who, number, &LockOp::Take { lock: *lock, waits: *waits, seen: Position::ZERO })
            }
            Step::Give(who, lock) => {
                self.waiting.remove(who);
                self.held.remove(&(*who, *lock));
                self.ask(rules, *who, number, &LockOp::Give { locks: vec![*lock] })
            }
            Step::Withdraw(who) => {
                let take = self.takes.get(who).copied().unwrap_or_default();
                let told = self.ask(rules, *who, number, &LockOp::Withdraw { take });
                self.waiting.remove(who);
                let left = self.locks.sessions().get(who).map(|session| session.held.clone()).unwrap_or_default();
                self.held.retain(|(holder, lock)| holder != who || left.contains(lock));
                told
            }
            Step::Blocks(who, sessions) => self.ask(rules, *who, number, &LockOp::Blocks { sessions: sessions.clone() }),
            Step::Close(who) => {
                self.waiting.remove(who);
                self.held.retain(|(holder, _)| holder != who);
                self.ask(rules, *who, number, &LockOp::Close)
            }
            Step::First(who, locks, stale) => {
                self.waiting.remove(who);
                let free = self.first_free(*who, locks, *stale);
                let op = LockOp::First { locks: locks.clone(), seen: Default::default() };
                let mut told = self.locks.request(rules, *who, (number, &op), |lock| Some(*lock) != *stale);
                let what = free.map_or(What::NotAvailable, |at| What::Found(at as u32));
                let own = told.pop();
                prop_assert_eq!(own, Some(Told { who: *who, number, what }));
                self.held.extend(free.map(|at| (*who, locks[at])));
                self.takes.insert(*who, number);
                told
            }
            Step::Decided(who) => {
                self.held.retain(|(holder, lock)| holder != who || lock.key.certified().is_none());
                self.locks.transaction_decided(*who)
            }
            Step::Lose(node) => {
                self.waiting.retain(|who, _| who.node.0 != *node);
                self.held.retain(|(who, _)| who.node.0 != *node);
                self.locks.release(rules, NodeId(*node))
            }
        };
        for Told { who, what, .. } in told {
            match what {
                What::Granted(lock) => {
                    prop_assert_eq!(self.waiting.remove(&who), Some(lock), "granted what nobody asked for");
                    self.held.insert((who, lock));
                }
                What::Given => {}
                _ => prop_assert!(self.waiting.remove(&who).is_some(), "an answer that nobody waits for"),
            }
        }
        self.check()
    }

    fn check(&self) -> Result<(), TestCaseError> {
        for (a, first) in &self.held {
            for (b, second) in &self.held {
                let conflict = a != b && first.key == second.key && first.mode.conflicts(second.mode);
                prop_assert!(!conflict, "{a:?} and {b:?} hold {first:?}");
            }
        }
        let held: BTreeSet<(Who, Lock)> =
            self.locks.sessions.iter().flat_map(|(who, s)| s.held.iter().map(|lock| (*who, *lock))).collect();
        prop_assert_eq!(&held, &self.held, "what is held is what was granted");
        prop_assert_eq!(self.locks.count, held.len());
        let waiting: BTreeSet<Who> = self.locks.waiting().collect();
        prop_assert_eq!(&waiting, &self.waiting.keys().copied().collect(), "nobody is forgotten");
        // Somebody can go on: a session that waits for nobody, or one that does not wait.
        for who in &waiting {
            prop_assert!(!self.locks.waits_for_itself(*who), "a circle");
            prop_assert!(!self.locks.awaited_by(*who).is_empty(), "{who:?} waits for nobody");
        }
        let queue: Vec<Who> = self.locks.waiting().collect();
        prop_assert_eq!(&Locks::restore(self.locks.sessions.clone(), &queue), &self.locks, "restored");
        Ok(())
    }
}

proptest! {
    #[test]
    fn whatever_is_asked_nobody_holds_what_another_does_and_nobody_is_forgotten(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for step in &steps {
            // What a session says of its node can make a circle with what it said before; that is looked for when it is said.
            if !matches!(step, Step::Blocks(..)) {
                world.run(Exact, step)?;
            }
        }
    }

    #[test]
    fn what_is_said_of_a_node_leaves_the_table_whole(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::default();
        for step in &steps {
            world.run(Exact, step).or_else(|error| if error.to_string().contains("circle") { Ok(()) } else { Err(error) })?;
        }
    }
}

fn finds(bug: PlantedBug, steps: &[Step]) -> bool {
    let mut world = World::default();
    let mut honest = World::default();
    assert!(steps.iter().all(|step| honest.run(Exact, step).is_ok()));
    steps.iter().any(|step| world.run(Planted(Some(bug)), step).is_err())
}

#[test]
fn a_lock_granted_twice_and_one_kept_by_a_dead_session_are_found() {
    let (a, b) = (who(1, 0), who(2, 0));
    let twice = [Step::Take(a, lock(1, true), true), Step::Take(b, lock(1, true), true)];
    assert!(finds(PlantedBug::LockGrantedTwice, &twice));
    let kept = [Step::Take(a, lock(1, true), true), Step::Take(b, lock(1, true), true), Step::Lose(1)];
    assert!(finds(PlantedBug::LockKeptByTheDead, &kept));
}

fn ask(locks: &mut Locks, who: Who, number: u64, op: &LockOp) -> Vec<Told> {
    locks.request(Exact, who, (number, op), |_| true)
}

fn take(locks: &mut Locks, who: Who, number: u64, lock: Lock) -> Vec<Told> {
    ask(locks, who, number, &LockOp::Take { lock, waits: true, seen: Position::ZERO })
}

#[test]
fn a_request_waits_behind_those_that_it_conflicts_with_and_a_holder_goes_first() {
    let mut locks = Locks::default();
    let [a, b, c] = [who(1, 0), who(2, 0), who(3, 0)];
    let granted = |who, number, exclusive| Told { who, number, what: What::Granted(lock(1, exclusive)) };
    assert_eq!(take(&mut locks, a, 1, lock(1, false)), [granted(a, 1, false)]);
    assert_eq!(take(&mut locks, b, 1, lock(1, true)), []);
    // It could share with the holder, but not with whoever waits before it.
    assert_eq!(take(&mut locks, c, 1, lock(1, false)), []);
    // The holder wants more, and nobody else has any.
    assert_eq!(take(&mut locks, a, 2, lock(1, true)), [granted(a, 2, true)]);
    let all = LockOp::Give { locks: vec![lock(1, true), lock(1, false)] };
    assert_eq!(ask(&mut locks, a, 3, &all), [granted(b, 1, true), Told { who: a, number: 3, what: What::Given }]);
    assert_eq!(ask(&mut locks, b, 2, &LockOp::Close), [granted(c, 1, false)]);
}

#[test]
fn a_copy_changes_nothing() {
    let mut locks = Locks::default();
    let a = who(1, 0);
    assert_eq!(take(&mut locks, a, 1, lock(1, true)).len(), 1);
    assert_eq!(ask(&mut locks, a, 2, &LockOp::Give { locks: vec![lock(1, true)] }).len(), 1);
    assert_eq!(take(&mut locks, a, 1, lock(1, true)), []);
    assert!(!locks.holds(a));
}

#[test]
fn a_circle_is_found_by_the_request_that_closes_it_also_through_what_waits_on_a_node() {
    let mut locks = Locks::default();
    let [a, b, c] = [who(1, 0), who(2, 0), who(2, 1)];
    take(&mut locks, a, 1, lock(1, true));
    take(&mut locks, b, 1, lock(2, true));
    assert_eq!(take(&mut locks, a, 2, lock(2, true)), []);
    assert_eq!(take(&mut locks, b, 2, lock(1, true)), [Told { who: b, number: 2, what: What::Deadlock }]);
    // b waits, on its node, for a row of c; c waits for a, and a for b.
    assert_eq!(take(&mut locks, c, 1, lock(1, true)), []);
    let deadlock = [Told { who: c, number: 1, what: What::Deadlock }];
    assert_eq!(ask(&mut locks, c, 2, &LockOp::Blocks { sessions: vec![0] }), deadlock);
    // It has given way: a goes on when b lets go.
    let granted = Told { who: a, number: 2, what: What::Granted(lock(2, true)) };
    assert_eq!(ask(&mut locks, b, 3, &LockOp::Give { locks: vec![lock(2, true)] })[0], granted);
}

#[test]
fn what_is_withdrawn_is_undone_whether_it_waits_or_has_been_granted() {
    let mut locks = Locks::default();
    let [a, b] = [who(1, 0), who(2, 0)];
    take(&mut locks, a, 1, lock(1, true));
    take(&mut locks, b, 1, lock(1, true));
    assert_eq!(
        ask(&mut locks, a, 2, &LockOp::Withdraw { take: 1 }),
        [Told { who: b, number: 1, what: What::Granted(lock(1, true)) }]
    );
    // Held before: the second request for it gave nothing, and there is nothing to undo.
    assert_eq!(take(&mut locks, b, 2, lock(1, true)).len(), 1);
    assert_eq!(ask(&mut locks, b, 3, &LockOp::Withdraw { take: 2 }), []);
    // One that was never ordered: what was taken before stays.
    assert_eq!(take(&mut locks, b, 4, lock(2, true)).len(), 1);
    assert_eq!(ask(&mut locks, b, 6, &LockOp::Withdraw { take: 5 }), []);
    assert_eq!(locks.sessions()[&b].held.len(), 2);
    assert!(locks.holds(b) && !locks.holds(a));
}

#[test]
fn closed_sessions_are_remembered_as_ranges() {
    let mut lives = Lives::default();
    assert_eq!((lives.end(NodeId(1), 0), lives.end(NodeId(1), 0)), (Some(1), None));
    for session in [0, 2, 1, 4] {
        assert!(lives.counts(NodeId(1), 1, session));
        lives.close(NodeId(1), session);
        assert!(!lives.counts(NodeId(1), 1, session));
    }
    assert_eq!(lives.all()[&NodeId(1)].closed.all(), &BTreeMap::from([(0, 2), (4, 4)]));
    assert!(lives.counts(NodeId(1), 1, 3) && !lives.counts(NodeId(1), 2, 3));
}

#[test]
fn rows_leave_half_of_the_room_to_what_is_no_row() {
    let mut locks = Locks::default();
    let [a, b] = [who(1, 0), who(2, 0)];
    let row = |value| Lock { key: LockKey { space: LockKey::ROW, value }, mode: LockMode::Exclusive };
    let mut number = 0;
    let full = (0..LOCKS_MAX as u64).find(|value| {
        number += 1;
        take(&mut locks, a, number, row(*value)) == [Told { who: a, number, what: What::Full }]
    });
    // The session itself has a place too.
    assert_eq!(full, Some(LOCKS_MAX as u64 / 2 - 1));
    let first = |locks: &mut Locks, number, value| {
        ask(locks, b, number, &LockOp::First { locks: vec![row(value)], seen: Default::default() })
    };
    // What another holds is said to be held, however full it is.
    assert_eq!(first(&mut locks, 1, 0), [Told { who: b, number: 1, what: What::NotAvailable }]);
    assert_eq!(first(&mut locks, 2, LOCKS_MAX as u64), [Told { who: b, number: 2, what: What::Full }]);
    assert_eq!(take(&mut locks, b, 3, lock(1, true)), [Told { who: b, number: 3, what: What::Granted(lock(1, true)) }]);
}

#[test]
fn who_waits_for_a_row_has_it_from_where_the_transaction_of_its_holder_is_decided() {
    let mut locks = Locks::default();
    let [a, b] = [who(1, 0), who(2, 0)];
    let row = lock(KEYS - 1, true);
    take(&mut locks, a, 1, row);
    take(&mut locks, a, 2, lock(1, true));
    assert_eq!(take(&mut locks, b, 1, row), []);
    assert_eq!(locks.transaction_decided(a), [Told { who: b, number: 1, what: What::Granted(row) }]);
    // What is no row's stays the session's.
    assert!(locks.holds(a));
}
