//! Reads: up to where this node must be before it has everything that anybody was told before the question was asked.
//!
//! The answer is a position of a database: whatever was acknowledged, or shown to anybody on any node, before the question, lies at or
//! below it. It comes from Raft (ReadIndex, Ongaro's thesis 6.4). The question goes to the leader, which notes how far its log is committed, and
//! then hears from a majority, in answers to heartbeats that it sends *after* that, that nobody has moved on to a later term. So no other
//! leader can have been elected before the question came, and what any leader had committed by then is in the log of this one. It knows that all
//! of it is committed once it has committed an entry of its own term; until then it does not answer. What was acknowledged was committed
//! before, so its entry lies at or below the index in the answer; and what that index means as a position, this node's own state says once it
//! has applied it.
//!
//! **Contexts are never used twice.** What tells the answers of one round from another's is the node, this process and a number. Were one used
//! again, a late answer to the old round's heartbeats would confirm the new one.
//!
//! **Rounds.** Whoever asks while a round is under way waits for the next: the answer to the present one may be older than the question. All that
//! wait go with one round, whatever their databases. A round whose answer does not come goes again, as does every one when the leader
//! changes: nothing was changed by it. Questions of an earlier round are answered by a later one's answer as well.
//!
//! Bound: [`READS_MAX`] questions. Without a quorum all are refused at once, and so is whoever asks then.

use gcs_writeset::NodeId;
use gcs_writeset::link::RefusalReason;
use raft::{ReadState, Storage};

use crate::api::{LocalReply, LogIndex, Question, Tick};
use crate::bounds::{READS_MAX, RESEND_READ_TICKS};
use crate::certify::Rules;
use crate::order::Order;
use crate::state::State;

#[derive(Debug)]
pub struct Reads {
    me: NodeId,
    /// Different in every process of this node.
    process: u64,
    /// Rounds begun.
    rounds: u64,
    under_way: Option<Round>,
    pending: Vec<Pending>,
    /// Confirmed up to an index that is not applied here yet.
    confirmed: Vec<(LogIndex, Question)>,
}

/// The last round that was begun and has no answer.
#[derive(Debug)]
struct Round {
    /// The leader, and its term, that it went to.
    to: (NodeId, u64),
    sent: Tick,
}

#[derive(Debug)]
struct Pending {
    question: Question,
    /// The first round that it went with.
    round: Option<u64>,
}

impl Reads {
    pub fn new(me: NodeId, process: u64) -> Reads {
        Reads { me, process, rounds: 0, under_way: None, pending: Vec::new(), confirmed: Vec::new() }
    }

    /// Takes a question, or refuses it at once.
    pub fn ask(&mut self, question: Question, quorum: bool, replies: &mut Vec<LocalReply>) {
        let is_full = self.pending.len() + self.confirmed.len() >= READS_MAX;
        if !quorum {
            replies.push(refused(question, RefusalReason::NoQuorum));
        } else if is_full {
            replies.push(refused(question, RefusalReason::Overloaded));
        } else {
            self.pending.push(Pending { question, round: None });
        }
    }

    /// There is no quorum any more: nobody waits for one.
    pub fn quorum_lost(&mut self, replies: &mut Vec<LocalReply>) {
        self.under_way = None;
        let pending = self.pending.drain(..).map(|pending| pending.question);
        let confirmed = self.confirmed.drain(..).map(|(_, question)| question);
        replies.extend(pending.chain(confirmed).map(|question| refused(question, RefusalReason::NoQuorum)));
    }

    /// Begins the next round if anybody waits for one, or for the answer of one that seems lost.
    pub fn send<L: Storage>(&mut self, rules: impl Rules, now: Tick, order: &mut Order<L>) {
        let Some(to) = order.leader().map(|leader| (leader, order.term())).filter(|_| !self.pending.is_empty()) else {
            return;
        };
        let waits = self
            .under_way
            .as_ref()
            .is_some_and(|round| round.to == to && now.0.saturating_sub(round.sent.0) < RESEND_READ_TICKS);
        if waits {
            return;
        }
        self.rounds += 1;
        for pending in &mut self.pending {
            pending.round.get_or_insert(self.rounds);
        }
        if order.is_leader() && !rules.reads_are_confirmed() {
            let index = order.committed();
            return self.take_answer(self.rounds, index);
        }
        self.under_way = Some(Round { to, sent: now });
        order.read_index(context(self.me, self.process, self.rounds));
    }

    /// Answers of rounds, as Raft gives them out.
    pub fn confirmed(&mut self, answers: Vec<ReadState>) {
        for answer in answers {
            if let Some(round) = self.round_of(&answer.request_ctx) {
                self.take_answer(round, LogIndex(answer.index));
            }
        }
    }

    fn take_answer(&mut self, round: u64, index: LogIndex) {
        if round == self.rounds {
            self.under_way = None;
        }
        let is_answered = |pending: &mut Pending| pending.round.is_some_and(|first| first <= round);
        let answered = self.pending.extract_if(.., is_answered).map(|pending| (index, pending.question));
        self.confirmed.extend(answered);
    }

    /// Answers those whose index is applied.
    pub fn answer(&mut self, state: &State, replies: &mut Vec<LocalReply>) {
        let applied = self.confirmed.extract_if(.., |(index, _)| *index <= state.applied);
        replies.extend(applied.map(|(_, question)| match state.database(question.database) {
            Some(database) => LocalReply::ReadFrom { number: question.number, position: database.head },
            None => refused(question, RefusalReason::NotAttached),
        }));
    }

    fn round_of(&self, answered: &[u8]) -> Option<u64> {
        let (front, number) = answered.split_last_chunk::<8>()?;
        let round = u64::from_le_bytes(*number);
        let is_ours = front == &context(self.me, self.process, round)[..16] && round <= self.rounds;
        is_ours.then_some(round)
    }
}

fn context(me: NodeId, process: u64, round: u64) -> Vec<u8> {
    [me.0, process, round].into_iter().flat_map(u64::to_le_bytes).collect()
}

fn refused(question: Question, reason: RefusalReason) -> LocalReply {
    LocalReply::ReadRefused { number: question.number, reason }
}

#[cfg(test)]
mod tests {
    use gcs_writeset::DatabaseId;

    use super::*;

    fn question(number: u64) -> Question {
        Question { number, database: DatabaseId(1) }
    }

    fn answer(round: u64, index: u64) -> Vec<ReadState> {
        vec![ReadState { index, request_ctx: context(NodeId(1), 7, round) }]
    }

    fn asked(numbers: &[(u64, Option<u64>)], rounds: u64) -> Reads {
        let mut reads = Reads::new(NodeId(1), 7);
        reads.rounds = rounds;
        reads.pending = numbers.iter().map(|&(number, round)| Pending { question: question(number), round }).collect();
        reads
    }

    fn confirmed(reads: &Reads) -> Vec<u64> {
        reads.confirmed.iter().map(|(_, question)| question.number).collect()
    }

    #[test]
    fn an_answer_is_for_whoever_asked_before_its_round_began() {
        let mut reads = asked(&[(1, Some(1)), (2, Some(2)), (3, None)], 2);
        reads.confirmed(answer(1, 5));
        assert_eq!(confirmed(&reads), [1]);
        reads.confirmed(answer(2, 6));
        assert_eq!(confirmed(&reads), [1, 2]);
        assert_eq!(reads.pending.len(), 1, "the third has yet to go");
    }

    #[test]
    fn an_answer_to_another_process_or_to_no_round_is_none() {
        let mut reads = asked(&[(1, Some(1))], 1);
        reads.confirmed(vec![ReadState { index: 5, request_ctx: context(NodeId(1), 8, 1) }]);
        reads.confirmed(vec![ReadState { index: 5, request_ctx: vec![1, 2, 3] }]);
        reads.confirmed(answer(2, 5));
        assert_eq!(confirmed(&reads), [0; 0]);
    }

    #[test]
    fn without_a_quorum_everybody_is_refused_at_once() {
        let mut reads = asked(&[(1, Some(1)), (2, None)], 1);
        reads.confirmed(answer(1, 5));
        let mut replies = Vec::new();
        reads.quorum_lost(&mut replies);
        reads.ask(question(3), false, &mut replies);
        let numbers: Vec<u64> = replies
            .iter()
            .filter_map(|reply| match reply {
                LocalReply::ReadRefused { number, reason: RefusalReason::NoQuorum } => Some(*number),
                _ => None,
            })
            .collect();
        assert_eq!(numbers, [2, 1, 3]);
    }

    #[test]
    fn only_so_many_wait() {
        let mut reads = Reads::new(NodeId(1), 7);
        let mut replies = Vec::new();
        (0..=READS_MAX as u64).for_each(|number| reads.ask(question(number), true, &mut replies));
        let reason = RefusalReason::Overloaded;
        assert_eq!(replies, [LocalReply::ReadRefused { number: READS_MAX as u64, reason }]);
    }
}
