//! Recovery: from a configuration and what a log store found to the state that a core begins with.

use gcs_writeset::bounds::{GROUP_MEMBERS_MAX, NAME_BYTES_MAX};
use gcs_writeset::{NodeId, NodeKind};

use crate::api::{Checkpoint, CoreConfig};
use crate::certify::WindowBounds;
use crate::checkpoint;
use crate::error::CoreError;
use crate::membership::Membership;
use crate::state::State;

/// What the log begins with: the state of a checkpoint, or that of the empty log.
pub fn state(config: &CoreConfig, checkpoint: Option<&Checkpoint>, bounds: WindowBounds) -> Result<State, CoreError> {
    check_config(config)?;
    match checkpoint {
        Some(checkpoint) => of_checkpoint(config, checkpoint, bounds),
        None => Ok(State::new(config.group.clone(), Membership::new(config.founders.clone()), bounds)),
    }
}

/// The state in a checkpoint, if it is of this group.
pub fn of_checkpoint(config: &CoreConfig, checkpoint: &Checkpoint, bounds: WindowBounds) -> Result<State, CoreError> {
    let state = checkpoint::decode(&checkpoint.state, bounds)?;
    check_format(config, &state.membership)?;
    if state.group != config.group {
        return Err(CoreError::Recovery(format!("the data belongs to group \"{}\"", state.group)));
    }
    if state.membership.founders != config.founders {
        return Err(CoreError::Recovery("the data belongs to a group that began with other members".to_owned()));
    }
    if (state.applied, state.applied_term) != (checkpoint.index, checkpoint.term) {
        return Err(CoreError::Recovery("the checkpoint is not the one it is said to be".to_owned()));
    }
    Ok(state)
}

/// What comes next could not be read.
pub fn check_format(config: &CoreConfig, membership: &Membership) -> Result<(), CoreError> {
    let (written, read) = (membership.format, config.reads);
    if written <= read {
        return Ok(());
    }
    Err(CoreError::Format { group: config.group.clone(), written, read })
}

fn check_config(config: &CoreConfig) -> Result<(), CoreError> {
    let founders = &config.founders;
    let fail = |what: &str| Err(CoreError::Config(what.to_owned()));
    if !founders.iter().any(|founder| founder.kind == NodeKind::Full) && !founders.is_empty() {
        return fail("a group begins with a full node at least");
    }
    if founders.is_empty() || founders.len() > GROUP_MEMBERS_MAX {
        return fail("a group has at least one member and not more than its bound");
    }
    if !founders.is_sorted_by(|a, b| a.name < b.name) {
        return fail("members must be sorted by name, each name once");
    }
    if config.node.0 == 0 || founders.iter().any(|founder| founder.node.0 == 0) {
        return fail("a member's id must not be 0");
    }
    let mut ids: Vec<NodeId> = founders.iter().map(|founder| founder.node).collect();
    ids.sort_unstable();
    if ids.windows(2).any(|pair| pair[0] == pair[1]) {
        return fail("two members' names give the same id");
    }
    let texts = founders.iter().flat_map(|founder| [&founder.name, &founder.address]);
    if texts.chain([&config.group, &config.address]).any(|text| text.len() > NAME_BYTES_MAX) {
        return fail("a name or an address is too long");
    }
    Ok(())
}
