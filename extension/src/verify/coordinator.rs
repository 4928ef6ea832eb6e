//! The coordinator: carries out one verification, from the node that it was asked of, and the repair that may come with it.
//!
//! It is a process of its own because what it orders are transactions of their own, whatever transaction the session that asks is in. Whichever way
//! it ends, nothing of the verification stays but its result.

use std::time::{Duration, Instant};

use gcs_writeset::Position;
use gcs_writeset::key::mix;
use pgrx::PgSqlErrorCode;
use postgres_r_protocol::platform::Exclusion;
use postgres_r_protocol::replica::Presence;
use postgres_r_protocol::verification::comparison::{Answers, Comparison};
use postgres_r_protocol::verification::{Depth, Finding, Look, Verdict};

use super::verifier::{configure, forgive, passes};
use super::{look, store};
use crate::error::{self, Error};
use crate::node::verification::{Repair, Wanted};
use crate::node::{self, DatabaseArea};
use crate::pg::query::{first_row, literal};
use crate::pg::{clock, interrupt, latch, process, worker, xact};
use crate::summons;

/// How long a node may take to say that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(10);

/// How long another verification is waited for. Of one that has ended elsewhere this node may not have heard yet.
const OTHER_ENDS_WITHIN: Duration = Duration::from_secs(3);

/// Nothing wakes the coordinator when a member is lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Looks of one verification at most.
const LOOKS_MAX: usize = 16;

/// The pause between tries of the same transaction.
const PAUSE: Duration = Duration::from_millis(5);

/// The most time that there can be, so that sums of times have a meaning.
const TIMEOUT_MAX: Duration = Duration::from_secs(30 * 86_400);

pub fn main(number: u64) {
    let Some(area) = node::get().and_then(|node| node.databases.get(number as usize)) else { return };
    let Some(place) = process::me() else { return };
    if !area.is_in_use() || !area.verification.coordinator.claim(place) {
        return;
    }
    process::on_exit(|| {
        leave(area);
        area.verification.answer(Err(ended()));
    });
    let Some(wanted) = area.verification.take_request() else { return };
    worker::connect(area.oid());
    configure("postgres_r coordinator", "read committed");
    summons::listen();
    let answer = carry_out(area, &wanted);
    // Whoever hears the answer may ask again at once.
    leave(area);
    area.verification.answer(answer);
}

fn leave(area: &DatabaseArea) {
    let coordinator = &area.verification.coordinator;
    if coordinator.get() == process::me() {
        coordinator.set(None);
    }
}

fn ended() -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_ADMIN_SHUTDOWN, "the verification was ended").hint("Try again.")
}

fn carry_out(area: &'static DatabaseArea, wanted: &Wanted) -> Result<i64, Error> {
    let deadline = Instant::now() + wanted.timeout.min(TIMEOUT_MAX);
    let me = area.replica.node_name(area.replica.node());
    let tables = match wanted.table {
        Some(table) => Some(xact::transaction(|| look::tables_below(table)).map_err(Error::from)?),
        None => None,
    };
    if tables.as_ref().is_some_and(Vec::is_empty) {
        let message = "the table is not one whose rows are replicated";
        return Err(Error::new(PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE, message));
    }
    let mut run = Coordinator::begin(area, me, deadline)?;
    match run.verify(tables.as_deref()).and_then(|findings| run.repair(wanted.repair.as_ref(), findings)) {
        Ok(findings) => run.end(&findings).map(|()| run.id),
        Err(error) => {
            // Who takes over finds what is left, and clears it.
            let _ = run.order(store::clear);
            Err(error)
        }
    }
}

struct Member {
    name: String,
    presence: Presence,
}

fn members(area: &DatabaseArea) -> Vec<Member> {
    let Some(node) = node::get() else { return Vec::new() };
    node.table.shared(|| {
        let count = area.replica.member_count.load(std::sync::atomic::Ordering::SeqCst) as usize;
        // A witness has nothing that could be compared.
        let members = area.replica.members.iter().take(count).filter(|member| member.kind().has_databases());
        members.map(|member| Member { name: member.name.get(), presence: member.presence.load() }).collect()
    })
}

struct Coordinator {
    area: &'static DatabaseArea,
    id: i64,
    last_mark: i64,
    me: String,
    deadline: Instant,
    /// By index, the nodes that were members when this began.
    nodes: Vec<String>,
    comparison: Comparison,
    /// Of the last look.
    position: Position,
}

impl Coordinator {
    fn begin(area: &'static DatabaseArea, me: String, deadline: Instant) -> Result<Coordinator, Error> {
        let members = members(area);
        let nodes: Vec<String> = members.iter().map(|member| member.name.clone()).collect();
        let mine = nodes.iter().position(|node| *node == me).unwrap_or(0);
        let mut comparison = Comparison::new(nodes.len(), mine);
        for (index, member) in members.iter().enumerate() {
            if !member.presence.is_online() {
                comparison.lose(index, member.presence.name());
            }
        }
        let id = new_id(area);
        let position = Position::ZERO;
        let run = Coordinator { area, id, last_mark: id, me, deadline, nodes, comparison, position };
        let is_online = |node: &str| members.iter().any(|member| member.name == node && member.presence.is_online());
        let until = Instant::now() + OTHER_ENDS_WITHIN.min(run.left());
        loop {
            let changes = area.verification.changes();
            let begun = run.order(|| {
                if let Some(other) = store::run()
                    && other.left.is_some()
                    && other.node != run.me
                    && is_online(&other.node)
                {
                    return Err(under_way(&other.node));
                }
                store::clear();
                store::clear_old_results();
                store::begin(run.id, &run.me, run.left());
                Ok(())
            })?;
            let left = until.saturating_duration_since(Instant::now());
            match begun {
                Ok(()) => return Ok(run),
                Err(error) if left.is_zero() || area.verification.is_abandoned() => return Err(error),
                Err(_) if area.verification.changes() == changes => latch::wait(Some(left.min(LOOK_EVERY))),
                Err(_) => {}
            }
            interrupt::check();
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Runs a transaction of ours until it is committed.
    fn order<R>(&self, work: impl Fn() -> R) -> Result<R, Error> {
        loop {
            let failed = match xact::transaction(&work) {
                Ok(result) => return Ok(result),
                Err(failed) => failed,
            };
            forgive();
            if !passes(failed.code) || self.left().is_zero() {
                return Err(failed.into());
            }
            interrupt::check();
            latch::wait(Some(PAUSE));
        }
    }

    fn verify(&mut self, tables: Option<&[String]>) -> Result<Vec<Finding>, Error> {
        self.wait_for_answers(self.id, READY_WITHIN.min(self.left()), "does not answer")?;
        let whole = |table: &String| Look { object: table.clone(), buckets: Vec::new(), depth: Depth::Whole };
        let mut looks: Vec<Look> = tables.unwrap_or_default().iter().map(whole).collect();
        for _ in 0..LOOKS_MAX {
            let answers = self.look(&looks)?;
            if looks.is_empty() {
                self.comparison.take_all(&answers);
            } else {
                looks.iter().for_each(|look| self.comparison.take(look, &answers));
            }
            looks = self.comparison.next();
            if looks.is_empty() || self.left().is_zero() {
                break;
            }
        }
        Ok(self.comparison.findings())
    }

    /// Has all nodes look at one position.
    fn look(&mut self, looks: &[Look]) -> Result<Answers, Error> {
        let mark = self.last_mark + 1;
        self.last_mark = mark;
        self.order(|| store::order_look(mark, self.id, &self.me, self.left(), looks))?;
        self.wait_for_answers(mark, self.left(), "did not answer in time")?;
        let answers = self.nodes.iter().map(|node| {
            let is_there = || store::answered(mark).contains_key(node);
            let read = xact::transaction(|| is_there().then(|| store::answers(mark, node)));
            read.map_err(Error::from)
        });
        answers.collect()
    }

    /// Until every node that is not lost has said all at this mark. Who has not by then is lost.
    fn wait_for_answers(&mut self, mark: i64, patience: Duration, why: &str) -> Result<(), Error> {
        let until = Instant::now() + patience;
        loop {
            let changes = self.area.verification.changes();
            interrupt::check();
            if self.area.verification.is_abandoned() || !self.area.is_in_use() {
                return Err(Error::new(PgSqlErrorCode::ERRCODE_QUERY_CANCELED, "the verification was canceled"));
            }
            let answered = xact::transaction(|| store::answered(mark)).map_err(Error::from)?;
            self.position = answered.get(&self.me).copied().unwrap_or(self.position);
            let missing: Vec<usize> = (0..self.nodes.len())
                .filter(|&node| !self.comparison.is_lost(node) && !answered.contains_key(&self.nodes[node]))
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            let members = members(self.area);
            for node in missing {
                let member = members.iter().find(|member| member.name == self.nodes[node]);
                let presence = member.map_or(Presence::Unreachable, |member| member.presence);
                if !presence.is_online() {
                    self.comparison.lose(node, presence.name());
                } else if left.is_zero() {
                    self.comparison.lose(node, why);
                }
            }
            if self.area.verification.changes() == changes && !left.is_zero() {
                latch::wait(Some(left.min(LOOK_EVERY)));
            }
        }
    }

    fn end(&self, findings: &[Finding]) -> Result<(), Error> {
        self.order(|| {
            store::clear();
            store::put_results(self.id, &self.nodes, findings, self.position);
        })
    }

    /// Repairs what differs, and looks whether it is equal then.
    fn repair(&mut self, repair: Option<&Repair>, findings: Vec<Finding>) -> Result<Vec<Finding>, Error> {
        let Some(repair) = repair else { return Ok(findings) };
        let Some(target) = self.nodes.iter().position(|node| *node == repair.node) else {
            return Err(error::unknown_node(&repair.node));
        };
        let mine = self.nodes.iter().position(|node| *node == self.me).unwrap_or(0);
        let mut repaired = Vec::new();
        for finding in findings.iter().filter(|finding| finding.node == target) {
            let of_mine = findings.iter().find(|mine_too| mine_too.node == mine && mine_too.object == finding.object);
            if needs_repair(repair, finding, of_mine.map(|finding| (finding.verdict, finding.detail.as_deref())), &self.me)?
            {
                self.put_repair(repair, finding)?;
                repaired.push(finding.object.clone());
            }
        }
        if repaired.is_empty() {
            return Ok(findings);
        }
        let nodes = self.nodes.len();
        let mut again = Comparison::new(nodes, mine);
        (0..nodes).filter(|&node| self.comparison.is_lost(node)).for_each(|node| again.lose(node, "does not answer"));
        self.comparison = again;
        let tables: Vec<String> =
            findings.iter().filter(|found| found.node == target).map(|found| found.object.clone()).collect();
        self.verify(Some(&tables))
    }

    /// The rows of one table, or those that differ, for one node.
    fn put_repair(&self, repair: &Repair, finding: &Finding) -> Result<(), Error> {
        let rows = finding.differing.as_ref().filter(|rows| !rows.is_empty() && !repair.by_force);
        let identities = rows.map_or_else(
            || "NULL".to_owned(),
            |rows| literal(&rows.iter().map(|row| format!("{:x}", row.identity)).collect::<Vec<_>>().join(" ")),
        );
        let sql =
            format!("SELECT postgres_r.put_repair({}, {}, {identities})", literal(&repair.node), literal(&finding.object));
        self.order(|| {
            first_row(&sql);
        })
    }
}

/// Whether it is to be repaired, or why it must not be.
fn needs_repair(
    repair: &Repair,
    of_target: &Finding,
    of_mine: Option<(Verdict, Option<&str>)>,
    me: &str,
) -> Result<bool, Error> {
    let object = &of_target.object;
    let refuse = |detail: String, hint: &str| {
        let message = format!("cannot repair {object} on node \"{}\" from node \"{me}\"", repair.node);
        Err(Error::new(PgSqlErrorCode::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message).detail(detail).hint(hint))
    };
    let is_tied = |detail: Option<&str>| detail == Some("no majority agrees");
    match of_mine {
        Some((Verdict::Equal, _)) => {}
        // Nobody else could be asked, or no two agree: it is for whoever asks to say which node is right.
        Some((Verdict::Different, detail)) if is_tied(detail) => {}
        Some((Verdict::NotKnown, _)) if of_target.verdict == Verdict::Unreadable => {}
        Some((Verdict::Different, _)) => {
            let detail = format!("What node \"{me}\" has is not what the majority of the group has.");
            return refuse(detail, "Ask on a node of the majority; see postgres_r.verify().");
        }
        Some((Verdict::Unreadable, _)) | None => {
            return refuse(format!("Node \"{me}\" cannot read it."), "Ask on a node that can; see postgres_r.verify().");
        }
        Some((Verdict::NotKnown, why)) => {
            let detail = format!("It is not known whether node \"{me}\" is right: {}.", why.unwrap_or("no answer"));
            return refuse(detail, "Try again when the group is complete.");
        }
    }
    match of_target.verdict {
        Verdict::Equal => Ok(repair.by_force),
        Verdict::Different if of_target.rows.is_none() => refuse(
            format!("There is no such table on node \"{}\".", repair.node),
            "Its catalogs differ: the database must be rebuilt there.",
        ),
        Verdict::Different | Verdict::Unreadable => Ok(true),
        Verdict::NotKnown => {
            let why = of_target.detail.as_deref().unwrap_or("no answer");
            refuse(format!("It is not known what node \"{}\" has: {why}.", repair.node), "Try again when it is back.")
        }
    }
}

/// A number that no other verification has: drawn for this life of the server, and told apart by time and process.
fn new_id(area: &DatabaseArea) -> i64 {
    let drawn =
        mix(area.at().server.incarnation.0) ^ mix(clock::now() as u64) ^ mix(process::my_pid() as u64).rotate_left(32);
    (drawn >> 2) as i64 + 1
}

fn under_way(node: &str) -> Error {
    Error::new(PgSqlErrorCode::ERRCODE_OBJECT_IN_USE, "a verification of this database is under way")
        .detail(format!("It was asked for on node \"{node}\"."))
        .hint("Try again when it has ended. If it was left behind by a server that failed, ask on that node.")
}
