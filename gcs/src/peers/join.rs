//! Becoming a member: a node with an empty data directory asks one.
//!
//! The member that is asked has the group order it, and answers when that is so; the joiner then runs like any other, and learns everything
//! else from the log. The joiner's directory has its number before it asks, so that asking again, after whatever went wrong, is answered
//! as the first time.

use std::io;
use std::rc::Rc;

use gcs_core::{Format, Founder, Objection, Wish};
use gcs_proto::message::{PROTOCOL, PROTOCOL_OLDEST, check_protocol, kind_of};
use gcs_proto::{Decoder, FoundingMember, Frame, HandshakeRefusal, Join, Joined, Refused};
use gcs_writeset::NodeId;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::admission::{check_format, check_group, refuse};
use super::secure::{self, SecureError};
use super::table::Peers;
use crate::bounds::{HANDSHAKE_FRAME_BYTES_MAX, HANDSHAKE_TIMEOUT, JOIN_TIMEOUT, REDIAL_LAST};
use crate::config::{Config, check_address, check_name};
use crate::log::Identity;
use crate::outbox::Outbox;
use crate::tls::{NodeName, Security};

#[derive(Debug, Error)]
pub enum JoinError {
    /// By all that were asked; asking again would not change it.
    #[error("group \"{group}\" does not take this node in: {message}")]
    Refused { group: String, message: String },
    #[error("the group that {0} is in has a member of a role that this version does not know")]
    Strange(String),
}

#[derive(Debug, Error)]
enum AskError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no answer within {} s", JOIN_TIMEOUT.as_secs())]
    Timeout,
    #[error("refused: {}", .0.message)]
    Refused(Refused),
    #[error("answered with something else than a daemon would: {0}")]
    Garbage(String),
    #[error("{0}")]
    Secure(#[from] SecureError),
    #[error("the certificate there is of {0}, which is another group")]
    OtherGroup(NodeName),
}

/// Asks the configured members in turn until one lets this node in, or one refuses it for good. The identity is complete afterwards.
pub async fn join(config: &Config, security: &Security, mut identity: Identity) -> Result<Identity, JoinError> {
    let mut reported = String::new();
    loop {
        for address in &config.join {
            match ask(config, security, address, identity.directory).await {
                Ok(joined) => {
                    let founders: Option<Vec<Founder>> = joined.founders.into_iter().map(founder).collect();
                    identity.generation = joined.generation;
                    identity.founders = founders.ok_or_else(|| JoinError::Strange(address.clone()))?;
                    return Ok(identity);
                }
                Err(AskError::Refused(refused)) if is_final(&refused) => {
                    return Err(JoinError::Refused { group: config.group.clone(), message: refused.message });
                }
                Err(error) => {
                    let text = format!("{address}: {error}");
                    if text != reported {
                        tracing::info!(%address, %error, "cannot join yet, trying again");
                        reported = text;
                    }
                }
            }
        }
        sleep(REDIAL_LAST).await;
    }
}

fn founder(member: FoundingMember) -> Option<Founder> {
    let (node, kind) = (NodeId::of_name(&member.name), kind_of(member.kind)?);
    Some(Founder { node, name: member.name, address: member.address, kind })
}

/// A group without a majority may have one later.
fn is_final(refused: &Refused) -> bool {
    refused.reason() != HandshakeRefusal::Unspecified
}

async fn ask(config: &Config, security: &Security, address: &str, directory: u64) -> Result<Joined, AskError> {
    let stream = timeout(HANDSHAKE_TIMEOUT, TcpStream::connect(address)).await.map_err(|_| AskError::Timeout)??;
    stream.set_nodelay(true)?;
    let secured = timeout(HANDSHAKE_TIMEOUT, secure::dial(security, stream)).await.map_err(|_| AskError::Timeout)?;
    let (stream, found) = secured?;
    if let Some(found) = found.filter(|found| found.group != config.group) {
        return Err(AskError::OtherGroup(found));
    }
    let stream = Rc::new(stream);
    let (group, name, address) = (config.group.clone(), config.name.clone(), config.address.clone());
    let kind = config.kind.number().into();
    let (protocol, protocol_oldest, reads) = (PROTOCOL, PROTOCOL_OLDEST, config.reads.0.into());
    let question = Frame::Join(Join { protocol, group, name, address, directory, kind, reads, protocol_oldest });
    let outbox = Outbox::new(stream.clone(), HANDSHAKE_FRAME_BYTES_MAX);
    outbox.put(|out| gcs_proto::encode(&question, out)).map_err(|error| AskError::Garbage(error.to_string()))?;
    outbox.flush();
    let answer = async {
        let mut decoder = Decoder::new(HANDSHAKE_FRAME_BYTES_MAX);
        loop {
            if let Some(frame) = decoder.next_frame().map_err(|error| AskError::Garbage(error.to_string()))? {
                return Ok(frame);
            }
            if stream.read(&mut decoder.buffer).await? == 0 {
                return Err(AskError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
    };
    let frame = tokio::select! {
        frame = timeout(JOIN_TIMEOUT, answer) => frame.map_err(|_| AskError::Timeout)??,
        error = outbox.run() => return Err(error.into()),
    };
    match frame {
        Frame::Joined(joined) => Ok(joined),
        Frame::Refused(refused) => Err(AskError::Refused(refused)),
        _ => Err(AskError::Garbage("a frame that is not an answer".to_owned())),
    }
}

/// Lets a node in: has the group order it, and answers when it is so.
pub async fn answer(peers: &Peers, join: Join) -> Frame {
    match let_in(peers, join).await {
        Ok(joined) => Frame::Joined(joined),
        Err(refused) => {
            tracing::info!("a node that wants to join is refused: {}", refused.message);
            Frame::Refused(refused)
        }
    }
}

async fn let_in(peers: &Peers, join: Join) -> Result<Joined, Refused> {
    let Join { protocol, group, name, address, directory, kind, reads, protocol_oldest } = join;
    let (roster, reads) = (&peers.roster, Format::of_peer(reads));
    check_protocol(protocol, protocol_oldest)?;
    check_group(peers, &group)?;
    check_format(peers, &name, reads)?;
    let cannot = |message: String| refuse(HandshakeRefusal::CannotJoin, message);
    if let Err(message) = check_name("the name", &name).and_then(|()| check_address("the address", &address)) {
        return cannot(message);
    }
    let Some(kind) = kind_of(kind) else { return cannot(format!("it has role {kind}, which is not known here")) };
    if directory == 0 {
        return cannot("its data directory has no number".to_owned());
    }
    if let Some(why) = roster.removed() {
        return refuse(HandshakeRefusal::Unspecified, why);
    }
    if let Some(member) = roster.named(&name).filter(|member| member.directory != directory) {
        let is_alive = member.node == roster.node || peers.is_up(member.node);
        return cannot(match is_alive {
            true => {
                format!("\"{name}\" is a member of the group, and is running at {}: choose another name", member.address)
            }
            false => {
                format!("\"{name}\" is a member of the group that cannot be reached: remove it first (gcs evict {name})")
            }
        });
    }
    if let Some(member) = roster.named(&name).filter(|member| member.kind != kind) {
        return cannot(format!(
            "\"{name}\" is a member already, as {}, not as {}: remove it first (gcs evict {name})",
            member.kind.name(),
            kind.name()
        ));
    }
    let generation = roster.membership().next_generation(&name);
    let wish = Wish::Add { name: name.clone(), generation, address: address.clone(), directory, kind, reads };
    match peers.wishes.wish(&peers.inbox, wish, false).await {
        Ok(()) => {}
        // Of the name's generation this node may know less than the leader.
        Err(objection @ (Objection::TooLate | Objection::ChangeUnderWay | Objection::IdTaken)) => {
            return refuse(HandshakeRefusal::Unspecified, objection.to_string());
        }
        Err(objection) => return cannot(format!("\"{name}\" at {address}: {objection}")),
    }
    let founder = |founder: Founder| FoundingMember {
        name: founder.name,
        address: founder.address,
        kind: founder.kind.number().into(),
    };
    let generation = roster.named(&name).map_or(0, |member| member.generation);
    Ok(Joined { generation, founders: roster.membership().founders.into_iter().map(founder).collect() })
}
