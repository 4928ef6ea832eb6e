//! `gcs log`: what the ordered log holds, read from the files of this node, whether its daemon runs or not. Nothing is changed, and nobody is asked.
//!
//! A position is shown with what it came to and, as far as the body of its writeset names them, with what it does to which tables. No values are shown, and of statements only the
//! words that they begin with. What has not been decided on this node has no position yet, and is not shown.
//!
//! Names of databases and members are those of the state that the daemon would come to: the last checkpoint, and what is committed behind it.

mod contents;

use std::collections::{BTreeMap, VecDeque};
use std::process::ExitCode;

use bytes::Bytes;
use clap::Args;
use gcs_core::command::{Command, chunk_at, decode_entry};
use gcs_core::{Core, CoreError, LogIndex, PositionOutcome, remains};
use gcs_writeset::link::{AbortCause, Verdict};
use gcs_writeset::wire::WireError;
use gcs_writeset::writeset::Envelope;
use gcs_writeset::{DatabaseId, NodeId, Position};
use serde::Serialize;
use thiserror::Error;

use crate::config::{Config, ConfigError};
use crate::daemon::core_config;
use crate::log::{Found, Identity, LogError, LogReader};
use crate::members::Daemon;
use contents::Contents;

/// Read at first; twice as many whenever they do not suffice.
const SEGMENTS_FIRST: usize = 2;

/// Bytes of one writeset that are looked at for its items. Of what is behind them only the size is told.
const LOOKED_AT_BYTES_MAX: usize = 16 << 20;

#[derive(Debug, Args)]
pub struct LogArgs {
    /// From this position on; by default the last ones.
    #[arg(long, value_name = "POSITION")]
    from: Option<u64>,
    /// How many positions at the most.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    count: u32,
    /// Only those of this database.
    #[arg(long)]
    database: Option<String>,
    /// A line of JSON for each.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, Error)]
enum ShowError {
    #[error("{0}")]
    Config(#[from] ConfigError),
    #[error("{0}")]
    Log(#[from] LogError),
    #[error("{0}")]
    Core(#[from] CoreError),
    #[error("entry {index} cannot be decoded: {source}")]
    Entry { index: u64, source: WireError },
    #[error("data directory \"{}\" holds nothing yet", .0.display())]
    Nothing(std::path::PathBuf),
    #[error("no database \"{name}\" is in the log; there are: {known}")]
    NoDatabase { name: String, known: String },
}

/// Exit status 0; 1 if the log cannot be read; 2 for a bad configuration.
pub fn run(args: &LogArgs) -> ExitCode {
    match shown(args) {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("gcs: error: {error}");
            if matches!(error, ShowError::Config(_)) { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

fn shown(args: &LogArgs) -> Result<String, ShowError> {
    let config = Config::load(args.daemon.config())?;
    if Identity::is_missing(&config.data_directory)? {
        return Err(ShowError::Nothing(config.data_directory));
    }
    let mut segments = SEGMENTS_FIRST;
    loop {
        let found = Found::look(&config.data_directory, segments)?;
        let names = Names::of(&config, &found)?;
        let is_last_try = found.is_all;
        if let Some(names) = names {
            let wanted = Wanted::of(args, &names)?;
            let (positions, is_enough) = wanted.find(&found.reader)?;
            if is_enough || is_last_try {
                return text(args, &found.reader, &names, &positions);
            }
        } else if is_last_try {
            // A checkpoint that the log does not reach back to: the numbers stand for the names.
            let names = Names::default();
            let (positions, _) = Wanted::of(args, &names)?.find(&found.reader)?;
            return text(args, &found.reader, &names, &positions);
        }
        segments = segments.saturating_mul(2);
    }
}

/// Names of databases and members, by their numbers.
#[derive(Debug, Default)]
struct Names {
    databases: BTreeMap<DatabaseId, String>,
    members: BTreeMap<NodeId, String>,
}

impl Names {
    /// None if what was read does not reach back to the last checkpoint.
    fn of(config: &Config, found: &Found) -> Result<Option<Names>, ShowError> {
        let Some(recovered) = found.recovered() else { return Ok(None) };
        let (node, group, founders) = (config.name.clone(), config.group.clone(), config.members.clone());
        // Of a directory that is there: nothing is written.
        let identity = Identity { node, group, directory: 0, generation: 0, founders }.claim(&config.data_directory)?;
        let mut core = Core::new(core_config(config, &identity), found.reader.clone(), recovered)?;
        remains::replay(&mut core, |_| Ok::<(), CoreError>(()))?;
        let state = core.state();
        let databases = state.databases.iter().map(|(id, database)| (*id, database.name.clone()));
        let members = state.membership.members.iter().map(|member| (member.node, member.name.clone()));
        Ok(Some(Names { databases: databases.collect(), members: members.collect() }))
    }

    fn database(&self, id: DatabaseId) -> String {
        self.databases.get(&id).cloned().unwrap_or_else(|| format!("#{}", id.0))
    }

    /// Of one that is no member any more there is only the number.
    fn member(&self, node: NodeId) -> String {
        self.members.get(&node).cloned().unwrap_or_else(|| node.to_string())
    }
}

/// Which positions.
struct Wanted {
    database: Option<DatabaseId>,
    from: Option<Position>,
    count: usize,
}

impl Wanted {
    fn of(args: &LogArgs, names: &Names) -> Result<Wanted, ShowError> {
        let number = |name: &str| name.strip_prefix('#').and_then(|number| number.parse().ok()).map(DatabaseId);
        let id = |name: &String| {
            let named = names.databases.iter().find(|(_, known)| *known == name).map(|(id, _)| *id);
            named.or_else(|| number(name)).ok_or_else(|| {
                let known: Vec<&str> = names.databases.values().map(String::as_str).collect();
                ShowError::NoDatabase { name: name.clone(), known: known.join(", ") }
            })
        };
        let database = args.database.as_ref().map(id).transpose()?;
        Ok(Wanted { database, from: args.from.map(Position), count: args.count as usize })
    }

    /// In the order of the log, and whether there can be no others that are wanted in front of what was read. From the end backwards.
    fn find(&self, log: &LogReader) -> Result<(VecDeque<(LogIndex, PositionOutcome)>, bool), LogError> {
        let mut found = VecDeque::new();
        let range = log.outcomes();
        for index in (range.start.0..range.end.0).rev() {
            let Some(outcome) = log.outcome(LogIndex(index))? else { continue };
            for position in outcome.positions.into_iter().rev().filter(|position| self.wants(position)) {
                found.push_front((LogIndex(index), position));
            }
            match self.from {
                None if found.len() >= self.count => {
                    found.drain(..found.len() - self.count);
                    return Ok((found, true));
                }
                None => {}
                // Those that are in front of it in all databases that are asked for.
                Some(from) => {
                    found.truncate(self.count.max(1));
                    let mut heads = outcome.heads.iter().filter(|(id, _)| self.database.is_none_or(|wanted| wanted == *id));
                    if heads.all(|(_, head)| *head < from) && !outcome.heads.is_empty() {
                        return Ok((found, true));
                    }
                }
            }
        }
        Ok((found, false))
    }

    fn wants(&self, outcome: &PositionOutcome) -> bool {
        self.database.is_none_or(|database| database == outcome.database)
            && self.from.is_none_or(|from| outcome.position >= from)
    }
}

/// What is shown of a position.
#[derive(Debug, Serialize)]
struct Line {
    /// Of the entry in the log.
    index: u64,
    database: String,
    position: u64,
    verdict: String,
    origin: String,
    application: String,
    /// Of the whole writeset.
    bytes: usize,
    chunks: usize,
    items: BTreeMap<&'static str, u64>,
    statements: Vec<String>,
    tables: Vec<String>,
    /// Not all of it was looked at.
    is_cut: bool,
}

fn text(
    args: &LogArgs,
    log: &LogReader,
    names: &Names,
    positions: &VecDeque<(LogIndex, PositionOutcome)>,
) -> Result<String, ShowError> {
    let mut text = String::new();
    if !args.json {
        text += &format!(
            "{:>9} {:<14} {:>9} {:<28} {:<12} {:>9}  {}\n",
            "index", "database", "position", "verdict", "origin", "bytes", "what"
        );
    }
    for (index, outcome) in positions {
        // Cut off while this was read.
        let Some(line) = line(log, names, *index, outcome)? else { continue };
        if args.json {
            // Strings and numbers always have a JSON form.
            text += &(serde_json::to_string(&line).unwrap_or_default() + "\n");
        } else {
            text += &in_columns(&line);
        }
    }
    Ok(text)
}

fn line(log: &LogReader, names: &Names, index: LogIndex, outcome: &PositionOutcome) -> Result<Option<Line>, ShowError> {
    let failed = |source| ShowError::Entry { index: index.0, source };
    let Some(data) = log.data(index)? else { return Ok(None) };
    let commands = decode_entry(&data).map_err(failed)?;
    let Some(Command::Submit { tag, writeset }) = commands.get(outcome.ordinal as usize) else {
        return Err(failed(WireError::OutOfRange { what: "ordinal of a writeset" }));
    };
    let mut line = Line {
        index: index.0,
        database: names.database(outcome.database),
        position: outcome.position.0,
        verdict: verdict(outcome.verdict, names),
        origin: names.member(tag.node),
        application: String::new(),
        bytes: writeset.len(),
        chunks: outcome.chunks.len(),
        items: BTreeMap::new(),
        statements: Vec::new(),
        tables: Vec::new(),
        is_cut: false,
    };
    let mut body = Vec::new();
    for chunk in &outcome.chunks {
        let Some(data) = log.data(chunk.index)? else {
            line.is_cut = true;
            continue;
        };
        let (_, _, bytes) = chunk_at(&data, chunk.ordinal).map_err(failed)?;
        line.bytes += bytes.len();
        put(&mut body, &bytes, &mut line.is_cut);
    }
    // What is malformed has a position too, and nothing that could be told of it.
    if let Ok(peeked) = Envelope::peek(writeset) {
        line.application = peeked.application.to_owned();
        put(&mut body, &writeset.slice(peeked.body), &mut line.is_cut);
        let Contents { items, statements, tables, is_whole } = Contents::of(&body);
        (line.items, line.statements, line.tables) = (items, statements, tables.into_iter().collect());
        line.is_cut |= !is_whole;
    }
    Ok(Some(line))
}

/// Only what follows what is there can be read on.
fn put(body: &mut Vec<u8>, bytes: &Bytes, is_cut: &mut bool) {
    *is_cut |= body.len() + bytes.len() > LOOKED_AT_BYTES_MAX;
    if !*is_cut {
        body.extend_from_slice(bytes);
    }
}

fn verdict(verdict: Verdict, names: &Names) -> String {
    let cause = match verdict {
        Verdict::Certified { .. } => return "certified".to_owned(),
        Verdict::Aborted(cause) => cause,
    };
    let why = match cause {
        AbortCause::Conflict { winner, winner_node, .. } => format!("conflict, {winner} of {}", names.member(winner_node)),
        AbortCause::BelowHorizon { .. } => "base is too old".to_owned(),
        AbortCause::Malformed => "malformed".to_owned(),
        AbortCause::TokenUsed { first } => format!("token used at {first}"),
        AbortCause::TokenFenced => "token fenced".to_owned(),
        AbortCause::TokenTooOld { .. } => "token is too old".to_owned(),
        AbortCause::LocksLost => "locks lost".to_owned(),
        AbortCause::Prepared { winner, winner_node, .. } => format!("prepared, {winner} of {}", names.member(winner_node)),
        AbortCause::NotPrepared => "not prepared".to_owned(),
        AbortCause::AlreadyPrepared => "already prepared".to_owned(),
        AbortCause::TooManyPrepared => "too many prepared".to_owned(),
    };
    format!("aborted: {why}")
}

fn in_columns(line: &Line) -> String {
    let counts = line.items.iter().map(|(kind, count)| format!("{count} {kind}"));
    let mut what: Vec<String> = counts.chain(line.statements.iter().cloned()).collect();
    if !line.tables.is_empty() {
        what.push(format!("on {}", line.tables.join(", ")));
    }
    if line.is_cut {
        what.push("and more".to_owned());
    }
    let Line { index, database, position, verdict, origin, bytes, .. } = line;
    let text = format!("{index:>9} {database:<14} {position:>9} {verdict:<28} {origin:<12} {bytes:>9}  {}", what.join("; "));
    text.trim_end().to_owned() + "\n"
}

#[cfg(test)]
mod tests {
    use gcs_core::command::encode_entry;
    use gcs_core::{DurableWrite, EntryOutcome};
    use gcs_writeset::{Incarnation, Sequence, SlotId, Tag};
    use raft::eraftpb::Entry;

    use super::*;
    use crate::log::Log;

    /// Each entry holds a position of either database.
    fn fill(log: &mut Log, entries: u64) {
        for index in 1..=entries {
            let ids = [DatabaseId(1), DatabaseId(2)];
            let tag = |database| Tag {
                database,
                node: NodeId(7),
                incarnation: Incarnation(3),
                slot: SlotId(4),
                sequence: Sequence(index),
            };
            let writeset = Bytes::from(Envelope { application: "till".to_owned(), ..Envelope::default() }.encode(b""));
            let commands = ids.map(|id| Command::Submit { tag: tag(id), writeset: writeset.clone() }.encode());
            let verdict = Verdict::Certified { depends_on: Position::ZERO };
            let position = |(ordinal, database)| {
                let chunks = Vec::new();
                PositionOutcome { database, position: Position(index), ordinal, verdict, chunks }
            };
            let outcome = EntryOutcome {
                index: LogIndex(index),
                positions: (0..).zip(ids).map(position).collect(),
                heads: ids.map(|id| (id, Position(index))).to_vec(),
            };
            let entry = Entry { index, term: 1, data: encode_entry(&commands), ..Default::default() };
            log.write(DurableWrite { entries: vec![entry], outcomes: vec![outcome], ..Default::default() }).unwrap();
        }
    }

    fn found(log: &LogReader, database: Option<u32>, from: Option<u64>, count: usize) -> (Vec<(u32, u64)>, bool) {
        let wanted = Wanted { database: database.map(DatabaseId), from: from.map(Position), count };
        let (found, is_enough) = wanted.find(log).unwrap();
        (found.into_iter().map(|(_, outcome)| (outcome.database.0, outcome.position.0)).collect(), is_enough)
    }

    #[test]
    fn the_last_ones_are_shown_or_those_from_a_position_on_and_it_is_known_whether_more_has_to_be_read() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap().0;
        fill(&mut log, 9);
        let log = log.reader();
        assert_eq!(found(&log, None, None, 3), (vec![(2, 8), (1, 9), (2, 9)], true));
        assert_eq!(found(&log, Some(1), None, 2), (vec![(1, 8), (1, 9)], true));
        assert_eq!(found(&log, Some(2), Some(4), 3), (vec![(2, 4), (2, 5), (2, 6)], true));
        assert_eq!(found(&log, None, Some(9), 9), (vec![(1, 9), (2, 9)], true));
        assert_eq!(found(&log, None, Some(1), 1), (vec![(1, 1)], false), "there may be others in front");
        assert!(!found(&log, Some(3), None, 1).1);
    }

    #[test]
    fn a_line_names_what_is_known_and_numbers_what_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let mut log = Log::open(directory.path()).unwrap().0;
        fill(&mut log, 1);
        let names = Names { databases: BTreeMap::from([(DatabaseId(1), "shop".to_owned())]), ..Names::default() };
        let wanted = Wanted { database: None, from: None, count: 9 };
        let lines: Vec<Line> = wanted
            .find(&log.reader())
            .unwrap()
            .0
            .iter()
            .filter_map(|(index, outcome)| line(&log.reader(), &names, *index, outcome).unwrap())
            .collect();
        assert_eq!((lines[0].database.as_str(), lines[1].database.as_str()), ("shop", "#2"));
        assert_eq!((lines[0].application.as_str(), lines[0].verdict.as_str()), ("till", "certified"));
        assert!(!lines[0].is_cut);
    }
}
