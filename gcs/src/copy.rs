//! Copies: a database of another node takes the place of one that the log does not reach.
//!
//! A database needs the group's content as of some position, and everything behind it from the log. Where the log no longer reaches back to what a
//! database has (it is new, was away for too long, was replaced), it gets both by a copy:
//!
//! ```text
//! there   a snapshot is exported, and the position that it shows            [`source`]
//! here    a new database is made, under another name; pg_dump there, on the
//!         snapshot, and pg_restore here, each in parallel                    [`programs`]
//!         in one transaction the new database takes the place and the name of the old one, and its replication origin says
//!         the position                                                       [`target`]
//!         its manager attaches behind that position
//! ```
//!
//! The position comes first and the content second, from one snapshot, so nothing is skipped and nothing twice. Nothing is cut off the log
//! meanwhile: the group counts on this node's attach, which has reported no position. Until the exchange nothing but a database that nobody
//! knows has changed, so whatever goes wrong before it (the node that is copied from, this server, the network, this daemon) is begun anew, with
//! another node if there is one. A copy that was broken off is dropped by the next. What becomes of the database whose place was taken, [`Displaced`]
//! says.
//!
//! A whole server is copied where a new node has none: [`server`].
//!
//! Nodes are reached by [`Tunnel`]s. The group goes on; what the copy costs the other node is what pg_dump costs it.

mod aside;
mod attempt;
mod compared;
mod directories;
mod displaced;
mod programs;
mod progress;
mod server;
mod source;
mod target;

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use gcs_writeset::link::{GroupStatus, MemberState, ServerPlace};
use gcs_writeset::{NodeId, Position};
use tokio::time::{sleep, timeout};

use crate::bounds::{COMPARE_MAX, COPY_AGAIN_FIRST, COPY_AGAIN_LAST};
use crate::config::Config;
use crate::history::History;
use crate::history::event::Happening;
use crate::peers::{Pace, Peers};
use attempt::Attempt;
use directories::Directories;
use displaced::Worth;

pub use displaced::Displaced;
pub use server::{MARK, Server};
pub use source::describe;

pub struct Copies {
    peers: Rc<Peers>,
    directories: Directories,
    pace: Rc<Pace>,
    /// Members that are copied from before others.
    preferred: Vec<String>,
    /// Databases of which a copy is being made, and what those are worth whose place it takes.
    running: RefCell<BTreeMap<String, Worth>>,
    served: RefCell<BTreeMap<String, Served>>,
    /// Databases that differ and have to wait, with the position that showed it.
    awaiting: RefCell<BTreeMap<String, Position>>,
    status: RefCell<GroupStatus>,
    history: Rc<History>,
}

/// The other members that serve a database, by how far they have come; and how many members have databases at all.
#[derive(Debug)]
struct Served {
    committed: Vec<Position>,
    members: usize,
}

impl Served {
    fn of(status: &GroupStatus, me: NodeId) -> Served {
        let others = status.members.iter().filter(|member| member.node != me && member.state == MemberState::Online);
        // A witness holds nothing that could be compared.
        let members = status.members.iter().filter(|member| member.kind.has_databases());
        Served { committed: others.map(|member| member.committed).collect(), members: members.count() }
    }

    fn is_majority_at(&self, position: Position) -> bool {
        2 * self.committed.iter().filter(|&&committed| committed >= position).count() > self.members
    }
}

impl Copies {
    pub fn new(config: &Config, peers: Rc<Peers>, history: Rc<History>) -> Copies {
        let (running, served, awaiting, status) = Default::default();
        let (pace, preferred) = (Rc::new(Pace::of(config.copy_rate)), config.copy_from.clone());
        let directories = Directories::of(config);
        Copies { peers, directories, pace, preferred, running, served, awaiting, status, history }
    }

    /// The group as it is now.
    pub fn status(&self, status: &GroupStatus) {
        self.status.replace(status.clone());
    }

    /// The group as the database sees it.
    pub fn status_of(&self, database: &str, status: &GroupStatus) {
        self.served.borrow_mut().insert(database.to_owned(), Served::of(status, self.peers.roster.node));
    }

    /// Has the database be replaced by a copy, if it may be. False if it may not be: what nobody has asked to be replaced only by this node's
    /// settings.
    pub fn begin(self: &Rc<Self>, database: &str, displaced: Displaced) -> bool {
        let may_be = |place: &ServerPlace| displaced != Displaced::Rebuilt || place.may_rebuild;
        let Some(place) = self.peers.places.of(database).filter(may_be) else { return false };
        if let Some(worth) = self.running.borrow().get(database) {
            worth.raise(displaced);
            return true;
        }
        let worth = Worth::of(displaced);
        self.running.borrow_mut().insert(database.to_owned(), worth.clone());
        tokio::task::spawn_local(self.clone().run(database.to_owned(), place, worth));
        true
    }

    /// Whether a position that this node cannot apply to the database, and others can, shows that it is this node that differs. It might as well be
    /// the one that the position is of; what more than half of the members that have databases serve, with that position applied, is
    /// the group's.
    pub fn is_proven_wrong(&self, database: &str, position: Position) -> bool {
        let is_proven = self.served.borrow().get(database).is_some_and(|served| served.is_majority_at(position));
        if !is_proven && self.awaiting.borrow_mut().insert(database.to_owned(), position) != Some(position) {
            tracing::warn!(
                database,
                %position,
                "this node differs from another one; it is rebuilt once a majority of the members serves the database with that position applied"
            );
        }
        is_proven
    }

    /// By what the database differs from other nodes', in words; nothing if no other can be asked.
    pub async fn difference(&self, database: &str) -> Option<String> {
        // A copy that is under way has been compared.
        let place = self.peers.places.of(database).filter(|_| !self.running.borrow().contains_key(database))?;
        let (number, _) = NodeId::of_name(database).0.overflowing_shr(32);
        let directory = self.directories.sockets.join(format!("cmp-{number:08x}"));
        for (node, name) in self.sources(&[]) {
            match timeout(COMPARE_MAX, compared::with(&self.peers, node, database, &place, &directory, &self.pace)).await {
                Ok(Ok(differences)) if differences.is_empty() => return None,
                Ok(Ok(differences)) => {
                    return Some(format!(
                        "database \"{database}\" differs from that of node \"{name}\": {}",
                        differences.join(", ")
                    ));
                }
                // Not replicated there, most likely.
                Ok(Err(error)) => tracing::debug!(database, with = name, %error, "could not compare a database"),
                Err(_) => tracing::warn!(database, with = name, "could not compare a database in time"),
            }
        }
        None
    }

    async fn run(self: Rc<Self>, database: String, place: ServerPlace, worth: Worth) {
        let mut pause = COPY_AGAIN_FIRST;
        // Who has failed goes to the end of the line.
        let mut failed: Vec<NodeId> = Vec::new();
        'made: loop {
            let sources = self.sources(&failed);
            if sources.is_empty() {
                tracing::warn!(database, pause_s = pause.as_secs(), "a copy must wait: no other node is in service");
            }
            for (node, name) in sources {
                match Attempt::new(
                    self.peers.clone(),
                    &self.directories,
                    self.pace.clone(),
                    &database,
                    &place,
                    &worth,
                    (node, &name),
                )
                .make()
                .await
                {
                    Ok(position) => {
                        tracing::info!(database, from = name, %position, "the copy has taken the database's place");
                        let text = format!(
                            "database {database} here: a copy from {name}, as of position {position}, has taken its place"
                        );
                        self.history.record(Happening::new("copy-made", text).of_database(&database));
                        break 'made;
                    }
                    Err(error) if error.is_final() => {
                        tracing::info!(database, %error, "no copy is needed any more");
                        break 'made;
                    }
                    Err(error) => {
                        tracing::warn!(database, from = name, %error, "a copy could not be made");
                        let text = format!("a copy of database {database} from {name} could not be made: {error}");
                        self.history.copy_failed(&database, text);
                    }
                }
                failed.retain(|&other| other != node);
                failed.push(node);
            }
            sleep(pause).await;
            pause = (pause * 2).min(COPY_AGAIN_LAST);
        }
        self.running.borrow_mut().remove(&database);
    }

    /// Whom to copy from, in this order.
    fn sources(&self, failed: &[NodeId]) -> Vec<(NodeId, String)> {
        sources(&self.status.borrow(), self.peers.roster.node, &self.preferred, failed)
    }
}

/// Of the nodes in service first those that have not failed; of them those that are preferred, then the furthest; a leader has enough to do.
fn sources(status: &GroupStatus, me: NodeId, preferred: &[String], failed: &[NodeId]) -> Vec<(NodeId, String)> {
    let others = status.members.iter().filter(|member| member.node != me && member.state == MemberState::Online);
    let mut sources: Vec<_> = others.collect();
    sources.sort_by_key(|member| {
        let failed_at = failed.iter().position(|&node| node == member.node);
        let preferred_at = preferred.iter().position(|name| *name == member.name).unwrap_or(preferred.len());
        (failed_at, preferred_at, status.leader == Some(member.node), std::cmp::Reverse(member.committed))
    });
    sources.into_iter().map(|member| (member.node, member.name.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use gcs_writeset::NodeKind;
    use gcs_writeset::link::{MemberRole, MemberStatus};

    fn group() -> GroupStatus {
        let member = |number: u64, committed| MemberStatus {
            node: NodeId(number),
            name: format!("n{number}"),
            address: String::new(),
            ordinal: number as u16,
            role: MemberRole::Voter,
            state: MemberState::Online,
            committed: Position(committed),
            ordered: Position(9),
            copy: None,
            kind: NodeKind::Full,
        };
        let members = vec![member(1, 9), member(2, 9), member(3, 7), member(4, 8)];
        GroupStatus { quorum: true, leader: Some(NodeId(2)), term: 1, members }
    }

    fn names(preferred: &[&str], failed: &[u64]) -> Vec<String> {
        let preferred: Vec<String> = preferred.iter().map(|name| (*name).to_owned()).collect();
        let failed: Vec<NodeId> = failed.iter().map(|&number| NodeId(number)).collect();
        sources(&group(), NodeId(1), &preferred, &failed).into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn copies_come_from_whom_the_operator_names_then_from_the_furthest_and_from_the_leader_last() {
        assert_eq!(names(&[], &[]), ["n4", "n3", "n2"]);
        assert_eq!(names(&["n2", "n9"], &[]), ["n2", "n4", "n3"]);
        assert_eq!(names(&["n2"], &[2]), ["n4", "n3", "n2"], "who has failed goes to the end of the line");
    }

    #[test]
    fn a_majority_of_all_members_says_what_the_contents_are() {
        let served = Served::of(&group(), NodeId(1));
        assert!(served.is_majority_at(Position(7)));
        assert!(!served.is_majority_at(Position(8)), "two of four are none");
    }

    #[test]
    fn a_witness_is_none_of_those_whose_majority_it_takes() {
        let mut group = group();
        (group.members[2].kind, group.members[2].state) = (NodeKind::Witness, MemberState::Detached);
        assert!(Served::of(&group, NodeId(1)).is_majority_at(Position(8)), "two of three");
        group.members.remove(3);
        assert!(!Served::of(&group, NodeId(1)).is_majority_at(Position(1)), "one of two is none");
    }
}
