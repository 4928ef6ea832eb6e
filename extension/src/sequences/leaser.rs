//! The leaser: one a replicated database. It gets values of sequences from the group, for whoever needs them on this node.
//!
//! A lease is a transaction of its own that moves the sequence's row forward, ordered and certified like every other: two nodes that do it at once
//! find out there, and one does it again. It is a process of its own because PostgreSQL has no transaction inside of another.
//!
//! Between two leases it looks after subscriptions ([`crate::subscriptions::watch`]), since it is there on every node and wakes when members come and go.
//!
//! It waits for nothing for long: a row or a sequence that somebody has locked is left for later, so that others get theirs.

use std::time::{Duration, Instant};

use pgrx::PgSqlErrorCode;
use postgres_r_protocol::lease::Exhausted;

use super::state;
use crate::node::leases::{Asked, Granted, Outcome};
use crate::node::{self, DatabaseArea};
use crate::pg::names;
use crate::pg::relation::Lock;
use crate::pg::sequence::Sequence;
use crate::pg::{interrupt, latch, log, process, worker, xact};
use crate::subscriptions::watch::Watch;
use crate::{guc, session, summons};

/// How long it waits for a lock.
const LOCK_TIMEOUT: &str = "20ms";

/// The pause after a try that came to nothing; it doubles with each.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);

pub fn main(number: u64) {
    let Some(node) = node::get() else { return };
    let Some(area) = node.databases.get(number as usize) else { return };
    let Some(place) = process::me() else { return };
    if !area.is_in_use() || !area.leases.leaser.claim(place) {
        return;
    }
    process::on_exit(move || {
        area.leases.leaser.set(None);
        area.at().wake_manager();
    });
    area.leases.resume();
    session::become_leaser();
    worker::connect(area.oid());
    for (name, value) in [
        ("lock_timeout", LOCK_TIMEOUT),
        ("postgres_r.read_level", "eventual"),
        ("postgres_r.commit_level", "here"),
        ("application_name", "postgres_r leaser"),
    ] {
        worker::set_setting(name, value);
    }
    summons::listen();
    run(area);
}

fn run(area: &DatabaseArea) {
    let mut from = 0;
    let mut watch = Watch::default();
    while area.is_in_use() {
        interrupt::forget_cancel();
        interrupt::check();
        interrupt::reload_config();
        match area.leases.take(from) {
            Some(asked) => {
                from = asked.index + 1;
                worker::report_activity(Some("leasing values of a sequence"));
                serve(area, &asked);
            }
            None => {
                worker::report_activity(None);
                worker::report_statistics(false);
                let again = watch.look(area);
                latch::wait(again);
            }
        }
    }
}

/// Tries until it is clear how the request ends.
fn serve(area: &DatabaseArea, asked: &Asked) {
    let started = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        match lease(asked) {
            Ok(Some(Ok(granted))) => return area.leases.grant(asked, &granted),
            Ok(Some(Err(Exhausted))) => return area.leases.answer(asked, Outcome::Exhausted),
            // It was dropped.
            Ok(None) => return area.leases.answer(asked, Outcome::Failed),
            Err(failed) if started.elapsed() >= guc::commit_timeout() => {
                log::log(format!("could not lease values of a sequence: {}", failed.message), None, None);
                return area.leases.answer(asked, Outcome::TimedOut);
            }
            Err(failed) => match failed.code {
                PgSqlErrorCode::ERRCODE_T_R_SERIALIZATION_FAILURE
                | PgSqlErrorCode::ERRCODE_T_R_DEADLOCK_DETECTED
                | PgSqlErrorCode::ERRCODE_QUERY_CANCELED => {}
                PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => {
                    latch::wait(Some(pause));
                    return area.leases.put_back(asked);
                }
                PgSqlErrorCode::ERRCODE_READ_ONLY_SQL_TRANSACTION => return area.leases.answer(asked, Outcome::NoGroup),
                _ => {
                    log::warn(format!("could not lease values of a sequence: {}", failed.message), None, None);
                    return area.leases.answer(asked, Outcome::Failed);
                }
            },
        }
        if !area.is_in_use() {
            return area.leases.answer(asked, Outcome::NoGroup);
        }
        latch::wait(Some(pause));
        interrupt::forget_cancel();
        interrupt::check();
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// One try, in a transaction. None if there is no such sequence.
fn lease(asked: &Asked) -> Result<Option<Result<Granted, Exhausted>>, xact::Failed> {
    xact::transaction(|| move_forward(asked))
}

fn move_forward(asked: &Asked) -> Option<Result<Granted, Exhausted>> {
    let name = names::qualified_name(asked.sequence)?;
    // The row's lock comes first: who holds it decides what the sequence is like.
    let own = || Sequence::open(asked.sequence, Lock::AccessShare).map(|sequence| sequence.state());
    let group = state::hold_or_make(&name, own)?;
    let sequence = Sequence::open(asked.sequence, Lock::AccessShare)?;
    let declared = sequence.declared()?;
    let size = asked.size.max(u32::try_from(declared.cache).unwrap_or(u32::MAX));
    let (range, after) = match declared.series.lease(group, size, asked.reach) {
        Ok(leased) => leased,
        Err(exhausted) => return Some(Err(exhausted)),
    };
    state::write(&name, after);
    let (file, increment) = (sequence.file(), declared.series.increment);
    Some(Ok(Granted { file, after: group.is_called.then_some(group.last), range, increment }))
}
