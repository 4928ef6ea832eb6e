//! What `status` and the live table show: each node as it sees itself, and the group as each sees it.

use std::thread;

use gcs_writeset::link::{GroupStatus, MemberState};
use serde::Serialize;

use super::Playground;
use super::manifest::NodeNumber;

/// `status --json`.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub group: String,
    pub database: String,
    pub nodes: Vec<NodeStatus>,
}

#[derive(Clone, Debug, Serialize)]
pub struct NodeStatus {
    pub name: String,
    pub uri: String,
    /// Where its daemon tells metrics and health over HTTP.
    pub http: Option<String>,
    pub state: NodeCondition,
    /// Whether it leads the group, as it sees it.
    pub leader: bool,
    /// Its committed position; null when it cannot be asked.
    pub position: Option<u64>,
    /// How many positions it is behind the end of the order, as far as any node knows that.
    pub lag: Option<u64>,
    /// What is wrong with its links and its disk (`gcs playground fault cut`, `slow`, `fill`).
    pub faults: Vec<String>,
    #[serde(skip)]
    pub counters: Option<Counters>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeCondition {
    /// Replicates and takes clients.
    Online,
    /// Runs, and is joining or catching up; it does not take clients yet.
    Joining,
    /// Runs, but sees no majority: reads only.
    NoMajority,
    /// Runs, but can't apply what the group ordered; takes no clients.
    OutOfService,
    PostgresDown,
    GcsDown,
    Down,
    /// Its processes are stopped (`gcs playground fault pause`).
    Paused,
}

impl NodeCondition {
    pub fn text(self) -> &'static str {
        match self {
            NodeCondition::Online => "online",
            NodeCondition::Joining => "joining",
            NodeCondition::NoMajority => "no majority",
            NodeCondition::OutOfService => "out of service",
            NodeCondition::PostgresDown => "postgres down",
            NodeCondition::GcsDown => "gcs down",
            NodeCondition::Down => "down",
            NodeCondition::Paused => "paused",
        }
    }
}

/// Since the server's start.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counters {
    pub commits: u64,
    pub aborts: u64,
}

/// What one node answered.
struct Answers {
    daemon: Option<GroupStatus>,
    postgres_runs: bool,
    gcs_runs: bool,
    is_paused: bool,
    sql: Option<SqlAnswers>,
}

struct SqlAnswers {
    position: Option<u64>,
    counters: Option<Counters>,
}

pub fn collect(playground: &Playground) -> Status {
    let answers: Vec<Answers> = thread::scope(|scope| {
        let ask = |number| scope.spawn(move || ask(playground, number));
        let threads: Vec<_> = playground.numbers().into_iter().map(ask).collect();
        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Answers::none())).collect()
    });
    let end = answers.iter().filter_map(Answers::end_of_order).max();
    let nodes = playground.numbers().into_iter().zip(answers);
    let faults = playground.link_faults();
    let describe = |(number, answers): (NodeNumber, Answers)| {
        let disk = playground.is_filled(number).then(|| "disk full".to_owned());
        let faults = faults.of(playground.name(number)).into_iter().chain(disk).collect();
        NodeStatus { faults, ..describe(playground, number, &answers, end) }
    };
    let nodes = nodes.map(describe).collect();
    Status { group: playground.manifest.group.clone(), database: playground.manifest.database.clone(), nodes }
}

fn ask(playground: &Playground, number: NodeNumber) -> Answers {
    let (cluster, daemon) = (playground.cluster(number), playground.daemon(number));
    let postgres_runs = cluster.process().is_some();
    // It would not answer.
    if playground.is_paused(number) {
        return Answers { is_paused: true, ..Answers::none() };
    }
    Answers {
        is_paused: false,
        daemon: daemon.status().ok(),
        gcs_runs: daemon.process().is_some(),
        sql: if postgres_runs { ask_sql(playground, number) } else { None },
        postgres_runs,
    }
}

const POSITION: &str = "SELECT committed_position::text FROM postgres_r.members WHERE is_self";
const COUNTERS: &str = "SELECT commits::text, (aborts_conflict + aborts_horizon + aborts_malformed + aborts_victim)::text
    FROM postgres_r.pg_stat_postgres_r";

/// `None` if it takes no clients.
fn ask_sql(playground: &Playground, number: NodeNumber) -> Option<SqlAnswers> {
    let mut client = playground.connect(number, &playground.manifest.database).ok()?;
    let position = client.query_one(POSITION, &[]).ok().and_then(|row| row.get::<_, Option<String>>(0)?.parse().ok());
    let counters = client.query_one(COUNTERS, &[]).ok().and_then(|row| {
        let number = |column| row.get::<_, Option<String>>(column).and_then(|text| text.parse().ok());
        Some(Counters { commits: number(0)?, aborts: number(1)? })
    });
    Some(SqlAnswers { position, counters })
}

impl Answers {
    fn none() -> Answers {
        Answers { daemon: None, postgres_runs: false, gcs_runs: false, is_paused: false, sql: None }
    }

    fn end_of_order(&self) -> Option<u64> {
        let ordered = self.daemon.iter().flat_map(|status| &status.members).map(|member| member.ordered.0).max();
        ordered.max(self.sql.as_ref().and_then(|sql| sql.position))
    }
}

fn describe(playground: &Playground, number: NodeNumber, answers: &Answers, end: Option<u64>) -> NodeStatus {
    let name = playground.name(number);
    let me = answers.daemon.iter().flat_map(|status| &status.members).find(|member| member.name == name);
    let online = me.is_some_and(|me| me.state == MemberState::Online);
    let quorum = answers.daemon.as_ref().is_some_and(|status| status.quorum);
    let state = match (answers.postgres_runs, answers.gcs_runs) {
        _ if answers.is_paused => NodeCondition::Paused,
        (false, false) => NodeCondition::Down,
        (false, true) => NodeCondition::PostgresDown,
        (true, false) => NodeCondition::GcsDown,
        (true, true) if !quorum => NodeCondition::NoMajority,
        (true, true) if me.is_some_and(|me| me.state == MemberState::OutOfService) => NodeCondition::OutOfService,
        (true, true) if online && answers.sql.is_some() => NodeCondition::Online,
        (true, true) => NodeCondition::Joining,
    };
    let committed = me.map(|me| me.committed.0).max(answers.sql.as_ref().and_then(|sql| sql.position));
    NodeStatus {
        name: name.to_owned(),
        uri: playground.uri(number),
        http: playground.http(number).map(|address| format!("http://{address}")),
        state,
        leader: me.is_some_and(|me| answers.daemon.as_ref().is_some_and(|status| status.leader == Some(me.node))),
        position: committed,
        lag: committed.and_then(|committed| Some(end?.saturating_sub(committed))),
        faults: Vec::new(),
        counters: answers.sql.as_ref().and_then(|sql| sql.counters),
    }
}
