//! Who is let in: a caller's greeting against the membership.
//!
//! A caller that is no member as far as is known here is let in all the same if it knows a later membership: this node was away while it
//! became one, and only learns so from the members of today. (With TLS the caller has shown a certificate of the group by then.)

use std::rc::Rc;
use std::time::Duration;

use gcs_core::Format;
use gcs_proto::{HandshakeRefusal, Hello, Refused};
use gcs_writeset::NodeId;

use super::table::{Peer, Peers};
use crate::bounds::PING_EVERY;

/// A process that was heard within this is alive.
const ALIVE_WITHIN: Duration = PING_EVERY.saturating_mul(2);

pub fn refuse<T>(reason: HandshakeRefusal, message: String) -> Result<T, Refused> {
    Err(Refused { reason: reason.into(), message })
}

pub fn check_group(peers: &Peers, group: &str) -> Result<(), Refused> {
    let roster = &peers.roster;
    if group != roster.group {
        let message = format!("node \"{}\" is in group \"{}\", not \"{group}\"", roster.name, roster.group);
        return refuse(HandshakeRefusal::WrongGroup, message);
    }
    Ok(())
}

/// All that the group writes, the node that calls or joins can read.
pub fn check_format(peers: &Peers, name: &str, reads: Format) -> Result<(), Refused> {
    let (group, written) = (&peers.roster.group, peers.roster.format());
    if reads < written {
        let message = format!(
            "group \"{group}\" writes format {written}, node \"{name}\" reads up to {reads}: run the release there that the other nodes run"
        );
        return refuse(HandshakeRefusal::Format, message);
    }
    Ok(())
}

/// The peer that calls, if it is one; and whether it is to be dialled from now on.
pub fn admit(peers: &Peers, hello: &Hello) -> Result<(Rc<Peer>, bool), Refused> {
    let roster = &peers.roster;
    check_group(peers, &hello.group)?;
    let node = NodeId(hello.node);
    if node != NodeId::of_member(&hello.name, hello.generation) {
        return refuse(HandshakeRefusal::NotAMember, format!("\"{}\" does not go with its id", hello.name));
    }
    // It votes with nobody: those that have not heard that it is gone may not have heard either that they are.
    if let Some(why) = roster.removed() {
        return refuse(HandshakeRefusal::Unspecified, why);
    }
    if hello.members_hash != roster.founders_hash {
        let message = format!(
            "node \"{}\" has another list of the first members: names and addresses must be the same on all nodes",
            roster.name
        );
        return refuse(HandshakeRefusal::MembersDiffer, message);
    }
    if roster.is_gone(&hello.name, hello.generation) {
        let message = format!("node \"{}\" was removed from group \"{}\"", hello.name, roster.group);
        return refuse(HandshakeRefusal::Removed, message);
    }
    if node == roster.node {
        let message = format!("this is node \"{}\" itself, or two nodes have one name", roster.name);
        return refuse(HandshakeRefusal::TwiceAtOnce, message);
    }
    check_format(peers, &hello.name, Format::of_peer(hello.reads))?;
    let known = roster.member(node);
    if let Some(member) = &known
        && member.directory != 0
        && member.directory != hello.directory
    {
        let name = &hello.name;
        let message = format!(
            "the data directory of \"{name}\" is not the one that the group knows: what \"{name}\" had promised is lost; \
             remove it (gcs evict {name}) and have it join again with an empty directory"
        );
        return refuse(HandshakeRefusal::OtherDirectory, message);
    }
    let (peer, is_new) = match (peers.get(node), known) {
        (Some(peer), _) => (Some(peer), false),
        (None, None) if hello.version > roster.version() => {
            (peers.invite(node, &hello.name, &hello.address, hello.version), true)
        }
        (None, _) => (None, false),
    };
    let Some(peer) = peer else {
        let message = format!("node \"{}\" knows no member \"{}\"", roster.name, hello.name);
        return refuse(HandshakeRefusal::NotAMember, message);
    };
    check_life(&peer, hello)?;
    if !hello.address.is_empty() {
        peer.moved(&hello.address);
    }
    Ok((peer, is_new))
}

/// One process a name. An old one that has died is not heard any more.
fn check_life(peer: &Peer, hello: &Hello) -> Result<(), Refused> {
    let connections = peer.connections.borrow();
    let is_alive = connections.heard.is_some_and(|heard| heard.elapsed() < ALIVE_WITHIN);
    if connections.incoming.is_some() && connections.life != hello.life && is_alive {
        let name = &hello.name;
        let message =
            format!("another daemon is connected as \"{name}\": two nodes must not have one name or one data directory");
        return refuse(HandshakeRefusal::TwiceAtOnce, message);
    }
    Ok(())
}
