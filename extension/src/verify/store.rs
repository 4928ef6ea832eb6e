//! The tables of a verification, read and written. Writing makes the current transaction one of ours ([`super::mark`]).
//!
//! An answer's kind: 0 all is said (`rows` is the position), 1 a whole, 2 a part, 3 a row, 4 to 6 trouble.

use std::collections::HashMap;
use std::time::Duration;

use gcs_writeset::Position;
use postgres_r_protocol::numbered::Numbered;
use postgres_r_protocol::verification::sums::{Bucket, Sums};
use postgres_r_protocol::verification::{Answer, Depth, Finding, Look, Part, Row, Trouble};

use super::mark::{self, Mark};
use crate::pg::query::{self, first_row, literal};

/// Rows that one INSERT has.
const ROWS_AT_ONCE: usize = 500;

/// The verification that is under way.
#[derive(Clone, Debug)]
pub struct Run {
    /// The mark that it began with, which is its number.
    pub id: i64,
    /// Who asked.
    pub node: String,
    /// None if it should have ended.
    pub left: Option<Duration>,
}

pub fn run() -> Option<Run> {
    let sql = "SELECT id, node, (extract(epoch FROM deadline - clock_timestamp()) * 1000)::bigint
               FROM postgres_r.verification_marks WHERE is_first";
    let [Some(id), Some(node), Some(left)] = <[Option<String>; 3]>::try_from(first_row(sql)?).ok()? else { return None };
    let left = left.parse::<i64>().ok()?;
    let left = u64::try_from(left).ok().filter(|&left| left > 0).map(Duration::from_millis);
    Some(Run { id: id.parse().ok()?, node, left })
}

/// Forgets the verification that was under way.
pub fn clear() {
    mark::made(None);
    for table in ["marks", "scope", "answers"] {
        first_row(&format!("DELETE FROM postgres_r.verification_{table}"));
    }
}

/// Forgets results that whoever asked for them has had time to read.
pub fn clear_old_results() {
    first_row("DELETE FROM postgres_r.verification_results WHERE verified_at < clock_timestamp() - interval '1 hour'");
}

/// The time left is counted by each node's own clock.
pub fn begin(run: i64, node: &str, left: Duration) {
    put_mark(run, mark::BEGINS, run, node, left, "true");
}

/// A look: at everything, if there are none.
pub fn order_look(mark: i64, run: i64, node: &str, left: Duration, looks: &[Look]) {
    let rows = looks.iter().map(|look| {
        let buckets: Vec<String> = look.buckets.iter().map(Bucket::to_string).collect();
        let depth = look.depth.number();
        format!("({mark}, {}, {}, {depth})", literal(&look.object), literal(&buckets.join(" ")))
    });
    insert("verification_scope", rows.collect());
    put_mark(mark, mark::LOOKS, run, node, left, "NULL");
}

fn put_mark(id: i64, kind: i16, run: i64, node: &str, left: Duration, is_first: &str) {
    first_row(&format!(
        "INSERT INTO postgres_r.verification_marks
         VALUES ({id}, {kind}, {run}, {}, clock_timestamp() + {} * interval '1 millisecond', {is_first})",
        literal(node),
        left.as_millis()
    ));
    mark::made(Some(Mark { id, kind }));
}

/// Marks after that one at which the nodes were to look.
pub fn looks_after(run: i64, mark: i64) -> Vec<i64> {
    let sql =
        format!("SELECT id FROM postgres_r.verification_marks WHERE kind = 1 AND run = {run} AND id > {mark} ORDER BY id");
    query::rows(&sql).into_iter().filter_map(|row| row.first()?.as_deref()?.parse().ok()).collect()
}

pub fn scope(mark: i64) -> Vec<Look> {
    let sql =
        format!("SELECT object, buckets, depth FROM postgres_r.verification_scope WHERE mark = {mark} ORDER BY object");
    let look = |row: query::Row| {
        let [Some(object), Some(buckets), Some(depth)] = <[Option<String>; 3]>::try_from(row).ok()? else { return None };
        let buckets = buckets.split_whitespace().filter_map(|bucket| bucket.parse().ok()).collect();
        Some(Look { object, buckets, depth: Depth::of(depth.parse().ok()?) })
    };
    query::rows(&sql).into_iter().filter_map(look).collect()
}

/// All that a node says at a mark, and that it is all.
pub fn put_answers(mark: i64, node: &str, answers: &[Answer], position: Position) {
    mark::made(None);
    // What is said of a mark that has been cleared would stay, and nobody would clear it. The lock makes the two transactions conflict: whichever
    // is ordered second runs again, and sees the other.
    let mark_is_there = first_row(&format!("SELECT 1 FROM postgres_r.verification_marks WHERE id = {mark} FOR KEY SHARE"));
    if mark_is_there.is_none() {
        return;
    }
    let node = literal(node);
    let mut rows: Vec<String> = Vec::with_capacity(answers.len() + 1);
    for Answer { object, part } in answers {
        let nth = rows.len() + 1;
        let columns = match part {
            Part::Whole(sums) => format!("1, {}, '{:x}', NULL", sums.rows, sums.sum),
            Part::Bucket(bucket, sums) => format!("2, {}, '{:x}', '{bucket}'", sums.rows, sums.sum),
            Part::Row(row) => format!("3, NULL, '{:x}', {}", row.hash, literal(&format!("{:x} {}", row.identity, row.text))),
            Part::Trouble(Trouble::Changed) => "4, NULL, NULL, NULL".to_owned(),
            Part::Trouble(Trouble::Interrupted(why)) => format!("5, NULL, NULL, {}", literal(why)),
            Part::Trouble(Trouble::Unreadable(why)) => format!("6, NULL, NULL, {}", literal(why)),
        };
        rows.push(format!("({mark}, {node}, {nth}, {}, {columns})", literal(object)));
    }
    rows.push(format!("({mark}, {node}, 0, '', 0, {position}, NULL, NULL)"));
    insert("verification_answers", rows);
}

fn insert(table: &str, rows: Vec<String>) {
    for rows in rows.chunks(ROWS_AT_ONCE) {
        first_row(&format!("INSERT INTO postgres_r.{table} VALUES {}", rows.join(", ")));
    }
}

/// The nodes that have said all, and the mark's position.
pub fn answered(mark: i64) -> HashMap<String, Position> {
    let sql = format!("SELECT node, rows FROM postgres_r.verification_answers WHERE mark = {mark} AND nth = 0");
    let node = |row: query::Row| {
        let [Some(node), Some(position)] = <[Option<String>; 2]>::try_from(row).ok()? else { return None };
        Some((node, Position(position.parse().ok()?)))
    };
    query::rows(&sql).into_iter().filter_map(node).collect()
}

/// What that node said.
pub fn answers(mark: i64, node: &str) -> Vec<Answer> {
    let sql = format!(
        "SELECT object, kind, rows, fingerprint, part FROM postgres_r.verification_answers
         WHERE mark = {mark} AND node = {} AND nth > 0 ORDER BY nth",
        literal(node)
    );
    query::rows(&sql).into_iter().filter_map(answer).collect()
}

fn answer(row: query::Row) -> Option<Answer> {
    let [Some(object), Some(kind), rows, fingerprint, part] = <[Option<String>; 5]>::try_from(row).ok()? else {
        return None;
    };
    let number = |text: &str| u128::from_str_radix(text, 16).ok();
    let fingerprint = fingerprint.as_deref().and_then(number);
    let sums = || Some(Sums { rows: rows.as_deref()?.parse().ok()?, sum: fingerprint? });
    let part = match kind.as_str() {
        "1" => Part::Whole(sums()?),
        "2" => Part::Bucket(part?.parse().ok()?, sums()?),
        "3" => {
            let part = part?;
            let (identity, text) = part.split_once(' ')?;
            Part::Row(Row { identity: number(identity)?, hash: fingerprint?, text: text.to_owned() })
        }
        "4" => Part::Trouble(Trouble::Changed),
        "5" => Part::Trouble(Trouble::Interrupted(part.unwrap_or_default())),
        _ => Part::Trouble(Trouble::Unreadable(part.unwrap_or_default())),
    };
    Some(Answer { object, part })
}

pub fn put_results(run: i64, nodes: &[String], findings: &[Finding], position: Position) {
    mark::made(None);
    let optional = |text: Option<String>| text.map_or_else(|| "NULL".to_owned(), |text| literal(&text));
    let row = |(nth, finding): (usize, &Finding)| {
        let rows = finding.rows.map_or_else(|| "NULL".to_owned(), |rows| rows.to_string());
        format!(
            "({run}, {nth}, {}, {}, '{}', {rows}, {}, {}, {position}, clock_timestamp())",
            literal(&finding.object),
            literal(&nodes[finding.node]),
            finding.verdict.name(),
            optional(finding.key_range()),
            optional(finding.detail.clone()),
        )
    };
    insert("verification_results", findings.iter().enumerate().map(row).collect());
}
