//! The daemon's side: who asks for a certificate, and may have it.
//!
//! Nothing is given away and no token is used up before everything else about a question is right, so that whoever mistyped a name
//! can ask again. A token is used up on disk before the certificate leaves.

use gcs_proto::message::check_protocol;
use gcs_proto::{Enrol, Enrolled, EnrolledMember, HandshakeRefusal, Refused};
use gcs_writeset::NodeId;
use gcs_writeset::bounds::GROUP_MEMBERS_MAX;

use super::authority::{Authority, AuthorityError};
use super::tokens::{TokenRefusal, Tokens, Valid};
use crate::bounds::CLOCK_SKEW_MAX;
use crate::config::{Config, Tls, check_address, check_name};
use crate::tls::certificate::Facts;
use crate::tls::credentials::PeerProblem;
use crate::tls::{Moment, NodeName, files};

fn refusal(reason: HandshakeRefusal, message: impl Into<String>) -> Refused {
    Refused { reason: reason.into(), message: message.into() }
}

/// Why the caller may have a certificate for the name it asks for.
enum Right {
    Token(Valid),
    /// It has one already.
    Certificate,
}

/// Where questions are answered.
#[derive(Debug)]
pub struct Desk {
    node: String,
    group: String,
    tls: Option<Tls>,
    tokens: Tokens,
}

impl Desk {
    pub fn new(config: &Config) -> Desk {
        let tokens = Tokens::of(&config.data_directory);
        Desk { node: config.name.clone(), group: config.group.clone(), tls: config.tls.clone(), tokens }
    }

    /// `members` are those of the group now; `caller` is what its certificate says, `None` without TLS.
    pub fn answer(
        &self,
        members: &[EnrolledMember],
        caller: &Option<Result<NodeName, PeerProblem>>,
        enrol: &Enrol,
    ) -> Result<Enrolled, Refused> {
        check_protocol(enrol.protocol, 0)?;
        let (Some(tls), Some(caller)) = (&self.tls, caller) else {
            let message = format!("node \"{}\" runs without [tls] and gives out no certificates", self.node);
            return Err(refusal(HandshakeRefusal::NotTheAuthority, message));
        };
        let authority = self.authority(tls)?;
        check_name("the name of the node", &enrol.name).map_err(malformed)?;
        check_address("the address of the node", &enrol.address).map_err(malformed)?;
        let now = Moment::now();
        self.check_clock(enrol, now)?;
        let right = self.right(members, caller, enrol, now)?;
        check_free(members, enrol, &right)?;
        let certificate =
            authority.sign(&NodeName::new(&self.group, &enrol.name), &enrol.request).map_err(|error| match error {
                AuthorityError::Make(error) => malformed(format!("the signing request cannot be used: {error}")),
                error => self.failed(&error),
            })?;
        let authorities = files::certificates("ca_file", &tls.ca_file).map_err(|error| self.failed(&error))?;
        if let Right::Token(token) = right {
            token.use_up(&enrol.name, now).map_err(|error| self.failed(&error))?;
        }
        tracing::info!(node = %enrol.name, address = %enrol.address, "a certificate was signed");
        Ok(Enrolled {
            group: self.group.clone(),
            certificate: certificate.to_vec().into(),
            authorities: authorities.iter().map(|authority| authority.to_vec().into()).collect(),
            members: members.to_vec(),
        })
    }

    fn failed(&self, error: &dyn std::fmt::Display) -> Refused {
        tracing::error!("could not sign a certificate: {error}");
        refusal(HandshakeRefusal::Failed, format!("node \"{}\" could not do it: {error}", self.node))
    }

    /// The key is read when it is needed, and not kept in memory.
    fn authority(&self, tls: &Tls) -> Result<Authority, Refused> {
        let Some(key_file) = &tls.ca_key_file else {
            let authorities = files::certificates("ca_file", &tls.ca_file).unwrap_or_default();
            let made_at = authorities.iter().find_map(|authority| Facts::of(authority).ok()?.name);
            let whom = match made_at {
                Some(name) => format!("ask node \"{}\", on which the authority was made", name.node),
                None => "ask the node that has ca_key_file in its configuration".to_owned(),
            };
            let message = format!("node \"{}\" cannot sign certificates: {whom}", self.node);
            return Err(refusal(HandshakeRefusal::NotTheAuthority, message));
        };
        Authority::load(key_file, &tls.ca_file).map_err(|error| self.failed(&error))
    }

    fn check_clock(&self, enrol: &Enrol, now: Moment) -> Result<(), Refused> {
        let there = Moment::new(enrol.clock);
        let ahead = there.seconds_since(now);
        if ahead.unsigned_abs() <= CLOCK_SKEW_MAX.as_secs() {
            return Ok(());
        }
        let direction = if ahead > 0 { "ahead of" } else { "behind" };
        let message = format!(
            "the clock of node \"{}\" ({there}) is {} s {direction} that of node \"{}\" ({now}): set the clocks",
            enrol.name,
            ahead.unsigned_abs(),
            self.node
        );
        Err(refusal(HandshakeRefusal::Clock, message))
    }

    fn right(
        &self,
        members: &[EnrolledMember],
        caller: &Result<NodeName, PeerProblem>,
        enrol: &Enrol,
        now: Moment,
    ) -> Result<Right, Refused> {
        if enrol.secret.is_empty() {
            let name = caller.as_ref().map_err(|problem| refusal(HandshakeRefusal::Certificate, problem.to_string()))?;
            let wanted = NodeName::new(&self.group, &enrol.name);
            if *name != wanted {
                let message = format!("the certificate shown is of {name}, not of {wanted}");
                return Err(refusal(HandshakeRefusal::OtherName, message));
            }
            // One that was evicted must not go on for ever by renewing.
            if !members.iter().any(|member| member.name == enrol.name) {
                let message = format!("\"{}\" is not a member of the group", enrol.name);
                return Err(refusal(HandshakeRefusal::NotAMember, message));
            }
            return Ok(Right::Certificate);
        }
        let valid = self.tokens.check(&enrol.secret, &enrol.name, now);
        valid.map(Right::Token).map_err(|problem| {
            let reason = match problem {
                TokenRefusal::Unknown => HandshakeRefusal::TokenUnknown,
                TokenRefusal::Expired(_) => HandshakeRefusal::TokenExpired,
                TokenRefusal::Used(_) => HandshakeRefusal::TokenUsed,
                TokenRefusal::OfAnother(_) => HandshakeRefusal::TokenOfAnother,
                TokenRefusal::Failed(_) => HandshakeRefusal::Failed,
            };
            refusal(reason, problem.to_string())
        })
    }
}

fn malformed(message: String) -> Refused {
    refusal(HandshakeRefusal::Malformed, message)
}

/// A name or an address belongs to one node. Only who proves to be the member, by its certificate or by a token for
/// that very name, gets another certificate for it.
fn check_free(members: &[EnrolledMember], enrol: &Enrol, right: &Right) -> Result<(), Refused> {
    let taken = |message: String| Err(refusal(HandshakeRefusal::NameTaken, message));
    let is_again = match right {
        Right::Certificate => true,
        Right::Token(token) => token.name.is_some(),
    };
    let node = NodeId::of_name(&enrol.name);
    match members.iter().find(|member| member.name == enrol.name || NodeId::of_name(&member.name) == node) {
        Some(member) if member.name != enrol.name => {
            return taken(format!(
                "the names \"{}\" and \"{}\" have the same hash: choose another",
                enrol.name, member.name
            ));
        }
        Some(_) if !is_again => {
            return taken(format!("\"{}\" is a member of the group already: choose another name", enrol.name));
        }
        Some(_) => {}
        None if members.len() >= GROUP_MEMBERS_MAX => {
            return taken(format!("the group has {} members, and can have no more", members.len()));
        }
        None => {}
    }
    match members.iter().find(|member| member.address == enrol.address && member.name != enrol.name) {
        Some(member) => taken(format!("{} is the address of node \"{}\" already", enrol.address, member.name)),
        None => Ok(()),
    }
}
