//! What people ask of the membership (`gcs evict`, `leave`, `replace`, `lead`): from names to wishes, and from what became of a wish to
//! words.

use gcs_core::{Member, Objection, Wish};
use gcs_writeset::NodeId;
use gcs_writeset::link::{Change, Failure, FailureKind, GroupStatus, MemberRole, MemberState, MemberStatus};

use super::this_node::ThisNode;

/// Until the membership is as asked.
pub async fn carry_out(node: &ThisNode, change: Change) -> Result<(), Failure> {
    let what = describe(node, &change);
    let wish = wish(node, &change)?;
    let force = matches!(change, Change::Evict { force: true, .. });
    let asked = node.peers.wishes.wish(&node.inbox, wish, force);
    if let Change::Leave = change {
        // Nobody sends its own removal to a node that has been removed; it hears of it from its peers.
        return tokio::select! {
            outcome = asked => outcome.map_err(|objection| failure(&what, objection)),
            _ = node.roster.removal() => Ok(()),
        };
    }
    asked.await.map_err(|objection| failure(&what, objection))
}

/// What that would do, in words, and whether it could be done as far as is known here now; nothing is changed.
pub async fn consider(node: &ThisNode, status: &GroupStatus, change: &Change) -> Result<String, Failure> {
    let what = describe(node, change);
    let wish = wish(node, change)?;
    let force = matches!(change, Change::Evict { force: true, .. });
    let considered = node.peers.wishes.consider(&node.inbox, wish.clone(), force).await;
    considered.map_err(|objection| failure(&what, objection))?;
    let is_reached = |of: NodeId| status.members.iter().any(|member| member.node == of && reaches(member));
    match wish {
        Wish::Remove { node: gone } => Ok(without(status, gone, &node.name_of(gone))),
        Wish::Replace { new, .. } if !is_reached(new) => {
            Err(refused(format!("{what}: member \"{}\" cannot be reached", node.name_of(new)), "See gcs members."))
        }
        // It has its vote already.
        Wish::Replace { old, new } if node.roster.member(new).is_some_and(|new| new.role == MemberRole::Voter) => {
            Ok(without(status, old, &node.name_of(old)))
        }
        Wish::Replace { old, new } => {
            let (old, new) = (node.name_of(old), node.name_of(new));
            Ok(format!("member \"{new}\" would get the vote of \"{old}\" once it has caught up, and \"{old}\" would go"))
        }
        Wish::Lead { node: to } if !is_reached(to) => Err(failure(&what, Objection::TooLate)),
        Wish::Lead { node: to } => {
            let is_so = if status.leader == Some(to) { "leads already" } else { "would lead" };
            Ok(format!("member \"{}\" {is_so}", node.name_of(to)))
        }
        _ => Ok("nothing would be done".to_owned()),
    }
}

fn reaches(member: &MemberStatus) -> bool {
    member.state != MemberState::Unreachable
}

/// What is left without a member.
fn without(status: &GroupStatus, gone: NodeId, name: &str) -> String {
    let stays = |member: &&MemberStatus| member.node != gone && member.role == MemberRole::Voter;
    let voters: Vec<&MemberStatus> = status.members.iter().filter(stays).collect();
    let (count, reached) = (voters.len(), voters.iter().filter(|member| reaches(member)).count());
    let warning = if 2 * reached > count { "" } else { ", which is no majority: no commit could be had then" };
    format!("member \"{name}\" would be removed; of the {count} voters that stay {reached} are in touch{warning}")
}

fn wish(node: &ThisNode, change: &Change) -> Result<Wish, Failure> {
    let member = |name: &str| node.roster.named(name).ok_or_else(|| unknown(node, name));
    Ok(match change {
        Change::Leave => Wish::Remove { node: node.id() },
        Change::Evict { name, force } => {
            let found = member(name)?;
            if !force && is_alive(node, &found) {
                let message = format!("member \"{name}\" is running");
                return Err(refused(message, &format!("Run gcs leave on it, or gcs evict {name} --force.")));
            }
            Wish::Remove { node: found.node }
        }
        Change::Replace { old, new } => Wish::Replace { old: member(old)?.node, new: member(new)?.node },
        Change::Lead { name } => Wish::Lead { node: member(name)?.node },
    })
}

fn is_alive(node: &ThisNode, member: &Member) -> bool {
    member.node == node.id() || node.peers.is_up(member.node)
}

fn describe(node: &ThisNode, change: &Change) -> String {
    match change {
        Change::Leave => format!("node \"{}\" cannot leave", node.name()),
        Change::Evict { name, .. } => format!("member \"{name}\" cannot be removed"),
        Change::Replace { old, new } => format!("member \"{old}\" cannot be replaced with \"{new}\""),
        Change::Lead { name } => format!("member \"{name}\" cannot lead"),
    }
}

fn unknown(node: &ThisNode, name: &str) -> Failure {
    let members = node.roster.membership().members;
    let names: Vec<String> = members.into_iter().map(|member| format!("\"{}\"", member.name)).collect();
    refused(
        format!("group \"{}\" has no member \"{name}\"", node.group()),
        &format!("Its members are {}.", names.join(", ")),
    )
}

fn failure(what: &str, objection: Objection) -> Failure {
    let hint = match objection {
        Objection::LastFullVoter => "Let another full member get its vote first.",
        Objection::Witness => "Name a full member.",
        Objection::LastVoter => "Let another member get its vote first; to end the group, stop its last node.",
        Objection::NotALearner | Objection::NotAVoter | Objection::QueryOnly => "See gcs members.",
        Objection::OnlyPlace => {
            "Let another member get the database first. Or detach it from the group, by ALTER DATABASE ... STOP REPLICATION on the node that has it; if \
             that node is lost for good, and the database with it, gcs evict --force."
        }
        Objection::ChangeUnderWay => "Try again.",
        Objection::TooLate => "A majority of the voters must be reached, and the member that is to lead. See gcs members.",
        _ => "",
    };
    refused(format!("{what}: {objection}"), hint)
}

fn refused(message: String, hint: &str) -> Failure {
    Failure { kind: FailureKind::Membership, message, hint: hint.to_owned() }
}
