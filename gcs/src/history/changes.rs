//! What has happened between two states of the group: a function of both, tested without a group.
//!
//! A daemon that has just started has seen no group yet. What it sees first is no event, except for a member that is not online and a majority that is in touch.

use std::collections::BTreeMap;

use gcs_writeset::NodeId;
use gcs_writeset::link::{CopyStatus, GroupStatus, MemberState, MemberStatus};

use super::event::Happening;
use crate::status::state_name;

/// The state of the group, as far as it makes events.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    quorum: bool,
    leader: Option<String>,
    term: u64,
    members: BTreeMap<String, Member>,
    /// What each database is on this node.
    pub databases: BTreeMap<String, &'static str>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Member {
    state: &'static str,
    role: &'static str,
    copy: Option<Copy>,
    /// A member whose daemon is not connected, and not yet counted as unreachable: what it said of itself is forgotten, and nothing new is known.
    is_silent: bool,
}

/// What is copied to a member, and from which.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Copy {
    what: String,
    from: String,
}

impl Seen {
    /// `is_up`: whether a member's daemon is connected, or is this one.
    pub fn of(status: &GroupStatus, databases: BTreeMap<String, &'static str>, is_up: impl Fn(NodeId) -> bool) -> Seen {
        let leader = status.members.iter().find(|member| Some(member.node) == status.leader);
        let of = |member: &MemberStatus| Member {
            state: state_name(member),
            role: member.role.name(member.kind),
            copy: member.copy.as_ref().map(of_copy),
            is_silent: member.state != MemberState::Unreachable && !is_up(member.node),
        };
        Seen {
            quorum: status.quorum,
            leader: leader.map(|member| member.name.clone()),
            term: status.term,
            members: status.members.iter().map(|member| (member.name.clone(), of(member))).collect(),
            databases,
        }
    }
}

impl Seen {
    /// Keeps what was known of those that say nothing.
    pub fn behind(mut self, before: &Seen) -> Seen {
        for (name, member) in self.members.iter_mut().filter(|(_, member)| member.is_silent) {
            if let Some(was) = before.members.get(name) {
                *member = Member { role: member.role, ..was.clone() };
            }
        }
        self
    }
}

fn of_copy(copy: &CopyStatus) -> Copy {
    let what = if copy.database.is_empty() { "the whole server".to_owned() } else { format!("database {}", copy.database) };
    Copy { what, from: copy.from.clone() }
}

pub fn between(before: &Seen, now: &Seen) -> Vec<Happening> {
    let mut found = Vec::new();
    match (before.quorum, now.quorum) {
        (true, false) => {
            found.push(Happening::new("majority-lost", "no majority is in touch: writes are refused here".to_owned()));
        }
        (false, true) => found.push(Happening::new("majority-found", "a majority is in touch".to_owned())),
        _ => {}
    }
    if (&before.leader, before.term) != (&now.leader, now.term) {
        found.extend(of_leader(before, now));
    }
    found.extend(of_members(before, now));
    for (name, service) in &now.databases {
        found.extend(of_database(name, before.databases.get(name).copied(), service));
    }
    found
}

fn of_leader(before: &Seen, now: &Seen) -> Option<Happening> {
    match &now.leader {
        Some(name) => {
            let text = format!("{name} leads, term {}", now.term);
            Some(Happening::new("leader", text).of_member(name))
        }
        // A term that is another while nobody leads is one more attempt.
        None if before.leader.is_none() => None,
        None => Some(Happening::new("no-leader", "the group has no leader, as far as is known here".to_owned())),
    }
}

fn of_members(before: &Seen, now: &Seen) -> Vec<Happening> {
    let is_first = before.members.is_empty();
    let mut found = Vec::new();
    for (name, member) in &now.members {
        let Some(was) = before.members.get(name) else {
            if !is_first {
                let text = format!("{name} is a member now: {}", member.role);
                found.push(Happening::new("member-joined", text).of_member(name).from_to(None, member.state));
            } else if member.state != "online" {
                let text = format!("{name}: {}", member.state);
                found.push(Happening::new("member-state", text).of_member(name).from_to(None, member.state));
            }
            continue;
        };
        if was.state != member.state {
            let text = format!("{name}: {} (was {})", member.state, was.state);
            found.push(Happening::new("member-state", text).of_member(name).from_to(Some(was.state), member.state));
        }
        if was.role != member.role {
            let text = format!("{name} is {} (was {})", member.role, was.role);
            found.push(Happening::new("member-role", text).of_member(name).from_to(Some(was.role), member.role));
        }
        found.extend(of_copies(name, was, member));
    }
    for name in before.members.keys().filter(|name| !now.members.contains_key(*name)) {
        found.push(Happening::new("member-left", format!("{name} is no member any more")).of_member(name));
    }
    found
}

fn of_copies(name: &str, was: &Member, member: &Member) -> Vec<Happening> {
    if was.copy == member.copy {
        return Vec::new();
    }
    let over = was
        .copy
        .as_ref()
        .map(|copy| Happening::new("copy-ended", format!("{name}: the copy of {} from {} has ended", copy.what, copy.from)));
    let begun = member
        .copy
        .as_ref()
        .map(|copy| Happening::new("copy-begun", format!("{name} gets a copy of {} from {}", copy.what, copy.from)));
    over.into_iter().chain(begun).map(|happening| happening.of_member(name)).collect()
}

/// Of this node.
pub fn of_database(name: &str, was: Option<&str>, now: &str) -> Option<Happening> {
    if was == Some(now) {
        return None;
    }
    let before = was.map(|was| format!(" (was {was})")).unwrap_or_default();
    let text = format!("database {name} here: {now}{before}");
    Some(Happening::new("database-state", text).of_database(name).from_to(was, now))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(state: &'static str) -> Member {
        Member { state, role: "voter", copy: None, is_silent: false }
    }

    fn group(states: &[(&str, &'static str)]) -> Seen {
        let members = states.iter().map(|(name, state)| ((*name).to_owned(), member(state))).collect();
        Seen { quorum: true, leader: Some("n1".to_owned()), term: 2, members, databases: BTreeMap::new() }
    }

    fn told(before: &Seen, now: &Seen) -> Vec<(String, String)> {
        between(before, now).into_iter().map(|event| (event.kind, event.text)).collect()
    }

    fn texts(before: &Seen, now: &Seen) -> Vec<String> {
        told(before, now).into_iter().map(|(_, text)| text).collect()
    }

    #[test]
    fn members_come_go_and_change() {
        let before = group(&[("n1", "online"), ("n2", "online"), ("n3", "online")]);
        let now = group(&[("n1", "online"), ("n2", "unreachable"), ("n4", "detached")]);
        assert_eq!(told(&before, &before), []);
        assert_eq!(
            texts(&before, &now),
            ["n2: unreachable (was online)", "n4 is a member now: voter", "n3 is no member any more"]
        );
    }

    #[test]
    fn what_a_daemon_sees_first_is_no_event_but_for_who_is_not_there() {
        let now = group(&[("n1", "online"), ("n2", "unreachable")]);
        assert_eq!(texts(&Seen::default(), &now), ["a majority is in touch", "n1 leads, term 2", "n2: unreachable"]);
    }

    #[test]
    fn a_majority_and_a_leader_are_lost_and_found_and_elections_that_fail_are_no_events() {
        let there = group(&[("n1", "online")]);
        let gone = Seen { quorum: false, leader: None, ..there.clone() };
        let kinds = |before: &Seen, now: &Seen| told(before, now).into_iter().map(|(kind, _)| kind).collect::<Vec<_>>();
        assert_eq!(kinds(&there, &gone), ["majority-lost", "no-leader"]);
        assert_eq!(told(&gone, &Seen { term: 3, ..gone.clone() }), []);
        assert_eq!(kinds(&gone, &there), ["majority-found", "leader"]);
        assert_eq!(texts(&there, &Seen { term: 3, ..there.clone() }), ["n1 leads, term 3"]);
    }

    #[test]
    fn of_a_member_whose_connection_is_lost_nothing_is_said_before_it_is_unreachable() {
        let before = group(&[("n1", "online"), ("n2", "detached")]);
        let mut lost = group(&[("n1", "online"), ("n2", "online")]);
        lost.members.get_mut("n2").unwrap().is_silent = true;
        let lost = lost.behind(&before);
        assert_eq!(told(&before, &lost), []);
        let now = group(&[("n1", "online"), ("n2", "unreachable")]).behind(&lost);
        assert_eq!(texts(&lost, &now), ["n2: unreachable (was detached)"]);
    }

    #[test]
    fn a_copy_begins_and_ends_with_what_and_from_whom() {
        let before = group(&[("n1", "online"), ("n2", "copying")]);
        let mut now = before.clone();
        let copy = Copy { what: "database shop".to_owned(), from: "n1".to_owned() };
        now.members.insert("n2".to_owned(), Member { copy: Some(copy), ..member("copying") });
        assert_eq!(texts(&before, &now), ["n2 gets a copy of database shop from n1"]);
        assert_eq!(texts(&now, &before), ["n2: the copy of database shop from n1 has ended"]);
    }
}
