//! Remains: what one node has of a group of which a majority is lost for good, and how a new epoch begins with it.
//!
//! Everything in the node's log counts as committed from then on. Whatever the node's own clients were told is among it, since it tells them
//! only what it has applied, and applies only what is durable in its own log. What the others committed without it is lost; and what stands
//! behind the last entry that it knew to be committed may have been decided otherwise by them, who are not there to say so.
//!
//! The epoch begins with one entry ([`Step::Recover`]) in a term of its own, written in one piece with the promise that it and all before it are
//! committed. So it is there or not, whenever this is interrupted; and it is an entry like any other to whoever reads the log afterwards: the
//! node itself, and those that join. Changes of votes that were under way are applied in front of it as if they had been committed; no majority
//! of theirs is ever asked.

use std::collections::BTreeMap;

use bytes::Bytes;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{DatabaseId, NodeId, Position};
use raft::eraftpb::{Entry, EntryType, HardState};
use raft::{GetEntriesContext, Storage};
use raft_prost::Message as _;

use crate::api::*;
use crate::command::{self, Command};
use crate::core::Core;
use crate::error::CoreError;
use crate::membership::{Change, Step};
use crate::retention::Mark;

/// What a node has, if all of its log counts.
#[derive(Clone, Debug)]
pub struct Remains {
    pub node: NodeId,
    /// The end of the log: of two nodes, the one with the higher term, and of the same term the higher index, has more.
    pub last: LogIndex,
    pub last_term: u64,
    /// Up to here the node knew that it was committed.
    pub committed: LogIndex,
    pub membership: Membership,
    pub databases: Vec<Remainder>,
    /// In which it has voted or may have.
    term: u64,
}

/// What there is of a database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remainder {
    pub name: String,
    /// The last position.
    pub head: Position,
    /// The last position of which the log still says when its COMMIT was asked for on its origin, in microseconds since 2000-01-01 UTC.
    pub dated: Option<(Position, i64)>,
    /// The node takes no part in it: without the others it ends.
    pub ends: bool,
}

impl Remains {
    /// Reads the log of a node that is not running; nothing is written.
    pub fn of<L: Storage + Clone>(config: CoreConfig, log: L, recovered: Recovered) -> Result<Remains, CoreError> {
        let (node, last) = (config.node, log.last_index()?);
        let last_term = log.term(last)?;
        let found = recovered.hard_state.unwrap_or_default();
        let applied = recovered.checkpoint.as_ref().map_or(LogIndex(0), |checkpoint| checkpoint.index);
        let (committed, term) = (applied.max(LogIndex(found.commit)), found.term);
        let hard_state = Some(HardState { commit: last, ..found });
        let mut core = Core::new(config, log.clone(), Recovered { hard_state, ..recovered })?;
        let mut dated = BTreeMap::new();
        replay(&mut core, |effects| {
            let of = |ordered: Ordered| {
                let Ordered { outcome: PositionOutcome { database, position, .. }, writeset, .. } = ordered;
                committed_at(&writeset).map(|at| (database, (position, at)))
            };
            dated.extend(effects.ordered.into_iter().filter_map(of));
            Ok::<(), CoreError>(())
        })?;
        let state = core.state();
        let databases = state.databases.iter().map(|(id, database)| Remainder {
            name: database.name.clone(),
            head: database.head,
            dated: dated.get(id).copied().or_else(|| before(&log, database.retention.last, *id)),
            ends: database.attachments.incarnation(node).is_none(),
        });
        let (databases, membership) = (databases.collect(), state.membership.clone());
        Ok(Remains { node, last: LogIndex(last), last_term, committed, membership, databases, term })
    }

    /// The write that begins the new epoch, or why it cannot begin.
    pub fn epoch(&self) -> Result<DurableWrite, Objection> {
        let step = Step::Recover { node: self.node };
        self.membership.check(&step)?;
        let change = Change { version: self.membership.version, step };
        let (index, term) = (self.last.0 + 1, self.term + 1);
        let (data, entry_type) = (change.entry().encode_to_vec(), EntryType::EntryConfChangeV2 as i32);
        let hard_state = HardState { term, vote: self.node.0, commit: index };
        Ok(DurableWrite {
            entries: vec![Entry { entry_type, term, index, data, ..Entry::default() }],
            hard_state: Some(hard_state),
            sync: true,
            ..DurableWrite::default()
        })
    }
}

/// Applies all that is committed, without a clock and without peers.
pub fn replay<L: Storage, E: From<CoreError>>(
    core: &mut Core<L>,
    mut carry_out: impl FnMut(Effects) -> Result<(), E>,
) -> Result<(), E> {
    let mut inputs = Vec::new();
    loop {
        let effects = core.step(Tick(0), std::mem::take(&mut inputs))?;
        let written = effects.write.as_ref().map(|write| write.number);
        carry_out(effects)?;
        match written {
            Some(number) => inputs.push(Input::Written(number)),
            None => return Ok(()),
        }
    }
}

/// When COMMIT was asked for; whoever does not know it says 0.
fn committed_at(writeset: &[u8]) -> Option<i64> {
    Envelope::peek(writeset).ok().map(|peeked| peeked.head.committed_at).filter(|at| *at != 0)
}

/// Of what was applied before the checkpoint: the last position of a marked entry. Nobody is to fail for want of it.
fn before<L: Storage>(log: &L, mark: Mark, database: DatabaseId) -> Option<(Position, i64)> {
    let entries = log.entries(mark.index.0, mark.index.0 + 1, None, GetEntriesContext::empty(false)).ok()?;
    let commands = command::decode_entry(&Bytes::from(entries.into_iter().next()?.data)).ok()?;
    let of_database = commands.into_iter().rev().find_map(|command| match command {
        Command::Submit { tag, writeset } if tag.database == database => Some(writeset),
        _ => None,
    });
    committed_at(&of_database?).map(|at| (mark.head, at))
}
