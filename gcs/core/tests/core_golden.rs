//! Golden scripts: what the core does, to be read. A script is named as the sentence it shows. After a change that is meant,
//! `UPDATE_GOLDENFILES=1 cargo test -p gcs_core --test core_golden` writes the outputs anew, to be looked at in the diff.

mod support;

use std::error::Error;
use std::fmt::Write;
use std::path::Path;

use bytes::Bytes;
use gcs_core::certify::{Exact, WindowBounds};
use gcs_core::command::{Command, Generation, Report};
use gcs_core::state::{Event, State};
use gcs_core::{Format, Local, LocalReply, LogIndex, Membership, Ordered, checkpoint};
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{
    CommitToken, DatabaseId, Incarnation, Key, KeyGroup, Lock, LockAnswer, LockKey, LockMode, LockOp, LockSession, NodeId,
    Phase, Position, Tag, Token, TokenOutcome, TwoPhase,
};
use goldenscript::{ArgumentConsumer, Runner};
use support::{Cluster, node, tag};

type Output = Result<String, Box<dyn Error>>;

fn run_all<R: Runner>(directory: &str, runner: impl Fn() -> R) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(directory);
    let mut scripts: Vec<_> =
        std::fs::read_dir(&path).expect("a directory of scripts").map(|entry| entry.expect("a script").path()).collect();
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {directory}");
    for script in scripts {
        println!("{}", script.display());
        goldenscript::run(&mut runner(), &script).expect("a script that can be run");
    }
}

#[test]
fn certify_scripts() {
    run_all("certify", Ledger::new);
}

#[test]
fn deliver_scripts() {
    run_all("deliver", Ledger::new);
}

#[test]
fn order_scripts() {
    run_all("order", Group::new);
}

#[test]
fn flow_scripts() {
    run_all("flow", Group::new);
}

fn name(id: NodeId) -> char {
    char::from(b'a' + id.0 as u8 - 1)
}

fn numbers(list: Option<String>) -> Result<Vec<Key>, Box<dyn Error>> {
    let Some(list) = list else { return Ok(Vec::new()) };
    list.split(',').filter(|n| !n.is_empty()).map(|n| Ok(Key(n.parse()?))).collect()
}

fn optional<T: std::str::FromStr>(args: &mut ArgumentConsumer<'_>, key: &str, otherwise: T) -> Result<T, Box<dyn Error>>
where
    T::Err: Error + 'static,
{
    Ok(args.lookup(key).map(|argument| argument.value.parse()).transpose()?.unwrap_or(otherwise))
}

/// `base=2 x=1,2 s=3 c=4 token=7 since=1`, and a second group after `base2`.
fn envelope(args: &mut ArgumentConsumer<'_>) -> Result<Envelope, Box<dyn Error>> {
    let mut groups = Vec::new();
    for suffix in ["", "2"] {
        let mut text = |key: &str| args.lookup(&format!("{key}{suffix}")).map(|argument| argument.value.clone());
        let (base, exclusive, shared) = (text("base"), numbers(text("x"))?, numbers(text("s"))?);
        let checked = numbers(text("c"))?;
        if let Some(base) = base {
            groups.push(KeyGroup { base: Position(base.parse()?), exclusive, shared, checked });
        }
    }
    let oldest_base = Position(optional(args, "oldest", 0)?);
    let chunks = optional(args, "chunks", 0)?;
    let since = Position(optional(args, "since", 0)?);
    let named = args.lookup("token").map(|argument| argument.value.parse::<u8>()).transpose()?;
    let token = named.map(|number| CommitToken { token: token(number), since });
    let number = args.lookup("holder").map(|argument| argument.value.parse::<u64>()).transpose()?;
    let holder = number.map(|number| LockSession { life: 1, number });
    let locks_are_advice = optional(args, "advice", false)?;
    let two_phase = two_phase(args)?;
    Ok(Envelope { oldest_base, chunks, groups, token, holder, locks_are_advice, two_phase, ..Envelope::default() })
}

/// `prepare=5`, `commit=5`, `rollback=5`
fn two_phase(args: &mut ArgumentConsumer<'_>) -> Result<Option<TwoPhase>, Box<dyn Error>> {
    for (word, phase) in [("prepare", Phase::Prepare), ("commit", Phase::Commit), ("rollback", Phase::Rollback)] {
        if let Some(argument) = args.lookup(word) {
            return Ok(Some(TwoPhase { phase, name: Key(argument.value.parse()?) }));
        }
    }
    Ok(None)
}

fn token(number: u8) -> Token {
    Token([number; 16])
}

fn outcome(outcome: TokenOutcome) -> String {
    match outcome {
        TokenOutcome::Unknown => "unknown".into(),
        TokenOutcome::Committed { position } => format!("committed at {position}"),
        TokenOutcome::Aborted { position } => format!("aborted at {position}"),
        TokenOutcome::Fenced => "never committed".into(),
    }
}

/// `token=7 fence_after=3`
fn question(args: &mut ArgumentConsumer<'_>) -> Result<(Token, Option<Position>), Box<dyn Error>> {
    let fence_after = args.lookup("fence_after").map(|argument| argument.value.parse()).transpose()?;
    Ok((token(optional(args, "token", 0)?), fence_after.map(Position)))
}

fn verdict(verdict: Verdict) -> String {
    match verdict {
        Verdict::Certified { depends_on } => format!("certified, after {depends_on}"),
        Verdict::Aborted(AbortCause::Conflict { winner, winner_node, key_index }) => {
            format!("aborted: key {key_index} is held by {winner} of {}", name(winner_node))
        }
        Verdict::Aborted(AbortCause::BelowHorizon { horizon }) => format!("aborted: below the horizon {horizon}"),
        Verdict::Aborted(AbortCause::Malformed) => "aborted: malformed".into(),
        Verdict::Aborted(AbortCause::TokenUsed { first }) => format!("aborted: its token is committed at {first}"),
        Verdict::Aborted(AbortCause::TokenFenced) => "aborted: its token is fenced".into(),
        Verdict::Aborted(AbortCause::Prepared { winner, winner_node, key_index }) => {
            format!("aborted: key {key_index} is pinned by {winner} of {}", name(winner_node))
        }
        Verdict::Aborted(AbortCause::NotPrepared) => "aborted: not prepared".into(),
        Verdict::Aborted(AbortCause::AlreadyPrepared) => "aborted: prepared already".into(),
        Verdict::Aborted(AbortCause::TooManyPrepared) => "aborted: no room to prepare".into(),
        Verdict::Aborted(AbortCause::LocksLost) => "aborted: its session's locks are lost".into(),
        Verdict::Aborted(AbortCause::TokenTooOld { floor }) => format!("aborted: its token is not younger than {floor}"),
    }
}

fn ordered(ordered: &Ordered) -> String {
    let (at, tag) = (&ordered.outcome, ordered.tag);
    let chunks = if at.chunks.is_empty() { String::new() } else { format!(", {} chunks", at.chunks.len()) };
    format!("{} {}/{}: {}{chunks}", at.position, name(tag.node), tag.sequence, verdict(at.verdict))
}

/// The ordered state alone: one command is one entry.
struct Ledger {
    state: State,
}

impl Ledger {
    fn new() -> Ledger {
        let membership = Membership::new(Cluster::new(3).founders);
        Ledger { state: State::new("postgresr".into(), membership, WindowBounds::default()) }
    }

    fn order(&mut self, command: Command) -> String {
        let index = LogIndex(self.state.applied.0 + 1);
        let (_, events) = self.state.apply(Exact, index, 1, vec![command]);
        events.iter().map(event).collect()
    }

    fn show(&self) -> String {
        let mut out = String::new();
        for (id, database) in &self.state.databases {
            let (head, horizon) = (database.head, database.certifier.horizon());
            let window: Vec<String> = database.certifier.holders().map(|holder| holder.position.to_string()).collect();
            let _ = writeln!(out, "{id} {}: head {head}, horizon {horizon}, window [{}]", database.name, window.join(" "));
            for (node, attachment) in &database.attachments.by_node {
                let report = attachment.report;
                let life = attachment.incarnation.map_or("detached".into(), |life| format!("life {life}"));
                let (committed, flushed, oldest) = (report.committed, report.flushed, report.oldest_base);
                let _ = writeln!(
                    out,
                    "  {} {life}: committed {committed}, flushed {flushed}, oldest base {oldest}",
                    name(*node)
                );
            }
        }
        let _ = writeln!(out, "entries: {}, of which nobody needs {}", self.state.applied.0, self.state.releasable().0);
        out
    }
}

fn event(event: &Event) -> String {
    match event {
        Event::Ordered(is) => ordered(is) + "\n",
        Event::Dropped { tag } => format!("{}/{} dropped\n", name(tag.node), tag.sequence),
        Event::Chunk { tag, index } => format!("{}/{} chunk {index}\n", name(tag.node), tag.sequence),
        Event::Abandoned { tag } => format!("{}/{} abandoned\n", name(tag.node), tag.sequence),
        Event::Token { tag, outcome: is } => format!("{}/{}: token {}\n", name(tag.node), tag.sequence, outcome(*is)),
        Event::Attached { node, database, name: db, serve_from, .. } => {
            format!("{} attached to {database} {db}, serves from {serve_from}\n", name(*node))
        }
        Event::AttachStale { node, .. } => format!("{}: stale attach\n", name(*node)),
        Event::AttachImpossible { node, .. } => format!("{}: too many databases\n", name(*node)),
        Event::Detached { node, database } => format!("{} detached from {database}\n", name(*node)),
        Event::DetachStale { node, .. } => format!("{}: stale detach\n", name(*node)),
        Event::Life { node, life, .. } => format!("{} begins life {life}\n", name(*node)),
        Event::LifeStale { node } => format!("{}: stale life\n", name(*node)),
        Event::LockOrdered { .. } => String::new(),
        Event::Contended { node, key, .. } => format!("row {} is fought over, says {}\n", key.0, name(*node)),
        Event::Lock { node, session, number, answer } => {
            format!("{} session {} request {number}: {}\n", name(*node), session.number, lock_answer(*answer))
        }
    }
}

fn lock_answer(answer: LockAnswer) -> String {
    match answer {
        LockAnswer::Granted { position } => format!("granted after {position}"),
        LockAnswer::NotAvailable => "not available".into(),
        LockAnswer::Deadlock => "deadlock".into(),
        LockAnswer::Full => "no room".into(),
        LockAnswer::Given => "given back".into(),
        LockAnswer::Found { at } => format!("got number {at} of those"),
    }
}

/// `take=5 mode=shared waits=false`, `give=5`, `withdraw=3`, `blocks=0,1`, `close=yes`, `first=5,6 seen=3`; `space=row` for locks of rows, `space=table` of tables
fn lock_op(args: &mut ArgumentConsumer<'_>) -> Result<LockOp, Box<dyn Error>> {
    let mode = if optional(args, "mode", String::new())? == "shared" { LockMode::Shared } else { LockMode::Exclusive };
    let waits = optional(args, "waits", true)?;
    let space = match optional(args, "space", String::new())?.as_str() {
        "row" => LockKey::ROW,
        "table" => LockKey::TABLE,
        _ => LockKey::ADVISORY,
    };
    let lock = |value| Lock { key: LockKey { space, value }, mode };
    let seen = Position(optional(args, "seen", 0)?);
    if let Some(list) = args.lookup("first") {
        let keys: Vec<u64> = list.value.split(',').map(str::parse).collect::<Result<_, _>>()?;
        return Ok(LockOp::First { locks: keys.into_iter().map(lock).collect(), seen });
    }
    let mut text = |key: &str| args.lookup(key).map(|argument| argument.value.clone());
    Ok(match (text("take"), text("give"), text("blocks"), text("withdraw")) {
        (Some(key), ..) => LockOp::Take { lock: lock(key.parse()?), waits, seen },
        (_, Some(key), ..) => LockOp::Give { locks: vec![lock(key.parse()?)] },
        (_, _, Some(list), _) => LockOp::Blocks { sessions: list.split(',').map(str::parse).collect::<Result<_, _>>()? },
        (.., Some(take)) => LockOp::Withdraw { take: take.parse()? },
        _ => text("close").map(|_| LockOp::Close).ok_or("which request?")?,
    })
}

impl Runner for Ledger {
    fn run(&mut self, command: &goldenscript::Command) -> Output {
        let mut args = command.consume_args();
        if command.name == "state" {
            args.reject_rest()?;
            return Ok(self.show());
        }
        if command.name == "format" {
            self.state.membership.format = Format(args.next_pos().ok_or("which format?")?.parse()?);
            return Ok(String::new());
        }
        if command.name == "checkpoint" {
            let encoded = checkpoint::encode(&self.state);
            self.state = checkpoint::decode(&encoded.state, WindowBounds::default())?;
            let same = checkpoint::encode(&self.state) == encoded;
            return Ok(format!("state as of entry {}, {}", encoded.index.0, if same { "unchanged" } else { "CHANGED" }));
        }
        let id = node(&args.next_pos().ok_or("which node?")?.value);
        let life = optional(&mut args, "life", 1)?;
        let tag = tag(id, life, optional(&mut args, "slot", 0)?, optional(&mut args, "seq", 0)?);
        let database = DatabaseId(optional(&mut args, "id", 1)?);
        let generation = Generation(optional(&mut args, "follows", 0)?);
        let incarnation = Incarnation(life);
        let ordered = match command.name.as_str() {
            "attach" => {
                let name = optional(&mut args, "database", String::from("shop"))?;
                self.order(Command::Attach { node: id, incarnation, generation, database: name, founds: false })
            }
            "detach" => self.order(Command::Detach { node: id, generation, database }),
            "submit" => {
                let writeset = Bytes::from(envelope(&mut args)?.encode(b"body"));
                self.order(Command::Submit { tag, writeset })
            }
            "garbage" => self.order(Command::Submit { tag, writeset: Bytes::from_static(b"garbage") }),
            "chunk" => {
                let index = optional(&mut args, "index", 0)?;
                self.order(Command::Chunk { tag, index, bytes: Bytes::from_static(b"chunk") })
            }
            "abandon" => self.order(Command::Abandon { tag }),
            "life" => self.order(Command::Life { node: id, life: optional(&mut args, "ends", 0)?, by: 0 }),
            "lock" => {
                let number = optional(&mut args, "session", 0)?;
                let session = LockSession { life: optional(&mut args, "of", 1)?, number };
                let (number, op) = (optional(&mut args, "n", 1)?, lock_op(&mut args)?);
                self.order(Command::Lock { node: id, session, database, number, op })
            }
            "ask" => {
                let (token, fence_after) = question(&mut args)?;
                self.order(Command::Ask { tag, token, fence_after })
            }
            "progress" => {
                let report = Report {
                    out_of_service: false,
                    committed: Position(optional(&mut args, "committed", 0)?),
                    flushed: Position(optional(&mut args, "flushed", 0)?),
                    oldest_base: Position(optional(&mut args, "oldest", 0)?),
                };
                self.order(Command::Progress { node: id, incarnation, database, report })
            }
            other => return Err(format!("no command {other}").into()),
        };
        args.reject_rest()?;
        Ok(ordered)
    }
}

/// Whole cores on a perfect network.
struct Group {
    cluster: Cluster,
}

impl Group {
    fn new() -> Group {
        Group { cluster: Cluster::new(3) }
    }

    /// What PostgreSQL hears on each node since it was last asked.
    fn heard(&mut self) -> String {
        let mut out = String::new();
        let ids: Vec<NodeId> = self.cluster.nodes.keys().copied().collect();
        for id in ids {
            for reply in self.cluster.replies(id) {
                let _ = writeln!(out, "{} hears: {}", name(id), reply_text(&reply));
            }
            for position in self.cluster.ordered(id) {
                let _ = writeln!(out, "{} orders {}", name(id), ordered(&position));
            }
        }
        out
    }
}

fn reply_text(reply: &LocalReply) -> String {
    match reply {
        LocalReply::Attached { database, name, serve_from, .. } => {
            format!("attached to {database} {name}, serve from {serve_from}")
        }
        LocalReply::Detached { database } => format!("detached from {database}"),
        LocalReply::ChunkOrdered { tag, index } => format!("chunk {index} of {} ordered", tag.sequence),
        LocalReply::Token { tag, outcome: is } => format!("{}: token {}", tag.sequence, outcome(*is)),
        LocalReply::Refused { tag, reason } => format!("{} refused: {reason:?}", tag.sequence),
        LocalReply::Wish { number, outcome } => format!("wish {number}: {outcome:?}"),
        LocalReply::AttachRefused { database, reason, .. } => format!("attach to {database} refused: {reason:?}"),
        LocalReply::ReadFrom { number, position } => format!("{number}: read from {position}"),
        LocalReply::Lock { connection, number, answer, .. } => {
            format!("connection {connection} request {number}: {}", lock_answer(*answer))
        }
        LocalReply::LockRefused { connection, number, reason } => {
            format!("connection {connection} request {number} refused: {reason:?}")
        }
        LocalReply::Contended { key, .. } => format!("row {} is fought over", key.0),
        LocalReply::LocksLost { connection } => format!("connection {connection}: its locks are lost"),
        LocalReply::Followed { number, chunks } => {
            let at: Vec<String> = chunks.iter().map(|at| format!("{}.{}", at.index.0, at.ordinal)).collect();
            format!("followed {number}: its chunks are at {}", at.join(" "))
        }
        LocalReply::FollowedOver { number, ordered } => {
            format!("followed {number}: over, {}", if *ordered { "it has a position" } else { "without a position" })
        }
        LocalReply::ReadRefused { number, reason } => format!("{number}: read refused: {reason:?}"),
    }
}

/// Whether messages pass between two nodes from now on.
fn touch(cluster: &mut Cluster, (first, second): (NodeId, NodeId), passes: bool) {
    for pair in [(first, second), (second, first)] {
        if passes {
            cluster.cut.remove(&pair)
        } else {
            cluster.cut.insert(pair)
        };
    }
}

impl Runner for Group {
    fn run(&mut self, command: &goldenscript::Command) -> Output {
        let mut args = command.consume_args();
        let cluster = &mut self.cluster;
        match command.name.as_str() {
            "elect" => {
                cluster.elect();
            }
            "ticks" => cluster.ticks(args.next_pos().ok_or("how many?")?.parse()?),
            "quorum" => {
                let views = cluster.nodes.iter().filter(|(_, n)| n.up);
                return Ok(views.map(|(id, n)| format!("{} {}\n", name(*id), n.core.status(None).quorum)).collect());
            }
            // Nodes that are started from now on read up to this format.
            "reads" => cluster.reads = Format(args.next_pos().ok_or("which format?")?.parse()?),
            "stop-leader" => {
                let leader = cluster.leader().ok_or("nobody leads")?;
                cluster.stop(leader);
            }
            "log" => {
                let id = node(&args.next_pos().ok_or("which node?")?.value);
                return Ok(log(cluster, id));
            }
            other => {
                let first = node(&args.next_pos().ok_or("which node?")?.value);
                let life = optional(&mut args, "life", 1)?;
                let tag = tag(first, life, optional(&mut args, "slot", 0)?, optional(&mut args, "seq", 0)?);
                match other {
                    "attach" => cluster.local(
                        first,
                        Local::Attach { database: "shop".into(), incarnation: Incarnation(life), founds: false },
                    ),
                    "detach" => cluster.local(first, Local::Detach { database: DatabaseId(1) }),
                    "submit" => {
                        let writeset = Bytes::from(envelope(&mut args)?.encode(b"body"));
                        cluster.local(first, Local::Submit { tag, writeset });
                    }
                    "chunk" => {
                        let index = optional(&mut args, "index", 0)?;
                        let bytes = Bytes::from(vec![b'c'; optional(&mut args, "kb", 1)? << 10]);
                        cluster.local(first, Local::Chunk { tag, index, bytes });
                    }
                    "abandon" => cluster.local(first, Local::Abandon { tag }),
                    "follow" | "unfollow" => cluster.local(first, follow(&mut args, tag, other == "follow")?),
                    "lock" => {
                        let connection = optional(&mut args, "connection", 1)?;
                        let (number, op) = (optional(&mut args, "n", 1)?, lock_op(&mut args)?);
                        cluster.local(first, Local::Lock { connection, database: DatabaseId(1), number, op });
                    }
                    "ask" => {
                        let (token, fence_after) = question(&mut args)?;
                        cluster.local(first, Local::AskToken { tag, token, fence_after });
                    }
                    "stop" => {
                        cluster.stop(first);
                    }
                    "start" => {
                        let log = cluster.nodes[&first].log.clone();
                        cluster.start(first, log);
                    }
                    "cut" | "heal" => {
                        let second = node(&args.next_pos().ok_or("and which?")?.value);
                        touch(cluster, (first, second), other == "heal");
                    }
                    other => return Err(format!("no command {other}").into()),
                }
            }
        }
        args.reject_rest()?;
        Ok(String::new())
    }

    /// A block is one moment: its commands come in together, then everything settles.
    fn end_block(&mut self) -> Output {
        self.cluster.settle();
        Ok(self.heard())
    }
}

/// `n=1 of=a seq=1 chunks=2`: a submission of that node.
fn follow(args: &mut ArgumentConsumer<'_>, tag: Tag, follows: bool) -> Result<Local, Box<dyn Error>> {
    let number = optional(args, "n", 1)?;
    if !follows {
        return Ok(Local::Unfollow { number });
    }
    let of = optional(args, "of", String::from("a"))?;
    Ok(Local::Follow { number, tag: Tag { node: node(&of), ..tag }, chunks: optional(args, "chunks", 1)? })
}

/// The entries of a node's log and the commands in each.
fn log(cluster: &Cluster, id: NodeId) -> String {
    let disk = cluster.nodes[&id].log.0.borrow();
    let mut out = String::new();
    for entry in &disk.entries {
        let commands = gcs_core::command::decode_entry(&Bytes::from(entry.data.clone())).expect("an entry");
        let texts: Vec<String> = commands.iter().map(command_text).collect();
        let _ = writeln!(out, "{}: [{}]", entry.index, texts.join(", "));
    }
    out
}

fn command_text(command: &Command) -> String {
    if let Command::Change(change) = command {
        return format!("change {:?}", change.step);
    }
    let node = name(command.node());
    match command {
        Command::Attach { .. } => format!("attach {node}"),
        Command::Detach { .. } => format!("detach {node}"),
        Command::Submit { tag, .. } => format!("submit {node}/{}", tag.sequence),
        Command::Chunk { tag, index, .. } => format!("chunk {node}/{}.{index}", tag.sequence),
        Command::Abandon { tag } => format!("abandon {node}/{}", tag.sequence),
        Command::Progress { .. } => format!("progress {node}"),
        Command::Ask { tag, .. } => format!("ask {node}/{}", tag.sequence),
        Command::Change(_) => String::new(),
        Command::Life { life, .. } => format!("life {node}/{life}"),
        Command::Lock { session, number, .. } => format!("lock {node}/{}.{number}", session.number),
    }
}
